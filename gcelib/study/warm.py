"""Fresh processes that need not import anything: forked from one that already has.

Starting Python, importing PyTorch and starting a kernel takes seconds of CPU time
before a run begins. :class:`Workers` pays for that once. It starts one process, the
*nursery*, which imports what runs need and computes nothing; every call is executed by
a fork of it. So a call finds everything imported, and whatever it does to its process
(a failure, another working directory, seeds, global settings of PyTorch) ends with it.

Nursery and caller talk through the pipes of standard input and output: nothing listens
anywhere, so nobody else on the machine can reach it. When the caller dies, however it
dies, the nursery reads the end of its input, and it and its forks end at once.

Only Linux forks a process that has PyTorch in it safely. Elsewhere every call gets a
new Python, which costs the imports again.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

_CAN_FORK = sys.platform.startswith("linux")

#: What a run imports in any case. Nothing here starts a thread or touches a GPU.
PRELOAD = (
    "papermill",
    "ipykernel.debugger",
    "ipykernel.inprocess.ipkernel",
    "ipykernel.inprocess.manager",
    "matplotlib.pyplot",
    "gcelib.study.trainer",
    "gcelib.view.plots",
    "pandas",
    "sklearn.datasets",
    "torch._dynamo",
)

_NURSERY_DIED = "the process that runs are forked from was killed"

_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from gcelib.study import warm
warm.serve(json.loads(sys.argv[2]))
"""


@dataclass(frozen=True)
class Reply:
    """How a call ended.

    Attributes
    ----------
    name : str
        The call's name, as given to :meth:`Workers.start`.
    value : object
        What the function returned, after a way through JSON; None if it failed.
    error : str
        Empty, or why there is no value: the exception, or what killed the process.
    """

    name: str
    value: Any
    error: str


