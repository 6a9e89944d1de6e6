"""Calibrators under any global state, after any state_dict, at any bound."""

import copy
import warnings

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from gcelib import CALIBRATORS, make_calibrator, metrics
from gcelib.calibration import BiasCalibration, VectorScaling

F64 = torch.float64


def sample(n=300, k=5, seed=0, overconfidence=1.6):
    generator = torch.Generator().manual_seed(seed)
    truth = 2 * torch.randn(n, k, generator=generator, dtype=F64)
    labels = torch.multinomial(truth.softmax(1), 1, generator=generator)[:, 0]
    return (overconfidence * truth).float(), labels


@pytest.fixture(scope="module")
def fitted():
    return {name: make_calibrator(name).fit(*sample()) for name in CALIBRATORS}


def same(one, other):
    pairs = zip(one.buffers(), other.buffers(), strict=True)
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_fit_does_not_see_global_state(name, fitted):
    """Default dtype, autocast, inference mode: the same bits, and usable afterwards."""
    z, y = sample()
    torch.set_default_dtype(F64)
    try:
        assert same(make_calibrator(name).fit(z, y), fitted[name])
        assert torch.get_default_dtype() == F64
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert same(make_calibrator(name).fit(z, y), fitted[name])
    with torch.inference_mode():
        inside = make_calibrator(name).fit(z, y)
    assert same(inside, fitted[name])
    inside.load_state_dict(fitted[name].state_dict())
    assert torch.equal(inside(z), fitted[name](z))


@pytest.mark.parametrize("name", CALIBRATORS)
def test_transforms_of_functions_give_what_a_loop_gives(name, fitted):
    z = sample(12, seed=1)[0]
    calibrator = fitted[name]
    batched = torch.func.vmap(calibrator)(z.reshape(3, 4, 5)).reshape(12, 5)
    torch.testing.assert_close(batched, calibrator(z), rtol=1e-5, atol=1e-5)

    def top(row):
        return calibrator(row[None])[0, 0]

    rows = z.double()
    by_vmap = torch.func.vmap(torch.func.grad(top))(rows)
    by_loop = torch.stack([torch.func.grad(top)(row) for row in rows])
    torch.testing.assert_close(by_vmap, by_loop)
    moved = torch.func.jvp(top, (rows[0],), (rows[1],))[1]
    torch.testing.assert_close(moved, by_loop[0] @ rows[1])


BAD = [
    ("ts_nll", {"temperature": torch.tensor(float("nan"))}, "temperature"),
    ("ts_nll", {"temperature": torch.tensor(0.0)}, "temperature"),
    ("ts_nll", {"temperature": torch.tensor(-1.0)}, "temperature"),
    ("ts_nll", {"n_classes": torch.tensor(-1)}, "n_classes"),
    ("ts_nll", {"n_classes": torch.tensor(1)}, "n_classes"),
    ("ts_nll", {"n_classes": torch.tensor(5.0)}, "n_classes"),
    ("ets", {"weights": torch.tensor([0.5, 0.5, 0.5])}, "weights"),
    ("ets", {"weights": torch.tensor([1.5, -0.5, 0.0])}, "weights"),
    ("ets", {"weights": torch.tensor([1.0, float("nan"), 0.0])}, "weights"),
    ("ats", {"temperatures": torch.zeros(15)}, "temperatures"),
    ("ats", {"thresholds": torch.linspace(1, 0, 16)}, "thresholds"),
    ("ats", {"ece_trace": torch.zeros(1).expand(10**9)}, "ece_trace"),
    ("spline", {"scores": torch.zeros(0), "values": torch.zeros(0)}, "scores"),
    ("spline", {"scores": torch.tensor([0.9, 0.1]), "values": torch.ones(2)}, "scores"),
    ("spline", {"values": torch.ones(3)}, "scores"),
    ("bias", {"bias": torch.zeros(4)}, "bias"),
    ("vector", {"scale": torch.full((5,), float("inf"))}, "scale"),
    ("isotonic", {"points": torch.zeros(5, 0), "values": torch.zeros(5, 0)}, "points"),
    ("isotonic", {"points": torch.rand(4, 3), "values": torch.rand(4, 3)}, "points"),
    ("isotonic", {"floor": torch.tensor(0.0)}, "floor"),
    ("isotonic", {"floor": torch.tensor(0.5)}, "floor"),
    ("sms", {"weight": torch.zeros(1, 1).expand(5, 5)}, "weight"),
]


