"""Files of strangers: refused in the house's words, or exactly what was written."""

import csv
import errno
import hashlib
import io
import json
import os
import random
import re
import shutil
import threading
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from gcelib import load_own_logits, runs
from gcelib.study import files, locks, paper, states, stored
from gcelib.study.data import own
from gcelib.study.logits_file import load_logits_file
from gcelib.study.parameters import BadParameter

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
SETTINGS = {
    "dataset": "digits",
    "model": "mlp",
    "loss": "ce",
    "variant": "",
    "seed": 1,
    "lr": 0.05,
}


def finish(folder, **changed):
    with runs.open_run(folder, SETTINGS | changed, {"device": "cpu"}) as run:
        run.save_logits("test", np.eye(4), np.arange(4))
        run.finish({"test_raw_ece": 0.25, "test_raw_nll": 0.5})


def begin(folder, **changed):
    with runs.open_run(folder, SETTINGS | changed, {}) as run:
        run.save_checkpoint({"w": torch.ones(3), "history": [{"epoch": 1}]})


# --- what is no file ----------------------------------------------------------------


def pipe(path):
    os.mkfifo(path)


def endless(path):
    os.symlink("/dev/zero", path)


def link(path):
    path.with_name("elsewhere").write_bytes(b"{}")
    path.symlink_to(path.with_name("elsewhere"))


READERS = {
    "json": files.read_json,
    "arrays": files.read_arrays,
    "state": states.load_state,
    "bytes": lambda path: files.read_bytes(path, 10),
}


@POSIX
@pytest.mark.parametrize("make", [pipe, endless, link, os.mkdir])
@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_read(tmp_path, make, reader):
    path = tmp_path / "file"
    make(path)
    with pytest.raises(
        ValueError, match=r"file: is (not a regular|a symbolic|a folder)"
    ):
        READERS[reader](path)


@POSIX
@pytest.mark.parametrize("make", [pipe, endless, link, os.mkdir])
def test_one_bad_result_never_hides_the_others(tmp_path, make):
    good, bad = (runs.run_path(tmp_path, "digits", "mlp", "ce", "", s) for s in (1, 2))
    finish(good)
    bad.mkdir(parents=True)
    make(bad / "metrics.json")
    with pytest.warns(UserWarning, match=r"1 results are skipped.*seed-02"):
        table = runs.load_results(tmp_path)
    assert list(table.seed) == [1]


@POSIX
@pytest.mark.parametrize("name", ["logits", ".lock", "checkpoint.pt", "metrics.json"])
def test_links_in_a_run_folder_are_not_followed(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".val.npz.1").write_bytes(b"precious")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / name).symlink_to(outside)
    with pytest.raises(ValueError, match="symbolic link"):
        begin(run_dir)
    assert [p.name for p in outside.iterdir()] == [".val.npz.1"]


