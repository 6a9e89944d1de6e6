"""Columns that are not read, but may say that a line is no sample of its own."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gcelib import _check
from gcelib._check import fail
from gcelib.study.spreadsheet._counts import (
    are_counts,
    is_count,
    is_share,
    may_count,
    pairs_within,
)
from gcelib.study.spreadsheet._parts import evidence, says_seen
from gcelib.study.spreadsheet._repeats import have_same_counts, have_same_order
from gcelib.study.spreadsheet._words import (
    EPOCHS,
    MODELS,
    RANKS,
    YES_OR_NO,
    plain_cell,
    plain_name,
    safe,
    shown_name,
)

if TYPE_CHECKING:
    import pandas as pd

#: Of a column of so few values the note that it is left out tells them.
_FEW_VALUES = 5
#: So few other values between yes and no stand for what is not known.
_FEW_HOLES = 0.1
#: A column of so few values may say which model, or which epoch, a line is of.
_MOST_STATES = 1_000
#: So many values of a column are looked at, spread over it.
_LOOKED_AT = 10_000
#: More epochs than these are hardly those of one training.
_FEW_EPOCHS = 50
#: So many columns of a few values are looked at two by two.
_MOST_PAIRED = 6
#: Of a pattern so many lines may be exceptions: one that is not sorted.
_NEARLY_ALL = 0.95
#: So often a sample may be there, by several models.
_MOST_TIMES = 50
#: Names of a column of rounds, and what stands in it: ``Fold1.Rep2``, ``Resample07``.
_ROUNDS = re.compile(
    r"(cv_?)?(fold|k_?fold|resampl|boot|repeat|repetition)|(outer|inner|test)_fold"
)
_ROUND = re.compile(r"(cv_?|outer_?|inner_?)?(fold|resample|boot|repeat|rep)[a-z_]*\d")
#: So many values for each label are hardly classes.
_FEWEST_IDS = 5
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
        """Refuse a column that says which samples are for what; tell what may.

        Beside a column split that is one which tells samples of training within it.
        """
        for at in self.places:
            values, has_holes = self._values_of(at)
            found_out = evidence(self.names[at], values, has_holes=has_holes)
            if found_out == "none":
                continue
            if "split" in self.roles:
                self._look_at_seen(at, is_sure=found_out == "sure")
            elif found_out == "sure":
                cure = "name it split and write val and test, or leave it out if it "
                cure += "says something else"
                fail("columns", f"{self._shown(at)} says val or test", cure)
            else:
                says = "which samples the model has seen, leave those out"
                self._tell(at, says)

    def _values_of(self, at: int) -> tuple[set[str], bool]:
        """What a column holds, written small, and whether it has holes.

        Between yes and no few other values, as -1 for unknown, are holes, too.
        """
        column = self.table[at]
        found = column.dropna().unique()
        step = 1 + len(found) // _LOOKED_AT
        values = {plain_cell(value) for value in found[::step]}
        has_holes = bool(column.isna().any())
        others = values - {*YES_OR_NO, "x"}
        if 0 < len(others) <= _FEW_VALUES and len(values) > len(others):
            is_other = column.map(plain_cell, na_action="ignore").isin(others)
            if is_other.mean() <= _FEW_HOLES:
                return values - others, True
        return values, has_holes

    def _look_at_seen(self, at: int, *, is_sure: bool) -> None:
        """Refuse samples of training within val or test; tell if all of one are.

        All of val may be a part of the data for training that was held out.
        """
        step = 1 + len(self.table) // _LOOKED_AT
        lines = self.table[[at, self.roles["split"]]].iloc[::step].dropna()
        cells = lines[at].map(plain_cell)
        name = self.names[at]
        is_seen = cells.map({c: says_seen(name, c) for c in cells.unique()})
        if not is_seen.any():
            return
        of_split = is_seen.groupby(lines[self.roles["split"]])
        if is_sure and (of_split.nunique() > 1).any():
            problem = f"{self._shown(at)} says beside split which samples the model has"
            cure = "leave those out, or the column if it says something else"
            fail("columns", f"{problem} seen", cure)
        self._tell(at, "which samples the model has seen, leave those out")

    def _tell(self, at: int, says: str) -> None:
        """Warn that a column is left out, and of what it may say."""
        _check.warn(
            f"columns: {self._shown(at)} is left out, and each line is one sample; if "
            f"it says {says}"
        )

    def refuse_ranks(self, scores: Sequence[int], falls: npt.NDArray[np.bool_]) -> None:
        """Refuse scores in the order of rank: other columns say of which classes.

        As many columns of one name hold the same values in each line, and not in one
        order: ``index_0, index_1, prob_0, prob_1``, as of ``topk``. That is asked of
        the lines whose scores fall, which nearly all do.
        """
        alike: dict[str, list[int]] = {}
        for at in self.places:
            start = re.sub(r"\d+", "", plain_name(self.names[at]))
            alike.setdefault(start, []).append(at)
        for group in alike.values():
            if len(group) == len(scores) and self._are_permuted(group, falls):
                first, last = self._shown(group[0]), self._shown(group[-1])
                problem = f"{first} to {last} name other classes in each line, and "
                problem += (
                    f"{self._shown(scores[0])} and the others seem to be of these"
                )
                cure = "put the scores of each class into a column of its own, and "
                fail("columns", problem, f"{cure}leave the other columns out")

    def _are_permuted(self, group: Sequence[int], rows: npt.NDArray[np.bool_]) -> bool:
        """Whether lines have the same values in these columns, in several orders."""
        cells = self.table.loc[rows, [*group]].astype(str).to_numpy()
        if bool((cells == cells[0]).all()):
            return False
        ordered = np.sort(cells, axis=1)
        for line in ordered[:: max(1, len(cells) // 3)]:  # one of them may be odd
            are_alike = (ordered == line).all(1)
            if len({*line}) == len(group) and are_alike.mean() >= _NEARLY_ALL:
                return True
        return False

    def tell_other_lines(self, scores: Sequence[int]) -> None:
        """Warn of a column that says that lines are not one sample each."""
        for at in self.places:
            plain = plain_name(self.names[at])
            n_lines = self.table[at].value_counts()
            if not is_numeric(self.table[at]) or len(n_lines) < 2:
                continue
            if is_count(self.names[at]) or self._may_count(at, scores):
                says = "how many samples a line stands for, write the line as often"
                self._tell(at, says)
            elif is_share(self.names[at], self.table[at]):
                says = "which share of the samples a line stands for, write the line "
                self._tell(at, f"{says}once for each")
            elif plain in EPOCHS and len(n_lines) <= _FEW_EPOCHS and n_lines.min() > 1:
                says = "which state of a model a line is from, keep those of one"
                self._tell(at, says)

    def _may_count(self, at: int, scores: Sequence[int]) -> bool:
        """Whether lines, each there once, tell that they are counted."""
        if not are_counts(self.table[at]):
            return False
        roles = ("split", "label", "prediction", "correct", "confidence")
        used = [self.roles[role] for role in roles if role in self.roles]
        lines = self.table[used]
        if scores:
            lines = lines.assign(scores=self._keys_of(scores))
        return may_count(self.names[at], self.table[at], lines)

    def _keys_of(self, scores: Sequence[int]) -> "npt.NDArray[Any] | pd.Series[Any]":
        """A value for each line, alike where all of its scores are."""
        import pandas as pd

        first = self.table[scores[0]]
        if pairs_within(first.value_counts()) < 1:
            return first
        keys = pd.util.hash_pandas_object(self.table[[*scores]], index=False)
        return keys.to_numpy()

    def tell_several_models(self) -> bool:
        """Warn where a column, or two, part the lines into the same samples.

        They have the same labels in the same order, but for those sorted by class, of
        which folds may be alike; or another column numbers them; or a column that is
        called ``model`` has as many lines of each class for every value.
        """
        few = [at for at in self.places if self._parts_lines(at)]
        found = self._keys_of_parts(few, self._are_same_samples)
        verb = "" if found else "may "
        found = found or self._keys_of_parts(few, self._have_counts_of_models)
        if found:
            keys, n_parts = found
            shown = " and ".join(self._shown(at) for at in keys)
            verb += "parts" if len(keys) == 1 and not verb else "part"
            _check.warn(
                f"columns: {shown} {verb} the lines into {n_parts} times the same "
                "samples, and all are read as one model's; if they are of several "
                "models, or of several states of one, keep one"
            )
        return found is not None

    def tell_samples_again(self) -> None:
        """Warn of a column that numbers samples, each of which is there several times.

        As repeated cross-validation has them: each value comes equally often, with one
        label, and once for each value of another column, as ``Fold1.Rep2``. Of few
        values these may be finer classes. Where that column says that it is of rounds,
        values need not come equally often, as of bootstraps, or where it was stopped:
        a patient's visits or views may look so, too.
        """
        if "label" not in self.roles:
            return
        labels = self.table[self.roles["label"]]
        shares = labels.value_counts(normalize=True)
        rounds = [at for at in self.places if self._is_of_rounds(at)]
        for at in self.places:
            n_lines = self.table[at].value_counts()
            if len(n_lines) < _FEWEST_IDS * max(_MANY / _FEWEST_IDS, len(shares)):
                continue
            times = int(n_lines.median())
            is_equal = times <= _MOST_TIMES and (n_lines == times).mean() >= _NEARLY_ALL
            parts = self.places if is_equal else rounds
            if times < 2 or not parts:
                continue
            n_labels = labels.groupby(self.table[at]).nunique()
            n_by_chance = sum(
                n_values * float(1 - shares.pow(n).sum())
                for n, n_values in zip(
                    *np.unique(n_lines, return_counts=True), strict=True
                )
            )
            n_unlike = int((n_labels > 1).sum())
            is_pattern = n_by_chance >= _MANY / 2 and n_unlike <= n_by_chance / 20
            if is_pattern and self._is_once_a_part(at, times, parts):
                how_many = f"{times}" if is_equal else f"some {times}"
                _check.warn(
                    f"columns: most values of {self._shown(at)} stand in {how_many} "
                    "lines with one label, and each line is one sample; if they are of "
                    "one sample, by several models or in several rounds of "
                    "cross-validation, keep one of each"
                )
                return

    def _is_once_a_part(self, at: int, times: int, places: Sequence[int]) -> bool:
        """Whether parts by one of these columns have each value once, beyond chance."""
        n_pairs = pairs_within(self.table[at].value_counts())
        for part in places:
            if part == at or not self._parts_lines(part):
                continue
            shares = self.table[part].value_counts(normalize=True)
            expected = n_pairs * float(shares.pow(2).sum())
            there = pairs_within(self.table.groupby([at, part]).size())
            is_no_chance = expected >= _MANY / 2 and there <= expected / 5
            if len(shares) >= times and is_no_chance:
                return True
        return False

    def _is_of_rounds(self, at: int) -> bool:
        """Whether a column's name, or most of its values, are of cross-validation."""
        if _ROUNDS.match(plain_name(self.names[at])):
            return True
        values = self.table[at].dropna().unique()[:_LOOKED_AT]
        if is_numeric(self.table[at]) or not len(values):
            return False
        are_rounds = [bool(_ROUND.match(plain_name(str(value)))) for value in values]
        return sum(are_rounds) >= _NEARLY_ALL * len(values)

    def _keys_of_parts(
        self,
        few: Sequence[int],
        are_alike: Callable[[Sequence["pd.DataFrame"], Sequence[int]], bool],
    ) -> tuple[Sequence[int], int] | None:
        """The first columns, one or two, whose parts are alike, and how many."""
        pairs = itertools.combinations(few[:_MOST_PAIRED], 2)
        for keys in [*((at,) for at in few), *pairs]:
            parts = [rows for _, rows in self.table.groupby([*keys], sort=False)]
            if len(parts) > _MOST_STATES or max(map(len, parts)) < _MANY:
                continue
            if are_alike(parts, keys):
                return keys, len(parts)
        return None

    def _are_same_samples(
        self, parts: Sequence["pd.DataFrame"], keys: Sequence[int]
    ) -> bool:
        """Whether labels in their order, or another column, say so of all parts."""
        labels = self._labels_of(parts)
        is_order = bool(labels) and have_same_order(labels)
        return is_order or self._have_same_ids(parts, keys)

    def _have_counts_of_models(
        self, parts: Sequence["pd.DataFrame"], keys: Sequence[int]
    ) -> bool:
        """Whether a name and the counts of classes say so, whatever the order."""
        names = {plain_name(self.names[at]) for at in keys}
        labels = self._labels_of(parts)
        is_of_models = bool(names & (MODELS | EPOCHS) and labels)
        return is_of_models and have_same_counts(labels)

    def _labels_of(
        self, parts: Sequence["pd.DataFrame"]
    ) -> list[npt.NDArray[np.int64]]:
        """The labels of each part, numbered; none where there is no such column."""
        if "label" not in self.roles:
            return []
        ids = 1 + self.table[self.roles["label"]].factorize()[0]  # 0 for a hole
        return [ids[rows.index] for rows in parts]

    def _parts_lines(self, at: int) -> bool:
        """Whether a column holds a few values, at least one of them often."""
        n_lines = self.table[at].value_counts()
        return 2 <= len(n_lines) <= _MOST_STATES and n_lines.max() >= _MANY

    def _have_same_ids(
        self, parts: Sequence["pd.DataFrame"], keys: Sequence[int]
    ) -> bool:
        """Whether one of the columns numbers about the same samples in all parts.

        A model that failed on some samples has a few less; of one that was stopped all
        are among the others'. Where there are no labels to compare, the name of a
        column must say that it is of models.
        """
        if "label" not in self.roles:
            names = {plain_name(self.names[at]) for at in keys}
            if not names & (MODELS | EPOCHS):
                return False
        others = (at for at in self.places if at not in keys)
        return any(self._are_numbered_by(at, parts) for at in others)

    def _are_numbered_by(self, at: int, parts: Sequence["pd.DataFrame"]) -> bool:
        """Whether this column does, by labels that agree far beyond chance."""
        largest = max(parts, key=len)
        is_once = all(rows[at].is_unique for rows in parts)
        if not is_once or largest[at].isna().any():
            return False
        known = largest.set_index(at)
        others = [rows for rows in parts if rows is not largest]
        shared = [rows[rows[at].isin(known.index)] for rows in others]
        n_lines = sum(map(len, others))
        if sum(map(len, shared)) < 0.8 * n_lines:
            return False
        if "label" not in self.roles:
            return True
        label = self.roles["label"]
        shares = self.table[label].value_counts(normalize=True)
        n_by_chance = n_lines * float(1 - shares.pow(2).sum())
        n_unlike = sum(
            int((rows[label].to_numpy() != known[label].loc[rows[at]].to_numpy()).sum())
            for rows in shared
        )
        return n_by_chance >= _MANY / 2 and n_unlike <= n_by_chance / 5

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
        many_follow = follows.sum() >= _MANY
        return bool(many_follow and falls[follows].mean() >= _NEARLY_ALL)


def is_numeric(column: "pd.Series[Any]") -> bool:
    """Tell whether a column was read as numbers; True and False are none."""
    return column.dtype.kind in "iuf"
