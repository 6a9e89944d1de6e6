"""The one place where bad input is refused, in one style of message.

Every refusal is a ``ValueError`` or ``TypeError`` that reads
``<argument>: <what was wrong>; <what to do>``. Shapes and dtypes are always checked.
Whoever may not wait for an accelerator, as a training step, passes ``values=False``.
"""

import array
import contextlib
import contextvars
import difflib
import math
import numbers
import os
import re
import sys
import types
import warnings
from collections.abc import (
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
    Set,
)
from typing import (
    Literal,
    NamedTuple,
    NoReturn,
    Protocol,
    Self,
    TypeAlias,
    cast,
    overload,
    runtime_checkable,
)

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

#: What the library takes for numbers: tensors, arrays, memory maps, nested lists,
#: DataFrames and Series.
Array: TypeAlias = Tensor | npt.ArrayLike

PROBABILITIES = (
    "rows are >= 0 and sum to 1, as probabilities do; pass the scores before the"
    " softmax, or logits_from_probabilities(p)"
)
_SLACK = 0.004  # how far a softmax's row may be from 1: bfloat16 has 8 bits
_LOOKED_AT = 64  # rows, spread over the set
#: What spreadsheets write beside or below numbers that they add up.
SUMS = {"total", "totals", "sum", "mean", "average", "avg", "median", "overall"}
#: What columns beside those of the classes are called.
NO_CLASS = SUMS | {
    *("max", "min", "margin", "top", "top1", "top2", "second", "gap", "diff", "rank"),
    *("entropy", "std", "var", "value", "scale", "temperature", "loss", "nll", "score"),
    *("true", "label", "target", "truth", "gt", "pred", "predicted", "prediction"),
    *("confidence", "correct", "argmax", "energy", "norm", "logsumexp", "lse"),
}
#: And those of whole columns, which a class may have, too.
_NO_COLUMN_OF_A_CLASS = NO_CLASS | {
    *("y_true", "y_pred", "pred_label", "pred_class", "pred_id", "predicted_label"),
    *("predicted_class", "true_label", "true_class", "conf", "max_prob", "prob", "hit"),
    *("probability", "max_logit", "logit_max", "uncertainty"),
    *("fold", "split", "set", "weight", "count", "n", "seconds", "time", "epoch"),
    *("step", "nll_loss", "ce", "ce_loss", "id", "index", "idx", "seed"),
}
#: A larger NLL of one sample says that its label was given a probability of 0: what
#: ``logarithm`` writes for that is 87 or more, and exp(-80) is 2e-35.
IMPOSSIBLE = 80.0


def fail(
    name: str, problem: str, fix: str, error: type[Exception] = ValueError
) -> NoReturn:
    """Raise ``error`` with the house's one-line message."""
    raise error(f"{name}: {problem}; {fix}")


_OWN_FOLDERS = tuple(
    os.path.dirname(str(module.__file__)) + os.sep
    for module in (sys.modules["gcelib"], torch)
)


#: Where this thread's warnings go instead of being told.
_COLLECTED: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar(
    "collected", default=None
)


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """Collect what the block would warn of, and tell nothing of it.

    What other threads warn of is told as ever, which ``warnings.catch_warnings`` does
    not promise: it changes the filters of the whole process, and two of them that
    overlap leave the inner ones behind.
    """
    messages: list[str] = []
    token = _COLLECTED.set(messages)
    try:
        yield messages
    finally:
        _COLLECTED.reset(token)


def warn(message: str) -> None:
    """Warn at the line of the user's own code, however deep inside gcelib the cause.

    The line is the innermost one that belongs neither to gcelib nor to torch (which
    calls a module's ``forward``): in a notebook, the line of the cell. Within
    ``collected`` nothing is told.
    """
    messages = _COLLECTED.get()
    if messages is not None:
        messages.append(message)
        return
    frame = sys._getframe(1)
    level = 2  # of the frame, as warnings.warn counts
    while frame.f_back and frame.f_code.co_filename.startswith(_OWN_FOLDERS):
        frame = frame.f_back
        level += 1
    warnings.warn(message, UserWarning, stacklevel=level)


# --------------------------------------------------------------------------------------
# Plain arguments


def did_you_mean(value: object, allowed: Iterable[object]) -> str:
    """``"did you mean 'gce'? Known: ..."`` for a misspelt ``value``."""
    known = [str(a) for a in allowed]
    close = difflib.get_close_matches(str(value).lower(), known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(known)}"


def choice(name: str, value: object, allowed: Iterable[str]) -> str:
    """``value`` if it is one of the strings ``allowed``, else propose the nearest."""
    allowed = list(allowed)
    if not isinstance(value, str):
        problem = f"must be a string, got {type(value).__name__} {value!r}"
        fail(name, problem, did_you_mean(value, allowed), TypeError)
    if value not in allowed:
        fail(name, f"unknown {value!r}", did_you_mean(value, allowed))
    return value


def known_keys(name: str, given: Iterable[object], allowed: Iterable[object]) -> None:
    """Refuse keys of the mapping ``given`` that are not in ``allowed``."""
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            fail(name, f"unknown key {key!r}", did_you_mean(key, allowed))


