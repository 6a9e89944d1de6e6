"""What comes with the project: demo runs and the tables of our results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gcelib import _check
from gcelib.study.places import PROJECT

if TYPE_CHECKING:
    import pandas as pd

_DATA = PROJECT / "data"


def demo_runs(runs_dir: str | os.PathLike[str] | None = None) -> Path:
    """Folder of the demo runs that the lessons look at, or of the reader's own.

    Parameters
    ----------
    runs_dir : str or path, optional
        A folder of runs in the same layout; by default the project's ``data/demo``.

    Returns
    -------
    Path
        ``<folder>/<dataset>/<model>/<loss>/seed-01`` and so on lie in it.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.

    Examples
    --------
    >>> sorted(path.name for path in demo_runs().glob("digit*"))
    ['digit_pairs']
    """
    folder = _DATA / "demo" if runs_dir is None else Path(runs_dir).expanduser()
    if not folder.is_dir():
        cure = "name a folder of runs, or work in a checkout of the project"
        problem = f"there is no folder {folder}, seen from {Path.cwd()}"
        _check.fail("runs_dir", problem, cure, FileNotFoundError)
    return folder


def demo_run(dataset: str, model: str, loss: str) -> Path | None:
    """Folder of the first of the project's runs of a kind, if there is one here.

    Parameters
    ----------
    dataset, model, loss : str
        As in ``TrainConfig``.

    Returns
    -------
    Path or None
        None where the project has no such run, and away from a checkout.

    Examples
    --------
    >>> demo_run("fashion_mini", "convnet", "ce").name
    'seed-01'
    >>> demo_run("folder:/nowhere", "convnet", "ce") is None
    True
    """
    folder = _DATA / "demo" / dataset / model / loss / "seed-01"
    return folder if folder.is_dir() else None


def table(name: str) -> pd.DataFrame:
    """One file of our committed results; ``data/results/README.md`` explains each.

    Parameters
    ----------
    name : str
        A file in ``data/results``, without ``.csv``. The runs of all grids together
        are ``paper.committed_results()``.

    Returns
    -------
    DataFrame
        As it is in the file: rates as fractions, NLL in nats.

    Raises
    ------
    ValueError
        For an unknown name, with the nearest.

    Examples
    --------
    >>> len(table("demo"))
    210
    """
    import pandas as pd

    folder = _DATA / "results"
    known = sorted(path.stem for path in folder.glob("*.csv"))
    return pd.read_csv(folder / f"{_check.choice('name', name, known)}.csv")
