"""A reliability diagram to play with: bars, their numbers and their samples."""

from __future__ import annotations

import copy
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gcelib import metrics
from gcelib._check import (
    boolean,
    choice,
    collected,
    fail,
    known_keys,
    listed,
    number,
    warn,
)
from gcelib.bins import Binning, bin_scale, cut_sorted
from gcelib.blocks import rounding
from gcelib.calibration import CALIBRATORS, make_calibrator
from gcelib.calibrator import warn_of_other_rows
from gcelib.view import bundle, plots
from gcelib.view.explorers.given import (
    Run,
    checked_images,
    common_labels,
    data_of,
    read_pair,
    refuse_columns_in_other_orders,
    refuse_other_classes,
    refuse_other_contents,
    refuse_other_length,
    scores_of,
    stored_pair,
    warn_of_one_set,
)
from gcelib.view.explorers.page import Answer, Explorer, Setting
from gcelib.view.styles import drawable, style

#: Logits, all runs together, up to which the browser answers by itself.
MOST_CELLS = 2_000_000

_BINNINGS = {
    "width": "width",
    "mass": "mass (number of samples)",
    "equal": "mass, exact split",
}


def _offered() -> list[str]:
    """All are fitted before a page is made: none whose library takes long to load."""
    rows = CALIBRATORS.items()
    return [name for name, row in rows if row.needs in (None, "scikit-learn")]


#: What the browser's engine computes; a kernel has all of ``METRICS``.
ENGINE_METRICS = ("error", "nll", "brier", "ece", "adaptive_ece", "classwise_ece")


def _columns() -> tuple[tuple[str, str, int, int], ...]:
    """The numbers beside the diagram: key, label, factor, digits."""
    columns = []
    for name, metric in metrics.METRICS.items():
        label = metric.label[0].upper() + metric.label[1:]
        if metric.in_evaluate and metric.percent:
            columns.append((name, f"{label} %", 100, 2))
        elif metric.in_evaluate:
            columns.append((name, label, 1, 3))
    return tuple(columns)


_METRICS = _columns()
#: How far above a bin's edge a probability counts as on it: the logits travel in
#: float32, wherever the probabilities are computed.
_TOLERANCE = rounding(torch.float32)
#: The calibration errors of the top label, and how their bins are cut.
_BINNINGS_OF: dict[str, Binning] = {"ece": "width", "adaptive_ece": "mass"}


class _Found(NamedTuple):
    """Selected samples: which, what is shown of them, and how surprising each is."""

    samples: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    surprise: npt.NDArray[np.float64]