def listed(name: str, values: object) -> list[object]:
    """The values in their order; refused where they have none, as a dict or a set."""
    if isinstance(values, (str, bytes, Mapping, Set)) or not isinstance(
        values, Iterable
    ):
        problem = f"must be a list of names, got {type(values).__name__}"
        fail(name, problem, "pass one for each class, class 0 first", TypeError)
    index = getattr(values, "index", None)  # of a Series; a list's is a method
    if isinstance(index, Iterable):
        places = [_whole_number(place) for place in index]
        counts = {*places} in ({*range(len(places))}, {*range(1, len(places) + 1)})
        if counts and places != sorted(places, key=float):
            problem = f"has the index {', '.join(map(str, [*index][:5]))}"
            problem += ", ..." if len(places) > 5 else ""
            fail(name, problem, "put class 0 first: pass it with .sort_index()")
    return list(values)


def _whole_number(value: object) -> float:
    """A number as such, also if it is text; NaN for what is none."""
    try:
        return float(value) if isinstance(value, (str, numbers.Real)) else math.nan
    except ValueError:
        return math.nan


def boolean(name: str, value: object) -> bool:
    """``value`` if it is True or False: text such as ``"false"`` is refused."""
    if not isinstance(value, (bool, np.bool_)):
        problem = f"must be True or False, got {type(value).__name__} {value!r}"
        fail(name, problem, "write it without quotes", TypeError)
    return bool(value)


@overload
def number(
    name: str,
    value: object,
    low: float = ...,
    high: float = ...,
    *,
    open_low: bool = ...,
    open_high: bool = ...,
    integer: Literal[False] = ...,
) -> float: ...
@overload
def number(
    name: str,
    value: object,
    low: float = ...,
    high: float = ...,
    *,
    open_low: bool = ...,
    open_high: bool = ...,
    integer: Literal[True],
) -> int: ...
def number(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    integer: bool = False,
) -> float:
    """``value`` as int or float if it lies between ``low`` and ``high``.

    The interval is closed unless said.
    """
    kind = numbers.Integral if integer else numbers.Real
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, kind):
        what = "a whole number" if integer else "a number"
        problem = f"must be {what}, got {type(value).__name__} {value!r}"
        fail(name, problem, "pass it as a plain number", TypeError)
    real = cast(float, value)
    below = real <= low if open_low else real < low
    above = real >= high if open_high else real > high
    try:
        finite = integer or math.isfinite(real)
    except OverflowError:  # a whole number that no float can hold
        finite = False
    if below or above or not finite:
        left = "(" if open_low else "["
        right = ")" if open_high or high == math.inf else "]"
        problem = f"{value!r} is outside {left}{low}, {high}{right}"
        fail(name, problem, "choose a value in that range")
    return int(real) if integer else float(real)


# --------------------------------------------------------------------------------------
# Arrays


def as_tensor(name: str, value: object) -> Tensor:
    """Turn what can be read as an array of real numbers into a tensor.

    The tensor shares memory with a tensor or an array where it can: never write to it.
    """
    if isinstance(value, Tensor):
        if value.is_nested:
            cure = "pass rows of one length, in a dense tensor"
            fail(name, "is a nested tensor", cure, TypeError)
        if value.layout != torch.strided:
            problem = f"has layout {value.layout}"
            fail(name, problem, "pass a dense tensor (to_dense())", TypeError)
        if value.is_quantized:
            cure = "pass dequantize() of it; labels as integers"
            fail(name, f"is quantized ({value.dtype})", cure, TypeError)
        return value.detach().resolve_neg()  # numpy reads no lazy minus sign
    numbers_in = value if isinstance(value, np.ndarray) else _as_numpy(name, value)
    if isinstance(numbers_in, np.ma.MaskedArray):
        cure = "leave its holes out and pass the plain array"
        fail(name, "is a masked array", cure, TypeError)
    if numbers_in.dtype.kind not in "fiub":
        cure = "pass real numbers (of a table the numeric columns, astype(float))"
        if "labels" in name:
            cure = "pass the number of each label's column: [columns.index(name) for "
            cure += "name in labels], columns being the classes' names in the order "
            cure += "of the logits (scikit-learn's model.classes_.tolist())"
        fail(name, f"has dtype {numbers_in.dtype}", cure, TypeError)
    return torch.from_numpy(_readable_by_torch(numbers_in))


def _as_numpy(name: str, value: object) -> npt.NDArray[np.generic]:
    """What is no tensor and no array as an array, if numpy makes one of it."""
    listed = isinstance(value, (list, tuple, range, array.array, memoryview))
    if not listed and (isinstance(value, type) or not hasattr(value, "__array__")):
        problem = f"must be a tensor, an array or a list, got {type(value).__name__}"
        fail(name, problem, "convert it first (numpy.asarray(x))", TypeError)
    try:
        return np.asarray(value)
    except Exception as error:  # numpy and the object's own __array__ raise all sorts
        cure = "make all rows equally long and pass numbers"
        fail(name, f"cannot be read as an array ({error})", cure, TypeError)


