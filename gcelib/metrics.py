"""How well do a classifier's probabilities match what happens? Calibration errors, proper scores, intervals.

Every function takes ``logits (N, K)`` (float16 to float64, a torch tensor on any device, a numpy array or memory map)
and integer ``labels (N,)``; fractions are Python floats. Logits are read in blocks that stay in the processor's
cache (half precision is computed in float32), so the extra memory is a few numbers per sample, never a second N x K
array. Bad input is refused with a ValueError or TypeError that names the argument.

Conventions. Bins are half-open ``(lo, hi]``, the first one is closed at 0; a value within 1e-12 of an edge counts as on
it. The prediction is the first class with the largest logit, as in ``argmax``. K is the number of logits in a row.
The published code (Mukhoti et al. 2020) differs in three places, where we count what it drops: the smallest
confidence belongs to the first equal-mass bin, a probability of exactly 0 belongs to the first bin, and a class that
no label names is averaged like every other.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from gcelib import _validate

_CELLS = 1 << 19  # logits in a block: 2 MiB of float32; smaller ones are lost in the overhead of a call
_NUDGE = 1 - 1e-12  # makes truncation mean (lo, hi], and puts back what rounding lifted off an edge
_RANGES = {"error": 1, "nll": math.inf, "brier": 2, "ece": 1, "adaptive_ece": 1, "classwise_ece": 1}


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


class _Block(NamedTuple):
    """Some rows of logits and their softmax; ``dim`` runs over the classes."""

    rows: slice
    z: torch.Tensor
    p: torch.Tensor
    dim: int

    def pick(self, values, classes):
        """One of ``values`` (z or p) of each row, by class id."""
        return values.gather(self.dim, classes.unsqueeze(self.dim)).squeeze(self.dim)

    def top(self, y):
        """Confidence, and whether label ``y`` is the first class with the largest logit."""
        confidence = self.p.amax(self.dim)
        hit = (self.pick(self.p, y) > 0.9999 * confidence).numpy()
        doubtful = np.flatnonzero(hit & (confidence < 0.501).numpy())  # above one half there is no second such class
        if len(doubtful):
            hit[doubtful] = self.z.numpy().take(doubtful, 1 - self.dim).argmax(self.dim) == y.numpy()[doubtful]
        return confidence, hit


def _per_row(logits, function):
    """What ``function(block)`` returns, a tuple of vectors, for all rows: float64 ``(..., N)``.

    Classes come first in a block where they are few, so that reductions run along long columns.
    """
    n, k = logits.shape
    step, out = max(1, _CELLS // k), None
    for start in range(0, n, step):
        z = logits[start : start + step].cpu()
        if z.dtype.itemsize < 4:
            z = z.float()
        if not math.isfinite(z.sum()):  # one cheap pass; the sum of finite numbers may overflow, so look closer
            _validate.check_logits(z, first_row=start)
        dim = int(k >= 32)
        z = z.contiguous() if dim else torch.from_numpy(np.ascontiguousarray(z.numpy().T))  # torch copies slower
        rows = slice(start, min(start + step, n))
        values = function(_Block(rows, z, z.softmax(dim), dim))
        out = np.empty((len(values), n)) if out is None else out
        for array, value in zip(out, values, strict=True):
            array[rows] = value
    return out


def _checked(logits, labels):
    """Both after every check that needs no pass over the logits; labels on the CPU."""
    logits, labels = _validate.logits_and_labels(logits, labels, values=False)
    if labels.device.type != "cpu":
        labels = labels.cpu()
        _validate.check_labels(labels, *logits.shape)
    return logits, labels


def _bins(n_bins):
    return _validate.number("n_bins", n_bins, 1, 1_000_000, integer=True)


def top_label(logits, labels):
    """Confidence and hit of the predicted class: ``(confidences, correct)``, float64 and bool ``(N,)`` numpy arrays."""
    logits, labels = _checked(logits, labels)
    confidences, correct = _per_row(logits, lambda block: block.top(labels[block.rows]))
    return confidences, correct == 1


def softmax_confidence(logits):
    """The largest softmax probability of each row, a float64 ``(N,)`` numpy array."""
    logits = _validate.as_tensor("logits", logits)
    _validate.check_logits(logits, values=False)
    return _per_row(logits, lambda block: (block.p.amax(block.dim),))[0]


def error(logits, labels):
    """Fraction of wrong predictions. Of tied largest logits the first is the prediction, as ``argmax`` has it."""
    return float(1 - top_label(logits, labels)[1].mean())


def _nll(block, y):
    top = block.z.amax(block.dim).double()
    return top - block.pick(block.z, y).double() - block.p.amax(block.dim).double().log()


def _brier(block, y):
    return block.p.square().sum(block.dim).double() - 2 * block.pick(block.p, y).double() + 1


def nll(logits, labels):
    """Mean negative log-likelihood in nats, in [0, inf): what ``F.cross_entropy`` computes."""
    logits, labels = _checked(logits, labels)
    return float(_per_row(logits, lambda block: (_nll(block, labels[block.rows]),)).mean())


def brier(logits, labels):
    """Mean squared distance between probabilities and one-hot label, summed over the classes: in [0, 2] (Brier 1950).

    Another common convention divides by K.
    """
    logits, labels = _checked(logits, labels)
    return float(_per_row(logits, lambda block: (_brier(block, labels[block.rows]),)).mean())


def ece(logits, labels, n_bins=20):
    """Average gap between confidence and accuracy, weighted by bin size.

    Guo et al. 2017, Eq. 3: ``sum_b n_b / N |acc_b - conf_b|`` with equal-width bins (lo, hi].

    logits: (N, K) float.  labels: (N,) int in [0, K).  n_bins: 20 as in the paper's tables, the published code has 15.
    Returns a float in [0, 1]; empty bins contribute nothing. Biased upward, most in small samples: ``evaluate`` tells
    what a calibrated model would show. Raises ValueError or TypeError on bad input.
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
    0..N-1, clamped at its end: the published code's rule, which is not numpy's quantile. Unlike there, the smallest
    confidence belongs to the first bin. Equal confidences share a bin. Arguments, range and errors as for ``ece``.
    """
    n_bins = _bins(n_bins)
    confidences, correct = top_label(logits, labels)
    hits = np.sort(confidences[correct])
    confidences.sort()
    edges, cuts = _cuts(confidences, n_bins, "mass")
    hit_cuts = np.searchsorted(hits, edges, side="right")
    hit_cuts[0], hit_cuts[-1] = 0, len(hits)
    return float(np.abs(_slice_sums(confidences, cuts) - np.diff(hit_cuts)).sum() / len(confidences))


def classwise_ece(logits, labels, n_bins=20):
    """ECE of every class's probability p_k against 1{y = k}, averaged over the K classes (Kull et al. 2019).

    Uses the bins of ``ece`` and all N samples for every class. Unlike the published code, a probability of exactly 0
    is in the first bin, and K is the number of logits, so a class without labels counts as well.
    Arguments, range and errors as for ``ece``.
    """
    n_bins = _bins(n_bins)
    logits, labels = _checked(logits, labels)
    bins = _ClassBins(labels, logits.shape[1], n_bins)
    return bins.ece(_per_row(logits, lambda block: (bins(block),))[0])


class _ClassBins:
    """Collects the sums of p_k - 1{y = k} in every class and bin, block by block; a call gives back p_y."""

    def __init__(self, labels, k, n_bins):
        self.labels, self.n_bins = labels, n_bins
        self.cells, self.columns = np.zeros(k * n_bins), np.zeros(k)

    def entries(self, block):
        """``(sample, cell, p)`` of the p_k > 1 / n_bins: only they need a bin, the first one is the rest."""
        p = block.p.numpy()
        at = np.flatnonzero(p > (1 - 1e-6) / self.n_bins)
        major = at // p.shape[1]
        minor = at - major * p.shape[1]
        sample, kind = (major, minor) if block.dim else (minor, major)
        p = p.reshape(-1)[at].astype(np.float64)
        return sample, self.cell(kind, p), p

    def cell(self, kind, p):
        return kind * self.n_bins + (p * (self.n_bins * _NUDGE)).astype(np.intp)

    def __call__(self, block):
        _, cell, p = self.entries(block)
        np.add.at(self.cells, cell, p)
        self.columns += block.p.sum(1 - block.dim).numpy()
        return block.pick(block.p, self.labels[block.rows])

    def ece(self, p_y):
        """The classwise ECE, once every block has been seen; ``p_y`` is what the calls gave back."""
        cells = self.cells.reshape(-1, self.n_bins)
        cells[:, 0] = self.columns - cells[:, 1:].sum(1)
        self.cells -= np.bincount(self.cell(self.labels.numpy(), p_y), minlength=self.cells.size)
        return float(np.abs(cells).sum() / (len(p_y) * len(cells)))

    def resampled(self, logits, p_y, replicates, rng):
        """``(replicates,)``: classwise ECE of resamples, drawn multinomially among the blocks and within each."""
        n, k = logits.shape
        cells, columns = np.zeros((k * self.n_bins, replicates)), np.zeros((k, replicates))
        label_cells, left, undrawn = self.cell(self.labels.numpy(), p_y), n, np.full(replicates, n)

        def visit(block):
            nonlocal left, undrawn
            size = block.rows.stop - block.rows.start
            draws = rng.binomial(undrawn, size / left)
            left, undrawn = left - size, undrawn - draws
            drawn = rng.integers(0, size, draws.sum()) * replicates + np.repeat(np.arange(replicates), draws)
            weights = np.bincount(drawn, minlength=size * replicates).reshape(size, replicates)
            columns[:] += ((block.p.t() if block.dim else block.p) @ torch.from_numpy(weights).to(block.p)).numpy()
            np.subtract.at(columns, self.labels[block.rows].numpy(), weights)
            sample, cell, p = self.entries(block)
            cell = np.concatenate((cell, label_cells[block.rows]))
            order = np.argsort(cell)
            bags = torch.nn.functional.embedding_bag(
                torch.from_numpy(np.concatenate((sample, np.arange(size)))[order]),
                torch.from_numpy(weights).to(block.p),
                torch.from_numpy(np.searchsorted(cell[order], np.arange(len(cells)))),
                mode="sum",
                per_sample_weights=torch.from_numpy(np.concatenate((p, np.full(size, -1.0)))[order]).to(block.p),
            )
            cells[:] += bags.numpy()
            return ()

        _per_row(logits, visit)
        cells = cells.reshape(k, self.n_bins, replicates)
        cells[:, 0] = columns - cells[:, 1:].sum(1)
        return np.abs(cells).sum((0, 1)) / (n * k)


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
    return np.diff(np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))[cuts])


def binned_samples(logits, labels, n_bins=20, binning="width", class_index=None):
    """The samples behind ``reliability``, sorted: ``(edges, cuts, samples, probs, hits)``.

    Bin b is the slice ``cuts[b]:cuts[b + 1]`` of ``samples`` (indices), of their binned probabilities and of the hits.
    """
    n_bins, binning = _bins(n_bins), _validate.choice("binning", binning, ("width", "mass"))
    if class_index is None:
        values, hits = top_label(logits, labels)
    else:
        logits, labels = _checked(logits, labels)
        k = _validate.number("class_index", class_index, 0, logits.shape[1] - 1, integer=True)
        values, hits = _per_row(logits, lambda block: (block.p.select(block.dim, k), labels[block.rows] == k))
    order = np.argsort(values, kind="stable")
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
    with np.errstate(invalid="ignore"):
        return Reliability(edges, counts, *(_slice_sums(v, cuts) / counts for v in (values, hits)))


def entropy(logits):
    """Shannon entropy of each row's softmax in nats, in [0, log K]: a float64 ``(N,)`` numpy array."""
    logits = _validate.as_tensor("logits", logits)
    _validate.check_logits(logits, values=False)
    return _per_row(logits, lambda block: (torch.special.entr(block.p).sum(block.dim),))[0]


