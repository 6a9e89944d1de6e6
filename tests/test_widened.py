"""Numbers of float32 in float64: widened by lists, or written to tables and read."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from gcelib import CalibrationMeter, Reliability, metrics
from gcelib.blocks import rounding, rounding_of
from gcelib.study.logits_file import load_logits_file
from gcelib.widened import are_of_float32

#: As Python, R and Excel, and others write numbers.
WRITINGS = ["%.18f", "%.17g", "%.16g", "%.15g", "%.12f", "%.10f", "%.9g", "%.8f"]


def written(numbers, writing):
    flat = [float(writing % number) for number in np.ravel(numbers).tolist()]
    return np.reshape(flat, np.shape(numbers))


def said_in_steps(n=600, steps=20, lowest=10):
    """Confidences in steps, counted, and which predictions were right."""
    rng = np.random.default_rng(0)
    counts = rng.integers(lowest, steps, n)
    right = rng.random(n) < counts / steps - 0.1 * np.sin(counts * 2)
    return counts, right


def exact_ece(counts, right, steps=20, n_bins=20):
    """By fractions: (0.8, 0.85] is a bin, and 17 / 20 is in it."""
    sums = {}
    for count, hit in zip(counts.tolist(), right.tolist(), strict=True):
        place = -(-count * n_bins // steps)
        sums[place] = sums.get(place, 0) + Fraction(count, steps) - hit
    return float(sum(abs(gap) for gap in sums.values()) / len(counts))


@pytest.mark.parametrize("writing", WRITINGS)
def test_float32_is_known_in_the_digits_that_were_written(tmp_path, writing):
    counts, right = said_in_steps()
    labels = right.astype(int)
    expected = pytest.approx(exact_ece(counts, right), abs=1e-6)
    said = written((counts / 20).astype(np.float32), writing)
    assert Reliability.from_confidences(said, right, 20).ece == expected
    pair = np.stack([1 - said, said], 1)
    of_pair = metrics.evaluate(pair, labels, probabilities=True, n_bins=20)
    assert of_pair["ece"] == expected
    meter = CalibrationMeter(2, n_bins=20)
    meter.update(pair, labels, probabilities=True)
    assert meter.compute()["ece"] == expected
    logits = metrics.logits_from_confidences(said)
    assert metrics.ece(logits, labels, n_bins=20) == expected
    path = tmp_path / "said.csv"
    lines = [f"{hit},{writing % c}" for hit, c in zip(labels, said, strict=True)]
    path.write_text("\n".join(["correct,confidence", *lines, ""]))
    read = load_logits_file(path).parts["test"]
    assert Reliability.from_confidences(*read, 20).ece == expected


@pytest.mark.parametrize("writing", WRITINGS)
def test_votes_of_float32_are_known_in_columns_of_classes(writing):
    rng = np.random.default_rng(0)
    votes = rng.multinomial(20, [0.5, 0.3, 0.2], 400)
    labels = rng.integers(0, 3, 400)
    scores = written((votes / 20).astype(np.float32), writing)
    expected = exact_ece(votes.max(1), votes.argmax(1) == labels)
    found = metrics.ece(scores, labels, n_bins=20, probabilities=True)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("writing", WRITINGS)
def test_a_few_other_numbers_do_not_hide_float32(writing):
    counts, right = said_in_steps()
    said = written((counts / 20).astype(np.float32), writing)
    said[7] = np.nextafter(said[7], 0)
    said[[11, 13]] = 0.123456789012345, 0.5
    said[[20, 30, 40]] = 1e-12, 1 - 1e-12, 0.9999  # limits
    counts[[11, 13, 20, 30, 40]] = 3, 10, 1, 20, 20
    found = Reliability.from_confidences(said, right, 20)
    places = np.bincount(counts - 1, minlength=20)
    np.testing.assert_array_equal(found.counts, places)


@pytest.mark.parametrize("writing", [*WRITINGS, "%.7g", "%.6f", "%r"])
def test_numbers_of_float64_are_not_taken_for_float32(writing):
    """None of 40 sets of each kind, honest to their last digit."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, k = rng.choice([20, 50, 200]), rng.choice([2, 3, 10])
        logits = rng.normal(size=(n, k)) * rng.choice([1, 3, 8])
        probs = np.exp(logits)
        probs /= probs.sum(1, keepdims=True)
        n_trees = rng.choice([10, 20, 30, 60, 100, 300, 1000])
        votes = rng.multinomial(n_trees, np.full(k, 1 / k), n) / n_trees
        for numbers in (probs, probs.max(1), votes, votes.max(1)):
            given = torch.from_numpy(written(numbers, writing))
            tolerance = rounding_of(given, probabilities=True)
            assert tolerance == rounding(torch.float64, probabilities=True)
        of_logits = rounding_of(torch.from_numpy(written(logits, writing)))
        assert of_logits == rounding(torch.float64)


def test_a_mixture_of_both_types_is_of_float64():
    rng = np.random.default_rng(0)
    half = rng.random(300).astype(np.float32).astype(float)
    mixed = torch.from_numpy(np.concatenate([half, rng.random(300)]))
    assert not are_of_float32(mixed, probabilities=True)


@pytest.mark.parametrize("n_rows", [1, 3, 5000])
def test_numbers_that_every_type_has_are_looked_at_one_by_one(n_rows):
    """As 0, 0.25 and 1: of logits those of float32, unless a single one is not."""
    numbers = torch.ones(n_rows, 30).double()
    numbers[:, 1:9] = 0.25
    assert are_of_float32(numbers, probabilities=False)
    numbers[-1, 2] = 0.3
    assert not are_of_float32(numbers, probabilities=False)


def test_logits_that_float32_cannot_hold_are_no_hindrance():
    numbers = torch.randn(50, 4, generator=torch.manual_seed(0)).double()
    numbers[3] = torch.tensor([1e300, -1e300, 3.5e38, -torch.inf])
    assert are_of_float32(numbers, probabilities=False)
