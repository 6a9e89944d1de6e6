"""The paper's tables and claims as data, our runs beside them, and honest statistics.

``numbers`` reads the paper and indexes runs, ``statistics`` knows what few seeds can
show, ``tables`` sets ours under the paper's, ``claims`` judges by one rule, and
``collecting`` reads finished runs with what only their logits tell, ``report`` opens
them for the results page.
"""

from typing import TYPE_CHECKING

import pandas as pd

from gcelib.study.measuring import class_errors, split_half
from gcelib.study.paper.claims import (
    Evidence,
    chances_of_luck,
    check_claims,
    combine,
    evidence_for,
    printed_claims,
    verdict,
)
from gcelib.study.paper.collecting import collect
from gcelib.study.paper.numbers import (
    KEYS,
    RESULT_GRIDS,
    Study,
    committed_results,
    derived,
    published,
)
from gcelib.study.paper.report import export, open_report, runs_to_look_at, to_html
from gcelib.study.paper.statistics import (
    Interval,
    binomial_se,
    holm,
    interval,
    wilcoxon,
)
from gcelib.study.paper.tables import (
    FAMILIES,
    compare,
    differences,
    mean_and_spread,
    own_grid,
    runs_by_batch_size,
    summary,
    table,
    to_markdown,
)

__all__ = [
    "CLAIMS",
    "FAMILIES",
    "KEYS",
    "RESULT_GRIDS",
    "Evidence",
    "Interval",
    "Study",
    "binomial_se",
    "chances_of_luck",
    "check_claims",
    "class_errors",
    "collect",
    "combine",
    "committed_results",
    "compare",
    "derived",
    "differences",
    "evidence_for",
    "export",
    "holm",
    "interval",
    "mean_and_spread",
    "open_report",
    "own_grid",
    "printed_claims",
    "published",
    "runs_by_batch_size",
    "runs_to_look_at",
    "split_half",
    "summary",
    "table",
    "to_html",
    "to_markdown",
    "verdict",
    "wilcoxon",
]

#: The paper's claims: what ``printed_claims`` returns, read on first use.
CLAIMS: pd.DataFrame


def _on_first_use(name: str) -> pd.DataFrame:
    """Read ``CLAIMS`` when somebody asks for it."""
    if name != "CLAIMS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return printed_claims()


if not TYPE_CHECKING:  # a checker that saw it would believe in every name
    __getattr__ = _on_first_use
