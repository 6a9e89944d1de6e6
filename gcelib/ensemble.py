"""Ensemble temperature scaling (ETS): a mixture of three softmaxes."""

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib.bins import Floats
from gcelib.calibrator import (
    TEMPERATURE,
    BufferRule,
    Calibrator,
    distances_below_top,
)
from gcelib.temperature import HIGHEST, LOWEST, one_for_equal_logits, warn_of_bound

#: The published range of the temperature.
_PUBLISHED_RANGE = (0.05, 5.0)
#: About so many logits choose the valley in which the minimum is sought.
_FEW = 500_000


class EnsembleTemperatureScaling(Calibrator):
    """w0 softmax(z / T) + w1 softmax(z) + w2 / K, as log-probabilities.

    T minimises the mean squared error of softmax(z / T), then the weights that of the
    mixture, on the simplex: the published objectives (its ``loss`` argument has no
    effect). Both minima are global (of logits hundreds of times too large, or of votes
    with zeros, T may be that of another valley, also with some thousand samples: look
    at the NLL beside that of ``ts_nll``): T by a grid over the published range
    [0.05, 5], and beyond it where it ends too early, then Newton's method; the weights
    by solving for every set of non-zero ones. The published local search can stay at
    T = 1 where logits are saturated. No prediction changes.

    It is an ensemble of temperatures of one network. For the mean of several networks'
    probabilities give all of them the same held-out samples: ``runs.load_logits`` of
    other seeds has other ones for validation.

    Attributes
    ----------
    temperature : () Tensor
        T.
    weights : (3,) Tensor
        w0, w1, w2; they sum to 1.

    References
    ----------
    Zhang, Kailkhura and Han, ICML 2020 (Mix-n-Match), util_calibration.py.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0]]).repeat(10, 1)  # says 0.88
    >>> labels = torch.tensor([0] * 7 + [1] * 3)  # is right 7 times of 10
    >>> ets = EnsembleTemperatureScaling().fit(logits, labels)
    >>> round(ets(logits).exp()[0, 0].item(), 6)
    0.7
    """

    temperature: Tensor
    weights: Tensor

    buffer_rules: ClassVar = {
        "temperature": TEMPERATURE,
        "weights": BufferRule(low=0, high=1, total=1),
    }
    keeps_predictions: ClassVar = True

    def __init__(self) -> None:
        super().__init__(temperature=1.0, weights=(0.0, 1.0, 0.0))

    def _fit(self, logits: Tensor, labels: Tensor) -> dict[str, npt.ArrayLike]:
        """The temperature first, then the weights at this temperature."""
        blocks = _blocks_of(logits, labels)
        temperature = _minimise_squared_error(logits, labels, blocks)
        gram, linear = _moments(blocks, temperature)
        errors = gram.diagonal() - 2 * linear
        if errors[0] >= errors[1]:  # T = 1 is at least as good
            temperature = 1.0
            parts = [1, 1, 2]  # softmax(z / T) is softmax(z) now
            gram = gram[parts][:, parts]
            linear = linear[parts]
        return {"temperature": temperature, "weights": _best_mixture(gram, linear)}

    def _calibrate(self, logits: Tensor) -> Tensor:
        """The logarithm of the mixture."""
        tempered = torch.log_softmax(logits / self.temperature.to(logits.dtype), 1)
        raw = torch.log_softmax(logits, 1)
        uniform = torch.full_like(raw, -math.log(self._n_classes))
        parts = torch.stack([tempered, raw, uniform], -1)
        return torch.logsumexp(parts + self.weights.log().to(logits.dtype), -1)


def _slope_and_curvature(
    blocks: list[tuple[Tensor, Tensor]], log_t: float
) -> tuple[float, float]:
    """Of the summed |softmax(z / T) - onehot|^2, as derivatives in log T."""
    x = math.exp(-log_t)
    slope = 0.0  # in x = 1 / T, as the curvature
    curvature = 0.0
    for distances, y in blocks:
        p = torch.softmax(distances * -x, 1)
        p_label = p.gather(1, y)[:, 0]
        mean = torch.linalg.vecdot(p, distances)
        lead = mean[:, None] - distances  # dp/dx = p * lead
        lead_label = lead.gather(1, y)[:, 0]
        p_lead = p * lead
        variance = torch.linalg.vecdot(p_lead, lead)
        squares = torch.linalg.vecdot(p, p)
        first = torch.linalg.vecdot(p, p_lead) - p_label * lead_label
        slope += 2 * float(first.sum())
        second = 2 * torch.linalg.vecdot(p_lead, p_lead) - variance * squares
        second -= p_label * (lead_label * lead_label - variance)
        curvature += 2 * float(second.sum())
    return -x * slope, x * x * curvature + x * slope


