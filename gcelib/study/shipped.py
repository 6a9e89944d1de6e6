"""What comes with the project: demo runs and the tables of our results."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcelib import _check
from gcelib.study import decimals
from gcelib.study.alike import (
    OF_TRAINING,
    as_other_losses,
    setting_as_text,
    unlike_recipe,
)
from gcelib.study.data.long_tails import split_name
from gcelib.study.places import PROJECT
from gcelib.study.stored import read_result

if TYPE_CHECKING:
    import pandas as pd

    from gcelib.study.config import TrainConfig

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
        Absolute; ``<folder>/<dataset>/<model>/<loss>/seed-01`` and so on lie in it.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.

    Warns
    -----
    UserWarning
        If the reader's own runs on one data set, or on its long-tailed versions, were
        not trained alike.

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
    folder = folder.absolute()  # as in the tables of load_results
    if runs_dir is not None:
        _tell_other_recipes(folder)
    return folder


def _tell_other_recipes(folder: Path) -> None:
    """Warn of runs that were not trained alike where lessons compare their losses.

    Or data sets with a longer and a shorter tail; a variant is meant to be another one.
    """
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for run_dir in sorted(folder.glob("*/*/*/seed-0[1-3]")):
        with contextlib.suppress(OSError, ValueError):  # not finished, or damaged
            settings = dict(read_result(run_dir).settings)
            dataset, loss = settings["dataset"], settings["loss"]
            variant = settings.get("variant", "")
            family = f"{split_name(dataset)[0]} {settings['model']}"
            name = f"{loss} on {dataset}, seed {settings['seed']}"
            name = f"{name}, {variant}" if variant else name
            groups.setdefault(family, {})[name] = settings
    told = []
    for family, there in groups.items():
        alike = {name: as_other_losses(run) for name, run in there.items()}
        for setting in (*OF_TRAINING, "data_fingerprint"):
            values = {
                name: setting_as_text(run.get(setting))
                for name, run in alike.items()
                if setting == "epochs" or not run.get("variant")
            }
            (usual, _), *others = Counter(values.values()).most_common()
            if others:
                unlike = [f"{v} of {name}" for name, v in values.items() if v != usual]
                more = f", and {len(unlike) - 3} more" if len(unlike) > 3 else ""
                shown = f"{'; '.join(unlike[:3])}{more}, else {usual}"
                told.append(f"{family} in {setting} ({shown})")
        for name, run in there.items():
            if not run.get("variant"):
                unlike = unlike_recipe(run)
                told += [f"{name}: {one}" for one in unlike if one.startswith("loss_o")]
    if told:
        more = f", and {len(told) - 4} more" if len(told) > 4 else ""
        _check.warn(
            f"runs_dir: not trained alike are the runs on {'; '.join(told[:4])}{more}; "
            "what is compared then are these settings as well"
        )


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


def run_beside(config: TrainConfig, loss: str) -> Path | None:
    """Folder of a finished run with another loss that was trained as ``config`` says.

    Parameters
    ----------
    config : TrainConfig
        The run that is to be compared.
    loss : str
        The other one's loss. It has this loss's usual options.

    Returns
    -------
    Path or None
        The project's demo run, else the reader's own. None if neither was trained on
        the same data, with the same network, seed and recipe.

    Warns
    -----
    UserWarning
        If the project has such a run, but of another seed or recipe: which.

    Examples
    --------
    >>> from gcelib import TrainConfig
    >>> run_beside(TrainConfig(loss="gce"), "ce").parts[-4:]
    ('fashion_mini', 'convnet', 'ce', 'seed-01')
    """
    other = dataclasses.replace(config, loss=loss, loss_options={})
    shown = demo_run(other.dataset, other.resolved().model, loss)
    differing = [] if shown is None else _unlike(shown, config, other)
    if shown is not None and not differing:
        return shown
    with contextlib.suppress(OSError, ValueError):  # not finished, or damaged
        if not _unlike(other.run_dir, config, other):
            return other.run_dir
    if shown is not None:
        _check.warn(
            f"the project's run of {loss} is another experiment and left out: it has "
            f"{', '.join(differing)}; train {loss} with the settings of this run, and "
            "it is shown"
        )
    return None


def _unlike(run_dir: Path, config: TrainConfig, other: TrainConfig) -> list[str]:
    """What a finished run has otherwise than ``config`` and its ``other`` loss."""
    settings = read_result(run_dir).settings
    there = as_other_losses(settings)
    here = as_other_losses(config.settings())
    here["loss_options"] = other.loss_options
    return [
        f"{name} {setting_as_text(there.get(name))} (here "
        f"{setting_as_text(here.get(name))})"
        for name in ("seed", *OF_TRAINING, "data_fingerprint", "loss_options")
        if setting_as_text(there.get(name)) != setting_as_text(here.get(name))
    ]


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
    folder = _DATA / "results"
    known = sorted(path.stem for path in folder.glob("*.csv"))
    return decimals.read_csv(folder / f"{_check.choice('name', name, known)}.csv")
