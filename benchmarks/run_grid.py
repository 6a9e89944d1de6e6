"""A grid's runs on one GPU without papermill, Dask or network: ``python
benchmarks/run_grid.py fashion_mnist_gpu``.

For a machine that is lent for a while. The runs are those of ``gcelib.sweeps``: same
settings, folders and results, so either goes on where the other stopped. ``--workers
2`` runs two at a time; ``--minutes`` stops after an epoch, and starts no run for which
the time will not do. Needs torch, torchvision, pandas, scikit-learn, filelock and
PyYAML.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a lent machine need not install gcelib

import pandas as pd

from gcelib import runs, sweeps, training


def started(config):
    """Whether an earlier session left a checkpoint of this run."""
    return (config.run_dir / "checkpoint.pt").exists()


def work(configs, deadline):
    """Run what nobody runs and there is time for; the number of runs that failed."""
    spent = []
    failed = 0
    for config in configs:
        name = config.run_dir.relative_to(config.runs_dir)
        start, resumed = time.monotonic(), started(config)
        if runs.is_done(config.run_dir) or deadline - start < (
            statistics.median(spent) if spent and not resumed else 0
        ):
            continue
        try:
            for record in training.fit(config):
                print(f"{name}: {training.progress(record)}", flush=True)
                if time.monotonic() > deadline and record["epoch"] < config.epochs:
                    where = f"stopped after epoch {record['epoch']}"
                    print(f"{name}: {where}; it goes on from there", flush=True)
                    return failed
        except RuntimeError as error:
            if "another process" not in str(error):
                failed += 1
                traceback.print_exc()
            continue
        except Exception:
            failed += 1
            traceback.print_exc()
            continue
        if not resumed:
            spent.append(time.monotonic() - start)
    return failed


def _worker(*arguments):
    sys.exit(work(*arguments))


def summary(dirs):
    """Mean of each loss over the finished seeds in these folders, in percent."""
    records = {path: runs.read_result(path) for path in dirs if runs.is_done(path)}
    table = pd.DataFrame([runs.table_row(*one) for one in records.items()])
    names = ["test_raw_error", "test_raw_ece", "test_ts_nll_ece", "test_ats_ece"]
    names += [name for name in table if name.endswith("_raw_auroc")]
    by_loss = table.groupby(["dataset", "model", "variant", "loss"])
    return (100 * by_loss[names].mean()).round(2).assign(seeds=by_loss.size())


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("grid")
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at a time on the one GPU"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--runs-dir", default=str(runs.default_runs_dir()))
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    # Bad settings, and folders of other runs, are refused before anything starts.
    cells = sweeps.expand(options.grid, options.runs_dir)
    configs = [cell.config for cell in cells.values()]
    configs.sort(key=started, reverse=True)
    if options.workers == 1:
        failed = work(configs, deadline)
    else:
        context = multiprocessing.get_context("spawn")
        workers = [
            context.Process(target=_worker, args=(configs, deadline))
            for _ in range(options.workers)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        failed = sum(
            worker.exitcode if worker.exitcode >= 0 else 1 for worker in workers
        )
    done = sum(map(runs.is_done, cells))
    print(f"{done} of {len(cells)} runs are done, {failed} failed now")
    if done:
        print(summary(cells).to_string())
    return failed


if __name__ == "__main__":
    sys.exit(main())
