"""What type checkers and editors see of gcelib, in code that uses it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jedi
import pytest

import gcelib

pytestmark = pytest.mark.apart

ROOT = Path(__file__).resolve().parents[1]


def readme_snippets():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


#: pyright's word for a line that computes something and drops it.
BARE = "reportUnusedExpression"

#: What a first user gets wrong, a line each; the others are right.
MISTAKES = """
import numpy as np
import torch
from gcelib import CalibrationMeter, GCELoss, Reliability, TemperatureScaling
from gcelib import ece, evaluate, make_calibrator, make_loss, mce, metrics
from gcelib import GCELos  # mistake

logits, labels = torch.randn(10, 3), torch.randint(3, (10,))
ece(logits, labels, nbins=15)  # mistake
ece(logits, labels, "15")  # mistake
ece(logits.numpy(), labels.tolist(), n_bins=15, probabilities=False)
mce(logits)  # mistake
evaluate(logits, labels)["ece"].upper()  # mistake
evaluate(logits, labels, bootstrap=10, seed=1)["ece_low"] * 100
GCELoss(label_smoothing="0.1")  # mistake
GCELoss(reduction="mean", process_group=None)
TemperatureScaling("nll").fit(logits)  # mistake
TemperatureScaling("nll").fit(np.zeros((5, 2)), [0, 1, 0, 1, 0])(logits).softmax(1)
CalibrationMeter("10").update(logits, labels)  # mistake
Reliability.from_confidences([0.5], [True], binning="wdth")  # mistake
Reliability.from_confidences([0.5], [True], binning="equal").ece + 1
metrics.METRICS["ece"].lable  # mistake
make_loss(5)  # mistake
make_calibrator("ats", n_bins=10)
make_calibrator("ats")(logits).sofmax(1)  # mistake
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What pyright says of each file: {name: [(line, rule or None), ...]}."""
    folder = tmp_path_factory.mktemp("client")
    every_name = [f"from gcelib import {name} as {name}" for name in dir(gcelib)]
    (folder / "every_name.py").write_text("\n".join(every_name), encoding="utf-8")
    (folder / "mistakes.py").write_text(MISTAKES, encoding="utf-8")
    for i, snippet in enumerate(readme_snippets()):
        (folder / f"readme_{i}.py").write_text(snippet, encoding="utf-8")
    files = sorted(str(path) for path in folder.glob("*.py"))
    pyright = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*pyright, "--outputjson", *files],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files)
    messages = {Path(file).name: [] for file in files}
    for message in report["generalDiagnostics"]:
        line = message["range"]["start"]["line"] + 1
        kind = message.get("rule"), message["message"]
        messages[Path(message["file"]).name].append((line, *kind))
    return messages


def test_a_client_that_imports_every_public_name_has_no_error(found):
    assert found["every_name.py"] == []


def test_the_snippets_of_the_readme_have_no_error(found):
    snippets = [name for name in found if name.startswith("readme_")]
    assert len(snippets) >= 2
    for name in snippets:
        assert found[name] == []


def test_planted_mistakes_are_found_and_nothing_else(found):
    lines = MISTAKES.splitlines()
    planted = [i for i, text in enumerate(lines, 1) if text.endswith("# mistake")]
    assert len(planted) >= 10
    errors = {line for line, rule, _ in found["mistakes.py"] if rule != BARE}
    assert sorted(errors) == planted


def completions(code):
    return [completion.name for completion in jedi.Script(code).complete()]


def test_an_editor_completes_names_and_shows_signatures():
    assert completions("import gcelib\ngcelib.GCEL") == ["GCELoss"]
    assert "reliability_diagram" in completions("from gcelib import plots\nplots.reli")
    [signature] = jedi.Script("import gcelib\ngcelib.ece(").get_signatures()
    assert [p.name for p in signature.params][:3] == ["logits", "labels", "n_bins"]