@POSIX
@pytest.mark.parametrize("make", [pipe, os.mkdir])
@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.json", "logits/val.npz"])
def test_what_stands_where_a_run_will_write_is_told_before_work(tmp_path, name, make):
    (tmp_path / "logits").mkdir()
    make(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: is (a folder|not a regular file)"):
        begin(tmp_path)
    assert not runs.is_done(tmp_path)
    assert len(list(tmp_path.iterdir())) <= 2  # nothing was written, nothing removed


@POSIX
@pytest.mark.parametrize("make", [pipe, endless, os.mkdir])
@pytest.mark.parametrize("name", [".lock", "history.jsonl", "failed.txt"])
def test_status_looks_into_any_folder(tmp_path, name, make):
    from gcelib import sweeps

    first, second = (
        runs.run_path(tmp_path, "digits", "mlp", "ce", "", seed) for seed in (1, 2)
    )
    first.mkdir(parents=True)
    make(first / name)
    grid = {"dataset": "digits", "model": "mlp", "loss": "ce", "seed": [1, 2]}
    table = sweeps.status(grid, tmp_path)
    assert list(table.run_dir) == [str(first), str(second)]
    assert "done" not in set(table.state)


# --- sizes that lie -----------------------------------------------------------------


def test_an_expanded_tensor_is_refused_before_it_takes_memory():
    content = states.pack_state({"scores": torch.ones(1).expand(10**9)})
    assert len(content) < 3000
    with pytest.raises(ValueError, match="larger than its numbers"):
        states.unpack_state(content, "ats.pt")


def test_a_tensor_whose_numbers_are_not_in_the_file_is_refused():
    buffer = io.BytesIO(states.pack_state({"w": torch.arange(4.0)}))
    with zipfile.ZipFile(buffer) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            short = name.endswith("data/0")
            archive.writestr(name, content[:4] if short else content)
    with pytest.raises(ValueError, match="numbers that are not in the file"):
        states.unpack_state(out.getvalue(), "ats.pt")


def test_a_compressed_state_is_refused_unread():
    buffer = io.BytesIO(states.pack_state({"w": torch.zeros(4)}))
    out = io.BytesIO()
    with (
        zipfile.ZipFile(buffer) as archive,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    with pytest.raises(ValueError, match="is compressed"):
        states.unpack_state(out.getvalue(), "ats.pt")


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_members_of_one_name_and_headers_that_promise_more_are_refused(tmp_path):
    path = tmp_path / "twice.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy(np.ones(2)))
        archive.writestr("x", npy(np.zeros(2)))
    with pytest.raises(ValueError, match="x: is there twice"):
        files.read_arrays(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy(np.ones(2)).replace(b"(2,)", b"(9,)"))
    with pytest.raises(ValueError, match="says shape"):
        files.read_arrays(path)


# --- provenance ---------------------------------------------------------------------


@pytest.mark.parametrize("leave", [begin, finish])
@pytest.mark.parametrize("spoil", ["gone", "damaged", "edited"])
def test_without_its_config_a_folder_is_still_nobody_elses(tmp_path, leave, spoil):
    leave(tmp_path)
    config = tmp_path / "config.json"
    if spoil == "gone":
        config.unlink()
    elif spoil == "damaged":
        config.write_text("{")
    else:
        config.write_text(json.dumps({"settings": SETTINGS | {"lr": 0.5}}))
    with pytest.raises(ValueError, match=r"lr \(0\.05 there, 0\.5 asked\)"):
        leave(tmp_path, lr=0.5)
    with runs.open_run(tmp_path, SETTINGS, {}) as run:
        assert run.done == (leave is finish)
    assert runs.read_config(tmp_path).settings == SETTINGS


def test_a_folder_without_checkpoint_and_result_holds_nothing(tmp_path):
    with runs.open_run(tmp_path, SETTINGS, {}):
        pass  # refused at its first step, say
    with runs.open_run(tmp_path, SETTINGS | {"lr": 0.5}, {}) as run:
        assert not run.done
    assert runs.read_config(tmp_path).settings["lr"] == 0.5


@pytest.mark.parametrize(
    ("old", "new"), [("0.25", "0.24"), ('"seed": 1', '"seed": 2'), ("cpu", "gpu")]
)
def test_a_changed_digit_makes_a_result_undone_and_untabulated(tmp_path, old, new):
    folder = runs.run_path(tmp_path, "digits", "mlp", "ce", "", 1)
    finish(folder)
    path = folder / "metrics.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert not runs.is_done(folder)
    with pytest.warns(UserWarning, match="its checksum differs"):
        assert runs.load_results(tmp_path).empty
    path.write_text(json.dumps(json.loads(text)))  # other line ends and indents
    assert runs.is_done(folder)


def test_a_result_in_another_run_s_folder_is_not_tabulated(tmp_path):
    first, second = (
        runs.run_path(tmp_path, "digits", "mlp", "ce", "", seed) for seed in (1, 2)
    )
    finish(first)
    second.parent.mkdir(exist_ok=True)
    first.rename(second)
    with pytest.warns(UserWarning, match="holds the result of another run"):
        assert runs.load_results(tmp_path).empty


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("kind", ["prob", "logit"])
def test_scores_in_the_order_of_rank_are_refused_or_told(tmp_path, k, kind):
    """As timm's inference.py writes them with --topk and --results-separate-col."""
    rng = np.random.default_rng(k)
    labels = np.minimum(rng.geometric(0.6, 60) - 1, k - 1)
    logits = rng.normal(size=(60, k)) + 2 * np.eye(k)[labels]
    scores = logits
    if kind == "prob":
        scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.argsort(-scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    head = [f"{kind}_{j}" for j in range(k)]

    def read(columns, cells):
        path = tmp_path / "scores.csv"
        rows = [",".join(map(repr, map(float, row))) for row in cells]
        lines = [f"{y},{row}" for y, row in zip(labels, rows, strict=True)]
        path.write_text("\n".join([",".join(["label", *columns]), *lines]) + "\n")
        return load_logits_file(path)

    indexes = [f"index_{j}" for j in range(k)]
    with pytest.raises(ValueError, match=r"columns: 'index_0' to .* name other cl"):
        read([*head, *indexes], np.hstack([ranked, order]))
    with pytest.warns(
        UserWarning, match=f"columns: from '{kind}_0' to .* fall in 60 of 60 li"
    ):
        read(head, ranked)
    not_sorted = ranked.copy()
    not_sorted[9] = not_sorted[9, ::-1]
    with pytest.raises(ValueError, match=r"columns: 'index_0' to .* name other cl"):
        read([*head, *indexes], np.hstack([not_sorted, order]))
    if k > 2:  # of two, a rare class may be predicted once
        with pytest.warns(UserWarning, match="the scores fall in 59 of 60 lines"):
            read(head, not_sorted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(head, scores)
        predicted = np.eye(k, dtype=int)[order[:, 0]]
        read(
            [*head, *[f"one_hot_{j}" for j in range(k)]], np.hstack([scores, predicted])
        )
        if k == 2:  # nearly always the same is predicted
            one_hot = np.eye(2, dtype=int)[not_sorted.argmax(1)]
            read([*head, "one_hot_0", "one_hot_1"], np.hstack([not_sorted, one_hot]))


@pytest.mark.parametrize("copy", ["backup-{}", "{}-old"])
@pytest.mark.parametrize("dataset", ["npz:/data/x.npz", "folder:/data/x", "mine:load"])
def test_a_copy_of_own_data_s_runs_is_not_tabulated_twice(tmp_path, dataset, copy):
    name = own.folder_of_full_name(dataset)
    finish(runs.run_path(tmp_path, name, "mlp", "ce", "", 1), dataset=dataset)
    shutil.copytree(tmp_path / name, tmp_path / copy.format(name))
    with pytest.warns(UserWarning, match="holds the result of another run"):
        assert len(runs.load_results(tmp_path)) == 1


def test_a_new_field_and_a_new_metric_leave_old_runs_as_they_were(tmp_path):
    old = {"config": SETTINGS, "environment": {}, "results": {"test_raw_nll": 0.5}}
    (tmp_path / "metrics.json").write_text(json.dumps(old))
    asked = SETTINGS | {"smoothing": 0.0}
    with runs.open_run(tmp_path, asked, {}, lambda: {"smoothing": 0.0}) as run:
        assert run.done
    with (
        pytest.raises(ValueError, match=r"smoothing \(0\.0 there, 0\.1 asked\)"),
        runs.open_run(
            tmp_path, asked | {"smoothing": 0.1}, {}, lambda: {"smoothing": 0.0}
        ),
    ):
        pass
    table = runs.summary(tmp_path)  # whose metrics the old run lacks
    assert table.loc["raw", "NLL"] == 0.5
    assert np.isnan(table.loc["raw", "ECE %"])


def test_an_old_checkpoint_goes_on_only_where_its_config_says_whose_it_is(tmp_path):
    content = stored.pack_checkpoint(SETTINGS, {"history": [1]})
    state = states.pack_state({"history": [1]})
    assert state in content
    old = hashlib.sha256(state).digest() + state  # as gcelib 0.1 wrote it
    (tmp_path / "checkpoint.pt").write_bytes(old)
    with (
        pytest.raises(ValueError, match="does not say which settings it is for"),
        runs.open_run(tmp_path, SETTINGS, {}),
    ):
        pass
    (tmp_path / "config.json").write_text(json.dumps({"settings": SETTINGS}))
    with runs.open_run(tmp_path, SETTINGS, {}) as run:
        assert run.load_checkpoint() == {"history": [1]}


def test_a_checkpoint_that_says_nothing_is_not_taken_for_one_of_defaults(tmp_path):
    runs.save_checkpoint(tmp_path, {"history": []})  # without settings
    with (
        pytest.raises(ValueError, match=r"seed \(None there, 1 asked\)"),
        runs.open_run(tmp_path, SETTINGS, {}, lambda: SETTINGS),
    ):
        pass


@pytest.mark.parametrize("name", ["metrics.json", "config.json"])
def test_what_a_newer_version_wrote_is_not_replaced(tmp_path, name):
    finish(tmp_path)
    path = tmp_path / name
    newer = json.loads(path.read_text()) | {"schema": stored.SCHEMA + 1}
    path.write_text(json.dumps(newer))
    with (
        pytest.raises(ValueError, match=r"newer gcelib .*install that version"),
        runs.open_run(tmp_path, SETTINGS, {}),
    ):
        pass
    assert json.loads(path.read_text()) == newer


ODD_RESULTS = {
    "a number of 400 digits": lambda r: r["results"].update(train_seconds=10**400),
    "text": lambda r: r["results"].update(train_seconds="3.5"),
    "null": lambda r: r["results"].update(test_raw_ece=None),
    "a result that is called like a setting": lambda r: r["results"].update(seed=2),
    "a variant that is a number": lambda r: r["config"].update(variant=5),
    "a seed that is true": lambda r: r["config"].update(seed=True),
}


@pytest.mark.parametrize("odd", ODD_RESULTS)
def test_results_without_checksum_are_looked_at_all_the_same(tmp_path, odd):
    folder = runs.run_path(tmp_path, "digits", "mlp", "ce", "", 1)
    folder.mkdir(parents=True)
    record = {
        "config": dict(SETTINGS),
        "environment": {},
        "results": {"test_raw_ece": 0.25, "train_seconds": 3.5},
    }
    ODD_RESULTS[odd](record)
    (folder / "metrics.json").write_text(json.dumps(record))
    assert not runs.is_done(folder)
    with pytest.warns(UserWarning, match="1 results are skipped"):
        assert runs.load_results(tmp_path).empty
    with pytest.warns(UserWarning, match="done again"):
        finish(folder)
    assert runs.is_done(folder)


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", "[" * 10**5])
def test_json_holds_finite_numbers_and_few_levels(text):
    with pytest.raises(ValueError, match=r"is no JSON|nested too deeply"):
        files.parse_json(text.encode())


def test_a_finished_run_drops_its_own_checkpoints_alone(tmp_path):
    begin(tmp_path)
    (tmp_path / "checkpoint_best.pt").write_bytes(b"of the user")
    (tmp_path / ".checkpoint.pt.0f0f").write_bytes(b"left by a kill")
    (tmp_path / ".checkpoints").mkdir()
    finish(tmp_path)
    left = {path.name for path in tmp_path.iterdir() if "checkpoint" in path.name}
    assert left == {"checkpoint_best.pt", ".checkpoints"}


@pytest.mark.parametrize("gone", ["folder", "lock"])
def test_a_run_whose_folder_was_taken_over_writes_nothing_more(tmp_path, gone):
    run_dir = tmp_path / "run"
    first = runs.open_run(run_dir, SETTINGS, {})
    run = first.__enter__()
    run.save_checkpoint({"history": []})
    if gone == "folder":
        run_dir.rename(tmp_path / "away")
    else:
        (run_dir / ".lock").unlink()
        (run_dir / "checkpoint.pt").unlink()
    with runs.open_run(run_dir, SETTINGS | {"lr": 0.5}, {}) as second:
        for write in (
            lambda: run.save_checkpoint({}),
            lambda: run.write_history([]),
            lambda: run.save_logits("val", np.eye(2), [0, 1]),
            lambda: run.save_weights({}),
            lambda: run.finish({"test_raw_nll": 1.0}),
        ):
            with pytest.raises(RuntimeError, match="removed or taken over"):
                write()
        second.finish({"test_raw_nll": 2.0})
    assert runs.read_result(run_dir).settings["lr"] == 0.5
    first.__exit__(None, None, None)


# --- places -------------------------------------------------------------------------


@POSIX
def test_the_umask_decides_who_may_read(tmp_path):
    before = os.umask(0o077)
    try:
        files.write_atomic(tmp_path / "mine", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600


@POSIX
def test_a_file_system_without_locks_is_named_with_the_way_out(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.warns(UserWarning, match="knows no locks"):
        finish(tmp_path)
    assert runs.is_done(tmp_path)
    assert not runs.is_running(tmp_path)
    (tmp_path / ".lock.soft").write_text("1\nanother-host\n")
    with (
        pytest.warns(UserWarning, match="knows no locks"),
        pytest.raises(RuntimeError, match=r"process 1 on another-host: .*delete"),
        locks.hold(tmp_path / ".lock", timeout=0),
    ):
        pass


@POSIX
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="needs root")
def test_another_user_s_dead_run_is_not_running(tmp_path_factory):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        begin(folder)
        os.seteuid(65534)
        try:
            assert not runs.is_running(folder)
        finally:
            os.seteuid(0)


def test_nothing_is_written_over_a_file_that_exists(tmp_path):
    path = tmp_path / "logits_calibrator.pt"
    path.write_bytes(b"of another file")
    assert files.write_new(path, b"mine").name == "logits_calibrator-2.pt"
    assert files.write_new(path, b"mine").name == "logits_calibrator-2.pt"
    assert files.fresh_path(path).name == "logits_calibrator-3.pt"
    assert path.read_bytes() == b"of another file"
    assert len(list(tmp_path.iterdir())) == 2


# --- anybody's outputs --------------------------------------------------------------


def some_logits(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3))


@pytest.mark.parametrize(
    "order", [slice(None, None, -1), slice(1, None), [3, 1, 0, 2, 5, 4]]
)
def test_validation_samples_in_the_test_part_are_found_in_any_order(tmp_path, order):
    val = some_logits(30)
    test = val[order]
    labels = np.arange(30) % 3
    path = tmp_path / "mine.npz"
    arrays = {"val_logits": val, "val_labels": labels}
    np.savez(path, **arrays, test_logits=test, test_labels=labels[: len(test)])
    with pytest.raises(BadParameter, match="of the validation samples, in whatever"):
        load_logits_file(path)


@pytest.mark.parametrize("digits", [2, 3, 4, 5])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_rounded_probabilities_of_different_samples_are_taken(
    tmp_path, digits, n_classes
):
    """As votes of forests: many rows of both parts are alike by chance."""
    path = tmp_path / "own.npz"
    for seed in range(5):
        rng = np.random.default_rng(seed)
        p = rng.dirichlet(np.ones(n_classes), 1500)
        labels = (rng.random((1500, 1)) > p.cumsum(1)).sum(1).clip(max=n_classes - 1)
        p = (p * 10**digits).round() / 10**digits
        p[:, 0] = 1 - p[:, 1:].sum(1)
        p = p.clip(0, 1)
        arrays = {"val_probabilities": p[:1000], "val_labels": labels[:1000]}
        np.savez(path, test_probabilities=p[1000:], test_labels=labels[1000:], **arrays)
        runs.load_logits_file(path)
    again = rng.permutation(1000)
    arrays |= {"test_probabilities": p[again], "test_labels": labels[again]}
    np.savez(path, **arrays)
    with pytest.raises(BadParameter, match="of the validation samples, in whatever"):
        runs.load_logits_file(path)


def test_rounded_and_saturated_rows_that_coincide_are_no_overlap(tmp_path):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(3, 0.05), 2000).round(1)
    p /= p.sum(1, keepdims=True)
    labels = np.arange(1000) % 3
    path = tmp_path / "mine.npz"
    np.savez(
        path,
        val_probabilities=p[:1000],
        val_labels=labels,
        test_probabilities=p[1000:],
        test_labels=labels,
    )
    file = load_logits_file(path)
    assert file.kind == "probabilities"
    logits, found = file["val"]
    assert np.isfinite(logits).all()
    softmax = torch.from_numpy(logits).softmax(1).numpy()
    np.testing.assert_allclose(softmax, p[:1000], atol=1e-6)
    np.testing.assert_array_equal(found, labels)


def test_probabilities_and_confidences_come_in_csv_files_too(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("split,label,prob_0,prob_1\nval,0,0.75,0.25\nval,1.0,0.5,0.5\n")
    file = load_logits_file(path)
    assert file.kind == "probabilities"
    assert file.parts["val"][0].tolist() == [[0.75, 0.25], [0.5, 0.5]]
    path.write_text("label,prediction,confidence\n3,3,0.9\n1,2,0.6\n")
    file = load_logits_file(path)
    assert file.kind == "confidences"
    confidences, correct = file.parts["test"]
    assert confidences.tolist() == [0.9, 0.6]
    assert correct.tolist() == [True, False]
    with pytest.raises(ValueError, match="from_confidences"):
        file["test"]
    path.write_text("label,prediction,confidence\n3,3,90\n")
    with pytest.raises(BadParameter, match="divide by 100"):
        load_logits_file(path)


def test_a_spreadsheet_of_confidences_may_call_its_classes_by_names(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("label,prediction,confidence\ncat,cat,0.9\ndog, cat,0.6\n")
    confidences, correct = load_logits_file(path).parts["test"]
    assert confidences.tolist() == [0.9, 0.6]
    assert correct.tolist() == [True, False]
    path.write_text("label,prediction,confidence\ncat,0,0.9\n")
    with pytest.raises(BadParameter, match="names in both label and prediction"):
        load_logits_file(path)


PLAIN = "label,prediction,confidence\n3,3,0.5\n1,2,0.25\n3,1,0.75\n"


def as_people_write(text):
    """The same table in the ways in which spreadsheets and people write it."""
    german = text.replace(".", "~").replace(",", ";").replace("~", ",")
    quoted = re.sub(r"[^,\n]+", lambda cell: f'"{cell[0]}"', text)
    shouting = text.replace(
        "label,prediction,confidence", " LABEL, Prediction ,Confidence"
    )
    return {
        "plain": text,
        "capitals and spaces": shouting,
        "blank last lines": text + "\n\r\n \n",
        "cells of blank last lines": text + ",,\n,,\n",
        "no last newline": text[:-1],
        "byte-order mark": "\ufeff" + text,
        "windows": text.replace("\n", "\r\n"),
        "old mac": text.replace("\n", "\r"),
        "semicolons": text.replace(",", ";"),
        "tabs": text.replace(",", "\t"),
        "german": german,
        "excel's first line": "sep=;\r\n" + german.replace("\n", "\r\n"),
        "quoted": quoted,
        "quoted decimal commas": quoted.replace(".", ","),
        "spaces after commas": text.replace(",", ", "),
        "whole numbers with points": text.replace("3,", "3.0,"),
        "further columns": (
            "file,label,prediction,confidence,note\n"
            'a.png,3,3,0.5,"one, two"\nb.png,1,2,0.25,\nc.png,3,1,0.75,x\n'
        ),
        "reordered": "confidence,prediction,label\n0.5,3,3\n0.25,2,1\n0.75,1,3\n",
        "an index": ",label,prediction,confidence\n0,3,3,0.5\n1,1,2,0.25\n2,3,1,0.75\n",
        **{
            f"{a}, {b}, {c}": text.replace(
                "label,prediction,confidence", f"{a},{b},{c}"
            )
            for a, b, c in (
                ("true_label", "pred", "score"),
                ("Target", "pred_label", "Probability"),
                ("y_true", "predicted", "conf"),
                ("True Label", "y_pred", "prob"),
                ("true-label", "Predicted Class", "max_prob"),
            )
        },
    }


@pytest.mark.parametrize("way", as_people_write(PLAIN))
def test_a_table_is_read_as_people_write_it(tmp_path, way):
    path = tmp_path / "mine.csv"
    path.write_bytes(as_people_write(PLAIN)[way].encode())
    file = load_logits_file(path)
    confidences, correct = file.parts["test"]
    assert file.kind == "confidences"
    assert confidences.tolist() == [0.5, 0.25, 0.75]
    assert correct.tolist() == [True, False, False]
    assert [ids.tolist() for ids in file.predicted["test"]] == [[3, 1, 3], [3, 2, 1]]
    told = "; ".join(file.notes)
    if "last newline" in way:
        assert "has no end" in told
    if "," in way and "german" not in way:
        for name in way.split(", "):
            assert f"'{name}'" in told or name == "label"
    if "german" in way or "excel" in way or "decimal" in way:
        assert "decimal commas are read as points" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("label,target,prediction,confidence", "'label' and 'target' both read as lab"),
        ("label,pred,predicted,score", "'pred' and 'predicted' both read as predict"),
        ("label,prediction,score,prob", "'score' and 'prob' both read as confidence"),
        ("class,prediction,confidence", "'class' may be the true or the predicted cla"),
        ("lable,prediction,confidence", "did you mean 'label' by 'lable'"),
        ("label,prediction", "are label, prediction; name them split,label,logit_0"),
        ("label,score_0,score_1", "'score_0' may be a logit or a probability"),
        ("label,prob_0,logit_0", "hold logits and probabilities; keep one"),
        ("label,prob_1", "'prob_1' is the only column of scores; add those of the oth"),
        ("label,prob_1,prob_2", "there is no column of class 0; count classes from 0"),
        ("label,0,1,2", "are label, 0, 1, 2; name them"),
        ("prob_0,prob_1,class", "'class' may be the true or the predicted class"),
    ],
)
def test_columns_that_may_mean_two_things_are_refused_by_name(tmp_path, text, told):
    cells = ",".join(["1"] * len(text.split(",")))
    (tmp_path / "mine.csv").write_text(f"{text}\n{cells}\n")
    with pytest.raises(BadParameter, match=r"mine\.csv: columns: .+; .+") as error:
        load_logits_file(tmp_path / "mine.csv")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            "3;3;0.5\n1;1;0,25",
            "confidence: holds what is not a number, '0,25', in line 3",
        ),
        (
            "3;3;95 %",
            "confidence: .*'95 %', in line 2; write fractions of 1 without a per",
        ),
        (
            "3;3;95",
            r"confidence: 95.0 is outside \[0, 1\]; of percentages, divide by 100",
        ),
        ("3;3;nan", "confidence: holds what is not a number, 'nan'"),
        ("3;3;", "confidence: has a hole or NaN in line 2"),
        ("3;3;0.5\n\n3;3;0.5", "label: has a hole or NaN in line 3"),
        ("3;3;0;5", "columns: are fewer than the cells of a line; with decimal commas"),
        (
            "3;cat;0.5",
            "columns: 'label' holds numbers, 'prediction' names; write names",
        ),
        ("3;2.5;0.5", "prediction: holds 2.5 in line 2; write class ids as whole numb"),
        ("3;3;inf", "confidence: "),
    ],
)
def test_cells_that_cannot_be_read_are_refused_by_column_and_line(tmp_path, rows, told):
    (tmp_path / "mine.csv").write_text(f"label;prediction;confidence\n{rows}\n")
    with pytest.raises(BadParameter, match=told):
        load_logits_file(tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("header", "rows", "told"),
    [
        ("label,prob_1,prob_0,prob_other", ["1,0.5,0.25,0.25"], "classes 1, 0, other"),
        (
            "label,logit_0,logit_1,logit_max",
            ["1,3,9,9"],
            "classes 0, 1, max",
        ),
        (
            "label,logit_a,logit_b,logit_true",
            ["a,1,0,1", "b,0,1,1"],
            "'logit_true' reads as",
        ),
        (
            "label,logit_a,logit_b,logit_max",
            ["a,3,9,9"],
            "'logit_max' reads as",
        ),
        ("label,prob_0.0,prob_1.0", ["2,0.5,0.5"], "label: holds 2 in line 2"),
        (
            "label,prediction,confidence",
            ["a,b,0.9", "Mean,Mean,0.9"],
            "'Mean' in",
        ),
        (
            "label,prediction,confidence",
            ["Cat,cat,0.9"],
            "hold one class as 'Cat' and 'cat'",
        ),
        (
            "label,prediction,confidence",
            ["1.0,1,0.9", "x,x,0.9"],
            "hold one class as '1' and '1.0'",
        ),
        (
            "label,prediction,correct,confidence",
            ["1,1,1,0.9", "1,1,no,0.9"],
            "correct: holds 'no' in line 3, where label and prediction are alike",
        ),
        (
            "correct,predicted,confidence",
            ["yes,no,0.9", "no,no,0.8"],
            "correct: may be the true class, as 'predicted' is the predicted one",
        ),
        (
            "is_correct,prediction,confidence",
            ["1,0,0.9", "0,0,0.8"],
            "correct: may be the true class",
        ),
    ],
)
def test_what_would_be_read_as_another_class_is_refused(tmp_path, header, rows, told):
    (tmp_path / "mine.csv").write_text("\n".join([header, *rows, ""]))
    with pytest.raises(BadParameter, match="; ") as error:
        load_logits_file(tmp_path / "mine.csv")
    assert told in str(error.value)


BESIDE_CLASSES = {
    "largest": lambda z, y: z.max(1),
    "second": lambda z, y: np.sort(z, 1)[:, -2],
    "smallest": lambda z, y: z.min(1),
    "the label's": lambda z, y: z[np.arange(len(y)), y],
    "one class's": lambda z, y: z[:, 1],
    "largest, nearly": lambda z, y: np.where(np.arange(len(y)) % 20, z.max(1), 0.5),
}


def table_beside_classes(path, scores, labels, name, column):
    names = ("ant", "bee", "cat")
    lines = [",".join(["label", *(f"logit_{n}" for n in names), f"logit_{name}"])]
    for label, row, one in zip(labels, scores, column, strict=True):
        lines.append(",".join([names[label], *map(str, row.tolist()), str(one)]))
    path.write_text("\n".join([*lines, ""]))


@pytest.mark.parametrize("what", BESIDE_CLASSES)
def test_a_column_of_logits_that_repeats_others_is_no_class_by_any_name(tmp_path, what):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(80, 3))
    labels = rng.integers(0, 3, 80)
    column = BESIDE_CLASSES[what](scores, labels)
    path = tmp_path / "mine.csv"
    table_beside_classes(path, scores, labels, "winner", column)
    with pytest.raises(BadParameter, match="'logit_winner' reads as a class, which no"):
        load_logits_file(path)
    # A class that no label has, as it is, or whose zeros are those of a ReLU.
    for honest in (rng.normal(size=80), np.zeros(80), np.full(80, -30.0)):
        table_beside_classes(path, np.maximum(scores, 0), labels, "dog", honest)
        assert load_logits_file(path)["val"][0].shape == (80, 4)


