"The compiled encoder gives torch's numbers, for the weights as they are now, and its cache may be lost or damaged."
import copy
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.optimizer import SGD
from torch import nn
from torchvision.transforms.functional import normalize
from torchvision.transforms.functional import to_tensor as scaled

from image_similarity.encoders import runtimes
from image_similarity.encoders.encoder import create_encoder, embed, fingerprint, pool, pooled_of, runtime_for
from image_similarity.encoders.preprocessing import open_for, resize_to, to_pixels, to_tensor
from image_similarity.encoders.converted import cached_file
from image_similarity.encoders.runtimes import Eager, OpenVino, fastest, kept_converted
from image_similarity.encoders.weights import PACKAGED

if find_spec("openvino") is None: pytest.skip("OpenVINO is not installed: torch computes everything", allow_module_level=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    "No test sees what another, or the user, has converted."
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def converted_once(tmp_path_factory):
    "A cache with what `tiny()` is converted to, which takes seconds."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("converted")))
        patch.setattr(runtimes, "WORTH_CONVERTING", 1)
        pooled_of(encoder := tiny(), noise(1))
        return cached_file(fingerprint(encoder))


@pytest.fixture
def kept(converted_once):
    "The same in the cache of this test."
    file = cached_file(fingerprint(tiny()))
    file.parent.mkdir(parents=True)
    return Path(shutil.copy(converted_once, file))


@pytest.fixture
def at_once(monkeypatch):
    "Convert for the first picture already."
    monkeypatch.setattr(runtimes, "WORTH_CONVERTING", 1)


@pytest.fixture
def conversions(monkeypatch):
    "Fingerprints of what has been converted."
    made = []
    def noted(network, shape, key, facts=None, precision="float32"):
        made.append(key)
        return fastest(network, shape, key, facts, precision)
    monkeypatch.setattr(runtimes, "fastest", noted)
    return made


def tiny(name="test_resnet", size=64):
    torch.manual_seed(0)
    return create_encoder(name, "random", size)


def by_torch(encoder, pixels) -> np.ndarray:
    "`pooled` without anything of ours but the definition; torchvision normalises."
    with torch.no_grad(): return pool(encoder(normalize(pixels.permute(0, 3, 1, 2) / 255, encoder.mean, encoder.std))).numpy()


def noise(n, size=64, seed=0): return torch.randint(256, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# --- the same numbers

@pytest.mark.parametrize("name, size", [
    ("tf_efficientnet_lite0", 96), ("test_resnet", 64),
    ("test_vit", 160),         # tokens in place of a map
    pytest.param("mobilenetv3_small_050", 64, marks=pytest.mark.long),
    pytest.param("test_mambaout", 160, marks=pytest.mark.long),    # channels last
    pytest.param("test_maxvit", 160, marks=pytest.mark.long)])     # windows of attention
def test_compiled_is_torch(name, size, at_once):
    encoder = create_encoder(name, None if name in PACKAGED else "random", size)
    x = noise(5, size)
    expected, found = by_torch(encoder, x), pooled_of(encoder, x)
    runtime = runtime_for(encoder)
    if isinstance(runtime, Eager) and os.environ.get("ONEDNN_MAX_CPU_ISA") == "SSE41": pytest.skip(f"OpenVINO is not made for so old a processor: {runtime.why}")
    assert isinstance(runtime, OpenVino)
    assert found.shape == expected.shape == (5, 2 * encoder.nf) and found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


def test_a_picture_gets_the_same_numbers_in_any_batch(kept):
    encoder, x = tiny(), noise(7)
    alone = np.concatenate([pooled_of(encoder, row[None]) for row in x])
    assert isinstance(runtime_for(encoder), OpenVino)
    for batch in (x, x[3:], x.flip(0).flip(0), x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)):
        np.testing.assert_allclose(pooled_of(encoder, batch), alone[-len(batch):], atol=1e-5)


