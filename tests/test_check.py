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
        (np.array([[0], [1], [2], [0]]), "pass labels.squeeze(1)"),
        (np.array([[0.0], [1.0], [2.0], [0.0]]), "pass labels.squeeze(1)"),
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


@pytest.mark.parametrize("form", [np.asarray, torch.as_tensor, "DataFrame"])
def test_labels_in_one_column_are_told_what_works(form):
    pandas = pytest.importorskip("pandas")
    logits = np.random.default_rng(0).normal(size=(4, 3))
    column = np.array([[0], [1], [2], [0]])
    labels = pandas.DataFrame(column) if form == "DataFrame" else form(column)
    with pytest.raises(ValueError, match=r"pass labels\.squeeze\(1\)"):
        evaluate(logits, labels)
    assert evaluate(logits, labels.squeeze(1)) == evaluate(logits, column[:, 0])


def test_nullable_numbers_of_pandas_are_taken_where_none_is_missing():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(12, 3))
    labels = rng.integers(0, 3, 12)
    table = pandas.DataFrame(logits, columns=["a", "b", "c"]).convert_dtypes()
    expected = evaluate(logits, labels)
    for dtype in ("Int8", "Int64", "UInt16", "uint16", "uint64"):
        assert evaluate(table, pandas.Series(labels, dtype=dtype)) == expected
        with_labels = np.column_stack([logits, labels])
        with pytest.warns(UserWarning, match="column 3 .* holds the labels"):
            evaluate(with_labels, pandas.Series(labels, dtype=dtype))
    mixed = table.assign(c=pandas.Series(labels, dtype="Int64"))
    plain = np.column_stack([logits[:, :2], labels])
    with pytest.warns(UserWarning, match="column 'c' holds the labels"):
        found = evaluate(mixed, labels)
    with pytest.warns(UserWarning, match="column 2"):
        assert found == evaluate(plain, labels)
    halves = pandas.DataFrame(logits).astype("Float32")
    assert evaluate(halves, labels) == evaluate(logits.astype(np.float32), labels)


def test_missing_values_of_pandas_are_named():
    pandas = pytest.importorskip("pandas")
    logits = np.random.default_rng(0).normal(size=(4, 3))
    holes = pandas.Series([0, 1, None, 2], dtype="Int64")
    with pytest.raises(ValueError, match="labels: has missing values, first in row 2"):
        evaluate(logits, holes)
    table = pandas.DataFrame(logits).astype("Float64")
    table.iloc[1, 0] = pandas.NA
    with pytest.raises(ValueError, match="logits: has missing values, first in row 1"):
        evaluate(table, [0, 1, 2, 0])
    words = table.fillna(0.0).assign(name="x")
    with pytest.raises(TypeError, match="logits: has dtype object"):
        evaluate(words, [0, 1, 2, 0])
    beyond = pandas.DataFrame({"a": [2**60 + 1], "b": [0.5]}).convert_dtypes()
    with pytest.raises(TypeError, match="logits: has dtype object"):
        evaluate(beyond, [0])


@pytest.mark.parametrize("column", [False, True])
def test_scores_of_two_classes_are_told_what_to_stack_and_that_works(column):
    s = np.random.default_rng(0).normal(size=20)
    labels = (s + 0.3 > 0).astype(int)
    with pytest.raises(ValueError, match=r"logits: expected shape") as refusal:
        evaluate(s[:, None] if column else s, labels)
    message = str(refusal.value)
    assert "numpy.stack([0 * s, s], 1)" in message
    assert "numpy.stack([1 - p, p], 1) with probabilities=True" in message
    assert ("s = s.squeeze(1)" in message) == column
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
    with pytest.raises(
        TypeError, match=r"^labels: .*\[columns.index\(name\) for name in"
    ):
        ece(scores, names)


def test_what_is_no_class_id_is_not_told_to_be_made_one_by_rounding():
    with pytest.raises(TypeError, match="fractions are no class ids"):
        ece(np.eye(3), np.array([0.7, 0.2, 1.0]))


