"""Diagrams that answer to the hand: a reliability diagram with its images, and the simplex of a loss's risk.

With a kernel each is a live widget (anywidget; the drawing is in ``static/``), and its output carries a PNG as well for
readers without one. (In a notebook that JupyterLab itself ran and saved, ipywidgets asks for the cell to be run again.)
Every number is computed here, by ``metrics`` and ``losses``; the browser only draws.
"""

import base64
import functools
import io
from pathlib import Path

import anywidget
import numpy as np
import torch
import traitlets
from matplotlib import colormaps, colors
from matplotlib.figure import Figure

from gcelib import calibration, metrics
from gcelib._check import choice, fail, known_keys, logits_and_labels, number
from gcelib.losses import LOSSES, gce_log_ratio, make_loss
from gcelib.study import data
from gcelib.study.runs import load_logits, read_json
from gcelib.view import plots

_whole = functools.partial(number, integer=True)


def _static(*names):
    return "".join((Path(__file__).parent / "static" / name).read_text(encoding="utf-8") for name in names)


def _pair(name, pair):
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        fail(name, f"must hold pairs (logits, labels), got {type(pair).__name__}", "pass {'gce': (logits, labels)}")
    logits, labels = logits_and_labels(*pair)
    return (logits if logits.dtype.itemsize > 4 else logits.float()).cpu(), labels.cpu()


class _Setting(traitlets.TraitType):
    """A trait shared with the browser; ``check(explorer, value)`` returns the value or refuses it."""

    def __init__(self, default, check):
        super().__init__(default)
        self.validate = check
        self.tag(sync=True)


class _Explorer(anywidget.AnyWidget):
    """Settings that are checked and answered with numbers to draw; ``figure()`` shows them without a kernel."""

    _css = _static("widgets.css")
    setup = traitlets.Dict().tag(sync=True)  # what never changes
    answer = traitlets.Dict().tag(sync=True)  # the numbers, and the settings that they belong to

    def __init__(self, setup, settings):
        known_keys("settings", settings, self._asks)
        super().__init__(setup=setup, **settings)
        self.observe(self._update, self._asks)
        self._update()

    def _update(self, _=None):
        asked = {name: getattr(self, name) for name in self._asks}
        if self.answer.get("settings") != asked:  # one message may change several settings: answer it once
            self.answer = {"settings": asked, **self._answer()}

    def _repr_mimebundle_(self, **kwargs):
        bundle, metadata = super()._repr_mimebundle_(**kwargs)
        self.figure().savefig(picture := io.BytesIO(), format="png", dpi=100, bbox_inches="tight")
        bundle["image/png"] = base64.b64encode(picture.getvalue()).decode()
        bundle["text/plain"] = f"{type(self).__name__}: interactive in Jupyter, a picture elsewhere"
        return bundle, metadata


