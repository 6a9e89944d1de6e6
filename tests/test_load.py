"""Load: many runs, many samples, many epochs. benchmarks/load.py measures the same at
full size."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import psutil
import pytest
import torch

from gcelib import data, runs, sweeps
from gcelib.study.trainer import TrainConfig, fit

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "data" / "demo" / "fashion_mini" / "convnet" / "gce" / "seed-01"


def test_a_thousand_finished_runs_are_one_table(tmp_path):
    metrics = runs.read_json(DEMO / "metrics.json")
    grid = {"dataset": "digits", "epochs": 1, "device": "cpu", "seed": range(1, 1001)}
    for run_dir, (_, config) in sweeps.expand(grid, tmp_path).items():
        Path(run_dir).mkdir(parents=True)
        Path(run_dir, "metrics.json").write_text(
            json.dumps(metrics | {"config": config.settings()})
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none is skipped
        table = runs.load_results(tmp_path)
    assert sorted(table.seed) == list(range(1, 1001))
    assert set(table.test_raw_ece) == {metrics["results"]["test_raw_ece"]}
    assert set(sweeps.status(grid, tmp_path).state) == {"done"}


@pytest.mark.skipif(
    sys.platform != "linux",
    reason="only Linux tells a process's own memory from the mapped file's",
)
def test_a_mapped_file_is_measured_in_a_few_numbers_per_sample(tmp_path):
    """76 MiB of logits on disk; what evaluate itself takes is about 20 numbers of 8
    bytes for each of 200,000 rows."""
    command = [
        sys.executable,
        ROOT / "benchmarks" / "load.py",
        "--mapped",
        "200000",
        "100",
        tmp_path / "logits.npy",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout.split()[-1]) < 60


def test_two_hundred_epochs_take_the_memory_of_fifty(tmp_path, monkeypatch):
    """One set of logits kept per epoch were 12 MB by the end, one checkpoint 30 MB."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"train": 64, "val": 1000, "test": 1000}
    parts = {
        k: (torch.randn(n, 8, generator=generator), torch.arange(n) % 10)
        for k, n in sizes.items()
    }
    names = tuple("0123456789")
    tiny = data.Splits(
        "digits",
        **parts,
        n_classes=10,
        mean=torch.zeros(8),
        std=torch.ones(8),
        class_names=names,
        input_shape=(8,),
        augment=False,
    )
    monkeypatch.setattr(data, "load_as_described", lambda *_: tiny)
    config = TrainConfig(
        "digits", "mlp", epochs=200, ood=(), device="cpu", runs_dir=str(tmp_path)
    )
    resident = [psutil.Process().memory_info().rss for _ in fit(config)]
    assert len(resident) == 200
    assert resident[-1] - resident[49] < 8e6
