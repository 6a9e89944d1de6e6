"""Plain arguments: numbers, names, switches."""

import math
import numbers
from collections.abc import Iterable, Mapping, Set
from typing import Literal, cast, overload

import numpy as np

from gcelib._check.messages import did_you_mean, fail


def choice(name: str, value: object, allowed: Iterable[str]) -> str:
    """``value`` if it is one of the strings ``allowed``, else propose the nearest."""
    allowed = list(allowed)
    if not isinstance(value, str):
        problem = f"must be a string, got {type(value).__name__} {value!r}"
        fail(name, problem, did_you_mean(value, allowed), TypeError)
    if value not in allowed:
        fail(name, f"unknown {value!r}", did_you_mean(value, allowed))
    return value


def known_keys(name: str, given: Iterable[object], allowed: Iterable[object]) -> None:
    """Refuse keys of the mapping ``given`` that are not in ``allowed``."""
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            fail(name, f"unknown key {key!r}", did_you_mean(key, allowed))


def listed(name: str, values: object) -> list[object]:
    """The values in their order; refused where they have none, as a dict or a set."""
    if isinstance(values, (str, bytes, Mapping, Set)) or not isinstance(
        values, Iterable
    ):
        problem = f"must be a list of names, got {type(values).__name__}"
        fail(name, problem, "pass one for each class, class 0 first", TypeError)
    index = getattr(values, "index", None)  # of a Series; a list's is a method
    if isinstance(index, Iterable):
        places = [_whole_number(place) for place in index]
        counts = {*places} in ({*range(len(places))}, {*range(1, len(places) + 1)})
        if counts and places != sorted(places, key=float):
            problem = f"has the index {', '.join(map(str, [*index][:5]))}"
            problem += ", ..." if len(places) > 5 else ""
            fail(name, problem, "put class 0 first: pass it with .sort_index()")
    return list(values)


def _whole_number(value: object) -> float:
    """A number as such, also if it is text; NaN for what is none."""
    try:
        return float(value) if isinstance(value, (str, numbers.Real)) else math.nan
    except ValueError:
        return math.nan


def boolean(name: str, value: object) -> bool:
    """``value`` if it is True or False: text such as ``"false"`` is refused."""
    if not isinstance(value, (bool, np.bool_)):
        problem = f"must be True or False, got {type(value).__name__} {value!r}"
        fail(name, problem, "write it without quotes", TypeError)
    return bool(value)


@overload
def number(
    name: str,
    value: object,
    low: float = ...,
    high: float = ...,
    *,
    open_low: bool = ...,
    open_high: bool = ...,
    integer: Literal[False] = ...,
) -> float: ...


@overload
def number(
    name: str,
    value: object,
    low: float = ...,
    high: float = ...,
    *,
    open_low: bool = ...,
    open_high: bool = ...,
    integer: Literal[True],
) -> int: ...


def number(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    integer: bool = False,
) -> float:
    """``value`` as int or float if it lies between ``low`` and ``high``.

    The interval is closed unless said.
    """
    kind = numbers.Integral if integer else numbers.Real
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, kind):
        what = "a whole number" if integer else "a number"
        problem = f"must be {what}, got {type(value).__name__} {value!r}"
        fail(name, problem, "pass it as a plain number", TypeError)
    real = cast(float, value)
    below = real <= low if open_low else real < low
    above = real >= high if open_high else real > high
    try:
        finite = integer or math.isfinite(real)
    except OverflowError:  # a whole number that no float can hold
        finite = False
    if below or above or not finite:
        left = "(" if open_low else "["
        right = ")" if open_high or high == math.inf else "]"
        problem = f"{value!r} is outside {left}{low}, {high}{right}"
        fail(name, problem, "choose a value in that range")
    return int(real) if integer else float(real)