def test_several_labels_that_are_yes_or_no_are_told_to_be_judged_alone():
    """What scikit-learn's forests give for labels (N, L)."""
    several = [np.full((10, 2), 0.5) for _ in range(4)]
    with pytest.raises(
        ValueError, match=r"judge each alone: logits\[i\], labels\[:, i"
    ):
        ece(several, np.zeros((10, 4), int))


def test_arguments_in_the_order_of_scikit_learn_are_told_ours():
    with pytest.raises(TypeError, match=r"^logits: .*logits come first, labels second"):
        ece([0, 1, 2], np.eye(3), probabilities=True)


def votes(n=60, k=5, trees=100):
    """How many of the trees, or neighbours, are for each class."""
    return np.random.default_rng(4).multinomial(trees, [1 / k] * k, size=n)


@pytest.mark.parametrize("trees", [5, 50, 300])
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


# --- probabilities in other clothes ---------------------------------------------------


def distributions(n=40, k=6, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, k))
    scores[np.arange(n), rng.integers(0, k, n)] += 3
    return torch.from_numpy(scores).softmax(1).numpy()


CLOTHES = {
    "-p": (lambda p: -p, "probabilities with a minus sign"),
    "-p, 2 digits": (lambda p: -p.round(2), "probabilities with a minus sign"),
    "-percent": (lambda p: -100 * p, "percentages with a minus sign"),
    "-log p": (lambda p: -np.log(p), r"-log\(p\) of probabilities"),
    "-log p, 2 digits": (lambda p: -np.log(p).round(2), r"-log\(p\) of probabilities"),
    "-log2 p": (lambda p: -np.log2(p), r"-log2\(p\) of probabilities"),
    "log2 p": (np.log2, r"log2\(p\) of probabilities"),
    "log10 p": (np.log10, r"log10\(p\) of probabilities"),
    "whole per mille": (lambda p: (1000 * p).round(), "shares of a thousand do"),
    "cut per mille": (lambda p: np.floor(1000 * p), "shares of a thousand do"),
    "cut percent": (lambda p: np.floor(100 * p), "percentages do"),
    "2 digits, cut": (lambda p: np.floor(100 * p) / 100, "probabilities do"),
    "bytes": (lambda p: (255 * p).round(), "probabilities in bytes do"),
    "cut bytes": (lambda p: np.floor(256 * p), "probabilities in bytes do"),
    "16 bits": (lambda p: np.floor(65_535 * p), "probabilities in 16 bits do"),
}


@pytest.mark.parametrize("clothes", CLOTHES)
@pytest.mark.parametrize("k", [3, 6, 30])
def test_probabilities_in_other_clothes_are_told(clothes, k):
    dress, told = CLOTHES[clothes]
    with pytest.warns(UserWarning, match=told):
        _check.warn_of_probabilities(torch.from_numpy(dress(distributions(k=k))))


@pytest.mark.parametrize(
    "rows",
    [
        [[0.7, 0.3], [0.25, 0.75], [0.4, 0.6]],
        [[0.2, 0.5, 0.3], [0.125, 0.5, 0.375]],
        [[72.0, 28.0], [65.0, 35.0]],
        [[0.7, 0.3]],
    ],
)
def test_few_numbers_that_sum_up_are_told(rows):
    with pytest.warns(UserWarning, match="as (probabilities|percentages) do"):
        _check.warn_of_probabilities(torch.tensor(rows, dtype=torch.float64))


def above_the_least(scores):
    return scores - scores.min(1, keepdims=True)


HONEST = {
    "whole, 0 to 2": lambda rng, n, k: rng.integers(0, 3, (n, k)),
    "whole, 0 to 9": lambda rng, n, k: rng.integers(0, 10, (n, k)),
    "whole, 0 to 99": lambda rng, n, k: rng.integers(0, 100, (n, k)),
    "counts of about 100": lambda rng, n, k: rng.poisson(100 / k, (n, k)),
    "counts of about 1,000": lambda rng, n, k: rng.poisson(1000 / k, (n, k)),
    "rectified": lambda rng, n, k: rng.normal(size=(n, k)).clip(0) * 3,
    "distances": lambda rng, n, k: -rng.chisquare(5, (n, k)),
    "small distances": lambda rng, n, k: -0.3 * rng.random((n, k)),
    "above the least": lambda rng, n, k: above_the_least(rng.normal(size=(n, k))),
    "below the largest": lambda rng, n, k: -above_the_least(rng.normal(size=(n, k))),
    "far from zero": lambda rng, n, k: 3e9 + rng.normal(size=(n, k)),
    "log p": lambda rng, n, k: np.log(distributions(n, k)),
    "log p, 1 digit": lambda rng, n, k: np.log(distributions(n, k)).round(1),
    "sure of class 1": lambda rng, n, k: np.stack([np.zeros(n), 9 + rng.random(n)], 1),
}


