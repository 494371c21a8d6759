"""What arguing with the answer is worth: good and bad examples, parts of pictures, and what to label next.

**Marks.** A simulated user marks the first results of a plain search as right or wrong, best first; all ways get the same marks, and the query as a good example.
R-precision counts the unmarked items only. Peers, both as Qdrant words them: `mean_vector` (its `average_vector`: the mean of the good examples, moved away from that of the bad ones,
avg_good + avg_good - avg_bad) and `recommend` (its `best_score`: the sigmoid of the best cosine with a good example, or the negated one of a bad example where that is
nearer). Right is: the same kind of clothing, the same breed, the same group of ImageNet's classes (birds, snakes, boats, instruments, …). The way was chosen on drawn pets, on `fashion_clothes`, and on these
groups, which are therefore flattered; clothing and pets were not looked at. Intervals are bootstraps over classes.

**Parts.** Objects of `coil100`, six views each, are pasted into photographs of `imagenet_sample` at 4 to 9 % of the area, at a random place: made pictures, among 500 plain ones. Asked are four other
views of each object; recall@10 is the share of its six pictures among the first ten. The grid was chosen on the same objects, at other places in other pictures.

**Suggestions.** Ten labels at random, then ten answers at a time: chosen by `suggested`, by the smallest margin, or at random. Accuracy on pictures that are never asked about, of the same head for all; 20 seeds.

**Brushes, links, strokes.** See `_brushing.py`.

    python benchmarks/feedback.py --data ../shared/data --json benchmarks/results/feedback.json
"""
import argparse
import csv
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _brushing import brush_rows
from _data import add_arguments, data_folder
from _report import interval, interval_row, measured_before, report, row
from PIL import Image

from image_similarity.encoders.encoder import create_encoder, embed
from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.vectors import ExactVectors
from image_similarity.images.listing import image_files
from image_similarity.images.opening import open_image
from image_similarity.metrics.intervals import bootstrap_interval
from image_similarity.metrics.similarity import normalize
from image_similarity.scoring.marks import fit_marks, helpers_for, marked_head, middle_of, rooted, without
from image_similarity.scoring.suggesting import doubt, fit_labels, suggested

MARKS, QUERIES, SEEDS, ITEMS, VIEWS, PLAIN, REPEATS, ANSWERS, PAIRS = (1, 3, 10), 400, 20, 100_000, 6, 500, 15, 100, 50
GROUPS = {"finches": (1514668, 1622779), "frogs and turtles": (1629819, 1667778), "lizards": (1675722, 1698640), "snakes": (1728572, 1756291), "spiders": (1770081, 1776313),
          "parrots and ducks": (1795545, 1860187), "water birds": (2002556, 2058221), "dogs": (2085620, 2113978), "insects": (2165105, 2281787), "monkeys": (2480495, 2500267), "food": (7710000, 7930000)}  # WordNet numbers
NAMED = {"boats": "canoe yawl speedboat lifeboat gondola catamaran trimaran schooner container_ship liner fireboat pirate aircraft_carrier submarine wreck".split(),
         "instruments": ("acoustic_guitar electric_guitar grand_piano upright violin cello flute oboe bassoon sax trombone harp drum gong marimba banjo accordion harmonica ocarina panpipe organ cornet "
                         "French_horn maraca chime steel_drum drumstick").split()}


def make_small() -> None:
    "As little as can be."
    global QUERIES, SEEDS, ITEMS, VIEWS, PLAIN, REPEATS, ANSWERS, PAIRS
    QUERIES, SEEDS, ITEMS, VIEWS, PLAIN, REPEATS, ANSWERS, PAIRS = 10, 2, 2000, 2, 10, 3, 60, 4


@dataclass(frozen=True)
class Photos:
    "A set, embedded: `units` are what a cosine compares."
    name: str
    units: np.ndarray
    labels: np.ndarray   # '' for none
    files: list
    pooled: np.ndarray
    test: np.ndarray     # bool: never asked about

    @property
    def roots(self) -> np.ndarray: return rooted(self.units)


def group_of(file: Path) -> str:
    "The group of an ImageNet class; '' for one of none."
    number, _, name = file.stem.partition("_")
    found = next((group for group, (low, high) in GROUPS.items() if number[1:].isdigit() and low <= int(number[1:]) <= high), "")
    return found or next((group for group, names in NAMED.items() if name in names), "")


