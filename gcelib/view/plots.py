"""Every static figure. A loss looks the same wherever it appears. Data are fractions, axes show percent.

Each function draws on the axes ``ax`` (or on a new figure) and returns them. None touches matplotlib's global settings.
"""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.colors import PowerNorm
from matplotlib.ticker import LogLocator, MaxNLocator
from scipy.special import bdtrik

from gcelib import _check, metrics

LOSS_LABELS = dict(ce="CE", brier="Brier", mmce="MMCE", flsd="FLSD", dfl="DFL", afl="AFL", gce="GCE")
LOSS_LABELS |= dict(focal="Focal", ce_ls="CE + LS", gce_ls="GCE + LS", afl_gce="AFL + GCE")
# Searched for: at least 3:1 against white and against #111111, and the paper's seven as far apart as that allows with
# protanopia, deuteranopia and tritanopia. Markers and dashes say the same again.
LOSS_COLORS = dict(ce="#696d72", brier="#1a99fc", mmce="#6ea068", flsd="#88499c", dfl="#e57700", afl="#0952e7")
LOSS_COLORS |= dict(gce="#c11220", focal="#e667ae", ce_ls="#ca813f", gce_ls="#9d4444", afl_gce="#cd3cd4")
OTHER_COLORS = ["#0d9c9c", "#745f18", "#802bfc", "#74a102", "#ed0472"]  # for what is no loss, and unlike any of them
_DASHES = [(), (6, 1.5), (3, 1.5), (1, 1), (6, 2, 1, 2), (3, 1, 1, 1, 1, 1), (), (8, 2), (4, 3), (2, 2), (8, 2, 2, 2)]
_MARKERS, _HATCHES = "os^vDPX<hpd", ["", "////", "....", "xxxx"]
LABELS = LOSS_LABELS | dict(raw="before", ts_nll="TS (NLL)", ts_ece="TS (ECE)", ets="ETS", ats="ATS")
LABELS["ats_converged"] = "ATS, converged"
METRIC_LABELS = dict(error="error (%)", nll="NLL (nats)", brier="Brier score", ece="ECE (%)", auroc="AUROC (%)")
METRIC_LABELS |= dict(adaptive_ece="AdaECE (%)", classwise_ece="ClasswiseECE (%)")
_SPLITS = dict(train=("--", OTHER_COLORS[0]), val=(":", OTHER_COLORS[1]), test=("-", OTHER_COLORS[2]))
_THIN = dict(color="#333333", linewidth=1, linestyle="--")
_SPAN = dict(fmt="none", ecolor="black", elinewidth=1.2, capsize=2.5)


def loss_color(name, index=0):
    """The colour of the loss ``name``; for any other name the ``index``-th of ``OTHER_COLORS``."""
    return LOSS_COLORS.get(name, OTHER_COLORS[index % len(OTHER_COLORS)])


def _line(name, index, **changes):
    i = list(LOSS_COLORS).index(name) if name in LOSS_COLORS else index % len(_DASHES)
    line = dict(label=LABELS.get(name, name), color=loss_color(name, index), linestyle=(0, _DASHES[i]), linewidth=1.8)
    return line | dict(marker=_MARKERS[i], markersize=8, markeredgecolor="white", markeredgewidth=0.5) | changes


def _axes(ax, width, height, columns=1):
    return plt.subplots(1, columns, figsize=(width, height), layout="constrained")[1] if ax is None else ax


def _finish(ax, xlabel, ylabel, legend=None, percent=""):
    """Labels, legend, no box; ``ylabel`` may be a metric; the axes named in ``percent`` show fractions times 100."""
    label = METRIC_LABELS.get(ylabel, ylabel)
    ax.set(xlabel=xlabel, ylabel=label)
    for axis in percent + "y" * (label != ylabel and "%" in label):
        getattr(ax, f"{axis}axis").set_major_formatter(lambda value, _: f"{100 * value:g}")
    sns.despine(ax=ax)
    if legend is not None:
        ax.legend(**dict(frameon=False, fontsize=9, title_fontsize=9) | legend)
    return ax


