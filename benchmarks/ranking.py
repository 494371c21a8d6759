"""What metric learning adds to plain cosine: each loss on real photos, and the Siamese exercise on MNIST, digits never trained on included.

Every loss trains a feature layer on the same cached vectors: of the `train` photos of the seen pets, and of 30 training photos of each kind of
clothing. Asked are all pairs among the seen breeds' `test` photos, among the photos of the nine unseen breeds, and among clothing's test
photos. Figures are means over seeds; intervals are bootstraps over images; differences are taken on the same resampled images.

MNIST: of the 10,000 digits the first 8,000 train, the last 2,000 are asked about (of the small digits that come with scikit-learn
four in five, where there is no MNIST). Each row of `UNSEEN` is left out of a training once, threshold
included; the figures are means over these trainings.

    python benchmarks/ranking.py --data ../shared/data --json benchmarks/results/ranking.json
"""
import argparse
import csv
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from _data import add_arguments, data_folder
from _report import interval_row, report, row
from image_similarity.images.datasets import LabelledImages, all_pairs
from image_similarity.learners.digit_pairs import digit_learner, digit_rows, digit_threshold, pairs_of
from image_similarity.learners.digits import Digits, embedded_digits, mnist_digits
from image_similarity.encoders.encoder import Embedded, Encoder, create_encoder, embed
from image_similarity.metrics.intervals import Interval, bootstrap_interval, image_bootstrap, pair_weights
from image_similarity.metrics.pairs import auc_statistic, balanced_accuracy
from image_similarity.learners.embedding_model import multi_scale
from image_similarity.learners.metric_learning import embedding_learner
from image_similarity.metrics.similarity import normalize

SEEDS, AUGMENT, PER_CLASS = (0, 1), 1, 30 # the last: training photos of a kind of clothing
WAYS = {"contrastive": {}, "triplet": {}, "triplet_offline": {"miner": "offline"}, "deep_ranking": {}, "arcface": {}, "classification": {}}
UNSEEN = ((7, 8, 9), (0, 3, 5), (1, 4, 6))
MNIST = {"epochs": 16, "progress": False}
SIZE, SMALL = None, False # of the encoder's input: its own
GOALS = {"mnist_seen_accuracy": 0.99, "mnist_unseen_accuracy": 0.90}


def make_small() -> None:
    "Run as briefly as can be."
    global SEEDS, UNSEEN, WAYS, SIZE, SMALL
    SEEDS, UNSEEN, SIZE, SMALL = (0,), UNSEEN[:1], 64, True
    MNIST["epochs"], WAYS = 1, {"contrastive": {}, "deep_ranking": {}}


@dataclass(frozen=True)
class Photos:
    "Photos that could be read, their vectors with and without the shallow paths, which ones train, and who is asked."
    data: LabelledImages
    wide: Embedded
    plain: Embedded
    train: np.ndarray             # (n,) bool
    asked: dict[str, np.ndarray]  # name of a set to the places of its photos


def embedded_twice(data: LabelledImages, encoder: Encoder, wide_encoder: Encoder) -> tuple[LabelledImages, Embedded, Embedded]:
    "One pass through the multi-scale encoder; the plain vectors are a part of what it gives."
    wide = embed(data.files, wide_encoder, augment=AUGMENT)
    columns = np.r_[:encoder.nf, wide_encoder.nf:wide_encoder.nf + encoder.nf]
    return data.take(wide.kept), wide, Embedded(wide.files, wide.pooled[:, columns], wide.augmented[:, :, columns], wide.bad, wide.kept)


def read_pets(folder: Path, *encoders: Encoder) -> Photos:
    rows = list(csv.DictReader((folder / "split.csv").open(encoding="utf-8")))
    data = LabelledImages([folder / "images" / r["file"] for r in rows], [r["breed"] for r in rows], [r["split"] == "test" for r in rows])
    seen_breeds = {r["breed"] for r in rows if r["breed_group"] == "seen"}
    data, wide, plain = embedded_twice(data, *encoders)
    seen = np.isin(data.labels, list(seen_breeds))
    return Photos(data, wide, plain, seen & ~data.held_out, {"pets": np.flatnonzero(seen & data.held_out), "pets_unseen": np.flatnonzero(~seen)})


def read_clothing(folder: Path, *encoders: Encoder) -> Photos:
    files, seen = [], Counter()
    for f in sorted(folder.glob("*/*/*.jpg")):
        seen[f.parent.name] += (trains := f.parent.parent.name != "test")
        if not trains or seen[f.parent.name] <= PER_CLASS: files.append(f)
    data = LabelledImages(files, [f.parent.name for f in files], [f.parent.parent.name == "test" for f in files])
    data, wide, plain = embedded_twice(data, *encoders)
    return Photos(data, wide, plain, ~data.held_out, {"clothing": data.valid})


def rows_of(embedded: Embedded, places: np.ndarray) -> Embedded:
    return Embedded([embedded.files[i] for i in places], embedded.pooled[places], embedded.augmented[:, places], kept=np.arange(len(places)))


