"""Bins of confidences, and what a reliability diagram shows of them."""

from typing import Literal, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib import _check
from gcelib._check import Array
from gcelib.blocks import rounding_of

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Booleans: TypeAlias = npt.NDArray[np.bool_]
Binning: TypeAlias = Literal["width", "mass", "equal"]

#: How confidences can be cut into bins, and what that means.
BINNINGS = {
    "width": "bins of equal width on [0, 1]",
    "mass": "about equally many samples in each, by interpolated edges",
    "equal": "equally many samples in each, split as numpy.array_split does",
}


def check_n_bins(n_bins: object) -> int:
    """Refuse what is no number of bins, 1 to 10,000."""
    return _check.number("n_bins", n_bins, 1, 10_000, integer=True)


def check_binning(binning: object) -> Binning:
    """Refuse what is no key of ``BINNINGS``."""
    return cast(Binning, _check.choice("binning", binning, BINNINGS))


def bin_scale(n_bins: int, tolerance: float) -> float:
    """By what a probability is multiplied, so that truncation gives its bin.

    Bins are (lo, hi], and what lies above an edge by ``tolerance`` or less, relative,
    counts as on it: rounding lifted it.
    """
    return n_bins * (1 - tolerance)


def cut_sorted(
    values: Floats, n_bins: int, binning: Binning, tolerance: float
) -> tuple[Floats, Integers]:
    """Cut sorted values into bins.

    Parameters
    ----------
    values : (N,) sorted array, in [0, 1], N >= 1
    n_bins : int
    binning : {"width", "mass", "equal"}
    tolerance : float
        See ``bin_scale``.

    Returns
    -------
    edges : (n_bins + 1,) array
    cuts : (n_bins + 1,) array of integers
        Bin b holds ``values[cuts[b]:cuts[b + 1]]``.
    """
    n_samples = len(values)
    if binning == "equal":
        return _split_equally(values, n_bins)
    if binning == "width":
        edges = np.linspace(0, 1, n_bins + 1)
        scaled = values * bin_scale(n_bins, tolerance)
        cuts = np.searchsorted(scaled, np.arange(n_bins + 1))
    else:
        positions = np.arange(n_bins + 1) * (n_samples / n_bins)
        edges = np.interp(positions, np.arange(n_samples), values)
        cuts = np.searchsorted(values, edges, side="right")
    cuts[0] = 0
    cuts[-1] = n_samples
    return edges, cuts


