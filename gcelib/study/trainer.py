"""One training run: ``for record in fit(TrainConfig(...))`` works in the run's folder and survives being killed."""

import contextlib
import dataclasses
import datetime
import io
import json
import math
import os
import platform
import re
import subprocess
import time
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from gcelib import _check, calibration, losses, metrics, models
from gcelib.study import data, runs

_PAPER = dict(
    lr=0.1, momentum=0.9, weight_decay=5e-4, batch_size=128, reduction="mean", clip_norm=None, drop_last=False
)
_CIFAR = _PAPER | dict(model="resnet50", epochs=350, milestones=(150, 250), augment=True, eval_every=5)
_SMALL = _PAPER | dict(model="convnet", lr=0.05, batch_size=64, augment=False, eval_every=1)

#: What ``TrainConfig`` takes for every field left unset, by data set (long-tailed versions use their parent's).
#: CIFAR and Tiny-ImageNet: the paper's §5. The other recipes are ours: the paper has no such data (the embedded sets)
#: or gives neither width nor schedule (AV1451).
RECIPES: dict[str, dict] = {
    "fashion_mini": _SMALL | dict(epochs=12, milestones=(7, 10)),
    "digits": _SMALL | dict(epochs=20, milestones=(12, 17)),
    "digit_pairs": _SMALL | dict(epochs=10, milestones=(6, 9)),
    "fashion_mnist": _PAPER | dict(model="resnet50", epochs=30, milestones=(13, 22), augment=True, eval_every=1),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "tiny_imagenet": _CIFAR | dict(epochs=100, milestones=(40, 60)),
    "av1451": _PAPER | dict(model="mlp", epochs=100, milestones=(50, 80), lr=0.01, augment=False, eval_every=1),
}


def recipe(dataset, model=None, loss="ce", name="paper"):
    """The settings for ``dataset`` as a dict of ``TrainConfig`` fields.

    name: ``"paper"`` (what the text says) or ``"published_code"``: what torrvision/focal_calibration, the base of the
    paper's code, runs (train.py, train_scripts/*.sh): the loss summed over the batch, the gradient's norm clipped at 2,
    the rate dropped one epoch early, Tiny-ImageNet in batches of 64; the Brier loss averaged all the same, with 550
    epochs for WRN on CIFAR-10, 430 for ResNet-110 on CIFAR-100 and lr 0.035 on Tiny-ImageNet.
    """
    _check.choice("recipe", name, ("paper", "published_code"))
    base = data.parent(dataset)
    chosen = dict(RECIPES[base])
    if model is not None:
        chosen["model"] = model
    if name == "published_code":
        early = tuple(m - 1 for m in chosen["milestones"])
        chosen |= dict(reduction=losses.LOSSES[loss].published_reduction, clip_norm=2.0, milestones=early)
        if base == "tiny_imagenet":
            chosen |= dict(batch_size=64)
        exceptions = {
            ("cifar10", "wrn_28_10"): dict(epochs=550),
            ("cifar100", "resnet110"): dict(epochs=430),
            ("tiny_imagenet", chosen["model"]): dict(lr=0.035),
        }
        if loss == "brier":
            chosen |= exceptions.get((base, chosen["model"]), {})
    return chosen


_WHOLE, _ABOVE = {"integer": True}, {"open_low": True}
_LIMITS = {
    "seed": (0, 2**31 - 1, _WHOLE),
    "epochs": (1, 10**5, _WHOLE),
    "batch_size": (2, 10**6, _WHOLE),
    "eval_every": (1, 10**5, _WHOLE),
    "lr": (0, 1e3, _ABOVE),
    "momentum": (0, 1, {"open_high": True}),
    "weight_decay": (0, 1e3, {}),
    "clip_norm": (0, 1e9, _ABOVE),
    "max_hours": (0, 1e6, _ABOVE),
}


