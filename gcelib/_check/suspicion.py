"""Probabilities, or what was made of them, where logits are expected."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gcelib._check.messages import warn

PROBABILITIES = (
    "rows are >= 0 and sum to 1, as probabilities do; pass the scores before the"
    " softmax, or logits_from_probabilities(p)"
)
_SLACK = 0.004  # how far a softmax's row may be from 1: bfloat16 has 8 bits
_LOOKED_AT = 64  # rows, spread over the set


def are_probabilities(logits: Tensor) -> bool:
    """Tell whether rows spread over the set are distributions (or rounded ones)."""
    suspicion = _kind_of_probabilities(logits)
    return suspicion is not None and suspicion.first_step == ""


class _Suspicion(NamedTuple):
    """What logits seem to be, and what to do before they are passed as probabilities.

    ``last_step`` False: what the first step leads to are logits already.
    """

    kind: str
    first_step: str
    last_step: bool = True


#: What people multiply probabilities by: the total of a row, and what it is called.
_TOTALS = {
    1: "probabilities",
    100: "percentages",
    255: "probabilities in bytes",
    256: "probabilities in bytes",
    1000: "shares of a thousand",
    10_000: "shares of ten thousand",
    65_535: "probabilities in 16 bits",
    65_536: "probabilities in 16 bits",
    1_000_000: "shares of a million",
}
_DIVIDE = "divide each row by its sum; then "
_FIRST_STEPS = {1: "", 100: "divide them by 100; then "}
_MAYBE = (
    "of logits (or similarities) this is no mistake; of probabilities, whose rows must"
    " sum to 1, "
)
_BASES = {2: "log2(p)", math.e: "log(p)", 10: "log10(p)"}
_LOGITS_ARE_LOGARITHMS = "the natural logarithm log(p), with its sign, is a logit"


def _kind_of_probabilities(logits: Tensor) -> _Suspicion | None:
    """What makes the rows that are looked at seem probabilities, None if nothing."""
    n_samples = len(logits)
    if n_samples == 0 or logits.device.type == "meta":
        return None
    first = logits[0, :32].tolist()
    if min(first) < -_SLACK and max(first) > _SLACK:  # nearly always true of logits
        return None
    looked_at = logits[:: max(1, n_samples // _LOOKED_AT)]
    low, high = (float(value) for value in torch.aminmax(looked_at))
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    rows = looked_at.cpu().double()
    coarse = torch.finfo(logits.dtype).eps  # one unit of what the numbers are kept in
    if low < -high and high <= _SLACK:
        return _kind_of_negative(rows, coarse)
    return _kind_of_positive(rows, coarse) if low >= -_SLACK else None


def _kind_of_positive(rows: Tensor, coarse: float) -> _Suspicion | None:
    """What numbers >= 0 seem to be, None if they may well be logits."""
    high = float(rows.max())
    sums = rows.sum(1)
    for total, name in _TOTALS.items():
        if _sum_to(total, rows, sums, coarse):
            kind = f"rows are >= 0 and sum to {total}, as {name} do"
            return _Suspicion(kind, _FIRST_STEPS.get(total, _DIVIDE))
    if high > 1 + _SLACK and _are_shares(rows, sums, coarse):
        kind = f"rows are >= 0 and all sum to {float(sums[0]):g}, as votes or shares do"
        return _Suspicion(kind, _DIVIDE)
    base = _base_of_logarithm(-rows)
    if base is not None:
        kind = f"rows are -{_BASES[base]} of probabilities that sum to 1"
        return _Suspicion(kind, _LOGITS_ARE_LOGARITHMS, last_step=False)
    if rows.numel() < 16 or bool((rows.frac() == 0).all() and high <= 1 + _SLACK):
        return None  # so few, or zeros and ones alone, may be anything
    if 0.5 < high <= 1 + _SLACK:  # similarities, and tiny logits, stay below
        return _Suspicion("all values lie in [0, 1], as probabilities do", _MAYBE)
    tops = float(rows.amax(1).median())
    whole = bool((rows.frac() == 0).all())
    if whole and float(rows.median()) >= 20:  # whole numbers may well be logits
        return None
    if high <= 100 + 100 * _SLACK and tops > 50:
        kind = "all values lie in [0, 100], as percentages do"
        return _Suspicion(kind, f"{_MAYBE}{_FIRST_STEPS[100]}")
    return None


def _kind_of_negative(rows: Tensor, coarse: float) -> _Suspicion | None:
    """What numbers <= 0 seem to be, None if they may well be logits, as log(p) is."""
    for total, name in _TOTALS.items():
        if _sum_to(total, -rows, -rows.sum(1), coarse):
            kind = f"rows are <= 0 and sum to -{total}, as {name} with a minus sign do"
            first_step = "change the sign; " + _FIRST_STEPS.get(total, _DIVIDE)
            return _Suspicion(kind, first_step)
    base = _base_of_logarithm(rows)
    if base is None or base == math.e:
        return None
    kind = f"rows are {_BASES[base]} of probabilities that sum to 1"
    return _Suspicion(kind, _LOGITS_ARE_LOGARITHMS, last_step=False)


def _sum_to(total: int, rows: Tensor, sums: Tensor, coarse: float) -> bool:
    """Tell whether rows >= 0 are shares of ``total``, exact, rounded or cut off.

    Rounding to a unit moves a sum of K shares by at most K/2 units, cutting the digits
    off by K. Where so much is possible, chance must be excluded: what is shared out
    varies less in sum than its parts do, and scores that know nothing of each other
    vary as much.
    """
    n_samples, n_classes = rows.shape
    off = (sums - total) / total
    worst = float(off.abs().max())
    if worst > 0.6 or float(rows.max()) > total * (1 + _SLACK):
        return False
    if total == 1 and bool((rows.frac() == 0).all()):  # one-hot
        return n_samples >= 4 and worst == 0
    if total > 1 and _written_by_hand(rows, alike=total != 100):
        return False
    exact = max(1e-6, coarse if coarse > 1e-6 else 0)
    if n_samples == 1 and total == 1:
        return worst <= exact
    unit = _unit(rows, total) / total
    # How widely sums of numbers that know nothing of each other would scatter.
    scatter = float(rows.var()) ** 0.5 * n_classes**0.5 / total
    if _are_nearer_than_chance(worst, exact, unit, scatter, n_samples):
        return True
    apart = float(rows.var(0).sum()) if n_samples > 1 else 0.0
    if apart == 0:  # all rows are alike
        return worst <= exact and (n_samples > 1 or scatter == 0)
    lowest = -min(n_classes * unit, 0.6)
    highest = min(0.5 * n_classes * unit, 0.5)
    if n_samples < 4 or not bool(((off >= lowest) & (off <= highest)).all()):
        return False
    return float(sums.var()) < (0.25 if n_samples >= 16 else 0.05) * apart


def _are_nearer_than_chance(
    worst: float, exact: float, unit: float, scatter: float, n_samples: int
) -> bool:
    """Tell whether all sums lie so near to their total that it can be no accident.

    All numbers are relative to the total: ``worst`` is the largest distance, ``unit``
    what the parts are rounded to.
    """
    slacks = (exact, _SLACK) if n_samples > 1 else (exact,)
    convincing = 0.03 if n_samples == 1 else 0.001 ** (1 / n_samples)
    for slack in slacks:
        by_chance = (2 * slack + unit) / (2.5 * scatter + 1e-9)
        if worst <= slack and by_chance < convincing:
            return True
    return False


def _written_by_hand(rows: Tensor, alike: bool = True) -> bool:
    """Tell whether each row has one number beside zeros, or all rows the same ones."""
    if not bool(((rows > 0).sum(1) > 1).any()):
        return True
    ordered = rows.sort(1).values
    return alike and len(rows) > 1 and bool((ordered == ordered[0]).all())


def _are_shares(rows: Tensor, sums: Tensor, coarse: float) -> bool:
    """Tell whether rows have one total, and are not all of one pattern.

    Such are the votes of trees or neighbours.
    """
    if len(rows) < 4:
        return False
    # Measured by what is shared out: a large number added to logits is no total.
    lowest, highest = rows.aminmax(dim=1)
    apart = float((sums - sums[0]).abs().max())
    total = float(sums[0])
    if total > 0:  # sums in half precision, or widened since, scatter by its rounding
        scatter = float(rows.std()) * rows.shape[1] ** 0.5 / total
        near = _are_nearer_than_chance(
            apart / total, 4 * coarse, 0.0, scatter, len(rows)
        )
        if near:
            return not _written_by_hand(rows)
    rounding = min(coarse, 1e-6) * float(sums[0])
    if apart > 1e-6 * float((highest - lowest).median()) + rounding:
        return False
    return not _written_by_hand(rows)


def _base_of_logarithm(rows: Tensor) -> float | None:
    """The base in which rows <= 0 are logarithms of distributions, if there is one."""
    informative = int((rows.amax(1) < -0.02).sum())  # [0, -9] is log(p), and a logit
    if not informative:
        return None
    off = {
        base: float(((rows * math.log(base)).exp().sum(1) - 1).abs().max())
        / math.log(base)
        for base in (math.e, 2, 10)
    }
    base = min(off, key=lambda base: off[base])
    if off[base] > 0.1 or bool((rows.frac() == 0).all()):
        return None
    if informative < 4:
        return base if off[base] <= 1e-5 else None
    if off[base] <= _SLACK:
        return base
    return base if off[base] <= 0.5 * _unit(rows, 1) else None


def _unit(rows: Tensor, total: int) -> float:
    """One unit of the last decimal digit that the numbers have; 0 if they are exact."""
    for digits in range(-1, 7):
        scaled = rows * 10.0**digits
        near = min(2e-7 * total * 10.0**digits + 1e-9, 0.01)  # float32 has 7 digits
        if bool(((scaled - scaled.round()).abs() <= near).all()):
            return 10.0**-digits
    return 0.0


def warn_of_probabilities(
    logits: Tensor,
    name: str = "logits",
    cure: str = "pass probabilities=True, or logits_from_probabilities(p)",
) -> None:
    """Warn if ``logits`` (N, K) look like probabilities, which came in by mistake.

    Looks at 64 to 127 rows spread evenly over the set, for rows that sum to 1 (also
    rounded to any number of digits, also one-hot), to 100, 255, 1,000 or another
    total, also with a minus sign; for -log(p) and logarithms to other bases; and for
    values that all lie in [0, 1] or fill [0, 100]. Cost: one row, 5 microseconds,
    where it holds numbers of both signs, as logits of a network do; else those rows,
    0.1 to 1 ms. On an accelerator it reads the same rows, and waits for them.
    """
    suspicion = _kind_of_probabilities(logits)
    if suspicion is not None:
        last_step = cure if suspicion.last_step else ""
        warn(f"{name}: {suspicion.kind}; {suspicion.first_step}{last_step}")
