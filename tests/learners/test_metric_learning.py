"""Metric learning: losses against pytorch-metric-learning by hand, embeddings that begin at plain cosine, mining against a loop, folders, digits."""
import gzip
import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.datasets import load_digits

from image_similarity.images.datasets import LabelledImages, labelled_images
from image_similarity.learners.digit_pairs import MomentNormalization, digit_batches, warped
from image_similarity.learners.digits import embedded_digits, mnist_digits, random_figures, read_idx
from image_similarity.encoders.encoder import create_encoder, embed, fingerprint
from image_similarity.encoders.features import FeatureLayer, principal_start
from image_similarity.learners.losses import LOSSES, balanced_batches, create_loss, relevance_triplets, training_distance
from image_similarity.learners.mining import mine_hard_negatives
from image_similarity.learners.embedding_model import multi_scale
from image_similarity.learners.metric_learning import embedding_auc, embedding_learner, load_embedding, save_embedding
from image_similarity.scoring.scorers import embedding
from image_similarity.metrics.similarity import METRICS, similarity

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    "Four breeds of drawn pets, an encoder, the vectors."
    from image_similarity.drawing.pets import sample_pets

    images = sample_pets(tmp_path_factory.mktemp("ranking") / "pets", n_breeds=4, n_per_breed=8, size=96) / "images"
    data, encoder = labelled_images(images, valid_pct=.25), create_encoder(size=96)
    return SimpleNamespace(data=data, encoder=encoder, embedded=embed(data.files, encoder, augment=1, progress=False))


def learned(pets, **options):
    return embedding_learner(pets.data, encoder=pets.encoder, embedded=pets.embedded, progress=False, **{"epochs": 1} | options)


def units(files, encoder):
    return embedding(torch.tensor(embed(files, encoder, progress=False).pooled)).numpy()


# --- distances and losses

@pytest.mark.parametrize("metric", METRICS)
def test_losses_compare_what_similarity_compares(metric):
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(6, 9)).astype(np.float32)
    compared = training_distance(metric)
    np.testing.assert_allclose(compared(torch.tensor(rows)).numpy() * (1 if compared.is_inverted else -1), similarity(rows, rows, metric), atol=2e-3)


def hinge(values):
    "The mean of what is above 0, as the losses here take it."
    above = [v for v in values if v > 0]
    return sum(above) / len(above) if above else 0.


@pytest.mark.parametrize("metric", METRICS)
def test_triplet_loss_is_the_hinge_over_every_triplet(metric):
    rng = np.random.default_rng(2)
    rows, classes = rng.normal(size=(7, 3)).astype(np.float32), [0, 0, 1, 1, 1, 2, 2]
    near = similarity(rows, rows, metric)
    loop = [0.2 + near[a, n] - near[a, p] for a in range(7) for p in range(7) for n in range(7)
            if a != p and classes[a] == classes[p] != classes[n]]
    assert float(create_loss("triplet", metric)(torch.tensor(rows), torch.tensor(classes))) == pytest.approx(hinge(loop), rel=1e-4)


def test_classification_is_cross_entropy_on_cosines():
    torch.manual_seed(0)
    loss = create_loss("classification", n_classes=3, n_features=4)
    rows, targets = torch.randn(5, 4), torch.tensor([0, 1, 2, 2, 0])
    cosines = torch.tensor(similarity(rows, loss.W.detach().T)) / 0.05
    assert loss(rows, targets).item() == pytest.approx(torch.nn.functional.cross_entropy(cosines, targets).item(), rel=1e-4)


@given(st.integers(0, 1000), st.integers(2, 8), st.integers(1, 3))
def test_relevance_triplets_are_those_of_three_loops(seed, n, n_classes):
    rng = np.random.default_rng(seed)
    golden, targets = rng.normal(size=(n, 3)).astype(np.float32), rng.integers(n_classes, size=n)
    cosine = similarity(golden, golden)
    def relevance(i, j): return 1 + cosine[i, j] if targets[i] == targets[j] else -1
    loop = {(a, p, q) for a in range(n) for p in range(n) for q in range(n)
            if len({a, p, q}) == 3 and targets[a] == targets[p] and relevance(a, p) > relevance(a, q) + 0.1}
    found = relevance_triplets(torch.tensor(golden), torch.tensor(targets))
    assert set(zip(*(part.tolist() for part in found))) == loop


