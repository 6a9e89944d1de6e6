"""Whatever stops a run, repeating the command ends it with the same bits as a run that
nothing stopped.

Single kills at chosen points are in test_training.py; the long loop of random ones here
needs ``pytest -m long``.
"""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from gcelib import calibration, data, runs
from gcelib.study.trainer import TrainConfig, fit

OPTIONS = {
    "dataset": "digits",
    "model": "mlp",
    "loss": "afl",
    "epochs": 3,
    "ood": ("noise",),
    "device": "cpu",
}
POSIX = pytest.mark.skipif(
    os.name == "nt", reason="Windows has neither these signals nor these limits"
)


def config(folder, **changed):
    return TrainConfig(**OPTIONS | changed, runs_dir=str(folder))


def outcome(config):
    """Bits of all logits, and every result but the time taken."""
    logits = {
        p.name: np.load(p)["logits"].tobytes()
        for p in sorted((config.run_dir / "logits").glob("*.npz"))
    }
    results = runs.read_json(config.run_dir / "metrics.json")["results"]
    return logits, {k: v for k, v in results.items() if k != "train_seconds"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the run gives when nothing stops it."""
    undisturbed = config(tmp_path_factory.mktemp("whole"))
    list(fit(undisturbed))
    logits, results = outcome(undisturbed)
    assert list(logits) == ["noise.npz", "test.npz", "val.npz"]
    return logits, results


def test_the_first_edition_gave_the_same_logits(whole):
    """Six sums and scores of its run: the same bits here, other CPUs round
    otherwise."""
    scores = {
        name.removesuffix(".npz"): np.frombuffer(content, np.float32).astype(float)
        for name, content in whole[0].items()
    }
    means = [scores[name].mean() for name in ("val", "test", "noise")]
    earlier = [0.2725580922, 0.2736495337, 0.0990165701]
    np.testing.assert_allclose(means, earlier, atol=1e-4)
    earlier = [-11.45509, 10.93679, 3.02353]
    np.testing.assert_allclose(scores["test"][:3], earlier, atol=1e-3)


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    """The folder of a run that was stopped after its second epoch."""
    stopped = config(tmp_path_factory.mktemp("stopped"))
    run = fit(stopped)
    next(run), next(run)
    run.close()
    return stopped.run_dir


def stopped_copy(folder, two_epochs):
    """A run of one's own that was stopped after its second epoch."""
    stopped = config(folder)
    shutil.copytree(two_epochs, stopped.run_dir)
    return stopped


def finish(stopped, whole):
    """Repeat the command: the epochs that are left, the same bits, no litter."""
    epochs = [record["epoch"] for record in fit(stopped)]
    assert outcome(stopped) == whole
    lines = (stopped.run_dir / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    assert not [
        p.name
        for p in stopped.run_dir.rglob("*")
        if "checkpoint" in p.name or ".json." in p.name
    ]
    return epochs


# --- disks ----------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("file", ["checkpoint.pt", "val.npz"])
def test_a_full_disk_stops_the_run_with_the_file_s_name_and_loses_nothing(
    tmp_path, whole, file
):
    """A limit on the size of files stands for the full disk: it strikes in the midst of
    a write, too."""
    import resource

    stopped = config(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = fit(stopped)
    next(run)
    if file == "val.npz":
        next(run), next(run)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"File too large.*{file}"):
            next(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert finish(stopped, whole) == ([2, 3] if file == "checkpoint.pt" else [])


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="only root can mount a small disk",
)
def test_a_disk_that_is_really_full(tmp_path, whole):
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "small", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this container may not mount a disk")
    try:
        stopped = config(tmp_path)
        with pytest.raises(OSError, match=r"No space left on device.*checkpoint"):
            list(fit(stopped))
        assert 1 <= len(runs.load_checkpoint(stopped.run_dir)["history"]) <= 2
        subprocess.run(["mount", "-o", "remount,size=10m", str(tmp_path)], check=True)
        finish(stopped, whole)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@contextlib.contextmanager
def read_only(folder):
    """``folder`` and all in it cannot be written; root, whom permissions do not bind,
    becomes nobody for a while."""
    every = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
    for path in every:
        path.chmod(0o555)
    if root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in every:
            path.chmod(0o755)


@POSIX
def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_lost(whole):
    # Not pytest's, into which nobody but its owner can look.
    with tempfile.TemporaryDirectory() as folder:
        stopped = config(folder)
        with read_only(Path(folder)), pytest.raises(PermissionError, match=folder):
            next(fit(stopped))
        run = fit(stopped)
        next(run)
        with (
            read_only(Path(folder)),
            pytest.raises(PermissionError, match="checkpoint"),
        ):
            next(run)
        assert finish(stopped, whole) == [2, 3]
        # Others may read it.
        assert stat.S_IMODE((stopped.run_dir / "metrics.json").stat().st_mode) == 0o644


def halved(content):
    return content[: len(content) // 2]


def flipped(content):
    at = random.Random(0).randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("names", "left", "damage"),
    [
        (["checkpoint.pt"], [2, 3], halved),
        (["checkpoint.pt", "checkpoint.prev.pt"], [1, 2, 3], flipped),
    ],
)
def test_a_damaged_checkpoint_costs_epochs_and_never_the_result(
    tmp_path, whole, two_epochs, names, left, damage
):
    stopped = stopped_copy(tmp_path, two_epochs)
    for name in names:
        path = stopped.run_dir / name
        path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(
        UserWarning, match=r"checkpoint\S*\.pt is damaged and was not used"
    ):
        assert finish(stopped, whole) == left


# --- clocks, neighbours, interrupts ---------------------------------------------------


def test_clocks_and_file_times_decide_nothing(tmp_path, whole, two_epochs, monkeypatch):
    stopped = stopped_copy(tmp_path, two_epochs)
    now = time.time()
    backwards = iter(range(10**6))
    for when, name in enumerate(
        ["checkpoint.pt", "checkpoint.prev.pt", "history.jsonl", "config.json", ".lock"]
    ):
        # 1970 or 2096.
        os.utime(stopped.run_dir / name, (4e9 * (when % 2), 4e9 * (when % 2)))
    monkeypatch.setattr(time, "time", lambda: now - 86400 * next(backwards))
    assert finish(stopped, whole) == [3]


def test_a_second_writer_is_refused_and_harms_nothing(tmp_path, whole):
    """The lock is held here as another process would; test_runs.py has the same with a
    real one, which is killed."""
    first = config(tmp_path)
    run = fit(first)
    next(run)
    with pytest.raises(RuntimeError, match="another process is writing this run"):
        next(fit(config(tmp_path)))
    run.close()
    assert finish(first, whole) == [2, 3]


@POSIX
def test_ctrl_c_at_any_point_leaves_a_resumable_run(
    tmp_path, whole, monkeypatch, request
):
    # a shell starts background jobs with SIGINT ignored, and Python then leaves it so
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    stopped = config(tmp_path)
    places = [
        (torch.optim.SGD, "step", 30),
        (os, "fsync", 2),
        (os, "replace", 3),
        (runs.OpenRun, "save_logits", 2),
    ]
    places += [
        (calibration, "make_calibrator", 3),
        (runs, "discard_checkpoints", 1),
    ]
    for owner, name, call in places:
        real, calls = getattr(owner, name), []

        def interrupting(*args, real=real, calls=calls, call=call, **kwargs):
            calls.append(1)
            if len(calls) == call:
                signal.raise_signal(signal.SIGINT)
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupting)
            with pytest.raises(KeyboardInterrupt):
                list(fit(stopped))
        assert not runs.is_running(stopped.run_dir)
    assert finish(stopped, whole) == []


CELL = "for record in fit(config):\n    print('epoch', record['epoch'], flush=True)\n"


@pytest.fixture
def shell():
    """What runs the cells in a kernel; what it does to its process is undone."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = sys.modules["__main__"]
    try:
        shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
        yield shell
        shell.restore_sys_module_state()
    finally:
        sys.modules["__main__"] = main
        signal.signal(signal.SIGINT, before)


@POSIX
def test_an_interrupted_cell_goes_on_when_it_is_run_again(
    tmp_path, whole, shell, capsys
):
    """The button sends SIGINT, here between two epochs; with a real kernel: -m long."""
    shell.user_ns |= {"config": config(tmp_path), "fit": fit, "signal": signal}
    press = "    signal.raise_signal(signal.SIGINT)"
    interrupted = shell.run_cell(CELL + press)
    assert isinstance(interrupted.error_in_exec, KeyboardInterrupt)
    assert "epoch 1\n" in capsys.readouterr().out
    assert shell.run_cell(CELL).success
    assert capsys.readouterr().out == "epoch 2\nepoch 3\n"
    assert outcome(config(tmp_path)) == whole


@pytest.mark.long
def test_the_interrupt_button_stops_a_cell_and_running_it_again_goes_on(
    tmp_path, whole
):
    """A real kernel, interrupted as JupyterLab does it, while the cell draws between
    two epochs."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(startup_timeout=300)

    def execute(code, interrupt_at=None):
        request, texts = client.execute(code), []
        while True:
            message = client.get_iopub_msg(timeout=300)
            kind = message["msg_type"]
            content = message["content"]
            if message["parent_header"].get("msg_id") != request:
                continue
            if kind == "stream" and content["name"] == "stdout":
                texts += content["text"].split()
                if interrupt_at in texts:
                    interrupt_at = manager.interrupt_kernel() or None
            if kind == "error":
                texts.append(content["ename"])
            if kind == "status" and content["execution_state"] == "idle":
                return texts

    cell = "import threading\n" + CELL
    try:
        options = OPTIONS | {"runs_dir": str(tmp_path)}
        imports = "from gcelib import TrainConfig, fit\n"
        assert execute(f"{imports}config = TrainConfig(**{options})") == []
        # The time in which one presses the button.
        stop_here = "    threading.Event().wait(300)"
        assert execute(cell + stop_here, interrupt_at="1") == [
            "epoch",
            "1",
            "KeyboardInterrupt",
        ]
        assert execute(cell) == ["epoch", "2", "epoch", "3"]
    finally:
        manager.shutdown_kernel(now=True)
        client.stop_channels()
    assert outcome(config(tmp_path)) == whole


# --- the loop of kills ----------------------------------------------------------------

PHASES = {
    "save_checkpoint": "checkpointing",
    "write_history": "checkpointing",
    "save_logits": "final writes",
    "finish": "final writes",
}


def train_and_tell(options, told):
    """Train, and send the name of every phase as it begins, so that the killer knows
    where it strikes."""
    torch.set_num_threads(1)

    def telling(real, phase, after):
        def call(*args):
            told.send(phase)
            try:
                return real(*args)
            finally:
                told.send(after)

        return call

    for name, phase in PHASES.items():
        real = getattr(runs.OpenRun, name)
        setattr(runs.OpenRun, name, telling(real, phase, "training"))
    told.send("training")
    list(fit(TrainConfig(**options)))
    told.send("done")


@POSIX
@pytest.mark.long
def test_killed_at_thirty_random_moments_the_bits_stay_the_same(tmp_path, whole):
    """SIGKILL strikes a random time after a random phase has begun; runs are resumed
    till they end, then begin anew."""
    dice = random.Random(6)
    kills = Counter()
    phases = ["training", "checkpointing", "final writes"]
    context = multiprocessing.get_context("forkserver")
    finished = 0
    attempts = 0
    context.set_forkserver_preload(
        ["gcelib.study.trainer", "gcelib.study.data", "sklearn.datasets"]
    )
    data.load("digits")
    while sum(kills.values()) < 30 or min(kills[p] for p in phases) < 10:
        attempts += 1
        assert attempts < 400, f"{kills} and no end"
        options = OPTIONS | {"runs_dir": str(tmp_path / str(finished))}
        ear, mouth = context.Pipe(duplex=False)
        child = context.Process(target=train_and_tell, args=(options, mouth))
        child.start()
        mouth.close()
        target, seen = dice.choice(phases), ""
        # It comes once.
        patience = 1 if target == "final writes" else dice.randint(1, 3)
        while patience and seen != "done" and ear.poll(120):
            seen = ear.recv()
            patience -= seen == target
        if seen != "done":
            time.sleep(dice.uniform(0, 0.3 if target == "training" else 0.03))
            child.kill()
        child.join(120)
        with contextlib.suppress(EOFError):
            while ear.poll():
                seen = ear.recv()
        if child.exitcode == -signal.SIGKILL and seen != "done":
            kills[seen] += 1
        if seen == "done":
            assert outcome(TrainConfig(**options)) == whole
            finished += 1
    finish(TrainConfig(**options), whole)
    print(
        f"{sum(kills.values())} kills: {dict(kills)}; {finished} runs ended in "
        "between, all with the same bits"
    )
