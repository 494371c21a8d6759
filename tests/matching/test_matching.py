"`MatchPredictor`: tables in, right answers or clear errors out."
import copy
import json
import re
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from image_similarity.matching import image_fit
from image_similarity.matching import image_training as pair_training
from image_similarity.matching import image_tuning as pair_tuning
from image_similarity.images.datasets import draw_pairs, labelled_images
from image_similarity.drawing.pets import sample_pets
from image_similarity.encoders.adapting import batch_norms
from image_similarity.encoders.encoder import create_encoder, embed, fingerprint
from image_similarity.matching.image_items import ImageItems
from image_similarity.matching.search import semantic_search
from image_similarity.matching.predictor import MatchPredictor
from image_similarity.metrics.pairs import pair_auc
from image_similarity.matching.image_fit import fold_leaks
from image_similarity.matching.groups import PairSource, contradictions, item_folds, match_groups
from image_similarity.matching.leaks import item_contents, leak_check
from image_similarity.matching.pairs import BadRows, MatchLabels, Pairs, read_pairs
from image_similarity.matching.settings import ImageSettings

pytestmark = pytest.mark.usefixtures("fewer_pairs")
QUICK = {"augment": 1, "epochs": 2, "adapt": False} # what batch norms that saw the pictures are good for has a test of its own, and the AutoMM code leaves it as it is


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "Drawn pets: ten breeds, eight pictures of each."
    return labelled_images(sample_pets(tmp_path_factory.mktemp("pairs") / "pets", n_breeds=10, n_per_breed=8, size=64) / "images", valid_pct=0)


def table_of(data, classes, n, seed=0):
    "Labelled pairs of some breeds, by the names of their files."
    own, names = np.flatnonzero(np.isin(data.targets, classes)), np.array([f.name for f in data.files])
    i, j = (own[k] for k in draw_pairs(data.targets[own], n, seed))
    return pd.DataFrame({"Image1": names[i], "Image2": names[j], "Label": (data.targets[i] == data.targets[j]).astype(int)})


@pytest.fixture(scope="module")
def train(data): return table_of(data, range(7), 300)


@pytest.fixture(scope="module")
def test(data): return table_of(data, range(7, 10), 60)


@pytest.fixture(scope="module")
def encoder():
    "The one in use: of an encoder that has learned nothing, held-out breeds are told apart by luck alone."
    return create_encoder(size=64)


@pytest.fixture(scope="module")
def looked(encoder):
    "What reads pictures for most predictors here, so that each picture is read once."
    return ImageItems(encoder)


@pytest.fixture
def new(data, encoder, looked):
    "Makes predictors; an `unread` one has not seen any picture."
    def make(unread=False, **changes):
        arguments = {"query": "Image1", "response": "Image2", "label": "Label", "base_folder": data.files[0].parent, "hyperparameters": QUICK}
        predictor = MatchPredictor(**arguments | changes)
        predictor.matcher.pretrained = ImageItems(encoder) if unread else looked
        return predictor
    return make


@pytest.fixture(scope="module")
def fitted(data, train, encoder):
    predictor = MatchPredictor("Image1", "Image2", "Label", base_folder=data.files[0].parent, hyperparameters=QUICK)
    predictor.matcher.pretrained = ImageItems(encoder) # the order in which pictures were read decides about folds
    return predictor.fit(train, progress=False)


# --- the tutorial

def test_the_tutorial_runs_and_its_types_are_right(fitted, test):
    score = fitted.evaluate(test)
    assert list(score) == ["auc"] and 0 <= score["auc"] <= 1
    pred, proba = fitted.predict(test.head(3)), fitted.predict_proba(test.head(3))
    assert isinstance(pred, pd.Series) and pred.name == "Label" and list(pred.index) == list(test.index[:3]) and set(pred) <= {0, 1}
    assert isinstance(proba, pd.DataFrame) and list(proba.columns) == [0, 1]
    embeddings = fitted.extract_embedding({"Image1": test["Image1"][:5].tolist()})
    assert embeddings.shape == (5, fitted.column.encoder.nf) and isinstance(embeddings, np.ndarray)


def test_absolute_paths_a_dict_and_a_csv_give_the_same(fitted, test, data, tmp_path):
    expected = fitted.predict_proba(test)[1].to_numpy()
    absolute = test.assign(**{c: [str(data.files[0].parent / name) for name in test[c]] for c in ("Image1", "Image2")})
    test.to_csv(tmp_path / "test.csv", index=False)
    for given in (absolute, test.to_dict("list"), tmp_path / "test.csv", str(tmp_path / "test.csv")):
        assert np.allclose(np.asarray(fitted.predict_proba(given))[:, 1], expected, atol=1e-6)


