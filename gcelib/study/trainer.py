"""One training run in its folder, which survives being killed.

``job = prepare(config)`` refuses all that can be refused; nothing has been written
then. ``for record in Trainer(job)`` trains, an epoch a record. ``fit(config)`` does
both.
"""

import contextlib
import copy
import hashlib
import inspect
import json
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcelib import losses, metrics
from gcelib._check import TellingOnce, fail, warn
from gcelib._random import seeded
from gcelib.isolation import torch_defaults
from gcelib.study import data, networks, own_losses, own_networks, runs
from gcelib.study.config import RECIPES, Recipe, Settings, TrainConfig, recipe
from gcelib.study.data import own
from gcelib.study.data.batches import are_normalized
from gcelib.study.data.splits import TensorPair
from gcelib.study.duration import (
    check_duration,
    estimate_hours,
    refuse_if_too_slow,
    refuse_long_run_before_loading,
)
from gcelib.study.environment import Environment, environment, processor, unlike_days
from gcelib.study.measuring import measure, measure_further

__all__ = [
    "RECIPES",
    "BatchProgress",
    "Job",
    "Recipe",
    "Record",
    "Settings",
    "TrainConfig",
    "Trainer",
    "check_duration",
    "environment",
    "estimate_hours",
    "fit",
    "measure",
    "prepare",
    "processor",
    "progress",
    "recipe",
]


# --- what is prepared -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Job:
    """A run that is ready to start: everything has been checked, nothing written.

    Parameters
    ----------
    settings : Settings
        What will be done.
    splits : Splits
        The data, on the CPU.
    ood : dict of str to tensor
        Out-of-distribution images by name, in the shape of the data.
    done : bool
        Whether the run finished earlier, so that there is nothing left to do.
    environment : dict
        Versions, device, threads: recorded beside the result, never compared.

    Examples
    --------
    >>> job = prepare(TrainConfig("digits", ood=[], device="cpu"))
    >>> len(job.splits.train[1])
    1000
    """

    settings: Settings
    splits: data.Splits
    ood: Mapping[str, Tensor] = field(default_factory=dict)
    done: bool = False
    environment: Mapping[str, Any] = field(default_factory=dict)


def prepare(config: TrainConfig) -> Job:
    """Check everything about a run, load its data, and write nothing.

    Parameters
    ----------
    config : TrainConfig
        What was asked.

    Returns
    -------
    Job
        For ``Trainer``.

    Raises
    ------
    ValueError, TypeError
        For bad settings; if the run's folder holds another result; if the run would
        take longer than ``max_hours``, told before gigabytes are downloaded for it; if
        the network cannot be built for the data, or the batch is larger than the data.
    OSError
        If data is missing and cannot be downloaded.

    Examples
    --------
    >>> prepare(TrainConfig("digits", epochs=3, ood=[], device="cpu")).settings.epochs
    3
    """
    return _prepared(_settings_of_now(config))


def _settings_of_now(config: TrainConfig) -> Settings:
    """Resolve a config; a function of the user's is asked for its data anew."""
    own.forget()
    with torch_defaults():
        return config.resolved()


def _prepared(settings: Settings) -> Job:
    """Load the data of a run, unless it is done, and refuse what cannot be trained."""
    with torch_defaults():
        done = _is_finished(settings)
        once = TellingOnce()  # the network is looked at twice
        if not done:
            with once:
                refuse_long_run_before_loading(settings)
        splits = data.load_as_described(settings.dataset, settings.seed)
        ood = {}
        if not done:
            with once:
                _refuse_data(settings, splits)
            _tell_idle(settings, splits)
            ood = _load_ood(settings, splits)
        return Job(settings, splits, ood, done, environment(settings))


def _load_ood(settings: Settings, splits: data.Splits) -> dict[str, Tensor]:
    """Load the out-of-distribution images of a run, in the shape of its data."""
    return {name: data.load_ood(name, splits) for name in settings.ood}


def _refuse_data(settings: Settings, splits: data.Splits) -> None:
    """Refuse a run that this data makes too slow, or leaves without a batch."""
    n_train = len(splits.train[1])
    size = data.Size(n_train, splits.input_shape, splits.n_classes)
    refuse_if_too_slow(settings, size)
    if settings.drop_last and settings.batch_size > n_train:
        problem = (
            f"{settings.batch_size} with drop_last leaves no batch of {n_train} samples"
        )
        fail("batch_size", problem, "choose a smaller one")


def _tell_idle(settings: Settings, splits: data.Splits) -> None:
    """Warn of settings that are stored and do nothing."""
    if settings.augment and len(splits.input_shape) != 3:
        warn(
            f"augment: {settings.dataset} is a table, of which nothing is cropped or "
            "mirrored; pass augment=False"
        )
    never = [m for m in settings.milestones if m >= settings.epochs]
    if never:
        warn(
            f"milestones: {never} never come in {settings.epochs} epochs; leave them "
            "out, or milestones as a whole for the recipe's shape"
        )


