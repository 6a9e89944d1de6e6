"""Make docs/reliability.png, the README's picture, from runs that come along.

python docs/make_reliability_picture.py
"""

from pathlib import Path

import torch
from matplotlib import pyplot as plt

from gcelib import TemperatureScaling, metrics, plots, runs, shipped

run_dir = shipped.demo_runs() / "fashion_mini" / "convnet" / "ce" / "seed-01"
logits, labels = runs.load_logits(run_dir, "test")
temperature = TemperatureScaling().fit(*runs.load_logits(run_dir, "val"))
stages = {
    "cross-entropy, as trained": torch.from_numpy(logits),
    "after one temperature": temperature(logits),
}
figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
for ax, (title, z) in zip(axes, stages.items(), strict=True):
    bins = metrics.reliability(z, labels)
    plots.reliability_diagram(bins, ax, color=plots.loss_color("ce"))
    ax.set_title(title)
figure.savefig(Path(__file__).parent / "reliability.png", dpi=100)
