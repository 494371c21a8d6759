"""benchmarks/seed_loop.py: the article's loop, picture by picture, gives what `SimilarityFinder.predict` gives."""

import numpy as np
import pytest
import torch

from image_similarity.images.datasets import labelled_images
from image_similarity.drawing.pets import sample_pets
from image_similarity.encoders.encoder import create_encoder


@pytest.fixture(scope="module")
def script(benchmark_script): return benchmark_script("seed_loop")


@pytest.fixture(scope="module")
def found(script, tmp_path_factory):
    "Both finders on a few drawn pictures, and a query that neither was trained on."
    folder = sample_pets(tmp_path_factory.mktemp("seed_loop") / "pets", n_breeds=2, n_per_breed=6, size=96)
    data = labelled_images(folder / "images", valid_pct=0.34)
    torch.manual_seed(0)
    finders = script.make_finders(data, create_encoder("resnet10t", weights="random", size=96), epochs=1)
    return *finders, [data.files[i] for i in data.valid]


def test_the_loop_and_the_finder_agree(script, found):
    theirs, ours, queries = found
    for query in queries:
        *times, difference = script.compare(theirs, ours, query, compare_n=3)
        assert difference < 1e-5 and min(times) > 0
        assert len(theirs.preds) == 3 and theirs.fns[int(np.argmax(theirs.preds))] == ours.fns[ours.idx]


def test_the_loop_keeps_the_activations_of_both_pictures(found):
    theirs, ours, queries = found
    theirs.predict(queries[0], compare_n=2)
    assert [len(pair) for pair in theirs.acts] == [2, 2]
    ours.predict(queries[0], compare_n=2, show=False)
    for (q, g), (query, match) in zip(theirs.acts, ours.acts):
        torch.testing.assert_close(q[0], query, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(g[0], match, atol=1e-4, rtol=1e-4)
    assert not theirs.slearn.model.encoder._forward_hooks


def test_another_answer_is_noticed(script, found):
    theirs, ours, queries = found
    script.compare(theirs, ours, queries[0], compare_n=3)
    theirs.preds[0] = theirs.preds[0] + 0.25
    assert script.difference(theirs, ours) == pytest.approx(0.25, abs=1e-5)
    theirs.idx = (ours.idx + 1) % 3
    with pytest.raises(AssertionError, match="chose"):
        script.difference(theirs, ours)
