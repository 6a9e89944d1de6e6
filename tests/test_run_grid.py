"""A grid run by benchmarks/run_grid.py, as on a lent GPU: the same runs as the sweep's,
stopped and gone on with.
"""

import importlib.util
import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from gcelib import data, runs

PATH = runs.PROJECT / "benchmarks" / "run_grid.py"
spec = importlib.util.spec_from_file_location("run_grid", PATH)
run_grid = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_grid)


def grid(tmp_path, text):
    (tmp_path / "grid.yaml").write_text(text)
    return [str(tmp_path / "grid.yaml"), "--runs-dir", str(tmp_path / "runs")]


def test_its_table_is_of_the_grids_own_runs(tmp_path, capsys):
    """Another grid's runs in the folder are another experiment."""
    text = "dataset: digits\nmodel: mlp\nloss: ce\nseed: [1, 2]\nood: [[]]\nepochs: "
    assert run_grid.main(grid(tmp_path, text + "1\nvariant: short\n")) == 0
    capsys.readouterr()
    assert run_grid.main(grid(tmp_path, text + "2\n")) == 0
    header, _, row = capsys.readouterr().out.splitlines()[-3:]
    table = runs.load_results(tmp_path / "runs")
    errors = 100 * table.groupby("epochs").test_raw_error.mean()
    assert errors[1] > errors[2] + 1
    shown = dict(zip(header.split(), row.split()[-len(header.split()) :], strict=True))
    assert float(shown["test_raw_error"]) == pytest.approx(errors[2], abs=0.006)
    assert shown["seeds"] == "2"
    with pytest.raises(ValueError, match="another result, which differs in epochs"):
        run_grid.main(grid(tmp_path, text + "3\n"))


def test_fashion_mnist_on_resnet50_in_little(tmp_path, monkeypatch, capsys):
    """The card's grid, but for a single epoch on 12 images of 16 x 16: everything up to
    the table.
    """
    rng = np.random.default_rng(0)

    def tiny(root, seed):
        labels = np.arange(12) % 10
        parts = [
            (rng.integers(0, 256, (len(y), 1, 16, 16), dtype=np.uint8), y)
            for y in (labels, labels[:4])
        ]
        return data.Raw(parts[0], None, parts[1], data.FASHION_NAMES)

    row = replace(
        data.DATASETS["fashion_mnist"], read=tiny, size=data.Size(11, (1, 16, 16), 10)
    )
    monkeypatch.setitem(data.DATASETS, "fashion_mnist", row)
    text = "dataset: fashion_mnist\nmodel: resnet50\nloss: gce\n"
    text += "epochs: 1\nbatch_size: 4\nood: [[noise]]\n"
    assert run_grid.main(grid(tmp_path, text)) == 0
    out = capsys.readouterr().out
    assert "fashion_mnist/resnet50/gce/seed-01: epoch 1/1" in out
    assert "1 of 1 runs are done, 0 failed now" in out
    assert "noise_raw_auroc" in out
    row = runs.load_results(tmp_path / "runs").iloc[0]
    assert (row.model, row.augment, row.lr, row.batch_size) == (
        "resnet50",
        True,
        0.1,
        4,
    )
    assert np.isfinite(row.test_ats_ece)


def test_it_stops_in_time_and_goes_on_and_a_failure_is_told(
    tmp_path, monkeypatch, capsys
):
    text = "dataset: digits\nloss: [ce, gce, dfl]\nepochs: 2\nood: [[]]\n"
    command = grid(tmp_path, text)
    folder = tmp_path / "runs" / "digits" / "convnet"
    # A minute passes whenever the time is asked for.
    with monkeypatch.context() as patched:
        patched.setattr(
            run_grid, "time", SimpleNamespace(monotonic=itertools.count(0, 60).__next__)
        )
        assert run_grid.main([*command, "--minutes", "0.5"]) == 0
        assert "0 of 3 runs are done" in capsys.readouterr().out
        assert not folder.exists()
        assert run_grid.main([*command, "--minutes", "1.5"]) == 0
    assert "stopped after epoch 1" in capsys.readouterr().out
    assert [p.parent.parent.name for p in folder.rglob("checkpoint.pt")] == ["ce"]
    assert len(runs.load_history(folder / "ce" / "seed-01")) == 1

    real, seen = run_grid.training.fit, []

    def fit(config):
        seen.append(config.loss)
        if config.loss == "dfl":
            raise FloatingPointError("not finite")
        with (
            runs.open_run(folder / "gce" / "seed-01", {}, {})
            if config.loss == "gce"
            else open(PATH)
        ):
            yield from real(config)

    monkeypatch.setattr(run_grid.training, "fit", fit)
    assert run_grid.main(command) == 1
    assert seen == ["ce", "gce", "dfl"]
    printed = capsys.readouterr()
    assert "digits/convnet/ce/seed-01: epoch 2/2" in printed.out
    # Neither twice, nor what another process holds.
    assert "epoch 1/2" not in printed.out
    assert "1 of 3 runs are done, 1 failed now" in printed.out
    assert "FloatingPointError: not finite" in printed.err


def test_bad_grids_are_refused_before_anything_starts(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'gce'"):
        run_grid.main(grid(tmp_path, "dataset: digits\nloss: [ce, gcee]\n"))
    assert not (tmp_path / "runs").exists()
