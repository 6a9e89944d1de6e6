"""Sweeps in real processes: nothing finished is lost, nothing is run twice.

What the processes themselves promise is in test_warm.py.
"""

import asyncio
import contextlib
import functools
import importlib
import json
import math
import os
import re
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import nbformat
import psutil
import pytest
from dask.system import CPU_COUNT
from filelock import FileLock

from gcelib import runs, sweeps, training
from gcelib.study import places

SEVEN = ["ce", "brier", "mmce", "flsd", "dfl", "afl", "gce"]
PATIENCE = 300  # seconds until a condition that must come true counts as missed

# A notebook with 03's parameters that writes a run folder as 03 does, without training.
# variant "waits": it holds the run until a file "gate" appears beside the data set's
# folder.
FAST = """
import json, os, time
from pathlib import Path
from filelock import FileLock
name = f"{loss}+{variant}" if variant else loss
run_dir = Path(runs_dir, dataset, "convnet", name, f"seed-{seed:02d}")
with FileLock(run_dir / ".lock", timeout=5):  # others may look at it meanwhile
    with open(run_dir / "starts.txt", "a") as file:
        file.write(f"{os.getpid()}\\n")
    if loss == "brier":
        raise ValueError("broken on purpose")
    while variant == "waits" and not Path(runs_dir, "gate").exists():
        time.sleep(0.02)
    if loss != "mmce":
        place = {"dataset": dataset, "model": "convnet", "loss": loss}
        config = place | {"variant": variant, "seed": seed}
        results = {"train_seconds": 10.0, "threads": int(os.environ["OMP_NUM_THREADS"])}
        content = {"config": config, "environment": {}, "results": results}
        (run_dir / "new.json").write_text(json.dumps(content))
        (run_dir / "new.json").rename(run_dir / "metrics.json")
"""

# The real loop; after the second of three epochs it waits for the gate.
TRAIN = """
import os, time
from pathlib import Path
from gcelib import TrainConfig, fit
options = {"epochs": epochs, "seed": seed, "ood": ood, "device": "cpu"}
config = TrainConfig(dataset, loss=loss, runs_dir=runs_dir, **options)
for record in fit(config):
    with open(config.run_dir / "starts.txt", "a") as file:
        file.write(f"{os.getpid()} {record['epoch']}\\n")
    while record["epoch"] == 2 and not Path(runs_dir, "gate").exists():
        time.sleep(0.02)
"""


def write_notebook(path, code):
    parameters = (
        'dataset = "digits"\nloss = "gce"\nseed = 1\nvariant = ""\n'
        'epochs = 1\nood = None\nruns_dir = ""'
    )
    tagged = {"tags": ["parameters"]}
    cells = [
        nbformat.v4.new_code_cell(parameters, metadata=tagged),
        nbformat.v4.new_code_cell(code),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)
    return str(path)


