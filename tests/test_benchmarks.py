"""The benchmarks on a CPU, rehearsed at tiny size: each still runs from start to end.

What they print at this size means nothing; what they wrote at full size is in
``benchmarks/results``. Those of GPUs, of costs and of the browser: test_gpu_benchmark,
test_run_grid, test_browser.
"""

import importlib.util
import sys

import pytest
import torch

from gcelib import runs
from gcelib.calibration import CALIBRATORS

pytestmark = pytest.mark.apart

FOLDER = runs.PROJECT / "benchmarks"


@pytest.fixture
def rehearse(monkeypatch):
    """A function that makes a benchmark small, runs it, and gives what it publishes."""
    monkeypatch.syspath_prepend(str(FOLDER))  # for its neighbour _timing
    published = {}

    def rehearsed(name, *arguments, **small):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for constant, value in small.items():
            assert hasattr(module, constant), constant
            monkeypatch.setattr(module, constant, value)
        timing = module._timing
        monkeypatch.setattr(timing, "publish", published.__setitem__)
        measure = timing.interleaved
        monkeypatch.setattr(
            timing,
            "interleaved",
            lambda contenders, *_, **__: measure(contenders, 0, rounds=1),
        )
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        threads = torch.get_num_threads()
        try:
            module.main()
        finally:
            torch.set_num_threads(threads)
        return published.get(name)

    yield rehearsed
    sys.modules.pop("_timing", None)


class HerePool:
    """Takes the place of a pool of processes, which would not see what is small."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def map(self, function, values):
        return [function(value) for value in values]


def test_how_often_advice_is_wrong(rehearse, monkeypatch):
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", HerePool)
    kept = dict(CALIBRATORS)
    try:
        text = rehearse(
            "advice",
            SIZES=(40,),
            EXPECTED=(0.3, 2, 12),
            DRAWS=dict.fromkeys(("0", "1 to 3", "4 to 10"), 2),
            EXAGGERATING=(20,),
            POWER_DRAWS={40: 1},
        )
    finally:
        CALIBRATORS.clear()
        CALIBRATORS.update(kept)
    assert "| 40 by NLL | " in text
    assert "of 2 |" in text


@pytest.mark.parametrize(
    ("name", "small", "row"),
    [
        ("losses", {"SIZES": ((8, 3),)}, "| `gce` | "),
        ("meter", {"SIZES": ((16, 3),)}, "| 16 x 3 | "),
        (
            "calibration",
            {"TEMPERATURE_SIZES": ((200, 3),), "ATS_SIZES": ((300, 3),)},
            "| Algorithm 1 done literally | ",
        ),
    ],
)
def test_times(rehearse, name, small, row):
    if name == "meter":
        pytest.importorskip("torchmetrics")
    assert row in rehearse(name, **small)


def test_times_of_metrics(rehearse, capsys):
    assert rehearse("metrics", "--quick", SIZES=((300, 3), (300, 3))) is None
    printed = capsys.readouterr().out
    assert "| gcelib | " in printed
    assert "`evaluate` " in printed


def test_times_on_a_device(rehearse, tmp_path):
    rehearse("device", "--device", "cpu", "--quick", "--out", str(tmp_path))
    assert "milliseconds" in (tmp_path / "device.md").read_text()


def test_memory_of_a_mapped_file(rehearse, tmp_path, capsys):
    file = str(tmp_path / "logits.npy")
    rehearse("load", "--mapped", "2000", "3", file)
    assert len(capsys.readouterr().out.split()) == 3
