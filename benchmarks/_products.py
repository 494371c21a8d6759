"""The same product in two catalogues, by picture, by title and by both: the product rows of text.py.

fashion_clothes has one small photo a product, so the second catalogue is synthetic: the photo is cropped, its colours and its light are changed, and it is saved
as a poor JPEG; the rarer half of the title's words is lost at random. Three levels of damage, seeded. Every intact product is looked for among all damaged ones,
by weights that were learned on the other half of the products. Intervals are bootstraps over products; differences are taken on the same resampled products.

The plain sum is that of the cosines of the pictures' embeddings and of the titles' sentence embeddings, with nothing learned.
"""
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance

from _report import interval_row, row
from image_similarity.metrics.calibration import even_odds_weights, expected_calibration_error
from image_similarity.encoders.encoder import create_encoder
from image_similarity.images.opening import open_image
from image_similarity.metrics.intervals import bootstrap_interval
from image_similarity.products.sides import ComparedProducts, measures
from image_similarity.products.matcher import BY, ProductMatcher

SEED = 0


@dataclass(frozen=True)
class Damage:
    "How much a second shop changes."
    area: float    # of the photo that is kept, about
    colour: float  # largest change of saturation, brightness, contrast; half of it for each channel
    quality: int   # of the JPEG
    lost: float    # probability that a rarer word of the title is lost


LEVELS = {"light": Damage(0.92, 0.10, 60, 0.15), "middle": Damage(0.80, 0.25, 30, 0.35), "heavy": Damage(0.65, 0.40, 15, 0.55)}


def damaged_photo(file: Path, damage: Damage, rng: np.random.Generator) -> bytes:
    "A JPEG."
    image = open_image(file)
    side = np.sqrt(rng.uniform(damage.area - 0.05, damage.area + 0.05))
    size = np.array(image.size)
    corner = rng.uniform(0, 1, 2) * (1 - side) * size
    image = image.crop(tuple(np.concatenate([corner, corner + side * size]).round().astype(int).tolist()))
    for change in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        image = change(image).enhance(rng.uniform(1 - damage.colour, 1 + damage.colour))
    tint = rng.uniform(1 - damage.colour / 2, 1 + damage.colour / 2, 3)
    buffer = io.BytesIO()
    Image.fromarray((np.asarray(image) * tint).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=damage.quality)
    return buffer.getvalue()


def damaged_title(title: str, damage: Damage, frequency: Counter, rng: np.random.Generator) -> str:
    "A title that has lost some of the words that tell it from others; never all words."
    words = title.split()
    rare = sorted(range(len(words)), key=lambda i: frequency[words[i].casefold()])[:(len(words) + 1) // 2]
    lost = {i for i in rare if rng.random() < damage.lost}
    return " ".join(word for i, word in enumerate(words) if i not in lost or len(lost) == len(words))


def catalogue(data: Path) -> pd.DataFrame:
    "The products as they are: image, title."
    folder = data / "fashion_clothes"
    table = pd.read_csv(folder / "sample_styles.csv")
    return pd.DataFrame({"image": [str(folder / "sample_images" / f"{i}.jpg") for i in table["id"]], "title": table["productDisplayName"]})


def damaged(table: pd.DataFrame, damage: Damage, folder: Path) -> pd.DataFrame:
    "The second catalogue; its photos are written into a folder."
    rng = np.random.default_rng(SEED)
    frequency = Counter(word for title in table["title"] for word in set(title.casefold().split()))
    folder.mkdir()
    files = [folder / Path(file).name for file in table["image"]]
    for file, original in zip(files, table["image"]): file.write_bytes(damaged_photo(Path(original), damage, rng))
    return pd.DataFrame({"image": list(map(str, files)), "title": [damaged_title(title, damage, frequency, rng) for title in table["title"]]})


def answers(matcher: ProductMatcher, ours, theirs) -> tuple[dict[str, np.ndarray], np.ndarray]:
    "For each way, which products were found first (n,) bool; and the log odds (n, n) by both. Weights come from the other half."
    n = len(ours)
    half = np.random.default_rng(SEED).permutation(n) % 2
    right, odds = {by: np.zeros(n, bool) for by in BY}, np.empty((n, n))
    for fold in range(2):
        learn, ask = np.flatnonzero(half != fold), np.flatnonzero(half == fold)
        matcher.fit(ours.take(learn), theirs.take(learn), (learn, learn), progress=False).index(theirs, progress=False)
        asked = ours.take(ask)
        for by in BY: right[by][ask] = [results[0].row == i for results, i in zip(matcher.search(asked, 1, by, progress=False), ask)]
        odds[ask] = matcher.model.combinations[0, 1].score(measures(ComparedProducts(asked, matcher.terms), matcher.catalogue))
    plain = ours.means @ theirs.means.T + ours.meaning @ theirs.meaning.T
    return {**right, "plain_sum": plain.argmax(axis=1) == np.arange(n)}, odds


def level_rows(right: dict[str, np.ndarray], odds: np.ndarray, level: str) -> list[dict]:
    "Recall@1 of each way, what both are better by, and how well the probabilities mean what they say."
    n, match = len(odds), np.eye(len(odds), dtype=bool)
    share = lambda name: bootstrap_interval(lambda i: right[name][i].mean(), n)
    more = lambda name: bootstrap_interval(lambda i: right["both"][i].mean() - right[name][i].mean(), n)
    ending = "" if level == "middle" else f"_{level}"
    rows, sides = [], max(right["image"].mean(), right["text"].mean())
    for name in ("image", "text", "both", "plain_sum"):
        found = share(name)
        rows.append(interval_row(f"product_{name}{ending}", found, sides if name == "both" else None, against="the better side" if name == "both" else None))
    for name in ("image", "text", "plain_sum"):
        found = more(name)
        goal = {} if name == "plain_sum" else {"goal": 0, "by_interval": True}
        rows.append(interval_row(f"product_both_minus_{name}{ending}", found, against=name, **goal))
    ece = expected_calibration_error(1 / (1 + np.exp(-odds.ravel())), match.ravel(), sample_weight=even_odds_weights(match.ravel()))
    return [*rows, row(f"product_ece{ending}", ece, better="lower")]


def product_rows(data: Path, folder: Path, size: int | None = None) -> list[dict]:
    "All rows of products; `folder` takes the damaged photos, `size` is that of the encoder's input, None for its own."
    matcher, table, rows = ProductMatcher(encoder=create_encoder(size=size)), catalogue(data), []
    ours = matcher.embed(table)
    for level in ("middle", "light", "heavy"):
        rows += level_rows(*answers(matcher, ours, matcher.embed(damaged(table, LEVELS[level], folder / level))), level)
    return rows
