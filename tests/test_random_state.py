"""Whatever this package draws, the random states of Python, numpy and torch, which a whole program shares, are afterwards as they were."""
import hashlib
import pickle
import random
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import few_pairs

from image_similarity import (Gallery, MatchPredictor, ProductMatcher, SimilarityFinder, bootstrap_interval, classifier_learner, create_encoder, embed,
                              embedding_learner, evaluate, find_duplicates, fit_calibration, fit_finder, image_bootstrap, labelled_images,
                              mine_hard_negatives, pair_index, pair_maps, sample_pets, siamese_learner)
from image_similarity.encoders.random_state import random_state


def states() -> tuple[str, str, str]:
    "A mark of each of the three."
    drawn_from = pickle.dumps(random.getstate()), pickle.dumps(np.random.get_state()), torch.get_rng_state().numpy().tobytes() # noqa: NPY002
    return tuple(hashlib.sha256(state).hexdigest() for state in drawn_from)


@contextmanager
def undisturbed():
    "Complains of what moves one of the states."
    before = states()
    yield
    moved = [name for name, old, new in zip(("Python", "numpy", "torch"), before, states()) if old != new]
    assert not moved, f"the random state of {' and '.join(moved)} has moved"


@pytest.fixture(autouse=True)
def own_state():
    "Each test begins in a state of its own, and leaves none to the next."
    with random_state(1234): yield


@pytest.fixture(scope="module", autouse=True)
def quick_training():
    "A few pairs will do."
    from image_similarity.matching import image_head, image_training
    with pytest.MonkeyPatch.context() as patch:
        few_pairs(patch)
        patch.setattr(image_head, "drawn_batches", partial(image_head.drawn_batches, n_batches=2, n_pairs=64))
        patch.setattr(image_training, "REFINEMENTS", (None, 0, 5))
        yield


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(1)], ids=["Python", "numpy", "torch"])
def test_a_state_that_moves_is_noticed(draw):
    with pytest.raises(AssertionError, match="has moved"), undisturbed(): draw()


def test_encoders_and_what_they_see(small):
    with undisturbed():
        one, same, other = (create_encoder("mobilenetv3_small_050", "random", 64, seed) for seed in (0, 0, 1))
        create_encoder("mobilenetv3_small_050", "random", 64)
        create_encoder(size=96)
        embed(small.data.files[:4], one, augment=2, progress=False)
    first = [next(encoder.parameters()) for encoder in (one, same, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


def test_drawing_and_data(tmp_path):
    with undisturbed():
        data = labelled_images(sample_pets(tmp_path / "pets", n_breeds=2, n_per_breed=2, size=64) / "images", valid_pct=.5)
        data.show(rows=1, columns=2)


@pytest.mark.parametrize("make", [classifier_learner, partial(siamese_learner, calibrated=True), embedding_learner,
                                  partial(embedding_learner, loss="arcface"), partial(embedding_learner, loss="triplet", miner="offline")],
                         ids=["classifier", "Siamese", "contrastive", "arcface", "offline"])
def test_learners_are_fitted_and_depend_on_their_seed_only(small, make):
    weights = []
    for state in (1, 2):
        with random_state(state), undisturbed():
            learn = make(small.data, encoder=small.encoder, embedded=small.embedded, epochs=1, progress=False)
        weights.append([p.detach() for p in learn.model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*weights))


@pytest.mark.soak
def test_deep_ranking_and_digits(small):
    from image_similarity.learners.digit_pairs import digit_learner
    from image_similarity.learners.digits import embedded_digits
    with undisturbed(): embedding_learner(small.data, encoder=small.encoder, loss="deep_ranking", augment=0, epochs=1, progress=False)
    with undisturbed(): digit_learner(embedded_digits().part(slice(0, 200)), epochs=1, width=4, progress=False)


@pytest.mark.long
def test_a_finder_from_pictures_to_answers(small, tmp_path):
    with undisturbed(): finder = fit_finder(labelled_images(small.images, valid_pct=.25), small.encoder, augment=1, epochs=1).finder
    with undisturbed():
        results = finder.search(small.query)
        finder.explain(results[0])
        finder.predict(small.query, show=False)
        pair_maps(small.encoder, finder.scorer, small.query, results[0].path)
        evaluate(finder, small.data, small.embedded, n_resamples=20, progress=False)
        finder.save(tmp_path / "model")
        loaded = SimilarityFinder.load(tmp_path / "model")
        assert loaded.clearn is not None and loaded.slearn is not None # built again
        loaded.slearn.siampredict((small.query, results[0].path))


def test_a_gallery_its_copies_and_its_clusters(small, tmp_path):
    with undisturbed():
        gallery = Gallery(tmp_path / "gallery", small.encoder)
        gallery.add(small.images, labels="name", progress=False)
        gallery.search(small.query)
        find_duplicates(small.data.files, progress=False)
        gallery.clusters(min_size=3)
        mine_hard_negatives(gallery)
        pair_index(small.finder.scorer, gallery.pooled)
        gallery.close()


def test_figures():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=200)
    match = logits + rng.normal(size=200) > 0
    with undisturbed():
        fit_calibration(logits, match)
        bootstrap_interval(lambda drawn: logits[drawn].mean(), 200, 50)
        image_bootstrap(np.stack(np.triu_indices(21, 1), 1)[:200], lambda weight: float((logits * weight).sum()), 21, 50)


@pytest.mark.long
def test_a_match_predictor(small):
    i, j = np.triu_indices(len(small.data), 1)
    names, labels = np.array(small.data.files, dtype=str), np.array(small.data.labels)
    table = pd.DataFrame({"a": names[i], "b": names[j], "same": (labels[i] == labels[j]).astype(int)})
    with undisturbed():
        predictor = MatchPredictor(query="a", response="b", label="same", hyperparameters={"augment": 1, "epochs": 1})
        predictor.fit(table, progress=False)
        predictor.predict_proba(table[:5])


def test_texts(small):
    pytest.importorskip("sentence_transformers", reason="needs the extra [text]")
    from image_similarity import ConSEEncoder
    titles = [f"{label} No. {n}" for n, label in enumerate(small.data.labels)]
    products = pd.DataFrame({"image": list(map(str, small.data.files)), "title": titles, "sku": titles})
    with undisturbed():
        ConSEEncoder().encode_texts(["a cat"])
        ProductMatcher(encoder=small.encoder).fit(products, products.sample(frac=1, random_state=0), "sku", progress=False)
