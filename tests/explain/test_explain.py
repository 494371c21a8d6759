"""Maps against captum, against the unfolded head, and on pictures of every shape."""
import subprocess
import sys

import matplotlib
import matplotlib.figure
import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, LayerGradCam
from hypothesis import given, settings, strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from scipy.stats import spearmanr
from torch import nn

from image_similarity.encoders.encoder import create_encoder, pool
from image_similarity.encoders.preprocessing import preprocess
from image_similarity.explain.maps import (
    class_map, class_map_from_features, features_of, maps_from_features, pair_maps, pair_slopes, secant, spread)
from image_similarity.explain.pictures import draw_map, upsample
from image_similarity.explain.faithfulness import (
    deletion_insertion, map_correlation, pair_score, pointing_game, pointing_hit, seen_mask, shuffle_sanity, shuffle_weights, with_blur)
from image_similarity.scoring.scorers import ClassScorer, PairScorer
from image_similarity.learners.siamese_head import SiameseHead

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
matplotlib.use("Agg")

NF, HIDDEN = 6, 16


def random_scorer(seed=0, nf=NF, cosine=3., symmetric=True, bias=0.):
    "A pair head with arbitrary weights; a large bias keeps every hidden unit switched on."
    g = torch.Generator().manual_seed(seed)
    r = lambda *shape: torch.randn(*shape, generator=g)
    return PairScorer(r(HIDDEN, 2 * nf), r(HIDDEN, 2 * nf), r(HIDDEN) + bias, r(HIDDEN), torch.tensor(cosine), torch.tensor(.5),
                      torch.tensor(0.), symmetric)


def two_maps(seed=0, nf=NF):
    "Feature maps as an encoder that ends in a ReLU makes them."
    g = torch.Generator().manual_seed(seed)
    return torch.rand(nf, 4, 5, generator=g), torch.rand(nf, 4, 5, generator=g)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return create_encoder("test_resnet", weights="random", size=64)


