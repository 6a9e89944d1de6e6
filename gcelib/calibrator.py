"""What all calibrators share: input, state, and the promise about predictions.

A calibrator is an ``nn.Module`` that is fitted on validation logits and turns logits
into calibrated logits (log-probabilities where no logits exist). So
``nn.Sequential(model, calibrator)`` deploys, ``state_dict`` saves, and
``torch.export`` and ONNX work. Fitting runs on the CPU, in float64 unless said, and
leaves the calibrator on the logits' device; its buffers are float64, which Apple's
MPS lacks: calibrate on the CPU there.
"""

import bisect
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gcelib import _check
from gcelib._check import Array
from gcelib.bins import Floats, Integers, bin_scale

#: Calibration errors closer than this are equal: rounding must not choose between
#: candidates.
TIE = 1e-12
#: So many labels of a single class are no accident where some are predicted wrongly.
_MANY = 10
#: Samples, spread over the set, that tell whether labels and logits belong together.
_LOOKED_AT = 2000
#: So many of them must be of another class than the most frequent one; where that is
#: rare, more samples are looked at, until there are enough of the others.
_NEEDED = 20
_ENOUGH = 200
#: With more classes it is not looked whether their columns have changed places.
_MOST_EXCHANGED = 2_000
#: So many exchanges show the rest.
_MOST_EXCHANGES = 100
#: How far a softmax at some temperature, in float64, may lie above what it should be,
#: relative.
_OF_SOFTMAX = 1e-12


@dataclass(frozen=True)
class BufferRule:
    """What the values of a calibrator's buffer must satisfy, wherever they come from.

    Parameters
    ----------
    low, high : float
        The closed range of every value.
    increasing : bool
        Whether each value must be at least the one before it.
    total : float or None
        What the values add up to, within a millionth.
    length : str
        ``"fixed"``: the length it has at construction. ``"classes"``: in every
        dimension as many as there are classes. ``"data"``: whatever the fit needed.
    """

    low: float = -math.inf
    high: float = math.inf
    increasing: bool = False
    total: float | None = None
    length: str = "fixed"


#: Every temperature that any calibrator may hold.
TEMPERATURE = BufferRule(low=1e-5, high=1e5)


