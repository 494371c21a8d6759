"""Learners of one's own, kept in a folder: what is loaded answers as what was saved did, and a folder from elsewhere builds nothing that it does not hold."""
import json
import pickle
import shutil
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import timm
import torch
from fastai.vision.all import (CategoryBlock, DataBlock, ImageBlock, IntToFloatTensor, Learner, Normalize, RandomSplitter, Resize, TfmdLists, ToTensor,
                               create_body, create_head, get_image_files, imagenet_stats, vision_learner)
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import resnet18, squeezenet1_1

from image_similarity import SiameseImage, SiameseModel, SiameseTransform, SimilarityFinder, labelled_images, sample_pets, siamese_loss, siamese_splitter
from image_similarity.encoders.encoder import embed, pooled_of
from image_similarity.finder.evaluation import evaluate
from image_similarity.finder.onnx_export import ImageGraph, export_onnx
from image_similarity.images.listing import label_func
from image_similarity.learners.siamese import siampredict
from image_similarity.learners.siamese_head import SiameseHead


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return labelled_images(sample_pets(tmp_path_factory.mktemp("own") / "pets", n_breeds=3, n_per_breed=5, size=96) / "images", valid_pct=.2)


def classifier(data, arch, **head):
    torch.manual_seed(0)
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=label_func, splitter=RandomSplitter(seed=2), item_tfms=Resize(96))
    learn = vision_learner(block.dataloaders(data.files[0].parent, bs=4, num_workers=0), arch, pretrained=False, **head)
    return settled(learn)


def siamese(data, body, head):
    torch.manual_seed(1)
    splits = RandomSplitter(seed=23)(data.files)
    dls = TfmdLists(data.files, SiameseTransform(data.files, splits), splits=splits).dataloaders(
        after_item=[Resize(96), ToTensor], after_batch=[IntToFloatTensor, Normalize.from_stats(*imagenet_stats)], bs=4, num_workers=0)
    return settled(Learner(dls, SiameseModel(body, head), loss_func=siamese_loss, splitter=siamese_splitter))


def settled(learn):
    "As if it had been trained: batch norms that are not as they were made."
    for m in learn.model.modules():
        if isinstance(m, nn.BatchNorm1d): m.running_mean.normal_(0, .1), m.running_var.uniform_(.5, 2)
    return learn


def of_torchvision(data): return classifier(data, resnet18), siamese(data, create_body(resnet18(weights=None), cut=-2), create_head(512 * 2, 1, ps=.5))
def of_timm(data):
    body = timm.create_model("test_resnet", num_classes=0, global_pool="")
    return classifier(data, "test_resnet", lin_ftrs=[]), siamese(data, body, create_head(body.num_features * 2, 1))
def of_others(data): # another network, two hidden layers, and the head that is ours
    body = nn.Sequential(*list(timm.create_model("test_resnet").children())[:-2])
    return classifier(data, squeezenet1_1, lin_ftrs=[32, 16]), siamese(data, body, SiameseHead(96, hidden=8, symmetric=False))


@pytest.fixture(scope="module", params=[of_torchvision, of_timm, pytest.param(of_others, marks=pytest.mark.soak)], ids=lambda made: made.__name__)
def kept(request, data, tmp_path_factory):
    "A finder of such learners, the folder it was saved in, and what is loaded from it."
    finder = SimilarityFinder(*request.param(data), [data.files[i] for i in data.train], progress=False)
    folder = finder.save(tmp_path_factory.mktemp("model") / "own")
    return finder, folder, SimilarityFinder.load(folder)


@pytest.fixture(scope="module")
def resnets(data, tmp_path_factory):
    return SimilarityFinder(*of_torchvision(data), [data.files[i] for i in data.train], progress=False).save(tmp_path_factory.mktemp("model") / "own")


@pytest.fixture
def model(resnets, tmp_path):
    return shutil.copytree(resnets, tmp_path / "model")


def test_all_answers_are_what_they_were(kept, data):
    finder, _, again = kept
    for query in [data.files[i] for i in data.valid]:
        assert again.predicted_class(query)[0] == finder.predicted_class(query)[0]
        before, after = ({r.path: (r.score, r.pair_probability) for r in f.search(query, len(finder), "all")} for f in (finder, again))
        assert before.keys() == after.keys()
        for path, numbers in before.items(): np.testing.assert_allclose(after[path], numbers, rtol=1e-4, atol=1e-4)
    pooled = embed(data.files, finder.class_encoder, progress=False).pooled
    np.testing.assert_allclose(again.classes.log_posterior(pooled), finder.classes.log_posterior(pooled), rtol=1e-4, atol=1e-4)
    rows = torch.from_numpy(embed(data.files, finder.encoder, progress=False).pooled)
    np.testing.assert_allclose(again.scorer.pair_logits(rows, rows.flip(0)), finder.scorer.pair_logits(rows, rows.flip(0)), rtol=1e-4, atol=1e-4)


