"""Metrics, a meter's batch and a temperature where the logits already lie on a GPU.

``python benchmarks/device.py`` writes ``benchmarks/results/device.md``. ``--device cpu
--quick`` goes through the same code in a few seconds. Peer: ``pip install
torchmetrics``, which stays on the device as well. A time is wall clock, and ends when
the device has finished.
"""

import argparse
import datetime
import functools
import importlib.util
import os
import sys
import time
from pathlib import Path

# A lent machine need not install gcelib.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import _timing
import torch

from gcelib import CalibrationMeter, evaluate, make_calibrator, metrics

N_BINS = 20
SIZES = ((10_000, 10), (10_000, 100), (50_000, 1000))
BATCH = 1024
ROUNDS = 11


def sample(n, k):
    """Float32 logits of a classifier that is right about three times in four."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(n, k, generator=rng).mul_(2)
    labels = torch.randint(k, (n,), generator=rng)
    logits[torch.arange(n), labels] += 2 * float(torch.tensor(k).log().mul(2).sqrt())
    return logits, labels


def finished(call, device):
    """``call`` that ends when the device has done it."""

    def whole():
        value = call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return value

    return whole


def epoch_of(meter, logits, labels):
    """A meter's numbers after batches of ``BATCH``."""
    for rows in torch.arange(len(labels)).split(BATCH):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        meter.update(logits[part], labels[part])
    return meter.compute()


def torchmetrics_of(k):
    """Torchmetrics' accuracy and ECE, fed in batches, which keeps all confidences."""
    from torchmetrics import MetricCollection
    from torchmetrics.classification import (
        MulticlassAccuracy,
        MulticlassCalibrationError,
    )

    options = {"num_classes": k, "validate_args": False}
    return MetricCollection(
        MulticlassAccuracy(**options, average="micro"),
        MulticlassCalibrationError(**options, n_bins=N_BINS),
        compute_groups=False,
    )


def peer_ece(logits, labels):
    """Torchmetrics' ECE of all samples at once."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    return multiclass_calibration_error(
        logits, labels, logits.shape[1], N_BINS, validate_args=False
    )


def contenders(logits, labels, device, with_peer):
    """What is timed: name -> call."""
    k = logits.shape[1]
    here = logits.to(device), labels.to(device)
    calls = {
        "`ece`": functools.partial(metrics.ece, *here, N_BINS),
        "`adaptive_ece`": functools.partial(metrics.adaptive_ece, *here, N_BINS),
        "`classwise_ece`": functools.partial(metrics.classwise_ece, *here, N_BINS),
        "`nll`": functools.partial(metrics.nll, *here),
        "`evaluate`": functools.partial(evaluate, *here, N_BINS),
        "`evaluate`, the logits fetched to the CPU first": lambda: evaluate(
            here[0].cpu(), here[1].cpu(), N_BINS
        ),
        "`CalibrationMeter`, an epoch": lambda: epoch_of(
            CalibrationMeter(k, N_BINS), *here
        ),
        "a temperature (`ts_nll`)": lambda: make_calibrator("ts_nll").fit(*here),
    }
    if with_peer:
        calls["torchmetrics: ECE"] = functools.partial(peer_ece, *here)
        calls["torchmetrics: accuracy and ECE, an epoch"] = lambda: epoch_of(
            torchmetrics_of(k).to(device), *here
        )
    return {name: finished(call, device) for name, call in calls.items()}


def agree(logits, labels, device):
    """An error unless the device says what the CPU says."""
    expected = evaluate(logits, labels, N_BINS)
    found = evaluate(logits.to(device), labels.to(device), N_BINS)
    for name, value in expected.items():
        assert abs(found[name] - value) < 1e-6, (name, found[name], value)


def main(arguments=None):
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="shows that all runs")
    parser.add_argument("--out", type=Path, default=_timing.RESULTS)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here; --device cpu --quick goes through the same code")
    sizes = ((300, 10),) if options.quick else SIZES
    with_peer = importlib.util.find_spec("torchmetrics") is not None
    columns = []
    for n, k in sizes:
        logits, labels = sample(n, k)
        agree(logits, labels, device)
        calls = contenders(logits, labels, device, with_peer)
        rounds = 1 if options.quick else ROUNDS
        times = _timing.interleaved(calls, 0, rounds, clock=time.perf_counter)
        columns.append({name: _timing.median(times, name) for name in calls})
    rows = [
        [name, *(f"{1e3 * column[name]:.3g}" for column in columns)]
        for name in columns[0]
    ]
    header = ["milliseconds", *(f"{n:,} x {k}" for n, k in sizes)]
    card = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {_timing.processor()}"
    )
    peer = f", torchmetrics {_timing.version('torchmetrics')}" if with_peer else ""
    text = f"""# Metrics of logits that lie on a GPU

`python benchmarks/device.py`, {datetime.date.today()}, {card}, {os.cpu_count()} cores,
{torch.get_num_threads()} threads, torch {torch.__version__}{peer}. Float32, {N_BINS}
bins, wall clock, medians over {rounds} rounds in which all take turns. Batches of an
epoch hold {BATCH} samples. Before, `evaluate` was seen to say on the device what it
says on the CPU, to 1e-6.

{_timing.table(header, rows)}
"""
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "device.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
