"""What is refused is told what to do; warnings stand at the user's own line."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import gcelib
from gcelib import _check, ece, evaluate, metrics

ROOT = Path(__file__).resolve().parents[1]

WARNS = """
import warnings, torch
from gcelib import TemperatureScaling, ece, evaluate, plots
warnings.simplefilter("always")
probs, labels = torch.rand(50, 3).softmax(1), torch.arange(50) % 3
ece(probs, labels)  # here
evaluate(
    probs, labels  # or here
)
TemperatureScaling().fit(probs, labels)  # here
class Model(torch.nn.Module):
    def forward(self, x):
        evaluate(x, labels)  # here
        return x
torch.nn.Sequential(torch.nn.Identity(), Model())(probs)
[ece(probs, y) for y in [labels]]  # here
""".strip()
CELL = f"""
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_cell({WARNS!r})
"""


@pytest.mark.parametrize("way", ["script", "cell"])
def test_a_warning_of_probabilities_stands_at_the_callers_line(way, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(WARNS if way == "script" else CELL, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    told = [line for line in done.stderr.splitlines() if "as probabilities do" in line]
    places = [line.split(": UserWarning: logits")[0] for line in told]
    lines = [int(place.rpartition(":")[2]) for place in places]
    source = WARNS.splitlines()
    expected = [i for i, text in enumerate(source, 1) if text.endswith("# here")]
    expected.insert(1, expected[0] + 1)  # the call that spans three lines
    assert lines == expected
    files = {place.rpartition(":")[0] for place in places}
    [file] = files
    assert file == str(script) if way == "script" else "ipython-input" in file


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.eye(3, dtype=int)[[0, 1, 2, 0]], "one-hot: pass labels.argmax(1)"),
        (np.eye(3)[[0, 1, 2, 0]], "one-hot: pass labels.argmax(1)"),
        (np.eye(3)[[0, 1, 2, 0]] > 0, "one-hot: pass labels.argmax(1)"),
        (np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1]]), "1 rows without a"),
        (np.array([[0], [1], [2], [0]]), "pass labels[:, 0]"),
        (np.array([[0.0], [1.0], [2.0], [0.0]]), "pass labels[:, 0]"),
        (np.full((4, 3), 1 / 3), "soft labels"),
        (np.array([0.0, 1.0, 2.0, 0.0]), "astype(int), in a file whole numbers"),
    ],
)
def test_labels_of_another_form_are_told_what_to_pass(labels, told):
    logits = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises((ValueError, TypeError)) as refusal:
        evaluate(logits, labels)
    assert str(refusal.value).startswith("labels: ")
    assert told in str(refusal.value)


@pytest.mark.parametrize("column", [False, True])
def test_scores_of_two_classes_are_told_what_to_stack_and_that_works(column):
    s = np.random.default_rng(0).normal(size=20)
    labels = (s + 0.3 > 0).astype(int)
    with pytest.raises(ValueError, match=r"logits: expected shape") as refusal:
        evaluate(s[:, None] if column else s, labels)
    message = str(refusal.value)
    assert "numpy.stack([0 * s, s], 1)" in message
    assert "numpy.stack([1 - p, p], 1) with probabilities=True" in message
    assert ("s = s[:, 0]" in message) == column
    p = 1 / (1 + np.exp(-s))
    first = evaluate(np.stack([0 * s, s], 1), labels)
    second = evaluate(np.stack([1 - p, p], 1), labels, probabilities=True)
    assert first == pytest.approx(second)


def test_the_logarithm_of_a_probability_of_zero_is_told_the_switch():
    with np.errstate(divide="ignore"):
        logits = np.log(np.array([[1.0, 0.0], [0.5, 0.5]]))
    with pytest.raises(ValueError, match=r"row 0; .*probabilities=True"):
        evaluate(logits, [0, 1])
    logits[0] = np.nan
    with pytest.raises(ValueError, match="row 0; look at the model"):
        evaluate(logits, [0, 1])


@pytest.mark.parametrize(
    "value", [[[1.0], [1.0, 2.0]], "text", {"a": 1}, 3.0, None, [["a", "b"]], {1.0}]
)
def test_what_is_no_array_is_refused_by_name(value):
    with pytest.raises((TypeError, ValueError), match=r"^logits: .+; .+"):
        _check.check_logits(_check.as_tensor("logits", value))


def test_percentages_are_told_once():
    with pytest.warns(UserWarning, match="percentages") as caught:
        _check.warn_of_probabilities(torch.full((9, 4), 25.0))
    assert len(caught) == 1


def test_labels_that_are_names_are_told_how_to_become_ids():
    scores, names = np.eye(3), np.array(["cat", "dog", "fox"])
    with pytest.raises(TypeError, match=r"^labels: .*searchsorted\(classes, names\)"):
        ece(scores, names)


def test_arguments_in_the_order_of_scikit_learn_are_told_ours():
    with pytest.raises(TypeError, match=r"^logits: .*logits come first, labels second"):
        ece([0, 1, 2], np.eye(3), probabilities=True)


def votes(n=60, k=5, trees=100):
    """How many of the trees, or neighbours, are for each class."""
    return np.random.default_rng(4).multinomial(trees, [1 / k] * k, size=n)


@pytest.mark.parametrize("trees", [5, 50, 255, 1000])
def test_votes_and_other_shares_of_one_total_are_told(trees):
    scores = votes(trees=trees).astype(float)
    labels = np.zeros(len(scores), int)
    told = f"sum to {trees}, as votes or shares do; divide each row by its sum"
    with pytest.warns(UserWarning, match=told):
        metrics.ece(scores, labels)


def test_logits_written_by_hand_are_no_votes():
    one_hot = 10 * np.eye(3)[[0, 1, 2, 0, 1, 2]]
    alike = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for logits in (one_hot, alike, np.full((6, 3), 5.0)):
            metrics.ece(logits, [0, 1, 2, 0, 1, 2])


def test_a_single_row_of_half_precision_probabilities_is_told():
    row = torch.randn(1, 10, generator=torch.Generator().manual_seed(1)).softmax(1)
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.warns(UserWarning, match="as probabilities do"):
            metrics.nll(row.to(dtype), [0])


def test_tensors_without_values_are_refused_and_lazy_signs_are_read():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    meta = torch.empty(2, 2, device="meta")
    meter = gcelib.CalibrationMeter(2)
    fit = gcelib.make_calibrator("ts_nll").fit
    for call in (metrics.evaluate, metrics.ece, meter.update, fit):
        with pytest.raises(ValueError, match=r"^logits: are on the meta device"):
            call(meta, [0, 0])
    with pytest.raises(ValueError, match=r"^logits: are on the meta device"):
        metrics.entropy(meta)
    with pytest.raises(ValueError, match=r"^confidences: are on the meta device"):
        gcelib.Reliability.from_confidences(meta[0], [0, 1])
    lazy = torch._neg_view(-logits)
    assert lazy.is_neg()
    # The mean of log(1 + e^-2) and log(1 + e^1), by hand.
    assert metrics.nll(lazy, [0, 0]) == pytest.approx(0.7200948492)
