"""Finished run folders read back, with what only their logits and histories tell."""

from __future__ import annotations

import json
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gcelib import _check, calibration, metrics
from gcelib.study import runs
from gcelib.study.paper.numbers import published

#: The bins of Table 10.
_ATS_BINS = (5, 10, 15, 20, 25)
#: Of a validation set of this size, one random half is enough to tell.
_LARGE_VALIDATION_SET = 2000
#: Errors of up to so many classes have a column each.
_FEW_CLASSES = 10

LogitsAndLabels = tuple[ArrayLike, ArrayLike]


def split_half(
    val: LogitsAndLabels,
    test: LogitsAndLabels,
    calibrator: str = "ats",
    repeats: int = 20,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Does sharing the validation set flatter a calibrator? A control.

    AFL's gamma looks at the validation set in every epoch, and then calibrators are
    fitted there. Training that looked makes *seen* lower than *unseen*. One run's gap
    is mostly the luck of its validation draw, and in long tails the two differ anyway:
    average over seeds, and compare with CE, which never looked.

    Parameters
    ----------
    val, test : (logits (N, K), labels (N,))
    calibrator : str, default "ats"
        A name in ``CALIBRATORS``.
    repeats : int, default 20
        Random halves.
    seed : int, default 0
        Of the halves.
    **options
        Of the calibrator.

    Returns
    -------
    DataFrame
        A row a repeat, ECEs as fractions. full: fitted on all of validation, measured
        on test; half: on half A, on test; seen: on A, on half B; unseen: on A, on as
        many test samples.

    Raises
    ------
    ValueError, TypeError
        If logits, labels or a name are malformed.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> logits, labels = rng.normal(size=(200, 3)), rng.integers(0, 3, 200)
    >>> val, test = (logits[:100], labels[:100]), (logits[100:], labels[100:])
    >>> split_half(val, test, "ts_nll", repeats=2).shape
    (2, 4)
    """
    whole = calibration.make_calibrator(calibrator, **options).fit(*val)
    full = metrics.ece(whole(_check.as_tensor("test logits", test[0])), test[1])
    halves = _halves(val, test, calibrator, repeats, seed, **options)
    return pd.DataFrame([{"full": full} | half for half in halves])


def _halves(
    val: LogitsAndLabels,
    test: LogitsAndLabels,
    calibrator: str,
    repeats: int,
    seed: int = 0,
    **options: Any,
) -> list[dict[str, float]]:
    """The ECEs of :func:`split_half` that random halves give, a dict a repeat."""
    repeats = _check.number("repeats", repeats, 1, integer=True)
    val_logits, val_labels = _check.logits_and_labels(*val)
    test_logits, test_labels = _check.logits_and_labels(*test)
    size = min(len(val_labels) // 2, len(test_labels))
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(repeats):
        a, b = np.split(rng.permutation(len(val_labels))[: 2 * size], 2)
        c = rng.choice(len(test_labels), size, replace=False)
        fitted = calibration.make_calibrator(calibrator, **options)
        fitted.fit(val_logits[a], val_labels[a])
        calibrated = fitted(test_logits)
        rows.append(
            {
                "half": metrics.ece(calibrated, test_labels),
                "seen": metrics.ece(fitted(val_logits[b]), val_labels[b]),
                "unseen": metrics.ece(calibrated[c], test_labels[c]),
            }
        )
    return rows


def collect(runs_dir: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """All finished runs with what only their logits and histories tell: a row a run.

    What is expensive is computed only where a table asks for it, so that the 1,340 runs
    of the paper's study take about a minute.

    Parameters
    ----------
    runs_dir : path, optional
        The parent of the run folders; left out: the default one.

    Returns
    -------
    DataFrame
        The columns of ``runs.load_results``, then

        - ``test_raw_worst_class_error`` and, up to ten classes,
          ``test_raw_error_class<k>``;
        - ``ts_nll_temperature``, fitted on validation (above 1: it claimed too much);
        - ``early_val_error``, the mean validation error of the epochs before the first
          drop of the learning rate (the lower, the faster it converges);
        - ``seconds_per_epoch``, the median over epochs without a look at the test set,
          of runs whose environment says ``"sharing": 1``, that they had their device to
          themselves (Table 6; else missing);
        - ``test_ats<bins>_<metric>`` for Table 10, on data that the table or our own
          results show;
        - ``half_<fit>_ece``, means of :func:`split_half` for CE and AFL (five halves,
          one of a validation set above 2,000);
        - versions of torch and gcelib's commit, and the day.

    Examples
    --------
    >>> collect("a folder without runs").empty
    True
    """
    results = runs.load_results(runs_dir)
    with warnings.catch_warnings():
        # Advice is for who calibrates; here it would come by the hundred.
        warnings.simplefilter("ignore", UserWarning)
        rows = [row | _from_folder(row) for row in _records(results)]
    return pd.DataFrame(rows)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dicts."""
    named = table.to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in named]