def reliability_diagram(bins, ax=None, *, color=LOSS_COLORS["ce"], band=0.95, class_name=None):
    """How often is the model right (bars) when it says c (diagonal)? Below: how many samples each bar stands for.

    bins: ``metrics.reliability(logits, labels)``; with its ``class_index`` the view of one class, named ``class_name``.
    Hatched: the gap between accuracy and mean confidence; above the bar it is overconfidence. band: where this share of
    such bars would end if the confidence were right, or None; the exact binomial limit of consistency resampling
    (Bröcker & Smith 2007). ``ax.child_axes[0]`` holds the counts, on a logarithmic axis.
    """
    if not isinstance(bins, metrics.Reliability):
        _check.fail("bins", f"got {type(bins).__name__}", "pass metrics.reliability(logits, labels)", TypeError)
    ax, full = _axes(ax, 4.4, 5), bins.counts > 0
    left, width, n = bins.edges[:-1][full], np.diff(bins.edges)[full], bins.counts[full]
    solid = dict(width=width, align="edge", color=color, edgecolor="white", linewidth=0.5)
    hatched = solid | dict(color="none", edgecolor="#333333", hatch="/////")
    ax.bar(left, bins.accuracy[full], label="accuracy", **solid)
    ax.bar(left, bins.gap[full], bottom=bins.accuracy[full], label="gap to confidence", **hatched)
    if band is not None:
        tail = (1 - _check.number("band", band, 0, 1, open_low=True, open_high=True)) / 2
        c = bins.confidence[full].clip(1e-12, 1 - 1e-12)
        low, high = (np.ceil(np.nan_to_num(bdtrik(q, n, c))).clip(0, n) / n for q in (tail, 1 - tail))
        ax.errorbar(left + width / 2, (low + high) / 2, (high - low) / 2, label=f"{band:.0%} if calibrated", **_SPAN)
    ax.plot([0, 1], [0, 1], label="perfect calibration", **_THIN)
    ax.set(xlim=(0, 1), ylim=(0, 1.36), yticks=np.linspace(0, 1, 6))  # above 100 % there is room for the legend
    ax.tick_params(labelbottom=False)
    names = (f"probability of {class_name}", f"truly {class_name}") if class_name else ("confidence", "accuracy")
    title = f"ECE {100 * bins.ece:.2f} %, n = {bins.counts.sum():,}"
    legend = dict(loc="upper center", ncols=2, columnspacing=1, borderaxespad=0, title=title)
    _finish(ax, "", f"{names[1]} (%)", legend, "y").spines["left"].set_bounds(0, 1)
    below = ax.inset_axes((0, -0.25, 1, 0.2), sharex=ax)
    below.bar(left, n, log=True, **solid)
    below.set_ylim(0.7, None)
    below.yaxis.set(major_locator=LogLocator(numticks=4), major_formatter=lambda value, _: f"{value:,.0f}")
    _finish(below, f"{names[0]} (%)", "samples", percent="x")
    return ax


