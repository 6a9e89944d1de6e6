"""Descriptions of figures, for those who do not see them.

In a notebook every figure is shown as an ``<img>`` with an alternative text, which
JupyterLab, nbconvert and the site hand on to screen readers. The PNG beside it carries
the same text as metadata, ``{"alt": ...}``: of these only nbconvert's classic template
hands that on. The text is the author's (``describe``), else what the axes say.
"""

from __future__ import annotations

import html
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from gcelib import _check

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Drawn = TypeVar("Drawn", bound="Axes | Figure")
Floats = npt.NDArray[np.float64]

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
        where they are. A value that is not shown because an axis ends before it is
        "beyond the axis". Series that stand beside the same ticks, each by its own
        constant shift, are read at these ticks; a single one is read where it stands.
        Boxes, areas and stairs are not read.

    Warns
    -----
    UserWarning
        If nothing of that is drawn.

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
        told = [*map(_extremes, _beside_ticks(_series(ax))), *_marks(ax)]
        values = "; ".join(filter(None, told))
        if values:
            panels.append(_joined(ax.get_title(), ": ", values))
    if not panels:
        _check.warn(
            "drawn: has no labelled line, bar, point or error bar; say by "
            "plots.describe what there is to see"
        )
    between = ". " if len(panels) > 1 else ": "
    return describe(drawn, f"{_joined(text, between, '. '.join(panels))}.")


@dataclass(frozen=True)
class _Series:
    """What one line, or one kind of bars, points or error bars, shows.

    ``places`` and ``values`` are (n,), each along its axis; ``is_shown`` is False where
    an axis ends before them.
    """

    label: str
    places: Floats
    values: Floats
    is_shown: npt.NDArray[np.bool_]
    of_places: Axis
    of_values: Axis


def _series(ax: Axes) -> list[_Series]:
    """All that is drawn on one pair of axes at places of its own."""
    is_across = _is_across(ax)
    of_places: Axis = ax.yaxis if is_across else ax.xaxis
    of_values: Axis = ax.xaxis if is_across else ax.yaxis
    series = []
    for label, drawn, lengths in [*_points(ax), *_bars(ax, is_across)]:
        x, y = np.asarray(drawn, dtype=float).reshape(-1, 2).T
        places, ends = (y, x) if is_across else (x, y)
        is_shown = _is_within(of_places, places) & _is_within(of_values, ends)
        values = ends if lengths is None else np.asarray(lengths, dtype=float)
        shown = "" if label.startswith("_") else label
        series.append(_Series(shown, places, values, is_shown, of_places, of_values))
    return series


def _is_across(ax: Axes) -> bool:
    """True where values are along x: of names or bars that are one below the other."""
    from matplotlib.container import BarContainer

    has_names = bool(_names(ax.xaxis)), bool(_names(ax.yaxis))
    if any(has_names):
        return has_names == (False, True)
    bars = [each for each in ax.containers if isinstance(each, BarContainer)]
    return bool(bars) and all(each.orientation == "horizontal" for each in bars)


#: A label; points (x, y); what they say where that is not how far out they are.
_Drawn = tuple[str, Any, Any]


def _points(ax: Axes) -> list[_Drawn]:
    """Labelled lines, points, and the middles of error bars."""
    from matplotlib.collections import PathCollection
    from matplotlib.container import ErrorbarContainer

    found: list[_Drawn] = []
    for line in ax.lines:
        is_named = not str(line.get_label()).startswith("_")
        if is_named and _is_of_data(line, ax) == (True, True):
            found.append((str(line.get_label()), line.get_xydata(), None))
    for points in ax.collections:
        if isinstance(points, PathCollection):
            found.append((str(points.get_label()), points.get_offsets(), None))
    for bars in ax.containers:
        if isinstance(bars, ErrorbarContainer) and bars.lines[0] is not None:
            found.append((str(bars.get_label()), bars.lines[0].get_xydata(), None))
    return found


def _bars(ax: Axes, is_across: bool) -> list[_Drawn]:
    """The ends of bars and their lengths, which may begin anywhere."""
    from matplotlib.container import BarContainer

    found: list[_Drawn] = []
    for bars in ax.containers:
        if not isinstance(bars, BarContainer):
            continue
        boxes = [(*bar.get_xy(), bar.get_width(), bar.get_height()) for bar in bars]
        x, y, width, height = np.asarray(boxes, dtype=float).reshape(-1, 4).T
        ends = (x + width, y + height / 2) if is_across else (x + width / 2, y + height)
        lengths = width if is_across else height
        found.append((str(bars.get_label()), np.stack(ends, axis=1), lengths))
    return found


