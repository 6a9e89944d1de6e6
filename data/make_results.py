"""Make the committed tables of data/results from folders of finished runs.

    python data/make_results.py RUNS_DIR [OUTPUT_FOLDER]

Writes <grid>.csv, a row a run, for the grids below as far as they were run; see data/results/README.md. Left out are
settings that a data set's recipe fixes, training times (these runs shared their cores with other work), and what the
calibrators do on the validation split. Six significant digits.
"""

import sys
from pathlib import Path

from gcelib import paper, runs, sweeps

GRIDS = ("demo", "demo_lt10", "batch_size", "fashion_mnist_gpu")
SETTINGS = ["dataset", "model", "loss", "variant", "seed", "epochs", "batch_size", "lr"]
PROVENANCE = ["torch", "commit", "day", "device"]


def main(runs_dir, output=Path(__file__).parent / "results"):
    if not runs.load_results(runs_dir).size:
        sys.exit(f"no finished run in {Path(runs_dir).resolve()}")
    output = Path(output)
    output.mkdir(exist_ok=True)
    table = paper.collect(Path(runs_dir).resolve()).sort_values(["dataset", "variant", "loss", "seed"])
    parts = ("test_", "val_raw_", "half_", "ts_nll_temp")
    numbers = sorted(name for name in table if name.startswith(parts) or name.endswith("_auroc"))
    for grid in GRIDS:
        cells = sweeps.expand(grid, runs_dir)
        rows = table.loc[table.run_dir.isin(cells), SETTINGS + PROVENANCE + numbers].dropna(axis=1, how="all")
        if rows.empty:
            continue
        runs.write_atomic(output / f"{grid}.csv", rows.to_csv(index=False, float_format="%.6g").encode())
        print(f"{output / grid}.csv: {len(rows)} of {len(cells)} runs")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
