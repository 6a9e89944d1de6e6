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
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from gcelib import _check

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import Formatter

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

    The numbers are those of the figure, whatever was asked for. Read are lines, bars,
    points and error bars on axes of numbers, names and dates; of axes with a formatter
    or a transformation of your own look at what came out, ``description(figure)``.

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
        Boxes, areas and stairs are not read, nor bars along dates, nor what is hidden.

        Numbers have three digits, more in front of the decimal point, whole ones all;
        what is below a power of ten stays so (0.9996 is not 1). Where ticks that were
        written by hand are numbers times one factor, perhaps with a unit ("50 %" at
        0.5), all numbers of that axis are read so; else values are the numbers that
        were drawn, and the names of ticks are read of places that stand at them; where
        names are numbers (16, 32), other places are said to be between two of them. A
        formatter of the axis is asked for what it writes of each number; marks of
        thousands ("1,234.50") and other texts than one number stay as it writes them.
        Lowest and highest are the values as they are read (of 1 / value, too).

        Values are along x for bars across, where all else stands at names that are one
        below the other, and for error bars along x alone; else they are along y.

    Raises
    ------
    ValueError
        Of axes in three dimensions, whose numbers are those of the picture.

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
    for ax in filter(_is_visible, figure.axes):
        if ax.name == "3d":
            problem = "has axes in three dimensions, which are not read"
            _check.fail("drawn", problem, "say by plots.describe what there is to see")
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
class _Drawn:
    """What one line, or one kind of bars, points or error bars, is drawn of."""

    #: "line", "bars", "points" or "error bars".
    kind: str
    label: str
    #: (n, 2): x and y; of bars the middle of their ends.
    points: Floats
    #: (n,) what bars say, which may begin anywhere: their lengths.
    lengths: Floats | None = None
    #: Whether it says itself that its values are along x; None of what does not.
    is_across: bool | None = None


@dataclass(frozen=True)
class _Series:
    """What one line, or one kind of bars, points or error bars, shows.

    ``places`` and ``values`` are (n,), each along its axis; ``is_shown`` is False where
    an axis ends before them.
    """

    kind: str
    label: str
    places: Floats
    values: Floats
    is_shown: npt.NDArray[np.bool_]
    of_places: Axis
    of_values: Axis


def _series(ax: Axes) -> list[_Series]:
    """All that is drawn on one pair of axes at places of its own."""
    all_drawn = [*_points(ax), *_bars(ax)]
    series = []
    for drawn, is_across in zip(all_drawn, _are_across(ax, all_drawn), strict=True):
        x, y = drawn.points.T
        places, ends = (y, x) if is_across else (x, y)
        of_places: Axis = ax.yaxis if is_across else ax.xaxis
        of_values: Axis = ax.xaxis if is_across else ax.yaxis
        is_shown = _is_within(of_places, places) & _is_within(of_values, ends)
        values = ends if drawn.lengths is None else drawn.lengths
        label = "" if drawn.label.startswith("_") else drawn.label
        series.append(
            _Series(drawn.kind, label, places, values, is_shown, of_places, of_values)
        )
    return series


def _are_across(ax: Axes, all_drawn: list[_Drawn]) -> list[bool]:
    """Of each series whether its values are along x.

    Bars say that themselves. Of all else names do at which everything stands, one below
    the other; without names error bars along x, and what stands beside them.
    """
    of_bars = {each.is_across for each in all_drawn if each.kind == "bars"}
    others = [each for each in all_drawn if each.kind != "bars"]
    of_errors = {each.is_across for each in others} - {None}
    at_names = [
        all(_stand_at_names(axis, each.kind, each.points[:, i]) for each in others)
        for i, axis in enumerate((ax.xaxis, ax.yaxis))
    ]
    found = []
    for drawn in all_drawn:
        if drawn.kind == "bars":
            found.append(drawn.is_across is True)
        elif len(of_bars) == 1 and drawn.is_across is None:
            found.append(of_bars == {True})
        elif any(at_names):
            found.append(at_names == [False, True])
        elif drawn.is_across is not None:
            found.append(drawn.is_across)
        else:
            found.append(of_errors == {True})
    return found


