"""Labels and predictions that stand for no class, or for several."""

import collections
import heapq
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gcelib import _check
from gcelib._check import fail
from gcelib.study.spreadsheet._words import (
    ERROR_VALUE,
    NEVER_A_CLASS,
    NO_CLASS_WORDS,
    NOTHING,
    bare_name,
    number_in,
    number_or_plain,
    quoted,
    words_of,
)

#: What tools write for "no label" where class ids are expected.
_IGNORED_IDS = {255, 999, 9999, 99999, 32767, 65535, 2**31 - 1}
#: So far above the other ids is one that does not count classes.
_FAR = 1.2
_VERY_FAR = 2
#: Of the ids up to the highest so many occur, where they count classes.
_NEARLY_ALL = 0.9
#: Lines from which it is no chance that one column never has a class.
_MANY = 20
#: A class of so few samples a model may well never predict.
_NOT_RARE = 0.05
#: So many of the highest ids may stand for no class.
_HIGHEST = 3
_BETWEEN = re.compile(r"[|;,/+&]")
#: So many lines with one prediction that no label is, are no accident.
_SEVERAL = 5
#: So many errors of a class are expected where it would be no chance that it has none.
_DOUBTS = 7

Counts = collections.Counter[Any]
Cells = Sequence[str] | npt.NDArray[np.int64]


def is_nothing(name: str) -> bool:
    """Whether a name is a word for no class."""
    return name.casefold() in NOTHING or bare_name(name) in NO_CLASS_WORDS


def look_for_several(
    labels: Sequence[str], said: Sequence[str], line: Callable[[int], int]
) -> None:
    """Refuse or tell labels that are made of others: ``Effusion|Mass``.

    Those that are predicted, too, are classes of their own, and so may a single one be.
    """
    rows = _rows_of_several(labels, said)
    if not rows:
        return
    problem = f"holds {quoted(labels[rows[0]])} in line {line(rows[0])}"
    cure = "write one class a line, or whether the prediction is among them as correct"
    if len({labels[row] for row in rows}) > 1:
        problem += f", which are several classes, and so do {len(rows):,} lines"
        fail("label", problem, cure)
    _check.warn(
        f"label: {problem}, which is never predicted, and its parts are labels; if "
        f"it is several classes, {cure}"
    )


def refuse_word_beside_numbers(
    role: str,
    names: Sequence[str],
    line: Callable[[int], int],
    known: Collection[str] = (),
    otherwise: str = "",
) -> None:
    """Refuse a word among class ids, as ``NA`` in a column of 0, 1 and 2.

    Of names some may be numbers: then most are none. ``known`` are words that are
    classes, and ``otherwise`` says how one may be.
    """
    kinds = dict.fromkeys(names)
    words = [name for name in kinds if not _is_whole(name)]
    n_ids = len(kinds) - len(words)
    if not n_ids or not (n_ids > len(words) or all(map(is_nothing, words))):
        return
    for word in words:
        if word not in known or word.casefold() in NEVER_A_CLASS:
            where = f"{quoted(word)} in line {line(names.index(word))}"
            cure = f"leave out samples without a class{otherwise}"
            fail(role, f"holds {where} beside whole numbers", cure)


def words_of_classes(labels: Sequence[str], said: Sequence[str]) -> set[str]:
    """What both columns hold; of words for no class what is confused with others."""
    pairs = {*zip(labels, said, strict=True)}
    confused = {name for pair in pairs if pair[0] != pair[1] for name in pair}
    both = {*labels} & {*said}
    return {name for name in both if name in confused or not is_nothing(name)}


def look_for_no_class_of_scores(
    labels: Sequence[str], predicted: Sequence[str], line: Callable[[int], int]
) -> None:
    """Tell labels that stand for no class, where no column of scores has their names.

    Where the word may be a class, one that is predicted is.
    """
    _tell_error_values("label", labels, line)
    there = {*predicted}
    for name, n_lines in collections.Counter(labels).items():
        never = name.casefold() in NEVER_A_CLASS and not ERROR_VALUE.fullmatch(name)
        if never or (is_nothing(name) and name not in there):
            _check.warn(
                f"label: {quoted(name)}, first in line {line(labels.index(name))}, "
                f"counts as a class, in {n_lines:,} lines, since there are as many "
                "columns of scores as names; leave out samples without a class"
            )


def look_for_no_class(labels: Cells, said: Cells, line: Callable[[int], int]) -> None:
    """Refuse or tell what stands for no class in one column.

    ``line`` gives the line in the file of a row.
    """
    for role, cells, others in (("label", labels, said), ("prediction", said, labels)):
        _tell_error_values(role, cells, line)
        _look_at_one(role, _listed(cells), {*_listed(others)}, line)
    if isinstance(labels, np.ndarray) and isinstance(said, np.ndarray):
        _tell_always_together(labels, said)
    elif not isinstance(labels, np.ndarray) and not isinstance(said, np.ndarray):
        _tell_words_together(labels, said)


def _tell_error_values(role: str, cells: Cells, line: Callable[[int], int]) -> None:
    """Warn of failed formulas, which are classes even where both columns have them."""
    if isinstance(cells, np.ndarray):
        return
    for value, n_lines in collections.Counter(cells).items():
        if ERROR_VALUE.fullmatch(value):
            _check.warn(
                f"{role}: {quoted(value)}, first in line {line(cells.index(value))}, "
                "is a spreadsheet's error value and counts as a class, in "
                f"{n_lines:,} lines; mend the formula, or leave those samples out"
            )


