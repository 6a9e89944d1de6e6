"""Every static figure: one colour, marker and dash for each loss, wherever it appears.

Each function draws on the axes it is given, or else makes a figure of its own, and returns the axes. None changes
matplotlib's global settings, so a notebook's own style stays as it is. Data are fractions, axes show percent.
"""

import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.colors import PowerNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter, ScalarFormatter
from scipy.special import bdtrik

from gcelib import _validate, metrics

# Searched for: at least 3:1 against white and against #111111, and as far apart as that allows for readers with
# protanopia, deuteranopia and tritanopia. Markers and dashes say the same again.
_STYLES = {
    "ce": ("CE", "#696d72", "o", (0, ())),
    "brier": ("Brier", "#1a99fc", "s", (0, (6, 1.5))),
    "mmce": ("MMCE", "#6ea068", "^", (0, (3, 1.5))),
    "flsd": ("FLSD", "#88499c", "v", (0, (1, 1))),
    "dfl": ("DFL", "#e57700", "D", (0, (6, 1.5, 1, 1.5))),
    "afl": ("AFL", "#0952e7", "P", (0, (3, 1, 1, 1, 1, 1))),
    "gce": ("GCE", "#c11220", "*", (0, ())),
    "focal": ("Focal", "#e667ae", "X", (0, (8, 2))),
    "ce_ls": ("CE + LS", "#ca813f", "h", (0, (4, 3))),
    "gce_ls": ("GCE + LS", "#9d4444", "p", (0, (2, 2))),
    "afl_gce": ("AFL + GCE", "#cd3cd4", "d", (0, (8, 2, 2, 2))),
}
LOSS_LABELS, LOSS_COLORS, LOSS_MARKERS, LOSS_DASHES = ({k: s[i] for k, s in _STYLES.items()} for i in range(4))
CALIBRATOR_LABELS = {"raw": "before", "ts_nll": "TS (NLL)", "ts_ece": "TS (ECE)", "ets": "ETS", "spline": "spline"}
CALIBRATOR_LABELS |= {"ats": "ATS", "ats_converged": "ATS, converged"}
_METRICS = {"error": "error (%)", "nll": "NLL (nats)", "brier": "Brier score", "ece": "ECE (%)", "auroc": "AUROC (%)"}
_METRICS |= {"adaptive_ece": "AdaECE (%)", "classwise_ece": "ClasswiseECE (%)"}
_SPLITS = {"train": ("#1a99fc", "--"), "val": ("#6ea068", ":"), "test": ("#c11220", "-")}
_PERCENT = PercentFormatter(1, symbol="")
_SMALL, _INK = 9, "#333333"


def loss_color(name, index=0):
    """The colour of the loss ``name``; for any other name the ``index``-th of the palette."""
    return LOSS_COLORS.get(name) or list(LOSS_COLORS.values())[index % len(LOSS_COLORS)]


def _label(name):
    return LOSS_LABELS.get(name) or CALIBRATOR_LABELS.get(name) or str(name)


def _line(name, index):
    """Keywords of a line that stands for the loss, or other thing, ``name``."""
    key = name if name in _STYLES else list(_STYLES)[index % len(_STYLES)]
    style = {"label": _label(name), "color": LOSS_COLORS[key], "linestyle": LOSS_DASHES[key], "linewidth": 1.8}
    return style | {"marker": LOSS_MARKERS[key], "markersize": 9 if key == "gce" else 6, "markeredgecolor": "white"}


def _axes(ax, width, height, columns=1):
    return ax if ax is not None else plt.subplots(1, columns, figsize=(width, height), layout="constrained")[1]


def _dress(ax, xlabel, ylabel, legend=None):
    ax.set(xlabel=xlabel, ylabel=ylabel)
    sns.despine(ax=ax)
    if legend is not None:
        ax.legend(frameon=False, fontsize=_SMALL, title_fontsize=_SMALL, **legend)
    return ax


def _mapping(name, value, kind):
    if not isinstance(value, dict) or not value:
        _validate.fail(name, "must be a mapping and not empty", f"pass {{'gce': {kind}}}", TypeError)
    return value


