"""Many runs: each combination of a grid is one execution of a training notebook.

:func:`load_grid` reads what a grid says, :func:`expand` makes its runs of it and checks
them, :func:`status` tells how far they are, :func:`run` runs what is missing.

What is done is read from the run folders alone, so a sweep may be killed, repeated, or
run twice at the same time. Runs are executed by papermill: on this machine in processes
of :mod:`gcelib.study.warm`, which open no port, or on the workers of a Dask cluster.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from gcelib import _check
from gcelib.study import files, functions, networks, runs, warm
from gcelib.study.grids import (
    NOTEBOOKS,
    Cell,
    Grid,
    asked_and_there,
    cell_of,
    expand,
    load_grid,
    look_into,
)

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client


__all__ = [
    "NOTEBOOKS",
    "Cell",
    "Grid",
    "expand",
    "load_grid",
    "local_workers",
    "results",
    "run",
    "status",
]

# Held by whoever executes a run's notebook, from before its start to its end; the run's
# own lock is held by ``fit`` alone.
_LOCK = ".sweep.lock"

# Seconds that a run's folder may be held by a process that is about to end, such as a
# killed worker's, before the run counts as somebody else's.
_PATIENCE = 30.0

# Seconds without any worker after which a Dask scheduler's silence is explained.
_LONELY = 10.0


# --- how far it is --------------------------------------------------------------------

# Runs that are alike in these take about the same time an epoch.
_ALIKE = ["dataset", "model", "batch_size"]


def status(
    grid: Grid, runs_dir: str | Path | None = None, measure: bool = False
) -> pd.DataFrame:
    """Tell how far a grid is, by its run folders alone, whoever started the runs.

    Parameters
    ----------
    grid : str, path, dict or list
        As for :func:`load_grid`.
    runs_dir : path, optional
        As for :func:`expand`.
    measure : bool, default False
        Where no run of the kind has finished yet, time one training step here.

    Returns
    -------
    DataFrame
        A row a run. Columns: dataset, model, batch_size, loss, variant, seed, epochs;
        ``state``: done, running, failed (the folder holds ``failed.txt``), unreadable
        (the folder cannot be looked into), another (it holds the result of other
        settings, and :func:`run` would refuse it) or missing; ``epoch``: finished ones;
        ``seconds``: what training took; ``run_dir``; ``left``: seconds of training to
        come, by the median pace of finished runs of the same data set, model and batch
        size, else by the measured step, else nan. Start and evaluation come on top.

    Raises
    ------
    ValueError, TypeError
        As :func:`expand`. A damaged run folder is no reason.
    """
    cells, others = look_into(grid, runs_dir)
    return _table(cells, others, measure)


def results(grid: Grid, runs_dir: str | Path | None = None) -> pd.DataFrame:
    """Give what the finished runs of a grid have found, wherever the grid puts them.

    Parameters
    ----------
    grid : str, path, dict or list
        As for :func:`load_grid`.
    runs_dir : path, optional
        As for :func:`expand`.

    Returns
    -------
    DataFrame
        A row a run, as :func:`gcelib.runs.load_results` gives it; empty if none of the
        grid's runs has finished.

    Raises
    ------
    ValueError, TypeError
        As :func:`expand`.

    Warns
    -----
    UserWarning
        As :func:`gcelib.runs.load_results`.

    Examples
    --------
    >>> grid = {"dataset": "digits", "loss": ["ce", "gce"]}
    >>> len(results(grid, "a folder without runs"))
    0
    """
    import pandas as pd

    cells = expand(grid, runs_dir)
    # Above data set, network, loss and seed.
    folders = dict.fromkeys(Path(run_dir).parents[3] for run_dir in cells)
    there = pd.concat([runs.load_results(folder) for folder in folders])
    if there.empty:
        return there
    return there[there["run_dir"].isin(list(cells))].reset_index(drop=True)


def _table(
    cells: Mapping[str, Cell], others: Mapping[str, ValueError], measure: bool
) -> pd.DataFrame:
    """The table of :func:`status`; ``others`` are folders of another result."""
    import pandas as pd

    rows = []
    for run_dir, cell in cells.items():
        names = (*_ALIKE, "loss", "variant", "seed", "epochs")
        row = {name: getattr(cell.config, name) for name in names}
        try:
            row |= _look(run_dir)
            if run_dir in others:
                row |= {"state": "another", "epoch": 0, "seconds": math.nan}
        except (OSError, ValueError, TypeError, RuntimeError):
            row |= {"state": "unreadable", "epoch": 0, "seconds": math.nan}
        rows.append(row | {"run_dir": run_dir})
    table = pd.DataFrame(rows)
    kinds = [table[name] for name in _ALIKE]
    pace = (table["seconds"] / table["epochs"]).groupby(kinds).transform("median")
    if measure:
        for index in table.index[pace.isna()]:
            # A data set that only its user can bring cannot be timed.
            with contextlib.suppress(FileNotFoundError):
                pace[index] = _epoch_seconds(*table.loc[index, _ALIKE])
    left = pace * (table["epochs"] - table["epoch"])
    return table.assign(left=left.where(table["state"] != "done", 0.0))


def _look(run_dir: str) -> dict[str, Any]:
    """State, finished epochs and seconds of training of one run folder."""
    seconds = math.nan
    if runs.is_done(run_dir):
        state = "done"
        with contextlib.suppress(KeyError):
            seconds = runs.read_result(run_dir).results["train_seconds"]
    elif runs.is_running(run_dir) or runs.is_running(run_dir, _LOCK):
        state = "running"
    elif Path(run_dir, "failed.txt").exists():
        state = "failed"
    else:
        state = "missing"
    return {"state": state, "epoch": _finished_epochs(run_dir), "seconds": seconds}


def _finished_epochs(run_dir: str) -> int:
    """Lines of the run's history; 0 if it has none that can be read."""
    path = Path(run_dir, "history.jsonl")
    with contextlib.suppress(OSError, ValueError):
        return len(files.read_bytes(path, files.HISTORY_BYTES).splitlines())
    return 0


