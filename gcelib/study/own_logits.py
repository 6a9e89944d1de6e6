"""Anybody's outputs from one file, and free names for the answer."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcelib.metrics import logits_from_probabilities
from gcelib.study import places
from gcelib.study.logits_file import LogitsFile, Pair, load_logits_file
from gcelib.study.parameters import BadParameter
from gcelib.study.results import load_logits


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
        What ``runs.load_logits_file`` reads: ``.npz`` with ``val_logits``,
        ``val_labels`` and, better with than without, ``test_logits``, ``test_labels``,
        or ``val_probabilities`` and so on; ``.csv`` with ``split``, ``label``,
        ``logit_0`` ... or ``prob_0`` ...; or ``label``, ``prediction``, ``confidence``.
        None: the project's own logits of GCE.
    save_to : path, optional
        Where the calibrator goes: a free name that ends in ``.pt``. Default: the name
        of the file with ``_calibrator.pt``, in the folder in which you are; for the
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
        folder = places.PROJECT / "data" / "demo" / "fashion_mini" / "convnet"
        run = folder / "gce" / "seed-01"
        parts = {split: load_logits(run, split) for split in ("val", "test")}
        form, source = "logits", "the project's logits of GCE on fashion_mini"
        place, stem = Path(tempfile.mkdtemp(prefix="gcelib-")), "demo"
    else:
        form, parts = _read(path)
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
        raise BadParameter(f"save_to: {target} does not end in .pt; name a .pt file")
    if not target.absolute().parent.is_dir():
        raise BadParameter(f"save_to: {target.parent} is no folder; make it first")
    for path in (target, page):
        if os.path.lexists(path):
            cure = "remove it, or pass -p save_to another.pt"
            raise BadParameter(f"save_to: {path.absolute()} is there already; {cure}")


def _read(path: str | os.PathLike[str]) -> tuple[str, dict[str, Pair]]:
    """The form and the parts of a file, as logits."""
    file = load_logits_file(path)
    if file.kind != "confidences":
        return file.kind, dict(file)
    parts = {split: _wrong_or_right(file, split) for split in file.parts}
    if "val" not in parts:  # a file without splits: all of it is there to fit on
        parts = {"val": next(iter(parts.values()))}
    return file.kind, parts


def _wrong_or_right(file: LogitsFile, split: str) -> Pair:
    """Confidences as two classes, wrong and right."""
    confidence, correct = file.parts[split]
    probabilities = np.stack([1 - confidence, confidence], 1)
    logits = np.asarray(logits_from_probabilities(probabilities))
    return logits, correct.astype(np.int64)
