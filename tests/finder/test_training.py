"The encoder itself learns: what is kept of it, and that a model made so is one like any other."
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from image_similarity.encoders.encoder import create_encoder, embed, fingerprint
from image_similarity.finder import SimilarityFinder
from image_similarity.finder.evaluation import evaluate
from image_similarity.finder.training import fit_finder
from image_similarity.gallery.gallery import Gallery
from image_similarity.images.datasets import LabelledImages
from image_similarity.learners import encoder_tuning
from image_similarity.learners.encoder_tuning import HeldOut, Tuning, fit_encoder, held_out_inside, learned_encoder, learner_to_tune


def shaken(encoder, seed=0):
    "An encoder whose weights somebody shook, so that there is something to learn."
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.ndim == 4: weight.mul_(1 + .5 * torch.randn(weight.shape, generator=noise))
    return encoder


@pytest.fixture(scope="module")
def tiny(small):
    "The small pets at 64 pixels, by an encoder that was shaken."
    encoder = shaken(create_encoder(size=64))
    look = lambda by: embed(small.data.files, by, augment=1, progress=False)
    return SimpleNamespace(data=small.data, encoder=encoder, look=look, embedded=look(encoder))


def same_answers(finder, loaded, data):
    "Whether a model answers as it did before it was saved."
    assert fingerprint(loaded.encoder) == fingerprint(finder.encoder)
    for query in [data.files[i] for i in data.valid[:3]]:
        found, again = finder.search(query, 5), loaded.search(query, 5)
        assert [r.pair_probability for r in again] == pytest.approx([r.pair_probability for r in found], abs=1e-4)
        assert [r.score for r in again] == pytest.approx([r.score for r in found], abs=1e-3)
        assert loaded.predicted_class(query)[1] == pytest.approx(finder.predicted_class(query)[1], abs=1e-4)


@pytest.mark.parametrize("loss", [pytest.param(loss, marks=[pytest.mark.soak] * (loss != "arcface")) for loss in encoder_tuning.LOSSES])
def test_a_model_whose_encoder_learned_by_a_loss_is_one_like_any_other(small, few, loss, tmp_path):
    encoder = create_encoder(size=64)
    before = fingerprint(encoder)
    finder, data, embedded = fit_finder(small.data, encoder, augment=1, tuning=Tuning(loss), epochs=1)
    assert fingerprint(encoder) == before != fingerprint(finder.encoder)
    loaded = SimilarityFinder.load(finder.save(tmp_path / "model"))
    same_answers(finder, loaded, data)
    figures, again = (evaluate(f, data, e, n_resamples=10, progress=False) for f, e in ((finder, embedded), (loaded, None)))
    for name in figures: assert again[name].value == pytest.approx(figures[name].value, abs=.02)
    new = [data.files[i] for i in data.valid]
    assert Gallery(tmp_path / "model").add(new, progress=False).new == len(new) # the encoder is found with the gallery
    with pytest.raises(ValueError, match="fingerprint"): Gallery(tmp_path / "model", encoder)
    assert loaded.explain(loaded.search(new[0], 1)[0]).query_map.ndim == 2


def test_an_encoder_that_learned_end_to_end_is_kept_only_where_held_out_pictures_say_so(tiny, few, monkeypatch):
    # whatever training makes of it: where the figures say no, the first one stays; where they say yes, the new one comes
    answers = {True: (HeldOut(.9, 1.), HeldOut(.8, 1.)), False: (HeldOut(.9, .5), HeldOut(.8, .6))}
    for better, (new, old) in answers.items():
        said = iter((new, old))
        monkeypatch.setattr(encoder_tuning, "held_out_figures", lambda *_: next(said))  # noqa: B023 (called at once)
        monkeypatch.setattr(encoder_tuning, "held_out_ranking", lambda encoder, held, looks=[0]: looks.append(1) or len(looks))  # noqa: B006 (counts: each look finds better weights)
        learned = learned_encoder(tiny.data, tiny.encoder, tiny.embedded, Tuning(epochs=1), tiny.look, shown=False)
        assert (fingerprint(learned.encoder) != fingerprint(tiny.encoder), "not kept" in learned.said) == (better, not better), learned.said


def test_figures_decide_by_pairs_and_classes():
    assert HeldOut(.9, .8).beats(HeldOut(.8, .8)) and not HeldOut(.9, .7).beats(HeldOut(.8, .8)) and not HeldOut(.8, .9).beats(HeldOut(.8, .8))


@pytest.mark.soak
def test_nothing_that_is_held_out_for_the_end_takes_part(tiny, few, monkeypatch):
    seen = []
    def watched(data, *rest):
        seen.extend(data.files)
        return learner_to_tune(data, *rest)
    monkeypatch.setattr(encoder_tuning, "learner_to_tune", watched)
    ranked = encoder_tuning.held_out_ranking
    monkeypatch.setattr(encoder_tuning, "held_out_ranking", lambda encoder, held: seen.extend(held.files) or ranked(encoder, held))
    for loss in (None, "triplet"): learned_encoder(tiny.data, tiny.encoder, tiny.embedded, Tuning(loss, 1), tiny.look, shown=False)
    assert not {*seen} & {tiny.data.files[i] for i in tiny.data.valid}
    assert {*seen} == {tiny.data.files[i] for i in tiny.data.train}


def test_time_is_up_between_batches_and_what_was_learned_counts(tiny, few):
    part = tiny.data.take(tiny.data.train)
    held = held_out_inside(part.labels)
    all_of_it = LabelledImages(part.files, part.labels, np.zeros(len(part), bool))
    learn, current = learner_to_tune(all_of_it, tiny.encoder, encoder_tuning._some(tiny.embedded, tiny.data.train), Tuning(epochs=50))
    shares = []
    fit_encoder(learn, current, part.take(held), Tuning(epochs=50), time.monotonic() - 1, shares.append)
    assert shares == [1 / (50 * len(learn.dls.train))] # one batch
    told = []
    fit_encoder(learn, current, part.take(held), Tuning(epochs=2), None, told.append)
    assert told == pytest.approx([(i + 1) / (2 * len(learn.dls.train)) for i in range(2 * len(learn.dls.train))])


def test_a_few_pictures_are_not_too_few_to_train(tiny, few):
    chosen = [i for i in tiny.data.train if sum(tiny.data.labels[j] == tiny.data.labels[i] for j in tiny.data.train[:list(tiny.data.train).index(i)]) < 3]
    data = tiny.data.take(chosen)
    assert len(data) == 12
    embedded = encoder_tuning._some(tiny.embedded, np.array(chosen))
    learned = learned_encoder(data, tiny.encoder, embedded, Tuning(epochs=1), lambda by: embed(data.files, by, augment=1, progress=False), shown=False)
    assert learned.said.startswith(("fine-tuned", "not fine-tuned: there are too few"))
