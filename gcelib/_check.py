"""The one place where bad input is refused, in one style of message.

Every refusal is a ``ValueError`` or ``TypeError`` that reads ``<argument>: <what was wrong>; <what to do>``.
Shapes and dtypes are always checked. Values are checked on CPU tensors only: reading a value on an
accelerator would stall it.
"""

import ast
import difflib
import math
import numbers
import os
import re
import sys
import types
import warnings

import numpy as np
import torch

PROBABILITIES = "rows are >= 0 and sum to 1, as probabilities do; pass the scores before the softmax, or log(p)"


def fail(name, problem, fix, error=ValueError):
    """Raise ``error`` with the house's one-line message."""
    raise error(f"{name}: {problem}; {fix}")


_OWN_FOLDERS = tuple(
    os.path.dirname(module.__file__) + os.sep for module in (sys.modules["gcelib"], torch)
)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's own code, however deep inside gcelib the reason was found.

    The line is the innermost one that belongs neither to gcelib nor to torch (which calls
    a module's ``forward``): in a notebook, the line of the cell.
    """
    frame = sys._getframe(1)
    level = 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN_FOLDERS):
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level - 1)


def did_you_mean(value, allowed):
    """``"did you mean 'gce'? Known: ..."`` for a misspelt ``value``."""
    allowed = [str(a) for a in allowed]
    close = difflib.get_close_matches(str(value).lower(), allowed, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(allowed)}"


def choice(name, value, allowed):
    """``value`` if it is one of the strings ``allowed``, else an error that proposes the nearest."""
    if not isinstance(value, str):
        fail(name, f"must be a string, got {type(value).__name__} {value!r}", did_you_mean(value, allowed), TypeError)
    if value not in allowed:
        fail(name, f"unknown {value!r}", did_you_mean(value, allowed))
    return value


def known_keys(name, given, allowed):
    """Refuse keys of the mapping ``given`` that are not in ``allowed``."""
    for key in given:
        if key not in allowed:
            fail(name, f"unknown key {key!r}", did_you_mean(key, allowed))


def boolean(name, value):
    """``value`` if it is True or False (text such as ``"false"`` is truthy and therefore refused)."""
    if not isinstance(value, (bool, np.bool_)):
        fail(name, f"must be True or False, got {type(value).__name__} {value!r}", "write it without quotes", TypeError)
    return bool(value)


def number(name, value, low=-math.inf, high=math.inf, *, open_low=False, open_high=False, integer=False):
    """``value`` as int or float if it lies between ``low`` and ``high`` (closed unless said), else an error."""
    kind = numbers.Integral if integer else numbers.Real
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, kind):
        what = "a whole number" if integer else "a number"
        fail(name, f"must be {what}, got {type(value).__name__} {value!r}", "pass it as a plain number", TypeError)
    below = value <= low if open_low else value < low
    above = value >= high if open_high else value > high
    try:
        finite = integer or math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        finite = False
    if below or above or not finite:
        interval = f"{'(' if open_low else '['}{low}, {high}{')' if open_high or high == math.inf else ']'}"
        fail(name, f"{value!r} is outside {interval}", "choose a value in that range")
    return int(value) if integer else float(value)


def as_tensor(name, value):
    """A torch tensor sharing memory with ``value`` (tensor or numpy array) where possible: never write to it."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            fail(name, f"has layout {value.layout}", "pass a dense tensor (to_dense())", TypeError)
        return value.detach()
    if not isinstance(value, np.ndarray):
        fail(
            name,
            f"must be a torch tensor or a numpy array, got {type(value).__name__}",
            "convert it first (numpy.asarray(x), in pandas x.to_numpy())",
            TypeError,
        )
    if value.dtype.kind not in "fiub":
        fail(name, f"has dtype {value.dtype}", "pass real numbers", TypeError)
    if isinstance(value, np.ma.MaskedArray):
        fail(name, "is a masked array", "leave its holes out and pass the plain array", TypeError)
    odd = any(step < 0 or step % value.itemsize for step in value.strides)
    if odd or not value.dtype.isnative or value.dtype.itemsize > 8:
        value = value.astype(value.dtype.newbyteorder("=") if value.dtype.itemsize <= 8 else np.float64)
    if not value.flags.writeable:  # torch warns of read-only memory; a file mapped into memory must not be copied
        memory = {**value.__array_interface__, "data": (value.__array_interface__["data"][0], False)}
        value = np.asarray(types.SimpleNamespace(__array_interface__=memory, owner=value))
    return torch.from_numpy(value)


def check_logits(logits, name="logits", *, min_samples=1, values=True, first_row=0):
    """Refuse anything but floating-point logits (N, K), N >= ``min_samples``, K >= 2; finite ones, if ``values``.

    first_row: where these rows begin in what the caller was given, for the message.
    """
    if not logits.is_floating_point() or logits.dtype.itemsize < 2:
        fail(name, f"has dtype {logits.dtype}", "pass floating-point scores (16, 32 or 64 bits)", TypeError)
    if logits.ndim != 2 or logits.shape[1] < 2:
        cure = "pass a row of K scores per sample"
        if logits.ndim > 2:
            cure += "; of dense ones logits.movedim(1, -1).flatten(0, -2), with labels.flatten()"
        fail(name, f"expected shape (N, K) with K >= 2, got {tuple(logits.shape)}", cure)
    if logits.shape[0] < min_samples:
        fail(name, f"has {logits.shape[0]} samples, at least {min_samples} are needed", "pass more samples")
    if values and logits.device.type == "cpu" and not finite(logits):
        bad = first_row + int((~torch.isfinite(logits)).any(1).nonzero()[0])
        fail(name, f"contains NaN or infinity, first in row {bad}", "look at the model or file that produced it")


def are_probabilities(logits):
    """True if all rows are >= 0 and sum to 1, unless they are but zeros and ones."""
    return bool(logits.amin() >= 0 and ((logits.sum(1) - 1).abs() < 0.002).all() and (logits.frac() != 0).any())


def warn_of_probabilities(logits):
    """A UserWarning if the first rows (a look at all would take too long) are a softmax's output, not its input."""
    if logits.device.type == "cpu" and len(logits) > 1 and are_probabilities(logits[:8].float()):
        warnings.warn(f"logits: {PROBABILITIES}", UserWarning, stacklevel=5)


def finite(values):
    """True if every value is finite; one pass, no temporary the size of ``values``."""
    if not values.numel():
        return True
    low, high = torch.aminmax(values)
    return math.isfinite(low) and math.isfinite(high)


def check_labels(labels, n_samples, n_classes, name="labels", *, values=True):
    """Refuse anything but integer labels (N,), and values outside [0, n_classes) if ``values``."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        fail(name, f"has dtype {labels.dtype}", "pass integer class ids (labels.long(), numpy: astype(int))", TypeError)
    if labels.ndim != 1:
        fail(name, f"expected shape ({n_samples},), got {tuple(labels.shape)}", "use labels.squeeze(1) or argmax(1)")
    if labels.shape[0] != n_samples:
        fail(name, f"has {labels.shape[0]} entries for {n_samples} rows of logits", "pass one label per row")
    if values and labels.device.type == "cpu":
        check_range(labels, n_classes, name)


def check_range(labels, n_classes, name="labels"):
    """Refuse labels (on the CPU) outside [0, n_classes)."""
    if len(labels):
        low, high = (int(v) for v in torch.aminmax(labels.long()))
        if low < 0 or high >= n_classes:
            bad = low if low < 0 else high
            fail(name, f"contains {bad}, outside [0, {n_classes})", "class ids count from 0 to K - 1")


def logits_and_labels(logits, labels, *, values=True):
    """The pair as checked tensors: logits (N, K) floating, labels (N,) int64, on one device, N >= 1."""
    logits, labels = as_tensor("logits", logits), as_tensor("labels", labels)
    check_logits(logits, values=values)
    check_labels(labels, *logits.shape, values=values)
    if logits.device != labels.device:
        fail("labels", f"are on {labels.device}, logits on {logits.device}", "move both to one device")
    return logits, labels.long()


class BadParameter(ValueError):
    """A parameter that a notebook was given and cannot use; a notebook shows the sentence without a traceback."""

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


def check_parameters(cells):
    """Refuse parameters injected by papermill that the notebook does not have, or whose type is another.

    cells: IPython's ``In``. papermill only logs an unknown ``-p`` and runs on with the default; a notebook calls this
    in the cell after its parameters. Its own names, types and defaults are read from its parameters cell (``seed: int
    = 1``; ``lr: "float or None" = None``, since papermill cannot read ``|``), the given ones from papermill's injected
    cell, which starts with ``# Parameters``.
    Raises BadParameter (a ValueError) that names the parameter and the nearest known one.
    """
    injected = next((i for i, source in enumerate(cells) if source.lstrip().startswith("# Parameters\n")), 0)
    if not injected:
        return
    own = {
        node.target.id: ast.unparse(node.annotation).strip("'")
        for node in ast.parse(cells[injected - 1]).body
        if isinstance(node, ast.AnnAssign)
    }
    for node in ast.parse(cells[injected]).body:
        name = node.targets[0].id
        if name not in own:
            raise BadParameter(f"unknown parameter {name!r}: {did_you_mean(name, own)}")
        try:
            value = ast.literal_eval(node.value)
        except ValueError:  # papermill writes float('nan')
            raise BadParameter(f"parameter {name!r} must be {own[name]}, got {ast.unparse(node.value)}") from None
        allowed = re.split(r" or | \| ", own[name])
        if isinstance(value, int) and not isinstance(value, bool) and "float" in allowed:
            continue
        if type(value).__name__ not in [a.split("[")[0].replace("None", "NoneType") for a in allowed]:
            cure = "; write True or False" if "bool" in allowed else ""
            raise BadParameter(f"parameter {name!r} must be {own[name]}, got {type(value).__name__} {value!r}{cure}")
