"""Anybody's outputs and labels from one file: logits, probabilities or confidences."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from gcelib import _check
from gcelib._check import fail
from gcelib.study import files
from gcelib.study.files import AnyPath
from gcelib.study.parameters import BadParameter
from gcelib.study.spreadsheet import Pair, Table, read_table

#: How to turn files of other kinds into one that is read.
_CONVERT = {
    ".npy": "numpy.savez('mine.npz', val_logits=..., val_labels=...) puts arrays "
    "(numpy.load) into one .npz file",
    ".pt": "load it where you trust it (torch.load(path, weights_only=True)) and write "
    "numpy.savez('mine.npz', val_logits=logits.numpy(), val_labels=labels.numpy())",
    ".p": "a pickle can run code: load it where you trust it, and write "
    "numpy.savez('mine.npz', val_logits=..., val_labels=...)",
    ".xlsx": "save the sheet as CSV (UTF-8)",
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
    class_names : tuple of str or None
        The classes' names by id, where a table calls them by names.
    predicted : dict of str to pair of arrays
        By split, of confidences: labels (N,) and predictions (N,), where known.
    notes : tuple of str
        What in a table was read as what, a sentence each; empty if all was plain.
    """

    kind: str
    parts: dict[str, Pair] = field(repr=False)
    class_names: tuple[str, ...] | None = None
    predicted: dict[str, Pair] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

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
        ``.csv`` or ``.tsv``, a line a sample: the columns ``split`` (val or test),
        ``label``, then ``logit_0``, ``logit_1``, ... or ``prob_0``, ``prob_1``, ...;
        or ``label``, ``prediction``, ``confidence``; or ``correct``, ``confidence``.
        Without ``split`` all samples are for the fit. Semicolons, tabs, decimal commas,
        capitals and usual other names (``y_true``, ``pred``, ``score``) are understood,
        further columns left out; classes may have names (``prob_cat``).
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
            table = Table(*_read_npz(path))
        elif suffix in (".csv", ".tsv"):
            table = read_table(path)
        else:
            cure = _CONVERT.get(suffix, "pass an .npz or .csv file")
            fail("logits", f"has the suffix {path.suffix!r}", cure)
        kind = table.kind
        parts = table.parts
        if kind != "confidences":
            parts = {split: _checked(split, kind, *p) for split, p in parts.items()}
            if "test" in parts:
                _refuse_unfit_test(kind, parts["val"], parts["test"])
        return LogitsFile(kind, parts, table.class_names, table.predicted, table.notes)
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


def _refuse_unfit_test(kind: str, val: Pair, test: Pair) -> None:
    """Refuse a test part of another model, or with validation samples in it."""
    name = f"test_{kind}"
    if test[0].shape[1] != val[0].shape[1]:
        what = f"have another number of classes than val_{kind}"
        fail(name, what, f"pass {kind} of one model")
    if np.array_equal(val[0], test[0]):
        what = f"are val_{kind} again"
        fail(name, what, "leave them out: what a calibrator has seen cannot test it")
    shared = _shared_rows(kind, val, test)
    if shared:
        what = f"hold {shared} of the validation samples, in whatever order"
        fail(name, what, "leave them out: what a calibrator has seen cannot test it")


def _shared_rows(kind: str, val: Pair, test: Pair) -> str:
    """How many test samples are validation samples; "" where that may be chance."""
    from gcelib.advice.copies import how_many_again
    from gcelib.metrics import logits_from_probabilities

    parts = []
    given = []
    for scores, labels in (val, test):
        given.append(torch.from_numpy(scores))
        logits = given[-1]
        if kind == "probabilities":
            logits = logits_from_probabilities(logits)
        parts.append((logits, torch.from_numpy(labels)))
    return how_many_again(parts[0], parts[1], (given[0], given[1]))


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
