"The vector that a network makes itself: timm's own, kept in the record, through heads, galleries, models, maps and files."
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from small_gallery import paint

from image_similarity import Gallery, SimilarityFinder
from image_similarity.encoders.encoder import create_encoder, embed, fingerprint, pooled_of
from image_similarity.encoders.model_files import load_encoder, save_encoder
from image_similarity.encoders.preprocessing import preprocess, to_pixels
from image_similarity.images.datasets import labelled_images


def timms(encoder, x, **given):
    "What timm itself says of a picture, by a network of its own with the same weights."
    whole = timm.create_model(encoder.name, **given).eval()
    fit = whole.load_state_dict(encoder.body.state_dict(), strict=False)
    assert all(name.startswith(("head.", "fc.", "classifier.")) for name in fit.missing_keys) and not fit.unexpected_keys
    with torch.inference_mode(): return whole.forward_head(whole.forward_features(x), pre_logits=True).numpy()


@pytest.mark.parametrize("name, pooling, given, how", [
    ("test_vit", "own", {}, "token"), ("test_vit3", "own", {}, "map"), ("vit_pe_core_tiny_patch16_384", "own", {}, "map"),  # an attention pool, as SigLIP's
    ("vit_tiny_patch16_224", "own", {}, "token"), ("test_vit", "token", {"global_pool": "token"}, "token"), ("test_efficientnet", "own", {}, None)])
def test_the_vector_is_timms(name, pooling, given, how, tmp_path):
    encoder = create_encoder(name, "random", seed=0, pooling=pooling)
    photo = Image.effect_noise((400, 300), 90).convert("RGB")
    expected = timms(encoder, preprocess(photo, encoder)[None], **given)
    assert how is None or encoder.body.global_pool == how
    assert expected.shape == (1, encoder.width) and encoder.width == encoder.nf
    assert np.allclose(pooled_of(encoder, to_pixels(photo, encoder)[None]), expected, atol=1e-4 * np.abs(expected).max())
    again = load_encoder(tmp_path, save_encoder(tmp_path, encoder))
    assert fingerprint(again) == fingerprint(encoder) and again.pooling == pooling and again.width == encoder.width


@pytest.mark.soak # ninety million weights, twice
def test_a_siglip():
    siglip = create_encoder("vit_base_patch16_siglip_224", "random", size=32, seed=0, pooling="own")
    x = torch.randn(2, 3, 32, 32)
    expected = timms(siglip, x, img_size=32)
    with torch.inference_mode(): assert np.allclose(siglip.pool(siglip(x)), expected, atol=1e-5)


def test_a_dinov3_has_a_class_token_too():
    average, token = (create_encoder("vit_small_patch16_dinov3", "random", size=64, seed=0, pooling=pooling) for pooling in ("own", "token"))
    assert average.body.global_pool == "avg" # timm's default, where its authors take the class token
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        tokens = token.body.forward_features(x)
        assert np.allclose(token.pool(token(x)), tokens[:, 0], atol=1e-5)
        assert np.allclose(average.pool(average(x)), tokens[:, average.body.num_prefix_tokens:].mean(1), atol=1e-4)
    assert fingerprint(average) != fingerprint(token)


def test_packaged_weights_pool_by_their_mean(tmp_path):
    own, plain = create_encoder(size=96, pooling="own"), create_encoder(size=96)
    photo = paint(tmp_path / "a.png", 1)
    x, y = embed([photo], own, progress=False).pooled, embed([photo], plain, progress=False).pooled
    assert np.allclose(x, y[:, plain.nf:], atol=1e-4)
    saved = save_encoder(tmp_path, own)
    assert saved["weights"] is None and saved["pooling"] == "own" # they come with the package
    assert load_encoder(tmp_path, saved).pooling == "own"
    with pytest.raises(ValueError, match="its manifest pools by everything"): load_encoder(tmp_path, {**saved, "pooling": "everything"})
    gallery = Gallery(encoder=own)
    gallery.add([photo])
    with pytest.raises(ValueError, match="own pooling.: its pictures cannot be searched by text"): gallery.search("a drawn cat")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for i in range(24): paint(folder / "photos" / "abc"[i % 3] / f"{i}.png", i)
    return folder


