"""The article's two learners as it builds them, with nothing of ours but the Siamese parts: the finder takes them as they are."""
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fastai.vision.all import (CategoryBlock, DataBlock, ImageBlock, IntToFloatTensor, Learner, Normalize, PILImage, RandomSplitter, RegexLabeller,
                               Resize, TfmdLists, ToTensor, accuracy, aug_transforms, create_body, create_head, get_image_files, imagenet_stats,
                               resnet34, using_attr, vision_learner)

from image_similarity import SiameseImage, SiameseModel, SiameseTransform, SimilarityFinder, pair_accuracy, sample_pets, siamese_loss, siamese_splitter
from image_similarity.learners.siamese import siampredict


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return sample_pets(tmp_path_factory.mktemp("plain") / "pets", n_breeds=3, n_per_breed=6, seed=5)


@pytest.fixture(scope="module")
def files(pets): return get_image_files(pets / "images").sorted()


@pytest.fixture(scope="module")
def clearn(pets, tmp_path_factory):
    torch.manual_seed(0)
    cdls = DataBlock(blocks=(ImageBlock, CategoryBlock),
                     get_items=get_image_files,
                     get_y=using_attr(RegexLabeller(r"(.+)_\d+.jpg$"), "name"),
                     splitter=RandomSplitter(seed=2),
                     item_tfms=Resize(96),
                     batch_tfms=aug_transforms()).dataloaders(pets / "images", bs=4, num_workers=0)
    return vision_learner(cdls, resnet34, metrics=accuracy, pretrained=False, path=tmp_path_factory.mktemp("clearn"))


@pytest.fixture(scope="module")
def slearn(files, tmp_path_factory):
    torch.manual_seed(0)
    splits = RandomSplitter(seed=23)(files)
    tfm = SiameseTransform(files, splits)
    tls = TfmdLists(files, tfm, splits=splits)
    sdls = tls.dataloaders(after_item=[Resize(96), ToTensor], after_batch=[IntToFloatTensor, Normalize.from_stats(*imagenet_stats)], bs=4, num_workers=0)
    encoder = create_body(resnet34(weights=None), cut=-2)
    head = create_head(512 * 2, 1, ps=0.5)
    return Learner(sdls, SiameseModel(encoder, head), loss_func=siamese_loss, splitter=siamese_splitter, metrics=pair_accuracy,
                   path=tmp_path_factory.mktemp("slearn"))


@pytest.fixture(scope="module")
def finder(clearn, slearn, files):
    with clearn.no_bar(), slearn.no_bar():
        clearn.fit_one_cycle(1, 1e-3)
        slearn.fit_one_cycle(1, 1e-3)
    return SimilarityFinder(clearn, slearn, files, progress=False)


def test_predict_is_what_the_learners_say(finder, clearn, slearn, files):
    for query in files[::5]:
        with clearn.no_bar(): label, _, probabilities = clearn.predict(query)
        found = finder.predict(query, compare_n=100, show=False)
        assert found != query and all(f != query for _, f in finder.fns)
        assert {f.name.rsplit("_", 1)[0] for _, f in finder.fns} == {label}
        said = [siampredict(slearn, SiameseImage(PILImage.create(query), PILImage.create(f)))[0].sigmoid().item() for _, f in finder.fns]
        assert np.allclose(said, [float(p) for p in finder.preds], atol=5e-3) # a crop may differ by half a pixel
        assert said[finder.idx] >= max(said) - 1e-2


def test_search_and_similar_cams(finder, files):
    results = finder.search(files[0], 4)
    assert len(results) == 4 and files[0] not in [r.path for r in results]
    finder.predict(files[0])
    assert plt.gca().get_title() == f"{finder.preds[finder.idx].item() * 100:.2f}% Similarity"
    explanation = finder.similar_cams()
    assert explanation.query_map.shape == explanation.match_map.shape == (3, 3)
    assert explanation.probability == pytest.approx(float(finder.preds[finder.idx]), abs=1e-4)
    assert finder.acts[0][0].shape == (512, 3, 3)
    plt.close("all")


def test_scoring_draws_nothing_at_random(slearn, files):
    pair = SiameseImage(PILImage.create(files[0]), PILImage.create(files[-1]))
    said = {siampredict(slearn, pair)[0].item() for _ in range(4)}
    assert len(said) == 1 and type(siampredict(slearn, pair)[0]) is torch.Tensor


def test_batches_and_answers_are_drawn(slearn):
    slearn.dls.show_batch(max_n=3)
    assert [axis.get_title() in ("match", "no match") for axis in plt.gcf().axes] == [True] * 3
    with slearn.no_bar(): slearn.show_results(max_n=3)
    assert all(", says " in axis.get_title() for axis in plt.gcf().axes[:3])
    plt.close("all")


def test_what_cannot_be_kept_or_used_is_one_line(finder, clearn, slearn, files, tmp_path):
    odd = SimilarityFinder(clearn, slearn, files[:4], progress=False)
    odd._learners = {**odd._learners, "clearn": Learner(clearn.dls, torch.nn.Sequential(clearn.model[0], torch.nn.Sequential(*clearn.model[1], torch.nn.Softplus())), siamese_loss)}
    with pytest.raises(TypeError, match="layer 9 is Softplus.*Learner.export"): odd.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(TypeError, match="create_head"):
        SimilarityFinder(clearn, Learner(slearn.dls, SiameseModel(slearn.model.encoder, torch.nn.Flatten()), siamese_loss), files, progress=False)