def _look_at_one(
    role: str, cells: list[Any], others: set[Any], line: Callable[[int], int]
) -> None:
    """Look at what one column has and the other never."""
    counts = collections.Counter(cells)
    ids = {cell for cell in others.union(counts) if isinstance(cell, int)}
    far = {value: _how_far(value, ids) for value in heapq.nlargest(_HIGHEST, ids)}
    unlike = []
    for value, n_lines in counts.items():
        if value in others or ERROR_VALUE.fullmatch(str(value)):
            continue
        how_far = far.get(value, 0)
        is_ignored = how_far >= _FAR and value in _IGNORED_IDS
        is_word = isinstance(value, str) and is_nothing(value)
        if not (is_ignored or is_word or how_far >= _VERY_FAR):
            unlike.append(value)
            continue
        where = f"{_shown(value)}, first in line {line(cells.index(value))}"
        if is_ignored:
            opposite = "label" if role == "prediction" else "prediction"
            problem = f"holds {where}, which no {opposite} is, beside class ids up to "
            problem += f"{max(one for one in ids if one < value)}"
            fail(role, problem, "leave out samples without a class")
        _check.warn(
            f"{role}: {where}, counts as a class, so that {n_lines:,} samples are "
            "errors; leave out samples without a class"
        )
    if role == "label":
        _tell_never_predicted(unlike, counts)
    else:
        _tell_never_true(unlike, counts, others)


def _tell_never_predicted(values: list[Any], counts: Counts) -> None:
    """Warn of a label that is common, and that no prediction is."""
    n = counts.total()
    for value in values:
        n_lines = counts[value]
        if n_lines >= _MANY and n_lines > _NOT_RARE * n:
            _check.warn(
                f"label: no prediction is {_shown(value)}, as {n_lines:,} of {n:,} "
                "labels are, which all count as errors; leave them out if it stands "
                "for no class"
            )


def _tell_never_true(values: list[Any], counts: Counts, labels: set[Any]) -> None:
    """Warn of predictions that no label is, if they are too many for chance.

    One that holds a label, as ``The answer is B``, is told, too. Of many classes few
    samples do not have all.
    """
    of_each = [counts[value] for value in values]
    n_unknown = sum(of_each)
    n = counts.total()
    if not n_unknown:
        return
    most = max(of_each)
    is_share = n_unknown > n / 20 and most >= _SEVERAL
    labels_are_few = n >= _MANY * len(labels) and n_unknown >= _MANY
    small = {str(label).casefold() for label in labels}
    hold_one = any(small & words_of(str(value)) for value in values)
    if is_share or most >= _MANY or labels_are_few or hold_one:
        first = _shown(max(values, key=lambda value: counts[value]))
        _check.warn(
            f"prediction: {n_unknown:,} of {n:,} are no label of this table, as "
            f"{first}, and count as errors; look how both are written, and leave out "
            "what is no class"
        )


def _tell_always_together(
    labels: npt.NDArray[np.int64], said: npt.NDArray[np.int64]
) -> None:
    """Warn of an id for "no label" that both columns have in the same lines."""
    *ids, value = np.union1d(labels, said).tolist()
    is_apart = value in _IGNORED_IDS and _how_far(value, {*ids}) >= _FAR
    if is_apart and bool(((labels == value) == (said == value)).all()):
        _check.warn(
            f"label: {value} stands in {(labels == value).sum():,} lines, in all of "
            "them as the prediction, too, and they count as right; leave out samples "
            "without a class"
        )


def _tell_words_together(labels: Sequence[str], said: Sequence[str]) -> None:
    """Warn of a word for no class that both columns have in the same lines.

    One that may be a class is no such word if so few lines have no error by chance.
    """
    pairs = collections.Counter(zip(labels, said, strict=True))
    n_true = collections.Counter(labels)
    n_said = collections.Counter(said)
    n_wrong = sum(n for (true, one), n in pairs.items() if true != one)
    for name in n_true:
        n_lines = pairs[name, name]
        if not is_nothing(name) or ERROR_VALUE.fullmatch(name):
            continue
        if not n_true[name] == n_said[name] == n_lines:
            continue
        others = max(1, len(labels) - n_lines)
        never = name.casefold() in NEVER_A_CLASS
        if never or n_lines * n_wrong / others >= _DOUBTS:
            _check.warn(
                f"label: {quoted(name)} stands in {n_lines:,} lines, in all of them as "
                "the prediction, too, and they count as right; leave out samples "
                "without a class"
            )


def _is_whole(name: str) -> bool:
    """Whether a name is a whole number."""
    value = number_in(name)
    return value is not None and value == int(value)


def _shown(value: str | int) -> str:
    """A name in quotes, or an id."""
    return str(value) if isinstance(value, int) else quoted(value)


def _listed(cells: Cells) -> list[Any]:
    """The cells, as they can be counted."""
    return cells.tolist() if isinstance(cells, np.ndarray) else list(cells)


def _how_far(value: int, ids: set[int]) -> float:
    """How many times as high as those below an id is; 0 if these count no classes."""
    below = [one for one in ids if one < value]
    if len(below) < 2 or min(below) not in (0, 1):
        return 0.0
    next_one = max(below) + 1
    count = len(below) >= _NEARLY_ALL * (next_one - min(below))
    return value / next_one if count and value > next_one else 0.0


def _rows_of_several(labels: Sequence[str], said: Sequence[str]) -> list[int]:
    """The rows whose label is made of others: ``Effusion|Mass``.

    Not of those that are predicted, too: then they are classes of their own.
    """
    known = {number_or_plain(name) for name in {*labels, *said}}
    several = set()
    for name in {*labels} - {*said}:
        bare = name.strip("[](){} ")
        parts = [part.strip(" '\"") for part in _BETWEEN.split(bare)]
        alike = {number_or_plain(part) for part in parts}
        if 1 < len(alike) == len(parts) and alike <= known:
            several.add(name)
    return [row for row, name in enumerate(labels) if name in several]
