"""Every static figure. A loss looks the same wherever it appears.

Each function draws on the axes ``ax`` (or on a new figure) and returns them. None
touches matplotlib's global settings. Data are fractions, axes show percent. In a
notebook every figure carries a description for those who do not see it: its own, by
``describe``, else one that is read off its axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gcelib import _check, metrics
from gcelib.view import alt
from gcelib.view.alt import describe, describe_values
from gcelib.view.styles import (
    LABELS,
    LOSS_COLORS,
    LOSS_LABELS,
    OTHER_COLORS,
    STYLES,
    Style,
    drawable,
    loss_color,
    style,
)

if TYPE_CHECKING:  # drawing libraries are imported where they draw
    from matplotlib.axes import Axes
    from matplotlib.ticker import Formatter
    from pandas import DataFrame
    from torch import Tensor

    from gcelib.metrics import Reliability

__all__ = [
    "LABELS",
    "LOSS_COLORS",
    "LOSS_LABELS",
    "METRIC_LABELS",
    "OTHER_COLORS",
    "STYLES",
    "Style",
    "bars_with_intervals",
    "confusion_matrix",
    "describe",
    "describe_values",
    "entropy_histograms",
    "loss_color",
    "reliability_diagram",
    "risk_curves",
    "roc_curves",
    "style",
    "temperatures",
    "training_curves",
]

alt.install()

#: What axes call a metric; those in percent show fractions times 100.
METRIC_LABELS: dict[str, str] = {
    name: metric.axis for name, metric in metrics.METRICS.items()
}
_HATCHES = ("", "////", "....", "xxxx")
_SPLIT_DASHES = {"train": "--", "val": ":", "test": "-"}
_SPLIT_COLORS = dict(zip(_SPLIT_DASHES, OTHER_COLORS, strict=False))
#: Of a bar, in units of confidence: two pixels of a usual figure.
_NARROWEST_BAR = 0.006
_THIN: dict[str, Any] = {"color": "#333333", "linewidth": 1, "linestyle": "--"}
_SPAN: dict[str, Any] = {
    "fmt": "none",
    "ecolor": "black",
    "elinewidth": 1.2,
    "capsize": 2.5,
}


def _label(name: object) -> str:
    """The label of ``name`` as matplotlib can write it."""
    return drawable(style(name).label)


def _line(name: object, index: int) -> dict[str, Any]:
    """What matplotlib is told about the line of ``name``."""
    look = style(name, index)
    return {
        "label": drawable(look.label),
        "color": look.color,
        "linestyle": (0, look.dash),
        "linewidth": 1.8,
        "marker": look.marker,
        "markersize": 8,
        "markeredgecolor": "white",
        "markeredgewidth": 0.5,
    }


def _without_marker(line: dict[str, Any]) -> dict[str, Any]:
    """The same line for something that has no points to mark."""
    return {key: value for key, value in line.items() if "marker" not in key}


def _new_axes(width: float, height: float) -> Axes:
    """The only axes of a new figure, in inches."""
    from matplotlib import pyplot as plt

    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def _percent() -> Formatter:
    """Tick labels that show fractions times 100."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{100 * value:g}")


def _finish(
    ax: Axes,
    xlabel: str,
    ylabel: str,
    legend: dict[str, Any] | None = None,
    percent: str = "",
) -> Axes:
    """Labels, legend, no box; the axes named in ``percent`` show fractions times 100.

    ``ylabel`` may be a metric: its label then says whether it is in percent.
    """
    label = METRIC_LABELS.get(ylabel, ylabel)
    ax.set(xlabel=drawable(xlabel) if xlabel else "", ylabel=drawable(label))
    if "x" in percent:
        ax.xaxis.set_major_formatter(_percent())
    if "y" in percent or (label != ylabel and "%" in label):
        ax.yaxis.set_major_formatter(_percent())
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if legend is not None and ax.get_legend_handles_labels()[1]:
        ax.legend(**{"frameon": False, "fontsize": 9, "title_fontsize": 9, **legend})
    return ax


