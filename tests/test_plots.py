"""The figures: what is drawn equals the numbers, says what it is and fits the page."""

import subprocess
import sys
import types
import warnings

import matplotlib as mpl
import nbconvert
import nbformat
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.dates import MonthLocator
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.text import Text
from matplotlib.ticker import (
    EngFormatter,
    FixedFormatter,
    FixedLocator,
    FormatStrFormatter,
    Formatter,
    PercentFormatter,
)
from nbclient import NotebookClient

from gcelib import calibration, losses, metrics, plots
from gcelib.view import alt, styles

PAPER = ["ce", "brier", "mmce", "flsd", "dfl", "afl", "gce"]


@pytest.fixture(autouse=True)
def _strict():
    """Any warning fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def sample(n=400, k=5, scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), labels] += 1
    return (scale * logits).astype(np.float32), labels


def bars(ax):
    return [
        container for container in ax.containers if isinstance(container, BarContainer)
    ]


def whiskers(container):
    """(x, low, high) of an error bar container: (N, 3)."""
    segments = container.lines[2][0].get_segments()
    return np.array([[s[0, 0], s[0, 1], s[1, 1]] for s in segments])


def legend_texts(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


def history(epochs=4, every=2):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"epoch": range(1, epochs + 1)})
    for column in (
        "train_nll",
        "train_error",
        *(f"{s}_{m}" for s in ("val", "test") for m in ("nll", "error", "ece")),
    ):
        table[column] = rng.random(epochs)
        if not column.startswith("train"):
            table.loc[table.epoch % every > 0, column] = np.nan
    return table


def fitted(name, **options):
    """A fitted calibrator; that the small sample leads it to a bound is no matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return calibration.make_calibrator(name, **options).fit(*sample())


def table_of_losses(hue=True):
    rows = []
    for i, loss in enumerate(PAPER):
        for j, calibrator in enumerate(("raw", "ts_nll", "ats")[: 3 if hue else 1]):
            ece = 0.01 * (i + 1) + 0.001 * j
            rows.append(
                dict(
                    loss=loss,
                    calibrator=calibrator,
                    ece=ece,
                    ece_low=ece - 0.004,
                    ece_high=ece - 0.001,
                )
            )
    return pd.DataFrame(rows)  # basic intervals of ECE may well end below the point


FIGURES = {
    "reliability": lambda: plots.reliability_diagram(metrics.reliability(*sample())),
    "reliability by mass": lambda: plots.reliability_diagram(
        metrics.reliability(*sample(), binning="mass")
    ),
    "one class": lambda: plots.reliability_diagram(
        metrics.reliability(*sample(), class_index=2), class_name="Ankle boot"
    ),
    "confusion": lambda: plots.confusion_matrix(
        *sample(), class_names=["T-shirt/top", "Ankle boot", "c", "d", "e"]
    ),
    "confusion of 100": lambda: plots.confusion_matrix(*sample(3000, 100)),
    "curves": lambda: plots.training_curves(history())[0],
    "two curves": lambda: plots.training_curves({"ce": history(), "gce": history()})[0],
    "temperatures": lambda: plots.temperatures(
        {n: fitted(n) for n in ("ts_nll", "ats", "ats_converged")}
    ),
    "risks": lambda: plots.risk_curves(
        np.linspace(0, 1, 50), {"ce": np.linspace(-1, 1, 50) ** 2}, truth=0.5
    ),
    "bars": lambda: plots.bars_with_intervals(table_of_losses(hue=False)),
    "bars by calibrator": lambda: plots.bars_with_intervals(
        table_of_losses(), hue="calibrator"
    ),
    "points": lambda: plots.bars_with_intervals(
        table_of_losses(), x="calibrator", hue="loss", points=True
    ),
    "roc": lambda: plots.roc_curves({"gce": (sample()[0], sample(scale=0.5)[0])}),
    "entropy": lambda: plots.entropy_histograms(
        {"test": sample()[0], "noise": sample(scale=0.5)[0]}
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_fits_is_legible_and_changes_no_setting(name):
    before = dict(mpl.rcParams)
    ax = FIGURES[name]()
    figure = ax.figure
    figure.canvas.draw()
    assert dict(mpl.rcParams) == before
    assert len(plt.get_fignums()) == 1
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert drawn.x0 > -0.01
    assert drawn.y0 > -0.01
    assert drawn.x1 < width + 0.01
    assert drawn.y1 < height + 0.01
    assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text()) >= 9
    lowest = ax.child_axes[0] if ax.child_axes else ax
    assert lowest.get_xlabel()
    assert ax.get_ylabel()


@pytest.mark.parametrize("name", ["reliability", "confusion", "risks", "entropy"])
def test_given_axes_are_used_and_returned_without_pyplot(name):
    ax = Figure(layout="constrained").add_subplot()
    bins = metrics.reliability(*sample())
    drawn = {
        "reliability": lambda: plots.reliability_diagram(bins, ax=ax),
        "confusion": lambda: plots.confusion_matrix(*sample(), ax=ax),
        "risks": lambda: plots.risk_curves([0.1, 0.2], {"ce": [1.0, 0.5]}, ax=ax),
        "entropy": lambda: plots.entropy_histograms({"test": sample()[0]}, ax=ax),
    }[name]()
    assert drawn is ax
    assert plt.get_fignums() == []


# Colours


def luminance(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
def test_every_loss_colour_stands_out_on_light_and_dark(page):
    """WCAG 2.1, 1.4.11: graphics need a contrast of 3:1."""
    for name, color in [*plots.LOSS_COLORS.items(), *enumerate(plots.OTHER_COLORS)]:
        low, high = sorted([luminance(color), luminance(page)])
        assert (high + 0.05) / (low + 0.05) >= 2.99, name


# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


def cielab(color, vision):
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(vision) @ linear, 0, 1)
    to_xyz = np.array(
        [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    )
    # Linear part near black is not needed here.
    x, y, z = np.cbrt(to_xyz @ seen / to_xyz.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_the_papers_losses_differ_in_colour_for_every_reader(vision):
    seen = [cielab(plots.LOSS_COLORS[name], VISION[vision]) for name in PAPER]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) > 20  # about ten times a just noticeable difference
    others = [cielab(color, VISION[vision]) for color in plots.OTHER_COLORS]
    assert (
        min(np.linalg.norm(a - b) for i, a in enumerate(others) for b in others[:i])
        > 15
    )
    losses_seen = [
        cielab(color, VISION["normal"]) for color in plots.LOSS_COLORS.values()
    ]
    seen = [cielab(color, VISION["normal"]) for color in plots.OTHER_COLORS]
    # No calibrator looks like a loss.
    assert min(np.linalg.norm(a - b) for a in seen for b in losses_seen) > 25


def test_all_losses_and_calibrators_have_their_own_colour_label_and_marker():
    assert set(plots.LOSS_COLORS) == set(plots.LOSS_LABELS) == set(losses.LOSSES)
    for names in (list(losses.LOSSES), ["raw", *calibration.CALIBRATORS]):
        rows = [plots.style(name) for name in names]
        for field in ("label", "color", "marker"):
            assert len({getattr(row, field) for row in rows}) == len(names), field
        assert all(
            plots.LABELS[name] == row.label
            for name, row in zip(names, rows, strict=True)
        )
    p = np.linspace(0, 1, 5)
    lines = plots.risk_curves(p, {name: p for name in plots.LOSS_COLORS}).lines
    assert [line.get_marker() for line in lines] == [
        plots.style(n).marker for n in losses.LOSSES
    ]
    assert [to_hex(line.get_color()) for line in lines] == list(
        plots.LOSS_COLORS.values()
    )
    assert [line.get_label() for line in lines] == list(plots.LOSS_LABELS.values())


def test_calibrators_are_told_apart_by_every_reader_and_look_like_no_loss():
    colors = [
        row.color for name, row in plots.STYLES.items() if name not in losses.LOSSES
    ]
    for vision in VISION.values():
        seen = [cielab(color, vision) for color in colors]
        assert (
            min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i])
            > 15
        )
    normal = VISION["normal"]
    of_losses = [cielab(color, normal) for color in plots.LOSS_COLORS.values()]
    assert (
        min(
            np.linalg.norm(cielab(c, normal) - loss)
            for c in colors
            for loss in of_losses
        )
        > 12
    )


