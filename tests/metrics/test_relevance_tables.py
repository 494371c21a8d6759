"Ranking figures against torchmetrics and against answers worked out by hand."
import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import (retrieval_average_precision, retrieval_hit_rate, retrieval_normalized_dcg, retrieval_precision, retrieval_recall,
                                               retrieval_reciprocal_rank)

from image_similarity.metrics.relevance_tables import RANK_METRICS, rank_figures, relevance_matrix
from image_similarity.metrics.similarity import similarity

PEERS = {"recall": retrieval_recall, "precision": retrieval_precision, "hit_rate": retrieval_hit_rate, "ndcg": retrieval_normalized_dcg,
         "map": retrieval_average_precision, "mrr": retrieval_reciprocal_rank}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", RANK_METRICS)
def test_figures_are_those_of_torchmetrics(name, seed):
    rng = np.random.default_rng(seed)
    queries, responses, relevant = rng.random((9, 5)), rng.random((30, 5)), rng.random((9, 30)) < .2
    relevant[np.arange(9), rng.integers(0, 30, 9)] = True
    scores, target = torch.from_numpy(similarity(queries, responses)), torch.from_numpy(relevant)
    for title, value in rank_figures(queries, responses, relevant, [name], [1, 3, 30]).items():
        k = int(title.partition("@")[2]) if "@" in title else None
        assert value == pytest.approx(np.mean([float(PEERS[name](s, t, top_k=k)) for s, t in zip(scores, target)]), abs=1e-6)


def test_the_two_recalls_differ_where_a_query_has_several_answers():
    relevant = np.array([[True, True, True, True, False]])
    figures = rank_figures(np.array([[1., .1]]), np.array([[1., 0], [1, 1], [0, 1], [-1, 0], [-1, -1]]), relevant, ["recall", "hit_rate"], [1])
    assert figures == {"recall@1": .25, "hit_rate@1": 1.}


def test_chunks_change_nothing():
    rng = np.random.default_rng(0)
    queries, responses, relevant = rng.normal(size=(10, 4)), rng.normal(size=(7, 4)), np.ones((10, 7), bool)
    relevant[:, 3] = False
    assert rank_figures(queries, responses, relevant, chunk_size=3) == rank_figures(queries, responses, relevant, chunk_size=100)


def test_a_query_without_an_answer_is_left_out_and_told():
    relevant = np.array([[True, False], [False, False]])
    with pytest.warns(UserWarning, match="1 of 2 queries has no relevant item"):
        assert rank_figures(np.eye(2), np.eye(2), relevant, ["recall", "mrr"], [1]) == {"recall@1": 1., "mrr": 1.}


def test_one_query_and_a_cutoff_above_the_number_of_responses():
    assert rank_figures(np.eye(1, 2), np.eye(2), np.array([[False, True]]), ["recall"], [1, 50]) == {"recall@1": 0., "recall@50": 1.}


def test_relevance_names_what_is_unknown():
    assert relevance_matrix([1, 2], ["x"], [2, 1], ["x", "x"], [True, False]).tolist() == [[False], [True]]
    with pytest.raises(ValueError, match="3 is in the relevance table, but not in query_data"):
        relevance_matrix([1, 2], ["x"], [3], ["x"], [True])
    with pytest.raises(ValueError, match="response_data has 'x' twice"):
        relevance_matrix([1], ["x", "x"], [], [], [])
