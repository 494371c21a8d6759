"""Are copies found and bursts left alone, beside imagededup's two recipes; do clusters follow classes, beside k-means?

Copies are made of photos: flipped, turned, resized, stretched, rotated, cropped, compressed, written on. They lie among photos that
resemble each other and are no copies: pets of one breed, photos of one object from all sides. What was chosen was chosen on other
photos: the peers' thresholds on Flickr8k, product photos and COIL-100's training objects, what counts as agreement on Flickr8k,
product photos and pairs of COIL-100 (test objects among them), the way of clustering on COIL-100, product photos, ImageNet's animals, digits,
drawn pets and mixtures of these. Measured is on imagededup's own files, on copies of its photos and of ImageNet's, among pets and COIL-100's test objects; and
the clusters of clothing and pets, which were looked at when merging was chosen and are a little flattered; beside them those of drawn pets, of product photos by type and of a mixture of everything with up to 24
photos of a class, whose parts had a say in that.

    python benchmarks/duplicates.py --data ../shared/data --json benchmarks/results/duplicates.json
"""
import argparse
import csv
import io
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import faiss
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps
from scipy.cluster.hierarchy import DisjointSet
from scipy.fft import dct
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score
from tqdm import tqdm

from _copies import CHOSEN, COPIES, NEW
from _data import add_arguments, data_folder
from _judged import FOUND, GOALS, calibrated, judge_pairs, judged_rows, share_row
from _report import interval_row, measured_before, report, row
from _whole import copied, found_of, kept_best, pairs_compared, pairs_per_second_rows, peak_gb
from image_similarity.groups.clusters import Clusters, find_clusters
from image_similarity.groups.neighbours import embedding_neighbours
from image_similarity.groups.candidates import Signature, hash_candidates, neighbour_candidates, read_signatures, spot_candidates
from image_similarity.groups.duplicates import THRESHOLD, find_duplicates
from image_similarity.groups.judging import Judge
from image_similarity.drawing.pets import sample_pets
from image_similarity.encoders.encoder import create_encoder, embed
from image_similarity.images.errors import ImageError
from image_similarity.images.listing import image_files, label_func
from image_similarity.images.opening import open_image
from image_similarity.metrics.intervals import bootstrap_interval
from image_similarity.metrics.similarity import normalize

SEEDS = (0, 1, 2)  # of k-means
N_TRAINING, N_COPIED = 40, 30  # photos that are copied: for choosing thresholds, and of ImageNet's
N_PAIRS = 2000  # of each sort of pairs that are no copies; a twentieth as many copies of each kind
SIZE = None  # of the encoder's input: its own


def make_small() -> None:
    "Run as briefly as can be."
    global SEEDS, N_TRAINING, N_COPIED, N_PAIRS, SIZE, bootstrap_interval
    SEEDS, N_TRAINING, N_COPIED, N_PAIRS, SIZE = (0,), 2, 2, 1, 64
    bootstrap_interval = partial(bootstrap_interval, n_resamples=20)


# Copies of a photo.

def _part(image, rng, share):
    "A random part of the picture, of its shape and with `share` of its area."
    width, height = (round(side * share**.5) for side in image.size)
    x, y = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    return image.crop((x, y, x + width, y + height))


def _rotated(image, rng, least, most):
    return image.rotate(rng.choice((-1, 1)) * rng.uniform(least, most), Image.Resampling.BICUBIC)


def _written_on(image, rng):
    image = image.copy()
    text = str(rng.choice(["SOLD OUT", "For sale!  $ 25", "SAMPLE PICTURE", "Happy Birthday"]))
    font = ImageFont.load_default(size=max(10, image.height // 9))
    place = (.06 * image.width, rng.uniform(.05, .8) * image.height)
    ImageDraw.Draw(image).text(place, text, tuple(rng.choice((0, 255), 3).tolist()), font, stroke_width=2, stroke_fill="white")
    return image


def _compressed(image, rng):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(10, 30)))
    return Image.open(buffer).convert("RGB")


