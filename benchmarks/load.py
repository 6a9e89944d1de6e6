"""Load at full size, some minutes and 400 MB of disk for a while.

``python benchmarks/load.py`` writes ``benchmarks/results/load.md``: 1,000 finished runs
as a table; all metrics of 1,000,000 x 100 logits in a mapped file.
"""

import argparse
import dataclasses
import datetime
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before the libraries start

import _timing
import numpy as np
import torch

from gcelib import metrics, runs, sweeps
from gcelib.study import stored

DEMO = (
    Path(__file__).resolve().parents[1]
    / "data"
    / "demo"
    / "fashion_mini"
    / "convnet"
    / "gce"
    / "seed-01"
)


def timed(call):
    """Wall-clock and CPU seconds of the best of three calls."""
    found = []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(found)


def thousand_runs(folder):
    """Rows of the table: listing and tabulating 1,000 finished runs, each with a
    ``metrics.json`` as long and as checked as ``fit`` writes it."""
    demo = runs.read_result(DEMO)
    logits = {
        path.stem: stored.fingerprint(*runs.load_logits(DEMO, path.stem))
        for path in sorted((DEMO / "logits").glob("*.npz"))
    }
    history = stored.lines_fingerprint((DEMO / "history.jsonl").read_bytes())
    grid = {"dataset": "fashion_mini", "device": "cpu", "seed": range(1, 1001)}
    for run_dir, (_, config) in sweeps.expand(grid, folder).items():
        Path(run_dir).mkdir(parents=True)
        asked = runs.Record(stored.plain(config.settings()), demo.environment)
        stored.write_record(Path(run_dir, "config.json"), asked)
        done = dataclasses.replace(
            asked, results=demo.results, logits=logits, history=history
        )
        stored.write_record(Path(run_dir, "metrics.json"), done)
    for what, call in (
        (
            "`runs.load_results`: one table of 1,000 finished runs",
            lambda: runs.load_results(folder),
        ),
        (
            "`sweeps.status`: how far a grid of 1,000 runs is",
            lambda: sweeps.status(grid, folder),
        ),
    ):
        wall, cpu = timed(call)
        yield [what, f"{wall:.2f} s", f"{cpu:.2f} s", ""]


def private_mib():
    """This process's own memory in MiB, without the pages of mapped files (Linux)."""
    with open("/proc/self/status") as file:
        return (
            next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
            / 1024
        )


def mapped(n, k, path):
    """Print wall-clock and CPU seconds and the MiB that all metrics of n x k mapped
    logits take: in a fresh process."""
    rng, step = np.random.default_rng(0), 10_000
    logits = np.lib.format.open_memmap(path, "w+", np.float32, (n, k))
    for start in range(0, n, step):
        logits[start : start + step] = 3 * rng.standard_normal(
            (min(step, n - start), k), np.float32
        )
    logits.flush()
    labels = rng.integers(0, k, n)
    logits = np.load(path, mmap_mode="r", allow_pickle=False)
    metrics.evaluate(logits[:1000], labels[:1000])  # code and caches are there
    before, done = private_mib(), threading.Event()
    seen = [before]

    def watch():
        while not done.wait(0.01):
            seen.append(private_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    metrics.evaluate(logits, labels)
    wall = time.perf_counter() - wall
    cpu = time.process_time() - cpu
    done.set()
    watcher.join()
    print(wall, cpu, max(seen) - before)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--mapped", nargs=3, help=argparse.SUPPRESS)
    if options := parser.parse_args().mapped:
        return mapped(int(options[0]), int(options[1]), options[2])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(thousand_runs(folder))
        command = [
            sys.executable,
            __file__,
            "--mapped",
            "1000000",
            "100",
            str(Path(folder) / "logits.npy"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall, cpu, memory = (float(v) for v in done.stdout.split())
    what = (
        "`metrics.evaluate`: 1,000,000 x 100 logits, float32, 381 MiB mapped into "
        "memory"
    )
    rows.append([what, f"{wall:.1f} s", f"{cpu:.1f} s", f"{memory:.0f} MiB"])
    text = [
        f"Measured {datetime.date.today()} on {_timing.processor()}: one thread;",
        "tables: best of three calls, files in the cache. Own memory: how far the call",
        "raises the process's memory, without the file's pages.",
        "",
        f"gcelib {_timing.version('gcelib')}, torch {torch.__version__}, "
        f"numpy {np.__version__}.",
        "",
        _timing.table(["", "wall clock", "CPU", "own memory"], rows),
    ]
    _timing.publish("load", "\n".join(text))


if __name__ == "__main__":
    main()
