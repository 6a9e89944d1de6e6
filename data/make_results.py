"""Make the committed tables of data/results from folders of finished runs.

    python data/make_results.py RUNS_DIR [OUTPUT_FOLDER]

Writes <grid>.csv, a row a run, for each grid of ``gcelib.paper.RESULT_GRIDS`` of which
all runs are finished, and says how many of the others are missing. From such runs of CE
and GCE with the recipes of their data sets it also writes corrections.csv (what the
training log-prior or a bias for each class, fitted on validation, does to them), where
rows of other grids stay, and collapse.csv (the classes of the run that lost one).
Repeat it whenever more runs are finished: to train them,

    cd notebooks && papermill 07_sweep.ipynb out.ipynb -p grid regularizer

and so on with the other grids; a sweep goes on where it was stopped. Left out are
settings that a data set's recipe fixes, training times (these runs shared their cores),
and what calibrators do on the validation split. Six significant digits.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gcelib import calibration, data, metrics, paper, runs, sweeps
from gcelib.study import decimals, measuring

Pair = tuple[np.ndarray, np.ndarray]

SETTINGS = ["dataset", "model", "loss", "variant", "seed"]
RECIPE = ["epochs", "batch_size", "lr"]
PROVENANCE = ["torch", "commit", "day", "device"]
#: Runs with the recipe of their data set, and those where only lambda is another.
CORRECTED = ("", "lambda0.9", "lambda0.5")
#: The run whose third class vanished.
COLLAPSED = "fashion_mini_lt100/convnet/gce/seed-03"


def main(
    runs_dir: str | Path, output: str | Path = Path(__file__).parent / "results"
) -> None:
    """Write every table that the finished runs under ``runs_dir`` fill."""
    runs_dir = Path(runs_dir).resolve()
    output = Path(output)
    if runs.load_results(runs_dir).empty:
        sys.exit(f"no finished run in {runs_dir}")
    output.mkdir(exist_ok=True)
    table = paper.collect(runs_dir).sort_values(["dataset", "variant", "loss", "seed"])
    table = pd.DataFrame(map(measured_today, table.to_dict("records")))
    of_whole_grids: set[str] = set()
    for grid in paper.RESULT_GRIDS:
        cells = sweeps.expand(grid, runs_dir)
        rows = table[table.run_dir.isin(cells)]
        if len(rows) == len(cells):
            write(output / f"{grid}.csv", only_results(rows))
            of_whole_grids.update(rows.run_dir)
        elif len(rows):
            print(f"{grid}: {len(cells) - len(rows)} of {len(cells)} runs are missing")
    to_correct = table[
        table.variant.isin(CORRECTED)
        & table.loss.isin(["ce", "gce"])
        & table.run_dir.isin(of_whole_grids)
    ]
    if len(to_correct):
        rows = [corrected(row) for row in to_correct.to_dict("records")]
        path = output / "corrections.csv"
        write(path, beside_others(pd.DataFrame(rows), path))
    if (runs_dir / COLLAPSED / "metrics.json").exists():
        write(output / "collapse.csv", classes_of(runs_dir / COLLAPSED))


def beside_others(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """``table`` with the runs that ``path`` holds and it does not."""
    if not path.exists():
        return table
    there = decimals.read_csv(path).fillna({"variant": ""})
    runs_of = [pd.MultiIndex.from_frame(part[SETTINGS]) for part in (there, table)]
    kept = there[~runs_of[0].isin(runs_of[1])]
    both = pd.concat([kept, table]).sort_values(["dataset", "variant", "loss", "seed"])
    return both[table.columns] if set(both) == set(table) else both


def write(path: Path, table: pd.DataFrame) -> None:
    """Put ``table`` at ``path``, whole or not at all."""
    text = table.to_csv(index=False, float_format="%.6g")
    runs.write_atomic(path, text.encode())
    print(f"{path}: {len(table)} rows")


def measured_today(row: dict) -> dict:
    """The row with what the calibrators of today make of the run's stored logits.

    A run that an older version trained holds the numbers of its calibrators.
    """
    pairs = {
        split: runs.load_logits(row["run_dir"], split) for split in ("val", "test")
    }
    logits = {split: torch.from_numpy(z) for split, (z, _) in pairs.items()}
    labels = {split: torch.from_numpy(y) for split, (_, y) in pairs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small validation sets
        return row | measuring.measure(logits, labels)


def only_results(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that are committed."""
    parts = ("test_", "val_raw_", "half_", "ts_nll_temp", "early_val")
    names = (n for n in table if n.startswith(parts) or n.endswith("_auroc"))
    return table[SETTINGS + RECIPE + PROVENANCE + sorted(names)].dropna(
        axis=1, how="all"
    )


def log_prior(dataset: str, seed: int) -> np.ndarray:
    """The logarithm of each class's share of the training images (K,), float32."""
    labels = data.load(dataset, seed).train[1].numpy()
    counts = np.bincount(labels)
    return np.log(counts / counts.sum()).astype(np.float32)


def logits_of(run_dir: str | Path) -> tuple[Pair, Pair]:
    """Validation and test logits with their labels."""
    return runs.load_logits(run_dir, "val"), runs.load_logits(run_dir, "test")


def corrected(row: dict) -> dict:
    """One run's test numbers as trained, without the prior, and with a fitted bias."""
    val, (logits, labels) = logits_of(row["run_dir"])
    with warnings.catch_warnings():
        # Classes without a validation image.
        warnings.simplefilter("ignore", UserWarning)
        bias = calibration.make_calibrator("bias").fit(*val)
    kinds = {
        "log_prior": logits - log_prior(row["dataset"], row["seed"]),
        "bias": bias(logits).numpy(),
    }
    found = {name: row[name] for name in SETTINGS + PROVENANCE}
    for name in ("early_val_error", "test_raw_worst_class_error"):
        found[name] = row[name]
    for kind, scores in kinds.items():
        numbers = metrics.evaluate(scores, labels)
        for name in ("error", "ece", "nll", "classwise_ece"):
            found[f"test_{kind}_{name}"] = numbers[name]
        by_class = paper.class_errors(scores, labels)
        found |= {k.replace("_raw_", f"_{kind}_"): v for k, v in by_class.items()}
    return found


def classes_of(run_dir: str | Path) -> pd.DataFrame:
    """A row a class: how the run treats it, as trained and with a fitted bias."""
    val, (logits, labels) = logits_of(run_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        bias = calibration.make_calibrator("bias").fit(*val)
    mended = bias(logits).numpy()
    scores = logits.astype(float)
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    splits = data.load("fashion_mini_lt100", 3)
    rows = []
    for k, name in enumerate(splits.class_names):
        here = labels == k
        inside, outside = p[here, k], p[~here, k]
        ranks = pd.Series(np.r_[inside, outside]).rank().to_numpy()
        area = ranks[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2
        rows.append(
            {"class": k, "name": name, "n_train": int((splits.train[1] == k).sum())}
            | {"n_test": int(here.sum())}
            | {"predicted": int((logits.argmax(1) == k).sum())}
            | {"largest_p": p[:, k].max(), "claimed": p[:, k].sum()}
            | {"auroc_of_p": area / (len(inside) * len(outside))}
            | {"error": (logits.argmax(1)[here] != k).mean()}
            | {"bias_predicted": int((mended.argmax(1) == k).sum())}
            | {"bias_error": (mended.argmax(1)[here] != k).mean()}
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
