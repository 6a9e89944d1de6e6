"""What a user's own function is made of, as one digest.

Of a function in a file: the file, and those that it imports from its own folder or
package, also through each other. Of a function in a notebook or a script that runs: its
source, and that and the values of all that it reads there, and of what those read.
What is installed counts by its name: it has a version.
"""

import argparse
import ast
import collections
import contextlib
import dis
import functools
import hashlib
import importlib.util
import inspect
import linecache
import os
import re
import sys
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from gcelib._check import fail
from gcelib.study.filling import (
    attributes_filled,
    attributes_filled_by_methods,
    names_bound,
    names_set,
)

#: Types of values that code cannot change, but only exchange.
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
#: Longer lists of a module are not compared.
_MOST_VALUES = 1_000
#: Not looked into. gcelib may lie beside it in a checkout; a run records its commit.
_OTHERS = sys.stdlib_module_names | {"gcelib"}


def is_installed(file: Path) -> bool:
    """Tell whether a module is Python's own, or from a package that pip installed.

    Parameters
    ----------
    file : Path
        Where its source lies.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_installed(Path(os.__file__)), is_installed(Path("/home/me/nets.py"))
    (True, False)
    """
    packages = {"site-packages", "dist-packages"} & {*file.parts}
    return bool(packages) or file.is_relative_to(Path(os.__file__).parent)


# --- files ----------------------------------------------------------------------------


def imported_files(path: Path, folder: Path) -> list[Path]:
    """Return the files in a folder that a file imports, also through each other.

    Parameters
    ----------
    path : Path
        A file in the folder, or in a package there.
    folder : Path
        Where its absolute imports begin.

    Returns
    -------
    list of Path
        In order; without ``path``. Of the package that ``path`` is in, what is imported
        by name; of others in the folder, all.
    """
    *packages, _ = path.relative_to(folder).parts
    seen: dict[Path, None] = {}
    waiting = [path, *_along(folder, packages)]
    while waiting:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen[file] = None
        for name in _imported_names(file, folder):
            parts = name.split(".")
            if parts[0] in packages[:1]:
                waiting += _along(folder, parts)
            elif parts[0] not in _OTHERS:
                waiting += _whole(folder, parts[0])
    return sorted(file for file in seen if file != path and file.stat().st_size)


def _along(folder: Path, parts: Sequence[str]) -> list[Path]:
    """Return the files that an import of a dotted name, in its parts, reads there."""
    files = []
    place = folder
    for part in parts:
        module, place = place / f"{part}.py", place / part
        package = place / "__init__.py"
        files.append(package if package.is_file() else module)  # as Python prefers
    return [file for file in files if file.is_file()]


def _whole(folder: Path, name: str) -> list[Path]:
    """Return the files of a package beside a file, or the one of a module."""
    package = folder / name
    module = folder / f"{name}.py"
    if not (package / "__init__.py").is_file():
        if module.is_file():
            return [module]
        if not package.is_dir() or _is_found_elsewhere(name):
            return []
    return sorted(file for file in package.rglob("*.py") if file.is_file())


def _is_found_elsewhere(name: str) -> bool:
    """Tell whether Python prefers another module to a folder without __init__.py."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # made by hand
        return True
    return spec is not None and spec.origin is not None


def _imported_names(path: Path, folder: Path) -> list[str]:
    """Return the dotted names that a file imports, relative ones written out."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # told when it is imported
        return []
    names: list[str] = []
    parents = path.relative_to(folder).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) + 1 - node.level] if node.level else ()
            start = [*above, *([node.module] if node.module else [])]
            names += [".".join([*start, alias.name]) for alias in node.names]
    return sorted({*names})


