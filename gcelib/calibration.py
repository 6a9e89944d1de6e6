"""Post-hoc calibrators: fitted on validation logits, they turn logits into calibrated logits.

Each is an ``nn.Module``: ``fit(logits, labels)`` returns it, and ``calibrator(logits)`` gives calibrated logits
(log-probabilities where no logits exist), so ``nn.Sequential(model, calibrator)`` deploys, ``state_dict`` saves and
``torch.export`` works. Fitting runs on the CPU, in float64 unless said, and leaves the calibrator on the logits'
device; its buffers are float64, which Apple's MPS lacks: calibrate on the CPU there. Only temperature scaling and ATS
guarantee that no prediction changes.
"""

import functools
import inspect
import itertools
import math
import warnings

import numpy as np
import torch
from torch import nn

from gcelib import _check

_NUDGE = 1 - 1e-12  # as in metrics: bins are (lo, hi], whatever rounding does at an edge
_TIE = 1e-12  # calibration errors closer than this are equal, so that rounding does not choose between candidates


class _Calibrator(nn.Module):
    """Checks and state shared by all calibrators; children write ``_fit`` (a dict of buffers) and ``_calibrate``."""

    _resizable: tuple[str, ...] = ()  # buffers whose length depends on the data

    def __init__(self, **buffers):
        super().__init__()
        self._n_classes = 0  # the buffer's value, known without stalling an accelerator or breaking an export
        self.register_buffer("n_classes", torch.tensor(0))
        for name, value in buffers.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float64))

    @property
    def fitted(self):
        """True after ``fit``, or after loading the state of a fitted calibrator."""
        return self._n_classes > 0

    @torch.no_grad()
    def fit(self, logits, labels):
        """Fit on held-out logits (N, K) and labels (N,), tensors or numpy arrays of any float dtype; returns self."""
        logits, labels = _check.as_tensor("logits", logits), _check.as_tensor("labels", labels)
        device = logits.device
        logits, labels = _check.logits_and_labels(logits.cpu(), labels.cpu())
        _check.warn_of_probabilities(logits)
        for name, value in self._fit(logits, labels).items():
            setattr(self, name, torch.as_tensor(value, dtype=torch.float64).to(device))
        self._n_classes = logits.shape[1]
        self.n_classes = torch.tensor(self._n_classes, device=device)
        return self

    def forward(self, logits):
        """Calibrated logits (N, K), differentiable, in the dtype of ``logits`` but at least float32."""
        if not torch.compiler.is_compiling():
            detached = _check.as_tensor("logits", logits)
            _check.check_logits(detached, min_samples=0)
            logits = logits if isinstance(logits, torch.Tensor) else detached
        if not self.fitted:
            _check.fail("calibrator", "is not fitted", "call fit(logits, labels) or load_state_dict first")
        if logits.shape[1] != self._n_classes:
            problem = f"have {logits.shape[1]} classes, the calibrator was fitted on {self._n_classes}"
            _check.fail("logits", problem, "fit a calibrator on logits of this model")
        return self._calibrate(logits.to(torch.promote_types(logits.dtype, torch.float32)))

    def extra_repr(self):
        names = [name for name in inspect.signature(type(self)).parameters if hasattr(self, name)]
        return ", ".join([*(f"{name}={getattr(self, name)!r}" for name in names), f"fitted={self.fitted}"])

    def _apply(self, fn, recurse=True):
        # half() and its like are meant for weights; thresholds close to 1 would collapse. Only the device may change.
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        for name in self._resizable:
            if prefix + name in state_dict:
                setattr(self, name, getattr(self, name).new_empty(state_dict[prefix + name].shape))
        problems = len(missing) + len(errors)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        if len(missing) + len(errors) > problems:  # half a state is none
            self.n_classes = torch.zeros_like(self.n_classes)
        self._n_classes = int(self.n_classes)


def _confidence(logits):
    """Top-1 probability (N,), added up in float64 so that 1 - confidence keeps its digits in float32 logits too."""
    return 1 / (logits - logits.amax(1, keepdim=True)).exp().sum(1, dtype=torch.float64)


