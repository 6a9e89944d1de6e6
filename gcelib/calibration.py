"""Post-hoc calibrators and their registry.

Fitted on validation logits, they turn logits into calibrated logits. ``CALIBRATORS``
has a row for each; ``make_calibrator(name)`` builds one; what all share is in
``gcelib.calibrator``. Those that another library fits are here, the others in modules
of their own.
"""

import contextlib
import functools
import importlib.util
import inspect
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib import _check
from gcelib.affine import BiasCalibration, VectorScaling
from gcelib.ats import AdaptiveTemperatureScaling
from gcelib.bins import Floats
from gcelib.blocks import rounding_of
from gcelib.calibrator import (
    BufferRule,
    Calibrator,
    groups_of_ties,
    interpolate,
)
from gcelib.ensemble import EnsembleTemperatureScaling
from gcelib.isolation import usual_kernels
from gcelib.spline import SplineCalibration
from gcelib.temperature import TemperatureScaling, warn_of_bound
from gcelib.threads import float32_by_default

__all__ = [
    "ALL_CALIBRATORS",
    "CALIBRATORS",
    "AdaptiveTemperatureScaling",
    "BiasCalibration",
    "BrowserForm",
    "Calibrator",
    "CalibratorRow",
    "EnsembleTemperatureScaling",
    "IsotonicCalibration",
    "SplineCalibration",
    "StructuredMatrixScaling",
    "TemperatureScaling",
    "VectorScaling",
    "make_calibrator",
]


class IsotonicCalibration(Calibrator):
    """One isotonic regression for each class against the rest, rows made to sum to 1.

    scikit-learn fits them (``sklearn.isotonic``); a fitted state applies without it.
    Each p_k becomes a step-wise linear, never falling function of itself. Those that
    come out as 0 get ``floor``, since log 0 would make one surprise infinitely bad.
    Those that are equal but for rounding, as votes are, have one value. Predictions and
    order may change. The output is log-probabilities.

    Parameters
    ----------
    floor : float, default 1e-6
        The smallest probability before rows are made to sum to 1.

    Attributes
    ----------
    points, values : (K, M) Tensor
        The knots of each class; short rows repeat their last.
    floor : () Tensor
        The smallest probability. A state of gcelib 0.1 does not hold it.

    References
    ----------
    Zadrozny and Elkan, KDD 2002.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0]]).repeat(50, 1)  # says 0.88
    >>> labels = (torch.arange(50) % 5 == 0).long()  # is right 4 times of 5
    >>> isotonic = IsotonicCalibration().fit(logits, labels)
    >>> round(isotonic(logits).exp()[0, 0].item(), 3)
    0.8
    """

    points: Tensor
    values: Tensor
    floor: Tensor

    buffer_rules: ClassVar = {
        "points": BufferRule(low=0, high=1, length="data"),
        "values": BufferRule(low=0, high=1, length="data"),
        "floor": BufferRule(low=5e-324, high=0.01),
    }

    def __init__(self, floor: float = 1e-6) -> None:
        super().__init__(
            points=[[0.0, 1.0]] * 2,
            values=[[0.0, 1.0]] * 2,
            floor=_check.number("floor", floor, 0, 0.01, open_low=True),
        )

    def _fit(self, logits: Tensor, labels: Tensor) -> dict[str, npt.ArrayLike]:
        """One regression a class, by scikit-learn."""
        with _say_what_to_install("isotonic", "scikit-learn"):
            from sklearn.isotonic import IsotonicRegression

        probs = logits.double().softmax(1).numpy()
        rounding = rounding_of(logits)
        points: list[Floats] = []
        values: list[Floats] = []
        for k in range(logits.shape[1]):
            shown = _without_rounding(probs[:, k], rounding)
            regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
            regression.fit(shown, (labels == k).double().numpy())
            points.append(regression.X_thresholds_)
            values.append(regression.y_thresholds_)
        return {"points": _equally_long(points), "values": _equally_long(values)}

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any
    ) -> None:
        """Load a state; in older ones, without a floor, this calibrator's holds."""
        if f"{prefix}points" in state_dict:
            state_dict.setdefault(f"{prefix}floor", self.floor)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _check_state(self, stored: Mapping[str, Tensor]) -> None:
        """Points and values must be pairs, sorted within each class."""
        names = [name for name in ("points", "values") if name in stored]
        shapes = {tuple(stored[name].shape) for name in names}
        if len(shapes) > 1 or any(len(s) != 2 or s[1] == 0 for s in shapes):
            problem = f"and values have shapes {sorted(shapes)}"
            _check.fail("points", problem, "they must be pairs, at least one a class")
        n_classes = int(stored["n_classes"]) if "n_classes" in stored else 0
        if n_classes and any(s[0] != n_classes for s in shapes):
            problem = f"are those of another number of classes than {n_classes}"
            cure = "load a state that a fitted calibrator wrote"
            _check.fail("points", problem, cure)
        if "points" in stored and bool((stored["points"].diff(dim=1) < 0).any()):
            _check.fail("points", "are not sorted", "load a whole state")

    def _calibrate(self, logits: Tensor) -> Tensor:
        """Each probability through its class's function, then normalised."""
        probs = logits.double().softmax(1)
        moved = interpolate(probs.T, self.points, self.values).T
        moved = torch.maximum(moved, self.floor)
        moved = torch.where(probs.isnan(), probs, moved)  # an exported program may ask
        return (moved / moved.sum(1, keepdim=True)).log().to(logits.dtype)


