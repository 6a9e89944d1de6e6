"""The engineer's path: papermill gives a file to lesson 09, an answer comes back."""

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import pytest
import torch

from gcelib import (
    ReliabilityExplorer,
    advise,
    advise_confidences,
    load_own_logits,
    make_calibrator,
    metrics,
    runs,
)
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


def run(engine_name=None, **parameters):
    """The text of the notebook's outputs, as papermill leaves them."""
    done = papermill.execute_notebook(
        LESSON,
        "out.ipynb",
        parameters,
        engine_name=engine_name,
        kernel_name="python3",
        progress_bar=False,
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
    tail = text[text.index("On 900 test samples") :]
    said = re.search(r"ECE ([\d.]+) to ([\d.]+) %", tail)
    assert float(said[1]) == pytest.approx(100 * metrics.ece(*test), abs=0.006)
    after = 100 * metrics.ece(calibrated, test[1])
    assert float(said[2]) == pytest.approx(after, abs=0.006)
    assert (tmp_path / "mine_calibrator.pt").is_file()
    with pytest.raises(
        papermill.PapermillExecutionError, match="there already"
    ) as error:
        # What exists is never written over; without a kernel of its own, to be fast.
        run(engine_name="gcelib", logits="mine.npz")
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


def four_classes(n, seed=0, names=("cow", "cat", "dog", "emu")):
    """A table of a model of four classes, a fifth of its confidences below one half."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 1.0, n).round(4)
    right = rng.random(n) < confidence**2  # says more than is true
    prediction = rng.integers(0, 4, n)
    label = np.where(right, prediction, (prediction + rng.integers(1, 4, n)) % 4)
    return confidence, np.array(names)[label], np.array(names)[prediction]


def ece_by_hand(confidence, correct, bins=20):
    """Bins (lo, hi], one by one."""
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            gap = confidence[inside].mean() - correct[inside].mean()
            total += inside.sum() * abs(gap)
    return total / len(confidence)


def write_table(name, *parts):
    """A table as a German spreadsheet writes it; several parts get a split."""
    lines = ["Split;True Label;Pred;Score"]
    for split, part in zip(("val", "test"), parts, strict=False):
        for c, y, k in zip(*part, strict=True):
            lines.append(f"{split};{y};{k};{c:.4f}".replace(".", ","))
    Path(name).write_text("\r\n".join(lines), encoding="utf-8-sig")


def test_of_confidences_error_and_ece_are_those_of_the_predictions():
    val, test = four_classes(1500), four_classes(1000, seed=1)
    assert 0.15 < (test[0] < 0.5).mean() < 0.35
    write_table("mine.csv", val, test)
    own = load_own_logits("mine.csv")
    assert own.form == "confidences"
    assert own.n_classes == 4
    assert "1,500 validation samples and 1,000 test samples, 4 classes occur" in str(
        own
    )
    advice = own.advise()
    rows = {row.name: row for row in advice.rows}
    assert set(rows) == {"raw", "ts_nll", "ets", "bias", "vector", "isotonic"}
    c, right = val[0], val[1] == val[2]
    assert rows["raw"].error == pytest.approx(1 - right.mean())
    assert rows["raw"].ece == pytest.approx(ece_by_hand(c, right), abs=1e-9)
    by_hand = -np.where(right, np.log(c), np.log1p(-np.minimum(c, 1 - 1e-300))).mean()
    if (c < 1).all():
        assert rows["raw"].nll == pytest.approx(by_hand)
    c, right = test[0], test[1] == test[2]
    for row in rows.values():  # no calibrator changes a prediction
        assert row.error == pytest.approx(rows["raw"].error)
        assert row.test_error == pytest.approx(1 - right.mean())
    assert rows["raw"].test_ece == pytest.approx(ece_by_hand(c, right), abs=1e-9)
    stages = own.stages(advice)
    np.testing.assert_allclose(stages["before"][0], c, atol=1e-12)
    after = stages["after"][0].numpy()
    chosen = rows[advice.name]
    assert chosen.test_ece == pytest.approx(ece_by_hand(after, right), abs=1e-9)
    assert chosen.test_ece < rows["raw"].test_ece / 2
    assert own.reliability(*stages["after"]).ece == pytest.approx(chosen.test_ece)
    assert "Tried was what acts on a confidence alone" in advice.sentence
    assert "logits" not in advice.sentence
    assert all("logits" not in row.label for row in rows.values())


@pytest.mark.parametrize("shares", [[0.25] * 4, [0.6, 0.2, 0.1, 0.1], [0.9, 0.1]])
def test_labels_of_other_samples_beside_predictions_are_told(shares, tmp_path):
    rng = np.random.default_rng(1)
    k = len(shares)
    label = rng.choice(k, 1500, p=shares)
    p = np.exp(rng.normal(size=(1500, k)) + 3 * np.eye(k)[label]) * shares
    p /= p.sum(1, keepdims=True)
    columns = {"label": label, "prediction": p.argmax(1), "confidence": p.max(1)}
    told = []
    for name in ("right", "shuffled"):
        table = pd.DataFrame(columns)
        if name == "shuffled":
            table["label"] = rng.permutation(label)
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        own = load_own_logits(tmp_path / f"{name}.csv", tmp_path / f"{name}.pt")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            own.advise(folds=2)
        told.append([str(w.message) for w in caught])
    assert not any("in any other order" in message for message in told[0])
    assert any("fit them no better than in any other" in m for m in told[1])


def test_figure_and_sentence_cut_the_same_bins_of_confidences_in_float32(tmp_path):
    """0.73, written as 0.7300000190734863."""
    confidence, label, prediction = four_classes(200)
    written = confidence.round(2).astype(np.float32).astype(float)
    path = tmp_path / "own.csv"
    columns = {"label": label, "prediction": prediction, "confidence": written}
    pd.DataFrame(columns).to_csv(path, index=False)
    own = load_own_logits(path, tmp_path / "own.pt")
    advice = own.advise()
    bins = np.ceil((written * 20).round(4))
    gaps = [(written - (label == prediction))[bins == b].sum() for b in range(21)]
    expected = pytest.approx(np.abs(gaps).sum() / 200, abs=1e-6)
    assert advice.rows[0].ece == expected
    assert own.reliability(*own.stages(advice)["before"]).ece == expected


def test_of_confidences_the_advised_function_has_one_value_for_each_confidence():
    confidence, label, prediction = four_classes(1500)
    advice = advise_confidences(confidence, label == prediction)
    grid = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    logits = metrics.logits_from_probabilities(torch.stack([1 - grid, grid], 1))
    for row in advice.rows[1:]:
        fitted = make_calibrator(row.name).fit(advice.before, advice.labels)
        claimed = fitted(logits).softmax(1)[:, 1]
        assert (claimed.diff() >= -1e-9).all(), row.name  # rises with the confidence
        both = fitted(logits.flip(0)).softmax(1)[:, 1]
        torch.testing.assert_close(both.flip(0), claimed)


def test_of_confidences_classes_and_samples_are_those_of_the_file():
    confidence, label, prediction = four_classes(800)
    write_table("mine.csv", (confidence, label, prediction))
    own = load_own_logits("mine.csv")
    advice = own.advise()
    table = own.classes(advice)
    for name, row in table.iterrows():
        its = prediction == name
        assert row["samples"] == its.sum()
        assert row["right"] == pytest.approx(100 * (label == prediction)[its].mean())
        assert row["claimed before"] == pytest.approx(100 * confidence[its].mean())
    samples = own.samples(advice)
    assert samples["label"].tolist() == label.tolist()
    assert samples["prediction"].tolist() == prediction.tolist()
    assert samples["right"].tolist() == (label == prediction).tolist()
    np.testing.assert_allclose(samples["confidence before"], confidence, atol=1e-12)


def test_the_shares_of_classes_have_all_their_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    logits = (2 * rng.normal(size=(1500, 3))).astype(np.float32)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    np.savez(
        "mine.npz",
        val_logits=logits[:1000],
        val_labels=labels[:1000],
        test_logits=logits[1000:],
        test_labels=labels[1000:],
    )
    own = load_own_logits("mine.npz")
    table = own.classes(own.advise()).sort_index()
    test = logits[1000:].astype(float)
    shares = np.exp(test) / np.exp(test).sum(1, keepdims=True)
    counts = np.bincount(labels[1000:], minlength=3)
    np.testing.assert_array_equal(table["true"], 100 * (counts / 500))
    np.testing.assert_allclose(
        table["claimed before"], 100 * shares.mean(0), rtol=1e-12
    )


def test_of_confidences_the_page_says_the_same():
    confidence, label, prediction = four_classes(600)
    right = label == prediction
    pairs = {"before": (confidence, right)}
    explorer = ReliabilityExplorer(pairs, val=pairs, confidences=True)
    (row,) = explorer.answer["rows"]
    numbers = row["numbers"]
    assert numbers["error"] == pytest.approx(1 - right.mean())
    assert numbers["ece"] == pytest.approx(ece_by_hand(confidence, right), abs=1e-6)
    assert sum(row["counts"][:10]) == (confidence <= 0.5).sum()
    assert explorer._calibrators == [
        "raw",
        "ts_nll",
        "ets",
        "bias",
        "vector",
        "isotonic",
    ]
    explorer.selected = {"kind": "bar", "run": "before", "low": 0.3, "high": 0.4}
    found = explorer.answer["samples"]
    inside = (confidence > 0.3) & (confidence <= 0.4)
    assert found["count"] == pytest.approx(inside.sum(), abs=1)
    assert found["wrong"] == pytest.approx((inside & ~right).sum(), abs=1)
    assert set(found["prediction"]) == {1}


def test_lesson_09_answers_a_spreadsheet_of_confidences():
    val, test = four_classes(900), four_classes(700, seed=1)
    write_table("mine.csv", val, test)
    text = run(logits="mine.csv")
    c, right = test[0], test[1] == test[2]
    error = 100 * (1 - right.mean())
    ece = 100 * ece_by_hand(c, right)
    assert "'True Label' is read as label, 'Pred' as prediction" in text
    assert "classes: 0 = cat, 1 = cow, 2 = dog, 3 = emu" in text
    assert f"error {error:.2f} to {error:.2f} %" in text
    # Of confidences of few digits nobody knows whether some are there twice.
    assert f"On 700 test samples: ECE {ece:.2f} to" in text
    names = {"confidences": c}
    exec(re.search(r"(import torch\n.*\[:, 1\])", text, re.S)[1], names)
    after = names["calibrated"].numpy()
    said = re.search(
        r"700 test samples: ECE [\d.]+ to ([\d.]+) %", text.replace("\n", " ")
    )
    assert float(said[1]) == pytest.approx(100 * ece_by_hand(after, right), abs=0.006)
    assert Path("mine_calibrator.html").stat().st_size > 10_000


def test_labels_at_chance_are_told_of_confidences_too():
    confidence, label, _ = four_classes(400)
    advice = advise_confidences(confidence, label == "cow", model_classes=4)
    shifted = advise_confidences(confidence, np.arange(400) < 60, model_classes=4)
    assert "Look at the labels first" in shifted.sentence
    assert shifted.name == "raw"
    assert advice.form == "confidences"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, y: advise_confidences(c, y[:3]), "correct: has shape"),
        (lambda c, y: advise_confidences(100 * c, y), "confidences: lie in"),
        (
            lambda c, y: advise_confidences(c, y, c),
            "test_confidences: and test_correct",
        ),
        (lambda c, y: advise_confidences(c, y, c, 2 * y), "test_correct: holds other"),
        (lambda c, y: advise_confidences(c[:9], y[:9]), "confidences: has 9 samples"),
        (lambda c, y: advise_confidences(c, y, model_classes=1), "model_classes: 1 is"),
    ],
)
def test_confidences_that_cannot_be_are_refused_by_name(call, message):
    confidence, label, prediction = four_classes(100)
    with pytest.raises(ValueError, match=f"^{message}"):
        call(confidence, (label == prediction).astype(int))


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


def test_the_probability_of_one_of_two_classes_is_told_from_a_confidence():
    rng = np.random.default_rng(1)
    p = rng.random(1000)
    hit = (rng.random(1000) < p) == (p > 0.5)
    with pytest.warns(UserWarning, match="confidences: of .* are right, the more the"):
        advise_confidences(p, hit)
    for power in (0.3, 3):  # claims too little, or too much
        honest = rng.uniform(0.1, 1, 1000)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            advise_confidences(honest, rng.random(1000) < honest**power)
