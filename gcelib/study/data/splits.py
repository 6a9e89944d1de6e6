"""A data set in memory, and how samples are drawn from it by a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
#: Samples and their labels as a reader finds them, and as training gets them.
ArrayPair = tuple[Array, Array]
TensorPair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Splits:
    """One data set, split: all that training and evaluation need to know about it.

    Parameters
    ----------
    name : str
        What it was loaded by.
    train, val, test : pairs of tensors
        Images, uint8 (N, C, H, W), or features, float32 (N, D); and labels, int64 (N,).
    n_classes : int
        K; labels lie in [0, K).
    mean, std : float32 tensors
        (C,), of pixels in [0, 1]; or (D,), of the features. ``std`` is above 0.
        ``normalize`` uses them for every split.
    class_names : tuple of str
        K names.
    input_shape : tuple of int
        (C, H, W) or (D,).
    augment : bool
        Whether random crops and mirror images still show the same class.

    Examples
    --------
    >>> part = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    >>> constants = torch.tensor([0.5]), torch.tensor([0.25])
    >>> splits = Splits(
    ...     "mine", part, part, part, 2, *constants, ("a", "b"), (1, 8, 8), False
    ... )
    >>> splits.n_classes
    2
    """

    name: str
    train: TensorPair
    val: TensorPair
    test: TensorPair
    n_classes: int
    mean: torch.Tensor
    std: torch.Tensor
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    augment: bool


@dataclass(frozen=True, eq=False)
class Raw:
    """What a reader finds: numpy arrays; ``None`` for a part that is still to be drawn.

    Parameters
    ----------
    train, val, test : pairs of arrays
        Samples and labels; ``val`` and ``test`` may be None.
    class_names : sequence of str
        K names.

    Examples
    --------
    >>> raw = Raw((np.zeros((4, 2)), np.array([0, 1, 0, 1])), None, None, ("no", "yes"))
    >>> len(raw.class_names)
    2
    """

    train: ArrayPair
    val: ArrayPair | None
    test: ArrayPair | None
    class_names: Sequence[str]


def draw(groups: npt.ArrayLike, n: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose the first groups of a seeded shuffle that hold ``n`` rows or just more.

    Parameters
    ----------
    groups : (N,) array-like
        The group of each row; rows of one group stay together. ``range(N)``: each row
        alone.
    n : float
        Rows wanted, rounded to a whole number.
    seed : int
        Of numpy's legacy generator, whose numbers are frozen for ever; the published
        code draws its validation images by the same shuffle.

    Returns
    -------
    (N,) array of bool
        True for the rows that were drawn.

    Examples
    --------
    >>> int(draw(range(100), 10, seed=1).sum())
    10
    """
    ids, group_of = np.unique(np.asarray(groups), return_inverse=True)
    order = np.arange(len(ids))
    np.random.RandomState(seed).shuffle(order)
    rows_so_far = np.cumsum(np.bincount(group_of)[order])
    last = np.searchsorted(rows_so_far, round(n))
    return np.isin(group_of, order[: last + 1])


def divide(pair: ArrayPair, n: float, seed: int) -> tuple[ArrayPair, ArrayPair]:
    """Draw ``n`` samples out of ``pair``.

    Parameters
    ----------
    pair : pair of arrays
        N samples and their labels.
    n : float
        Samples to draw, rounded to a whole number.
    seed : int
        Decides which.

    Returns
    -------
    rest, drawn : pairs of arrays
        Both in their original order.

    Examples
    --------
    >>> rest, drawn = divide((np.arange(10), np.arange(10)), 3, seed=0)
    >>> len(rest[1]), len(drawn[1])
    (7, 3)
    """
    samples, labels = pair
    drawn = draw(range(len(labels)), n, seed)
    return (samples[~drawn], labels[~drawn]), (samples[drawn], labels[drawn])


def per_class(labels: Array, counts: Sequence[int], seed: int) -> npt.NDArray[np.intp]:
    """Choose ``counts[k]`` random samples of each class k.

    Parameters
    ----------
    labels : (N,) array of int
        The classes to choose from.
    counts : sequence of int
        How many of class 0, 1, ...; what a class lacks is left out.
    seed : int
        Decides which.

    Returns
    -------
    array of int
        Indices into ``labels``, sorted.

    Examples
    --------
    >>> per_class(np.array([0, 0, 1, 1]), [1, 2], seed=0)
    array([1, 2, 3])
    """
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = [order[labels[order] == k][:n] for k, n in enumerate(counts)]
    return np.sort(np.concatenate(chosen))