def test_a_gallery_keeps_it(home):
    encoder = create_encoder("test_vit3", "random", seed=0, pooling="own")
    gallery = Gallery(home / "g", encoder)
    gallery.add(home / "photos")
    files = gallery.files
    seen = embed(files, encoder, progress=False).pooled
    unit = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    assert gallery.pooled.shape == (24, 96) and np.allclose(gallery.pooled, seen, atol=1e-4)
    assert np.allclose(gallery.rows_and_labels()[0], unit, atol=1e-4)
    again = Gallery(home / "g") # with its own encoder, from the folder
    found = again.search(files[0], 5)
    assert np.allclose([r.score for r in found], np.sort(unit @ unit[0])[::-1][:5], atol=1e-3)
    assert len(again.search(seen[0], 5)) == 5 and again.encoder.compared == "whole"
    with pytest.raises(ValueError, match="was made with test_vit3"): Gallery(home / "g", create_encoder("test_vit3", "random", seed=0))


@pytest.fixture(scope="module")
def finder(home, tmp_path_factory):
    from conftest import few_pairs
    from image_similarity.finder.training import fit_finder
    with pytest.MonkeyPatch.context() as patch:
        few_pairs(patch)
        return fit_finder(labelled_images(home / "photos", "folder"), create_encoder("test_vit", "random", seed=0, pooling="own"), augment=1, epochs=2).finder


def test_a_model_learns_from_it_and_is_kept(home, finder):
    assert finder.scorer.A.shape[1] == finder.classes.weight.shape[1] == 64 # the width of the record, not twice that
    files = finder.files
    first, second = (embed([f], finder.encoder, progress=False).pooled for f in files[:2])
    head, net = finder.slearn.model.head, finder.encoder
    with torch.inference_mode():
        x, y = (preprocess(f, net)[None] for f in files[:2])
        by_layers = head.eval()(torch.cat([net(x), net(y)], 1))[0, 0]
    assert np.isclose(finder.scorer.pair_logits(torch.from_numpy(first), torch.from_numpy(second))[0], by_layers, atol=1e-4)
    unit = finder.scorer.rows(torch.from_numpy(first)).unit.numpy()
    assert np.allclose(unit, first / np.linalg.norm(first), atol=1e-5) # all of it is compared, not a half
    again = SimilarityFinder.load(finder.save(home / "model"))
    assert json.loads((home / "model" / "manifest.json").read_text())["encoder"]["pooling"] == "own"
    assert [(r.path, round(r.score, 3)) for r in again.search(files[0])] == [(r.path, round(r.score, 3)) for r in finder.search(files[0])]
    assert torch.allclose(again.slearn.model.head.fold().A, finder.scorer.A, atol=1e-5) # the learner is built again in its width
    assert again.clearn.model[1][-1].in_features == 64


def test_its_maps_are_approximate_and_say_what_they_miss(finder):
    query, match = finder.files[:2]
    why = finder.explain(finder.search(query)[0])
    assert why.query_map.shape == why.match_map.shape == (8, 8) and len(why.remainders) == 2
    assert "approximate, by occlusion; not in the maps: " in repr(why) and "approximate" in why._parts()[3]
    from image_similarity.explain.maps import class_map, maps_from_features, pair_maps
    from image_similarity.explain.occlusion import blurred
    from image_similarity.encoders.preprocessing import open_for, resize_to
    why, net = pair_maps(finder.encoder, finder.scorer, query, match), finder.encoder
    pooled = lambda image: torch.from_numpy(embed([image], net, progress=False).pooled)
    without = finder.scorer.pair_logits(pooled(blurred(resize_to(open_for(query, net), net))), pooled(match))[0]
    assert np.isclose(why.query_map.sum() + why.remainders[0], why.logit - without, atol=1e-3)
    label = finder.classes.labels[1]
    told = class_map(net, finder.classes, query, label)
    assert told.label == label and np.isclose(told.probability, finder.classes.log_posterior(pooled(query)).exp()[0, 1], atol=1e-4)
    assert "approximate" in repr(told)
    with pytest.raises(ValueError, match="no sum over a map"): maps_from_features(finder.scorer, torch.rand(64, 3, 3), torch.rand(64, 3, 3))
    with pytest.raises(ValueError, match="classifier knows a, b, c"): class_map(net, finder.classes, query, "d")