@pytest.mark.parametrize(
    "name",
    [
        *("predicted_class", "pred_class", "y_pred", "true_class", "ground_truth"),
        *("y_true", "Predicted Label", "max_logit", "top_1", "runner_up", "targets"),
    ],
)
def test_a_column_of_logits_named_for_something_else_is_no_class(tmp_path, name):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(30, 3)), rng.integers(0, 3, 30)
    path = tmp_path / "mine.csv"
    table_beside_classes(path, scores, labels, name, rng.normal(size=30))
    with pytest.raises(BadParameter, match=f"'logit_{name}' reads as a class"):
        load_logits_file(path)


@pytest.mark.parametrize("name", ["right", "second_class", "y", "time", "class_1"])
def test_a_class_without_samples_may_have_a_name_that_something_else_has(
    tmp_path, name
):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(30, 3)), rng.integers(0, 3, 30)
    path = tmp_path / "mine.csv"
    table_beside_classes(path, scores, labels, name, rng.normal(size=30))
    assert load_logits_file(path).class_names == ("ant", "bee", "cat", name)


CLASSES = ("cat", "dog", "new_fox")
TWO_SETS = {
    "pandas": [*CLASSES, *(f"{c}.1" for c in CLASSES)],
    "beside each other": [f"{c}{mark}" for c in CLASSES for mark in ("", "_std")],
    "numbers": ["0", "1", "10", "0.1", "1.1", "10.1"],
    "merge": [f"{k}{mark}" for mark in ("_x", "_y") for k in range(3)],
    "raw cal": [f"{k}{mark}" for k in range(3) for mark in ("_raw", "_cal")],
    "before": [f"{mark}_{c}" for mark in ("a", "b", "c") for c in CLASSES],
    "without a mark": [*CLASSES, *(f"mean_{c}" for c in CLASSES)],
}


@pytest.mark.parametrize("name", TWO_SETS)
def test_scores_of_the_same_classes_once_more_are_refused(name, tmp_path):
    """Labels are of one set alone; of all, they are classes that are called so."""
    names = TWO_SETS[name]
    path = tmp_path / "mine.csv"
    scores = np.random.default_rng(0).normal(size=(30, len(names)))

    def read(labels):
        lines = [",".join(["label", *(f"logit_{n}" for n in names)])]
        for i, row in enumerate(scores):
            lines.append(",".join([labels[i % len(labels)], *map(str, row)]))
        path.write_text("\n".join(lines) + "\n")
        return load_logits_file(path)

    own = {"pandas": CLASSES, "beside each other": CLASSES, "numbers": ("0", "1", "10")}
    with pytest.raises(
        BadParameter, match=r"columns: 'logit_.* seem a second set of sc"
    ):
        read(own.get(name, ("0", "1", "2")))
    all_of_them = names if name in own else [str(k) for k in range(len(names))]
    assert read(all_of_them).parts["val"][0].shape == scores.shape


def test_predictions_beside_scores_are_compared_with_the_largest(tmp_path, recwarn):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 3)).round(1)  # with ties
    labels = rng.integers(0, 3, 40)
    largest = scores.argmax(1)
    names = np.array(["cat", "dog", "eel"])
    path = tmp_path / "mine.csv"

    def read(role, cells, start="label,{},logit_cat,logit_dog,logit_eel"):
        lines = [start.format(role)]
        for label, cell, row in zip(names[labels], cells, scores, strict=True):
            lines.append(",".join(map(str, [label, cell, *row])))
        path.write_text("\n".join([*lines, ""]))
        return load_logits_file(path)

    read("prediction", names[largest])
    read("pred", largest)
    read("pred", [""] * 20 + ["?"] * 20)  # nothing that could be compared
    read("correct", largest == labels)
    assert not len(recwarn)
    clear = np.ptp(scores, 1) > 1
    other = largest.copy()
    other[np.flatnonzero(clear)[:3]] = scores.argmin(1)[np.flatnonzero(clear)[:3]]
    with pytest.warns(UserWarning, match="prediction: .* in 3 of 40 lines, first '"):
        assert (read("prediction", names[other])["val"][0] == scores).all()
    exchanged = "label,{},logit_dog,logit_eel,logit_cat"
    with pytest.raises(BadParameter, match="prediction: is not what the largest score"):
        read("prediction", names[largest], exchanged)
    with pytest.raises(BadParameter, match="correct: is not what the largest score"):
        read("correct", largest != labels)


def test_numbers_that_name_the_columns_are_names_whatever_their_order(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("label,prob_1.0,prob_0.0\n1.0,0.75,0.25\n0,0.5,0.5\n")
    file = load_logits_file(path)
    assert file.class_names == ("1.0", "0.0")
    assert file.parts["val"][1].tolist() == [0, 1]
    path.write_text("label,prob_-1,prob_1\n-1,0.75,0.25\n1,0.5,0.5\n")
    assert load_logits_file(path).parts["val"][1].tolist() == [0, 1]


def test_the_probability_of_one_class_is_no_confidence(tmp_path):
    rng = np.random.default_rng(0)
    p = rng.random(400)
    label = rng.random(400) < p
    prediction = p > 0.5
    of_truth = np.where(label, p, 1 - p)
    top = np.maximum(p, 1 - p)

    def written(columns, names):
        lines = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
        (tmp_path / "mine.csv").write_text("\n".join([names, *lines, ""]))
        return load_logits_file(tmp_path / "mine.csv").parts["test"][0]

    both = [label.astype(int), prediction.astype(int)]
    assert np.allclose(written([*both, top], "y_true,y_pred,score"), top)
    with pytest.raises(BadParameter, match="seems to be the probability of class 1"):
        written([*both, p], "y_true,y_pred,score")
    with pytest.raises(BadParameter, match="seems to be the probability of class 0"):
        written([*both, 1 - p], "y_true,y_pred,score")
    with pytest.raises(BadParameter, match="higher for nearly every right prediction"):
        written([label == prediction, of_truth], "correct,score")
    p = rng.dirichlet(np.full(5, 0.5), 400)  # of five classes
    label = [rng.choice(5, p=row) for row in p]
    both = [label, p.argmax(1)]
    assert np.allclose(written([*both, p.max(1)], "y_true,y_pred,score"), p.max(1))
    with pytest.raises(BadParameter, match="confidence: is below 1/5 for"):
        written([*both, p[np.arange(400), label]], "y_true,y_pred,score")


def confident_model(n, k, seed=3):
    """Probabilities (N, K) of a model, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    z = 1.5 * rng.normal(size=(n, k))
    z[np.arange(n), labels] += 2 + np.log(k) / 2
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return p, labels


@pytest.mark.parametrize("k", [2, 3, 10, 100])
@pytest.mark.parametrize("n_other", [0, 1, 15])
def test_a_few_predictions_otherwise_do_not_hide_the_true_class_s_probability(
    tmp_path, k, n_other
):
    p, labels = confident_model(3000, k)
    said = p.argmax(1)
    of_truth = p[np.arange(3000), labels]
    sure = np.flatnonzero((said == labels) & (of_truth > 0.6))[:n_other]
    said[sure] = (said[sure] + 1) % k
    lines = zip(labels, said, of_truth.round(6), strict=True)
    path = tmp_path / "m.csv"
    write_confidences(path, "label,prediction,confidence", lines)
    with pytest.raises(BadParameter, match="not of the true one"):
        load_logits_file(path)
    of_class_1 = p[:, 1].round(6)
    if k == 2:
        lines = zip(labels, said, of_class_1, strict=True)
        write_confidences(path, "label,prediction,confidence", lines)
        with pytest.raises(BadParameter, match="the probability of class 1"):
            load_logits_file(path)
        lines = zip((labels == said).astype(int), of_truth, strict=True)
        write_confidences(path, "correct,confidence", lines)
        with pytest.raises(BadParameter, match="not of the true one"):
            load_logits_file(path)


@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize("what", ["margin", "1 - entropy", "holes"])
def test_what_the_largest_of_so_many_probabilities_cannot_be_is_told(tmp_path, k, what):
    p, labels = confident_model(600, k)
    p = p**0.4 / (p**0.4).sum(1, keepdims=True)
    first, second = np.sort(p, 1)[:, -2:].T[::-1]
    values = {
        "margin": first - second,
        "1 - entropy": 1 + (p * np.log(p)).sum(1) / np.log(k),
        "holes": np.where(np.arange(600) % 10 == 3, 0, first),
    }[what]
    path = tmp_path / "m.csv"
    lines = [*zip(labels, p.argmax(1), values.round(6), strict=True)]
    write_confidences(path, "label,prediction,confidence", lines)
    n_below = sum(c < 0.99 / k for _, _, c in lines)
    with pytest.warns(UserWarning, match=f"is below 1/{k} in {n_below} of 600 lines"):
        own = load_own_logits(path, tmp_path / "own.pt")
    if k == 3:
        with warnings.catch_warnings():  # says it no second time
            warnings.filterwarnings("error", "confidences: .* below")
            own.advise()
    if what == "holes":
        hits = [(int(a == b), c) for a, b, c in lines]
        write_confidences(path, "correct,confidence", hits)
        with pytest.warns(UserWarning, match="confidence: is 0 in 60 of 600 lines"):
            load_logits_file(path)


def test_of_one_class_that_occurs_nothing_is_told(tmp_path):
    path = tmp_path / "m.csv"
    lines = [("cat", "cat", 0.3 + i / 100) for i in range(60)]
    write_confidences(path, "label,prediction,confidence", lines)
    assert read_quietly(path).parts["test"][1].all()


@pytest.mark.parametrize("digits", [1, 2, 8])
@pytest.mark.parametrize(("n", "k"), [(40, 2), (600, 3), (40, 1000), (600, 1000)])
def test_top_probabilities_are_not_below_chance(tmp_path, n, k, digits):
    """Rounded ones nearly are, and of many classes few lines hold few."""
    p, labels = confident_model(n, k)
    p = p**0.2 / (p**0.2).sum(1, keepdims=True)  # hardly sure
    path = tmp_path / "m.csv"
    lines = zip(labels, p.argmax(1), p.max(1).round(digits), strict=True)
    write_confidences(path, "label,prediction,confidence", lines)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        own = load_own_logits(path, tmp_path / "own.pt")
        assert not told
        own.advise()
    assert not any("below" in str(warning.message) for warning in told)


@pytest.mark.parametrize("column", ["label", "prediction"])
@pytest.mark.parametrize("nothing", ["-1", "-100", "nan", "?", "N/A"])
def test_samples_without_a_class_are_not_errors(nothing, column, tmp_path):
    path = tmp_path / "mine.csv"
    number = nothing.startswith("-")
    rows = [["0", "0"], ["1", "1"]] if number else [["a", "a"], ["b", "b"]]
    rows.append([nothing, rows[0][0]] if column == "label" else [rows[0][0], nothing])
    lines = [",".join([*row, "0.75"]) for row in rows]
    path.write_text("\n".join(["label,prediction,confidence", *lines, ""]))
    if number:
        with pytest.raises(BadParameter, match=f"{column}: holds {nothing} in line 4"):
            load_logits_file(path)
    else:
        with pytest.warns(UserWarning, match=f"^{column}: '.*', first in line 4"):
            load_logits_file(path)
    path.write_text("label,prediction,confidence\n-1,-1,0.75\n1,-1,0.5\n")
    assert load_logits_file(path).parts["test"][1].tolist() == [True, False]


@pytest.mark.parametrize(
    "other", ["Ka\u0308se", "K\u00e4\u00adse", "K\u00e4se\u200b", "\uff2b\u00e4se"]
)
def test_letters_that_look_alike_are_one_class(other, tmp_path):
    path = tmp_path / "mine.csv"
    lines = [f"K\u00e4se,{other},0.75", "Brot,Brot,0.5"]
    text = "\n".join(["label,prediction,confidence", *lines, ""])
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadParameter, match="columns: hold one class as"):
        load_logits_file(path)


@pytest.mark.parametrize("separator", [",", "\t"])
def test_quotation_marks_that_open_no_cell_do_not_swallow_lines(tmp_path, separator):
    """Tables that were joined by hand; csv's own, also of several lines, are read."""
    path = tmp_path / "mine.csv"
    header = ["label", "text", "logit_0", "logit_1"]
    rows = [[str(i % 2), "so", str(i), "1"] for i in range(40)]
    rows[7][1] = '"Great film'
    for closing in ('"Bad film', 'a 5"', 'he said "no"'):
        rows[23][1] = closing
        path.write_text("\n".join(separator.join(r) for r in [header, *rows, []]))
        with pytest.raises(BadParameter, match="columns: line 9 begins a cell with a"):
            load_logits_file(path)
    rows[7][1] = 'He said "a, b"\nand\tleft, "so"'
    rows[9][1] = '"'
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows])
    assert len(load_logits_file(path).parts["val"][1]) == 40
    rows[7][1] = 'a 5" one'
    rows[9][1] = 'a 6"'
    path.write_text("\n".join(separator.join(r) for r in [header, *rows, []]))
    assert len(load_logits_file(path).parts["val"][1]) == 40


