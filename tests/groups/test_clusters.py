"""Clusters: known groups are found, order and labels do not change them, and nothing is forced into one."""
import networkx
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.manifold import spectral_embedding
from sklearn.metrics import adjusted_rand_score

from image_similarity.groups.clusters import Clusters, find_clusters, find_groups, join_neighbours, link_graph, merge_groups, name_clusters, spectral_coordinates
from image_similarity.groups.neighbours import embedding_neighbours, links_of_each, neighbours_by, siamese_neighbours


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
    from image_similarity.scoring.scorers import PairScorer
    torch.manual_seed(0)
    scorer = PairScorer(torch.randn(7, 12), torch.randn(7, 12), torch.randn(7), torch.randn(7), *map(torch.tensor, (2., .1, 0.)))
    pooled = torch.randn(30, 12)
    logits = torch.stack([scorer.pair_logits(pooled[i:i + 1].expand(30, -1), pooled) for i in range(30)]).numpy()
    np.fill_diagonal(logits, -np.inf)
    assert (siamese_neighbours(pooled, scorer) == np.argsort(-logits, axis=1)[:, :links_of_each(30)]).all()


@pytest.mark.parametrize("n", [100, 700]) # by all eigenvectors, and by the largest few
def test_coordinates_are_those_of_scikit_learn(n):
    points = np.random.default_rng(n).normal(size=(n, 3))
    links = link_graph(embedding_neighbours(points))
    (ours, _), theirs = spectral_coordinates(links, 6), spectral_embedding(links, n_components=6, drop_first=True, random_state=0)
    likeness = np.abs(np.corrcoef(ours.T, theirs.T)[:6, 6:]) # a coordinate may point the other way
    np.testing.assert_allclose(np.diag(likeness), 1, atol=1e-4)


def communities(groups): return [set(np.flatnonzero(groups == g).tolist()) for g in range(groups.max() + 1)]


def merged_slowly(groups, links):
    "The same by sets of members: the whole way down to one group, and from both best places the one with more groups."
    graph, found, way = networkx.from_numpy_array(links), [g for g in communities(groups) if g], []
    ends, n = links.sum(), sum(map(len, found))
    crowd = lambda g: links[sorted(g)].sum()
    while True:
        inside, chance = sum(links[np.ix_(sorted(g), sorted(g))].sum() for g in found) / ends, sum((crowd(g) / ends)**2 for g in found)
        told = sum(p * np.log(p / q) for p, q in ((inside, chance), (1 - inside, 1 - chance)) if p > 1e-12)
        way.append((networkx.community.modularity(graph, found), .45 * ends / 2 * told + sum(len(g) * np.log(len(g) / n) for g in found), found))
        if len(found) == 1: break
        links_between = {(i, j): links[np.ix_(sorted(found[i]), sorted(found[j]))].sum() / (crowd(found[i]) * crowd(found[j]))**.75 for j in range(len(found)) for i in range(j)}
        i, j = max(links_between, key=links_between.__getitem__)
        found = [g for k, g in enumerate(found) if k not in (i, j)] + [found[i] | found[j]]
    return max((max(way, key=lambda w: w[at])[2] for at in (0, 1)), key=len)


def test_merging_finds_what_a_slow_twin_finds():
    rng = np.random.default_rng(0)
    for seed, centres in enumerate((2, 12)): # weights in no ratio, so that no two gains are equal
        points = 4 * rng.normal(size=(centres, 3))[rng.integers(0, centres, 60)] + rng.normal(size=(60, 3))
        links = link_graph(embedding_neighbours(points)).toarray() * (lambda w: w + w.T)(rng.uniform(.5, 1, (60, 60)))
        start = np.unique(rng.integers(0, 20, 60), return_inverse=True)[1] if seed else np.arange(60)
        found = communities(merge_groups(start, sparse.csr_matrix(links)))
        assert sorted(map(sorted, found)) == sorted(map(sorted, merged_slowly(start, links)))
        assert 1 < len(found) < start.max() + 1


def test_members_of_no_group_stay_in_none_when_groups_merge():
    links = sparse.csr_matrix(np.ones((6, 6)) - np.eye(6))
    assert merge_groups(np.array([-1, 0, 0, 1, 1, -1]), links).tolist() == [-1, 0, 0, 0, 0, -1] # 4 of 30 link ends, chance 3.3
    assert merge_groups(np.full(6, -1), links).tolist() == [-1] * 6


@pytest.mark.parametrize("min_size", [2, 5, 10, 40])
def test_no_cluster_is_smaller_than_asked_for(min_size):
    points = np.random.default_rng(min_size).normal(size=(400, 4))
    found = find_groups(embedding_neighbours(points), min_size)
    sizes = np.bincount(found[found >= 0])
    assert len(sizes) and (sizes >= min_size).all() and (np.diff(sizes) <= 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_what_has_no_parts_is_not_torn_apart(seed):
    rng = np.random.default_rng(seed)
    assert (find_groups(embedding_neighbours(rng.normal(size=(300, 16))), 10) == 0).all() # one cloud
    truth = np.repeat([0, 1, 2], [60, 40, 20])                                             # and three that no link ties
    points = rng.normal(size=(120, 8)) + 20 * np.eye(8)[truth]
    assert (find_groups(neighbours_by(lambda rows: -((points[rows, None] - points)**2).sum(2), 120), 10) == truth).all()


def test_clouds_that_touch_are_told_apart():
    "More of them than there are coordinates, in one piece: some may be taken together, none is torn apart."
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(40), 15)
    points = rng.normal(size=(40, 32))[truth] + .8 * rng.normal(size=(600, 32))
    found = find_groups(embedding_neighbours(points), 10)
    assert adjusted_rand_score(truth, found) > .5


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
            if near.count(best) >= 15 / 8: joins[i] = best
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
