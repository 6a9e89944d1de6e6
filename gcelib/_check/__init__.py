"""The one place where bad input is refused, in one style of message.

Every refusal is a ``ValueError`` or ``TypeError`` that reads
``<argument>: <what was wrong>; <what to do>``. Shapes and dtypes are always checked.
Whoever may not wait for an accelerator, as a training step, passes ``values=False``.
"""

from gcelib._check.arguments import (
    boolean,
    choice,
    known_keys,
    listed,
    number,
)
from gcelib._check.arrays import (
    Array,
    all_finite,
    as_tensor,
    check_has_values,
    check_labels,
    check_logits,
    check_range,
    digests_of_rows,
    logits_and_labels,
    refuse_not_finite,
)
from gcelib._check.columns import (
    NO_CLASS,
    SUMS,
    column_of_others,
    numbers_of_names,
    second_set,
)
from gcelib._check.confidences import warn_of_confidences
from gcelib._check.messages import (
    TellingOnce,
    collected,
    did_you_mean,
    fail,
    warn,
)
from gcelib._check.probabilities import (
    IMPOSSIBLE,
    as_meant,
    check_probabilities,
    logarithm,
    warn_of_impossible_labels,
)
from gcelib._check.suspicion import (
    PROBABILITIES,
    are_probabilities,
    warn_of_probabilities,
)
from gcelib._check.tables import (
    refuse_other_columns,
    remember_index,
    warn_of_indexes,
    warn_of_order,
    warn_of_tables,
)

__all__ = [
    "IMPOSSIBLE",
    "NO_CLASS",
    "PROBABILITIES",
    "SUMS",
    "Array",
    "TellingOnce",
    "all_finite",
    "are_probabilities",
    "as_meant",
    "as_tensor",
    "boolean",
    "check_has_values",
    "check_labels",
    "check_logits",
    "check_probabilities",
    "check_range",
    "choice",
    "collected",
    "column_of_others",
    "did_you_mean",
    "digests_of_rows",
    "fail",
    "known_keys",
    "listed",
    "logarithm",
    "logits_and_labels",
    "number",
    "numbers_of_names",
    "refuse_not_finite",
    "refuse_other_columns",
    "remember_index",
    "second_set",
    "warn",
    "warn_of_confidences",
    "warn_of_impossible_labels",
    "warn_of_indexes",
    "warn_of_order",
    "warn_of_probabilities",
    "warn_of_tables",
]
