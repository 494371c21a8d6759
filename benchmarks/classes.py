"""How well classes are told apart, beside scikit-learn on the same vectors: many and few pictures, and very unequal numbers of them.

Ours is the recipe that `classifier_learner` chooses inside the training pictures, with augmented views; its peers are logistic regression with C by
cross-validation, discriminant analysis with automatic shrinkage, and k-NN by cosine (k = 5; 1 where a class has fewer than 5), which have no views. Pets and clothing have their own test
pictures; of drawn pets and of fashion's types with at least 20 pictures, four in ten are for testing. A regime is the number of training pictures of a class; `unequal` goes from 60 to 1 in
equal ratios. Of `all`, the interval is a bootstrap over test pictures; else it is over ten draws.

    python benchmarks/classes.py --data ../shared/data --json benchmarks/results/classes.json
"""
import argparse
import csv
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _data import add_arguments, data_folder
from _report import interval_row, measured_before, report, row
from scipy.linalg import LinAlgError, lstsq, solve
from scipy.special import log_softmax
from scipy.stats import norm
from sklearn import discriminant_analysis
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.neighbors import KNeighborsClassifier

from image_similarity.drawing.pets import sample_pets
from image_similarity.encoders.encoder import create_encoder, embed
from image_similarity.images.listing import image_files, label_func
from image_similarity.learners.classifier import LOOK
from image_similarity.learners.recipes import choose_linear
from image_similarity.metrics.intervals import bootstrap_interval

REGIMES, DRAWS, AUGMENT, FEWEST, SIZE = (1, 2, 3, 5, "all"), 10, 4, 20, None


class ShrunkLDA(LinearDiscriminantAnalysis):
    "scikit-learn's. Its least squares are solved by Cholesky's factors, a tenth of the time, where the covariance is shrunk and so positive definite."
    def _solve_lstsq(self, X, y, shrinkage, covariance_estimator):
        self.means_ = discriminant_analysis._class_means(X, y)
        self.covariance_ = discriminant_analysis._class_cov(X, y, self.priors_, shrinkage, covariance_estimator)
        try: self.coef_ = solve(self.covariance_, self.means_.T, assume_a="pos").T
        except LinAlgError: self.coef_ = lstsq(self.covariance_, self.means_.T, lapack_driver="gelsy")[0].T # two pictures of each class are not shrunk
        self.intercept_ = -.5 * np.diag(self.means_ @ self.coef_.T) + np.log(self.priors_)


@dataclass(frozen=True)
class Photos:
    "A set, embedded."
    views: np.ndarray    # (V, n, d)
    targets: np.ndarray  # (n,)
    test: np.ndarray     # (n,) bool


def listed(name: str, folder: Path) -> tuple[list[Path], list[str], list[bool] | None]:
    "Files, labels, and which are for testing, if the set says so."
    if name == "pets":
        rows = list(csv.DictReader((folder / "pets/split.csv").open(encoding="utf-8")))
        return [folder / "pets/images" / r["file"] for r in rows], [r["breed"] for r in rows], [r["split"] == "test" for r in rows]
    if name == "clothing":
        files = image_files(folder / "clothing")
        return files, [f.parent.name for f in files], [f.parent.parent.name != "train" for f in files]
    if name == "drawn":
        files = image_files(sample_pets(Path(tempfile.gettempdir()) / "drawn-classes", n_breeds=12, n_per_breed=60) / "images")
        return files, [label_func(f) for f in files], None
    styles = {r["id"]: r.get("articleType") or r["productDisplayName"].split()[0] for r in csv.DictReader((folder / "fashion_clothes/sample_styles.csv").open(encoding="utf-8"))}
    files = [f for f in image_files(folder / "fashion_clothes") if f.stem in styles]
    labels = np.array([styles[f.stem] for f in files])
    names, counts = np.unique(labels, return_counts=True)
    kept = np.isin(labels, names[counts >= FEWEST])
    return [f for f, k in zip(files, kept) if k], labels[kept].tolist(), None


def read(name: str, folder: Path, encoder) -> Photos:
    files, labels, test = listed(name, folder)
    vectors = embed(files, encoder, augment=AUGMENT, description=name)
    targets = np.unique(np.array(labels)[vectors.kept], return_inverse=True)[1]
    held = np.random.default_rng(0).random(len(targets)) < .4 if test is None else np.array(test)[vectors.kept]
    return Photos(np.concatenate([vectors.pooled[None], vectors.augmented]), targets, held)


def drawn(photos: Photos, regime, rng: np.random.Generator) -> np.ndarray:
    "Rows to train on."
    n_classes = photos.targets.max() + 1
    wanted = np.geomspace(60, 1, n_classes).round().astype(int)[rng.permutation(n_classes)] if regime == "unequal" else np.full(n_classes, 10**6 if regime == "all" else regime)
    return np.concatenate([rng.permutation(np.flatnonzero((photos.targets == k) & ~photos.test))[:n] for k, n in enumerate(wanted)])


