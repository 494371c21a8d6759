"""How much faster `SimilarityFinder.predict` is than the loop of the article, with the same answer: seed_loop.py [--json OUT] [--data DIR] [--small]

The article "Image Similarity Finder" compares a query with fifteen files of the predicted class by a loop: each time it opens both images,
sends both through the network, one pair a batch, and keeps the encoder's activations with a hook. `ArticleFinder` is that loop. It is given
what makes it no slower than it has to be: learners that open and score a pair without fastai's test loader, no progress bar, nothing drawn.

Both finders have the same learners, the head as the article has it (one order, no cosine term, not calibrated), trained for a moment on
cached vectors so that its answers spread. The article's encoder is resnet34. Its weights here are random, because the trained ones are not on
PyPI; what the values are makes no difference to the speed. Both sides run eagerly, so that what is measured is the loop. The `_default`
rows are measured again as a user has it: with this package's own encoder, input size and weights trained on ImageNet, and with the runtime
that it chooses by itself. Everything is in float32, and on one core unless --threads says otherwise: with two, anything else that runs on
the machine makes both sides wait, and by turns.
"""
import argparse
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from _data import add_arguments, data_folder
from _report import interval, report, row
from fastai.callback.hook import Hook

from image_similarity.learners.blocks import OpenFor
from image_similarity.learners.classifier import classifier_learner
from image_similarity.images.datasets import LabelledImages, labelled_images
from image_similarity.encoders.encoder import create_encoder, embed, runtime_for
from image_similarity.finder.finder import SimilarityFinder
from image_similarity.learners.siamese import siamese_learner
from image_similarity.learners.siamese_data import SiameseImage


class Activations(Hook):
    "fastai's hook, keeping what its module gave for each call since the last `reset`: for a pair, two feature maps."

    def __init__(self, module):
        self.reset()
        super().__init__(module, lambda module, inputs, output: self.kept + [output])

    def hook_fn(self, module, inputs, output):
        super().hook_fn(module, inputs, output)
        self.kept = self.stored

    def reset(self):
        self.kept = self.stored = []


class ArticleFinder:
    "The finder of the article: every comparison from the files."

    def __init__(self, classifier, siamese, files, label):
        self.clearn, self.slearn, self.open = classifier, siamese, OpenFor(siamese.model.encoder)
        self.lbl2files = {}
        for file in files:
            self.lbl2files.setdefault(label(file), []).append(file)

    def predict_class(self, fn) -> str:
        with self.clearn.no_bar():
            return self.clearn.predict(fn)[0]

    def predict(self, fn, compare_n: int = 15):
        "The most similar of the first `compare_n` files of the predicted class."
        self.preds, self.acts, self.images, self.fns = [], [], [], []
        candidates = self.lbl2files[self.predict_class(fn)][:compare_n]
        with Activations(self.slearn.model.encoder) as hook:
            for file in candidates:
                pair = self.open(fn), self.open(file)
                logit = self.slearn.siampredict(SiameseImage(*pair))[0]
                self.preds.append(torch.sigmoid(logit))
                self.fns.append((fn, file))
                self.images.append(pair)
                self.acts.append(hook.stored)
                hook.reset()
        self.idx = int(np.argmax([p.item() for p in self.preds]))
        return self.fns[self.idx][1]


def make_finders(data: LabelledImages, encoder, epochs: int = 3) -> tuple[ArticleFinder, SimilarityFinder]:
    "Both finders, of the same learners and the same files: those that are not held out."
    label = dict(zip(data.files, data.labels)).__getitem__
    embedded = embed(data.files, encoder, progress=False)
    classifier = classifier_learner(data, encoder, embedded, epochs=epochs, progress=False)
    siamese = siamese_learner(data, encoder, embedded, symmetric=False, calibrated=False, cosine=0, epochs=epochs, progress=False)
    files = [data.files[i] for i in data.train]
    return ArticleFinder(classifier, siamese, files, label), SimilarityFinder(classifier, siamese, files, label, progress=False)


