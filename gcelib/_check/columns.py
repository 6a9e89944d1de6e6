"""What the names of a table's columns say of its classes."""

import re
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from gcelib._check.messages import warn

#: What spreadsheets write beside or below numbers that they add up.
SUMS = {"total", "totals", "sum", "mean", "average", "avg", "median", "overall"}
#: Whose score a column beside those of the classes may be, and what it is called.
_WHOSE = {
    *("pred", "predicted", "prediction", "y", "gt", "ground", "true", "target"),
    *("actual", "max", "maximum", "min", "top", "best", "highest", "largest"),
    *("winning", "chosen", "selected", "assigned", "argmax", "of_label", "of_true"),
}
_WHAT = {
    *("label", "class", "category", "id", "idx", "index", "pred", "true", "truth"),
    *("logit", "score", "value", "prob", "probability", "answer", "target", "best"),
}
#: What columns of scores beside those of the classes are called. Not what a class may
#: well be called, as ``right`` and ``second_class``.
NO_CLASS = SUMS | {
    *("max", "min", "margin", "top", "top1", "top2", "second", "gap", "diff", "rank"),
    *("entropy", "std", "var", "value", "scale", "temperature", "loss", "nll", "score"),
    *("true", "label", "target", "truth", "gt", "pred", "predicted", "prediction"),
    *("confidence", "correct", "argmax", "energy", "norm", "logsumexp", "lse"),
    *("labels", "targets", "preds", "predictions", "confidences", "top_1", "top_2"),
    *("second_best", "second_logit", "second_score", "confidence_score", "is_correct"),
    *("runner_up", "of_label", "of_true", "logit_max", "prob_max", "class_pred"),
    *(f"{whose}_{what}" for whose in _WHOSE for what in _WHAT),
}
#: And those of other whole columns, which a class may well have, too.
_NO_COLUMN_OF_A_CLASS = NO_CLASS | {
    *("conf", "prob", "hit", "probability", "uncertainty", "nll_loss", "ce", "ce_loss"),
    *("fold", "split", "set", "weight", "count", "n", "seconds", "time", "epoch"),
    *("step", "id", "index", "idx", "seed"),
}
#: What pandas calls an index that was written to a file and read as a column.
_INDEX_OF_PANDAS = re.compile(r"Unnamed: \d+")
_FEW_ROWS = 10  # of fewer a column may be anything by chance
_MOST = 0.9
_ROWS_COMPARED = 400
_ALIKE = 1e-6  # as alike, relative, are two spellings of one number
_MANY = 20  # labels that all fall into one half of the classes by no chance
_MARKS = "_.-: "  # between a class and what else the name of a column says


def numbers_of_names(names: Sequence[str]) -> list[int] | None:
    """The numbers by which names count: of ``c0, c1, c10`` 0, 1 and 10; else None.

    The rest of the names is one and the same, or follows the numbers: ``0_cat, 1_dog``.
    """
    alike = [re.fullmatch(r"(.*?)(\d+)(?:\.0)?(\D*)", name) for name in names]
    parts = [part for part in alike if part is not None]
    if len({(part[1], part[3]) for part in parts}) == 1:
        numbers = [int(part[2]) for part in parts]
    else:
        begins = [re.match(r"(\d+)[\W_]*[^\W\d_]", name) for name in names]
        numbers = [int(part[1]) for part in begins if part is not None]
    return numbers if len({*numbers}) == len(names) else None


def warn_of_names_out_of_order(name: str, columns: list[str]) -> None:
    """Warn of columns such as 0, 1, 10, 11, 2: sorted as text, taken by position."""
    numbers_in = numbers_of_names(columns)
    if not numbers_in:
        return
    ordered = sorted(numbers_in)
    first = ordered[0]
    counts = first in (0, 1) and ordered == list(range(first, first + len(ordered)))
    if counts and numbers_in != ordered:
        at = next(i for i, n in enumerate(numbers_in) if n != ordered[i])
        warn(
            f"{name}: columns count the classes, and not in order: {columns[at]!r} "
            f"stands where {ordered[at]} would, and they are taken by position; put "
            "them in the order of the class ids"
        )


