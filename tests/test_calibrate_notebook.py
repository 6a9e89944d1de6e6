"""The engineer's path: papermill gives a file of logits to lesson 04, and a calibrator with its advice comes back.

The cells of the lesson itself do not depend on the file and are run by nbval; here only those that do are.
"""

import re
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import torch
from matplotlib import pyplot

from gcelib import make_calibrator, metrics, runs

LESSON = Path(__file__).resolve().parents[1] / "notebooks" / "04_calibrate.ipynb"


def engineers_part():
    """Lesson 04 without the cells that its section 7 does not need."""
    notebook = nbformat.read(LESSON, 4)
    sources = [cell.source for cell in notebook.cells]
    lesson, yours = (next(i for i, s in enumerate(sources) if s.startswith(h)) for h in ("## 1 ·", "## 7 · Your own"))
    needed = [i for i, s in enumerate(sources) if "def paired(" in s and lesson < i < yours]
    notebook.cells = [cell for i, cell in enumerate(notebook.cells) if i < lesson or i in needed or i >= yours]
    return notebook


@pytest.fixture
def calibrate(tmp_path, monkeypatch):
    """Run 04 with parameters from ``tmp_path``, as ``papermill`` does there; returns the text of its outputs."""
    notebook = engineers_part()
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "04_calibrate.ipynb")
    monkeypatch.chdir(tmp_path)

    def run(**parameters):
        done = papermill.execute_notebook(
            "notebooks/04_calibrate.ipynb", "out.ipynb", parameters, kernel_name="python3", progress_bar=False
        )
        return "\n".join(str(o.get("text", "")) for cell in done.cells for o in cell.get("outputs", []))

    return run


def exaggerating(n, k=4, seed=0):
    """A model that claims twice what is true."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, k))
    return (2 * truth).astype(np.float32), (truth + rng.gumbel(size=truth.shape)).argmax(1)


def numbers(pattern, text):
    return [float(value) for value in re.search(pattern, text).groups()]


def test_an_npz_is_calibrated_saved_where_papermill_was_started_and_reported(calibrate, tmp_path):
    val, test = exaggerating(500), exaggerating(900, seed=1)
    np.savez("mine.npz", val_logits=val[0], val_labels=val[1], test_logits=test[0], test_labels=test[1])
    text = calibrate(logits="mine.npz")
    assert "Use one temperature: no calibrator is clearly better than that." in text
    assert "Judged on 900 test samples" in text
    before, after = numbers(r"ECE ([\d.]+) % -> ([\d.]+) %", text)
    assert before == pytest.approx(100 * metrics.ece(*test), abs=0.006)
    names = {}
    exec(re.search(r"(import torch\n.*weights_only=True\)\))", text, re.S)[1], names)  # the lines that it prints
    calibrated = names["calibrator"](torch.from_numpy(test[0]))
    assert after == pytest.approx(100 * metrics.ece(calibrated, test[1]), abs=0.006)
    change, low, high = numbers(r"against before\s*: ECE ([-+.\d]+) points \[([-+.\d]+), ([-+.\d]+)\]", text)
    assert change == pytest.approx(after - before, abs=0.02)
    assert low < change < high < 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.npz", "mine_calibrator.pt", "notebooks", "out.ipynb"]


def test_a_csv_without_a_test_part_and_a_calibrator_by_request(calibrate, tmp_path):
    logits, labels = exaggerating(120, k=3)
    rows = [f"val,{y},{','.join(map(repr, z.tolist()))}" for z, y in zip(logits, labels, strict=True)]
    Path("mine.csv").write_text("\n".join(["split,label,logit_0,logit_1,logit_2", *rows, ""]))
    text = calibrate(logits="mine.csv", calibrator="ats", save_to="kept.pt", choose_by="ece", bootstrap=100, folds=3)
    assert "Saved as you asked: ATS." in text
    assert "Judged on 120 validation samples, each held out in turn; they also chose" in text
    assert "against TS (NLL)" in text
    calibrator = make_calibrator("ats")
    calibrator.load_state_dict(torch.load("kept.pt", weights_only=True))
    refitted = make_calibrator("ats").fit(*runs.load_logits_file("mine.csv")["val"])
    assert torch.equal(calibrator.temperatures, refitted.temperatures)
    assert not (tmp_path / "mine_calibrator.pt").exists()


def test_a_bad_file_is_refused_before_any_work(calibrate, tmp_path):
    logits, labels = exaggerating(50)
    logits[7, 1] = np.nan
    np.savez("mine.npz", val_logits=logits, val_labels=labels)
    with pytest.raises(
        papermill.PapermillExecutionError, match=r"mine\.npz: val_logits: contains NaN.* row 7"
    ) as error:
        calibrate(logits="mine.npz")
    assert error.value.exec_count == 3  # parameters, papermill's, imports and checks
    assert not (tmp_path / "mine_calibrator.pt").exists()


@pytest.mark.parametrize(
    ("claim", "advice", "low", "high"),
    [
        (
            lambda z, p: z,
            r"Leave the logits as they are: no calibrator is clearly better\.\nSaved all the same: TS",
            0.9,
            1.1,
        ),
        (lambda z, p: 3 * z, r"Use one temperature: no calibrator is clearly better than that", 2.8, 3.2),
        (
            lambda z, p: z * np.where(p > 0.7, 3, 0.4),
            r"Use (ATS|ATS, converged|spline): it is clearly better than",
            0,
            0,
        ),
    ],
    ids=["honest", "exaggerated", "bent"],
)
def test_the_advice_fits_the_fault(claim, advice, low, high, tmp_path, monkeypatch, capsys):
    truth = 2 * np.random.default_rng(3).normal(size=(9000, 4))
    labels = (truth + np.random.default_rng(4).gumbel(size=truth.shape)).argmax(1)
    p = np.exp(truth).max(1, keepdims=True) / np.exp(truth).sum(1, keepdims=True)
    z, val, test = claim(truth, p), slice(0, 3000), slice(3000, None)
    np.savez(
        tmp_path / "mine.npz", val_logits=z[val], val_labels=labels[val], test_logits=z[test], test_labels=labels[test]
    )
    monkeypatch.chdir(tmp_path)
    pyplot.switch_backend("agg")
    parameters, *cells = [cell.source for cell in engineers_part().cells if cell.cell_type == "code"]
    names = {"In": [""]}
    for source in (parameters, "logits, bootstrap = 'mine.npz', 300", *cells):
        exec(compile(source, "04_calibrate", "exec"), names)
    pyplot.close("all")
    text = capsys.readouterr().out
    assert re.search(advice, text)
    if high:
        assert low < numbers(r"TS \(NLL\): T = ([\d.]+)", text)[0] < high
        assert "what is left is within the noise" in text
    else:
        change = numbers(r"against TS \(NLL\)\s*: ECE ([-+.\d]+) points \[([-+.\d]+), ([-+.\d]+)\]", text)
        assert change[2] < 0  # the test samples, which did not choose, agree
