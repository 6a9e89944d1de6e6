"""What a network of the user's hides: weights that nobody would train, keep, or own.

PyTorch knows of layers that are attributes of a module, or in ``nn.ModuleList`` and the
like. Those in a plain list take part in every forward pass, without any error, and
are neither trained, nor stored, nor switched between training and evaluation.
"""

import copy
from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from gcelib._check import fail, warn

#: What computes something else in training than in evaluation.
_WITH_MODES = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


def refuse_unready(name: str, network: nn.Module) -> None:
    """Refuse a network whose weights have no shape yet.

    Parameters
    ----------
    name : str
        Its name, for the message.
    network : torch.nn.Module
        As its function returned it.

    Raises
    ------
    ValueError
        If it has lazy layers that have not seen an input.

    Examples
    --------
    >>> refuse_unready("nets:build", nn.Linear(4, 3))
    """
    tensors = [*network.named_parameters(), *network.named_buffers()]
    for part, tensor in tensors:
        if nn.parameter.is_lazy(tensor):
            cure = "run network(torch.zeros(2, *input_shape)) once in the function"
            fail("model", f"{part} of {name} has no shape yet", cure)


def refuse_hidden_weights(
    name: str, network: nn.Module, x: Tensor, logits: Tensor
) -> None:
    """Refuse a network of which no weights, or not all, would be trained.

    Parameters
    ----------
    name : str
        Its name, for the message.
    network : torch.nn.Module
        What computed the logits.
    x : tensor
        Its inputs.
    logits : tensor
        With their graph.

    Raises
    ------
    ValueError
        If the logits depend on a weight that is none of ``network.parameters()``, or on
        none of these.

    Examples
    --------
    >>> network = nn.Linear(4, 3)
    >>> x = torch.zeros(2, 4)
    >>> refuse_hidden_weights("nets:build", network, x, network(x))
    """
    known = list(network.parameters())
    ids = {id(weight) for weight in known}
    leaves = list(_leaves(logits))
    unknown = [leaf for leaf in leaves if id(leaf) not in ids and leaf is not x]
    if unknown:  # those that a pass makes itself, as a first state, are no weights
        again = {id(leaf) for leaf in _leaves(network(x))}
        made = [leaf for leaf in unknown if id(leaf) not in again]
        unknown = [leaf for leaf in unknown if id(leaf) in again]
        _refuse_made_anew(name, made)
    if unknown:
        problem = (
            f"{name} computes with a weight of shape {tuple(unknown[0].shape)} that is "
            "none of its parameters() (as of layers in a plain list), and would be "
            "neither trained nor kept"
        )
        cure = "put layers into nn.ModuleList or nn.ModuleDict, tensors into "
        cure += "nn.Parameter, and freeze what is not to learn"
        fail("model", problem, cure)
    if not any(id(leaf) in ids for leaf in leaves):
        what = "none of its weights" if known else "no weight: it has none"
        problem = f"the logits of {name} depend on {what}"
        if known:
            problem += " that is not frozen"
        fail("model", problem, "return a network that can learn")


def _refuse_made_anew(name: str, made: Sequence[Tensor]) -> None:
    """Refuse layers that each pass makes, of which no tensor outlives it."""
    weights = [leaf for leaf in made if isinstance(leaf, nn.Parameter)]
    if weights:
        problem = (
            f"{name} makes a weight of shape {tuple(weights[0].shape)} in its pass (as "
            "of nn.Linear in forward), which would be neither trained nor kept"
        )
        fail("model", problem, "make the layer in __init__, and call it in forward")