def digest_of_files(path: Path, others: Sequence[Path], folder: Path) -> str:
    """Digest a file and others; one that stands alone as it is.

    Parameters
    ----------
    path : Path
        The first file.
    others : sequence of Path
        In the folder.
    folder : Path
        Names of the others count from here.

    Returns
    -------
    str
        SHA-256, in hexadecimal digits.
    """
    digest = hashlib.sha256(path.read_bytes())
    for file in others:
        digest.update(f"\0{file.relative_to(folder).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


@dataclass(eq=False)
class _Sight:
    """A module's files as they were when it was first seen, and what ran then.

    ``files`` gives each one's own digest, ``codes`` are those in them, without flags.
    """

    files: dict[Path, str]
    digest: str
    running: list["_Running"]
    codes: set[types.CodeType]


class _Running(NamedTuple):
    """A loaded module: after a reload, or a repair in memory, it is another one."""

    module: types.ModuleType
    spec: object
    codes: list[types.CodeType]
    values: dict[str, str]

    def is_still(self, other: "_Running") -> bool:
        """Whether the other look at it has seen the same."""
        are_same = self.module is other.module and self.spec is other.spec
        return are_same and self.codes == other.codes and self.values == other.values


_first_seen: dict[types.ModuleType, _Sight] = {}


def digest_of_module(module: types.ModuleType) -> str | None:
    """Digest a module's files as they were when it was first seen: it is not read anew.

    After ``importlib.reload`` of it, or of a file that it uses, as they are then. Plain
    numbers and texts that somebody has set in it, or in such a file, count, too.

    Parameters
    ----------
    module : module
        As it was imported.

    Returns
    -------
    str or None
        None for what is installed, compiled, or has no file.

    Raises
    ------
    ValueError
        If functions of it are no longer in its files: these would not be what runs.
        Also after IPython's ``autoreload`` has repaired functions in memory: what it
        compiles is not what Python does.
    """
    if not _has_own_file(module):
        return None
    before = _first_seen.get(module)
    if before is not None and _is_running(before):
        return before.digest
    path, others, folder = _files_of(module)
    files = {file: _digest_of(file) for file in (path, *others)}
    running = _loaded_from(files)
    codes = {code for file in files for code in _codes_of_file(file)}
    for loaded in running:
        _refuse_stale(loaded.codes, codes)
    if before is not None:
        _refuse_old_modules(before, running, files)
        _refuse_names_from_before(before.running, running, folder)
    digest = digest_of_files(path, others, folder)
    overrides = _overrides([loaded.module for loaded in running])
    if overrides:
        text = "\0".join([digest, *sorted(overrides)])
        digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    _first_seen[module] = _Sight(files, digest, running, codes)
    return digest


def overrides_of(module: types.ModuleType) -> list[str]:
    """List what somebody has set in a module, or one it uses, though its file differs.

    Parameters
    ----------
    module : module
        As it was imported.

    Returns
    -------
    list of str
        As ``"nets.WIDTH = 3"``, where the file says ``WIDTH = 16``: plain numbers and
        texts, and tuples, lists and dicts of them, that a file gives once. Empty for
        what is installed or has no file.
    """
    if not _has_own_file(module):
        return []
    path, others, _ = _files_of(module)
    return _overrides([loaded.module for loaded in _loaded_from({path, *others})])


def _has_own_file(module: types.ModuleType) -> bool:
    """Whether a module was read from a file that is not of an installed package."""
    file = getattr(module, "__file__", None)
    is_other = module.__name__.partition(".")[0] in _OTHERS
    if file is None or is_other or not file.endswith(".py"):
        return False
    return not is_installed(Path(file))


def _files_of(module: types.ModuleType) -> tuple[Path, list[Path], Path]:
    """A module's file, those that it uses, and the folder where its package lies."""
    path = Path(str(module.__file__)).absolute()
    depth = len(module.__name__.split(".")) - (path.name != "__init__.py")
    folder = path.parents[min(depth, len(path.parents) - 1)]
    return path, imported_files(path, folder), folder


def _is_running(before: _Sight) -> bool:
    """Whether what was seen at first is what runs now."""
    now = _loaded_from(before.files)
    return len(now) == len(before.running) and all(
        one.is_still(other) for one, other in zip(before.running, now, strict=True)
    )


def _loaded_from(files: Collection[Path]) -> list[_Running]:
    """Look at the modules that were loaded from these files."""
    found = []
    for module in [*sys.modules.values()]:
        file = getattr(module, "__file__", None)
        # A loader of another kind may have changed the code on its way.
        loader = getattr(module, "__loader__", None)
        if type(loader) is SourceFileLoader and file and Path(file) in files:
            codes = _codes_from(vars(module).values(), files)
            values = _plain_values(module)
            found.append(_Running(module, module.__spec__, codes, values))
    return found


def _digest_of(file: Path) -> str:
    """The digest of one file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _refuse_old_modules(
    before: _Sight, now: Iterable[_Running], files: Mapping[Path, str]
) -> None:
    """Refuse a module whose file has changed, where others alone were reloaded."""
    known = {id(one.spec) for one in before.running}
    for module, spec, *_ in now:
        path = Path(str(module.__file__))
        is_old = id(spec) in known and before.files.get(path, "") != files[path]
        if is_old and path in before.files:
            _refuse_changed(path)


def _refuse_changed(path: str | Path) -> NoReturn:
    """Refuse what runs otherwise than its file says."""
    problem = f"{path} has changed since it was imported"
    cure = "restart Python (or the notebook's kernel) to read it anew"
    fail("model", problem, cure)


def _refuse_names_from_before(
    before: Sequence[_Running], now: Sequence[_Running], folder: Path
) -> None:
    """Refuse modules that hold what a file had before it alone was reloaded.

    ``from .sizes import WIDTH`` keeps the old number.
    """
    known = {id(one.spec) for one in before}
    anew = {one.module.__name__: one.module for one in now if id(one.spec) not in known}
    for module, spec, *_ in now:
        path = Path(str(module.__file__))
        tree = _tree_of(path)
        bound = {*names_bound(tree)}
        for home, name, here in _names_from(tree, path, folder):
            there = anew.get(home)
            if there is None or here in bound or here not in vars(module):
                continue
            old = vars(module)[here]
            new = getattr(there, name, old)
            is_plain = isinstance(old, (bool, int, float, complex, str, bytes))
            if old is not new and not (is_plain and old == new):
                _refuse_from_before(f"{name} in {path}", home)
        if id(spec) not in known:  # it was reloaded, too; in which order is not known
            continue
        for home, here in _modules_in(tree, path, folder):
            if home in anew and _is_used_at_import(tree, here):
                _refuse_from_before(f"what {path} took from it", home)


def _refuse_from_before(what: str, home: str) -> NoReturn:
    """Refuse what a module holds of another that has been reloaded since."""
    cure = "reload both, or restart Python (or the notebook's kernel)"
    fail("model", f"{what} is from before {home} was reloaded", cure)


def _names_from(
    tree: ast.Module, path: Path, folder: Path
) -> Iterator[tuple[str, str, str]]:
    """Yield what ``from module import name as here`` says in a file, module first."""
    parents = path.relative_to(folder).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) + 1 - node.level] if node.level else ()
            home = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield home, alias.name, alias.asname or alias.name


def _modules_in(
    tree: ast.Module, path: Path, folder: Path
) -> Iterator[tuple[str, str]]:
    """Yield the modules that a file may import, and by which name it has them."""
    for home, name, here in _names_from(tree, path, folder):
        yield f"{home}.{name}" if home else name, here
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name.partition(".")[0]


def _is_used_at_import(tree: ast.AST, name: str) -> bool:
    """Whether a file uses a name while it is imported, outside of functions' bodies.

    As ``class Net(layers.Base)``, ``SIZE = layers.SIZE`` or ``def f(n=layers.SIZE)``.
    """
    if isinstance(tree, ast.Name):
        return tree.id == name
    parts: Iterable[ast.AST] = ast.iter_child_nodes(tree)
    if isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
        parts = [*tree.decorator_list, tree.args]
    elif isinstance(tree, ast.Lambda):
        parts = [tree.args]
    return any(_is_used_at_import(part, name) for part in parts)


def _codes_from(
    values: Iterable[object], files: Collection[Path]
) -> list[types.CodeType]:
    """What functions, and those of classes, run that were compiled from these files.

    Also those that a module has imported from another, which keeps what it had when
    only the other is reloaded.
    """
    codes = [function.__code__ for function in _functions_among(values)]
    return [code for code in codes if Path(code.co_filename) in files]


def values_of(
    owner: types.ModuleType | type, above: str = ""
) -> Iterator[tuple[str, object]]:
    """Yield what a module and its classes hold, by names such as ``"Config.width"``.

    Parameters
    ----------
    owner : module or class
        Where to look.
    above : str, default ""
        What is put before each name.

    Yields
    ------
    tuple of str and object
        Name and value; without ``__names__`` and without the classes themselves.
    """
    home = owner.__name__ if isinstance(owner, types.ModuleType) else owner.__module__
    for name, value in [*vars(owner).items()]:
        if name.startswith("__"):
            continue
        if not issubclass(type(value), type):
            yield above + name, value
        elif value.__module__ == home and value.__qualname__ == above + name:
            yield from values_of(value, f"{above}{name}.")  # none it only refers to


def _plain_values(module: types.ModuleType) -> dict[str, str]:
    """Write down numbers and texts of a module and its classes, and short lists."""
    return {
        name: repr(value)
        for name, value in values_of(module)
        if type(value) in _PLAIN or _is_short_container(value)
    }


def _is_short_container(value: object) -> bool:
    """Whether a value is a list, tuple, dict or set, by itself, of a few values."""
    if type(value) not in (tuple, list, dict, set, frozenset):
        return False
    return isinstance(value, Collection) and len(value) <= _MOST_VALUES


def _overrides(modules: Iterable[types.ModuleType]) -> list[str]:
    """Write down values that are others than files say: ``nets.WIDTH = 3``.

    Looked at are numbers and texts, and tuples, lists and dicts of them, that a file
    gives once, to a name or in a class, and that no code of these files sets or fills:
    counters and registries are no settings.
    """
    trees = {module: _tree_of(Path(str(module.__file__))) for module in modules}
    set_by_code = {name for tree in trees.values() for name in names_set(tree)}
    overrides = []
    for module, tree in trees.items():
        for path, said in _values_said(tree):
            if path[-1] in set_by_code:
                continue
            value: object = module
            for name in path:
                value = (
                    vars(value).get(name, said) if hasattr(value, "__dict__") else said
                )
            is_other = (type(value), value) != (type(said), said)
            if is_other and _is_literal(value):
                overrides.append(f"{module.__name__}.{'.'.join(path)} = {value!r}")
    return overrides


def _tree_of(file: Path) -> ast.Module:
    """The parts of a file; none of one that has mistakes, which its import tells."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _is_literal(value: object) -> bool:
    """Whether a value is a number or a text, or a short container of such values."""
    if type(value) in _PLAIN:
        return True
    if not _is_short_container(value) or not isinstance(value, (tuple, list, dict)):
        return False  # sets read otherwise in each process
    parts = value.items() if isinstance(value, dict) else value
    return all(_is_literal(part) for part in parts)


def _values_said(
    tree: ast.Module | ast.ClassDef, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object]]:
    """The numbers and texts that a file gives once to a name, also within classes."""
    bound = [target.id for node in tree.body for target in _targets(node)]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from _values_said(node, (*above, node.name))
            continue
        for name, value in _assigned(node):
            if bound.count(name) == 1:
                with contextlib.suppress(ValueError, TypeError):  # it is computed
                    said: object = ast.literal_eval(value)
                    yield (*above, name), said


