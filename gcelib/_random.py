"""The generators that a network may draw from: PyTorch's, numpy's and Python's."""

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class RandomStates(NamedTuple):
    """The states of all generators that a forward pass may draw from."""

    python: tuple[Any, ...]
    numpy: dict[str, Any]
    devices: dict[torch.device, Tensor]


def random_states(devices: Iterable[torch.device] = ()) -> RandomStates:
    """Look at the states of all generators that a forward pass may draw from.

    Parameters
    ----------
    devices : iterable of torch.device, default ()
        Those beside the CPU whose generators count.

    Returns
    -------
    RandomStates
        For ``set_random_states``.

    Examples
    --------
    >>> before = random_states()
    >>> drawn = torch.rand(2)
    >>> set_random_states(before)
    >>> torch.equal(torch.rand(2), drawn)
    True
    """
    states = {torch.device("cpu"): torch.get_rng_state()}
    for device in devices:
        if device.type in ("cuda", "xpu"):
            states[device] = torch.get_device_module(device).get_rng_state(device)
        elif device.type == "mps":
            states[device] = torch.mps.get_rng_state()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - layers use it
    return RandomStates(random.getstate(), numpy_state, states)


def set_random_states(states: RandomStates) -> None:
    """Go back to states that were looked at before.

    Parameters
    ----------
    states : RandomStates
        From ``random_states``.
    """
    random.setstate(states.python)
    np.random.set_state(states.numpy)  # noqa: NPY002 - what layers draw from
    for device, state in states.devices.items():
        if device.type == "cpu":
            torch.set_rng_state(state)
        elif device.type == "mps":
            torch.mps.set_rng_state(state)
        else:
            torch.get_device_module(device).set_rng_state(state, device)


@contextlib.contextmanager
def seeded(seed: int, *devices: torch.device) -> Iterator[None]:
    """Seed all generators for this block, and leave them as they were.

    Parameters
    ----------
    seed : int
        At least 0; numpy's generator takes its last 32 bits.
    *devices : torch.device
        Those beside the CPU whose generators go back, too.

    Yields
    ------
    None

    Examples
    --------
    >>> with seeded(1):
    ...     drawn = np.random.random()
    >>> with seeded(1):
    ...     drawn == np.random.random()
    True
    """
    before = random_states(devices)
    try:
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - what layers draw from
        random.seed(seed)
        yield
    finally:
        set_random_states(before)
