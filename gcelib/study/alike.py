"""Which runs were trained alike: settings compared, however a table wrote them."""

import ast
import contextlib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from gcelib.losses import LOSSES
from gcelib.study.config import RECIPE_NAMES, RECIPES, recipe
from gcelib.study.data.long_tails import split_name

#: Settings of the training: those of all seeds of a loss, and of all losses that are
#: compared. The loss's own options come on top.
OF_TRAINING = (
    "recipe",
    "epochs",
    "batch_size",
    "lr",
    "momentum",
    "weight_decay",
    "milestones",
    "reduction",
    "clip_norm",
    "drop_last",
    "augment",
    "precision",
    "model_fingerprint",
)


def as_other_losses(run: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a run's settings, with what its recipe gives to its loss alone undone.

    The published code trains the Brier loss in its own way: two runs that differ only
    in that are trained alike as far as their recipe goes.

    Parameters
    ----------
    run : mapping
        Settings of a run; some may be missing.

    Returns
    -------
    dict
        The same, where a value that the recipe gives to this loss alone is that of CE.

    Examples
    --------
    >>> run = {"dataset": "tiny_imagenet", "model": "resnet50", "loss": "brier",
    ...        "recipe": "published_code", "lr": 0.035, "reduction": "mean"}
    >>> as_other_losses(run)["lr"], as_other_losses(run)["reduction"]
    (0.1, 'sum')
    """
    plain = dict(run)
    if run["loss"] not in LOSSES or run.get("recipe") not in RECIPE_NAMES:
        return plain
    parent = split_name(str(run["dataset"]))[0]
    # Of all data that no recipe names, it makes the same exceptions.
    base = parent if parent in RECIPES else "digits"
    its_loss = (base, str(run["model"]), run["loss"], run["recipe"])
    of_ce = (base, str(run["model"]), "ce", run["recipe"])
    own, other = recipe(*its_loss), recipe(*of_ce)
    if setting_as_text(run.get("epochs")) not in ("none", str(own["epochs"])):
        epochs = int(float(run["epochs"]))
        own, other = recipe(*its_loss, epochs), recipe(*of_ce, epochs)
    for name in set(own) & set(run):
        if own[name] != other[name] and same_setting(run[name], own[name]):
            plain[name] = other[name]
    return plain


def same_setting(one: object, other: object) -> bool:
    """Tell whether two values of a setting are one, however a table wrote them.

    Parameters
    ----------
    one, other : object
        350 and 350.0, (7, 10) and "[7, 10]", a rate in float32 and in float64.

    Returns
    -------
    bool

    Examples
    --------
    >>> same_setting(350, 350.0), same_setting((7, 10), "[7, 10]")
    (True, True)
    """
    return setting_as_text(one) == setting_as_text(other)


def setting_as_text(value: object) -> str:
    """Write a value of a setting in one way for all tables.

    Parameters
    ----------
    value : object
        A number, text, list, or None.

    Returns
    -------
    str

    Examples
    --------
    >>> setting_as_text(350.0), setting_as_text((7, 10)), setting_as_text(None)
    ('350', '(7, 10)', 'none')
    """
    is_number = isinstance(value, (int, float, np.number))
    if value is None or str(value).strip() in ("", "nan", "<NA>"):  # as pandas has it
        return "none"
    if is_number and not isinstance(value, bool):
        return f"{value:.7g}"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(setting_as_text, value))})"
    text = str(value)
    is_list = text.startswith(("[", "(")) and text.endswith(("]", ")"))
    return f"({text[1:-1].rstrip(',')})" if is_list else text


def unlike_recipe(run: Mapping[Any, Any]) -> list[str]:
    """Say what a run has otherwise than its own recipe gives.

    Parameters
    ----------
    run : mapping
        Settings of a run; what is missing, blank or NaN is not known and not told.
        Without a recipe it is the paper's.

    Returns
    -------
    list of str
        Each as "name value for usual value".

    Examples
    --------
    >>> run = {"dataset": "cifar10", "model": "resnet50", "loss": "ce", "epochs": 35,
    ...        "milestones": (15, 25), "momentum": 0.0}
    >>> unlike_recipe(run)
    ['epochs 35 for 350', 'momentum 0 for 0.9']
    """
    dataset, model, loss = (str(run[name]) for name in ("dataset", "model", "loss"))
    is_recorded = setting_as_text(run.get("recipe")) != "none"
    which = str(run["recipe"]) if is_recorded else "paper"
    usual = recipe(dataset, model, loss, which)
    if setting_as_text(run.get("epochs")) != "none":
        shortened = recipe(dataset, model, loss, which, int(float(run["epochs"])))
        usual["milestones"] = shortened["milestones"]
    unlike = []
    for name in [name for name in OF_TRAINING if name in run and name in usual]:
        there, meant = setting_as_text(run[name]), setting_as_text(usual[name])
        is_known = there != "none" or (name == "clip_norm" and is_recorded)
        if is_known and there != meant:
            unlike.append(f"{name} {there} for {meant}")
    return unlike + _unlike_options(dataset, model, loss, run.get("loss_options"))


def _unlike_options(dataset: str, model: str, loss: str, given: object) -> list[str]:
    """Say which of its loss's options a run has otherwise than usual."""
    if isinstance(given, str):  # as a CSV file keeps it
        with contextlib.suppress(ValueError, SyntaxError):
            given = ast.literal_eval(given)
    if not isinstance(given, Mapping):
        return []
    row = LOSSES[loss]
    parameters = inspect.signature(row.build).parameters
    usual = {name: parameters[name].default for name in row.run_options}
    usual |= row.options_of_run(split_name(dataset)[0], model)
    return [
        f"loss_options {name} {value} for {usual.get(name)}"
        for name, value in given.items()
        if not same_setting(value, usual.get(name))
    ]