def _from_folder(row: dict[str, Any]) -> dict[str, Any]:
    """What one run's logits, history and environment add to its row."""
    run_dir = row["run_dir"]
    val = runs.load_logits(run_dir, "val")
    test = runs.load_logits(run_dir, "test")
    environment = runs.read_result(run_dir).environment
    temperature = calibration.TemperatureScaling("nll").fit(*val).temperature
    found: dict[str, Any] = dict(class_errors(*test))
    found["ts_nll_temperature"] = float(temperature)
    found |= _from_history(row, environment)
    if _shown_in_table_10(row):
        found |= _ats_by_bins(val, test)
    if row["loss"] in ("ce", "afl"):
        repeats = 1 if len(val[1]) > _LARGE_VALIDATION_SET else 5
        means = pd.DataFrame(_halves(val, test, "ats", repeats)).mean()
        found |= {f"half_{name}_ece": float(value) for name, value in means.items()}
        found["half_full_ece"] = row["test_ats_ece"]
    found["torch"] = environment.get("torch")
    found["commit"] = environment.get("commit")
    found["day"] = environment.get("started", "")[:10]
    return found


def class_errors(logits: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """The error of each class, and of the worst.

    Parameters
    ----------
    logits : (N, K) array
    labels : (N,) array of integers

    Returns
    -------
    dict
        ``test_raw_worst_class_error`` and, for K up to ten,
        ``test_raw_error_class<k>``: fractions of the samples of that class. Classes
        without samples are left out.

    Examples
    --------
    >>> class_errors(np.eye(2), np.array([0, 0]))["test_raw_worst_class_error"]
    0.5
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    n_classes = logits.shape[1]
    wrong = np.bincount(labels, logits.argmax(1) != labels, n_classes)
    counts = np.bincount(labels, minlength=n_classes)
    errors = {k: wrong[k] / counts[k] for k in np.flatnonzero(counts)}
    found = {"test_raw_worst_class_error": float(max(errors.values()))}
    if n_classes <= _FEW_CLASSES:
        found |= {f"test_raw_error_class{k}": float(e) for k, e in errors.items()}
    return found


def _from_history(row: dict[str, Any], environment: dict[str, Any]) -> dict[str, float]:
    """Speed of learning and of the clock, from ``history.jsonl``; {} without one."""
    try:
        lines = Path(row["run_dir"], "history.jsonl").read_text(encoding="utf-8")
        history = [json.loads(line) for line in lines.splitlines()]
    except (OSError, ValueError):
        return {}
    found = {}
    early = [
        epoch["val_error"]
        for epoch in history
        if "val_error" in epoch and epoch["lr"] == history[0]["lr"]
    ]
    if early:
        found["early_val_error"] = float(np.mean(early))
    # Neither a look at the test set nor a neighbour on the processor is training.
    quiet = [epoch["seconds"] for epoch in history if "test_error" not in epoch]
    if environment.get("sharing") == 1 and quiet:
        found["seconds_per_epoch"] = float(np.median(quiet))
    return found


@cache
def _settings_of_table_10() -> set[tuple[str, str]]:
    """The data set and network of Table 10."""
    rows = published(10)
    return set(zip(rows.dataset, rows.model, strict=True))


@cache
def _paper_data() -> set[str]:
    """The data sets of the paper."""
    return set(published().dataset)


def _shown_in_table_10(row: dict[str, Any]) -> bool:
    """True for Table 10's own runs, and for data that the paper does not have."""
    if row.get("variant"):
        return False
    own = row["dataset"] not in _paper_data()
    return own or (row["dataset"], row["model"]) in _settings_of_table_10()


def _ats_by_bins(val: LogitsAndLabels, test: LogitsAndLabels) -> dict[str, float]:
    """The three calibration errors of ATS with each number of bins of Table 10."""
    found = {}
    logits, labels = test
    for n_bins in _ATS_BINS:
        calibrate = calibration.AdaptiveTemperatureScaling(n_bins=n_bins).fit(*val)
        calibrated = calibrate(logits)
        for measure in (metrics.ece, metrics.adaptive_ece, metrics.classwise_ece):
            name = f"test_ats{n_bins}_{measure.__name__}"
            found[name] = measure(calibrated, labels)
    return found
