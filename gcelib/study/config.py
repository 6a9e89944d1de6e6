"""What a run was asked to be (``TrainConfig``) and what it will do (``Settings``).

A recipe a data set is a row of ``RECIPES``. Every bad value is refused here, one plain
step for each field, before any work.
"""

import copy
import dataclasses
import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from gcelib import losses
from gcelib._check import boolean, choice, fail, known_keys, number, warn
from gcelib.study import data, networks, places, runs
from gcelib.study.data import own

T = TypeVar("T")


# --- recipes --------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a data set is trained unless told otherwise: SGD with momentum.

    Parameters
    ----------
    model : str
        A key of ``models.MODELS``.
    epochs : int
        Passes over the training samples.
    milestones : tuple of int
        Epochs after which the learning rate is divided by ten.
    lr, momentum, weight_decay : float
        Of the optimiser.
    batch_size : int
        Samples in a step.
    reduction : str
        "mean" or "sum" of the loss over the batch.
    clip_norm : float or None
        Largest total norm of the gradient.
    drop_last : bool
        Whether an incomplete last batch is left out.
    augment : bool
        Whether images are cropped and mirrored at random.
    eval_every : int
        Epochs between looks at validation and test.

    Examples
    --------
    >>> RECIPES["cifar10"].milestones
    (150, 250)
    """

    model: str
    epochs: int
    milestones: tuple[int, ...]
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    reduction: str = "mean"
    clip_norm: float | None = None
    drop_last: bool = False
    augment: bool = False
    eval_every: int = 1


def _small(epochs: int, milestones: tuple[int, ...]) -> Recipe:
    """Return our recipe for small images on a CPU."""
    return Recipe("convnet", epochs, milestones, lr=0.05, batch_size=64)


_CIFAR = Recipe("resnet50", 350, (150, 250), augment=True, eval_every=5)

#: The recipe of each data set; long-tailed versions use their parent's. CIFAR and
#: Tiny-ImageNet: the paper's §5. The others are ours: the paper has no such data (the
#: embedded sets) or gives neither width nor schedule (AV1451).
RECIPES: dict[str, Recipe] = {
    "fashion_mini": _small(12, (7, 10)),
    "digits": _small(20, (12, 17)),
    "digit_pairs": _small(10, (6, 9)),
    "fashion_mnist": Recipe("resnet50", 30, (13, 22), augment=True),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "tiny_imagenet": dataclasses.replace(_CIFAR, epochs=100, milestones=(40, 60)),
    "av1451": Recipe("mlp", 100, (50, 80), lr=0.01),
}
#: Of data without a recipe, the user's own too, by what the samples are.
OWN_IMAGES = _small(20, (12, 17))
OWN_TABLE = Recipe("mlp", 100, (50, 80), lr=0.01, batch_size=64)

RECIPE_NAMES = ("paper", "published_code")

#: What the published code runs differently for the Brier loss, by data set and network.
PUBLISHED_BRIER: dict[tuple[str, str], dict[str, Any]] = {
    ("cifar10", "wrn_28_10"): {"epochs": 550},
    ("cifar100", "resnet110"): {"epochs": 430},
}
#: ... and by data set alone: for every loss, and for the Brier loss.
PUBLISHED_BATCH_SIZE = {"tiny_imagenet": 64}
PUBLISHED_BRIER_LR = {"tiny_imagenet": 0.035}


def recipe(
    dataset: str,
    model: str | None = None,
    loss: str = "ce",
    name: str = "paper",
    epochs: int | None = None,
) -> dict[str, Any]:
    """Return the settings for a data set.

    Parameters
    ----------
    dataset : str
        A name that ``data.load`` takes.
    model : str, optional
        Another network than the recipe's.
    loss : str, default "ce"
        The published code treats the Brier loss apart.
    name : str, default "paper"
        "paper": what the text says. "published_code": what
        torrvision/focal_calibration, the base of the paper's code, runs (train.py,
        train_scripts/*.sh): the loss summed over the batch, the gradient's norm clipped
        at 2, the rate dropped one epoch early, Tiny-ImageNet in batches of 64; the
        Brier loss averaged all the same, with 550 epochs for WRN on CIFAR-10, 430 for
        ResNet-110 on CIFAR-100 and lr 0.035 on Tiny-ImageNet.
    epochs : int, optional
        Of a shorter or longer run, whose milestones keep the recipe's shape.

    Returns
    -------
    dict
        Fields of ``TrainConfig``.

    Raises
    ------
    ValueError, TypeError
        For an unknown name, with the nearest.

    Examples
    --------
    >>> recipe("cifar10")["epochs"]
    350
    >>> recipe("cifar10", name="published_code")["clip_norm"]
    2.0
    """
    choice("recipe", name, RECIPE_NAMES)
    choice("loss", loss, losses.LOSSES)
    base = data.parent(dataset)
    row = RECIPES[base] if base in RECIPES else _recipe_by_kind(data.source_of(base))
    if model is not None:
        row = dataclasses.replace(row, model=model)
    if name == "published_code":
        row = _published(row, base, loss)
    if epochs is not None:
        scaled = _scaled_milestones(row, epochs)
        row = dataclasses.replace(row, epochs=epochs, milestones=scaled)
    return dict(vars(row))


def _recipe_by_kind(source: data.Source) -> Recipe:
    """Return the recipe for images, or for a table, that have none of their own."""
    if source.is_table:
        return OWN_TABLE
    too_small = source.size is not None and min(source.size.input_shape[1:]) < 8
    return dataclasses.replace(OWN_IMAGES, model="mlp" if too_small else "convnet")


def _published(row: Recipe, base: str, loss: str) -> Recipe:
    """Change a recipe into what the published code runs."""
    changed: dict[str, Any] = {
        "reduction": losses.LOSSES[loss].published_reduction,
        "clip_norm": 2.0,
        "milestones": tuple(m - 1 for m in row.milestones),
        "batch_size": PUBLISHED_BATCH_SIZE.get(base, row.batch_size),
    }
    if loss == "brier":
        changed["lr"] = PUBLISHED_BRIER_LR.get(base, row.lr)
        changed.update(PUBLISHED_BRIER.get((base, row.model), {}))
    return dataclasses.replace(row, **changed)


# --- what will be done ----------------------------------------------------------------

#: Fields that change where and how a run is done, and no number of it.
PLACE = ("device", "max_hours", "runs_dir", "keep_weights")


@dataclass(frozen=True)
class Settings:
    """Everything that a run will do, with no blank left: a resolved ``TrainConfig``.

    The fields are those of ``TrainConfig``, and two that a changed file changes, None
    for what is published: ``data_fingerprint``, the SHA-256 of the user's own data, and
    ``model_fingerprint``, that of the file with the user's own network.

    Examples
    --------
    >>> settings = TrainConfig("digits", device="cpu").resolved()
    >>> settings.model, settings.epochs, settings.milestones
    ('convnet', 20, (12, 17))
    """

    dataset: str
    model: str
    loss: str
    loss_options: dict[str, Any]
    seed: int
    variant: str
    recipe: str
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    milestones: tuple[int, ...]
    reduction: str
    clip_norm: float | None
    drop_last: bool
    augment: bool
    eval_every: int
    precision: str
    compile: bool
    ood: tuple[str, ...]
    keep_weights: bool
    device: str
    max_hours: float
    runs_dir: str
    data_fingerprint: str | None = None
    model_fingerprint: str | None = None

    @property
    def run_dir(self) -> Path:
        """The run's folder.

        Returns
        -------
        pathlib.Path
            ``<runs_dir>/<dataset>/<model>/<loss>[+variant]/seed-01``; names of the
            user's own data and networks in a readable, safe form.
        """
        dataset = self.dataset
        if own.is_own(dataset):
            dataset = own.folder_name(dataset)
        model = networks.folder_name(self.model)
        return runs.run_path(
            self.runs_dir, dataset, model, self.loss, self.variant, self.seed
        )

    def stored(self) -> dict[str, Any]:
        """Return what ``config.json`` stores and compares.

        Returns
        -------
        dict
            The fields that change a result.
        """
        kept = {k: v for k, v in vars(self).items() if k not in PLACE}
        kept["loss_options"] = copy.deepcopy(self.loss_options)
        for name in ("data_fingerprint", "model_fingerprint"):
            if kept[name] is None:
                del kept[name]
        return kept

    def defaults(self) -> dict[str, Any]:
        """Return what ``stored`` would be with all that can be left open left open.

        Returns
        -------
        dict
            What a field that an older run does not record was, in effect, at its time.
        """
        chosen = ("dataset", "model", "loss", "seed", "variant", "recipe")
        given = {name: getattr(self, name) for name in chosen}
        return TrainConfig(**given).resolved().stored()

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch.

        Parameters
        ----------
        epoch : int
            Counted from 0.

        Returns
        -------
        float
            lr, divided by ten at every milestone that has passed.
        """
        return float(self.lr * 0.1 ** sum(epoch >= m for m in self.milestones))


# --- what was asked -------------------------------------------------------------------


@dataclass
class TrainConfig:
    """Every setting of one run; what is left ``None`` comes from ``recipe``.

    Bad values are refused when it is made, and the blanks are filled in: once. A field
    that is changed later, or by ``dataclasses.replace``, leaves the others as they were
    filled in (the network and rate of the first data set, milestones of the first
    number of epochs), so make a new config for another recipe.

    Parameters
    ----------
    dataset : str
        A name in ``data.DATASETS``, with ``_lt<rho>`` its long tail; or your own data:
        ``"folder:/path"``, ``"npz:/path.npz"``, ``"module:function"``.
    model : str, optional
        A name in ``models.MODELS``, ``"timm:name"``, or ``"module:function"``, a
        function that takes ``(n_classes, input_shape)`` and returns an ``nn.Module``;
        if its file changes, that is another result.
    loss : str
        A name in ``losses.LOSSES``; ``loss_options`` go to ``losses.make_loss``.
    loss_options : dict
        Keyword arguments of the loss.
    seed : int
        Decides initialisation, data order, augmentation, the train/validation split,
        and the test part of data that brings none.
    variant : str
        Names what else differs, and the run's folder.
    recipe : str
        "paper" or "published_code".
    epochs, batch_size, lr, momentum, weight_decay : numbers, optional
        Of the training.
    milestones : list of int, optional
        Epochs after which lr is divided by ten.
    reduction : str, optional
        "mean" or "sum" over the batch.
    clip_norm : float, optional
        Largest total gradient norm; ``math.inf``: no limit. None: the recipe's, which
        is no limit in "paper" and 2 in "published_code". Among settings that leave
        nothing else open, such as stored ones, None is no limit, as it is there.
    drop_last, augment : bool, optional
        Leave out an incomplete last batch; crop and mirror images at random.
    eval_every : int, optional
        Epochs between looks at validation and test during training (the last epoch
        always; for the eye only, nothing is chosen by it).
    precision : str
        "fp32", "tf32", "bf16", or "auto": bf16 on a GPU that has it, else fp32. The
        logits that are stored at the end are computed in float32 whatever the training
        ran in.
    compile : bool
        Whether ``torch.compile`` is used.
    ood : list of str, optional
        Out-of-distribution sets whose logits are written too.
    keep_weights : bool
        Whether the final weights are kept.
    device : str
        "auto", "cpu", "cuda", ...
    max_hours : float
        A run estimated to take longer is refused.
    runs_dir : path, optional
        Parent folder of all runs.

    Raises
    ------
    ValueError, TypeError
        For a bad value; the message begins with the field's name.

    Warns
    -----
    UserWarning
        If all of the recipe's settings are given, ``clip_norm`` is None and the recipe
        has a limit: that is taken for no limit.

    Examples
    --------
    >>> config = TrainConfig("cifar10_lt100", loss="gce", epochs=35, device="cpu")
    >>> config.model, config.milestones
    ('resnet50', (15, 25))
    """

    dataset: str = "fashion_mini"
    model: str | None = None
    loss: str = "gce"
    loss_options: dict[str, Any] = field(default_factory=dict)
    seed: int = 1
    variant: str = ""
    recipe: str = "paper"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    milestones: tuple[int, ...] | list[int] | None = None
    reduction: str | None = None
    clip_norm: float | None = None
    drop_last: bool | None = None
    augment: bool | None = None
    eval_every: int | None = None
    precision: str = "auto"
    compile: bool = False
    ood: tuple[str, ...] | list[str] | None = None
    keep_weights: bool = False
    device: str = "auto"
    max_hours: float = 24.0
    runs_dir: str | os.PathLike[str] | None = None

    @classmethod
    def from_variables(cls, variables: Mapping[str, Any]) -> "TrainConfig":
        """Return the config that variables spell out, such as a notebook's.

        Parameters
        ----------
        variables : mapping
            By name; ``globals()`` in a notebook. Names that are no fields are left
            alone, fields that are not there keep their defaults. Of any other mapping,
            such as a file's content, a name that seems misspelt is told.

        Returns
        -------
        TrainConfig

        Raises
        ------
        ValueError, TypeError
            For a bad value; the message begins with the field's name.

        Examples
        --------
        >>> variables = {"loss": "ce", "seed": 2, "unrelated": "x"}
        >>> config = TrainConfig.from_variables(variables)
        >>> config.loss, config.seed, config.dataset
        ('ce', 2, 'fashion_mini')
        """
        names = [known.name for known in dataclasses.fields(cls)]
        if "__builtins__" not in variables:
            _tell_misspelt(variables, names)
        return cls(**{name: variables[name] for name in names if name in variables})

    def __post_init__(self) -> None:
        """Refuse bad values and fill in the blanks."""
        settings = resolve(self)
        limit = settings.clip_norm
        if limit is not None and self._is_as_stored():
            warn(
                "clip_norm: None beside all other settings is taken for no limit, as "
                f"stored; the recipe {self.recipe!r} has {limit:g}: write that "
                "number for it, or math.inf for no limit"
            )
            self.clip_norm = math.inf
            settings = dataclasses.replace(settings, clip_norm=None)
        is_limitless = self.clip_norm == math.inf
        for known in dataclasses.fields(self):
            setattr(self, known.name, getattr(settings, known.name))
        if is_limitless:  # None would be the recipe's limit when it is asked again
            self.clip_norm = math.inf

    def _is_as_stored(self) -> bool:
        """Tell whether nothing of the recipe is left open but the gradient's limit.

        So it is of settings that a run stored: JSON has no infinity.
        """
        of_recipe = [known.name for known in dataclasses.fields(Recipe)]
        is_open = [name for name in of_recipe if getattr(self, name) is None]
        return is_open == ["clip_norm"]

    def resolved(self) -> Settings:
        """Return what this run will do; values changed since are checked again.

        Returns
        -------
        Settings
            With no blank left.

        Raises
        ------
        ValueError, TypeError
            For a bad value; the message begins with the field's name.
        """
        return resolve(self)

    @property
    def run_dir(self) -> Path:
        """The run's folder.

        Returns
        -------
        pathlib.Path
            See ``Settings.run_dir``.
        """
        return self.resolved().run_dir

    def settings(self) -> dict[str, Any]:
        """Return the fields that change a result: what ``config.json`` compares.

        Returns
        -------
        dict
            By the field's name.
        """
        return self.resolved().stored()

    def defaults(self) -> dict[str, Any]:
        """Return what ``settings`` would be with all that can be left open left open.

        Returns
        -------
        dict
            What a field that an older run does not record was, in effect, at its time.
        """
        return self.resolved().defaults()

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch.

        Parameters
        ----------
        epoch : int
            Counted from 0.

        Returns
        -------
        float
            lr, divided by ten at every milestone that has passed.
        """
        return self.resolved().learning_rate(epoch)


#: What settings are called elsewhere.
_CALLED = {
    "lr": ("learning_rate", "eta", "step_size", "base_lr"),
    "epochs": ("num_epochs", "max_epochs", "n_epochs", "num_train_epochs"),
    "batch_size": ("batch", "bs", "train_batch_size", "per_device_train_batch_size"),
    "weight_decay": ("wd", "l2", "decay"),
    "model": ("network", "net", "arch", "architecture", "backbone", "model_name"),
    "dataset": ("data", "data_set", "dataset_name"),
    "loss": ("criterion", "loss_function", "loss_fn", "objective"),
    "loss_options": ("label_smoothing", "smoothing", "gamma", "focal_gamma"),
    "clip_norm": ("clip", "grad_clip", "gradient_clip", "max_grad_norm"),
    "milestones": ("lr_milestones", "lr_steps", "schedule", "steps"),
    "augment": ("augmentation", "aug", "data_augmentation"),
    "seed": ("random_seed", "random_state", "manual_seed"),
    "precision": ("amp", "dtype", "mixed_precision"),
    "runs_dir": ("output_dir", "out_dir", "save_dir", "log_dir"),
}


def _tell_misspelt(variables: Mapping[str, Any], names: Sequence[str]) -> None:
    """Warn of names that nearly are, or elsewhere mean, fields which are not given."""
    missing = [name for name in names if name not in variables]
    elsewhere = {word: name for name, words in _CALLED.items() for word in words}
    for given in variables:
        if given in names:
            continue
        plain = str(given).lower()
        meant = elsewhere.get(plain, plain)
        for name in difflib.get_close_matches(meant, missing, 1, 0.8):
            warn(f"variables: {given!r} is no setting; did you mean {name!r}?")


def resolve(config: TrainConfig) -> Settings:
    """Check every field of a config and fill in what was left open.

    Parameters
    ----------
    config : TrainConfig
        What was asked.

    Returns
    -------
    Settings
        What will be done.

    Raises
    ------
    ValueError, TypeError
        For a bad value; the message begins with the field's name.

    Examples
    --------
    >>> resolve(TrainConfig("digits", device="cpu")).batch_size
    64
    """
    seed = _whole("seed", config.seed, 0, 2**31 - 1)
    base = data.parent(config.dataset)
    dataset = base if own.is_own(base) else config.dataset
    source = data.source_of(dataset, seed)
    loss = choice("loss", config.loss, losses.LOSSES)
    usual_model = recipe(dataset, None, loss, config.recipe)["model"]
    model = networks.check_name(_or(config.model, usual_model))
    _check_kind(model, source, dataset)
    row = Recipe(**recipe(dataset, model, loss, config.recipe))
    augment = row.augment if base in RECIPES else source.augment
    epochs = _whole("epochs", _or(config.epochs, row.epochs), 1, 10**5)
    device = _device(config.device)
    return Settings(
        dataset=dataset,
        model=model,
        loss=loss,
        loss_options=_loss_options(loss, config.loss_options, base, model),
        seed=seed,
        variant=_variant(config.variant),
        recipe=config.recipe,
        epochs=epochs,
        batch_size=_whole(
            "batch_size", _or(config.batch_size, row.batch_size), 2, 10**6
        ),
        lr=_real("lr", _or(config.lr, row.lr), 0, 1e3, open_low=True),
        momentum=_real(
            "momentum", _or(config.momentum, row.momentum), 0, 1, open_high=True
        ),
        weight_decay=_real(
            "weight_decay", _or(config.weight_decay, row.weight_decay), 0, 1e3
        ),
        milestones=_milestones(config.milestones, config.epochs, epochs, row),
        reduction=choice(
            "reduction", _or(config.reduction, row.reduction), ("mean", "sum")
        ),
        clip_norm=_clip_norm(_or(config.clip_norm, row.clip_norm)),
        drop_last=boolean("drop_last", _or(config.drop_last, row.drop_last)),
        augment=boolean("augment", _or(config.augment, augment)),
        eval_every=_whole(
            "eval_every", _or(config.eval_every, row.eval_every), 1, 10**5
        ),
        precision=_precision(config.precision, device),
        compile=boolean("compile", config.compile),
        ood=_ood(config.ood, source, dataset),
        keep_weights=boolean("keep_weights", config.keep_weights),
        device=device,
        max_hours=_real("max_hours", config.max_hours, 0, 1e6, open_low=True),
        runs_dir=_runs_dir(config.runs_dir),
        data_fingerprint=source.fingerprint,
        model_fingerprint=networks.fingerprint(model),
    )


def _or(given: T | None, default: T) -> T:
    """Return what was given, else the default."""
    return default if given is None else given


def _whole(name: str, value: object, low: int, high: int) -> int:
    """Return a whole number within limits."""
    return number(name, value, low, high, integer=True)


def _real(
    name: str,
    value: object,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return a number within limits."""
    return float(number(name, value, low, high, open_low=open_low, open_high=open_high))


def _clip_norm(value: object) -> float | None:
    """Return the limit of the gradient's norm; None: there is none."""
    if value is None or (isinstance(value, float) and value == math.inf):
        return None
    return _real("clip_norm", value, 0, 1e9, open_low=True)


def _check_kind(model: str, source: data.Source, dataset: str) -> None:
    """Refuse a network for images where the data is a table."""
    if source.is_table and not networks.is_own(model) and model != OWN_TABLE.model:
        problem = f"{model!r} needs images and {dataset} is a table"
        fail("model", problem, f"use model={OWN_TABLE.model!r}")


def _loss_options(
    loss: str, given: Mapping[str, Any], base: str, model: str
) -> dict[str, Any]:
    """Return the options as plain Python values; the loss itself refuses a bad one."""
    if not isinstance(given, dict):
        problem = f"must be a mapping, got {given!r}"
        fail("loss_options", problem, "write {'gamma': 3}", TypeError)
    row = losses.LOSSES[loss]
    options = row.options_of_run(base, model) | given
    known_keys("loss_options", options, row.run_options)
    losses.make_loss(loss, **options)
    for name, value in options.items():
        if isinstance(value, np.generic):  # JSON knows no numpy
            options[name] = value.item()
    return options


#: What pandas reads as nothing: tables of several variants would lose it.
_NOTHING_IN_TABLES = {"NA", "NULL", "NaN", "None", "nan", "null"}


def _variant(variant: str) -> str:
    """Return a variant that can name a folder, and comes through a table."""
    pattern = r"([A-Za-z0-9_][\w.-]{0,99})?"
    if not isinstance(variant, str) or not re.fullmatch(pattern, variant, re.ASCII):
        cure = "use letters, digits, '.', '_' and '-'"
        fail("variant", f"{variant!r} cannot name a folder", cure)
    if variant in _NOTHING_IN_TABLES:
        problem = f"{variant!r} is read as no variant from a table's file"
        fail("variant", problem, "choose another word, such as 'without'")
    return variant


def _milestones(
    given: Sequence[int] | None, asked_epochs: int | None, epochs: int, row: Recipe
) -> tuple[int, ...]:
    """Return the milestones; a shortened run keeps the shape of its recipe."""
    if given is None and asked_epochs is not None:
        return _scaled_milestones(row, epochs)
    chosen = _sequence("milestones", _or(given, row.milestones), "[150, 250]")
    found = tuple(number("milestones", m, 1, integer=True) for m in chosen)
    if sorted(set(found)) != list(found):
        cure = "list each epoch once, in order"
        fail("milestones", f"{found} do not increase", cure)
    return found


def _scaled_milestones(row: Recipe, epochs: int) -> tuple[int, ...]:
    """Return a recipe's milestones in a run of another length."""
    scaled = sorted({round(m * epochs / row.epochs) for m in row.milestones})
    return tuple(m for m in scaled if 0 < m < epochs)


def _sequence(name: str, value: object, example: str) -> Sequence[Any]:
    """Return a list or tuple; a lone value or a text is refused."""
    if not isinstance(value, (list, tuple)):
        fail(name, f"must be a list, got {value!r}", f"write {example}", TypeError)
    return value


#: The small one is drawn from the other.
_FROM_ONE_SOURCE = {"fashion_mini", "fashion_mnist"}


def _ood(
    given: Sequence[str] | None, source: data.Source, dataset: str
) -> tuple[str, ...]:
    """Return the out-of-distribution sets, without those that do not fit own data."""
    names = tuple(_sequence("ood", _or(given, source.ood), "['digits', 'noise']"))
    base = data.parent(dataset)
    for name in names:
        data.check_ood(name)
        if {name, base} == _FROM_ONE_SOURCE:
            problem = f"{name!r} and {base!r} are images of one data set"
            fail("ood", problem, "name another one")
        if name == base:
            problem = f"{name!r} is the data set of the run, whose test set this is"
            fail("ood", problem, "name another one")
        if names.count(name) > 1:
            fail("ood", f"{name!r} is there twice", "name each set once")
    if not names or not source.is_table:
        return names
    problem = f"{list(names)} are images and {dataset} is a table"
    if not own.is_own(base):
        fail("ood", problem, "leave it out")
    warn(f"ood: {problem}; they are skipped")
    return ()


def _precision(name: str, device: str) -> str:
    """Return the precision of the training steps."""
    choice("precision", name, ("auto", "fp32", "tf32", "bf16"))
    if name != "auto":
        return name
    on_gpu = device.startswith("cuda")
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def _device(name: str) -> str:
    """Return a device that can compute here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # "meta" can be had, and computes nothing
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        cure = "use 'auto', 'cpu' or 'cuda'"
        fail("device", f"{name!r} cannot be used ({reason})", cure)
    return str(device)


def _runs_dir(given: str | os.PathLike[str] | None) -> str:
    """Return the parent folder of all runs, which need not exist."""
    if not isinstance(given, (str, os.PathLike, type(None))):
        fail("runs_dir", f"{given!r} is no path", "pass a string", TypeError)
    asked = os.path.expanduser(given) if given else places.runs_dir()
    folder = os.path.abspath(asked)  # the same after a change of the working folder
    if os.path.exists(folder) and not os.path.isdir(folder):
        fail("runs_dir", f"{folder!r} is a file", "name a folder")
    return folder