def test_it_is_measured_as_before(kept, data):
    finder, _, again = kept
    before, after = (evaluate(f, data, n_resamples=20, progress=False) for f in (finder, again))
    assert before.keys() == after.keys()
    for name in before: assert after[name].value == pytest.approx(before[name].value, abs=1e-3)


def test_the_learners_come_back(kept, data):
    finder, _, again = kept
    pair = SiameseImage(*data.files[:2])
    assert siampredict(again.slearn, pair)[0].item() == pytest.approx(siampredict(finder.slearn, pair)[0].item(), abs=.05) # read a little smaller, not quite the same pixels
    with again.clearn.no_bar(), finder.clearn.no_bar():
        np.testing.assert_allclose(again.clearn.predict(data.files[0])[2], finder.clearn.predict(data.files[0])[2], atol=.02)


def test_what_was_loaded_is_saved_again(kept, data, tmp_path):
    finder, folder, _ = kept
    again = SimilarityFinder.load(folder)
    _ = again.clearn, again.slearn # now they are described anew
    once_more = SimilarityFinder.load(again.save(tmp_path / "twice"))
    assert [r.path for r in once_more.search(data.files[0], 3)] == [r.path for r in finder.search(data.files[0], 3)]
    same = ("encoder", "class_encoder", "labels", "class_layers", "learners", "symmetric")
    assert [json.loads((tmp_path / "twice" / "manifest.json").read_text())[k] for k in same] == [json.loads((folder / "manifest.json").read_text())[k] for k in same]