class ReliabilityExplorer(Explorer):
    """A reliability diagram to play with: bars, their numbers and their samples.

    Parameters
    ----------
    runs : mapping from names to run folders or pairs (logits (N, K), labels (N,))
        All of the same test samples.
    val : mapping from names to such pairs, optional
        Validation data, on which calibrators are fitted; run folders bring theirs.
        Without those of every run there is no calibrator to choose.
    images : (N, C, H, W) uint8 tensor or array, optional
        C is 1 or 3. Run folders bring theirs. Other inputs, such as tables, are not
        shown.
    class_names : sequence of K names, optional
        Run folders bring theirs; else the ids.
    n_images : int, default 24
        Samples shown at a time, 1 to 500.
    probabilities : bool, default False
        True: the pairs in ``runs`` and ``val`` hold probabilities; exact 0 and 1 are
        allowed, rows that do not sum to 1 are refused. Run folders hold logits.
    confidences : bool, default False
        True: the pairs hold the confidence of each prediction (N,) and whether it was
        right (N,). The classes are then *wrong* and *right*, and *right* is what is
        claimed: error and ECE are those of the predictions.
    **settings
        What a reader can change, and Python too at any time: ``losses`` (names of the
        runs in view), ``calibrator`` ("raw" or a key of ``CALIBRATORS``; up to
        ``MOST_CELLS`` logits of one whose row has a ``browser`` form),
        ``temperature`` (in [0.1, 10], divides the calibrated logits), ``n_bins`` (1 to
        50), ``binning`` ("width", "mass" or "equal"), ``class_index`` (None: the top-1
        confidence; k: p_k against 1{y = k}), ``selected`` (None,
        ``{"kind": "bar", "run": name, "low": 0.9, "high": 1.0}`` or
        ``{"kind": "disagree", "right": name, "wrong": name}``), ``errors_only``,
        ``first`` (of the selected samples, counted from 0), ``pair`` (None or two runs
        to compare), ``detail`` (None or a sample whose probabilities are shown).

    Raises
    ------
    ValueError, TypeError
        If an argument or a setting is malformed; the message begins with its name.

    Examples
    --------
    >>> logits, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 1])
    >>> explorer = ReliabilityExplorer({"ours": (logits, labels)}, n_bins=4)
    >>> explorer.answer["rows"][0]["counts"]
    [0, 0, 3, 0]
    """

    kind = "reliability"
    settings = (
        "losses",
        "calibrator",
        "temperature",
        "n_bins",
        "binning",
        "class_index",
        "selected",
        "errors_only",
        "pair",
        "first",
        "n_images",
        "detail",
    )
    losses = Setting(
        (), lambda self, names: [choice("losses", name, self._test) for name in names]
    )
    calibrator = Setting("raw", lambda self, value: self._check_calibrator(value))
    temperature = Setting(
        1.0, lambda self, value: number("temperature", value, 0.1, 10)
    )
    n_bins = Setting(
        20, lambda self, value: number("n_bins", value, 1, 50, integer=True)
    )
    binning = Setting("width", lambda self, value: choice("binning", value, _BINNINGS))
    class_index = Setting(None, lambda self, k: self._index("class_index", k))
    selected = Setting(None, lambda self, value: self._check_selected(value))
    errors_only = Setting(False, lambda self, value: bool(value))
    pair = Setting(None, lambda self, value: self._check_pair(value))
    first = Setting(
        0, lambda self, value: number("first", value, 0, 2**31, integer=True)
    )
    n_images = Setting(
        24, lambda self, value: number("n_images", value, 1, 500, integer=True)
    )
    detail = Setting(None, lambda self, value: self._index("detail", value))

    def __init__(
        self,
        runs: Mapping[str, Run],
        val: Mapping[str, tuple[Any, Any]] | None = None,
        images: Any = None,  # noqa: ANN401 - tensor or array
        class_names: Sequence[object] | None = None,
        n_images: int = 24,
        *,
        probabilities: bool = False,
        confidences: bool = False,
        **settings: object,
    ) -> None:
        form = "logits"
        if class_names is not None:
            class_names = listed("class_names", class_names)
        if boolean("probabilities", probabilities):
            form = "probabilities"
        if boolean("confidences", confidences):
            if form == "probabilities":
                problem = "and probabilities are both True"
                fail("confidences", problem, "say what the pairs hold")
            form = "confidences"
            class_names = class_names or ("wrong", "right")
        self._predicts = 1 if form == "confidences" else None
        #: How many samples there are, if the explorer shows a part of them.
        self._drawn_from: int | None = None
        #: Of each sample its number among all of these.
        self._drawn: npt.NDArray[np.int64] | None = None
        self._read(runs, dict(val or {}), images, class_names, form)
        self._offer_calibrators()
        self._fitted: dict[tuple[str, str], Any] = {}
        self._notes: dict[tuple[str, str], list[str]] = {}
        self._calibrated: dict[tuple[str, str], Tensor] = {}
        self._rows: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        first = ["ce", "gce"] if {"ce", "gce"} <= set(runs) else list(runs)[:2]
        super().__init__(**{"losses": first, "n_images": n_images, **settings})
        if not self._in_browser:
            self.observe(self._reply, self.settings)
            self._reply()

    @classmethod
    def for_page(
        cls,
        runs: Mapping[str, tuple[Any, Any]],
        *,
        probabilities: bool = False,
        confidences: bool = False,
    ) -> Self:
        """Make an explorer that ``save`` takes, of however many logits.

        Of more than ``MOST_CELLS`` it shows as many samples as a page can answer from,
        drawn without replacement, always the same.

        Parameters
        ----------
        runs : mapping from names to pairs (logits (N, K), labels (N,))
            All of the same test samples.
        probabilities, confidences : bool, default False
            What the pairs hold, as for the class.

        Returns
        -------
        ReliabilityExplorer

        Warns
        -----
        UserWarning
            If it shows a part of the samples: their ECE is larger by chance.

        Raises
        ------
        ValueError, TypeError
            If an argument is malformed; the message begins with its name.

        Examples
        --------
        >>> pair = np.eye(3, dtype=np.float32), np.array([0, 1, 1])
        >>> ReliabilityExplorer.for_page({"ours": pair}).answer["rows"][0]["counts"][11]
        3
        """
        whole = cls(runs, probabilities=probabilities, confidences=confidences)
        if whole._in_browser:
            return whole
        n_samples, n_classes = len(whole._labels), len(whole._names)
        n_shown = max(1, MOST_CELLS // (n_classes * len(runs)))
        warn(
            f"runs: {n_samples:,} samples of {n_classes:,} classes are too many for a "
            f"page; it shows {n_shown:,} of them, drawn at random, whose ECE is larger "
            "by chance"
        )
        drawn = np.random.default_rng(0).permutation(n_samples)[:n_shown]
        shown = torch.from_numpy(np.sort(drawn))  # the page tells these numbers
        labels = whole._labels[shown]
        part = cls({name: (z[shown], labels) for name, z in whole._test.items()})
        part._predicts = whole._predicts
        part._names = whole._names
        part._drawn = np.sort(drawn)
        part._drawn_from = n_samples
        return part

    def _read(
        self,
        runs: Mapping[str, Run],
        val: dict[str, tuple[Any, Any]],
        images: Any,  # noqa: ANN401 - tensor or array
        names: Sequence[object] | None,
        form: str,
    ) -> None:
        """Read and check the data, which do not change."""
        if not isinstance(runs, Mapping) or not runs:
            cure = "pass {'gce': folder or (logits, labels)}"
            fail("runs", "must be a mapping and not empty", cure, TypeError)
        for name in runs:
            if not isinstance(name, str):
                problem = f"has the name {name!r}, of type {type(name).__name__}"
                fail("runs", problem, f"pass text, such as {str(name)!r}", TypeError)
        known_keys("val", val, runs)
        self._val = {name: read_pair("val", pair, form) for name, pair in val.items()}
        test: dict[str, tuple[Tensor, Tensor]] = {}
        refuse_other_contents(runs)
        for name, run in runs.items():
            if isinstance(run, (str, os.PathLike)):
                test[name] = stored_pair("runs", run, "test")
                if images is None or names is None:
                    splits = data_of(name, run, test[name][1])
                    if splits is not None:
                        images = splits.test[0] if images is None else images
                        names = names or splits.class_names
                if name not in val:
                    self._val[name] = stored_pair("val", run, "val")
            else:
                test[name] = read_pair("runs", run, form)
                if form != "confidences":
                    warn_of_other_rows(*test[name], f"runs[{name!r}]")
        refuse_other_classes(self._val, test)
        given = {
            name: (scores_of(val.get(name), pair), scores_of(runs[name], test[name]))
            for name, pair in self._val.items()
        }
        warn_of_one_set(self._val, test, given)
        refuse_columns_in_other_orders(runs, val)
        self._labels = common_labels(test)
        self._test = {name: logits for name, (logits, _) in test.items()}
        n_classes = next(iter(self._test.values())).shape[1]
        n_cells = sum(logits.numel() for logits in self._test.values())
        self._in_browser = n_cells <= MOST_CELLS
        if self._in_browser:
            # As the browser counts, so that both find the same bins.
            self._test = {name: z.double() for name, z in self._test.items()}
        self._names = [str(name) for name in names or range(n_classes)]
        refuse_other_length("class_names", self._names, n_classes)
        if images is not None:
            refuse_other_length("images", images, len(self._labels))
        self._images = checked_images(images)

    def _offer_calibrators(self) -> None:
        """Decide which calibrators a reader can choose."""
        offered = _offered() if len(self._val) == len(self._test) else []
        if self._predicts is not None:
            offered = [name for name in offered if CALIBRATORS[name].of_confidence]
        #: Those that only a kernel could apply, where the browser answers.
        self._python_only: list[str] = []
        if self._in_browser:
            self._python_only = [
                name for name in offered if CALIBRATORS[name].browser is None
            ]
        chosen = [name for name in offered if name not in self._python_only]
        self._calibrators = ["raw", *chosen]

    def _index(self, name: str, value: object) -> int | None:
        """A class or a sample, or None."""
        if value is None:
            return None
        n = len(self._labels) if name == "detail" else len(self._names)
        return number(name, value, 0, n - 1, integer=True)

    def _check_calibrator(self, value: object) -> str:
        """One that whoever answers can apply."""
        if isinstance(value, str) and value in self._python_only:
            cure = f"apply make_calibrator({value!r}) to the logits and pass the result"
            fail("calibrator", f"the browser cannot apply {value!r}", cure)
        return choice("calibrator", value, self._calibrators)

    def _check_selected(self, value: Any) -> dict[str, object] | None:  # noqa: ANN401
        """A bar of a run, or a disagreement of two."""
        if value is None:
            return None
        if not isinstance(value, Mapping) or value.get("kind") not in (
            "bar",
            "disagree",
        ):
            problem = f"{value!r} is neither a bar nor a disagreement"
            cure = "pass {'kind': 'bar', 'run': 'gce', 'low': 0.9, 'high': 1.0}"
            fail("selected", problem, cure)
        if value["kind"] == "bar":
            known_keys("selected", value, ("kind", "run", "low", "high"))
            low = number("selected", value.get("low"), 0, 1)
            high = number("selected", value.get("high"), 0, 1)
            run = choice("selected", value.get("run"), self._test)
            return {"kind": "bar", "run": run, "low": low, "high": high}
        known_keys("selected", value, ("kind", "right", "wrong"))
        right = choice("selected", value.get("right"), self._test)
        wrong = choice("selected", value.get("wrong"), self._test)
        return {"kind": "disagree", "right": right, "wrong": wrong}

    def _check_pair(self, value: Any) -> list[str] | None:  # noqa: ANN401
        """Two runs."""
        if value is None:
            return None
        names = [choice("pair", name, self._test) for name in value]
        if len(names) != 2:
            fail("pair", f"holds {len(names)} runs", "name two")
        return names

    # --- answers ----------------------------------------------------------------------

    def _fit(self, name: str, calibrator: str) -> Any:  # noqa: ANN401
        """The calibrator, fitted on the run's validation data, once."""
        key = (name, calibrator)
        if key not in self._fitted:
            self._fitted[key] = make_calibrator(calibrator).fit(*self._val[name])
        return self._fitted[key]

    def _logits(self, name: str) -> Tensor:
        """The run's logits under the present calibrator and temperature."""
        logits = self._test[name]
        if self.calibrator != "raw":
            key = (name, self.calibrator)
            if key not in self._calibrated:
                self._calibrated[key] = self._fit(*key)(logits)
            logits = self._calibrated[key]
        tempered: Tensor = logits / self.temperature
        return tempered

    def _bins(self, name: str) -> metrics.Reliability:
        """The bins in view."""
        return self._cut(name, self.binning, self._binned_class(self.class_index))

    def _cut(
        self, name: str, binning: Binning, class_index: int | None
    ) -> metrics.Reliability:
        """As ``metrics.reliability``, with the tolerance of float32 at the edges."""
        found = self._in_one_bin(name, class_index)
        probs = found.probs
        edges, cuts = cut_sorted(probs, self.n_bins, binning, _TOLERANCE)
        return metrics.Reliability.from_sorted(edges, cuts, probs, found.hits)

    def _in_one_bin(self, name: str, class_index: int | None) -> metrics.BinnedSamples:
        """All samples by rising probability."""
        logits = self._logits(name)
        return metrics.binned_samples(logits, self._labels, 1, "width", class_index)

    def _classwise_ece(self, name: str) -> float:
        """As ``metrics.classwise_ece``, with the tolerance of float32 at the edges."""
        probs = self._logits(name).double().softmax(1)
        n_samples, n_classes = probs.shape
        bins = (probs * bin_scale(self.n_bins, _TOLERANCE)).long()
        cells = bins + self.n_bins * torch.arange(n_classes)
        gaps = torch.zeros(n_classes * self.n_bins, dtype=torch.float64)
        gaps.index_add_(0, cells.flatten(), probs.flatten())
        own = cells.gather(1, self._labels[:, None])[:, 0]
        gaps.index_add_(0, own, -torch.ones(n_samples, dtype=torch.float64))
        return float(gaps.abs().sum()) / (n_samples * n_classes)

    def _binned_class(self, class_index: int | None) -> int | None:
        """The class whose probability is binned; None: the most probable one."""
        return self._predicts if class_index is None else class_index

    def _predictions(self, name: str) -> Tensor:
        """The predicted class of each sample."""
        predictions = self._logits(name).argmax(1)
        if self._predicts is not None:
            predictions = torch.full_like(predictions, self._predicts)
        return predictions

    def _are_right(self, name: str) -> npt.NDArray[np.bool_]:
        """Whether the prediction of each sample is its label."""
        right: npt.NDArray[np.bool_] = (self._predictions(name) == self._labels).numpy()
        return right

    def _numbers(self, name: str) -> dict[str, float]:
        """The numbers beside the diagram."""
        logits = self._logits(name)
        labels = self._labels
        numbers = metrics.evaluate(logits, labels, self.n_bins)
        always = self._predicts
        if always is not None:
            numbers["error"] = float((labels != always).double().mean())
        for key, binning in _BINNINGS_OF.items():
            numbers[key] = self._cut(name, binning, always).ece
        if self._in_browser:
            numbers["classwise_ece"] = self._classwise_ece(name)
        return numbers

    @property
    def answer(self) -> Answer:
        """The numbers that the present settings ask for, as the browser gets them.

        Returns
        -------
        dict
            ``question``: the settings. ``rows``: for each run ``name``, ``edges``,
            ``counts``, ``confidence`` and ``accuracy`` of the bins (0 where empty), the
            ``band_low`` and ``band_high`` that 95 of 100 calibrated bars keep, and
            ``numbers`` (those of ``metrics.evaluate``, and ``shown_ece`` of the bins in
            view). ``samples``: None, or ``count``, ``wrong`` and the lists ``index``,
            ``label``, ``prediction``, ``prob`` of those in view, the most surprising
            first. ``agreement``: None, or on how many samples both of ``pair`` are
            right, the first alone, the second alone, neither. ``detail``: None, or
            ``index``, ``label`` and ``probs`` run by run.
        """
        return {
            "question": self.question,
            # Copies: a row is kept for the next answer.
            "rows": [copy.deepcopy(self._row(name)) for name in self.losses],
            "samples": self._samples(),
            "agreement": self._agreement(),
            "detail": self._detail(),
        }

    def _row(self, name: str) -> dict[str, Any]:
        """A run's part of the answer; the last one is kept, for a click on a bar."""
        asked = ("calibrator", "temperature", "n_bins", "binning", "class_index")
        key = tuple(getattr(self, setting) for setting in asked)
        if name in self._rows:
            known_key, known_row = self._rows[name]
            if known_key == key:
                return known_row
        bins = self._bins(name)
        low, high = plots.consistency_band(bins)
        arrays = {**bins._asdict(), "band_low": low, "band_high": high}
        lists = {part: np.nan_to_num(value).tolist() for part, value in arrays.items()}
        numbers = {**self._numbers(name), "shown_ece": bins.ece}
        row = {"name": name, **lists, "numbers": numbers}
        self._rows[name] = (key, row)
        return row

    def _reply(self, _: object = None) -> None:
        """Answer the browser, once for each message."""
        if self.reply.get("question") == self.question:
            return
        answer = self.answer
        if self._images is not None and answer["samples"]:
            shown = np.ascontiguousarray(self._images[answer["samples"]["index"]])
            answer["pixels"] = shown.tobytes()
        self.reply = answer

    def _samples(self) -> dict[str, Any] | None:
        """The samples of a bar, or those that one run gets right and another wrong."""
        chosen = self.selected
        if not chosen:
            return None
        if chosen["kind"] == "bar":
            named = [chosen["run"]]
            shown_run = chosen["run"]
        else:
            named = [chosen["right"], chosen["wrong"]]
            shown_run = chosen["wrong"]
        if not set(named) <= set(self.losses):
            return None
        found = self._of_bar() if chosen["kind"] == "bar" else self._of_disagreement()
        index = found.samples
        labels = self._labels.numpy()
        predictions = self._predictions(shown_run).numpy()
        most_surprising_first = np.lexsort((index, -found.surprise))
        shown = most_surprising_first[self.first : self.first + self.n_images]
        samples = index[shown]
        return {
            "count": len(index),
            "wrong": int((predictions[index] != labels[index]).sum()),
            "index": samples.tolist(),
            "label": labels[samples].tolist(),
            "prediction": predictions[samples].tolist(),
            "prob": found.values[shown].tolist(),
        }

    def _of_bar(self) -> _Found:
        """The samples of the selected bar."""
        run = self.selected["run"]
        index, values, hits = self._binned(run, self.class_index)
        inside = self._is_in_bar(values)
        if self.errors_only:
            inside &= ~self._are_right(run)[index]
        if self.class_index is None:
            surprise = np.where(hits, -values, 1 + values)
        else:
            surprise = np.abs(hits - values)
        return _Found(index[inside], values[inside], surprise[inside])

    def _is_in_bar(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which of the sorted values the selected bar holds.

        If the range is that of a bar in view, those that were counted there: bars of
        equal values have the same range, and go together. The first bar may be asked
        for from 0, the last one up to 1, which is where their values could lie.
        """
        low = self.selected["low"]
        high = self.selected["high"]
        edges, cuts = cut_sorted(values, self.n_bins, self.binning, _TOLERANCE)
        begins = edges[:-1] == low
        ends = edges[1:] == high
        begins[0] |= low <= edges[0]
        ends[-1] |= high >= edges[-1]
        bars = np.flatnonzero(begins & ends)
        inside = np.zeros(len(values), dtype=bool)
        if len(bars):
            inside[cuts[bars[0]] : cuts[bars[-1] + 1]] = True
        else:
            shrunk = values * (1 - _TOLERANCE)
            inside[:] = (shrunk >= low) & ((shrunk < high) | (high >= 1))
        return inside

    def _of_disagreement(self) -> _Found:
        """The samples that one run gets right and another wrong."""
        pair = self.selected
        disagree = self._are_right(pair["right"]) & ~self._are_right(pair["wrong"])
        index, values, _ = self._binned(pair["wrong"], None)
        inside = disagree[index]
        return _Found(index[inside], values[inside], values[inside])

    def _binned(
        self, name: str, class_index: int | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Samples, what is binned of them, and whether it happened."""
        in_one_bin = self._in_one_bin(name, self._binned_class(class_index))
        hits = in_one_bin.hits.astype(bool)
        return in_one_bin.samples, in_one_bin.probs, hits

    def _agreement(self) -> list[int] | None:
        """On how many samples two runs are right: both, one, other, neither."""
        if self.pair is None:
            return None
        one = self._are_right(self.pair[0])
        other = self._are_right(self.pair[1])
        parts = (one & other, one & ~other, ~one & other, ~one & ~other)
        return [int(part.sum()) for part in parts]

    def _detail(self) -> dict[str, Any] | None:
        """All probabilities of one sample."""
        i = self.detail
        if i is None:
            return None
        rows = [self._logits(name)[i].double().softmax(0) for name in self.losses]
        probs = [row.tolist() for row in rows]
        return {"index": i, "label": int(self._labels[i]), "probs": probs}

    # --- the page ---------------------------------------------------------------------

    def _refuse_to_leave_a_kernel(self) -> None:
        """Refuse a page that would show no diagram."""
        if self._in_browser:
            return
        n_cells = sum(logits.numel() for logits in self._test.values())
        problem = f"the runs hold {n_cells:,} logits, and a page without a kernel "
        problem += f"answers from {MOST_CELLS:,} at most"
        cure = "pass fewer runs, or save ReliabilityExplorer.for_page(runs), which "
        cure += "draws samples"
        fail("save", problem, cure)

    def _content(self, image_bytes: int) -> dict[str, object]:
        """Setup, logits with fitted calibrators where the browser answers, images."""
        images = self._packed_images(image_bytes)
        data = self._data() if self._in_browser else None
        return {"setup": self._setup(), "data": data, "images": images}

    def _setup(self) -> dict[str, object]:
        """What the page shows and offers."""
        shown = []
        for index, name in enumerate(self._test):
            look = style(name, index)
            label = look.label.encode("utf-8", "replace").decode()
            shown.append({"name": name, "label": label, "color": look.color})
        names = {name: style(name).label for name in self._calibrators}
        names["raw"] = "none"
        return {
            "runs": shown,
            "calibrators": list(names.items()),
            "python_only": [style(name).label for name in self._python_only],
            "binnings": list(_BINNINGS.items()),
            "metrics": self._shown_metrics(),
            "class_names": [n.encode("utf-8", "replace").decode() for n in self._names],
            "n_samples": len(self._labels),
            "drawn": None if self._drawn is None else bundle.packed(self._drawn, "<i4"),
        }

    def _data(self) -> dict[str, object]:
        """What the browser answers from."""
        runs = []
        for name, logits in self._test.items():
            fits = {
                calibrator: self._form_with_notes(name, calibrator)
                for calibrator in self._calibrators[1:]
            }
            packed = bundle.packed(logits, "<f4")
            runs.append({"name": name, "logits": packed, "calibrators": fits})
        return {
            "labels": bundle.packed(self._labels, "<i4"),
            "tolerance": _TOLERANCE,
            "predicts": self._predicts,
            "runs": runs,
        }

    def _form_with_notes(self, name: str, calibrator: str) -> dict[str, object]:
        """A fitted calibrator, and what was warned of while it was fitted.

        Nobody has asked for this fit yet: who chooses it is told.
        """
        with collected() as said:
            form = self._form(name, calibrator)
        notes = self._notes.setdefault((name, calibrator), said)
        return {**form, "notes": notes}

    def _shown_metrics(self) -> list[tuple[str, str, int, int]]:
        """The columns of numbers; of confidences those that a confidence has."""
        shown = [
            row for row in _METRICS if row[0] in ENGINE_METRICS or not self._in_browser
        ]
        if self._predicts is None:
            return shown
        return [row for row in shown if row[0] in ("error", "nll", *_BINNINGS_OF)]

    def _form(self, name: str, calibrator: str) -> dict[str, object]:
        """A fitted calibrator as the engine applies it."""
        fitted = self._fit(name, calibrator)
        form = CALIBRATORS[calibrator].browser
        assert form is not None  # noqa: S101 - others are not offered
        values = {b: bundle.numbers(getattr(fitted, b).cpu()) for b in form.buffers}
        return {"formula": form.formula, **values}

    def _packed_images(self, most: int) -> dict[str, object] | None:
        """The images that fit into ``most`` bytes, those that bars list first."""
        if self._images is None:
            return None
        shape = list(self._images.shape[1:])
        if not self._in_browser or most <= 0:
            return {"shape": shape, "index": None, "deflated": ""}
        order = self._by_interest()
        # What the first thousand take says how many fit.
        trial = self._images[order[:1000]]
        each = len(zlib.compress(trial.tobytes())) / len(trial)
        n = min(len(order), int(most / each))
        packed = zlib.compress(self._images[order[:n]].tobytes())
        while len(packed) > most:
            n = int(0.95 * n)
            packed = zlib.compress(self._images[order[:n]].tobytes())
        index = bundle.packed(order[:n], "<i4")
        deflated = bundle.packed(np.frombuffer(packed, np.uint8), "u1")
        return {"shape": shape, "index": index, "deflated": deflated}

    def _by_interest(self) -> npt.NDArray[np.int64]:
        """All samples: errors by falling confidence, then hits by rising."""
        surprise = np.full(len(self._labels), -np.inf)
        for logits in self._test.values():
            confidence, correct = metrics.top_label(logits, self._labels)
            own = np.where(correct, -confidence, 1 + confidence)
            surprise = np.maximum(surprise, own)
        return np.argsort(-surprise, kind="stable")

    def figure(self) -> Figure:
        """The present state as a matplotlib figure.

        Returns
        -------
        Figure
            A panel for each run, three in a row.
        """
        n = max(len(self.losses), 1)
        columns = min(n, 3)
        lines = math.ceil(n / columns)
        size = (4.4 * columns, 5.2 * lines)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        order = list(self._test)
        for name, ax in zip(self.losses, panels, strict=False):
            k = self.class_index
            look = style(name, order.index(name))
            class_name = None if k is None else self._names[k]
            plots.reliability_diagram(
                self._bins(name), ax, color=look.color, class_name=class_name
            )
            ax.set_title(drawable(", ".join([look.label, *self._applied()])))
        for ax in panels[len(self.losses) :]:
            ax.set_axis_off()
        return figure

    def _applied(self) -> list[str]:
        """What was done to the logits before they were drawn."""
        words = []
        if self.calibrator != "raw":
            words.append(f"after {style(self.calibrator).label}")
        if self.temperature != 1:
            words.append(f"T = {self.temperature:.2f}")
        return words

    def _title(self) -> str:
        """The heading of a saved page."""
        shown = ", ".join(style(name).label for name in self._test)
        if self._drawn_from is None:
            return f"Reliability of {shown}"
        n_shown = len(self._labels)
        return f"Reliability of {shown}: {n_shown:,} of {self._drawn_from:,} samples"
