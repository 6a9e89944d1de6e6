"""Metrics beside slow float64 versions, hand-made cases, other libraries; load."""

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from gcelib import CalibrationMeter, Reliability, _check, blocks, intervals, metrics

SCALARS = ("error", "nll", "brier", "ece", "adaptive_ece", "classwise_ece")
NAMES = (*SCALARS, "mce")

# --------------------------------------------------------------------------------------
# Slow versions: plain Python over float64 numbers, one definition each.


def softmax_rows(logits):
    rows = []
    for row in np.asarray(logits, dtype=np.float64):
        top = max(row)
        exps = [math.exp(z - top) for z in row]
        rows.append([e / math.fsum(exps) for e in exps])
    return rows


def slow_bins(values, hits, edges):
    """A list of (value, hit) pairs per bin (lo, hi]; the first is closed at 0."""
    bins = [[] for _ in edges[1:]]
    for value, hit in zip(values, hits, strict=True):
        for b in range(len(bins)):
            if value <= edges[b + 1] * (1 + 5e-7) or b == len(bins) - 1:
                bins[b].append((value, hit))
                break
    return bins


def slow_gap(values, hits, edges):
    total = 0.0
    for members in slow_bins(values, hits, edges):
        if members:
            total += (
                len(members)
                / len(values)
                * abs(sum(v for v, _ in members) - sum(h for _, h in members))
                / len(members)
            )
    return total


def width_edges(n_bins):
    return [j / n_bins for j in range(n_bins + 1)]


def mass_edges(values, n_bins):
    """Sorted values, interpolated linearly at j N / n_bins, clamped at the largest."""
    ordered, n, edges = sorted(values), len(values), []
    for j in range(n_bins + 1):
        x = min(j * n / n_bins, n - 1)
        low = math.floor(x)
        high = min(low + 1, n - 1)
        edges.append(ordered[low] + (x - low) * (ordered[high] - ordered[low]))
    return edges


def slow_nll(row, y):
    top = max(row)
    return math.log(math.fsum(math.exp(v - top) for v in row)) + top - row[y]


def slow_brier(p, y):
    return sum((value - (c == y)) ** 2 for c, value in enumerate(p))


def slow(logits, labels, n_bins=20):
    probs = softmax_rows(logits)
    confidences = [max(p) for p in probs]
    hits = [p.index(max(p)) == y for p, y in zip(probs, labels, strict=True)]
    n, k = len(probs), len(probs[0])
    z = np.asarray(logits, dtype=np.float64)
    of_classes = [
        slow_gap([p[c] for p in probs], [y == c for y in labels], width_edges(n_bins))
        for c in range(k)
    ]
    return {
        "error": 1 - sum(hits) / n,
        "nll": sum(slow_nll(row, y) for row, y in zip(z, labels, strict=True)) / n,
        "brier": sum(map(slow_brier, probs, labels)) / n,
        "ece": slow_gap(confidences, hits, width_edges(n_bins)),
        "adaptive_ece": slow_gap(confidences, hits, mass_edges(confidences, n_bins)),
        "classwise_ece": sum(of_classes) / k,
        "mce": max(
            abs(sum(v for v, _ in b) - sum(h for _, h in b)) / len(b)
            for b in slow_bins(confidences, hits, width_edges(n_bins))
            if b
        ),
    }  # fmt: skip


def make(n, k, seed=0, scale=3.0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(n, k)) * scale).astype(dtype)
    labels = np.where(rng.random(n) < 0.6, logits.argmax(1), rng.integers(0, k, n))
    return logits, labels


def logits_of(probs):
    """Float64 logits whose softmax is ``probs``; zeros become -1000."""
    probs = np.asarray(probs, dtype=np.float64)
    return np.log(probs, out=np.full_like(probs, -1000.0), where=probs > 0)


def value(name, logits, labels, n_bins=20):
    args = () if name in ("error", "nll", "brier") else (n_bins,)
    return getattr(metrics, name)(logits, labels, *args)


# --------------------------------------------------------------------------------------
# Agreement


