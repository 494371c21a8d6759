"""fastai's Siamese tutorial on drawn pets, in our words: its two ways to data, a head of two outputs, a loss that is a plain function; with our parts where it writes its own."""
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fastai.vision.all import (CategoryBlock, CrossEntropyLossFlat, DataBlock, IntToFloatTensor, Learner, Normalize, PILImage, RandomSplitter, Resize, TfmdLists, ToTensor,
                               TransformBlock, accuracy, create_body, create_head, get_image_files, imagenet_stats, resnet18)

from image_similarity import SiameseImage, SiameseModel, SiameseTransform, sample_pets, siamese_splitter
from image_similarity.learners.siamese import pair_scorer, siampredict


def breed(file): return file.name.rsplit("_", 1)[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return get_image_files(sample_pets(tmp_path_factory.mktemp("tutorial") / "pets", n_breeds=3, n_per_breed=6, seed=7, size=96) / "images").sorted()


@pytest.fixture(scope="module")
def dls(files):
    splits = RandomSplitter(seed=1)(files)
    lists = TfmdLists(files, SiameseTransform(files, breed, splits), splits=splits) # in the tutorial's order
    return lists.dataloaders(bs=4, after_item=[Resize(64), ToTensor], after_batch=[IntToFloatTensor, Normalize.from_stats(*imagenet_stats)], num_workers=0)


@pytest.fixture(scope="module")
def learn(dls, tmp_path_factory):
    torch.manual_seed(0)
    def loss_func(out, match): return CrossEntropyLossFlat()(out, match.long())
    model = SiameseModel(create_body(resnet18(weights=None), cut=-2), create_head(512 * 2, 2, ps=0.5))
    return Learner(dls, model, loss_func=loss_func, splitter=siamese_splitter, metrics=accuracy, path=tmp_path_factory.mktemp("learn"))


def titles():
    found = [axis.get_title() for axis in plt.gcf().axes if axis.get_title()]
    plt.close("all")
    return found


def test_pairs_of_a_batch_are_what_their_titles_say(dls, files):
    x1, x2, match = dls.one_batch()
    assert x1.shape == x2.shape == (4, 3, 64, 64) and set(match.tolist()) <= {0, 1}
    tfm = SiameseTransform(files, breed, RandomSplitter(seed=1)(files))
    drawn = [tfm(file) for file in files for _ in range(4)]
    share = np.mean([pair[2] for pair in drawn])
    assert .3 < share < .7
    dls.show_batch(max_n=4, nrows=2, figsize=(6, 4))
    assert len(shown := titles()) == 4 and set(shown) <= {"match", "no match"}


def test_frozen_first_then_all_of_it_and_results_are_shown(learn):
    learn.freeze()
    encoder = [p.detach().clone() for p in learn.model.encoder.parameters()]
    kernels = [i for i, p in enumerate(encoder) if p.dim() == 4] # batch norms train either way
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 3e-3)
        assert all(torch.equal(encoder[i], p) for i, p in enumerate(learn.model.encoder.parameters()) if i in kernels)
        learn.unfreeze()
        learn.fit_one_cycle(1, slice(1e-6, 1e-4))
        assert any(not torch.equal(encoder[i], p) for i, p in enumerate(learn.model.encoder.parameters()) if i in kernels)
        learn.show_results(max_n=4)
    assert len(shown := titles()) == 3 and all(", says " in title for title in shown)


def test_a_pair_has_two_certainties_that_sum_to_one_and_the_head_folds_to_their_difference(learn, files):
    logits, certainty = siampredict(learn, SiameseImage(PILImage.create(files[0]), PILImage.create(files[1])))
    assert logits.shape == certainty.shape == (2,) and certainty.sum().item() == pytest.approx(1)
    learn.model.eval()
    scorer, (x1, x2, _) = pair_scorer(learn), learn.dls.valid.one_batch()
    with torch.no_grad():
        maps = learn.model.encoder(x1), learn.model.encoder(x2)
        said = learn.model.head(torch.cat(maps, 1))
        pooled = [torch.cat([m.amax((2, 3)), m.mean((2, 3))], 1) for m in maps]
        np.testing.assert_allclose(scorer.pair_logits(*pooled), said[:, 1] - said[:, 0], atol=1e-3)


def test_pairs_of_a_data_block(files):
    "The tutorial's second way: pairs of files are the items, and whether they match is a category."
    pairs = [[a, b] for i, a in enumerate(files) for b in files[i + 1:i + 7]]
    block = DataBlock(blocks=(TransformBlock(type_tfms=lambda pair: SiameseImage(*map(PILImage.create, pair)), batch_tfms=IntToFloatTensor), CategoryBlock),
                      get_items=lambda _: pairs, get_y=lambda pair: "match" if breed(pair[0]) == breed(pair[1]) else "no match", splitter=RandomSplitter(seed=0),
                      item_tfms=Resize(64), batch_tfms=Normalize.from_stats(*imagenet_stats))
    dls = block.dataloaders(None, bs=8, num_workers=0)
    (x1, x2), match = dls.one_batch()
    assert x1.shape == x2.shape == (8, 3, 64, 64) and match.shape == (8,) and list(dls.vocab) == ["match", "no match"]
    dls.show_batch(max_n=6)
    assert len(shown := titles()) == 6 and set(shown) <= {"match", "no match"}
