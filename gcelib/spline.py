"""Spline calibration: a smooth curve through the gap of the top-1 confidence."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib import _check
from gcelib.bins import Floats
from gcelib.calibrator import (
    BufferRule,
    Calibrator,
    confidence_of,
    distances_below_top,
    interpolate,
    may_read_values,
)

#: The range of the inverse temperature of a single sample.
_SLOWEST = 1e-12
_FASTEST = 1e8
#: Farther below the top than any logit: what is no rival. Times x it stays finite.
_NO_RIVAL = -1e299


class SplineCalibration(Calibrator):
    """Top-1 confidence s becomes s + h'(u), u its percentile; classes keep their order.

    h(u), a natural cubic spline with ``knots`` equally spaced knots, is fitted by least
    squares to the cumulative gap (hits - sum of confidences) / N of the samples sorted
    by confidence; those equal to 7 digits share their mean. New scores are looked up by
    linear interpolation (the published code swaps its two weights), constant outside.

    The published code moves the top-1 score alone, so that a runner-up may overtake it.
    Here each sample gets the temperature at which its top-1 probability is the new
    score, so every row keeps its order. A temperature reaches scores between 1 / K and
    1 only: the score is kept in them, 1e-7 away from 1; where classes share the largest
    logit, no temperature lifts one above the others. The output is log-probabilities.

    Parameters
    ----------
    knots : int, default 6
        As published.

    Attributes
    ----------
    scores, values : (M,) Tensor
        Uncalibrated top-1 scores, sorted, and what becomes of them.

    References
    ----------
    Gupta et al., ICLR 2021, recalibrate.py.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0]]).repeat(50, 1)  # says 0.88
    >>> labels = (torch.arange(50) % 5 == 0).long()  # is right 4 times of 5
    >>> spline = SplineCalibration().fit(logits, labels)
    >>> round(spline(logits).exp()[0, 0].item(), 2)
    0.8
    """

    scores: Tensor
    values: Tensor

    buffer_rules: ClassVar = {
        "scores": BufferRule(low=0, high=1, increasing=True, length="data"),
        "values": BufferRule(low=-1e6, high=1e6, length="data"),
    }
    keeps_predictions: ClassVar = True

    def __init__(self, knots: int = 6) -> None:
        super().__init__(scores=(0.0, 1.0), values=(0.0, 1.0))
        self.knots = _check.number("knots", knots, 3, 1000, integer=True)

    def _fit(self, logits: Tensor, labels: Tensor) -> dict[str, npt.ArrayLike]:
        """Least squares of the cumulative gap, and its slope at every score."""
        confidence = confidence_of(logits.double()).numpy().round(7)
        scores, group, counts = np.unique(
            confidence, return_inverse=True, return_counts=True
        )
        hits = (logits.argmax(1) == labels).numpy()
        accuracy = np.bincount(group, hits) / counts
        n_samples = len(group)
        gap = np.cumsum(np.repeat(accuracy - scores, counts)) / n_samples
        basis, slopes = _natural_spline(n_samples, self.knots)
        coefficients = np.linalg.lstsq(basis, gap, rcond=None)[0]
        moves = slopes @ coefficients
        mean_moves = np.bincount(np.sort(group), moves) / counts
        return {"scores": scores, "values": scores + mean_moves}

    def _check_state(self, stored: Mapping[str, Tensor]) -> None:
        """Scores and values must be pairs."""
        names = [name for name in ("scores", "values") if name in stored]
        shapes = {tuple(stored[name].shape) for name in names}
        if len(shapes) > 1 or any(len(s) != 1 or s[0] == 0 for s in shapes):
            problem = f"and values have shapes {sorted(shapes)}"
            _check.fail("scores", problem, "they must be pairs, at least one")

    def _calibrate(self, logits: Tensor) -> Tensor:
        """Each row at the temperature that gives its top class the new score."""
        distances = distances_below_top(logits.double())
        score = confidence_of(logits)
        moved = interpolate(score, self.scores, self.values)
        lowest = (1 + 1e-6) / self._n_classes
        moved = moved.clamp(min(lowest, 0.5), 1 - 1e-7)
        top = logits.argmax(1, keepdim=True)
        others = (-distances).scatter(1, top, _NO_RIVAL)
        target = torch.log1p(-moved) - moved.log()  # log odds of the others
        x = _inverse_temperature_for(others, target)
        return torch.log_softmax(-x[:, None] * distances, 1).to(logits.dtype)


def _natural_spline(n_samples: int, n_knots: int) -> tuple[Floats, Floats]:
    """A natural cubic spline's basis at ``n_samples`` points of [0, 1], and its slope.

    Both are (n_samples, n_knots).
    """
    u = np.linspace(0, 1, n_samples)[:, None]
    knots = np.linspace(0, 1, n_knots)[:-1]
    cubes = np.maximum(u - knots, 0) ** 3 / (1 - knots)
    squares = np.maximum(u - knots, 0) ** 2 / (1 - knots)
    # Differences to the last knot, so that there is no curvature at 0 and 1.
    basis = np.hstack([np.ones_like(u), u, cubes[:, :-1] - cubes[:, -1:]])
    slope_of_cubes = 3 * (squares[:, :-1] - squares[:, -1:])
    slopes = np.hstack([np.zeros_like(u), np.ones_like(u), slope_of_cubes])
    return basis, slopes


def _inverse_temperature_for(others: Tensor, target: Tensor) -> Tensor:
    """Solve log sum_k exp(x * others_k) = target for x; ``others`` <= 0.

    The left side is convex and falls with x. The start counts the largest of the
    others alone and so lies to the left of the root, from where Newton's method
    converges. The last step is taken with gradients: it makes x differentiable. Rows
    without a root, whose largest logits are tied, stay as they are: x = 1.
    """
    rivals = others.detach()
    goal = target.detach()
    nearest = rivals.amax(1).clamp(max=-1 / _FASTEST)
    x = (goal / nearest).clamp(_SLOWEST, _FASTEST)
    for _ in range(16):
        excess, slope = _log_sum_and_slope(x, rivals, goal)
        following = (x - excess / slope).clamp(_SLOWEST, _FASTEST)
        if may_read_values(x) and bool(((following - x).abs() <= 1e-9 * x).all()):
            break
        x = following
    excess, slope = _log_sum_and_slope(x, rivals, goal)
    reached = excess.abs() < 1e-6
    correction = (torch.logsumexp(x[:, None] * others, 1) - target) / slope
    return torch.where(reached, x - correction, 1.0)


def _log_sum_and_slope(
    x: Tensor, others: Tensor, goal: Tensor
) -> tuple[Tensor, Tensor]:
    """Give log sum_k exp(x * others_k) - goal in each row, and its slope."""
    scaled = x[:, None] * others
    excess = torch.logsumexp(scaled, 1) - goal
    slope = (torch.softmax(scaled, 1) * others).sum(1)
    return excess, slope.clamp(max=-1e-30)