def _assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """The names that a statement assigns to, with the values: also ``A, B = 1, 2``."""
    if isinstance(node, ast.AnnAssign):
        targets: list[ast.expr] = [node.target]
    elif isinstance(node, ast.Assign):
        targets = node.targets
    else:
        return
    for target in targets:
        if isinstance(target, ast.Name) and node.value is not None:
            yield target.id, node.value
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            for one, value in zip(target.elts, node.value.elts, strict=False):
                if isinstance(one, ast.Name):
                    yield one.id, value


def _targets(node: ast.stmt) -> Iterator[ast.Name]:
    """The names that a statement, or one within it, assigns to."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part


def _codes_of_file(file: Path) -> Iterator[types.CodeType]:
    """Yield what Python would compile of a file now, without flags."""
    with contextlib.suppress(SyntaxError, ValueError):
        code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
        for part in _codes_within(code):
            yield part.replace(co_flags=0)


def _refuse_stale(
    running: Iterable[types.CodeType], there: set[types.CodeType]
) -> None:
    """Refuse functions that are no longer in their files."""
    for code in running:
        # Of their flags, types.coroutine changes some.
        if code.replace(co_flags=0) not in there:
            _refuse_changed(code.co_filename)


def _codes_within(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield code, and all that is compiled within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes_within(constant)


def _functions_among(values: Iterable[object]) -> Iterator[types.FunctionType]:
    """Yield the functions among values, and those of the classes among them."""
    for value in [*values]:
        members = [value]
        # By type(): objects of libraries warn when asked for their __class__.
        if issubclass(type(value), type):
            members = [*vars(value).values()]
        for member in members:
            for function in _unwrapped(member):
                if type(function) is types.FunctionType:
                    yield function


def _unwrapped(member: object) -> tuple[object, ...]:
    """A function as it is, or those within a method of a class, or a property."""
    if isinstance(member, (staticmethod, classmethod)):
        return (member.__func__,)
    if isinstance(member, property):
        return member.fget, member.fset, member.fdel
    if isinstance(member, functools.cached_property):
        return (member.func,)
    if isinstance(member, functools.partialmethod):
        return (member.func,)
    if isinstance(member, functools.singledispatchmethod):
        return tuple(member.dispatcher.registry.values())
    return (member,)


# --- what is in memory ----------------------------------------------------------------


def digest_of_use(function: object, home: str) -> str:
    """Digest a function of a notebook or a running script, and all that it uses.

    Parameters
    ----------
    function : object
        What is called: a function, a class, a ``functools.partial``, an object.
    home : str
        Name of the module that is digested in parts: ``"__main__"``.

    Returns
    -------
    str
        SHA-256, in hexadecimal digits.
    """
    uses = _Uses(home)
    uses.add(function)
    uses.add_attributes()
    return hashlib.sha256("\n".join(uses.parts).encode(errors="replace")).hexdigest()


class _Uses:
    """Writes down, one part below the other, what a value is made of."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.parts: list[str] = []
        # By id, the number and the object, which is held so that no id is used again.
        self._seen: dict[int, tuple[int, object]] = {}
        # What has attributes, of which functions may fill some. These are known last.
        self._holders: dict[int, object] = {}
        self._functions: list[types.FunctionType] = []

    def add(self, value: object) -> None:
        """Write down one value, each object once."""
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            self.parts.append(repr(value))
        elif id(value) in self._seen:
            self.parts.append(f"again {self._seen[id(value)][0]}")
        else:
            self._seen[id(value)] = (len(self._seen), value)
            self._add_object(value)

    def _add_all(self, values: Iterable[object]) -> None:
        """Write down values one after the other."""
        for value in values:
            self.add(value)

    def _add_object(self, value: object) -> None:
        """Write down what is no plain value, by its kind."""
        if isinstance(value, (list, tuple, set, frozenset, dict)):
            self._add_container(value)
        elif isinstance(value, types.ModuleType):
            digest = digest_of_module(value)
            self.parts.append(digest or value.__name__)
            self._functions += _functions_of(value) if digest else []
        elif isinstance(value, functools.partial):
            self._add_all((value.func, value.args, value.keywords))
        elif isinstance(value, (staticmethod, classmethod, types.MethodType)):
            self._add_all((value.__func__, getattr(value, "__self__", None)))
        elif isinstance(value, property):
            self._add_all((value.fget, value.fset))
        elif isinstance(value, functools.cached_property):
            self.add(value.func)
        elif isinstance(value, functools.partialmethod):
            self._add_all((value.func, value.args, value.keywords))
        elif isinstance(value, functools.singledispatchmethod):
            self._add_all(value.dispatcher.registry.values())
        elif isinstance(value, np.vectorize):
            self._add_all((type(value), value.pyfunc, value.otypes))
            self._add_all((value.signature, value.excluded))
        elif isinstance(value, torch.jit.ScriptFunction):
            self.add(getattr(value, "_torchdynamo_inline", value.code))
        elif self._is_wrapper(value):
            self._add_all((type(value), [*_without_python(vars(value))]))
        elif hasattr(value, "__qualname__"):
            self._add_definition(value)
        elif isinstance(value, (torch.Tensor, np.ndarray)):
            self._add_numbers(value)
        elif isinstance(value, torch.nn.Module):
            self._add_all((type(value), repr(value)))
            self._add_all({type(part): None for part in value.modules()})
            self._holders |= {id(part): part for part in value.modules()}
            self._functions += _hooks_of(value)
        else:
            self._add_instance(value)

    def _add_container(self, value: Collection[object]) -> None:
        """Write down what is in a container; of a set in the order of its text."""
        self.parts.append(f"{type(value).__name__} of {len(value)}")
        if isinstance(value, Mapping):
            self._add_all(part for item in value.items() for part in item)
        elif isinstance(value, (set, frozenset)):
            self._add_all(sorted(value, key=_steady_text))
        else:
            self._add_all(value)
        if isinstance(value, collections.defaultdict):
            self.add(value.default_factory)
        if not isinstance(value, tuple) and self._is_own(type(value)):
            self._add_all((type(value), getattr(value, "__dict__", {})))

    def _add_numbers(self, value: torch.Tensor | NDArray[Any]) -> None:
        """Write down the form and content of a tensor or an array."""
        self.parts.append(f"{type(value).__name__} {value.dtype} {tuple(value.shape)}")
        if isinstance(value, torch.Tensor):
            dense = value.detach().to_dense() if value.is_sparse else value.detach()
            flat = dense.cpu().contiguous().reshape(-1)
            value = flat.view(torch.uint8).numpy()
        if value.dtype.hasobject:
            self._add_all(value.ravel().tolist())
        else:
            self.parts.append(hashlib.sha256(value.tobytes()).hexdigest())

    def _add_definition(self, value: object) -> None:
        """Write down a function or class: its source here, its file, or its name."""
        module = getattr(value, "__module__", None) or ""
        if module != self.home:
            there = sys.modules.get(module)
            name = f"{module}.{getattr(value, '__qualname__', '')}"
            digest = there and digest_of_module(there)
            if there and digest:
                sight = _first_seen[there]
                _refuse_stale(_codes_from([value], sight.files), sight.codes)
            self.parts.append(digest or name)
            if isinstance(value, types.FunctionType):  # a decorator's, for example
                self._add_bindings(value)
            if there and digest:
                self._functions += _functions_of(there)
        elif isinstance(value, type):
            self.parts.append(value.__qualname__)
            self._add_all((*value.__bases__, *_members(value)))
            if _PYDANTIC_FIELDS in vars(value):
                self.parts.append(_steady_text(vars(value)[_PYDANTIC_FIELDS]))
            if self._is_own(type(value)):
                self.add(type(value))
        elif isinstance(value, types.FunctionType):
            self.parts.append(_source(value.__code__))
            names = dict.fromkeys(_globals_read(value.__code__))
            known = value.__globals__
            self._add_all(known[name] for name in names if name in known)
            self._add_all(_own_modules(_modules_imported(value.__code__)))
            self._add_bindings(value)
            self._functions.append(value)
            self._holders[id(value)] = value
        else:
            self.add(getattr(value, "__wrapped__", None))  # of functools.lru_cache
            self._holders[id(value)] = value

    def _add_bindings(self, value: types.FunctionType) -> None:
        """Write down what a function holds: defaults, and what it closes over."""
        self._add_all(value.__defaults__ or ())
        if value.__kwdefaults__:
            self.add(value.__kwdefaults__)
        for cell in value.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # not filled yet
                self.parts.append("empty")

    def _add_instance(self, value: object) -> None:
        """Write down any other object: its class, and what it holds or how it reads."""
        self.add(type(value))
        if self._is_own(type(value)):
            slots = [
                (name, getattr(value, name, None))
                for kind in type(value).__mro__
                for name in kind.__dict__.get("__slots__", ())
            ]
            self.add([*getattr(value, "__dict__", {}).items(), *slots])
        elif " at 0x" not in (text := repr(value)):
            self.parts.append(text)
        else:
            self._add_content(value)

    def _add_content(self, value: object) -> None:
        """Write down what an object of an installed class holds that has no text.

        A function, or another thing with an address in its text, may lie beside
        settings.
        """
        if isinstance(value, (Mapping, collections.deque)):
            self._add_container(value)
        elif isinstance(value, (types.SimpleNamespace, argparse.Namespace)):
            self._add_all(part for item in vars(value).items() for part in item)
        elif not _NAME_ALONE.fullmatch(text := _steady_text(value)):
            self.parts.append(text)

    def _is_own(self, kind: type) -> bool:
        """Whether a class is of the notebook, or of a file that is not installed."""
        module = sys.modules.get(kind.__module__)
        is_here = kind.__module__ == self.home
        return is_here or (module is not None and bool(digest_of_module(module)))

    def _is_wrapper(self, value: object) -> bool:
        """Whether an object of an own class stands for a function: it has its name."""
        names = getattr(value, "__dict__", {})
        is_object = not isinstance(value, (type, types.FunctionType))
        return is_object and "__qualname__" in names and self._is_own(type(value))

    def add_attributes(self) -> None:
        """Write down what own layers and functions hold, as far as nothing fills it."""
        written: set[int] = set()
        while waiting := [key for key in self._holders if key not in written]:
            for key in waiting:
                written.add(key)
                held = [*self._attributes_of(self._holders[key])]
                filled = attributes_filled(self._functions) if held else ()
                kept = [pair for pair in held if pair[0] not in filled]
                if kept:
                    self.add(kept)

    def _attributes_of(self, holder: object) -> Iterator[tuple[str, object]]:
        """Yield names and values of what a layer, or a function, holds."""
        if isinstance(holder, torch.nn.Module):
            return self._attributes_of_layer(holder)
        return _attributes_of_function(holder)

    def _attributes_of_layer(
        self, layer: torch.nn.Module
    ) -> Iterator[tuple[str, object]]:
        """Yield names and values of a layer's settings and buffers, without weights."""
        own = [kind for kind in type(layer).__mro__ if self._is_own(kind)]
        if type(layer) not in own:
            return  # its text says what it is
        filled = attributes_filled_by_methods(own, self._functions)
        others = {*type(layer).__mro__} - {*own, *torch.nn.Module.__mro__}
        of_library = {name for kind in others for name in _names_in(kind)}
        for name, value in [*vars(layer).items(), *layer._buffers.items()]:
            is_known = name in of_library and not _is_literal(value)
            if name in filled or name in _OF_LAYERS or is_known:
                continue
            if not _is_weight(value):
                yield name, value


