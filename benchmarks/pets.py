"""The main job on real photos of Oxford Pets: ours, plain cosine, and the article's recipe, on the same images.

System A is trained on every `train` row of split.csv (37 breeds) and asked about every `test` row. System B sees the
`train` rows of seen breeds only, for everything, and is asked about all pairs among the seen `test` images and all pairs
among the images of the unseen breeds. Our figures are means over seeds; intervals are bootstraps over images; differences
are taken on the same resampled images. `lite2_` is ours with the larger of the two packaged encoders.

    python benchmarks/pets.py --data ../shared/data/pets --json benchmarks/results/pets.json
    python benchmarks/pets.py --full --json full_pets.json   # all 7,349 photographs, downloaded; some hours
    python benchmarks/pets.py --page                         # measures nothing: writes docs/pets.md from what was measured
"""
import argparse
import csv
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fastai.callback.schedule import Learner
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import TfmdLists
from fastai.data.transforms import IntToFloatTensor, Normalize, ToTensor
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import no_random
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.data import ImageBlock
from fastai.vision.learner import create_head, default_split

from _data import add_arguments, data_folder
from _report import interval_row, report, row
from image_similarity.learners.blocks import RGBImage
from image_similarity.metrics.calibration import ece_noise_floor, even_odds_weights, expected_calibration_error
from image_similarity.learners.classifier import class_scorer, classifier_learner
from image_similarity.images.datasets import LabelledImages, all_pairs
from image_similarity.images.oxford import oxford_pets
from image_similarity.encoders.encoder import Embedded, create_encoder, embed
from image_similarity.encoders.weights import DEFAULT_ENCODER
from image_similarity.metrics.intervals import bootstrap_interval, image_bootstrap
from image_similarity.metrics.ranking import average_precision_at_r, query_recall_at_k, relevance
from image_similarity.metrics.pairs import auc_statistic, balanced_accuracy
from image_similarity.scoring.scorers import PairScorer, embedding
from image_similarity.learners.siamese import SiameseModel, pair_scorer, siamese_learner, siamese_splitter
from image_similarity.learners.siamese_data import SiameseTransform
from image_similarity.learners.siamese_head import siamese_loss

SEEDS, AUGMENT, ARTICLE_SIZE, ARTICLE_EPOCHS = (0, 1, 2), 4, 224, 3
SIZES = {} # of the inputs of other encoders, where they are not their own
GOALS = {"accuracy": 0.92, "recall_at_1": 0.92, "map_at_r": 0.90, "auc_seen": 0.994, "auc_seen_same_species": 0.988,
         "auc_unseen": 0.975, "auc_unseen_same_species": 0.945, "accuracy_seen": 0.965, "accuracy_unseen": 0.925}


def make_small() -> None:
    "Run as briefly as can be."
    global SEEDS, AUGMENT, ARTICLE_SIZE, ARTICLE_EPOCHS, bootstrap_interval, image_bootstrap
    SEEDS, AUGMENT, ARTICLE_SIZE, ARTICLE_EPOCHS = (0,), 1, 64, 1
    bootstrap_interval, image_bootstrap = (partial(f, n_resamples=20) for f in (bootstrap_interval, image_bootstrap))
    SIZES.update({DEFAULT_ENCODER: 64, "tf_efficientnet_lite2": 64})


@dataclass(frozen=True)
class Pets:
    "The photos that could be read, their vectors, and what split.csv says of them."
    files: list
    labels: np.ndarray
    species: np.ndarray
    test: np.ndarray
    seen: np.ndarray
    vectors: Embedded

    def pooled(self, rows): return torch.from_numpy(self.vectors.pooled[rows])

    def data(self, rows, held_out=None) -> LabelledImages:
        "Some of the photos, all for training unless told."
        return LabelledImages([self.files[i] for i in rows], list(self.labels[rows]), np.zeros(len(rows), bool) if held_out is None else held_out)

    def vectors_of(self, rows) -> Embedded:
        v = self.vectors
        return Embedded([v.files[i] for i in rows], v.pooled[rows], v.augmented[:, rows], kept=np.arange(len(rows)))