def _split_equally(values: Floats, n_bins: int) -> tuple[Floats, Integers]:
    """Cut as ``numpy.array_split`` does; an edge is the middle between neighbours."""
    n_samples = len(values)
    sizes = np.full(n_bins, n_samples // n_bins)
    sizes[: n_samples % n_bins] += 1
    cuts = np.append(0, np.cumsum(sizes))
    below = values[np.maximum(cuts - 1, 0)]
    above = values[np.minimum(cuts, n_samples - 1)]
    return (below + above) / 2, cuts


def sums_between(values: npt.NDArray[np.generic], cuts: Integers) -> Floats:
    """Sum ``values`` in each of the slices between the ``cuts``."""
    totals = np.append(0.0, np.cumsum(values, dtype=np.float64))
    return cast(Floats, np.diff(totals[cuts]))


def check_fractions(name: str, confidences: Array) -> Tensor:
    """Give confidences (N,) as a tensor, refused by name if malformed.

    They keep dtype and device, and may lie above 1 by their rounding.
    """
    values = _check.as_tensor(name, confidences)
    _check.check_has_values(name, values)
    if values.ndim != 1 or len(values) == 0:
        problem = f"expected shape (N,) with N >= 1, got {tuple(values.shape)}"
        _check.fail(name, problem, "pass one confidence per sample")
    if not values.is_floating_point():
        problem = f"has dtype {values.dtype}"
        _check.fail(name, problem, "pass fractions in [0, 1]", TypeError)
    tolerance = rounding_of(values, probabilities=True)
    low, high = (float(value) for value in torch.aminmax(values))
    if not -tolerance <= low <= high <= 1 + tolerance:  # sums may round above 1
        problem = f"lie in [{low:.4g}, {high:.4g}]"
        cure = "pass fractions in [0, 1]; divide percentages by 100"
        _check.fail(name, problem, cure)
    return values


def check_confidences(
    confidences: Array,
    correct: Array,
    names: tuple[str, str] = ("confidences", "correct"),
) -> tuple[Tensor, Tensor]:
    """Give confidences (N,) and hits (N,) on the CPU, refused by name if malformed."""
    name, other = names
    values = check_fractions(name, confidences)
    hits = _check.as_tensor(other, correct)
    _check.check_has_values(other, hits)
    _check.warn_of_tables(confidences, correct, values, hits, names)
    values = values.cpu()
    hits = hits.cpu()
    if hits.shape != values.shape:
        problem = f"has shape {tuple(hits.shape)}, {name} {tuple(values.shape)}"
        _check.fail(other, problem, "pass one entry per confidence")
    if not bool(((hits == 0) | (hits == 1)).all()):
        problem = "holds other values than 0 and 1"
        _check.fail(other, problem, "pass predictions == labels")
    _check.warn_of_confidences(names, values, hits)
    return values, hits


class Reliability(NamedTuple):
    """All bins of a reliability diagram, empty ones included.

    Parameters
    ----------
    edges : (n_bins + 1,) float64 array
        Bin b is (edges[b], edges[b + 1]], the first one closed at its lower end.
    counts : (n_bins,) int64 array
        Samples in each bin.
    confidence : (n_bins,) float64 array
        Mean confidence of a bin's samples, nan where it is empty.
    accuracy : (n_bins,) float64 array
        Fraction of hits among them, nan where it is empty.

    Examples
    --------
    >>> bins = Reliability.from_confidences([0.9, 0.8, 0.6], [True, False, True], 2)
    >>> bins.counts.tolist()
    [0, 3]
    >>> round(bins.ece, 3)
    0.1
    """

    edges: Floats
    counts: Integers
    confidence: Floats
    accuracy: Floats

    @classmethod
    def from_confidences(
        cls,
        confidences: Array,
        correct: Array,
        n_bins: int = 20,
        binning: Binning = "width",
    ) -> "Reliability":
        """Bin pairs of a confidence and a hit, where logits are not at hand.

        Parameters
        ----------
        confidences : (N,) tensor, array, list or Series
            Probability of the predicted class, in [0, 1]. For the view of one class:
            its probability.
        correct : (N,) tensor, array, list or Series
            Whether the prediction was right, as booleans or 0 and 1. For the view of
            one class: whether the sample is of that class.
        n_bins : int, default 20
            1 to 10,000.
        binning : {"width", "mass", "equal"}
            As in ``gcelib.reliability``.

        Returns
        -------
        Reliability
            With ``.ece`` and ``.mce``.

        Raises
        ------
        ValueError, TypeError
            If an argument is malformed; the message begins with its name.

        Examples
        --------
        >>> Reliability.from_confidences([0.75, 0.75], [1, 0], n_bins=4).mce
        0.25
        """
        n_bins = check_n_bins(n_bins)
        binning = check_binning(binning)
        values, hits = check_confidences(confidences, correct)
        tolerance = rounding_of(values, probabilities=True)
        probs = values.double().clamp(0, 1).numpy()
        order = np.argsort(probs, kind="stable")
        sorted_probs = probs[order]
        edges, cuts = cut_sorted(sorted_probs, n_bins, binning, tolerance)
        return cls.from_sorted(edges, cuts, sorted_probs, hits.numpy()[order])

    @classmethod
    def from_sorted(
        cls,
        edges: Floats,
        cuts: Integers,
        values: Floats,
        hits: npt.NDArray[np.generic],
    ) -> "Reliability":
        """Summarise values and hits that are sorted and cut already.

        Parameters
        ----------
        edges, cuts : (n_bins + 1,) arrays
            As ``cut_sorted`` returns them.
        values : (N,) array
            Confidences, sorted.
        hits : (N,) array
            Whether the prediction was right, in the order of ``values``; 0 or 1.

        Returns
        -------
        Reliability
        """
        counts = np.diff(cuts)
        with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin is nan
            confidence = sums_between(values, cuts) / counts
            accuracy = sums_between(hits, cuts) / counts
        return cls(edges, counts, confidence, accuracy)

    @property
    def gap(self) -> Floats:
        """Confidence minus accuracy, (n_bins,): positive is over-confident."""
        return self.confidence - self.accuracy

    @property
    def ece(self) -> float:
        """The size-weighted mean of ``|gap|`` over the bins, in [0, 1]."""
        weighted = np.nansum(self.counts * np.abs(self.gap))
        return float(weighted / self.counts.sum())

    @property
    def mce(self) -> float:
        """The largest ``|gap|`` of all bins, in [0, 1]."""
        return float(np.nanmax(np.abs(self.gap)))
