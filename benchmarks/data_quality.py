"""What `inspect` finds: labels that were swapped, beside cleanlab's figure on the same posteriors; copies planted across a split; blurred and dark pictures.

Mislabelled: a twentieth of the labels of pets and clothing are swapped for another class's, 20 seeds; average precision over all pictures. cleanlab ranks by its
self-confidence, its own default, given what a first round of held-out classifiers says; ours leaves out what it doubts and judges once more. cleanlab is AGPL
and no part of this package: `pip install cleanlab` somewhere, and name the place in PYTHONPATH; without it its rows are those of an earlier run.
Seeds on which the way was chosen are others. Leaks: copies of training photos, planted among as many strangers: saved again, smaller, cropped, in grey, mirrored, with a watermark. Blurred and dark: photos of all sets beside copies of them that are blurred by 1 to 3 pixels of a view of 512, or have half to a tenth of their light;
the area under the ROC curve by `measure_picture` alone.

    python benchmarks/data_quality.py --data ../shared/data --json benchmarks/results/data_quality.json
"""
import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from _data import add_arguments, data_folder
from _report import interval_row, measured_before, report, row
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from sklearn.metrics import average_precision_score, roc_auc_score

from image_similarity.encoders.encoder import create_encoder, embed
from image_similarity.finder.inspection import copy_findings
from image_similarity.gallery.gallery import Gallery
from image_similarity.images.faults import SIDE, measure_picture
from image_similarity.images.listing import image_files
from image_similarity.images.opening import open_image
from image_similarity.learners.label_quality import held_out_posterior, judge_labels
from image_similarity.metrics.intervals import bootstrap_interval


def read(name: str, folder: Path) -> tuple[list[Path], list[str]]:
    "Files and labels of a set."
    if name == "pets":
        rows = list(csv.DictReader((folder / "pets/split.csv").open(encoding="utf-8")))
        return [folder / "pets/images" / r["file"] for r in rows], [r["breed"] for r in rows]
    files = list(image_files(folder / name))
    return files, [f.parent.name for f in files]


def mislabelled(name: str, folder: Path, encoder, seeds: int) -> tuple[list[float], list[float]]:
    "Average precision of labels that were swapped, of each seed: ours, and cleanlab's, of which there is none where it is not installed."
    files, labels = read(name, folder)
    found = embed(files, encoder, description=name)
    names, truth = np.unique(np.array(labels)[found.kept], return_inverse=True)
    try: from cleanlab.rank import get_label_quality_scores
    except ImportError: get_label_quality_scores = None
    ours, theirs = [], []
    for seed in range(seeds):
        rng, given = np.random.default_rng(seed), truth.copy()
        swapped = rng.choice(len(truth), round(len(truth) * .05), replace=False)
        given[swapped] = (given[swapped] + rng.integers(1, len(names), len(swapped))) % len(names)
        wrong = given != truth
        ours.append(average_precision_score(wrong, np.nan_to_num(judge_labels(found.pooled, given, seed).wrong)))
        if get_label_quality_scores: theirs.append(average_precision_score(wrong, 1 - get_label_quality_scores(given, held_out_posterior(found.pooled, given, seed=seed))))
    return ours, theirs


def label_rows(folder: Path, encoder, seeds: int) -> list[dict]:
    "Of each set, and the mean of both."
    of = lambda values: bootstrap_interval(lambda i: float(np.mean(np.asarray(values)[i])), len(values))
    found = {f"{name}_": mislabelled(name, folder, encoder, seeds) for name in ("pets", "clothing")}
    found[""] = tuple(list(np.mean(both, axis=0)) if both[0] else [] for both in zip(*found.values()))
    rows = []
    for prefix, (ours, theirs) in found.items():
        rows.append(interval_row(f"{prefix}mislabelled_average_precision", of(ours)))
        if theirs: rows += [interval_row(f"{prefix}cleanlab_average_precision", of(theirs)), interval_row(f"{prefix}mislabelled_minus_cleanlab", of(np.subtract(ours, theirs)), goal=0)]
    return rows


