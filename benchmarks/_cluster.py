"""What a Ray cluster does: rows of a Siamese head in parts, and looking at pictures, on nodes of this machine that share its cores.

    rows = shard_rows(blocks, server, items)   # beside one machine
    rows = looking_rows(photos)                # beside one process on the same cores
    row = lost_row(photos, server)             # while a node is killed
"""
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from unittest.mock import patch

import numpy as np
import torch
from _report import interval, row

from image_similarity.encoders.encoder import create_encoder
from image_similarity.gallery.encoder import as_gallery_encoder
from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.pairs import GalleryPairs
from image_similarity.gallery.trial_server import TrialServer
from image_similarity.scoring.scorers import PairScorer


@contextmanager
def nodes(n: int):
    "A cluster of `n` nodes with a processor each, on this machine; and the last of them, which may be removed."
    import ray
    from ray.cluster_utils import Cluster
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200_000_000})
    last = None
    for _ in range(n - 1): last = cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
    cluster.wait_for_nodes()
    try: yield cluster, last
    finally:
        ray.shutdown()
        cluster.shutdown()


def drawn_scorer(width: int, hidden: int = 64) -> PairScorer:
    "A head of the size that training makes, with drawn numbers: what a search costs does not hang on what was learned."
    torch.manual_seed(0)
    A, B = (torch.randn(hidden, width) / width**.5 for _ in range(2))
    return PairScorer(A, B, torch.randn(hidden), torch.randn(hidden) / hidden, torch.tensor(8.), torch.tensor(-6.), torch.tensor(0.))


def shard_rows(blocks: Iterable[np.ndarray], server: TrialServer, items: int, n_queries: int = 200) -> list[dict]:
    "Whether parts answer as one machine does, and what asking them costs: of a small gallery, where comparing takes next to nothing."
    from image_similarity.gallery.shards import Shards
    left = iter(blocks)
    pooled = next(left)
    while len(pooled) < items + n_queries: pooled = np.concatenate([pooled, next(left)])
    queries, scorer = torch.from_numpy(pooled[items:items + n_queries]), drawn_scorer(pooled.shape[1])
    galleries = [Gallery(server.address(name), create_encoder()) for name in ("shards", "shards_small")]
    for gallery, n in zip(galleries, (items, 200)): gallery.import_embeddings([f"/photos/{i}.jpg" for i in range(n)], pooled[:n])
    same, more = [], []
    with nodes(4) as (cluster, _):
        for gallery in galleries:
            one, parts = GalleryPairs(gallery, scorer), Shards(gallery, scorer, cluster.address)
            for query in [queries[0], *queries]:
                times = []
                for pairs in (one, parts):
                    start = time.perf_counter()
                    view = pairs.current()
                    hits = view.index.search(query, 10)
                    times.append((time.perf_counter() - start, view.ids[hits.ids].tolist(), hits.logits.tolist()))
                if gallery is galleries[0]: same.append(times[0][1:] == times[1][1:])
                else: more.append(1000 * (times[1][0] - times[0][0]))
            parts.close()
    for gallery in galleries: gallery.close()
    return [row("shards_same_answers", float(np.mean(same[1:])), goal=1., against="one machine: the same ids, and logits to the last bit"),
            row("shards_overhead_ms", *interval(more[1:]), goal=10, better="lower", against="one machine, for a query of 200 items")]


def looking_rows(photos: list[Path]) -> list[dict]:
    "Looking on a cluster beside one process, by turns, on the same cores."
    from image_similarity.gallery import cluster as on_cluster
    encoder, ratios, rates = as_gallery_encoder(create_encoder()), [], []
    encoder.settle()
    with nodes(torch.get_num_threads()) as (cluster, _):
        spread = on_cluster.ClusterEncoder(encoder, cluster.address)
        for looker in (encoder, spread):
            for _ in range(2 * torch.get_num_threads()): looker.look(photos[:64])  # converted, on every node
        for start in range(0, len(photos), 200):
            some, took = photos[start:start + 200], {}
            for looker in (encoder, spread) if start % 400 else (spread, encoder):
                begun = time.perf_counter()
                looker.look(some)
                took[looker] = time.perf_counter() - begun
            ratios.append(took[encoder] / took[spread])
            rates.append(len(some) / took[spread])
        spread.close()
    return [row("ray_embed_vs_local", *interval(ratios), goal=.85, against="one process on the same cores"), row("ray_embed_pictures_a_second", *interval(rates))]


def lost_row(files: list[Path], server: TrialServer) -> dict:
    "How many pictures are lost, twice, or without a vector, when one of two nodes is killed while they are added."
    from image_similarity.gallery import cluster as on_cluster
    gallery, done = Gallery(server.address("looked"), create_encoder()), Event()
    with nodes(2) as (cluster, last), patch.object(on_cluster, "SHARE", min(on_cluster.SHARE, -(-len(files) // 8))):
        def fall() -> bool:
            while len(gallery) < len(files) // 4:
                if done.wait(.05): return False  # the adding failed, or was over first
            cluster.remove_node(last, allow_graceful=False)
            return not done.is_set()
        with ThreadPoolExecutor(1) as pool:
            fell = pool.submit(fall)
            try: on_cluster.add_on_cluster(gallery, files, cluster.address, progress=False)
            finally: done.set()
        if not fell.result(): raise RuntimeError("all pictures were added before the node fell; take more (--pictures)")
    paths = gallery.files
    lost = len(set(files) - set(paths)) + len(paths) - len(set(paths)) + int(np.isnan(gallery.pooled).any(1).sum())
    gallery.close()
    return row("ray_embed_lost_after_kill", lost, goal=0, better="lower", against=f"{len(files)} pictures, one of two nodes killed on the way")