@dataclass
class TrainConfig:
    """Every setting of one run; what is left ``None`` comes from :func:`recipe`. Bad values are refused here.

    dataset, model, loss: registry names; ``loss_options`` go to ``losses.make_loss``. seed: decides initialisation,
    data order, augmentation and the train/validation split. variant: names what else differs, and the folder.
    milestones: epochs after which lr is multiplied by 0.1. reduction: "mean" or "sum" over the batch.
    clip_norm: largest total gradient norm, or None. eval_every: epochs between looks at validation and test during
    training (the last epoch always; for the eye only, nothing is chosen by it). precision: "auto" (bf16 on a GPU that
    has it, else fp32), "fp32", "tf32", "bf16". ood: names of out-of-distribution sets whose logits are written too.
    device: "auto", "cpu", "cuda", ... max_hours: a run estimated to take longer is refused. runs_dir: parent folder.
    """

    dataset: str = "fashion_mini"
    model: str | None = None
    loss: str = "gce"
    loss_options: dict = field(default_factory=dict)
    seed: int = 1
    variant: str = ""
    recipe: str = "paper"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    milestones: tuple | None = None
    reduction: str | None = None
    clip_norm: float | None = None
    drop_last: bool | None = None
    augment: bool | None = None
    eval_every: int | None = None
    precision: str = "auto"
    compile: bool = False
    ood: tuple | None = None
    keep_weights: bool = False
    device: str = "auto"
    max_hours: float = 24.0
    runs_dir: str | None = None

    def __post_init__(self):
        check = _check
        base = data.parent(self.dataset)
        if self.model is not None:
            check.choice("model", self.model, models.MODELS)
        check.choice("loss", self.loss, losses.LOSSES)
        full = recipe(self.dataset, self.model, self.loss, self.recipe)
        given_epochs, given_milestones = self.epochs, self.milestones
        for name, value in full.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        for name, (low, high, options) in _LIMITS.items():
            if name != "clip_norm" or self.clip_norm is not None:
                setattr(self, name, check.number(name, getattr(self, name), low, high, **options))
        if given_milestones is None and given_epochs is not None:  # a shortened run keeps the recipe's shape
            scaled = {round(m * self.epochs / full["epochs"]) for m in full["milestones"]}
            self.milestones = tuple(m for m in sorted(scaled) if 0 < m < self.epochs)
        for name in ("drop_last", "augment", "compile", "keep_weights"):
            setattr(self, name, check.boolean(name, getattr(self, name)))
        check.choice("reduction", self.reduction, ("mean", "sum"))
        check.choice("precision", self.precision, ("auto", "fp32", "tf32", "bf16"))
        self.milestones = tuple(
            check.number("milestones", m, 1, integer=True)
            for m in _sequence("milestones", self.milestones, "[150, 250]")
        )
        if sorted(set(self.milestones)) != list(self.milestones):
            check.fail("milestones", f"{self.milestones} do not increase", "list each epoch once, in order")
        if not isinstance(self.variant, str) or not re.fullmatch(r"([A-Za-z0-9_][\w.-]{0,99})?", self.variant, re.A):
            check.fail("variant", f"{self.variant!r} cannot name a folder", "use letters, digits, '.', '_' and '-'")
        if not isinstance(self.loss_options, dict):
            check.fail("loss_options", f"must be a mapping, got {self.loss_options!r}", "write {'gamma': 3}", TypeError)
        row = losses.LOSSES[self.loss]
        self.loss_options = row.options_of_run(base, self.model) | self.loss_options
        check.known_keys("loss_options", self.loss_options, row.run_options)
        losses.make_loss(self.loss, **self.loss_options)  # bad values are refused here
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in self.loss_options.items()}
        self.loss_options = plain  # JSON knows no numpy
        if base == "av1451" and self.model != "mlp":
            check.fail("model", f"{self.model!r} needs images and av1451 is a table", "use model='mlp'")
        self.ood = tuple(data.OOD_OF[base] if self.ood is None else _sequence("ood", self.ood, "['digits', 'noise']"))
        for name in self.ood:
            data.check_ood(name)
        if base == "av1451" and self.ood:
            check.fail("ood", f"{list(self.ood)} are images and av1451 is a table", "leave it out")
        self.device = _device(self.device)
        if self.precision == "auto":
            bf16 = self.device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
            self.precision = "bf16" if bf16 else "fp32"
        if not isinstance(self.runs_dir, (str, os.PathLike, type(None))):
            check.fail("runs_dir", f"{self.runs_dir!r} is no path", "pass a string", TypeError)
        self.runs_dir = os.path.expanduser(self.runs_dir or runs.default_runs_dir())
        if os.path.exists(self.runs_dir) and not os.path.isdir(self.runs_dir):
            check.fail("runs_dir", f"{self.runs_dir!r} is a file", "name a folder")

    @property
    def run_dir(self):
        """The run's folder."""
        return runs.run_path(self.runs_dir, self.dataset, self.model, self.loss, self.variant, self.seed)

    def settings(self):
        """The fields that change a result: what ``config.json`` compares."""
        place = ("device", "max_hours", "runs_dir", "keep_weights")
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in place}

    def learning_rate(self, epoch):
        """The learning rate of ``epoch`` (counted from 0)."""
        return self.lr * 0.1 ** sum(epoch >= m for m in self.milestones)


