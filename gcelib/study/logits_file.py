"""Anybody's outputs and labels from one file: logits, probabilities or confidences."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from gcelib import _check
from gcelib._check import fail
from gcelib.study import files
from gcelib.study.files import AnyPath
from gcelib.study.parameters import BadParameter

if TYPE_CHECKING:
    import pandas as pd

#: Most bytes of a CSV file.
CSV_BYTES = 2**32

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]

#: How to turn files of other kinds into one that is read.
_CONVERT = {
    ".npy": "numpy.savez('mine.npz', val_logits=..., val_labels=...) puts arrays "
    "(numpy.load) into one .npz file",
    ".pt": "load it where you trust it (torch.load(path, weights_only=True)) and write "
    "numpy.savez('mine.npz', val_logits=logits.numpy(), val_labels=labels.numpy())",
    ".p": "a pickle can run code: load it where you trust it, and write "
    "numpy.savez('mine.npz', val_logits=..., val_labels=...)",
    ".xlsx": "save the sheet as CSV (UTF-8)",
    ".tsv": "write it with commas, as .csv",
}
_CONVERT |= dict.fromkeys((".pth", ".ckpt"), _CONVERT[".pt"])
_CONVERT |= dict.fromkeys((".pkl", ".pickle", ".joblib"), _CONVERT[".p"])


@dataclass(frozen=True)
class LogitsFile(Mapping[str, Pair]):
    """What a file of outputs holds; as a mapping, each split's logits and labels.

    ``file["val"]`` and ``file["test"]`` give (logits (N, K), labels (N,)) whether the
    file holds logits or probabilities: of probabilities p the logits are finite, with
    p as their softmax. A file of confidences has no logits.

    Attributes
    ----------
    kind : str
        ``"logits"``, ``"probabilities"`` or ``"confidences"``: what the file holds.
    parts : dict of str to pair of arrays
        By split, as in the file: scores (N, K) and labels (N,); of confidences, the
        confidences (N,) and whether each prediction was right (N,), booleans.
    """

    kind: str
    parts: dict[str, Pair] = field(repr=False)

    def __getitem__(self, split: str) -> Pair:
        """Give a split's logits and labels."""
        scores, labels = self.parts[split]
        if self.kind == "confidences":
            fail(
                "logits",
                "the file holds confidences, from which no logits can be had",
                "use Reliability.from_confidences(*file.parts[split])",
            )
        if self.kind == "probabilities":
            from gcelib.metrics import logits_from_probabilities

            return np.asarray(logits_from_probabilities(scores)), labels
        return scores, labels

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the splits."""
        return iter(self.parts)

    def __len__(self) -> int:
        """Count the splits."""
        return len(self.parts)


def load_logits_file(path: AnyPath) -> LogitsFile:
    """Read outputs and labels of any model from one file, and check them.

    Parameters
    ----------
    path : path
        ``.npz`` (``numpy.savez``): arrays ``val_logits``, ``val_labels`` and, if there
        is a test part, ``test_logits``, ``test_labels``; with ``val_probabilities`` and
        ``test_probabilities`` in place of the logits, probabilities.
        ``.csv``, a line a sample: the columns ``split`` (val or test), ``label``, then
        ``logit_0``, ``logit_1``, ... or ``prob_0``, ``prob_1``, ...; or the columns
        ``label``, ``prediction``, ``confidence``, with or without ``split``.
        Logits are floating-point scores before the softmax, labels whole numbers in
        [0, K). Links are not followed, nothing is unpickled.

    Returns
    -------
    LogitsFile
        Its ``kind`` says what the file holds; ``file["val"]`` gives the pair of logits
        (N, K) and labels (N,) int64.

    Raises
    ------
    BadParameter
        A ``ValueError`` that names the file and what is wrong with it: a missing or
        unknown name, a hole, a truncated file, a wrong shape or dtype, NaN or infinity,
        logits that look like probabilities, test samples that are among the validation
        samples.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "mine.npz")
    >>> scores = np.array([[2.0, -1.0], [0.5, 1.5]])
    >>> np.savez(path, val_logits=scores, val_labels=[0, 1])
    >>> file = load_logits_file(path)
    >>> file.kind, file["val"][0].shape
    ('logits', (2, 2))
    """
    path = Path(path)
    try:
        if not path.exists():
            what = f"there is no such file, seen from {Path.cwd()}"
            fail("logits", what, "give its full path")
        suffix = path.suffix.lower()
        if suffix == ".npz":
            kind, parts = _read_npz(path)
        elif suffix == ".csv":
            kind, parts = _read_csv(path)
        else:
            cure = _CONVERT.get(suffix, "pass an .npz or .csv file")
            fail("logits", f"has the suffix {path.suffix!r}", cure)
        if kind == "confidences":
            return LogitsFile(kind, parts)
        checked = {split: _checked(split, kind, *pair) for split, pair in parts.items()}
        if "test" in checked:
            _refuse_unfit_test(kind, checked["val"][0], checked["test"][0])
        return LogitsFile(kind, checked)
    except Exception as error:  # a damaged file makes pandas raise all sorts
        words = str(error).removeprefix(f"{files.shown(path)}: ")
        raise BadParameter(f"{files.shown(path)}: {words}") from error


def _checked(split: str, kind: str, scores: object, labels: object) -> Pair:
    """Give a split's scores and labels, if they are what the file says."""
    name = f"{split}_{kind}"
    z = _check.as_tensor(name, scores)
    y = _check.as_tensor(f"{split}_labels", labels)
    _check.check_logits(z, name)
    if kind == "probabilities":
        _check.check_probabilities(z, name)
    elif _check.are_probabilities(z):
        cure = f"name them {split}_probabilities (in a CSV prob_0, prob_1, ...)"
        fail(name, _check.PROBABILITIES.partition(";")[0], cure)
    _check.check_labels(y, len(z), z.shape[1], f"{split}_labels")
    return z.numpy(), y.long().numpy()


