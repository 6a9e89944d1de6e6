"""The run folder: written atomically, resumed after a kill, listed, and read back as one table.

<runs_dir>/<dataset>/<model>/<loss>[+variant]/seed-01/
  config.json      settings and environment                     written first
  history.jsonl    one line an epoch
  checkpoint.pt    only while running; the one before it is kept as checkpoint.prev.pt
  weights.pt       final weights, when asked for
  logits/*.npz     logits float32 (N, K), labels int64 (N,)
  metrics.json     renamed into place last: this file alone means "done"
"""

import contextlib
import hashlib
import io
import json
import os
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from gcelib import _check
from gcelib._check import fail
from gcelib.study import places

PROJECT = Path(__file__).resolve().parents[2]


def default_runs_dir():
    """``$GCELIB_RUNS_DIR``, else ``runs/`` at the project's root, whatever folder the process started in."""
    return places.runs_dir()


def run_path(runs_dir, dataset, model, loss, variant, seed):
    """Where one run lives."""
    return Path(runs_dir) / dataset / model / (f"{loss}+{variant}" if variant else loss) / f"seed-{seed:02d}"


# --- atomic files -------------------------------------------------------------------------------------------------


def write_atomic(path, data):
    """Put the bytes ``data`` at ``path``: readers see the old file or the new one, also after a kill or a full disk."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk does not say which file did not fit
        raise


def write_json(path, value):
    """Write ``value`` as indented JSON; NaN and infinity, which JSON does not know, are refused."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path):
    """The JSON object in ``path``; a damaged file is a ValueError that names it."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not readable JSON ({error}); delete it or restore it") from error
    if not isinstance(value, dict):
        fail(path, "does not hold a JSON object", "delete it or restore it")
    return value


def read_parts(path, *names):
    """The JSON objects called ``names`` in the JSON object in ``path``; ValueError that names it if one is lacking."""
    content = read_json(path)
    for name in names:
        if not isinstance(content.get(name), dict):
            fail(path, f"has no object {name!r}", "delete it or restore it")
    return [content[name] for name in names]


def save_checkpoint(run_dir, state):
    """Replace ``checkpoint.pt`` by ``state`` behind its SHA-256; the one before stays as ``checkpoint.prev.pt``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    current = Path(run_dir) / "checkpoint.pt"
    fresh = current.with_suffix(".new.pt")
    write_atomic(fresh, hashlib.sha256(payload).digest() + payload)
    if current.exists():
        os.replace(current, current.with_suffix(".prev.pt"))
    os.replace(fresh, current)


def load_checkpoint(run_dir):
    """The newest undamaged checkpoint, or None. A damaged one is never used: a warning names it."""
    for name in ("checkpoint.pt", "checkpoint.prev.pt"):
        path = Path(run_dir) / name
        if not path.exists():
            continue
        content = memoryview(path.read_bytes())
        if hashlib.sha256(content[32:]).digest() == content[:32]:
            return torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
        warnings.warn(f"{path} is damaged and was not used; training goes on from an earlier state", stacklevel=2)
    return None


# --- one run ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_run(run_dir, settings, environment):
    """Hold ``run_dir`` for one writer and make sure that it belongs to ``settings``; yields True if it is done.

    settings: dict of everything that changes numbers; compared with the folder's. environment: versions, commit,
    device, paths; recorded, never compared. The operating system drops the lock when the process dies.
    Raises ValueError if the folder holds another result, RuntimeError if another process writes there.
    """
    from filelock import FileLock, Timeout

    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=1)  # not 0: is_running holds it for an instant
    except Timeout:
        raise RuntimeError(f"{run_dir}: another process is writing this run; wait for it or stop it") from None
    except PermissionError:
        if not is_done(run_dir):  # somebody else's finished run may be read
            raise
    try:
        config = run_dir / "config.json"
        if config.exists():
            refuse_other_result(run_dir, *read_parts(config, "settings"), settings)
        else:
            write_json(config, {"settings": settings, "environment": environment})
        for pattern in (".*.json*.*", ".weights.pt.*", "logits/.*.npz.*"):  # of killed writes
            for leftover in run_dir.glob(pattern):
                leftover.unlink()
        done = is_done(run_dir)
        if not done and (run_dir / "metrics.json").exists():
            warnings.warn(f"{run_dir}: metrics.json is damaged; this run is done again", stacklevel=4)
        if done:
            discard_checkpoints(run_dir)
        yield done
    finally:
        lock.release()


