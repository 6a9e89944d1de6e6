"""Tables of outputs and labels as people and spreadsheets write them.

A reader of ``.csv`` and ``.tsv`` files that takes several separators, decimal commas,
blank last lines and other names for the same column, says what it took for what, and
refuses what could mean two things.
"""

import collections
import csv
import difflib
import io
import itertools
import math
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from gcelib import _check
from gcelib._check import fail
from gcelib.calibrator import exchanged_classes, tell_exchanged
from gcelib.study import files

if TYPE_CHECKING:
    import pandas as pd

#: Most bytes of a table.
CSV_BYTES = 2**32
#: Most bytes of its first line, and most columns.
HEADER_BYTES = 2**22
COLUMNS = 100_000

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]

#: Names of a column, written small with "_" for spaces; the first one is ours.
NAMES = {
    "split": ("split", "subset", "partition"),
    "label": (
        "label",
        "labels",
        "true_label",
        "true_class",
        "target",
        "targets",
        "y_true",
        "y",
        "truth",
        "ground_truth",
        "actual",
    ),
    "prediction": (
        "prediction",
        "predictions",
        "pred",
        "preds",
        "pred_label",
        "predicted",
        "predicted_label",
        "predicted_class",
        "pred_class",
        "y_pred",
    ),
    "confidence": (
        "confidence",
        "confidences",
        "conf",
        "score",
        "probability",
        "prob",
        "max_prob",
        "max_probability",
        "confidence_score",
    ),
    "correct": ("correct", "is_correct", "hit", "right"),
}
_ROLE_OF = {name: role for role, names in NAMES.items() for name in names}
#: Names that could be two columns, and how to tell which.
_TWOFOLD = {
    "class": "name it label (the true class) or prediction",
    "category": "name it label (the true class) or prediction",
    "outcome": "name it label (the true class) or correct",
}
#: Beginnings of the names of score columns, and what such scores are. ``score`` is no
#: key: it does not say it, and is refused.
_KINDS = {
    "logit": "logits",
    "prob": "probabilities",
    "probability": "probabilities",
    "p": "probabilities",
}
_SCORES = re.compile(
    r"(?P<start>logit|prob|probability|p|score)s?_(?P<ending>.+)"
    r"|(?P<bare_start>logit|prob)s?(?P<number>\d+)"
)
#: So alike ``spilt`` is to ``split``; ``subject`` is less so to ``subset``.
_ALIKE_OF_ALL = 0.78
#: What spreadsheets write below a column, and before the number there.
_TOTALS = {"total", "totals", "sum", "mean", "average", "avg", "median", "overall"}
#: What stands where nothing is known.
_NOTHING = {"", "?", "-", "na", "n/a", "#n/a", "nan", "none", "null", "missing"}
_SPLITS = {
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "cal": "val",
    "calib": "val",
    "calibration": "val",
    "test": "test",
}
#: What else people call the part that a model has seen, and the others; without blanks
#: and marks.
_SEEN = re.compile(
    r"train\w*|(trn|tr|learn|fit|seen|insample|ins|pretrain|finetune|labeledtrain|build"
    r"|derivation|discovery|internal|estimation|modell?ing|lern|entrenamiento|treino"
    r"|apprentissage|addestramento)"
    r"(ing|ed|set|val|data|samples?|part|cohort|group|split|fold|phase|period"
    r"|stichprobe|\d)*"
)
_UNSEEN = re.compile(
    r"(test|valid)\w*|(val|validierung|dev|development|cal|calib|calibration"
    r"|kalibrierung|tst|te|eval|evaluation|hold|held|holdout|heldout|oos"
    r"|ood|oot|outofsample|unseen|external|replication|publictest|privatetest|prueba"
    r"|teste|prova)"
    r"(test|set|data|samples?|part|out|cohort|group|split|fold|phase|period"
    r"|stichprobe|\d)*"
)
#: And in paths, names of files and the like.
_IN_TRAINING = {"train", "training", "trn"}
_IN_OTHERS = {
    *("val", "valid", "validation", "test", "testing", "dev", "eval", "holdout"),
}
#: Names of a column of other words that may be such parts.
_PERHAPS_SPLIT = {
    *("set", "data_set", "dataset", "data_split", "phase", "stage", "usage", "part"),
    *("sample_type", "domain", "role"),
}
#: Of a column of so few values the note that it is left out tells them.
_FEW_VALUES = 5
#: A column of so few values may say which model, or which epoch, a line is of.
_MOST_STATES = 1_000
#: Columns of so few values may say which part a sample belongs to.
_MOST_PARTS = 10
#: The name of a column that says of each sample whether it is in a part.
_IN_PART = re.compile(
    r"(?:(?:is|in|of|for|used|was)_?)*"
    r"(?:train|training|trained|trn|test|testing|tst|val|valid|validation|dev|seen"
    r"|development|cal|calib|calibration|eval|evaluation|hold_?out|held_?out|unseen|oof"
    r"|external|fit|fitted|in_?sample|memori[sz]ed|(?:in|out_of)_?bag|oob|member)"
    r"(?:_?(?:set|data|sample|on|split|part|fold|row))?"
)
#: Names of a column that says of how many samples a line is.
_COUNTS = {
    *("count", "counts", "n", "freq", "frequency", "weight", "weights", "support"),
    *("n_samples", "num_samples", "samples", "n_obs", "sample_weight", "multiplicity"),
}
#: Names of a column that says when in its training a model said this.
_EPOCHS = {"epoch", "step", "global_step", "iteration", "iter"}
#: Names of a column that numbers the classes of one sample by their probability.
_RANKS = {"rank", "k", "topk", "top_k", "top", "nth", "place"}
_TWO_LABELS = ("label", "prediction")
_YES_OR_NO = {
    "true": True,
    "false": False,
    "yes": True,
    "no": False,
    "1": True,
    "0": False,
    "t": True,
    "f": False,
    "y": True,
    "n": False,
    "1.0": True,
    "0.0": False,
}
#: Curved apostrophes, and dashes that are no hyphen.
_STRAIGHT = str.maketrans("\u2018\u2019\u02bc\u2010\u2011\u2013\u2014", "'''----")
#: Samples from which a pattern without exception is no chance.
_MANY = 20
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


