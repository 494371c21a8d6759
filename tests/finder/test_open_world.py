"A search in a world that holds more than the model learned: across learners, gallery, finder and folder."
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import few_pairs
from image_similarity.drawing.pets import sample_pets
from image_similarity.encoders.encoder import create_encoder, embed
from image_similarity.finder.evaluation import ask, part_of
from image_similarity.finder.finder import SimilarityFinder
from image_similarity.gallery.gallery import Gallery
from image_similarity.images.datasets import LabelledImages
from image_similarity.images.listing import image_files, label_func
from image_similarity.learners.classifier import classifier_learner
from image_similarity.learners.siamese import siamese_learner
from image_similarity.scoring.open_world import Again

NEW = 2  # breeds that the model does not learn


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "Eight drawn breeds, six of them learned, all in the gallery."

    files = image_files(sample_pets(tmp_path_factory.mktemp("world") / "pets", n_breeds=8, n_per_breed=10, size=96) / "images")
    labels = np.array([label_func(f) for f in files])
    encoder, names = create_encoder(size=96), np.unique(labels)
    embedded, new = embed(files, encoder, augment=1, progress=False), np.isin(labels, names[:NEW])
    held = np.arange(len(files)) % 10 >= 7
    learned = np.flatnonzero(~new & ~held)
    data = LabelledImages([files[i] for i in learned], list(labels[learned]), np.zeros(len(learned), bool))
    with pytest.MonkeyPatch.context() as patch:
        few_pairs(patch)
        clearn = classifier_learner(data, encoder, part_of(embedded, learned), progress=False)
        slearn = siamese_learner(data, encoder, part_of(embedded, learned), epochs=3, progress=False)
    shown = np.flatnonzero(~held)
    finder = SimilarityFinder(clearn, slearn, [files[i] for i in shown], list(labels[shown]), part_of(embedded, shown))
    return SimpleNamespace(finder=finder, files=files, labels=labels, embedded=embedded, held=held, new=new, clearn=clearn, slearn=slearn, encoder=encoder)


def recall(world, rows, **options) -> float:
    return float(np.mean([world.finder.search(world.files[i], 1, pooled=world.embedded.pooled[i], **options)[0].label == world.labels[i] for i in rows]))


def test_the_default_search_finds_classes_that_were_not_learned(world):
    rows = np.flatnonzero(world.held & world.new)
    assert recall(world, rows) >= recall(world, rows, candidates="all") - .35 > 0


def test_items_without_a_label_are_found_as_well(world):
    rows = np.flatnonzero(world.held & world.new)
    shown = np.flatnonzero(~world.held)
    gallery = Gallery(encoder=world.encoder)
    gallery.import_embeddings([world.files[i] for i in shown], world.embedded.pooled[shown], [None if world.new[i] else world.labels[i] for i in shown])
    finder, truth = SimilarityFinder(world.clearn, world.slearn, gallery), dict(zip(world.files, world.labels))
    found = [finder.search(world.files[i], 1, pooled=world.embedded.pooled[i])[0] for i in rows]
    assert np.mean([truth[r.path] == world.labels[i] for r, i in zip(found, rows)]) > .3


def test_a_gallery_of_trained_classes_is_ranked_by_class_and_pair(world):
    shown = np.flatnonzero(~world.held & ~world.new)
    gallery = Gallery(encoder=world.encoder)
    gallery.import_embeddings([world.files[i] for i in shown], world.embedded.pooled[shown], world.labels[shown].tolist())
    finder, query = SimilarityFinder(world.clearn, world.slearn, gallery), int(np.flatnonzero(world.held)[0])
    vector, items = torch.from_numpy(world.embedded.pooled[[query]]), torch.from_numpy(world.embedded.pooled[shown])
    posterior = finder.classes.log_posterior(vector)[0][[finder.classes.labels.index(label) for label in world.labels[shown]]]
    scores = (posterior + torch.nn.functional.logsigmoid(finder.scorer.logits(finder.scorer.rows(vector), finder.scorer.rows(items))[0])).numpy()
    found = finder.search(world.files[query], 5, pooled=world.embedded.pooled[query])
    np.testing.assert_allclose([r.score for r in found], np.sort(scores)[::-1][:5], atol=1e-4)


