"""Post-hoc calibrators: fitted on validation logits, they map logits to calibrated logits.

Each is an ``nn.Module`` with ``fit(logits, labels) -> self``; ``calibrator(logits)`` returns calibrated logits
(log-probabilities where no logits exist), so ``nn.Sequential(model, calibrator)`` deploys, ``state_dict`` saves and
``torch.export`` works. Fitting happens in float64 on the CPU, wherever the logits live, and takes the calibrator to
their device. Only temperature scaling and ATS guarantee an unchanged prediction.
"""

import functools
import inspect

import numpy as np
import torch
from torch import nn

from gcelib import _validate

_TIE = 1e-12  # calibration errors closer than this are equal: rounding must not choose between candidates


class _Calibrator(nn.Module):
    """Checks, state and bookkeeping shared by all calibrators; children write ``_fit`` and ``_calibrate``."""

    _resizable = ()  # names of buffers whose length depends on the data they were fitted on

    def __init__(self, **buffers):
        super().__init__()
        self._n_classes = 0  # the buffer's value, readable without stalling an accelerator or breaking an export
        self.register_buffer("n_classes", torch.tensor(0))
        for name, value in buffers.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float64))

    @property
    def fitted(self):
        """True after ``fit`` or after loading the state of a fitted calibrator."""
        return self._n_classes > 0

    @torch.no_grad()
    def fit(self, logits, labels):
        """Fit on held-out ``logits`` (N, K) and ``labels`` (N,), tensors or numpy arrays; returns self."""
        logits, labels = _validate.logits_and_labels(logits, labels)
        device = logits.device
        logits, labels = logits.to("cpu", torch.float64), labels.cpu()
        _validate.check_logits(logits)
        _validate.check_labels(labels, *logits.shape)
        self.cpu()
        for name, value in self._fit(logits, labels).items():
            setattr(self, name, torch.as_tensor(value, dtype=torch.float64))
        self._n_classes = logits.shape[1]
        self.n_classes.fill_(self._n_classes)
        return self.to(device)

    def forward(self, logits):
        """Calibrated logits (N, K), differentiable, in the dtype of ``logits`` but at least float32."""
        if isinstance(logits, np.ndarray):
            logits = _validate.as_tensor("logits", logits)
        if not torch.compiler.is_compiling():
            _validate.check_logits(logits.detach(), min_samples=0)
        if not self.fitted:
            _validate.fail("calibrator", "is used before it was fitted", "call fit(logits, labels) or load_state_dict")
        if logits.shape[-1] != self._n_classes:
            problem = f"have {logits.shape[-1]} classes, the calibrator was fitted on {self._n_classes}"
            _validate.fail("logits", problem, "fit a calibrator on logits of this model")
        return self._calibrate(logits.to(torch.promote_types(logits.dtype, torch.float32)))

    def _apply(self, fn, recurse=True):
        # half() and its like are for weights: thresholds close to 1 would collapse. Only the device may change.
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        for name in self._resizable:
            if prefix + name in state_dict:
                setattr(self, name, getattr(self, name).new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._n_classes = int(self.n_classes)


def _distances(logits):
    """How far each logit lies below its row's largest, (N, K) >= 0: softmax without overflow is made of these."""
    return logits.amax(1, keepdim=True) - logits


def _scaled_confidence(distances, inverse_temperature):
    """Top-1 softmax confidence (N,) of every row at 1/T: a number, or one per row (N, 1)."""
    return torch.exp(-inverse_temperature * distances).sum(1).reciprocal()


def _correct(logits, labels):
    return (logits.argmax(1) == labels).double()


def _ece(confidence, correct, n_bins):
    """Expected calibration error with bins (lo, hi]; the 1e-10 keeps exact edges (1/2, 1/K) in their bin."""
    index = (confidence * n_bins - 1e-10).ceil().long().clamp_(1, n_bins) - 1
    return float(torch.bincount(index, correct - confidence, n_bins).abs().sum()) / len(correct)


def _top_confidence(logits, dtype):
    """Top-1 class (N, 1) and confidence (N,) in ``dtype``, exact for 1 - confidence too: sums the *other* classes."""
    top = logits.argmax(1, keepdim=True)
    rest = (logits - logits.gather(1, top)).exp().scatter(1, top, 0.0).sum(1)
    return top, 1 / (1 + rest.to(dtype))


def _increasing_root(function, low, high, tolerance=1e-10, limit=200):
    """Zero in [low, high] of each increasing function, ``function(x) -> value, slope``; the nearer end if it has none.

    Newton's method from 1, with a geometric bisection wherever a step leaves the bracket.
    """
    x = torch.ones_like(low).clamp(low, high)
    for _ in range(limit):
        value, slope = function(x)
        low, high = torch.where(value <= 0, x, low), torch.where(value >= 0, x, high)
        step = x - value / slope
        step = torch.where((step > low) & (step < high), step, (low * high).sqrt())
        done = (step - x).abs() <= tolerance * x
        x = step
        if done.all():
            break
    return x


class TemperatureScaling(_Calibrator):
    """One temperature for all logits, z / T (Guo et al. 2017); after ``fit``: ``temperature``.

    criterion: ``"nll"`` minimises the negative log-likelihood, convex in 1/T, to convergence within [1e-4, 1e4] (an
    all-right set has no minimum and gets 1e-4). ``"ece"`` is the search behind the paper's "naive temperature scaling"
    (torrvision/focal_calibration, temperature_scaling.py): the first of T = 0.1, 0.2, ..., 10.0 with the smallest
    ECE in 15 bins, though reports use 20.
    """

    def __init__(self, criterion="nll"):
        super().__init__(temperature=1.0)
        self.criterion = _validate.choice("criterion", criterion, ("nll", "ece"))

    def _fit(self, logits, labels):
        distances = _distances(logits)
        if self.criterion == "nll":
            return {"temperature": self._minimise_nll(distances, distances.gather(1, labels[:, None]).mean())}
        correct = _correct(logits, labels)
        grid = np.cumsum(np.full(100, 0.1))  # repeated addition, as published: 2.5 is 2.500000000000001
        errors = np.array([_ece(_scaled_confidence(distances, 1 / t), correct, 15) for t in grid])
        return {"temperature": grid[np.argmax(errors <= errors.min() + _TIE)]}

    @staticmethod
    def _minimise_nll(distances, target):
        """Zero of the slope of the NLL in 1/T: mean distance of the labels minus mean expected distance."""

        def slope(x):
            weights = torch.exp(-x * distances)
            total = weights.sum(1)
            first = torch.linalg.vecdot(weights, distances) / total
            second = torch.linalg.vecdot(weights.mul_(distances), distances) / total
            return target - first.mean(), (second - first.square()).mean()

        low, high = torch.tensor(1e-4).double(), torch.tensor(1e4).double()
        return 1 / (_increasing_root(slope, low, high) if target > 0 else high)

    def _calibrate(self, logits):
        return logits / self.temperature.to(logits.dtype)

    def extra_repr(self):
        return f"criterion={self.criterion!r}, temperature={float(self.temperature):.4g}"


class EnsembleTemperatureScaling(_Calibrator):
    """w0 softmax(z / T) + w1 softmax(z) + w2 / K (Zhang et al. 2020, Mix-n-Match, util_calibration.py), as log-probs.

    T in [0.05, 5] minimises the mean squared error, then ``weights`` (3,) on the simplex do, given T. Both are found
    exactly: T by a grid and golden section (the published local search from T = 1 stays there if logits are
    saturated), the weights by trying every set of non-zero ones. The published ``loss`` argument has no effect.
    A prediction can change only through rounding.
    """

    def __init__(self):
        super().__init__(temperature=1.0, weights=(0.0, 1.0, 0.0))

    def _fit(self, logits, labels):
        distances, target = _distances(logits), torch.nn.functional.one_hot(labels, logits.shape[1]).double()

        def error(log_t):
            return float((torch.softmax(-distances * np.exp(-log_t), 1) - target).square_().mean())

        grid = np.linspace(np.log(0.05), np.log(5), 41)
        best = int(np.argmin([error(t) for t in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 40)]
        ratio = (5**0.5 - 1) / 2
        inner = [high - ratio * (high - low), low + ratio * (high - low)]
        errors = [error(t) for t in inner]
        while high - low > 1e-9:
            if errors[0] <= errors[1]:
                high, inner, errors = inner[1], [inner[1] - ratio * (inner[1] - low), inner[0]], [None, errors[0]]
            else:
                low, inner, errors = inner[0], [inner[1], inner[0] + ratio * (high - inner[0])], [errors[1], None]
            errors = [error(t) if e is None else e for t, e in zip(inner, errors, strict=True)]
        temperature = float(np.exp((low + high) / 2))
        parts = torch.stack(
            [
                torch.softmax(-distances / temperature, 1),
                torch.softmax(-distances, 1),
                torch.full_like(target, 1 / logits.shape[1]),
            ]
        ).flatten(1)
        return {"temperature": temperature, "weights": _simplex_least_squares(parts.numpy(), target.flatten().numpy())}

    def _calibrate(self, logits):
        log_weights = self.weights.log().to(logits.dtype)
        tempered = torch.log_softmax(logits / self.temperature.to(logits.dtype), 1)
        raw = torch.log_softmax(logits, 1)
        uniform = torch.full_like(raw, -float(np.log(self._n_classes)))
        return torch.logsumexp(torch.stack([tempered, raw, uniform], -1) + log_weights, -1)

    def extra_repr(self):
        return f"temperature={float(self.temperature):.4g}, weights={[round(float(w), 4) for w in self.weights]}"


def _simplex_least_squares(parts, target):
    """Weights w >= 0 with sum 1 that minimise |w @ parts - target|, the best over every set of non-zero weights."""
    gram, linear = parts @ parts.T, parts @ target
    best, best_value = None, np.inf
    for code in range(1, 2 ** len(parts)):
        used = [i for i in range(len(parts)) if code >> i & 1]
        n = len(used)
        system = np.zeros((n + 1, n + 1))
        system[:n, :n] = gram[np.ix_(used, used)] / len(target)
        system[:n, n] = system[n, :n] = 1
        weights = np.zeros(len(parts))
        weights[used] = np.linalg.lstsq(system, np.append(linear[used] / len(target), 1), rcond=1e-13)[0][:n]
        value = weights @ gram @ weights - 2 * weights @ linear
        if weights.min() >= 0 and value < best_value:
            best, best_value = weights / weights.sum(), value
    return best


class SplineCalibration(_Calibrator):
    """Top-1 confidence s becomes s + h'(u), u its percentile (Gupta et al. 2021, recalibrate.py), as log-probs.

    h(u) is a natural cubic spline with ``knots`` equally spaced knots, fitted by least squares to the cumulative gap
    (number right - sum of confidences) / N over the samples sorted by confidence. Between samples its table is
    interpolated linearly (the published look-up swaps the two weights), outside it is constant. The published code
    moves only the top-1 score; here the other classes are rescaled in proportion, so the rows stay distributions, and
    the score is kept in [1e-7, 1 - 1e-7]. Samples of equal confidence share their mean. Predictions may change.
    """

    _resizable = ("scores", "values")

    def __init__(self, knots=6):
        super().__init__(scores=(0.0, 1.0), values=(0.0, 1.0))
        self.knots = _validate.number("knots", knots, 2, integer=True)

    def _fit(self, logits, labels):
        confidence = _top_confidence(logits, torch.float64)[1].numpy()
        scores, group, count = np.unique(confidence, return_inverse=True, return_counts=True)
        accuracy = np.bincount(group, _correct(logits, labels).numpy()) / count
        n = len(confidence)
        gap = np.cumsum(np.repeat(accuracy - scores, count)) / n
        values, slopes = _natural_spline(np.linspace(0, 1, n), self.knots)
        slope = slopes @ np.linalg.lstsq(values, gap, rcond=None)[0]
        return {"scores": scores, "values": scores + np.bincount(np.sort(group), slope) / count}

    def _calibrate(self, logits):
        top, score = _top_confidence(logits, self.scores.dtype)
        right = torch.searchsorted(self.scores, score.detach()).clamp(1, max(len(self.scores) - 1, 1))
        right = right.clamp(max=len(self.scores) - 1)
        left = (right - 1).clamp(min=0)
        width = (self.scores[right] - self.scores[left]).clamp(min=1e-300)
        weight = ((score - self.scores[left]) / width).clamp(0, 1)
        moved = torch.lerp(self.values[left], self.values[right], weight).clamp(1e-7, 1 - 1e-7)[:, None]
        others = torch.log_softmax(logits.scatter(1, top, -torch.inf), 1) + torch.log1p(-moved).to(logits.dtype)
        return others.scatter(1, top, moved.log().to(logits.dtype))

    def extra_repr(self):
        return f"knots={self.knots}"


def _natural_spline(x, knots):
    """Matrices (len(x), knots) that map knot values to a natural cubic spline's values and slopes at x in [0, 1]."""
    h = 1 / (knots - 1)
    bends = np.zeros((knots, knots))  # knot values to second derivatives, zero at both ends
    if knots > 2:
        inner = np.diag(np.full(knots - 2, 4.0)) + np.eye(knots - 2, k=1) + np.eye(knots - 2, k=-1)
        difference = np.eye(knots)[:-2] - 2 * np.eye(knots)[1:-1] + np.eye(knots)[2:]
        bends[1:-1] = np.linalg.solve(inner, difference) * 6 / h**2
    i = np.clip((x / h).astype(int), 0, knots - 2)
    t, eye = (x / h - i)[:, None], np.eye(knots)
    a, b = 1 - t, t
    values = a * eye[i] + b * eye[i + 1] + ((a**3 - a) * bends[i] + (b**3 - b) * bends[i + 1]) * h**2 / 6
    slopes = (eye[i + 1] - eye[i]) / h + ((3 * b**2 - 1) * bends[i + 1] - (3 * a**2 - 1) * bends[i]) * h / 6
    return values, slopes


class AdaptiveTemperatureScaling(_Calibrator):
    """One temperature per confidence bin (the paper's Algorithm 1, ATS); accuracy cannot change.

    Bins are (tau_{m-1}, tau_m] between linear quantiles of the *uncalibrated* validation confidences, tau_0 = 0 and
    tau_M = 1; a new sample is binned by its uncalibrated confidence too. In each of ``rounds`` rounds T_m moves by
    clip(step * (confidence_m - accuracy_m), -max_step, max_step) within ``t_range``; the round with the smallest ECE
    (``n_ece_bins`` equal-width bins, the paper does not say how many) wins, the first of equals, and T = 1 is round 0.
    At the paper's settings a bin moves at most ten times its gap, so the search often stops before it converges.
    rounds=None (ours) solves confidence_m(T) = accuracy_m to convergence, and keeps T = 1 if that has the smaller ECE;
    a bin with all of n right (or wrong) has no root and gets (k + 1/2) / (n + 1) as its target. Other bins do not:
    it would pull every confident bin the same way. Empty bins keep T = 1.
    After ``fit``: ``temperatures`` (n_bins,), ``thresholds`` (n_bins + 1,), ``ece_trace`` (rounds + 1,) or (2,).
    """

    _resizable = ("ece_trace",)

    def __init__(self, n_bins=15, rounds=200, step=0.05, max_step=0.1, t_range=(0.1, 10.0), n_ece_bins=20):
        self_n_bins = _validate.number("n_bins", n_bins, 1, integer=True)
        super().__init__(temperatures=np.ones(self_n_bins), thresholds=np.linspace(0, 1, self_n_bins + 1), ece_trace=[])
        self.n_bins = self_n_bins
        self.rounds = rounds if rounds is None else _validate.number("rounds", rounds, 1, integer=True)
        self.step = _validate.number("step", step, 0, open_low=True)
        self.max_step = _validate.number("max_step", max_step, 0, open_low=True)
        if not isinstance(t_range, (tuple, list)) or len(t_range) != 2:
            _validate.fail("t_range", f"must be a pair (lowest, highest), got {t_range!r}", "pass e.g. (0.1, 10.0)")
        low = _validate.number("t_range", t_range[0], 0, 1, open_low=True)
        self.t_range = (low, _validate.number("t_range", t_range[1], 1))
        self.n_ece_bins = _validate.number("n_ece_bins", n_ece_bins, 1, integer=True)

    def _fit(self, logits, labels):
        confidence = _top_confidence(logits, torch.float64)[1]
        inner = np.quantile(confidence.numpy(), np.linspace(0, 1, self.n_bins + 1)[1:-1])
        thresholds = torch.tensor([0.0, *inner, 1.0], dtype=torch.float64)
        index = torch.bucketize(confidence, thresholds[1:-1])
        distances, correct = _distances(logits), _correct(logits, labels)
        count = torch.bincount(index, minlength=self.n_bins)
        right = torch.bincount(index, correct, self.n_bins)
        solve = self._converge if self.rounds is None else self._iterate
        candidates, errors = solve(distances, correct, index, count, right)
        best = int(np.argmax(errors <= errors.min() + _TIE))
        return {"temperatures": candidates[best], "thresholds": thresholds, "ece_trace": errors}

    def _iterate(self, distances, correct, index, count, right):
        """Temperatures after rounds 0 ... ``rounds`` and their calibration errors."""
        temperatures, candidates, errors = torch.ones(self.n_bins, dtype=torch.float64), [], []
        for _ in range(self.rounds + 1):
            confidence = _scaled_confidence(distances, 1 / temperatures[index, None])
            candidates.append(temperatures)
            errors.append(_ece(confidence, correct, self.n_ece_bins))
            gap = (torch.bincount(index, confidence, self.n_bins) - right) / count.clamp(min=1)
            move = (self.step * gap).clamp(-self.max_step, self.max_step)
            temperatures = (temperatures + move).clamp(*self.t_range)
        return candidates, np.array(errors)

    def _converge(self, distances, correct, index, count, right):
        """T = 1 and the roots of confidence = accuracy, with their calibration errors."""
        degenerate = (right == 0) | (right == count)
        target = torch.where(degenerate, (right + 0.5) / (count + 1), right / count.clamp(min=1))

        def gap(x):
            weights = torch.exp(-x[index, None] * distances)
            confidence = weights.sum(1).reciprocal()
            slope = torch.linalg.vecdot(weights, distances) * confidence.square()
            mean = [torch.bincount(index, v, self.n_bins) / count.clamp(min=1) for v in (confidence, slope)]
            return torch.where(count > 0, mean[0] - target, 0), torch.where(count > 0, mean[1], 1)

        ends = (torch.full((self.n_bins,), 1 / t, dtype=torch.float64) for t in reversed(self.t_range))
        candidates = [torch.ones(self.n_bins, dtype=torch.float64), 1 / _increasing_root(gap, *ends)]
        confidences = [_scaled_confidence(distances, 1 / t[index, None]) for t in candidates]
        return candidates, np.array([_ece(c, correct, self.n_ece_bins) for c in confidences])

    def _calibrate(self, logits):
        confidence = _top_confidence(logits.detach(), self.thresholds.dtype)[1]
        index = torch.bucketize(confidence, self.thresholds[1:-1])
        return logits / self.temperatures[index, None].to(logits.dtype)

    def extra_repr(self):
        return f"n_bins={self.n_bins}, rounds={self.rounds}"


CALIBRATORS = {
    "ts_nll": functools.partial(TemperatureScaling, criterion="nll"),
    "ts_ece": functools.partial(TemperatureScaling, criterion="ece"),
    "ets": EnsembleTemperatureScaling,
    "spline": SplineCalibration,
    "ats": AdaptiveTemperatureScaling,
    "ats_converged": functools.partial(AdaptiveTemperatureScaling, rounds=None),
}


def make_calibrator(name, **options):
    """The unfitted calibrator called ``name`` in ``CALIBRATORS``, with its constructor's ``options``."""
    factory = CALIBRATORS[_validate.choice("calibrator", name, CALIBRATORS)]
    fixed = getattr(factory, "keywords", {})
    _validate.known_keys("options", options, [p for p in inspect.signature(factory).parameters if p not in fixed])
    return factory(**options)
