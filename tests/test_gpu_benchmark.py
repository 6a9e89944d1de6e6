"""The benchmark for GPUs, rehearsed on a CPU at tiny size: its counts, its files, its
stops, and what it times.
"""

import csv
import importlib.util
import math
import sys

import pytest
import torch

from gcelib import data, losses, runs, training

FOLDER = runs.PROJECT / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    sys.path.insert(0, str(FOLDER))  # for its neighbour _timing
    yield load("gpu")
    sys.path.remove(str(FOLDER))
    del sys.modules["gpu"]


def load(name):
    """A module of ``benchmarks``, which is no package."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rehearsed(gpu, tmp_path_factory):
    """The whole script in little: once without time, then with enough."""
    out = tmp_path_factory.mktemp("gpu")
    command = ["--device", "cpu", "--quick", "--models", "convnet", "--out"]
    gpu.main([*command, str(out), "--minutes", "0"])
    nothing = (out / "gpu.md").read_text()
    gpu.main([*command, str(out), "--minutes", "30"])
    return out, command, nothing


def resnet50_macs(pixels):
    """Multiply-adds of a forward pass by hand, and those of the first convolution: He
    et al. 2016, Table 1.
    """
    stem = total = 3 * 64 * 9 * pixels**2
    inputs = 64
    for width, blocks, side in (
        (64, 3, pixels),
        (128, 4, pixels // 2),
        (256, 6, pixels // 4),
        (512, 3, pixels // 8),
    ):
        # the 3x3 convolution of a group's first block takes the stride
        before = side if width == 64 else 2 * side
        for block in range(blocks):
            total += inputs * width * (before if block == 0 else side) ** 2
            total += width * width * 9 * side**2 + width * 4 * width * side**2
            if block == 0:
                total += inputs * 4 * width * side**2  # its shortcut
            inputs = 4 * width
    return total + inputs * 10, stem


def test_flops_are_those_counted_by_hand(gpu):
    """Two for a multiply-add; backward twice the forward, but no gradient for the
    images.
    """
    macs, stem = resnet50_macs(32)
    # what is published for this network on CIFAR
    assert macs == pytest.approx(1.30e9, rel=0.01)
    assert gpu.step_flops("resnet50", 4, 32) == 4 * (3 * 2 * macs - 2 * stem)


@pytest.mark.apart
def test_the_table_has_every_measurement_and_sane_numbers(gpu, rehearsed):
    out, *_ = rehearsed
    with (out / "gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == gpu.COLUMNS
    found = gpu.read(out / "gpu.csv")
    assert {section for section, *_ in found} == {
        *("setup", "peak", "step", "waits", "loss", "time", "epoch", "processes")
    }
    assert {case for section, _, case in found if section == "step"} == {
        *gpu.CASES,
        gpu.REFERENCE,
        f"{gpu.DEFAULT}, compile",
    }
    for (section, _, _), row in found.items():
        if section not in ("setup", "waits", "time"):
            assert all(math.isfinite(v) and v > 0 for v in row.values()), (section, row)
    for (section, _, case), row in found.items():
        if section == "step":
            assert row["images_per_second"] == pytest.approx(4e3 / row["ms_per_step"])
            flops = gpu.step_flops("convnet", 4, 8)
            assert row["tflops"] == pytest.approx(flops / row["ms_per_step"] / 1e9)
            share = (
                row["tflops"]
                / found["peak", "", "tf32" if case == gpu.REFERENCE else case[:4]][
                    "tflops"
                ]
            )
            assert gpu.share_of_peak(found, "convnet", case) == pytest.approx(share)
    assert {*found["loss", "convnet", ""]} == {*losses.LOSSES, "ce again"} - {"ce"}
    around = found["epoch", "convnet", ""]
    assert around["afl_epoch_ratio"] == pytest.approx(
        (around["train_s"] + around["val_s"] + around["afl_update_s"])
        / around["train_s"]
    )
    times = found["time", "convnet", ""]
    assert {*times} == {*gpu.GROUPS, "idle"}
    assert times["convolutions, matrix products"] > 0
    assert {
        (c, r["steps"], r["waits"]) for (s, _, c), r in found.items() if s == "waits"
    } == {(loss, 3, 0) for loss in losses.LOSSES}


@pytest.mark.apart
def test_the_report_names_machine_and_goals_and_what_is_missing(rehearsed):
    out, _, nothing = rehearsed
    text = (out / "gpu.md").read_text()
    for part in (
        "# Training on CPU",
        f"torch {torch.__version__}",
        "x reference",
        "GCE's step over CE's, convnet",
    ):
        assert part in text
    assert "rehearsal" in text  # nobody takes such numbers for a card's
    assert "Not measured" not in text
    assert "- step, convnet, reference loop: no time left" in nothing
    assert "- processes, convnet, 2: no time left" in nothing


@pytest.mark.apart
def test_a_second_start_measures_only_what_is_missing(gpu, rehearsed, monkeypatch):
    out, command, _ = rehearsed
    whole = (out / "gpu.csv").read_text()
    kept = gpu.read(out / "gpu.csv")
    del kept["loss", "convnet", ""], kept["peak", "", "bf16"]
    gpu.write(out, kept, {})

    def broken(*_):
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(gpu, "loss_ratios", broken)
    monkeypatch.setattr(gpu, "step", None)  # not asked again
    gpu.main([*command, str(out)])
    again = gpu.read(out / "gpu.csv")
    assert ("loss", "convnet", "") not in again
    assert again["peak", "", "bf16"]["tflops"] > 0
    assert {k: v for k, v in again.items() if k in kept and k[0] != "setup"} == {
        k: v for k, v in kept.items() if k[0] != "setup"
    }
    assert (
        "- loss, convnet: RuntimeError: out of memory\n" in (out / "gpu.md").read_text()
    )
    (out / "gpu.csv").write_text(whole)


@pytest.mark.apart
def test_another_machines_measurements_are_not_mixed_in(gpu, rehearsed, capsys):
    out, command, _ = rehearsed
    whole = (out / "gpu.csv").read_text()
    (out / "gpu.csv").write_text(whole.replace(torch.__version__, "1.0"))
    with pytest.raises(SystemExit):
        gpu.main([*command, str(out)])
    assert "holds measurements with torch 1.0" in capsys.readouterr().err
    (out / "gpu.csv").write_text(whole)


def test_a_process_that_fails_or_takes_too_long_is_told(gpu):
    size, device = gpu.QUICK, torch.device("cpu")
    with pytest.raises(TimeoutError):
        gpu.in_processes(1, 0, size, device, model="convnet")


def test_a_wait_for_the_device_would_be_noticed(gpu, monkeypatch):
    class Waits(losses.CrossEntropyLoss):
        def compute(self, logits, labels):
            return super().compute(logits, labels) * float(
                logits.detach().mean() > -1e9
            )

    monkeypatch.setitem(losses.LOSSES, "waits", losses.LossRow(Waits))
    with pytest.raises(RuntimeError, match="meta") as refused:
        gpu.waits("convnet", "waits", gpu.QUICK, torch.device("cpu"))
    assert any(entry.name == "train_epoch" for entry in refused.traceback)
    assert data.batches is training.data.batches
    assert gpu.waits("convnet", "gce", gpu.QUICK, torch.device("cpu")) == {
        "steps": 3,
        "waits": 0,
    }


def test_metrics_on_a_device_are_timed(gpu, tmp_path, monkeypatch):
    assert gpu
    module = load("device")
    # The peer takes four seconds to import.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    module.main(["--device", "cpu", "--quick", "--out", str(tmp_path)])
    text = (tmp_path / "device.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    names = [row[1].strip() for row in rows]
    assert "300 x 10" in rows[0][2]
    assert {"`ece`", "`evaluate`", "`CalibrationMeter`, an epoch"} <= {*names}
    assert all(float(row[2]) > 0 for row in rows[2:])


def test_a_device_that_says_something_else_is_not_timed(gpu, monkeypatch):
    module = load("device")
    monkeypatch.setattr(module, "evaluate", lambda z, *_: {"ece": float(z[0, 0])})
    logits, labels = module.sample(300, 10)
    module.agree(logits, labels, torch.device("cpu"))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, _: self + 1)
    with pytest.raises(AssertionError, match="ece"):
        module.agree(logits, labels, torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_no_step_waits_for_a_real_device(gpu, loss):
    assert gpu.waits("resnet50", loss, gpu.QUICK, torch.device("cuda"))["waits"] == 0
