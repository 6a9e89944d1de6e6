"""How often does ``advise`` say "clearly" of honest models, and how soon of others?

``python benchmarks/advice.py`` writes ``benchmarks/results/advice.md``. An honest
model's labels are drawn from its own softmax, so that nothing is better than its
logits; its logits are made so sharp that few errors are expected. The second table asks
how many errors it takes until an exaggerating model (the same logits times two) is told
so. Without ``isotonic`` and ``sms``, which take longest.
"""

import datetime
import multiprocessing
import os
import warnings
from concurrent.futures import ProcessPoolExecutor

os.environ["OMP_NUM_THREADS"] = "1"

import _timing
import numpy as np
import torch

from gcelib.advice.forms import logits_form
from gcelib.advice.judging import ERRORS_NEEDED, Part
from gcelib.advice.study import Study
from gcelib.blocks import rounding_of
from gcelib.calibration import CALIBRATORS

SIZES = (300, 1000, 5000)
CRITERIA = ("nll", "ece")
EXPECTED = (0.3, 1, 2, 4, 7, 10, 14)
GROUPS = {"0": range(1), "1 to 3": range(1, 4), "4 to 10": range(4, 11)}
DRAWS = {"0": 120, "1 to 3": 120, "4 to 10": 120}
EXAGGERATING = (5, 10, 20, 40)
POWER_DRAWS = {300: 40, 1000: 30, 5000: 15}
N_CLASSES = 10


def sharpened(rng, n, errors):
    """Logits (n, 10) whose softmax expects so many errors."""
    base = rng.normal(size=(n, N_CLASSES))
    base[np.arange(n), rng.integers(0, N_CLASSES, n)] += 1 + 3 * rng.random(n)
    low, high = 0.1, 1e4
    for _ in range(25):
        middle = np.sqrt(low * high)
        p = torch.from_numpy(middle * base).softmax(1).amax(1)
        low, high = (middle, high) if float((1 - p).sum()) > errors else (low, middle)
    return middle * base


def drawn(rng, z):
    """Labels from softmax(z)."""
    return (z + rng.gumbel(size=z.shape)).argmax(1)


def study_of(z, labels, seed):
    """The cross-validation that ``advise`` rests on."""
    logits = torch.from_numpy(z)
    part = Part(logits, torch.from_numpy(labels), rounding_of(logits))
    return Study(
        part,
        logits_form(),
        model_classes=N_CLASSES,
        choose_by="nll",
        folds=5,
        seed=seed,
    )


def highest_rate(hits, total):
    """The upper end of the one-sided 95 % Clopper-Pearson interval of hits / total."""
    from scipy import stats

    return stats.beta.ppf(0.95, hits + 1, total - hits) if hits < total else 1.0


def counted(hits, total):
    """How a cell reads."""
    return f"{hits} of {total}"


def false_alarms(rng, n):
    """How many honest models of each group are told "clearly", and of how many.

    ``{(criterion, group): [hits, total]}``; the group "let through" holds those of all
    groups in which ten errors were seen or expected, so that there was a choice: of the
    others ``advise`` looks at nothing else, and nothing is fitted here.
    """
    found = {(c, g): [0, 0] for c in CRITERIA for g in (*GROUPS, "let through")}
    draw = 0
    while any(found["nll", g][1] < DRAWS[g] for g in GROUPS):
        z = sharpened(rng, n, EXPECTED[draw % len(EXPECTED)])
        labels = drawn(rng, z)
        draw += 1
        errors = int((z.argmax(1) != labels).sum())
        group = next((g for g, counts in GROUPS.items() if errors in counts), None)
        if group is None or found["nll", group][1] == DRAWS[group]:
            continue
        confidence = torch.from_numpy(z).softmax(1).amax(1)
        groups = [group]
        study = None
        if max(errors, float((1 - confidence).sum())) >= ERRORS_NEEDED:
            groups.append("let through")
            study = study_of(z, labels, draw)
        for criterion in CRITERIA:
            told = study is not None and study.choose(criterion)[0] != "raw"
            for g in groups:
                found[criterion, g][0] += told
                found[criterion, g][1] += 1
    return found


def rows_of_false_alarms(n, found):
    """A line of the first table for each criterion."""
    rows = []
    for criterion in CRITERIA:
        cells = [found[criterion, g] for g in GROUPS]
        hits, total = (sum(column) for column in zip(*cells, strict=True))
        chosen = found[criterion, "let through"]
        rows.append(
            [
                f"{n:,} by {criterion.upper()}",
                *(counted(*cell) for cell in cells),
                f"{100 * highest_rate(hits, total):.1f} %",
                counted(*chosen),
                f"{100 * highest_rate(*chosen):.1f} %",
            ]
        )
    return rows


def row_of_power(rng, n):
    """How many models that exaggerate twofold are told so, by errors expected."""
    cells = []
    for errors in EXAGGERATING:
        hits = 0
        for draw in range(POWER_DRAWS[n]):
            z = sharpened(rng, n, errors)
            study = study_of(2 * z, drawn(rng, z), draw)
            hits += study.choose("nll")[0] != "raw"
        cells.append(counted(hits, POWER_DRAWS[n]))
    return [f"{n:,}", *cells]


def measured(n):
    """The lines of both tables for one number of samples."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("isotonic", "sms"):
        CALIBRATORS.pop(name, None)
    rng = np.random.default_rng(n)
    return rows_of_false_alarms(n, false_alarms(rng, n)), row_of_power(rng, n)


def main():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(SIZES), mp_context=context) as pool:
        found = list(pool.map(measured, SIZES))
    rows = [row for of_size, _ in found for row in of_size]
    header = ["samples", *(f"{g} errors" for g in GROUPS), "at most"]
    header += ["ten seen or expected", "at most"]
    power = [row for _, row in found]
    text = [
        f"Measured {datetime.date.today()}, gcelib {_timing.version('gcelib')}, torch "
        f"{torch.__version__}; {N_CLASSES} classes, five folds.",
        "",
        "Honest models with 0 to 10 errors: how many are told that a calibrator is",
        'clearly better, which is wrong. "At most": upper end of the one-sided 95 %',
        "Clopper-Pearson interval, of all draws of the line, then of those in which",
        "ten errors were seen or expected; of the others nothing is ever clear.",
        "",
        _timing.table(header, rows),
        "",
        "Models that exaggerate twofold, by the number of errors to be expected:",
        "how many are told so by NLL, which is right.",
        "",
        _timing.table(["samples", *(f"{e} errors" for e in EXAGGERATING)], power),
    ]
    _timing.publish("advice", "\n".join(text))


if __name__ == "__main__":
    main()
