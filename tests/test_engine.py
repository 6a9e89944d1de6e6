"""The browser's engine and Python are asked the same questions and say the same.

The engine runs in V8 without a browser (mini-racer), as one script, as pages have it.
"""

import json
import math
import random

import numpy as np
import pytest
import torch

from gcelib import metrics
from gcelib.calibration import ALL_CALIBRATORS, CALIBRATORS, make_calibrator
from gcelib.view import bundle
from gcelib.view.explorers import (
    ENGINE_METRICS,
    PropernessExplorer,
    ReliabilityExplorer,
)

py_mini_racer = pytest.importorskip("py_mini_racer", reason="mini-racer is missing")

ASK = """
let engine;
function load(text) {
  const data = JSON.parse(text);
  data.labels = Int32Array.from(data.labels);
  for (const run of data.runs) run.logits = Float32Array.from(run.logits);
  engine = new Engine(data);
  return "loaded";
}
function ask(text) { return JSON.stringify(engine.answer(JSON.parse(text))); }
function matrix(text) {
  const [fitted, z] = JSON.parse(text);
  const out = new Float64Array(z.length);
  for (let i = 0; i < z.length; i += 3) FORMULAS.matrix(fitted, z, out, i, 3);
  return JSON.stringify(Array.from(out));
}
function simplex(text) { return JSON.stringify(surface(48, JSON.parse(text))); }
"""


@pytest.fixture(scope="module")
def browser():
    context = py_mini_racer.MiniRacer()
    context.eval(bundle.script("engine") + bundle.script("risks") + ASK)
    return context


def logits_of(kind, n, k, labels, generator):
    """Logits such as people bring them, and such as break what counts them."""
    z = torch.randn(n, k, generator=generator) + 1.5 * torch.eye(k)[labels]
    return {
        "plain": 2 * z,
        "sure": 60 * z,
        "flat": 0.01 * z,
        "rounded": (2 * z).round(),  # ties everywhere, also for the largest
        "shifted": 5 * z + 300,
        "same": z[:1].repeat(n, 1),
        "doubled": z[: n // 2].repeat(2, 1),
    }[kind]


def explorer_of(kind, n, k, seed):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, k, (n,), generator=g)
    val_labels = torch.randint(0, k, (400,), generator=g)
    names = ("ce", "gce", "mine")
    runs = {name: (logits_of(kind, n, k, labels, g), labels) for name in names}
    val = {
        name: (logits_of("plain", 400, k, val_labels, g), val_labels) for name in names
    }
    return ReliabilityExplorer(runs, val=val)


def as_data(explorer):
    """What the page gets, with numbers instead of bytes."""
    content = explorer._content(0)
    runs = []
    for name, logits in explorer._test.items():
        fits = {}
        for calibrator in explorer._calibrators[1:]:
            fitted = explorer._fit(name, calibrator)
            form = CALIBRATORS[calibrator].browser
            fits[calibrator] = {"formula": form.formula}
            for buffer in form.buffers:
                fits[calibrator][buffer] = getattr(fitted, buffer).tolist()
        values = logits.flatten().tolist()
        runs.append({"name": name, "logits": values, "calibrators": fits})
    labels = explorer._labels.tolist()
    tolerance = content["data"]["tolerance"]
    sizes = {"nSamples": len(labels), "nClasses": len(explorer._names)}
    return {**sizes, "labels": labels, "tolerance": tolerance, "runs": runs}


def close(ours, theirs, path=""):
    """Equal to 1e-6, relative, numbers and lists and all."""
    if isinstance(ours, dict):
        assert set(ours) == set(theirs), path
        for key in ours:
            close(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), path
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            close(one, other, f"{path}[{i}]")
    elif isinstance(ours, float):
        assert theirs == pytest.approx(ours, rel=1e-6, abs=1e-10), path
    else:
        assert ours == theirs, path


def only_rounding_tells_apart(explorer, name, class_index):
    """Whether some values are equal but for rounding: then their order is a lot."""
    values = np.sort(explorer._binned(name, class_index)[1])
    apart = np.diff(values)
    return bool(((apart > 0) & (apart < 1e-12)).any() or (apart == 0).any())