def _blocks_of(logits: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Distances in float64, in blocks that fit a core's cache, with their labels."""
    n_rows = max(1, (1 << 16) // logits.shape[1])
    parts = torch.split(logits, n_rows)
    labels_of_parts = torch.split(labels[:, None], n_rows)
    return [
        (distances_below_top(z.double()), y)
        for z, y in zip(parts, labels_of_parts, strict=True)
    ]


def _squared_error_at(blocks: list[tuple[Tensor, Tensor]], log_t: float) -> float:
    """The value alone, at a fraction of the cost."""
    value = 0.0
    for distances, y in blocks:
        p = torch.softmax(distances * -math.exp(-log_t), 1)
        squares = torch.linalg.vecdot(p, p)
        value += float((squares - 2 * p.gather(1, y)[:, 0]).sum())
    return value


def _minimise_squared_error(
    logits: Tensor, labels: Tensor, blocks: list[tuple[Tensor, Tensor]]
) -> float:
    """The temperature with the smallest mean squared error: a grid, then Newton.

    In a large set some samples choose the valley, and all of them the place in it.
    """
    if not any(bool(distances.any()) for distances, _ in blocks):
        return one_for_equal_logits()
    every = max(1, logits.numel() // _FEW)
    few = _blocks_of(logits[::every], labels[::every]) if every > 1 else blocks
    all_right = bool((logits.argmax(1) == labels).all())
    low, best, high = _valley(few, beyond_the_range=not all_right)
    log_t = _newton(few, low, high, best)
    if every > 1:
        log_t = _newton(blocks, low, high, log_t)
        if min(log_t - low, high - log_t) < 1e-3:  # these rows are not like the others
            low, best, high = _valley(blocks, beyond_the_range=not all_right)
            log_t = _newton(blocks, low, high, best)
    return math.exp(log_t)


def _valley(
    blocks: list[tuple[Tensor, Tensor]], *, beyond_the_range: bool
) -> tuple[float, float, float]:
    """The best log T of a grid between its neighbours, which enclose the minimum.

    The grid covers the published range, and goes on ``beyond_the_range`` as long as its
    first or last point is the best.
    """
    coldest, hottest = _PUBLISHED_RANGE
    grid = list(np.linspace(math.log(coldest), math.log(hottest), 25))
    values = [_squared_error_at(blocks, log_t) for log_t in grid]
    spacing = float(grid[1] - grid[0])
    best = int(np.argmin(values))
    while beyond_the_range and best in (0, len(grid) - 1):
        is_first = best == 0
        log_t = grid[best] + (-spacing if is_first else spacing)
        if not math.log(LOWEST) <= log_t <= math.log(HIGHEST):
            warn_of_bound("temperature", math.exp(grid[best]))
            break
        place = 0 if is_first else len(grid)
        grid.insert(place, log_t)
        values.insert(place, _squared_error_at(blocks, log_t))
        best = int(np.argmin(values))
    low = grid[max(best - 1, 0)]
    high = grid[min(best + 1, len(grid) - 1)]
    return low, grid[best], high


def _newton(
    blocks: list[tuple[Tensor, Tensor]], low: float, high: float, start: float
) -> float:
    """The minimum over log T in [low, high], by Newton's steps or halving."""
    log_t = start
    for _ in range(60):
        slope, curvature = _slope_and_curvature(blocks, log_t)
        if slope > 0:
            high = log_t
        else:
            low = log_t
        following = (low + high) / 2
        if curvature > 0:
            by_newton = log_t - slope / curvature
            if low <= by_newton <= high:
                following = by_newton
        step = abs(following - log_t)
        log_t = following
        if step < 1e-4 and curvature > 0:  # what is left is about its square
            break
    return log_t


def _moments(
    blocks: list[tuple[Tensor, Tensor]], temperature: float
) -> tuple[Floats, Floats]:
    """Mean products of softmax(z / T), softmax(z), 1 / K with each other and labels."""
    gram = np.zeros((3, 3))
    linear = np.zeros(3)
    n = sum(len(distances) for distances, _ in blocks)
    k = blocks[0][0].shape[1]
    gram[2, :] = n / k  # probabilities sum to 1
    gram[:, 2] = n / k
    linear[2] = n / k
    for distances, y in blocks:
        tempered = torch.softmax(-distances / temperature, 1)
        raw = torch.softmax(-distances, 1)
        gram[0, 0] += float(torch.linalg.vecdot(tempered, tempered).sum())
        gram[0, 1] += float(torch.linalg.vecdot(tempered, raw).sum())
        gram[1, 1] += float(torch.linalg.vecdot(raw, raw).sum())
        linear[0] += float(tempered.gather(1, y).sum())
        linear[1] += float(raw.gather(1, y).sum())
    gram[1, 0] = gram[0, 1]
    return gram / (n * k), linear / (n * k)


def _best_mixture(gram: Floats, linear: Floats) -> tuple[float, ...]:
    """The weights on the simplex with the smallest squared error of the mixture."""
    candidates = []
    for used in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
        weights = np.zeros(3)
        ones = np.ones((len(used), 1))
        # Lagrange's condition for weights that sum to 1
        system = np.block([[gram[np.ix_(used, used)], ones], [ones.T, 0]])
        solution = np.linalg.lstsq(system, np.append(linear[used], 1), rcond=None)[0]
        weights[used] = solution[:-1]
        if weights.min() >= 0:
            error = weights @ gram @ weights - 2 * weights @ linear
            candidates.append((error, tuple(weights / weights.sum())))
    return min(candidates)[1]
