"""Calibrators against slow literal versions, scipy, and what must be true of them
whatever the data."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import sklearn.isotonic
import torch
from hypothesis import given, settings, strategies as st
from scipy import interpolate, optimize
from torch import nn

from gcelib import ensemble, logits_from_probabilities, metrics
from gcelib.blocks import rounding_of
from gcelib.calibration import (
    ALL_CALIBRATORS,
    CALIBRATORS,
    AdaptiveTemperatureScaling,
    BrowserForm,
    make_calibrator,
)
from gcelib.calibrator import (
    binned_error,
    distances_below_top,
    groups_of_ties,
    softmax_sums,
    with_confidence,
)

F64 = torch.float64


def sample(n=600, k=10, seed=0, overconfidence=1.6, spread=2.0, dtype=F64):
    """Logits that are calibrated until ``overconfidence`` multiplies them, and labels
    drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(n, k, generator=generator, dtype=F64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return (overconfidence * logits).to(dtype), labels


def fitted(name, logits, labels, **options):
    return make_calibrator(name, **options).fit(logits, labels)


def literal_ece(confidence, correct, n_bins):
    total = 0.0
    for b in range(n_bins):
        inside = (confidence > b / n_bins) & (confidence <= (b + 1) / n_bins)
        if inside.any():
            total += float(
                inside.double().mean()
                * (confidence[inside].mean() - correct[inside].mean()).abs()
            )
    return total


def literal_ats(
    logits,
    labels,
    n_bins=15,
    rounds=200,
    step=0.05,
    max_step=0.1,
    t_range=(0.1, 10.0),
    n_ece_bins=20,
):
    """The paper's Algorithm 1 word by word: a softmax for every bin and every round,
    bins from last to first."""
    logits = logits.double()
    confidence = logits.softmax(1).amax(1)
    correct = (logits.argmax(1) == labels).double()
    thresholds = torch.quantile(confidence, torch.linspace(0, 1, n_bins + 1, dtype=F64))
    thresholds[0], thresholds[-1] = 0.0, 1.0
    index = torch.bucketize(confidence, thresholds[1:-1])
    temperatures = torch.ones(n_bins, dtype=F64)
    best = temperatures.clone()
    trace = [literal_ece(confidence, correct, n_ece_bins)]
    for _ in range(rounds):
        for m in reversed(range(n_bins)):
            inside = index == m
            if not inside.any():
                continue
            scaled = (logits[inside] / temperatures[m]).softmax(1).amax(1)
            gap = scaled.mean() - correct[inside].mean()
            temperatures[m] = (
                temperatures[m] + (step * gap).clamp(-max_step, max_step)
            ).clamp(*t_range)
        scaled = (logits / temperatures[index, None]).softmax(1).amax(1)
        error = literal_ece(scaled, correct, n_ece_bins)
        if error < min(trace) - 1e-12:
            best = temperatures.clone()
        trace.append(error)
    return best, thresholds, torch.tensor(trace, dtype=F64)


def all_right(n=200, k=5):
    logits, _ = sample(n, k)
    return logits, logits.argmax(1)


def all_wrong(n=200, k=5):
    logits, _ = sample(n, k)
    return logits, logits.argmin(1)


def saturated(n=300, k=4):
    """Half of the confidences are exactly 1 in float64, so most quantiles coincide and
    bins are empty."""
    logits, labels = sample(n, k, seed=5, overconfidence=5.0)
    logits[: n // 2] = (
        1000.0 * nn.functional.one_hot(torch.arange(n // 2) % k, k).double()
    )
    return logits, labels


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (sample(200, 10), {}),
        (sample(300, 2, seed=1), {"rounds": 60}),
        (sample(300, 100, seed=2, overconfidence=1.1), {"rounds": 60}),
        (sample(300, 10, seed=3, overconfidence=0.5), {"rounds": 60}),
        (
            sample(300, 5, seed=4, overconfidence=8.0),
            {"n_bins": 5, "n_ece_bins": 15, "rounds": 100},
        ),
        (
            sample(300, 5, seed=6, overconfidence=3.0),
            {"n_bins": 10, "step": 3.0, "max_step": 0.4, "rounds": 30},
        ),
        (sample(300, 5, seed=7), {"n_bins": 4, "t_range": (0.9, 1.2), "rounds": 60}),
        (sample(9, 3, seed=8), {"rounds": 30}),
        (sample(1, 3), {"rounds": 30}),
        (sample(50, 3), {"n_bins": 1, "n_ece_bins": 1, "rounds": 30}),
        (saturated(), {"rounds": 30}),
        (all_right(), {"n_bins": 5, "rounds": 60}),
        (all_wrong(), {"n_bins": 5, "rounds": 60}),
        ((torch.zeros(40, 10, dtype=F64), torch.arange(40) % 10), {"rounds": 20}),
    ],
)
def test_ats_is_algorithm_1(data, options):
    """Same temperatures, thresholds and error in every round, though we evaluate no
    softmax in most of them."""
    temperatures, thresholds, trace = literal_ats(*data, **options)
    calibrator = AdaptiveTemperatureScaling(**options).fit(*data)
    torch.testing.assert_close(calibrator.thresholds, thresholds, rtol=0, atol=1e-5)
    torch.testing.assert_close(calibrator.ece_trace, trace, rtol=0, atol=1e-11)
    torch.testing.assert_close(
        calibrator.temperatures, temperatures, rtol=0, atol=1e-10
    )


def test_ats_bins_new_samples_by_uncalibrated_confidence():
    """(tau_{m-1}, tau_m] of the validation thresholds, whatever the temperatures do to
    the confidences."""
    calibrator = fitted("ats", *sample(400), n_bins=4)
    logits = sample(50, seed=9)[0]
    confidence = logits.softmax(1).amax(1)
    for row, c, out in zip(logits, confidence, calibrator(logits), strict=True):
        m = sum(float(c) > float(t) for t in calibrator.thresholds[1:-1])
        torch.testing.assert_close(out, row / calibrator.temperatures[m])
    # A score exactly on a threshold belongs to the bin below it: at K = 2, logits
    # (0, 0) have confidence 1/2.
    calibrator.n_classes = torch.tensor(2)
    calibrator.thresholds = torch.tensor([0, 0.5, 1])
    calibrator._n_classes = 2
    calibrator.temperatures = torch.tensor([4.0, 8.0], dtype=F64)
    torch.testing.assert_close(
        calibrator(torch.tensor([[3.0, 3.0]])), torch.tensor([[0.75, 0.75]])
    )


def test_converged_ats_meets_every_bins_accuracy():
    logits, labels = sample(3000, 10)
    calibrator = fitted("ats_converged", logits, labels)
    index = torch.bucketize(logits.softmax(1).amax(1), calibrator.thresholds[1:-1])
    confidence = calibrator(logits).softmax(1).amax(1)
    correct = (logits.argmax(1) == labels).double()
    for m in range(15):
        assert float(confidence[index == m].mean()) == pytest.approx(
            float(correct[index == m].mean()), abs=1e-9
        )
    assert calibrator.ece_trace.shape == (2,)
    assert float(calibrator.ece_trace[0]) == pytest.approx(
        metrics.ece(logits, labels), abs=1e-12
    )
    assert float(calibrator.ece_trace[1]) == pytest.approx(
        metrics.ece(calibrator(logits), labels), abs=1e-9
    )


def test_converged_ats_limits():
    """All right: the target is (n + 1/2) / (n + 1), not 1. Empty bins keep 1; without a
    root the range's end counts."""
    logits, labels = all_right(300)
    logits = logits / 8  # far too modest, so that sharpening pays
    calibrator = fitted("ats_converged", logits, labels, n_bins=1, t_range=(1e-4, 10))
    assert float(calibrator(logits).softmax(1).amax(1).mean()) == pytest.approx(
        300.5 / 301, abs=1e-9
    )
    bounded = {"t_range": (0.2, 10)}
    with pytest.warns(UserWarning, match="t_range: .* temperatures ended at 0.2 or 10"):
        assert (
            fitted("ats_converged", logits, labels, **bounded).temperatures
            >= 0.2 * (1 - 1e-12)
        ).all()
    logits, labels = saturated()
    calibrator = fitted("ats_converged", logits, labels)
    index = torch.bucketize(logits.softmax(1).amax(1), calibrator.thresholds[1:-1])
    empty = torch.bincount(index, minlength=15) == 0
    assert empty.any()
    assert (calibrator.temperatures[empty] == 1).all()
    # Certain, and wrong half the time: far beyond the paper's T = 10.
    certain = calibrator.temperatures.max()
    assert 100 < certain < 1e4


@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["ats", "ats_converged"])
def test_ats_keeps_equal_confidences_together(name, dtype):
    """Thresholds fall on samples here; float32 rounding must not lift a whole group
    over its threshold."""
    rows = sample(12, 7, seed=3)[0].to(dtype)
    which = torch.arange(600) % 12
    logits, labels = rows[which], sample(600, 7, seed=4)[1]
    calibrator = fitted(name, logits, labels, n_bins=5)
    confidence = logits.double().softmax(1).amax(1)
    thresholds = torch.quantile(confidence, torch.linspace(0, 1, 6, dtype=F64))
    index = torch.bucketize(confidence, thresholds[1:-1] + 1e-12)
    wide = logits.to(torch.promote_types(dtype, torch.float32))
    expected = wide / calibrator.temperatures[index, None].to(wide.dtype)
    for part in (slice(None), slice(3, 4), slice(0, 7)):
        torch.testing.assert_close(calibrator(logits[part]), expected[part])


