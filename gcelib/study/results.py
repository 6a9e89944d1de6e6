"""Reading runs back: one run's logits, history and results, or many as one table."""

import fnmatch
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gcelib import _check
from gcelib.metrics import METRICS
from gcelib.study import files, networks, places, stored
from gcelib.study.data import own
from gcelib.study.files import AnyPath

if TYPE_CHECKING:
    import pandas as pd

#: Logits (N, K) float32 and labels (N,) int64.
LogitsAndLabels = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
#: Folders from that of all runs down to a run: data set, model, loss, seed.
_LEVELS = 4


def split_file(split: str) -> str:
    """Give the name of the file that holds a split's logits.

    Parameters
    ----------
    split : str
        ``"val"``, ``"test"``, or an out-of-distribution set such as ``"noise"``.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If it would lead to another folder.

    Examples
    --------
    >>> split_file("test")
    'test.npz'
    """
    name = split.replace(":", "-")
    if not re.fullmatch(r"\w[\w.+-]*", name):
        _check.fail("split", f"{split!r} cannot name a file", "use letters and digits")
    return f"{name}.npz"


def load_logits(run_dir: AnyPath, split: str) -> LogitsAndLabels:
    """Read the logits that a run wrote for one split.

    Where a split is drawn by the seed, as validation mostly is (and the test of own
    data that brings none), runs of other seeds have other samples in it: add or average
    logits of several runs only where their labels are equal. Fit a calibrator of such
    an ensemble on held-out samples that no member was trained on.

    Parameters
    ----------
    run_dir : path
        The run's folder.
    split : str
        ``"val"``, ``"test"``, or the name of an out-of-distribution set.

    Returns
    -------
    logits : (N, K) array of float32
        Scores before the softmax, all finite.
    labels : (N,) array of int64
        Class ids in [0, K); all of them -1 where the split has none.

    Raises
    ------
    FileNotFoundError
        If the run wrote no such split; the message names those that it did write.
    ValueError
        If the file is damaged or holds anything else, such as another split or another
        run's numbers, or if the finished run lists no such split; the message begins
        with its path. Whose numbers they are, runs of older versions do not record.

    Examples
    --------
    >>> from gcelib.study.places import PROJECT
    >>> run = PROJECT / "data" / "demo" / "fashion_mini" / "convnet" / "gce" / "seed-01"
    >>> logits, labels = load_logits(run, "test")
    >>> logits.shape, labels.shape
    ((4000, 10), (4000,))
    """
    folder = Path(run_dir) / "logits"
    path = folder / split_file(split)
    if files.is_link(folder):
        files.refuse(folder, "is a symbolic link", "give the run's own folder")
    written = _written_logits(run_dir)
    if written and path.stem not in written and path.exists():
        what = f"is none of this run's, which wrote {', '.join(written)}"
        files.refuse(path, what, "remove it")
    try:
        pair = _checked_logits(files.read_arrays(path))
        _refuse_other_numbers(written, path.stem, pair)
        return pair
    except (FileNotFoundError, NotADirectoryError):
        there = sorted(p.stem for p in folder.glob("*.npz")) or "none"
        message = f"{path}: not found; this run has {there}"
        raise FileNotFoundError(message) from None
    except (ValueError, TypeError) as error:
        reason = str(error).removeprefix(f"{files.shown(path)}: ")
        cure = f"remove {run_dir} and run it again"
        raise ValueError(f"{path}: is damaged ({reason}); {cure}") from error


def _written_logits(run_dir: AnyPath) -> dict[str, str]:
    """Give the fingerprints of what a finished run wrote; empty if it cannot say."""
    try:
        return stored.read_result(run_dir).logits
    except (OSError, ValueError):  # not finished, or damaged
        return {}


def _refuse_other_numbers(
    written: Mapping[str, str], name: str, pair: LogitsAndLabels
) -> None:
    """Refuse logits that a finished run did not write under this name."""
    found = stored.fingerprint(*pair)
    if name not in written or found == written[name]:
        return
    others = [other for other, numbers in written.items() if numbers == found]
    what = f"those of {others[0]!r}" if others else "not those that this run wrote"
    _check.fail("numbers", f"are {what}", "restore the file")


