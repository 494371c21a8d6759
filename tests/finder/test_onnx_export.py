"""What onnxruntime makes of an exported model is what torch makes of it."""
import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from image_similarity.cli import commands as cli
from image_similarity.encoders.encoder import pooled_of
from image_similarity.encoders.preprocessing import preprocess, resize_to
from image_similarity.images.opening import open_image
from image_similarity.finder.onnx_export import ImageGraph, PairGraph, _write_graph, export_onnx

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.soak # exporting takes long; the chapter's notebook does it too, and compares the numbers


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    "The folder with both files, made by the command."
    folder = tmp_path_factory.mktemp("onnx") / "edge"
    assert cli.run(["export", str(small.model), "--out", str(folder)]) == 0
    return folder


def session(file): return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def pictures(encoder, files):
    return np.stack([np.asarray(resize_to(open_image(f), encoder)) for f in files])


def test_the_files_are_whole_onnx_and_nothing_else_is_left(exported):
    assert sorted(p.name for p in exported.iterdir()) == ["image.onnx", "pair.onnx"]
    for file in exported.iterdir(): onnx.checker.check_model(onnx.load(file), full_check=True)


def test_vectors_and_classes_are_those_of_torch(small, exported):
    files, finder = small.data.files[:5], small.finder
    image = session(exported / "image.onnx")
    for some in (files, files[:1]):
        vector, probabilities = image.run(["vector", "probabilities"], {"picture": pictures(finder.encoder, some)})
        with torch.inference_mode(): # the encoder with its own preprocessing, not the graph's
            expected = torch.stack([preprocess(open_image(f), finder.encoder) for f in some])
            features = finder.encoder(expected)
        wanted = np.concatenate([features.amax((2, 3)), features.mean((2, 3))], 1)
        np.testing.assert_allclose(vector, wanted, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(probabilities, finder.classes.log_posterior(torch.from_numpy(wanted)).exp(), atol=1e-4)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_a_search_at_the_edge_finds_what_the_finder_finds(small, exported):
    image, pair = session(exported / "image.onnx"), session(exported / "pair.onnx")
    found = small.finder.search(small.query, 5, candidates="all")
    query = image.run(["vector"], {"picture": pictures(small.encoder, [small.query])})[0]
    (matches,) = pair.run(None, {"first": query, "second": small.finder.gallery.pooled})
    files = np.array([str(f) for f in small.finder.files])
    best = np.argsort(-matches[0])[:5]
    np.testing.assert_allclose(matches[0][best], [r.pair_probability for r in found], atol=1e-4)
    assert matches.shape == (1, len(files)) and files[best[0]] == str(found[0].path)


def test_the_order_of_a_pair_does_not_matter_unless_it_did(small, tmp_path):
    vectors = torch.from_numpy(small.finder.gallery.pooled[:6])
    for scorer, same in ((small.finder.scorer, True), (replace(small.finder.scorer, symmetric=False), False),
                         (replace(small.finder.scorer, a=torch.tensor(0.)), True)):
        file, graph = tmp_path / "pair.onnx", PairGraph(scorer)
        _write_graph(file, graph, (vectors[:2], vectors[:3]), {})
        (there,), (back,) = (session(file).run(None, {"first": a.numpy(), "second": b.numpy()}) for a, b in ((vectors[:2], vectors), (vectors, vectors[:2])))
        assert np.allclose(there, back.T, atol=1e-6) == same
        i, j = torch.cartesian_prod(torch.arange(2), torch.arange(6)).T
        np.testing.assert_allclose(there.reshape(-1), scorer.pair_logits(vectors[i], vectors[j]).sigmoid(), atol=1e-4)


def test_two_encoders_go_into_one_graph(small):
    finder = same_parts(small.finder)
    finder.class_encoder = deepcopy(finder.encoder)
    with torch.no_grad(): next(finder.class_encoder.parameters()).mul_(1.1) # as if it had been fine-tuned
    picture = torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(): vector, probabilities = ImageGraph(finder)(picture)
    for encoder, found, wanted in ((finder.encoder, vector, lambda pooled: pooled), (finder.class_encoder, probabilities, lambda pooled: finder.classes.log_posterior(pooled).exp())):
        np.testing.assert_allclose(found, wanted(torch.from_numpy(pooled_of(encoder, picture))), rtol=1e-4, atol=1e-4)
    assert (finder.classes.log_posterior(vector).exp() - probabilities).abs().max() > 1e-3 # the classes are not those of this vector

    finder.class_encoder.size = 128
    with pytest.raises(ValueError, match="looks at 96 pixels .* the classifier at 128"): ImageGraph(finder)


def same_parts(finder):
    "The same finder, whose encoders may be changed."
    other = type(finder).__new__(type(finder))
    other.__dict__.update({k: v for k, v in finder.__dict__.items() if k in ("encoder", "class_encoder", "classes", "scorer")})
    return other


def test_the_files_say_what_they_need_and_know(small, exported):
    for name in ("image", "pair"):
        about = json.loads(session(exported / f"{name}.onnx").get_modelmeta().custom_metadata_map["image_similarity"])
        assert about["labels"] == small.finder.classes.labels and about["fingerprint"] == small.finder.gallery.encoder.fingerprint
        assert about["picture"] == {"type": "uint8", "layout": "pictures, height, width, RGB", "size": 96, "crop": "central square", "interpolation": "bicubic"}
        assert about["match_from"] == pytest.approx(1 / (1 + np.exp(-float(small.finder.scorer.threshold))), abs=1e-6)


def test_neither_torch_nor_this_package_is_needed(small, exported):
    "In a Python where they cannot be imported."
    program = ("import sys\nfor name in ('torch', 'fastai', 'timm', 'image_similarity'): sys.modules[name] = None\n"
               "import numpy as np, onnxruntime\nfrom PIL import Image\n"
               "image, pair = (onnxruntime.InferenceSession(f'{sys.argv[1]}/{n}.onnx') for n in ('image', 'pair'))\n"
               "x = np.asarray(Image.open(sys.argv[2]).convert('RGB').resize((96, 96)))\n"
               "vector, probabilities = image.run(None, {'picture': x[None]})\n"
               "print(pair.run(None, {'first': vector, 'second': vector})[0].item())")
    said = subprocess.run([sys.executable, "-c", program, exported, small.query], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert float(said.stdout) > .5 # a picture matches itself


def test_a_difference_is_told_and_replaces_nothing(small, exported, monkeypatch):
    before = {f.name: f.read_bytes() for f in exported.iterdir()}
    monkeypatch.setattr(PairGraph, "forward", lambda self, first, second: (first @ second.T).sigmoid() + torch.rand(1))
    with pytest.raises(ValueError, match="pair.onnx: its probability differs from torch's by|torch"): export_onnx(small.finder, exported)
    assert {f.name: f.read_bytes() for f in exported.iterdir()} == before


def test_what_is_missing_is_said(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"exporting needs onnxscript: pip install 'image_similarity\[onnx\]'"): export_onnx(small.finder, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert cli.run(["export", str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 2
    assert "there is no such model folder" in capsys.readouterr().err
