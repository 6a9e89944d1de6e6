"""What a loss keeps beside its state: no checkpoint has that.

A loss may learn while it trains. What it keeps by ``register_buffer`` is in its
``state_dict``, and so in every checkpoint. A list, an array of numpy, a counter or a
generator of its own is not: a run that was stopped would go on with a loss that had
forgotten it, and end otherwise. Where such things lie cannot be listed; whether they
matter can be seen.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gcelib._check import fail, warn
from gcelib._random import seeded

#: Two computations of one number in float32 differ by less, on a GPU, too.
_CLOSE = 1e-5


def refuse_what_no_file_keeps(
    criterion: nn.Module,
    make: Callable[[], nn.Module],
    size: tuple[int, int],
    device: torch.device,
) -> None:
    """Refuse a loss that is another one than a new loss with its state.

    Both see one batch of made-up logits, and are compared by value and gradient; if
    they have a method ``update``, once more after it. Of the loss that trains a copy is
    asked.

    Parameters
    ----------
    criterion : torch.nn.Module
        The loss that has trained.
    make : callable
        Makes it anew, on the device.
    size : pair of int
        Samples of the batch, and classes.
    device : torch.device
        Where the loss is.

    Raises
    ------
    ValueError
        If a new loss cannot take the state, or with it gives another value, or other
        gradients.

    Warns
    -----
    UserWarning
        If the loss cannot be copied, so that nobody can look.

    Examples
    --------
    >>> class Growing(nn.CrossEntropyLoss):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.seen = []
    ...
    ...     def forward(self, logits, labels):
    ...         self.seen.append(len(labels))
    ...         return len(self.seen) * super().forward(logits, labels)
    >>> criterion = Growing()
    >>> refuse_what_no_file_keeps(criterion, Growing, (8, 3), torch.device("cpu"))
    >>> _ = criterion(torch.zeros(2, 3), torch.tensor([0, 1]))
    >>> refuse_what_no_file_keeps(criterion, Growing, (8, 3), torch.device("cpu"))
    Traceback (most recent call last):
    ValueError: loss: keeps something beside its state_dict...
    """
    try:
        trained = copy.deepcopy(criterion)
        state = copy.deepcopy(criterion.state_dict())
    except Exception as error:  # whatever it holds may raise what it likes
        warn(
            f"loss: cannot be copied ({type(error).__name__}: {error}), so that nobody "
            "sees whether a checkpoint keeps all that it learns; keep that by "
            "register_buffer, and no tensors with a gradient"
        )
        return
    new = make()
    try:
        new.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        problem = f"made anew, it does not take its own state: {error}"
        fail("loss", problem, "register every buffer in __init__, in its final shape")
    batch = _made_up(size, device)
    answers = _answers(trained, batch)
    for (what, given), (_, anew) in zip(answers, _answers(new, batch), strict=True):
        scale = float(given.abs().max())
        if not torch.allclose(given, anew, rtol=0, atol=_CLOSE * scale, equal_nan=True):
            fail(
                "loss",
                "keeps something beside its state_dict, which no checkpoint has: with "
                f"the same state a new one gives another {what} of one batch, and a "
                "run that was stopped would end otherwise",
                "keep what it learns by register_buffer, and give options to "
                "TrainConfig",
            )


def rehearse(
    make: Callable[[], nn.Module], size: tuple[int, int], device: torch.device
) -> None:
    """Refuse such a loss before a run begins: after two steps and an update.

    What it keeps later alone (after a warm-up, say) is seen after the epoch.

    Parameters
    ----------
    make, size, device
        As for ``refuse_what_no_file_keeps``.

    Raises
    ------
    ValueError
        As there.

    Examples
    --------
    >>> rehearse(nn.CrossEntropyLoss, (8, 3), torch.device("cpu"))
    """
    criterion = make()
    logits, labels = _made_up(size, device)
    update = _update_of(criterion)
    with seeded(0, device):
        for _ in range(2):
            _value_and_gradient(criterion, logits, labels)
        if update is not None:
            update(logits, labels)
    refuse_what_no_file_keeps(criterion, make, size, device)


def _made_up(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits and labels of a batch, the same at each call."""
    n, n_classes = size
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, n_classes, generator=generator)
    labels = torch.randint(n_classes, (n,), generator=generator)
    return logits.to(device), labels.to(device)


def _answers(
    criterion: nn.Module, batch: tuple[Tensor, Tensor]
) -> list[tuple[str, Tensor]]:
    """What a loss gives for a batch, and after its update; named for the message."""
    logits, labels = batch
    update = _update_of(criterion)
    with seeded(0, logits.device):  # some losses draw
        found = _value_and_gradient(criterion, logits, labels)
        if update is not None:
            update(logits, labels)
            found += _value_and_gradient(criterion, logits, labels)
    return found


def _update_of(criterion: nn.Module) -> Callable[[Tensor, Tensor], object] | None:
    """The method of an adaptive loss that looks at validation."""
    update = getattr(criterion, "update", None)
    return update if callable(update) else None


def _value_and_gradient(
    criterion: nn.Module, logits: Tensor, labels: Tensor
) -> list[tuple[str, Tensor]]:
    """The value of a batch, and its gradient with respect to the logits."""
    with torch.enable_grad():
        asked = logits.clone().requires_grad_()
        value = criterion(asked, labels)
        (gradient,) = torch.autograd.grad(value, asked)
    return [("value", value.detach()), ("gradient", gradient)]
