"""The README's Python runs as printed, and its links lead somewhere."""

import re
from pathlib import Path

import pandas as pd
import pytest
import scipy.stats
import torch

from gcelib import make_calibrator, paper, runs
from gcelib.study import shipped

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize(
    "block", BLOCKS, ids=[b.strip().splitlines()[1] for b in BLOCKS]
)
def test_code_blocks_run(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    if "advice" in names:
        advice = names["advice"]
        assert advice.sentence in capsys.readouterr().out
        before, after = (
            names["evaluate"](z, names["labels"][names["test"]])["ece"]
            for z in (names["logits"][names["test"]], names["calibrated"])
        )
        assert after < before
        assert (tmp_path / "calibrator.pt").exists()


def test_it_fits_a_screen_or_three():
    assert len(README.splitlines()) < 150


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "data/README.md",
    "data/results/README.md",
    *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_commands_are_those_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


RESULTS = ROOT / "data" / "results"


@pytest.fixture(scope="module")
def runs_of_csv():
    """The csv files themselves, read without gcelib."""
    names = ("demo", "demo_lt10", "regularizer", "corrections", "afl_gce")
    names += ("published_code_demo", "batch_size", "batch_regularizer")
    return {name: pd.read_csv(RESULTS / f"{name}.csv") for name in names}


def t_test(first, second, metric):
    """Paired t test of the differences by seed, in points, by scipy."""
    tables = [table.sort_values("seed") for table in (first, second)]
    assert list(tables[0].seed) == list(tables[1].seed)
    one, other = (table[metric].to_numpy() for table in tables)
    return scipy.stats.ttest_rel(100 * one, 100 * other), 100 * (one - other).mean()


def paired(first, second, metric):
    """Difference by seed in points, and its interval by scipy, as the README prints."""
    test, mean = t_test(first, second, metric)
    low, high = test.confidence_interval(0.95)
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def holm(p):
    """Holm's adjusted p, step by step."""
    adjusted = {}
    largest = 0.0
    for rank, (name, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p) - rank) * value))
        adjusted[name] = largest
    return adjusted


def with_parts(table):
    by_class = [f"test_raw_error_class{k}" for k in range(10)]
    return table.copy().assign(
        scarce=table[by_class[7:]].mean(axis=1), other=table[by_class[:7]].mean(axis=1)
    )