def reliability_diagram(bins, ax=None, *, color=LOSS_COLORS["ce"], band=0.95, class_name=None):
    """How often is the model right (bars) when it says c (diagonal)? Below: how many samples each bar stands for.

    bins: ``metrics.reliability(logits, labels)``, equal width or mass; with its ``class_index`` this is the diagram of
    one class, and ``class_name`` names it. Hatched: from accuracy to mean confidence; above the bar is overconfident.
    band: the central share of where a bar of that size would end if its confidence were right (the exact binomial
    limit of consistency resampling, Bröcker & Smith 2007), or None. Returns ``ax``; the counts are in
    ``ax.child_axes[0]``, on a logarithmic axis.
    """
    if not isinstance(bins, metrics.Reliability):
        _validate.fail("bins", f"got {type(bins).__name__}", "pass metrics.reliability(logits, labels)", TypeError)
    ax, full = _axes(ax, 4.4, 5.2), bins.counts > 0
    left, width, n = bins.edges[:-1][full], np.diff(bins.edges)[full], bins.counts[full]
    accuracy, gap, middle = bins.accuracy[full], bins.gap[full], left + width / 2
    solid = {"align": "edge", "color": color, "edgecolor": "white", "linewidth": 0.5}
    ax.bar(left, accuracy, width, label="accuracy", **solid)
    hatched = {"facecolor": "none", "edgecolor": _INK, "linewidth": 0.5, "hatch": "/////", "align": "edge"}
    ax.bar(left, gap, width, bottom=accuracy, label="gap to mean confidence", **hatched)
    if band is not None:
        tail = (1 - _validate.number("band", band, 0, 1, open_low=True, open_high=True)) / 2
        c = bins.confidence[full].clip(1e-12, 1 - 1e-12)
        low, high = (np.ceil(np.nan_to_num(bdtrik(q, n, c))).clip(0, n) / n for q in (tail, 1 - tail))
        style = {"fmt": "none", "ecolor": "black", "elinewidth": 1.2, "capsize": 2.5}
        ax.errorbar(middle, (low + high) / 2, (high - low) / 2, label=f"{band:.0%} if calibrated", **style)
    ax.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle="--")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), box_aspect=1)
    ax.yaxis.set_major_formatter(_PERCENT)
    ax.tick_params(labelbottom=False)
    title = f"ECE {100 * bins.ece:.2f} %, n = {bins.counts.sum():,}"
    _dress(
        ax,
        "",
        "accuracy (%)" if class_name is None else f"share of {class_name} (%)",
        {"loc": "upper left", "title": title},
    )
    below = ax.inset_axes((0, -0.27, 1, 0.22), sharex=ax)
    below.bar(left, n, width, log=True, **solid)
    below.set_ylim(0.7, None)
    below.xaxis.set_major_formatter(_PERCENT)
    _dress(below, "confidence (%)" if class_name is None else f"probability of {class_name} (%)", "samples")
    return ax


def confusion_matrix(logits, labels, class_names=None, ax=None):
    """Where the samples of each class (rows) go (columns), in percent of the row; blank where the class has no sample."""
    logits, labels = (t.cpu().numpy() for t in _validate.logits_and_labels(logits, labels))
    k = logits.shape[1]
    names = [str(i) for i in range(k)] if class_names is None else [str(name) for name in class_names]
    if len(names) != k:
        _validate.fail("class_names", f"has {len(names)} names for {k} classes", "pass one name per column of logits")
    counts = np.bincount(labels * k + logits.argmax(1), minlength=k * k).reshape(k, k)
    with np.errstate(invalid="ignore"):
        shares = 100 * counts / counts.sum(1, keepdims=True)
    ax, small = _axes(ax, *(2 * [2.2 + 0.5 * min(k, 12)])), k <= 12
    names = names if small else "auto"
    text = {"annot": small, "fmt": ".0f", "annot_kws": {"fontsize": _SMALL}, "xticklabels": names, "yticklabels": names}
    bar = {"label": "% of the class's samples", "shrink": 0.75}
    sns.heatmap(shares, ax=ax, square=True, cmap="Blues", norm=PowerNorm(0.5, 0, 100), cbar_kws=bar, **text)
    ax.set(xlabel="predicted class", ylabel="true class")
    return ax


