"""What CONTRIBUTING.md prints works as it is printed.

Each example is put where its text says, in memory: its doctests run, its row is read,
and its test passes.
"""

import ast
import doctest
import re
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import test_calibration
import test_data
import test_losses
import test_metrics
import torch

from gcelib import calibration, data, evaluate, losses, make_calibrator, metrics, models
from gcelib.study import sweeps
from gcelib.study.data import sources
from gcelib.view.styles import NEUTRAL, style

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def section(title):
    """The text below ``## <title>, worked``."""
    return TEXT.partition(f"## {title}, worked\n")[2].partition("\n## ")[0]


def blocks(title):
    """The code blocks of a section, in their order."""
    fenced = r"^( *)```\w+\n(.*?)^\1```$"
    found = re.findall(fenced, section(title), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, code in found]


def run_in(module, code):
    """Run code as if it stood at the end of ``module``, its doctests too."""
    names = dict(vars(module))
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    kinds = (ast.FunctionDef, ast.ClassDef)
    defined = [part.name for part in ast.parse(code).body if isinstance(part, kinds)]
    new = {name: names[name] for name in defined}
    runner = doctest.DocTestRunner()
    for name, thing in new.items():
        for example in doctest.DocTestFinder().find(thing, name, globs=names):
            runner.run(example)
    assert runner.summarize().failed == 0
    return new


def row_in(module, line, names):
    """The name and the row of a printed line of a registry."""
    (pair,) = eval(f"{{{line}}}", {**vars(module), **names}).items()
    return pair


def run_tests(module, code, **changed):
    """Run the tests of a block as if it stood in a test module."""
    names = {**vars(module), **changed}
    before = set(names)
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    tests = [names[name] for name in set(names) - before if name.startswith("test_")]
    for test in tests:
        test()
    return names


def test_the_grid_has_as_many_runs_as_its_test_says(tmp_path):
    file = tmp_path / "learning_rate.yaml"
    file.write_text(blocks("A grid")[0], encoding="utf-8")
    line = re.search(r'\(`("learning_rate": [^`]+)`\)', section("A grid"))[1]
    assert len(sweeps.expand(file)) == eval(f"{{{line}}}")["learning_rate"] == 30


def test_the_calibrator_is_one_like_the_others(monkeypatch):
    module, row, test = blocks("A calibrator")
    new = run_in(types.ModuleType("gcelib.smooth"), module)
    name, row = row_in(calibration, row, new)
    for registry in (calibration.ALL_CALIBRATORS, calibration.CALIBRATORS):
        monkeypatch.setitem(registry, name, row)
    run_tests(test_calibration, test)
    look = style(name)
    assert look.label == "Smoothed"
    assert look.color in {spare.color for spare in NEUTRAL}
    smooth = make_calibrator(name)
    assert smooth.keeps_predictions == row.keeps_predictions
    form = re.search(r"browser=(BrowserForm\(.+?\)\))", section("A calibrator"))[1]
    buffers = eval(form, vars(calibration)).buffers
    assert {*buffers} == {*smooth.buffer_rules}


def test_every_helper_that_is_named_is_there():
    from gcelib import calibrator

    sentence = section("A calibrator").partition("has what several need: ")[2]
    names = re.findall(r"`(\w+)`", sentence.partition("\n\n")[0])
    assert len(names) == 5
    assert all(getattr(calibrator, name).__doc__ for name in names)
    options = section("A calibrator").partition("*Rules*")[2].partition("*Options*")[0]
    for option in re.findall(r"`(low|high|increasing|total|length)`", options):
        assert option in calibrator.BufferRule.__annotations__


def test_the_metric_is_in_evaluate(monkeypatch):
    function, row, test = blocks("A metric")
    new = run_in(metrics, function)
    name, row = row_in(metrics, row, new)
    monkeypatch.setattr(metrics, name, new[name], raising=False)
    monkeypatch.setitem(metrics.METRICS, name, row)
    run_tests(test_metrics, test)
    logits, labels = test_metrics.make(200, 4, dtype=np.float64)
    assert evaluate(logits, labels)[name] == new[name](logits, labels)
    fast = re.search(r"`from_rows=(lambda[^`]+)`", section("A metric"))[1]
    fast_row = metrics.Metric(
        new[name], label="l", axis="a", takes_bins=False, from_rows=eval(fast)
    )
    monkeypatch.setitem(metrics.METRICS, name, fast_row)
    assert evaluate(logits, labels)[name] == new[name](logits, labels)


def test_the_loss_is_its_slow_version(monkeypatch):
    code, test = blocks("A loss")
    new = run_in(losses, code)
    line = re.search(r'`("gen_ce": LossRow[^`]+)`', section("A loss"))[1]
    name, row = row_in(losses, line, new)
    monkeypatch.setitem(losses.LOSSES, name, row)
    names = run_tests(test_losses, test, CASES={})
    loss, slow = names["CASES"][name]
    logits, labels = test_losses.batch()
    assert loss(logits, labels).item() == pytest.approx(slow(logits, labels), rel=1e-6)
    assert style(name).label == "Gen. CE"


def test_the_network_is_built_for_images():
    new = run_in(models, blocks("A network")[0])
    line = re.search(r'`("lenet": ModelRow[^`]+)`', section("A network"))[1]
    _, row = row_in(models, line, new)
    network = row.build(3, (1, row.min_pixels, row.min_pixels))
    assert network(torch.zeros(2, 1, row.min_pixels, row.min_pixels)).shape == (2, 3)


def test_the_data_set_is_loaded_and_described(monkeypatch):
    reader, row, words = blocks("A data set")
    line = re.search(r'`(\("wine", [^`]+)`', section("A data set"))[1]
    new = run_in(sources, reader)
    name, row = row_in(sources, row, new)
    monkeypatch.setitem(data.DATASETS, name, row)
    case = eval(line.strip().removesuffix(","))
    test_data.test_what_load_returns(*case)
    _, sizes, shape, n_classes = case
    split = " / ".join(str(size) for size in sizes)
    assert words.startswith(
        f"| `{name}` | {shape[0]} numbers | {n_classes} | {split} |"
    )
    assert f"\n**`{name}`**: " in words


def test_the_places_of_a_config_field_are_where_it_says():
    config = (ROOT / "gcelib/study/config.py").read_text(encoding="utf-8")
    trainer = (ROOT / "gcelib/study/trainer.py").read_text(encoding="utf-8")
    tests = (ROOT / "tests/test_training.py").read_text(encoding="utf-8")
    for place in ("data_fingerprint", "learning_rate", "def _whole", "def _real"):
        assert place in config
    assert "torch.optim.SGD(" in trainer
    assert "def test_bad_settings_are_refused" in tests
    for code in blocks("A config field"):
        compile(code, "CONTRIBUTING.md", "exec")


def test_every_test_file_that_is_named_is_there():
    named = re.findall(r"(?:tests|gcelib)/[\w/]+\.py", TEXT)
    new = {"gcelib/smooth.py"}
    assert [name for name in {*named} - new if not (ROOT / name).exists()] == []