def _stand_at_names(axis: Axis, kind: str, numbers: Floats) -> bool:
    """True where all numbers stand at names, or beside them by the same."""
    texts = _Texts.of(axis)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return True  # it stands nowhere else
    if kind == "line" and len(np.unique(numbers)) < len(numbers):
        return False  # it comes back to a name: that is what it shows, not where
    if texts.are_categories:
        return True
    if not texts.are_names and not (texts.has_words and texts.are_counted):
        return False
    if _are_at(texts, numbers):
        return True
    beside = _Beside.at(axis, kind, numbers)
    return beside is not None and (beside.is_moved or beside.is_loose)


def _points(ax: Axes) -> list[_Drawn]:
    """Labelled lines, points, and the middles of error bars."""
    from matplotlib.collections import PathCollection
    from matplotlib.container import ErrorbarContainer

    found: list[_Drawn] = []
    for line in filter(_is_visible, ax.lines):
        is_named = not str(line.get_label()).startswith("_")
        if is_named and _is_of_data(line, ax) == (True, True):
            kind = "points" if line.get_linestyle() == "None" else "line"
            found.append(_Drawn(kind, str(line.get_label()), _pairs(line)))
    for points in filter(_is_visible, ax.collections):
        if not isinstance(points, PathCollection):
            continue
        if points.get_offset_transform().contains_branch(ax.transData):
            offsets: Any = np.ma.asarray(points.get_offsets())
            at: Floats = offsets.astype(float).filled(np.nan).reshape(-1, 2)
            found.append(_Drawn("points", str(points.get_label()), at))
    for bars in ax.containers:
        if isinstance(bars, ErrorbarContainer) and bars.lines[0] is not None:
            is_clear = bars.has_xerr != bars.has_yerr
            is_across = bool(bars.has_xerr) if is_clear else None
            at = _pairs(bars.lines[0])
            label = str(bars.get_label())
            found.append(_Drawn("error bars", label, at, is_across=is_across))
    return found


def _pairs(line: Line2D) -> Floats:
    """(n, 2): the x and y of a line."""
    return np.asarray(line.get_xydata(), dtype=float).reshape(-1, 2)


def _bars(ax: Axes) -> list[_Drawn]:
    """The ends of bars and their lengths, which may begin anywhere."""
    from matplotlib.container import BarContainer

    found: list[_Drawn] = []
    for bars in ax.containers:
        if not isinstance(bars, BarContainer) or not any(map(_is_visible, bars)):
            continue
        boxes = [(*bar.get_xy(), bar.get_width(), bar.get_height()) for bar in bars]
        x, y, width, height = np.asarray(boxes, dtype=float).reshape(-1, 4).T
        is_across = bars.orientation == "horizontal"
        if _is_of_dates(ax.xaxis if is_across else ax.yaxis):
            continue  # their lengths are no dates
        ends = (x + width, y + height / 2) if is_across else (x + width / 2, y + height)
        lengths = width if is_across else height
        label = str(bars.get_label())
        at = np.stack(ends, axis=1)
        found.append(_Drawn("bars", label, at, lengths, is_across))
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
    for line in filter(_is_visible, ax.lines):
        label = str(line.get_label())
        x, y = _pairs(line).T
        if label.startswith("_") or not len(x):
            continue
        of_data = _is_of_data(line, ax)
        if of_data == (True, False) and x.min() == x.max():
            is_at = _are_at(_Texts.of(ax.xaxis), x)
            told.append(f"{label} at {_read_place(ax.xaxis, float(x[0]), is_at)}")
        elif of_data == (False, True) and y.min() == y.max():
            told.append(f"{label} {_read_value(ax.yaxis, float(y[0]))} everywhere")
    return told


def _is_within(axis: Axis, numbers: Floats) -> npt.NDArray[np.bool_]:
    """Which of the numbers an axis reaches; rounding of its ends is forgiven."""
    low, high = sorted(axis.get_view_interval())
    room = 1e-6 * (high - low)
    within: npt.NDArray[np.bool_] = (numbers >= low - room) & (numbers <= high + room)
    return within


