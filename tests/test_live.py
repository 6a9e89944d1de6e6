"""What a notebook shows of itself while it runs, in a terminal and in a kernel."""

import asyncio
import json
import os
import queue
import re
from pathlib import Path

import forked
import nbformat
import numpy as np
import pytest
import zmq
import zmq.asyncio

from gcelib import sweeps
from gcelib.study import engine
from gcelib.study.trainer import BatchProgress
from gcelib.view import live

# A notebook of this project in miniature; "gcelib" in its source makes it ours.
CODE = """
import os
from gcelib.view import live  # gcelib
from gcelib.study.trainer import BatchProgress
watch = live.TrainingWatch("runs/digits/convnet/gce/seed-01")
watch.batch(BatchProgress(epoch=1, epochs=2, step=10, steps=100, seconds=20.0))
for epoch in (1, 2):
    record = {"epoch": epoch, "epochs": 2, "train_loss": 0.5, "train_error": 0.25}
    watch.epoch(record | {"images_per_second": 4000.0, "seconds_left": 61.0})
watch.close()
print(os.getpid(), live.somebody_looks())
"""
LINES = [
    "starting",
    "epoch 1/2 · step 10/100 · 0:03:00 left in this epoch",
    "epoch 1/2 · loss 0.500 · train error 25.0% · images/s 4,000 · left 1:01 min",
    "epoch 2/2 · loss 0.500 · train error 25.0% · images/s 4,000 · left 1:01 min",
    "finished: digits/convnet/gce/seed-01",
]

STEP = r"epoch 1/3 · step (\d+)/(\d+) · \d:\d\d:\d\d left in this epoch"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("notebook") / "watched.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(CODE)]
    content = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(content, path)
    return path


def execute(notebook, *options):
    """Papermill in a process of its own: the executed notebook, what it printed."""
    output = notebook.with_name("executed.ipynb")
    code = (
        "import sys, papermill, papermill.__main__ as main;"
        "from gcelib.study import papermill_plugin; papermill_plugin.register();"
        "sys.exit(main.papermill())"
    )
    status, text = forked.python(code, str(notebook), str(output), *options)
    assert status == 0, text
    (cell,) = nbformat.read(output, as_version=4).cells
    return cell, text


def printed(cell):
    """The last line that the cell printed, in two words."""
    return cell.outputs[-1]["text"].split()


@pytest.mark.parametrize("options", [[], ["--engine", "gcelib"]])
def test_papermill_shows_each_epoch_in_its_bar(notebook, options):
    cell, text = execute(notebook, *options)
    places = [text.find(line) for line in LINES]
    assert -1 not in places
    assert places == sorted(places)
    assert "eavesdropping" not in text
    assert printed(cell)[1] == "False"
    assert cell.outputs[0]["data"]["text/plain"] == LINES[-1]


@pytest.mark.parametrize("options", [[], ["--engine", "gcelib"]])
def test_papermill_logs_each_epoch(notebook, options):
    _, text = execute(notebook, "--log-output", *options)
    assert [line for line in text.splitlines() if line in LINES] == LINES
    assert "object>" not in text


def test_the_bar_keeps_epoch_and_time_left_where_there_is_little_room(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shown = engine._fitting(LINES[2])
    assert len(shown) < 60
    assert shown.startswith("epoch 1/2 · ")
    assert shown.endswith(" · left 1:01 min")


def test_other_peoples_notebooks_are_executed_as_ever(monkeypatch):
    """The default engine adds nothing to a notebook that does not use gcelib."""
    taken = []
    parent = engine.NBClientEngine
    monkeypatch.setattr(
        parent,
        "execute_managed_notebook",
        classmethod(lambda cls, *a, **k: taken.append(k)),
    )

    class Manager:
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])

    engine.WatchedEngine.execute_managed_notebook(Manager, "python3", log_output=True)
    assert taken[0]["log_output"] is True


def test_a_failing_cell_ends_the_notebook_that_runs_without_a_kernel(tmp_path):
    cells = ["print('before')", "1 / 0", "print('never')"]
    cells = [nbformat.v4.new_code_cell(source) for source in cells]
    cells[1].metadata.tags = []
    path = tmp_path / "fails.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(content, path)
    code = (
        "import sys, papermill; from gcelib.study import papermill_plugin;"
        "papermill_plugin.register();"
        "papermill.execute_notebook(*sys.argv[1:3], engine_name='gcelib')"
    )
    status, text = forked.python(code, str(path), str(tmp_path / "out.ipynb"))
    assert status == 1
    assert "ZeroDivisionError" in text
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    outputs = [cell.outputs for cell in executed if cell.cell_type == "code"]
    assert outputs[0][0]["text"] == "before\n"
    assert outputs[1][-1]["ename"] == "ZeroDivisionError"
    assert outputs[2] == []


