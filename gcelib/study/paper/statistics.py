"""Statistics for a handful of seeds: exact where the textbook's approximation is not.

The seeds of a run share one test set. Spread over seeds therefore holds initialisation,
data order and the split into training and validation, but not the sampling of the test
set: :func:`binomial_se` gives that.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from gcelib import _check


class Interval(NamedTuple):
    """A mean and the interval around it.

    Attributes
    ----------
    mean, low, high : float
        In the unit of the numbers; nan where there are too few of them.
    """

    mean: float
    low: float
    high: float


def wilcoxon(differences: ArrayLike) -> float:
    """One-sided p of Wilcoxon's signed-rank test that paired differences are positive.

    The p is exact, over the 2^n sign flips, for any n, also where test errors tie:
    sizes that agree to 1e-12 share their mean rank, and zeros take ranks but no side
    (Pratt). scipy's ``method="exact"`` knows neither. Of shares below a tenth that were
    computed in float32, sizes that agree as far as that tells do.

    Parameters
    ----------
    differences : (n,) array-like of floats
        Finite; sizes below 1e-12 count as zeros, too. n is at least 1.

    Returns
    -------
    float
        In [1/2^n, 1]. The lower bound is what n seeds can show at best.

    Raises
    ------
    ValueError
        If there is nothing, NaN or infinity, or another shape.

    References
    ----------
    Wilcoxon, Biometrics Bulletin 1945. Pratt, JASA 1959 (zeros).

    Examples
    --------
    >>> wilcoxon([0.1, 0.2, 0.3])
    0.125
    """
    values = numbers_in("differences", differences)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        found = f"expected n >= 1 finite numbers, got shape {values.shape}"
        _check.fail("differences", found, "drop what is missing")
    sizes = _tied_sizes(values)
    # A mean rank may end in one half, so twice the rank is a whole number.
    doubled_ranks = (2 * _mean_ranks(sizes)).astype(int)
    # share[s] is the part of all sign flips whose positive ranks sum to s.
    share = np.zeros(doubled_ranks.sum() + 1)
    share[0] = 1
    n_sums = 1  # how many sums the ranks so far can have, from 0 on
    for rank in doubled_ranks[sizes != 0]:
        # With either sign, a half each, the sum stays or grows by the rank.
        half = share[:n_sums] / 2
        share[:n_sums] = half
        share[rank : rank + n_sums] += half
        n_sums += rank
    observed = doubled_ranks[(sizes != 0) & (values > 0)].sum()
    return float(share[observed:].sum())


def numbers_in(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Read numbers as an array, refused by name if holes would be filled.

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    values : array-like of float
        Missing ones as NaN.

    Returns
    -------
    array of float64

    Raises
    ------
    TypeError
        Of a masked array: what is below its mask is no value.

    Examples
    --------
    >>> numbers_in("values", [1, 2])
    array([1., 2.])
    """
    if isinstance(values, np.ma.MaskedArray):
        _check.fail(name, "is a masked array", "pass values.compressed()", TypeError)
    return np.asarray(values, dtype=np.float64)


