"""Where data, downloads and runs live: in the checkout, else in the user's cache.

Two environment variables overrule both: ``GCELIB_DATA_DIR`` and ``GCELIB_RUNS_DIR``.
"""

import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def checkout() -> Path | None:
    """Return the project's folder, or None where gcelib was installed from a wheel.

    Returns
    -------
    pathlib.Path or None
        The folder that holds ``gcelib/`` and ``notebooks/`` side by side.

    Examples
    --------
    >>> folder = checkout()
    >>> folder is None or (folder / "gcelib").is_dir()
    True
    """
    is_project = (_ROOT / "pyproject.toml").is_file() and (_ROOT / "notebooks").is_dir()
    return _ROOT if is_project else None


def data_dir(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of downloaded and licensed data.

    Parameters
    ----------
    root : path, optional
        Overrules everything else.

    Returns
    -------
    pathlib.Path
        ``root``, else ``$GCELIB_DATA_DIR``, else ``data/`` of the checkout, else
        ``data/`` in the user's cache for gcelib. It need not exist yet.

    Examples
    --------
    >>> data_dir("somewhere").name
    'somewhere'
    """
    return _folder(root, "GCELIB_DATA_DIR", "data")


def runs_dir(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of run folders, as an absolute path.

    Parameters
    ----------
    root : path, optional
        Overrules everything else.

    Returns
    -------
    pathlib.Path
        ``root``, else ``$GCELIB_RUNS_DIR``, else ``runs/`` of the checkout, else
        ``runs/`` in the user's cache for gcelib. It need not exist yet.

    Examples
    --------
    >>> runs_dir("somewhere").is_absolute()
    True
    """
    return _folder(root, "GCELIB_RUNS_DIR", "runs").absolute()


def _folder(root: str | os.PathLike[str] | None, variable: str, name: str) -> Path:
    """Return what was asked, else the environment's, the checkout's, the cache's."""
    asked = root or os.environ.get(variable)
    if asked:
        return Path(asked).expanduser()
    project = checkout()
    if project is not None:
        return project / name
    from platformdirs import user_cache_path

    return user_cache_path("gcelib") / name
