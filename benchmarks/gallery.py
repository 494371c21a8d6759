"""What a gallery of a million pictures costs, and how the cost grows: gallery.py [--json OUT] [--data DIR] [--small] [--items N] [--only GROUP ...]

The rows of the gallery are made from real photos' `pooled` (`_million.py` says how), 2,560 numbers each, of which 1,280 are compared. The gallery
lies in the temporary folder: 19 GB at a million items, removed at the end; FAISS's copy makes it 11 GB of memory. On the way there, at 1,000, 10,000 and 100,000 items, it stops to be measured.

- search: `Gallery.search` with a vector beside `IndexFlatIP.search` of raw FAISS over a copy of the same embeddings, by turns, in the largest gallery.
- growth: adding 1 % and making it searchable, without the encoder; one query, and many at once; the approximate index. A CSV and a picture.
- adding: 1 % more for the largest gallery and for one of 10,000, by turns, since how fast the disk writes changes from minute to minute.
- memory: how far a process of its own grows that opens the largest gallery and searches it, beside the bytes of its embeddings.
- pairs, runtimes: see `_pair_scan.py` and `_runtimes.py`.

With --only, what the file given by --json says of the other groups is kept.
"""
import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
from _data import add_arguments, data_folder
from _million import realistic_blocks, realistic_rows
from _report import interval, measured_before, report, row, seconds
from matplotlib.figure import Figure

from image_similarity.encoders.encoder import create_encoder
from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.encoder import compared_rows

RESULTS = Path(__file__).resolve().parent / "results"
ADDED = 0.01  # share of a gallery that is added to it


def searchable(gallery: Gallery) -> None:
    "What the next search would do before it begins to compare."
    gallery._searcher.store("cosine", False)


class Filler:
    "Adds realistic rows to a gallery, under names that nothing lies at."

    def __init__(self, gallery: Gallery, data):
        self.gallery, self.blocks, self.left, self.count = gallery, realistic_blocks(10**7, data=data), None, 0

    def rows(self, n: int) -> np.ndarray:
        parts = [] if self.left is None else [self.left]
        while sum(map(len, parts)) < n:
            parts.append(next(self.blocks))
        rows = np.concatenate(parts)
        self.left = rows[n:]
        return rows[:n]

    def add(self, rows: np.ndarray) -> float:
        "Seconds until `rows` are in the gallery and can be found."
        names = [self.gallery.folder.parent / "photos" / f"{i % 1000:03}" / f"{i}.jpg" for i in range(self.count, self.count + len(rows))]
        self.count += len(rows)
        start = time.perf_counter()
        self.gallery.import_embeddings(names, rows)
        searchable(self.gallery)
        return time.perf_counter() - start

    def grow_to(self, n: int) -> None:
        while self.count < n:
            self.add(self.rows(min(10_000, n - self.count)))


def search_rows(gallery: Gallery, queries: np.ndarray, repeats: int) -> list[dict]:
    "Queries per second through the gallery, and by raw FAISS over the same embeddings."
    raw = faiss.IndexFlatIP(gallery._searcher.rows().rows.shape[1])
    raw.add(np.ascontiguousarray(gallery._searcher.rows().rows))
    single = [(seconds(raw.search, q[None], 10), seconds(gallery.search, q)) for q in queries[:repeats + 2]][2:]
    batches = [queries[i::repeats] for i in range(repeats)]
    raw.search(batches[0], 10), gallery.search_many(batches[0])
    batch = [(seconds(raw.search, b, 10), seconds(gallery.search_many, b)) for b in batches]
    for q, found in zip(queries[:50], gallery.search_many(queries[:50])):
        assert np.allclose([r.score for r in found], raw.search(q[None], 10)[0][0], atol=1e-5), "not the same results"
    against = f"faiss.IndexFlatIP, {len(gallery):,} rows of {raw.d}, "
    return [row("search_vs_faiss_single", *interval([a / b for a, b in single]), goal=0.9, against=against + "one query"),
            row("search_vs_faiss_batch", *interval([a / b for a, b in batch]), goal=0.9, against=against + f"{len(batches[0])} queries at once")]


