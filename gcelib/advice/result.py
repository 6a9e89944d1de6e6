"""The answer of ``advise``: what it found, and how to use it."""

import io
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from gcelib import _check
from gcelib.advice.forms import LINES_THAT_APPLY
from gcelib.calibration import ALL_CALIBRATORS
from gcelib.calibrator import Calibrator


@dataclass(frozen=True)
class AdviceRow:
    """What cross-validation found for one calibrator.

    Every sample was judged by a calibrator that was fitted without it.

    Parameters
    ----------
    name, label : str
        Key of ``CALIBRATORS`` (or ``"raw"``: no calibrator), and how it reads.
    error, nll, ece : float
        Fraction of wrong predictions, nats, ECE in 20 bins.
    ece_noise : float
        95 of 100 calibrated models with these confidences show an ECE below it.
    nll_change, nll_low, nll_high : float
        NLL minus that of the reference, and the ends of an interval of at least
        95 %, which counts how many calibrators were tried.
    ece_change, ece_low, ece_high : float
        The same of the ECE; a basic bootstrap interval, widened by what chance may have
        added to either.
    clearly_by_nll, clearly_by_ece : bool
        Whether it is clearly better than the reference by the rule of ``advise``.
    test_error, test_nll, test_ece : float or None
        On the test samples, fitted on all validation samples.
    """

    name: str
    label: str
    error: float
    nll: float
    ece: float
    ece_noise: float
    nll_change: float
    nll_low: float
    nll_high: float
    ece_change: float
    ece_low: float
    ece_high: float
    clearly_by_nll: bool
    clearly_by_ece: bool
    test_error: float | None = None
    test_nll: float | None = None
    test_ece: float | None = None


@dataclass(frozen=True)
class Advice:
    """The answer of ``advise``.

    Attributes
    ----------
    name : str
        The advised calibrator's key in ``CALIBRATORS``, or ``"raw"``.
    calibrator : Calibrator
        It, fitted on all validation samples; of ``"raw"`` a temperature of 1.
    sentence : str
        What to do and how sure that is.
    rows : tuple of AdviceRow
        All calibrators that were tried, ``"raw"`` first.
    reference : str
        What the rows' changes are against: ``"raw"``, or ``"ts_nll"`` where one
        temperature is clearly better than that.
    before, after : (N, K) Tensor
        Logits without and with the calibrator, to judge it by: of the test samples, or
        of the validation samples, each calibrated by a fit that has not seen it. Of
        confidences c they are (N, 2), log(1 - c) and log(c).
    labels : (N,) Tensor
        Their labels; of confidences 1 where the prediction is right.
    form : {"logits", "confidences"}
        What was given.
    """

    name: str
    calibrator: Calibrator
    sentence: str
    rows: tuple[AdviceRow, ...]
    reference: str
    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    form: str = "logits"

    def __str__(self) -> str:
        """The sentence, and a table of the rows."""
        header = f"{'':24}{'error %':>9}{'NLL':>9}{'ECE %':>8}   NLL against reference"
        lines = [self.sentence, "", header]
        for row in self.rows:
            numbers = f"{100 * row.error:9.2f}{row.nll:9.4f}{100 * row.ece:8.2f}"
            span = f"{row.nll_change:+.4f} [{row.nll_low:+.4f}, {row.nll_high:+.4f}]"
            change = "reference" if row.name == self.reference else span
            mark = " clearly better" if row.clearly_by_nll else ""
            lines.append(f"{row.label:24}{numbers}   {change}{mark}")
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the calibrator's ``state_dict``; never over an existing file.

        Parameters
        ----------
        path : path
            Where to; its folder must exist.

        Returns
        -------
        Path
            The absolute path.

        Raises
        ------
        ValueError
            If something is there already, or the folder is not.

        Examples
        --------
        >>> advice.save("calibrator.pt")  # doctest: +SKIP
        """
        target = Path(path).absolute()
        if not target.parent.is_dir():
            _check.fail("path", f"{target.parent} is no folder", "make it first")
        buffer = io.BytesIO()
        torch.save(self.calibrator.state_dict(), buffer)
        # Whole beside its place first, so that no half of it is ever there; a link,
        # unlike a rename, never replaces what somebody put there meanwhile.
        whole = target.with_name(f".{secrets.token_hex(8)}.pt")
        try:
            with open(whole, "xb") as file:
                file.write(buffer.getvalue())
            try:
                os.link(whole, target)
            except FileExistsError:
                raise
            except OSError:  # a disk without links
                if os.path.lexists(target):
                    raise FileExistsError(str(target)) from None
                whole.rename(target)
        except FileExistsError:
            cure = "choose another name, or remove it"
            _check.fail("path", f"{target} is there already", cure)
        finally:
            whole.unlink(missing_ok=True)
        return target

    def usage(self, path: str | os.PathLike[str], form: str | None = None) -> str:
        """The lines that load and apply what ``save(path)`` wrote.

        Parameters
        ----------
        path : path
            As given to ``save``.
        form : {"logits", "probabilities", "confidences"}, optional
            What it will be applied to; None: logits, of ``advise_confidences``
            confidences. These are of *right* and *wrong*, the others of the classes: an
            advice on the one is none on the other, unless its calibrator treats two
            classes alike.

        Returns
        -------
        str
            Python code. Where no calibrator is advised, probabilities and confidences
            are left as they are.

        Raises
        ------
        ValueError
            If there is no such form, or the advice is none on it.

        Examples
        --------
        >>> print(advice.usage("calibrator.pt"))  # doctest: +SKIP
        """
        form = self.form if form is None else form
        _check.choice("form", form, tuple(LINES_THAT_APPLY))
        name = "ts_nll" if self.name == "raw" else self.name
        if (form == "confidences") != (self.form == "confidences"):
            self._refuse_other_classes(name, form)
        if self.name == "raw" and form != "logits":
            # Logarithms and back would move them beside the edges of bins.
            return f"calibrated = {form}  # as they are: no calibrator is advised"
        names = ["make_calibrator"]
        if form != "logits":
            names = [f"logits_from_{form}", *names]
        return (
            "import torch\n"
            f"from gcelib import {', '.join(names)}\n\n"
            f'calibrator = make_calibrator("{name}")\n'
            f"state = torch.load({str(path)!r}, weights_only=True)\n"
            "calibrator.load_state_dict(state)\n"
        ) + LINES_THAT_APPLY[form]

    def _refuse_other_classes(self, name: str, form: str) -> None:
        """Refuse to move *right* as class 1, or class 1 as *right*."""
        if self.before.shape[1] == 2 and ALL_CALIBRATORS[name].keeps_order:
            return
        problem = f"{form!r}, but the advice was on {self.form}"
        cure = "call advise(logits, labels), which knows the classes"
        if form == "confidences":
            cure = "call advise_confidences(confidences, correct)"
        _check.fail("form", problem, cure)
