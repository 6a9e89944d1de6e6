"""Make data/results/real_networks.csv: what each calibrator does to published networks.

    python data/make_real_networks.py [--folder FOLDER] [--splits 20] [--report]

A row for every network of ``published_logits`` (also listed in data/published.csv,
which ``--sources`` writes), random split, number of validation samples and calibrator.
Split s is ``numpy.random.default_rng(1000 + s).permutation(n)``: its first 5,000 (or
1,000) samples fit, all from the 5,000th on judge. Networks whose files cannot be had
are skipped with a word. What is done is kept in FOLDER_OF_RUNS/real_networks.jsonl, so
that the command goes on where it stopped; ``--splits 0`` writes the table of what is
done. ``--report`` prints the tables of data/results/README.md from the committed file.
Needs ``pip install probmetrics numba relplot``.
"""

import argparse
import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import relplot
import torch
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from gcelib import AdaptiveTemperatureScaling, make_calibrator, metrics, runs
from gcelib.study import decimals
from gcelib.study.published import PUBLISHED, published_logits, sources_table

RESULT = Path(__file__).parent / "results" / "real_networks.csv"
SOURCES = Path(__file__).parent / "published.csv"
SIZES = (5000, 1000)
JUDGED_FROM = 5000
PAPERS = ("ts_nll", "ts_ece", "ets", "spline", "ats", "ats_step_0.5", "ats_converged")
PEERS = ("bias", "vector", "isotonic", "sms", "svs")
KEYS = ["network", "n_val", "split", "calibrator"]

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def calibrated(name: str, val: tuple[Logits, Labels], z: Logits) -> Tensor:
    """The logits ``z`` after the calibrator ``name``, fitted on ``val``."""
    if name == "raw":
        return torch.from_numpy(z)
    if name == "ats_step_0.5":
        return AdaptiveTemperatureScaling(step=0.5).fit(*val)(z)
    if name == "svs":
        from probmetrics.calibrators import get_calibrator

        probs = [torch.from_numpy(part).softmax(1).numpy() for part in (val[0], z)]
        fitted = get_calibrator("svs", svs_print_init_info=False).fit(probs[0], val[1])
        after = np.clip(fitted.predict_proba(probs[1]), np.finfo(np.float32).tiny, 1)
        return torch.from_numpy(np.log(after))
    return make_calibrator(name).fit(*val)(z)


def measured(z: Tensor, y: Labels) -> dict[str, float]:
    """All numbers of one row."""
    numbers = metrics.evaluate(z, y)
    confidence, correct = metrics.top_label(z, y)
    return {
        "error": numbers["error"],
        "nll": numbers["nll"],
        "brier": numbers["brier"],
        "ece": numbers["ece"],
        "ece_15_bins": metrics.ece(z, y, 15),
        "adaptive_ece": numbers["adaptive_ece"],
        "classwise_ece": numbers["classwise_ece"],
        "smooth_ece": float(relplot.smECE(confidence, correct.astype(float))),
    }


def tasks(splits: int) -> Iterator[tuple[str, int, int, str]]:
    """Every row to be made, the paper's comparison first."""
    for n_val in SIZES:
        for names in ((*PAPERS, "raw"), PEERS):
            for split in range(splits):
                for network in PUBLISHED:
                    for name in names:
                        yield network, n_val, split, name


def done_rows(store: Path) -> list[dict[str, Any]]:
    """Rows of earlier calls; a last line that a kill cut short is left out."""
    rows = []
    for line in store.read_text().splitlines() if store.exists() else []:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--folder", help="where the published files lie or are put")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--report", action="store_true", help="print the tables only")
    parser.add_argument("--sources", action="store_true", help="write published.csv")
    asked = parser.parse_args()
    if asked.sources:
        SOURCES.write_text(sources_table())
        return
    if asked.report:
        print(report(decimals.read_csv(RESULT)))
        return
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    loaded = {}
    for network in PUBLISHED:
        try:
            loaded[network] = published_logits(network, asked.folder)
        except OSError as missing:
            print(f"skipped {network}: {missing}")
    store = runs.default_runs_dir() / "real_networks.jsonl"
    store.parent.mkdir(parents=True, exist_ok=True)
    rows = done_rows(store)
    finished = {tuple(row[key] for key in KEYS) for row in rows}
    todo = [t for t in tasks(asked.splits) if t[0] in loaded and t not in finished]
    with store.open("a") as file:
        file.write("\n")  # after a line that was cut short
        for network, n_val, split, name in tqdm(todo, unit="row"):
            z, y = loaded[network]
            order = np.random.default_rng(1000 + split).permutation(len(y))
            fit, judge = order[:n_val], order[JUDGED_FROM:]
            after = calibrated(name, (z[fit], y[fit]), z[judge])
            key = dict(zip(KEYS, (network, n_val, split, name), strict=True))
            row = key | measured(after, y[judge])
            file.write(json.dumps(row) + "\n")
            file.flush()
            rows.append(row)
    table = whole(pd.DataFrame(rows).drop_duplicates(KEYS))
    order = {name: i for i, name in enumerate(PUBLISHED)}
    table = table.sort_values(
        KEYS,
        key=lambda column: column.map(order) if column.name == "network" else column,
    )
    runs.write_atomic(RESULT, table.round(6).to_csv(index=False).encode())
    print(report(decimals.read_csv(RESULT)))