class Calibrator(nn.Module):
    """Checks and state shared by all calibrators.

    A subclass declares its buffers, gives each a rule in ``buffer_rules``, and writes
    ``_fit`` (logits and labels to a dict of buffers) and ``_calibrate``.

    Parameters
    ----------
    **buffers : array-like
        The buffers and their values before a fit.

    Attributes
    ----------
    n_classes : Tensor
        Number of classes K of the fit; 0 before it.
    """

    n_classes: Tensor

    #: One rule for each buffer of the class.
    buffer_rules: ClassVar[Mapping[str, BufferRule]] = {}
    #: True if the largest logit of a row stays the largest, whatever is fitted.
    keeps_predictions: ClassVar[bool] = False

    def __init__(self, **buffers: npt.ArrayLike) -> None:
        super().__init__()
        # The buffer's value, known without stalling an accelerator or an export.
        self._n_classes = 0
        with torch.inference_mode(False):
            self.register_buffer("n_classes", torch.tensor(0))
            for name, value in buffers.items():
                self.register_buffer(name, _as_buffer(value))

    @property
    def fitted(self) -> bool:
        """True after ``fit``, or after loading the state of a fitted calibrator."""
        return self._n_classes > 0

    def fit(self, logits: Array, labels: Array) -> Self:
        """Fit on samples that the model was not trained on.

        The numbers depend on the samples alone: not on torch's default dtype, an
        outer autocast or an outer inference mode.

        Parameters
        ----------
        logits : (N, K) tensor or array
            Scores before the softmax, any floating dtype, K >= 2. Of probabilities
            pass ``logits_from_probabilities(p)``.
        labels : (N,) tensor or array of integers
            Class ids in [0, K).

        Returns
        -------
        Self
            The calibrator, on the logits' device.

        Raises
        ------
        ValueError, TypeError
            If an argument is malformed; the message begins with its name.

        Warns
        -----
        UserWarning
            If the samples cannot tell what was asked: accuracy at chance, no error at
            all, probabilities in the place of logits, labels that had the probability
            0, or a temperature that ended at the end of its range.
        """
        scores = _check.as_tensor("logits", logits)
        classes = _check.as_tensor("labels", labels)
        _check.check_has_values("logits", scores)
        _check.check_has_values("labels", classes)
        device = scores.device
        scores = scores.cpu()
        classes = classes.cpu()
        _check.warn_of_tables(logits, labels, scores, classes)
        logits, labels = _check.logits_and_labels(scores, classes, columns=False)
        _check.warn_of_probabilities(logits)
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
        ):
            self._warn_of_labels(logits, labels)
            for name, value in self._fit(logits, labels).items():
                setattr(self, name, _as_buffer(value))
            self._n_classes = logits.shape[1]
            self.n_classes = torch.tensor(self._n_classes)
            self.to(device)  # with it the buffers that no fit sets
        return self

    if TYPE_CHECKING:  # nn.Module's returns Any

        def __call__(self, logits: Array) -> Tensor:
            """Call ``forward``."""
            ...

    def forward(self, logits: Array) -> Tensor:
        """Calibrate.

        Parameters
        ----------
        logits : (N, K) tensor or array
            Scores of the model that the calibrator was fitted for; N may be 0.

        Returns
        -------
        (N, K) Tensor
            Calibrated logits, differentiable, in the dtype of ``logits`` but at least
            float32.

        Raises
        ------
        ValueError, TypeError
            If the calibrator is not fitted, or the logits are malformed or of another
            number of classes.

        Warns
        -----
        UserWarning
            If they seem to be probabilities; looked at on a CPU alone.
        """
        look = False
        if torch.compiler.is_compiling():
            inputs = torch.as_tensor(logits)
        else:
            detached = _check.as_tensor("logits", logits)
            readable = may_read_values(detached)
            on_cpu = detached.device.type == "cpu"  # elsewhere it would wait
            look = readable and on_cpu
            _check.check_logits(detached, min_samples=0, values=look)
            _check.warn_of_order("logits", logits)
            if look:
                _check.warn_of_probabilities(detached.detach())
            inputs = logits if isinstance(logits, Tensor) else detached
        if not self.fitted:
            cure = "call fit(logits, labels) or load_state_dict first"
            _check.fail("calibrator", "is not fitted", cure)
        if inputs.shape[1] != self._n_classes:
            problem = (
                f"have {inputs.shape[1]} classes, "
                f"the calibrator was fitted on {self._n_classes}"
            )
            _check.fail("logits", problem, "fit a calibrator on logits of this model")
        inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        calibrated = self._calibrate(inputs)
        if self.keeps_predictions:
            calibrated = with_predictions_of(inputs, calibrated)
        if look:
            _check.remember_index(calibrated, logits)
        return calibrated

    def extra_repr(self) -> str:
        """The options of the constructor, and whether it is fitted."""
        names = inspect.signature(type(self)).parameters
        options = [f"{name}={_plain(getattr(self, name))!r}" for name in names]
        return ", ".join([*options, f"fitted={self.fitted}"])

    def _fit(self, logits: Tensor, labels: Tensor) -> dict[str, npt.ArrayLike]:
        """The fitted buffers; ``logits`` and ``labels`` are checked and on the CPU."""
        raise NotImplementedError

    def _calibrate(self, logits: Tensor) -> Tensor:
        """Calibrated logits, in the dtype of ``logits``."""
        raise NotImplementedError

    def _without_errors(self) -> str:
        """What the fit does with a set in which every sample is classified right."""
        return "nothing says how far its confidence may go"

    def _warn_of_labels(self, logits: Tensor, labels: Tensor) -> None:
        """Say so if the labels look shifted, or hold nothing to learn from."""
        n_samples, n_classes = logits.shape
        highest, predictions = logits.max(1)
        hits = int((predictions == labels).sum())
        is_one_class = n_samples >= _MANY and bool((labels == labels[0]).all())
        if is_one_class and hits < n_samples:
            _check.warn(
                f"labels: all {n_samples:,} are class {int(labels[0])}, so nothing can "
                "be learnt of the others; draw samples of all classes, in a set that "
                "is sorted by class not the first ones"
            )
        elif hits <= n_samples / n_classes:
            _check.warn(
                f"labels: {hits:,} of {n_samples:,} samples are classified right, no "
                f"more than chance (1 in {n_classes}); look whether labels and logits "
                "belong together"
            )
        elif hits < n_samples and are_unrelated(logits, labels):
            _check.warn(
                "labels: are no more probable than they would be in any other order; "
                "look whether labels and logits belong together"
            )
        circle = exchanged_classes(labels.numpy(), predictions.numpy())
        if circle:
            _check.warn(
                f"labels: {tell_exchanged(circle)}; look whether labels and columns "
                "count the classes in one order"
            )
        if hits == n_samples:
            _check.warn(
                "labels: all samples are classified right, so "
                f"{self._without_errors()}; fit on held-out samples"
            )
        _check.warn_of_impossible_labels(logits, labels, highest=highest)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to another device; half() and its like are meant for weights.

        Thresholds close to 1 would collapse in a half precision.
        """
        move: Callable[..., Self] = super()._apply  # torch says no types
        return move(lambda tensor: tensor.to(fn(tensor).device), recurse)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Refuse a state that no fit can have written, before anything is copied."""
        stored = {
            name: state_dict[prefix + name]
            for name in ("n_classes", *self.buffer_rules)
            if prefix + name in state_dict
        }
        for name, value in stored.items():
            _check_storage(name, value)
        n_classes = _stored_n_classes(stored, self._n_classes)
        for name, value in stored.items():
            if name != "n_classes":
                if self.buffer_rules[name].length == "fixed":
                    _check_size(name, value, getattr(self, name))
                _check_values(name, value, self.buffer_rules[name], n_classes)
        self._check_state(stored)
        problems_before = len(missing_keys) + len(error_msgs)
        with torch.inference_mode(False):
            for name, value in stored.items():
                known = self.buffer_rules.get(name)
                if known is not None and known.length != "fixed":
                    # torch copies into the buffers that are there: make room.
                    setattr(self, name, getattr(self, name).new_empty(value.shape))
            super()._load_from_state_dict(
                state_dict,
                prefix,
                local_metadata,
                strict,
                missing_keys,
                unexpected_keys,
                error_msgs,
            )
            for name in self.buffer_rules:  # assign=True brings the state's own type
                setattr(self, name, getattr(self, name).double())
            if len(missing_keys) + len(error_msgs) > problems_before:
                self.n_classes = torch.zeros_like(self.n_classes)  # half a state: none
        self._n_classes = int(self.n_classes)

    def _check_state(self, stored: Mapping[str, Tensor]) -> None:
        """Refuse buffers that do not go together; each alone has been checked."""


