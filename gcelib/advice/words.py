"""The sentence that says what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gcelib import _check
from gcelib.advice.judging import (
    ERRORS_NEEDED,
    ERRORS_TELLING,
    FALSE_ALARMS,
    Part,
    interval_of_mean,
)
from gcelib.advice.result import AdviceRow
from gcelib.calibrator import Calibrator, exchanged_classes, tell_exchanged

if TYPE_CHECKING:
    from gcelib.advice.study import Study

#: So much of the error (10 points) is mended by no calibrator of labels that are right
#: and classes as frequent as in training.
_LARGE_GAIN = 0.1
#: A difference in error of which is spoken where two calibrators are weighed.
_TOLD = 0.005


def sentences(
    study: Study,
    name: str,
    reference: str,
    rows: tuple[AdviceRow, ...],
    test: Part | None,
    again: str | None,
    calibrator: Calibrator,
) -> list[str]:
    """What a busy person should know, most urgent first."""
    by_name = {row.name: row for row in rows}
    to_do = _what_to_do(study, name, reference, by_name, calibrator)
    said = [*_of_test_labels(study, test), *_of_labels(study)]
    impossible = _of_impossible(study, test)
    if name == "raw":  # then they may be why nothing is clear
        said.extend(impossible)
    said.append(to_do)
    row = by_name[name]
    said.extend(_of_gains(study, name, by_name))
    said.extend(_of_costs(study, name, reference, by_name))
    said.extend(_of_rivals(study, name, rows))
    said.extend(_of_ends(study))
    relation = "within" if row.ece <= row.ece_noise else "more than"
    said.append(
        f"The ECE that is left, {100 * row.ece:.2f} %, is {relation} the noise of "
        f"{len(study.labels):,} samples (95 of 100 calibrated models show less than "
        f"{100 * row.ece_noise:.2f} %)."
    )
    if test is not None:
        said.append(_of_test(by_name["raw"], row, len(test.labels), again))
    if name != "raw":
        said.extend(impossible)
    if study.form.top is not None:
        tried = ", ".join(f"{study.form.labels[n]} ({n})" for n in study.names)
        said.append(
            f"Tried was what acts on a confidence alone: {tried}. Predictions and "
            "error stay as they are; NLL is that of right and wrong."
        )
    return said


def _of_gains(study: Study, name: str, rows: Mapping[str, AdviceRow]) -> list[str]:
    """Many predictions that a calibrator mends, as calibration alone does not."""
    before = rows["raw"]
    best = min(rows.values(), key=lambda row: row.error)
    if _mends_many(study, before, rows[name]):
        mended = rows[name]
        which = "It"
    elif not study.at_chance and _mends_many(study, before, best):
        mended = best
        which = f"{best.label} ({best.name})"
    else:
        return []
    return [
        f"{which} makes {100 * before.error:.2f} % errors {100 * mended.error:.2f} %: "
        "either the classes' shares are others than in training, or labels and "
        "columns do not count the classes in one order; look at that first."
    ]


def _mends_many(study: Study, before: AdviceRow, after: AdviceRow) -> bool:
    """Whether a tenth of the predictions is mended, and not by chance."""
    if before.error - after.error < _LARGE_GAIN or study.exchanged:
        return False
    was_right, is_right = (study.judged[r.name].correct for r in (before, after))
    mended = is_right.astype(float) - was_right.astype(float)
    return interval_of_mean(mended, FALSE_ALARMS / len(study.names)).low > 0


def _of_costs(
    study: Study, name: str, reference: str, rows: Mapping[str, AdviceRow]
) -> list[str]:
    """What would have been advised if it did not cost predictions."""
    if study.at_chance:
        return []
    value = study.values(study.choose_by)
    found = [
        other
        for other in study.names
        if value[other] < value[name]
        and study.costs_accuracy(other)
        and study.clearly(study.choose_by, other, reference, len(study.names))
    ]
    if not found:
        return []
    best = rows[min(found, key=lambda other: value[other])]
    return [
        f"Not advised is {best.label} ({best.name}), though clearly better by "
        f"{study.choose_by.upper()}: it makes more predictions wrong, "
        f"{100 * best.error:.2f} for {100 * rows['raw'].error:.2f} %."
    ]


def _of_rivals(study: Study, name: str, rows: tuple[AdviceRow, ...]) -> list[str]:
    """Which other calibrator the other measure, or the smallest ECE, speaks for."""
    if study.at_chance:
        return []
    by_name = {row.name: row for row in rows}
    row = by_name[name]
    ece_is_noise = row.ece <= row.ece_noise
    other = "ece" if study.choose_by == "nll" else "nll"
    rival, _ = study.choose(other)
    if rival != name:
        if ece_is_noise and other == "ece":
            return []
        return [_disagreement(study, name, rival, other, by_name)]
    lowest = min(rows, key=lambda row: row.ece)
    if ece_is_noise or lowest.name == name:
        return []
    smallest = (
        f"The smallest ECE, {100 * lowest.ece:.2f} %, is that of "
        f"{lowest.label} ({lowest.name}), at NLL {lowest.nll - row.nll:+.4f}"
    )
    if study.costs_accuracy(lowest.name):
        return [
            f"{smallest}, which makes more predictions wrong, "
            f"{100 * lowest.error:.2f} for {100 * by_name['raw'].error:.2f} %."
        ]
    return [
        f"{smallest}: one calibrator of {len(study.names)} always has the smallest, "
        "and this is not clear. More samples would tell."
    ]


def _of_ends(study: Study) -> list[str]:
    """Calibrators whose temperature ended where its search may not go on."""
    if study.at_chance or not study.at_an_end:
        return []
    ended = [
        f"{study.form.labels[n]} ({n})" for n in study.names if n in study.at_an_end
    ]
    return [
        f"The temperature of {', '.join(ended)} ended at the end of its range in "
        "cross-validation; look whether labels and logits belong together, and at the "
        "logits' scale."
    ]


def _of_impossible(study: Study, test: Part | None) -> list[str]:
    """Labels to which the model gave no probability at all, in either part."""
    parts = {"validation": study.judged["raw"]}
    if test is not None:
        parts["test"] = study.judge(test)
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


def _of_test_labels(study: Study, test: Part | None) -> list[str]:
    """Test labels at chance, or exchanged, where those of validation are not."""
    if test is None or study.at_chance:
        return []
    hits = int(study.judge(test).correct.sum())
    n = len(test.labels)
    if study.are_unrelated_in(test.logits, test.labels):
        return [
            f"Look at the test samples first: {hits:,} of {n:,} predictions are right, "
            f"and {study.form.unrelated}, unlike those of validation; do labels and "
            "samples belong together?"
        ]
    if study.model_classes is None or hits > n / study.model_classes:
        circle = []
        if study.form.top is None and not study.exchanged:
            predictions = test.logits.argmax(1).numpy()
            circle = exchanged_classes(test.labels.numpy(), predictions)
        if not circle:
            return []
        return [
            f"Look at the test samples first: {tell_exchanged(circle)}, and not so "
            "in validation; are their classes in the same order?"
        ]
    return [
        f"Look at the test samples first: {hits:,} of {n:,} predictions are right, "
        f"no more than chance (1 in {study.model_classes}), while those of "
        "validation are better; are their classes in the same order?"
    ]


def _of_labels(study: Study) -> list[str]:
    """Accuracy at chance, or too few errors."""
    n = len(study.labels)
    hits = int(study.judged["raw"].correct.sum())
    said = []
    if study.at_chance:
        why = (
            f"no more than chance (1 in {study.model_classes})"
            if study.guesses
            else f"and {study.form.unrelated}"
        )
        said.append(
            f"Look at the labels first: {hits:,} of {n:,} predictions are right, "
            f"{why}; nothing else counts until this is explained."
        )
    elif study.exchanged:
        told = tell_exchanged(study.exchanged)
        said.append(
            f"Look at the labels first: {told}; if labels and columns do not count "
            "the classes in one order, nothing else counts."
        )
    if study.errors("raw") < ERRORS_NEEDED:
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


def _temperature(value: float) -> str:
    """Three decimals; of small ones, as of cosine similarities, four digits."""
    return f"{value:.3f}" if value >= 0.1 else f"{value:.4g}"


def _what_to_do(
    study: Study,
    name: str,
    reference: str,
    rows: Mapping[str, AdviceRow],
    calibrator: Calibrator,
) -> str:
    """The advice itself."""
    things = study.form.things
    criterion = study.choose_by.upper()
    if name == "raw" and study.at_chance:
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
        temperature = _temperature(float(calibrator.get_buffer("temperature")))
        return (
            f"Use {study.form.scale}, T = {temperature} (ts_nll): clearly "
            f"better by {criterion} than the {things} as they are ({numbers}), and "
            "nothing is clearly better than that."
        )
    return (
        f"Use {row.label} ({name}): clearly better by {criterion} than "
        f"{study.form.labels[reference]} ({numbers})."
    )


def _disagreement(
    study: Study, name: str, rival: str, other: str, rows: Mapping[str, AdviceRow]
) -> str:
    """What the other criterion would choose, and what each choice buys."""
    ours = rows[name]
    theirs = rows[rival]
    ece = f"ECE {100 * ours.ece:.2f} to {100 * theirs.ece:.2f} %"
    nll = f"NLL {theirs.nll - ours.nll:+.4f}"
    values = study.values(other)
    if values[name] < values[rival]:  # a gain by both, which only one finds clear
        gain = f"NLL {theirs.nll:.4f} to {ours.nll:.4f}"
        if other == "ece":
            gain = f"ECE {100 * theirs.ece:.2f} to {100 * ours.ece:.2f} %"
        return (
            f"By {other.upper()} the gain of {name} over {theirs.label} ({rival}) is "
            f"not clear: {gain}. More samples would tell."
        )
    error = ""
    if abs(theirs.error - ours.error) >= _TOLD:
        error = f", error {100 * ours.error:.2f} to {100 * theirs.error:.2f} %"
    changes = f"{ece}, {nll}{error}"
    return (
        f"By {other.upper()} it would be {theirs.label} ({rival}): {changes}. "
        f"{study.form.criteria}; take {rival} if {study.form.used[other]}."
    )


def _of_test(
    before: AdviceRow, after: AdviceRow, n_samples: int, again: str | None
) -> str:
    """What the test samples say of the advice."""
    if after is before:
        return (
            f"On {n_samples:,} test samples: ECE {_percent(before.test_ece)} %, "
            f"NLL {before.test_nll:.4f}, error {_percent(before.test_error)} %."
        )
    say = ", which had no say"
    if again:
        say = f", of which {again} had their say"
    elif again is None:
        say = ""
    return (
        f"On {n_samples:,} test samples{say}: "
        f"ECE {_percent(before.test_ece)} to {_percent(after.test_ece)} %, "
        f"NLL {before.test_nll:.4f} to {after.test_nll:.4f}, "
        f"error {_percent(before.test_error)} to {_percent(after.test_error)} %."
    )


def _percent(value: float | None) -> str:
    """A fraction in percent."""
    return "" if value is None else f"{100 * value:.2f}"
