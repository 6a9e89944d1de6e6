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
from torch.nn.utils import parametrize

from gcelib import _check
from gcelib._random import RandomStates, random_states, set_random_states

#: Whose a buffer is, its name, itself, and what it held.
_Buffer = tuple[nn.Module, str, Tensor, Tensor]


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
      passes (the random states of Python, numpy, the CPU and the devices of inputs
      and weights are replayed), so that the gradients are exact for what was drawn. One
      big batch would draw others. What is drawn next follows what the criterion drew,
      as without pieces; what other threads draw meanwhile may be drawn again. A layer
      with a generator of its own cannot be replayed: on a CPU a warning tells that
      logits differ between the passes.
    - *Batch normalisation* in training mode sees the pieces: the gradients are exact
      for a network that normalises each piece by itself, not for one that normalises
      the big batch. Its running statistics move once for each piece, as in plain
      accumulation.

    Hooks on weights (``register_hook``, ``register_post_accumulate_grad_hook``) are
    called for each piece, with its share of the gradient; what they clip, or step by,
    is told. Clip ``.grad`` afterwards.

    The criterion learns of the samples by its two arguments. What it reads inside the
    model, such as activations kept for a penalty, is of the last piece alone and has no
    gradient: let the loop add such a term piece by piece.

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
        What ``criterion`` gives for the big batch, without gradient: its loss, or what
        a scaler made of that (divide by ``scaler.get_scale()`` to log it).

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed, the model or criterion returns something else,
        gradients are switched off, or parametrized weights are cached
        (``torch.nn.utils.parametrize.cached``).

    Warns
    -----
    UserWarning
        If the model gave other logits in the second pass; looked at on a CPU alone. If
        a weight has a hook and there is more than one piece.

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
    if not torch.is_grad_enabled():
        cure = "call it outside torch.no_grad and inference_mode"
        _check.fail("accumulated_backward", "gradients are switched off", cure)
    if getattr(parametrize, "_cache_enabled", 0):
        problem = "is called within torch.nn.utils.parametrize.cached(), which keeps "
        problem += "the weights of the first pass, that have no gradient"
        _check.fail("accumulated_backward", problem, "leave that block first")
    pieces = torch.split(inputs, size)
    if len(pieces) > 1:
        _warn_of_hooks(model)

    devices = {inputs.device, *(weight.device for weight in model.parameters())}
    logits, states = _logits_without_gradient(model, pieces, devices)
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
    before = torch.split(logits.detach(), size)
    last = len(pieces) - 1
    # The criterion may have drawn, too: what comes next goes on after it.
    drawn = random_states(devices)
    try:
        for i, piece in enumerate(pieces):
            set_random_states(states[i])
            with _gradients_stay_here(model, wanted=i < last):
                again = model(piece)
                _warn_of_other_logits(before[i], again)
                torch.autograd.backward(again, shares[i])
    finally:
        set_random_states(drawn)
    return loss.detach()


def _logits_without_gradient(
    model: nn.Module, pieces: tuple[Tensor, ...], devices: set[torch.device]
) -> tuple[Tensor, list[RandomStates]]:
    """The logits of all pieces, and the random states before each of them.

    The model and its inputs are left as they were: running statistics are to move once,
    in the second pass.
    """
    buffers = _buffers(model)
    logits = []
    states = []
    with torch.no_grad(), _kept_once_sent(model, buffers):
        for piece in pieces:
            states.append(random_states(devices))
            logits.append(model(piece.clone()))  # it may write to its input
        for module, name, buffer, value in buffers:
            if getattr(module, name) is not buffer:  # the forward pass put another one
                setattr(module, name, buffer)
            if not _is_expanded(buffer):  # such a one cannot be written to
                buffer.copy_(value)
    for piece, found in zip(pieces, logits, strict=True):
        if not isinstance(found, Tensor) or found.shape[:1] != piece.shape[:1]:
            what = getattr(found, "shape", type(found).__name__)
            problem = f"returned {what} for {len(piece)} inputs"
            _check.fail("model", problem, "return logits (n, K)", TypeError)
    return torch.cat(logits), states


def _buffers(model: nn.Module) -> list[_Buffer]:
    """Every buffer: whose it is, its name, itself, and what it holds now."""
    found = []
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if nn.parameter.is_lazy(buffer):
                cure = "run model(inputs[:1]) once before"
                _check.fail("model", "has buffers without a shape yet", cure)
            found.append((module, name, buffer, buffer.clone()))
    return found


@contextlib.contextmanager
def _kept_once_sent(model: nn.Module, buffers: list[_Buffer]) -> Iterator[None]:
    """Keep the buffers that DDP sends to all processes when a step begins.

    It sends those of the first process before the first forward pass, and not again
    before the second one: what was there before would be put back.
    """
    is_first = True

    def keep(*_: object) -> None:
        nonlocal is_first
        if is_first:
            for _module, _name, buffer, value in buffers:
                value.copy_(buffer)
        is_first = False

    with contextlib.ExitStack() as hooks:
        for part in model.modules():
            if isinstance(part, nn.parallel.DistributedDataParallel):
                hook = part.module.register_forward_pre_hook(keep)
                hooks.callback(hook.remove)
        yield


def _is_expanded(tensor: Tensor) -> bool:
    """Tell whether several elements share one place in memory."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return any(step == 0 and length > 1 for length, step in sizes)


def _warn_of_hooks(model: nn.Module) -> None:
    """Tell that hooks on weights see the gradient of a piece, not of the batch."""
    for name, weight in model.named_parameters():
        hooks = (weight._backward_hooks, weight._post_accumulate_grad_hooks)
        if any(hooks):
            _check.warn(
                f"model: {name} has a hook, which is called for each piece, with its "
                "share of the gradient; remove it, and do that to .grad afterwards"
            )
            return


def _warn_of_other_logits(before: Tensor, again: Tensor) -> None:
    """Say so if the second pass is not a replay of the first; on a CPU alone."""
    if before.device.type != "cpu" or before.shape != again.shape:
        return
    # Kernels with and without gradients round differently: by far less than this.
    allowed = 0.05 * float(before.abs().max())
    if float((again.detach() - before).abs().max()) > allowed:
        _check.warn(
            "model: gave other logits when it was run again on the same inputs, so that"
            " these gradients are not those of the loss; draw random numbers from the"
            " global generators, and keep what a forward pass changes in buffers"
        )


@contextlib.contextmanager
def _gradients_stay_here(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Do not average gradients over processes yet, where the model would."""
    no_sync = getattr(model, "no_sync", None)
    if wanted and no_sync is not None:
        with no_sync():
            yield
    else:
        yield