@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(2, 5), st.integers(4, 40))
def test_batches_have_the_same_number_of_each_class(sizes, per_class, batch_size):
    targets = np.repeat(np.arange(len(sizes)), sizes)
    batches = list(balanced_batches(torch.arange(len(targets)).float()[None, :, None], targets, per_class, batch_size))
    assert batches
    for rows, classes in batches:
        assert set(np.bincount(classes).tolist()) <= {0, per_class}
        assert len(classes) >= 2 * per_class
        np.testing.assert_array_equal(targets[rows[:, 0].long()], classes)


# --- the embedding

def test_a_wide_layer_begins_at_plain_cosine():
    rows = np.random.default_rng(3).normal(size=(30, 8)).astype(np.float32)
    made = FeatureLayer(principal_start(rows, 8))(torch.tensor(rows)).detach()
    np.testing.assert_allclose(similarity(made, made), similarity(rows, rows), atol=1e-5)


def test_weight_decay_pulls_the_layer_back_to_where_it_began():
    layer = FeatureLayer(torch.ones(2, 3))
    torch.nn.init.normal_(layer.change)
    before = float(layer.change.detach().norm())
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=1.)
    (layer(torch.zeros(1, 3)).sum()).backward()
    optimizer.step()
    assert float(layer.change.detach().norm()) == pytest.approx(0.9 * before, rel=1e-4)
    torch.testing.assert_close(layer.start, torch.ones(2, 3))


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "deep_ranking"])
def test_without_training_the_ranking_is_the_plain_one(pets, loss):
    learn = learned(pets, loss=loss, lr=0., n_features=2000)
    train = [pets.data.files[i] for i in pets.data.train] # their rows span all that the start can keep
    plain, made = units(train, pets.encoder), units(train, learn.model.encoder)
    np.testing.assert_allclose(made @ made.T, plain @ plain.T, atol=2e-3)


@pytest.mark.parametrize("options", [{"loss": "contrastive"}, {"loss": "triplet", "miner": "semihard"}, {"loss": "triplet", "miner": "offline"},
    {"loss": "arcface"}, {"loss": "classification"}, {"loss": "contrastive", "distance": "l1"}, {"loss": "triplet", "distance": "dot"}])
def test_training_brings_the_classes_together(pets, options):
    files, targets = [pets.data.files[i] for i in pets.data.train], pets.data.targets[pets.data.train]
    auc = embedding_auc(units(files, learned(pets, epochs=12, lr=1e-3, **options).model.encoder), targets)
    assert auc > embedding_auc(units(files, pets.encoder), targets)


def test_only_the_layer_is_trained(pets):
    before = fingerprint(pets.encoder)
    learn = learned(pets, loss="classification", epochs=2)
    assert fingerprint(learn.model.base) == before == fingerprint(pets.encoder)
    assert float(learn.model.layer.change.detach().abs().max()) > 0
    assert [any(p.requires_grad for p in group) for group in learn.splitter(learn.model)] == [True, True] # batch norms stay trainable
    frozen = {name for name, p in learn.model.base.named_parameters() if not p.requires_grad}
    assert any("conv" in name for name in frozen)


def test_the_same_seed_gives_the_same_embedding(pets):
    first, second = (learned(pets, loss="triplet", epochs=2, seed=5).model.encoder for _ in range(2))
    assert fingerprint(first) == fingerprint(second) != fingerprint(learned(pets, loss="triplet", epochs=2, seed=6).model.encoder)


def test_end_to_end_the_encoder_learns_too(pets):
    learn = learned(pets, loss="triplet")
    before = fingerprint(learn.model.base)
    learn.unfreeze()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-4)
    assert fingerprint(learn.model.base) != before


def test_files_and_labels_are_enough(pets):
    learn = embedding_learner(pets.data.files, pets.data.labels, pets.encoder, augment=0, epochs=1, progress=False)
    assert learn.model.encoder.nf == len(learn.model.layer.weight)
    assert len(learn.dls.valid_ds) == round(0.2 * len(pets.data))


@pytest.mark.parametrize("options, words", [
    ({"loss": "hinge"}, ["'hinge'", "contrastive"]), ({"distance": "euclid"}, ["'euclid'", "cosine"]), ({"miner": "best"}, ["'best'", "semihard"]),
    ({"loss": "arcface", "distance": "l2"}, ["arcface", "cosine"]), ({"loss": "deep_ranking"}, ["multi_scale"])])
