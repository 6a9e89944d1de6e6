"""A scale and biases: calibrators that may favour or disfavour a class."""

from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib import _check
from gcelib.calibrator import BufferRule, Calibrator
from gcelib.temperature import temperature_by_nll


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
        n_classes = logits.shape[1]
        inverse_temperature = 1 / temperature_by_nll(logits, labels)
        if bool((logits.argmax(1) == labels).all()):
            scale = np.full(n_classes, inverse_temperature)
            return {"scale": scale, "bias": np.zeros(n_classes)}
        log_p = torch.log_softmax(logits.double(), 1)
        problem = _AffineProblem(
            inverse_temperature * log_p,
            labels,
            penalty=2 * n_classes * self.penalty,
            scale_of_each_class=self.scale_of_each_class,
        )
        parameters = problem.minimum()
        relative_scale = 1 + parameters[:-n_classes]
        return {
            "scale": (inverse_temperature * relative_scale).expand(n_classes).clone(),
            "bias": parameters[-n_classes:],
        }

    def _calibrate(self, logits: Tensor) -> Tensor:
        """Log-probabilities, scaled and shifted, each class for itself."""
        log_p = torch.log_softmax(logits, 1)
        return log_p * self.scale.to(logits.dtype) + self.bias.to(logits.dtype)


class _Point(NamedTuple):
    """Parameters (a, b), the penalised NLL, its gradient, and the probabilities."""

    parameters: Tensor
    value: float
    gradient: Tensor
    probs: Tensor


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
        here = self.point(torch.zeros(size, dtype=torch.float64))
        for _ in range(50):
            step = self.newton_step(here)
            decrease = float(here.gradient @ step)  # below 0
            following = self.lower_point(here, step, decrease)
            if following is None:  # no descent is left that rounding would show
                break
            here = following
            if -decrease < 1e-12 * (1 + abs(here.value)):
                break
        return here.parameters

    def lower_point(
        self, here: "_Point", step: Tensor, decrease: float
    ) -> "_Point | None":
        """The first point on the way to ``step`` that is low enough: Armijo's rule."""
        length = 1.0
        while length > 1e-6:
            there = self.point(here.parameters + length * step)
            if there.value <= here.value + 1e-4 * length * decrease:
                return there
            length /= 2
        return None

    def point(self, parameters: Tensor) -> "_Point":
        """What is known at (a, b)."""
        a = parameters[: -self.n_classes]
        b = parameters[-self.n_classes :]
        log_p = torch.log_softmax(self.z * (1 + a) + b, 1)
        nll = -float(log_p.gather(1, self.labels).sum())
        p = log_p.exp_()
        excess = p.scatter_add(1, self.labels, torch.full_like(p[:, :1], -1.0))
        return _Point(
            parameters=parameters,
            value=nll + self.penalty / 2 * float(parameters @ parameters),
            gradient=self.collect(excess) + self.penalty * parameters,
            probs=p,
        )

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

    def newton_step(self, here: "_Point") -> Tensor:
        """The step that the local parabola asks for, by conjugate gradients."""
        p = here.probs
        squares = torch.linalg.vecdot(p * self.z, self.z, dim=0)
        if self.n_scales == 1:
            squares = squares.sum()[None]
        units = 1 / (torch.cat([squares, p.sum(0)]) + self.penalty)
        step = torch.zeros_like(here.gradient)
        residual = -here.gradient
        scaled = units * residual
        direction = scaled
        size = float(residual @ scaled)
        if size == 0:  # equal logits, and labels as often as each other
            return step
        goal = 1e-12 * size
        for _ in range(200):
            curved = self.curve(p, direction)
            length = size / float(direction @ curved)
            step = step + length * direction
            residual = residual - length * curved
            scaled = units * residual
            previous_size = size
            size = float(residual @ scaled)
            if size <= goal:
                break
            direction = scaled + size / previous_size * direction
        return step


class BiasCalibration(_AffineScaling):
    """One temperature, and a bias for each class: z / T + b.

    Mends a model that favours a class, which no temperature can. The biases may change
    predictions. T and b minimise the mean NLL plus ``penalty`` * K / N times (a^2 +
    |b|^2), where 1 / T is (1 + a) times the inverse of the NLL temperature. A model
    that favours classes by several times what it knows has a large NLL temperature, and
    stays too unsure: at the end of the temperature's range, as a warning says, little
    more than the classes' shares is left.

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
    v is (1 + a) times the inverse of the NLL temperature; where that is large because
    the model favours classes, the result stays too unsure, as of ``BiasCalibration``.

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
