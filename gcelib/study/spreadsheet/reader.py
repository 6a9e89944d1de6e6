"""Tables of outputs and labels as people and spreadsheets write them.

A reader of ``.csv`` and ``.tsv`` files that takes several separators, decimal commas,
blank last lines and other names for the same column, says what it took for what, and
refuses what could mean two things.
"""

import difflib
import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch

from gcelib import _check
from gcelib._check import fail
from gcelib.calibrator import exchanged_classes, tell_exchanged
from gcelib.study import decimals, files
from gcelib.study.spreadsheet._confidences import (
    is_of_one_class,
    look_below_chance,
    refuse_of_true_class,
    tell_zeros,
)
from gcelib.study.spreadsheet._left_out import LeftOut, is_numeric
from gcelib.study.spreadsheet._lines import Lines, cells_of
from gcelib.study.spreadsheet._no_class import (
    look_for_no_class,
    look_for_no_class_of_scores,
    look_for_several,
    refuse_word_beside_numbers,
    words_of_classes,
)
from gcelib.study.spreadsheet._one_sample import Claims
from gcelib.study.spreadsheet._words import (
    KINDS,
    NAMES,
    ROLE_OF,
    SPLITS,
    TWOFOLD,
    YES_OR_NO,
    bare_name,
    cased_name,
    counts_down,
    ids_by_spelling,
    is_like_scores,
    listed,
    number_in,
    number_or_plain,
    plain_name,
    quoted,
    safe,
    score_name,
    shown_name,
)

if TYPE_CHECKING:
    import pandas as pd

#: Most bytes of a table.
CSV_BYTES = 2**32
#: Most bytes of its first line, and most columns.
HEADER_BYTES = 2**22
COLUMNS = 100_000

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]

#: So alike ``spilt`` is to ``split``; ``subject`` is less so to ``subset``.
_ALIKE_OF_ALL = 0.78
_TWO_LABELS = ("label", "prediction")
#: What the rounding of float32 adds to a probability at most.
_SLACK = 1e-6
#: Samples from which a pattern without exception is no chance.
_MANY = 20
#: Of a pattern that another one supports so many lines show it.
_MOSTLY = 0.9
#: So few lines in the order of rank may not be sorted.
_FEW_UNSORTED = 0.005
#: A class of so few samples a model may well never predict.
_NOT_RARE = 0.05
_WAYS = (
    "name them split,label,logit_0,logit_1,... or split,label,prob_0,prob_1,... "
    "or label,prediction,confidence or correct,confidence"
)


@dataclass(frozen=True)
class Table:
    """What a table holds.

    Attributes
    ----------
    kind : str
        ``"logits"``, ``"probabilities"`` or ``"confidences"``.
    parts : dict of str to pair of arrays
        By split: scores (N, K) and labels (N,); or confidences (N,) and booleans.
    class_names : tuple of str or None
        Names of the classes by id, where the table has names.
    predicted : dict of str to pair of arrays
        By split, of confidences: labels (N,) and predictions (N,), where known.
    notes : tuple of str
        What was read as what, a sentence each.
    """

    kind: str
    parts: dict[str, Pair]
    class_names: tuple[str, ...] | None = None
    predicted: dict[str, Pair] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_table(path: Path) -> Table:
    r"""Read a table of logits, probabilities or confidences, a line a sample.

    Parameters
    ----------
    path : path
        Text in UTF-8, with or without byte-order mark; cells separated by commas,
        semicolons or tabs; links are not followed.

    Returns
    -------
    Table

    Raises
    ------
    ValueError
        If the table is damaged, too large, or could mean two things; one sentence that
        names the column and what to do.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "sheet.csv")
    >>> _ = path.write_text("True Label;Pred;Score\ncat;cat;0,9\ndog;cat;0,6\n\n")
    >>> table = read_table(path)
    >>> [values.tolist() for values in table.parts["test"]]
    [[0.9, 0.6], [True, False]]
    >>> print(*table.notes, sep="\n")
    'True Label' is read as label, 'Pred' as prediction, 'Score' as confidence
    decimal commas are read as points
    classes: 0 = cat, 1 = dog, by the alphabet
    """
    return _Reader(files.read_bytes(path, CSV_BYTES)).table()


