"""Sweeps on a real scheduler and workers in processes of their own: nothing finished is lost, nothing is run twice."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
import psutil
import pytest
from dask.system import CPU_COUNT
from distributed import Client
from filelock import FileLock

from gcelib import data, runs, sweeps

FINISHED = '{"config": {}, "environment": {}, "results": {"train_seconds": %s}}'
SEVEN = ["ce", "brier", "mmce", "flsd", "dfl", "afl", "gce"]
PATIENCE = 300  # seconds until a condition that must come true counts as missed

# A notebook with 03's parameters that writes a run folder as 03 does, without the seconds that importing torch takes.
# variant "waits": it holds the run until a file "gate" appears beside the data set's folder.
FAST = """
import json, os, time
from pathlib import Path
from filelock import FileLock
run_dir = Path(runs_dir, dataset, "convnet", f"{loss}+{variant}" if variant else loss, f"seed-{seed:02d}")
with FileLock(run_dir / ".lock", timeout=0):
    with open(run_dir / "starts.txt", "a") as file:
        file.write(f"{os.getpid()}\\n")
    if loss == "brier":
        raise ValueError("broken on purpose")
    while variant == "waits" and not Path(runs_dir, "gate").exists():
        time.sleep(0.02)
    if loss != "mmce":
        results = {"train_seconds": 10.0, "threads": os.environ["OMP_NUM_THREADS"]}
        content = {"config": {}, "environment": {}, "results": results}
        (run_dir / "new.json").write_text(json.dumps(content))
        (run_dir / "new.json").rename(run_dir / "metrics.json")
"""

# The real loop; after the second of three epochs it waits for the gate.
TRAIN = """
import os, time
from pathlib import Path
from gcelib import TrainConfig, fit
config = TrainConfig(dataset, loss=loss, epochs=epochs, seed=seed, ood=ood, runs_dir=runs_dir, device="cpu")
for record in fit(config):
    with open(config.run_dir / "starts.txt", "a") as file:
        file.write(f"{os.getpid()} {record['epoch']}\\n")
    while record["epoch"] == 2 and not Path(runs_dir, "gate").exists():
        time.sleep(0.02)
