"""Spline calibration: a smooth curve through the gap of the top-1 confidence."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gcelib import _check
from gcelib.bins import Floats
from gcelib.calibrator import (
    BufferRule,
    Calibrator,
    confidence_of,
    interpolate,
    with_confidence,
)


class SplineCalibration(Calibrator):
    """Top-1 confidence s becomes s + h'(u), u its percentile; classes keep their order.

    h(u), a natural cubic spline with ``knots`` equally spaced knots, is fitted by least
    squares to the cumulative gap (hits - sum of confidences) / N of the samples sorted
    by confidence; those equal to 7 digits share their mean. New scores are looked up by
    linear interpolation (the published code swaps its two weights), constant outside.

    The published code moves the top-1 score alone, so that a runner-up may overtake it.
    Here every row keeps its order and sums to 1. A score that rises takes from the
    other classes in proportion; a row whose score falls gets the temperature at which
    its top-1 probability is the new score. Scores are kept between 1 / K and 1, 1e-7
    away from 1; where classes share the largest logit, none is lifted above the others.
    The output is log-probabilities.

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
    >>> import torch
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
        """Each row such that its top class has the new score."""
        moved = interpolate(confidence_of(logits), self.scores, self.values)
        return with_confidence(logits, moved)


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
