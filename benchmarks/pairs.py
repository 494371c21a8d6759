"""Pairs of photos: `MatchPredictor`, the plain cosine, and AutoMM's recipe, on the same encoder and the same pairs.

coil100: folds over its 17 objects, a view every 30 degrees, all pairs of the fold that was held out. clothing: pairs of its
training and validation photos, all pairs of its test photos. pets and pets_unseen: pairs of the seen breeds' training photos, all pairs of their
test photos and of the photos of the unseen breeds. What will be asked is told to the predictor (`held_out`): new things for
coil100 and pets_unseen, new photos of known things for the others.

AutoMM's recipe is fine-tuning of the whole encoder with a contrastive loss of the cosine (margins 0.8 and 0.2), a match
beginning at (cos + 1) / 2 = 0.5; it has the seconds that our fit took, reading included. Its batch norms stay as they are.
Intervals are bootstraps over photos; differences are taken on the same resampled photos.

`_ece_floor` is what chance does to pairs; two more rows say what the data does, with the plain cosine, which learns nothing. `_cosine_ece`: calibrated
on all pairs of training photos, and asked the same as ours. `_ece_new_things`, where new things are asked about: on things left out of the training
photos at random, calibrated on all others; its range is that of 95 % of the draws.

How things are held out, and when to go beyond the cosine, was settled among some forty variants on hidden breeds of the training photos, on
another set (fashion), on hidden clothing classes, and on other halves of the same 17 objects of coil100; and pets_unseen and the folds of
coil100 were looked at several times on the way. So coil100 is flattered, and pets_unseen may be a little; clothing and pets did not change by it.

coil100_own: coil100's own `train.csv` and `test.csv`, as in AutoMM's tutorial: other objects in either, 224 px. (coil100 is folds over views of all objects, an easier question.)
clothing_peer, pets_peer: 600 training pairs and 500 test pairs of these, at 224 px.
real_automm is AutoMM 1.6.3 itself on the same tables, with the same encoder, in an environment of its own (`_automm.py` has the install lines): for 8 epochs of steps of 32 pairs, after which its own
held-out AUC rises no more; and in the seconds that our fit took. What it answered is kept in results/automm.json, so that it can be compared with where it is not installed.
Four test objects are few: the intervals, of photos drawn within things, say nothing of other things.

small: tables of 60, 120 and 500 pairs of drawn pets, some seeds each, and all pairs of ninety other pictures: of the same breeds for the smallest (five, of which photos are
held out), of other breeds for the others. `_accuracy` is at the predictor's own threshold, `_best_accuracy` at the best one for what is asked, and `_warned` the share of
predictors that said they had too few pairs to know. Intervals are bootstraps over seeds. How small tables are held out was settled on other seeds and other drawings.

    python benchmarks/pairs.py --data ../shared/data --json benchmarks/results/pairs.json
    python benchmarks/pairs.py --sets coil100_own --automm automm/bin/python
    python benchmarks/pairs.py --sets clothing       # one set only; rows of the others stay in the file
"""
import argparse
import csv
import tempfile
import time
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import ContrastiveLoss

import _automm
from _data import add_arguments, data_folder
from _report import interval_row, measured_before, report
from image_similarity.drawing.pets import sample_pets
from image_similarity.metrics.calibration import ece_noise_floor, even_odds_weights, expected_calibration_error, fit_calibration
from image_similarity.images.datasets import all_pairs, draw_pairs, labelled_images
from image_similarity.encoders.encoder import Encoder, create_encoder, embed
from image_similarity.encoders.preprocessing import preprocess
from image_similarity.metrics.intervals import Interval, pair_weights, percentile_interval
from image_similarity.matching.image_items import ImageItems
from image_similarity.matching.predictor import MatchPredictor
from image_similarity.metrics.pairs import auc_statistic, balanced_accuracy, best_threshold
from image_similarity.scoring.scorers import embedding

