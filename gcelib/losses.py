"""Training losses: Generative Cross-Entropy (GCE) and the baselines that its paper compares it with.

Every loss is an ``nn.Module`` called as ``loss(logits, labels)``, so each replaces ``nn.CrossEntropyLoss``.
``logits`` is (N, K) floating point, N >= 1, K >= 2; ``labels`` is (N,) integer in [0, K). ``ce``, ``brier`` and ``gce`` also
take soft targets: floating point (N, K), rows that are probabilities. ``reduction`` is ``"mean"`` (default), ``"sum"`` or
``"none"``; the result has the logits' dtype but at least float32, also under autocast, and is computed in log space.

Wrong shapes, dtypes and reductions raise ``ValueError`` or ``TypeError``. Label values are checked on CPU tensors only (on an
accelerator a check would stall it), and not under ``torch.compile``. Logits that are NaN or infinite are *not* refused: they
give a NaN or infinite loss, which is what ``torch.amp.GradScaler`` has to see in order to skip the step.

"the paper" is Zhan, Zhou and Shen, arXiv 2604.06689 (2026). With p = softmax(logits): t = p[i, y_i] is a sample's *target
probability* and S_k = sum_i p[i, k] a *class sum* over the batch.
"""

import inspect
import warnings
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from gcelib import _validate


class _Loss(nn.Module):
    """What the losses share: input checks, at least float32, and the reduction of per-sample losses."""

    soft_targets = False
    reductions = ("mean", "sum", "none")

    def __init__(self, reduction="mean", process_group=None):
        super().__init__()
        self.reduction = _validate.choice("reduction", reduction, self.reductions)
        if process_group is not None and not isinstance(process_group, dist.ProcessGroup):
            what, fix = type(process_group).__name__, "pass torch.distributed.group.WORLD after init_process_group"
            _validate.fail("process_group", f"must be a ProcessGroup, got {what}", fix, TypeError)
        self.process_group = process_group

    def forward(self, logits, labels):
        labels = _check(logits, labels, self.soft_targets)
        # Cast up by hand: autocast leaves float32 and float64 alone in every operation used here (no matrix products).
        log_probs = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
        return self.reduce(self.per_sample(log_probs, labels))

    def reduce(self, losses):
        """The reduction of per-sample ``losses`` (N,); with a process group, see ``GCELoss``."""
        if self.reduction == "none":
            return losses
        total, count = losses.sum(), losses.shape[0]
        if self.process_group is not None:
            total = total * self.process_group.size()
            count = losses.new_tensor(count)
            dist.all_reduce(count, group=self.process_group)
        return total / count if self.reduction == "mean" else total

    def extra_repr(self):
        shown = {k: v for k, v in vars(self).items() if isinstance(v, (int, float, str)) and k != "training"}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items())


def _check(logits, labels, soft_targets):
    """Refuse malformed input; class ids as int64, soft targets in the dtype of the computation."""
    for name, value in (("logits", logits), ("labels", labels)):
        if not isinstance(value, torch.Tensor):
            _validate.fail(
                name, f"must be a torch tensor, got {type(value).__name__}", "use torch.as_tensor", TypeError
            )
    _validate.check_logits(logits, values=False)
    if labels.device != logits.device:
        _validate.fail("labels", f"are on {labels.device}, logits on {logits.device}", "move both to one device")
    if not (soft_targets and labels.is_floating_point() and labels.ndim == 2):
        _validate.check_labels(labels, *logits.shape, values=not torch.compiler.is_compiling())
        return labels.long()
    if labels.shape != logits.shape:
        what = f"soft targets have shape {tuple(labels.shape)}, logits {tuple(logits.shape)}"
        _validate.fail("labels", what, "pass one probability per logit, or class ids (N,)")
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        rows = labels.detach().sum(1, dtype=torch.float64)
        if not (labels.detach().amin() >= 0 and ((rows - 1).abs() < 0.01).all()):
            _validate.fail("labels", "soft targets are not probabilities", "make rows non-negative with sum 1")
    return labels.to(torch.promote_types(logits.dtype, torch.float32))


def _at(values, labels):
    """``values[i, labels[i]]``, shape (N,)."""
    return values.gather(1, labels[:, None]).squeeze(1)


def _power(base, gamma):
    """``base ** gamma`` for base in [0, 2], with a finite gradient at base = 0 also for gamma < 1 (there it is 0)."""
    return base.clamp_min(1e-20) ** gamma


