"""gcelib: calibrated classification with Generative Cross-Entropy.

The public names below are imported on first use, so that ``from gcelib import GCELoss`` needs only torch and numpy.
"""

import importlib

_HOME = {
    "losses": "GCELoss BrierLoss MMCELoss FocalLoss FLSDLoss DualFocalLoss AdaFocalLoss LOSSES make_loss",
    "metrics": "ece adaptive_ece classwise_ece nll brier error entropy ood_auroc reliability evaluate",
    "calibration": "AdaptiveTemperatureScaling TemperatureScaling EnsembleTemperatureScaling SplineCalibration "
    "CALIBRATORS make_calibrator",
    "models": "MODELS make_model",
    "study.runs": "load_logits load_results",
    "study.trainer": "TrainConfig RECIPES fit",
    "view.explorers": "ReliabilityExplorer PropernessExplorer",
    "_check": "check_parameters",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
#: Short names of modules, wherever they live: ``from gcelib import metrics, plots, runs``.
_MODULES = {
    "losses": "losses",
    "metrics": "metrics",
    "models": "models",
    "calibration": "calibration",
    "data": "study.data",
    "runs": "study.runs",
    "training": "study.trainer",
    "paper": "study.paper",
    "sweeps": "study.sweeps",
    "plots": "view.plots",
    "widgets": "view.explorers",
}

__all__ = sorted({*_MODULE_OF, *_MODULES})
__version__ = "0.1.0"


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module 'gcelib' has no attribute {name!r}")
    try:
        module = importlib.import_module(f".{_MODULES.get(name) or _MODULE_OF[name]}", __name__)
    except ModuleNotFoundError as error:
        what = f"gcelib.{name} needs {error.name}, which losses, metrics and calibrators do without"
        raise ModuleNotFoundError(f"{what}: pip install -e '.[all]'", name=error.name) from error
    return getattr(module, name) if name in _MODULE_OF else module


def __dir__():
    return __all__
