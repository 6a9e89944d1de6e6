"""Post-hoc calibrators and their registry.

Fitted on validation logits, they turn logits into calibrated logits. ``CALIBRATORS``
has a row for each; ``make_calibrator(name)`` builds one; what all share is in
``gcelib.calibrator``.
"""

import contextlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib import _check
from gcelib.ats import AdaptiveTemperatureScaling
from gcelib.calibrator import (
    TEMPERATURE,
    TIE,
    BufferRule,
    Calibrator,
    FloatArray,
    binned_error,
    confidence_of,
    count_below,
    distances_below_top,
    may_read_values,
    softmax_sums,
)

__all__ = [
    "ALL_CALIBRATORS",
    "CALIBRATORS",
    "AdaptiveTemperatureScaling",
    "BiasCalibration",
    "BrowserForm",
    "Calibrator",
    "CalibratorRow",
    "EnsembleTemperatureScaling",
    "IsotonicCalibration",
    "SplineCalibration",
    "StructuredMatrixScaling",
    "TemperatureScaling",
    "VectorScaling",
    "make_calibrator",
]

#: Where every search for a temperature ends.
_LOWEST = 1e-4
_HIGHEST = 1e4


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
            return {"temperature": _temperature_by_nll(logits, labels)}
        return {"temperature": _temperature_by_ece(logits, labels)}

    def _without_errors(self) -> str:
        """What each criterion makes of a set without errors."""
        if self.criterion == "nll":
            return "no temperature is the best and it stays 1"
        return "no temperature is the best, and the grid ends somewhere"

    def _calibrate(self, logits: Tensor) -> Tensor:
        """Every logit divided by T."""
        return logits / self.temperature.to(logits.dtype)


def _temperature_by_nll(logits: Tensor, labels: Tensor) -> float:
    """The temperature with the smallest NLL; 1, with a warning, where none is."""
    temperature = _minimise_nll(logits, labels)
    if temperature > _LOWEST * (1 + 1e-5):
        if temperature > _HIGHEST * (1 - 1e-5):
            _warn_of_bound("temperature", temperature)
        return temperature
    distances = distances_below_top(logits)
    if not bool(distances.any()):
        return _one_for_equal_logits()
    if bool((logits.argmax(1) == labels).all()):
        return 1.0  # ``fit`` has said so
    elif not bool(distances.gather(1, labels[:, None]).any()):
        what = "every label shares the largest logit of its sample with other classes"
    else:
        _warn_of_bound("temperature", temperature)
        return temperature
    _check.warn(f"logits: {what}, and it stays 1; look at the model or file")
    return 1.0


def _one_for_equal_logits() -> float:
    """Say that nothing can be fitted to constant rows; the temperature stays 1."""
    what = "the logits of each sample are all equal, so a temperature changes nothing"
    _check.warn(f"logits: {what}, and it stays 1; look at the model or file")
    return 1.0


def _warn_of_bound(name: str, value: float) -> None:
    """Say that a search ended where it may not go on."""
    _check.warn(
        f"{name}: ended at {value:g}, the end of its range, so it may want to go "
        "further; look whether labels and logits belong together, and at the logits' "
        "scale"
    )