def _is_of_data(line: Line2D, ax: Axes) -> tuple[bool, bool]:
    """Whether the x and the y of a line are data, and no shares of the axes."""
    from matplotlib.lines import AxLine

    if isinstance(line, AxLine):  # its two points only say where it goes
        return False, False
    x, y = line.get_transform().contains_branch_seperately(ax.transData)
    return bool(x), bool(y)


def _marks(ax: Axes) -> list[str]:
    """Labelled lines from one side of the axes to the other, and where they are."""
    told = []
    for line in ax.lines:
        label = str(line.get_label())
        x, y = np.asarray(line.get_xydata(), dtype=float).reshape(-1, 2).T
        if label.startswith("_") or not len(x):
            continue
        of_data = _is_of_data(line, ax)
        if of_data == (True, False) and x.min() == x.max():
            told.append(f"{label} at {_read_place(ax.xaxis, float(x[0]))}")
        elif of_data == (False, True) and y.min() == y.max():
            told.append(f"{label} {_read_value(ax.yaxis, float(y[0]))} everywhere")
    return told


def _is_within(axis: Axis, numbers: Floats) -> npt.NDArray[np.bool_]:
    """Which of the numbers an axis reaches; rounding of its ends is forgiven."""
    low, high = sorted(axis.get_view_interval())
    room = 1e-6 * (high - low)
    within: npt.NDArray[np.bool_] = (numbers >= low - room) & (numbers <= high + room)
    return within


def _labels_of_ticks(axis: Axis) -> dict[float, str]:
    """The ticks that the author has set, or that are categories; else none."""
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.ticker import FixedLocator

    formatter = axis.get_major_formatter()
    is_set = isinstance(axis.get_major_locator(), FixedLocator)
    if not is_set and not isinstance(formatter, StrCategoryFormatter):
        return {}
    places = np.asarray(axis.get_majorticklocs())
    labels = map(str, formatter.format_ticks(places.tolist()))
    return {float(at): label for at, label in zip(places, labels, strict=True)}


def _names(axis: Axis) -> dict[float, str]:
    """The ticks of an axis of names; none of an axis of numbers."""
    from matplotlib.category import StrCategoryFormatter

    labels = _labels_of_ticks(axis)
    of_texts = isinstance(axis.get_major_formatter(), StrCategoryFormatter)
    return labels if of_texts or any(map(_is_word, labels.values())) else {}


#: Numbers as axes show them, with a unit.
_NUMBER = re.compile(r"[-+\u2212]?[\d.,\u202f ]+(e[-+]?\d+)?\s*[%kM]?")


def _is_word(label: str) -> bool:
    """True of a name, false of a number or nothing."""
    is_number = _NUMBER.fullmatch(label.strip() or "0") is not None
    return not is_number and "$" not in label  # nor is a power of ten


def _number_in(label: str) -> float:
    """What a label of a tick says in front of its unit; nan where that is no number."""
    plain = label.replace("\u2212", "-").replace("\u202f", "").replace(",", "")
    try:
        return float(plain.strip().rstrip("%kM "))
    except ValueError:
        return math.nan


def _are_numbers_of_places(labels: Mapping[float, str]) -> bool:
    """True where ticks are called by their numbers, also in percent: 0.5 is 50 %.

    False of counted places that are called 16, 32 and 64: nothing is between them.
    """
    at = np.array([*labels])
    said = np.array([_number_in(label) for label in labels.values()])
    kept = np.isfinite(said)
    if not kept.any():
        return True
    largest = np.abs(at[kept]).argmax()
    if at[kept][largest] == 0:
        return bool(said[kept][largest] == 0)
    expected = at[kept] * said[kept][largest] / at[kept][largest]
    return bool(np.allclose(said[kept], expected, rtol=1e-2, atol=1e-9))


def _extremes(series: _Series) -> str:
    """The lowest and the highest value and where they are; "" of nothing."""
    kept = np.isfinite(series.values)
    places, values = series.places[kept], series.values[kept]
    is_shown = series.is_shown[kept]
    if not len(values):
        return ""
    ends = {"lowest": values.argmin(), "highest": values.argmax()}
    told = []
    for end, i in ends.items():
        value = _read_value(series.of_values, float(values[i]))
        place = _read_place(series.of_places, float(places[i]))
        beyond = "" if is_shown[i] else " (beyond the axis)"
        told.append(f"{end} {value} at {place}{beyond}")
    return _joined(series.label, " ", ", ".join(told))


