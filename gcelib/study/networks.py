"""The network of a run: of ``models.MODELS``, of timm, or a function of the user's."""

import sys
from collections.abc import Callable, Mapping, MutableMapping
from itertools import chain

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from gcelib import models
from gcelib._check import choice, fail, warn
from gcelib.study import fingerprints, functions, own_networks

_TIMM = "timm:"


def is_own(name: str) -> bool:
    """Tell whether a name means a network that is not in ``models.MODELS``.

    Parameters
    ----------
    name : str
        Any name.

    Returns
    -------
    bool
        By its form alone.

    Examples
    --------
    >>> is_own("timm:resnet18"), is_own("mine:build"), is_own("resnet50")
    (True, True, False)
    """
    return name.startswith(_TIMM) or functions.is_function(name)


def check_name(name: str) -> str:
    """Refuse a network that nobody knows.

    Parameters
    ----------
    name : str
        A key of ``MODELS``, ``"timm:name"``, ``"module:function"`` or
        ``"file.py:function"``.

    Returns
    -------
    str
        The name as any process on this machine understands it.

    Raises
    ------
    ValueError, TypeError
        With the nearest known name; if timm is not installed; if there is no such
        function.

    Examples
    --------
    >>> check_name("convnet")
    'convnet'
    """
    if not isinstance(name, str) or not is_own(name):
        return choice("model", name, models.MODELS)
    if name.startswith(_TIMM):
        _check_timm(name.removeprefix(_TIMM))
        return name
    name = functions.full_name("model", name)
    functions.load_function("model", name)
    return name


def folder_name(name: str) -> str:
    """Name the part of a run's folder that stands for the network.

    Parameters
    ----------
    name : str
        What ``check_name`` returned.

    Returns
    -------
    str
        The name itself, or a readable and safe form of it.

    Examples
    --------
    >>> folder_name("convnet"), folder_name("timm:resnet18")
    ('convnet', 'timm-resnet18')
    """
    if not is_own(name):
        return name
    if name.startswith(_TIMM):
        return functions.safe(name)
    return functions.folder_name(name)


def fingerprint(name: str) -> str | None:
    """Tell one version of a user's own network from the next.

    Parameters
    ----------
    name : str
        What ``check_name`` returned.

    Returns
    -------
    str or None
        The SHA-256 of the file that the function is in, also of one that was registered
        with timm; None for networks of a package that is installed and so has a
        version.

    Examples
    --------
    >>> fingerprint("convnet")
    """
    if not is_own(name):
        return None
    if name.startswith(_TIMM):
        return _fingerprint_timm(name.removeprefix(_TIMM))
    return functions.fingerprint("model", name)


def values_set_in_memory(name: str) -> list[str]:
    """List what is set in this process, though the network's files say otherwise.

    Parameters
    ----------
    name : str
        What ``check_name`` returned.

    Returns
    -------
    list of str
        As ``"nets.WIDTH = 3"``: another process would build another network.

    Examples
    --------
    >>> values_set_in_memory("convnet")
    []
    """
    if name.startswith(_TIMM):
        module = sys.modules[_timm_entry(name.removeprefix(_TIMM)).__module__]
        return fingerprints.overrides_of(module)
    return functions.values_set_in_memory("model", name)