@pytest.mark.parametrize("name", ["ats", "ats_converged"])
def test_ats_keeps_temperature_one_when_nothing_is_better(name):
    """One bin mixes a group that is too modest with one that is too sure; repairing
    their mean makes both worse."""
    # Confidences 0.73 and 0.95.
    logits = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=F64).repeat_interleave(100, 0)
    # Right 80 and 85 times.
    labels = torch.cat([torch.arange(100) >= 80, torch.arange(100) >= 85]).long()
    calibrator = fitted(name, logits, labels, n_bins=1)
    assert (calibrator.temperatures == 1).all()
    assert calibrator.ece_trace.argmin() == 0
    assert float(calibrator.ece_trace[0]) == pytest.approx(
        metrics.ece(logits, labels), abs=1e-12
    )
    assert calibrator.ece_trace[-1] > calibrator.ece_trace[0] + 1e-3


@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.float16])
@pytest.mark.parametrize("scale", [1e-2, 0.3, 1.6, 50.0, 2000.0])
def test_nll_temperature_is_the_minimum(scale, dtype):
    logits, labels = sample(800, 10, overconfidence=scale, dtype=dtype)
    wide = logits.double()

    def nll(log_t):
        return float(nn.functional.cross_entropy(wide / np.exp(log_t), labels))

    expected = np.exp(
        optimize.minimize_scalar(
            nll, bracket=(np.log(scale) - 1, np.log(scale) + 1), tol=1e-11
        ).x
    )
    assert float(fitted("ts_nll", logits, labels).temperature) == pytest.approx(
        expected, rel=2e-6
    )