def refuse_late_weights(
    name: str, network: nn.Module, before: Collection[str], known: Collection[Tensor]
) -> None:
    """Refuse a network whose first pass has made weights: no optimiser has them.

    Parameters
    ----------
    name : str
        Its name, for the message.
    network : torch.nn.Module
        After a pass.
    before : collection of str
        Names in its state before that pass.
    known : collection of tensors
        Its parameters before that pass.

    Raises
    ------
    ValueError
        If there is a parameter now that was not there, and is not frozen.

    Warns
    -----
    UserWarning
        If something else has come into the state, which a new network lacks.

    Examples
    --------
    >>> network = nn.Linear(4, 3)
    >>> before, known = [*network.state_dict()], [*network.parameters()]
    >>> refuse_late_weights("nets:build", network, before, known)
    """
    ids = {id(weight) for weight in known}
    for part, weight in network.named_parameters():
        if weight.requires_grad and id(weight) not in ids:
            problem = f"{part} of {name} is made in the first pass, when the optimiser "
            problem += "has taken the others, and would never be trained"
            cure = "make it in __init__, or run network(torch.zeros(2, *input_shape)) "
            cure += "once in the function"
            fail("model", problem, cure)
    late = [part for part in network.state_dict() if part not in before]
    if late:
        warn(
            f"model: {late[0]} of {name} is made in the first pass: a run that was "
            "stopped cannot go on, since a new network has no place for it; make it in "
            "__init__, or run network(torch.zeros(2, *input_shape)) once in the "
            "function"
        )


def _leaves(logits: Tensor) -> Iterator[Tensor]:
    """The tensors with gradients from which the logits were computed."""
    seen: set[Node] = set()
    nodes = [logits.grad_fn]
    if logits.grad_fn is None and logits.requires_grad:
        yield logits
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        nodes += [earlier for earlier, _ in node.next_functions]


def warn_of_unreached_weights(name: str, network: nn.Module) -> None:
    """Warn of weights that can learn and got no gradient from a trial step.

    Parameters
    ----------
    name : str
        Its name, for the message.
    network : torch.nn.Module
        After the step.

    Warns
    -----
    UserWarning
        If there are such weights.

    Examples
    --------
    >>> network = nn.Linear(4, 3)
    >>> network(torch.zeros(2, 4)).sum().backward()
    >>> warn_of_unreached_weights("nets:build", network)
    """
    unreached = [
        weight
        for weight, values in network.named_parameters()
        if values.requires_grad and values.grad is None
    ]
    if unreached:
        more = f" and {len(unreached) - 1} more" if len(unreached) > 1 else ""
        warn(
            f"model: no gradient reaches {unreached[0]}{more} of {name} (unused, or "
            "behind detach() or no_grad()), which will stay as the seed made them; "
            "freeze them by requires_grad_(False) if that is meant"
        )


def warn_of_lost_state(name: str, network: nn.Module, x: Tensor) -> None:
    """Warn of what training changes and nobody keeps, or switches to evaluation.

    Parameters
    ----------
    name : str
        Its name, for the message.
    network : torch.nn.Module
        It is run, and its buffers may change.
    x : tensor
        Inputs in the shape of the data; those of the passes are drawn like them.

    Warns
    -----
    UserWarning
        If buffers that are not persistent change, or if a layer with dropout or batch
        norm is in a plain list, tuple or dict.

    Examples
    --------
    >>> warn_of_lost_state("nets:build", nn.Linear(4, 3), torch.zeros(2, 4))
    """
    for part in _changing(network, x):
        warn(
            f"model: the buffer {part} of {name} changes in training and is not kept "
            "(persistent=False): weights.pt lacks it, and a run that was stopped goes "
            "on without it; register it as persistent"
        )
    for part, layer in _unregistered(network):
        if any(isinstance(m, _WITH_MODES) and m.training for m in layer.modules()):
            warn(
                f"model: {type(layer).__name__} in the plain container {part} of "
                f"{name} stays in training mode when the network is evaluated; put it "
                "into nn.ModuleList or nn.ModuleDict"
            )


def clear_difference(logits: Tensor, others: Tensor) -> float | None:
    """The largest difference of two computations, if no rounding explains it.

    Parameters
    ----------
    logits, others : (N, K) tensors
        Of the same samples.

    Returns
    -------
    float or None
        None if it is at most a twentieth of the logits' standard deviation.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0]])
    >>> clear_difference(z, z + 1e-6), clear_difference(z, z + 1)
    (None, 1.0)
    """
    difference = float((logits - others).abs().max())
    return difference if difference > 0.05 * float(logits.std()) else None


