"""What papermill hands to a notebook, checked before any work."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Sequence

from gcelib._check import did_you_mean


class BadParameter(ValueError):
    """A parameter that a notebook was given and cannot use.

    A notebook shows the sentence without a traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Give IPython the lines that it shows."""
        return [f"{type(self).__name__}: {self}"]


def check_parameters(cells: Sequence[str], settings: type | None = None) -> None:
    r"""Refuse parameters that the notebook does not have, or whose type is another.

    papermill only logs an unknown ``-p`` and runs on with the default; a notebook calls
    this in the cell after its parameters. Its own names and types are read from its
    parameters cell (``seed: int = 1``; ``lr: "float or None" = None``, since papermill
    cannot read ``|``), those given from papermill's injected cell, which starts with
    ``# Parameters``.

    Parameters
    ----------
    cells : sequence of str
        IPython's ``In``: the sources of the cells that ran.
    settings : dataclass, optional
        Its fields may be given as well, such as those of ``TrainConfig`` of which the
        parameters cell does not speak.

    Raises
    ------
    BadParameter
        Names the parameter and the nearest known one, or the type that it must have.

    Examples
    --------
    >>> check_parameters(["", "seed: int = 1", "# Parameters\nseed = 2"])
    >>> check_parameters(["", "seed: int = 1", "# Parameters\nseeds = 2"])
    Traceback (most recent call last):
        ...
    gcelib.study.parameters.BadParameter: unknown parameter 'seeds': ...
    """
    injected = next(
        (
            index
            for index, source in enumerate(cells)
            if source.lstrip().startswith("# Parameters\n")
        ),
        0,
    )
    if not injected:
        return
    own = _fields(settings) | _declared(cells[injected - 1])
    for node in ast.parse(cells[injected]).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            _check_one(node.targets[0].id, node.value, own)


def _declared(source: str) -> dict[str, str]:
    """Give the names of a parameters cell and the types that they are said to have."""
    return {
        node.target.id: ast.unparse(node.annotation).strip("'")
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _fields(settings: type | None) -> dict[str, str]:
    """Give the names of a dataclass's fields and their types."""
    if settings is None:
        return {}
    return {
        field.name: inspect.formatannotation(field.type)
        for field in dataclasses.fields(settings)
    }


#: What papermill writes for .inf in YAML.
_NO_LIMIT = "float('inf')"


def _check_one(name: str, given: ast.expr, own: dict[str, str]) -> None:
    """Refuse one given parameter, if it is unknown or has another type."""
    if name not in own:
        if name.startswith("PAPERMILL_"):  # papermill's own, of its --inject-paths
            return
        raise BadParameter(f"unknown parameter {name!r}: {did_you_mean(name, own)}")
    asked = f"parameter {name!r} must be {own[name]}"
    allowed = [kind.split("[")[0] for kind in re.split(r" or | \| ", own[name])]
    if ast.unparse(given) == _NO_LIMIT and {"float", "None"} <= {*allowed}:
        return  # a run's setting, whose range TrainConfig looks at
    try:
        value = ast.literal_eval(given)
    except ValueError:  # papermill writes float('nan')
        raise BadParameter(f"{asked}, got {ast.unparse(given)}") from None
    found = type(value).__name__.replace("NoneType", "None")
    if found in allowed or (found == "int" and "float" in allowed):
        return
    got = f"got {type(value).__name__} {value!r}"
    raise BadParameter(f"{asked}, {got}{_cure(name, value, allowed)}")


def _cure(name: str, value: object, allowed: list[str]) -> str:
    """Say how papermill is told the type that is meant."""
    if "bool" in allowed:
        return "; write True or False"
    if isinstance(value, str) and {"list", "tuple", "dict"} & {*allowed}:
        example = value if value[:1] in ("[", "{") else "[...]"
        return f"; papermill reads such values after -y: -y '{name}: {example}'"
    if "str" in allowed and isinstance(value, (int, float, bool)):
        return f"; papermill keeps text as it is after -r: -r {name} {value}"
    return ""