def test_nll_temperature_at_the_ends_of_its_range():
    with pytest.warns(
        UserWarning, match="all samples are classified right, .* it stays 1"
    ):
        assert float(fitted("ts_nll", *all_right()).temperature) == 1
    with pytest.warns(UserWarning, match="temperature: ended at"):
        assert float(fitted("ts_nll", *all_wrong()).temperature) == pytest.approx(
            1e4, rel=1e-5
        )


def test_half_a_state_is_not_a_fit():
    logits, labels = sample(300)
    whole = fitted("ats", logits, labels, n_bins=10).state_dict()
    other = make_calibrator("ats")
    with pytest.raises(ValueError, match=r"has shape \(\d+,\), and here .* options of"):
        other.load_state_dict(whole)
    temperature = make_calibrator("ts_nll")
    temperature.load_state_dict(whole, strict=False)
    for calibrator in (other, temperature):
        assert not calibrator.fitted
        with pytest.raises(ValueError, match="calibrator: is not fitted"):
            calibrator(logits)


def test_probabilities_are_not_taken_for_logits_in_silence():
    logits, labels = sample(300)
    with pytest.warns(UserWarning, match="logits: rows are >= 0 and sum to 1"):
        fitted("ats", logits.softmax(1), labels)
    with pytest.warns(UserWarning, match="logits: rows are >= 0 and sum to 1"):
        metrics.evaluate(logits.softmax(1).half(), labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        served = fitted("ats", logits.log_softmax(1), labels)
        served(logits)
    with pytest.warns(UserWarning, match="logits: rows are >= 0 and sum to 1"):
        served(logits.softmax(1))
    with pytest.warns(UserWarning, match="logits: all values lie in"):
        metrics.evaluate(logits.sigmoid(), labels)


@pytest.mark.parametrize(
    "data", [sample(700), sample(300, 3, 1, 0.4), sample(400, 40, 2, 5.0), all_right()]
)
def test_ece_temperature_is_the_published_search(data):
    logits, labels = data
    correct = (logits.argmax(1) == labels).double()
    t = 0.1
    best = 1e7
    chosen = None
    for _ in range(100):
        error = literal_ece((logits / t).softmax(1).amax(1), correct, 15)
        if error < best - 1e-12:
            best, chosen = error, t
        t += 0.1
    assert float(fitted("ts_ece", logits, labels).temperature) == chosen


def published_ets(logits, labels):
    """Mix-n-Match's two local searches, with a softmax that cannot overflow."""
    z, k = logits.numpy(), logits.shape[1]
    onehot = np.eye(k)[labels.numpy()]

    def softmax(z):
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    t = optimize.minimize(
        lambda t: np.mean((softmax(z / t) - onehot) ** 2),
        1.0,
        method="L-BFGS-B",
        bounds=((0.05, 5.0),),
        tol=1e-12,
    ).x[0]
    parts = np.stack([softmax(z / t), softmax(z), np.full_like(z, 1 / k)])

    def mse(w):
        p = np.tensordot(w, parts, 1)
        return np.mean((p / p.sum(1, keepdims=True) - onehot) ** 2)

    constraint = {"type": "eq", "fun": lambda w: np.sum(w) - 1}
    w = optimize.minimize(
        mse,
        (1.0, 0.0, 0.0),
        method="SLSQP",
        constraints=constraint,
        bounds=((0.0, 1.0),) * 3,
        tol=1e-12,
    ).x
    return t, w, mse


@pytest.mark.parametrize(
    "shape", [(600, 10, 0, 1.6), (500, 3, 1, 0.6), (400, 50, 2, 2.5), (500, 10, 3, 1.0)]
)
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_ets_finds_the_published_optimum(shape, noise):
    """``noise`` makes some labels random, so that the uniform part earns a weight."""
    logits, labels = sample(*shape)
    random = torch.rand(len(labels), generator=torch.Generator().manual_seed(1)) < noise
    labels[random] = torch.randint(
        shape[1], (int(random.sum()),), generator=torch.Generator().manual_seed(2)
    )
    t, weights, mse = published_ets(logits, labels)
    calibrator = fitted("ets", logits, labels)
    ours = calibrator.weights.numpy()
    assert float(calibrator.temperature) == pytest.approx(t, rel=1e-5)
    assert ours.min() >= 0
    assert ours.sum() == pytest.approx(1)
    assert mse(ours) <= mse(weights) + 1e-12
    assert mse(ours) == pytest.approx(mse(weights), rel=1e-5)
    expected = sum(
        w * p
        for w, p in zip(
            ours,
            [
                (logits / float(calibrator.temperature)).softmax(1),
                logits.softmax(1),
                torch.full_like(logits, 1 / shape[1]),
            ],
            strict=True,
        )
    )
    torch.testing.assert_close(calibrator(logits).exp(), expected)


def test_ets_of_a_large_set_whose_rows_repeat_a_pattern(monkeypatch):
    """The rows that choose the valley, every second one, want another temperature."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, 5, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    logits[1::2] *= 4
    expected = fitted("ets", logits, labels).temperature
    monkeypatch.setattr(ensemble, "_FEW", 2500)
    found = fitted("ets", logits, labels).temperature
    assert float(found) == pytest.approx(float(expected), rel=1e-3)
    assert float(fitted("ets", logits[::2], labels[::2]).temperature) < 0.7 * expected


def test_ets_leaves_a_saturated_start():
    """Where every softmax is 0 or 1 the published search sees no slope at T = 1; the
    minimum is elsewhere."""
    logits, labels = sample(400, 4, spread=1.0, overconfidence=1.0)
    logits = 60 * logits.argsort(1).argsort(1) + logits
    t, weights, mse = published_ets(logits, labels)
    calibrator = fitted("ets", logits, labels)
    assert t == 1
    assert float(calibrator.temperature) > 5.01  # beyond the published range, too
    assert metrics.brier(calibrator(logits), labels) / 4 <= mse(weights)
    # Flat everywhere.
    assert float(fitted("ets", logits * 100, labels).temperature) == 1


def literal_spline(logits, labels, knots):
    """Gupta et al.'s recalibration of the sorted top-1 scores by scipy's natural
    splines (no ties here)."""
    score = logits.softmax(1).amax(1).numpy()
    correct = (logits.argmax(1) == labels).double().numpy()
    order = np.argsort(score)
    score, correct = score[order], correct[order]
    n, nodes = len(score), np.linspace(0, 1, knots)
    basis = [
        interpolate.CubicSpline(nodes, row, bc_type="natural") for row in np.eye(knots)
    ]
    u = np.linspace(0, 1, n)
    gap = (np.cumsum(correct) - np.cumsum(score)) / n
    heights = np.linalg.lstsq(np.stack([b(u) for b in basis], 1), gap, rcond=None)[0]
    return score, score + np.stack([b(u, 1) for b in basis], 1) @ heights


@pytest.mark.parametrize("knots", [3, 6, 9])
def test_spline_is_the_derivative_of_the_cumulative_gap(knots):
    logits, labels = sample(900)
    scores, values = literal_spline(logits, labels, knots)
    calibrator = fitted("spline", logits, labels, knots=knots)
    np.testing.assert_allclose(calibrator.scores, scores, atol=1e-7)
    np.testing.assert_allclose(calibrator.values, values, atol=1e-6)
    new = sample(500, seed=3)[0]
    probs, before = calibrator(new).exp(), new.softmax(1)
    confidence, top = before.max(1)
    moved = np.interp(confidence, scores, values).clip(0.1, 1 - 1e-7)
    np.testing.assert_allclose(probs.gather(1, top[:, None])[:, 0], moved, atol=1e-5)
    torch.testing.assert_close(probs.sum(1), torch.ones(500, dtype=F64))


def test_a_score_of_the_spline_that_rises_takes_from_the_others_in_proportion():
    probs = np.random.default_rng(0).dirichlet(np.full(6, 0.5), 400)
    wanted = probs.max(1) + 0.9 * (1 - probs.max(1))
    found = with_confidence(torch.from_numpy(np.log(probs)), torch.from_numpy(wanted))
    expected = probs * ((1 - wanted) / (1 - probs.max(1)))[:, None]
    expected[np.arange(400), probs.argmax(1)] = wanted
    np.testing.assert_allclose(found.exp(), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (0.45, [0.45, 0.45, 0.1]),  # both of the largest
        (0.4, [0.4, 0.4, 0.2]),
        (0.6, [0.4, 0.4, 0.2]),  # not both: the row stays
        (0.5, [0.4, 0.4, 0.2]),
    ],
)
def test_largest_logits_that_are_equal_rise_together_or_stay(wanted, expected):
    logits = torch.tensor([[0.4, 0.4, 0.2]], dtype=F64).log()
    found = with_confidence(logits, torch.tensor([wanted], dtype=F64)).exp()
    np.testing.assert_allclose(found[0], expected, rtol=1e-9)


def test_no_class_loses_all_its_probability_to_a_near_tie():
    """As it does where a temperature pulls two nearly equal classes apart."""
    rng = np.random.default_rng(22)
    logits = 2 * rng.normal(size=(2500, 3))
    labels = (logits + rng.gumbel(size=(2500, 3))).argmax(1)  # calibrated
    spline = make_calibrator("spline").fit(logits[:500], labels[:500])
    probs = spline(torch.from_numpy(logits[500:])).exp().numpy()
    before = np.exp(logits[500:]) / np.exp(logits[500:]).sum(1, keepdims=True)
    assert (probs / before).min() > 0.01
    of_label = probs[np.arange(2000), labels[500:]]
    assert -np.log(of_label).mean() < 1.02 * metrics.nll(logits[500:], labels[500:])


def test_spline_is_a_temperature_for_each_sample_whose_score_falls():
    """So the order of all classes stays, where moving the top score alone would let
    runners-up overtake."""
    logits, labels = sample(300, overconfidence=4.0)
    calibrator = fitted("spline", logits, labels)
    calibrator.scores = torch.tensor([0.0, 1.0], dtype=F64)
    # Of ten classes: a runner-up would often get more.
    calibrator.values = torch.tensor([0.2, 0.2], dtype=F64)
    calibrated = calibrator(logits)
    assert torch.equal(calibrated.argsort(1), logits.argsort(1))
    torch.testing.assert_close(
        calibrated.softmax(1).amax(1), torch.full((300,), 0.2, dtype=F64)
    )
    # One in each row.
    factor = (calibrated[:, 1:] - calibrated[:, :1]) / (logits[:, 1:] - logits[:, :1])
    torch.testing.assert_close(factor, factor[:, :1].expand(-1, 9), rtol=1e-6, atol=0)


def test_spline_lookup_weighs_the_nearer_point_more():
    """The published interpolation has its two weights swapped."""
    calibrator = fitted("spline", *sample(200, 2))
    calibrator.scores = torch.tensor([0.6, 0.8], dtype=F64)
    calibrator.values = torch.tensor([0.5, 0.9], dtype=F64)
    for score, expected in [
        (0.65, 0.6),
        (0.75, 0.8),
        (0.55, 0.5),
        (0.95, 0.9),
        (0.61, 0.52),
        (0.8, 0.9),
    ]:
        logits = torch.tensor([[np.log(score), np.log(1 - score)]])
        assert float(calibrator(logits).exp()[0, 0]) == pytest.approx(
            expected, abs=1e-9
        )


def test_spline_with_equal_confidences_and_few_samples():
    logits = torch.tensor([[2.0, 0.0]], dtype=F64).repeat(50, 1)
    labels = (torch.arange(50) % 5 == 0).long()  # right 4 times in 5
    calibrated = fitted("spline", logits, labels)(logits)
    assert calibrated.exp()[:, 0].numpy() == pytest.approx(0.8, abs=0.01)
    for n in (1, 2, 3):
        assert fitted("spline", *sample(n, 4))(logits.new_zeros(3, 4)).isfinite().all()


CASES = st.builds(
    sample,
    n=st.integers(1, 60),
    k=st.sampled_from([2, 3, 10, 40]),
    seed=st.integers(0, 10**6),
    overconfidence=st.sampled_from([0.05, 0.5, 1.0, 2.0, 20.0]),
    dtype=st.sampled_from([F64, torch.float32, torch.float16]),
)
several = settings(derandomize=True, deadline=None, max_examples=10)


KEEPING = [name for name, row in CALIBRATORS.items() if row.keeps_predictions]


@pytest.mark.parametrize("name", KEEPING)
@several
@given(CASES)
def test_calibrators_that_say_so_change_no_prediction(name, data):
    logits, labels = data
    calibrator = fitted(name, logits, labels)
    new = sample(30, logits.shape[1], seed=1, dtype=logits.dtype)[0]
    for z in (logits, new):
        assert torch.equal(calibrator(z).argmax(1), z.argmax(1))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", KEEPING)
def test_neighbouring_logits_keep_their_prediction(name, dtype):
    """Division by 3 makes a float and its neighbour equal; then the first of them would
    be the prediction."""
    logits, labels = sample(400, 4, overconfidence=3.0, dtype=dtype)
    calibrator = fitted(name, logits, labels)
    for at in (0.5, 200.0):
        low = torch.linspace(at, 1.01 * at, 1000, dtype=dtype)
        high = low.nextafter(torch.tensor(torch.inf, dtype=dtype))
        z = torch.stack([low - 1, low, high, low - 2], 1)
        calibrated = calibrator(z)
        assert (calibrated.argmax(1) == 2).all()
        assert metrics.error(calibrated, torch.full((1000,), 2)) == 0
    plain = calibrator(logits)
    if name.startswith("ts"):  # rows that need no help keep their bits
        assert torch.equal(plain, logits / calibrator.temperature.to(dtype))


@pytest.mark.parametrize("name", ["ts_nll", "ts_ece", "ets", "ats", "ats_converged"])
@several
@given(CASES)
def test_not_worse_than_nothing_on_the_fitting_set(name, data):
    logits, labels = data
    logits = logits.double()
    calibrated = fitted(name, logits, labels)(logits)
    criterion = {
        "ts_nll": metrics.nll,
        "ts_ece": lambda z, y: metrics.ece(z, y, 15),
        "ets": metrics.brier,
    }.get(name, metrics.ece)
    assert criterion(calibrated, labels) <= criterion(logits, labels) + 1e-9


# Sms works in float32.
@pytest.mark.parametrize("name", [name for name in CALIBRATORS if name != "sms"])
@several
@given(CASES, st.randoms(use_true_random=False))
def test_order_and_shift_change_nothing(name, data, random):
    """Neither the order of the samples nor a number added to a row's logits carries
    information."""
    logits, labels = data
    logits = logits.double()
    few = {"n_bins": 5} if name.startswith("ats") else {}
    expected = fitted(name, logits, labels, **few)(logits).log_softmax(1)
    order = torch.tensor(random.sample(range(len(labels)), len(labels)))
    shift = torch.tensor(
        [random.choice([-64.0, 0.0, 32.0]) for _ in labels], dtype=F64
    )[:, None]
    permuted = fitted(name, logits[order], labels[order], **few)(logits).log_softmax(1)
    tolerance = dict.fromkeys(
        ("rtol", "atol"), 1e-3 if name in ("bias", "vector") else 1e-5
    )
    torch.testing.assert_close(permuted, expected, **tolerance)
    if name != "spline" or len(labels) > 5:
        shifted = fitted(name, logits + shift, labels, **few)(
            logits + shift
        ).log_softmax(1)
        torch.testing.assert_close(shifted, expected, **tolerance)


@pytest.mark.parametrize("name", ["ts_nll", "ets", "ats"])
def test_temperature_one_is_the_identity(name):
    logits = sample(20, dtype=torch.float32)[0]
    calibrator = make_calibrator(name)
    state = calibrator.state_dict() | {"n_classes": torch.tensor(10)}
    # Fitted, with the temperatures and weights an instance starts with.
    calibrator.load_state_dict(state)
    torch.testing.assert_close(
        calibrator(logits).log_softmax(1), logits.log_softmax(1), rtol=1e-6, atol=1e-6
    )
    if name != "ets":
        assert torch.equal(calibrator(logits), logits)


# scikit-learn fits one regression a class, probmetrics a matrix of classes
OWN = [name for name, row in CALIBRATORS.items() if row.needs is None]
EXTREMES = [
    (30, k, m)
    for k in (2, 20)
    for m in ("random", "all_right", "all_wrong", "one_class")
]
EXTREMES += [(1, 3, "random"), (3, 20_000, "random"), (3, 20_000, "all_wrong")]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
@pytest.mark.parametrize("name", OWN)
def test_extreme_logits_stay_finite_in_value_and_gradient(name, dtype):
    for n, k, mode in EXTREMES:
        generator = torch.Generator().manual_seed(n + k)
        logits = ((2 * torch.rand(n, k, generator=generator) - 1) * 6e4).to(dtype)
        # Ties, and classes that underflow.
        logits[:, : k // 2] = logits[:, : k // 2].sign() * 6e4
        labels = torch.randint(k, (n,), generator=generator)
        labels = {
            "all_right": logits.argmax(1),
            "all_wrong": logits.argmin(1),
            "one_class": labels * 0,
        }.get(mode, labels)
        calibrator = fitted(name, logits, labels)
        assert all(b.isfinite().all() for b in calibrator.buffers())
        for z in (logits, logits / 3e4, torch.zeros_like(logits)):
            z = z.clone().requires_grad_()
            calibrated = calibrator(z)
            assert calibrated.dtype == torch.promote_types(dtype, torch.float32)
            assert calibrated.isfinite().all()
            nn.functional.cross_entropy(calibrated, labels).backward()
            assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", OWN)
def test_many_classes(name):
    logits, labels = sample(24, 20_000, dtype=torch.float32)
    calibrated = fitted(name, logits, labels)(logits)
    assert calibrated.isfinite().all()
    torch.testing.assert_close(
        calibrated.softmax(1).sum(1), torch.ones(24), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", CALIBRATORS)
def test_gradients(name):
    """Of the calibrated logits with respect to the logits, against finite
    differences."""
    calibrator = fitted(name, *sample(300, 4))
    logits = sample(6, 4, seed=2)[0].requires_grad_()
    if name == "spline":  # piecewise linear: stay clear of its knots
        calibrator.scores, calibrator.values = (
            torch.tensor(v, dtype=F64) for v in ([0.0, 1.0], [0.2, 0.9])
        )
    assert torch.autograd.gradcheck(calibrator, logits)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_state_travels(name):
    """state_dict through weights_only loading, deepcopy and pickle give the same
    outputs in a new instance."""
    logits, labels = sample(100, dtype=torch.float32)
    model = nn.Sequential(nn.Linear(10, 10), fitted(name, logits, labels))
    expected = model(logits)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = nn.Sequential(nn.Linear(10, 10), make_calibrator(name))
    assert not fresh[1].fitted
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert fresh[1].fitted
    for other in (fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(logits), expected)
    refitted = fresh[1].fit(*sample(80, 3, seed=1))
    assert refitted(torch.zeros(2, 3)).shape == (2, 3)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_half_models_keep_their_calibrators_precision(name):
    calibrator = fitted(name, *sample(200, 5))
    before = [b.clone() for b in calibrator.buffers()]
    model = (
        nn.Sequential(nn.Identity(), calibrator)
        .half()
        .bfloat16()
        .float()
        .to("cpu", torch.float16)
    )
    assert all(
        torch.equal(a, b) and a.dtype == b.dtype
        for a, b in zip(before, model.buffers(), strict=True)
    )
    assert model(torch.zeros(3, 5, dtype=torch.float16)).dtype == torch.float32


def votes(n_trees, n_classes, n=3000, seed=0):
    """Shares of trees, and labels that follow them loosely."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet(np.full(n_classes, 0.4), size=n)
    counts = np.array([rng.multinomial(n_trees, p) for p in truth])
    truth = 0.6 * truth + 0.4 / n_classes
    labels = (rng.random((n, 1)) > truth.cumsum(1)).sum(1).clip(max=n_classes - 1)
    return counts / n_trees, labels


@pytest.mark.parametrize("n_trees", [5, 8, 20])
def test_isotonic_regression_keeps_equal_votes_together(n_trees):
    """It is that of the shares, in which all equal votes are equal."""
    shares, labels = votes(n_trees, 6)
    columns = []
    for k in range(6):
        regression = sklearn.isotonic.IsotonicRegression(
            y_min=0, y_max=1, out_of_bounds="clip"
        )
        regression.fit(shares[:, k].round(6), labels == k)
        columns.append(regression.predict(shares[:, k].round(6)))
    expected = np.maximum(np.stack(columns, 1), 1e-6)
    expected /= expected.sum(1, keepdims=True)
    for fitted_on in (np.float64, np.float32):
        isotonic = make_calibrator("isotonic")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # labels with the probability 0
            isotonic.fit(logits_from_probabilities(shares.astype(fitted_on)), labels)
        for shown in (np.float64, np.float32):
            logits = logits_from_probabilities(shares.astype(shown))
            found = isotonic(logits).exp().numpy()
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["ats", "ats_converged"])
@pytest.mark.parametrize("n_trees", [5, 8, 20])
def test_equal_votes_are_in_one_bin_of_ats(n_trees, name):
    """One temperature for each share, in any type, in a batch and alone."""
    shares, labels = votes(n_trees, 4)
    top = (shares.max(1) * n_trees).round().astype(int)
    logits = logits_from_probabilities(shares)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ats = make_calibrator(name).fit(logits, labels)
    single = logits_from_probabilities(shares.astype(np.float32))
    alone = [logits_from_probabilities(row[None]) for row in shares[:300]]
    found = {}
    for before in (logits, single, torch.cat(alone)):
        lowest = before.amin(1)  # of a zero: never 0 itself
        inverse = ats(before).amin(1) / lowest
        for count, value in zip(top, inverse.tolist(), strict=False):
            found.setdefault(count, set()).add(round(value, 5))
    assert {len(values) for values in found.values()} == {1}
    right = shares.argmax(1) == labels
    assert float(ats.ece_trace[0]) == pytest.approx(exact_ece(top, n_trees, right))
    after = metrics.ece(ats(logits), labels)
    assert float(ats.ece_trace.min()) == pytest.approx(after, abs=1e-6)


