"Weights from a file, as the commands take them."
import pytest
import timm
import torch
from small_gallery import paint

from image_similarity import Gallery, SimilarityFinder
from image_similarity.encoders.encoder import create_encoder, fingerprint


@pytest.fixture
def home(tmp_path, monkeypatch):
    for i in range(18): paint(tmp_path / "photos" / "abc"[i % 3] / f"{i}.png", i)
    for seed, name in ((1, "mine.pt"), (2, "other.pt")):
        torch.manual_seed(seed)
        torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in timm.create_model("test_resnet").state_dict().items()}}, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_gallery_keeps_them(call, home):
    code, _, err = call("index", "photos", "--gallery", "g", "--arch", "test_resnet", "--weights", "mine.pt")
    assert code == 0 and "18 new" in err
    assert Gallery("g").encoder.fingerprint == fingerprint(create_encoder("test_resnet", "mine.pt"))
    assert "18 unchanged" in call("index", "photos", "--gallery", "g")[2] # they are in the gallery
    assert "18 unchanged" in call("index", "photos", "--gallery", "g", "--weights", "mine.pt")[2]
    code, _, err = call("index", "photos", "--gallery", "g", "--weights", "other.pt")
    assert code == 2 and "was made with test_resnet of fingerprint" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("args, said", [
    (["--arch", "test_resnet", "--weights", "none.pt"], "none.pt: no such weight file"), (["--arch", "test_vit", "--weights", "mine.pt"], "mine.pt: does not fit test_vit: "),
    (["--weights", "mine.pt"], "mine.pt: does not fit tf_efficientnet_lite0: "), (["--arch", "hf-hub:a/b", "--weights", "mine.pt"], "hf-hub:a/b: has weights of its own")])
def test_what_does_not_fit_is_said_in_one_line(call, home, args, said):
    code, _, err = call("index", "photos", "--gallery", "g", *args)
    assert code == 2 and err.startswith(f"error: {said}") and len(err.splitlines()) == 1
    assert not (home / "g").exists()


def test_a_model_is_trained_on_them(call, home, quick):
    code, _, err = call("train", "photos", "--out", "model", "--labels", "folder", "--arch", "test_resnet", "--weights", "mine.pt", "--quiet")
    assert code == 0, err
    assert fingerprint(SimilarityFinder.load("model").encoder) == fingerprint(create_encoder("test_resnet", "mine.pt", 96))
