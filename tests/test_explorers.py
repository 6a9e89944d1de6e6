"""The explorers' Python side: every number is the metrics' and the losses' own."""

import base64
import fnmatch
import io
import json
import math
import re
import shutil
import tomllib
import warnings
import zlib
from pathlib import Path

import matplotlib.image
import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from nbclient import NotebookClient

from gcelib import Reliability, calibration, data, losses, metrics, runs
from gcelib.view import bundle, explorers
from gcelib.view.alt import description
from gcelib.view.explorers import PropernessExplorer, ReliabilityExplorer

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["ant", "bee", "cat", "dog"]


def fake(seed, n=600, k=4, scale=2.0, labels=None):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, k, (n,), generator=g) if labels is None else labels
    return scale * (
        torch.randn(len(labels), k, generator=g) + 1.5 * torch.eye(k)[labels]
    ), labels


TEST = {"ce": fake(0, scale=4.0), "brier": fake(1, labels=fake(0)[1])}
TEST["gce"] = fake(2, scale=1.0, labels=fake(0)[1])
VAL = {name: fake(seed, n=300, scale=4.0) for seed, name in enumerate(TEST, 10)}
IMAGES = torch.randint(
    0,
    256,
    (600, 3, 5, 6),
    dtype=torch.uint8,
    generator=torch.Generator().manual_seed(3),
)


def explorer(**options):
    return ReliabilityExplorer(
        TEST, **({"val": VAL, "images": IMAGES, "class_names": NAMES} | options)
    )


def test_an_explorer_keeps_its_samples():
    given = {"ce": tuple(value.clone() for value in TEST["ce"])}
    found = ReliabilityExplorer(given, val=given, calibrator="ts_nll")
    expected = ReliabilityExplorer(
        {"ce": TEST["ce"]}, val={"ce": TEST["ce"]}, calibrator="ts_nll"
    )
    for values in given["ce"]:
        values.zero_()
    assert found.answer["rows"] == expected.answer["rows"]
    found.answer["rows"][0]["numbers"]["ece"] *= 100  # in percent
    found.answer["question"]["losses"].clear()
    assert found.answer["rows"] == expected.answer["rows"]


# --- numbers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"losses": ["brier"]},
        {"losses": []},
        {"losses": ["gce", "ce", "brier"], "n_bins": 7},
        {"temperature": 2.5},
        {"binning": "mass", "n_bins": 15},
        {"binning": "equal", "n_bins": 15},
        {"class_index": 2},
        {"class_index": 0, "binning": "mass", "temperature": 0.4},
        {"calibrator": "ets", "n_bins": 11},
    ],
    ids=str,
)
def test_the_answer_is_what_metrics_say(change):
    e = explorer()
    for name, value in change.items():
        setattr(e, name, value)
    asked = {"losses": ["ce", "gce"], "calibrator": "raw", "temperature": 1.0}
    asked |= {"n_bins": 20, "binning": "width", "class_index": None} | change
    assert e.answer["question"].items() >= asked.items()
    assert [row["name"] for row in e.answer["rows"]] == asked["losses"]
    for row in e.answer["rows"]:
        logits, labels = TEST[row["name"]]
        logits = logits.double()
        if asked["calibrator"] != "raw":
            fitted = calibration.make_calibrator(asked["calibrator"])
            logits = fitted.fit(*VAL[row["name"]])(logits)
        logits = logits / asked["temperature"]
        bins = metrics.reliability(
            logits, labels, asked["n_bins"], asked["binning"], asked["class_index"]
        )
        found = metrics.evaluate(logits, labels, asked["n_bins"])
        expected = found | {"shown_ece": bins.ece}
        assert row["numbers"] == pytest.approx(expected, rel=1e-12)
        for key, value in bins._asdict().items():
            np.testing.assert_array_equal(row[key], np.nan_to_num(value))
    json.dumps(e.answer, allow_nan=False)  # the browser has no NaN


def test_what_only_python_applies_is_offered_where_python_answers(monkeypatch):
    row = calibration.CalibratorRow("Twin", calibration.TemperatureScaling)
    for registry in (calibration.CALIBRATORS, calibration.ALL_CALIBRATORS):
        monkeypatch.setitem(registry, "twin", row)
    page = explorer()
    setup = page._content(0)["setup"]
    assert setup["python_only"] == ["Twin"]
    assert "twin" not in dict(setup["calibrators"])
    assert all("twin" not in r["calibrators"] for r in page._content(0)["data"]["runs"])
    with pytest.raises(ValueError, match="calibrator: the browser cannot apply 'twin'"):
        page.calibrator = "twin"
    monkeypatch.setattr(explorers.reliability, "MOST_CELLS", 100)
    asked = explorer(calibrator="twin")
    assert asked._content(0)["setup"]["python_only"] == []
    assert dict(asked._content(0)["setup"]["calibrators"])["twin"] == "Twin"
    ours = asked.answer["rows"]
    asked.calibrator = "ts_nll"
    assert ours == asked.answer["rows"]