@pytest.mark.parametrize("kind", HONEST)
def test_numbers_of_one_sign_that_are_logits_give_no_alarm(kind):
    rng = np.random.default_rng(7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in (1, 2, 3, 5, 20, 64):
            for k in (2, 3, 10, 100):
                logits = HONEST[kind](rng, n, k).astype(np.float64)
                _check.warn_of_probabilities(torch.from_numpy(logits))


# --- tensors and arrays of every other kind -------------------------------------------


def odd_tensors(values):
    """``values``, (N, ...) numbers, in forms that hold no plain numbers."""
    tensor = torch.from_numpy(values)
    return {
        "meta": tensor.to("meta"),
        "complex": tensor + 0j,
        "sparse": tensor.to_sparse(),
        "quantized": torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        "nested": torch.nested.nested_tensor([tensor[0], tensor[1]]),
        "object": values.astype(object),
        "text": values.astype(str),
        "masked": np.ma.array(values, mask=values > 1),
        "dates": values.astype("M8[s]"),
        "nothing": None,
    }


FORMS = "meta complex sparse quantized nested object text masked dates nothing"


@pytest.mark.parametrize("form", FORMS.split())
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested", "ignore:.*quantize")
def test_every_entry_refuses_what_holds_no_plain_numbers(form):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(30, 3))
    labels = np.arange(30) % 3
    odd_logits = odd_tensors(logits)[form]
    odd_labels = odd_tensors(labels)[form]
    entries = {
        "ece": metrics.ece,
        "evaluate": metrics.evaluate,
        "meter": gcelib.CalibrationMeter(3).update,
        "fit": gcelib.make_calibrator("ts_nll").fit,
        "advise": gcelib.advise,
        "loss": gcelib.GCELoss(),
    }
    for name, call in entries.items():
        with pytest.raises((ValueError, TypeError), match=r"^\w*l(ogits|abels): .+; "):
            call(odd_logits, torch.from_numpy(labels) if name == "loss" else labels)
        with pytest.raises((ValueError, TypeError), match=r"^\w*labels: .+; "):
            call(torch.from_numpy(logits) if name == "loss" else logits, odd_labels)
    with pytest.raises((ValueError, TypeError), match=r"^logits: .+; "):
        metrics.entropy(odd_logits)


def test_labels_of_every_width_mean_the_same():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(30, 3))
    labels = np.arange(30) % 3
    expected = metrics.nll(logits, labels)
    for kind in ("u1", "u2", "u4", "u8", "i1", ">i4"):
        assert metrics.nll(logits, labels.astype(kind)) == expected
        if kind[0] != ">":
            classes = torch.from_numpy(labels.astype(kind))
            loss = gcelib.make_loss("ce")(torch.from_numpy(logits), classes)
            assert float(loss) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"^labels: contains"):
        metrics.nll(logits, np.full(30, 2**63 + 1, np.uint64))


# --- tables of pandas -----------------------------------------------------------------


def table_and_labels():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    scores = pandas.DataFrame(rng.normal(size=(60, 3)), columns=list("abc"))
    return scores, pandas.Series(rng.integers(0, 3, 60), name="label")


TAKERS = {
    "evaluate": gcelib.evaluate,
    "meter": lambda z, y: gcelib.CalibrationMeter(3).update(z, y),
    "fit": lambda z, y: gcelib.TemperatureScaling().fit(z, y),
    "advise": lambda z, y: gcelib.advise(z, y, folds=2),
    "confidences": lambda z, y: gcelib.Reliability.from_confidences(
        1 / (1 + np.exp(-z["a"])), y == 1
    ),
}