@pytest.mark.parametrize("character", ["\u2028", "\x0c", "\x85"])
def test_quotations_over_two_lines_of_a_table_are_seen_beside_any_text(
    tmp_path, character
):
    """They open in one line and close at the end of a cell in another."""
    path = tmp_path / "mine.tsv"
    rows = [["0", "so", str(i), "1"] for i in range(30)]
    rows[5][1], rows[9][1] = '"I like it.', 'It is good."'
    rows[20][1] = f"a{character}b"
    header = ["label", "text", "logit_0", "logit_1"]
    path.write_text("\n".join("\t".join(row) for row in [header, *rows, []]))
    with pytest.raises(BadParameter, match="columns: line 7 begins a cell with a"):
        load_logits_file(path)


def test_a_cell_without_end_that_is_longer_than_any_is_told(tmp_path):
    path = tmp_path / "mine.csv"
    lines = ["label,text,logit_0,logit_1", '0,"so,1,2', *["1,so,1,2"] * 20_000, ""]
    path.write_text("\n".join(lines))
    with pytest.raises(BadParameter, match="columns: line 2 begins a cell with a"):
        load_logits_file(path)


def test_lines_that_lack_a_cell_are_told(tmp_path):
    """pandas would move what stands behind it, and fill up the end."""
    path = tmp_path / "mine.csv"
    for text, line in (("", 3), ('"a, b"', 3), ('"a,\nb"', 4)):
        lines = [f"0,{text},1.5,2.5,9" if text else "0,x,1.5,2.5,9", "1,0.5,1.0,9"]
        path.write_text("\n".join(["label,id,logit_0,logit_1,seconds", *lines, ""]))
        with pytest.raises(
            BadParameter, match=f"columns: are 5, and line {line} has fewer cells"
        ):
            load_logits_file(path)
    whole = ["label,id,logit_0,logit_1,seconds", "0,x,1.5,2.5,9", '1,"",0.5,1.0,', ""]
    path.write_text("\n".join(whole))
    assert load_logits_file(path).parts["val"][0].tolist() == [[1.5, 2.5], [0.5, 1.0]]


def scores_of(labels, columns):
    """A table of six columns of scores, a line a label."""
    lines = [",".join(["label", *columns])]
    lines += [",".join([str(y), *"012345"[: len(columns)]]) for y in labels]
    return "\n".join([*lines, ""])


def test_names_that_count_are_not_ordered_as_text(tmp_path):
    """By the alphabet c10 stands before c2; which column is meant, nobody knows."""
    path = tmp_path / "mine.csv"
    names = ["c0", "c1", "c2", "c10"]
    for name in ("c", "class ", "digit-"):
        labels = [name + part[1:] for part in names]
        path.write_text(scores_of(labels, [f"logit_{k}" for k in range(4)]))
        with pytest.raises(BadParameter, match=r"10' come before .*2', as in the al"):
            load_logits_file(path)
    labels = ["0_cat", "1_dog", "2_emu", "10_owl"]
    path.write_text(scores_of(labels, [f"logit_{k}" for k in range(4)]))
    with pytest.raises(
        BadParameter, match="'10_owl' come before '1_dog', as in the al"
    ):
        load_logits_file(path)
    path.write_text(scores_of(names, [f"logit_{name}" for name in sorted(names)]))
    assert load_logits_file(path).parts["val"][1].tolist() == [0, 1, 3, 2]


def test_labels_may_not_be_the_numbers_in_names_as_well_as_those_of_columns(tmp_path):
    path = tmp_path / "mine.csv"
    eleven = sorted(f"logit_c{k}" for k in range(11))
    lines = [",".join(["label", *eleven])]
    lines += [",".join([str(y), *map(str, range(11))]) for y in (0, 2, 10)]
    path.write_text("\n".join([*lines, ""]))
    with pytest.raises(BadParameter, match=r"'c10', which is column 2.* label 2 or 10"):
        load_logits_file(path)
    path.write_text(scores_of([1, 2, 1], ["logit_c1", "logit_c2", "logit_c3"]))
    with pytest.raises(BadParameter, match=r"'c1', which is column 0.* label 0 or 1"):
        load_logits_file(path)
    path.write_text(scores_of([0, 2, 1], ["logit_c1", "logit_c2", "logit_c3"]))
    assert load_logits_file(path).parts["val"][1].tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    "pair", [("E", "e"), ("re sign", "re-sign"), ("x2", "x\u00b2"), ("YES", "yes")]
)
def test_two_spellings_are_two_classes_where_there_is_a_column_for_each(tmp_path, pair):
    path = tmp_path / "mine.csv"
    names = sorted([*pair, "Z"])
    columns = ["logit_0", "logit_1", "logit_2"]
    path.write_text(scores_of([*pair, "Z"], columns), encoding="utf-8")
    with pytest.warns(UserWarning, match="count as two classes, since"):
        file = load_logits_file(path)
    assert file.class_names == tuple(names)
    expected = [names.index(name) for name in (*pair, "Z")]
    assert file.parts["val"][1].tolist() == expected


def test_columns_whose_names_differ_in_capitals_are_two_classes(tmp_path, recwarn):
    """As the letters of EMNIST."""
    path = tmp_path / "mine.csv"

    def read(labels, header="label,prediction,prob_A,prob_a,prob_B"):
        scores = {"A": "0.5,0.3,0.2", "a": "0.2,0.5,0.3"}
        lines = [f"{y},{y},{scores.get(y, '0.1,0.2,0.7')}" for y in labels]
        path.write_text("\n".join([header, *lines, ""]))
        return load_logits_file(path)

    file = read("AaBab")  # of b there is one column
    assert file.class_names == ("A", "a", "B")
    assert file.parts["val"][1].tolist() == [0, 1, 2, 1, 2]
    assert not len(recwarn)
    for labels, header in [
        ("aaB", "label,prediction,prob_A,prob_a,prob_B"),  # no label says A
        ("AaB", "label,prediction,Prob_A,prob_a,prob_B"),
        ("AaB", "label,prediction,prob_A,prob_a,prob_a"),
    ]:
        with pytest.raises(BadParameter, match="'prob_a' is there twice"):
            read(labels, header)
    path.write_text("label,prob_Cat,prob_cat\nCat,0.5,0.5\ncat,0.5,0.5\nCAT,0.5,0.5\n")
    with pytest.raises(BadParameter, match="'CAT' in line 4, and no column has it"):
        load_logits_file(path)


@pytest.mark.parametrize("start", ["prob_", "Prob ", "Probability ", "prob-"])
def test_names_of_columns_keep_their_spaces_and_hyphens(tmp_path, start):
    path = tmp_path / "mine.csv"
    names = ["New York", "x y_z", "non-flaky"]
    header = ",".join(["label", *(start + name for name in names)])
    lines = [f"{names[0]},1,0,0", f"{names[1]},0,1,0", f"{names[2]},0,0,1"]
    path.write_text("\n".join([header, *lines, ""]))
    file = load_logits_file(path)
    assert file.class_names == tuple(names)
    assert file.parts["val"][1].tolist() == [0, 1, 2]


def test_right_or_wrong_may_stand_in_the_place_of_two_labels(tmp_path):
    path = tmp_path / "mine.csv"
    for words in (("1", "0"), ("True", "False"), ("yes", "no"), ("1.0", "0.0")):
        path.write_text(f"confidence,correct\n0.5,{words[0]}\n0.25,{words[1]}\n")
        file = load_logits_file(path)
        assert file.parts["test"][1].tolist() == [True, False]
        assert file.predicted == {}
    path.write_text("confidence,correct\n0.5,2\n")
    with pytest.raises(BadParameter, match="correct: holds '2' in line 2; write 1"):
        load_logits_file(path)


def test_classes_may_have_names_and_the_reader_says_which_is_which(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("split\tlabel\tprob_dog\tProb_Cat\nval\tcat\t0.25\t0.75\n")
    file = load_logits_file(path)
    assert file.class_names == ("dog", "Cat")
    assert file.parts["val"][1].tolist() == [1]
    assert "classes: 0 = dog, 1 = Cat, as the columns are called" in file.notes
    rows = ["label,prob_0,prob_1", "ill,0.25,0.75", "fine,0.75,0.25", ""]
    path.write_text("\n".join(rows))
    file = load_logits_file(path)
    assert file.parts["val"][1].tolist() == [1, 0]
    assert "classes: 0 = fine, 1 = ill, by the alphabet, as" in "; ".join(file.notes)
    path.write_text("label,prob_dog,prob_cat\ncow,0.25,0.75\n")
    with pytest.raises(BadParameter, match="label: holds 'cow' in line 2, and no colu"):
        load_logits_file(path)
    path.write_text("label,prob_0,prob_1,prob_2\ncow,0.25,0.5,0.25\n")
    with pytest.raises(BadParameter, match=r"holds 1 names for 3 columns; .* prob_cow"):
        load_logits_file(path)


@pytest.mark.filterwarnings("ignore:prediction. 'NA'")
def test_names_that_look_like_holes_or_truth_are_names(tmp_path):
    path = tmp_path / "mine.csv"
    rows = [
        "label,prediction,confidence",
        "None,NA,0.5",
        "True,None,0.5",
        "None,None,1",
    ]
    path.write_text("\n".join([*rows, ""]))
    assert load_logits_file(path).parts["test"][1].tolist() == [False, False, True]
    assert load_logits_file(path).class_names == ("NA", "None", "True")


def test_a_table_of_logits_in_a_german_spreadsheet_is_read_to_the_digit(tmp_path):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20, 3)).round(4)
    y = rng.integers(0, 3, 20)
    lines = ["Split;Label;Logit 2;Logit 0;Logit 1;Datei"]
    for i, (row, label) in enumerate(zip(z[:, [2, 0, 1]], y, strict=True)):
        cells = [f"{value:.4f}".replace(".", ",") for value in row]
        split = "Test" if i >= 10 else "Validation"
        lines.append(";".join([split, str(label), *cells, f"bild {i}.png"]))
    (tmp_path / "mine.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    file = load_logits_file(tmp_path / "mine.csv")
    np.testing.assert_array_equal(file["val"][0], z[:10])
    np.testing.assert_array_equal(file["test"][1], y[10:])
    assert "left out: 'Datei'" in file.notes


def write_logits(path, header, cells, n=60):
    """A table of logits with one column more, of these cells in turn."""
    rng = np.random.default_rng(0)
    lines = [f"{header},label,logit_0,logit_1,logit_2"]
    for i in range(n):
        scores = ",".join(f"{value:.3f}" for value in rng.normal(size=3))
        lines.append(f"{cells[i % len(cells)]},{i % 3},{scores}")
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("set", ["train", "cal", "test"]),
        ("set", ["train", "calibration", "extra"]),
        ("set", ["train", "cal", ""]),
        ("set", ["labeled", "val", "test"]),
        ("set", ["", "test"]),
        ("phase", ["learn", "test1", "test2"]),
        ("part", ["in_sample", "out_of_sample"]),
        ("part", ["train"]),
        ("part", ["train split", "test split"]),
        ("cohort", ["Training cohort", "Validation cohort"]),
        ("cohort", ["derivation", "validation"]),
        ("cohort", ["discovery", "validation"]),
        ("teil", ["Training", "Validierung", "Test"]),
        ("sample", ["Lernstichprobe", "Teststichprobe"]),
        ("in_train", ["0", "1"]),
        ("used_for_training", ["True", "False"]),
        ("trained_on", ["yes", "no"]),
        ("is_train", ["0"] * 10 + ["1"] * 9 + ["-1"]),
        ("is_train", ["no"] * 10 + ["yes"] * 9 + ["unknown"]),
        ("is_train", ["T", "F"]),
        ("is_train", ["1"]),
        ("is_train_sample", ["0", "1"]),
        ("held_out", ["0", "1"]),
        ("held out", ["x", ""]),
        ("is_heldout", ["0", "1"]),
        ("is_oof", ["0", "1"]),
        ("is_test", ["0", "1"]),
        ("in_bag", ["0", "1"]),
        ("train_mask", ["True", "False"]),
        ("split_train", ["0", "1"]),
        ("Train (y/n)", ["y", "n"]),
        ("part_of_train", ["0", "1"]),
        ("holdout flag", ["0", "1"]),
        ("source", ["MNIST train", "MNIST test"]),
        ("source", ["CIFAR-10 (train)", "CIFAR-10 (test)"]),
        ("file", ["train.csv", "test.csv"]),
        ("file", [f"data/{s}/{i}.png" for i in range(20) for s in ("train", "test")]),
        (
            "file",
            [f"D:\\data\\{s}\\{i}.png" for i in range(20) for s in ("trn", "val")],
        ),
        (
            "file",
            [f"/My Drive/{s}/{i}.png" for i in range(20) for s in ("train", "val")],
        ),
        ("file", [f"{s} ({i}).png" for i in range(20) for s in ("train", "test")]),
        ("id", [f"{s}-{i:05}" for i in range(20) for s in ("train", "test")]),
        ("id", [f"{s}A_{i}" for i in range(20) for s in ("train", "test")]),
        (
            "id",
            [f"/data/images_{s}/{i}.jpg" for i in range(20) for s in ("train", "val")],
        ),
    ],
)
def test_a_column_that_says_what_the_model_has_seen_is_not_left_out(
    tmp_path, header, cells
):
    path = write_logits(tmp_path / "mine.csv", header, cells)
    with pytest.raises(
        ValueError, match=f"'{re.escape(header)}' says val or test; name it"
    ):
        load_logits_file(path)


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("phase", ["train", "test"]),
        ("in_train", ["0", "1"]),
        ("is_train", ["True", "False", "True", "False", ""]),
        ("set", ["train", "cal", "test"]),
        ("file", [f"{s}/{i}.png" for i in range(20) for s in ("train", "val")]),
    ],
)
def test_samples_of_training_are_seen_beside_a_column_split(tmp_path, header, cells):
    header = f"split,{header}"
    either = [f"{split},{cell}" for cell in cells for split in ("val", "test")]
    path = write_logits(tmp_path / "mine.csv", header, either, n=120)
    with pytest.raises(BadParameter, match="says beside split which samples the model"):
        load_logits_file(path)