@dataclass(frozen=True)
class _Quantity:
    """What a text of a tick says: a number between what stands before and after it."""

    number: float
    before: str
    after: str
    #: Half a unit of its last digit: by how much the text may be rounded.
    room: float

    def __bool__(self) -> bool:
        """False of zero, which needs no unit."""
        return self.number != 0

    @classmethod
    def of(cls, text: str) -> _Quantity | None:
        """None of what is a name, or no single number."""
        found = _QUANTITY.fullmatch(text.strip())
        if found is None:
            return None
        sign, before, digits, power, after = found.groups(default="")
        digits = re.sub(r"[\s]", "", digits)
        if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?", digits):
            digits = digits.replace(",", "")
        plain = (sign + digits).replace("\u2212", "-").replace(",", ".")
        try:
            number = float(plain + power.replace("\u2212", "-"))
        except ValueError:
            return None
        if not math.isfinite(number):
            return None
        n_decimals = len(digits.replace(",", ".").partition(".")[2])
        room = float(f"0.5e-{n_decimals}") * float(f"1{power}".replace("\u2212", "-"))
        times = _MULTIPLES.get(after.strip())
        if times is not None:
            return cls(times * number, before, "", times * room)
        return cls(number, before, after, room)


#: A sign, a currency, a number, and what follows it.
_QUANTITY = re.compile(
    r"([-+\u2212]?)([€£¥₹]?)\s?"
    r"(\d(?:[\d.,\s]*\d)?\.?|\.\d+)(e[-+\u2212]?\d+)?(\D*)",
    re.IGNORECASE,
)
_MULTIPLES = {"k": 1e3, "M": 1e6}
_THREE_DECIMALS = 0.5e-3


@dataclass(frozen=True)
class _Scale:
    """How an axis writes its numbers: all times one factor, in one unit."""

    factor: float = 1.0
    before: str = ""
    after: str = ""

    def write(self, rounded: float) -> str:
        """A number that has been multiplied already."""
        sign = "-" if rounded < 0 and self.before else ""
        number = abs(rounded) if sign else rounded
        return f"{sign}{self.before}{_plain(number)}{self.after}"

    @classmethod
    def of(cls, texts: Mapping[float, str], are_counted: bool) -> _Scale | None:
        """None where texts are something else than their places times one factor.

        Texts of mathematics are taken for the numbers of their places. Names, and
        numbers in another unit, stand beside others where two of these agree.
        """
        quantities = {at: _Quantity.of(text) for at, text in texts.items()}
        found = {at: each for at, each in quantities.items() if each is not None}
        units = Counter((each.before, each.after) for each in found.values() if each)
        if not units:
            has_names = any("$" not in text for text in texts.values())
            return None if has_names or any(found) else cls()
        [((before, after), n_told)] = units.most_common(1)
        numbers = {
            at: each
            for at, each in found.items()
            if not each or (each.before, each.after) == (before, after)
        }
        n_names = sum("$" not in texts[at] for at in texts if at not in numbers)
        largest = max((at for at in numbers if numbers[at]), key=abs)
        if (n_names and n_told < 2) or largest == 0:
            return None
        ratio = numbers[largest].number / largest
        if ratio <= 0:
            return None
        power = 10.0 ** round(math.log10(ratio))
        if all(abs(q.number - at * power) <= q.room for at, q in numbers.items()):
            has_points = all(q.room == _THREE_DECIMALS for q in numbers.values() if q)
            is_thousands = power == 1e-3 and has_points  # 1.000 for 1,000
            return cls(1.0 if is_thousands else power, before, after)
        at = np.array([*numbers])
        said = np.array([each.number for each in numbers.values()])
        is_exact = n_told > 1 and np.allclose(said, at * ratio, rtol=1e-6)
        if is_exact and not n_names and not are_counted:
            return cls(ratio, before, after)
        return None


