"""How well do a classifier's probabilities match what happens?

Calibration errors, proper scores, entropies, and intervals for them. Every function
takes ``logits`` (N, K), a tensor on any device, an array, a memory map, a list or a
DataFrame, and integer ``labels`` (N,); with ``probabilities=True`` the first argument
holds probabilities. Fractions are Python floats. Scores are read in blocks of a few
MiB, in at least float32: the extra memory is a few numbers per sample. Those on an
accelerator stay there.

Conventions. Bins are half-open (lo, hi], the first one is closed at 0; what rounding
lifted above an edge (four units of the type in which the softmax is computed) counts as
on it; numbers of float32 that came in float64 are still those of float32. The
prediction is the first class with the largest logit, as in ``argmax``. K comes from the
logits. The published code (torrvision/focal_calibration, Metrics/metrics.py) differs in
three places, where we count what it drops: the smallest confidence belongs to the first
equal-mass bin, a probability of exactly 0 belongs to the first bin, and a class that no
label names is averaged like every other.

``METRICS`` is the list: a row there is a metric in ``evaluate``, with an interval, a
label and a place in every table.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib import _check, blocks, intervals
from gcelib._check import Array
from gcelib.bins import (
    Binning,
    Booleans,
    Floats,
    Integers,
    Reliability as Reliability,
    bin_scale,
    check_binning,
    check_fractions,
    check_n_bins,
    cut_sorted,
    sums_between,
)
from gcelib.blocks import Block, rounding, rounding_of, softmax_blocks

# --------------------------------------------------------------------------------------
# What all metrics read


class Scores(NamedTuple):
    """Checked input: logits or probabilities (N, K), labels (N,) on the same device.

    ``tolerance`` is how far above a bin's edge a probability still counts as on it.
    """

    values: Tensor
    labels: Tensor
    probabilities: bool
    tolerance: float

    def blocks(self, *, check: bool = True) -> Iterator[tuple[Block, Tensor]]:
        """Hand out the rows block by block, each with its labels.

        Parameters
        ----------
        check : bool, default True
            Refuse values that are not finite; False for a second pass.

        Yields
        ------
        pair of Block and (rows,) tensor
        """
        for block in softmax_blocks(
            self.values, probabilities=self.probabilities, check=check
        ):
            yield block, self.labels[block.rows]

    def take(self, index: Integers) -> "Scores":
        """Give a copy of the rows of ``index``.

        Parameters
        ----------
        index : (M,) array of row numbers

        Returns
        -------
        Scores
        """
        at = torch.from_numpy(index).to(self.values.device)
        values = self.values[at]
        return Scores(values, self.labels[at], self.probabilities, self.tolerance)


class Rows(NamedTuple):
    """A few numbers for each sample, (N,) float64 each, by rising confidence."""

    confidences: Floats
    correct: Floats
    nlls: Floats
    briers: Floats
    tolerance: float

    def take(self, index: Integers) -> "Rows":
        """Give the rows of ``index``, which rises.

        Parameters
        ----------
        index : (M,) array of row numbers

        Returns
        -------
        Rows
        """
        return Rows(
            confidences=self.confidences[index],
            correct=self.correct[index],
            nlls=self.nlls[index],
            briers=self.briers[index],
            tolerance=self.tolerance,
        )


def _read(logits: object, labels: object, probabilities: object) -> Scores:
    """Scores and labels after every check that needs no pass over the scores."""
    probabilities = _check.boolean("probabilities", probabilities)
    values, classes = _check.logits_and_labels(logits, labels, values=False)
    _check.check_range(classes, values.shape[1])
    if values.device.type != "cpu":  # there each block is looked at as it is read
        _check_values(values, probabilities)
    if not probabilities:
        _check.warn_of_probabilities(values)
    tolerance = rounding_of(values, probabilities=probabilities)
    return Scores(values, classes, probabilities, tolerance)


def _check_values(values: Tensor, probabilities: bool) -> None:
    """Refuse what is not finite, or rows that are no distribution."""
    if probabilities:
        _check.check_probabilities(values)
    else:
        _check.check_logits(values)


def _empty_column(values: Tensor) -> Tensor:
    """Room for a float64 number for each row, on the same device."""
    dtype = torch.float32 if values.device.type == "mps" else torch.float64
    return torch.empty(len(values), dtype=dtype, device=values.device)


def _numpy(column: Tensor) -> Floats:
    """The numbers of a column as a float64 array."""
    return column.cpu().double().numpy()


def _top_label(scores: Scores) -> tuple[Floats, Booleans]:
    """Confidence and hit of each prediction."""
    confidences = _empty_column(scores.values)
    correct = torch.empty_like(confidences, dtype=torch.bool)
    for block, labels in scores.blocks():
        confidences[block.rows] = block.confidence
        correct[block.rows] = block.is_right(labels)
    return _numpy(confidences), correct.cpu().numpy()


def _sorted_rows(scores: Scores) -> tuple[Rows, Integers]:
    """What most metrics need of each sample, by rising confidence, and that order."""
    confidences = _empty_column(scores.values)
    correct = torch.empty_like(confidences)
    nlls = torch.empty_like(confidences)
    briers = torch.empty_like(confidences)
    for block, labels in scores.blocks():
        confidences[block.rows] = block.confidence
        correct[block.rows] = block.is_right(labels).to(correct.dtype)
        nlls[block.rows] = block.nll(labels)
        briers[block.rows] = block.brier(labels)
    rows = Rows(
        confidences=_numpy(confidences),
        correct=_numpy(correct),
        nlls=_numpy(nlls),
        briers=_numpy(briers),
        tolerance=scores.tolerance,
    )
    order = np.argsort(rows.confidences, kind="stable")
    return rows.take(order), order


# --------------------------------------------------------------------------------------
# Proper scores and the error


def top_label(
    logits: Array, labels: Array, *, probabilities: bool = False
) -> tuple[Floats, Booleans]:
    """Confidence of each prediction, and whether it is right.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    confidences : (N,) float64 array
        The largest probability of each row, in [1/K, 1].
    correct : (N,) bool array
        Whether the label is the first class with the largest logit.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> top_label([[2.0, 0.0], [0.0, 1.0]], [0, 0])
    (array([0.88079708, 0.73105858]), array([ True, False]))
    """
    return _top_label(_read(logits, labels, probabilities))


def error(logits: Array, labels: Array, *, probabilities: bool = False) -> float:
    """Fraction of wrong predictions.

    Of tied largest logits the first is the prediction, as ``argmax`` has it.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> error([[2.0, 0.0], [0.0, 2.0]], [0, 0])
    0.5
    """
    _, correct = _top_label(_read(logits, labels, probabilities))
    return float(1 - correct.mean())


def nll(logits: Array, labels: Array, *, probabilities: bool = False) -> float:
    """Mean negative log-likelihood: what ``torch.nn.functional.cross_entropy`` gives.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    float
        In nats, in [0, inf). Infinite, with a warning, if a probability is 0 where the
        label is; ``logits_from_probabilities`` puts a floor under it.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> round(nll([[0.0, 0.0]], [1]), 4)
    0.6931
    """
    scores = _read(logits, labels, probabilities)
    nlls = _empty_column(scores.values)
    for block, block_labels in scores.blocks():
        nlls[block.rows] = block.nll(block_labels)
    values = _numpy(nlls)
    _warn_of_infinite_nll(values)
    return float(values.mean())


def _warn_of_infinite_nll(nlls: Floats) -> None:
    """Say how many samples make the mean infinite."""
    impossible = int(np.isinf(nlls).sum())
    if impossible:
        _check.warn(
            f"logits: {impossible} of {len(nlls)} labels have the probability 0, so the"
            " NLL is infinite; logits_from_probabilities(p) puts a floor under it"
        )


def brier(logits: Array, labels: Array, *, probabilities: bool = False) -> float:
    """Mean squared distance of the probabilities from the one-hot label.

    Summed over the classes (Brier 1950), so twice the value that is common for two
    classes.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    float
        In [0, 2].

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> brier([[0.0, 0.0]], [1])
    0.5
    """
    scores = _read(logits, labels, probabilities)
    briers = _empty_column(scores.values)
    for block, block_labels in scores.blocks():
        briers[block.rows] = block.brier(block_labels)
    return float(_numpy(briers).mean())


# --------------------------------------------------------------------------------------
# Calibration errors


def ece(
    logits: Array, labels: Array, n_bins: int = 20, *, probabilities: bool = False
) -> float:
    """Average gap between confidence and accuracy, weighted by the size of the bins.

    ``sum_b n_b / N |acc_b - conf_b|`` over bins of equal width, (lo, hi].

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    n_bins : int, default 20
        1 to 10,000. 20 as in the paper's tables; the published code uses 15.
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    float
        In [0, 1]. Biased upward, most in small samples: ``evaluate`` tells what a
        calibrated model would show.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger, ICML 2017, Eq. 3.

    Examples
    --------
    >>> round(ece([[2.0, 0.0], [0.0, 2.0]], [0, 0]), 4)
    0.3808
    """
    n_bins = check_n_bins(n_bins)
    scores = _read(logits, labels, probabilities)
    confidences, correct = _top_label(scores)
    bins = (confidences * bin_scale(n_bins, scores.tolerance)).astype(np.intp)
    gaps = np.bincount(bins, confidences - correct)
    return _mean_gap(gaps, len(bins))


def _mean_gap(gaps: npt.NDArray[Any], n_samples: int) -> float:
    """The error of bins whose sums of (confidence - hit) are ``gaps``."""
    return float(np.abs(gaps).sum() / n_samples)


def mce(
    logits: Array, labels: Array, n_bins: int = 20, *, probabilities: bool = False
) -> float:
    """The largest gap between confidence and accuracy in any bin of ``ece``.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    n_bins : int, default 20
        1 to 10,000. 20 as in the paper's tables; the published code uses 15.
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    float
        In [0, 1], at least ``ece``. A bin with one sample can decide it.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger, ICML 2017, Eq. 5.

    Examples
    --------
    >>> round(mce([[2.0, 0.0], [0.0, 1.0]], [0, 0]), 4)
    0.7311
    """
    return reliability(logits, labels, n_bins, probabilities=probabilities).mce


def adaptive_ece(
    logits: Array,
    labels: Array,
    n_bins: int = 20,
    *,
    binning: Literal["mass", "equal"] = "mass",
    probabilities: bool = False,
) -> float:
    """Calibration error over bins that hold about equally many samples.

    With ``binning="mass"`` the edges interpolate the sorted confidences linearly at
    positions j N / n_bins, j = 0 ... n_bins, of the index grid 0 ... N - 1, clamped at
    its end: the published code's rule, which is not numpy's quantile. So the first bin
    holds up to N / n_bins + 1 samples and the last one up to one less than the others:
    up to 0.0011 from the exact split at N = 1,000. Equal confidences share a bin; those
    that only rounding tells apart may not. ``binning="equal"`` is the exact split, as
    ``numpy.array_split`` has it; equal confidences are then split in the order given.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    n_bins : int, default 20
        1 to 10,000. 20 as in the paper's tables; the published code uses 15.
    binning : {"mass", "equal"}
        The rule for the edges.
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    float
        In [0, 1]. Biased upward, most in small samples.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    References
    ----------
    Nguyen and O'Connor, EMNLP 2015. Edges: torrvision/focal_calibration,
    Metrics/metrics.py; here the smallest confidence belongs to the first bin.

    Examples
    --------
    >>> round(adaptive_ece([[2.0, 0.0], [0.0, 2.0]], [0, 0], n_bins=1), 4)
    0.3808
    """
    n_bins = check_n_bins(n_bins)
    if _check.choice("binning", binning, ("mass", "equal")) == "equal":
        bins = reliability(logits, labels, n_bins, "equal", probabilities=probabilities)
        return bins.ece
    scores = _read(logits, labels, probabilities)
    confidences, correct = _top_label(scores)
    hit_confidences = np.sort(confidences[correct])  # two sorts beat sorting pairs
    sorted_confidences = np.sort(confidences)
    edges, cuts = cut_sorted(sorted_confidences, n_bins, "mass", scores.tolerance)
    hit_cuts = np.searchsorted(hit_confidences, edges, side="right")
    hit_cuts[0] = 0
    hit_cuts[-1] = len(hit_confidences)
    gaps = sums_between(sorted_confidences, cuts) - np.diff(hit_cuts)
    return _mean_gap(gaps, len(confidences))


def classwise_ece(
    logits: Array, labels: Array, n_bins: int = 20, *, probabilities: bool = False
) -> float:
    """ECE of every class's probability p_k against 1{y = k}, averaged over classes.

    Uses the bins of ``ece``, and all samples for every class. Unlike in the published
    code, a probability of exactly 0 is in the first bin, and a class without labels
    counts as well.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    n_bins : int, default 20
        1 to 10,000. 20 as in the paper's tables; the published code uses 15.
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    float
        In [0, 1]; it falls with the number of classes, most of which are rarely
        probable.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    References
    ----------
    Kull et al., NeurIPS 2019, Sec. 2 (class-wise ECE).

    Examples
    --------
    >>> round(classwise_ece([[2.0, 0.0], [0.0, 2.0]], [0, 0]), 4)
    0.5
    """
    n_bins = check_n_bins(n_bins)
    scores = _read(logits, labels, probabilities)
    return float(_classwise(scores, n_bins, None)[0])


def _classwise(
    scores: Scores, n_bins: int, weights: Integers | None, *, check: bool = True
) -> Floats:
    """Class-wise ECE of all rows, (1,), or of R resamples, (R,).

    Resample r holds row i ``weights[r, i]`` times. A cell is a class and a bin; its gap
    is the sum of the class's probabilities there less the number of its labels. The
    first bin holds nearly all of them, so its sum is the class's total less the other
    bins.
    """
    n_samples, n_classes = scores.values.shape
    n_resamples = 1 if weights is None else len(weights)
    n_cells = n_classes * n_bins
    scale = bin_scale(n_bins, scores.tolerance)
    gaps = np.zeros((n_resamples, n_cells))
    totals = np.zeros((n_resamples, n_classes))
    label_probs = _empty_column(scores.values)
    for block, labels in scores.blocks(check=check):
        block_weights = None
        if weights is not None:
            block_weights = torch.from_numpy(weights[:, block.rows])
            block_weights = block_weights.to(scores.values.device)
        gaps += block.class_cells(n_bins, scale, block_weights).cpu().numpy()
        totals += block.class_totals(block_weights).cpu().numpy()
        label_probs[block.rows] = block.pick(block.probs, labels)
    by_class = gaps.reshape(n_resamples, n_classes, n_bins)  # the same memory
    by_class[:, :, 0] = totals - by_class[:, :, 1:].sum(2)
    label_bins = (_numpy(label_probs) * scale).astype(np.intp)
    label_cells = scores.labels.cpu().numpy() * n_bins + label_bins
    for r in range(n_resamples):
        sample_weights = None if weights is None else weights[r]
        gaps[r] -= np.bincount(label_cells, sample_weights, n_cells)
    errors: Floats = np.abs(gaps).sum(1) / (n_samples * n_classes)
    return errors


# --------------------------------------------------------------------------------------
# Diagrams


class BinnedSamples(NamedTuple):
    """The samples behind the bars of a reliability diagram.

    Parameters
    ----------
    edges : (n_bins + 1,) array
    cuts : (n_bins + 1,) array of integers
        Bin b is the slice ``cuts[b]:cuts[b + 1]`` of the following three.
    samples : (N,) array of integers
        Row numbers, by rising probability.
    probs : (N,) array
        Their probabilities: of the prediction, or of the class asked for.
    hits : (N,) array
        Whether the prediction was right, or the sample of that class; 0 or 1.
    """

    edges: Floats
    cuts: Integers
    samples: Integers
    probs: Floats
    hits: Booleans | Floats


def binned_samples(
    logits: Array,
    labels: Array,
    n_bins: int = 20,
    binning: Binning = "width",
    class_index: int | None = None,
    *,
    probabilities: bool = False,
) -> BinnedSamples:
    """Sort samples into the bins of ``reliability``.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    n_bins : int, default 20
        1 to 10,000. 20 as in the paper's tables; the published code uses 15.
    binning : {"width", "mass", "equal"}
        As in ``reliability``.
    class_index : int, optional
        Bin p_k against 1{y = k} for this k instead of the prediction's confidence.
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    BinnedSamples
        ``(edges, cuts, samples, probs, hits)``.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> found = binned_samples([[2.0, 0.0], [0.0, 1.0]], [0, 0], n_bins=4)
    >>> found.cuts.tolist(), found.samples.tolist()
    ([0, 0, 0, 1, 2], [1, 0])
    """
    n_bins = check_n_bins(n_bins)
    binning = check_binning(binning)
    scores = _read(logits, labels, probabilities)
    hits: Booleans | Floats
    if class_index is None:
        probs, hits = _top_label(scores)
    else:
        last = scores.values.shape[1] - 1
        k = _check.number("class_index", class_index, 0, last, integer=True)
        column = _empty_column(scores.values)
        for block, _ in scores.blocks():
            column[block.rows] = block.of_class(k)
        probs = _numpy(column)
        hits = (scores.labels == k).cpu().double().numpy()
    order = np.argsort(probs, kind="stable")
    edges, cuts = cut_sorted(probs[order], n_bins, binning, scores.tolerance)
    return BinnedSamples(edges, cuts, order, probs[order], hits[order])


def reliability(
    logits: Array,
    labels: Array,
    n_bins: int = 20,
    binning: Binning = "width",
    class_index: int | None = None,
    *,
    probabilities: bool = False,
) -> Reliability:
    """Bin the samples: how often is the model right when it says c?

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    n_bins : int, default 20
        1 to 10,000. 20 as in the paper's tables; the published code uses 15.
    binning : {"width", "mass", "equal"}
        ``"width"``: bins of equal width on [0, 1]. ``"mass"``: about equally many
        samples in each, with the edges of ``adaptive_ece``. ``"equal"``: exactly, as
        ``numpy.array_split``.
    class_index : int, optional
        Bin p_k against 1{y = k} for this k instead of the prediction's confidence.
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    Reliability
        Edges, counts, mean confidence and accuracy of all bins; ``.ece``, ``.mce``.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> bins = reliability([[2.0, 0.0], [0.0, 1.0]], [0, 0], n_bins=4)
    >>> bins.counts.tolist()
    [0, 0, 1, 1]
    >>> bins.accuracy[2:].tolist()
    [0.0, 1.0]
    """
    found = binned_samples(
        logits, labels, n_bins, binning, class_index, probabilities=probabilities
    )
    return Reliability.from_sorted(found.edges, found.cuts, found.probs, found.hits)


# --------------------------------------------------------------------------------------
# Out of distribution


def entropy(logits: Array, *, probabilities: bool = False) -> Floats:
    """Shannon entropy of each row's softmax.

    Computed from distances below the largest logit, so that it tells rows apart whose
    probabilities are 0 and 1 in floating point.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    (N,) float64 array
        In nats, in [0, log K].

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> [f"{value:.4g}" for value in entropy([[0.0, 0.0], [200.0, 0.0]])]
    ['0.6931', '2.782e-85']
    """
    entropies, _ = _entropies("logits", logits, probabilities)
    return entropies


def log_entropy(logits: Array, *, probabilities: bool = False) -> Floats:
    """Logarithm of ``entropy``: it orders samples also where that is 0 in float64.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    (N,) float64 array
        At most log log K; -inf where no other class has any probability.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> log_entropy([[900.0, 0.0], [800.0, 0.0]]).round(1).tolist()
    [-893.2, -793.3]
    """
    _, logarithms = _entropies("logits", logits, probabilities)
    return logarithms


def _entropies(
    name: str, logits: object, probabilities: object
) -> tuple[Floats, Floats]:
    """Entropy of each row and its logarithm."""
    probabilities = _check.boolean("probabilities", probabilities)
    values = _check.as_tensor(name, logits)
    _check.check_has_values(name, values)
    _check.check_logits(values, name)
    if probabilities:
        _check.check_probabilities(values, name)
    else:
        _check.warn_of_probabilities(values, name)
    entropies = _empty_column(values)
    logarithms = torch.empty_like(entropies)
    for block in softmax_blocks(values, probabilities=probabilities, check=False):
        entropies[block.rows], logarithms[block.rows] = block.entropy()
    highest = math.log(values.shape[1])
    return np.clip(_numpy(entropies), 0, highest), _numpy(logarithms)


def ood_auroc(
    logits_in: Array, logits_ood: Array, *, probabilities: bool = False
) -> float:
    """Chance that an out-of-distribution sample has more entropy than a test sample.

    The area under the ROC curve of ``entropy`` as a detector; ties count half. Samples
    are ordered by the logarithm of the entropy, which never saturates.

    Parameters
    ----------
    logits_in : (N, K) tensor or array
        Of test samples.
    logits_ood : (M, K) tensor or array
        Of samples from elsewhere, by the same model.
    probabilities : bool, default False
        True: both hold probabilities. Exact 0 and 1 are allowed; rows that do not sum
        to 1 are refused.

    Returns
    -------
    float
        In [0, 1]; 0.5 is a coin.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> ood_auroc([[9.0, 0.0], [8.0, 0.0]], [[0.5, 0.0]])
    1.0
    """
    inside = _check.as_tensor("logits_in", logits_in)
    outside = _check.as_tensor("logits_ood", logits_ood)
    _, scores_in = _entropies("logits_in", inside, probabilities)
    _, scores_ood = _entropies("logits_ood", outside, probabilities)
    if inside.shape[1] != outside.shape[1]:
        problem = f"has {outside.shape[1]} classes, logits_in {inside.shape[1]}"
        _check.fail("logits_ood", problem, "pass logits of one model")
    scores_in.sort()
    below = np.searchsorted(scores_in, scores_ood, "left").mean()
    not_above = np.searchsorted(scores_in, scores_ood, "right").mean()
    return float((below + not_above) / (2 * len(scores_in)))


def logits_from_probabilities(p: Array) -> Tensor:
    """Finite logits whose softmax is ``p``: its logarithm, with a floor for zeros.

    Parameters
    ----------
    p : (N, K) tensor or array
        Probabilities; exact 0 and 1 are allowed.

    Returns
    -------
    (N, K) tensor
        ``log(p)`` in the type of ``p``, at least float32; of numbers of float32 that a
        list or table widened, to the digits of float32. What is below 1.2e-38, the
        smallest normal number of float32, becomes its logarithm, -87.3, in every type.
        A zero that is a label's decides an NLL, and a temperature fitted by it, alone.
        Gradients pass to ``p``, but for such zeros.

    Raises
    ------
    ValueError, TypeError
        If rows are no distributions; the message begins with ``p``.

    Examples
    --------
    >>> logits = logits_from_probabilities([[0.5, 0.5], [1.0, 0.0]])
    >>> logits.softmax(1).round(decimals=6).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    values = _check.as_tensor("p", p)
    _check.warn_of_order("p", p)
    _check.check_has_values("p", values)
    _check.check_logits(values, "p", values=False)
    _check.check_probabilities(values, "p")
    logits = _logarithm(p if isinstance(p, Tensor) else values)
    _check.remember_index(logits, p)
    return logits