def refuse_other_result(run_dir, there, asked):
    """ValueError if the settings ``asked`` of a run differ from those that its folder is ``there`` for."""
    there, asked = json.loads(json.dumps([there, asked]))  # tuples become lists, as they are in the file
    differing = [k for k in sorted({*there, *asked}) if there.get(k) != asked.get(k)]
    if differing:
        fields = ", ".join(f"{k} ({there.get(k)!r} there, {asked.get(k)!r} asked)" for k in differing)
        words = "-".join(f"{k}_{asked.get(k)}" for k in differing[:2])
        words = "".join(c if c.isalnum() or c in "._-" else "-" for c in words.lower())[:40].strip("-")
        raise ValueError(
            f"{run_dir} holds another result, which differs in {fields}; "
            f"give this one a place of its own with variant={words!r}, or remove the folder"
        )


def is_done(run_dir):
    """True if the run has finished: ``metrics.json`` is there, and undamaged (else the run is done again)."""
    try:
        return bool(read_metrics(run_dir))
    except (OSError, ValueError):
        return False


def read_metrics(run_dir):
    """config, environment and results of a finished run: three dicts. A damaged file is a ValueError that names it."""
    return read_parts(Path(run_dir) / "metrics.json", "config", "environment", "results")


def is_running(run_dir, lock=".lock"):
    """True if some process holds the run at this moment (its lock, so a killed one does not count)."""
    from filelock import FileLock, Timeout

    if not (Path(run_dir) / lock).exists():
        return False
    lock = FileLock(Path(run_dir) / lock)
    try:
        lock.acquire(timeout=0)
    except (Timeout, PermissionError):  # a lock that we may not touch is somebody else's
        return True
    lock.release()
    return False


def discard_checkpoints(run_dir):
    """Remove the checkpoints of a finished run and what a kill may have left of them."""
    for path in [*Path(run_dir).glob("checkpoint*.pt"), *Path(run_dir).glob(".checkpoint*")]:
        path.unlink(missing_ok=True)


# --- reading back -------------------------------------------------------------------------------------------------


def save_logits(run_dir, split, logits, labels):
    """Write ``logits/<split>.npz``: logits (N, K) as float32, labels (N,) as int64 (-1 where a split has none)."""
    folder = Path(run_dir) / "logits"
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, logits=np.asarray(logits, np.float32), labels=np.asarray(labels, np.int64))
    write_atomic(folder / f"{split}.npz", buffer.getbuffer())


def load_logits(run_dir, split):
    """The pair logits (N, K) float32, labels (N,) int64 that a run wrote for ``split`` ("val", "test" or an OOD name).

    Raises FileNotFoundError that names the splits there are; ValueError if the file is damaged. Nothing is unpickled.
    """
    path = Path(run_dir) / "logits" / f"{split}.npz"
    if not path.exists():
        there = sorted(p.stem for p in path.parent.glob("*.npz")) or "none"
        raise FileNotFoundError(f"{path}: not found; this run has {there}")
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["logits"], file["labels"]
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: is damaged ({error}); remove {run_dir} and run it again") from error


def load_logits_file(path):
    """Anybody's logits from one file: ``{"val": (logits (N, K), labels (N,)), "test": ...}``, checked numpy arrays.

    ``.npz`` (``numpy.savez``): arrays val_logits, val_labels, test_logits, test_labels. ``.csv``: a line a sample, with
    the columns split ("val" or "test"), label, logit_0 ... logit_{K-1}, in this order. Logits are the floating-point
    scores before the softmax, labels whole numbers in [0, K). The test part may be missing. Nothing is unpickled.
    Raises BadParameter, a ValueError that names the file and what is wrong with it: a missing or unknown name, a hole,
    a truncated file, a wrong shape or dtype, NaN or infinity, test logits that are the validation logits again.
    """
    path = Path(path)
    try:
        if not path.is_file():
            fail("logits", f"there is no such file, seen from {Path.cwd()}", "give its full path")
        read = {".npz": _read_npz, ".csv": _read_csv}.get(path.suffix.lower())
        parts = read(path) if read else fail("logits", f"has the suffix {path.suffix!r}", "pass an .npz or .csv file")
        for split, (logits, labels) in parts.items():
            z, y = _check.as_tensor(f"{split}_logits", logits), _check.as_tensor(f"{split}_labels", labels)
            _check.check_logits(z, f"{split}_logits")
            if _check.are_probabilities(z):
                raise ValueError(f"{split}_logits: {_check.PROBABILITIES}")
            _check.check_labels(y, *z.shape, f"{split}_labels")
            parts[split] = z.numpy(), y.long().numpy()
        if "test" in parts and parts["test"][0].shape[1] != parts["val"][0].shape[1]:
            fail("test_logits", "have another number of classes than val_logits", "pass logits of one model")
        if "test" in parts and np.array_equal(parts["test"][0], parts["val"][0]):
            fail("test_logits", "are val_logits again", "leave them out: what a calibrator has seen cannot test it")
        return parts
    except Exception as error:  # a damaged file makes numpy, zipfile and pandas raise all sorts
        raise _check.BadParameter(f"{path}: {error}") from error