def whole(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of splits on which a calibrator has met every network that is there."""
    n_networks = table.network.nunique()
    present = table.groupby(KEYS[1:]).network.transform("nunique")
    return table[present == n_networks]


# --- tables --------------------------------------------------------------------------

PERCENT = ["error", "ece", "ece_15_bins", "adaptive_ece", "classwise_ece", "smooth_ece"]


def means(table: pd.DataFrame, n_val: int) -> pd.DataFrame:
    """Mean over splits, then over networks; percent, NLL and Brier score times 100."""
    part = table[table.n_val == n_val]
    by_network = part.groupby(["calibrator", "network"]).mean(numeric_only=True)
    found = 100 * by_network.groupby("calibrator").mean().drop(
        columns=["n_val", "split"]
    )
    found.insert(0, "splits", part.groupby("calibrator").split.nunique())
    order = ["raw", *PAPERS, *PEERS]
    return found.reindex([name for name in order if name in found.index]).round(2)


def interval(differences: pd.Series, n_val: int) -> tuple[float, float, float]:
    """Mean of differences over splits and its 95 % interval (Nadeau and Bengio 2003).

    Splits overlap, so the variance of their mean is (1 / J + n_test / n_fit) s^2.
    """
    j = len(differences)
    widened = (1 / j + JUDGED_FROM / n_val) * differences.var(ddof=1)
    half = stats.t.ppf(0.975, j - 1) * np.sqrt(widened)
    return differences.mean(), differences.mean() - half, differences.mean() + half


def paired(
    table: pd.DataFrame, a: str, b: str, metric: str, n_val: int
) -> dict[str, Any]:
    """Calibrator ``a`` minus ``b``: over all networks, and on how many it is clear.

    The networks share test images, and split s is the same for all of them; so the
    interval of their mean is that of the J per-split means.
    """
    part = table[(table.n_val == n_val) & table.calibrator.isin([a, b])]
    wide = part.pivot_table(
        index=["network", "split"], columns="calibrator", values=metric
    )
    difference = 100 * (wide[a] - wide[b]).dropna()
    mean, low, high = interval(difference.groupby("split").mean(), n_val)
    each = [interval(d, n_val) for _, d in difference.groupby("network")]
    return {
        "difference": f"{a} - {b}",
        "metric": metric,
        "mean": f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]",
        "splits better": f"{int((difference < 0).sum())} of {len(difference)}",
        "networks clearly better": sum(high < 0 for _, _, high in each),
        "clearly worse": sum(low > 0 for _, low, _ in each),
        "networks": len(each),
    }


PAIRS = [
    ("ats", "ts_ece", "ece"),
    ("ats_step_0.5", "ats", "ece"),
    ("ats_converged", "ats", "ece"),
    ("ats_converged", "ats_step_0.5", "ece"),
    ("ats_converged", "ts_ece", "ece"),
    ("ats_converged", "ts_nll", "ece"),
    ("ats_converged", "ts_nll", "nll"),
    ("ats_converged", "spline", "ece"),
    ("ats_converged", "ets", "ece"),
    ("bias", "ts_nll", "nll"),
    ("vector", "ts_nll", "nll"),
    ("sms", "ts_nll", "nll"),
    ("sms", "vector", "nll"),
]


def report(table: pd.DataFrame) -> str:
    """The tables in Markdown."""
    parts = []
    for n_val in SIZES:
        part = table[table.n_val == n_val]
        if part.empty:
            continue
        networks = part.network.nunique()
        parts.append(f"{networks} networks, {n_val:,} validation samples\n")
        parts.append(means(table, n_val).to_markdown())
        present = set(part.calibrator)
        pairs = [paired(table, *p, n_val) for p in PAIRS if {*p[:2]} <= present]
        parts.append("\n" + pd.DataFrame(pairs).to_markdown(index=False) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
