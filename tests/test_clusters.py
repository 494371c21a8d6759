"""Clusters: known groups are found, order and labels do not change them, and nothing is forced into one."""
import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from image_similarity.clusters import (Clusters, embedding_neighbours, find_clusters, find_groups, join_neighbours, name_clusters, neighbours_by,
                                       siamese_neighbours)


@pytest.fixture(scope="module")
def clouds():
    "Unit vectors in six clouds of different size, and which cloud each is of."
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(6), [60, 50, 40, 30, 25, 20])
    return rng.normal(size=(6, 64))[truth] + .6 * rng.normal(size=(len(truth), 64)), truth


def files(n): return [f"{i}.jpg" for i in range(n)]


def test_clouds_are_found(clouds):
    points, truth = clouds
    found = find_clusters(files(len(points)), embedding_neighbours(points))
    assert adjusted_rand_score(truth, found.groups) == 1 and len(found) == 6
    assert [len(c.members) for c in found] == [60, 50, 40, 30, 25, 20]


def test_the_order_of_the_pictures_does_not_matter(clouds):
    points, _ = clouds
    order = np.random.default_rng(1).permutation(len(points))
    one, other = (find_clusters(files(len(points)), embedding_neighbours(p)).groups for p in (points, points[order]))
    assert adjusted_rand_score(one[order], other) == 1


def test_the_same_call_says_the_same(clouds):
    points, _ = clouds
    assert find_clusters(files(len(points)), embedding_neighbours(points)).to_records() == find_clusters(files(len(points)), embedding_neighbours(points)).to_records()


def test_labels_name_and_do_not_change(clouds):
    points, truth = clouds
    neighbours = embedding_neighbours(points)
    labels = [f"class {t}" if i % 9 == 0 else None for i, t in enumerate(truth)]
    named, bare = (find_clusters(files(len(points)), neighbours, labels=given) for given in (labels, None))
    assert (named.groups == bare.groups).all()
    assert [c.name for c in named] == [f"class {t}" for t in range(6)] and all(c.agree == c.labelled > 0 for c in named)
    assert [c.name for c in bare] == [f"cluster {t}" for t in range(1, 7)]
    assert set(named.names) <= {*(f"class {t}" for t in range(6)), None}


@pytest.mark.parametrize("n, k", [(5, 8), (40, 3), (1500, 8)])
def test_neighbours_are_those_of_sorting_everything(n, k):
    rng = np.random.default_rng(n)
    points = rng.normal(size=(n, 3))
    similar = -((points[:, None] - points)**2).sum(2)
    np.fill_diagonal(similar, -np.inf)
    expected = np.argsort(-similar, axis=1)[:, :min(k, n - 1)]
    assert (neighbours_by(lambda rows: -((points[rows, None] - points)**2).sum(2), n, k) == expected).all()


def test_neighbours_by_a_siamese_network_are_those_of_its_logits():
    from image_similarity.scorers import PairScorer
    torch.manual_seed(0)
    scorer = PairScorer(torch.randn(7, 12), torch.randn(7, 12), torch.randn(7), torch.randn(7), *map(torch.tensor, (2., .1, 0.)))
    pooled = torch.randn(30, 12)
    logits = torch.stack([scorer.pair_logits(pooled[i:i + 1].expand(30, -1), pooled) for i in range(30)]).numpy()
    np.fill_diagonal(logits, -np.inf)
    assert (siamese_neighbours(pooled, scorer) == np.argsort(-logits, axis=1)[:, :8]).all()


def test_joining_is_what_a_slow_twin_does():
    rng = np.random.default_rng(0)
    groups, neighbours = rng.integers(-1, 4, 200), rng.integers(0, 200, (200, 5))
    slow = groups.tolist()
    while True:
        joins = {}
        for i in range(200):
            if slow[i] >= 0: continue
            near = [slow[j] for j in neighbours[i]]
            best = max(range(4), key=near.count)
            if near.count(best) >= 2.5: joins[i] = best
        if not joins: break
        for i, g in joins.items(): slow[i] = g
    assert join_neighbours(groups, neighbours).tolist() == slow and slow != groups.tolist()


def test_what_belongs_nowhere_is_said_to():
    found = Clusters(name_clusters(np.array([0, 0, -1, 0])), files(4))
    assert found.names == ["cluster 1", "cluster 1", None, "cluster 1"] and found.loners == [2]
    assert [r["cluster"] for r in found.to_records()] == [1, 1, None, 1]


@pytest.mark.parametrize("n", [0, 1, 3, 4, 9])
def test_few_pictures_are_no_trouble(n):
    points = np.random.default_rng(0).normal(size=(n, 4))
    assert len(find_clusters(files(n), embedding_neighbours(points)).groups) == n


def test_equal_pictures_are_one_cluster():
    assert len(find_clusters(files(40), embedding_neighbours(np.ones((40, 4))))) <= 1
    assert (find_groups(np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]]), 3) == [0, 0, 0, 1, 1, 1]).all()
