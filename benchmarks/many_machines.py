"""What a gallery in PostgreSQL costs beside one in a folder: many_machines.py [--json OUT] [--data DIR] [--items N]

Both are on this machine, and share its cores. The server is a process apart, reached by TCP, with its settings as they come but for `shared_buffers`, which holds the rows. The rows of the gallery are
made from real photos' `pooled` (`_million.py` says how), 2,560 numbers each, of which 1,280 are compared.

- search: `Gallery.search` with a vector in PostgreSQL beside `IndexFlatIP.search` of raw FAISS over the same embeddings, by turns; with an approximate index, its recall of the ten best and its speed beside its own exact search.
- adding: blocks of 1,000 vectors into PostgreSQL and into a folder, by turns, until they are acknowledged.
"""
import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from _data import add_arguments, data_folder
from _million import realistic_blocks
from _report import interval, report, row

from image_similarity.encoders.encoder import create_encoder
from image_similarity.gallery.encoder import compared_rows
from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.trial_server import TrialServer

BLOCK = 1000


def seconds(work: Callable, *args, **kwargs) -> float:
    start = time.perf_counter()
    work(*args, **kwargs)
    return time.perf_counter() - start


def taken(blocks, n: int):
    "Blocks of `BLOCK` rows, `n` rows in all."
    left = np.zeros((0, 2560), np.float32)
    while n:
        while len(left) < min(BLOCK, n): left = np.concatenate([left, next(blocks)])
        yield left[:min(BLOCK, n)]
        left, n = left[min(BLOCK, n):], n - min(BLOCK, n)


def adding_rows(database: Gallery, folder: Gallery, blocks, n: int) -> tuple[list[dict], np.ndarray]:
    "Fill both, by turns; and the embeddings."
    took, rows, count = ([], []), [], 0
    for block in taken(blocks, n):
        names = [Path(f"/photos/{i % 1000:03}/{i}.jpg") for i in range(count, count + len(block))]
        for i in (0, 1) if len(took[0]) % 2 else (1, 0):
            took[i].append(seconds((database, folder)[i].import_embeddings, names, block) / len(block))
        rows.append(compared_rows(block, "means"))
        count += len(block)
    ratios = np.array(took[1][1:]) / np.array(took[0][1:])  # the first one makes tables and files
    return [row("postgres_add_vs_sqlite", *interval(ratios), goal=.5, against="SQLite in a folder"), row("postgres_adds_a_second", *interval(1 / np.array(took[0][1:])))], np.concatenate(rows)


def search_rows(gallery: Gallery, rows: np.ndarray, queries: np.ndarray) -> list[dict]:
    "Exactly, beside FAISS; then approximately, beside exactly."
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    ours, theirs, exact = [], [], []
    for query in queries:
        ours.append(seconds(lambda q=query: exact.append([r.id for r in gallery.search(q, 10)])))
        theirs.append(seconds(flat.search, query[None], 10))
    truth = flat.search(queries, 10)[1] + 1
    same = np.mean([len({*found} & {*right}) / 10 for found, right in zip(exact, truth.tolist())])
    built = seconds(gallery.search, queries[0], 10, approximate=True)
    quick, found = [], []
    for query in queries: quick.append(seconds(lambda q=query: found.append([r.id for r in gallery.search(q, 10, approximate=True)])))
    recalls = [len({*f} & {*t}) / 10 for f, t in zip(found, exact)]
    return [
        row("postgres_exact_vs_faiss_flat", *interval(np.array(theirs) / np.array(ours)), goal=.4, against="FAISS IndexFlatIP in this process"),
        row("postgres_exact_ms", *(1000 * v for v in interval(ours)), better="lower"),
        row("postgres_exact_recall_at_10", float(same), goal=.999, against="FAISS IndexFlatIP"),
        row("postgres_approximate_recall_at_10", *interval(recalls, np.mean), goal=.95, against="its own exact search"),
        row("postgres_approximate_speedup", *interval(np.array(ours) / np.array(quick)), goal=3, against="its own exact search"),
        row("postgres_index_built_s", built, better="lower"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "photos")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--items", type=int, default=100_000)
    args = parser.parse_args()
    blocks = realistic_blocks(10**7, data=data_folder(args))
    place, encoder = Path(tempfile.mkdtemp(prefix="many-")), create_encoder()
    try:
        with TrialServer({"shared_buffers": "2GB", "max_wal_size": "8GB"}) as server:
            database, folder = Gallery(server.address("pets"), encoder), Gallery(place / "pets", encoder)
            added, rows = adding_rows(database, folder, blocks, args.items)
            queries = np.concatenate([compared_rows(block, "means") for block in taken(blocks, 100)])
            database.catalogue.server.rows("SELECT count(*) FROM vectors")
            size = row("postgres_kb_an_item", database.catalogue.database.size() / 1000 / args.items, better="lower")
            report([*search_rows(database, rows, queries), *added, size], args.json)
            database.close(), folder.close()
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