def test_losses_and_calibrators_without_a_style_look_like_nothing_else(monkeypatch):
    named = {"gen_ce": "", "poly": "Poly 1"}
    for name, label in named.items():
        row = losses.LossRow(losses.CrossEntropyLoss, label=label)
        monkeypatch.setitem(losses.LOSSES, name, row)
    row = calibration.CalibratorRow("Histogram", calibration.TemperatureScaling)
    monkeypatch.setitem(calibration.ALL_CALIBRATORS, "histogram", row)
    found = [plots.style(name, 3) for name in (*named, "histogram")]
    assert [look.label for look in found] == ["gen_ce", "Poly 1", "Histogram"]
    looks = [*plots.STYLES.values(), *found]
    for field in ("label", "color"):
        assert len({getattr(look, field) for look in looks}) == len(looks)
    assert len({look.marker for look in [*plots.STYLES.values(), *found]}) == 11 + 3
    assert found == [plots.style(name, 4) for name in (*named, "histogram")]


def test_a_style_without_an_owner_does_not_hang_on_what_else_is_there(monkeypatch):
    row = losses.LossRow(losses.CrossEntropyLoss)
    monkeypatch.setitem(losses.LOSSES, "gen_ce", row)
    alone = plots.style("gen_ce")
    monkeypatch.setitem(losses.LOSSES, "later", row)
    assert plots.style("gen_ce") == alone
    for i in range(9):
        monkeypatch.setitem(losses.LOSSES, f"many {i}", row)
    assert {plots.style(f"many {i}").color for i in range(9)} <= {
        look.color for look in styles.NEUTRAL
    }


def test_neutral_styles_stand_out_and_look_like_no_row():
    rows = [cielab(row.color, VISION["normal"]) for row in plots.STYLES.values()]
    seen = [cielab(look.color, VISION["normal"]) for look in styles.NEUTRAL]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) > 12
    assert min(np.linalg.norm(a - b) for a in seen for b in rows) > 8
    for look in styles.NEUTRAL:
        for page in ("#ffffff", "#111111"):
            low, high = sorted([luminance(look.color), luminance(page)])
            assert (high + 0.05) / (low + 0.05) >= 2.99


def test_other_names_take_their_own_palette_in_turn():
    palette = plots.OTHER_COLORS
    assert plots.loss_color("gce", 3) == plots.LOSS_COLORS["gce"]
    assert [plots.loss_color("mine", i) for i in range(len(palette) + 1)] == [
        *palette,
        palette[0],
    ]
    assert plots.LABELS["mine"] == plots.style("mine", 20).label == "mine"


def test_a_calibrator_keeps_its_colour_wherever_it_stands():
    one = plots.temperatures({name: fitted(name) for name in ("ts_nll", "ets")})
    other = plots.temperatures({name: fitted(name) for name in ("ets", "ts_nll")})
    looks = [
        {p.get_label(): p.get_edgecolor() for p in ax.patches} for ax in (one, other)
    ]
    assert looks[0] == looks[1]


def test_twenty_names_that_nobody_knows_can_be_drawn():
    names = [f"loss {i}" for i in range(20)]
    p = np.linspace(0, 1, 5)
    assert len(plots.risk_curves(p, {name: p for name in names}).lines) == 20
    table = pd.DataFrame({"loss": names, "fit": names, "ece": 0.1})
    assert len(bars(plots.bars_with_intervals(table, hue="fit"))) == 20
    pairs = {name: (sample()[0], sample(scale=0.5)[0]) for name in names}
    assert len(plots.roc_curves(pairs).lines) == 21
    logits = {name: sample()[0] for name in names}
    assert len(plots.entropy_histograms(logits).patches) == 20


ODD = ["$^$", r"\$^$", "a$b", "_x", "\ud800", "\x00", "two\nlines", " ", "", r"$\frac$"]


def test_any_name_can_be_drawn_and_stays_in_the_legend():
    p = np.linspace(0, 1, 5)
    logits, labels = sample()
    half = pd.DataFrame({"loss": "ce", "fit": ODD, "ece": 0.1})
    table = pd.concat([half, half.assign(loss="gce")])
    drawn = [
        plots.risk_curves(p, {name: p for name in ODD}),
        plots.roc_curves({name: (logits, logits) for name in ODD}),
        plots.entropy_histograms({name: logits for name in ODD}),
        plots.bars_with_intervals(table, hue="fit"),
        plots.bars_with_intervals(table, x="fit", hue="loss", points=True),
        plots.temperatures({name: fitted("ts_nll") for name in ODD}),
        plots.training_curves({name: history() for name in ODD if name})[0],
        plots.confusion_matrix(*sample(k=len(ODD)), class_names=ODD),
    ]
    bins = metrics.reliability(logits, labels, class_index=1)
    drawn += [
        plots.reliability_diagram(bins, class_name=name) for name in ("$^$", "\ud800")
    ]
    for ax in drawn:
        ax.figure.canvas.draw()
    for ax in (drawn[0], drawn[1], drawn[2], drawn[3], drawn[5]):
        assert len(legend_texts(ax)) == len(ODD)


def test_importing_the_figures_loads_no_drawing_library():
    code = "import sys, gcelib.view.plots; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"matplotlib", "seaborn", "scipy", "pandas"} & set(run.stdout.split())


# Descriptions


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_in_words_what_its_axes_show(name):
    ax = FIGURES[name]()
    words = alt.description(ax.figure)
    lowest = ax.child_axes[0] if ax.child_axes else ax
    assert lowest.get_xlabel() in words
    assert ax.get_ylabel() in words
    assert plots.describe(ax, "A cat\n  sits.") is ax
    assert alt.description(ax.figure) == "A cat sits."


def of_lines(ax):
    ax.plot([100, 1000, 4000], [20.5, np.nan, 3.14159], label="CE")
    ax.plot([100, 1000, 4000], [9, 9, 9])  # a line without a name is no result
    ax.axhline(0)


def of_named_bars(ax):
    ax.bar(["shirt", "bag", "coat"], [4.0, -2.0, 1.0])


def of_bars_across(ax):
    ax.barh(["shirt", "bag", "coat"], [4.0, -2.0, 1.0])


def of_error_bars(ax):
    ax.errorbar([4.0, -2.0, 1.0], ["shirt", "bag", "coat"], xerr=9, fmt="o")


def of_bars_beside_each_other(ax):
    for i, (name, heights) in enumerate({"CE": [1, 3], "GCE": [4, 2]}.items()):
        ax.bar(np.arange(2) + 0.4 * i - 0.2, heights, 0.4, label=name)
    ax.set_xticks([0, 1], ["raw", "TS"])


def of_stacked_bars(ax):
    ax.bar(["x", "y"], [3.0, 2.0], label="A")
    ax.bar(["x", "y"], [1.0, 5.0], bottom=[3.0, 2.0], label="B")


def of_numbers_as_names(ax):
    ax.plot(["1000", "2000", "4000"], [2, 3, 1])
    ax.lines[0].set_label("n")


def of_large_whole_numbers(ax):
    ax.plot([1024, 2048], [0.12345, 2], label="n")


def of_places_moved_aside(ax):
    sizes = np.array([200, 1000, 4000])
    ax.plot(sizes / 1.07**2, [3, 2, 1], label="bins")
    ax.plot(sizes, [1, 2, 3], label="kernel")
    ax.set(xscale="log")
    ax.set_xticks([200, 1000, 4000], ["200", "1000", "4000"])


def of_epochs_between_ticks(ax):
    ax.plot([1, 2, 7, 12], [4, 5, 1, 3], label="CE")
    ax.set_xticks([1, 4, 8, 12])


def of_ticks_below_zero(ax):
    ax.plot([1, 2, 3], [-0.3, 0.45, 0.2], label="A")
    ax.set_yticks([-1, 0, 1])


