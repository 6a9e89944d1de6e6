"""Adaptive temperature scaling: one temperature for each bin of confidence."""

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gcelib import _check
from gcelib.bins import Floats
from gcelib.blocks import rounding_of
from gcelib.calibrator import (
    TEMPERATURE,
    TIE,
    BufferRule,
    Calibrator,
    binned_error,
    confidence_of,
    count_below,
    distances_below_top,
    groups_of_ties,
    softmax_sums,
)

IntArray = npt.NDArray[np.intp]

_DEFAULT_RANGE = (0.1, 10.0)
#: Where the converged variant looks if a bin has no root within the default range.
_FURTHEST = (1e-4, 1e4)


class AdaptiveTemperatureScaling(Calibrator):
    """One temperature for each bin of confidence (ATS, the paper's Algorithm 1).

    Bins are (tau_{m-1}, tau_m] between linear quantiles of the *uncalibrated*
    validation confidences, tau_0 = 0 and tau_M = 1; a new sample is binned by its
    uncalibrated confidence too. In each round T_m moves by clip(step * (confidence_m -
    accuracy_m), -max_step, max_step) within ``t_range``. The round with the smallest
    ECE wins, the first of equals, T = 1 being round 0. No prediction changes.

    At the paper's settings a bin moves at most ten times its gap, so it often stops
    before it converges: on other people's networks ``rounds=None`` takes away a third
    of the ECE that the paper's settings leave (data/results/real_networks.csv).

    Parameters
    ----------
    n_bins : int, default 15
        Bins of confidence, each with about equally many validation samples.
    rounds : int or None, default 200
        Rounds of Algorithm 1. None (ours) solves confidence_m(T) = accuracy_m to
        convergence instead, and keeps T = 1 if its ECE is not larger. A bin with all
        of n right (or wrong) has no root and gets the target (k + 1/2) / (n + 1);
        other bins do not, since that would pull every confident bin the same way.
        Empty bins keep T = 1.
    step : float, default 0.05
        Change of a temperature for a gap of 1.
    max_step : float, default 0.1
        The largest change in a round.
    t_range : pair of floats, default (0.1, 10.0)
        Lowest and highest temperature. Ending there is never silent. ``rounds=None``
        with the default looks further, to (1e-4, 1e4), for a bin without a root in it.
    n_ece_bins : int, default 20
        Bins of equal width of the ECE that chooses the round; the paper does not say.

    Attributes
    ----------
    temperatures : (n_bins,) Tensor
        T_m.
    thresholds : (n_bins + 1,) Tensor
        tau_0 to tau_M.
    ece_trace : (rounds + 1,) Tensor
        Validation ECE after each round, round 0 first; (2,) with ``rounds=None``.

    References
    ----------
    Zhan, Zhou and Shen, arXiv 2604.06689 (2026), Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0]]).repeat(10, 1)  # says 0.88
    >>> labels = torch.tensor([0] * 7 + [1] * 3)  # is right 7 times of 10
    >>> ats = AdaptiveTemperatureScaling(n_bins=1, rounds=None).fit(logits, labels)
    >>> round(ats(logits).softmax(1)[0, 0].item(), 6)
    0.7
    """

    temperatures: Tensor
    thresholds: Tensor
    ece_trace: Tensor

    buffer_rules: ClassVar = {
        "temperatures": TEMPERATURE,
        "thresholds": BufferRule(low=0, high=1, increasing=True),
        "ece_trace": BufferRule(low=0, high=1, length="data"),
    }
    keeps_predictions: ClassVar = True

    def __init__(
        self,
        n_bins: int = 15,
        rounds: int | None = 200,
        step: float = 0.05,
        max_step: float = 0.1,
        t_range: Sequence[float] = _DEFAULT_RANGE,
        n_ece_bins: int = 20,
    ) -> None:
        n_bins = _check.number("n_bins", n_bins, 1, 10_000, integer=True)
        super().__init__(
            temperatures=np.ones(n_bins),
            thresholds=np.linspace(0, 1, n_bins + 1),
            ece_trace=[],
        )
        self.n_bins = n_bins
        if rounds is not None:
            rounds = _check.number("rounds", rounds, 1, 1_000_000, integer=True)
        self.rounds = rounds
        self.step = _check.number("step", step, 0, open_low=True)
        self.max_step = _check.number("max_step", max_step, 0, open_low=True)
        if not isinstance(t_range, (tuple, list)) or len(t_range) != 2:
            problem = f"must be a pair (lowest, highest), got {t_range!r}"
            _check.fail("t_range", problem, "pass e.g. (0.1, 10.0)")
        lowest = _check.number("t_range", t_range[0], 1e-4, 1)
        highest = _check.number("t_range", t_range[1], 1, 1e4)
        self.t_range = (lowest, highest)
        self.n_ece_bins = _check.number(
            "n_ece_bins", n_ece_bins, 1, 1_000_000, integer=True
        )

    def _fit(self, logits: Tensor, labels: Tensor) -> dict[str, npt.ArrayLike]:
        """Sort by confidence, cut into bins, and run Algorithm 1 or solve each bin."""
        distances = distances_below_top(logits.double())
        confidence = 1 / softmax_sums(distances, np.ones(1))[0]
        order = np.argsort(confidence, kind="stable")
        confidence = confidence[order]
        correct = (logits.argmax(1) == labels)[order].double().numpy()
        rounding = rounding_of(logits)
        group = groups_of_ties(confidence, rounding)
        thresholds, cuts = _quantile_bins(confidence, self.n_bins, group)
        bins = _Bins(distances[order], cuts, rounding)
        if self.rounds is None:
            candidates, errors = self._solve(bins, correct)
        else:
            candidates, errors = self._iterate(bins, correct, self.rounds)
        best = int(np.argmax(np.array(errors) <= min(errors) + TIE))
        temperatures = candidates[best]
        if not self._warn_of_bounds(temperatures, bins.counts):
            self._warn_of_little(errors[0], errors[best], len(correct))
        return {
            "temperatures": temperatures,
            "thresholds": thresholds,
            "ece_trace": errors,
        }

    def _iterate(
        self, bins: "_Bins", correct: Floats, rounds: int
    ) -> tuple[list[Floats], list[float]]:
        """Algorithm 1: the temperatures before and after every round, and their ECE."""
        temperatures = np.ones(self.n_bins)
        gap = np.zeros(self.n_bins)
        candidates = []
        errors = []
        for _ in range(rounds + 1):
            confidence = bins.confidence(temperatures, gap)
            candidates.append(temperatures)
            errors.append(self._error(confidence, correct, bins.rounding))
            gap = bins.mean(confidence - correct)
            step = (self.step * gap).clip(-self.max_step, self.max_step)
            temperatures = (temperatures + step).clip(*self.t_range)
        return candidates, errors

    def _solve(
        self, bins: "_Bins", correct: Floats
    ) -> tuple[list[Floats], list[float]]:
        """T = 1, then what makes each bin's confidence its accuracy; and their ECE."""
        accuracy = bins.mean(correct)
        smoothed = (accuracy * bins.counts + 0.5) / (bins.counts + 1)
        target = np.where(np.isin(accuracy, (0, 1)), smoothed, accuracy)
        temperatures, gap = _bisect(bins, target, *self.t_range)
        if self._widest_range != self.t_range:
            stuck = _at_an_end(temperatures, self.t_range) & (bins.counts > 0)
            if stuck.any():
                further, gap = _bisect(bins, target, *self._widest_range)
                temperatures = np.where(stuck, further, temperatures)
        solved = np.where(bins.counts, temperatures, 1)
        candidates = [np.ones(self.n_bins), solved]
        errors = [
            self._error(bins.confidence(t, gap), correct, bins.rounding)
            for t in candidates
        ]
        return candidates, errors

    @property
    def _widest_range(self) -> tuple[float, float]:
        """Where a search ends; solving the bins goes on beyond the default range."""
        if self.rounds is None and self.t_range == _DEFAULT_RANGE:
            return _FURTHEST
        return self.t_range

    def _error(self, confidence: Floats, correct: Floats, rounding: float) -> float:
        """The ECE that chooses between candidates."""
        gaps = confidence - correct
        found = binned_error(confidence, gaps, self.n_ece_bins, rounding)
        return min(found, 1.0)  # where all is wrong and sure, a sum rounds above it

    def _warn_of_little(self, before: float, after: float, n_samples: int) -> None:
        """Say so if a large error was hardly mended: logits of a far wrong scale."""
        noise = n_samples**-0.5  # the ECE that few samples show of themselves
        if after <= max(0.1 + noise, before / 2):
            return
        done = f"{self.rounds} rounds" if self.rounds else "solving every bin"
        cure = "divide the logits by their temperature (ts_nll) first"
        if self.rounds:
            cure += ", or use ats_converged"
        _check.warn(
            f"logits: after {done} the ECE is still {100 * after:.1f} %, of "
            f"{100 * before:.1f} % before; {cure}, or look at the labels"
        )

    def _warn_of_bounds(self, temperatures: Floats, counts: IntArray) -> bool:
        """Say so if a bin that holds samples ended at the end of the range."""
        ends = self._widest_range
        stuck = int((_at_an_end(temperatures, ends) & (counts > 0)).sum())
        if stuck:
            cure = "divide the logits by their temperature (ts_nll) first"
            if self.rounds is not None:
                cure += ", or use ats_converged"
            _check.warn(
                f"t_range: {stuck} of {self.n_bins} temperatures ended at "
                f"{ends[0]:g} or {ends[1]:g}, so these bins may want to go further; "
                f"{cure}, or look at the labels"
            )
        return stuck > 0

    def _calibrate(self, logits: Tensor) -> Tensor:
        """Each row divided by the temperature of its bin."""
        index = count_below(self.thresholds[1:-1], confidence_of(logits.detach()))
        return logits / self.temperatures[index][:, None].to(logits.dtype)


