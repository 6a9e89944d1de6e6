"""Logits in blocks of a few MiB with their softmax, so that no copy of all is made.

A metric walks over ``softmax_blocks(logits)`` and takes from each block what it needs.
On a CPU a block uses numpy where that is faster; on any other device the same numbers
come from torch alone, and stay on the device.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gcelib import _check
from gcelib.widened import are_of_float32

#: Logits in a block on the CPU: 2 MiB of float32. Smaller ones are lost in overhead.
CELLS = 1 << 19
#: On an accelerator: few large steps keep it busy.
DEVICE_CELLS = 1 << 24
#: With fewer classes a CPU block is (K, rows): reductions run along long columns.
MANY_CLASSES = 32
#: How far 1 - p lies above what is meant, relative, down to the edge of 100 bins.
_OF_RESTS = 64 * torch.finfo(torch.float64).eps
#: Where one class has more, no other can have as much: rows of probabilities in 16 bits
#: may sum to 1.01.
_HALF = 0.506


def rounding(dtype: torch.dtype, *, probabilities: bool = False) -> float:
    """How far a probability may lie above a bin's edge, relative, and count as on it.

    Four units of rounding of the type in which the softmax is computed, at least
    float32; of probabilities in half precision, which were rounded once more, half a
    unit of theirs besides. In float64 so much that 1 - 0.95 is 0.05, a unit of 1 above
    it, and so is the softmax of its logarithm.
    """
    computed = torch.promote_types(dtype, torch.float32)
    tolerance = 4 * torch.finfo(computed).eps
    if computed == torch.float64:
        return _OF_RESTS
    if probabilities and dtype.itemsize < 4:
        return tolerance + torch.finfo(dtype).eps / 2
    return tolerance


def rounding_of(scores: Tensor, *, probabilities: bool = False) -> float:
    """How far a probability of these scores may lie above an edge: see ``rounding``.

    Numbers of float32 that were widened to float64, as a list or a table does, are
    still those of float32, and mean the same; also where a table has 8 to 16 of their
    digits.
    """
    dtype = scores.dtype
    has_numbers = dtype == torch.float64 and scores.device.type != "meta"
    if has_numbers and are_of_float32(scores, probabilities=probabilities):
        dtype = torch.float32
    return rounding(dtype, probabilities=probabilities)


def softmax_blocks(
    scores: Tensor, *, probabilities: bool = False, check: bool = True
) -> Iterator["Block"]:
    """Hand out the rows of ``scores`` (N, K) block by block.

    Parameters
    ----------
    scores : (N, K) floating-point tensor, N >= 1, K >= 2
        Logits; with ``probabilities=True`` their softmax. Read in at least float32.
    probabilities : bool
        Whether the scores are probabilities already.
    check : bool
        Refuse values that are not finite, or rows that are no distribution, on the CPU.
        False for a second pass over the same.
    """
    n_samples, n_classes = scores.shape
    on_cpu = scores.device.type == "cpu"
    step = max(1, (CELLS if on_cpu else DEVICE_CELLS) // n_classes)
    kind = CpuBlock if on_cpu else Block
    for start in range(0, n_samples, step):
        rows = slice(start, min(start + step, n_samples))
        part = scores[rows]
        if part.dtype.itemsize < 4:
            part = part.float()
        if probabilities:
            if check and on_cpu:
                _check.check_probabilities(scores[rows], first_row=start)
            part = part.clamp(0, 1)
        yield kind.of(rows, part, probabilities, check and not probabilities)


@dataclass(frozen=True)
class Block:
    """Some rows of logits and their softmax, on any device.

    ``class_axis`` runs over the classes: both tensors are (rows, K) if it is 1, and
    (K, rows) if it is 0. Results are tensors (rows,) on the same device.
    """

    rows: slice
    scores: Tensor
    probs: Tensor
    class_axis: int
    probabilities: bool

    @classmethod
    def of(cls, rows: slice, part: Tensor, probabilities: bool, check: bool) -> "Block":
        """Make the block of the scores ``part`` (rows, K); values are not looked at."""
        probs = part if probabilities else part.softmax(1)
        return cls(rows, part, probs, 1, probabilities)

    def pick(self, values: Tensor, labels: Tensor) -> Tensor:
        """Of ``values`` (scores or probs) the one of each row's label."""
        index = labels.unsqueeze(self.class_axis)
        return values.gather(self.class_axis, index).squeeze(self.class_axis)

    def of_class(self, k: int) -> Tensor:
        """Give the probability of class ``k`` in each row."""
        return self.probs.select(self.class_axis, k)

    @functools.cached_property
    def confidence(self) -> Tensor:
        """The largest probability of each row."""
        return self.probs.amax(self.class_axis)

    @functools.cached_property
    def _highest(self) -> Tensor:
        """The largest score of each row."""
        return self.scores.amax(self.class_axis)

    def is_right(self, labels: Tensor) -> Tensor:
        """Tell whether the label is the first class with the largest score."""
        largest = self.scores == self._highest.unsqueeze(self.class_axis)
        classes = torch.arange(self.scores.shape[self.class_axis], device=labels.device)
        before = classes < labels.unsqueeze(1)
        if self.class_axis == 0:
            before = before.T
        earlier = (largest & before).any(self.class_axis)
        return self.pick(largest, labels) & ~earlier

    def nll(self, labels: Tensor) -> Tensor:
        """Give the negative log-probability of each label, in float64."""
        if self.probabilities:
            return -_double(self.pick(self.probs, labels)).log()
        distance = _double(self._highest) - _double(self.pick(self.scores, labels))
        return distance - _double(self.confidence).log()

    def _squares(self) -> Tensor:
        """Sum the squares of each row's probabilities."""
        return (self.probs * self.probs).sum(self.class_axis)

    def brier(self, labels: Tensor) -> Tensor:
        """Give the squared distance from the one-hot label, in float64."""
        distance = 1 - 2 * _double(self.pick(self.probs, labels)) + self._squares()
        return distance.clamp_min(0)  # rounding may leave -1e-7

    def entropy(self) -> tuple[Tensor, Tensor]:
        """Give each row's entropy in nats, and its logarithm, which never saturates.

        With the distances d below the largest logit it is the sum of p d, less the
        logarithm of the confidence. That logarithm is taken of what the other classes
        hold, since 1 minus a tiny number is 1.
        """
        axis = self.class_axis
        distance = self._highest.unsqueeze(axis) - self.scores
        # Between the two largest numbers of either sign it would be infinite.
        distance.clamp_(max=torch.finfo(distance.dtype).max)
        others = self.probs * (distance > 0)
        top_surprise = self._surprise_of_top(others)
        if self.probabilities:
            n_top = (distance == 0).sum(axis)
            confidence = _double(self.confidence)
            held_by_top = confidence + confidence * (n_top - 1)
            share = _double(torch.special.entr(others).sum(axis))
            value = top_surprise * held_by_top + share
            self._mend_nearly_uniform(value, self.probs)
            return value, value.log()
        value = top_surprise + _double((others * distance).sum(axis))
        self._mend_nearly_uniform(value, distance)
        logarithm = value.log()
        self._mend_nearly_certain(value, logarithm, distance)
        return value, logarithm

    def _surprise_of_top(self, others: Tensor) -> Tensor:
        """Minus the logarithm of the confidence, from what the ``others`` hold."""
        confidence = _double(self.confidence)
        rest = _double(others.sum(self.class_axis))
        # Where classes tie, the rest is not 1 - confidence: at 0.5 and below the
        # confidence itself is exact enough. The bound keeps the unused log1p finite.
        from_rest = -torch.log1p(-rest.clamp_max(0.5))
        return torch.where(confidence > 0.5, from_rest, -confidence.log())

    def _mend_nearly_uniform(self, value: Tensor, scores: Tensor) -> None:
        """Compute the entropies of rows that are nearly uniform again, in float64.

        ``scores`` are distances below the top, or probabilities. These entropies lie
        below log K by less than float32 can tell. How far rows miss the sum 1 would
        show, so that they are divided by it.
        """
        confidence = _double(self.confidence)
        n_classes = self.scores.shape[self.class_axis]
        flat = (confidence * n_classes < 1.1).nonzero()[:, 0]
        if len(flat) == 0:
            return
        rows = _double(scores.index_select(1 - self.class_axis, flat))
        if not self.probabilities:
            rows = (-rows).exp()
        shares = rows / rows.sum(self.class_axis, keepdim=True)
        value[flat] = torch.special.entr(shares).sum(self.class_axis)

    def _mend_nearly_certain(
        self, value: Tensor, logarithm: Tensor, distance: Tensor
    ) -> None:
        """Compute the entropies that all but underflow again, by their logarithms.

        There the probability of a class at the distance d is exp(-d), and what it adds
        to the entropy (1 + d) exp(-d).
        """
        certain = (value < 1e-30).nonzero()[:, 0]
        if len(certain) == 0:
            return
        far = _double(distance.index_select(1 - self.class_axis, certain))
        terms = torch.where(far > 0, torch.log1p(far) - far, -math.inf)
        logarithm[certain] = terms.logsumexp(self.class_axis)
        value[certain] = logarithm[certain].exp()

    def class_totals(self, weights: Tensor | None) -> Tensor:
        """Sum each class's probabilities: (1, K), or (R, K) weighted (R, rows)."""
        if weights is None:
            return self.probs.sum(1 - self.class_axis)[None]
        probs = self.probs if self.class_axis else self.probs.T
        # In float64, which neither autocast nor TF32 rounds.
        return _double(weights) @ _double(probs)

    def class_cells(self, n_bins: int, scale: float, weights: Tensor | None) -> Tensor:
        """Sum probabilities in each class and bin but the first: (R, K * n_bins)."""
        probs = self.probs if self.class_axis else self.probs.T
        n_classes = probs.shape[1]
        classes = torch.arange(n_classes, device=probs.device) * n_bins
        values = _double(probs)
        bins = (values * scale).long().clamp(0, n_bins - 1)  # nan would have no bin
        index = (classes + bins).flatten()
        values = torch.where(probs > 1 / n_bins, values, 0.0)
        tables = []
        for weight in [None] if weights is None else weights:
            weighted = values if weight is None else values * weight[:, None]
            table = weighted.new_zeros(n_classes * n_bins)
            tables.append(table.index_add_(0, index, weighted.flatten()))
        return torch.stack(tables)