"""


def write_notebook(path, code):
    parameters = 'dataset = "digits"\nloss = "gce"\nseed = 1\nvariant = ""\nepochs = 1\nood = None\nruns_dir = ""'
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return str(path)


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    return write_notebook(tmp_path_factory.mktemp("notebook") / "fast.ipynb", FAST)


@pytest.fixture(scope="module")
def cluster():
    with sweeps.local_cluster(workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    with Client(cluster) as client:
        yield client


def wait_until(condition, what):
    limit = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < limit, f"waited {PATIENCE} s for {what}"
        time.sleep(0.02)
    return value


def starts(run_dir):
    path = Path(run_dir, "starts.txt")
    return path.read_text().splitlines() if path.exists() else []


def states(records):
    return {(r["loss"], r.get("seed", 1)): r["state"] for r in records}


def kill_family(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in (process, *process.children(recursive=True)):
            member.kill()


def leftovers(runs_dir):
    """Temporary files and checkpoints under ``runs_dir``."""
    kept = {".lock", ".sweep.lock"}
    return [
        p for p in Path(runs_dir).rglob("*") if (p.name.startswith(".") and p.name not in kept) or p.suffix == ".pt"
    ]


# --- grids --------------------------------------------------------------------------------------------------------


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
}


def test_every_grid_is_listed_here():
    assert {path.stem for path in (sweeps.NOTEBOOKS / "grids").glob("*")} == {*GRIDS}


def test_a_finished_sweep_asks_for_no_client(tmp_path, monkeypatch):
    monkeypatch.delattr(sweeps, "as_completed")  # without any client in this process it raises
    grid = {"dataset": "digits", "loss": ["ce", "gce"]}
    for run_dir in sweeps.expand(grid, tmp_path):
        Path(run_dir).mkdir(parents=True)
        Path(run_dir, "metrics.json").write_text(FINISHED % 1.0)
    assert [record["state"] for record in sweeps.run(grid, runs_dir=tmp_path)] == ["skipped"] * 2


@pytest.mark.parametrize("name", GRIDS)
def test_committed_grids_are_whole(name, tmp_path):
    configs = [config for _, config in sweeps.expand(name, tmp_path).values()]
    assert len(configs) == GRIDS[name]
    assert not list(tmp_path.iterdir())
    if name not in ("smoke", "hybrid", "batch_size"):
        each = {c.dataset: [] for c in configs}
        for c in configs:
            each[c.dataset].append((c.model, c.seed, c.loss))
        for runs_of in each.values():
            assert {loss for *_, loss in runs_of} - {"afl_gce"} == {*SEVEN}
            assert {seed for _, seed, _ in runs_of} == {*range(1, 11)}
    if name not in ("smoke", "batch_size"):
        assert not any(c.variant for c in configs)  # where the tables look for them


def test_the_paper_has_nothing_that_its_parts_lack(tmp_path):
    ours = ("smoke", "demo", "demo_lt10", "batch_size", "fashion_mnist_gpu", "paper")
    parts = [name for name in GRIDS if name not in ours]
    assert {*sweeps.expand("paper", tmp_path)} == {d for name in parts for d in sweeps.expand(name, tmp_path)}


def test_values_lists_and_a_variant_filled_in(tmp_path):
    grid = [{"dataset": "digits", "batch_size": [16, 32], "variant": "b{batch_size}", "milestones": [[3, 5], []]}]
    with pytest.raises(ValueError, match=r"b16.seed-01 .*milestones \(\[3, 5\] there, \[\] asked\).*variant="):
        sweeps.expand(grid, tmp_path)
    grid[0]["variant"] = "b{batch_size}-{milestones}"
    with pytest.raises(ValueError, match="cannot name a folder"):
        sweeps.expand(grid, tmp_path)
    grid[0] |= {"variant": "b{batch_size}", "milestones": [[3, 5]]}
    cells = sweeps.expand([*grid, {"dataset": "digits", "seed": range(1, 3)}, {"dataset": "digits"}], tmp_path)
    assert [Path(d).relative_to(tmp_path / "digits/convnet").as_posix() for d in cells] == [
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
        ({"seed": []}, "'seed' has no values"),
        ({"epochs": [2, -3]}, "epochs: -3 is outside"),
        ({"milestones": [3, 5]}, "milestones: must be a list"),
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
def test_misspelt_grids_are_refused_before_anything_starts(grid, message, tmp_path, fast):
    for use in (sweeps.expand, sweeps.status, lambda g, d: sweeps.run(g, fast, runs_dir=d)):
        with pytest.raises((ValueError, TypeError), match=message):
            use(grid, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_grid_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("- smoke\n- dataset: digits\n  loss: [dfl, afl]\n  lr: 0.02\n")
    assert len(sweeps.expand(path, tmp_path)) == len(sweeps.expand(str(path), tmp_path)) == 4
    path.write_text("dataset: digits\nlr: 1e-3\nweight_decay: 5E-04")  # PyYAML alone takes both for text
    assert sweeps.load_grid(path) == [{"dataset": "digits", "lr": 0.001, "weight_decay": 0.0005}]
    for text, problem in (
        ("loss: [ce, gce", "flow sequence"),
        ("loss: [ce, gce]\nseed: 1\nloss: [brier]", "'loss' is there twice"),
        ("\tloss: ce", "cannot start any token"),
        ("loss: ce\n---\nloss: gce", "another document"),
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


def test_a_folder_with_another_result_is_refused_whatever_precision_it_was_run_in(tmp_path):
    grid = {"dataset": "digits", "epochs": 2}
    ((run_dir, (_, config)),) = sweeps.expand(grid, tmp_path).items()
    with runs.open_run(run_dir, config.settings() | {"precision": "bf16"}, {}):
        pass
    assert list(sweeps.expand(grid, tmp_path)) == [run_dir]
    with pytest.raises(ValueError, match="precision"):
        sweeps.expand(grid | {"precision": "fp32"}, tmp_path)
    with pytest.raises(ValueError, match=r"epochs \(2 there, 3 asked\).*variant='epochs_3"):
        sweeps.run(grid | {"epochs": 3}, runs_dir=tmp_path)


# --- status -------------------------------------------------------------------------------------------------------


def test_status_tells_done_running_failed_missing_and_what_is_left(tmp_path):
    grid = {"dataset": "digits", "loss": SEVEN[:5], "epochs": 4}
    done, slower, running, failed, started = map(Path, sweeps.expand(grid, tmp_path))
    for run_dir in (done, slower, running, failed, started):
        run_dir.mkdir(parents=True)
    (done / "metrics.json").write_text(FINISHED % 8.0)
    (slower / "metrics.json").write_text(FINISHED % 16.0)
    (running / "metrics.json").write_text(FINISHED[:30])  # damaged: not done
    (done / "failed.txt").write_text("once, before it was done")
    (failed / "failed.txt").write_text("ValueError")
    (started / "history.jsonl").write_text("{}\n{}\n{}\n")
    with FileLock(running / ".lock"):
        table = sweeps.status(grid, tmp_path)
    assert list(table.state) == ["done", "done", "running", "failed", "missing"]
    assert list(table.left) == [0, 0, 12, 12, 3]  # three seconds an epoch, the median of two and four
    assert list(table.epoch) == [0, 0, 0, 0, 3]
    with FileLock(running / ".sweep.lock"):  # a worker whose notebook has not come to training yet
        assert list(sweeps.status(grid, tmp_path).state)[2] == "running"
    assert list(sweeps.status(grid, tmp_path).state)[2] == "missing"
    other = sweeps.status(grid | {"batch_size": 32, "variant": "b32"}, tmp_path)
    assert other.left.isna().all()


def test_without_finished_runs_the_estimate_is_measured_here(tmp_path):
    grid = {"dataset": "digits", "epochs": [1, 10], "variant": "e{epochs}"}
    one, ten = sweeps.status(grid, tmp_path, measure=True).left
    assert 0 < one < 60
    assert ten == pytest.approx(10 * one)
    unknown = sweeps.status({"dataset": "av1451"}, tmp_path, measure=True).left
    assert unknown.isna().all() or (data.EMBEDDED / "av1451").exists()


def test_a_run_of_more_than_max_hours_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ValueError, match=r"convnet on digits would take about .* hours a run.*max_hours"):
        sweeps.run({"dataset": "digits", "max_hours": 1e-7}, runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())


# --- real processes -------------------------------------------------------------------------------------------------


def test_failures_are_kept_and_retried_once_and_the_rest_goes_on(client, fast, tmp_path):
    grid = [{"dataset": "digits", "loss": ["brier", "mmce"]}, {"dataset": "digits", "loss": "ce", "seed": [1, 2]}]
    threw, empty, done, unwritable = map(Path, sweeps.expand(grid, tmp_path))
    unwritable.parent.mkdir(parents=True)
    unwritable.write_text("no folder can be made here")
    records = {Path(r["run_dir"]): r for r in sweeps.run(grid, fast, client, runs_dir=tmp_path)}
    assert {d: r["state"] for d, r in records.items()} == dict.fromkeys((threw, empty, unwritable), "failed") | {
        done: "done"
    }
    assert len(starts(done)) == 1
    assert records[done]["seconds"] > 0
    assert records[done]["error"] == ""
    results = runs.read_json(done / "metrics.json")["results"]
    assert results["threads"] == str(max(1, CPU_COUNT // 2))  # what is imported after it obeys it
    for run_dir, reason in ((threw, "ValueError: broken on purpose"), (empty, "metrics.json")):
        assert len(starts(run_dir)) == 2
        text = (run_dir / "failed.txt").read_text()
        assert reason in text
        assert text == records[run_dir]["error"]
        assert "\x1b" not in text
        assert (run_dir / "run.ipynb").exists()
    assert list(sweeps.status(grid, tmp_path).state) == ["failed", "failed", "done", "missing"]

    unwritable.unlink()
    again = list(sweeps.run(grid[1:], fast, client, runs_dir=tmp_path))
    assert {Path(r["run_dir"]): r["state"] for r in again} == {done: "skipped", unwritable: "done"}
    assert len(starts(done)) == len(starts(unwritable)) == 1
    assert not leftovers(tmp_path)
    # with nothing left to do no cluster is started, and a scheduler that is not there is not asked
    assert [r["state"] for r in sweeps.run(grid[1:], fast, "tcp://127.0.0.1:1", runs_dir=tmp_path)] == ["skipped"] * 2


def test_workers_are_light_and_listen_on_the_loopback_only(client, fast, tmp_path):
    list(sweeps.run({"dataset": "digits", "seed": [1, 2]}, fast, client, runs_dir=tmp_path))
    assert {*client.run(lambda: "papermill" in sys.modules and "torch" not in sys.modules).values()} == {True}
    me = psutil.Process()
    listening = [
        c.laddr.ip for p in (me, *me.children(recursive=True)) for c in p.net_connections() if c.status == "LISTEN"
    ]
    assert len(listening) >= 3  # the scheduler and two workers
    assert {*listening} == {"127.0.0.1"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal 9")
def test_a_worker_killed_in_mid_run_loses_no_whole_epoch(client, tmp_path):
    notebook = write_notebook(tmp_path / "train.ipynb", TRAIN)
    grid = {"dataset": "digits", "loss": "ce", "epochs": 3, "ood": [[]]}
    (run_dir,) = sweeps.expand(grid, tmp_path / "runs")
    with ThreadPoolExecutor() as pool:
        sweep = pool.submit(list, sweeps.run(grid, notebook, client, runs_dir=tmp_path / "runs"))
        wait_until(lambda: len(starts(run_dir)) == 2, "the second epoch")
        kernel = psutil.Process(int(starts(run_dir)[0].split()[0]))
        worker = kernel.parent()
        assert worker.pid in client.run(os.getpid).values()
        worker.kill()
        kernel.wait(PATIENCE)  # it dies with its worker, so there is never a second writer
        (tmp_path / "runs/gate").touch()
        (record,) = sweep.result(PATIENCE)
    assert record["state"] == "done"
    first, second = ([line.split()[1] for line in starts(run_dir) if line.split()[0] == pid] for pid in pids(run_dir))
    assert (first, second) == (["1", "2"], ["3"])
    assert [r["epoch"] for r in runs.load_history(run_dir).to_dict("records")] == [1, 2, 3]
    assert runs.is_done(run_dir)
    assert not leftovers(tmp_path / "runs")


def pids(run_dir):
    return list(dict.fromkeys(line.split()[0] for line in starts(run_dir)))


def test_two_sweeps_at_once_run_nothing_twice(cluster, client, fast, tmp_path):
    grid = {"dataset": "digits", "loss": ["ce", "gce"], "variant": "waits"}
    first, second = sweeps.expand(grid, tmp_path)
    with Client(cluster) as other, ThreadPoolExecutor() as pool:
        one = pool.submit(list, sweeps.run(grid | {"loss": "ce"}, fast, client, runs_dir=tmp_path))
        wait_until(lambda: starts(first), "the first sweep's run")
        two = pool.submit(list, sweeps.run(grid, fast, other, runs_dir=tmp_path))
        wait_until(lambda: sum(map(len, client.processing().values())) > 1, "the second sweep's tasks on the workers")
        (tmp_path / "gate").touch()
        assert [r["state"] for r in one.result(PATIENCE)] == ["done"]
        assert states(two.result(PATIENCE)) == {("ce", 1): "skipped", ("gce", 1): "done"}
    assert len(starts(first)) == len(starts(second)) == 1


@pytest.mark.parametrize("lock", [".sweep.lock", ".lock"])
def test_a_run_that_another_process_holds_is_left_to_it(lock, fast, tmp_path):
    ((run_dir, (given, _)),) = sweeps.expand({"dataset": "digits"}, tmp_path).items()
    Path(run_dir).mkdir(parents=True)
    with FileLock(Path(run_dir, lock)):
        assert sweeps._execute(given, run_dir, fast, patience=0.1) == ("running", 0.0)
    assert {p.name for p in Path(run_dir).iterdir()} <= {".sweep.lock", ".lock"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal 9")
def test_a_killed_driver_is_started_again(client, fast, tmp_path):
    """Its workers and their kernels die with it; what was finished stays, the rest is run."""
    grid = [{"dataset": "digits", "loss": "ce"}, {"dataset": "digits", "loss": ["gce", "dfl"], "variant": "waits"}]
    finished, waiting, last = sweeps.expand(grid, tmp_path)
    code = f"from gcelib import sweeps; list(sweeps.run({grid}, {fast!r}, runs_dir={str(tmp_path)!r}, workers=1))"
    with contextlib.ExitStack() as stack:
        driver = stack.enter_context(psutil.Popen([sys.executable, "-c", code]))
        stack.callback(kill_family, driver)
        wait_until(lambda: (runs.is_done(finished) and starts(waiting)) or driver.poll(), "the driver's second run")
        assert driver.poll() is None
        family = driver.children(recursive=True)
        assert int(starts(waiting)[0]) in {process.pid for process in family}
        driver.kill()
        _, alive = psutil.wait_procs(family, PATIENCE)
        assert not alive
    assert list(sweeps.status(grid, tmp_path).state) == ["done", "missing", "missing"]
    (tmp_path / "gate").touch()
    records = list(sweeps.run(grid, fast, client, runs_dir=tmp_path))
    assert states(records) == {("ce", 1): "skipped", ("gce", 1): "done", ("dfl", 1): "done"}
    assert [len(starts(d)) for d in (finished, waiting, last)] == [1, 2, 1]
    assert not leftovers(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal 9")
def test_a_scheduler_elsewhere_serves_and_its_death_is_told(client, fast, tmp_path, monkeypatch):
    """``DASK_SCHEDULER_ADDRESS``; kill -9 of that scheduler in mid-run."""
    grid = {"dataset": "digits", "loss": ["ce", "gce"], "variant": "waits"}
    here = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--scheduler-file"]
    where = str(tmp_path / "scheduler.json")
    commands = [["dask_scheduler", *here, where, "--port", "0"], ["dask_worker", *here, where, "--nthreads", "1"]]
    with contextlib.ExitStack() as stack:
        for module, *options in commands:
            command = [sys.executable, "-m", f"distributed.cli.{module}", *options]
            process = stack.enter_context(psutil.Popen(command, stderr=subprocess.DEVNULL))
            stack.callback(kill_family, process)
            if module == "dask_scheduler":
                scheduler = process
                wait_until(lambda: Path(where).exists() and Path(where).read_text().rstrip().endswith("}"), "it")
                address = runs.read_json(where)["address"]
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        with ThreadPoolExecutor() as pool:
            sweep = pool.submit(list, sweeps.run(grid, fast, runs_dir=tmp_path / "runs"))
            wait_until(lambda: any(map(starts, sweeps.expand(grid, tmp_path / "runs"))), "a run on its worker")
            scheduler.kill()
            with pytest.raises(ConnectionError, match="scheduler is gone; start the sweep again"):
                sweep.result(PATIENCE)
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS")
    (tmp_path / "runs/gate").touch()
    records = list(sweeps.run(grid, fast, client, runs_dir=tmp_path / "runs"))
    assert [r["state"] for r in records] == ["done", "done"]


# --- clusters that are not here -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "options", "pins"),
    [
        (None, {}, ["0", "1", "2"]),
        ("4,7", {"workers_per_gpu": 2}, ["4", "7", "4", "7"]),
        ("4,7", {"workers": 3}, ["4", "7", "4"]),
        ("4,7", {"at_most": 1}, ["4"]),
    ],
)
def test_each_worker_sees_one_gpu(visible, options, pins, monkeypatch):
    """The plan of the cluster, with GPUs that are not here."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(sweeps.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sweeps.torch.cuda, "device_count", lambda: len(visible.split(",")) if visible else 3)
    monkeypatch.setattr(sweeps, "SpecCluster", lambda workers, scheduler, **_: workers)
    workers = sweeps.local_cluster(**options)
    assert [w["options"]["env"]["CUDA_VISIBLE_DEVICES"] for w in workers.values()] == pins


