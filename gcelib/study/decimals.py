"""Numbers from text, to their last digit, whichever pandas is installed.

Before its version 3.1 pandas reads a third of all numbers of 17 digits an ulp off,
and counts the zeros behind the point as digits, of which it takes 17.
"""

import os
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd


def read_csv(
    source: str | os.PathLike[str] | IO[Any], **options: Any
) -> "pd.DataFrame":
    r"""Read a table as ``pandas.read_csv``, its numbers as Python's ``float``.

    Parameters
    ----------
    source : path or file
    **options
        Of ``pandas.read_csv``.

    Returns
    -------
    DataFrame

    Examples
    --------
    >>> import io
    >>> float(read_csv(io.StringIO("p\n0.00000000000000000012345")).p[0])
    1.2345e-19
    """
    import pandas as pd

    if not _is_exact():
        options["float_precision"] = "round_trip"  # deprecated where it is the default
    table: pd.DataFrame = pd.read_csv(source, **options)
    return table


def to_numeric(
    values: "pd.Series[Any]", errors: Literal["raise", "coerce"] = "raise"
) -> "pd.Series[Any]":
    """Read a column of texts as ``pandas.to_numeric`` does, but exactly.

    Parameters
    ----------
    values : Series
    errors : {"raise", "coerce"}
        What to do with a text that is no number: raise, or take NaN.

    Returns
    -------
    Series

    Examples
    --------
    >>> import pandas as pd
    >>> to_numeric(pd.Series(["0.00000000000000000012345", "x"]), "coerce").tolist()
    [1.2345e-19, nan]
    """
    import pandas as pd

    numbers: pd.Series[Any] = pd.to_numeric(values, errors=errors)
    if _is_exact() or not pd.api.types.is_float_dtype(numbers):
        return numbers
    is_text = values.map(lambda cell: isinstance(cell, str)).astype(bool)
    read_again = is_text & numbers.notna()
    return numbers.mask(read_again, values.where(read_again).astype(float))


def _is_exact() -> bool:
    """Whether this pandas reads numbers exactly when nothing is said."""
    import pandas as pd

    major, minor = pd.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (3, 1)