def _logarithm(p: Tensor) -> Tensor:
    """The logarithm of probabilities, with the digits that they have.

    Numbers of float32 in float64 (a list or a table widens them) get logarithms of
    float32, so that metrics know them, and 0.35 stays on the edge of its bin.
    """
    logits = _check.logarithm(p)
    known = p.detach()
    if rounding_of(known, probabilities=True) > rounding(p.dtype, probabilities=True):
        rounded = logits.detach().float().to(logits.dtype)
        logits = logits + (rounded - logits.detach())  # the gradient stays exact
    return logits


def logits_from_confidences(confidences: Array) -> Tensor:
    """Finite logits of *wrong* and *right*, of the confidence of each prediction.

    Parameters
    ----------
    confidences : (N,) tensor or array
        The probability of the predicted class, in [0, 1], exact 0 and 1 allowed.

    Returns
    -------
    (N, 2) tensor
        ``log(1 - c)`` and ``log(c)``, as ``logits_from_probabilities`` has them, in the
        type and on the device of the confidences, at least in float32. What
        ``advise_confidences`` calibrates. Gradients pass to the confidences.

    Raises
    ------
    ValueError, TypeError
        If they are no fractions; the message begins with ``confidences``.

    Examples
    --------
    >>> logits_from_confidences([0.75]).softmax(1).round(decimals=6).tolist()
    [[0.25, 0.75]]
    """
    values = check_fractions("confidences", confidences)
    given = confidences if isinstance(confidences, Tensor) else values
    dtype = torch.promote_types(values.dtype, torch.float32)
    right = _check.as_meant(given).to(dtype)
    right = torch.where(right > 1, 1.0, right)  # not clamp: a 1 has a gradient, too
    logits = _logarithm(torch.stack([1 - right, right], 1))
    _check.remember_index(logits, confidences)
    return logits


