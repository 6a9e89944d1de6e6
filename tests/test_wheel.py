"""The wheel works away from the checkout: README's snippets, an explorer, a run."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

pytestmark = pytest.mark.apart

ROOT = Path(__file__).resolve().parents[1]

CLIENT = """
import pathlib, re, sys
import gcelib, torch
root, readme = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
assert root in pathlib.Path(gcelib.__file__).parents, gcelib.__file__
torch.manual_seed(0)
for block in re.findall(r"```python\\n(.*?)```", readme.read_text("utf-8"), re.S):
    exec(compile(block, "README.md", "exec"), {})

config = gcelib.TrainConfig(dataset="digits", model="mlp", loss="gce", epochs=1)
records = list(gcelib.fit(config))
assert len(records) == 1
assert not root in config.run_dir.parents, config.run_dir
logits, labels = gcelib.load_logits(config.run_dir, "test")
assert 0 <= gcelib.ece(logits, labels) <= 1
gcelib.ReliabilityExplorer({"gce": (logits, labels)}).save("explorer.html")
assert b"<html" in pathlib.Path("explorer.html").read_bytes()[:2000]

public = {}
exec("from gcelib import *", public)
assert {"paper", "sweeps", "plots", "fit", "ece"} <= set(public)
for read in (gcelib.paper.published, lambda: gcelib.paper.CLAIMS):
    try:
        read()
    except FileNotFoundError as refusal:
        assert "work in a checkout" in str(refusal)
    else:
        raise AssertionError("the paper's numbers are in the wheel after all")
print("run in", config.run_dir)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder]
    if importlib.util.find_spec("setuptools"):  # else pip fetches it from the net
        command.append("--no-build-isolation")
    subprocess.run([*command, ROOT], check=True, timeout=300)
    (path,) = folder.glob("gcelib-*.whl")
    return path


def test_it_says_who_made_it_and_where_to_look(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = [n for n in file.namelist() if n.endswith("dist-info/METADATA")]
        metadata = HeaderParser().parsestr(file.read(name).decode())
        names = file.namelist()
    assert metadata["Author"] or metadata["Author-email"]
    assert {"calibration", "classification"} <= set(metadata["Keywords"].split(","))
    assert any("arxiv.org" in url for url in metadata.get_all("Project-URL"))
    classifiers = metadata.get_all("Classifier")
    for version in ("3.11", "3.12", "3.13", "3.14"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    links = re.findall(r"\]\(([^)#]+)", metadata.get_payload())
    assert links
    assert all(link.startswith("https://") for link in links), links
    assert any(name.endswith("py.typed") for name in names)
    assert any("view/static/" in name for name in names)
    assert not any(name.startswith(("tests/", "notebooks/")) for name in names)


def test_away_from_the_checkout_snippets_a_run_and_an_explorer_work(wheel, tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
    subprocess.run([*command, site, wheel], check=True, timeout=300)
    variables = {k: v for k, v in os.environ.items() if not k.startswith("GCELIB_")}
    variables |= {"PYTHONPATH": str(site), "HOME": str(tmp_path / "home")}
    variables |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, site, ROOT / "README.md"],
        cwd=work,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(tmp_path / "cache") in done.stdout


def test_the_python_versions_agree_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.15"
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "(3, 11) <= v < (3, 15)" in makefile
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "Python 3.11 to 3.14" in readme
