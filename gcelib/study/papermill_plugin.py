"""What papermill finds of gcelib: the names of two engines, and where they are.

Papermill loads this module, by the entry point ``papermill.engine`` of the installed
package, while it is itself half imported. So nothing is imported here; the engines, in
:mod:`gcelib.study.engine`, are when they are used.
"""

from __future__ import annotations

import importlib
import sys


class _Engine:
    """Stands in papermill's registry for an engine that is imported when used."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> object:
        """Return what the engine itself has under this name."""
        engines = importlib.import_module("gcelib.study.engine")
        return getattr(getattr(engines, self.name), attribute)


#: Registered as ``gcelib``: executes a notebook in papermill's own process.
in_process = _Engine("InProcessEngine")

#: Takes the place of papermill's default engine, and does what that does; notebooks
#: that use gcelib also tell in the terminal how far they are.
watched = _Engine("WatchedEngine")


def register() -> None:
    """Make both engines known to papermill, whether or not the package is installed."""
    registry = sys.modules["papermill.engines"].papermill_engines
    registry.register("gcelib", in_process)
    registry.register(None, watched)


if "papermill.engines" in sys.modules:
    register()