def _plain(option: object) -> object:
    """An option as the constructor took it: one that is in the state is a tensor."""
    return option.item() if isinstance(option, Tensor) else option


def _as_buffer(value: npt.ArrayLike) -> Tensor:
    """A float64 tensor of its own."""
    return torch.as_tensor(value, dtype=torch.float64)


def _check_storage(name: str, value: object) -> None:
    """Refuse what is no tensor in memory, or claims more elements than it stores."""
    cure = "load a state_dict that a fitted calibrator wrote"
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        _check.fail(name, f"is a {type(value).__name__}, not a dense tensor", cure)
    if value.device.type == "meta" or value.is_complex() or value.is_quantized:
        _check.fail(name, f"holds {value.dtype} on {value.device}", cure)
    stored = value.untyped_storage().nbytes()
    if stored < value.numel() * value.element_size():
        _check.fail(name, f"claims {value.numel():,} elements in {stored} bytes", cure)


def _stored_n_classes(stored: Mapping[str, Tensor], present: int) -> int:
    """The number of classes in a state, 0 if it is that of an unfitted calibrator."""
    if "n_classes" not in stored:
        return present
    value = stored["n_classes"]
    is_whole = value.numel() == 1 and not value.is_floating_point()
    if not is_whole or int(value) < 0 or int(value) == 1:
        _check.fail("n_classes", f"is {value.tolist()}", "it must be 0 or at least 2")
    return int(value)


def _check_size(name: str, value: Tensor, present: Tensor) -> None:
    """Refuse a buffer of another size than the options of this calibrator ask for."""
    if value.shape != present.shape:
        problem = f"has shape {tuple(value.shape)}, and here {tuple(present.shape)}"
        cure = "make the calibrator with the options of the one that was saved"
        _check.fail(name, problem, cure)


