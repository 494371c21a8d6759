"Looking at pictures, learning and searching on a Ray cluster of two nodes, one of which dies. Needs the extra `[cluster]`."
import os
import pickle
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest

from image_similarity.encoders.encoder import create_encoder, embed
from image_similarity.gallery.encoder import as_gallery_encoder
from image_similarity.gallery.gallery import Gallery
from small_gallery import paint

pytestmark = pytest.mark.soak
ray = pytest.importorskip("ray", reason="the extra [cluster] is not installed")


@pytest.fixture(scope="module")
def cluster():
    "Its head; `node` is the second."
    from ray.cluster_utils import Cluster
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000})
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def node(cluster):
    node = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    cluster.wait_for_nodes()
    yield node
    if node in cluster.list_all_nodes(): cluster.remove_node(node)


@pytest.fixture
def pictures(tmp_path):
    files = [paint(tmp_path / "photos" / f"cat_{i}.png", i) for i in range(300)]
    files[7].write_text("no picture")
    return files


def falling(cluster, node, when) -> threading.Thread:
    "The node goes as soon as `when` says so."
    def fall():
        while not when(): time.sleep(.02)
        cluster.remove_node(node, allow_graceful=False)
    thread = threading.Thread(target=fall, daemon=True)
    thread.start()
    return thread


def test_a_cluster_sees_what_one_machine_sees_also_when_a_node_dies(cluster, node, tmp_path, pictures):
    from image_similarity.gallery.cluster import ClusterEncoder
    encoder = as_gallery_encoder(create_encoder(size=64))
    alone = Gallery(tmp_path / "alone", encoder)
    one = alone.add(pictures, "name", progress=False)
    spread = ClusterEncoder(encoder, cluster.address)
    there = Gallery(tmp_path / "there", spread)
    assert spread.workers.n == 2
    fall = falling(cluster, node, lambda: len(there) >= 100)
    added = there.add(pictures, "name", progress=False)
    fall.join()
    assert (added.new, len(added.bad)) == (one.new, len(one.bad)) == (299, 1) and added.bad[0].path == pictures[7]
    assert there.files == alone.files and np.abs(there.pooled - alone.pooled).max() < 1e-4
    assert Gallery(tmp_path / "there").encoder.fingerprint == encoder.fingerprint  # and opens without a cluster
    spread.close()


def test_nodes_write_into_a_database_themselves_and_nothing_is_there_twice(cluster, node, address, tmp_path, pictures, monkeypatch):
    from image_similarity.gallery import cluster as on_cluster
    monkeypatch.setattr(on_cluster, "SHARE", 16)
    encoder = as_gallery_encoder(create_encoder(size=64))
    gallery = Gallery(address, encoder)
    fall = falling(cluster, node, lambda: len(gallery) >= 64)
    added = on_cluster.add_on_cluster(gallery, pictures, cluster.address, "name", [{"number": i} for i in range(300)], progress=False)
    fall.join()
    # what a lost node had written counts as known to the one that came after it
    assert added.new + added.unchanged == 299 and added.new >= 299 - 16 and [e.path for e in added.bad] == [pictures[7]]
    assert sorted(gallery.files) == sorted(set(pictures) - {pictures[7]}) and len(set(gallery.ids)) == 299
    readable = gallery.files
    assert np.abs(gallery.pooled - encoder.look(readable).pooled).max() < 1e-4
    assert all(item.metadata == {"number": int(item.path.stem[4:])} and item.label == "cat" for item in gallery.items())
    again = on_cluster.add_on_cluster(gallery, pictures, cluster.address, progress=False)
    assert (again.new, again.unchanged) == (0, 299)


