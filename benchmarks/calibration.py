"""Fitting temperature scaling and ATS, ours beside what else fits them.

``python benchmarks/calibration.py`` writes ``benchmarks/results/calibration.md``.
``--quick`` measures fewer rounds and leaves out 10,000 x 1000. Peers: ``pip install
scikit-learn probmetrics torch-uncertainty netcal`` (netcal with its own requirements).
"""

import argparse
import datetime
import logging
import os
import sys
import warnings
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before the libraries start

import _timing
import numpy as np
import torch

from gcelib import calibration

PACKAGES = ("scikit-learn", "probmetrics", "torch-uncertainty", "netcal")
TEMPERATURE_SIZES = (
    (5_000, 10),
    (10_000, 10),
    (10_000, 100),
    (10_000, 200),
    (10_000, 1000),
)
ATS_SIZES = ((5_000, 10), (5_000, 100), (5_000, 200))


def sample(n, k):
    """Float32 logits of a classifier that is right about three times in four, and
    overconfident: the best T is 1.6."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(n, k, generator=rng)
    sharp = torch.randint(k, (n, 1), generator=rng)
    logits.scatter_add_(
        1, sharp, (12 * torch.rand(n, 1, generator=rng)).add_(np.log(k) - 2)
    )
    labels = torch.multinomial(logits.softmax(1), 1, generator=rng)[:, 0]
    return 1.6 * logits, labels


def scikit_learn(z, y):
    # What CalibratedClassifierCV(method="temperature") fits.
    from sklearn.calibration import _TemperatureScaling

    z, y = z.numpy(), y.numpy()
    return lambda: 1 / float(_TemperatureScaling().fit(z, y).beta_)


def probmetrics(z, y):
    from probmetrics.calibrators import TemperatureScalingCalibrator
    from probmetrics.distributions import CategoricalLogits

    return lambda: (
        1
        / float(
            TemperatureScalingCalibrator().fit_torch(CategoricalLogits(z), y).invtemp_
        )
    )


def torch_uncertainty(z, y):
    from torch.utils.data import DataLoader, TensorDataset
    from torch_uncertainty.post_processing import TemperatureScaler

    def call():
        scaler = TemperatureScaler(torch.nn.Identity())
        scaler.fit(DataLoader(TensorDataset(z, y), batch_size=len(y)), progress=False)
        return float(scaler.temperature[0])

    return call


def netcal(z, y):
    from netcal.scaling import TemperatureScaling

    z = z.double().softmax(1).numpy()  # from float32 it returns its start, T = 1
    y = y.numpy()

    def call():
        scaler = TemperatureScaling()
        scaler.fit(z, y)
        return 1 / float(np.ravel(scaler.weights)[0])

    return call


def temperature_contenders(n, k):
    z, y = sample(n, k)
    calls = {
        "gcelib": lambda: float(
            calibration.TemperatureScaling("nll").fit(z, y).temperature
        )
    }
    for peer in (scikit_learn, probmetrics, torch_uncertainty, netcal):
        if (peer is netcal and n * k > 10**6) or (
            peer is torch_uncertainty and n * k > 5 * 10**6
        ):
            continue  # tens of seconds
        try:
            calls[peer.__name__] = peer(z, y)
        except ImportError as missing:
            print(f"left out {peer.__name__} ({missing})", file=sys.stderr)
    return calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds and sizes, printed only"
    )
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable()
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from test_calibration import literal_ats

    sizes = TEMPERATURE_SIZES[:-1] if quick else TEMPERATURE_SIZES
    cells = {}
    best = []
    for n, k in sizes:
        calls = temperature_contenders(n, k)
        times = _timing.interleaved(calls, rounds=3 if quick or k == 1000 else 9)
        names = list(calls)
        for name in names:
            cells[name, n, k] = (
                f"{1000 * _timing.median(times, name):.3g} ms (T = {calls[name]():.4f})"
            )
        peer = min(
            names[1:], key=lambda name: _timing.median(times, name), default=None
        )
        best.append(
            f"**{_timing.ratio(times, peer, 'gcelib'):.2f}**" if peer else "none"
        )
    names = list(dict.fromkeys(name for name, _, _ in cells))
    rows = [
        [name.replace("_", "-"), *(cells.get((name, n, k), "-") for n, k in sizes)]
        for name in names
    ]
    rows.append(["*best peer / gcelib*", *best])

    literal = ["Algorithm 1 done literally"]
    ours = ["gcelib"]
    ratios = ["*ratio*"]
    differences = ["largest difference"]
    for n, k in ATS_SIZES:
        z, y = sample(n, k)
        calls = {
            "gcelib": lambda z=z, y=y: (
                calibration.AdaptiveTemperatureScaling().fit(z, y).temperatures
            ),
            "literal": lambda z=z, y=y: literal_ats(z, y)[0],
        }
        times = _timing.interleaved(calls, rounds=3 if quick else 9)
        for row, name in ((literal, "literal"), (ours, "gcelib")):
            row.append(f"{1000 * _timing.median(times, name):.3g} ms")
        ratios.append(f"**{_timing.ratio(times, 'literal', 'gcelib'):.1f}**")
        differences.append(
            f"{float((calls['gcelib']() - calls['literal']()).abs().max()):.0e}"
        )

    text = [
        f"Measured {datetime.date.today()} on {_timing.processor()}, one thread, CPU",
        "time, float32 logits, contenders interleaved in one process, medians over the",
        "rounds; ratios are medians of the ratios within a round.",
        "",
        f"gcelib {_timing.version('gcelib')}, torch {torch.__version__}, "
        f"numpy {np.__version__}; peers: "
        + ", ".join(f"{p} {_timing.version(p) or '(not installed)'}" for p in PACKAGES)
        + ".",
        "",
        _timing.table(
            ["temperature by NLL", *(f"{n // 1000}k x {k}" for n, k in sizes)], rows
        ),
        "",
        "ATS at the paper's settings (15 bins, 200 rounds); literal: a softmax for",
        "every bin and every round.",
        "",
        _timing.table(
            ["ATS", *(f"{n // 1000}k x {k}" for n, k in ATS_SIZES)],
            [literal, ours, ratios, differences],
        ),
    ]
    if quick:
        print("\n".join(text))
    else:
        _timing.publish("calibration", "\n".join(text))


if __name__ == "__main__":
    main()
