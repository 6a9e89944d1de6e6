"""Training losses: Generative Cross-Entropy (GCE) and the baselines that its paper compares it with.

Every loss is an ``nn.Module`` called as ``loss(logits, labels)``, so it replaces ``nn.CrossEntropyLoss``. ``logits`` is
(N, K) floating point, N >= 1, K >= 2; ``labels`` is (N,) integer in [0, K). ``ce``, ``brier``, ``gce`` also take soft
targets: floating point (N, K), rows that sum to 1. ``reduction`` is ``"mean"`` (default), ``"sum"`` or ``"none"``. All
work in log space, in the logits' dtype but at least float32, also under autocast; so is the result. Malformed input
raises ``ValueError`` or ``TypeError``; label values are checked on the CPU only (elsewhere it would stall the device).
Logits that are NaN or infinite are *not* refused: ``torch.amp.GradScaler`` must see that loss in order to skip a step.

"The paper" is Zhan, Zhou and Shen, arXiv 2604.06689 (2026). p = softmax(logits); t = p[i, y_i] is the *target
probability* of sample i; S_k = sum_i p[i, k] is the *class sum* over the batch.
"""

import inspect
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from gcelib import _check

_NO_LABEL = -(2**62)  # PyTorch's own choice of a label to ignore, -100, would let a mistake pass in silence


class _Loss(nn.Module):
    """What the losses share: input checks, at least float32, and the reduction of the losses of single samples."""

    soft_targets = False
    reductions: tuple[str, ...] = ("mean", "sum", "none")

    def __init__(self, reduction="mean", process_group=None):
        super().__init__()
        self.reduction = _check.choice("reduction", reduction, self.reductions)
        if process_group is not None and not isinstance(process_group, dist.ProcessGroup):
            what, fix = f"must be a ProcessGroup, got {process_group!r}", "pass torch.distributed.group.WORLD"
            _check.fail("process_group", what, fix, TypeError)
        self.process_group = process_group

    def extra_repr(self):
        names = [name for name in inspect.signature(type(self)).parameters if hasattr(self, name)]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names if name != "process_group")

    def forward(self, logits, labels):
        """The loss of logits (N, K) and labels (N,), a scalar (``reduction="none"``: (N,)) of at least float32.

        labels: class ids, or for ``ce``, ``brier`` and ``gce`` soft targets (N, K). Raises ValueError or TypeError.
        """
        for name, value in (("logits", logits), ("labels", labels)):
            if not isinstance(value, torch.Tensor):
                _check.fail(name, f"must be a torch tensor, got {type(value).__name__}", "convert it", TypeError)
            if value.layout != torch.strided:
                _check.as_tensor(name, value)  # refuses it
        _check.check_logits(logits, values=False)
        if labels.device != logits.device:
            _check.fail("labels", f"are on {labels.device}, logits on {logits.device}", "move both to one device")
        # Cast up by hand: autocast leaves float32 and float64 alone in all that follows (there are no matrix products).
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if self.soft_targets and labels.is_floating_point() and labels.ndim == 2:
            if labels.shape != logits.shape:
                what = f"soft targets {tuple(labels.shape)} for logits {tuple(logits.shape)}"
                _check.fail("labels", what, "pass one probability per logit")
            if labels.device.type == "cpu" and not torch.compiler.is_compiling():
                off = (labels.detach().sum(1, dtype=torch.float64) - 1).abs()
                if not (labels.detach().amin() >= 0 and off.amax() < 0.01):
                    _check.fail("labels", "soft targets are not probabilities", "make them >= 0, rows summing to 1")
            return self.compute(logits, labels.to(logits.dtype))
        if labels.is_floating_point() and labels.shape == logits.shape:
            _check.fail("labels", "are soft targets, which this loss does not take", "pass class ids", TypeError)
        _check.check_labels(labels, *logits.shape, values=False)
        try:
            return self.compute(logits, labels.long())
        except (IndexError, RuntimeError):  # PyTorch's CPU kernels look at every label: no pass of our own before them
            _check.check_labels(labels, *logits.shape)
            raise

    def compute(self, logits, labels):
        return self.reduce(self.per_sample(F.log_softmax(logits, dim=1), labels))

    def reduce(self, losses):
        """Reduce ``losses`` (N,); with a process group over all of its samples, as ``GCELoss`` explains."""
        if self.reduction == "none":
            return losses
        if self.process_group is None:
            return losses.mean() if self.reduction == "mean" else losses.sum()
        total, count = losses.sum() * self.process_group.size(), losses.new_full((), len(losses))
        if self.reduction == "sum":
            return total
        dist.all_reduce(count, group=self.process_group)
        return total / count