def _minimise_nll(logits: Tensor, labels: Tensor) -> float:
    """Newton's method in log x, x = 1/T, within the range of temperatures.

    The slope of the NLL in x is the labels' mean distance below the top minus its
    expectation under x.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    rows = max(1, (1 << 17) // logits.shape[1])
    blocks = [
        distances_below_top(z) for z in torch.split(logits, rows)
    ]  # fit a core's cache
    target = 0.0
    for distances, y in zip(blocks, torch.split(labels, rows), strict=True):
        target += float(distances.gather(1, y[:, None]).double().sum())
    if target == 0:
        return _LOWEST
    low = 1 / _HIGHEST
    high = 1 / _LOWEST
    scratch = torch.empty_like(blocks[0])  # fresh memory for every block would be slow
    x = 1.0
    if len(labels) > 1000:
        x = 1 / _minimise_nll(logits[::16], labels[::16])  # a cheap start
    for _ in range(100):
        slope = target
        curvature = 0.0
        for distances in blocks:
            weights = torch.mul(distances, -x, out=scratch[: len(distances)]).exp_()
            mass = weights.sum(1)
            mean = weights.mul_(distances).sum(1) / mass
            square = weights.mul_(distances).sum(1) / mass
            slope -= float(mean.double().sum())
            curvature += float((square - mean * mean).sum())
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


def _temperature_by_ece(logits: Tensor, labels: Tensor) -> float:
    """The published search, and what lies beyond the ends of its grid."""
    distances = distances_below_top(logits.double())
    if not bool(distances.any()):
        return _one_for_equal_logits()
    correct = (logits.argmax(1) == labels).double().numpy()

    def best_of(grid: FloatArray) -> tuple[float, float]:
        sums = softmax_sums(distances, 1 / grid)
        errors = np.array([binned_error(c, c - correct, 15) for c in 1 / sums])
        first = int(np.argmax(errors <= errors.min() + TIE))
        return float(grid[first]), float(errors[first])

    grid = np.cumsum(
        np.full(100, 0.1)
    )  # added up as published: 2.5 is 2.500000000000001
    temperature, error = best_of(grid)
    if grid[0] < temperature < grid[-1]:
        return temperature
    if correct.all():
        return temperature  # ``fit`` has said so
    factor = 0.1 if temperature == grid[0] else 10.0
    for _ in range(3):
        grid = grid * factor
        candidate, candidate_error = best_of(grid)
        if candidate_error >= error - TIE:
            break
        temperature, error = candidate, candidate_error
        fine_enough = temperature > 10 * grid[0] * (1 + 1e-9)
        if temperature < grid[-1] and (factor > 1 or fine_enough):
            break
    _check.warn(
        f"temperature: the published grid ends at {0.1 if factor < 1 else 10}, so the "
        f"search went on, to {temperature:.3g}; look whether labels and logits belong "
        "together, and at the logits' scale"
    )
    return temperature


class EnsembleTemperatureScaling(Calibrator):
    """w0 softmax(z / T) + w1 softmax(z) + w2 / K, as log-probabilities.

    T minimises the mean squared error of softmax(z / T), then the weights that of the
    mixture, on the simplex: the published objectives (its ``loss`` argument has no
    effect). Both minima are global: T by a grid over the published range [0.05, 5],
    and beyond it where it ends too early, then Newton's method; the weights by solving
    for every set of non-zero ones. The published local search can stay at T = 1 where
    logits are saturated. No prediction changes.

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
            gram, linear = gram[[1, 1, 2]][:, [1, 1, 2]], linear[[1, 1, 2]]
        return {"temperature": temperature, "weights": _best_mixture(gram, linear)}

    def _calibrate(self, logits: Tensor) -> Tensor:
        """The logarithm of the mixture."""
        tempered = torch.log_softmax(logits / self.temperature.to(logits.dtype), 1)
        raw = torch.log_softmax(logits, 1)
        uniform = torch.full_like(raw, -math.log(self._n_classes))
        parts = torch.stack([tempered, raw, uniform], -1)
        return torch.logsumexp(parts + self.weights.log().to(logits.dtype), -1)


#: The published range of ETS's temperature.
_ETS_RANGE = (0.05, 5.0)