def write_result(config, seconds):
    """What a finished run leaves."""
    settings = json.loads(json.dumps(config.settings()))
    results = {"train_seconds": seconds, "test_raw_nll": 0.5}
    config.run_dir.mkdir(parents=True, exist_ok=True)
    content = {"config": settings, "environment": {}, "results": results}
    (config.run_dir / "metrics.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    return write_notebook(tmp_path_factory.mktemp("notebook") / "fast.ipynb", FAST)


#: What the notebook ``FAST`` and its execution need. Lesson 07 runs a sweep with all
#: that is imported by default.
LIGHT = ["papermill", "ipykernel.inprocess.ipkernel", "gcelib.study.sweeps"]
#: What ``TRAIN`` needs besides.
TRAINING = ["gcelib.study.trainer", "sklearn.datasets", "torch._dynamo"]


def light_workers(count, preload=LIGHT):
    """Workers that have imported no more than is needed."""
    workers = sweeps.local_workers(count)
    workers.preload = preload
    return workers


@pytest.fixture(scope="module")
def workers():
    """Two workers that stay warm from test to test."""
    with light_workers(2, LIGHT + TRAINING) as workers:
        yield workers


def wait_until(condition, what):
    limit = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < limit, f"waited {PATIENCE} s for {what}"
        time.sleep(0.02)
    return value


def starts(run_dir):
    path = Path(run_dir, "starts.txt")
    return path.read_text().splitlines() if path.exists() else []


def pids(run_dir):
    return list(dict.fromkeys(line.split()[0] for line in starts(run_dir)))


def states(records):
    return {(r["loss"], r.get("seed", 1)): r["state"] for r in records}


def descendants(ancestor):
    """Processes below this one, by their parents' numbers.

    psutil's own ``children`` also compares start times, which a clock that is set
    between two looks puts in the wrong order.
    """
    parents = {p.pid: p.info["ppid"] for p in psutil.process_iter(["ppid"])}
    found = []
    for pid in parents:
        above = parents[pid]
        while above in parents and above != ancestor:
            above = parents[above] if parents[above] != above else None
        if above == ancestor:
            found.append(pid)
    return found


def kill_family(process):
    for pid in (process.pid, *descendants(process.pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()


def leftovers(runs_dir):
    """Temporary files and checkpoints under ``runs_dir``."""
    kept = {".lock", ".sweep.lock"}
    files = [path for path in Path(runs_dir).rglob("*") if path.name not in kept]
    return [path for path in files if path.name[0] == "." or path.suffix == ".pt"]


# --- grids --------------------------------------------------------------------------


GRIDS = {
    "smoke": 2,
    "demo": 7 * 10 * 3,
    "cifar": 7 * 10 * 2 * 4,
    "tiny_imagenet": 7 * 10 * 2,
    "av1451": 7 * 10,
    "long_tail": 7 * 10 * 2 * 4,
    "ood": 7 * 10 * 4,
    "hybrid": 3 * 5 * 2,
    "timing": 7 * 10 * 2,
    "ats_bins": 7 * 10,
    "batch_size": 2 * 5 * 6,
    "demo_lt10": 7 * 10,
    "fashion_mnist_gpu": 7 * 10,
    "paper": 7 * 10 * (2 * 4 + 2 + 1 + 2 * 4) + 5 * 2,
    "afl_gce": 10 * 4,
    "published_code": 7 * 10 * (4 * 4 + 2),
    "published_code_demo": 2 * 10 * 4,
    "regularizer": 10 * (4 + 2),
    "batch_regularizer": 5 * 2 * 2,
}
PARTS = ["cifar", "tiny_imagenet", "av1451", "long_tail", "ood", "hybrid", "timing"]
PARTS += ["ats_bins"]  # of the grid "paper"
# The tables look for their runs, which have no variant; the whole ones have all seven
# losses and ten seeds. Other grids may hold what they like.
OF_TABLES = [*PARTS, "demo", "demo_lt10", "fashion_mnist_gpu", "paper", "afl_gce"]
WHOLE = [name for name in OF_TABLES if name not in ("hybrid", "afl_gce")]
WHOLE += ["published_code"]


@pytest.fixture(scope="module")
def expanded(tmp_path_factory):
    """Each committed grid's runs, in one folder, expanded once."""
    folder = tmp_path_factory.mktemp("grids")
    return folder, functools.cache(lambda name: sweeps.expand(name, folder))


def test_every_grid_is_listed_here():
    assert {path.stem for path in (sweeps.NOTEBOOKS / "grids").glob("*")} == {*GRIDS}


def test_a_finished_sweep_starts_nothing_and_asks_no_scheduler(tmp_path, monkeypatch):
    grid = {"dataset": "digits", "loss": ["ce", "gce"]}
    for cell in sweeps.expand(grid, tmp_path).values():
        write_result(cell.config, 1.0)
    monkeypatch.setattr(sweeps, "_on_this_machine", None)
    monkeypatch.setattr(sweeps, "_on_dask", None)
    for client in (None, "tcp://127.0.0.1:1"):
        records = sweeps.run(grid, client=client, runs_dir=tmp_path)
        assert [record["state"] for record in records] == ["skipped"] * 2


@pytest.mark.parametrize("name", GRIDS)
def test_committed_grids_are_whole(name, expanded):
    folder, cells_of = expanded
    configs = [config for _, config in cells_of(name).values()]
    assert len(configs) == GRIDS[name]
    assert not list(folder.iterdir())
    assert not (name in OF_TABLES and any(config.variant for config in configs))
    if name not in WHOLE:
        return
    for dataset in {config.dataset for config in configs}:
        those = [config for config in configs if config.dataset == dataset]
        assert {config.loss for config in those} - {"afl_gce"} == {*SEVEN}
        assert {config.seed for config in those} == {*range(1, 11)}


def test_the_paper_has_nothing_that_its_parts_lack(expanded):
    _, cells_of = expanded
    parts = {run_dir for name in PARTS for run_dir in cells_of(name)}
    assert {*cells_of("paper")} == parts


def test_values_lists_and_a_variant_filled_in(tmp_path):
    grid = [
        {
            "dataset": "digits",
            "batch_size": [16, 32],
            "variant": "b{batch_size}",
            "milestones": [[3, 5], []],
        }
    ]
    with pytest.raises(
        ValueError,
        match=r"b16.seed-01 .*milestones \(\[3, 5\] there, \[\] asked\).*variant=",
    ):
        sweeps.expand(grid, tmp_path)
    grid[0]["variant"] = "b{batch_size}-{milestones}"
    with pytest.raises(ValueError, match="cannot name a folder"):
        sweeps.expand(grid, tmp_path)
    grid[0] |= {"variant": "b{batch_size}", "milestones": [[3, 5]]}
    cells = sweeps.expand(
        [*grid, {"dataset": "digits", "seed": range(1, 3)}, {"dataset": "digits"}],
        tmp_path,
    )
    assert [
        Path(d).relative_to(tmp_path / "digits/convnet").as_posix() for d in cells
    ] == [
        "gce+b16/seed-01",
        "gce+b32/seed-01",
        "gce/seed-01",
        "gce/seed-02",
    ]
    given, config = cells[str(tmp_path / "digits/convnet/gce+b32/seed-01")]
    assert given == {
        "dataset": "digits",
        "batch_size": 32,
        "variant": "b32",
        "milestones": [3, 5],
        "runs_dir": str(tmp_path),
    }
    assert config.milestones == (3, 5)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"los": ["ce", "gce"]}, r"unknown key 'los'; did you mean 'loss'\?"),
        ({"loss": ["ce", "gcee"]}, r"unknown 'gcee'; did you mean 'gce'\?"),
        ({"dataset": "cifar11"}, r"did you mean 'cifar10'\?"),
        ({"seed": ["one"]}, "seed: must be a whole number"),
        ({"variant": 2024}, r'grid: variant must be a string, got int 2024; .*"2024"'),
        ({"dataset": "digits", "loss": False}, "loss must be a string, got bool False"),
        ({"seed": []}, "'seed' has no values"),
        ({"epochs": [2, -3]}, "epochs: -3 is outside"),
        ({"milestones": [3, 5]}, r"milestones must be a list, got int 3; .*\[\[3\]\]"),
        ({"ood": "noise"}, r"ood must be a list, got str 'noise'; .*\[\['noise'\]\]"),
        ({"variant": "b{batchsize}", "batch_size": 3}, "cannot name a folder"),
        ({"loss": "focal", "loss_options": {"gama": 3}}, "did you mean"),
        (
            [{"dataset": "digits", "epochs": 2}, {"dataset": "digits", "epochs": 3}],
            r"epochs \(2 there, 3 asked\).*variant=",
        ),
        ("smok", r"did you mean 'smoke'\?"),
        (["smoke", 3], "give a name, a YAML file"),
        ({}, "give a name, a YAML file"),
        ([], "give a name, a YAML file"),
    ],
)
def test_misspelt_grids_are_refused_before_anything_starts(
    grid, message, tmp_path, fast
):
    for use in (
        sweeps.expand,
        sweeps.status,
        lambda g, d: sweeps.run(g, fast, runs_dir=d),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            use(grid, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_grid_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("- smoke\n- dataset: digits\n  loss: [dfl, afl]\n  lr: 0.02\n")
    assert (
        len(sweeps.expand(path, tmp_path))
        == len(sweeps.expand(str(path), tmp_path))
        == 4
    )
    # PyYAML alone takes both for text.
    path.write_text("dataset: digits\nlr: 1e-3\nweight_decay: 5E-04")
    assert sweeps.load_grid(path) == [
        {"dataset": "digits", "lr": 0.001, "weight_decay": 0.0005}
    ]
    for text, problem in (
        ("loss: [ce, gce", "flow sequence"),
        ("loss: [ce, gce]\nseed: 1\nloss: [brier]", "'loss' is there twice"),
        ("\tloss: ce", "cannot start any token"),
        ("loss: ce\n---\nloss: gce", "another document"),
        ("seed: [09, 010]", "'010' means 8 in YAML"),
        ("epochs: 1:30", "'1:30' means 90 in YAML"),
        ("lr: 1:30.5", "'1:30.5' means 90.5 in YAML"),
        ("? [loss]\n: ce", "unhashable key"),
        ("loss: !!python/name:os.system", "could not determine a constructor"),
        ("# nothing but this", "is empty"),
        (f"- {path}", "recursion"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"^grid: .*mine\.yaml(?s:.*){problem}"):
            sweeps.expand(path)
    path.write_bytes(b"variant: \xff")
    with pytest.raises(ValueError, match=r"mine\.yaml: .*utf-8"):
        sweeps.expand(path)
    with pytest.raises(FileNotFoundError, match=r"other\.yaml"):
        sweeps.expand(tmp_path / "other.yaml")


def test_seeds_of_two_recipes_under_one_name_are_told(tmp_path, recwarn):
    part = {"dataset": "digits", "loss": ["ce", "gce"], "seed": [1, 2]}
    more = part | {"seed": [3], "epochs": 3}
    sweeps.expand([part, more | {"variant": "short"}], tmp_path)
    assert not len(recwarn)
    told = r"grid: seeds 1 and 3 of ce on digits differ in epochs, milestones: .* mean"
    with pytest.warns(UserWarning, match=told):
        sweeps.expand([part, more], tmp_path)


def test_losses_of_two_recipes_under_one_name_are_told(tmp_path, recwarn):
    part = {"dataset": "digits", "seed": 1, "recipe": "published_code"}
    sweeps.expand(part | {"loss": ["brier", "gce"]}, tmp_path)  # its own exception
    assert not len(recwarn)
    told = "grid: gce and ce on digits differ in clip_norm, milestones, recipe, red"
    other = {"dataset": "digits", "loss": "ce"}
    with pytest.warns(UserWarning, match=told):
        sweeps.expand([part | {"loss": "gce"}, other], tmp_path)


def test_a_folder_with_another_result_is_refused_whatever_precision_it_was_run_in(
    tmp_path,
):
    grid = {"dataset": "digits", "epochs": 2}
    ((run_dir, (_, config)),) = sweeps.expand(grid, tmp_path).items()
    with runs.open_run(run_dir, config.settings() | {"precision": "bf16"}, {}) as run:
        run.save_checkpoint({})
    assert list(sweeps.expand(grid, tmp_path)) == [run_dir]
    with pytest.raises(ValueError, match="precision"):
        sweeps.expand(grid | {"precision": "fp32"}, tmp_path)
    with pytest.raises(
        ValueError, match=r"epochs \(2 there, 3 asked\).*variant='epochs_3"
    ):
        sweeps.run(grid | {"epochs": 3}, runs_dir=tmp_path)


# --- status -------------------------------------------------------------------------


def test_status_shows_a_folder_that_holds_another_result(tmp_path):
    grid = {"dataset": "digits", "loss": ["ce", "gce"]}
    config = next(iter(sweeps.expand(grid, tmp_path).values())).config
    write_result(config, 3.0)
    changed = grid | {"lr": 0.123}
    assert list(sweeps.status(grid, tmp_path).state) == ["done", "missing"]
    assert list(sweeps.status(changed, tmp_path).state) == ["another", "missing"]
    with pytest.raises(ValueError, match="holds another result, which differs in lr"):
        sweeps.expand(changed, tmp_path)
    twice = [grid, changed]  # which of the two is meant, nobody can tell
    with pytest.raises(ValueError, match="holds another result"):
        sweeps.status(twice, tmp_path / "elsewhere")


def test_status_tells_done_running_failed_missing_and_what_is_left(tmp_path):
    grid = {"dataset": "digits", "loss": SEVEN[:5], "epochs": 4}
    cells = sweeps.expand(grid, tmp_path)
    done, slower, running, failed, started = map(Path, cells)
    for run_dir in (done, slower, running, failed, started):
        run_dir.mkdir(parents=True)
    write_result(cells[str(done)].config, 8.0)
    write_result(cells[str(slower)].config, 16.0)
    (running / "metrics.json").write_text('{"config": {}, "env')  # damaged: not done
    (done / "failed.txt").write_text("once, before it was done")
    (failed / "failed.txt").write_text("ValueError")
    (started / "history.jsonl").write_text("{}\n{}\n{}\n")
    with FileLock(running / ".lock"):
        table = sweeps.status(grid, tmp_path)
    assert list(table.state) == ["done", "done", "running", "failed", "missing"]
    # three seconds an epoch, the median of two and four
    assert list(table.left) == [0, 0, 12, 12, 3]
    assert list(table.epoch) == [0, 0, 0, 0, 3]
    with FileLock(running / ".sweep.lock"):  # its notebook has not come to training yet
        assert list(sweeps.status(grid, tmp_path).state)[2] == "running"
    assert list(sweeps.status(grid, tmp_path).state)[2] == "missing"
    other = sweeps.status(grid | {"batch_size": 32, "variant": "b32"}, tmp_path)
    assert other.left.isna().all()


def spoil_with_text_for_seconds(run_dir):
    path = run_dir / "metrics.json"
    content = json.loads(path.read_text())
    content["results"]["train_seconds"] = "a while"
    path.write_text(json.dumps(content))


SPOILS = {
    "a lock that is a folder": lambda d: (d / ".lock").mkdir(),
    "a sweep's lock that is a folder": lambda d: (d / ".sweep.lock").mkdir(),
    "a lock that leads outside": lambda d: (d / ".lock").symlink_to("/proc/1/mem"),
    "a damaged config": lambda d: (d / "config.json").write_text("{"),
    "a config without settings": lambda d: (d / "config.json").write_text("{}"),
    "a config in Latin-1": lambda d: (d / "config.json").write_bytes(b'{"\xe9": 1}'),
    "a history that is a folder": lambda d: (d / "history.jsonl").mkdir(),
    "a history that is a pipe": lambda d: os.mkfifo(d / "history.jsonl"),
    "a config that is a pipe": lambda d: os.mkfifo(d / "config.json"),
    "a loop of links": lambda d: (d / "metrics.json").symlink_to("metrics.json"),
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes with names")
@pytest.mark.parametrize("what", SPOILS)
def test_one_bad_folder_never_hides_the_others(what, tmp_path):
    grid = {"dataset": "digits", "loss": ["ce", "gce"], "epochs": 4}
    bad, good = (cell.config for cell in sweeps.expand(grid, tmp_path).values())
    bad.run_dir.mkdir(parents=True)
    SPOILS[what](bad.run_dir)
    write_result(good, 8.0)
    table = sweeps.status(grid, tmp_path)
    assert table.state[1] == "done"
    assert table.state[0] in ("missing", "unreadable")
    assert len(sweeps.expand(grid, tmp_path)) == 2


def test_seconds_that_are_no_number_are_nobodys_pace(tmp_path):
    grid = {"dataset": "digits", "loss": ["ce", "gce"], "epochs": 4}
    for cell in sweeps.expand(grid, tmp_path).values():
        write_result(cell.config, 8.0)
    spoil_with_text_for_seconds(cell.config.run_dir)
    table = sweeps.status(grid, tmp_path)
    assert list(table.seconds[:1]) == [8.0]
    assert table.seconds.isna()[1]


def test_without_finished_runs_the_estimate_is_measured_here(tmp_path):
    grid = {"dataset": "digits", "epochs": [1, 10], "variant": "e{epochs}"}
    one, ten = sweeps.status(grid, tmp_path, measure=True).left
    assert one > 0
    assert ten == pytest.approx(10 * one)
    unknown = sweeps.status({"dataset": "av1451"}, tmp_path, measure=True).left
    assert unknown.isna().all() or (places.data_dir() / "av1451").exists()


def test_a_run_of_more_than_max_hours_is_refused_before_anything_starts(tmp_path):
    too_long = r"convnet on digits would take about .* hours a run.*max_hours"
    with pytest.raises(ValueError, match=too_long):
        sweeps.run({"dataset": "digits", "max_hours": 1e-7}, runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())


# --- real processes -----------------------------------------------------------------


def test_failures_are_kept_and_retried_once_and_the_rest_goes_on(
    workers, fast, tmp_path
):
    grid = [
        {"dataset": "digits", "loss": ["brier", "mmce"]},
        {"dataset": "digits", "loss": "ce", "seed": [1, 2]},
    ]
    threw, empty, done, unwritable = map(Path, sweeps.expand(grid, tmp_path))
    unwritable.parent.mkdir(parents=True)
    unwritable.write_text("no folder can be made here")
    ended = sweeps.run(grid, fast, workers, runs_dir=tmp_path)
    records = {Path(record["run_dir"]): record for record in ended}
    failed = dict.fromkeys((threw, empty, unwritable), "failed")
    there = {run_dir: record["state"] for run_dir, record in records.items()}
    assert there == failed | {done: "done"}
    assert len(starts(done)) == 1
    assert records[done]["seconds"] > 0
    assert records[done]["error"] == ""
    results = runs.read_json(done / "metrics.json")["results"]
    assert results["threads"] == max(1, CPU_COUNT // 2)
    reasons = {threw: "ValueError: broken on purpose", empty: "metrics.json"}
    for run_dir, reason in reasons.items():
        assert len(starts(run_dir)) == 2
        text = (run_dir / "failed.txt").read_text()
        assert reason in text
        assert text == records[run_dir]["error"]
        assert "\x1b" not in text
        assert (run_dir / "run.ipynb").exists()
    table = sweeps.status(grid, tmp_path)
    assert list(table.state[:3]) == ["failed", "failed", "done"]

    unwritable.unlink()
    again = sweeps.run(grid[1:], fast, workers, runs_dir=tmp_path)
    there = {Path(record["run_dir"]): record["state"] for record in again}
    assert there == {done: "skipped", unwritable: "done"}
    assert len(starts(done)) == len(starts(unwritable)) == 1
    assert not leftovers(tmp_path)


def test_a_sweep_listens_nowhere(workers, fast, tmp_path):
    """Nobody else on the machine can reach what could run code as its owner."""
    waiting = {"dataset": "digits", "variant": "waits"}
    (run_dir,) = sweeps.expand(waiting, tmp_path)
    me = psutil.Process()
    mine = {(c.laddr, c.status) for c in me.net_connections()}
    ours = set()

    def look():
        if starts(run_dir):
            run = int(starts(run_dir)[-1])
            for pid in {me.pid, run, *descendants(me.pid)}:
                with contextlib.suppress(psutil.NoSuchProcess):
                    for connection in psutil.Process(pid).net_connections():
                        ours.add((connection.laddr, connection.status))
            (tmp_path / "gate").touch()

    records = sweeps.run(
        waiting, fast, workers, runs_dir=tmp_path, tick=look, every=0.05
    )
    assert [record["state"] for record in records] == ["done"]
    assert (tmp_path / "gate").exists()
    assert ours <= mine


def test_a_sweep_ticks_while_it_waits(workers, fast, tmp_path):
    (tmp_path / "gate.late").touch()
    ticks = []

    def tick():
        ticks.append(sweeps.status(grid, tmp_path).state[0])
        if ticks[-1] == "running":
            (tmp_path / "gate").touch()

    grid = {"dataset": "digits", "variant": "waits"}
    list(sweeps.run(grid, fast, workers, runs_dir=tmp_path, tick=tick, every=0.05))
    assert "running" in ticks


def test_a_script_needs_no_main_guard(fast, tmp_path):
    script = tmp_path / "script.py"
    where = f"{fast!r}, workers, runs_dir={str(tmp_path)!r}"
    script.write_text(
        "from gcelib import sweeps\n"
        f"workers = sweeps.local_workers(1)\nworkers.preload = {LIGHT}\n"
        f"runs = sweeps.run({{'dataset': 'digits'}}, {where})\n"
        "print([run['state'] for run in runs])\n"
    )
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "['done']\n", done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal 9")
def test_a_run_killed_in_the_middle_loses_no_whole_epoch(workers, tmp_path):
    notebook = write_notebook(tmp_path / "train.ipynb", TRAIN)
    grid = {"dataset": "digits", "loss": "ce", "epochs": 3, "ood": [[]]}
    runs_dir = tmp_path / "runs"
    (run_dir,) = sweeps.expand(grid, runs_dir)
    with ThreadPoolExecutor() as pool:
        sweep = pool.submit(
            list, sweeps.run(grid, notebook, workers, runs_dir=runs_dir)
        )
        wait_until(lambda: len(starts(run_dir)) == 2, "the second epoch")
        psutil.Process(int(pids(run_dir)[0])).kill()
        (runs_dir / "gate").touch()
        (record,) = sweep.result(PATIENCE)
    assert record["state"] == "done"
    first, second = (
        [line.split()[1] for line in starts(run_dir) if line.split()[0] == pid]
        for pid in pids(run_dir)
    )
    assert (first, second) == (["1", "2"], ["3"])
    history = runs.load_history(run_dir).to_dict("records")
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert runs.is_done(run_dir)
    assert not leftovers(runs_dir)


# Seems to train what it is asked for, while somebody edits the network.
EDITED = """
import json
from pathlib import Path
from gcelib import TrainConfig
place = Path(model.partition(":")[0])
place.write_text(place.read_text() + "# edited\\n")
options = {"epochs": epochs, "seed": seed, "ood": ood, "variant": variant}
config = TrainConfig(dataset, model, loss=loss, runs_dir=runs_dir, **options)
config.run_dir.mkdir(parents=True, exist_ok=True)
settings = json.loads(json.dumps(config.settings()))
content = {"config": settings, "environment": {}, "results": {"train_seconds": 1.0}}
(config.run_dir / "metrics.json").write_text(json.dumps(content))
"""


# Trains, or seems to, with a rate of its own.
HEADSTRONG = """
import json
from gcelib import TrainConfig
options = {"epochs": epochs, "seed": seed, "ood": ood, "variant": variant, "lr": 0.01}
config = TrainConfig(dataset, loss=loss, runs_dir=runs_dir, **options)
config.run_dir.mkdir(parents=True, exist_ok=True)
settings = json.loads(json.dumps(config.settings()))
content = {"config": settings, "environment": {}, "results": {"train_seconds": 1.0}}
(config.run_dir / "metrics.json").write_text(json.dumps(content))
"""


def test_a_notebook_that_drops_a_parameter_has_not_done_the_run(workers, tmp_path):
    notebook = write_notebook(tmp_path / "headstrong.ipynb", HEADSTRONG)
    grid = {"dataset": "digits", "lr": [0.1, 0.01], "variant": "lr{lr}", "epochs": 1}
    with pytest.warns(UserWarning, match="failed, is tried again: .*not what the grid"):
        ended = list(sweeps.run(grid, notebook, workers, runs_dir=tmp_path))
    there = {record["variant"]: record["state"] for record in ended}
    assert there == {"lr0.1": "failed", "lr0.01": "done"}
    (wrong,) = (record for record in ended if record["state"] == "failed")
    reason = Path(wrong["run_dir"], "failed.txt").read_text()
    assert "let the notebook pass each parameter to TrainConfig" in reason
    assert "lr (0.01 there, 0.1 asked)" in reason


def test_results_of_a_grid_are_found_where_its_parts_put_them(tmp_path):
    grid = [
        {"dataset": "digits", "loss": ["ce", "gce"], "runs_dir": str(tmp_path / "a")},
        {"dataset": "digits", "seed": 2, "runs_dir": str(tmp_path / "b")},
    ]
    assert sweeps.results(grid).empty
    cells = sweeps.expand(grid)
    for i, cell in enumerate(cells.values()):
        write_result(cell.config, 10.0 + i)
    stranger = sweeps.expand({"dataset": "digits", "loss": "brier"}, tmp_path / "a")
    (cell,) = stranger.values()
    write_result(cell.config, 99.0)
    table = sweeps.results(grid)
    assert dict(zip(table["run_dir"], table["train_seconds"], strict=True)) == {
        run_dir: 10.0 + i for i, run_dir in enumerate(cells)
    }


NETWORK = """
from torch import nn
WIDTH = 16
def build(k, shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.Linear(WIDTH, k))
"""


def test_a_network_that_is_edited_meanwhile_is_not_said_to_have_been_trained(
    workers, tmp_path
):
    (tmp_path / "edited.py").write_text(NETWORK)
    notebook = write_notebook(tmp_path / "edited.ipynb", EDITED)
    model = f"{tmp_path / 'edited.py'}:build"
    grid = {"dataset": "digits", "model": model, "epochs": 1}
    (record,) = sweeps.run(grid, notebook, workers, runs_dir=tmp_path / "b")
    assert record["state"] == "failed"
    assert "another network than this process has" in record["error"]


# Warns of something in each run, and of its seed.
WARNS = """
import json, warnings
from gcelib import TrainConfig
options = {"epochs": epochs, "seed": seed, "ood": ood, "variant": variant}
config = TrainConfig(dataset, loss=loss, runs_dir=runs_dir, **options)
warnings.warn(f"logits: {seed} of 9 rows are odd; look at them")
warnings.warn("t_range: 3 ended; look")
warnings.warn(f"run: {config.run_dir} took {0.5 + seed:g} s")
warnings.warn(f"model: /proj2/nets.py:{loss} and {seed + 0.125:.2g} hang; look")
config.run_dir.mkdir(parents=True, exist_ok=True)
settings = json.loads(json.dumps(config.settings()))
content = {"config": settings, "environment": {}, "results": {"train_seconds": 1.0}}
(config.run_dir / "metrics.json").write_text(json.dumps(content))
"""


def test_a_sweep_passes_on_what_its_runs_warn_of_each_kind_once(workers, tmp_path):
    notebook = write_notebook(tmp_path / "warns.ipynb", WARNS)
    grid = {"dataset": "digits", "seed": [1, 2], "loss": ["ce", "gce"], "epochs": 1}
    with pytest.warns(UserWarning, match="/seed-0") as told:
        ended = list(sweeps.run(grid, notebook, workers, runs_dir=tmp_path / "b2"))
    assert {record["state"] for record in ended} == {"done"}
    said = sorted(str(warning.message).partition(": ")[2] for warning in told)
    assert len(said) == 5
    assert re.fullmatch(r"logits: \d of 9 rows are odd; look at them", said[0])
    assert re.fullmatch(r"model: /proj2/nets.py:ce and [12]\.1 hang; look", said[1])
    assert re.fullmatch(r"model: /proj2/nets.py:gce and [12]\.1 hang; look", said[2])
    assert re.fullmatch(r"run: .*/seed-0\d took [12]\.5 s", said[3])
    assert said[4] == "t_range: 3 ended; look"


def test_a_sweep_is_refused_for_a_value_that_was_set_in_memory(tmp_path, monkeypatch):
    """The sweep's processes would read the package anew, as its file says it."""
    package = tmp_path / "my_swept_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    grid = {"dataset": "digits", "model": "my_swept_package.nets:build", "epochs": 1}
    nets = importlib.import_module("my_swept_package.nets")
    monkeypatch.setattr(nets, "WIDTH", 3)
    with pytest.raises(ValueError, match=r"my_swept_package.nets.WIDTH = 3 is set in"):
        next(sweeps.run(grid, "03_train.ipynb", workers, runs_dir=tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_two_sweeps_at_once_run_nothing_twice(workers, fast, tmp_path):
    grid = {"dataset": "digits", "loss": ["ce", "gce"], "variant": "waits"}
    first, second = sweeps.expand(grid, tmp_path)
    only_first = grid | {"loss": "ce"}
    with ThreadPoolExecutor() as pool:
        one = pool.submit(
            list, sweeps.run(only_first, fast, workers, runs_dir=tmp_path)
        )
        wait_until(lambda: starts(first), "the first sweep's run")
        two = pool.submit(
            list, sweeps.run(grid, fast, light_workers(2), runs_dir=tmp_path)
        )
        wait_until(lambda: starts(second), "the second sweep")
        (tmp_path / "gate").touch()
        assert [record["state"] for record in one.result(PATIENCE)] == ["done"]
        there = states(two.result(PATIENCE))
        assert there == {("ce", 1): "skipped", ("gce", 1): "done"}
    assert len(starts(first)) == len(starts(second)) == 1


@pytest.mark.parametrize("lock", [".sweep.lock", ".lock"])
def test_a_run_that_another_process_holds_is_left_to_it(lock, fast, tmp_path):
    ((run_dir, cell),) = sweeps.expand({"dataset": "digits"}, tmp_path).items()
    Path(run_dir).mkdir(parents=True)
    with FileLock(Path(run_dir, lock)):
        ended = sweeps.execute(cell.given, run_dir, fast, patience=0.1)
    assert ended == ("running", 0.0)
    assert {p.name for p in Path(run_dir).iterdir()} <= {".sweep.lock", ".lock"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal 9")
def test_a_killed_driver_is_started_again(workers, fast, tmp_path):
    """Its runs die with it; what was finished stays, the rest is run."""
    grid = [
        {"dataset": "digits", "loss": "ce"},
        {"dataset": "digits", "loss": ["gce", "dfl"], "variant": "waits"},
    ]
    finished, waiting, last = sweeps.expand(grid, tmp_path)
    code = "from gcelib import sweeps; workers = sweeps.local_workers(1); "
    code += f"workers.preload = {LIGHT}; "
    code += f"list(sweeps.run({grid}, {fast!r}, workers, runs_dir={str(tmp_path)!r}))"
    with contextlib.ExitStack() as stack:
        driver = stack.enter_context(psutil.Popen([sys.executable, "-c", code]))
        stack.callback(kill_family, driver)

        def second_run_started():
            ended = driver.poll() is not None
            return ended or (runs.is_done(finished) and starts(waiting))

        wait_until(second_run_started, "the driver's second run")
        assert driver.poll() is None
        family = [psutil.Process(pid) for pid in descendants(driver.pid)]
        assert int(starts(waiting)[0]) in {process.pid for process in family}
        driver.kill()
        _, alive = psutil.wait_procs(family, PATIENCE)
        assert not alive
    assert list(sweeps.status(grid, tmp_path).state) == ["done", "missing", "missing"]
    (tmp_path / "gate").touch()
    records = list(sweeps.run(grid, fast, workers, runs_dir=tmp_path))
    there = {("ce", 1): "skipped", ("gce", 1): "done", ("dfl", 1): "done"}
    assert states(records) == there
    assert [len(starts(d)) for d in (finished, waiting, last)] == [1, 2, 1]
    assert not leftovers(tmp_path)


# --- Dask ---------------------------------------------------------------------------


@contextlib.contextmanager
def dask_processes(folder):
    """A scheduler in a process: yields its address, it, and how to start a worker."""
    where = str(folder / "scheduler.json")
    here = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address"]
    here += ["127.0.0.1:0", "--scheduler-file", where]
    with contextlib.ExitStack() as stack:

        def start(module, *options):
            module = f"distributed.cli.{module}"
            command = [sys.executable, "-m", module, *here, *options]
            process = psutil.Popen(command, stderr=subprocess.DEVNULL)
            stack.enter_context(process)
            stack.callback(kill_family, process)
            return process

        def written():
            path = Path(where)
            return path.exists() and path.read_text().rstrip().endswith("}")

        scheduler = start("dask_scheduler", "--port", "0")
        wait_until(written, "the scheduler")
        address = runs.read_json(where)["address"]
        yield address, scheduler, lambda: start("dask_worker", "--nthreads", "1")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal 9")
def test_a_scheduler_elsewhere_serves_and_its_death_is_told(
    workers, fast, tmp_path, monkeypatch
):
    """``DASK_SCHEDULER_ADDRESS``: without workers, with one, killed with signal 9."""
    grid = {"dataset": "digits", "loss": ["ce", "gce"], "variant": "waits"}
    ready = {"dataset": "digits", "loss": "brier"}
    runs_dir = tmp_path / "runs"
    first = next(iter(sweeps.expand(grid, runs_dir)))
    monkeypatch.setattr(sweeps, "_LONELY", 0.1)
    with dask_processes(tmp_path) as (address, scheduler, start_worker):
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        started = []

        def start_one():
            if not started:
                started.append(start_worker())

        sweep = sweeps.run(ready, fast, runs_dir=runs_dir, tick=start_one, every=0.5)
        with pytest.warns(UserWarning, match="has no workers, so nothing runs; start"):
            (record,) = sweep
        assert record["state"] == "failed"
        assert "broken on purpose" in record["error"]
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
            ThreadPoolExecutor() as pool,
        ):
            sweep = pool.submit(list, sweeps.run(grid, fast, runs_dir=runs_dir))
            wait_until(lambda: starts(first), "a run on its worker")
            scheduler.kill()
            with pytest.raises(ConnectionError, match="is gone; start the sweep again"):
                sweep.result(PATIENCE)
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS")
    (runs_dir / "gate").touch()
    records = list(sweeps.run(grid, fast, workers, runs_dir=runs_dir))
    assert [record["state"] for record in records] == ["done", "done"]


# --- clusters that are not here -----------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "options", "pins"),
    [
        (None, {}, ["0", "1", "2"]),
        ("4,7", {"workers_per_gpu": 2}, ["4", "7", "4", "7"]),
        ("4,7", {"workers": 3}, ["4", "7", "4"]),
    ],
)
def test_each_worker_sees_one_gpu(visible, options, pins, monkeypatch):
    """The plan of the workers, with GPUs that are not here."""
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    count = len(visible.split(",")) if visible else 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    workers = sweeps.local_workers(**options)
    seen = [environment["CUDA_VISIBLE_DEVICES"] for environment in workers.environments]
    assert seen == pins


@pytest.mark.parametrize("number", [0, -1, 1.5, "two"])
def test_a_senseless_number_of_workers_is_refused(number):
    with pytest.raises((ValueError, TypeError), match="workers: "):
        sweeps.local_workers(number)
    with pytest.raises((ValueError, TypeError), match="workers_per_gpu: "):
        sweeps.local_workers(None, number)


def test_the_documented_slurm_cluster_writes_its_job_script(monkeypatch):
    """The code of docs/cluster.md, without SLURM: a GPU and a notebook for each job."""
    import dask_jobqueue

    text = (runs.PROJECT / "docs" / "cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    # asynchronous: nothing is started and nothing listens until the cluster is awaited
    monkeypatch.setattr(
        dask_jobqueue,
        "SLURMCluster",
        functools.partial(dask_jobqueue.SLURMCluster, asynchronous=True),
    )
    names = {}

    async def make():
        exec(compile(blocks[0], "docs/cluster.md", "exec"), names)

    asyncio.run(make())
    script = names["cluster"].job_script()
    for line in (
        "#SBATCH -p gpu",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH -t 24:00:00",
    ):
        assert line in script.splitlines()
    assert "export OMP_NUM_THREADS=4" in script.splitlines()
    (command,) = (line for line in script.splitlines() if "dask_worker" in line)
    assert command.startswith(sys.executable)
    for option in ("--nthreads 1 ", "--no-dashboard", "--lifetime 23h"):
        assert option in command
    assert "--nworkers" not in command
    compile(blocks[1], "docs/cluster.md", "exec")
    assert len(sweeps.expand(re.search(r'sweeps\.run\("(\w+)"', blocks[1])[1])) > 0


def test_variants_that_are_one_run_under_two_names_are_told(tmp_path):
    """What None means hangs on the recipe: here it is a limit of 2, too."""
    grid = {
        "dataset": "digits",
        "recipe": "published_code",
        "clip_norm": [None, 2.0],
        "variant": "clip{clip_norm}",
    }
    with pytest.warns(UserWarning, match="variants 'clipNone' and 'clip2.0' have the"):
        sweeps.expand(grid, tmp_path)
    grid["clip_norm"] = [math.inf, 2.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cells = sweeps.expand(grid, tmp_path)
    given = [cell.given for cell in cells.values()]
    for again in (given, json.loads(json.dumps(given))):  # as a worker has them
        limits = [
            training.TrainConfig(**settings).resolved().clip_norm for settings in again
        ]
        assert limits == [None, 2.0]
