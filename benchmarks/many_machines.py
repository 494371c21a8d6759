"""What a gallery in PostgreSQL costs beside one in a folder: many_machines.py [--json OUT] [--data DIR] [--items N]

Both are on this machine, and share its cores. The server is a process apart, reached by TCP, with its settings as they come but for `shared_buffers`: a scan of more than a quarter of it would leave nothing there, and copy every page from the system each time. It compares with as many workers as PostgreSQL starts (two and the leader), FAISS with the one thread that it takes for one query. The rows of the gallery are
made from real photos' `pooled` (`_million.py` says how), 2,560 numbers each, of which 1,280 are compared.

- search: `Gallery.search` with a vector in PostgreSQL beside `IndexFlatIP.search` of raw FAISS over the same embeddings, by turns; with an approximate index, its recall of the ten best and its speed beside its own exact search. A row of 5 KB has a page of 8 KB to itself, and reaching 100,000 pages takes four fifths of an exact search, comparing one fifth.
- on a Ray cluster of nodes on this machine (needs the extra [cluster]): rows of a Siamese head in parts, and looking at pictures.
- adding: blocks of 1,000 vectors into PostgreSQL and into a folder, by turns, until they are acknowledged.
"""
import argparse
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import faiss
import numpy as np
from _cluster import looking_rows, lost_row, shard_rows
from _data import add_arguments, data_folder
from _million import FOLDERS, realistic_blocks
from _report import interval, measured_before, report, row, seconds

from image_similarity.encoders.encoder import create_encoder
from image_similarity.gallery.encoder import compared_rows
from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.trial_server import TrialServer
from image_similarity.images.listing import image_files

BLOCK = 1000


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


def database_rows(server: TrialServer, blocks, items: int) -> list[dict]:
    "Of PostgreSQL alone."
    place, encoder = Path(tempfile.mkdtemp(prefix="many-")), create_encoder()
    try:
        database, folder = Gallery(server.address("pets"), encoder), Gallery(place / "pets", encoder)
        added, rows = adding_rows(database, folder, blocks, items)
        queries = np.concatenate([compared_rows(block, "means") for block in taken(blocks, 100)])
        size = row("postgres_kb_an_item", database.catalogue.database.size() / 1000 / items, better="lower")
        found = [*search_rows(database, rows, queries), *added, size]
        database.close(), folder.close()
        return found
    finally:
        shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "photos")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=2000, help="to look at on a cluster")
    parser.add_argument("--only", choices=("database", "cluster"), help="the other rows are taken from --json, if it is there")
    args = parser.parse_args()
    if args.small: args.items, args.pictures = min(args.items, 2000), min(args.pictures, 60)
    folder, found = data_folder(args), []
    try:
        with TrialServer({"shared_buffers": "4GB", "max_wal_size": "8GB"}) as server: # four times the rows: of a larger table, a scan keeps nothing in memory
            if args.only != "cluster": found += database_rows(server, realistic_blocks(10**7, data=folder), args.items)
            if args.only != "database" and find_spec("ray") is None: print("the rows of a cluster are left out: they need Ray, pip install 'image_similarity[cluster]'", file=sys.stderr)
            elif args.only != "database":
                photos = [f for name in FOLDERS if (folder / name).is_dir() for f in image_files(folder / name)][:args.pictures]
                found += shard_rows(realistic_blocks(10**7, data=folder), server, args.items // 5)
                found.append(lost_row(photos[:500], server))
                found += looking_rows(photos)
    finally: # what was measured is kept when the rest fails
        if found: report([*measured_before(args.json, {one["name"] for one in found}), *found], args.json)


if __name__ == "__main__":
    main()
