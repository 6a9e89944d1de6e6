"""What the results page opens, and what it leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from gcelib import _check
from gcelib.losses import LOSSES
from gcelib.study import runs, shipped
from gcelib.study.paper.collecting import collect
from gcelib.study.paper.numbers import KEYS, Study, committed_results
from gcelib.study.paper.tables import number_text, to_markdown, with_row_names


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

    Warns
    -----
    UserWarning
        If none is asked for, and a variant is shown.

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
    if shown != variant:
        others = f", of {sorted(most_first)}: name another one to see it"
        _check.warn(
            f"variant: no run is without one; shown are those of {shown!r}"
            f"{others if len(most_first) > 1 else ''}"
        )
    return found, Study(found, shown)


def runs_to_look_at(study: Study, losses: Iterable[str]) -> dict[str, Path]:
    """Folders of one run of each loss, whose logits a page can look into.

    Parameters
    ----------
    study : Study
        Of runs that lie in folders, as :func:`open_report` reads them: the first run of
        its first setting is taken. The project's committed results have no folders;
        theirs are the demo runs of the longest tail.
    losses : iterable of str
        Losses that have no run are left out.

    Returns
    -------
    dict of str to Path
        By loss.

    Examples
    --------
    >>> _, study = open_report()
    >>> found = runs_to_look_at(study, ["ce", "gce"])
    >>> [path.parts[-4:] for path in found.values()][1]
    ('fashion_mini_lt100', 'convnet', 'gce', 'seed-01')
    """
    folders: dict[str, Path] = {}
    for loss in losses:
        if "run_dir" in study.runs:
            names = pd.Series([*study.settings[0], loss], KEYS[:3])
            same = (study.runs[KEYS[:3]] == names).all(axis=1)
            of_loss = study.runs[same].sort_values("seed")
            if len(of_loss):
                folders[loss] = Path(of_loss["run_dir"].iloc[0])
        else:
            shown = shipped.demo_run("fashion_mini_lt100", "convnet", loss)
            if shown is not None:
                folders[loss] = shown
    return folders


def to_html(table: pd.DataFrame, note: str = "") -> str:
    """A table as narrow HTML for a page: what is alike in every row is left out.

    Parameters
    ----------
    table : DataFrame
        ``<b>`` in its texts makes bold, all else is shown as it is. Numbers get four
        digits, whole ones all, and one with its ± stays on one line. An index that
        names the rows becomes columns (see ``with_row_names``).
    note : str, default ""
        A line of HTML below the table.

    Returns
    -------
    str
        Without the columns ``model`` and ``metric`` where all their rows are alike.

    Examples
    --------
    >>> table = pd.DataFrame({"model": ["m", "m"], "ECE": ["1 ± 0", "2 ± 1"]})
    >>> html = to_html(table, "two seeds")
    >>> "1&nbsp;±&nbsp;0" in html, "<th>model" in html, html.endswith("two seeds")
    (True, False, True)
    """
    table = with_row_names(table)
    keys = [name for name in ("model", "metric") if name in table]
    alike = [name for name in keys if table[name].nunique() == 1]
    html: str = table.drop(columns=alike).to_html(
        index=False, na_rep="", float_format=number_text
    )
    for tag in ("b", "/b"):
        html = html.replace(f"&lt;{tag}&gt;", f"<{tag}>")
    look = '<table style="font-size: 11px; white-space: nowrap"'
    return html.replace(" ± ", "&nbsp;±&nbsp;").replace("<table", look) + note


def export(
    tables: Mapping[str, pd.DataFrame], folder: str | os.PathLike[str] | None
) -> None:
    """Write each table as CSV and Markdown, whole or not at all.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        By file name, without its ending. An index that names the rows becomes columns;
        one of whole numbers does if it has a name itself (``rename_axis``).
    folder : path or None
        Made if it is missing; files of these names are replaced. None: write nothing.

    Raises
    ------
    ValueError, TypeError
        If there is a file in its place, or something is no DataFrame.

    Warns
    -----
    UserWarning
        If the folder holds other tables as well.

    Examples
    --------
    >>> export({}, None)
    """
    if folder is None:
        return
    place = Path(folder)
    if place.exists() and not place.is_dir():
        _check.fail("export_to", f"{place} is a file", "name a folder")
    named = {name: with_row_names(table) for name, table in tables.items()}
    place.mkdir(parents=True, exist_ok=True)
    for name, table in named.items():
        csv = table.to_csv(index=False)
        runs.write_atomic(place / f"{name}.csv", csv.encode())
        runs.write_atomic(place / f"{name}.md", to_markdown(table).encode())
    others = sorted({path.stem for path in place.glob("*.csv")} - set(tables))
    if others:
        _check.warn(
            f"export_to: {place} holds {len(others)} other tables, such as "
            f"{others[0]}; of an earlier export they do not belong to these"
        )
    print(f"{len(tables)} tables in {place.resolve()}")