#: Where pydantic puts what a class says of its fields; it takes it from the class.
_PYDANTIC_FIELDS = "__pydantic_fields__"

#: A text that says no more of an object than its class.
_NAME_ALONE = re.compile("<[^<>]*>")


def _steady_text(value: object) -> str:
    """How a value reads, without where it lies in memory."""
    return re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))


def _members(kind: type) -> list[object]:
    """Return a class's functions and values, but for what Python adds."""
    of_class = (types.FunctionType, staticmethod, classmethod)
    return [
        member
        for name, member in vars(kind).items()
        if isinstance(member, of_class)
        or not name.startswith("__")
        or (name not in _OF_CLASSES and _is_literal(member))
    ]


#: What Python, ``dataclass`` and the like write into classes beside their code.
_OF_CLASSES = {
    *("__module__", "__qualname__", "__doc__", "__hash__", "__slots__", "__dict__"),
    *("__annotations__", "__match_args__", "__firstlineno__", "__static_attributes__"),
    *("__annotations_cache__", "__orig_bases__", "__parameters__", "__final__"),
    *("__isabstractmethod__", "__abstractmethods__", "__type_params__"),
    *("__dataclass_fields__", "__conditional_annotations__", "__classdictcell__"),
}


#: What PyTorch keeps in each layer: hooks, weights, and whether it trains.
_OF_LAYERS = {*vars(torch.nn.Module()), "_compiled_call_impl"}


