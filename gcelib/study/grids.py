"""What a grid says: every combination of its values is a run.

:func:`load_grid` reads it, :func:`expand` makes its runs and checks them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gcelib import _check
from gcelib.study import runs

if TYPE_CHECKING:
    import yaml

    from gcelib.study.config import Settings
    from gcelib.study.trainer import TrainConfig

#: Where the lessons and their grids are.
NOTEBOOKS: Path = runs.PROJECT / "notebooks"

#: What may be given as a grid: a name in ``notebooks/grids``, the path of a YAML file,
#: a dict of parameters and values, or a list of these.
Grid = str | Path | Mapping[str, Any] | Sequence[Any]


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
    cells, others = look_into(grid, runs_dir)
    for refusal in others.values():
        raise refusal
    return cells


def look_into(
    grid: Grid, runs_dir: str | Path | None
) -> tuple[dict[str, Cell], dict[str, ValueError]]:
    """The runs of a grid, and what is wrong where a folder holds another result."""
    from gcelib.study.data import own

    own.forget()  # a function's data may have changed since the last look
    cells: dict[str, Cell] = {}
    others: dict[str, ValueError] = {}
    claims: dict[str, dict[str, Any]] = {}
    for parameters in _combinations(grid):
        cell = cell_of(parameters, runs_dir)
        settings = cell.config.resolved()
        run_dir = str(settings.run_dir)
        asked, there = asked_and_there(cell, settings)
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


def asked_and_there(
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


def cell_of(parameters: dict[str, Any], runs_dir: str | Path | None) -> Cell:
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
