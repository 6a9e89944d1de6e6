"""What each sample says about one calibrator, and intervals of what all say."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcelib import intervals
from gcelib.bins import Floats, bin_scale

#: So many errors, seen or expected, before anything can be clear.
ERRORS_NEEDED = intervals.ERRORS_NEEDED
#: So many errors until most models that exaggerate twofold are told so, as measured:
#: benchmarks/results/advice.md.
ERRORS_TELLING = 40
#: The chance that any calibrator is called clearly better where none is.
FALSE_ALARMS = 0.025
N_BINS = 20
#: Standard errors from which on a bin's gap is no chance.
_CLEAR_OF_CHANCE = 2.5


class Part(NamedTuple):
    """Samples to judge: logits (N, K), labels (N,), on the CPU.

    ``tolerance`` is that of a bin's edge: as rounded as what the logits are made of.
    """

    logits: Tensor
    labels: Tensor
    tolerance: float


@dataclass(frozen=True)
class Judged:
    """What each sample says about one calibrator's output."""

    nll: Floats
    confidence: Floats
    correct: npt.NDArray[np.bool_]
    tolerance: float
    n_bins: int = N_BINS

    @property
    def bins(self) -> npt.NDArray[np.intp]:
        """The bin of each sample, as ``gcelib.ece`` cuts them."""
        scale = bin_scale(self.n_bins, self.tolerance)
        return (self.confidence * scale).astype(np.intp)

    @property
    def gaps(self) -> Floats:
        """Confidence minus hit, (N, bins): each sample in the column of its bin."""
        spread = np.zeros((len(self.confidence), self.n_bins))
        rows = np.arange(len(self.confidence))
        spread[rows, self.bins] = self.confidence - self.correct
        return spread


def judge(part: Part, top: int | None = None) -> Judged:
    """Per sample: negative log-likelihood, confidence, hit; ``top`` as in ``Form``."""
    logits, labels, tolerance = part
    log_p = torch.log_softmax(logits.double(), 1)
    nll = -log_p.gather(1, labels[:, None])[:, 0]
    if top is None:
        confidence = log_p.amax(1).exp()
        correct = logits.argmax(1) == labels
    else:
        confidence = log_p[:, top].exp()
        correct = labels == top
    return Judged(nll.numpy(), confidence.numpy(), correct.numpy(), tolerance)


def ece_of(judged: Judged) -> float:
    """ECE in 20 bins."""
    return float(np.abs(judged.gaps.sum(0)).sum() / len(judged.confidence))


def resampled_eces(
    judged: Mapping[str, Judged], rng: np.random.Generator, resamples: int
) -> dict[str, Floats]:
    """ECE of the samples, then of resamples, the same ones for every calibrator."""
    gaps = np.hstack([each.gaps for each in judged.values()])
    n_samples = len(gaps)
    sums = [gaps.sum(0)]
    at_once = max(1, 4_000_000 // n_samples)
    for group in intervals.resamples(rng, n_samples, resamples, at_once):
        weights = np.stack([np.bincount(drawn, minlength=n_samples) for drawn in group])
        sums.extend(weights.astype(np.float64) @ gaps)
    in_bins = np.abs(np.array(sums)).reshape(len(sums), len(judged), -1)
    eces = in_bins.sum(2) / n_samples
    return {name: eces[:, i] for i, name in enumerate(judged)}


def most_by_chance(judged: Judged) -> float:
    """What chance adds to the ECE, in expectation, at most.

    The mean size of a normal error in each bin, as if confidences were right: nothing
    less is added where they are. Where a bin's gap stands clear of its error, chance
    adds to it as often as it takes away.
    """
    gaps = judged.gaps.sum(0)
    variances = judged.confidence * (1 - judged.confidence)
    errors = np.sqrt(np.bincount(judged.bins, variances, minlength=judged.n_bins))
    may_be_chance = np.abs(gaps) <= _CLEAR_OF_CHANCE * errors
    added = math.sqrt(2 / math.pi) * errors[may_be_chance].sum()
    return float(added) / len(judged.confidence)


class Change(NamedTuple):
    """An estimated difference and the ends of its interval."""

    value: float
    low: float
    high: float


def interval_of_mean(values: Floats, tail: float) -> Change:
    """The mean and an interval that leaves ``tail`` at most on each side.

    Its ends are the outer ones of the normal interval, which is too short where values
    are skewed, and of Hall's, whose other end one or two huge values can draw past 0.
    """
    level = 1 - 2 * tail
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = NormalDist().inv_cdf((1 + level) / 2) * spread
    low, high = intervals.of_mean(values, level)
    return Change(mean, min(low, mean - half), max(high, mean + half))


def basic_interval(draws: Floats, tail: float) -> Change:
    """The first value, and the basic bootstrap interval from the others."""
    point = float(draws[0])
    low, high = np.quantile(draws[1:], (tail, 1 - tail))
    return Change(point, 2 * point - float(high), 2 * point - float(low))
