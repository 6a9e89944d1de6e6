"""How well do a classifier's probabilities match what happens? Calibration errors, proper scores, intervals.

Every function takes ``logits (N, K)`` (float16 to float64, torch tensor on any device, numpy array or memory map)
and integer ``labels (N,)``. Fractions come back as Python floats. The logits are read in blocks that stay in the
processor's cache, so the extra memory is a few numbers per sample, never a second N x K array. The checks refuse
what is not finite with a ValueError, values on CPU inputs only.

Conventions. Bins are half-open ``(lo, hi]`` and the first one is closed at 0; a value within 1e-12 of an edge counts as
on it. The prediction is the first class with the largest logit. K comes from the logits.
The published code (Mukhoti et al. 2020) differs in three places, where we count what it drops: the smallest
confidence belongs to the first equal-mass bin, a probability of exactly 0 belongs to the first bin, and classes that
no label names are averaged too.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from gcelib import _validate

_CELLS = {"cpu": 1 << 16}  # cells of a block: 256 kB of float32 stay in a core's cache
_NUDGE = 1 - 1e-12  # makes truncation mean (lo, hi], and puts what rounding lifted off an edge back on it
_METRICS = ("error", "nll", "brier", "ece", "adaptive_ece", "classwise_ece")


class Reliability(NamedTuple):
    """All bins of a reliability diagram, empty ones included (float64 and int64 arrays)."""

    edges: np.ndarray  # (n_bins + 1,)
    counts: np.ndarray  # (n_bins,)
    confidence: np.ndarray  # (n_bins,) mean confidence, nan where empty
    accuracy: np.ndarray  # (n_bins,) fraction of hits, nan where empty

    @property
    def gap(self):
        """Confidence minus accuracy, ``(n_bins,)``: positive is overconfident, nan where empty."""
        return self.confidence - self.accuracy

    @property
    def ece(self):
        """The size-weighted mean of ``|gap|`` over the bins."""
        return float(np.nansum(self.counts * np.abs(self.gap)) / self.counts.sum())

    @property
    def mce(self):
        """The largest ``|gap|``."""
        return float(np.nanmax(np.abs(self.gap)))


def _blocks(logits):
    """Yield ``(rows, z, dim)``: float logits of some rows, classes along ``dim`` (columns first for few classes)."""
    n, k = logits.shape
    step = max(1, _CELLS.get(logits.device.type, 1 << 24) // k)
    for start in range(0, n, step):
        z = logits[start : start + step]
        if z.dtype.itemsize < 4:
            z = z.float()
        if z.device.type == "cpu" and not math.isfinite(z.sum()):  # one cheap pass; a sum may also just overflow
            _validate.check_logits(logits)
        dim = 1 if k > 32 else 0
        yield slice(start, start + len(z)), z if dim else z.t().contiguous(), dim


def _softmax(z, dim):
    """``(top, e, s)`` with softmax = e / s and e = exp(z - top); 1 / s is the confidence."""
    top = z.amax(dim)
    e = (z - top.unsqueeze(dim)).exp_()
    return top, e, e.sum(dim)


def _scan(logits, labels, *wanted):
    """Per-sample float64 arrays, in the order ``wanted``: confidence, correct, nll, brier."""
    logits, labels = _validate.logits_and_labels(logits, labels, values=False)
    out = [np.empty(len(labels)) for _ in wanted]
    for rows, z, dim in _blocks(logits):
        y = labels[rows].unsqueeze(dim)
        top, e, s = _softmax(z, dim)
        z_y = z.gather(dim, y).squeeze(dim)
        for array, name in zip(out, wanted, strict=True):
            if name == "confidence":
                value = 1 / s.double()
            elif name == "correct":
                value = z_y == top
                tied = (value & (s >= 2)).nonzero().squeeze(1)  # a tie at the top puts at least 1 + 1 into s
                if len(tied):
                    value[tied] = z.index_select(1 - dim, tied).argmax(dim) == y.squeeze(dim)[tied]
            elif name == "nll":
                value = s.double().log() + (top.double() - z_y.double())
            else:
                p_y = (z_y.double() - top.double()).exp() / s.double()
                value = (e * e).sum(dim).double() / s.double().square() - 2 * p_y + 1
            array[rows] = value.cpu().numpy()
    return out


def _bins(n_bins):
    return _validate.number("n_bins", n_bins, 1, 1_000_000, integer=True)


def _cuts(values, n_bins, binning):
    """Bin edges for sorted ``values`` and the positions at which they cut them: bin b is ``[cuts[b], cuts[b + 1])``."""
    n = len(values)
    if binning == "width":
        edges = np.linspace(0, 1, n_bins + 1)
        cuts = np.searchsorted(values * (n_bins * _NUDGE), np.arange(n_bins + 1))
    else:
        edges = np.interp(np.arange(n_bins + 1) * (n / n_bins), np.arange(n), values)
        cuts = np.searchsorted(values, edges, side="right")
    cuts[0], cuts[-1] = 0, n
    return edges, cuts


def top_label(logits, labels):
    """Confidence and hit of the predicted class: ``(confidences, correct)``, float64 ``(N,)`` numpy arrays."""
    return tuple(_scan(logits, labels, "confidence", "correct"))


def softmax_confidence(logits):
    """The largest softmax probability of each row, a float64 ``(N,)`` numpy array."""
    logits = _validate.as_tensor("logits", logits)
    _validate.check_logits(logits, values=False)
    return np.concatenate([1 / _softmax(z, dim)[2].double().cpu().numpy() for _, z, dim in _blocks(logits)])


def binned_samples(logits, labels, n_bins=20, binning="width", class_index=None):
    """The samples behind ``reliability``, sorted: ``(edges, cuts, samples, probs, hits)``.

    Bin b is the slice ``cuts[b]:cuts[b + 1]`` of ``samples`` (indices), of their binned probabilities and of the hits.
    """
    n_bins, binning = _bins(n_bins), _validate.choice("binning", binning, ("width", "mass"))
    if class_index is None:
        values, hits = top_label(logits, labels)
    else:
        logits, labels = _validate.logits_and_labels(logits, labels, values=False)
        k = _validate.number("class_index", class_index, 0, logits.shape[1] - 1, integer=True)
        parts = ((z.select(dim, k), *_softmax(z, dim)) for _, z, dim in _blocks(logits))
        parts = [((z_k.double() - top.double()).exp() / s.double()).cpu().numpy() for z_k, top, _, s in parts]
        values, hits = np.concatenate(parts), (labels == k).cpu().numpy()
    order = np.argsort(values)
    edges, cuts = _cuts(values[order], n_bins, binning)
    return edges, cuts, order, values[order], hits[order]


def reliability(logits, labels, n_bins=20, binning="width", class_index=None):
    """Bins of a reliability diagram: how often is the model right when it says c?

    binning: ``"width"`` for equal-width bins of [0, 1], ``"mass"`` for about equally many samples in each, with the
    edges of ``adaptive_ece``.   class_index: k bins p_k against 1{y = k} instead of the top label.
    Returns a ``Reliability``. Raises ValueError or TypeError on bad input.
    """
    edges, cuts, _, values, hits = binned_samples(logits, labels, n_bins, binning, class_index)
    counts = np.diff(cuts)
    sums = [np.diff(np.concatenate(([0.0], np.cumsum(v, dtype=np.float64)))[cuts]) for v in (values, hits)]
    with np.errstate(invalid="ignore"):
        return Reliability(edges, counts, sums[0] / counts, sums[1] / counts)


def error(logits, labels):
    """Fraction of wrong predictions. Of tied largest logits the first is the prediction, as ``argmax`` has it."""
    return float(1 - _scan(logits, labels, "correct")[0].mean())


def nll(logits, labels):
    """Mean negative log-likelihood in nats: what ``F.cross_entropy`` computes, in [0, inf)."""
    return float(_scan(logits, labels, "nll")[0].mean())


def brier(logits, labels):
    """Mean over samples of the squared distance of the probabilities from the one-hot label, in [0, 2].

    Summed over the classes, as in Brier 1950; divide by K for the other common convention.
    """
    return float(_scan(logits, labels, "brier")[0].mean())


def ece(logits, labels, n_bins=20):
    """Average gap between confidence and accuracy, weighted by bin size.

    Guo et al. 2017, Eq. 3: ``sum_b n_b / N |acc_b - conf_b|`` with equal-width bins (lo, hi].

    logits: (N, K) float.  labels: (N,) int in [0, K).  n_bins: 20 as in the paper's tables, the published code has 15.
    Returns a float in [0, 1]; empty bins contribute nothing. It is biased upward: see ``evaluate``'s calibrated band.
    Raises ValueError or TypeError on bad input.
    """
    n_bins = _bins(n_bins)
    confidences, correct = top_label(logits, labels)
    index = (confidences * (n_bins * _NUDGE)).astype(np.intp)
    return float(np.abs(np.bincount(index, confidences - correct)).sum() / len(index))


def mce(logits, labels, n_bins=20):
    """The largest gap between confidence and accuracy in any of the bins of ``ece`` (Guo et al. 2017, Eq. 5)."""
    return reliability(logits, labels, n_bins).mce


def adaptive_ece(logits, labels, n_bins=20):
    """ECE with about equally many samples in each bin (Nguyen & O'Connor 2015).

    The edges interpolate the sorted confidences linearly at positions j N / n_bins, j = 0..n_bins, of the index grid
    0..N-1, clamped at its end: the published code's rule, not numpy's quantile. Unlike there, the smallest confidence
    belongs to the first bin. Equal confidences share a bin. Arguments, range and errors as ``ece``.
    """
    return reliability(logits, labels, n_bins, "mass").ece


def classwise_ece(logits, labels, n_bins=20):
    """ECE of every class's probability p_k against 1{y = k}, averaged over the K classes (Kull et al. 2019).

    Uses the bins of ``ece`` and all N samples for every class. Unlike the published code, a probability of exactly 0
    is in the first bin, and K is the number of logits, so a class without labels counts as well.
    Arguments, range and errors as ``ece``.
    """
    n_bins = _bins(n_bins)
    logits, labels = _validate.logits_and_labels(logits, labels, values=False)
    return float(np.abs(_class_bins(logits, labels, n_bins)).sum() / logits.numel())


def _class_bins(logits, labels, n_bins):
    """``(K, n_bins)`` sums of p_k - 1{y = k}. Only p_k > 1 / n_bins needs a bin; the first one is the rest."""
    k = logits.shape[1]
    cells, columns = np.zeros(k * n_bins), np.zeros(k)
    for rows, z, dim in _blocks(logits):
        _, e, s = _softmax(z, dim)
        columns += (e / s.unsqueeze(dim)).sum(1 - dim).double().cpu().numpy()
        at = (e > (s * ((1 - 1e-6) / n_bins)).unsqueeze(dim)).nonzero(as_tuple=True)
        sample, kind = at[1 - dim], at[dim]
        p = (e[at].double() / s[sample].double()).cpu().numpy()
        hit = (labels[rows][sample] == kind).cpu().numpy()
        index = kind.cpu().numpy() * n_bins + (p * (n_bins * _NUDGE)).astype(np.intp)
        np.add.at(cells, index, p - hit)
    cells = cells.reshape(k, n_bins)
    columns -= np.bincount(labels.cpu().numpy(), minlength=k)
    cells[:, 0] = columns - cells[:, 1:].sum(1)
    return cells


def entropy(logits):
    """Shannon entropy of each row's softmax in nats, in [0, log K]: a float64 ``(N,)`` numpy array."""
    logits = _validate.as_tensor("logits", logits)
    _validate.check_logits(logits, values=False)
    parts = []
    for _, z, dim in _blocks(logits):
        shifted = (z - z.amax(dim, keepdim=True)).clamp_(min=-1000)  # exp is 0 there; keeps 0 x inf out
        e = shifted.exp()
        s = e.sum(dim)
        parts.append((s.double().log() - (e * shifted).sum(dim).double() / s.double()).clamp_(min=0).cpu().numpy())
    return np.concatenate(parts)


def ood_auroc(logits_in, logits_ood):
    """Chance that an out-of-distribution sample has the larger entropy than an in-distribution one; ties count half.

    This is the area under the ROC curve with label 1 = out-of-distribution and ``entropy`` as score.
    """
    score_in, score_ood = np.sort(entropy(logits_in)), entropy(logits_ood)
    below, up_to = (np.searchsorted(score_in, score_ood, side).mean() for side in ("left", "right"))
    return float((below + up_to) / (2 * len(score_in)))


def _resampled(samples, n_bins, weights):
    """``(R, 5)``: error, nll, brier, ece, adaptive_ece of resamples that hold sample i ``weights[r, i]`` times.

    samples: float64 arrays sorted by confidence, so that every bin is a slice and a bin's sum a difference of two
    running sums.   weights: (R, N) whole numbers, each row adds up to N.
    """
    confidences, correct, nlls, briers = samples
    (r, n), first = weights.shape, np.arange(weights.shape[0])[:, None] * weights.shape[1]
    out = np.empty((r, 5))
    out[:, :3] = weights @ np.stack((1 - correct, nlls, briers), 1) / n
    gaps = np.concatenate(([0.0], np.cumsum(weights * (confidences - correct))))  # runs through all resamples
    out[:, 3] = np.abs(np.diff(gaps[first + _cuts(confidences, n_bins, "width")[1]])).sum(1) / n
    x = np.minimum(np.arange(n_bins + 1) * (n / n_bins), n - 1)  # positions in each sorted resample
    ranks, at = np.cumsum(weights), np.floor(x)
    lower, upper = (
        confidences[np.searchsorted(ranks, first + i, side="right") - first] for i in (at, np.minimum(at + 1, n - 1))
    )
    cuts = np.searchsorted(confidences, lower + (x - at) * (upper - lower), side="right")
    cuts[:, 0], cuts[:, -1] = 0, n
    out[:, 4] = np.abs(np.diff(gaps[first + cuts])).sum(1) / n
    return out


def _draw(rng, r, n):
    """``(r, n)``: how often each of n samples is drawn in r bootstrap resamples of size n."""
    drawn = rng.integers(0, n, (r, n)) + np.arange(r)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=r * n).reshape(r, n).astype(np.float64)


