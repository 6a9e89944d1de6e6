"""Where data, downloads and runs live: in the checkout, else in the user's cache.

Two environment variables overrule both: ``GCELIB_DATA_DIR`` and ``GCELIB_RUNS_DIR``.
"""

import os
from pathlib import Path

#: The root of the checkout; of an installed wheel, the folder that holds ``gcelib``.
PROJECT = Path(__file__).resolve().parents[2]


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
    is_project = (PROJECT / "pyproject.toml").is_file() and (
        PROJECT / "notebooks"
    ).is_dir()
    return PROJECT if is_project else None


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


def full_path(path: str | os.PathLike[str]) -> Path:
    """Write a path so that it means one place, from any folder of this machine.

    Links keep their names, but for those that ``..`` goes back from: the place above a
    link is that above what it leads to.

    Parameters
    ----------
    path : path
        May begin with ``~``; nothing need be there.

    Returns
    -------
    pathlib.Path
        Absolute and without ``..``.

    Examples
    --------
    >>> full_path("/no-such-folder/../data.npz").as_posix()
    '/data.npz'
    """
    full = Path(path).expanduser().absolute()
    while ".." in full.parts:
        at = full.parts.index("..")
        above = Path(*full.parts[:at]).resolve().parent
        full = above.joinpath(*full.parts[at + 1 :])
    return full


def run_path(
    runs_dir: str | os.PathLike[str],
    dataset: str,
    model: str,
    loss: str,
    variant: str,
    seed: int,
) -> Path:
    """Give the folder of one run.

    Parameters
    ----------
    runs_dir : path
        The folder of all runs.
    dataset, model, loss : str
        Names that can name folders.
    variant : str
        What else is particular about the run; may be empty.
    seed : int
        At least 0.

    Returns
    -------
    pathlib.Path
        ``<runs_dir>/<dataset>/<model>/<loss>[+variant]/seed-<seed>``.

    Examples
    --------
    >>> run_path("runs", "digits", "mlp", "gce", "slow", 3).as_posix()
    'runs/digits/mlp/gce+slow/seed-03'
    """
    name = f"{loss}+{variant}" if variant else loss
    return Path(runs_dir) / dataset / model / name / f"seed-{seed:02d}"
