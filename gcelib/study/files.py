"""Files that others may have written, read within limits; our own, whole or not.

Every reader here takes regular files only, follows no link, knows how much memory a
file will need before it takes any, runs no code from it, and says of a damaged one
``<path>: <what is wrong>; <what to do>``, as a ``ValueError``. A file that is not there
or may not be read is an ``OSError``, as always.
"""

import contextlib
import errno
import io
import itertools
import json
import math
import os
import secrets
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from gcelib._check import fail

#: What a path may be given as.
AnyPath = str | os.PathLike[str]
#: What a file may be written from.
Bytes = bytes | bytearray | memoryview
#: Called right before a file takes its place; what it raises leaves the old one.
Check = Callable[[], None]

#: Most bytes of a JSON file (a run's results take about 20 kB).
JSON_BYTES = 2**22
#: Most bytes of a history, a line an epoch (a line takes about 300 bytes).
HISTORY_BYTES = 2**26
#: Most bytes of the arrays of one file: what a large study's logits never reach.
ARRAY_BYTES = 2**34
#: Arrays may be compressed this much beyond the first 64 MiB; zeros reach 1,000.
EXPANSION = 100
_FREE_EXPANSION = 2**26
_MOST_MEMBERS = 1000
#: JSON with fewer brackets is not nested deeply.
_FEW_BRACKETS = 100
_RESTORE = "delete it or restore it"


def shown(text: object) -> str:
    r"""Give ``text`` as it can be printed: the name of a file may be any bytes.

    Parameters
    ----------
    text : path or str

    Returns
    -------
    str
        Bytes that are no UTF-8 as escapes.

    Examples
    --------
    >>> shown("a\udcff.npz")
    'a\\udcff.npz'
    """
    return str(text).encode("utf-8", "backslashreplace").decode()


def refuse(
    path: AnyPath, problem: str, cure: str, error: type[Exception] = ValueError
) -> NoReturn:
    """Refuse a file with the house's one-line message, which begins with its path.

    Parameters
    ----------
    path : path
        The file.
    problem, cure : str
        What is wrong with it, and what to do.
    error : type, default ValueError

    Raises
    ------
    ValueError
        Always, or ``error``.

    Examples
    --------
    >>> refuse("metrics.json", "is empty", "run this one again")
    Traceback (most recent call last):
        ...
    ValueError: metrics.json: is empty; run this one again
    """
    fail(shown(path), shown(problem), cure, error)


# --- reading ------------------------------------------------------------------------


@contextlib.contextmanager
def open_regular(path: AnyPath, limit: int) -> Iterator[BinaryIO]:
    """Open a regular file that is no larger than ``limit``.

    Parameters
    ----------
    path : path
        The file. A symbolic link is refused, and so is what is not a file of bytes:
        a folder, a pipe, a device, which could be endless.
    limit : int
        Most bytes that it may have.

    Yields
    ------
    binary file object

    Raises
    ------
    ValueError
        If it is something else, or larger.
    OSError
        If it is not there or may not be read.

    Examples
    --------
    >>> with open_regular(__file__, 2**20) as file:
    ...     len(file.read(3))
    3
    """
    path = Path(path)
    _refuse_all_but_files(path, os.lstat(path).st_mode)
    # O_NONBLOCK: a pipe that took the file's place since then must not hang us.
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            refuse(path, "is a symbolic link", "give the file itself")
        raise
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        _refuse_all_but_files(path, status.st_mode)
        if status.st_size > limit:
            size = f"has {status.st_size:,} bytes, more than {limit:,}"
            refuse(path, size, "this cannot be what it is meant to be; remove it")
        yield file


def _refuse_all_but_files(path: Path, mode: int) -> None:
    """Refuse links, folders, pipes, sockets and devices."""
    if stat.S_ISLNK(mode):
        target = os.readlink(path)
        what = f"is a symbolic link to {target}"
        refuse(path, what, "remove it or give the file itself")
    if stat.S_ISDIR(mode):
        refuse(path, "is a folder", "remove it or give a file")
    if not stat.S_ISREG(mode):
        refuse(path, "is not a regular file", "remove it or give a file on a disk")


def refuse_all_but_files(path: AnyPath) -> None:
    """Refuse what is no regular file; nothing at all is welcome.

    Parameters
    ----------
    path : path
        Need not exist.

    Raises
    ------
    ValueError
        If a link, a folder, a pipe, a socket or a device is there.

    Examples
    --------
    >>> refuse_all_but_files("not-there.json")
    >>> refuse_all_but_files(".")
    Traceback (most recent call last):
        ...
    ValueError: .: is a folder; remove it or give a file
    """
    with contextlib.suppress(FileNotFoundError):
        _refuse_all_but_files(Path(path), os.lstat(path).st_mode)


def is_link(path: AnyPath) -> bool:
    """Tell whether ``path`` is a symbolic link, wherever it leads.

    Parameters
    ----------
    path : path
        Need not exist.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_link(".")
    False
    """
    return os.path.islink(path)


