"""Numbers that are called confidences, and are not the top class's probability."""

import numpy as np
import numpy.typing as npt

from gcelib import _check
from gcelib._check import fail

#: Samples from which a pattern is no chance.
_MANY = 20
#: So few lines may be an accident.
_SEVERAL = 5
#: By chance the least sure of a good model may be all that are wrong, if so few are.
_ERRORS = 10
#: Of a pattern so many may be exceptions: predictions of another run, typing errors.
_EXCEPTIONS = 0.05
#: Lines below chance from which they are told.
_SHARE_BELOW = 0.01
#: So many lines for each class that occurs, and hardly one is missing.
_LINES_OF_A_CLASS = 10
_FEWEST_LINES = 50

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def are_apart(low: Numbers, high: Numbers) -> bool:
    """Whether one number lies between nearly all of both groups.

    Of the smaller group a twentieth may be exceptions; of equal numbers in both those
    of the one that has fewer are.
    """
    cuts, at = np.unique(np.concatenate([low, high]), return_inverse=True)
    of_low = np.bincount(at[: len(low)], minlength=len(cuts))
    of_high = np.bincount(at[len(low) :], minlength=len(cuts))
    low_above = len(low) - of_low.cumsum()
    high_below = of_high.cumsum() - of_high
    exceptions = low_above + high_below + np.minimum(of_low, of_high)
    return bool(exceptions.min() <= _EXCEPTIONS * min(len(low), len(high)))


def is_of_one_class(values: Numbers, says_it: Flags) -> bool:
    """Whether these are probabilities of one and the same of two classes.

    ``says_it`` tells which lines predict that class.
    """
    if len(values) < _MANY or (values < 0.5).mean() < _EXCEPTIONS:
        return False
    other = values[~says_it]
    same = values[says_it]
    return bool(other.max() <= same.min() < same.max()) or are_apart(other, same)


def refuse_of_true_class(values: Numbers, hits: Flags) -> None:
    """Refuse the probability of the true class, which tells right from wrong.

    Where a prediction is wrong it is below one half. No confidence knows so well.
    """
    wrong = values[~hits]
    right = values[hits]
    if min(len(wrong), len(right)) < _ERRORS or len(values) < _MANY:
        return
    if _is_below_half(wrong) and values.min() < 0.5 and are_apart(wrong, right):
        problem = "is higher for nearly every right prediction than for any wrong one"
        cure = "write the probability of the predicted class, not of the true one"
        fail("confidence", problem, cure)


def look_below_chance(values: Numbers, hits: Flags, n_classes: int) -> None:
    """Refuse or tell numbers that the largest of so many probabilities cannot be.

    Those of the true class are below 1/K where the prediction is wrong, hardly ever
    where it is right, and below one half if it is the top one: refused. Others, such as
    margins, 1 - entropy or words of a language model, are told.
    """
    if n_classes < 2:
        tell_zeros(values)
        return
    all_occur = len(values) >= max(_FEWEST_LINES, _LINES_OF_A_CLASS * n_classes)
    lowest = 1 / n_classes if all_occur else 0.1 / n_classes
    is_below = values < min(0.99 * lowest, lowest - _last_digit(values))
    below_wrong = is_below[~hits]
    n_below = int(is_below.sum())
    seldom_right = n_below and is_below[hits].sum() <= _EXCEPTIONS * n_below
    is_of_truth = seldom_right and _is_below_half(values[~hits])
    shown = f"1/{n_classes}" if all_occur else f"1/{10 * n_classes}"
    if below_wrong.sum() >= _SEVERAL and hits.sum() >= _SEVERAL and is_of_truth:
        problem = (
            f"is below {shown} for {below_wrong.sum():,} wrong predictions, which the "
            f"largest of {n_classes} probabilities cannot be"
        )
        cure = "write the probability of the predicted class, not of the true one"
        fail("confidence", problem, cure)
    if not all_occur or n_below < max(_SEVERAL, _SHARE_BELOW * len(values)):
        tell_zeros(values)
        return
    _check.warn(
        f"confidence: is below {shown} in {n_below:,} of {len(values):,} lines, which "
        f"the largest of {n_classes} probabilities cannot be, but a margin, a number "
        "from an entropy or one that stands for a missing one can; write the "
        "probability of the predicted class, unless it was calibrated since"
    )


def tell_zeros(values: Numbers) -> None:
    """Warn of zeros that are not rounded: the largest of probabilities is none."""
    n_zeros = int((values == 0).sum())
    is_rounded = _last_digit(values) >= 0.01
    if not is_rounded and n_zeros >= max(_SEVERAL, _SHARE_BELOW * len(values)):
        _check.warn(
            f"confidence: is 0 in {n_zeros:,} of {len(values):,} lines, which the "
            "largest of several probabilities cannot be; leave such lines out if it "
            "stands for a missing one, or write the probability of the predicted class"
        )


def _is_below_half(wrong: Numbers) -> bool:
    """Whether nearly all confidences of wrong predictions are."""
    return bool((wrong > 0.5).mean() <= _EXCEPTIONS)


def _last_digit(values: Numbers) -> float:
    """The step of numbers with one, two or three digits; 0 of others."""
    for step in (0.1, 0.01, 0.001):
        steps = values / step
        if np.allclose(steps, steps.round(), rtol=0, atol=1e-6):
            return step
    return 0.0
