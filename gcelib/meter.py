"""The numbers of ``evaluate``, added up batch by batch."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed

from gcelib import _check
from gcelib._check import Array
from gcelib.bins import Reliability, bin_scale, check_n_bins
from gcelib.blocks import Block, rounding_of, softmax_blocks

#: Logits of small batches that are kept until there are so many: 256 KiB of float32.
_KEPT = 1 << 16
#: On an accelerator 16 MiB: there a step takes as long for many as for few.
_KEPT_ON_DEVICE = 1 << 22


class _Kind(NamedTuple):
    """What batches must have in common to be added up together."""

    device: torch.device
    dtype: torch.dtype
    probabilities: bool


class CalibrationMeter:
    """Measure calibration while batches pass, without keeping their logits.

    Holds 3 + 3 B + K B sums on the device of the first batch, B bins and K classes;
    the last small batches, at most 65,536 logits, wait to be added up together, which
    costs less. ``compute`` gives what ``gcelib.evaluate`` gives on all samples at once,
    up to the rounding of sums. Meters can be pickled and copied.

    Parameters
    ----------
    n_classes : int
        K, at least 2.
    n_bins : int, default 20
        B bins of equal width, 1 to 10,000.

    Examples
    --------
    >>> meter = CalibrationMeter(n_classes=2)
    >>> for logits, labels in [([[2.0, 0.0]], [0]), ([[0.0, 2.0]], [0])]:
    ...     meter.update(logits, labels)
    >>> meter.compute()["error"]
    0.5
    """

    def __init__(self, n_classes: int, n_bins: int = 20) -> None:
        self.n_classes = _check.number("n_classes", n_classes, 2, integer=True)
        self.n_bins = check_n_bins(n_bins)
        self._sums: Tensor | None = None
        self._synced = False
        # Small batches that wait, all of one kind.
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._waiting_kind: _Kind | None = None

    def __repr__(self) -> str:
        return f"CalibrationMeter(n_classes={self.n_classes}, n_bins={self.n_bins})"

    def reset(self) -> None:
        """Forget all samples.

        Examples
        --------
        >>> CalibrationMeter(n_classes=2).reset()
        """
        self._sums = None
        self._synced = False
        self._waiting = []
        self._waiting_kind = None

    def __getstate__(self) -> dict[str, object]:
        """Give the state to pickle and copy: sums alone."""
        self._add_waiting()
        # A list of its own: the copy would wait for this meter's batches, too.
        return {**self.__dict__, "_waiting": [], "_waiting_kind": None}

    def _refuse_after_sync(self) -> None:
        """Refuse to add to sums of all processes, which would count them twice."""
        if self._synced:
            cure = "call reset() and begin again"
            _check.fail("meter", "holds the samples of all processes", cure)

    def _parts(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Show the vector of sums as totals (3,), bins (3, B) and gaps (K, B).

        Totals: samples, NLL, Brier scores. Bins: samples, confidences, hits. Gaps: for
        each class and bin the probabilities less the number of labels.
        """
        end = 3 + 3 * self.n_bins
        bins = sums[3:end].view(3, self.n_bins)
        return sums[:3], bins, sums[end:].view(self.n_classes, self.n_bins)

    def _zeros(self, device: torch.device) -> Tensor:
        """Make an empty vector of sums."""
        size = 3 + (3 + self.n_classes) * self.n_bins
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return torch.zeros(size, dtype=dtype, device=device)

    def _accept(self, new: Tensor) -> None:
        """Add a vector of sums to those so far."""
        if self._sums is None:
            self._sums = new
        else:
            self._sums = self._sums + new.to(self._sums.device, self._sums.dtype)

    @torch.no_grad()
    def update(
        self, logits: Array, labels: Array, *, probabilities: bool = False
    ) -> None:
        """Add a batch.

        Parameters
        ----------
        logits : (N, K) tensor or array
            Scores before the softmax; N may differ from batch to batch, and be 0.
        labels : (N,) tensor or array of integers
            Class ids in [0, K), on the same device.
        probabilities : bool, default False
            True: ``logits`` holds probabilities.

        Raises
        ------
        ValueError, TypeError
            If an argument is malformed; the meter is then as it was. On an accelerator
            values are not looked at: ``compute`` refuses what was not finite.

        Examples
        --------
        >>> CalibrationMeter(n_classes=2).update([[2.0, 0.0]], [0])
        """
        self._refuse_after_sync()
        probabilities = _check.boolean("probabilities", probabilities)
        scores, classes = _check.logits_and_labels(
            logits, labels, min_samples=0, values=False
        )
        if scores.shape[1] != self.n_classes:
            problem = f"have {scores.shape[1]} classes, the meter {self.n_classes}"
            _check.fail("logits", problem, "make a meter with this n_classes")
        if len(scores) == 0:
            return
        if scores.device.type == "cpu":  # to look elsewhere would stall every step
            if probabilities:
                _check.check_probabilities(scores)
            elif not _check.all_finite(scores):
                _check.refuse_not_finite(scores)
            else:
                _check.warn_of_probabilities(scores)
            _check.check_range(classes, self.n_classes)
        most = _KEPT if scores.device.type == "cpu" else _KEPT_ON_DEVICE
        if scores.numel() > most:
            self._add_up(scores, classes, probabilities)
            return
        kind = _Kind(scores.device, scores.dtype, probabilities)
        if kind != self._waiting_kind:
            self._add_waiting()
            self._waiting_kind = kind
        # Copies: the caller may write the next batch into the same memory.
        self._waiting.append((scores.clone(), classes.clone()))
        if sum(kept.numel() for kept, _ in self._waiting) > most:
            self._add_waiting()

    @torch.no_grad()
    def _add_waiting(self) -> None:
        """Add up the small batches that wait."""
        if not self._waiting or self._waiting_kind is None:
            return
        scores, classes = zip(*self._waiting, strict=True)
        probabilities = self._waiting_kind.probabilities
        with torch.autocast(scores[0].device.type, enabled=False):
            self._add_up(torch.cat(scores), torch.cat(classes), probabilities)
        self._waiting = []  # whatever failed before, they still wait

    def _add_up(self, scores: Tensor, classes: Tensor, probabilities: bool) -> None:
        """Add checked samples to the sums."""
        tolerance = rounding_of(scores, probabilities=probabilities)
        scale = bin_scale(self.n_bins, tolerance)
        new = self._zeros(scores.device)
        blocks = softmax_blocks(scores, probabilities=probabilities, check=False)
        for block in blocks:
            self._add(new, block, classes[block.rows], scale)
        self._accept(new)

    def _add(self, sums: Tensor, block: Block, labels: Tensor, scale: float) -> None:
        """Add the samples of a block to the vector ``sums``."""
        totals, bins, gaps = self._parts(sums)
        confidence = block.confidence.to(sums.dtype)
        hits = block.is_right(labels).to(sums.dtype)
        ones = torch.ones_like(hits)
        totals += torch.stack(
            [ones.sum(), block.nll(labels).sum(), block.brier(labels).sum()]
        )
        last = self.n_bins - 1
        # Clamped for nan, which an accelerator lets in and ``_checked_sums`` refuses.
        in_bin = (confidence * scale).long().clamp(0, last)
        bins.index_add_(1, in_bin, torch.stack([ones, confidence, hits]))
        cells = block.class_cells(self.n_bins, scale, None).view_as(gaps)
        gaps += cells
        gaps[:, 0] += block.class_totals(None)[0] - cells.sum(1)
        own = block.pick(block.probs, labels).to(sums.dtype)
        own_bins = (own * scale).long().clamp(0, last)
        gaps.index_put_((labels, own_bins), -ones, accumulate=True)

    def _checked_sums(self) -> Tensor:
        """Give the sums on the CPU, refused where they mean nothing."""
        self._add_waiting()
        if self._sums is None:
            _check.fail("meter", "has seen no samples", "call update(logits, labels)")
        sums = self._sums.cpu().double()
        totals, bins, gaps = self._parts(sums)
        nll = float(totals[1])  # infinite where a label has the probability 0
        finite = math.isfinite(totals[2]) and not math.isnan(nll)
        if not finite or not _check.all_finite(bins) or not _check.all_finite(gaps):
            cure = "look at the model that produced them"
            _check.fail("meter", "some logits were NaN or infinite", cure)
        return sums

    def compute(self) -> dict[str, float]:
        """Give the metrics of all samples so far.

        Returns
        -------
        dict of str to float
            error, nll, brier, ece, classwise_ece, as ``gcelib.evaluate`` has them. The
            NLL is infinite, with a warning, if a label had the probability 0.

        Raises
        ------
        ValueError
            If there was no sample, or if scores on an accelerator were not finite.

        Examples
        --------
        >>> meter = CalibrationMeter(n_classes=2)
        >>> meter.update([[0.0, 0.0]], [1])
        >>> meter.compute()["brier"]
        0.5
        """
        totals, bins, gaps = self._parts(self._checked_sums())
        n_samples, nll, brier = totals.tolist()
        if math.isinf(nll):
            _check.warn(
                "meter: some labels have the probability 0, so the NLL is infinite;"
                " logits_from_probabilities(p) puts a floor under it"
            )
        _, confidences, hits = bins
        return {
            "error": 1 - float(hits.sum()) / n_samples,
            "nll": nll / n_samples,
            "brier": brier / n_samples,
            "ece": float((confidences - hits).abs().sum()) / n_samples,
            "classwise_ece": float(gaps.abs().sum()) / (n_samples * self.n_classes),
        }

    def reliability(self) -> Reliability:
        """Give the bins of a reliability diagram, of equal width.

        Returns
        -------
        Reliability
            As ``gcelib.reliability`` gives for all samples at once.

        Raises
        ------
        ValueError
            As for ``compute``.

        Examples
        --------
        >>> meter = CalibrationMeter(n_classes=2, n_bins=4)
        >>> meter.update([[2.0, 0.0], [0.0, 1.0]], [0, 0])
        >>> meter.reliability().counts.tolist()
        [0, 0, 1, 1]
        """
        _, bins, _ = self._parts(self._checked_sums())
        counts, confidences, hits = bins.numpy()
        with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin is nan
            return Reliability(
                edges=np.linspace(0, 1, self.n_bins + 1),
                counts=counts.round().astype(np.int64),
                confidence=confidences / counts,
                accuracy=hits / counts,
            )

    def merge(self, other: "CalibrationMeter") -> None:
        """Add the samples of another meter, which stays as it is.

        Parameters
        ----------
        other : CalibrationMeter
            With the same ``n_classes`` and ``n_bins``, on any device.

        Raises
        ------
        ValueError, TypeError
            If it is no such meter, or this one, or if one of the two holds the samples
            of all processes and the other those of one.

        Examples
        --------
        >>> left, right = CalibrationMeter(2), CalibrationMeter(2)
        >>> left.update([[2.0, 0.0]], [0])
        >>> right.update([[2.0, 0.0]], [1])
        >>> left.merge(right)
        >>> left.compute()["error"]
        0.5
        """
        if not isinstance(other, CalibrationMeter):
            problem = f"got {type(other).__name__}"
            _check.fail("other", problem, "pass a CalibrationMeter", TypeError)
        if other is self:
            cure = "pass another meter"
            _check.fail("other", "is this meter: its samples would count twice", cure)
        if (other.n_classes, other.n_bins) != (self.n_classes, self.n_bins):
            problem = f"is {other!r}, this one {self!r}"
            _check.fail("other", problem, "merge meters of one kind")
        other._add_waiting()
        self._add_waiting()
        if other._sums is None:
            return
        if self._sums is None:
            self._synced = other._synced
        elif self._synced != other._synced:
            problem = "does not hold the samples of the same processes as this meter"
            _check.fail("other", problem, "merge first, then call sync() once")
        self._accept(other._sums.clone())

    def sync(self, process_group: distributed.ProcessGroup | None = None) -> None:
        """Add up the samples of all processes: afterwards every one holds them all.

        Every process of the group must call it, also one that saw no sample. Then
        ``compute`` and ``reliability``; ``reset`` before the next epoch.

        Parameters
        ----------
        process_group : torch.distributed.ProcessGroup, optional
            None: all processes.

        Raises
        ------
        RuntimeError
            If ``torch.distributed`` is not initialised.
        ValueError
            If the meter holds the samples of all processes already.

        Examples
        --------
        >>> meter = CalibrationMeter(n_classes=2)
        >>> meter.sync()
        Traceback (most recent call last):
            ...
        RuntimeError: process_group: torch.distributed is not initialised; ...
        """
        self._refuse_after_sync()
        if not (distributed.is_available() and distributed.is_initialized()):
            problem = "torch.distributed is not initialised"
            cure = "call init_process_group, or leave sync out in a single process"
            _check.fail("process_group", problem, cure, RuntimeError)
        self._add_waiting()
        sums = self._sums
        if sums is None:
            on_cuda = "nccl" in str(distributed.get_backend(process_group))
            sums = self._zeros(torch.device("cuda" if on_cuda else "cpu"))
        sums = sums.clone()
        distributed.all_reduce(sums, group=process_group)
        self._sums = sums
        self._synced = True
