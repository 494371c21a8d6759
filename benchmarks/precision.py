"""What bytes and bfloat16 gain and cost: precision.py [--data DIR] [--json OUT]

From files to vectors with the packaged encoder, in bytes (`quantised`, with pictures of the same set), in bfloat16, and in 32-bit floats as `runtime_for` runs them, in turns in one process,
reading included; and how many of the ten nearest stay the same, set by set. On a processor without instructions for them they gain nothing.
"""
import argparse

import numpy as np
from _data import add_arguments, data_folder
from _report import interval, report, row, seconds

from image_similarity.encoders.converted import PRECISIONS, computes_in
from image_similarity.encoders.eight_bits import quantised
from image_similarity.encoders.encoder import create_encoder, embed, runtime_for
from image_similarity.images.listing import image_files
from image_similarity.metrics.similarity import normalize

SETS = {"clothing": "clothing", "pets": "pets/images", "coil100": "coil100/images"}
N, K, TIMED = 300, 10, 64


def nearest(pooled: np.ndarray) -> np.ndarray:
    "(n, K) of each picture among the others, by the cosine of the means."
    unit = normalize(pooled[:, pooled.shape[1] // 2:])
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1)[:, :K]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "clothing, pets/images and coil100/images")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--pictures", type=int, default=N, help="of each set")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    if not computes_in("bfloat16"): print("this processor has no instructions for bfloat16: both are computed in floats")
    data = data_folder(args)
    n, timed, repeats = (12, 4, 2) if args.small else (args.pictures, TIMED, args.repeats)
    encoders, rows = {precision: create_encoder(precision=precision) for precision in PRECISIONS}, []
    runtimes = {precision: runtime_for(encoder, 128) for precision, encoder in encoders.items()} # so that they are converted
    for name, folder in SETS.items():
        files = list(image_files(data / folder))
        files = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:n]]
        looks = {precision: lambda some, precision=precision: embed(some, encoders[precision], progress=False, runtime=runtimes[precision]).pooled for precision in PRECISIONS}
        in_bytes = quantised(encoders["float32"], files)
        looks["int8"] = lambda some, in_bytes=in_bytes: in_bytes.look(some).pooled
        whole = nearest(looks["float32"](files))
        times = np.array([[seconds(lambda look=look, files=files: look(files[:timed])) for look in looks.values()] for _ in range(repeats)])
        for place, (precision, look) in enumerate(looks.items()):
            if precision == "float32": continue
            same = [len(np.intersect1d(a, b)) / K for a, b in zip(whole, nearest(look(files)))]
            rows.append(row(f"{precision}_same_top10_{name}", *interval(same, np.mean), goal=.95, against="the ten nearest in 32-bit floats"))
            rows.append(row(f"{precision}_speedup_{name}", *interval(times[:, 0] / times[:, place]), goal=1.7, against="32-bit floats, from files to vectors"))
    report(rows, args.json)


if __name__ == "__main__":
    main()