def _refuse_unfit_test(
    kind: str, val: npt.NDArray[Any], test: npt.NDArray[Any]
) -> None:
    """Refuse a test part of another model, or with validation samples in it."""
    name = f"test_{kind}"
    if test.shape[1] != val.shape[1]:
        what = f"have another number of classes than val_{kind}"
        fail(name, what, f"pass {kind} of one model")
    if val.shape == test.shape and np.array_equal(val, test):
        what = f"are val_{kind} again"
        fail(name, what, "leave them out: what a calibrator has seen cannot test it")
    shared = shared_rows(val, test)
    if shared:
        what = f"hold {shared:,} of the validation samples, in whatever order"
        fail(name, what, "leave them out: what a calibrator has seen cannot test it")


def shared_rows(val: npt.NDArray[Any], test: npt.NDArray[Any]) -> int:
    """Count test samples that seem to be validation samples, in whatever order.

    Parameters
    ----------
    val : (N, K) array
        Scores of the validation samples.
    test : (M, K) array
        Scores of the test samples.

    Returns
    -------
    int
        0 where the rows that both have in common may be so by chance, as rounded or
        saturated ones are: then 9 of 10 of the rows that are there once must be shared.

    Examples
    --------
    >>> scores = np.random.default_rng(0).normal(size=(20, 3))
    >>> shared_rows(scores, scores[::-1])
    20
    >>> shared_rows(scores[:10], scores[10:])
    0
    """
    kind = np.result_type(val, test)
    known = {row.tobytes() for row in np.asarray(val, kind)}
    counts: dict[bytes, int] = {}
    for row in np.asarray(test, kind):
        content = row.tobytes()
        counts[content] = counts.get(content, 0) + 1
    once = [content for content, count in counts.items() if count == 1]
    shared = sum(content in known for content in once)
    if len(counts) >= 0.9 * len(test):  # a row tells its sample from nearly all others
        return shared if shared > 0.01 * len(test) else 0
    return shared if len(once) >= 5 and shared >= 0.9 * len(once) else 0


def _read_npz(path: Path) -> tuple[str, dict[str, Pair]]:
    """Read what an ``.npz`` file holds, by split."""
    arrays = files.read_arrays(path)
    kinds = ("logits", "probabilities")
    names = [f"{split}_{kind}" for split in ("val", "test") for kind in kinds]
    _check.known_keys("logits", arrays, [*names, "val_labels", "test_labels"])
    found = [k for k in kinds if any(name.endswith(k) for name in arrays)]
    if len(found) > 1:
        fail("logits", "are there beside probabilities", "keep one of the two")
    kind = found[0] if found else "logits"
    has_test = any(name.startswith("test_") for name in arrays)
    parts = {}
    for split in ("val", "test") if has_test else ("val",):
        for name in (f"{split}_{kind}", f"{split}_labels"):
            if name not in arrays:
                there = ", ".join(arrays) or "nothing"
                fail(name, f"is missing, the file has {there}", "add this array")
        parts[split] = arrays[f"{split}_{kind}"], arrays[f"{split}_labels"]
    return kind, parts


