"""Exact Siamese search: the same as brute force in double precision, from floats and from bytes."""
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from image_similarity.scoring import threads as chunks
from image_similarity.scoring import kernels
from image_similarity.scoring import search as pair_search
from image_similarity.scoring import scorers
from image_similarity.scoring.threads import CHUNK, in_threads
from image_similarity.scoring.kernels import PARTS, row_logits
from image_similarity.scoring.byte_rows import LARGEST, byte_logits, byte_query, byte_rows, fit_grid
from image_similarity.scoring.search import PairIndex, in_bytes, item_rows, pair_index
from image_similarity.scoring.scorers import PairScorer, kernel_numbers, kernel_rows
from image_similarity.learners.siamese_head import SiameseHead

DTYPES = ["float32", "int8"]


@pytest.fixture(params=["numpy", "compiled"])
def way(request, monkeypatch):
    "Small galleries are scored by numpy, large ones by the kernels; here all by either."
    monkeypatch.setattr(pair_search, "PLAIN_BELOW", 10**9 if request.param == "numpy" else 0)


def made_up_scorer(nf=12, h=16, seed=0, cosine=5., symmetric=True, spread=1.) -> PairScorer:
    "A head of random numbers; with a large `spread` some hidden units are worth far more than others."
    draw = np.random.default_rng(seed).standard_normal
    numbers = (draw((h, 2 * nf)) / nf, draw((h, 2 * nf)) / nf, draw(h), draw(h) * np.exp(spread * draw(h)), cosine, -1.5, 0.)
    return PairScorer(*(torch.tensor(x, dtype=torch.float32) for x in numbers), symmetric=symmetric)


def made_up_pooled(n, nf=12, seed=0, kinds=8) -> np.ndarray:
    "Items of several kinds, none negative, as a network ends with ReLU."
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((kinds, 2 * nf))
    return np.maximum(middle[rng.integers(kinds, size=n)] + rng.standard_normal((n, 2 * nf)) / 2, 0).astype(np.float32)