def recall(gallery: Gallery, queries: np.ndarray) -> np.ndarray:
    "Of each query's ten best, the share that the approximate search finds."
    exact, found = gallery.search_many(queries), gallery.search_many(queries, approximate=True)
    return np.array([len({r.id for r in a} & {r.id for r in b}) / len(a) for a, b in zip(exact, found)])


def adding_rows(large: Filler, small: Filler, turns: int, adds: int = 8) -> list[dict]:
    "What a new item costs when 1 % is added to a large gallery, and when it is added to a small one, some times a turn."
    n, m = len(large.gallery), len(small.gallery)
    new, few = [large.rows(round(ADDED * n)) for _ in range(turns)], [[small.rows(round(ADDED * m)) for _ in range(adds)] for _ in range(turns)]
    costs = [(large.add(rows) / len(rows), np.mean([small.add(r) / len(r) for r in some])) for rows, some in zip(new, few)]
    return [row("add_cost_ratio", *interval([a / b for a, b in costs]), goal=1.5, better="lower",
                against=f"a new item in {m:,}; here in {n:,}, 1 % added, {turns} turns")]


def measured(filler: Filler, n: int, queries: np.ndarray, repeats: int) -> tuple[dict, np.ndarray, np.ndarray]:
    "Bring a gallery to `n` items and measure it: a line of the CSV, recalls, exact and approximate seconds."
    gallery = filler.gallery
    filler.grow_to(n)
    new = [filler.rows(round(ADDED * n)) for _ in range(repeats if n > 10_000 else 4 * repeats)]  # few items are soon added
    adding = [filler.add(rows) / len(rows) for rows in new]
    gallery.search(queries[0])
    batch = seconds(gallery.search_many, queries[:100]) / 100
    build = seconds(gallery.search, queries[0], approximate=True)
    turns = np.array([(seconds(gallery.search, q), seconds(gallery.search, q, approximate=True)) for q in queries[:20]])
    recalls = recall(gallery, queries)
    many = seconds(gallery.search_many, queries, approximate=True) / len(queries)
    stats, cache = gallery.stats(), gallery._searcher.rows()
    line = {"items": n, "add_seconds_per_item": np.mean(adding), "search_seconds": np.median(turns[:, 0]), "search_seconds_of_100": batch,
            "approximate_seconds": np.median(turns[:, 1]), "approximate_seconds_of_many": many, "approximate_build_seconds": build,
            "approximate_recall": recalls.mean(), "approximate_recall_stored": stats.approximate[0]["recall"],
            "database_bytes": stats.bytes, "row_bytes": cache.rows.nbytes}
    print(*(f"{k} {v:.4g}" for k, v in line.items()), sep=", ", flush=True)
    return line, recalls, turns


def growth_rows(filler: Filler, small: Filler, sizes: list[int], queries: np.ndarray, repeats: int, search_repeats: int) -> tuple[list[dict], pd.DataFrame]:
    "How the costs grow, and what is said of the largest."
    lines = []
    for n in sizes:
        line, recalls, turns = measured(filler, n, queries, repeats)
        lines.append(line)
    rows = search_rows(filler.gallery, queries, search_repeats)
    small.grow_to(min(10_000, sizes[-1]))
    rows += adding_rows(filler, small, 2 * repeats + 1)
    rows += [row("approx_recall_at_10", *interval(recalls, np.mean), goal=0.97, against=f"exact search, {sizes[-1]:,} items, {len(queries)} new queries"),
             row("approx_speedup", *interval(turns[:, 0] / turns[:, 1]), goal=5, against="exact search, one query")]
    return rows, pd.DataFrame(lines)