class _Reader:
    """One table, from bytes to arrays."""

    def __init__(self, content: bytes) -> None:
        self.notes: list[str] = []
        body, self.first_line = self._body(content)
        self.names, self.separator = self._header(body)
        self.second_opinion: int | None = None  # "correct" beside label and prediction
        self.beside_scores: dict[str, int] = {}  # these two, where scores say more
        self.groups: dict[int, pd.Series[Any]] = {}  # by column, of several lines each
        self.roles, self.scores, self.kind = self._columns()
        self.frame = self._frame(body)

    # --- text -------------------------------------------------------------------------

    def _body(self, content: bytes) -> tuple[bytes, int]:
        """From the header to the last line that is not blank; the header's line."""
        if not content:
            fail("logits", "is empty", "write a line for each sample")
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            fail("logits", "is in UTF-16", "write it as UTF-8 text")
        if b"\0" in content:
            fail("logits", "holds zero bytes", "write it as UTF-8 text")
        content = content.removeprefix(b"\xef\xbb\xbf")
        body = content.rstrip(b"\r\n\t ;,")
        if not body:
            fail("logits", "holds blank lines alone", "write a line for each sample")
        tail = content[len(body) :]
        self.cut = re.split(rb"[\r\n]", tail)[0]  # empty cells of the last line
        if b"\n" not in tail and b"\r" not in tail:
            self.notes.append(
                "the last line has no end: if the file was cut, so is its last number"
            )
        start = re.match(rb"([ \t]*(\r\n|\n|\r))*(sep=.(\r\n|\n|\r))?", body)
        at = start.end() if start else 0
        lines_above = len(re.findall(rb"\r\n|\n|\r", body[:at]))
        return body[at:], lines_above + 1

    def _line(self, row: int) -> int:
        """The line in the file of a row of the table, as editors count."""
        return self.first_line + 1 + row

    def _header(self, body: bytes) -> tuple[list[str], str]:
        """The names of the columns, as they are written, and what separates them."""
        line = re.split(rb"[\r\n]", body[:HEADER_BYTES], maxsplit=1)[0]
        if len(line) == HEADER_BYTES:
            fail("columns", "fill a line without end", "write the names first")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            fail("columns", "are not in UTF-8", "save the sheet as CSV UTF-8")
        bare = re.sub(r'"[^"]*"', "", text)
        there = [mark for mark in ",;\t" if mark in bare]
        # A name may hold another mark: the one that names more known columns is it.
        found = max(there or [","], key=lambda mark: self._known(cells_of(text, mark)))
        names = cells_of(text, found)
        if len(names) > COLUMNS:
            fail("columns", f"are {len(names):,}", f"at most {COLUMNS:,} are read")
        return names, found

    @staticmethod
    def _known(names: Sequence[str]) -> int:
        """How many names say what their column holds."""
        plain = [plain_name(name) for name in names]
        return sum(name in ROLE_OF or score_name(name) is not None for name in plain)

    # --- columns ----------------------------------------------------------------------

    def _columns(self) -> tuple[dict[str, int], list[int], str]:
        """Where each role's column is, those of the scores, and what the scores are."""
        roles, scores = self._by_name()
        kind = self._kind_of(scores)
        if kind == "confidences":
            self._refuse_twofold(roles)
            self._refuse_incomplete(roles)
            if {"label", "prediction"} <= set(roles):
                # They say more; that both agree is looked at.
                self.second_opinion = roles.pop("correct", None)
        else:
            if "label" not in roles:
                self._refuse_twofold(roles)
                self._refuse_columns()
            for role in ("prediction", "confidence", "correct"):
                at = roles.pop(role, None)  # the scores say more
                if at is not None and role != "confidence":
                    self.beside_scores[role] = at
        self._refuse_misspelt(roles)
        self._say_renamed(roles)
        return roles, [at for part in scores.values() for at in part], kind

    def _by_name(self) -> tuple[dict[str, int], dict[str, list[int]]]:
        """The columns by role, and those of scores by the beginning of their names."""
        roles: dict[str, int] = {}
        scores: dict[str, list[int]] = {}
        for at, name in enumerate(self.names):
            plain = plain_name(name)
            role = ROLE_OF.get(plain)
            score = score_name(plain)
            if role is not None:
                if role in roles:
                    self._refuse_twice(role, roles[role], at)
                roles[role] = at
            elif score is not None:
                scores.setdefault(score.start, []).append(at)
        return roles, scores

    def _kind_of(self, scores: dict[str, list[int]]) -> str:
        """What the scores are; ``"confidences"`` where there are none."""
        if "score" in scores:
            at = scores["score"][0]
            cure = "name such columns logit_0, ... or prob_0, ..."
            fail("columns", f"{self._shown(at)} may be a logit or a probability", cure)
        kinds = {KINDS[start] for start in scores}
        if len(kinds) > 1:
            fail("columns", "hold logits and probabilities", "keep one of the two")
        return kinds.pop() if kinds else "confidences"

    def _refuse_twice(self, role: str, first: int, second: int) -> NoReturn:
        """Refuse two columns for one thing."""
        problem = f"{self._shown(first)} and {self._shown(second)} both read as {role}"
        fail("columns", problem, "keep one, or rename the other")

    def _refuse_twofold(self, roles: dict[str, int]) -> None:
        """Refuse a name that may be either of two columns, one of which is missing."""
        if {"label", "prediction"} <= set(roles) or "correct" in roles:
            return
        for at, name in enumerate(self.names):
            cure = TWOFOLD.get(plain_name(name))
            if cure is not None:
                problem = f"{self._shown(at)} may be the true or the predicted class"
                fail("columns", problem, cure)

    def _refuse_incomplete(self, roles: dict[str, int]) -> None:
        """Refuse a table from which neither scores nor confidences can be had."""
        says_what_was_right = "correct" in roles or {"label", "prediction"} <= set(
            roles
        )
        if "confidence" not in roles or not says_what_was_right:
            self._refuse_columns()

    def _refuse_columns(self) -> NoReturn:
        """Say which columns a table must have."""
        known = [name for name in ROLE_OF if len(name) > 2]
        cure = self._misspelt(known) or _WAYS
        fail("columns", f"are {self._all_shown()}", cure)

    def _refuse_misspelt(self, roles: dict[str, int]) -> None:
        """Refuse a name that nearly is ``split``, or that of one more column of scores.

        All other columns that are needed are there.
        """
        names_of_split = [] if "split" in roles else list(NAMES["split"])
        cure = self._misspelt(names_of_split, _ALIKE_OF_ALL)
        if cure:
            fail("columns", f"are {self._all_shown()}", cure)

    def _misspelt(self, missing: Sequence[str], alike: float = 0.75) -> str:
        """A hint for a name that nearly is one of those that are missing."""
        for name in self.names:
            plain = plain_name(name)
            if plain in ROLE_OF or score_name(plain):
                continue
            close = difflib.get_close_matches(plain[:40], missing, 1, alike)
            if close:
                return f"did you mean {close[0]!r} by {quoted(name)}? {_WAYS}"
            if is_like_scores(plain):
                return f"write {quoted(name)} as logit_0 or prob_0; {_WAYS}"
        return ""

    def _say_renamed(self, roles: dict[str, int]) -> None:
        """Note which columns are read under another name."""
        said: list[str] = []
        for role, at in roles.items():
            if plain_name(self.names[at]) != role:
                verb = "as" if said else "is read as"
                said.append(f"{self._shown(at)} {verb} {role}")
        if said:
            self.notes.append(", ".join(said))

    def _all_shown(self) -> str:
        """The names of all columns, as far as a message has room for them."""
        return files.shown(", ".join(self.names))[:200]

    def _shown(self, at: int) -> str:
        """A column's name, quoted, or its place."""
        return shown_name(self.names[at], at)

    # --- cells ------------------------------------------------------------------------

    def _frame(self, body: bytes) -> "pd.DataFrame":
        """The columns that are used, by their places in the file."""
        end = re.search(rb"\r\n|\n|\r", body)
        if end is None:
            fail("logits", "has no line below the header", "write a line a sample")
        start = end.end()
        content = body[start:] + self.cut
        self.lines = Lines(content, self.separator, len(self.names), self.first_line)
        self.lines.refuse_odd()
        table, has_commas = self._numbers(memoryview(body)[start:])
        used = {*self.roles.values(), *self.scores, *self.beside_scores.values()}
        if self.second_opinion is not None:
            used.add(self.second_opinion)
        self._look_at_left_out(table, used)
        if has_commas:
            self.notes.append("decimal commas are read as points")
        if self.kind == "confidences":
            self._refuse_padded_numbers(body, start, "," if has_commas else ".")
        kept: pd.DataFrame = table[sorted(used)]
        return kept

    def _look_at_left_out(self, table: "pd.DataFrame", used: set[int]) -> None:
        """Note which columns are not read, and refuse or tell what they may mean."""
        places = tuple(at for at in range(len(self.names)) if at not in used)
        left = LeftOut(table, self.names, self.roles, places)
        left.refuse_unnamed_split()
        if places:
            self.notes.append(left.note())
        left.tell_other_lines(self.scores)
        self.are_models_told = left.tell_several_models()
        self.left = left
        if self.kind == "confidences":
            self.groups = left.groups()

    def _numbers(self, lines: memoryview) -> tuple["pd.DataFrame", bool]:
        """The table, and whether its numbers have decimal commas."""
        numeric = self.scores
        if self.kind == "confidences":
            numeric = [self.roles["confidence"]]
        with_points = self._parse(lines, ".")
        if _are_numbers(with_points, numeric):
            return with_points, False
        with_commas = self._parse(lines, ",")
        if _are_numbers(with_commas, numeric):
            return with_commas, True
        return with_points, False

    def _parse(self, lines: memoryview, decimal: str) -> "pd.DataFrame":
        """All cells below the header, with points or commas in the numbers."""
        import pandas as pd

        try:
            return decimals.read_csv(
                io.BytesIO(lines),
                sep=self.separator,
                header=None,
                names=list(range(len(self.names))),
                decimal=decimal,
                encoding="utf-8",
                keep_default_na=False,  # a class may be called None
                na_values=[""],
                skip_blank_lines=False,
                skipinitialspace=True,
                low_memory=False,
            )
        except UnicodeDecodeError:
            fail("logits", "is not in UTF-8", "save the sheet as CSV UTF-8")
        except pd.errors.ParserError as error:
            self.lines.refuse_unread(str(error))

    def _refuse_padded_numbers(self, body: bytes, start: int, decimal: str) -> None:
        """Refuse labels that as text are two and as numbers one: ``010`` and ``10``."""
        # Where commas separate cells, too, they say nothing of what follows.
        within = re.escape(decimal if decimal != self.separator else ".").encode()
        padded = rb"(?<![\d" + within + rb"])0\d|\d[eE][+-]?\d"
        if re.search(padded, body) is None:
            return
        at = [self.roles[role] for role in _TWO_LABELS if role in self.roles]
        columns = decimals.read_csv(
            io.BytesIO(memoryview(body)[start:]),
            sep=self.separator,
            header=None,
            names=list(range(len(self.names))),
            usecols=at,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
        )
        for one in at:
            first: dict[float, str] = {}
            for name in sorted({str(name).strip() for name in columns[one].unique()}):
                value = number_in(name.replace(decimal, "."))
                other = name if value is None else first.setdefault(value, name)
                if other != name:
                    problem = f"holds {quoted(other)} and {quoted(name)}"
                    fail(self._role(one), problem, "write a class in one way")

    # --- arrays -----------------------------------------------------------------------

    def table(self) -> Table:
        """Everything, checked cell by cell."""
        splits = self._splits()
        for at in sorted({*self.roles.values(), *self.scores}):
            self._refuse_holes(at)
        if self.kind == "confidences":
            table = self._confidences(splits)
        else:
            table = self._scores(splits)
        if not self.are_models_told:
            self.left.tell_samples_again()
        return table

    def _scores(self, splits: dict[str, npt.NDArray[np.bool_]]) -> Table:
        """Scores of each class."""
        order, names_of_columns = self._classes()
        columns = [self.scores[k] for k in order]
        labels, names = self._labels(len(columns), names_of_columns)
        self._refuse_capitals_alone(columns, labels)
        self._refuse_second_set(columns, labels)
        scores = self.frame[columns].to_numpy(float)
        if names_of_columns is not None:
            self._refuse_of_others(scores, labels)
        if names is not None and names_of_columns is None:
            written = [names[label] for label in labels]
            predicted = [names[label] for label in scores.argmax(1)]
            look_for_no_class_of_scores(written, predicted, self._line)
        if is_numeric(self.frame[self.roles["label"]]) or names_of_columns is None:
            self._refuse_exchanged(scores, labels, names)
        self._compare_with_scores(scores, labels, names)
        if names_of_columns is None:
            self._look_for_ranks(scores, labels)
        parts = {split: (scores[rows], labels[rows]) for split, rows in splits.items()}
        return Table(self.kind, parts, names, notes=tuple(self.notes))

    def _look_for_ranks(
        self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
    ) -> None:
        """Refuse or tell scores that fall in each line, as those in order of rank do.

        Of two classes that is also a model which never predicts the rarer one. A line
        or two may not be sorted; where other columns say the classes, many.
        """
        falls = np.asarray((np.diff(scores, axis=1) <= 0).all(1))
        n_falling = int(falls.sum())
        if n_falling < _MOSTLY * len(scores):
            return
        self.left.refuse_ranks(self.scores, falls)
        few = 0 if scores.shape[1] == 2 else max(1, _FEW_UNSORTED * len(scores))
        if len(scores) - n_falling > few:
            return
        is_common = scores.shape[1] > 2 or (labels == 1).mean() > _NOT_RARE
        if len(scores) >= _MANY and is_common:
            first, last = (self._shown(self.scores[at]) for at in (0, -1))
            _check.warn(
                f"columns: from {first} to {last} the scores fall in {n_falling:,} "
                f"of {len(scores):,} lines; if they are in the order of rank, put "
                "those of each class into a column of its own"
            )

    def _splits(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Which lines belong to val and which to test."""
        n = len(self.frame)
        if "split" not in self.roles:
            split = "test" if self.kind == "confidences" else "val"
            if split == "val":
                self.notes.append("no column split: all samples are validation samples")
            return {split: np.ones(n, dtype=bool)}
        at = self.roles["split"]
        self._refuse_holes(at)
        written = self.frame[at].map(lambda value: str(value).strip().casefold())
        for value in written.unique():
            if value == "train":
                cure = "leave them out: the model has seen them"
                fail("split", "some lines say train", cure)
            if value not in SPLITS:
                _check.choice("split", value, ("val", "test"))
        which = written.map(SPLITS).to_numpy()
        if self.kind != "confidences" and "val" not in which:
            fail("split", "no line says val", "calibrators are fitted on such samples")
        there = [split for split in ("val", "test") if split in which]
        if there == ["test"]:
            self.notes.append(
                "no line says val: calibrators are fitted on the test samples, and "
                "judged by cross-validation"
            )
        return {split: which == split for split in there}

    def _classes(self) -> tuple[list[int], list[str] | None]:
        """The order of the score columns by class, and the classes' names."""
        endings = [self._ending(at) for at in self.scores]
        k = len(endings)
        if k < 2:
            start = self._shown(self.scores[0])
            cure = "add those of the other classes (of two classes 1 - p), or name it "
            cure += "confidence if it is the predicted class's"
            fail("columns", f"{start} is the only column of scores", cure)
        self._refuse_class_twice(endings)
        if not all(ending.isdecimal() for ending in endings):
            names = [self._written_ending(at) for at in self.scores]
            return list(range(k)), names
        ids = [int(ending) for ending in endings]
        if sorted(ids) != list(range(k)):
            missing = min(set(range(k)) - set(ids))
            problem = f"of {k} classes there is no column of class {missing}"
            fail("columns", problem, "count classes from 0, without holes")
        return [ids.index(label) for label in range(k)], None

    def _ending(self, at: int) -> str:
        """What says the class in the plain name of a column of scores."""
        found = score_name(plain_name(self.names[at]))
        return found.ending if found else ""

    def _refuse_class_twice(self, endings: list[str]) -> None:
        """Refuse two columns of scores of one class.

        Endings that differ in capitals alone may be two: ``prob_A`` and ``prob_a``.
        """
        seen: dict[str, list[tuple[str, str]]] = {}
        for at, plain in zip(self.scores, endings, strict=True):
            start, _, ending = cased_name(self.names[at]).partition("_")
            others = seen.setdefault(plain, [])
            if any(start != other[0] or ending == other[1] for other in others):
                self._refuse_there_twice(at)
            others.append((start, ending))

    def _refuse_there_twice(self, at: int) -> NoReturn:
        """Refuse a column of scores, since one before it is of its class."""
        problem = f"are {self._all_shown()}: {self._shown(at)} is there twice"
        fail("columns", problem, f"name each class once; {_WAYS}")

    def _refuse_capitals_alone(
        self, columns: list[int], labels: npt.NDArray[np.int64]
    ) -> None:
        """Refuse names that differ in capitals alone if labels never do."""
        by_name: dict[str, list[int]] = {}
        for label, at in enumerate(columns):
            by_name.setdefault(plain_name(self.names[at]), []).append(label)
        alike = [classes for classes in by_name.values() if len(classes) > 1]
        there = {*labels.tolist()}
        if alike and not any({*classes} <= there for classes in alike):
            self._refuse_there_twice(columns[alike[0][1]])

    def _written_ending(self, at: int) -> str:
        """The class's name in a column's name, as it is written."""
        parts = re.split(
            r"[\s_\-\u2010\u2011\u2013\u2014]", self.names[at].strip(), maxsplit=1
        )
        return parts[-1].strip()

    def _labels(
        self, k: int, names: list[str] | None
    ) -> tuple[npt.NDArray[np.int64], tuple[str, ...] | None]:
        """Class ids, and the classes' names."""
        at = self.roles["label"]
        column = self.frame[at]
        if is_numeric(column):
            if names is None:
                return self._class_ids(at), None
            return self._numbers_of(at, names), tuple(names)
        written = [str(value).strip() for value in column]
        there = sorted(set(written))
        if names is None:
            otherwise = ", or end the columns with the names"
            refuse_word_beside_numbers(
                "label", written, self._line, otherwise=otherwise
            )
            if len(there) != k:
                problem = f"holds {len(there)} names for {k} columns"
                cure = f"end the columns with the names, as in prob_{safe(there[0])}"
                fail("label", problem, cure)
            names = there
            self._refuse_text_order(names)
            self._tell_other_spellings(names)
            self._say_names(names, "by the alphabet, as scikit-learn counts")
        else:
            self._say_names(names, "as the columns are called")
        id_of = ids_by_spelling(names)
        ids = {name: id_of(name) for name in there}
        for row, name in enumerate(written):
            if ids[name] is None:
                where = f"{quoted(name)} in line {self._line(row)}"
                problem = f"holds {where}, and no column has it"
                fail("label", problem, f"the columns are of {listed(names)}")
        labels = np.array([ids[name] for name in written])
        self._refuse_no_classes(labels, names)
        return labels, tuple(names)

    def _numbers_of(self, at: int, names: list[str]) -> npt.NDArray[np.int64]:
        """Class ids where columns have names and labels are numbers.

        The numbers are names, too, if all names are numbers; else they count columns.
        """
        by_value = {number_in(name): i for i, name in enumerate(names)}
        if None not in by_value and len(by_value) == len(names):
            self._say_names(names, "as the columns are called")
            values = self.frame[at].to_numpy(float)
            for row, value in enumerate(values):
                if value not in by_value:
                    problem = f"holds {value:g} in line {self._line(row)}"
                    fail("label", problem, f"the columns are of {listed(names)}")
            return np.array([by_value[value] for value in values])
        for name in names:
            if number_in(name) is not None:
                what = f"are of the classes {listed(names)}, and labels are numbers"
                cure = "number all columns of scores from 0, or write names as labels"
                fail("columns", what, cure)
        self._say_names(names, "in the order of the columns")
        labels = self._class_ids(at)
        self._refuse_other_numbers(labels, names)
        self._refuse_no_classes(labels, names)
        return labels

    def _tell_other_spellings(self, names: Sequence[str]) -> None:
        """Warn of names that may be one class in two ways: ``Cat`` and ``cat``."""
        first: dict[str, str] = {}
        pairs = []
        for name in names:
            other = first.setdefault(plain_name(name), name)
            if other != name:
                pairs.append(f"{quoted(other)} and {quoted(name)}")
        if pairs:
            more = f", and {len(pairs) - 1} more pairs," if len(pairs) > 1 else ""
            _check.warn(
                f"label: {pairs[0]}{more} count as two classes, since there are as "
                "many columns; write a class in one way if they are one"
            )

    def _refuse_text_order(self, names: Sequence[str]) -> None:
        """Refuse names that count otherwise than the alphabet: c0, c1, c10, c2."""
        for before, after in itertools.pairwise(names):
            if counts_down(before, after):
                problem = f"holds names that count: does {quoted(before)} come before "
                problem += f"{quoted(after)}, as in the alphabet, or after it?"
                cure = "end the columns with the names, or write class ids"
                fail("label", problem, cure)

    def _refuse_exchanged(
        self,
        scores: npt.NDArray[np.float64],
        labels: npt.NDArray[np.int64],
        names: Sequence[str] | None,
    ) -> None:
        """Refuse an order of named classes by which columns seem exchanged.

        As where low, medium and high are counted by the alphabet. Where nothing has a
        name, ``advise`` says so.
        """
        if names is None or labels.min() < 0 or labels.max() >= len(names):
            return  # no class ids: told where they are checked
        circle = exchanged_classes(labels, scores.argmax(1))
        if circle:
            told = tell_exchanged([safe(names[label]) for label in circle])
            problem = f"may count the classes in another order than the columns: {told}"
            cure = "end the columns with the names, and write names as labels"
            fail("label", problem, cure)

    def _tell_exchanged(
        self,
        labels: npt.NDArray[np.int64],
        predictions: npt.NDArray[np.int64],
        names: Sequence[str] | None,
    ) -> None:
        """Warn of labels and predictions that seem to count the classes otherwise."""
        circle = exchanged_classes(labels, predictions)
        if circle:
            told = tell_exchanged([safe(names[k]) if names else k for k in circle])
            _check.warn(
                f"label: {told}; look whether labels and predictions count the classes "
                "in one order, from one number"
            )

    def _refuse_other_numbers(
        self, labels: npt.NDArray[np.int64], names: Sequence[str]
    ) -> None:
        """Refuse labels that may be the numbers in the names, or those of columns."""
        numbers = _check.numbers_of_names(names)
        if numbers is None or numbers == list(range(len(names))):
            return
        if {*labels.tolist()} <= {*numbers}:
            at = next(i for i, number in enumerate(numbers) if number != i)
            problem = f"count the classes: may {quoted(names[at])}, which is column "
            problem += f"{at}, be the class of label {at} or {numbers[at]}?"
            fail("columns", problem, "call them prob_0, ..., or write names as labels")

    def _compare_with_scores(
        self,
        scores: npt.NDArray[np.float64],
        labels: npt.NDArray[np.int64],
        names: tuple[str, ...] | None,
    ) -> None:
        """Tell of predictions, or hits, that are not those of the largest scores.

        Predictions by a threshold may be a few others; if most are, the columns are not
        what their names say.
        """
        if labels.min() < 0 or labels.max() >= scores.shape[1]:
            return  # refused where labels are checked
        for role, at in self.beside_scores.items():
            if role == "prediction":
                is_known, differs = self._other_predictions(at, scores, names)
            else:
                is_known, differs = self._other_hits(at, scores, labels)
            if differs.any():
                self._tell_contradiction(role, at, differs, int(is_known.sum()))

    def _other_predictions(
        self, at: int, scores: npt.NDArray[np.float64], names: tuple[str, ...] | None
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which lines predict a class that is known, and one without the top score."""
        column = self.frame[at]
        predicted = column.map(self._ids_of_cells(column, names, scores.shape[1]))
        is_known = predicted.notna().to_numpy()
        ids = np.where(is_known, predicted, 0).astype(int)
        score_of_it = scores[np.arange(len(scores)), ids]
        return is_known, is_known & (score_of_it < scores.max(1))

    def _other_hits(
        self,
        at: int,
        scores: npt.NDArray[np.float64],
        labels: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which lines say right or wrong, and the other than the scores do.

        Where two scores tie, both are right.
        """
        words = [YES_OR_NO.get(str(v).strip().casefold()) for v in self.frame[at]]
        is_known = np.array([word is not None for word in words])
        said_right = np.array([word is True for word in words])
        rows = np.arange(len(scores))
        score_of_label = scores[rows, labels]
        others = scores.copy()
        others[rows, labels] = -np.inf
        is_wrong = score_of_label < others.max(1)
        is_right = score_of_label > others.max(1)
        return is_known, is_known & np.where(said_right, is_wrong, is_right)

    def _ids_of_cells(
        self, column: "pd.Series[Any]", names: tuple[str, ...] | None, k: int
    ) -> dict[object, int | None]:
        """The class id of each cell that names a class, as labels do."""
        ids: dict[float | str, int | None] = {}
        for label, name in enumerate(names or ()):
            alike = number_or_plain(name)
            ids[alike] = None if alike in ids else label
        if not any(isinstance(name, float) for name in ids):
            ids |= {float(label): label for label in range(k)}
        exactly = {name: label for label, name in enumerate(names or ())}
        return {
            cell: exactly.get(str(cell).strip(), ids.get(number_or_plain(str(cell))))
            for cell in column.unique()
        }

    def _tell_contradiction(
        self, role: str, at: int, differs: npt.NDArray[np.bool_], n_known: int
    ) -> None:
        """Refuse scores that most cells of another column contradict; else warn."""
        row = int(differs.argmax())
        first = quoted(str(self.frame[at].iloc[row]))
        problem = (
            f"is not what the largest score says in {differs.sum():,} of {n_known:,} "
            f"lines, first {first} in line {self._line(row)}"
        )
        if n_known >= _MANY and differs.sum() > n_known / 2:
            cure = "look which class each column of scores is of, and how classes count"
            fail(role, problem, cure)
        _check.warn(f"{role}: {problem}; the scores are read")

    def _refuse_no_classes(
        self, labels: npt.NDArray[np.int64], names: Sequence[str]
    ) -> None:
        """Refuse a column like ``logit_max``, which stands beside those of classes."""
        for label, name in enumerate(names):
            if plain_name(name) in _check.NO_CLASS and label not in labels:
                at = self.scores[label] if label < len(self.scores) else 0
                problem = f"{self._shown(at)} reads as a class, which no label names"
                fail("columns", problem, "give the column another name")

    def _refuse_of_others(
        self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
    ) -> None:
        """Refuse a column that repeats scores of the others, whatever its name is."""
        repeated = _check.column_of_others(
            torch.from_numpy(scores), torch.from_numpy(labels)
        )
        if repeated is not None:
            shown = self._shown(self.scores[repeated])
            problem = f"{shown} reads as a class, which no label names, and holds in "
            problem += "nearly each line the score of another one"
            fail("columns", problem, "leave it out, or give it another name")

    def _refuse_second_set(
        self, columns: list[int], labels: npt.NDArray[np.int64]
    ) -> None:
        """Refuse scores of the same classes once more: ``logit_0``, ``logit_0.1``."""
        names = [plain_name(self.names[at]) for at in columns]
        again = _check.second_set(names, labels.tolist())
        if again:
            at = columns[names.index(again[0])]
            problem = f"{self._shown(at)} and {len(again) - 1:,} more seem a second set"
            problem += " of scores: no label is of their classes"
            cure = "leave them out; if they are classes, give them names of their own"
            fail("columns", problem, cure)

    def _say_names(self, names: Sequence[str], how: str) -> None:
        """Note which class has which id."""
        pairs = [f"{i} = {safe(name)}" for i, name in enumerate(names[:20])]
        more = ", ..." if len(names) > 20 else ""
        self.notes.append(f"classes: {', '.join(pairs)}{more}, {how}")

    def _confidences(self, splits: dict[str, npt.NDArray[np.bool_]]) -> Table:
        """Confidences and whether they were right; of names equality counts."""
        values = self.frame[self.roles["confidence"]].to_numpy(float)
        low = values.min()
        high = values.max()
        if -_SLACK <= low <= high <= 1 + _SLACK:  # sums may round above 1
            values = values.clip(0, 1)
        else:
            bad = low if low < 0 else high
            problem = f"{bad} is outside [0, 1]"
            fail("confidence", problem, "of percentages, divide by 100")
        if "correct" in self.roles:
            self._refuse_correct_answers()
            hits = self._correct()
            self._refuse_lines_of_classes(Claims(values, hits))
            refuse_of_true_class(values, hits)
            tell_zeros(values)
            parts = {name: (values[rows], hits[rows]) for name, rows in splits.items()}
            return Table("confidences", parts, notes=tuple(self.notes))
        labels, predictions, names = self._two_labels()
        hits = labels == predictions
        self._refuse_second_opinion(hits)
        self._tell_exchanged(labels, predictions, names)
        self._refuse_lines_of_classes(Claims(values, hits, labels, predictions))
        n_seen = len(np.unique(np.concatenate([labels, predictions])))
        if n_seen == 2:
            self._refuse_of_one_class(values, predictions, names)
        refuse_of_true_class(values, hits)
        look_below_chance(values, hits, n_seen)
        parts = {name: (values[rows], hits[rows]) for name, rows in splits.items()}
        predicted = {
            name: (labels[rows], predictions[rows]) for name, rows in splits.items()
        }
        return Table("confidences", parts, names, predicted, tuple(self.notes))

    def _refuse_lines_of_classes(self, claims: Claims) -> None:
        """Refuse a table with a line for each class of a sample, or for some."""
        for at, samples in self.groups.items():
            if claims.are_of_one_sample(samples):
                problem = f"have several lines for each value of {self._shown(at)}, as "
                problem += "if they were classes of one sample"
                fail("columns", problem, "keep the first class of each sample")
        if claims.are_in_groups():
            problem = "have lines in groups of one label, of falling confidence and of "
            problem += "other predictions each, as if they were classes of one sample"
            fail("columns", problem, "keep the first class of each sample")

    def _correct(self) -> npt.NDArray[np.bool_]:
        """Whether predictions were right, from 0 and 1, or words for them."""
        at = self.roles["correct"]
        written = [str(value).strip().casefold() for value in self.frame[at]]
        for row, word in enumerate(written):
            if word not in YES_OR_NO:
                problem = f"holds {quoted(word)} in line {self._line(row)}"
                cure = "write 1 where the prediction is right, else 0"
                fail("correct", problem, cure)
        return np.array([YES_OR_NO[word] for word in written])

    def _refuse_correct_answers(self) -> None:
        """Refuse ``correct`` beside predictions in such words: it may be a label."""
        predictions = self.roles.get("prediction")
        if predictions is None:
            return
        words = {str(value).strip().casefold() for value in self.frame[predictions]}
        if words <= YES_OR_NO.keys():
            fail(
                "correct",
                f"may be the true class, as {self._shown(predictions)} is the "
                "predicted one, or whether that is right",
                "name it label if it is the true class, else leave out the predictions",
            )

    def _refuse_second_opinion(self, hits: npt.NDArray[np.bool_]) -> None:
        """Refuse a column ``correct`` that label and prediction contradict."""
        if self.second_opinion is None:
            return
        for row, value in enumerate(self.frame[self.second_opinion]):
            said = YES_OR_NO.get(str(value).strip().casefold(), hits[row])
            if said != hits[row]:
                are = "alike" if hits[row] else "different"
                problem = f"holds {quoted(str(value))} in line {self._line(row)}, where"
                problem += f" label and prediction are {are}"
                fail("correct", problem, "look how both count the classes")

    def _refuse_of_one_class(
        self,
        values: npt.NDArray[np.float64],
        predictions: npt.NDArray[np.int64],
        names: tuple[str, ...] | None,
    ) -> None:
        """Refuse the probability of one and the same of two classes."""
        ids = np.unique(predictions)
        if len(ids) < 2:
            return
        for same in ids[::-1]:
            if is_of_one_class(values, predictions == same):
                name = names[same] if names else str(same)
                problem = f"seems to be the probability of class {safe(name)}"
                cure = "write that of the predicted class: of two classes max(p, 1 - p)"
                fail("confidence", problem, cure)

    def _two_labels(
        self,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[str, ...] | None]:
        """Labels and predictions as ids, and the names if there are any."""
        pair = [self.roles["label"], self.roles["prediction"]]
        are_names = [not is_numeric(self.frame[at]) for at in pair]
        if not any(are_names):
            ids_of_both = [self._class_ids(at) for at in pair]
            self._refuse_negative(pair, ids_of_both)
            look_for_no_class(ids_of_both[0], ids_of_both[1], self._line)
            return ids_of_both[0], ids_of_both[1], None
        true_names = [str(value).strip() for value in self.frame[pair[0]]]
        said_names = [str(value).strip() for value in self.frame[pair[1]]]
        look_for_several(true_names, said_names, self._line)
        classes = words_of_classes(true_names, said_names)
        for role, written in (("label", true_names), ("prediction", said_names)):
            refuse_word_beside_numbers(role, written, self._line, classes)
        if not all(are_names):
            at = pair[are_names.index(False)]
            other = pair[are_names.index(True)]
            problem = f"{self._shown(at)} holds numbers, {self._shown(other)} names"
            fail("columns", problem, "write names in both label and prediction")
        self._refuse_other_spelling({*true_names}, {*said_names})
        self._refuse_other_marks(true_names, said_names)
        self._refuse_total(true_names)
        look_for_no_class(true_names, said_names, self._line)
        names = sorted({*true_names, *said_names})
        ids = {name: k for k, name in enumerate(names)}
        labels = np.array([ids[name] for name in true_names])
        predictions = np.array([ids[name] for name in said_names])
        self._say_names(names, "by the alphabet")
        return labels, predictions, tuple(names)

    def _refuse_negative(
        self, places: list[int], ids_of_both: list[npt.NDArray[np.int64]]
    ) -> None:
        """Refuse -1 as a sign for no label, or for a rejected sample."""
        if {*np.concatenate(ids_of_both).tolist()} == {-1, 1}:  # the two classes
            return
        for at, ids in zip(places, ids_of_both, strict=True):
            if ids.min() < 0:
                row = int((ids < 0).argmax())
                problem = f"holds {ids[row]} in line {self._line(row)}"
                cure = "count classes from 0, and leave out samples without a class"
                fail(self._role(at), problem, cure)

    def _refuse_other_spelling(self, true: set[str], said: set[str]) -> None:
        """Refuse one class written in two ways: ``Cat`` and ``cat``, 1 and 1.0.

        Two that are both labels and both predictions are two classes.
        """
        spelt: dict[float | str, str] = {}
        for name in sorted(true | said):
            other = spelt.setdefault(number_or_plain(name), name)
            if other != name and {name, other} - (true & said):
                problem = f"hold one class as {quoted(other)} and {quoted(name)}"
                fail("columns", problem, "write a class in one way")

    def _refuse_other_marks(self, true: Sequence[str], said: Sequence[str]) -> None:
        """Refuse a prediction ``A.`` or ``(A)`` where the label is ``A``.

        Only of predictions that are no label: ``C`` and ``C#`` may be two classes.
        """
        unknown = {*said} - {*true}
        bare = {bare_name(name): name for name in sorted({*true})}
        for name in sorted(unknown):
            label = bare.get(bare_name(name))
            if label is not None and bare_name(name):
                row = list(said).index(name)
                problem = f"holds {quoted(name)} in line {self._line(row)}, and labels "
                problem += f"hold {quoted(label)}"
                fail("prediction", problem, "write a class in one way")

    def _refuse_total(self, names: Sequence[str]) -> None:
        """Refuse a last line that is no sample but a sum or a mean."""
        last = names[-1]
        if plain_name(last) in _check.SUMS and names.count(last) == 1:
            where = f"{quoted(last)} in line {self._line(len(names) - 1)}"
            fail("label", f"holds {where}", "leave out lines that are no samples")

    def _class_ids(self, at: int) -> npt.NDArray[np.int64]:
        """Class ids, which spreadsheets write as 3.0, too."""
        values = self.frame[at].to_numpy()
        is_no_id = np.asarray(values != np.floor(values)) | (np.abs(values) > 2**53)
        if is_no_id.any():
            row = int(is_no_id.argmax())
            problem = f"holds {values[row]} in line {self._line(row)}"
            cure = "write class ids as whole numbers, counted from 0"
            fail(self._role(at), problem, cure)
        return np.asarray(values).astype(np.int64)

    def _role(self, at: int) -> str:
        """What a column is, for messages."""
        for role, place in self.roles.items():
            if place == at:
                return role
        return safe(self.names[at])

    def _refuse_holes(self, at: int) -> None:
        """Refuse a column with holes, or with text where numbers belong."""
        column = self.frame[at]
        role = self._role(at)
        holes = column.isna().to_numpy()
        if holes.any():
            problem = f"has a hole or NaN in line {self._line(int(holes.argmax()))}"
            fail(role, problem, "fill it or leave the line out")
        may_be_text = role in ("split", "label", "prediction", "correct")
        if may_be_text or is_numeric(column):
            return
        row, value = _first_text(column)
        where = f"{quoted(value)}, in line {self._line(row)}"
        cure = "write plain numbers, all with points or all with commas"
        if "%" in value:
            cure = "write fractions of 1 without a percent sign"
        fail(role, f"holds what is not a number, {where}", cure)


def _are_numbers(table: "pd.DataFrame", columns: list[int]) -> bool:
    """Tell whether all of these columns were read as numbers."""
    return all(is_numeric(table[at]) for at in columns)


def _first_text(column: "pd.Series[Any]") -> tuple[int, str]:
    """The first cell that is no number, and its row."""
    bad = decimals.to_numeric(column.astype(str), errors="coerce").isna().to_numpy()
    row = int(bad.argmax()) if bad.any() else 0
    return row, str(column.iloc[row])