def picture(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


# --- against captum

class Pair(nn.Module):
    "The logit as a function of one image's feature map."

    def __init__(self, scorer, partner, first=True):
        super().__init__()
        self.scorer, self.partner, self.first = scorer, pool(partner[None]), first

    def forward(self, features):
        own, other = pool(features), self.partner.expand(len(features), -1)
        return self.scorer.pair_logits(*((own, other) if self.first else (other, own)))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_maps_are_captums_integrated_gradients_from_an_empty_picture(seed, symmetric):
    scorer, (q, g) = random_scorer(seed, cosine=0., symmetric=symmetric), two_maps(seed)
    for own, other, first, ours in zip((q, g), (g, q), (True, False), maps_from_features(scorer, q, g)):
        ig = IntegratedGradients(Pair(scorer, other, first)).attribute(own[None], torch.zeros_like(own)[None], n_steps=2000, method="riemann_middle")
        np.testing.assert_allclose(ours, ig.detach()[0].sum(0), atol=.01 * np.abs(ours).max())


def test_map_is_captums_gradient_times_activation_where_no_unit_switches():
    scorer, (q, g) = random_scorer(cosine=0., bias=100.), two_maps()
    theirs = InputXGradient(Pair(scorer, g)).attribute(q[None].requires_grad_())[0].sum(0).detach()
    np.testing.assert_allclose(maps_from_features(scorer, q, g)[0], theirs, atol=1e-4)


def test_gradient_and_map_differ_where_units_do_switch():
    scorer, (q, g) = random_scorer(cosine=0.), two_maps()
    theirs = InputXGradient(Pair(scorer, g)).attribute(q[None].requires_grad_())[0].sum(0).detach()
    assert np.abs(maps_from_features(scorer, q, g)[0] - theirs.numpy()).max() > .1


def test_cosine_map_is_each_cells_share_of_the_dot_product():
    scorer, (q, g) = random_scorer(), two_maps()
    without = random_scorer(cosine=0.)
    a, b = q.mean((1, 2)), g.mean((1, 2))
    by_hand = 3 * torch.einsum("chw,c->hw", q, b) / (q[0].numel() * a.norm() * b.norm())
    difference = maps_from_features(scorer, q, g)[0] - maps_from_features(without, q, g)[0]
    np.testing.assert_allclose(difference, by_hand, atol=1e-4)


def test_class_map_of_a_mean_head_is_captums_grad_cam(encoder):
    weight = torch.randn(3, 2 * encoder.nf)
    weight[:, :encoder.nf] = 0                                    # Grad-CAM averages gradients, so only the mean half can agree
    weight -= weight.mean(0)                                      # ours is above the mean of the classes
    scorer, image = ClassScorer(weight, torch.zeros(3), ["a", "b", "c"]), picture(80, 80)

    class Classifier(nn.Module):
        def __init__(self): super().__init__(); self.encoder = encoder
        def forward(self, x): return pool(self.encoder(x)) @ weight.T

    model = Classifier().eval()
    for k, label in enumerate(scorer.labels):
        theirs = LayerGradCam(model, model.encoder).attribute(preprocess(image, encoder)[None], target=k, relu_attributions=False)
        np.testing.assert_allclose(class_map(encoder, scorer, image, label).map, theirs.detach()[0, 0], atol=1e-5, rtol=1e-3)


# --- the cells add up

@given(st.floats(-10, 10, width=32), st.floats(-10, 10, width=32))
def test_secant_times_rise_is_the_rise_of_relu(u, v):
    rho = secant(torch.tensor(u, dtype=torch.float64), torch.tensor(v, dtype=torch.float64)).item()
    assert -1e-9 <= rho <= 1 + 1e-9
    assert rho * u == pytest.approx(max(u + v, 0) - max(v, 0), abs=1e-6)


@given(st.integers(0, 1000))
def test_spread_loses_nothing_and_shares_ties(seed):
    g = torch.Generator().manual_seed(seed)
    features = torch.randint(0, 3, (NF, 3, 4), generator=g).double() # small whole numbers: many ties, some empty channels
    slopes = torch.randn(2 * NF, generator=g, dtype=torch.float64)
    assert float(spread(slopes, features).sum()) == pytest.approx(float(slopes @ pool(features[None])[0]), abs=1e-9)


@pytest.mark.parametrize("symmetric", [True, False])
def test_maps_add_up_to_the_logits_of_the_unfolded_head(symmetric):
    torch.manual_seed(1)
    head = SiameseHead(NF, hidden=HIDDEN, symmetric=symmetric)
    for module in head.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(); module.running_var.uniform_(.5, 2); module.weight.data.normal_(); module.bias.data.normal_()
    head.eval()
    q, g = two_maps(1)
    with torch.no_grad():
        logit = lambda a, b: head(torch.cat([a, b])[None]).item()
        query_map, match_map, found = maps_from_features(head.fold(), q, g)
        assert found == pytest.approx(logit(q, g), abs=1e-4)
        assert query_map.sum() == pytest.approx(logit(q, g) - logit(0 * q, g), abs=1e-3)
        assert match_map.sum() == pytest.approx(logit(q, g) - logit(q, 0 * g), abs=1e-3)


def test_order_of_a_symmetric_pair_only_swaps_its_maps():
    scorer, (q, g) = random_scorer(), two_maps()
    forth, back = maps_from_features(scorer, q, g), maps_from_features(scorer, g, q)
    np.testing.assert_allclose(forth[0], back[1], atol=1e-5)
    np.testing.assert_allclose(forth[1], back[0], atol=1e-5)
    assert not np.allclose(maps_from_features(random_scorer(symmetric=False), q, g)[0], forth[0], atol=1e-2)


def test_empty_features_give_an_empty_map_and_no_nan():
    scorer, (q, g) = random_scorer(), two_maps()
    query_map, match_map, logit = maps_from_features(scorer, torch.zeros_like(q), g)
    assert (query_map == 0).all() and np.isfinite(match_map).all() and np.isfinite(logit)
    assert torch.isfinite(pair_slopes(scorer, torch.zeros(2 * NF), pool(g[None])[0])).all()


# --- features from a hook, images from anywhere

def test_hooked_features_give_the_same_maps_as_images(encoder):
    scorer, images, stored = random_scorer(nf=encoder.nf), [picture(90, 70, s) for s in (0, 1)], []
    hook = encoder.register_forward_hook(lambda module, inputs, output: stored.append(output))
    for image in images: encoder(preprocess(image, encoder)[None]) # with gradients, as a training loop would leave them
    hook.remove()
    why = pair_maps(encoder, scorer, *images)
    query_map, match_map, logit = maps_from_features(scorer, *stored)
    np.testing.assert_allclose(query_map, why.query_map, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(match_map, why.match_map, rtol=1e-3, atol=1e-4)
    assert why.logit == pytest.approx(logit, rel=1e-3)
    assert why.probability == pytest.approx(1 / (1 + np.exp(-why.logit)))


def test_encoder_is_left_in_the_mode_it_was_in(encoder):
    encoder.train()
    before = [b.clone() for b in encoder.buffers()]
    features_of(encoder, picture(64, 64))
    assert encoder.training and all(torch.equal(a, b) for a, b in zip(before, encoder.buffers()))
    encoder.eval()


def test_wrong_input_is_named():
    scorer, (q, g) = random_scorer(), two_maps()
    with pytest.raises(ValueError, match=r"\(2, 6, 4, 5\).*one image"): maps_from_features(scorer, torch.stack([q, g]), g)
    linear = ClassScorer(torch.randn(2, 2 * NF), torch.zeros(2), ["cat", "dog"])
    with pytest.raises(ValueError, match="'bird'.*cat, dog"): class_map_from_features(linear, q, "bird")


def test_missing_picture(encoder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.jpg"): pair_maps(encoder, random_scorer(nf=encoder.nf), tmp_path / "nowhere.jpg", picture(9, 9))


# --- drawing

@pytest.mark.parametrize("size, box", [((300, 200), (50, 250, 200, 0)), ((200, 300), (0, 200, 250, 50)), ((64, 64), (0, 64, 64, 0)), ((1, 1), (0, 1, 1, 0))])
def test_map_lies_on_the_central_square(size, box):
    axis = matplotlib.figure.Figure().subplots()
    layer = draw_map(axis, Image.new("RGB", size), np.ones((3, 3)), 1.)
    assert tuple(layer.get_extent()) == box
    assert axis.get_xlim() == (0, size[0]) and axis.get_ylim() == (size[1], 0)


def test_hot_cell_is_drawn_where_it_is():
    axis = (figure := matplotlib.figure.Figure(figsize=(3, 2), dpi=100)).add_axes((0, 0, 1, 1))
    hot = np.zeros((5, 5)); hot[1, 3] = 1                          # of a square from 50 to 250: around (190, 60)
    draw_map(axis, Image.new("RGB", (300, 200), "gray"), hot, upsample(hot, 64, 64).max())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    redness = np.asarray(canvas.buffer_rgba())[..., :3].astype(int) @ [1, -1, 0]
    row, column = np.unravel_index(redness.argmax(), redness.shape)
    assert abs(row - 60) < 12 and abs(column - 190) < 12
    assert np.abs(redness[:, :45]).max() == 0 and np.abs(redness[:, 255:]).max() == 0


def test_even_maps_are_drawn_without_fuss(encoder, tmp_path):
    scorer = random_scorer(nf=encoder.nf)
    zero = PairScorer(*(0 * t for t in (scorer.A, scorer.B, scorer.b, scorer.w, scorer.a, scorer.c, scorer.threshold)))
    file = pair_maps(encoder, zero, picture(70, 50), picture(50, 70)).save(tmp_path / "why.png")
    with Image.open(file) as drawn: assert drawn.width > drawn.height > 200


def test_show_leaves_one_figure_with_a_colour_bar(encoder):
    from matplotlib import pyplot
    pyplot.close("all")
    why = pair_maps(encoder, random_scorer(nf=encoder.nf), picture(70, 50), picture(50, 70))
    assert why.show() is None
    (number,) = pyplot.get_fignums()
    assert len(pyplot.figure(number).axes) == 3 and pyplot.figure(number).get_suptitle() == f"{why.probability:.2%} Similarity"
    pyplot.close("all")


# --- faithfulness

def test_mask_is_cropped_as_the_encoder_crops(encoder):
    mask = picture(90, 60).convert("L").point(lambda v: 255 if v > 127 else 0).resize((900, 600), Image.Resampling.NEAREST)
    seen = seen_mask(mask, 600)
    np.testing.assert_array_equal(seen, np.asarray(mask)[:, 150:750] > 127)


def test_peak_of_the_drawn_map_is_what_points():
    relevance = np.random.default_rng(0).random((4, 4))
    drawn = upsample(relevance, 40, 40)
    mask = np.zeros((40, 40), bool)
    assert not pointing_hit(relevance, mask)
    mask[np.unravel_index(drawn.argmax(), drawn.shape)] = True
    assert pointing_hit(relevance, mask)
    assert pointing_game([relevance] * 3, [mask] * 3).hits.value == 1


@given(st.integers(0, 100), st.integers(1, 6))
def test_deletion_and_insertion_see_the_same_pictures_at_their_ends(seed, steps):
    rng = np.random.default_rng(seed)
    image, blurred = torch.from_numpy(rng.random((2, 3, 8, 8), dtype=np.float32))
    weight = torch.from_numpy(rng.random((3, 8, 8), dtype=np.float32))
    score = lambda x: (x * weight).sum((1, 2, 3))
    curves = deletion_insertion(score, image, blurred, rng.random((3, 3)), steps)
    whole, gone = score(image[None]).item(), score(blurred[None]).item()
    assert (curves.deletion[0], curves.insertion[-1]) == pytest.approx((whole, whole), rel=1e-4)
    assert (curves.deletion[-1], curves.insertion[0]) == pytest.approx((gone, gone), rel=1e-4)
    np.testing.assert_allclose(curves.deletion + curves.insertion, whole + gone, rtol=1e-3) # of a linear answer


def test_even_map_deletes_each_share_once():
    counted = deletion_insertion(lambda x: x.sum((1, 2, 3)), torch.ones(3, 6, 6), torch.zeros(3, 6, 6), np.zeros((3, 3)), steps=4)
    np.testing.assert_allclose(counted.deletion / (3 * 36), [1, .75, .5, .25, 0])
    assert counted.deletion_area == pytest.approx(.5 * 3 * 36)


def test_pair_score_is_the_probability_of_pair_maps(encoder):
    scorer, (query, match) = random_scorer(nf=encoder.nf), (picture(64, 64, 0), picture(64, 64, 1))
    with torch.inference_mode():
        score = pair_score(encoder, scorer, pool(features_of(encoder, match)[None]))(with_blur(query, encoder)[0][None])
    assert score.item() == pytest.approx(pair_maps(encoder, scorer, query, match).probability, abs=1e-4)


def test_shuffling_keeps_the_numbers_and_changes_the_maps():
    scorer = random_scorer()
    shuffled = shuffle_weights(scorer, seed=3)
    for name in ("A", "B", "b", "w"):
        before, after = getattr(scorer, name), getattr(shuffled, name)
        assert not torch.equal(before, after) and torch.equal(before.flatten().sort().values, after.flatten().sort().values)
    assert (shuffled.a, shuffled.c, shuffled.symmetric) == (scorer.a, scorer.c, scorer.symmetric)
    maps = [two_maps(s) for s in range(8)]
    sanity = shuffle_sanity(scorer, [q for q, _ in maps], [g for _, g in maps], [torch.roll(g, 1, 0) for _, g in maps])
    assert sanity.shuffled.high < .8 and sanity.swapped.value < 1
    same = shuffle_sanity(scorer, [q for q, _ in maps], [g for _, g in maps], [g for _, g in maps])
    assert same.swapped.value == pytest.approx(1)


def test_map_correlation_is_scipys_and_defined_for_even_maps():
    a, b = np.random.default_rng(0).random((2, 5, 5))
    assert map_correlation(a, b) == pytest.approx(spearmanr(a.ravel(), b.ravel())[0])
    assert map_correlation(a, np.zeros((5, 5))) == 0


# --- what loading costs

@pytest.mark.long
def test_explaining_needs_neither_fastai_nor_pyplot():
    code = "import sys, image_similarity.explain.maps, image_similarity.explain.faithfulness; print([m for m in ('fastai', 'matplotlib.pyplot') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# --- a network without places

def test_a_map_of_one_cell_says_that_it_cannot_say_where():
    encoder = create_encoder("vgg11", "random", 64, seed=0)
    encoder.body.pre_logits.fc1 = nn.Conv2d(512, 8, 7) # its 400 MB of weights are not needed to see that
    encoder.body.pre_logits.fc2, encoder.nf = nn.Conv2d(8, 8, 1), 8
    one, other = picture(64, 64), picture(64, 64, 1)
    pair = pair_maps(encoder, random_scorer(nf=8), one, other)
    assert pair.query_map.shape == (1, 1) and repr(pair).count("cannot say where") == 2
    alone = class_map(encoder, ClassScorer(torch.randn(2, 16), torch.zeros(2), ["cat", "dog"]), one)
    assert "cannot say where" in repr(alone) and all("cannot say where" in shown.figure().get_suptitle() for shown in (pair, alone))
    local = pair_maps(create_encoder("test_resnet", "random", 64), random_scorer(nf=create_encoder("test_resnet", "random", 64).nf), one, other)
    assert "cannot say where" not in repr(local) + local.figure().get_suptitle()