def _nll(log_probs, labels, reduction="none"):
    """-log_probs[i, labels[i]], shape (N,)."""
    return F.nll_loss(log_probs, labels, reduction=reduction, ignore_index=_NO_LABEL)


def _power(base, gamma):
    """``base ** gamma`` for base >= 0, with gradient 0 at base = 0 (where gamma < 1 would give infinity, then NaN)."""
    return base.clamp_min(1e-20) ** gamma


class CrossEntropyLoss(_Loss):
    """Negative log-likelihood -log t, exactly as ``nn.CrossEntropyLoss`` (``ce``; ``ce_ls``: with label smoothing).

    label_smoothing: alpha in [0, 1]; targets become (1 - alpha) target + alpha / K. ``ce_ls`` and ``gce_ls`` take 0.05:
    the paper gives no alpha; "smoothing_0.05" is in file names of the code it builds on (torrvision/focal_calibration).
    """

    soft_targets = True

    def __init__(self, label_smoothing=0.0, reduction="mean"):
        super().__init__(reduction)
        self.label_smoothing = _check.number("label_smoothing", label_smoothing, 0, 1)

    def compute(self, logits, labels):
        options = {"label_smoothing": self.label_smoothing, "reduction": self.reduction, "ignore_index": _NO_LABEL}
        return F.cross_entropy(logits, labels, **options)


class _AllReduceSum(torch.autograd.Function):
    """Sum over the processes of a group; so is the gradient, because every process uses the sum."""

    @staticmethod
    def forward(ctx, values, group):
        ctx.group, values = group, values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(values, group=group)
        return values

    @staticmethod
    def backward(ctx, grad):
        return _AllReduceSum.apply(grad, ctx.group), None


def _may_mask_a_class(log_probs):
    """Does the first sample hold -inf? True also where nobody can look: on an accelerator, in torch.compile, vmap."""
    if not log_probs.is_cpu or torch.compiler.is_compiling():
        return True
    try:
        row = log_probs.detach().numpy()[0].tobytes()  # a search for its bytes is cheaper than any tensor operation
        return b"\0\0\x80\xff" in row or b"\0\0\xf0\xff" in row  # -inf in float32, in float64 (or another number)
    except RuntimeError:
        return True


def gce_log_ratio(log_probs, weight, group):
    """log p - weight log S, shape (N, K), with the class sums S over the whole process group."""
    if weight == 0:
        return log_probs
    if _may_mask_a_class(log_probs):  # -inf in every sample is a sum of 0, and its gradient NaN
        log_probs = log_probs.clamp_min(-1e30)
    if group is None:
        ratio = F.log_softmax(log_probs, dim=0)
    else:  # shifted by the maximum, so that a class whose probabilities all underflow stays finite
        shift = log_probs.detach().amax(0)
        dist.all_reduce(shift, dist.ReduceOp.MAX, group=group)
        ratio = log_probs - shift
        ratio = ratio - _AllReduceSum.apply(ratio.exp().sum(0), group).log()
    return ratio if weight == 1 else torch.lerp(log_probs, ratio, weight)


class _LargeBatchGCE(torch.autograd.Function):
    """-log t + weight log S per sample, its gradient written out: one exponential per cell and few passes over them."""

    @staticmethod
    def forward(logits, labels, weight, probs, sums):
        log_t = logits.gather(1, labels[:, None]).squeeze(1) - logits.amax(1) + probs.amax(1).log()
        return weight * sums.log()[labels] - log_t

    @staticmethod
    def setup_context(ctx, inputs, output):  # apart from forward, as torch.func asks for
        logits, labels, ctx.weight, probs, sums = inputs
        ctx.save_for_backward(logits, labels, probs, sums)

    @staticmethod
    def backward(ctx, grad):
        logits, labels, probs, sums = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody differentiates twice: let autograd do it
            losses = _nll(gce_log_ratio(F.log_softmax(logits, dim=1), ctx.weight, None), labels)
            return *torch.autograd.grad(losses, logits, grad, create_graph=True), None, None, None, None
        by_class = torch.zeros_like(sums).index_add_(0, labels, ctx.weight * grad)
        result = probs * torch.where(by_class == 0, 0, by_class / sums)  # the sum of a class without labels may be 0
        result.addcmul_(probs, (grad - result.sum(1))[:, None])
        return result.scatter_add_(1, labels[:, None], -grad[:, None]), None, None, None, None


