"""What the logits of a finished run tell: stored by ``fit``, read by every table.

:func:`measure` is every metric on every split, raw and after each calibrator.
:func:`measure_further` is what single tables of the paper ask for besides: errors by
class, a temperature, ATS with other numbers of bins, and a control.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor, nn

from gcelib import _check, calibration, metrics

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["class_errors", "measure", "measure_further", "split_half"]

#: The splits that are measured further.
SPLITS = ("val", "test")
#: The bins of Table 10, and its metrics.
_ATS_BINS = (5, 10, 15, 20, 25)
_ATS_METRICS = ("ece", "adaptive_ece", "classwise_ece")
#: Of a validation set of this size, one random half is enough to tell.
_LARGE_VALIDATION_SET = 2000
#: Errors of up to so many classes have a number each.
_FEW_CLASSES = 10
#: Losses for which the control of a shared validation set is made: AFL looks there
#: while it trains, CE never does.
_CONTROLLED = ("ce", "afl")

LogitsAndLabels = tuple[ArrayLike, ArrayLike]


def measure(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]
) -> dict[str, float]:
    """Compute every metric on every split, raw and after each calibrator.

    Parameters
    ----------
    logits : dict of str to (N, K) tensor
        By split; calibrators are fitted on ``"val"``.
    labels : dict of str to (N,) int64 tensor
        By split; -1 marks an out-of-distribution set, which gets the AUROC of its
        entropy against ``"test"``.

    Returns
    -------
    dict of str to float
        ``<split>_<calibrator>_<metric>``: fractions, and nats.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> z = 2 * torch.randn(2000, 3, generator=generator)
    >>> y = torch.multinomial(z.softmax(1), 1, generator=generator)[:, 0]
    >>> found = measure({"val": z, "test": z}, {"val": y, "test": y})
    >>> found["test_raw_error"] == found["test_ts_nll_error"]
    True
    """
    results: dict[str, float] = {}
    stored = [k for k, row in calibration.CALIBRATORS.items() if row.measured_by_fit]
    for name in ("raw", *stored):
        apply: Callable[[Tensor], Tensor] = nn.Identity()
        if name != "raw":
            calibrator = calibration.make_calibrator(name)
            apply = calibrator.fit(logits["val"], labels["val"])
        calibrated = {split: apply(z) for split, z in logits.items()}
        for split, z in calibrated.items():
            if (labels[split] >= 0).all():
                found = metrics.evaluate(z, labels[split])
                for metric, value in found.items():
                    results[f"{split}_{name}_{metric}"] = value
            else:
                auroc = metrics.ood_auroc(calibrated["test"], z)
                results[f"{split}_{name}_auroc"] = auroc
    return results


def measure_further(
    loss: str,
    logits: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    measured: Mapping[str, float],
) -> dict[str, float]:
    """Compute what single tables of the paper ask for besides ``measure``.

    Parameters
    ----------
    loss : str
        What the network was trained with.
    logits : dict of str to (N, K) tensor
        Of ``"val"`` and ``"test"``, perhaps of more.
    labels : dict of str to (N,) int64 tensor
        Of the same splits.
    measured : dict of str to float
        What ``measure`` gave for them.

    Returns
    -------
    dict of str to float
        - ``ts_nll_temperature``, fitted on validation (above 1: it claimed too much);
        - ``test_raw_worst_class_error`` and, up to ten classes,
          ``test_raw_error_class<k>``: see :func:`class_errors`;
        - ``test_ats<bins>_<metric>``: three calibration errors of ATS with each number
          of bins of Table 10;
        - of CE and AFL ``half_<fit>_ece``: means of :func:`split_half` (five halves,
          one of a validation set above 2,000).

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> z = 2 * torch.randn(2000, 3, generator=generator)
    >>> y = torch.multinomial(z.softmax(1), 1, generator=generator)[:, 0]
    >>> z, y = dict.fromkeys(SPLITS, z), dict.fromkeys(SPLITS, y)
    >>> found = measure_further("gce", z, y, measure(z, y))
    >>> worst = max(found[f"test_raw_error_class{k}"] for k in range(3))
    >>> found["test_raw_worst_class_error"] == worst
    True
    """
    val = (logits["val"], labels["val"])
    test = (logits["test"], labels["test"])
    with _check.collected():
        # Advice is for who calibrates, and ``measure`` has given it.
        fitted = calibration.TemperatureScaling("nll").fit(*val)
        found = {"ts_nll_temperature": float(fitted.temperature)}
        found |= class_errors(*test)
        found |= _ats_by_bins(val, test, measured)
        if loss in _CONTROLLED and len(val[1]) > 1:
            repeats = 1 if len(val[1]) > _LARGE_VALIDATION_SET else 5
            halves = _halves(val, test, "ats", repeats)
            found["half_full_ece"] = measured["test_ats_ece"]
            for name in halves[0]:
                mean = np.mean([half[name] for half in halves])
                found[f"half_{name}_ece"] = float(mean)
    return found


def _ats_by_bins(
    val: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    measured: Mapping[str, float],
) -> dict[str, float]:
    """The three calibration errors of ATS with each number of bins of Table 10."""
    found = {}
    logits, labels = test
    usual = calibration.make_calibrator("ats")
    for n_bins in _ATS_BINS:
        calibrator = calibration.AdaptiveTemperatureScaling(n_bins=n_bins)
        has_usual_options = repr(calibrator) == repr(usual)
        if has_usual_options:  # then ``measure`` has measured it
            for name in _ATS_METRICS:
                found[f"test_ats{n_bins}_{name}"] = measured[f"test_ats_{name}"]
            continue
        calibrated = calibrator.fit(*val)(logits)
        for name in _ATS_METRICS:
            value = metrics.METRICS[name].function(calibrated, labels)
            found[f"test_ats{n_bins}_{name}"] = value
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

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> class_errors(np.eye(2), np.array([0, 0]))["test_raw_worst_class_error"]
    0.5
    """
    values, ids = _check.logits_and_labels(logits, labels)
    scores = values.numpy()
    classes = ids.numpy()
    n_classes = scores.shape[1]
    wrong = np.bincount(classes, scores.argmax(1) != classes, n_classes)
    counts = np.bincount(classes, minlength=n_classes)
    errors = {k: wrong[k] / counts[k] for k in np.flatnonzero(counts)}
    found = {"test_raw_worst_class_error": float(max(errors.values()))}
    if n_classes <= _FEW_CLASSES:
        found |= {f"test_raw_error_class{k}": float(e) for k, e in errors.items()}
    return found


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
    >>> logits = 2 * rng.normal(size=(200, 3))
    >>> labels = (logits + rng.gumbel(size=(200, 3))).argmax(1)
    >>> val, test = (logits[:100], labels[:100]), (logits[100:], labels[100:])
    >>> split_half(val, test, "ts_nll", repeats=2).shape
    (2, 4)
    """
    import pandas as pd

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
        shuffled = rng.permutation(len(val_labels))
        half_a = shuffled[:size]
        half_b = shuffled[size : 2 * size]
        as_many = rng.choice(len(test_labels), size, replace=False)
        fitted = calibration.make_calibrator(calibrator, **options)
        fitted.fit(val_logits[half_a], val_labels[half_a])
        calibrated = fitted(test_logits)
        rows.append(
            {
                "half": metrics.ece(calibrated, test_labels),
                "seen": metrics.ece(fitted(val_logits[half_b]), val_labels[half_b]),
                "unseen": metrics.ece(calibrated[as_many], test_labels[as_many]),
            }
        )
    return rows