def exact_ece(counts, n, right):
    """The ECE of shares counts / n in 20 bins, in whole numbers."""
    bins = -(-counts * 20 // n)
    return np.abs(np.bincount(bins, counts / n - right)).sum() / len(counts)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_search_for_the_smallest_ece_bins_votes_as_the_ece_does(kind):
    """20 trees in 15 bins have shares on edges."""
    shares, _ = votes(20, 3)
    labels = (np.random.default_rng(0).random((3000, 1)) > shares.cumsum(1)).sum(1)
    logits = logits_from_probabilities(shares.astype(kind))
    distances = distances_below_top(logits.double())
    correct = (logits.argmax(1) == torch.tensor(labels)).double().numpy()
    confidence = 1 / softmax_sums(distances, np.ones(1))[0]
    found = binned_error(confidence, confidence - correct, 15, rounding_of(logits))
    assert found == pytest.approx(metrics.ece(logits, labels, n_bins=15), abs=1e-7)


def test_only_what_is_equal_but_for_rounding_is_tied():
    few = np.repeat([0.1, 0.5, 0.7], 4)
    few[1:4] += [1e-17, 2e-17, 3e-17]
    few[9:] += [2e-16, 4e-16, 1e-9]
    found = groups_of_ties(few, 1e-15)
    assert found.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3]
    many = np.sort(np.random.default_rng(0).random(1000))
    many[500] = np.nextafter(many[499], 1)
    assert groups_of_ties(many, 1e-7).tolist() == list(range(1000))
    many[500] = many[499]
    assert groups_of_ties(many, 1e-7)[-1] == 998
    chain = 0.5 + 1e-9 * np.arange(1000)  # each near the next, not all near the first
    groups = groups_of_ties(chain, 1e-9)
    firsts, lasts = (
        np.searchsorted(groups, np.unique(groups), s) for s in ("left", "right")
    )
    assert (chain[lasts - 1] - chain[firsts]).max() <= 8e-9 * 0.25 * 1.001
    assert len(firsts) > 300


