"""Put today's script and style into the explorers of the committed notebooks.

``python docs/refresh_explorers.py`` after a change in ``gcelib/view/static``: the
numbers stay as they were computed, so no notebook has to run.
"""

import json
import re
from pathlib import Path

from gcelib.view import bundle

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
#: A piece of ``bundle.fragment``: before the content, content, between, script, end.
PIECE = re.compile(
    r'(<div class="gcelib-explorer" data-key="[^"]*">.*?'
    r'<script type="application/json">)(.*?)(</script><script type="module">)'
    r"(.*?)(</script></div>)",
    re.DOTALL,
)


def refreshed(markup: str) -> str:
    """The same explorer with today's script and style."""

    def mend(match: re.Match[str]) -> str:
        before, text, between, _, end = match.groups()
        content = json.loads(text)
        content["css"] = (bundle.STATIC / "explorer.css").read_text(encoding="utf-8")
        text = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
        key = json.dumps(content["key"])
        script = f"{bundle.script('explorer')}\nshow({key});"
        return f"{before}{text}{between}{script}{end}"

    return PIECE.sub(mend, markup)


def main() -> None:
    """Mend every notebook that shows an explorer."""
    for path in sorted(NOTEBOOKS.rglob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        if 'class=\\"gcelib-explorer' not in text:
            continue
        notebook = json.loads(text)
        outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
        for output in outputs:
            markup = "".join(output.get("data", {}).get("text/html", ""))
            if "gcelib-explorer" in markup:
                lines = refreshed(markup).splitlines(keepends=True)
                output["data"]["text/html"] = lines
        mended = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(mended, encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