def _readable_by_torch(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The same numbers in memory that torch can share, copied only where it must be."""
    odd = any(step < 0 or step % values.itemsize for step in values.strides)
    wide = values.dtype.itemsize > 8
    if odd or wide or not values.dtype.isnative:
        dtype = np.dtype(np.float64) if wide else values.dtype.newbyteorder("=")
        values = values.astype(dtype)
    if not values.flags.writeable:
        # torch warns of read-only memory, and a file mapped into memory must not be
        # copied: show torch the same memory as if it were writable.
        memory = dict(values.__array_interface__)
        memory["data"] = (memory["data"][0], False)
        view = types.SimpleNamespace(__array_interface__=memory, owner=values)
        values = np.asarray(view)
    return values


def check_has_values(name: str, tensor: Tensor) -> None:
    """Refuse a tensor on torch's ``meta`` device: it has a shape and no numbers."""
    if tensor.device.type == "meta":
        fail(name, "are on the meta device, without values", "pass the numbers")


def all_finite(values: Tensor) -> bool:
    """Tell whether every value is finite; one pass, no temporary of their size."""
    if not values.numel():
        return True
    low, high = torch.aminmax(values)
    return math.isfinite(low) and math.isfinite(high)


def check_logits(
    logits: Tensor,
    name: str = "logits",
    *,
    min_samples: int = 1,
    values: bool = True,
    first_row: int = 0,
) -> None:
    """Refuse anything but floating-point logits (N, K), N >= min_samples, K >= 2.

    ``values``: refuse what is not finite, too. ``first_row``: where these rows begin
    in what the caller was given, for the message.
    """
    if not logits.is_floating_point() or logits.dtype.itemsize < 2:
        cure = "pass floating-point scores (16, 32 or 64 bits)"
        if logits.ndim == 1:
            cure += "; logits come first, labels second"
        fail(name, f"has dtype {logits.dtype}", cure, TypeError)
    if logits.ndim != 2 or logits.shape[1] < 2:
        problem = f"expected shape (N, K) with K >= 2, got {tuple(logits.shape)}"
        fail(name, problem, _cure_of_shape(logits.shape))
    if logits.shape[0] < min_samples:
        problem = f"has {logits.shape[0]} samples, at least {min_samples} are needed"
        fail(name, problem, "pass more samples")
    if values and logits.device.type != "meta" and not all_finite(logits):
        refuse_not_finite(logits, name, first_row)


def _cure_of_shape(shape: torch.Size) -> str:
    """What to do with scores of another shape than (N, K)."""
    if len(shape) == 3 and shape[2] == 2 and shape[0] != 1:
        return (
            "pass a row of K scores per sample; of several labels that are yes or no, "
            "as scikit-learn's list of (N, 2), judge each alone: logits[i], "
            "labels[:, i]; of sequences (N, T, 2) logits.flatten(0, -2), with "
            "labels.flatten()"
        )
    if len(shape) > 2:
        return (
            "pass a row of K scores per sample; of dense ones (N, K, ...)"
            " logits.movedim(1, -1).flatten(0, -2), of sequences (N, T, K)"
            " logits.flatten(0, -2), with labels.flatten()"
        )
    if len(shape) == 1 or shape[1:] == (1,):
        first = "s = s[:, 0]; " if len(shape) == 2 else ""
        return (
            "pass a row of K scores per sample; of one score s for class 1 in two "
            f"classes: {first}numpy.stack([0 * s, s], 1), or torch.stack; of its "
            "probability p: numpy.stack([1 - p, p], 1) with probabilities=True"
        )
    return "pass a row of K scores per sample"


def refuse_not_finite(
    logits: Tensor, name: str = "logits", first_row: int = 0
) -> NoReturn:
    """Refuse logits (N, K) by their first row that is not finite."""
    bad = int((~torch.isfinite(logits)).any(1).nonzero()[0])
    problem = f"contains NaN or infinity, first in row {first_row + bad}"
    if bool(torch.isneginf(logits[bad]).any() and not torch.isnan(logits[bad]).any()):
        cure = (
            "if it is log(p) of a probability 0, pass the probabilities: metrics take"
            " probabilities=True, logits_from_probabilities(p) is finite"
        )
        fail(name, problem, cure)
    fail(name, problem, "look at the model or file that produced it")


def check_probabilities(p: Tensor, name: str = "logits", first_row: int = 0) -> None:
    """Refuse rows of floating-point ``p`` (N, K) that are no distribution.

    Values may miss [0, 1], and sums miss 1, by a thousandth (in 16 bits by a
    hundredth), for rounding; nan is refused.
    """
    slack = 0.001 if p.dtype.itemsize > 2 else 0.01
    low, high = torch.aminmax(p, dim=1)
    off = (p.sum(1, dtype=torch.float32) - 1).abs()
    good = (low >= -slack) & (high <= 1 + slack) & (off <= slack)
    if bool(good.all()):
        return
    at = int((~good).nonzero()[0])
    row = f"row {first_row + at}"
    if not bool(torch.isfinite(p[at]).all()):
        cure = "look at the model or file that produced it"
        fail(name, f"contains NaN or infinity, first in {row}", cure)
    if bool(low[at] < -slack) or bool(high[at] > 1 + slack):
        problem = f"hold {float(low[at]):.4g} to {float(high[at]):.4g} in {row}"
        cure = "probabilities lie in [0, 1]; percentages must be divided by 100"
        if name != "p":  # what the caller's argument holds may be logits
            cure = "probabilities lie in [0, 1]; of logits leave probabilities=True out"
        fail(name, problem, cure)
    problem = f"sum to {float(p[at].double().sum()):.4g} in {row}, not to 1"
    cure = (
        "of rounded probabilities divide each row by its sum; of one probability for"
        " each class by itself (sigmoid) there is no distribution to measure"
    )
    fail(name, problem, cure)


# --------------------------------------------------------------------------------------
# Probabilities where logits are expected


def are_probabilities(logits: Tensor) -> bool:
    """Tell whether rows spread over the set are distributions (or rounded ones)."""
    suspicion = _kind_of_probabilities(logits)
    return suspicion is not None and suspicion.first_step == ""


class _Suspicion(NamedTuple):
    """What logits seem to be, and what to do before they are passed as probabilities.

    ``last_step`` False: what the first step leads to are logits already.
    """

    kind: str
    first_step: str
    last_step: bool = True


#: What people multiply probabilities by: the total of a row, and what it is called.
_TOTALS = {
    1: "probabilities",
    100: "percentages",
    255: "probabilities in bytes",
    256: "probabilities in bytes",
    1000: "shares of a thousand",
    10_000: "shares of ten thousand",
    65_535: "probabilities in 16 bits",
    65_536: "probabilities in 16 bits",
    1_000_000: "shares of a million",
}
_DIVIDE = "divide each row by its sum; then "
_FIRST_STEPS = {1: "", 100: "divide them by 100; then "}
_MAYBE = (
    "of logits (or similarities) this is no mistake; of probabilities, whose rows must"
    " sum to 1, "
)
_BASES = {2: "log2(p)", math.e: "log(p)", 10: "log10(p)"}
_LOGITS_ARE_LOGARITHMS = "the natural logarithm log(p), with its sign, is a logit"


def _kind_of_probabilities(logits: Tensor) -> _Suspicion | None:
    """What makes the rows that are looked at seem probabilities, None if nothing."""
    n_samples = len(logits)
    if n_samples == 0 or logits.device.type == "meta":
        return None
    first = logits[0, :32].tolist()
    if min(first) < -_SLACK and max(first) > _SLACK:  # nearly always true of logits
        return None
    looked_at = logits[:: max(1, n_samples // _LOOKED_AT)]
    low, high = (float(value) for value in torch.aminmax(looked_at))
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    rows = looked_at.cpu().double()
    coarse = torch.finfo(logits.dtype).eps  # one unit of what the numbers are kept in
    if low < -high and high <= _SLACK:
        return _kind_of_negative(rows, coarse)
    return _kind_of_positive(rows, coarse) if low >= -_SLACK else None


def _kind_of_positive(rows: Tensor, coarse: float) -> _Suspicion | None:
    """What numbers >= 0 seem to be, None if they may well be logits."""
    high = float(rows.max())
    sums = rows.sum(1)
    for total, name in _TOTALS.items():
        if _sum_to(total, rows, sums, coarse):
            kind = f"rows are >= 0 and sum to {total}, as {name} do"
            return _Suspicion(kind, _FIRST_STEPS.get(total, _DIVIDE))
    if high > 1 + _SLACK and _are_shares(rows, sums, coarse):
        kind = f"rows are >= 0 and all sum to {float(sums[0]):g}, as votes or shares do"
        return _Suspicion(kind, _DIVIDE)
    base = _base_of_logarithm(-rows)
    if base is not None:
        kind = f"rows are -{_BASES[base]} of probabilities that sum to 1"
        return _Suspicion(kind, _LOGITS_ARE_LOGARITHMS, last_step=False)
    if rows.numel() < 16 or bool((rows.frac() == 0).all() and high <= 1 + _SLACK):
        return None  # so few, or zeros and ones alone, may be anything
    if 0.5 < high <= 1 + _SLACK:  # similarities, and tiny logits, stay below
        return _Suspicion("all values lie in [0, 1], as probabilities do", _MAYBE)
    tops = float(rows.amax(1).median())
    whole = bool((rows.frac() == 0).all())
    if whole and float(rows.median()) >= 20:  # whole numbers may well be logits
        return None
    if high <= 100 + 100 * _SLACK and tops > 50:
        kind = "all values lie in [0, 100], as percentages do"
        return _Suspicion(kind, f"{_MAYBE}{_FIRST_STEPS[100]}")
    return None


def _kind_of_negative(rows: Tensor, coarse: float) -> _Suspicion | None:
    """What numbers <= 0 seem to be, None if they may well be logits, as log(p) is."""
    for total, name in _TOTALS.items():
        if _sum_to(total, -rows, -rows.sum(1), coarse):
            kind = f"rows are <= 0 and sum to -{total}, as {name} with a minus sign do"
            first_step = "change the sign; " + _FIRST_STEPS.get(total, _DIVIDE)
            return _Suspicion(kind, first_step)
    base = _base_of_logarithm(rows)
    if base is None or base == math.e:
        return None
    kind = f"rows are {_BASES[base]} of probabilities that sum to 1"
    return _Suspicion(kind, _LOGITS_ARE_LOGARITHMS, last_step=False)


def _sum_to(total: int, rows: Tensor, sums: Tensor, coarse: float) -> bool:
    """Tell whether rows >= 0 are shares of ``total``, exact, rounded or cut off.

    Rounding to a unit moves a sum of K shares by at most K/2 units, cutting the digits
    off by K. Where so much is possible, chance must be excluded: what is shared out
    varies less in sum than its parts do, and scores that know nothing of each other
    vary as much.
    """
    n_samples, n_classes = rows.shape
    off = (sums - total) / total
    worst = float(off.abs().max())
    if worst > 0.6 or float(rows.max()) > total * (1 + _SLACK):
        return False
    if total == 1 and bool((rows.frac() == 0).all()):  # one-hot
        return n_samples >= 4 and worst == 0
    if total > 1 and _written_by_hand(rows, alike=total != 100):
        return False
    exact = max(1e-6, coarse if coarse > 1e-6 else 0)
    if n_samples == 1 and total == 1:
        return worst <= exact
    unit = _unit(rows, total) / total
    # How widely sums of numbers that know nothing of each other would scatter.
    scatter = float(rows.var()) ** 0.5 * n_classes**0.5 / total
    if _are_nearer_than_chance(worst, exact, unit, scatter, n_samples):
        return True
    apart = float(rows.var(0).sum()) if n_samples > 1 else 0.0
    if apart == 0:  # all rows are alike
        return worst <= exact and (n_samples > 1 or scatter == 0)
    lowest = -min(n_classes * unit, 0.6)
    highest = min(0.5 * n_classes * unit, 0.5)
    if n_samples < 4 or not bool(((off >= lowest) & (off <= highest)).all()):
        return False
    return float(sums.var()) < (0.25 if n_samples >= 16 else 0.05) * apart


def _are_nearer_than_chance(
    worst: float, exact: float, unit: float, scatter: float, n_samples: int
) -> bool:
    """Tell whether all sums lie so near to their total that it can be no accident.

    All numbers are relative to the total: ``worst`` is the largest distance, ``unit``
    what the parts are rounded to.
    """
    slacks = (exact, _SLACK) if n_samples > 1 else (exact,)
    convincing = 0.03 if n_samples == 1 else 0.001 ** (1 / n_samples)
    for slack in slacks:
        by_chance = (2 * slack + unit) / (2.5 * scatter + 1e-9)
        if worst <= slack and by_chance < convincing:
            return True
    return False


def _written_by_hand(rows: Tensor, alike: bool = True) -> bool:
    """Tell whether each row has one number beside zeros, or all rows the same ones."""
    if not bool(((rows > 0).sum(1) > 1).any()):
        return True
    ordered = rows.sort(1).values
    return alike and len(rows) > 1 and bool((ordered == ordered[0]).all())


def _are_shares(rows: Tensor, sums: Tensor, coarse: float) -> bool:
    """Tell whether rows have one total, and are not all of one pattern.

    Such are the votes of trees or neighbours.
    """
    if len(rows) < 4:
        return False
    # Measured by what is shared out: a large number added to logits is no total.
    lowest, highest = rows.aminmax(dim=1)
    apart = float((sums - sums[0]).abs().max())
    total = float(sums[0])
    if total > 0:  # sums in half precision, or widened since, scatter by its rounding
        scatter = float(rows.std()) * rows.shape[1] ** 0.5 / total
        near = _are_nearer_than_chance(
            apart / total, 4 * coarse, 0.0, scatter, len(rows)
        )
        if near:
            return not _written_by_hand(rows)
    rounding = min(coarse, 1e-6) * float(sums[0])
    if apart > 1e-6 * float((highest - lowest).median()) + rounding:
        return False
    return not _written_by_hand(rows)


def _base_of_logarithm(rows: Tensor) -> float | None:
    """The base in which rows <= 0 are logarithms of distributions, if there is one."""
    informative = int((rows.amax(1) < -0.02).sum())  # [0, -9] is log(p), and a logit
    if not informative:
        return None
    off = {
        base: float(((rows * math.log(base)).exp().sum(1) - 1).abs().max())
        / math.log(base)
        for base in (math.e, 2, 10)
    }
    base = min(off, key=lambda base: off[base])
    if off[base] > 0.1 or bool((rows.frac() == 0).all()):
        return None
    if informative < 4:
        return base if off[base] <= 1e-5 else None
    if off[base] <= _SLACK:
        return base
    return base if off[base] <= 0.5 * _unit(rows, 1) else None


def _unit(rows: Tensor, total: int) -> float:
    """One unit of the last decimal digit that the numbers have; 0 if they are exact."""
    for digits in range(-1, 7):
        scaled = rows * 10.0**digits
        near = min(2e-7 * total * 10.0**digits + 1e-9, 0.01)  # float32 has 7 digits
        if bool(((scaled - scaled.round()).abs() <= near).all()):
            return 10.0**-digits
    return 0.0


def warn_of_probabilities(
    logits: Tensor,
    name: str = "logits",
    cure: str = "pass probabilities=True, or logits_from_probabilities(p)",
) -> None:
    """Warn if ``logits`` (N, K) look like probabilities, which came in by mistake.

    Looks at 64 to 127 rows spread evenly over the set, for rows that sum to 1 (also
    rounded to any number of digits, also one-hot), to 100, 255, 1,000 or another
    total, also with a minus sign; for -log(p) and logarithms to other bases; and for
    values that all lie in [0, 1] or fill [0, 100]. Cost: one row, 5 microseconds,
    where it holds numbers of both signs, as logits of a network do; else those rows,
    0.1 to 1 ms. On an accelerator it reads the same rows, and waits for them.
    """
    suspicion = _kind_of_probabilities(logits)
    if suspicion is not None:
        last_step = cure if suspicion.last_step else ""
        warn(f"{name}: {suspicion.kind}; {suspicion.first_step}{last_step}")


def logarithm(p: Tensor) -> Tensor:
    """The logarithm of probabilities, in at least float32, with a floor for zeros.

    Of half precision that of the decimals that were meant, lest two digits, or votes of
    20 trees, lie above or below the edge of a bin as they were rounded.
    """
    values = p.to(torch.promote_types(p.dtype, torch.float32))
    if p.dtype.itemsize < 4:
        values = _shortest_decimals(p).to(values.dtype)
    return values.clamp(torch.finfo(values.dtype).tiny, 1).log()


def _shortest_decimals(p: Tensor) -> Tensor:
    """Probabilities as the shortest decimals that round to them: 0.65 for 0.6499."""
    values = p.detach().cpu()
    distinct: Tensor = torch.unique(values)
    at = torch.searchsorted(distinct.float(), values.float().contiguous())
    exact = distinct.double()
    found = exact.clone()
    # The place of the first digit that is not zero; of a zero any will do.
    place = exact.clamp(min=1e-300).log10().floor()
    for digits in (5, 4, 3, 2, 1):
        unit = 10.0 ** (digits - 1 - place)
        decimal = (exact * unit).round() / unit
        is_same = (decimal.to(p.dtype) == distinct) & (exact > 0)
        found = torch.where(is_same, decimal, found)
    decimals: Tensor = found[at]
    return decimals.to(p.device)


def warn_of_impossible_labels(
    logits: Tensor,
    labels: Tensor,
    name: str = "labels",
    highest: Tensor | None = None,
) -> None:
    """Warn where labels had the probability 0, or one that few types can write.

    ``highest``: the largest logit of each row, where it is known.
    """
    of_labels = logits.gather(1, labels[:, None])[:, 0]
    tops = logits.amax(1) if highest is None else highest
    distances = tops.double() - of_labels.double()
    n_impossible = int((distances > IMPOSSIBLE).sum())
    if n_impossible:
        warn(
            f"{name}: {n_impossible:,} of {len(labels):,} labels had a probability of "
            "0, or below 1e-34: an NLL, and what is fitted by it, is the price of "
            "these alone; use unrounded probabilities, or mix a little of 1/K into "
            "them first"
        )


# --------------------------------------------------------------------------------------
# Labels


def check_labels(
    labels: Tensor,
    n_samples: int,
    n_classes: int,
    name: str = "labels",
    *,
    values: bool = True,
) -> None:
    """Refuse all but integer labels (N,), if ``values`` those outside [0, K) too."""
    if labels.ndim != 1:
        problem = f"expected shape ({n_samples},), got {tuple(labels.shape)}"
        fail(name, problem, _cure_of_labels(labels))
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        cure = (
            "pass integer class ids: of a tensor labels.long(), of an array"
            " labels.astype(int), in a file whole numbers (3, not 3.0)"
        )
        is_readable = labels.is_floating_point() and labels.device.type != "meta"
        if is_readable and bool((labels != labels.round()).any()):
            cure = "fractions are no class ids: of shares of annotators take the class "
            cure += "that most of them chose"
        fail(name, f"has dtype {labels.dtype}", cure, TypeError)
    if labels.shape[0] != n_samples:
        problem = f"has {labels.shape[0]} entries for {n_samples} rows of logits"
        fail(name, problem, "pass one label per row")
    if values and labels.device.type != "meta":
        check_range(labels, n_classes, name)


def _cure_of_labels(labels: Tensor) -> str:
    """What to do with labels that are no vector."""
    if labels.ndim != 2:
        return "pass one class id per row"
    if labels.shape[1] == 1:
        return "pass labels[:, 0]"
    if labels.device.type != "cpu" or labels.is_complex():
        return "pass one class id per row (of one-hot rows labels.argmax(1))"
    zeros_and_ones = bool(((labels == 0) | (labels == 1)).all())
    ones = labels.double().sum(1)
    if zeros_and_ones and bool((ones == 1).all()):
        return "these rows are one-hot: pass labels.argmax(1)"
    if zeros_and_ones:
        without = int((ones == 0).sum())
        several = int((ones > 1).sum())
        return (
            f"there are {without} rows without a class, {several} with several: several"
            " labels per sample are another task, measure each class by itself"
            " (labels[:, k] with its two probabilities)"
        )
    return "pass one class id per row; soft labels have no single class to be right on"


def check_range(labels: Tensor, n_classes: int, name: str = "labels") -> None:
    """Refuse labels outside [0, n_classes)."""
    if len(labels):
        low, high = (int(v) for v in torch.aminmax(labels.long()))
        if low < 0 or high >= n_classes:
            bad = low if low < 0 else high
            problem = f"contains {bad}, outside [0, {n_classes})"
            cure = "class ids count from 0 to K - 1"
            if bad == -100:  # PyTorch's mark for samples without a label
                cure += "; leave these samples out, or pass a loss ignore_index=-100"
            fail(name, problem, cure)


_MANY = 20  # labels that all fall into one half of the classes by no chance
_MARKS = "_.-: "  # between a class and what else the name of a column says


@runtime_checkable
class _Index(Protocol):
    """An index of pandas, which need not be installed."""

    def equals(self, other: object, /) -> bool:
        """Tell whether both hold the same, in the same order."""

    def sort_values(self) -> Self:
        """The same, sorted."""


def warn_of_tables(
    logits: object,
    labels: object,
    scores: Tensor,
    classes: Tensor,
    names: tuple[str, str] = ("logits", "labels"),
) -> None:
    """Warn where DataFrames or Series do not say what their rows and columns seem to.

    Rows are taken by position, as everywhere outside pandas: an index in another order
    is told, and so are columns of ``logits`` that count the classes in another order,
    and one that holds the labels, or counts the rows.
    ``scores`` and ``classes`` are their numbers.
    """
    if isinstance(logits, np.ndarray) or (
        isinstance(logits, Tensor) and _index_of(logits) is None
    ):
        return
    names_of_columns = _names_of_columns(logits)
    if names_of_columns and scores.ndim == 2:
        _warn_of_order(names[0], names_of_columns)
    if len(scores) != len(classes) or scores.device != classes.device:
        return
    if names_of_columns and scores.ndim == 2 and classes.ndim == 1:
        _warn_of_columns(names[0], names_of_columns, scores, classes)
    warn_of_indexes(logits, labels, names)


def warn_of_indexes(one: object, other: object, names: tuple[str, str]) -> None:
    """Warn where two tables hold the same index in two orders: rows are by position."""
    ours, theirs = _index_of(one), _index_of(other)
    if not (isinstance(ours, _Index) and isinstance(theirs, _Index)):
        return
    if _in_another_order(ours, theirs):
        first, second = names
        table = first
        if isinstance(one, Tensor):
            first = f"the table that {first} were made of"
            table = "table"
        warn(
            f"{second}: their index is another one than that of {first}, and rows are "
            f"taken by position; pass {second}.loc[{table}.index] if the index says "
            f"what belongs together, else {second}.to_numpy()"
        )


#: Of tensors that were made of a table, its index, as long as they live.
_INDEXES: MutableMapping[Tensor, _Index] = WeakTensorKeyDictionary()


def remember_index(made: Tensor, table: object) -> None:
    """Let ``made``, whose rows are those of ``table``, be compared with labels later.

    ``table`` may be a tensor of which an index is remembered. What is made of ``made``,
    as its rows in another order, has none.
    """
    index = _index_of(table)
    if isinstance(index, _Index):
        _INDEXES[made] = index


def _index_of(table: object) -> object:
    """The index of the rows, of pandas and xarray; None where there is none."""
    if isinstance(table, Tensor):
        return _INDEXES.get(table) if _INDEXES else None
    dimensions = getattr(table, "dims", None)
    indexes = getattr(table, "indexes", None)
    if dimensions and isinstance(indexes, Mapping):
        return indexes.get(dimensions[0])
    index: object = getattr(table, "index", None)
    return index


def _names_of_columns(table: object) -> list[str]:
    """The names of the columns, of pandas, polars, pyarrow; empty without any."""
    columns = getattr(table, "columns", None)
    named = getattr(table, "column_names", columns)  # pyarrow's columns hold numbers
    return [str(name) for name in named] if isinstance(named, Iterable) else []


def warn_of_order(name: str, table: object) -> None:
    """Warn of a table whose columns count the classes in another order."""
    if not isinstance(table, (Tensor, np.ndarray)):
        _warn_of_order(name, _names_of_columns(table))


def numbers_of_names(names: Sequence[str]) -> list[int] | None:
    """The numbers by which names count: of ``c0, c1, c10`` 0, 1 and 10; else None.

    The rest of the names is one and the same, or follows the numbers: ``0_cat, 1_dog``.
    """
    alike = [re.fullmatch(r"(.*?)(\d+)(?:\.0)?(\D*)", name) for name in names]
    parts = [part for part in alike if part is not None]
    if len({(part[1], part[3]) for part in parts}) == 1:
        numbers = [int(part[2]) for part in parts]
    else:
        begins = [re.match(r"(\d+)[\W_]*[^\W\d_]", name) for name in names]
        numbers = [int(part[1]) for part in begins if part is not None]
    return numbers if len({*numbers}) == len(names) else None


def _warn_of_order(name: str, columns: list[str]) -> None:
    """Warn of columns such as 0, 1, 10, 11, 2: sorted as text, taken by position."""
    numbers_in = numbers_of_names(columns)
    if not numbers_in:
        return
    ordered = sorted(numbers_in)
    first = ordered[0]
    counts = first in (0, 1) and ordered == list(range(first, first + len(ordered)))
    if counts and numbers_in != ordered:
        at = next(i for i, n in enumerate(numbers_in) if n != ordered[i])
        warn(
            f"{name}: columns count the classes, and not in order: {columns[at]!r} "
            f"stands where {ordered[at]} would, and they are taken by position; put "
            "them in the order of the class ids"
        )


def _warn_of_columns(
    name: str, columns: list[str], scores: Tensor, classes: Tensor
) -> None:
    """Warn of columns that are no class's: labels, numbers of rows, a second set."""
    if len(scores) < 10 or not bool((scores != scores.round()).any()):
        return
    steps = scores.diff(dim=0)
    told = {
        "holds the labels": (scores == classes[:, None]).all(0),
        "counts the rows": ((steps == 1).all(0)) & (scores[0] == scores[0].round()),
    }
    for what, columns_that in told.items():
        if bool(columns_that.any()):
            column = columns[int(columns_that.int().argmax())]
            warn(f"{name}: column {column!r} {what}; leave it out")
    are_ids = not classes.is_floating_point()  # else refused where they are checked
    odd = _column_apart(columns, int(classes.max())) if are_ids else None
    if odd is not None:
        warn(
            f"{name}: column {odd!r} has no name like the others, which are of the "
            "classes; leave it out if it is no class"
        )
    numbers_in = numbers_of_names(columns)
    from_one = numbers_in == list(range(1, len(columns) + 1))
    if from_one and are_ids and len(classes) >= _MANY and int(classes.min()) >= 1:
        warn(
            f"{name}: columns count from 1, and so may the labels, of which none is 0: "
            "class ids count from 0, as columns stand; subtract 1 if so"
        )
    second = second_set(columns, classes.tolist())
    if second:
        warn(
            f"{name}: columns {second[0]!r} to {second[-1]!r} seem a second set of "
            "scores, no label is of their classes; leave them out"
        )


def _column_apart(columns: Sequence[str], highest_label: int) -> str | None:
    """A column beside those of the classes, if all labels are of such columns.

    That is one beside ``logit_0, logit_1, ...``, or one that has the name of something
    else, as ``confidence`` beside ``cat, dog, eel``.
    """
    plain = [re.sub(r"[\s\-]+", "_", name.strip().casefold()) for name in columns]
    others = [
        name
        for name, word in zip(columns, plain, strict=True)
        if word in _NO_COLUMN_OF_A_CLASS
    ]
    if others and max(2, highest_label + 1) <= len(columns) - len(others):
        return others[0]
    starts: dict[str, list[int]] = {}
    for name in columns:
        part = re.fullmatch(r"(.*?)(\d+)(?:\.0)?", name)
        if part is not None:
            starts.setdefault(part[1], []).append(int(part[2]))
    for start, found in starts.items():
        first = min(found)
        counts = first in (0, 1) and sorted(found) == list(
            range(first, first + len(found))
        )
        if counts and max(2, highest_label + 1) <= len(found) < len(columns):
            like = re.compile(re.escape(start) + r"\d+(?:\.0)?")
            return next(name for name in columns if not like.fullmatch(name))
    return None


def second_set(columns: Sequence[str], labels: Iterable[int]) -> list[str]:
    """Columns that seem a second set of scores of the same classes; mostly none.

    The names of such sets are all pairs of a class and a mark: ``cat, dog, cat_std,
    dog_std``; ``0, 1, 0.1, 1.1``; ``cat_x, dog_x, cat_y, dog_y``; or the same twice.
    Classes may be called so, too, but then labels, ids of columns, are of all sets.
    """
    ids = [*labels]
    used = {*ids}
    if len(ids) < _MANY or not 2 <= len(used) <= len(columns) / 2:
        return []
    for sets in _grids(columns):
        size = len(sets[0])
        homes = [one for one in sets if used <= {*one}]
        if not homes and max(used) >= size:
            continue
        home = homes[0] if homes else min(sets)
        return [name for at, name in enumerate(columns) if at not in home]
    return []


def _grids(columns: Sequence[str]) -> Iterator[list[list[int]]]:
    """Every way to see sets of scores of the same classes in the names of columns."""
    at: dict[str, list[int]] = {}
    for i, name in enumerate(columns):
        at.setdefault(name, []).append(i)
    times = {len(places) for places in at.values()}
    if len(at) < len(columns):
        if len(times) == 1 and len(at) > 1:
            yield [list(places) for places in zip(*at.values(), strict=True)]
        return
    longest = max(columns, key=len)  # it has a mark, if not all have one
    for cut in range(1, len(longest)):
        start = longest[:cut]
        end = longest[cut:]
        starts = [name.removesuffix(end) for name in columns if name.endswith(end)]
        ends = [name.removeprefix(start) for name in columns if name.startswith(start)]
        ends = [e for e in ends if all(s + e in at for s in starts)]
        if min(len(starts), len(ends)) < 2 or len(starts) * len(ends) != len(columns):
            continue
        within_number = start[-1].isdecimal() and end[0].isdecimal()
        between_words = start[-1] in _MARKS or end[0] in _MARKS
        if within_number or not (between_words or "" in starts or "" in ends):
            continue
        yield [[at[s + e][0] for s in starts] for e in ends]
        yield [[at[s + e][0] for e in ends] for s in starts]


def _in_another_order(ours: _Index, theirs: _Index) -> bool:
    """Tell whether two indexes of pandas put other rows side by side.

    One that only counts from 0, as new tables get, says nothing of other rows.
    """
    if ours.equals(theirs):
        return False
    counts = [getattr(index, "start", None) == 0 for index in (ours, theirs)]
    if not any(counts):
        return True
    try:
        return bool(ours.sort_values().equals(theirs.sort_values()))
    except TypeError:  # text beside numbers
        return False


def logits_and_labels(
    logits: object, labels: object, *, min_samples: int = 1, values: bool = True
) -> tuple[Tensor, Tensor]:
    """Both as checked tensors: (N, K) floating, (N,) int64, on one device.

    ``values=False``: look at shapes and dtypes alone, N >= ``min_samples``.
    """
    scores = as_tensor("logits", logits)
    classes = as_tensor("labels", labels)
    warn_of_tables(logits, labels, scores, classes)
    check_has_values("logits", scores)
    check_has_values("labels", classes)
    check_logits(scores, min_samples=min_samples, values=values)
    check_labels(classes, *scores.shape, values=values)
    if scores.device != classes.device:
        problem = f"are on {classes.device}, logits on {scores.device}"
        fail("labels", problem, "move both to one device")
    return scores, classes.long()
