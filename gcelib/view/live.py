"""Signs of life: what a notebook shows while a long computation runs.

In JupyterLab a line, and perhaps a picture or a table, is replaced in place, at most
every two seconds where it costs something to draw. Under papermill the same line stands
in the terminal (:mod:`gcelib.study.engine` puts it there), and nothing is drawn that
nobody sees. In a plain Python program the line goes to standard error.
"""

from __future__ import annotations

import datetime
import html
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcelib.study import runs, sweeps, trainer

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["SweepWatch", "TrainingWatch", "somebody_looks"]

# Seconds between two drawings of what costs time to draw.
_EVERY = 2.0

# The same under papermill, whose tables pile up in the terminal.
_EVERY_HEADLESS = 10.0


def somebody_looks() -> bool:
    """Tell whether drawings are seen before the notebook has ended.

    Returns
    -------
    bool
        False under papermill and in sweeps, which set ``GCELIB_HEADLESS``.

    Examples
    --------
    >>> import os
    >>> somebody_looks() == (not os.environ.get("GCELIB_HEADLESS"))
    True
    """
    return not os.environ.get("GCELIB_HEADLESS")


class _Shown:
    """What is replaced in place; ``kind`` says what papermill makes of it."""

    def __init__(self, kind: str) -> None:
        self._handle: Any = None
        self._last_text = ""
        if _in_a_notebook():
            from IPython.display import DisplayHandle

            make: Callable[[str], Any] = DisplayHandle  # IPython says no types
            self._handle = make(f"gcelib-{kind}-{uuid.uuid4().hex}")
            self._handle.display({"text/plain": ""}, raw=True)

    def show(self, text: str, markup: str | None = None) -> None:
        """Replace it by ``text``, in a browser by ``markup``."""
        if self._handle is None:
            if text and text != self._last_text:
                print(text, file=sys.stderr, flush=True)
            self._last_text = text
            return
        if markup is None:
            markup = html.escape(text)
        self._handle.update({"text/plain": text, "text/html": markup}, raw=True)

    def draw(self, figure: Figure) -> None:
        """Replace it by a figure; for notebooks."""
        self._handle.update(figure)


def _in_a_notebook() -> bool:
    """True in a kernel, which shows rich output."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class _Clock:
    """Lets something through at most every so many seconds."""

    def __init__(self, every: float) -> None:
        self.every = every
        self._last = -float("inf")

    def strikes(self) -> bool:
        """True if the last time was long enough ago; that was then the last time."""
        now = time.monotonic()
        if now - self._last < self.every:
            return False
        self._last = now
        return True


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(datetime.timedelta(seconds=round(seconds)))


# --- one run --------------------------------------------------------------------------


class TrainingWatch:
    """Shows how far a training run is: a line, and in JupyterLab its curves.

    Parameters
    ----------
    run_dir : path
        The run's folder.

    Examples
    --------
    >>> from gcelib import TrainConfig, fit
    >>> config = TrainConfig("digits", epochs=1, ood=[], device="cpu", runs_dir=".")
    >>> watch = TrainingWatch(config.run_dir)
    >>> for record in fit(config, watch.batch):
    ...     watch.epoch(record)
    >>> watch.close()
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)
        self._line = _Shown("progress")
        self._line.show("starting")
        draws = _in_a_notebook() and somebody_looks()
        self._curves = _Shown("curves") if draws else None
        self._steps = _Clock(1.0)
        self._drawings = _Clock(_EVERY)

    def batch(self, progress: trainer.BatchProgress) -> None:
        """Show how far the epoch is; give this to ``fit`` as ``on_batch``.

        Parameters
        ----------
        progress : BatchProgress
            What ``fit`` tells after every step.
        """
        if progress.seconds < 2 or not self._steps.strikes():
            return  # short epochs speak for themselves
        left = progress.seconds / progress.step * (progress.steps - progress.step)
        self._line.show(
            f"epoch {progress.epoch}/{progress.epochs} · "
            f"step {progress.step}/{progress.steps} · "
            f"{_duration(left)} left in this epoch"
        )

    def epoch(self, record: trainer.Record) -> None:
        """Show an epoch that has ended.

        Parameters
        ----------
        record : dict
            What ``fit`` yields.
        """
        self._line.show(trainer.progress(record))
        if self._curves is not None and self._drawings.strikes():
            from matplotlib import pyplot as plt

            from gcelib.view import plots

            axes = plots.training_curves(runs.load_history(self.run_dir))
            figure = axes[0].figure.canvas.figure  # the whole, not a part of it
            self._curves.draw(figure)
            plt.close(figure)

    def close(self) -> None:
        """Say that the run has ended, and take the moving picture away."""
        self._line.show(f"finished: {Path(*self.run_dir.parts[-4:]).as_posix()}")
        if self._curves is not None:
            self._curves.show("", "")


# --- a sweep --------------------------------------------------------------------------


