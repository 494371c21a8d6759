"""The whole search for copies: what it finds in a folder of photos and their copies, which file it keeps, how long it takes beside the embedding and beside
an earlier commit, and how much memory 100,000 files need.

    python benchmarks/_whole.py pairs FILE    seconds that this commit needs for the pairs of files in FILE, each with whether spots may decide (of the earlier one: with its path in PYTHONPATH)
    python benchmarks/_whole.py large FOLDER  the most memory, with simulated files made from the signatures and embeddings of those in FOLDER
"""
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from _report import row

Pairs = list[tuple[str, str, bool]] # and whether spots may decide


def _seconds(pairs: Pairs) -> float:
    "To decide pairs: whether each is a copy. Whatever is made once for a file counts."
    try: from image_similarity.groups.judging import Judge
    except ImportError: decided = _before
    else:
        from image_similarity.groups.candidates import read_signature
        from image_similarity.groups.landmarks import spots
        from image_similarity.images.opening import open_image
        read = {file: read_signature(file) for *pair, _ in pairs for file in pair}
        def decided(pairs: Pairs) -> None:
            made = {file: replace(s, spots=spots(np.asarray(open_image(file, at_least=256).convert("L")))) for file, s in read.items()}  # once more: it is part of the work
            list(Judge(processes=1)([(made[a], made[b]) for a, b, _ in pairs], [glance for *_, glance in pairs]))
        decided(pairs[:2])
    start = time.perf_counter()
    decided(pairs)
    return time.perf_counter() - start


def _before(pairs: Pairs) -> None:
    "As commit ec3def5 did it."
    from functools import lru_cache
    from image_similarity.alignment import View, align
    from image_similarity.images import open_image
    view = lru_cache(300)(lambda file: View(open_image(file, at_least=256)))
    for a, b, _ in pairs: align(view(a), view(b), .8)


def pairs_compared(signatures: list, unit: np.ndarray, kept: Path, most: int = 300) -> Pairs:
    "Pairs that a search compares: all of files that are drawn at random. `kept` is where a search has kept what it said of them."
    from image_similarity.groups.duplicates import compare_candidates
    from image_similarity.groups.judging import Judge
    asked: dict[str, Pairs] = {}
    class Noting(Judge):
        def __call__(self, pairs, glance):
            for (a, b), at_once in zip(pairs, glance): asked.setdefault(str(a.path), []).append((str(a.path), str(b.path), bool(at_once)))
            return super().__call__(pairs, glance)
    compare_candidates(signatures, Noting(kept), unit, progress=False)
    drawn = np.random.default_rng(0).permutation(sorted(asked)).tolist()
    return [pair for file in drawn for pair in asked[file]][:most]


def _run(*args: str, at: Path | None = None) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(at or Path(__file__).resolve().parents[1])}
    return subprocess.run([sys.executable, __file__, *args], env=environment, check=True, capture_output=True, text=True).stdout.split()[-1]


def pairs_per_second_rows(pairs: Pairs, before: Path, suffix: str = "", goal: float | None = None, turns: int = 3) -> list[dict]:
    "Of this commit, of the one in the folder `before`, and the ratio."
    if not pairs: return []
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(pairs, file); file.flush()
        ours, theirs = zip(*[(float(_run("pairs", file.name)), float(_run("pairs", file.name, at=before))) for _ in range(turns)])
    ratios = [t / o for o, t in zip(ours, theirs)]
    return [row(f"pairs_per_second{suffix}", len(pairs) / min(ours)), row(f"pairs_per_second_before{suffix}", len(pairs) / min(theirs), against="commit ec3def5"),
            row(f"pairs_per_second_over_before{suffix}", float(np.median(ratios)), min(ratios), max(ratios), goal, against="commit ec3def5, the same pairs by turns")]