def test_the_graph_for_onnx_says_the_same(kept):
    _, _, again = kept
    picture = torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(): vector, probabilities = ImageGraph(again).eval()(picture)
    np.testing.assert_allclose(vector, pooled_of(again.encoder, picture), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(probabilities, again.classes.log_posterior(pooled_of(again.class_encoder, picture)).exp(), atol=1e-4)


@pytest.mark.soak
def test_it_is_exported(kept, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert all(file.is_file() for file in export_onnx(kept[2], tmp_path)) # it compares the numbers itself


@pytest.mark.soak
def test_neither_fastai_nor_a_pickle_is_needed_to_find(resnets, data):
    code = ("import sys\nfor name in ('fastai', 'cloudpickle'): sys.modules[name] = None\n"
            "def hook(event, _):\n    if event == 'pickle.find_class': raise AssertionError('unpickled')\n"
            "sys.addaudithook(hook)\n"
            "from image_similarity.cli.commands import main\nmain(sys.argv[1:])")
    done = subprocess.run([sys.executable, "-c", code, "find", data.files[0], "--model", resnets, "--top-k", "2"], capture_output=True, text=True)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr
    assert sorted({f.suffix for f in resnets.iterdir()}) == [".json", ".revision", ".safetensors", ".sqlite"]


@pytest.mark.long
def test_it_is_served(resnets, data, tmp_path):
    "Over HTTP the same results, probabilities and maps as from the folder itself."
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi", reason="the service is not installed")
    from image_similarity.service.app import create_app
    from image_similarity.service.server import running
    finder, query = SimilarityFinder.load(resnets), data.files[data.valid[0]]
    shutil.copytree(resnets, tmp_path / "pets")
    with running(create_app(tmp_path)) as address, httpx.Client(base_url=address, timeout=120) as client:
        info = client.get("/v1/collections/pets").json()
        assert (info["kind"], info["classes"]) == ("model", finder.classes.labels)
        found = client.post("/v1/collections/pets/search", content=query.read_bytes(), headers={"Content-Type": "image/jpeg"}, params={"options": json.dumps({"top_k": 4})}).json()
        expected = finder.search(query, 4)
        assert [r["id"] for r in found["results"]] == [r.id for r in expected]
        assert [r["probability"] for r in found["results"]] == pytest.approx([r.probability for r in expected], abs=1e-3)
        with open(query, "rb") as first, open(expected[0].path, "rb") as second:
            said = client.post("/v1/collections/pets/match", files={"first": first, "second": second}).json()
        assert said["probability"] == pytest.approx(finder.explain(expected[0]).probability, abs=1e-3)


# --- what cannot be kept

@pytest.mark.long
def test_layers_that_cannot_be_built_again_are_named(data, tmp_path):
    clearn, slearn = of_torchvision(data)
    slearn.model.encoder[6][1].relu = nn.Mish()
    finder = SimilarityFinder(clearn, slearn, data.files[:3], progress=False)
    with pytest.raises(TypeError, match=r"network \(Sequential\) cannot be built again from a folder: 6.1.relu is Mish\(\) where resnet18 has ReLU\(inplace=True\); keep"): finder.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_only_works_differently_is_noticed(data, tmp_path):
    clearn, slearn = of_torchvision(data)
    slearn.model.encoder[4].register_forward_hook(lambda module, args, out: out * 2)
    with pytest.raises(TypeError, match="those of resnet18, and yet it gives other numbers"):
        SimilarityFinder(clearn, slearn, data.files[:3], progress=False).save(tmp_path / "model")


# --- folders from elsewhere

def edit(model, change):
    manifest = json.loads((model / "manifest.json").read_text())
    change(manifest)
    (model / "manifest.json").write_text(json.dumps(manifest))


GIANT = {"layer": "Linear", "in_features": 1_000_000, "out_features": 1_000_000, "bias": True}

@pytest.mark.parametrize("change, said", [
    (lambda m: m["encoder"]["network"].update(name="vgg19_bn"), "does not hold vgg19_bn"),
    (lambda m: m["encoder"]["network"].update(library="timm", name="vit_giant_patch14_dinov2", part="features"), "does not hold vit_giant"),
    (lambda m: m["encoder"]["network"].update(name="hf-hub:someone/model"), "not a network that can be built"),
    (lambda m: m["encoder"]["network"].update(library="os", name="system"), "not a network that can be built"),
    (lambda m: m["encoder"]["network"].update(children=3), "does not hold resnet18"),
    (lambda m: m["encoder"]["network"].update(channels=8), "train again"),
    (lambda m: m["encoder"]["network"].update(crop="all of it"), "central square"),
    (lambda m: m["encoder"].update(size=10 ** 9), "wants pictures of 1000000000 pixels"),
    (lambda m: m["encoder"].update(interpolation="none"), "not as an encoder takes them"),
    (lambda m: m["encoder"].update(network=[[[]]]), "central square"),
    (lambda m: m["encoder"].update(weights=None), "None: no such weight file|train again"),
    (lambda m: m["encoder"].pop("network"), "no model of that name|train again"),
    (lambda m: m["encoder"].update(mean=[0, 0, 0]), "fingerprint"),
    (lambda m: m.update(class_layers=[GIANT]), "not those of the layers"),
    (lambda m: m.update(class_layers=[{"layer": "exec", "code": "x"}]), "not a layer"),
    (lambda m: m.update(class_layers=[[m["class_layers"]]]), "not a layer"),
    (lambda m: m.update(class_layers=m["class_layers"] * 50), "at most 100"),
    (lambda m: m.update(labels=m["labels"][:2]), "must agree")])
def test_a_manifest_that_does_not_fit_is_refused_at_once(model, change, said):
    edit(model, change)
    with pytest.raises((ValueError, FileNotFoundError), match=said): SimilarityFinder.load(model)


def test_a_manifest_that_is_nested_deep_is_refused(model):
    (model / "manifest.json").write_text('{"format": 1, "class_layers": ' + "[" * 200_000 + "]" * 200_000 + "}")
    with pytest.raises(ValueError, match="damaged"): SimilarityFinder.load(model)


def test_a_giant_of_timm_with_a_small_file_takes_no_memory(model):
    "An encoder by name, as `train` keeps it."
    edit(model, lambda m: (m["encoder"].update(name="vit_giant_patch14_dinov2"), m["encoder"].pop("network")))
    with pytest.raises(ValueError, match="holds .* numbers, and vit_giant_patch14_dinov2 has 1,1"): SimilarityFinder.load(model)


@pytest.mark.parametrize("part, said", [("encoder.safetensors", "does not hold resnet18"), ("scorers.safetensors", "not those of the layers")])
def test_tensors_that_do_not_fit(model, part, said):
    tensors = load_file(model / part)
    name = next(k for k in sorted(tensors) if k.endswith("weight") and tensors[k].ndim > 1)
    save_file({**tensors, name: tensors[name][:1].clone()}, model / part)
    if part == "scorers.safetensors": # what is no longer the file that was saved is refused unread; earlier versions took no fingerprints
        with pytest.raises(ValueError, match="not the file that was saved here"): SimilarityFinder.load(model)
        edit(model, lambda m: m.pop("files"))
    with pytest.raises(ValueError, match=said): SimilarityFinder.load(model)


def test_a_head_that_does_not_fit_is_noticed_when_the_learner_is_asked_for(model):
    edit(model, lambda m: m["learners"]["clearn"]["layers"].append(GIANT))
    with pytest.raises(ValueError, match="not those of the layers"): _ = SimilarityFinder.load(model).clearn


def test_a_copy_is_opened_from_its_folder(resnets, data):
    finder = SimilarityFinder.load(resnets)
    for other in (deepcopy(finder), pickle.loads(pickle.dumps(finder))): assert [r.path for r in other.search(data.files[0], 3)] == [r.path for r in finder.search(data.files[0], 3)]


def test_a_folder_is_not_replaced_by_a_model_alone_while_its_gallery_is_searched(model, tmp_path):
    finder = SimilarityFinder.load(model)
    before = sorted(f.name for f in model.iterdir())
    with pytest.raises(ValueError, match="holds the gallery of this finder"): finder.save(model, with_gallery=False)
    assert sorted(f.name for f in model.iterdir()) == before and len(SimilarityFinder.load(model)) == len(finder)
    alone = finder.save(tmp_path / "alone", with_gallery=False)
    assert len(SimilarityFinder.load(alone, model)) == len(finder)
