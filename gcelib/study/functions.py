"""``"module:function"``: a function of the user's, found by its name."""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gcelib._check import fail

_FORM = "write module:function, or path/to/file.py:function"


def is_function(text: str) -> bool:
    """Tell whether a text has the form ``module:function`` or ``file.py:function``.

    Parameters
    ----------
    text : str
        What a user wrote for a data set or a network.

    Returns
    -------
    bool
        Whether it is of that form; the function need not exist.

    Examples
    --------
    >>> is_function("mymodule:load"), is_function("resnet50")
    (True, False)
    """
    module, colon, function = text.rpartition(":")
    names_module = module.endswith(".py") or all(
        p.isidentifier() for p in module.split(".")
    )
    return bool(colon) and names_module and function.isidentifier()


def full_name(argument: str, text: str) -> str:
    """Write ``module:function`` so that other processes find the same function.

    A module that is a single file of the user's own is written with its path, because a
    worker or a kernel may run in another folder; what is installed keeps its name.

    Parameters
    ----------
    argument : str
        What messages call it.
    text : str
        ``module:function`` or ``file.py:function``.

    Returns
    -------
    str
        The same function, from anywhere on this machine.

    Raises
    ------
    ValueError
        If there is no such module.

    Examples
    --------
    >>> full_name("dataset", "json:loads")
    'json:loads'
    """
    module, _, function = text.rpartition(":")
    if module.endswith(".py"):
        return f"{Path(module).expanduser().absolute()}:{function}"
    file = _single_file(argument, module)
    return text if file is None else f"{file}:{function}"


def safe(text: str) -> str:
    """Turn a text into the name of a folder.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        Its letters, digits, dots and underscores; the rest as hyphens; at most 60.

    Examples
    --------
    >>> safe("timm:resnet18")
    'timm-resnet18'
    """
    kept = (c if (c.isascii() and c.isalnum()) or c in "._" else "-" for c in text)
    return "".join(kept)[:60]


def folder_name(full: str, readable: str | None = None) -> str:
    """Name a folder after a place: readable, safe, and another one for each place.

    Parameters
    ----------
    full : str
        The full name of the place.
    readable : str, optional
        What to call it; None: file and function of ``module:function``.

    Returns
    -------
    str
        ``readable`` and six digits that tell places apart.

    Examples
    --------
    >>> folder_name("/home/me/nets.py:small")
    'nets-small-aa4bba'
    """
    if readable is None:
        module, _, function = full.rpartition(":")
        readable = f"{Path(module).stem if '/' in module else module}-{function}"
    return f"{safe(readable)}-{hashlib.sha256(full.encode()).hexdigest()[:6]}"


def load_function(argument: str, text: str) -> Callable[..., Any]:
    """Import a function by its name.

    Parameters
    ----------
    argument : str
        What messages call it.
    text : str
        ``module:function``, looked up where Python does and in the working folder; or
        ``path/to/file.py:function``.

    Returns
    -------
    callable
        The function.

    Raises
    ------
    ValueError
        If the module cannot be imported or has no such function.

    Examples
    --------
    >>> load_function("dataset", "json:loads")("[1]")
    [1]
    """
    place, _, name = text.rpartition(":")
    module = _from_file(argument, Path(place)) if place.endswith(".py") else None
    if module is None:
        module = _imported(argument, place)
    function = getattr(module, name, None)
    if not callable(function):
        fail(argument, f"{place} has no function {name!r}", _FORM)
    found: Callable[..., Any] = function
    return found


def fingerprint(argument: str, text: str) -> str | None:
    """Tell one version of a user's own function from the next.

    Parameters
    ----------
    argument : str
        What messages call it.
    text : str
        As for ``load_function``.

    Returns
    -------
    str or None
        The SHA-256 of the file that the function is in; of a notebook's function, of
        its own lines. None for what is installed, which has a version.

    Raises
    ------
    ValueError
        If there is no such function.

    Examples
    --------
    >>> fingerprint("model", "json:loads")
    """
    place = text.rpartition(":")[0]
    if place.endswith(".py"):
        return hashlib.sha256(Path(place).expanduser().read_bytes()).hexdigest()
    return _digest_of_source(load_function(argument, text))


@functools.lru_cache(maxsize=64)
def _digest_of_source(function: Callable[..., Any]) -> str | None:
    """Digest the source when a function is first seen: a module is not read anew."""
    module = inspect.getmodule(function)
    file = getattr(module, "__file__", None)
    if file is not None and _is_installed(Path(file)):
        return None
    try:
        if module is None or file is None:  # of a notebook
            source = inspect.getsource(function)
        else:
            source = inspect.getsource(module)
    except (OSError, TypeError):  # compiled, or typed into a prompt
        return None
    return hashlib.sha256(source.encode()).hexdigest()


def _is_installed(file: Path) -> bool:
    """Tell whether a module is Python's own, or from a package that pip installed."""
    packages = {"site-packages", "dist-packages"} & {*file.parts}
    return bool(packages) or file.is_relative_to(Path(os.__file__).parent)


def _imported(argument: str, name: str) -> types.ModuleType:
    """Import a module by its dotted name, also from the working folder."""
    with _working_folder_too():
        try:
            return importlib.import_module(name)
        except Exception as error:  # the user's module may raise anything
            reason = f"{type(error).__name__}: {error}"
            fail(argument, f"module {name!r} cannot be imported ({reason})", _FORM)


class _working_folder_too:
    """Lets imports see the working folder for a moment, behind everything else."""

    def __enter__(self) -> None:
        self.folder = os.getcwd()
        sys.path.append(self.folder)

    def __exit__(self, *_: object) -> None:
        sys.path.remove(self.folder)


def _single_file(argument: str, name: str) -> Path | None:
    """Return the file of a module that is one file outside site-packages, else None."""
    if name in sys.modules and getattr(sys.modules[name], "__spec__", None) is None:
        return None  # __main__ of a script or a notebook
    with _working_folder_too():
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            spec = None
    if spec is None:
        fail(argument, f"there is no module {name!r}, seen from {os.getcwd()}", _FORM)
    is_package_part = "." in name or spec.submodule_search_locations is not None
    if is_package_part or not spec.has_location or spec.origin is None:
        return None
    file = Path(spec.origin)
    return None if _is_installed(file) or file.suffix != ".py" else file.absolute()


def _from_file(argument: str, path: Path) -> types.ModuleType:
    """Import a file as a module of its own; a changed file is read anew."""
    path = path.expanduser().absolute()
    if not path.is_file():
        fail(argument, f"there is no file {path}", _FORM)
    content = path.read_bytes()
    digest = hashlib.sha256(bytes(path) + content).hexdigest()[:16]
    name = f"gcelib_user_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        fail(argument, f"{path} is no Python file", _FORM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # its own neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        reason = f"{type(error).__name__}: {error}"
        fail(argument, f"{path} cannot be imported ({reason})", "mend the file")
    finally:
        sys.path.remove(str(path.parent))
    return module