def _large(seen: str, n: int = 100_000) -> float:
    "GB at most, for candidates and verdicts among simulated files: signatures of real ones, bits of hashes and spots turned at random, and mixtures of two real embeddings."
    from image_similarity.groups.candidates import Signature, read_signatures
    from image_similarity.groups.duplicates import compare_candidates
    from image_similarity.groups.judging import Judge
    from image_similarity.groups.landmarks import Spots
    from image_similarity.metrics.similarity import normalize
    files = json.loads((Path(seen) / "files.json").read_text())
    signatures, unit = [s for s in read_signatures([Path(f) for f in files], progress=False) if isinstance(s, Signature)], np.load(Path(seen) / "unit.npy")
    if len(signatures) < len(files): raise RuntimeError("a picture has gone meanwhile")
    rng, made = np.random.default_rng(0), []
    half = np.empty((n, unit.shape[1]), np.float16)
    for i in range(n):
        a, b = rng.integers(len(signatures), size=2)
        s = signatures[a]
        turned = np.packbits(rng.random((len(s.spots.bits), 128)) < .15, axis=1)  # another photo's spots differ in more
        hashes = s.hashes ^ np.packbits(rng.random((8, 64)) < .3, axis=1)
        made.append(replace(s, path=Path(f"/nowhere/{i}.jpg"), content=f"{i:032x}", hashes=hashes, spots=Spots(s.spots.places, s.spots.bits ^ turned), inode=None))
        half[i] = normalize(unit[a] * rng.uniform(.5, 1) + unit[b] * rng.uniform(.2, .7))
    with tempfile.TemporaryDirectory() as folder: compare_candidates(made, Judge(Path(folder)), half, progress=True)
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20


def peak_gb(signatures: list, unit: np.ndarray) -> float:
    with tempfile.TemporaryDirectory() as seen:
        (Path(seen) / "files.json").write_text(json.dumps([str(s.path) for s in signatures]))
        np.save(Path(seen) / "unit.npy", unit.astype(np.float32))
        return float(_run("large", seen))


# What it finds.

def _written(folder: Path, name: str, data: bytes) -> Path:
    file = folder / (name + (".png" if data.startswith(b"\x89PNG") else ".jpg"))
    file.write_bytes(data)
    return file


def copied(folder: Path, data: Path, n: int, kinds: Callable, seed: int) -> dict[Path, dict[str, Path]]:
    "Originals, and the file of each kind of copy that `kinds` draws for one."
    from _copies import COPIES, _photo, saved
    made = {}
    for i in range(n):
        rng = np.random.default_rng([7, seed, i])
        image = _photo(rng, data)
        original = _written(folder, f"{i:04}", saved(image, rng, .2, (85, 97)))
        made[original] = {kind: _written(folder, f"{i:04}_{kind}", saved(COPIES[kind](image, rng, data).convert("RGB"), rng, .15, (60, 92))) for kind in kinds(rng)}
    return made


def found_of(made: dict[Path, dict[str, Path]], found) -> dict[str, np.ndarray]:
    "For each kind, which of its copies are listed with their original."
    listed: dict[Path, set[Path]] = {}
    for group in found:
        files = {group.keep, *(c.path for c in group.copies)}
        for file in files: listed.setdefault(file, set()).update(files)
    kinds = sorted({kind for copies in made.values() for kind in copies})
    return {kind: np.array([copies[kind] in listed.get(original, ()) for original, copies in made.items() if kind in copies]) for kind in kinds}


def kept_best(data: Path, n: int, seed: int = 1) -> np.ndarray:
    "Of originals with three copies each, of any kinds that show one photo: which are kept."
    from _copies import COPIES
    from image_similarity.groups.duplicates import find_duplicates
    kinds = [kind for kind in COPIES if not kind.startswith(("screenshot", "collage", "inset"))]
    with tempfile.TemporaryDirectory() as folder:
        made = copied(Path(folder), data, n, lambda rng: rng.choice(kinds, 3, replace=False).tolist(), seed)
        kept = {file: group.keep for group in find_duplicates([f for original, copies in made.items() for f in (original, *copies.values())]) for file in (group.keep, *(c.path for c in group.copies))}
    return np.array([kept[original] == original for original in made if original in kept])


if __name__ == "__main__":
    what, file = sys.argv[1:3]
    print(_seconds(json.loads(Path(file).read_text())) if what == "pairs" else _large(file))
