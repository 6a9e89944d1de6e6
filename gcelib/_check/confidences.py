"""What confidences, and whether their predictions were right, say of each other."""

import math

import torch
from torch import Tensor

from gcelib._check.messages import warn

#: So many confidences below 0.5 tell whether they are those of the prediction.
_MANY_BELOW_HALF = 50
#: So many standard deviations that right predictions stand lower are no chance.
_NO_CHANCE = 5
#: So many are enough where the share of right ones is what flags of errors would have.
_NO_CHANCE_OF_ERRORS = 2.5


def warn_of_confidences(
    names: tuple[str, str], confidences: Tensor, hits: Tensor
) -> None:
    """Say so if confidences and hits (N,) seem to be something else.

    ``names`` are those of both arguments.
    """
    if _are_of_one_class(confidences, hits):
        low = confidences < 0.5
        right = float(hits[low].double().mean())
        warn(
            f"{names[0]}: of {int(low.sum()):,} below 0.5 {right:.0%} are right, the "
            "more the lower they are, as where they are the probability of one of two "
            "classes; pass that of the predicted class, max(p, 1 - p)"
        )
        return
    above, doubt = _share_above(confidences, hits)
    fits_errors = _are_as_many_as_errors(confidences, hits)
    needed = _NO_CHANCE_OF_ERRORS if fits_errors else _NO_CHANCE
    if above < 0.5 - needed * doubt:
        right, claimed = float(hits.double().mean()), float(confidences.double().mean())
        warn(
            f"{names[1]}: right predictions have lower confidences than wrong ones (a "
            f"higher one in {above:.0%} of pairs), and {right:.0%} are right where "
            f"{claimed:.0%} are claimed; look whether it is 1 where the prediction is "
            "wrong, or belongs to other samples or another class"
        )


def _are_of_one_class(confidences: Tensor, hits: Tensor) -> bool:
    """Whether confidences seem to be the probability of one of two classes.

    Then, below 0.5, the other class is predicted: right more often than not, and the
    more often the lower the number is.
    """
    low = confidences < 0.5
    n_low = int(low.sum())
    if n_low < _MANY_BELOW_HALF:
        return False
    x = confidences[low].double() - confidences[low].double().mean()
    y = hits[low].double() - hits[low].double().mean()
    spread = float((x.square().mean() * y.square().mean()).sqrt())
    falls = spread > 0 and float((x * y).mean()) / spread < -4 / n_low**0.5
    return falls and float(hits[low].double().mean()) > 0.5


def _are_as_many_as_errors(confidences: Tensor, hits: Tensor) -> bool:
    """Whether hits are about as many as the confidences expect of errors.

    So they are of a model that exaggerates, or meets a shift, now and then, but then
    right predictions have no lower confidences than wrong ones.
    """
    claimed = confidences.double().clamp(0, 1)
    n_right, n_claimed = float(hits.sum()), float(claimed.sum())
    from_hits = abs(n_right - n_claimed)
    from_errors = abs(n_right - (len(hits) - n_claimed))
    by_chance = math.sqrt(float((claimed * (1 - claimed)).sum()))
    return from_hits > _NO_CHANCE * by_chance and from_errors < from_hits / 4


def _share_above(confidences: Tensor, hits: Tensor) -> tuple[float, float]:
    """In which share of pairs the right one is more confident, and its deviation.

    Ties count half. The deviation is that of hits in any order (Mann and Whitney).
    """
    right = hits == 1
    n_right = int(right.sum())
    n_wrong = len(hits) - n_right
    if not n_right or not n_wrong:
        return 0.5, 1.0
    ordered = confidences.double().sort().values
    own = confidences[right].double()
    below = torch.searchsorted(ordered, own)
    up_to = torch.searchsorted(ordered, own, right=True)
    ranks = (below + up_to).double() / 2
    above = (float(ranks.sum()) - n_right**2 / 2) / (n_right * n_wrong)
    deviation = math.sqrt((n_right + n_wrong + 1) / (12 * n_right * n_wrong))
    return above, deviation
