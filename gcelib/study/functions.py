"""``"module:function"``: a function of the user's, found by its name."""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcelib._check import fail, warn
from gcelib._random import seeded
from gcelib.study import places
from gcelib.study.fingerprints import (
    digest_of_files,
    digest_of_module,
    digest_of_use,
    imported_files,
    is_installed,
    overrides_of,
    values_of,
)

#: What a file draws while it is imported is a part of it, the same in every process.
_SEED_OF_IMPORTS = 0
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
        return f"{places.full_path(module)}:{function}"
    file = _single_file(argument, module)
    if file is None:
        return text
    return f"{file}:{function}"


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
    is_file = place.endswith(".py")
    loaded = _from_file(argument, Path(place)) if is_file else None
    if loaded is not None:
        _tell_other_values(argument, loaded)
    module = _imported(argument, place) if loaded is None else loaded.module
    function = getattr(module, name, None)
    if not callable(function):
        fail(argument, f"{place} has no function {name!r}", _FORM)
    found: Callable[..., Any] = function
    return found if loaded is None else _among_neighbours(found, loaded)


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
        The SHA-256 of the file that the function is in, with the files of its folder or
        package that it imports; of a function in a notebook or in the script that runs,
        of its lines and of what it uses there. None for what is installed, which has a
        version.

    Raises
    ------
    ValueError
        If there is no such function.

    Examples
    --------
    >>> fingerprint("model", "json:loads")
    """
    place, _, _ = text.rpartition(":")
    if place.endswith(".py"):
        path = Path(place).expanduser()
        return digest_of_files(path, _neighbours(path), path.parent)
    function = load_function(argument, text)
    module = _imported(argument, place)
    is_running = place == "__main__" or getattr(module, "__spec__", None) is None
    return digest_of_use(function, place) if is_running else digest_of_module(module)


def values_set_in_memory(argument: str, text: str) -> list[str]:
    """List what is set in this process, though the function's files say otherwise.

    Parameters
    ----------
    argument : str
        What messages call it.
    text : str
        Any name of a data set or a network.

    Returns
    -------
    list of str
        As ``"nets.WIDTH = 3"``. Empty for what is no function, or is read from its file
        for each use.

    Raises
    ------
    ValueError
        If there is no such module.

    Examples
    --------
    >>> values_set_in_memory("model", "json:loads")
    []
    """
    place, _, _ = text.rpartition(":")
    if not is_function(text) or place.endswith(".py"):
        return []
    return overrides_of(_imported(argument, place))


def _imported(argument: str, name: str) -> types.ModuleType:
    """Import a module by its dotted name, also from the working folder."""
    with _working_folder_too():
        try:
            with seeded(_SEED_OF_IMPORTS):
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
    return None if is_installed(file) or file.suffix != ".py" else file.absolute()


# --- a file and its neighbours --------------------------------------------------------


def _neighbours(path: Path) -> list[Path]:
    """Return the files beside a file that it imports, also through each other."""
    return imported_files(path, path.parent)


@dataclass(eq=False)
class _Loaded:
    """A file as a module, and the modules beside it that it has imported."""

    path: Path
    module: types.ModuleType
    names: frozenset[str]
    beside: dict[str, types.ModuleType] = field(default_factory=dict)

    @contextlib.contextmanager
    def imports(self) -> Iterator[None]:
        """Let imports see this file's neighbours, and no others of their names."""
        folder = str(self.path.parent)
        others = _taken_out(self.names)
        sys.modules.update(self.beside)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)
            self.beside = _taken_out(self.names)
            sys.modules.update(others)


def _taken_out(names: Container[str]) -> dict[str, types.ModuleType]:
    """Take the modules of these names, and what is in them, out of Python's."""
    found = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in names
    }
    for name in found:
        del sys.modules[name]
    return found


_OWN_MODULES = "gcelib_user_"


def _tell_other_values(argument: str, loaded: _Loaded) -> None:
    """Warn where a program has set values in modules of which the files are read."""
    read = {
        Path(module.__file__): module
        for module in (loaded.module, *loaded.beside.values())
        if module.__file__
    }
    for module in [*sys.modules.values()]:
        file = getattr(module, "__file__", None)
        here = read.get(Path(file)) if isinstance(file, str) else None
        if here is None or module.__name__.startswith(_OWN_MODULES):
            continue
        said = dict(values_of(here))
        set_by_hand = [text.partition(" = ")[0] for text in overrides_of(module)]
        for name, value in values_of(module):
            is_plain = isinstance(value, (bool, int, float, str))
            is_private = name.startswith("_") or "._" in name
            is_set = f"{module.__name__}.{name}" in set_by_hand  # also (16, 16)
            if not (is_set or (is_plain and not is_private)) or name not in said:
                continue
            if said[name] != value:
                there = f"{module.__name__}.{name} is {value!r:.40}"
                warn(
                    f"{argument}: {file} is read anew, in which {name} is "
                    f"{said[name]!r:.40}, though {there} here; change the file, or "
                    "write a function for each value"
                )


#: By name, the modules made of single files.
_loaded: dict[str, _Loaded] = {}


def _from_file(argument: str, path: Path) -> _Loaded:
    """Import a file as a module of its own; a changed file is read anew.

    So are the files beside it that it imports: another file may have neighbours of the
    same names.
    """
    path = path.expanduser().absolute()
    if not path.is_file():
        fail(argument, f"there is no file {path}", _FORM)
    neighbours = _neighbours(path)
    content = digest_of_files(path, neighbours, path.parent).encode()
    digest = hashlib.sha256(bytes(path) + content).hexdigest()[:16]
    name = f"{_OWN_MODULES}{path.stem}_{digest}"
    if name in _loaded:
        return _loaded[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        fail(argument, f"{path} is no Python file", _FORM)
    module = importlib.util.module_from_spec(spec)
    beside = {file.relative_to(path.parent).parts[0] for file in neighbours}
    names = frozenset(part.removesuffix(".py") for part in beside)
    loaded = _Loaded(path, module, names)
    sys.modules[name] = module
    try:
        with loaded.imports(), seeded(_SEED_OF_IMPORTS):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        reason = f"{type(error).__name__}: {error}"
        fail(argument, f"{path} cannot be imported ({reason})", "mend the file")
    _loaded[name] = loaded
    return loaded


@functools.lru_cache(maxsize=64)  # one function has one name: caches know it by that
def _among_neighbours(
    function: Callable[..., Any], loaded: _Loaded
) -> Callable[..., Any]:
    """Return a function that finds its file's neighbours while it runs, too."""
    if not loaded.names:
        return function

    @functools.wraps(function)
    def among_neighbours(*args: object, **kwargs: object) -> object:
        with loaded.imports():
            return function(*args, **kwargs)

    return among_neighbours
