"""How often does ``advise`` say "clearly" of honest models?

``python benchmarks/advice.py`` writes ``benchmarks/results/advice.md``. An honest
model's labels are drawn from its own softmax, so that nothing is better than its
logits; its logits are made so sharp that few errors are expected. The second table asks
how many errors it takes until an exaggerating model (the same logits times two) is told
so. Without ``isotonic`` and ``sms``, which take longest.
"""

import datetime
import os
import warnings
from collections import defaultdict

os.environ["OMP_NUM_THREADS"] = "1"

import _timing
import numpy as np
import torch

from gcelib import advice
from gcelib.calibration import CALIBRATORS

SIZES = (300, 1000, 5000)
EXPECTED = (1, 2, 4, 7, 10)
EXAGGERATING = (5, 10, 20, 40)
DRAWS = {300: 60, 1000: 40, 5000: 12}
N_CLASSES = 10


def sharpened(rng, n, errors):
    """Logits (n, 10) whose softmax expects so many errors."""
    base = rng.normal(size=(n, N_CLASSES))
    base[np.arange(n), rng.integers(0, N_CLASSES, n)] += 1 + 3 * rng.random(n)
    low, high = 0.1, 100.0
    for _ in range(40):
        middle = np.sqrt(low * high)
        p = torch.from_numpy(middle * base).softmax(1).amax(1)
        low, high = (middle, high) if float((1 - p).sum()) > errors else (low, middle)
    return middle * base


def drawn(rng, z):
    """Labels from softmax(z)."""
    return (z + rng.gumbel(size=z.shape)).argmax(1)


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("isotonic", "sms"):
        CALIBRATORS.pop(name, None)
    rng = np.random.default_rng(0)
    false = {criterion: defaultdict(lambda: [0, 0]) for criterion in ("nll", "ece")}
    for n in SIZES:
        for errors in EXPECTED:
            for draw in range(DRAWS[n]):
                z = sharpened(rng, n, errors)
                labels = drawn(rng, z)
                seen = int((z.argmax(1) != labels).sum())
                if seen > 10:
                    continue
                pair = torch.from_numpy(z), torch.from_numpy(labels)
                study = advice._Study(*pair, "nll", 5, draw)
                group = "0" if seen == 0 else "1 to 3" if seen < 4 else "4 to 10"
                for criterion, table in false.items():
                    table[n, group][0] += study.choose(criterion)[0] != "raw"
                    table[n, group][1] += 1
    groups = ("0", "1 to 3", "4 to 10")
    rows = []
    for n in SIZES:
        cells = [false[c][n, g] for c in ("nll", "ece") for g in groups]
        rows.append([f"{n:,}", *(f"{hits} of {total}" for hits, total in cells)])
    header = [
        "samples",
        *(f"by {c.upper()}, {g} errors" for c in false for g in groups),
    ]

    power = []
    for n in SIZES:
        cells = []
        for errors in EXAGGERATING:
            hits = 0
            for draw in range(DRAWS[n] // 2):
                z = sharpened(rng, n, errors)
                pair = torch.from_numpy(2 * z), torch.from_numpy(drawn(rng, z))
                hits += advice._Study(*pair, "nll", 5, draw).choose("nll")[0] != "raw"
            cells.append(f"{hits} of {DRAWS[n] // 2}")
        power.append([f"{n:,}", *cells])
    text = [
        f"Measured {datetime.date.today()}, gcelib {_timing.version('gcelib')}, torch "
        f"{torch.__version__}; {N_CLASSES} classes, five folds.",
        "",
        "Honest models with 0 to 10 errors: how many draws are told that a calibrator",
        "is clearly better, which is wrong.",
        "",
        _timing.table(header, rows),
        "",
        "Models that exaggerate twofold, by the number of errors expected: how many",
        "draws are told so by NLL, which is right.",
        "",
        _timing.table(["samples", *(f"{e} errors" for e in EXAGGERATING)], power),
    ]
    _timing.publish("advice", "\n".join(text))


if __name__ == "__main__":
    main()