def test_calibrators_are_fitted_once_and_need_validation_data_of_every_run(monkeypatch):
    fits = []
    make = explorers.reliability.make_calibrator
    monkeypatch.setattr(
        explorers.reliability,
        "make_calibrator",
        lambda name: fits.append(name) or make(name),
    )
    e = explorer()
    for name in ("ats", "raw", "ats"):
        e.calibrator = name
        e.temperature = e.temperature + 0.5
        assert e.answer["rows"]
    assert fits == ["ats", "ats"]  # one for each of the two runs shown
    half = ReliabilityExplorer(TEST, val={"ce": VAL["ce"]})
    with pytest.raises(ValueError, match="calibrator: unknown 'ats'"):
        half.calibrator = "ats"


# --- samples --------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    name=st.sampled_from(list(TEST)),
    n_bins=st.integers(1, 30),
    binning=st.sampled_from(["width", "mass", "equal"]),
    class_index=st.sampled_from([None, 0, 3]),
    temperature=st.sampled_from([0.3, 1.0, 4.0]),
    data=st.data(),
)
def test_a_bar_lists_its_own_samples_worst_first(
    name, n_bins, binning, class_index, temperature, data
):
    look = {"n_bins": n_bins, "binning": binning, "class_index": class_index}
    e = explorer(losses=[name], temperature=temperature, n_images=500, **look)
    row = e.answer["rows"][0]
    at = data.draw(st.sampled_from([b for b in range(n_bins) if row["counts"][b]]))
    low, high = row["edges"][at : at + 2]
    e.selected = {"kind": "bar", "run": name, "low": low, "high": high}
    got = e.answer["samples"]
    assert got["count"] == row["counts"][at]
    assert len(got["index"]) == len(set(got["index"])) == min(500, got["count"])
    logits, labels = TEST[name]
    probs = torch.softmax(logits.double() / temperature, 1)
    expected = []
    columns = (got[key] for key in ("index", "label", "prediction", "prob"))
    for index, label, prediction, prob in zip(*columns, strict=True):
        assert label == labels[index]
        assert prediction == probs[index].argmax()
        shown = prediction if class_index is None else class_index
        assert prob == pytest.approx(float(probs[index, shown]), abs=1e-6)
        if class_index is None:
            wrong = prediction != label
            expected.append((not wrong, -prob if wrong else prob))
        else:
            expected.append(-abs((label == class_index) - prob))
    assert expected == sorted(expected)
    if got["count"] <= 500:
        wrong = sum(
            a != b for a, b in zip(got["label"], got["prediction"], strict=True)
        )
        assert got["wrong"] == wrong
        assert np.mean(got["prob"]) == pytest.approx(row["confidence"][at])
    e.errors_only = True
    assert e.answer["samples"]["count"] == got["wrong"]


@pytest.mark.parametrize("n_bins", [4, 10, 20])
@pytest.mark.parametrize("binning", ["width", "mass", "equal"])
def test_the_first_and_the_last_bar_list_what_they_count(binning, n_bins):
    """Also of votes, which tie, as a click asks for them: from 0, and up to 1."""
    rng = np.random.default_rng(3)
    votes = rng.multinomial(10, [0.4, 0.35, 0.25], 1000) / 10
    runs = {"votes": (votes, rng.integers(0, 3, 1000))}
    e = ReliabilityExplorer(runs, probabilities=True, binning=binning, n_bins=n_bins)
    row = e.answer["rows"][0]
    ends = {0: (0, row["edges"][1]), n_bins - 1: (row["edges"][-2], 1)}
    for at, (low, high) in ends.items():
        if row["counts"][at]:
            e.selected = {"kind": "bar", "run": "votes", "low": low, "high": high}
            assert e.answer["samples"]["count"] == row["counts"][at]


def test_a_selection_is_of_confidences_and_outlives_other_bins():
    e = explorer(selected={"kind": "bar", "run": "ce", "low": 0.5, "high": 0.75})
    before = e.answer["samples"]
    for n_bins in (4, 7, 50):
        e.n_bins = n_bins
        assert e.answer["samples"] == before
    e.losses = ["gce"]
    assert e.answer["samples"] is None  # its bar is no longer drawn ...
    e.losses = ["ce", "gce"]
    assert e.answer["samples"] == before  # ... and is again


@pytest.mark.parametrize("n_votes", [20, 50, 64, 100])
def test_confidences_in_half_precision_fall_into_the_bins_that_are_meant(n_votes):
    rng = np.random.default_rng(n_votes)
    confidences = np.round(rng.beta(5, 2, 1000) * n_votes) / n_votes
    correct = rng.random(1000) < confidences - 0.1 * np.sin(40 * confidences)
    n_bins = min(n_votes, 32)
    right = Reliability.from_confidences(confidences, correct, n_bins).ece
    half = (confidences.astype(np.float16), correct)
    shown = ReliabilityExplorer({"votes": half}, confidences=True, n_bins=n_bins)
    assert shown.answer["rows"][0]["numbers"]["ece"] == pytest.approx(right, abs=1e-6)


def test_pages_of_samples_follow_each_other():
    bar = {"kind": "bar", "run": "ce", "low": 0.0, "high": 1.0}
    e = explorer(selected=bar, n_images=500)
    all_of_them = e.answer["samples"]["index"]
    e.n_images = 24
    seen = []
    for first in range(0, 500, 24):
        e.first = first
        seen += e.answer["samples"]["index"]
    assert seen[:500] == all_of_them