def test_the_index_and_the_words_of_the_labels_are_kept(new, train, test):
    words = {1: "same", 0: "another"}
    predictor = new(match_label="same").fit(train.assign(Label=train["Label"].map(words)), progress=False)
    asked = test.assign(Label=test["Label"].map(words)).set_index(pd.Index([f"r{i}" for i in range(len(test))]))
    pred, proba = predictor.predict(asked), predictor.predict_proba(asked)
    assert list(pred.index) == list(asked.index) and set(pred) <= {"same", "another"}
    assert list(proba.columns) == ["another", "same"]
    assert ((proba["same"] >= 1 / (1 + np.exp(-predictor.model.threshold))) == (pred == "same")).all()
    assert predictor.evaluate(asked)["auc"] == pytest.approx(pair_auc(proba["same"], asked["Label"] == "same"))


def test_several_images_in_a_cell_are_one_thing(fitted, data):
    names = [f.name for f in data.files]
    several = {"Image1": [f"{names[0]};{names[1]}"], "Image2": [names[2]]}
    pooled = embed(data.files[:2], fitted.column.encoder, progress=False).pooled
    nf = fitted.column.encoder.nf
    both = np.concatenate([pooled[:, :nf].max(0), pooled[:, nf:].mean(0)])
    expected = fitted.model.embed(torch.from_numpy(both[None])).numpy()
    assert np.allclose(fitted.extract_embedding(several), expected, atol=1e-4)


def test_ids_stand_for_images(fitted, test):
    mapping = {c: dict(enumerate(test[c])) for c in ("Image1", "Image2")}
    by_id = pd.DataFrame({c: range(len(test)) for c in mapping})
    assert np.allclose(fitted.predict_proba(by_id, id_mappings=mapping), fitted.predict_proba(test))
    assert np.allclose(fitted.predict_proba(by_id, id_mappings={c: pd.Series(m) for c, m in mapping.items()}), fitted.predict_proba(test))


# --- better than AutoMM on purpose

def test_held_out_pairs_share_no_image_with_training_pairs(data):
    targets = data.targets
    i, j = draw_pairs(targets, 400)
    pairs = Pairs([(f,) for f in data.files], i, j, targets[i] == targets[j], np.arange(400), BadRows())
    for kind in ("things", "images"):
        folds = item_folds(match_groups(pairs), [frozenset([str(f)]) for f in data.files], kind, 3, np.random.default_rng(0))
        for fold in range(3):
            assert not leak_check(pairs.within(folds != fold), pairs.within(folds == fold))
            if kind == "things": assert not set(targets[folds == fold]) & set(targets[folds != fold])


def test_the_leak_check_finds_a_copy_under_another_name(new, train, data, capsys):
    folder = data.files[0].parent
    copy = folder / "copy_1.jpg"
    copy.write_bytes((folder / train["Image1"][0]).read_bytes())
    tuning = table_of(data, [7, 8, 9], 60).assign(Image1=lambda t: ["copy_1.jpg", *t["Image1"][1:]])
    try: predictor = new().fit(train, tuning, progress=True)
    finally: copy.unlink()
    assert predictor.leaks.shared.sum() == 1 and "1 of 60 held-out pairs" in capsys.readouterr().err
    assert len(predictor.fitted.match) == 59


def test_the_leak_check_runs_before_every_fit(new, train, capsys):
    predictor = new().fit(train, progress=True)
    assert predictor.leaks.n_held == len(predictor.fitted.match) and not predictor.leaks
    assert f"leak check: {predictor.leaks.n_held:,} held-out pairs share no image" in capsys.readouterr().err


def test_a_leak_between_folds_is_found(data):
    "Folds made by somebody who put two halves of one picture's pairs on both sides."
    i, j = draw_pairs(data.targets, 300)
    pairs = Pairs([(f,) for f in data.files], i, j, data.targets[i] == data.targets[j], np.arange(300), BadRows())
    group, contents = match_groups(pairs), item_contents([(f,) for f in data.files])
    folds = item_folds(group, contents, "images", 3, np.random.default_rng(0))
    splits = pair_training.fold_splits(pairs, folds, group)
    assert not fold_leaks(splits, contents)
    twin = [*contents] # a copy of a held-out picture among the training pictures
    inside, outside = splits[0].first[0], splits[0].train.pairs.first[0]
    twin[outside] = contents[inside]
    found = fold_leaks(splits, twin)
    assert found and found.shared[:len(splits[0].match)].sum() == sum(inside in pair for pair in zip(splits[0].first, splits[0].second))