class _ScoreName(NamedTuple):
    """The name of a column of scores, taken apart: ``prob_cat`` is of class ``cat``."""

    start: str
    ending: str


def _score_name(plain: str) -> _ScoreName | None:
    """The parts of a plain name, if it is one of a column of scores."""
    found = _SCORES.fullmatch(plain)
    if found is None:
        return None
    if found["start"]:
        return _ScoreName(found["start"], found["ending"])
    return _ScoreName(found["bare_start"], found["number"])


class _Reader:
    """One table, from bytes to arrays."""

    def __init__(self, content: bytes) -> None:
        self.notes: list[str] = []
        self.left: list[int] = []  # columns that are not read
        self.left_note = 0
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
        found = max(there or [","], key=lambda mark: self._known(_cells(text, mark)))
        names = _cells(text, found)
        if len(names) > COLUMNS:
            fail("columns", f"are {len(names):,}", f"at most {COLUMNS:,} are read")
        return names, found

    @staticmethod
    def _known(names: Sequence[str]) -> int:
        """How many names say what their column holds."""
        plain = [_plain(name) for name in names]
        return sum(name in _ROLE_OF or _score_name(name) is not None for name in plain)

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
        self._say_left_out(roles)
        return roles, [at for part in scores.values() for at in part], kind

    def _by_name(self) -> tuple[dict[str, int], dict[str, list[int]]]:
        """The columns by role, and those of scores by the beginning of their names."""
        roles: dict[str, int] = {}
        scores: dict[str, list[int]] = {}
        for at, name in enumerate(self.names):
            plain = _plain(name)
            role = _ROLE_OF.get(plain)
            score = _score_name(plain)
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
        kinds = {_KINDS[start] for start in scores}
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
            cure = _TWOFOLD.get(_plain(name))
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
        known = [name for name in _ROLE_OF if len(name) > 2]
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
            plain = _plain(name)
            if plain in _ROLE_OF or _score_name(plain):
                continue
            close = difflib.get_close_matches(plain[:40], missing, 1, alike)
            if close:
                return f"did you mean {close[0]!r} by {_quoted(name)}? {_WAYS}"
            if _is_like_scores(plain):
                return f"write {_quoted(name)} as logit_0 or prob_0; {_WAYS}"
        return ""

    def _say_renamed(self, roles: dict[str, int]) -> None:
        """Note which columns are read under another name."""
        said: list[str] = []
        for role, at in roles.items():
            if _plain(self.names[at]) != role:
                verb = "as" if said else "is read as"
                said.append(f"{self._shown(at)} {verb} {role}")
        if said:
            self.notes.append(", ".join(said))

    def _say_left_out(self, roles: dict[str, int]) -> None:
        """Note which columns are not read; their values are added when they are."""
        used = set(roles.values())
        self.left = [
            at
            for at, name in enumerate(self.names)
            if at not in used and not _score_name(_plain(name))
        ]
        if self.left:
            self.left_note = len(self.notes)
            self.notes.append("")

    def _say_values_left_out(self, table: "pd.DataFrame") -> None:
        """Write down columns that are not read, and what they say if it is little."""
        if not self.left:
            return
        shown = []
        for at in self.left[:5]:
            counts = table[at].value_counts(dropna=False)
            told = ""
            if 2 <= len(counts) <= _FEW_VALUES:
                values = ["empty" if v != v else _safe(str(v)) for v in counts.index]
                parts = [f"{v} {n:,}" for v, n in zip(values, counts, strict=True)]
                told = f" ({', '.join(parts)})"
            shown.append(f"{self._shown(at)}{told}")
        more = f" and {len(self.left) - 5} more" if len(self.left) > 5 else ""
        self.notes[self.left_note] = f"left out: {', '.join(shown)}{more}"

    def _all_shown(self) -> str:
        """The names of all columns, as far as a message has room for them."""
        return files.shown(", ".join(self.names))[:200]

    def _shown(self, at: int) -> str:
        """A column's name, quoted, or its place."""
        name = self.names[at]
        return _quoted(name) if name else f"column {at + 1}, without a name"

    # --- cells ------------------------------------------------------------------------

    def _frame(self, body: bytes) -> "pd.DataFrame":
        """The columns that are used, by their places in the file."""
        numeric = self.scores
        if self.kind == "confidences":
            numeric = [self.roles["confidence"]]
        with_points = self._parse(body, ".")
        if _are_numbers(with_points, numeric):
            return with_points
        with_commas = self._parse(body, ",")
        if _are_numbers(with_commas, numeric):
            self.notes.append("decimal commas are read as points")
            return with_commas
        return with_points

    def _parse(self, body: bytes, decimal: str) -> "pd.DataFrame":
        """The cells below the header, with points or commas in the numbers."""
        import pandas as pd

        end = re.search(rb"\r\n|\n|\r", body)
        if end is None:
            fail("logits", "has no line below the header", "write a line a sample")
        used = {*self.roles.values(), *self.scores}
        if self.second_opinion is not None:
            used.add(self.second_opinion)
        used.update(self.beside_scores.values())
        self._refuse_surplus_cells(memoryview(body)[end.end() :])
        self._refuse_odd_lines(body, end.end())
        try:
            table = pd.read_csv(
                io.BytesIO(memoryview(body)[end.end() :]),
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
        self._refuse_unnamed_split(table)
        self._say_values_left_out(table)
        if decimal == ".":
            self._tell_left_out(table)
            self._tell_several_models(table)
            if self.kind == "confidences":
                self._refuse_padded_numbers(body, end.end())
        self.groups = self._groups(table)
        kept: pd.DataFrame = table[sorted(used)]
        return kept

    def _refuse_surplus_cells(self, lines: memoryview) -> None:
        """Refuse a first line with more cells than columns.

        pandas would make an index of the surplus, slowly, and refuses longer lines
        further down by itself.
        """
        end = re.search(rb"[\r\n]", lines)
        first = bytes(lines if end is None else lines[: end.start()])
        text = first.decode("utf-8", "replace")
        if len(_cells(text, self.separator)) > len(self.names):
            problem = "are fewer than the cells of a line"
            cure = "with decimal commas separate the cells by ; or put them in quotes"
            fail("columns", problem, cure)

    def _refuse_odd_lines(self, body: bytes, start: int) -> None:
        """Refuse lines with fewer cells than columns, and cells that were not meant.

        pandas fills short lines up at their end, where a cell before may be lacking. A
        table that was written without quoting, ``"So he said<TAB>1``, would lose all
        lines up to the next such mark. A text of several lines in quotes is no such
        cell: not all of its lines have a cell for each column, and after its last mark
        comes a separator.
        """
        lines = body[start:] + self.cut
        has_quotes = b'"' in lines
        line = self._first_short_row(lines) if has_quotes else self._first_short(lines)
        if line is not None:
            problem = f"are {len(self.names)}, and line {self.first_line + line} has "
            problem += "fewer cells"
            fail("columns", problem, "write each cell, also an empty one")

    def _first_short(self, lines: bytes) -> int | None:
        """The first line, from 1, with too few cells; of a table without quotes."""
        mark = self.separator.encode()
        needed = len(self.names) - 1
        n_ends = lines.count(b"\n") + lines.count(b"\r") - lines.count(b"\r\n")
        n_lines = 1 + n_ends
        if lines.count(mark) >= needed * n_lines:  # longer lines are refused anyway
            return None
        for i, line in enumerate(lines.splitlines(), 1):
            if line.count(mark) < needed and line.strip():
                return i
        return None

    def _first_short_row(self, lines: bytes) -> int | None:
        """The first line, from 1, of a row with too few cells; refuses open quotes."""
        n_rows = 0
        short = None
        several = None
        for first, last, n_cells in _rows_of_lines(lines, self.separator):
            n_rows += 1
            if several is None and last > first:
                several = first
            if short is None and 0 < n_cells < len(self.names):
                short = first
        if several is not None:
            strict = _rows_of_lines(lines, self.separator, strict=True)
            if self._are_all_whole(lines) or sum(1 for _ in strict) < n_rows:
                problem = f"line {self.first_line + several} begins a cell with a "
                problem += "quotation mark that it does not close"
                cure = "write such cells as csv does, or without the mark"
                fail("columns", problem, cure)
        return short

    def _are_all_whole(self, lines: bytes) -> bool:
        """Whether every line has a cell for each column, quotation marks or not."""
        marks = len(self.names) - 1
        text = _text_of(lines, newline=None)
        return all(line.count(self.separator) == marks for line in text if line.strip())

    def _refuse_unnamed_split(self, table: "pd.DataFrame") -> None:
        """Refuse a column that is left out and says which samples are for what."""
        if "split" in self.roles:
            return
        used = {*self.roles.values(), *self.scores}
        for at, name in enumerate(self.names):
            if at in used:
                continue
            found = table[at].dropna().unique()
            step = 1 + len(found) // 10_000
            values = {str(value).strip().casefold() for value in found[::step]}
            says_yes = _IN_PART.fullmatch(_plain(name)) and values <= {*_YES_OR_NO, "x"}
            is_mixed = len(found) > 1 or table[at].isna().any()
            is_short = len(found) <= _MOST_PARTS
            is_part = is_short and (says_yes or _are_parts(values))
            if not is_mixed and not _is_of_training(name, values):
                continue
            if values and (is_part or _are_in_parts(values)):
                cure = "name it split and write val and test, or leave it out if it "
                cure += "says something else"
                fail("columns", f"{self._shown(at)} says val or test", cure)

    def _tell_left_out(self, table: "pd.DataFrame") -> None:
        """Warn of a column that is left out and says that lines are not one sample."""
        for at, name in enumerate(self.names):
            plain = _plain(name)
            if plain in _COUNTS:
                says = "how many samples a line stands for, write the line as often"
            elif plain in _EPOCHS:
                says = "which state of a model a line is from, keep those of one"
            elif plain in _PERHAPS_SPLIT and 2 <= table[at].nunique() <= _MOST_PARTS:
                says = "which samples the model has seen, leave those out"
            else:
                continue
            is_of_numbers = _is_numeric(table[at]) and table[at].nunique() > 1
            if is_of_numbers or plain in _PERHAPS_SPLIT:
                _check.warn(
                    f"columns: {self._shown(at)} is left out, and each line is one "
                    f"sample; if it says {says}"
                )

    def _tell_several_models(self, table: "pd.DataFrame") -> None:
        """Warn where a column that is left out parts the lines into the same samples.

        They have the same labels in the same order, but for those sorted by class, of
        which folds may be alike; or a second such column numbers them.
        """
        used = {*self.roles.values(), *self.scores}
        left = [at for at in range(len(self.names)) if at not in used]
        for at in left:
            sizes = table[at].value_counts()
            if not 2 <= len(sizes) <= _MOST_STATES or sizes.max() < _MANY:
                continue
            parts = [rows for _, rows in table.groupby(at, sort=False)]
            label = self.roles.get("label")
            if self._have_same_labels(parts) or _have_same_ids(parts, left, label):
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

    def _refuse_padded_numbers(self, body: bytes, start: int) -> None:
        """Refuse labels that as text are two and as numbers one: ``010`` and ``10``."""
        import pandas as pd

        if re.search(rb"(?<![\d.])0\d|\d[eE]\d", body) is None:
            return
        at = [self.roles[role] for role in _TWO_LABELS if role in self.roles]
        columns = pd.read_csv(
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
                value = _value(name)
                other = name if value is None else first.setdefault(value, name)
                if other != name:
                    problem = f"holds {_quoted(other)} and {_quoted(name)}"
                    fail(self._role(one), problem, "write a class in one way")

    def _groups(self, table: "pd.DataFrame") -> dict[int, "pd.Series[Any]"]:
        """Columns that are left out and hold each value in several lines."""
        if self.kind != "confidences":
            return {}
        groups = {}
        for at, name in enumerate(self.names):
            if at in self.roles.values() or at == self.second_opinion:
                continue
            values = table[at]
            if _plain(name) in _RANKS and self._is_rank(values, table):
                problem = f"have {self._shown(at)}: a sample has a line for each rank?"
                fail("columns", problem, "keep the first of each sample, or rename it")
            n_lines = values.value_counts(sort=False)
            several = n_lines.index[n_lines >= 2]
            # A threshold may have left one line of some samples.
            if len(several) >= max(_MANY, len(n_lines) / 5):
                groups[at] = values.where(values.isin(several))
        return groups

    def _is_rank(self, values: "pd.Series[Any]", table: "pd.DataFrame") -> bool:
        """Whether a column numbers lines of falling confidence."""
        confidences = table[self.roles["confidence"]]
        if not _is_numeric(values) or not _is_numeric(confidences):
            return False
        follows = (values.diff() == 1).to_numpy()
        falls = (confidences.diff() <= 0).to_numpy()
        return bool(follows.sum() >= _MANY and falls[follows].all())

    # --- arrays -----------------------------------------------------------------------

    def table(self) -> Table:
        """Everything, checked cell by cell."""
        splits = self._splits()
        for at in sorted({*self.roles.values(), *self.scores}):
            self._refuse_holes(at)
        if self.kind == "confidences":
            return self._confidences(splits)
        order, names_of_columns = self._classes()
        columns = [self.scores[k] for k in order]
        labels, names = self._labels(len(columns), names_of_columns)
        self._refuse_second_set(columns, labels)
        scores = self.frame[columns].to_numpy(float)
        if _is_numeric(self.frame[self.roles["label"]]) or names_of_columns is None:
            self._refuse_exchanged(scores, labels, names)
        self._compare_with_scores(scores, labels, names)
        parts = {split: (scores[rows], labels[rows]) for split, rows in splits.items()}
        return Table(self.kind, parts, names, notes=tuple(self.notes))

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
            if value not in _SPLITS:
                _check.choice("split", value, ("val", "test"))
        which = written.map(_SPLITS).to_numpy()
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
        found = _score_name(_plain(self.names[at]))
        return found.ending if found else ""

    def _refuse_class_twice(self, endings: list[str]) -> None:
        """Refuse two columns of scores of one class."""
        seen: set[str] = set()
        for at, ending in zip(self.scores, endings, strict=True):
            if ending in seen:
                problem = f"are {self._all_shown()}: {self._shown(at)} is there twice"
                fail("columns", problem, f"name each class once; {_WAYS}")
            seen.add(ending)

    def _written_ending(self, at: int) -> str:
        """The class's name in a column's name, as it is written."""
        return self.names[at].strip().replace(" ", "_").split("_", 1)[-1]

    def _labels(
        self, k: int, names: list[str] | None
    ) -> tuple[npt.NDArray[np.int64], tuple[str, ...] | None]:
        """Class ids, and the classes' names."""
        at = self.roles["label"]
        column = self.frame[at]
        if _is_numeric(column):
            if names is None:
                return self._class_ids(at), None
            return self._numbers_of(at, names), tuple(names)
        written = [str(value).strip() for value in column]
        there = sorted(set(written))
        if names is None:
            if len(there) != k:
                problem = f"holds {len(there)} names for {k} columns"
                cure = f"end the columns with the names, as in prob_{_safe(there[0])}"
                fail("label", problem, cure)
            names = there
            self._refuse_text_order(names)
            self._tell_other_spellings(names)
            self._say_names(names, "by the alphabet, as scikit-learn counts")
        else:
            self._say_names(names, "as the columns are called")
        ids = _ids_by_spelling(names)
        for row, name in enumerate(written):
            if name not in ids and _plain(name) not in ids:
                where = f"{_quoted(name)} in line {self._line(row)}"
                problem = f"holds {where}, and no column has it"
                fail("label", problem, f"the columns are of {_listed(names)}")
        labels = np.array([ids.get(name, ids.get(_plain(name))) for name in written])
        self._refuse_no_classes(labels, names)
        return labels, tuple(names)

    def _numbers_of(self, at: int, names: list[str]) -> npt.NDArray[np.int64]:
        """Class ids where columns have names and labels are numbers.

        The numbers are names, too, if all names are numbers; else they count columns.
        """
        by_value = {_value(name): i for i, name in enumerate(names)}
        if None not in by_value and len(by_value) == len(names):
            self._say_names(names, "as the columns are called")
            values = self.frame[at].to_numpy(float)
            for row, value in enumerate(values):
                if value not in by_value:
                    problem = f"holds {value:g} in line {self._line(row)}"
                    fail("label", problem, f"the columns are of {_listed(names)}")
            return np.array([by_value[value] for value in values])
        for name in names:
            if _value(name) is not None:
                what = f"are of the classes {_listed(names)}, and labels are numbers"
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
            other = first.setdefault(_plain(name), name)
            if other != name:
                pairs.append(f"{_quoted(other)} and {_quoted(name)}")
        if pairs:
            more = f", and {len(pairs) - 1} more pairs," if len(pairs) > 1 else ""
            _check.warn(
                f"label: {pairs[0]}{more} count as two classes, since there are as "
                "many columns; write a class in one way if they are one"
            )

    def _refuse_text_order(self, names: Sequence[str]) -> None:
        """Refuse names that count otherwise than the alphabet: c0, c1, c10, c2."""
        for before, after in itertools.pairwise(names):
            if _counts_down(before, after):
                problem = f"holds names that count: does {_quoted(before)} come before "
                problem += f"{_quoted(after)}, as in the alphabet, or after it?"
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
            told = tell_exchanged([_safe(names[label]) for label in circle])
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
            told = tell_exchanged([_safe(names[k]) if names else k for k in circle])
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
            problem = f"count the classes: may {_quoted(names[at])}, which is column "
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
        ids = predicted.fillna(0).to_numpy(int)
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
        words = [_YES_OR_NO.get(str(v).strip().casefold()) for v in self.frame[at]]
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
        ids: dict[float | str, int] = {}
        for label, name in enumerate(names or ()):
            ids[_value_or_plain(name)] = label
        if not any(isinstance(name, float) for name in ids):
            ids |= {float(label): label for label in range(k)}
        exactly = {name: label for label, name in enumerate(names or ())}
        return {
            cell: exactly.get(str(cell).strip(), ids.get(_value_or_plain(str(cell))))
            for cell in column.unique()
        }

    def _tell_contradiction(
        self, role: str, at: int, differs: npt.NDArray[np.bool_], n_known: int
    ) -> None:
        """Refuse scores that most cells of another column contradict; else warn."""
        row = int(differs.argmax())
        first = _quoted(str(self.frame[at].iloc[row]))
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
            if _plain(name) in _check.NO_CLASS and label not in labels:
                at = self.scores[label] if label < len(self.scores) else 0
                problem = f"{self._shown(at)} reads as a class, which no label names"
                fail("columns", problem, "give the column another name")

    def _refuse_second_set(
        self, columns: list[int], labels: npt.NDArray[np.int64]
    ) -> None:
        """Refuse scores of the same classes once more: ``logit_0``, ``logit_0.1``."""
        names = [_plain(self.names[at]) for at in columns]
        again = _check.second_set(names, labels.tolist())
        if again:
            at = columns[names.index(again[0])]
            problem = f"{self._shown(at)} and {len(again) - 1:,} more seem a second set"
            problem += " of scores: no label is of their classes"
            cure = "leave them out; if they are classes, give them names of their own"
            fail("columns", problem, cure)

    def _say_names(self, names: Sequence[str], how: str) -> None:
        """Note which class has which id."""
        pairs = [f"{i} = {_safe(name)}" for i, name in enumerate(names[:20])]
        more = ", ..." if len(names) > 20 else ""
        self.notes.append(f"classes: {', '.join(pairs)}{more}, {how}")

    def _confidences(self, splits: dict[str, npt.NDArray[np.bool_]]) -> Table:
        """Confidences and whether they were right; of names equality counts."""
        values = self.frame[self.roles["confidence"]].to_numpy(float)
        low = values.min()
        high = values.max()
        if not 0 <= low <= high <= 1:
            bad = low if low < 0 else high
            problem = f"{bad} is outside [0, 1]"
            fail("confidence", problem, "of percentages, divide by 100")
        if "correct" in self.roles:
            self._refuse_correct_answers()
            hits = self._correct()
            self._refuse_lines_of_classes(values, hits)
            _refuse_of_true_class(values, hits)
            parts = {name: (values[rows], hits[rows]) for name, rows in splits.items()}
            return Table("confidences", parts, notes=tuple(self.notes))
        labels, predictions, names = self._two_labels()
        hits = labels == predictions
        self._refuse_second_opinion(hits)
        self._tell_exchanged(labels, predictions, names)
        self._refuse_lines_of_classes(values, hits, predictions)
        self._refuse_of_one_class(values, predictions, names)
        _refuse_of_true_class(values, hits)
        n_seen = len(np.unique(np.concatenate([labels, predictions])))
        _refuse_below_chance(values, hits, n_seen)
        parts = {name: (values[rows], hits[rows]) for name, rows in splits.items()}
        predicted = {
            name: (labels[rows], predictions[rows]) for name, rows in splits.items()
        }
        return Table("confidences", parts, names, predicted, tuple(self.notes))

    def _refuse_lines_of_classes(
        self,
        values: npt.NDArray[np.float64],
        hits: npt.NDArray[np.bool_],
        predictions: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Refuse a table with a line for each class of a sample, or for its first few.

        There a column numbers the samples: the confidences of its lines sum to at most
        1, at most one of them is right, and no two predict one class.
        """
        import pandas as pd

        lines = pd.DataFrame({"confidence": values, "hit": hits})
        for at, samples in self.groups.items():
            of_sample = lines.groupby(samples.to_numpy())  # without those of one line
            sums = of_sample.sum()
            is_one = sums["confidence"].max() <= 1.001 and sums["hit"].max() <= 1
            if is_one and predictions is not None:
                pairs = pd.DataFrame({"sample": samples, "prediction": predictions})
                is_one = not pairs.dropna().duplicated().any()
            if is_one:
                problem = f"have several lines for each value of {self._shown(at)}, as "
                problem += "if they were classes of one sample"
                fail("columns", problem, "keep the first class of each sample")

    def _correct(self) -> npt.NDArray[np.bool_]:
        """Whether predictions were right, from 0 and 1, or words for them."""
        at = self.roles["correct"]
        written = [str(value).strip().casefold() for value in self.frame[at]]
        for row, word in enumerate(written):
            if word not in _YES_OR_NO:
                problem = f"holds {_quoted(word)} in line {self._line(row)}"
                cure = "write 1 where the prediction is right, else 0"
                fail("correct", problem, cure)
        return np.array([_YES_OR_NO[word] for word in written])

    def _refuse_correct_answers(self) -> None:
        """Refuse ``correct`` beside predictions in such words: it may be a label."""
        predictions = self.roles.get("prediction")
        if predictions is None:
            return
        words = {str(value).strip().casefold() for value in self.frame[predictions]}
        if words <= _YES_OR_NO.keys():
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
            said = _YES_OR_NO.get(str(value).strip().casefold(), hits[row])
            if said != hits[row]:
                are = "alike" if hits[row] else "different"
                problem = (
                    f"holds {_quoted(str(value))} in line {self._line(row)}, where"
                )
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
        if len(ids) != 2 or len(values) < _MANY or values.min() >= 0.5:
            return
        for other, same in (ids, ids[::-1]):
            if values[predictions == other].max() <= values[predictions == same].min():
                name = names[same] if names else str(same)
                problem = f"seems to be the probability of class {_safe(name)}"
                cure = "write that of the predicted class: of two classes max(p, 1 - p)"
                fail("confidence", problem, cure)

    def _two_labels(
        self,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[str, ...] | None]:
        """Labels and predictions as ids, and the names if there are any."""
        pair = [self.roles["label"], self.roles["prediction"]]
        are_names = [not _is_numeric(self.frame[at]) for at in pair]
        if not any(are_names):
            ids_of_both = [self._class_ids(at) for at in pair]
            self._refuse_negative(pair, ids_of_both)
            return ids_of_both[0], ids_of_both[1], None
        if not all(are_names):
            at = pair[are_names.index(False)]
            other = pair[are_names.index(True)]
            problem = f"{self._shown(at)} holds numbers, {self._shown(other)} names"
            fail("columns", problem, "write names in both label and prediction")
        true_names = [str(value).strip() for value in self.frame[pair[0]]]
        said_names = [str(value).strip() for value in self.frame[pair[1]]]
        self._refuse_other_spelling({*true_names}, {*said_names})
        self._refuse_other_marks(true_names, said_names)
        self._refuse_total(true_names)
        self._tell_nameless("label", true_names, said_names)
        self._tell_nameless("prediction", said_names, true_names)
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

    def _tell_nameless(
        self, role: str, names: Sequence[str], others: Sequence[str]
    ) -> None:
        """Warn of words for no class that only one of the two columns has."""
        for word in sorted({*names} - {*others}):
            if word.casefold() in _NOTHING:
                row = names.index(word)
                _check.warn(
                    f"{role}: {_quoted(word)}, first in line {self._line(row)}, counts "
                    f"as a class, so that {names.count(word):,} samples are errors; "
                    "leave out samples without a class"
                )

    def _refuse_other_spelling(self, true: set[str], said: set[str]) -> None:
        """Refuse one class written in two ways: ``Cat`` and ``cat``, 1 and 1.0.

        Two that are both labels and both predictions are two classes.
        """
        spelt: dict[float | str, str] = {}
        for name in sorted(true | said):
            other = spelt.setdefault(_value_or_plain(name), name)
            if other != name and {name, other} - (true & said):
                problem = f"hold one class as {_quoted(other)} and {_quoted(name)}"
                fail("columns", problem, "write a class in one way")

    def _refuse_other_marks(self, true: Sequence[str], said: Sequence[str]) -> None:
        """Refuse a prediction ``A.`` or ``(A)`` where the label is ``A``; tell others.

        Only of predictions that are no label: ``C`` and ``C#`` may be two classes.
        """
        unknown = collections.Counter(said)
        for name in {*true}:
            del unknown[name]
        bare = {_bare(name): name for name in sorted({*true})}
        for name in sorted(unknown):
            label = bare.get(_bare(name))
            if label is not None and _bare(name):
                row = list(said).index(name)
                problem = (
                    f"holds {_quoted(name)} in line {self._line(row)}, and labels "
                )
                problem += f"hold {_quoted(label)}"
                fail("prediction", problem, "write a class in one way")
        never_said = collections.Counter(true)
        for name in {*said}:
            del never_said[name]
        pair = [*unknown.most_common(1), *never_said.most_common(1)]
        are_one = len(pair) == 2 and min(n for _, n in pair) >= _MANY
        labels = {name.casefold() for name in true}
        hold_one = any(labels & _words_of(name) for name in unknown)
        n_unknown = unknown.total()
        if n_unknown > len(said) / 20 or are_one or hold_one:
            _check.warn(
                f"prediction: {n_unknown:,} of {len(said):,} are no label of this "
                f"table, as {_quoted(pair[0][0])}, and count as errors; look how both "
                "are written"
            )

    def _refuse_total(self, names: Sequence[str]) -> None:
        """Refuse a last line that is no sample but a sum or a mean."""
        last = names[-1]
        if _plain(last) in _TOTALS and names.count(last) == 1:
            where = f"{_quoted(last)} in line {self._line(len(names) - 1)}"
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
        return _safe(self.names[at])

    def _refuse_holes(self, at: int) -> None:
        """Refuse a column with holes, or with text where numbers belong."""
        column = self.frame[at]
        role = self._role(at)
        holes = column.isna().to_numpy()
        if holes.any():
            problem = f"has a hole or NaN in line {self._line(int(holes.argmax()))}"
            fail(role, problem, "fill it or leave the line out")
        may_be_text = role in ("split", "label", "prediction", "correct")
        if may_be_text or _is_numeric(column):
            return
        row, value = _first_text(column)
        where = f"{_quoted(value)}, in line {self._line(row)}"
        cure = "write plain numbers, all with points or all with commas"
        if "%" in value:
            cure = "write fractions of 1 without a percent sign"
        fail(role, f"holds what is not a number, {where}", cure)


def _is_of_training(name: str, values: Collection[str]) -> bool:
    """Whether a column that holds one value says that all has been seen."""
    (value,) = values
    if _SEEN.fullmatch(re.sub(r"[\W_]+", "", value)):
        return True
    return _YES_OR_NO.get(value, False) and "train" in name.casefold()


def _are_in_parts(values: Collection[str]) -> bool:
    """Whether paths and names lead into parts: ``train/7.png``, ``test-00003``."""
    if any(" " in value.strip() for value in values):  # a text may hold such words
        return False
    kinds = set()
    for value in values:
        words = {*re.findall(r"[^\W\d_]+", value)}
        kinds.add((bool(words & _IN_TRAINING), bool(words & _IN_OTHERS)))
    return {(True, False), (False, True)} <= kinds


def _counts_down(before: str, after: str) -> bool:
    """Whether the first numbers in which two names differ fall: ``10-19``, ``3-9``.

    Digits behind a decimal point do not count.
    """
    parts = [re.findall(r"\d*\.\d+|\d+|\D", name) for name in (before, after)]
    for one, other in zip(*parts, strict=False):
        if one != other:
            return one.isdecimal() and other.isdecimal() and int(one) > int(other)
    return False


def _have_same_ids(
    parts: Sequence["pd.DataFrame"], left: Sequence[int], label: int | None
) -> bool:
    """Whether one of these columns numbers about the same samples in all parts.

    A model that failed on some samples has a few less; of one that was stopped all are
    among the others'. Where numbers begin anew in each fold, labels differ.
    """
    largest = max(parts, key=len)
    for at in left:
        if not all(rows[at].is_unique for rows in parts) or largest[at].isna().any():
            continue
        known = largest.set_index(at)
        shared = [rows[rows[at].isin(known.index)] for rows in parts]
        n_alike = [len(rows) for rows in shared]
        if label is not None:
            expected = [known[label].reindex(rows[at]).to_numpy() for rows in shared]
            pairs = zip(shared, expected, strict=True)
            n_alike = [int((rows[label].to_numpy() == y).sum()) for rows, y in pairs]
        if all(n >= 0.8 * len(rows) for n, rows in zip(n_alike, parts, strict=True)):
            return True
    return False


def _value(name: str) -> float | None:
    """The number that a name is, if it is one."""
    try:
        value = float(name)
    except ValueError:
        return None
    return value if math.isfinite(value) else None  # "nan" is a name


def _ids_by_spelling(names: Sequence[str]) -> dict[str, int]:
    """The id of each name, as it is written and, where no two are alike so, plain."""
    exactly = {name: label for label, name in enumerate(names)}
    plain = {_plain(name): label for label, name in enumerate(names)}
    return exactly if len(plain) < len(exactly) else plain | exactly


def _value_or_plain(name: str) -> float | str:
    """What two spellings of one name have in common."""
    value = _value(name)
    return _plain(name) if value is None else value


def _refuse_of_true_class(
    values: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_]
) -> None:
    """Refuse the probability of the true class, which tells right from wrong."""
    if len(values) < _MANY or values.min() >= 0.5 or hits.all() or not hits.any():
        return
    if values[~hits].max() < values[hits].min():
        problem = "is higher for every right prediction than for any wrong one"
        cure = "write the probability of the predicted class, not of the true one"
        fail("confidence", problem, cure)


def _refuse_below_chance(
    values: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_], n_classes: int
) -> None:
    """Refuse numbers that the largest of so many probabilities cannot be.

    Those of the true class are below 1/K where the prediction is wrong, and never above
    one half there. Classes that no line holds may push a few below 1/K.
    """
    wrong = values[~hits]
    n_below = int((wrong < 0.99 / n_classes).sum())
    if n_below >= _MANY / 4 and wrong.max() <= 0.5:
        problem = (
            f"is below 1/{n_classes} for {n_below:,} wrong predictions, which the "
            f"largest of {n_classes} probabilities cannot be"
        )
        cure = "write the probability of the predicted class, not of the true one"
        fail("confidence", problem, cure)


def _is_like_scores(plain: str) -> bool:
    """Tell whether a plain name looks like that of a column of scores, misspelt."""
    if re.match(r"(logit|prob)(s|abilit(y|ies))?(?![a-z])", plain):
        return True
    numbered = re.sub(r"\d+", "0", plain[:40])
    known = ("logit_0", "logits_0", "prob_0", "probs_0")
    return bool(difflib.get_close_matches(numbered, known, 1, 0.75))


def _cells(line: str, separator: str) -> list[str]:
    """The cells of one line."""
    rows = csv.reader([line], delimiter=separator, skipinitialspace=True)
    try:
        return [cell.strip() for cell in next(rows, [])]
    except csv.Error:
        problem = f"holds a cell of more than {csv.field_size_limit():,} characters"
        fail("logits", problem, "is this a table of numbers?")


def _text_of(lines: bytes, newline: str | None) -> io.TextIOWrapper:
    """The text, line by line."""
    return io.TextIOWrapper(io.BytesIO(lines), "utf-8", "replace", newline)


def _rows_of_lines(
    lines: bytes, separator: str, strict: bool = False
) -> Iterator[tuple[int, int, int]]:
    """Of each row its first and last line, from 1, and how many cells it has.

    Ends where ``strict`` and something stands between a closing mark and a separator,
    and after a cell that is longer than any.
    """
    rows = csv.reader(
        _text_of(lines, newline=""),
        delimiter=separator,
        skipinitialspace=True,
        strict=strict,
    )
    before = 0
    try:
        for cells in rows:
            n_cells = 0 if len(cells) == 1 and not cells[0].strip() else len(cells)
            yield before + 1, rows.line_num, n_cells
            before = rows.line_num
    except csv.Error:
        if not strict:
            yield before + 1, max(before + 2, rows.line_num), 0


def _plain(name: str) -> str:
    """A name written small, with "_" for spaces and hyphens.

    Letters that look alike are alike: composed or not, wide or not, with soft hyphens
    and marks without width or without.
    """
    alike = unicodedata.normalize("NFKC", name)
    visible = "".join(c for c in alike if unicodedata.category(c) != "Cf")
    straight = visible.translate(_STRAIGHT)
    return re.sub(r"[\s\-]+", "_", straight.strip()).casefold()


def _words_of(name: str) -> set[str]:
    """The words in a name: of ``The answer is A`` ``a``, too."""
    return {*re.findall(r"[^\W_]+", name.casefold())}


def _bare(name: str) -> str:
    """A name without blanks and marks, all of which ``C++`` and ``+`` have."""
    return re.sub(r"[\W_]+", "", _plain(name))


def _are_parts(values: Collection[str]) -> bool:
    """Whether words name parts of the data: all of them, or two.

    ``{"train", "cal", "extra"}`` does, by its first two words, and ``{"train", "x"}``;
    ``{"train", "car", "bus"}`` are vehicles. Of two words one is enough.
    """
    words = [re.sub(r"[\W_]+", "", value) for value in values]
    n_seen = sum(_SEEN.fullmatch(word) is not None for word in words)
    n_unseen = sum(_UNSEEN.fullmatch(word) is not None for word in words)
    if n_seen + n_unseen == len(words):
        return bool(words)
    return n_seen + n_unseen >= (1 if len(words) == 2 else 2)


def _safe(name: str) -> str:
    """A name that is short and can be printed."""
    shown = files.shown(name)
    kept = "".join(c if c.isprintable() else "?" for c in shown[:60])
    return kept + ("..." if len(shown) > 60 else "")


def _quoted(name: str) -> str:
    """A name in quotes."""
    return f"'{_safe(name)}'"


def _listed(names: Sequence[str]) -> str:
    """The first names."""
    return ", ".join(_safe(name) for name in names[:8])


def _is_numeric(column: "pd.Series[Any]") -> bool:
    """Tell whether a column was read as numbers; True and False are none."""
    return column.dtype.kind in "iuf"


def _are_numbers(table: "pd.DataFrame", columns: list[int]) -> bool:
    """Tell whether all of these columns were read as numbers."""
    return all(_is_numeric(table[at]) for at in columns)


def _first_text(column: "pd.Series[Any]") -> tuple[int, str]:
    """The first cell that is no number, and its row."""
    import pandas as pd

    bad = pd.to_numeric(column.astype(str), errors="coerce").isna().to_numpy()
    row = int(bad.argmax()) if bad.any() else 0
    return row, str(column.iloc[row])
