"An encoder that computes in another precision: near to itself in floats, kept as what it is, never mixed."
import os

import numpy as np
import pytest

from image_similarity.encoders.converted import OpenVino
from image_similarity.encoders.eight_bits import quantised
from image_similarity.encoders.encoder import create_encoder, embed, fingerprint, runtime_for
from image_similarity.encoders.pooled import PooledEncoder
from image_similarity.gallery.gallery import Gallery

pytest.importorskip("openvino", reason="only OpenVINO computes in it")
computes = pytest.mark.skipif(os.environ.get("ONEDNN_MAX_CPU_ISA") == "SSE41", reason="OpenVINO takes kernels for what the processor has, and its oneDNN may not use them: a machine that has less takes others")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from image_similarity.drawing.pets import sample_pets
    return sorted((sample_pets(tmp_path_factory.mktemp("drawn"), n_breeds=2, n_per_breed=2, size=96) / "images").iterdir())


@pytest.fixture(scope="module")
def encoders():
    return [create_encoder("resnet10t", "random", size=64, seed=0, precision=precision) for precision in ("float32", "bfloat16")]


@computes
def test_its_vectors_are_near_those_in_floats_from_the_first_picture_on(files, encoders):
    whole, half = (embed(files, encoder, progress=False).pooled for encoder in encoders)
    runtime = runtime_for(encoders[1])
    assert isinstance(runtime, OpenVino) and runtime.precision == "bfloat16"
    cosines = (whole * half).sum(1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(half, axis=1)
    assert cosines.min() > .99


@computes
def test_it_is_kept_and_never_mixed(files, encoders, tmp_path):
    whole, half = encoders
    assert fingerprint(whole) != fingerprint(half) and "precision" not in whole.config()
    gallery = Gallery(tmp_path / "g", encoder=half)
    gallery.add(files)
    again = Gallery(tmp_path / "g")
    assert isinstance(again.encoder, PooledEncoder) and again.encoder.encoder.precision == "bfloat16" and again.encoder.fingerprint == fingerprint(half)
    assert [r.id for r in again.search(files[0], 3)] == [r.id for r in gallery.search(files[0], 3)]
    with pytest.raises(ValueError, match="was made with"): Gallery(tmp_path / "g", encoder=whole).add(files)


@computes
@pytest.mark.long
def test_bytes_are_near_kept_and_never_mixed(files, encoders, tmp_path):
    encoder = quantised(encoders[0], files)
    whole, small = embed(files, encoders[0], progress=False).pooled, encoder.look(files).pooled
    assert ((whole * small).sum(1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(small, axis=1)).min() > .98
    gallery = Gallery(tmp_path / "g", encoder=encoder)
    gallery.add(files)
    again = Gallery(gallery.save_to(tmp_path / "copy"))
    assert again.encoder.fingerprint == encoder.fingerprint != fingerprint(encoders[0])
    np.testing.assert_array_equal(again.encoder.look(files).pooled, small)
    assert [r.id for r in again.search(files[0], 3)] == [r.id for r in gallery.search(files[0], 3)]
    with pytest.raises(ValueError, match="was made with"): Gallery(tmp_path / "g", encoder=encoders[0]).add(files)


@computes
@pytest.mark.long
def test_a_bad_picture_is_reported_by_an_encoder_in_bytes(files, encoders, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    found = quantised(encoders[0], [tmp_path / "bad.png", *files]).look([tmp_path / "bad.png"])
    assert len(found.pooled) == 0 and len(found.bad) == 1


def test_a_precision_that_is_none_is_refused():
    with pytest.raises(ValueError, match="precision='int4': choose one of float32, bfloat16"): create_encoder(precision="int4")


@pytest.fixture
def pictures(files): return str(files[0].parent)


@computes
@pytest.mark.long
def test_the_command_makes_a_gallery_of_it_and_goes_on_so(pictures, tmp_path, call, quick):
    place = str(tmp_path / "g")
    assert call("index", pictures, "--gallery", place, "--precision", "bfloat16")[0] == 0
    assert Gallery(place).catalogue.fact("encoder")["precision"] == "bfloat16"
    assert "4 unchanged" in call("index", pictures, "--gallery", place)[2]
    code, _, err = call("index", pictures, "--gallery", place, "--precision", "float32")
    assert code == 2 and "its vectors are computed in bfloat16, so --precision float32 does not fit" in err


@pytest.mark.long
def test_the_command_takes_bytes(files, pictures, tmp_path, call):
    assert call("index", pictures, "--gallery", tmp_path / "g", "--precision", "int8")[0] == 0
    assert "4 unchanged" in call("index", pictures, "--gallery", tmp_path / "g")[2]
    assert len(call("find", files[0], "--gallery", tmp_path / "g")[1].splitlines()) == 4