def of_written_percent(ax):
    ax.plot([1, 2], [0.3, 0.6], label="A")
    ax.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])


def of_thousands(ax):
    ax.plot([0, 1], [3, 2], label="A")
    ax.set_xticks([0, 1], ["1,000", "2k"])


def of_points(ax):
    ax.scatter([1, 2], [0.5, 0.25], label="tail")
    ax.set_xticks([1, 2], ["1", "2"])


def of_fractions_in_percent(ax):
    table = pd.DataFrame({"loss": ["ce", "gce"], "ece": [0.0456, 0.02]})
    plots.bars_with_intervals(table, ax=ax, points=True)


def of_places_near_ticks(ax):
    ax.plot([0.9, 1.1, 2, 3], [3, 1, 2, 4], label="T")
    ax.plot([1.1], [1], "o", label="fit")
    ax.set_xticks([1, 2, 3])


def of_a_half_year(ax):
    ax.plot([2023, 2024.5, 2026], [3, 9, 4], label="CE")
    ax.set_xticks([2023, 2024, 2025, 2026])


def of_a_peak_by_confidence(ax):
    confidence = np.linspace(0, 1, 101)
    ax.plot(confidence, 1 - (confidence - 0.87) ** 2, label="CE")
    ax.set_xticks([0, 0.5, 1])
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def of_counted_ratios(ax):
    rows = {"rho": [10, 10, 100, 100], "loss": ["ce", "gce"] * 2}
    table = pd.DataFrame({**rows, "ece": [0.05, 0.03, 0.09, 0.07]})
    plots.bars_with_intervals(table[:3], x="rho", hue="loss", ax=ax)


def of_lines_that_leave_the_axes(ax):
    ax.plot([50, 100, 200], [38.3, 1.5, 0.5], label="matrix")
    ax.set_ylim(0, 2)


def of_stacked_bars_that_leave_the_axes(ax):
    ax.bar(["x", "y"], [3.0, 2.0], label="A")
    ax.bar(["x", "y"], [1.0, 5.0], bottom=[3.0, 2.0], label="B")
    ax.set_ylim(0, 4)


def of_bars_across_at_numbers(ax):
    ax.barh([1, 2, 3], [5.0, 9.0, 7.0])


def of_pandas_bars_across(ax):
    pd.Series([5.0, 9.0, 7.0], index=[16, 32, 64], name="ECE").plot.barh(ax=ax)


def of_pandas_numbers_as_names(ax):
    sizes = [str(2**k) for k in range(4, 16)]
    values = [9.0, 8, 7, 6, 5, 4, 3, 4, 5, 6, 10, 8]  # lowest at 1024, highest at 16384
    pd.DataFrame({"ECE": values}, index=sizes).plot(ax=ax)


def of_numbers_as_names_at_some_places(ax):
    ax.plot(range(5), [5.0, 9, 7, 3, 6], label="CE")
    ax.set_xticks([0, 2, 4], ["16", "64", "256"])


def of_a_formatter_for_percent(ax):
    ax.plot([1, 2], [0.0456, 0.09], label="CE")
    ax.yaxis.set_major_formatter(PercentFormatter(1))


def of_a_format_that_rounds(ax):
    ax.plot([1, 2], [14.27, 14.4], label="CE")
    ax.yaxis.set_major_formatter("{x:.0f} points")


def of_dates(ax):
    days = np.array(["2026-01-01", "2026-01-02T06:30"], dtype="datetime64[s]")
    ax.plot(days, [5, 9], label="CE")


def of_dates_with_a_time_zone(ax):
    days = pd.date_range("2026-01-01", periods=3, tz="Asia/Tokyo")
    ax.plot(days, [9, 5, 7], label="CE")


def of_pandas_own_days(ax):
    days = pd.date_range("2026-01-01", periods=3)
    pd.DataFrame({"CE": [9.0, 5.0, 7.0]}, index=days).plot(ax=ax)


def of_pandas_own_months(ax):
    months = pd.period_range("2026-01", periods=3, freq="M")
    pd.DataFrame({"CE": [9.0, 5.0, 7.0]}, index=months).plot.bar(ax=ax)


def of_pandas_own_hours(ax):
    hours = pd.timedelta_range("1h", periods=3, freq="h")
    pd.DataFrame({"CE": [9.0, 5.0, 7.0]}, index=hours).plot(ax=ax)


def of_days_that_are_named_by_hand(ax):
    errors = pd.Series([9.0, 5, 7, 8], index=pd.date_range("2026-01-01", periods=4))
    errors.plot(ax=ax, label="CE")
    ax.set_xticks(errors.index[::3], ["first", "last"])


def of_a_zone_that_the_formatter_has(ax):
    days = pd.date_range("2026-01-01", periods=3, tz="Asia/Tokyo")
    ax.plot(days, [9, 5, 7], label="CE")
    ax.xaxis.set_major_locator(MonthLocator())


def of_categories_with_few_ticks(ax):
    ax.plot([f"day {k}" for k in range(9)], [5, 6, 9, 5, 5, 5, 5, 2, 5], label="CE")
    ax.set_xticks([0, 4, 8])


def of_a_format_that_cuts_off(ax):
    ax.plot([1, 2, 3], [14.2, 14.7, 14.8], label="CE")
    ax.yaxis.set_major_formatter(FormatStrFormatter("%d%%"))


def of_what_is_seen(ax):
    ax.plot([1, 2], [5, 6], label="CE")
    ax.plot([1, 2], [50, 60], label="hidden", visible=False)
    ax.scatter([0.1], [0.9], transform=ax.transAxes, label="mark")
    masked = np.ma.masked_equal([7, -999], -999)
    ax.scatter([1, 2], masked, label="GCE")


def of_units(ax):
    ax.plot([0.001, 0.002, 0.5], [9, 5, 7], label="CE")
    ax.xaxis.set_major_formatter(EngFormatter("s"))


class InPercent(Formatter):
    def __call__(self, x, pos=None):
        return f"{100 * x:.0f} %"


def of_a_formatter_of_ones_own(ax):
    ax.plot([1, 2], [0.1234, 0.5], label="CE")
    ax.yaxis.set_major_formatter(InPercent())


def of_whole_numbers_as_labels(ax):
    ax.plot([1, 2], [0.5, 0.25], label="CE")
    ax.xaxis.set_major_locator(FixedLocator([1, 2]))
    ax.xaxis.set_major_formatter(FixedFormatter([1, 2]))


def of_lines_from_side_to_side(ax):
    ax.plot([1, 5], [3, 9], label="CE")
    ax.axvline(3, label="bins")
    ax.axhline(5, label="limit")
    ax.axline((1, 1), slope=1, label="diagonal")


