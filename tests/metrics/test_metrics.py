"""Ranking and pair metrics against scikit-learn, pytorch-metric-learning, torchmetrics and brute force."""
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import average_precision_score, balanced_accuracy_score, ndcg_score, precision_score, roc_auc_score
from torchmetrics.functional.retrieval import (
    retrieval_average_precision, retrieval_hit_rate, retrieval_normalized_dcg, retrieval_recall, retrieval_reciprocal_rank)

from image_similarity.metrics.ranking import average_precision, average_precision_at_r, map_at_r, mean_average_precision, mrr, ndcg_at_k, query_ndcg_at_k, query_recall_at_k, recall_at_k, reciprocal_rank, relevance, without_self
from image_similarity.metrics.pairs import auc_statistic, balanced_accuracy, best_threshold, pair_auc, threshold_for_precision
from image_similarity.metrics.similarity import similarity

settings.register_profile('steady', deadline=None, derandomize=True)
settings.load_profile('steady')


@pytest.fixture
def ranking():
    "30 queries and 80 items with distinct scores and at least one relevant item each."
    rng = np.random.default_rng(0)
    relevant = rng.random((30, 80)) < .1
    relevant[:, 0] = True
    return (rng.permutation(30 * 80).reshape(30, 80) + 480.5 * relevant) / 2400, relevant


@pytest.fixture
def pairs():
    "3,000 pairs with many tied scores, 15 % matches, and whole-number weights, zeros among them."
    rng = np.random.default_rng(1)
    targets = rng.random(3000) < .15
    return (targets + rng.normal(size=3000)).round(1), targets, rng.integers(0, 4, 3000)


def each_query(function, ranking, **settings):
    return [function(torch.tensor(s), torch.tensor(r), **settings).item() for s, r in zip(*ranking)]


@pytest.mark.parametrize('k', [1, 5, 80, 200])
def test_recall_agrees_with_torchmetrics_in_both_conventions(ranking, k):
    top = min(k, 80)
    np.testing.assert_allclose(query_recall_at_k(*ranking, k, 'hit'), each_query(retrieval_hit_rate, ranking, top_k=top))
    np.testing.assert_allclose(query_recall_at_k(*ranking, k, 'fraction'), each_query(retrieval_recall, ranking, top_k=top), rtol=1e-6)


def test_average_precision_agrees_with_sklearn_and_torchmetrics(ranking):
    ours = average_precision(*ranking)
    np.testing.assert_allclose(ours, [average_precision_score(r, s) for s, r in zip(*ranking)])
    np.testing.assert_allclose(ours, each_query(retrieval_average_precision, ranking), rtol=1e-5)
    assert mean_average_precision(*ranking) == pytest.approx(ours.mean())


@pytest.mark.parametrize('k', [1, 10, 100])
def test_ndcg_agrees_with_sklearn_and_torchmetrics(ranking, k):
    scores, relevant = ranking
    np.testing.assert_allclose(query_ndcg_at_k(*ranking, k), each_query(retrieval_normalized_dcg, ranking, top_k=min(k, 80)), rtol=1e-5)
    assert ndcg_at_k(*ranking, k) == pytest.approx(ndcg_score(relevant, scores, k=k))


def test_mrr_agrees_with_torchmetrics(ranking):
    np.testing.assert_allclose(reciprocal_rank(*ranking), each_query(retrieval_reciprocal_rank, ranking), rtol=1e-6)
    assert mrr(*ranking) == pytest.approx(reciprocal_rank(*ranking).mean())


@pytest.mark.parametrize('same_set', [True, False])
def test_agrees_with_pytorch_metric_learning(same_set):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 6, 90)
    x = (rng.normal(size=(6, 8))[labels] + rng.normal(size=(90, 8))).astype(np.float32)
    q, g = (slice(None), slice(None)) if same_set else (slice(0, 40), slice(40, 90))
    calculator = AccuracyCalculator(include=('precision_at_1', 'mean_average_precision_at_r', 'mean_average_precision', 'mean_reciprocal_rank'), k=89 if same_set else 50)
    theirs = calculator.get_accuracy(torch.tensor(x[q]), torch.tensor(labels[q]), torch.tensor(x[g]), torch.tensor(labels[g]),
                                     ref_includes_query=same_set)
    scores, relevant = similarity(x[q], x[g], 'l2'), relevance(labels[q], labels[g], exclude_self=same_set)
    if same_set: scores = without_self(scores)
    assert recall_at_k(scores, relevant) == pytest.approx(theirs['precision_at_1'])
    assert map_at_r(scores, relevant) == pytest.approx(theirs['mean_average_precision_at_r'])
    assert mean_average_precision(scores, relevant) == pytest.approx(theirs['mean_average_precision'])
    assert mrr(scores, relevant) == pytest.approx(theirs['mean_reciprocal_rank'])


