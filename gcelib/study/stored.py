"""What a run's files look like: a schema, the settings, a checksum.

``config.json``, ``metrics.json`` and ``checkpoint.pt`` each say which settings they are
for, so that none of them can pass for another run's. The checksum covers everything in
the file: a changed digit is noticed. Files of gcelib 0.1, which have neither schema nor
checksum, are read as they are.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gcelib.study import files, states
from gcelib.study.files import AnyPath, Bytes, Check

#: The version of what is written here. 1 was that of gcelib 0.1, which did not say so.
SCHEMA = 2

#: Gives what settings that an older version did not have were, in effect, at its time.
Defaults = Callable[[], Mapping[str, Any]]

#: The settings that make a run's folder.
_PLACE = ("dataset", "model", "loss", "seed")
_AGAIN = "remove it, and run this one again"


@dataclass(frozen=True)
class Record:
    """What one JSON file of a run says.

    Attributes
    ----------
    settings : dict
        Everything that changes the run's numbers.
    environment : dict
        Versions, commit, device, day: recorded, never compared.
    results : dict of str to float
        Fractions, nats and seconds, by name; empty in ``config.json``.
    logits : dict of str to str
        For each file of logits, by its name without suffix, the ``fingerprint`` of what
        the run wrote there; empty in ``config.json`` and in older runs.
    history : str
        The ``lines_fingerprint`` of ``history.jsonl``; empty as ``logits`` is.
    """

    settings: dict[str, Any]
    environment: dict[str, Any]
    results: dict[str, float] = field(default_factory=dict)
    logits: dict[str, str] = field(default_factory=dict)
    history: str = ""


class NewerSchema(ValueError):
    """A file was written by a version that this one does not know: it is no damage."""


def write_record(path: AnyPath, record: Record, *, before: Check | None = None) -> None:
    """Write ``record`` with its schema and checksum, whole or not at all.

    Parameters
    ----------
    path : path
        ``config.json`` or ``metrics.json`` of a run.
    record : Record
    before : callable, optional
        Called right before the file takes its place; what it raises leaves the old one.

    Raises
    ------
    ValueError
        If it holds NaN or infinity.
    OSError
        If it cannot be written.
    """
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "settings": record.settings,
        "environment": record.environment,
    }
    if record.results:
        content["results"] = record.results
    if record.logits:
        content["logits"] = record.logits
    if record.history:
        content["history"] = record.history
    content["checksum"] = _checksum(content)
    files.write_json(path, content, before=before)


def _checksum(content: Mapping[str, Any]) -> str:
    """Give the SHA-256 of all values of ``content`` but the checksum itself.

    It is taken over the values, not over the bytes of the file, so that line ends and
    indents, which other programs change, do not count.
    """
    rest = {name: value for name, value in content.items() if name != "checksum"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_config(run_dir: AnyPath) -> Record:
    """Read what ``config.json`` says that a run's folder is for.

    Parameters
    ----------
    run_dir : path
        The run's folder.

    Returns
    -------
    Record
        Without results.

    Raises
    ------
    ValueError
        If the file is damaged; the message begins with its path.
    OSError
        If it is not there or may not be read.
    """
    path = Path(run_dir, "config.json")
    content = files.read_json(path)
    if "schema" not in content and content.keys() <= {"settings", "environment"}:
        content = {"environment": {}} | content
    else:
        _refuse_damage(path, content, {"settings", "environment"}, "delete it")
    for name in ("settings", "environment"):
        if not isinstance(content.get(name), dict):
            files.refuse(path, f"has no object {name!r}", "delete it or restore it")
    return Record(content["settings"], content["environment"])


def read_result(run_dir: AnyPath) -> Record:
    """Read the results of a finished run.

    Parameters
    ----------
    run_dir : path
        The run's folder.

    Returns
    -------
    Record
        Settings, environment and results.

    Raises
    ------
    ValueError
        If ``metrics.json`` is damaged, was changed by hand, or holds anything but
        finite numbers; the message begins with its path.
    OSError
        If it is not there (the run has not finished) or may not be read.
    """
    path = Path(run_dir, "metrics.json")
    content = files.read_json(path)
    if content.keys() == {"config", "environment", "results"}:  # of gcelib 0.1
        content["settings"] = content.pop("config")
    else:
        _refuse_damage(path, content, {"settings", "environment", "results"}, _AGAIN)
    for name in ("settings", "environment", "results"):
        if not isinstance(content.get(name), dict):
            files.refuse(path, f"has no object {name!r}", _AGAIN)
    settings = content["settings"]
    place = [settings.get(name) for name in _PLACE] + [settings.get("variant", "")]
    if [type(value) for value in place] != [str, str, str, int, str]:
        files.refuse(path, f"says of its place: {place}", _AGAIN)
    check_results(path, content["results"])
    logits = content.get("logits", {})
    if not isinstance(logits, dict):
        files.refuse(path, "has no object 'logits'", _AGAIN)
    twice = sorted(content["results"].keys() & {*settings, "device", "run_dir"})
    if twice:
        files.refuse(path, f"has results called {', '.join(twice)}", _AGAIN)
    return Record(
        settings,
        content["environment"],
        content["results"],
        logits,
        str(content.get("history", "")),
    )


def _refuse_damage(
    path: Path, content: dict[str, Any], names: set[str], cure: str
) -> None:
    """Refuse a file whose parts or checksum are not those that were written."""
    schema = content.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        what = f"was written by a newer gcelib (schema {schema})"
        files.refuse(path, what, "install that version", NewerSchema)
    parts = content.keys() - {"logits", "history"}
    if parts != names | {"schema", "checksum"} or schema != SCHEMA:
        what = f"has the parts {', '.join(sorted(content)) or 'of nothing'}"
        files.refuse(path, f"{what}, which is not what was written", cure)
    if content["checksum"] != _checksum(content):
        files.refuse(
            path, "was changed since it was written: its checksum differs", cure
        )


def fingerprint(logits: npt.NDArray[Any], labels: npt.NDArray[Any]) -> str:
    """Give the SHA-256 of a split's numbers, however its file packs them.

    Parameters
    ----------
    logits : (N, K) array of float32
    labels : (N,) array of int64

    Returns
    -------
    str

    Examples
    --------
    >>> fingerprint(np.zeros((1, 2), np.float32), np.zeros(1, np.int64))[:8]
    '491db7d4'
    """
    digest = hashlib.sha256(str(logits.shape).encode())
    digest.update(np.ascontiguousarray(logits, "<f4").data)
    digest.update(np.ascontiguousarray(labels, "<i8").data)
    return digest.hexdigest()


def lines_fingerprint(data: bytes) -> str:
    r"""Give the SHA-256 of a text's lines, whatever ends them.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    str

    Examples
    --------
    >>> lines_fingerprint(b"one\n") == lines_fingerprint(b"one\r\n")
    True
    """
    return hashlib.sha256(b"\n".join(data.splitlines())).hexdigest()


def check_results(name: AnyPath, results: Mapping[str, Any]) -> None:
    """Refuse results that are not finite numbers.

    Parameters
    ----------
    name : path or str
        What the messages begin with.
    results : mapping of str to number

    Raises
    ------
    ValueError
        If there are none, or one is no finite number.
    """
    if not results:
        files.refuse(name, "has no results", _AGAIN)
    for key, value in results.items():
        if not _is_finite_number(value):
            what = f"says {key} = {value!r:.60}, which is no finite number"
            files.refuse(name, what, _AGAIN)


def _is_finite_number(value: object) -> bool:
    """Tell whether ``value`` is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