def _without_rounding(probs: Floats, rounding: float) -> Floats:
    """Probabilities, those that are equal but for rounding of logits brought together.

    Else the order of equal votes hangs on their last bits, and a fit that learns from
    it says one thing in float32 and another in float64.
    """
    order = np.argsort(probs, kind="stable")
    ordered = probs[order]
    group = groups_of_ties(ordered, rounding)
    together = np.empty_like(probs)
    together[order] = ordered[np.searchsorted(group, group)]
    return together


def _equally_long(curves: list[Floats]) -> Floats:
    """Stack curves, the short ones with their last value repeated."""
    longest = max(len(curve) for curve in curves)
    padded = [np.pad(curve, (0, longest - len(curve)), "edge") for curve in curves]
    return np.stack(padded)


#: probmetrics looks for temperatures from exp(-16) to this.
_SMS_HIGHEST = math.exp(16)


class StructuredMatrixScaling(Calibrator):
    """A temperature, then W z + b with a penalised matrix: probmetrics' ``sms``.

    probmetrics fits it; a fitted state applies without it. Predictions may change. The
    output is logits.

    Attributes
    ----------
    temperature : () Tensor
        T, fitted first.
    uniform : () Tensor
        The share of equal probabilities that is mixed in after T, 1 / (N + 1).
    weight : (K, K) Tensor
        W.
    bias : (K,) Tensor
        b.

    References
    ----------
    Berta, Holzmüller, Jordan and Bach, AISTATS 2026.

    Examples
    --------
    >>> calibrator = StructuredMatrixScaling()  # needs probmetrics to fit
    >>> calibrator.fitted
    False
    """

    temperature: Tensor
    uniform: Tensor
    weight: Tensor
    bias: Tensor

    buffer_rules: ClassVar = {
        "temperature": BufferRule(low=0.9 / _SMS_HIGHEST, high=1.1 * _SMS_HIGHEST),
        "uniform": BufferRule(low=0, high=1),
        "weight": BufferRule(low=-1e6, high=1e6, length="classes"),
        "bias": BufferRule(low=-1e6, high=1e6, length="classes"),
    }

    def __init__(self) -> None:
        super().__init__(
            temperature=1.0, uniform=0.0, weight=np.eye(2), bias=[0.0, 0.0]
        )

    def _fit(self, logits: Tensor, labels: Tensor) -> dict[str, npt.ArrayLike]:
        """What probmetrics finds from the probabilities, which is all it takes."""
        with _say_what_to_install("sms", "probmetrics numba"):
            get_calibrator = _importing_probmetrics()

        probs = logits.double().softmax(1).numpy()
        with float32_by_default(), usual_kernels(), torch.enable_grad():
            fitted = get_calibrator("sms", sms_print_init_info=False)
            fitted.fit(probs, labels.numpy())
        temperature = 1 / float(fitted.ts_.cal_.invtemp_)
        is_at_end = max(temperature, 1 / temperature) > _SMS_HIGHEST * (1 - 1e-5)
        are_all_right = bool((logits.argmax(1) == labels).all())  # ``fit`` says so
        if is_at_end and not are_all_right:
            warn_of_bound("temperature", temperature)
        return {
            "temperature": temperature,
            "uniform": 1 / (len(labels) + 1),
            "weight": fitted.W_[:, :-1].astype(np.float64),
            "bias": fitted.W_[:, -1].astype(np.float64),
        }

    def _calibrate(self, logits: Tensor) -> Tensor:
        """In float64, whose products no autocast rounds."""
        tempered = torch.softmax(logits.double() / self.temperature, 1)
        mixed = (1 - self.uniform) * tempered + self.uniform / self._n_classes
        smallest = float(np.finfo(np.float32).tiny)
        log_p = mixed.clamp(min=smallest).log()
        return (log_p @ self.weight.T + self.bias).to(logits.dtype)