def _beside_ticks(all_series: list[_Series]) -> list[_Series]:
    """The series of one pair of axes at the ticks that they were moved from.

    That is done so that none hides another: each series stands at ticks of the author,
    and all of it beside them by the same, another series by something else. At ticks
    called by other numbers than their places (16, 32, 64 at 0, 1, 2) it may stand
    anyhow beside them.
    """
    found = [_Beside.of(series) for series in all_series]
    shifts = {each.shift for each in found if each is not None and each.is_moved}
    moved = []
    for series, beside in zip(all_series, found, strict=True):
        is_one_of_several = beside is not None and beside.is_moved and len(shifts) > 1
        if beside is not None and (is_one_of_several or beside.has_names):
            series = replace(series, places=beside.ticks)
        moved.append(series)
    return moved


@dataclass(frozen=True)
class _Beside:
    """A series that has at most one place near each tick of the author."""

    #: Of each place the tick that is nearest.
    ticks: Floats
    #: By how much of the distance between ticks all places are beside theirs.
    shift: float
    #: Whether that is the same everywhere, of at least two places.
    is_moved: bool
    #: Whether ticks are called by other numbers than their places.
    has_names: bool

    @classmethod
    def of(cls, series: _Series) -> _Beside | None:
        """None of a series that has places of its own."""
        labels = _labels_of_ticks(series.of_places)
        ticks = np.array(sorted(labels))
        if len(ticks) < 2 or not np.isfinite(series.places).all():
            return None
        scale = series.of_places.get_transform()  # of a logarithmic axis, too
        at_ticks = np.asarray(scale.transform(ticks))
        at = np.asarray(scale.transform(series.places))
        if not np.isfinite(at).all() or not np.isfinite(at_ticks).all() or not len(at):
            return None
        nearest = np.abs(at[:, None] - at_ticks).argmin(1)
        gap = np.diff(at_ticks).min()
        beside = (at - at_ticks[nearest]) / gap
        n_places = len(np.unique(at))
        if np.abs(beside).max() > 0.49 or n_places > len(np.unique(nearest)):
            return None
        is_moved = n_places > 1 and float(np.ptp(beside)) < 1e-6
        has_names = not _are_numbers_of_places(labels)
        shift = round(float(beside[0]), 6)
        return cls(ticks[nearest], shift, is_moved, has_names)


def _read_place(axis: Axis, place: float) -> str:
    """A place as its axis shows it: a name, 1024 pictures, the year 2024.5."""
    is_whole = place == round(place)
    digits = 0 if is_whole else max(1, 2 - math.floor(math.log10(abs(place))))
    return _read(axis, place, place if is_whole else round(place, digits))


def _read_value(axis: Axis, value: float) -> str:
    """A value as its axis shows it, rounded to three digits."""
    return _read(axis, value, float(f"{value:.3g}"))


def _read(axis: Axis, exact: float, rounded: float) -> str:
    """A number as its axis shows it (a fraction in percent, say), or the next name."""
    from matplotlib import dates, ticker

    names = _names(axis)
    if names:
        return names[min(names, key=lambda at: abs(at - exact))]
    if isinstance(axis.get_major_locator(), dates.DateLocator):
        return _date(exact)
    formatter = axis.get_major_formatter()
    plain = f"{rounded:.10g}"
    if isinstance(formatter, ticker.PercentFormatter):
        return f"{formatter.convert_to_pct(rounded):.10g}{formatter.symbol}"
    if isinstance(formatter, ticker.FuncFormatter):
        return str(formatter(rounded)) or plain
    if isinstance(formatter, ticker.StrMethodFormatter | ticker.FormatStrFormatter):
        return _with_digits(formatter(rounded), rounded)
    return plain


def _date(days: float) -> str:
    """A day as matplotlib counts them, with its time where that is not midnight."""
    from matplotlib import rcParams

    first = np.datetime64(str(rcParams["date.epoch"]), "m")
    moment = first + np.timedelta64(round(days * 24 * 60), "m")
    day, _, time = str(moment).partition("T")
    return day if time == "00:00" else f"{day} {time}"


def _with_digits(shown: str, number: float) -> str:
    """What an axis shows of a number, with the digits that it rounds away."""
    found = re.search(r"[-\u2212]?\d+(\.\d*)?", shown)
    if found is None:
        return shown
    digits = found[0].replace("\u2212", "-")
    n_decimals = len(digits.partition(".")[2])
    if round(number, n_decimals) != float(digits):
        return shown  # something else than the number is shown
    return f"{shown[: found.start()]}{number:.10g}{shown[found.end() :]}"


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
