"""The README's Python runs as printed, and its links lead somewhere."""

import re
from pathlib import Path

import pandas as pd
import pytest
import scipy.stats
import torch

from gcelib import paper

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
    names = ("demo", "demo_lt10", "regularizer", "corrections")
    return {name: pd.read_csv(RESULTS / f"{name}.csv") for name in names}


def paired(first, second, metric):
    """Difference by seed in points, and its interval by scipy, as the README prints."""
    one, other = (
        table.sort_values("seed")[metric].to_numpy() for table in (first, second)
    )
    assert len(one) == len(other) == 10
    test = scipy.stats.ttest_rel(100 * one, 100 * other)
    low, high = test.confidence_interval(0.95)
    return f"{100 * (one - other).mean():+.2f} [{low:+.2f}, {high:+.2f}]"


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
    assert sum(float(span[-1][1]) < 0 for span in spans) == 3  # sentence 3


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
    assert f"(error {100 * dress.bias_error:.0f} %)" in page
    assert f"({100 * collapse.bias_error['Shirt']:.0f} %)" in page


def test_the_results_page_shows_every_loss():
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    summary = paper.summary(paper.committed_results())
    assert (summary.n == 10).all()
    for row in paper.to_markdown(summary.drop(columns=["model", "n"])).splitlines()[2:]:
        assert row in page
