"""A block of work that does not depend on torch's global settings, nor change them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import torch

from gcelib.threads import SharedChange, float32_by_default

T = TypeVar("T")


@contextlib.contextmanager
def torch_defaults() -> Iterator[None]:
    """Work as in a fresh process, whatever the caller has set.

    Inside, the default dtype is float32 and the default device the CPU; autocast,
    inference mode and deterministic algorithms are off, gradients on; float32 products
    are exact. What the caller had set is there again afterwards. The number of threads
    is left alone.

    Autocast, the default device and gradients are a thread's own; the rest is the
    process's, and is put back when the last thread leaves.

    Never hold it across a ``yield`` to the caller: he would work under these settings.

    Examples
    --------
    >>> torch.set_default_dtype(torch.float64)
    >>> with torch_defaults():
    ...     inside = torch.ones(1).dtype
    >>> inside, torch.ones(1).dtype
    (torch.float32, torch.float64)
    >>> torch.set_default_dtype(torch.float32)
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(float32_by_default())
        stack.enter_context(usual_kernels())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.enable_grad())
        yield


def _use_usual_kernels(stack: contextlib.ExitStack) -> None:
    """Compute as a fresh process does until the stack is closed."""
    _deterministic_algorithms(stack)
    if not torch.backends.mkldnn.enabled:
        stack.enter_context(torch.backends.mkldnn.flags(enabled=True))
    _float32_products(stack)  # after the flags, which set a precision, too


#: A block whose kernels are those of a fresh process: float32 products are exact.
usual_kernels = SharedChange(_use_usual_kernels)


def _deterministic_algorithms(stack: contextlib.ExitStack) -> None:
    """Let torch choose its usual kernels until the stack is closed."""
    if torch.are_deterministic_algorithms_enabled():
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        stack.callback(torch.use_deterministic_algorithms, True, warn_only=warn_only)
        torch.use_deterministic_algorithms(False)


_EXACT = "highest"


def _float32_products(stack: contextlib.ExitStack) -> None:
    """Compute products of float32 tensors exactly until the stack is closed.

    PyTorch keeps two kinds of setting. The older ones are
    ``set_float32_matmul_precision`` and ``cudnn.allow_tf32``. The newer one is the
    ``fp32_precision`` of everything, of a backend and of each kind of operation in it,
    where the narrowest that was set holds. It refuses to tell the older ones where the
    newer ones differ, so that both kinds are set here.
    """
    older = _told(torch.get_float32_matmul_precision)
    everything, *backends = _wider()
    # The last to be done: what is above has its old value, and the older setters, which
    # change operations, have been called.
    for operation in _operations():
        stack.callback(_set, operation, operation.fp32_precision)
    # First "none" for everything, or a backend would give what it inherits as its own.
    for setting, precision in (
        (everything, "none"),
        *((backend, "ieee") for backend in backends),
        (everything, "ieee"),
    ):
        stack.callback(_set, setting, setting.fp32_precision)
        _set(setting, precision)
    for operation in _operations():
        _set(operation, "ieee")
    # Now an older setting that is not exact is told, or is not because it differs.
    remaining = _told(torch.get_float32_matmul_precision)
    if remaining != _EXACT:
        before = remaining or older or "high"
        stack.callback(torch.set_float32_matmul_precision, before)
        torch.set_float32_matmul_precision(_EXACT)
    if _told(lambda: torch.backends.cudnn.allow_tf32) is None:
        stack.callback(setattr, torch.backends.cudnn, "allow_tf32", True)
        torch.backends.cudnn.allow_tf32 = False


def _told(read: Callable[[], T]) -> T | None:
    """Read an older setting; None where PyTorch does not tell it."""
    try:
        return read()
    except RuntimeError:
        return None


class _Setting(Protocol):
    """What has a precision of its own or inherits a wider one's."""

    fp32_precision: str


def _wider() -> tuple[Any, ...]:
    """Return what holds for operations without a setting of their own."""
    return torch.backends, torch.backends.cudnn, torch.backends.mkldnn


def _operations() -> tuple[Any, ...]:
    """Return the kinds of operation that may have a setting of their own."""
    cudnn: Any = torch.backends.cudnn  # its stubs know no operations
    mkldnn: Any = torch.backends.mkldnn
    on_cuda = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    return *on_cuda, mkldnn.matmul, mkldnn.conv, mkldnn.rnn


def _set(setting: _Setting, precision: str) -> None:
    """Set a precision, unless it is in force; so what is inherited stays so."""
    if setting.fp32_precision != precision:
        setting.fp32_precision = precision
