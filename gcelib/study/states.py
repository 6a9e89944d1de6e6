"""Files of ``torch.save``: the state of a module or calibrator, a checkpoint.

``torch.load(weights_only=True)`` runs no foreign code, but it believes what the file
says of sizes: two kilobytes may describe a tensor of a gigabyte, or numbers that are
not there. So the pickle inside is followed first, without building anything, by the few
steps that a ``state_dict`` or a checkpoint needs.
"""

import io
import math
import pickletools
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from gcelib._check import fail
from gcelib.study.files import AnyPath, Bytes, read_bytes, refuse

#: Most bytes of one checkpoint.
STATE_BYTES = 2**36
_MOST_PICKLE_BYTES = 2**26
_MOST_MEMBERS = 10**6

#: Kinds of storage, and how many bytes an element takes.
_STORAGES = {
    "torch DoubleStorage": 8,
    "torch FloatStorage": 4,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch LongStorage": 8,
    "torch IntStorage": 4,
    "torch ShortStorage": 2,
    "torch CharStorage": 1,
    "torch ByteStorage": 1,
    "torch BoolStorage": 1,
    "torch.storage UntypedStorage": 1,
}
#: The other names that the pickle of a state may hold.
_CALLS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}
#: Steps of a pickle, by what they do to the stack.
_VALUES = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
}
_EMPTY = {"EMPTY_DICT", "EMPTY_LIST"}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def load_state(path: AnyPath, limit: int = STATE_BYTES) -> dict[str, Any]:
    """Read what ``torch.save(module.state_dict(), path)`` wrote.

    Parameters
    ----------
    path : path
        The file; links are not followed.
    limit : int, default 64 GiB
        Most bytes that it may have.

    Returns
    -------
    dict of str to tensor or plain value
        On the CPU. No tensor has more elements than the file has numbers for it.

    Raises
    ------
    ValueError
        If the file is damaged, holds anything but tensors, numbers, text, lists and
        mappings, or a tensor that is larger than its own bytes.
    OSError
        If it is not there or may not be read.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "temperature.pt")
    >>> torch.save({"temperature": torch.tensor(1.5)}, path)
    >>> load_state(path)
    {'temperature': tensor(1.5000)}
    """
    return unpack_state(read_bytes(path, limit), path)


def unpack_state(content: Bytes, name: AnyPath) -> dict[str, Any]:
    """Read the bytes of a ``torch.save``, as :func:`load_state` does those of a file.

    Parameters
    ----------
    content : bytes
    name : path
        What the messages call it.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If it is damaged, or holds anything but tensors and plain values.

    Examples
    --------
    >>> unpack_state(pack_state({"epoch": 3}), "checkpoint")
    {'epoch': 3}
    """
    cure = "write it again with torch.save(module.state_dict(), path)"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_archive(archive)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickletools and torch raise all sorts
        reason = str(error).partition("\n")[0]
        what = f"is damaged or no state of a module ({type(error).__name__}: {reason})"
        raise ValueError(f"{name}: {what}; {cure}") from error
    if isinstance(state, dict) and all(isinstance(key, str) for key in state):
        return state
    refuse(name, "does not hold a mapping from names to tensors", cure)


def pack_state(state: object) -> bytes:
    """Give the bytes of ``torch.save(state, file)``.

    Parameters
    ----------
    state : mapping, list, tensor, number or text

    Returns
    -------
    bytes

    Examples
    --------
    >>> len(pack_state({"epoch": 3})) > 0
    True
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


# --- what is looked at first ---------------------------------------------------------


@dataclass(frozen=True)
class _Global:
    """A function or class that the pickle names."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """The numbers of a tensor, and how many there are."""

    length: int


class _Opaque:
    """Something built that needs no further look: a mapping, a list, a tensor."""


class _Mark:
    """The place on the stack from which several items are taken together."""


_MARK = _Mark()
_OPAQUE = _Opaque()


def _check_archive(archive: zipfile.ZipFile) -> None:
    """Refuse a file of ``torch.save`` with more in it than plain values and tensors."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(members) > _MOST_MEMBERS or len({*names}) < len(names):
        fail("file", "holds members twice, or too many", "write it with torch.save")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            fail(member.filename, "is compressed", "torch.save compresses nothing")
    pickles = [m for m in members if re.fullmatch(r"[^/]+/data\.pkl", m.filename)]
    if len(pickles) != 1 or pickles[0].file_size > _MOST_PICKLE_BYTES:
        fail("data.pkl", "is missing or too large", "write it with torch.save")
    damaged = archive.testzip()
    if damaged is not None:
        fail(damaged, "has another checksum", "write it again")
    folder = pickles[0].filename.removesuffix("data.pkl")
    sizes = {
        member.filename.removeprefix(f"{folder}data/"): member.file_size
        for member in members
        if member.filename.startswith(f"{folder}data/")
    }
    _Follower(sizes).follow(archive.read(pickles[0]))


