"""Pairs of pictures, judged as such, so that no search stands between: how many that are none are called copies, how many copies are found, and what may be
deleted. `calibrated` says from made pairs of training what a verdict's margin is worth: the table in `groups/verdicts.py`.
"""
import io
import math
from pathlib import Path

import numpy as np
from scipy.stats import beta
from tqdm import tqdm

from _copies import CHOSEN, COPIES, NEGATIVES, SAME_PICTURE, made_pairs
from _report import row
from image_similarity.groups.copies import SAFE
from image_similarity.groups.judging import FINE
from image_similarity.groups.verdicts import Look, Verdict, compare, safety
from image_similarity.images.opening import open_image

Judged = dict[str, list[Verdict | None]]  # kind of pair: what was found of each
Sizes = dict[str, list[int]]               # of the same pairs: the longer side of the smaller picture, pixels
# rows of several kinds; the kinds that nothing was chosen on are marked in `chosen_on`
FALSE = {"plain": ("wallpapers", "line_art"), "forms": ("forms",), "colour": ("shirts", "recoloured"), "views": ("views",), "bursts": ("bursts",), "near_views": ("near_views",)}
FOUND = {"screenshot": ("screenshot", "screenshot_bare"), "watermark": ("watermark",), "crop_40": ("crop_40",), "collage": ("collage_2", "collage_3"), "inset": ("inset",),
         "negative": ("negative",)}
GOALS = {"screenshot": .9, "watermark": .9, "crop_40": .9, "collage": .8, "inset": .8, "negative": .95}
REPORTED = ("bursts", "near_views")  # only reported: fewer pairs, and no goal


def looked_at(file: bytes) -> Look:
    return Look(open_image(file, at_least=FINE), lambda: open_image(file))


def smaller(file: bytes, rng) -> bytes:
    "The picture at .3 to .8 of its size, saved again, some of them roughly."
    image, scale, buffer = open_image(file), rng.uniform(.3, .8), io.BytesIO()
    image.resize([max(32, round(side * scale)) for side in image.size]).save(buffer, "JPEG", quality=int(rng.integers(15, 96)))
    return buffer.getvalue()


def share_row(name: str, hits: np.ndarray, better: str = "higher", goal: float | None = None) -> dict:
    "A share of independent pairs, with the exact interval of Clopper and Pearson: 0 of n bounds the share by 3.7 / n."
    k, n = int(hits.sum()), len(hits)
    low, high = (beta.ppf(.025, k, n - k + 1) if k else 0., beta.ppf(.975, k + 1, n - k) if k < n else 1.)
    return row(name, k / n, float(low), float(high), goal, better, f"{n:,} pairs")


def judge_pairs(data: Path, n: int, training: bool = False, to_calibrate: bool = False) -> tuple[Judged, Sizes]:
    """What is found of `n` pairs of each sort in `FALSE`, a twentieth of each kind of copy. To calibrate, one of a false pair is made smaller every second time, and
    of the copies those are enough that lose nothing, an eighth of each."""
    many = {kind: max(1, n // 8) for kind in SAME_PICTURE} if to_calibrate else {kind: max(1, n // 20) for kind in COPIES}
    many |= {kind: math.ceil(n / len(kinds)) if name not in REPORTED else max(1, n // 4) for name, kinds in FALSE.items() for kind in kinds if not (to_calibrate and kind == "near_views")}
    found: Judged = {kind: [] for kind in many}
    sizes: Sizes = {kind: [] for kind in many}
    for kind in many:
        for at, (a, b) in enumerate(tqdm(made_pairs(kind, many[kind], data, training, seed=0 if training else 1), kind, many[kind])): # the seeds that nobody looked at
            if to_calibrate and kind in NEGATIVES and at % 2: b = smaller(b, np.random.default_rng([many[kind], at]))
            found[kind].append(compare(looked_at(a), looked_at(b)))
            sizes[kind].append(min(max(open_image(file).size) for file in (a, b)))
    return found, sizes


def judged_rows(judged: Judged) -> list[dict]:
    """How many of each kind are called copies, and of those that are none, how many are said to be saved again, and how many would be proposed for
    deletion: who deletes by that loses one. Of the copies each kind on its own, marked where it was chosen on."""
    def of(names, test): return np.array([found is not None and test(found) for name in names for found in judged[name]])
    def again(found: Verdict) -> bool: return found.kind == "saved again"
    def proposed(found: Verdict) -> bool: return again(found) and (safety(found) or 0) >= SAFE
    rows = []
    for name, members in FALSE.items():
        goal = None if name in REPORTED else 0
        rows += [share_row(f"false_{said}_{name}", of(members, test), "lower", goal) for said, test in (("copy", bool), ("saved_again", again), ("proposed", proposed))]
    rows += [share_row(f"recall_alone_{kind}{'_chosen_on' * (kind in CHOSEN)}", of((kind,), bool)) for kind in COPIES]
    return rows + [share_row(f"{said}_{kind}", of((kind,), test)) for said, test in (("said_saved_again", again), ("proposed", proposed)) for kind in SAME_PICTURE]


def calibrated(judged: Judged, sizes: Sizes, margins=(.2, .3, .4, .5, .6, .7, .8, .9, 1., 1.1, 1.2, 1.3), from_sizes=(0, 160, 320, 640)) -> list[tuple[int, float, float]]:
    """From which size and up to which margin, at even odds among pairs of that size, "saved again" is right with which probability. The share of false pairs that
    get there is taken at the upper end of its one-sided interval of 95 %. What says no more than another row is left out; the rest goes into `groups/verdicts.py`."""
    def of(kinds, size: int) -> list[Verdict | None]: return [f for kind in kinds for f, s in zip(judged.get(kind, []), sizes.get(kind, [])) if s >= size]
    table: list[tuple[int, float, float]] = []
    for size in from_sizes:
        false, true = of(NEGATIVES, size), of((kind for kind in SAME_PICTURE if kind != "stretch"), size) # what is stretched is called edited
        if not false or not true: continue
        for margin in margins:
            wrong, right = (sum(f is not None and f.kind == "saved again" and f.margin <= margin and f.size >= size for f in found) for found in (false, true))
            most, share = beta.ppf(.95, wrong + 1, len(false) - wrong) if wrong < len(false) else 1., right / len(true)
            table.append((size, margin, float(share / (share + most))))
            print(f"size {size}, margin {margin}: {wrong} of {len(false)} false, {share:.3f} of {len(true)} true: {table[-1][2]:.5f}")
    needed = [r for r in table if r[2] >= .99 and not any(o != r and o[0] <= r[0] and o[1] >= r[1] and o[2] >= r[2] for o in table)]
    print("SURE =", tuple((size, margin, int(1e4 * p) / 1e4) for size, margin, p in needed))
    return needed
