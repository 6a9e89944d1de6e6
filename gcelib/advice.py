"""Which calibrator for these logits, and how sure: chosen by cross-validation."""

import functools
import io
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib import _check, intervals
from gcelib._check import Array
from gcelib.bins import Floats, bin_scale, check_confidences, check_n_bins
from gcelib.blocks import rounding_of
from gcelib.calibration import (
    ALL_CALIBRATORS,
    CALIBRATORS,
    TemperatureScaling,
    make_calibrator,
)
from gcelib.calibrator import (
    Calibrator,
    are_unrelated,
    exchanged_classes,
    tell_exchanged,
)
from gcelib.metrics import logits_from_probabilities

#: So many errors, seen or expected, before anything can be clear.
ERRORS_NEEDED = 10
#: So many errors until most models that exaggerate twofold are told so, as measured:
#: benchmarks/results/advice.md.
ERRORS_TELLING = 40
#: The chance that any calibrator is called clearly better where none is.
FALSE_ALARMS = 0.025
#: So much of the error (10 points) is mended by no calibrator of labels that are right
#: and classes as frequent as in training.
_LARGE_GAIN = 0.1
_N_BINS = 20
_RESAMPLES = 400
#: So many labels of rows that are there twice, expected to differ and alike all the
#: same, tell that these rows are copies: by chance this happens once in 1,000 sets.
_DOUBTS = 7
#: So many confidences below 0.5 tell whether they are those of the prediction.
_MANY_BELOW_HALF = 50


@dataclass(frozen=True)
class _Form:
    """What was given, and how the sentences speak of it.

    Parameters
    ----------
    name : str
        As in ``_LINES_THAT_APPLY``.
    things : str
        What a calibrator changes.
    top : int or None
        The class whose probability is the confidence and that counts as predicted;
        None: the class with the largest logit.
    labels : dict of str to str
        Every calibrator that may be advised, and how it reads; ``"raw"`` is none.
    scale : str
        What a temperature divides.
    criteria : str
        How ECE and NLL differ.
    used : dict of str to str
        For whom each criterion is the right one.
    """

    name: str
    things: str
    top: int | None
    labels: dict[str, str]
    scale: str
    criteria: str
    used: dict[str, str]


def _logits_form() -> _Form:
    """Logits of all classes."""
    labels = {name: row.label for name, row in CALIBRATORS.items()}
    return _Form(
        name="logits",
        things="logits",
        top=None,
        labels={"raw": "the logits as they are", **labels},
        scale="one temperature",
        criteria=(
            "ECE asks only whether the top class's probability is right on average, "
            "NLL whether every sample's is"
        ),
        used={
            "ece": "the confidence is what you use",
            "nll": "every probability is what you use",
        },
    )


def _confidences_form() -> _Form:
    """Confidences c of predictions, as logits of *wrong* (1 - c) and *right* (c)."""
    labels = {
        name: row.of_confidence
        for name, row in CALIBRATORS.items()
        if row.of_confidence is not None
    }
    return _Form(
        name="confidences",
        things="confidences",
        top=1,
        labels={"raw": "the confidences as they are", **labels},
        scale="one temperature of the odds c / (1 - c)",
        criteria=(
            "ECE asks only whether the confidences of a bin are right on average, "
            "NLL whether each single one is"
        ),
        used={
            "ece": "averages over many samples are what you use",
            "nll": "single confidences are what you use",
        },
    )


