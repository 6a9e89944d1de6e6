"""Tables of pandas and others: rows and columns are taken by position."""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Protocol, Self, runtime_checkable

import numpy as np
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gcelib._check.columns import (
    warn_of_columns,
    warn_of_labels_among_scores,
    warn_of_names_out_of_order,
)
from gcelib._check.messages import fail, warn


@runtime_checkable
class _Index(Protocol):
    """An index of pandas, which need not be installed."""

    def equals(self, other: object, /) -> bool:
        """Tell whether both hold the same, in the same order."""

    def sort_values(self) -> Self:
        """The same, sorted."""


def warn_of_tables(
    logits: object,
    labels: object,
    scores: Tensor,
    classes: Tensor,
    names: tuple[str, str] = ("logits", "labels"),
) -> None:
    """Warn where DataFrames or Series do not say what their rows and columns seem to.

    Rows are taken by position, as everywhere outside pandas: an index in another order
    is told, and so are columns of ``logits`` that count the classes in another order,
    and one that numbers the rows, or, of arrays, too, holds the labels.
    ``scores`` and ``classes`` are their numbers.
    """
    names_of_columns = _names_of_columns(logits)
    if names_of_columns and scores.ndim == 2:
        warn_of_names_out_of_order(names[0], names_of_columns)
    if scores.shape[:1] != classes.shape or scores.device != classes.device:
        return
    if not (classes.is_floating_point() or classes.is_complex()):  # these are refused
        classes = classes.long()  # torch computes little in unsigned numbers
    if names_of_columns and scores.ndim == 2:
        warn_of_columns(names[0], names_of_columns, scores, classes)
    elif scores.device.type == "cpu":  # to look elsewhere would stall every step
        warn_of_labels_among_scores(names[0], scores, classes)
    if not isinstance(logits, np.ndarray):
        warn_of_indexes(logits, labels, names)


def warn_of_indexes(one: object, other: object, names: tuple[str, str]) -> None:
    """Warn where two tables hold the same index in two orders: rows are by position."""
    ours, theirs = _index_of(one), _index_of(other)
    if not (isinstance(ours, _Index) and isinstance(theirs, _Index)):
        return
    if _in_another_order(ours, theirs):
        first, second = names
        table = first
        if isinstance(one, Tensor):
            first = f"the table that {first} were made of"
            table = "table"
        warn(
            f"{second}: their index is another one than that of {first}, and rows are "
            f"taken by position; pass {second}.loc[{table}.index] if the index says "
            f"what belongs together, else {second}.to_numpy()"
        )


def refuse_other_columns(one: object, other: object, names: tuple[str, str]) -> None:
    """Refuse two tables with the same columns in two orders: they are by position."""
    ours, theirs = _names_of_columns(one), _names_of_columns(other)
    if ours != theirs and sorted(ours) == sorted(theirs):
        first, second = names
        shown = ", ".join(theirs[:3]) + (", ..." if len(theirs) > 3 else "")
        fail(
            second,
            f"its columns are those of {first} in another order ({shown}), and columns "
            "are taken by position",
            f"pass both in the order of the labels, such as {second}[{first}.columns]",
        )


#: Of tensors that were made of a table, its index, as long as they live.
_INDEXES: MutableMapping[Tensor, _Index] = WeakTensorKeyDictionary()


def remember_index(made: Tensor, table: object) -> None:
    """Let ``made``, whose rows are those of ``table``, be compared with labels later.

    ``table`` may be a tensor of which an index is remembered. What is made of ``made``,
    as its rows in another order, has none.
    """
    index = _index_of(table)
    if isinstance(index, _Index):
        _INDEXES[made] = index


def _index_of(table: object) -> object:
    """The index of the rows, of pandas and xarray; None where there is none."""
    if isinstance(table, Tensor):
        return _INDEXES.get(table) if _INDEXES else None
    dimensions = getattr(table, "dims", None)
    indexes = getattr(table, "indexes", None)
    if dimensions and isinstance(indexes, Mapping):
        return indexes.get(dimensions[0])
    index: object = getattr(table, "index", None)
    return index


def _names_of_columns(table: object) -> list[str]:
    """The names of the columns, of pandas, polars, pyarrow, xarray; empty without."""
    dimensions = getattr(table, "dims", None)
    indexes = getattr(table, "indexes", None)
    if isinstance(indexes, Mapping) and dimensions and len(dimensions) == 2:
        of_columns = indexes.get(dimensions[1])
        return [] if of_columns is None else [str(name) for name in of_columns]
    columns = getattr(table, "columns", None)
    named = getattr(table, "column_names", columns)  # pyarrow's columns hold numbers
    return [str(name) for name in named] if isinstance(named, Iterable) else []


def warn_of_order(name: str, table: object) -> None:
    """Warn of a table whose columns count the classes in another order."""
    if not isinstance(table, (Tensor, np.ndarray)):
        warn_of_names_out_of_order(name, _names_of_columns(table))


def _in_another_order(ours: _Index, theirs: _Index) -> bool:
    """Tell whether two indexes of pandas put other rows side by side.

    One that only counts from 0, as new tables get, says nothing of other rows.
    """
    if ours.equals(theirs):
        return False
    counts = [getattr(index, "start", None) == 0 for index in (ours, theirs)]
    if not any(counts):
        return True
    try:
        return bool(ours.sort_values().equals(theirs.sort_values()))
    except TypeError:  # text beside numbers
        return False