def read(name: str, folder: Path, encoder) -> Photos:
    if name == "pets":
        rows = list(csv.DictReader((folder / "pets/split.csv").open(encoding="utf-8")))
        files, labels, test = [folder / "pets/images" / r["file"] for r in rows], [r["breed"] for r in rows], [r["split"] == "test" for r in rows]
    else:
        files = image_files(folder / ("imagenet_sample" if name == "imagenet" else name))
        labels, test = ([f.parent.name for f in files], [f.parent.parent.name == "test" for f in files]) if name == "clothing" else ([group_of(f) for f in files], [False] * len(files))
    found = embed(files, encoder, description=name)
    labels, test = (np.array(values)[found.kept] for values in (labels, test))
    return Photos(name, normalize(found.pooled[:, encoder.nf:]), labels, found.files, found.pooled, test)


# --- good and bad examples

def mean_vector(units: np.ndarray, good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    towards = units[good].mean(0)
    return units @ (2 * towards - units[bad].mean(0) if len(bad) else towards)


def recommend(units: np.ndarray, good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    best, worst = (units @ units[good].T).max(1), (units @ units[bad].T).max(1) if len(bad) else np.full(len(units), -np.inf)
    return np.where(best > worst, sigmoid(best), -sigmoid(worst))


def marks_of(photos: Photos) -> dict[tuple[str, int], np.ndarray]:
    "R-precision of each query by way and number of marks, and under ('class', 0) the class of each."
    roots, rng = photos.roots, np.random.default_rng(0)
    middle = middle_of(roots, np.ones(len(roots), bool))
    names, counts = np.unique(photos.labels[photos.labels != ""], return_counts=True)
    may = np.flatnonzero(np.isin(photos.labels, names[counts >= 8]))
    found: dict[tuple[str, int], list] = {}
    for query in rng.permutation(may)[:QUERIES]:
        order = np.argsort(-(photos.units @ photos.units[query]), kind="stable")
        order, same = order[order != query], photos.labels == photos.labels[query]
        found.setdefault(("class", 0), []).append(photos.labels[query])
        for n in MARKS:
            marked, left = order[:n], np.ones(len(roots), bool)
            good, bad = np.append(query, marked[same[marked]]).astype(int), marked[~same[marked]]
            left[good] = left[bad] = False
            total = int((same & left).sum())
            ways = {"marks": marked_head(roots, middle, left, roots[good], roots[bad]).scores(roots, middle),
                    "mean_vector": mean_vector(photos.units, good, bad), "recommend": recommend(photos.units, good, bad)}
            for way, scores in ways.items():
                first = np.argsort(-np.where(left, scores, -np.inf), kind="stable")[:total]
                found.setdefault((way, n), []).append(same[first].mean() if total else np.nan)
    return {key: np.array(values) for key, values in found.items()}


def over_classes(sets: list[dict], value) -> "object":
    "A mean over sets of the mean over queries; bootstrapped over the classes of each set."
    classes = [np.unique(one["class", 0]) for one in sets]
    rows = [[np.flatnonzero(one["class", 0] == name) for name in names] for one, names in zip(sets, classes)]
    n = sum(map(len, classes))
    def statistic(drawn):
        counts, start, means = np.bincount(drawn, minlength=n), 0, []
        for one, own in zip(sets, rows):
            weight = np.zeros(len(one["class", 0]))
            for places, count in zip(own, counts[start:start + len(own)]): weight[places] = count
            values, start = value(one), start + len(own)
            weight[np.isnan(values)] = 0
            if weight.sum(): means.append(float((np.nan_to_num(values) * weight).sum() / weight.sum()))
        return float(np.mean(means)) if means else np.nan
    return bootstrap_interval(statistic, n)


def mark_rows(photos: list[Photos]) -> list[dict]:
    sets, rows = {one.name: marks_of(one) for one in photos}, []
    for prefix, some in [("", list(sets.values())), *((f"{name}_", [one]) for name, one in sets.items())]:
        for n in MARKS:
            for way in ("marks", "mean_vector", "recommend"): rows.append(interval_row(f"{prefix}{way}_{n}_r_precision", over_classes(some, lambda one, way=way, n=n: one[way, n])))
            for way, against in (("mean_vector", "averaging the examples"), ("recommend", "Qdrant's recommendation score")):
                goal = {"goal": 0, "by_interval": True} if n > 1 else {}
                rows.append(interval_row(f"{prefix}marks_{n}_minus_{way}", over_classes(some, lambda one, way=way, n=n: one["marks", n] - one[way, n]), against=against, **goal))
    return rows


def speed_rows() -> list[dict]:
    "A head for ten marks, and the ranking of a gallery by it, against one exact search."
    rng = np.random.default_rng(0)
    units = normalize(rng.exponential(size=(ITEMS, 1280)).astype(np.float32) if ITEMS < 5000 else rng.standard_exponential((ITEMS, 1280), np.float32))
    alive, store = np.ones(ITEMS, bool), ExactVectors("cosine")
    store.update(units, alive)
    middle, left = middle_of(units, alive), alive.copy()
    left[:11] = False
    fits, ratios = [], []
    for turn in range(REPEATS):
        good, bad = units[:6], units[6:11]
        started = time.perf_counter()
        store.search(units[turn:turn + 1], 10, alive)
        search = time.perf_counter() - started
        started = time.perf_counter()
        scores = np.where(left, marked_head(units, middle, left, good, bad).scores(units, middle), -np.inf)
        best = np.argpartition(-scores, 9)[:10]
        ratios.append((time.perf_counter() - started) / search)
        assert len(best) == 10
        g, b = without(good, middle), without(bad, middle)
        helpers = helpers_for(units, middle, left, g, b)
        started = time.perf_counter()
        fit_marks(g, b, helpers)
        fits.append(1000 * (time.perf_counter() - started))
    return [row("refit_ms", *interval(fits), goal=100, better="lower"), row("refit_and_rank_over_search", *interval(ratios), goal=2, better="lower", against="one exact search")]


# --- parts

def pasted(background: Image.Image, thing: Image.Image, share: float, rng) -> Image.Image:
    "A thing on a picture, at a random place; its black surroundings stay behind."
    side = max(8, round((share * background.width * background.height) ** .5))
    side, made = min(side, *background.size), background.copy()
    small = thing.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    mask = Image.fromarray(((np.asarray(small).max(2) > 24) * 255).astype(np.uint8))
    made.paste(small, (int(rng.integers(0, made.width - side + 1)), int(rng.integers(0, made.height - side + 1))), mask)
    return made


def folder_bytes(folder: Path) -> int: return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and f.name != "reserve" and f.suffix != ".safetensors")


def part_rows(folder: Path, encoder) -> list[dict]:
    rng, place = np.random.default_rng(1), Path(tempfile.mkdtemp())
    shuffled = lambda files: [files[i] for i in rng.permutation(len(files))]
    backgrounds = shuffled([*image_files(folder / "imagenet_sample")])
    things = sorted({f.name.split("__")[0] for f in image_files(folder / "coil100/images")})
    pictures, asked = place / "pictures", []
    pictures.mkdir()
    for thing in things:
        views = shuffled(sorted((folder / "coil100/images").glob(f"{thing}__*.png")))
        asked += [(thing, view) for view in views[VIEWS:VIEWS + 4]]
        for i, view in enumerate(views[:VIEWS]):
            under = backgrounds.pop() if len(backgrounds) > 1 else backgrounds[0]
            pasted(open_image(under), open_image(view), rng.uniform(.04, .09), rng).save(pictures / f"{thing}__{i}.png")
    for i, file in enumerate(backgrounds[:PLAIN]): open_image(file).save(pictures / f"plain__{i}.png")
    whole, parts = Gallery(place / "whole", encoder), Gallery(place / "parts", encoder, regions=True)
    for gallery in (whole, parts): gallery.add(pictures, progress=True)
    recall = {"whole": [], "region": []}
    for thing, view in asked:
        for name, gallery in (("whole", whole), ("region", parts)):
            found = gallery.search(view, top_k=10, parts=name == "region")
            recall[name].append(sum(r.path.name.split("__")[0] == thing for r in found) / VIEWS)
    values, of = {name: np.array(v) for name, v in recall.items()}, np.array([thing for thing, _ in asked])
    places = [np.flatnonzero(of == thing) for thing in things]
    mean = lambda value: bootstrap_interval(lambda drawn: float(value(np.concatenate([places[i] for i in drawn]))), len(things))
    return [interval_row("region_recall_at_10", mean(lambda some: values["region"][some].mean())), interval_row("whole_recall_at_10", mean(lambda some: values["whole"][some].mean())),
            interval_row("region_recall_over_whole", mean(lambda some: values["region"][some].mean() / max(values["whole"][some].mean(), 1e-9)), goal=2, against="the whole picture"),
            row("region_bytes_ratio", folder_bytes(place / "parts") / folder_bytes(place / "whole"), goal=4, better="lower", against="a gallery without parts")]


# --- what to label next

def labelling(photos: Photos, way: str, seed: int) -> list[float]:
    "Accuracy after 10, 20, … answers."
    rng = np.random.default_rng(seed)
    held = photos.test if photos.test.any() else rng.random(len(photos.labels)) < .25
    rows = photos.roots
    rows = without(rows, middle_of(rows, ~held))
    pool, figures = np.flatnonzero(~held), []
    known = [*rng.permutation(pool)[:10]]
    while True:
        head = fit_labels(rows[known], photos.labels[known].tolist())
        figures.append(float((np.array(head.labels)[head.scores(rows[held]).argmax(1)] == photos.labels[held]).mean()))
        if len(known) >= ANSWERS: return figures
        left = np.setdiff1d(pool, known)
        doubts = doubt(head.scores(rows[left]))
        if way == "random": new = rng.permutation(len(left))[:10]
        elif way == "margin": new = np.argsort(-doubts, kind="stable")[:10]
        else: new = suggested(rows[left], doubts, rows[known], 10)
        known += left[new].tolist()


def suggestion_rows(sets: list[Photos]) -> list[dict]:
    curves = {way: np.array([[labelling(one, way, seed) for seed in range(SEEDS)] for one in sets]) for way in ("suggest", "margin", "random")}  # (sets, seeds, turns)
    rows, at = [], min(5, curves["random"].shape[2]) - 1
    mean = lambda values: bootstrap_interval(lambda drawn: float(values[:, drawn].mean()), SEEDS)
    for prefix, some in [("", slice(None)), *((f"{one.name}_", slice(i, i + 1)) for i, one in enumerate(sets))]:
        for way in curves: rows.append(interval_row(f"{prefix}{way}_accuracy_50", mean(curves[way][some, :, at])))
        rows.append(interval_row(f"{prefix}suggest_50_minus_random", mean(curves["suggest"][some, :, at] - curves["random"][some, :, at]), goal=0, by_interval=True, against="random choice"))
        rows.append(interval_row(f"{prefix}suggest_50_minus_margin", mean(curves["suggest"][some, :, at] - curves["margin"][some, :, at]), goal=0, against="the smallest margin"))
        ours, target = curves["suggest"][some].mean((0, 1)), curves["random"][some].mean((0, 1))[-1]
        rows.append(row(f"{prefix}suggest_answers_for_random_100", 10 * (int((ours >= target).argmax()) + 1) if (ours >= target).any() else ANSWERS + 10, better="lower", goal=ANSWERS))
    return rows


GROUPED = ("marks", "suggestions", "speed", "brushes", "parts")


def main():
    parser = argparse.ArgumentParser(description="What arguing with the answer is worth.")
    add_arguments(parser, "clothing, pets, imagenet_sample and coil100")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--only", nargs="*", choices=GROUPED, default=GROUPED, help="measure these; what the file given by --json says of the others is kept")
    args = parser.parse_args()
    if args.small: make_small()
    folder, encoder = data_folder(args), create_encoder(size=64 if args.small else None)
    photos, rows = {}, []
    def of(*names: str) -> list[Photos]:
        for name in names:
            if name not in photos: photos[name] = read(name, folder, encoder)
        return [photos[name] for name in names]
    measures = {"marks": lambda: mark_rows([one for one in of("clothing", "pets", "imagenet") if (one.labels != "").any()]), "suggestions": lambda: suggestion_rows(of("clothing", "pets")),
                "speed": speed_rows, "brushes": lambda: brush_rows(of("pets")[0], encoder, PAIRS), "parts": lambda: part_rows(folder, encoder)}
    for group in GROUPED:
        if group not in args.only: continue
        rows += measures[group]()
        report(rows + measured_before(args.json, {row["name"] for row in rows}), args.json) # kept, whatever happens next


if __name__ == "__main__":
    main()