def _at_an_end(
    temperatures: Floats, ends: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Which temperatures lie at the lowest or the highest one allowed."""
    lowest, highest = ends
    return (temperatures <= lowest * (1 + 1e-9)) | (
        temperatures >= highest * (1 - 1e-9)
    )


def _quantile_bins(
    confidence: Floats, n_bins: int, group: IntArray
) -> tuple[Floats, IntArray]:
    """Thresholds at quantiles of sorted confidences, and where they cut them.

    Bin m holds the samples ``cuts[m]:cuts[m + 1]``. A threshold falls on a sample; it
    is lifted to the last of its ``group``, those that are equal but for rounding, and
    then a little, where there is room above it, so that float32 rounding keeps equal
    confidences in one bin.
    """
    thresholds = np.quantile(confidence, np.linspace(0, 1, n_bins + 1))
    cuts = np.searchsorted(confidence, thresholds, side="right")
    cuts = np.searchsorted(group, group[cuts - 1], side="right")
    thresholds = np.maximum(thresholds, confidence[cuts - 1])
    room = np.append(confidence, 1)[cuts] - thresholds
    thresholds += np.minimum(room / 2, 1e-5 * (1 - thresholds))
    thresholds[0] = 0
    thresholds[-1] = 1
    cuts[0] = 0
    return thresholds, cuts


def _bisect(
    bins: "_Bins", target: Floats, lowest: float, highest: float
) -> tuple[Floats, Floats]:
    """Temperatures at which each bin's confidence meets its target, and the gap left.

    To 1e-14 of T: confidence falls with T. Without a root the nearer end of the range
    comes out.
    """
    low = np.full(len(target), lowest)
    high = np.full(len(target), highest)
    middle = np.sqrt(low * high)
    gap = np.zeros(len(target))
    for _ in range(50):
        middle = np.sqrt(low * high)
        gap = bins.mean(bins.confidence(middle, gap)) - target
        low = np.where(gap > 0, middle, low)
        high = np.where(gap > 0, high, middle)
    return middle, gap


class _Bins:
    """Samples in bins of confidence; their confidences at any temperatures.

    As a function of log T a softmax denominator is entire, so ten Chebyshev nodes
    within a factor of 1.25 give temperatures to 1e-9: each bin has a table of its
    samples' denominators at the nodes around ``centre``. A bin whose temperature
    leaves its table gets a new one that lies ahead.
    """

    width = math.log(1.25)
    n_nodes = 10

    def __init__(self, distances: Tensor, cuts: IntArray, rounding: float) -> None:
        self.rounding = rounding  # of the logits that ``distances`` were made from
        self.counts = np.diff(cuts)
        self._filled = np.flatnonzero(self.counts)
        self._starts = cuts[self._filled]
        self._sizes = self.counts[self._filled]
        self._order = np.arange(self.n_nodes)
        angles = (self._order + 0.5) * np.pi / self.n_nodes
        self._nodes = self.width * np.cos(angles)
        norm = np.where(self._order, 2, 1)[:, None]
        self._to_nodes = np.cos(np.outer(self._order, angles)) * norm / self.n_nodes
        self._centre = np.full(len(self.counts), np.inf)
        self._sums = np.empty(len(distances))
        table = np.empty((len(distances), self.n_nodes))
        slices = [slice(start, stop) for start, stop in itertools.pairwise(cuts)]
        self._distances = [distances[rows] for rows in slices]
        # Views, a bin each: to write into one is to write into the whole.
        self._tables = [table[rows] for rows in slices]
        self._sums_of_bins = [self._sums[rows] for rows in slices]

    def confidence(
        self, temperatures: Floats, direction: Floats | None = None
    ) -> Floats:
        """Confidence of every sample at its bin's temperature.

        A positive ``direction`` says that the bin's temperature is about to rise.
        """
        log_t = np.log(temperatures)
        has_left = np.abs(log_t - self._centre) > self.width
        for m in np.flatnonzero(has_left).tolist():
            ahead = 0.0 if direction is None else direction[m]
            self._centre[m] = log_t[m] + np.copysign(0.9 * self.width, ahead)
            inverse_temperatures = np.exp(-self._centre[m] - self._nodes)
            sums = softmax_sums(self._distances[m], inverse_temperatures)
            self._tables[m][:] = sums.T
        angles = np.arccos((log_t - self._centre) / self.width)
        weights = np.cos(angles[:, None] * self._order) @ self._to_nodes
        bins = zip(self._tables, weights, self._sums_of_bins, strict=True)
        for table, weights_of_bin, sums_of_bin in bins:
            np.dot(table, weights_of_bin, out=sums_of_bin)
        return 1 / self._sums

    def mean(self, values: Floats) -> Floats:
        """Mean of ``values`` in each bin, 0 in an empty one."""
        means = np.zeros(len(self.counts))
        means[self._filled] = np.add.reduceat(values, self._starts) / self._sizes
        return means
