"""Columns that may say how many samples a line stands for: a grouped table."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from gcelib.study.spreadsheet._words import ROLE_OF, plain_name

if TYPE_CHECKING:
    import pandas as pd

#: Names that say it; marks around them do not count, as of ``COUNT(*)`` and ``_FREQ_``.
_COUNTS = {
    *("count", "counts", "cnt", "n", "freq", "freqs", "frequency", "multiplicity"),
    *("weight", "weights", "sample_weight", "sample_count", "n_samples", "num_samples"),
    *("n_obs", "num_obs", "numobs", "nobs", "n_rows", "num_rows", "nrow", "nrows"),
    *("n_examples", "num_examples", "anzahl", "häufigkeit", "effectif", "effectifs"),
}
#: Names that may say it, or how large a picture is, or how long a text.
_PERHAPS = {
    *("size", "len", "total", "num", "obs", "support", "w", "wt", "nb", "samples"),
    *("examples", "rows", "cases", "occurrences", "#"),
}
#: What spreadsheets call the number of ids in a group.
_OF = re.compile(r"(count|anzahl|number|num|no|nombre|sum_of_count)_(?:of|von|de)_(.+)")
_THINGS = {
    *("id", "ids", "row", "rows", "sample", "samples", "line", "lines", "image"),
    *("images", "index", "file", "files", "filename", "case", "cases", "example"),
    *("examples", "observations"),
}
#: So many pairs of equal lines, expected and not there, are no chance.
_EXPECTED = 5
#: So many of those expected may be there, by a mistake.
_EXCEPTIONS = 0.1


def is_count(name: str) -> bool:
    """Tell whether a column's name says that it counts samples."""
    plain = plain_name(name)
    found = _OF.fullmatch(plain)
    if found is not None:
        return found[2] in _THINGS or found[2] in ROLE_OF
    return _bare(plain) in _COUNTS


def may_count(name: str, column: "pd.Series[Any]", lines: "pd.DataFrame") -> bool:
    """Tell whether numbers may count the samples of each line.

    Of a grouped table every line is there once: ``lines`` hold what was grouped by, a
    confidence last. Where samples would repeat each other, that tells it; where they
    would not, as with confidences of many digits, a name and ones do.
    """
    numbers = column.to_numpy(float)
    are_whole = np.isfinite(numbers) & (numbers == np.floor(numbers))
    if not are_whole.all() or numbers.min() < 1 or numbers.min() == numbers.max():
        return False
    if column.is_unique and numbers.max() - numbers.min() == len(numbers) - 1:
        return False  # numbers of the lines
    there = pairs_within(lines.groupby([*lines.columns], dropna=False).size())
    is_named = _bare(plain_name(name)) in _PERHAPS
    if is_named and not there and (numbers == 1).mean() > 0.5:
        return True
    expected = _expected_pairs(lines)
    return expected >= _EXPECTED and there <= _EXCEPTIONS * expected


def _expected_pairs(lines: "pd.DataFrame") -> float:
    """How many pairs of lines would be alike if outcomes came without confidences."""
    *others, confidence = lines.columns
    same_confidence = pairs_within(lines[confidence].value_counts())
    same_outcome = pairs_within(lines.groupby(others, dropna=False).size())
    n_pairs = len(lines) * (len(lines) - 1) / 2
    return same_confidence * same_outcome / max(1.0, n_pairs)


def pairs_within(counts: "pd.Series[Any]") -> float:
    """How many pairs there are within groups of so many."""
    sizes = counts.to_numpy(float)
    return float((sizes * (sizes - 1) / 2).sum())


def _bare(plain: str) -> str:
    """A name without marks around it; ``#`` stays."""
    return re.sub(r"^[_.]+|\([*1]?\)$|[_.]+$", "", plain)