# --------------------------------------------------------------------------------------
# The list of metrics


@dataclass(frozen=True)
class Metric:
    """What there is to know of a metric.

    Parameters
    ----------
    function : callable
        ``function(logits, labels, n_bins, probabilities=...)`` -> float; without
        ``n_bins`` if not ``takes_bins``.
    label : str
        In tables.
    axis : str
        In figures, with the unit.
    percent : bool
        Whether it is a fraction that people read as percent.
    highest : float
        The largest value possible; the smallest is 0.
    in_evaluate : bool
        Whether ``evaluate`` gives it, with an interval.
    takes_bins : bool
        Whether the function takes ``n_bins``.
    from_rows : callable, optional
        The same number from ``Rows``: fast in ``evaluate`` and in its resamples.
    from_weights : callable, optional
        The same numbers (R,) of R weighted resamples at once. Without either, the
        function is called on each resample, which copies the logits each time.
    interval : callable, optional
        Its 95 % interval (low, high) from ``Rows``. Without one, it is the basic
        bootstrap's.
    """

    function: Callable[..., float]
    label: str
    axis: str
    percent: bool = True
    highest: float = 1
    in_evaluate: bool = True
    takes_bins: bool = True
    from_rows: Callable[[Rows, int], float] | None = None
    from_weights: Callable[..., Floats] | None = None
    interval: Callable[[Rows], tuple[float, float]] | None = None

    def __call__(self, scores: Scores, n_bins: int) -> float:
        """Call the function on checked input.

        Parameters
        ----------
        scores : Scores
        n_bins : int
            Left out where the function takes none.

        Returns
        -------
        float
        """
        options = {"n_bins": n_bins} if self.takes_bins else {}
        value = self.function(
            scores.values, scores.labels, **options, probabilities=scores.probabilities
        )
        return float(value)


