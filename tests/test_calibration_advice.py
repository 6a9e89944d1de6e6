"""What ``advise`` says of models whose fault is known."""

import re
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
import torch

import gcelib
from gcelib import (
    CALIBRATORS,
    Reliability,
    ReliabilityExplorer,
    TemperatureScaling,
    advise,
    advise_confidences,
    intervals,
    metrics,
    paired_differences,
)
from gcelib._check import confidences
from gcelib.advice.copies import how_many_again, warn_of_copies, warn_of_tested_again
from gcelib.advice.judging import interval_of_mean
from gcelib.calibrator import Calibrator, are_unrelated, exchanged_classes

QUICK = ("ts_nll", "ts_ece", "ets", "spline", "ats", "ats_converged", "bias", "vector")


@pytest.fixture(autouse=True)
def without_optional_libraries():
    """The answer must not depend on what happens to be installed."""
    before = dict(CALIBRATORS)
    for name in before.keys() - {*QUICK}:
        del CALIBRATORS[name]
    yield
    CALIBRATORS.clear()
    CALIBRATORS.update(before)  # in their order


def truth_and_labels(n, k=4, seed=3, spread=2.0):
    """Logits that are right, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    truth = spread * rng.normal(size=(n, k))
    return truth, (truth + rng.gumbel(size=truth.shape)).argmax(1)


def bent(z):
    """Bold where it is sure, timid where it is not."""
    p = torch.from_numpy(z).softmax(1).amax(1, keepdim=True).numpy()
    return z * np.where(p > 0.7, 3, 0.4)


@pytest.mark.parametrize(
    ("claim", "names", "sentence"),
    [
        (lambda z: z, {"raw"}, "Leave the logits as they are: no calibrator"),
        (lambda z: 3 * z, {"ts_nll"}, "Use one temperature, T = [23].*clearly better"),
        (
            lambda z: 0.01 * z,
            {"ts_nll"},
            r"Use one temperature, T = 0\.0[01]\d{3}",
        ),
        (bent, {"ats", "ats_converged", "spline"}, "Use .* clearly better by NLL"),
        (
            lambda z: z + np.array([0, 0, 0, 2.0]),
            {"bias", "vector"},
            "Use .* clearly better by NLL",
        ),
    ],
    ids=["honest", "exaggerated", "unscaled", "bent", "shifted"],
)
def test_the_advice_fits_the_fault(claim, names, sentence):
    z, y = truth_and_labels(6000)
    advice = advise(claim(z[:3000]), y[:3000], claim(z[3000:]), y[3000:])
    assert advice.name in names
    assert torch.isfinite(advice.after).all()
    assert re.search(sentence, advice.sentence)
    assert "On 3,000 test samples" in advice.sentence
    row = {row.name: row for row in advice.rows}[advice.name]
    assert row.test_nll == pytest.approx(metrics.nll(advice.after, y[3000:]), abs=1e-6)
    assert row.test_ece == pytest.approx(metrics.ece(advice.after, y[3000:]), abs=1e-6)
    if advice.name != "raw":  # the test samples, which did not choose, agree
        raw = advice.rows[0]
        assert row.test_nll < raw.test_nll


def test_the_same_seed_gives_the_same_answer():
    z, y = truth_and_labels(400)
    first, second = (advise(2 * z, y, seed=4) for _ in range(2))
    assert first.rows == second.rows
    assert first.sentence == second.sentence


def honest_with(errors, n=1000, k=10):
    """An honest model of this many samples that happens to make so many errors."""
    rng = np.random.default_rng(errors)
    while True:
        z = rng.normal(size=(n, k))
        z[np.arange(n), rng.integers(0, k, n)] += 9 + 6 * rng.random(n)
        y = (z + rng.gumbel(size=z.shape)).argmax(1)
        if (z.argmax(1) != y).sum() == errors:
            return z, y


@pytest.mark.parametrize("choose_by", ["nll", "ece"])
@pytest.mark.parametrize("errors", [0, 1, 3])
def test_a_handful_of_errors_makes_nothing_clear(errors, choose_by):
    advice = advise(*honest_with(errors), choose_by=choose_by)
    assert advice.name == "raw"
    assert not any(row.clearly_by_nll or row.clearly_by_ece for row in advice.rows)
    assert f"Only {errors} of 1,000 predictions" in advice.sentence
    assert "about 10 errors" in advice.sentence
    z, _ = honest_with(errors)
    assert torch.equal(advice.calibrator(z), torch.from_numpy(z))  # as they are


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("favoured", [0.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_labels_in_another_order_are_said_first(seed, favoured):
    """Where one class is frequent, a model is often right by chance."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(2000, 4)) + favoured * np.array([2, 0, 0, 0])
    y = (z + rng.gumbel(size=z.shape)).argmax(1)
    wrong = y[rng.permutation(2000)]
    probs = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    in_orders = [probs[np.arange(2000), rng.permutation(y)].mean() for _ in range(2000)]
    own = probs[np.arange(2000), wrong].mean()
    z_score = (own - np.mean(in_orders)) / np.std(in_orders)
    if abs(z_score - 2) > 0.2:  # the orders drawn are not all
        told = are_unrelated(torch.from_numpy(z), torch.from_numpy(wrong))
        assert told == (z_score < 2)
    assert not are_unrelated(torch.from_numpy(z), torch.from_numpy(y))
    if seed == 0 and favoured:
        sentence = advise(z, wrong, folds=2).sentence
        assert sentence.startswith("Look at the labels first: ")
        assert not advise(z, y, folds=2).sentence.startswith("Look at the labels")
        with pytest.warns(UserWarning, match="^labels: .*(chance|any other order)"):
            TemperatureScaling().fit(z, wrong)