N_TRAIN, N_FOLDS, RESAMPLES, SEED = 4000, 2, 200, 0
QUICKER = {"augment": 1, "epochs": 3} # than the defaults, so that all of it takes ten minutes
STEP = 30 # degrees between two views of an object
KEPT = Path(__file__).parent / "results" / "automm.json" # what AutoMM answered
SIZE = None # of the encoder's input: its own
SETS = ("coil100", "coil100_own", "clothing", "clothing_peer", "pets", "pets_peer", "pets_unseen", "small")
SMALL_TABLES = {60: (5, 4), 120: (8, 5), 500: (12, 12)} # pairs: of so many breeds, so many pictures each
SMALL_SEEDS, DRAWN, ASKED = range(100, 105), (16, 20), 90 # breeds and pictures of each; pictures asked about


def make_small() -> None:
    "Run as briefly as can be."
    global N_TRAIN, PEER_TRAIN, RESAMPLES, SIZE, SMALL_SEEDS, DRAWN
    PEER_TRAIN, N_TRAIN, RESAMPLES, SIZE, SMALL_SEEDS, DRAWN = 60, 60, 10, 64, range(2), (16, 13)
    QUICKER["epochs"] = 1


# What is asked: files with labels, training ones and others.

@dataclass(frozen=True)
class Task:
    "Photos to draw training pairs from, and photos of which all pairs are asked about."
    files: np.ndarray
    labels: np.ndarray
    train: np.ndarray   # (n,) bool
    asked: np.ndarray   # (n,) bool
    held_out: str       # what the predictor holds out

    def table(self, i, j) -> pd.DataFrame:
        return pd.DataFrame({"Image1": self.files[i], "Image2": self.files[j], "Label": (self.labels[i] == self.labels[j]).astype(int)})

    def train_table(self) -> pd.DataFrame:
        own = np.flatnonzero(self.train)
        return self.table(*(own[k] for k in draw_pairs(self.labels[own], N_TRAIN, SEED)))


def coil100(folder: Path) -> list[Task]:
    files = [f for f in sorted((folder / "coil100" / "images").glob("*.png")) if int(f.stem.split("__")[1]) % STEP == 0]
    labels = np.array([f.name.split("__")[0] for f in files])
    objects = np.random.default_rng(SEED).permutation(np.unique(labels))
    held = [np.isin(labels, objects[fold::N_FOLDS]) for fold in range(N_FOLDS)]
    return [Task(np.array(files, str), labels, ~h, h, "things") for h in held]


def clothing(folder: Path) -> list[Task]:
    files = sorted((folder / "clothing").glob("*/*/*.*"))
    test = np.array([f.parent.parent.name == "test" for f in files])
    labels = np.array([f.parent.name for f in files])
    return [Task(np.array(files, str), labels, ~test, test, "images")]


def pets(folder: Path, unseen: bool = False) -> list[Task]:
    rows = list(csv.DictReader((folder / "pets" / "split.csv").open(encoding="utf-8")))
    files, labels = np.array([str(folder / "pets" / "images" / r["file"]) for r in rows]), np.array([r["breed"] for r in rows])
    seen, test = np.array([r["breed_group"] == "seen" for r in rows]), np.array([r["split"] == "test" for r in rows])
    return [Task(files, labels, seen & ~test, ~seen if unseen else seen & test, "things" if unseen else "images")]


TASKS = {"coil100": coil100, "clothing": clothing, "pets": pets, "pets_unseen": lambda folder: pets(folder, unseen=True)}


# What answers.

@dataclass(frozen=True)
class Answer:
    "What three systems say about all pairs of a task."
    pairs: np.ndarray     # (P, 2) photos
    match: np.ndarray     # (P,) bool
    n_photos: int
    logits: np.ndarray    # ours
    threshold: float
    surer: float          # probability from which 99 % of what is called a match shall be one
    cosine: np.ndarray    # calibrated on the training photos: log odds
    automm: np.ndarray    # (cos + 1) / 2 after its fine-tuning
    new_things: np.ndarray | None # (draws,) see `TrainingCosines`; None where what is asked about is not new


