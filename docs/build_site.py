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
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "site-source"
TARGET = ROOT / "build" / "site"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:)([^)\s]+)\)")


def pages() -> dict[Path, Path]:
    """Each page's place in the checkout, by its place in the site."""
    found = [*ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    found.remove(ROOT / "docs" / "package.md")  # the wheel's own start page
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


def how_to_run(place: Path, page: str) -> dict[str, object]:
    """The line below a lesson's header: how to run it, with a link if one is known."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        urls = tomllib.load(file)["project"]["urls"]
    words = (
        f"This page shows a run. To run and change it yourself: [one click]({page})."
    )
    repository = re.fullmatch(
        r"https://github.com/([^/]+/[^/]+)/?", urls.get("Source", "")
    )
    if repository:
        address = f"https://mybinder.org/v2/gh/{repository[1]}/HEAD?urlpath=lab/tree/"
        words = f"This page shows a run. [Run it yourself]({address}{place.as_posix()})"
        words += f", on Binder, or [elsewhere]({page})."
    cell = {"cell_type": "markdown", "metadata": {}, "source": words}
    return cell | {"id": "how-to-run"}


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
        place_of_page = "../" * len(place.parent.parts) + "docs/one_click.md"
        notebook["cells"].insert(1, how_to_run(place, place_of_page))
        to.write_text(json.dumps(notebook), encoding="utf-8")
    for name in ("conf.py", "_static"):
        copy = shutil.copytree if (ROOT / "docs" / name).is_dir() else shutil.copy
        copy(ROOT / "docs" / name, SOURCE / name)
    solutions = sorted((SOURCE / "notebooks" / "solutions").glob("*.ipynb"))
    names = "\n".join(f"solutions/{path.stem}" for path in solutions)
    page = f"# Solutions\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    (SOURCE / "notebooks" / "solutions.md").write_text(page, encoding="utf-8")


#: The parts of the package, as the reference shows them, by the beginning of a name.
PARTS = {
    "gcelib.study.": "Running experiments: data, training, sweeps, the paper's claims",
    "gcelib.view.": "Figures and explorers",
    "gcelib.": "Losses, metrics and calibrators",
}


def reference() -> None:
    """A page for each public module that has something to say, from its docstrings."""
    folder = SOURCE / "api"
    folder.mkdir()
    parts: dict[str, list[str]] = {title: [] for title in reversed(PARTS.values())}
    package = importlib.import_module("gcelib")
    for info in pkgutil.walk_packages(package.__path__, "gcelib."):
        private = any(part.startswith("_") for part in info.name.split("."))
        if private or not has_members(info.name):
            continue
        lines = [f"# {info.name}", "", "```{eval-rst}", f".. automodule:: {info.name}"]
        lines += ["   :members:", "   :ignore-module-all:", "```", ""]
        (folder / f"{info.name}.md").write_text("\n".join(lines), encoding="utf-8")
        title = next(PARTS[begin] for begin in PARTS if info.name.startswith(begin))
        parts[title].append(f"api/{info.name}")
    page = "# Reference\n"
    for title, names in parts.items():
        listed = "\n".join(names)
        page += f"\n## {title}\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    (SOURCE / "reference.md").write_text(page, encoding="utf-8")


def has_members(name: str) -> bool:
    """Whether the module ``name`` defines something for users, with sections."""
    members = vars(importlib.import_module(name)).items()
    return any(
        getattr(member, "__module__", None) == name
        and "\n    ----" in (getattr(member, "__doc__", None) or "")
        for title, member in members
        if not title.startswith("_")
    )


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
