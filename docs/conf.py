"""How Sphinx builds the site: ``build_site.py`` puts the pages together for it."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes

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
html_show_copyright = False
html_math_renderer = "mathml"
nb_execution_mode = "off"  # the outputs are the committed ones
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # the docstrings say types and shapes
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
suppress_warnings = [
    "mystnb.unknown_mime_type",
    "ref.python",  # a word in a docstring's types that two classes have as an attribute
]


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


def join_type(
    app: Any,  # noqa: ANN401
    what: str,
    name: str,
    thing: Any,  # noqa: ANN401
    options: Any,  # noqa: ANN401
    lines: list[str],
) -> None:
    """Undo that napoleon takes what precedes a colon for the type of a constant."""
    kinds = [line for line in lines if line.startswith(":type: ")]
    if what in ("data", "attribute") and kinds:
        lines.remove(kinds[0])
        lines[0] = f"{kinds[0].removeprefix(':type: ')}: {lines[0]}"


def leave_fields_out(
    app: Any,  # noqa: ANN401
    what: str,
    name: str,
    thing: Any,  # noqa: ANN401
    skip: bool,
    options: Any,  # noqa: ANN401
) -> bool | None:
    """Leave out the fields of named tuples, which the signature shows already."""
    is_field = str(getattr(thing, "__doc__", "")).startswith("Alias for field number")
    return True if is_field else None


def leave_long_values_out(
    app: Any,  # noqa: ANN401
    domain: str,
    kind: str,
    content: Any,  # noqa: ANN401
) -> None:
    """Show no value that would fill a page, such as a registry's rows."""
    for part in [*content.parent.findall(addnodes.desc_annotation)]:
        text = part.astext()
        if text.startswith(" = ") and len(text) > 60:
            part.parent.remove(part)


#: A letter or word with an index. Without a mathematical font on the reader's machine
#: the index would stand on the line: a base as deep as p and q lowers it.
LETTER = r"<mi[^>]*>[^<]*</mi>"
WORD = rf"<mrow>(?:{LETTER})+</mrow>|<mtext>[^<]*</mtext>|<mo>[A-Za-z]+</mo>"
BASE = re.compile(rf"(<msub(?:sup)?>)({LETTER}|{WORD})")


def mathml(text: str, display: str) -> str:
    """A formula as browsers draw it by themselves, without a script or a network."""
    text = text.replace(r"\arg\min", r"\text{arg min}")  # one upright word
    markup: str = convert(text, display=display)
    if "\\" in re.sub("<[^>]*>", "", markup):
        raise ValueError(f"{text!r} holds a command that latex2mathml does not know")
    return BASE.sub(r'\1<mpadded depth="0.22em">\2</mpadded>', markup)


def inline_formula(writer: Any, node: nodes.math) -> None:  # noqa: ANN401
    """Write a formula in a line."""
    writer.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block_formula(writer: Any, node: nodes.math_block) -> None:  # noqa: ANN401
    """Write a formula of its own; wide ones scroll."""
    markup = mathml(node.astext(), "block")
    writer.body.append(f'<div class="formula">{markup}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:  # noqa: ANN401
    """Hook the above into Sphinx."""
    app.connect("autodoc-process-docstring", mend, priority=400)
    app.connect("autodoc-process-docstring", join_type, priority=600)
    app.connect("autodoc-skip-member", leave_fields_out)
    app.connect("object-description-transform", leave_long_values_out)
    renderers = (inline_formula, None), (block_formula, None)
    app.add_html_math_renderer("mathml", *renderers)