def _read_csv(path: Path) -> tuple[str, dict[str, Pair]]:
    """Read what a ``.csv`` file holds, by split."""
    import pandas as pd

    content = files.read_bytes(path, CSV_BYTES)
    if not content:
        fail("logits", "is empty", "write a line for each sample")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        fail("logits", "is in UTF-16", "write it as UTF-8 text")
    if not content.endswith((b"\n", b"\r")):
        what = "the last line does not end, as in a truncated file"
        fail("logits", what, "write the file again, or end the line")
    stream = io.BytesIO(content)
    table = pd.read_csv(stream, encoding="utf-8-sig", skip_blank_lines=False)
    columns = [str(name) for name in table]
    if not isinstance(table.index, pd.RangeIndex):
        _refuse_columns(columns)
    kind, names = _kind_of_columns(columns)
    if kind == "confidences":
        _number_names(table)
    for name in columns:
        _refuse_holes(name, table[name])
    if "split" not in columns:
        table.insert(0, "split", "test")
    for split in table["split"].unique():
        _check.choice("split", split, ("val", "test"))
    if kind != "confidences" and "val" not in set(table["split"]):
        fail("split", "no line says val", "calibrators are fitted on such samples")
    parts = {}
    for split in ("val", "test"):
        rows = table[table["split"] == split]
        if len(rows):
            parts[split] = _pair_of_rows(kind, names, rows)
    return kind, parts


def _kind_of_columns(columns: list[str]) -> tuple[str, list[str]]:
    """Tell what a table holds, and in which columns."""
    if {*columns} - {"split"} == {"label", "prediction", "confidence"}:
        return "confidences", ["confidence"]
    for kind, start in (("logits", "logit"), ("probabilities", "prob")):
        names = [f"{start}_{k}" for k in range(len(columns) - 2)]
        if columns == ["split", "label", *names]:
            return kind, names
    _refuse_columns(columns)


def _refuse_columns(columns: list[str]) -> NoReturn:
    """Say which columns a table must have."""
    there = files.shown(", ".join(columns))[:200]
    cure = (
        "name them split,label,logit_0,logit_1,... or split,label,prob_0,prob_1,... "
        "or label,prediction,confidence (with or without split), without other columns"
    )
    if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
        cure = "save the table separated by commas, with points in its numbers; " + cure
    fail("columns", f"are {there}", cure)


def _number_names(table: "pd.DataFrame") -> None:
    """Give classes that are called by names numbers: only equality counts here."""
    pair = ["label", "prediction"]
    is_text = [table[column].dtype.kind not in "iufb" for column in pair]
    has_holes = bool(table[pair].isna().to_numpy().any())
    if not all(is_text) or has_holes:
        return
    names = sorted({str(value).strip() for column in pair for value in table[column]})
    ids = {name: k for k, name in enumerate(names)}
    for column in pair:
        table[column] = [ids[str(value).strip()] for value in table[column]]


def _refuse_holes(name: str, column: "pd.Series[Any]") -> None:
    """Refuse a column with holes, or with text where numbers belong."""
    if column.isna().any():
        line = int(column.isna().to_numpy().argmax()) + 2
        what = f"has a hole or NaN in line {line}"
        fail(name, what, "fill it or leave the line out")
    if name != "split" and column.dtype.kind not in "iuf":
        what = f"holds what is not a number, read as {column.dtype}"
        cure = "write plain numbers"
        if name in ("label", "prediction"):
            cure += ", or in a table of confidences names in both label and prediction"
        fail(name, what, cure)


def _pair_of_rows(kind: str, names: list[str], rows: "pd.DataFrame") -> Pair:
    """Give the scores and labels in some lines of a table."""
    labels = _class_ids("label", rows["label"])
    if kind != "confidences":
        return rows[names].to_numpy(float), labels
    confidences = rows["confidence"].to_numpy(float)
    low, high = confidences.min(), confidences.max()
    if low < 0 or high > 1:
        bad = low if low < 0 else high
        fail("confidence", f"{bad} is outside [0, 1]", "of percentages, divide by 100")
    return confidences, labels == _class_ids("prediction", rows["prediction"])


def _class_ids(name: str, column: "pd.Series[Any]") -> npt.NDArray[np.int64]:
    """Give class ids, which spreadsheets write as 3.0, too."""
    values = column.to_numpy()
    fractional = np.asarray(values != np.floor(values))
    if fractional.any():
        at = int(fractional.argmax())
        what = f"holds {values[at]} in line {int(column.index[at]) + 2}"
        fail(name, what, "write class ids as whole numbers, counted from 0")
    return values.astype(np.int64)
