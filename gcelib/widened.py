"""Whether numbers in float64 were numbers of float32, which they then still mean.

0.35 of float32 is 0.3499999940395355, below the edge of a bin, and 0.85 is
0.8500000238418579, above one. A list or an array widens such numbers, and a table has
them in as many digits as its writer chose: R and Excel in 15, others in 8 or 10.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

#: Numbers that are looked at first, and if these do not tell.
_LOOKED_AT = (1 << 12, 1 << 15)
#: Numbers that are compared at a time where all are.
_AT_A_TIME = 1 << 19
#: So many numbers, of those that can tell, are still of float32 where all were: the
#: others were put there later.
_NEARLY_ALL = 0.9
#: So much more probable than chance what is seen has to be.
_SURE = math.log(100)
#: How probable a number that is none is among those of float32.
_STRAY = 0.05
#: What lies so near to 0 or 1 was often put there by a limit.
_ENDS = 1e-6
#: Digits with which a number of float32 differs from its neighbours at the earliest,
#: and with which a decimal in float64 is certainly one.
_FEWEST, _MOST = 8, 15
#: Decimals of votes and of what people say; hardly any number lies beside one of them.
_FEW = 4
#: Digits that chance gives so often say nothing.
_TOO_OFTEN = 0.75
#: The powers of ten that float64 holds exactly.
_POWERS = np.array([float(f"1e{k}") for k in range(23)])
_EPS = float(np.finfo(np.float64).eps)


def are_of_float32(numbers: Tensor, *, probabilities: bool) -> bool:
    """Whether numbers in float64 were widened, or written, from float32.

    Nearly all of them are those of float32 in the digits that they have, and that is
    no chance: random numbers of 8 digits are so each third to sixth time.

    Parameters
    ----------
    numbers : (N, ...) float64 tensor
    probabilities : bool
        Whether their rests to 1 count, too, as of [1 - p, p].

    Returns
    -------
    bool

    Examples
    --------
    >>> said = torch.tensor([0.55, 0.65, 0.85, 0.95])
    >>> are_of_float32(said.double(), probabilities=True)
    True
    >>> written = [float(f"{p:.10f}") for p in said.tolist()]  # 0.5500000119, ...
    >>> are_of_float32(torch.tensor(written).double(), probabilities=True)
    True
    >>> short = torch.tensor([0.55, 0.65, 0.85, 0.95], dtype=torch.float64)
    >>> are_of_float32(short, probabilities=True)
    False
    """
    if numbers.numel() == 0:
        return False
    per_row = numbers[:1].numel()
    for cells in _LOOKED_AT:
        step = max(1, len(numbers) * per_row // max(cells, _FEWEST * per_row))
        seen = numbers[::step].detach().cpu().numpy().ravel()
        told = _Digits.of(seen, probabilities).verdict()
        if told is not None:
            return told
        if step == 1:
            break
    # Short numbers say nothing by their digits: 0.5 and 0.25 are of every type.
    if not _exactly(torch.from_numpy(seen), probabilities):
        return False
    at_a_time = max(1, _AT_A_TIME // per_row)
    parts = (numbers[at : at + at_a_time] for at in range(0, len(numbers), at_a_time))
    return all(_exactly(part.detach(), probabilities) for part in parts)


def _exactly(numbers: Tensor, probabilities: bool) -> bool:
    """Whether each number is one of float32 in all its bits, or the rest of one."""
    are_known = numbers.float().double() == numbers
    if probabilities:
        rest = 1 - numbers
        are_known |= rest.float().double() == rest
    return bool(are_known.all())


@dataclass(frozen=True)
class _Digits:
    """What the digits of numbers say, of those that have enough.

    ``hit`` says which are numbers of float32 in these digits, ``chance`` how often a
    random number of as many digits is.
    """

    numbers: Floats
    hit: Booleans
    chance: Floats

    @classmethod
    def of(cls, numbers: Floats, probabilities: bool) -> "_Digits":
        """Look at numbers (N,)."""
        size = np.abs(numbers)
        highest = 1 - _ENDS if probabilities else float(np.finfo(np.float32).max)
        size = size[(size > _ENDS) & (size < highest)]
        noise = _EPS / 2 if probabilities else 0.0  # 1 - p rounds by so much
        unit = _last_digit(size, noise)
        hit, chance = _compare(size, unit, noise)
        if probabilities:
            rest_hit, rest_chance = _compare(1 - size, unit, noise)
            rest_tells = rest_chance <= _TOO_OFTEN
            hit |= rest_hit & rest_tells
            chance += np.where(rest_tells, rest_chance, 0)
        tells = chance <= _TOO_OFTEN
        return cls(size[tells], hit[tells], chance[tells])

    def verdict(self) -> bool | None:
        """Whether they are of float32; None if they are too few to tell.

        Equal numbers are one piece of evidence.
        """
        _, first = np.unique(self.numbers, return_index=True)
        hit, chance = self.hit[first], self.chance[first]
        for_it = np.log((1 - _STRAY) / chance[hit]).sum()
        against_it = np.log((1 - chance[~hit]) / _STRAY).sum()
        if abs(for_it - against_it) < _SURE:
            return None
        return bool(for_it > against_it and self.hit.mean() >= _NEARLY_ALL)


def _last_digit(size: Floats, noise: float) -> Floats:
    """The unit of the last digit that positive numbers were written with.

    They may lie ``noise`` beside what was written. Of numbers with more digits than
    decimals keep in float64, it is what that rounds by; of short numbers so large that
    they say nothing.
    """
    exponent = np.floor(np.log10(size)).astype(int)
    unit = 2 * _EPS * size
    left = np.arange(len(size))
    is_short = _decimals(size, exponent, _FEWEST - 1, noise)[0]
    unit[is_short] = math.inf
    left = left[~is_short]
    for digits in range(_MOST, _FEWEST - 1, -1):
        is_one, units = _decimals(size[left], exponent[left], digits, noise)
        left = left[is_one]
        unit[left] = units[is_one]
    return unit


def _decimals(
    size: Floats, exponent: Integers, digits: int, noise: float
) -> tuple[Booleans, Floats]:
    """Which numbers have at most so many digits, and the unit of the last of these."""
    power = _POWERS[np.clip(digits - 1 - exponent, 0, len(_POWERS) - 1)]
    return np.abs(np.rint(size * power) / power - size) <= noise, 1 / power


def _compare(size: Floats, unit: Floats, noise: float) -> tuple[Booleans, Floats]:
    """Which numbers float32 has, but for dropped digits, and how often chance has."""
    nearest = size.astype(np.float32)
    between = np.spacing(nearest).astype(float)
    slack = unit / 2 * (1 + 1e-6) + 4 * _EPS * size + noise
    hit = np.abs(size - nearest.astype(float)) <= slack
    chance = np.minimum(2 * slack / between, 1)
    short = np.round(size, _FEW)  # 0.85 of 0.85000002
    is_of_short = hit & (short.astype(np.float32) == nearest)
    rarely = np.minimum(chance, unit * 10**_FEW)
    return hit, np.where(is_of_short, rarely, chance)
