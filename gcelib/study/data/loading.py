"""``load(name, seed)``: any data set, known or your own, as ``Splits``."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gcelib._check import as_tensor, choice, fail, number, warn
from gcelib.study import places
from gcelib.study.data import own
from gcelib.study.data.long_tails import cut, split_name
from gcelib.study.data.sources import DATASETS, Source
from gcelib.study.data.splits import Array, ArrayPair, Splits, TensorPair, divide

_LARGEST_SEED = 2**32 - 1  # of numpy's legacy generator


def parent(dataset: str, argument: str = "dataset") -> str:
    """Find the row that a name belongs to.

    Parameters
    ----------
    dataset : str
        A key of ``DATASETS``, one followed by ``_lt<rho>``, or your own data
        (``folder:``, ``npz:``, ``module:function``).
    argument : str, default "dataset"
        What the message calls it.

    Returns
    -------
    str
        The known name without its long tail; of your own data, its full name.

    Raises
    ------
    ValueError, TypeError
        With the nearest known name.

    Examples
    --------
    >>> parent("cifar10_lt100")
    'cifar10'
    """
    if isinstance(dataset, str) and own.is_own(dataset):
        return own.full_name(dataset)
    base = split_name(dataset)[0] if isinstance(dataset, str) else dataset
    known: str = choice(argument, base, DATASETS)
    return known


def source_of(dataset: str, seed: int = 1, argument: str = "dataset") -> Source:
    """Describe a data set; your own is read for it, and checked as a whole.

    Parameters
    ----------
    dataset : str
        A name that ``load`` takes.
    seed : int, default 1
        Draws the parts that your own data lacks.
    argument : str, default "dataset"
        What the message calls it.

    Returns
    -------
    Source
        The row of ``DATASETS``, with the fingerprint of a file that you made for it; or
        one made for your data.

    Raises
    ------
    ValueError, TypeError, OSError
        For an unknown name; for data that cannot be used, with the reason.

    Examples
    --------
    >>> source_of("fashion_mini_lt10").n_validation
    1000
    """
    name = parent(dataset, argument)
    if own.is_own(name):
        return own.source(name, seed)
    source = DATASETS[name]
    file = places.data_dir() / (source.by_hand or "")
    if source.by_hand is None or not file.is_file():
        return source
    stat = file.stat()
    version = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return dataclasses.replace(source, fingerprint=_digest(file, version))


@functools.lru_cache(maxsize=1)  # every config of a grid asks
def _digest(file: Path, version: object) -> str:
    """The SHA-256 of a file, read again only if its size or times have changed."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def load(
    name: str, seed: int | None = None, root: str | os.PathLike[str] | None = None
) -> Splits:
    """Load a data set; the seed draws the split into train and validation.

    The tail of a long-tailed version is cut from the whole training pool, always the
    same images; a tenth of what remains is validation, so rho is that of both together
    (of ``fashion_mini_lt100`` training has 545 images of class 0 and 6 of class 9 at
    seed 1). Where samples belong together
    (``digit_pairs``: a digit; ``av1451``: a subject) train and val are split first,
    then cut. Validation is drawn as in the published code (numpy's legacy shuffle, not
    stratified): CIFAR at seed 1 is its very split, and a class of one or two images may
    be missing in train. The test split depends on the seed, too, of ``av1451`` and of
    your own data that brings none (or by the function that makes it): load these with
    the seed of the run whose samples you want.

    Parameters
    ----------
    name : str
        A key of ``DATASETS``, or one followed by ``_lt<rho>`` for its long-tailed
        version (``cifar10_lt100``); or your own data: ``"folder:/path"``,
        ``"npz:/path.npz"``, ``"module:function"`` (see ``gcelib.study.data.own``).
    seed : int, optional
        In [0, 2^32); None: 1, and it is told where the test part depends on it.
    root : path, optional
        Folder of the downloaded files; None: ``$GCELIB_DATA_DIR``, else ``data/`` of
        the checkout, else of the user's cache.

    Returns
    -------
    Splits
        Of CPU tensors.

    Raises
    ------
    ValueError, TypeError
        For unknown names and damaged files.
    OSError
        Where files are missing and cannot be downloaded.

    Examples
    --------
    >>> splits = load("digits", seed=1)
    >>> len(splits.train[1]), len(splits.val[1]), len(splits.test[1])
    (1000, 300, 497)
    """
    own.forget()  # a function's data may have changed since somebody asked for it
    splits = load_as_described(name, 1 if seed is None else seed, root)
    if seed is None and own.is_own(name) and own.draws_test(name):
        warn(
            f"seed: {name} brings no test part, so that the seed draws it; pass that "
            "of the run whose samples these should be (seed=1 was taken)"
        )
    return splits


