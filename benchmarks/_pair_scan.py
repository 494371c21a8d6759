"""How fast a Siamese head goes through a million items, beside the fastest that the same bytes can be read and beside FAISS.

`pair_scan_rows` is called by gallery.py. Alone: _pair_scan.py [--items N] [--queries N] [--json OUT] [--data DIR]

All sides take turns in one process, on the same number of threads, one query at a time. FAISS searches an inner product over float rows of
as many bytes as the float scorer reads: over the very same memory, so that no second copy is needed, by `faiss.knn`, which runs the
loop of `IndexFlatIP` (for one query that is a single thread, whatever the number of threads is). The bound is the fastest of several ways to add up the same memory
on all threads.
"""
import argparse
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import torch
from _data import PHOTOS, add_arguments, data_folder
from _million import photo_pooled, realistic_blocks
from _report import interval, report, row
from numba import njit

from image_similarity.images.listing import image_files, label_func
from image_similarity.scoring.kernels import fetch, floats, no_floats, plus_floats, total_of_floats
from image_similarity.scoring.search import PairIndex, in_bytes, item_rows
from image_similarity.scoring.scorers import PairRows, PairScorer
from image_similarity.learners.siamese_head import SiameseHead, calibrate, fit_siamese_head, held_out_pairs
from image_similarity.metrics.similarity import top_k