def warn_of_columns(
    name: str, columns: list[str], scores: Tensor, classes: Tensor
) -> None:
    """Warn of columns that are no class's: labels, numbers of rows, a second set."""
    is_whole = (scores == scores.round()).all(0)
    if len(scores) < _FEW_ROWS or bool(is_whole.all()):
        return
    warn_of_labels_among_scores(name, scores, classes, columns)
    of_rows = [
        columns[at]
        for at in is_whole.nonzero()[:, 0].tolist()
        if _numbers_rows(scores[:, at], scores[:, ~is_whole], columns[at])
    ]
    for column in of_rows:
        warn(f"{name}: column {column!r} numbers the rows; leave it out")
    are_ids = not classes.is_floating_point()  # else refused where they are checked
    odd = _column_apart(columns, int(classes.max())) if are_ids else None
    if odd is not None and odd not in of_rows:
        warn(
            f"{name}: column {odd!r} has no name like the others, which are of the "
            "classes; leave it out if it is no class"
        )
    numbers_in = numbers_of_names(columns)
    from_one = numbers_in == list(range(1, len(columns) + 1))
    if from_one and are_ids and len(classes) >= _MANY and int(classes.min()) >= 1:
        warn(
            f"{name}: columns count from 1, and so may the labels, of which none is 0: "
            "class ids count from 0, as columns stand; subtract 1 if so"
        )
    second = second_set(columns, classes.tolist())
    if second:
        warn(
            f"{name}: columns {second[0]!r} to {second[-1]!r} seem a second set of "
            "scores, no label is of their classes; leave them out"
        )
    repeated = column_of_others(scores, classes) if are_ids else None
    if repeated is not None and odd is None and not second:
        warn(
            f"{name}: column {columns[repeated]!r} holds in nearly each row what "
            "another one has, and no label is of it; leave it out if it is no class"
        )