def _interval_of_errors(rows: Rows) -> tuple[float, float]:
    """The exact interval of a share, from what is right."""
    n_wrong = int((rows.correct == 0).sum())
    return intervals.of_share(n_wrong, len(rows.correct))


def _binned_gap(rows: Rows, n_bins: int, binning: Binning) -> float:
    """Give the calibration error of sorted rows."""
    _, cuts = cut_sorted(rows.confidences, n_bins, binning, rows.tolerance)
    gaps = sums_between(rows.confidences - rows.correct, cuts)
    return _mean_gap(gaps, len(rows.correct))


#: Every metric. A new one is a row here and its function: ``evaluate`` and what derives
#: from it (tables, figures, stored results) then have it.
METRICS = {
    "error": Metric(
        error,
        label="error",
        axis="error (%)",
        takes_bins=False,
        from_rows=lambda rows, n_bins: float(1 - rows.correct.mean()),
        interval=_interval_of_errors,
    ),
    "nll": Metric(
        nll,
        label="NLL",
        axis="NLL (nats)",
        percent=False,
        highest=math.inf,
        takes_bins=False,
        from_rows=lambda rows, n_bins: float(rows.nlls.mean()),
        interval=lambda rows: intervals.of_mean(rows.nlls),
    ),
    "brier": Metric(
        brier,
        label="Brier",
        axis="Brier score",
        percent=False,
        highest=2,
        takes_bins=False,
        from_rows=lambda rows, n_bins: float(rows.briers.mean()),
        interval=lambda rows: intervals.of_mean(rows.briers),
    ),
    "ece": Metric(
        ece,
        label="ECE",
        axis="ECE (%)",
        from_rows=lambda rows, n_bins: _binned_gap(rows, n_bins, "width"),
    ),
    "adaptive_ece": Metric(
        adaptive_ece,
        label="AdaECE",
        axis="AdaECE (%)",
        from_rows=lambda rows, n_bins: _binned_gap(rows, n_bins, "mass"),
    ),
    "classwise_ece": Metric(
        classwise_ece,
        label="ClasswiseECE",
        axis="ClasswiseECE (%)",
        from_weights=_classwise,
    ),
    "mce": Metric(mce, label="MCE", axis="MCE (%)", in_evaluate=False),
    "auroc": Metric(  # of two sets of logits, without labels
        ood_auroc, label="AUROC", axis="AUROC (%)", in_evaluate=False, takes_bins=False
    ),
}


