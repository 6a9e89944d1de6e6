"""What is passed as probabilities, and its logarithm."""

import torch
from torch import Tensor

from gcelib._check.messages import fail, warn

#: A larger NLL of one sample says that its label was given a probability of 0: what
#: ``logarithm`` writes for that is 87 or more, and exp(-80) is 2e-35.
IMPOSSIBLE = 80.0


def check_probabilities(p: Tensor, name: str = "logits", first_row: int = 0) -> None:
    """Refuse rows of floating-point ``p`` (N, K) that are no distribution.

    Values may miss [0, 1], and sums miss 1, by a thousandth (in 16 bits by a
    hundredth), for rounding; nan is refused.
    """
    slack = 0.001 if p.dtype.itemsize > 2 else 0.01
    low, high = torch.aminmax(p, dim=1)
    off = (p.sum(1, dtype=torch.float32) - 1).abs()
    good = (low >= -slack) & (high <= 1 + slack) & (off <= slack)
    if bool(good.all()):
        return
    at = int((~good).nonzero()[0])
    row = f"row {first_row + at}"
    if not bool(torch.isfinite(p[at]).all()):
        cure = "look at the model or file that produced it"
        fail(name, f"contains NaN or infinity, first in {row}", cure)
    if bool(low[at] < -slack) or bool(high[at] > 1 + slack):
        problem = f"hold {float(low[at]):.4g} to {float(high[at]):.4g} in {row}"
        cure = "probabilities lie in [0, 1]; percentages must be divided by 100"
        if name != "p":  # what the caller's argument holds may be logits
            cure = "probabilities lie in [0, 1]; of logits leave probabilities=True out"
        fail(name, problem, cure)
    problem = f"sum to {float(p[at].double().sum()):.4g} in {row}, not to 1"
    cure = (
        "of rounded probabilities divide each row by its sum; of one probability for"
        " each class by itself (sigmoid) there is no distribution to measure"
    )
    fail(name, problem, cure)


def logarithm(p: Tensor) -> Tensor:
    """The logarithm of probabilities, in at least float32, with a floor for zeros.

    The floor, -87.3, is one for all types, so that what was learnt from zeros in one of
    them is right in the others.

    Of half precision that of the decimals that were meant, lest two digits, or votes of
    20 trees, lie above or below the edge of a bin as they were rounded.
    """
    values = as_meant(p).to(torch.promote_types(p.dtype, torch.float32))
    at_most_1 = torch.where(values > 1, 1.0, values)  # the gradient of a 1 passes
    return at_most_1.clamp(min=torch.finfo(torch.float32).tiny).log()


def as_meant(p: Tensor) -> Tensor:
    """Probabilities as they are; of half precision, in float64, what was meant by them.

    Those are the shortest decimals that round to them, or fractions of 128.
    """
    if p.dtype.itemsize > 2:
        return p
    exact = p.double()
    return _shortest_decimals(p) + (exact - exact.detach())  # the gradient is p's


def _shortest_decimals(p: Tensor) -> Tensor:
    """Probabilities as the shortest decimals that round to them: 0.65 for 0.6499."""
    values = p.detach().cpu()
    distinct: Tensor = torch.unique(values)
    at = torch.searchsorted(distinct.float(), values.float().contiguous())
    exact = distinct.double()
    found = exact.clone()
    # The place of the first digit that is not zero; of a zero any will do.
    place = exact.clamp(min=1e-300).log10().floor()
    are_fractions = (exact * 128).frac() == 0  # votes of 64 trees, not 0.547
    for digits in (5, 4, 3, 2, 1):
        behind_the_point = digits - 1 - place
        unit = 10.0**behind_the_point
        decimal = (exact * unit).round() / unit
        is_same = (decimal.to(p.dtype) == distinct) & (exact > 0)
        is_same &= ~(are_fractions & (behind_the_point > 2))
        found = torch.where(is_same, decimal, found)
    decimals: Tensor = found[at]
    return decimals.to(p.device)


def warn_of_impossible_labels(
    logits: Tensor,
    labels: Tensor,
    name: str = "labels",
    highest: Tensor | None = None,
) -> None:
    """Warn where labels had the probability 0, or one that few types can write.

    ``highest``: the largest logit of each row, where it is known.
    """
    of_labels = logits.gather(1, labels[:, None])[:, 0]
    tops = logits.amax(1) if highest is None else highest
    distances = tops.double() - of_labels.double()
    n_impossible = int((distances > IMPOSSIBLE).sum())
    if n_impossible:
        warn(
            f"{name}: {n_impossible:,} of {len(labels):,} labels had a probability of "
            "0, or below 1e-34: an NLL, and what is fitted by it, is the price of "
            "these alone; use unrounded probabilities, or mix a little of 1/K into "
            "them first"
        )