def automm_recipe(task: Task, encoder, seconds: float):
    "The encoder, fine-tuned on the training pairs for some seconds; batches of eight pairs, AdamW, learning rate 1e-4."
    tuned, table, rng = deepcopy(encoder).eval(), task.train_table(), np.random.default_rng(SEED)
    loss_func = ContrastiveLoss(pos_margin=0.8, neg_margin=0.2, distance=CosineSimilarity())
    optimizer, end = torch.optim.AdamW(tuned.parameters(), lr=1e-4, weight_decay=1e-3), time.monotonic() + seconds
    while time.monotonic() < end:
        rows = table.iloc[rng.integers(0, len(table), 8)]
        x = torch.stack([preprocess(file, tuned) for file in [*rows["Image1"], *rows["Image2"]]])
        things = torch.arange(16)
        things[8:][torch.from_numpy(rows["Label"].to_numpy() == 1)] = things[:8][torch.from_numpy(rows["Label"].to_numpy() == 1)]
        loss = loss_func(tuned(x).mean((2, 3)), things)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    return tuned


def cosines(encoder, files, pairs) -> np.ndarray:
    unit = embedding(torch.from_numpy(embed(list(files), encoder, progress=False).pooled)).numpy()
    return (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(1).astype(float)


@dataclass(frozen=True)
class TrainingCosines:
    "The plain cosines of all pairs of a task's training photos."
    cosine: np.ndarray  # (P,)
    things: np.ndarray  # (P, 2)

    @property
    def match(self) -> np.ndarray: return self.things[:, 0] == self.things[:, 1]

    def new_things(self, n: int, draws: int = 200) -> np.ndarray:
        "(draws,) calibration errors on things that were left out: `n`, or half of all at most."
        names, rng, found = np.unique(self.things), np.random.default_rng(SEED), []
        for _ in range(draws):
            left_out = np.isin(self.things, rng.permutation(names)[:min(n, len(names) // 2)])
            inside, outside = left_out.all(1), ~left_out.any(1)
            p = fit_calibration(self.cosine[outside], self.match[outside]).probability(self.cosine[inside])
            found.append(expected_calibration_error(p, self.match[inside], sample_weight=even_odds_weights(self.match[inside])))
        return np.array(found)


def training_cosines(task: Task, encoder) -> TrainingCosines:
    own = np.flatnonzero(task.train)
    pairs = all_pairs(len(own))
    return TrainingCosines(cosines(encoder, task.files[own], pairs), task.labels[own][pairs])


def surest(predictor: MatchPredictor) -> float:
    "The probability that `threshold(precision=0.99)` gives; above 1, so that nothing is called a match, where there is none."
    try: return predictor.threshold(precision=0.99)
    except ValueError: return 2.


def answers(name: str, folder: Path, encoder: Encoder) -> list[Answer]:
    "Train and ask; one answer a fold. The recipe has the seconds of the first fit, which reads the photos."
    found, seconds, column = [], None, ImageItems(encoder)
    for task in TASKS[name](folder):
        predictor = MatchPredictor("Image1", "Image2", "Label", hyperparameters={**QUICKER, "held_out": task.held_out})
        predictor.matcher.pretrained = column
        start = time.monotonic()
        predictor.fit(task.train_table(), progress=False)
        seconds = seconds or time.monotonic() - start
        print(f"{name}: {predictor.fitted}, {seconds:.0f} s", flush=True)
        asked = np.flatnonzero(task.asked)
        pairs = all_pairs(len(asked))
        i, j = asked[pairs].T
        _, logits = predictor._logits(task.table(i, j), None)
        tuned, known = automm_recipe(task, encoder, seconds), training_cosines(task, encoder)
        found.append(Answer(pairs, task.labels[i] == task.labels[j], len(asked), logits, predictor.model.threshold, surest(predictor),
                            fit_calibration(known.cosine, known.match)(cosines(encoder, task.files[asked], pairs)), (cosines(tuned, task.files[asked], pairs) + 1) / 2,
                            known.new_things(len(np.unique(task.labels[asked]))) if task.held_out == "things" else None))
    return found


# Rows.

def sigmoid(x): return 1 / (1 + np.exp(-x))


def statistics(a: Answer) -> dict:
    "Figures of one answer, as functions of the pairs' weights."
    p, surer = sigmoid(a.logits), sigmoid(a.logits) >= a.surer
    ece = lambda q: lambda w: expected_calibration_error(q, a.match, sample_weight=even_odds_weights(a.match, w))
    def precision(w):
        called = even_odds_weights(a.match, w) * surer
        return called @ a.match / called.sum() if called.any() else 1. # nothing is called a match, and nothing wrongly
    found = {"auc": auc_statistic(a.logits, a.match), "cosine_auc": auc_statistic(a.cosine, a.match), "automm_auc": auc_statistic(a.automm, a.match),
             "accuracy": lambda w: balanced_accuracy(a.logits, a.match, a.threshold, w),
             "best_accuracy": lambda w: balanced_accuracy(a.logits, a.match, best_threshold(a.logits, a.match, w), w),
             "automm_accuracy": lambda w: balanced_accuracy(a.automm, a.match, 0.5, w),
             "ece": ece(p), "cosine_ece": ece(sigmoid(a.cosine)), "automm_ece": ece(a.automm.clip(0, 1)),
             "precision_at_99": precision,
             "recall_at_99": lambda w: w @ (surer & a.match) / max(w @ a.match, 1e-9)}
    for ours, theirs in (("auc", "cosine_auc"), ("auc", "automm_auc"), ("accuracy", "best_accuracy"), ("accuracy", "automm_accuracy")):
        found[f"{ours}_minus_{theirs}"] = lambda w, x=found[ours], y=found[theirs]: x(w) - y(w)
    return found


def intervals(found: list[Answer]) -> dict[str, Interval]:
    "Means over folds, with their intervals; photos are drawn within each fold."
    rng, each = np.random.default_rng(SEED), [statistics(a) for a in found]
    values = lambda weights: {name: np.mean([s[name](w) for s, w in zip(each, weights)]) for name in each[0]}
    drawn = [[pair_weights(a.pairs, np.bincount(rng.integers(a.n_photos, size=a.n_photos), minlength=a.n_photos)) for a in found] for _ in range(RESAMPLES)]
    resampled = [values(weights) for weights in drawn]
    return {name: percentile_interval(v, [r[name] for r in resampled]) for name, v in values([np.ones(len(a.pairs)) for a in found]).items()}


def rows_of(name: str, found: list[Answer]) -> list[dict]:
    figures = intervals(found)
    floors = [ece_noise_floor(sigmoid(a.logits), prior=float(a.match.mean()), n_sim=200) for a in found]
    floor = Interval(*(float(np.mean([getattr(f, end) for f in floors])) for end in ("value", "low", "high")))
    above = ("auc_minus_cosine_auc", "auc_minus_automm_auc") # shown by the interval
    goals = {"ece": floor.value + 0.01, "accuracy": figures["best_accuracy"].value - 0.01, "precision_at_99": 0.99, **dict.fromkeys(above, 0)}
    against = {"auc_minus_cosine_auc": "cosine", "auc_minus_automm_auc": "automm", "accuracy_minus_automm_accuracy": "automm"}
    lower = {"ece", "cosine_ece", "automm_ece"}
    rows = [interval_row(f"{name}_{figure}", i, goals.get(figure), "lower" if figure in lower else "higher", against.get(figure), figure in above)
            for figure, i in figures.items()]
    rows.append(interval_row(f"{name}_ece_floor", floor, better="lower"))
    if found[0].new_things is not None:
        drawn = np.mean([a.new_things for a in found], axis=0)
        rows.append(interval_row(f"{name}_ece_new_things", percentile_interval(drawn.mean(), drawn), better="lower", against="other things left out, plain cosine"))
    return rows


# coil100's own tables, and the real AutoMM.

OWN_SIZE, EPOCHS, PEER_TRAIN, PEER_ASKED = 224, 8, 600, 500

@dataclass(frozen=True)
class Peers:
    "Two tables for us and for AutoMM."
    name: str
    train: pd.DataFrame
    asked: pd.DataFrame
    held_out: str | None      # what we hold out; None: what we choose
    thing: dict[str, str]     # of each photo

    @property
    def match(self) -> np.ndarray: return self.asked["Label"].to_numpy() == 1

    def resampled(self, rng: np.random.Generator) -> np.ndarray:
        "(P,) weights of the pairs asked about, when as many photos are drawn of each thing as there are."
        files, where = np.unique(self.asked[["Image1", "Image2"]].to_numpy(), return_inverse=True)
        things, counts = np.array([self.thing[file] for file in files]), np.zeros(len(files))
        for own in (np.flatnonzero(things == thing) for thing in np.unique(things)): counts[own] = np.bincount(rng.integers(len(own), size=len(own)), minlength=len(own))
        return pair_weights(where.reshape(-1, 2), counts)


def own_tables(folder: Path) -> Peers:
    "As somebody who follows the tutorial has them."
    tables = [pd.read_csv(folder / "coil100" / f"{part}.csv") for part in ("train", "test")]
    for table in tables:
        for name in ("Image1", "Image2"): table[name] = [str(folder / "coil100" / "images" / file) for file in table[name]]
    return Peers("coil100_own", *tables, None, {file: Path(file).name.split("__")[0] for name in ("Image1", "Image2") for file in tables[1][name]})


def drawn_tables(name: str, folder: Path) -> Peers:
    "Some of the pairs that a task has, as whole AutoMM would take a day for all of them."
    task = TASKS[name](folder)[0]
    own, asked = np.flatnonzero(task.train), np.flatnonzero(task.asked)
    tables = (task.table(*(part[k] for k in draw_pairs(task.labels[part], n, seed))) for part, n, seed in ((own, PEER_TRAIN, SEED), (asked, PEER_ASKED, 1)))
    return Peers(name, *tables, task.held_out, dict(zip(task.files.tolist(), task.labels.tolist())))


def peer_rows(peers: Peers, column: ImageItems, automm: Path | None, kept: Path) -> list[dict]:
    "Ours, the plain cosine, and the real AutoMM: converged, and in the seconds that our fit took."
    name, match = peers.name, peers.match
    predictor, plain = (MatchPredictor("Image1", "Image2", "Label", hyperparameters={"held_out": peers.held_out}) for _ in range(2))
    for each in (predictor, plain): each.matcher.pretrained = ImageItems(column.encoder)
    predictor.fit(peers.train, progress=False)
    print(f"{name}: {predictor.fitted}, {predictor.column.encoder is column.encoder and 'batch norms as they were' or 'batch norms adapted'}", flush=True)
    ours = predictor._logits(peers.asked, None)[1]
    p, found = sigmoid(ours), {"auc": auc_statistic(ours, match), "cosine_auc": auc_statistic(plain._logits(peers.asked, None)[1], match)}
    found["ece"] = lambda w: expected_calibration_error(p, match, sample_weight=even_odds_weights(match, w))
    for limit in (None, predictor.seconds):
        way = "real_automm" + ("_same_seconds" if limit else "")
        answers = _automm.answers(f"{name} {way}", kept, automm, peers.train, peers.asked, column.encoder, limit, EPOCHS)
        if not answers: continue
        each = [auc_statistic(np.array(answer["probability"]), match) for answer in answers]
        found[f"{way}_auc"] = lambda w, each=each: float(np.mean([figure(w) for figure in each]))
        found[f"auc_minus_{way}_auc"] = lambda w, theirs=found[f"{way}_auc"]: found["auc"](w) - theirs(w)
    found["auc_minus_cosine_auc"] = lambda w: found["auc"](w) - found["cosine_auc"](w)
    rng, floor, own = np.random.default_rng(SEED), ece_noise_floor(p, prior=float(match.mean()), n_sim=200), name == "coil100_own"
    drawn, called = [peers.resampled(rng) for _ in range(RESAMPLES)], lambda figure: f"{name}_{figure}" if own or "real" in figure else f"{name}_peer_{figure}"
    goals = {"ece": floor.high, "auc_minus_cosine_auc": 0, "auc_minus_real_automm_auc": -0.003 if own else 0}
    rows = [interval_row(called(figure), percentile_interval(of(np.ones(len(match))), [of(w) for w in drawn]), goals.get(figure), "lower" if figure == "ece" else "higher",
                         "real AutoMM" if "minus_real" in figure else None, not own and figure == "auc_minus_real_automm_auc") for figure, of in found.items()]
    return [*rows, interval_row(called("ece_floor"), floor, better="lower")]


# Small tables.

def small_figures(n: int, files: np.ndarray, labels: np.ndarray, column: ImageItems, seed: int) -> dict[str, float]:
    "One table of `n` pairs: what the predictor made of it is right about."
    rng, (n_breeds, n_each) = np.random.default_rng(seed), SMALL_TABLES[n]
    breeds = rng.permutation(np.unique(labels))[:n_breeds]
    train = np.concatenate([rng.permutation(np.flatnonzero(labels == breed))[:n_each] for breed in breeds])
    task = Task(files, labels, np.isin(np.arange(len(files)), train), np.ones(len(files), bool), "")
    predictor = MatchPredictor("Image1", "Image2", "Label", hyperparameters=QUICKER)
    predictor.matcher.pretrained = column
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        predictor.fit(task.table(*(train[k] for k in draw_pairs(labels[train], n, rng))), progress=False)
    others = np.setdiff1d(np.arange(len(files)), train)
    asked = rng.permutation(others[np.isin(labels[others], breeds) == (n == min(SMALL_TABLES))])[:ASKED]
    i, j = asked[all_pairs(len(asked))].T
    _, logits = predictor._logits(task.table(i, j), None)
    match = labels[i] == labels[j]
    return {"auc": auc_statistic(logits, match)(np.ones(len(match))), "accuracy": balanced_accuracy(logits, match, predictor.model.threshold),
            "best_accuracy": balanced_accuracy(logits, match, best_threshold(logits, match)), "warned": float(any("held-out" in str(w.message) for w in said))}


def small_rows(encoder: Encoder) -> list[dict]:
    data = labelled_images(sample_pets(Path(tempfile.mkdtemp()) / "pets", *DRAWN, seed=SEED) / "images", valid_pct=0)
    files, labels, column, rows = np.array(data.files, str), np.array(data.labels), ImageItems(encoder), []
    for n in SMALL_TABLES:
        each = [small_figures(n, files, labels, column, seed) for seed in SMALL_SEEDS]
        print(n, each, flush=True)
        rng, figures = np.random.default_rng(SEED), {name: np.array([e[name] for e in each]) for name in each[0]}
        for name, values in figures.items():
            drawn = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(1)
            rows.append(interval_row(f"small_{n}_{name}", percentile_interval(values.mean(), drawn), figures["best_accuracy"].mean() - .03 if name == "accuracy" else None))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "coil100, clothing and pets")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="which sets to measure")
    parser.add_argument("--automm", type=Path, help="the Python of an environment that has AutoMM: see _automm.py")
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args()
    if args.small: make_small()
    folder, encoder, automm, rows = data_folder(args), create_encoder(size=SIZE), _automm.interpreter(args.automm), []
    small_encoder = ImageItems(create_encoder(size=SIZE or OWN_SIZE))
    for name in args.sets:
        if name == "coil100_own": rows += peer_rows(own_tables(folder), small_encoder, automm, KEPT)
        elif name.endswith("_peer"): rows += peer_rows(drawn_tables(name.removesuffix("_peer"), folder), small_encoder, automm, KEPT)
        else: rows += small_rows(encoder) if name == "small" else rows_of(name, answers(name, folder, encoder))
        report(rows + measured_before(args.json, {row["name"] for row in rows}), args.json) # kept, whatever happens to the next set


if __name__ == "__main__":
    main()
