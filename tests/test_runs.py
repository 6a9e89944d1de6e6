"""The run folder: nothing is lost or half-written, nothing damaged is believed."""

import errno
import io
import json
import multiprocessing
import os
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from gcelib import runs
from gcelib.study.parameters import BadParameter

SETTINGS = {
    "dataset": "digits",
    "model": "convnet",
    "loss": "gce",
    "variant": "",
    "seed": 1,
    "milestones": (3, 5),
}


def opened(run_dir, **changed):
    return runs.open_run(run_dir, SETTINGS | changed, {"device": "cpu"})


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    runs.write_json(path, {"ece": 0.1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        runs.write_json(path, {"ece": 0.2})
    assert runs.read_json(path) == {"ece": 0.1}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_json_refuses_what_json_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        runs.write_json(tmp_path / "metrics.json", {"ece": float("nan")})
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        runs.read_json(path)


def test_checkpoint_round_trip_keeps_bits_and_the_one_before(tmp_path):
    for epoch in range(3):
        runs.save_checkpoint(
            tmp_path,
            {
                "history": [{"epoch": epoch}],
                "model": {"w": torch.full((3,), epoch / 3)},
            },
        )
    state = runs.load_checkpoint(tmp_path)
    assert state["history"] == [{"epoch": 2}]
    assert torch.equal(state["model"]["w"], torch.full((3,), 2 / 3))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint.prev.pt",
        "checkpoint.pt",
    ]


def damages(size):
    """Cut short at several places, and single bits flipped all over the file."""
    for keep in (0, 10, 32, size // 2, size - 1):
        yield f"cut to {keep} bytes", lambda content, keep=keep: content[:keep]
    for at in np.linspace(0, size - 1, 25).astype(int):
        yield (
            f"bit flipped at {at}",
            lambda c, at=at: c[:at] + bytes([c[at] ^ 4]) + c[at + 1 :],
        )


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_then_to_none(tmp_path):
    for epoch in range(2):
        runs.save_checkpoint(
            tmp_path, {"history": [epoch], "model": {"w": torch.rand(50)}}
        )
    path = tmp_path / "checkpoint.pt"
    good = path.read_bytes()
    previous = (tmp_path / "checkpoint.prev.pt").read_bytes()
    for what, damage in damages(len(good)):
        path.write_bytes(damage(good))
        with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged"):
            assert runs.load_checkpoint(tmp_path)["history"] == [0], what
    (tmp_path / "checkpoint.prev.pt").write_bytes(previous[:-5])
    with pytest.warns(UserWarning, match="damaged"):
        assert runs.load_checkpoint(tmp_path) is None


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    # The hash fits, so only weights_only stands in its way.
    runs.save_checkpoint(tmp_path, {"history": Evil()})
    with pytest.warns(UserWarning, match=r"holds the name 'posix mkdir'"):
        assert runs.load_checkpoint(tmp_path) is None
    assert not (tmp_path / "owned").exists()


def begin(run_dir, **changed):
    """Leave a run behind that has one checkpoint."""
    with opened(run_dir, **changed) as run:
        run.save_checkpoint({"history": [{"epoch": 1}]})
        run.write_history([{"epoch": 1}])


def end(run_dir, **changed):
    """Leave a finished run behind."""
    with opened(run_dir, **changed) as run:
        run.finish({"test_raw_ece": 0.25})


@pytest.mark.parametrize("leave", [begin, end])
def test_a_folder_belongs_to_one_result(tmp_path, leave):
    leave(tmp_path)
    with opened(tmp_path) as run:  # the same settings are welcome again, tuples and all
        assert run.done == (leave is end)
    with (
        pytest.raises(
            ValueError, match=r"lr .*None there, 0\.5 asked.*variant='lr_0\.5'"
        ),
        opened(tmp_path, lr=0.5),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"seed \(1 there, 2 asked\)"),
        opened(tmp_path, seed=2),
    ):
        pass


def test_environment_is_recorded_and_never_compared(tmp_path):
    with runs.open_run(tmp_path, SETTINGS, {"torch": "2.11", "device": "cuda"}):
        pass
    with runs.open_run(tmp_path, SETTINGS, {"torch": "3.0", "device": "cpu"}):
        pass
    recorded = runs.read_config(tmp_path).environment
    assert recorded == {"torch": "2.11", "device": "cuda"}


DAMAGED = [
    "",
    '{"config": {',
    "[]",
    '{"config": {}, "environment": null, "results": {}}',
    '{"config": {}, "environment": {}, "results": {}}',
    "[" * 200_000,
]


@pytest.mark.parametrize("damaged", DAMAGED, ids=[text[:30] for text in DAMAGED])
def test_damaged_results_are_not_done_and_are_done_again(tmp_path, damaged):
    begin(tmp_path)
    (tmp_path / "metrics.json").write_text(damaged)
    with (
        pytest.warns(UserWarning, match=r"metrics\.json: .*This run is done again"),
        opened(tmp_path) as run,
    ):
        done, state = run.done, run.load_checkpoint()
    assert not done
    assert state["history"] == [{"epoch": 1}]
    with pytest.warns(UserWarning, match="done again"), opened(tmp_path) as run:
        run.finish({"test_raw_ece": 0.25})
    assert runs.is_done(tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def hold(run_dir, held, release):
    with opened(run_dir):
        held.set()
        release.wait(60)


def test_one_writer_at_a_time_and_the_lock_dies_with_its_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, release))
    other.start()
    assert held.wait(60)
    assert runs.is_running(tmp_path)
    with pytest.raises(RuntimeError, match="another process"), opened(tmp_path):
        pass
    other.kill()
    other.join(60)
    assert not runs.is_running(tmp_path)
    with opened(tmp_path) as run:
        assert not run.done