def training_curves(history, axes=None):
    """NLL, error and ECE by epoch, of training, validation and test where ``history`` has them; returns three axes.

    history: ``runs.load_history(run_dir)``, or a mapping from loss to such tables to lay several runs over each other
    (then training and test only). Training values are means over the epoch while the network changes.
    """
    runs = history if isinstance(history, dict) else {None: history}
    axes = _axes(axes, 10, 3.2, columns=3)
    for ax, metric in zip(axes, ("nll", "error", "ece"), strict=True):
        for i, (name, table) in enumerate(runs.items()):
            for split, (color, dash) in _SPLITS.items():
                column = f"{split}_{metric}"
                if column not in table or (name is not None and split == "val"):
                    continue
                seen = table[["epoch", column]].dropna()
                color = color if name is None else loss_color(name, i)
                label = split if name is None else f"{_label(name)}, {split}"
                ax.plot("epoch", column, dash, data=seen, label=label, color=color, marker=".", markersize=5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if metric != "nll":
            ax.yaxis.set_major_formatter(_PERCENT)
        ax.set_ylim(0, None)
        _dress(ax, "epoch", _METRICS[metric], {} if metric == "nll" else None)
    return axes


def temperatures(calibrators, ax=None):
    """The temperature that each share of the validation samples, sorted by confidence, is given.

    calibrators: mapping from a name to a fitted ``AdaptiveTemperatureScaling`` (steps) or one with a single
    ``temperature`` (a line). The scale is logarithmic: above 1 softens, below 1 sharpens.
    """
    ax = _axes(ax, 6, 3.4)
    for i, (name, calibrator) in enumerate(_mapping("calibrators", calibrators, "a fitted calibrator").items()):
        values = getattr(calibrator, "temperatures", getattr(calibrator, "temperature", None))
        if values is None or not calibrator.fitted:
            _validate.fail("calibrators", f"{name!r} has no temperature", "pass fitted TS, ETS or ATS")
        values = np.atleast_1d(values.cpu().numpy())
        style = {"color": loss_color(name, i), "linewidth": 2, "label": _label(name)}
        ax.stairs(values, np.linspace(0, 1, len(values) + 1), baseline=None, **style)
    ax.axhline(1, color=_INK, linewidth=1, linestyle="--")
    ax.set(yscale="log", xlim=(0, 1))
    ax.xaxis.set_major_formatter(_PERCENT)
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda t, _: f"{t:g}"))
    return _dress(ax, "validation samples, least confident first (%)", "temperature", {})


def risk_curves(p, risks, truth=None, ax=None):
    """Expected loss of predicting probability ``p`` (M,), above its minimum; the marker is the minimiser.

    risks: mapping from loss to risks (M,).   truth: the true probability, a vertical line. Strictly proper losses have
    their marker on it.
    """
    ax, p = _axes(ax, 5.2, 3.8), np.asarray(p, dtype=float)
    for i, (name, risk) in enumerate(_mapping("risks", risks, "risks (M,)").items()):
        risk = np.asarray(risk, dtype=float)
        if risk.shape != p.shape:
            _validate.fail("risks", f"{name!r} has shape {risk.shape}, p has {p.shape}", "pass one risk per value of p")
        ax.plot(p, risk - np.nanmin(risk), markevery=[int(np.nanargmin(risk))], clip_on=False, **_line(name, i))
    if truth is not None:
        ax.axvline(truth, color=_INK, linewidth=1, linestyle="--", label="truth", zorder=0)
    ax.set_ylim(0, None)
    return _dress(ax, "predicted probability", "expected loss above its minimum", {})