def _distances(logits):
    """How far each logit lies below its row's largest, (N, K): a softmax of these cannot overflow."""
    return logits.amax(1, keepdim=True) - logits


def _sums(distances, xs):
    """Softmax denominators (len(xs), N) at 1 / T = x for each of ``xs``; their inverses are the confidences."""
    out, step = np.empty((len(xs), len(distances))), max(1, (1 << 16) // max(1, distances.numel()))
    scratch = distances.new_empty(min(step, len(xs)), *distances.shape)  # used again: fresh memory is slow
    for i in range(0, len(xs), step):
        x = torch.from_numpy(xs[i : i + step])[:, None, None]
        out[i : i + step] = torch.mul(distances, -x, out=scratch[: len(x)]).exp_().sum(2)
    return out


def _ece(confidence, excess, n_bins):
    index = (confidence * (n_bins * _NUDGE)).astype(np.intp)
    return np.abs(np.bincount(index, excess)).sum() / len(index)


class TemperatureScaling(_Calibrator):
    """One temperature for all: z / T (Guo et al. 2017). After ``fit``: ``temperature``.

    criterion: ``"nll"`` minimises the negative log-likelihood, which is convex in 1/T, to convergence in the dtype of
    the logits, within [1e-4, 1e4] (a set that is all right has no minimum: T stays 1, with a UserWarning). ``"ece"`` is
    the search behind the paper's "naive temperature scaling" (torrvision/focal_calibration, temperature_scaling.py):
    the first of T = 0.1, 0.2, ..., 10.0 with the smallest ECE in 15 bins, although reports use 20.
    """

    def __init__(self, criterion="nll"):
        super().__init__(temperature=1.0)
        self.criterion = _check.choice("criterion", criterion, ("nll", "ece"))

    def _fit(self, logits, labels):
        if self.criterion == "nll":
            temperature = _minimise_nll(logits, labels)
            if temperature == 1e-4:
                what, temperature = "all samples are classified right, so no temperature is the best", 1.0
                warnings.warn(f"{what} and it stays 1; fit on held-out samples", UserWarning, stacklevel=4)
            return {"temperature": temperature}
        distances, correct = _distances(logits.double()), (logits.argmax(1) == labels).double().numpy()
        grid = np.cumsum(np.full(100, 0.1))  # added up as published: 2.5 is 2.500000000000001
        errors = np.array([_ece(confidence, confidence - correct, 15) for confidence in 1 / _sums(distances, 1 / grid)])
        return {"temperature": grid[np.argmax(errors <= errors.min() + _TIE)]}

    def _calibrate(self, logits):
        return logits / self.temperature.to(logits.dtype)


def _minimise_nll(logits, labels):
    """Newton's method in log x, x = 1/T. The NLL's slope is the labels' mean distance minus its expectation under x."""
    logits, rows = logits.to(torch.promote_types(logits.dtype, torch.float32)), max(1, (1 << 17) // logits.shape[1])
    blocks = [_distances(z) for z in logits.split(rows)]  # each stays in a core's cache
    target = sum(float(d.gather(1, y[:, None]).double().sum()) for d, y in zip(blocks, labels.split(rows), strict=True))
    low, high, scratch = 1e-4, 1e4, torch.empty_like(blocks[0])  # fresh memory for every block would be slow
    if target == 0:
        return low
    x = 1 / _minimise_nll(logits[::16], labels[::16]) if len(labels) > 1000 else 1.0  # a cheap start
    for _ in range(100):
        slope, curvature = target, 0.0
        for distances in blocks:
            weights = torch.mul(distances, -x, out=scratch[: len(distances)]).exp_()
            mass = weights.sum(1)
            mean = weights.mul_(distances).sum(1) / mass
            square = weights.mul_(distances).sum(1) / mass
            slope, curvature = slope - float(mean.double().sum()), curvature + float((square - mean * mean).sum())
        low, high = (x, high) if slope < 0 else (low, x)
        step = x * math.exp(min(max(-slope / (curvature * x + 1e-300), -50), 50))
        x, last = step if low < step < high else math.sqrt(low * high), x
        if abs(x - last) < 1e-5 * x:  # Newton's error after such a step is about its square
            break
    return 1 / x


class EnsembleTemperatureScaling(_Calibrator):
    """w0 softmax(z / T) + w1 softmax(z) + w2 / K (Zhang et al. 2020, Mix-n-Match, util_calibration.py), as log-probs.

    ``temperature`` in [0.05, 5] minimises the mean squared error of softmax(z / T), then ``weights`` (3,) on the
    simplex that of the mixture: the published objectives (its ``loss`` argument has no effect). Both minima are global:
    T by a grid and golden sections, the weights by solving for every set of non-zero ones; the published local search
    can stay at T = 1 where logits are saturated. Predictions change only where rounding makes probabilities equal.
    """

    def __init__(self):
        super().__init__(temperature=1.0, weights=(0.0, 1.0, 0.0))

    def _fit(self, logits, labels):
        distances, labels = _distances(logits.double()), labels[:, None]

        def error(log_t):
            p = torch.softmax(distances * -math.exp(-log_t), 1)
            return float((p * p).sum() - 2 * p.gather(1, labels).sum())

        grid = np.linspace(math.log(0.05), math.log(5), 25)
        best = int(np.argmin([error(t) for t in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 24)]
        while high - low > 1e-8:
            left, right = high - 0.618 * (high - low), low + 0.618 * (high - low)
            low, high = (low, right) if error(left) <= error(right) else (left, high)
        temperature = math.exp((low + high) / 2) if error((low + high) / 2) < error(0) else 1.0
        parts = [torch.softmax(-distances / t, 1) for t in (temperature, 1, math.inf)]
        gram = np.array([[float((p * q).mean()) for p in parts] for q in parts])
        linear = np.array([float(p.gather(1, labels).sum()) for p in parts]) / logits.numel()
        candidates = []
        for used in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
            weights, ones = np.zeros(3), np.ones((len(used), 1))
            system = np.block([[gram[np.ix_(used, used)], ones], [ones.T, 0]])  # Lagrange's condition for sum 1
            weights[used] = np.linalg.lstsq(system, np.append(linear[used], 1), rcond=None)[0][:-1]
            if weights.min() >= 0:
                candidates.append((weights @ gram @ weights - 2 * weights @ linear, tuple(weights / weights.sum())))
        return {"temperature": temperature, "weights": min(candidates)[1]}

    def _calibrate(self, logits):
        tempered, raw = (torch.log_softmax(logits / t, 1) for t in (self.temperature.to(logits.dtype), 1))
        parts = torch.stack([tempered, raw, torch.full_like(raw, -math.log(self._n_classes))], -1)
        return torch.logsumexp(parts + self.weights.log().to(logits.dtype), -1)


class SplineCalibration(_Calibrator):
    """Top-1 confidence s becomes s + h'(u), u its percentile (Gupta et al. 2021, recalibrate.py), as log-probs.

    h(u), a natural cubic spline with ``knots`` equally spaced knots, is fitted by least squares to the cumulative gap
    (hits - sum of confidences) / N of the samples sorted by confidence; those equal to 7 digits share their mean. New
    scores are looked up by linear interpolation (the published code swaps its two weights), constant outside. The
    published code moves the top-1 score alone; here the other classes are rescaled in proportion, so that a row stays
    a distribution, and the score is kept in [1e-7, 1 - 1e-7]. Predictions may change.
    """

    _resizable = ("scores", "values")

    def __init__(self, knots=6):
        super().__init__(scores=(0.0, 1.0), values=(0.0, 1.0))
        self.knots = _check.number("knots", knots, 3, 1000, integer=True)

    def _fit(self, logits, labels):
        confidence = _confidence(logits.double()).numpy().round(7)
        scores, group, counts = np.unique(confidence, return_inverse=True, return_counts=True)
        accuracy = np.bincount(group, (logits.argmax(1) == labels).numpy()) / counts
        gap = np.cumsum(np.repeat(accuracy - scores, counts)) / len(group)
        u, knots = np.linspace(0, 1, len(group))[:, None], np.linspace(0, 1, self.knots)[:-1]
        cubes, squares = (np.maximum(u - knots, 0) ** power / (1 - knots) for power in (3, 2))
        basis = np.hstack([np.ones_like(u), u, cubes[:, :-1] - cubes[:, -1:]])  # no curvature at 0 and 1
        slopes = np.hstack([np.zeros_like(u), np.ones_like(u), 3 * (squares[:, :-1] - squares[:, -1:])])
        moves = slopes @ np.linalg.lstsq(basis, gap, rcond=None)[0]
        return {"scores": scores, "values": scores + np.bincount(np.sort(group), moves) / counts}

    def _calibrate(self, logits):
        top, score = logits.argmax(1, keepdim=True), _confidence(logits)
        right = torch.searchsorted(self.scores, score.detach()).clamp(max=len(self.scores) - 1)
        left = (right - 1).clamp(min=0)
        width = (self.scores[right] - self.scores[left]).clamp(min=1e-300)
        weight = ((score - self.scores[left]) / width).clamp(0, 1)
        moved = torch.lerp(self.values[left], self.values[right], weight).clamp(1e-7, 1 - 1e-7)[:, None]
        others = torch.log_softmax(logits.scatter(1, top, -torch.inf), 1) + torch.log1p(-moved).to(logits.dtype)
        return others.scatter(1, top, moved.log().to(logits.dtype))


class AdaptiveTemperatureScaling(_Calibrator):
    """One temperature per confidence bin (ATS, the paper's Algorithm 1); accuracy cannot change.

    Bins are (tau_{m-1}, tau_m] between linear quantiles of the *uncalibrated* validation confidences, tau_0 = 0 and
    tau_M = 1; a new sample is binned by its uncalibrated confidence too. In each of ``rounds`` rounds T_m moves by
    clip(step * (confidence_m - accuracy_m), -max_step, max_step) within ``t_range``. The round with the smallest ECE
    wins, the first of equals, T = 1 being round 0; the paper does not give that ECE's bins, here ``n_ece_bins`` of
    equal width. At the paper's settings a bin moves at most ten times its gap, so it often stops before it converges.

    rounds=None (ours) solves confidence_m(T) = accuracy_m to convergence instead, and keeps T = 1 if its ECE is not
    larger. A bin with all of n right (or wrong) has no root and gets the target (k + 1/2) / (n + 1); other bins do
    not, since that would pull every confident bin the same way. Empty bins keep T = 1.

    After ``fit``: ``temperatures`` (n_bins,), ``thresholds`` (n_bins + 1,), ``ece_trace`` (rounds + 1,), or (2,).
    """

    _resizable = ("ece_trace",)

    def __init__(self, n_bins=15, rounds=200, step=0.05, max_step=0.1, t_range=(0.1, 10.0), n_ece_bins=20):
        n_bins = _check.number("n_bins", n_bins, 1, 10_000, integer=True)
        super().__init__(temperatures=np.ones(n_bins), thresholds=np.linspace(0, 1, n_bins + 1), ece_trace=[])
        self.n_bins = n_bins
        self.rounds = rounds if rounds is None else _check.number("rounds", rounds, 1, 1_000_000, integer=True)
        self.step = _check.number("step", step, 0, open_low=True)
        self.max_step = _check.number("max_step", max_step, 0, open_low=True)
        if not isinstance(t_range, (tuple, list)) or len(t_range) != 2:
            _check.fail("t_range", f"must be a pair (lowest, highest), got {t_range!r}", "pass e.g. (0.1, 10.0)")
        self.t_range = _check.number("t_range", t_range[0], 1e-4, 1), _check.number("t_range", t_range[1], 1, 1e4)
        self.n_ece_bins = _check.number("n_ece_bins", n_ece_bins, 1, 1_000_000, integer=True)

    def _fit(self, logits, labels):
        distances = _distances(logits.double())
        confidence = 1 / _sums(distances, np.ones(1))[0]
        order = np.argsort(confidence, kind="stable")
        confidence, distances, correct = confidence[order], distances[order], (logits.argmax(1) == labels)[order]
        thresholds = np.quantile(confidence, np.linspace(0, 1, self.n_bins + 1))
        cuts = np.searchsorted(confidence, thresholds, side="right")  # bin m is [cuts[m], cuts[m + 1])
        gaps = np.append(confidence, 1)[cuts] - thresholds  # room to keep equal samples in their bin in float32
        thresholds += np.minimum(gaps / 2, 1e-5 * (1 - thresholds))
        thresholds[0], thresholds[-1], cuts[0] = 0, 1, 0
        correct, counts = correct.double().numpy(), np.diff(cuts)
        sums, filled = _tabulated_sums(distances, cuts), np.flatnonzero(counts)
        starts, sizes = cuts[filled], counts[filled]

        def mean(values):
            out = np.zeros(self.n_bins)
            out[filled] = np.add.reduceat(values, starts) / sizes
            return out

        candidates, errors, gap = [np.ones(self.n_bins)], [], np.zeros(self.n_bins)
        if self.rounds is None:
            accuracy = mean(correct)
            target = np.where(np.isin(accuracy, (0, 1)), (accuracy * counts + 0.5) / (counts + 1), accuracy)
            low, high = (np.full(self.n_bins, t) for t in self.t_range)
            for _ in range(50):  # confidence falls with T: bisection, to 1e-14 of T
                middle = np.sqrt(low * high)
                gap = mean(1 / sums(middle, gap)) - target
                low, high = np.where(gap > 0, middle, low), np.where(gap > 0, high, middle)
            candidates.append(np.where(counts, middle, 1))
        for r in range((self.rounds or 1) + 1):
            confidence = 1 / sums(candidates[r], gap)
            excess = confidence - correct
            errors.append(_ece(confidence, excess, self.n_ece_bins))
            if self.rounds:
                gap = mean(excess)
                step = (self.step * gap).clip(-self.max_step, self.max_step)
                candidates.append((candidates[r] + step).clip(*self.t_range))
        best = np.argmax(np.array(errors) <= min(errors) + _TIE)
        return {"temperatures": candidates[best], "thresholds": thresholds, "ece_trace": errors}

    def _calibrate(self, logits):
        index = torch.bucketize(_confidence(logits.detach()), self.thresholds[1:-1])
        return logits / self.temperatures[index, None].to(logits.dtype)


def _tabulated_sums(distances, cuts):
    """``sums(temperatures, gap)``: all samples' softmax denominators at their bins' temperatures, from a table.

    As functions of log T they are entire, so 10 Chebyshev nodes within a factor of 1.25 give temperatures to 1e-9. A
    bin whose temperature leaves its table gets a new one that lies ahead: upward if its gap is positive.
    """
    width, n = math.log(1.25), 10
    order = np.arange(n)
    angles = (order + 0.5) * np.pi / n
    to_nodes = np.cos(np.outer(order, angles)) * np.where(order, 2, 1)[:, None] / n
    table, out, centre = np.empty((len(distances), n)), np.empty(len(distances)), np.full(len(cuts) - 1, np.inf)
    bins = [(distances[a:b], table[a:b], out[a:b]) for a, b in itertools.pairwise(cuts)]

    def sums(temperatures, gap):
        log_t = np.log(temperatures)
        for m in np.flatnonzero(np.abs(log_t - centre) > width):
            centre[m] = log_t[m] + np.copysign(0.9 * width, gap[m])
            bins[m][1][:] = _sums(bins[m][0], np.exp(-centre[m] - width * np.cos(angles))).T
        weights = np.cos(np.arccos((log_t - centre) / width)[:, None] * order) @ to_nodes
        for (_, nodes, target), w in zip(bins, weights, strict=True):
            np.dot(nodes, w, out=target)
        return out

    return sums


CALIBRATORS = {
    "ts_nll": functools.partial(TemperatureScaling, criterion="nll"),
    "ts_ece": functools.partial(TemperatureScaling, criterion="ece"),
    "ets": EnsembleTemperatureScaling,
    "spline": SplineCalibration,
    "ats": AdaptiveTemperatureScaling,
    "ats_converged": functools.partial(AdaptiveTemperatureScaling, rounds=None),
}


def make_calibrator(name, /, **options):
    """The unfitted calibrator ``name`` of ``CALIBRATORS`` with these options of its constructor."""
    factory = CALIBRATORS[_check.choice("calibrator", name, CALIBRATORS)]
    _check.known_keys("calibrator_options", options, inspect.signature(factory).parameters)
    return factory(**options)