def without_lots(explorer, ours, theirs):
    """Leave out what hangs on the order of values that only rounding tells apart."""
    for row, other in zip(ours["rows"], theirs["rows"], strict=True):
        for name in set(row["numbers"]) - {*ENGINE_METRICS, "shown_ece"}:
            del row["numbers"][name]  # Python's alone
        if only_rounding_tells_apart(explorer, row["name"], None):
            del row["numbers"]["adaptive_ece"], other["numbers"]["adaptive_ece"]
        in_view = only_rounding_tells_apart(explorer, row["name"], explorer.class_index)
        if in_view and explorer.binning != "width":
            assert sum(row["counts"]) == sum(other["counts"])
            for one in (row, other):
                del one["numbers"]["shown_ece"]
                for key in [key for key in one if key not in ("name", "numbers")]:
                    del one[key]
    if ours["samples"]:
        chosen = explorer.selected
        name = chosen.get("run") or chosen["wrong"]
        k = explorer.class_index if "run" in chosen else None
        if only_rounding_tells_apart(explorer, name, k):
            for one in (ours["samples"], theirs["samples"]):
                for key in ("index", "label", "prediction"):
                    del one[key]


CASES = [
    ("plain", 500, 4, 1),
    ("plain", 701, 10, 2),
    ("sure", 400, 3, 3),
    ("flat", 300, 5, 4),
    ("rounded", 600, 4, 5),
    ("shifted", 350, 6, 6),
    ("same", 50, 3, 7),
    ("plain", 3, 2, 8),  # fewer samples than bins
    ("doubled", 600, 3, 9),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_two_hundred_questions_have_the_same_answers(browser, case):
    kind, n, k, seed = case
    explorer = explorer_of(kind, n, k, seed)
    browser.call("load", json.dumps(as_data(explorer)))
    pick = random.Random(seed)
    for _ in range(23):
        low = pick.choice([0, 0.25, 0.5, 0.9])
        bar = {"kind": "bar", "run": "gce", "low": low, "high": 1.0}
        disagree = {"kind": "disagree", "right": "ce", "wrong": "mine"}
        asked = {
            "losses": ["ce", "gce", "mine"],
            "calibrator": pick.choice(explorer._calibrators),
            "temperature": pick.choice([1.0, 0.1, 0.7, 3.0, 10.0]),
            "n_bins": pick.choice([1, 2, 5, 10, 15, 20, 49, 50]),
            "binning": pick.choice(["width", "mass", "equal"]),
            "class_index": pick.choice([None, 0, k - 1]),
            "selected": pick.choice([None, bar, disagree]),
            "errors_only": pick.choice([False, True]),
            "pair": pick.choice([None, ["ce", "gce"]]),
            "detail": pick.choice([None, n - 1]),
            "first": pick.choice([0, 10]),
        }
        for name, value in asked.items():
            setattr(explorer, name, value)
        ours = json.loads(json.dumps(explorer.answer, allow_nan=False))
        theirs = json.loads(browser.call("ask", json.dumps(explorer.question)))
        without_lots(explorer, ours, theirs)
        close(ours, theirs, str(asked))


@pytest.mark.parametrize("binning", ["width", "mass", "equal"])
def test_a_clicked_bar_lists_as_many_samples_as_it_counts(browser, binning):
    explorer = explorer_of("sure", 400, 3, 3)
    browser.call("load", json.dumps(as_data(explorer)))
    explorer.binning = binning
    explorer.n_bins = 5

    def ask():
        return json.loads(browser.call("ask", json.dumps(explorer.question)))

    row = next(row for row in ask()["rows"] if row["name"] == "ce")
    ranges = list(zip(row["edges"][:-1], row["edges"][1:], strict=True))
    for low, high in ranges:
        explorer.selected = {"kind": "bar", "run": "ce", "low": low, "high": high}
        alike = [at for at, other in enumerate(ranges) if other == (low, high)]
        counted = sum(row["counts"][at] for at in alike)
        assert ask()["samples"]["count"] == counted
        assert explorer.answer["samples"]["count"] == counted


@pytest.mark.parametrize("kind", ["sure", "rounded", "same"])
@pytest.mark.parametrize("binning", ["width", "mass", "equal"])
def test_the_bars_at_both_ends_list_what_they_count(browser, binning, kind):
    """A click asks for the first one from 0 and for the last one up to 1."""
    explorer = explorer_of(kind, 400, 4, 5)
    browser.call("load", json.dumps(as_data(explorer)))
    explorer.binning = binning
    explorer.n_bins = 20

    def ask():
        return json.loads(browser.call("ask", json.dumps(explorer.question)))

    row = next(row for row in ask()["rows"] if row["name"] == "ce")
    ranges = list(zip(row["edges"][:-1], row["edges"][1:], strict=True))
    for at, low, high in ((0, 0, ranges[0][1]), (19, ranges[19][0], 1)):
        if row["counts"][at]:
            explorer.selected = {"kind": "bar", "run": "ce", "low": low, "high": high}
            alike = [bar for bar, other in enumerate(ranges) if other == (low, high)]
            counted = sum(row["counts"][bar] for bar in {at, *alike})
            assert ask()["samples"]["count"] == counted
            assert explorer.answer["samples"]["count"] == counted


def test_a_matrix_is_applied_as_structured_matrix_scaling_does(browser):
    """Its library takes long to load, so the state is made up."""
    g = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(40, 3, generator=g, dtype=torch.float64)
    calibrator = make_calibrator("sms")
    state = {
        "temperature": torch.tensor(1.7, dtype=torch.float64),
        "uniform": torch.tensor(0.01, dtype=torch.float64),
        "weight": torch.randn(3, 3, generator=g, dtype=torch.float64),
        "bias": torch.randn(3, generator=g, dtype=torch.float64),
        "n_classes": torch.tensor(3),
    }
    calibrator.load_state_dict(state)
    fitted = {"formula": "matrix", **{k: v.tolist() for k, v in state.items()}}
    asked = json.dumps([fitted, z.flatten().tolist()])
    theirs = json.loads(browser.call("matrix", asked))
    np.testing.assert_allclose(theirs, calibrator(z).flatten(), rtol=1e-9)


def test_the_engine_knows_every_calibrators_formula(browser):
    known = json.loads(browser.eval("JSON.stringify(Object.keys(FORMULAS))"))
    forms = [row.browser for row in ALL_CALIBRATORS.values() if row.browser]
    assert {form.formula for form in forms} == set(known)


def test_probabilities_on_an_edge_fall_into_the_same_bins(browser):
    """0.1, 0.2, ... 1 as probabilities of two classes: each on an edge of ten bins."""
    p = np.arange(5, 11) / 10
    logits = np.stack([np.log(p), np.log1p(-p + 1e-300).clip(-80)], 1)
    labels = torch.zeros(len(p), dtype=torch.long)
    explorer = ReliabilityExplorer({"ours": (torch.from_numpy(logits), labels)})
    browser.call("load", json.dumps(as_data_without_calibrators(explorer)))
    for n_bins in (2, 5, 10, 20, 50):
        explorer.n_bins = n_bins
        theirs = json.loads(browser.call("ask", json.dumps(explorer.question)))
        close(explorer.answer["rows"], theirs["rows"])


def as_data_without_calibrators(explorer):
    logits = {name: z.flatten().tolist() for name, z in explorer._test.items()}
    runs = [{"name": n, "logits": z, "calibrators": {}} for n, z in logits.items()]
    sizes = {"nSamples": len(explorer._labels), "nClasses": len(explorer._names)}
    tolerance = explorer._content(0)["data"]["tolerance"]
    labels = explorer._labels.tolist()
    return {**sizes, "labels": labels, "tolerance": tolerance, "runs": runs}


@pytest.mark.parametrize("p", [1e-12, 0.003, 0.5, 0.98, 1 - 1e-12])
@pytest.mark.parametrize("n", [1, 7, 400, 60_000])
def test_the_band_is_the_binomials(browser, n, p):
    import scipy.stats

    theirs = json.loads(
        browser.eval(f"JSON.stringify(binomialQuantiles({n}, {p!r}, [.025, .975]))")
    )
    assert theirs == scipy.stats.binom.ppf([0.025, 0.975], n, p).tolist()


def test_the_simplex_has_the_same_surface(browser):
    rng = np.random.default_rng(0)
    for i in range(60):
        truth = rng.dirichlet([1, 1, 1]).tolist()
        truth = [0.5, 0.5, 0.0] if i == 0 else truth
        explorer = PropernessExplorer(
            loss=PropernessExplorer._losses[i % 6],
            truth=truth,
            gamma=float(rng.choice([0.0, 0.5, 3.0, 10.0])),
            weight=float(rng.choice([0.0, 0.5, 1.0])),
            batch=str(rng.choice(["varied", "alike"])),
        )
        ours = explorer.answer
        theirs = json.loads(browser.call("simplex", json.dumps(explorer.question)))
        for key in ("risk", "levels", "risk_at_truth", "risk_at_best"):
            close(ours[key], theirs[key], f"{explorer.question} {key}")
        if ours["best"] is None:
            assert theirs["best"] is None
        elif explorer.loss != "dfl":  # it jumps where two are equal
            assert theirs["best"] == pytest.approx(ours["best"], abs=1e-3)


def test_the_answer_is_metrics_own():
    explorer = explorer_of("plain", 500, 4, 1)
    explorer.class_index = 2
    for row in explorer.answer["rows"]:
        logits = explorer._test[row["name"]]
        found = metrics.evaluate(logits, explorer._labels)
        numbers = {key: row["numbers"][key] for key in found}
        assert numbers == pytest.approx(found, rel=1e-12)
        assert all(math.isfinite(value) for value in row["numbers"].values())