def slow_average_precision_at_r(scores, relevant):
    "The definition, word by word, with irrelevant items first among equals."
    ranked = sorted(zip(scores, relevant), key=lambda item: (-item[0], item[1]))
    n_relevant, hits, total = sum(relevant), 0, 0.
    for rank, (_, hit) in enumerate(ranked[:n_relevant], start=1):
        hits += hit
        total += hit * hits / rank
    return total / n_relevant if n_relevant else np.nan


few_scores = hnp.arrays(np.float64, (3, 8), elements=st.sampled_from([0., .25, .5, 1.]))
few_relevant = hnp.arrays(bool, (3, 8))


@given(few_scores, few_relevant)
def test_map_at_r_agrees_with_brute_force_under_ties(scores, relevant):
    slow = [slow_average_precision_at_r(s, r) for s, r in zip(scores, relevant.tolist())]
    np.testing.assert_allclose(average_precision_at_r(scores, relevant), slow)


@given(few_scores, few_relevant, st.permutations(range(8)))
def test_the_order_of_the_gallery_does_not_matter(scores, relevant, order):
    for metric in (query_recall_at_k, average_precision, average_precision_at_r, query_ndcg_at_k, reciprocal_rank):
        np.testing.assert_allclose(metric(scores, relevant), metric(scores[:, order], relevant[:, order]))


@given(few_scores, few_relevant)
def test_breaking_ties_never_lowers_a_figure(scores, relevant):
    broken = scores + 1e-3 * np.random.default_rng(0).random(scores.shape)
    for metric in (query_recall_at_k, average_precision, average_precision_at_r, query_ndcg_at_k, reciprocal_rank):
        worse, better = metric(scores, relevant), metric(broken, relevant)
        assert (np.isnan(worse) | (better >= worse - 1e-12)).all()


def test_a_constant_score_is_the_worst_ranking():
    relevant = np.array([[True] * 3 + [False] * 7])
    assert recall_at_k(np.zeros((1, 10)), relevant) == 0
    assert average_precision(np.zeros((1, 10)), relevant)[0] == pytest.approx((1/8 + 2/9 + 3/10) / 3)


def test_an_item_scored_minus_infinity_is_never_a_hit_but_is_missed():
    scores, relevant = [[1., -np.inf, -np.inf]], [[True, True, False]]
    assert recall_at_k(scores, relevant, 3, 'fraction') == .5
    assert average_precision(scores, relevant)[0] == .5
    assert reciprocal_rank(scores, [[False, True, True]]).tolist() == [0]


def test_queries_without_relevant_items_are_left_out_and_counted():
    scores, relevant = np.array([[1., 0.]] * 3), np.array([[1, 0], [0, 0], [0, 1]], dtype=bool)
    for metric, expected in ((recall_at_k, .5), (map_at_r, .5), (mrr, .75)):
        with pytest.warns(UserWarning, match='1 of 3 queries'):
            assert metric(scores, relevant) == expected
    with pytest.raises(ValueError, match='the query has no relevant item'):
        recall_at_k(scores[:1], relevant[1:2])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        recall_at_k(scores[:1], relevant[:1])


def test_relevance_takes_strings_and_leaves_out_the_query_itself():
    labels = ['cat', 'dog', 'cat']
    assert relevance(labels[:1], labels).tolist() == [[True, False, True]]
    assert not relevance(labels, labels, exclude_self=True).diagonal().any()
    with pytest.raises(ValueError, match='1 queries and 3 items'):
        relevance(labels[:1], labels, exclude_self=True)
    with pytest.raises(ValueError, match=r'\(2, 3\)'):
        without_self(np.zeros((2, 3)))


@pytest.mark.parametrize('weighted', [False, True])
def test_pair_auc_agrees_with_sklearn(pairs, weighted):
    scores, targets, weight = pairs
    weight = weight if weighted else None
    assert pair_auc(scores, targets, weight) == pytest.approx(roc_auc_score(targets, scores, sample_weight=weight), abs=1e-12)


