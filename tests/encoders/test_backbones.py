"Any network of timm's: its map where it is to be found, its size, its weights from anybody's file, and names that lead nowhere."
import json
import pickle
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from image_similarity.encoders.backbones import WAYS, make_backbone
from image_similarity.encoders.encoder import create_encoder, fingerprint, pooled_of
from image_similarity.encoders.model_files import load_encoder, save_encoder


def whole(name: str, **given) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, **given).eval()


def random_pictures(size: int) -> torch.Tensor: return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def shaken(encoder):
    "As if it had been trained: many a network starts with layers that let nothing through."
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in encoder.parameters(): p += .05 * torch.randn(p.shape, generator=draw)
        for m in encoder.modules():
            if isinstance(m, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)): m.running_var.fill_(.02)
    return encoder


# --- where the map is

TOKENS = {"levit_128s": 0, "mixer_s16_224": 0, "gmlp_ti16_224": 0, "resmlp_12_224": 0, "deit_tiny_distilled_patch16_224": 2} # how many stand before the places
LARGE = {"mvitv2_tiny": 0, "volo_d1_224": 1, "tnt_s_legacy_patch16_224": 1, "efficientformer_l1": 0, "twins_svt_small": 0, "naflexvit_base_patch16_gap": 4}


@pytest.mark.parametrize("name, before", [*TOKENS.items(), *(pytest.param(*one, marks=pytest.mark.soak) for one in LARGE.items())])
@torch.inference_mode()
def test_tokens_lie_where_their_patches_are(name, before):
    encoder = shaken(create_encoder(name, "random", seed=0))
    x = random_pictures(encoder.size)
    found, tokens = encoder(x), encoder.body.forward_features(x)[:, before:]
    side = round(tokens.shape[1] ** .5)
    assert found.shape == (2, encoder.nf, side, side)
    torch.testing.assert_close(found, tokens.reshape(2, side, side, encoder.nf).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)
    assert found.std(dim=(2, 3)).mean() > 1e-4 # it tells places apart


@pytest.mark.parametrize("name, shape", [("pit_ti_224", (256, 7, 7)), ("crossvit_tiny_240", (192, 14, 14)), ("coat_tiny", (152, 7, 7)), ("efficientvit_m0", (192, 4, 4)),
                                         ("efficientvit_b0", (128, 7, 7)), ("xcit_nano_12_p8_224", (128, 28, 28)), pytest.param("hiera_tiny_224", (768, 7, 7), marks=pytest.mark.soak),
                                         pytest.param("mobilenetv5_base", (2048, 16, 16), marks=pytest.mark.soak)])
@torch.inference_mode()
def test_networks_that_pool_inside_show_the_map_before(name, shape):
    encoder = shaken(create_encoder(name, "random", seed=0))
    x = random_pictures(encoder.size)
    found = encoder(x)
    assert found.shape == (2, *shape) and encoder.nf == shape[0]
    if encoder.way is not WAYS[0]:
        expected = encoder.body.forward_intermediates(x, indices=1, intermediates_only=True, norm=not name.startswith("hiera"))[-1]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_is_in_a_corner_shows_in_that_corner():
    encoder = create_encoder("hiera_tiny_224", "random", seed=0) # it sorts its places while it works
    x = torch.zeros(1, 3, 224, 224)
    for row, column in ((0, 0), (0, 1), (1, 0)):
        with_spot = x.clone()
        with_spot[..., 112 * row + 40:112 * row + 72, 112 * column + 40:112 * column + 72] = 3
        with torch.inference_mode(): change = (encoder(with_spot) - encoder(x)).square().sum(1)[0]
        halves = change[[slice(0, 3), slice(4, 7)][row], [slice(0, 3), slice(4, 7)][column]].mean()
        assert halves > 1.5 * change.mean(), (row, column)