@pytest.mark.filterwarnings("ignore:labels. .* chance", "ignore:val_labels. .*chance")
@pytest.mark.parametrize("name", TAKERS)
def test_an_index_in_another_order_is_told(name):
    take = TAKERS[name]
    logits, labels = table_and_labels()
    shuffled = labels.sample(frac=1, random_state=1)
    with pytest.warns(UserWarning, match="index is another one than that of"):
        take(logits, shuffled)
    with pytest.warns(UserWarning, match="index is another one than that of"):
        take(logits.loc[shuffled.index], labels)
    drawn = labels.copy()
    drawn.index = range(100, 160)  # of a larger table, beside a new one
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for pair in ((logits, labels), (logits, drawn), (logits, labels.to_numpy())):
            take(*pair)
    assert not [w for w in caught if "index" in str(w.message)]


def test_an_index_is_told_of_what_was_made_of_its_table():
    p, labels = table_and_labels()
    p = np.exp(p).div(np.exp(p).sum(axis=1), axis=0)
    shuffled = labels.sample(frac=1, random_state=1)
    logits = gcelib.logits_from_probabilities(p)
    scale = gcelib.TemperatureScaling()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*index")
        calibrated = [scale.fit(logits, labels)(scores) for scores in (p, logits)]
        for scores in (logits, *calibrated):
            gcelib.nll(scores, labels)
            gcelib.nll(scores[torch.randperm(60)], shuffled)  # nothing is known of it
        gcelib.nll(logits, shuffled.to_numpy())
    for scores in (logits, *calibrated):
        with pytest.warns(
            UserWarning, match=r"index is .* than that of the table that"
        ):
            gcelib.nll(scores, shuffled)
    with pytest.warns(UserWarning, match=r"index is .* than that of the table that"):
        scale.fit(logits, shuffled)


class Labelled:
    """What xarray's arrays have: numbers, dimensions, and an index of each."""

    def __init__(self, values, index, classes=None):
        self.values = values
        self.dims = ("sample", "class")[: values.ndim]
        self.indexes = {"sample": index}
        if classes is not None:
            self.indexes["class"] = classes

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_an_index_of_a_dimension_is_told_too():
    scores, labels = table_and_labels()
    logits = Labelled(scores.to_numpy(), scores.index[::-1])
    with pytest.warns(UserWarning, match="index is another one than that of"):
        gcelib.evaluate(logits, Labelled(labels.to_numpy(), labels.index))


def test_columns_of_a_dimension_that_are_sorted_as_text_are_told():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, 40)
    scores = rng.normal(size=(40, 12)) + 4 * np.eye(12)[labels]
    counted = Labelled(scores, range(40), range(12))
    assert gcelib.error(counted, labels) == gcelib.error(scores, labels)
    order = sorted(range(12), key=str)
    with pytest.warns(UserWarning, match="columns"):
        gcelib.error(Labelled(scores[:, order], range(40), order), labels)


@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.parametrize("extra", ["seconds", "logit_max", "confidence"])
def test_a_column_beside_those_that_count_is_told(place, extra):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 40)
    scores = rng.normal(size=(40, 4)) + 4 * np.eye(4)[labels]
    table = pandas.DataFrame(scores, columns=[f"logit_{k}" for k in range(4)])
    table.insert(place, extra, rng.normal(size=40))
    with pytest.warns(UserWarning, match=f"column '{extra}' has no name like the othe"):
        gcelib.evaluate(table, labels)


