"""What the scripts read: the photos of `shared/data` beside this repository, or drawn stand-ins in folders of the same names.

A figure about drawn pictures says that a script runs, not how good anything is. `--small` is for that: few pictures, one seed, one epoch.
"""
import argparse
import csv
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from image_similarity.drawing.pets import sample_pets
from image_similarity.images.listing import image_files, label_func

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data"
LARGE, SMALL = {"n_breeds": 12, "n_per_breed": 24}, {"n_breeds": 8, "n_per_breed": 8, "size": 96}


def add_arguments(parser: argparse.ArgumentParser, what: str, part: str = "", photos: bool = True) -> None:
    """`--data` and `--small`, for a script that reads `what`; `part` is the folder within the data, if the script wants one only.
    Without `photos` the pictures are drawn unless --data says where there are others."""
    parser.set_defaults(part=part, photos=photos)
    parser.add_argument("--data", type=Path, help=f"folder with {what}; without it {'../shared/data, or drawn pictures where that is not there' if photos else 'drawn pictures'}")
    parser.add_argument("--small", action="store_true", help="as little as shows that it runs: the figures mean nothing, and pictures are drawn without --data")


def data_folder(args: argparse.Namespace) -> Path:
    "The folder to read from, which is there."
    if args.small: make_learners_small()
    if args.data:
        if not args.data.is_dir(): raise SystemExit(f"{args.data}: there is no such folder; give --data another, or leave it out")
        return args.data
    if args.photos and PHOTOS.is_dir() and not args.small: return PHOTOS / args.part
    return drawn_data(Path(tempfile.gettempdir()) / f"drawn-data-{'small' if args.small else 'large'}", args.small) / args.part


def make_learners_small() -> None:
    "Let Siamese heads, in this process, learn from few pairs."
    from image_similarity.learners import siamese_head
    from image_similarity.matching import image_head, image_training
    siamese_head.pair_batches = partial(siamese_head.pair_batches, n_pairs=192, n_batches=3)
    image_head.drawn_batches, image_training.REFINEMENTS = partial(image_head.drawn_batches, n_pairs=192, n_batches=3), (None, 0, 5)


def drawn_data(folder: Path, small: bool = True) -> Path:
    "Draw every set; gives the folder. One that is there already is left as it is."
    if folder.is_dir(): return folder
    beside = Path(tempfile.mkdtemp(prefix="drawn-data-", dir=folder.parent))
    draw_pets(beside / "pets", SMALL if small else LARGE)
    pets = image_files(beside / "pets" / "images")
    draw_clothing(beside / "clothing", pets)
    draw_objects(beside / "coil100", n_objects=8 if small else 12)
    write_captions(beside / "flickr8k_sample", pets[::3] if small else pets[::2])
    write_products(beside / "fashion_clothes", pets)
    draw_copies(beside / "imagededup", pets[:2] if small else pets[:10])
    (beside / "imagenet_sample").mkdir()
    for file in pets[1::4]: shutil.copy(file, (beside / "imagenet_sample" / file.name).with_suffix(".JPEG"))
    try: return beside.replace(folder)
    except OSError: # somebody else was faster
        shutil.rmtree(beside)
        return folder


def draw_pets(folder: Path, options: dict) -> None:
    "images/ and split.csv: one picture in three is for testing, every other breed of each species is unseen."
    files = image_files(sample_pets(folder, **options) / "images")
    breeds = sorted({label_func(file) for file in files})
    species = {breed: "cat" if breed[0].isupper() else "dog" for breed in breeds}
    unseen = {breed for kind in ("cat", "dog") for breed in [b for b in breeds if species[b] == kind][1::2]}
    with (folder / "split.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "breed", "species", "split", "breed_group"])
        for i, picture in enumerate(files):
            breed = label_func(picture)
            rows.writerow([picture.name, breed, species[breed], "test" if i % 3 == 2 else "train", "unseen" if breed in unseen else "seen"])


def draw_clothing(folder: Path, pets: list[Path]) -> None:
    "train, validation and test with a folder for each kind; pets stand for clothes."
    for i, file in enumerate(pets):
        to = folder / ("train", "test", "train", "validation")[i % 4] / label_func(file)
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, to)


def draw_objects(folder: Path, n_objects: int) -> None:
    "images/objN__ANGLE.png, two views 5 degrees apart at every 30, and tables of pairs for half of the objects each."
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in range(1, n_objects + 1):
        colours, side = rng.integers(0, 256, (3, 3)).tolist(), int(rng.integers(12, 40))
        for angle in (a + b for a in range(0, 360, 30) for b in (0, 5)):
            picture = Image.new("RGB", (128, 128), tuple(colours[0]))
            pen = ImageDraw.Draw(picture)
            pen.rectangle((20, 64 - side, 108, 64 + side), tuple(colours[1]))
            pen.ellipse((70, 50, 100, 80), tuple(colours[2]))
            picture.rotate(angle).resize((64, 64)).save(folder / "images" / f"obj{name}__{angle}.png")
    for split, first in (("train", 1), ("test", 2)):
        pairs = [(f"obj{a}__0.png", f"obj{b}__30.png", int(a == b)) for a in range(first, n_objects + 1, 2) for b in range(first, n_objects + 1, 2)]
        (folder / f"{split}.csv").write_text("Image1,Image2,Label\n" + "".join("{},{},{}\n".format(*pair) for pair in pairs), encoding="utf-8")


def write_captions(folder: Path, pets: list[Path]) -> None:
    "captions.txt and images/: five captions for each picture."
    (folder / "images").mkdir(parents=True)
    lines = ["image,caption"]
    for i, file in enumerate(pets):
        shutil.copy(file, folder / "images")
        breed = label_func(file).replace("_", " ")
        lines += [f"{file.name},{start} {breed} number {i}" for start in ("a drawing of a", "here is a", "the face of a", "somebody drew a", "one")]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_products(folder: Path, pets: list[Path]) -> None:
    "sample_styles.csv and sample_images/: a title for each picture."
    (folder / "sample_images").mkdir(parents=True)
    lines = ["id,productDisplayName"]
    for i, file in enumerate(pets, 1):
        shutil.copy(file, folder / "sample_images" / f"{i}.jpg")
        lines.append(f"{i},{label_func(file).replace('_', ' ')} shirt of shop {i % 7} in size {i}")
    (folder / "sample_styles.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw_copies(folder: Path, pets: list[Path]) -> None:
    "base_images/ and mixed_images/: a picture, and one turned round."
    for part in ("base_images", "mixed_images"): (folder / part).mkdir(parents=True)
    for i, file in enumerate(pets):
        shutil.copy(file, folder / "base_images" / f"ukbench{i:05}.jpg")
        Image.open(file).rotate(180).save(folder / "mixed_images" / f"ukbench{i:05}_rotated.jpg")