class CpuBlock(Block):
    """Some rows of logits on the CPU: numpy computes what it is faster at."""

    @classmethod
    def of(cls, rows: slice, part: Tensor, probabilities: bool, check: bool) -> Block:
        """Make the block of ``part`` (rows, K); ``check`` refuses nan and infinity."""
        axis = int(part.shape[1] >= MANY_CLASSES)
        if axis:
            part = part.contiguous()
        else:  # torch copies transposed memory slower
            part = torch.from_numpy(np.ascontiguousarray(part.numpy().T))
        probs = part if probabilities else part.softmax(axis)
        if check and not _surely_finite(part):
            _check.check_logits(part if axis else part.T, first_row=rows.start)
        return cls(rows, part, probs, axis, probabilities)

    def is_right(self, labels: Tensor) -> Tensor:
        """Tell whether the label is the first class with the largest score."""
        confidence = self.confidence.numpy()
        hit = self.pick(self.probs, labels).numpy() > 0.9999 * confidence
        # Only where no class has more than half can another one be as probable.
        doubtful = np.flatnonzero(hit & (confidence < _HALF))
        columns = self.scores.numpy().take(doubtful, 1 - self.class_axis)
        predictions = columns.argmax(self.class_axis)
        hit[doubtful] = predictions == labels.numpy()[doubtful]
        return torch.from_numpy(hit)

    def _squares(self) -> Tensor:
        """Sum the squares of each row's probabilities, without a copy of them."""
        probs = self.probs.numpy()
        kept = [1 - self.class_axis]
        return torch.from_numpy(np.einsum(probs, [0, 1], probs, [0, 1], kept))

    def class_totals(self, weights: Tensor | None) -> Tensor:
        """Sum each class's probabilities: (1, K), or (R, K) weighted (R, rows)."""
        if weights is None:
            return super().class_totals(None)
        probs = self.probs.numpy() if self.class_axis else self.probs.numpy().T
        return torch.from_numpy(weights.numpy().astype(probs.dtype) @ probs)

    def class_cells(self, n_bins: int, scale: float, weights: Tensor | None) -> Tensor:
        """Sum probabilities in each class and bin but the first: (R, K * n_bins)."""
        probs = self.probs.numpy()
        n_classes = probs.shape[self.class_axis]
        at = np.flatnonzero(probs > 1 / n_bins)  # all the others are in the first bin
        values = probs.reshape(-1)[at].astype(np.float64)
        outer = at // probs.shape[1]
        inner = at - outer * probs.shape[1]
        sample = outer if self.class_axis else inner
        classes = inner if self.class_axis else outer
        index = classes * n_bins + (values * scale).astype(np.intp)
        size = n_classes * n_bins
        if weights is None:
            return torch.from_numpy(np.bincount(index, values, size))[None]
        tables = np.empty((len(weights), size))
        for table, weight in zip(tables, weights.numpy(), strict=True):
            table[:] = np.bincount(index, values * weight[sample], size)
        return torch.from_numpy(tables)


def _double(values: Tensor) -> Tensor:
    """The same in float64, where the device has it (Apple's MPS does not)."""
    return values if values.device.type == "mps" else values.double()


def _surely_finite(scores: Tensor) -> bool:
    """Tell whether all are finite; also False if squares overflow: then look closer.

    One pass, the cheapest there is.
    """
    flat = scores.numpy().reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.dot(flat, flat))