class GCELoss(_Loss):
    """Generative Cross-Entropy: how improbable is each *image* given its class, among the images of the batch?

    The mean of -log(t_i / S_{y_i}), the paper's Eq. 4. In one line: the negative log-likelihood of ``log_softmax`` over
    the batch of ``log_softmax`` over the classes. It is cross-entropy + (1/N) sum_k N_k log S_k (Eq. 7; N_k labels are
    k). It couples the samples: the batch size belongs to its definition, gradients accumulated over small batches are
    not those of a large one, and its minimum is (1/N) sum_k N_k log N_k, not 0. One sample gives 0, and a UserWarning.

    label_smoothing: alpha in [0, 1] of Eq. 5 and 6: targets become (1 - alpha) target + alpha / K.
    focal_gamma: gamma >= 0 of Eq. 9: each sample's term is multiplied by (1 - t_i)^gamma, and gradient flows through
        that. For soft targets q, t_i = sum_k q_ik p_ik (our choice); smoothing does not change t_i.
    regularizer_weight: lambda in [0, 1], the weight of Eq. 7's second term: 0 is cross-entropy, 1 GCE. Above 1 the loss
        is unbounded below, so refused. Below 1, a convex mix with cross-entropy, it is strictly proper without the rank
        condition of Theorem 1 (ours, not the paper's).
    process_group: a ``torch.distributed`` group; class sums and mean (or sum) run over its global batch. Opt-in, since
        an implicit one would deadlock an evaluation on one process: all must call the loss, with a sample or more each.
        Values are scaled by the number of processes, so that their *average* is the global loss, and the gradients that
        DDP averages equal one process's on the whole batch, also for shards of unequal size. ``"none"`` is not scaled.
    """

    soft_targets = True

    def __init__(self, label_smoothing=0, focal_gamma=0, regularizer_weight=1, reduction="mean", process_group=None):
        super().__init__(reduction, process_group)
        self.label_smoothing = _check.number("label_smoothing", label_smoothing, 0, 1)
        self.focal_gamma = _check.number("focal_gamma", focal_gamma, 0)
        self.regularizer_weight = _check.number("regularizer_weight", regularizer_weight, 0, 1)

    def compute(self, logits, labels):
        weight, group, soft = self.regularizer_weight, self.process_group, labels.is_floating_point()
        if len(logits) == 1 and weight > 0 and group is None:
            what = "GCE compares the samples of a batch: with one sample its class term cancels the loss"
            warnings.warn(f"{what}; use larger batches or drop_last=True", UserWarning, stacklevel=5)
        plain = not (soft or group is not None or self.label_smoothing or self.focal_gamma)
        # On a CPU, and from about 1e5 cells on, exponentials and passes over the cells are what costs.
        if plain and logits.numel() > 1e5 and logits.device.type == "cpu" and not torch.compiler.is_compiling():
            probs = F.softmax(logits.detach(), dim=1)
            sums = probs.sum(0)
            if sums[labels].amin() > 1e-30:  # else a class all but underflows, and only the log space below is exact
                return self.reduce(_LargeBatchGCE.apply(logits, labels, weight, probs, sums))
        log_probs = F.log_softmax(logits, dim=1)
        ratio = gce_log_ratio(log_probs, weight, group)
        if plain:
            return _nll(ratio, labels, self.reduction)
        losses = -(labels * ratio).sum(1) if soft else _nll(ratio, labels)
        if self.label_smoothing:
            losses = torch.lerp(losses, -ratio.mean(1), self.label_smoothing)
        if self.focal_gamma:
            target = (labels * log_probs.exp()).sum(1) if soft else (-_nll(log_probs, labels)).exp()
            losses = _power(1 - target, self.focal_gamma) * losses
        return self.reduce(losses)


class BrierLoss(_Loss):
    """Squared distance between probabilities and (one-hot or soft) target, *summed* over classes: 0 to 2 per sample."""

    soft_targets = True

    def per_sample(self, log_probs, labels):
        probs = log_probs.exp()
        if not labels.is_floating_point():
            return probs.scatter_add(1, labels[:, None], probs.new_full((len(probs), 1), -1)).square().sum(1)
        return (probs - labels).square().sum(1)