def test_a_part_that_was_held_out_of_the_data_for_training_is_told(tmp_path):
    cells = ["val,MNIST train", "test,MNIST test"]
    path = write_logits(tmp_path / "mine.csv", "split,source", cells)
    with pytest.warns(UserWarning, match="'source' is left out.*if it says which"):
        load_logits_file(path)


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("is_test", ["val,0", "test,1"]),
        ("set", ["val,dev", "test,test"]),
        ("is_train", ["val,0", "test,0"]),
        ("test_fold", ["val,0", "test,1", "val,2"]),
        ("site", ["val,a", "test,a", "val,b", "test,b"]),
    ],
)
def test_other_columns_beside_a_column_split_are_left_out(tmp_path, header, cells):
    path = write_logits(tmp_path / "mine.csv", f"split,{header}", cells)
    assert {*read_quietly(path).parts} == {"val", "test"}


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("superclass", ["train", "car", "bus"]),
        ("site", ["calgary", "valencia", "fitchburg"]),
        ("device", ["dev1 phone", "held by hand"]),
        ("lang", ["en", "tr"]),
        ("lang", ["hi", "te"]),
        ("school", ["public", "private"]),
        ("ward", ["internal", "surgical"]),
        ("rating", ["buy", "hold"]),
        ("stage", ["I", "II", "III"]),
        ("domain", ["books", "dvd"]),
        ("role", ["user", "system"]),
        ("subject", ["s1", "s2"]),
        ("problem", ["p1", "p2"]),
        ("probe", ["p1", "p2"]),
        ("hint", ["yes", ""]),
        ("contest", ["0", "1"]),
        ("covid_test", ["0", "1"]),
        ("test_result", ["yes", "no"]),
        ("last_tested_positive", ["0", "1"]),
        ("is_test", ["1"]),
        ("is_train", ["0"]),
        ("part", ["test"]),
        ("set", ["only one"]),
        ("fold", ["0", "1", "2"]),
        ("k", ["1", "2", "3"]),
        ("test_fold", ["0", "1", "2"]),
        ("step", [str(i) for i in range(60)]),
        ("id", [f"test_{i}" for i in range(60)]),
        (
            "file",
            [f"vehicles/{s}/{i}.png" for i in range(20) for s in ("train", "car")],
        ),
        ("file", [f"data/train/{i}.png" for i in range(60)]),
        ("file", [f"train/run{i}/data/test/7.png" for i in range(60)]),
        (
            "text",
            [f"this {s} was late {i}" for i in range(20) for s in ("train", "test")],
        ),
    ],
)
def test_a_column_of_other_words_is_left_out(tmp_path, header, cells):
    path = write_logits(tmp_path / "mine.csv", header, cells)
    (note,) = (n for n in read_quietly(path).notes if n.startswith("left out"))
    said = note.removeprefix(f"left out: '{header}'")
    if 2 <= len({*cells}) <= 5:
        n = 60 // len(cells)
        assert {*said.strip(" ()").split(", ")} == {
            f"{cell or 'empty'} {n}" for cell in cells
        }
    else:
        assert said == ""


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("set", ["train", "rest"]),
        ("cohort", ["internal", "external"]),
        ("cohort", ["A", "holdout"]),
        ("group", ["control", "test"]),
        ("quality", ["valid", "invalid"]),
        ("sample", ["INS", "OOT"]),
        ("sample", ["tr", "te"]),
        ("is_valid", ["0", "1"]),
        ("member", ["0", "1"]),
        ("train", ["y", "n"]),
        ("epoch", ["1", "2", "3"]),
        ("global step", ["100", "200"]),
    ],
)
def test_a_column_that_may_say_what_a_line_is_of_is_told(tmp_path, header, cells):
    path = write_logits(tmp_path / "mine.csv", header, cells)
    with pytest.warns(UserWarning, match=f"'{header}' is left out.*if it says which"):
        load_logits_file(path)


def read_quietly(path):
    """What a table holds, of which nothing is told."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_logits_file(path)


def write_confidences(path, columns, lines):
    text = [columns, *(",".join(map(str, line)) for line in lines), ""]
    path.write_text("\n".join(text))
    return path


@pytest.mark.parametrize("n_first", [2, 3, 4])
@pytest.mark.parametrize("form", ["correct", "names", "numbers", "rank", "melted"])
def test_a_line_for_each_class_of_a_sample_is_refused(tmp_path, n_first, form):
    """As top-k exports write it; each line would count as a sample."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), 80)
    lines = []
    for i, row in enumerate(p):
        label = rng.choice(4, p=row)
        for rank, k in enumerate(np.argsort(-row)[:n_first]):
            if rank and row[k] < 0.1:  # as exports drop what is small
                continue
            conf = f"{row[k]:.4f}"
            lines.append(
                {
                    "correct": (i, conf, int(k == label)),
                    "names": (i, conf, "ABCD"[label], "ABCD"[k]),
                    "numbers": (f"{i}.png", conf, label, k),
                    "rank": (rank + 1, conf, label, k),
                    "melted": (i, conf, label, row.argmax()),
                }[form]
            )
    columns = {"correct": "image,confidence,correct"}.get(
        form, f"{'rank' if form == 'rank' else 'image'},confidence,label,prediction"
    )
    path = write_confidences(tmp_path / "mine.csv", columns, lines)
    with pytest.raises(ValueError, match=r"keep the first (class )?of each sample"):
        load_logits_file(path)


@pytest.mark.parametrize("outputs", ["softmax", "sigmoid", "cosine"])
@pytest.mark.parametrize("digits", [2, 6])
@pytest.mark.parametrize("n_first", [2, 5])
def test_a_line_for_each_rank_is_refused_whatever_the_confidences_sum_to(
    tmp_path, outputs, digits, n_first
):
    p, labels = confident_model(200, 10)
    z = np.log(p) - np.log(p).mean(1, keepdims=True)
    scores = {
        "softmax": p,
        "sigmoid": 1 / (1 + np.exp(1.5 - z)),
        "cosine": 0.5 + z / np.linalg.norm(z, axis=1, keepdims=True) / 2,
    }[outputs]
    path = tmp_path / "m.csv"
    lines = [
        (f"{i}.png", labels[i], k, scores[i, k].round(digits))
        for i in [*range(200), 7]  # one is there twice
        for k in np.argsort(-scores[i])[:n_first]
    ]
    write_confidences(path, "image,label,prediction,confidence", lines)
    with pytest.raises(BadParameter, match="keep the first class of each sample"):
        load_logits_file(path)
    write_confidences(path, "label,prediction,confidence", [c[1:] for c in lines])
    with pytest.raises(BadParameter, match="in groups of one label, of falling conf"):
        load_logits_file(path)
    hits = [(i, int(label == k), c) for i, label, k, c in lines]
    write_confidences(path, "image,correct,confidence", hits)
    with pytest.raises(BadParameter, match="keep the first class of each sample"):
        load_logits_file(path)


@pytest.mark.parametrize("order", ["as seen", "sorted", "by label", "by confidence"])
@pytest.mark.parametrize("k", [2, 10, 200])
@pytest.mark.parametrize("power", [0.3, 1, 3])
def test_views_of_one_image_are_samples_in_any_order(tmp_path, order, k, power):
    p, _ = confident_model(180, k)
    labels = np.random.default_rng(1).integers(0, k, 60).repeat(3)
    p = np.where(np.arange(k) == labels[:, None], p.max(1, keepdims=True), p) ** power
    p /= p.sum(1, keepdims=True)
    p[::4] = p[::4, ::-1]  # a quarter is mostly wrong
    confidences = p.max(1).round(4)
    said = p.argmax(1)
    images = np.arange(180) // 3
    rows = {
        "as seen": np.arange(180),
        "sorted": np.lexsort((-confidences, images)),
        "by label": np.lexsort((-confidences, labels)),
        "by confidence": np.argsort(-confidences),
    }[order]
    path = tmp_path / "m.csv"
    lines = [(images[i], labels[i], said[i], confidences[i]) for i in rows]
    write_confidences(path, "image,label,prediction,confidence", lines)
    assert len(read_quietly(path).parts["test"][0]) == 180
    lines = [(image, int(a == b), c) for image, a, b, c in lines]
    write_confidences(path, "image,correct,confidence", lines)
    assert len(read_quietly(path).parts["test"][0]) == 180


def test_several_samples_of_one_patient_are_samples(tmp_path):
    rng = np.random.default_rng(1)
    conf = rng.uniform(0.3, 1, 80)
    lines = [
        (f"patient {i // 2}", f"{c:.4f}", int(rng.random() < c))
        for i, c in enumerate(conf)
    ]
    path = write_confidences(tmp_path / "mine.csv", "patient,confidence,correct", lines)
    assert len(read_quietly(path).parts["test"][0]) == 80


@pytest.mark.parametrize("way", ["{}.", "({})", "{})", "**{}**", "'{}'", "`{}`", "{}:"])
def test_a_prediction_with_marks_around_a_label_is_refused(tmp_path, way):
    rng = np.random.default_rng(1)
    lines = [
        ("ABCD"[i % 4], way.format("ABCD"[j]) if i % 9 == 0 else "ABCD"[j], 0.5)
        for i, j in enumerate(rng.integers(0, 4, 80))
    ]
    path = write_confidences(
        tmp_path / "mine.csv", "label,prediction,confidence", lines
    )
    with pytest.raises(ValueError, match="write a class in one way"):
        load_logits_file(path)


def lines_of_three(n, **replaced):
    """Labels, predictions and confidences of a model; some cells are others.

    ``replaced`` gives the rows and the cell by column.
    """
    p, labels = confident_model(n, 3)
    columns = {"label": labels.astype(object), "prediction": p.argmax(1).astype(object)}
    for column, (rows, cell) in replaced.items():
        columns[column][rows] = cell
    return [
        *zip(columns["label"], columns["prediction"], p.max(1).round(4), strict=True)
    ]


@pytest.mark.parametrize("column", ["label", "prediction"])
@pytest.mark.parametrize("share", [0.01, 0.3])
def test_an_id_for_no_class_is_refused_or_told_beside_those_of_classes(
    tmp_path, column, share
):
    path = tmp_path / "m.csv"
    rows = np.arange(0, 600, round(1 / share))
    for cell, how in ((255, "refused"), (999, "refused"), (99, "told"), (7, "told")):
        lines = lines_of_three(600, **{column: (rows, cell)})
        write_confidences(path, "label,prediction,confidence", lines)
        match = f"{column}: (holds )?{cell}, first in line 2"
        if how == "refused":
            with pytest.raises(BadParameter, match=f"{match}, .*, beside class ids up"):
                load_logits_file(path)
        else:
            told = f"{match}, counts as a class, so that {len(rows)} samples"
            with pytest.warns(UserWarning, match=told):
                load_logits_file(path)
    lines = lines_of_three(600, label=(rows, 255), prediction=(rows, 255))
    write_confidences(path, "label,prediction,confidence", lines)
    with pytest.warns(UserWarning, match=f"label: 255 stands in {len(rows)} lines, in"):
        load_logits_file(path)


def test_ids_of_classes_are_told_only_where_they_are_common(tmp_path):
    path = tmp_path / "m.csv"
    for column, n_lines, told in (
        ("label", 25, None),  # a rare class, which is never predicted
        ("label", 60, "label: no prediction is 3, as 60 of 600 labels are"),
        ("prediction", 10, None),  # of a class that few samples have
        ("prediction", 25, "prediction: 25 of 600 are no label of this table, as 3"),
    ):
        lines = lines_of_three(600, **{column: (np.arange(n_lines), 3)})
        write_confidences(path, "label,prediction,confidence", lines)
        if told is None:
            read_quietly(path)
        else:
            with pytest.warns(UserWarning, match=told):
                load_logits_file(path)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 256, 300)  # of 256 classes, of which 255 is one
    labels[0] = 255
    lines = [(k, k if i % 9 else (k + 1) % 255, 0.9) for i, k in enumerate(labels)]
    write_confidences(path, "label,prediction,confidence", lines)
    read_quietly(path)