@dataclass(frozen=True)
class _Texts:
    """The texts of the ticks that the author has set, or that are categories."""

    #: Of each tick its text, which may be blank.
    of_ticks: Mapping[float, str]
    #: How numbers are written by hand; None where a rule of the axis writes them, or
    #: where texts are no numbers of their places.
    scale: _Scale | None
    #: True of names, and of counted places that are called 16, 32 and 64.
    are_names: bool
    are_categories: bool = False
    #: True where one of them is a name at least.
    has_words: bool = False

    @classmethod
    def of(cls, axis: Axis) -> _Texts:
        """Those of one axis."""
        from matplotlib.category import StrCategoryFormatter
        from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter

        formatter = axis.get_major_formatter()
        are_categories = isinstance(formatter, StrCategoryFormatter)
        is_set = isinstance(axis.get_major_locator(), FixedLocator)
        if not is_set and not are_categories:
            return cls({}, None, are_names=False)
        places = np.asarray(axis.get_majorticklocs())
        if are_categories:  # also of those whose ticks are left out
            places = np.arange(math.ceil(max(axis.get_data_interval())) + 1)
        said = map(str, formatter.format_ticks(places.tolist()))
        of_ticks = {float(at): text for at, text in zip(places, said, strict=True)}
        if are_categories:
            return cls(of_ticks, None, True, are_categories, has_words=True)
        if not isinstance(formatter, FixedFormatter | FuncFormatter):
            return cls(of_ticks, None, are_names=False)
        texts = {at: text for at, text in of_ticks.items() if text.strip()}
        scale = _Scale.of(texts, _are_counted(texts))
        has_words = any(_is_word(text, scale) for text in texts.values())
        by_hand = scale if _is_by_hand(axis) else None
        return cls(of_ticks, by_hand, scale is None, has_words=has_words)

    @property
    def are_counted(self) -> bool:
        """True of ticks at 0, 1, 2: those of names."""
        return _are_counted(self.of_ticks)

    def at(self, number: float) -> str:
        """The text of the tick at a number; "" of none."""
        if not self.of_ticks:
            return ""
        nearest = min(self.of_ticks, key=lambda at: abs(at - number))
        gap = np.diff(sorted(self.of_ticks)).min(initial=abs(nearest) or 1)
        is_there = abs(nearest - number) <= 1e-9 * gap
        return self.of_ticks[nearest] if is_there else ""


def _is_word(text: str, scale: _Scale | None) -> bool:
    """True of a name, also of a number in another unit than that of its axis."""
    if not text.strip() or "$" in text:  # nor is a power of ten
        return False
    found = _Quantity.of(text)
    if found is None:
        return True
    unit = (found.before, found.after)
    return scale is not None and bool(found) and unit != (scale.before, scale.after)


def _are_counted(ticks: Mapping[float, str]) -> bool:
    """True of places that are whole numbers, one after the other."""
    at = np.array(sorted(ticks))
    return bool((at == at.round()).all() and (np.diff(at) == 1).all())


def _is_by_hand(axis: Axis) -> bool:
    """True where there are texts for the ticks alone, and no rule for other numbers."""
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    formatter = axis.get_major_formatter()
    if not isinstance(formatter, FuncFormatter):
        return isinstance(formatter, FixedFormatter)
    beyond = math.pi + float(np.max(axis.get_majorticklocs(), initial=0))
    return not _shown(formatter, beyond)


def _are_at(texts: _Texts, numbers: Floats) -> bool:
    """True where all numbers are ticks that have a text."""
    return bool(len(numbers)) and all(texts.at(float(at)).strip() for at in numbers)


def _is_visible(artist: Artist) -> bool:
    """Whether it is drawn, as far as it knows itself."""
    return bool(artist.get_visible())


def _extremes(series: _Series) -> str:
    """The lowest and the highest value and where they are; "" of nothing."""
    kept = np.isfinite(series.values) & np.isfinite(series.places)
    places, values = series.places[kept], series.values[kept]
    is_shown = series.is_shown[kept]
    if not len(values):
        return ""
    are_at = _are_at(_Texts.of(series.of_places), places)
    lowest, highest = _ends_as_read(series.of_values, values)
    ends = {"lowest": lowest, "highest": highest}
    told = []
    for end, i in ends.items():
        value = _read_value(series.of_values, float(values[i]))
        place = _read_place(series.of_places, float(places[i]), are_at)
        beyond = "" if is_shown[i] else " (beyond the axis)"
        told.append(f"{end} {value} at {place}{beyond}")
    return _joined(series.label, " ", ", ".join(told))


