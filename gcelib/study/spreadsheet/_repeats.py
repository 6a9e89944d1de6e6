"""Labels of the same samples, which a table of several models holds once for each."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

Ids = npt.NDArray[np.int64]

#: Labels in a row that are compared, of ever fewer chance agreements.
_LENGTHS = (8, 12, 16, 24, 32, 48, 64)
#: Of each part so many labels are compared.
_COMPARED = 20_000
#: So many rows of labels must occur once, or agreement may be chance.
_MOSTLY_ONCE = 0.8
#: So many rows of one part are found in another: a label was changed, a line lacks.
_MOSTLY_SHARED = 0.5
#: So seldom may chance give counts of classes that are as alike.
_BY_CHANCE = 1e-3
#: Classes with fewer samples in a part are counted together.
_RARE = 5
#: Counts are whole: so far from the mean may equal ones be.
_STEP = 0.25


def have_same_order(parts: Sequence[Ids]) -> bool:
    """Whether parts have the same labels in one order, but for a few lines.

    Not where they are sorted by class: of such samples folds may be alike.
    """
    first, *others = parts
    n_changes = int((first[1:] != first[:-1]).sum())
    if n_changes < len(np.unique(first)):  # sorted by class
        return False
    if all(np.array_equal(first, other) for other in others):
        return True
    first, *others = (part[:_COMPARED] for part in parts)
    for length in _LENGTHS:
        if len(first) < 3 * length:
            return False
        known = _rows_of(first, length)
        if len(np.unique(known)) < _MOSTLY_ONCE * len(known):
            continue
        if all(_are_found(other, known, length) for other in others):
            return True
    return False


def _are_found(labels: Ids, known: npt.NDArray[np.uint64], length: int) -> bool:
    """Whether rows of labels are found among others, and backwards they are not.

    Labels that hardly change from line to line, as those of a recording, are found
    both ways.
    """
    if len(labels) < 2 * length:
        return False
    forwards, backwards = (
        np.isin(_rows_of(one, length), known).mean() for one in (labels, labels[::-1])
    )
    return bool(forwards >= _MOSTLY_SHARED and backwards <= forwards / 5)


def have_same_counts(parts: Sequence[Ids]) -> bool:
    """Whether all parts have more alike counts of the classes than chance gives.

    By Pearson's statistic, of which the lower tail is asked.
    """
    n_classes = 1 + max(int(part.max()) for part in parts)
    counts = np.array([np.bincount(part, minlength=n_classes) for part in parts])
    is_rare = counts.mean(0) < _RARE
    rest = counts[:, is_rare].sum(1)
    counts = np.column_stack([counts[:, ~is_rare], rest])
    counts = counts[:, counts.mean(0) >= _RARE]
    expected = counts.mean(0)
    freedom = (len(parts) - 1) * (counts.shape[1] - 1)
    if freedom < 1:
        return False
    distances = np.abs(counts - expected) + _STEP
    statistic = float((distances**2 / expected).sum())
    tail = torch.special.gammainc(
        torch.tensor(freedom / 2, dtype=torch.float64),
        torch.tensor(statistic / 2, dtype=torch.float64),
    )
    return float(tail) < _BY_CHANCE


def _rows_of(labels: Ids, length: int) -> npt.NDArray[np.uint64]:
    """A number for each row of so many labels; equal rows have equal numbers."""
    windows = np.lib.stride_tricks.sliding_window_view(labels, length)
    generator = np.random.default_rng(0)
    weights = generator.integers(1, 2**63, length, dtype=np.uint64)
    total = np.zeros(len(windows), dtype=np.uint64)
    for at, weight in enumerate(weights):
        total += (windows[:, at].astype(np.uint64) + np.uint64(1)) * weight
    return total
