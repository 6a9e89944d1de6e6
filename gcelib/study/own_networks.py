"""What a network of the user's hides: weights that nobody would train, or keep.

PyTorch knows of layers that are attributes of a module, or in ``nn.ModuleList`` and the
like. Those in a plain list take part in every forward pass, without any error, and
are neither trained, nor stored, nor switched between training and evaluation.
"""

from collections.abc import Collection, Iterator, Sequence

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
            for layer in _modules_in(value):
                if id(layer) not in known:
                    yield f"{prefix}.{name}".lstrip("."), layer


def _modules_in(value: object, depth: int = 3) -> Iterator[nn.Module]:
    """The modules in lists, tuples and dicts, also in each other."""
    if isinstance(value, dict):
        value = [*value.values()]
    if depth and isinstance(value, (list, tuple)):
        for entry in value:
            if isinstance(entry, nn.Module):
                yield entry
            else:
                yield from _modules_in(entry, depth - 1)
