"""The engineer's path: papermill gives a file to lesson 09, an answer comes back."""

import re
from pathlib import Path

import numpy as np
import papermill
import pytest
import torch

from gcelib import advise, load_own_logits, make_calibrator, metrics, runs
from gcelib.study.parameters import BadParameter

LESSON = Path(__file__).resolve().parents[1] / "notebooks" / "09_your_logits.ipynb"


def exaggerating(n, k=4, seed=0):
    """A model that claims twice what is true."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, k))
    labels = (truth + rng.gumbel(size=truth.shape)).argmax(1)
    return (2 * truth).astype(np.float32), labels


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(**parameters):
    """The text of the notebook's outputs, as papermill leaves them."""
    done = papermill.execute_notebook(
        LESSON, "out.ipynb", parameters, kernel_name="python3", progress_bar=False
    )
    outputs = [o for cell in done.cells for o in cell.get("outputs", [])]
    return "\n".join(str(o.get("text", "")) for o in outputs)


def test_a_file_is_calibrated_saved_where_papermill_was_started_and_reported(tmp_path):
    val, test = exaggerating(400), exaggerating(900, seed=1)
    arrays = {"val_logits": val[0], "val_labels": val[1]}
    np.savez("mine.npz", **arrays, test_logits=test[0], test_labels=test[1])
    text = run(logits="mine.npz")
    assert "Use one temperature" in text
    said = re.search(r"ECE ([\d.]+) to ([\d.]+) %, NLL [\d.]+ to ([\d.]+),", text)
    names = {}
    lines = re.search(r"(import torch\n.*load_state_dict\(state\))", text, re.S)[1]
    exec(lines, names)  # the lines that it prints
    calibrated = names["calibrator"](torch.from_numpy(test[0]))
    tail = text[text.index("900 test samples") :]
    said = re.search(r"ECE ([\d.]+) to ([\d.]+) %", tail)
    assert float(said[1]) == pytest.approx(100 * metrics.ece(*test), abs=0.006)
    after = 100 * metrics.ece(calibrated, test[1])
    assert float(said[2]) == pytest.approx(after, abs=0.006)
    assert (tmp_path / "mine_calibrator.pt").is_file()
    with pytest.raises(
        papermill.PapermillExecutionError, match="there already"
    ) as error:
        run(logits="mine.npz")  # what exists is never written over
    assert error.value.exec_count == 3  # parameters, papermill's, imports and checks


def test_a_bad_file_is_refused_before_any_work():
    logits, labels = exaggerating(50)
    logits[7, 1] = np.nan
    np.savez("mine.npz", val_logits=logits, val_labels=labels)
    with pytest.raises(
        BadParameter, match=r"mine\.npz: val_logits: contains NaN.* row 7"
    ):
        load_own_logits("mine.npz")


def test_probabilities_are_taken_as_their_logarithm():
    logits, labels = exaggerating(60, k=3)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p[0] = [1, 0, 0]  # exact zeros are allowed
    np.savez("mine.npz", val_probabilities=p, val_labels=labels)
    lines = ["split,label,prob_0,prob_1,prob_2"]
    for row, y in zip(p, labels, strict=True):
        lines.append(",".join(["val", str(y), *(repr(float(v)) for v in row)]))
    Path("mine.csv").write_text("\n".join([*lines, ""]))
    for name in ("mine.npz", "mine.csv"):
        own = load_own_logits(name)
        assert own.form == "probabilities"
        again = torch.from_numpy(own.val[0]).softmax(1).numpy()
        np.testing.assert_allclose(again, p, atol=1e-6)
        np.testing.assert_array_equal(own.val[1], labels)


def test_confidences_become_the_question_whether_they_are_right():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 2000)
    right = rng.random(2000) < confidence**2  # says more than is true
    rows = ["label,prediction,confidence"]
    rows += [
        f"{3 if hit else 4},3,{c}" for c, hit in zip(confidence, right, strict=True)
    ]
    Path("mine.csv").write_text("\n".join([*rows, ""]))
    own = load_own_logits("mine.csv")
    assert own.form == "confidences"
    bins = metrics.reliability(*own.val, class_index=1)
    pairs = metrics.Reliability.from_confidences(confidence, right)
    assert bins.ece == pytest.approx(pairs.ece, abs=1e-6)
    advice = advise(*own.val)
    assert advice.name != "raw"
    after = metrics.reliability(advice.after, advice.labels, class_index=1)
    assert after.ece < bins.ece / 2


def test_the_names_of_the_answer_must_be_free():
    logits, labels = exaggerating(50)
    np.savez("mine.npz", val_logits=logits, val_labels=labels)
    Path("taken.pt").touch()
    Path("page.html").touch()
    for save_to in ("taken.pt", "page.pt"):
        with pytest.raises(BadParameter, match=r"save_to: .* is there already"):
            load_own_logits("mine.npz", save_to)
    with pytest.raises(BadParameter, match=r"does not end in \.pt"):
        load_own_logits("mine.npz", "mine.bin")
    with pytest.raises(BadParameter, match="is no folder"):
        load_own_logits("mine.npz", "nowhere/mine.pt")


def test_the_projects_own_logits_are_the_default():
    own = load_own_logits(None)
    folder = runs.PROJECT / "data/demo/fashion_mini/convnet/gce/seed-01"
    np.testing.assert_array_equal(own.val[0], runs.load_logits(folder, "val")[0])
    assert own.calibrator_path.parent != Path.cwd()


def test_a_saved_calibrator_is_never_written_over():
    logits, labels = exaggerating(300)
    advice = advise(logits, labels)
    path = advice.save("kept.pt")
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"path: .* is there already"):
        advice.save("kept.pt")
    assert path.read_bytes() == content
    Path("dangling.pt").symlink_to("elsewhere.pt")
    with pytest.raises(ValueError, match=r"path: .* is there already"):
        advice.save("dangling.pt")
    assert sorted(p.name for p in Path().iterdir()) == ["dangling.pt", "kept.pt"]
    Path("plain").touch()  # who may read it is the umask's to say
    assert path.stat().st_mode == Path("plain").stat().st_mode
    again = make_calibrator("ts_nll")
    again.load_state_dict(torch.load("kept.pt", weights_only=True))
    assert torch.equal(again(logits), advice.calibrator(logits))