def brute_force(scorer: PairScorer, query, pooled) -> np.ndarray:
    "Logits from the formula, in double precision."
    A, B, b, w, a, c = (t.double().numpy() for t in (scorer.A, scorer.B, scorer.b, scorer.w, scorer.a, scorer.c))
    q, g = np.asarray(query, np.float64), np.asarray(pooled, np.float64)
    logits = np.maximum(A @ q + g @ B.T + b, 0) @ w
    if scorer.symmetric:
        logits = (logits + np.maximum(g @ A.T + B @ q + b, 0) @ w) / 2
    u, v = g[:, g.shape[1] // 2:], q[len(q) // 2:]
    lengths = np.maximum(np.linalg.norm(u, axis=1), 1e-12) * max(np.linalg.norm(v), 1e-12)
    return logits + a * (u @ v) / lengths + c


def ranked(logits, k) -> np.ndarray:
    return np.argsort(-logits, kind="stable")[:k]


def bounds(index: PairIndex, query) -> tuple[np.ndarray, np.ndarray]:
    "Of the logit of every item, from the bytes alone."
    scorer, rows = index.scorer, index.scorer.rows(torch.tensor(query)[None])
    w, a, c = kernel_numbers(scorer)
    orders = 2 if scorer.symmetric else 1
    hidden = np.concatenate([rows.query[0], rows.gallery[0]][:orders])
    unit = rows.unit[0].numpy()[:index.rows.unit.shape[1]]
    return byte_logits(byte_query(index.grid, hidden, unit, np.tile(w, orders), a, c), index.items, np.arange(len(index)))


# --- the same as something else

@pytest.mark.parametrize("dtype, symmetric, cosine", list(product(DTYPES, [True, False], [5., -5., 0.])))
def test_search_is_brute_force(dtype, symmetric, cosine, way):
    scorer, pooled = made_up_scorer(cosine=cosine, symmetric=symmetric), made_up_pooled(3000)
    index = pair_index(scorer, pooled, dtype)
    for query in made_up_pooled(20, seed=1):
        expected, hits = brute_force(scorer, query, pooled), index.search(query, 10)
        np.testing.assert_array_equal(hits.ids, ranked(expected, 10))
        np.testing.assert_allclose(hits.logits, expected[hits.ids], rtol=0, atol=1e-6 * np.abs(expected).max())
        np.testing.assert_array_equal(hits.scores, hits.logits)
        np.testing.assert_allclose(index.logits(query), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("symmetric, cosine", list(product([True, False], [4., 0.])))
def test_logits_are_the_models(symmetric, cosine, way):
    torch.manual_seed(0)
    head = SiameseHead(24, hidden=32, cosine=cosine, symmetric=symmetric).eval()
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(), module.running_var.uniform_(.5, 2), module.weight.data.normal_(), module.bias.data.normal_()
    pooled = torch.rand(700, 48)
    with torch.no_grad():
        expected = head.double().from_pooled(pooled[:1].double().expand(700, -1), pooled.double()).numpy()
        index = pair_index(head.float().fold(), pooled)
    np.testing.assert_allclose(index.logits(pooled[0]), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_compiled_and_plain_logits_of_a_scorer_agree(monkeypatch):
    scorer = made_up_scorer()
    queries, items = scorer.rows(made_up_pooled(3)), scorer.rows(made_up_pooled(500, seed=1))
    plain = scorer.logits(queries, items)
    monkeypatch.setattr(scorers, "COMPILED_FROM", 1)
    monkeypatch.setattr(PairScorer, "_block", None) # it is the compiled loops that answer
    compiled = scorer.logits(queries, items)
    assert compiled.dtype == plain.dtype and compiled.shape == plain.shape
    assert (compiled - plain).abs().max() <= 1e-6 * plain.abs().max()


@pytest.mark.parametrize("change", [lambda t: t.double(), lambda t: t.requires_grad_()])
def test_the_compiled_loops_leave_other_numbers_alone(change, monkeypatch):
    monkeypatch.setattr(scorers, "COMPILED_FROM", 1)
    scorer = made_up_scorer()
    scorer = replace(scorer, **{name: change(getattr(scorer, name)) for name in "ABbwac"})
    rows = scorer.rows(change(torch.tensor(made_up_pooled(5))))
    logits = scorer.logits(rows, rows)
    assert logits.dtype == scorer.w.dtype and logits.requires_grad == scorer.w.requires_grad


def test_a_row_scores_the_same_to_the_last_bit_wherever_it_stands():
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
    queries, items = [draw(4, n) for n in (37, 37, 53)], [draw(100, n) for n in (37, 37, 53)]
    numbers = draw(37), np.float32(2), np.float32(1)
    together = row_logits(queries, items, np.arange(100), *numbers)
    for q, i in product(range(4), range(0, 100, 7)):
        alone = row_logits([x[q:q + 1] for x in queries], [x[i:i + 1].copy() for x in items], np.array([0]), *numbers)
        assert alone[0, 0] == together[q, i]


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 70), nf=st.integers(1, 9), h=st.integers(1, 40), k=st.integers(1, 80), cosine=st.sampled_from([0., 3., -3., 1e4]),
       symmetric=st.booleans(), spread=st.sampled_from([0., 1., 4.]), scale=st.sampled_from([1e-3, 1., 1e3]), seed=st.integers(0, 99),
       dtype=st.sampled_from(DTYPES), plain_below=st.sampled_from([0, 10**9]))
@example(n=9, nf=1, h=1, k=1, cosine=0., symmetric=False, spread=0., scale=1e3, seed=9, dtype="int8", plain_below=0) # the unit's weight rounded up to 32768
def test_any_shape_and_any_scale(n, nf, h, k, cosine, symmetric, spread, scale, seed, dtype, plain_below):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_search, "PLAIN_BELOW", plain_below)
        check_any_shape(n, nf, h, k, cosine, symmetric, spread, scale, seed, dtype)


def check_any_shape(n, nf, h, k, cosine, symmetric, spread, scale, seed, dtype):
    scorer = made_up_scorer(nf, h, seed, cosine, symmetric, spread)
    pooled, query = scale * made_up_pooled(n, nf, seed), scale * made_up_pooled(1, nf, seed + 1)[0]
    index, expected = pair_index(scorer, pooled, dtype), brute_force(scorer, query, pooled)
    hits = index.search(query, k)
    assert len(hits) == min(n, k) == len(set(hits.ids.tolist()))
    if not n:
        return
    terms = brute_force(replace(scorer, w=scorer.w.abs(), a=scorer.a.abs(), c=scorer.c.abs()), query, pooled).max()
    np.testing.assert_allclose(expected[hits.ids], np.sort(expected)[::-1][:k], rtol=0, atol=4e-6 * terms)
    np.testing.assert_array_equal(hits.ids, ranked(index.logits(query), k)) # to the last bit
    if dtype == "int8":
        low, high = bounds(index, query)
        for exact in (expected, index.logits(query)):
            assert (low <= exact + 1e-6 * terms).all() and (exact <= high + 1e-6 * terms).all()