DATASETS = ["fashion_mini", "fashion_mini_lt10", "fashion_mini_lt100", "digit_pairs"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_result_table_is_what_scipy_makes_of_the_csv_files(dataset, runs_of_csv):
    table = pd.concat([runs_of_csv["demo"], runs_of_csv["demo_lt10"]])
    table = with_parts(table[table.dataset == dataset])
    ce, gce = (table[table.loss == loss] for loss in ("ce", "gce"))
    cells = [
        f"{percent.mean():.2f} ± {percent.std():.2f}"
        for percent in (100 * ce.test_raw_error, 100 * gce.test_raw_error)
    ]
    for metric in ("test_raw_error", "scarce", "test_raw_ece", "test_ts_nll_ece"):
        known = metric != "scarce" or dataset != "digit_pairs"
        cells.append(paired(gce, ce, metric) if known else "")
    assert f"| {dataset} | {' | '.join(cells)} |" in README


def test_the_sentences_below_the_table_follow_from_it():
    lines = [line for line in README.splitlines() if line.split("|")[1:2] != []]
    rows = [line for line in lines if line[2:].split(" ")[0] in DATASETS]
    spans = [re.findall(r"\[([+-][\d.]+), ([+-][\d.]+)\]", row) for row in rows]
    assert len(rows) == 4
    for span in spans:
        (low, high), (_, raw_high) = span[0], span[-2]
        assert float(low) < 0 < float(high)  # sentence 1
        assert float(raw_high) > 0  # sentence 2: better nowhere
    assert sum(float(span[-2][0]) > 0 for span in spans) == 2  # ... and worse on two
    assert sum(float(span[-1][1]) < 0 for span in spans) == 3  # ... TS better on three


def test_only_one_interval_of_the_result_table_survives_a_correction(runs_of_csv):
    table = with_parts(pd.concat([runs_of_csv["demo"], runs_of_csv["demo_lt10"]]))
    p = {}
    for dataset in DATASETS:
        here = table[table.dataset == dataset]
        ce, gce = (here[here.loss == loss] for loss in ("ce", "gce"))
        for metric in ("test_raw_error", "scarce", "test_raw_ece", "test_ts_nll_ece"):
            if metric != "scarce" or dataset != "digit_pairs":
                p[dataset, metric] = t_test(gce, ce, metric)[0].pvalue
    adjusted = holm(p)
    assert len(adjusted) == 15
    survive = {name for name, value in adjusted.items() if value < 0.05}
    assert survive == {("digit_pairs", "test_raw_ece")}


def test_the_published_recipe_is_what_scipy_makes_of_the_csv_file(runs_of_csv):
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    table = runs_of_csv["published_code_demo"]
    metrics = ("test_raw_error", "test_raw_ece", "test_ts_nll_ece")
    p = {}
    for dataset in DATASETS:
        here = table[table.dataset == dataset]
        ce, gce = (here[here.loss == loss] for loss in ("ce", "gce"))
        percent = 100 * ce.test_raw_error
        cells = [f"{percent.mean():.2f} ± {percent.std():.2f}"]
        cells += [paired(gce, ce, metric) for metric in metrics]
        assert f"| {dataset} | {' | '.join(cells)} |" in page
        for metric in metrics:
            p[dataset, metric] = t_test(gce, ce, metric)[0].pvalue
        if dataset == "fashion_mini_lt100":
            assert f"error {cells[1]}, ECE as trained {cells[2]}" in README
    survive = {name for name, value in holm(p).items() if value < 0.05}
    assert survive == {("fashion_mini_lt100", metric) for metric in metrics[:2]}


def test_the_table_of_small_batches_is_what_scipy_makes_of_the_csv_files(runs_of_csv):
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    table = pd.concat([runs_of_csv["batch_size"], runs_of_csv["batch_regularizer"]])
    for weight, ending in {"1": "", "0.9": "-lambda0.9", "0.5": "-lambda0.5"}.items():
        cells = []
        for metric in ("test_raw_ece", "test_raw_error"):
            for size in (32, 256):
                gce = table[(table.variant == f"b{size}{ending}")]
                ce = table[(table.variant == f"b{size}") & (table.loss == "ce")]
                cells.append(paired(gce[gce.loss == "gce"], ce, metric))
        assert f"| λ = {weight} | {' | '.join(cells)} |" in page


def test_as_many_runs_lost_a_class_as_the_results_page_says(runs_of_csv):
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    table = pd.concat([runs_of_csv["demo"], runs_of_csv["afl_gce"]])
    table = table[table.dataset == "fashion_mini_lt100"]
    by_class = [f"test_raw_error_class{k}" for k in range(10)]
    lost = (table[by_class].max(axis=1) == 1).groupby(table.loss).sum()
    assert lost[lost > 0].to_dict() == {"afl_gce": 8, "brier": 9, "gce": 1}
    assert "9 of 10 runs of Brier, 8 of AFL + GCE, 1 of GCE" in page


def test_the_results_page_is_what_scipy_makes_of_the_csv_files(runs_of_csv):
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    demo = with_parts(runs_of_csv["demo"])
    tail = demo[demo.dataset == "fashion_mini_lt100"]
    ce = tail[tail.loss == "ce"]
    mixed = with_parts(runs_of_csv["regularizer"])
    mixed = mixed[mixed.dataset == "fashion_mini_lt100"]
    others = {"GCE": tail[tail.loss == "gce"]}
    others |= {f"λ = {w}": mixed[mixed.variant == f"lambda{w}"] for w in (0.9, 0.5)}
    for name, rows in others.items():
        cells = [paired(rows, ce, m) for m in ("test_raw_error", "scarce", "other")]
        assert f"{name} | {' | '.join(cells)} |" in page, name
    corrected = runs_of_csv["corrections"].fillna({"variant": ""})
    corrected = corrected.query("dataset == 'fashion_mini_lt100' and variant == ''")
    for loss in ("ce", "gce"):
        for kind in ("log_prior", "bias"):
            mean = corrected[corrected.loss == loss][f"test_{kind}_error"].mean()
            assert f"{100 * mean:.2f}" in page
    collapse = pd.read_csv(RESULTS / "collapse.csv").set_index("name")
    dress = collapse.loc["Dress"]
    assert (dress.predicted, dress.n_train, dress.error) == (0, 113, 1)
    assert f"largest probability {dress.largest_p:.2f}" in page
    assert f"probability is {dress.auroc_of_p:.3f}" in page
    assert f"(error on dresses {100 * dress.bias_error:.0f} %)" in page


def test_corrections_and_collapse_are_what_the_calibrators_of_today_make(runs_of_csv):
    """Only the collapsed run of the tables' runs comes along with its logits."""
    run = shipped.demo_runs() / "fashion_mini_lt100" / "convnet" / "gce" / "seed-03"
    bias = make_calibrator("bias").fit(*runs.load_logits(run, "val"))
    logits, labels = runs.load_logits(run, "test")
    wrong = bias(logits).argmax(1).numpy() != labels
    table = runs_of_csv["corrections"].fillna({"variant": ""})
    place = "dataset == 'fashion_mini_lt100' and loss == 'gce' and variant == ''"
    (row,) = table.query(f"{place} and seed == 3").to_dict("records")
    assert row["test_bias_error"] == wrong.mean()
    collapse = pd.read_csv(RESULTS / "collapse.csv")
    for k in range(10):
        assert collapse.bias_error[k] == pytest.approx(wrong[labels == k].mean())


def test_the_results_page_shows_every_loss():
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    summary = paper.summary(paper.committed_results())
    assert (summary.n == 10).all()
    for row in paper.to_markdown(summary.drop(columns=["model", "n"])).splitlines()[2:]:
        assert row in page