def _slope_and_curvature(
    blocks: list[tuple[Tensor, Tensor]], log_t: float
) -> tuple[float, float]:
    """Of the summed |softmax(z / T) - onehot|^2, as derivatives in log T."""
    x = math.exp(-log_t)
    slope = curvature = 0.0  # in x = 1 / T
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
    rows = max(1, (1 << 16) // logits.shape[1])
    pairs = zip(
        torch.split(logits, rows), torch.split(labels[:, None], rows), strict=True
    )
    return [(distances_below_top(z.double()), y) for z, y in pairs]


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
        return _one_for_equal_logits()
    every = max(1, logits.numel() // 500_000)
    few = _blocks_of(logits[::every], labels[::every]) if every > 1 else blocks
    grid = list(np.linspace(math.log(_ETS_RANGE[0]), math.log(_ETS_RANGE[1]), 25))
    values = [_squared_error_at(few, log_t) for log_t in grid]
    spacing = float(grid[1] - grid[0])
    all_right = bool((logits.argmax(1) == labels).all())
    while (best := int(np.argmin(values))) in (0, len(grid) - 1) and not all_right:
        log_t = grid[best] + (-spacing if best == 0 else spacing)
        if not math.log(_LOWEST) <= log_t <= math.log(_HIGHEST):
            _warn_of_bound("temperature", math.exp(grid[best]))
            break
        place = 0 if best == 0 else len(grid)
        grid.insert(place, log_t)
        values.insert(place, _squared_error_at(few, log_t))
    low = grid[max(best - 1, 0)]
    high = grid[min(best + 1, len(grid) - 1)]
    log_t = _newton(few, low, high, grid[best])
    if few is not blocks:
        log_t = _newton(blocks, low, high, log_t)
    return math.exp(log_t)


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
        if curvature > 0 and low <= log_t - slope / curvature <= high:
            following = log_t - slope / curvature
        step = abs(following - log_t)
        log_t = following
        if step < 1e-4 and curvature > 0:  # what is left is about its square
            break
    return log_t


def _moments(
    blocks: list[tuple[Tensor, Tensor]], temperature: float
) -> tuple[FloatArray, FloatArray]:
    """Mean products of softmax(z / T), softmax(z), 1 / K with each other and labels."""
    gram = np.zeros((3, 3))
    linear = np.zeros(3)
    n = sum(len(distances) for distances, _ in blocks)
    k = blocks[0][0].shape[1]
    gram[2, :] = gram[:, 2] = n / k  # probabilities sum to 1
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


def _best_mixture(gram: FloatArray, linear: FloatArray) -> tuple[float, ...]:
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


class _AffineScaling(Calibrator):
    """scale * log softmax(z) + bias for each class, by penalised NLL.

    The scale is (1 + a) times the inverse of the NLL temperature. Minimised is the mean
    NLL plus ``penalty`` * K / N times the sum of all a^2 and b^2, so that a class which
    no label names, and samples that a bias could separate, have finite answers, and
    much data outweighs it. The objective is strictly convex; Newton's method in float64
    solves it.
    """

    scale: Tensor
    bias: Tensor

    buffer_rules: ClassVar = {
        "scale": BufferRule(low=-1e6, high=1e6, length="classes"),
        "bias": BufferRule(low=-1e6, high=1e6, length="classes"),
    }
    #: One a for all classes, or one for each.
    scale_of_each_class: ClassVar[bool]

    def __init__(self, penalty: float = 1.0) -> None:
        super().__init__(scale=np.ones(2), bias=np.zeros(2))
        self.penalty = _check.number("penalty", penalty, 0, open_low=True)

    def _fit(self, logits: Tensor, labels: Tensor) -> dict[str, npt.ArrayLike]:
        """One temperature first, then everything else around it."""
        k = logits.shape[1]
        inverse_temperature = 1 / _temperature_by_nll(logits, labels)
        if bool((logits.argmax(1) == labels).all()):
            return {"scale": np.full(k, inverse_temperature), "bias": np.zeros(k)}
        log_p = torch.log_softmax(logits.double(), 1)
        problem = _AffineProblem(
            inverse_temperature * log_p,
            labels,
            penalty=2 * k * self.penalty,
            scale_of_each_class=self.scale_of_each_class,
        )
        parameters = problem.minimum()
        scale = inverse_temperature * (1 + parameters[:-k])
        return {"scale": scale.expand(k).clone(), "bias": parameters[-k:]}

    def _calibrate(self, logits: Tensor) -> Tensor:
        """Log-probabilities, scaled and shifted, each class for itself."""
        log_p = torch.log_softmax(logits, 1)
        return log_p * self.scale.to(logits.dtype) + self.bias.to(logits.dtype)


class _AffineProblem:
    """Penalised NLL of softmax((1 + a) * z + b) as a function of the vector (a, b).

    Convex and smooth, so Newton's method finds the minimum; its linear systems, as
    large as twice the number of classes, are solved by conjugate gradients.
    """

    def __init__(
        self, z: Tensor, labels: Tensor, penalty: float, scale_of_each_class: bool
    ) -> None:
        self.z = z
        self.labels = labels[:, None]
        self.penalty = penalty
        self.n_classes = z.shape[1]
        self.n_scales = self.n_classes if scale_of_each_class else 1

    def minimum(self) -> Tensor:
        """The parameters with the smallest value, to about 1e-8."""
        size = self.n_scales + self.n_classes
        at = torch.zeros(size, dtype=torch.float64)
        value, gradient, p = self.derivatives(at)
        for _ in range(50):
            step = self.newton_step(p, gradient)
            decrease = float(gradient @ step)  # below 0
            length = 1.0
            while length > 1e-6:
                following = at + length * step
                new_value, new_gradient, new_p = self.derivatives(following)
                if new_value <= value + 1e-4 * length * decrease:
                    break
                length /= 2
            else:  # no descent is left that rounding would show
                return at
            at, value, gradient, p = following, new_value, new_gradient, new_p
            if -decrease < 1e-12 * (1 + abs(value)):
                return at
        return at

    def derivatives(self, at: Tensor) -> tuple[float, Tensor, Tensor]:
        """The value and the gradient at (a, b), and the probabilities there."""
        a = at[: -self.n_classes]
        b = at[-self.n_classes :]
        log_p = torch.log_softmax(self.z * (1 + a) + b, 1)
        nll = -float(log_p.gather(1, self.labels).sum())
        p = log_p.exp_()
        excess = p.scatter_add(1, self.labels, torch.full_like(p[:, :1], -1.0))
        gradient = self.collect(excess) + self.penalty * at
        return nll + self.penalty / 2 * float(at @ at), gradient, p

    def collect(self, per_logit: Tensor) -> Tensor:
        """Derivatives in the parameters from derivatives in the logits (N, K)."""
        by_scale = torch.linalg.vecdot(per_logit, self.z, dim=0)
        if self.n_scales == 1:
            by_scale = by_scale.sum()[None]
        return torch.cat([by_scale, per_logit.sum(0)])

    def curve(self, p: Tensor, direction: Tensor) -> Tensor:
        """The Hessian at probabilities ``p`` times a direction."""
        k = self.n_classes
        moved = self.z * direction[:-k] + direction[-k:]
        mean = torch.linalg.vecdot(p, moved)[:, None]
        return self.collect(p * (moved - mean)) + self.penalty * direction

    def newton_step(self, p: Tensor, gradient: Tensor) -> Tensor:
        """The step that the local parabola asks for, by conjugate gradients."""
        squares = torch.linalg.vecdot(p * self.z, self.z, dim=0)
        if self.n_scales == 1:
            squares = squares.sum()[None]
        units = 1 / (torch.cat([squares, p.sum(0)]) + self.penalty)
        step = torch.zeros_like(gradient)
        residual = -gradient
        scaled = units * residual
        direction = scaled
        size = float(residual @ scaled)
        goal = 1e-12 * size
        for _ in range(200):
            curved = self.curve(p, direction)
            length = size / float(direction @ curved)
            step = step + length * direction
            residual = residual - length * curved
            scaled = units * residual
            previous, size = size, float(residual @ scaled)
            if size <= goal:
                break
            direction = scaled + size / previous * direction
        return step


class BiasCalibration(_AffineScaling):
    """One temperature, and a bias for each class: z / T + b.

    Mends a model that favours a class, which no temperature can. The biases may change
    predictions. T and b minimise the mean NLL plus ``penalty`` * K / N times (a^2 +
    |b|^2), where 1 / T is (1 + a) times the inverse of the NLL temperature.

    Parameters
    ----------
    penalty : float, default 1.0
        Larger keeps the biases nearer to 0; it fades as samples become many.

    Attributes
    ----------
    scale : (K,) Tensor
        1 / T, the same for all classes.
    bias : (K,) Tensor
        b, in nats.

    References
    ----------
    Guo et al., ICML 2017 (vector scaling, here with one scale).

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> truth = torch.randn(2000, 3, generator=generator)
    >>> labels = torch.multinomial(truth.softmax(1), 1, generator=generator)[:, 0]
    >>> favoured = truth + torch.tensor([0.0, 0.0, 2.0])  # sees class 2 everywhere
    >>> bias = BiasCalibration().fit(favoured, labels).bias
    >>> round(float(bias[2] - bias[:2].mean()))
    -2
    """

    scale_of_each_class: ClassVar = False


class VectorScaling(_AffineScaling):
    """A scale and a bias for each class: v * log softmax(z) + b.

    Predictions may change. The logarithm of the softmax, so that a number added to all
    logits of a row, which carries no information, changes nothing.

    v and b minimise the mean NLL plus ``penalty`` * K / N times (|a|^2 + |b|^2), where
    v is (1 + a) times the inverse of the NLL temperature.

    Parameters
    ----------
    penalty : float, default 1.0
        Larger keeps scales nearer to the temperature's and biases nearer to 0; it
        fades as samples become many.

    Attributes
    ----------
    scale : (K,) Tensor
        v.
    bias : (K,) Tensor
        b, in nats.

    References
    ----------
    Guo et al., ICML 2017. The penalty's form: Berta et al., AISTATS 2026.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> logits = torch.randn(500, 3, generator=generator)
    >>> labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    >>> VectorScaling().fit(logits, labels).scale.shape
    torch.Size([3])
    """

    scale_of_each_class: ClassVar = True


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
        gap = np.cumsum(np.repeat(accuracy - scores, counts)) / len(group)
        u = np.linspace(0, 1, len(group))[:, None]
        knots = np.linspace(0, 1, self.knots)[:-1]
        cubes = np.maximum(u - knots, 0) ** 3 / (1 - knots)
        squares = np.maximum(u - knots, 0) ** 2 / (1 - knots)
        # Differences to the last knot, so that there is no curvature at 0 and 1.
        basis = np.hstack([np.ones_like(u), u, cubes[:, :-1] - cubes[:, -1:]])
        slope_of_cubes = 3 * (squares[:, :-1] - squares[:, -1:])
        slopes = np.hstack([np.zeros_like(u), np.ones_like(u), slope_of_cubes])
        moves = slopes @ np.linalg.lstsq(basis, gap, rcond=None)[0]
        mean_moves = np.bincount(np.sort(group), moves) / counts
        return {"scores": scores, "values": scores + mean_moves}

    def _check_state(self, stored: Mapping[str, Tensor]) -> None:
        """Scores and values must be pairs."""
        shapes = {tuple(stored[n].shape) for n in ("scores", "values") if n in stored}
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


def interpolate(at: Tensor, points: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear through (points, values), constant outside; ``points`` sorted.

    All three may have leading dimensions in common: a curve for each row of ``at``.

    Examples
    --------
    >>> points, values = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 4.0])
    >>> interpolate(torch.tensor([-1.0, 0.5, 3.0]), points, values)
    tensor([2., 3., 4.])
    """
    right = count_below(points, at.detach()).clamp(max=points.shape[-1] - 1)
    left = (right - 1).clamp(min=0)
    before = points.gather(-1, left)
    width = (points.gather(-1, right) - before).clamp(min=1e-300)
    weight = ((at - before) / width).clamp(0, 1)
    return torch.lerp(values.gather(-1, left), values.gather(-1, right), weight)


#: The range of the inverse temperature of a single sample.
_SLOWEST = 1e-12
_FASTEST = 1e8
#: Farther below the top than any logit: what is no rival. Times x it stays finite.
_NO_RIVAL = -1e299


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


class IsotonicCalibration(Calibrator):
    """One isotonic regression for each class against the rest, rows made to sum to 1.

    scikit-learn fits them (``sklearn.isotonic``); a fitted state applies without it.
    Each p_k becomes a step-wise linear, never falling function of itself. Those that
    come out as 0 get ``floor``, since log 0 would make one surprise infinitely bad.
    Predictions and order may change. The output is log-probabilities.

    Parameters
    ----------
    floor : float, default 1e-6
        The smallest probability before rows are made to sum to 1.

    Attributes
    ----------
    points, values : (K, M) Tensor
        The knots of each class; short rows repeat their last.

    References
    ----------
    Zadrozny and Elkan, KDD 2002.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0]]).repeat(50, 1)  # says 0.88
    >>> labels = (torch.arange(50) % 5 == 0).long()  # is right 4 times of 5
    >>> isotonic = IsotonicCalibration().fit(logits, labels)
    >>> round(isotonic(logits).exp()[0, 0].item(), 3)
    0.8
    """

    points: Tensor
    values: Tensor

    buffer_rules: ClassVar = {
        "points": BufferRule(low=0, high=1, length="data"),
        "values": BufferRule(low=0, high=1, length="data"),
    }

    def __init__(self, floor: float = 1e-6) -> None:
        super().__init__(points=[[0.0, 1.0]] * 2, values=[[0.0, 1.0]] * 2)
        self.floor = _check.number("floor", floor, 0, 0.01, open_low=True)

    def _fit(self, logits: Tensor, labels: Tensor) -> dict[str, npt.ArrayLike]:
        """One regression a class, by scikit-learn."""
        with _needed("isotonic", "scikit-learn"):
            from sklearn.isotonic import IsotonicRegression

        probs = logits.double().softmax(1).numpy()
        points: list[FloatArray] = []
        values: list[FloatArray] = []
        for k in range(logits.shape[1]):
            regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
            regression.fit(probs[:, k], (labels == k).double().numpy())
            points.append(regression.X_thresholds_)
            values.append(regression.y_thresholds_)
        longest = max(len(p) for p in points)

        def padded(curves: list[FloatArray]) -> FloatArray:
            return np.stack([np.pad(c, (0, longest - len(c)), "edge") for c in curves])

        return {"points": padded(points), "values": padded(values)}

    def _check_state(self, stored: Mapping[str, Tensor]) -> None:
        """Points and values must be pairs, sorted within each class."""
        shapes = {tuple(stored[n].shape) for n in self.buffer_rules if n in stored}
        if len(shapes) > 1 or any(len(s) != 2 or s[1] == 0 for s in shapes):
            problem = f"and values have shapes {sorted(shapes)}"
            _check.fail("points", problem, "they must be pairs, at least one a class")
        n_classes = int(stored["n_classes"]) if "n_classes" in stored else 0
        if n_classes and any(s[0] != n_classes for s in shapes):
            problem = f"are those of another number of classes than {n_classes}"
            _check.fail(
                "points", problem, "load a state that a fitted calibrator wrote"
            )
        if "points" in stored and bool((stored["points"].diff(dim=1) < 0).any()):
            _check.fail("points", "are not sorted", "load a whole state")

    def _calibrate(self, logits: Tensor) -> Tensor:
        """Each probability through its class's function, then normalised."""
        probs = logits.double().softmax(1)
        moved = interpolate(probs.T, self.points, self.values).T.clamp(min=self.floor)
        return (moved / moved.sum(1, keepdim=True)).log().to(logits.dtype)