#: How a loaded calibrator is applied to each form of scores.
_LINES_THAT_APPLY = {
    "logits": (
        "calibrated = calibrator(logits)  # logits (N, K) of the same model\n"
        "probabilities = calibrated.softmax(1)"
    ),
    "probabilities": (
        "logits = logits_from_probabilities(probabilities)  # of the same model\n"
        "calibrated = calibrator(logits).softmax(1)"
    ),
    "confidences": (
        "right = torch.as_tensor(confidences)  # (N,), of the same model\n"
        "logits = logits_from_probabilities(torch.stack([1 - right, right], 1))\n"
        "calibrated = calibrator(logits).softmax(1)[:, 1]"
    ),
}


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
        NLL minus that of the reference, and the ends of its 95 % interval, which
        counts how many calibrators were tried.
    ece_change, ece_low, ece_high : float
        The same of the ECE; a basic bootstrap interval.
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
            Python code.

        Raises
        ------
        ValueError
            If there is no such form, or the advice is none on it.

        Examples
        --------
        >>> print(advice.usage("calibrator.pt"))  # doctest: +SKIP
        """
        form = self.form if form is None else form
        _check.choice("form", form, tuple(_LINES_THAT_APPLY))
        name = "ts_nll" if self.name == "raw" else self.name
        if (form == "confidences") != (self.form == "confidences"):
            self._refuse_other_classes(name, form)
        more = "" if form == "logits" else ", logits_from_probabilities"
        return (
            "import torch\n"
            f"from gcelib import make_calibrator{more}\n\n"
            f'calibrator = make_calibrator("{name}")\n'
            f"state = torch.load({str(path)!r}, weights_only=True)\n"
            "calibrator.load_state_dict(state)\n"
        ) + _LINES_THAT_APPLY[form]

    def _refuse_other_classes(self, name: str, form: str) -> None:
        """Refuse to move *right* as class 1, or class 1 as *right*."""
        if self.before.shape[1] == 2 and ALL_CALIBRATORS[name].keeps_order:
            return
        problem = f"{form!r}, but the advice was on {self.form}"
        cure = "call advise(logits, labels), which knows the classes"
        if form == "confidences":
            cure = "call advise_confidences(confidences, correct)"
        _check.fail("form", problem, cure)


def advise(
    val_logits: Array,
    val_labels: Array,
    test_logits: Array | None = None,
    test_labels: Array | None = None,
    *,
    choose_by: str = "nll",
    folds: int = 5,
    seed: int = 1,
    probabilities: bool = False,
) -> Advice:
    """Choose a calibrator by cross-validation on the validation samples.

    The rule is on the side of the simple. One temperature is taken if it is clearly
    better than nothing; another calibrator only if it is clearly better than that.
    *Clearly better by NLL* means: the interval of the difference lies below zero (95 %
    for the temperature; for the others 95 % for all of them together), the gain over
    all samples is at least log(tried / 0.025) nats, and at least ten errors were seen
    or expected by the reference. *By ECE*: the interval, the ten errors, and an ECE of
    the reference above what 97.5 of 100 calibrated models would show. What makes
    clearly more predictions wrong is not taken, but named. So below ten errors nothing
    is clear; a model that exaggerates twofold is mostly told so from about forty. How
    often honest models with few errors are told "clearly" all the same, and others in
    time, ``benchmarks/advice.py`` counts; its tables are in
    ``benchmarks/results/advice.md``. The test samples do not choose; they report.

    Parameters
    ----------
    val_logits : (N, K) tensor or array
        Scores before the softmax, of samples that the model was not trained on.
    val_labels : (N,) tensor or array of integers
        Class ids in [0, K).
    test_logits, test_labels : optional
        Further samples, for an honest report.
    choose_by : {"nll", "ece"}, default "nll"
        What decides. Both are always reported, and their disagreement is explained.
    folds : int, default 5
        Parts of the cross-validation.
    seed : int, default 1
        Of folds, resamples and simulations: the same seed, the same answer.
    probabilities : bool, default False
        True: ``val_logits`` and ``test_logits`` hold probabilities; rows that do not
        sum to 1 are refused. What is calibrated is ``logits_from_probabilities(p)``,
        and ``.usage(path, "probabilities")`` tells how to apply the answer.

    Returns
    -------
    Advice
        ``.name``, ``.calibrator``, ``.sentence``, ``.rows``, ``.save(path)``.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> truth = torch.randn(1000, 3, generator=generator)
    >>> labels = torch.multinomial(truth.softmax(1), 1, generator=generator)[:, 0]
    >>> advise(3 * truth, labels).name  # claims three times too much
    'ts_nll'
    """
    probabilities = _check.boolean("probabilities", probabilities)
    logits, labels = _checked("val", val_logits, val_labels, probabilities)
    choose_by, folds, seed = _rule(choose_by, folds, seed)
    _refuse_few("val_logits", len(labels), folds)
    _warn_of_copies("val_logits", logits, labels)
    test = None
    _refuse_half_a_test(("test_logits", test_logits), ("test_labels", test_labels))
    if test_logits is not None and test_labels is not None:
        test = _checked("test", test_logits, test_labels, probabilities)
        if test[0].shape[1] != logits.shape[1]:
            problem = f"have {test[0].shape[1]} classes, val_logits {logits.shape[1]}"
            _check.fail("test_logits", problem, "pass logits of one model")
        both = ("val_logits", "test_logits")
        given_dtypes = [
            _check.as_tensor(name, scores).dtype
            for name, scores in (
                ("val_logits", val_logits),
                ("test_logits", test_logits),
            )
        ]
        coarser = min(given_dtypes, key=lambda dtype: dtype.itemsize)
        _warn_of_tested_again(both, (logits, labels), test, coarser)
    given = _check.as_tensor("val_logits", val_logits)
    tolerance = rounding_of(given, probabilities=probabilities)
    form = _logits_form()
    k = logits.shape[1]
    study = _Study(logits, labels, tolerance, form, k, choose_by, folds, seed)
    return study.advice(test)


def advise_confidences(
    confidences: Array,
    correct: Array,
    test_confidences: Array | None = None,
    test_correct: Array | None = None,
    *,
    model_classes: int | None = None,
    choose_by: str = "nll",
    folds: int = 5,
    seed: int = 1,
) -> Advice:
    """Choose a calibrator where only the confidence of each prediction is known.

    The rule of ``advise``, among the calibrators that act on a confidence alone:
    those with ``CALIBRATORS[name].of_confidence``. The error is the share of wrong
    predictions, the ECE that of ``Reliability.from_confidences``, the NLL that of the
    two outcomes right and wrong.

    Parameters
    ----------
    confidences : (N,) tensor or array
        Probability of the predicted class, in [0, 1], of samples that the model was not
        trained on.
    correct : (N,) tensor or array
        Whether each prediction was right, as booleans or 0 and 1.
    test_confidences, test_correct : optional
        Further samples, for an honest report.
    model_classes : int, optional
        Number of classes of the model; with it, accuracy at chance is told.
    choose_by : {"nll", "ece"}, default "nll"
        What decides.
    folds : int, default 5
        Parts of the cross-validation.
    seed : int, default 1
        Of folds, resamples and simulations: the same seed, the same answer.

    Returns
    -------
    Advice
        ``.calibrator`` takes logits (N, 2) of *wrong* and *right*;
        ``print(advice.usage(path))`` gives the lines that apply it to confidences.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> said = rng.uniform(0.2, 1, 2000)
    >>> advice = advise_confidences(said, rng.random(2000) < said**2)
    >>> advice.name, len(advice.rows)
    ('bias', 6)
    """
    choose_by, folds, seed = _rule(choose_by, folds, seed)
    if model_classes is not None:
        model_classes = _check.number("model_classes", model_classes, 2, integer=True)
    logits, labels = _wrong_or_right(confidences, correct, ("confidences", "correct"))
    _refuse_few("confidences", len(labels), folds)
    _warn_of_one_class(logits.softmax(1)[:, 1], labels)
    _warn_of_copies("confidences", logits, labels)
    test = None
    names = ("test_confidences", "test_correct")
    _refuse_half_a_test((names[0], test_confidences), (names[1], test_correct))
    if test_confidences is not None and test_correct is not None:
        test = _wrong_or_right(test_confidences, test_correct, names)
        _warn_of_tested_again(("confidences", names[0]), (logits, labels), test)
    form = _confidences_form()
    given = _check.as_tensor("confidences", confidences)
    tolerance = rounding_of(given, probabilities=True)
    study = _Study(
        logits, labels, tolerance, form, model_classes, choose_by, folds, seed
    )
    return study.advice(test)


def _rule(choose_by: str, folds: int, seed: int) -> tuple[str, int, int]:
    """The options of both kinds of advice, checked."""
    _check.choice("choose_by", choose_by, ("nll", "ece"))
    folds = _check.number("folds", folds, 2, 1000, integer=True)
    seed = _check.number("seed", seed, 0, 2**31, integer=True)
    return choose_by, folds, seed


def _refuse_few(name: str, n_samples: int, folds: int) -> None:
    """Refuse fewer than two samples a fold."""
    if n_samples < 2 * folds:
        cure = f"{folds} folds want {2 * folds} at the least"
        _check.fail(name, f"has {n_samples} samples", cure)


def _refuse_half_a_test(first: tuple[str, object], second: tuple[str, object]) -> None:
    """Refuse one of two arguments that go together, each a name and a value."""
    if (first[1] is None) != (second[1] is None):
        _check.fail(first[0], f"and {second[0]} go together", "pass both or none")


def _wrong_or_right(
    confidences: Array, correct: Array, names: tuple[str, str]
) -> tuple[Tensor, Tensor]:
    """Logits (N, 2) of wrong and right, and 1 where right."""
    values, hits = check_confidences(confidences, correct, names)
    # As the lines of ``usage`` do, in the same type: a zero has its own logarithm.
    p = _check.as_meant(values).to(_dtype_of_study(values)).clamp(0, 1)
    logits = logits_from_probabilities(torch.stack([1 - p, p], 1))
    return logits, (hits == 1).long()


def _dtype_of_study(scores: Tensor) -> torch.dtype:
    """The type that advice computes in: the given one, at least float32."""
    return torch.promote_types(scores.dtype, torch.float32)


def _warn_of_one_class(confidences: Tensor, hits: Tensor) -> None:
    """Say so if confidences seem to be the probability of one of two classes.

    Then, below 0.5, the other class is predicted: right more often than not, and the
    more often the lower the number is.
    """
    low = confidences < 0.5
    n_low = int(low.sum())
    if n_low < _MANY_BELOW_HALF:
        return
    x = confidences[low] - confidences[low].mean()
    y = hits[low].double() - hits[low].double().mean()
    spread = float((x.square().mean() * y.square().mean()).sqrt())
    falls = spread > 0 and float((x * y).mean()) / spread < -4 / n_low**0.5
    right = float(hits[low].double().mean())
    if falls and right > 0.5:
        _check.warn(
            f"confidences: of {n_low:,} below 0.5 {right:.0%} are right, the more the "
            "lower they are, as where they are the probability of one of two classes; "
            "pass that of the predicted class, max(p, 1 - p)"
        )


def _warn_of_copies(name: str, logits: Tensor, labels: Tensor) -> None:
    """Say so if samples are there twice: each would judge a fit that has seen it.

    Rows of coarse scores are alike, too, but then their labels differ as often as the
    scores say, so that ``_DOUBTS`` of them would not all agree.
    """
    first: dict[bytes, int] = {}
    copies = []
    originals = []
    for i, row in enumerate(logits.numpy()):
        before = first.setdefault(row.tobytes(), i)
        if before != i:
            copies.append(i)
            originals.append(before)
    if not copies or not torch.equal(labels[copies], labels[originals]):
        if not _is_one_set_twice(logits, labels):
            return
        copies = list(range(len(labels) // 2))
    doubts = 1 - logits[copies].double().softmax(1).amax(1)
    if float(doubts.sum()) > _DOUBTS:
        _check.warn(
            f"{name}: {len(copies):,} of {len(logits):,} rows copy others, "
            "with the same labels, so that cross-validation judges calibrators by "
            "samples they were fitted on; pass each sample once"
        )


def _is_one_set_twice(logits: Tensor, labels: Tensor) -> bool:
    """Tell whether the second half of the samples is the first, line by line."""
    half, rest = divmod(len(labels), 2)
    alike = torch.equal(logits[:half], logits[half:]) if rest == 0 else False
    return alike and torch.equal(labels[:half], labels[half:])


def _warn_of_tested_again(
    names: tuple[str, str],
    val: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    dtype: torch.dtype | None = None,
) -> None:
    """Say so if validation samples are tested: rows and labels that are there again.

    ``dtype``: the rows are compared in it, the coarser one of the two that were given.
    Equal rows may be no more than rounded, but then their labels differ as often as
    they say, so that ``_DOUBTS`` of them would not all agree. Rows of a fine type, in a
    validation set in which hardly one is there twice, are nobody else's.
    """
    labels: dict[bytes, list[int]] = {}
    for row, label in zip(_bytes_of_rows(val[0], dtype), val[1].tolist(), strict=True):
        labels.setdefault(row, []).append(label)
    repeated = sum(len(known) for known in labels.values() if len(known) > 1)
    once = 0
    again = []
    agree = True
    tested = zip(_bytes_of_rows(test[0], dtype), test[1].tolist(), strict=True)
    for i, (row, label) in enumerate(tested):
        known = labels.get(row, [])
        once += len(known) == 1
        if len({*known}) == 1:
            again.append(i)
            agree = agree and label in known
    doubts = 1 - test[0][again].double().softmax(1).amax(1)
    surely = agree and float(doubts.sum()) > _DOUBTS
    is_fine = dtype is not None and dtype.itemsize >= 4
    are_unique = is_fine and repeated <= 0.02 * len(val[1])  # not so of votes
    few = 0.02 * len(test[1])
    if (are_unique and once > few) or (surely and len(again) > few):
        _check.warn(
            f"{names[1]}: {len(again):,} of {len(test[1]):,} rows are rows of "
            f"{names[0]}, on which the calibrators are fitted; pass samples that had "
            "no say"
        )


def _bytes_of_rows(logits: Tensor, dtype: torch.dtype | None) -> list[bytes]:
    """What is equal where rows are, in ``dtype``."""
    rows = logits if dtype is None else logits.to(dtype)
    return [row.tobytes() for row in rows.contiguous().view(torch.uint8).numpy()]


def _checked(
    split: str, logits: Array, labels: Array, probabilities: bool
) -> tuple[Tensor, Tensor]:
    """Logits in at least float32 and labels, on the CPU."""
    name = f"{split}_logits"
    labels_name = f"{split}_labels"
    z = _check.as_tensor(name, logits)
    y = _check.as_tensor(labels_name, labels)
    _check.check_has_values(name, z)
    _check.check_has_values(labels_name, y)
    _check.warn_of_tables(logits, labels, z, y, (name, labels_name))
    z = z.cpu()
    y = y.cpu()
    _check.check_logits(z, name)
    _check.check_labels(y, z.shape[0], z.shape[1], labels_name)
    if probabilities:
        _check.check_probabilities(z, name)
        z = logits_from_probabilities(z)
    else:
        _check.warn_of_probabilities(z, name)
    return z.to(_dtype_of_study(z)), y.long()


@dataclass(frozen=True)
class _Judged:
    """What each sample says about one calibrator's output."""

    nll: Floats
    confidence: Floats
    correct: npt.NDArray[np.bool_]
    tolerance: float
    n_bins: int = _N_BINS

    @property
    def bins(self) -> npt.NDArray[np.intp]:
        """The bin of each sample, as ``gcelib.ece`` cuts them."""
        scale = bin_scale(self.n_bins, self.tolerance)
        return (self.confidence * scale).astype(np.intp)

    @property
    def gaps(self) -> Floats:
        """Confidence minus hit, (N, bins): each sample in the column of its bin."""
        spread = np.zeros((len(self.confidence), self.n_bins))
        rows = np.arange(len(self.confidence))
        spread[rows, self.bins] = self.confidence - self.correct
        return spread


