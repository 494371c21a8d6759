"""Texts that find their picture and pictures that find their text, zero-shot and fine-tuned; and the same product in two catalogues.

flickr8k_sample has 100 photos with five captions each. It is cut into five folds of photos; for each, a predictor learns from the captions of the other
eighty, with `presets="best_quality"`. A caption is looked for among all 100 photos, and a photo's captions among all 500, by the predictor that never saw
this photo. Penalties are chosen, for either way, and calibrated inside the training photos. Beside it: the encoder as it is (zeroshot), ConSE as it was published (plain_conse), and chance.

Recall@k is the share of queries with a right answer among the first k; `_fraction` is the mean share of the right answers that is among them. Intervals are
bootstraps over photos, and differences are taken on the same resampled photos. The options of the zero-shot encoder, and the fixed settings of the
training (features, views, scale, steps, rate, which penalties are tried), were settled on these photos, so that both are a little flattered.

Among all 100 photos are the eighty that a predictor was trained on, whose vectors it has drawn to their own captions, which makes them worse rivals of a
new caption. So each caption is looked for among the twenty photos of its own fold as well, none of which the predictor knows (`held_out_`).

Has it forgotten anything? The titles of fashion_clothes are looked for among their photos before and after, by the predictor of each fold.

The rows of products are made by _products.py.

    python benchmarks/text.py --data ../shared/data --json benchmarks/results/text.json
"""
import argparse
import tempfile
from copy import copy
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd

from _data import add_arguments, data_folder
from _products import product_rows
from _report import interval_row, report, row
from image_similarity import ConSEEncoder, MatchPredictor
from image_similarity.metrics.intervals import bootstrap_interval
from image_similarity.metrics.ranking import query_recall_at_k

CUTOFFS, FOLDS, SEED, OUTSIDE = (1, 5, 10), 5, 0, 300
PRESETS = "best_quality"
GOALS = {"t2i_recall_at_10": 0.80}
SHOWN = ("t2i_recall_at_5", "t2i_recall_at_10") # above zero-shot by the interval; of the other figures it is enough that they are not below


def make_small() -> None:
    "Run as briefly as can be."
    global FOLDS, OUTSIDE, PRESETS
    FOLDS, OUTSIDE, PRESETS = 2, 10, "medium_quality"


def read_captions(folder: Path) -> pd.DataFrame:
    "caption, image, relevance: a row for each caption."
    table = pd.read_csv(folder / "captions.txt")
    return pd.DataFrame({"caption": table["caption"].str.strip(), "image": [str(folder / "images" / name) for name in table["image"]], "relevance": 1})


def read_titles(folder: Path) -> pd.DataFrame:
    "caption, image: some products, the same ones each time, with titles of their own."
    table = pd.read_csv(folder / "sample_styles.csv").drop_duplicates("productDisplayName")
    table = table.iloc[np.random.default_rng(SEED).choice(len(table), min(OUTSIDE, len(table)), replace=False)]
    return pd.DataFrame({"caption": table["productDisplayName"], "image": [str(folder / "sample_images" / f"{i}.jpg") for i in table["id"]]})


def scores_of(predictor: MatchPredictor, captions: list[str], images: list[str]) -> dict[str, np.ndarray]:
    "(captions, images) cosines: of words that ask, and of pictures."
    def embedded(name: str, cells: list[str], asked: str) -> np.ndarray: return predictor.embed_column(pd.DataFrame({name: cells}), name, asked=asked)
    return {way: embedded("caption", captions, asked) @ embedded("image", images, asked).T for way, asked in (("t2i", "text"), ("i2t", "image"))}


def held_out(scores: np.ndarray, relevant: np.ndarray, inside: np.ndarray, photos: np.ndarray) -> np.ndarray:
    "(C,) whether each caption of a fold finds its photo first among the photos of the fold."
    return query_recall_at_k(scores[np.ix_(inside, photos)], relevant[np.ix_(inside, photos)], 1, "hit").astype(float)


def per_query(scores: dict[str, np.ndarray], relevant: np.ndarray) -> dict[str, np.ndarray]:
    "Of each caption, and of each image, each figure."
    found = {}
    for way, s, r in (("t2i", scores["t2i"], relevant), ("i2t", scores["i2t"].T, relevant.T)):
        for k in CUTOFFS:
            found[f"{way}_recall_at_{k}"] = query_recall_at_k(s, r, k, "hit").astype(float)
            found[f"{way}_recall_at_{k}_fraction"] = query_recall_at_k(s, r, k, "fraction")
    return found


def over_images(values: np.ndarray, owner: np.ndarray, n: int):
    "A statistic for the bootstrap over images: the mean of the images' queries; `owner` has the image of each query."
    sums, counts = (np.bincount(owner, weights=w, minlength=n) for w in (values, np.ones(len(values))))
    return lambda drawn: float(sums[drawn].sum() / counts[drawn].sum())


def bootstrap_row(name, statistic, n, goal=None, against=None, by_interval=False) -> dict:
    return interval_row(name, bootstrap_interval(statistic, n), goal, against=against, by_interval=by_interval)