def load_as_described(
    name: str, seed: int = 1, root: str | os.PathLike[str] | None = None
) -> Splits:
    """Load a data set as it was when its config was resolved, a moment ago.

    A function of the user's is not called a second time for its data.

    Parameters
    ----------
    name, seed, root
        As for ``load``.

    Returns
    -------
    Splits
        As from ``load``.

    Raises
    ------
    ValueError, TypeError, OSError
        As from ``load``.

    Examples
    --------
    >>> load_as_described("digits").n_classes
    10
    """
    base = parent(name, "name")
    seed = number("seed", seed, 0, _LARGEST_SEED, integer=True)
    source = source_of(name, seed, "name")
    raw = source.read(places.data_dir(root), seed)
    if raw.test is None:
        fail(base, "its reader found no test split", "let it return one")
    train = raw.train
    val = raw.val
    rho = None if own.is_own(base) else split_name(name)[1]
    if rho is not None:
        train = cut(train, len(raw.class_names), rho)
        val = None if val is None else cut(val, len(raw.class_names), rho)
    if val is None:
        n_validation = len(train[1]) / 10
        if source.n_validation is not None and rho is None:
            n_validation = source.n_validation
        train, val = divide(train, n_validation, seed)
    parts: Sequence[ArrayPair] = (train, val, raw.test)
    if own.is_own(base):
        # Its readers keep what they read: who writes into a tensor must not reach that.
        parts = [(x.copy(), y.copy()) for x, y in parts]
    full_name = base if own.is_own(base) else name
    return _assembled(full_name, source, parts, raw.class_names)


def _assembled(
    name: str, source: Source, parts: Sequence[ArrayPair], class_names: Sequence[str]
) -> Splits:
    """Turn arrays into tensors and add what else training must know."""
    samples = parts[0][0]
    mean, std = source.constants or _constants_of(samples)
    train, val, test = (_tensors(part) for part in parts)
    return Splits(
        name,
        train,
        val,
        test,
        n_classes=len(class_names),
        mean=torch.as_tensor(np.asarray(mean, np.float32)),
        std=torch.as_tensor(np.asarray(std, np.float32)),
        class_names=tuple(class_names),
        input_shape=tuple(samples.shape[1:]),
        augment=source.augment,
    )


def _constants_of(samples: Array) -> tuple[Array, Array]:
    """Return mean and deviation of features, or of the channels of pixels in [0, 1]."""
    axes = 0 if samples.ndim == 2 else (0, 2, 3)
    unit = 1 if samples.ndim == 2 else 255
    # In float64: along the rows numpy adds one by one, and float32 loses what is added.
    mean = samples.mean(axes, dtype=np.float64) / unit
    std = samples.std(axes, dtype=np.float64) / unit
    varies = samples.max(axes) > samples.min(axes)
    return mean, np.where(varies, std, 1)  # what never changes is left as it is


def _tensors(pair: ArrayPair) -> TensorPair:
    """Return the pair as tensors; labels as int64."""
    samples, labels = pair
    contiguous = np.ascontiguousarray(samples)
    return as_tensor("x", contiguous), as_tensor("y", labels).long()