def _is_finished(settings: Settings) -> bool:
    """Tell whether the run is done; refuse a folder that holds another result."""
    there = runs.stated_settings(settings.run_dir)
    if there is None:
        return False
    asked = settings.stored()
    runs.refuse_other_result(settings.run_dir, there, asked, settings.defaults)
    return runs.is_done(settings.run_dir)


# --- the loop -------------------------------------------------------------------------


class Record(TypedDict, total=False):
    """What ``Trainer`` tells of an epoch.

    ``epoch`` counts from 1. ``train_loss`` is the loss that is minimised; it,
    ``train_nll`` and ``train_error`` are means over the epoch while the weights move.
    NLL in nats, errors and ECE as fractions. ``seconds_left`` is an estimate for the
    rest of the run.
    """

    epoch: int
    epochs: int
    lr: float
    train_loss: float
    train_nll: float
    train_error: float
    images_per_second: float
    val_nll: float
    val_error: float
    val_ece: float
    test_nll: float
    test_error: float
    test_ece: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class BatchProgress:
    """How far an epoch is: what a bar inside the epoch needs.

    Parameters
    ----------
    epoch, epochs : int
        The epoch that is running, counted from 1, and how many there are.
    step, steps : int
        Steps that were made in this epoch, and how many it has.
    seconds : float
        Since the epoch began.

    Examples
    --------
    >>> BatchProgress(epoch=1, epochs=12, step=10, steps=79, seconds=0.2).step
    10
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    seconds: float


#: So many samples are evaluated together, and in halves.
_COMPARED = 32


@runtime_checkable
class _Adaptive(Protocol):
    """A loss that looks at validation after every epoch, as AdaFocal does."""

    def update(self, val_logits: Tensor, val_labels: Tensor, /) -> None:
        """Follow the gap between confidence and accuracy."""


class Trainer:
    """The run of a job: iterate over it, and each epoch gives a record.

    A finished run gives none; a killed one goes on after its last whole epoch, with the
    same bits on the same CPU and number of threads. So does one that is iterated over
    again, after an interrupt; without a checkpoint it begins with its seed's weights,
    whatever the network has learnt by then. At the end the logits of
    validation, test and out-of-distribution sets are written, computed in float32
    whatever the training ran in; then ``metrics.json`` with every metric on every
    split, raw and after each calibrator (fitted on validation). The numbers do not
    depend on torch's global settings (default dtype and device, autocast, grad mode,
    deterministic algorithms), and between two epochs those are the caller's.

    Parameters
    ----------
    job : Job
        From ``prepare``.
    on_batch : function, optional
        Called with a ``BatchProgress`` after every step.

    Attributes
    ----------
    model, criterion, optimizer
        Network, loss and optimiser, on the device. Not there if the job is done.
    layout : torch.memory_format
        Of images and convolutions: channels-last on a GPU.
    compiled : callable
        The network that the training steps call.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     config = TrainConfig(
    ...         "digits", epochs=2, ood=[], device="cpu", runs_dir=folder
    ...     )
    ...     [record["epoch"] for record in Trainer(prepare(config))]
    [1, 2]
    """

    def __init__(
        self, job: Job, on_batch: Callable[[BatchProgress], object] | None = None
    ) -> None:
        self.job = job
        self.on_batch = on_batch
        self.settings = job.settings
        self.splits = job.splits
        self.device = torch.device(job.settings.device)
        self._fresh = False  # whether all is as the seed made it
        self._was_given_a_state = False
        self._has_finished = False  # the run, with this network
        self._is_behind = False  # another trainer has finished the run
        self._is_in_run = False  # whether the epoch that runs will be stored
        self._has_compared = False  # logits of samples alone and among others
        self._telling_once = TellingOnce()
        self._environments: list[Environment] = []
        if not job.done:  # the first optimizer of a process imports all of a compiler
            with torch_defaults():
                self._build()

    def _build(self) -> None:
        """Make network, loss and optimiser."""
        settings = self.settings
        if networks.fingerprint(settings.model) != settings.model_fingerprint:
            problem = f"{settings.model} has changed since the run was prepared"
            cure = "prepare it again; if nothing was changed, a layer that was made "
            cure += "outside of the function counts or caches: make it within"
            fail("model", problem, cure)
        self.has_images = len(self.splits.input_shape) == 3
        self.layout = torch.contiguous_format
        if self.has_images and self.device.type == "cuda":
            self.layout = torch.channels_last
        # Initialised on the CPU: the same weights for every device.
        with seeded(settings.seed):
            network = networks.build(
                settings.model, self.splits.n_classes, self.splits.input_shape
            )
        self.model: nn.Module = network.to(self.device)
        self.model.to(memory_format=self.layout)
        # The last, smaller batch gets kernels of its own: those for any size are
        # slower, and would serve all batches.
        self.compiled: Callable[[Tensor], Tensor] = self.model
        if settings.compile:
            self.compiled = torch.compile(self.model, dynamic=False)
        self.criterion = self._new_loss()
        if any(weight.requires_grad for weight in self.criterion.parameters()):
            problem = (
                f"{settings.loss!r} has weights of its own, that nobody would train"
            )
            fail("loss", problem, "let the network have them, or keep them as buffers")
        with self._telling_once:
            own_losses.rehearse(self._new_loss, self._batch_shape(), self.device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=self.device.type == "cuda" or None,
        )
        self._fresh = True
        self._rate = settings.lr
        self._left: dict[str, str] = {}  # by the last epoch of this iteration
        self._made = self._parts_of_run()
        self._made_options = self._options()
        self._made_state = self._marks()

    def _new_loss(self) -> losses.Loss:
        """Make the loss of the settings, on the device."""
        settings = self.settings
        criterion = losses.make_loss(settings.loss, **settings.loss_options)
        return criterion.to(self.device)

    def _batch_shape(self) -> tuple[int, int]:
        """Return the shape of a batch's logits."""
        n_train = len(self.splits.train[1])
        return min(self.settings.batch_size, n_train), self.splits.n_classes

    def _parts_of_run(self) -> tuple[object, ...]:
        """Return what takes the steps, each of which the seed and settings made."""
        return self.model, self.compiled, self.criterion, self.optimizer

    def _options(self) -> list[object]:
        """Return what no step changes: the options of the optimiser and the loss."""
        of_steps: list[object] = [
            {k: value for k, value in group.items() if k not in ("params", "lr")}
            | {"params": [id(weight) for weight in group["params"]]}
            for group in self.optimizer.param_groups
        ]
        names = inspect.signature(type(self.criterion)).parameters
        values = vars(self.criterion)
        return [*of_steps, {name: values[name] for name in names if name in values}]

    def _marks(self) -> list[object]:
        """Return what changes if weights or the loss's state do, or are frozen.

        Networks may do so themselves once they train.
        """
        tensors = [*self.model.parameters(), *self.model.buffers()]
        tensors += self.criterion.buffers()
        return [(id(t), t._version, t.requires_grad) for t in tensors]

    def _refuse_changed(self) -> None:
        """Refuse a run of other weights, or by other steps, than its settings say."""
        parts = zip(self._parts_of_run(), self._made, strict=True)
        is_another = any(part is not made for part, made in parts)
        is_another = is_another or self._options() != self._made_options
        is_another = is_another or self._has_weights_without_steps()
        if is_another or (self._fresh and self._marks() != self._made_state):
            fail(
                "trainer",
                "its network, loss or optimiser was changed since it was made, and the "
                "result would be stored as its seed's",
                "name a network of your own as model='module:function', or take the "
                "steps in a loop of your own",
            )
        rates = {float(group["lr"]) for group in self.optimizer.param_groups}
        if rates != {self._rate}:
            fail(
                "trainer",
                f"its learning rate was set to {max(rates - {self._rate}):g} where its "
                f"settings say {self._rate:g}, which would be stored",
                "give lr and milestones to TrainConfig, or take the steps in a loop of "
                "your own",
            )

    def _has_weights_without_steps(self) -> bool:
        """Tell whether a weight that can learn is none of the optimiser's."""
        groups = self.optimizer.param_groups
        stepped = {id(weight) for group in groups for weight in group["params"]}
        weights = self.model.parameters()
        return any(id(w) not in stepped for w in weights if w.requires_grad)

    def _refuse_other_state(self) -> None:
        """Refuse another state than the last epoch left: a stopped run lacks it."""
        self._refuse_changed()
        left = self._digests()
        changed = [part for part in left if left[part] != self._left[part]]
        if "weights" in changed:
            fail(
                "trainer",
                "its weights were changed after an epoch, and results would be of two "
                "networks",
                "iterate again, and the run goes on from the weights that the epoch "
                "left; measure others by trainer.predict and metrics.evaluate (put "
                "the epoch's back before the next), or keep averages inside a network "
                "of your own",
            )
        if changed:
            fail(
                "trainer",
                f"the state of its {changed[0]} was changed after an epoch, and the "
                "result would be stored as if it had not been",
                "iterate again, and the run goes on from what the epoch left; the "
                "trainer itself updates an adaptive loss. Train otherwise in a loop of "
                "your own",
            )
        self._was_given_a_state = False  # what was left has been put back

    def _digests(self) -> dict[str, str]:
        """Return what changes if one of the three parts of ``state_dict`` does."""
        return {
            "weights": _digest(self.model.state_dict()),
            "loss": _digest(self.criterion.state_dict()),
            "optimiser": _digest(self.optimizer.state_dict()["state"]),
        }

    # --- what a checkpoint holds ---

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to go on: network, optimiser, loss.

        Returns
        -------
        dict
            The three state dicts by name, and whether the network was in training:
            copies, which further training leaves alone.
        """
        return copy.deepcopy(self._live_state())

    def _live_state(self) -> dict[str, Any]:
        """The state in the memory that training writes to, to be stored at once."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "criterion": self.criterion.state_dict(),
            "training": self.model.training,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take an earlier state, to predict with it or train an epoch.

        A run that is iterated over goes on from its own checkpoint, or begins with its
        seed's weights, and says that this state is not used; between two epochs of it,
        and after its last record, it is refused unless all is put back.

        Parameters
        ----------
        state : dict
            What ``state_dict`` returned.
        """
        self._load(state)
        self._was_given_a_state = True

    def _load(self, state: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self._fresh = False
        _load_in_mode(self.model, state["model"], state.get("training", False))
        self.optimizer.load_state_dict(state["optimizer"])
        self.criterion.load_state_dict(state["criterion"])
        self._rate = float(self.optimizer.param_groups[0]["lr"])

    # --- the run ---

    def __iter__(self) -> Generator[Record, None, None]:
        """Run what is left of the job in its folder.

        Yields
        ------
        Record
            After every epoch, when it is safe on the disk.

        Raises
        ------
        ValueError
            If the folder holds another result; if the network, loss, optimiser or
            learning rate is another than the settings say; if the loss keeps what it
            learns beside its state, where no checkpoint has it; if weights, or the
            state of the loss or the optimiser, were changed between two epochs, or
            after the last one's record.
        RuntimeError
            If another process writes there.
        FloatingPointError
            At a loss that is not finite; the last checkpoint stays.
        """
        settings = self.settings
        opened = runs.open_run(
            settings.run_dir,
            settings.stored(),
            self.job.environment,
            settings.defaults,
        )
        with opened as run:
            if run.done:
                _warn_of_missing_weights(self.settings)
                self._is_behind = not self._has_finished
                return
            with torch_defaults():
                history = self._resume(run)
                parts = self._on_device()
            logits: dict[str, Tensor] = {}
            for epoch in range(len(history), settings.epochs):
                self._refuse_changed()
                with torch_defaults():
                    record, logits = self._epoch(epoch, parts)
                    history.append(record)
                    state = self._live_state() | {"history": history}
                    state["environments"] = json.dumps(self._environments)
                    run.save_checkpoint(state)
                    run.write_history(history)
                pace = statistics.median(r["seconds"] for r in history)
                self._left = self._digests()
                yield record | {"seconds_left": pace * (settings.epochs - epoch - 1)}
                self._refuse_other_state()
            with torch_defaults():
                self._finish(run, parts, logits, history)

    def _resume(self, run: runs.OpenRun) -> list[Record]:
        """Go on from the checkpoint, if any, and return the epochs before it."""
        checkpoint = run.load_checkpoint()
        history: list[Record] = []
        # Not built yet: the job was done, and its result has been removed since. Not
        # fresh: trained in this process before, up to an epoch that was broken off.
        if self._was_given_a_state:
            warn(
                "trainer: the state that load_state_dict gave is not used; the run "
                "goes on from its own checkpoint, or begins with its seed's weights"
            )
            self._was_given_a_state = False
        if not self._fresh:
            self._build()
        if checkpoint is not None:
            self._load(checkpoint)
            # Those of the device and version that wrote it.
            self._made_options = self._options()
            history = checkpoint["history"]
        self._environments = self._environments_of(checkpoint)
        run.record_earlier(self._environments[:-1])
        # The checkpoint decides: a kill may have fallen between the two files.
        run.write_history(history)
        return history

    def _environments_of(self, checkpoint: dict[str, Any] | None) -> list[Environment]:
        """Return where the run was trained so far, and last where it is now."""
        known = {} if checkpoint is None else checkpoint
        before: list[Environment] = json.loads(known.get("environments", "[]"))
        now = dict(self.job.environment)
        return [one for one in before if unlike_days(one) != unlike_days(now)] + [now]

    def _on_device(self) -> dict[str, TensorPair]:
        """Return the splits on the device, where they stay."""
        parts = {}
        for name in ("train", "val", "test"):
            samples, labels = getattr(self.splits, name)
            parts[name] = samples.to(self.device), labels.to(self.device)
        return parts

    def _epoch(
        self, epoch: int, parts: Mapping[str, TensorPair]
    ) -> tuple[Record, dict[str, Tensor]]:
        """Train an epoch, and look at validation and test where that is due."""
        settings = self.settings
        start = time.perf_counter()
        record: Record = {
            "epoch": epoch + 1,
            "epochs": settings.epochs,
            "lr": settings.learning_rate(epoch),
        }
        self._is_in_run = True
        try:
            record |= self.train_epoch(epoch, parts["train"])
        finally:
            self._is_in_run = False
        self._refuse_changed()
        n = _n_in_steps(len(parts["train"][1]), settings.batch_size, settings.drop_last)
        pace = n / max(time.perf_counter() - start, 1e-9)  # a clock may stand
        record["images_per_second"] = round(pace, 1)
        is_last = epoch + 1 == settings.epochs
        look = is_last or (epoch + 1) % settings.eval_every == 0
        logits = {}
        criterion = self.criterion
        if look or isinstance(criterion, _Adaptive):
            logits["val"] = self._predicted(parts["val"][0], exact=is_last)
            self._warn_of_other_logits(parts["val"][0])
            if is_last:
                self._warn_of_what_no_file_keeps(parts["val"][0])
        if isinstance(criterion, _Adaptive):
            with self._telling_once:
                criterion.update(logits["val"].to(self.device), parts["val"][1])
        with self._telling_once:
            own_losses.refuse_what_no_file_keeps(
                criterion, self._new_loss, self._batch_shape(), self.device
            )
        if look:
            logits["test"] = self._predicted(parts["test"][0], exact=is_last)
            with self._telling_once:
                record |= _look("val", logits["val"], self.splits.val[1])
                record |= _look("test", logits["test"], self.splits.test[1])
        record["seconds"] = round(time.perf_counter() - start, 3)
        return record, logits

    def _finish(
        self,
        run: runs.OpenRun,
        parts: Mapping[str, TensorPair],
        logits: dict[str, Tensor],
        history: list[Record],
    ) -> None:
        """Write logits, weights and metrics; the last file alone means "done"."""
        labels = {"val": self.splits.val[1], "test": self.splits.test[1]}
        for name in labels:
            if name not in logits:  # the run was resumed after its last epoch
                logits[name] = self._predicted(parts[name][0])
        ood = self.job.ood
        if self.job.done:  # it was, and its result has been removed since
            ood = _load_ood(self.settings, self.splits)
        for name, images in ood.items():
            logits[name] = self._predicted(images)
            labels[name] = torch.full((len(images),), -1)
        for name, values in logits.items():
            run.save_logits(name, values, labels[name])
        if self.settings.keep_weights:
            weights = {k: v.cpu() for k, v in self.model.state_dict().items()}
            run.save_weights(weights)
        with self._telling_once:
            results = measure(logits, labels)
            results |= measure_further(self.settings.loss, logits, labels, results)
        seconds = sum(record["seconds"] for record in history)
        results["train_seconds"] = round(seconds, 3)
        results["train_loss"] = history[-1]["train_loss"]
        results["train_nll"] = history[-1]["train_nll"]
        results["train_error"] = history[-1]["train_error"]
        run.finish(results)
        self._has_finished = True

    # --- its two kinds of work ---

    def train_epoch(self, epoch: int, part: TensorPair | None = None) -> Record:
        """Pass once over the training samples.

        Nothing is read back from the device before the end, except on a CPU. Nothing is
        stored, nor is AdaFocal updated: iterating over the trainer does both.

        Parameters
        ----------
        epoch : int
            Counted from 0. Order and augmentation depend on (seed, epoch) alone, so a
            resumed run needs no generator state.
        part : pair of tensors, optional
            Samples and labels on the device; None: the training split.

        Returns
        -------
        Record
            ``train_loss``, ``train_nll``, ``train_error``.

        Raises
        ------
        FloatingPointError
            If the loss or the weights stopped being finite; it tells epoch and step.
        """
        if part is None:
            samples, labels = self.splits.train
            part = samples.to(self.device), labels.to(self.device)
        settings = self.settings
        seed = settings.seed * 1_000_003 + epoch
        generator = torch.Generator().manual_seed(seed)
        self._rate = settings.learning_rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate
        self._fresh = False
        self.model.train()
        with (
            torch_defaults(),
            self._kernels(exact=settings.precision == "fp32"),
            seeded(seed, self.device),  # for dropout in a network of the user's own
        ):
            sums, first_bad = self._steps(epoch, part, generator)
            bad_step = int(first_bad)
        self.model.eval()
        if bad_step >= 0:
            raise FloatingPointError(
                f"the loss or the weights stopped being finite in epoch {epoch + 1}, "
                f"step {bad_step + 1} (lr {settings.learning_rate(epoch):g}); the "
                f"checkpoint before it is kept in {settings.run_dir}. "
                "A smaller lr or clip_norm=2 is the usual cure"
            )
        loss, nll, wrong, n = sums.tolist()
        return {"train_loss": loss / n, "train_nll": nll / n, "train_error": wrong / n}

    def _steps(
        self, epoch: int, part: TensorPair, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Make the steps of an epoch; return its sums and the first bad step."""
        settings = self.settings
        on_cpu = self.device.type == "cpu"
        precise = torch.float32 if self.device.type == "mps" else torch.float64
        sums = torch.zeros(4, device=self.device, dtype=precise)
        first_bad = torch.full((), -1, device=self.device)
        start = time.perf_counter()
        n_steps = _n_steps(len(part[1]), settings.batch_size, settings.drop_last)
        batches = data.batches(
            part,
            settings.batch_size,
            splits=self.splits,
            generator=generator,
            augment=settings.augment,
            drop_last=settings.drop_last,
        )
        for step, (x, labels) in enumerate(batches):
            loss, logits = self._step(x, labels)
            bad = ~torch.isfinite(loss)
            first_bad = torch.where((first_bad < 0) & bad, step, first_bad)
            sums += _sums_of_batch(loss, logits, labels)
            if on_cpu and bad:
                return sums, first_bad
            if self.on_batch is not None:
                seconds = time.perf_counter() - start
                place = (epoch + 1, settings.epochs, step + 1, n_steps)
                self.on_batch(BatchProgress(*place, seconds))
                if self._is_in_run:
                    self._refuse_changed()
        # The last step may have spoilt the weights, and no loss has told of it yet.
        first_bad = torch.where((first_bad < 0) & ~self._is_finite(), step, first_bad)
        return sums, first_bad

    def _is_finite(self) -> Tensor:
        """Tell whether all weights and buffers are, without waiting for the device."""
        weights = self.model.state_dict().values()
        return torch.stack([values.isfinite().all() for values in weights]).all()

    def _step(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Make one step of the optimiser; return loss and logits before it."""
        settings = self.settings
        logits = self.forward(self.compiled, x)
        with self._telling_once:
            loss = self.criterion(logits, labels)
        if settings.reduction == "sum":
            loss = loss * len(labels)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.optimizer.step()
        return loss, logits

    def forward(self, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Compute logits in the precision of the training steps.

        Parameters
        ----------
        network : callable
            The model, or its compiled form.
        x : tensor
            Normalised inputs on the device.

        Returns
        -------
        (N, K) tensor
            bfloat16 if that is the precision.
        """
        if self.has_images:
            x = x.to(memory_format=self.layout)
        # Autocast is entered anew each time: it caches weights that a step changes.
        enabled = self.settings.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            return network(x)

    def _predicted(self, inputs: Tensor, *, exact: bool = True) -> Tensor:
        """Compute logits for the run's results: of the seed, if the network draws."""
        with seeded(self.settings.seed, self.device):
            return self.predict(inputs, exact=exact)

    def _warn_of_other_logits(self, samples: Tensor) -> None:
        """Warn, once, if logits hang on a draw, or on the others of a batch."""
        if self._has_compared or not networks.is_own(self.settings.model):
            return
        self._has_compared = True
        some = samples[:_COMPARED]

        def predicted(batch_size: int, seed: int = self.settings.seed) -> Tensor:
            with seeded(seed, self.device):
                return self.predict(some, batch_size)

        n = len(some)
        together = predicted(n)
        drawn = predicted(n, self.settings.seed + 1)
        difference = own_networks.clear_difference(together, drawn)
        if difference is not None:
            warn(
                f"model: {self.settings.model} draws random numbers in evaluation (two "
                f"passes over {n} samples differ by up to {difference:.2g}), and so "
                "does every result; unless you mean it, let dropout be a layer of the "
                "network, or pass training=self.training to F.dropout"
            )
            return  # other batches draw others, too
        difference = own_networks.clear_difference(together, predicted((n + 1) // 2))
        if difference is not None:
            warn(
                f"model: logits of {self.settings.model} hang on which other samples "
                f"are evaluated with them (the first {n} differ by up to "
                f"{difference:.2g} in smaller batches), and so does every result; let "
                "each sample stand for itself in evaluation, as batch norm with "
                "track_running_stats=True does"
            )

    def _warn_of_what_no_file_keeps(self, samples: Tensor) -> None:
        """Warn if weights and buffers alone do not give the logits of the run."""
        settings = self.settings
        if not networks.is_own(settings.model):
            return
        some = samples[:_COMPARED]
        with seeded(settings.seed):
            alone = networks.build(
                settings.model, self.splits.n_classes, self.splits.input_shape
            )
        alone.to(self.device)
        state = self.model.state_dict()

        def logits_of(network: nn.Module) -> Tensor:
            with seeded(settings.seed, self.device):
                return self._logits_of(network, some, len(some))

        logits = logits_of(self.model)
        try:
            alone.load_state_dict(state)
        except RuntimeError:  # of buffers that a pass makes: these have been told
            return
        difference = own_networks.clear_difference(logits, logits_of(alone))
        if difference is None:
            return
        _load_in_mode(alone, state, self.model.training)
        if own_networks.clear_difference(logits, logits_of(alone)) is None:
            warn(
                f"model: {settings.model} changes its weights or buffers in eval(): "
                f"loaded into a network that is in training, they give logits of "
                f"{len(some)} samples that differ by up to {difference:.2g}; call "
                "eval() before you load weights.pt, too"
            )
            return
        warn(
            f"model: {settings.model} keeps something beside its weights and buffers: "
            f"with these alone logits of {len(some)} samples differ by up to "
            f"{difference:.2g}, so that weights.pt is another network, and a run that "
            "was stopped ends otherwise; keep it by register_buffer"
        )

    @contextlib.contextmanager
    def _kernels(self, *, exact: bool) -> Iterator[None]:
        """Choose kernels for this block: the fastest, with TF32 unless ``exact``."""
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=True, allow_tf32=not exact
        ):
            yield

    def predict(
        self, inputs: Tensor, batch_size: int | None = None, *, exact: bool = True
    ) -> Tensor:
        """Compute logits of raw samples.

        Parameters
        ----------
        inputs : uint8 (N, C, H, W) or float32 (N, D) tensor
            On any device, not normalised.
        batch_size : int, optional
            Samples at a time: by default 250 on a CPU, where it takes a third less time
            than 500, and 500 elsewhere.
        exact : bool, default True
            In float32, also after a training in bf16 or TF32, whose rounding would make
            ties among the largest logits; False: in the precision of the training
            steps.

        Returns
        -------
        float32 (N, K) tensor
            On the CPU.

        Raises
        ------
        ValueError, TypeError
            If the shape is another one, or images are no uint8; if the run was trained
            before, and this network has not read that yet: iterate first.

        Warns
        -----
        UserWarning
            If samples of a table seem to be normalised.
        """
        self._refuse_untrained()
        shape = tuple(inputs.shape[1:])
        if shape != tuple(self.splits.input_shape):
            problem = f"have the shape {shape}, those of training "
            problem += f"{tuple(self.splits.input_shape)}"
            fail("inputs", problem, "bring them to that size first")
        if are_normalized(inputs, self.splits):
            warn(
                "inputs: have means near 0 and spreads near 1, as data.normalize makes "
                "them and training's are not; pass them as they were, or they are "
                "normalised twice"
            )
        if batch_size is None:
            batch_size = 250 if self.device.type == "cpu" else 500
        return self._logits_of(self.model, inputs, batch_size, exact=exact)

    def _logits_of(
        self, network: nn.Module, inputs: Tensor, batch_size: int, *, exact: bool = True
    ) -> Tensor:
        """Compute logits of raw samples by a network on the device."""
        in_fp32 = exact or self.settings.precision == "fp32"
        parts = []
        with (
            _evaluating(network),
            torch_defaults(),
            torch.no_grad(),
            self._kernels(exact=in_fp32),
        ):
            for chunk in torch.split(inputs, batch_size):
                x = data.normalize(chunk.to(self.device), self.splits)
                if exact and self.has_images:
                    x = x.to(memory_format=self.layout)
                logits = network(x) if exact else self.forward(network, x)
                parts.append(logits.float())
        return torch.cat(parts).cpu()

    def _refuse_untrained(self) -> None:
        """Refuse to predict with the seed's weights what a trained network would."""
        if not hasattr(self, "model"):
            problem = f"has no network: the run in {self.settings.run_dir} was done"
            fail(
                "trainer", problem, "load its weights.pt, which keep_weights=True keeps"
            )
        if self._is_behind and not self._was_given_a_state:
            problem = f"has not the network of the run in {self.settings.run_dir}, "
            problem += "which another trainer has finished"
            cure = "load its weights.pt, which keep_weights=True keeps"
            fail("trainer", problem, cure)
        if not self._fresh or self._was_given_a_state:
            return
        folder = self.settings.run_dir
        there = ("checkpoint.pt", "checkpoint.prev.pt", "metrics.json")
        if any((folder / name).exists() for name in there):
            problem = f"has not read yet what was trained in {folder}"
            fail("trainer", problem, "iterate over it first: list(trainer)")


def _digest(state: Mapping[Any, Any]) -> str:
    """The SHA-256 of a state's tensors that are no counts, by name."""
    digest = hashlib.sha256()
    for name, values in _tensors_of(state):
        if values.is_floating_point():
            digest.update(name.encode())
            numbers = values.detach().cpu().contiguous().reshape(-1)
            digest.update(numbers.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors_of(
    state: Mapping[Any, Any], place: str = ""
) -> Iterator[tuple[str, Tensor]]:
    """Give the tensors of a state dict, also of those inside it."""
    for name, value in state.items():
        if isinstance(value, Tensor):
            yield f"{place}{name}", value
        elif isinstance(value, Mapping):
            yield from _tensors_of(value, f"{place}{name}.")


def _load_in_mode(
    network: nn.Module, state: Mapping[str, Any], is_training: bool
) -> None:
    """Load a state into a network, in the mode in which it was taken.

    Some networks do more in ``train()`` and ``eval()``. What they swap there (averages
    of weights for the weights) is in the state; what they make there (a cache of the
    weights) is not, so the mode is entered once more with these weights, and what that
    moves is put back.
    """
    network.train(is_training)
    network.load_state_dict(state)
    network.train(not is_training)
    network.train(is_training)
    network.load_state_dict(state)


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Let a network evaluate, and put each part's mode back: ``on_batch`` may ask."""
    modes = {part: part.training for part in network.modules()}
    network.eval()
    try:
        yield
    finally:
        network.train(modes[network])  # which some networks do more in
        for part, mode in modes.items():
            part.training = mode


@torch.no_grad()
def _sums_of_batch(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """What a batch adds to the loss, the NLL, the errors and the samples."""
    nll = F.cross_entropy(logits.float(), labels, reduction="sum")
    wrong = (logits.argmax(1) != labels).sum()
    n = len(labels)
    return torch.stack([loss * n, nll, wrong, torch.ones_like(loss) * n])


def _n_steps(n: int, batch_size: int, drop_last: bool) -> int:
    """Count the steps of an epoch, as ``data.batches`` makes them."""
    rest = n % batch_size
    incomplete = rest > 1 and not drop_last  # of a single sample nothing can be learnt
    return n // batch_size + incomplete


def _n_in_steps(n: int, batch_size: int, drop_last: bool) -> int:
    """Count the samples that the steps of an epoch see."""
    return min(n, batch_size * _n_steps(n, batch_size, drop_last))


def _look(split: str, logits: Tensor, labels: Tensor) -> Record:
    """Return NLL, error and ECE on a split."""
    functions = (metrics.nll, metrics.error, metrics.ece)
    found: Any = {f"{split}_{f.__name__}": f(logits, labels) for f in functions}
    record: Record = found
    return record


def fit(
    config: TrainConfig, on_batch: Callable[[BatchProgress], object] | None = None
) -> Generator[Record, None, None]:
    """Train a run in its folder, an epoch at a time: ``Trainer(prepare(config))``.

    A generator: nothing is checked, trained or written before someone asks for its
    records, so write ``for record in fit(config): ...``, or ``list(fit(config))``.

    Parameters
    ----------
    config : TrainConfig
        What was asked.
    on_batch : function, optional
        Called with a ``BatchProgress`` after every step.

    Yields
    ------
    Record
        After every epoch. A finished run gives none, and its data is not loaded.

    Raises
    ------
    ValueError
        If the folder holds another result, or the run would take longer than
        ``max_hours``: before anything is written.
    RuntimeError
        If another process writes there.
    FloatingPointError
        At a loss that is not finite; the last checkpoint stays.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     config = TrainConfig(
    ...         "digits", epochs=1, ood=[], device="cpu", runs_dir=folder
    ...     )
    ...     record, = fit(config)
    >>> record["epoch"], "test_ece" in record
    (1, True)
    """
    settings = _settings_of_now(config)
    if _is_finished(settings):  # then its data need not be loaded
        _warn_of_missing_weights(settings)
        # A kill may have left them. The folder may be one that we can only read.
        with contextlib.suppress(OSError):
            runs.discard_checkpoints(settings.run_dir)
        return
    yield from Trainer(_prepared(settings), on_batch)


def _warn_of_missing_weights(settings: Settings) -> None:
    """Tell the user that a finished run was not asked to keep its weights.

    Weights that lie there all the same are an earlier run's, or came later.
    """
    run_dir = settings.run_dir
    if not settings.keep_weights:
        return
    is_there = (run_dir / "weights.pt").exists()
    kept = is_there
    with contextlib.suppress(OSError, ValueError):
        # Results of the first versions do not say.
        kept &= runs.read_result(run_dir).environment.get("keep_weights", True)
    if not kept:
        problem = f"{run_dir} was finished without keeping its weights"
        if is_there:
            problem += ", and weights.pt there is not known to be its own"
        warn(f"{problem}; for weights, remove the folder or choose a variant")


# --- results --------------------------------------------------------------------------


def progress(record: Record) -> str:
    """Tell an epoch in one line.

    Parameters
    ----------
    record : Record
        Of ``fit`` or ``Trainer``.

    Returns
    -------
    str
        Epoch, loss, error, ECE, images/s, time left.

    Examples
    --------
    >>> progress({
    ...     "epoch": 1, "epochs": 2, "train_loss": 0.5, "train_error": 0.25,
    ...     "images_per_second": 4000.0, "seconds_left": 61.0,
    ... })
    'epoch 1/2 · loss 0.500 · train error 25.0% · images/s 4,000 · left 1:01 min'
    """
    parts = [
        f"epoch {record['epoch']}/{record['epochs']}",
        f"loss {record['train_loss']:.3f}",
        f"train error {record['train_error']:.1%}",
    ]
    if "test_error" in record:
        parts.append(f"test error {record['test_error']:.1%}")
        parts.append(f"test ECE {record['test_ece']:.1%}")
    minutes, seconds = divmod(round(record["seconds_left"]), 60)
    parts.append(f"images/s {record['images_per_second']:,.0f}")
    parts.append(f"left {minutes}:{seconds:02d} min")
    return " · ".join(parts)