@pytest.mark.parametrize("exaggeration", [1, 3])
@pytest.mark.parametrize("n", [300, 1000, 5000])
def test_a_rare_class_that_is_never_predicted_may_still_be_known(n, exaggeration):
    """Of 4 %: nearly all predictions are the other class; scores know who is ill."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        score = 1.5 * rng.normal(size=n) - 4
        ill = torch.from_numpy(rng.random(n) < 1 / (1 + np.exp(-score))).long()
        z = torch.from_numpy(np.stack([np.zeros(n), exaggeration * score], 1))
        assert not are_unrelated(z, ill), seed


def rare(n, share, rng, scale=3.0, exaggeration=1.5):
    """Two classes, of which one is rare; scores know who is ill, and exaggerate."""
    score = scale * rng.normal(size=n) + np.log(share / (1 - share)) - 0.3 * scale**2
    ill = (rng.random(n) < 1 / (1 + np.exp(-score))).astype(int)
    return np.stack([np.zeros(n), exaggeration * score], 1), ill


@pytest.mark.parametrize(
    ("n", "share"), [(1000, 0.03), (2000, 0.02), (20_000, 0.02), (50_000, 0.005)]
)
def test_labels_of_a_rare_class_in_another_order_are_told(n, share):
    n_told = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        z, ill = rare(n, share, rng)
        assert scipy.stats.mannwhitneyu(z[ill == 1, 1], z[ill == 0, 1])[1] < 1e-6
        logits = torch.from_numpy(z)
        assert not are_unrelated(logits, torch.from_numpy(ill)), seed
        n_told += are_unrelated(logits, torch.from_numpy(rng.permutation(ill)))
    assert n_told >= 7  # of some lots the order fits a little


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shares", [[0.25] * 4, [0.6, 0.2, 0.1, 0.1], [0.9, 0.1]])
def test_test_labels_in_another_order_are_said_first(shares, seed):
    rng = np.random.default_rng(seed)
    y = rng.choice(len(shares), 1500, p=shares)
    z = 2 * (rng.normal(size=(1500, len(shares))) + 2 * np.eye(len(shares))[y])
    z += np.log(shares)
    val, test = (z[:500], y[:500]), (z[500:], y[500:])
    first = "Look at the test samples first"
    assert first not in advise(*val, *test, folds=2).sentence
    shuffled = rng.permutation(test[1])
    assert first in advise(*val, test[0], shuffled, folds=2).sentence


def test_confidences_of_other_samples_are_said_first():
    rng = np.random.default_rng(0)
    said = rng.beta(4, 1, 1500)
    right = rng.random(1500) < said
    first = "Look at the labels first"
    assert first not in advise_confidences(said, right, folds=2).sentence
    told = advise_confidences(said, rng.permutation(right), folds=2)
    assert told.sentence.startswith(first)
    assert "would fit as well in any other order" in told.sentence
    assert told.name == "raw"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", ["advice", "reliability", "explorer", "test"])
def test_flags_of_errors_and_probabilities_of_one_class_are_told(entry):
    rng = np.random.default_rng(0)
    said = rng.beta(4, 1, 1000)
    right = rng.random(1000) < said
    of_one_class = rng.beta(0.3, 0.3, 1000)
    is_one = rng.random(1000) < of_one_class
    entries = {
        "advice": lambda c, hits: advise_confidences(c, hits, folds=2),
        "reliability": Reliability.from_confidences,
        "explorer": lambda *pair: ReliabilityExplorer({"m": pair}, confidences=True),
        "test": lambda *pair: advise_confidences(said, right, *pair, folds=2),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        entries["reliability"](said, right)
        advise_confidences(said, right, folds=2)
    with pytest.warns(UserWarning, match=r"right predictions have lower .* in \d+% of"):
        entries[entry](said, ~right)
    with pytest.warns(UserWarning, match="the probability of one of two classes"):
        entries[entry](of_one_class, (of_one_class > 0.5) == is_one)


def of_a_network(rng, n, n_classes=10, factor=1.0, noise=0.0):
    """Confidences and hits of a model that says logits times a factor, and noise."""
    z = 1.5 * rng.normal(size=(n, n_classes))
    labels = (z + rng.gumbel(size=z.shape)).argmax(1)
    said = factor * (z + noise * rng.normal(size=z.shape))
    return scipy.special.softmax(said, 1).max(1), said.argmax(1) == labels


def n_told(pairs):
    """Of how many pairs of confidences and hits something is told."""
    told = 0
    for said, right in pairs:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Reliability.from_confidences(said, right)
        told += bool(caught)
    return told


def test_flags_of_errors_are_told_of_a_few_hundred_samples_whose_errors_are_rare():
    rng = np.random.default_rng(0)
    flags = []
    for _ in range(100):
        said = 0.4 + 0.6 * rng.beta(8, 0.6, 300)  # calibrated: 12 errors
        flags.append((said, rng.random(300) >= said))
    assert n_told(flags) > 75
    exaggerated = [of_a_network(rng, 300, 2, 2.5) for _ in range(50)]
    assert n_told((said, ~right) for said, right in exaggerated) > 45


@pytest.mark.parametrize("n", [30, 100, 1000])
def test_models_that_are_mostly_wrong_are_not_taken_for_flags_of_errors(n):
    rng = np.random.default_rng(1)
    honest = []
    for n_classes in (2, 10, 100):
        for factor in (1, 4):
            for noise in (0, 1, 3, 10):  # from calibrated to guesses
                honest.append(of_a_network(rng, n, n_classes, factor, noise))
    for _ in range(10):  # four of five are of classes that the model does not know
        said, right = of_a_network(rng, n, factor=4)
        is_new = rng.random(n) < 0.8
        honest.append((np.where(is_new, rng.beta(4, 1.5, n), said), right & ~is_new))
    assert n_told(honest) == 0


def test_a_share_of_pairs_is_that_of_mann_and_whitney():
    rng = np.random.default_rng(0)
    said = rng.random(60).round(1)  # with ties
    right = rng.random(60) < 0.7
    above = said[right][:, None] > said[~right]
    equal = said[right][:, None] == said[~right]
    found, deviation = confidences._share_above(
        torch.from_numpy(said), torch.from_numpy(right)
    )
    assert found == pytest.approx((above + equal / 2).mean())
    n, m = right.sum(), (~right).sum()
    assert deviation == pytest.approx(np.sqrt((n + m + 1) / (12 * n * m)))


@pytest.mark.parametrize("n_classes", [2, 5])
def test_confidences_that_no_largest_probability_can_be_are_told(n_classes):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(n_classes) / 2, 1000)
    top = p.max(1)
    right = rng.random(1000) < top
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advise_confidences(top.round(2), right, model_classes=n_classes, folds=2)
    margin = np.diff(np.sort(p, 1)[:, -2:], axis=1)[:, 0]
    with pytest.warns(UserWarning, match=f"^confidences: .* are below 1/{n_classes}, "):
        advise_confidences(margin, right, model_classes=n_classes, folds=2)


def test_labels_at_chance_are_said_first():
    z, y = truth_and_labels(500, spread=4.0)
    advice = advise(z, (y + 1) % 4)
    assert advice.sentence.startswith("Look at the labels first")
    assert advice.name == "raw"


def calibrated(y, k, mean, rng):
    """Logits that are exactly those of the labels' posterior."""
    x = rng.normal(size=(len(y), k))
    x[np.arange(len(y)), y] += mean
    return mean * x


@pytest.mark.parametrize(
    ("k", "means", "factors", "n"),
    [
        (10, (2.5, 4), (1, 1), 500),
        (5, (2, 2), (1, 1.3), 1000),
        (10, (1.5, 5), (1, 1), 2000),
    ],
)
def test_the_interval_of_a_difference_of_two_eces_holds_it(k, means, factors, n):
    """Chance adds more to the ECE of one than to that of the other."""
    rng = np.random.default_rng(0)

    def pair(n):
        y = rng.integers(0, k, n)
        z = calibrated(y, k, means[0], rng)
        other = z if means[0] == means[1] else calibrated(y, k, means[1], rng)
        return factors[0] * z, factors[1] * other, y

    many = pair(200_000)
    expected = metrics.ece(many[0], many[2]) - metrics.ece(many[1], many[2])
    if factors == (1, 1):
        expected = 0.0
    n_held = 0
    for seed in range(25):
        one, other, y = pair(n)
        models = {"one": one, "other": other}
        [d] = paired_differences(models, y, "other", resamples=100, seed=seed)
        n_held += d.ece_low <= expected <= d.ece_high
    assert n_held >= 22


