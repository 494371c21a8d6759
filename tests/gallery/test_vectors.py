"The two engines beside a brute-force twin: metrics, ties, filters, blocks, growth."
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_similarity.gallery import vectors
from image_similarity.metrics.similarity import METRICS, normalize, similarity, top_k
from image_similarity.gallery.vectors import ApproximateVectors, ExactVectors, load_index, own_recall, save_index


def clustered(n: int, width: int = 32, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n // 20 + 1, width))
    return (centres[rng.integers(len(centres), size=n)] + 0.5 * rng.standard_normal((n, width))).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_exact_search_is_the_twin_whatever_the_blocks_and_the_filter(data):
    n, k = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 12))
    metric = data.draw(st.sampled_from(list(METRICS)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows, queries = (rng.integers(-3, 4, (size, 5)).astype(np.float32) for size in (n, data.draw(st.sampled_from([1, 3, 25]))))
    if metric == "cosine":
        rows, queries = normalize(rows), normalize(queries)
    keep = rng.random(n) < data.draw(st.sampled_from([0, 0.2, 0.9, 1]))
    store = ExactVectors(metric)
    store.update(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "BLOCK_BYTES", 4 * 5 * data.draw(st.integers(1, n)))
        patch.setattr(vectors, "FEW_BARRED", data.draw(st.integers(0, 10)))
        found, scores = store.search(queries, k, keep)
    assert found.shape == scores.shape == (len(queries), k)
    expected = np.where(keep, similarity(queries, rows, metric), -np.inf)
    for one, score, row in zip(found, scores, expected):
        top = top_k(row, k)[1]
        top = top[np.isfinite(top)]
        assert np.allclose(score[: len(top)], top, atol=1e-3) and np.isneginf(score[len(top):]).all()
        assert (one[len(top):] == -1).all() and len({*one[: len(top)]}) == len(top)
        assert np.allclose(row[one[: len(top)]], score[: len(top)], atol=1e-3)  # each score is that of its row


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind, up_to", [("HNSW", 10**6), ("IVF", 0)])
def test_approximate_search_finds_what_it_says(metric, kind, up_to, monkeypatch):
    monkeypatch.setattr(vectors, "GRAPH_UP_TO", up_to)
    rows, new = np.split(clustered(6200), [6000])
    if metric == "cosine":
        rows, new = normalize(rows), normalize(new)
    store = ApproximateVectors(metric)
    store.update(rows)
    assert store.kind == kind and store.recall > 0.95
    exact = ExactVectors(metric)
    exact.update(rows)
    (found, scores), (best, top) = store.search(new, 10), exact.search(new, 10)
    recall = np.mean([len({*f} & {*b}) / 10 for f, b in zip(found, best)])
    assert abs(recall - store.recall) < 0.04
    hit = found[:, 0] == best[:, 0]
    assert np.allclose(scores[hit, 0], top[hit, 0], atol=1e-3)  # a second look makes scores exact
    assert (np.diff(scores) <= 0).all()


def test_rows_added_later_are_found_and_a_doubled_gallery_is_built_anew():
    rows = normalize(clustered(3000))
    store = ApproximateVectors("cosine")
    store.update(rows[:1400])
    store.update(rows[:2000])
    assert (len(store), store.built) == (2000, 1400)
    found, _ = store.search(rows[1400:2000], 1)
    assert np.mean(found[:, 0] == np.arange(1400, 2000)) > 0.97
    store.update(rows)
    assert (len(store), store.built) == (3000, 3000)


def test_recall_is_that_of_a_store_that_finds_half():
    class Half:
        rows = np.eye(12, dtype=np.float32)

        def search(self, queries, k, keep=None):
            return np.repeat([[0, 1, 2, 3, 4, -1, -1, -1, -1, -1, -1]], len(queries), 0), None

    truth = np.array([[0, *range(1, 11)], [11, *range(1, 11)]])
    assert own_recall(Half(), np.array([0, 11]), truth) == pytest.approx(0.4)  # 1, 2, 3 and 4 of ten


def test_an_index_is_believed_only_if_it_was_made_from_these_rows(tmp_path):
    rows = normalize(clustered(500))
    store = ApproximateVectors("cosine")
    store.update(rows)
    save_index(store, tmp_path / "i", {"of": 1})
    assert load_index(tmp_path / "i", {"of": 1}, rows, "cosine").recall == store.recall
    assert load_index(tmp_path / "i", {"of": 2}, rows, "cosine") is None
    assert load_index(tmp_path / "i", {"of": 1}, rows, "l2") is None
    assert load_index(tmp_path / "i", {"of": 1}, rows[:, :16], "cosine") is None
    assert load_index(tmp_path / "i", {"of": 1}, rows[:499], "cosine") is None


@pytest.mark.soak
def test_they_search_after_metric_learning_was_imported(tmp_path):
    "PyTorch Metric Learning replaces methods of FAISS in the whole process."
    code = """
import image_similarity.learners.losses
import faiss, numpy as np
from image_similarity.gallery.vectors import ApproximateVectors, ExactVectors
assert hasattr(faiss.Index, "search_numpy"), "nothing was replaced: this test checks nothing"
rows = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
keep = np.arange(300) % 3 > 0
for store in (ExactVectors("l2"), ApproximateVectors("l2")):
    store.update(rows, keep)
    assert store.search(rows[[1, 4]], 1, keep)[0].tolist() == [[1], [4]]
    assert 0 not in store.search(rows[:1], 5, keep)[0]
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