@functools.cache
def _epoch_seconds(dataset: str, model: str, batch_size: int) -> float:
    """Seconds an epoch takes on this machine, by one timed step; of a tail, at most."""
    from gcelib.study import data, trainer

    shape = data.source_of(dataset).size
    if shape is None:
        splits = data.load_as_described(dataset)
        shape = data.Size(len(splits.train[1]), splits.input_shape, splits.n_classes)
    config = trainer.TrainConfig(dataset, model, batch_size=batch_size, epochs=1)
    return 3600 * trainer.estimate_hours(config, *shape)


# --- running what is missing ----------------------------------------------------------


def run(
    grid: Grid,
    notebook: str | Path = "03_train.ipynb",
    client: Client | warm.Workers | str | None = None,
    *,
    runs_dir: str | Path | None = None,
    workers: int | None = None,
    workers_per_gpu: int = 1,
    tick: Callable[[], object] | None = None,
    every: float = 2.0,
) -> Iterator[dict[str, Any]]:
    """Run what is missing of a grid, and tell of each run when it ends.

    Parameters
    ----------
    grid : str, path, dict or list
        As for :func:`load_grid`.
    notebook : path, default "03_train.ipynb"
        A path, or a name in ``notebooks/``; with the parameters of ``03_train``.
    client : Client, Workers or str, optional
        Where the runs go: a Dask ``Client``, the address of a Dask scheduler, or
        :func:`local_workers`. By default to the scheduler that
        ``$DASK_SCHEDULER_ADDRESS`` names, else to workers of this machine. Dask's
        workers share this file system.
    runs_dir : path, optional
        As for :func:`expand`.
    workers, workers_per_gpu : int, optional
        As for :func:`local_workers`.
    tick : callable, optional
        Called without arguments while runs are in progress, for a table that moves.
    every : float, default 2.0
        Seconds between two ticks.

    Yields
    ------
    dict
        The run's parameters, then ``run_dir``, ``state``, ``seconds`` and ``error``.
        State: skipped (it was done), done, failed (twice; the folder holds
        ``run.ipynb`` and the reason in ``failed.txt``) or running (another process has
        it).

    Raises
    ------
    ValueError, TypeError
        Before anything starts: as :func:`expand`; because a run would take more than
        its ``max_hours`` here; or because this process has set numbers or texts in the
        package of an own network or data set, which others read as its files say.
    ConnectionError
        If the Dask scheduler goes away.

    Notes
    -----
    Closing the generator, or the death of this process, stops local workers; a run
    loses at most the epoch it is in, and goes on from there when the sweep is repeated.
    """
    cells = expand(grid, runs_dir)
    _refuse_what_is_set_in_memory(cells)
    where = client or os.environ.get("DASK_SCHEDULER_ADDRESS")
    path = Path(notebook) if Path(notebook).is_file() else NOTEBOOKS / notebook
    path = path.resolve(strict=True)
    if where is None or isinstance(where, warm.Workers):
        _refuse_what_takes_days(cells)
    if where is None:
        where = local_workers(workers, workers_per_gpu)
    return _run(cells, str(path), where, _Ticker(tick, every))