def test_logits_round_trip_and_every_damage_is_refused(tmp_path):
    logits = np.random.default_rng(0).normal(size=(20, 5))
    labels = np.arange(20) % 5
    runs.save_logits(tmp_path, "test", logits, labels)
    z, y = runs.load_logits(tmp_path, "test")
    assert (z.dtype, y.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(z, logits.astype(np.float32))
    np.testing.assert_array_equal(y, labels)
    with pytest.raises(FileNotFoundError, match=r"val\.npz.*'test'"):
        runs.load_logits(tmp_path, "val")
    path = tmp_path / "logits" / "test.npz"
    good = path.read_bytes()
    for keep in (0, 30, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:keep])
        with pytest.raises(ValueError, match="damaged"):
            runs.load_logits(tmp_path, "test")
    np.savez(path, logits=np.array([{"a": 1}], object), labels=labels)
    with pytest.raises(ValueError, match="Python objects"):
        runs.load_logits(tmp_path, "test")
    np.savez(path, scores=logits)
    with pytest.raises(ValueError, match=r"damaged.*scores, not logits"):
        runs.load_logits(tmp_path, "test")


@pytest.mark.parametrize(
    ("logits", "labels", "told"),
    [
        (np.eye(2) * 1e300, [0, 1], "logits: reach to 1e\\+300, beyond float32"),
        (np.eye(2) * np.nan, [0, 1], "logits: contains NaN"),
        (np.eye(2), [0], "labels: has 1 entries for 2"),
        (np.eye(2), [0, 2], "labels: contains 2, outside"),
        (np.eye(2), [-1, 1], "labels: contains -1, outside"),
        (np.eye(2), [0.7, 1.0], "labels: has dtype torch.float64"),
        (np.ma.masked_equal(np.eye(2), 0), [0, 1], "logits: is a masked array"),
        (np.eye(2) + 1j, [0, 1], "logits: has dtype complex128"),
    ],
)
def test_no_logits_are_written_that_could_not_be_read(tmp_path, logits, labels, told):
    with pytest.raises((ValueError, TypeError), match=f"^{told}"):
        runs.save_logits(tmp_path, "test", logits, labels)
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("split", ["../val", "/tmp/val", "a/b", "", ".hidden"])
def test_a_split_s_name_leads_to_no_other_folder(tmp_path, split):
    with pytest.raises(ValueError, match=r"^split: .* cannot name a file"):
        runs.save_logits(tmp_path, split, np.eye(2), [0, 1])
    with pytest.raises(ValueError, match=r"^split: .* cannot name a file"):
        runs.load_logits(tmp_path, split)