def _checked_logits(arrays: dict[str, npt.NDArray[Any]]) -> LogitsAndLabels:
    """Give logits and labels, if the arrays of a file are just these two."""
    if arrays.keys() != {"logits", "labels"}:
        names = ", ".join(sorted(arrays)) or "nothing"
        _check.fail("arrays", f"are {names}, not logits and labels", "restore the file")
    logits = _check.as_tensor("logits", arrays["logits"]).float()
    labels = _check.as_tensor("labels", arrays["labels"])
    _check.check_logits(logits)
    none_known = labels.numel() > 0 and bool((labels == -1).all())
    _check.check_labels(labels, *logits.shape, values=not none_known)
    return logits.numpy(), labels.long().numpy()


def load_history(run_dir: AnyPath) -> "pd.DataFrame":
    """Read a run's history.

    Parameters
    ----------
    run_dir : path
        The run's folder.

    Returns
    -------
    pandas.DataFrame
        A row an epoch, with the fields of ``fit``'s records.

    Raises
    ------
    OSError
        If there is none.
    ValueError
        If ``history.jsonl`` is damaged; the message names the file and the line. If it
        is not what the finished run wrote; runs of older versions do not record that.
    """
    import pandas as pd

    path = Path(run_dir, "history.jsonl")
    records = []
    data = files.read_bytes(path, files.HISTORY_BYTES)
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            record = files.parse_json(line)
        except ValueError as error:
            what = f"line {number} is not readable JSON ({error})"
            raise ValueError(f"{path}: {what}; remove the line") from error
        if not isinstance(record, dict):
            files.refuse(path, f"line {number} is no JSON object", "remove the line")
        records.append(record)
    _refuse_other_history(run_dir, path, data)
    return pd.DataFrame(records)


def _refuse_other_history(run_dir: AnyPath, path: Path, data: bytes) -> None:
    """Refuse a history that a finished run did not write."""
    try:
        written = stored.read_result(run_dir).history
    except (OSError, ValueError):  # not finished, or damaged: it cannot say
        return
    if written and stored.lines_fingerprint(data) != written:
        files.refuse(path, "was changed since it was written", "restore the file")


def is_done(run_dir: AnyPath) -> bool:
    """Tell whether a run has finished and its results are whole.

    Parameters
    ----------
    run_dir : path
        The run's folder; need not exist.

    Returns
    -------
    bool
        True if ``metrics.json`` is there and undamaged: if not, the run is done again.
    """
    try:
        stored.read_result(run_dir)
    except (OSError, ValueError):
        return False
    return True


def summary(run_dir: AnyPath, split: str = "test") -> "pd.DataFrame":
    """Give a finished run's metrics as a small table.

    Parameters
    ----------
    run_dir : path
        The run's folder.
    split : str, default "test"
        Or ``"val"``, on which the calibrators were fitted: their rows flatter them
        there, and an adaptive loss (``afl``) has looked at it as well.

    Returns
    -------
    pandas.DataFrame
        A row for the raw network and for each calibrator. Rates are in percent, NLL in
        nats. A metric that an older run does not have is NaN.

    Raises
    ------
    OSError
        If the run has not finished.
    ValueError
        If its results are damaged, or have no metrics of this split.
    """
    import pandas as pd

    results = stored.read_result(run_dir).results
    known = {name: metric for name, metric in METRICS.items() if metric.in_evaluate}
    start = f"{split}_"
    end = "_nll"
    calibrators = [
        name.removeprefix(start).removesuffix(end)
        for name in results
        if name.startswith(start) and name.endswith(end)
    ]
    if not calibrators:
        _check.fail("split", f"{split!r} has no metrics", "use 'test' or 'val'")
    rows = {}
    for calibrator in calibrators:
        row = {}
        for name, metric in known.items():
            value = results.get(f"{split}_{calibrator}_{name}", float("nan"))
            if metric.percent:
                row[f"{metric.label} %"] = 100 * value
            else:
                row[metric.label] = value
        rows[calibrator] = row
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def load_results(runs_dir: AnyPath | None = None) -> "pd.DataFrame":
    """Give all finished runs as one tidy table, read from ``metrics.json`` alone.

    Parameters
    ----------
    runs_dir : path, optional
        The folder of all runs; by default that of :func:`gcelib.study.places.runs_dir`.

    Returns
    -------
    pandas.DataFrame
        A row a run. Columns: the settings (dataset, model, loss, variant, seed, ...),
        then ``<split>_<calibrator>_<metric>`` (fractions; NLL in nats),
        ``train_seconds``, ``device``, ``run_dir``. Empty if nothing has finished.

    Warns
    -----
    UserWarning
        Once, naming the results that are damaged or in another run's folder: they are
        left out. If there is nothing, but a folder above or below holds runs.
    """
    import pandas as pd

    records = load_records(runs_dir)
    return pd.DataFrame([table_row(path, record) for path, record in records.items()])


