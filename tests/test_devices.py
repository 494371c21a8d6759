"""Another device than the CPU, all the way: learners, training, fine-tuning, search, explanation, saving, loading.

The device is torch's `lazy`: it computes on the CPU, holds its tensors apart from the CPU's, and refuses to mix the two, as a GPU does. So what is left
on the wrong side fails here, on a machine without a GPU. tests/gpu.py does the same on a real one.
"""
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.vision.all import (CategoryBlock, CrossEntropyLossFlat, DataBlock, ImageBlock, IntToFloatTensor, Learner, Normalize, RandomSplitter, Resize, TfmdLists, ToTensor,
                               create_body, create_head, get_image_files, imagenet_stats, vision_learner)
from torchvision.models import resnet18

from image_similarity import (Gallery, MatchPredictor, SiameseImage, SiameseModel, SiameseTransform, SimilarityFinder, classifier_learner, create_encoder,
                              embed, embedding_learner, pair_maps, siamese_learner, siamese_loss, siamese_splitter)
from image_similarity.encoders.runtimes import network_device
from image_similarity.finder.training import fit_finder
from image_similarity.images.datasets import draw_pairs
from image_similarity.images.listing import label_func
from image_similarity.learners import heads
from image_similarity.learners.classifier import class_scorer
from image_similarity.learners.encoder_tuning import Tuning
from image_similarity.learners.siamese import pair_scorer, siampredict

lazy = pytest.importorskip("torch._lazy.ts_backend", reason="this torch has no lazy device")
ELSEWHERE = "lazy"
DEVICE = {"now": None} # fastai's default, in these tests


def device_of(module): return next(module.parameters()).device.type


def chunk(tensor, n, dim=0):
    "What `chunk` does, which loses the device where it is lazy."
    size = -(-tensor.shape[dim] // n)
    return tuple(tensor.narrow(dim, i, min(size, tensor.shape[dim] - i)) for i in range(0, tensor.shape[dim], size))


@pytest.fixture(scope="module", autouse=True)
def other_device():
    "In the place of fastai's default device, wherever it has been imported to."
    lazy.init()
    import fastai.torch_core
    real = fastai.torch_core.default_device
    def other(use=-1): return real(use) if DEVICE["now"] is None else DEVICE["now"] # whoever imports it meanwhile keeps it
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DEVICE, "now", torch.device(ELSEWHERE, 0))
        for module in list(sys.modules.values()):
            if getattr(getattr(module, "default_device", None), "__module__", None) == real.__module__: patch.setattr(module, "default_device", other)
        patch.setattr("image_similarity.learners.classifier.aug_transforms", lambda: []) # the device has no affine grids, and mixes floats with doubles there
        patch.setattr(torch.Tensor, "chunk", chunk)
        patch.setattr(torch, "inference_mode", torch.no_grad) # under which the device makes no views
        for place in ("classifier", "siamese_data"): patch.setattr(f"image_similarity.learners.{place}.loader_workers", lambda: 0) # it does not live through a fork
        yield


@pytest.fixture
def cpu_again(other_device, monkeypatch):
    "As on another machine, which has no such device."
    monkeypatch.setitem(DEVICE, "now", torch.device("cpu"))


