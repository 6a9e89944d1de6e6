"""The run folder: nothing is lost, nothing is half-written, nothing damaged is believed."""

import errno
import json
import multiprocessing
import os
import warnings

import numpy as np
import pytest
import torch

from gcelib import runs

SETTINGS = {"dataset": "digits", "model": "convnet", "loss": "gce", "variant": "", "seed": 1, "milestones": (3, 5)}


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
        runs.save_checkpoint(tmp_path, {"history": [{"epoch": epoch}], "model": {"w": torch.full((3,), epoch / 3)}})
    state = runs.load_checkpoint(tmp_path)
    assert state["history"] == [{"epoch": 2}]
    assert torch.equal(state["model"]["w"], torch.full((3,), 2 / 3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.prev.pt", "checkpoint.pt"]


def damages(size):
    """Cut short at several places, and single bits flipped all over the file."""
    for keep in (0, 10, 32, size // 2, size - 1):
        yield f"cut to {keep} bytes", lambda content, keep=keep: content[:keep]
    for at in np.linspace(0, size - 1, 25).astype(int):
        yield f"bit flipped at {at}", lambda c, at=at: c[:at] + bytes([c[at] ^ 4]) + c[at + 1 :]


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_then_to_none(tmp_path):
    for epoch in range(2):
        runs.save_checkpoint(tmp_path, {"history": [epoch], "model": {"w": torch.rand(50)}})
    path = tmp_path / "checkpoint.pt"
    good, previous = path.read_bytes(), (tmp_path / "checkpoint.prev.pt").read_bytes()
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

    runs.save_checkpoint(tmp_path, {"history": Evil()})  # the hash fits, so only weights_only stands in its way
    with pytest.raises(Exception, match=r"[Ww]eights"):
        runs.load_checkpoint(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_a_folder_belongs_to_one_result(tmp_path):
    with opened(tmp_path) as done:
        assert not done
    with opened(tmp_path):
        pass  # the same settings are welcome again, tuples and all
    with pytest.raises(ValueError, match=r"lr .*None there, 0\.5 asked.*variant='lr_0\.5'"), opened(tmp_path, lr=0.5):
        pass
    with pytest.raises(ValueError, match=r"seed \(1 there, 2 asked\)"), opened(tmp_path, seed=2):
        pass


def test_environment_is_recorded_and_never_compared(tmp_path):
    with runs.open_run(tmp_path, SETTINGS, {"torch": "2.11", "device": "cuda"}):
        pass
    with runs.open_run(tmp_path, SETTINGS, {"torch": "3.0", "device": "cpu"}):
        pass
    assert runs.read_json(tmp_path / "config.json")["environment"] == {"torch": "2.11", "device": "cuda"}


def test_metrics_json_alone_means_done(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"left by a kill between the last two steps")
    with opened(tmp_path) as done:
        assert not done
    runs.write_json(tmp_path / "metrics.json", {})
    with opened(tmp_path) as done:
        assert done
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
    with opened(tmp_path) as done:
        assert not done


def test_logits_round_trip_and_every_damage_is_refused(tmp_path):
    logits, labels = np.random.default_rng(0).normal(size=(20, 5)), np.arange(20) % 5
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
    with pytest.raises(ValueError, match=r"damaged.*allow_pickle=False"):
        runs.load_logits(tmp_path, "test")
    np.savez(path, scores=logits)
    with pytest.raises(ValueError, match=r"damaged.*logits"):
        runs.load_logits(tmp_path, "test")


def finished(runs_dir, seed, **results):
    folder = runs.run_path(runs_dir, "digits", "convnet", "gce", "", seed)
    folder.mkdir(parents=True)
    content = {"config": SETTINGS | {"seed": seed}, "environment": {"device": "cpu"}, "results": results}
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


def test_a_damaged_result_is_skipped_and_named(tmp_path):
    finished(tmp_path, 1, test_raw_ece=0.5)
    (finished(tmp_path, 2) / "metrics.json").write_text('{"config": {')
    with pytest.warns(UserWarning, match="seed-02.*skipped"):
        assert len(runs.load_results(tmp_path)) == 1


def test_no_runs_is_an_empty_table(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert runs.load_results(tmp_path / "nowhere").empty


def test_the_runs_folder_can_be_moved_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("GCELIB_RUNS_DIR", str(tmp_path))
    assert runs.default_runs_dir() == tmp_path
    monkeypatch.delenv("GCELIB_RUNS_DIR")
    assert runs.default_runs_dir() == runs.PROJECT / "runs"
