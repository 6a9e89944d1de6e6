"""What confidences, and whether their predictions were right, say of each other."""

import math

import torch
from torch import Tensor

from gcelib._check.messages import warn

#: So many confidences below 0.5 tell whether they are those of the prediction.
_MANY_BELOW_HALF = 50
#: So many standard deviations that right predictions stand lower are no chance.
_NO_CHANCE = 5


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
    if above < 0.5 - _NO_CHANCE * doubt:
        warn(
            f"{names[1]}: right predictions have lower confidences than wrong ones (a "
            f"higher one in {above:.0%} of pairs); look whether it is 1 where the "
            "prediction is wrong, or belongs to other samples"
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
