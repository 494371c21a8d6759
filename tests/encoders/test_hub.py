"Somebody's weights from the hub, and timm's own, out of a cache laid out as the hub's library lays it: what loads them runs for real, without a network."
import json
import os
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_gallery import paint

from image_similarity import Gallery
from image_similarity.encoders.encoder import create_encoder

REVISION = "0123456789abcdef0123456789abcdef01234567"


def in_cache(home, repository, name, seed, **said):
    "A network as timm's `save_for_hf` writes it, in the place where a download would have put it."
    torch.manual_seed(seed)
    model, place = timm.create_model(name), home / "hub" / f"models--{repository.replace('/', '--')}"
    folder = place / "snapshots" / REVISION
    folder.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(REVISION)
    save_file(model.state_dict(), folder / "model.safetensors")
    cfg = {k: v for k, v in model.pretrained_cfg.items() if k not in ("url", "hf_hub_id", "source", "file", "architecture")}
    (folder / "config.json").write_text(json.dumps({"architecture": name, "num_classes": model.num_classes, "num_features": model.num_features,
                                                    "pretrained_cfg": {**cfg, **said}}))
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    home = tmp_path_factory.mktemp("hub")
    for i in range(4): paint(home / "photos" / f"{i}.png", i)
    weights = in_cache(home, "someone/small", "test_vit", 1, mean=[.4, .5, .6])
    own = in_cache(home, "timm/test_resnet.r160_in1k", "test_resnet", 2)

    def command(*args):
        done = subprocess.run([sys.executable, "-m", "image_similarity", *args], cwd=home, capture_output=True, text=True, timeout=120,
                              env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"})
        return done.returncode, done.stdout, done.stderr
    return home, weights, own, command


@pytest.mark.long
def test_an_address_of_the_hub(hub):
    home, weights, _, command = hub
    code, _, err = command("index", "photos", "--gallery", "g", "--arch", "hf-hub:someone/small", "--pooling", "own")
    assert code == 0, err
    gallery = Gallery(home / "g") # keeps name and weights, and no address
    record = gallery.catalogue.fact("encoder")
    assert record["name"] == "test_vit" and record["mean"] == [.4, .5, .6] and "someone" not in json.dumps(record)
    encoder = create_encoder("test_vit", weights, pooling="own")
    encoder.mean = (.4, .5, .6)
    assert gallery.encoder.fingerprint == Gallery(encoder=encoder).encoder.fingerprint


@pytest.mark.soak # two processes more
def test_timms_own_name_and_one_that_is_not_there(hub):
    home, _, own, command = hub
    code, _, err = command("index", "photos", "--gallery", "h", "--arch", "test_resnet.r160_in1k")
    assert code == 0, err
    assert Gallery(home / "h").encoder.fingerprint == Gallery(encoder=create_encoder("test_resnet.r160_in1k", own)).encoder.fingerprint
    code, _, err = command("index", "photos", "--gallery", "i", "--arch", "hf-hub:someone/else")
    assert code == 2 and len(err.splitlines()) == 1 and err.startswith("error: hf-hub:someone/else: no weights, neither in the cache") and not (home / "i").exists()