def read_pets(folder: Path, encoder) -> Pets:
    "Read split.csv and embed its photos."
    rows = list(csv.DictReader((folder / "split.csv").open(encoding="utf-8")))
    vectors = embed([folder / "images" / r["file"] for r in rows], encoder, augment=AUGMENT)
    print(vectors, vectors.bad)
    column = lambda name: np.array([rows[i][name] for i in vectors.kept])
    return Pets(vectors.files, column("breed"), column("species"), column("split") == "test", column("breed_group") == "seen", vectors)


def full_pets() -> Path:
    "A folder with split.csv and images/ for the whole data set: its own split, and every fourth breed of each species unseen."
    data, folder = oxford_pets(), Path(tempfile.mkdtemp())
    (folder / "images").symlink_to(data.files[0].parent.absolute())
    species = {breed: "cat" if breed[0].isupper() else "dog" for breed in data.classes} # as the data set names them
    unseen = {breed for kind in ("cat", "dog") for breed in [b for b in data.classes if species[b] == kind][3::4]}
    with (folder / "split.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "breed", "species", "split", "breed_group"])
        for picture, breed, test in zip(data.files, data.labels, data.held_out):
            rows.writerow([picture.name, breed, species[breed], "test" if test else "train", "unseen" if breed in unseen else "seen"])
    return folder


def write_page() -> None:
    "docs/pets.md, from benchmarks/results/pets.json."
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / ".ci"))
    import page_pets
    for file, text in ((page_pets.PAGE, page_pets.page()), (page_pets.PICTURE, page_pets.picture())):
        file.write_text(text, encoding="utf-8")
        print(f"written: {file}")


# What is asked of each system. A: a figure per query. B: a logit per pair.

def ranking_figures(pets: Pets, scores: np.ndarray) -> dict[str, np.ndarray]:
    "Per test photo, of `scores` (test, train)."
    relevant = relevance(pets.labels[pets.test], pets.labels[~pets.test])
    return {"recall_at_1": query_recall_at_k(scores, relevant, 1), "map_at_r": average_precision_at_r(scores, relevant)}


def class_figures(pets: Pets, posterior: np.ndarray, classes) -> dict[str, np.ndarray]:
    return {"accuracy": (np.array(classes)[posterior.argmax(1)] == pets.labels[pets.test]).astype(float)}


@dataclass(frozen=True)
class PairSet:
    "All pairs among some of the photos."
    rows: np.ndarray      # of the photos
    pairs: np.ndarray     # (P, 2) places in `rows`
    match: np.ndarray     # (P,)
    same_species: np.ndarray

    @classmethod
    def among(cls, pets: Pets, rows):
        i, j = all_pairs(len(rows)).T
        a, b = rows[i], rows[j]
        return cls(rows, np.stack([i, j], 1), pets.labels[a] == pets.labels[b], pets.species[a] == pets.species[b])

    def logits(self, pets: Pets, scorer: PairScorer) -> np.ndarray:
        rows = scorer.rows(pets.pooled(self.rows))
        return scorer.logits(rows, rows).numpy()[self.pairs[:, 0], self.pairs[:, 1]]

    def cosines(self, pets: Pets) -> np.ndarray:
        unit = embedding(pets.pooled(self.rows)).numpy()
        return (unit @ unit.T)[self.pairs[:, 0], self.pairs[:, 1]]


def pair_statistics(group: str, pair_set: PairSet, logits: np.ndarray, threshold: float | None) -> dict:
    "Figures as functions of the pairs' weights."
    same = pair_set.same_species
    of_species = auc_statistic(logits[same], pair_set.match[same])
    found = {f"auc_{group}": auc_statistic(logits, pair_set.match), f"auc_{group}_same_species": lambda w: of_species(w[same])}
    if threshold is not None:
        found[f"accuracy_{group}"] = lambda w: balanced_accuracy(logits, pair_set.match, threshold, w)
    return found


