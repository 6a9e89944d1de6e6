"""Test set-up shared by tests, examples in docstrings and notebooks."""

import copy
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
LESSON = re.compile(r"\d\d_\w+\.ipynb")


def pytest_configure(config):
    option = config.option
    if getattr(option, "nbval", False) or getattr(option, "nbval_lax", False):
        sanitize = str(ROOT / "tests" / "nbval_sanitize.cfg")
        option.nbval_sanitize_with = option.nbval_sanitize_with or sanitize
        _leave_pictures_out()
    is_worker = hasattr(config, "workerinput")  # of pytest -n
    if is_worker:
        os.environ["OMP_NUM_THREADS"] = "1"  # workers share the cores
    # Runs made by tests and tested notebooks go to a folder of their own, never to
    # the user's runs/, nor to another worker's.
    if is_worker or "GCELIB_TEST_RUNS" not in os.environ:
        config._gcelib_runs = tempfile.TemporaryDirectory(
            prefix="gcelib-test-", ignore_cleanup_errors=True
        )
        os.environ["GCELIB_TEST_RUNS"] = config._gcelib_runs.name
        os.environ["GCELIB_RUNS_DIR"] = config._gcelib_runs.name
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    sys.path.insert(0, str(ROOT / "tests"))
    from forked import fork_kernels

    fork_kernels()


@pytest.fixture(autouse=True)
def _no_figure_outlives_its_test():
    """Close what is left open: examples in docstrings draw, too."""
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")


def _leave_pictures_out():
    """Let nbval compare neither a picture nor the HTML that shows the same picture.

    nbval leaves image/png out by itself; fonts and versions draw it otherwise.
    """
    from nbval.plugin import IPyNbCell

    compare = IPyNbCell.compare_outputs

    def without_pictures(outputs):
        kept = copy.deepcopy(outputs)
        for output in kept:
            if "image/png" in output.get("data", {}):
                output["data"].pop("text/html", None)
        return kept

    def compare_outputs(self, test, ref, skip_compare=None):
        return compare(
            self, without_pictures(test), without_pictures(ref), skip_compare
        )

    IPyNbCell.compare_outputs = compare_outputs


def pytest_unconfigure(config):
    if hasattr(config, "_gcelib_runs"):
        os.environ.pop("GCELIB_TEST_RUNS", None)
        config._gcelib_runs.cleanup()


def pytest_ignore_collect(collection_path, config):
    """Of the notebooks, the lessons and their solutions are tests.

    Not so the out.ipynb that a run leaves beside them.
    """
    if collection_path.suffix == ".ipynb":
        a_lesson = LESSON.fullmatch(collection_path.name)
        return not (a_lesson or collection_path.parent.name == "solutions")
    return None


@pytest.fixture(autouse=True)
def _an_example_starts_clean(request):
    """An example in a docstring runs in a folder of its own, from a known seed."""
    if isinstance(request.node, pytest.DoctestItem):
        folder = request.getfixturevalue("tmp_path")
        request.getfixturevalue("monkeypatch").chdir(folder)
        import torch

        torch.manual_seed(0)
