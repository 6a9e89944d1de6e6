"""Generative Cross-Entropy (GCE): the equation, its fast path, its distributed path.

"The paper" is Zhan, Zhou and Shen, arXiv 2604.06689 (2026). p = softmax(logits); t is
the *target probability* p[i, y_i] of sample i; S_k = sum_i p[i, k] is the *class sum*
over the batch. GCE is the mean of -log(t_i / S_{y_i}).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from gcelib import _check
from gcelib.loss_base import (
    Loss,
    label_nll,
    may_hold_minus_infinity,
    power,
    values_can_be_read,
)

#: What ``process_group=`` takes: a group, all processes, this process alone, or unsaid.
ProcessGroup = dist.ProcessGroup | Literal["world", "local"] | None

# On a CPU, from about this many logits on, exponentials and passes over the cells are
# what a step costs, and a gradient that is written out pays.
_LARGE = 1e5
#: Samples above which the shares of a class are added up in float64.
_MANY = 2**14


# The equation -------------------------------------------------------------------------


def gce_log_ratio(
    log_probs: Tensor, weight: float = 1.0, group: dist.ProcessGroup | None = None
) -> Tensor:
    """How probable each *sample* is given a class: log p - weight log S.

    With weight 1 this is ``log_softmax`` over the batch of ``log_softmax`` over the
    classes. A probability of 0 (a logit of -inf) has the ratio -inf, also where no
    sample of the batch gives its class anything and S is 0 as well.

    Parameters
    ----------
    log_probs : (N, K) tensor
        log p, of ``log_softmax``; -inf is allowed.
    weight : float, default 1
        The paper's lambda, in [0, 1].
    group : torch.distributed.ProcessGroup, optional
        Sum over the samples of all its processes, each of which must make this call.

    Returns
    -------
    (N, K) tensor

    References
    ----------
    Zhan, Zhou and Shen, arXiv 2604.06689 (2026), Eq. 4 and 7.

    Examples
    --------
    >>> p = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    >>> gce_log_ratio(p.log()).exp()
    tensor([[0.7500, 0.2500],
            [0.2500, 0.7500]])
    """
    if weight == 0:
        return log_probs
    if group is not None:
        ratio = _log_ratio_of_group(log_probs, group)
    elif _may_hold_an_empty_class(log_probs):
        # Its column holds nothing but -inf, whose log_softmax would be NaN.
        is_empty = (log_probs == -torch.inf).all(0)
        ratio = _log_share_of_samples(log_probs.masked_fill(is_empty, 0))
        ratio = torch.where(is_empty, log_probs, ratio)
    else:
        ratio = _log_share_of_samples(log_probs)
    if weight == 1:
        return ratio
    mixed = torch.lerp(log_probs, ratio, weight)
    # Between -inf and -inf, lerp finds NaN.
    return torch.where(log_probs == -torch.inf, log_probs, mixed)


def _log_share_of_samples(log_probs: Tensor) -> Tensor:
    """``log_softmax`` over the samples, of any number of them.

    torch's, down the columns, adds up one after another, in which float32 loses what is
    small beside the sum.
    """
    if len(log_probs) > _MANY:
        return log_probs - log_probs.logsumexp(0)
    return F.log_softmax(log_probs, dim=0)


def _may_hold_an_empty_class(log_probs: Tensor) -> bool:
    """May a class have probability 0 in every sample? True where nobody can look.

    Such a class has probability 0 in the first sample: one row is enough.
    """
    if not values_can_be_read(log_probs):
        return True
    if len(log_probs) == 0:
        return False
    # To search a row's bytes is cheaper than any tensor operation. It finds -inf in
    # float32, in float64, or, rarely, another number; then a safe path costs some time.
    row = log_probs.detach().numpy()[0].tobytes()
    return b"\0\0\x80\xff" in row or b"\0\0\xf0\xff" in row


# The fast path ------------------------------------------------------------------------


class _LargeBatchContext(FunctionCtx):
    """What the fast path keeps for its gradient."""

    weight: float
    saved_tensors: tuple[Tensor, ...]


class _LargeBatchGCE(torch.autograd.Function):
    """-log t + weight log S of each sample, with its gradient written out.

    One exponential for each cell, and few passes over the cells.
    """

    @staticmethod
    def forward(
        ctx: _LargeBatchContext,
        logits: Tensor,
        labels: Tensor,
        weight: float,
        probs: Tensor,
        sums: Tensor,
    ) -> Tensor:
        ctx.weight = weight
        ctx.save_for_backward(logits, labels, probs, sums)
        own_logits = logits.gather(1, labels[:, None]).squeeze(1)
        # The largest probability of a row is 1 / sum(exp(z - max z)).
        log_target = own_logits - logits.amax(1) + probs.amax(1).log()
        return weight * sums.log()[labels] - log_target

    @staticmethod
    def backward(ctx: _LargeBatchContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        logits, labels, probs, sums = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody differentiates twice: let autograd do it
            ratio = gce_log_ratio(F.log_softmax(logits, dim=1), ctx.weight)
            losses = label_nll(ratio, labels)
            (result,) = torch.autograd.grad(losses, logits, grad, create_graph=True)
            return result, None, None, None, None
        # One share after another: float32 would lose some of a class of thousands.
        kind = torch.float64 if len(labels) > _MANY else sums.dtype
        shares = (ctx.weight * grad).to(kind)
        # Not in place: torch.vmap may run over many gradients at once.
        by_class = torch.zeros_like(sums, dtype=kind).index_add(0, labels, shares)
        by_class = by_class.to(sums.dtype)
        # The sum of a class without labels may be 0.
        share = torch.where(by_class == 0, 0, by_class / sums)
        result = probs * share
        result.addcmul_(probs, (grad - result.sum(1))[:, None])
        result.scatter_add_(1, labels[:, None], -grad[:, None])
        return result, None, None, None, None


def _tangent_of(tensor: Tensor) -> Tensor | None:
    """The derivative that forward-mode differentiation carries along, if it runs."""
    unpack: Callable[[Tensor], tuple[Tensor, Tensor | None]] = forward_ad.unpack_dual
    return unpack(tensor)[1]


def _large_batch_losses(logits: Tensor, labels: Tensor, weight: float) -> Tensor | None:
    """GCE of each sample by the fast path; None where that is not to be taken."""
    if logits.numel() <= _LARGE or not values_can_be_read(logits):
        return None
    if _tangent_of(logits) is not None:
        return None  # the gradient that is written out is reverse mode's
    probs = F.softmax(logits.detach(), dim=1)
    sums = probs.sum(0)
    if not sums[labels].amin() > 1e-30:
        return None  # a class all but underflows: only log space is exact
    losses: Tensor = _LargeBatchGCE.apply(logits, labels, weight, probs, sums)
    return losses


# The distributed path -----------------------------------------------------------------


class _GroupContext(FunctionCtx):
    """What a sum over processes keeps for its gradient."""

    group: dist.ProcessGroup


class _AllReduceSum(torch.autograd.Function):
    """Sum over a group's processes; so is the gradient, as each uses the sum."""

    @staticmethod
    def forward(ctx: _GroupContext, values: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: _GroupContext, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        total: Tensor = _AllReduceSum.apply(grad, ctx.group)
        return total, None


def _log_ratio_of_group(log_probs: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The log p - log S with the class sums over all processes of ``group``."""
    if len(log_probs):
        shift = log_probs.detach().amax(0)
    else:  # every sample of this process was left out; the others still wait for it
        shift = log_probs.new_full(log_probs.shape[1:], -torch.inf)
    dist.all_reduce(shift, dist.ReduceOp.MAX, group=group)
    # Shifted by the maximum, a class whose probabilities all underflow stays finite.
    # The bounds are for a class without any probability, whose ratio is -inf.
    shifted = log_probs - shift.clamp_min(-1e30)
    sums: Tensor = _AllReduceSum.apply(shifted.exp().sum(0), group)
    return shifted - sums.clamp_min(1e-30).log()


def _n_processes() -> int:
    """How many processes torch.distributed runs: 1 where it does not run."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


@dataclass(frozen=True)
class _LostGroup:
    """What is left of a process group, other than the world, after pickling."""

    ranks: tuple[int, ...]


class _GroupHolder:
    """Holds a process group, so that a loss can be copied and pickled.

    A copy uses the same group. A pickle remembers the world by its name; another group
    has none that a later process could look up.
    """

    def __init__(self, group: ProcessGroup | _LostGroup) -> None:
        self.group = group

    def __deepcopy__(self, memo: dict[int, Any]) -> "_GroupHolder":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        group = self.group
        if isinstance(group, dist.ProcessGroup):
            if group == dist.group.WORLD:
                group = "world"
            else:
                group = _LostGroup(tuple(dist.get_process_group_ranks(group)))
        return _GroupHolder, (group,)


class GroupLoss(Loss):
    """Base class of losses whose class sums may run over several processes.

    Parameters
    ----------
    reduction, ignore_index
        As every loss has them; see :class:`gcelib.loss_base.Loss`.
    process_group : ProcessGroup, "world" or "local", optional
        The group over whose samples the class sums, and the mean or sum, run; see
        :class:`GCELoss`.

    Raises
    ------
    ValueError, TypeError
        If an option is malformed; the message begins with its name.

    Examples
    --------
    >>> GroupLoss(process_group="world").process_group
    'world'
    """

    def __init__(
        self,
        reduction: str = "mean",
        process_group: ProcessGroup = None,
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction, ignore_index=ignore_index)
        self.process_group = process_group

    @property
    def process_group(self) -> ProcessGroup:
        """The group as it was given; may be set."""
        group = self._holder.group
        return None if isinstance(group, _LostGroup) else group

    @process_group.setter
    def process_group(self, group: ProcessGroup) -> None:
        if isinstance(group, str):
            _check.choice("process_group", group, ("world", "local"))
        elif group is not None and not isinstance(group, dist.ProcessGroup):
            problem = f"must be a ProcessGroup, 'world' or 'local', got {group!r}"
            _check.fail("process_group", problem, "pass 'world'", TypeError)
        self._holder = _GroupHolder(group)

    def group_of_this_call(self) -> dist.ProcessGroup | None:
        """The group that a call made now runs over, looked up only now.

        Returns
        -------
        torch.distributed.ProcessGroup or None
            None: this process's samples alone.

        Raises
        ------
        ValueError
            If the group did not survive pickling.
        """
        group = self._holder.group
        if isinstance(group, dist.ProcessGroup):
            return group
        if isinstance(group, _LostGroup):
            problem = f"the group of ranks {[*group.ranks]} did not survive pickling"
            _check.fail("process_group", problem, "set loss.process_group again")
        if group == "world" and _n_processes() > 1:
            return dist.group.WORLD
        return None

    def group_of_class_sums(self, logits: Tensor) -> dist.ProcessGroup | None:
        """As ``group_of_this_call``, for a loss whose value depends on the answer.

        Parameters
        ----------
        logits : (N, K) tensor
            Of this process, or their log-probabilities: where one sample is all there
            is, a warning says so.

        Returns
        -------
        torch.distributed.ProcessGroup or None

        Raises
        ------
        ValueError
            In training mode, or where gradients flow, if torch.distributed runs
            several processes and nobody said which of them the class sums are to run
            over; and if the group was lost.
        """
        group = self.group_of_this_call()
        # A network with frozen batch norm may train in evaluation mode.
        trains = self.training or (torch.is_grad_enabled() and logits.requires_grad)
        if self._holder.group is None and trains and _n_processes() > 1:
            problem = (
                "is None, as torch.distributed.group.WORLD is before"
                f" init_process_group, and {_n_processes()} processes train together"
            )
            cure = (
                "pass 'world' for class sums over the samples of all of them, or"
                " 'local' if each is to use its own alone"
            )
            _check.fail("process_group", problem, cure)
        if len(logits) == 1 and (group is None or group.size() == 1):
            _warn_of_one_sample()
        return group

    def reduce(self, losses: Tensor) -> Tensor:
        """The mean, the sum, or all of the samples' losses, over the whole group.

        Parameters
        ----------
        losses : (N,) tensor
            Of this process.

        Returns
        -------
        scalar tensor, or (N,) with ``reduction="none"``
            Scaled by the number of processes, so that their average is the mean or sum
            over the group; ``"none"`` is not scaled.
        """
        group = self.group_of_this_call()
        if group is None or self.reduction == "none":
            return super().reduce(losses)
        total = losses.sum() * group.size()
        if self.reduction == "sum":
            return total
        count = losses.new_full((), len(losses))
        dist.all_reduce(count, group=group)
        return total / count


# The loss -----------------------------------------------------------------------------


class GCELoss(GroupLoss):
    """Generative Cross-Entropy: how improbable each *image* is given its class.

    Among the images of the batch, that is: the mean of -log(t_i / S_{y_i}), the paper's
    Eq. 4. In one line, the negative log-likelihood of ``log_softmax`` over the batch of
    ``log_softmax`` over the classes. It is cross-entropy + (1/N) sum_k N_k log S_k (Eq.
    7; N_k labels are k).

    It couples the samples: the batch size belongs to its definition, gradients
    accumulated over small batches are not those of a large one (but see
    :func:`gcelib.accumulated_backward`), and with hard labels its minimum is
    (1/N) sum_k N_k log N_k, not 0. One sample gives 0, and a UserWarning.

    A logit of -inf is a probability of 0. A target that puts mass there makes the loss
    infinite, as in ``nn.CrossEntropyLoss``, and so does any label smoothing; otherwise
    the class is as if it were not there. This holds for every loss of gcelib.

    Parameters
    ----------
    label_smoothing : float, default 0
        alpha in [0, 1] of Eq. 5 and 6: targets become (1 - alpha) target + alpha / K.
    focal_gamma : float, default 0
        gamma >= 0 of Eq. 9: each sample's term is multiplied by (1 - t_i)^gamma, and
        gradient flows through that. For soft targets q, t_i = sum_k q_ik p_ik (our
        choice); smoothing does not change t_i.
    regularizer_weight : float, default 1
        lambda in [0, 1], the weight of Eq. 7's second term: 0 is cross-entropy, 1 GCE.
        Above 1 the loss is unbounded below, so refused. Below 1, a convex mix with
        cross-entropy, it is strictly proper without the rank condition of Theorem 1
        (ours, not the paper's).
    reduction : {"mean", "sum", "none"}, default "mean"
    process_group : ProcessGroup, "world" or "local", optional
        The ``torch.distributed`` group over whose global batch the class sums and the
        mean (or sum) run. All its processes must call the loss. Values are scaled by
        the number of processes, so that their *average* is the global loss, and the
        gradients that DDP averages equal one process's on the whole batch, also for
        shards of unequal size. ``"none"`` is not scaled. ``"world"`` is looked up when
        the loss is called, and is this process alone where torch.distributed does not
        run: pass it rather than ``torch.distributed.group.WORLD``, which is None before
        ``init_process_group``. By default the sums are this process's; where several
        train together, that default is refused, and ``"local"`` says that it is meant.
        A deep copy uses the same group. A pickle remembers the world alone.
    ignore_index : int, optional
        Samples with this label are left out, before the class sums.

    Raises
    ------
    ValueError, TypeError
        If an option is malformed; the message begins with its name.

    Notes
    -----
    Each class is judged by its proportions within the batch, so that nothing brings a
    class back whose probability is all but 0 in the whole batch: where the others lie
    60 below the top, the gradient of a common shift is 1e-16, cross-entropy's 0.9. A
    large first step can end there (``data/results/README.md``, ResNet-50).
    ``clip_norm=2`` as in the published code, a smaller rate at first, or
    ``regularizer_weight`` below 1, which keeps that share of cross-entropy, prevent it.

    References
    ----------
    Zhan, Zhou and Shen, *Towards Accurate and Calibrated Classification: Regularizing
    Cross-Entropy From A Generative Perspective*, arXiv 2604.06689 (2026).

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 1.0]], requires_grad=True)
    >>> loss = GCELoss()(logits, torch.tensor([0, 1, 1]))
    >>> loss
    tensor(0.6343, grad_fn=<NllLossBackward0>)
    >>> loss.backward()
    """

    soft_targets = True

    def __init__(
        self,
        label_smoothing: float = 0,
        focal_gamma: float = 0,
        regularizer_weight: float = 1,
        reduction: str = "mean",
        process_group: ProcessGroup = None,
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction, process_group, ignore_index=ignore_index)
        self.label_smoothing = _check.number("label_smoothing", label_smoothing, 0, 1)
        self.focal_gamma = _check.number("focal_gamma", focal_gamma, 0)
        self.regularizer_weight = _check.number(
            "regularizer_weight", regularizer_weight, 0, 1
        )

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
        if self.regularizer_weight == 0:  # cross-entropy: there are no class sums
            group = self.group_of_this_call()
        else:
            group = self.group_of_class_sums(logits)
        is_soft = labels.is_floating_point()
        is_plain = self.label_smoothing == 0 and self.focal_gamma == 0
        if is_plain and group is None and not is_soft:
            return self._plain(logits, labels)

        log_probs = F.log_softmax(logits, dim=1)
        ratio = gce_log_ratio(log_probs, self.regularizer_weight, group)
        losses = _nll_of_targets(ratio, labels)
        if self.label_smoothing > 0:
            losses = _smoothed(losses, ratio, self.label_smoothing)
        if self.focal_gamma > 0:
            target = _target_probability(log_probs, labels)
            losses = power(1 - target, self.focal_gamma) * losses
        return self.reduce(losses)

    def _plain(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Eq. 7 of class ids in one process: what a training step calls."""
        weight = self.regularizer_weight
        losses = _large_batch_losses(logits, labels, weight)
        if losses is not None:
            return self.reduce(losses)
        ratio = gce_log_ratio(F.log_softmax(logits, dim=1), weight)
        return label_nll(ratio, labels, self.reduction)


def _nll_of_targets(ratio: Tensor, labels: Tensor) -> Tensor:
    """The mean of -``ratio`` under each sample's label or soft target, (N,)."""
    if not labels.is_floating_point():
        return label_nll(ratio, labels)
    if may_hold_minus_infinity(ratio):  # 0 log 0 is 0, not NaN
        ratio = ratio.masked_fill(labels == 0, 0)
    return -(labels * ratio).sum(1)


def _smoothed(losses: Tensor, ratio: Tensor, smoothing: float) -> Tensor:
    """The losses for targets of which ``smoothing`` is spread over all classes."""
    mean_ratio = ratio.mean(1)
    if may_hold_minus_infinity(mean_ratio):
        # Bounded: lerp finds NaN between two infinite losses.
        losses = losses.clamp_max(torch.finfo(losses.dtype).max)
    return torch.lerp(losses, -mean_ratio, smoothing)


def _target_probability(log_probs: Tensor, labels: Tensor) -> Tensor:
    """What each sample's label or soft target has of the probability, (N,)."""
    if labels.is_floating_point():
        return (labels * log_probs.exp()).sum(1)
    return (-label_nll(log_probs, labels)).exp()


def _warn_of_one_sample() -> None:
    """Warn that GCE of one sample is 0 whatever the network says."""
    _check.warn(
        "GCE compares the samples of a batch: with one sample its class term cancels"
        " the loss; use larger batches or drop_last=True"
    )