@pytest.mark.parametrize(
    "extra",
    ["confidence", "Prediction", "loss", "max", "margin", "pred_label", "conf", "fold"],
)
def test_a_column_beside_those_of_named_classes_is_told(extra):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    scores = rng.normal(size=(40, 3)) + 4 * np.eye(3)[labels]
    table = pandas.DataFrame(scores, columns=["cat", "dog", "eel"])
    table[extra] = rng.normal(size=40)
    with pytest.warns(UserWarning, match=f"column '{extra}' has no name like the othe"):
        gcelib.evaluate(table, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gcelib.evaluate(table, np.where(labels == 0, 3, labels))  # it is a class
        two = table[["cat", "dog"]].set_axis(["false", "true"], axis=1)
        gcelib.evaluate(two, np.minimum(labels, 1))
        gcelib.evaluate(two, np.zeros(40, int))


def test_a_column_that_repeats_the_largest_logit_is_told_by_any_name():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    scores = rng.normal(size=(40, 3)) + 4 * np.eye(3)[labels]
    table = pandas.DataFrame(scores, columns=["cat", "dog", "eel"])
    table["winner"] = scores.max(1)
    with pytest.warns(UserWarning, match="column 'winner' holds in nearly each row"):
        gcelib.evaluate(table, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gcelib.evaluate(table.assign(winner=rng.normal(size=40)), labels)


def test_names_of_classes_in_the_order_of_an_index_are_not_taken_by_position():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"label": [1, 0, 1, 2], "name": ["dog", "cat", "dog", "e"]}
    )
    names = frame.drop_duplicates("label").set_index("label")["name"]
    logits, labels = table_and_labels()
    run = {"a": (logits.to_numpy(), labels.to_numpy())}
    for draw in (
        lambda names: gcelib.plots.confusion_matrix(*run["a"], names),
        lambda names: gcelib.ReliabilityExplorer(run, class_names=names),
    ):
        with pytest.raises(
            ValueError, match=r"class_names: has the index 1, 0, 2; put"
        ):
            draw(names)
        draw(names.sort_index())
        draw(pandas.Series(["cat", "dog", "eel"], index=["a", "c", "b"]))


@pytest.mark.parametrize("prefix", ["", "p_", "grade "])
def test_columns_and_labels_that_count_from_1_are_told(prefix):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    names = [f"{prefix}{i}" for i in range(1, 6)]
    table = pandas.DataFrame(rng.normal(size=(60, 5)), columns=names)
    labels = 1 + np.arange(60) % 4
    with pytest.warns(UserWarning, match="columns count from 1, and so may the labels"):
        gcelib.evaluate(table, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gcelib.evaluate(table, labels - 1)
        gcelib.evaluate(table.to_numpy(), labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("k", "n_members"), [(2, 5), (10, 10), (100, 30)])
def test_probabilities_that_were_added_up_are_told_in_any_precision(
    dtype, k, n_members
):
    """As an ensemble's, or of augmented samples, on a GPU."""
    generator = torch.Generator().manual_seed(0)
    members = torch.randn(n_members, 80, k, generator=generator).mul(2).softmax(2)
    total = torch.zeros(80, k, dtype=dtype)
    for member in members:
        total += member.to(dtype)
    widened = [total.float(), total.double().numpy()]
    if dtype is torch.bfloat16:
        widened = []  # nothing says any more that so much is rounding
    for given in (total, *widened):
        with pytest.warns(UserWarning, match="rows are >= 0 and all sum to"):
            gcelib.evaluate(given, torch.arange(80) % k)
    logits = torch.randn(80, k, generator=generator).abs().mul(n_members).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for offset in (0, 30):
            gcelib.evaluate(logits + offset, torch.arange(80) % k)


def test_columns_that_are_sorted_as_text_are_told():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, 40)
    scores = rng.normal(size=(40, 12)) + 4 * np.eye(12)[labels]
    scale = gcelib.TemperatureScaling().fit(scores, labels)
    for prefix, first in (("", 0), ("logit_", 0), ("class ", 1), ("p.", 0)):
        names = [f"{prefix}{i + first}" for i in range(12)]
        table = pandas.DataFrame(scores, columns=names)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gcelib.evaluate(table, labels)
            gcelib.evaluate(table.rename(columns={names[-1]: "last"}), labels)
            gcelib.evaluate(table.rename(columns=lambda n: f"{n}7"), labels)
        told = pytest.warns(UserWarning, match="columns count the classes, and not in")
        with told:
            gcelib.evaluate(table[sorted(names)], labels)
        with told:
            scale(table[sorted(names)])
        p = np.exp(table) / np.exp(table).sum(axis=1).to_numpy()[:, None]
        with pytest.warns(UserWarning, match="p: columns count the classes, and not"):
            gcelib.logits_from_probabilities(p[sorted(names)])