@pytest.mark.parametrize("name", CALIBRATORS)
def test_export(name):
    """``torch.export`` takes a model with its calibrator, for any batch size;
    ``torch.compile`` has no graph break."""
    torch.compiler.reset()  # it counts the graphs of all calibrators together
    logits, labels = sample(100, 5, dtype=torch.float32)
    model = nn.Sequential(nn.Linear(5, 5), fitted(name, logits, labels))
    exported = torch.export.export(
        model, (logits[:4],), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.testing.assert_close(exported.module()(logits), model(logits))
    odd = logits[:4].clone()
    odd[1, 2] = torch.nan
    odd[2] = torch.inf
    found = exported.module()(odd)  # which looks at no value
    assert found.softmax(1).isnan().any(1).tolist() == [False, True, True, False]
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits), model(logits))


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_the_old_tracer_makes_holds_for_any_batch(name):
    """No branch is taken by the values of the batch that it saw."""
    logits, labels = sample(100, 5, dtype=torch.float32)
    calibrator = fitted(name, logits, labels)
    extreme = torch.tensor([[900.0, -900, 0, 0, 0], [0, 0, 0, 0, 0]])
    for seen in (logits[:1], logits[:4], extreme, logits):
        traced = torch.jit.trace(calibrator, seen)
        for shown in (logits, extreme):
            torch.testing.assert_close(
                traced(shown), calibrator(shown), rtol=1e-5, atol=1e-4
            )