def _sequence(name, value, example):
    if not isinstance(value, (list, tuple)):
        _check.fail(name, f"must be a list, got {value!r}", f"write {example}", TypeError)
    return value


def _device(name):
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # "meta" can be had everywhere, and computes nothing
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        _check.fail("device", f"{name!r} cannot be used ({reason})", "use 'auto', 'cpu' or 'cuda'")
    return str(device)


def _environment(config):
    git = ["git", "-C", str(runs.PROJECT), "describe", "--always", "--dirty", "--abbrev=12", "--match="]
    commit = None
    with contextlib.suppress(OSError):  # no git here
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    cuda = config.device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(config.device) if cuda else f"{config.device} ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "commit": commit or None,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "keep_weights": config.keep_weights,
    }


# --- the loop -----------------------------------------------------------------------------------------------------


def fit(config):
    """Train ``config`` in its run folder; yields one small record an epoch.

    A finished run yields nothing; a killed one goes on after its last whole epoch, with the same bits on the same CPU
    and thread count. At the end the logits of validation, test and OOD sets are written, then ``metrics.json`` with
    every metric on every split, raw and after each calibrator (fitted on validation).

    Record: epoch (from 1), epochs, lr, train_loss (the loss minimised), train_nll and train_error (running means of
    the epoch), ``val_`` and ``test_`` nll, error, ece where evaluated, seconds, images_per_second, seconds_left.
    Raises ValueError if the folder holds another result or the run would take longer than ``max_hours``; RuntimeError
    if another process writes there; FloatingPointError at a loss that is not finite (the last checkpoint stays).
    """
    with runs.open_run(config.run_dir, config.settings(), _environment(config)) as done:
        if not done:
            yield from _fit(config)
        elif config.keep_weights and not (config.run_dir / "weights.pt").exists():
            what = f"{config.run_dir} was finished without keeping its weights"
            warnings.warn(f"{what}; for weights, remove the folder or choose a variant", stacklevel=2)


def _fit(config):
    check_duration(config)
    splits = data.load(config.dataset, config.seed)
    _refuse_if_too_slow(config, len(splits.train[1]), splits.input_shape, splits.n_classes)
    if config.drop_last and config.batch_size > len(splits.train[1]):
        what = f"{config.batch_size} with drop_last leaves no batch of {len(splits.train[1])} samples"
        _check.fail("batch_size", what, "choose a smaller one")
    ood = {name: data.load_ood(name, splits) for name in config.ood}  # a download that fails, fails before the work
    device = torch.device(config.device)
    train, val, test = (tuple(t.to(device) for t in part) for part in (splits.train, splits.val, splits.test))
    state = _State(config, splits, device)
    run_dir = config.run_dir
    history = state.resume(runs.load_checkpoint(run_dir))
    _write_history(run_dir, history)  # the checkpoint decides: a kill may have fallen between the two files
    for epoch in range(len(history), config.epochs):
        start = time.perf_counter()
        record = {"epoch": epoch + 1, "epochs": config.epochs, "lr": config.learning_rate(epoch)}
        record |= state.train_epoch(epoch, train)
        record["images_per_second"] = round(len(train[1]) / (time.perf_counter() - start), 1)
        look = epoch + 1 == config.epochs or (epoch + 1) % config.eval_every == 0
        if look or state.adapts:
            logits = state.predict(val[0])
            if state.adapts:
                state.criterion.update(logits.to(device), val[1])
        if look:
            record |= _watch("val", logits, val[1]) | _watch("test", state.predict(test[0]), test[1])
        record["seconds"] = round(time.perf_counter() - start, 3)
        history.append(record)
        runs.save_checkpoint(run_dir, state.checkpoint(history))
        _write_history(run_dir, history)
        left = float(np.median([r["seconds"] for r in history])) * (config.epochs - epoch - 1)
        yield record | {"seconds_left": left}
    _finish(config, state, splits, val, test, ood, history)


def _write_history(run_dir, history):
    runs.write_atomic(run_dir / "history.jsonl", "".join(json.dumps(r) + "\n" for r in history).encode())