def _with_mark(image: Image.Image) -> Image.Image:
    marked = image.copy()
    ImageDraw.Draw(marked).text((image.width * .1, image.height * .8), "SAMPLE", fill="white", font_size=max(12, image.height // 8))
    return marked


COPIES = {
    "saved_again": lambda image: image,
    "smaller": lambda image: image.resize((max(1, image.width // 2), max(1, image.height // 2))),
    "cropped": lambda image: image.crop((image.width // 10, image.height // 10, image.width * 9 // 10, image.height * 9 // 10)),
    "grey": lambda image: image.convert("L"),
    "mirrored": ImageOps.mirror,
    "watermark": _with_mark,
}


def leaks(folder: Path, encoder, per_kind: int) -> list[dict]:
    "Share of copies of training photos among test photos that are found, and how many findings were none."
    rng = np.random.default_rng(0)
    files = read("pets", folder)[0]
    chosen = [files[i] for i in rng.permutation(len(files))]
    half = len(chosen) // 2
    train, test = chosen[:half], chosen[half:]
    with tempfile.TemporaryDirectory() as place:
        planted = {}
        for n, source in enumerate(train[:per_kind * len(COPIES)]):
            kind = [*COPIES][n % len(COPIES)]
            out = Path(place) / f"{kind}_{n}.jpg"
            COPIES[kind](open_image(source)).convert("RGB").save(out, quality=70)
            planted[source] = out
        one, other = Gallery(Path(place) / "train", encoder), Gallery(Path(place) / "test", encoder)
        one.add(train, progress=False)
        other.add([*test, *planted.values()], progress=False)
        found = {(f.path, f.other) for f in copy_findings(one, other, progress=False)[0] if f.kind == "leak"}
        found |= {(b, a) for a, b in found}
    hits = [(source, out) in found for source, out in planted.items()]
    others = len({frozenset(pair) for pair in found} - {frozenset(pair) for pair in planted.items()})
    return [interval_row("split_leaks_found", bootstrap_interval(lambda i: float(np.mean(np.array(hits)[i])), len(hits)), goal=.95), row("split_leaks_unplanted", others)]


def pictures(folder: Path, per_set: int) -> list[dict]:
    "AUC of blurred and of dark copies beside their originals."
    rng, sharp, blurred, light, dark = np.random.default_rng(0), [], [], [], []
    with tempfile.TemporaryDirectory() as place:
        for name in ("pets", "clothing", "imagenet_sample", "flickr8k_sample"):
            files = list(image_files(folder / name)) if (folder / name).is_dir() else []
            for i in rng.permutation(len(files))[:per_set]:
                image, out = open_image(files[i]), Path(place) / "copy.png"
                before = measure_picture(files[i])
                if before.sharpness is None: continue
                image.filter(ImageFilter.GaussianBlur(rng.uniform(1, 3) * max(1, max(image.size) / SIDE))).save(out)
                sharp.append(before.sharpness)
                blurred.append(measure_picture(out).sharpness or 0.)
                share = rng.uniform(.1, .5)
                image.point(lambda v, share=share: int(v * share)).save(out)
                light.append(before.light)
                dark.append(measure_picture(out).light)
    auc = lambda good, bad: bootstrap_interval(lambda i: roc_auc_score(np.repeat([0, 1], len(i)), -np.concatenate([np.array(good)[i], np.array(bad)[i]])), len(good))
    return [interval_row("blur_auc", auc(sharp, blurred), goal=.95), interval_row("dark_auc", auc(light, dark), goal=.95)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "pets, clothing, imagenet_sample and flickr8k_sample")
    parser.add_argument("--json", help="write the rows there")
    args = parser.parse_args()
    seeds, copies, photos = (2, 1, 4) if args.small else (20, 10, 100)
    folder, encoder = data_folder(args), create_encoder(size=96 if args.small else 224)
    rows = label_rows(folder, encoder, seeds) + leaks(folder, encoder, copies) + pictures(folder, photos)
    report(rows + measured_before(args.json, {r["name"] for r in rows}), args.json)
