"""The cross-validation, and the rule that chooses."""

import functools
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gcelib import _check
from gcelib.advice import words
from gcelib.advice.forms import Form
from gcelib.advice.judging import (
    ERRORS_NEEDED,
    FALSE_ALARMS,
    Change,
    Judged,
    Part,
    basic_interval,
    ece_of,
    interval_of_mean,
    judge,
    most_by_chance,
    resampled_eces,
)
from gcelib.advice.result import Advice, AdviceRow
from gcelib.bins import Floats
from gcelib.blocks import rounding_of
from gcelib.calibration import TemperatureScaling, make_calibrator
from gcelib.calibrator import Calibrator, are_unrelated, exchanged_classes

#: So many right and wrong predictions tell whether confidences know which are which.
_MANY_ERRORS = 50

RESAMPLES = 400
#: How ``temperature.warn_of_bound`` begins.
_AT_AN_END = "temperature: ended at"


class Study:
    """The cross-validation, what it found, and the sentence that says it."""

    def __init__(
        self,
        part: Part,
        form: Form,
        model_classes: int | None,
        choose_by: str,
        folds: int,
        seed: int,
    ) -> None:
        self.logits = part.logits
        self.labels = part.labels
        self.form = form
        self.model_classes = model_classes
        self.choose_by = choose_by
        self.folds = folds
        self.rng = np.random.default_rng(seed)
        self.names = [name for name in form.labels if name != "raw"]
        #: Calibrators whose temperature ended at the end of its range in a fold.
        self.at_an_end: set[str] = set()
        self.held_out = self._cross_validate()
        self.judged = {"raw": self.judge(part)}
        for name in self.names:
            self.judged[name] = self.judge_output(self.held_out[name], self.labels)
        self.noise = {name: self._noise(judged) for name, judged in self.judged.items()}
        self.ece_draws = resampled_eces(self.judged, self.rng, RESAMPLES)
        self.eces = {name: draws[0] for name, draws in self.ece_draws.items()}

    def judge(self, part: Part) -> Judged:
        """Each sample as the model has it."""
        return judge(part, self.form.top)

    def judge_output(self, logits: Tensor, labels: Tensor) -> Judged:
        """Each sample under a calibrator, whose output is as rounded as its type."""
        return self.judge(Part(logits, labels, rounding_of(logits)))

    def _cross_validate(self) -> dict[str, Tensor]:
        """Every sample calibrated by fits that have not seen it."""
        order = self.rng.permutation(len(self.labels))
        held_out = {name: torch.empty_like(self.logits) for name in self.names}
        for part in np.array_split(order, self.folds):
            rest = np.setdiff1d(order, part)
            for name in self.names:
                with _check.collected() as messages:
                    fitted = make_calibrator(name).fit(
                        self.logits[rest], self.labels[rest]
                    )
                    with torch.no_grad():
                        held_out[name][part] = fitted(self.logits[part])
                # All else the fit on all samples says once.
                if any(message.startswith(_AT_AN_END) for message in messages):
                    self.at_an_end.add(name)
        return {"raw": self.logits, **held_out}

    def _noise(self, judged: Judged) -> Floats:
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
        if self.model_classes is None:
            return False
        chance = len(self.labels) / self.model_classes
        return bool(self.judged["raw"].correct.sum() <= chance)

    @functools.cached_property
    def is_unrelated(self) -> bool:
        """Whether the labels would be as probable in any other order."""
        return self.are_unrelated_in(self.logits, self.labels)

    def are_unrelated_in(self, logits: Tensor, labels: Tensor) -> bool:
        """Whether the labels of a part would be as probable in any other order.

        Of confidences, which know little of which predictions are wrong, this can be
        said where enough are.
        """
        if self.form.top is None:
            is_right = bool((logits.argmax(1) == labels).all())
            return not is_right and are_unrelated(logits, labels)
        n_fewer = int(torch.bincount(labels, minlength=2).min())
        return n_fewer >= _MANY_ERRORS and are_unrelated(logits, labels)

    def nll_change(self, name: str, reference: str, tries: int) -> Change:
        """The difference in NLL and the ends of its interval."""
        differences = self.judged[name].nll - self.judged[reference].nll
        return interval_of_mean(differences, FALSE_ALARMS / tries)

    def ece_change(self, name: str, reference: str, tries: int) -> Change:
        """The difference in ECE and the ends of its basic bootstrap interval."""
        differences = self.ece_draws[name] - self.ece_draws[reference]
        return basic_interval(differences, FALSE_ALARMS / tries)

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
            return bool(change.high < 0 and gain >= math.log(tries / FALSE_ALARMS))
        change = self.ece_change(name, reference, tries)
        limit = np.quantile(self.noise[reference], 1 - FALSE_ALARMS)
        return bool(change.high < 0 and self.eces[reference] > limit)

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
        return interval_of_mean(lost, FALSE_ALARMS / len(self.names)).low > 0

    def values(self, criterion: str) -> dict[str, float]:
        """NLL or ECE of each calibrator."""
        return self._nlls() if criterion == "nll" else self.eces

    def _nlls(self) -> dict[str, float]:
        """Mean NLL of every calibrator."""
        return {name: float(judged.nll.mean()) for name, judged in self.judged.items()}

    # --- the answer -------------------------------------------------------------

    def advice(self, test: Part | None, again: str | None = "") -> Advice:
        """Choose, fit on everything, report.

        ``again`` of the test samples are among those that calibrators are fitted on;
        None: nobody knows.
        """
        name, reference = self.choose(self.choose_by)
        calibrator = self._fit(name)
        on_test = self._test(test, {name: calibrator})
        rows = tuple(self._row(each, reference, on_test) for each in self.judged)
        said = words.sentences(self, name, reference, rows, test, again, calibrator)
        if test is None:
            before = self.logits
            after = self.held_out[name]
            labels = self.labels
        else:
            before, labels, _ = test
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
        one = torch.tensor(1.0, dtype=torch.float64)
        n_classes = torch.tensor(self.logits.shape[1])
        identity.load_state_dict({"temperature": one, "n_classes": n_classes})
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
        self, test: Part | None, fitted: Mapping[str, Calibrator]
    ) -> dict[str, Judged]:
        """Every calibrator on the test samples, fitted on all of validation."""
        if test is None:
            return {}
        judged = {"raw": self.judge(test)}
        with _check.collected(), torch.no_grad():
            for name in self.names:
                calibrator = fitted[name] if name in fitted else self._fit(name)
                calibrated = calibrator(test.logits)
                judged[name] = self.judge_output(calibrated, test.labels)
        return judged

    def _row(
        self, name: str, reference: str, on_test: Mapping[str, Judged]
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
            ece_low=ece.low - most_by_chance(judged),
            ece_high=ece.high + most_by_chance(self.judged[reference]),
            clearly_by_nll=self.clearly("nll", name, reference, tries),
            clearly_by_ece=self.clearly("ece", name, reference, tries),
            test_error=None if test is None else float(1 - test.correct.mean()),
            test_nll=None if test is None else float(test.nll.mean()),
            test_ece=None if test is None else ece_of(test),
        )