def test_it_can_be_pooled_pickled_and_kept(tmp_path):
    encoder = create_encoder("levit_128s", "random", seed=0)
    pixels = torch.randint(256, (2, 224, 224, 3), dtype=torch.uint8)
    expected = pooled_of(encoder, pixels)
    assert expected.shape == (2, 2 * 384)
    again = load_encoder(tmp_path, json.loads(json.dumps(save_encoder(tmp_path, encoder))))
    for other in (again, pickle.loads(pickle.dumps(encoder))): # ours, made here
        torch.testing.assert_close(torch.from_numpy(pooled_of(other, pixels)), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_a_network_without_a_map_is_refused_with_the_nearest_that_has_one(monkeypatch):
    def nothing(body, x): return body(x).mean((2, 3))
    monkeypatch.setattr("image_similarity.encoders.backbones.WAYS", (nothing,))
    with pytest.raises(ValueError, match=r"^resnet18: gives no map .* nearest that does is resnet50, or take that vector \(pooling='own'\)$"): create_encoder("resnet18", "random")


# --- its size

@pytest.mark.parametrize("name, size, grid", [("test_vit", 224, 14), ("test_vit", 96, 6), ("swin_tiny_patch4_window7_224", 256, 8), ("levit_128s", 256, 4), ("test_resnet", 72, 3), ("swin_tiny_patch4_window7_224", 130, 4)])
def test_any_size_that_the_network_can_take(name, size, grid):
    encoder = create_encoder(name, "random", size)
    with torch.inference_mode(): assert encoder(random_pictures(size)).shape == (2, encoder.nf, grid, grid)


@pytest.mark.parametrize("name, size", [("test_vit", 165), ("xcit_nano_12_p8_224", 7)])
def test_other_sizes_are_refused_in_one_line(name, size):
    with pytest.raises(ValueError, match=rf"^size={size}: {name} .*its own is ") as refused: create_encoder(name, "random", size)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name, size", [("test_vit", 224), pytest.param("swin_tiny_patch4_window7_224", 256, marks=pytest.mark.soak)])
def test_weights_are_adapted_to_a_size_as_timm_does_it(name, size, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file(whole(name).state_dict(), file)
    by_timm = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, img_size=size).state_dict()
    ours = create_encoder(name, file, size).body.state_dict()
    for key, tensor in ours.items(): torch.testing.assert_close(tensor, by_timm[key], msg=key)


def test_an_encoder_of_another_size_is_kept(tmp_path):
    encoder = create_encoder("test_vit", "random", 224, seed=0)
    assert fingerprint(load_encoder(tmp_path, save_encoder(tmp_path, encoder))) == fingerprint(encoder)


# --- files of all kinds

@pytest.mark.parametrize("name", ["maxvit_tiny_tf_224", pytest.param("coatnet_0_rw_224", marks=pytest.mark.soak), "deit_tiny_distilled_patch16_224", "test_maxvit"])
def test_files_that_timm_writes_are_read(name, tmp_path):
    model, file = whole(name), tmp_path / "weights.safetensors"
    save_file(model.state_dict(), file)
    x = random_pictures(model.pretrained_cfg["input_size"][-1])[:1]
    with torch.inference_mode():
        expected = model.forward_intermediates(x, indices=1, intermediates_only=True, output_fmt="NCHW", norm=True)[-1]
        encoder = create_encoder(name, file)
        found = encoder.body.forward_intermediates(x, indices=1, intermediates_only=True, output_fmt="NCHW", norm=True)[-1]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("wrap", [lambda w: {"state_dict": w, "epoch": 1}, lambda w: {"model": w, "opt": {}}, lambda w: {f"module.{k}": v for k, v in w.items()},
                                  lambda w: {"state_dict": {f"module._orig_mod.{k}": v for k, v in w.items()}}])
def test_checkpoints_of_training_runs(wrap, tmp_path):
    model = whole("test_resnet")
    torch.save(wrap(model.state_dict()), tmp_path / "c.pth.tar")
    encoder = create_encoder("test_resnet", tmp_path / "c.pth.tar")
    for key, tensor in encoder.body.state_dict().items(): torch.testing.assert_close(tensor, model.state_dict()[key])


def test_a_file_of_another_network_says_how_much_is_missing(tmp_path):
    torch.save({"state_dict": whole("test_vit").state_dict()}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c\.pt: does not fit test_resnet: \d+ of \d+ tensors are missing"): create_encoder("test_resnet", tmp_path / "c.pt")


# --- names

@pytest.mark.parametrize("weights", [None, "random"])
def test_a_tag_that_timm_does_not_have(weights):
    with pytest.raises(ValueError, match=r"^vgg11\.nonsense: timm has vgg11, but no weights called nonsense; there are tv_in1k$"): create_encoder("vgg11.nonsense", weights)


# --- the hub

REVISION = "0" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    "The hub's cache as a download leaves it, with one network by somebody whose pictures are prepared in another way."
    import huggingface_hub.constants as constants
    root = tmp_path / "hub" / "models--someone--model"
    snapshot = root / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(REVISION)
    model = whole("test_resnet", num_classes=7)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps({"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": {
        "input_size": [3, 96, 96], "mean": [.1, .2, .3], "std": [.4, .5, .6], "interpolation": "bilinear", "num_classes": 7, "first_conv": "conv1.0", "classifier": "fc"}}))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return model


def test_an_address_of_the_hub_given_in_person(hub, tmp_path):
    encoder = create_encoder("hf-hub:someone/model")
    assert (encoder.name, encoder.size, encoder.mean, encoder.std, encoder.interpolation) == ("test_resnet", 96, (.1, .2, .3), (.4, .5, .6), "bilinear")
    for key, tensor in encoder.body.state_dict().items(): torch.testing.assert_close(tensor, hub.state_dict()[key])
    saved = json.loads(json.dumps(save_encoder(tmp_path, encoder)))
    assert saved["name"] == "test_resnet" # a folder holds the weights, and says nothing of where they came from
    again = load_encoder(tmp_path, saved)
    assert fingerprint(again) == fingerprint(encoder) and again.mean == (.1, .2, .3)
    with pytest.raises(ValueError, match="timm has no model of that name"): load_encoder(tmp_path, {**saved, "name": "hf-hub:someone/model"})
    with pytest.raises(ValueError, match="not as an encoder takes pictures"): load_encoder(tmp_path, {**saved, "std": [0, 1, 1]})
    with pytest.raises(ValueError, match="has weights of its own"): create_encoder("hf-hub:someone/model", "random")


def test_an_address_that_leads_nowhere(hub):
    with pytest.raises(FileNotFoundError, match=r"^hf-hub:someone/else: no weights, neither in the cache"): create_encoder("hf-hub:someone/else")


def test_a_trial_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    make_backbone("test_vit", "random", 96, seed=0)
    assert torch.equal(torch.rand(1), expected)


# --- the page that says which one to take

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name, millions, pixels, licence", re.findall(r"^\| `([\w.]+)` \| ([\d.]+) \| (\d+) \| ([\w.-]+) \|", PAGE, re.MULTILINE))
def test_the_page_of_encoders_says_what_timm_says(name, millions, pixels, licence):
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
    with torch.device("meta"): network = timm.create_model(name.partition(".")[0], num_classes=0)
    assert (f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f}", str(cfg.input_size[-1]), cfg.license) == (millions, pixels, licence)


def test_the_page_names_weights_that_open_clip_has():
    open_clip = pytest.importorskip("open_clip")
    rows = re.findall(r"^\| `([\w-]+)` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert len(rows) == 4 and all(tag in open_clip.list_pretrained_tags_by_model(model) for model, tag in rows)


@pytest.mark.parametrize("name, size", [("test_vit", 96), ("test_vit", 224), ("test_vit3", None)])
def test_a_saved_encoder_loads_in_any_size(name, size, tmp_path):
    "A smaller one has fewer places, and one that pools by attention has no pool where a map is wanted: neither is a file that is too short."
    encoder = create_encoder(name, "random", size=size, seed=0)
    assert fingerprint(load_encoder(tmp_path, save_encoder(tmp_path, encoder))) == fingerprint(encoder)
