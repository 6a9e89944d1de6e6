"""Intervals of means, of shares, and by resampling."""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np

from gcelib.bins import Floats, Integers

#: Fewer wrong predictions say too little of an error, or of what hangs on them.
ERRORS_NEEDED = 10


def resamples(
    rng: np.random.Generator, n_samples: int, n_resamples: int, at_once: int
) -> Iterator[list[Integers]]:
    """Draw rows with replacement, in groups of at most ``at_once`` resamples.

    Parameters
    ----------
    rng : numpy.random.Generator
    n_samples : int
        Rows to draw from, and to draw for each resample.
    n_resamples : int
    at_once : int
        How many a caller holds at a time.

    Yields
    ------
    list of (n_samples,) arrays of row numbers

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> [len(group) for group in resamples(rng, 10, 5, at_once=2)]
    [2, 2, 1]
    """
    for start in range(0, n_resamples, at_once):
        stop = min(start + at_once, n_resamples)
        yield [rng.integers(0, n_samples, n_samples) for _ in range(start, stop)]


def basic(
    points: Sequence[float],
    estimates: Sequence[Sequence[float]],
    highest: Sequence[float],
    level: float = 0.95,
) -> list[tuple[float, float]]:
    """Give basic bootstrap intervals, within [0, highest].

    The ends are twice the estimate minus a quantile of the resamples: what the
    resamples' bias adds, these take away.

    Parameters
    ----------
    points : (M,) sequence of float
        Estimates from all samples.
    estimates : (R, M) sequence
        The same from R resamples.
    highest : (M,) sequence of float
        The largest values possible.
    level : float, default 0.95
        Coverage.

    Returns
    -------
    list of M pairs (low, high)
        Where the point is infinite, both ends are.

    References
    ----------
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, Sec. 5.2.

    Examples
    --------
    >>> [(low, high)] = basic([0.5], [[0.25], [0.5], [1.0]], [1.0], level=0.5)
    >>> low, high
    (0.25, 0.625)
    """
    tail = (1 - level) / 2
    tails = (0.025, 0.975) if level == 0.95 else (tail, 1 - tail)
    with np.errstate(invalid="ignore"):  # infinite estimates have no quantiles between
        low, high = np.quantile(estimates, tails, axis=0)
    ends = []
    for point, below, above, most in zip(points, low, high, highest, strict=True):
        if math.isinf(point):
            ends.append((point, point))
            continue
        lower = float(np.clip(2 * point - above, 0, most))
        upper = float(np.clip(2 * point - below, 0, most))
        ends.append((lower, upper))
    return ends


def of_mean(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Give the interval of a mean of skewed values, such as losses.

    Few large losses make most of a mean: the normal interval, and the bootstrap's too,
    lies below the truth too often. Here the skewness is taken out of the standardised
    mean before the normal quantile is read.

    Parameters
    ----------
    values : (N,) array
        At least two, one of each sample.
    level : float, default 0.95
        Coverage, to the order 1/N.

    Returns
    -------
    low, high : float
        Both are the mean where that is infinite, or all values are equal.

    References
    ----------
    P. Hall, "On the removal of skewness by transformation", Journal of the Royal
    Statistical Society B 54, 1992: the monotone cubic.

    Examples
    --------
    >>> low, high = of_mean(np.array([0.0, 0.0, 0.0, 0.0, 1.0]))
    >>> round(0.2 - low, 3), round(high - 0.2, 3)  # longer above, where values may lie
    (0.276, 1.548)
    """
    mean = float(values.mean())
    spread = float(values.std()) if math.isfinite(mean) else 0.0
    if spread == 0:
        return mean, mean
    n_samples = len(values)
    skewness = float((((values - mean) / spread) ** 3).mean()) / math.sqrt(n_samples)
    scale = spread / math.sqrt(n_samples - 1)
    quantile = NormalDist().inv_cdf((1 + level) / 2)
    low = mean - scale * _skewed(quantile, skewness)
    high = mean - scale * _skewed(-quantile, skewness)
    return low, high


def _skewed(quantile: float, skewness: float) -> float:
    """The standardised mean's quantile, given the normal one and its skewness.

    Hall's cubic t + s t^2 / 3 + s^2 t^3 / 27 + s / 6 = q, solved for t.
    """
    if abs(skewness) < 1e-6:  # the difference is below what the cube root keeps
        return quantile
    return (math.cbrt(1 + skewness * (quantile - skewness / 6)) - 1) * 3 / skewness


def of_share(n_found: int, n_samples: int, level: float = 0.95) -> tuple[float, float]:
    """Give the exact interval of a share, which holds also where few are found.

    Parameters
    ----------
    n_found, n_samples : int
        So many of so many.
    level : float, default 0.95
        Coverage, at least.

    Returns
    -------
    low, high : float

    References
    ----------
    C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated
    in the case of the binomial", Biometrika 26, 1934.

    Examples
    --------
    >>> low, high = of_share(0, 50)
    >>> low, round(high, 4)
    (0.0, 0.0711)
    """
    tail = (1 - level) / 2
    high = _share_with(n_found, n_samples, tail)
    low = 1 - _share_with(n_samples - n_found, n_samples, tail)
    return low, high


def _share_with(most: int, n_samples: int, tail: float) -> float:
    """The share of which ``most`` or fewer are found with the probability ``tail``."""
    if most == n_samples:
        return 1.0
    found = np.arange(most + 1)
    rest = n_samples - found
    # The logarithm of the number of ways to find so many.
    steps = np.log(rest[:-1]) - np.log(found[1:])
    ways = np.concatenate([[0.0], np.cumsum(steps)])
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        terms = ways + found * math.log(middle) + rest * math.log1p(-middle)
        if float(np.exp(terms).sum()) > tail:
            low = middle
        else:
            high = middle
    return (low + high) / 2
