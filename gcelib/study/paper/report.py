"""What the results page opens, and what it leaves behind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from gcelib import _check
from gcelib.losses import LOSSES
from gcelib.study import runs
from gcelib.study.paper.collecting import collect
from gcelib.study.paper.numbers import Study, committed_results
from gcelib.study.paper.tables import to_markdown


def open_report(
    runs_dir: str | os.PathLike[str] | None = None,
    variant: str = "",
    baseline: str = "gce",
) -> tuple[pd.DataFrame, Study]:
    """All runs there are, and the study of those to show.

    Parameters
    ----------
    runs_dir : path, optional
        A folder of finished runs; left out: the results that come with the project.
    variant : str, default ""
        Which runs to show; "" are the losses as they are, or, where there are none, the
        variant with most runs.
    baseline : str, default "gce"
        The loss that others are compared with; it is only checked.

    Returns
    -------
    (DataFrame, Study)
        A row a run, data sets with short names first (a set before its tails).

    Raises
    ------
    ValueError, TypeError
        If there is no finished run, no run of that variant, or no such loss.

    Examples
    --------
    >>> everything, study = open_report(variant="lambda0.9")
    >>> sorted(set(study.runs.loss)), len(everything) > len(study.runs)
    (['gce'], True)
    """
    _check.choice("baseline", baseline, LOSSES)
    found = committed_results() if runs_dir is None else collect(runs_dir)
    if found.empty:
        problem = f"holds no finished run: {Path(runs_dir or '.').resolve()}"
        _check.fail("runs_dir", problem, "train some first, as 07_sweep does")
    found["variant"] = found["variant"].fillna("")
    found = found.sort_values("dataset", key=lambda n: n.str.len(), kind="stable")
    most_first = list(found["variant"].value_counts().index)
    if variant:
        _check.choice("variant", variant, most_first)
    shown = variant if variant in most_first else most_first[0]
    return found, Study(found, shown)


def export(
    tables: Mapping[str, pd.DataFrame], folder: str | os.PathLike[str] | None
) -> None:
    """Write each table as CSV and Markdown, whole or not at all.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        By file name, without its ending.
    folder : path or None
        Made if it is missing; files of these names are replaced. None: write nothing.

    Examples
    --------
    >>> export({}, None)
    """
    if folder is None:
        return
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        csv = table.to_csv(index=False)
        runs.write_atomic(place / f"{name}.csv", csv.encode())
        runs.write_atomic(place / f"{name}.md", to_markdown(table).encode())
    print(f"{len(tables)} tables in {place.resolve()}")