MEMORY = """
import sys, tempfile, numpy as np
from image_similarity.gallery.gallery import Gallery
def megabytes(name): return next(int(line.split()[1]) / 1024 for line in open('/proc/self/status') if line.startswith(name))
rng = np.random.default_rng(0)
small = Gallery()
small.import_embeddings(['a.jpg', 'b.jpg'], rng.random((2, 2560)))
small.search(1), small.search_many(rng.random((100, 2560)))
before = megabytes('VmRSS')
gallery = Gallery(sys.argv[1])
width = gallery._searcher.rows().rows.shape[1]
gallery.search(1), gallery.search_many(rng.random((100, width))), gallery.search(1, where={'label': None})
print((megabytes('VmHWM') - before) * 2**20, gallery._searcher.rows().rows.nbytes)
"""


def memory_rows(folder: Path) -> list[dict]:
    "Peak growth of a process that opens a gallery and searches it, one by one, many at once, and with a filter."
    done = subprocess.run([sys.executable, "-c", MEMORY, str(folder)], check=True, capture_output=True, text=True)
    grown, needed = map(float, done.stdout.split())
    return [row("memory_ratio", grown / needed, goal=1.3, better="lower", against=f"the embeddings' {needed / 1e9:.2f} GB")]


def draw(table: pd.DataFrame, file: Path) -> None:
    "What grows, and how."
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = {"seconds for one query": {"search_seconds": "exact", "search_seconds_of_100": "exact, 100 at once", "approximate_seconds": "approximate",
                                        "approximate_seconds_of_many": "approximate, many at once"},
              "seconds for a new item": {"add_seconds_per_item": "1 % added, encoder aside"},
              "bytes": {"database_bytes": "database", "row_bytes": "embeddings, in memory"}}
    for ax, (title, lines) in zip(figure.subplots(1, len(panels)), panels.items()):
        for column, label in lines.items():
            ax.plot(table["items"], table[column], "o-", label=label)
        ax.set(xscale="log", yscale="log", xlabel="items", title=title)
        if len(lines) == 1:
            ax.set_ylim(table[column].min() / 10, table[column].max() * 10)
        ax.legend(fontsize=8)
    figure.savefig(file, dpi=90)


def gallery_rows(n: int, data, results: Path | None, repeats: int = 5, search_repeats: int = 15) -> list[dict]:
    "The rows of search, growth and memory; a CSV and a picture into `results`."
    folder = Path(tempfile.mkdtemp(prefix="gallery-benchmark-"))
    try:
        gallery, small = (Gallery(folder / name, create_encoder()) for name in ("g", "small"))
        queries = compared_rows(realistic_rows(500, seed=1, data=data), "means")
        sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000) if size < n] + [n]
        rows, table = growth_rows(Filler(gallery, data), Filler(small, data), sizes, queries, repeats, search_repeats)
        gallery.close(), small.close()
        del gallery, small
        rows += memory_rows(folder / "g")
        if results:
            results.mkdir(parents=True, exist_ok=True)
            table.to_csv(results / "gallery.csv", index=False, float_format="%.5g")
            draw(table, results / "gallery.png")
        return rows
    finally:
        shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures to this file, and a CSV and a picture beside it")
    add_arguments(parser, "imagenet_sample, clothing and pets")
    parser.add_argument("--items", type=int, help="of the largest gallery: a million")
    parser.add_argument("--only", nargs="*", choices=["gallery", "pairs", "runtimes"], default=["pairs", "runtimes", "gallery"])
    args = parser.parse_args()
    data, small, results = data_folder(args), args.small, Path(args.json).parent if args.json else None
    items = args.items or (2_000 if small else 1_000_000)

    rows = []
    if "pairs" in args.only:
        from _pair_scan import pair_scan_rows
        rows += pair_scan_rows(items, 20, 2, data) if small else pair_scan_rows(items, data=data)
    if "runtimes" in args.only:
        from _runtimes import runtime_rows
        rows += runtime_rows(data, 1, 8, 64) if small else runtime_rows(data)
    if "gallery" in args.only:
        rows += gallery_rows(items, data, results, 1, 2) if small else gallery_rows(items, data, results)
    report(rows + measured_before(args.json, {row["name"] for row in rows}), args.json)


if __name__ == "__main__":
    main()