def test_errors_name_the_value_and_the_remedy(pets, options, words):
    with pytest.raises(ValueError) as error:
        learned(pets, **options)
    assert all(word in str(error.value) for word in words)


def test_one_class_is_refused(pets):
    of_one = pets.data.take(pets.data.targets == 0)
    with pytest.raises(ValueError, match="one class"):
        embedding_learner(of_one, encoder=pets.encoder, progress=False)


def test_a_bad_image_is_left_out_and_listed(pets, tmp_path):
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(b"no picture")
    data = LabelledImages([*pets.data.files, bad], [*pets.data.labels, pets.data.labels[0]], np.append(pets.data.held_out, False))
    learn = embedding_learner(data, encoder=pets.encoder, augment=0, epochs=1, progress=False)
    assert "broken.jpg" in str(learn.bad[0]) and len(learn.bad) == 1


# --- mining

@pytest.mark.parametrize("metric", METRICS)
def test_hard_negatives_are_those_of_a_loop(metric):
    rng = np.random.default_rng(4)
    rows, labels = rng.normal(size=(23, 4)), rng.choice(list("abc"), 23)
    found = mine_hard_negatives(rows, labels, per_image=3, metric=metric, chunk=7)
    near = similarity(rows, rows, metric)
    loop = [(a, n) for a in range(23) for n in sorted((n for n in range(23) if labels[n] != labels[a]), key=lambda n: -near[a, n])[:3]]
    assert list(zip(found.anchor.tolist(), found.negative.tolist())) == loop
    np.testing.assert_allclose(found.score, [near[pair] for pair in loop], rtol=1e-4, atol=1e-5)


# --- folders

@pytest.fixture(scope="module")
def saved(pets, tmp_path_factory):
    learn = learned(pets, loss="triplet")
    return learn, save_embedding(learn, tmp_path_factory.mktemp("saved") / "embedding")


def test_a_saved_embedding_comes_back(pets, saved):
    learn, folder = saved
    loaded = load_embedding(folder)
    np.testing.assert_allclose(units(pets.data.files[:3], loaded), units(pets.data.files[:3], learn.model.encoder), atol=1e-4)
    assert fingerprint(loaded) == fingerprint(learn.model.encoder)
    assert {f.suffix for f in folder.iterdir()} <= {".json", ".safetensors"}


def test_deep_ranking_keeps_its_shallow_paths(pets, tmp_path):
    wide = multi_scale(pets.encoder)
    learn = embedding_learner(pets.data, encoder=wide, loss="deep_ranking", augment=0, epochs=1, progress=False)
    loaded = load_embedding(save_embedding(learn, tmp_path / "deep"))
    np.testing.assert_allclose(units(pets.data.files[:2], loaded), units(pets.data.files[:2], learn.model.encoder), atol=1e-4)


@pytest.mark.parametrize("break_it, words", [
    (lambda folder: (folder / "encoder.safetensors").unlink(), "missing"),
    (lambda folder: (folder / "encoder.safetensors").write_bytes(b"x"), "deserializing"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "damaged"),
    (lambda folder: edit(folder, kind="finder"), "finder"),
    (lambda folder: edit(folder, encoder=json.loads((folder / "manifest.json").read_text())["encoder"] | {"fingerprint": "0"}), "train again"),
    (lambda folder: edit(folder, encoder={"name": "https://x", "size": 96, "fingerprint": "", "weights": None}), "https://x")])
def test_a_folder_that_does_not_fit_says_why(saved, tmp_path, break_it, words):
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in saved[1].iterdir(): (folder / file.name).write_bytes(file.read_bytes())
    break_it(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load_embedding(folder)


def edit(folder, **changes):
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_network_of_someone_else_is_not_saved(tmp_path):
    digits = embedded_digits().part(slice(0, 80))
    from fastai.data.core import DataLoaders
    batches = balanced_batches(digits.images[None], digits.targets)
    dls = DataLoaders(batches, batches)
    dls.c = 10
    learn = embedding_learner(dls, encoder=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 8)))
    with pytest.raises(TypeError, match="Learner.export"):
        save_embedding(learn, tmp_path / "digits")
    assert not (tmp_path / "digits").exists()


# --- in a gallery