def test_disagreements_are_counted_and_listed_in_both_directions():
    e = explorer(pair=["ce", "gce"], n_images=500)
    labels = TEST["ce"][1]
    right = {name: TEST[name][0].argmax(1) == labels for name in ("ce", "gce")}
    both, one, other, neither = e.answer["agreement"]
    assert both == (right["ce"] & right["gce"]).sum()
    assert neither == (~right["ce"] & ~right["gce"]).sum()
    for better, worse, count in (("ce", "gce", one), ("gce", "ce", other)):
        e.selected = {"kind": "disagree", "right": better, "wrong": worse}
        got = e.answer["samples"]
        expected = (right[better] & ~right[worse]).nonzero()[:, 0].tolist()
        assert sorted(got["index"]) == expected
        assert got["count"] == got["wrong"] == count == len(expected) > 0
        assert got["prob"] == sorted(got["prob"], reverse=True)


def test_a_samples_probabilities_are_shown_whole():
    e = explorer(detail=7, temperature=2.0)
    got = e.answer["detail"]
    assert (got["index"], got["label"]) == (7, int(TEST["ce"][1][7]))
    expected = [(TEST[n][0][7].double() / 2).softmax(0).tolist() for n in ("ce", "gce")]
    np.testing.assert_allclose(got["probs"], expected)


# --- above the browser's limit a kernel answers ---------------------------------------


def test_a_kernel_answers_each_message_once_and_sends_the_pictures(monkeypatch):
    monkeypatch.setattr(explorers.reliability, "MOST_CELLS", 100)
    e, answers = explorer(n_images=4), []
    assert e._content(10**6)["data"] is None
    e.observe(lambda change: answers.append(change.new["question"]), "reply")
    e.set_state({"n_bins": 5, "binning": "mass", "temperature": 2})
    assert answers == [e.question]
    assert (e.n_bins, e.binning, e.temperature) == (5, "mass", 2.0)
    e.set_state({"n_bins": 5})
    assert len(answers) == 1
    e.selected = {"kind": "bar", "run": "ce", "low": 0.5, "high": 1.0}
    index = e.reply["samples"]["index"]
    sent = np.frombuffer(e.reply["pixels"], np.uint8).reshape(4, 3, 5, 6)
    np.testing.assert_array_equal(sent, IMAGES[index])


def test_no_page_is_written_that_would_need_a_kernel(monkeypatch, tmp_path):
    monkeypatch.setattr(explorers.reliability, "MOST_CELLS", 100)
    path = tmp_path / "page.html"
    with pytest.raises(ValueError, match=r"^save: the runs hold 7,200 logits, .*100 "):
        explorer().save(path)
    assert not path.exists()