# --- bytes

@pytest.mark.parametrize("spread, symmetric", list(product([0., 3.], [True, False])))
def test_no_logit_is_beyond_its_bounds(spread, symmetric, way):
    scorer = made_up_scorer(h=64, spread=spread, symmetric=symmetric)
    pooled = made_up_pooled(2000)
    index = pair_index(scorer, pooled, "int8")
    widths = []
    for query in made_up_pooled(20, seed=1):
        low, high = bounds(index, query)
        for exact in (brute_force(scorer, query, pooled), index.logits(query)):
            assert (low <= exact).all() and (exact <= high).all()
        widths.append((high - low).mean() / np.ptp(exact))
    assert np.mean(widths) < .1 # and they say something


def test_items_beyond_the_sample_of_the_grid_keep_to_their_bounds():
    scorer, pooled = made_up_scorer(), made_up_pooled(400)
    pooled[200:, :] *= np.linspace(1, 30, 200, dtype=np.float32)[:, None]
    rows = kernel_rows(scorer, scorer.rows(torch.tensor(pooled)))
    grid, _ = in_bytes(scorer, type(rows)(*(part[:200] for part in rows)))
    w, a, _ = kernel_numbers(scorer)
    items = byte_rows(grid, np.concatenate([rows.gallery, rows.query, rows.unit], 1), np.tile(w, 2), a)
    index = PairIndex(scorer, rows, grid, items)
    for query in made_up_pooled(10, seed=1):
        expected, (low, high) = brute_force(scorer, query, pooled), bounds(index, query)
        assert (low <= expected).all() and (expected <= high).all()
        np.testing.assert_array_equal(index.search(query, 10).ids, ranked(expected, 10))


def test_the_same_ten_of_many_queries_from_bytes_and_from_floats():
    scorer, pooled = made_up_scorer(nf=32, h=48), made_up_pooled(20_000, nf=32, kinds=40)
    floats, codes = pair_index(scorer, pooled), pair_index(scorer, pooled, "int8")
    looked = []
    for query in made_up_pooled(100, nf=32, kinds=40):
        expected, hits = floats.search(query, 10), codes.search(query, 10)
        np.testing.assert_array_equal(hits.ids, expected.ids)
        np.testing.assert_array_equal(hits.logits, expected.logits)
        looked.append(hits.looked)
    assert 10 <= np.mean(looked) < 1000


@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_are_no_wider_than_what_is_lost(sign):
    "One hidden unit whose numbers are 0 to 255 loses nothing; thresholds between parts of a step lose half a part at most."
    x, w = np.arange(256, dtype=np.float32)[:, None], np.array([sign], np.float32)
    grid = fit_grid(x, w)
    items = byte_rows(grid, x, w, 0.)
    nothing, everything = np.empty(0, np.float32), np.arange(256)
    shares = []
    for t in np.random.default_rng(0).uniform(-300, 50, 300).astype(np.float32):
        low, high = byte_logits(byte_query(grid, np.array([t]), nothing, w, 0., 1.), items, everything)
        exact = 1 + sign * np.maximum(x[:, 0].astype(np.float64) + t, 0)
        assert (low <= exact).all() and (exact <= high).all() and (high - low).max() < 1.1 / PARTS
        shares.append(np.abs(exact - (low + high) / 2).max() / (high - low).max())
    assert max(shares) > .45 # half would be the tightest that bounds can be


def test_sums_of_bytes_fit_into_32_bits():
    w = np.concatenate([np.full(2000, 3.), [1e6]]).astype(np.float32) # one unit worth more than all others
    sample = np.random.default_rng(0).standard_normal((20, 2001 + 30)).astype(np.float32)
    grid = fit_grid(sample, w)
    assert np.abs(grid.weight.astype(np.int64)).sum() * 255 * PARTS <= LARGEST
    asked = byte_query(grid, np.zeros(2001, np.float32), np.full(30, 1e3, np.float32), w, 1., 0.)
    assert np.abs(asked.slope.astype(np.int64)).sum() * 255 <= LARGEST


# --- what is asked