@pytest.mark.parametrize(
    "word", ["unlabelled", "Void", "unsure", "I don't know", r"\N"]
)
@pytest.mark.parametrize("column", ["label", "prediction"])
def test_words_for_no_class_are_told_however_few(tmp_path, word, column):
    path = tmp_path / "m.csv"
    lines = [("cat", "cat", 0.9), ("dog", "dog", 0.8)] * 100
    odd = {"label": (word, "cat", 0.6), "prediction": ("cat", word, 0.6)}[column]
    write_confidences(path, "label,prediction,confidence", [*lines, odd])
    with pytest.warns(UserWarning, match=f"{column}: .*, first in line 202, counts"):
        load_logits_file(path)
    write_confidences(
        path, "label,prediction,confidence", [*lines, odd, (word, word, 0.7)]
    )
    read_quietly(path)  # a class


@pytest.mark.parametrize(
    "value", ["#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!"]
)
def test_error_values_of_spreadsheets_are_told_wherever_they_stand(tmp_path, value):
    path = tmp_path / "m.csv"
    lines = [("cat", "cat", 0.9), ("dog", "dog", 0.8)] * 100
    for odd in (value, "cat", 0.6), ("cat", value, 0.6), (value, value, 0.7):
        write_confidences(path, "label,prediction,confidence", [*lines, odd])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_logits_file(path)
        said = [str(warning.message) for warning in caught]
        told = "', first in line 202, is a spreadsheet's error value and counts as a "
        assert [told in message for message in said] == [True] * odd.count(value)
    hashed = [("#1!cat", "#1!cat", 0.9), ("C#", "C#", 0.8), ("#dog", "#dog", 0.8)]
    write_confidences(path, "label,prediction,confidence", hashed * 60)
    read_quietly(path)


def test_answers_of_many_words_that_no_label_is_are_told(tmp_path):
    path = tmp_path / "m.csv"
    lines = [("cat", "cat", 0.9), ("dog", "dog", 0.8)] * 1000
    lines += [("dog", f"I see nothing in picture {i}", 0.6) for i in range(30)]
    write_confidences(path, "label,prediction,confidence", lines)
    with pytest.warns(UserWarning, match="30 of 2,030 are no label of this table"):
        load_logits_file(path)


@pytest.mark.parametrize("between", ["|", ";", " / ", "+", ", "])
@pytest.mark.parametrize("ids", [True, False])
def test_labels_of_several_classes_are_refused(tmp_path, between, ids):
    path = tmp_path / "m.csv"
    names = "012" if ids else ["Mass", "Effusion", "No Finding"]
    classes = [(0, 1, 2)[i % 3] for i in range(120)]
    labels = [names[k] for k in classes]
    for row in (7, 50, 51):
        labels[row] = between.join([names[0], names[1 + row % 2]])

    def write(said):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(
                [
                    ("label", "prediction", "confidence"),
                    *((a, b, 0.9) for a, b in zip(labels, said, strict=True)),
                ]
            )

    write([names[k] for k in classes])
    with pytest.raises(BadParameter, match=r"label: .* in line 9, which are several"):
        load_logits_file(path)
    write(labels)  # classes of their own
    assert read_quietly(path).parts["test"][1].all()
    if not ids:
        labels[50] = labels[51] = names[0]
        write([names[k] for k in classes])
        with pytest.warns(UserWarning, match="label: .* its parts are labels; if it"):
            load_logits_file(path)


def test_predictions_that_no_label_has_are_told_if_they_are_many(tmp_path):
    path = tmp_path / "mine.csv"
    columns = "label,prediction,confidence"
    lines = [("AB"[i % 2], "option A" if i % 10 == 0 else "B", 0.5) for i in range(80)]
    write_confidences(path, columns, lines)
    with pytest.warns(UserWarning, match="8 of 80 are no label .* 'option A'"):
        load_logits_file(path)
    lines = [("A", "A", 0.5)] * 1000 + [("Käse", "KÃ¤se", 0.5)] * 20
    write_confidences(path, columns, lines)
    with pytest.warns(UserWarning, match="20 of 1,020 are no label"):
        load_logits_file(path)
    lines = [("A", "A", 0.5)] * 100 + [("B", "The answer is B", 0.5)]
    write_confidences(path, columns, lines)
    with pytest.warns(UserWarning, match="1 of 101 are no label"):
        load_logits_file(path)
    lines = [("C", "C#" if i == 7 else "C", 0.9) for i in range(80)]
    lines += [("C++", "C++", 0.9), ("C#", "C", 0.9)]
    write_confidences(path, columns, lines)
    file = load_logits_file(path)  # three classes
    assert int((~file.parts["test"][1]).sum()) == 2


@pytest.mark.parametrize(
    "names",
    [
        ["0-2", "3-9", "10-19", "20-29"],
        ["(0, 2)", "(4, 6)", "(15, 20)"],
        ["class 0 (zero)", "class 2 (two)", "class 10 (ten)"],
        ["c0_a", "c2_b", "c10_c"],
        ["0.5-1.0", "1.0-2.0", "2.0-5.0", "5.0-10.0", "10.0-20.0"],
        ["1.5 T", "3.0 T", "10.5 T"],
        ["$0-$499", "$500-$999", "$1,000-$4,999", "$5,000+"],
        ["0-499", "500-999", "1.000-4.999"],
        ["500 ml", "1'000 ml"],
        ["low", "medium", "high"],
        ["S", "M", "L", "XL"],
        ["A+", "A", "B"],
    ],
)
@pytest.mark.parametrize("scores", ["logit", "prob"])
def test_names_by_the_alphabet_are_not_believed_against_the_scores(
    tmp_path, names, scores
):
    rng = np.random.default_rng(0)
    k = len(names)
    labels = rng.integers(0, k, 200)
    z = rng.normal(size=(200, k)) + 1.5 * np.eye(k)[labels]
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    values = (z if scores == "logit" else p).round(6)
    columns = ",".join(f"{scores}_{i}" for i in range(k))
    path = tmp_path / "mine.csv"

    def write(order):
        rows = [
            [f'"{names[label]}"', *row]
            for label, row in zip(labels, values[:, order], strict=True)
        ]
        write_confidences(path, f"label,{columns}", rows)

    write([*range(k)])
    told = "holds names that count|may count the classes in another order"
    with pytest.raises(ValueError, match=f"label: ({told}).*; end the columns with"):
        load_logits_file(path)
    if not any(character.isdigit() for character in "".join(names)):
        write(np.argsort(names))  # as scikit-learn counts
        assert load_logits_file(path).class_names == tuple(sorted(names))


@pytest.mark.parametrize(
    "names",
    [
        ["5.0-10.0", "10.0-20.0", "20.0-50.0"],
        ["1.5 T", "3.0 T", "10.5 T"],
        ["$0-$499", "$500-$999", "$1,000-$4,999"],
        ["0-499", "500-999", "1.000-4.999"],
        ["0 ml", "500 ml", "1'000 ml"],
    ],
)
def test_names_with_decimals_or_thousands_count_whatever_the_scores_say(
    tmp_path, names
):
    z = np.random.default_rng(0).normal(size=(30, 3)).round(3)
    rows = [[f'"{names[i % 3]}"', *row] for i, row in enumerate(z)]
    path = tmp_path / "mine.csv"
    write_confidences(path, "label,logit_0,logit_1,logit_2", rows)
    with pytest.raises(ValueError, match="label: holds names that count"):
        load_logits_file(path)


@pytest.mark.parametrize(
    "names",
    [
        ["0.25-0.5", "0.5-1.0", "v1", "v1a"],
        ["1.125 mm", "1.5 mm", "2 mm", "2.25 mm"],
        ["(1,100)", "(1,200)", "(2,5)", "(2,7)"],
        ["v1.0", "v1.10", "v1.9", "v2.0"],
        ["1,000-4,999", "5,000-9,999", "O'Brien", "O'Neil"],
    ],
)
def test_decimals_in_names_are_in_order_by_the_alphabet(tmp_path, names):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    z = (rng.normal(size=(200, 4)) + 3 * np.eye(4)[labels]).round(4)
    rows = [[f'"{names[label]}"', *row] for label, row in zip(labels, z, strict=True)]
    path = tmp_path / "mine.csv"
    write_confidences(path, "label,logit_0,logit_1,logit_2,logit_3", rows)
    assert load_logits_file(path).class_names == tuple(names)


@pytest.mark.parametrize("comma", [False, True])
def test_numbers_with_and_without_leading_zeros_are_not_one_class(tmp_path, comma):
    path = tmp_path / "mine.csv"
    separator = ";" if comma else ","
    columns = separator.join(["label", "prediction", "confidence"])
    half = "0,5" if comma else "0.5"

    def write(rows):
        lines = [separator.join(map(str, [*row, half])) for row in rows]
        path.write_text("\n".join([columns, *lines, ""]))

    for codes, is_refused in (
        (("010", "10"), True),
        (("00", "0"), True),
        (("0e1", "0e2"), True),
        (("1e1", "10"), True),
        (("1E+3", "1000"), True),
        (("01", "10"), False),
        (("1", "10"), False),
    ):
        write((codes[i % 2], codes[i % 3 > 0]) for i in range(40))
        if is_refused:
            with pytest.raises(ValueError, match="write a class in one way"):
                load_logits_file(path)
        else:
            read_quietly(path)
    # One column pads, the other does not.
    write((f"{i % 3:02}", i % 3) for i in range(40))
    assert load_logits_file(path).parts["test"][1].all()


@pytest.mark.parametrize(
    ("first", "text", "told"),
    [
        ("a", '"he said \\"hi\\", ok"', "are 4, and line 3 has 5 cells; put a text"),
        ("a", "he, too", "are 4, and line 3 has 5 cells; put a text that holds a sep"),
        ('"a\nb"', '"two\nlines", too', "are 4, and line 4 has 5 cells; put a text"),
        ('"a\nb"', '"he said \\"hi\\", ok"', "line 4 holds a quotation mark within"),
    ],
)
def test_marks_and_separators_within_a_text_are_told_with_the_way_out(
    tmp_path, first, text, told
):
    """csv writes a mark within marks twice, not as C does."""
    path = tmp_path / "mine.csv"
    lines = [(first, "cat", "cat", 0.5), (text, "dog", "cat", 0.5)]
    write_confidences(path, "text,label,prediction,confidence", lines)
    with pytest.raises(BadParameter, match=f"columns: {told}.*a mark within quotation"):
        load_logits_file(path)