@pytest.mark.parametrize("name", CALIBRATORS)
def test_numpy_arrays_and_other_dtypes(name):
    logits, labels = sample(150, 4, dtype=torch.float32)
    expected = fitted(name, logits, labels)(logits)
    array = logits.numpy().copy()
    array.flags.writeable = False
    calibrator = fitted(name, array, labels.numpy().astype(np.int16))
    torch.testing.assert_close(calibrator(array), expected)
    assert calibrator(logits[:0]).shape == (0, 4)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_refusals_name_the_argument(name):
    logits, labels = sample(20, 4)
    calibrator = make_calibrator(name)
    with pytest.raises(ValueError, match="calibrator: is not fitted"):
        calibrator(logits)
    calibrator.fit(logits, labels)
    bad = [
        (logits[:, :1], labels, "logits"),
        (logits[:0], labels[:0], "logits"),
        (logits[0], labels, "logits"),
        (logits / 0, labels, "logits"),
        (logits.long(), labels, "logits"),
        (logits, labels[:-1], "labels"),
        (logits, labels[:, None], "labels"),
        (logits, labels.float(), "labels"),
        (logits, labels - 1, "labels"),
        (logits, labels + 4, "labels"),
    ]
    for z, y, argument in bad:
        with pytest.raises((ValueError, TypeError), match=f"^{argument}: "):
            calibrator.fit(z, y)
    for z in (logits[:, :3], logits[0], logits / 0, logits.long()):
        with pytest.raises((ValueError, TypeError), match=r"^logits: "):
            calibrator(z)