@pytest.mark.parametrize("dtype", DTYPES)
def test_of_equal_items_the_first_come_first(dtype):
    scorer, pooled = made_up_scorer(), np.repeat(made_up_pooled(1), 50, axis=0)
    np.testing.assert_array_equal(pair_index(scorer, pooled, dtype).search(pooled[0], 7, among=np.arange(50) > 3).ids, np.arange(4, 11))


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_what_is_asked_for_is_searched(dtype):
    scorer, pooled = made_up_scorer(), made_up_pooled(300)
    index, query = pair_index(scorer, pooled, dtype), made_up_pooled(1, seed=1)[0]
    expected = brute_force(scorer, query, pooled)
    mask = np.random.default_rng(0).random(300) < .2
    wanted = [i for i in ranked(expected, 300) if mask[i]]
    np.testing.assert_array_equal(index.search(query, 9, among=mask).ids, wanted[:9])
    np.testing.assert_array_equal(index.search(query, 900, among=np.flatnonzero(mask)[::-1]).ids, wanted)
    np.testing.assert_allclose(index.logits(query, among=mask), expected[mask], atol=1e-5)
    assert len(index.search(query, 5, among=[])) == len(index.search(query, 5, among=np.zeros(300, bool))) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_another_score_ranks(dtype):
    scorer, pooled = made_up_scorer(), made_up_pooled(2000)
    index, query, prior = pair_index(scorer, pooled, dtype), made_up_pooled(1, seed=1)[0], np.random.default_rng(0).normal(size=2000)
    score = lambda ids, logits: prior[ids] - np.logaddexp(0, -logits)
    hits, expected = index.search(query, 10, score=score), score(np.arange(2000), brute_force(scorer, query, pooled))
    np.testing.assert_array_equal(hits.ids, ranked(expected, 10))
    np.testing.assert_allclose(hits.scores, expected[hits.ids], atol=1e-5)
    with np.errstate(invalid="raise"):
        left_out = index.search(query, 2000, score=lambda ids, logits: np.where(ids % 2 == 0, logits, -np.inf))
    assert (left_out.ids[:1000] % 2 == 0).all() and np.isneginf(left_out.scores[1000:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(dtype, bad):
    scorer, pooled = made_up_scorer(), made_up_pooled(5000)
    index = pair_index(scorer, pooled, dtype)
    pooled[4321, 3] = bad
    with pytest.raises(ValueError, match="row 4321 of pooled"):
        pair_index(scorer, pooled, dtype)
    with pytest.raises(ValueError, match="NaN or infinite"):
        index.search(pooled[4321])


@pytest.mark.parametrize("asked, message", [
    ({"top_k": 0}, "top_k=0"), ({"among": [-1]}, "ids from -1"), ({"among": [0, 40]}, "there are 40"),
    ({"among": np.ones(39, bool)}, r"mask of shape \(39,\) for 40"), ({"pooled": np.zeros(23)}, "wants rows of 24")])
def test_what_can_not_be_searched_is_said(asked, message):
    index = pair_index(made_up_scorer(), made_up_pooled(40))
    with pytest.raises(ValueError, match=message):
        index.search(**({"pooled": np.zeros(24)} | asked))


def test_an_unknown_kind_of_numbers_is_said():
    with pytest.raises(ValueError, match="dtype='float16'"):
        pair_index(made_up_scorer(), made_up_pooled(3), "float16")


# --- threads

def test_many_threads_find_the_same(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 64)
    scorer, pooled = made_up_scorer(), made_up_pooled(2000)
    index = pair_index(scorer, pooled, "int8")
    queries, threads = made_up_pooled(20, seed=1), torch.get_num_threads()
    try:
        found = []
        for n in (1, 4):
            torch.set_num_threads(n)
            found.append([index.search(query).ids.tolist() for query in queries])
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_an_error_in_a_thread_is_raised():
    def fail(ids):
        raise RuntimeError("seen")
    with pytest.raises(RuntimeError, match="seen"):
        in_threads(fail, np.arange(3 * CHUNK), 2)


# --- machine code

@pytest.mark.parametrize("h, d", list(product([0, 1, 15, 16, 17, 63, 64, 65, 130], [0, 1, 16, 79, 128])))
def test_every_width_is_added_up_to_the_last_number(h, d):
    "Of small whole numbers, so that every order of adding gives the same."
    rng = np.random.default_rng(h + 1000 * d)
    draw = lambda *shape: rng.integers(-9, 10, shape).astype(np.float32)
    queries, gallery, w, ids = [draw(3, n) for n in (h, h, d)], [draw(20, n) for n in (h, h, d)], draw(h), np.array([3, 19, 0, 7])
    (q0, q1, q2), (g0, g1, g2) = ([x[:, None] for x in queries], [x[ids] for x in gallery])
    expected = (np.maximum(q0 + g1, 0) * w).sum(-1) + (np.maximum(q1 + g0, 0) * w).sum(-1) + 5 * (q2 * g2).sum(-1) - 2
    np.testing.assert_array_equal(row_logits(queries, gallery, ids, w, np.float32(5), np.float32(-2)), expected)
    codes = rng.integers(0, 256, (20, h + d), np.uint8)
    cut, weight, slope = rng.integers(0, 255 * PARTS + 1, h, np.int16), rng.integers(-99, 100, h, np.int16), rng.integers(-99, 100, d, np.int16)
    wide = codes.astype(np.int64)
    sums = np.array([kernels.code_sums(row, cut, weight, slope, row) for row in codes])
    np.testing.assert_array_equal(sums, np.stack([(np.maximum(wide[:, :h] * PARTS, cut) * weight).sum(1), (wide[:, h:] * slope).sum(1)], 1))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_of_bytes_are_exact(sign):
    "As large as 32 bits hold, of as large numbers as there may be."
    weight = np.zeros(256, np.int16)
    weight[[0, 40, 255]] = sign * 21931
    slope = np.full(320, -sign * 26317, np.int16)
    codes, cut = np.full((1, 576), 255, np.uint8), np.full(256, 255 * PARTS, np.int16)
    hidden, dot = kernels.code_sums(codes[0], cut, weight, slope, codes[0])
    assert hidden == 255 * PARTS * weight.sum(dtype=np.int64) and dot == 255 * slope.sum(dtype=np.int64)
    assert abs(int(hidden)) > .999 * LARGEST and abs(int(dot)) > .999 * LARGEST


def test_how_far_ahead_rows_are_fetched_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(chunks, "ahead_file", lambda: tmp_path / "ahead.json")
    monkeypatch.setattr(chunks, "CHUNK", 64)
    scorer, pooled = made_up_scorer(nf=40, h=70), made_up_pooled(500, nf=40)
    query, found = made_up_pooled(1, nf=40, seed=1)[0], []
    monkeypatch.setattr(pair_search, "PLAIN_BELOW", 0)
    for distance in (chunks.USUAL, *chunks.OTHERS, 10**9):
        for loop in ("floats_ahead", "bytes_ahead"):
            ahead = chunks.Ahead(loop)
            ahead.chosen = distance
            monkeypatch.setattr(kernels, loop, ahead)
        index = pair_index(scorer, pooled, "int8")
        found.append([index.logits(query), index.logits(query, among=np.arange(0, 500, 9)), *bounds(index, query), index.search(query, 20).ids])
    for one in found[1:]:
        for a, b in zip(found[0], one): np.testing.assert_array_equal(a, b)
    monkeypatch.setattr(chunks, "TELLING", 64)
    for loop in ("floats_ahead", "bytes_ahead"): monkeypatch.setattr(kernels, loop, chunks.Ahead(loop))
    for _ in range(12): np.testing.assert_array_equal(index.search(query, 20).ids, found[0][-1]) # while it is tried
    assert kernels.bytes_ahead.chosen is not None and "bytes_ahead" in chunks.ahead_file().read_text()


def test_rows_that_do_not_lie_side_by_side_are_refused():
    rows = np.zeros((10, 32), np.float32)[:, ::2]
    with pytest.raises(Exception, match="side by side"):
        row_logits([rows[:1]] * 3, [rows] * 3, np.arange(10), np.zeros(16, np.float32), np.float32(1), np.float32(0))


def test_where_nothing_can_be_kept_the_loops_are_compiled_all_the_same(monkeypatch):
    def no_folder(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)
    real = kernels.njit
    monkeypatch.setattr(kernels, "njit", no_folder)
    assert kernels.compiled(lambda x: x + 1)(2) == 3


def test_a_small_search_does_without_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "image_similarity.scoring.kernels", None) # may not be imported
    index = pair_index(made_up_scorer(), made_up_pooled(100))
    assert len(index.search(made_up_pooled(1)[0])) == 10
    monkeypatch.setattr(pair_search, "PLAIN_BELOW", 100)
    with pytest.raises(ImportError):
        index.search(made_up_pooled(1)[0])


def test_a_row_is_the_same_to_the_last_bit_in_any_block_on_any_number_of_threads():
    scorer, pooled, threads = made_up_scorer(nf=640, h=128), made_up_pooled(1500, nf=640), torch.get_num_threads()
    whole = item_rows(scorer, pooled)
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            for some in (np.arange(1500) % 4 == 1, np.arange(1500) < 37, np.arange(1500) == 17):
                for of_all, of_part in zip(whole, item_rows(scorer, pooled[some])): np.testing.assert_array_equal(of_all[some], of_part)
    finally: torch.set_num_threads(threads)