def test_probabilities_are_of_this_gallery_and_of_the_pair(world):
    query = int(np.flatnonzero(world.held & ~world.new)[0])
    for found in world.finder.search(world.files[query], 5, pooled=world.embedded.pooled[query]):
        assert 0 < found.pair_probability < 1 and (found.probability is None) == (found.reason is not None)
        logit = world.finder.pair_logits(torch.from_numpy(world.embedded.pooled[[query]]), torch.from_numpy(world.embedded.pooled[[world.files.index(found.path)]]))
        assert found.pair_probability == pytest.approx(float(logit.sigmoid()), abs=1e-4)


@pytest.mark.parametrize("again", [Again("expansion", 2., 3), Again("reciprocal", 5., 4)])
def test_looking_again_ranks_new_classes_by_what_their_pictures_say_of_each_other(world, again):
    shown, query, names = np.flatnonzero(~world.held & world.new), int(np.flatnonzero(world.held & world.new)[0]), sorted(set(world.labels[world.new]))
    finder = SimilarityFinder(world.clearn, world.slearn, world.finder.gallery)
    finder.model = replace(finder.model, world=replace(finder.model.world, again=again))
    rows = finder.scorer.rows(torch.from_numpy(world.embedded.pooled[[query, *shown]]))
    table = finder.scorer.logits(rows, rows).numpy()
    scores = table[0, 1:] + finder.model.world.cosine * (rows.unit[0] @ rows.unit[1:].T).numpy()
    if again.kind == "expansion": # the slow twin
        first = sorted(range(len(shown)), key=lambda i: -scores[i])[:3]
        said = lambda i, j: table[1 + i, 1 + j] if i != j else max(table[1 + i, 1 + k] for k in range(len(shown)) if k != i)
        scores = [scores[j] + 2 * sum(said(i, j) for i in first) / 3 for j in range(len(shown))]
    else:
        table = table.copy()
        table[0, 1:] = table[1:, 0] = scores
        close = [set(sorted(set(range(len(table))) - {i}, key=lambda j: -table[i, j])[:4]) | {i} for i in range(len(table))]
        mutual = [{j for j in close[i] if i in close[j]} for i in range(len(table))]
        scores = [scores[j] + 5 * len(mutual[0] & mutual[j + 1]) / len(mutual[0] | mutual[j + 1]) for j in range(len(shown))]
    found = finder.search(world.files[query], 5, where={"label": names}, pooled=world.embedded.pooled[query])
    assert [r.path for r in found] == [world.files[shown[i]] for i in sorted(range(len(shown)), key=lambda i: -scores[i])[:5]]
    assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)
    asked = np.flatnonzero(world.held)[::3]  # what is measured is what is found
    answers = ask(finder, LabelledImages([world.files[i] for i in asked], list(world.labels[asked]), np.ones(len(asked), bool)), part_of(world.embedded, asked))
    for i, scores in zip(asked, answers.scores):
        whole = finder.search(world.files[i], len(finder), pooled=world.embedded.pooled[i])
        assert [finder.files[row] for row in np.argsort(-scores, kind="stable")] == [r.path for r in whole]


def test_what_is_unlike_anything_is_doubted(world):
    noise = np.random.default_rng(0).random((128, 128, 3))
    vector = embed([(noise * 255).astype(np.uint8)], world.encoder, progress=False).pooled[0]
    found = world.finder.search(b"", 3, pooled=vector)
    assert found.predicted[0] is None and found.predicted[1] > .5
    assert {r.probability for r in found} == {None} and "unlike anything" in found[0].reason
    assert world.finder.model.world.empty <= world.finder.model.world.far


