"""What all training losses share: the checks, at least float32, and the reduction.

A loss is an ``nn.Module`` called as ``loss(logits, labels)``. To write one, derive from
:class:`Loss` and define ``per_sample``, which gets log-probabilities; or ``compute``,
which gets the logits, where the batch cannot be taken apart into samples.
"""

import inspect
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcelib import _check

#: A label that nobody has, for PyTorch's functions: their own default for labels to
#: ignore, -100, would let a mistake pass in silence.
NO_LABEL = -(2**62)

#: What nn.CrossEntropyLoss accepts and these losses do not, and what to do instead.
FOREIGN_OPTIONS = {
    "weight": "weigh the samples yourself: losses = loss(logits, labels) with "
    "reduction='none', then (w[labels] * losses).sum() / w[labels].sum(); where "
    "ignore_index leaves samples out, both sums are over the others alone",
    "size_average": "use reduction='mean' or 'sum'",
    "reduce": "use reduction='none'",
}
#: What to do where a loss is given probabilities.
BEFORE_SOFTMAX = "pass the scores before the softmax, or the logarithm of probabilities"
#: So many rows that sum to 1 are no accident.
_ENOUGH_ROWS = 4
_FOREIGN_INPUTS = {"input": "logits", "target": "labels"}


class Loss(nn.Module):
    """Base class: input checks, at least float32, and the reduction over samples.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
        What becomes of the losses of the single samples; ``"none"`` returns them, (N,).
    ignore_index : int, optional
        Samples with this label are left out before anything else is computed, so that
        they enter no class sum and no mean; with ``reduction="none"`` their loss is 0.
        The mean over no sample at all is NaN, as PyTorch's. By default no label is
        ignored. On an accelerator, leaving samples out waits for the device, and
        neither ``torch.vmap`` nor ``torch.compile(fullgraph=True)`` can do it.

    Raises
    ------
    ValueError, TypeError
        If an option is malformed; the message begins with its name.

    Examples
    --------
    >>> import torch
    >>> class Confidence(Loss):
    ...     def per_sample(self, log_probs, labels):
    ...         return -log_probs.amax(1)
    >>> Confidence()(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    tensor(0.6931)
    """

    #: Does the loss take soft targets (N, K) beside class ids (N,)?
    soft_targets: ClassVar[bool] = False
    #: The reductions that make sense for it.
    reductions: ClassVar[tuple[str, ...]] = ("mean", "sum", "none")

    reduction: str
    ignore_index: int | None
    _has_looked = False

    def __new__(cls, *options: object, **named: object) -> Self:
        """Say what to do instead of the options that ``nn.CrossEntropyLoss`` has."""
        if options and isinstance(options[0], Tensor):
            _refuse_option("weight")  # the first positional option of PyTorch's losses
        for name in named:
            if name in FOREIGN_OPTIONS:
                _refuse_option(name)
        return super().__new__(cls)

    def __init__(
        self, reduction: str = "mean", *, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        self.reduction = _check.choice("reduction", reduction, self.reductions)
        if ignore_index is not None:
            ignore_index = _check.number(
                "ignore_index", ignore_index, -(2**62), 2**62, integer=True
            )
        self.ignore_index = ignore_index

    if TYPE_CHECKING:  # nn.Module's returns Any

        def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
            """Call ``forward``."""
            ...

    else:

        def __call__(self, *inputs: object, **named: object) -> Tensor:
            """Call ``forward``; say what PyTorch's ``input``, ``target`` are here."""
            for name in named:
                if name in _FOREIGN_INPUTS:
                    ours = _FOREIGN_INPUTS[name]
                    problem = f"is called {ours} here"
                    _check.fail(name, problem, "write loss(logits, labels)", TypeError)
            return super().__call__(*inputs, **named)

    def extra_repr(self) -> str:
        """The options, for ``print(loss)``."""
        names = inspect.signature(type(self)).parameters
        set_options = {name: getattr(self, name, None) for name in names}
        return ", ".join(
            f"{name}={value!r}"
            for name, value in set_options.items()
            if value is not None
        )

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        logits : (N, K) floating-point tensor
            Scores before the softmax, N >= 1, K >= 2.
        labels : (N,) integer tensor, or (N, K) floating-point tensor
            Class ids in [0, K); or, where the loss takes them, soft targets: rows that
            are >= 0 and sum to 1.

        Returns
        -------
        scalar tensor, or (N,) with ``reduction="none"``
            In the logits' dtype, but at least float32.

        Raises
        ------
        ValueError, TypeError
            If shapes, dtypes or devices do not fit, and on the CPU if a label is no
            class or soft targets are no probabilities (elsewhere a look would stall the
            device). NaN and infinite logits are *not* refused: ``GradScaler`` must see
            that loss in order to skip a step.

        Warns
        -----
        UserWarning
            If the rows of the first batch on a CPU are probabilities: with a softmax in
            the network, too, it hardly learns.
        """
        _check_tensors(logits, labels)
        if not self._has_looked and values_can_be_read(logits):
            self._look_for_probabilities(logits)
        # Cast by hand: there are no matrix products below, so that autocast leaves
        # float32 and float64 alone.
        if logits.dtype != torch.float64:
            logits = logits.float()
        same_shape = labels.shape == logits.shape
        if (
            labels.is_floating_point()
            and labels.ndim == 2
            and (same_shape or self.soft_targets)
        ):
            self._check_soft_targets(logits, labels)
            return self.compute(logits, labels.to(logits.dtype))
        _check.check_labels(labels, *logits.shape, values=False)
        if self.ignore_index is None:
            return self._loss_of_class_ids(logits, labels)
        # In int64: in uint8, -100 would be 156, which may be a class.
        kept = labels.long() != self.ignore_index
        losses = self._loss_of_class_ids(logits[kept], labels[kept])
        if self.reduction != "none":
            return losses
        return losses.new_zeros(len(labels)).masked_scatter(kept, losses)

    def _look_for_probabilities(self, logits: Tensor) -> None:
        """Warn if the logits are probabilities; the first batch tells, later cost time.

        Only rows that sum to 1 are told: what else a network says at first may be
        anything.
        """
        self._has_looked = len(logits) >= _ENOUGH_ROWS
        if self._has_looked and _check.are_probabilities(logits.detach()):
            kind = "rows are >= 0 and sum to 1, as probabilities do"
            _check.warn(f"logits: {kind}; {BEFORE_SOFTMAX}")

    def _check_soft_targets(self, logits: Tensor, labels: Tensor) -> None:
        """Refuse soft targets where the loss takes none, and rows that are none."""
        if not self.soft_targets:
            problem = "are soft targets, which this loss does not take"
            _check.fail("labels", problem, "pass class ids", TypeError)
        if self.ignore_index is not None:
            problem = "applies to class ids, and the labels are soft targets"
            _check.fail("ignore_index", problem, "leave those rows out yourself")
        if labels.shape != logits.shape:
            problem = (
                f"soft targets {tuple(labels.shape)} for logits {tuple(logits.shape)}"
            )
            _check.fail("labels", problem, "pass one probability per logit")
        if not values_can_be_read(labels):
            return
        targets = labels.detach()
        off = (targets.sum(1, dtype=torch.float64) - 1).abs()
        if not (targets.amin() >= 0 and off.amax() < 0.01):
            problem = "soft targets are not probabilities"
            _check.fail("labels", problem, "make them >= 0, rows summing to 1")

    def _loss_of_class_ids(self, logits: Tensor, labels: Tensor) -> Tensor:
        """``compute``, with the house's message where a label is no class."""
        try:
            return self.compute(logits, labels.long())
        except (IndexError, RuntimeError):
            # PyTorch's CPU kernels look at every label anyway: a pass of our own would
            # cost time in every step that goes well.
            if values_can_be_read(labels):
                _check.check_labels(labels, *logits.shape)
            raise

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
        losses = self.per_sample(F.log_softmax(logits, dim=1), labels)
        if losses.shape != logits.shape[:1]:  # a mean over cells would look as good
            problem = f"returned shape {tuple(losses.shape)} for {len(logits)} samples"
            _check.fail("per_sample", problem, "return the loss of each sample, (N,)")
        return self.reduce(losses)

    def per_sample(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """The losses of the samples, before the reduction; every loss has its own.

        Parameters
        ----------
        log_probs : (N, K) float32 or float64 tensor
            log p, of ``log_softmax``.
        labels : (N,) int64 tensor, or soft targets (N, K) in the same dtype

        Returns
        -------
        (N,) tensor
        """
        raise NotImplementedError

    def reduce(self, losses: Tensor) -> Tensor:
        """The mean, the sum, or all of the samples' losses.

        Parameters
        ----------
        losses : (N,) tensor

        Returns
        -------
        scalar tensor, or (N,) with ``reduction="none"``
        """
        if self.reduction == "mean":
            return losses.mean()
        if self.reduction == "sum":
            return losses.sum()
        return losses


def _refuse_option(name: str) -> None:
    """Raise TypeError with what to do instead of PyTorch's option ``name``."""
    _check.fail(name, "is no option of this loss", FOREIGN_OPTIONS[name], TypeError)


def _check_tensors(logits: Tensor, labels: Tensor) -> None:
    """Refuse what is not a pair of dense tensors on one device, logits (N, K)."""
    for name, value in (("logits", logits), ("labels", labels)):
        if not isinstance(value, Tensor):
            problem = f"must be a torch tensor, got {type(value).__name__}"
            _check.fail(name, problem, "convert it", TypeError)
        odd = value.layout != torch.strided or value.is_nested or value.is_quantized
        if odd:
            _check.as_tensor(name, value)  # refuses it
    _check.check_logits(logits, values=False)
    if labels.device != logits.device:
        problem = f"are on {labels.device}, logits on {logits.device}"
        _check.fail("labels", problem, "move both to one device")


def values_can_be_read(tensor: Tensor) -> bool:
    """Whether Python can look at the values of ``tensor`` without harm.

    Parameters
    ----------
    tensor : Tensor

    Returns
    -------
    bool
        False on an accelerator, which would stall; while torch.compile or torch.export
        trace; under the transformations of ``torch.func``; and for subclasses of
        Tensor, which may hold no values.

    Examples
    --------
    >>> values_can_be_read(torch.zeros(3))
    True
    >>> values_can_be_read(torch.zeros(3, device="meta"))
    False
    """
    return (
        type(tensor) is Tensor
        and tensor.is_cpu
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def may_hold_minus_infinity(values: Tensor) -> bool:
    """Whether a value may be -inf: True also where nobody can look.

    Parameters
    ----------
    values : tensor

    Returns
    -------
    bool

    Examples
    --------
    >>> may_hold_minus_infinity(torch.zeros(3))
    False
    """
    if not values_can_be_read(values):
        return True
    if values.numel() == 0:
        return False
    lowest = values.detach().numpy().min()  # of a small batch, faster than torch's
    return not lowest > -torch.inf


def label_nll(log_probs: Tensor, labels: Tensor, reduction: str = "none") -> Tensor:
    """The negative log-likelihood -log p of each sample's label.

    Parameters
    ----------
    log_probs : (N, K) tensor
    labels : (N,) int64 tensor
        Class ids in [0, K).
    reduction : {"mean", "sum", "none"}, default "none"

    Returns
    -------
    (N,) tensor, or a scalar

    Examples
    --------
    >>> label_nll(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([1]))
    tensor([0.6931])
    """
    return F.nll_loss(log_probs, labels, reduction=reduction, ignore_index=NO_LABEL)


def power(base: Tensor, exponent: Tensor | float) -> Tensor:
    """``base ** exponent`` whose gradient at 0 is 0.

    There the derivative is infinite if the exponent is below 1, and infinity times zero
    would put NaN into the gradient of a focal loss that is certain of its label.

    Parameters
    ----------
    base : tensor
        Values >= 0.
    exponent : tensor or float
        Values >= 0.

    Returns
    -------
    tensor

    Examples
    --------
    >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
    >>> power(x, 0.5).sum().backward()
    >>> x.grad
    tensor([0.0000, 0.2500])
    """
    return base.clamp_min(1e-20) ** exponent
