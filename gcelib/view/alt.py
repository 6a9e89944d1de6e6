"""Descriptions of figures, for those who do not see them.

In a notebook every figure is shown as an ``<img>`` with an alternative text, which
JupyterLab, nbconvert and the site hand on to screen readers. The PNG beside it carries
the same text as metadata, ``{"alt": ...}``: of these only nbconvert's classic template
hands that on. The text is the author's (``describe``), else what the axes say.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

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


def describe_values(drawn: Drawn, text: str) -> Drawn:
    """Describe a figure by a text and by the numbers that are drawn, read off its axes.

    What the numbers say then never differs from what is to be seen, whatever was asked
    for.

    Parameters
    ----------
    drawn : Figure or Axes
        The figure, or any axes of it, after everything was drawn.
    text : str
        What is drawn, without what there is to see.

    Returns
    -------
    Figure or Axes
        ``drawn`` itself. After the text come, panel by panel, the lowest and the
        highest value of each labelled line, of all bars, points and error bars, and
        where they are.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> _ = figure.add_subplot().plot([1, 2, 4], [5.5, 3.25, 4.0], label="CE")
    >>> description(describe_values(figure, "Error by epoch"))
    'Error by epoch: CE lowest 3.25 at 2, highest 5.5 at 1.'
    """
    figure: Any = drawn.figure if hasattr(drawn, "transData") else drawn
    panels = []
    for ax in figure.axes:
        values = "; ".join(filter(None, map(_extremes, _series(ax))))
        if values:
            panels.append(_joined(ax.get_title(), ": ", values))
    between = ". " if len(panels) > 1 else ": "
    return describe(drawn, f"{_joined(text, between, '. '.join(panels))}.")


@dataclass(frozen=True)
class _Series:
    """What one line, or one kind of bars, points or error bars, shows.

    ``places`` and ``values`` are (n,), each along its axis.
    """

    label: str
    places: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    of_places: Axis
    of_values: Axis


def _series(ax: Axes) -> list[_Series]:
    """All that is drawn on one pair of axes; values along x, where only y has names."""
    from matplotlib.collections import PathCollection
    from matplotlib.container import BarContainer, ErrorbarContainer

    found: list[tuple[str, Any]] = []
    for line in ax.lines:
        if not str(line.get_label()).startswith("_"):
            found.append((str(line.get_label()), line.get_xydata()))
    for points in ax.collections:
        if isinstance(points, PathCollection):
            found.append((str(points.get_label()), points.get_offsets()))
    is_across = bool(_names(ax.yaxis)) and not _names(ax.xaxis)
    for container in ax.containers:
        label = str(container.get_label())
        if isinstance(container, ErrorbarContainer) and container.lines[0] is not None:
            found.append((label, container.lines[0].get_xydata()))
        elif isinstance(container, BarContainer):
            bars = [_place_and_length(bar, is_across) for bar in container.patches]
            found.append((label, bars))
    of_places: Axis = ax.yaxis if is_across else ax.xaxis
    of_values: Axis = ax.xaxis if is_across else ax.yaxis
    series = []
    for label, pairs in found:
        shown = "" if label.startswith("_") else label
        x, y = np.asarray(pairs, dtype=float).reshape(-1, 2).T
        places, values = (y, x) if is_across else (x, y)
        series.append(_Series(shown, places, values, of_places, of_values))
    return series


def _place_and_length(bar: Rectangle, is_across: bool) -> tuple[float, float]:
    """The point (x, y) of a bar's middle and its length, which may begin anywhere."""
    if is_across:
        return bar.get_width(), bar.get_y() + bar.get_height() / 2
    return bar.get_x() + bar.get_width() / 2, bar.get_height()


def _names(axis: Axis) -> dict[float, str]:
    """The ticks of an axis of names; none of an axis of numbers."""
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.ticker import FixedLocator

    formatter = axis.get_major_formatter()
    of_texts = isinstance(formatter, StrCategoryFormatter)
    if not of_texts and not isinstance(axis.get_major_locator(), FixedLocator):
        return {}
    places = np.asarray(axis.get_majorticklocs())
    labels = formatter.format_ticks(places.tolist())
    names = {float(at): label for at, label in zip(places, labels, strict=True)}
    return names if of_texts or any(map(_is_word, labels)) else {}


#: Numbers as axes show them, with a unit.
_NUMBER = re.compile(r"[-+\u2212]?[\d.,\u202f ]+(e[-+]?\d+)?\s*[%kM]?")


def _is_word(label: str) -> bool:
    """True of a name, false of a number or nothing."""
    is_number = _NUMBER.fullmatch(label.strip() or "0") is not None
    return not is_number and "$" not in label  # nor is a power of ten


def _extremes(series: _Series) -> str:
    """The lowest and the highest value and where they are; "" of nothing."""
    kept = np.isfinite(series.values)
    places, values = series.places[kept], series.values[kept]
    if not len(values):
        return ""
    ends = {"lowest": values.argmin(), "highest": values.argmax()}
    told = []
    for end, i in ends.items():
        value = _read(series.of_values, values[i])
        place = _read(series.of_places, places[i], whole_numbers=True)
        told.append(f"{end} {value} at {place}")
    return _joined(series.label, " ", ", ".join(told))


def _tick_beside(axis: Axis, place: float) -> float:
    """The tick that a place was moved from, so that none hides another, or itself.

    Only where the author has set whole numbers, and a place beside them is none.
    """
    from matplotlib.ticker import FixedLocator

    if place == round(place) or not isinstance(axis.get_major_locator(), FixedLocator):
        return place
    ticks = np.asarray(axis.get_majorticklocs(), dtype=float)
    near = ticks[np.abs(ticks - place) <= 0.15 * np.abs(ticks)]
    near = near[near == np.round(near)]
    return float(near[np.abs(near - place).argmin()]) if len(near) else place


def _read(axis: Axis, value: float, *, whole_numbers: bool = False) -> str:
    """A number as its axis shows it (a fraction in percent, say), or the next name.

    Rounded to three digits, but for ``whole_numbers``: 1024 pictures, the year 2026.
    """
    from matplotlib.ticker import FuncFormatter

    names = _names(axis)
    if names:
        return names[min(names, key=lambda at: abs(at - value))]
    if whole_numbers:
        value = _tick_beside(axis, value)
    is_whole = whole_numbers and value == round(value)
    rounded = float(value) if is_whole else float(f"{value:.3g}")
    formatter = axis.get_major_formatter()
    as_shown = formatter(rounded) if isinstance(formatter, FuncFormatter) else ""
    return as_shown or f"{rounded:.10g}"


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