def read_bytes(path: AnyPath, limit: int) -> bytes:
    """Read a regular file that is no larger than ``limit``.

    Parameters
    ----------
    path : path
        The file; links are not followed.
    limit : int
        Most bytes that it may have.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        If it is no regular file, or larger.
    OSError
        If it is not there or may not be read.

    Examples
    --------
    >>> len(read_bytes(__file__, 2**20)) > 0
    True
    """
    with open_regular(path, limit) as file:
        size = os.fstat(file.fileno()).st_size  # read(limit) would take limit bytes
        return file.read(size)


def read_json(path: AnyPath, limit: int = JSON_BYTES) -> dict[str, Any]:
    """Read the JSON object in a file.

    Parameters
    ----------
    path : path
        The file, in UTF-8; links are not followed.
    limit : int, default 4 MiB
        Most bytes that it may have.

    Returns
    -------
    dict
        Without NaN and infinity, which JSON does not know, and without text that
        cannot be written in UTF-8.

    Raises
    ------
    ValueError
        If it is damaged or too large; the message begins with the path.
    OSError
        If it is not there or may not be read.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "results.json")
    >>> write_json(path, {"ece": 0.25})
    >>> read_json(path)
    {'ece': 0.25}
    """
    content = read_bytes(path, limit)
    try:
        value = parse_json(content)
    except ValueError as error:
        problem = f"is not readable JSON ({error})"
        raise ValueError(f"{path}: {problem}; {_RESTORE}") from error
    if not isinstance(value, dict):
        refuse(path, "does not hold a JSON object", _RESTORE)
    return value


def parse_json(content: bytes) -> object:
    """Read JSON in UTF-8; whatever is wrong with it is a ``ValueError``.

    Parameters
    ----------
    content : bytes

    Returns
    -------
    any JSON value

    Raises
    ------
    ValueError
        If it is no JSON, holds NaN or infinity, is nested too deeply, or holds text
        that cannot be written in UTF-8.

    Examples
    --------
    >>> parse_json(b"[1, 2.5]")
    [1, 2.5]
    """
    try:
        text = content.decode("utf-8")
        value = json.loads(text, parse_constant=_no_json, parse_float=_finite)
        if content.count(b"[") + content.count(b"{") > _FEW_BRACKETS:
            json.dumps(value)  # what could not be written again is nested too deeply
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if b"\\ud" in content.lower():  # the escape of half a character, perhaps
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _finite(digits: str) -> float:
    """Give the number that ``digits`` say; 1e999 would be infinite."""
    number = float(digits)
    if math.isinf(number):
        _no_json(digits)
    return number


def _no_json(name: str) -> NoReturn:
    """Refuse the numbers that Python's reader takes and JSON does not know."""
    raise ValueError(f"{name} is no JSON")


def read_arrays(path: AnyPath) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an ``.npz`` file, each of them plain numbers or text.

    Every member is read whole and its checksum compared before numpy looks at it, and
    its size is known before memory is taken. Nothing is unpickled.

    Parameters
    ----------
    path : path
        A file of ``numpy.savez`` or ``savez_compressed``; links are not followed.

    Returns
    -------
    dict of str to array
        Writable arrays, by name.

    Raises
    ------
    ValueError
        If the file is damaged, would expand too much, holds Python objects, or holds
        two arrays of one name; the message begins with the path.
    OSError
        If it is not there or may not be read.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "logits.npz")
    >>> np.savez(path, labels=np.arange(3))
    >>> read_arrays(path)
    {'labels': array([0, 1, 2])}
    """
    with open_regular(path, ARRAY_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return dict(_arrays(file, size))
        except ArrayProblem as error:
            raise ValueError(f"{path}: {error}") from error
        except Exception as error:  # zipfile, zlib and numpy raise all sorts
            what = f"is damaged ({type(error).__name__}: {error})"
            raise ValueError(f"{path}: {what}; write it again") from error


class ArrayProblem(ValueError):
    """What is wrong with the arrays of a file."""


def _problem(name: str, what: str, fix: str) -> NoReturn:
    """Raise what is wrong with a file of arrays."""
    fail(name, what, fix, ArrayProblem)


def _arrays(file: BinaryIO, size: int) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Give the arrays of an ``.npz`` file of ``size`` bytes, by name."""
    if not zipfile.is_zipfile(file):
        _problem("npz", "is not a whole .npz file", "write it with numpy.savez")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            _problem("npz", f"holds {len(members):,} arrays", "keep those you need")
        names = [member.filename.removesuffix(".npy") for member in members]
        for name in names:
            if names.count(name) > 1:
                _problem(name, "is there twice", "write each array once")
        expanded = sum(member.file_size for member in members)
        if expanded > min(EXPANSION * size + _FREE_EXPANSION, ARRAY_BYTES):
            what = (
                f"would expand to {expanded:,} bytes, over {EXPANSION} times the file"
            )
            _problem("npz", what, "save the arrays with numpy.savez")
        for name, member in zip(names, members, strict=True):
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                _problem(name, "is compressed in an unusual way", "use numpy.savez")
            with archive.open(member) as part:
                content = part.read()  # to its end: only there is its CRC compared
            if len(content) != member.file_size:
                _problem(name, "has another size than the file says", "write it again")
            yield name, _array(name, content)


