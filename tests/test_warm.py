"""Processes forked from a warm one: fresh each time, alone, gone with their caller."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from gcelib.study import warm

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere nothing is forked"
)

PATIENCE = 300

# What a run may do to its process, in one call ...
SPOIL = """
import os, random, sys, warnings
import numpy, torch
print("printed by a run")
os.chdir("/")
os.environ["LEFT_BEHIND"] = "1"
sys.path.insert(0, "/nowhere")
random.seed(1); numpy.random.seed(1); torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(3)
torch.use_deterministic_algorithms(True)
torch.set_grad_enabled(False)
torch.nn.Linear = None
warnings.simplefilter("error")
import builtins
builtins.leftover = 1
import matplotlib
matplotlib.rcParams["lines.linewidth"] = 99
raise ValueError("failed on purpose")
"""

# ... and what the next one finds.
LOOK = """
import builtins, os, random, sys, warnings
import matplotlib, numpy, torch
found = [
    os.getcwd(), os.environ.get("LEFT_BEHIND"), "/nowhere" in sys.path,
    int(numpy.random.get_state()[1][0]) == 1, torch.initial_seed() == 1,
    str(torch.get_default_dtype()), torch.get_num_threads(),
    torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(),
    torch.nn.Linear is None, len(warnings.filters), hasattr(builtins, "leftover"),
    matplotlib.rcParams["lines.linewidth"],
]
"""


def call(code):
    """Run ``code``; runs in the forked process."""
    names = {}
    exec(code, names)
    return names.get("found")


def die(number):
    """End this process by a signal, after words that only the system hears."""
    os.write(2, b"last words")
    os.kill(os.getpid(), number)


def sleep(path):
    """Tell that this process is there, and stay."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(PATIENCE)


@pytest.fixture(scope="module")
def workers():
    modules = ["numpy", "torch", "matplotlib", "not.there"]
    with warm.Workers([{}, {"COLOUR": "red"}], 1, modules) as workers:
        yield workers


def run(workers, function, *arguments):
    workers.start("call", f"{__name__}:{function}", *arguments)
    return workers.wait(PATIENCE)


def test_a_call_leaves_nothing_behind(workers):
    before = run(workers, "call", LOOK).value
    spoilt = run(workers, "call", SPOIL)
    assert spoilt.error == "failed on purpose"
    assert run(workers, "call", LOOK).value == before


def test_no_two_calls_draw_the_same(workers):
    code = "import random, numpy, torch\n"
    code += "found = [random.random(), numpy.random.random(), float(torch.rand(1))]"
    drawn = zip(*(run(workers, "call", code).value for _ in range(3)), strict=True)
    assert [len({*numbers}) for numbers in drawn] == [3, 3, 3]


def test_a_call_finds_imported_what_was_to_be(workers):
    code = "import sys; found = [m in sys.modules for m in ('torch', 'papermill')]"
    assert run(workers, "call", code).value == [True, False]


def test_each_worker_has_its_environment_and_its_threads(workers):
    code = (
        "import os; found = [os.environ.get(n) for n in ('COLOUR', 'OMP_NUM_THREADS')]"
    )
    names = ("first", "second")
    for name in names:
        workers.start(name, f"{__name__}:call", code)
    assert workers.idle == 0
    with pytest.raises(RuntimeError, match="none is idle"):
        workers.start("third", f"{__name__}:call", code)
    replies = [workers.wait(PATIENCE) for _ in names]
    found = sorted((reply.value for reply in replies), key=str)
    assert found == [["red", "1"], [None, "1"]]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_call_is_told_and_replaced(workers, number):
    reply = run(workers, "die", int(number))
    assert f"killed by signal {int(number)} ({number.name})" in reply.error
    assert "last words" in reply.error
    assert run(workers, "call", "found = 1").value == 1


def test_a_killed_nursery_is_told_and_replaced(workers, tmp_path):
    for name in ("a", "b"):
        workers.start(name, f"{__name__}:sleep", str(tmp_path / name))
    limit = time.monotonic() + PATIENCE
    while not all((tmp_path / name).exists() for name in ("a", "b")):
        assert time.monotonic() < limit
        time.sleep(0.02)
    first = psutil.Process(int((tmp_path / "a").read_text()))
    nursery = first.parent()
    children = nursery.children()
    nursery.kill()
    replies = [workers.wait(PATIENCE) for _ in range(2)]
    assert {reply.name for reply in replies} == {"a", "b"}
    assert all("was killed" in reply.error for reply in replies)
    _, alive = psutil.wait_procs(children, PATIENCE)
    assert not alive
    assert run(workers, "call", "found = 1").value == 1


def test_nothing_is_left_of_workers_that_were_closed(tmp_path):
    path = tmp_path / "pid"
    with warm.Workers([{}], preload=[]) as workers:
        workers.start("stays", f"{__name__}:sleep", str(path))
        limit = time.monotonic() + PATIENCE
        while not (path.exists() and path.read_text()):
            assert time.monotonic() < limit
            time.sleep(0.02)
        process = psutil.Process(int(path.read_text()))
        family = [process, process.parent()]
        assert workers.wait(0.01) is None
    _, alive = psutil.wait_procs(family, PATIENCE)
    assert not alive


def test_an_optional_module_can_be_hidden_for_a_while():
    with warm.hidden("antigravity"), pytest.raises(ImportError):
        import antigravity  # noqa: F401
    assert "antigravity" not in sys.modules
    with warm.hidden("json"):
        import json  # noqa: F401