class MMCELoss(_Loss):
    """Cross-entropy + ``mmce_weight`` x the weighted maximum mean calibration error (MMCE) of Kumar et al. 2018.

    As torrvision/focal_calibration trains it (Losses/mmce.py): with top-1 confidences c, m right (R) and n wrong (W)
    predictions, k = exp(-|c - c'| / 0.4), and means over pairs of samples, MMCE is 0 if m or n is 0, else the root of
    mean_RR[(1-c)(1-c')k] / (m^2 + 1e-5) + mean_WW[c c' k] / (n^2 + 1e-5) - 2 mean_RW[(1-c) c' k] / (mn + 1e-5) + 1e-10.
    So that code divides by the counts twice, which makes the term small; we keep that and its weight. MMCE belongs to
    the batch: reduction ``"sum"`` is N times the mean (the published loop), ``"none"`` is refused. O(N^2) memory.
    """

    reductions = ("mean", "sum")

    def __init__(self, mmce_weight=2.0, reduction="mean"):
        super().__init__(reduction)
        self.mmce_weight = _check.number("mmce_weight", mmce_weight, 0)

    def per_sample(self, log_probs, labels):
        log_confidence, predictions = log_probs.max(1)
        confidence, correct = log_confidence.exp(), (predictions == labels).to(log_probs.dtype)
        right, wrong = correct * (1 - confidence), (1 - correct) * confidence
        m, n = correct.sum(), (1 - correct).sum()
        m2, n2, mn = ((x * y).clamp_min(1) for x, y in ((m, m), (n, n), (m, n)))  # finite where the result is masked
        kernel = ((confidence[:, None] - confidence).abs() / -0.4).exp()
        to_wrong = (kernel * wrong).sum(1)
        squared = (right * (kernel * right).sum(1)).sum() / (m2 * (m2 + 1e-5))
        squared = squared + (wrong * to_wrong).sum() / (n2 * (n2 + 1e-5))
        squared = squared - 2 * (right * to_wrong).sum() / (mn * (mn + 1e-5))
        mmce = torch.where(m * n > 0, (squared.clamp_min(0) + 1e-10).sqrt(), 0)
        return _nll(log_probs, labels) + self.mmce_weight * mmce


class FocalLoss(_Loss):
    """Focal loss -(1 - t)^gamma log t of Lin et al. 2017; gamma >= 0, where 0 is cross-entropy."""

    def __init__(self, gamma=3.0, reduction="mean"):
        super().__init__(reduction)
        self.gamma = _check.number("gamma", gamma, 0)

    def per_sample(self, log_probs, labels):
        nll = _nll(log_probs, labels)
        return _power(1 - (-nll).exp(), self.gamma) * nll


class FLSDLoss(_Loss):
    """Focal loss with sample-dependent gamma, FLSD-53 of Mukhoti et al. 2020: 5 where t < 0.2, 3 elsewhere."""

    def per_sample(self, log_probs, labels):
        nll = _nll(log_probs, labels)
        t = (-nll).exp()
        return _power(1 - t, torch.where(t < 0.2, 5.0, 3.0).to(t.dtype)) * nll


#: gamma of DFL by (dataset, model), from the README of Linwei94/ICML2023-DualFocalLoss. For others use the default 5.
DFL_GAMMA = {
    (dataset, model): gamma
    for dataset, row in {
        "cifar10": {"resnet50": 5.0, "resnet110": 4.5, "wrn_28_10": 2.6, "densenet121": 5.0},
        "cifar100": {"resnet50": 5.0, "resnet110": 6.1, "wrn_28_10": 3.9, "densenet121": 3.4},
        "tiny_imagenet": {"resnet50": 2.3},
    }.items()
    for model, gamma in row.items()
}


class DualFocalLoss(FocalLoss):
    """Dual focal loss (DFL) of Tao et al. 2023: -(1 - t + q)^gamma log t; gamma >= 0, see ``DFL_GAMMA``.

    q is the largest probability *strictly below* t (0 if there is none), and gradient flows through it, as in the
    authors' dual_focal_loss.py. The paper's "highest non-target logit" differs from that where the prediction is wrong.
    """

    def __init__(self, gamma=5.0, reduction="mean"):
        super().__init__(gamma, reduction)

    def per_sample(self, log_probs, labels):
        nll, probs = _nll(log_probs, labels), log_probs.exp()
        t = probs.gather(1, labels[:, None])
        rival = torch.where(probs < t, probs, 0).max(1).values
        return _power(1 - t.squeeze(1) + rival, self.gamma) * nll


