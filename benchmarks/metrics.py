"""Calibration metrics, ours beside every peer that is installed.

``python benchmarks/metrics.py`` writes ``benchmarks/results/metrics.md``. ``--quick``
measures fewer rounds and leaves out 50,000 x 1000. Peers: ``pip install torchmetrics
netcal torch-uncertainty probmetrics relplot``.
"""

import argparse
import datetime
import functools
import os
import sys
import warnings

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before the libraries start

import _timing
import numpy as np
import torch

from gcelib import blocks, metrics
from gcelib.blocks import rounding

N_BINS = 20
SIZES = ((10_000, 10), (10_000, 100), (10_000, 200), (50_000, 1000))


def sample(n, k):
    """Float32 logits of a classifier that is right about three times in four, and
    somewhat overconfident."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(n, k, generator=rng).mul_(2)
    labels = torch.randint(k, (n,), generator=rng)
    logits[torch.arange(n), labels] += 2 * (2 * np.log(k)) ** 0.5 + 2
    return logits, labels


def peers_ece(z, y, k):
    def torchmetrics():
        from torchmetrics.functional.classification import multiclass_calibration_error

        return lambda: multiclass_calibration_error(
            z, y, k, N_BINS, validate_args=False
        )

    def netcal():
        from netcal.metrics import ECE

        metric = ECE(N_BINS)
        return lambda: metric.measure(z.softmax(1).numpy(), y.numpy())

    def torch_uncertainty():
        from torch_uncertainty.metrics import CalibrationError

        def call():
            metric = CalibrationError(
                "multiclass", num_bins=N_BINS, num_classes=k, validate_args=False
            )
            metric.update(z.softmax(1), y)
            return metric.compute()

        return call

    def probmetrics():
        from probmetrics.metrics import CalibrationError

        metric = CalibrationError(N_BINS)
        return lambda: metric.compute_from_labels_logits(y, z)

    def relplot():
        from relplot.metrics import binnedECE, multiclass_logits_to_confidences

        return lambda: binnedECE(
            *multiclass_logits_to_confidences(z.numpy(), y.numpy()), nbins=N_BINS
        )

    return (torchmetrics, netcal, torch_uncertainty, probmetrics, relplot)


def peers_adaptive_ece(z, y, k):
    def netcal():
        from netcal.metrics import ECE

        metric = ECE(N_BINS, equal_intervals=False)
        return lambda: metric.measure(z.softmax(1).numpy(), y.numpy())

    def torch_uncertainty():
        from torch_uncertainty.metrics import AdaptiveCalibrationError

        def call():
            metric = AdaptiveCalibrationError(
                "multiclass", num_bins=N_BINS, num_classes=k, validate_args=False
            )
            metric.update(z.softmax(1), y)
            return metric.compute()

        return call

    return (netcal, torch_uncertainty)


def peers_classwise_ece(z, y, k):
    def torch_uncertainty():
        from torch_uncertainty.metrics import ClasswiseCalibrationError

        def call():
            metric = ClasswiseCalibrationError(k, N_BINS)
            metric.update(z.softmax(1), y)
            return metric.compute()

        return call

    def torchmetrics_in_a_loop():
        from torchmetrics.functional.classification import binary_calibration_error

        def call():
            p = z.softmax(1)
            return (
                sum(
                    binary_calibration_error(
                        p[:, c], y == c, N_BINS, validate_args=False
                    )
                    for c in range(k)
                )
                / k
            )

        return call

    def relplot_in_a_loop():
        from relplot.metrics import binnedECE

        def call():
            p, labels = z.softmax(1).numpy(), y.numpy()
            return sum(binnedECE(p[:, c], labels == c, N_BINS) for c in range(k)) / k

        return call

    return (torch_uncertainty, torchmetrics_in_a_loop, relplot_in_a_loop)


PEERS = {
    "ece": peers_ece,
    "adaptive_ece": peers_adaptive_ece,
    "classwise_ece": peers_classwise_ece,
}
PACKAGES = ("torchmetrics", "netcal", "torch-uncertainty", "probmetrics", "relplot")


def contenders(metric, z, y, k):
    """``{name: call}`` of ours and of the peers that can be imported."""
    ours = getattr(metrics, metric)
    calls = {"gcelib": lambda: ours(z, y, N_BINS)}
    for make in PEERS[metric](z, y, k):
        try:
            calls[make.__name__] = make()
        except ImportError as missing:
            print(f"{metric}: left out {make.__name__} ({missing})", file=sys.stderr)
    return calls


def memory(metric, name):
    """Print by how many MiB one call at 50,000 x 1000 raises the peak of this process
    (inputs not counted)."""
    n, k = SIZES[-1]
    contenders(metric, *sample(100, k), k)[name]()  # code, caches and allocator warm
    z, y = sample(n, k)
    call = contenders(metric, z, y, k)[name]
    before = _timing.peak_mib()
    call()
    print(_timing.peak_mib() - before)


def show(name):
    return name.replace("_in_a_loop", ", its binary ECE in a loop").replace(
        "torch_uncertainty", "torch-uncertainty"
    )


def best(times, names):
    return min(names, key=lambda name: _timing.median(times, name), default=None)


def compare(metric, sizes, rounds, with_memory):
    """The table of one metric: a row a contender, then the ratios."""
    rows = {}
    loops = {}
    for n, k in sizes:
        calls = contenders(metric, *sample(n, k), k)
        times = _timing.interleaved(calls, rounds=rounds if k < 1000 else 5)
        for name in calls:
            rows.setdefault(name, [show(name)]).append(
                f"{1000 * _timing.median(times, name):.3g} ms"
            )
        offered = [
            name for name in calls if name != "gcelib" and not name.endswith("loop")
        ]
        for label, names in (
            ("*best peer / gcelib*", offered),
            ("*best loop / gcelib*", set(calls) - {*offered, "gcelib"}),
        ):
            if names:
                ratio = _timing.ratio(times, best(times, sorted(names)), "gcelib")
                loops.setdefault(label, [label]).append(f"**{ratio:.2f}**")
    if with_memory:
        for name, row in rows.items():
            used = _timing.extra_memory(__file__, metric, name)
            row.append("failed" if used is None else f"{used:.1f} MiB")
        for row in loops.values():
            row.append("")
    header = [
        f"`{metric}`",
        *(f"{n // 1000}k x {k}" for n, k in sizes),
        "extra memory, 50k x 1000",
    ]
    return _timing.table(
        header[: len(next(iter(rows.values())))], [*rows.values(), *loops.values()]
    )


def checks():
    """By how many percent each metric is faster at 10k x 100 if no input is checked:
    shapes, dtypes, labels, values."""
    z, y = sample(10_000, 100)
    kept = metrics._read, blocks._surely_finite

    def unchecked(metric):
        metrics._read = lambda logits, labels, probabilities: metrics.Scores(
            logits, labels, probabilities, rounding(logits.dtype)
        )
        blocks._surely_finite = lambda scores: True
        try:
            metric(z, y)
        finally:
            metrics._read, blocks._surely_finite = kept

    shares = {}
    for metric in (*PEERS, "nll", "brier", "evaluate"):
        ours = getattr(metrics, metric)
        calls = {
            "checked": functools.partial(ours, z, y),
            "not": functools.partial(unchecked, ours),
        }
        shares[metric] = 100 * (
            1
            - 1
            / _timing.ratio(_timing.interleaved(calls, rounds=301), "checked", "not")
        )
    return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds and sizes, printed only"
    )
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if options.memory:
        return memory(*options.memory)
    versions = ", ".join(
        f"{p} {_timing.version(p) or '(not installed)'}" for p in PACKAGES
    )
    text = [
        f"Measured {datetime.date.today()} on {_timing.processor()}: one thread, CPU",
        f"time, {N_BINS} bins, float32. Contenders take turns in one process and start",
        "from logits. Shown are medians over the rounds; ratios are medians of the",
        "ratios within a round (who takes over 10 s is called once). Memory: how far",
        "one call raises the peak of a fresh process.",
        "",
        f"gcelib {_timing.version('gcelib')}, torch {torch.__version__}, "
        f"numpy {np.__version__}; peers: {versions}.",
    ]
    sizes, rounds = (SIZES[:-1], 5) if options.quick else (SIZES, 15)
    for metric in PEERS:
        text += ["", compare(metric, sizes, rounds, not options.quick)]
    shares = ", ".join(
        f"`{metric}` {share:.1f} %" for metric, share in checks().items()
    )
    text += [
        "",
        "The part of its time that each metric spends on checking the input, at "
        f"10k x 100: {shares}.",
    ]
    if options.quick:
        print("\n".join(text))
    else:
        _timing.publish("metrics", "\n".join(text))


if __name__ == "__main__":
    main()
