"""Which attributes and names code fills while it runs: counters, caches, registries.

They are no settings: a fingerprint that had them would be another one after each run.
"""

import ast
import dis
import functools
import inspect
import linecache
import tokenize
import types
from collections.abc import Container, Iterable, Iterator

from torch import nn

#: Methods of lists, dicts and sets that change what these hold.
_FILLING = {
    *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse"),
    *("update", "setdefault", "popitem", "add", "discard"),
}
#: Those of which one takes the result.
_TAKING = {"pop", "popitem", "setdefault"}
#: Functions that change what they are given.
_CHANGING = {"batch_norm", "instance_norm", "next", "heappush", "heappop"}
#: What makes an object, and gives it its settings.
_MAKING = {"__init__", "__new__", "__post_init__", "__init_subclass__", "__set_name__"}
#: Functions that set what their arguments name as text.
_SETTING = {"setattr", "delattr", "register_buffer", "register_parameter"}


# --- names of a file ------------------------------------------------------------------


def names_set(tree: ast.AST) -> Iterator[str]:
    """Yield the names that code sets elsewhere, as ``global``, or fills: ``d[k] = v``.

    So do methods of lists and dicts: ``names.append(x)``. What a method stores in its
    object (``self.width = width``) leaves a class's and a module's ``width`` alone.

    Parameters
    ----------
    tree : ast.AST
        The parts of a file.

    Yields
    ------
    str
        The last part of each: ``width`` of ``Config.width = 3``.

    Examples
    --------
    >>> sorted(names_set(ast.parse("Config.width = 3; sizes.append(3)")))
    ['sizes', 'width']
    """
    in_objects = {id(node) for node in _stores_in_objects(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from [] if id(node) in in_objects else [node.attr]
        elif isinstance(node, ast.Global):
            yield from node.names
        elif isinstance(node, ast.Subscript):
            is_filled = not isinstance(node.ctx, ast.Load)
            yield from [_last_name(node.value)] if is_filled else []
        elif isinstance(node, ast.Attribute) and node.attr in _FILLING:
            yield _last_name(node.value)


def names_bound(tree: ast.AST) -> Iterator[str]:
    """Yield the names that code assigns to, each time.

    Parameters
    ----------
    tree : ast.AST
        The parts of a file, or of a function.

    Yields
    ------
    str
        Without attributes.

    Examples
    --------
    >>> list(names_bound(ast.parse("a = b; a, c.d = 1, 2")))
    ['a', 'a']
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _last_name(node: ast.expr) -> str:
    """The name by which a value, or a part of it, is reached: of ``a.b`` that is b."""
    while isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _stores_in_objects(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Yield where methods store in their own object: ``self.name = ...``."""
    for kind in ast.walk(tree):
        if not isinstance(kind, ast.ClassDef) or _is_metaclass(kind):
            continue
        for method in kind.body:
            me = _own_object(method)
            for node in ast.walk(method) if me else ():
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    yield from [node] if node.value.id == me else []


def _is_metaclass(kind: ast.ClassDef) -> bool:
    """Whether the objects of a class are classes themselves."""
    return any(_last_name(base).endswith(("type", "Meta")) for base in kind.bases)


def _own_object(method: ast.AST) -> str:
    """The name by which a method has its object; "" if that may be another thing."""
    if not isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return ""
    decorators = {_last_name(decorator) for decorator in method.decorator_list}
    of_class = {"__new__", "__init_subclass__", "__class_getitem__"}
    if decorators & {"staticmethod", "classmethod"} or method.name in of_class:
        return ""
    parameters = [*method.args.posonlyargs, *method.args.args]
    me = parameters[0].arg if parameters else ""
    named = [node.arg for node in ast.walk(method) if isinstance(node, ast.arg)]
    is_other = me == "cls" or me in names_bound(method) or named.count(me) > 1
    return "" if is_other else me


# --- attributes of objects ------------------------------------------------------------


def attributes_filled(functions: Iterable[types.FunctionType]) -> set[str]:
    """Return the attributes that functions fill in things that they have not made.

    Parameters
    ----------
    functions : iterable of functions
        What a network may call. Methods among them that none of them names, and that
        PyTorch does not call, do not run.

    Returns
    -------
    set of str
        Their names; without those of a method's own object.

    Examples
    --------
    >>> attributes_filled([attributes_filled])
    set()
    """
    names: set[str] = set()
    running = _running(functions)
    filling = _change_arguments(running)
    for function in running:
        tree = _tree_of(function)
        me = _own_object(tree) if _is_method(function) else ""
        made = {me, *_made_in(tree)}
        names |= {
            name
            for root, *path in _filled(tree, filling)
            if root not in made
            for name in path
        }
    return names


def attributes_filled_by_methods(
    kinds: Iterable[type], functions: Iterable[types.FunctionType]
) -> set[str]:
    """Return the attributes that methods of an object fill in it while they run.

    Parameters
    ----------
    kinds : iterable of type
        The object's class, and those that it is derived from.
    functions : iterable of functions
        What else a network may call. A ``set_width`` that nothing of all this names,
        only a cell of a notebook, sets a setting.

    Returns
    -------
    set of str
        Their names.

    Examples
    --------
    >>> attributes_filled_by_methods([nn.Identity], [])
    set()
    """
    members = [member for kind in kinds for member in vars(kind).values()]
    methods = [function for member in members for function in _called(member)]
    setters = _plain(member.fset for member in members if isinstance(member, property))
    running = _running([*functions, *methods])
    stored = {name for function in running for name in _stored(function.__code__)}
    runs = {function.__code__ for function in running}
    # A setter has the name by which its property is read.
    runs -= {setter.__code__ for setter in setters if setter.__name__ not in stored}
    runs |= {setter.__code__ for setter in setters if setter.__name__ in stored}
    names = {
        member.attrname or ""
        for member in members
        if isinstance(member, functools.cached_property)
    }
    filling = _change_arguments(running)
    for method in [*methods, *setters]:
        if method.__code__ in runs and method.__name__ not in _MAKING:
            tree = _tree_of(method)
            me = _own_object(tree)
            filled = [path for root, *path in _filled(tree, filling) if root == me]
            names |= {name for path in filled for name in path}
    return names


def _called(member: object) -> list[types.FunctionType]:
    """The functions of a class's member that calling it, or reading it, runs."""
    if isinstance(member, (staticmethod, classmethod)):
        return _plain([member.__func__])
    if isinstance(member, property):
        return _plain([member.fget])
    if isinstance(member, functools.cached_property):
        return _plain([member.func])
    return _plain([member])


def _plain(values: Iterable[object]) -> list[types.FunctionType]:
    """Return those that are functions; of a decorated one that within it, too."""
    found = [value for value in values if isinstance(value, types.FunctionType)]
    within = [getattr(function, "__wrapped__", None) for function in found]
    return [*found, *(one for one in within if isinstance(one, types.FunctionType))]


def _is_method(function: types.FunctionType) -> bool:
    """Whether a function was written within a class."""
    above = function.__qualname__.rpartition(".")[0]
    return bool(above) and not above.endswith("<locals>")


def _running(functions: Iterable[types.FunctionType]) -> list[types.FunctionType]:
    """Return what runs with a network: functions, and those methods that are called."""
    waiting = [*{function.__code__: function for function in functions}.values()]
    running: list[types.FunctionType] = []
    named: set[str] = set()
    while True:
        found = [
            one for one in waiting if not _is_method(one) or _is_called(one, named)
        ]
        if not found:
            return running
        running += found
        waiting = [one for one in waiting if one not in found]
        for function in found:
            # What a constructor calls makes an object's settings, too.
            if function.__name__ not in _MAKING:
                named |= {*_named(function.__code__)}


def _is_called(method: types.FunctionType, named: Container[str]) -> bool:
    """Whether Python, PyTorch or code with these names in it calls a method."""
    name = method.__name__
    is_special = name.startswith("__") and name.endswith("__")
    return is_special or name in named or hasattr(nn.Module, name)


def _named(code: types.CodeType) -> Iterator[str]:
    """Yield the names of attributes and globals in code, also within it."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _named(part)


def _stored(code: types.CodeType) -> Iterator[str]:
    """Yield the attributes that code stores, also within it."""
    for step in dis.get_instructions(code):
        if step.opname == "STORE_ATTR":
            yield str(step.argval)
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _stored(part)


# --- what is written in a function ----------------------------------------------------


def _tree_of(function: types.FunctionType) -> ast.AST:
    """The definition of a function; nothing of a lambda, or if its source is lost."""
    lines = linecache.getlines(function.__code__.co_filename)
    there = lines[function.__code__.co_firstlineno - 1 :]
    try:
        block = "".join(inspect.getblock(there)) if there else ""
    except (SyntaxError, tokenize.TokenError):
        block = ""
    for text in (block, f"if True:\n{block}"):  # the second is that of a method
        try:
            nodes = ast.walk(ast.parse(text))
        except (SyntaxError, ValueError):
            continue
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                return node
    return ast.Module([], [])


def _made_in(tree: ast.AST) -> set[str]:
    """The names of what a function makes itself: ``net = Net()``."""
    made = [
        node.targets[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and isinstance(node.targets[0], ast.Name)
    ]
    bound = [*names_bound(tree)]
    outer = [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
        for name in node.names
    ]
    return {name for name in made if made.count(name) == bound.count(name)} - {*outer}


def _filled(tree: ast.AST, filling: Container[str] = ()) -> Iterator[tuple[str, ...]]:
    """Yield what is stored or changed in place, in parts: ("self", "mean").

    So do functions of these names with what they are given.
    """
    others = _other_names(tree)
    for root, *path in _filled_by_its_name(tree, filling):
        yield (*others.get(root, (root,)), *path)


def _filled_by_its_name(
    tree: ast.AST, filling: Container[str]
) -> Iterator[tuple[str, ...]]:
    """Yield what is filled by the name that the code has for it."""
    local = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    local |= {*names_bound(tree)}
    alone = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            if not isinstance(node.ctx, ast.Load):
                yield _path(node)
        elif isinstance(node, ast.Call):
            name = _last_name(node.func)
            # What is a statement of its own is no ``y = x.add(1)`` of a tensor.
            is_filling = name in _FILLING and (node in alone or name in _TAKING)
            if isinstance(node.func, ast.Attribute) and (
                is_filling or _is_inplace(name)
            ):
                yield _path(node.func.value)
            if name in _SETTING:
                yield from _named_by_text(node)
            is_of_library = _is_inplace(name) and _path(node.func)[0] not in local
            if is_of_library or name in _CHANGING or name in filling:
                arguments = [keyword.value for keyword in node.keywords]
                yield from map(_path, (*node.args, *arguments))
            yield from (_path(one.value) for one in node.keywords if one.arg == "out")


def _other_names(tree: ast.AST) -> dict[str, tuple[str, ...]]:
    """Return what a function calls otherwise: of ``mean = self.mean`` both names."""
    return {
        node.targets[0].id: _path(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, (ast.Attribute, ast.Subscript))
        and isinstance(node.targets[0], ast.Name)
    }


def _change_arguments(functions: Iterable[types.FunctionType]) -> set[str]:
    """Return the names of those functions that fill what they are given."""
    names = set()
    for function in functions:
        tree = _tree_of(function)
        given = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        given -= {_own_object(tree)} if _is_method(function) else set()
        if any(root in given for root, *_ in _filled(tree)):
            names.add(function.__name__)
    return names - {"forward", "__call__"}


def _is_inplace(name: str) -> bool:
    """Whether a function of this name changes what it is called of, as PyTorch's."""
    return name.endswith("_") and not name.endswith("__")


def _path(node: ast.expr) -> tuple[str, ...]:
    """A name and the attributes below it: of ``a.b[0].c`` these are a, b and c."""
    if isinstance(node, ast.Attribute):
        return (*_path(node.value), node.attr)
    if isinstance(node, ast.Subscript):
        return _path(node.value)
    if isinstance(node, ast.Call):
        return _path(node.func)
    return (node.id,) if isinstance(node, ast.Name) else ("",)


def _named_by_text(call: ast.Call) -> Iterator[tuple[str, ...]]:
    """Yield what ``setattr(self, "mean", x)`` and the like set."""
    is_method = isinstance(call.func, ast.Attribute)
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    arguments = call.args if is_method else call.args[1:]
    if owner is None and call.args:
        owner = call.args[0]
    for argument in arguments[:1]:
        if owner is not None and isinstance(argument, ast.Constant):
            yield (*_path(owner), str(argument.value))
