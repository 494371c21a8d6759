"""Similarity against scipy, plain loops and stable sorting."""
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from image_similarity.metrics.similarity import METRICS, distance, normalize, similarity, top_k

settings.register_profile('steady', deadline=None, derandomize=True)
settings.load_profile('steady')

SCIPY_NAME = {'cosine': 'cosine', 'l2': 'euclidean', 'l1': 'cityblock'}
rows = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(4)),
                  elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False))


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, 33)).astype(np.float32), rng.normal(size=(11, 33)).astype(np.float32)


@pytest.mark.parametrize('metric', SCIPY_NAME)
def test_distance_agrees_with_scipy(vectors, metric):
    ours = distance(*vectors, metric)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, cdist(*vectors, SCIPY_NAME[metric]), rtol=1e-5, atol=1e-6)


def test_dot_is_the_sum_of_products(vectors):
    loop = [[sum(float(a) * float(b) for a, b in zip(q, g)) for g in vectors[1]] for q in vectors[0]]
    np.testing.assert_allclose(similarity(*vectors, 'dot'), loop, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('metric', METRICS)
def test_higher_is_better(metric):
    scores = similarity([[1., 1.]], [[1., 1.], [1., 0.], [-1., -1.]], metric)
    assert scores.shape == (1, 3) and scores.dtype == np.float32
    assert scores[0, 0] > scores[0, 1] > scores[0, 2]


def test_l2_tells_near_duplicates_apart():
    row = np.random.default_rng(1).normal(size=(1, 1280)).astype(np.float32) * 10
    near = row.copy()
    near[0, 0] += 1e-3
    assert distance(row, near, 'l2')[0, 0] == pytest.approx(abs(float(near[0, 0]) - float(row[0, 0])), rel=1e-3)


@given(rows)
def test_normalized_rows_have_length_one_or_are_zero(x):
    length = np.linalg.norm(normalize(x).astype(np.float64), axis=1)
    np.testing.assert_allclose(length, (x != 0).any(axis=1), atol=1e-5)


@given(rows, st.sampled_from(sorted(METRICS)))
def test_swapping_the_sides_transposes(x, metric):
    y = x[::-1] + np.float32(1)
    np.testing.assert_allclose(similarity(x, y, metric), similarity(y, x, metric).T, rtol=1e-4, atol=1e-3)


@given(rows)
def test_cosine_stays_within_one(x):
    scores = similarity(x, x)
    assert scores.min() >= -1 and scores.max() <= 1


def test_torch_tensors_are_taken_as_they_are(vectors):
    q, g = vectors
    tensor = torch.tensor(q, requires_grad=True)
    np.testing.assert_array_equal(similarity(tensor, torch.tensor(g)), similarity(q, g))
    np.testing.assert_array_equal(normalize(tensor), normalize(q))
    np.testing.assert_array_equal(top_k(tensor, 3)[0], top_k(q, 3)[0])


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 30)),
                  elements=st.sampled_from([-np.inf, -1., 0., .5, 2.])), st.integers(1, 40))
@settings(max_examples=200)
def test_top_k_is_the_head_of_a_stable_sort(scores, k):
    indices, best = top_k(scores, k)
    np.testing.assert_array_equal(indices, np.argsort(-scores, axis=1, kind='stable')[:, :k])
    np.testing.assert_array_equal(best, np.take_along_axis(scores, indices, axis=1))


def test_top_k_of_integers_and_of_nothing():
    assert top_k(np.array([3, 9, 9], dtype=np.uint8), 2)[0].tolist() == [1, 2]
    assert top_k(np.zeros((2, 0)), 5)[0].shape == (2, 0)


@pytest.mark.parametrize('metric', METRICS)
def test_an_empty_gallery_gives_no_scores(metric):
    assert similarity(np.ones((2, 3)), np.ones((0, 3)), metric).shape == (2, 0)


@pytest.mark.parametrize('call, words', [
    (lambda: similarity(np.ones((2, 3)), np.ones((4, 5))), ['(2, 3)', '(4, 5)']),
    (lambda: similarity(np.ones((2, 3)), np.ones((2, 3)), 'euclid'), ["'euclid'", 'cosine, dot, l2, l1']),
    (lambda: distance(np.ones((2, 3)), np.ones((2, 3)), 'dot'), ['dot', 'similarity()']),
    (lambda: similarity(np.ones((2, 3, 4)), np.ones((2, 3))), ['queries', '(2, 3, 4)']),
    (lambda: top_k([1., 2.], 0), ['k=0']),
    (lambda: top_k([1., np.nan], 1), ['NaN']),
    (lambda: top_k(np.zeros((1, 1, 1)), 1), ['(1, 1, 1)']),
])
def test_errors_name_the_value_and_the_remedy(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert all(word in str(error.value) for word in words)


def test_importing_similarity_metrics_and_calibration_is_light():
    code = ("import sys, image_similarity.metrics.similarity, image_similarity.metrics.ranking, image_similarity.metrics.calibration; "
            "print([m for m in ('torch', 'fastai', 'sklearn', 'pandas', 'matplotlib') if m in sys.modules])")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