def test_files_get_the_numbers_of_their_tensors(small, at_once):
    encoder = create_encoder(size=96)
    embedded = embed(small.data.files, encoder, progress=False)
    assert isinstance(runtime_for(encoder), OpenVino)
    np.testing.assert_allclose(embedded.pooled, by_torch(encoder, torch.stack([to_pixels(f, encoder) for f in small.data.files])), atol=1e-4)


def test_order_and_bad_files_survive_small_batches(small, kept, tmp_path):
    encoder, bad = tiny(), tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    assert isinstance(runtime_for(encoder), OpenVino)
    files = [*small.data.files[:5], bad, *small.data.files[5:9], tmp_path / "absent.jpg"]
    embedded = embed(files, encoder, augment=1, batch_size=4, progress=False)
    whole = embed(files, encoder, augment=1, batch_size=64, progress=False)
    assert embedded.files == [*small.data.files[:9]] and embedded.kept.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert [e.path for e in embedded.bad] == [bad, tmp_path / "absent.jpg"]
    np.testing.assert_allclose(embedded.pooled, whole.pooled, atol=1e-5)
    np.testing.assert_allclose(embedded.augmented, whole.augmented, atol=1e-5)


def test_the_tensor_is_what_torchvision_makes(small):
    encoder = tiny()
    picture = resize_to(open_for(small.query, encoder), encoder)
    torch.testing.assert_close(to_tensor(picture, encoder), normalize(scaled(picture), encoder.mean, encoder.std), atol=1e-6, rtol=0)


# --- the weights as they are now

def test_training_is_noticed(at_once, conversions):
    encoder, x = tiny(), noise(4)
    before = pooled_of(encoder, x)
    optimizer = SGD([list(encoder.parameters())], lr=0.1) # fastai's, which changes `.data` behind torch's back
    encoder.train()
    pool(encoder(x.permute(0, 3, 1, 2) / 128 - 1)).square().mean().backward()
    optimizer.step()
    in_training = pooled_of(encoder, x)
    assert isinstance(runtime_for(encoder), Eager) and encoder.training
    encoder.eval()
    after = pooled_of(encoder, x)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, by_torch(encoder, x), atol=1e-4)
    np.testing.assert_allclose(in_training, after, atol=1e-4)
    assert len(set(conversions)) == len(conversions) == 2


@pytest.mark.parametrize("change", [
    lambda body: body.conv1[0].weight.data.__setitem__((0, 0, 0, 0), 0.5),                             # no version is raised
    lambda body: body.conv1[0].weight.detach().numpy().__setitem__((0, 0, 0, 0), 0.5),                 # nor here
    lambda body: body.bn1.running_mean.add_(0.1),
    lambda body: body.conv1[0].weight.detach().copy_(body.conv1[0].weight.detach().flip(0)),           # the same bits elsewhere
    lambda body: body.load_state_dict({k: v * 1.01 for k, v in body.state_dict().items()}),
    lambda body: setattr(body.conv1[0], "weight", nn.Parameter(body.conv1[0].weight.detach() * 1.01))])
def test_any_change_of_a_weight_is_noticed(change, kept):
    encoder, x = tiny(), noise(2)
    before = pooled_of(encoder, x)
    assert isinstance(runtime_for(encoder), OpenVino)
    with torch.no_grad(): change(encoder.body)
    expected = by_torch(encoder, x)
    assert np.abs(expected - before).max() > 1e-4
    np.testing.assert_allclose(pooled_of(encoder, x), expected, atol=1e-4)


def test_an_unchanged_encoder_is_converted_once(at_once, conversions):
    encoder, x = tiny(), noise(1)
    for _ in range(3): pooled_of(encoder, x)
    assert conversions == [fingerprint(encoder)]


# --- when

def test_few_pictures_are_not_worth_a_conversion(monkeypatch, conversions):
    monkeypatch.setattr(runtimes, "WORTH_CONVERTING", 6)
    encoder = tiny()
    pooled_of(encoder, noise(5))
    assert conversions == [] and "not converted yet" in repr(runtime_for(encoder))
    pooled_of(encoder, noise(1))
    assert len(conversions) == 1 and "OpenVINO" in repr(runtime_for(encoder))