def _judge(
    logits: Tensor, labels: Tensor, tolerance: float, top: int | None = None
) -> _Judged:
    """Per sample: negative log-likelihood, confidence, hit.

    ``tolerance`` is that of a bin's edge, ``top`` as in ``_Form``.
    """
    log_p = torch.log_softmax(logits.double(), 1)
    nll = -log_p.gather(1, labels[:, None])[:, 0]
    if top is None:
        confidence = log_p.amax(1).exp()
        correct = logits.argmax(1) == labels
    else:
        confidence = log_p[:, top].exp()
        correct = labels == top
    return _Judged(nll.numpy(), confidence.numpy(), correct.numpy(), tolerance)


def _resampled_eces(
    judged: Mapping[str, _Judged], rng: np.random.Generator, resamples: int
) -> dict[str, Floats]:
    """ECE of the samples, then of resamples, the same ones for every calibrator."""
    gaps = np.hstack([each.gaps for each in judged.values()])
    n_samples = len(gaps)
    sums = [gaps.sum(0)]
    at_once = max(1, 4_000_000 // n_samples)
    for group in intervals.resamples(rng, n_samples, resamples, at_once):
        weights = np.stack([np.bincount(drawn, minlength=n_samples) for drawn in group])
        sums.extend(weights.astype(np.float64) @ gaps)
    in_bins = np.abs(np.array(sums)).reshape(len(sums), len(judged), -1)
    eces = in_bins.sum(2) / n_samples
    return {name: eces[:, i] for i, name in enumerate(judged)}


@dataclass(frozen=True)
class Difference:
    """What one set of logits changes against another, on the same samples.

    Parameters
    ----------
    name : str
        Which logits.
    nll, nll_low, nll_high : float
        NLL minus the reference's, in nats, and its 95 % interval.
    ece, ece_low, ece_high : float
        The same of the ECE, in the bins that were asked for.
    """

    name: str
    nll: float
    nll_low: float
    nll_high: float
    ece: float
    ece_low: float
    ece_high: float


def paired_differences(
    calibrated: Mapping[str, Array],
    labels: Array,
    reference: str,
    *,
    resamples: int = 1000,
    seed: int = 1,
    probabilities: bool = False,
    n_bins: int = _N_BINS,
) -> list[Difference]:
    """How much better or worse than the reference, sample for sample?

    All are judged on the same samples, and a hard sample is hard for all: the interval
    of a difference is much narrower than two intervals side by side suggest.

    Parameters
    ----------
    calibrated : mapping of (N, K) logits
        By name; the reference among them.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    reference : str
        The name to which the others are compared.
    resamples : int, default 1000
        Of the ECE's basic bootstrap interval; the NLL's is normal.
    seed : int, default 1
        Of the resamples.
    probabilities : bool, default False
        True: ``calibrated`` holds probabilities; rows that do not sum to 1 are refused.
    n_bins : int, default 20
        Of the ECE, 1 to 10,000 of equal width.

    Returns
    -------
    list of Difference
        One for every other name, in order; below 0 is better than the reference.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed; the message begins with its name.

    Examples
    --------
    >>> z = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> [d] = paired_differences({"a": z, "b": z / 2}, torch.tensor([0, 1, 0]), "a")
    >>> d.name, d.nll > 0
    ('b', True)
    """
    _check.choice("reference", reference, list(calibrated))
    seed = _check.number("seed", seed, 0, 2**31, integer=True)
    resamples = _check.number("resamples", resamples, 100, 100_000, integer=True)
    probabilities = _check.boolean("probabilities", probabilities)
    n_bins = check_n_bins(n_bins)
    judged = {}
    n_classes = None
    of_reference = f"calibrated[{reference!r}]"
    for name, logits in calibrated.items():
        pair = (of_reference, f"calibrated[{name!r}]")
        _check.warn_of_indexes(calibrated[reference], logits, pair)
        z, y = _check.logits_and_labels(logits, labels)
        tolerance = rounding_of(z, probabilities=probabilities)
        if n_classes not in (None, z.shape[1]):
            problem = f"holds {z.shape[1]} classes in {name!r}, before {n_classes}"
            _check.fail("calibrated", problem, "compare logits of the same classes")
        if len(y) < 2:
            _check.fail("labels", "one sample has no interval", "pass at least two")
        n_classes = z.shape[1]
        if probabilities:
            z = logits_from_probabilities(z)
        else:
            _check.warn_of_probabilities(z)
        _check.warn_of_impossible_labels(z.cpu(), y.cpu(), f"calibrated[{name!r}]")
        judged[name] = replace(_judge(z.cpu(), y.cpu(), tolerance), n_bins=n_bins)
    draws = _resampled_eces(judged, np.random.default_rng(seed), resamples)
    found = []
    for name in calibrated:
        if name == reference:
            continue
        nll = _interval_of_mean(judged[name].nll - judged[reference].nll, 0.025)
        ece = _basic_interval(draws[name] - draws[reference], 0.025)
        found.append(
            Difference(
                name=name,
                nll=nll.value,
                nll_low=nll.low,
                nll_high=nll.high,
                ece=ece.value,
                ece_low=ece.low,
                ece_high=ece.high,
            )
        )
    return found


class _Change(NamedTuple):
    """An estimated difference and the ends of its interval."""

    value: float
    low: float
    high: float


def _interval_of_mean(values: Floats, tail: float) -> _Change:
    """The mean and the normal interval that leaves ``tail`` on each side."""
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = _normal_quantile(1 - tail) * spread
    return _Change(mean, mean - half, mean + half)


def _basic_interval(draws: Floats, tail: float) -> _Change:
    """The first value, and the basic bootstrap interval from the others."""
    point = float(draws[0])
    low, high = np.quantile(draws[1:], (tail, 1 - tail))
    return _Change(point, 2 * point - float(high), 2 * point - float(low))


class _Study:
    """The cross-validation, what it found, and the sentence that says it."""

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        tolerance: float,
        form: _Form,
        model_classes: int | None,
        choose_by: str,
        folds: int,
        seed: int,
    ) -> None:
        self.logits = logits
        self.labels = labels
        self.tolerance = tolerance
        self.form = form
        self.model_classes = model_classes
        self.choose_by = choose_by
        self.folds = folds
        self.rng = np.random.default_rng(seed)
        self.names = [name for name in form.labels if name != "raw"]
        self.held_out = self._cross_validate()
        self.judged = {
            name: self._judge(calibrated, labels, name)
            for name, calibrated in self.held_out.items()
        }
        self.noise = {name: self._noise(judged) for name, judged in self.judged.items()}
        self.ece_draws = _resampled_eces(self.judged, self.rng, _RESAMPLES)
        self.eces = {name: draws[0] for name, draws in self.ece_draws.items()}

    def _judge(self, logits: Tensor, labels: Tensor, name: str = "raw") -> _Judged:
        """Each sample under one calibrator, whose output is as rounded as its type."""
        tolerance = self.tolerance if name == "raw" else rounding_of(logits)
        return _judge(logits, labels, tolerance, self.form.top)

    def _cross_validate(self) -> dict[str, Tensor]:
        """Every sample calibrated by fits that have not seen it."""
        order = self.rng.permutation(len(self.labels))
        held_out = {name: torch.empty_like(self.logits) for name in self.names}
        with _check.collected():  # the fit on all samples says it once
            for part in np.array_split(order, self.folds):
                rest = np.setdiff1d(order, part)
                for name in self.names:
                    fitted = make_calibrator(name).fit(
                        self.logits[rest], self.labels[rest]
                    )
                    with torch.no_grad():
                        held_out[name][part] = fitted(self.logits[part])
        return {"raw": self.logits, **held_out}

    def _noise(self, judged: _Judged) -> Floats:
        """ECE of 200 models whose confidences, these, are right; sorted."""
        confidence = judged.confidence
        index = judged.bins
        n = len(confidence)
        draws = []
        for _ in range(200):
            gaps = confidence - (self.rng.random(n) < confidence)
            draws.append(np.abs(np.bincount(index, gaps)).sum() / n)
        return np.sort(draws)

    # --- the rule ---------------------------------------------------------------

    @property
    def at_chance(self) -> bool:
        """Whether the logits say nothing of the labels."""
        if self.model_classes is None:
            return False
        return self.guesses or self.is_unrelated

    @functools.cached_property
    def exchanged(self) -> list[int]:
        """Classes whose columns seem to have changed places."""
        if self.form.top is not None:
            return []
        predictions = self.logits.argmax(1).cpu().numpy()
        return exchanged_classes(self.labels.cpu().numpy(), predictions)

    @property
    def guesses(self) -> bool:
        """Whether no more predictions are right than guessing would give."""
        chance = len(self.labels) / (self.model_classes or 1)
        return bool(self.judged["raw"].correct.sum() <= chance)

    @functools.cached_property
    def is_unrelated(self) -> bool:
        """Whether the labels would be as probable in any other order."""
        is_right = bool(self.judged["raw"].correct.all())
        of_classes = self.form.top is None
        return of_classes and not is_right and are_unrelated(self.logits, self.labels)

    def nll_change(self, name: str, reference: str, tries: int) -> _Change:
        """The difference in NLL and the ends of its interval."""
        differences = self.judged[name].nll - self.judged[reference].nll
        return _interval_of_mean(differences, FALSE_ALARMS / tries)

    def ece_change(self, name: str, reference: str, tries: int) -> _Change:
        """The difference in ECE and the ends of its basic bootstrap interval."""
        differences = self.ece_draws[name] - self.ece_draws[reference]
        return _basic_interval(differences, FALSE_ALARMS / tries)

    def errors(self, reference: str) -> float:
        """Errors seen, or expected by the reference, whichever are more."""
        judged = self.judged[reference]
        expected = float((1 - judged.confidence).sum())
        return max(expected, float((~judged.correct).sum()))

    def clearly(self, criterion: str, name: str, reference: str, tries: int) -> bool:
        """Whether ``name`` is clearly better than ``reference``, of so many tried."""
        if name == reference or self.errors(reference) < ERRORS_NEEDED:
            return False
        if criterion == "nll":
            change = self.nll_change(name, reference, tries)
            gain = -change.value * len(self.labels)
            return change.high < 0 and gain >= math.log(tries / FALSE_ALARMS)
        change = self.ece_change(name, reference, tries)
        limit = np.quantile(self.noise[reference], 1 - FALSE_ALARMS)
        return change.high < 0 and self.eces[reference] > limit

    def choose(self, criterion: str) -> tuple[str, str]:
        """The advised calibrator and what it had to beat."""
        reference = "raw"
        if self.at_chance:
            return reference, reference
        if self.clearly(criterion, "ts_nll", "raw", 1):
            reference = "ts_nll"
        better = [
            name
            for name in self.names
            if self.clearly(criterion, name, reference, len(self.names))
            and not self.costs_accuracy(name)
        ]
        value = self.values(criterion)
        best = min(better, key=lambda name: value[name], default=reference)
        return best, reference

    def costs_accuracy(self, name: str) -> bool:
        """Whether clearly fewer predictions are right than without the calibrator."""
        before, after = (self.judged[which].correct for which in ("raw", name))
        lost = before.astype(float) - after.astype(float)
        return _interval_of_mean(lost, FALSE_ALARMS / len(self.names)).low > 0

    def values(self, criterion: str) -> dict[str, float]:
        """NLL or ECE of each calibrator."""
        return self._nlls() if criterion == "nll" else self.eces

    def _nlls(self) -> dict[str, float]:
        """Mean NLL of every calibrator."""
        return {name: float(judged.nll.mean()) for name, judged in self.judged.items()}

    # --- the answer -------------------------------------------------------------

    def advice(self, test: tuple[Tensor, Tensor] | None) -> Advice:
        """Choose, fit on everything, report."""
        name, reference = self.choose(self.choose_by)
        calibrator = self._fit(name)
        on_test = self._test(test, {name: calibrator})
        rows = tuple(self._row(each, reference, on_test) for each in self.judged)
        said = self._sentences(name, reference, rows, test, calibrator)
        if test is None:
            before = self.logits
            after = self.held_out[name]
            labels = self.labels
        else:
            before, labels = test
            with torch.no_grad():
                after = calibrator(before)
        return Advice(
            name=name,
            calibrator=calibrator,
            sentence=" ".join(said),
            rows=rows,
            reference=reference,
            # Copies: the caller may write to this memory later.
            before=before.clone(),
            after=after.clone(),
            labels=labels.clone(),
            form=self.form.name,
        )

    def _fit(self, name: str) -> Calibrator:
        """The calibrator on all samples; of raw logits the temperature 1."""
        if name != "raw":
            with _check.collected() as messages:
                fitted = make_calibrator(name).fit(self.logits, self.labels)
            for message in messages:
                if not self._is_said(message):
                    _check.warn(message)
            return fitted
        identity = TemperatureScaling()
        n_classes = torch.tensor(self.logits.shape[1])
        identity.load_state_dict(
            {"temperature": torch.tensor(1.0), "n_classes": n_classes}
        )
        return identity

    def _is_said(self, message: str) -> bool:
        """Whether advise says what a fit warns of, of its own arguments."""
        if message.startswith(("logits: rows", "logits: all values")):
            return True
        if not message.startswith("labels: "):
            return False
        # Of confidences it is said of wrong and right, where a fit says predictions.
        return self.form.top is not None or " a probability of 0" in message

    def _test(
        self, test: tuple[Tensor, Tensor] | None, fitted: Mapping[str, Calibrator]
    ) -> dict[str, _Judged]:
        """Every calibrator on the test samples, fitted on all of validation."""
        if test is None:
            return {}
        z, y = test
        judged = {"raw": self._judge(z, y)}
        with _check.collected(), torch.no_grad():
            for name in self.names:
                calibrator = fitted[name] if name in fitted else self._fit(name)
                judged[name] = self._judge(calibrator(z), y, name)
        return judged

    def _row(
        self, name: str, reference: str, on_test: Mapping[str, _Judged]
    ) -> AdviceRow:
        """One line of the table."""
        tries = 1 if name == "ts_nll" else len(self.names)
        judged = self.judged[name]
        nll = self.nll_change(name, reference, tries)
        ece = self.ece_change(name, reference, tries)
        test = on_test.get(name)
        return AdviceRow(
            name=name,
            label=self.form.labels[name],
            error=float(1 - judged.correct.mean()),
            nll=float(judged.nll.mean()),
            ece=float(self.eces[name]),
            ece_noise=float(np.quantile(self.noise[name], 0.95)),
            nll_change=nll.value,
            nll_low=nll.low,
            nll_high=nll.high,
            ece_change=ece.value,
            ece_low=ece.low,
            ece_high=ece.high,
            clearly_by_nll=self.clearly("nll", name, reference, tries),
            clearly_by_ece=self.clearly("ece", name, reference, tries),
            test_error=None if test is None else float(1 - test.correct.mean()),
            test_nll=None if test is None else float(test.nll.mean()),
            test_ece=None if test is None else _ece(test),
        )

    def _sentences(
        self,
        name: str,
        reference: str,
        rows: tuple[AdviceRow, ...],
        test: tuple[Tensor, Tensor] | None,
        calibrator: Calibrator,
    ) -> list[str]:
        """What a busy person should know, most urgent first."""
        by_name = {row.name: row for row in rows}
        to_do = self._what_to_do(name, reference, by_name, calibrator)
        said = [*self._of_test_labels(test), *self._of_labels()]
        impossible = self._of_impossible(test)
        if name == "raw":  # then they may be why nothing is clear
            said.extend(impossible)
        said.append(to_do)
        row = by_name[name]
        said.extend(self._of_gains(by_name["raw"], row))
        said.extend(self._of_costs(name, reference, by_name))
        said.extend(self._of_rivals(name, rows))
        relation = "within" if row.ece <= row.ece_noise else "more than"
        said.append(
            f"The ECE that is left, {100 * row.ece:.2f} %, is {relation} the noise of "
            f"{len(self.labels):,} samples (95 of 100 calibrated models show less than "
            f"{100 * row.ece_noise:.2f} %)."
        )
        if test is not None:
            said.append(_of_test(by_name["raw"], row, len(test[1])))
        if name != "raw":
            said.extend(impossible)
        if self.form.top is not None:
            tried = ", ".join(f"{self.form.labels[n]} ({n})" for n in self.names)
            said.append(
                f"Tried was what acts on a confidence alone: {tried}. Predictions and "
                "error stay as they are; NLL is that of right and wrong."
            )
        return said

    def _of_gains(self, before: AdviceRow, after: AdviceRow) -> list[str]:
        """Many predictions that the calibrator mends, as calibration alone does not."""
        if before.error - after.error < _LARGE_GAIN or self.exchanged:
            return []
        was_right, is_right = (self.judged[r.name].correct for r in (before, after))
        mended = is_right.astype(float) - was_right.astype(float)
        if _interval_of_mean(mended, FALSE_ALARMS).low <= 0:
            return []
        return [
            f"It makes {100 * before.error:.2f} % errors {100 * after.error:.2f} %: "
            "either the classes' shares are others than in training, or labels and "
            "columns do not count the classes in one order; look at that first."
        ]

    def _of_costs(
        self, name: str, reference: str, rows: Mapping[str, AdviceRow]
    ) -> list[str]:
        """What would have been advised if it did not cost predictions."""
        if self.at_chance:
            return []
        value = self.values(self.choose_by)
        found = [
            other
            for other in self.names
            if value[other] < value[name]
            and self.costs_accuracy(other)
            and self.clearly(self.choose_by, other, reference, len(self.names))
        ]
        if not found:
            return []
        best = rows[min(found, key=lambda other: value[other])]
        return [
            f"Not advised is {best.label} ({best.name}), though clearly better by "
            f"{self.choose_by.upper()}: it makes more predictions wrong, "
            f"{100 * best.error:.2f} for {100 * rows['raw'].error:.2f} %."
        ]

    def _of_rivals(self, name: str, rows: tuple[AdviceRow, ...]) -> list[str]:
        """Which other calibrator the other measure, or the smallest ECE, speaks for."""
        by_name = {row.name: row for row in rows}
        row = by_name[name]
        ece_is_noise = row.ece <= row.ece_noise
        other = "ece" if self.choose_by == "nll" else "nll"
        rival, _ = self.choose(other)
        if rival != name:
            if ece_is_noise and other == "ece":
                return []
            return [self._disagreement(name, rival, other, by_name)]
        lowest = min(rows, key=lambda row: row.ece)
        if ece_is_noise or lowest.name == name:
            return []
        return [
            f"The smallest ECE, {100 * lowest.ece:.2f} %, is that of "
            f"{lowest.label} ({lowest.name}), at NLL {lowest.nll - row.nll:+.4f}: "
            f"one calibrator of {len(self.names)} always has the smallest, and "
            "this is not clear. More samples would tell."
        ]

    def _of_impossible(self, test: tuple[Tensor, Tensor] | None) -> list[str]:
        """Labels to which the model gave no probability at all, in either part."""
        parts = {"validation": self.judged["raw"]}
        if test is not None:
            parts["test"] = self._judge(*test)
        found = []
        for part, judged in parts.items():
            n_impossible = int((judged.nll > _check.IMPOSSIBLE).sum())
            if n_impossible:
                found.append(f"{n_impossible:,} of {len(judged.nll):,} {part} labels")
        if not found:
            return []
        return [
            f"{' and '.join(found)} had a probability of 0: the NLL is the price of "
            "these alone, and any number above a floor. Go by the ECE, or mix a little "
            "of 1/K into the probabilities first."
        ]

    def _of_test_labels(self, test: tuple[Tensor, Tensor] | None) -> list[str]:
        """Test labels at chance, or exchanged, where those of validation are not."""
        if test is None or self.model_classes is None or self.at_chance:
            return []
        hits = int(self._judge(*test).correct.sum())
        n = len(test[1])
        if hits > n / self.model_classes:
            logits, labels = (part.cpu() for part in test)
            circle = []
            if self.form.top is None and not self.exchanged:
                circle = exchanged_classes(labels.numpy(), logits.argmax(1).numpy())
            if not circle:
                return []
            return [
                f"Look at the test samples first: {tell_exchanged(circle)}, and not so "
                "in validation; are their classes in the same order?"
            ]
        return [
            f"Look at the test samples first: {hits:,} of {n:,} predictions are right, "
            f"no more than chance (1 in {self.model_classes}), while those of "
            "validation are better; are their classes in the same order?"
        ]

    def _of_labels(self) -> list[str]:
        """Accuracy at chance, or too few errors."""
        n = len(self.labels)
        hits = int(self.judged["raw"].correct.sum())
        said = []
        if self.at_chance:
            why = (
                f"no more than chance (1 in {self.model_classes})"
                if self.guesses
                else "and the labels are no more probable than in any other order"
            )
            said.append(
                f"Look at the labels first: {hits:,} of {n:,} predictions are right, "
                f"{why}; nothing else counts until this is explained."
            )
        elif self.exchanged:
            told = tell_exchanged(self.exchanged)
            said.append(
                f"Look at the labels first: {told}; if labels and columns do not count "
                "the classes in one order, nothing else counts."
            )
        if self.errors("raw") < ERRORS_NEEDED:
            wrong = n - hits
            missing = math.ceil(n * (ERRORS_TELLING / max(wrong, 1) - 1))
            verb = "is" if wrong == 1 else "are"
            said.append(
                f"Only {wrong} of {n:,} predictions {verb} wrong: nothing can be clear "
                f"before about {ERRORS_NEEDED} errors, and a twofold exaggeration is "
                f"mostly clear from about {ERRORS_TELLING}, so bring some {missing:,} "
                "samples more."
            )
        return said

    def _what_to_do(
        self,
        name: str,
        reference: str,
        rows: Mapping[str, AdviceRow],
        calibrator: Calibrator,
    ) -> str:
        """The advice itself."""
        things = self.form.things
        criterion = self.choose_by.upper()
        if name == "raw" and self.at_chance:
            return f"The {things} stay as they are."
        if name == "raw":
            return f"Leave the {things} as they are: no calibrator is clearly better."
        row = rows[name]
        before = rows["raw" if name == "ts_nll" else reference]
        numbers = (
            f"NLL {before.nll:.4f} to {row.nll:.4f}, ECE {100 * before.ece:.2f} to "
            f"{100 * row.ece:.2f} %, cross-validated"
        )
        if name == "ts_nll":
            temperature = float(calibrator.get_buffer("temperature"))
            return (
                f"Use {self.form.scale}, T = {temperature:.3f} (ts_nll): clearly "
                f"better by {criterion} than the {things} as they are ({numbers}), and "
                "nothing is clearly better than that."
            )
        return (
            f"Use {row.label} ({name}): clearly better by {criterion} than "
            f"{self.form.labels[reference]} ({numbers})."
        )

    def _disagreement(
        self, name: str, rival: str, other: str, rows: Mapping[str, AdviceRow]
    ) -> str:
        """What the other criterion would choose, and what each choice buys."""
        ours = rows[name]
        theirs = rows[rival]
        ece = f"ECE {100 * ours.ece:.2f} to {100 * theirs.ece:.2f} %"
        nll = f"NLL {theirs.nll - ours.nll:+.4f}"
        return (
            f"By {other.upper()} it would be {theirs.label} ({rival}): {ece}, {nll}. "
            f"{self.form.criteria}; take {rival} if {self.form.used[other]}."
        )


def _of_test(before: AdviceRow, after: AdviceRow, n_samples: int) -> str:
    """What the test samples say of the advice."""
    if after is before:
        return (
            f"On {n_samples:,} test samples: ECE {_percent(before.test_ece)} %, "
            f"NLL {before.test_nll:.4f}, error {_percent(before.test_error)} %."
        )
    return (
        f"On {n_samples:,} test samples, which had no say: "
        f"ECE {_percent(before.test_ece)} to {_percent(after.test_ece)} %, "
        f"NLL {before.test_nll:.4f} to {after.test_nll:.4f}, "
        f"error {_percent(before.test_error)} to {_percent(after.test_error)} %."
    )


def _ece(judged: _Judged) -> float:
    """ECE in 20 bins."""
    return float(np.abs(judged.gaps.sum(0)).sum() / len(judged.confidence))


def _percent(value: float | None) -> str:
    """A fraction in percent."""
    return "" if value is None else f"{100 * value:.2f}"


def _normal_quantile(p: float) -> float:
    """The standard normal's quantile."""
    return float(torch.special.ndtri(torch.tensor(p, dtype=torch.float64)))