def _check_values(name: str, value: Tensor, rule: BufferRule, n_classes: int) -> None:
    """Refuse values that break the buffer's rule."""
    cure = "load a state_dict that a fitted calibrator wrote"
    if value.dtype != torch.float64:
        problem = f"has dtype {value.dtype}; a fit writes float64, without whose digits"
        problem += " close thresholds change places"
        from_lists = "from lists, make torch.tensor(values, dtype=torch.float64)"
        _check.fail(name, problem, f"{cure}; {from_lists}")
    if rule.length == "classes" and n_classes and set(value.shape) != {n_classes}:
        problem = f"has shape {tuple(value.shape)} for {n_classes} classes"
        _check.fail(name, problem, cure)
    values = value.detach().double()
    if not bool(values.isfinite().all()):
        _check.fail(name, "contains NaN or infinity", cure)
    if values.numel():
        lowest = float(values.min())
        highest = float(values.max())
        if lowest < rule.low or highest > rule.high:
            problem = f"runs from {lowest:g} to {highest:g}"
            _check.fail(name, problem, f"values lie in [{rule.low:g}, {rule.high:g}]")
    if rule.increasing and bool((values.diff() < 0).any()):
        _check.fail(name, "is not sorted", cure)
    if rule.total is not None and abs(float(values.sum()) - rule.total) > 1e-6:
        _check.fail(name, f"sums to {float(values.sum()):g}, not {rule.total:g}", cure)


# --- arithmetic that several calibrators need ---------------------------------------


