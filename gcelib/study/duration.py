"""How long a run will take, and the refusal of what would take days."""

import contextlib
import copy
import math
import time

import torch
from torch import Tensor, nn

from gcelib._check import fail
from gcelib._random import seeded
from gcelib.isolation import torch_defaults
from gcelib.study import data, networks, own_networks, runs
from gcelib.study.config import Settings, TrainConfig


def check_duration(config: TrainConfig) -> None:
    """Refuse a run that would take too long, before it downloads gigabytes.

    ``prepare`` calls it too; data sets that need no download it judges when they are
    loaded.

    Parameters
    ----------
    config : TrainConfig
        What was asked.

    Raises
    ------
    ValueError
        With the estimate, if it is above ``max_hours``.
    """
    settings = config.resolved()
    if not runs.is_done(settings.run_dir):
        refuse_long_run_before_loading(settings)


def refuse_long_run_before_loading(settings: Settings) -> None:
    """Refuse a run that would take too long, if its size is known without its data."""
    size = data.source_of(settings.dataset, settings.seed).size
    is_long_tail = settings.dataset != data.parent(settings.dataset)
    if size is not None and not is_long_tail:
        refuse_if_too_slow(settings, size)


def refuse_if_too_slow(settings: Settings, size: data.Size) -> None:
    """Refuse a run on data of this size if it would take longer than ``max_hours``."""
    hours = _estimate(settings, size)
    if hours > settings.max_hours:
        what = f"{settings.model} on {settings.dataset} for {settings.epochs} epochs"
        where = f"about {hours:,.0f} hours on {settings.device}"
        cure = "use a GPU, a smaller model or fewer epochs, or pass "
        cure += f"max_hours={math.ceil(hours * 1.5)} to run it anyway"
        fail("model", f"{what} would take {where}", cure)


def estimate_hours(
    config: TrainConfig, n_train: int, input_shape: tuple[int, ...], n_classes: int
) -> float:
    """Estimate the time of the training steps here, from one timed small step.

    Parameters
    ----------
    config : TrainConfig
        Network, batch size, epochs and device.
    n_train : int
        Training samples.
    input_shape : tuple of int
        (C, H, W) or (D,).
    n_classes : int
        K.

    Returns
    -------
    float
        Hours.

    Raises
    ------
    ValueError, TypeError
        If the network cannot be built for such data, or does not return logits.

    Examples
    --------
    >>> estimate_hours(TrainConfig("digits", device="cpu"), 1000, (1, 8, 8), 10) < 1
    True
    """
    return _estimate(config.resolved(), data.Size(n_train, input_shape, n_classes))


def _estimate(settings: Settings, size: data.Size) -> float:
    """Return the hours that the training steps will take."""
    device = torch.device(settings.device)
    # By its seed, since the function may keep what it returns.
    with torch_defaults(), seeded(settings.seed):
        network = networks.build(settings.model, size.n_classes, size.input_shape)
        with contextlib.suppress(RuntimeError, TypeError):  # what cannot be copied
            network = copy.deepcopy(network)  # may be shared: it stays as it is
        network = network.to(device)
        n = settings.batch_size
        if device.type == "cpu":
            n = min(n, 8)
        x = torch.zeros(n, *size.input_shape, device=device)
        seconds = []
        for _ in range(2 if device.type == "cpu" else 3):  # the first one warms up
            start = time.perf_counter()
            _trial_step(settings.model, network, x, size.n_classes)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
        if networks.is_own(settings.model):
            own_networks.warn_of_unreached_weights(settings.model, network)
            own_networks.warn_of_lost_state(settings.model, network, x)
    return min(seconds) / n * size.n_train * settings.epochs / 3600


def _trial_step(name: str, network: nn.Module, x: Tensor, n_classes: int) -> None:
    """Make a step on empty inputs; refuse a network of the user's that cannot."""
    before, known = list(network.state_dict()), list(network.parameters())
    try:
        logits = network(x)
    except Exception as error:
        if not networks.is_own(name):
            raise
        reason = f"{type(error).__name__}: {error}"
        problem = f"{name} fails on a batch {tuple(x.shape)} ({reason})"
        fail("model", problem, "let it take inputs of the shape of the data")
    networks.check_output(name, logits, len(x), n_classes)
    if networks.is_own(name):
        own_networks.refuse_late_weights(name, network, before, known)
        own_networks.refuse_hidden_weights(name, network, x, logits)
    logits.logsumexp(1).mean().backward()
