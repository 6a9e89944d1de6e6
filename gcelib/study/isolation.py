"""A block of work that does not depend on torch's global settings, nor change them."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def torch_defaults() -> Iterator[None]:
    """Work as in a fresh process, whatever the caller has set.

    Inside, the default dtype is float32 and the default device the CPU; autocast,
    inference mode and deterministic algorithms are off, gradients on; float32 products
    are exact. What the caller had set is there again afterwards. The number of threads
    is left alone.

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
        _default_dtype(stack)
        _deterministic_algorithms(stack)
        _matmul_precision(stack)
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.enable_grad())
        if not torch.backends.mkldnn.enabled:
            stack.enter_context(torch.backends.mkldnn.flags(enabled=True))
        yield


def _default_dtype(stack: contextlib.ExitStack) -> None:
    """Make float32 the default dtype until the stack is closed."""
    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(torch.float32)


def _deterministic_algorithms(stack: contextlib.ExitStack) -> None:
    """Let torch choose its usual kernels until the stack is closed."""
    if torch.are_deterministic_algorithms_enabled():
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        stack.callback(torch.use_deterministic_algorithms, True, warn_only=warn_only)
        torch.use_deterministic_algorithms(False)


def _matmul_precision(stack: contextlib.ExitStack) -> None:
    """Multiply float32 matrices in float32 until the stack is closed."""
    before = torch.get_float32_matmul_precision()
    if before != "highest":
        stack.callback(torch.set_float32_matmul_precision, before)
        torch.set_float32_matmul_precision("highest")