def test_it_serves_a_gallery(pets, saved):
    from image_similarity.gallery.gallery import Gallery

    learn, folder = saved
    gallery = Gallery(encoder=load_embedding(folder))
    gallery.add(pets.data.files, labels=pets.data.labels, progress=False)
    unit = units(pets.data.files, learn.model.encoder)
    found = gallery.search(pets.data.files[3], top_k=5)
    np.testing.assert_allclose([r.score for r in found], np.sort(unit @ unit[3])[:-6:-1], atol=1e-4)
    hard = mine_hard_negatives(gallery, per_image=2)
    assert len(hard) == 2 * len(pets.data)
    np.testing.assert_allclose(hard.score, (unit[hard.anchor] * unit[hard.negative]).sum(1), atol=1e-4)


# --- digits

def write_idx(file, array, code=8):
    packed = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.tobytes()
    file.write_bytes(gzip.compress(packed) if file.suffix == ".gz" else packed)


def test_mnist_files_are_read_packed_or_not(tmp_path):
    images = np.random.default_rng(5).integers(256, size=(4, 28, 28)).astype(np.uint8)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([3, 1, 4, 1], np.uint8))
    found = mnist_digits(tmp_path)
    np.testing.assert_allclose(found.images[:, 0].numpy() * 255, images, atol=1e-4)
    assert found.targets.tolist() == [3, 1, 4, 1]
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        mnist_digits(tmp_path, "train")
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([3, 1, 4], np.uint8))
    with pytest.raises(ValueError, match="3 labels"):
        mnist_digits(tmp_path)


@pytest.mark.parametrize("content, words", [
    (b"", "not an idx file"), (b"\0\0\x08", "not an idx file"), (b"\0\0\x07\x01\0\0\0\x01\0", "not an idx file"), (b"\0\0\x08\x03\0\0\0\x01", "header"),
    (b"\0\0\x08\x01\0\0\0\x02\x05", "1 byte for (2,)"), (b"\0\0\x08\x01\0\0\0\x01\x05\x06", "2 bytes for (1,)"), (b"\0\0\x08\x01\xff\xff\xff\xff\x05", "download it again")])
def test_files_that_are_not_idx_say_so(tmp_path, content, words):
    file = tmp_path / "digits"
    file.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_idx(file)
    assert words in str(error.value) and str(file) in str(error.value)


def test_a_torn_gzip_says_so(tmp_path):
    file = tmp_path / "digits.gz"
    file.write_bytes(gzip.compress(b"\0" * 1000)[:-9])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        read_idx(file)


def test_the_digits_are_those_of_scikit_learn():
    digits, theirs = embedded_digits(), load_digits()
    np.testing.assert_array_equal(digits.targets, theirs.target)
    ours, sums = digits.images.sum((1, 2, 3)).numpy(), theirs.images.sum((1, 2))
    assert np.corrcoef(ours, sums)[0, 1] > 0.99


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1796), st.floats(0.85, 1.15), st.floats(0.85, 1.15), st.floats(-0.3, 0.3), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_equal_moments_do_not_depend_on_slant_width_and_place(i, wide, high, slant, right, down):
    digit = embedded_digits().images[i:i + 1]
    other = warped(digit, torch.tensor([[[wide, slant, right], [0, high, down]]]), torch.zeros(1, 2, 2, 2))
    normalize = MomentNormalization(limits=(0.05, 20))
    first, second = (normalize(image)[0, 0].numpy() for image in (digit, other))
    assert np.square(first - second).sum() < 0.05 * np.square(first).sum()


def test_a_batch_gives_one_class_to_one_shape_only():
    torch.manual_seed(1)
    digits = embedded_digits()
    images, classes = next(iter(digit_batches(digits.of([0, 4, 7]), n_letters=5, n_figures=6)))
    counts = classes.bincount().tolist()
    assert counts == [8] * 3 + [6] * 6 + [4] * 11 and len(images) == sum(counts)
    assert images.amin() >= 0 and images.amax() <= 1.001 and (images.amax((1, 2, 3)) > 0.3).all()


def test_random_figures_are_seeded_and_new_each_time():
    generator = torch.Generator().manual_seed(3)
    first, second = random_figures(3, generator, 2), random_figures(3, generator, 2)
    torch.testing.assert_close(random_figures(3, torch.Generator().manual_seed(3), 2), first)
    assert not torch.allclose(first, second)
    still = random_figures(5, generator, 3, jitter=0)
    order = still.mean((2, 3, 4)).argsort(1)
    thin, bold = (still[torch.arange(5), order[:, k]] for k in (0, 2))
    assert (thin <= bold + 1e-6).all() # pens differ, lines do not
