"""The run folder: one writer at a time, whole files, resumed after a kill.

::

    <runs_dir>/<dataset>/<model>/<loss>[+variant]/seed-01/
      config.json      settings and environment, for whoever looks in
      history.jsonl    one line an epoch
      checkpoint.pt    only while running; the one before it is checkpoint.prev.pt
      weights.pt       final weights, when asked for
      logits/*.npz     logits float32 (N, K), labels int64 (N,)
      metrics.json     renamed into place last: this file alone means "done"

The settings are in the checkpoint and in the results, too, and are compared there: a
folder without either holds nothing. The names that read runs back
(:mod:`gcelib.study.results`) can be had here as well.
"""

import contextlib
import errno
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gcelib import _check
from gcelib.study import files, locks, states, stored
from gcelib.study.files import AnyPath, Check, read_json, write_atomic, write_json
from gcelib.study.logits_file import load_logits_file
from gcelib.study.places import PROJECT, run_path, runs_dir as default_runs_dir
from gcelib.study.results import (
    is_done,
    load_history,
    load_logits,
    load_records,
    load_results,
    split_file,
    summary,
    table_row,
)
from gcelib.study.stored import Defaults, Record, read_config, read_result

__all__ = [
    "PROJECT",
    "OpenRun",
    "Path",
    "Record",
    "default_runs_dir",
    "discard_checkpoints",
    "is_done",
    "is_running",
    "load_checkpoint",
    "load_history",
    "load_logits",
    "load_logits_file",
    "load_records",
    "load_results",
    "make_folder",
    "open_run",
    "read_config",
    "read_json",
    "read_result",
    "refuse_other_result",
    "run_path",
    "save_checkpoint",
    "save_logits",
    "stated_settings",
    "summary",
    "table_row",
    "write_atomic",
    "write_json",
]

_CHECKPOINTS = ("checkpoint.pt", "checkpoint.prev.pt")
#: What a run writes directly in its folder.
_OWN_FILES = (
    ".lock",
    "config.json",
    "history.jsonl",
    *_CHECKPOINTS,
    "weights.pt",
    "metrics.json",
)
#: What killed writes may have left.
_LITTER = (
    ".config.json.*",
    ".metrics.json.*",
    ".history.jsonl.*",
    ".weights.pt.*",
    ".checkpoint*",
    "checkpoint.new.pt",
    "logits/.*.npz.*",
)
#: The file system or its owner lets us read only.
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


# --- one run ------------------------------------------------------------------------


