"""How well do a classifier's probabilities match what happens? Calibration errors, proper scores, intervals.

Every function takes ``logits (N, K)`` (float16 to float64, a torch tensor on any device, a numpy array or memory map)
and integer ``labels (N,)``; fractions are Python floats. Bad input raises a ValueError or TypeError that names the
argument. Logits are read in blocks of a few MiB, in at least float32: the extra memory is a few numbers per sample.

Conventions. Bins are half-open ``(lo, hi]``, the first one is closed at 0; what exceeds an edge of equal width by a
millionth of it or less counts as on it. The prediction is the first class with the largest logit, as in ``argmax``. K
comes from the logits. The published code (Mukhoti et al. 2020) differs in three places, where we count what it drops:
the smallest confidence belongs to the first equal-mass bin, a probability of exactly 0 belongs to the first bin, and a
class that no label names is averaged like every other.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from gcelib import _check

_CELLS = 1 << 19  # logits in a block: 2 MiB of float32; smaller ones are lost in the overhead of calls
_NUDGE = 1 - 1e-6  # makes truncation mean (lo, hi], and puts back what rounding lifted off an edge
_RANGES = {"error": 1, "nll": math.inf, "brier": 2, "ece": 1, "adaptive_ece": 1, "classwise_ece": 1}


class Reliability(NamedTuple):
    """All bins of a reliability diagram, empty ones included: float64 and int64 arrays."""

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


class _Block(NamedTuple):
    """Some rows of logits and their softmax; ``dim`` runs over the classes."""

    rows: slice
    z: torch.Tensor
    p: torch.Tensor
    dim: int

    def pick(self, values, y):
        """``values`` (z or p) of class ``y`` in each row."""
        return values.gather(self.dim, y.unsqueeze(self.dim)).squeeze(self.dim)

    def top(self, y):
        """Confidence, and whether ``y`` is the first class with the largest logit."""
        confidence = self.p.amax(self.dim).numpy()
        hit = self.pick(self.p, y).numpy() > 0.9999 * confidence
        doubtful = np.flatnonzero(hit & (confidence < 0.501))  # above one half there is no second such class
        hit[doubtful] = self.z.numpy().take(doubtful, 1 - self.dim).argmax(self.dim) == y.numpy()[doubtful]
        return confidence, hit

    def scores(self, y):
        """Negative log-likelihood and Brier score."""
        top, confidence = self.z.amax(self.dim).double(), self.p.amax(self.dim).double()
        nll = top - self.pick(self.z, y).double() - confidence.log()
        squares = np.einsum(self.p.numpy(), [0, 1], self.p.numpy(), [0, 1], [1 - self.dim])  # makes no copy
        return nll, np.maximum(1 - 2 * self.pick(self.p, y).double().numpy() + squares, 0)  # rounding may leave -1e-7


def _surely_finite(z):
    """False if a value is not finite, or if the squares overflow: then look closer. One pass, the cheapest there is."""
    flat = z.numpy().reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.dot(flat, flat))


def _per_row(logits, labels, function, width, values=True):
    """What ``function(block, its labels)`` returns, ``width`` vectors, for all rows: float64 ``(width, N)``.

    values: refuse logits that are not finite; False for a second pass over the same.
    """
    (n, k), out = logits.shape, np.empty((width, len(logits)))
    step, dim = max(1, _CELLS // k), int(k >= 32)  # few classes come first: reductions run along long columns
    for start in range(0, n, step):
        z = logits[rows := slice(start, start + step)].cpu()
        z = z.float() if z.dtype.itemsize < 4 else z
        z = z.contiguous() if dim else torch.from_numpy(np.ascontiguousarray(z.numpy().T))  # torch copies slower
        values = function(_Block(rows, z, z.softmax(dim), dim), labels[rows])  # a block kept would hold memory
        if values and not _surely_finite(z):
            _check.check_logits(z if dim else z.t(), first_row=start)
        for row, value in zip(out, values, strict=True):
            row[rows] = value
    return out


def _checked(logits, labels):
    """Both after every check that needs no pass over the logits; labels on the CPU."""
    logits, labels = _check.logits_and_labels(logits, labels, values=False)
    _check.check_range(labels := labels.cpu(), logits.shape[1])
    return logits, labels


def _bins(n_bins):
    return _check.number("n_bins", n_bins, 1, 10_000, integer=True)


def top_label(logits, labels):
    """Confidence and hit of the predicted class: ``(confidences, correct)``, float64 and bool ``(N,)`` numpy arrays."""
    confidences, correct = _per_row(*_checked(logits, labels), _Block.top, 2)
    return confidences, correct == 1


def error(logits, labels):
    """Fraction of wrong predictions. Of tied largest logits the first is the prediction, as ``argmax`` has it."""
    return float(1 - top_label(logits, labels)[1].mean())


def nll(logits, labels):
    """Mean negative log-likelihood in nats, in [0, inf): what ``F.cross_entropy`` computes."""
    return float(_per_row(*_checked(logits, labels), _Block.scores, 2)[0].mean())


def brier(logits, labels):
    """Mean squared distance of the probabilities from the one-hot label, summed over classes: in [0, 2]."""
    return float(_per_row(*_checked(logits, labels), _Block.scores, 2)[1].mean())


def ece(logits, labels, n_bins=20):
    """Average gap between confidence and accuracy, weighted by bin size.

    Guo et al. 2017, Eq. 3: ``sum_b n_b / N |acc_b - conf_b|`` with equal-width bins (lo, hi].
    logits: (N, K) float.  labels: (N,) int in [0, K).  n_bins: 20 as in the paper's tables, the published code has 15.
    Returns a float in [0, 1]. Biased upward, most in small samples: ``evaluate`` tells what a calibrated model would
    show. Raises ValueError or TypeError on bad input.
    """
    n_bins = _bins(n_bins)
    confidences, correct = top_label(logits, labels)
    index = (confidences * (n_bins * _NUDGE)).astype(np.intp)
    return float(np.abs(np.bincount(index, confidences - correct)).sum() / len(index))


def mce(logits, labels, n_bins=20):
    """The largest gap between confidence and accuracy in any of the bins of ``ece`` (Guo et al. 2017, Eq. 5)."""
    return float(np.nanmax(np.abs(reliability(logits, labels, n_bins).gap)))


def adaptive_ece(logits, labels, n_bins=20):
    """ECE with about equally many samples in each bin (Nguyen & O'Connor 2015).

    The edges interpolate the sorted confidences linearly at positions j N / n_bins, j = 0..n_bins, of the index grid
    0..N-1, clamped at its end: the published code's rule, which is not numpy's quantile. Unlike there, the smallest
    confidence belongs to the first bin. Equal confidences share a bin; those that only rounding tells apart may not.
    Arguments, range and errors as for ``ece``.
    """
    n_bins = _bins(n_bins)
    confidences, correct = top_label(logits, labels)
    hits, confidences = np.sort(confidences[correct]), np.sort(confidences)
    edges, cuts = _cuts(confidences, n_bins, "mass")
    hit_cuts = np.searchsorted(hits, edges, side="right")  # two sorts are faster than sorting pairs
    hit_cuts[0], hit_cuts[-1] = 0, len(hits)
    return float(np.abs(_slice_sums(confidences, cuts) - np.diff(hit_cuts)).sum() / len(confidences))


def classwise_ece(logits, labels, n_bins=20):
    """ECE of every class's probability p_k against 1{y = k}, averaged over the K classes (Kull et al. 2019).

    Uses the bins of ``ece``, all samples for every class. Unlike in the published code, a probability of exactly 0 is
    in the first bin, and a class without labels counts as well. Arguments, range and errors as for ``ece``.
    """
    n_bins = _bins(n_bins)
    return float(_classwise(*_checked(logits, labels), n_bins)[0])


def _classwise(logits, labels, n_bins, weights=None, values=True):
    """``(R,)``: classwise ECE of all rows (R = 1), or of R resamples that hold row i ``weights[r, i]`` times."""
    (n, k), r = logits.shape, 1 if weights is None else len(weights)
    cells, columns = np.zeros((r, k * n_bins)), np.zeros((r, k))

    def cell(classes, p):
        return classes * n_bins + (p * (n_bins * _NUDGE)).astype(np.intp)

    def visit(block, y):
        p = block.p.numpy()
        at = np.flatnonzero(p > 1 / n_bins)  # only these need a bin: the first one is the rest
        outer, value = at // p.shape[1], p.reshape(-1)[at].astype(np.float64)
        inner = at - outer * p.shape[1]
        sample, classes = (outer, inner) if block.dim else (inner, outer)
        index = cell(classes, value)
        for i in range(r):
            weighted = value if weights is None else value * weights[i, block.rows][sample]
            cells[i] += np.bincount(index, weighted, k * n_bins)
        if weights is None:
            columns[0] += block.p.sum(1 - block.dim).numpy()
        else:
            columns[:] += weights[:, block.rows].astype(p.dtype) @ (p if block.dim else p.T)
        return (block.pick(block.p, y),)

    own = cell(labels.numpy(), _per_row(logits, labels, visit, 1, values)[0])
    by_class = cells.reshape(r, k, n_bins)
    by_class[:, :, 0] = columns - by_class[:, :, 1:].sum(2)
    for i in range(r):
        cells[i] -= np.bincount(own, None if weights is None else weights[i], k * n_bins)
    return np.abs(cells).sum(1) / (n * k)


def _cuts(values, n_bins, binning):
    """Edges of the bins of sorted ``values``, and where they cut: bin b is the slice ``cuts[b]:cuts[b + 1]``."""
    n = len(values)
    if binning == "width":
        edges = np.linspace(0, 1, n_bins + 1)
        cuts = np.searchsorted(values * (n_bins * _NUDGE), np.arange(n_bins + 1))
    else:
        edges = np.interp(np.arange(n_bins + 1) * (n / n_bins), np.arange(n), values)
        cuts = np.searchsorted(values, edges, side="right")
    cuts[0], cuts[-1] = 0, n
    return edges, cuts


def _slice_sums(values, cuts):
    return np.diff(np.append(0.0, np.cumsum(values, dtype=np.float64))[cuts])


def binned_samples(logits, labels, n_bins=20, binning="width", class_index=None):
    """The samples behind ``reliability``: ``(edges, cuts, samples, probs, hits)``; bin b is the slice
    ``cuts[b]:cuts[b + 1]`` of samples (sorted indices), of their binned probabilities and of their hits.
    """
    n_bins, binning = _bins(n_bins), _check.choice("binning", binning, ("width", "mass"))
    if class_index is None:
        values, hits = top_label(logits, labels)
    else:
        logits, labels = _checked(logits, labels)
        k = _check.number("class_index", class_index, 0, logits.shape[1] - 1, integer=True)
        values, hits = _per_row(logits, labels, lambda block, y: (block.p.select(block.dim, k), y == k), 2)
    order = np.argsort(values, kind="stable")
    edges, cuts = _cuts(values[order], n_bins, binning)
    return edges, cuts, order, values[order], hits[order]


def reliability(logits, labels, n_bins=20, binning="width", class_index=None):
    """Bins of a reliability diagram: how often is the model right when it says c?

    binning: ``"width"`` for equal-width bins of [0, 1], ``"mass"`` for about equally many samples in each, with the
    edges of ``adaptive_ece``.  class_index: bin p_k against 1{y = k} for this k instead. Errors as for ``ece``.
    """
    edges, cuts, _, values, hits = binned_samples(logits, labels, n_bins, binning, class_index)
    counts = np.diff(cuts)
    with np.errstate(invalid="ignore"):
        return Reliability(edges, counts, *(_slice_sums(v, cuts) / counts for v in (values, hits)))


def entropy(logits):
    """Shannon entropy of each row's softmax in nats, in [0, log K]: a float64 ``(N,)`` numpy array."""
    logits = _check.as_tensor("logits", logits)
    _check.check_logits(logits, values=False)
    return _per_row(logits, logits, lambda block, _: (torch.special.entr(block.p).sum(block.dim),), 1)[0]


def ood_auroc(logits_in, logits_ood):
    """Chance that an out-of-distribution sample has more ``entropy``, ties half: the area under the ROC curve."""
    for name, logits in (("logits_in", logits_in), ("logits_ood", logits_ood)):
        _check.check_logits(_check.as_tensor(name, logits), name)
    scores_in, scores_ood = np.sort(entropy(logits_in)), entropy(logits_ood)
    below, not_above = (np.searchsorted(scores_in, scores_ood, side).mean() for side in ("left", "right"))
    return float((below + not_above) / (2 * len(scores_in)))


def _all_but_classwise(samples, n_bins):
    """error, nll, brier, ece, adaptive_ece of rows confidence, hit, nll, brier that are sorted by confidence."""
    confidences, correct, nlls, briers = samples
    cuts = (_cuts(confidences, n_bins, binning)[1] for binning in ("width", "mass"))
    gaps = [np.abs(_slice_sums(confidences - correct, c)).sum() / len(correct) for c in cuts]
    return [1 - correct.mean(), nlls.mean(), briers.mean(), *gaps]


def evaluate(logits, labels, n_bins=20, bootstrap=0, seed=0):
    """Every metric, a flat dict of floats: error, nll, brier, ece, adaptive_ece, classwise_ece.

    bootstrap: number of resamples; if positive, also ``<metric>_low`` and ``<metric>_high``, *basic* 95 % intervals
    (twice the estimate minus the 97.5 and 2.5 % quantiles, clipped to the metric's range; the percentile interval of a
    biased estimate can miss its own point), and ``ece_calibrated_high``: 95 of 100 calibrated models with these
    confidences show an ECE below it. If ``ece`` is below it, too, read that instead of the interval, which covers its
    95 % only where the error stands clear of its noise; for ``classwise_ece`` that takes many samples of each class.
    """
    n_bins = _bins(n_bins)
    bootstrap = _check.number("bootstrap", bootstrap, 0, 1_000_000, integer=True)
    rng = np.random.default_rng(_check.number("seed", seed, 0, integer=True))
    logits, labels = _checked(logits, labels)
    _check.warn_of_probabilities(logits)
    n, k = logits.shape
    samples = _per_row(logits, labels, lambda block, y: (*block.top(y), *block.scores(y)), 4)
    samples = samples[:, order := np.argsort(samples[0], kind="stable")]
    points = [
        float(v) for v in (*_all_but_classwise(samples, n_bins), *_classwise(logits, labels, n_bins, None, False))
    ]
    result = dict(zip(_RANGES, points, strict=True))
    if not bootstrap:
        return result
    draws, calibrated, cuts = [], [], _cuts(samples[0], n_bins, "width")[1]
    for start in range(0, bootstrap, at_once := max(1, _CELLS // max(n, k * n_bins))):
        drawn = (rng.integers(0, n, n) for _ in range(start, min(start + at_once, bootstrap)))
        weights = np.stack([np.bincount(rows, minlength=n) for rows in drawn])
        for w, classwise in zip(weights, _classwise(logits, labels, n_bins, weights, False), strict=True):
            draws.append([*_all_but_classwise(samples[:, np.repeat(np.arange(n), w[order])], n_bins), classwise])
            gaps = samples[0] - (rng.random(n) < samples[0])  # as if the confidences were right
            calibrated.append(np.abs(_slice_sums(gaps, cuts)).sum() / n)
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    for (name, most), value, a, b in zip(_RANGES.items(), points, low, high, strict=True):
        result |= {f"{name}_{end}": float(np.clip(2 * value - q, 0, most)) for end, q in (("low", b), ("high", a))}
    return result | {"ece_calibrated_high": float(np.quantile(calibrated, 0.95))}