class CrossEntropyLoss(_Loss):
    """Negative log-likelihood -log t, as ``nn.CrossEntropyLoss`` computes it (``ce``; ``ce_ls`` with smoothing 0.05).

    label_smoothing: alpha in [0, 1]; the target becomes (1 - alpha) target + alpha / K. The paper gives no alpha; 0.05 in
    ``ce_ls`` and ``gce_ls`` is what the file names of its reference code (torrvision/focal_calibration) say.
    """

    soft_targets = True

    def __init__(self, label_smoothing=0.0, reduction="mean"):
        super().__init__(reduction)
        self.label_smoothing = _validate.number("label_smoothing", label_smoothing, 0, 1)

    def forward(self, logits, labels):
        labels = _check(logits, labels, self.soft_targets)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels, reduction=self.reduction, label_smoothing=self.label_smoothing)


class _AllReduceSum(torch.autograd.Function):
    """Sum over the processes of a group; the gradient is summed over them too, since every process uses the sum."""

    @staticmethod
    def forward(ctx, values, group):
        ctx.group = group
        values = values.clone()
        dist.all_reduce(values, group=group)
        return values

    @staticmethod
    def backward(ctx, grad):
        return _AllReduceSum.apply(grad, ctx.group), None


def _log_ratio(log_probs, weight, group):
    """log p - weight log S, (N, K): the ratio of every probability to its class sum, over the whole process group."""
    if weight == 0:
        return log_probs
    if group is None:
        ratio = F.log_softmax(log_probs, dim=0)
    else:  # as logsumexp does, shifted by the maximum, so that a class whose probabilities all underflow stays finite
        shift = log_probs.detach().amax(0)
        dist.all_reduce(shift, dist.ReduceOp.MAX, group=group)
        ratio = log_probs - shift - _AllReduceSum.apply((log_probs - shift).exp().sum(0), group).log()
    return ratio if weight == 1 else torch.lerp(log_probs, ratio, weight)


class GCELoss(_Loss):
    """Generative Cross-Entropy: how improbable each *image* is given its class, within the batch (the paper's Eq. 4).

    Mean over samples of -log(t_i / S_{y_i}). In one line: the negative log-likelihood of ``log_softmax`` over the batch of
    ``log_softmax`` over the classes. It equals cross-entropy + (1/N) sum_k N_k log S_k (Eq. 7, N_k the count of class k).
    It couples the samples: batch size and ``drop_last`` belong to its definition, accumulating gradients over small batches is
    not one big batch, and its minimum is sum_k (N_k/N) log N_k rather than 0. With one sample it is constant, and warns.

    label_smoothing: alpha in [0, 1] of Eq. 5/6: targets (1 - alpha) target + alpha / K.
    focal_gamma: gamma >= 0 of Eq. 9: the factor (1 - t_i)^gamma, through which gradient flows, before each sample's term. For
        soft targets q, t_i = sum_k q_ik p_ik (our choice; t_i is taken before smoothing).
    regularizer_weight: lambda in [0, 1], the weight of Eq. 7's second term: 0 is cross-entropy, 1 GCE. Values above 1 are
        refused: the loss would be unbounded below. For lambda < 1 it is a convex mix with cross-entropy, hence strictly proper
        without Theorem 1's rank condition (ours, not the paper's).
    process_group: a ``torch.distributed`` group (opt-in: an implicit one would deadlock an evaluation on one rank). S_k and the
        mean (or sum) then run over the group's global batch; shards may differ in size but not be empty. Every process must
        call the loss. Its value there is scaled by the world size so that the *average* over the processes is the global loss,
        and the gradients that DDP averages equal those of one process with the whole batch. ``"none"`` is not scaled.
    """

    soft_targets = True

    def __init__(
        self, label_smoothing=0.0, focal_gamma=0.0, regularizer_weight=1.0, reduction="mean", process_group=None
    ):
        super().__init__(reduction, process_group)
        self.label_smoothing = _validate.number("label_smoothing", label_smoothing, 0, 1)
        self.focal_gamma = _validate.number("focal_gamma", focal_gamma, 0)
        self.regularizer_weight = _validate.number("regularizer_weight", regularizer_weight, 0, 1)

    def per_sample(self, log_probs, labels):
        if len(log_probs) == 1 and self.regularizer_weight > 0 and self.process_group is None:
            message = "GCE compares the samples of a batch: with one sample its loss is constant and teaches nothing"
            warnings.warn(f"{message}; use larger batches, or drop_last=True", UserWarning, stacklevel=5)
        ratio = _log_ratio(log_probs, self.regularizer_weight, self.process_group)
        soft = labels.is_floating_point()
        losses = -(labels * ratio).sum(1) if soft else -_at(ratio, labels)
        if self.label_smoothing:
            losses = torch.lerp(losses, -ratio.mean(1), self.label_smoothing)
        if self.focal_gamma:
            target = (labels * log_probs.exp()).sum(1) if soft else _at(log_probs, labels).exp()
            losses = _power(1 - target, self.focal_gamma) * losses
        return losses