class OpenRun:
    """A run's folder, held for one writer: what :func:`open_run` yields.

    Every write looks first whether the folder is still ours.

    Attributes
    ----------
    run_dir : pathlib.Path
        The folder.
    done : bool
        True if the run has finished: there is nothing to do.
    """

    def __init__(
        self,
        run_dir: Path,
        settings: Mapping[str, Any],
        environment: Mapping[str, Any],
        lock: locks.Lock | None,
        found: "_Found",
    ) -> None:
        """Take over what :func:`open_run` found; not for others to call."""
        self.run_dir = run_dir
        self.done = found.result is not None
        self._settings = dict(settings)
        self._environment = dict(environment)
        self._lock = lock
        self._state = found.state
        self._logits: dict[str, str] = {}
        self._history = ""

    def check(self) -> None:
        """Refuse to write where somebody else may be writing by now.

        Raises
        ------
        RuntimeError
            If the folder or its lock were removed or replaced since it was opened, or
            if it may only be read.
        """
        if self._lock is None:
            raise RuntimeError(f"{self.run_dir}: may only be read; it is finished")
        self._lock.check()

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Give the state that the last ``save_checkpoint`` kept, once.

        Returns
        -------
        dict or None
            Tensors on the CPU; None if training has to start from the beginning.
        """
        state = self._state
        self._state = None  # it may be large: the trainer has it now
        return state

    def record_earlier(self, environments: Sequence[Mapping[str, Any]]) -> None:
        """Record under which other environments the run was trained before this one.

        Parameters
        ----------
        environments : sequence of mappings
            They become ``earlier`` in the result's environment; none: nothing does.
        """
        if environments:
            self._environment["earlier"] = [dict(one) for one in environments]

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep ``state``, and the one before it as ``checkpoint.prev.pt``.

        Parameters
        ----------
        state : mapping of str to tensor, number, text, list or mapping

        Raises
        ------
        RuntimeError
            If the folder is no longer ours.
        OSError
            If it cannot be written; the earlier checkpoints stay.
        """
        self.check()
        _write_checkpoint(self.run_dir, state, self._settings, self.check)

    def write_history(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write ``history.jsonl``, a line a record.

        Parameters
        ----------
        records : sequence of mappings
            All of the run so far.

        Raises
        ------
        RuntimeError
            If the folder is no longer ours.
        OSError
            If it cannot be written.
        """
        lines = [json.dumps(dict(record)) + "\n" for record in records]
        data = "".join(lines).encode()
        self._write(self.run_dir / "history.jsonl", data)
        self._history = stored.lines_fingerprint(data)

    def save_logits(
        self, split: str, logits: npt.ArrayLike, labels: npt.ArrayLike
    ) -> None:
        """Write the logits of one split.

        Parameters
        ----------
        split : str
            ``"val"``, ``"test"``, or the name of an out-of-distribution set.
        logits : (N, K) array or tensor
            Written as float32.
        labels : (N,) array or tensor
            Written as int64; -1 where the split has none.

        Raises
        ------
        ValueError, TypeError
            If ``load_logits`` would refuse the numbers.
        RuntimeError
            If the folder is no longer ours.
        OSError
            If it cannot be written.
        """
        self.check()
        scores, class_ids = _as_stored(logits, labels)
        save_logits(self.run_dir, split, scores, class_ids, before=self.check)
        name = Path(split_file(split)).stem
        self._logits[name] = stored.fingerprint(scores, class_ids)

    def save_weights(self, state: Mapping[str, Any]) -> None:
        """Write ``weights.pt``.

        Parameters
        ----------
        state : mapping of str to tensor
            ``model.state_dict()``, on the CPU.

        Raises
        ------
        RuntimeError
            If the folder is no longer ours.
        OSError
            If it cannot be written.
        """
        self._write(self.run_dir / "weights.pt", states.pack_state(dict(state)))

    def finish(self, results: Mapping[str, float]) -> None:
        """Write ``metrics.json``, which means "done", and drop the checkpoints.

        Parameters
        ----------
        results : mapping of str to float
            Finite numbers by name.

        Raises
        ------
        ValueError
            If one is no finite number.
        RuntimeError
            If the folder is no longer ours.
        OSError
            If it cannot be written.
        """
        numbers = {name: float(value) for name, value in results.items()}
        stored.check_results("results", numbers)
        record = Record(
            self._settings, self._environment, numbers, self._logits, self._history
        )
        self.check()
        stored.write_record(self.run_dir / "metrics.json", record, before=self.check)
        self.done = True
        discard_checkpoints(self.run_dir)

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file, if the folder is still ours."""
        self.check()
        files.write_atomic(path, data, before=self.check)


@contextlib.contextmanager
def open_run(
    run_dir: AnyPath,
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    defaults: Defaults = dict,
) -> Iterator[OpenRun]:
    """Hold a run's folder for one writer, and make sure that it is this run's.

    Parameters
    ----------
    run_dir : path
        The run's folder; made if it is not there.
    settings : mapping of str to JSON value
        Everything that changes the run's numbers. Compared with those in the folder's
        results and checkpoint.
    environment : mapping of str to JSON value
        Versions, commit, device: recorded, never compared.
    defaults : callable, optional
        Gives what settings that older runs do not record were, in effect, at their
        time. Called only if one is lacking.

    Yields
    ------
    OpenRun
        Its ``done`` tells whether anything is left to do.

    Raises
    ------
    ValueError
        If the folder holds another result, a checkpoint that does not say whose it is,
        or links, folders and pipes in the place of a run's files.
    RuntimeError
        If another process writes there.
    OSError
        If the folder cannot be made or written.

    Examples
    --------
    >>> import tempfile
    >>> settings = {"dataset": "digits", "model": "mlp", "loss": "ce", "seed": 1}
    >>> folder = tempfile.mkdtemp()
    >>> with open_run(folder, settings, {}) as run:
    ...     run.finish({"test_raw_ece": 0.25})
    >>> with open_run(folder, settings, {}) as run:
    ...     run.done
    True
    """
    run_dir = Path(run_dir)
    settings = stored.plain(settings)
    with contextlib.ExitStack() as stack:
        lock: locks.Lock | None = None
        try:
            make_folder(run_dir)
            _refuse_strange_files(run_dir)
            lock = stack.enter_context(locks.hold(run_dir / ".lock"))
        except OSError as error:
            # A finished run of somebody else, or on a read-only disk, may be read.
            if error.errno not in _READ_ONLY or not is_done(run_dir):
                raise
        found = _find(run_dir, settings, defaults)
        if lock is not None:
            _tidy(run_dir, found, Record(settings, dict(environment)), lock)
        yield OpenRun(run_dir, settings, environment, lock, found)


def make_folder(run_dir: AnyPath) -> None:
    """Make a run's folder, and those above it.

    Parameters
    ----------
    run_dir : path
        May exist.

    Raises
    ------
    ValueError
        If a file is where one of the folders should be.
    OSError
        If it cannot be made.
    """
    run_dir = Path(run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        for folder in (*reversed(run_dir.parents), run_dir):
            if os.path.lexists(folder) and not folder.is_dir():
                what = "is in the place of a folder of runs"
                files.refuse(folder, what, "remove it, or give another runs_dir")
        raise


def _refuse_strange_files(run_dir: Path) -> None:
    """Refuse links, through which a write would leave the folder, and their like.

    A folder or a pipe in the place of a file would stop the run at its end.
    """
    for name in _OWN_FILES:
        files.refuse_all_but_files(run_dir / name)
    logits = run_dir / "logits"
    if files.is_link(logits):
        what = f"is a symbolic link to {os.readlink(logits)}"
        files.refuse(logits, what, "remove it: a run keeps its own files")
    if not logits.is_dir() and os.path.lexists(logits):
        files.refuse(logits, "is no folder", "remove it")
    for path in logits.glob("*.npz"):
        files.refuse_all_but_files(path)


@dataclass(frozen=True)
class _Found:
    """What is in a run's folder: the result, else the state to go on from."""

    config: Record | None
    result: Record | None = None
    state: dict[str, Any] | None = None


def _find(run_dir: Path, settings: Mapping[str, Any], defaults: Defaults) -> _Found:
    """Read what the folder holds; ValueError if that is another run's."""

    def refuse_others(there: Mapping[str, Any]) -> None:
        """Refuse settings that are not those asked for."""
        refuse_other_result(run_dir, there, settings, defaults)

    config = _find_config(run_dir)
    result = _find_result(run_dir, config, refuse_others)
    if result is not None:
        return _Found(config, result)
    return _Found(config, state=_find_state(run_dir, config, refuse_others))


#: Refuses settings, read in a run's folder, that are not those of the run.
_Refuse = Callable[[Mapping[str, Any]], None]


def _find_config(run_dir: Path) -> Record | None:
    """Read what ``config.json`` says, if it can be read."""
    try:
        return read_config(run_dir)
    except stored.NewerSchema:
        raise
    except (OSError, ValueError):
        return None


def _find_result(
    run_dir: Path, config: Record | None, refuse_others: _Refuse
) -> Record | None:
    """Read the result, if there is one; a damaged one is told, and is none."""
    try:
        result = read_result(run_dir)
    except FileNotFoundError:
        return None
    except stored.NewerSchema:
        raise
    except ValueError as error:
        if config is not None:  # the damage hides whose result it was
            refuse_others(config.settings)
        _check.warn(f"{error}. This run is done again")
        return None
    refuse_others(result.settings)
    return result


def _find_state(
    run_dir: Path, config: Record | None, refuse_others: _Refuse
) -> dict[str, Any] | None:
    """Read the newest undamaged checkpoint, if there is one."""
    for name in _CHECKPOINTS:
        path = run_dir / name
        try:
            content = files.read_bytes(path, states.STATE_BYTES)
            there, state = stored.unpack_checkpoint(content, path)
        except FileNotFoundError:
            continue
        except ValueError as error:
            if config is not None:  # the damage hides whose checkpoint it was
                refuse_others(config.settings)
            _check.warn(
                f"{path} is damaged and was not used; training goes on from an earlier "
                f"state ({error})"
            )
            continue
        if there is None:
            if config is None:
                what = "does not say which settings it is for, and config.json is gone"
                cure = "restore config.json, or remove the checkpoint"
                files.refuse(path, what, cure)
            there = config.settings
        refuse_others(there)
        return state
    return None


def _tidy(run_dir: Path, found: _Found, record: Record, lock: locks.Lock) -> None:
    """Mend ``config.json``, and remove what killed writes have left."""
    if found.result is not None:
        record = Record(found.result.settings, found.result.environment)
        discard_checkpoints(run_dir)
    elif found.state is None:
        _part_from_earlier_run(run_dir, record)
    if found.config is None or found.config.settings != record.settings:
        stored.write_record(run_dir / "config.json", record, before=lock.check)
    for pattern in _LITTER:
        for leftover in run_dir.glob(pattern):
            if leftover.is_file() or files.is_link(leftover):
                leftover.unlink()


def _part_from_earlier_run(run_dir: Path, record: Record) -> None:
    """Remove what an earlier run left and this one will write; move the rest aside.

    It would pass for this run's, which may have other settings. Weights are moved
    even if this run keeps its own: it may be stopped, and ended without keeping them.
    """
    splits = ("val", "test", *record.settings.get("ood", ()))
    ours = [split_file(name) for name in splits]
    for path in (run_dir / "history.jsonl", *(run_dir / "logits" / n for n in ours)):
        path.unlink(missing_ok=True)
    left = sorted((run_dir / "logits").glob("*.npz"))
    weights = run_dir / "weights.pt"
    if weights.exists():
        left.append(weights)
    if left:
        for path in left:
            os.replace(path, _name_aside(path))
        names = ", ".join(path.relative_to(run_dir).as_posix() for path in left[:4])
        _check.warn(
            f"{run_dir}: this run begins anew; {names} there are an earlier one's, and "
            "now have names that end in .earlier: remove them if they are not wanted"
        )


def _name_aside(path: Path) -> Path:
    """Return a name beside a file that nothing has yet."""
    aside = path.with_name(f"{path.name}.earlier")
    for number in itertools.count(2):
        if not os.path.lexists(aside):
            break
        aside = path.with_name(f"{path.name}.{number}.earlier")
    return aside


def stated_settings(run_dir: AnyPath) -> dict[str, Any] | None:
    """Tell which settings a folder holds a result or a checkpoint of.

    Parameters
    ----------
    run_dir : path
        The run's folder; need not exist.

    Returns
    -------
    dict or None
        None if the folder holds neither, or nothing that says whose it is.
    """
    run_dir = Path(run_dir)
    with contextlib.suppress(OSError, ValueError):
        return read_result(run_dir).settings
    for name in _CHECKPOINTS:
        with contextlib.suppress(OSError, ValueError):
            content = files.read_bytes(run_dir / name, states.STATE_BYTES)
            there = stored.checkpoint_settings(content, run_dir / name)
            return there if there is not None else read_config(run_dir).settings
    return None


def refuse_other_result(
    run_dir: AnyPath,
    there: Mapping[str, Any],
    asked: Mapping[str, Any],
    defaults: Defaults = dict,
) -> None:
    """Refuse a folder that is for other settings.

    Parameters
    ----------
    run_dir : path
        The run's folder, for the message.
    there : mapping
        The settings that it is for.
    asked : mapping
        Those that are wanted.
    defaults : callable, optional
        Gives what settings that older runs do not record were, in effect, at their
        time. Called only if one is lacking.

    Raises
    ------
    ValueError
        Names the settings that differ, and proposes a variant.
    """
    differing = stored.differing(there, asked, defaults)
    if not differing:
        return
    fields = ", ".join(
        f"{name} ({before!r} there, {now!r} asked)"
        for name, (before, now) in differing.items()
    )
    words = "-".join(f"{name}_{now}" for name, (_, now) in [*differing.items()][:2])
    variant = re.sub(r"[^a-z0-9._-]", "-", words.lower())[:40].strip("-")
    raise ValueError(
        f"{run_dir} holds another result, which differs in {fields}; give this one a "
        f"place of its own with variant={variant!r}, or remove the folder"
    )


def is_running(run_dir: AnyPath, lock: str = ".lock") -> bool:
    """Tell whether some process holds the run at this moment.

    Parameters
    ----------
    run_dir : path
        The run's folder; need not exist.
    lock : str, default ".lock"
        The name of the lock's file in it.

    Returns
    -------
    bool
        A killed process holds nothing.

    Examples
    --------
    >>> is_running("/nowhere")
    False
    """
    return locks.is_held(Path(run_dir) / lock)


# --- its files ----------------------------------------------------------------------


def save_checkpoint(
    run_dir: AnyPath,
    state: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Replace ``checkpoint.pt``; the one before stays as ``checkpoint.prev.pt``.

    Parameters
    ----------
    run_dir : path
        The run's folder, which must exist.
    state : mapping of str to tensor, number, text, list or mapping
        What training goes on from.
    settings : mapping, optional
        Of the run that it belongs to.

    Raises
    ------
    OSError
        If it cannot be written; the earlier checkpoints stay.
    """
    _write_checkpoint(Path(run_dir), state, settings or {}, lambda: None)


def _write_checkpoint(
    run_dir: Path,
    state: Mapping[str, Any],
    settings: Mapping[str, Any],
    check: Check,
) -> None:
    """Write a checkpoint; ``check`` has the last word before anything is replaced."""
    current = run_dir / "checkpoint.pt"

    def make_room() -> None:
        """Keep the checkpoint before this one, if ``check`` has no objection."""
        check()
        if current.exists():
            os.replace(current, run_dir / "checkpoint.prev.pt")

    content = stored.pack_checkpoint(settings, state)
    files.write_atomic(current, content, before=make_room)


def load_checkpoint(run_dir: AnyPath) -> dict[str, Any] | None:
    """Read the newest undamaged checkpoint of a run, whatever its settings.

    Parameters
    ----------
    run_dir : path
        The run's folder.

    Returns
    -------
    dict or None
        Tensors on the CPU; None if there is none.

    Warns
    -----
    UserWarning
        Naming a checkpoint that is damaged: it is never used.
    """
    for name in _CHECKPOINTS:
        path = Path(run_dir) / name
        try:
            content = files.read_bytes(path, states.STATE_BYTES)
            return stored.unpack_checkpoint(content, path)[1]
        except FileNotFoundError:
            continue
        except ValueError as error:
            _check.warn(f"{path} is damaged and was not used ({error})")
    return None


def discard_checkpoints(run_dir: AnyPath) -> None:
    """Remove the checkpoints of a finished run, and what a kill may have left of them.

    Parameters
    ----------
    run_dir : path
        The run's folder.
    """
    for pattern in (*_CHECKPOINTS, "checkpoint.new.pt", ".checkpoint*"):
        for path in Path(run_dir).glob(pattern):
            if path.is_file() or files.is_link(path):
                path.unlink(missing_ok=True)


def _as_stored(
    logits: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Logits and labels in the types of their file, if it can be read back."""
    wide = _check.as_tensor("logits", logits).cpu()
    class_ids = _check.as_tensor("labels", labels).cpu()
    _check.check_logits(wide)
    scores = wide.float()
    if not _check.all_finite(scores):
        largest = float(wide.abs().max())
        problem = f"reach to {largest:.3g}, beyond float32"
        _check.fail("logits", problem, "divide them by a constant")
    none_known = class_ids.numel() > 0 and bool((class_ids == -1).all())
    _check.check_labels(class_ids, *scores.shape, values=not none_known)
    return scores.numpy(), class_ids.long().numpy()


def save_logits(
    run_dir: AnyPath,
    split: str,
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    before: Check | None = None,
) -> None:
    """Write ``logits/<split>.npz``.

    Parameters
    ----------
    run_dir : path
        The run's folder, which must exist.
    split : str
        ``"val"``, ``"test"``, or the name of an out-of-distribution set.
    logits : (N, K) array or tensor
        Written as float32.
    labels : (N,) array or tensor
        Written as int64; -1 where the split has none.
    before : callable, optional
        Called right before the file takes its place; what it raises leaves the old one.

    Raises
    ------
    ValueError, TypeError
        If ``logits`` in the folder is a symbolic link, or if ``load_logits`` would
        refuse the numbers.
    OSError
        If it cannot be written.
    """
    folder = Path(run_dir) / "logits"
    _refuse_strange_files(Path(run_dir))
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    scores, class_ids = _as_stored(logits, labels)
    np.savez_compressed(buffer, logits=scores, labels=class_ids)
    path = folder / split_file(split)
    files.write_atomic(path, buffer.getbuffer(), before=before)
