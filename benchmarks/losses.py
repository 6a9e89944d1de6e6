"""What every loss costs, forward and backward, as a ratio to ``torch.nn.functional.cross_entropy`` in the same run.

    python benchmarks/losses.py [--seconds 2]

One thread; the two are timed in turn, by CPU time (so that other work on the machine disturbs little), in pairs; the table
shows the median of the paired ratios. Prints Markdown.
"""

import argparse
import statistics
import time

import torch
from torch.nn import functional as F

from gcelib.losses import LOSSES, make_loss

SHAPES = [(128, 10), (128, 100), (128, 200), (1024, 1000), (256, 21841)]
NAMES = ["gce", "gce_ls", *(name for name in LOSSES if name not in ("gce", "gce_ls"))]


def cpu_seconds(loss, logits, labels, repeats):
    """CPU time of ``repeats`` forward and backward passes of ``loss``."""
    start = time.process_time()
    for _ in range(repeats):
        logits.grad = None
        loss(logits, labels).backward()
    return time.process_time() - start


def ratio(loss, logits, labels, seconds):
    """Median of the paired ratios to cross-entropy, and cross-entropy's own best time in microseconds."""
    repeats = 1
    while cpu_seconds(F.cross_entropy, logits, labels, repeats) < 0.002:
        repeats *= 2
    cpu_seconds(loss, logits, labels, repeats)
    ratios, reference, stop = [], [], time.process_time() + seconds
    while time.process_time() < stop or len(ratios) < 5:
        reference.append(cpu_seconds(F.cross_entropy, logits, labels, repeats))
        ratios.append(cpu_seconds(loss, logits, labels, repeats) / reference[-1])
    return statistics.median(ratios), min(reference) / repeats * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU seconds per cell of the table")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    columns = {}
    for n_samples, n_classes in SHAPES:
        generator = torch.Generator().manual_seed(1)
        logits = (3 * torch.randn(n_samples, n_classes, generator=generator)).requires_grad_()
        labels = torch.randint(n_classes, (n_samples,), generator=generator)
        columns[n_samples, n_classes] = [ratio(make_loss(name), logits, labels, seconds) for name in NAMES]
    print(f"Forward + backward, CPU time over `F.cross_entropy`; torch {torch.__version__}, one thread, float32\n")
    print("| loss |", " | ".join(f"{n} x {k}" for n, k in SHAPES), "|")
    print("|---|" + "---|" * len(SHAPES))
    print("| `F.cross_entropy`, µs |", " | ".join(f"{min(us for _, us in columns[s]):,.0f}" for s in SHAPES), "|")
    for row, name in enumerate(NAMES):
        print(f"| {name} |", " | ".join(f"{columns[s][row][0]:.2f}" for s in SHAPES), "|")


if __name__ == "__main__":
    main()