@pytest.mark.parametrize("first", ["Unnamed: 0", "sample"])
@pytest.mark.parametrize("order", ["as they were", "some left out", "shuffled"])
def test_columns_that_number_the_rows_are_told_whatever_became_of_the_rows(
    first, order
):
    logits, labels = table_and_labels()
    table = logits.rename_axis(first).reset_index()
    kept = {
        "as they were": table.index,
        "some left out": table.index.delete([5, 17]),
        "shuffled": np.random.default_rng(1).permutation(60)[:40],
    }[order]
    with pytest.warns(UserWarning, match=f"column '{first}' numbers the rows; leave"):
        gcelib.evaluate(table.iloc[kept], labels.iloc[kept])
    ids = table.assign(**{first: 7919 * table[first] % 9973})
    with pytest.warns(UserWarning, match=f"column '{first}' numbers the rows; leave"):
        gcelib.evaluate(ids.iloc[kept], labels.iloc[kept])


@pytest.mark.parametrize("where", [0, 1, 3])
@pytest.mark.parametrize("form", [np.asarray, torch.tensor, np.ndarray.tolist])
@pytest.mark.parametrize("taker", ["evaluate", "fit", "advise", "meter"])
def test_labels_among_the_scores_of_an_array_are_told_once(taker, form, where):
    table, labels = table_and_labels()
    y = labels.to_numpy()
    column = y.astype(float)
    column[7] = 2 - column[7]  # one line that is an exception
    scores = form(np.insert(table.to_numpy(), where, column, axis=1))
    take = {**TAKERS, "meter": lambda z, y: gcelib.CalibrationMeter(4).update(z, y)}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        take[taker](scores, y)
    said = [str(each.message) for each in told if "holds the" in str(each.message)]
    assert len(said) == 1
    assert f"logits: column {where} (counted from 0) holds the labels" in said[0]


def test_scores_that_are_often_the_label_are_no_labels():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    noise = rng.normal(size=60)
    sure = np.where(np.arange(60) % 20 == 0, 0.5 + 0.1 * noise, y)
    mostly_zero = np.where(np.arange(60) < 3, 2, 0)
    cases = [
        (np.stack([1 - sure, sure], axis=1), y, True),  # two sure classes
        (np.stack([noise, 0 * noise, -noise], axis=1), mostly_zero, False),
        (np.stack([noise, y * noise, -noise], axis=1), y, False),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scores, labels, are_probabilities in cases:
            gcelib.evaluate(scores, labels, probabilities=are_probabilities)


def test_columns_that_are_no_class_s_are_told():
    logits, labels = table_and_labels()
    with pytest.warns(UserWarning, match="logits: column 'y' holds the labels; leave"):
        gcelib.evaluate(logits.assign(y=labels), labels)
    with pytest.warns(UserWarning, match="logits: column 'index' numbers the rows; le"):
        gcelib.evaluate(logits.reset_index(), labels)
    for twice in (logits.add_suffix("_1").join(logits), logits.iloc[:, [0, 1, 2] * 2]):
        with pytest.warns(UserWarning, match="logits: columns 'a.* seem a second set"):
            gcelib.evaluate(twice, labels)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other = twice + np.random.default_rng(0).normal(size=twice.shape)
            gcelib.evaluate(other, labels.where(labels > 0, 5))  # six classes
    certain = logits * 0
    certain["b"] = 1.0 * (labels == 1)
    two = certain[["a", "b"]].assign(a=1.0 * (labels != 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gcelib.evaluate(two, (labels == 1).astype(int), probabilities=True)


@pytest.mark.parametrize("entry", [metrics.error, gcelib.advise])
def test_labels_in_a_type_that_cannot_hold_all_ids_are_told(entry):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 300))
    labels = rng.integers(0, 256, 60).astype(np.uint8)
    with pytest.warns(UserWarning, match="labels: torch.uint8 cannot hold the ids of"):
        entry(logits, labels)