@pytest.mark.parametrize(
    ("name", "options", "argument"),
    [
        ("tss", {}, "calibrator"),
        (3, {}, "calibrator"),
        ("ats", {"bins": 3}, "calibrator_options"),
        ("ats", {"n_bins": 0}, "n_bins"),
        ("ats", {"n_bins": 2.5}, "n_bins"),
        ("ats", {"n_bins": True}, "n_bins"),
        ("ats", {"rounds": 0}, "rounds"),
        ("ats", {"rounds": "200"}, "rounds"),
        ("ats", {"step": 0}, "step"),
        ("ats", {"step": float("nan")}, "step"),
        ("ats", {"max_step": -0.1}, "max_step"),
        ("ats", {"t_range": (2, 10)}, "t_range"),
        ("ats", {"t_range": (0.1, 0.5)}, "t_range"),
        ("ats", {"t_range": (0, 10)}, "t_range"),
        ("ats", {"t_range": 10}, "t_range"),
        ("ats", {"n_ece_bins": -1}, "n_ece_bins"),
        ("ts_nll", {"criterion": "brier"}, "criterion"),
        ("spline", {"knots": 2}, "knots"),
    ],
)
def test_impossible_options_are_refused(name, options, argument):
    with pytest.raises((ValueError, TypeError), match=f"^{argument}: "):
        make_calibrator(name, **options)