class Workers:
    """Processes of this machine that execute calls, one call a process.

    Parameters
    ----------
    environments : sequence of mappings
        A worker for each: the environment variables that its calls see beside this
        process's.
    threads : int, optional
        Threads of PyTorch and numpy in each call; by default as in this process.
    preload : sequence of str, optional
        Modules that calls shall find imported; what is missing is passed over.

    Examples
    --------
    >>> with Workers([{}, {}], preload=[]) as workers:
    ...     workers.start("a", "math:hypot", 3, 4)
    ...     workers.wait()
    Reply(name='a', value=5.0, error='')
    """

    def __init__(
        self,
        environments: Sequence[Mapping[str, str]],
        threads: int | None = None,
        preload: Sequence[str] = PRELOAD,
    ) -> None:
        self.environments = [dict(environment) for environment in environments]
        self.threads = threads
        self.preload = list(preload)
        self._idle = list(range(len(self.environments)))
        self._slots: dict[str, int] = {}
        self._events: queue.Queue[tuple[_Server, dict[str, Any] | None]] = queue.Queue()
        self._servers: list[_Server] = []
        self._entered = 0

    def __enter__(self) -> Workers:
        """Return the workers themselves; the nursery starts with the first call."""
        self._entered += 1
        return self

    def __exit__(self, *details: object) -> None:
        """End every process, unless an outer ``with`` keeps them for the next sweep."""
        self._entered -= 1
        if not self._entered or self._slots:
            self.close()

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        return len(self._idle)

    @property
    def busy(self) -> list[str]:
        """Names of the calls that have not ended."""
        return list(self._slots)

    def start(self, name: str, function: str, *arguments: object) -> None:
        """Let an idle worker call ``function``.

        Parameters
        ----------
        name : str
            Names the call in its :class:`Reply`; one that is not busy.
        function : str
            ``"module:function"``.
        *arguments : object
            Its arguments; what JSON can hold, and numpy's numbers.

        Raises
        ------
        RuntimeError
            If no worker is idle.
        """
        if not self._idle:
            raise RuntimeError("workers: none is idle; wait() for one")
        slot = self._idle.pop(0)
        self._slots[name] = slot
        request = {
            "name": name,
            "function": function,
            "arguments": arguments,
            "environment": self.environments[slot],
        }
        self._server().send(request)

    def _server(self) -> _Server:
        """Return the process that takes the next call."""
        alive = [server for server in self._servers if not server.dead]
        if _CAN_FORK and alive:
            return alive[0]
        server = _Server(self._events, self.threads, self.preload)
        self._servers.append(server)
        return server

    def wait(self, timeout: float | None = None) -> Reply | None:
        """Wait until a call has ended.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        Reply or None
            None after ``timeout`` seconds.
        """
        while True:
            try:
                server, answer = self._events.get(timeout=timeout)
            except queue.Empty:
                return None
            if server not in self._servers:
                continue  # late news of a process that we have closed
            if answer is not None:
                reply = Reply(**answer)
                server.calls.discard(reply.name)
            elif server.calls:
                # The whole process is gone; the rest of its calls will be told, too.
                server.dead = True
                reply = Reply(server.calls.pop(), None, _NURSERY_DIED)
                self._events.put((server, None))
            else:
                self._forget(server)
                continue
            if not _CAN_FORK:
                self._forget(server)
            self._idle.append(self._slots.pop(reply.name))
            return reply

    def _forget(self, server: _Server) -> None:
        """End a process that serves no more."""
        self._servers.remove(server)
        server.close()

    def close(self) -> None:
        """End every process at once."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._slots.clear()
        self._idle = list(range(len(self.environments)))


class _Server:
    """The caller's end of one process that serves."""

    def __init__(
        self,
        events: queue.Queue[tuple[_Server, dict[str, Any] | None]],
        threads: int | None,
        preload: list[str],
    ) -> None:
        environment = os.environ | {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        environment["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
        if threads is not None:
            for library in ("OMP", "MKL", "OPENBLAS"):
                environment[f"{library}_NUM_THREADS"] = str(threads)
        self.calls: set[str] = set()
        self.dead = False
        path = json.dumps([folder for folder in sys.path if folder])
        modules = json.dumps(preload)
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _START, path, modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is the caller's to handle
        )
        self._input = cast(IO[bytes], self._process.stdin)
        self._output = cast(IO[bytes], self._process.stdout)
        reader = threading.Thread(target=self._read, args=(events,), daemon=True)
        reader.start()

    def _read(self, events: queue.Queue[tuple[_Server, dict[str, Any] | None]]) -> None:
        """Hand on what the process writes, and at last that it has ended."""
        # A process that is killed may leave half a line.
        with contextlib.suppress(ValueError), self._output as replies:
            for line in replies:
                events.put((self, json.loads(line)))
        events.put((self, None))

    def send(self, request: dict[str, Any]) -> None:
        """Write one request; one that the process does not live to read is answered."""
        self.calls.add(request["name"])
        line = json.dumps(request, default=_plain_number) + "\n"
        with contextlib.suppress(OSError):
            self._input.write(line.encode())
            self._input.flush()

    def close(self) -> None:
        """End the process and its forks."""
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _plain_number(value: object) -> object:
    """Return the Python number that a numpy scalar holds, for JSON."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} cannot be written as JSON")


# --- the other side -------------------------------------------------------------------


def serve(preload: Sequence[str]) -> None:
    """Read requests from standard input, and answer them, until the input ends.

    Parameters
    ----------
    preload : sequence of str
        Modules to import before the first request.
    """
    requests = os.dup(0)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what anybody prints must not come between the replies
    # A caller that ignores it hands that on, and then no fork could be waited for.
    if _CAN_FORK:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if _CAN_FORK:
        _preload(preload)
        _Nursery(requests, replies).serve()
    else:
        _serve_once(requests, replies)


def _serve_once(requests: int, replies: IO[bytes]) -> None:
    """Answer one request in this very process."""
    with os.fdopen(requests, "rb", buffering=0) as lines:
        request = json.loads(lines.readline())
        watch = threading.Thread(target=_die_with_caller, args=(lines,), daemon=True)
        watch.start()
        _reply(replies, _answer(request))
        os._exit(0)


def _die_with_caller(lines: IO[bytes]) -> None:
    """End this process when the caller's end of the pipe is closed."""
    lines.read()
    os._exit(1)


def _reply(replies: IO[bytes], answer: dict[str, Any]) -> None:
    """Write one answer; nobody may be left to read it."""
    with contextlib.suppress(OSError):
        line = json.dumps(answer, default=_plain_number) + "\n"
        _write_all(replies, line.encode())


def _write_all(pipe: IO[bytes], content: bytes | bytearray) -> None:
    """Write all of it: an unbuffered pipe may take less at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[pipe.write(rest) :]


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what ``request`` asks, in this process."""
    answer = {"name": request["name"], "value": None, "error": ""}
    os.environ.update(request["environment"])
    module, function = request["function"].split(":")
    try:
        called = getattr(importlib.import_module(module), function)
        answer["value"] = called(*request["arguments"])
    except BaseException as error:
        if str(error):
            answer["error"] = str(error)
        else:
            answer["error"] = traceback.format_exception_only(error)[-1].strip()
    return answer


@dataclass
class _Child:
    """A fork: its request, where its answer arrives, and what it has printed."""

    name: str
    pid: int
    answer: bytearray
    printed: IO[bytes]


class _Nursery:
    """The process that has imported everything and forks one for each request."""

    def __init__(self, requests: int, replies: IO[bytes]) -> None:
        self.requests = requests
        self.replies = replies
        self.pid = os.getpid()
        self.selector = selectors.DefaultSelector()
        self.selector.register(requests, selectors.EVENT_READ)
        self.unread = b""

    def serve(self) -> None:
        """Fork for every request, and hand on what the forks answer."""
        while True:
            for key, _ in self.selector.select():
                if isinstance(key.data, _Child):
                    self.listen(key.fd, key.data)
                else:
                    self.read_requests()

    def read_requests(self) -> None:
        """Take what the caller has written; its end is ours."""
        chunk = os.read(self.requests, 1 << 16)
        if not chunk:
            for key in list(self.selector.get_map().values()):
                if isinstance(key.data, _Child):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(key.data.pid, signal.SIGKILL)
            os._exit(0)
        *lines, self.unread = (self.unread + chunk).split(b"\n")
        for line in lines:
            self.fork(json.loads(line))

    def fork(self, request: dict[str, Any]) -> None:
        """Fork a process for ``request``."""
        with contextlib.ExitStack() as undo:
            try:
                printed = undo.enter_context(tempfile.TemporaryFile())
                answer, ours = os.pipe()
                undo.callback(os.close, answer)
                undo.callback(os.close, ours)
                pid = os.fork()
            except OSError as error:  # no room for a file, or for one more process
                problem = f"no process could be started for it ({error})"
                name = request["name"]
                _reply(self.replies, {"name": name, "value": None, "error": problem})
                return
            undo.pop_all()
        if pid == 0:
            try:
                os.close(answer)
                self.be_born(printed)
                with os.fdopen(ours, "wb", buffering=0) as pipe:
                    _reply(pipe, _answer(request))
            finally:
                os._exit(0)
        os.close(ours)
        child = _Child(request["name"], pid, bytearray(), printed)
        self.selector.register(answer, selectors.EVENT_READ, child)

    def be_born(self, printed: IO[bytes]) -> None:
        """Leave everything of the nursery behind; runs in the new process."""
        # The kernel kills this process when the nursery dies: never a second writer.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != self.pid:  # it died before it could be watched
            os._exit(1)
        for key in list(self.selector.get_map().values()):
            os.close(key.fd)
        self.selector.close()
        self.replies.close()
        # What libraries print past Python may say why a process died.
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        _draw_anew()

    def listen(self, pipe: int, child: _Child) -> None:
        """Take what ``child`` has answered; at the pipe's end it has ended."""
        chunk = os.read(pipe, 1 << 16)
        if chunk:
            child.answer += chunk
            return
        self.selector.unregister(pipe)
        os.close(pipe)
        _, status = os.waitpid(child.pid, 0)
        if child.answer.endswith(b"\n"):
            _write_all(self.replies, child.answer)
        else:
            problem = _cause_of_death(status, child.printed)
            _reply(self.replies, {"name": child.name, "value": None, "error": problem})
        child.printed.close()


def _draw_anew() -> None:
    """Let no two forks draw the same numbers, as Python sees to it for its own."""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def _cause_of_death(status: int, printed: IO[bytes]) -> str:
    """Say what ended a process that left no answer."""
    code = os.waitstatus_to_exitcode(status)
    cause = f"ended with code {code}"
    if code < 0:
        cause = f"was killed by signal {-code} ({signal.Signals(-code).name})"
    printed.seek(0)
    last = printed.read()[-2000:].decode(errors="replace").strip()
    return f"the run's process {cause}" + (f"; its last words:\n{last}" if last else "")


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Let imports of optional modules fail for a while, to save what they cost.

    Parameters
    ----------
    *names : str
        Modules that whoever is imported meanwhile can do without. Those that are
        imported already stay.

    Examples
    --------
    >>> with hidden("antigravity"):
    ...     import antigravity
    Traceback (most recent call last):
    ModuleNotFoundError: import of antigravity halted; None in sys.modules
    """
    absent = [name for name in names if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            modules.pop(name, None)


def _preload(modules: Sequence[str]) -> None:
    """Import what runs need, so that their processes find it there."""
    # debugpy: nobody can attach a debugger to a fork. rfc3987_syntax takes two seconds;
    # jsonschema would use it to judge addresses in notebooks' metadata.
    with hidden("debugpy", "rfc3987_syntax"):
        for name in modules:
            # What is missing, the run itself will say.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that forks go on sharing this memory