def may_read_values(tensor: Tensor) -> bool:
    """False where no value may decide: in an export or trace, or under ``torch.func``.

    True on an accelerator: unlike a loss (``loss_base.values_can_be_read``), a
    calibrator may wait for it.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def with_predictions_of(logits: Tensor, calibrated: Tensor) -> Tensor:
    """``calibrated``, its ``argmax`` that of ``logits`` where rounding had moved it.

    Division by a temperature can make neighbouring floats equal, and of equals the
    first is the prediction. The predicted class then gets the next value above the
    largest: a unit or two in the last place.

    Parameters
    ----------
    logits, calibrated : (N, K) Tensor
        Before and after.

    Returns
    -------
    (N, K) Tensor
        Equal to ``calibrated`` in every row whose prediction had not moved.

    Examples
    --------
    >>> logits = torch.tensor([[0.5, 0.50000006]])
    >>> with_predictions_of(logits, torch.tensor([[0.2, 0.2]])).argmax(1)
    tensor([1])
    """
    top = logits.argmax(1, keepdim=True)
    reached = calibrated.detach()
    moved = reached.argmax(1, keepdim=True) != top
    highest = reached.amax(1, keepdim=True)
    limits = torch.finfo(calibrated.dtype)
    next_above = highest + 2 * limits.eps * highest.abs() + limits.tiny
    lift = torch.where(moved, next_above - reached.gather(1, top), 0.0)
    return calibrated.scatter_add(1, top, lift.to(calibrated.dtype))


def are_unrelated(logits: Tensor, labels: Tensor) -> bool:
    """Tell whether labels are no more probable than they would be in another order.

    The mean of p(label) is compared with its mean over all orders of the labels: no
    more than two of its standard deviations above, where the probabilities claim four
    or more; up to four where they claim twenty times as much, as two are now and then
    exceeded by chance. So is the mean of its rank among all samples, which does not
    hang on a few large ones. Even where one class is nearly always predicted, logits
    that know something of the others pass.
    """
    n_all = len(labels)
    n_classes = logits.shape[1]
    n_others = n_all - int(torch.bincount(labels, minlength=n_classes).max())
    if n_others < _NEEDED:
        return False
    step = max(1, min(n_all // _LOOKED_AT, n_others // _ENOUGH))
    if step > 1:  # drawn: labels may come in turns
        drawn = torch.Generator().manual_seed(0)
        rows = torch.randperm(n_all, generator=drawn)[: n_all // step]
        logits, labels = logits[rows], labels[rows]
    n_samples = len(labels)
    counts = torch.bincount(labels, minlength=n_classes).double()
    if n_samples - float(counts.max()) < _NEEDED:
        return False
    predictions = logits.argmax(1)
    predicted = torch.bincount(predictions, minlength=n_classes).double()
    hits_by_chance = float(counts @ predicted) / n_samples
    hits = int((predictions == labels).sum())
    if hits > hits_by_chance + 5 * math.sqrt(hits_by_chance):
        return False
    probs = logits.double().softmax(1)
    gain, deviation = _gain_by_order(probs, labels, counts)
    claimed_gain = float((probs.square().sum(1) - probs @ counts / n_samples).mean())
    if claimed_gain < 4 * deviation:
        return False
    most = min(max(2, claimed_gain / (20 * deviation)), 4) if deviation else 2
    if gain > most * deviation:
        return False
    gain, deviation = _gain_by_order(_ranks(probs), labels, counts)
    return gain <= most * deviation


def warn_of_other_rows(logits: Tensor, labels: Tensor, name: str) -> None:
    """Say so if the labels, which all models share, seem to be of other rows.

    Parameters
    ----------
    logits, labels : Tensor
        Checked, on the CPU.
    name : str
        What the message calls the logits.
    """
    is_right = bool((logits.argmax(1) == labels).all())
    if not is_right and are_unrelated(logits, labels):
        _check.warn(
            f"{name}: gives the labels no more probability than it would in any other "
            "order; look whether its rows are those of the labels"
        )


def _gain_by_order(
    values: Tensor, classes: Tensor, counts: Tensor
) -> tuple[float, float]:
    """How much more the own classes have than in any order, and what chance makes.

    The mean of ``values[i, classes[i]]`` less its mean over all orders of the classes,
    and its standard deviation over these.

    References
    ----------
    W. Hoeffding, "A combinatorial central limit theorem", Annals of Mathematical
    Statistics 22, 1951: the variance over the orders.
    """
    n_samples = len(classes)
    of_rows = values @ counts / n_samples
    by_chance = of_rows.mean()
    own = values.gather(1, classes[:, None])[:, 0]
    centred = values - of_rows[:, None] - values.mean(0) + by_chance
    variance = float((centred.square() @ counts).sum())
    deviation = math.sqrt(variance / (n_samples - 1)) / n_samples
    return float(own.mean() - by_chance), deviation


def _ranks(values: Tensor) -> Tensor:
    """The rank of each value in its column; equal ones share their mean rank."""
    first = values.argsort(dim=0, stable=True).argsort(0)
    last = values.flip(0).argsort(dim=0, stable=True).argsort(0).flip(0)
    return (first + last).double() / 2


def exchanged_classes(
    labels: npt.NDArray[np.integer[Any]], predictions: npt.NDArray[np.integer[Any]]
) -> list[int]:
    """Find classes whose columns seem to have changed places.

    Samples of the first are rather predicted as the second, of the second as the third,
    and so on, of the last as the first. A model that takes the most probable class does
    so by chance alone, however poor it is. Therefore the circle is found in half of
    each class's samples, by exchanging two columns at a time, and counts if in the
    others more than three standard deviations are gained by it, and as many more than
    by chance are right of the classes in no circle. Also found are labels that
    count from 1 where no sample is of the last class.

    Parameters
    ----------
    labels, predictions : (N,) array of int
        From 0.

    Returns
    -------
    list of int
        The classes of the circle that gains most, in its order; of labels from 1 all,
        from the last one to 0; empty if nothing is found.

    Examples
    --------
    >>> labels = np.arange(90) % 3
    >>> exchanged_classes(labels, np.array([0, 2, 1])[labels])
    [1, 2]
    >>> exchanged_classes(labels, labels)
    []
    """
    classes, label_at = np.unique(labels, return_inverse=True)
    k = len(classes)
    if k > _MOST_EXCHANGED:
        return []
    column_at = np.searchsorted(classes, predictions).clip(max=k - 1)
    is_there = classes[column_at] == predictions
    by_class = np.argsort(labels, kind="stable")
    halves = []
    for half in (by_class[::2], by_class[1::2]):
        rows = half[is_there[half]]
        cells = np.bincount(label_at[rows] * k + column_at[rows], minlength=k * k)
        halves.append(cells.reshape(k, k))
    seen, others = halves
    own = others.diagonal()
    found: list[int] = []
    most = 0.0
    places = _better_columns(seen)
    for circle in _circles(places):
        moved = sum(int(others[one, two]) for one, two in _steps(circle))
        stayed = int(own[circle].sum())
        gains = moved - stayed > max(most, 3 * math.sqrt(moved + stayed))
        if gains and _knows_the_rest(others, places):
            found = [int(classes[label]) for label in circle]
            most = moved - stayed
    if classes[0] > 0:
        hits = int((labels == predictions).sum())
        below = int((labels - 1 == predictions).sum())
        if below - hits > max(2 * most, 3 * math.sqrt(below + hits)):
            found = [*classes[::-1].tolist(), int(classes[0]) - 1]
    return found


def _knows_the_rest(
    counts: npt.NDArray[np.integer[Any]], places: npt.NDArray[np.intp]
) -> bool:
    """Whether of the classes that keep their columns more is right than by chance.

    What a network says that has hardly learnt hangs on the class, too, but not so that
    it is right. Where no class keeps its column nothing is left to look at.
    """
    rest = np.flatnonzero(places == np.arange(len(places)))
    if len(rest) == 0:
        return True
    right = int(counts.diagonal()[rest].sum())
    shares = counts.sum(0) / max(1, int(counts.sum()))
    by_chance = float(counts.sum(1)[rest] @ shares[rest])
    return right - by_chance > 3 * math.sqrt(max(by_chance, 1.0))


def _better_columns(counts: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.intp]:
    """Exchange two columns at a time while clearly more is right; each label's column.

    ``counts[i, j]`` samples of label i are predicted as j.
    """
    places = np.arange(len(counts))
    for _ in range(_MOST_EXCHANGES):
        crossed = counts[:, places]  # what label i has in the present column of j
        now = crossed.diagonal()
        after = crossed + crossed.T
        before = now + now[:, None]
        gain = after - before - 2 * np.sqrt(after + before)
        one, two = np.unravel_index(gain.argmax(), gain.shape)
        if gain[one, two] <= 0:
            break
        places[[one, two]] = places[[two, one]]
    return places


def _circles(places: npt.NDArray[np.intp]) -> Iterator[list[int]]:
    """The circles of a permutation that hold more than one."""
    seen: set[int] = set()
    for start in range(len(places)):
        circle = []
        at = start
        while at not in seen:
            seen.add(at)
            circle.append(at)
            at = int(places[at])
        if len(circle) > 1:
            yield circle


def _steps(circle: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each with the next, the last with the first."""
    return zip(circle, [*circle[1:], circle[0]], strict=True)