# Ours.

def our_a(pets: Pets, encoder, seed: int) -> dict[str, np.ndarray]:
    "Classifier and Siamese network on all breeds; per test photo."
    train = np.flatnonzero(~pets.test)
    data, vectors = pets.data(train), pets.vectors_of(train)
    classes = class_scorer(classifier_learner(data, encoder, vectors, seed=seed, progress=False))
    scorer = pair_scorer(siamese_learner(data, encoder, vectors, seed=seed, progress=False))
    posterior = classes.log_posterior(pets.pooled(pets.test))
    logits = scorer.logits(scorer.rows(pets.pooled(pets.test)), scorer.rows(pets.pooled(train)))
    item_class = [classes.labels.index(label) for label in pets.labels[train]]
    weighted = posterior[:, item_class] + torch.nn.functional.logsigmoid(logits)
    return class_figures(pets, posterior.numpy(), classes.labels) | ranking_figures(pets, weighted.numpy())


def our_b(pets: Pets, encoder, seed: int) -> tuple[PairScorer, float]:
    "A Siamese network on the seen breeds' training photos, and the seconds it took."
    train = np.flatnonzero(~pets.test & pets.seen)
    start = time.perf_counter()
    learn = siamese_learner(pets.data(train), encoder, pets.vectors_of(train), seed=seed, progress=False)
    return pair_scorer(learn), time.perf_counter() - start


# The article's recipe: lite0 at 224, a frozen body, three epochs, one seed.

def article_body():
    return create_encoder(size=ARTICLE_SIZE)


def article_classifier(pets: Pets, rows):
    "Its classifier, on some of the photos."
    body, label = article_body(), dict(zip(pets.files, pets.labels))
    files = [pets.files[i] for i in rows]
    block = DataBlock((ImageBlock(RGBImage), CategoryBlock(vocab=sorted(set(pets.labels[rows])))), get_items=lambda _: files, get_y=label.get,
                      splitter=lambda _: (list(range(len(files))), [0]), item_tfms=Resize(ARTICLE_SIZE),
                      batch_tfms=[*aug_transforms(), Normalize.from_stats(body.mean, body.std)])
    dls = block.dataloaders(None, bs=32, num_workers=0)
    model = torch.nn.Sequential(body, create_head(body.nf, len(dls.vocab), ps=0.5))
    return _trained(Learner(dls, model, loss_func=CrossEntropyLossFlat(), splitter=default_split))


def article_siamese(pets: Pets, rows):
    "Its Siamese network, on some of the photos."
    body, label = article_body(), dict(zip(pets.files, pets.labels))
    files = [pets.files[i] for i in rows]
    splits = (list(range(len(files))), [0, 1])
    tls = TfmdLists(files, SiameseTransform(files, splits, label.get), splits=splits)
    dls = tls.dataloaders(bs=32, after_item=[Resize(ARTICLE_SIZE), ToTensor()], num_workers=0,
                          after_batch=[IntToFloatTensor(), *aug_transforms(), Normalize.from_stats(body.mean, body.std)])
    model = SiameseModel(body, create_head(body.nf * 2, 1, ps=0.5))
    return _trained(Learner(dls, model, loss_func=siamese_loss, splitter=siamese_splitter))


def _trained(learn: Learner) -> Learner:
    with no_random(42), learn.no_bar(), learn.no_logging():
        learn.freeze()
        learn.fit_one_cycle(ARTICLE_EPOCHS, 2e-3)
    learn.model.eval()
    return learn


def article_pooled(pets: Pets, learn, body) -> torch.Tensor:
    "All photos through the body of a trained learner (training has moved its batch norms)."
    return torch.from_numpy(embed(pets.files, body, description="article").pooled)