@given(hnp.arrays(np.float64, 12, elements=st.sampled_from([0., .5, 1.])), hnp.arrays(bool, 12), hnp.arrays(np.int64, 12, elements=st.integers(0, 3)))
def test_weighted_auc_counts_the_comparisons_won(scores, targets, weight):
    if targets.all() or not targets.any():
        with pytest.raises(ValueError, match='both kinds'):
            pair_auc(scores, targets)
        return
    won = total = 0
    for i in np.flatnonzero(targets):
        for j in np.flatnonzero(~targets):
            total += weight[i] * weight[j]
            won += weight[i] * weight[j] * ((scores[i] > scores[j]) + .5 * (scores[i] == scores[j]))
    np.testing.assert_allclose(auc_statistic(scores, targets)(weight), won / total if total else np.nan)


def test_weights_are_copies(pairs):
    scores, targets, weight = pairs
    copied = np.repeat(scores, weight), np.repeat(targets, weight)
    for metric in (pair_auc, balanced_accuracy, best_threshold, threshold_for_half):
        assert metric(scores, targets, sample_weight=weight) == pytest.approx(metric(*copied), abs=1e-12)


def threshold_for_half(scores, targets, sample_weight=None):
    return threshold_for_precision(scores, targets, .5, sample_weight)


def test_balanced_accuracy_agrees_with_sklearn(pairs):
    scores, targets, weight = pairs
    for threshold in (-1, 0, .5, 1.3):
        expected = balanced_accuracy_score(targets, scores >= threshold, sample_weight=weight)
        assert balanced_accuracy(scores, targets, threshold, weight) == pytest.approx(expected, abs=1e-12)


def test_weights_that_leave_one_kind_give_nan():
    scores, targets, weight = [.9, .1, .2], [1, 0, 0], np.array([0., 1, 1])
    assert np.isnan(pair_auc(scores, targets, weight)) and np.isnan(balanced_accuracy(scores, targets, .5, weight))


@given(hnp.arrays(np.float32, 15, elements=st.floats(-4, 4, width=32)), hnp.arrays(bool, 15))
@settings(max_examples=200)
def test_best_threshold_is_as_good_as_any(scores, targets):
    if targets.all() or not targets.any(): return
    threshold = best_threshold(scores, targets)
    every = [balanced_accuracy(scores, targets, t) for t in [*scores, np.inf]]
    assert balanced_accuracy(scores, targets, threshold) >= max(every[:-1]) - 1e-12
    # The user's own comparison, in float32, tells the pairs the same way.
    assert ((scores >= threshold) == (scores.astype(np.float64) >= threshold)).all()


def test_best_threshold_lies_half_way():
    assert best_threshold([0., 1., 3., 4.], [0, 0, 1, 1]) == 2


def test_threshold_for_precision_is_the_smallest_that_reaches_it(pairs):
    scores, targets, _ = pairs
    threshold = threshold_for_precision(scores, targets, .6)
    assert precision_score(targets, scores >= threshold) >= .6
    assert all(precision_score(targets, scores >= t) < .6 for t in np.unique(scores) if t < threshold)


@pytest.mark.parametrize('call, words', [
    (lambda: threshold_for_precision([.9, .5, .1], [0, 1, 1]), ['0.99', '0.667']),
    (lambda: threshold_for_precision([.9, .1], [1, 0], 99), ['precision=99']),
    (lambda: best_threshold([.9, .1], [1, 0], [1, 0]), ['there is one pair only']),
    (lambda: pair_auc([.9, .1], [0, 0]), ['all 2 pairs are non-matches']),
    (lambda: pair_auc([.9, .1], [1, -1]), ['0 or 1']),
    (lambda: pair_auc([.9, .1], [1, 0, 0]), ['(2,)', '(3,)']),
    (lambda: pair_auc([.9, np.nan], [1, 0]), ['NaN']),
    (lambda: pair_auc([], []), ['no pairs']),
    (lambda: pair_auc([.9, .1], [1, 0], [1, -1]), ['weights']),
    (lambda: recall_at_k(np.zeros((2, 3)), np.zeros((3, 2))), ['(2, 3)', '(3, 2)']),
    (lambda: recall_at_k(np.zeros((1, 2)), np.ones((1, 2)), 0), ['k=0']),
    (lambda: recall_at_k(np.zeros((1, 2)), np.ones((1, 2)), 1, 'some'), ["'some'"]),
    (lambda: map_at_r([[np.nan, 1.]], [[1, 0]]), ['NaN']),
])
def test_errors_name_the_value_and_the_remedy(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert all(word in str(error.value) for word in words)
