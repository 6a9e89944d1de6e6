"""How papermill executes our notebooks: two engines (see :mod:`.papermill_plugin`).

``gcelib`` (:class:`InProcessEngine`) executes the cells in papermill's own process.
There is no kernel to start and no socket to listen on; a sweep forks a process for each
run and uses it there.

The default one (:class:`WatchedEngine`) is papermill's own, a kernel for the notebook,
with two additions for notebooks that use gcelib: the traffic with the kernel is
encrypted, and the line in which the notebook tells how far it is appears in the
terminal. Nothing here imports torch.
"""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
from queue import Empty
from typing import IO, Any

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import KernelManager
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NBClientEngine, NotebookExecutionManager
from papermill.log import logger
from traitlets import Type

from gcelib.study.warm import hidden

#: What the display ids of progress lines and of tables begin with.
PROGRESS = "gcelib-progress"
TABLE = "gcelib-table"

#: Set where nobody sees what a notebook draws before it has ended: curves can wait.
HEADLESS = "GCELIB_HEADLESS"


class _Client(PapermillNotebookClient):  # type: ignore[misc] # papermill has no types
    """Papermill's client, which also shows the notebook's progress line."""

    def process_message(
        self, msg: dict[str, Any], cell: NotebookNode, cell_index: int
    ) -> NotebookNode | None:
        """Put a message of the kernel into the notebook; show a progress line."""
        output: NotebookNode | None = super().process_message(msg, cell, cell_index)
        kind, text = _sign_of_life(msg)
        if not text:
            return output
        bar = self.nb_man.pbar
        if self.log_output:
            self.log.info(text)
        elif bar is not None and kind == PROGRESS:
            # Papermill's bar stands still while a cell runs: let it show this instead.
            bar.bar_format = "{desc}"
            bar.set_description_str(_fitting(text), refresh=True)
        elif bar is not None:
            bar.write(text, file=bar.fp)
        return output

    def execute_cell(
        self, cell: NotebookNode, cell_index: int, **kwargs: object
    ) -> NotebookNode:
        """Execute one cell; afterwards the bar is papermill's again."""
        try:
            return self._execute(cell, cell_index, **kwargs)
        finally:
            bar = self.nb_man.pbar
            if bar is not None and bar.bar_format is not None:
                bar.bar_format = None
                bar.set_description("Executing", refresh=False)

    def _execute(
        self, cell: NotebookNode, cell_index: int, **kwargs: object
    ) -> NotebookNode:
        """Execute one cell in the kernel."""
        executed: NotebookNode = super().execute_cell(cell, cell_index, **kwargs)
        return executed


def _sign_of_life(msg: dict[str, Any]) -> tuple[str, str]:
    """Kind and text of a progress line or table that ``msg`` renews; else no text."""
    if msg["msg_type"] == "update_display_data":
        content = msg["content"]
        display_id = (content.get("transient") or {}).get("display_id") or ""
        for kind in (PROGRESS, TABLE):
            if display_id.startswith(kind):
                return kind, str(content["data"].get("text/plain", ""))
    return "", ""


