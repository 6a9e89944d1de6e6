"""Descriptions of figures, for those who do not see them.

In a notebook every figure is shown as an ``<img>`` with an alternative text, which
JupyterLab, nbconvert and the site hand on to screen readers. The PNG beside it carries
the same text as metadata, ``{"alt": ...}``: of these only nbconvert's classic template
hands that on. The text is the author's (``describe``), else what the axes say.
"""

from __future__ import annotations

import html
import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawn = TypeVar("Drawn", bound="Axes | Figure")

#: What IPython takes for a picture: base64, alone or with its metadata; None for none.
Drawing = str | tuple[str, dict[str, Any]] | None


def describe(drawn: Drawn, text: str) -> Drawn:
    """Give a figure the text that is read out in its place.

    Parameters
    ----------
    drawn : Figure or Axes
        The figure, or any axes of it.
    text : str
        One or two sentences: what is drawn, and what there is to see.

    Returns
    -------
    Figure or Axes
        ``drawn`` itself.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = describe(Figure(), "Two bars, the left one twice as high.")
    >>> description(figure)
    'Two bars, the left one twice as high.'
    """
    figure: Any = drawn.figure if hasattr(drawn, "transData") else drawn
    figure.gcelib_description = " ".join(text.split())
    return drawn


def description(figure: Figure) -> str:
    """The text of ``describe``, or what titles, axes and legends say.

    Parameters
    ----------
    figure : Figure
        Any matplotlib figure.

    Returns
    -------
    str
        One line, never empty.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> ax = figure.add_subplot(xlabel="epoch", ylabel="error (%)")
    >>> description(figure)
    'Figure: error (%) by epoch.'
    """
    own = getattr(figure, "gcelib_description", None)
    if own:
        return str(own)
    parts = [_of_axes(ax) for ax in figure.axes]
    parts = list(dict.fromkeys(part for part in parts if part))
    shown = parts[:6]
    if len(parts) > len(shown):
        shown.append(f"and {len(parts) - len(shown)} more panels")
    title = figure.get_suptitle() if hasattr(figure, "get_suptitle") else ""
    said = "; ".join(shown) or "an image without axes"
    text = f"Figure{f', {title}' if title else ''}: {said}."
    return " ".join(text.replace("\\$", "$").replace("\u200b", "").split())


def _of_axes(ax: Axes) -> str:
    """What one pair of axes shows, in words."""
    title = ax.get_title()
    below = [child.get_xlabel() for child in ax.child_axes]
    across = ax.get_xlabel() or next((label for label in below if label), "")
    up = ax.get_ylabel()
    quantities = f"{up} by {across}" if up and across else up or across
    words = f"{title}: {quantities}" if title and quantities else title or quantities
    legend = ax.get_legend()
    if legend is not None:
        heading = legend.get_title().get_text()
        names = ", ".join(text.get_text() for text in legend.get_texts())
        entries = f"{heading}: {names}" if heading else names
        words = f"{words} ({entries})" if words else entries
    elif len(ax.containers) + len(ax.lines) + len(ax.images) == 0 and not words:
        return ""
    return words


def image(png: str, text: str) -> str:
    """An ``<img>`` that needs no file.

    Parameters
    ----------
    png : str
        The picture, base64.
    text : str
        Its alternative text.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> image("AA==", "a & b")
    '<img alt="a &amp; b" src="data:image/png;base64,AA==">'
    """
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{png}">'


def install() -> None:
    """Let the notebook that this process serves show figures with their descriptions.

    Does nothing outside IPython, and nothing to figures elsewhere. Each figure is drawn
    once: the same bytes are its PNG and the picture in its HTML.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    formatters = shell.display_formatter.formatters
    last: dict[str, Any] = {}

    def as_png(figure: Figure) -> Drawing:
        """The figure as the notebook's own settings draw it, with its description."""
        if last.get("figure") is figure:
            del last["figure"]
            drawn = last.pop("png")
        else:
            drawn = last["draw"](figure)
        if drawn is None:  # a figure without axes
            return None
        picture, metadata = drawn if isinstance(drawn, tuple) else (drawn, {})
        return picture, {**metadata, "alt": description(figure)}

    def as_html(figure: Figure) -> str | None:
        """The same picture with its description; None where PNG is not in use."""
        from matplotlib.figure import Figure as Kind

        png = formatters["image/png"]
        draw = png.type_printers.get(Kind)
        if draw is None:
            return None
        if draw is not as_png:  # the inline backend has registered its own since
            last["draw"] = draw
            png.for_type(Kind, as_png)
        drawn = last["draw"](figure)
        if drawn is None:
            return None
        picture = drawn[0] if isinstance(drawn, tuple) else drawn
        last["figure"] = figure
        last["png"] = drawn
        return image(picture, description(figure))

    # The inline backend, when it starts, forgets printers of Figure, not of its base.
    formatters["text/html"].for_type_by_name("matplotlib.figure", "FigureBase", as_html)