SHIRTS = "lowest -2 at bag, highest 4 at shirt"
READ_OFF = {
    of_lines: "CE lowest 3.14 at 4000, highest 20.5 at 100",
    of_named_bars: SHIRTS,
    of_bars_across: SHIRTS,
    of_error_bars: SHIRTS,
    of_bars_beside_each_other: "CE lowest 1 at raw, highest 3 at TS; GCE lowest 2 at "
    "TS, highest 4 at raw",
    of_fractions_in_percent: "lowest 2 at GCE, highest 4.56 at CE",
    of_stacked_bars: "A lowest 2 at y, highest 3 at x; B lowest 1 at x, highest 5 at y",
    of_numbers_as_names: "n lowest 1 at 4000, highest 3 at 2000",
    of_large_whole_numbers: "n lowest 0.123 at 1024, highest 2 at 2048",
    of_places_moved_aside: "bins lowest 1 at 4000, highest 3 at 200; kernel lowest 1 "
    "at 200, highest 3 at 4000",
    of_places_near_ticks: "T lowest 1 at 1.1, highest 4 at 3; fit lowest 1 at 1.1, "
    "highest 1 at 1.1",
    of_a_half_year: "CE lowest 3 at 2023, highest 9 at 2024.5",
    of_a_peak_by_confidence: "CE lowest 0.243 at 0 %, highest 1 at 87 %",
    of_counted_ratios: "CE lowest 5 at 10, highest 9 at 100; GCE lowest 3 at 10, "
    "highest 3 at 10",
    of_lines_that_leave_the_axes: "matrix lowest 0.5 at 200, highest 38.3 at 50 "
    "(beyond the axis)",
    of_stacked_bars_that_leave_the_axes: "A lowest 2 at y, highest 3 at x; B lowest 1 "
    "at x, highest 5 at y (beyond the axis)",
    of_bars_across_at_numbers: "lowest 5 at 1, highest 9 at 2",
    of_pandas_bars_across: "ECE lowest 5 at 16, highest 9 at 32",
    of_pandas_numbers_as_names: "ECE lowest 3 at 1024, highest 10 at 16384",
    of_numbers_as_names_at_some_places: (
        "CE lowest 3 at a place between 64 and 256, highest 9 at a place between 16 "
        "and 64"
    ),
    of_a_formatter_for_percent: "CE lowest 4.56% at 1, highest 9% at 2",
    of_a_format_that_rounds: "CE lowest 14.3 points at 1, highest 14.4 points at 2",
    of_dates: "CE lowest 5 at 2026-01-01, highest 9 at 2026-01-02 06:30",
    of_dates_with_a_time_zone: "CE lowest 5 at 2026-01-02, highest 9 at 2026-01-01",
    of_pandas_own_days: "CE lowest 5 at 2026-01-02, highest 9 at 2026-01-01",
    of_pandas_own_months: "CE lowest 5 at 2026-02, highest 9 at 2026-01",
    of_pandas_own_hours: "CE lowest 5 at 02:00:00, highest 9 at 01:00:00",
    of_days_that_are_named_by_hand: "CE lowest 5 at 2026-01-02, highest 9 at first",
    of_a_zone_that_the_formatter_has: "CE lowest 5 at 2026-01-02, highest 9 at "
    "2026-01-01",
    of_categories_with_few_ticks: "CE lowest 2 at day 7, highest 9 at day 2",
    of_a_format_that_cuts_off: "CE lowest 14.2% at 1, highest 14.8% at 3",
    of_what_is_seen: "CE lowest 5 at 1, highest 6 at 2; GCE lowest 7 at 1, highest 7 "
    "at 1",
    of_units: "CE lowest 5 at 2 ms, highest 9 at 1 ms",
    of_a_formatter_of_ones_own: "CE lowest 12.3 % at 1, highest 50 % at 2",
    of_whole_numbers_as_labels: "CE lowest 0.25 at 2, highest 0.5 at 1",
    of_lines_from_side_to_side: "CE lowest 3 at 1, highest 9 at 5; bins at 3; limit 5 "
    "everywhere",
    of_epochs_between_ticks: "CE lowest 1 at 7, highest 5 at 2",
    of_ticks_below_zero: "A lowest -0.3 at 1, highest 0.45 at 2",
    of_written_percent: "A lowest 30 % at 1, highest 60 % at 2",
    of_thousands: "A lowest 2 at 2k, highest 3 at 1,000",
    of_points: "tail lowest 0.25 at 2, highest 0.5 at 1",
}


@pytest.mark.parametrize("draw", READ_OFF, ids=lambda draw: draw.__name__)
def test_a_description_by_values_says_what_is_drawn(draw):
    figure = Figure()
    ax = figure.add_subplot(title="ρ = 10")
    draw(ax)
    assert plots.describe_values(ax, "What") is ax
    assert alt.description(figure) == f"What: ρ = 10: {READ_OFF[draw]}."


def described(draw):
    figure = Figure()
    draw(figure.add_subplot())
    return alt.description(plots.describe_values(figure, "What"))


# Four values at 1, 2, 3, 4: read along y, whatever the ticks are called.
@pytest.mark.parametrize(
    ("ticks", "texts", "lowest", "highest"),
    [
        ([0, 50, 100], ["0 ms", "50 ms", "100 ms"], "12 ms", "95 ms"),
        ([0, 50, 100], ["0", "50 ms", "100 ms"], "12 ms", "95 ms"),
        ([0, 50, 100], ["€0", "€50", "€100"], "€12", "€95"),
        ([0, 50, 100], ["0", "0.5k", "1k"], "120", "950"),
        ([0, 50, 100], ["0", "0,5", "1,0"], "0.12", "0.95"),
        ([0, 60, 120], ["0 min", "1 min", "2 min"], "0.2 min", "1.58 min"),
        ([0, 50, 100], ["never", "half", "always"], "12", "95"),
        ([0, 30, 50, 100], ["0", "chance", "50", "100"], "12", "95"),
        ([0, 30, 50, 100], ["0", "30 (chance)", "50", "100"], "12", "95"),
        ([12, 74, 30, 95], ["12 s", "74 s", "30 s", "95 s"], "12 s", "95 s"),
        ([10, 100], ["1", "2"], "12", "95"),  # logarithms: no factor
    ],
)
@pytest.mark.parametrize("kind", ["line", "points", "bars", "error bars"])
def test_names_and_units_of_value_ticks_exchange_no_axes(
    kind, ticks, texts, lowest, highest
):
    values = [12, 74, 30, 95]

    def draw(ax):
        if kind == "line":
            ax.plot([1, 2, 3, 4], values, label="CE")
        elif kind == "points":
            ax.scatter([1, 2, 3, 4], values, label="CE")
        elif kind == "bars":
            ax.bar([1, 2, 3, 4], values, label="CE")
        else:
            ax.errorbar([1, 2, 3, 4], values, yerr=2, label="CE")
        ax.set_yticks(ticks, texts)

    told = f"What: CE lowest {lowest} at 1, highest {highest} at 4."
    assert described(draw) == told


def test_bars_are_read_along_themselves_whatever_the_ticks_of_their_values():
    def across(ax):
        ax.barh([1, 2, 3], [5, 9, 7], label="CE")
        ax.set_xticks([0, 5, 10], ["none", "some", "many"])

    assert described(across) == "What: CE lowest 5 at 1, highest 9 at 2."


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([0.1, 0.3, 0.5], "lowest 2 at 30, highest 9 at 50"),
        ([0.0, 0.5, 1.0], "lowest 2 at 50, highest 9 at 100"),
    ],
)
def test_places_under_ticks_in_percent_have_one_unit(places, told):
    def draw(ax):
        ax.plot(places, [5, 2, 9], label="CE")
        ax.set_xticks([0, 0.5, 1], ["0", "50", "100"])

    assert described(draw) == f"What: CE {told}."


def test_fractions_under_ticks_in_percent_have_one_unit():
    def draw(ax):
        ax.plot([1, 2, 3], [0.37, 0.45, 0.5], label="CE")
        ax.axhline(0.4, label="chance")
        ax.set_yticks([0, 0.5, 1], ["0", "50", "100"])

    told = "What: CE lowest 37 at 1, highest 50 at 3; chance 40 everywhere."
    assert described(draw) == told


def test_places_between_named_ticks_are_called_by_no_name():
    def draw(ax):
        ax.plot([0, 37, 80, 100], [5, 2, 9, 6], label="CE")
        ax.plot([0, 37, 100], [5, 2, 9], label="GCE")
        ax.set_xticks([0, 100], ["start", "end"])

    told = "CE lowest 2 at 37, highest 9 at 80; GCE lowest 2 at 37, highest 9 at end"
    assert described(draw) == f"What: {told}."


def test_points_scattered_around_names_are_at_these():
    def draw(ax):
        ax.scatter([-0.2, 0.1, 0.9, 1.2], [5, 2, 9, 6], label="CE")
        ax.set_xticks([0, 1], ["raw", "TS"])

    assert described(draw) == "What: CE lowest 2 at raw, highest 9 at TS."


def test_error_bars_along_x_are_of_values_along_x():
    def draw(ax):
        ax.errorbar([0.1, -0.2, 0.3], [1, 2, 3], xerr=0.05, fmt="o", label="gap")

    assert described(draw) == "What: gap lowest -0.2 at 2, highest 0.3 at 3."