def _tied_sizes(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number the sizes from the smallest on, alike where they tie; zeros are 0."""
    sizes = np.abs(values)
    order = np.argsort(sizes)
    is_next = np.diff(sizes[order], prepend=0) > _precision(values)
    numbers = np.empty(len(values), dtype=np.int64)
    numbers[order] = np.cumsum(is_next)
    return numbers


def _precision(differences: NDArray[np.float64]) -> float:
    """How far apart differences may be that are one: more of numbers in float32.

    Those are whole multiples of a power of two, and so are their differences: of shares
    near 0.1 of 2^-27. In float64 it is 2^-56, unless they are short binary fractions,
    of test sets of 2^24 or another power of two samples.
    """
    sizes = np.abs(differences[np.isfinite(differences) & (differences != 0)])
    mantissas, exponents = np.frexp(sizes)
    digits = (mantissas * 2.0**53).astype(np.int64)
    steps = np.ldexp((digits & -digits).astype(np.float64), exponents - 53)
    of_float32 = steps[(steps >= 2.0**-36) & (steps <= 2.0**-24)]
    if 2 * len(of_float32) <= len(sizes):
        return 1e-12
    # Larger shares than those with the smallest step have coarser ones.
    return float(max(16 * of_float32.min(), 2.0**-22 * sizes.max()))


def _mean_ranks(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ranks from 1, where equal values share the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group], dtype=np.float64)


def interval(differences: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of some numbers with its two-sided interval by Student's t.

    With five to ten seeds a bootstrap is too narrow; Student's t is not, where the
    numbers are roughly normal.

    Parameters
    ----------
    differences : (n,) array-like of floats
    confidence : float, default 0.95
        In [0, 1].

    Returns
    -------
    Interval
        (mean, low, high); nan is what n is too small for: the bounds of one number,
        all three of none. So are the bounds of numbers that are all alike, but not 0,
        as on small test sets those of few seeds may be by chance: an interval without
        width would call that certain. From six on (of 95 %) their signs alone do.

    Raises
    ------
    ValueError, TypeError
        If ``confidence`` is not a fraction, or the numbers are no single row.

    References
    ----------
    Student, Biometrika 1908.

    Examples
    --------
    >>> [round(number, 2) for number in interval([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    from scipy.special import stdtrit

    confidence = _check.number("confidence", confidence, 0, 1)
    values = numbers_in("differences", differences)
    if values.ndim != 1:
        problem = f"have shape {values.shape}"
        _check.fail("differences", problem, "pass one number for each seed")
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(values.mean())
    precision = _precision(values)
    is_alike = np.ptp(values) < precision and abs(mean) > precision
    by_chance = 0.5 ** (n - 1)  # that all n signs agree
    if n == 1 or (is_alike and by_chance > 1 - confidence):
        return Interval(mean, np.nan, np.nan)
    half_width = stdtrit(n - 1, 0.5 + confidence / 2) * values.std(ddof=1) / sqrt(n)
    return Interval(mean, float(mean - half_width), float(mean + half_width))


def binomial_se(error: float, n_test: int) -> float:
    """Standard error of a test error from drawing its test samples.

    It does not shrink with more seeds: they share the test set.

    Parameters
    ----------
    error : float
        A fraction in [0, 1].
    n_test : int
        Number of test samples, at least 1.

    Returns
    -------
    float
        A fraction.

    Raises
    ------
    ValueError, TypeError
        If an argument is outside its range.

    Examples
    --------
    >>> round(binomial_se(0.10, 4000), 4)
    0.0047
    """
    error = _check.number("error", error, 0, 1)
    n_test = _check.number("n_test", n_test, 1, integer=True)
    return sqrt(error * (1 - error) / n_test)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Correct p values that are one family, by Holm's method.

    Parameters
    ----------
    p_values : (m,) array-like of floats
        In [0, 1].

    Returns
    -------
    (m,) array of floats
        In the order given. At best m times the smallest p: a family of m exact tests
        on n seeds can pass 0.05 only if m <= 0.05 * 2^n, which is 51 for ten seeds.
        NaN, a test that could not be made, stays NaN; it counts for the others.

    Raises
    ------
    ValueError
        If something is no p value.

    References
    ----------
    Holm, Scandinavian Journal of Statistics 1979.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = pd.Series(numbers_in("p_values", p_values))
    if not p.dropna().between(0, 1).all():
        problem = f"lie in [{p.min():.4g}, {p.max():.4g}]"
        _check.fail("p_values", problem, "pass numbers in [0, 1]")
    remaining = np.arange(len(p), 0, -1)
    corrected = (p.sort_values() * remaining).cummax().clip(upper=1)
    return np.asarray(corrected.sort_index(), dtype=np.float64)
