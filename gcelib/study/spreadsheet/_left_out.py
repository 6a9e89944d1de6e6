"""Columns that are not read, but may say that a line is no sample of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gcelib import _check
from gcelib._check import fail
from gcelib.study.spreadsheet._words import (
    COUNTS,
    EPOCHS,
    IN_PART,
    MOST_PARTS,
    PERHAPS_SPLIT,
    RANKS,
    YES_OR_NO,
    are_in_parts,
    are_parts,
    is_of_training,
    plain_name,
    safe,
    shown_name,
)

if TYPE_CHECKING:
    import pandas as pd

#: Of a column of so few values the note that it is left out tells them.
_FEW_VALUES = 5
#: A column of so few values may say which model, or which epoch, a line is of.
_MOST_STATES = 1_000
#: Samples from which a pattern without exception is no chance.
_MANY = 20


@dataclass(frozen=True, eq=False)
class LeftOut:
    """A table with the columns that are not read.

    Attributes
    ----------
    table : DataFrame
        All columns, by their places in the file.
    names : sequence of str
        Of all columns.
    roles : dict of str to int
        Where the columns are that are read.
    places : tuple of int
        Of the columns that are not read, nor hold scores.
    """

    table: "pd.DataFrame"
    names: Sequence[str]
    roles: dict[str, int]
    places: tuple[int, ...]

    def note(self) -> str:
        """Which columns are not read, and what they say if it is little."""
        shown = []
        for at in self.places[:5]:
            counts = self.table[at].value_counts(dropna=False)
            told = ""
            if 2 <= len(counts) <= _FEW_VALUES:
                values = ["empty" if v != v else safe(str(v)) for v in counts.index]
                parts = [f"{v} {n:,}" for v, n in zip(values, counts, strict=True)]
                told = f" ({', '.join(parts)})"
            shown.append(f"{self._shown(at)}{told}")
        more = f" and {len(self.places) - 5} more" if len(self.places) > 5 else ""
        return f"left out: {', '.join(shown)}{more}"

    def _shown(self, at: int) -> str:
        """A column's name, quoted, or its place."""
        return shown_name(self.names[at], at)

    def refuse_unnamed_split(self) -> None:
        """Refuse a column that says which samples are for what."""
        if "split" in self.roles:
            return
        for at in self.places:
            name = self.names[at]
            column = self.table[at]
            found = column.dropna().unique()
            step = 1 + len(found) // 10_000
            values = {str(value).strip().casefold() for value in found[::step]}
            is_about_part = IN_PART.fullmatch(plain_name(name)) is not None
            says_yes = is_about_part and values <= {*YES_OR_NO, "x"}
            is_mixed = len(found) > 1 or column.isna().any()
            is_short = len(found) <= MOST_PARTS
            is_part = is_short and (says_yes or are_parts(values))
            if not values or not (is_mixed or is_of_training(name, values)):
                continue
            if is_part or are_in_parts(values):
                cure = "name it split and write val and test, or leave it out if it "
                cure += "says something else"
                fail("columns", f"{self._shown(at)} says val or test", cure)

    def tell_other_lines(self) -> None:
        """Warn of a column that says that lines are not one sample each."""
        for at in self.places:
            plain = plain_name(self.names[at])
            n_values = self.table[at].nunique()
            if plain in COUNTS:
                says = "how many samples a line stands for, write the line as often"
            elif plain in EPOCHS:
                says = "which state of a model a line is from, keep those of one"
            elif plain in PERHAPS_SPLIT and 2 <= n_values <= MOST_PARTS:
                says = "which samples the model has seen, leave those out"
            else:
                continue
            is_of_numbers = is_numeric(self.table[at]) and n_values > 1
            if is_of_numbers or plain in PERHAPS_SPLIT:
                _check.warn(
                    f"columns: {self._shown(at)} is left out, and each line is one "
                    f"sample; if it says {says}"
                )

    def tell_several_models(self) -> None:
        """Warn where a column parts the lines into the same samples.

        They have the same labels in the same order, but for those sorted by class, of
        which folds may be alike; or a second such column numbers them.
        """
        for at in self.places:
            sizes = self.table[at].value_counts()
            if not 2 <= len(sizes) <= _MOST_STATES or sizes.max() < _MANY:
                continue
            parts = [rows for _, rows in self.table.groupby(at, sort=False)]
            if self._have_same_labels(parts) or self._have_same_ids(parts):
                _check.warn(
                    f"columns: {self._shown(at)} parts the lines into {len(parts)} "
                    "times the same samples, and all are read as one model's; if they "
                    "are of several models, or of several states of one, keep one"
                )
                return

    def _have_same_labels(self, parts: Sequence["pd.DataFrame"]) -> bool:
        """Whether the labels of all parts are alike in their order, which is mixed."""
        if "label" not in self.roles:
            return False
        first, *others = (rows[self.roles["label"]].to_numpy() for rows in parts)
        if bool(np.all(first[:-1] <= first[1:])):
            return False
        return all(np.array_equal(first, other) for other in others)

    def _have_same_ids(self, parts: Sequence["pd.DataFrame"]) -> bool:
        """Whether one of the columns numbers about the same samples in all parts.

        A model that failed on some samples has a few less; of one that was stopped all
        are among the others'. Where numbers begin anew in each fold, labels differ.
        """
        return any(self._are_numbered_by(at, parts) for at in self.places)

    def _are_numbered_by(self, at: int, parts: Sequence["pd.DataFrame"]) -> bool:
        """Whether this column does."""
        largest = max(parts, key=len)
        is_once = all(rows[at].is_unique for rows in parts)
        if not is_once or largest[at].isna().any():
            return False
        label = self.roles.get("label")
        known = largest.set_index(at)
        for rows in parts:
            shared = rows[rows[at].isin(known.index)]
            n_alike = len(shared)
            if label is not None:
                expected = known[label].reindex(shared[at]).to_numpy()
                n_alike = int((shared[label].to_numpy() == expected).sum())
            if n_alike < 0.8 * len(rows):
                return False
        return True

    def groups(self) -> dict[int, "pd.Series[Any]"]:
        """Columns that hold values in several lines each, of a table of confidences."""
        groups = {}
        for at in self.places:
            values = self.table[at]
            if plain_name(self.names[at]) in RANKS and self._is_rank(values):
                problem = f"have {self._shown(at)}: a sample has a line for each rank?"
                fail("columns", problem, "keep the first of each sample, or rename it")
            n_lines = values.value_counts(sort=False)
            several = n_lines.index[n_lines >= 2]
            # A threshold may have left one line of some samples.
            if len(several) >= max(_MANY, len(n_lines) / 5):
                groups[at] = values.where(values.isin(several))
        return groups

    def _is_rank(self, values: "pd.Series[Any]") -> bool:
        """Whether a column numbers lines of falling confidence."""
        confidences = self.table[self.roles["confidence"]]
        if not is_numeric(values) or not is_numeric(confidences):
            return False
        follows = (values.diff() == 1).to_numpy()
        falls = (confidences.diff() <= 0).to_numpy()
        return bool(follows.sum() >= _MANY and falls[follows].all())


def are_classes_of_one_sample(
    samples: "pd.Series[Any]",
    confidences: npt.NDArray[np.float64],
    hits: npt.NDArray[np.bool_],
    predictions: npt.NDArray[np.int64] | None,
) -> bool:
    """Whether lines are classes of one sample: all, or its most probable ones.

    Then confidences of a sample, which a column numbers, sum to at most 1, at most one
    is right, and no two predict one class. Of samples with one line, which are NaN
    here, nothing is asked.
    """
    import pandas as pd

    lines = pd.DataFrame({"confidence": confidences, "hit": hits})
    sums = lines.groupby(samples.to_numpy()).sum()
    if sums["confidence"].max() > 1.001 or sums["hit"].max() > 1:
        return False
    if predictions is None:
        return True
    pairs = pd.DataFrame({"sample": samples, "prediction": predictions})
    return not pairs.dropna().duplicated().any()


def is_numeric(column: "pd.Series[Any]") -> bool:
    """Tell whether a column was read as numbers; True and False are none."""
    return column.dtype.kind in "iuf"
