"""Code in the shapes of AutoMM's tutorials, with nothing but the import changed: what it calls is there, and gives what the tutorials print."""
import os

import numpy as np
import pandas as pd
import pytest

import image_similarity
from image_similarity import MatchPredictor, MultiModalPredictor, semantic_search
from image_similarity.images.datasets import draw_pairs, labelled_images
from image_similarity.matching import image_head, predictor as predictors
from image_similarity.matching import image_training

QUICK = {"ImageSettings": {"size": 64, "augment": 0, "epochs": 1, "end_to_end": 0}, "TextSettings": {"augment": 0, "steps": 10}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    "Let the defaults be quick: the code itself says nothing of hyperparameters."
    read = predictors.read_settings
    monkeypatch.setattr(predictors, "read_settings", lambda kind, presets, given: read(kind, presets, {**QUICK[kind.__name__], **(given or {})}))
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