def test_a_fold_or_a_place_is_no_rank(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("k", "place"):
        lines = [(i % 5, f"{rng.uniform(0.3, 1):.3f}", i % 3 > 0) for i in range(100)]
        path = tmp_path / "m.csv"
        write_confidences(path, f"{name},confidence,correct", lines)
        assert len(load_logits_file(path).parts["test"][0]) == 100


@pytest.mark.parametrize("how", ["in order", "shuffled", "some lack"])
@pytest.mark.parametrize("form", ["logits", "names", "correct"])
def test_several_models_of_the_same_samples_are_told(tmp_path, form, how):
    """As tables that are logged each epoch, or joined for a comparison."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    header = {
        "logits": "label,logit_0,logit_1,logit_2",
        "names": "label,prediction,confidence",
        "correct": "correct,confidence",
    }[form]
    lines = []
    for model in ("a", "b", "c"):
        for i in range(40) if how == "in order" else rng.permutation(40):
            if how == "some lack" and rng.random() < 0.1:
                continue
            z = rng.normal(size=3)
            said = int(z.argmax())
            confidence = 0.4 + 0.6 * rng.random()
            cells = {
                "logits": [labels[i], *z.round(3)],
                "names": ["abc"[labels[i]], "abc"[said], confidence],
                "correct": [int(said == labels[i]), confidence],
            }[form]
            lines.append([model, f"{i}.png", *cells])
    path = write_confidences(tmp_path / "m.csv", f"model,image,{header}", lines)
    with pytest.warns(UserWarning, match="'model' parts the lines into 3 times the sa"):
        load_logits_file(path)


def several_models(rng, how):
    """Three times the labels of the same 300 samples, but for what ``how`` says."""
    labels = rng.integers(0, 3, 300)
    parts = [labels.copy() for _ in range(3)]
    if how == "a label corrected":
        parts[1][5] = (labels[5] + 1) % 3
    elif how == "a line lacks":
        parts[2] = np.delete(labels, 17)
    elif how == "shuffled":
        parts = [rng.permutation(labels) for _ in range(3)]
    return parts


def write_parts(path, header, parts):
    lines = [(m, k, k, 0.8) for m, labels in enumerate(parts) for k in labels]
    return write_confidences(path, f"{header},label,prediction,confidence", lines)


@pytest.mark.parametrize("how", ["a label corrected", "a line lacks", "shuffled"])
def test_several_models_without_ids_are_told_in_spite_of_exceptions(tmp_path, how):
    parts = several_models(np.random.default_rng(0), how)
    path = write_parts(tmp_path / "m.csv", "model", parts)
    verb = "may part" if how == "shuffled" else "parts"
    with pytest.warns(UserWarning, match=f"'model' {verb} the lines into 3 times the"):
        load_logits_file(path)


@pytest.mark.parametrize("header", ["fold", "model"])
@pytest.mark.parametrize("order", ["random", "of a recording", "sorted"])
def test_parts_of_other_samples_are_no_several_models(tmp_path, header, order):
    rng = np.random.default_rng(1)
    parts = [rng.integers(0, 3, 300) for _ in range(3)]
    if order == "of a recording":  # a state lasts
        parts = [rng.integers(0, 3, 30).repeat(rng.integers(1, 20, 30)) for _ in parts]
    if order == "sorted":
        parts = [np.sort(labels) for labels in parts]
    read_quietly(write_parts(tmp_path / "m.csv", header, parts))


def test_stratified_folds_are_no_several_models(tmp_path):
    parts = several_models(np.random.default_rng(2), "shuffled")
    read_quietly(write_parts(tmp_path / "m.csv", "fold", parts))


def test_folds_of_sorted_samples_are_no_several_models(tmp_path):
    rng = np.random.default_rng(0)
    lines = [[i % 5, i // 40, *rng.normal(size=3).round(3)] for i in range(120)]
    path = tmp_path / "m.csv"
    write_confidences(path, "fold,label,logit_0,logit_1,logit_2", lines)
    read_quietly(path)


def test_two_of_three_classes_that_a_model_predicts_may_be_sure_apart(tmp_path):
    """One at 0.4 to 0.5, the other above: of two classes that would be P(class 1)."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(60):
        said = "ab"[i % 2]
        confidence = rng.uniform(0.4, 0.5) if said == "a" else rng.uniform(0.6, 1)
        lines.append(("c" if i % 5 == 0 else said, said, f"{confidence:.3f}"))
    path = tmp_path / "m.csv"
    write_confidences(path, "label,prediction,confidence", lines)
    assert len(read_quietly(path).parts["test"][0]) == 60


def test_confidences_that_round_above_1_are_read(tmp_path):
    path = tmp_path / "m.csv"
    lines = [("1.0000001", 1), ("1.0000000000000002", 1), ("-1e-9", 0), ("0.5", 0)]
    write_confidences(path, "confidence,correct", lines)
    values = load_logits_file(path).parts["test"][0]
    assert values.tolist() == [1, 1, 0, 0.5]
    write_confidences(path, "confidence,correct", [*lines, ("1.001", 1)])
    with pytest.raises(ValueError, match=r"confidence: .* is outside"):
        load_logits_file(path)


def test_few_lines_of_many_classes_are_not_told_of_predictions_without_labels(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 200, 300)
    said = np.where(rng.random(300) < 0.7, labels, rng.integers(0, 200, 300))
    lines = [(f"c{a:03}", f"c{b:03}", 0.7) for a, b in zip(labels, said, strict=True)]
    assert len({*said} - {*labels}) > 15
    path = tmp_path / "m.csv"
    write_confidences(path, "label,prediction,confidence", lines)
    read_quietly(path)


@pytest.mark.parametrize("form", ["logits", "names"])
def test_a_grid_of_models_of_the_same_samples_is_told(tmp_path, form):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    lines = []
    for model in ("a", "b"):
        for prompt in ("x", "y", "z"):
            for i in rng.permutation(40):
                scores = rng.normal(size=3).round(3)
                said = [scores.argmax(), 0.5] if form == "names" else scores
                lines.append([model, prompt, i, labels[i], *said])
    header = "label,prediction,confidence" if form == "names" else "label,"
    header += "" if form == "names" else "logit_0,logit_1,logit_2"
    path = tmp_path / "m.csv"
    write_confidences(path, f"model,prompt,sample,{header}", lines[:-1])
    with pytest.warns(
        UserWarning, match="'model' and 'prompt' part the lines into 6 ti"
    ):
        load_logits_file(path)


def test_rare_events_in_groups_are_no_several_models(tmp_path):
    """Labels agree by chance: 0.97 of the hours of a machine are without a failure."""
    rng = np.random.default_rng(0)
    lines = [
        [i // 150, i % 150, int(rng.random() < 0.03), 0, f"{rng.uniform(0.9, 1):.3f}"]
        for i in range(900)
    ]
    path = tmp_path / "m.csv"
    write_confidences(path, "machine,hour,label,prediction,confidence", lines)
    read_quietly(path)
    lines = [[*line[:2], int(line[2] == 0), line[4]] for line in lines]
    write_confidences(path, "machine,hour,correct,confidence", lines)
    read_quietly(path)


def test_folds_whose_samples_are_numbered_anew_are_no_several_models(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        [i // 40, i % 40, rng.integers(0, 3), *rng.normal(size=3).round(3)]
        for i in range(200)
    ]
    path = tmp_path / "m.csv"
    write_confidences(path, "fold,row,label,logit_0,logit_1,logit_2", lines)
    read_quietly(path)


def test_labels_from_1_beside_named_columns_are_refused(tmp_path):
    lines = [[1 + i % 3, 0.5, i % 7, 1.5] for i in range(30)]
    path = tmp_path / "m.csv"
    write_confidences(path, "label,logit_cat,logit_dog,logit_eel", lines)
    with pytest.raises(ValueError, match=r"labels: contains 3|holds 3"):
        load_logits_file(path)


@pytest.mark.parametrize("how", ["from 1", "exchanged", "by the alphabet"])
def test_labels_and_predictions_that_count_otherwise_are_told(tmp_path, how):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    predictions = np.clip(np.round(labels + 0.7 * rng.normal(size=400)), 0, 4)
    predictions = predictions.astype(int)
    said = {
        "from 1": labels + 1,
        "exchanged": np.array([0, 2, 1, 3, 4])[labels],
        "by the alphabet": np.array(["d", "c", "a", "b", "e"])[labels],
    }[how]
    if how == "by the alphabet":
        predictions = np.array(["a", "b", "c", "d", "e"])[predictions]
    confidence = rng.uniform(0.5, 1, 400).round(3)
    lines = zip(said, predictions, confidence, strict=True)
    path = tmp_path / "m.csv"
    write_confidences(path, "label,prediction,confidence", lines)
    with pytest.warns(
        UserWarning, match="label: samples of class .* rather predicted as"
    ):
        load_logits_file(path)


def test_short_lines_are_seen_where_line_ends_are_mixed(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{i % 2},{rng.normal():.3f},{rng.normal():.3f},{i}" for i in range(60)]
    text = "label,logit_0,logit_1,id\r" + "\r".join(rows[:30]) + "\n"
    path = tmp_path / "m.csv"
    path.write_bytes((text + "\n".join(rows[30:]) + "\n").encode())
    assert len(load_logits_file(path)["val"][1]) == 60
    rows[45] = rows[45].split(",", 1)[1]
    path.write_bytes((text + "\n".join(rows[30:]) + "\n").encode())
    with pytest.raises(ValueError, match="line 47 has fewer cells"):
        load_logits_file(path)


@pytest.mark.parametrize("name", ["count", "n", "N Samples", "sample-weight"])
def test_a_table_of_counted_lines_is_told_that_each_is_one_sample(tmp_path, name):
    path = tmp_path / "aggregated.csv"
    rows = [f"correct,confidence,{name}", "1,0.95,700", "0,0.95,40", "1,0.6,9"]
    path.write_text("\n".join([*rows, ""]))
    with pytest.warns(UserWarning, match="each line is one sample"):
        file = load_logits_file(path)
    assert len(file.parts["test"][0]) == 3
    path.write_text(path.read_text().replace("700", "9").replace("40", "9"))
    load_logits_file(path)  # one number everywhere: a warning would be an error here


@pytest.mark.parametrize(
    "content",
    [
        b"label," * 10**6,
        b"label,prediction,confidence\n" + b'"' + b"x" * 10**6,
        b"label,prediction,confidence\n" + b"3,3," + b"9" * 10**5 + b"\n",
        b"label,prediction,confidence\n" + b"3,3,0.5," * 10**5 + b"\n",
        b"label,prediction,confidence\n3,3," + b"9" * 10**6 + b"\n",
        b"label,prediction,confidence" + b"x" * 10**6 + b"\n3,3,0.5\n",
        b"\xff\xfel\0a\0b\0",
        b"l\xe4bel,prediction,confidence\n3,3,0.5\n",
        b"label,prediction,confidence\nK\xe4se,Brot,0.5\n",
        b"label,prediction,confidence\n3,3,1e999\n",
        b"label,prediction,confidence\n3,3,0.5\n" + b"\n" * 10**5 + b"x",
        b"sep=" + b"x" * 100,
    ],
)
def test_hostile_tables_are_refused_in_few_words(tmp_path, content):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(BadParameter, match=r"mine\.csv: ") as error:
        load_logits_file(path)
    assert len(str(error.value)) < 1000
    assert str(error.value).isprintable()


def test_names_with_control_characters_are_shown_without_them(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("label,prediction,confidence,\x1b[31mred\n\x1bcat,dog,0.5,1\n")
    told = "; ".join(load_logits_file(path).notes)
    assert told.isprintable()
    assert "?[31mred" in told


@pytest.mark.parametrize("suffix", [".p", ".pt", ".npy", ".pkl"])
def test_files_of_other_kinds_are_told_how_to_convert(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(b"")
    with pytest.raises(BadParameter, match=r"numpy\.savez\('mine\.npz'"):
        load_logits_file(path)


# --- flips and cuts -----------------------------------------------------------------


def damaged(good, dice):
    """``good`` cut somewhere, or with one to three bytes changed."""
    if dice.random() < 0.3:
        return good[: dice.randrange(len(good))]
    content = bytearray(good)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(content))
        content[at] ^= dice.randint(1, 255)
    return bytes(content)


def load_damaged_run(path, content):
    path.write_bytes(content)
    return [array.tobytes() for array in runs.load_logits(path.parents[1], "test")]


def load_damaged_state(path, content):
    path.write_bytes(content)
    return [value.tolist() for value in states.load_state(path).values()]


def load_damaged_result(path, content):
    path.write_bytes(content)
    record = runs.read_result(path.parent)
    return [record.settings, record.results, record.environment]


def load_damaged_checkpoint(path, content):
    return stored.unpack_checkpoint(content, path)[1]["history"]


def reason(load, place, content, expected):
    """Why ``content`` is refused; None if it gives what was written."""
    try:
        found = load(place, content)
    except ValueError as error:  # any other exception fails the test
        return str(error)
    assert found == expected
    return None


def flips_and_cuts(folder, count):
    """Nothing but the house's errors, or exactly what was written."""
    finish(folder)
    path = folder / "logits" / "test.npz"
    state = states.pack_state({"temperature": torch.arange(3.0)})
    checkpoint = stored.pack_checkpoint(SETTINGS, {"history": [1, 2]})
    result = (folder / "metrics.json").read_bytes()
    cases = [
        (load_damaged_run, path, path.read_bytes()),
        (load_damaged_state, folder / "ats.pt", state),
        (load_damaged_result, folder / "metrics.json", result),
        (load_damaged_checkpoint, folder / "checkpoint.pt", checkpoint),
    ]
    dice = random.Random(8)
    refused = 0
    for load, place, good in cases:
        expected = load(place, good)
        for _ in range(count // len(cases)):
            words = reason(load, place, damaged(good, dice), expected)
            refused += words is not None
            if words is not None:
                assert re.match(rf"{re.escape(str(place))}: .+; .+", words, re.S)
    return refused / count


def test_no_damage_is_believed_and_every_refusal_is_in_the_house_s_words(tmp_path):
    assert flips_and_cuts(tmp_path, 400) > 0.5


@pytest.mark.long
def test_eight_thousand_flips_and_cuts(tmp_path):
    assert flips_and_cuts(tmp_path, 8000) > 0.5


# --- which numbers are whose ----------------------------------------------------------


def write_two_splits(run_dir, seed):
    rng = np.random.default_rng(seed)
    with runs.open_run(run_dir, SETTINGS | {"seed": seed}, {}) as run:
        for split in ("val", "test"):
            run.save_logits(split, rng.normal(size=(6, 3)), np.arange(6) % 3)
        run.finish({"test_raw_nll": 1.0})
    return run_dir / "logits"


def test_logits_in_the_place_of_others_are_refused(tmp_path):
    logits = write_two_splits(tmp_path / "a", seed=1)
    other = write_two_splits(tmp_path / "b", seed=2)
    first = runs.load_logits(tmp_path / "a", "val")[0]
    content = {path.name: path.read_bytes() for path in logits.iterdir()}
    (logits / "val.npz").write_bytes(content["test.npz"])
    (logits / "test.npz").write_bytes(content["val.npz"])
    with pytest.raises(ValueError, match=r"val\.npz: .*are those of 'test'"):
        runs.load_logits(tmp_path / "a", "val")
    (logits / "val.npz").write_bytes((other / "val.npz").read_bytes())
    with pytest.raises(ValueError, match=r"val\.npz: .*not those that this run wrote"):
        runs.load_logits(tmp_path / "a", "val")
    np.savez(logits / "val.npz", logits=first, labels=np.arange(6) % 3)  # unpacked
    np.testing.assert_array_equal(runs.load_logits(tmp_path / "a", "val")[0], first)


def finished_with_a_history(run_dir):
    settings = {"dataset": "digits", "model": "mlp", "loss": "gce", "seed": 1}
    epochs = [
        {"epoch": k, "lr": 0.1, "val_error": 0.5 / k, "seconds": 2.0} for k in (1, 2, 3)
    ]
    with runs.open_run(run_dir, settings, {"sharing": 1}) as run:
        run.write_history(epochs)
        run.finish({"test_raw_nll": 1.0, "ts_nll_temperature": 1.0})
    return run_dir / "history.jsonl"


def test_a_changed_history_is_refused_and_not_tabulated(tmp_path):
    path = finished_with_a_history(tmp_path / "digits" / "mlp" / "gce" / "seed-01")
    written = path.read_bytes()
    path.write_bytes(written.replace(b"\n", b"\r\n"))  # as some editors do
    (early,) = paper.collect(tmp_path).early_val_error
    assert early == pytest.approx((0.5 + 0.25 + 0.5 / 3) / 3)
    for other in (
        written.replace(b"0.25", b"0.35"),
        written[: written.index(b"\n") + 1],
    ):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=r"history\.jsonl: was changed since"):
            runs.load_history(path.parent)
        with pytest.warns(UserWarning, match="its numbers are left out"):
            assert "early_val_error" not in paper.collect(tmp_path)


@pytest.mark.parametrize("content", ["3\n", '{"epoch": 1}\n', "[[[", "fifo"])
def test_a_strange_history_of_an_older_run_hides_no_run(tmp_path, content):
    path = finished_with_a_history(tmp_path / "digits" / "mlp" / "gce" / "seed-01")
    metrics_path = path.with_name("metrics.json")
    record = stored.read_result(path.parent)
    stored.write_record(metrics_path, replace(record, history=""))
    path.unlink()
    if content == "fifo":
        os.mkfifo(path)
    else:
        path.write_text(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = paper.collect(tmp_path)
    assert len(table) == 1
    assert "early_val_error" not in table


def test_runs_that_do_not_record_whose_logits_are_whose_are_read(tmp_path):
    logits = write_two_splits(tmp_path, seed=1)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert set(content["logits"]) == {"val", "test"}
    record = stored.read_result(tmp_path)
    stored.write_record(tmp_path / "metrics.json", replace(record, logits={}))
    (logits / "val.npz").write_bytes((logits / "test.npz").read_bytes())
    assert runs.load_logits(tmp_path, "val")[0].shape == (6, 3)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, level):
    run_dir = tmp_path / "digits" / "mlp" / "ce" / "seed-01"
    place = run_dir.parents[3 - level]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("not a folder")
    with (
        pytest.raises(ValueError, match=rf"^{re.escape(str(place))}: is in the place"),
        runs.open_run(run_dir, SETTINGS, {}),
    ):
        pass
    assert not runs.is_done(run_dir)
    with pytest.raises(FileNotFoundError, match="not found; this run has none"):
        runs.load_logits(run_dir, "val")


@POSIX
def test_who_only_looks_at_a_lock_keeps_nobody_out(tmp_path):
    """A looker that the machine keeps waiting while it shares the lock."""
    import fcntl

    path = tmp_path / ".lock"
    path.touch()
    with open(path) as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)
        timer = threading.Timer(0.3, fcntl.flock, (looker, fcntl.LOCK_UN))
        timer.start()
        with locks.hold(path, timeout=0.1) as lock:
            lock.check()
        timer.join()
    with (
        locks.hold(path),
        pytest.raises(RuntimeError, match="another process is writing"),
        locks.hold(path, timeout=0.1),
    ):
        pass


@pytest.mark.parametrize("word", ["NA", "?", "unknown", "n.a."])
@pytest.mark.parametrize("kind", ["scores", "both"])
def test_a_word_beside_class_ids_is_refused(tmp_path, kind, word):
    """R writes NA for a missing class; the number of names may fit the columns."""
    rng = np.random.default_rng(0)
    path = tmp_path / "m.csv"
    labels = rng.integers(3, size=100).astype(object)
    labels[5] = word
    p = rng.dirichlet(np.ones(4), 100).round(4)
    if kind == "scores":
        header = "label,prob_0,prob_1,prob_2,prob_3"
        p[:, 3] = 1 - p[:, :3].sum(1)
        lines = [(label, *row) for label, row in zip(labels, p, strict=True)]
    else:
        header = "label,prediction,confidence"
        said = p[:, :3].argmax(1).astype(object)
        said[5] = word
        lines = [*zip(labels, said, p.max(1), strict=True)]
    write_confidences(path, header, lines)
    refused = rf"label: holds '{re.escape(word)}' in line 7 beside whole numbers"
    with pytest.raises(BadParameter, match=refused):
        load_logits_file(path)


def test_a_word_beside_class_ids_that_both_columns_have_apart_is_a_class(tmp_path):
    """As of the digits and the background."""
    path = tmp_path / "m.csv"
    p, labels = confident_model(600, 3)
    names = ("0", "1", "background")
    true, said = ([names[k] for k in ids] for ids in (labels, p.argmax(1)))
    lines = [*zip(true, said, p.max(1).round(4), strict=True)]
    write_confidences(path, "label,prediction,confidence", lines)
    assert read_quietly(path).class_names == names


def test_words_for_no_class_are_told_in_tables_of_scores_unless_they_are_predicted(
    tmp_path,
):
    path = tmp_path / "m.csv"
    rng = np.random.default_rng(0)
    for names, told in (
        (
            ["NA", "cat", "dog"],
            "label: 'NA', first in line 2, counts as a class, in 40",
        ),
        (["cat", "dog", "unknown"], None),  # a class as others are
        (["cat", "dog", "missing value"], None),
    ):
        labels = np.arange(120) % 3
        z = 0.5 * rng.normal(size=(120, 3)).round(4) + 2 * np.eye(3)[labels]
        lines = [(names[k], *row) for k, row in zip(labels, z, strict=True)]
        write_confidences(path, "label,logit_0,logit_1,logit_2", lines)
        if told is None:
            read_quietly(path)
        else:
            with pytest.warns(UserWarning, match=told):
                load_logits_file(path)
    z[:, 2] -= 9  # never predicted
    lines = [
        (("cat", "dog", "unknown")[k], *row) for k, row in zip(labels, z, strict=True)
    ]
    write_confidences(path, "label,logit_0,logit_1,logit_2", lines)
    with pytest.warns(UserWarning, match="label: 'unknown', first in line 4, counts"):
        load_logits_file(path)


def test_words_for_no_class_in_both_columns_are_told_unless_they_may_be_a_class(
    tmp_path,
):
    path = tmp_path / "m.csv"
    p, labels = confident_model(600, 3)
    said = p.argmax(1)
    n_wrong = int((labels != said).sum())
    assert n_wrong > 30
    for word, n_both, is_told in (
        ("NA", 1, True),
        ("n.a.", 30, True),
        ("unknown", 5, False),  # by chance all of a rare class may be right
        ("unknown", 200, True),
        ("dog", 200, False),
    ):
        true = ["one" if k == 1 else f"no {k}" for k in labels]
        pred = ["one" if k == 1 else f"no {k}" for k in said]
        true[:n_both] = pred[:n_both] = [word] * n_both
        lines = [*zip(true, pred, p.max(1).round(4), strict=True)]
        write_confidences(path, "label,prediction,confidence", lines)
        if is_told:
            told = f"label: '{re.escape(word)}' stands in {n_both} lines, in all of"
            with pytest.warns(UserWarning, match=told):
                load_logits_file(path)
        else:
            read_quietly(path)


def grouped_votes(rng):
    """Lines of correct, confidence and how many samples have these."""
    confidence = rng.choice(np.arange(10, 21), 5000) / 20
    correct = rng.random(5000) < confidence - 0.1
    pairs, sizes = np.unique(np.c_[correct, confidence], axis=0, return_counts=True)
    return [(int(hit), c, n) for (hit, c), n in zip(pairs, sizes, strict=True)]


@pytest.mark.parametrize(
    "name",
    ["size", "COUNT(*)", "n()", "_FREQ_", "Anzahl", "Count of id", "w", "wie oft"],
)
def test_a_grouped_table_is_told_by_its_lines_whatever_the_count_is_called(
    tmp_path, name
):
    lines = grouped_votes(np.random.default_rng(0))
    path = tmp_path / "m.csv"
    write_confidences(path, f"correct,confidence,{name}", lines)
    told = (
        f"{re.escape(name)}' is left out, and each line is one sample; if it says how"
    )
    with pytest.warns(UserWarning, match=told):
        load_logits_file(path)


def test_lines_between_two_marks_of_an_unquoted_table_are_no_text(tmp_path):
    """Also where one of them holds the separator; a matrix in a text is none."""
    path = tmp_path / "m.csv"
    texts = ["a film"] * 60
    texts[20], texts[30], texts[40] = '"So he said', "good, cheap", 'a TV of 32"'
    lines = [f"{text},cat,cat,0.{50 + i % 40}" for i, text in enumerate(texts)]
    path.write_text("\n".join(["text,label,prediction,confidence", *lines, ""]))
    told = "line 22 begins a cell with a quotation mark that it does not close"
    with pytest.raises(BadParameter, match=told):
        load_logits_file(path)
    matrix = "\n".join(["It is", *["1, 0, 0, 0"] * 20])
    lines[20], lines[30], lines[40] = f'"{matrix}",cat,cat,0.75', lines[0], lines[0]
    path.write_text("\n".join(["text,label,prediction,confidence", *lines, ""]))
    assert len(read_quietly(path).parts["test"][0]) == 60


@pytest.mark.parametrize("form", ["stopped", "bootstraps", "days"])
def test_rounds_may_hold_some_samples_more_often_than_others(tmp_path, form):
    """caret's bootstraps, and cross-validation that was stopped; no patient's days."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    held_out = []
    if form == "stopped":
        folds = [rng.permutation(120) % 5 for _ in range(5)]
        held_out = [order == fold for order in folds for fold in range(5)][:22]
    else:
        held_out = [rng.random(120) < 0.368 for _ in range(25)]
    start = "day " if form == "days" else "Resample"
    lines = [
        [f"{start}{number}", i + 1, labels[i], *rng.normal(size=2).round(3)]
        for number, rows in enumerate(held_out)
        for i in np.flatnonzero(rows)
    ]
    path = tmp_path / "m.csv"
    write_confidences(path, "when,id,label,logit_0,logit_1", lines)
    if form == "days":
        read_quietly(path)
    else:
        told = "most values of 'id' stand in some . lines with one label"
        with pytest.warns(UserWarning, match=told):
            load_logits_file(path)


@pytest.mark.parametrize("form", ["votes", "rounded"])
@pytest.mark.parametrize("name", ["0", "Count*(id)", "id_count", "wie oft", "share"])
def test_a_grouped_table_of_scores_is_told_by_its_lines_too(tmp_path, form, name):
    """Votes of ten trees, or a network's probabilities of one digit."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.5, 0.5, 0.5], 2000)
    labels = [rng.choice(3, p=row) for row in p]
    votes = np.array([rng.multinomial(10, row) / 10 for row in p])
    scores = votes if form == "votes" else np.log(p.clip(0.01)).round()
    lines, counts = np.unique(np.c_[labels, scores], axis=0, return_counts=True)
    numbers = (counts / 2000).round(4) if name == "share" else counts
    rows = [
        [int(line[0]), *line[1:], n] for line, n in zip(lines, numbers, strict=True)
    ]
    start = "prob" if form == "votes" else "logit"
    path = tmp_path / "m.csv"
    write_confidences(path, f"label,{start}_0,{start}_1,{start}_2,{name}", rows)
    told = f"{re.escape(name)}' is left out, and each line is one sample; if it says "
    with pytest.warns(UserWarning, match=told + "(how many|which share)"):
        load_logits_file(path)


def test_numbers_beside_scores_are_no_counts(tmp_path):
    path = tmp_path / "m.csv"
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = int(rng.choice([12, 40, 400]))
        p = rng.dirichlet([0.5, 0.5, 0.5], n)
        labels = [rng.choice(3, p=row) for row in p]
        scores = (p * 10).round() if seed % 2 else p.clip(1e-3)
        others = rng.integers((18, 1, 1), (90, 40, 6), (n, 3))
        lines = [*zip(labels, *np.log(scores + 0.1).T, *others.T, p[:, 0], strict=True)]
        header = "label,logit_0,logit_1,logit_2,age,size,num_image,percent"
        write_confidences(path, header, lines)
        read_quietly(path)


def test_whole_numbers_beside_samples_are_no_counts(tmp_path):
    """Votes repeat themselves where each line is a sample; fine confidences do not."""
    path = tmp_path / "m.csv"
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = int(rng.choice([12, 40, 400]))
        confidence = rng.beta(3, 1, n) * 0.5 + 0.5
        confidence = (confidence * 20).round() / 20 if seed % 2 else confidence
        lines = [
            (int(rng.random() < c), c, *rng.integers((18, 1, 1), (90, 40, 6)), i)
            for i, c in enumerate(confidence)
        ]
        write_confidences(path, "correct,confidence,age,size,len,row", lines)
        read_quietly(path)


@pytest.mark.parametrize("form", ["logits", "names"])
def test_repeated_cross_validation_is_told_by_the_numbers_of_its_samples(
    tmp_path, form
):
    """Each round draws other folds: ``Fold2.Rep1`` has none of ``Fold1.Rep1``."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    lines = []
    for repeat in range(6):
        folds = rng.permutation(120) % 5
        for i in np.lexsort((np.arange(120), folds)):
            z = rng.normal(size=2).round(3)
            said = [z.argmax(), 0.8] if form == "names" else z
            lines.append([f"Fold{folds[i]}.Rep{repeat}", i + 1, labels[i], *said])
    path = tmp_path / "m.csv"
    columns = "prediction,confidence" if form == "names" else "logit_0,logit_1"
    header = f"Resample,rowIndex,label,{columns}"
    write_confidences(path, header, lines)
    with pytest.warns(UserWarning, match="most values of 'rowIndex' stand in 6 lines"):
        load_logits_file(path)
    write_confidences(path, header, [lines[at] for at in rng.permutation(717)])
    with pytest.warns(UserWarning, match="most values of 'rowIndex' stand in 6 lines"):
        load_logits_file(path)
    once = [line for line in lines if line[0].endswith("Rep0")]
    write_confidences(path, header, once)
    read_quietly(path)
    sites = [[f"site {rng.integers(6)}", *line[1:]] for line in lines]  # by chance
    write_confidences(path, header, sites)
    read_quietly(path)


def test_confidences_of_the_classes_minus_one_and_one_are_advised_on(tmp_path):
    rng = np.random.default_rng(1)
    labels = rng.choice([-1, 1], 400)
    p = 1 / (1 + np.exp(-2 * (2 * rng.normal(size=400) + 2 * labels)))
    predictions = np.where(p > 0.5, 1, -1)
    lines = zip(labels, predictions, np.maximum(p, 1 - p), strict=True)
    write_confidences(tmp_path / "own.csv", "label,prediction,confidence", lines)
    advice = load_own_logits(tmp_path / "own.csv", tmp_path / "own.pt").advise()
    assert advice.rows[0].error == pytest.approx(np.mean(labels != predictions))
