"""Build the site into ``build/site``: ``make site``. No network, no notebook is run.

Pages are copied to ``build/site-source`` in the checkout's own layout, so that their
links to each other hold; a link to a file that is no page becomes plain text.
"""

import importlib
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "site-source"
TARGET = ROOT / "build" / "site"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:)([^)\s]+)\)")
#: Python's parts, in the order in which they are read.
PACKAGES = {"gcelib": "The core", "gcelib.study": "Study", "gcelib.view": "View"}


def pages() -> dict[Path, Path]:
    """Each page's place in the checkout, by its place in the site."""
    found = [*ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    found += ROOT.glob("notebooks/solutions/*.ipynb")
    staged = {path.relative_to(ROOT): path for path in sorted(found)}
    staged = {to: path for to, path in staged.items() if not to.name.startswith("out")}
    staged[Path("index.md")] = staged.pop(Path("docs/index.md"))
    return staged


def with_links(text: str, place: Path, known: set[Path]) -> str:
    """Markdown whose links lead to pages of the site."""

    def mend(match: re.Match[str]) -> str:
        image, words, target = match.groups()
        name = target.partition("#")[0]  # anchors are spelt otherwise here
        if not name:
            return words
        absolute = (ROOT / place.parent / name).resolve()
        inside = absolute.is_relative_to(ROOT)
        to = absolute.relative_to(ROOT) if inside else Path("?")
        if to in known and not image:
            return f"[{words}]({name})"
        return words if not image or not absolute.is_file() else match.group(0)

    return LINK.sub(mend, text)


def stage() -> None:
    """Copy pages, with the links that hold."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    known = set(pages())
    for place, path in pages().items():
        to = SOURCE / place
        to.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            origin = path.relative_to(ROOT)
            to.write_text(with_links(text, origin, known), encoding="utf-8")
            continue
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = with_links("".join(cell["source"]), place, known)
        to.write_text(json.dumps(notebook), encoding="utf-8")
    for name in ("conf.py", "_static"):
        copy = shutil.copytree if (ROOT / "docs" / name).is_dir() else shutil.copy
        copy(ROOT / "docs" / name, SOURCE / name)
    solutions = sorted((SOURCE / "notebooks" / "solutions").glob("*.ipynb"))
    names = "\n".join(f"solutions/{path.stem}" for path in solutions)
    page = f"# Solutions\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    (SOURCE / "notebooks" / "solutions.md").write_text(page, encoding="utf-8")


def reference() -> None:
    """A page for each public module, from its docstrings."""
    folder = SOURCE / "api"
    folder.mkdir()
    for package in PACKAGES:
        module = importlib.import_module(package)
        for info in pkgutil.iter_modules(module.__path__):
            if info.name.startswith("_"):
                continue
            name = f"{package}.{info.name}"
            lines = [f"# {name}", "", "```{eval-rst}", f".. automodule:: {name}"]
            lines += ["   :members:", "   :ignore-module-all:", "```", ""]
            (folder / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")


def start_page() -> None:
    """The diagram of the start page: two committed runs."""
    from gcelib.view.explorers import ReliabilityExplorer

    demo = ROOT / "data" / "demo"
    runs = {
        path.parts[-2]: path for path in sorted(demo.glob("fashion_mini/*/*/seed-01"))
    }
    shown = {name: runs[name] for name in ("ce", "gce")}
    data, _ = ReliabilityExplorer(shown)._repr_mimebundle_()
    (SOURCE / "start.html").write_text(data["text/html"], encoding="utf-8")


def main() -> int:
    """Stage, then build; a warning is an error."""
    stage()
    reference()
    start_page()
    shutil.rmtree(TARGET, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    command += ["-d", str(ROOT / "build" / "doctrees"), str(SOURCE), str(TARGET)]
    return subprocess.run(command, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