def learned_layer(photos: Photos, way: str, seed: int, encoder: Encoder, wide_encoder: Encoder):
    "What was learned from the training photos: from mean vectors to rows; and which vectors it takes."
    loss = way.removesuffix("_offline")
    base, vectors = (wide_encoder, photos.wide) if loss == "deep_ranking" else (encoder, photos.plain)
    train = np.flatnonzero(photos.train)
    data = LabelledImages([photos.data.files[i] for i in train], [photos.data.labels[i] for i in train], np.zeros(len(train), bool))
    learn = embedding_learner(data, encoder=base, loss=loss, embedded=rows_of(vectors, train), seed=seed, progress=False, **WAYS[way])
    return learn.model.layer.weight.detach().numpy(), vectors.pooled[:, base.nf:]


def photo_rows(photos: Photos, encoder: Encoder, wide_encoder: Encoder) -> list[dict]:
    "For each set and each loss: the area under the curve, and the difference to plain cosine on the same resampled photos."
    rows = {name: [] for name in photos.asked}
    cosine = {name: PairSet(photos, places, normalize(photos.plain.pooled[:, encoder.nf:])) for name, places in photos.asked.items()}
    for name, pairs in cosine.items(): rows[name].append(interval_row(f"{name}_cosine_auc", pairs.interval(pairs.auc)))
    for way in WAYS:
        made = [(vectors @ weight.T) for weight, vectors in (learned_layer(photos, way, seed, encoder, wide_encoder) for seed in SEEDS)]
        for name, places in photos.asked.items():
            sets = [PairSet(photos, places, normalize(m)) for m in made]
            mean = lambda w: float(np.mean([s.auc(w) for s in sets]))
            rows[name].append(interval_row(f"{name}_{way}_auc", cosine[name].interval(mean)))
            difference = cosine[name].interval(lambda w: mean(w) - cosine[name].auc(w))
            rows[name].append(interval_row(f"{name}_{way}_auc_minus_cosine", difference, against="cosine"))
    return [r for found in rows.values() for r in found]


class PairSet:
    "All pairs among some photos."

    def __init__(self, photos: Photos, places: np.ndarray, unit: np.ndarray):
        self.pairs, self.n, labels = all_pairs(len(places)), len(places), np.array(photos.data.labels)[places]
        i, j = self.pairs.T
        self.auc = auc_statistic((unit[places] @ unit[places].T)[i, j], labels[i] == labels[j])

    def interval(self, statistic) -> Interval: return image_bootstrap(self.pairs, statistic, self.n, n_resamples=300)


@dataclass(frozen=True)
class Asked:
    "Answers about all pairs among some of the test digits."
    places: np.ndarray    # among the test digits
    cosines: np.ndarray   # (P,)
    match: np.ndarray     # (P,)
    threshold: float

    @classmethod
    def about(cls, test: Digits, kinds, rows: np.ndarray, threshold: float):
        places = np.flatnonzero(np.isin(test.targets, list(kinds)))
        return cls(places, *pairs_of(rows[places], test.targets[places]), threshold)

    def accuracy(self, counts: np.ndarray) -> float:
        "Balanced accuracy when each test digit is there `counts` times."
        return balanced_accuracy(self.cosines, self.match, self.threshold, pair_weights(all_pairs(len(self.places)), counts[self.places]))


def mnist_rows(folder: Path) -> list[dict]:
    "Accuracy on test digits of the kinds that trained, and of those that did not, as a mean over the trainings."
    digits = mnist_digits(folder) if folder.is_dir() else embedded_digits()
    if SMALL: digits = digits.part(slice(0, 500))
    n_train = len(digits) * 4 // 5
    train, test = digits.part(slice(0, n_train)), digits.part(slice(n_train, None))
    answers, seconds = {"seen": [], "unseen": []}, []
    for unseen in UNSEEN:
        seen, start = sorted(set(range(10)) - set(unseen)), time.perf_counter()
        learn = digit_learner(train.of(seen), **MNIST)
        seconds.append(time.perf_counter() - start)
        threshold, rows = digit_threshold(learn, train.of(seen)), digit_rows(learn, test.images)
        for name, kinds in {"seen": seen, "unseen": unseen}.items(): answers[name].append(Asked.about(test, kinds, rows, threshold))

    def over_digits(statistic):
        return bootstrap_interval(lambda drawn: statistic(np.bincount(drawn, minlength=len(test))), len(test), n_resamples=100)

    rows = []
    for name, given in answers.items():
        for unseen, one in zip(UNSEEN, given): rows.append(interval_row(f"mnist_{name}_accuracy_without_{''.join(map(str, unseen))}", over_digits(one.accuracy)))
        mean = over_digits(lambda counts: float(np.mean([one.accuracy(counts) for one in given])))
        rows.append(interval_row(f"mnist_{name}_accuracy", mean, GOALS[f"mnist_{name}_accuracy"]))
    return rows + [row("mnist_training_seconds", float(np.median(seconds)), min(seconds), max(seconds), better="lower")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "pets, clothing and mnist_idx")
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args()
    if args.small: make_small()
    folder = data_folder(args)
    rows = mnist_rows(folder / "mnist_idx")
    report(rows, args.json) # kept, whatever happens next
    encoder = create_encoder(size=SIZE)
    encoders = encoder, multi_scale(encoder)
    for photos in (read_pets(folder / "pets", *encoders), read_clothing(folder / "clothing", *encoders)): rows += photo_rows(photos, *encoders)
    report(rows, args.json)


if __name__ == "__main__":
    main()