def tell_exchanged(classes: Sequence[object]) -> str:
    """Say what ``exchanged_classes`` has found, by ids or by names."""
    first, second, *others = classes
    told = f"samples of class {first} are rather predicted as {second}"
    if not others:
        return f"{told}, of {second} as {first}"
    return f"{told}, of {second} as {others[0]}, and so on ({len(classes)} classes)"


def confidence_of(logits: Tensor) -> Tensor:
    """Top-1 probability (N,), added up in float64.

    So ``1 - confidence`` keeps its digits for float32 logits, too.
    """
    shifted = logits - logits.amax(1, keepdim=True)
    return 1 / shifted.exp().sum(1, dtype=torch.float64)


def groups_of_ties(probs: Floats, rounding: float) -> Integers:
    """Number sorted probabilities, those that are equal but for rounding alike.

    Votes and rounded probabilities repeat few numbers, which softmax(log p) gives now
    a little above, now a little below; so do coarse logits. Where not even one in ten
    numbers is alike another, but for equal ones, only these are alike.

    Parameters
    ----------
    probs : (N,) array
        A softmax in float64, sorted.
    rounding : float
        That of the logits: see ``blocks.rounding_of``.

    Returns
    -------
    (N,) array of integers
        Rising from 0.

    Examples
    --------
    >>> groups_of_ties(np.array([0.2, 0.2, 0.6, 0.6 + 1e-15, 0.6 + 2e-15]), 1e-15)
    array([0, 0, 1, 1, 1])
    """
    # The logits' own rounding, which moves p by p (1 - p), and the last bits of a sum.
    slack = probs * (8 * rounding * (1 - probs) + 8 * np.finfo(np.float64).eps)
    gaps = np.diff(probs)
    begins = np.append(True, gaps > slack[1:])
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(probs)) - 1
    is_wide = probs[last] - probs[first] > slack[last]  # a chain of small gaps
    for start, stop in zip(first[is_wide], last[is_wide] + 1, strict=True):
        at = int(start)
        while at < stop:
            begins[at] = True
            at = bisect.bisect_right(probs, probs[at] + slack[at], at, int(stop))
    differs = np.append(True, gaps > 0)
    if 10 * int(begins.sum()) > 9 * int(differs.sum()):
        begins = differs
    return np.cumsum(begins) - 1