def article_a(pets: Pets) -> dict[str, np.ndarray]:
    "Hard class cut, first 15 files of the predicted class."
    train, test = np.flatnonzero(~pets.test), np.flatnonzero(pets.test)
    clearn, slearn = article_classifier(pets, train), article_siamese(pets, train)
    seen_by_class, seen_by_pair = article_pooled(pets, clearn, clearn.model[0]), article_pooled(pets, slearn, slearn.model.encoder)
    with torch.no_grad(): posterior = clearn.model[1][2:](seen_by_class[test]).numpy()
    classes, scorer = np.array(clearn.dls.vocab), pair_scorer(slearn, symmetric=False)
    logits = scorer.logits(scorer.rows(seen_by_pair[test]), scorer.rows(seen_by_pair[train])).numpy()
    scores = np.full_like(logits, -np.inf)
    for q, label in enumerate(classes[posterior.argmax(1)]):
        first = np.flatnonzero(pets.labels[train] == label)[:15]
        scores[q, first] = logits[q, first]
    return class_figures(pets, posterior, classes) | ranking_figures(pets, scores)


def article_b(pets: Pets, pair_sets: dict) -> dict[str, np.ndarray]:
    "Logits of each set of pairs."
    learn = article_siamese(pets, np.flatnonzero(~pets.test & pets.seen))
    scorer, pooled = pair_scorer(learn, symmetric=False), article_pooled(pets, learn, learn.model.encoder)
    found = {}
    for group, pair_set in pair_sets.items():
        rows = scorer.rows(pooled[pair_set.rows])
        found[group] = scorer.logits(rows, rows).numpy()[pair_set.pairs[:, 0], pair_set.pairs[:, 1]]
    return found


# Rows.

def query_rows(ours: dict, peers: dict[str, dict]) -> list[dict]:
    "System A: a mean per figure, and the difference to each peer on the same resampled photos."
    rows = []
    for name, values in ours.items():
        rows.append(interval_row(name, bootstrap_interval(lambda i: np.nanmean(values[i]), len(values)), GOALS[name]))
        for peer, figures in peers.items():
            if name not in figures: continue
            theirs = figures[name]
            rows.append(interval_row(f"{peer}_{name}", bootstrap_interval(lambda i: np.nanmean(theirs[i]), len(theirs))))
            difference = bootstrap_interval(lambda i: np.nanmean(values[i] - theirs[i]), len(values))
            rows.append(interval_row(f"{name}_minus_{peer}", difference, against=peer))
    return rows


def pair_rows(pair_set: PairSet, ours: list[dict], peers: dict[str, dict]) -> list[dict]:
    "System B: the mean over seeds of each figure, and the difference to each peer on the same resampled photos."
    rows, n = [], len(pair_set.rows)
    for name, mean in mean_statistics(ours).items():
        rows.append(interval_row(name, image_bootstrap(pair_set.pairs, mean, n), GOALS[name]))
        for peer, figures in peers.items():
            if name not in figures: continue
            theirs = figures[name]
            rows.append(interval_row(f"{peer}_{name}", image_bootstrap(pair_set.pairs, theirs, n)))
            rows.append(interval_row(f"{name}_minus_{peer}", image_bootstrap(pair_set.pairs, lambda w: mean(w) - theirs(w), n), against=peer))
    return rows


def calibration_rows(group: str, pair_set: PairSet, all_logits: list[np.ndarray], prefix: str = "") -> list[dict]:
    "Calibration error at even odds, and what a perfectly calibrated predictor would show."
    suffix = "" if group == "seen" else f"_{group}"
    probabilities = [1 / (1 + np.exp(-logits)) for logits in all_logits]
    ece = lambda w: float(np.mean([expected_calibration_error(p, pair_set.match, sample_weight=even_odds_weights(pair_set.match, w)) for p in probabilities]))
    interval = image_bootstrap(pair_set.pairs, ece, len(pair_set.rows), n_resamples=300)
    floors = [ece_noise_floor(p, prior=float(pair_set.match.mean()), n_sim=300) for p in probabilities]
    floor = float(np.mean([f.value for f in floors]))
    return [interval_row(f"{prefix}ece{suffix}", interval, floor + 0.01, better="lower"),
            row(f"{prefix}ece_floor{suffix}", floor, min(f.low for f in floors), max(f.high for f in floors), better="lower")]