# --------------------------------------------------------------------------------------
# All at once


def evaluate(
    logits: Array,
    labels: Array,
    n_bins: int = 20,
    bootstrap: int = 0,
    seed: int = 0,
    *,
    probabilities: bool = False,
) -> dict[str, float]:
    """Every metric of ``METRICS`` that is for logits and labels, in one reading.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores before the softmax, of any float type, on any device.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    n_bins : int, default 20
        1 to 10,000. 20 as in the paper's tables; the published code uses 15.
    bootstrap : int, default 0
        Number of resamples for intervals; 0 gives none.
    seed : int, default 0
        Of the resamples.
    probabilities : bool, default False
        True: ``logits`` holds probabilities. Exact 0 and 1 are allowed; rows that do
        not sum to 1 are refused.

    Returns
    -------
    dict of str to float
        error, nll, brier, ece, adaptive_ece, classwise_ece. With ``bootstrap`` also
        ``<metric>_low`` and ``<metric>_high``: 95 % intervals, clipped to the metric's
        range. That of the error is Clopper and Pearson's; those of nll and brier are
        Hall's of a mean of skewed values; the others are *basic* bootstrap intervals,
        twice the estimate minus the 97.5 and 2.5 % quantiles of the resamples (the
        percentile interval of a biased estimate can miss its own point). And
        ``ece_calibrated_high``: 95 of 100 calibrated models with these confidences show
        an ECE below it. If ``ece`` is below it, too, read that instead of the interval,
        which covers its 95 % only where the error stands clear of its noise; for
        ``classwise_ece`` that takes many samples of each class. Rows that are there
        twice make every interval too narrow.

    Warns
    -----
    UserWarning
        With ``bootstrap``, if fewer than ten predictions are wrong: the NLL hangs on so
        few that its interval holds too rarely.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> logits, labels = rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    >>> numbers = evaluate(logits, labels, bootstrap=100)
    >>> numbers["error_low"] < numbers["error"] < numbers["error_high"]
    True
    """
    n_bins = check_n_bins(n_bins)
    bootstrap = _check.number("bootstrap", bootstrap, 0, 1_000_000, integer=True)
    seed = _check.number("seed", seed, 0, integer=True)
    scores = _read(logits, labels, probabilities)
    metrics = {name: metric for name, metric in METRICS.items() if metric.in_evaluate}
    rows, order = _sorted_rows(scores)
    _warn_of_infinite_nll(rows.nlls)
    points = {
        name: _estimate(metric, scores, rows, n_bins)
        for name, metric in metrics.items()
    }
    if bootstrap and len(order) < 2:
        _check.fail("bootstrap", "one sample has no interval", "pass at least two")
    if not bootstrap:
        return points
    resampled = {name: row for name, row in metrics.items() if not row.interval}
    draws, calibrated = _resample(
        scores, rows, order, resampled, n_bins, bootstrap, seed
    )
    ends = dict(
        zip(
            resampled,
            intervals.basic(
                [points[name] for name in resampled],
                draws,
                [row.highest for row in resampled.values()],
            ),
            strict=True,
        )
    )
    result = dict(points)
    for name, metric in metrics.items():
        low, high = metric.interval(rows) if metric.interval else ends[name]
        result[f"{name}_low"] = max(low, 0)
        result[f"{name}_high"] = min(high, metric.highest)
    n_wrong = int((rows.correct == 0).sum())
    if n_wrong < intervals.ERRORS_NEEDED:
        _check.warn(
            f"logits: only {n_wrong} of {len(order):,} predictions are wrong, and "
            "intervals of nll and brier hold too rarely before about "
            f"{intervals.ERRORS_NEEDED} errors; bring more samples"
        )
    result["ece_calibrated_high"] = float(np.quantile(calibrated, 0.95))
    return result