def answers(views: np.ndarray, targets: np.ndarray, asked: np.ndarray) -> dict[str, np.ndarray]:
    "Predicted classes of each system, and our confidence."
    choice = choose_linear(views, targets, LOOK * views.shape[0] * views.shape[1] / 4)
    logits = choice.linear.logits(asked)
    x = views[0]
    mean, spread = x.mean(0), x.std(0) + 1e-6
    x, q, fewest = (x - mean) / spread, (asked - mean) / spread, int(np.bincount(targets).min())
    axes = np.linalg.svd(x, full_matrices=False)[2]  # logistic regression is the same in the space that the pictures span, and faster
    lr = LogisticRegressionCV(Cs=np.logspace(-4, 0, 5), cv=min(3, fewest), max_iter=300) if fewest > 1 else LogisticRegression(C=.01, max_iter=300)
    unit = lambda z: z[:, z.shape[1] // 2:] / np.linalg.norm(z[:, z.shape[1] // 2:], axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {"": logits.argmax(1), "confidence": np.exp(log_softmax(logits, 1).max(1)), "lr_": lr.fit(x @ axes.T, targets).predict(q @ axes.T),
                 "knn_": KNeighborsClassifier(5 if fewest >= 5 else 1, metric="cosine").fit(unit(views[0]), targets).predict(unit(asked)), "recipe": choice.recipe}
        n_classes = targets.max() + 1
        if len(targets) > n_classes:  # it refuses a single picture of each class
            found["lda_"] = ShrunkLDA(solver="lsqr", shrinkage="auto", priors=[1 / n_classes] * n_classes).fit(x, targets).predict(q)
        return found


def holm_rows(rows: list[dict], sets: list[str]) -> list[dict]:
    """Of how many comparisons with a plain method ours is worse, after Holm's correction (1979) over all of them: the smallest p has to be below .05 over their
    number, the next below .05 over one less, and so on. p is of a normal distribution with the interval's width."""
    compared = [r for r in rows if "accuracy_minus_" in r["name"]]
    if not compared: return []
    spread = np.array([max(r["high"] - r["low"], 1e-9) for r in compared]) / (2 * norm.ppf(.975))
    p = np.sort(norm.cdf(np.array([r["value"] for r in compared]) / spread))
    above = np.flatnonzero(p > .05 / np.arange(len(p), 0, -1))
    return [row("worse_than_a_plain_method", int(above[0]) if len(above) else len(p), goal=0, better="lower", against=f"{len(p)} comparisons on {', '.join(sets)}; Holm's correction")]


def regime_rows(name: str, photos: Photos, regime, draws: int) -> list[dict]:
    truth, asked, found = photos.targets[photos.test], photos.views[0][photos.test], []
    for draw in range(1 if regime == "all" else draws):
        rows = drawn(photos, regime, np.random.default_rng(draw))
        found.append(answers(photos.views[:, rows], photos.targets[rows], asked))
    print(name, regime, *{str(one.pop("recipe")) for one in found}, flush=True)
    right = {system: np.array([one[system] == truth for one in found], float) for system in ("", "lr_", "lda_", "knn_") if system in found[0]}
    confidence = np.array([one["confidence"] for one in found])
    over = (lambda v: bootstrap_interval(lambda at: v[0, at].mean(), v.shape[1])) if regime == "all" else (lambda v: bootstrap_interval(lambda at: v[at].mean(), len(v)))
    start = f"{name}_{regime}_"
    out = [interval_row(f"{start}{system}accuracy", over(values)) for system, values in right.items()]
    out += [interval_row(f"{start}accuracy_minus_{system[:-1]}", over(right[""] - right[system]), goal=0, against=system[:-1]) for system in list(right)[1:]]
    gap = abs(float(confidence.mean() - right[""].mean()))
    return [*out, interval_row(f"{start}confidence", over(confidence)), row(f"{start}confidence_gap", gap, goal=None if regime == 1 else .05, better="lower")]


def main():
    global AUGMENT, FEWEST
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "pets/, clothing/ and fashion_clothes/")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--draws", type=int, default=DRAWS, help="of training pictures, for a regime")
    parser.add_argument("--only", choices=["pets", "clothing", "drawn", "fashion"], help="one of the sets")
    args = parser.parse_args()
    folder, regimes = data_folder(args), REGIMES
    if args.small: AUGMENT, FEWEST, args.draws, regimes = 1, 2, 1, (2, "all")
    encoder, rows = create_encoder(size=64 if args.small else None), []
    sets = [args.only] if args.only else ["pets", "clothing", *([] if args.small else ["drawn"]), "fashion"]
    for name in sets:
        photos = read(name, folder, encoder)
        for regime in (*regimes, *(["unequal"] if name in ("clothing", "drawn") and not args.small else [])): rows += regime_rows(name, photos, regime, args.draws)
    if not args.small and not args.only:
        for system in ("", "lr_", "lda_", "knn_"): rows.append(row(f"mean_{system}accuracy", float(np.mean([r["value"] for r in rows if r["name"].endswith(f"_{system}accuracy") and (system or r["name"].count("_") == 2)]))))
    if not args.only: rows += holm_rows(rows, sets)
    report(rows + measured_before(args.json, {r["name"] for r in rows}), args.json)


if __name__ == "__main__":
    main()
