"""Lines of text and their cells: what pandas would read otherwise than was meant."""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from gcelib._check import fail

#: How csv writes marks, beside other ways such as ``\\"``.
_TWICE = 'write a mark within quotation marks twice: "he said ""no"", then"'
#: A text of so many lines, of which so many are lines of the table, is none.
_LONG_TEXT = 10
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Lines:
    """The lines of a table below its header.

    Attributes
    ----------
    content : bytes
        With the empty cells of the last line.
    separator : str
        Of cells.
    n_columns : int
        As many as the header names.
    above : int
        How many lines stand above, with the header.
    """

    content: bytes
    separator: str
    n_columns: int
    above: int

    def refuse_odd(self) -> None:
        """Refuse lines of other lengths, and cells that were not meant.

        pandas fills short lines up at their end, where a cell before may be lacking. A
        table that was written without quoting, ``"So he said<TAB>1``, would lose all
        lines up to the next such mark. A text of several lines in quotes is no such
        cell: not all of its lines have a cell for each column, and after its last mark
        comes a separator.
        """
        self._refuse_surplus_cells()
        has_quotes = b'"' in self.content
        line = self._first_short_row() if has_quotes else self._first_short()
        if line is not None:
            problem = f"are {self.n_columns}, and line {self.above + line} has "
            problem += "fewer cells"
            fail("columns", problem, "write each cell, also an empty one")

    def refuse_unread(self, why: str) -> NoReturn:
        """Refuse what pandas cannot read; mostly a line with too many cells.

        pandas counts such lines from the first one, and those of a cell as one.
        """
        found = re.search(r"Expected \d+ fields in line (\d+), saw (\d+)", why)
        if found is None:
            problem = f"cannot be read as a table ({' '.join(why.split())[:100]})"
            fail(
                "logits", problem, "write a line a sample, with a cell for each column"
            )
        row = int(found[1]) - 1
        rows = rows_of_lines(self.content, self.separator)
        first, _, _ = next(itertools.islice(rows, row, None), (row + 1, 0, 0))
        problem = f"are {self.n_columns}, and line {self.above + first} has {found[2]} "
        problem += "cells"
        cure = "put a text that holds a separator in quotation marks, and "
        fail("columns", problem, cure + _TWICE)

    def _refuse_surplus_cells(self) -> None:
        """Refuse a first line with more cells than columns.

        pandas would make an index of the surplus, slowly, and refuses longer lines
        further down by itself.
        """
        first = re.split(rb"[\r\n]", self.content, maxsplit=1)[0]
        text = first.decode("utf-8", "replace")
        if len(cells_of(text, self.separator)) > self.n_columns:
            problem = "are fewer than the cells of a line"
            cure = "with decimal commas separate the cells by ; or put them in quotes"
            fail("columns", problem, cure)

    def _first_short(self) -> int | None:
        """The first line, from 1, with too few cells; of a table without quotes."""
        lines = self.content
        mark = self.separator.encode()
        needed = self.n_columns - 1
        n_ends = lines.count(b"\n") + lines.count(b"\r") - lines.count(b"\r\n")
        n_lines = 1 + n_ends
        if lines.count(mark) >= needed * n_lines:  # longer lines are refused anyway
            return None
        for i, line in enumerate(lines.splitlines(), 1):
            if line.count(mark) < needed and line.strip():
                return i
        return None

    def _first_short_row(self) -> int | None:
        """The first line, from 1, of a row with too few cells; refuses open quotes."""
        spans = []
        short = None
        for first, last, n_cells in rows_of_lines(self.content, self.separator):
            spans.append((first, last))
            if short is None and 0 < n_cells < self.n_columns:
                short = first
        several = [first for first, last in spans if last > first]
        if several:
            strict = rows_of_lines(self.content, self.separator, strict=True)
            n_strict = sum(1 for _ in strict)
            if n_strict < len(spans):
                self._refuse_marks(*spans[n_strict])
            n_marks = self._marks_of_lines()
            if {*n_marks} <= {self.n_columns - 1, None}:
                self._refuse_marks(several[0], several[0] + 1)
            for first, last in spans:
                if self._are_lines(n_marks[first - 1 : last]):
                    self._refuse_marks(first, first + 1)
        return short

    def _refuse_marks(self, first: int, last: int) -> NoReturn:
        """Refuse a cell whose mark nothing closes, or that one within it closes."""
        if last > first:
            problem = f"line {self.above + first} begins a cell with a quotation mark "
            problem += "that it does not close"
            fail(
                "columns", problem, "write such cells as csv does, or without the mark"
            )
        problem = f"line {self.above + first} holds a quotation mark within a cell in "
        problem += "such marks"
        fail("columns", problem, _TWICE)

    def _marks_of_lines(self) -> list[int | None]:
        """How many separators each line has, also in quotes; None of a blank one."""
        return [
            line.count(self.separator) if line.strip() else None
            for line in text_of(self.content, newline="")
        ]

    def _are_lines(self, n_marks: list[int | None]) -> bool:
        """Whether a long text is lines of the table, which have a cell a column each.

        The first one and the last one, too, and of the others all but a few, whose own
        texts hold separators.
        """
        whole = self.n_columns - 1
        is_long = len(n_marks) >= _LONG_TEXT
        if not is_long or n_marks[0] != whole or n_marks[-1] != whole:
            return False
        return n_marks.count(whole) >= _NEARLY_ALL * len(n_marks)


def cells_of(line: str, separator: str) -> list[str]:
    """The cells of one line."""
    rows = csv.reader([line], delimiter=separator, skipinitialspace=True)
    try:
        return [cell.strip() for cell in next(rows, [])]
    except csv.Error:
        problem = f"holds a cell of more than {csv.field_size_limit():,} characters"
        fail("logits", problem, "is this a table of numbers?")


def text_of(lines: bytes, newline: str | None) -> io.TextIOWrapper:
    """The text, line by line."""
    return io.TextIOWrapper(io.BytesIO(lines), "utf-8", "replace", newline)


def rows_of_lines(
    lines: bytes, separator: str, strict: bool = False
) -> Iterator[tuple[int, int, int]]:
    """Of each row its first and last line, from 1, and how many cells it has.

    Ends where ``strict`` and something stands between a closing mark and a separator,
    and after a cell that is longer than any.
    """
    rows = csv.reader(
        text_of(lines, newline=""),
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
