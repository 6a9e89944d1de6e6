"""Gradients of one big batch, computed in small pieces.

A loss that couples the samples of a batch, as GCE does, is not the mean of its values
on smaller batches, so that plain accumulation of gradients trains with another loss.
Two passes are exact: the logits of the big batch are computed without gradients; the
loss is differentiated with respect to them; and each piece's share of that derivative
is sent back through the network.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from gcelib import _check


def accumulated_backward(
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    micro_batch_size: int,
) -> Tensor:
    """Add to ``.grad`` the gradients of the loss of one big batch, in small pieces.

    Memory is that of a piece, and of the big batch's logits. The network runs forward
    twice, which costs about a third more time than plain accumulation.

    The gradients are those of ``criterion(model(inputs), labels).backward()`` up to
    rounding if the network treats each sample by itself. Layers that do not:

    - *Dropout* and other random layers draw for each piece, and draw the same in both
      passes (the random states of the CPU and of the inputs' device are replayed), so
      that the gradients are exact for what was drawn. One big batch would draw others.
    - *Batch normalisation* in training mode sees the pieces: the gradients are exact
      for a network that normalises each piece by itself, not for one that normalises
      the big batch. Its running statistics move once for each piece, as in plain
      accumulation.

    Under ``DistributedDataParallel`` the gradients are averaged once, after the last
    piece; give the loss ``process_group="world"``. With ``torch.amp.GradScaler`` let
    the criterion scale: ``lambda logits, labels: scaler.scale(loss(logits, labels))``.

    Parameters
    ----------
    model : nn.Module
        Maps a piece of ``inputs`` to logits, (n, K).
    criterion : callable
        Maps logits (N, K) and labels to a scalar.
    inputs : (N, ...) tensor
        The big batch.
    labels : (N,) or (N, K) tensor
        What ``criterion`` takes.
    micro_batch_size : int
        Samples in a piece; the last piece may be smaller.

    Returns
    -------
    scalar tensor
        The loss of the big batch, without gradient.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed, or the model or criterion returns something else.

    Examples
    --------
    >>> from gcelib import GCELoss
    >>> model = nn.Linear(4, 3)
    >>> inputs, labels = torch.randn(10, 4), torch.arange(10) % 3
    >>> loss = accumulated_backward(model, GCELoss(), inputs, labels, 4)
    >>> whole = GCELoss()(model(inputs), labels)
    >>> torch.allclose(loss, whole)
    True
    >>> torch.allclose(model.weight.grad, torch.autograd.grad(whole, model.weight)[0])
    True
    """
    size = _check.number("micro_batch_size", micro_batch_size, 1, integer=True)
    for name, value in (("inputs", inputs), ("labels", labels)):
        if not isinstance(value, Tensor):
            problem = f"must be a torch tensor, got {type(value).__name__}"
            _check.fail(name, problem, "convert it", TypeError)
    if len(inputs) == 0 or len(labels) != len(inputs):
        problem = f"has {len(labels)} entries for {len(inputs)} inputs"
        _check.fail("labels", problem, "pass one label for each of at least one input")
    pieces = torch.split(inputs, size)

    logits, states = _logits_without_gradient(model, pieces)
    logits.requires_grad_()
    loss = criterion(logits, labels)
    if loss.ndim > 0:
        problem = f"returned shape {tuple(loss.shape)}"
        _check.fail("criterion", problem, "use reduction='mean' or 'sum'")
    torch.autograd.backward(loss)
    gradient = logits.grad
    if gradient is None:
        problem = "does not depend on the logits"
        _check.fail("criterion", problem, "return loss(logits, labels)")

    # Under autocast, weights cast without a gradient would be found in its cache.
    torch.clear_autocast_cache()
    shares = torch.split(gradient, size)
    last = len(pieces) - 1
    for i, (piece, share) in enumerate(zip(pieces, shares, strict=True)):
        _set_random_states(states[i])
        with _gradients_stay_here(model, wanted=i < last):
            torch.autograd.backward(model(piece), share)
    return loss.detach()


def _logits_without_gradient(
    model: nn.Module, pieces: tuple[Tensor, ...]
) -> tuple[Tensor, list[dict[torch.device, Tensor]]]:
    """The logits of all pieces, and the random states before each of them.

    The model is left as it was: running statistics are to move once, in the second
    pass.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    logits = []
    states = []
    with torch.no_grad():
        for piece in pieces:
            states.append(_random_states(piece.device))
            logits.append(model(piece))
        for buffer, value in buffers:
            buffer.copy_(value)
    for piece, found in zip(pieces, logits, strict=True):
        if not isinstance(found, Tensor) or found.shape[:1] != piece.shape[:1]:
            what = getattr(found, "shape", type(found).__name__)
            problem = f"returned {what} for {len(piece)} inputs"
            _check.fail("model", problem, "return logits (n, K)", TypeError)
    return torch.cat(logits), states


def _random_states(device: torch.device) -> dict[torch.device, Tensor]:
    """The states of the generators that a forward pass on ``device`` may draw from."""
    states = {torch.device("cpu"): torch.get_rng_state()}
    if device.type in ("cuda", "xpu"):
        states[device] = torch.get_device_module(device).get_rng_state(device)
    elif device.type == "mps":
        states[device] = torch.mps.get_rng_state()
    return states


def _set_random_states(states: dict[torch.device, Tensor]) -> None:
    """Go back to states of ``_random_states``."""
    for device, state in states.items():
        if device.type == "cpu":
            torch.set_rng_state(state)
        elif device.type == "mps":
            torch.mps.set_rng_state(state)
        else:
            torch.get_device_module(device).set_rng_state(state, device)


@contextlib.contextmanager
def _gradients_stay_here(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Do not average gradients over processes yet, where the model would."""
    no_sync = getattr(model, "no_sync", None)
    if wanted and no_sync is not None:
        with no_sync():
            yield
    else:
        yield
