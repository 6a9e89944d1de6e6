"""The README's Python runs as printed, and its links lead somewhere."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from gcelib import paper

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=[b.strip().splitlines()[1] for b in BLOCKS])
def test_code_blocks_run(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    if "calibrator" in names:
        before, after = re.search(r"ECE ([\d.]+) -> ([\d.]+)", capsys.readouterr().out).groups()
        assert float(after) < float(before)
        assert (tmp_path / "ats.pt").exists()


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "data/README.md",
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


def test_results_are_those_of_the_committed_runs():
    tables = [pd.read_csv(ROOT / "data" / "results" / f"{grid}.csv") for grid in ("demo", "demo_lt10")]
    summary = paper.summary(pd.concat(tables))
    assert (summary.n == 10).all()
    for row in paper.to_markdown(summary.drop(columns=["model", "n"])).splitlines()[2:]:
        assert row in README


def test_speed_is_that_of_the_benchmarks():
    def numbers(file, first):
        text = (ROOT / "benchmarks" / "results" / file).read_text(encoding="utf-8")
        return [[cell.strip(" *") for cell in line.split("|")[2:-1]] for line in text.splitlines() if first in line]

    measured = [row[:4] for row in numbers("metrics.md", "best peer / gcelib")]
    measured += numbers("losses.md", "`gce`") + numbers("calibration.md", "best peer / gcelib")
    measured += numbers("calibration.md", "| *ratio*")
    assert len(measured) == 6
    for row in measured:
        assert f" | {' | '.join(row)} |" in README