def load_records(runs_dir: AnyPath | None = None) -> dict[Path, stored.Record]:
    """Read ``metrics.json`` of all finished runs.

    Parameters
    ----------
    runs_dir : path, optional
        As for :func:`load_results`.

    Returns
    -------
    dict of path to Record
        By run folder, sorted.

    Warns
    -----
    UserWarning
        As :func:`load_results`.

    Examples
    --------
    >>> load_records("a folder without runs")
    {}
    """
    folder = places.runs_dir(runs_dir)
    records = {}
    run_dirs, left_out = _finished(folder)
    if not run_dirs and not left_out:
        _tell_of_runs_beside(folder)
    for run_dir in run_dirs:
        try:
            records[run_dir] = _record(folder, run_dir)
        except (ValueError, OSError) as error:
            left_out.append(str(error))
    if left_out:
        _check.warn(
            f"{len(left_out)} results are skipped: "
            + files.shown(" | ".join(left_out[:5]))
            + (" | ..." if len(left_out) > 5 else "")
        )
    return records


def _tell_of_runs_beside(folder: Path) -> None:
    """Warn where a folder above or below the given one is that of all runs."""
    for levels in (0, 1, 2, 3, 5):
        run_dirs, _ = _finished(folder.resolve(), levels)
        for run_dir in run_dirs:
            if run_dir.name.startswith("seed-"):
                there = run_dir.parents[_LEVELS - 1]
                _check.warn(f"runs_dir: {folder} is no folder of runs; pass {there}")
                return


def _finished(folder: Path, levels: int = _LEVELS) -> tuple[list[Path], list[str]]:
    """Give the folders of all runs that have results, and where none may look."""
    folders = [folder]
    closed = []
    for pattern in ["*"] * (levels - 1) + ["seed-*"] * (levels > 0):
        below = []
        for place in folders:
            try:
                names = fnmatch.filter(os.listdir(place), pattern)
                below += [place / name for name in sorted(names)]
            except PermissionError:
                closed.append(f"{place}: may not be read")
            except OSError:  # a file, or nothing
                continue
        folders = below
    return [place for place in folders if _has_results(place)], closed


def _has_results(run_dir: Path) -> bool:
    """Tell whether a run's folder holds results, or may not be looked into."""
    try:
        return (run_dir / "metrics.json").exists()
    except PermissionError:  # told when they are read
        return True
    except OSError:
        return False


def _record(folder: Path, run_dir: Path) -> stored.Record:
    """Give what a run's results say, if they are its own."""
    record = stored.read_result(run_dir)
    settings = record.settings
    if not _belongs(run_dir.relative_to(folder), settings):
        names = [str(settings[name]) for name in ("dataset", "model", "loss", "seed")]
        what = f"holds the result of another run ({' '.join(names)})"
        cure = "move it back, or run this one again"
        files.refuse(run_dir / "metrics.json", what, cure)
    return record


def table_row(run_dir: AnyPath, record: stored.Record) -> dict[str, Any]:
    """Give a run's row of the table that :func:`load_results` makes.

    Parameters
    ----------
    run_dir : path
        The run's folder.
    record : stored.Record
        What its ``metrics.json`` says.

    Returns
    -------
    dict
        Settings, results, device and folder, by column.

    Examples
    --------
    >>> record = stored.Record({"loss": "ce", "milestones": [7]}, {"device": "cpu"})
    >>> table_row("here", record)
    {'loss': 'ce', 'milestones': (7,), 'device': 'cpu', 'run_dir': 'here'}
    """
    device = record.environment.get("device")
    row = {**record.settings, **record.results, "device": device}
    for name, value in row.items():
        if isinstance(value, list):  # a column of lists could not be compared
            row[name] = tuple(value)
    return row | {"run_dir": str(run_dir)}


def _belongs(place: Path, settings: dict[str, Any]) -> bool:
    """Tell whether the folder that results were found in is that of their settings."""
    dataset, model, *_ = place.parts
    if networks.folder_name(settings["model"]) != model:
        return False
    its_own = settings["dataset"]
    if ":" in its_own:  # the user's
        its_own = own.folder_of_full_name(its_own)
    if its_own != dataset:
        return False
    expected = places.run_path(
        "",
        dataset,
        model,
        settings["loss"],
        settings.get("variant", ""),
        settings["seed"],
    )
    return expected == place


__all__ = [
    "LogitsAndLabels",
    "is_done",
    "load_history",
    "load_logits",
    "load_records",
    "load_results",
    "split_file",
    "summary",
    "table_row",
]
