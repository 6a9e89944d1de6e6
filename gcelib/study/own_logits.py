"""Anybody's outputs from one file, what is advised for them, and where it goes."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib._check import warn
from gcelib.advice import Advice, advise, advise_pairs
from gcelib.blocks import rounding, rounding_of
from gcelib.metrics import Reliability, reliability
from gcelib.study import places
from gcelib.study.logits_file import LogitsFile, load_logits_file
from gcelib.study.parameters import BadParameter
from gcelib.study.results import load_logits
from gcelib.study.spreadsheet import Pair

if TYPE_CHECKING:
    import pandas as pd

_SPLITS = ("val", "test")
#: So many predictions of another class than the most frequent one tell what they fit.
_FEWEST_OTHERS = 20


@dataclass(frozen=True)
class OwnLogits:
    """What ``load_own_logits`` read, and where its answer goes.

    Attributes
    ----------
    val : pair of arrays
        What a calibrator is fitted on: logits (N, K) and labels (N,); of confidences
        these (N,) and whether each prediction was right (N,), booleans.
    test : the same or None
        What judges it.
    form : str
        ``"logits"``, ``"probabilities"`` (their logarithm is taken), or
        ``"confidences"``: of each sample only the probability of the predicted class
        is known. The question is then how far it can be believed.
    source : str
        What was read.
    calibrator_path, page_path : Path
        Free names for the fitted calibrator and the page to send around.
    class_names : tuple of str or None
        The classes' names, where the file has them.
    notes : tuple of str
        What in a table was read as what.
    predicted : dict of str to pair of arrays
        By split, of confidences: labels (N,) and predictions (N,), where known.
    """

    val: Pair
    test: Pair | None
    form: str
    source: str
    calibrator_path: Path
    page_path: Path
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    predicted: dict[str, Pair] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """What was read, and as what."""
        scores, _ = self.val
        what = f"{self.source}: {len(scores):,} validation samples"
        if self.test is not None:
            what += f" and {len(self.test[0]):,} test samples"
        if self.n_classes is not None:
            there = "classes" if self.form != "confidences" else "classes occur"
            what += f", {self.n_classes} {there}"
        return "\n".join([f"{what}, {self.form}", *self.notes])

    @property
    def n_classes(self) -> int | None:
        """How many classes there are; of confidences those that occur, or None."""
        if self.form != "confidences":
            return int(self.val[0].shape[1])
        if not self.predicted:
            return None
        ids = np.concatenate([np.concatenate(p) for p in self.predicted.values()])
        return max(2, len(np.unique(ids)))

    def advise(self, choose_by: str = "nll", folds: int = 5, seed: int = 1) -> Advice:
        """Choose a calibrator for these outputs.

        Parameters
        ----------
        choose_by : {"nll", "ece"}, default "nll"
            What decides.
        folds : int, default 5
            Parts of the cross-validation.
        seed : int, default 1
            Of folds, resamples and simulations.

        Returns
        -------
        Advice
            By ``gcelib.advise``; of confidences by ``gcelib.advise_confidences``, which
            tries only what acts on a confidence alone.

        Examples
        --------
        >>> advice = load_own_logits(None).advise()  # doctest: +SKIP
        """
        self._tell_other_samples()
        test = self.test or (None, None)
        if self.form != "confidences":
            return advise(*self.val, *test, choose_by=choose_by, folds=folds, seed=seed)
        # Classes that occur may not be all: the reader of tables tells what they can.
        return advise_pairs(self.val, test, self.n_classes, choose_by, folds, seed)

    def _tell_other_samples(self) -> None:
        """Warn where predictions fit labels no better than those of other samples."""
        claims = {"val": self.val, "test": self.test}
        for split, (labels, predictions) in self.predicted.items():
            part = claims.get(split)
            if part is not None and _fit_as_any(labels, predictions, part[0]):
                warn(
                    f"labels: predictions of {split} fit them no better than in any "
                    "other order; look whether both belong to the same samples"
                )

    def stages(self, advice: Advice) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Give the outputs before and after calibration, to be judged and shown.

        Parameters
        ----------
        advice : Advice
            What ``advise`` gave.

        Returns
        -------
        dict
            ``before`` and ``after``: pairs of logits (N, K) and labels (N,); of
            confidences, of these (N,) and whether each prediction was right (N,).
        """
        stages = {"before": advice.before, "after": advice.after}
        if self.form != "confidences":
            return {name: (logits, advice.labels) for name, logits in stages.items()}
        right = advice.labels == 1
        return {name: (_confidences(z), right) for name, z in stages.items()}

    def reliability(self, scores: torch.Tensor, labels: torch.Tensor) -> Reliability:
        """Give the bins of one of the ``stages``.

        Parameters
        ----------
        scores, labels : Tensor
            A pair of ``stages``.

        Returns
        -------
        Reliability
            Of the confidences of the predictions, in 20 bins.
        """
        if self.form == "confidences":
            return Reliability.from_confidences(scores, labels)
        return reliability(scores, labels)

    def _written(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
        """Class names where there are any, else the ids."""
        return ids if self.class_names is None else np.array(self.class_names)[ids]

    def samples(self, advice: Advice) -> "pd.DataFrame":
        """Give every sample's label, prediction and confidence before and after.

        ``prediction`` is that after calibration, and both confidences are of that
        class; where a calibrator has changed some, ``prediction before`` stands beside.

        Parameters
        ----------
        advice : Advice
            What ``advise`` gave.

        Returns
        -------
        DataFrame
            A row for each sample that judges, by its row in the file's part; where only
            right and wrong are known, ``right`` in the place of the two classes.
        """
        import pandas as pd

        stages = self.stages(advice)
        changed = None
        if self.form == "confidences":
            known = self.predicted.get("val" if self.test is None else "test")
            claims = {name: claimed for name, (claimed, _) in stages.items()}
            right = stages["after"][1]
        else:
            logits, labels = stages["after"]
            predictions = logits.argmax(1)
            known = labels.numpy(), predictions.numpy()
            claims = {n: _claimed(z, predictions) for n, (z, _) in stages.items()}
            right = labels == predictions
            before = stages["before"][0].argmax(1)
            changed = None if torch.equal(before, predictions) else before.numpy()
        columns: dict[str, npt.NDArray[np.generic]] = {}
        if known is not None:
            columns["label"] = self._written(known[0])
            columns["prediction"] = self._written(known[1])
        if changed is not None:
            columns["prediction before"] = self._written(changed)
        columns["right"] = right.numpy()
        for name, claimed in claims.items():
            columns[f"confidence {name}"] = claimed.numpy()
        return pd.DataFrame(columns).rename_axis("row")

    def classes(self, advice: Advice) -> "pd.DataFrame":
        """Give what the calibrator does to each class, in percent.

        Parameters
        ----------
        advice : Advice
            What ``advise`` gave.

        Returns
        -------
        DataFrame
            Of logits, how much of all samples a class has (``true``) and is given in
            total (``claimed``). Of confidences, how many samples were predicted as the
            class, how many of them are right, and the mean confidence of those. The
            classes in which claim and truth differ most, in samples, come first.
        """
        import pandas as pd

        if self.form == "confidences":
            return self._predicted_classes(advice)
        k = advice.before.shape[1]
        names = self._written(np.arange(k))
        counts = torch.bincount(advice.labels, minlength=k).double()
        true = counts / len(advice.labels)
        table = pd.DataFrame({"true": 100 * true}, index=list(names))
        for stage, logits in (("before", advice.before), ("after", advice.after)):
            table[f"claimed {stage}"] = 100 * logits.double().softmax(1).mean(0).numpy()
        apart = (table["claimed after"] - table["true"]).abs()
        order = np.argsort(-apart.to_numpy(), kind="stable")
        return table.iloc[order].rename_axis("class")

    def _predicted_classes(self, advice: Advice) -> "pd.DataFrame":
        """Samples, hits and claims by predicted class."""
        samples = self.samples(advice)
        by = "prediction" if "prediction" in samples else np.full(len(samples), "any")
        groups = samples.groupby(by)
        means = groups[["right", "confidence before", "confidence after"]].mean()
        table = 100 * means.astype(float)
        table.columns = ["right", "claimed before", "claimed after"]
        table.insert(0, "samples", groups.size())
        apart = table["samples"] * (table["claimed after"] - table["right"]).abs()
        order = np.argsort(-apart.to_numpy(), kind="stable")
        return table.iloc[order].rename_axis("predicted class")


def _fit_as_any(
    labels: npt.NDArray[np.int64],
    predictions: npt.NDArray[np.int64],
    confidences: npt.NDArray[np.floating[Any]],
) -> bool:
    """Tell whether hits are those of labels in any order, where more are claimed.

    As many as by chance, and two standard deviations, where four are claimed.

    References
    ----------
    J. L. Fleiss, J. Cohen, B. S. Everitt, "Large sample standard errors of kappa and
    weighted kappa", Psychological Bulletin 72, 1969: the deviation without agreement.
    """
    n = len(labels)
    named = np.concatenate([labels, predictions])
    classes, counted = np.unique(named, return_inverse=True)  # of -1 and 1, too
    k = len(classes)
    of_labels = np.bincount(counted[:n], minlength=k) / n
    of_predictions = np.bincount(counted[n:], minlength=k) / n
    if n - n * of_predictions.max() < _FEWEST_OTHERS:
        return False
    both = of_labels * of_predictions
    by_chance = both.sum()
    variance = by_chance + by_chance**2 - (both * (of_labels + of_predictions)).sum()
    deviation = np.sqrt(variance / n)
    hits = np.mean(labels == predictions)
    is_claimed = np.mean(confidences) > by_chance + 4 * deviation
    return bool(is_claimed and hits < by_chance + 2 * deviation)


def _confidences(logits: Tensor) -> Tensor:
    """The probability of *right*, in float32 where the logits have no more digits."""
    values = logits.double().softmax(1)[:, 1]
    has_more = rounding_of(logits) < rounding(torch.float32)
    return values if has_more else values.float()


def _claimed(logits: Tensor, classes: Tensor) -> Tensor:
    """The probability of a class for each sample."""
    return logits.double().softmax(1).gather(1, classes[:, None])[:, 0]


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
        ``logit_0`` ... or ``prob_0`` ...; or ``label``, ``prediction``, ``confidence``,
        also as spreadsheets write them. None: the project's own logits of GCE.
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
        file = _project_logits()
        source = "the project's logits of GCE on fashion_mini"
        place = Path(tempfile.mkdtemp(prefix="gcelib-"))
        stem = "demo"
    else:
        file = load_logits_file(path)
        source = str(path)
        place = Path.cwd()
        stem = Path(path).stem
    target = place / f"{stem}_calibrator.pt" if save_to is None else Path(save_to)
    page = target.with_suffix(".html")
    _refuse_taken(target, page)
    parts = dict(file) if file.kind == "probabilities" else file.parts
    parts = _with_validation(parts)
    return OwnLogits(
        val=parts["val"],
        test=parts.get("test"),
        form=file.kind,
        source=source,
        calibrator_path=target,
        page_path=page,
        class_names=file.class_names,
        notes=file.notes,
        predicted=_with_validation(file.predicted),
    )


def _project_logits() -> LogitsFile:
    """The committed run of GCE on fashion_mini."""
    run = places.PROJECT / "data/demo/fashion_mini/convnet/gce/seed-01"
    return LogitsFile("logits", {name: load_logits(run, name) for name in _SPLITS})


def _with_validation(parts: Mapping[str, Pair]) -> dict[str, Pair]:
    """The parts by split; of a file without splits all is there to fit on."""
    if parts and "val" not in parts:
        return {"val": parts["test"]}
    return dict(parts)


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
