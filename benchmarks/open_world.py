"""What a model is worth in a world that holds more than it learned: classes of its own domain that it did not, and pictures of other domains.

Trained classes were learned; new ones are of the same domain and were not, but are in the gallery, with labels; foreign pictures are of another domain. One
gallery holds all three. Pets: the nine unseen breeds are new, then each of four folds of the 37, pooled. Clothing: each of ten cyclic triples of classes is
new, pooled. Foreign pictures are those of `imagenet_sample` without cats, dogs (and other felids and canids) and garments, which are listed; half of them are
queries, the other half are in the gallery. Intervals are bootstraps over the classes of each system. A result without a probability counts as 0 where
foreign queries are averaged, and is left out of calibration errors; `_none_` rows say how many there are.

    python benchmarks/open_world.py --data ../shared/data --json benchmarks/results/open_world.json
"""
import argparse
import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from _data import add_arguments, data_folder
from _report import interval, interval_row, measured_before, report, row

from image_similarity.encoders.encoder import Embedded, create_encoder, embed
from image_similarity.finder.evaluation import part_of
from image_similarity.finder.finder import SimilarityFinder
from image_similarity.finder.looking import candidates_of_classes, look_at, spent_by, two_sides
from image_similarity.images.datasets import LabelledImages, all_pairs
from image_similarity.images.listing import image_files
from image_similarity.learners.classifier import classifier_learner
from image_similarity.learners.siamese import siamese_learner
from image_similarity.metrics.calibration import cllr, ece_noise_floor, expected_calibration_error, smallest_cllr
from image_similarity.metrics.intervals import bootstrap_interval
from image_similarity.metrics.pairs import pair_auc
from image_similarity.scoring.open_world import UNCALIBRATED, Logistic, allowance
from image_similarity.scoring.scorers import PairScorer, embedding

AUGMENT, EPOCHS, DRAWS, SYSTEMS = 4, 10, 20, 99
CATS_AND_DOGS = range(2085620, 2130309)  # WordNet numbers of canids and felids
GARMENTS = set("""abaya academic_gown apron bikini bonnet brassiere bow_tie bolo_tie cardigan cloak clog cowboy_boot cowboy_hat bathing_cap shower_cap crash_helmet
football_helmet fur_coat gown hoopskirt jean jersey kimono lab_coat Loafer maillot mask gasmask ski_mask military_uniform miniskirt mitten mortarboard overskirt
pajama pickelhaube poncho running_shoe sandal sarong shoe_shop sock sombrero stole suit sunglass sunglasses sweatshirt swimming_trunks trench_coat vestment wool
Windsor_tie diaper bulletproof_vest cuirass breastplate breechcloth feather_boa bearskin Christmas_stocking wig neck_brace knee_pad""".split())


@dataclass(frozen=True)
class Photos:
    "A set, embedded."
    name: str
    vectors: Embedded
    labels: np.ndarray
    split: np.ndarray  # 'train' or 'test'
    seen: np.ndarray   # bool: of classes that the first system of pets is trained on

    def data(self, rows) -> LabelledImages:
        return LabelledImages([self.vectors.files[i] for i in rows], list(self.labels[rows]), np.zeros(len(rows), bool))


def read(name: str, folder: Path, encoder) -> Photos:
    if name == "pets":
        rows = list(csv.DictReader((folder / "pets/split.csv").open(encoding="utf-8")))
        files, labels = [folder / "pets/images" / r["file"] for r in rows], [r["breed"] for r in rows]
        split, seen = [r["split"] for r in rows], [r["breed_group"] == "seen" for r in rows]
    else:
        files = image_files(folder / name)
        labels, split = [f.parent.name for f in files], ["train" if f.parent.parent.name == "train" else "test" for f in files]
        seen = [True] * len(files)
    vectors = embed(files, encoder, augment=AUGMENT, description=name)
    return Photos(name, vectors, *(np.array(values)[vectors.kept] for values in (labels, split, seen)))