def ood_auroc(logits_in, logits_ood):
    """Chance that an out-of-distribution sample has more entropy than an in-distribution one; ties count half.

    That is the area under the ROC curve with label 1 = out-of-distribution and score = ``entropy``, in [0, 1].
    """
    scores_in, scores_ood = np.sort(entropy(logits_in)), entropy(logits_ood)
    below, not_above = (np.searchsorted(scores_in, scores_ood, side).mean() for side in ("left", "right"))
    return float((below + not_above) / (2 * len(scores_in)))


def _resampled(samples, n_bins, weights):
    """``(5, R)``: error, nll, brier, ece, adaptive_ece of resamples that hold sample i ``weights[r, i]`` times.

    samples: confidence, hit, nll, brier, sorted by confidence, so that a bin is a slice and its sum the difference of
    two running sums.   weights: (R, N) whole numbers, each row adds up to N.
    """
    confidences, correct, nlls, briers = samples
    n, first = weights.shape[1], np.arange(weights.shape[0])[:, None] * weights.shape[1]
    running = np.concatenate(([0.0], np.cumsum(weights * (confidences - correct))))  # through all resamples
    x = np.minimum(np.arange(n_bins + 1) * (n / n_bins), n - 1)  # positions in each sorted resample, as in _cuts
    at, ranks = np.floor(x), np.cumsum(weights)
    below, above = (
        confidences[np.searchsorted(ranks, first + i, side="right") - first] for i in (at, np.minimum(at + 1, n - 1))
    )
    mass = np.searchsorted(confidences, below + (x - at) * (above - below), side="right")
    mass[:, 0], mass[:, -1] = 0, n
    gaps = (np.abs(np.diff(running[first + c])).sum(1) / n for c in (_cuts(confidences, n_bins, "width")[1], mass))
    return np.stack((*(weights @ np.stack((1 - correct, nlls, briers), 1) / n).T, *gaps))