def test_two_real_workers_share_a_gpu_that_they_alone_see(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setattr(sweeps.torch.cuda, "is_available", lambda: True)
    with sweeps.local_cluster(workers_per_gpu=2) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # what the driver sees no longer matters
        seen = client.run(lambda: (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]))
    assert [*seen.values()] == [("5", str(max(1, CPU_COUNT // 2)))] * 2


@pytest.mark.parametrize("workers", [-1, 1.5, "two"])
def test_a_senseless_number_of_workers_is_refused(workers):
    with pytest.raises((ValueError, TypeError), match="workers: "):
        sweeps.local_cluster(workers)


def test_the_documented_slurm_cluster_writes_its_job_script(monkeypatch):
    """The code of docs/cluster.md, without SLURM: one GPU and one notebook at a time in each job."""
    import dask_jobqueue

    text = (runs.PROJECT / "docs" / "cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    # asynchronous: nothing is started and nothing listens until the cluster is awaited
    monkeypatch.setattr(dask_jobqueue, "SLURMCluster", partial(dask_jobqueue.SLURMCluster, asynchronous=True))
    names = {}

    async def make():
        exec(compile(blocks[0], "docs/cluster.md", "exec"), names)

    asyncio.run(make())
    script = names["cluster"].job_script()
    for line in ("#SBATCH -p gpu", "#SBATCH --gres=gpu:1", "#SBATCH --cpus-per-task=4", "#SBATCH -t 24:00:00"):
        assert line in script.splitlines()
    assert "export OMP_NUM_THREADS=4" in script.splitlines()
    (command,) = (line for line in script.splitlines() if "dask_worker" in line)
    assert command.startswith(sys.executable)
    for option in ("--nthreads 1 ", "--no-dashboard", "--lifetime 23h"):
        assert option in command
    assert "--nworkers" not in command
    compile(blocks[1], "docs/cluster.md", "exec")
    assert len(sweeps.expand(re.search(r'sweeps\.run\("(\w+)"', blocks[1])[1])) > 0
