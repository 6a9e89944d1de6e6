"""Arrays of scores and labels: their shapes, dtypes and values."""

import array
import hashlib
import math
import types
from collections.abc import Iterable
from typing import NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib._check.messages import fail, warn
from gcelib._check.tables import warn_of_tables

#: What the library takes for numbers: tensors, arrays, memory maps, nested lists,
#: DataFrames and Series.
Array: TypeAlias = Tensor | npt.ArrayLike


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
    nullable = None if listed else _nullable_numbers(name, value)
    if nullable is not None:
        return nullable
    try:
        return np.asarray(value)
    except Exception as error:  # numpy and the object's own __array__ raise all sorts
        cure = "make all rows equally long and pass numbers"
        fail(name, f"cannot be read as an array ({error})", cure, TypeError)


def _nullable_numbers(name: str, value: object) -> npt.NDArray[np.generic] | None:
    """Columns of pandas that might have holes, and have none; None of all others."""
    found = getattr(value, "dtypes", None)  # of a table one for each column
    dtypes = [*found] if isinstance(found, Iterable) else [found]
    if not any(hasattr(dtype, "numpy_dtype") for dtype in dtypes):
        return None
    kinds = [getattr(dtype, "numpy_dtype", dtype) for dtype in dtypes]
    plain = [kind for kind in kinds if isinstance(kind, np.dtype)]
    if len(plain) < len(kinds) or any(kind.kind not in "fiub" for kind in plain):
        return None
    holes = np.asarray(value.isna())  # type: ignore[attr-defined]
    if holes.any():
        problem = f"has missing values, first in row {np.argwhere(holes)[0, 0]}"
        cure = "fill them in, or leave these samples out"
        fail(name, problem, cure)
    numbers = np.asarray(value, dtype=np.result_type(*plain))
    is_mixed = len({kind.kind for kind in plain}) > 1
    if is_mixed and not np.array_equal(np.asarray(value, dtype=object), numbers):
        return None  # whole numbers that the floats beside them could not hold
    return numbers


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


def digests_of_rows(rows: Tensor | npt.NDArray[np.generic]) -> list[bytes]:
    """What is equal where rows (N, ...) are, byte by byte: 16 bytes for each."""
    if isinstance(rows, Tensor):
        flat_rows = rows.cpu().reshape(len(rows), -1).contiguous()
        rows = flat_rows.view(torch.uint8).numpy()  # numpy has no bfloat16
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in flat]


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
        first = "s = s.squeeze(1); " if len(shape) == 2 else ""
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
    if torch.iinfo(labels.dtype).max < n_classes - 1:
        warn(
            f"{name}: {labels.dtype} cannot hold the ids of all {n_classes:,} "
            "classes; look whether larger ones were cut, and store them as int64"
        )
    if values and labels.device.type != "meta":
        check_range(labels, n_classes, name)


def _cure_of_labels(labels: Tensor) -> str:
    """What to do with labels that are no vector."""
    if labels.ndim != 2:
        return "pass one class id per row"
    if labels.shape[1] == 1:
        return "pass labels.squeeze(1)"
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


def logits_and_labels(
    logits: object,
    labels: object,
    *,
    min_samples: int = 1,
    values: bool = True,
    columns: bool = True,
) -> tuple[Tensor, Tensor]:
    """Both as checked tensors: (N, K) floating, (N,) int64, on one device.

    ``values=False``: look at shapes and dtypes alone, N >= ``min_samples``.
    ``columns=False``: what columns and rows of tables say was told before.
    """
    scores = as_tensor("logits", logits)
    classes = as_tensor("labels", labels)
    check_has_values("logits", scores)
    check_has_values("labels", classes)
    if columns:
        warn_of_tables(logits, labels, scores, classes)
    check_logits(scores, min_samples=min_samples, values=values)
    check_labels(classes, *scores.shape, values=values)
    if scores.device != classes.device:
        problem = f"are on {classes.device}, logits on {scores.device}"
        fail("labels", problem, "move both to one device")
    return scores, classes.long()