def consistency_band(
    bins: Reliability, share: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where a bin's accuracy would lie if its confidence were right.

    Parameters
    ----------
    bins : Reliability
        ``metrics.reliability(logits, labels)``.
    share : float, default 0.95
        In (0, 1): of calibrated models' bars this share end inside.

    Returns
    -------
    low, high : (n_bins,) float64 arrays
        Fractions in [0, 1]; nan where the bin is empty.

    Raises
    ------
    ValueError, TypeError
        If ``share`` is not in (0, 1).

    References
    ----------
    Bröcker and Smith, Weather and Forecasting 2007: consistency resampling, of which
    this is the exact binomial limit.

    Examples
    --------
    >>> bins = metrics.Reliability(
    ...     np.array([0.0, 1.0]), np.array([100]), np.array([0.5]), np.array([0.4])
    ... )
    >>> consistency_band(bins)
    (array([0.4]), array([0.6]))
    """
    from scipy.special import bdtrik

    share = _check.number("band", share, 0, 1, open_low=True, open_high=True)
    tail = (1 - share) / 2
    n = bins.counts
    full = n > 0
    confidence = np.where(full, bins.confidence, 0.5).clip(1e-12, 1 - 1e-12)
    limits = []
    for quantile in (tail, 1 - tail):
        hits = np.ceil(np.nan_to_num(bdtrik(quantile, n, confidence))).clip(0, n)
        limits.append(np.where(full, hits / np.maximum(n, 1), np.nan))
    return limits[0], limits[1]


def reliability_diagram(
    bins: Reliability,
    ax: Axes | None = None,
    *,
    color: str = LOSS_COLORS["ce"],
    band: float | None = 0.95,
    class_name: str | None = None,
) -> Axes:
    """Show how often the model is right (bars) when it says c (diagonal).

    Hatched is the gap between accuracy and mean confidence; above the bar it is
    overconfidence. Below, on a logarithmic axis: how many samples each bar stands for.
    A bin that would be too narrow to see (of as many samples as others, of a model that
    is nearly always sure) is drawn 0.006 wide.

    Parameters
    ----------
    bins : Reliability
        ``metrics.reliability(logits, labels)``; with its ``class_index`` the view of
        one class.
    ax : Axes, optional
        Where to draw; a new figure of 4.4 x 5 inches if absent.
    color : str
        Of the bars.
    band : float or None, default 0.95
        Where this share of such bars would end if the confidence were right.
    class_name : str, optional
        Of the class that ``bins`` belong to.

    Returns
    -------
    Axes
        ``ax.child_axes[0]`` holds the counts.

    Raises
    ------
    TypeError, ValueError
        If ``bins`` are no bins or ``band`` is not in (0, 1).

    Examples
    --------
    >>> bins = metrics.reliability(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    >>> reliability_diagram(bins).get_ylabel()
    'accuracy (%)'
    """
    if not isinstance(bins, metrics.Reliability):
        _check.fail(
            "bins",
            f"got {type(bins).__name__}",
            "pass metrics.reliability(logits, labels)",
            TypeError,
        )
    ax = _new_axes(4.4, 5) if ax is None else ax
    _draw_accuracy(ax, bins, color, band)
    # above 100 % there is room for the legend
    ax.set(xlim=(0, 1), ylim=(0, 1.36), yticks=np.linspace(0, 1, 6))
    ax.tick_params(labelbottom=False)
    asked = f"probability of {class_name}" if class_name else "confidence"
    happened = f"truly {class_name}" if class_name else "accuracy"
    legend = {
        "loc": "upper center",
        "ncols": 2,
        "columnspacing": 1,
        "borderaxespad": 0,
        "title": f"ECE {100 * bins.ece:.2f} %, n = {bins.counts.sum():,}",
    }
    _finish(ax, "", f"{happened} (%)", legend, "y")
    ax.spines["left"].set_bounds(0, 1)
    below = ax.inset_axes((0, -0.25, 1, 0.2), sharex=ax)
    _draw_counts(below, bins, color)
    _finish(below, f"{asked} (%)", "n (log)", percent="x")
    return ax


def _bars(bins: Reliability, color: str) -> dict[str, Any]:
    """What matplotlib is told about the bars of the bins that are not empty."""
    full = bins.counts > 0
    left = bins.edges[:-1][full]
    right = bins.edges[1:][full]
    width = np.maximum(right - left, _NARROWEST_BAR)
    return {
        "x": np.clip((left + right - width) / 2, 0, 1 - width),
        "width": width,
        "align": "edge",
        "color": color,
        "edgecolor": "white",
        "linewidth": 0.5,
    }


def _draw_accuracy(ax: Axes, bins: Reliability, color: str, band: float | None) -> None:
    """Bars, their gaps to the confidence, the band and the diagonal."""
    full = bins.counts > 0
    accuracy = bins.accuracy[full]
    solid = _bars(bins, color)
    hatched = {**solid, "color": "none", "edgecolor": "#333333", "hatch": "/////"}
    ax.bar(height=accuracy, label="accuracy", **solid)
    gap = bins.gap[full]
    ax.bar(height=gap, bottom=accuracy, label="gap to confidence", **hatched)
    if band is not None:
        low, high = (limit[full] for limit in consistency_band(bins, band))
        ax.errorbar(
            solid["x"] + solid["width"] / 2,
            (low + high) / 2,
            (high - low) / 2,
            label=f"{100 * band:.6g}% if calibrated",
            **_SPAN,
        )
    ax.plot([0, 1], [0, 1], label="perfect calibration", **_THIN)


def _draw_counts(ax: Axes, bins: Reliability, color: str) -> None:
    """How many samples each bar stands for, on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    counts = bins.counts[bins.counts > 0]
    ax.bar(height=counts, log=True, **_bars(bins, color))
    ax.set_ylim(0.7, None)
    ax.yaxis.set_major_locator(LogLocator(numticks=4))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def confusion_matrix(
    logits: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    class_names: Sequence[object] | None = None,
    ax: Axes | None = None,
    *,
    probabilities: bool = False,
) -> Axes:
    """Where the samples of each class (rows) go (columns), in percent of the row.

    Parameters
    ----------
    logits : (N, K) tensor or array
        Scores, of which the first largest is the prediction.
    labels : (N,) tensor or array of integers
        Class ids in [0, K).
    class_names : sequence of K names, optional
        Else the ids.
    ax : Axes, optional
        Where to draw; a new figure if absent.
    probabilities : bool, default False
        True: ``logits`` holds probabilities; rows that do not sum to 1 are refused.

    Returns
    -------
    Axes
        A class without samples has a blank row. Up to 12 classes the cells hold
        numbers, beyond that there is a colour bar.

    Raises
    ------
    ValueError, TypeError
        If an argument is malformed.

    Examples
    --------
    >>> ax = confusion_matrix(np.eye(2), np.array([0, 0]), ["cat", "dog"])
    >>> [text.get_text() for text in ax.texts]
    ['50', '50']
    """
    import pandas as pd

    probabilities = _check.boolean("probabilities", probabilities)
    scores, truth = _check.logits_and_labels(logits, labels)
    if probabilities:
        _check.check_probabilities(scores)
    else:
        _check.warn_of_probabilities(scores)
    k = scores.shape[1]
    names: list[object] = list(range(k))
    if class_names is not None:
        names = _check.listed("class_names", class_names)
    if len(names) != k:
        _check.fail(
            "class_names",
            f"has {len(names)} names for {k} classes",
            "pass one name per column of logits",
        )
    written = [drawable(name) for name in names]
    if scores.dtype.itemsize < 4:  # numpy has no bfloat16
        scores = scores.float()
    percents = _row_percents(scores.cpu().numpy(), truth.cpu().numpy())
    if ax is None:
        side = 1.8 + 0.45 * min(k, 10)
        ax = _new_axes(side, side)
    _draw_percents(ax, pd.DataFrame(percents, written, written))
    return ax


def _draw_percents(ax: Axes, percents: DataFrame) -> None:
    """A coloured square a cell; with numbers if there is room, else a colour bar."""
    import seaborn as sns
    from matplotlib.colors import PowerNorm

    k = len(percents)
    has_room = k <= 12
    every = 1 if has_room else math.ceil(k / 10)
    numbers = None
    if has_room:
        numbers = percents.map("{:.0f}".format).replace(["0", "nan"], "")
    sns.heatmap(
        percents,
        ax=ax,
        square=True,
        cmap="Blues",
        norm=PowerNorm(0.5, 0, 100),
        xticklabels=every,
        yticklabels=every,
        annot=numbers,
        fmt="",
        annot_kws={"fontsize": 9},
        cbar=not has_room,
        cbar_kws={"label": "% of the row", "shrink": 0.7},
    )
    across = "predicted class (% of the row)" if has_room else "predicted class"
    ax.set(xlabel=across, ylabel="true class")


def _row_percents(
    scores: NDArray[Any], truth: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Where the samples of each class go, (K, K); nan where a class has none."""
    k = scores.shape[1]
    pairs = truth * k + scores.argmax(1)
    counts = np.bincount(pairs, minlength=k * k).reshape(k, k)
    totals = np.where(counts.any(1), counts.sum(1), np.nan)
    percents: NDArray[np.float64] = 100 * counts / totals[:, None]
    return percents


def training_curves(
    history: DataFrame | Mapping[str, DataFrame], axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """NLL, error and ECE by epoch of the splits that ``history`` has.

    Parameters
    ----------
    history : DataFrame or mapping from losses to DataFrames
        ``runs.load_history(run_dir)``: columns ``epoch``, ``train_nll``, ``test_ece``,
        ... A mapping is drawn without validation curves. Training values are means over
        the epoch, while the network changes.
    axes : three Axes, optional
        Where to draw; a new figure of 10 x 3.2 inches if absent.

    Returns
    -------
    sequence of three Axes

    Raises
    ------
    ValueError
        If a table has no epochs, or the axes are not three.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"epoch": [1, 2], "train_nll": [1.0, 0.5]})
    >>> [line.get_label() for line in training_curves(table)[0].lines]
    ['train']
    """
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    tables = [*history.values()] if isinstance(history, Mapping) else [history]
    for table in tables:
        if "epoch" not in getattr(table, "columns", ()):
            problem = f"got {type(table).__name__} without a column 'epoch'"
            cure = "pass runs.load_history(run_dir), or a mapping of such tables"
            _check.fail("history", problem, cure)
    if axes is None:
        figure = plt.figure(figsize=(10, 3.2), layout="constrained")
        axes = list(figure.subplots(1, 3))
    if len(axes) != 3:
        _check.fail("axes", f"are {len(axes)}", "pass three: NLL, error, ECE")
    for ax, metric in zip(axes, ("nll", "error", "ece"), strict=True):
        if isinstance(history, Mapping):
            for index, (name, table) in enumerate(history.items()):
                color = loss_color(name, index)
                for split in ("train", "test"):
                    label = f"{_label(name)} {split}"
                    _draw_curve(ax, table, split, metric, label, color)
        else:
            for split, color in _SPLIT_COLORS.items():
                _draw_curve(ax, history, split, metric, split, color)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylim(0, None)
        _finish(ax, "epoch", metric, {} if metric == "nll" else None)
    return axes


def _draw_curve(
    ax: Axes, table: DataFrame, split: str, metric: str, label: str, color: str
) -> None:
    """A metric of one split by epoch, if the table has it."""
    column = f"{split}_{metric}"
    if column in table:
        measured = table.dropna(subset=column)
        dots_and_dash = "." + _SPLIT_DASHES[split]
        ax.plot(
            measured["epoch"],
            measured[column],
            dots_and_dash,
            color=color,
            label=label,
        )


def temperatures(calibrators: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """The temperature by confidence; above 1 softens, below 1 sharpens.

    Parameters
    ----------
    calibrators : mapping from names to fitted calibrators
        With ``temperatures`` (ATS: a step a bin, as wide as its share of the
        validation samples, which must be the same for all; where confidences are tied,
        to a bin) or one ``temperature``: of ETS, which mixes, that of one part.
    ax : Axes, optional
        Where to draw; a new figure of 6.4 x 3.6 inches if absent.

    Returns
    -------
    Axes
        Its vertical axis is logarithmic.

    Raises
    ------
    ValueError
        If a calibrator has no temperature, does more to its logits than that (``sms``),
        or is not fitted.

    Examples
    --------
    >>> from gcelib import TemperatureScaling
    >>> logits, labels = np.array([[2.0, 0.0]] * 4), np.array([0, 0, 0, 1])
    >>> ax = temperatures({"ts_nll": TemperatureScaling().fit(logits, labels)})
    >>> ax.get_ylabel()
    'temperature'
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    ax = _new_axes(6.4, 3.6) if ax is None else ax
    for index, (name, calibrator) in enumerate(calibrators.items()):
        one = getattr(calibrator, "temperature", None)
        found: Any = getattr(calibrator, "temperatures", one)
        is_all = calibrator.keeps_predictions  # no weight or bias comes after it
        if found is None or not is_all or not calibrator.fitted:
            _check.fail(
                "calibrators",
                f"{name!r} has no temperature",
                "pass fitted TS, ETS or ATS",
            )
        values = np.atleast_1d(found.cpu().numpy())
        edges = np.linspace(0, 1, len(values) + 1)
        if len(values) > 1:
            edges = calibrator.thresholds.cpu().numpy()
        grid = _shares_below(edges)
        line = _without_marker(_line(name, index))
        is_filled = np.diff(grid) > 0
        steps = np.append(0, grid[1:][is_filled])
        ax.stairs(values[is_filled], steps, baseline=None, **line)
        if len(values) > 1:
            step = math.ceil(len(values) / 8)
            ticks = dict(zip(grid[::step], edges[::step], strict=True))
            ax.set_xticks([*ticks], [f"{100 * edge:.4g}" for edge in ticks.values()])
    ax.axhline(1, **_THIN)
    ax.set(yscale="log", xlim=(0, 1))
    low, high = ax.get_ylim()  # of the logarithmic axis: both are above zero
    ax.set_ylim(min(low, 0.7), max(high, 1.5))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    across = "validation samples, least confident first; ticks: their confidence (%)"
    return _finish(ax, across, "temperature", {})


def _shares_below(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of samples below each edge of bins that were to hold equally many.

    Edges that are one and the same have tied samples between them, all in the bin below
    the first: it reaches to the last, and those above it are empty.
    """
    last_of_run = np.searchsorted(edges, edges, side="right") - 1
    shares: NDArray[np.float64] = last_of_run / (len(edges) - 1)
    return shares


def risk_curves(
    p: ArrayLike,
    risks: Mapping[str, ArrayLike],
    truth: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Expected loss of a predicted probability, above its minimum (the marker).

    Parameters
    ----------
    p : (M,) array
        Predicted probabilities.
    risks : mapping from losses to (M,) arrays
        The expected loss of each prediction.
    truth : float, optional
        The true probability; strictly proper losses have their markers there.
    ax : Axes, optional
        Where to draw; a new figure of 5.2 x 3.8 inches if absent.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If a curve has not one number for each p; nan (0 log 0) leaves a gap.

    Examples
    --------
    >>> p = np.array([0.2, 0.5, 0.8])
    >>> ax = risk_curves(p, {"brier": (p - 0.5) ** 2}, truth=0.5)
    >>> [line.get_label() for line in ax.lines]
    ['Brier', 'truth']
    """
    from matplotlib.patches import Rectangle

    ax = _new_axes(5.2, 3.8) if ax is None else ax
    # The markers sit on the axis, so the curves may hang out below, but not sideways.
    frame = Rectangle((0, -0.1), 1, 1.1, transform=ax.transAxes)
    predicted = np.asarray(p)
    curves = {name: np.asarray(values) for name, values in risks.items()}
    for name, risk in curves.items():
        if risk.shape != predicted.shape or np.isnan(risk).all():
            problem = f"{name!r} has {np.isfinite(risk).sum()} risks of {risk.shape}"
            _check.fail("risks", problem, "pass one number for each p")
    cheapest = [int(np.nanargmin(risk)) for risk in curves.values()]
    for index, (name, risk) in enumerate(curves.items()):
        best = cheapest[index]
        line = _line(name, index)
        later = predicted[cheapest[index + 1 :]]
        n_above = int(np.sum(np.abs(later - predicted[best]) < 0.01))
        # Larger where others are drawn on top of it: its rim is seen.
        line["markersize"] += 6 * min(n_above, 2)
        (drawn,) = ax.plot(p, risk - risk[best], markevery=[best], zorder=3, **line)
        drawn.set_clip_path(frame)
    if truth is not None:
        ax.axvline(truth, label="truth", **_THIN)
    ax.set_ylim(0, None)
    return _finish(ax, "predicted probability", "expected loss above its minimum", {})


def bars_with_intervals(
    table: DataFrame,
    metric: str = "ece",
    x: str = "loss",
    hue: str | None = None,
    ax: Axes | None = None,
    points: bool = False,
) -> Axes:
    """``metric`` with its interval for each ``x`` and, side by side, each ``hue``.

    Parameters
    ----------
    table : DataFrame
        With the columns ``x``, ``hue``, ``metric`` and, where there are intervals,
        ``<metric>_low`` and ``<metric>_high``, as ``metrics.evaluate`` names them;
        drawn in this order.
    metric : str, default "ece"
        What the bars show.
    x, hue : str
        Columns of places and of kinds. If ``x`` is the loss, colours tell losses, and
        hatches (or markers) tell the hue.
    ax : Axes, optional
        Where to draw; a new figure if absent.
    points : bool, default False
        Markers, on an axis that need not start at 0, for differences too small for
        bars.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        If a column is missing, bars of several rows would hide each other, an interval
        ends below its beginning, or ``table`` is no DataFrame of pandas.

    References
    ----------
    The paper's Figures 1 and 2.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"loss": ["ce", "gce"], "ece": [0.04, 0.02]})
    >>> [text.get_text() for text in bars_with_intervals(table).get_xticklabels()]
    ['CE', 'GCE']
    """
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        problem = f"must be a DataFrame of pandas, got {type(table).__name__}"
        _check.fail("table", problem, "pass pandas.DataFrame(table)", TypeError)
    needed = [column for column in (x, hue, metric) if column]
    if f"{metric}_low" in table or f"{metric}_high" in table:
        needed += [f"{metric}_low", f"{metric}_high"]
    _check.known_keys("table", needed, list(table))
    # Without a name (None, NaN) is a place or a kind as well.
    spots_of_rows, places = pd.factorize(table[x], use_na_sentinel=False)
    kinds: list[Any] = [None]
    kinds_of_rows = np.zeros(len(table), int)
    if hue:
        kinds_of_rows, found = pd.factorize(table[hue], use_na_sentinel=False)
        kinds = list(found)
    if not points:
        _refuse_bars_in_one_place(spots_of_rows, kinds_of_rows)
    if ax is None:
        ax = _new_axes(max(5, 1.5 + 0.25 * len(places) * (len(kinds) + 1)), 3.6)
    width = 0.84 / max(len(kinds), 1.4)
    colors_tell_x = x == "loss" or not hue
    for j, kind in enumerate(kinds):
        of_kind = kinds_of_rows == j
        rows = table[of_kind]
        spots = spots_of_rows[of_kind]
        at = spots + (j - (len(kinds) - 1) / 2) * width
        colors = [loss_color(kind, j)] * len(rows)
        if colors_tell_x:
            placed = zip(rows[x], spots, strict=True)
            colors = [loss_color(place, spot) for place, spot in placed]
        values = rows[metric].to_numpy(float)
        label = _label(kind) if hue else None
        if points:
            marker = style(kind, j).marker
            ax.scatter(at, values, 50, c=colors, marker=marker, label=label)
        else:
            pattern = _pattern(j, len(kinds)) if hue and colors_tell_x else {}
            look: dict[str, Any] = {
                "edgecolor": "white",
                "linewidth": 0.5,
                "label": label,
                **pattern,
            }
            ax.bar(at, values, width, color=colors, **look)
        if f"{metric}_low" in table:
            _draw_intervals(ax, at, rows, metric, behind=points)
    ax.set_xticks(range(len(places)), [_label(place) for place in places])
    legend = {"loc": "upper left", "bbox_to_anchor": (1, 1), "title": hue}
    return _finish(ax, x, metric, legend if hue else None)


def _refuse_bars_in_one_place(spots: NDArray[np.intp], kinds: NDArray[np.intp]) -> None:
    """Refuse rows of one place and kind: the highest bar would hide the others."""
    _, counts = np.unique(np.stack([spots, kinds]), axis=1, return_counts=True)
    if counts.size and counts.max() > 1:
        problem = f"has {counts.max()} rows for one bar"
        _check.fail("table", problem, "average them first, or pass points=True")


def _pattern(j: int, n_kinds: int) -> dict[str, Any]:
    """What tells the j-th of ``n_kinds`` bars where the colour tells something else."""
    return {
        "alpha": 0.3 + 0.7 * (j + 1) / n_kinds,
        "hatch": _HATCHES[j % len(_HATCHES)],
    }


def _draw_intervals(
    ax: Axes, at: NDArray[np.float64], rows: DataFrame, metric: str, *, behind: bool
) -> None:
    """The intervals at their places: behind markers, in front of bars."""
    low = rows[f"{metric}_low"].to_numpy(float)
    high = rows[f"{metric}_high"].to_numpy(float)
    if bool((low > high).any()):
        at_row = int(np.argmax(low > high))
        problem = f"has an interval from {low[at_row]:g} down to {high[at_row]:g}"
        cure = f"look whether {metric}_low and {metric}_high are exchanged"
        _check.fail("table", problem, cure)
    middle = (low + high) / 2
    ax.errorbar(at, middle, (high - low) / 2, zorder=0 if behind else 3, **_SPAN)


def roc_curves(
    pairs: Mapping[str, tuple[ArrayLike | Tensor, ArrayLike | Tensor]],
    ax: Axes | None = None,
    *,
    probabilities: bool = False,
) -> Axes:
    """How well entropy tells out-of-distribution samples from test samples.

    Parameters
    ----------
    pairs : mapping from names to (in-distribution logits, OOD logits)
        Each (N, K); the curve runs over all thresholds.
    ax : Axes, optional
        Where to draw; a new figure of 4.6 x 4.4 inches if absent.
    probabilities : bool, default False
        True: ``pairs`` hold probabilities; rows that do not sum to 1 are refused.

    Returns
    -------
    Axes
        The legend states each AUROC in percent.

    Raises
    ------
    ValueError, TypeError
        If logits are malformed.

    Examples
    --------
    >>> sure, unsure = np.array([[9.0, 0.0]]), np.array([[0.0, 0.0]])
    >>> roc_curves({"gce": (sure, unsure)}).lines[0].get_label()
    'GCE, 100.0 %'
    """
    if not isinstance(pairs, Mapping):
        cure = 'pass {"gce": (logits, ood_logits), ...}'
        _check.fail("pairs", f"got {type(pairs).__name__}", cure, TypeError)
    drawn = {}
    for name, pair in pairs.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            cure = "pass (logits of test samples, logits of OOD samples)"
            _check.fail("pairs", f"{name!r} is no pair", cure, TypeError)
        scores = [metrics.log_entropy(z, probabilities=probabilities) for z in pair]
        area = metrics.ood_auroc(*pair, probabilities=probabilities)
        drawn[name] = ([np.sort(values) for values in scores], area)
    ax = _new_axes(4.6, 4.4) if ax is None else ax
    for index, (name, (scores, area)) in enumerate(drawn.items()):
        thresholds = np.unique(np.concatenate(scores))[::-1]
        steps = np.concatenate(([np.inf], thresholds))
        # The shares at or above each threshold: of test samples, of OOD samples.
        alarms, found = (1 - np.searchsorted(s, steps) / len(s) for s in scores)
        line = _line(name, index)
        line["label"] += f", {100 * area:.1f} %"
        ax.plot(alarms, found, markevery=(0.03 * index + 0.03, 0.3), **line)
    ax.plot([0, 1], [0, 1], **_THIN)
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    legend = {"loc": "lower right", "title": "AUROC"}
    return _finish(ax, "false alarms (%)", "OOD samples detected (%)", legend, "xy")


def entropy_histograms(
    logits: Mapping[str, Any],
    ax: Axes | None = None,
    n_bins: int = 30,
    *,
    probabilities: bool = False,
) -> Axes:
    """The entropy of the predictions in each data set, as shares of its samples.

    Parameters
    ----------
    logits : mapping from the data sets' names to logits (N, K)
        The first, in-distribution, is drawn filled.
    ax : Axes, optional
        Where to draw; a new figure of 5.2 x 3.6 inches if absent.
    n_bins : int, default 30
        Of equal width over [0, log K].
    probabilities : bool, default False
        True: ``logits`` hold probabilities; rows that do not sum to 1 are refused.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        If logits are malformed.

    Examples
    --------
    >>> ax = entropy_histograms({"test": np.array([[9.0, 0.0]])})
    >>> ax.get_xlabel()
    'entropy of the prediction (nats)'
    """
    n_bins = _check.number("n_bins", n_bins, 1, 10_000, integer=True)
    if not isinstance(logits, Mapping) or not logits:
        problem = f"got {type(logits).__name__} {logits!r:.40}"
        _check.fail("logits", problem, 'pass {"test": logits, ...}', TypeError)
    scores = {name: _check.as_tensor("logits", z) for name, z in logits.items()}
    drawn = {
        name: metrics.entropy(z, probabilities=probabilities)
        for name, z in scores.items()
    }
    numbers_of_classes = {z.shape[1] for z in scores.values()}
    if len(numbers_of_classes) > 1:
        problem = f"have {sorted(numbers_of_classes)} classes"
        _check.fail("logits", problem, "pass logits of one model")
    ax = _new_axes(5.2, 3.6) if ax is None else ax
    top = np.log(numbers_of_classes.pop())
    for index, (name, entropies) in enumerate(drawn.items()):
        counts, edges = np.histogram(entropies, n_bins, (0, top))
        outline = _without_marker(_line(None, index))
        filled = {"color": outline["color"], "fill": True, "alpha": 0.5}
        look = {**(filled if index == 0 else outline), "label": drawable(name)}
        ax.stairs(counts / len(entropies), edges, **look)
    across = "entropy of the prediction (nats)"
    return _finish(ax, across, "share of the samples (%)", {}, "y")