def distances_below_top(logits: Tensor) -> Tensor:
    """How far each logit lies below its row's largest, (N, K): no exp can overflow."""
    return logits.amax(1, keepdim=True) - logits


def softmax_sums(distances: Tensor, inverse_temperatures: Floats) -> Floats:
    """Softmax denominators of all rows at several temperatures.

    Parameters
    ----------
    distances : (N, K) Tensor
        See ``distances_below_top``.
    inverse_temperatures : (M,) array
        1 / T.

    Returns
    -------
    (M, N) array
        Their inverses are the confidences.
    """
    n_values = len(inverse_temperatures)
    sums = np.empty((n_values, len(distances)))
    at_once = max(1, (1 << 16) // max(1, distances.numel()))
    # The same memory for every block: fresh memory is slow.
    scratch = distances.new_empty(min(at_once, n_values), *distances.shape)
    for start in range(0, n_values, at_once):
        block = torch.from_numpy(inverse_temperatures[start : start + at_once])
        scaled = torch.mul(distances, -block[:, None, None], out=scratch[: len(block)])
        sums[start : start + at_once] = scaled.exp_().sum(2)
    return sums


def binned_error(
    confidence: Floats, excess: Floats, n_bins: int, rounding: float
) -> float:
    """ECE in bins of equal width from confidences and (confidence - correct).

    ``rounding`` is that of the logits (``blocks.rounding_of``): what lies above an edge
    by no more, or by what a softmax in float64 adds, is on it.
    """
    tolerance = max(rounding, _OF_SOFTMAX)
    bins = (confidence * bin_scale(n_bins, tolerance)).astype(np.intp)
    return float(np.abs(np.bincount(bins, excess)).sum() / len(bins))


def count_below(edges: Tensor, values: Tensor) -> Tensor:
    """How many of the sorted ``edges`` (..., M) lie below each of ``values`` (..., N).

    What ``torch.searchsorted`` gives, from steps that ONNX and ``torch.func`` know:
    a binary search of log2(M) gathers.

    Examples
    --------
    >>> count_below(torch.tensor([0.2, 0.4]), torch.tensor([0.1, 0.2, 0.3, 0.9]))
    tensor([0, 0, 1, 2])
    """
    n_edges = int(edges.shape[-1])  # the old tracer gives a tensor
    count = torch.zeros_like(values, dtype=torch.int64)
    step = 1 << max(0, n_edges.bit_length() - 1)
    while step and n_edges:
        candidate = count + step
        last = edges.gather(-1, candidate.clamp(max=n_edges) - 1)
        fits = (candidate <= n_edges) & (last < values)
        count = torch.where(fits, candidate, count)
        step //= 2
    return count


def interpolate(at: Tensor, points: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear through (points, values), constant outside; ``points`` sorted.

    All three may have leading dimensions in common: a curve for each row of ``at``.

    Examples
    --------
    >>> points, values = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 4.0])
    >>> interpolate(torch.tensor([-1.0, 0.5, 3.0]), points, values)
    tensor([2., 3., 4.])
    """
    right = count_below(points, at.detach()).clamp(max=points.shape[-1] - 1)
    left = (right - 1).clamp(min=0)
    before = points.gather(-1, left)
    width = points.gather(-1, right) - before
    # Exported, a constant such as 1e-300 may be 0, and 0 / 0 where two points are one.
    is_one_point = width <= 0
    beyond = at - before
    inside = (beyond / width.masked_fill(is_one_point, 1.0)).clamp(0, 1)
    weight = torch.where(is_one_point, (beyond > 0).to(inside.dtype), inside)
    return torch.lerp(values.gather(-1, left), values.gather(-1, right), weight)


#: The least inverse temperature of a single sample.
_SLOWEST = 1e-12
#: A runner-up that is nearer to the top counts as so near where a search begins.
_NEAREST = -1e-8
#: Farther below the top than any logit: what is no rival. Times x it stays finite.
_NO_RIVAL = -1e299


def with_confidence(logits: Tensor, confidence: Tensor) -> Tensor:
    """Rows whose top class has a wanted probability, in the order that they had.

    A top class that rises takes from the others in proportion. One that falls would be
    overtaken by a runner-up that rose in proportion: its row is softened by a
    temperature. What is wanted is kept between 1 / K and 1, 1e-7 away from 1. Classes
    that share the largest logit rise together; where that would leave the others
    nothing, the row stays as it is.

    Parameters
    ----------
    logits : (N, K) Tensor
        Of any floating dtype.
    confidence : (N,) Tensor
        float64, in [0, 1].

    Returns
    -------
    (N, K) Tensor
        Log-probabilities in the dtype of ``logits``, differentiable in both.

    Examples
    --------
    >>> logits = torch.tensor([[3.0, 0.0, 1.0]])
    >>> with_confidence(logits, torch.tensor([0.6])).exp().round(decimals=3)
    tensor([[0.6000, 0.1560, 0.2440]])
    >>> with_confidence(logits, torch.tensor([0.9])).exp().round(decimals=3)
    tensor([[0.9000, 0.0270, 0.0730]])
    """
    distances = distances_below_top(logits.double())
    lowest = (1 + 1e-6) / logits.shape[1]
    wanted = confidence.clamp(min(lowest, 0.5), 1 - 1e-7)
    top = logits.argmax(1, keepdim=True)
    others = (-distances).scatter(1, top, _NO_RIVAL)
    target = torch.log1p(-wanted) - wanted.log()  # log odds of the others
    log_odds = torch.logsumexp(others, 1)
    falls = target > log_odds
    softened = _inverse_temperature_for(others, torch.maximum(target, log_odds))
    x = torch.where(falls, softened, 1.0)
    rise = torch.where(falls, 0.0, _rise_to(wanted, distances))
    risen = torch.where(distances == 0, rise[:, None], -x[:, None] * distances)
    return torch.log_softmax(risen, 1).to(logits.dtype)


def _rise_to(wanted: Tensor, distances: Tensor) -> Tensor:
    """What each of a row's largest logits gains, so that its softmax is ``wanted``.

    0 where so many are the largest that they cannot all be.
    """
    is_top = distances == 0
    rest = torch.logsumexp(torch.where(is_top, _NO_RIVAL, -distances), 1)
    left = 1 - is_top.sum(1) * wanted  # for the others
    is_possible = left > 0
    gain = wanted.log() + rest - torch.where(is_possible, left, 1.0).log()
    return torch.where(is_possible, gain, 0.0)


def _inverse_temperature_for(others: Tensor, target: Tensor) -> Tensor:
    """Solve log sum_k exp(x * others_k) = target for x <= 1; ``others`` <= 0.

    The left side is convex and falls with x. The start counts the largest of the
    others alone and so lies to the left of the root, from where Newton's method
    converges. The last step is taken with gradients: it makes x differentiable. Where
    the root lies beyond ``_SLOWEST``, or is not reached, x is as near as it got.
    """
    rivals = others.detach()
    goal = target.detach()
    nearest = rivals.amax(1).clamp(max=_NEAREST)
    x = (goal / nearest).clamp(_SLOWEST, 1)
    # An exported graph holds every step, and few rows need more.
    for _ in range(60 if may_read_values(x) else 16):
        excess, slope = _log_sum_and_slope(x, rivals, goal)
        following = (x - excess / slope).clamp(_SLOWEST, 1)
        if may_read_values(x) and bool(((following - x).abs() <= 1e-9 * x).all()):
            break
        x = following
    excess, slope = _log_sum_and_slope(x, rivals, goal)
    reached = excess.abs() < 1e-6
    correction = (torch.logsumexp(x[:, None] * others, 1) - target) / slope
    return torch.where(reached, x - correction, x)


def _log_sum_and_slope(
    x: Tensor, others: Tensor, goal: Tensor
) -> tuple[Tensor, Tensor]:
    """Give log sum_k exp(x * others_k) - goal in each row, and its slope."""
    scaled = x[:, None] * others
    excess = torch.logsumexp(scaled, 1) - goal
    slope = (torch.softmax(scaled, 1) * others).sum(1)
    return excess, slope.clamp(max=-1e-30)
