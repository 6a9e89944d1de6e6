"""gcelib: calibrated classification with Generative Cross-Entropy.

Everything public can be imported from here: ``from gcelib import GCELoss, ece, fit``.
A name is loaded when it is first used, so that losses, metrics and calibrators need
torch and numpy alone. Type checkers and editors read the imports below instead;
``tests/test_setup.py`` keeps both lists equal.

A name whose libraries are not installed is absent: ``hasattr(gcelib, name)`` is False,
``from gcelib import *`` leaves it out, and asking for it says what to install.
"""

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gcelib import (
        calibration as calibration,
        losses as losses,
        metrics as metrics,
        models as models,
    )
    from gcelib.accumulate import accumulated_backward as accumulated_backward
    from gcelib.advice import (
        Advice as Advice,
        AdviceRow as AdviceRow,
        Difference as Difference,
        advise as advise,
        advise_confidences as advise_confidences,
        paired_differences as paired_differences,
    )
    from gcelib.calibration import (
        CALIBRATORS as CALIBRATORS,
        AdaptiveTemperatureScaling as AdaptiveTemperatureScaling,
        BiasCalibration as BiasCalibration,
        Calibrator as Calibrator,
        EnsembleTemperatureScaling as EnsembleTemperatureScaling,
        IsotonicCalibration as IsotonicCalibration,
        SplineCalibration as SplineCalibration,
        StructuredMatrixScaling as StructuredMatrixScaling,
        TemperatureScaling as TemperatureScaling,
        VectorScaling as VectorScaling,
        make_calibrator as make_calibrator,
    )
    from gcelib.losses import (
        LOSSES as LOSSES,
        AdaFocalLoss as AdaFocalLoss,
        BrierLoss as BrierLoss,
        DualFocalLoss as DualFocalLoss,
        FLSDLoss as FLSDLoss,
        FocalLoss as FocalLoss,
        GCELoss as GCELoss,
        LossRow as LossRow,
        MMCELoss as MMCELoss,
        gce_log_ratio as gce_log_ratio,
        make_loss as make_loss,
    )
    from gcelib.meter import CalibrationMeter as CalibrationMeter
    from gcelib.metrics import (
        METRICS as METRICS,
        Reliability as Reliability,
        adaptive_ece as adaptive_ece,
        brier as brier,
        classwise_ece as classwise_ece,
        ece as ece,
        entropy as entropy,
        error as error,
        evaluate as evaluate,
        logits_from_confidences as logits_from_confidences,
        logits_from_probabilities as logits_from_probabilities,
        mce as mce,
        nll as nll,
        ood_auroc as ood_auroc,
        reliability as reliability,
    )
    from gcelib.models import (
        MODELS as MODELS,
        ModelRow as ModelRow,
        make_model as make_model,
    )
    from gcelib.study import (
        data as data,
        paper as paper,
        runs as runs,
        shipped as shipped,
        sweeps as sweeps,
        trainer,
    )
    from gcelib.study.own_logits import load_own_logits as load_own_logits
    from gcelib.study.parameters import check_parameters as check_parameters
    from gcelib.study.published import (
        PUBLISHED as PUBLISHED,
        published_logits as published_logits,
    )
    from gcelib.study.results import (
        load_logits as load_logits,
        load_results as load_results,
    )
    from gcelib.study.trainer import (
        RECIPES as RECIPES,
        TrainConfig as TrainConfig,
        fit as fit,
    )
    from gcelib.view import explorers, live as live, plots as plots
    from gcelib.view.explorers import (
        PropernessExplorer as PropernessExplorer,
        ReliabilityExplorer as ReliabilityExplorer,
    )
    from gcelib.view.lessons import ask as ask, check as check

    training = trainer
    widgets = explorers

__version__ = "0.1.0"

#: Short names of modules, wherever they live: ``from gcelib import metrics, plots``.
_MODULES = {
    "calibration": "calibration",
    "data": "study.data",
    "live": "view.live",
    "losses": "losses",
    "metrics": "metrics",
    "models": "models",
    "paper": "study.paper",
    "plots": "view.plots",
    "runs": "study.runs",
    "shipped": "study.shipped",
    "sweeps": "study.sweeps",
    "training": "study.trainer",
    "widgets": "view.explorers",
}

#: The module of every other public name, with its names.
_NAMES = {
    "advice": (
        "Advice",
        "AdviceRow",
        "Difference",
        "advise",
        "advise_confidences",
        "paired_differences",
    ),
    "accumulate": ("accumulated_backward",),
    "calibration": (
        "CALIBRATORS",
        "AdaptiveTemperatureScaling",
        "BiasCalibration",
        "Calibrator",
        "EnsembleTemperatureScaling",
        "IsotonicCalibration",
        "SplineCalibration",
        "StructuredMatrixScaling",
        "TemperatureScaling",
        "VectorScaling",
        "make_calibrator",
    ),
    "losses": (
        "LOSSES",
        "AdaFocalLoss",
        "BrierLoss",
        "DualFocalLoss",
        "FLSDLoss",
        "FocalLoss",
        "GCELoss",
        "LossRow",
        "MMCELoss",
        "gce_log_ratio",
        "make_loss",
    ),
    "meter": ("CalibrationMeter",),
    "metrics": (
        "METRICS",
        "Reliability",
        "adaptive_ece",
        "brier",
        "classwise_ece",
        "ece",
        "entropy",
        "error",
        "evaluate",
        "logits_from_confidences",
        "logits_from_probabilities",
        "mce",
        "nll",
        "ood_auroc",
        "reliability",
    ),
    "models": ("MODELS", "ModelRow", "make_model"),
    "study.parameters": ("check_parameters",),
    "study.own_logits": ("load_own_logits",),
    "study.published": ("PUBLISHED", "published_logits"),
    "study.results": ("load_logits", "load_results"),
    "study.trainer": ("RECIPES", "TrainConfig", "fit"),
    "view.lessons": ("ask", "check"),
    "view.explorers": ("PropernessExplorer", "ReliabilityExplorer"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def _load(name: str) -> object:
    """Import the public object ``name``."""
    if name in _MODULES:
        return importlib.import_module(f"gcelib.{_MODULES[name]}")
    return getattr(importlib.import_module(f"gcelib.{_HOME[name]}"), name)


def _available() -> list[str]:
    """List the public names whose libraries are installed."""
    names = []
    for name in __dir__():
        try:
            _load(name)
        except ModuleNotFoundError:
            continue
        names.append(name)
    return names


def _on_first_use(name: str) -> object:
    """Import a public name on first use, or say what it lacks."""
    if name == "__all__":  # what ``from gcelib import *`` asks for
        return _available()
    this = sys.modules[__name__]
    if name not in _MODULES and name not in _HOME:
        problem = f"module 'gcelib' has no attribute {name!r}"
        raise AttributeError(problem, name=name, obj=this)
    try:
        value = _load(name)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("gcelib"):
            raise
        problem = (
            f"gcelib.{name} needs {missing.name}, which losses, metrics and calibrators"
            " do without: pip install 'gcelib[all]'"
        )
        # An import statement shows only its own kind of error. hasattr() and
        # getattr(..., default) understand AttributeError alone.
        if sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap":
            raise ModuleNotFoundError(problem, name=missing.name) from missing
        raise AttributeError(problem, name=name, obj=this) from missing
    globals()[name] = value  # the next use finds it without coming here
    return value


if not TYPE_CHECKING:  # a checker that saw it would believe in every name
    __getattr__ = _on_first_use


def __dir__() -> list[str]:
    """List all public names, also those whose libraries are missing."""
    return sorted({*_MODULES, *_HOME})