@pytest.mark.parametrize(("name", "change", "argument"), BAD)
def test_a_state_that_no_fit_writes_is_refused_and_changes_nothing(
    name, change, argument, fitted
):
    if name not in CALIBRATORS:
        pytest.skip(f"the library that fits {name} is not installed")
    calibrator = copy.deepcopy(fitted[name])
    if argument != "n_classes":  # in the type of a state that can be loaded
        change = {
            k: v if v.dim() and not all(v.stride()) else v.double()
            for k, v in change.items()
        }
    with pytest.raises(ValueError, match=f"^{argument}: (?!has dtype)"):
        calibrator.load_state_dict(calibrator.state_dict() | change)
    assert same(calibrator, fitted[name])
    with pytest.raises(ValueError, match=f"^{argument}: "):
        make_calibrator(name).load_state_dict(fitted[name].state_dict() | change)


#: Options that are not the default, and change what a calibrator gives.
OPTIONS = {
    "ts_nll": {"criterion": "ece"},
    "ats": {"rounds": 3},  # another n_bins is refused by torch
    "isotonic": {"floor": 0.01},
}


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_state_says_all_that_its_calibrator_does(name):
    z, y = sample()
    one = make_calibrator(name, **OPTIONS.get(name, {})).fit(z, y)
    other = make_calibrator(name)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(3 * z), other(3 * z))


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_state_without_the_digits_of_a_fit_is_refused(name, dtype, fitted):
    """Thresholds close to 1 collapse: it would be another calibrator."""
    state = fitted[name].state_dict()
    narrow = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    for assign in (False, True):
        other = make_calibrator(name)
        with pytest.raises(
            ValueError, match=f"has dtype {dtype}; a fit writes float64"
        ):
            other.load_state_dict(narrow, assign=assign)
        assert not other.fitted
    # As JSON's lists are read.
    lists = {k: v.tolist() for k, v in state.items()}
    with_digits = {k: torch.tensor(v, dtype=state[k].dtype) for k, v in lists.items()}
    copied, assigned = make_calibrator(name), make_calibrator(name)
    copied.load_state_dict(with_digits)
    assigned.load_state_dict(with_digits, assign=True)
    assert same(copied, fitted[name])
    assert same(assigned, fitted[name])


def test_isotonic_states_without_a_floor_are_read_as_they_were():
    pytest.importorskip("sklearn")
    z, y = sample()
    isotonic = make_calibrator("isotonic").fit(z, y)
    older = {k: v for k, v in isotonic.state_dict().items() if k != "floor"}
    other = make_calibrator("isotonic")
    other.load_state_dict(older)
    assert torch.equal(isotonic(z), other(z))
    assert "floor" not in older
    assert repr(other) == "IsotonicCalibration(floor=1e-06, fitted=True)"


def test_the_state_of_an_unfitted_calibrator_may_be_loaded():
    for name in CALIBRATORS:
        other = make_calibrator(name)
        other.load_state_dict(make_calibrator(name).state_dict())
        assert not other.fitted


KEEPING = [name for name, row in CALIBRATORS.items() if row.keeps_predictions]


@pytest.mark.parametrize("name", ["ts_nll", "ts_ece", "ets", "ats_converged", "spline"])
def test_logits_of_any_scale_are_calibrated(name):
    """Cosine similarities without their scale: T* = 0.02 is reached."""
    z, y = sample(2000, 10)
    small = make_calibrator(name).fit(0.01 * z, y)(0.01 * z)
    usual = make_calibrator(name).fit(z, y)(z)
    assert metrics.ece(small, y) < metrics.ece(usual, y) + 0.01
    assert metrics.ece(0.01 * z, y) > 0.3


@pytest.mark.parametrize("name", CALIBRATORS)
def test_labels_at_chance_and_sets_without_errors_are_said(name):
    z, _ = sample()
    with pytest.warns(UserWarning, match="classified right, no more than chance"):
        make_calibrator(name).fit(z, z.argmin(1))
    with pytest.warns(UserWarning, match="all samples are classified right"):
        make_calibrator(name).fit(z, z.argmax(1))


@pytest.mark.filterwarnings("ignore")  # that nothing can be learnt is said
@pytest.mark.parametrize("name", ["bias", "vector"])
def test_equal_logits_with_equally_frequent_labels_stay_as_they_are(name):
    calibrator = make_calibrator(name).fit(torch.ones(4, 2), torch.tensor([0, 1, 1, 0]))
    assert calibrator(torch.ones(1, 2)).softmax(1).tolist() == [[0.5, 0.5]]


def test_labels_of_one_class_alone_are_said():
    z, _ = sample()
    with pytest.warns(UserWarning, match="labels: all 300 are class 2, so nothing can"):
        make_calibrator("isotonic").fit(z, torch.full((300,), 2))


@pytest.mark.parametrize(
    ("name", "scale", "message"),
    [
        ("ts_nll", 1e-6, "temperature: ended at 0.0001"),
        ("ts_ece", 0.01, "temperature: the published grid ends at 0.1"),
        ("ats", 0.01, "t_range: .* temperatures ended at 0.1"),
    ],
)
def test_no_search_ends_at_a_bound_in_silence(name, scale, message):
    z, y = sample(2000, 10)
    with pytest.warns(UserWarning, match=message):
        make_calibrator(name).fit(scale * z, y)


