"""Many runs: each combination of a grid is one execution of a training notebook.

:func:`load_grid` reads what a grid says, :func:`expand` makes its runs of it and checks
them, :func:`status` tells how far they are, :func:`run` runs what is missing.

What is done is read from the run folders alone, so a sweep may be killed, repeated, or
run twice at the same time. Runs are executed by papermill: on this machine in processes
of :mod:`gcelib.study.warm`, which open no port, or on the workers of a Dask cluster.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from gcelib import _check
from gcelib.study import files, functions, networks, runs, warm

if TYPE_CHECKING:
    import pandas as pd
    import yaml
    from distributed import Client

    from gcelib.study.config import Settings
    from gcelib.study.trainer import TrainConfig

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

#: Where the lessons and their grids are.
NOTEBOOKS: Path = runs.PROJECT / "notebooks"

#: What may be given as a grid: a name in ``notebooks/grids``, the path of a YAML file,
#: a dict of parameters and values, or a list of these.
Grid = str | Path | Mapping[str, Any] | Sequence[Any]

# Held by whoever executes a run's notebook, from before its start to its end; the run's
# own lock is held by ``fit`` alone.
_LOCK = ".sweep.lock"

# Seconds that a run's folder may be held by a process that is about to end, such as a
# killed worker's, before the run counts as somebody else's.
_PATIENCE = 30.0

# Seconds without any worker after which a Dask scheduler's silence is explained.
_LONELY = 10.0


class Cell(NamedTuple):
    """One run of a grid.

    Attributes
    ----------
    given : dict
        The notebook's parameters, as the grid gives them.
    config : TrainConfig
        What they mean.
    """

    given: dict[str, Any]
    config: TrainConfig


# --- grids ----------------------------------------------------------------------------


def load_grid(grid: Grid) -> list[dict[str, Any]]:
    """Read what a grid says, without checking its parameters.

    Parameters
    ----------
    grid : str, path, dict or list
        A name in ``notebooks/grids``, a YAML file, a dict (parameter -> value or list
        of values), or a list of these.

    Returns
    -------
    list of dict
        The dicts that the grid is made of. Each means all combinations of its lists.

    Raises
    ------
    ValueError, TypeError
        For an unknown name (did you mean), a file that is not a grid, an empty grid;
        the message begins with ``grid``.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> load_grid("smoke")[0]["loss"]
    ['ce', 'gce']
    """
    if isinstance(grid, Mapping) and grid:
        return [dict(grid)]
    if isinstance(grid, (list, tuple)) and grid:
        return [part for item in grid for part in load_grid(item)]
    if not isinstance(grid, (str, Path)):
        _check.fail(
            "grid",
            f"cannot be {grid!r}",
            "give a name, a YAML file, a dict or a list of these",
            TypeError,
        )
    if Path(grid).suffix in (".yaml", ".yml"):
        return _read_grid(Path(grid))
    names = sorted(path.stem for path in (NOTEBOOKS / "grids").glob("*.yaml"))
    name = _check.choice("grid", str(grid), names)
    return _read_grid(NOTEBOOKS / "grids" / f"{name}.yaml")


def _read_grid(path: Path) -> list[dict[str, Any]]:
    """Read a grid from a YAML file."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            content = _yaml_loader()(file).get_single_data()
        if not content:
            _check.fail("grid", f"{path} is empty", "write parameters and their values")
        return load_grid(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        _check.fail("grid", f"{path}: {error}", "mend the file")


@functools.cache
def _yaml_loader() -> type[yaml.SafeLoader]:
    """YAML's safe reader, made to understand ``1e-3`` and to refuse a key twice.

    It also refuses numbers that only YAML 1.1 takes for others: ``010`` (8) and
    ``1:30`` (90).
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads grids."""

        def construct_mapping(
            self, node: yaml.MappingNode, deep: bool = False
        ) -> dict[Hashable, Any]:
            """Make a dict, unless one of its keys is there twice."""
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue  # refused below
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value!r} is there twice",
                        problem_mark=key.start_mark,
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

        def number(self, node: yaml.ScalarNode) -> float:
            """Make a number, unless people would read another one."""
            is_whole = node.tag.endswith(":int")
            made = self.construct_yaml_int if is_whole else self.construct_yaml_float
            value: float = made(node)
            text = node.value.replace("_", "")
            is_octal = re.fullmatch(r"[-+]?0[0-7]+", text) and int(text) != value
            if ":" in text or is_octal:
                raise yaml.MarkedYAMLError(
                    problem=f"{node.value!r} means {value} in YAML; write a plain "
                    "number, or a text in quotes",
                    problem_mark=node.start_mark,
                )
            return value

    for kind in ("int", "float"):
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", Loader.number)
    # YAML 1.1 takes a number without a dot, such as 1e-3, for text.
    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    first_letters = list("-+0123456789")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, first_letters)
    return Loader


