"""Installation files agree, the core is light, the test command collects its own."""

import ast
import inspect
import json
import re
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
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def requirements():
    extras = PROJECT["optional-dependencies"].values()
    every = [
        Requirement(r)
        for r in [*PROJECT["dependencies"], *(r for extra in extras for r in extra)]
    ]
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
        assert (
            Version(pinned[canonicalize_name(requirement.name)])
            in requirement.specifier
        ), requirement


def test_what_was_pinned_is_a_pair_that_imports_together():
    torch = Version(pins()["torch"])
    torchvision = Version(pins()["torchvision"])
    # torchvision 0.N goes with torch 2.(N - 15)
    assert (torch.major, torchvision.major, torchvision.minor - torch.minor) == (
        2,
        0,
        15,
    )
    import torchvision

    assert torchvision.ops.nms is not None


ABSENT = [
    *("anywidget", "dask", "distributed", "filelock", "IPython", "ipywidgets"),
    *("matplotlib", "pandas", "papermill", "platformdirs", "scipy", "seaborn"),
    *("sklearn", "torchvision", "traitlets", "yaml"),
]
BARE = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT!r}))
import gcelib
there = {{name for name in dir(gcelib) if hasattr(gcelib, name)}}
from gcelib import *
assert there == set(gcelib.__all__)
assert "ReliabilityExplorer" not in globals()
assert getattr(gcelib, "ReliabilityExplorer", None) is None
try:
    from gcelib import ReliabilityExplorer
except ModuleNotFoundError as error:
    print(error)
try:
    gcelib.ReliabilityExplorer
except AttributeError as error:
    print(error)
print(*sorted(there))
"""


def test_with_torch_and_numpy_alone_the_core_works_and_the_rest_is_absent():
    done = subprocess.run(
        [sys.executable, "-c", BARE],
        check=True,
        cwd=ROOT,
        timeout=300,
        capture_output=True,
        text=True,
    )
    imported, asked, there = done.stdout.splitlines()
    for sentence in (imported, asked):
        assert re.match(r"gcelib\.Reli\w+ needs \w+, .*pip install", sentence)
    core = ("losses", "metrics", "calibration")
    names = {n for n, home in gcelib._HOME.items() if home in core}
    assert names | {*core} <= set(there.split())


def test_every_public_name_is_there():
    for name in gcelib.__all__:
        assert getattr(gcelib, name) is not None
    assert gcelib.__all__ == dir(gcelib)
    with pytest.raises(AttributeError, match="GCELos"):
        _ = gcelib.GCELos
    assert gcelib.__version__ == PROJECT["version"]
    parameters = inspect.signature(gcelib.ece).parameters
    assert [*parameters][:3] == ["logits", "labels", "n_bins"]


def test_type_checkers_read_the_names_that_are_loaded_when_used():
    tree = ast.parse((ROOT / "gcelib" / "__init__.py").read_text(encoding="utf-8"))
    [block] = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    read = {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                read[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        else:  # a module with another short name
            read[node.targets[0].id] = read.pop(node.value.id)
    loaded = {name: f"gcelib.{path}" for name, path in gcelib._MODULES.items()}
    loaded |= {name: f"gcelib.{path}.{name}" for name, path in gcelib._HOME.items()}
    assert read == loaded


def imported_modules(path):
    """Full names of the gcelib modules that the file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "gcelib"
        ):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_core_knows_nothing_of_study_and_study_nothing_of_view():
    above = {
        "core": ("gcelib.study", "gcelib.view"),
        "study": ("gcelib.view",),
        "view": (),
    }
    for path in (ROOT / "gcelib").rglob("*.py"):
        part = path.relative_to(ROOT / "gcelib").parts[0]
        if path.parent == ROOT / "gcelib" or part in ("_check", "advice"):
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


def test_binder_and_codespaces_install_what_is_there_and_open_lesson_00():
    binder = ROOT / ".binder"
    python = (binder / "runtime.txt").read_text(encoding="utf-8").strip()
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    version = Version(python.removeprefix("python-"))
    assert version in Requirement(f"x{project['requires-python']}").specifier
    lines = (binder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (constraints,) = [line.split()[1] for line in lines if line.startswith("-c ")]
    assert (binder / constraints).resolve() == ROOT / "constraints.txt"
    (extra,) = re.findall(r"^-e \.\[(\w+)\]$", "\n".join(lines), re.MULTILINE)
    assert extra in project["optional-dependencies"]
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    container = json.loads(text)
    assert container["image"].endswith(f":{version}")
    (requirements,) = re.findall(r"-r (\S+)", container["postCreateCommand"])
    assert (ROOT / requirements) == binder / "requirements.txt"
    for opened in container["customizations"]["codespaces"]["openFiles"]:
        assert (ROOT / opened).is_file()
