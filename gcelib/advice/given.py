"""What ``advise`` is given: checked, and told where it would mislead."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gcelib import _check
from gcelib._check import Array
from gcelib.advice.judging import Part
from gcelib.bins import check_confidences
from gcelib.blocks import rounding_of
from gcelib.metrics import logits_from_confidences, logits_from_probabilities

#: So many labels of rows that are there twice, expected to differ and alike all the
#: same, tell that these rows are copies: by chance this happens once in 1,000 sets.
_DOUBTS = 7
#: So many different rows and labels, nearly all there equally often, are no chance.
_CELLS_NEEDED = 12
_NEARLY_ALL = 0.95
#: A set that is there more often than this is not looked for.
_MOST_TIMES = 10
#: Confidences that were rounded to two digits may be so far below 1/K, relative; and so
#: many may be lower for other reasons.
_ROUNDED = 0.05
_FEW_IMPOSSIBLE = 0.01
#: So many rows of rounded numbers are alike by chance, also of a small set.
_FEW_ROWS = 10
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


def checked_rule(choose_by: str, folds: int, seed: int) -> tuple[str, int, int]:
    """The options of both kinds of advice, checked."""
    _check.choice("choose_by", choose_by, ("nll", "ece"))
    folds = _check.number("folds", folds, 2, 1000, integer=True)
    seed = _check.number("seed", seed, 0, 2**31, integer=True)
    return choose_by, folds, seed


def refuse_few(name: str, n_samples: int, folds: int) -> None:
    """Refuse fewer than two samples a fold."""
    if n_samples < 2 * folds:
        cure = f"{folds} folds want {2 * folds} at the least"
        _check.fail(name, f"has {n_samples} samples", cure)


def refuse_half_a_test(first: tuple[str, object], second: tuple[str, object]) -> None:
    """Refuse one of two arguments that go together, each a name and a value."""
    if (first[1] is None) != (second[1] is None):
        _check.fail(first[0], f"and {second[0]} go together", "pass both or none")


def wrong_or_right(confidences: Array, correct: Array, names: tuple[str, str]) -> Part:
    """Logits (N, 2) of wrong and right, and 1 where right."""
    values, hits = check_confidences(confidences, correct, names)
    tolerance = rounding_of(values, probabilities=True)
    return Part(logits_from_confidences(values), (hits == 1).long(), tolerance)


def _dtype_of_study(scores: Tensor) -> torch.dtype:
    """The type that advice computes in: the given one, at least float32."""
    return torch.promote_types(scores.dtype, torch.float32)


def warn_of_impossible(confidences: Array, model_classes: int) -> None:
    """Say so if many confidences are lower than the largest of K probabilities is."""
    values = _check.as_tensor("confidences", confidences)
    lowest = (1 - _ROUNDED) / model_classes
    share = float((values < lowest).double().mean())
    if share > _FEW_IMPOSSIBLE:
        _check.warn(
            f"confidences: {share:.0%} are below 1/{model_classes}, and the largest of "
            f"{model_classes} probabilities is not; pass that one, and no margin, "
            "entropy or probability of another class, unless the model has more "
            "classes or they were calibrated since"
        )


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


def _has_fine_column(rows: Tensor) -> bool:
    """Tell whether the first column without equal numbers is not of a few digits."""
    for column in rows.double().sort(dim=0).values.unbind(1):
        steps = column.diff()
        if len(steps) and steps.min() > 0:
            return int((steps <= 1.5 * steps.min()).sum()) <= _FEW_STEPS
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
) -> str:
    """Say so if validation samples are tested, and give how many are there again.

    ``given``: the confidences from which ``val`` and ``test`` were made.
    """
    again = how_many_again(val, test, given)
    if again:
        _check.warn(
            f"{names[1]}: {again} of {len(test[1]):,} rows are rows of "
            f"{names[0]}, on which the calibrators are fitted; pass samples that had "
            "no say"
        )
    return again or _a_few_again(val, test, given)


def _a_few_again(
    val: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    given: tuple[Tensor, Tensor] | None,
) -> str:
    """Give the number of test rows that are in val, too few to be told for themselves.

    "" where rows of scores are alike by chance.
    """
    of_val, of_test = (val[0], test[0]) if given is None else given
    if of_val.ndim == 1:
        return ""
    coarser = min(of_val.dtype, of_test.dtype, key=lambda kind: kind.itemsize)
    in_val, in_test = (
        Counter(_check.digests_of_rows(rows.to(coarser))) for rows in (of_val, of_test)
    )
    n_again = sum(count for row, count in in_test.items() if row in in_val)
    is_chance = max(_by_chance(in_val, in_test, times=1)) >= _HARDLY_ANY
    return f"{n_again:,}" if n_again and not is_chance else ""


def how_many_again(
    val: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    given: tuple[Tensor, Tensor] | None = None,
) -> str:
    """Say how many test samples are validation samples; "" where that may be chance.

    Rows are compared in the coarser of their two types. Equal ones may be no more than
    rounded, but then their labels differ as often as they say (``_are_the_same``). Rows
    of scores are nobody else's, but for as many as validation has twice, as it has of
    votes; of confidences alone all may be alike. Two parts that hold each row and
    label equally often are one.

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
    compared = (val[0], test[0]) if given is None else given
    coarser = min((rows.dtype for rows in compared), key=lambda kind: kind.itemsize)
    in_val, in_test = (_check.digests_of_rows(rows.to(coarser)) for rows in compared)
    val_labels, test_labels = val[1].tolist(), test[1].tolist()
    labels: dict[bytes, list[int]] = {}
    for row, label in zip(in_val, val_labels, strict=True):
        labels.setdefault(row, []).append(label)
    repeated = sum(len(known) for known in labels.values() if len(known) > 1)
    once = 0
    again = []
    differ = []
    for i, (row, label) in enumerate(zip(in_test, test_labels, strict=True)):
        known = labels.get(row, [])
        once += len(known) == 1
        if len({*known}) == 1:
            again.append(i)
            differ.append(label not in known)
    surely = _are_the_same(test[0][again], test[1][again], torch.tensor(differ))
    are_rows = compared[0].ndim == 2
    few = max(0.02 * len(test[1]), min(_FEW_ROWS, 0.2 * len(test[1])))
    by_chance = few + 2 * repeated / len(val[1]) * len(test[1])
    cells = [
        Counter(zip(rows, of_rows, strict=True))
        for rows, of_rows in ((in_val, val_labels), (in_test, test_labels))
    ]
    n_times = _times_there(cells[0])
    rows_of_both = Counter(in_val), Counter(in_test)
    if _are_one_set(*cells):
        n_shared = (rows_of_both[0] & rows_of_both[1]).total()
        is_exact = rows_of_both[0] == rows_of_both[1]
        is_exact = is_exact or max(_by_chance(*rows_of_both, n_times)) < _HARDLY_ANY
        return f"{n_shared:,}" if is_exact else f"about {n_shared:,}"
    if (are_rows and once > by_chance) or (surely and len(again) > few):
        return _how_many(*rows_of_both, n_times)
    return ""


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


def checked_logits(
    split: str, logits: Array, labels: Array, probabilities: bool
) -> Part:
    """Logits in at least float32 and labels, on the CPU."""
    name = f"{split}_logits"
    labels_name = f"{split}_labels"
    z = _check.as_tensor(name, logits)
    y = _check.as_tensor(labels_name, labels)
    _check.check_has_values(name, z)
    _check.check_has_values(labels_name, y)
    z = z.cpu()
    y = y.cpu()
    _check.warn_of_tables(logits, labels, z, y, (name, labels_name))
    _check.check_logits(z, name)
    _check.check_labels(y, z.shape[0], z.shape[1], labels_name)
    tolerance = rounding_of(z, probabilities=probabilities)
    if probabilities:
        _check.check_probabilities(z, name)
        z = logits_from_probabilities(z)
    else:
        _check.warn_of_probabilities(z, name)
    return Part(z.to(_dtype_of_study(z)), y.long(), tolerance)
