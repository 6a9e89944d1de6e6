"""How Sphinx builds the site: ``build_site.py`` puts the pages together for it."""

import re
from typing import Any

project = "gcelib"
author = "the gcelib authors"
html_title = "gcelib"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
templates_path: list[str] = []
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
nb_execution_mode = "off"  # the outputs are the committed ones
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # the docstrings say types and shapes
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
suppress_warnings = ["mystnb.unknown_mime_type"]


def plain(line: str) -> str:
    """A docstring's line whose stars and bars mean themselves, code apart."""
    parts = re.split(r"(``[^`]*``|`[^`]*`)", line)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"(?<!\\)([|*])", r"\\\1", parts[i])
    return "".join(parts)


def mend(
    app: Any,  # noqa: ANN401
    what: str,
    name: str,
    thing: Any,  # noqa: ANN401
    options: Any,  # noqa: ANN401
    lines: list[str],
) -> None:
    """Let formulas in docstrings be no markup."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "..", ":")):
            lines[i] = plain(line)


def setup(app: Any) -> None:  # noqa: ANN401
    """Hook the above into autodoc."""
    app.connect("autodoc-process-docstring", mend, priority=400)