def bars_with_intervals(table, metric="ece", x="loss", hue=None, ax=None, points=False):
    """``metric`` with its interval for each ``x`` and, side by side, each ``hue`` (the paper's Figures 1 and 2).

    table: DataFrame with the columns ``x``, ``hue``, ``metric``, ``<metric>_low`` and ``<metric>_high`` (as
    ``metrics.evaluate`` names them; absent or NaN: no whisker), in the order to draw. Losses keep their colours.
    points: markers on an axis that need not start at 0, for differences too small for bars.
    """
    _validate.known_keys("table", [c for c in (x, hue, metric) if c is not None], list(table))
    places, kinds = list(table[x].unique()), [None] if hue is None else list(table[hue].unique())
    ax, width = _axes(ax, max(5, 1.5 + 0.32 * len(places) * len(kinds)), 3.6), 0.8 / len(kinds)
    for row in table.to_dict("records"):
        i, j = places.index(row[x]), kinds.index(row[hue] if hue else None)
        at, loss = i + (j - (len(kinds) - 1) / 2) * width, x == "loss"
        color = loss_color(row[x] if loss or not hue else row[hue], i if loss else j)
        ends = np.array([row.get(f"{metric}_low", np.nan), row.get(f"{metric}_high", np.nan)], dtype=float)
        if points:
            style = _line(row["loss"], j) if "loss" in (x, hue) else {"color": color, "marker": "o"}
            ax.plot(at, row[metric], **(style | {"linestyle": "none"}))
        else:
            stage = {"alpha": 0.35 + 0.65 * j / max(1, len(kinds) - 1), "hatch": ["", "//", "..", "xx", "\\\\"][j % 5]}
            ax.bar(at, row[metric], width, color=color, edgecolor="white", **(stage if loss and hue else {}))
        ax.errorbar(at, ends.mean(), np.diff(ends) / 2, fmt="none", ecolor=_INK, elinewidth=1.2, capsize=2.5)
    ax.set_xticks(range(len(places)), [_label(place) for place in places])
    if "%" in _METRICS.get(metric, ""):
        ax.yaxis.set_major_formatter(_PERCENT)
    return _dress(ax, x.replace("_", " "), _METRICS.get(metric, metric), {} if hue else None)


def roc_curves(pairs, ax=None):
    """How well entropy tells out-of-distribution samples (positives) from the test set, threshold by threshold.

    pairs: mapping from a name to (in-distribution logits, out-of-distribution logits). The legend gives the AUROC.
    """
    from sklearn.metrics import roc_curve

    ax = _axes(ax, 4.4, 4.4)
    for i, (name, (inside, outside)) in enumerate(_mapping("pairs", pairs, "(logits_in, logits_ood)").items()):
        scores = [metrics.entropy(logits) for logits in (inside, outside)]
        rates = roc_curve(np.repeat([0, 1], [len(s) for s in scores]), np.concatenate(scores))[:2]
        style = _line(name, i) | {"label": f"{_label(name)}, {100 * metrics.ood_auroc(inside, outside):.1f} %"}
        ax.plot(*rates, markevery=(0.03 * i, 0.25), **style)
    ax.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle="--")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), box_aspect=1)
    ax.xaxis.set_major_formatter(_PERCENT)
    ax.yaxis.set_major_formatter(_PERCENT)
    legend = {"loc": "lower right", "title": "AUROC"}
    return _dress(ax, "false alarms: test samples (%)", "detected: out-of-distribution samples (%)", legend)


def entropy_histograms(logits, ax=None, n_bins=30):
    """How the entropy of the predictions is spread in each data set, as shares of its samples; the first is filled.

    logits: mapping from a data set's name to logits (N, K), the in-distribution test set first.
    """
    ax, k = _axes(ax, 5.2, 3.4), {z.shape[1] for z in _mapping("logits", logits, "logits (N, K)").values()}
    edges = np.linspace(0, np.log(max(k)), n_bins + 1)
    for i, (name, z) in enumerate(logits.items()):
        shares, _ = np.histogram(metrics.entropy(z).clip(0, edges[-1]), edges, weights=np.full(len(z), 1 / len(z)))
        style = {"fill": True, "alpha": 0.45} if i == 0 else {"linestyle": LOSS_DASHES[list(_STYLES)[i % 11]]}
        ax.stairs(shares, edges, color=list(LOSS_COLORS.values())[i % 11], label=name, linewidth=1.8, **style)
    ax.yaxis.set_major_formatter(_PERCENT)
    return _dress(ax, "entropy of the prediction (nats)", "share of samples (%)", {})
