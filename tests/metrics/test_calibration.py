"""Calibration against known truths, scikit-learn, torchmetrics and direct optimisation."""
import json

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import binary_calibration_error

from image_similarity.metrics.calibration import (
    Calibration, ece_noise_floor, even_odds_weights, expected_calibration_error, fit_calibration, plot_reliability,
    reliability_curve, shift_prior)

settings.register_profile('steady', deadline=None, derandomize=True)
settings.load_profile('steady')

matplotlib.use('Agg')


def pairs(n=5000, prior=.1, seed=0):
    "Logits that are exact log odds at even odds, and targets with a share `prior` of matches."
    rng = np.random.default_rng(seed)
    targets = rng.random(n) < prior
    return rng.normal(np.where(targets, 2, -2), 2), targets


@given(st.floats(.2, 5), st.floats(-3, 3))
def test_fit_undoes_scale_and_offset(scale, offset):
    log_odds, targets = pairs()
    plain, bent = fit_calibration(log_odds, targets), fit_calibration(log_odds * scale + offset, targets)
    np.testing.assert_allclose(bent(log_odds * scale + offset), plain(log_odds), atol=1e-3)


def test_fit_finds_the_truth_whatever_the_share_of_matches():
    for prior in (.03, .5, .9):
        calibration = fit_calibration(*pairs(60_000, prior))
        assert (calibration.scale, calibration.offset) == (pytest.approx(1, abs=.05), pytest.approx(0, abs=.06))


def test_fit_agrees_with_sklearn_without_soft_targets():
    logits, targets = pairs(20_000)
    model = LogisticRegression(C=np.inf, class_weight='balanced').fit(logits[:, None], targets)
    ours = fit_calibration(logits, targets)
    assert (ours.scale, ours.offset) == (pytest.approx(model.coef_[0, 0], abs=5e-3), pytest.approx(model.intercept_[0], abs=5e-3))


def test_fit_minimises_platts_loss_on_few_separable_pairs():
    logits, targets = np.array([-3., -1., -2., 2., 4.]), np.array([0, 0, 0, 1, 1])
    soft = np.where(targets, 3/4, 1/5)
    weight = np.where(targets, 1/2, 1/3)
    loss = lambda ab: (weight * (np.logaddexp(0, ab[0]*logits + ab[1]) - soft * (ab[0]*logits + ab[1]))).sum()
    best = minimize(loss, [1., 0.]).x
    ours = fit_calibration(logits, targets)
    assert [ours.scale, ours.offset] == pytest.approx(best, abs=1e-3)
    assert ours.probability(4.) < .95


def test_weights_are_copies():
    logits, targets = pairs(300)
    weight = np.random.default_rng(1).integers(0, 4, 300)
    assert fit_calibration(logits, targets, weight)(1.) == pytest.approx(fit_calibration(np.repeat(logits, weight), np.repeat(targets, weight))(1.), abs=1e-5)
    p = expit(logits)
    assert expected_calibration_error(p, targets, 15, weight) == pytest.approx(expected_calibration_error(np.repeat(p, weight), np.repeat(targets, weight)))


def test_prior_is_the_share_of_matches():
    log_odds, targets = pairs(50_000, .03)
    p = fit_calibration(log_odds, targets).probability(log_odds, prior=.03)
    assert p.mean() == pytest.approx(targets.mean(), rel=.05)
    assert expected_calibration_error(p, targets) < .002
    np.testing.assert_allclose(shift_prior(expit(log_odds), .03), expit(log_odds + logit(.03)))


@given(st.floats(.01, 10), st.floats(-5, 5), st.floats(.01, .99), st.floats(-20, 20), st.floats(-20, 20))
def test_probabilities_keep_the_order_of_the_logits(scale, offset, prior, a, b):
    low, high = Calibration(scale, offset).probability(np.sort([a, b]), prior)
    assert 0 <= low <= high <= 1


def test_survives_json():
    calibration = fit_calibration(*pairs())
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


@pytest.mark.parametrize('n_bins', [1, 10, 15])
def test_ece_agrees_with_torchmetrics(n_bins):
    logits, targets = pairs(4000, .3)
    p = expit(2 * logits).astype(np.float32)
    theirs = binary_calibration_error(torch.tensor(p), torch.tensor(targets.astype(int)), n_bins=n_bins, norm='l1').item()
    assert expected_calibration_error(p, targets, n_bins) == pytest.approx(theirs, abs=1e-5)