def test_labels_keep_the_type_that_the_column_had_before_a_cell_was_empty(new, train, test):
    table = train.assign(Label=train["Label"].where(np.arange(len(train)) > 0)) # floats now
    assert table["Label"].dtype == float
    with pytest.warns(UserWarning): predictor = new().fit(table, progress=False)
    assert [type(label) for label in predictor.class_labels] == [int, int] and predictor.predict(test).dtype == test["Label"].dtype


@pytest.mark.long
def test_a_bool_column_stays_bool_whatever_the_match_is_called(new, train, test):
    predictor = new(match_label=1).fit(train.assign(Label=train["Label"] == 1), progress=False)
    assert predictor.class_labels == [False, True] and predictor.predict(test).dtype == bool


def test_probabilities_are_calibrated_on_the_held_out_pairs(fitted):
    "Platt scaling is right on average, for matches and others alike, on the pairs that it was made on."
    logits, match = fitted.fitted.logits, fitted.fitted.match
    p = 1 / (1 + np.exp(-logits))
    weight = np.where(match, .5 / match.mean(), .5 / (~match).mean())
    assert np.average(p, weights=weight) == pytest.approx(.5, abs=.02)


def test_scores_that_tell_nothing_are_said_to(fitted):
    "Scores that are lower for matches get no weight at all; what is left is no model."
    match = np.arange(200) < 80
    scores = np.random.default_rng(0).normal(size=(200, 3)) - match[:, None]
    weights, things = pair_training.weights_of("siamese", scores, match), np.arange(400).reshape(-1, 2)
    assert not weights.any()
    with pytest.raises(ValueError, match="nothing that was learned tells held-out matches from other pairs"): pair_training.calibrated(fitted.model, scores, match, weights, things)
    model, logits, _ = pair_training.calibrated(fitted.model, -scores, match, pair_training.weights_of("siamese", -scores, match), things)
    assert pair_auc(logits, match) == pytest.approx(.89, abs=.03) and min(model.weights) > 0 # three scores, each one off: the normal distribution at (3 / 2) ** .5


def test_the_threshold_is_at_even_odds_unless_another_is_best(fitted):
    logits, match = fitted.fitted.logits, fitted.fitted.match
    def accuracy(t): return ((logits >= t)[match].mean() + (logits < t)[~match].mean()) / 2
    assert fitted.model.threshold == 0 or accuracy(fitted.model.threshold) == pytest.approx(max(map(accuracy, np.unique(logits))))


def test_few_pictures_of_few_things_are_held_out_by_twos_and_the_predictor_says_that_it_cannot_know(new, data):
    few = np.flatnonzero(np.isin(data.targets, range(5)))
    few = np.concatenate([few[data.targets[few] == c][:4] for c in range(5)]) # twenty pictures of five breeds
    names, (i, j) = np.array([f.name for f in data.files]), (few[k] for k in draw_pairs(data.targets[few], 60))
    table = pd.DataFrame({"Image1": names[i], "Image2": names[j], "Label": (data.targets[i] == data.targets[j]).astype(int)})
    with pytest.warns(UserWarning, match=r"only \d+ held-out matches to go by: nobody can know"): predictor = new(hyperparameters=QUICK).fit(table, progress=False)
    assert 0 < predictor.fitted.match.sum() < 50 and len(predictor.fitted.match) == len(predictor.fitted.logits)
    assert predictor.model.weights != (0., 0., 10.) # they are the guess of one that is not calibrated


def test_small_folds_share_no_image_and_hold_matches():
    group = np.repeat(np.arange(5), 4)
    folds = item_folds(group, [frozenset([i]) for i in range(20)], "images", 5, np.random.default_rng(0))
    assert [sorted(np.bincount(folds[group == g], minlength=5)) for g in range(5)] == [[0, 0, 0, 2, 2]] * 5 and set(np.bincount(folds)) == {4}


@pytest.mark.parametrize("prior, precision", [(.2, .3), (.5, .7)])
def test_threshold_reaches_its_precision_for_a_prior(fitted, prior, precision):
    match, p = fitted.fitted.match, 1 / (1 + np.exp(-fitted.fitted.logits))
    called = p >= fitted.threshold(precision, prior)
    hits, wrong = called[match].mean() * prior, called[~match].mean() * (1 - prior)
    assert hits / (hits + wrong) >= precision - 1e-9