@pytest.mark.parametrize(
    "names", [["CE", "GCE", "AFL"], ["seed 1", "seed 2", "seed 3"]]
)
def test_points_at_names_one_below_the_other_are_read_across(names):
    def draw(ax):
        ax.plot([0.1, -0.2, 0.3], [1.1, 2.1, 3.1], "o", label="a")
        ax.plot([0.5, 0.4, 0.6], [1, 2, 3], "o", label="b")
        ax.plot([], [], "o", label="none of c")
        ax.set_yticks([1, 2, 3], names)

    a = f"a lowest -0.2 at {names[1]}, highest 0.3 at {names[2]}"
    b = f"b lowest 0.4 at {names[1]}, highest 0.6 at {names[2]}"
    assert described(draw) == f"What: {a}; {b}."


def test_a_line_that_comes_back_to_a_name_shows_it_as_its_value():
    def draw(ax):
        ax.plot([1, 2, 3, 4], [0, 1, 1, 0], label="CE")
        ax.set_yticks([0, 1], ["wrong", "right"])

    assert described(draw) == "What: CE lowest 0 at 1, highest 1 at 2."


@pytest.mark.parametrize(
    ("values", "lowest", "highest"),
    [
        ([0.9991, 0.9996], "0.999", "0.9996"),
        ([99.961, 99.4], "99.4", "99.96"),
        ([-0.99996, -0.5], "-0.99996", "-0.5"),
        ([123456, 123499], "123456", "123499"),
        ([123456.7, 1234.56], "1235", "123457"),
        ([0.1 + 0.2, 1 - 1e-16], "0.3", "1"),
        ([1e-12, 0.0], "0", "1e-12"),
    ],
)
def test_rounding_never_reaches_a_power_of_ten_nor_drops_whole_digits(
    values, lowest, highest
):
    places = range(1, 1 + len(values))
    low, high = 1 + np.argmin(values), 1 + np.argmax(values)
    told = f"What: CE lowest {lowest} at {low}, highest {highest} at {high}."
    assert described(lambda ax: ax.plot(places, values, label="CE")) == told
    assert "at 0.9996" in described(lambda ax: ax.plot([0.9996], [2], label="CE"))


def test_what_has_no_place_is_not_read():
    places = [np.nan, np.inf, 2, 3]
    told = described(lambda ax: ax.plot(places, [1, 9, 5, 6], label="CE"))
    assert told == "What: CE lowest 5 at 2, highest 6 at 3."


def test_a_formatter_that_rounds_is_read_with_the_digits_of_the_numbers():
    def draw(ax):
        ax.plot([1, 2, 3], [0.001, 0.002, 0.0004], label="CE")
        ax.yaxis.set_major_formatter(lambda value, _: f"{1000 * value:.0f}")

    assert described(draw) == "What: CE lowest 0.4 at 3, highest 2 at 2."


@pytest.mark.parametrize(
    ("rule", "values", "told"),
    [
        # Of 10 ** v three digits of what is read, not of its logarithm.
        (
            lambda v: f"{np.power(10.0, v):g}",
            np.log10([221.65, 9412.3]),
            "lowest 222 at 0, highest 9412 at 1",
        ),
        (lambda v: f"{10**v:g}", [1.5, 2.5], "lowest 31.6 at 0, highest 316 at 1"),
        (
            lambda v: f"{10.0**v:,.0f}",
            np.log10([1.284e6, 25.56e6]),
            "lowest 1,284,000 at 0, highest 25,560,000 at 1",
        ),
        (
            lambda v: f"{v:,.1f}",
            [1234.5, 8765.7],
            "lowest 1,234.5 at 0, highest 8,765.7 at 1",
        ),
        (
            "${x:,.2f}",
            [1234.56, 98765.43],
            "lowest $1,234.56 at 0, highest $98,765.43 at 1",
        ),
        ("{x:.0%}", [0.1234, 0.5], "lowest 12.3% at 0, highest 50% at 1"),
        (
            lambda v: f"{v:.1f}".replace(".", ","),
            [1.04, 22.26],
            "lowest 1,04 at 0, highest 22,3 at 1",
        ),
        (
            lambda v: f"{int(v // 60)}:{int(v % 60):02d}",
            [754.6, 801.2],
            "lowest 12:34 at 0, highest 13:21 at 1",
        ),
        (
            lambda v: f"{1 / v:.2f}" if v else "",
            [0.5, 0.333333, 0.125],
            "lowest 2.00 at 0, highest 8.00 at 2",
        ),
        (
            lambda v: f"{1 / v:.5f}",
            [0.5, 0.75],
            "lowest 1.33 at 1, highest 2.00000 at 0",
        ),
        (lambda v: f"{abs(v):g} k", [-5, -2, -9], "lowest 2 k at 1, highest 9 k at 2"),
        (lambda v: f"{-v:.0f}", [-0.25, -3.5], "lowest 0.25 at 0, highest 3.5 at 1"),
        (lambda v: {0: "none"}[v], [3, 0], "lowest none at 1, highest 3 at 0"),
        (lambda v: f"{v.no_number}", [3, 2.3456], "lowest 2.35 at 1, highest 3 at 0"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_formatter_is_read_of_the_number_as_it_is(rule, values, told):
    def draw(ax):
        ax.plot(range(len(values)), values, label="CE")
        is_text = isinstance(rule, str)
        ax.yaxis.set_major_formatter(rule if is_text else lambda value, _: rule(value))

    assert described(draw) == f"What: CE {told}."


def test_axes_in_three_dimensions_are_refused():
    figure = Figure()
    ax = figure.add_subplot(projection="3d")
    ax.plot([1, 2], [1, 2], [0.5, 0.6], label="CE")
    with pytest.raises(ValueError, match="drawn: has axes in three dimensions"):
        plots.describe_values(figure, "What")


def test_bars_along_dates_are_no_dates():
    figure = Figure()
    ax = figure.add_subplot()
    ax.barh(["a", "b"], [3, 4], left=[20000, 20003], label="runs")
    ax.xaxis_date()
    with pytest.warns(UserWarning, match="has no labelled line"):
        plots.describe_values(figure, "What")


def test_dates_with_names_of_their_own_are_dates_between_these():
    days = np.array(["2026-01-01", "2026-02-01", "2026-03-01"], dtype="datetime64[D]")

    def draw(ax):
        ax.plot(days, [5, 2, 9], label="CE")
        ax.set_xticks(days[::2], ["Jan", "Mar"])

    assert described(draw) == "What: CE lowest 2 at 2026-02-01, highest 9 at Mar."


def test_a_description_by_values_that_finds_none_says_so():
    figure = Figure()
    figure.add_subplot().boxplot([[1, 2, 3], [4, 5, 6]])
    with pytest.warns(UserWarning, match=r"drawn: has no labelled line.*describe"):
        plots.describe_values(figure, "Errors")
    assert alt.description(figure) == "Errors."


def test_a_notebooks_figures_reach_html_with_their_descriptions(caplog, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)
    sources = [
        "import matplotlib.pyplot as plt; from gcelib import plots",
        "plt.plot([1, 2]); plt.xlabel('epoch'); plt.ylabel('5 < $x$')",
        "ax = plots.risk_curves([0.1, 0.2], {'ce': [1, 2]})\n"
        "plots.describe(ax, 'Falling & rising.')",
        "from matplotlib_inline.backend_inline import set_matplotlib_formats\n"
        "set_matplotlib_formats('retina'); plt.plot([2, 1]); plt.figure()",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3
    for picture in pictures:
        png = "".join(picture.data["image/png"].split())
        alternative = picture.metadata["image/png"]["alt"]
        assert picture.data["text/html"] == alt.image(png, alternative)
    assert pictures[1].metadata["image/png"]["alt"] == "Falling & rising."
    assert pictures[2].metadata["image/png"]["width"] > 100
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    assert "Alternative text is missing" not in caplog.text
    assert "No description has been provided" not in page
    assert 'alt="Figure: 5 &lt; $x$' in page
    assert 'alt="Falling &amp; rising."' in page


@pytest.mark.parametrize("name", FIGURES)
def test_an_axis_called_percent_multiplies_fractions_by_100(name):
    ax = FIGURES[name]()
    axes = ax.figure.axes if name.endswith("curves") else [ax, *ax.child_axes]
    for axis in [axis for one in axes for axis in (one.xaxis, one.yaxis)]:
        # Those have texts of their own.
        if axis.get_label_text() and "ticks:" not in axis.get_label_text():
            percent = axis.get_major_formatter()(0.25, 0) == "25"
            assert percent == ("(%)" in axis.get_label_text()), axis.get_label_text()


# Reliability diagrams


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("class_index", [None, 1])
def test_reliability_bars_are_the_bins(binning, class_index):
    bins = metrics.reliability(
        *sample(), n_bins=12, binning=binning, class_index=class_index
    )
    ax = plots.reliability_diagram(bins, color="#123456")
    full = bins.counts > 0
    accuracy, gap = bars(ax)
    (counts,) = bars(ax.child_axes[0])
    np.testing.assert_allclose([b.get_height() for b in accuracy], bins.accuracy[full])
    np.testing.assert_allclose([b.get_y() for b in gap], bins.accuracy[full])
    np.testing.assert_allclose(
        [b.get_y() + b.get_height() for b in gap], bins.confidence[full]
    )
    np.testing.assert_array_equal([b.get_height() for b in counts], bins.counts[full])
    wide = np.diff(bins.edges)[full] >= 0.006
    assert wide.sum() > 5
    for container in (accuracy, gap, counts):
        left = np.array([b.get_x() for b in container])
        width = np.array([b.get_width() for b in container])
        np.testing.assert_allclose(left[wide], bins.edges[:-1][full][wide])
        np.testing.assert_allclose(width[wide], np.diff(bins.edges)[full][wide])
    assert (
        to_hex(accuracy[0].get_facecolor())
        == to_hex(counts[0].get_facecolor())
        == "#123456"
    )
    assert (
        ax.get_legend().get_title().get_text() == f"ECE {100 * bins.ece:.2f} %, n = 400"
    )
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "0",
        "20",
        "40",
        "60",
        "80",
        "100",
    ]


def test_bins_of_a_model_that_is_nearly_always_sure_can_be_seen():
    rng = np.random.default_rng(0)
    logits = np.zeros((400, 2))
    logits[:, 0] = 60 * np.sqrt(rng.uniform(size=400))  # most are 1 to ten digits
    bins = metrics.reliability(logits, rng.integers(0, 2, 400), 12, "equal")
    assert (np.diff(bins.edges) < 1e-6).sum() > 5
    for container in bars(plots.reliability_diagram(bins)):
        for bar, low, high in zip(
            container, bins.edges[:-1], bins.edges[1:], strict=True
        ):
            left, right = bar.get_x(), bar.get_x() + bar.get_width()
            assert right - left >= 0.006 - 1e-12
            assert -1e-12 <= left <= low + 1e-12
            assert high - 1e-12 <= right <= 1 + 1e-12


def test_reliability_leaves_empty_bins_out():
    logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 0.1]])
    ax = plots.reliability_diagram(
        metrics.reliability(logits, np.array([0, 1, 1]), n_bins=10)
    )
    accuracy, _ = bars(ax)
    assert [(round(b.get_x(), 6), b.get_height()) for b in accuracy] == [
        (0.5, 1.0),
        (0.9, 0.5),
    ]