def evaluate(logits, labels, n_bins=20, bootstrap=0, seed=0):
    """Every metric in one pass, a flat dict: error, nll, brier, ece, adaptive_ece, classwise_ece.

    bootstrap: number of resamples; if positive, also ``<metric>_low`` and ``<metric>_high``, *basic* 95 % intervals
    (twice the estimate minus the 97.5 and 2.5 % quantiles, clipped to the metric's range; the percentile interval of an
    estimate as biased as ECE can miss its own point), and ``ece_calibrated_high``: 95 of 100 calibrated models with
    these confidences and this N show an ECE below it.   seed: of the resampling.
    """
    n_bins = _bins(n_bins)
    bootstrap = _validate.number("bootstrap", bootstrap, 0, 1_000_000, integer=True)
    rng = np.random.default_rng(_validate.number("seed", seed, 0, integer=True))
    logits, labels = _checked(logits, labels)
    n, k = logits.shape
    bins = _ClassBins(labels, k, n_bins)

    def visit(block):
        y = labels[block.rows]
        return *block.top(y), _nll(block, y), _brier(block, y), bins(block)

    *samples, p_y = _per_row(logits, visit)
    order = np.argsort(samples[0], kind="stable")
    samples = [v[order] for v in samples]
    points = [*_resampled(samples, n_bins, np.ones((1, n)))[:, 0].tolist(), bins.ece(p_y)]
    result = dict(zip(_RANGES, points, strict=True))
    if not bootstrap:
        return result

    def parts(most):
        return [min(most, bootstrap - i) for i in range(0, bootstrap, most)]

    draws, calibrated, cuts = [], [], _cuts(samples[0], n_bins, "width")[1]
    for r in parts(max(1, _CELLS // n)):
        drawn = rng.integers(0, n, (r, n)) + np.arange(r)[:, None] * n
        draws.append(_resampled(samples, n_bins, np.bincount(drawn.ravel(), minlength=r * n).reshape(r, n)))
        gaps = np.cumsum(samples[0] - (rng.random((r, n)) < samples[0]), axis=1)
        gaps = np.concatenate((np.zeros((r, 1)), gaps), 1)[:, cuts]
        calibrated.append(np.abs(np.diff(gaps)).sum(1) / n)
    by_class = [bins.resampled(logits, p_y, r, rng) for r in parts(max(1, (1 << 19) // (k * n_bins)))]
    low, high = np.quantile([*np.concatenate(draws, 1), np.concatenate(by_class)], (0.025, 0.975), axis=1)
    for (name, most), value, a, b in zip(_RANGES.items(), points, low, high, strict=True):
        result |= {f"{name}_{end}": float(np.clip(2 * value - q, 0, most)) for end, q in (("low", b), ("high", a))}
    return result | {"ece_calibrated_high": float(np.quantile(np.concatenate(calibrated), 0.95))}