class ReliabilityExplorer(_Explorer):
    """A reliability diagram to play with: hover a bar for its numbers, click it (or press Enter) for its images.

    runs: mapping of names to run folders or pairs ``(logits (N, K), labels (N,))``, all of the same test samples.
    val: mapping of names to such pairs of validation data, which fit the calibrators; run folders bring theirs.
    images: uint8 (N, C, H, W), C 1 or 3; class_names: K strings. Run folders bring both. n_images: shown for a bar.
    settings, which Python may set later too: ``losses`` (names to overlay), ``calibrator`` ("raw" or a key of
    ``CALIBRATORS``), ``temperature`` (in [0.1, 10], divides the calibrated logits), ``n_bins`` (1 to 50), ``binning``
    ("width" or "mass"), ``class_index`` (None: top-1 confidence; k: p_k against 1{y = k}).
    ``selected = [name, bin]`` lists that bar's samples in ``samples``, worst first: errors by falling confidence, then
    hits by rising; for one class by the distance of p_k from what happened. Bad input: ValueError or TypeError.
    """

    _esm = _static("common.js", "reliability.js")
    _asks = ("losses", "calibrator", "temperature", "n_bins", "binning", "class_index")
    losses = _Setting((), lambda self, names: [choice("losses", name, self._test) for name in names])
    calibrator = _Setting("raw", lambda self, value: choice("calibrator", value, self._calibrators))
    temperature = _Setting(1.0, lambda self, value: number("temperature", value, 0.1, 10))
    n_bins = _Setting(20, lambda self, value: _whole("n_bins", value, 1, 50))
    binning = _Setting("width", lambda self, value: choice("binning", value, ("width", "mass")))
    class_index = _Setting(None, lambda self, k: k if k is None else _whole("class_index", k, 0, len(self._names) - 1))
    selected = _Setting(None, lambda e, v: v and [choice("selected", v[0], e._test), _whole("selected", v[1], 0, 49)])
    samples = traitlets.Dict().tag(sync=True)

    def __init__(self, runs, val=None, images=None, class_names=None, n_images=24, **settings):
        self._read(runs, dict(val or {}), images, class_names)
        self._n_images = _whole("n_images", n_images, 1, 500)
        self._numbers, self._calibrated = {}, functools.lru_cache(None)(self._calibrate)
        shown = [{"name": name, "color": plots.loss_color(name, i)} for i, name in enumerate(runs)]
        setup = dict(runs=shown, calibrators=self._calibrators, class_names=self._names, n_samples=len(self._labels))
        first = ["ce", "gce"] if {"ce", "gce"} <= set(runs) else list(runs)[:2]
        super().__init__(setup, {"losses": first} | settings)
        self.observe(self._list_samples, ["answer", "selected"])

    def _read(self, runs, val, images, names):
        if not isinstance(runs, dict) or not runs:
            fail("runs", "must be a mapping and not empty", "pass {'gce': folder or (logits, labels)}", TypeError)
        known_keys("val", val, runs)
        test = {}
        for name, run in runs.items():
            if isinstance(run, (str, Path)):
                if images is None or names is None:
                    splits = data.load(read_json(Path(run) / "config.json")["settings"]["dataset"])
                    images, names = splits.test[0] if images is None else images, names or splits.class_names
                val.setdefault(name, load_logits(run, "val"))
                run = load_logits(run, "test")
            test[name] = _pair("runs", run)
        logits, self._labels = test[first := next(iter(test))]
        for name, (other, labels) in test.items():
            if other.shape != logits.shape or not torch.equal(labels, self._labels):
                fail("runs", f"{first!r} and {name!r} were tested on different samples", "compare runs of one test set")
        self._test, self._images = {name: pair[0] for name, pair in test.items()}, images
        self._val = {name: _pair("val", pair) for name, pair in val.items()}
        self._calibrators = ["raw", *(calibration.CALIBRATORS if len(val) == len(test) else ())]
        self._names = [str(name) for name in names or range(logits.shape[1])]
        for name, value, n in (("class_names", self._names, logits.shape[1]), ("images", images, len(logits))):
            if value is not None and len(value) != n:
                fail(name, f"are {len(value)}, the logits ask for {n}", "pass those of the tested data")
        if images is not None and images.ndim == 4 and "uint8" not in str(images.dtype):
            fail("images", f"have dtype {images.dtype}", "pass uint8 pixels from 0 to 255", TypeError)

    def _calibrate(self, name, calibrator):
        logits = self._test[name]
        return logits if calibrator == "raw" else calibration.make_calibrator(calibrator).fit(*self._val[name])(logits)

    def _bins(self, name, of=metrics.reliability):
        logits = self._calibrated(name, self.calibrator) / self.temperature
        return logits, of(logits, self._labels, self.n_bins, self.binning, self.class_index)

    def _answer(self):
        rows = []
        for name in self.losses:
            logits, bins = self._bins(name)
            arrays = {key: np.nan_to_num(value).tolist() for key, value in bins._asdict().items()}
            key = name, self.calibrator, self.temperature, self.n_bins
            if key not in self._numbers:
                self._numbers[key] = metrics.evaluate(logits, self._labels, self.n_bins)
            numbers = self._numbers[key] | {"class_ece": bins.ece}
            rows.append({"name": name, "numbers": numbers, **arrays})
        return {"rows": rows}

    def _list_samples(self, _=None):
        name, at = self.selected or (None, 0)
        if name not in self.losses or at >= self.n_bins:
            self.samples = {}
            return
        logits, (edges, cuts, *columns) = self._bins(name, metrics.binned_samples)
        index, probs, hits = (column[cuts[at] : cuts[at + 1]] for column in columns)
        surprise = np.where(hits, -probs, 1 + probs) if self.class_index is None else np.abs(hits - probs)
        worst = np.argsort(-surprise, kind="stable")[: self._n_images]
        shown, wrong = index[worst], int((logits[index].argmax(1) != self._labels[index]).sum())
        lists = dict(index=shown, label=self._labels[shown], prediction=logits[shown].argmax(1), prob=probs[worst])
        lists = {key: value.tolist() for key, value in (lists | {"edges": edges[at : at + 2]}).items()}
        pictures = None if self._images is None else np.ascontiguousarray(self._images[shown])
        if pictures is not None and pictures.ndim == 4:
            lists |= {"shape": pictures.shape[1:], "pixels": pictures.tobytes()}
        self.samples = {"bar": self.selected, "count": len(index), "wrong": wrong, **lists}

    def figure(self):
        """The present state as a matplotlib figure, a panel per run."""
        n, k = max(len(self.losses), 1), self.class_index
        figure = Figure(figsize=(4.4 * n, 5.2), layout="constrained")
        shown = [(run["name"], run["color"]) for run in self.setup["runs"] if run["name"] in self.losses]
        for (name, color), ax in zip(shown, figure.subplots(1, n, squeeze=False)[0], strict=False):
            class_name = None if k is None else self._names[k]
            plots.reliability_diagram(self._bins(name)[1], ax, color=color, class_name=class_name)
            ax.set_title(plots.LABELS.get(name, name))
        return figure