def _refuse_what_is_set_in_memory(cells: Mapping[str, Cell]) -> None:
    """Refuse networks and data that the sweep's processes would read otherwise."""
    models: dict[str, None] = {}
    datasets: dict[str, None] = {}
    for run_dir, cell in cells.items():
        if not runs.is_done(run_dir):
            models[str(cell.config.model)] = None
            datasets[str(cell.config.dataset)] = None
    found = [networks.values_set_in_memory(name) for name in models]
    found += [functions.values_set_in_memory("dataset", name) for name in datasets]
    values = sorted({value for values in found for value in values})
    if values:
        _check.fail(
            "grid",
            f"{', '.join(values[:3])} is set in this process alone; those of a sweep "
            "read what the file says",
            "write the value into the file, or a function for each value",
        )


def _refuse_what_takes_days(cells: Mapping[str, Cell]) -> None:
    """Refuse runs that would take longer on this machine than they may."""
    table = _table(cells, {}, measure=True)
    for run_dir, seconds in zip(table["run_dir"], table["left"], strict=True):
        config = cells[run_dir].config
        hours = seconds / 3600
        if hours > config.max_hours:
            _check.fail(
                "grid",
                f"{config.model} on {config.dataset} would take about {hours:,.0f} "
                "hours a run on this machine",
                "use a GPU, a cluster or fewer epochs, or raise max_hours",
            )


class _Ticker:
    """Calls a function now and then; the sweep waits in steps of ``every`` seconds."""

    def __init__(self, function: Callable[[], object] | None, every: float) -> None:
        self.function = function
        self.every = _check.number("every", every, 0, open_low=True)

    def __call__(self) -> None:
        """Tell that the time is up."""
        if self.function is not None:
            self.function()


def _run(
    cells: Mapping[str, Cell],
    notebook: str,
    where: Client | warm.Workers | str,
    tick: _Ticker,
) -> Iterator[dict[str, Any]]:
    """Yield the records of :func:`run`."""
    todo = [run_dir for run_dir in cells if not runs.is_done(run_dir)]
    for run_dir in cells:
        if run_dir not in todo:
            yield _record(cells, run_dir, "skipped", 0.0, "")
    if not todo:  # then nothing is started, and no scheduler is asked
        return
    if isinstance(where, warm.Workers):
        ended = _on_this_machine(cells, todo, notebook, where, tick)
    else:
        ended = _on_dask(cells, todo, notebook, where, tick)
    models = {str(cells[run_dir].config.model) for run_dir in todo}
    expected = {model: networks.fingerprint(model) for model in models}
    told: set[str] = set()
    for run_dir, state, seconds, error in ended:
        if state == "done":
            _pass_on_warnings(run_dir, told)
        fingerprint = expected[str(cells[run_dir].config.model)]
        if state == "done" and not _is_of(run_dir, fingerprint):
            state = "failed"
            error = (
                "the run has trained another network than this process has: what is "
                "set in memory, or was edited since, is not what a sweep's processes "
                "read; write it into the file, or a function for each"
            )
        yield _record(cells, run_dir, state, seconds, error)