class StructuredMatrixScaling(Calibrator):
    """A temperature, then W z + b with a penalised matrix: probmetrics' ``sms``.

    probmetrics fits it; a fitted state applies without it. Predictions may change. The
    output is logits.

    Attributes
    ----------
    temperature : () Tensor
        T, fitted first.
    uniform : () Tensor
        The share of equal probabilities that is mixed in after T, 1 / (N + 1).
    weight : (K, K) Tensor
        W.
    bias : (K,) Tensor
        b.

    References
    ----------
    Berta, Holzmüller, Jordan and Bach, AISTATS 2026.

    Examples
    --------
    >>> calibrator = StructuredMatrixScaling()  # needs probmetrics to fit
    >>> calibrator.fitted
    False
    """

    temperature: Tensor
    uniform: Tensor
    weight: Tensor
    bias: Tensor

    buffer_rules: ClassVar = {
        "temperature": TEMPERATURE,
        "uniform": BufferRule(low=0, high=1),
        "weight": BufferRule(low=-1e6, high=1e6, length="classes"),
        "bias": BufferRule(low=-1e6, high=1e6, length="classes"),
    }

    def __init__(self) -> None:
        super().__init__(
            temperature=1.0, uniform=0.0, weight=np.eye(2), bias=[0.0, 0.0]
        )

    def _fit(self, logits: Tensor, labels: Tensor) -> dict[str, npt.ArrayLike]:
        """What probmetrics finds from the probabilities, which is all it takes."""
        with _needed("sms", "probmetrics numba"):
            from probmetrics.calibrators import get_calibrator

        probs = logits.double().softmax(1).numpy()
        with _default_dtype(torch.float32), torch.enable_grad():
            fitted = get_calibrator("sms", sms_print_init_info=False)
            fitted.fit(probs, labels.numpy())
        inverse_temperature = float(fitted.ts_.cal_.invtemp_)
        return {
            "temperature": 1 / inverse_temperature,
            "uniform": 1 / (len(labels) + 1),
            "weight": fitted.W_[:, :-1].astype(np.float64),
            "bias": fitted.W_[:, -1].astype(np.float64),
        }

    def _calibrate(self, logits: Tensor) -> Tensor:
        """In float64, whose products no autocast rounds."""
        tempered = torch.softmax(logits.double() / self.temperature, 1)
        mixed = (1 - self.uniform) * tempered + self.uniform / self._n_classes
        smallest = float(np.finfo(np.float32).tiny)
        log_p = mixed.clamp(min=smallest).log()
        return (log_p @ self.weight.T + self.bias).to(logits.dtype)