# --- checkpoints --------------------------------------------------------------------

_MAGIC = b"gcelib checkpoint 2\n"
_HASH_BYTES = 32
_LENGTH_BYTES = 8


def pack_checkpoint(settings: Mapping[str, Any], state: Mapping[str, Any]) -> bytes:
    """Give the bytes of a checkpoint: a checksum, the settings, the state.

    Parameters
    ----------
    settings : mapping
        Of the run that it belongs to; JSON values.
    state : mapping of str to tensor, number, text, list or mapping

    Returns
    -------
    bytes

    Examples
    --------
    >>> content = pack_checkpoint({"seed": 1}, {"epoch": 3})
    >>> unpack_checkpoint(content, "checkpoint.pt")
    ({'seed': 1}, {'epoch': 3})
    """
    header = json.dumps(settings).encode()
    length = len(header).to_bytes(_LENGTH_BYTES, "big")
    body = length + header + states.pack_state(dict(state))
    return _MAGIC + hashlib.sha256(body).digest() + body


def unpack_checkpoint(
    content: Bytes, name: AnyPath
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Read the bytes of a checkpoint.

    Parameters
    ----------
    content : bytes
    name : path
        What the messages call it.

    Returns
    -------
    settings : dict or None
        Those of the run that it belongs to; None if it does not say (gcelib 0.1).
    state : dict
        Tensors on the CPU.

    Raises
    ------
    ValueError
        If it is damaged, or holds more than tensors and plain values.
    """
    settings, body = _open_checkpoint(content, name)
    return settings, states.unpack_state(body, name)


def checkpoint_settings(content: Bytes, name: AnyPath) -> dict[str, Any] | None:
    """Read which settings a checkpoint is for, without its state.

    Parameters
    ----------
    content : bytes
    name : path
        What the messages call it.

    Returns
    -------
    dict or None
        None if it does not say (gcelib 0.1).

    Raises
    ------
    ValueError
        If it is damaged.

    Examples
    --------
    >>> checkpoint_settings(pack_checkpoint({"seed": 1}, {"epoch": 3}), "checkpoint.pt")
    {'seed': 1}
    """
    settings, _ = _open_checkpoint(content, name)
    return settings


def _open_checkpoint(
    content: Bytes, name: AnyPath
) -> tuple[dict[str, Any] | None, memoryview]:
    """Give a checkpoint's settings and the bytes of its state, undamaged ones."""
    rest = memoryview(content)
    says_settings = bytes(rest[: len(_MAGIC)]) == _MAGIC
    if says_settings:
        rest = rest[len(_MAGIC) :]
    found = bytes(rest[:_HASH_BYTES])
    body = rest[_HASH_BYTES:]
    if hashlib.sha256(body).digest() != found:
        files.refuse(name, "is damaged: its checksum differs", "delete it")
    if not says_settings:
        return None, body
    length = int.from_bytes(body[:_LENGTH_BYTES], "big")
    header = body[_LENGTH_BYTES : _LENGTH_BYTES + length]
    if length > files.JSON_BYTES:
        files.refuse(name, "is damaged: its settings are too long", "delete it")
    settings = files.parse_json(bytes(header))
    if not isinstance(settings, dict):
        files.refuse(name, "is damaged: its settings are no object", "delete it")
    return settings, body[_LENGTH_BYTES + length :]


# --- the same result? ---------------------------------------------------------------


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give ``settings`` as they will be read back: tuples become lists.

    Parameters
    ----------
    settings : mapping of str to JSON value

    Returns
    -------
    dict

    Examples
    --------
    >>> plain({"milestones": (7, 10)})
    {'milestones': [7, 10]}
    """
    copy: dict[str, Any] = json.loads(json.dumps(dict(settings)))
    return copy


def differing(
    there: Mapping[str, Any], asked: Mapping[str, Any], defaults: Defaults = dict
) -> dict[str, tuple[object, object]]:
    """Tell in which settings two runs differ.

    Parameters
    ----------
    there : mapping
        Settings that were stored, perhaps by an older version that had fewer of them.
    asked : mapping
        Settings of now.
    defaults : callable, optional
        Gives what a setting that an older version did not have was, in effect, at that
        time. Called only if one is lacking.

    Returns
    -------
    dict of str to pair
        The settings that differ, in alphabetical order: as they are there, and as they
        were asked for. Empty if both have the same result.

    Examples
    --------
    >>> before = {"lr": 0.1}
    >>> differing(before, {"lr": 0.1, "smooth": 0.0}, lambda: {"smooth": 0.0})
    {}
    >>> differing(before, {"lr": 0.2, "smooth": 0.5}, lambda: {"smooth": 0.0})
    {'lr': (0.1, 0.2), 'smooth': (0.0, 0.5)}
    """
    stored = plain(there)
    now = plain(asked)
    names = sorted({*stored, *now})
    if not now.keys() <= stored.keys():
        older = plain(defaults())
        for name in _PLACE:  # every version has said these
            older.pop(name, None)
        stored = older | stored
    pairs = {name: (stored.get(name), now.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