def test_training_looks_on_the_cluster_and_sees_the_same(cluster, node, small, few, tmp_path):
    from image_similarity import MatchPredictor
    from image_similarity.encoders.spreading import embedding_on
    from image_similarity.finder.training import fit_finder
    from image_similarity.images.datasets import labelled_images
    files = [*small.data.files[:20], b"no picture"]
    here = embed(files, small.encoder, augment=2, seed=3, progress=False)
    with embedding_on(cluster.address): there = embed(files, small.encoder, augment=2, seed=3, progress=False)
    assert there.kept.tolist() == here.kept.tolist() and len(there.bad) == 1
    assert np.abs(there.pooled - here.pooled).max() < 1e-4 and np.abs(there.augmented - here.augmented).max() < 1e-4
    fitted = fit_finder(labelled_images(small.images, valid_pct=.25), small.encoder, augment=1, epochs=1, on=cluster.address)
    assert fitted.data.files == small.data.files and np.abs(fitted.embedded.augmented - small.embedded.augmented).max() < 1e-4
    files, rng = small.data.files[:24], np.random.default_rng(0)
    pairs = pd.DataFrame([(str(files[i]), str(files[j]), int(small.data.labels[i] == small.data.labels[j])) for i, j in rng.integers(0, 24, (60, 2)) if i != j], columns=["a", "b", "same"])
    predictor = MatchPredictor("a", "b", "same", hyperparameters={"augment": 1}).fit(pairs, progress=False, on=cluster.address)
    assert np.isfinite(predictor.predict_proba(pairs, as_pandas=False)).all()


def alike(one, other):
    assert [(r.path, r.label, r.rank, r.reason) for r in one] == [(r.path, r.label, r.rank, r.reason) for r in other]
    for name in ("score", "probability", "pair_probability"):
        values = [[np.nan if (value := getattr(r, name)) is None else value for r in some] for some in (one, other)]
        np.testing.assert_allclose(*values, atol=1e-5)


def test_parts_on_a_cluster_answer_as_one_machine_does(cluster, node, address, small):
    from image_similarity.finder.finder import SimilarityFinder
    from image_similarity.gallery.shards import MissingPart
    gallery = Gallery(address, small.encoder)
    gallery.add(small.images, "name", progress=False)
    here, there = SimilarityFinder.load(small.model, address), SimilarityFinder.load(small.model, address, on=cluster.address)
    queries = [small.query, gallery.files[3]]

    def same():
        for query in queries:
            for how in ({}, {"candidates": "all", "top_k": 30}, {"candidates": "class"}, {"where": {"label": [gallery.labels[0], gallery.labels[-1]]}}):
                alike(there.search(query, **{"top_k": 8, **how}), here.search(query, **{"top_k": 8, **how}))
    same()
    assert there.predict(small.query, show=False) == here.predict(small.query, show=False)
    result = there.search(small.query, 1)[0]
    assert there.explain(result).logit == pytest.approx(here.explain(result).logit, abs=1e-4)
    gallery.remove(gallery.ids[2:7])
    gallery.update(gallery.ids[0], label="other")
    same()  # they follow
    gallery.add(small.images, "name", progress=False)
    same()
    parts = there._pairs
    assert parts.n == 2 and len({ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())) for actor in parts._actors.values()}) == 2
    cluster.remove_node(node, allow_graceful=False)
    same()  # on the node that is left
    pid = ray.get(parts._actors[1].__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGSTOP)
    parts.patience = 1
    with pytest.raises(MissingPart, match="part 2 of 2 did not answer in time.*nothing is answered without") as told: there.search(small.query)
    assert "\n" not in str(told.value)
    os.kill(pid, signal.SIGCONT)
    parts.patience = 60
    same()
    os.kill(pid, signal.SIGKILL)
    same()
    copied = pickle.loads(pickle.dumps(there))
    alike(copied.search(small.query, 5), here.search(small.query, 5))
    before = copied._pairs
    assert before._actors and copied.go_back(0) == 0 and not before._actors  # what no longer answers holds no rows
    alike(copied.search(small.query, 5), here.search(small.query, 5))
    for finder in (there, copied): finder._pairs.close()


def test_no_cluster_is_told_in_one_line(monkeypatch):
    from image_similarity.gallery.cluster import ClusterEncoder
    encoder = as_gallery_encoder(create_encoder(size=64))
    with pytest.raises(ValueError, match="Ray Client's way in"): ClusterEncoder(encoder, "ray://127.0.0.1:1")