def _functions_of(module: types.ModuleType) -> list[types.FunctionType]:
    """Return the functions of a module and its classes, without what it imports."""
    functions = _functions_among(vars(module).values())
    return [one for one in functions if one.__globals__ is vars(module)]


def _names_in(kind: type) -> Iterator[str]:
    """Yield the names and short texts in the functions of a class."""
    for function in _functions_among([kind]):
        for code in _codes_within(function.__code__):
            yield from code.co_names
            yield from (text for text in code.co_consts if isinstance(text, str))


def _hooks_of(layer: torch.nn.Module) -> list[types.FunctionType]:
    """Return the functions that a layer, and those in it, call before and after.

    They may fill something. Code that makes a network may give it another each time,
    so that they are in no fingerprint.
    """
    hooks = [
        hook
        for part in layer.modules()
        for name, held in vars(part).items()
        if name.endswith("_hooks")
        for hook in held.values()
    ]
    return [hook for hook in hooks if isinstance(hook, types.FunctionType)]


def _is_weight(value: object) -> bool:
    """Whether a value is a weight, has no content yet, or holds weights."""
    if isinstance(value, torch.Tensor):
        is_weight = isinstance(value, torch.nn.Parameter)
        return is_weight or value.is_meta or torch.nn.parameter.is_lazy(value)
    parts: Iterable[object] = ()
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    return any(_is_weight(part) for part in parts)