class SweepWatch:
    """Shows how far a sweep is: counts, time left, and a table of the losses.

    Parameters
    ----------
    grid : str, path, dict or list
        As for ``sweeps.load_grid``.
    runs_dir : path, optional
        Parent of the runs' folders.

    Attributes
    ----------
    before : DataFrame
        ``sweeps.status`` when the watch began.

    Examples
    --------
    >>> grid = {"dataset": "digits", "loss": ["ce", "gce"], "epochs": 2}
    >>> watch = SweepWatch(grid, ".")
    >>> watch.line()
    '0 of 2 done · 0 running · 0 failed'
    """

    def __init__(self, grid: sweeps.Grid, runs_dir: str | Path | None = None) -> None:
        elsewhere = os.environ.get("DASK_SCHEDULER_ADDRESS")
        self.before = sweeps.status(grid, runs_dir, measure=not elsewhere)
        self._began = time.monotonic()
        self._began_at = time.time()
        self._states: dict[str, str] = {}
        self._epochs: dict[str, int] = {}
        for row in self.before.to_dict("records"):
            # Who else runs something now is seen when its history grows.
            state = row["state"] if row["state"] != "running" else "missing"
            self._states[row["run_dir"]] = state
            self._epochs[row["run_dir"]] = row["epoch"]
        self._line = _Shown("progress")
        self._table = _Shown("table")
        every = _EVERY if somebody_looks() else _EVERY_HEADLESS
        self._tables = _Clock(every)
        self.tick()

    def tick(self) -> None:
        """Look at the runs in progress; give this to ``sweeps.run`` as ``tick``."""
        for run_dir, state in self._states.items():
            if state in ("missing", "running"):
                self._look(run_dir)
        self._show()

    def ended(self, record: Mapping[str, Any]) -> None:
        """Take in a run that has ended.

        Parameters
        ----------
        record : dict
            What ``sweeps.run`` yields.
        """
        if record["state"] != "skipped":
            self._states[record["run_dir"]] = record["state"]
            self._show()

    def close(self) -> None:
        """Show how it ended."""
        self._tables = _Clock(0)
        self._show()

    def _look(self, run_dir: str) -> None:
        """Notice a run that has begun, and count its epochs."""
        for name in ("run.ipynb", "history.jsonl"):
            path = Path(run_dir, name)
            try:
                changed = path.stat().st_mtime
            except OSError:
                continue
            if changed < self._began_at:
                continue
            self._states[run_dir] = "running"
            if name == "history.jsonl" and path.is_file():
                self._epochs[run_dir] = len(path.read_bytes().splitlines())

    def line(self) -> str:
        """Return the counts and the time left, in one line.

        Returns
        -------
        str
            The time left is true for the pace since the watch began.
        """
        states = list(self._states.values())
        parts = [f"{states.count('done')} of {len(states)} done"]
        parts += [f"{states.count(name)} {name}" for name in ("running", "failed")]
        parts += self._runs_in_progress()
        left = self._seconds_left()
        if left:
            parts.append(f"{_duration(left)} left")
        return " · ".join(parts)

    def _runs_in_progress(self) -> list[str]:
        """Which runs are in which epoch; the first three of them."""
        table = self.before.set_index("run_dir")
        running = [d for d, state in self._states.items() if state == "running"]
        words = []
        for run_dir in running[:3]:
            row = table.loc[run_dir]
            epochs = f"{self._epochs[run_dir]}/{row['epochs']}"
            words.append(f"{row['loss']} seed {row['seed']} epoch {epochs}")
        return words

    def _seconds_left(self) -> float | None:
        """What the rest takes at the pace so far; None before there is one."""
        table = self.before
        work = table["left"]
        if work.isna().any():  # no estimate: an epoch is an epoch
            work = (table["epochs"] - table["epoch"]).where(table["state"] != "done", 0)
        done = 0.0
        left = 0.0
        for row, seconds in zip(table.to_dict("records"), work, strict=True):
            run_dir = row["run_dir"]
            epochs_then = row["epoch"]  # finished when the watch began
            epochs_since = self._epochs[run_dir] - epochs_then
            part = epochs_since / max(1, row["epochs"] - epochs_then)
            if self._states[run_dir] in ("done", "failed"):
                part = 1.0
            done += part * seconds
            left += (1 - part) * seconds
        if not done or not left:
            return None
        return (time.monotonic() - self._began) * left / done

    def table(self) -> pd.DataFrame:
        """Return how many runs of each setting and loss are done.

        Returns
        -------
        DataFrame
            Texts such as "3 of 10"; a row for each data set, model and variant, a
            column for each loss.
        """
        table = self.before
        done = table["run_dir"].map(self._states) == "done"
        kind = ["dataset", "model", "variant", "loss"]
        groups = table.assign(done=done).groupby(kind, sort=False)["done"]
        counts = groups.sum().astype(str) + " of " + groups.size().astype(str)
        return counts.unstack("loss").fillna("")[list(table["loss"].unique())]

    def _show(self) -> None:
        """Show the line, and the table if it is time."""
        self._line.show(self.line())
        if self._tables.strikes():
            table = self.table()
            self._table.show(table.to_string(), table.to_html(border=0))