KINDS: dict[str, Callable] = {  # name: picture and random numbers to a copy
    "flip": lambda image, rng: ImageOps.mirror(image),
    "turn": lambda image, rng: image.transpose(Image.Transpose.ROTATE_90),
    "resize": lambda image, rng: image.resize([max(8, round(side * .4)) for side in image.size]),
    "stretch": lambda image, rng: image.resize((300, 300)),
    "rotate_slightly": lambda image, rng: _rotated(image, rng, 3, 12),
    "rotate": lambda image, rng: _rotated(image, rng, 15, 40),
    "crop": lambda image, rng: _part(image, rng, rng.uniform(.65, .9)),
    "crop_small": lambda image, rng: _part(image, rng, rng.uniform(.4, .6)),
    "jpeg": _compressed,
    "text": _written_on,
    "grey": lambda image, rng: ImageOps.grayscale(image),
    "light": lambda image, rng: ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(1.3)).enhance(.8),
    "flip_crop": lambda image, rng: ImageOps.mirror(_part(image, rng, .65)),
    "crop_text": lambda image, rng: _written_on(_part(image, rng, .75), rng),
}


@dataclass
class Pictures:
    "Files, and which photo each shows: two files of one photo are copies."
    files: list[Path] = field(default_factory=list)
    photos: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def add(self, file, photo, kind="") -> None:
        self.files.append(Path(file)); self.photos.append(photo); self.kinds.append(kind)

    def add_copies(self, file, photo, folder: Path, rng) -> None:
        "A copy of each kind, drawn into `folder`."
        image = open_image(file)
        for kind, made in KINDS.items():
            copy = folder / f"{len(self.files):05}_{kind}.jpg"
            made(image, rng).convert("RGB").save(copy, quality=int(rng.integers(60, 95)))
            self.add(copy, photo, kind)


def readable(files) -> list[Path]:
    def opens(file):
        try: return bool(open_image(file, at_least=64))
        except ImageError: return False
    return [file for file in files if opens(file)]


def coil_objects(data: Path, split: str) -> set[str]:
    "Which objects COIL-100's table of pairs names."
    rows = csv.DictReader((data / "coil100" / f"{split}.csv").open(encoding="utf-8"))
    return {row[column].split("__")[0] for row in rows for column in ("Image1", "Image2")}


def view_of(file: Path) -> tuple[str, int] | None:
    "Object and angle of one of COIL-100's photos."
    found = re.fullmatch(r"(obj\d+)__(\d+)", file.stem)
    return (found[1], int(found[2])) if found else None


def add_bursts(pictures: Pictures, data: Path, split: str, up_to: int = 360) -> None:
    "Views of COIL-100's objects from 0° to `up_to`: many photos of one thing, 5° apart, and no two of them the same photo."
    objects = coil_objects(data, split)
    for file in image_files(data / "coil100"):
        name, angle = view_of(file)
        if name in objects and angle < up_to: pictures.add(file, str(file))


def training_pictures(data: Path, folder: Path) -> Pictures:
    "For choosing thresholds: copies of 40 photos of Flickr8k, among the others, product photos, and one side of some objects."
    pictures, rng = Pictures(), np.random.default_rng(1)
    photos = image_files(data / "flickr8k_sample")
    for file in [*photos, *image_files(data / "fashion_clothes")[::3]]: pictures.add(file, str(file), "original")
    for file in photos[:N_TRAINING]: pictures.add_copies(file, str(file), folder, rng)
    add_bursts(pictures, data, "train", up_to=90)
    return pictures