def confusion_matrix(logits, labels, class_names=None, ax=None):
    """Where the samples of each class (rows) go (columns), in percent of the row; an absent class has a blank row."""
    logits, labels = (t.cpu().numpy() for t in _check.logits_and_labels(logits, labels))
    k = logits.shape[1]
    names, few = list(range(k) if class_names is None else class_names), k <= 12
    if len(names) != k:
        _check.fail("class_names", f"has {len(names)} names for {k} classes", "pass one name per column of logits")
    counts = np.bincount(labels * k + logits.argmax(1), minlength=k * k).reshape(k, k)
    shares = 100 * pd.DataFrame(counts, names, names).div(np.where(counts.any(1), counts.sum(1), np.nan), axis=0)
    ax, step = _axes(ax, *(2 * [1.8 + 0.45 * min(k, 10)])), 1 if few else -(-k // 10)
    text = dict(annot=shares.map("{:.0f}".format).replace("0", "") if few else None, fmt="", annot_kws={"fontsize": 9})
    look = dict(square=True, cmap="Blues", norm=PowerNorm(0.5, 0, 100), xticklabels=step, yticklabels=step)
    sns.heatmap(shares, ax=ax, cbar=not few, cbar_kws=dict(label="% of the row", shrink=0.7), **look, **text)
    ax.set(xlabel="predicted class (% of the row)" if few else "predicted class", ylabel="true class")
    return ax


def training_curves(history, axes=None):
    """NLL, error and ECE by epoch of the splits that ``history`` has; returns three axes.

    history: ``runs.load_history(run_dir)``, or a mapping from losses to such tables, drawn without validation curves.
    Training values are means over the epoch, while the network changes.
    """
    axes, runs = _axes(axes, 10, 3.2, columns=3), history if isinstance(history, dict) else {"": history}
    for ax, metric in zip(axes, ("nll", "error", "ece"), strict=True):
        for i, (name, table) in enumerate(runs.items()):
            for split, (dash, color) in _SPLITS.items():
                if (column := f"{split}_{metric}") in table and not (name and split == "val"):
                    color, label = loss_color(name, i) if name else color, f"{LABELS.get(name, name)} {split}".strip()
                    ax.plot("epoch", column, "." + dash, data=table.dropna(subset=column), color=color, label=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylim(0, None)
        _finish(ax, "epoch", metric, {} if metric == "nll" else None)
    return axes


def temperatures(calibrators, ax=None):
    """The temperature by confidence; above 1 softens, below 1 sharpens. Each bin is as wide as its share of samples.

    calibrators: mapping from names to fitted calibrators, with ``temperatures`` (ATS: a step a bin; all on the same
    validation samples) or one ``temperature``.
    """
    ax = _axes(ax, 6.4, 3.6)
    for i, (name, calibrator) in enumerate(calibrators.items()):
        values = getattr(calibrator, "temperatures", getattr(calibrator, "temperature", None))
        if values is None or not calibrator.fitted:
            _check.fail("calibrators", f"{name!r} has no temperature", "pass fitted TS, ETS or ATS")
        values = np.atleast_1d(values.cpu().numpy())
        grid, step = np.linspace(0, 1, len(values) + 1), -(-len(values) // 8)
        ax.stairs(values, grid, baseline=None, **{k: v for k, v in _line(name, i).items() if "marker" not in k})
        if len(values) > 1:
            ax.set_xticks(grid[::step], [f"{100 * edge:.4g}" for edge in calibrator.thresholds[::step].tolist()])
    ax.axhline(1, **_THIN)
    ax.set(yscale="log", xlim=(0, 1), ylim=(min(ax.get_ylim()[0], 0.7), max(ax.get_ylim()[1], 1.5)))
    ax.yaxis.set(major_locator=LogLocator(subs=(1, 1.5, 2, 3, 5, 7)), major_formatter="{x:g}", minor_formatter="")
    return _finish(ax, "validation samples, least confident first; ticks: their confidence (%)", "temperature", {})


def risk_curves(p, risks, truth=None, ax=None):
    """Expected loss of predicting the probability ``p`` (M,), above its minimum, which the marker shows.

    risks: mapping from losses to risks (M,).   truth: the true probability; strictly proper losses have markers there.
    """
    ax = _axes(ax, 5.2, 3.8)
    for i, (name, risk) in enumerate(risks.items()):
        ax.plot(p, risk - np.min(risk), **_line(name, i, markevery=[int(np.argmin(risk))], clip_on=False, zorder=3))
    if truth is not None:
        ax.axvline(truth, label="truth", **_THIN)
    ax.set_ylim(0, None)
    return _finish(ax, "predicted probability", "expected loss above its minimum", {})


def bars_with_intervals(table, metric="ece", x="loss", hue=None, ax=None, points=False):
    """``metric`` with its interval for each ``x`` and, side by side, each ``hue`` (the paper's Figures 1 and 2).

    table: DataFrame with the columns ``x``, ``hue``, ``metric`` and, where there are intervals, ``<metric>_low`` and
    ``<metric>_high``, named as by ``metrics.evaluate`` and drawn in this order.
    points: markers, on an axis that need not start at 0, for differences too small for bars.
    """
    _check.known_keys("table", [column for column in (x, hue, metric) if column], list(table))
    places, kinds = list(table[x].unique()), list(table[hue].unique()) if hue else [None]
    ax, width = _axes(ax, max(5, 1.5 + 0.25 * len(places) * (len(kinds) + 1)), 3.6), 0.84 / max(len(kinds), 1.4)
    by_x = x == "loss" or not hue  # what the colours tell; markers or hatches then tell the hue
    for j, kind in enumerate(kinds):
        rows = table[table[hue] == kind] if hue else table
        spots, values = np.array([places.index(place) for place in rows[x]]), rows[metric].to_numpy(float)
        at, label = spots + (j - (len(kinds) - 1) / 2) * width, LABELS.get(kind, kind)
        colors = [loss_color(*((row, i) if by_x else (kind, j))) for row, i in zip(rows[x], spots, strict=True)]
        if points:
            ax.scatter(at, values, 50, c=colors, marker=_line(kind, j)["marker"], label=label)
        else:
            stage = dict(alpha=0.3 + 0.7 * (j + 1) / len(kinds), hatch=_HATCHES[j % 4]) if hue and by_x else {}
            ax.bar(at, values, width, color=colors, edgecolor="white", linewidth=0.5, label=label, **stage)
        if f"{metric}_low" in table:
            low, high = rows[f"{metric}_low"].to_numpy(float), rows[f"{metric}_high"].to_numpy(float)
            ax.errorbar(at, (low + high) / 2, (high - low) / 2, zorder=0 if points else 3, **_SPAN)
    ax.set_xticks(range(len(places)), [LABELS.get(place, place) for place in places])
    return _finish(ax, x, metric, dict(loc="upper left", bbox_to_anchor=(1, 1), title=hue) if hue else None)


def roc_curves(pairs, ax=None):
    """How well entropy tells out-of-distribution samples from test samples, threshold by threshold, with the AUROC.

    pairs: mapping from names to (in-distribution logits, out-of-distribution logits).
    """
    ax = _axes(ax, 4.6, 4.4)
    for i, (name, (inside, outside)) in enumerate(pairs.items()):
        scores = [np.sort(metrics.entropy(logits)) for logits in (inside, outside)]
        steps = np.concatenate(([np.inf], np.unique(np.concatenate(scores))[::-1]))
        alarms, found = (1 - np.searchsorted(s, steps) / len(s) for s in scores)
        label = f"{LABELS.get(name, name)}, {100 * metrics.ood_auroc(inside, outside):.1f} %"
        ax.plot(alarms, found, **_line(name, i, label=label, markevery=(0.03 * i + 0.03, 0.3)))
    ax.plot([0, 1], [0, 1], **_THIN)
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    return _finish(ax, "false alarms (%)", "OOD samples detected (%)", dict(loc="lower right", title="AUROC"), "xy")


def entropy_histograms(logits, ax=None, n_bins=30):
    """The entropy of the predictions in each data set, as shares of its samples.

    logits: mapping from the data sets' names to logits (N, K); the first, in-distribution, is drawn filled.
    """
    ax, top = _axes(ax, 5.2, 3.6), np.log(max(z.shape[1] for _, z in logits.items()))
    for i, (name, z) in enumerate(logits.items()):
        counts, edges = np.histogram(metrics.entropy(z).clip(0, top), n_bins, (0, top))
        style = dict(linestyle=(0, _DASHES[i % 11]), linewidth=1.8) if i else dict(fill=True, alpha=0.5)
        ax.stairs(counts / len(z), edges, color=loss_color(None, i), label=name, **style)
    return _finish(ax, "entropy of the prediction (nats)", "share of the samples (%)", {}, "y")
