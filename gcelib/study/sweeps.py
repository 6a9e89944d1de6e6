"""Many runs: each combination of a grid is one execution of a training notebook by papermill, as a task on Dask.

What is done is read from the run folders alone, so a sweep may be killed, repeated, or run twice at the same time.
"""

import contextlib
import functools
import itertools
import json
import os
import re
import sys
import time
from pathlib import Path

import cloudpickle
import pandas as pd
import torch
import yaml
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, SpecCluster, as_completed
from filelock import FileLock, Timeout

from gcelib import _check
from gcelib.study import data, runs
from gcelib.study import trainer as training

NOTEBOOKS = runs.PROJECT / "notebooks"
_LOCK = ".sweep.lock"  # a worker's, from before its notebook starts to its end; the run's own lock is the kernel's
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # with the lambda in _run: workers need not import torch


class _Loader(yaml.SafeLoader):
    """Reads ``lr: 1e-3`` as a number, which YAML 1.1 takes for text, and refuses a key that is there twice."""

    def construct_mapping(self, node, deep=False):
        for i, (key, _) in enumerate(node.value):
            if key.value in [other.value for other, _ in node.value[:i]]:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), "-+0123456789")


def load_grid(grid):
    """The dicts (parameter -> values) of ``grid``: a name in ``notebooks/grids``, a YAML file, a dict, or a list."""
    if isinstance(grid, dict) and grid:
        return [grid]
    if isinstance(grid, (list, tuple)) and grid:
        return [part for item in grid for part in load_grid(item)]
    if not isinstance(grid, (str, Path)):
        _check.fail("grid", f"cannot be {grid!r}", "give a name, a YAML file, a dict or a list of these", TypeError)
    if Path(grid).suffix not in (".yaml", ".yml"):
        names = sorted(path.stem for path in (NOTEBOOKS / "grids").glob("*.yaml"))
        grid = NOTEBOOKS / "grids" / f"{_check.choice('grid', str(grid), names)}.yaml"
    try:
        with open(grid, encoding="utf-8") as file:
            content = _Loader(file).get_single_data()
        return load_grid(content or _check.fail("grid", f"{grid} is empty", "write parameters and their values"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        _check.fail("grid", f"{grid}: {error}", "mend the file")


def expand(grid, runs_dir=None):
    """Every run of ``grid``, checked: a dict run folder -> (settings as the notebook gets them, ``TrainConfig``).

    All combinations of a dict's lists; a value that is itself a list is written as a list in a list. A ``variant`` like
    ``"b{batch_size}"`` is filled in from the other parameters. Raises ValueError or TypeError for misspelt parameters
    and values (did you mean), and for different runs that claim one folder, or a folder that holds another result.
    """
    cells, claims = {}, {}
    for part in load_grid(grid):
        _check.known_keys("grid", part, training.TrainConfig.__annotations__)
        lists = {k: v if isinstance(v, (list, tuple, range)) else [v] for k, v in part.items()}
        for name in (name for name, values in lists.items() if not values):
            _check.fail("grid", f"{name!r} has no values", "give it at least one, or leave it out")
        for combination in itertools.product(*lists.values()):
            given = dict(zip(lists, combination, strict=True))
            if "{" in (variant := str(given.get("variant"))):
                given["variant"] = re.sub(r"{(\w+)}", lambda m, g=given: str(g.get(m[1], m[0])), variant)
            config = training.TrainConfig(**given | {"runs_dir": runs_dir or given.get("runs_dir")})
            given["runs_dir"] = config.runs_dir = os.path.abspath(config.runs_dir)
            run_dir, asked = config.run_dir, config.settings()
            if run_dir not in claims and (run_dir / "config.json").exists():
                (claims[run_dir],) = runs.read_parts(run_dir / "config.json", "settings")
            there = claims.setdefault(run_dir, asked)
            if given.get("precision", "auto") == "auto":  # the machine that ran it may have chosen another one
                asked["precision"] = there.get("precision")
            runs.refuse_other_result(run_dir, there, asked)
            cells[str(run_dir)] = given, config
    return cells


def status(grid, runs_dir=None, measure=False):
    """How far ``grid`` is: a DataFrame, a row a run, read from the run folders, whoever started the runs.

    Columns: settings; state: done, running, failed (the folder holds ``failed.txt``) or missing; epoch: finished ones;
    seconds: what its training took; left: what is left of it, by the median pace of finished runs of the same data set,
    model and batch size, without any nan or, to ``measure``, by one timed step here. Start and evaluation come on top.
    """
    rows, alike = [], ["dataset", "model", "batch_size"]
    for run_dir, (_, config) in expand(grid, runs_dir).items():
        row = {name: getattr(config, name) for name in (*alike, "loss", "variant", "seed", "epochs")}
        state = "failed" if Path(run_dir, "failed.txt").exists() else "missing"
        row |= {"state": state, "epoch": 0, "seconds": float("nan"), "run_dir": run_dir}
        if runs.is_done(run_dir):
            row |= {"state": "done", "seconds": runs.read_metrics(run_dir)[2].get("train_seconds")}
        elif runs.is_running(run_dir) or runs.is_running(run_dir, _LOCK):
            row["state"] = "running"
        with contextlib.suppress(OSError):
            row["epoch"] = len(Path(run_dir, "history.jsonl").read_bytes().splitlines())
        rows.append(row)
    table = pd.DataFrame(rows)
    pace = (table.seconds / table.epochs).groupby([table[name] for name in alike]).transform("median")
    for i in table.index[pace.isna() & measure]:
        with contextlib.suppress(FileNotFoundError):  # a data set that only its user can bring
            pace[i] = _epoch_seconds(*table.loc[i, alike])
    return table.assign(left=(pace * (table.epochs - table.epoch)).where(table.state != "done", 0.0))


@functools.cache
def _epoch_seconds(dataset, model, batch_size):
    """Seconds that an epoch takes on this machine, from one timed step; for a long tail, at most."""
    if not (shape := data.SHAPES.get(data.parent(dataset))):
        splits = data.load(dataset)
        shape = len(splits.train[1]), splits.input_shape, splits.n_classes
    return 3600 * training.estimate_hours(training.TrainConfig(dataset, model, batch_size=batch_size, epochs=1), *shape)


def run(grid, notebook="03_train.ipynb", client=None, *, runs_dir=None, **local):
    """Run what is missing of ``grid``: a generator of records, one whenever a run ends.

    notebook: a path, or a name in ``notebooks/``, with the parameters of ``03_train``. client: any Dask ``Client``,
    else one of ``$DASK_SCHEDULER_ADDRESS``, else of a ``local_cluster(**local)``. Workers share the file system.
    Record: the settings, run_dir, state, seconds, error. State: skipped (it was done), done, failed (twice; the folder
    holds ``run.ipynb`` and the traceback, ``failed.txt``), running (another process has it). Closing the generator, or
    its death, stops local workers; a run loses at most the epoch it is in. Raises, before anything starts, what
    ``expand`` raises, and ValueError if a run would take more than its ``max_hours`` here.
    """
    cells, client = expand(grid, runs_dir), client or os.environ.get("DASK_SCHEDULER_ADDRESS")
    path = Path(notebook) if Path(notebook).is_file() else NOTEBOOKS / notebook
    for row in () if client else status(grid, runs_dir, measure=True).itertuples():
        if (hours := row.left / 3600) > cells[row.run_dir][1].max_hours:
            problem = f"{row.model} on {row.dataset} would take about {hours:,.0f} hours a run on this machine"
            _check.fail("grid", problem, "use a GPU, a cluster or fewer epochs, or raise max_hours")
    return _run(cells, str(path.resolve(strict=True)), client, local)


def _run(cells, path, client, local):
    todo = [run_dir for run_dir in cells if not runs.is_done(run_dir)]
    for run_dir in sorted(cells.keys() - todo):
        yield cells[run_dir][0] | {"run_dir": run_dir, "state": "skipped", "seconds": 0.0, "error": ""}
    if not todo:  # as_completed would ask for a client
        return
    with contextlib.ExitStack() as stack:
        if not isinstance(client, Client):
            cluster = client or stack.enter_context(local_cluster(**local, at_most=len(todo)))
            client = stack.enter_context(Client(cluster))
        tasks = {client.submit(lambda *a: _execute(*a), cells[d][0], d, path, pure=False, retries=1): d for d in todo}
        stack.callback(lambda: tasks and client.cancel([*tasks]))
        for task in as_completed([*tasks]):
            run_dir = tasks.pop(task)
            if task.cancelled():
                raise ConnectionError("the Dask scheduler is gone; start the sweep again: what is finished stays")
            try:
                (state, seconds), error = task.result(), ""
            except Exception as problem:  # it failed twice, or its workers died again and again
                state, seconds, error = "failed", float("nan"), str(problem)
            yield cells[run_dir][0] | {"run_dir": run_dir, "state": state, "seconds": seconds, "error": error}


def _execute(settings, run_dir, notebook, patience=30):
    """One run, on a worker: (state, seconds). The kernel of a killed worker may hold it still: wait ``patience`` s."""
    import papermill  # takes seconds, and only workers need it

    start, run_dir, failed, cwd = time.monotonic(), Path(run_dir), Path(run_dir, "failed.txt"), Path(notebook).parent
    run_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(Timeout), FileLock(run_dir / _LOCK, timeout=patience):
        with FileLock(run_dir / ".lock", timeout=patience):
            failed.unlink(missing_ok=True)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # runs.is_done would import torch
            json.loads((run_dir / "metrics.json").read_bytes())["results"]
            return "skipped", 0.0
        try:
            papermill.log.logger.setLevel("ERROR")  # it takes a parameter annotated "int | None" for unknown
            quiet = {"progress_bar": False, "store_widget_state": False, "extra_arguments": ["--log-level=CRITICAL"]}
            papermill.execute_notebook(notebook, run_dir / "run.ipynb", settings, cwd=cwd, start_timeout=300, **quiet)
            (run_dir / "metrics.json").stat()  # the proof; a notebook that ends without it has failed
        except Exception as error:
            text = re.sub(r"\x1b\[[\d;]*m", "", f"{type(error).__name__}: {error}")
            failed.write_text(text, encoding="utf-8")
            raise RuntimeError(text) from None
        return "done", round(time.monotonic() - start, 1)
    return "running", 0.0


def local_cluster(workers=None, workers_per_gpu=1, at_most=None):
    """A Dask cluster of this machine: one worker (or more) a GPU, which sees no other; without GPUs one a core.

    Workers share the cores evenly, as threads of PyTorch. It listens on the loopback only and has no dashboard.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    gpus = visible.split(",") if torch.cuda.is_available() else []
    workers = _check.number("workers", workers or len(gpus) * workers_per_gpu or CPU_COUNT, 1, integer=True)
    threads = dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"], CPU_COUNT // workers or 1)
    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "dashboard": False}
    alone, spec = here | {"nthreads": 1, "memory_limit": 0, "silence_logs": "CRITICAL"}, {}
    for i in range(min(workers, at_most or workers)):
        env = threads | ({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {})
        spec[i] = {"cls": Nanny, "options": alone | {"env": env}}
    return SpecCluster(spec, {"cls": Scheduler, "options": here}, silence_logs="CRITICAL")
