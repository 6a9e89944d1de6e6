"""What a step of every loss costs, forward and backward, beside cross-entropy.

``python benchmarks/losses.py`` writes ``benchmarks/results/losses.md``. ``--quick``
measures fewer rounds and only prints.
"""

import argparse
import datetime
import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = (
    "1"  # before the libraries start
)

import _timing
import torch
from torch.nn import functional as F

from gcelib.losses import LOSSES, make_loss

BASE = "`F.cross_entropy`"
SIZES = ((128, 10), (128, 100), (128, 200), (1024, 1000), (256, 21841))


def step(loss, n, k):
    """One forward and backward pass of ``loss`` on float32 logits (n, k), ready to be
    called."""
    generator = torch.Generator().manual_seed(1)
    logits = (3 * torch.randn(n, k, generator=generator)).requires_grad_()
    labels = torch.randint(k, (n,), generator=generator)

    def call():
        logits.grad = None
        loss(logits, labels).backward()

    return call


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds and sizes, printed only"
    )
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    losses = {BASE: F.cross_entropy} | {
        f"`{name}`": make_loss(name) for name in ("gce", *sorted({*LOSSES} - {"gce"}))
    }
    columns = []
    for size in SIZES:
        contenders = {name: step(loss, *size) for name, loss in losses.items()}
        times = _timing.interleaved(contenders, rounds=7 if quick else 41)
        columns.append([f"{1e6 * _timing.median(times, BASE):,.0f} µs"])
        columns[-1] += [
            f"{_timing.ratio(times, name, BASE):.2f}" for name in losses if name != BASE
        ]
    text = "\n".join(
        [
            "# A training step's loss, forward and backward",
            "",
            f"Measured {datetime.date.today()} on {_timing.processor()}, one thread,",
            "CPU time, float32 logits (N, K), the losses interleaved in one process.",
            f"First row: median time of {BASE}. Others: median over the rounds of",
            "their time divided by its time in the same round.",
            "",
            f"gcelib {_timing.version('gcelib')}, torch {torch.__version__}.",
            "",
            _timing.table(
                ["", *(f"{n} x {k}" for n, k in SIZES)],
                zip(losses, *columns, strict=True),
            ),
        ]
    )
    print(text) if quick else _timing.publish("losses", text)


if __name__ == "__main__":
    main()