def _ends_as_read(axis: Axis, values: Floats) -> tuple[int, int]:
    """Where the lowest and the highest value are, as their axis writes them.

    A rule such as 1 / value, or a number without its sign, exchanges them.
    """
    ends = int(values.argmin()), int(values.argmax())
    formatter = axis.get_major_formatter()
    if not _has_a_rule(formatter) or _is_by_hand(axis):
        return ends
    low, high = (_Quantity.of(_shown(formatter, values[end])) for end in ends)
    if low is None or high is None or low.number <= high.number:
        return ends
    found = [_Quantity.of(_shown(formatter, value)) for value in values]
    known = [each for each in found if each is not None]
    units = {(each.before, each.after) for each in known if each}
    if len(units) > 1 or len(known) < len(values):
        return ends
    numbers = np.array([each.number for each in known])
    order = np.lexsort((-values, numbers))
    return int(order[0]), int(order[-1])


def _beside_ticks(all_series: list[_Series]) -> list[_Series]:
    """The series of one pair of axes at the ticks that they were moved from.

    That is done so that none hides another: each series stands at ticks of the author,
    and all of it beside them by the same, another series by something else. Bars and
    points at names, between which nothing is, may stand anyhow beside them.
    """
    found = [
        _Beside.at(series.of_places, series.kind, series.places)
        for series in all_series
    ]
    shifts = {each.shift for each in found if each is not None and each.is_moved}
    moved = []
    for series, beside in zip(all_series, found, strict=True):
        if beside is not None:
            has_names = _Texts.of(series.of_places).are_names
            is_one_of_several = len(shifts) > 1 and (beside.is_moved or has_names)
            if is_one_of_several or (has_names and beside.is_loose):
                series = replace(series, places=beside.ticks)
        moved.append(series)
    return moved


@dataclass(frozen=True)
class _Beside:
    """A series that stands beside ticks of the author."""

    #: Of each place the tick that is nearest.
    ticks: Floats
    #: By how much of the distance between ticks all places are beside theirs.
    shift: float
    #: Whether that is the same everywhere, of at least two places.
    is_moved: bool
    #: Whether it is of a kind that is drawn around names: bars, and scattered points.
    is_loose: bool

    @classmethod
    def at(cls, axis: Axis, kind: str, places: Floats) -> _Beside | None:
        """None of a series that has places of its own."""
        texts = _Texts.of(axis)
        ticks = np.array(sorted(texts.of_ticks))
        if len(ticks) == 0 or not np.isfinite(places).all():
            return None
        scale = axis.get_transform()  # of a logarithmic axis, too
        at_ticks = np.asarray(scale.transform(ticks))
        at = np.asarray(scale.transform(places))
        if not np.isfinite(at).all() or not np.isfinite(at_ticks).all() or not len(at):
            return None
        nearest = np.abs(at[:, None] - at_ticks).argmin(1)
        gap = np.diff(at_ticks).min(initial=np.inf) if len(ticks) > 1 else 1.0
        beside = (at - at_ticks[nearest]) / gap
        n_places = len(np.unique(at))
        is_one_each = n_places <= len(np.unique(nearest))
        is_scattered = kind == "points" and texts.are_counted
        is_near = is_scattered and bool(np.abs(beside).max() <= 0.3)
        if np.abs(beside).max() > 0.49 or not (is_one_each or is_near):
            return None
        is_same = float(np.ptp(beside)) < 1e-6
        is_moved = n_places > 1 and is_same
        is_loose = kind == "bars" or is_near or (is_moved and texts.are_counted)
        shift = round(float(beside[0]), 6)
        return cls(ticks[nearest], shift, is_moved, is_loose)


def _read_place(axis: Axis, place: float, are_at: bool) -> str:
    """A place as its axis shows it: a name, 1024 pictures, the year 2024.5.

    ``are_at`` says that all places of the series are ticks: then numbers that are no
    numbers of their places (16 at 0) are read, too.
    """
    texts = _Texts.of(axis)
    if texts.are_categories:
        return _category(texts, place)
    text = texts.at(place)
    if _is_word(text, texts.scale) or (texts.are_names and are_at):
        return text
    are_numbers = texts.are_names and not texts.has_words and bool(texts.of_ticks)
    if are_numbers and not _is_of_dates(axis):
        return text.strip() or _between_names(texts, place)
    return _read(axis, place, _rounded_place)


