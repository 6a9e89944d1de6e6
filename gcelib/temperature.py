"""Temperature scaling: one temperature for all logits, by NLL or by ECE."""

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib import _check
from gcelib.bins import Floats
from gcelib.blocks import rounding_of
from gcelib.calibrator import (
    TEMPERATURE,
    TIE,
    Calibrator,
    binned_error,
    distances_below_top,
    softmax_sums,
)

#: Where every search for a temperature ends.
LOWEST = 1e-4
HIGHEST = 1e4


class TemperatureScaling(Calibrator):
    """One temperature for all: z / T. No prediction changes.

    Parameters
    ----------
    criterion : {"nll", "ece"}, default "nll"
        ``"nll"`` minimises the negative log-likelihood, which is convex in 1/T, to
        convergence in the dtype of the logits, within [1e-4, 1e4]. A set that is all
        right has no minimum: T stays 1, with a warning. ``"ece"`` is the search behind
        the paper's "naive temperature scaling": the first of T = 0.1, 0.2, ..., 10.0
        with the smallest ECE in 15 bins, although reports use 20. Where that grid ends
        too early it goes on in tenths of its first, or tens of its last value, with a
        warning.

    Attributes
    ----------
    temperature : () Tensor
        T.

    References
    ----------
    Guo et al., ICML 2017. The search by ECE: torrvision/focal_calibration,
    temperature_scaling.py.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0]]).repeat(10, 1)  # says 0.88
    >>> labels = torch.tensor([0] * 7 + [1] * 3)  # is right 7 times of 10
    >>> scale = TemperatureScaling().fit(logits, labels)
    >>> round(scale(logits).softmax(1)[0, 0].item(), 6)
    0.7
    """

    temperature: Tensor

    buffer_rules: ClassVar = {"temperature": TEMPERATURE}
    keeps_predictions: ClassVar = True

    def __init__(self, criterion: str = "nll") -> None:
        super().__init__(temperature=1.0)
        self.criterion = _check.choice("criterion", criterion, ("nll", "ece"))

    def _fit(self, logits: Tensor, labels: Tensor) -> dict[str, npt.ArrayLike]:
        """The temperature by the chosen criterion."""
        if self.criterion == "nll":
            return {"temperature": temperature_by_nll(logits, labels)}
        return {"temperature": _temperature_by_ece(logits, labels)}

    def _without_errors(self) -> str:
        """What each criterion makes of a set without errors."""
        if self.criterion == "nll":
            return "no temperature is the best and it stays 1"
        return "no temperature is the best, and the grid ends somewhere"

    def _calibrate(self, logits: Tensor) -> Tensor:
        """Every logit divided by T."""
        return logits / self.temperature.to(logits.dtype)