class AdaFocalLoss(_Loss):
    """AdaFocal (AFL) of Ghosh et al. 2022: focal loss whose gamma follows the calibration gap on validation data.

    A sample takes the gamma of the bin that its target probability t falls in. Its loss is -(1 - t)^gamma log t if
    gamma > 0, and the inverse focal loss -(1 + t)^|gamma| log t if gamma < 0. Call ``update`` after every epoch. With
    ``generative=True`` the same factor precedes GCE's -log(t / S) (the paper's Eq. 16, ``afl_gce``; ``process_group``
    as in ``GCELoss``). Buffers, kept by ``state_dict``: ``gamma`` (n_bins,), at first 1, and ``bin_edges``
    (n_bins + 1,), at first equally spaced. The rule is 3mcloud/adafocal's (losses/adafocal.py, main.py).
    """

    def __init__(self, n_bins=15, generative=False, reduction="mean", process_group=None):
        super().__init__(reduction, process_group)
        n_bins = _check.number("n_bins", n_bins, 1, 10_000, integer=True)
        self.generative = _check.boolean("generative", generative)
        self.register_buffer("gamma", torch.ones(n_bins))
        self.register_buffer("bin_edges", torch.linspace(0, 1, n_bins + 1))

    def per_sample(self, log_probs, labels):
        nll = _nll(log_probs, labels)
        t = (-nll).exp()
        # First bin: t < its upper edge. Last: t >= its lower edge. Between: lower <= t < upper.
        bins = torch.searchsorted(self.bin_edges[1:-1].to(t.dtype), t.detach(), right=True)
        gamma = self.gamma.to(t.dtype)[bins]
        if self.generative:
            nll = _nll(gce_log_ratio(log_probs, 1, self.process_group), labels)
        return _power(1 - gamma.sign() * t, gamma.abs()) * nll

    @torch.no_grad()
    def update(self, val_logits, val_labels):
        """Move every bin's gamma by the bin's calibration gap, then draw new bins of equal mass.

        val_logits (N, K), val_labels (N,): finite, of the validation set in evaluation mode; the same on every process.
        Edge j of the bins (lower, upper] lies at position j N / n_bins of the sorted top-1 confidences; the smallest is
        in no bin, as in the authors' code. gap = mean confidence - accuracy, 0 in an empty bin. gamma is multiplied by
        exp(gap) if positive, else by exp(-gap); if then |gamma| < 0.2, it becomes -0.2 if positive, else 0.2; then it
        is clipped to [-2, 20]. gamma stays with its bin's index although the edges move.
        """
        logits, labels = _check.logits_and_labels(val_logits, val_labels)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        log_confidence, predictions = F.log_softmax(logits, dim=1).max(1)
        confidence, correct = log_confidence.exp().cpu().double().numpy(), (predictions == labels).cpu().numpy()
        n_bins, n_samples = len(self.gamma), len(confidence)
        edges = np.interp(np.linspace(0, n_samples, n_bins + 1), np.arange(n_samples), np.sort(confidence))
        inside = confidence > edges[0]
        bins = np.searchsorted(edges, confidence[inside]) - 1
        gap = np.bincount(bins, (confidence - correct)[inside], n_bins) / np.bincount(bins, minlength=n_bins).clip(1)
        gamma = self.gamma.cpu().double().numpy()
        gamma = gamma * np.exp(np.where(gamma > 0, gap, -gap))
        gamma = np.where(np.abs(gamma) < 0.2, np.where(gamma > 0, -0.2, 0.2), gamma).clip(-2, 20)
        self.gamma.copy_(torch.from_numpy(gamma))
        self.bin_edges.copy_(torch.from_numpy(edges))


#: Every loss by its name in configurations, run folders and tables: the paper's seven in its order, then variants.
LOSSES: dict[str, Callable[..., nn.Module]] = {"ce": CrossEntropyLoss, "brier": BrierLoss, "mmce": MMCELoss}
LOSSES |= {"flsd": FLSDLoss, "dfl": DualFocalLoss, "afl": AdaFocalLoss, "gce": GCELoss, "focal": FocalLoss}
LOSSES |= {"ce_ls": partial(CrossEntropyLoss, label_smoothing=0.05), "gce_ls": partial(GCELoss, label_smoothing=0.05)}
LOSSES |= {"afl_gce": partial(AdaFocalLoss, generative=True)}


def make_loss(name, /, **options):
    """The loss called ``name`` in ``LOSSES`` with these options; a misspelt name or option proposes the nearest one."""
    factory = LOSSES[_check.choice("loss", name, LOSSES)]
    _check.known_keys("loss_options", options, inspect.signature(factory).parameters)
    return factory(**options)