def read_foreign(folder: Path, encoder) -> Embedded:
    files, kept, dropped = image_files(folder / "imagenet_sample"), [], []
    for file in files:
        number, _, name = file.stem.partition("_")
        domestic = number[1:].isdigit() and int(number[1:]) in CATS_AND_DOGS or name in GARMENTS
        (dropped if domestic else kept).append(file)
    print(f"dropped from the foreign pictures ({len(dropped)}):", *sorted(f.stem for f in dropped))
    return embed(kept or files, encoder, description="foreign")


@dataclass(frozen=True)
class System:
    "A model that has learned some of the classes, and what it is asked."
    photos: Photos
    new: np.ndarray      # names of classes that it has not learned
    train: np.ndarray    # rows
    gallery: np.ndarray  # rows, training ones first
    trained: np.ndarray  # queries of trained classes
    asked_new: np.ndarray


def systems(photos: Photos) -> Iterator[System]:
    names, train = np.unique(photos.labels), photos.split == "train"
    if photos.name == "pets":
        order = np.random.default_rng(0).permutation(names)
        news = [np.unique(photos.labels[~photos.seen]), *np.array_split(order, 4)]
    else: news = [names[[k, (k + 1) % len(names), (k + 2) % len(names)]] for k in range(len(names))]
    for new in news[:SYSTEMS]:
        is_new = np.isin(photos.labels, new)
        learned, strangers = np.flatnonzero(train & ~is_new), np.flatnonzero(is_new if photos.name == "pets" else is_new & train)
        asked = strangers if photos.name == "pets" else np.flatnonzero(is_new & ~train)  # pets are few: all of them, each without itself
        yield System(photos, new, learned, np.concatenate([learned, strangers]), np.flatnonzero(~train & ~is_new), asked)


def average_precision(relevant: np.ndarray, total: int) -> float:
    "MAP@R of one query, from whether each of its first results is right."
    r = relevant[:total]
    return float((r * np.cumsum(r) / np.arange(1, len(r) + 1)).sum() / total) if total else np.nan


def measure(system: System, foreign: Embedded, encoder) -> dict[str, dict]:
    "For each kind of query ('trained', 'new', 'foreign'): name to a value for each query; 'pairs': AUCs by name; 'spent'."
    p, rng = system.photos, np.random.default_rng(0)
    train, vectors = p.data(system.train), part_of(p.vectors, system.train)
    clearn = classifier_learner(train, encoder, vectors, progress=False)
    slearn = siamese_learner(train, encoder, vectors, epochs=EPOCHS, progress=False)
    order = rng.permutation(len(foreign.files))
    asked_foreign, in_gallery = np.array_split(order, 2)
    pooled = np.concatenate([p.vectors.pooled[system.gallery], foreign.pooled[in_gallery]])
    labels = [*p.labels[system.gallery], *(f"foreign {i}" for i in in_gallery)]
    files = [Path(f"{i}.jpg") for i in range(len(pooled))]
    some = lambda n: (files[:n], labels[:n], Embedded(files[:n], pooled[:n], np.zeros((0, n, pooled.shape[1]), np.float32), kept=np.arange(n)))
    finder = SimilarityFinder(clearn, slearn, *some(len(pooled)))
    closed = SimilarityFinder(clearn, slearn, *some(len(system.train)))
    print(p.name, *system.new, clearn.choice.recipe, "log odds above", round(finder.model.world.bar, 2), "cosine", finder.model.world.cosine, flush=True)
    found = {kind: ask(finder, closed if kind == "trained" else None, p.vectors.pooled[rows], p.labels[rows], pooled, np.array(labels))
             for kind, rows in (("trained", system.trained), ("new", system.asked_new))}
    found["foreign"] = ask(finder, None, foreign.pooled[asked_foreign], np.array([f"query {i}" for i in asked_foreign]), pooled, np.array(labels))
    found["pairs"] = {f"{part}_{kind}": pair_figures(finder, p, rows, part) for kind, rows in (("trained", system.trained), ("new", system.asked_new)) for part in ("", "before")}
    found["world"] = {"spent_new": finder.model.world.spent_new}
    return found