def _fitting(text: str) -> str:
    """``text`` without as many of its middle parts as the terminal has no room for."""
    width = shutil.get_terminal_size().columns
    parts = text.split(" · ")
    while len(" · ".join(parts)) >= width and len(parts) > 2:
        del parts[len(parts) // 2]
    return " · ".join(parts)


# --- the default engine, a kernel for the notebook ------------------------------------


#: So long, in seconds, a channel waits before it looks again.
_LOOK_AGAIN = 1.0


class _WatchfulChannel(AsyncZMQSocketChannel):  # type: ignore[misc] # it says no types
    """A channel that looks again now and then whether a message has come.

    Where a message is sent just when one comes, as nbclient does for widgets, the
    socket forgets to say so, and who waits without end would never hear of it.
    """

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for a message, ``timeout`` seconds at most; else ``queue.Empty``."""
        ends = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = ends - time.monotonic()
            try:
                wait = min(max(left, 0), _LOOK_AGAIN)
                message: dict[str, Any] = await super().get_msg(wait)
                return message
            except Empty:
                if left <= _LOOK_AGAIN:
                    raise


class _WatchfulKernelClient(AsyncKernelClient):  # type: ignore[misc] # it says none
    """Jupyter's client with such a channel for the kernel's replies."""

    shell_channel_class = Type(_WatchfulChannel)


class _KernelClient(_Client):
    """A client that misses no reply, and whose kernel speaks encrypted if it can."""

    def create_kernel_manager(self) -> KernelManager:
        """Return nbclient's kernel manager, told to encrypt, with our kernel client."""
        manager: KernelManager = super().create_kernel_manager()
        manager.client_factory = _WatchfulKernelClient
        if manager.has_trait("transport_encryption"):  # since jupyter_client 8.9
            manager.transport_encryption = "auto"
        return manager


class WatchedEngine(NBClientEngine):  # type: ignore[misc] # papermill has no types
    """Papermill's default engine; watched and encrypted if the notebook uses gcelib."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: IO[str] | None = None,
        stderr_file: IO[str] | None = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        **kwargs: object,
    ) -> None:
        """Execute all cells in a new kernel.

        Parameters
        ----------
        nb_man : NotebookExecutionManager
            Papermill's bookkeeping of the notebook.
        kernel_name : str
            Which kernel to start.
        log_output : bool, default False
            Log what cells print and show.
        stdout_file, stderr_file : file, optional
            Where papermill copies the streams to.
        start_timeout : int, default 60
            Seconds that the kernel has to start.
        execution_timeout : int, optional
            Seconds that a cell may take.
        **kwargs : object
            What else papermill was given for nbclient.
        """
        ours = any("gcelib" in cell.source for cell in nb_man.nb.cells)
        if not ours:
            super().execute_managed_notebook(
                nb_man,
                kernel_name,
                log_output=log_output,
                stdout_file=stdout_file,
                stderr_file=stderr_file,
                start_timeout=start_timeout,
                execution_timeout=execution_timeout,
                **kwargs,
            )
            return
        for name in ("input_path", "startup_timeout"):
            kwargs.pop(name, None)
        timeout = kwargs.pop("timeout", None)
        client = _KernelClient(
            nb_man,
            timeout=execution_timeout or timeout,
            startup_timeout=start_timeout,
            kernel_name=kernel_name,
            log=logger,
            log_output=log_output,
            stdout_file=stdout_file,
            stderr_file=stderr_file,
            **kwargs,
        )
        client.execute(env=os.environ | {HEADLESS: "1"})


# --- the engine without a kernel ------------------------------------------------------


class _InProcessClient(_Client):
    """Executes cells with IPython in this process; keeps outputs as nbclient does."""

    def __init__(self, nb_man: NotebookExecutionManager, **options: object) -> None:
        super().__init__(nb_man, **options)
        self._client: Any = None  # ipykernel says no types
        self._index = 0  # of the cell that is executed
        self._told_idle = threading.Event()
        self._problem: Exception | None = None  # met while a message was taken

    def execute(self, **kwargs: object) -> NotebookNode:
        """Execute the whole notebook."""
        # Heavy, and not needed by the commands that only load this module.
        with hidden("debugpy"):  # nobody can attach a debugger to this kernel
            import ipykernel.debugger  # noqa: F401
        from ipykernel.inprocess.manager import InProcessKernelManager
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        if InteractiveShell.initialized():
            raise RuntimeError(
                "engine: 'gcelib' wants a process of its own and this one already runs "
                "notebook cells; leave engine_name out"
            )
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
        os.environ[HEADLESS] = "1"
        self.reset_execution_trackers()
        without_history = Config({"HistoryManager": {"enabled": False}})
        # IPython says no types.
        manager: Any = InProcessKernelManager(config=without_history)
        manager.start_kernel()
        self._client = manager.client()
        self._client.start_channels()
        self._client.iopub_channel.call_handlers = self._receive
        try:
            self.papermill_execute_cells()
        finally:
            manager.shutdown_kernel()
            InteractiveShell.clear_instance()
        executed: NotebookNode = self.nb
        executed.metadata["language_info"] = {"name": "python"}
        return executed

    def _receive(self, msg: dict[str, Any]) -> None:
        """Take one message of the kernel; called in its output thread."""
        if msg["msg_type"] == "status":
            if msg["content"]["execution_state"] == "idle":
                self._told_idle.set()
            return
        index = self._index
        try:
            self.process_message(msg, self.nb.cells[index], index)
        except Exception as error:  # raised here, it would only stop the messages
            self._problem = error

    def _execute(
        self, cell: NotebookNode, cell_index: int, **kwargs: object
    ) -> NotebookNode:
        """Execute one cell; an error in it is a CellExecutionError, as in nbclient."""
        if cell.cell_type != "code" or not cell.source.strip():
            return cell
        cell.outputs = []
        self._index = cell_index
        self._told_idle.clear()
        self._problem = None
        self.clear_before_next_output = False
        may_fail = "raises-exception" in cell.metadata.get("tags", [])
        self._client.execute(cell.source, allow_stdin=False, stop_on_error=not may_fail)
        self._told_idle.wait()  # the last of the cell's messages
        if self._problem is not None:
            raise self._problem
        reply = self._client.get_shell_msg()["content"]
        if reply["status"] == "error" and not may_fail:
            raise CellExecutionError.from_cell_and_msg(cell, reply)
        return cell


class InProcessEngine(Engine):  # type: ignore[misc] # papermill has no types
    """Executes a notebook in the process that asks for it, without a kernel.

    For processes that have nothing else to do. What the notebook leaves in this process
    (working directory, settings of torch, imported modules) stays there; so a sweep
    forks a process for each run, which ends with it.
    """

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: IO[str] | None = None,
        stderr_file: IO[str] | None = None,
        **kwargs: object,
    ) -> None:
        """Execute all cells here.

        Parameters
        ----------
        nb_man : NotebookExecutionManager
            Papermill's bookkeeping of the notebook.
        kernel_name : str
            Ignored: it is this Python.
        log_output : bool, default False
            Log what cells print and show.
        stdout_file, stderr_file : file, optional
            Where papermill copies the streams to.
        **kwargs : object
            Options for kernels, which do not apply.

        Raises
        ------
        RuntimeError
            In a process that is already somebody's kernel.
        """
        client = _InProcessClient(
            nb_man,
            log=logger,
            log_output=log_output,
            stdout_file=stdout_file,
            stderr_file=stderr_file,
            store_widget_state=False,
            record_timing=False,
        )
        client.execute()