def _between_names(texts: _Texts, place: float) -> str:
    """Where a place is whose number would be taken for a name: 16 stands at 0."""
    named = sorted(at for at, text in texts.of_ticks.items() if text.strip())
    below = [texts.of_ticks[at] for at in named if at < place]
    above = [texts.of_ticks[at] for at in named if at > place]
    if below and above:
        return f"a place between {below[-1]} and {above[0]}"
    return f"a place beyond {(below[-1:] or above[:1] or ['the names'])[0]}"


def _read_value(axis: Axis, value: float) -> str:
    """A value as its axis shows it, rounded to three digits."""
    texts = _Texts.of(axis)
    if texts.are_categories:
        return _category(texts, value)
    return _read(axis, value, _rounded_value)


def _category(texts: _Texts, number: float) -> str:
    """The nearest name: between categories nothing is."""
    nearest = min(texts.of_ticks, key=lambda at: abs(at - number))
    return texts.of_ticks[nearest]


def _rounded_place(place: float) -> float:
    """Whole numbers as they are, others to three digits or one decimal."""
    return _rounded(place, max(3, _n_before_point(place) + 1))


def _rounded_value(value: float) -> float:
    """Whole numbers as they are, others to three digits."""
    return _rounded(value, 3)


def _n_before_point(number: float) -> int:
    """How many digits a number has in front of its point; below 0 of 0.001."""
    is_plain = number != 0 and math.isfinite(number)
    return math.floor(math.log10(abs(number))) + 1 if is_plain else 1


def _rounded(number: float, n_digits: int) -> float:
    """A number with so many digits, and more where it would seem to be something else.

    Digits in front of the point are kept, and 0.9996 is not 1, nor 99.96 % all.
    """
    if not math.isfinite(number) or number == round(number):
        return number
    n_before = _n_before_point(number)
    for n_kept in range(max(n_digits, n_before), 10):
        rounded = float(f"{number:.{n_kept}g}")
        if _n_before_point(rounded) == n_before:
            return rounded
    return float(f"{number:.10g}")


def _plain(number: float) -> str:
    """A rounded number; a large whole one with all its digits."""
    is_whole = abs(number) < 1e15 and number == round(number)
    return str(round(number)) if is_whole else f"{number:.10g}"


def _read(axis: Axis, number: float, rounding: Callable[[float], float]) -> str:
    """A number as its axis writes all numbers: a fraction in percent, say."""
    from matplotlib import ticker

    if _is_of_dates(axis):
        return _date(number, axis)
    if type(_converter(axis)).__name__ == "PeriodConverter":
        return _period(number, axis)
    formatter = axis.get_major_formatter()
    if isinstance(formatter, ticker.PercentFormatter):
        percent = rounding(formatter.convert_to_pct(number))
        return f"{_plain(percent)}{formatter.symbol}"
    texts = _Texts.of(axis)
    if texts.of_ticks and _is_by_hand(axis):
        scale = texts.scale or _Scale()
        return scale.write(rounding(scale.factor * number))
    by_rule = ""
    if isinstance(formatter, ticker.StrMethodFormatter | ticker.FormatStrFormatter):
        by_rule = _by_rule(formatter, number, rounding, _factor(formatter) or 1.0)
    elif _has_a_rule(formatter):
        by_rule = _by_rule(formatter, number, rounding, _factor(formatter))
    return by_rule or _plain(rounding(number))


def _has_a_rule(formatter: Formatter) -> bool:
    """Whether a number is shown as something else than itself, at any place."""
    from matplotlib import category, ticker

    if isinstance(formatter, ticker.ScalarFormatter):  # EngFormatter is one, too
        return type(formatter) is not ticker.ScalarFormatter
    shows_numbers = (ticker.LogFormatter, ticker.LogitFormatter)
    knows_ticks_alone = (
        ticker.NullFormatter,
        ticker.FixedFormatter,
        category.StrCategoryFormatter,
    )
    return not isinstance(formatter, shows_numbers + knows_ticks_alone)