_IMPORTING = threading.Lock()


@functools.cache
def _importing_probmetrics() -> Callable[..., Any]:
    """Import what makes its calibrators, and change filters of warnings for it once."""
    with _IMPORTING, warnings.catch_warnings():
        # Of what it uses of torch: nothing that who calibrates could change.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit")
        from probmetrics.calibrators import get_calibrator
    make: Callable[..., Any] = get_calibrator  # it says no types
    return make


@contextlib.contextmanager
def _say_what_to_install(calibrator: str, library: str) -> Iterator[None]:
    """Refuse the fit if the imports of its library, in the block, fail."""
    try:
        yield
    except ImportError as error:
        problem = f"{calibrator!r} is fitted by {library}"
        raise ModuleNotFoundError(
            f"calibrator: {problem}, which does not import ({error}); "
            f"pip install {library}"
        ) from error


# --- registry ------------------------------------------------------------------------


@dataclass(frozen=True)
class BrowserForm:
    """What an engine without Python needs in order to apply a fitted calibrator.

    Parameters
    ----------
    formula : str
        ``"temperature"``: z / T. ``"mixture"``: w0 softmax(z / T) + w1 softmax(z) +
        w2 / K. ``"binned_temperature"``: z / T_m, m the number of inner thresholds
        below the uncalibrated confidence. ``"spline"``: the top
        probability becomes the interpolated score; where it rises the others give it in
        proportion, else the row gets a temperature. ``"affine"``: scale *
        log softmax(z) + bias.
        ``"isotonic"``: each p_k interpolated in its class's row of points and values,
        at least ``floor``, then made to sum to 1. ``"matrix"``: W log((1 - u)
        softmax(z / T) + u / K) + b.
    buffers : tuple of str
        The buffers in the formula.
    """

    formula: str
    buffers: tuple[str, ...]


@dataclass(frozen=True)
class CalibratorRow:
    """One calibrator of ``CALIBRATORS``.

    Parameters
    ----------
    label : str
        How it reads in tables and figures.
    build : type of Calibrator
        The class.
    browser : BrowserForm, optional
        How to apply it without Python; None (default): Python alone can, and the
        explorers that answer without Python do not offer it.
    options : mapping
        Options of the constructor that this row fixes, unless a caller sets them.
    keeps_order : bool
        True if it keeps the order of all classes in every row, up to rounding.
    keeps_predictions : bool
        True if the predicted class of no row changes.
    needs : str or None
        The optional library that fits it, as pip calls it.
    measured_by_fit : bool
        True if every training run stores its metrics: those that the paper compares.
    of_confidence : str or None
        What it is where of each sample only the confidence c of the predicted class is
        known, the two classes being *wrong* and *right* with the probabilities 1 - c
        and c. None if it does not act on c alone: it would bin c and 1 - c together,
        or look at the other classes.
    """

    label: str
    build: Callable[..., Calibrator]
    browser: BrowserForm | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    keeps_order: bool = True
    keeps_predictions: bool = True
    needs: str | None = None
    measured_by_fit: bool = False
    of_confidence: str | None = None

    @property
    def available(self) -> bool:
        """True if the library that it needs is installed."""
        modules = _MODULES_OF[self.needs] if self.needs else ()
        return all(importlib.util.find_spec(module) for module in modules)