class PropernessExplorer(_Explorer):
    """Move the truth q about the simplex of three classes and see which prediction p a loss rewards most.

    The surface is the risk ``sum_k q_k loss(p, k)`` of p; a loss is proper where the minimiser p* is q. GCE compares
    samples, so its risk (the paper's Eq. 4, truths for labels) needs a batch. ``batch="varied"``: three more samples,
    predicted right, whose truths span the classes (Theorem 1's rank condition). ``"alike"``: copies with this q and
    this p, which GCE cannot tell apart, as it cannot with one sample alone.
    settings, which Python may set later too: ``loss`` (ce brier focal flsd dfl gce), ``truth`` (3 probabilities),
    ``gamma`` (of focal and dfl, in [0, 10]), ``weight`` (lambda of gce in [0, 1]; 0 is ce), ``batch``.
    Bad input: ValueError or TypeError.
    """

    _esm = _static("common.js", "simplex.js")
    _asks = ("loss", "truth", "gamma", "weight", "batch")
    _losses = tuple(name for name, row in LOSSES.items() if row.simplex_options is not None)
    _steps = 48
    _colors = tuple(map(colors.to_hex, colormaps["viridis"](np.linspace(0, 1, 14))))
    loss = _Setting("ce", lambda self, value: choice("loss", value, self._losses))
    truth = _Setting((0.6, 0.3, 0.1), lambda self, value: self._check_truth(*value))
    gamma = _Setting(3.0, lambda self, value: number("gamma", value, 0, 10))
    weight = _Setting(1.0, lambda self, value: number("weight", value, 0, 1))
    batch = _Setting("varied", lambda self, value: choice("batch", value, ("varied", "alike")))

    def __init__(self, **settings):
        n = self._steps
        grid = torch.tensor([(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)])
        # inside the rim, where risks are infinite, and off the lines of equal probabilities, where dfl jumps
        self._grid = (grid + torch.tensor([0.03, 0.05, 0.07], dtype=torch.float64)) / (n + 0.15)
        super().__init__({"losses": self._losses, "steps": n, "colors": self._colors}, settings)

    def _check_truth(self, *truth):
        truth = [number("truth", part, 0, 1) for part in truth]
        if len(truth) != 3 or abs(sum(truth) - 1) > 1e-6:
            fail("truth", f"{truth} are not three probabilities with sum 1", "pass e.g. [0.6, 0.3, 0.1]")
        return truth

    def _risk(self, probs):
        """Risk (G,) of each prediction in ``probs`` (G, 3)."""
        q, log_p = torch.from_numpy(np.array([self.truth])), probs.log()
        if self.loss != "gce":
            options = {"gamma": self.gamma} if "gamma" in LOSSES[self.loss].simplex_options else {}
            loss = make_loss(self.loss, reduction="none", **options)
            return loss(log_p.repeat_interleave(3, 0), torch.arange(3).repeat(len(probs))).view(-1, 3) @ q[0]
        alike = self.batch == "alike"
        truths = torch.cat((q, q if alike else 0.1 + 0.7 * torch.eye(3, dtype=torch.float64)))
        log_probs = truths.log()[:, None].repeat(1, len(probs), 1)
        log_probs[: 1 + alike] = log_p
        ratio = gce_log_ratio(log_probs.flatten(1), self.weight, None).view_as(log_probs)  # each column by itself
        return -(truths[:, None] * ratio).sum((0, 2)) / len(truths)

    def _minimiser(self, risk):
        """The best prediction (3,): the grid's, refined in ever smaller neighbourhoods; None if all are equal."""
        if risk.max() - risk.min() < 1e-9:
            return None
        best, a = self._grid[risk.argmin()], torch.linspace(-1, 1, 7, dtype=torch.float64) / self._steps
        around = torch.stack((a.repeat(7), a.repeat_interleave(7), -a.repeat(7) - a.repeat_interleave(7)), 1)
        for shrink in range(10):
            near = (best + around / 3**shrink).clamp_min(1e-9)
            near = near / near.sum(1, keepdim=True)
            best = near[self._risk(near).argmin()]
        return best

    def _answer(self):
        risk, q = self._risk(self._grid), torch.from_numpy(np.array([self.truth])).clamp_min(1e-9)
        best, low, span = self._minimiser(risk), float(risk.min()), float(risk.quantile(0.9) - risk.min())
        levels = low + (span if best is not None else 1) * (np.arange(1, 14) / 14) ** 2  # narrow bands near the minimum
        at_truth, at_best = (float(self._risk(p / p.sum())) for p in (q, q if best is None else best[None]))
        found = {"best": None if best is None else best.tolist(), "risk_at_truth": at_truth, "risk_at_best": at_best}
        return {"risk": risk.tolist(), "levels": levels.tolist(), **found}

    def figure(self):
        """The present state as a matplotlib figure."""
        corners, levels = np.array([[0, 0], [1, 0], [0.5, 0.75**0.5]]), self.answer["levels"]
        figure = Figure(figsize=(5.2, 4.8), layout="constrained")
        ax = figure.add_subplot(aspect="equal")
        ax.set_title(f"Risk of every prediction under {self.loss} (dark is low)", pad=24)
        points = (self._grid.numpy() @ corners).T
        ax.tricontourf(*points, self.answer["risk"], levels=[levels[0] - 1e9, *levels, 1e9], colors=self._colors)
        for name, p, style in (("minimiser p*", self.answer["best"], "kD"), ("truth q", self.truth, "wo")):
            if p is not None:
                label = f"{name} = ({', '.join(f'{value:.2f}' for value in p)})"
                ax.plot(*np.array(p) @ corners, style, ms=9, mec="w" if style == "kD" else "k", mew=1.5, label=label)
        for k, (left, top) in enumerate(corners):
            ax.text(left, top + (0.02 if k == 2 else -0.06), f"class {k + 1}", ha="center")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=2, frameon=False)
        ax.set_axis_off()
        return figure