@pytest.mark.parametrize(("n", "factor"), [(100, 2.0), (200, 0.5), (200, 3.0)])
def test_the_interval_of_a_difference_of_two_nlls_holds_it(n, factor):
    """Of 13 or 27 wrong predictions, which make most of the difference."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 100_000)
    z = calibrated(y, 3, 2, rng)
    nlls = [
        -scipy.special.log_softmax(t * z, 1)[np.arange(len(y)), y] for t in (factor, 1)
    ]
    change = nlls[0] - nlls[1]
    expected = change.mean()
    below, above, by_normal = 0, 0, 0
    for _ in range(2000):
        drawn = change[rng.integers(0, len(y), n)]
        found = interval_of_mean(drawn, 0.025)
        below += expected < found.low
        above += expected > found.high
        half = 1.96 * scipy.stats.sem(drawn)
        by_normal += abs(drawn.mean() - expected) > half
    assert max(below, above) <= 70  # 50 of 2,000 are 2.5 %
    assert by_normal > 1.2 * (below + above)


def test_two_huge_values_do_not_draw_an_interval_past_zero():
    values = np.zeros(800)
    values[:2] = -700
    assert intervals.of_mean(values)[1] < 0
    assert interval_of_mean(values, 0.025).high > 0


def test_the_interval_of_an_nll_difference_is_the_one_of_its_samples():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 300)
    z = calibrated(y, 3, 2, rng)
    [found] = paired_differences({"a": z, "b": 2 * z}, y, "a", resamples=100)
    nlls = [-scipy.special.log_softmax(t * z, 1)[np.arange(300), y] for t in (2, 1)]
    low, high = intervals.of_mean(nlls[0] - nlls[1])
    half = scipy.stats.norm.ppf(0.975) * scipy.stats.sem(nlls[0] - nlls[1])
    assert found.nll == pytest.approx(np.mean(nlls[0] - nlls[1]))
    assert found.nll_low == pytest.approx(min(low, found.nll - half))
    assert found.nll_high == pytest.approx(max(high, found.nll + half))


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_models_whose_rows_are_in_another_order_are_told(form):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    z = {name: calibrated(y, 3, 2, rng) for name in ("one", "other")}
    z["other"] = z["other"][rng.permutation(300)]
    if form == "probabilities":
        z = {name: scipy.special.softmax(logits, 1) for name, logits in z.items()}
    match = r"^calibrated\['other'\]: gives the labels no more probability"
    options = {"probabilities": form == "probabilities"}
    with pytest.warns(UserWarning, match=match):
        paired_differences(z, y, "one", resamples=100, **options)
    match = r"^runs\['other'\]: gives the labels no more probability"
    runs = {name: (scores, y) for name, scores in z.items()}
    with pytest.warns(UserWarning, match=match):
        ReliabilityExplorer(runs, **options)


def test_differences_of_few_errors_are_told():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    z = 6 * np.eye(3)[y] + rng.normal(size=(300, 3))
    n_wrong = int((z.argmax(1) != y).sum())
    assert n_wrong < 10
    match = rf"^calibrated\['a'\]: only {n_wrong} predictions are wrong"
    with pytest.warns(UserWarning, match=match):
        paired_differences({"a": z, "b": 2 * z}, y, "a", resamples=100)


@pytest.mark.parametrize(("n", "separation"), [(600, 6), (5000, 4)])
def test_a_good_model_hardly_ever_passes_with_shuffled_labels(n, separation):
    """Two standard deviations are exceeded by chance in two of a hundred orders."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, n)
    z = torch.from_numpy(calibrated(y, 10, separation, rng))
    told = [are_unrelated(z, torch.from_numpy(rng.permutation(y))) for _ in range(150)]
    assert sum(told) >= 149
    assert not are_unrelated(z, torch.from_numpy(y))


@pytest.mark.parametrize("n_classes", [2, 5, 10])
def test_labels_in_another_order_are_told_of_classes_in_turns(n_classes):
    y = np.arange(20_000) % n_classes
    rng = np.random.default_rng(0)
    z = torch.from_numpy(calibrated(y, n_classes, 3, rng))
    labels = torch.from_numpy(y)
    assert not are_unrelated(z, labels)
    n_told = sum(are_unrelated(z[rng.permutation(20_000)], labels) for _ in range(10))
    assert n_told >= 8


def test_a_disagreement_of_the_criteria_is_explained():
    z, y = truth_and_labels(3000)
    by_nll = advise(bent(z), y)
    by_ece = advise(bent(z), y, choose_by="ece")
    rows = {row.name: row for row in by_nll.rows}
    assert rows[by_nll.name].nll <= rows[by_ece.name].nll
    assert rows[by_ece.name].ece <= rows[by_nll.name].ece
    if by_nll.name != by_ece.name:
        assert f"By NLL it would be {rows[by_nll.name].label}" in by_ece.sentence


def test_a_gain_by_both_criteria_that_only_one_finds_clear_is_no_disagreement():
    rng = np.random.default_rng(0)
    z = 2 * rng.normal(size=(300, 2))
    y = (z + rng.gumbel(size=z.shape)).argmax(1)
    by_ece = advise(1.6 * z, y, choose_by="ece", folds=2)
    nll = {row.name: row.nll for row in by_ece.rows}
    assert (by_ece.name, nll["ts_nll"] < nll["raw"]) == ("ts_nll", True)
    assert "By NLL it would be" not in by_ece.sentence
    gain = f"NLL {nll['raw']:.4f} to {nll['ts_nll']:.4f}"
    told = "By NLL the gain of ts_nll over the logits as they are (raw) is not clear: "
    assert f"{told}{gain}. More samples would tell." in by_ece.sentence
    by_nll = advise(1.6 * z, y, folds=2)  # it stays: that the ECE falls is said
    assert by_nll.name == "raw"
    assert "By ECE it would be TS (NLL) (ts_nll): ECE " in by_nll.sentence


@pytest.mark.parametrize("n_bins", [20, 7])
def test_differences_are_those_of_the_metrics(n_bins):
    z, y = truth_and_labels(800)
    candidates = {"a": z, "b": 2 * z, "c": z / 2}
    found = paired_differences(candidates, y, "a", n_bins=n_bins)
    assert [d.name for d in found] == ["b", "c"]
    for d, other in zip(found, (2 * z, z / 2), strict=True):
        assert d.nll == pytest.approx(metrics.nll(other, y) - metrics.nll(z, y))
        assert d.ece == pytest.approx(
            metrics.ece(other, y, n_bins) - metrics.ece(z, y, n_bins), abs=1e-9
        )
        assert d.nll_low < d.nll < d.nll_high
        assert d.ece_low < d.ece_high


def test_samples_that_are_there_twice_are_told():
    z, y = truth_and_labels(100)
    with pytest.warns(UserWarning, match=r"val_logits: 100 of 200 rows copy others"):
        advise(np.concatenate([z, z]), np.concatenate([y, y]), folds=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_copies("val_logits", torch.from_numpy(z), torch.from_numpy(y))
    for seed in range(40):  # coarse scores, whose rows are often alike
        z, y = truth_and_labels(1000, seed=seed)
        coarse = np.exp(z - z.max(1, keepdims=True))
        coarse = (coarse / coarse.sum(1, keepdims=True)).round(1) + 0.001
        p = torch.from_numpy(coarse / coarse.sum(1, keepdims=True))
        drawn = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(seed))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_of_copies("val_logits", p.log(), drawn[:, 0])


@pytest.mark.filterwarnings("ignore:t_range")
@pytest.mark.parametrize("form", ["logits", "probabilities", "confidences"])
def test_eces_are_cut_as_the_metrics_cut_them(form):
    # Just above an edge by more than rounding, and hits that make the bin matter.
    c = np.repeat([0.9000005, 0.88], 100)
    hits = np.arange(200) >= 50
    p = np.stack([1 - c, c], 1)
    labels = hits.astype(int)
    expected = metrics.ece(p, labels, probabilities=True)
    assert expected == pytest.approx(0.26, abs=1e-6)
    if form == "confidences":
        found = gcelib.advise_confidences(c, hits).rows[0].ece
    elif form == "probabilities":
        found = advise(p, labels, probabilities=True).rows[0].ece
    else:
        found = advise(np.log(p), labels).rows[0].ece
    assert found == pytest.approx(expected)


