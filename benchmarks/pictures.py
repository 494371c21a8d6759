"""How long large pictures take to become vectors, beside the library's decoding alone: pictures.py [--data DIR] [--json OUT]

A photo is enlarged to 12 and 48 megapixels and coded as JPEG, AVIF (Pillow) and HEIC (Debian's `heif-enc`). Theirs: all of it decoded, by Pillow or pi-heif. Ours: opened, in sRGB,
upright, cut and made small for the encoder, and through the encoder: all that `Gallery.add` does but the writing. Both sides take turns.

The rows are about one file at a time, for which AVIF's decoder takes all cores and the rest one; those ending in `_of_eight` about eight files, read by as many threads on both sides.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pi_heif
from PIL import Image
from _data import add_arguments, data_folder
from _report import interval, report, row, seconds

from image_similarity.encoders.encoder import create_encoder, embed, runtime_for
from image_similarity.images.listing import image_files

EIGHT, READERS = 8, min(4, os.cpu_count() or 1) # files, and threads that read them, as `embed` has it
SIZES = {12: (4000, 3000), 48: (8000, 6000)} # megapixels: pixels


def coded(photo: Path, folder: Path, sizes: list[int]) -> dict[str, Path]:
    "Files of one photo by what they are, such as 'jpeg12'."
    files, source = {}, Image.open(photo).convert("RGB")
    for size in sizes:
        large = source.resize(SIZES[size], Image.Resampling.BICUBIC)
        files[f"jpeg{size}"] = folder / f"{size}.jpg"
        large.save(files[f"jpeg{size}"], quality=90)
        if size != 12: continue
        files["avif12"], files["heic12"] = folder / "12.avif", folder / "12.heic"
        large.save(files["avif12"], quality=60, speed=10)
        if shutil.which("heif-enc") is None:
            print("HEIC is left out: install heif-enc (Debian: libheif-examples)", file=sys.stderr)
            del files["heic12"]
        else:
            subprocess.run(["heif-enc", "-q", "50", str(files["jpeg12"]), "-o", str(files["heic12"])], check=True, capture_output=True)
    return files


def decode(file: Path) -> None:
    "All pixels of a picture, by the library."
    if file.suffix == ".heic":
        np.asarray(pi_heif.open_heif(file))
        return
    with Image.open(file) as image:
        image.load()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "pets/images")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()

    encoder, rows = create_encoder(), []
    runtime = runtime_for(encoder, 128)  # so that it is converted
    names = {"jpeg12": "large_jpeg_vs_decoding", "jpeg48": "jpeg48_vs_decoding", "heic12": "heic_vs_decoding", "avif12": "avif_vs_decoding"}
    with tempfile.TemporaryDirectory() as folder:
        files = coded(image_files(data_folder(args) / "pets" / "images")[5], Path(folder), [12] if args.small else list(SIZES))
        for name, file in files.items():
            ours = lambda file=file: embed([file], encoder, progress=False, runtime=runtime)
            ours(), decode(file)
            against = f"{'pi-heif' if name == 'heic12' else 'Pillow'}, decoding alone, all pixels; ours through the encoder too"
            times = np.array([(seconds(lambda file=file: decode(file)), seconds(ours)) for _ in range(1 if args.small else args.repeats)])
            rows.append(row(names[name], *interval(times[:, 0] / times[:, 1]), goal=0.8, against=against))
            if name == "jpeg48": continue
            many = [file] * EIGHT
            with ThreadPoolExecutor(READERS) as threads:
                times = np.array([(seconds(lambda many=many: list(threads.map(decode, many))), seconds(lambda many=many: embed(many, encoder, batch_size=2, progress=False, runtime=runtime)))
                                  for _ in range(1 if args.small else args.repeats // 3)])
            rows.append(row(f"{names[name]}_of_eight", *interval(times[:, 0] / times[:, 1]), goal=0.8, against=against))
    report(rows, args.json)


if __name__ == "__main__":
    main()