@pytest.mark.parametrize(
    ("n", "k", "n_bins"),
    [
        (1, 2, 20),
        (12, 3, 20),
        (7, 5, 15),
        (300, 10, 1),
        (300, 31, 20),
        (300, 32, 7),
        (200, 100, 20),
        (20, 1000, 20),
    ],
)
def test_float32_agrees_with_the_slow_version_to_one_millionth(n, k, n_bins):
    logits, labels = make(n, k)
    expected = slow(logits, labels, n_bins)
    for name in NAMES:
        assert value(name, logits, labels, n_bins) == pytest.approx(
            expected[name], abs=1e-6
        ), name
    together = metrics.evaluate(
        torch.from_numpy(logits), torch.from_numpy(labels), n_bins
    )
    assert tuple(together)[:6] == SCALARS
    for name in SCALARS:
        assert together[name] == pytest.approx(expected[name], abs=1e-6)
    assert all(type(v) is float for v in together.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_mean_the_numbers_they_hold(dtype):
    logits, labels = make(400, 20)
    logits = torch.from_numpy(logits).to(dtype)  # half precision makes many ties
    expected = slow(logits.double().numpy(), labels)
    tolerance = 1e-12 if dtype is torch.float64 else 1e-6
    found = metrics.evaluate(logits, labels)
    for name in SCALARS:
        assert found[name] == pytest.approx(expected[name], abs=tolerance)


@pytest.mark.parametrize("k", [5, 40])
def test_blocks_do_not_show(k, monkeypatch):
    logits, labels = make(257, k)
    whole = (
        metrics.evaluate(logits, labels),
        metrics.entropy(logits),
        metrics.reliability(logits, labels, class_index=1),
    )
    monkeypatch.setattr(blocks, "CELLS", 20 * k)
    parts = (
        metrics.evaluate(logits, labels),
        metrics.entropy(logits),
        metrics.reliability(logits, labels, class_index=1),
    )
    assert parts[0] == pytest.approx(whole[0], abs=1e-8)
    np.testing.assert_allclose(parts[1], whole[1], atol=1e-6)
    np.testing.assert_array_equal(parts[2].counts, whole[2].counts)


def test_torch_numpy_memory_map_and_odd_layouts_give_the_same(tmp_path):
    logits, labels = make(200, 12)
    expected = metrics.evaluate(logits, labels)
    np.save(tmp_path / "logits.npy", logits)
    padded = np.zeros((200, 24), np.float32)
    padded[:, ::2] = logits
    frozen = logits.copy()
    frozen.setflags(write=False)
    forms = [
        torch.from_numpy(logits).requires_grad_(),
        np.load(tmp_path / "logits.npy", mmap_mode="r"),
        np.asfortranarray(logits),
        padded[:, ::2],
        frozen,
        logits[::-1][::-1],
        logits.astype(logits.dtype.newbyteorder()),
        torch.from_numpy(logits).t().contiguous().t(),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in forms:
            assert metrics.evaluate(form, labels) == expected
        for kind in (np.uint8, np.int16, np.uint32, np.uint64):
            assert metrics.evaluate(logits, labels.astype(kind)) == expected


def test_inputs_stay_as_they_are():
    logits, labels = make(50, 40)
    before = logits.copy(), labels.copy()
    metrics.evaluate(logits, labels, bootstrap=3)
    metrics.reliability(logits, labels, class_index=0)
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(labels, before[1])


@pytest.mark.parametrize("k", [3, 10, 100])
def test_torchmetrics_agrees_off_the_edges(k):
    from torchmetrics.functional.classification import (
        binary_calibration_error,
        multiclass_calibration_error,
    )

    logits, labels = (torch.from_numpy(a) for a in make(500, k))
    probs = logits.softmax(1)
    for norm, name in (("l1", "ece"), ("max", "mce")):
        peer = multiclass_calibration_error(logits, labels, k, n_bins=20, norm=norm)
        assert value(name, logits, labels) == pytest.approx(float(peer), abs=1e-6)
    peer = np.mean(
        [
            float(binary_calibration_error(probs[:, c], (labels == c).long(), 20))
            for c in range(k)
        ]
    )
    assert metrics.classwise_ece(logits, labels) == pytest.approx(peer, abs=1e-6)
    assert metrics.nll(logits, labels) == pytest.approx(
        float(F.cross_entropy(logits, labels)), abs=1e-6
    )


# --------------------------------------------------------------------------------------
# By hand

# twelve samples, K = 2, class 0 always predicted: confidence, and whether it is right
TWELVE = [
    *((0.55, 1), (0.55, 0), (0.58, 1), (0.62, 1), (0.7, 0), (0.7, 0)),
    *((0.75, 1), (0.85, 1), (0.9, 1), (0.95, 1), (0.98, 1), (1.0, 0)),
]


def twelve():
    return logits_of([(c, 1 - c) for c, _ in TWELVE]), np.array(
        [1 - hit for _, hit in TWELVE]
    )


def test_twelve_samples_with_five_bins():
    logits, labels = twelve()
    # (.4, .6]: .55 .55 .58, two of three right; (.6, .8]: .62 .7 .7 .75, two of four;
    # (.8, 1]: .85 .9 .95 .98 1, four of five
    gaps = [abs(1.68 - 2) / 3, abs(2.77 - 2) / 4, abs(4.68 - 4) / 5]
    assert metrics.ece(logits, labels, 5) == pytest.approx((0.32 + 0.77 + 0.68) / 12)
    assert metrics.mce(logits, labels, 5) == pytest.approx(max(gaps))
    assert metrics.error(logits, labels) == pytest.approx(4 / 12)
    bins = metrics.reliability(logits, labels, 5)
    np.testing.assert_allclose(bins.edges, [0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_array_equal(bins.counts, [0, 0, 3, 4, 5])
    np.testing.assert_allclose(
        bins.confidence, [np.nan, np.nan, 0.56, 2.77 / 4, 4.68 / 5]
    )
    np.testing.assert_allclose(bins.accuracy, [np.nan, np.nan, 2 / 3, 0.5, 0.8])
    np.testing.assert_allclose(bins.gap[2:], [-0.32 / 3, 0.77 / 4, 0.68 / 5])
    assert bins.ece == pytest.approx(metrics.ece(logits, labels, 5))
    assert (bins.edges.dtype, bins.counts.dtype, bins.confidence.dtype) == (
        np.float64,
        np.int64,
        np.float64,
    )


def test_twelve_samples_with_three_equal_masses():
    logits, labels = twelve()
    # positions 0, 4, 8, 12 (clamped to 11) of the sorted confidences: edges .55, .7,
    # .9, 1; bins hold 6, 3, 3
    bins = metrics.reliability(logits, labels, 3, binning="mass")
    np.testing.assert_allclose(bins.edges, [0.55, 0.7, 0.9, 1.0])
    np.testing.assert_array_equal(bins.counts, [6, 3, 3])
    expected = (abs(3.7 - 3) + abs(2.5 - 3) + abs(2.93 - 2)) / 12
    assert metrics.adaptive_ece(logits, labels, 3) == pytest.approx(expected)
    assert bins.ece == pytest.approx(expected)


def test_brier_and_nll_of_two_samples():
    logits = logits_of([(0.5, 0.25, 0.25), (0.1, 0.2, 0.7)])
    assert metrics.brier(logits, np.array([0, 0])) == pytest.approx(
        (0.25 + 0.125 + 0.81 + 0.04 + 0.49) / 2
    )
    assert metrics.nll(logits, np.array([0, 0])) == pytest.approx(
        -(math.log(0.5) + math.log(0.1)) / 2
    )


# --------------------------------------------------------------------------------------
# Conventions, the published ones that we keep and the ones that we change


@pytest.mark.parametrize("k", [2, 4, 5, 10, 20, 50])
def test_a_value_on_an_edge_belongs_to_the_bin_below(k):
    logits = np.zeros((6, k), np.float32)  # confidence exactly 1 / k
    bins = metrics.reliability(logits, np.zeros(6, np.int64), 100)
    assert bins.counts[100 // k - 1] == 6
    in_class = metrics.reliability(logits, np.zeros(6, np.int64), 100, class_index=1)
    assert in_class.counts[100 // k - 1] == 6


def test_every_edge_of_twenty_bins_survives_rounding():
    probs = [(j / 20, 1 - j / 20) for j in range(11, 21)]
    bins = metrics.reliability(logits_of(probs), np.zeros(10, np.int64))
    np.testing.assert_array_equal(bins.counts, [0] * 10 + [1] * 10)


def test_the_smallest_confidence_counts_in_adaptive_ece():
    # the published rule (lower, upper] drops the confidence 0.6, which alone is wrong,
    # from the sum but not from N
    logits = logits_of([(0.6, 0.4), (0.8, 0.2), (0.9, 0.1), (1.0, 0.0)])
    labels = np.array([1, 0, 0, 0])
    assert metrics.reliability(logits, labels, 2, "mass").counts.sum() == 4
    # edges at positions 0, 2, 3: .6, .9, 1; bins {.6 .8 .9} and {1}
    assert metrics.adaptive_ece(logits, labels, 2) == pytest.approx(abs(2.3 - 2) / 4)
    assert metrics.adaptive_ece(logits[:1], labels[:1], 2) == pytest.approx(0.6)
    # All are the smallest.
    assert metrics.adaptive_ece(
        np.zeros((9, 4)), np.ones(9, np.int64)
    ) == pytest.approx(0.25)


def test_a_probability_of_exactly_zero_counts_in_classwise_ece():
    logits = np.array([[200.0, 0.0], [200.0, 0.0]], np.float32)  # p = (1, 0) exactly
    labels = np.array([1, 1])
    assert float(torch.from_numpy(logits).softmax(1)[0, 1]) == 0.0
    # The published code says 0.5: class 1 has no bin there.
    assert metrics.classwise_ece(logits, labels) == 1.0
    assert metrics.reliability(logits, labels, class_index=1).counts[0] == 2


def test_a_class_without_labels_counts_in_classwise_ece():
    logits = logits_of([(0.5, 0.1, 0.4)] * 10)
    # The published code averages over two classes, for lack of a label 2.
    labels = np.array([0] * 6 + [1] * 4)
    assert metrics.classwise_ece(logits, labels) == pytest.approx((0.1 + 0.3 + 0.4) / 3)


@pytest.mark.parametrize("k", [3, 64])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_of_tied_logits_the_first_is_the_prediction(k, dtype):
    logits = np.zeros((k, k), dtype)
    labels = np.arange(k)
    # Not 0: a constant model is no oracle.
    assert metrics.error(logits, labels) == pytest.approx(1 - 1 / k)
    assert metrics.ece(logits, labels) == pytest.approx(0, abs=1e-7)
    np.testing.assert_array_equal(metrics.top_label(logits, labels)[1], labels == 0)
    logits[:, -1] = logits[:, 1] = 50  # a tie of two at confidence one half
    np.testing.assert_array_equal(metrics.top_label(logits, labels)[1], labels == 1)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 60))
def test_predictions_are_argmax_on_coarse_logits(seed, k, n):
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 4, (n, k)).astype(np.float32) * rng.choice(
        [1e-7, 0.5, 1, 30]
    )
    labels = rng.integers(0, k, n)
    np.testing.assert_array_equal(
        metrics.top_label(logits, labels)[1], logits.argmax(1) == labels
    )


def test_reliability_of_a_class():
    logits, labels = make(300, 4)
    probs = np.array(softmax_rows(logits))
    for k in range(4):
        bins = metrics.reliability(logits, labels, 20, class_index=k)
        expected = slow_bins(probs[:, k], labels == k, width_edges(20))
        np.testing.assert_array_equal(bins.counts, [len(b) for b in expected])
        for b, members in enumerate(expected):
            if members:
                assert bins.confidence[b] == pytest.approx(
                    np.mean([v for v, _ in members]), abs=1e-6
                )
                assert bins.accuracy[b] == pytest.approx(
                    np.mean([h for _, h in members])
                )
    of_classes = np.mean(
        [metrics.reliability(logits, labels, 20, class_index=k).ece for k in range(4)]
    )
    assert metrics.classwise_ece(logits, labels) == pytest.approx(of_classes, abs=1e-7)


def test_binned_samples_stand_behind_the_bars():
    logits, labels = make(300, 4)
    confidences, correct = metrics.top_label(logits, labels)
    for binning in ("width", "mass"):
        bins = metrics.reliability(logits, labels, 10, binning)
        edges, cuts, samples, probs, hits = metrics.binned_samples(
            logits, labels, 10, binning
        )
        np.testing.assert_array_equal(np.sort(samples), np.arange(300))
        np.testing.assert_array_equal(probs, confidences[samples])
        np.testing.assert_array_equal(hits, correct[samples])
        np.testing.assert_array_equal(np.diff(cuts), bins.counts)
        np.testing.assert_array_equal(edges, bins.edges)


# --------------------------------------------------------------------------------------
# Invariants

CASES = st.tuples(
    st.integers(0, 2**32 - 1),
    st.integers(1, 80),
    st.integers(2, 50),
    st.integers(1, 40),
)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(CASES)
def test_invariants(case):
    seed, n, k, n_bins = case
    rng = np.random.default_rng(seed)
    logits, labels = make(
        n, k, seed, scale=float(rng.choice([0.1, 2, 30])), dtype=np.float64
    )
    values = metrics.evaluate(logits, labels, n_bins)
    for name, top in (
        ("error", 1),
        ("brier", 2),
        ("ece", 1),
        ("adaptive_ece", 1),
        ("classwise_ece", 1),
    ):
        assert 0 <= values[name] <= top, name
    assert values["nll"] >= 0
    # A mean is no more than the maximum.
    assert values["ece"] <= metrics.mce(logits, labels, n_bins) + 1e-12
    order = rng.permutation(n)
    assert metrics.evaluate(logits[order], labels[order], n_bins) == pytest.approx(
        values, abs=1e-12
    )
    # Exact in float64 up to rounding of the sum.
    shift = rng.integers(-4, 5, (n, 1)) * 8.0
    assert metrics.evaluate(logits + shift, labels, n_bins) == pytest.approx(
        values, abs=1e-9
    )
    names = rng.permutation(k)  # renaming the classes; ties do not occur
    renamed = metrics.evaluate(logits[:, np.argsort(names)], names[labels], n_bins)
    assert renamed == pytest.approx(values, abs=1e-12)
    confidences, correct = metrics.top_label(logits, labels)
    overall = abs(confidences.mean() - correct.mean())
    for name in ("ece", "adaptive_ece"):
        assert value(name, logits, labels, 1) == pytest.approx(overall, abs=1e-12)
        assert values[name] >= overall - 1e-12  # finer bins cannot cancel more
    assert metrics.ece(logits, labels, 2 * n_bins) >= values["ece"] - 1e-12
    assert metrics.entropy(logits).min() >= 0
    assert metrics.entropy(logits).max() <= math.log(k) + 1e-12


# --------------------------------------------------------------------------------------
# Out of distribution


def test_entropy():
    probs = np.array([(0.5, 0.25, 0.25), (1.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3)])
    np.testing.assert_allclose(
        metrics.entropy(logits_of(probs)),
        [1.5 * math.log(2), 0, math.log(3)],
        atol=1e-12,
    )
    logits, _ = make(100, 60)
    slow_entropy = [
        -math.fsum(p * math.log(p) for p in row if p) for row in softmax_rows(logits)
    ]
    np.testing.assert_allclose(metrics.entropy(logits), slow_entropy, atol=1e-6)
    assert metrics.entropy(logits).dtype == np.float64


@pytest.mark.parametrize("decimals", [0, 1, 7])
def test_auroc_is_sklearns(decimals):
    from sklearn.metrics import roc_auc_score

    inside = make(300, 6, 1)[0].round(decimals)
    outside = make(200, 6, 2, scale=1.5)[0].round(decimals)
    inside[:90] = outside[:40].repeat(3, 0)[:90] = [
        300,
        0,
        0,
        0,
        0,
        0,
    ]  # saturated: many entropies are exactly 0
    scores = np.concatenate([metrics.entropy(inside), metrics.entropy(outside)])
    expected = roc_auc_score(np.arange(500) >= 300, scores)
    assert metrics.ood_auroc(inside, torch.from_numpy(outside)) == pytest.approx(
        expected, abs=1e-12
    )
    assert metrics.ood_auroc(inside, inside) == pytest.approx(0.5)


def test_auroc_extremes():
    sure = np.array([[9.0, 0.0], [8.0, 0.0]])
    unsure = np.array([[0.1, 0.0]])
    assert metrics.ood_auroc(sure, unsure) == 1.0
    assert metrics.ood_auroc(unsure, sure) == 0.0


# --------------------------------------------------------------------------------------
# Intervals


def test_bootstrap_draws_are_the_metrics_of_resampled_rows(monkeypatch):
    """Every resample's three numbers are the metrics of its rows; intervals are basic.

    Those of an error, of an NLL and of a Brier score are not from resamples.
    """
    logits, labels = make(60, 5, dtype=np.float64)
    drawn = []
    quantiles = []
    generator = np.random.default_rng(7)

    class Recorder:
        def integers(self, low, high, size):
            drawn.append(generator.integers(low, high, size))
            return drawn[-1]

        def random(self, size):
            return generator.random(size)

    quantile = np.quantile
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Recorder())
    monkeypatch.setattr(blocks, "CELLS", 7 * 60)  # several groups of resamples
    monkeypatch.setattr(
        np,
        "quantile",
        lambda a, *rest, **kw: (
            quantiles.append(np.array(a)) or quantile(a, *rest, **kw)
        ),
    )
    result = metrics.evaluate(logits, labels, 10, bootstrap=16)
    assert len(drawn) == 16
    expected = [
        list(slow(logits[rows], labels[rows], 10).values())[3:6] for rows in drawn
    ]
    np.testing.assert_allclose(quantiles[0], expected, atol=1e-9)
    for i, name in enumerate(["ece", "adaptive_ece", "classwise_ece"]):
        low, high = quantile([row[i] for row in expected], [0.025, 0.975])
        assert result[f"{name}_low"] == pytest.approx(
            max(2 * result[name] - high, 0), abs=1e-9
        )
        assert result[f"{name}_high"] == pytest.approx(
            max(2 * result[name] - low, 0), abs=1e-9
        )


def test_intervals_are_reproducible_ordered_and_inside_the_range():
    logits, labels = make(80, 40)
    first = metrics.evaluate(logits, labels, bootstrap=50, seed=3)
    assert first == metrics.evaluate(logits, labels, bootstrap=50, seed=3)
    assert first != metrics.evaluate(logits, labels, bootstrap=50, seed=4)
    rows = {name: row for name, row in metrics.METRICS.items() if row.in_evaluate}
    ends = [f"{name}_{end}" for name in rows for end in ("low", "high")]
    assert list(first) == [*rows, *ends, "ece_calibrated_high"]
    for name, row in rows.items():
        assert 0 <= first[f"{name}_low"] <= first[f"{name}_high"] <= row.highest
    assert metrics.METRICS["brier"].highest == 2
    with pytest.warns(UserWarning, match="^logits: only 0 of 5 predictions are wrong"):
        certain = metrics.evaluate(
            np.eye(5, dtype=np.float32) * 1000, np.arange(5), bootstrap=20
        )
    assert certain.pop("error_high") == pytest.approx(1 - 0.025 ** (1 / 5))
    assert all(v == 0 for v in certain.values())


@pytest.mark.parametrize("level", [0.5, 0.95, 0.9975])
@pytest.mark.parametrize("n", [5, 100])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_interval_of_a_mean_solves_halls_cubic(sign, n, level):
    values = sign * np.random.default_rng(n).exponential(size=n) ** 2 + 7
    s = scipy.stats.skew(values) / np.sqrt(n)
    expected = [
        values.mean()
        - scipy.stats.sem(values)
        * scipy.optimize.brentq(
            lambda t, q=q: t + s * t**2 / 3 + s**2 * t**3 / 27 + s / 6 - q, -1e3, 1e3
        )
        for q in scipy.stats.norm.ppf([(1 + level) / 2, (1 - level) / 2])
    ]
    assert intervals.of_mean(values, level) == pytest.approx(expected, rel=1e-9)


def test_the_interval_of_a_mean_without_skewness_is_the_normal_one():
    values = np.array([-2.0, -1, 0, 1, 2])
    half = scipy.stats.norm.ppf(0.975) * scipy.stats.sem(values)
    assert intervals.of_mean(values) == pytest.approx((-half, half), rel=1e-12)
    tilted = values + np.array([1e-7, 0, 0, 0, 0])
    assert intervals.of_mean(tilted) == pytest.approx((-half, half), abs=1e-6)
    assert intervals.of_mean(np.full(9, 0.3)) == pytest.approx((0.3, 0.3))
    assert intervals.of_mean(np.array([1.0, np.inf])) == (np.inf, np.inf)


@pytest.mark.parametrize(("n", "temperature"), [(100, 2.0), (300, 3.0)])
def test_intervals_of_losses_miss_the_truth_on_both_sides_alike(n, temperature):
    """Of 3,000 sets; the normal interval lies too low."""
    rng = np.random.default_rng(0)
    logits, labels = world(rng, 300_000, temperature)
    log_probs = scipy.special.log_softmax(logits, 1)
    losses = -log_probs[np.arange(len(labels)), labels]
    truth = losses.mean()
    below, above, above_normal = 0, 0, 0
    for _ in range(3000):
        drawn = losses[rng.integers(0, len(losses), n)]
        low, high = intervals.of_mean(drawn)
        below += truth < low
        above += truth > high
        above_normal += truth > drawn.mean() + 1.96 * scipy.stats.sem(drawn)
    assert 50 <= below <= 100  # 75 of 3,000 are 2.5 %
    assert 50 <= above <= 100
    assert above_normal > 1.3 * above


@pytest.mark.parametrize("n", [20, 300, 100_000])
@pytest.mark.parametrize("n_found", [0, 1, 3, 20])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(n_found, n):
    exact = scipy.stats.binomtest(n_found, n).proportion_ci(method="exact")
    assert intervals.of_share(n_found, n) == pytest.approx((exact.low, exact.high))
    low, high = intervals.of_share(n - n_found, n)
    assert (1 - high, 1 - low) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("n_wrong", [0, 1, 9, 10, 25, 199])
def test_the_interval_of_an_error_is_exact_and_few_errors_are_told(n_wrong):
    labels = np.zeros(200, int)
    logits = np.random.default_rng(0).normal(size=(200, 2)) + np.array([4, -4])
    logits[:n_wrong] = logits[:n_wrong, ::-1]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = metrics.evaluate(logits, labels, bootstrap=100)
    assert found["error"] == pytest.approx(n_wrong / 200)
    exact = scipy.stats.binomtest(n_wrong, 200).proportion_ci(method="exact")
    interval = found["error_low"], found["error_high"]
    assert interval == pytest.approx((exact.low, exact.high))
    few = [w for w in told if f"only {n_wrong} of 200 predictions" in str(w.message)]
    assert len(few) == (n_wrong < 10)


@pytest.mark.parametrize("n_bins", [20, 25, 50, 100])
@pytest.mark.parametrize("digits", [2, 3])
def test_what_is_left_to_1_lies_on_its_edge(digits, n_bins):
    """1 - 0.95 is 0.050000000000000044."""
    whole = np.arange(1, 10**digits)
    p = whole / 10**digits
    pair = np.stack([1 - p, p], 1)
    labels = np.zeros(len(p), int)
    rest = 10**digits - whole
    bins = -(-rest * n_bins // 10**digits) - 1  # (lo, hi], in whole numbers
    expected = np.bincount(bins, minlength=n_bins)
    found = metrics.reliability(pair, labels, n_bins, class_index=0, probabilities=True)
    np.testing.assert_array_equal(found.counts, expected)
    logits = metrics.logits_from_probabilities(pair)
    found = metrics.reliability(logits, labels, n_bins, class_index=0)
    np.testing.assert_array_equal(found.counts, expected)
    found = Reliability.from_confidences(1 - p, p > 2, n_bins)
    np.testing.assert_array_equal(found.counts, expected)


def world(rng, n, temperature):
    """n samples of three classes whose truth is known: logits / temperature."""
    logits = rng.normal(size=(n, 3)) * 2
    truth = np.exp(logits)
    truth /= truth.sum(1, keepdims=True)
    labels = (rng.random((n, 1)) > truth.cumsum(1)).sum(1)
    return logits * temperature, np.minimum(labels, 2)


@pytest.mark.parametrize("temperature", [1.6, 3.0])
def test_intervals_cover_what_a_huge_sample_shows(temperature):
    """95 % intervals of 40 sets of 400 samples, against the values of 200,000 samples.

    At 1.6 the percentile intervals (their mirror images) miss the biased classwise ECE
    more often than not.
    """
    rng = np.random.default_rng(0)
    truth = metrics.evaluate(*world(rng, 200_000, temperature), n_bins=10)
    covered, covered_by_percentile = dict.fromkeys(SCALARS, 0), 0
    for seed in range(40):
        found = metrics.evaluate(
            *world(rng, 400, temperature), n_bins=10, bootstrap=100, seed=seed
        )
        for name in SCALARS:
            covered[name] += (
                found[f"{name}_low"] <= truth[name] <= found[f"{name}_high"]
            )
        mirrored = 2 * found["classwise_ece"] - truth["classwise_ece"]
        covered_by_percentile += (
            found["classwise_ece_low"] <= mirrored <= found["classwise_ece_high"]
        )
    assert all(32 <= count <= 40 for count in covered.values()), covered
    if temperature == 1.6:
        assert covered_by_percentile < 24


def test_where_a_model_is_calibrated_the_band_tells_and_the_interval_does_not():
    """Near 0 a basic interval is too high, if less so than the percentile one."""
    rng = np.random.default_rng(2)
    found = [
        metrics.evaluate(*world(rng, 500, 1.0), bootstrap=60, seed=seed)
        for seed in range(20)
    ]
    assert np.mean([f["ece_low"] > 0.005 for f in found]) > 0.3  # the true value is 0
    assert np.mean([f["ece"] <= f["ece_calibrated_high"] for f in found]) > 0.8
    assert np.mean([f["ece_low"] + f["ece_high"] for f in found]) < 2 * np.mean(
        [f["ece"] for f in found]
    )


def test_calibrated_band_holds_calibrated_models_and_not_others():
    """Of 60 calibrated models 95 % show an ECE below the band's upper edge."""
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(60):
        found = metrics.evaluate(*world(rng, 300, 1.0), bootstrap=60, seed=seed)
        inside += found["ece"] <= found["ece_calibrated_high"]
    assert 54 <= inside < 60
    found = metrics.evaluate(*world(rng, 300, 3.0), bootstrap=100)
    assert found["ece"] > 1.5 * found["ece_calibrated_high"]


# --------------------------------------------------------------------------------------
# Probabilities as input


def random_probabilities(n=500, k=6, seed=0):
    logits, labels = make(n, k, seed, dtype=np.float64)
    return logits, np.array(softmax_rows(logits)), labels


@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("name", [*NAMES, "evaluate"])
def test_probabilities_give_the_numbers_of_their_logits(name, k):
    logits, probs, labels = random_probabilities(k=k)
    function = getattr(metrics, name)
    expected = function(logits, labels)
    assert function(probs, labels, probabilities=True) == pytest.approx(expected)
    again = function(metrics.logits_from_probabilities(probs), labels)
    assert again == pytest.approx(expected)


def test_probabilities_give_the_diagrams_and_entropies_of_their_logits():
    logits, probs, labels = random_probabilities()
    for options in ({}, {"binning": "mass"}, {"class_index": 2}):
        bins = metrics.reliability(probs, labels, **options, probabilities=True)
        for ours, theirs in zip(
            bins, metrics.reliability(logits, labels, **options), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)
    entropies = metrics.entropy(probs, probabilities=True)
    np.testing.assert_allclose(entropies, metrics.entropy(logits), atol=1e-12)
    other = random_probabilities(seed=5)
    auroc = metrics.ood_auroc(probs, other[1], probabilities=True)
    assert auroc == pytest.approx(metrics.ood_auroc(logits, other[0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_of_probabilities_that_tie_above_a_half_the_first_is_the_prediction(dtype):
    p = torch.full((10, 2), 0.504, dtype=dtype)  # rounded so that rows sum to 1.01
    second = torch.ones(10, dtype=torch.int64)
    assert metrics.error(p, second, probabilities=True) == 1
    assert metrics.error(p, 0 * second, probabilities=True) == 0


def test_exact_zeros_and_ones_are_probabilities():
    probs = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    labels = np.array([0, 1, 1])
    numbers = metrics.evaluate(probs, labels, probabilities=True, bootstrap=5)
    assert numbers["nll"] == pytest.approx(math.log(2) / 3)
    assert numbers["brier"] == pytest.approx(0.5 / 3)
    assert numbers["error"] == pytest.approx(1 / 3)  # of the tied two, the first
    np.testing.assert_allclose(
        metrics.entropy(probs, probabilities=True), [0, math.log(2), 0]
    )
    logits = metrics.logits_from_probabilities(probs.astype(np.float32))
    assert bool(torch.isfinite(logits).all())
    np.testing.assert_allclose(logits.softmax(1), probs, atol=1e-30)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_gradients_pass_through_the_logits_of_probabilities(dtype):
    p = torch.tensor([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]], dtype=dtype)
    p.requires_grad_()
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    (metrics.logits_from_probabilities(p) * weights).sum().backward()
    expected = [[4.0, 8 / 3], [6.0, 8.0], [5.0, 0.0]]  # weights / p, none of a zero
    close = 1e-3 if dtype is torch.float16 else 1e-6
    np.testing.assert_allclose(p.grad.double(), expected, rtol=close)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_logits_from_confidences_are_those_of_wrong_and_right(dtype):
    fractions = [0.0, 0.05, 0.35, 0.5, 0.95, 1.0]
    given = torch.tensor(fractions, dtype=getattr(torch, dtype))
    logits = metrics.logits_from_confidences(given)
    assert logits.shape == (6, 2)
    assert logits.dtype == torch.promote_types(given.dtype, torch.float32)
    p = np.array(fractions)  # what was meant, also in half precision
    np.testing.assert_allclose(logits.softmax(1)[:, 1], p, atol=1e-7)
    np.testing.assert_allclose(logits.softmax(1)[:, 0], 1 - p, atol=1e-7)
    given = torch.tensor([0.25, 1.0], dtype=torch.float64, requires_grad=True)
    metrics.logits_from_confidences(given)[:, 1].sum().backward()
    assert given.grad.tolist() == [4.0, 1.0]
    for bad in ([[0.5]], [1.2], [1], ["a"]):
        with pytest.raises((ValueError, TypeError), match=r"^confidences: "):
            metrics.logits_from_confidences(bad)


def test_a_label_of_probability_zero_is_an_infinite_nll_and_is_said():
    probs = np.array([[1.0, 0.0], [0.5, 0.5]])
    labels = np.array([1, 1])
    with pytest.warns(UserWarning, match="1 of 2 labels have the probability 0"):
        assert metrics.nll(probs, labels, probabilities=True) == math.inf
    with pytest.warns(UserWarning, match="1 of 2 labels"):
        numbers = metrics.evaluate(probs, labels, probabilities=True, bootstrap=5)
    assert numbers["nll"] == numbers["nll_low"] == numbers["nll_high"] == math.inf
    assert not any(math.isnan(value) for value in numbers.values())


@pytest.mark.parametrize(
    "row",
    [
        [0.5, 0.6, 0.1],
        [0.5, 0.2, 0.1],
        [1.2, -0.1, -0.1],
        [np.nan, 0.5, 0.5],
        [2.0, 0.0, -1.0],
        [50.0, 30.0, 20.0],
    ],
)
@pytest.mark.parametrize("name", [*NAMES, "evaluate", "reliability", "entropy"])
def test_rows_that_are_no_distribution_are_refused(name, row, monkeypatch):
    monkeypatch.setattr(blocks, "CELLS", 6)
    probs = np.array([[0.5, 0.25, 0.25]] * 4 + [row])
    args = (probs,) if name == "entropy" else (probs, np.zeros(5, int))
    with pytest.raises(ValueError, match=r"^logits: .*row 4.*; "):
        getattr(metrics, name)(*args, probabilities=True)


@pytest.mark.parametrize("name", [*NAMES, "evaluate", "reliability", "top_label"])
def test_probabilities_that_come_as_logits_are_told(name):
    _, probs, labels = random_probabilities()
    with pytest.warns(UserWarning, match=r"^logits: .*probabilities=True") as caught:
        getattr(metrics, name)(probs, labels)
    assert caught[0].filename == __file__
    if name == "nll":
        for call in (metrics.entropy, lambda z: metrics.ood_auroc(z, z)):
            with pytest.warns(UserWarning, match="probabilities=True"):
                call(probs)


def odd_probabilities():
    """Probabilities in the forms in which people have them."""
    logits, probs, _ = random_probabilities(n=300, k=10)
    one_hot = np.eye(10)[probs.argmax(1)]
    first_eight_one_hot = np.where(np.arange(300)[:, None] < 8, one_hot, probs)
    forms = {
        "half": probs.astype(np.float16),
        "bfloat16": torch.from_numpy(probs).bfloat16(),
        "one-hot": one_hot,
        "first eight one-hot": first_eight_one_hot,
        "percent": 100 * probs,
        "whole percent": (100 * probs).round(),
        "sigmoid": 1 / (1 + np.exp(-logits)),
        "sigmoid in percent": 100 / (1 + np.exp(-logits)),
    }
    for digits in range(1, 8):
        forms[f"{digits} digits"] = probs.round(digits)
        forms[f"percent, {digits} digits"] = (100 * probs).round(digits)
    return forms


@pytest.mark.parametrize("form", odd_probabilities())
def test_rounded_one_hot_sigmoid_and_percent_probabilities_are_told(form):
    scores = odd_probabilities()[form]
    with pytest.warns(UserWarning, match="as (probabilities|percentages) do"):
        _check.warn_of_probabilities(torch.as_tensor(scores))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 100),
    st.integers(2, 40),
    st.floats(-4, 2),
    st.sampled_from(["plain", "cosine", "positive cosine", "one score", "log p", "1"]),
)
def test_true_logits_give_no_alarm(seed, n, k, magnitude, kind):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 10**magnitude
    if "cosine" in kind:
        image = rng.normal(size=(n, 32))
        text = rng.normal(size=(k, 32))
        image /= np.linalg.norm(image, axis=1, keepdims=True)
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        logits = image @ text.T
        if kind == "positive cosine":  # as CLIP's
            logits = 0.25 + 0.1 * logits
    elif kind == "one score":
        logits = np.stack([0 * logits[:, 0], logits[:, 0]], 1)
    elif kind == "log p":
        logits = torch.from_numpy(logits).log_softmax(1).numpy()
    elif kind == "1":
        logits = logits.round(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _check.warn_of_probabilities(torch.from_numpy(logits))


# --------------------------------------------------------------------------------------
# Pairs of confidence and hit; the exact split; edges


@pytest.mark.parametrize("binning", ["width", "mass", "equal"])
def test_pairs_give_the_bins_of_their_logits(binning):
    logits, _, labels = random_probabilities()
    confidences, correct = metrics.top_label(logits, labels)
    whole = metrics.reliability(logits, labels, 10, binning)
    for hits in (correct, correct.astype(int), correct.tolist()):
        bins = Reliability.from_confidences(confidences, hits, 10, binning)
        for ours, theirs in zip(bins, whole, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert bins.mce == np.nanmax(np.abs(bins.gap))
    if binning == "width":
        assert bins.ece == pytest.approx(metrics.ece(logits, labels, 10))
        assert bins.mce == metrics.mce(logits, labels, 10)


@pytest.mark.parametrize(
    ("confidences", "correct", "guilty"),
    [
        ([50.0, 90.0], [1, 0], "confidences"),
        ([0.5, np.nan], [1, 0], "confidences"),
        ([0.5, -0.1], [1, 0], "confidences"),
        ([[0.5, 0.5]], [1, 0], "confidences"),
        ([], [], "confidences"),
        ([1, 1], [1, 0], "confidences"),
        ("0.5", [1], "confidences"),
        ([0.5, 0.6], [1], "correct"),
        ([0.5, 0.6], [1, 2], "correct"),
        ([0.5, 0.6], [1, np.nan], "correct"),
        ([0.5, 0.6], None, "correct"),
    ],
)
def test_bad_pairs_are_refused(confidences, correct, guilty):
    with pytest.raises((ValueError, TypeError), match=rf"^{guilty}: .+; .+"):
        Reliability.from_confidences(confidences, correct)


@pytest.mark.parametrize(("n", "n_bins"), [(1000, 20), (997, 20), (2, 2), (3, 7)])
def test_the_exact_split_is_that_of_numpy(n, n_bins):
    logits, labels = make(n, 5, dtype=np.float64)
    bins = metrics.reliability(logits, labels, n_bins, "equal")
    confidences, correct = metrics.top_label(logits, labels)
    order = np.argsort(confidences, kind="stable")
    parts = np.array_split(order, n_bins)
    assert bins.counts.tolist() == [len(part) for part in parts]
    gaps = [abs((confidences[p] - correct[p]).sum()) for p in parts]
    expected = pytest.approx(sum(gaps) / n)
    assert bins.ece == expected
    assert metrics.adaptive_ece(logits, labels, n_bins, binning="equal") == expected
    assert np.all(np.diff(bins.edges) >= 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_only_rounding_is_forgiven_at_an_edge(dtype):
    """0.9 with an error of a few units is in (0.85, 0.9], 0.90000057 is not."""
    eps = np.finfo(dtype).eps
    beside = 6 if dtype is np.float32 else 80  # so far may 1 - 0.95 lie from 0.05
    probs = np.array([0.9 * (1 + steps * eps) for steps in (-3, 0, 3, beside)], dtype)
    bins = Reliability.from_confidences(probs, np.ones(4, bool))
    assert bins.counts[17:19].tolist() == [3, 1]
    lifted = Reliability.from_confidences(np.float32([0.90000057]), [True])
    assert lifted.counts[18] == 1


# --------------------------------------------------------------------------------------
# Out of distribution, saturated


def test_entropy_and_auroc_do_not_saturate():
    sure = np.array([[200.0, 0.0, 3.0]] * 5, np.float32)
    less = np.array([[120.0, 0.0, 3.0]] * 5, np.float32)
    assert metrics.ood_auroc(sure, less) == 1.0
    assert metrics.ood_auroc(100 * sure, 100 * less) == 1.0  # exp(-12000)
    # by hand in float64: sum of p (1 + distance), to first order
    distances = np.array([120.0, 117.0])
    expected = (np.exp(-distances) * (1 + distances)).sum()
    np.testing.assert_allclose(metrics.entropy(less)[0], expected, rtol=1e-6)


def test_logits_of_different_models_are_refused():
    with pytest.raises(ValueError, match=r"^logits_ood: has 100 classes, .* 10; "):
        metrics.ood_auroc(make(20, 10)[0], make(20, 100)[0])


# --------------------------------------------------------------------------------------
# Lists, tables; an accelerator's path


def test_lists_and_tables_are_read_as_arrays():
    import pandas as pd

    logits, labels = make(50, 4, dtype=np.float64)
    expected = metrics.evaluate(logits, labels)
    table = pd.DataFrame(logits, index=np.arange(50)[::-1])
    forms = [
        (logits.tolist(), labels.tolist()),
        (table, pd.Series(labels, index=np.arange(50) + 7)),
        ([torch.from_numpy(row) for row in logits], tuple(labels)),
        (list(logits), torch.from_numpy(labels)),
    ]
    for scores, classes in forms:
        assert metrics.evaluate(scores, classes) == expected


@pytest.mark.parametrize("k", [2, 10, 40])
@pytest.mark.parametrize("probabilities", [False, True])
def test_the_path_of_accelerators_gives_the_same_numbers(k, probabilities, monkeypatch):
    logits, labels = make(300, k)
    logits[:40] = logits[:40].round()  # ties
    scores = torch.from_numpy(logits)
    if probabilities:
        scores = scores.softmax(1)
    labels = torch.from_numpy(labels)

    def numbers():
        options = {"probabilities": probabilities}
        found = metrics.evaluate(scores, labels, bootstrap=4, **options)
        found |= {
            name: getattr(metrics, name)(scores, labels, **options) for name in NAMES
        }
        bins = metrics.reliability(scores, labels, class_index=1, **options)
        return found, bins, metrics.entropy(scores, **options)

    expected = numbers()
    monkeypatch.setattr(blocks, "CpuBlock", blocks.Block)
    found = numbers()
    assert found[0] == pytest.approx(expected[0], abs=1e-7)
    np.testing.assert_array_equal(found[1].counts, expected[1].counts)
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-6, atol=1e-12)


# --------------------------------------------------------------------------------------
# The list of metrics


def confident_errors(logits, labels, *, probabilities=False):
    """Fraction of samples that are wrong with a confidence above 0.9."""
    confidences, correct = metrics.top_label(
        logits, labels, probabilities=probabilities
    )
    return float((~correct & (confidences > 0.9)).mean())


def test_a_row_makes_a_metric_of_evaluate_with_an_interval(monkeypatch):
    row = metrics.Metric(
        confident_errors, label="Blunders", axis="blunders (%)", takes_bins=False
    )
    monkeypatch.setitem(metrics.METRICS, "confident_errors", row)
    logits, labels = make(200, 4)
    found = metrics.evaluate(logits, labels, bootstrap=30)
    assert found["confident_errors"] == confident_errors(logits, labels)
    low = found["confident_errors_low"]
    high = found["confident_errors_high"]
    assert 0 <= low < found["confident_errors"] < high <= 1


def test_fast_ways_give_what_the_functions_give():
    logits, labels = make(300, 12, dtype=np.float64)
    together = metrics.evaluate(logits, labels)
    assert list(together) == [n for n, m in metrics.METRICS.items() if m.in_evaluate]
    for name, number in together.items():
        assert number == pytest.approx(getattr(metrics, name)(logits, labels))


# --------------------------------------------------------------------------------------
# Bad input and load


GOOD = np.eye(4, 3, dtype=np.float32), np.array([0, 1, 2, 0])
BAD = {
    "ragged list": ([[1.0, 2.0], [1.0]], GOOD[1], "logits"),
    "whole numbers": (GOOD[0].astype(int), GOOD[1], "logits"),
    "complex": (torch.eye(4, 3, dtype=torch.complex64), GOOD[1], "logits"),
    "sparse": (torch.eye(4, 3).to_sparse(), GOOD[1], "logits"),
    "vector": (GOOD[0][0], GOOD[1], "logits"),
    "one class": (GOOD[0][:, :1], GOOD[1], "logits"),
    "empty": (GOOD[0][:0], GOOD[1][:0], "logits"),
    "nan": (np.where(np.eye(4, 3), np.nan, 1.0), GOOD[1], "logits"),
    "inf": (np.where(np.eye(4, 3), np.inf, 1.0), GOOD[1], "logits"),
    "-inf": (
        np.where(np.eye(4, 3), -np.inf, 1.0).astype(np.float16),
        GOOD[1],
        "logits",
    ),
    "inf and -inf": (np.array([[np.inf, -np.inf, 0.0]] * 4), GOOD[1], "logits"),
    "column of labels": (GOOD[0], GOOD[1][:, None], "labels"),
    "float labels": (GOOD[0], GOOD[1].astype(float), "labels"),
    "bool labels": (GOOD[0], GOOD[1] > 0, "labels"),
    "complex labels": (GOOD[0], torch.zeros(4, dtype=torch.complex64), "labels"),
    "too few labels": (GOOD[0], GOOD[1][:3], "labels"),
    "label K": (GOOD[0], GOOD[1] + 1, "labels"),
    "negative label": (GOOD[0], GOOD[1] - 1, "labels"),
    "huge label": (GOOD[0], np.array([0, 1, 2, 2**64 - 1], np.uint64), "labels"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize(
    "name", [*NAMES, "evaluate", "reliability", "top_label", "binned_samples"]
)
def test_bad_input_is_refused_by_name(name, case):
    logits, labels, guilty = BAD[case]
    with pytest.raises((ValueError, TypeError), match=rf"^{guilty}: .+; .+"):
        getattr(metrics, name)(logits, labels)
    if guilty == "logits":
        with pytest.raises((ValueError, TypeError), match=r"^logits: "):
            metrics.entropy(logits)
        with pytest.raises((ValueError, TypeError), match=r"^logits_in: "):
            metrics.ood_auroc(logits, GOOD[0])
        with pytest.raises((ValueError, TypeError), match=r"^logits_ood: "):
            metrics.ood_auroc(GOOD[0], logits)


@pytest.mark.parametrize(
    "n_bins", [0, -1, 2.5, 20.0, "20", None, True, math.nan, 10**5]
)
@pytest.mark.parametrize(
    "name", ["ece", "adaptive_ece", "classwise_ece", "mce", "reliability", "evaluate"]
)
def test_impossible_n_bins(name, n_bins):
    with pytest.raises((ValueError, TypeError), match=r"^n_bins: .+; .+"):
        getattr(metrics, name)(*GOOD, n_bins)


@pytest.mark.parametrize(
    ("options", "guilty"),
    [
        ({"bootstrap": -1}, "bootstrap"),
        ({"bootstrap": 1.5}, "bootstrap"),
        ({"bootstrap": True}, "bootstrap"),
        ({"seed": -1}, "seed"),
        ({"seed": "1"}, "seed"),
    ],
)
def test_impossible_options_of_evaluate(options, guilty):
    with pytest.raises((ValueError, TypeError), match=f"^{guilty}: "):
        metrics.evaluate(*GOOD, **options)


@pytest.mark.parametrize(
    ("options", "guilty"),
    [
        ({"binning": "wdth"}, "binning: unknown 'wdth'; did you mean 'width'"),
        ({"class_index": 3}, "class_index"),
        ({"class_index": -1}, "class_index"),
        ({"class_index": 0.0}, "class_index"),
    ],
)
def test_impossible_options_of_reliability(options, guilty):
    with pytest.raises((ValueError, TypeError), match=f"^{guilty}"):
        metrics.reliability(*GOOD, **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("k", [3, 50])
def test_the_row_that_is_not_finite_is_named_in_any_block(bad, k, monkeypatch):
    monkeypatch.setattr(blocks, "CELLS", 10 * k)
    logits, labels = make(100, k)
    logits[57, 2] = bad
    for name in NAMES:
        with pytest.raises(ValueError, match="first in row 57"):
            value(name, logits, labels)


@pytest.mark.parametrize("name", ["evaluate", *NAMES])
def test_each_block_is_looked_at_for_what_is_not_finite_once(name, monkeypatch):
    k, rows_a_block, n_blocks = 5, 10, 7
    monkeypatch.setattr(blocks, "CELLS", rows_a_block * k)
    logits, labels = make(rows_a_block * n_blocks, k)
    looks = []
    for module, function in ((blocks, "_surely_finite"), (_check, "all_finite")):
        true = getattr(module, function)
        monkeypatch.setattr(
            module, function, lambda z, true=true: looks.append(len(z)) or true(z)
        )
    if name == "evaluate":
        metrics.evaluate(logits, labels)
    else:
        value(name, logits, labels)
    assert len(looks) == n_blocks


def test_large_finite_logits_are_no_error():
    logits = np.full((3, 4), 3e38, np.float32)  # their sum overflows
    logits[:, 0] = -3e38
    values = metrics.evaluate(logits, np.array([1, 2, 0]))
    assert all(math.isfinite(v) for name, v in values.items() if name != "nll")
    np.testing.assert_allclose(metrics.entropy(logits), math.log(3), rtol=1e-6)
    half = np.array([[6e4, -6e4], [-6e4, 6e4]], np.float16)
    assert metrics.nll(half, np.array([0, 0])) == pytest.approx(6e4)


def test_a_memory_map_is_read_in_place(tmp_path, monkeypatch):
    logits, labels = make(1000, 10, dtype=np.float16)
    np.save(tmp_path / "logits.npy", logits)
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r")
    seen = []
    softmax_blocks = metrics.softmax_blocks

    def spy(scores, **options):
        seen.append(scores.data_ptr())
        return softmax_blocks(scores, **options)

    monkeypatch.setattr(metrics, "softmax_blocks", spy)
    assert metrics.evaluate(mapped, labels) == metrics.evaluate(logits, labels)
    assert seen[0] == mapped.ctypes.data  # the file's own pages


@pytest.mark.skipif(
    sys.platform == "win32", reason="the standard library tells no peak of memory there"
)
def test_memory_stays_bounded():
    """38 MiB of half-precision logits: evaluate takes a few numbers per sample."""
    code = """
import resource, sys
import numpy as np
from gcelib import metrics
rng = np.random.default_rng(0)
logits = np.empty((100_000, 200), np.float16)
for rows in np.array_split(np.arange(100_000), 100):
    logits[rows] = rng.standard_normal((len(rows), 200), np.float32)
labels = rng.integers(0, 200, 100_000)
metrics.evaluate(logits[:300], labels[:300])
unit = 2**20 if sys.platform == "darwin" else 2**10
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
before = peak()
values = metrics.evaluate(logits, labels)
print(peak() - before, {"torchvision", "pandas", "scipy", "sklearn"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    growth, beyond_the_core = done.stdout.split(maxsplit=1)
    assert float(growth) < 30
    assert beyond_the_core.strip() == "set()"  # metrics import torch and numpy alone


@pytest.mark.parametrize("k", [2, 3, 40])
@pytest.mark.parametrize("scale", [1e-2, 1e-4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entropies_of_tiny_logits_keep_their_order(k, scale, dtype):
    # Near the uniform row log K - H is half the variance of the logits.
    rng = np.random.default_rng(k)
    logits = (scale * rng.normal(size=(400, k))).astype(dtype)
    deficit = math.log(k) - metrics.entropy(logits)
    variance = logits.astype(np.float64).var(1)
    np.testing.assert_allclose(deficit, variance / 2, rtol=0.1, atol=1e-14)
    inside, outside = logits[:200], logits[200:]
    above = -variance[200:, None] > -variance[None, :200]
    assert metrics.ood_auroc(inside, outside) == pytest.approx(above.mean(), abs=2e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probs = torch.from_numpy(logits).double().softmax(1).to(torch.float32)
        of_probs = metrics.entropy(probs, probabilities=True)
    np.testing.assert_allclose(of_probs, metrics.entropy(logits), atol=3e-9)


def test_confidences_that_rounding_lifted_above_one_count_as_one():
    confidences = np.array([1.0000001, 0.5], np.float32)
    bins = Reliability.from_confidences(confidences, [1, 0])
    assert bins.ece == 0.25
    with pytest.raises(ValueError, match=r"^confidences: lie in"):
        Reliability.from_confidences(np.array([1.001, 0.5], np.float32), [1, 0])


def test_one_sample_has_numbers_and_no_interval():
    assert metrics.evaluate([[2.0, 0.0]], [0])["error"] == 0
    with pytest.raises(ValueError, match=r"^bootstrap: one sample has no interval"):
        metrics.evaluate([[2.0, 0.0]], [0], bootstrap=100)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_of_votes_in_half_precision_keep_to_their_bins(dtype):
    """Edges of bins are multiples of 1/20, and so are many votes of 20 and 40 trees."""
    rng = np.random.default_rng(0)
    for n_trees, n_bins in (
        (10, 20),
        (20, 20),
        (40, 20),
        (50, 20),
        (100, 20),
        (64, 64),
    ):
        votes = rng.multinomial(n_trees, rng.dirichlet(np.ones(3)), 200)
        labels = rng.integers(0, 3, 200)
        if dtype is torch.bfloat16 and n_trees in (64, 100):
            continue  # two digits are more than it holds
        p = torch.from_numpy(votes / n_trees).to(dtype)
        logits = metrics.logits_from_probabilities(p)
        top, hit = votes.max(1), votes.argmax(1) == labels
        bins = -(-top * n_bins // n_trees)  # exact: the smallest multiple not below
        close = 2e-5 if dtype is torch.float16 else 1e-3  # but 0.03 a wrong bin
        gaps = [
            abs((top[bins == b] / n_trees - hit[bins == b]).sum())
            for b in range(1, n_bins + 1)
        ]
        found = metrics.ece(logits, labels, n_bins=n_bins)
        assert found == pytest.approx(sum(gaps) / 200, abs=close)


@pytest.mark.parametrize("widen", [torch.Tensor.double, torch.Tensor.tolist])
def test_numbers_of_float32_mean_the_same_when_widened(widen):
    """0.85 of float32 is 0.8500000238, a last bit above the edge of a bin."""
    rng = np.random.default_rng(0)
    confidences = np.round(rng.beta(5, 2, 1000) * 20) / 20
    correct = rng.random(1000) < confidences - 0.1 * np.sin(40 * confidences)
    labels = correct.astype(int)
    right = Reliability.from_confidences(confidences, correct).ece
    single = torch.from_numpy(confidences).float()
    widened = np.asarray(widen(single))
    found = Reliability.from_confidences(widened, correct).ece
    assert found == pytest.approx(right, abs=1e-6)
    pair = np.stack([1 - confidences, confidences], 1)
    right = metrics.reliability(pair, labels, class_index=1, probabilities=True)
    pair = np.stack([1 - widened, widened], 1)
    found = metrics.reliability(pair, labels, class_index=1, probabilities=True)
    np.testing.assert_array_equal(found.counts, right.counts)
    meter = CalibrationMeter(2, n_bins=20)
    for at in (slice(0, 400), slice(400, None)):
        meter.update(pair[at], labels[at], probabilities=True)
    evaluated = metrics.evaluate(pair, labels, probabilities=True, n_bins=20)
    assert meter.compute()["classwise_ece"] == pytest.approx(
        evaluated["classwise_ece"], abs=1e-12
    )


@pytest.mark.parametrize("n_votes", [20, 50])
@pytest.mark.parametrize("widen", [torch.Tensor.double, torch.Tensor.tolist])
def test_logits_of_widened_float32_keep_their_bins(widen, n_votes):
    """Votes of trees, stored in float32, as a list or table hands them on."""
    rng = np.random.default_rng(0)
    votes = rng.integers(n_votes // 2 + 1, n_votes + 1, 200)
    right = rng.random(200) < votes / n_votes
    bins = -(-votes * 10 // n_votes)  # (0.3, 0.4] is the fourth of ten
    gaps = [
        abs((votes[bins == b] / n_votes - right[bins == b]).sum()) for b in range(1, 11)
    ]
    expected = pytest.approx(sum(gaps) / 200, abs=1e-6)
    share = torch.from_numpy(votes / n_votes).float()
    pair = torch.stack([1 - share, share], 1)
    for logits in (
        metrics.logits_from_probabilities(widen(pair)),
        metrics.logits_from_confidences(widen(share)),
    ):
        assert metrics.ece(logits, right.astype(int), n_bins=10) == expected


def test_numbers_of_float64_keep_edges_of_their_own():
    above = np.nextafter(np.float32(0.5), np.float32(1)).astype(float)
    at_edge = Reliability.from_confidences([0.5, above], [1, 0], n_bins=2)
    assert at_edge.counts.tolist() == [2, 0]
    beside = Reliability.from_confidences([0.5 + 1e-12, above], [1, 0], n_bins=2)
    assert beside.counts.tolist() == [0, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_logarithm_in_half_precision_is_of_a_number_that_rounds_to_the_same(dtype):
    every = torch.arange(2**15, dtype=torch.int16).view(dtype)
    every = every[(every <= 1) & (every >= torch.finfo(dtype).tiny)].double()
    meant = _check.logarithm(every.to(dtype)[:, None]).double()[:, 0].exp()
    half_a_unit = torch.finfo(dtype).eps / 2 * every
    assert ((meant - every).abs() <= 1.001 * half_a_unit).all()


def test_logits_of_half_precision_are_those_of_the_shortest_decimals():
    written = [0.65, 0.35, 0.1, 0.05, 0.001, 0.0625, 1.0, 0.3333]
    half = torch.tensor(written, dtype=torch.float16)[:, None]
    expected = torch.tensor(written, dtype=torch.float32).log()
    torch.testing.assert_close(_check.logarithm(half)[:, 0], expected)