@contextlib.contextmanager
def _needed(calibrator: str, library: str) -> Iterator[None]:
    """Say what to install if a calibrator's library is missing."""
    try:
        yield
    except ImportError as error:
        cure = f"pip install {library}"
        problem = (
            f"{calibrator!r} is fitted by {library}, which does not import ({error})"
        )
        raise ModuleNotFoundError(f"calibrator: {problem}; {cure}") from error


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Another default dtype for a library that relies on it, put back afterwards."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# --- registry ------------------------------------------------------------------------


@dataclass(frozen=True)
class BrowserForm:
    """What an engine without Python needs in order to apply a fitted calibrator.

    Parameters
    ----------
    formula : str
        ``"temperature"``: z / T. ``"mixture"``: w0 softmax(z / T) + w1 softmax(z) +
        w2 / K. ``"binned_temperature"``: z / T_m, m the number of inner thresholds
        below the uncalibrated confidence. ``"spline"``: the row's temperature at which
        its top probability is the interpolated score. ``"affine"``: scale *
        log softmax(z) + bias.
        ``"isotonic"``: each p_k interpolated in its class's row of points and values,
        at least ``floor``, then made to sum to 1. ``"matrix"``: W log((1 - u)
        softmax(z / T) + u / K) + b.
    buffers : tuple of str
        The buffers in the formula.
    options : tuple of str
        The attributes in the formula.
    """

    formula: str
    buffers: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class CalibratorRow:
    """One calibrator of ``CALIBRATORS``.

    Parameters
    ----------
    label : str
        How it reads in tables and figures.
    build : type of Calibrator
        The class.
    browser : BrowserForm, optional
        How to apply it without Python; None (default): Python alone can, and the
        explorers that answer without Python do not offer it.
    options : mapping
        Options of the constructor that this row fixes, unless a caller sets them.
    keeps_order : bool
        True if it keeps the order of all classes in every row, up to rounding.
    keeps_predictions : bool
        True if the predicted class of no row changes.
    needs : str or None
        The optional library that fits it, as pip calls it.
    measured_by_fit : bool
        True if every training run stores its metrics: those that the paper compares.
    of_confidence : str or None
        What it is where of each sample only the confidence c of the predicted class is
        known, the two classes being *wrong* and *right* with the probabilities 1 - c
        and c. None if it does not act on c alone: it would bin c and 1 - c together,
        or look at the other classes.
    """

    label: str
    build: Callable[..., Calibrator]
    browser: BrowserForm | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    keeps_order: bool = True
    keeps_predictions: bool = True
    needs: str | None = None
    measured_by_fit: bool = False
    of_confidence: str | None = None

    @property
    def available(self) -> bool:
        """True if the library that it needs is installed."""
        modules = _MODULES_OF[self.needs] if self.needs else ()
        return all(importlib.util.find_spec(module) for module in modules)