@pytest.mark.parametrize(
    ("band", "said"), [(0.5, "50%"), (0.95, "95%"), (0.975, "97.5%"), (0.999, "99.9%")]
)
def test_reliability_band_is_the_central_binomial_range(band, said):
    bins = metrics.reliability(*sample(scale=1.0), n_bins=10)
    full = bins.counts > 0
    ax = plots.reliability_diagram(bins, band=band)
    (container,) = [c for c in ax.containers if isinstance(c, ErrorbarContainer)]
    n, c = bins.counts[full], bins.confidence[full]
    low, high = (
        scipy.stats.binom.ppf(q, n, c) / n for q in ((1 - band) / 2, (1 + band) / 2)
    )
    np.testing.assert_allclose(whiskers(container)[:, 1], low, atol=1e-12)
    np.testing.assert_allclose(whiskers(container)[:, 2], high, atol=1e-12)
    assert f"{said} if calibrated" in legend_texts(ax)


def test_reliability_band_holds_what_calibrated_models_show():
    """Labels drawn from the model's own probabilities: 80 % of the bars end inside."""
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(15):
        logits = rng.normal(size=(5000, 3))
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        labels = (probs.cumsum(1) < rng.random((5000, 1))).sum(1).clip(0, 2)
        bins = metrics.reliability(logits, labels, n_bins=12)
        ax = plots.reliability_diagram(bins, ax=Figure().add_subplot(), band=0.8)
        _, low, high = whiskers(ax.containers[2]).T
        accuracy = bins.accuracy[bins.counts > 0]
        inside += list((accuracy >= low - 1e-9) & (accuracy <= high + 1e-9))
    assert len(inside) > 100
    assert 0.75 < np.mean(inside) < 0.9  # a little above 0.8: counts are whole


def test_reliability_without_band_and_of_certain_predictions():
    bins = metrics.reliability(np.array([[800.0, 0.0], [0.0, 800.0]]), np.array([0, 1]))
    ax = plots.reliability_diagram(bins, band=None)
    assert not any(isinstance(c, ErrorbarContainer) for c in ax.containers)
    (container,) = [
        c
        for c in plots.reliability_diagram(bins).containers
        if isinstance(c, ErrorbarContainer)
    ]
    np.testing.assert_allclose(whiskers(container)[:, 1:], [[1, 1]])


def test_reliability_of_one_class_is_named():
    bins = metrics.reliability(*sample(), class_index=0)
    ax = plots.reliability_diagram(bins, class_name="Shirt")
    assert ax.child_axes[0].get_xlabel() == "probability of Shirt (%)"
    assert ax.get_ylabel() == "truly Shirt (%)"


def test_reliability_title_stays_clear_of_the_legend():
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    for ax in figure.subplots(1, 2):
        plots.reliability_diagram(metrics.reliability(*sample()), ax=ax).set_title(
            "as trained"
        )
    figure.draw_without_rendering()
    for ax in figure.axes:
        legend = ax.get_legend().get_window_extent()
        title = ax.title.get_window_extent()
        assert title.y0 >= legend.y1
        # Nor does the legend cover a bar.
        assert legend.y0 >= ax.transData.transform((0, 1))[1]


def test_reliability_refuses_what_is_not_bins():
    with pytest.raises(TypeError, match=r"bins: got tuple; pass metrics\.reliability"):
        plots.reliability_diagram(sample())
    with pytest.raises(ValueError, match="band: 95"):
        plots.reliability_diagram(metrics.reliability(*sample()), band=95)


# Confusion matrices


def test_confusion_matrix_shows_percent_of_each_row():
    labels = np.array([0] * 200 + [1] * 4)
    predictions = np.array([0] * 150 + [1] * 49 + [2] + [1, 1, 2, 0])
    logits = 5 * np.eye(3)[predictions]
    ax = plots.confusion_matrix(logits, labels, class_names=["a", "b", "c"])
    assert [t.get_text() for t in ax.texts] == [
        "75",
        "24",
        "",
        "25",
        "50",
        "25",
    ]  # nothing in c: its row is blank
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
    values = ax.collections[0].get_array().filled(np.nan)
    np.testing.assert_allclose(values, [[75, 24.5, 0.5], [25, 50, 25], [np.nan] * 3])


@pytest.mark.parametrize("names", [{2: "c", 0: "a", 1: "b"}, {"a", "b", "c"}, "abc"])
def test_confusion_matrix_refuses_names_without_an_order(names):
    with pytest.raises(TypeError, match=r"^class_names: must be a list of names"):
        plots.confusion_matrix(np.eye(3), np.arange(3), names)