def expand(grid: Grid, runs_dir: str | Path | None = None) -> dict[str, Cell]:
    """Make the runs of a grid, and check them all.

    Parameters
    ----------
    grid : str, path, dict or list
        As for :func:`load_grid`. A dict means all combinations of its lists; a value
        that is itself a list is written as a list in a list. A ``variant`` like
        ``"b{batch_size}"`` is filled in from the run's other parameters.
    runs_dir : path, optional
        Parent of the runs' folders; by default ``runs/``, or what the grid says.

    Returns
    -------
    dict
        Run folder -> :class:`Cell`, in the grid's order.

    Raises
    ------
    ValueError, TypeError
        For parameters and values that are misspelt (did you mean); for different runs
        that claim one folder; for a folder that holds another result.

    Examples
    --------
    >>> len(expand({"dataset": "digits", "loss": ["ce", "gce"], "seed": [1, 2, 3]}))
    6
    """
    cells, others = _look_into(grid, runs_dir)
    for refusal in others.values():
        raise refusal
    return cells


def _look_into(
    grid: Grid, runs_dir: str | Path | None
) -> tuple[dict[str, Cell], dict[str, ValueError]]:
    """The runs of a grid, and what is wrong where a folder holds another result."""
    from gcelib.study.data import own

    own.forget()  # a function's data may have changed since the last look
    cells: dict[str, Cell] = {}
    others: dict[str, ValueError] = {}
    claims: dict[str, dict[str, Any]] = {}
    for parameters in _combinations(grid):
        cell = _cell(parameters, runs_dir)
        settings = cell.config.resolved()
        run_dir = str(settings.run_dir)
        asked, there = _asked_and_there(cell, settings)
        if run_dir in claims:  # two runs of the grid itself
            runs.refuse_other_result(run_dir, claims[run_dir], asked, settings.defaults)
        claims[run_dir] = asked
        try:
            runs.refuse_other_result(run_dir, there, asked, settings.defaults)
        except ValueError as refusal:
            others[run_dir] = refusal
        cells[run_dir] = cell
    _tell_mixed(claims)
    _tell_twins(claims)
    return cells, others