def test_reliability_curve_agrees_with_sklearn():
    logits, targets = pairs(4000, .3)
    match_rate, probability = calibration_curve(targets, expit(2 * logits), n_bins=12)
    curve = reliability_curve(expit(2 * logits), targets, 12)
    np.testing.assert_allclose(curve[['probability', 'match_rate']], np.stack([probability, match_rate], 1))
    assert curve['share'].sum() == pytest.approx(1)


def test_ece_takes_the_ends_and_leaves_out_pairs_without_weight():
    assert expected_calibration_error([0., 1.], [0, 1]) == 0
    assert expected_calibration_error([0., 1.], [1, 0]) == 1
    assert expected_calibration_error([.5, 1.], [1, 0], sample_weight=[3, 0]) == .5
    assert np.isnan(expected_calibration_error([.5, 1.], [1, 0], sample_weight=[0, 0]))
    assert np.isnan(expected_calibration_error([.5, 1.], [1, 0], sample_weight=even_odds_weights([1, 0], [2, 0])))


def test_even_odds_weights_agree_with_sklearn():
    from sklearn.utils.class_weight import compute_sample_weight
    targets = np.array([1, 0, 0, 0, 1, 0])
    np.testing.assert_allclose(even_odds_weights(targets), compute_sample_weight('balanced', targets))


def test_floor_of_one_coin_of_many_and_of_certainty():
    assert ece_noise_floor([.5], n_sim=20).value == .5
    n = 900
    assert ece_noise_floor(np.full(n, .5)).value == pytest.approx(np.sqrt(1 / (2 * np.pi * n)), rel=.08)
    assert ece_noise_floor([0., 1.]).high == 0


@pytest.mark.parametrize('prior', [None, .05])
def test_floor_is_what_a_calibrated_predictor_really_shows(prior):
    seen, log_odds = [], pairs(2000, prior or .5)[0]
    for seed in range(200):  # fresh targets for the same probabilities, scored as a user would
        p = expit(log_odds)
        targets = np.random.default_rng(seed).random(2000) < (p if prior is None else shift_prior(p, prior))
        seen.append(expected_calibration_error(p, targets, sample_weight=None if prior is None else even_odds_weights(targets)))
    floor = ece_noise_floor(expit(log_odds), n_sim=400, prior=prior)
    assert floor.value == pytest.approx(np.mean(seen), rel=.15)
    assert floor.low < np.median(seen) < floor.high


def test_an_overconfident_predictor_stands_above_its_floor():
    log_odds, targets = pairs(3000, .5)
    p = expit(3 * log_odds)
    assert expected_calibration_error(p, targets) > 3 * ece_noise_floor(p, n_sim=200).high


def test_plot_reliability_draws_the_curve_on_the_axes_given():
    from matplotlib import pyplot as plt
    logits, targets = pairs(500)
    ax = plt.subplots()[1]
    assert plot_reliability(expit(logits), targets, ax=ax, label='ours') is ax
    curve = next(line for line in ax.lines if line.get_label() == 'ours')
    np.testing.assert_allclose(curve.get_ydata(), reliability_curve(expit(logits), targets)['match_rate'])
    plt.close('all')
    assert plot_reliability(expit(logits), targets).get_xlabel()
    plt.close('all')


@pytest.mark.parametrize('call, words', [
    (lambda: fit_calibration([1., 2.], [1, 1]), ['2 matches among 2']),
    (lambda: fit_calibration([1., 2.], [1, 0], [1, 0]), ['1 match among 1 pair:']),
    (lambda: fit_calibration([.1] * 3, [1, 0, 0]), ['all equal']),
    (lambda: fit_calibration([2., np.inf], [1, 0]), ['not finite']),
    (lambda: fit_calibration([1., 2., 3.], [1, 1, 0]), ['fewer matches', '1 for a match']),
    (lambda: Calibration(0.), ['scale=0.0']),
    (lambda: Calibration(float('nan')), ['scale=nan']),
    (lambda: Calibration.from_dict({'a': 1}), ["['a']"]),
    (lambda: Calibration().probability([1.], prior=1), ['prior=1']),
    (lambda: shift_prior([.5], 0), ['prior=0']),
    (lambda: expected_calibration_error([1.5], [1]), ['1.5', 'Calibration']),
    (lambda: expected_calibration_error([.5], [1], 0), ['n_bins=0']),
])
def test_errors_name_the_value_and_the_remedy(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert all(word in str(error.value) for word in words)