def trained_scorer(data=PHOTOS, seed: int = 0) -> PairScorer:
    "The head of a Siamese network as `siamese_learner` trains it, on the pets among the photos that the items are made of."
    pets = Path(data) / "pets" / "images"
    files = image_files(pets)
    views = torch.from_numpy(photo_pooled(data)[-len(files):])[None] # the pets come last
    targets = np.unique([label_func(file) for file in files], return_inverse=True)[1]
    make_head = lambda: SiameseHead(views.shape[-1] // 2, hidden=256)
    torch.manual_seed(seed)
    head = make_head()
    fit_siamese_head(head, views, targets, progress=False)
    calibrate(head, *held_out_pairs(make_head, views, targets))
    return head.eval().fold()


def one_buffer(scorer: PairScorer, blocks: Iterable[np.ndarray], n: int) -> tuple[np.ndarray, PairRows]:
    "The rows of `n` items, each kind in one piece, all in one piece of memory; and that memory."
    empty = item_rows(scorer, torch.empty(0, scorer.A.shape[1]))
    widths = [part.shape[1] for part in empty]
    buffer = np.empty(n * sum(widths), np.float32)
    pieces = np.split(buffer, np.cumsum([n * w for w in widths])[:-1])
    rows = PairRows(*(piece.reshape(n, width) for piece, width in zip(pieces, widths)))
    start = 0
    for block in blocks:
        for part, made in zip(rows, item_rows(scorer, block, start)):
            part[start:start + len(block)] = made
        start += len(block)
    return buffer, rows


@njit(nogil=True, fastmath=True)
def _sum(numbers):
    total = np.float32(0)
    for i in range(len(numbers)):
        total += numbers[i]
    return total


@njit(nogil=True, fastmath=True)
def _sum_ahead(numbers):
    a, b, c, d = no_floats(), no_floats(), no_floats(), no_floats()
    n = len(numbers)
    for i in range(0, n - 63, 64):
        fetch(numbers, i + 2048); fetch(numbers, i + 2064); fetch(numbers, i + 2080); fetch(numbers, i + 2096)
        a, b = plus_floats(floats(numbers, i), a), plus_floats(floats(numbers, i + 16), b)
        c, d = plus_floats(floats(numbers, i + 32), c), plus_floats(floats(numbers, i + 48), d)
    total = total_of_floats(plus_floats(plus_floats(a, b), plus_floats(c, d)))
    for i in range(n // 64 * 64, n): total += numbers[i]
    return total


def readings(buffer: np.ndarray, threads: int) -> dict[str, Callable]:
    "Ways to read all of a buffer once, by several threads that share its pieces of 16 MB, or have one long piece each."
    pieces, long = (np.array_split(buffer, n) for n in (max(threads, len(buffer) >> 22), threads))
    ways = {"numba sum": (_sum, pieces), "numba sum, long pieces": (_sum, long),
            "sum, 8 kB fetched ahead": (_sum_ahead, pieces), "sum, 8 kB fetched ahead, long pieces": (_sum_ahead, long),
            "numpy sum": (np.sum, pieces), "numpy max": (np.max, pieces)}

    def read(way, parts):
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(way, parts))
    return {name: partial(read, *way) for name, way in ways.items()}


def by_turns(sides: dict[str, Callable], repeats: int) -> dict[str, np.ndarray]:
    "Seconds of each side, `repeats` times, by turns, after one turn to warm up."
    taken = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            taken[name] += [time.perf_counter() - start] if turn else []
    return {name: np.array(seconds) for name, seconds in taken.items()}


def speed_rows(exact: PairIndex, codes: PairIndex, buffer: np.ndarray, query: np.ndarray, repeats: int) -> list[dict]:
    "One query, ten results: the Siamese head on floats and on bytes, FAISS on the same floats, and reading them."
    threads, width = torch.get_num_threads(), len(buffer) // len(exact)
    faiss.omp_set_num_threads(threads)
    rows, asked = buffer.reshape(-1, width), buffer[None, :width].copy()
    ways = readings(buffer, threads)
    taken = by_turns(ways | {"floats": partial(exact.search, query, 10), "bytes": partial(codes.search, query, 10),
                             "faiss": partial(faiss.knn, asked, rows, 10, metric=faiss.METRIC_INNER_PRODUCT)}, repeats)
    best = min(ways, key=lambda name: np.median(taken[name]))
    size = f"{len(exact):,} items of {4 * width:,} bytes, {threads} threads, {repeats} turns"
    flat = f"FAISS Flat inner product over the same floats, {size}"
    return [row("siamese_vs_read_bound", *interval(taken[best] / taken["floats"]), goal=0.85, against=f"reading the same floats ({best}), {size}"),
            row("siamese_vs_faiss_flat", *interval(taken["faiss"] / taken["floats"]), goal=2, against=flat),
            row("siamese_int8_vs_faiss_flat", *interval(taken["faiss"] / taken["bytes"]), goal=4, against=flat),
            row("siamese_int8_vs_float", *interval(taken["floats"] / taken["bytes"]), goal=2.5, against=f"the same head on floats, {size}"),
            row("siamese_seconds", *interval(taken["floats"]), better="lower"),
            row("siamese_int8_seconds", *interval(taken["bytes"]), better="lower")]


def same_rows(codes: PairIndex, queries: np.ndarray) -> list[dict]:
    "How many queries have the same ten best from bytes as from all logits, and how many second looks that took."
    same, looked = [], []
    for query in queries:
        hits, logits = codes.search(query, 10), codes.logits(query)
        same.append(np.array_equal(hits.ids, top_k(logits[None], 10)[0][0]))
        looked.append(hits.looked)
    return [row("siamese_int8_same_top10", float(np.mean(same)), goal=1, against=f"every logit from the floats, {len(codes):,} items, {len(queries):,} queries"),
            row("siamese_int8_second_looks", *interval(looked), better="lower", against=f"{len(codes):,} items")]


def pair_scan_rows(n: int = 1_000_000, n_queries: int = 100, repeats: int = 11, data=PHOTOS) -> list[dict]:
    "The rows of this benchmark. A million items take 9 GB of memory."
    scorer = trained_scorer(data)
    buffer, rows = one_buffer(scorer, realistic_blocks(n, data=data), n)
    exact, codes = PairIndex(scorer, rows), PairIndex(scorer, rows, *in_bytes(scorer, rows))
    queries = np.concatenate(list(realistic_blocks(n_queries, seed=1, data=data)))
    return speed_rows(exact, codes, buffer, queries[0], repeats) + same_rows(codes, queries)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures to this file")
    add_arguments(parser, "imagenet_sample, clothing and pets")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=11, help="turns of each side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="cores to use")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report(pair_scan_rows(args.items, args.queries, args.repeats, data_folder(args)), args.json)


if __name__ == "__main__":
    main()