def evaluate(logits, labels, n_bins=20, bootstrap=0, seed=0):
    """Every metric at once: ``{"error", "nll", "brier", "ece", "adaptive_ece", "classwise_ece"}``, a flat dict.

    bootstrap: number of resamples of the samples; if positive, also ``<metric>_low`` and ``<metric>_high``, *basic*
    95 % intervals (twice the estimate minus the 97.5 and 2.5 % quantiles, clipped to the metric's range; the
    percentile interval of a biased estimate such as ECE can miss its own point), and ``ece_calibrated_high``: 95 of
    100 calibrated models with these confidences show an ECE below it.   seed: of the resampling.
    """
    n_bins = _bins(n_bins)
    bootstrap = _validate.number("bootstrap", bootstrap, 0, 1_000_000, integer=True)
    seed = _validate.number("seed", seed, 0, integer=True)
    logits, labels = _validate.logits_and_labels(logits, labels, values=False)
    samples = _scan(logits, labels, "confidence", "correct", "nll", "brier")
    order = np.argsort(samples[0])
    samples = [v[order] for v in samples]
    n, k = logits.shape
    point = _resampled(samples, n_bins, np.ones((1, n)))[0].tolist()
    point.append(float(np.abs(_class_bins(logits, labels, n_bins)).sum() / (n * k)))
    result = dict(zip(_METRICS, point, strict=True))
    if not bootstrap:
        return result
    rng = np.random.default_rng(seed)
    at_once = max(1, (1 << 18) // n)
    sizes = [min(at_once, bootstrap - i) for i in range(0, bootstrap, at_once)]
    draws = np.concatenate([_resampled(samples, n_bins, _draw(rng, r, n)) for r in sizes])
    draws = np.concatenate((draws, _class_draws(logits, labels, n_bins, bootstrap, rng)[:, None]), 1)
    q_low, q_high = np.quantile(draws, (0.025, 0.975), axis=0)
    tops = (1, math.inf, 2, 1, 1, 1)
    for name, value, a, b, top in zip(_METRICS, point, q_low, q_high, tops, strict=True):
        result[f"{name}_low"], result[f"{name}_high"] = (float(min(max(2 * value - q, 0), top)) for q in (b, a))
    cuts = _cuts(samples[0], n_bins, "width")[1]
    calibrated = []
    for r in sizes:
        gaps = np.zeros((r, n + 1))
        np.cumsum(samples[0] - (rng.random((r, n)) < samples[0]), axis=1, out=gaps[:, 1:])
        calibrated.append(np.abs(np.diff(gaps[:, cuts])).sum(1) / n)
    result["ece_calibrated_high"] = float(np.quantile(np.concatenate(calibrated), 0.95))
    return result


def _class_draws(logits, labels, n_bins, bootstrap, rng):
    """``(bootstrap,)``: classwise ECE of resamples, drawn block by block (multinomial within and between blocks)."""
    n, k = logits.shape
    at_once = max(1, (1 << 20) // (k * n_bins))
    out = []
    for i in range(0, bootstrap, at_once):
        r = min(at_once, bootstrap - i)
        cells, columns = torch.zeros(k * n_bins, r, dtype=torch.float64), torch.zeros(k, r, dtype=torch.float64)
        left, drawn = n, np.full(r, n)
        for rows, z, dim in _blocks(logits):
            size = rows.stop - rows.start
            here = rng.binomial(drawn, size / left)
            left, drawn = left - size, drawn - here
            ids = rng.integers(0, size, here.sum()) * r + np.repeat(np.arange(r), here)
            weights = torch.from_numpy(np.bincount(ids, minlength=size * r).reshape(size, r).astype(np.float64))
            _, e, s = _softmax(z, dim)
            p = (e / s.unsqueeze(dim)).double().cpu()
            p = p if dim else p.t()
            y = labels[rows].cpu()
            above = (p > (1 - 1e-6) / n_bins).nonzero()
            sample, kind = above[:, 0], above[:, 1]
            value = p[sample, kind]
            index = kind * n_bins + (value * (n_bins * _NUDGE)).long()
            gap = value - (y[sample] == kind).double()
            cells.index_add_(0, index, weights[sample] * gap[:, None])
            columns += p.t() @ weights
            columns.index_add_(0, y, -weights)
        cells = cells.view(k, n_bins, r)
        cells[:, 0] = columns - cells[:, 1:].sum(1)
        out.append(cells.abs().sum((0, 1)).numpy() / (n * k))
    return np.concatenate(out)
