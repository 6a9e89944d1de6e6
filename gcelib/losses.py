"""The training losses that GCE's paper compares, and the registry of all of them.

Every loss is an ``nn.Module`` called as ``loss(logits, labels)``, so it replaces
``nn.CrossEntropyLoss``. ``logits`` is (N, K) floating point, N >= 1, K >= 2; ``labels``
is (N,) integer in [0, K). ``ce``, ``brier`` and ``gce`` also take soft targets:
floating point (N, K), rows that sum to 1. ``reduction`` is ``"mean"`` (default),
``"sum"`` or ``"none"``. All work in log space, in the logits' dtype but at least
float32, also under autocast; so is the result. A logit of -inf is a probability of 0,
as :class:`gcelib.GCELoss` explains. Malformed input raises ``ValueError`` or
``TypeError``.

"The paper" is Zhan, Zhou and Shen, arXiv 2604.06689 (2026). p = softmax(logits); t is
the *target probability* p[i, y_i] of sample i.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gcelib import _check
from gcelib.gce import GCELoss, GroupLoss, ProcessGroup, gce_log_ratio
from gcelib.loss_base import (
    BEFORE_SOFTMAX,
    FOREIGN_OPTIONS,
    NO_LABEL,
    Loss,
    label_nll,
    may_hold_minus_infinity,
    power,
)

__all__ = [
    "DFL_GAMMA",
    "LOSSES",
    "AdaFocalLoss",
    "BrierLoss",
    "CrossEntropyLoss",
    "DualFocalLoss",
    "FLSDLoss",
    "FocalLoss",
    "GCELoss",
    "Loss",
    "LossRow",
    "MMCELoss",
    "gce_log_ratio",
    "make_loss",
]


class CrossEntropyLoss(Loss):
    """Negative log-likelihood -log t, exactly as ``nn.CrossEntropyLoss``.

    Only of soft targets with a logit of -inf is the value another one: 0 log 0 is 0
    here, and NaN there.

    Parameters
    ----------
    label_smoothing : float, default 0
        alpha in [0, 1]: targets become (1 - alpha) target + alpha / K. ``ce_ls`` and
        ``gce_ls`` take 0.05: the paper gives no alpha; "smoothing_0.05" is in file
        names of the code it builds on (torrvision/focal_calibration).
    reduction : {"mean", "sum", "none"}, default "mean"
    ignore_index : int, optional
        Samples with this label are left out.

    Raises
    ------
    ValueError, TypeError
        If an option is malformed; the message begins with its name.

    Examples
    --------
    >>> CrossEntropyLoss()(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    tensor(0.1269)
    """

    soft_targets = True

    def __init__(
        self,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction, ignore_index=ignore_index)
        self.label_smoothing = _check.number("label_smoothing", label_smoothing, 0, 1)

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The reduced loss of checked float32 or float64 logits.

        Parameters
        ----------
        logits : (N, K) float32 or float64 tensor
        labels : (N,) int64 tensor, or soft targets (N, K) in the logits' dtype

        Returns
        -------
        scalar tensor, or (N,) with ``reduction="none"``
        """
        some_have_no_mass = labels.is_floating_point() and self.label_smoothing == 0
        if some_have_no_mass and may_hold_minus_infinity(logits):
            # A class without mass may have any logit, -inf too.
            log_probs = F.log_softmax(logits, dim=1).masked_fill(labels == 0, 0)
            cells = log_probs * labels
            if self.reduction == "none":
                return -cells.sum(1)
            total = -cells.sum()  # all cells at once, as PyTorch adds them up
            return total / len(labels) if self.reduction == "mean" else total
        return F.cross_entropy(
            logits,
            labels,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
            ignore_index=NO_LABEL,
        )


class BrierLoss(Loss):
    """Squared distance between the probabilities and the one-hot or soft target.

    *Summed* over the classes: 0 to 2 for each sample.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
    ignore_index : int, optional
        Samples with this label are left out.

    Raises
    ------
    ValueError, TypeError
        If an option is malformed; the message begins with its name.

    Examples
    --------
    >>> BrierLoss()(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
    tensor(0.5000)
    """

    soft_targets = True

    # Repeated, because inspect.signature would find the base's __new__ first.
    def __init__(
        self, reduction: str = "mean", *, ignore_index: int | None = None
    ) -> None:
        super().__init__(reduction, ignore_index=ignore_index)

    def per_sample(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """The losses of the samples.

        Parameters
        ----------
        log_probs : (N, K) float32 or float64 tensor
        labels : (N,) int64 tensor, or soft targets (N, K) in the same dtype

        Returns
        -------
        (N,) tensor, in [0, 2]
        """
        probs = log_probs.exp()
        if labels.is_floating_point():
            return (probs - labels).square().sum(1)
        minus_one = probs.new_full((len(probs), 1), -1)
        return probs.scatter_add(1, labels[:, None], minus_one).square().sum(1)


class MMCELoss(Loss):
    """Cross-entropy + ``mmce_weight`` x the weighted maximum mean calibration error.

    As torrvision/focal_calibration trains it (Losses/mmce.py): with top-1 confidences
    c, m right (R) and n wrong (W) predictions, the kernel k = exp(-|c - c'| / 0.4), and
    means over pairs of samples, MMCE is 0 if m or n is 0, else the root of
    mean_RR[(1-c)(1-c')k] / (m^2 + 1e-5) + mean_WW[c c' k] / (n^2 + 1e-5) - 2
    mean_RW[(1-c) c' k] / (mn + 1e-5) + 1e-10. So that code divides by the counts twice,
    which makes the term small; we keep that and its weight.

    MMCE belongs to the batch, of each process by itself: reduction ``"sum"`` is N times
    the mean (the published loop), ``"none"`` is refused. Memory is O(N^2).

    Parameters
    ----------
    mmce_weight : float, default 2
        >= 0.
    reduction : {"mean", "sum"}, default "mean"
    ignore_index : int, optional
        Samples with this label are left out.

    Raises
    ------
    ValueError, TypeError
        If an option is malformed; the message begins with its name.

    References
    ----------
    Kumar, Sarawagi and Jain, *Trainable Calibration Measures for Neural Networks from
    Kernel Mean Embeddings*, ICML 2018.

    Examples
    --------
    >>> MMCELoss()(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    tensor(2.0297)
    """

    reductions = ("mean", "sum")

    def __init__(
        self,
        mmce_weight: float = 2.0,
        reduction: str = "mean",
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction, ignore_index=ignore_index)
        self.mmce_weight = _check.number("mmce_weight", mmce_weight, 0)

    def per_sample(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each sample, and to each the batch's MMCE.

        Parameters
        ----------
        log_probs : (N, K) float32 or float64 tensor
        labels : (N,) int64 tensor

        Returns
        -------
        (N,) tensor
        """
        log_confidence, predictions = log_probs.max(1)
        confidence = log_confidence.exp()
        correct = (predictions == labels).to(log_probs.dtype)
        mmce = _mmce(confidence, correct)
        return label_nll(log_probs, labels) + self.mmce_weight * mmce


def _mmce(confidence: Tensor, correct: Tensor) -> Tensor:
    """The calibration error of a batch, as ``MMCELoss`` describes it; a scalar."""
    right = correct * (1 - confidence)
    wrong = (1 - correct) * confidence
    n_right = correct.sum()
    n_wrong = (1 - correct).sum()
    # Counts of pairs, at least 1: finite also where the result is masked below.
    right_pairs = (n_right * n_right).clamp_min(1)
    wrong_pairs = (n_wrong * n_wrong).clamp_min(1)
    mixed_pairs = (n_right * n_wrong).clamp_min(1)
    kernel = ((confidence[:, None] - confidence).abs() / -0.4).exp()
    to_right = (kernel * right).sum(1)
    to_wrong = (kernel * wrong).sum(1)
    squared = (right * to_right).sum() / (right_pairs * (right_pairs + 1e-5))
    squared = squared + (wrong * to_wrong).sum() / (wrong_pairs * (wrong_pairs + 1e-5))
    mixed = 2 * (right * to_wrong).sum() / (mixed_pairs * (mixed_pairs + 1e-5))
    root = ((squared - mixed).clamp_min(0) + 1e-10).sqrt()
    return torch.where(n_right * n_wrong > 0, root, 0)


class FocalLoss(Loss):
    """Focal loss -(1 - t)^gamma log t.

    Parameters
    ----------
    gamma : float, default 3
        >= 0, where 0 is cross-entropy.
    reduction : {"mean", "sum", "none"}, default "mean"
    ignore_index : int, optional
        Samples with this label are left out.

    Raises
    ------
    ValueError, TypeError
        If an option is malformed; the message begins with its name.

    References
    ----------
    Lin, Goyal, Girshick, He and Dollar, *Focal Loss for Dense Object Detection*, ICCV
    2017.

    Examples
    --------
    >>> FocalLoss(gamma=1)(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
    tensor(0.3466)
    """

    def __init__(
        self,
        gamma: float = 3.0,
        reduction: str = "mean",
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction, ignore_index=ignore_index)
        self.gamma = _check.number("gamma", gamma, 0)

    def per_sample(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """The losses of the samples.

        Parameters
        ----------
        log_probs : (N, K) float32 or float64 tensor
        labels : (N,) int64 tensor

        Returns
        -------
        (N,) tensor
        """
        nll = label_nll(log_probs, labels)
        return power(1 - (-nll).exp(), self.gamma) * nll


class FLSDLoss(Loss):
    """Focal loss with sample-dependent gamma, FLSD-53: 5 where t < 0.2, 3 elsewhere.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
    ignore_index : int, optional
        Samples with this label are left out.

    Raises
    ------
    ValueError, TypeError
        If an option is malformed; the message begins with its name.

    References
    ----------
    Mukhoti, Kulharia, Sanyal, Golodetz, Torr and Dokania, *Calibrating Deep Neural
    Networks using Focal Loss*, NeurIPS 2020.

    Examples
    --------
    >>> FLSDLoss()(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
    tensor(0.0866)
    """

    # Repeated, because inspect.signature would find the base's __new__ first.
    def __init__(
        self, reduction: str = "mean", *, ignore_index: int | None = None
    ) -> None:
        super().__init__(reduction, ignore_index=ignore_index)

    def per_sample(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """The losses of the samples.

        Parameters
        ----------
        log_probs : (N, K) float32 or float64 tensor
        labels : (N,) int64 tensor

        Returns
        -------
        (N,) tensor
        """
        nll = label_nll(log_probs, labels)
        target = (-nll).exp()
        gamma = torch.where(target < 0.2, 5.0, 3.0).to(target.dtype)
        return power(1 - target, gamma) * nll


class DualFocalLoss(Loss):
    """Dual focal loss (DFL): -(1 - t + q)^gamma log t.

    q is the largest probability *strictly below* t (0 if there is none), and gradient
    flows through it, as in the authors' dual_focal_loss.py. The paper's "highest
    non-target logit" differs from that where the prediction is wrong.

    Parameters
    ----------
    gamma : float, default 5
        >= 0; the authors' choices are in ``gcelib.losses.DFL_GAMMA``.
    reduction : {"mean", "sum", "none"}, default "mean"
    ignore_index : int, optional
        Samples with this label are left out.

    Raises
    ------
    ValueError, TypeError
        If an option is malformed; the message begins with its name.

    References
    ----------
    Tao, Dong and Xu, *Dual Focal Loss for Calibration*, ICML 2023.

    Examples
    --------
    >>> DualFocalLoss(gamma=1)(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    tensor(0.1685)
    """

    def __init__(
        self,
        gamma: float = 5.0,
        reduction: str = "mean",
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction, ignore_index=ignore_index)
        self.gamma = _check.number("gamma", gamma, 0)

    def per_sample(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """The losses of the samples.

        Parameters
        ----------
        log_probs : (N, K) float32 or float64 tensor
        labels : (N,) int64 tensor

        Returns
        -------
        (N,) tensor
        """
        nll = label_nll(log_probs, labels)
        probs = log_probs.exp()
        target = probs.gather(1, labels[:, None])
        rival = torch.where(probs < target, probs, 0).max(1).values
        return power(1 - target.squeeze(1) + rival, self.gamma) * nll


class AdaFocalLoss(GroupLoss):
    """AdaFocal (AFL): focal loss whose gamma follows the gap on validation data.

    A sample takes the gamma of the bin that its target probability t falls in. Its loss
    is -(1 - t)^gamma log t if gamma > 0, and the inverse focal loss -(1 + t)^|gamma|
    log t if gamma < 0. Call ``update`` after every epoch. The rule is that of
    3mcloud/adafocal (losses/adafocal.py, main.py).

    The buffers stay at least float32 under ``.half()`` and ``.bfloat16()``, where edges
    close to 1 would collapse. ``load_state_dict`` refuses a state that ``update`` could
    not have left.

    Parameters
    ----------
    n_bins : int, default 15
        1 to 10,000.
    generative : bool, default False
        The same factor precedes GCE's -log(t / S) (the paper's Eq. 16, ``afl_gce``).
    reduction : {"mean", "sum", "none"}, default "mean"
    process_group : ProcessGroup, "world" or "local", optional
        As :class:`gcelib.GCELoss` explains.
    ignore_index : int, optional
        Samples with this label are left out.

    Attributes
    ----------
    gamma : (n_bins,) tensor
        At first 1; between -2 and 20. Kept by ``state_dict``.
    bin_edges : (n_bins + 1,) tensor
        At first equally spaced in [0, 1]. Kept by ``state_dict``.

    Raises
    ------
    ValueError, TypeError
        If an option is malformed; the message begins with its name.

    References
    ----------
    Ghosh, Schaaf and Gormley, *AdaFocal: Calibration-aware Adaptive Focal Loss*,
    NeurIPS 2022.

    Examples
    --------
    >>> loss = AdaFocalLoss(n_bins=2)
    >>> loss(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
    tensor(0.3466)
    >>> loss.update(torch.tensor([[3.0, 0.0], [4.0, 0.0]]), torch.tensor([1, 1]))
    >>> loss.gamma
    tensor([2.6698, 1.0000])
    """

    gamma: Tensor
    bin_edges: Tensor

    def __init__(
        self,
        n_bins: int = 15,
        generative: bool = False,
        reduction: str = "mean",
        process_group: ProcessGroup = None,
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction, process_group, ignore_index=ignore_index)
        n_bins = _check.number("n_bins", n_bins, 1, 10_000, integer=True)
        self.generative = _check.boolean("generative", generative)
        # Whatever the default dtype is: a trainer may have set it to bfloat16.
        self.register_buffer("gamma", torch.ones(n_bins, dtype=torch.float32))
        edges = torch.linspace(0, 1, n_bins + 1, dtype=torch.float32)
        self.register_buffer("bin_edges", edges)

    def per_sample(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """The losses of the samples.

        Parameters
        ----------
        log_probs : (N, K) float32 or float64 tensor
        labels : (N,) int64 tensor

        Returns
        -------
        (N,) tensor
        """
        nll = label_nll(log_probs, labels)
        target = (-nll).exp()
        # First bin: t < its upper edge. Last: t >= its lower edge. Between: lower <= t
        # < upper.
        inner_edges = self.bin_edges[1:-1].to(target.dtype)
        bins = torch.searchsorted(inner_edges, target.detach(), right=True)
        gamma = self.gamma.to(target.dtype)[bins]
        if self.generative:
            group = self.group_of_class_sums(log_probs)
            nll = label_nll(gce_log_ratio(log_probs, 1, group), labels)
        return power(1 - gamma.sign() * target, gamma.abs()) * nll

    @torch.no_grad()
    def update(
        self,
        val_logits: Tensor | npt.NDArray[Any],
        val_labels: Tensor | npt.NDArray[Any],
    ) -> None:
        """Move every bin's gamma by the bin's calibration gap, then draw new bins.

        The new bins have equal mass: edge j of the bins (lower, upper] lies at position
        j N / n_bins of the sorted top-1 confidences; the smallest is in no bin, as in
        the authors' code. gap = mean confidence - accuracy, 0 in an empty bin. gamma is
        multiplied by exp(gap) if positive, else by exp(-gap); if then |gamma| < 0.2, it
        becomes -0.2 if positive, else 0.2; then it is clipped to [-2, 20]. gamma stays
        with its bin's index although the edges move.

        Parameters
        ----------
        val_logits : (N, K) tensor or array
            Finite, of the validation set in evaluation mode; the same on every process.
        val_labels : (N,) tensor or array of integers
            Class ids in [0, K); samples with the label ``ignore_index`` are left out.

        Raises
        ------
        ValueError, TypeError
            If they are malformed; nothing has changed then.

        Warns
        -----
        UserWarning
            If they seem to be probabilities.
        """
        every = self.ignore_index is None
        logits, labels = _check.logits_and_labels(val_logits, val_labels, values=every)
        if not every:
            kept = labels != self.ignore_index
            logits, labels = _check.logits_and_labels(logits[kept], labels[kept])
        _check.warn_of_probabilities(logits, "val_logits", BEFORE_SOFTMAX)
        if logits.dtype != torch.float64:
            logits = logits.float()
        log_confidence, predictions = F.log_softmax(logits, dim=1).max(1)
        confidence = log_confidence.exp().cpu().double().numpy()
        correct = (predictions == labels).cpu().numpy()
        edges = _equal_mass_edges(confidence, len(self.gamma))
        gap = _calibration_gap(confidence, correct, edges)
        gamma = _next_gamma(self.gamma.cpu().double().numpy(), gap)
        self.gamma.copy_(torch.from_numpy(gamma))
        self.bin_edges.copy_(torch.from_numpy(edges))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move buffers as told, never below float32: half() is meant for weights."""

        def wide(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved.dtype.itemsize >= 4:
                return moved
            return tensor.to(moved.device, torch.float32)

        apply: Callable[..., Self] = super()._apply
        return apply(wide, recurse)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *options: Any
    ) -> None:
        """Refuse a state that ``update`` could not have left; half a state is none."""
        n_bins = len(self.gamma)
        _check_adafocal_buffer(state_dict, prefix, "gamma", n_bins, -2, 20)
        _check_adafocal_buffer(state_dict, prefix, "bin_edges", n_bins + 1, 0, 1)
        super()._load_from_state_dict(state_dict, prefix, *options)


def _equal_mass_edges(
    confidence: npt.NDArray[np.float64], n_bins: int
) -> npt.NDArray[np.float64]:
    """Edges (n_bins + 1,) at the quantiles of the sorted confidences."""
    n_samples = len(confidence)
    positions = np.linspace(0, n_samples, n_bins + 1)
    return np.interp(positions, np.arange(n_samples), np.sort(confidence))


def _calibration_gap(
    confidence: npt.NDArray[np.float64],
    correct: npt.NDArray[np.bool_],
    edges: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Mean confidence - accuracy of each bin (lower, upper]; 0 in an empty one."""
    n_bins = len(edges) - 1
    inside = confidence > edges[0]
    bins = np.searchsorted(edges, confidence[inside]) - 1
    totals = np.bincount(bins, (confidence - correct)[inside], n_bins)
    counts = np.bincount(bins, minlength=n_bins)
    gap: npt.NDArray[np.float64] = totals / counts.clip(1)
    return gap


def _next_gamma(
    gamma: npt.NDArray[np.float64], gap: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """AdaFocal's step, with its switch of sign and its limits."""
    gamma = gamma * np.exp(np.where(gamma > 0, gap, -gap))
    switched = np.where(gamma > 0, -0.2, 0.2)
    return np.where(np.abs(gamma) < 0.2, switched, gamma).clip(-2, 20)


def _check_adafocal_buffer(
    state_dict: dict[str, Any],
    prefix: str,
    name: str,
    length: int,
    low: float,
    high: float,
) -> None:
    """Refuse a buffer of ``AdaFocalLoss`` that its ``update`` could not have left."""
    values = state_dict.get(prefix + name)
    if not isinstance(values, Tensor):
        return  # torch says which are missing
    cure = "load a state that an AdaFocalLoss saved"
    if values.layout != torch.strided or values.device.type == "meta":
        _check.fail(name, f"is {values.layout} on {values.device}", cure)
    if tuple(values.shape) != (length,):
        problem = f"has shape {tuple(values.shape)}, here it has {length} numbers"
        _check.fail(name, problem, "construct it with the n_bins of that state")
    if values.dtype not in (torch.float32, torch.float64):
        _check.fail(name, f"has dtype {values.dtype}, which loses digits", cure)
    if not ((values >= low - 1e-6) & (values <= high + 1e-6)).all():
        _check.fail(name, f"holds values outside [{low}, {high}], or NaN", cure)
    if name == "bin_edges" and not (values.diff() >= 0).all():
        _check.fail(name, "are not in order", cure)


#: gamma of DFL by (data set, network), from the README of
#: Linwei94/ICML2023-DualFocalLoss.
DFL_GAMMA: dict[tuple[str, str], float] = {
    ("cifar10", "resnet50"): 5.0,
    ("cifar10", "resnet110"): 4.5,
    ("cifar10", "wrn_28_10"): 2.6,
    ("cifar10", "densenet121"): 5.0,
    ("cifar100", "resnet50"): 5.0,
    ("cifar100", "resnet110"): 6.1,
    ("cifar100", "wrn_28_10"): 3.9,
    ("cifar100", "densenet121"): 3.4,
    ("tiny_imagenet", "resnet50"): 2.3,
}

# Options that a run's config does not set by ``loss_options``: the reduction is a field
# of its own, and the others have no use there.
_NO_RUN_OPTIONS = ("reduction", "process_group", "ignore_index")


@dataclass(frozen=True)
class LossRow:
    """What gcelib knows of a loss: a row of ``LOSSES``.

    Parameters
    ----------
    build : subclass of Loss
        Called with ``options`` and the user's own.
    options : mapping, optional
        Options that make this row differ from another one of the same class.
    in_paper : bool, default False
        Is it one of the seven columns of the paper's tables?
    couples_samples : bool, default False
        Does the loss of a batch not fall apart into those of its samples? Then batch
        size and ``drop_last`` belong to its definition.
    published_reduction : {"sum", "mean"}, default "sum"
        What the training loop that the paper builds on does with the batch.
    simplex_options : tuple of str, optional
        The options that the explorer of the simplex has sliders for; None (default)
        if it does not offer the loss.
    tuned : mapping, optional
        Options by (data set, network), as the loss's authors chose them.
    tuned_default : mapping, optional
        Options of a run for all other data sets and networks.
    label : str, optional
        How it reads in figures and legends; ``""`` (default): as its name.

    Examples
    --------
    >>> LOSSES["gce"].couples_samples, LOSSES["gce"].soft_targets
    (True, True)
    """

    build: type[Loss]
    options: Mapping[str, Any] = field(default_factory=dict)
    in_paper: bool = False
    couples_samples: bool = False
    published_reduction: str = "sum"
    simplex_options: tuple[str, ...] | None = None
    tuned: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    tuned_default: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def soft_targets(self) -> bool:
        """Whether the loss takes soft targets (N, K)."""
        return self.build.soft_targets

    @property
    def reductions(self) -> tuple[str, ...]:
        """The reductions that the loss has."""
        return self.build.reductions

    @property
    def adapts(self) -> bool:
        """Whether ``update(val_logits, val_labels)`` is due after each epoch."""
        return hasattr(self.build, "update")

    @property
    def run_options(self) -> tuple[str, ...]:
        """Names of the options that ``TrainConfig.loss_options`` may set."""
        names = _parameters(self.build)
        return tuple(name for name in names if name not in _NO_RUN_OPTIONS)

    def options_of_run(self, dataset: str, model: str) -> dict[str, Any]:
        """The options that a run of this network on this data set is given.

        Parameters
        ----------
        dataset, model : str
            Names in the registries; others get the default.

        Returns
        -------
        dict

        Examples
        --------
        >>> LOSSES["dfl"].options_of_run("cifar100", "resnet110")
        {'gamma': 6.1}
        """
        return dict(self.tuned.get((dataset, model), self.tuned_default))


#: Every loss by its name in configurations, run folders and tables: the paper's seven
#: in its order, then variants.
LOSSES: dict[str, LossRow] = {
    "ce": LossRow(CrossEntropyLoss, label="CE", in_paper=True, simplex_options=()),
    "brier": LossRow(
        BrierLoss,
        label="Brier",
        in_paper=True,
        published_reduction="mean",
        simplex_options=(),
    ),
    "mmce": LossRow(MMCELoss, label="MMCE", in_paper=True, couples_samples=True),
    "flsd": LossRow(FLSDLoss, label="FLSD", in_paper=True, simplex_options=()),
    "dfl": LossRow(
        DualFocalLoss,
        label="DFL",
        in_paper=True,
        simplex_options=("gamma",),
        tuned={setting: {"gamma": gamma} for setting, gamma in DFL_GAMMA.items()},
        tuned_default={"gamma": 5.0},
    ),
    "afl": LossRow(AdaFocalLoss, label="AFL", in_paper=True),
    "gce": LossRow(
        GCELoss,
        label="GCE",
        in_paper=True,
        couples_samples=True,
        simplex_options=("regularizer_weight",),
    ),
    "focal": LossRow(FocalLoss, label="Focal", simplex_options=("gamma",)),
    "ce_ls": LossRow(CrossEntropyLoss, {"label_smoothing": 0.05}, label="CE + LS"),
    "gce_ls": LossRow(
        GCELoss, {"label_smoothing": 0.05}, label="GCE + LS", couples_samples=True
    ),
    "afl_gce": LossRow(
        AdaFocalLoss, {"generative": True}, label="AFL + GCE", couples_samples=True
    ),
}


_known_parameters: dict[type[Loss], tuple[str, ...]] = {}


def _parameters(build: type[Loss]) -> tuple[str, ...]:
    """Names of the options of a loss; read once, for grids make thousands."""
    if build not in _known_parameters:
        _known_parameters[build] = tuple(inspect.signature(build).parameters)
    return _known_parameters[build]


def make_loss(name: str, /, **options: Any) -> Loss:
    """The loss called ``name`` in ``LOSSES``.

    Parameters
    ----------
    name : str
        A key of ``LOSSES``.
    **options
        Options of its class, over those of its row.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError, TypeError
        If the name or an option is unknown (the nearest one is proposed), or a value is
        out of range.

    Examples
    --------
    >>> make_loss("ce_ls")
    CrossEntropyLoss(label_smoothing=0.05, reduction='mean')
    """
    row = LOSSES[_check.choice("loss", name, LOSSES)]
    # The class itself says what to do instead of an option of PyTorch's losses.
    known = [*_parameters(row.build), *FOREIGN_OPTIONS.keys() & options.keys()]
    _check.known_keys("loss_options", options, known)
    return row.build(**{**row.options, **options})
