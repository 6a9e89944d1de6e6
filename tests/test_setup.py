"""Installation files agree with one another, the core is light, and the test command collects what it should."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import gcelib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def requirements():
    extras = PROJECT["optional-dependencies"].values()
    every = [Requirement(r) for r in [*PROJECT["dependencies"], *(r for extra in extras for r in extra)]]
    return [r for r in every if r.name != "gcelib"]


def test_conda_gives_python_and_pip_and_pip_gives_the_rest():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert environment["name"] == PROJECT["name"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[all]"]}
    assert "all" in PROJECT["optional-dependencies"]


def test_every_requirement_is_pinned_at_a_version_it_allows():
    pinned = pins()
    for requirement in requirements():
        assert Version(pinned[canonicalize_name(requirement.name)]) in requirement.specifier, requirement


def test_what_was_pinned_is_a_pair_that_imports_together():
    torch, torchvision = Version(pins()["torch"]), Version(pins()["torchvision"])
    # torchvision 0.N goes with torch 2.(N - 15)
    assert (torch.major, torchvision.major, torchvision.minor - torch.minor) == (2, 0, 15)
    import torchvision

    assert torchvision.ops.nms is not None


def test_the_core_needs_only_torch_and_numpy():
    absent = "torchvision pandas scipy sklearn matplotlib filelock dask papermill IPython ipywidgets anywidget seaborn"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys('{absent}'.split())); "
        "import gcelib.losses, gcelib.metrics, gcelib.calibration; "
        "from gcelib import GCELoss, ece, AdaptiveTemperatureScaling"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=300)


def test_every_public_name_is_there():
    for name in gcelib.__all__:
        assert getattr(gcelib, name) is not None
    with pytest.raises(AttributeError, match="GCELos"):
        _ = gcelib.GCELos
    assert gcelib.__version__ == PROJECT["version"]


def imported_modules(path):
    """Full names of the gcelib modules that the file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gcelib"):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_core_knows_nothing_of_study_and_study_nothing_of_view():
    above = {"core": ("gcelib.study", "gcelib.view"), "study": ("gcelib.view",), "view": ()}
    for path in (ROOT / "gcelib").rglob("*.py"):
        part = path.relative_to(ROOT / "gcelib").parts[0]
        if path.parent == ROOT / "gcelib":
            part = "core"
        if path.name == "__init__.py" and part == "core":
            continue
        for name in imported_modules(path):
            assert not name.startswith(above[part] or "-"), (path, name)


def test_the_test_command_takes_lessons_and_solutions_and_nothing_else():
    from conftest import pytest_ignore_collect

    def taken(path):
        return not pytest_ignore_collect(ROOT / "notebooks" / path, None)

    assert taken("03_train.ipynb")
    assert taken("solutions/03_train.ipynb")
    assert not taken("out.ipynb")
    assert not taken("out_ce.ipynb")
    assert not taken("Untitled.ipynb")


def test_runs_of_the_tests_never_meet_the_users():
    from gcelib import runs

    assert runs.default_runs_dir() != ROOT / "runs"
