"""Diagrams to play with: a reliability diagram with its samples, and a loss's simplex.

Each is one piece of HTML: a picture, and a script that draws the living diagram from
the logits themselves. It answers in JupyterLab, in a saved or exported notebook, on a
site and in the file that ``save`` writes, without a kernel. Above ``MOST_CELLS`` logits
a kernel answers, by the same questions and answers (``ReliabilityExplorer.answer``).
Python's ``metrics`` are the reference; the browser's engine is tested against them.
"""

from gcelib.view.explorers.given import Run
from gcelib.view.explorers.page import Answer
from gcelib.view.explorers.properness import PropernessExplorer
from gcelib.view.explorers.reliability import (
    ENGINE_METRICS,
    MOST_CELLS,
    ReliabilityExplorer,
)

__all__ = [
    "ENGINE_METRICS",
    "MOST_CELLS",
    "Answer",
    "PropernessExplorer",
    "ReliabilityExplorer",
    "Run",
]