def ask(finder: SimilarityFinder, closed: SimilarityFinder | None, queries: np.ndarray, labels: np.ndarray, gallery: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    rows, units = finder.scorer.rows(torch.from_numpy(gallery)), embedding(torch.from_numpy(gallery)).numpy()
    out: dict[str, list] = {"label": list(labels)}
    add = lambda name, value: out.setdefault(name, []).append(value)
    for vector, label in zip(queries, labels):
        itself = (np.abs(gallery - vector) < 1e-4).all(1)
        relevant = (names == label) & ~itself
        total, asked = int(relevant.sum()), torch.from_numpy(vector[None])
        scores = {"all": finder.scorer.logits(finder.scorer.rows(asked), rows)[0].numpy(), "cosine": (embedding(asked).numpy() @ units.T)[0]}
        for name, score in scores.items():
            right = relevant[np.argsort(-np.where(itself, -np.inf, score), kind="stable")]
            add(f"{name}_recall_at_1", float(right[0])); add(f"{name}_map_at_r", average_precision(right, total))
        results = finder.search(b"", max(total, 100), pooled=vector)
        right = np.array([r.label == label for r in results], float)
        add("recall_at_1", right[0]); add("map_at_r", average_precision(right, total))
        add("probability", np.nan if results[0].probability is None else results[0].probability)
        add("known", float(results.predicted[0] is not None))
        add("rank", int(right.argmax()) + 1 if right.any() else 999)
        if closed:
            right = np.array([r.label == label for r in closed.search(b"", max(total, 1), pooled=vector)], float)
            add("closed_recall_at_1", right[0]); add("closed_map_at_r", average_precision(right, total))
        now, look = finder._now(), look_at(finder.model, b"", vector)
        spent = spent_by(now, look, label) if total else np.inf
        sides = two_sides(now, look, now.view.alive)
        add("spent", spent)
        add("before", [] if sides.near < look.world.far else candidates_of_classes(now, look, sides).before)
    return {name: values if name == "before" else np.array(values) for name, values in out.items()}


def pair_figures(finder: SimilarityFinder, photos: Photos, rows: np.ndarray, part: str) -> tuple[float, float, float]:
    "AUC, Cllr in bits, and the smallest Cllr that better calibration could give."
    pooled, (i, j) = torch.from_numpy(photos.vectors.pooled[rows]), all_pairs(len(rows)).T
    own = finder.scorer.rows(pooled)
    logits = finder.scorer.logits(own, own) if part == "before" else finder.pair_logits(pooled, pooled)
    scores, match = logits.double().numpy()[i, j], photos.labels[rows[i]] == photos.labels[rows[j]]
    return pair_auc(scores, match), cllr(scores, match), smallest_cllr(scores, match)


def pooled_queries(runs: list[dict], kind: str) -> dict[str, np.ndarray]:
    out = {name: np.concatenate([run[kind][name] for run in runs]) for name in runs[0][kind] if name != "before"}
    return out | {"cluster": np.unique(np.concatenate([[f"{k} {label}" for label in run[kind]["label"]] for k, run in enumerate(runs)]), return_inverse=True)[1]}


def by_class(values: np.ndarray, cluster: np.ndarray):
    "Mean over queries, by bootstrap over classes."
    ok = ~np.isnan(values)
    sums, counts = (np.bincount(cluster[ok], w, cluster.max() + 1) for w in (values[ok], None))
    return bootstrap_interval(lambda at: sums[at].sum() / max(1, counts[at].sum()), len(sums))


def rows_of(name: str, runs: list[dict]) -> list[dict]:
    found, told = [], f"{len(runs)} system{'s'[:len(runs) != 1]}"
    by_kind = {kind: pooled_queries(runs, kind) for kind in ("trained", "new", "foreign")}
    add = lambda what, interval, **more: found.append(interval_row(f"{name}_{what}", interval, **({"against": told} | more)))
    for kind, peers in (("trained", ("", "closed_", "cosine_")), ("new", ("", "all_", "cosine_"))):
        q = by_kind[kind]
        for figure in ("recall_at_1", "map_at_r"):
            for peer in peers: add(f"{kind}_{peer}{figure}", by_class(q[f"{peer}{figure}"], q["cluster"]))
        if kind == "trained": best = "closed_"
        else: best = max(("all_", "cosine_"), key=lambda p: q[f"{p}recall_at_1"].mean())
        add(f"{kind}_recall_at_1_minus_{best[:-1]}", by_class(q["recall_at_1"] - q[f"{best}recall_at_1"], q["cluster"]), goal=-.03, by_interval=True)
        p, right = q["probability"], q["recall_at_1"]
        told_one = ~np.isnan(p)
        perfect = ece_noise_floor(p[told_one], n_sim=500).high if told_one.any() else np.nan
        ece = expected_calibration_error(p[told_one], right[told_one]) if told_one.any() else np.nan
        found += [row(f"{name}_top1_ece_{kind}", ece, goal=perfect * (1 if kind == "trained" else 1.5), better="lower", against=told),
                  row(f"{name}_top1_ece_{kind}_perfect", perfect, better="lower", against=told)]
        add(f"{kind}_accepted", by_class((np.nan_to_num(p) >= .5).astype(float), q["cluster"]), **({"goal": .85} if kind == "trained" else {}))
        add(f"{kind}_none", by_class(np.isnan(p).astype(float), q["cluster"]), better="lower")
        for part in ("", "before"):
            values = np.array([run["pairs"][f"{part}_{kind}"] for run in runs])
            for k, (what, better) in enumerate((("auc", "higher"), ("cllr", "lower"), ("smallest_cllr", "lower"))):
                end, of = "_before" if part else "", values[:, k]
                goal = float(np.mean([run["pairs"][f"before_{kind}"][0] for run in runs])) if what == "auc" and not part else None
                found.append(row(f"{name}_pair_{what}_{kind}{end}", float(of.mean()), float(of.min()), float(of.max()), goal, better, against=told))
    q = by_kind["foreign"]
    p = np.nan_to_num(q["probability"])
    add("top1_foreign_mean", by_class(p, q["cluster"]), goal=.05, better="lower")
    add("foreign_accepted", by_class((p >= .5).astype(float), q["cluster"]), goal=.05, better="lower")
    add("foreign_none", by_class(np.isnan(q["probability"]).astype(float), q["cluster"]))
    return found + coverage_rows(name, runs, told)


def coverage_rows(name: str, runs: list[dict], told: str) -> list[dict]:
    "Calibration and test drawn anew: half of the queries of trained classes calibrate, the other half and all new and foreign ones are asked."
    draws: dict[str, list[float]] = {}
    for draw in range(DRAWS):
        rng, sums = np.random.default_rng(draw), {}
        for run in runs:
            order = rng.permutation(len(run["trained"]["spent"]))
            own, asked = np.array_split(order, 2)
            spend = max(allowance(run["trained"]["spent"][own], .95), allowance(run["world"]["spent_new"], .95))
            sums.setdefault("coverage_refused", []).append(float(np.isinf(spend)))  # as `search` does: it cannot be shown
            if np.isinf(spend): continue
            sizes = lambda kind, at=None: [int((np.array(run[kind]["before"][i]) <= spend).sum()) for i in (range(len(run[kind]["before"])) if at is None else at)]
            for what, values in (("coverage_trained", run["trained"]["spent"][asked] <= spend), ("coverage_new", run["new"]["spent"] <= spend), ("set_size_trained", sizes("trained", asked)),
                                 ("set_size_new", sizes("new")), ("nonempty_foreign", np.array(sizes("foreign")) > 0), ("rank", run["trained"]["rank"][asked])):
                sums.setdefault(what, []).extend(np.asarray(values, float))
        if "rank" in sums and (k := float(np.quantile(sums.pop("rank"), np.mean(sums["coverage_trained"]), method="inverted_cdf"))) < 999:  # else no number in a hundred does
            sums["fixed_k_same_coverage"] = [k]
        for what, values in sums.items(): draws.setdefault(what, []).append(float(np.mean(values)))
    goals = {"coverage_trained": (.94, "higher"), "coverage_new": (.92, "higher"), "set_size_trained": (float(np.mean(draws["fixed_k_same_coverage"])) if "fixed_k_same_coverage" in draws else None, "lower"), "coverage_refused": (None, "lower"), "nonempty_foreign": (.1, "lower")}
    return [row(f"{name}_{what}", float(np.mean(v)), *map(float, np.quantile(v, [.025, .975])), *goals.get(what, (None, "higher" if "coverage" in what else "lower")), told) for what, v in draws.items()]


def speed_rows(width: int, classes: int = 37, queries: int = 16, items: int = 20_000) -> list[dict]:
    "Pairs a second of a gallery whose rows are ready, by both heads and by the Siamese one alone, in turns. The numbers are drawn at random: speed does not hang on them."
    rng, random = np.random.default_rng(0), torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=random)
    scorer = PairScorer(draw(256, width), draw(256, width), draw(256), draw(256), *map(torch.tensor, (5., 0., 0.)))
    world = replace(UNCALIBRATED, agreement=.3, alone=Logistic((1., 1.), 0.))
    rows = [scorer.rows(draw(n, width).abs()) for n in (queries, items)]
    seen = [(np.log(rng.dirichlet(np.ones(classes), n)), rng.random(n)) for n in (queries, items)]
    siamese = lambda: scorer.logits(*rows)
    both = lambda: siamese() + torch.from_numpy(world.class_agreement(seen[0][0], seen[1][0], (seen[0][1], seen[1][1])))
    both()
    taken: dict[str, list[float]] = {"siamese": [], "both": []}
    for _ in range(9):
        for name, score in (("siamese", siamese), ("both", both)):
            start = time.perf_counter()
            score()
            taken[name].append(time.perf_counter() - start)
    ratio = interval(np.array(taken["siamese"]) / np.array(taken["both"]))
    return [row("both_heads_pairs_per_second", queries * items / float(np.median(taken["both"])), against=f"{classes} classes"),
            row("both_heads_speed_ratio", *ratio, goal=.7, against=f"the Siamese head alone, {classes} classes, {items:,} items")]


def main():
    global AUGMENT, EPOCHS, DRAWS, SYSTEMS
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "pets/, clothing/ and imagenet_sample/")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--only", choices=["pets", "clothing"], help="one of the sets")
    parser.add_argument("--systems", type=int, default=SYSTEMS, help="at most so many systems a set")
    args = parser.parse_args()
    SYSTEMS = args.systems
    if args.small: AUGMENT, EPOCHS, DRAWS, SYSTEMS = 1, 1, 2, 1
    encoder, rows = create_encoder(size=64 if args.small else None), []
    folder = data_folder(args)
    foreign = read_foreign(folder, encoder)
    for name in [args.only] if args.only else ["pets", "clothing"]:
        photos = read(name, folder, encoder)
        rows += rows_of(name, [measure(system, foreign, encoder) for system in systems(photos)])
    if not args.small: rows += speed_rows(encoder.width)
    report(rows + measured_before(args.json, {r["name"] for r in rows}), args.json)


if __name__ == "__main__":
    main()