@pytest.mark.parametrize("form", ["logits", "probabilities", "confidences"])
def test_of_too_many_logits_a_page_shows_a_part_and_says_so(
    monkeypatch, tmp_path, form
):
    runs = {name: TEST[name] for name in ("ce", "gce")}
    if form == "probabilities":
        runs = {n: (z.double().softmax(1), y) for n, (z, y) in runs.items()}
    if form == "confidences":
        logits, labels = TEST["ce"]
        sure, top = logits.double().softmax(1).max(1)
        runs = {"ce": (sure, top == labels), "gce": (sure**2, top == labels)}
    options = {} if form == "logits" else {form: True}
    whole = ReliabilityExplorer.for_page(runs, **options)
    n_samples = len(TEST["ce"][1])
    n_cells = sum(z.numel() for z in whole._test.values())
    assert whole.answer == ReliabilityExplorer(runs, **options).answer
    monkeypatch.setattr(explorers.reliability, "MOST_CELLS", n_cells // 4)
    message = f"^runs: {n_samples:,} samples of .* shows {n_samples // 4:,} of them"
    with pytest.warns(UserWarning, match=message):
        page = ReliabilityExplorer.for_page(runs, **options)
    path = page.save(tmp_path / "page.html")
    text = path.read_text()
    assert '"data": null' not in text
    assert f": {n_samples // 4:,} of {n_samples:,} samples" in text
    shown = np.sort(np.random.default_rng(0).permutation(n_samples)[: n_samples // 4])
    part = {name: (z[shown], y[shown]) for name, (z, y) in runs.items()}
    expected = ReliabilityExplorer(part, **options).answer["rows"]
    for row, other in zip(page.answer["rows"], expected, strict=True):
        assert row["counts"] == other["counts"]
        assert row["numbers"] == pytest.approx(other["numbers"], abs=1e-9)


def test_pictures_say_what_was_applied():
    e = explorer(losses=["ce"], calibrator="ts_nll", temperature=1.5)
    assert "after TS (NLL), T = 1.50" in description(e.figure())
    e.calibrator, e.temperature = "raw", 1
    assert "after" not in description(e.figure())
    simplex = PropernessExplorer(loss="focal", gamma=5)
    assert "γ = 5" in description(simplex.figure())
    simplex.loss = "gce"
    simplex.weight, simplex.batch = 0.5, "alike"
    assert "λ = 0.5, a batch of alike images" in description(simplex.figure())
    simplex.loss = "ce"
    assert "=" not in simplex.figure().axes[0].get_title()


# --- input ----------------------------------------------------------------------------


def write_run(folder, splits, seed, dataset="digits"):
    folder.mkdir(parents=True)
    runs.write_json(
        folder / "config.json",
        {"settings": {"dataset": dataset, "seed": 1}, "environment": {}},
    )
    for name in ("val", "test"):
        logits, labels = fake(seed, k=10, labels=getattr(splits, name)[1])
        runs.save_logits(folder, name, logits, labels)
    return folder


def test_run_folders_bring_validation_data_images_and_class_names(tmp_path):
    splits = data.load("digits")
    folders = {
        name: write_run(tmp_path / name, splits, seed)
        for seed, name in enumerate(["ce", "gce"])
    }
    e = ReliabilityExplorer(
        {"gce": str(folders["gce"]), "ce": folders["ce"]}, calibrator="ts_nll"
    )
    assert e.losses == ["ce", "gce"]
    setup = e._content(0)["setup"]
    assert setup["class_names"] == list("0123456789")
    assert setup["n_samples"] == len(splits.test[1])
    logits = calibration.TemperatureScaling().fit(
        *runs.load_logits(folders["ce"], "val")
    )(torch.from_numpy(runs.load_logits(folders["ce"], "test")[0]))
    assert e.answer["rows"][0]["numbers"]["nll"] == pytest.approx(
        metrics.nll(logits, splits.test[1])
    )
    np.testing.assert_array_equal(e._images, splits.test[0])


@pytest.fixture
def own_run(tmp_path):
    """A run of seed 3 on own data, whose seed draws its test part, and its file."""
    rng = np.random.default_rng(0)
    path = tmp_path / "own.npz"
    pictures = rng.integers(0, 256, (60, 1, 5, 5), dtype=np.uint8)
    arrays = {"train_images": pictures, "train_labels": np.arange(60) % 3}
    np.savez(path, **arrays)
    dataset = f"npz:{path}"
    splits = data.load(dataset, 3)
    settings = {
        "dataset": dataset,
        "seed": 3,
        "data_fingerprint": data.source_of(dataset, 3).fingerprint,
    }
    folder = tmp_path / "run"
    folder.mkdir()
    runs.write_json(folder / "config.json", {"settings": settings, "environment": {}})
    for name in ("val", "test"):
        logits, labels = fake(1, k=3, labels=getattr(splits, name)[1])
        runs.save_logits(folder, name, logits, labels)
    return folder, splits, path, arrays


def test_pictures_of_own_data_are_those_of_the_runs_seed(own_run):
    folder, splits, *_ = own_run
    e = ReliabilityExplorer({"ce": folder})
    np.testing.assert_array_equal(e._images, splits.test[0])
    assert not torch.equal(data.load(splits.name, 1).test[0], splits.test[0])


@pytest.mark.parametrize("order", [np.arange(60)[::-1], np.arange(60) - 3])
def test_pictures_of_data_that_changed_are_not_shown(own_run, order):
    """The second order leaves every label where it was."""
    folder, splits, path, arrays = own_run
    np.savez(path, **{name: values[order] for name, values in arrays.items()})
    with pytest.warns(UserWarning, match="has changed since 'ce' was tested on it"):
        e = ReliabilityExplorer({"ce": folder})
    assert e._images is None
    shown = ReliabilityExplorer(
        {"ce": folder}, images=splits.test[0], class_names=["a", "b", "c"]
    )
    np.testing.assert_array_equal(shown._images, splits.test[0])


def test_a_folder_of_logits_alone_is_shown_with_pictures_and_names(own_run):
    folder, splits, *_ = own_run
    (folder / "config.json").unlink()
    e = ReliabilityExplorer(
        {"ce": folder}, images=splits.test[0], class_names=["a", "b", "c"]
    )
    np.testing.assert_array_equal(e._images, splits.test[0])


def test_runs_on_two_contents_of_one_file_are_refused(own_run, tmp_path):
    folder = own_run[0]
    later = tmp_path / "later"
    shutil.copytree(folder, later)
    config = runs.read_json(later / "config.json")
    config["settings"]["data_fingerprint"] = "another"
    runs.write_json(later / "config.json", config)
    with pytest.raises(ValueError, match="runs: 'ce' and 'gce' were tested on differe"):
        ReliabilityExplorer({"ce": folder, "gce": later}, images=own_run[1].test[0])


def test_seeds_whose_functions_data_are_others_are_told(own_run, tmp_path):
    """Their labels may be alike where samples lie in the order of their classes."""
    folder = own_run[0]
    shown = {"images": own_run[1].test[0], "class_names": ["a", "b", "c"]}
    folders = {}
    for name, seed in (("one", 1), ("two", 2)):
        folders[name] = tmp_path / name
        shutil.copytree(folder, folders[name])
        config = runs.read_json(folder / "config.json")
        config["settings"] |= {"dataset": "mine.py:load", "seed": seed}
        config["settings"]["data_fingerprint"] = name
        runs.write_json(folders[name] / "config.json", config)
    with pytest.warns(UserWarning, match="runs: 'one', 'two' have data of their own"):
        ReliabilityExplorer(folders, **shown)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ReliabilityExplorer({"one": folders["one"], "other": folders["one"]}, **shown)


def test_folds_of_two_names_whose_labels_are_alike_are_told(own_run, tmp_path):
    folder = own_run[0]
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = runs.read_json(folder / "config.json")
    config["settings"] |= {"dataset": "npz:/fold2.npz", "data_fingerprint": "another"}
    runs.write_json(other / "config.json", config)
    with pytest.warns(
        UserWarning, match="runs: they are of other data .*fold2.npz.*eq"
    ):
        ReliabilityExplorer(
            {"one": folder, "two": other},
            images=own_run[1].test[0],
            class_names=["a", "b", "c"],
        )


def test_calibrators_fitted_on_what_is_shown_are_told(recwarn):
    ReliabilityExplorer(TEST, val=VAL)
    assert not len(recwarn)
    with pytest.warns(UserWarning, match="val: those of 'ce' are the samples that are"):
        ReliabilityExplorer({"ce": TEST["ce"]}, val={"ce": TEST["ce"]})


@pytest.mark.parametrize(
    "how", ["shuffled", "fewer", "half", "brain", "mixed", "a list"]
)
def test_samples_that_are_shown_are_found_among_those_of_the_fit(how):
    g = torch.Generator().manual_seed(0)
    logits, labels = (torch.as_tensor(part) for part in TEST["ce"])
    order = torch.randperm(len(labels), generator=g)
    fitted = {
        "shuffled": (logits[order], labels[order]),
        "fewer": (logits[1:], labels[1:]),
        "half": (logits.half(), labels),
        "brain": (logits.bfloat16(), labels),
        "a list": (logits.flip(0).tolist(), labels.flip(0).tolist()),
        "mixed": tuple(
            torch.cat([torch.as_tensor(mine), part[: len(part) // 2]])
            for mine, part in zip(VAL["ce"], (logits, labels), strict=True)
        ),
    }[how]
    with pytest.warns(UserWarning, match=r"val: those of 'ce' hold [\d,]+ of the"):
        ReliabilityExplorer({"ce": TEST["ce"]}, val={"ce": fitted})


def test_validation_of_other_classes_is_refused():
    logits, labels = (torch.as_tensor(part) for part in VAL["ce"])
    more = torch.cat([logits, logits[:, :1] - 9], 1)
    with pytest.raises(ValueError, match=r"^val: of .ce. has .* classes, runs have "):
        ReliabilityExplorer({"ce": TEST["ce"]}, val={"ce": (more, labels)})


def test_pictures_stay_what_they_were_when_given():
    pictures = np.array(IMAGES)
    e = ReliabilityExplorer(TEST, images=pictures)
    pictures[:] = pictures[::-1].copy()
    np.testing.assert_array_equal(e._images, IMAGES)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([{}], {}, "runs: must be a mapping and not empty"),
        ([[TEST["ce"]]], {}, "runs: must be a mapping"),
        ([{1: TEST["ce"]}], {}, "runs: has the name 1, of type int; pass text, such"),
        (
            [{"ce": TEST["ce"], "gce": fake(1)}],
            {},
            "'ce' and 'gce' were tested on different samples",
        ),
        ([{"ce": TEST["ce"], "gce": fake(0, n=50)}], {}, "different samples"),
        ([{"ce": (TEST["ce"][0], TEST["ce"][1].float())}], {}, "labels: has dtype"),
        (
            [{"ce": (TEST["ce"][0] * torch.inf, TEST["ce"][1])}],
            {},
            "logits: contains NaN or infinity",
        ),
        ([{"ce": TEST["ce"][0]}], {}, "runs: must hold pairs"),
        ([TEST], {"val": {"ce": VAL["ce"][0]}}, "val: must hold pairs"),
        (
            [TEST],
            {"val": {"cee": VAL["ce"]}},
            "val: unknown key 'cee'; did you mean 'ce'",
        ),
        ([TEST], {"images": IMAGES[:-1]}, "images: are 599, the logits ask for 600"),
        (
            [TEST],
            {"images": IMAGES.float()},
            "images: have dtype torch.float32; pass uint8",
        ),
        (
            [TEST],
            {"class_names": NAMES[:3]},
            "class_names: are 3, the logits ask for 4",
        ),
        ([TEST], {"n_images": 0}, "n_images: 0 is outside"),
        ([TEST], {"bins": 10}, "settings: unknown key 'bins'; did you mean 'n_bins'"),
        ([TEST], {"losses": ["cee"]}, "losses: unknown 'cee'; did you mean 'ce'"),
        ([TEST], {"n_bins": 2.5}, "n_bins: must be a whole number"),
        ([TEST], {"n_bins": 51}, "n_bins: 51 is outside"),
        ([TEST], {"temperature": 0}, "temperature: 0 is outside"),
        ([TEST], {"binning": "both"}, "binning: unknown 'both'"),
        ([TEST], {"calibrator": "ats"}, "calibrator: unknown 'ats'"),
        ([TEST], {"class_index": 4}, "class_index: 4 is outside"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ReliabilityExplorer(*arguments, **options)


@pytest.mark.parametrize("change", [lambda z: z + 3e9, lambda z: z * 1e42])
def test_logits_that_float32_cannot_hold_mean_the_same(change):
    logits, labels = fake(0, n=50)
    logits = change(logits.double())
    travelled, _ = explorers.given.read_pair("models", (logits, labels))
    assert travelled.dtype == torch.float32
    torch.testing.assert_close(
        travelled.softmax(1).double(), logits.softmax(1), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-12])
@pytest.mark.parametrize("offset", [0.0, 37.0, 9e3])
def test_what_float32_cannot_tell_apart_is_predicted_as_in_float64(offset, scale):
    logits, labels = fake(0, n=300)
    logits = scale * logits.double() + offset
    expected = metrics.evaluate(logits, labels)
    page = ReliabilityExplorer({"mine": (logits, labels)})
    numbers = page.answer["rows"][0]["numbers"]
    assert numbers["error"] == expected["error"]
    assert numbers["nll"] == pytest.approx(expected["nll"], abs=1e-7)


@pytest.mark.parametrize("names", ["abcd", {1: "b", 0: "a", 2: "c", 3: "d"}, {*"abcd"}])
def test_class_names_without_an_order_are_refused(names):
    with pytest.raises(TypeError, match="class_names: must be a list of names"):
        ReliabilityExplorer({"mine": fake(0, n=50)}, class_names=names)
    array = ReliabilityExplorer(
        {"mine": fake(0, n=50)}, class_names=np.array([*"abcd"])
    )
    assert array._names == [*"abcd"]


def test_a_refused_setting_changes_nothing():
    e = explorer()
    before = e.question
    bar = {"kind": "bar", "run": "ce", "low": 0.0, "high": 1.0}
    for name, value in [
        ("n_bins", "ten"),
        ("selected", ["ce", 50]),
        ("selected", bar | {"high": 2.0}),
        ("selected", bar | {"run": "no"}),
        ("selected", {"kind": "disagree", "right": "ce"}),
        ("losses", ["no"]),
        ("pair", ["ce"]),
        ("detail", 600),
        ("first", -1),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"{name}: "):
            setattr(e, name, value)
    assert e.question == before


# --- without a kernel -----------------------------------------------------------------


def content_of(html):
    """What the script on the page reads."""
    text = html.split('<script type="application/json">')[1].split("</script>")[0]
    return json.loads(text)


@pytest.mark.parametrize(
    "make", [explorer, lambda: explorer(losses=[]), PropernessExplorer]
)
def test_the_output_is_a_picture_and_what_brings_it_to_life(make):
    bundle, metadata = make()._repr_mimebundle_()
    assert metadata["image/png"]["alt"].startswith("Figure: ")
    assert set(bundle) == {"text/plain", "text/html", "image/png"}
    picture = base64.b64decode(bundle["image/png"])
    pixels = matplotlib.image.imread(io.BytesIO(picture), format="png")
    assert min(pixels.shape[:2]) > 200
    assert bundle["image/png"] in bundle["text/html"]
    assert '<img alt="Figure: ' in bundle["text/html"]


def test_the_picture_shows_the_present_state():
    e = explorer()
    first = e._picture()
    assert e._picture() == first
    e.n_bins = 5
    assert e._picture() != first


def test_logits_labels_and_fits_travel_whole():
    e = explorer(images=None)
    content = content_of(e._repr_mimebundle_()[0]["text/html"])
    assert content["settings"] == e.question
    assert content["images"] is None
    for run in content["data"]["runs"]:
        sent = np.frombuffer(base64.b64decode(run["logits"]), "<f4").reshape(600, 4)
        np.testing.assert_array_equal(sent, TEST[run["name"]][0])
        fits = run["calibrators"]
        assert list(fits) == e._calibrators[1:]
        fitted = calibration.TemperatureScaling().fit(*VAL[run["name"]])
        assert fits["ts_nll"]["temperature"] == pytest.approx(float(fitted.temperature))


@pytest.mark.parametrize("room", [0, 5_000, 10**6])
def test_the_images_that_fit_are_those_that_bars_list_first(room):
    e = explorer()
    images = e._content(room)["images"]
    packed = base64.b64decode(images["deflated"])
    assert len(packed) <= room
    if room == 0:
        return
    index = np.frombuffer(base64.b64decode(images["index"]), "<i4")
    pixels = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(-1, 3, 5, 6)
    np.testing.assert_array_equal(pixels, IMAGES[index])
    confidence, correct = metrics.top_label(*TEST["ce"])
    worst = int(np.argmax(np.where(correct, -1, confidence)))
    assert (room == 10**6) == (len(index) == 600)
    assert worst in index


def test_names_cannot_end_the_script():
    e = explorer(class_names=["</script>", "<!--", "\ud800", "&"])
    html = e._repr_mimebundle_()[0]["text/html"]
    assert html.count("</script>") == 2
    assert content_of(html)["setup"]["class_names"] == ["</script>", "<!--", "?", "&"]


def test_a_saved_page_is_one_file_that_asks_for_nothing(tmp_path):
    path = explorer().save(tmp_path / "x.html", title="A & B")
    text = path.read_text(encoding="utf-8")
    assert "<title>A &amp; B</title>" in text
    own = {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'<)]*", text)) <= own
    assert not re.search(r"<link|\bsrc=\"(?!data:)|\bimport\(|\bfetch\(", text)
    assert path.stat().st_size < 12_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["x.html"]


def test_a_page_too_large_to_send_is_refused_and_nothing_is_written(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(explorers.page, "MOST_IN_FILE", 10_000)
    with pytest.raises(ValueError, match=r"save: the page would take .* pass fewer"):
        explorer().save(tmp_path / "x.html")
    assert not list(tmp_path.iterdir())


def test_images_leave_room_in_a_file(tmp_path, monkeypatch):
    bare = len(explorer(images=None)._html((b"", ""), 0))
    monkeypatch.setattr(explorers.page, "MOST_IN_FILE", bare + 300_000)
    e = explorer()
    size = e.save(tmp_path / "x.html").stat().st_size
    assert size <= explorers.page.MOST_IN_FILE


def test_a_saved_notebook_needs_no_widget_state():
    code = "from gcelib import PropernessExplorer\nPropernessExplorer(loss='focal')"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(
        notebook, kernel_name="python3", timeout=120, store_widget_state=False
    ).execute()
    assert "widgets" not in notebook.metadata
    (output,) = notebook.cells[0].outputs
    assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")
    assert "application/vnd.jupyter.widget-view+json" not in output.data


def test_the_drawing_is_packaged():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["gcelib.view"]
    for path in (ROOT / "gcelib" / "view" / "static").iterdir():
        assert any(fnmatch.fnmatch(f"static/{path.name}", one) for one in patterns)


def test_the_entry_says_where_every_module_belongs():
    text = (bundle.STATIC / "explorer.js").read_text(encoding="utf-8")
    named = set(re.findall(r"\w+", text.split("\nimport ")[0]))
    modules = {path.stem for path in bundle.STATIC.glob("*.js")}
    assert len(modules) > 20
    assert modules <= named | {"explorer"}


def test_one_script_holds_every_module_once():
    names = re.findall(r"^(?:async )?(?:function|class|const|let) (\w+)", script, re.M)
    assert len(names) == len(set(names))
    assert not re.search(r"^(?:import|export) ", script, re.M)


script = bundle.script("explorer")


# --- the simplex ----------------------------------------------------------------------

TRUTHS = st.lists(st.integers(1, 60), min_size=3, max_size=3).map(
    lambda parts: [part / sum(parts) for part in parts]
)
SLOW = settings(derandomize=True, deadline=None, max_examples=25)


def slow_risk(p, e):
    """The risk of one prediction, written down as the docstring says it."""
    q = torch.tensor(e.truth, dtype=torch.float64)
    log_p = torch.tensor(p, dtype=torch.float64).log()
    if e.loss != "gce":
        options = {"gamma": e.gamma} if e.loss in ("focal", "dfl") else {}
        loss = losses.make_loss(e.loss, **options)
        return float(sum(q[k] * loss(log_p[None], torch.tensor([k])) for k in range(3)))
    others = torch.tensor(
        [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64
    )
    loss = losses.GCELoss(regularizer_weight=e.weight)
    if e.batch == "alike":
        return float(loss(torch.stack([log_p, log_p]), torch.stack([q, q])))
    return float(
        loss(torch.cat((log_p[None], others.log())), torch.cat((q[None], others)))
    )


@SLOW
@given(
    truth=TRUTHS,
    loss=st.sampled_from(PropernessExplorer._losses),
    gamma=st.sampled_from([0.0, 2.5, 5.0]),
    weight=st.sampled_from([0.0, 0.5, 1.0]),
    batch=st.sampled_from(["varied", "alike"]),
    seed=st.integers(0, 99),
)
def test_the_surface_is_the_risk_that_the_losses_give(
    truth, loss, gamma, weight, batch, seed
):
    e = PropernessExplorer(
        loss=loss, truth=truth, gamma=gamma, weight=weight, batch=batch
    )
    n = e._steps
    assert len(e.answer["risk"]) == (n + 1) * (n + 2) // 2
    for at in np.random.default_rng(seed).integers(0, len(e.answer["risk"]), 5):
        assert e.answer["risk"][at] == pytest.approx(
            slow_risk(e._grid[at].tolist(), e), rel=1e-9
        )
    assert e.answer["risk_at_truth"] == pytest.approx(slow_risk(truth, e), rel=1e-6)
    # the browser finds the point of class counts (i, j, n - i - j) there
    i, j = np.random.default_rng(seed).integers(0, n // 2, 2)
    point = e._grid[i * (n + 1) - i * (i - 1) // 2 + j] * n
    np.testing.assert_allclose(point, [i, j, n - i - j], atol=0.2)


@SLOW
@given(truth=TRUTHS, loss=st.sampled_from(["ce", "brier", "gce"]))
def test_proper_losses_are_minimised_by_the_truth(truth, loss):
    e = PropernessExplorer(loss=loss, truth=truth)
    np.testing.assert_allclose(e.answer["best"], truth, atol=2e-4)


@SLOW
@given(
    truth=TRUTHS,
    loss=st.sampled_from(PropernessExplorer._losses),
    seed=st.integers(0, 99),
)
def test_no_prediction_beats_the_minimiser(truth, loss, seed):
    e = PropernessExplorer(loss=loss, truth=truth)
    elsewhere = torch.from_numpy(
        np.random.default_rng(seed).dirichlet([1, 1, 1], 3000)
    ).clamp_min(1e-9)
    # Where a loss jumps, its infimum lies along that line, and is not reached.
    slack = 1e-6 if loss in ("flsd", "dfl") else 1e-9
    assert e.answer["risk_at_best"] <= float(e._risk(elsewhere).min()) + slack


@pytest.mark.parametrize(
    ("truth", "below"),
    [
        ((0.74, 0.06, 0.2), (0.6002, 0.1999, 0.1999)),
        ((0.69, 0.1, 0.21), (0.6002, 0.1999, 0.1999)),
        ((0.24, 0.12, 0.64), (0.1999, 0.1999, 0.6002)),
    ],
)
def test_flsd_is_least_where_two_probabilities_lie_below_its_step(truth, below):
    """Its exponent is 5 below 0.2, else 3; risks by the definition."""

    def risk(p):
        return sum(
            q * (1 - t) ** (5 if t < 0.2 else 3) * -math.log(t)
            for q, t in zip(truth, p, strict=True)
        )

    answer = PropernessExplorer(loss="flsd", truth=truth).answer
    assert answer["risk_at_best"] <= risk(below)
    assert answer["risk_at_best"] == pytest.approx(risk(answer["best"]), rel=1e-9)


def test_focal_loss_reports_less_confidence_than_the_truth():
    e = PropernessExplorer(loss="focal", truth=[0.6, 0.3, 0.1], gamma=3)
    assert max(e.answer["best"]) < 0.5
    e.gamma = 0.0
    np.testing.assert_allclose(e.answer["best"], e.truth, atol=2e-4)


def test_gce_cannot_find_the_truth_among_copies_unless_mixed_with_cross_entropy():
    e = PropernessExplorer(loss="gce", batch="alike")
    assert e.answer["best"] is None
    assert np.ptp(e.answer["risk"]) < 1e-9
    e.weight = 0.9
    np.testing.assert_allclose(e.answer["best"], e.truth, atol=2e-4)
    e.batch, e.weight = "varied", 1.0
    np.testing.assert_allclose(e.answer["best"], e.truth, atol=2e-4)


@pytest.mark.parametrize("corner", [[1, 0, 0], [0, 0.5, 0.5]])
@pytest.mark.parametrize("loss", ["ce", "gce", "flsd"])
def test_a_truth_on_the_rim_has_finite_risks(corner, loss):
    answer = PropernessExplorer(loss=loss, truth=corner).answer
    assert np.isfinite(
        [
            *answer["risk"],
            *answer["levels"],
            answer["risk_at_truth"],
            answer["risk_at_best"],
        ]
    ).all()
    assert max(answer["best"]) == pytest.approx(
        max(corner), abs=0.05 if loss == "flsd" else 1e-3
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mmce"}, "loss: unknown 'mmce'"),
        ({"truth": [0.5, 0.5]}, "truth: .* not three probabilities"),
        ({"truth": [0.5, 0.4, 0.2]}, "truth: .* sum 1"),
        ({"truth": [1.5, -0.5, 0]}, "truth: 1.5 is outside"),
        ({"gamma": -1}, "gamma: -1 is outside"),
        ({"weight": 1.5}, "weight: 1.5 is outside"),
        ({"batch": "none"}, "batch: unknown 'none'"),
        ({"lambda_": 1}, "settings: unknown key 'lambda_'"),
    ],
)
def test_bad_settings_of_the_simplex_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        PropernessExplorer(**options)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("form", ["logits", "probabilities", "confidences"])
def test_probabilities_on_an_edge_are_binned_as_the_metrics_bin_them(form, dtype):
    # 0.01, 0.02, ...: as people write confidences down, a fifth of them on an edge.
    rng = np.random.default_rng(0)
    said = rng.integers(50, 100, 2000) / 100
    hits = rng.random(2000) < 1.6 * said - 0.6
    probs = np.stack([(1 - said).round(2), said], 1).astype(dtype)
    labels = hits.astype(int)
    expected = metrics.evaluate(probs, labels, probabilities=True)
    if form == "confidences":
        options, pair = {"confidences": True}, (said.astype(dtype), hits)
    elif form == "probabilities":
        options, pair = {"probabilities": True}, (probs, labels)
    else:
        options = {}
        pair = (np.log(probs), labels)
    page = ReliabilityExplorer({"mine": pair}, **options)
    row = page.answer["rows"][0]
    for name in ("ece", "classwise_ece"):
        assert row["numbers"][name] == pytest.approx(expected[name], abs=1e-6)
    bins = metrics.Reliability.from_confidences(said.astype(dtype), hits)
    assert row["counts"] == bins.counts.tolist()
    page.selected = {"kind": "bar", "run": "mine", "low": 0.9, "high": 0.95}
    assert page.answer["samples"]["count"] == bins.counts[18]
    assert page._content(0)["data"]["tolerance"] > 4e-7  # the browser's engine


def test_probabilities_are_told_and_taken_as_such():
    logits, labels = TEST["ce"]
    probs = logits.double().softmax(1)
    with pytest.warns(UserWarning, match="rows are >= 0 and sum to 1"):
        ReliabilityExplorer({"ce": (probs, labels)})
    right = ReliabilityExplorer({"ce": (logits, labels)}).answer["rows"][0]
    taken = ReliabilityExplorer(
        {"ce": (probs, labels)}, val={"ce": (probs, labels)}, probabilities=True
    )
    assert taken.answer["rows"][0]["counts"] == right["counts"]
    hits = (logits.argmax(1) == labels).double()
    confidences = probs.amax(1)
    bins = (confidences * 20).ceil().long() - 1
    gaps = torch.zeros(20).double().index_add_(0, bins, confidences - hits)
    assert taken._bins("ce").ece == pytest.approx(
        float(gaps.abs().sum() / 600), abs=1e-6
    )
    with pytest.raises(ValueError, match="probabilities lie in"):
        ReliabilityExplorer({"ce": (logits, labels)}, probabilities=True)
