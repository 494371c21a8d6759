"""Intervals: coverage where the truth is known, weights against copies, sklearn under resampling."""
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score

from image_similarity.metrics.intervals import Interval, bootstrap_interval, image_bootstrap, pair_weights, percentile_interval
from image_similarity.metrics.pairs import auc_statistic, pair_auc

settings.register_profile('steady', deadline=None, derandomize=True)
settings.load_profile('steady')


def test_interval_prints_and_answers():
    interval = Interval(.9123, .874, .941)
    assert repr(interval) == str(interval) == f'{interval}' == '0.912 [0.874, 0.941]'
    assert f'{interval:+.1%}' == '+91.2% [+87.4%, +94.1%]'
    assert .9 in interval and 0 not in interval
    with pytest.raises(AttributeError):
        interval.value = 1


def test_covers_the_truth_of_a_binomial_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(400):
        hits = rng.random(200) < .7
        covered += .7 in bootstrap_interval(lambda i, hits=hits: hits[i].mean(), 200, n_resamples=400, seed=seed)
    # 400 trials at 95 % give between 360 and 396 with overwhelming probability.
    assert 365 <= covered <= 395


def test_agrees_with_scipy():
    x = np.random.default_rng(1).exponential(size=80)
    ours = bootstrap_interval(lambda i: x[i].mean(), 80, n_resamples=4000, level=.9)
    theirs = bootstrap((x,), np.mean, n_resamples=4000, confidence_level=.9, method='percentile', rng=2).confidence_interval
    assert ours.value == pytest.approx(x.mean())
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=.02), pytest.approx(theirs.high, abs=.02))


def test_the_same_seed_draws_the_same_items_so_differences_are_paired():
    x = np.random.default_rng(2).normal(size=50)
    assert bootstrap_interval(lambda i: x[i].mean() - (x - 1)[i].mean(), 50, 100) == Interval(*[pytest.approx(1)] * 3)
    assert bootstrap_interval(lambda i: x[i].mean(), 50) == bootstrap_interval(lambda i: x[i].mean(), 50)
    assert bootstrap_interval(lambda i: x[i].mean(), 50) != bootstrap_interval(lambda i: x[i].mean(), 50, seed=1)


def test_undefined_resamples_are_dropped_while_they_are_few():
    assert percentile_interval(2., [1., np.nan, 3.], level=.5) == Interval(2., 1.5, 2.5)
    with pytest.raises(ValueError, match='only 1 of 3'):
        percentile_interval(2., [1., np.nan, np.nan])
    with pytest.raises(ValueError, match='too little data'):
        percentile_interval(np.nan, [1., 2.])


@given(hnp.arrays(np.int64, 6, elements=st.integers(0, 3)))
def test_pair_weights_count_the_pairs_of_copies(counts):
    pairs = np.stack(np.triu_indices(6, 1), axis=1)
    images = np.repeat(np.arange(6), counts)
    copies = [tuple(sorted((images[a], images[b]))) for a in range(len(images)) for b in range(a) if images[a] != images[b]]
    assert pair_weights(pairs, counts).tolist() == [copies.count(tuple(pair)) for pair in pairs.tolist()]


def all_pairs(n=30, seed=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, n)
    where = 1.5 * rng.normal(size=(5, 2))[labels] + rng.normal(size=(n, 2))
    i, j = np.triu_indices(n, 1)
    return np.stack([i, j], 1), -np.linalg.norm(where[i] - where[j], axis=1).round(1), labels[i] == labels[j]


def test_image_bootstrap_agrees_with_copying_the_pairs_and_sklearn():
    pairs, scores, targets = all_pairs()
    ours = image_bootstrap(pairs, auc_statistic(scores, targets), 30, n_resamples=200, seed=4)
    rng, slow = np.random.default_rng(4), []
    for _ in range(200):
        weight = pair_weights(pairs, np.bincount(rng.integers(30, size=30), minlength=30)).astype(int)
        slow.append(roc_auc_score(np.repeat(targets, weight), np.repeat(scores, weight)))
    assert (ours.low, ours.high) == tuple(pytest.approx(x, abs=1e-12) for x in np.quantile(slow, [.025, .975]))
    assert ours.value == pytest.approx(roc_auc_score(targets, scores))


def test_images_widen_the_interval_that_pairs_pretend():
    pairs, scores, targets = all_pairs()
    over_images = image_bootstrap(pairs, auc_statistic(scores, targets), 30)
    over_pairs = bootstrap_interval(lambda i: pair_auc(scores, targets, np.bincount(i, minlength=len(pairs))), len(pairs))
    assert over_images.high - over_images.low > 1.5 * (over_pairs.high - over_pairs.low)


def test_image_bootstrap_covers_the_truth():
    # Two classes on a line, sd 1, centres 2 apart; the true AUC of all pairs from a sample too large to matter.
    def draw(n, rng):
        labels = np.arange(n) % 2
        x = 2. * labels + rng.normal(size=n)
        i, j = np.triu_indices(n, 1)
        return np.stack([i, j], 1), -np.abs(x[i] - x[j]), labels[i] == labels[j]
    rng = np.random.default_rng(5)
    _, scores, targets = draw(1500, rng)
    truth, covered = pair_auc(scores, targets), 0
    for seed in range(100):
        pairs, scores, targets = draw(40, rng)
        covered += truth in image_bootstrap(pairs, auc_statistic(scores, targets), 40, n_resamples=200, seed=seed)
    assert covered >= 88


@pytest.mark.parametrize('call, words', [
    (lambda: bootstrap_interval(len, 0), ['n=0']),
    (lambda: bootstrap_interval(len, 5, level=95), ['level=95']),
    (lambda: image_bootstrap([[0, 1]], len, 1), ['0 to 1', 'there are 1']),
    (lambda: image_bootstrap([[-1, 1]], len, 5), ['-1 to 1']),
    (lambda: image_bootstrap([[2, 2]], len, 5), ['itself']),
    (lambda: image_bootstrap([0, 1], len, 5), ['(2,)']),
    (lambda: image_bootstrap([[0., 1.]], len, 5), ['float64']),
])
def test_errors_name_the_value_and_the_remedy(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert all(word in str(error.value) for word in words)