def test_a_set_covers_and_says_what_it_promises(world):
    rows = np.flatnonzero(world.held)
    world.finder.calibrate(world.embedded.pooled[rows], world.labels[rows].tolist())
    sets = [world.finder.search(b"", pooled=world.embedded.pooled[i], coverage=.6) for i in rows]
    assert np.mean([any(r.label == world.labels[i] for r in found) for i, found in zip(rows, sets)]) >= .6 # calibrated on the same ones
    assert all(len({r.label for r in found}) == len(found) for found in sets) # one of each class
    assert "60%" in sets[0].coverage and "estimate" in sets[0].coverage # six classes are few
    filtered = world.finder.search(b"", pooled=world.embedded.pooled[rows[0]], coverage=.6, where={"label": world.labels[rows[0]]})
    assert "not those it was calibrated on" in filtered.coverage
    with pytest.raises(ValueError, match="coverage=1.5"): world.finder.search(b"", pooled=world.embedded.pooled[rows[0]], coverage=1.5)


def test_saved_and_loaded_it_says_the_same_and_older_folders_load(world, tmp_path):
    query = int(np.flatnonzero(world.held)[0])
    folder, ask = world.finder.save(tmp_path / "model"), lambda finder: [(r.path, r.probability) for r in finder.search(world.files[query], 4, pooled=world.embedded.pooled[query])]
    again = SimilarityFinder.load(folder)
    assert again.model.world == world.finder.model.world
    assert [p for p, _ in ask(again)] == [p for p, _ in ask(world.finder)]
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({name: value for name, value in manifest.items() if name != "open_world"}))
    older = SimilarityFinder.load(folder).search(world.files[query], 4, pooled=world.embedded.pooled[query])
    assert {r.probability for r in older} == {None} and "calibrated" in older[0].reason and older[0].pair_probability is not None


def test_the_maps_explain_the_siamese_part_and_the_rest_is_named(world):
    finder = world.finder
    finder.model = replace(finder.model, world=replace(finder.model.world, agreement=1., sure=1.)) # whatever was chosen
    query = int(np.flatnonzero(world.held & ~world.new)[0])
    others = [r for r in finder.search(world.files[query], 60, candidates="all") if r.label in finder.classes.labels and r.label != world.labels[query]]
    whys = [finder.explain(result) for result in others[-3:]]
    why = min(whys, key=lambda why: why.agreement)
    assert why.agreement < 0 and why.probability == pytest.approx(1 / (1 + np.exp(-(why.logit + why.agreement))), abs=1e-6)
    assert "class agreement" in repr(why)


def test_too_few_classes_are_said(small):
    found = small.finder.search(small.query, 2)
    assert found[0].probability is None and "five" in found[0].reason and found[0].pair_probability is not None
    with pytest.raises(ValueError, match="five"): small.finder.search(small.query, coverage=.9)


@pytest.mark.parametrize("pictures", [1, 2])
def test_few_pictures_train(pictures, world, few):
    rows = np.concatenate([np.flatnonzero(world.labels == name)[:pictures] for name in np.unique(world.labels)])
    data = LabelledImages([world.files[i] for i in rows], list(world.labels[rows]), np.zeros(len(rows), bool))
    embedded = part_of(world.embedded, rows)
    if pictures == 1:
        with pytest.warns(UserWarning, match="not calibrated"): clearn = classifier_learner(data, world.encoder, embedded, progress=False)
        with pytest.warns(UserWarning, match="single image"): siamese_learner(data, world.encoder, embedded, epochs=1, progress=False)
        assert not clearn.choice.calibrated
    else:
        clearn = classifier_learner(data, world.encoder, embedded, progress=False)
        siamese_learner(data, world.encoder, embedded, epochs=1, progress=False)
        assert clearn.choice.calibrated


def test_one_class_is_refused_before_anything_is_read(tmp_path):
    data = LabelledImages([tmp_path / "not there.jpg"], ["a"], np.zeros(1, bool))
    for make in (classifier_learner, siamese_learner):
        with pytest.raises(ValueError, match="only one class"): make(data)