@dataclass(frozen=True)
class Ours:
    "Both systems with one encoder, over all seeds."
    queries: dict        # A: figure to values per test photo, mean over seeds
    scorers: list        # B: a Siamese network per seed
    logits: dict         # B: group to logits per seed
    seconds: list        # B: training, per seed

    @classmethod
    def measured(cls, pets: Pets, encoder, pair_sets: dict):
        a = [our_a(pets, encoder, seed) for seed in SEEDS]
        scorers, seconds = zip(*(our_b(pets, encoder, seed) for seed in SEEDS))
        logits = {group: [pair_set.logits(pets, s) for s in scorers] for group, pair_set in pair_sets.items()}
        return cls({name: np.mean([o[name] for o in a], axis=0) for name in a[0]}, scorers, logits, seconds)

    def pair_statistics(self, group: str, pair_set: PairSet) -> list[dict]:
        return [pair_statistics(group, pair_set, l, float(s.threshold)) for l, s in zip(self.logits[group], self.scorers)]


def mean_statistics(seeds: list[dict]) -> dict:
    "Figures over several seeds as one function of the pairs' weights each."
    return {name: lambda w, name=name: float(np.mean([figures[name](w) for figures in seeds])) for name in seeds[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "split.csv and images/", "pets")
    parser.add_argument("--full", action="store_true", help="all 7,349 photographs, downloaded by fastai if they are not there; --data is not read")
    parser.add_argument("--page", action="store_true", help="measure nothing: write docs/pets.md from what was measured")
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args()
    if args.page: return write_page()
    if args.small: make_small()
    folder = full_pets() if args.full else data_folder(args)
    encoder, larger = (create_encoder(name, size=SIZES.get(name)) for name in (DEFAULT_ENCODER, "tf_efficientnet_lite2"))
    pets, larger_pets = (read_pets(folder, e) for e in (encoder, larger))

    pair_sets = {"seen": PairSet.among(pets, np.flatnonzero(pets.test & pets.seen)), "unseen": PairSet.among(pets, np.flatnonzero(~pets.seen))}
    ours, lite2 = Ours.measured(pets, encoder, pair_sets), Ours.measured(larger_pets, larger, pair_sets)
    units = [embedding(pets.pooled(rows)) for rows in (pets.test, ~pets.test)]
    cosine = ranking_figures(pets, (units[0] @ units[1].T).numpy())

    def rows(article: dict, article_logits: dict) -> list[dict]:
        found = query_rows(ours.queries, {"cosine": cosine, "article": article, "lite2": lite2.queries})
        for group, pair_set in pair_sets.items():
            peers = {"cosine": pair_statistics(group, pair_set, pair_set.cosines(pets), None),
                     "lite2": mean_statistics(lite2.pair_statistics(group, pair_set))}
            if article_logits: peers["article"] = pair_statistics(group, pair_set, article_logits[group], 0.)
            found += pair_rows(pair_set, ours.pair_statistics(group, pair_set), peers) + calibration_rows(group, pair_set, ours.logits[group])
            found += calibration_rows(group, pair_set, lite2.logits[group], "lite2_")
        return found + [row(f"{prefix}head_seconds", float(np.median(s)), min(s), max(s), 60, "lower") for prefix, s in (("", ours.seconds), ("lite2_", lite2.seconds))]

    report(rows({}, {}), args.json) # kept, whatever happens to the long training of the article's networks
    report(rows(article_a(pets), article_b(pets, pair_sets)), args.json)


if __name__ == "__main__":
    main()