class _State:
    """Model, optimiser and loss of one run: what a checkpoint holds."""

    def __init__(self, config, splits, device):
        self.config, self.splits, self.device = config, splits, device
        with torch.random.fork_rng(devices=[]):  # initialised on the CPU: the same weights for every device
            torch.manual_seed(config.seed)
            model = models.make_model(config.model, splits.n_classes, splits.input_shape)
        self.images = len(splits.input_shape) == 3
        layout = torch.channels_last if self.images and device.type == "cuda" else torch.contiguous_format
        self.model = model.to(device, memory_format=layout)
        self.layout = layout
        # the last, smaller batch gets kernels of its own: those for any size are slower, and would serve all batches
        self.compiled = torch.compile(self.model, dynamic=False) if config.compile else self.model
        self.criterion = losses.make_loss(config.loss, **config.loss_options).to(device)
        self.adapts = losses.LOSSES[config.loss].adapts
        options = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
        self.optimizer = torch.optim.SGD(self.model.parameters(), **options, fused=device.type == "cuda" or None)

    def resume(self, checkpoint):
        if checkpoint is None:
            return []
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.criterion.load_state_dict(checkpoint["criterion"])
        return checkpoint["history"]

    def checkpoint(self, history):
        parts = {"model": self.model, "optimizer": self.optimizer, "criterion": self.criterion}
        return {name: part.state_dict() for name, part in parts.items()} | {"history": history}

    def forward(self, network, x):
        """Logits in the run's precision. Autocast is entered anew each time: it caches weights that a step changes."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return network(x.to(memory_format=self.layout) if self.images else x)

    def _kernels(self):
        """Choice of kernels for this run only; nothing global is left changed."""
        return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=self.config.precision != "fp32")

    def train_epoch(self, epoch, train):
        """One pass over ``train``; nothing is read back from the device before its end, except on a CPU."""
        config = self.config
        # Order and augmentation depend on (seed, epoch) alone, so a resumed run needs no generator state.
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate(epoch)
        self.model.train()
        totals = torch.zeros(4, device=self.device, dtype=torch.float64 if self.device.type != "mps" else torch.float32)
        first_bad = torch.full((), -1, device=self.device)
        with self._kernels():
            batches = data.batches(
                train,
                config.batch_size,
                splits=self.splits,
                generator=generator,
                augment=config.augment,
                drop_last=config.drop_last,
            )
            for step, (x, labels) in enumerate(batches):
                logits = self.forward(self.compiled, x)
                loss = self.criterion(logits, labels)
                if config.reduction == "sum":
                    loss = loss * len(labels)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if config.clip_norm is not None:
                    nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
                self.optimizer.step()
                with torch.no_grad():
                    bad = ~torch.isfinite(loss)
                    first_bad = torch.where((first_bad < 0) & bad, step, first_bad)
                    nll = F.cross_entropy(logits.float(), labels, reduction="sum")
                    wrong = (logits.argmax(1) != labels).sum()
                    totals += torch.stack([loss * len(labels), nll, wrong, torch.ones_like(loss) * len(labels)])
                if self.device.type == "cpu" and bad:
                    break
            else:  # the last step may have spoilt the weights, and no loss has told of it yet
                bad = ~torch.stack([p.isfinite().all() for p in self.model.state_dict().values()]).all()
                first_bad = torch.where((first_bad < 0) & bad, step, first_bad)
        if int(first_bad) >= 0:
            raise FloatingPointError(
                f"the loss or the weights stopped being finite in epoch {epoch + 1}, step {int(first_bad) + 1} (lr "
                f"{config.learning_rate(epoch):g}); the checkpoint before it is kept in {config.run_dir}. "
                "A smaller lr or clip_norm=2 is the usual cure"
            )
        loss, nll, wrong, n = totals.tolist()
        return {"train_loss": loss / n, "train_nll": nll / n, "train_error": wrong / n}

    @torch.no_grad()
    def predict(self, inputs, batch_size=500):
        """Logits (N, K), float32 on the CPU, of raw inputs on any device."""
        self.model.eval()
        parts = []
        with self._kernels():
            for chunk in inputs.split(batch_size):
                x = data.normalize(chunk.to(self.device), self.splits)
                parts.append(self.forward(self.model, x).float())
        return torch.cat(parts).cpu()


def _watch(split, logits, labels):
    labels = labels.cpu()
    return {f"{split}_{f.__name__}": f(logits, labels) for f in (metrics.nll, metrics.error, metrics.ece)}


def _finish(config, state, splits, val, test, ood, history):
    logits = {"val": state.predict(val[0]), "test": state.predict(test[0])}
    labels = {"val": splits.val[1], "test": splits.test[1]}
    for name, images in ood.items():
        logits[name] = state.predict(images)
        labels[name] = torch.full((len(logits[name]),), -1)
    for name in logits:
        runs.save_logits(config.run_dir, name.replace(":", "-"), logits[name], labels[name])
    if config.keep_weights:
        buffer = io.BytesIO()
        torch.save({k: v.cpu() for k, v in state.model.state_dict().items()}, buffer)
        runs.write_atomic(config.run_dir / "weights.pt", buffer.getbuffer())
    results = measure(logits, labels)
    results["train_seconds"] = round(sum(r["seconds"] for r in history), 3)
    results |= {k: v for k, v in history[-1].items() if k.startswith("train_")}
    content = {"config": config.settings(), "environment": _environment(config), "results": results}
    runs.write_json(config.run_dir / "metrics.json", content)
    runs.discard_checkpoints(config.run_dir)


def measure(logits, labels):
    """Every metric on every split, raw and after each calibrator fitted on ``"val"``.

    logits, labels: dicts by split name; labels -1 mark out-of-distribution sets, which get the AUROC of their entropy
    against ``"test"``. Returns a flat dict ``<split>_<calibrator>_<metric>``, fractions and nats.
    """
    results = {}
    stored = [name for name, row in calibration.CALIBRATORS.items() if row.measured_by_fit]
    for name in ("raw", *stored):
        apply = nn.Identity() if name == "raw" else calibration.make_calibrator(name).fit(logits["val"], labels["val"])
        calibrated = {split: apply(z) for split, z in logits.items()}
        for split, z in calibrated.items():
            if (labels[split] >= 0).all():
                results |= {f"{split}_{name}_{k}": v for k, v in metrics.evaluate(z, labels[split]).items()}
            else:
                results[f"{split}_{name}_auroc"] = metrics.ood_auroc(calibrated["test"], z)
    return results


def progress(record):
    """One line on a record of :func:`fit`: epoch, loss, error, ECE, images/s, time left."""
    seen = {"loss": f"{record['train_loss']:.3f}", "train error": f"{record['train_error']:.1%}"}
    if "test_error" in record:
        seen |= {"test error": f"{record['test_error']:.1%}", "test ECE": f"{record['test_ece']:.1%}"}
    minutes, seconds = divmod(round(record["seconds_left"]), 60)
    seen |= {"images/s": f"{record['images_per_second']:,.0f}", "left": f"{minutes}:{seconds:02d} min"}
    return f"epoch {record['epoch']}/{record['epochs']} · " + " · ".join(f"{k} {v}" for k, v in seen.items())


# --- refusing what would take days ----------------------------------------------------------------------------------


def check_duration(config):
    """Refuse, with the estimate, a run that would take longer than ``max_hours``, before it downloads gigabytes.

    Raises ValueError. ``fit`` calls it too; data sets that need no download it judges when they are loaded.
    """
    if config.dataset in data.SHAPES and not runs.is_done(config.run_dir):
        _refuse_if_too_slow(config, *data.SHAPES[config.dataset])


def _refuse_if_too_slow(config, n_train, input_shape, n_classes):
    hours = estimate_hours(config, n_train, input_shape, n_classes)
    if hours > config.max_hours:
        raise ValueError(
            f"model: {config.model} on {config.dataset} for {config.epochs} epochs would take about {hours:,.0f} hours "
            f"on {config.device}; use a GPU, a smaller model or fewer epochs, or pass "
            f"max_hours={math.ceil(hours * 1.5)} to run it anyway"
        )


def estimate_hours(config, n_train, input_shape, n_classes):
    """Hours that the training steps of ``config`` will take here, from one timed step on a small batch."""
    device = torch.device(config.device)
    with torch.random.fork_rng(devices=[]):
        model = models.make_model(config.model, n_classes, input_shape).to(device)
    batch = min(config.batch_size, 8 if device.type == "cpu" else config.batch_size)
    x = torch.zeros(batch, *input_shape, device=device)
    seconds = []
    for _ in range(3 if device.type != "cpu" else 2):
        start = time.perf_counter()
        model(x).logsumexp(1).mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds) / batch * n_train * config.epochs / 3600