def test_confusion_matrix_takes_bfloat16():
    scores = torch.eye(3, dtype=torch.bfloat16)
    ax = plots.confusion_matrix(scores, torch.tensor([0, 0, 2]))
    assert [text.get_text() for text in ax.texts if text.get_text()] == [
        "50",
        "50",
        "100",
    ]


def test_confusion_matrix_of_many_classes_has_a_colour_bar_and_few_ticks():
    ax = plots.confusion_matrix(*sample(2000, 100))
    assert len(ax.texts) == 0
    assert ax.figure.axes[1].get_ylabel() == "% of the row"
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        str(i) for i in range(0, 100, 10)
    ]


def test_confusion_matrix_refuses_a_wrong_number_of_names():
    with pytest.raises(ValueError, match="class_names: has 2 names for 5 classes"):
        plots.confusion_matrix(*sample(), class_names=["a", "b"])


# Training curves


def test_training_curves_draw_what_was_evaluated():
    table = history(epochs=6, every=3)
    axes = plots.training_curves(table)
    assert [[line.get_label() for line in ax.lines] for ax in axes] == [
        ["train", "val", "test"],
        ["train", "val", "test"],
        ["val", "test"],
    ]
    for ax, metric in zip(axes, ("nll", "error", "ece"), strict=True):
        for line in ax.lines:
            seen = table[["epoch", f"{line.get_label()}_{metric}"]].dropna().to_numpy()
            np.testing.assert_allclose(line.get_xydata(), seen)
    assert list(axes[0].lines[2].get_xdata()) == [3, 6]
    assert [ax.get_ylabel() for ax in axes] == ["NLL (nats)", "error (%)", "ECE (%)"]
    assert [line.get_linestyle() for line in axes[0].lines] == ["--", ":", "-"]


@pytest.mark.parametrize("mapping", [dict, types.MappingProxyType])
def test_training_curves_of_losses_wear_their_colours(mapping):
    axes = plots.training_curves(mapping({"ce": history(), "gce": history()}))
    assert [line.get_label() for line in axes[0].lines] == [
        "CE train",
        "CE test",
        "GCE train",
        "GCE test",
    ]
    expected = [plots.LOSS_COLORS[name] for name in ("ce", "ce", "gce", "gce")]
    assert [line.get_color() for line in axes[0].lines] == expected


def test_training_curves_begin_with_one_epoch_or_none_evaluated():
    axes = plots.training_curves(history(epochs=1, every=5))
    assert [len(line.get_xdata()) for line in axes[0].lines] == [1, 0, 0]
    # A single point has no line to be seen by.
    assert axes[0].lines[0].get_marker() == "."


# Temperatures


def test_temperatures_are_a_step_a_bin():
    ats, ts = fitted("ats", n_bins=6), fitted("ts_nll")
    ax = plots.temperatures({"ats": ats, "ts_nll": ts})
    steps = [patch for patch in ax.patches if isinstance(patch, StepPatch)]
    values, edges, _ = steps[0].get_data()
    np.testing.assert_allclose(values, ats.temperatures)
    np.testing.assert_allclose(edges, np.arange(7) / 6)
    np.testing.assert_allclose(steps[1].get_data()[0], [float(ts.temperature)])
    assert legend_texts(ax) == ["ATS", "TS (NLL)"]
    ticks = [float(t.get_text()) for t in ax.get_xticklabels()]
    np.testing.assert_allclose(ticks, 100 * ats.thresholds, rtol=1e-3)


def test_temperatures_of_saturated_samples_stand_over_all_of_them():
    """A third of the samples is sure: one bin holds them, those above it are empty."""
    g = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(900, 3, generator=g)
    logits[::3] = torch.tensor([60.0, 0.0, 0.0])
    labels = torch.multinomial(logits.softmax(1), 1, generator=g)[:, 0]
    labels[:30:3] = 1  # else nothing says how far it may go
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ats = calibration.make_calibrator("ats_converged", n_bins=10)
        ats.fit(logits, labels)
    ax = plots.temperatures({"ats_converged": ats})
    (steps,) = (patch for patch in ax.patches if isinstance(patch, StepPatch))
    heights, edges, _ = steps.get_data()
    ranks = (np.arange(600, 900) + 0.5) / 900
    drawn = heights[np.searchsorted(edges, ranks, side="right") - 1]
    applied = 60 / float(ats(logits)[0, 0])
    assert applied > 2
    np.testing.assert_allclose(drawn, applied)


@pytest.mark.parametrize(
    "calibrator",
    [
        calibration.TemperatureScaling(),
        calibration.SplineCalibration(),
    ],
)
def test_temperatures_refuse_a_calibrator_that_has_none(calibrator):
    with pytest.raises(ValueError, match="calibrators: 'mine' has no temperature"):
        plots.temperatures({"mine": calibrator})


def test_temperatures_refuse_a_calibrator_that_does_more_with_logits():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 3, generator=generator)
    labels = logits.argmax(1)
    labels[::4] = (labels[::4] + 1) % 3
    sms = calibration.make_calibrator("sms").fit(logits, labels)
    with pytest.raises(ValueError, match="calibrators: 'sms' has no temperature"):
        plots.temperatures({"sms": sms})


# Risks


def test_risk_curves_touch_zero_at_the_marked_minimiser():
    p = np.linspace(0.01, 0.99, 99)
    risks = {
        "ce": -(0.7 * np.log(p) + 0.3 * np.log(1 - p)),
        "brier": torch.tensor(2 * (p - 0.7) ** 2 + 1).numpy(),
    }
    ax = plots.risk_curves(p, risks, truth=0.7)
    for line, risk in zip(ax.lines, risks.values(), strict=False):
        np.testing.assert_allclose(line.get_ydata(), risk - risk.min())
        (at,) = line.get_markevery()
        assert p[at] == pytest.approx(0.7)
    assert legend_texts(ax) == ["CE", "Brier", "truth"]
    assert list(ax.lines[2].get_xdata()) == [0.7, 0.7]


def test_a_risk_that_is_not_defined_somewhere_is_drawn_elsewhere():
    p = np.linspace(0, 1, 11)
    with np.errstate(all="ignore"):
        risk = -(0 * np.log(p) + np.log(1 - p))  # 0 log 0 is nan
    (line,) = plots.risk_curves(p, {"ce": risk}).lines
    np.testing.assert_allclose(line.get_ydata(), risk - risk[1])
    assert line.get_markevery() == [1]
    with pytest.raises(ValueError, match=r"^risks: 'ce' has 0 risks"):
        plots.risk_curves(p, {"ce": np.full(11, np.nan)})


# Bars


def test_bars_have_the_heights_colours_and_intervals_of_the_table():
    table = table_of_losses(hue=False)
    ax = plots.bars_with_intervals(table)
    (heights,) = bars(ax)
    np.testing.assert_allclose([b.get_height() for b in heights], table.ece)
    assert [to_hex(b.get_facecolor()) for b in heights] == [
        plots.LOSS_COLORS[name] for name in PAPER
    ]
    (container,) = [c for c in ax.containers if isinstance(c, ErrorbarContainer)]
    np.testing.assert_allclose(
        whiskers(container),
        np.c_[np.arange(7), table.ece_low, table.ece_high],
        atol=1e-12,
    )
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        plots.LOSS_LABELS[name] for name in PAPER
    ]
    assert ax.get_ylabel() == "ECE (%)"
    assert ax.get_legend() is None


def test_grouped_bars_stand_in_the_order_of_the_table():
    table = table_of_losses()
    ax = plots.bars_with_intervals(table, hue="calibrator")
    assert legend_texts(ax) == ["before", "TS (NLL)", "ATS"]
    for container, name in zip(bars(ax), ("raw", "ts_nll", "ats"), strict=True):
        np.testing.assert_allclose(
            [b.get_height() for b in container], table[table.calibrator == name].ece
        )
        assert [to_hex(b.get_facecolor()) for b in container] == [
            plots.LOSS_COLORS[name] for name in PAPER
        ]
    # Told apart without colour.
    assert len({container[0].get_hatch() for container in bars(ax)}) == 3
    centres = np.array(
        [[b.get_x() + b.get_width() / 2 for b in container] for container in bars(ax)]
    )
    np.testing.assert_allclose(centres[1], np.arange(7), atol=1e-12)
    assert (np.diff(centres, axis=0) > 0).all()
    assert (centres[2, :-1] + 0.14 < centres[0, 1:] - 0.14).all()  # groups do not touch