def _changing(network: nn.Module, x: Tensor) -> list[str]:
    """Name the buffers that are not in the state and change from step to step."""
    lost = [
        (f"{prefix}.{name}".lstrip("."), module, name)
        for prefix, module in network.named_modules()
        for name in sorted(module._non_persistent_buffers_set)
    ]
    if not lost:
        return []
    held: list[list[Tensor | None]] = []
    with torch.no_grad():
        for _ in range(2):  # the first one may fill what is constant from then on
            network(torch.randn_like(x))
            buffers = [getattr(module, name) for _, module, name in lost]
            held.append([None if b is None else b.clone() for b in buffers])
    pairs = zip(lost, *held, strict=True)
    return [
        full
        for (full, _, _), first, second in pairs
        if first is not None and second is not None and not torch.equal(first, second)
    ]


def _unregistered(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules in plain containers of a network's modules, which do not know them."""
    known = {id(module) for module in network.modules()}
    for prefix, module in network.named_modules():
        for name, value in vars(module).items():
            layers = [] if isinstance(value, nn.Module) else _found_in(value, nn.Module)
            for layer in layers:
                if id(layer) not in known:
                    yield f"{prefix}.{name}".lstrip("."), layer


_Kind = TypeVar("_Kind")


def _found_in(value: object, kind: type[_Kind], depth: int = 3) -> Iterator[_Kind]:
    """What is of a kind: a value, and what lists, tuples and dicts hold of it."""
    if isinstance(value, kind):
        yield value
    elif depth and isinstance(value, (list, tuple, dict)):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _found_in(entry, kind, depth - 1)


# --- memory ---------------------------------------------------------------------------


def give_own_memory(network: nn.Module) -> None:
    """Let a network learn in memory of its own, whoever made its first values.

    ``load_state_dict(state, assign=True)``, ``nn.Parameter(tensor)``,
    ``torch.from_numpy`` and ``weight.data = tensor`` take memory as it is. Training
    would write into it, and the next network of the same function begin with that.

    Parameters
    ----------
    network : torch.nn.Module
        Its parameters and buffers stay the same objects, with the same values and
        strides; those that share memory with each other still do.

    Examples
    --------
    >>> pretrained = torch.zeros(2, 3)
    >>> network = nn.Linear(3, 2)
    >>> network.weight = nn.Parameter(pretrained)
    >>> give_own_memory(network)
    >>> with torch.no_grad():
    ...     network.weight += 1
    >>> pretrained.sum()
    tensor(0.)
    """
    tensors = {id(t): t for t in [*network.parameters(), *network.buffers()]}
    places = {_place_of(tensor) for tensor in tensors.values()}
    # What is kept beside them, as ``self.head = self.weight[:10]``, or weights that
    # were collected once for an average or a limit: ``[w.detach() for w in ...]``.
    aliases = {id(a): a for a in _plain_tensors(network) if _place_of(a) in places}
    copies: dict[tuple[int, int, torch.device], torch.UntypedStorage] = {}
    for tensor in (tensors | aliases).values():
        place = _place_of(tensor)
        if place is None:
            continue
        if place not in copies:
            copies[place] = copy.deepcopy(tensor.untyped_storage())
        with torch.no_grad():
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
                copies[place],
                tensor.storage_offset(),
                tensor.size(),
                tensor.stride(),
            )


def _place_of(tensor: Tensor) -> tuple[int, int, torch.device] | None:
    """Where a tensor's memory begins and how long it is; None if it has none as such.

    Two storages may lie at one place: those of two calls of ``torch.from_numpy``.
    """
    is_plain = tensor.layout == torch.strided and not tensor.is_quantized
    if not is_plain or tensor.is_inference() or tensor.is_conj() or tensor.is_neg():
        return None  # nothing that learns, or that is written in place
    try:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
    except RuntimeError:  # of a class that holds other tensors
        return None
    if address == 0:  # of no elements, or on the device "meta"
        return None
    return address, storage.nbytes(), storage.device


def _plain_tensors(network: nn.Module) -> Iterator[Tensor]:
    """The tensors in attributes that are neither parameters nor buffers."""
    for module in network.modules():
        for value in vars(module).values():
            yield from _found_in(value, Tensor)