class BrierLoss(_Loss):
    """Squared distance of the probabilities from the (one-hot or soft) target, summed over classes: in [0, 2] per sample."""

    soft_targets = True

    def per_sample(self, log_probs, labels):
        probs = log_probs.exp()
        target = labels if labels.is_floating_point() else F.one_hot(labels, probs.shape[1])
        return (probs - target).square().sum(1)


class MMCELoss(_Loss):
    """Cross-entropy plus ``mmce_weight`` times the weighted maximum mean calibration error of Kumar et al. 2018.

    As torrvision/focal_calibration (Losses/mmce.py) trains it. With c top-1 confidences, m right and n wrong predictions, kernel
    k(u, v) = exp(-|u - v| / 0.4), and means over pairs of right (R) and wrong (W) samples,
    MMCE^2 = mean_RR[(1-c)(1-c')k] / (m^2 + 1e-5) + mean_WW[c c' k] / (n^2 + 1e-5) - 2 mean_RW[(1-c) c' k] / (mn + 1e-5) + 1e-10,
    and MMCE = 0 if m or n is 0. That code divides by the counts twice (the mean already does), so the term is small; we keep it.
    Its weight 2 is the one in all of its training scripts. It is a batch statistic: reduction ``"sum"`` is N times the mean,
    as in the published loop, and ``"none"`` is refused. Time and memory O(N^2).
    """

    reductions = ("mean", "sum")

    def __init__(self, mmce_weight=2.0, reduction="mean"):
        super().__init__(reduction)
        self.mmce_weight = _validate.number("mmce_weight", mmce_weight, 0)

    def per_sample(self, log_probs, labels):
        log_confidence, predictions = log_probs.max(1)
        confidence, correct = log_confidence.exp(), (predictions == labels).to(log_probs.dtype)
        kernel = ((confidence[:, None] - confidence).abs() / -0.4).exp()
        right, wrong = correct * (1 - confidence), (1 - correct) * confidence
        m, n = correct.sum(), (1 - correct).sum()
        kernel_right, kernel_wrong = (kernel * right).sum(1), (kernel * wrong).sum(1)
        m1, n1 = m.clamp_min(1), n.clamp_min(1)  # with no right or no wrong prediction: finite, then masked
        squared = (right * kernel_right).sum() / (m1**2 * (m1**2 + 1e-5))
        squared = squared + (wrong * kernel_wrong).sum() / (n1**2 * (n1**2 + 1e-5))
        squared = squared - 2 * (right * kernel_wrong).sum() / (m1 * n1 * (m1 * n1 + 1e-5))
        mmce = torch.where((m > 0) & (n > 0), (squared.clamp_min(0) + 1e-10).sqrt(), 0)
        return -_at(log_probs, labels) + self.mmce_weight * mmce


class FocalLoss(_Loss):
    """Focal loss -(1 - t)^gamma log t of Lin et al. 2017; gamma >= 0, and 0 is cross-entropy."""

    def __init__(self, gamma=3.0, reduction="mean"):
        super().__init__(reduction)
        self.gamma = _validate.number("gamma", gamma, 0)

    def per_sample(self, log_probs, labels):
        log_t = _at(log_probs, labels)
        return -_power(-torch.expm1(log_t), self.gamma) * log_t


class FLSDLoss(_Loss):
    """Sample-dependent focal loss FLSD-53 of Mukhoti et al. 2020: gamma is 5 where t < 0.2 and 3 elsewhere."""

    def per_sample(self, log_probs, labels):
        log_t = _at(log_probs, labels)
        gamma = torch.where(log_t.detach().exp() < 0.2, 5.0, 3.0)
        return -_power(-torch.expm1(log_t), gamma) * log_t


