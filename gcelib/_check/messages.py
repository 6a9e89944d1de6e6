"""How a refusal and a warning read, and where a warning stands."""

import contextlib
import contextvars
import difflib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import torch


def fail(
    name: str, problem: str, fix: str, error: type[Exception] = ValueError
) -> NoReturn:
    """Raise ``error`` with the house's one-line message."""
    raise error(f"{name}: {problem}; {fix}")


_OWN_FOLDERS = tuple(
    os.path.dirname(str(module.__file__)) + os.sep
    for module in (sys.modules["gcelib"], torch)
)
#: Where this thread's warnings go instead of being told.
_COLLECTED: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar(
    "collected", default=None
)


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """Collect what the block would warn of, and tell nothing of it.

    What other threads warn of is told as ever, which ``warnings.catch_warnings`` does
    not promise: it changes the filters of the whole process, and two of them that
    overlap leave the inner ones behind.
    """
    messages: list[str] = []
    token = _COLLECTED.set(messages)
    try:
        yield messages
    finally:
        _COLLECTED.reset(token)


class TellingOnce:
    """Blocks, entered one after another, of which each problem is told once.

    A network that ends in a softmax is one problem: for its loss, and for each metric
    after each calibrator, whatever its logits were divided by. So of arguments that are
    logits the first warning is told; of others each, whatever numbers are in it.

    Examples
    --------
    >>> once = TellingOnce()
    >>> with collected() as messages:
    ...     for number in (5, 6):
    ...         with once:
    ...             warn(f"labels: {number} are rare")
    >>> messages
    ['labels: 5 are rare']
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    # Not of contextlib, in whose file the warnings would stand.
    def __enter__(self) -> None:
        self._block = collected()
        self._messages = self._block.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._block.__exit__(*error)
        for message in self._messages:
            name, _, problem = message.partition(";")[0].partition(": ")
            kind = name + re.sub(r"[0-9.]+", "", problem)
            if name.endswith("logits"):
                kind = "logits"
            if kind not in self._told:
                self._told.add(kind)
                warn(message)


def warn(message: str) -> None:
    """Warn at the line of the user's own code, however deep inside gcelib the cause.

    The line is the innermost one that belongs neither to gcelib nor to torch (which
    calls a module's ``forward``): in a notebook, the line of the cell. Within
    ``collected`` nothing is told.
    """
    messages = _COLLECTED.get()
    if messages is not None:
        messages.append(message)
        return
    frame = sys._getframe(1)
    level = 2  # of the frame, as warnings.warn counts
    while frame.f_back and frame.f_code.co_filename.startswith(_OWN_FOLDERS):
        frame = frame.f_back
        level += 1
    warnings.warn(message, UserWarning, stacklevel=level)


def did_you_mean(value: object, allowed: Iterable[object]) -> str:
    """``"did you mean 'gce'? Known: ..."`` for a misspelt ``value``."""
    known = [str(a) for a in allowed]
    close = difflib.get_close_matches(str(value).lower(), known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(known)}"
