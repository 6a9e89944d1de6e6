"""How much better or worse one set of logits is than another."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from gcelib import _check
from gcelib._check import Array
from gcelib.advice.judging import (
    ERRORS_NEEDED,
    N_BINS,
    Part,
    basic_interval,
    interval_of_mean,
    judge,
    most_by_chance,
    resampled_eces,
)
from gcelib.bins import check_n_bins
from gcelib.blocks import rounding_of
from gcelib.calibrator import warn_of_other_rows
from gcelib.metrics import logits_from_probabilities


@dataclass(frozen=True)
class Difference:
    """What one set of logits changes against another, on the same samples.

    Parameters
    ----------
    name : str
        Which logits.
    nll, nll_low, nll_high : float
        NLL minus the reference's, in nats, and an interval of at least 95 %.
    ece, ece_low, ece_high : float
        The same of the ECE, in the bins that were asked for. Chance makes every ECE
        larger, that of a calibrated model most; the ends allow for what it may have
        added to either, so that they hold the difference in 95 of 100 cases or more.
    """

    name: str
    nll: float
    nll_low: float
    nll_high: float
    ece: float
    ece_low: float
    ece_high: float


def paired_differences(
    calibrated: Mapping[str, Array],
    labels: Array,
    reference: str,
    *,
    resamples: int = 1000,
    seed: int = 1,
    probabilities: bool = False,
    n_bins: int = N_BINS,
) -> list[Difference]:
    """How much better or worse than the reference, sample for sample?

    All are judged on the same samples, and a hard sample is hard for all: the interval
    of a difference is much narrower than two intervals side by side suggest.

    Parameters
    ----------
    calibrated : mapping of (N, K) logits
        By name; the reference among them.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    reference : str
        The name to which the others are compared.
    resamples : int, default 1000
        Of the ECE's basic bootstrap interval, which is then widened by what chance may
        have added to both. The NLL's takes none: its ends are the outer ones of the
        normal interval and of Hall's, which knows how skewed the differences are.
    seed : int, default 1
        Of the resamples.
    probabilities : bool, default False
        True: ``calibrated`` holds probabilities; rows that do not sum to 1 are refused.
    n_bins : int, default 20
        Of the ECE, 1 to 10,000 of equal width.

    Returns
    -------
    list of Difference
        One for every other name, in order; below 0 is better than the reference.

    Warns
    -----
    UserWarning
        If fewer than ten predictions of one are wrong: its NLL hangs on so few that no
        interval holds.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(300, 3))
    >>> labels = (z + rng.gumbel(size=(300, 3))).argmax(1)  # calibrated
    >>> [d] = paired_differences({"a": z, "b": 2 * z}, labels, "a")
    >>> d.name, d.nll_low > 0
    ('b', True)
    """
    _check.choice("reference", reference, list(calibrated))
    seed = _check.number("seed", seed, 0, 2**31, integer=True)
    resamples = _check.number("resamples", resamples, 100, 100_000, integer=True)
    probabilities = _check.boolean("probabilities", probabilities)
    n_bins = check_n_bins(n_bins)
    judged = {}
    n_classes = None
    of_reference = f"calibrated[{reference!r}]"
    for name, logits in calibrated.items():
        pair = (of_reference, f"calibrated[{name!r}]")
        _check.warn_of_indexes(calibrated[reference], logits, pair)
        _check.refuse_other_columns(calibrated[reference], logits, pair)
        z, y = _check.logits_and_labels(logits, labels)
        tolerance = rounding_of(z, probabilities=probabilities)
        if n_classes not in (None, z.shape[1]):
            problem = f"holds {z.shape[1]} classes in {name!r}, before {n_classes}"
            _check.fail("calibrated", problem, "compare logits of the same classes")
        if len(y) < 2:
            _check.fail("labels", "one sample has no interval", "pass at least two")
        n_classes = z.shape[1]
        if probabilities:
            z = logits_from_probabilities(z)
        else:
            _check.warn_of_probabilities(z)
        z, y = z.cpu(), y.cpu()
        _check.warn_of_impossible_labels(z, y, f"calibrated[{name!r}]")
        warn_of_other_rows(z, y, f"calibrated[{name!r}]")
        judged[name] = replace(judge(Part(z, y, tolerance)), n_bins=n_bins)
    few = {
        name: n_wrong
        for name, each in judged.items()
        if (n_wrong := int((~each.correct).sum())) < ERRORS_NEEDED
    }
    if few:
        name, n_wrong = next(iter(few.items()))
        _check.warn(
            f"calibrated[{name!r}]: only {n_wrong} predictions are wrong, and the "
            "intervals of the NLL hold too rarely before about "
            f"{ERRORS_NEEDED} errors; bring more samples"
        )
    draws = resampled_eces(judged, np.random.default_rng(seed), resamples)
    found = []
    for name in calibrated:
        if name == reference:
            continue
        nll = interval_of_mean(judged[name].nll - judged[reference].nll, 0.025)
        ece = basic_interval(draws[name] - draws[reference], 0.025)
        low = ece.low - most_by_chance(judged[name])
        high = ece.high + most_by_chance(judged[reference])
        found.append(
            Difference(
                name=name,
                nll=nll.value,
                nll_low=nll.low,
                nll_high=nll.high,
                ece=ece.value,
                ece_low=low,
                ece_high=high,
            )
        )
    return found