def test_differences_of_other_classes_or_of_one_sample_are_refused():
    z, y = truth_and_labels(50)
    with pytest.raises(ValueError, match=r"^calibrated: holds 3 classes in 'b'"):
        paired_differences({"a": z, "b": z[:, :3]}, y.clip(max=2), "a")
    with pytest.raises(ValueError, match=r"^labels: one sample has no interval"):
        paired_differences({"a": z[:1], "b": z[:1]}, y[:1], "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choose_by": "brier"}, "choose_by: unknown"),
        ({"folds": 1}, "folds: 1 is outside"),
        ({"folds": 300}, "val_logits: has 400 samples"),
        ({"seed": -1}, "seed: -1 is outside"),
        ({"test_logits": np.zeros((3, 4))}, "test_logits: and test_labels go together"),
        (
            {"test_logits": np.zeros((3, 5)), "test_labels": np.zeros(3, int)},
            "test_logits: have 5 classes",
        ),
    ],
)
def test_impossible_questions_are_refused_before_any_fit(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        advise(*truth_and_labels(400), **change)


@pytest.mark.parametrize("form", ["logits", "probabilities", "confidences"])
def test_the_lines_that_load_do_what_the_advised_calibrator_does(form, tmp_path):
    torch.manual_seed(0)
    confidences = 0.4 + 0.6 * torch.rand(300, dtype=torch.float64)
    probabilities = torch.stack([1 - confidences, confidences], 1)
    logits = metrics.logits_from_probabilities(probabilities)
    labels = torch.bernoulli(0.3 + 0.5 * confidences).long()
    advice = advise(logits, labels)
    if form == "confidences":
        advice = advise_confidences(confidences, labels)
    names = {
        "logits": logits,
        "probabilities": probabilities,
        "confidences": confidences.numpy(),
    }
    exec(advice.usage(advice.save(tmp_path / "c.pt"), form), names)
    expected = advice.calibrator(logits)
    if form != "logits":
        expected = expected.softmax(1)
    if form == "confidences":
        expected = expected[:, 1]
    calibrated = torch.as_tensor(names["calibrated"])
    torch.testing.assert_close(calibrated, expected)


def an_advice(name, form="logits", n_classes=2):
    """An advice as if it had been given."""
    z = torch.zeros(1, n_classes)
    calibrator = gcelib.make_calibrator(name)
    return gcelib.advice.Advice(
        name=name,
        calibrator=calibrator,
        sentence="",
        rows=(),
        reference="raw",
        before=z,
        after=z,
        labels=torch.tensor([0]),
        form=form,
    )


@pytest.mark.parametrize(
    ("advice", "form", "message"),
    [
        (an_advice("bias"), "confidence", "form: unknown 'confidence'"),
        (an_advice("bias"), "confidences", ".*call advise_confidences"),
        (an_advice("vector", "confidences"), "logits", r".*call advise\(logits"),
        (an_advice("bias", "confidences"), "probabilities", r".*call advise\(logits"),
        (an_advice("ts_nll", n_classes=3), "confidences", ".*call advise_confidences"),
    ],
)
def test_lines_for_what_the_advice_was_not_on_are_refused(advice, form, message):
    """``bias`` would give *right* what it found of class 1."""
    with pytest.raises(ValueError, match=f"^{message}"):
        advice.usage("c.pt", form)


@pytest.mark.parametrize("name", [n for n in QUICK if n not in ("bias", "vector")])
def test_lines_for_confidences_are_right_where_two_classes_are_alike(name):
    """They act on the confidence of the top class, whichever that is."""
    z, y = truth_and_labels(400, 2)
    calibrator = gcelib.make_calibrator(name).fit(3 * z, y)
    names = {"confidences": torch.from_numpy(3 * z).softmax(1).amax(1)}
    lines = an_advice(name).usage("c.pt", "confidences")
    after_loading = lines[lines.index("logits = ") :]
    names |= {"calibrator": calibrator}
    names["logits_from_confidences"] = metrics.logits_from_confidences
    exec(after_loading, names)
    expected = calibrator(torch.from_numpy(3 * z)).softmax(1).amax(1)
    torch.testing.assert_close(names["calibrated"], expected)


def test_probabilities_are_an_input_of_their_own_and_never_pass_for_logits():
    z, y = truth_and_labels(400)
    p = torch.from_numpy(3 * z).softmax(1)
    answer = advise(p, y, p[:50], y[:50], probabilities=True, seed=2)
    same = metrics.logits_from_probabilities(p)
    assert answer.rows == advise(same, y, same[:50], y[:50], seed=2).rows
    with pytest.warns(UserWarning, match="^val_logits: rows are >= 0") as told:
        advise(p, y)
    assert len(told) == 1
    for bad, words in ((z, "hold -"), (p * 0.9, "sum to 0.9")):
        with pytest.raises(ValueError, match=f"^val_logits: {words}"):
            advise(bad, y, probabilities=True)
    with pytest.raises(TypeError, match=r"^probabilities: must be True or False"):
        advise(p, y, probabilities="yes")
    [d] = paired_differences({"a": p, "b": p}, y, "a", probabilities=True)
    assert d.nll == 0


def test_test_parts_that_are_probabilities_or_validation_samples_are_told():
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (90,), generator=g)
    logits = torch.randn(90, 3, generator=g) + 2 * torch.eye(3)[labels]
    val = (logits[:60], labels[:60])
    test = (logits[60:], labels[60:])
    with pytest.warns(UserWarning, match="test_logits: rows are >= 0 and sum to 1"):
        gcelib.advise(*val, test[0].softmax(1), test[1], folds=2)
    with pytest.warns(UserWarning, match="test_logits: 60 of 60 rows are rows of val"):
        gcelib.advise(val[0].double() + 1e-12, val[1], *val, folds=2)
    flipped = (val[0].flip(0).bfloat16(), val[1].flip(0))
    with pytest.warns(UserWarning, match="b: 60 of 60 rows are rows of a"):
        warn_of_tested_again(("a", "b"), val, flipped)
    at_chance = gcelib.advise(*val, test[0].roll(1, 1), test[1], folds=2).sentence
    assert at_chance.startswith("Look at the test samples first: ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gcelib.advise(*val, *test, folds=2)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("n_copies", [5, 25])
def test_confidences_with_all_digits_are_known_again_also_of_good_models(
    kind, n_copies
):
    """A few of a model that is mostly right: their outcomes alone would not tell."""
    rng = np.random.default_rng(n_copies)
    said = rng.beta(9, 1, (2, 500)).astype(kind)
    right = rng.random((2, 500)) < said**4
    said[1, :n_copies], right[1, :n_copies] = said[0, :n_copies], right[0, :n_copies]
    given = (said[0], right[0], said[1], right[1])
    if n_copies > 10:
        told = f"^test_confidences: {n_copies} of 500 rows are rows of confidences"
        with pytest.warns(UserWarning, match=told):
            sentence = advise_confidences(*given, folds=2).sentence
    else:
        sentence = advise_confidences(*given, folds=2).sentence
    assert "which had no say" not in sentence
    assert f"of which {n_copies} had their say" in sentence


def test_confidences_of_few_levels_are_alike_by_chance():
    """As isotonic regression and the leaves of a tree say them, with all digits."""
    rng = np.random.default_rng(0)
    for n_val, n_test, n_levels in [(60, 5000, 2000), (60, 300, 300), (900, 900, 90)]:
        levels = rng.uniform(0.5, 1, n_levels)
        said = levels[rng.integers(0, n_levels, n_val + n_test)]
        right = rng.random(n_val + n_test) < said
        logits = torch.from_numpy(np.log(np.stack([1 - said, said], 1)))
        parts = (
            logits.split((n_val, n_test)),
            torch.from_numpy(right).split((n_val, n_test)),
        )
        given = torch.from_numpy(said).split((n_val, n_test))
        val, test = zip(*parts, strict=True)
        assert how_many_again(val, (test[0], test[1].long()), given) == ""


def test_confidences_that_are_there_twice_or_tested_again_are_told():
    rng = np.random.default_rng(3)
    said = rng.uniform(0.3, 1, 100)
    right = rng.random(100) < said
    with pytest.warns(UserWarning, match=r"^confidences: 100 of 200 rows copy others"):
        advise_confidences(np.tile(said, 2), np.tile(right, 2), folds=2)
    with pytest.warns(
        UserWarning, match=r"^test_confidences: 100 of 100 rows are rows of con"
    ):
        advise_confidences(said, right, said[::-1], right[::-1], folds=2)
    single = said.astype(np.float32)
    with pytest.warns(UserWarning, match=r"^test_confidences: 100 of 100 rows are row"):
        advise_confidences(single, right, single[::-1].tolist(), right[::-1], folds=2)
    known = (np.tile(said, 2), np.tile(right, 2))
    with (
        pytest.warns(UserWarning, match=r"^confidences: 100 of 200 rows copy others"),
        pytest.warns(UserWarning, match=r"^test_confidences: 100 of 100 rows are rows"),
    ):
        advise_confidences(*known, said, right, folds=2)
    coarse = said.round(1)  # many are alike, with other outcomes
    with pytest.warns(UserWarning, match=r"^confidences: 100 of 200 rows copy others"):
        advise_confidences(np.tile(coarse, 2), np.tile(right, 2), folds=2)
    for seed in range(40):  # rounded ones are alike by chance
        rng = np.random.default_rng(seed)
        coarse = torch.from_numpy(rng.uniform(0.3, 1, (2, 1000)).round(2))
        hits = torch.from_numpy(rng.random((2, 1000)) < coarse.numpy()).long()
        val, test = torch.stack([1 - coarse, coarse], 2).log()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_of_copies("confidences", val, hits[0])
            warn_of_tested_again(("a", "b"), (val, hits[0]), (test, hits[1]))


@pytest.mark.parametrize("digits", [3, 4, 6, 16])
@pytest.mark.parametrize("times", [2, 3])
def test_copies_are_told_though_some_rows_are_alike_by_chance(digits, times):
    """In any order, and where one of them was labelled twice."""
    rng = np.random.default_rng(digits)
    said = rng.beta(3, 1, 1500).round(digits)
    right = rng.random(1500) < said
    order = rng.permutation(1500 * times)
    again = np.tile(said, times)[order], np.tile(right, times)[order]
    again[1][0] = ~again[1][0]
    logits = metrics.logits_from_confidences(again[0])
    labels = torch.from_numpy(again[1]).long()
    with pytest.warns(UserWarning, match=r"^val: [\d,]+ of [\d,]+ rows copy others"):
        warn_of_copies("val", logits, labels)
    half = np.concatenate([said[:750], rng.beta(3, 1, 750).round(digits)])
    hits = np.concatenate([right[:750], rng.random(750) < half[750:]])
    pairs = []
    for values, flags in ((said, right), (half, hits)):
        flags = torch.from_numpy(flags).long()
        pairs.append((metrics.logits_from_confidences(values), flags))
    if digits > 3:  # of three digits most are alike by chance
        given = torch.from_numpy(said), torch.from_numpy(half)
        assert how_many_again(*pairs, given) in ("750", "about 750")
    advice = advise_confidences(said, right, said[::-1], right[::-1], folds=2)
    assert ("1,500 had their say" in advice.sentence) == (advice.name != "raw")


@pytest.mark.parametrize("over", [0.5, 1.0])
@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_rounded_confidences_of_different_samples_are_no_copies(digits, over):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        parts = []
        for n in (400, 1200):
            said = (0.5 + rng.beta(2, 1, n) / 2).round(digits)
            right = rng.random(n) < 0.5 + over * (said - 0.5)
            z = metrics.logits_from_confidences(said)
            parts.append((z, torch.from_numpy(right).long()))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_of_copies("val", *parts[1])
        given = parts[0][0][:, 1].exp(), parts[1][0][:, 1].exp()
        assert how_many_again(*parts, given) == ""


def test_an_advice_keeps_its_samples():
    z, y = (value.copy() for value in truth_and_labels(100))
    advice = advise(z, y, folds=2)
    before, labels = torch.from_numpy(z.copy()), torch.from_numpy(y.copy())
    z *= 0
    y *= 0
    assert torch.equal(advice.before, before)
    assert torch.equal(advice.labels, labels)


@pytest.mark.parametrize("with_test", [False, True])
def test_the_advice_costs_the_fits_it_needs_and_no_more(with_test, monkeypatch):
    """One a fold and calibrator; on all samples the advised one, or all for a test."""
    z, y = truth_and_labels(600)
    sizes = []
    fit = Calibrator.fit

    def counted(self, logits, labels):
        sizes.append(len(labels))
        return fit(self, logits, labels)

    monkeypatch.setattr(Calibrator, "fit", counted)
    half = slice(0, 300), slice(300, 600)
    test = (3 * z[half[1]], y[half[1]]) if with_test else ()
    advice = advise(3 * z[half[0]], y[half[0]], *test, folds=4)
    assert advice.name == "ts_nll"
    tried = len(advice.rows) - 1
    on_all = tried if with_test else 1
    assert len(sizes) == 4 * tried + on_all
    assert sizes.count(225) == 4 * tried  # three of four parts
    assert sizes.count(300) == on_all


def test_an_advice_takes_no_warning_from_other_threads(monkeypatch):
    """Filters are the process's: an advice that sets them would silence everybody."""
    z, y = truth_and_labels(100)
    filters = list(warnings.filters)
    fit_alone = TemperatureScaling._fit
    fits = []

    def fit_beside_another_thread(self, logits, labels):
        fits.append(len(labels))
        gcelib._check.warn("logits: of this thread")
        other = threading.Thread(target=gcelib._check.warn, args=("of another",))
        other.start()
        other.join()
        assert list(warnings.filters) == filters
        return fit_alone(self, logits, labels)

    monkeypatch.setattr(TemperatureScaling, "_fit", fit_beside_another_thread)
    for name in QUICK[1:]:
        monkeypatch.delitem(CALIBRATORS, name)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        advise(3 * z, y, folds=2)
    said = [str(warning.message) for warning in told]
    assert fits == [50, 50, 100]
    assert said.count("of another") == 3
    assert said.count("logits: of this thread") == 1  # by the fit on all samples


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_labels_that_were_called_impossible_are_told():
    """A forest of trees says 0, and one such label outweighs all the others."""
    z, y = truth_and_labels(600)
    p = torch.from_numpy(z).softmax(1)
    p[0] = torch.nn.functional.one_hot(torch.tensor((y[0] + 1) % 4), 4)
    told = advise(metrics.logits_from_probabilities(p), y).sentence
    assert "1 of 600 validation labels had a probability of 0" in told
    assert "had a probability of 0" not in advise(z[1:], y[1:]).sentence
    told = advise(p[:400], y[:400], p[400:], y[400:], probabilities=True).sentence
    assert "1 of 400 validation labels had a probability of 0" in told


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_label_of_probability_0_is_told_where_it_decides_alone(dtype):
    z, y = truth_and_labels(600)
    p = torch.from_numpy(z).to(dtype).softmax(1)
    fitted = TemperatureScaling().fit(p.log(), y)
    p[0] = torch.nn.functional.one_hot(torch.tensor((y[0] + 1) % 4), 4)
    said = "1 of 600 labels had a probability of 0"
    with pytest.warns(UserWarning, match=f"^labels: {said}"):
        other = TemperatureScaling().fit(metrics.logits_from_probabilities(p), y)
    with pytest.warns(UserWarning, match=f"^labels: {said}"):
        TemperatureScaling().fit(metrics.logits_from_probabilities(p).float(), y)
    assert other.temperature > 1.1 * fitted.temperature
    mixed = 0.9 * p + 0.1 / 4
    both = {"a": mixed, "b": p}
    with pytest.warns(UserWarning, match=rf"^calibrated\['b'\]: {said}"):
        paired_differences(both, y, "a", probabilities=True, resamples=100)
    with pytest.warns(UserWarning, match=f"^runs: {said}"):
        ReliabilityExplorer({"b": (p, y)}, probabilities=True)


def sure(n, rng, dtype, spread=150):
    """Logits of ten classes, nearly all right, all rows different."""
    z = rng.normal(size=(n, 10)) * spread
    y = (z + rng.gumbel(size=z.shape)).argmax(1)
    return torch.from_numpy(2 * z).to(dtype), torch.from_numpy(y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_samples_of_a_sure_model_that_are_tested_again_are_told_in_any_type(dtype):
    """That they are the same does not hang on how often labels would differ."""
    rng = np.random.default_rng(0)
    z, y = sure(2000, rng, dtype)
    both = (z.float(), y), (z[:200].float(), y[:200])
    assert how_many_again(*both, (z, z[:200])) == "200"
    fresh, labels = sure(500, rng, dtype)
    assert how_many_again(both[0], (fresh.float(), labels), (z, fresh)) == ""


def test_copies_within_validation_of_a_sure_model_are_told():
    rng = np.random.default_rng(1)
    z, y = sure(2000, rng, torch.float32, spread=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_copies("val_logits", z, y)
    twice = torch.cat([z, z[:150]]), torch.cat([y, y[:150]])
    with pytest.warns(UserWarning, match=r"^val_logits: 150 of 2,150 rows copy others"):
        warn_of_copies("val_logits", *twice)


def test_a_few_samples_that_are_tested_again_are_in_the_sentence():
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 1500)
    z = 2 * calibrated(y, 3, 2, rng)
    both = z[:1000], y[:1000], np.concatenate([z[1000:], z[:8]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = advise(*both, np.concatenate([y[1000:], y[:8]])).sentence
        assert "On 508 test samples, of which 8 had their say: " in said
        assert ", which had no say: " in advise(*both[:2], z[1000:], y[1000:]).sentence


@pytest.mark.parametrize(("digits", "n_copies"), [(4, 60), (2, 0)])
def test_rounded_confidences_are_not_said_to_have_had_no_say(digits, n_copies):
    """They are alike by chance, so that nobody knows."""
    rng = np.random.default_rng(0)
    said = rng.uniform(0.3, 1, (2, 800)).round(digits)
    right = rng.random((2, 800)) < said**3
    said[1, :n_copies], right[1, :n_copies] = said[0, :n_copies], right[0, :n_copies]
    advice = advise_confidences(said[0], right[0], said[1], right[1], folds=2)
    assert "On 800 test samples: ECE " in advice.sentence


def test_columns_of_two_tables_in_two_orders_are_refused():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    scores = calibrated(y, 3, 2, rng)
    table = pd.DataFrame(scores, columns=["cat", "dog", "eel"])
    other = pd.DataFrame(scores + 0.1, columns=["cat", "dog", "eel"])
    turned = other[["eel", "cat", "dog"]]
    match = r": its columns are those of .* in another order \(eel, cat, dog\)"
    for problem in ("test_logits", r"calibrated\['b'\]", r"runs\['b'\]", r"val\['a'\]"):
        calls = {
            "test_logits": lambda: advise(table[:150], y[:150], turned[150:], y[150:]),
            r"calibrated\['b'\]": lambda: paired_differences(
                {"a": table, "b": turned}, y, "a", resamples=100
            ),
            r"runs\['b'\]": lambda: ReliabilityExplorer(
                {"a": (table, y), "b": (turned, y)}
            ),
            r"val\['a'\]": lambda: ReliabilityExplorer(
                {"a": (table[150:], y[150:])}, val={"a": (turned[:150], y[:150])}
            ),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match=f"^{problem}{match}"):
                calls[problem]()
    paired_differences({"a": table, "b": other}, y, "a", resamples=100)
    renamed = other.set_axis(["Katze", "Hund", "Aal"], axis=1)
    paired_differences({"a": table, "b": renamed}, y, "a", resamples=100)


def test_rows_of_two_tables_in_two_orders_are_told():
    """What is paired is paired by position, also where the labels have no index."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 100)
    table = pd.DataFrame(calibrated(labels, 3, 1, rng))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paired_differences({"a": table, "b": 2 * table}, labels, "a", resamples=100)
    shuffled = table.sample(frac=1, random_state=0)
    with pytest.warns(UserWarning, match=r"calibrated\['b'\]: their index is another"):
        paired_differences({"a": table, "b": shuffled}, labels, "a", resamples=100)


def exchanged(n, order):
    """Logits of a good model whose columns are in this order, and labels."""
    rng = np.random.default_rng(0)
    k = len(order)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 2 * np.eye(k)[labels]
    return logits[:, order], labels


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([0, 2, 1, 3, 4], "samples of class 1 are rather predicted as 2, of 2 as 1"),
        ([0, 2, 3, 1, 4], "class 1 are rather predicted as 3, of 3 as 2, and so on"),
    ],
)
def test_classes_whose_columns_have_changed_places_are_told(order, told):
    """Enough is right for more than chance; a calibrator would learn to undo it."""
    logits, labels = exchanged(500, order)
    hits = (logits.argmax(1) == labels).mean()
    assert hits > 0.2
    advice = gcelib.advise(logits, labels)
    assert re.match(f"Look at the labels first: .*{told}", advice.sentence)
    with pytest.warns(UserWarning, match=f"labels: .*{told}.*; look whether"):
        gcelib.TemperatureScaling().fit(logits, labels)


def test_classes_that_have_changed_places_in_the_test_part_alone_are_told():
    good = exchanged(500, [0, 1, 2, 3, 4])
    other = exchanged(500, [0, 1, 4, 3, 2])
    told = (
        "Look at the test samples first: samples of class 2 are rather predicted as 4"
    )
    assert told in gcelib.advise(*good, *other).sentence


def test_errors_that_a_calibrator_mends_are_explained():
    """Where the largest of three classes is a tenth of what it was in training, as
    after a move to balanced data; by exchanged columns it would look the same."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 1500)
    shift = np.log([20, 1, 1])
    logits = rng.normal(size=(1500, 3)) + 2 * np.eye(3)[labels] + shift
    advice = gcelib.advise(logits, labels)
    rows = {row.name: row for row in advice.rows}
    before, after = (100 * rows[name].error for name in ("raw", advice.name))
    assert before - after > 10
    told = f"It makes {before:.2f} % errors {after:.2f} %: either the classes' shares"
    assert told in advice.sentence


def poor_models(n_models, seed):
    """Labels and predictions: of honest models that know little, and of guesses."""
    rng = np.random.default_rng(seed)
    for _ in range(n_models):
        k = int(rng.choice([3, 10, 100]))
        n = int(rng.choice([50, 500, 5000]))
        prior = rng.dirichlet(np.ones(k))
        logits = np.log(prior) + rng.gamma(1) * rng.normal(size=(n, k))
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        labels = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
        yield labels, logits.argmax(1)
        yield labels, rng.integers(0, k, n)


@pytest.mark.parametrize("order", ["round and round", "sorted", "mixed"])
def test_exchanged_classes_are_seen_in_samples_of_any_order(order):
    labels = np.arange(600) % 6
    if order == "sorted":
        labels = np.sort(labels)
    if order == "mixed":
        labels = np.random.default_rng(0).permutation(labels)
    assert exchanged_classes(labels, np.array([0, 1, 5, 3, 4, 2])[labels]) == [2, 5]


def test_poor_models_are_hardly_told_that_classes_have_changed_places():
    """Less than once in 1,000: none was of 3,000 honest ones and 3,000 guesses."""
    told = [exchanged_classes(*pair) != [] for pair in poor_models(120, seed=0)]
    assert sum(told) <= 2


def test_networks_that_have_hardly_learnt_are_seldom_told_of_exchanged_classes():
    """Nor are their predictions independent of the class: random features are not."""
    told = []
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        labels = torch.randint(10, (500,), generator=g)
        centres = torch.randn(10, 64, generator=g)
        inputs = centres[labels] + torch.randn(500, 64, generator=g)
        hidden = (inputs @ torch.randn(64, 100, generator=g) / 8).relu()
        predictions = (hidden @ torch.randn(100, 10, generator=g)).argmax(1)
        told.append(exchanged_classes(labels.numpy(), predictions.numpy()))
    assert sum(circle != [] for circle in told) <= 3  # 13 by the circle alone


def test_labels_from_one_whose_highest_class_is_absent_are_told():
    """As MATLAB and R count: no label is out of range, and neighbours are confused."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 2000)
    logits = -((np.arange(6) - labels[:, None] - 0.7 * rng.normal(size=(2000, 1))) ** 2)
    assert exchanged_classes(labels, logits.argmax(1)) == []
    assert exchanged_classes(labels + 1, logits.argmax(1))[-2:] == [1, 0]
    with pytest.warns(
        UserWarning, match="labels: samples of class 5 are rather predic"
    ):
        gcelib.TemperatureScaling().fit(logits, labels + 1)


def test_exchanged_classes_are_those_of_the_largest_circle_by_brute_force():
    rng = np.random.default_rng(1)
    for _ in range(50):
        k = 4
        order = rng.permutation(k)
        labels = rng.integers(0, k, 400)
        right = rng.random(400) < 0.7
        predictions = np.where(right, order[labels], rng.integers(0, k, 400))
        found = exchanged_classes(labels, predictions)
        if (order == np.arange(k)).all():
            assert found == []
            continue
        for label, column in zip(found, [*found[1:], found[0]], strict=True):
            assert order[label] == column
        assert sorted({*found}) == sorted(found) != []


def test_what_makes_more_predictions_wrong_is_not_advised():
    """Votes of 30 trees: a label's share is zero now and then, and where that is worth
    700 nats, what is fitted by the NLL flattens everything."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    features, classes = pytest.importorskip("sklearn.datasets").load_digits(
        return_X_y=True
    )
    rng = np.random.default_rng(0)
    features = features + rng.normal(size=features.shape) * features.std(0)
    forest = ensemble.RandomForestClassifier(30, random_state=0)
    p = forest.fit(features[:540], classes[:540]).predict_proba(features[540:1170])
    labels = classes[540:1170]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels of probability zero
        logits = np.log(p.clip(1e-307))
        advice = gcelib.advise(logits, labels, choose_by="ece")
    rows = {row.name: row for row in advice.rows}
    raw = rows["raw"].error
    assert rows[advice.name].error < raw + 0.02
    worse = {row.name for row in rows.values() if row.clearly_by_ece}
    worse = {name for name in worse if rows[name].error > raw + 0.1}
    pattern = (
        r"Not advised is [^.]* \((\w+)\), though clearly better by ECE: it makes more "
        r"predictions wrong, (\S+) for (\S+) %\."
    )
    name, after, before = re.search(pattern, advice.sentence).groups()
    assert name in worse
    assert (after, before) == (f"{100 * rows[name].error:.2f}", f"{100 * raw:.2f}")


def test_temperatures_that_ended_are_named_and_the_advised_one_warns():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, size=1000, p=[0.5, 0.1, 0.4])
    logits = rng.normal(size=(1000, 3)) + 1.5 * np.eye(3)[labels] + [0, 10, 12]
    with pytest.warns(UserWarning, match="temperature: ended at"):
        advice = gcelib.advise(logits, labels)
    found = re.search(r"temperature of ([^.]*) ended at the end", advice.sentence)
    named = set(re.findall(r"\((\w+)\)", found.group(1)))
    assert {"ts_nll", "bias", "vector"} <= named
    assert not named & {"spline", "raw"}
    assert advice.name in named


@pytest.mark.parametrize("choose_by", ["nll", "ece"])
def test_what_mends_many_predictions_is_told_by_either_criterion(choose_by):
    """Trained where some classes were rare, judged where none is."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, 2000)
    shares = np.geomspace(1, 0.01, 10)
    logits = 1.5 * (rng.normal(size=(2000, 10)) + 2.5 * np.eye(10)[labels])
    logits = logits + 0.8 * np.log(shares / shares.sum())
    advice = gcelib.advise(logits, labels, choose_by=choose_by)
    rows = {row.name: row for row in advice.rows}
    raw, least = rows["raw"].error, min(row.error for row in advice.rows)
    assert raw - least > 0.1
    found = re.search(r"(\S+) makes (\S+) % errors (\S+) %", advice.sentence)
    who, before, after = found.groups()
    assert before == f"{100 * raw:.2f}"
    mended = rows[advice.name] if who == "It" else rows[who.strip("()")]
    assert after == f"{100 * mended.error:.2f}"
    rival = re.search(r"it would be .* \((\w+)\): [^.]*\.", advice.sentence)
    if rival and abs(rows[rival.group(1)].error - rows[advice.name].error) > 0.01:
        told = f"error {100 * rows[advice.name].error:.2f} to "
        assert f"{told}{100 * rows[rival.group(1)].error:.2f} %" in advice.sentence


def test_of_labels_at_chance_no_smallest_ece_is_told():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(1000, 3))
    labels = (logits + 3 * rng.gumbel(size=logits.shape)).argmax(1)
    advice = gcelib.advise(logits, (labels + 1) % 3)
    assert "no more than chance" in advice.sentence
    assert any(row.clearly_by_ece for row in advice.rows)
    assert "smallest ECE" not in advice.sentence
    assert "More samples would tell" not in advice.sentence


def test_that_labels_of_probability_zero_decide_is_said_first():
    """Two wrong predictions of exactly 1.0 hide a model that exaggerates: their NLL is
    any number above a floor."""
    rng = np.random.default_rng(0)
    right = np.array([0.6, 0.7, 0.8, 0.85, 0.9, 0.95])
    confidences = rng.choice(right, 800)
    correct = rng.random(800) < confidences - 0.14
    honest = gcelib.advise_confidences(confidences, correct)
    assert honest.sentence.startswith("Use ")
    confidences[:8] = 1.0
    correct[:8] = [False, False, *[True] * 6]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        advice = gcelib.advise_confidences(confidences, correct)
    assert advice.name == "raw"
    assert re.match(
        r"2 of 800 validation labels had a probability of 0", advice.sentence
    )


@pytest.mark.parametrize(
    "given",
    [torch.clone, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.requires_grad_],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_was_judged_of_sure_confidences_is_what_the_saved_lines_do(
    dtype, given, tmp_path
):
    """A confidence of 1 leaves a 0, whose logarithm hangs on the type."""
    g = torch.Generator().manual_seed(1)
    logits = (4 * torch.randn(4000, 2, generator=g)).to(dtype)
    truth = 0.95 * logits.softmax(1) + 0.025
    labels = torch.multinomial(truth, 1, generator=g)[:, 0]
    confidences, predicted = (3 * logits).softmax(1).max(1)
    hits = predicted == labels
    assert int((confidences == 1).sum()) > 100
    val, test = given(confidences[:2000]), given(confidences[2000:])
    advice = advise_confidences(val, hits[:2000], test, hits[2000:], choose_by="ece")
    path = tmp_path / "calibrator.pt"
    advice.save(path)
    names = {"confidences": test}
    exec(advice.usage(path), names)
    said = advice.after.softmax(1)[:, 1]
    torch.testing.assert_close(names["calibrated"], said, rtol=0, atol=1e-6)


def test_what_is_left_as_it_is_keeps_its_ece(tmp_path):
    """Votes of 50 trees in float32, which a list widened, lie on edges of bins."""
    rng = np.random.default_rng(4)
    truth = rng.beta(1.2, 1.2, 2000)
    labels = (rng.random(2000) < truth).astype(int)
    of_one = rng.binomial(50, truth) / 50
    exact = np.stack([1 - of_one, of_one], 1)
    votes = exact.astype(np.float32).tolist()
    right = exact.argmax(1) == labels
    expected = gcelib.ece(exact[1000:], labels[1000:], probabilities=True)
    half = votes[:1000], labels[:1000], votes[1000:], labels[1000:]
    advice = advise(*half, probabilities=True)
    assert advice.name == "raw"
    names = {"probabilities": votes[1000:]}
    exec(advice.usage(advice.save(tmp_path / "c.pt"), "probabilities"), names)
    found = gcelib.ece(names["calibrated"], labels[1000:], probabilities=True)
    assert found == pytest.approx(expected, abs=1e-7)
    sure = exact.max(1).astype(np.float32).tolist()
    advice = advise_confidences(sure[:1000], right[:1000], sure[1000:], right[1000:])
    assert advice.name == "raw"
    names = {"confidences": sure[1000:]}
    exec(advice.usage(advice.save(tmp_path / "d.pt")), names)
    found = gcelib.Reliability.from_confidences(names["calibrated"], right[1000:]).ece
    assert found == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_advice_on_half_precision_says_what_evaluate_says_of_its_output(dtype):
    g = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(1500, 4, generator=g)
    labels = torch.multinomial((logits / 2).softmax(1), 1, generator=g)[:, 0]
    p = logits.softmax(1).to(dtype)
    val, test = slice(0, 700), slice(700, None)
    advice = gcelib.advise(
        p[val], labels[val], p[test], labels[test], probabilities=True
    )
    (row,) = (row for row in advice.rows if row.name == advice.name)
    assert advice.name != "raw"
    shown = gcelib.ece(advice.after, labels[test])
    assert row.test_ece == pytest.approx(shown, abs=1e-7)


def test_a_test_part_is_cut_as_finely_as_its_own_type():
    """Votes of 20 in float32, validation in float64: 0.85 is 0.8500000238."""
    rng = np.random.default_rng(0)
    said = np.round(rng.beta(5, 2, 1200) * 20) / 20
    right = rng.random(1200) < said - 0.1 * np.sin(40 * said)
    test = said[400:].astype(np.float32)
    advice = advise_confidences(said[:400].tolist(), right[:400], test, right[400:])
    expected = gcelib.Reliability.from_confidences(said[400:], right[400:]).ece
    assert advice.rows[0].test_ece == pytest.approx(expected, abs=1e-6)


def test_votes_that_are_alike_are_not_said_to_be_tested_again():
    rng = np.random.default_rng(0)
    votes = rng.multinomial(50, rng.dirichlet([3, 2, 1], 800).reshape(-1, 3)) / 50
    p = torch.from_numpy(0.999 * votes + 0.001 / 3)
    labels = torch.from_numpy((votes.cumsum(1) < rng.random((800, 1))).sum(1)).clamp(
        0, 2
    )
    alike = {row.numpy().tobytes() for row in p[:400]}
    assert sum(row.numpy().tobytes() in alike for row in p[400:]) > 50
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_tested_again(
            ("a", "b"), (p[:400], labels[:400]), (p[400:], labels[400:])
        )


@pytest.mark.parametrize("digits", [2, 3])
@pytest.mark.parametrize("kind", ["confidences", "probabilities"])
def test_a_whole_set_that_is_tested_again_is_told_as_all_of_it(kind, digits):
    """Though of rounded rows most are alike, some with several labels."""
    rng = np.random.default_rng(3)
    labels = rng.integers(3, size=800)
    z = 1.5 * rng.normal(size=(800, 3))
    z[np.arange(800), labels] += 2.5
    p = torch.from_numpy(z).mul(1.8).softmax(1).numpy()
    order = rng.permutation(800)
    if kind == "confidences":
        said, right = p.max(1).round(digits), p.argmax(1) == labels
        given = torch.from_numpy(said), torch.from_numpy(said[order])
        rows = [metrics.logits_from_confidences(c) for c in given]
        sets = [torch.from_numpy(flags).long() for flags in (right, right[order])]
    else:
        p = p.round(digits) + 1e-6
        p /= p.sum(1, keepdims=True)
        given = torch.from_numpy(p), torch.from_numpy(p[order])
        rows = [metrics.logits_from_probabilities(one) for one in given]
        sets = [torch.from_numpy(of_rows) for of_rows in (labels, labels[order])]
    pairs = [*zip(rows, sets, strict=True)]
    assert how_many_again(*pairs, given) == "800"
    twice = rows[0].repeat(2, 1)
    with pytest.warns(UserWarning, match=r"^val: 800 of 1,600 rows copy others"):
        warn_of_copies("val", twice, sets[0].repeat(2))


def test_a_number_of_copies_is_told_only_where_chance_gives_hardly_any():
    """Of 1,000 rows 500 are validation's; of others, too, rounded ones are alike."""
    found = {}
    for digits in (2, 3, 16):
        rng = np.random.default_rng(1)
        labels = torch.from_numpy(rng.integers(3, size=1500))
        z = torch.from_numpy(rng.normal(size=(1500, 3)))
        z[torch.arange(1500), labels] += 3
        p = torch.from_numpy((1.5 * z).softmax(1).numpy().round(digits)) + 1e-9
        rows = metrics.logits_from_probabilities(p / p.sum(1, keepdim=True))
        val, test = (rows[:1000], labels[:1000]), (rows[500:], labels[500:])
        found[digits] = how_many_again(val, test)
        again = torch.arange(1100) % 1000  # the first hundred twice
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            warn_of_copies("val", rows[again], labels[again])
        for one in told:
            is_exact = "rows copy others" in str(one.message)
            assert is_exact == (digits == 16)
            assert not is_exact or "val: 100 of 1,100 rows" in str(one.message)
    assert found[16] == "500"
    assert found[2] in ("", "some")
    about, number = found[3].split()
    assert about == "about"
    assert 420 <= int(number) <= 580