def test_losses_within_groups_keep_their_colours():
    ax = plots.bars_with_intervals(table_of_losses(), x="calibrator", hue="loss")
    assert legend_texts(ax) == [plots.LOSS_LABELS[name] for name in PAPER]
    assert [to_hex(c[0].get_facecolor()) for c in bars(ax)] == [
        plots.LOSS_COLORS[name] for name in PAPER
    ]


def test_points_need_no_zero():
    table = table_of_losses().assign(ece=lambda t: t.ece + 0.5)[
        ["loss", "calibrator", "ece"]
    ]
    ax = plots.bars_with_intervals(table, x="calibrator", hue="loss", points=True)
    assert ax.get_ylim()[0] > 0.4
    drawn = np.concatenate([c.get_offsets()[:, 1] for c in ax.collections])
    np.testing.assert_allclose(sorted(drawn), sorted(table.ece))
    assert not any(isinstance(c, ErrorbarContainer) for c in ax.containers)


def test_bars_of_an_unknown_metric_and_missing_cells():
    table = pd.DataFrame(
        {
            "dataset": ["a", "b", "b"],
            "loss": ["ce", "ce", "gce"],
            "seconds": [3.0, 5.0, 4.0],
        }
    )
    ax = plots.bars_with_intervals(table, "seconds", x="dataset", hue="loss")
    assert ax.get_ylabel() == "seconds"
    assert [[b.get_height() for b in c] for c in bars(ax)] == [[3, 5], [4]]


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_bars_without_a_name_are_drawn(nothing):
    fits = [nothing, "ts_nll"]
    table = pd.DataFrame(
        {"loss": ["ce", "ce", "gce", "gce"], "fit": 2 * fits, "ece": [4.0, 3, 2, 1]}
    )
    ax = plots.bars_with_intervals(table, hue="fit")
    assert [[b.get_height() for b in c] for c in bars(ax)] == [[4, 2], [3, 1]]
    ax = plots.bars_with_intervals(table, x="fit", hue="loss")
    assert [[b.get_height() for b in c] for c in bars(ax)] == [[4, 3], [2, 1]]


@pytest.mark.parametrize(
    ("history", "axes", "message"),
    [
        ([pd.DataFrame({"epoch": [1]})], None, "^history: got list without a column"),
        ({"ce": pd.DataFrame({"nll": [1]})}, None, "^history: got DataFrame without"),
        (pd.DataFrame({"epoch": [1]}), [None, None], "^axes: are 2; pass three"),
    ],
)
def test_curves_of_something_else_are_refused(history, axes, message):
    with pytest.raises(ValueError, match=message):
        plots.training_curves(history, axes)


def test_bars_that_would_hide_others_are_refused():
    seeds = pd.DataFrame({"loss": ["ce", "gce"] * 3, "ece": np.arange(6.0)})
    with pytest.raises(ValueError, match=r"^table: has 3 rows for one bar; average"):
        plots.bars_with_intervals(seeds)
    ax = plots.bars_with_intervals(seeds, points=True)
    assert len(ax.collections[0].get_offsets()) == 6
    turned = pd.DataFrame({"loss": ["ce"], "ece": 1.0, "ece_low": 2.0, "ece_high": 1})
    with pytest.raises(ValueError, match=r"^table: has an interval from 2 down to 1"):
        plots.bars_with_intervals(turned)
    with pytest.raises(TypeError, match=r"^table: must be a DataFrame of pandas"):
        plots.bars_with_intervals({"loss": ["ce"], "ece": [1.0]})
    half = pd.DataFrame({"loss": ["ce"], "ece": [1.0], "ece_low": [0.5]})
    with pytest.raises(ValueError, match=r"^table: unknown key 'ece_high'"):
        plots.bars_with_intervals(half)


def test_bars_refuse_a_missing_column():
    with pytest.raises(
        ValueError, match=r"table: unknown key 'calibratr'; did you mean 'calibrator'"
    ):
        plots.bars_with_intervals(table_of_losses(), hue="calibratr")


# Out of distribution


def test_roc_curve_has_the_area_that_its_legend_states():
    inside, outside = sample()[0], sample(scale=1.0, seed=1)[0]
    # Ties: entropies of exactly zero on both sides.
    inside[:50] = outside[:50] = np.float32([900, 0, 0, 0, 0])
    # No ties, though float64 holds these entropies as zero, too.
    inside[50:60, 0] = np.arange(1000, 1100, 10)
    outside[50:60, 0] = np.arange(995, 1095, 10)
    ax = plots.roc_curves({"gce": (inside, outside), "ce": (outside, inside)})
    for line, pair in zip(
        ax.lines, [(inside, outside), (outside, inside)], strict=False
    ):
        x, y = line.get_data()
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
        assert np.trapezoid(y, x) == pytest.approx(metrics.ood_auroc(*pair), abs=1e-12)
    area = 100 * metrics.ood_auroc(inside, outside)
    assert legend_texts(ax) == [f"GCE, {area:.1f} %", f"CE, {100 - area:.1f} %"]


def test_entropy_histograms_are_shares_over_the_whole_range():
    ax = plots.entropy_histograms(
        {"test": sample()[0], "noise": np.zeros((50, 5), np.float32)}, n_bins=10
    )
    first, second = (patch.get_data() for patch in ax.patches)
    assert first.values.sum() == pytest.approx(1)
    # Uniform predictions: all at log K, none lost.
    np.testing.assert_allclose(second.values, [0] * 9 + [1])
    np.testing.assert_allclose(first.edges[[0, -1]], [0, np.log(5)])
    assert [patch.get_fill() for patch in ax.patches] == [True, False]
    assert legend_texts(ax) == ["test", "noise"]


def test_a_confusion_matrix_tells_probabilities_and_takes_them():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 30)
    labels = probs.argmax(1)
    with pytest.warns(UserWarning, match="rows are >= 0 and sum to 1"):
        plots.confusion_matrix(probs, labels)
    ax = plots.confusion_matrix(probs, labels, probabilities=True)
    shown = [text.get_text() for text in ax.texts]
    assert shown[::4] == ["100"] * 3
    with pytest.raises(ValueError, match="probabilities lie in"):
        plots.confusion_matrix(10 * probs, labels, probabilities=True)


def test_entropies_of_probabilities_are_drawn_and_bad_pairs_refused():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 3)), 0.3 * rng.normal(size=(30, 3))
    p = tuple(np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in logits)
    told = plots.roc_curves({"gce": p}, probabilities=True).lines[0]
    same = plots.roc_curves({"gce": logits}).lines[0]
    assert told.get_label() == same.get_label()
    np.testing.assert_allclose(told.get_data(), same.get_data())
    heights = [
        plots.entropy_histograms({"a": z[0]}, probabilities=given).patches[0]
        for z, given in ((p, True), (logits, False))
    ]
    for ours, theirs in zip(*(h.get_data()[:2] for h in heights), strict=True):
        np.testing.assert_allclose(ours, theirs)
    for bad in ({"a": (*logits, logits[0])}, [logits], {"a": logits[0]}):
        with pytest.raises(TypeError, match=r"^pairs: .+; pass"):
            plots.roc_curves(bad)
    with pytest.raises(ValueError, match=r"^logits: sum to 0\.9.*not to 1"):
        plots.entropy_histograms({"a": 0.9 * p[0]}, probabilities=True)
    with pytest.raises(ValueError, match=r"^logits: have \[2, 3\] classes"):
        plots.entropy_histograms({"a": logits[0], "b": logits[0][:, :2]})
    with pytest.raises(TypeError, match=r"^logits: got dict"):
        plots.entropy_histograms({})