def _read_npz(path):
    if not zipfile.is_zipfile(path):
        fail("logits", "is not a whole .npz file", "write it with numpy.savez(path, val_logits=..., val_labels=...)")
    file = np.load(path, allow_pickle=False)
    with file:
        if (size := sum(m.file_size for m in file.zip.infolist())) > 100 * path.stat().st_size + 2**26:
            fail("logits", f"would expand to {size:,} bytes, over 100 times the file", "save them with numpy.savez")
        names = [f"{split}_{kind}" for split in ("val", "test") for kind in ("logits", "labels")]
        _check.known_keys("logits", file.files, names)
        for name in names[: 4 if {*names[2:]} & {*file.files} else 2]:
            if name not in file.files:
                fail(name, f"is missing, the file has {', '.join(file.files) or 'nothing'}", "add this array")
        arrays = {}
        for name in file.files:
            try:
                arrays[name] = file[name]
            except ValueError as error:
                if "Object arrays" not in str(error):
                    raise
                fail(name, "holds Python objects, which are never unpickled", "save plain numbers (astype)")
    return {name[:-7]: (arrays[name], arrays[f"{name[:-7]}_labels"]) for name in arrays if name[-7:] == "_logits"}


def _read_csv(path):
    import pandas as pd

    content = path.read_bytes()
    if not content or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        fail("logits", "is in UTF-16" if content else "is empty", "write it as UTF-8 text")
    if not content.endswith((b"\n", b"\r")):
        fail("logits", "the last line does not end, as in a truncated file", "write the file again, or end the line")
    table = pd.read_csv(path, encoding="utf-8-sig", skip_blank_lines=False)
    names = ["split", "label", *(f"logit_{k}" for k in range(table.shape[1] - 2))]
    if list(table) != names or not isinstance(table.index, pd.RangeIndex):
        fail("columns", f"are {', '.join(map(str, table))}"[:200], "name them split,label,logit_0,logit_1,...")
    for name, column in table.items():
        if column.isna().any():
            line = int(column.isna().argmax()) + 2
            fail(name, f"has a hole or NaN in line {line}", "fill it or leave the line out")
        if name != "split" and column.dtype.kind not in "iuf":
            fail(name, f"holds what is not a number, read as {column.dtype}", "write plain numbers")
    for split in table["split"].unique():
        _check.choice("split", split, ("val", "test"))
    if "val" not in set(table["split"]):
        fail("split", "no line says val", "calibrators are fitted on validation samples")
    groups = {split: table[table["split"] == split] for split in ("val", "test")}
    return {s: (g.iloc[:, 2:].to_numpy(float), g["label"].to_numpy()) for s, g in groups.items() if len(g)}


def load_history(run_dir):
    """``history.jsonl`` as a DataFrame, a row an epoch."""
    import pandas as pd

    lines = (Path(run_dir) / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return pd.DataFrame([json.loads(line) for line in lines])


def summary(run_dir, split="test"):
    """A finished run's metrics on ``split``: a row for the raw network and each calibrator; rates in percent."""
    import pandas as pd

    results = read_metrics(run_dir)[2]
    columns = {"error": "error %", "nll": "NLL", "brier": "Brier", "ece": "ECE %", "adaptive_ece": "AdaECE %"}
    columns |= {"classwise_ece": "ClasswiseECE %"}
    names = [k[len(split) + 1 : -len("_nll")] for k in results if k.startswith(f"{split}_") and k.endswith("_nll")]
    rows = {n: {c: results[f"{split}_{n}_{k}"] * (100 if "%" in c else 1) for k, c in columns.items()} for n in names}
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def load_results(runs_dir=None):
    """All finished runs under ``runs_dir`` as one tidy DataFrame, a row a run, read from ``metrics.json`` alone.

    Columns: the settings (dataset, model, loss, variant, seed, ...), then ``<split>_<calibrator>_<metric>``
    (fractions; NLL in nats), ``train_seconds``, ``device``, ``run_dir``. A damaged file is skipped with a warning.
    """
    import pandas as pd

    rows = []
    for path in sorted(Path(runs_dir or default_runs_dir()).glob("*/*/*/seed-*/metrics.json")):
        try:
            config, environment, results = read_metrics(path.parent)
        except (ValueError, OSError) as error:
            warnings.warn(f"{path}: skipped ({error}); if it is damaged, run this one again", stacklevel=2)
            continue
        row = {**config, **results, "device": environment.get("device")}
        rows.append({k: tuple(v) if isinstance(v, list) else v for k, v in row.items()} | {"run_dir": str(path.parent)})
    return pd.DataFrame(rows)