#: probmetrics imports numba without requiring it.
_MODULES_OF = {
    "scikit-learn": ("sklearn",),
    "probmetrics numba": ("probmetrics", "numba"),
}
_TEMPERATURE_FORM = BrowserForm("temperature", ("temperature",))
_BINNED_FORM = BrowserForm("binned_temperature", ("temperatures", "thresholds"))
_AFFINE_FORM = BrowserForm("affine", ("scale", "bias"))

#: Every calibrator, a row each; a state can be loaded into each of them.
ALL_CALIBRATORS: dict[str, CalibratorRow] = {
    "ts_nll": CalibratorRow(
        "TS (NLL)",
        TemperatureScaling,
        _TEMPERATURE_FORM,
        options={"criterion": "nll"},
        measured_by_fit=True,
        of_confidence="temperature of the odds",
    ),
    "ts_ece": CalibratorRow(
        "TS (ECE)",
        TemperatureScaling,
        _TEMPERATURE_FORM,
        options={"criterion": "ece"},
        measured_by_fit=True,
    ),
    "ets": CalibratorRow(
        "ETS",
        EnsembleTemperatureScaling,
        BrowserForm("mixture", ("temperature", "weights")),
        measured_by_fit=True,
        of_confidence="ETS of the odds",
    ),
    "spline": CalibratorRow(
        "Spline",
        SplineCalibration,
        BrowserForm("spline", ("scores", "values")),
        measured_by_fit=True,
    ),
    "ats": CalibratorRow(
        "ATS", AdaptiveTemperatureScaling, _BINNED_FORM, measured_by_fit=True
    ),
    "ats_converged": CalibratorRow(
        "ATS, converged",
        AdaptiveTemperatureScaling,
        _BINNED_FORM,
        options={"rounds": None},
        measured_by_fit=True,
    ),
    "bias": CalibratorRow(
        "TS + bias",
        BiasCalibration,
        _AFFINE_FORM,
        keeps_order=False,
        keeps_predictions=False,
        of_confidence="Platt scaling",
    ),
    "vector": CalibratorRow(
        "Vector",
        VectorScaling,
        _AFFINE_FORM,
        keeps_order=False,
        keeps_predictions=False,
        of_confidence="beta calibration",
    ),
    "isotonic": CalibratorRow(
        "Isotonic",
        IsotonicCalibration,
        BrowserForm("isotonic", ("points", "values"), ("floor",)),
        keeps_order=False,
        keeps_predictions=False,
        needs="scikit-learn",
        of_confidence="isotonic regression",
    ),
    "sms": CalibratorRow(
        "SMS",
        StructuredMatrixScaling,
        BrowserForm("matrix", ("temperature", "uniform", "weight", "bias")),
        keeps_order=False,
        keeps_predictions=False,
        needs="probmetrics numba",
    ),
}

#: Those that can be fitted here: all but those whose optional library is missing.
CALIBRATORS: dict[str, CalibratorRow] = {
    name: row for name, row in ALL_CALIBRATORS.items() if row.available
}


def make_calibrator(name: str, /, **options: Any) -> Calibrator:
    """An unfitted calibrator.

    Parameters
    ----------
    name : str
        A key of ``CALIBRATORS``. ``"isotonic"`` and ``"sms"`` are built, and load a
        state, also where the library that fits them is missing.
    **options
        Options of its constructor.

    Returns
    -------
    Calibrator
        To be fitted, or to load a state.

    Raises
    ------
    ValueError, TypeError
        For an unknown name (``calibrator: ...``), an unknown option
        (``calibrator_options: ...``) or an impossible value.

    Examples
    --------
    >>> make_calibrator("ats", n_bins=10).n_bins
    10
    """
    row = ALL_CALIBRATORS[_check.choice("calibrator", name, list(ALL_CALIBRATORS))]
    known = inspect.signature(row.build).parameters
    _check.known_keys("calibrator_options", options, known)
    return row.build(**{**row.options, **options})
