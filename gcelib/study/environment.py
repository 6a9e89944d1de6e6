"""Where a run is trained: device, versions, and the commit of the code."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from gcelib.study import places
from gcelib.study.config import Settings

#: JSON values by name.
Environment: TypeAlias = dict[str, str | int | bool | None]


def environment(settings: Settings) -> Environment:
    """Describe where a run happens.

    Parameters
    ----------
    settings : Settings
        Of the run.

    Returns
    -------
    dict
        Device and :func:`processor`, threads, how many runs share the device (a sweep
        says so by ``$GCELIB_SHARING``; else None), versions, the checkout's commit
        ("-dirty" if files differ from it, or from what this process has imported), the
        present time, and whether weights are kept.

    Examples
    --------
    >>> from gcelib import TrainConfig
    >>> environment(TrainConfig("digits", device="cpu").resolved())["torch"]
    '...'
    """
    on_gpu = settings.device.startswith("cuda")
    machine = f"{settings.device} ({processor()})"
    now = datetime.datetime.now(datetime.UTC)
    return {
        "device": torch.cuda.get_device_name(settings.device) if on_gpu else machine,
        "threads": torch.get_num_threads(),
        "sharing": _sharing(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **_version_of_timm(settings),
        "commit": _commit(),
        "started": now.isoformat(timespec="seconds"),
        "keep_weights": settings.keep_weights,
    }


def unlike_days(one: Environment) -> Environment:
    """Return an environment without what says nothing of where a run was trained."""
    return {k: v for k, v in one.items() if k not in ("started", "keep_weights")}


def processor() -> str:
    """The processor's name, as far as the system tells it.

    Returns
    -------
    str
        Name and architecture; on systems without ``/proc/cpuinfo`` what Python knows.

    Examples
    --------
    >>> processor().endswith(platform.machine())
    True
    """
    name = platform.processor()
    with contextlib.suppress(OSError):
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        models = [line for line in told.splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    architecture = platform.machine()
    if name in ("", architecture):
        return architecture
    return f"{name}, {architecture}"


def _sharing() -> int | None:
    """Return how many runs share the device, as a sweep told its workers, or None."""
    told = os.environ.get("GCELIB_SHARING", "")
    return int(told) if told.isdecimal() else None


def _version_of_timm(settings: Settings) -> dict[str, str]:
    """Return the version of the package that the network is from, if it is timm."""
    if not settings.model.startswith("timm:"):
        return {}
    return {"timm": importlib.metadata.version("timm")}


def _written() -> dict[Path, int]:
    """Return when each file of gcelib was written, in nanoseconds."""
    files = Path(__file__).parents[1].rglob("*.py")
    return {file: file.stat().st_mtime_ns for file in files}


#: By which to see that a commit came after this process had imported the code.
_WRITTEN_AT_IMPORT = _written()


def _commit() -> str | None:
    """Return the checkout's commit; None where there is no checkout or no git."""
    project = places.checkout()
    if project is None:
        return None
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--match="]
    with contextlib.suppress(OSError):
        command = ["git", "-C", str(project), *describe]
        done = subprocess.run(  # noqa: S603 - git's own words, no shell
            command, capture_output=True, text=True, check=False
        )
        commit = done.stdout.strip()
        is_other = commit and _written() != _WRITTEN_AT_IMPORT
        if is_other and not commit.endswith("-dirty"):
            return f"{commit}-dirty"
        return commit or None
    return None