class _Follower:
    """Goes through a pickle as its reader would, without building what it says."""

    def __init__(self, sizes: dict[str, int]) -> None:
        """Remember how many bytes each storage has in the file."""
        self.sizes = sizes
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.steps: dict[str, Callable[[object], None]] = {
            "GLOBAL": self._name,
            "BINPERSID": self._storage,
            "REDUCE": self._call,
            "BUILD": self._take_one,  # the attributes of a mapping: a module's version
            "APPEND": self._take_one,
            "APPENDS": self._take_many,
            "SETITEM": self._take_two,
            "SETITEMS": self._take_many,
            "TUPLE": self._tuple,
        }

    def follow(self, content: bytes) -> None:
        """Go through ``content``; ValueError at a step that no state needs."""
        for opcode, argument, _ in pickletools.genops(content):
            name = opcode.name
            if name in ("PROTO", "STOP"):
                continue
            if name in _VALUES:
                value = {"NEWTRUE": True, "NEWFALSE": False}.get(name, argument)
                self.stack.append(value)
            elif name in _EMPTY:
                self.stack.append(_OPAQUE)
            elif name in _TUPLES:
                self.stack.append(tuple(self._pop(_TUPLES[name])))
            elif name == "MARK":
                self.stack.append(_MARK)
            elif name in ("BINPUT", "LONG_BINPUT"):
                self.memo[_whole(argument)] = self.stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[_whole(argument)])
            elif name in self.steps:
                self.steps[name](argument)
            else:
                _refuse(f"the step {name}")

    def _pop(self, count: int) -> list[object]:
        """Take the last ``count`` things from the stack."""
        if count > len(self.stack):
            _refuse("a step without its arguments")
        first = len(self.stack) - count
        taken = self.stack[first:]
        del self.stack[first:]
        return taken

    def _since_mark(self) -> list[object]:
        """Take everything down to the last mark, and the mark."""
        for count, value in enumerate(reversed(self.stack)):
            if value is _MARK:
                taken = self._pop(count)
                self.stack.pop()
                return taken
        return _refuse("an end without a beginning")

    def _name(self, argument: object) -> None:
        """Put a name on the stack, if it is one of the few that are needed."""
        name = str(argument)
        if name not in _STORAGES and name not in _CALLS:
            _refuse(f"the name {name!r}")
        self.stack.append(_Global(name))

    def _storage(self, _: object) -> None:
        """Compare the length that a storage is said to have with its bytes."""
        [reference] = self._pop(1)
        match reference:
            case ("storage", _Global(name=kind), str(key), str(), int(length)):
                width = _STORAGES.get(kind)
                if width is None or self.sizes.get(key) != length * width:
                    _refuse("numbers that are not in the file")
                self.stack.append(_Storage(length))
            case _:
                _refuse("an unknown reference")

    def _call(self, _: object) -> None:
        """Follow the few calls that are needed."""
        function, arguments = self._pop(2)
        match function, arguments:
            case _Global(name="collections OrderedDict"), ():
                pass
            case (
                _Global(name="torch._utils _rebuild_parameter"),
                (_Opaque(), bool(), _Opaque()),
            ):
                pass
            case (
                _Global(name="torch._utils _rebuild_tensor_v2"),
                (_Storage(length=length), start, size, step, *_),
            ):
                _refuse_expansion(length, start, size, step)
            case _:
                _refuse("an unknown call")
        self.stack.append(_OPAQUE)

    def _take_one(self, _: object) -> None:
        """Take an item into what is below it."""
        self._pop(1)

    def _take_two(self, _: object) -> None:
        """Take a key and its value into the mapping below them."""
        self._pop(2)

    def _take_many(self, _: object) -> None:
        """Take all items since the mark into what is below it."""
        self._since_mark()

    def _tuple(self, _: object) -> None:
        """Make a tuple of all items since the mark."""
        self.stack.append(tuple(self._since_mark()))


def _whole(value: object) -> int:
    """Give ``value``, which is a whole number."""
    if not isinstance(value, int):
        return _refuse("a place without a number")
    return value


def _refuse_expansion(length: int, start: object, size: object, step: object) -> None:
    """Refuse a tensor with more elements than its storage, or beyond its end."""
    if not isinstance(size, tuple) or not isinstance(step, tuple):
        _refuse("a tensor without a shape")
    numbers = [start, *size, *step]
    if len(size) != len(step) or not all(map(_is_length, numbers)):
        _refuse("a tensor without a shape")
    if 0 in size:
        return
    steps_to_last = [(n - 1) * width for n, width in zip(size, step, strict=True)]
    if math.prod(size) > length or start + sum(steps_to_last) >= length:
        _refuse("a tensor that is larger than its numbers")


def _is_length(value: object) -> bool:
    """Tell whether ``value`` is a whole number from 0."""
    return isinstance(value, int) and 0 <= value < 2**60


def _refuse(what: str) -> NoReturn:
    """Say what a file holds that no state of a module does."""
    fail("file", f"holds {what}", "nothing of the kind belongs into a state")