def _attributes_of_function(function: object) -> Iterator[tuple[str, object]]:
    """Yield what somebody has set in a function: ``build.width = 16``.

    Decorators of libraries set things of their own.
    """
    is_own = False
    if isinstance(function, types.FunctionType):
        is_own = not is_installed(Path(function.__code__.co_filename))
    held: dict[str, object] = getattr(function, "__dict__", {})
    for name, value in _without_python(held):
        is_setting = not name.startswith("_") and _is_literal(value)
        if is_setting or (is_own and not name.startswith("_torch")):
            yield name, value


def _without_python(
    attributes: Mapping[str, object],
) -> Iterator[tuple[str, object]]:
    """Yield attributes but for those that Python, and functools, give to functions."""
    for name, value in attributes.items():
        if not name.startswith("__"):
            yield name, value


def _source(code: types.CodeType) -> str:
    """Return the lines of a function, or what was compiled where none are kept."""
    lines = linecache.getlines(code.co_filename)
    there = lines[code.co_firstlineno - 1 :]
    if not there:
        return _compiled(code)
    block = inspect.getblock(there)
    if code.co_name == "<lambda>":
        return _whole_lambda(code, lines, len(block))
    return "".join(block)


def _compiled(code: types.CodeType) -> str:
    """Write down what was compiled."""
    inner = [
        _source(part) if isinstance(part, types.CodeType) else repr(part)
        for part in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {inner}"


def _whole_lambda(code: types.CodeType, lines: Sequence[str], n_lines: int) -> str:
    """Return these lines of a lambda, and more if it is longer: tokens do not tell it.

    Where several begin in one line, also the text of the one.
    """
    text = "".join(lines)
    first = code.co_firstlineno - 1
    begun = [node for node in _lambdas(text) if node.lineno == code.co_firstlineno]
    last = max((node.end_lineno or 0 for node in begun), default=0)
    block = "".join(lines[first : max(last, first + n_lines)])
    if not begun:
        return f"{block}{_compiled(code)}"
    if len(begun) == 1:
        return block
    places = {(line, column) for line, _, column, _ in code.co_positions() if column}
    around = [node for node in begun if all(_is_within(node, *at) for at in places)]
    one = min(around or begun[:1], key=lambda node: len(ast.dump(node)))
    return f"{block}{ast.get_source_segment(text, one)}"


@functools.lru_cache(maxsize=8)
def _lambdas(text: str) -> list[ast.Lambda]:
    """The lambdas of a file or a cell; none of one that IPython has to translate."""
    try:
        nodes = ast.walk(ast.parse(text))
        return [node for node in nodes if isinstance(node, ast.Lambda)]
    except (SyntaxError, ValueError):
        return []


def _is_within(node: ast.Lambda, line: int | None, column: int | None) -> bool:
    """Whether a place in a file lies in the body of a lambda."""
    body = node.body
    start = (body.lineno, body.col_offset)
    end = (body.end_lineno or 0, body.end_col_offset or 0)
    return start <= (line or 0, column or 0) < end


def _globals_read(code: types.CodeType) -> Iterator[str]:
    """Yield the global names that code reads, also in functions within it."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_read(constant)


def _modules_imported(code: types.CodeType) -> Iterator[str]:
    """Yield what code imports while it runs, also in functions within it.

    Of ``from nets import layers`` both nets and nets.layers: either may be a module.
    """
    home = ""
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            home = str(step.argval)
            yield home
        elif step.opname == "IMPORT_FROM":
            yield f"{home}.{step.argval}"
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _modules_imported(constant)


def _own_modules(names: Iterable[str]) -> Iterator[types.ModuleType]:
    """Yield those of the modules that are read from files of the user's own."""
    for name in dict.fromkeys(names):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, AttributeError, ValueError):  # no module of this name
            continue
        file = Path(spec.origin) if spec and spec.origin else None
        if file is None or file.suffix != ".py" or is_installed(file):
            continue
        with contextlib.suppress(Exception):  # the code that imports it will tell
            module = importlib.import_module(name)
            if _has_own_file(module):
                yield module
