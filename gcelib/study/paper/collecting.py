"""Finished run folders read back, with what only their logits and histories tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from gcelib import _check
from gcelib.study import decimals, runs
from gcelib.study.measuring import SPLITS, measure_further
from gcelib.study.runs import Record

#: What runs of an older version did not store; they are measured when they are read.
_FURTHER = "ts_nll_temperature"


def collect(runs_dir: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """All finished runs with what only their logits and histories tell: a row a run.

    Runs of gcelib 0.1 stored less than ``fit`` does now: of these the logits are read
    and measured, once in a process, which takes up to half a second for each.

    Parameters
    ----------
    runs_dir : path, optional
        The parent of the run folders; left out: the default one.

    Returns
    -------
    DataFrame
        The columns of ``runs.load_results``, then

        - what ``measure_further`` (``gcelib.study.measuring``) gives, where a run did
          not store it;
        - ``early_val_error``, the mean validation error of the epochs before the first
          drop of the learning rate (the lower, the faster it converges);
        - ``seconds_per_epoch``, the median over epochs without a look at the test set,
          of runs whose environment says ``"sharing": 1``, that they had their device to
          themselves (Table 6; else missing);
        - versions of torch and gcelib's commit, the day, and the ``threads`` of a
          timed run.

    Examples
    --------
    >>> collect("a folder without runs").empty
    True
    """
    found = runs.load_records(runs_dir)
    rows = [
        runs.table_row(run_dir, record) | _from_folder(run_dir, record)
        for run_dir, record in found.items()
    ]
    return pd.DataFrame(rows)


def _from_folder(run_dir: Path, record: Record) -> dict[str, Any]:
    """What one run's logits, history and environment add to its row."""
    environment = record.environment
    found: dict[str, Any] = {}
    if _FURTHER not in record.results:
        found |= _measured_now(run_dir, record)
    found |= _from_history(run_dir, environment)
    found["torch"] = environment.get("torch")
    found["commit"] = environment.get("commit")
    if "seconds_per_epoch" in found:
        found["threads"] = environment.get("threads")
    found["day"] = environment.get("started", "")[:10]
    return found


#: By run folder: which files were measured, and what came out.
_measured_before: dict[Path, tuple[object, dict[str, float]]] = {}


def _measured_now(run_dir: Path, record: Record) -> dict[str, float]:
    """What the run would store if it finished today."""
    paths = [run_dir / "logits" / f"{split}.npz" for split in SPLITS]
    changed = tuple(path.stat().st_mtime_ns for path in paths if path.exists())
    version = (changed, record.results)
    if run_dir in _measured_before:
        version_then, found_then = _measured_before[run_dir]
        if version_then == version:
            return found_then
    logits = {}
    labels = {}
    for split in SPLITS:
        scores, classes = runs.load_logits(run_dir, split)
        logits[split] = torch.from_numpy(scores)
        labels[split] = torch.from_numpy(classes)
    loss = record.settings["loss"]
    found = measure_further(loss, logits, labels, record.results)
    _measured_before[run_dir] = (version, found)
    return found


def _from_history(run_dir: Path, environment: dict[str, Any]) -> dict[str, float]:
    """Speed of learning and of the clock, from ``history.jsonl``; {} without one."""
    try:
        history = runs.load_history(run_dir)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _check.warn(f"{error}; its numbers are left out")
        return {}
    # Columns that no epoch has are missing altogether.
    columns = ["lr", "val_error", "test_error", "seconds"]
    history = history.reindex(columns=columns)
    history = history.apply(decimals.to_numeric, errors="coerce")
    found = {}
    at_first_rate = history["lr"] == history["lr"].head(1).squeeze()
    early = history["val_error"][at_first_rate].dropna().to_numpy()
    if len(early):
        found["early_val_error"] = float(np.mean(early))
    # Neither a look at the test set nor a neighbour on the processor is training.
    quiet = history["seconds"][history["test_error"].isna()].dropna().to_numpy()
    conditions = [
        (one.get("device"), one.get("threads"), one.get("sharing"))
        for one in [environment, *environment.get("earlier", [])]
    ]
    if {*conditions} == {(*conditions[0][:2], 1)} and len(quiet):
        found["seconds_per_epoch"] = float(np.median(quiet))
    return found