def test_a_sweep_tells_counts_epochs_and_time_left(tmp_path):
    grid = {"dataset": "digits", "loss": ["ce", "gce"], "seed": [1, 2], "epochs": 4}
    watch = live.SweepWatch(grid, tmp_path)
    assert watch.line() == "0 of 4 done · 0 running · 0 failed"
    first, second, third, _ = sweeps.expand(grid, tmp_path)
    for run_dir, epochs in ((first, 4), (second, 1)):
        Path(run_dir).mkdir(parents=True)
        Path(run_dir, "history.jsonl").write_text("{}\n" * epochs)
        os.utime(Path(run_dir, "history.jsonl"))
    watch._began_at = 0
    watch.tick()
    watch.ended({"run_dir": first, "state": "done"})
    watch.ended({"run_dir": third, "state": "failed"})
    line = watch.line()
    assert line.startswith("1 of 4 done · 1 running · 1 failed · ce seed 2 epoch 1/4")
    assert line.endswith(" left")
    assert watch.table().to_dict("records") == [{"ce": "1 of 2", "gce": "0 of 2"}]


def test_without_a_notebook_a_line_goes_to_standard_error(capsys):
    watch = live.TrainingWatch("runs/digits/convnet/gce/seed-01")
    watch.close()
    assert capsys.readouterr().err.splitlines() == [LINES[0], LINES[-1]]


@pytest.mark.parametrize("seconds_a_step", [0.01, 0.7, 4.0])
def test_an_epoch_that_takes_minutes_tells_its_steps_soon_and_goes_on(
    seconds_a_step, capsys, monkeypatch
):
    now = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    watch = live.TrainingWatch("runs/digits/convnet/gce/seed-01")
    steps = round(200 / seconds_a_step)
    told = []
    for step in range(1, steps + 1):
        now[0] = step * seconds_a_step
        watch.batch(BatchProgress(1, 3, step, steps, now[0]))
        told += [(now[0], line) for line in capsys.readouterr().err.splitlines()]
    assert told[0] == (seconds_a_step, "starting")
    times = [time for time, _ in told]
    assert times[1] <= max(5, seconds_a_step)  # by the clock of the test
    assert (np.diff(times[1:]) >= 1).all()
    assert (np.diff(times[1:]) <= max(2, seconds_a_step) + 1e-9).all()
    shown = [re.fullmatch(STEP, line) for _, line in told[1:]]
    assert all(shown)
    assert [int(line[1]) for line in shown] == sorted(int(line[1]) for line in shown)
    assert {int(line[2]) for line in shown} == {steps}


def test_an_epoch_of_a_second_tells_no_steps(capsys):
    watch = live.TrainingWatch("runs/digits/convnet/gce/seed-01")
    for step in range(1, 11):
        watch.batch(BatchProgress(1, 3, step, 10, step / 10))
    assert capsys.readouterr().err.splitlines() == ["starting"]


class _JsonMessages:
    """As much of a session as a channel needs: what it receives are frames of JSON."""

    def feed_identities(self, frames):
        return [], frames

    def deserialize(self, frames):
        return json.loads(frames[0])


def test_a_reply_that_comes_while_something_is_sent_is_heard(monkeypatch):
    """To ask a socket for its state takes back the sign that a message came."""
    monkeypatch.setattr(engine, "_LOOK_AGAIN", 0.01)

    async def reply_to_one_who_waits():
        with zmq.asyncio.Context() as context, context.socket(zmq.PAIR) as ours:
            port = ours.bind_to_random_port("tcp://127.0.0.1")
            channel = engine._WatchfulChannel(ours, _JsonMessages())
            waiting = asyncio.ensure_future(channel.get_msg())
            await asyncio.sleep(0)  # it waits from here on
            with zmq.Context() as others, others.socket(zmq.PAIR) as kernel:
                kernel.connect(f"tcp://127.0.0.1:{port}")
                kernel.send_json({"status": "ok"})
                assert zmq.Socket.shadow(ours.underlying).poll(60_000)  # takes it back
                return await asyncio.wait_for(waiting, timeout=60)

    assert asyncio.run(reply_to_one_who_waits()) == {"status": "ok"}


def test_a_channel_without_messages_says_so_in_the_end():
    async def wait_in_vain():
        with zmq.asyncio.Context() as context, context.socket(zmq.PAIR) as ours:
            await engine._WatchfulChannel(ours, _JsonMessages()).get_msg(timeout=0.05)

    with pytest.raises(queue.Empty):
        asyncio.run(wait_in_vain())