def _estimate(metric: Metric, scores: Scores, rows: Rows, n_bins: int) -> float:
    """One metric of all samples, the fastest way that it has."""
    if metric.from_rows:
        return metric.from_rows(rows, n_bins)
    if metric.from_weights:
        return float(metric.from_weights(scores, n_bins, None, check=False)[0])
    return metric(scores, n_bins)


def _resample(
    scores: Scores,
    rows: Rows,
    order: Integers,
    metrics: dict[str, Metric],
    n_bins: int,
    n_resamples: int,
    seed: int,
) -> tuple[list[list[float]], list[float]]:
    """Estimate all ``metrics`` on resamples, and the ECE of calibrated models.

    ``rows`` are sorted by ``order``. Returns a list of estimates for each resample, and
    for each the ECE that chance alone would give were the confidences right.
    """
    rng = np.random.default_rng(seed)
    n_samples, n_classes = scores.values.shape
    _, cuts = cut_sorted(rows.confidences, n_bins, "width", rows.tolerance)
    at_once = max(1, blocks.CELLS // max(n_samples, n_classes * n_bins))
    estimates = []
    calibrated = []
    for group in intervals.resamples(rng, n_samples, n_resamples, at_once):
        weights = np.stack([np.bincount(drawn, minlength=n_samples) for drawn in group])
        by_weights = {
            name: metric.from_weights(scores, n_bins, weights, check=False)
            for name, metric in metrics.items()
            if metric.from_weights
        }
        for r, drawn in enumerate(group):
            # Each row as often as it was drawn, still by rising confidence.
            again = rows.take(np.repeat(np.arange(n_samples), weights[r][order]))
            estimate = []
            for name, metric in metrics.items():
                if metric.from_rows:
                    estimate.append(metric.from_rows(again, n_bins))
                elif metric.from_weights:
                    estimate.append(float(by_weights[name][r]))
                else:
                    estimate.append(metric(scores.take(drawn), n_bins))
            estimates.append(estimate)
            hits = rng.random(n_samples) < rows.confidences  # as if they were right
            gaps = sums_between(rows.confidences - hits, cuts)
            calibrated.append(_mean_gap(gaps, n_samples))
    return estimates, calibrated
