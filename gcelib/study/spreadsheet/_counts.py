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
    *("examples", "rows", "cases", "occurrences", "#", "0", "n_break", "n_cases"),
    *("n_patients", "num_cases", "num_patients", "fallzahl", "fälle", "faelle", "anz"),
    *("häufigkeiten", "absolute_häufigkeit", "frecuencia", "conteo", "recuento"),
    *("contagem", "frequência", "conteggio", "frequenza", "aantal", "antal", "ct"),
}
#: Names of what share of the samples a line stands for, in a whole or in percent.
_SHARES = {
    *("proportion", "proportions", "prop", "percent", "percentage", "pct", "%"),
    *("share", "rel_freq", "relative_frequency", "prozent", "anteil"),
}
#: What spreadsheets call the number of ids in a group.
_OF = re.compile(
    r"(?:count|anzahl|number|num|no|nombre|sum_of_count)_(?:of|von|de)_(.+)"
    r"|(?:count|anzahl|n)\*?\((?:distinct_)?(.+)\)"
    r"|count_(.+)|(.+)_count"
)
_THINGS = {
    *("id", "ids", "row", "rows", "sample", "samples", "line", "lines", "image"),
    *("images", "index", "file", "files", "filename", "case", "cases", "example"),
    *("examples", "observations"),
}
#: Fewer numbers may well be a whole together.
_FEWEST_SHARES = 10
#: So far from a whole are shares of a few digits, and of many.
_ROUNDED = 0.02
_EXACT = 1e-6
#: So many pairs of equal lines, expected and not there, are no chance.
_EXPECTED = 5
#: So many of those expected may be there, by a mistake.
_EXCEPTIONS = 0.1


def is_count(name: str) -> bool:
    """Tell whether a column's name says that it counts samples."""
    plain = plain_name(name)
    found = _OF.fullmatch(plain)
    if found is not None:
        counted = next(group for group in found.groups() if group is not None)
        if counted in _THINGS or counted in ROLE_OF:
            return True
    return _bare(plain) in _COUNTS


def is_share(name: str, column: "pd.Series[Any]") -> bool:
    """Tell whether numbers are shares of samples: all above 0, and a whole together.

    Of many digits they need no name.
    """
    numbers = column.to_numpy(float)
    is_varied = len(numbers) >= _FEWEST_SHARES and numbers.min() < numbers.max()
    if not is_varied or not np.isfinite(numbers).all() or numbers.min() <= 0:
        return False
    total = float(numbers.sum())
    is_named = _bare(plain_name(name)) in _SHARES
    if not is_named and (numbers == np.floor(numbers)).all():
        return False  # whole numbers may well be a hundred together
    return any(
        abs(total / whole - 1) <= (_ROUNDED if is_named else _EXACT)
        for whole in (1, 100)
    )


def are_counts(column: "pd.Series[Any]") -> bool:
    """Tell whether numbers are whole, positive, varied, and no numbers of lines."""
    numbers = column.to_numpy(float)
    are_whole = np.isfinite(numbers) & (numbers == np.floor(numbers))
    if not are_whole.all() or numbers.min() < 1 or numbers.min() == numbers.max():
        return False
    return not (column.is_unique and np.ptp(numbers) == len(numbers) - 1)


def may_count(name: str, column: "pd.Series[Any]", lines: "pd.DataFrame") -> bool:
    """Tell whether numbers may count the samples of each line.

    Of a grouped table every line is there once: ``lines`` hold what was grouped by, a
    confidence, or all scores, last. Where samples would repeat each other, that tells
    it; where they would not, as with confidences of many digits, a name and ones do.
    """
    there = pairs_within(lines.groupby([*lines.columns], dropna=False).size())
    is_named = _bare(plain_name(name)) in _PERHAPS
    if is_named and not there and (column == 1).mean() > 0.5:
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