@pytest.mark.soak # exporting takes its time
def test_onnx_says_the_same(finder, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from image_similarity.finder.onnx_export import export_onnx
    image, pair = (onnxruntime.InferenceSession(str(file)) for file in export_onnx(finder, tmp_path))
    pixels = torch.stack([to_pixels(f, finder.encoder) for f in finder.files[:2]]).numpy()
    vectors, classes = image.run(None, {"picture": pixels})
    assert vectors.shape == (2, 64) and np.allclose(vectors, finder.pooled[:2], atol=1e-3)
    said, = pair.run(None, {"first": vectors[:1], "second": vectors[1:]})
    assert np.isclose(said[0, 0], finder.scorer.pair_logits(finder.pooled[:1], finder.pooled[1:2]).sigmoid()[0], atol=1e-3)


def test_a_feature_layer_behind_it(home, tmp_path):
    from image_similarity.learners.metric_learning import embedding_learner, load_embedding, save_embedding
    encoder = create_encoder("test_vit", "random", seed=0, pooling="own")
    data = labelled_images(home / "photos", "folder")
    learn = embedding_learner(data, encoder=encoder, n_features=8, epochs=1, augment=1, progress=False)
    learned = learn.model.encoder
    assert learned.width == learned.nf == 8
    again = load_embedding(save_embedding(learn, tmp_path / "e"))
    assert np.allclose(embed(data.files[:3], again, progress=False).pooled, embed(data.files[:3], learned, progress=False).pooled, atol=1e-5)


def test_who_wants_maxima_and_means_says_so(home):
    from image_similarity.matching.image_items import ImageItems
    with pytest.raises(ValueError, match="a matcher learns from maxima and means"): ImageItems(create_encoder("test_vit", "random", pooling="own"))


@pytest.mark.parametrize("args, said", [
    (["--pooling", "sum"], "pooling='sum': choose one of concat, own, token"), (["--pooling", "token"], "pooling='token': EfficientNet has no class token; take pooling='own'"),
    (["--pooling", "own", "--model", "m"], "--pooling own and --model m: the model pools as it learned to")])
def test_the_command_refuses_in_one_line(call, home, monkeypatch, args, said):
    monkeypatch.chdir(home)
    code, _, err = call("index", "photos", "--gallery", "new", *args)
    assert code == 2 and err.startswith(f"error: {said}") and len(err.splitlines()) == 1


@pytest.mark.long
def test_the_commands_take_it(call, home, monkeypatch, quick):
    monkeypatch.chdir(home)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit").state_dict(), "vit.pt")
    options = ["--arch", "test_vit", "--weights", "vit.pt"]
    assert call("index", "photos", "--gallery", "cli", *options, "--pooling", "own")[0] == 0
    assert Gallery("cli").encoder.width == 64
    assert "24 unchanged" in call("index", "photos", "--gallery", "cli")[2]
    code, _, err = call("index", "photos", "--gallery", "cli", "--pooling", "concat")
    assert code == 2 and "its vectors are pooled by own, so --pooling concat does not fit" in err
    assert "24 unchanged" in call("index", "photos", "--gallery", "cli", *options)[2] # the gallery knows how it pools
    code, _, err = call("train", "photos", "--out", "trained", "--labels", "folder", *options, "--pooling", "own", "-q")
    assert code == 0, err
    assert SimilarityFinder.load("trained").encoder.pooling == "own"
    assert call("find", "photos/a/0.png", "--model", "trained", "--explain", "why.png")[0] == 0
