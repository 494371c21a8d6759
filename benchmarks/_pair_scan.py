"""How fast a Siamese head goes through a million items, beside the fastest that the same bytes can be read and beside FAISS.

`pair_scan_rows` is called by gallery.py. Alone: _pair_scan.py [--items N] [--queries N] [--json OUT] [--data DIR]

All sides take turns in one process, on the same number of threads, one query at a time. FAISS searches an inner product over float rows of
as many bytes as the float scorer reads: over the very same memory, so that no second copy is needed, by `faiss.knn`, which runs the
loop of `IndexFlatIP` (for one query that is a single thread, whatever the number of threads is). The bound is the fastest of several ways to add up the same memory
on all threads.
"""
import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import torch
from _million import DATA, photo_pooled, realistic_blocks
from _report import interval, report, row
from numba import njit

from image_similarity.images import image_files, label_func
from image_similarity.pair_search import PairIndex, in_bytes, item_rows
from image_similarity.scorers import PairRows, PairScorer
from image_similarity.siamese import SiameseHead, calibrate, fit_siamese_head, held_out_pairs


def trained_scorer(data=DATA, seed: int = 0) -> PairScorer:
    "The head of a Siamese network as `siamese_learner` trains it, on the pets among the photos that the items are made of."
    pets = Path(data) / "pets" / "images"
    files = image_files(pets if pets.is_dir() else Path(tempfile.gettempdir()) / "drawn-pets" / "images")
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
    total = numbers[0]
    for i in range(len(numbers)):
        total += numbers[i]
    return total


def readings(buffer: np.ndarray, threads: int) -> dict[str, Callable]:
    "Ways to read all of a buffer once, shared between threads."
    pieces = np.array_split(buffer, max(threads, len(buffer) // 4_000_000))
    whole = np.array_split(buffer, threads)
    at_once = lambda read, parts: lambda: in_pieces(read, parts, threads)
    return {"numba sum": at_once(_sum, pieces), "numba sum, one piece a thread": at_once(_sum, whole),
            "numpy sum": at_once(np.sum, pieces), "numpy max": at_once(np.max, pieces)}


def in_pieces(read: Callable, parts: list[np.ndarray], threads: int) -> list:
    "What `read` says of each part, by several threads."
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(read, parts))


def by_turns(sides: dict[str, Callable], repeats: int) -> dict[str, np.ndarray]:
    "Seconds of each side, `repeats` times, by turns, after one turn to warm up."
    taken = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return {name: np.array(seconds) for name, seconds in taken.items()}