def test_the_device_refuses_to_mix():
    assert network_device().type == ELSEWHERE
    with pytest.raises(RuntimeError): torch.zeros(2, 2, device=ELSEWHERE) @ torch.zeros(2, 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "Few pictures, an encoder over there, and vectors here."
    from image_similarity import labelled_images, sample_pets
    data = labelled_images(sample_pets(tmp_path_factory.mktemp("device") / "pets", n_breeds=3, n_per_breed=5, size=96) / "images", valid_pct=.2)
    encoder = create_encoder(size=64)
    return SimpleNamespace(data=data, encoder=encoder, embedded=embed(data.files, encoder, augment=1, progress=False))


@pytest.fixture(scope="module")
def learners(made):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("image_similarity.learners.siamese_head.pair_batches", lambda *args, **options: heads.pair_batches(*args, **{**options, "n_pairs": 96, "n_batches": 2}))
        options = {"epochs": 1, "progress": False}
        return classifier_learner(made.data, made.encoder, made.embedded, **options), siamese_learner(made.data, made.encoder, made.embedded, calibrated=False, **options)


@pytest.fixture(scope="module")
def finder(made, learners):
    return SimilarityFinder(*learners, [made.data.files[i] for i in made.data.train], progress=False)


def test_an_encoder_looks_from_over_there_and_gives_its_vectors_here(made):
    assert device_of(made.encoder) == ELSEWHERE
    here = create_encoder(size=64).cpu()
    np.testing.assert_allclose(made.embedded.pooled, embed(made.data.files, here, progress=False).pooled, rtol=1e-3, atol=1e-4)


def test_networks_are_there_and_matrices_here(learners):
    clearn, slearn = learners
    assert {device_of(clearn.model), device_of(slearn.model), clearn.dls.device.type, slearn.dls.device.type} == {ELSEWHERE}
    assert {class_scorer(clearn).weight.device.type, pair_scorer(slearn).A.device.type} == {"cpu"}


def test_learners_answer(made, learners):
    clearn, slearn = learners
    with clearn.no_bar(), slearn.no_bar():
        said = clearn.predict(made.data.files[0])[2]
        clearn.validate()
        slearn.validate()
        losses = slearn.get_preds(with_loss=True)[2]
    pooled = torch.from_numpy(made.embedded.pooled)
    np.testing.assert_allclose(said, class_scorer(clearn).log_posterior(pooled[:1]).exp()[0], atol=1e-3)
    logit = slearn.siampredict(SiameseImage(*made.data.files[:2]))[0]
    assert logit.device.type == losses.device.type == "cpu"
    assert pair_scorer(slearn).pair_logits(pooled[:1], pooled[1:2]).item() == pytest.approx(logit.item(), abs=1e-3)


def test_a_finder_searches_explains_and_is_kept(made, finder, cpu_again, tmp_path):
    query = made.data.files[made.data.valid[0]]
    found = finder.search(query, 3)
    why, predicted = finder.explain(found[0]), finder.predict(query, show=False)
    assert why.query_map.ndim == 2 and len(finder.acts) == len(finder.fns)
    loaded = SimilarityFinder.load(finder.save(tmp_path / "model")) # where there is a CPU only
    assert device_of(loaded.encoder) == "cpu"
    assert [r.path for r in loaded.search(query, 3)] == [r.path for r in found] and loaded.predict(query, show=False) == predicted
    np.testing.assert_allclose(pair_maps(loaded.encoder, loaded.scorer, query, found[0].path).query_map, why.query_map, atol=1e-2)
    assert {device_of(loaded.clearn.model), device_of(loaded.slearn.model)} == {"cpu"}


@pytest.mark.soak # in a process of its own: it is not so behind every other test
def test_what_was_saved_elsewhere_is_loaded_over_there(finder, made, tmp_path):
    loaded = SimilarityFinder.load(finder.save(tmp_path / "model"))
    assert device_of(loaded.encoder) == device_of(loaded.clearn.model) == device_of(loaded.slearn.model) == ELSEWHERE
    query = made.data.files[made.data.valid[0]]
    assert [r.path for r in loaded.search(query, 3)] == [r.path for r in finder.search(query, 3)]
    assert loaded.slearn.siampredict(SiameseImage(query, query))[0].isfinite()
    assert len(Gallery(tmp_path / "model").search(query, 3)) == 3


@pytest.mark.parametrize("tuning", [Tuning(epochs=1), pytest.param(Tuning("triplet", 1), marks=pytest.mark.soak)], ids=["end to end", "with a layer"])
def test_training_end_to_end(made, tuning, few):
    finder, data, _ = fit_finder(made.data, made.encoder, 1, sys.stderr, tuning, epochs=1)
    assert device_of(finder.encoder) == ELSEWHERE and len(finder.search(data.files[0], 2)) == 2


@pytest.mark.soak
@pytest.mark.parametrize("which", ["classifier", "Siamese network"])
def test_learners_go_on_end_to_end(learners, which):
    "The head alone, the body frozen, then all weights."
    learn = learners[which != "classifier"]
    if which == "classifier": learn.loss_func = CrossEntropyLossFlat() # of smoothed labels the device mixes floats and doubles
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1)
    assert class_scorer(learners[0]).weight.device.type == pair_scorer(learners[1]).A.device.type == "cpu"


@pytest.mark.soak
def test_a_layer_of_metric_learning(made):
    learn = embedding_learner(made.data, encoder=made.encoder, embedded=made.embedded, epochs=1, progress=False)
    assert device_of(learn.model) == ELSEWHERE
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)
    assert np.isfinite(embed(made.data.files[:2], learn.model.encoder, progress=False).pooled).all()


@pytest.mark.soak
def test_pairs_in_a_table(made, monkeypatch):
    import pandas as pd
    from image_similarity.matching import image_head
    monkeypatch.setattr(image_head, "drawn_batches", lambda views, source, draw=image_head.drawn_batches: draw(views, source, 2, 96))
    i, j = draw_pairs(made.data.targets, 40, 0)
    files = np.array(made.data.files, str)
    table = pd.DataFrame({"a": files[i], "b": files[j], "match": (made.data.targets[i] == made.data.targets[j]).astype(int)})
    predictor = MatchPredictor("a", "b", "match", hyperparameters={"size": 64, "augment": 1, "method": "siamese", "epochs": 1})
    assert len(predictor.fit(table, progress=False).predict_proba(table)) == 40


def plain_learners(made):
    "As the article makes them."
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=label_func, splitter=RandomSplitter(seed=2), item_tfms=Resize(64))
    clearn = vision_learner(block.dataloaders(made.data.files[0].parent, bs=4, num_workers=0), resnet18, pretrained=False)
    splits = RandomSplitter(seed=23)(made.data.files)
    dls = TfmdLists(made.data.files, SiameseTransform(made.data.files, splits), splits=splits).dataloaders(
        after_item=[Resize(64), ToTensor], after_batch=[IntToFloatTensor, Normalize.from_stats(*imagenet_stats)], bs=4, num_workers=0)
    body = create_body(resnet18(weights=None), cut=-2)
    return clearn, Learner(dls, SiameseModel(body, create_head(512 * 2, 1)), loss_func=siamese_loss, splitter=siamese_splitter)


@pytest.mark.soak
@pytest.mark.parametrize("trained", [False, True], ids=["as made", "trained"])
def test_learners_of_ones_own(made, trained, tmp_path):
    clearn, slearn = plain_learners(made)
    for learn in (clearn, slearn) if trained else ():
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)
    query = made.data.files[made.data.valid[0]]
    finder = SimilarityFinder(clearn, slearn, [made.data.files[i] for i in made.data.train], progress=False)
    found = finder.search(query, 2)
    assert siampredict(slearn, SiameseImage(query, query))[0].device.type == "cpu"
    loaded = SimilarityFinder.load(finder.save(tmp_path / "own"))
    assert [r.path for r in loaded.search(query, 2)] == [r.path for r in found]