def test_every_row_builds_what_it_says():
    assert list(CALIBRATORS) == [n for n in ALL_CALIBRATORS if n in CALIBRATORS]
    assert {n for n, row in ALL_CALIBRATORS.items() if not row.needs} <= {*CALIBRATORS}
    assert make_calibrator("ts_ece").criterion == "ece"
    assert make_calibrator("ats").rounds == 200
    assert make_calibrator("ats_converged").rounds is None
    for name, row in CALIBRATORS.items():
        made = make_calibrator(name)
        assert type(made) is row.build
        assert made.keeps_predictions == row.keeps_predictions
        form = row.browser or BrowserForm("none", ())
        assert {*form.buffers} <= {buffer for buffer, _ in made.named_buffers()}
        assert {"n_classes", *made.buffer_rules} == {
            buffer for buffer, _ in made.named_buffers()
        }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CALIBRATORS)
def test_gpu_agrees_with_cpu(name):
    logits, labels = sample(500, 10, dtype=torch.float32)
    on_gpu = fitted(name, logits.cuda(), labels.cuda())
    assert all(b.is_cuda for b in on_gpu.buffers())
    expected = fitted(name, logits, labels)(logits)
    torch.testing.assert_close(
        on_gpu(logits.cuda()).cpu(), expected, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(on_gpu.cpu()(logits), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["ts_nll", "ts_ece", "ets"])
def test_a_temperature_for_constant_logits_stays_one_for_the_true_reason(name):
    labels = np.arange(40) % 4
    calibrator = make_calibrator(name)
    with pytest.warns(UserWarning, match="logits of each sample are all equal"):
        calibrator.fit(np.full((40, 4), 5.0), labels)
    # Other logits of that model must not come out sharper or softer.
    assert calibrator.temperature == 1.0


@pytest.mark.parametrize("scale", [100, 1e4])
def test_ats_says_when_its_rounds_end_far_from_the_goal(scale):
    g = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 4, (400,), generator=g)
    logits = torch.randn(400, 4, generator=g) + torch.eye(4)[labels]
    ats = make_calibrator("ats")
    with pytest.warns(UserWarning, match="after 200 rounds the ECE is still"):
        ats.fit(scale * logits, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ats.fit(logits, labels)


@pytest.mark.parametrize("decades", [3, 7, 12])
def test_rows_whose_distances_span_decades_reach_the_wanted_confidence(decades):
    """As the log probabilities of naive Bayes do."""
    rng = np.random.default_rng(0)
    distances = 10 ** rng.uniform(-4, decades - 4, (4000, 50))
    distances[:, 0] = 0
    wanted = rng.uniform(1 / 50 + 1e-4, 0.999, 4000)
    logits = torch.from_numpy(-distances)
    found = with_confidence(logits, torch.from_numpy(wanted)).exp().amax(1).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)
