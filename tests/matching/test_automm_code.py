"""Code in the shapes of AutoMM's tutorials, with nothing but the import changed: what it calls is there, and gives what the tutorials print."""
import os

import numpy as np
import pandas as pd
import pytest

import image_similarity
from image_similarity import MatchPredictor, MultiModalPredictor, semantic_search
from image_similarity.images.datasets import draw_pairs, labelled_images
from image_similarity.matching import automm, image_head
from image_similarity.matching import image_training

QUICK = {"ImageSettings": {"size": 64, "augment": 0, "epochs": 1, "end_to_end": 0}, "TextSettings": {"augment": 0, "steps": 10}, "SentenceSettings": {"epochs": 1}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    "Let the defaults be quick: the code itself says nothing of hyperparameters."
    read = automm.read_settings
    monkeypatch.setattr(automm, "read_settings", lambda kind, presets, given: read(kind, presets, {**QUICK[kind.__name__], **(given or {})}))
    monkeypatch.setattr(image_head, "drawn_batches", lambda views, source, draw=image_head.drawn_batches: draw(views, source, 2, 96))
    monkeypatch.setattr(image_training, "REFINEMENTS", (None, 0, 5))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return labelled_images(image_similarity.sample_pets(tmp_path_factory.mktemp("automm") / "pets", n_breeds=8, n_per_breed=5, size=64) / "images", valid_pct=0)


def path_expander(path, base_folder):
    return ";".join([os.path.abspath(os.path.join(base_folder, p)) for p in path.split(";")])


def test_it_is_the_same_class():
    assert MultiModalPredictor is MatchPredictor and {"MultiModalPredictor", "semantic_search"} <= set(image_similarity.__all__)


def test_images_with_images(data, tmp_path):
    def table(classes, n):
        own = np.flatnonzero(np.isin(data.targets, classes))
        i, j = (own[k] for k in draw_pairs(data.targets[own], n))
        names = np.array([f.name for f in data.files])
        return pd.DataFrame({"Image1": names[i], "Image2": names[j], "Label": (data.targets[i] == data.targets[j]).astype(int)})
    table(range(6), 80).to_csv(tmp_path / "train.csv")
    table(range(6, 8), 30).to_csv(tmp_path / "test.csv")

    dataset_path, image_col_1, image_col_2, label_col, match_label = data.files[0].parent, "Image1", "Image2", "Label", 1
    train_data, test_data = (pd.read_csv(tmp_path / f"{part}.csv", index_col=0) for part in ("train", "test"))
    for image_col in [image_col_1, image_col_2]:
        train_data[image_col] = train_data[image_col].apply(lambda ele: path_expander(ele, base_folder=dataset_path))
        test_data[image_col] = test_data[image_col].apply(lambda ele: path_expander(ele, base_folder=dataset_path))

    predictor = MultiModalPredictor(
        problem_type="image_similarity",
        query=image_col_1,
        response=image_col_2,
        label=label_col,
        match_label=match_label,
        eval_metric="auc",
    )
    predictor.fit(
        train_data=train_data,
        time_limit=180,
    )
    score = predictor.evaluate(test_data)
    assert set(score) == {"auc"} and 0 <= score["auc"] <= 1
    pred = predictor.predict(test_data.head(3))
    proba = predictor.predict_proba(test_data.head(3))
    assert len(pred) == 3 and set(pred) <= {0, 1} and proba.shape == (3, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    embeddings_1 = predictor.extract_embedding({image_col_1: test_data[image_col_1][:5].tolist()})
    embeddings_2 = predictor.extract_embedding({image_col_2: test_data[image_col_2][:5].tolist()})
    assert embeddings_1.shape == embeddings_2.shape and len(embeddings_1) == 5
    several = predictor.evaluate(test_data, metrics=["auc", "accuracy", "f1"])
    assert list(several) == ["auc", "accuracy", "f1"] and several["auc"] == score["auc"]


@pytest.mark.long
def test_texts_with_images(data):
    pytest.importorskip("sentence_transformers", reason="the extra [text] is not installed")
    image_col, text_col, test_label_col = "image", "caption", "relevance"
    names = [label.replace("_", " ") for label in data.labels]
    all_data = pd.DataFrame({image_col: [f.name for f in data.files], text_col: [f"a picture of a {name}" for name in names], test_label_col: 1})
    all_data[image_col] = all_data[image_col].apply(lambda ele: path_expander(ele, base_folder=data.files[0].parent))
    train_data, val_data, test_data = all_data[:20], all_data[20:30], all_data[30:]
    test_image_data = pd.DataFrame({image_col: test_data[image_col].unique().tolist()})
    test_text_data = pd.DataFrame({text_col: test_data[text_col].unique().tolist()})
    test_data_with_label = test_data

    predictor = MultiModalPredictor(
        query=text_col,
        response=image_col,
        problem_type="image_text_similarity",
        eval_metric="recall",
    )
    scores = [predictor.evaluate(
        data=test_data_with_label,
        query_data=query,
        response_data=response,
        label=test_label_col,
        cutoffs=[1, 5, 10],
    ) for query, response in ((test_text_data, test_image_data), (test_image_data, test_text_data))]
    assert all(list(score) == ["recall@1", "recall@5", "recall@10"] for score in scores)
    predictor.fit(
        train_data=train_data,
        tuning_data=val_data,
        time_limit=180,
    )
    pred = predictor.predict(test_data.head(5))
    proba = predictor.predict_proba(test_data.head(5))
    assert len(pred) == len(proba) == 5
    image_embeddings = predictor.extract_embedding({image_col: test_image_data[image_col][:5].tolist()})
    text_embeddings = predictor.extract_embedding({text_col: test_text_data[text_col][:2].tolist()})
    assert image_embeddings.shape[1] == text_embeddings.shape[1]
    text_to_image_hits = semantic_search(
        matcher=predictor,
        query_data=test_text_data.iloc[[1]],
        response_data=test_image_data,
        top_k=5,
    )
    image_to_text_hits = semantic_search(
        matcher=predictor,
        query_data=test_image_data.iloc[[2]],
        response_data=test_text_data,
        top_k=5,
    )
    assert len(text_to_image_hits[0]) == 5 and {"response_id", "score"} == set(text_to_image_hits[0][0]) and image_to_text_hits[0]


def test_texts_with_texts_and_everything_that_a_fit_takes(tmp_path):
    pytest.importorskip("sentence_transformers", reason="the extra [text] is not installed")
    things = ["a red cat", "shares fell", "it rains hard", "a fast car", "bread and butter", "the deep sea", "a small house", "he plays the piano"]
    texts = [[thing, f"look: {thing}", f"{thing}, they say"] for thing in things]
    ids = dict(enumerate(text for group in texts for text in group))
    rows = [(a, b, "same" if a // 3 == b // 3 else "other") for a in ids for b in ids if a < b and (a // 3 == b // 3 or b == a + 3)]
    table = pd.DataFrame(rows, columns=["first", "second", "says"])
    mappings = {"first": ids, "second": pd.Series(ids)}
    predictor = MultiModalPredictor(problem_type="TEXT_SIMILARITY", query=["first"], response="second", label="says", match_label="same", eval_metric="acc",
                                    verbosity=0, warn_if_exist=False, enable_progress_bar=False, validation_metric="roc_auc", pretrained=True)
    predictor.fit(train_data=table, presets="Default", hyperparameters="epochs=1 method=cosine", time_limit=60, save_path=str(tmp_path / "model"), seed=3, holdout_frac=0.25,
                  column_types={"first": "text"}, standalone=True, id_mappings=mappings)
    assert (predictor.settings.method, predictor.settings.seed, predictor.settings.holdout_frac) == ("cosine", 3, 0.25)
    assert predictor.evaluate(table, id_mappings=mappings)["acc"] > .8
    assert list(predictor.evaluate(table, metrics=["mcc", "roc_auc"], id_mappings=mappings)) == ["mcc", "roc_auc"]
    again = MultiModalPredictor.load(tmp_path / "model", resume=False, verbosity=0)
    assert (again.path, again.positive_class, again.column_types["first"]) == (tmp_path / "model", "same", "text")
    assert predictor.extract_embedding({"first": [0, 1]}, id_mappings=mappings).shape == (2, 384)
    proba = [p.predict_proba(table.head(4), id_mappings=mappings) for p in (predictor, again)]
    np.testing.assert_allclose(*proba, atol=1e-5)


@pytest.mark.parametrize("arguments, says", [
    ({"eval_metric": "aucc"}, "did you mean auc"), ({"query": ["a", "b"]}, "give the name of one column"), ({"hyperparameters": "optim.patience=3"}, "has no meaning here"),
    ({"query": "Label", "response": "image_similarity"}, "AutoMM has label and problem_type first"), ({"presets": "bset_quality"}, "did you mean best_quality"),
    ({"validation_metric": "loss"}, "chooses by auc"), ({"pretrained": False}, "random weights")])
def test_mistakes_are_told_before_any_work(arguments, says):
    with pytest.raises(ValueError, match=says): MultiModalPredictor(**arguments)


def test_a_place_that_is_taken_and_a_time_that_is_no_number(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not a model folder"): MultiModalPredictor(path=tmp_path)
    predictor = MultiModalPredictor("a", "b", "c")
    with pytest.raises(ValueError, match="time_limit='180'"): predictor.fit({"a": ["x"], "b": ["y"], "c": [1]}, time_limit="180")
    with pytest.raises(ValueError, match="is a preset"): predictor.fit({"a": ["x"], "b": ["y"], "c": [1]}, "best_quality")
