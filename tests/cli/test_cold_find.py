"From the second search on a shell's `find` needs no torch, and finds the same."
import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from image_similarity.encoders import model_files, runtimes
from image_similarity.encoders.encoder import create_encoder
from image_similarity.encoders.model_files import save_encoder
from image_similarity.gallery import Gallery
from image_similarity.gallery.encoder import PooledEncoder

if find_spec("openvino") is None: pytest.skip("OpenVINO is not installed: torch computes everything", allow_module_level=True)

COLD = """import sys
from image_similarity.cli.commands import main
try: main(sys.argv[1:])
finally: print(*sorted({"torch", "timm", "fastai"} & set(sys.modules)), file=sys.stderr)"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    "And encoders of its own: one that another test has converted in this process needs no converting."
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(model_files, "create_encoder", create_encoder)


def gallery_of(small, place, encoder) -> Gallery:
    gallery = Gallery(place, encoder)
    gallery.add(small.data.files[:6], progress=False)
    return gallery


def test_the_second_find_imports_no_torch_and_finds_the_same(small, call, tmp_path):
    gallery = gallery_of(small, tmp_path / "gallery", create_encoder(size=96))
    gallery.close()
    command = ["find", str(small.query), "--gallery", str(tmp_path / "gallery"), "--json"]
    code, first, said = call(*command)
    assert code == 0 and "next search faster" in said
    cold = subprocess.run([sys.executable, "-c", COLD, *command], capture_output=True, text=True, check=True)
    assert cold.stderr.split() == []
    paths = lambda out: [found["path"] for found in json.loads(out)["results"]]
    assert paths(cold.stdout) == paths(first)
    assert "next search faster" not in call(*command)[2]

    again = Gallery(tmp_path / "gallery")
    assert isinstance(again.encoder, PooledEncoder) and again.encoder.converted is not None
    quick = again.encoder.look([small.query]).pooled
    assert np.array_equal(PooledEncoder(create_encoder(size=96)).look([small.query]).pooled, quick) # which takes it from the cache, in torch's company


def test_an_encoder_that_cannot_be_converted_is_tried_once(small, call, tmp_path, monkeypatch):
    tried = []
    def refuse(network, shape): tried.append(shape); raise RuntimeError("no such layer")
    monkeypatch.setattr(runtimes, "convert", refuse)
    gallery_of(small, tmp_path / "gallery", create_encoder("test_resnet", "random", 64, seed=0)).close()
    for _ in range(2):
        code, out, _ = call("find", small.query, "--gallery", tmp_path / "gallery")
        assert code == 0 and out
    assert len(tried) == 1


@pytest.mark.long
def test_what_a_record_says_must_be_what_was_converted(small, tmp_path):
    "Who changes the record of a gallery gets no other numbers, but an error."
    encoder = PooledEncoder(create_encoder("test_resnet", "random", 64, seed=0))
    encoder.convert()
    (tmp_path / "saved").mkdir()
    saved = {"kind": "encoder", "width": encoder.width, "compared": encoder.compared, **save_encoder(tmp_path / "saved", encoder.encoder)}
    from image_similarity.gallery.encoder import lazy_gallery_encoder
    assert lazy_gallery_encoder(tmp_path / "saved", saved).converted is not None
    for changed in ({"size": 96}, {"mean": [0, 0, 0]}, {"fingerprint": "../" + saved["fingerprint"]}):
        with pytest.raises(ValueError): lazy_gallery_encoder(tmp_path / "saved", saved | changed)
    (tmp_path / "saved" / saved["weights"]).unlink()
    with pytest.raises((ValueError, FileNotFoundError)): lazy_gallery_encoder(tmp_path / "saved", saved)
