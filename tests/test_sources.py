"""The sources themselves: linted, typed, and without the calls through which a
stranger's file could run code."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(
    p
    for folder in ("gcelib", "benchmarks", "data")
    for p in (ROOT / folder).rglob("*.py")
)
LESSONS = sorted(
    p for p in (ROOT / "notebooks").rglob("*.ipynb") if not p.name.startswith("out")
)


@pytest.mark.parametrize(
    "command",
    [
        "ruff check",
        "ruff format --check",
        # Half a minute without its cache; `make lint` has it, too.
        pytest.param("mypy", marks=pytest.mark.apart),
    ],
)
def test_linters_and_type_checker_have_nothing_to_say(command):
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def modules():
    """(name, syntax tree) of all library code and of all cells of the notebooks."""
    for path in CODE:
        yield path.name, ast.parse(path.read_text(encoding="utf-8"))
    for path in LESSONS:
        cells = [
            c["source"]
            for c in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if c["cell_type"] == "code"
        ]
        code = "\n".join(
            line
            for cell in cells
            for line in "".join(cell).splitlines()
            if line.lstrip()[:1] not in "%!"
        )
        yield path.name, ast.parse(code)


#: Calls that unpickle, load any YAML, or write where an archive says.
DANGEROUS = (
    r"read_pickle|cloudpickle\.loads?$|^yaml\.(unsafe_|full_)?load(_all)?$"
    r"|\.extractall$|\.unpack_archive$"
)


#: What may be there all the same, and why.
EXCEPTIONS = {
    ("published.py", "pickle"): "one published file is a pickle: its SHA-256 is checked"
    " first, and its unpickler builds nothing but numpy's arrays (test_published.py)",
}


def dangers(tree):
    """What could unpickle or execute the contents of a file."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [
                getattr(node, "module", None) or "",
                *(alias.name for alias in node.names),
            ]
            bad = {
                "pickle",
                "dill",
                "joblib",
                "shelve",
                "marshal",
                "pandas.io.pickle",
            } & {n.split(".")[0] for n in names}
            yield from bad
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called == "torch.load" and given.get("weights_only") != "True":
            yield "torch.load without weights_only=True"
        if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
            yield "np.load without allow_pickle=False"
        if re.search(DANGEROUS, called):
            yield called
        if called in ("eval", "exec", "os.system", "torch.hub.load", "torch.jit.load"):
            yield called


def test_nothing_unpickles_what_a_stranger_could_have_written():
    """Except torchvision's own reader of CIFAR, which checks every batch's MD5 first
    (test_data.py)."""
    found = [(name, danger) for name, tree in modules() for danger in dangers(tree)]
    assert {*found} == {*EXCEPTIONS}  # each exception is still needed, and no more
    assert len(list(modules())) > 20
    for bad in (
        "torch.load(f)",
        "np.load(f, 'r')",
        "import pickle",
        "from joblib import load",
        "yaml.load(f)",
    ):
        assert list(dangers(ast.parse(bad))), bad


def test_numbers_are_read_from_text_by_the_module_that_is_exact():
    for path in CODE:
        if path.name != "decimals.py":
            code = path.read_text(encoding="utf-8")
            assert re.search(r"pd\.(read_csv|read_table|to_numeric)\b", code) is None


def test_examples_listen_on_the_loopback_and_keep_their_tokens():
    """What the documents tell a reader to type; that the local Dask cluster does so is
    in test_sweeps.py."""
    pages = [
        ROOT / name
        for name in (
            "Makefile",
            "README.md",
            "CONTRIBUTING.md",
            "SECURITY.md",
            ".ci/run",
        )
    ]
    pages += [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "data").glob("*.md"),
        *CODE,
        *LESSONS,
    ]
    texts = {p.name: p.read_text(encoding="utf-8") for p in pages}
    open_door = (
        r"0\.0\.0\.0|--ip[ =](?!127\.0\.0\.1)|token *= *['\"]{2}|--\w+\.token"
        r"|--\w+\.password|disable_check_xsrf"
    )
    assert not {
        name: found.group()
        for name, text in texts.items()
        if (found := re.search(open_door, text))
    }
    started = [
        line
        for text in texts.values()
        for line in text.splitlines()
        if re.search(r"(jupyter|/jupyter) lab --ip", line)
    ]
    assert all("--ip=127.0.0.1" in line for line in started)
    assert started


def test_what_was_tested_together_is_pinned_exactly():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in lines)
    names = [re.sub("_", "-", line.split("==")[0]).lower() for line in lines]
    assert len({*names}) == len(names)
