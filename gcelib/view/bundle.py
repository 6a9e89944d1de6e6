"""One piece of HTML that holds a picture and, where scripts run, the living explorer.

The JavaScript modules in ``static/`` import each other by name, as an editor and a
browser understand it; here they become one script, so that a notebook's output, a saved
file and a page of the site need nothing else and no network.
"""

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gcelib.study import files
from gcelib.view import alt

STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
_COMMENT = re.compile(r"^ */\*\*(?:(?!\*/)[\s\S])*\*/\n|^ *// .*\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=const|let|class|function|async )", re.MULTILINE)


def script(entry: str) -> str:
    """The module ``entry`` and all that it imports, as one module.

    Parameters
    ----------
    entry : str
        Name of a file in ``static/`` without ``.js``. Names at the top of its modules
        must differ from each other's, and imports must be of names alone.

    Returns
    -------
    str
        JavaScript without imports and comments.

    Examples
    --------
    >>> "import" in script("risks")
    False
    """
    parts: dict[str, str] = {}

    def add(name: str) -> None:
        """Append the module ``name`` after those that it needs."""
        if name in parts:
            return
        parts[name] = ""  # entered: a circle of imports ends here
        source = (STATIC / f"{name}.js").read_text(encoding="utf-8")
        for needed in _IMPORT.findall(source):
            add(needed)
        del parts[name]
        bare = _COMMENT.sub("", _IMPORT.sub("", source))
        parts[name] = _EXPORT.sub("", bare)

    add(entry)
    return "\n".join(parts.values())


def packed(values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
    """An array's bytes as base64.

    Parameters
    ----------
    values : array-like of numbers
        Of any shape; the bytes are in the order of its rows.
    dtype : dtype
        Of the bytes: little-endian ("<f4"), as typed arrays in a browser are.

    Returns
    -------
    str
        Base64.

    Examples
    --------
    >>> packed([1], "<i4")
    'AQAAAA=='
    """
    flat = np.ascontiguousarray(values, dtype=dtype)
    return base64.b64encode(flat.tobytes()).decode()


def numbers(values: npt.ArrayLike) -> Any:  # noqa: ANN401 - JSON
    """Numbers for JSON: short arrays as they are, long ones as bytes.

    Parameters
    ----------
    values : array-like of numbers
        Of any shape.

    Returns
    -------
    list or dict
        Nested lists up to 64 numbers; else ``f64``, their bytes as float64, and their
        ``shape``.

    Examples
    --------
    >>> numbers([0.5, 1.0])
    [0.5, 1.0]
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size <= 64:
        return array.tolist()
    return {"f64": packed(array, "<f8"), "shape": list(array.shape)}


def fragment(
    content: Mapping[str, object], png: bytes, description: str, script_text: str
) -> str:
    """HTML for a notebook's output or a page.

    Parameters
    ----------
    content : mapping
        What the script reads: ``kind``, ``key``, ``settings``, ``setup``, ...
    png : bytes
        The picture for where no script runs.
    description : str
        Its alternative text.
    script_text : str
        ``script("explorer")``.

    Returns
    -------
    str
        One ``<div>``.

    Examples
    --------
    >>> html = fragment({"key": "k"}, b"", "A picture.", "")
    >>> html.startswith('<div class="gcelib-explorer" data-key="k"><img alt=')
    True
    """
    styles = (STATIC / "explorer.css").read_text(encoding="utf-8")
    text = json.dumps({**content, "css": styles}, allow_nan=False)
    text = text.replace("<", "\\u003c")  # no "</script>" inside
    picture = alt.image(base64.b64encode(png).decode(), description)
    key = json.dumps(content["key"])
    return (
        f'<div class="gcelib-explorer" data-key={key}>{picture}'
        f'<script type="application/json">{text}</script>'
        f'<script type="module">{script_text}\nshow({key});</script></div>'
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 12px auto; max-width: 1400px; padding: 0 12px;
  font: 14px/1.5 system-ui, sans-serif;
  --gcelib-ink: light-dark(#1f1f1f, #e8e8e8);
  --gcelib-soft-ink: light-dark(#595959, #b0b0b0);
  --gcelib-paper: light-dark(#ffffff, #121212);
  --gcelib-raised: light-dark(#f2f2f2, #262626);
  --gcelib-focus: light-dark(#1565c0, #82b1ff);
  background: var(--gcelib-paper); color: var(--gcelib-ink); }}
h1 {{ font-size: 18px; margin: 0 0 6px; }}
img {{ max-width: 100%; background: #ffffff; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def write_page(path: str | os.PathLike[str], title: str, parts: Sequence[str]) -> Path:
    """Write a page that needs no other file, whole or not at all.

    Parameters
    ----------
    path : path
        An existing file is replaced.
    title : str
        Shown on top.
    parts : sequence of str
        HTML.

    Returns
    -------
    Path
        Where it is.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_page(Path(folder) / "x.html", "Hello", ["<p>Hi</p>"]).name
    'x.html'
    """
    target = Path(path)
    page = _PAGE.format(title=title, body="\n".join(parts))
    files.write_atomic(target, page.encode("utf-8"))
    return target
