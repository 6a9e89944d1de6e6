"""Anybody's outputs from one file, in the three forms in which people have them."""

import csv
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gcelib import _check
from gcelib.metrics import logits_from_probabilities
from gcelib.study import runs

Pair = tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]

#: The columns of a file that knows the top class alone.
CONFIDENCES = ("true_label", "pred_label", "confidence")
#: The largest csv file that is read, in bytes.
_LARGEST = 2**31


@dataclass(frozen=True)
class OwnLogits:
    """What ``load_own_logits`` read, and where its answer goes.

    Attributes
    ----------
    val : pair of (N, K) logits and (N,) labels
        What a calibrator is fitted on.
    test : the same or None
        What judges it.
    form : str
        ``"logits"``, ``"probabilities"`` (their logarithm is taken), or
        ``"confidences"``: of each sample only the predicted class and its probability
        are known. Then the classes are *wrong* and *right*, the logits log(1 - c) and
        log(c): the question is how far the confidence can be believed.
    source : str
        What was read.
    calibrator_path, page_path : Path
        Free names for the fitted calibrator and the page to send around.
    """

    val: Pair
    test: Pair | None
    form: str
    source: str
    calibrator_path: Path
    page_path: Path


def load_own_logits(
    path: str | os.PathLike[str] | None, save_to: str | os.PathLike[str] | None = None
) -> OwnLogits:
    """Read logits, probabilities or confidences, and find free names for the answer.

    Parameters
    ----------
    path : path or None
        ``.npz`` with arrays ``val_logits``, ``val_labels`` and, better with than
        without, ``test_logits``, ``test_labels``; or ``val_probabilities`` and so on in
        the logits' place. ``.csv`` with the columns ``split`` (``val`` or ``test``; may be
        missing), ``label``, ``logit_0`` ... or ``probability_0`` ...; or ``true_label``,
        ``pred_label``, ``confidence``. None: the project's own logits of GCE.
    save_to : path, optional
        Where the calibrator goes: a free name that ends in ``.pt``. Default: the name of
        the file with ``_calibrator.pt``, in the folder in which you are; for the
        project's logits a temporary folder.

    Returns
    -------
    OwnLogits

    Raises
    ------
    BadParameter
        A ValueError that names the file and what is wrong with it, or says that a name
        is taken.

    Examples
    --------
    >>> load_own_logits(None).form
    'logits'
    """
    if path is None:
        folder = runs.PROJECT / "data" / "demo" / "fashion_mini" / "convnet"
        run = folder / "gce" / "seed-01"
        parts = {split: runs.load_logits(run, split) for split in ("val", "test")}
        form, source = "logits", "the project's logits of GCE on fashion_mini"
        place, stem = Path(tempfile.mkdtemp(prefix="gcelib-")), "demo"
    else:
        form, parts = _read(Path(path))
        source = str(path)
        place, stem = Path.cwd(), Path(path).stem
    target = place / f"{stem}_calibrator.pt" if save_to is None else Path(save_to)
    page = target.with_suffix(".html")
    _refuse_taken(target, page)
    val = parts["val"]
    return OwnLogits(val, parts.get("test"), form, source, target, page)


def _refuse_taken(target: Path, page: Path) -> None:
    """Nothing that exists is ever written over."""
    if target.suffix != ".pt":
        raise _check.BadParameter(
            f"save_to: {target} does not end in .pt; name a .pt file"
        )
    if not target.absolute().parent.is_dir():
        raise _check.BadParameter(
            f"save_to: {target.parent} is no folder; make it first"
        )
    for path in (target, page):
        if os.path.lexists(path):
            cure = "remove it, or pass -p save_to another.pt"
            raise _check.BadParameter(
                f"save_to: {path.absolute()} is there already; {cure}"
            )


def _read(path: Path) -> tuple[str, dict[str, Pair]]:
    """The form and the parts of a file."""
    if not path.is_file():
        problem = f"there is no such file, seen from {Path.cwd()}"
        raise _check.BadParameter(f"logits: {path}: {problem}; give its full path")
    try:
        if path.suffix.lower() == ".csv":
            header = _header(path)
            if header[-3:] == list(CONFIDENCES) or set(CONFIDENCES) <= set(header):
                return "confidences", _read_confidences(path)
            if any(name.startswith("probability_") for name in header):
                return "probabilities", _logarithm(_read_columns(path, "probability_"))
            if "split" not in header:
                return "logits", _checked(_read_columns(path, "logit_"))
        if path.suffix.lower() == ".npz" and _holds_probabilities(path):
            return "probabilities", _logarithm(_read_npz(path))
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        raise _check.BadParameter(f"{path}: {error}") from error
    return "logits", dict(runs.load_logits_file(path))