def _shown(formatter: Formatter, number: float) -> str:
    """What a rule of the author shows of a number; "" where it fails."""
    try:
        with np.errstate(all="ignore"):
            return str(formatter(number))
    except Exception:  # whatever it does: it is made for the ticks alone
        return ""


def _factor(formatter: Formatter) -> float | None:
    """By what a rule multiplies its numbers; None where it does something else."""
    far = (1e6, 3e6)
    found = [_Quantity.of(_shown(formatter, number)) for number in far]
    factors = [
        quantity.number / number
        for quantity, number in zip(found, far, strict=True)
        if quantity  # nor zero, as of 1 / number
    ]
    is_same = len(factors) == 2 and math.isclose(*factors, rel_tol=1e-6)
    return factors[0] if is_same else None


def _by_rule(
    formatter: Formatter,
    number: float,
    rounding: Callable[[float], float],
    factor: float | None,
) -> str:
    """What a rule shows of a number, in as many digits as are read; "" of nothing.

    A multiple has also digits that the rule rounds away. What else is a plain number is
    rounded; all other texts stay as they are.
    """
    shown = _shown(formatter, number)
    if factor is not None:
        replaced = _with_digits(shown, factor * number, rounding)
        if replaced:
            return replaced
    try:
        said = float(shown)
    except ValueError:
        return shown
    rounded = rounding(said)
    return shown if rounded == said else _plain(rounded)


def _is_of_dates(axis: Axis) -> bool:
    """True of an axis that turns dates into numbers, whoever has set its ticks."""
    from matplotlib import dates

    if isinstance(axis.get_major_locator(), dates.DateLocator):
        return True
    return "date" in type(_converter(axis)).__name__.lower()


def _converter(axis: Axis) -> object:
    """What turns the data of an axis into its numbers."""
    find: Callable[[], object] | None = getattr(axis, "get_converter", None)
    return find() if find else getattr(axis, "converter", None)  # before 3.10


def _date(days: float, axis: Axis) -> str:
    """A day as matplotlib counts them, with its time where that is not midnight."""
    from matplotlib import dates

    to_moment: Callable[[float, tzinfo | None], datetime] = dates.num2date
    moment = to_moment(days, _zone(axis)) + timedelta(seconds=0.5)  # to whole seconds
    day, time = f"{moment:%Y-%m-%d}", f"{moment:%H:%M:%S}"
    return day if time == "00:00:00" else f"{day} {time.removesuffix(':00')}"


def _zone(axis: Axis) -> tzinfo | None:
    """The time zone in which an axis of dates is written."""
    for part in (axis.get_major_formatter(), axis.get_major_locator()):
        for name in ("tz", "_tz"):
            zone = getattr(part, name, None)
            if isinstance(zone, tzinfo):
                return zone
    units = getattr(axis, "units", None)
    return units if isinstance(units, tzinfo) else None


def _period(number: float, axis: Axis) -> str:
    """A day, month or week of the axes that pandas draws, which count from 1970."""
    import pandas as pd

    frequency: str = vars(axis)["freq"]
    return str(pd.Period(ordinal=round(number), freq=frequency))


def _with_digits(shown: str, number: float, rounding: Callable[[float], float]) -> str:
    """A text with the digits that are read of its number; "" if it shows another."""
    # One number, without marks of thousands.
    found = re.search(
        r"([-\u2212]?)(?<![\d.,])(\d+)(?:([.,])(\d*))?(?![\d.,]*\d)", shown
    )
    if found is None:
        return ""
    sign, whole, point, decimals = found.groups(default="")
    said = float(f"{'-' if sign else ''}{whole}.{decimals}")
    unit = 10.0 ** -len(decimals)
    if abs(number - said) >= unit * (1 - 1e-6):  # neither rounded nor cut off
        return ""
    digits = _plain(rounding(number)).replace(".", point or ".")
    return f"{shown[: found.start()]}{digits}{shown[found.end() :]}"


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