def _asked_and_there(
    cell: Cell, settings: Settings
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What a run is asked to be, and what its folder is for: the same, if nothing."""
    asked = settings.stored()
    there = runs.stated_settings(settings.run_dir) or asked
    if cell.given.get("precision", "auto") == "auto":
        # The machine that ran it may have chosen another one than this would.
        asked["precision"] = there.get("precision", asked["precision"])
    if "data_fingerprint" in there:  # of a file that is not on this machine
        asked.setdefault("data_fingerprint", there["data_fingerprint"])
    return asked, there


#: What losses that are compared share.
_PLACE = ("dataset", "model", "variant")


def _tell_mixed(settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Warn where seeds of one loss, or losses of one setting, are of two recipes."""
    seeds: dict[Path, Mapping[str, Any]] = {}
    losses: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for run_dir, asked in settings.items():
        other = seeds.setdefault(Path(run_dir).parent, asked)
        names = {*asked, *other} - {"seed", "precision", "data_fingerprint"}
        mixed = _differing(asked, other, names)
        who = f"seeds {other['seed']} and {asked['seed']} of {asked['loss']}"
        if not mixed:
            place = tuple(str(asked[name]) for name in _PLACE)
            other = losses.setdefault(place, asked)
            mixed = _differing_losses(asked, other)
            who = f"{other['loss']} and {asked['loss']}"
        if mixed:
            _check.warn(
                f"grid: {who} on {asked['dataset']} differ in {', '.join(mixed)}: "
                "their mean or difference mixes two recipes; give each a variant"
            )
            return


def _tell_twins(settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Warn where variants are one and the same run under two names."""
    variants: dict[str, str] = {}
    for asked in settings.values():
        rest = {name: value for name, value in asked.items() if name != "variant"}
        content = json.dumps(rest, sort_keys=True, default=str)
        other = variants.setdefault(content, asked["variant"])
        if other != asked["variant"]:
            _check.warn(
                f"grid: variants {other!r} and {asked['variant']!r} have the same "
                "settings, so they are one run twice; a value that is left out, or "
                "null, is the recipe's (of clip_norm .inf means no limit)"
            )
            return


def _differing(
    one: Mapping[str, Any], other: Mapping[str, Any], names: Iterable[str]
) -> list[str]:
    """The settings of these names in which two runs differ."""
    return [name for name in sorted(names) if one.get(name) != other.get(name)]


def _differing_losses(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What two losses differ in, but for what their recipe gives to one alone."""
    from gcelib.study.alike import OF_TRAINING, as_other_losses

    apart = _differing(one, other, OF_TRAINING)
    return _differing(as_other_losses(one), as_other_losses(other), apart)


def _cell(parameters: dict[str, Any], runs_dir: str | Path | None) -> Cell:
    """One run: its parameters as a worker elsewhere needs them, and what they mean."""
    from gcelib.study.trainer import TrainConfig

    parent = runs_dir or parameters.get("runs_dir")
    config = TrainConfig(**{**parameters, "runs_dir": parent})
    config.runs_dir = os.path.abspath(config.runs_dir or "")
    given = {**parameters, "runs_dir": config.runs_dir}
    for name in ("dataset", "model"):
        if name in given:  # the user's own data and networks have whole paths there
            given[name] = getattr(config, name)
    return Cell(given, config)


def _combinations(grid: Grid) -> Iterator[dict[str, Any]]:
    """Yield the parameters of each run, variants filled in."""
    from gcelib.study.trainer import TrainConfig

    types = {field.name: field.type for field in dataclasses.fields(TrainConfig)}
    for part in load_grid(grid):
        _check.known_keys("grid", part, types)
        lists = {name: _values(name, value) for name, value in part.items()}
        for name, values in lists.items():
            for value in values:
                _check_value(name, value, types[name])
        for combination in itertools.product(*lists.values()):
            given = dict(zip(lists, combination, strict=True))
            variant = given.get("variant")
            if isinstance(variant, str) and "{" in variant:
                given["variant"] = _fill_in(variant, given)
            yield given


def _values(name: str, value: object) -> Sequence[Any]:
    """The values that a grid gives to one parameter."""
    values = value if isinstance(value, (list, tuple, range)) else [value]
    if not values:
        _check.fail(
            "grid", f"{name!r} has no values", "give it at least one, or leave it out"
        )
    return values


def _check_value(name: str, value: object, annotation: object) -> None:
    """Refuse what YAML makes of a text without quotes, and a list without its list."""
    if value is None or name == "runs_dir":
        return
    words = getattr(annotation, "__name__", "") or str(annotation)
    wants = re.split(r"\W", words)[0]  # "tuple[int, ...] | None" wants a tuple
    there = f"got {type(value).__name__} {value!r}"
    if wants == "str" and not isinstance(value, str):
        _check.fail(
            "grid",
            f"{name} must be a string, {there}",
            f'put it in quotes: {name}: "{value}"',
            TypeError,
        )
    if wants in ("list", "tuple") and not isinstance(value, (list, tuple)):
        _check.fail(
            "grid",
            f"{name} must be a list, {there}",
            f"a list means several values here, so write {name}: [[{value!r}]]",
            TypeError,
        )


def _fill_in(variant: str, given: Mapping[str, Any]) -> str:
    """``variant`` with each ``{parameter}`` replaced by its value."""

    def value(match: re.Match[str]) -> str:
        return str(given.get(match[1], match[0]))

    return re.sub(r"{(\w+)}", value, variant)


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
    cells, others = _look_into(grid, runs_dir)
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
        splits = data.load(dataset)
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
_WARNING = re.compile(r"^\S.*?:\d+: UserWarning: (.+)$", re.MULTILINE)


def _pass_on_warnings(run_dir: str, told: set[str]) -> None:
    """Warn of what a run warned of, each kind once: up to its first number."""
    for message in _warnings_in(Path(run_dir, "run.ipynb")):
        kind = re.split(r"\d", message)[0]
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
    cell = _cell(parameters, None)
    settings = cell.config.resolved()
    asked, there = _asked_and_there(cell, settings)
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