def chance(name: str, n_images: int, n_captions: int) -> float:
    "What a random order gives, with the same number of captions for each image."
    way, k, each = name[:3], int(name.removesuffix("_fraction").rsplit("_", 1)[1]), n_captions // n_images
    if way == "t2i": return k / n_images
    return k / n_captions if name.endswith("_fraction") else 1 - comb(n_captions - each, k) / comb(n_captions, k)


def flickr_rows(data: Path) -> list[dict]:
    "All rows of captions, and those of what was forgotten."
    table, titles = read_captions(data / "flickr8k_sample"), read_titles(data / "fashion_clothes")
    images = table["image"].unique().tolist()
    n, owner, captions = len(images), table["image"].map({name: i for i, name in enumerate(images)}).to_numpy(), table["caption"].tolist()
    relevant = np.zeros((len(table), n), dtype=bool)
    for caption, image in zip(captions, owner): relevant[table["caption"] == caption, image] = True
    zero_shot = MatchPredictor("caption", "image", "relevance", problem_type="image_text_similarity", presets=PRESETS)
    published = ConSEEncoder(zero_shot.column.encoder.encoder, definitions=False, linear=0)
    scores = {"zeroshot": scores_of(zero_shot, captions, images),
              "plain_conse": dict.fromkeys(("t2i", "i2t"), published.encode_texts(captions) @ published.encode_images(images, progress=False).vectors.T)}
    asked = {name: per_query(s, relevant) for name, s in scores.items()}
    before = per_query(scores_of(zero_shot, titles["caption"].tolist(), titles["image"].tolist()), np.eye(len(titles), dtype=bool))
    fold_of, tuned, after, new = np.random.default_rng(SEED).permutation(n) % FOLDS, {}, [], np.zeros((2, len(captions)))
    for fold in range(FOLDS):
        predictor = copy(zero_shot).fit(table[fold_of[owner] != fold], progress=False) # a copy has the same encoder, and knows the photos already
        print(f"fold {fold}: {predictor.fitted}", flush=True)
        learned = scores_of(predictor, captions, images)
        found, inside = per_query(learned, relevant), fold_of[owner] == fold
        new[:, inside] = [held_out(s["t2i"], relevant, inside, fold_of == fold) for s in (learned, scores["zeroshot"])]
        for name, values in found.items():
            own = fold_of[owner] == fold if name.startswith("t2i") else fold_of == fold
            tuned.setdefault(name, np.zeros(len(own)))[own] = values[own]
        after.append(per_query(scores_of(predictor, titles["caption"].tolist(), titles["image"].tolist()), np.eye(len(titles), dtype=bool)))
    return [*captions_rows({"": tuned, **{f"{name}_": found for name, found in asked.items()}}, owner, n), *held_out_rows(new, owner, n), *outside_rows(before, after)]


def captions_rows(asked: dict[str, dict[str, np.ndarray]], owner: np.ndarray, n: int) -> list[dict]:
    "Each figure of each way, chance, and what fine-tuning adds."
    rows = []
    for name in asked[""]:
        of = {way: over_images(found[name], owner if name.startswith("t2i") else np.arange(n), n) for way, found in asked.items()}
        rows += [bootstrap_row(f"{way}{name}", statistic, n, GOALS.get(f"{way}{name}")) for way, statistic in of.items()]
        rows.append(row(f"chance_{name}", chance(name, n, len(owner))))
        rows.append(bootstrap_row(f"{name}_minus_zeroshot", lambda drawn: of[""](drawn) - of["zeroshot_"](drawn), n, 0, "zeroshot", name in SHOWN))
    return rows


def held_out_rows(new: np.ndarray, owner: np.ndarray, n: int) -> list[dict]:
    "Captions among the photos of their fold: fine-tuned, zero-shot, and the difference."
    tuned, zero_shot = (over_images(values, owner, n) for values in new)
    name = "held_out_t2i_recall_at_1"
    return [bootstrap_row(name, tuned, n), bootstrap_row(f"zeroshot_{name}", zero_shot, n),
            bootstrap_row(f"{name}_minus_zeroshot", lambda drawn: tuned(drawn) - zero_shot(drawn), n, 0, "zeroshot", True)]


def outside_rows(before: dict[str, np.ndarray], after: list[dict[str, np.ndarray]]) -> list[dict]:
    "Products, whose titles nothing was learned from: the mean over the predictors of all folds, less the encoder as it is."
    rows = []
    for name in ("t2i_recall_at_10", "i2t_recall_at_10"):
        mean, n = np.mean([found[name] for found in after], axis=0), len(before[name])
        for way, values in (("", mean), ("zeroshot_", before[name])): rows.append(bootstrap_row(f"outside_{way}{name}", lambda drawn: values[drawn].mean(), n))
        rows.append(bootstrap_row(f"outside_{name}_minus_zeroshot", lambda drawn: (mean - before[name])[drawn].mean(), n, against="zeroshot"))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "flickr8k_sample and fashion_clothes")
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args()
    if args.small: make_small()
    data = data_folder(args)
    rows = flickr_rows(data)
    report(rows, args.json) # kept, whatever happens next
    with tempfile.TemporaryDirectory() as folder: rows += product_rows(data, Path(folder), 64 if args.small else None)
    report(rows, args.json)


if __name__ == "__main__":
    main()
