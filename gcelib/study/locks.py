"""One writer at a time: a lock that dies with its process, and notices its loss."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gcelib import _check
from gcelib.study.files import AnyPath, is_link, refuse_all_but_files

if TYPE_CHECKING:
    from filelock import BaseFileLock

#: So often a lock is tried again that nobody holds, while others look at it.
_LOOKERS = 10
#: What a file system without locks answers.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class Lock:
    """A lock that this process holds: see :func:`hold`."""

    def __init__(self, path: Path) -> None:
        """Remember which file at ``path`` is the one that was locked."""
        self.path = path
        self._file = _identity(path)

    def check(self) -> None:
        """Refuse to go on if the lock is no longer ours.

        Raises
        ------
        RuntimeError
            If the lock's file was removed or replaced since it was taken: somebody
            removed the folder, and perhaps another process writes there now.
        """
        if self._file is None or _identity(self.path) != self._file:
            raise RuntimeError(
                f"{self.path.parent}: was removed or taken over while this process was "
                "writing there; nothing more is written, start it again"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """Give what tells the file at ``path`` from any other; None if there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def hold(path: AnyPath, timeout: float = 1.0) -> Iterator[Lock]:
    """Hold a lock for as long as the ``with`` block runs, or the process lives.

    The operating system drops the lock when the process dies, however it does. Where a
    file system knows no locks, the existence of a second file, ``<path>.soft``, stands
    for one, and a warning says so.

    Parameters
    ----------
    path : path
        A file that stands for what is locked; made if it is not there, and left.
    timeout : float, default 1
        Seconds to wait for another process.

    Yields
    ------
    Lock
        Its ``check`` refuses once the file is no longer the one that was locked.

    Raises
    ------
    RuntimeError
        If another process holds it.
    ValueError
        If ``path`` is a symbolic link, or anything else but a file.
    OSError
        If the file cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), ".lock")
    >>> with hold(path) as lock:
    ...     lock.check()
    ...     is_held(path)
    True
    >>> is_held(path)
    False
    """
    from filelock import FileLock, SoftFileLock, Timeout

    path = Path(path)
    refuse_all_but_files(path)
    lock = FileLock(path)
    try:
        _take(lock, path, timeout)
    except (Timeout, OSError, NotImplementedError) as error:
        if not _knows_no_locks(path, error):
            if isinstance(error, Timeout):
                raise RuntimeError(_busy(path)) from None
            raise
        marker = _soft(path)
        _check.warn(
            f"{path.parent}: this file system knows no locks; the file {marker.name} "
            "stands for one. If a run that writes here is killed on another machine, "
            "delete it by hand"
        )
        lock = SoftFileLock(marker)
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            raise RuntimeError(_busy(path)) from None
        path = marker
    try:
        yield Lock(path)
    finally:
        lock.release()


def _take(lock: "BaseFileLock", path: Path, timeout: float) -> None:
    """Take the lock; who only looks at it, even for seconds, does not hold it.

    Looking (``is_held``) shares the lock for an instant, which on a busy machine may
    last until the looker gets its next turn.
    """
    from filelock import Timeout

    for _ in range(_LOOKERS):
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            if _probe(path) is not False:
                raise
        else:
            return
    lock.acquire(timeout=timeout)


def _soft(path: Path) -> Path:
    """Give the file whose existence stands for the lock ``path``."""
    return path.with_name(f"{path.name}.soft")


def _knows_no_locks(path: Path, error: BaseException) -> bool:
    """Tell whether a lock failed because the file system has none."""
    if isinstance(error, NotImplementedError):
        return True
    if isinstance(error, OSError) and error.errno in _NO_LOCKS:
        return True
    return _probe(path) is None  # some versions of filelock wait where they cannot lock


def _busy(path: Path) -> str:
    """Say that another process holds the lock ``path``, and what to do."""
    words = (
        f"{path.parent}: another process is writing this run; wait for it or stop it"
    )
    marker = _soft(path)
    try:
        if marker.stat().st_size < 1000:
            pid, host, *_ = marker.read_text(encoding="utf-8").split()
            words += (
                f". {marker} says that it is process {pid} on {host}: if that is gone, "
                "delete the file"
            )
    except (OSError, ValueError):
        pass
    return words


def is_held(path: AnyPath) -> bool:
    """Tell whether some process, this one or another, holds a lock at this moment.

    The lock of a killed process does not count, whoever's it was.

    Parameters
    ----------
    path : path
        As given to :func:`hold`; need not exist. It is not changed.

    Returns
    -------
    bool
        True, too, where the lock may not even be looked at.

    Examples
    --------
    >>> is_held("/nowhere/.lock")
    False
    """
    path = Path(path)
    return _probe(path) is True or _soft_held(_soft(path))


def _probe(path: Path) -> bool | None:
    """Tell whether the lock on ``path`` is held; None if there can be no locks."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):  # a link or a pipe is no lock
            return False
    except OSError:
        return False
    try:
        import fcntl
    except ImportError:  # Windows
        return _probe_by_taking(path)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:  # for an instant, and shared: to look at a lock needs no right to write
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in _NO_LOCKS else True
    finally:
        os.close(handle)
    return False


def _probe_by_taking(path: Path) -> bool:
    """Tell whether the lock on ``path`` is held, by trying to take it."""
    from filelock import FileLock

    return _is_taken(FileLock(path))


def _soft_held(marker: Path) -> bool:
    """Tell whether the file that stands for a lock is there and its process lives."""
    from filelock import SoftFileLock

    if not marker.is_file() or is_link(marker):
        return False
    return _is_taken(SoftFileLock(marker))


def _is_taken(lock: "BaseFileLock") -> bool:
    """Tell whether somebody holds the lock, by trying to take it."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False
