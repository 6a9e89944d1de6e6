"""Samples that are there twice, or tested again: found by rows of scores and labels."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from gcelib import _check

#: So many labels of rows that are there twice, expected to differ and alike all the
#: same, tell that these rows are copies: by chance this happens once in 1,000 sets.
_DOUBTS = 7
#: So many different rows and labels, nearly all there equally often, are no chance.
_CELLS_NEEDED = 12
_NEARLY_ALL = 0.95
#: A set that is there more often than this is not looked for.
_MOST_TIMES = 10
#: So many rows of rounded numbers are alike by chance, also of a small set.
_FEW_ROWS = 10
#: So many confidences with all their digits are alike in two parts by no chance: more
#: than half as many as are as near to each other as the nearest.
_A_FEW = 5
_STEPS_OF_CONFIDENCES = 6
#: Of numbers that are not rounded hardly more are as near to each other as the nearest.
_FEW_STEPS = 2
#: A probability above this may be 1 but for rounding; and so many rows below it show
#: whether they were rounded.
_SATURATED = 1 - 1e-6
_ROWS_NEEDED = 100
#: If fewer rows are alike by chance, the number of copies is known.
_HARDLY_ANY = 0.5
#: If more of the other rows are alike by chance, the number of copies is not known.
_MOST_BY_CHANCE = 0.5
#: A test part smaller than this, relative, does not tell how many rows are alike.
_LARGE_TEST = 0.25


def warn_of_copies(name: str, logits: Tensor, labels: Tensor) -> None:
    """Say so if samples are there twice: each would judge a fit that has seen it.

    Rows of coarse scores are alike, too, but then their labels differ as often as the
    scores, or their errors, say: see ``_are_the_same``.
    """
    rows = _check.digests_of_rows(logits)
    first: dict[bytes, int] = {}
    copies = []
    originals = []
    for i, row in enumerate(rows):
        before = first.setdefault(row, i)
        if before != i:
            copies.append(i)
            originals.append(before)
    differ = labels[copies] != labels[originals]
    n_times = _times_there(Counter(zip(rows, labels.tolist(), strict=True)))
    is_whole = n_times > 1 and _doubts(logits) > _DOUBTS
    if is_whole:
        n_copies = len(labels) - len(labels) // n_times
        is_exact = all(count % n_times == 0 for count in Counter(rows).values())
        about = "" if is_exact else "about "
        found = f"{about}{n_copies:,} of {len(logits):,} rows copy others"
    elif len(copies) > _FEW_ROWS and _are_fine(logits[[*first.values()]]):
        found = f"{len(copies):,} of {len(logits):,} rows copy others"
    elif copies and _are_the_same(logits[copies], labels[copies], differ):
        found = f"{len(copies):,} of {len(logits):,} rows "
        found += "are like others, and some of them copies"
    else:
        return
    _check.warn(
        f"{name}: {found}, with the same labels, so that cross-validation judges "
        "calibrators by samples they were fitted on; pass each sample once"
    )


def _are_fine(rows: Tensor) -> bool:
    """Tell whether different rows are so apart that none are alike by rounding.

    Logits or probabilities of a few digits have their least distance again and again.
    Of saturated rows, whose probabilities all are 0 and 1, nothing can be told.
    """
    probs = rows.double().softmax(1)
    probs = probs[probs.amax(1) < _SATURATED]
    if len(probs) < _ROWS_NEEDED:
        return False
    return _has_fine_column(rows) and _has_fine_column(probs)


def _are_fine_confidences(val: Tensor, test: Tensor) -> bool:
    """Tell whether confidences (N,) are so fine that none are alike by chance.

    Each part has hardly any twice, and they are no numbers of a few digits.
    """
    for part in (val, test):
        unsaturated = part[part < _SATURATED].tolist()
        if len({*unsaturated}) < _NEARLY_ALL * len(unsaturated):
            return False
    values = {value for value in (*val.tolist(), *test.tolist()) if value < _SATURATED}
    different = torch.tensor([*values], dtype=torch.float64)
    if len(different) < _ROWS_NEEDED:
        return False
    return _has_fine_column(different[:, None], _STEPS_OF_CONFIDENCES)


def _has_fine_column(rows: Tensor, few: int = _FEW_STEPS) -> bool:
    """Tell whether the first column without equal numbers is not of a few digits."""
    for column in rows.double().sort(dim=0).values.unbind(1):
        steps = column.diff()
        if len(steps) and steps.min() > 0:
            return int((steps <= 1.5 * steps.min()).sum()) <= few
    return False


def _are_the_same(logits: Tensor, labels: Tensor, differ: Tensor) -> bool:
    """Tell whether rows that are alike are one sample, by how rarely labels differ.

    ``labels`` are those of one of both, ``differ`` tells where the other's is another.
    Two samples with one row of scores have two labels at least as often as its
    prediction is wrong. All of ``_DOUBTS`` of them agree by chance once in 1,000 sets;
    of half as many as there are errors so few differ that this is no more likely.
    """
    n_differ = int(differ.sum())
    if n_differ == 0:
        return _doubts(logits) > _DOUBTS
    n_wrong = int((logits.argmax(1) != labels).sum())
    expected = min(n_wrong, len(labels) - n_wrong) / 2
    return n_differ < expected - 3 * math.sqrt(expected)


def _doubts(logits: Tensor) -> float:
    """How many predictions are wrong by what they say themselves."""
    return float((1 - logits.double().softmax(1).amax(1)).sum())


def _times_there(cells: Mapping[Any, int]) -> int:
    """How often a whole set is there: 2 if all of it is twice, 1 where it is not.

    ``cells`` count the samples of each row and label. Of one set counts are even for
    half of the cells or less, by chance.
    """
    if len(cells) < _CELLS_NEEDED:
        return 1
    for times in range(2, _MOST_TIMES + 1):
        n_whole = sum(count % times == 0 for count in cells.values())
        if n_whole >= _NEARLY_ALL * len(cells):
            return times
    return 1


def warn_of_tested_again(
    names: tuple[str, str],
    val: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    given: tuple[Tensor, Tensor] | None = None,
) -> str | None:
    """Say so if validation samples are tested, and give how many are there again.

    ``given``: the confidences from which ``val`` and ``test`` were made. So few that
    there is no warning are given, too; "" where none are, and None where that cannot be
    known, since rows are alike by chance.
    """
    rows = _Rows.of(val, test, given)
    again = _how_many_again(rows, val, test)
    if again:
        _check.warn(
            f"{names[1]}: {again} of {len(test[1]):,} rows are rows of "
            f"{names[0]}, on which the calibrators are fitted; pass samples that had "
            "no say"
        )
        return again
    return _a_few_again(rows)


def how_many_again(
    val: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    given: tuple[Tensor, Tensor] | None = None,
) -> str:
    """Say how many test samples are validation samples; "" where that may be chance.

    Rows are compared in the coarser of their two types. Equal ones may be no more than
    rounded, but then their labels differ as often as they say (``_are_the_same``). Rows
    of scores, and confidences with all their digits, are nobody else's, but for as many
    as validation has twice, as it has of votes; rounded confidences may all be alike.
    Two parts that hold each row and label equally often are one.

    Parameters
    ----------
    val, test : pairs of (N, K) logits and (N,) labels
        On the CPU.
    given : pair of (N, K) or (N,) tensors, optional
        From which the logits were made: these are compared. (N,): confidences.

    Returns
    -------
    str
        A number; "about" one where some rows are alike by chance; "some" where most
        are.
    """
    return _how_many_again(_Rows.of(val, test, given), val, test)


@dataclass(frozen=True)
class _Rows:
    """What is compared of validation and test: a digest of each row."""

    in_val: list[bytes]
    in_test: list[bytes]
    #: So many that are alike are no chance: of scores for each class one is, of
    #: confidences with all their digits a few; None of others.
    needed: int | None

    @classmethod
    def of(
        cls,
        val: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        given: tuple[Tensor, Tensor] | None,
    ) -> Self:
        """The rows of ``given``, else of the logits, in the coarser of both types."""
        of_val, of_test = (val[0], test[0]) if given is None else given
        coarser = min(of_val.dtype, of_test.dtype, key=lambda kind: kind.itemsize)
        of_val, of_test = of_val.to(coarser), of_test.to(coarser)
        needed: int | None = 1
        if of_val.ndim == 1:
            needed = _A_FEW if _are_fine_confidences(of_val, of_test) else None
        in_val, in_test = map(_check.digests_of_rows, (of_val, of_test))
        return cls(in_val, in_test, needed)

    @cached_property
    def counts(self) -> tuple[Counter[bytes], Counter[bytes]]:
        """How often each row is in validation, and in test."""
        return Counter(self.in_val), Counter(self.in_test)


def _a_few_again(rows: _Rows) -> str | None:
    """Give the number of test rows that are in val, too few to be told for themselves.

    "" for none; None where rows are alike, but maybe by chance.
    """
    in_val, in_test = rows.counts
    n_again = sum(count for row, count in in_test.items() if row in in_val)
    if n_again == 0:
        return ""
    if rows.needed is None or n_again < rows.needed:
        return None
    is_chance = max(_by_chance(in_val, in_test, times=1)) >= _HARDLY_ANY
    return None if is_chance else f"{n_again:,}"


def _how_many_again(
    rows: _Rows, val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> str:
    """What ``how_many_again`` says of ``rows``, which are those of val and test."""
    val_labels, test_labels = val[1].tolist(), test[1].tolist()
    val_cells = Counter(zip(rows.in_val, val_labels, strict=True))
    test_cells = Counter(zip(rows.in_test, test_labels, strict=True))
    n_times = _times_there(val_cells)
    counts = rows.counts
    if _are_one_set(val_cells, test_cells):
        n_shared = (counts[0] & counts[1]).total()
        is_exact = counts[0] == counts[1]
        is_exact = is_exact or max(_by_chance(*counts, n_times)) < _HARDLY_ANY
        return f"{n_shared:,}" if is_exact else f"about {n_shared:,}"
    if _are_too_many_scores(rows) or _are_too_many_labels(rows, val, test):
        return _how_many(*counts, n_times)
    return ""


def _few_of(n_test: int) -> float:
    """So many test rows may be alike without a word."""
    return max(0.02 * n_test, min(_FEW_ROWS, 0.2 * n_test))


def _are_too_many_scores(rows: _Rows) -> bool:
    """Tell whether test has more rows of val than val has rows of its own again."""
    if rows.needed is None:
        return False
    in_val, in_test = rows.counts
    n_val, n_test = len(rows.in_val), len(rows.in_test)
    n_again = sum(count for row, count in in_test.items() if in_val[row] == 1)
    share_repeated = sum(count for count in in_val.values() if count > 1) / n_val
    return n_again > _few_of(n_test) + 2 * share_repeated * n_test


def _are_too_many_labels(
    rows: _Rows, val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> bool:
    """Tell whether labels of alike rows agree more often than predictions are right.

    Of rows that validation has with one label only.
    """
    labels_of: dict[bytes, set[int]] = {}
    for row, label in zip(rows.in_val, val[1].tolist(), strict=True):
        labels_of.setdefault(row, set()).add(label)
    again: list[int] = []
    differ: list[bool] = []
    for i, (row, label) in enumerate(zip(rows.in_test, test[1].tolist(), strict=True)):
        known = labels_of.get(row, set())
        if len(known) == 1:
            again.append(i)
            differ.append(label not in known)
    if len(again) <= _few_of(len(test[1])):
        return False
    return _are_the_same(test[0][again], test[1][again], torch.tensor(differ))


def _how_many(val: Mapping[bytes, int], test: Mapping[bytes, int], times: int) -> str:
    """Say how many rows of test are rows of val, without those alike by chance.

    ``times``: so often all of val is there.
    """
    n_test = sum(test.values())
    n_alike = sum(count for row, count in test.items() if row in val)
    by_chance = _by_chance(val, test, times)
    if max(by_chance) < _HARDLY_ANY:
        return f"{n_alike:,}"
    n_by_chance = min(by_chance)
    if n_by_chance <= min(_MOST_BY_CHANCE * n_test, n_alike / 2):
        n_again = (n_alike - n_by_chance) / (1 - n_by_chance / n_test)
        return f"about {float(f'{n_again:.2g}'):,.0f}"
    return "some"


def _by_chance(
    val: Mapping[bytes, int], test: Mapping[bytes, int], times: int
) -> list[float]:
    """Estimate how many of as many fresh test rows are in val, as rounded ones may be.

    As many as val, and test, have of their own rows again; either may hold copies, and
    then it has more.
    """
    n_val = sum(val.values())
    n_test = sum(test.values())
    in_val = sum(n for n in val.values() if n > times) / n_val
    if n_test < _LARGE_TEST * n_val / times:
        return [in_val * n_test]
    drawn = n_val / times / max(1, n_test - 1)
    if drawn < 1:  # whether one of the others is among so many that are drawn of them
        in_test = sum(n * (1 - (1 - drawn) ** (n - 1)) for n in test.values()) / n_test
    else:
        once = sum(n for n in test.values() if n == 1) / n_test
        in_test = 1 - float(once**drawn)
    return [in_val * n_test, in_test * n_test]


def _are_one_set(one: Mapping[Any, int], other: Mapping[Any, int]) -> bool:
    """Tell whether two sets hold each row and label equally often, nearly all."""
    cells = {*one, *other}
    if len(cells) < _CELLS_NEEDED:
        return False
    n_equal = sum(one.get(cell, 0) == other.get(cell, 0) for cell in cells)
    return n_equal >= _NEARLY_ALL * len(cells)
