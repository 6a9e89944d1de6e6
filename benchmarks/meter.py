"""A batch in ``CalibrationMeter`` beside torchmetrics, which keeps every confidence.

``python benchmarks/meter.py`` writes ``benchmarks/results/meter.md``. Peer: ``pip
install torchmetrics``.
"""

import datetime
import os
import warnings

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before the libraries start

import _timing
import numpy as np
import torch
from metrics import N_BINS, sample
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from gcelib import CalibrationMeter, evaluate

SIZES = ((128, 10), (128, 100), (128, 1000), (1024, 10), (1024, 1000))
BATCHES = 40


def ours(z, y):
    """An epoch of batches, and its five numbers."""
    meter = CalibrationMeter(z.shape[1], N_BINS)
    for _ in range(BATCHES):
        meter.update(z, y)
    return meter.compute()


def theirs(z, y):
    """The same epoch in torchmetrics: accuracy and ECE."""
    options = {"num_classes": z.shape[1], "validate_args": False}
    peer = MetricCollection(
        MulticlassAccuracy(**options, average="micro"),
        MulticlassCalibrationError(**options, n_bins=N_BINS),
        compute_groups=False,
    )
    for _ in range(BATCHES):
        peer.update(z, y)
    return peer.compute()


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    rows = []
    for n, k in SIZES:
        z, y = sample(n, k)
        assert abs(ours(z, y)["ece"] - evaluate(z, y, N_BINS)["ece"]) < 1e-6
        calls = {"gcelib": lambda z=z, y=y: ours(z, y)}
        calls["torchmetrics"] = lambda z=z, y=y: theirs(z, y)
        times = _timing.interleaved(calls, rounds=15)
        each = [
            f"{1e6 * _timing.median(times, name) / BATCHES:.0f}"
            for name in ("gcelib", "torchmetrics")
        ]
        ratio = _timing.ratio(times, "gcelib", "torchmetrics")
        rows.append([f"{n} x {k}", *each, f"{ratio:.2f}"])
    header = ["batch", "gcelib (us)", "torchmetrics (us)", "ratio"]
    text = [
        f"Measured {datetime.date.today()} on {_timing.processor()}: one thread, CPU",
        f"time a batch of an epoch of {BATCHES}, the final numbers included, float32,",
        f"{N_BINS} bins; contenders take turns in one process. `CalibrationMeter`",
        "gives error, NLL, Brier, ECE and class-wise ECE from a fixed number of sums;",
        "torchmetrics' collection gives accuracy and ECE and keeps all confidences.",
        "",
        f"gcelib {_timing.version('gcelib')}, torch {torch.__version__}, "
        f"numpy {np.__version__}; torchmetrics {_timing.version('torchmetrics')}.",
        "",
        _timing.table(header, rows),
    ]
    _timing.publish("meter", "\n".join(text))


if __name__ == "__main__":
    main()