def of_one_class_favoured(n=600, seed=0):
    """A model that knows its classes, and sees the last nearly everywhere."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=n, p=[0.5, 0.1, 0.4])
    known = rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels]
    return known + np.array([0, 10, 12]), labels


def test_sms_says_that_its_temperature_ended_and_what_it_found_is_loaded():
    if "sms" not in CALIBRATORS:
        pytest.skip("probmetrics or numba is not installed")
    z, y = of_one_class_favoured()
    with pytest.warns(UserWarning, match=r"temperature: ended at 8.88611e\+06"):
        fitted = make_calibrator("sms").fit(z, y)
    loaded = make_calibrator("sms")
    loaded.load_state_dict(fitted.state_dict())
    torch.testing.assert_close(loaded(z), fitted(z), rtol=0, atol=0)


def test_what_was_fitted_to_predictions_that_are_all_right_or_all_wrong_is_loaded():
    z, y = sample(200, 4)
    sure = 1000 * nn.functional.one_hot(y, 4).double()
    for logits in (sure, sure.roll(1, 1), 1e-6 * z):
        for name in CALIBRATORS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of labels and ranges
                fitted = make_calibrator(name).fit(logits, y)
            loaded = make_calibrator(name)
            loaded.load_state_dict(fitted.state_dict())
            assert torch.equal(loaded(logits), fitted(logits))


def test_the_reason_for_a_temperature_of_one_is_the_true_one():
    constant = torch.zeros(20, 10)
    with pytest.warns(UserWarning, match="logits of each sample are all equal"):
        assert make_calibrator("ts_nll").fit(constant, torch.arange(20) % 10).fitted
    tied = torch.tensor([[1.0, 1.0, 0.0]]).repeat(9, 1)
    with pytest.warns(UserWarning, match="shares the largest logit"):
        make_calibrator("ts_nll").fit(tied, torch.arange(9) % 2)


@pytest.mark.parametrize("build", [BiasCalibration, VectorScaling])
def test_bias_and_vector_minimise_their_objective(build):
    z, y = sample(80, 3)
    k, n = 3, len(y)
    calibrator = build().fit(z, y)
    x = 1 / float(make_calibrator("ts_nll").fit(z, y).temperature)
    log_p = x * z.double().log_softmax(1)
    n_scales = k if build is VectorScaling else 1

    def objective(parameters):
        a, b = np.split(parameters, [n_scales])
        scaled = log_p * (1 + torch.from_numpy(a)) + torch.from_numpy(b)
        penalty = k / n * (parameters @ parameters)
        return float(nn.functional.cross_entropy(scaled, y)) + penalty

    start = np.zeros(n_scales + k)
    found = optimize.minimize(objective, start, method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(calibrator.bias, found[n_scales:], atol=1e-5)
    expected = np.broadcast_to(x * (1 + found[:n_scales]), (k,))
    np.testing.assert_allclose(calibrator.scale, expected, atol=1e-5)


def test_a_bias_mends_a_favoured_class_and_a_temperature_does_not():
    z, y = sample(4000, 4, overconfidence=1)
    shifted = z + torch.tensor([0.0, 0.0, 0.0, 2.0])
    error = {}
    for name in ("ts_nll", "bias", "vector"):
        fit = make_calibrator(name).fit(shifted[:2000], y[:2000])
        error[name] = metrics.classwise_ece(fit(shifted[2000:]), y[2000:])
    assert error["bias"] < error["ts_nll"] / 2
    assert error["vector"] < error["ts_nll"] / 2


def test_isotonic_is_scikit_learns_one_against_the_rest():
    isotonic = pytest.importorskip("sklearn.isotonic")
    z, y = sample(400, 3)
    new = sample(100, 3, seed=1)[0]
    probs = []
    for k in range(3):
        fit = isotonic.IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        fit.fit(z.double().softmax(1)[:, k].numpy(), (y == k).numpy())
        probs.append(fit.predict(new.double().softmax(1)[:, k].numpy()).clip(1e-6))
    expected = np.stack(probs, 1)
    expected /= expected.sum(1, keepdims=True)
    found = make_calibrator("isotonic").fit(z, y)(new).exp()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_sms_is_probmetrics():
    if "sms" not in CALIBRATORS:
        pytest.skip("probmetrics or numba is not installed")
    from probmetrics.calibrators import get_calibrator

    z, y = sample(400, 3)
    new = sample(100, 3, seed=1)[0]
    theirs = get_calibrator("sms", sms_print_init_info=False)
    theirs.fit(z.double().softmax(1).numpy(), y.numpy())
    expected = theirs.predict_proba(new.double().softmax(1).numpy())
    found = make_calibrator("sms").fit(z, y)(new).softmax(1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