def temperature_by_nll(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature with the smallest NLL; 1, with a warning, where none is.

    Parameters
    ----------
    logits : (N, K) Tensor
        On the CPU; the search runs in their dtype, at least float32.
    labels : (N,) Tensor
        Class ids in [0, K).

    Returns
    -------
    float
        In [1e-4, 1e4]; an end of that range is told by a warning.

    Examples
    --------
    >>> logits = torch.tensor([[1.0, 0.0]] * 4)  # says 0.73
    >>> labels = torch.tensor([0, 0, 0, 1])  # is right 3 times of 4
    >>> round(temperature_by_nll(logits, labels), 2)
    0.91
    """
    temperature = _minimise_nll(logits, labels)
    if LOWEST * (1 + 1e-5) < temperature < HIGHEST * (1 - 1e-5):
        return temperature
    if temperature < 1:
        distances = distances_below_top(logits)
        if not bool(distances.any()):
            return one_for_equal_logits()
        if bool((logits.argmax(1) == labels).all()):
            return 1.0  # ``fit`` has said so
        if not bool(distances.gather(1, labels[:, None]).any()):
            return _one_because(
                "every label shares the largest logit of its sample with other classes"
            )
    warn_of_bound("temperature", temperature)
    return temperature


def one_for_equal_logits() -> float:
    """Say that nothing can be fitted to constant rows; the temperature stays 1.

    Returns
    -------
    float
        1.
    """
    return _one_because(
        "the logits of each sample are all equal, so a temperature changes nothing"
    )


def _one_because(reason: str) -> float:
    """Warn that the temperature stays 1, and why."""
    _check.warn(f"logits: {reason}, and it stays 1; look at the model or file")
    return 1.0


def warn_of_bound(name: str, value: float) -> None:
    """Say that a search ended where it may not go on.

    Parameters
    ----------
    name : str
        What was searched for.
    value : float
        Where the search ended.
    """
    _check.warn(
        f"{name}: ended at {value:g}, the end of its range, so it may want to go "
        "further; look whether labels and logits belong together, and at the logits' "
        "scale"
    )


def _minimise_nll(logits: Tensor, labels: Tensor) -> float:
    """Newton's method in log x, x = 1/T, within the range of temperatures."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    n_rows = max(1, (1 << 17) // logits.shape[1])  # blocks that fit a core's cache
    blocks = [distances_below_top(part) for part in torch.split(logits, n_rows)]
    own_distance = 0.0  # of the labels, summed over the samples
    for distances, y in zip(blocks, torch.split(labels, n_rows), strict=True):
        own_distance += float(distances.gather(1, y[:, None]).double().sum())
    if own_distance == 0:
        return LOWEST
    x = 1.0
    if len(labels) > 1000:
        x = 1 / _minimise_nll(logits[::16], labels[::16])  # a cheap start
    low = 1 / HIGHEST
    high = 1 / LOWEST
    scratch = torch.empty_like(blocks[0])  # fresh memory for every block would be slow
    for _ in range(100):
        slope, curvature = _nll_slope_and_curvature(blocks, own_distance, x, scratch)
        if slope < 0:
            low = x
        else:
            high = x
        last = x
        newton = -slope / (curvature * x + 1e-300)
        x = x * math.exp(min(max(newton, -50), 50))
        if not low < x < high:
            x = math.sqrt(low * high)
        if abs(x - last) < 1e-5 * x:  # Newton's error after such a step is its square
            break
    return 1 / x


def _nll_slope_and_curvature(
    blocks: list[Tensor], own_distance: float, x: float, scratch: Tensor
) -> tuple[float, float]:
    """Derivatives in x = 1/T of the summed NLL.

    The slope is the labels' distance below the top minus its expectation under x; the
    curvature is the variance of that distance.
    """
    slope = own_distance
    curvature = 0.0
    for distances in blocks:
        weights = torch.mul(distances, -x, out=scratch[: len(distances)]).exp_()
        mass = weights.sum(1)
        mean = weights.mul_(distances).sum(1) / mass
        square = weights.mul_(distances).sum(1) / mass
        slope -= float(mean.double().sum())
        curvature += float((square - mean * mean).sum())
    return slope, curvature


def _temperature_by_ece(logits: Tensor, labels: Tensor) -> float:
    """The published search, and what lies beyond the ends of its grid."""
    distances = distances_below_top(logits.double())
    if not bool(distances.any()):
        return one_for_equal_logits()
    correct = (logits.argmax(1) == labels).double().numpy()
    rounding = rounding_of(logits)
    # Added up as published: its 2.5 is 2.500000000000001.
    grid = np.cumsum(np.full(100, 0.1))
    temperature, error = _best_of_grid(grid, distances, correct, rounding)
    if grid[0] < temperature < grid[-1]:
        return temperature
    if correct.all():
        return temperature  # ``fit`` has said so
    factor = 0.1 if temperature == grid[0] else 10.0
    for _ in range(3):
        grid = grid * factor
        candidate, candidate_error = _best_of_grid(grid, distances, correct, rounding)
        if candidate_error >= error - TIE:
            break
        temperature = candidate
        error = candidate_error
        fine_enough = temperature > 10 * grid[0] * (1 + 1e-9)
        if temperature < grid[-1] and (factor > 1 or fine_enough):
            break
    _check.warn(
        f"temperature: the published grid ends at {0.1 if factor < 1 else 10}, so the "
        f"search went on, to {temperature:.3g}; look whether labels and logits belong "
        "together, and at the logits' scale"
    )
    return temperature


def _best_of_grid(
    grid: Floats, distances: Tensor, correct: Floats, rounding: float
) -> tuple[float, float]:
    """The first temperature of the grid with the smallest ECE, and that ECE."""
    confidences = 1 / softmax_sums(distances, 1 / grid)
    errors = np.array([binned_error(c, c - correct, 15, rounding) for c in confidences])
    first = int(np.argmax(errors <= errors.min() + TIE))
    return float(grid[first]), float(errors[first])