def test_what_another_process_converted_is_used(kept, at_once, conversions):
    encoder, x = tiny(), noise(2)
    assert isinstance(runtime_for(encoder), OpenVino) and not conversions
    np.testing.assert_allclose(pooled_of(encoder, x), by_torch(encoder, x), atol=1e-4)


@pytest.mark.parametrize("damage", [
    lambda file: file.write_bytes(file.read_bytes()[:-1000]), lambda file: file.write_bytes(b""),
    lambda file: file.write_bytes(file.read_bytes()[:-5000] + bytes(10) + file.read_bytes()[-4990:])], ids=["cut off", "empty", "bits"])
def test_a_damaged_cache_is_not_used(damage, kept):
    encoder, x = tiny(), noise(2)
    assert kept_converted(fingerprint(encoder)) is not None
    damage(kept)
    assert kept_converted(fingerprint(encoder)) is None and isinstance(runtime_for(encoder), Eager)
    np.testing.assert_allclose(pooled_of(encoder, x), by_torch(encoder, x), atol=1e-5)


def test_a_damaged_cache_is_made_again(kept, at_once, conversions):
    encoder, x = tiny(), noise(2)
    kept.write_bytes(kept.read_bytes()[:-1000])
    np.testing.assert_allclose(pooled_of(encoder, x), by_torch(encoder, x), atol=1e-4)
    assert len(conversions) == 1 and kept_converted(fingerprint(encoder)) is not None and isinstance(runtime_for(copy.deepcopy(encoder)), OpenVino)


@pytest.mark.long
def test_a_cache_that_cannot_be_written_costs_nothing(at_once, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    encoder, x = tiny(), noise(2)
    np.testing.assert_allclose(pooled_of(encoder, x), by_torch(encoder, x), atol=1e-4)
    assert isinstance(runtime_for(encoder), OpenVino)


def test_an_encoder_with_a_compiled_form_can_be_copied_and_pickled(kept):
    encoder, x = tiny(), noise(2)
    assert isinstance(runtime_for(encoder), OpenVino)
    expected = pooled_of(encoder, x)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))): # ours, made here
        np.testing.assert_allclose(pooled_of(other, x), expected, atol=1e-5)


# --- what torch computes itself

def test_other_dtypes_stay_with_torch(at_once):
    encoder = tiny().double()
    assert "float64" in repr(runtime_for(encoder))
    assert pooled_of(encoder, noise(1)).dtype == np.float32


def test_another_size_than_the_encoders_stays_with_torch(at_once):
    encoder, x = tiny(), noise(1, 96)
    np.testing.assert_allclose(pooled_of(encoder, x), by_torch(encoder, x), atol=1e-5)


def test_without_openvino_torch_computes_and_says_so(at_once, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    encoder, x = tiny(), noise(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(pooled_of(encoder, x), by_torch(encoder, x), atol=1e-5)
    assert "pip install openvino" in repr(runtime_for(encoder))


def test_an_encoder_that_cannot_be_converted_is_computed_by_torch_with_one_warning(at_once, monkeypatch):
    def refuse(network, shape): raise RuntimeError("no such layer")
    monkeypatch.setattr(runtimes, "convert", refuse)
    encoder, x = tiny(), noise(2)
    with pytest.warns(UserWarning, match="no such layer.*torch"): found = pooled_of(encoder, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(pooled_of(encoder, x), found, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found, by_torch(encoder, x), atol=1e-5)
    assert "no such layer" in repr(runtime_for(encoder))


# --- quiet

def test_openvino_reports_nothing_over_the_network():
    code = ("import sys, image_similarity.encoders.converted as r; r.load_openvino(); assert 'openvino' in sys.modules;"
            "print(sorted(m for m in sys.modules if m.startswith('openvino_telemetry')))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert done.stdout.strip() == "[]"