def test_an_unreadable_image_is_reported_by_row_and_changes_no_other(fitted, test, data, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(data.files[0].read_bytes()[:300])
    asked = test.head(4).copy()
    asked.loc[asked.index[1], "Image2"], asked.loc[asked.index[2], "Image1"] = str(broken), np.nan
    with pytest.warns(UserWarning, match="2 rows are left out, the first is row"):
        proba = fitted.predict_proba(asked)
    assert {row.row: row.reason.partition(":")[0].endswith(("broken.jpg", "empty")) for row in fitted.bad} == {asked.index[1]: True, asked.index[2]: True}
    assert proba[1].isna().tolist() == [False, True, True, False]
    assert np.allclose(proba.iloc[[0, 3]], fitted.predict_proba(test.head(4)).iloc[[0, 3]])
    with pytest.warns(UserWarning): assert pd.isna(fitted.predict(asked)).tolist() == [False, True, True, False]
    with pytest.warns(UserWarning): figure = fitted.evaluate(asked.assign(Label=[1, 1, 0, 0]), metrics="accuracy")
    assert figure["accuracy"] == np.mean(fitted.predict(test.head(4)).iloc[[0, 3]].to_numpy() == [1, 0])


def test_a_bad_row_is_left_out_of_training(new, train):
    with pytest.warns(UserWarning, match="2 rows are left out, the first is row") as told:
        predictor = new().fit(train.assign(Image1=[*train["Image1"][:5], "gone.jpg", None, *train["Image1"][7:]]), progress=False)
    assert len(predictor.train_pairs) == len(train) - 2
    assert sorted(row.row for row in predictor.bad) == [5, 6] and not any("earlier fits" in str(one.message) for one in told)


def test_before_fit_it_is_the_plain_cosine_and_says_so(new, test, data):
    predictor, place = new(), {f.name: i for i, f in enumerate(data.files)}
    unit = embed(data.files, predictor.column.encoder, progress=False).pooled[:, predictor.column.encoder.nf:]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = [unit[place[a]] @ unit[place[b]] for a, b in zip(test["Image1"], test["Image2"])]
    with pytest.warns(UserWarning, match="not calibrated"): auc = predictor.evaluate(test)["auc"]
    assert auc == pytest.approx(pair_auc(cosine, test["Label"]), abs=1e-6)
    with pytest.raises(ValueError, match="no held-out pairs to choose a threshold by"): predictor.threshold()


# --- what tables may be like

@pytest.mark.long
def test_only_matches_are_learned_from_with_a_warning(new, train):
    with pytest.warns(UserWarning, match="taken to be different"):
        predictor = new().fit(train[train["Label"] == 1], progress=False)
    assert predictor.class_labels == [0, 1] and predictor.evaluate(train)["auc"] > .6


def test_no_match_is_a_clear_error_before_anything_is_read(new, train):
    predictor = new(unread=True)
    predictor.column.vectors = None # would fail if it were called
    with pytest.raises(ValueError, match="no pair matches"): predictor.fit(train[train["Label"] == 0], progress=False)


def test_one_kind_of_pair_has_no_auc_but_an_accuracy(fitted, test):
    matches = test[test["Label"] == 1]
    with pytest.raises(ValueError, match="all .* pairs match: both kinds are needed"): fitted.evaluate(matches)
    assert fitted.evaluate(matches, metrics=["accuracy"])["accuracy"] == (fitted.predict(matches) == 1).mean()


@pytest.mark.parametrize("change, message", [
    (lambda t: t.drop(columns="Image2"), "no column 'Image2' .response.; it has Image1, Label"),
    (lambda t: t.drop(columns="Label"), "no column 'Label' .label."),
    (lambda t: t.assign(Label=[2, *t["Label"][1:]]), "Label has 3 values"),
    (lambda t: t.assign(Label=["a", "b"] * (len(t) // 2)), "say which one is a match"),
    (lambda t: t.head(0), "no row"),
])
def test_a_table_that_will_not_do(new, train, change, message):
    with pytest.raises(ValueError, match=message): new().fit(change(train), progress=False)


def test_a_label_never_seen_is_named_with_its_row(fitted, test):
    with pytest.raises(ValueError, match="row 3: Label is 2, but 1 .match. and 0"):
        fitted.evaluate(test.assign(Label=[*test["Label"][:3], 2, *test["Label"][4:]]))


@pytest.mark.parametrize("arguments, message", [
    ({"problem_type": "ner"}, "problem_type='ner'"), ({"presets": "fast"}, "presets='fast'"),
    ({"hyperparameters": {"method": "dot"}}, "method='dot'"), ({"hyperparameters": {"optim.weight_decay": 1}}, "optim.weight_decay"),
    ({"problem_type": "image_similarty"}, "did you mean image_similarity[?]"), ({"presets": "best_qualty"}, "did you mean best_quality[?]"),
    ({"hyperparameters": {"epoch": 1}}, "did you mean epochs[?]")])
def test_arguments_that_are_not_there(arguments, message):
    with pytest.raises(ValueError, match=message): MatchPredictor("a", "b", "c", **arguments)


def test_contradicting_labels_are_told_and_nothing_is_concluded(new, train):
    first = train[train["Label"] == 1].iloc[0]
    with pytest.warns(UserWarning, match="labelled as no match, although other pairs connect"):
        new(hyperparameters=QUICK | {"method": "cosine"}).fit(pd.concat([train, first.to_frame().T.assign(Label=0)], ignore_index=True), progress=False)


def test_too_few_pairs_are_fitted_without_calibration(new, train):
    few = pd.concat([train[train["Label"] == 1].head(1), train[train["Label"] == 0].head(1)])
    with pytest.warns(UserWarning, match="not calibrated"): predictor = new().fit(few, progress=False)
    assert len(predictor.predict(few)) == 2


# --- training

def test_what_follows_from_labels_is_right_for_every_equivalence():
    rng = np.random.default_rng(0)
    for _ in range(20):
        targets = rng.integers(0, 5, 20)
        i, j = rng.integers(0, 20, (2, 30))
        keep = i != j
        pairs = Pairs([(k,) for k in range(20)], i[keep], j[keep], (targets[i] == targets[j])[keep], np.arange(keep.sum()), BadRows())
        group = match_groups(pairs)
        assert not contradictions(pairs, group).any()
        if not pairs.match.any() or pairs.match.all(): continue
        a, b, match = PairSource(pairs, group).draw(200, rng)
        assert (match == (targets[a] == targets[b])).all() and (a != b).all()


@pytest.mark.parametrize("cosine, method", [([.99, .98, .99], "cosine"), ([.99, .80, .93], "siamese"), ([.90, .92, .89], "siamese")])
def test_auto_takes_the_cosine_only_where_it_is_clearly_better(cosine, method, fitted, monkeypatch):
    "Against .90 three times: by .087 with an error of .003, by .007 with one of .056, and by .003 with one of .009."
    pairs, group = fitted.train_pairs, match_groups(fitted.train_pairs)
    splits = pair_training.fold_splits(pairs, item_folds(group, [frozenset([k]) for k in range(len(group))], "images", 3, np.random.default_rng(0)), group)
    assert len(splits) == 3
    monkeypatch.setattr(pair_training, "choose_refinement", lambda splits, likelihoods, *_: (None, [l.embedding for l in likelihoods]))
    known = {"cosine": np.array(cosine), "siamese": np.full(3, .9)}
    monkeypatch.setattr(pair_training, "split_aucs", lambda splits, scores: known[next(names)])
    names = iter(("cosine", "siamese"))
    found = pair_training.fit_matches(torch.rand(1, len(group), 8), PairSource(pairs, group), splits, epochs=1, progress=False)
    assert found.method == method and found.aucs == {name: pytest.approx(values.mean()) for name, values in known.items()}


def test_better_means_by_more_than_a_standard_error():
    better = pair_training.clearly_better
    assert better(np.array([.9, .8]), np.array([.8, .7])) and not better(np.array([.8, .7]), np.array([.9, .8]))
    assert not better(np.array([1., 1.]), np.array([1., 1.])) # a draw
    assert better(np.array([.91, .9, .92]), np.array([.9, .9, .9])) # .01 with an error of .0058
    assert not better(np.array([.93, .9, .88]), np.array([.9, .9, .9])) # .0033 with one of .0145
    assert better(np.array([.91]), np.array([.9])) and not better(np.array([.9]), np.array([.9])) # of one split nobody knows the error


@pytest.mark.parametrize("method", ["cosine", "siamese"])
def test_a_method_is_what_was_asked_for_and_does_not_mind_the_order(new, train, test, method):
    predictor = new(hyperparameters=QUICK | {"method": method}).fit(train, progress=False)
    assert predictor.fitted.method == method and list(predictor.fitted.aucs) == [method]
    swapped = test.rename(columns={"Image1": "Image2", "Image2": "Image1"})
    assert np.allclose(predictor.predict_proba(test), predictor.predict_proba(swapped), atol=1e-4)
    if method == "cosine": # ranked by the cosine of the embeddings, and by nothing else
        a, b = (predictor.extract_embedding(test, side) for side in ("query", "response"))
        assert pair_auc((a * b).sum(1), test["Label"]) == pytest.approx(predictor.evaluate(test)["auc"])


def test_the_same_data_gives_the_same_predictor_and_says_of_how_few_things_it_is(new, train, test, fitted):
    with pytest.warns(UserWarning, match=r"the held-out pairs are of \d+ things: nobody can know where a match begins for others"):
        again = new(unread=True).fit(train, progress=False)
    assert np.allclose(again.predict_proba(test), fitted.predict_proba(test), atol=1e-5)


@pytest.mark.long
def test_a_second_fit_continues_from_all_pairs(new, train, data):
    predictor = new().fit(train, progress=False)
    more = table_of(data, range(7, 10), 40)
    predictor.fit(more, progress=False)
    assert len(predictor.train_pairs) == len(train) + len(more)
    with pytest.raises(ValueError, match=r"earlier pairs had the labels \[0, 1\]"):
        predictor.match_label = "yes"
        predictor.fit(more.assign(Label=more["Label"].map({1: "yes", 0: "no"})), progress=False)


@pytest.mark.soak
@pytest.mark.parametrize("hyperparameters", [
    {"epochs": 10_000, "end_to_end": 0},  # the head alone would take a day
    {"epochs": 2, "end_to_end": 10_000},  # so would the encoder
])
def test_a_time_limit_is_honoured_within_a_tenth(new, train, hyperparameters):
    "The one test with a real clock: what is promised are seconds."
    predictor = new(unread=True, hyperparameters=QUICK | hyperparameters)
    start = time.monotonic()
    predictor.fit(train, time_limit=20, progress=False)
    assert time.monotonic() - start < 22
    assert len(predictor.fitted.aucs) == 2


def colours(folder, n_each=8):
    "Pictures of one colour each, of six kinds, and all their pairs: whoever looks at all tells the kinds apart."
    kinds = [(230, 30, 30), (30, 200, 40), (30, 60, 230), (240, 220, 40), (250, 250, 250), (10, 10, 10)]
    rng, files, thing = np.random.default_rng(0), [], np.repeat(np.arange(len(kinds)), n_each)
    for k, kind in enumerate(thing):
        shade = np.clip(kinds[kind] + rng.integers(-8, 9, 3), 0, 255).tolist()
        files.append(folder / f"{k}.png")
        Image.new("RGB", (64, 64), tuple(shade)).save(files[-1])
    i, j = np.triu_indices(len(files), 1)
    return Pairs([(f,) for f in files], i, j, thing[i] == thing[j], np.arange(len(i)), BadRows()), thing


@pytest.mark.parametrize("whose, kept", [("items", True), ("things", False)])
def test_an_encoder_trained_end_to_end_is_kept_only_where_it_ranks_held_out_pairs_better(whose, kept, encoder, monkeypatch, tmp_path, capsys):
    "The one before finds nothing alike, or knows what is what: each by far, so that no rounding decides."
    (pairs, thing), column = colours(tmp_path), ImageItems(encoder)
    group = match_groups(pairs)
    folds = item_folds(group, item_contents(pairs.items), "images", 3, np.random.default_rng(0))
    source, split = PairSource(pairs, group), pair_training.fold_splits(pairs, folds, group)[0]
    settings = ImageSettings(method="cosine", epochs=1, augment=0, seed=0)
    learned = create_encoder(size=64) # stands for what training would make of the random one
    monkeypatch.setattr(pair_tuning, "tune_encoder", lambda *_, **__: learned)
    views = torch.randn(1, len(thing), 64, generator=torch.Generator().manual_seed(0)) # two halves that say nothing
    if whose == "things": views = .01 * views + torch.eye(32)[thing].tile(2)
    found = pair_tuning.fit_end_to_end(column, pairs.items, source, split, views, 0., settings, progress=True)
    after, before = map(float, re.search(r"AUC of held-out pairs (\S+), before (\S+)", capsys.readouterr().err).groups())
    assert after > before + .2 if kept else before == 1 # and nothing is better than 1
    assert (found is not None) == kept
    if found: assert found[1].encoder is learned and len(found[0].match) == len(split.match) and column.encoder is encoder


@pytest.mark.long
@pytest.mark.parametrize("whose, kept", [("nothing", True), ("things", False)])
def test_batch_norms_that_saw_the_pictures_are_taken_only_where_they_rank_held_out_pairs_clearly_better(whose, kept, encoder, tmp_path, capsys):
    (pairs, thing), column = colours(tmp_path), ImageItems(encoder)
    group = match_groups(pairs)
    splits = pair_training.fold_splits(pairs, item_folds(group, item_contents(pairs.items), "images", 3, np.random.default_rng(0)), group)
    views = torch.randn(2, len(thing), 64, generator=torch.Generator().manual_seed(0)) # two halves that say nothing
    if whose == "things": views = .01 * views + torch.eye(32)[thing].tile(2)
    found = image_fit.fit_adapted(column, pairs.items, splits, views, ImageSettings(), progress=True)
    assert (found is not None) == kept and f"{'taken' if kept else 'left as they were'}\n" in capsys.readouterr().err
    assert image_fit.fit_adapted(column, pairs.items, splits, views, ImageSettings(adapt=False)) is None
    if not found: return
    norms = [[layer.running_mean for layer in batch_norms(each)] for each in (found[0].encoder, encoder)]
    assert found[0].encoder is not encoder and not any(torch.equal(a, b) for a, b in zip(*norms)) and found[1].shape == (2, len(thing), 2 * encoder.nf)
    np.testing.assert_allclose(found[1][0], found[0].vectors(pairs.items, progress=False).views[0], atol=1e-5)


def test_training_an_encoder_sees_no_held_out_image_and_leaves_the_given_one_alone(data, encoder, train):
    pairs = read_pairs(train, "Image1", "Image2", "Label", MatchLabels(1, 0), data.files[0].parent)
    group = match_groups(pairs)
    folds = item_folds(group, item_contents(pairs.items), "things", 3, np.random.default_rng(0))
    split = pair_training.fold_splits(pairs, folds, group)[0]
    seen = set(pair_tuning.images_of_split(pairs.items, split).files)
    assert seen and not seen & {pairs.items[i][0] for i in (*split.first, *split.second)}
    before = [p.clone() for p in encoder.parameters()]
    tuned = pair_tuning.tune_encoder(encoder, pairs.items, split, epochs=1, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters()))
    assert tuned is None or pair_tuning.held_out_auc(tuned, pairs.items, split) > pair_tuning.held_out_auc(encoder, pairs.items, split)


@pytest.mark.soak
def test_a_tuned_encoder_is_saved_and_the_next_fit_starts_from_the_untouched_one(new, train, test, encoder, tmp_path):
    predictor = new(hyperparameters=QUICK | {"method": "cosine"}).fit(train, progress=False)
    predictor.matcher.tuned = ImageItems(create_encoder(weights="random", size=64))
    loaded = MatchPredictor.load(predictor.save(tmp_path / "model"))
    column = {"Image1": test["Image1"][:3].tolist()}
    assert np.allclose(loaded.extract_embedding(column), predictor.extract_embedding(column), atol=1e-5)
    plain = new(hyperparameters=QUICK | {"method": "cosine"}).fit(train, progress=False)
    assert not np.allclose(plain.extract_embedding(column), predictor.extract_embedding(column), atol=1e-2)
    loaded.fit(train.head(10), progress=False)
    assert loaded.matcher.tuned is None and fingerprint(loaded.column.encoder) == fingerprint(encoder)


def test_too_little_time_to_read_anything_is_an_error(new, train):
    with pytest.raises(ValueError, match="there was no time to read any of the images: give a larger time_limit"):
        new(unread=True).fit(train, time_limit=1e-6, progress=False)


@pytest.mark.soak
def test_moved_and_missing_images_of_earlier_fits(fitted, train, data, encoder, tmp_path):
    place = Path(shutil.copytree(data.files[0].parent, tmp_path / "moved"))
    predictor = MatchPredictor.load(fitted.save(tmp_path / "model"), base_folder=place)
    assert {file.parent for item in predictor.train_pairs.items for file in item} == {place}
    predictor.matcher.pretrained = ImageItems(encoder)
    gone = place / train["Image1"].iloc[0]
    gone.unlink()
    lost = int(((train["Image1"] == gone.name) | (train["Image2"] == gone.name)).sum())
    with pytest.warns(UserWarning, match=f"{lost} of {len(train)} pairs of earlier fits are left out.*base_folder"):
        predictor.fit(table_of(data, range(7, 10), 40), progress=False)
    assert len(predictor.train_pairs) == len(train) - lost + 40 and not predictor.bad


def test_a_saved_predictor_is_the_same_and_can_go_on(fitted, train, test, tmp_path, data):
    loaded = MatchPredictor.load(fitted.save(tmp_path / "model"))
    assert np.allclose(loaded.predict_proba(test), fitted.predict_proba(test), atol=1e-6)
    assert loaded.threshold(.7) == fitted.threshold(.7) and loaded.class_labels == fitted.class_labels
    assert not [f for f in (tmp_path / "model").iterdir() if f.suffix not in (".json", ".safetensors")]
    loaded.fit(table_of(data, range(7, 10), 40), progress=False)
    assert len(loaded.train_pairs) == len(train) + 40


@pytest.mark.parametrize("again", [copy.deepcopy, pytest.param(lambda predictor: pickle.loads(pickle.dumps(predictor)), marks=pytest.mark.long)], ids=["deepcopy", "pickle"])
def test_a_deep_copy_and_a_pickle_say_the_same_and_can_go_on(again, fitted, new, train, test, data):
    twin = again(fitted)
    assert np.allclose(twin.predict_proba(test), fitted.predict_proba(test), atol=1e-6) and twin.threshold(.7) == fitted.threshold(.7)
    before = fitted.fitted
    twin.fit(table_of(data, range(7, 10), 40), progress=False)
    assert fitted.fitted is before and len(twin.train_pairs) == len(fitted.train_pairs) + 40


def test_a_fit_of_a_shallow_copy_leaves_the_first_alone_and_reads_no_picture_again(new, train, monkeypatch):
    first = new(unread=True, hyperparameters=QUICK | {"method": "cosine"})
    with pytest.warns(UserWarning, match="not fitted"): first.predict(train)
    assert first.matcher.pretrained._known
    read = []
    monkeypatch.setattr("image_similarity.matching.image_items.embed", lambda files, *args, **options: read.extend(files) or embed(files, *args, **options))
    second = copy.copy(first)
    with pytest.warns(UserWarning, match="not fitted"): second.predict(train)
    assert not read
    second.fit(train, progress=False)
    assert second.fitted and not first.fitted and first.train_pairs is None


def test_path_saves_after_each_fit(new, train, tmp_path):
    new(path=tmp_path / "kept", hyperparameters=QUICK | {"method": "cosine"}).fit(train, progress=False)
    assert MatchPredictor.load(tmp_path / "kept").fitted.method == "cosine"


def test_damaged_folders_are_refused_in_one_line(fitted, tmp_path):
    folder = fitted.save(tmp_path / "model")
    manifest = json.loads((folder / "manifest.json").read_text())
    for change, message in (({"kind": "finder"}, "no MatchPredictor"), ({"fitted": {}}, "do not fit together|damaged"), ({"items": []}, "do not fit together"),
                            ({"labels": 3}, "damaged"), ({"encoder": {**manifest["encoder"], "name": "hf-hub:x/y"}}, "names no weights for hf-hub:x/y"),
                            ({"encoder": {**manifest["encoder"], "name": "hf-hub:x/y", "weights": next(folder.glob("*.safetensors")).name}}, "timm has no model")):
        (folder / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(ValueError, match=message): MatchPredictor.load(folder)


# --- rankings and search

def test_ranking_figures_are_those_of_a_search_by_hand(fitted, test):
    matches = test[test["Label"] == 1].drop_duplicates(["Image1", "Image2"])
    queries, responses = matches["Image1"].unique(), matches["Image2"].unique()
    figures = fitted.evaluate(matches, query_data={"Image1": queries}, response_data={"Image2": responses}, label="Label", cutoffs=[1, 5],
                              metrics=["recall", "hit_rate"])
    hits = semantic_search(fitted, query_data={"Image1": queries}, response_data={"Image2": responses}, top_k=5)
    right = {q: set(matches["Image2"][matches["Image1"] == q]) for q in queries}
    for k in (1, 5):
        found = [right[q] & {responses[hit["response_id"]] for hit in row[:k]} for q, row in zip(queries, hits)]
        assert figures[f"recall@{k}"] == pytest.approx(np.mean([len(f) / len(right[q]) for f, q in zip(found, queries)]))
        assert figures[f"hit_rate@{k}"] == pytest.approx(np.mean([bool(f) for f in found]))


def test_ranking_of_one_query_and_default_metric(fitted, test):
    row = test[test["Label"] == 1].head(1)
    figures = fitted.evaluate(row, query_data=row[["Image1"]], response_data=test[["Image2"]].drop_duplicates(), cutoffs=[1, 10_000])
    assert list(figures) == ["recall@1", "recall@10000"] and figures["recall@10000"] == 1


def test_ranking_without_a_right_answer_is_a_clear_error(fitted, test):
    others = test[test["Label"] == 0].head(3)
    with pytest.raises(ValueError, match="has a relevant item"):
        fitted.evaluate(others, query_data=others[["Image1"]].drop_duplicates(), response_data=others[["Image2"]].drop_duplicates())


def test_search_embeds_the_corpus_once(fitted, test, monkeypatch):
    calls = []
    embed_column = MatchPredictor.embed_column
    monkeypatch.setattr(MatchPredictor, "embed_column", lambda self, table, column, *more: calls.append(column) or embed_column(self, table, column, *more))
    semantic_search(fitted, query_data=test[["Image1"]], response_data=test[["Image2"]], query_chunk_size=7)
    assert calls == ["Image1", "Image2"]


@pytest.mark.parametrize("kind, distance", [("l1", 1), ("l2", 2)])
def test_distances_are_negated(kind, distance):
    rng = np.random.default_rng(0)
    q, r = rng.normal(size=(3, 4)), torch.from_numpy(rng.normal(size=(6, 4)))
    for query, row in zip(q, semantic_search(None, query_embeddings=q, response_embeddings=r, similarity_type=kind)):
        expected = sorted(np.linalg.norm(query - r.numpy(), ord=distance, axis=1))
        assert [-hit["score"] for hit in row] == pytest.approx(expected, abs=1e-5)