def _header(path: Path) -> list[str]:
    """The names of a csv file's columns."""
    if path.stat().st_size > _LARGEST:
        _check.fail("logits", "is larger than 2 GiB", "pass an .npz file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [name.strip() for name in next(csv.reader(file), [])]


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv file by column; a row that is too short or long is refused."""
    header = _header(path)
    rows = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        next(reader)
        for number, row in enumerate(reader, 2):
            if len(row) != len(header):
                problem = (
                    f"line {number} has {len(row)} cells for {len(header)} columns"
                )
                _check.fail("logits", problem, "write the file again")
            rows.append(dict(zip(header, row, strict=True)))
    if not rows:
        _check.fail("logits", "has no rows", "write one for each sample")
    return rows


def _column(rows: list[dict[str, str]], name: str) -> npt.NDArray[np.float64]:
    """One column as numbers."""
    values = np.empty(len(rows))
    for i, row in enumerate(rows):
        try:
            values[i] = float(row[name])
        except ValueError:
            cure = "write plain numbers"
            _check.fail(name, f"holds {row[name][:40]!r} in line {i + 2}", cure)
    return values


def _whole(rows: list[dict[str, str]], name: str) -> npt.NDArray[np.int64]:
    """One column as whole numbers."""
    values = _column(rows, name)
    if not np.array_equal(values, np.round(values)):
        _check.fail(name, "holds numbers that are not whole", "class ids count from 0")
    return values.astype(np.int64)


def _by_split(
    rows: list[dict[str, str]], make: Callable[[list[dict[str, str]]], Pair]
) -> dict[str, Pair]:
    """Parts by the column ``split``; without it everything is validation."""
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        split = row.get("split", "val").strip()
        _check.choice("split", split, ("val", "test"))
        groups.setdefault(split, []).append(row)
    if "val" not in groups:
        _check.fail("split", "never says val", "a calibrator is fitted on these rows")
    return {split: make(group) for split, group in groups.items()}


def _read_confidences(path: Path) -> dict[str, Pair]:
    """Pairs (confidence, correct) as two classes, wrong and right."""

    def pairs(rows: list[dict[str, str]]) -> Pair:
        confidence = _column(rows, "confidence")
        if not ((confidence >= 0) & (confidence <= 1)).all():
            _check.fail(
                "confidence", "leaves [0, 1]", "pass the top class's probability"
            )
        right = _whole(rows, "true_label") == _whole(rows, "pred_label")
        probabilities = np.stack([1 - confidence, confidence], 1)
        logits = logits_from_probabilities(probabilities).numpy()
        return logits, right.astype(np.int64)

    return _by_split(_rows(path), pairs)


def _read_columns(path: Path, prefix: str) -> dict[str, Pair]:
    """Columns label, <prefix>0, <prefix>1, ... of a csv file."""
    rows = _rows(path)
    n_classes = sum(name.startswith(prefix) for name in rows[0])
    names = [f"{prefix}{k}" for k in range(n_classes)]
    for name in ("label", *names):
        if name not in rows[0]:
            _check.fail(name, "is missing among the columns", "add it")

    def pair(part: list[dict[str, str]]) -> Pair:
        values = np.stack([_column(part, name) for name in names], 1)
        return values, _whole(part, "label")

    return _by_split(rows, pair)


def _holds_probabilities(path: Path) -> bool:
    """Whether an archive names probabilities."""
    with np.load(path, allow_pickle=False) as arrays:
        return any(name.endswith("_probabilities") for name in arrays.files)


def _read_npz(path: Path) -> dict[str, Pair]:
    """Arrays <split>_probabilities and <split>_labels."""
    splits = ("val", "test")
    names = [f"{s}_{kind}" for s in splits for kind in ("probabilities", "labels")]
    with np.load(path, allow_pickle=False) as arrays:
        _check.known_keys("logits", arrays.files, names)
        present = [s for s in splits if f"{s}_probabilities" in arrays.files]
        if "val" not in present:
            _check.fail("val_probabilities", "is missing", "add this array")
        return {
            s: (arrays[f"{s}_probabilities"], arrays[f"{s}_labels"]) for s in present
        }


def _logarithm(parts: dict[str, Pair]) -> dict[str, Pair]:
    """Logits of probabilities."""
    found = {}
    for split, (probabilities, labels) in parts.items():
        values = np.asarray(probabilities)
        found[split] = logits_from_probabilities(values).numpy(), labels
    return _checked(found)


def _checked(parts: dict[str, Pair]) -> dict[str, Pair]:
    """Logits and labels that go together."""
    checked = {}
    for split, (logits, labels) in parts.items():
        z = _check.as_tensor(f"{split}_logits", logits)
        y = _check.as_tensor(f"{split}_labels", labels)
        _check.check_logits(z, f"{split}_logits")
        _check.check_labels(y, z.shape[0], z.shape[1], f"{split}_labels")
        checked[split] = z.numpy(), y.long().numpy()
    return checked