#: The modules of what a row ``needs``; probmetrics imports numba without requiring it.
_MODULES_OF = {
    "scikit-learn": ("sklearn",),
    "probmetrics numba": ("probmetrics", "numba"),
}
_TEMPERATURE_FORM = BrowserForm("temperature", ("temperature",))
_BINNED_FORM = BrowserForm("binned_temperature", ("temperatures", "thresholds"))
_AFFINE_FORM = BrowserForm("affine", ("scale", "bias"))

#: Every calibrator, a row each; a state can be loaded into each of them.
ALL_CALIBRATORS: dict[str, CalibratorRow] = {
    "ts_nll": CalibratorRow(
        "TS (NLL)",
        TemperatureScaling,
        _TEMPERATURE_FORM,
        options={"criterion": "nll"},
        measured_by_fit=True,
        of_confidence="temperature of the odds",
    ),
    "ts_ece": CalibratorRow(
        "TS (ECE)",
        TemperatureScaling,
        _TEMPERATURE_FORM,
        options={"criterion": "ece"},
        measured_by_fit=True,
    ),
    "ets": CalibratorRow(
        "ETS",
        EnsembleTemperatureScaling,
        BrowserForm("mixture", ("temperature", "weights")),
        measured_by_fit=True,
        of_confidence="ETS of the odds",
    ),
    "spline": CalibratorRow(
        "Spline",
        SplineCalibration,
        BrowserForm("spline", ("scores", "values")),
        measured_by_fit=True,
    ),
    "ats": CalibratorRow(
        "ATS", AdaptiveTemperatureScaling, _BINNED_FORM, measured_by_fit=True
    ),
    "ats_converged": CalibratorRow(
        "ATS, converged",
        AdaptiveTemperatureScaling,
        _BINNED_FORM,
        options={"rounds": None},
        measured_by_fit=True,
    ),
    "bias": CalibratorRow(
        "TS + bias",
        BiasCalibration,
        _AFFINE_FORM,
        keeps_order=False,
        keeps_predictions=False,
        of_confidence="Platt scaling",
    ),
    "vector": CalibratorRow(
        "Vector",
        VectorScaling,
        _AFFINE_FORM,
        keeps_order=False,
        keeps_predictions=False,
        of_confidence="beta calibration",
    ),
    "isotonic": CalibratorRow(
        "Isotonic",
        IsotonicCalibration,
        BrowserForm("isotonic", ("points", "values", "floor")),
        keeps_order=False,
        keeps_predictions=False,
        needs="scikit-learn",
        of_confidence="isotonic regression",
    ),
    "sms": CalibratorRow(
        "SMS",
        StructuredMatrixScaling,
        BrowserForm("matrix", ("temperature", "uniform", "weight", "bias")),
        keeps_order=False,
        keeps_predictions=False,
        needs="probmetrics numba",
    ),
}

#: Those that can be fitted here: all but those whose optional library is missing.
CALIBRATORS: dict[str, CalibratorRow] = {
    name: row for name, row in ALL_CALIBRATORS.items() if row.available
}


def make_calibrator(name: str, /, **options: Any) -> Calibrator:
    """An unfitted calibrator.

    Parameters
    ----------
    name : str
        A key of ``CALIBRATORS``. ``"isotonic"`` and ``"sms"`` are built, and load a
        state, also where the library that fits them is missing.
    **options
        Options of its constructor.

    Returns
    -------
    Calibrator
        To be fitted, or to load a state.

    Raises
    ------
    ValueError, TypeError
        For an unknown name (``calibrator: ...``), an unknown option
        (``calibrator_options: ...``) or an impossible value.

    Examples
    --------
    >>> make_calibrator("ats", n_bins=10).n_bins
    10
    """
    row = ALL_CALIBRATORS[_check.choice("calibrator", name, list(ALL_CALIBRATORS))]
    known = inspect.signature(row.build).parameters
    _check.known_keys("calibrator_options", options, known)
    return row.build(**{**row.options, **options})