#: Kinds of warnings of runs that a sweep passes on; all are in their notebooks.
_MOST_TOLD = 5
_NOTEBOOK_BYTES = 2**27
#: A number that is no part of a name, such as a network's.
_NUMBER = re.compile(r"(?<![\w./\\-])[-+]?\d[\d.,]*(?:e[-+]?\d+)?\b(?![/\\-])")
_WARNING = re.compile(r"^\S.*?:\d+: UserWarning: (.+)$", re.MULTILINE)


def _pass_on_warnings(run_dir: str, told: set[str]) -> None:
    """Warn of what a run warned of, each kind once, whatever the numbers in it."""
    for message in _warnings_in(Path(run_dir, "run.ipynb")):
        kind = _NUMBER.sub("n", message.replace(run_dir, ""))
        if kind not in told and len(told) < _MOST_TOLD:
            _check.warn(f"{run_dir}: {message}")
            told.add(kind)


def _warnings_in(notebook: Path) -> Iterator[str]:
    """Yield the warnings that an executed notebook shows."""
    try:
        cells = runs.read_json(notebook, _NOTEBOOK_BYTES)["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        for output in outputs:
            if output.get("name") == "stderr":
                yield from _WARNING.findall("".join(output["text"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # no notebook of ours: then nothing is known


def _is_of(run_dir: str, fingerprint: str | None) -> bool:
    """Whether a run says that it trained this network, if it says anything of it."""
    there = (runs.stated_settings(run_dir) or {}).get("model_fingerprint")
    return there is None or fingerprint is None or there == fingerprint


def _record(
    cells: Mapping[str, Cell], run_dir: str, state: str, seconds: float, error: str
) -> dict[str, Any]:
    """One of the records that :func:`run` yields."""
    how = {"run_dir": run_dir, "state": state, "seconds": seconds, "error": error}
    return cells[run_dir].given | how


_Ended = tuple[str, str, float, str]  # run folder, state, seconds, error


def _on_this_machine(
    cells: Mapping[str, Cell],
    todo: list[str],
    notebook: str,
    workers: warm.Workers,
    tick: _Ticker,
) -> Iterator[_Ended]:
    """Execute runs in processes of this machine; each that fails gets a second try."""
    waiting = deque(todo)
    failed_once: set[str] = set()
    with workers:
        while waiting or workers.busy:
            while waiting and workers.idle:
                run_dir = waiting.popleft()
                function = f"{__name__}:execute"
                workers.start(
                    run_dir, function, cells[run_dir].given, run_dir, notebook
                )
            reply = workers.wait(tick.every)
            if reply is None:
                tick()
            elif not reply.error:
                state, seconds = reply.value
                yield reply.name, state, seconds, ""
            elif reply.name in failed_once:
                yield reply.name, "failed", math.nan, reply.error
            else:
                _check.warn(f"{reply.name}: failed, is tried again: {reply.error}")
                failed_once.add(reply.name)
                waiting.append(reply.name)


def _on_dask(
    cells: Mapping[str, Cell],
    todo: list[str],
    notebook: str,
    where: Client | str,
    tick: _Ticker,
) -> Iterator[_Ended]:
    """Execute runs on the workers of a Dask cluster, which try again what fails."""
    from distributed import Client

    with contextlib.ExitStack() as stack:
        client = where if isinstance(where, Client) else None
        if client is None:
            connect: Callable[..., Client] = Client  # distributed says no types
            client = stack.enter_context(connect(where))
        tasks = {}
        for run_dir in todo:
            arguments = (cells[run_dir].given, run_dir, notebook)
            task = client.submit(_on_worker, *arguments, pure=False, retries=1)
            tasks[task] = run_dir
        stack.callback(_cancel, client, tasks)
        started = time.monotonic()
        told = False
        while tasks:
            ended = _wait_for_some([*tasks], tick)
            if not ended and not told and time.monotonic() - started > _LONELY:
                told = _tell_if_lonely(client)
            for task in ended:
                yield _result_of(task, tasks.pop(task))


class _Task(Protocol):
    """What is used of Dask's Future, which says no types."""

    def cancelled(self) -> bool:
        """Whether it will never end."""

    def result(self) -> tuple[str, float]:
        """State and seconds of the run; raises what the run raised."""


def _result_of(task: _Task, run_dir: str) -> _Ended:
    """How a run ended on the cluster."""
    if task.cancelled():
        raise ConnectionError(
            "the Dask scheduler is gone; start the sweep again: what is finished stays"
        )
    try:
        state, seconds = task.result()
    except Exception as problem:  # twice, or its workers died again and again
        return run_dir, "failed", math.nan, str(problem)
    return run_dir, state, seconds, ""


def _cancel(client: Client, tasks: Mapping[Any, str]) -> None:
    """Cancel what has not ended when the sweep stops."""
    if tasks:
        cancel: Callable[..., object] = client.cancel  # distributed says no types
        cancel([*tasks])


def _wait_for_some(tasks: list[Any], tick: _Ticker) -> list[Any]:
    """The tasks that have ended; none, after a tick, if none ends for a while."""
    from distributed import wait
    from distributed.client import FuturesCancelledError

    wait_for: Callable[..., object] = wait  # distributed says no types
    try:
        wait_for(tasks, timeout=tick.every, return_when="FIRST_COMPLETED")
    except TimeoutError:
        tick()
    except FuturesCancelledError:
        pass  # the caller finds out
    return [task for task in tasks if task.done()]


def _tell_if_lonely(client: Client) -> bool:
    """Warn that the scheduler has no workers; True if that is so."""
    if client.scheduler_info(n_workers=-1)["workers"]:
        return False
    address = client.scheduler.address if client.scheduler else "?"
    _check.warn(
        f"the Dask scheduler at {address} has no workers, so nothing runs; start some "
        f"(dask worker {address} --nthreads 1), or stop here: nothing is lost"
    )
    return True


# --- one run, where it is executed ----------------------------------------------------


def execute(
    settings: dict[str, Any],
    run_dir: str,
    notebook: str,
    patience: float = _PATIENCE,
) -> tuple[str, float]:
    """Execute one run in this process, which must have nothing else to do.

    Parameters
    ----------
    settings : dict
        The notebook's parameters.
    run_dir : str
        The run's folder.
    notebook : str
        The notebook's path.
    patience : float, default 30
        Seconds to wait for another process that holds the run.

    Returns
    -------
    state : str
        done, skipped (somebody has finished it meanwhile) or running (another process
        has it).
    seconds : float
        How long it took.

    Raises
    ------
    RuntimeError
        If the notebook fails; the reason is in ``failed.txt``, too.
    """
    from filelock import FileLock, Timeout

    start = time.monotonic()
    folder = Path(run_dir)
    runs.make_folder(folder)
    try:
        with FileLock(folder / _LOCK, timeout=patience):
            with FileLock(folder / ".lock", timeout=patience):
                (folder / "failed.txt").unlink(missing_ok=True)
            was_done = runs.is_done(folder)
            try:
                if not was_done:
                    _execute_notebook(settings, folder, notebook)
                _refuse_what_was_not_asked(settings)
            except Exception as error:
                _note_failure(folder, error)
    except Timeout:
        return "running", 0.0
    if was_done:
        return "skipped", 0.0
    return "done", round(time.monotonic() - start, 1)


def _execute_notebook(settings: dict[str, Any], folder: Path, notebook: str) -> None:
    """Let papermill execute the notebook in this process."""
    import papermill

    from gcelib.study import papermill_plugin

    papermill_plugin.register()
    # It takes a parameter annotated "int or None" for unknown, and says so each time.
    papermill.log.logger.setLevel("ERROR")
    papermill.execute_notebook(
        notebook,
        folder / "run.ipynb",
        settings,
        engine_name="gcelib",
        cwd=Path(notebook).parent,
        progress_bar=False,
    )
    if not runs.is_done(folder):
        raise FileNotFoundError(
            f"{folder / 'metrics.json'}: the notebook has ended without it"
        )


def _refuse_what_was_not_asked(parameters: dict[str, Any]) -> None:
    """Refuse a result of a notebook that did not pass its parameters on."""
    cell = cell_of(parameters, None)
    settings = cell.config.resolved()
    asked, there = asked_and_there(cell, settings)
    try:
        runs.refuse_other_result(settings.run_dir, there, asked, settings.defaults)
    except ValueError as refusal:
        problem = "the run is not what the grid asks: let the notebook pass each "
        problem += "parameter to TrainConfig, and the grid name its own defaults"
        raise ValueError(f"{problem}; {refusal}") from None


def _note_failure(folder: Path, error: Exception) -> NoReturn:
    """Keep the reason in ``failed.txt`` and raise it, without a terminal's colours."""
    text = re.sub(r"\x1b\[[\d;]*m", "", f"{type(error).__name__}: {error}")
    (folder / "failed.txt").write_text(text, encoding="utf-8")
    raise RuntimeError(text) from None


@functools.cache
def _workers_of_this_thread(thread: int) -> warm.Workers:
    """One warm worker for a thread of a Dask worker; it ends with the worker.

    The cache knows it by the thread's number.
    """
    return warm.Workers([{}])


def _on_worker(
    settings: dict[str, Any], run_dir: str, notebook: str
) -> tuple[str, float]:
    """Execute one run from a Dask worker, which itself stays small."""
    import threading

    workers = _workers_of_this_thread(threading.get_ident())
    workers.start(run_dir, f"{__name__}:execute", settings, run_dir, notebook)
    reply = None
    while reply is None:
        reply = workers.wait()
    if reply.error:
        raise RuntimeError(reply.error)
    state, seconds = reply.value
    return state, seconds


def local_workers(workers: int | None = None, workers_per_gpu: int = 1) -> warm.Workers:
    """Workers of this machine: one, or more, for each GPU, which sees no other.

    Without GPUs it is one for each core. They share the cores evenly, as threads of
    PyTorch, and open no port.

    Parameters
    ----------
    workers : int, optional
        How many runs at a time.
    workers_per_gpu : int, default 1
        How many on each GPU, if ``workers`` does not say.

    Returns
    -------
    Workers
        For ``run(..., client=...)``. They start with the first run, and end with the
        sweep.

    Raises
    ------
    ValueError, TypeError
        If a number is not a whole number from 1.

    Examples
    --------
    >>> len(local_workers(3).environments)
    3
    """
    import torch
    from dask.system import CPU_COUNT

    gpus: list[str] = []
    if torch.cuda.is_available():
        numbers = ",".join(map(str, range(torch.cuda.device_count())))
        gpus = (os.environ.get("CUDA_VISIBLE_DEVICES") or numbers).split(",")
    per_gpu = _check.number("workers_per_gpu", workers_per_gpu, 1, integer=True)
    if workers is None:
        workers = len(gpus) * int(per_gpu) or CPU_COUNT
    count = _check.number("workers", workers, 1, integer=True)
    # Runs record how many share their device: Table 6 counts those that were alone.
    sharing = math.ceil(count / len(gpus)) if gpus else count
    environments = [{"GCELIB_SHARING": str(sharing)} for _ in range(count)]
    if gpus:
        for index, environment in enumerate(environments):
            environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return warm.Workers(environments, threads=max(1, CPU_COUNT // count))