def measured_pictures(data: Path, folder: Path) -> Pictures:
    "imagededup's files and copies of its photos and of 30 of ImageNet's, among the others, pets, and two sides of other objects."
    pictures, rng, seen = Pictures(), np.random.default_rng(2), set()
    for file in readable(image_files(data / "imagededup")):
        photo = "ukbench00120" if file.stem == "alpha_channel_image" else re.sub(r"_.*", "", file.stem)  # it shows that photo
        first = "base_images" in file.parts and photo not in seen
        pictures.add(file, photo, "original" if first else "imagededup")
        if not first: continue
        seen.add(photo)
        pictures.add_copies(file, photo, folder, rng)
    photos = image_files(data / "imagenet_sample")
    for file in photos: pictures.add(file, str(file), "original")
    for i in np.sort(rng.permutation(len(photos))[:N_COPIED]): pictures.add_copies(photos[i], str(photos[i]), folder, rng)
    for file in image_files(data / "pets" / "images"): pictures.add(file, str(file))
    add_bursts(pictures, data, "test", up_to=180)
    return pictures


# The peers. imagededup's own weights cannot be had here, so its CNN recipe runs on our encoder: averages over the last feature map, cosine.

def imagededup_hash(file) -> np.ndarray:
    "imagededup's pHash: its median leaves the first coefficient out."
    grey = np.asarray(open_image(file).convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = dct(dct(grey, axis=0), axis=1)[:8, :8].ravel()
    return np.packbits(low >= np.median(low[1:]))


def hash_pairs(hashes: np.ndarray, most: int) -> np.ndarray:
    "(p, 3) pairs whose hashes differ in at most `most` bits, and in how many."
    index = faiss.IndexBinaryFlat(64)
    index.add(hashes)
    ends, distances, items = index.range_search(hashes, most + 1)
    rows = np.repeat(np.arange(len(hashes)), np.diff(ends).astype(int))
    return np.stack([rows, items, distances.astype(float)], 1)[rows < items]


def cosine_pairs(unit: np.ndarray, least: float) -> np.ndarray:
    "(p, 3) pairs of at least this cosine, and the cosine."
    cosines = np.triu(unit @ unit.T, 1)
    i, j = np.nonzero(cosines >= least)
    return np.stack([i, j, cosines[i, j]], 1)


def joined(pairs: np.ndarray, n: int) -> np.ndarray:
    "(n,) number of the group of each file when all pairs are joined."
    groups = DisjointSet(range(n))
    for i, j in pairs[:, :2].astype(int).tolist(): groups.merge(i, j)
    return np.unique([groups[i] for i in range(n)], return_inverse=True)[1]


def pairs_of_groups(groups: np.ndarray) -> np.ndarray:
    "(p, 2) every two files of one group."
    same = np.triu(groups[:, None] == groups[None], 1)
    return np.argwhere(same)


def czkawka_groups(python: Path, pictures: Pictures, level: int | None) -> np.ndarray:
    "(n,) number of the group of each file, as czkawka's bindings say it; at their own level where none is given."
    program = "import json, sys, czkawka; f = czkawka.ImageSimilarity(); f.set_directories([sys.argv[1]])\nif sys.argv[2]: f.set_similarity(int(sys.argv[2]))\n" \
              "print('\\n' + json.dumps([[str(path) for path in group] for group in f.find_similar()]))"
    with tempfile.TemporaryDirectory() as folder:
        for i, file in enumerate(pictures.files): shutil.copy(file, Path(folder) / f"{i}{file.suffix}")
        said = subprocess.run([python, "-c", program, folder, "" if level is None else str(level)], check=True, capture_output=True, text=True).stdout
    pairs = [(int(Path(group[0]).stem), int(Path(path).stem)) for group in json.loads(said.splitlines()[-1]) for path in group[1:]]
    return joined(np.array(pairs).reshape(-1, 2), len(pictures.files))


def best_level(python: Path, pictures: Pictures) -> int:
    "The one with the best F1 on the training pictures."
    return max((0, 2, 5, 8, 10, 12, 15, 20, 30), key=lambda level: Counts.of(pairs_of_groups(czkawka_groups(python, pictures, level)), pictures).f1())


def czkawka_rows(python: Path, pictures: Pictures, levels: dict[str, int | None]) -> list[dict]:
    "By its own level, and by the best one."
    rows = []
    for name, level in levels.items():
        groups = czkawka_groups(python, pictures, level)
        rows += copy_rows(f"czkawka_{name}", Counts.of(pairs_of_groups(groups), pictures)) + burst_rows(f"czkawka_{name}", groups, pictures)
        if level is not None: rows.append(row(f"czkawka_{name}level", level))
    return rows


# Figures.

@dataclass(frozen=True)
class Counts:
    "Pairs, counted by the photo of the first file, so that photos can be resampled."
    right: np.ndarray; found: np.ndarray; wanted: np.ndarray

    @classmethod
    def of(cls, pairs: np.ndarray, pictures: Pictures):
        numbers = np.unique(pictures.photos, return_inverse=True)[1]
        i, j = pairs[:, :2].astype(int).T
        same, n = numbers[i] == numbers[j], numbers.max() + 1
        members = np.bincount(numbers)
        return cls(np.bincount(numbers[i][same], minlength=n), np.bincount(numbers[i], minlength=n), members * (members - 1) // 2)

    def precision(self, at=slice(None)) -> float: return self.right[at].sum() / found if (found := self.found[at].sum()) else np.nan
    def recall(self, at=slice(None)) -> float: return self.right[at].sum() / wanted if (wanted := self.wanted[at].sum()) else np.nan
    def f1(self) -> float: return 2 * self.right.sum() / (self.found.sum() + self.wanted.sum())


def copy_rows(name: str, counts: Counts) -> list[dict]:
    "Precision and recall of one system."
    n = len(counts.found)
    return [interval_row(f"{name}duplicate_precision", bootstrap_interval(counts.precision, n)),
            interval_row(f"{name}duplicate_recall", bootstrap_interval(counts.recall, n))]


def difference_rows(peer: str, ours: Counts, theirs: Counts) -> list[dict]:
    "What we have more than a peer, on the same resampled photos."
    n = len(ours.found)
    return [interval_row(f"duplicate_{what}_minus_{peer}", bootstrap_interval(lambda at: getattr(ours, what)(at) - getattr(theirs, what)(at), n), against=peer)
            for what in ("precision", "recall")]


def kind_rows(name: str, groups: np.ndarray, pictures: Pictures) -> list[dict]:
    "For each kind of copy: how many are in one group with their original."
    number = {photo: groups[i] for i, (photo, kind) in enumerate(zip(pictures.photos, pictures.kinds)) if kind == "original"}
    rows = []
    for kind in KINDS:
        hit = np.array([float(groups[i] == number[photo]) for i, (photo, k) in enumerate(zip(pictures.photos, pictures.kinds)) if k == kind and photo in number])
        rows.append(interval_row(f"{name}duplicate_recall_{kind}", bootstrap_interval(lambda at: float(hit[at].mean()), len(hit))))
    return rows


def burst_rows(name: str, groups: np.ndarray, pictures: Pictures) -> list[dict]:
    "Photos of one object, 5° apart: how many such pairs are called copies."
    views = {view: i for i, file in enumerate(pictures.files) if (view := view_of(file))}
    wrong = np.array([float(groups[i] == groups[views[o, d + 5]]) for (o, d), i in sorted(views.items()) if (o, d + 5) in views])
    return [interval_row(f"{name}burst_called_copy", bootstrap_interval(lambda at: float(wrong[at].mean()), len(wrong)), better="lower")]


def our_groups(pictures: Pictures, unit: np.ndarray, threshold: float) -> np.ndarray:
    "(n,) number of the group of each file."
    groups = np.arange(len(pictures.files))
    for group in find_duplicates(pictures.files, unit, threshold): groups[[c.place for c in group.copies]] = group.place
    return groups


def best_threshold(pairs: np.ndarray, pictures: Pictures, thresholds, keep: Callable) -> float:
    "The one with the best F1 of joined pairs on the training pictures."
    n = len(pictures.files)
    scored = [(Counts.of(pairs_of_groups(joined(pairs[keep(pairs[:, 2], t)], n)), pictures).f1(), t) for t in thresholds]
    return max(scored, key=lambda s: s[0])[1]


# Clusters.

def labelled(data: Path, name: str) -> tuple[list[Path], list[str]]:
    "Photos and their classes."
    files = image_files(data / name)
    return files, [label_func(f) if name == "pets" else f.parent.name for f in files]


ANIMALS = {"fish": [(1440764, 1496331), (2514041, 2655020)], "birds": [(1514668, 1622779), (1795545, 1860187), (2002556, 2058221)], "reptiles": [(1629819, 1756291)],
           "spiders": [(1768244, 1784675)], "dogs": [(2085620, 2113978)], "beasts of prey": [(2114367, 2138441)], "insects": [(2165105, 2281787)],
           "hoofed": [(2389026, 2437616)], "primates": [(2480495, 2500267)]}  # WordNet numbers, from and to


def groups_of_imagenet(data: Path) -> tuple[list[Path], list[str]]:
    "Photos of animals, and which kind those are."
    found = [(file, kind) for file in image_files(data / "imagenet_sample") for kind, bands in ANIMALS.items()
             if (number := file.stem.partition("_")[0][1:]).isdigit() and any(low <= int(number) <= high for low, high in bands)]
    return [file for file, _ in found], [kind for _, kind in found]


def types_of_products(data: Path, fewest: int = 20) -> tuple[list[Path], list[str]]:
    "Product photos, and their types; without types of fewer photos."
    with (data / "fashion_clothes/sample_styles.csv").open(encoding="utf-8") as file:
        types = {r["id"]: r.get("articleType") or r["productDisplayName"].split()[0] for r in csv.DictReader(file)}
    files = [f for f in image_files(data / "fashion_clothes") if f.stem in types]
    frequent = {name for name, n in Counter(types[f.stem] for f in files).items() if n >= fewest}
    kept = [f for f in files if types[f.stem] in frequent]
    return kept, [types[f.stem] for f in kept]


def mixture(parts: dict[str, tuple[list[Path], np.ndarray, list[str]]], each: int = 24) -> tuple[list[Path], np.ndarray, list[str]]:
    "Files, units and classes of many sets in one, at most `each` of a class."
    rng, out = np.random.default_rng(0), ([], [], [])
    for name, (files, unit, labels) in parts.items():
        for label in sorted(set(labels)):
            rows = rng.permutation(np.flatnonzero(np.array(labels) == label))[:each]
            for column, values in zip(out, ([files[i] for i in rows], list(unit[rows]), [f"{name} {label}"] * len(rows))): column.extend(values)
    return out[0], np.array(out[1]), out[2]


@dataclass(frozen=True)
class Sorted:
    """Photos of one set, sorted by us, by k-means, which is told the number of classes, by k-means with as many clusters as we find, and by
    HDBSCAN on the embeddings themselves. A photo that is put into no cluster counts as a cluster of its own."""
    name: str
    truth: np.ndarray                 # (n,)
    clusters: Clusters                # ours
    found: dict[str, list[np.ndarray]] # of each system, (n,) a run; ours is ""

    @classmethod
    def of(cls, name: str, files: list[Path], unit: np.ndarray, labels: list[str]):
        truth, clusters = np.unique(labels, return_inverse=True)[1], find_clusters(files, embedding_neighbours(unit))
        def alone(groups): return np.where(groups < 0, len(files) + np.arange(len(files)), groups)
        def k_means(k): return [KMeans(k, n_init=10, random_state=seed).fit_predict(unit) for seed in SEEDS]
        return cls(name, truth, clusters, {
            "": [alone(clusters.groups)], "kmeans": k_means(truth.max() + 1), "kmeans_same_number": k_means(len(clusters)),
            "hdbscan": [alone(HDBSCAN(min_cluster_size=10, copy=True).fit_predict(unit))]})

    def index(self, system: str, at: np.ndarray) -> float:
        "Adjusted Rand index on some of the photos, the mean of all runs."
        return float(np.mean([adjusted_rand_score(self.truth[at], groups[at]) for groups in self.found[system]]))


def mean_index(sets: list[Sorted], system: str, at: np.ndarray) -> float:
    "The mean over the sets; `at` are places among the photos of all sets, one set after the other."
    starts = np.cumsum([0] + [len(s.truth) for s in sets])
    return float(np.mean([s.index(system, at[(at >= start) & (at < end)] - start) for s, start, end in zip(sets, starts, starts[1:])]))


def index_rows(sets: list[Sorted], suffix: str = "") -> list[dict]:
    "Adjusted Rand index of each system, and how much more ours is, on the same resampled photos."
    n = sum(len(s.truth) for s in sets)
    rows = [interval_row(f"cluster_ari{suffix}", bootstrap_interval(lambda at: mean_index(sets, "", at), n))]
    for peer in list(sets[0].found)[1:]:
        rows += [interval_row(f"{peer}_cluster_ari{suffix}", bootstrap_interval(lambda at: mean_index(sets, peer, at), n)),
                 interval_row(f"cluster_ari{suffix}_minus_{peer}", bootstrap_interval(lambda at: mean_index(sets, "", at) - mean_index(sets, peer, at), n),
                      goal=0, against=peer, by_interval=True)]
    return rows


def cluster_rows(sets: list[Sorted], others: list[Sorted]) -> list[dict]:
    "The mean over the sets, and each set on its own; the others only on their own."
    rows = index_rows(sets)
    for s in [*sets, *others]:
        rows += index_rows([s], f"_{s.name}")
        rows += [row(f"clusters_found_{s.name}", len(s.clusters), against=f"{s.truth.max() + 1} classes"),
                 row(f"share_in_no_cluster_{s.name}", len(s.clusters.loners) / len(s.truth), better="lower")]
    return rows


# The whole search.

def whole_rows(data: Path, encoder, small: bool, before: Path | None) -> list[dict]:
    """What is found of each kind of copy in a folder of photos and their copies, which file is kept, how long that takes beside the embedding and
    an earlier commit, and how much memory 100,000 files need."""
    others = image_files(data / "pets" / "images")[:4 if small else 500]
    def search(files, description: str, name: str, goal: float | None = None):
        "Embed them, look for copies, and say how long both took."
        start = time.perf_counter()
        unit = embeddings_of(files, encoder, description)
        embedded = time.perf_counter()
        found = find_duplicates(files, unit, kept=Path(kept) / description)
        seconds = row(name, (time.perf_counter() - embedded) / (embedded - start), goal=goal, better="lower", against="embedding the same files")
        return unit, found, seconds, [s for s in read_signatures(files) if isinstance(s, Signature)]
    with tempfile.TemporaryDirectory() as kept, tempfile.TemporaryDirectory() as folder:
        made = copied(Path(folder), data, N_COPIED, lambda rng: list(COPIES), 1)
        files = [*(f for original, copies in made.items() for f in (original, *copies.values())), *others]
        unit, found, seconds, signatures = search(files, "copies", "seconds_per_1000_photos_over_embedding_many_copies")
        hits, rows = found_of(made, found), [seconds]
        rows += [share_row(f"recall_{name}", np.concatenate([hits[kind] for kind in kinds]), goal=GOALS[name]) for name, kinds in FOUND.items()]
        rows += [share_row(f"recall_whole_{kind}{'_chosen_on' * (kind in CHOSEN)}", hits[kind]) for kind in COPIES]
        known = [kind for kind in COPIES if kind not in ("crop_20", *NEW) and not any(kind in kinds for kinds in FOUND.values())]
        rows.append(share_row("recall_found_before", np.concatenate([hits[kind] for kind in known]), goal=.98))
        if before is not None: rows += pairs_per_second_rows(pairs_compared(signatures, unit, Path(kept) / "copies"), before, "_many_copies")
        photos = readable([f for name in ("pets", "clothing", "imagenet_sample", "flickr8k_sample") for f in image_files(data / name)][::2][:4 if small else 1000])
        unit, _, seconds, signatures = search(photos, "photos", "seconds_per_1000_photos_over_embedding", .5)
        rows.append(seconds)
        if before is not None: rows += pairs_per_second_rows(pairs_compared(signatures, unit, Path(kept) / "photos"), before, goal=10)
        if not small: rows.append(row("peak_gb_100k", peak_gb(signatures, unit), goal=2, better="lower", against="simulated from real descriptors"))
    return [*rows, share_row("kept_best", kept_best(data, 2 * N_COPIED if small else 200), goal=.97)]


# All together.

def embeddings_of(files, encoder, description: str) -> np.ndarray:
    "Embeddings of files that can all be read."
    found = embed(files, encoder, description=description)
    if found.bad: raise ValueError(f"{found.bad[0]}: every picture of the benchmark has to be readable")
    return normalize(found.pooled[:, encoder.nf:])


def tuned(pictures: Pictures, unit: np.ndarray, hashes: np.ndarray) -> dict[str, float]:
    "Thresholds of the peers with the best F1 on the training pictures."
    return {"phash": best_threshold(hash_pairs(hashes, 16), pictures, range(17), np.less_equal),
            "cnn": best_threshold(cosine_pairs(unit, .85), pictures, np.arange(.85, 1, .01), np.greater_equal)}


def choose(pictures: Pictures, unit: np.ndarray) -> None:
    "Show what thresholds of ours do on the training pictures."
    signatures = read_signatures(pictures.files)
    pairs = np.unique(np.concatenate([hash_candidates(signatures), neighbour_candidates(unit), spot_candidates(signatures)]), axis=0)
    found = list(tqdm(Judge()([(signatures[i], signatures[j]) for i, j in pairs.tolist()], [False] * len(pairs)), "comparing", len(pairs)))
    agreements = np.array([f.agreement if f else 0 for f in found])
    for threshold in (.5, .6, .7, .75, .8, .85, .9, .95):
        groups = joined(pairs[agreements >= threshold], len(pictures.files))
        counts = Counts.of(pairs_of_groups(groups), pictures)
        print(f"threshold {threshold}: precision {counts.precision():.4f}, recall {counts.recall():.4f}, F1 {counts.f1():.4f},"
              f" bursts called copies {burst_rows('', groups, pictures)[0]['value']:.3f}")


def duplicate_rows(pictures: Pictures, unit: np.ndarray, hashes: np.ndarray, thresholds: dict[str, float]) -> list[dict]:
    "Ours, and each peer as imagededup sets it and with the threshold that did best on the training pictures."
    n = len(pictures.files)
    groups = our_groups(pictures, unit, THRESHOLD)
    found = pairs_of_groups(groups)
    wrong = [(i, j) for i, j in found if pictures.photos[i] != pictures.photos[j]]
    for i, j in wrong[:60]: print("called copies:", pictures.files[i].name, pictures.files[j].name)
    ours = Counts.of(found, pictures)
    peers = {"phash_": hash_pairs(hashes, 10), "cnn_": cosine_pairs(unit, .9)}
    peers |= {"phash_tuned_": hash_pairs(hashes, int(thresholds["phash"])), "cnn_tuned_": cosine_pairs(unit, thresholds["cnn"])}
    rows = copy_rows("", ours) + burst_rows("", groups, pictures) + kind_rows("", groups, pictures)
    for name, pairs in peers.items():
        groups = joined(pairs, n)
        theirs = Counts.of(pairs_of_groups(groups) if "tuned" in name else pairs, pictures)
        rows += copy_rows(name, theirs) + difference_rows(name.rstrip("_"), ours, theirs) + burst_rows(name, groups, pictures)
        if "tuned" in name: rows += kind_rows(name, groups, pictures) + [row(f"{name}threshold", float(thresholds[name.split("_")[0]]))]
    return rows


def all_cluster_rows(data: Path, encoder, small: bool) -> list[dict]:
    "Of clothing and pets, whose mean counts, and of the others."
    chosen = {name: labelled(data, name) for name in ("clothing", "pets")}
    if not small:
        drawn = image_files(sample_pets(Path(tempfile.gettempdir()) / "drawn-classes", n_breeds=12, n_per_breed=60) / "images")
        coil = image_files(data / "coil100")
        chosen |= {"drawn": (drawn, [label_func(f) for f in drawn]), "fashion": types_of_products(data), "coil": (coil, [f.stem.partition("__")[0] for f in coil]),
                   "imagenet": groups_of_imagenet(data)}
    parts = {name: (files, embeddings_of(files, encoder, name), labels) for name, (files, labels) in chosen.items()}
    others = [] if small else [Sorted.of("drawn", *parts["drawn"]), Sorted.of("fashion", *parts["fashion"]), Sorted.of("mixture", *mixture(parts))]
    return cluster_rows([Sorted.of(name, *parts[name]) for name in ("clothing", "pets")], others)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "imagededup/, pets/, clothing/ and the others")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--pairs", type=int, help="only judge pairs, this many of each sort that are no copies; with --choose those of training, and say what margins are worth")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="a working tree of commit ec3def5, to decide the same pairs by turns")
    parser.add_argument("--czkawka", type=Path, metavar="PYTHON", help="of an environment that has czkawka's bindings, as a further peer")
    parser.add_argument("--choose", action="store_true", help="show what other thresholds would do on the training pictures, and stop")
    parser.add_argument("--only", choices=["found", "whole", "clusters"], help="leave the rest as it was measured: what is found beside peers, the whole search, or clusters")
    args = parser.parse_args()
    if args.small: make_small()
    data = data_folder(args)
    if args.pairs:
        judged, sizes = judge_pairs(data, args.pairs, training=args.choose, to_calibrate=args.choose)
        if args.choose: return calibrated(judged, sizes)
        rows = judged_rows(judged)
        return report(rows + measured_before(args.json, {r["name"] for r in rows}), args.json)
    encoder = create_encoder(size=SIZE)
    if args.only in ("whole", "clusters"):
        rows = all_cluster_rows(data, encoder, args.small) if args.only == "clusters" else whole_rows(data, encoder, args.small, args.before)
        return report(rows + measured_before(args.json, {r["name"] for r in rows}), args.json)
    with tempfile.TemporaryDirectory() as folder:
        training = training_pictures(data, Path(folder))
        unit = embeddings_of(training.files, encoder, "training")
        if args.choose: return choose(training, unit)
        thresholds = tuned(training, unit, np.stack([imagededup_hash(f) for f in training.files]))
        levels = {"": None} | ({"tuned_": best_level(args.czkawka, training)} if args.czkawka else {})
    with tempfile.TemporaryDirectory() as folder:
        measured = measured_pictures(data, Path(folder))
        unit = embeddings_of(measured.files, encoder, "measured")
        rows = duplicate_rows(measured, unit, np.stack([imagededup_hash(f) for f in measured.files]), thresholds)
        if args.czkawka: rows += czkawka_rows(args.czkawka, measured, levels)
    if not args.only: rows += judged_rows(judge_pairs(data, N_PAIRS)[0]) + whole_rows(data, encoder, args.small, args.before) + all_cluster_rows(data, encoder, args.small)
    report(rows + measured_before(args.json, {r["name"] for r in rows}), args.json)


if __name__ == "__main__":
    main()
