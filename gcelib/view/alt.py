"""Descriptions of figures, for those who do not see them.

In a notebook every figure is shown as an ``<img>`` with an alternative text, which
JupyterLab, nbconvert and the site hand on to screen readers. The PNG beside it carries
the same text as metadata, ``{"alt": ...}``: of these only nbconvert's classic template
hands that on. The text is the author's (``describe``), else what the axes say.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Mapping
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
    quantities = _joined(ax.get_ylabel(), " by ", across)
    words = _joined(title, ": ", quantities)
    legend = ax.get_legend()
    if legend is None:
        return words
    heading = legend.get_title().get_text()
    names = ", ".join(text.get_text() for text in legend.get_texts())
    entries = _joined(heading, ": ", names)
    return f"{words} ({entries})" if words else entries


def _joined(first: str, between: str, second: str) -> str:
    """Two texts with something between them, or the one that is not empty."""
    return between.join(text for text in (first, second) if text)


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
    _Notebook(shell.display_formatter.formatters).show_figures()


class _Notebook:
    """Shows figures as pictures with their descriptions."""

    #: How the inline backend draws a figure; known from the first figure on.
    draw: Callable[[Figure], Drawing]

    def __init__(self, formatters: Mapping[str, Any]) -> None:
        self.formatters = formatters
        # What was drawn last as HTML, until it is asked for as PNG.
        self.last_figure: Figure | None = None
        self.last_drawing: Drawing = None

    def show_figures(self) -> None:
        """Let IPython ask here for the HTML of every figure."""
        # The inline backend, when it starts, forgets printers of Figure, not of its
        # base.
        of_html = self.formatters["text/html"]
        of_html.for_type_by_name("matplotlib.figure", "FigureBase", self.as_html)

    def as_html(self, figure: Figure) -> str | None:
        """The picture with its description; None where PNG is not in use."""
        from matplotlib.figure import Figure as Kind

        of_png = self.formatters["image/png"]
        draw = of_png.type_printers.get(Kind)
        if draw is None:
            return None
        if draw != self.as_png:  # the inline backend has registered its own since
            self.draw = draw
            of_png.for_type(Kind, self.as_png)
        drawing = self.draw(figure)
        if drawing is None:
            return None
        self.last_figure = figure
        self.last_drawing = drawing
        picture = drawing[0] if isinstance(drawing, tuple) else drawing
        return image(picture, description(figure))

    def as_png(self, figure: Figure) -> Drawing:
        """The figure as the notebook's own settings draw it, with its description."""
        if figure is self.last_figure:
            drawing = self.last_drawing
            self.last_figure = None
            self.last_drawing = None
        else:
            drawing = self.draw(figure)
        if drawing is None:  # a figure without axes
            return None
        if isinstance(drawing, tuple):
            picture, metadata = drawing
        else:
            picture = drawing
            metadata = {}
        return picture, {**metadata, "alt": description(figure)}