def _array(name: str, content: bytes) -> npt.NDArray[Any]:
    """Give the array that the bytes of an ``.npy`` file hold."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        _problem(name, "holds records, not plain numbers", "save plain numbers")
    shape, by_column, dtype = readers[version](stream)
    if dtype.hasobject:
        what = "holds Python objects, which are never unpickled"
        _problem(name, what, "save plain numbers (astype)")
    values = memoryview(content)[stream.tell() :]
    count = 1
    for length in shape:  # whole numbers of any size: numpy's would overflow
        count *= length
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(values):
        what = f"says shape {shape} of {dtype} and holds {len(values):,} bytes"
        _problem(name, what, "write it again")
    array = np.frombuffer(bytearray(values), dtype) if count else np.empty(0, dtype)
    return array.reshape(shape, order="F" if by_column else "C")


# --- writing ------------------------------------------------------------------------


def write_atomic(path: AnyPath, data: Bytes, *, before: Check | None = None) -> None:
    """Put ``data`` at ``path``: readers see the old file or the new one, never a half.

    That holds after a kill, too, and on a full disk. Who may read the new file is
    decided by the umask, as for any file. A link at ``path`` is replaced, not followed.

    Parameters
    ----------
    path : path
        Its folder must exist.
    data : bytes
    before : callable, optional
        Called without arguments right before the new file takes its place; what it
        raises leaves the old one.

    Raises
    ------
    OSError
        If it cannot be written; ``filename`` is ``path``.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "note.txt")
    >>> write_atomic(path, b"whole")
    >>> path.read_bytes()
    b'whole'
    """
    path = Path(path)
    with _written_beside(path, data) as temporary:
        if before is not None:
            before()
        os.replace(temporary, path)


@contextlib.contextmanager
def _written_beside(path: Path, data: Bytes) -> Iterator[Path]:
    """Write ``data`` to a new file beside ``path``, which is gone in the end."""
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        # 0o666: the umask and the folder's rules take off what others may not do
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    except OSError as error:
        error.filename = str(path)  # a full disk does not say which file did not fit
        error.filename2 = None
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def write_json(path: AnyPath, value: object, *, before: Check | None = None) -> None:
    """Write ``value`` as indented JSON, whole or not at all.

    Parameters
    ----------
    path : path
        Its folder must exist.
    value : JSON value
        NaN and infinity, which JSON does not know, are refused.
    before : callable, optional
        As for ``write_atomic``: called right before the file takes its place.

    Raises
    ------
    ValueError, TypeError
        If JSON does not know the value.
    OSError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "results.json")
    >>> write_json(path, {"ece": 0.25})
    >>> path.read_text().split()
    ['{', '"ece":', '0.25', '}']
    """
    text = json.dumps(value, indent=1, allow_nan=False)
    write_atomic(path, f"{text}\n".encode(), before=before)


def fresh_path(path: AnyPath) -> Path:
    """Give ``path`` if nothing is there, else the first free name with a number.

    Parameters
    ----------
    path : path

    Returns
    -------
    pathlib.Path
        ``path``, or ``stem-2.suffix``, ``stem-3.suffix`` and so on beside it.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> fresh_path(folder / "a.pt").name
    'a.pt'
    >>> (folder / "a.pt").touch()
    >>> fresh_path(folder / "a.pt").name
    'a-2.pt'
    """
    return next(name for name in _names(Path(path)) if not os.path.lexists(name))


def _names(path: Path) -> Iterator[Path]:
    """Give ``path``, then the same name with 2, 3, ... before its suffix."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def write_new(path: AnyPath, data: Bytes) -> Path:
    """Write ``data`` to ``path`` or, if that is taken, to a free name beside it.

    No file that exists is ever changed, also not by two writers at the same moment. A
    file that holds ``data`` already is not written again.

    Parameters
    ----------
    path : path
        Its folder must exist.
    data : bytes

    Returns
    -------
    pathlib.Path
        Where ``data`` is: ``path``, or ``stem-2.suffix``, ``stem-3.suffix`` and so on.

    Raises
    ------
    OSError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_new(folder / "a.pt", b"one").name
    'a.pt'
    >>> write_new(folder / "a.pt", b"two").name
    'a-2.pt'
    >>> write_new(folder / "a.pt", b"two").name
    'a-2.pt'
    """
    path = Path(path)
    with _written_beside(path, data) as temporary:
        for name in _names(path):
            if _put_new(temporary, name) or _holds(name, data):
                return name
    raise AssertionError("the numbers have no end")


def _put_new(temporary: Path, name: Path) -> bool:
    """Give the file ``temporary`` the name ``name``; False if that is taken."""
    try:
        os.link(temporary, name)
    except FileExistsError:
        return False
    except OSError:  # a disk without hard links
        if os.path.lexists(name):
            return False
        os.replace(temporary, name)
    return True


def _holds(path: Path, data: Bytes) -> bool:
    """Tell whether the file at ``path`` holds exactly ``data``."""
    try:
        return read_bytes(path, len(data)) == data
    except (OSError, ValueError):
        return False