def somebodys(n=6, k=3, seed=0):
    """Arrays of a logits file."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, size in (("val", n), ("test", n + 2)):
        arrays |= {
            f"{split}_logits": rng.normal(size=(size, k)),
            f"{split}_labels": rng.integers(0, k, size),
        }
    return arrays


def as_csv(arrays):
    k = arrays["val_logits"].shape[1]
    lines = [",".join(["split", "label", *(f"logit_{i}" for i in range(k))])]
    for split in ("test", "val"):  # the order of the lines is free
        if f"{split}_logits" in arrays:
            for z, y in zip(
                arrays[f"{split}_logits"], arrays[f"{split}_labels"], strict=True
            ):
                lines.append(",".join([split, str(y), *map(repr, z.tolist())]))
    return "\n".join(lines) + "\n"


def npz_bytes(arrays):
    np.savez_compressed(buffer := io.BytesIO(), **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("parts", [("val",), ("val", "test")])
def test_a_logits_file_gives_back_every_bit(tmp_path, parts):
    arrays = {
        name: array
        for name, array in somebodys().items()
        if name.split("_")[0] in parts
    }
    (tmp_path / "mine.npz").write_bytes(npz_bytes(arrays))
    (tmp_path / "mine.csv").write_text(as_csv(arrays))
    (tmp_path / "excel.CSV").write_bytes(
        ("\ufeff" + as_csv(arrays).replace("\n", "\r\n")).encode()
    )
    for name in ("mine.npz", "mine.csv", "excel.CSV"):
        found = runs.load_logits_file(tmp_path / name)
        assert sorted(found) == sorted(parts)
        for split, (z, y) in found.items():
            np.testing.assert_allclose(
                z, arrays[f"{split}_logits"], 1e-15 if "npz" not in name else 0
            )
            np.testing.assert_array_equal(y, arrays[f"{split}_labels"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_logits": None}, "val_logits: is missing, the file has val_labels"),
        ({"val_labels": None}, "val_labels: is missing"),
        ({"test_labels": None}, "test_labels: is missing"),
        ({"test_logits": None}, "test_logits: is missing"),
        (
            {"tets_logits": np.ones((2, 3))},
            "unknown key 'tets_logits'; did you mean 'test_logits'",
        ),
        ({"val_logits": np.ones(6)}, r"val_logits: expected shape \(N, K\)"),
        ({"val_logits": np.ones((6, 1))}, "val_logits: .*K >= 2"),
        (
            {"val_logits": np.ones((0, 3)), "val_labels": np.ones(0, int)},
            "val_logits: has 0 samples",
        ),
        ({"val_logits": np.ones((6, 3), int)}, "val_logits: has dtype torch.int64"),
        ({"val_labels": np.ones(5, int)}, "val_labels: has 5 entries for 6 rows"),
        ({"val_labels": np.ones((6, 1), int)}, "val_labels: expected shape"),
        ({"val_labels": np.ones(6)}, "val_labels: has dtype torch.float64"),
        ({"test_labels": np.full(8, 3)}, r"test_labels: contains 3, outside \[0, 3\)"),
        ({"test_labels": np.full(8, -1)}, "test_labels: contains -1"),
        (
            {"test_logits": np.full((8, 3), np.nan)},
            "test_logits: contains NaN or infinity, first in row 0",
        ),
        (
            {"test_logits": np.ones((8, 4))},
            "test_logits: have another number of classes",
        ),
        (
            {"test_logits": somebodys()["val_logits"], "test_labels": np.ones(6, int)},
            "are val_logits again",
        ),
        (
            {"val_labels": np.array([{"a": 1}] * 6, object)},
            "val_labels: holds Python objects",
        ),
        ({"val_labels": np.array(["a"] * 6)}, "val_labels: has dtype <U1"),
        (
            {"val_logits": np.full((6, 3), 1 / 3)},
            r"val_logits: rows are >= 0 and sum to 1",
        ),
    ],
)
def test_a_bad_npz_is_refused_by_name(tmp_path, changed, message):
    arrays = {
        name: array
        for name, array in (somebodys() | changed).items()
        if array is not None
    }
    (tmp_path / "mine.npz").write_bytes(npz_bytes(arrays))
    with pytest.raises(BadParameter, match=r"mine\.npz: .*" + message):
        runs.load_logits_file(tmp_path / "mine.npz")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split,", "part,", "columns: 'part' says val or test; name it split"),
        ("split,", "spilt,", "columns: are spilt, .* did you mean 'split' by 'spilt'"),
        (
            "logit_2",
            "logit_1",
            "columns: are split, label, logit_0, logit_1, logit_1: 'logit_1' is there",
        ),
        ("logit_2", "xogit_2", "columns: are .*; write 'xogit_2' as logit_0"),
        ("logit_2", "logit_3", "columns: of 3 classes there is no column of class 2"),
        ("logit_0,logit_1,logit_2", "logit_0,logit_1", "columns: are fewer than"),
        ("val,1,", "val,,", "label: has a hole or NaN in line 12"),
        ("val,1,", "val,1.5,", "label: holds 1.5 in line .*whole numbers"),
        ("val,1,", "val,9,", "val_labels: contains 9"),
        ("val,1,", "vall,1,", "split: unknown 'vall'; did you mean 'val'"),
        ("val,1,", "val,1,x", "logit_0: holds what is not a number"),
        ("val,", "test,", "split: no line says val"),
        ("val,", "train,", "split: some lines say train; leave them out"),
    ],
)
def test_a_bad_csv_is_refused_by_name(tmp_path, old, new, message):
    text = as_csv(somebodys())
    assert old in text
    (tmp_path / "mine.csv").write_text(
        text.replace(old, new, -1 if old == "val," else 1)
    )
    with pytest.raises(BadParameter, match=r"mine\.csv: " + message):
        runs.load_logits_file(tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.csv", b"", "is empty"),
        (
            "mine.csv",
            as_csv(somebodys()).encode("utf-16"),
            "is in UTF-16; write it as UTF-8",
        ),
        ("mine.csv", b"\xef\xbb\xbf\r\n;;\r\n", "holds blank lines alone"),
        ("mine.csv", as_csv(somebodys()).encode() + b"\0", "holds zero bytes"),
        ("mine.npz", b"", "is not a whole .npz file"),
        ("mine.npz", b"val_logits, 1, 2", "is not a whole .npz file"),
        ("mine.npz", npz_bytes(somebodys())[:-30], "is not a whole .npz file"),
    ],
)
def test_an_unreadable_file_is_named_for_what_it_is(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadParameter, match=rf"{name}: (logits|npz): {message}"):
        runs.load_logits_file(tmp_path / name)


def test_a_file_that_would_expand_without_limit_is_refused_unread(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("val_logits.npy", bytes(10**8))
    with pytest.raises(BadParameter, match="would expand to 100,000,000 bytes"):
        runs.load_logits_file(tmp_path / "bomb.npz")


def test_other_files_are_refused_and_pickles_never_opened(tmp_path):
    with pytest.raises(BadParameter, match="no such file, seen from"):
        runs.load_logits_file(tmp_path / "nowhere.npz")
    (tmp_path / "mine.pt").write_bytes(b"")
    with pytest.raises(
        BadParameter, match=r"has the suffix '\.pt'; .*weights_only=True"
    ):
        runs.load_logits_file(tmp_path / "mine.pt")

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "inside.npz").write_bytes(
        npz_bytes(somebodys() | {"val_labels": np.array([Evil()], object)})
    )
    np.save(tmp_path / "single.npy", np.ones((3, 2)))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    for name, message in (
        ("pickle", "pickle"),
        ("inside", "Python objects"),
        ("single", "is not a whole .npz"),
    ):
        with pytest.raises(BadParameter, match=message):
            runs.load_logits_file(tmp_path / f"{name}.npz")
    assert not (tmp_path / "owned").exists()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(["npz", "csv"]), st.data())
def test_no_damage_is_believed(tmp_path_factory, suffix, data):
    """Cut anywhere, a byte changed anywhere: refused, or (a digit of a CSV) whole."""
    arrays = somebodys()
    good = npz_bytes(arrays) if suffix == "npz" else as_csv(arrays).encode()
    at = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.none() | st.integers(0, 255).filter(lambda b: b != good[at]))
    path = tmp_path_factory.mktemp("damaged") / f"mine.{suffix}"
    path.write_bytes(
        good[:at] if byte is None else good[:at] + bytes([byte]) + good[at + 1 :]
    )
    try:
        found = runs.load_logits_file(path)
    except BadParameter:  # any other exception fails the test
        return
    if suffix == "npz":  # what zip does not protect, such as a date, changes no number
        assert byte is not None
        for split, (z, y) in found.items():
            np.testing.assert_array_equal(z, arrays[f"{split}_logits"])
            np.testing.assert_array_equal(y, arrays[f"{split}_labels"])
    else:
        if byte is None and good[at - 1 : at] != b"\n":
            # A line without end may be whole: told, and only its last number differs.
            assert any("has no end" in note for note in found.notes)
            half = found["val"][0][-1, :-1]
            n_whole = sum(len(z) for z, _ in found.values()) - 1
            n_test = len(arrays["test_labels"])
            np.testing.assert_allclose(
                half, arrays["val_logits"][n_whole - n_test, :-1]
            )
        assert all(
            np.isfinite(z).all() and set(y) <= {0, 1, 2} for z, y in found.values()
        )


def finished(runs_dir, seed, **results):
    folder = runs.run_path(runs_dir, "digits", "convnet", "gce", "", seed)
    folder.mkdir(parents=True)
    content = {
        "config": SETTINGS | {"seed": seed},
        "environment": {"device": "cpu"},
        "results": results,
    }
    runs.write_json(folder / "metrics.json", content)
    return folder


def test_results_come_from_metrics_json_alone(tmp_path):
    for seed in range(1, 4):
        finished(tmp_path, seed, test_raw_ece=seed / 100)
    unfinished = runs.run_path(tmp_path, "digits", "convnet", "ce", "", 1)
    unfinished.mkdir(parents=True)
    (unfinished / "config.json").write_text(json.dumps({"settings": SETTINGS}))
    table = runs.load_results(tmp_path)
    assert list(table["seed"]) == [1, 2, 3]
    assert list(table["test_raw_ece"]) == [0.01, 0.02, 0.03]
    assert table["milestones"][0] == (3, 5)
    assert set(table["device"]) == {"cpu"}


def test_a_folder_of_runs_is_one_place_however_it_is_written(tmp_path, monkeypatch):
    """Tables are joined by the run's folder, with a sweep's, which are absolute."""
    finished(tmp_path / "mine", 1, test_raw_ece=0.5)
    (there,) = runs.load_results(tmp_path / "mine").run_dir
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in ("mine", "./mine", "~/mine"):
        (found,) = runs.load_results(written).run_dir
        assert found == there


def test_a_damaged_result_is_skipped_and_named(tmp_path):
    finished(tmp_path, 1, test_raw_ece=0.5)
    damaged = finished(tmp_path, 2) / "metrics.json"
    for text in (
        '{"config": {',
        '{"config": {}, "results": {}, "environment": null}',
        "[]",
        "[" * 200_000,
        '{"a": 1' + "0" * 5000,
    ):
        damaged.write_text(text)
        with pytest.warns(UserWarning, match="1 results are skipped: .*seed-02"):
            assert len(runs.load_results(tmp_path)) == 1
    damaged.unlink()
    damaged.mkdir()
    with pytest.warns(UserWarning, match="1 results are skipped: .*seed-02"):
        assert len(runs.load_results(tmp_path)) == 1


@pytest.mark.parametrize("text", ['{"settings": null}', "[]", "{}", "[" * 200_000])
def test_a_damaged_config_is_mended(tmp_path, text):
    begin(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with opened(tmp_path):
        pass
    assert runs.read_config(tmp_path).settings == SETTINGS | {"milestones": [3, 5]}


def test_what_killed_writes_left_is_removed(tmp_path):
    (tmp_path / "logits").mkdir()
    litter = [
        ".metrics.json.ab",
        ".history.jsonl.x_1",
        ".weights.pt.zz",
        "logits/.val.npz.q8",
    ]
    for name in litter:
        (tmp_path / name).write_bytes(b"half")
    with opened(tmp_path):
        assert not [name for name in litter if (tmp_path / name).exists()]


def test_what_an_earlier_run_left_does_not_pass_for_this_ones(tmp_path, recwarn):
    numbers = np.eye(3), np.arange(3)
    with opened(tmp_path, ood=("noise",)) as run:
        for split in ("val", "test", "noise", "digits"):
            run.save_logits(split, *numbers)
        run.write_history([{"epoch": 1}])
        run.save_weights({"w": torch.zeros(1)})
        run.finish({"ece": 0.5})
    (tmp_path / "metrics.json").unlink()  # to be done again, by other settings
    with opened(tmp_path, ood=("noise",), lr=0.5) as run:
        with pytest.raises(FileNotFoundError, match=r"test\.npz: not found"):
            runs.load_logits(tmp_path, "test")
        with pytest.raises(FileNotFoundError):
            runs.load_history(tmp_path)
        run.save_checkpoint({"epoch": 1})
        run.save_logits("test", *numbers)
    (warning,) = recwarn.list
    assert "logits/digits.npz, weights.pt there are an earlier" in str(warning.message)
    aside = {path.name for path in tmp_path.rglob("*.earlier")}
    assert aside == {"digits.npz.earlier", "weights.pt.earlier"}
    assert not (tmp_path / "weights.pt").exists()
    with opened(tmp_path, ood=("noise",), lr=0.5):  # it goes on
        assert runs.load_logits(tmp_path, "test")[1].tolist() == [0, 1, 2]
    assert len(recwarn) == 1


def test_weights_of_several_earlier_runs_are_all_moved_aside(tmp_path):
    for first in (1.0, 2.0, 3.0):
        (tmp_path / "weights.pt").write_bytes(bytes([int(first)]))
        environment = {"keep_weights": True}  # it may be stopped before it writes them
        settings = {"dataset": "d", "model": "m", "loss": "ce", "seed": 1, "lr": first}
        with (
            pytest.warns(UserWarning, match="have names that end in .earlier"),
            runs.open_run(tmp_path, settings, environment),
        ):
            assert not (tmp_path / "weights.pt").exists()
    aside = sorted(path.read_bytes()[0] for path in tmp_path.glob("weights.pt.*"))
    assert aside == [1, 2, 3]


def test_logits_that_a_finished_result_does_not_list_are_refused(tmp_path):
    numbers = np.eye(3), np.arange(3)
    with opened(tmp_path) as run:
        for split in ("val", "test"):
            run.save_logits(split, *numbers)
        # One that is not finished cannot say what it will write.
        runs.save_logits(tmp_path, "noise", *numbers)
        assert runs.load_logits(tmp_path, "noise")[0].shape == (3, 3)
        run.finish({"ece": 0.5})
    message = r"noise\.npz: is none of this run's, which wrote val, test; remove it"
    with pytest.raises(ValueError, match=message):
        runs.load_logits(tmp_path, "noise")
    assert runs.load_logits(tmp_path, "test")[0].shape == (3, 3)
    with pytest.raises(FileNotFoundError):
        runs.load_logits(tmp_path, "digits")


def test_a_summary_of_a_split_that_was_not_measured_is_refused(tmp_path):
    with opened(tmp_path) as run:
        run.finish({"test_raw_nll": 0.5})
    assert runs.summary(tmp_path).loc["raw", "NLL"] == 0.5
    with pytest.raises(ValueError, match="split: 'tset' has no metrics; use 'test'"):
        runs.summary(tmp_path, "tset")


def test_runs_that_may_not_be_read_are_told(tmp_path, monkeypatch):
    for loss in ("ce", "gce"):
        folder = runs.run_path(tmp_path, "digits", "convnet", loss, "", 1)
        with opened(folder, loss=loss) as run:
            run.finish({"test_raw_ece": 0.5})
    assert len(runs.load_results(tmp_path)) == 2
    closed = tmp_path / "digits" / "convnet" / "gce"
    listdir = os.listdir

    def refusing(place):
        if place == closed:  # tests may run as root, who may read all
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return listdir(place)

    monkeypatch.setattr(os, "listdir", refusing)
    with pytest.warns(UserWarning, match=r"1 results are skipped: .*gce: may not be r"):
        assert runs.load_results(tmp_path).loss.tolist() == ["ce"]


def test_no_runs_is_an_empty_table(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert runs.load_results(tmp_path / "nowhere").empty


def test_the_runs_folder_can_be_moved_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("GCELIB_RUNS_DIR", str(tmp_path))
    assert runs.default_runs_dir() == tmp_path
    monkeypatch.delenv("GCELIB_RUNS_DIR")
    assert runs.default_runs_dir() == runs.PROJECT / "runs"