#: gamma of DFL per (dataset, model): README of Linwei94/ICML2023-DualFocalLoss. It has none for other pairs; use 5.
DFL_GAMMA = {
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


class DualFocalLoss(_Loss):
    """Dual focal loss (DFL) of Tao et al. 2023: -(1 - t + q)^gamma log t.

    q is the largest probability *strictly below* t, 0 if there is none, as in the authors' code (dual_focal_loss.py); the paper
    at hand says "the highest non-target". Gradient flows through q. gamma >= 0: see ``DFL_GAMMA``.
    """

    def __init__(self, gamma=5.0, reduction="mean"):
        super().__init__(reduction)
        self.gamma = _validate.number("gamma", gamma, 0)

    def per_sample(self, log_probs, labels):
        log_t, probs = _at(log_probs, labels), log_probs.exp()
        rival = torch.where(probs < _at(probs, labels)[:, None], probs, 0).max(1).values
        return -_power(rival - torch.expm1(log_t), self.gamma) * log_t


class AdaFocalLoss(_Loss):
    """AdaFocal (AFL) of Ghosh et al. 2022: focal loss whose gamma follows the calibration gap on validation data.

    Each sample takes the gamma of the bin that its target probability t falls in: -(1 - t)^gamma log t for gamma >= 0, and the
    inverse focal loss -(1 + t)^|gamma| log t for gamma < 0. Call ``update`` after each epoch. With ``generative=True`` the same
    weight multiplies GCE's -log(t / S) (the paper's Eq. 16, ``afl_gce``; ``process_group`` as in ``GCELoss``).

    Buffers, saved by ``state_dict``: ``gamma`` (n_bins,), first 1, and ``bin_edges`` (n_bins + 1,), first equal-width.
    The rule and its constants are those of the authors' code, 3mcloud/adafocal (losses/adafocal.py, main.py).
    """

    def __init__(self, n_bins=15, reduction="mean", generative=False, process_group=None):
        super().__init__(reduction, process_group)
        n_bins = _validate.number("n_bins", n_bins, 1, integer=True)
        self.generative = _validate.boolean("generative", generative)
        self.register_buffer("gamma", torch.ones(n_bins))
        self.register_buffer("bin_edges", torch.linspace(0, 1, n_bins + 1))

    def per_sample(self, log_probs, labels):
        log_t = _at(log_probs, labels)
        # first bin: t < its upper edge; last: t >= its lower edge; between: lower <= t < upper
        bins = torch.searchsorted(self.bin_edges[1:-1].to(log_t.dtype), log_t.detach().exp(), right=True)
        gamma = self.gamma.to(log_t.dtype)[bins]
        base = torch.where(gamma < 0, 1 + log_t.exp(), -torch.expm1(log_t))
        ratio = _at(_log_ratio(log_probs, 1, self.process_group), labels) if self.generative else log_t
        return -_power(base, gamma.abs()) * ratio

    @torch.no_grad()
    def update(self, val_logits, val_labels):
        """Move every bin's gamma by its calibration gap, then take new equal-mass bins. Call after each epoch.

        val_logits (N, K) finite, val_labels (N,): from validation data, in evaluation mode. The gap is mean top-1 confidence
        minus accuracy in bins (lower, upper] of equal mass (edge j at position j N / n_bins of the sorted confidences; the
        smallest confidence is in no bin, as in the authors' code). gamma > 0 is multiplied by exp(gap), gamma <= 0 by exp(-gap);
        where |gamma| < 0.2 it changes sign to -0.2 or 0.2; then it is clipped to [-2, 20]. gamma belongs to the bin's index.
        """
        logits, labels = _validate.logits_and_labels(val_logits, val_labels)
        log_confidence, predictions = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), 1).max(
            1
        )
        confidence = log_confidence.exp().double().cpu().numpy()
        correct = (predictions == labels).double().cpu().numpy()
        n_bins, n = len(self.gamma), len(confidence)
        edges = np.interp(np.linspace(0, n, n_bins + 1), np.arange(n), np.sort(confidence))
        inside = confidence > edges[0]
        bins = np.searchsorted(edges, confidence[inside], side="left") - 1
        counts = np.bincount(bins, minlength=n_bins)
        gap = np.bincount(bins, (confidence - correct)[inside], minlength=n_bins) / np.maximum(counts, 1)
        gamma = self.gamma.double().cpu().numpy()
        gamma = gamma * np.exp(np.where(gamma > 0, gap, -gap))
        gamma = np.where(np.abs(gamma) < 0.2, np.where(gamma > 0, -0.2, 0.2), gamma).clip(-2, 20)
        self.gamma.copy_(torch.from_numpy(gamma))
        self.bin_edges.copy_(torch.from_numpy(edges))


#: Every loss by its name in configurations, folders and tables; the paper's seven first, in its order.
LOSSES = {
    "ce": CrossEntropyLoss,
    "brier": BrierLoss,
    "mmce": MMCELoss,
    "flsd": FLSDLoss,
    "dfl": DualFocalLoss,
    "afl": AdaFocalLoss,
    "gce": GCELoss,
    "focal": FocalLoss,
    "ce_ls": partial(CrossEntropyLoss, label_smoothing=0.05),
    "gce_ls": partial(GCELoss, label_smoothing=0.05),
    "afl_gce": partial(AdaFocalLoss, generative=True),
}


def make_loss(name, **options):
    """The loss called ``name`` in ``LOSSES``, built with ``options``; a misspelt name or option proposes the nearest."""
    factory = LOSSES[_validate.choice("loss", name, LOSSES)]
    _validate.known_keys("loss_options", options, inspect.signature(factory).parameters)
    return factory(**options)
