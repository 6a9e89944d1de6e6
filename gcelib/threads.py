"""Settings of the whole process, which several threads may change at once."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

__all__ = ["SharedChange", "float32_by_default"]


@dataclass(eq=False)
class _Block:
    """One ``with`` block: what undoes its change, and whether it was left."""

    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    is_left: bool = False


class SharedChange:
    """A change of the process's settings for a block, right in several threads, too.

    Two blocks that overlap in time, each putting back what it found when it is left,
    would leave the process as the second one found it: changed by the first. Here a
    block's change is undone once all that were entered after it are left.

    Parameters
    ----------
    make : callable
        Makes the change, and pushes what undoes it on the stack that it is given. What
        undoes it may run in another thread.

    Examples
    --------
    >>> torch.set_default_dtype(torch.float64)
    >>> with float32_by_default():
    ...     inside = torch.ones(1).dtype
    >>> inside, torch.ones(1).dtype
    (torch.float32, torch.float64)
    >>> torch.set_default_dtype(torch.float32)
    """

    def __init__(self, make: Callable[[contextlib.ExitStack], None]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._blocks: list[_Block] = []

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Make the change for a block."""
        block = _Block()
        try:
            with self._lock:
                self._blocks.append(block)
                self._make(block.undo)
            yield
        finally:
            with self._lock:
                block.is_left = True
                while self._blocks and self._blocks[-1].is_left:
                    self._blocks.pop().undo.close()


def _make_float32_the_default(undo: contextlib.ExitStack) -> None:
    """Make float32 the default dtype until the stack is closed."""
    undo.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(torch.float32)


#: ``with float32_by_default():`` torch's default dtype is float32 in the block.
float32_by_default = SharedChange(_make_float32_the_default)