def build(name: str, n_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Build a freshly initialised network.

    Parameters
    ----------
    name : str
        What ``check_name`` returned. A function of the user's takes
        ``(n_classes, input_shape)`` and returns an ``nn.Module``.
    n_classes : int
        K.
    input_shape : tuple of int
        (C, H, W) or (D,).

    Returns
    -------
    torch.nn.Module
        Maps inputs (N, *input_shape) to logits (N, K).

    Raises
    ------
    ValueError, TypeError
        If it cannot be built for such data, or shares weights with a network that was
        built before and has been trained since.

    Examples
    --------
    >>> import torch
    >>> build("mlp", 3, (4,))(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """
    if not is_own(name):
        return models.make_model(name, n_classes, input_shape)
    trained = _changed_since_built()
    try:
        if name.startswith(_TIMM):
            network = _build_timm(name.removeprefix(_TIMM), n_classes, input_shape)
        else:
            network = functions.load_function("model", name)(n_classes, input_shape)
    except Exception as error:  # the user's function may raise anything
        if str(error).startswith("model: "):
            raise
        reason = f"{type(error).__name__}: {error}"
        asked = f"{n_classes} classes and inputs {input_shape}"
        fail(
            "model",
            f"{name} cannot be built for {asked} ({reason})",
            "mend or change it",
        )
    if not isinstance(network, nn.Module):
        problem = f"{name} returned {type(network).__name__}"
        fail("model", problem, "return a torch.nn.Module", TypeError)
    own_networks.refuse_unready(name, network)
    _refuse_trained(name, network, trained)
    own_networks.give_own_memory(network)
    return network


#: The weights and buffers of networks of the user's, and their versions when they were
#: built: PyTorch counts the changes of a tensor in place.
_built: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()


def _changed_since_built() -> MutableMapping[Tensor, int]:
    """Return what was changed since it was built, with its version of now."""
    changed: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()
    for tensor, version in _built.items():
        if tensor._version != version:
            changed[tensor] = tensor._version
    return changed


def _refuse_trained(
    name: str, network: nn.Module, trained: Mapping[Tensor, int]
) -> None:
    """Refuse a network that begins with what another run has learnt."""
    parts = chain(network.named_parameters(), network.named_buffers())
    for part, tensor in parts:
        if tensor.is_inference():  # nobody counts its versions
            continue
        if trained.get(tensor) == tensor._version:  # else its function has reset it
            problem = (
                f"{part} of {name} is shared with a network that was trained since"
            )
            cure = "make it anew in the function, or return copy.deepcopy of it"
            fail("model", problem, cure)
        _built[tensor] = tensor._version


def check_output(name: str, logits: object, n_samples: int, n_classes: int) -> None:
    """Refuse a network that does not return logits (N, K).

    Parameters
    ----------
    name : str
        Its name, for the message.
    logits : object
        What it returned for ``n_samples`` inputs.
    n_samples, n_classes : int
        The shape that is expected.

    Raises
    ------
    ValueError
        If that is anything else.
    """
    what = type(logits).__name__
    if isinstance(logits, Tensor):
        shape = tuple(logits.shape)
        if shape == (n_samples, n_classes) and logits.is_floating_point():
            return
        what = f"{logits.dtype} of shape {shape}"
    problem = f"{name} returns {what} for {n_samples} samples of {n_classes} classes"
    fail("model", problem, f"return logits ({n_samples}, {n_classes})")


def _check_timm(name: str) -> None:
    """Refuse a name that timm does not know."""
    try:
        import timm
    except ModuleNotFoundError:
        fail(
            "model",
            "timm is not installed",
            "pip install timm, or name another network",
        )
    if not timm.is_model(name):
        choice("model", name, timm.list_models())
    architecture, _, weights = name.partition(".")
    if weights:
        warn(
            f"model: the weights {weights!r} of timm:{name} are not loaded: a run "
            f"begins with random ones; write timm:{architecture}"
        )


def _fingerprint_timm(name: str) -> str | None:
    """The fingerprint of a network that somebody has registered; None of timm's own."""
    entry = _timm_entry(name)
    module = sys.modules[entry.__module__]
    if entry.__module__ == "__main__":
        return fingerprints.digest_of_use(entry, "__main__")
    return fingerprints.digest_of_module(module)


def _timm_entry(name: str) -> Callable[..., nn.Module]:
    """The function that builds a network of timm's."""
    import timm

    entry: Callable[..., nn.Module] = timm.model_entrypoint(name)
    return entry


def _build_timm(name: str, n_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Build timm's network without pretrained weights."""
    import timm

    if len(input_shape) != 3:
        fail("model", f"timm:{name} needs images, not features", "use 'mlp'")
    network: nn.Module = timm.create_model(
        name, pretrained=False, num_classes=n_classes, in_chans=input_shape[0]
    )
    return network