def seconds(predict, *args, **kwargs) -> float:
    start = time.perf_counter()
    predict(*args, **kwargs)
    return time.perf_counter() - start


def difference(theirs: ArticleFinder, ours: SimilarityFinder) -> float:
    "The largest difference of a probability, after both predicted. Raises `AssertionError` for other candidates or another winner."
    assert ours.fns == theirs.fns, f"{ours.fns[0][0]}: not the same candidates"
    expected, winner = theirs.fns[theirs.idx][1], ours.fns[ours.idx][1]
    assert winner == expected, f"{ours.fns[0][0]}: the article's loop chose {expected}, the finder {winner}"
    return float((torch.stack(ours.preds).flatten() - torch.cat(theirs.preds)).abs().max())


def compare(theirs: ArticleFinder, ours: SimilarityFinder, query: Path, compare_n: int = 15) -> tuple[float, float, float]:
    "One query: seconds of the article's loop, seconds of the finder, and the largest difference of a probability."
    theirs_took, ours_took = seconds(theirs.predict, query, compare_n), seconds(ours.predict, query, compare_n, show=False)
    return theirs_took, ours_took, difference(theirs, ours)


def pictures(folder: Path) -> LabelledImages:
    "The eight breeds of a folder with the most pictures, so that fifteen can be compared."
    data = labelled_images(folder / "images", split=folder / "split.csv")
    counts = {c: sum(data.labels[i] == c for i in data.train) for c in data.classes}
    largest = sorted(counts, key=counts.get, reverse=True)[:8]
    return data.take([label in largest for label in data.labels])


def queries(data: LabelledImages, ours: SimilarityFinder, n: int, compare_n: int) -> list[Path]:
    "Held-out images for which there are `compare_n` candidates."
    held_out = [data.files[i] for i in np.random.default_rng(0).permutation(data.valid)]
    found = []
    for file in held_out:
        ours.predict(file, compare_n, show=False)
        if len(ours.fns) == compare_n:
            found.append(file)
        if len(found) == n:
            break
    if not found:
        raise ValueError(f"no class has {compare_n} images to compare with: give more")
    return found


def measure(data: LabelledImages, encoder, repeats: int, suffix: str = "", compare_n: int = 15, tolerance: float = 1e-5) -> list[dict]:
    "The rows for one encoder."
    theirs, ours = make_finders(data, encoder)
    asked = queries(data, ours, repeats, compare_n)
    compare(theirs, ours, asked[0], compare_n) # so that what follows is warm
    found, probabilities = [], []
    for query in asked:
        found.append(compare(theirs, ours, query, compare_n))
        probabilities += [float(p) for p in ours.preds]
    assert np.ptp(probabilities) > 0.1, "the head says the same of every pair, so that they agree means nothing"
    article, predict, differences = np.array(found).T
    against = f"the article's loop, {encoder.name} at {encoder.size}, {compare_n} candidates, {len(asked)} queries; ours: {runtime_for(ours.encoder)}"
    return [row(f"speedup{suffix}", *interval(article / predict), goal=20, against=against),
            row(f"max_probability_difference{suffix}", float(differences.max()), goal=tolerance, better="lower", against=against),
            row(f"article_seconds{suffix}", *interval(article), better="lower"),
            row(f"predict_seconds{suffix}", *interval(predict), better="lower")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures to this file")
    add_arguments(parser, "images/ and split.csv", "pets", photos=False)
    parser.add_argument("--repeats", type=int, default=15, help="how many queries, each timed once")
    parser.add_argument("--threads", type=int, default=1, help="cores to use")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    data = pictures(data_folder(args))
    size, small = (224, {}) if not args.small else (64, {"compare_n": 3})
    repeats = 2 if args.small else args.repeats
    torch.manual_seed(0)
    with patch("image_similarity.encoders.runtimes.only_torch", lambda network: "like the loop"):
        rows = measure(data, create_encoder("resnet34", weights="random", size=size), repeats, **small)
    rows += measure(data, create_encoder(size=size if args.small else None), repeats, "_default", tolerance=1e-4, **small)
    report(rows, args.json)


if __name__ == "__main__":
    main()
