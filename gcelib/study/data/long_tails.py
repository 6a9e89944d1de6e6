"""Long-tailed versions: ``"cifar10_lt100"`` is ``cifar10`` cut to ratio 100."""

import re

import numpy as np

from gcelib import _check
from gcelib.study.data.splits import ArrayPair, per_class

_TAIL = re.compile(r"(.+)_lt([1-9]\d{0,5}(?:\.\d*[1-9])?)")


def split_name(name: str) -> tuple[str, float | None]:
    """Take the long tail off a name.

    Parameters
    ----------
    name : str
        Any name.

    Returns
    -------
    base : str
        The name without ``_lt<rho>``.
    rho : float or None
        The ratio of the largest class to the smallest; None without a tail.

    Examples
    --------
    >>> split_name("cifar10_lt100"), split_name("cifar10")
    (('cifar10', 100.0), ('cifar10', None))
    """
    tail = _TAIL.fullmatch(name)
    return (tail[1], float(tail[2])) if tail else (name, None)


def long_tail_counts(n_max: int, n_classes: int, rho: float) -> list[int]:
    """Count the images of each class of a long tail, class 0 first.

    Parameters
    ----------
    n_max : int
        Images of class 0, the head.
    n_classes : int
        K >= 2.
    rho : float
        Ratio of the largest class to the smallest, >= 1.

    Returns
    -------
    list of int
        n_k = round(n_max rho^(-k / (K - 1))), and at least 1.

    Raises
    ------
    ValueError, TypeError
        If a number is out of its range: of the literature's factor 0.01, rho is 100.

    References
    ----------
    The paper's Appendix C.

    Examples
    --------
    >>> long_tail_counts(5000, 10, 100)
    [5000, 2997, 1797, 1077, 646, 387, 232, 139, 83, 50]
    """
    _check.number("n_max", n_max, 1, integer=True)
    _check.number("n_classes", n_classes, 2, integer=True)
    _check.number("rho", rho, 1)
    exact = [n_max * rho ** (-k / (n_classes - 1)) for k in range(n_classes)]
    return [max(1, int(n + 0.5)) for n in exact]


def cut(pair: ArrayPair, n_classes: int, rho: float) -> ArrayPair:
    """Cut a balanced part down to a long tail: always the same samples.

    Parameters
    ----------
    pair : pair of arrays
        Samples and labels.
    n_classes : int
        K.
    rho : float
        Ratio of the largest class to the smallest.

    Returns
    -------
    pair of arrays
        What is left, in its original order. The head is as large as the smallest class
        was, so that every count can be met.

    Examples
    --------
    >>> samples, labels = cut((np.arange(20), np.arange(20) % 2), 2, 10)
    >>> np.bincount(labels).tolist()
    [10, 1]
    """
    samples, labels = pair
    head = int(np.bincount(labels, minlength=n_classes).min())
    keep = per_class(labels, long_tail_counts(head, n_classes, rho), seed=0)
    return samples[keep], labels[keep]