def column_of_others(scores: Tensor, labels: Tensor) -> int | None:
    """Find a column that repeats in nearly each row the score of some class.

    The largest one, the second, the smallest, the label's, or always that of one class.
    Only a column that no label is of can be such a one, and only classes that labels
    have count as the others: a network may give all those without samples one score.
    Its commonest number says nothing, as the zeros of a ReLU, nor do few numbers.

    Parameters
    ----------
    scores : (N, K) tensor
    labels : (N,) tensor of integers

    Returns
    -------
    int or None

    Examples
    --------
    >>> scores = torch.randn(50, 3)
    >>> labels = torch.arange(50) % 3
    >>> column_of_others(scores, labels) is None
    True
    >>> column_of_others(torch.hstack([scores, scores.amax(1, keepdim=True)]), labels)
    3
    """
    n, n_classes = scores.shape
    if n < _MANY or int(labels.min()) < 0 or int(labels.max()) >= n_classes:
        return None
    some = slice(None, None, -(-n // _ROWS_COMPARED))
    seen, classes = scores.detach()[some].double(), labels[some].long()
    named = torch.bincount(labels.long(), minlength=n_classes) > 0
    others = seen[:, named]
    in_order = others.sort(1).values
    of_label = seen.gather(1, classes[:, None])
    repeatable = torch.hstack([in_order[:, -2:], in_order[:, :1], of_label, others])
    for at in (~named).nonzero()[:, 0].tolist():
        column = seen[:, at]
        tells = column != column.mode().values
        if len({*column[tells].tolist()}) < _MANY:
            continue
        there = column[tells, None]
        is_equal = (repeatable[tells] - there).abs() <= _ALIKE * there.abs()
        if bool((is_equal.double().mean(0) >= _MOST).any()):
            return int(at)
    return None


def _numbers_rows(column: Tensor, others: Tensor, name: str) -> bool:
    """Whether a column of whole numbers counts the rows, or names each by a number.

    Rows may have been left out or shuffled since. Scores are no such numbers: of many
    rows none is twice, and they rise from row to row, or leave few numbers out, or are
    far larger than all other scores.
    """
    n = len(column)
    steps = column.diff()
    if bool((steps == 1).all()) or _INDEX_OF_PANDAS.fullmatch(name):
        return True
    if (
        n < _MANY
        or bool(column.min() < 0)
        or bool((column.sort().values.diff() == 0).any())
    ):
        return False
    is_rising = bool((steps > 0).all())
    is_dense = bool(column.max() - column.min() < 4 * n)
    is_far_larger = bool(column.median() > 10 * others.abs().max())
    return is_rising or is_dense or is_far_larger


def warn_of_labels_among_scores(
    name: str, scores: Tensor, classes: Tensor, columns: Sequence[str] = ()
) -> None:
    """Warn of a column that holds the labels, in all rows or nearly all.

    It costs a comparison of a few rows where there is none.
    """
    n = len(scores)
    if n < _FEW_ROWS or scores.ndim != 2 or not scores.is_floating_point():
        return
    some = slice(None, None, max(1, n // _FEW_ROWS))
    n_equal = (scores[some] == classes[some, None]).sum(0)
    found = (n_equal >= _MOST * len(classes[some])).nonzero()[:, 0]
    if not len(found):
        return
    there = scores[:, found]
    is_equal = there == classes[:, None]
    # A column of zeros is no label, of however many samples the class is 0.
    rarer = classes != classes.mode().values
    holds = (is_equal.float().mean(0) >= _MOST) & (there == there.round()).all(0)
    holds &= is_equal[rarer].float().mean(0) >= _MOST  # False without any
    # Of the certain all scores are whole: two classes of which one is the label.
    if not bool(holds.any()) or bool((scores == scores.round()).all()):
        return
    at = int(found[holds][0])
    shown = repr(columns[at]) if columns else f"{at} (counted from 0)"
    warn(f"{name}: column {shown} holds the labels; leave it out")


def _column_apart(columns: Sequence[str], highest_label: int) -> str | None:
    """A column beside those of the classes, if all labels are of such columns.

    That is one beside ``logit_0, logit_1, ...``, or one that has the name of something
    else, as ``confidence`` beside ``cat, dog, eel``.
    """
    plain = [re.sub(r"[\s\-]+", "_", name.strip().casefold()) for name in columns]
    others = [
        name
        for name, word in zip(columns, plain, strict=True)
        if word in _NO_COLUMN_OF_A_CLASS
    ]
    if others and max(2, highest_label + 1) <= len(columns) - len(others):
        return others[0]
    starts: dict[str, list[int]] = {}
    for name in columns:
        part = re.fullmatch(r"(.*?)(\d+)(?:\.0)?", name)
        if part is not None:
            starts.setdefault(part[1], []).append(int(part[2]))
    for start, found in starts.items():
        first = min(found)
        counts = first in (0, 1) and sorted(found) == list(
            range(first, first + len(found))
        )
        if counts and max(2, highest_label + 1) <= len(found) < len(columns):
            like = re.compile(re.escape(start) + r"\d+(?:\.0)?")
            return next(name for name in columns if not like.fullmatch(name))
    return None


def second_set(columns: Sequence[str], labels: Iterable[int]) -> list[str]:
    """Columns that seem a second set of scores of the same classes; mostly none.

    The names of such sets are all pairs of a class and a mark: ``cat, dog, cat_std,
    dog_std``; ``0, 1, 0.1, 1.1``; ``cat_x, dog_x, cat_y, dog_y``; or the same twice.
    Classes may be called so, too, but then labels, ids of columns, are of all sets.
    """
    ids = [*labels]
    used = {*ids}
    if len(ids) < _MANY or not 2 <= len(used) <= len(columns) / 2:
        return []
    for sets in _grids(columns):
        size = len(sets[0])
        homes = [one for one in sets if used <= {*one}]
        if not homes and max(used) >= size:
            continue
        home = homes[0] if homes else min(sets)
        return [name for at, name in enumerate(columns) if at not in home]
    return []


def _grids(columns: Sequence[str]) -> Iterator[list[list[int]]]:
    """Every way to see sets of scores of the same classes in the names of columns."""
    at: dict[str, list[int]] = {}
    for i, name in enumerate(columns):
        at.setdefault(name, []).append(i)
    times = {len(places) for places in at.values()}
    if len(at) < len(columns):
        if len(times) == 1 and len(at) > 1:
            yield [list(places) for places in zip(*at.values(), strict=True)]
        return
    longest = max(columns, key=len)  # it has a mark, if not all have one
    for cut in range(1, len(longest)):
        start = longest[:cut]
        end = longest[cut:]
        starts = [name.removesuffix(end) for name in columns if name.endswith(end)]
        ends = [name.removeprefix(start) for name in columns if name.startswith(start)]
        ends = [e for e in ends if all(s + e in at for s in starts)]
        if min(len(starts), len(ends)) < 2 or len(starts) * len(ends) != len(columns):
            continue
        within_number = start[-1].isdecimal() and end[0].isdecimal()
        between_words = start[-1] in _MARKS or end[0] in _MARKS
        if within_number or not (between_words or "" in starts or "" in ends):
            continue
        yield [[at[s + e][0] for s in starts] for e in ends]
        yield [[at[s + e][0] for e in ends] for s in starts]
