"""Every loss against its equation written out slowly in float64, and what a reader
would doubt about them."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from gcelib import losses
from gcelib.losses import (
    DFL_GAMMA,
    LOSSES,
    AdaFocalLoss,
    BrierLoss,
    CrossEntropyLoss,
    GCELoss,
    MMCELoss,
    make_loss,
)

# --------------------------------------------------------------------------------------
# Slow versions: plain Python loops over float64 numbers, one formula each.


def softmax_rows(logits):
    rows = []
    for row in np.asarray(logits, dtype=np.float64):
        top = max(row)
        exps = [math.exp(z - top) for z in row]
        rows.append([e / sum(exps) for e in exps])
    return rows


def mean(values):
    return sum(values) / len(values)


def slow_ce(logits, labels, alpha=0.0):
    total = 0.0
    for p, y in zip(softmax_rows(logits), labels, strict=True):
        target = [(1 - alpha) * (k == y) + alpha / len(p) for k in range(len(p))]
        total -= sum(q * math.log(v) for q, v in zip(target, p, strict=True) if q)
    return total / len(labels)


def slow_brier(logits, labels):
    return mean(
        [
            sum((v - (k == y)) ** 2 for k, v in enumerate(p))
            for p, y in zip(softmax_rows(logits), labels, strict=True)
        ]
    )


def slow_focal(gamma_of):
    def loss(logits, labels):
        targets = [p[y] for p, y in zip(softmax_rows(logits), labels, strict=True)]
        return mean([-((1 - t) ** gamma_of(t)) * math.log(t) for t in targets])

    return loss


def slow_dfl(gamma):
    def loss(logits, labels):
        terms = []
        for p, y in zip(softmax_rows(logits), labels, strict=True):
            below = max([v for v in p if v < p[y]], default=0.0)
            terms.append(-((1 - p[y] + below) ** gamma) * math.log(p[y]))
        return mean(terms)

    return loss


def slow_mmce_term(confidences, correct):
    """Section 2.3 of the specification: O(N^2) pairs, counts divided out twice."""

    def pair_mean(first, second, weight):
        values = [
            weight(u, v) * math.exp(-abs(u - v) / 0.4) for u in first for v in second
        ]
        return sum(values) / len(values)

    right = [c for c, a in zip(confidences, correct, strict=True) if a]
    wrong = [c for c, a in zip(confidences, correct, strict=True) if not a]
    m, n = len(right), len(wrong)
    if m == 0 or n == 0:
        return 0.0
    squared = pair_mean(right, right, lambda u, v: (1 - u) * (1 - v)) / (m * m + 1e-5)
    squared += pair_mean(wrong, wrong, lambda u, v: u * v) / (n * n + 1e-5)
    squared -= 2 * pair_mean(right, wrong, lambda u, v: (1 - u) * v) / (m * n + 1e-5)
    return math.sqrt(squared + 1e-10)


def slow_mmce(weight):
    def loss(logits, labels):
        probs = softmax_rows(logits)
        correct = [p.index(max(p)) == y for p, y in zip(probs, labels, strict=True)]
        return slow_ce(logits, labels) + weight * slow_mmce_term(
            [max(p) for p in probs], correct
        )

    return loss


def slow_gce(alpha=0.0, gamma=0.0, weight=1.0, gamma_of=None):
    """Equations 4, 5/6, 7 (its weight) and 9/16; gamma_of gives AdaFocal's signed gamma
    instead."""

    def loss(logits, labels):
        probs = softmax_rows(logits)
        n_samples, n_classes = len(probs), len(probs[0])
        sums = [sum(p[k] for p in probs) for k in range(n_classes)]
        total = 0.0
        for p, y in zip(probs, labels, strict=True):
            q = [(1 - alpha) * (k == y) + alpha / n_classes for k in range(n_classes)]
            term = -sum(
                q[k] * (math.log(p[k]) - weight * math.log(sums[k]))
                for k in range(n_classes)
                if q[k]
            )
            g = gamma if gamma_of is None else gamma_of(p[y])
            total += term * ((1 - p[y]) ** g if g >= 0 else (1 + p[y]) ** -g)
        return total / n_samples

    return loss


def slow_bin(t, edges):
    """Section 2.6: the first bin if t < upper_0, the last if t >= lower_last, else
    lower <= t < upper."""
    if t < edges[1]:
        return 0
    if t >= edges[-2]:
        return len(edges) - 2
    return next(b for b in range(len(edges) - 1) if edges[b] <= t < edges[b + 1])


def slow_adafocal(gammas, edges):
    def loss(logits, labels):
        terms = []
        for p, y in zip(softmax_rows(logits), labels, strict=True):
            g = gammas[slow_bin(p[y], edges)]
            terms.append(
                -((1 - p[y]) ** g if g >= 0 else (1 + p[y]) ** -g) * math.log(p[y])
            )
        return mean(terms)

    return loss


def slow_adafocal_update(gammas, logits, labels):
    probs = softmax_rows(logits)
    confidences = [max(p) for p in probs]
    correct = [p.index(max(p)) == y for p, y in zip(probs, labels, strict=True)]
    n = len(probs)
    n_bins = len(gammas)
    ordered = sorted(confidences)
    edges = []
    for j in range(n_bins + 1):
        position = min(j * n / n_bins, n - 1)
        low = int(position)
        high = min(low + 1, n - 1)
        edges.append(ordered[low] + (position - low) * (ordered[high] - ordered[low]))
    new = []
    for b, gamma in enumerate(gammas):
        inside = [i for i, c in enumerate(confidences) if edges[b] < c <= edges[b + 1]]
        gap = (
            mean([confidences[i] for i in inside]) - mean([correct[i] for i in inside])
            if inside
            else 0.0
        )
        gamma = gamma * math.exp(gap) if gamma > 0 else gamma * math.exp(-gap)
        if abs(gamma) < 0.2:
            gamma = -0.2 if gamma > 0 else 0.2
        new.append(min(max(gamma, -2.0), 20.0))
    return new, edges


# --------------------------------------------------------------------------------------
# Material


def batch(n_samples=12, n_classes=5, scale=2.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(
        n_samples, n_classes, generator=generator, dtype=torch.float64
    )
    return logits.to(dtype), torch.randint(n_classes, (n_samples,), generator=generator)


def soft_targets(n_samples=12, n_classes=5, seed=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(
        n_samples, n_classes, generator=generator, dtype=torch.float64
    ).softmax(1)


SIGNED_GAMMA = [-1.5, 0.0, 3.0, 0.3, -0.2, 20.0]


def adafocal(**options):
    """An AdaFocalLoss in a state that no first epoch has: mixed signs, unequal bins."""
    loss = AdaFocalLoss(n_bins=6, **options).double()
    loss.gamma.copy_(torch.tensor(SIGNED_GAMMA, dtype=torch.float64))
    loss.bin_edges.copy_(
        torch.tensor([0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 1.0], dtype=torch.float64)
    )
    return loss


def adafocal_gamma_of(t):
    return SIGNED_GAMMA[slow_bin(t, [0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 1.0])]


CASES = {
    "ce": (CrossEntropyLoss(), slow_ce),
    "ce_ls": (make_loss("ce_ls"), lambda z, y: slow_ce(z, y, 0.05)),
    "brier": (BrierLoss(), slow_brier),
    "mmce": (MMCELoss(), slow_mmce(2.0)),
    "mmce, weight 50": (MMCELoss(mmce_weight=50), slow_mmce(50.0)),
    "focal": (make_loss("focal"), slow_focal(lambda t: 3.0)),
    "focal, 0.5": (make_loss("focal", gamma=0.5), slow_focal(lambda t: 0.5)),
    "focal, 0": (make_loss("focal", gamma=0), slow_ce),
    "flsd": (make_loss("flsd"), slow_focal(lambda t: 5.0 if t < 0.2 else 3.0)),
    "dfl": (make_loss("dfl"), slow_dfl(5.0)),
    "dfl, 2.3": (make_loss("dfl", gamma=2.3), slow_dfl(2.3)),
    "afl, first epoch": (make_loss("afl"), slow_focal(lambda t: 1.0)),
    # Its slow version is replaced below: the gamma has signs.
    "afl": (adafocal(), slow_focal(lambda t: 1.0)),
    "gce": (GCELoss(), slow_gce()),
    "gce_ls": (make_loss("gce_ls"), slow_gce(alpha=0.05)),
    "gce, smoothing and focal": (
        GCELoss(label_smoothing=0.1, focal_gamma=2),
        slow_gce(alpha=0.1, gamma=2.0),
    ),
    "gce, focal 0.5": (GCELoss(focal_gamma=0.5), slow_gce(gamma=0.5)),
    "gce, lambda": (GCELoss(regularizer_weight=0.3), slow_gce(weight=0.3)),
    "gce, everything": (
        GCELoss(label_smoothing=0.2, focal_gamma=1.5, regularizer_weight=0.6),
        slow_gce(alpha=0.2, gamma=1.5, weight=0.6),
    ),
    "afl_gce": (adafocal(generative=True), slow_gce(gamma_of=adafocal_gamma_of)),
}
CASES["afl"] = (
    adafocal(),
    slow_adafocal(SIGNED_GAMMA, [0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 1.0]),
)
EVERY = pytest.mark.parametrize("name", CASES)


# --------------------------------------------------------------------------------------
# The equations


@EVERY
@pytest.mark.parametrize("shape", [(12, 5), (2, 2), (40, 3), (7, 30)])
def test_equals_the_equation_written_out_slowly(name, shape):
    loss, slow = CASES[name]
    logits, labels = batch(*shape, seed=shape[0])
    assert loss(logits, labels).item() == pytest.approx(
        slow(logits.numpy(), labels.tolist()), rel=1e-10, abs=1e-12
    )
    assert loss(logits.float(), labels).item() == pytest.approx(
        slow(logits.numpy(), labels.tolist()), rel=3e-5
    )


@EVERY
def test_gradient_is_the_derivative_of_the_value(name):
    loss, _ = CASES[name]
    logits, labels = batch(9, 4, seed=3)
    logits.requires_grad_()
    if "gce" in name:
        assert torch.autograd.gradgradcheck(
            lambda z: loss(z, labels), (logits,), fast_mode=True
        )
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), (logits,))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_large_batches_have_the_same_gce_and_derivatives(reduction, weight):
    logits, labels = batch(260, 400, seed=1)
    loss = GCELoss(regularizer_weight=weight, reduction=reduction)
    direct = F.log_softmax(logits, 1)
    direct = (1 - weight) * direct + weight * F.log_softmax(direct, 0)
    expected = F.nll_loss(direct, labels, reduction=reduction)
    torch.testing.assert_close(loss(logits, labels), expected, rtol=1e-12, atol=1e-12)
    logits.requires_grad_()
    if reduction == "none":  # nothing follows the written-out gradient
        assert "LargeBatchGCE" in type(loss(logits, labels).grad_fn).__name__
    assert torch.autograd.gradcheck(
        lambda z: loss(z, labels), (logits,), fast_mode=True
    )
    assert torch.autograd.gradgradcheck(
        lambda z: loss(z, labels), (logits,), fast_mode=True
    )


@pytest.mark.parametrize("shape", [(4, 3), (260, 400)])
@pytest.mark.parametrize("name", ["gce", "gce_ls", "afl_gce"])
def test_a_class_masked_in_the_whole_batch_is_as_if_it_were_not_there(name, shape):
    logits, labels = batch(*shape, seed=3)
    labels = labels.clamp_min(1)
    loss = make_loss(name, **({"label_smoothing": 0} if name == "gce_ls" else {}))
    masked = logits.index_fill(1, torch.tensor(0), -torch.inf).requires_grad_()
    left = logits[:, 1:].clone().requires_grad_()
    torch.testing.assert_close(loss(masked, labels), loss(left, labels - 1))
    loss(masked, labels).backward()
    loss(left, labels - 1).backward()
    torch.testing.assert_close(masked.grad[:, 1:], left.grad)
    assert (masked.grad[:, 0] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_the_default_dtype_does_not_matter(name):
    logits, labels = batch(20, 5, seed=1, dtype=torch.float32)
    expected = make_loss(name)(logits, labels)
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        torch.testing.assert_close(make_loss(name)(logits, labels), expected)
    finally:
        torch.set_default_dtype(default)


def test_large_batch_with_an_underflowing_class_falls_back_to_log_space():
    logits, labels = batch(260, 400, seed=2, dtype=torch.float32)
    logits[:, 3] = -5e4
    # every sample gives class 3 probability exp(-50000) = 0 in float32 and float64
    labels[:5] = 3
    logits.requires_grad_()
    loss = GCELoss()(logits, labels)
    expected = F.nll_loss(F.log_softmax(F.log_softmax(logits, 1), 0), labels)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])
    assert gradient[:, 3].abs().max() > 0


def test_a_class_of_hundred_thousands_loses_no_share_of_the_gradient():
    """Such as pixels. One after another in float32, each is small beside their sum."""
    logits, labels = batch(400_000, 3, seed=5, dtype=torch.float32)
    labels[:300_000] = 0
    logits.requires_grad_()
    (found,) = torch.autograd.grad(GCELoss()(logits, labels), logits)
    exact = logits.detach().double().requires_grad_()
    expected = F.nll_loss(F.log_softmax(F.log_softmax(exact, 1), 0), labels)
    (right,) = torch.autograd.grad(expected, exact)
    # What a bias before the logits gets.
    torch.testing.assert_close(found.double().sum(0), right.sum(0), rtol=1e-4, atol=0)
    assert (found - right).norm() < 1e-5 * right.norm()


@pytest.mark.parametrize("form", ["soft", "func"])
def test_gce_of_hundred_thousands_is_exact_by_every_path(form):
    """Soft targets, and functorch, do not take the path of large batches."""
    logits, labels = batch(400_000, 3, seed=5, dtype=torch.float32)
    logits /= 10
    labels[:300_000] = 0
    targets = F.one_hot(labels, 3).float() * 0.9 + 0.1 / 3 if form == "soft" else labels

    def plain(scores, weights):
        log_probs = scores.log_softmax(1)
        return -(weights * (log_probs - log_probs.logsumexp(0))).sum(1).mean()

    exact = logits.double().requires_grad_()
    weights = targets.double() if form == "soft" else F.one_hot(labels, 3).double()
    expected = plain(exact, weights)
    (right,) = torch.autograd.grad(expected, exact)
    if form == "soft":
        logits.requires_grad_()
        loss = GCELoss()(logits, targets)
        (found,) = torch.autograd.grad(loss, logits)
    else:
        found, loss = torch.func.grad_and_value(GCELoss())(logits, labels)
    torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(found.double().sum(0), right.sum(0), rtol=1e-4, atol=0)


def test_large_batch_without_some_classes():
    logits, labels = batch(260, 400, seed=4, dtype=torch.float32)
    labels %= 7
    logits[:, 300:] = -5e4  # neither labels nor probability: class sums of exactly 0
    logits.requires_grad_()
    loss = GCELoss()(logits, labels)
    expected = F.nll_loss(F.log_softmax(F.log_softmax(logits, 1), 0), labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, logits)[0], torch.autograd.grad(expected, logits)[0]
    )


@given(
    st.integers(2, 30), st.integers(2, 12), st.floats(0.1, 30), st.integers(0, 2**20)
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_identities_of_gce(n_samples, n_classes, scale, seed):
    logits, labels = batch(n_samples, n_classes, scale, seed)
    gce = GCELoss()(logits, labels)
    ce = F.cross_entropy(logits, labels)
    close = {"rtol": 1e-9, "atol": 1e-9}
    # the negative log-likelihood of log_softmax over the batch of log_softmax over the
    # classes
    torch.testing.assert_close(
        gce, F.nll_loss(logits.log_softmax(1).log_softmax(0), labels), **close
    )
    # Equation 7: cross-entropy and sum_k N_k log S_k
    counts = torch.bincount(labels, minlength=n_classes)
    log_sums = logits.log_softmax(1).logsumexp(0)
    torch.testing.assert_close(gce, ce + (counts * log_sums).sum() / n_samples, **close)
    # lambda interpolates between cross-entropy and GCE
    torch.testing.assert_close(
        GCELoss(regularizer_weight=0)(logits, labels), ce, **close
    )
    between = GCELoss(regularizer_weight=0.25)(logits, labels)
    torch.testing.assert_close(between, 0.75 * ce + 0.25 * gce, **close)
    # the smallest possible value is sum_k N_k/N log N_k
    present = counts[counts > 0].double()
    assert gce >= (present * present.log()).sum() / n_samples - 1e-9
    # neither the order of the samples, nor the names of the classes, nor a constant
    # added to a sample's logits matter
    order = torch.randperm(n_samples)
    names = torch.randperm(n_classes)
    torch.testing.assert_close(GCELoss()(logits[order], labels[order]), gce, **close)
    torch.testing.assert_close(
        GCELoss()(logits[:, names], names.argsort()[labels]), gce, **close
    )
    torch.testing.assert_close(
        GCELoss()(logits + 9 * torch.rand(n_samples, 1), labels), gce, **close
    )


def test_the_smallest_gce_is_reached_by_the_truth():
    labels = torch.tensor([0, 0, 0, 1, 1, 4])
    logits = 1e4 * F.one_hot(labels, 5).double()
    smallest = (3 * math.log(3) + 2 * math.log(2)) / 6
    assert GCELoss()(logits, labels).item() == pytest.approx(smallest, abs=1e-12)


@pytest.mark.parametrize("name", ["ce", "brier", "gce"])
def test_soft_targets(name):
    logits, labels = batch()
    for options in [{}] if name == "brier" else [{}, {"label_smoothing": 0.3}]:
        loss = make_loss(name, **options)
        one_hot = F.one_hot(labels, 5).double()
        torch.testing.assert_close(loss(logits, one_hot), loss(logits, labels))
        torch.testing.assert_close(loss(logits, one_hot.half()), loss(logits, labels))
    targets = soft_targets()
    probs = np.array(softmax_rows(logits))
    slow = {
        "ce": lambda i, k: -targets[i, k] * math.log(probs[i, k]),
        "brier": lambda i, k: (targets[i, k] - probs[i, k]) ** 2,
        "gce": lambda i, k: -targets[i, k] * math.log(probs[i, k] / probs[:, k].sum()),
    }[name]
    expected = sum(slow(i, k) for i in range(12) for k in range(5)) / 12
    assert make_loss(name)(logits, targets).item() == pytest.approx(
        float(expected), rel=1e-12
    )
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: make_loss(name)(z, targets), (logits,))


def test_soft_targets_with_a_focal_weight():
    logits, labels = batch()
    loss = GCELoss(focal_gamma=1.5, label_smoothing=0.1, reduction="none")
    one_hot = F.one_hot(labels, 5).double()
    targets = soft_targets()
    torch.testing.assert_close(loss(logits, one_hot), loss(logits, labels))
    plain = GCELoss(label_smoothing=0.1, reduction="none")(logits, targets)
    expected = (1 - (targets * logits.softmax(1)).sum(1)) ** 1.5 * plain
    torch.testing.assert_close(loss(logits, targets), expected)


@pytest.mark.parametrize("factory", [CrossEntropyLoss, GCELoss])
@given(alpha=st.floats(0, 1), seed=st.integers(0, 2**20))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_label_smoothing_is_linear_in_the_targets(factory, alpha, seed):
    logits, labels = batch(seed=seed)
    uniform = torch.full((12, 5), 0.2, dtype=torch.float64)
    expected = (1 - alpha) * factory()(logits, labels) + alpha * factory()(
        logits, uniform
    )
    torch.testing.assert_close(factory(label_smoothing=alpha)(logits, labels), expected)
    mixed = (1 - alpha) * F.one_hot(labels, 5) + alpha * uniform
    torch.testing.assert_close(factory()(logits, mixed), expected)


@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.1}, {"reduction": "sum"}, {"reduction": "none"}],
)
@pytest.mark.parametrize("soft", [False, True])
def test_ce_is_torch_s(options, soft):
    logits, labels = batch(dtype=torch.float32)
    labels = soft_targets().float() if soft else labels
    torch.testing.assert_close(
        CrossEntropyLoss(**options)(logits, labels),
        torch.nn.CrossEntropyLoss(**options)(logits, labels),
        rtol=0,
        atol=0,
    )


@EVERY
def test_reductions_agree(name):
    loss, _ = CASES[name]
    logits, labels = batch()
    by_name = {}
    for reduction in loss.reductions:
        loss = copy.deepcopy(loss)
        loss.reduction = reduction
        by_name[reduction] = loss(logits, labels)
    torch.testing.assert_close(by_name["sum"], 12 * by_name["mean"])
    assert "none" in by_name or isinstance(loss, MMCELoss)
    if "none" in by_name:
        assert by_name["none"].shape == (12,)
        torch.testing.assert_close(by_name["none"].mean(), by_name["mean"])


# --------------------------------------------------------------------------------------
# The baselines' corners


def test_mmce_is_plain_cross_entropy_where_all_are_right_or_all_wrong():
    logits, _ = batch()
    for labels in (logits.argmax(1), logits.argmin(1)):
        z = logits.clone().requires_grad_()
        loss = MMCELoss()(z, labels)
        ce = F.cross_entropy(z, labels)
        # Means are summed in one order or another, as the processor has it.
        assert loss.item() == pytest.approx(ce.item(), rel=1e-14)
        torch.testing.assert_close(
            *(torch.autograd.grad(v, z)[0] for v in (loss, ce)), rtol=1e-14, atol=1e-16
        )


def test_mmce_of_equal_confidences_and_single_samples():
    # The kernel's kink.
    logits = torch.tensor(
        [[2.0, 0.0], [2.0, 0.0]], dtype=torch.float64, requires_grad=True
    )
    loss = MMCELoss()(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(slow_mmce(2.0)(logits.detach().numpy(), [0, 1]))
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()
    assert MMCELoss()(logits[:1], torch.tensor([1])).item() == pytest.approx(
        2 + math.log1p(math.exp(-2))
    )


def test_dfl_rival_is_strictly_below_the_target():
    loss = make_loss("dfl", gamma=2)
    probs = torch.tensor(
        [[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]],
        dtype=torch.float64,
    )
    # ties with the target do not count, nor does the winner of a wrong prediction; the
    # lowest target has no rival
    rivals = [0.2, 0.0, 0.3, 0.0]
    expected = mean(
        [
            -((1 - p[0] + q) ** 2) * math.log(p[0])
            for p, q in zip(probs.tolist(), rivals, strict=True)
        ]
    )
    assert loss(probs.log(), torch.zeros(4, dtype=torch.long)).item() == pytest.approx(
        expected
    )


def test_dfl_gradient_flows_through_the_rival():
    logits, labels = batch(1, 3)
    labels[:] = logits.argmax(1)
    logits.requires_grad_()

    def loss(frozen):
        probs = logits.softmax(1)[0]
        target, rival = probs[labels[0]], probs.sort().values[-2]
        return (
            -((1 - target + (rival.detach() if frozen else rival)) ** 5) * target.log()
        )

    (ours,) = torch.autograd.grad(make_loss("dfl")(logits, labels), logits)
    torch.testing.assert_close(ours, torch.autograd.grad(loss(frozen=False), logits)[0])
    assert not torch.allclose(ours, torch.autograd.grad(loss(frozen=True), logits)[0])


def test_dfl_gammas():
    assert DFL_GAMMA["cifar100", "resnet110"] == 6.1
    assert DFL_GAMMA["cifar10", "wrn_28_10"] == 2.6
    assert len(DFL_GAMMA) == 9
    assert make_loss("dfl").gamma == 5


def test_adafocal_bins_at_their_edges():
    """A target probability on an edge belongs to the bin above; outside all bins, to
    the nearest."""
    loss = AdaFocalLoss(n_bins=4, reduction="none").double()
    edges = [
        0.125,
        0.25,
        0.5,
        0.5,
        0.75,
    ]  # as after an update: neither from 0 nor to 1, and with an empty bin
    loss.bin_edges.copy_(torch.tensor(edges))
    loss.gamma.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    for t, gamma in [
        (0.0625, 1),
        (0.125, 1),
        (0.2499, 1),
        (0.25, 2),
        (0.4999, 2),
        (0.5, 4),
        (0.75, 4),
        (0.9, 4),
    ]:
        assert gamma == slow_bin(t, edges) + 1
        value = loss(
            torch.tensor([[t, 1 - t]], dtype=torch.float64).log(), torch.tensor([0])
        ).item()
        assert value == pytest.approx(-((1 - t) ** gamma) * math.log(t)), t


def test_adafocal_update_follows_the_slow_version_through_sign_and_both_limits():
    loss = AdaFocalLoss().double()
    gammas, seen, switched = [1.0] * 15, [], 0
    # overconfident for long (gamma grows to 20), then underconfident (shrinks, changes
    # sign, falls to -2), and back
    for epoch, scale in enumerate([9.0] * 12 + [0.15] * 30 + [6.0] * 20):
        logits, _ = batch(150, 4, 1.0, seed=epoch)
        labels = (
            logits
            + 0.6
            * torch.randn(logits.shape, generator=torch.Generator().manual_seed(epoch))
        ).argmax(1)
        before = list(gammas)
        gammas, edges = slow_adafocal_update(
            gammas, (scale * logits).numpy(), labels.tolist()
        )
        loss.update(scale * logits, labels)
        np.testing.assert_allclose(loss.gamma.numpy(), gammas, rtol=1e-9)
        np.testing.assert_allclose(loss.bin_edges.numpy(), edges, rtol=1e-9)
        switched += sum(a * b < 0 for a, b in zip(before, gammas, strict=True))
        seen += gammas
    assert switched > 0
    assert max(seen) > 2
    assert min(seen) == -2


def test_adafocal_reaches_its_upper_limit():
    loss, gammas = AdaFocalLoss(n_bins=2).double(), [1.0, 1.0]
    logits = torch.tensor(
        [[3.0, 0.0], [4.0, 0.0], [5.0, 0.0], [6.0, 0.0]], dtype=torch.float64
    )
    for _ in range(5):
        # Always wrong, always sure: the gap is almost 1.
        loss.update(logits, torch.ones(4, dtype=torch.long))
        gammas, _ = slow_adafocal_update(gammas, logits.numpy(), [1, 1, 1, 1])
        np.testing.assert_allclose(loss.gamma.numpy(), gammas, rtol=1e-12)
    assert loss.gamma.tolist() == [20.0, 20.0]


def test_adafocal_update_of_saturated_few_and_half_precision_samples():
    saturated = torch.tensor(
        [[900.0, 0.0], [800.0, 0.0], [0.3, 0.0], [0.0, 0.9]], dtype=torch.float64
    )
    labels = torch.tensor([0, 1, 1, 1])
    for logits in (saturated, saturated[2:], saturated[3:]):
        loss = AdaFocalLoss(n_bins=3).double()
        loss.update(logits, labels[-len(logits) :])
        gammas, edges = slow_adafocal_update(
            [1.0] * 3, logits.numpy(), labels[-len(logits) :].tolist()
        )
        np.testing.assert_allclose(loss.gamma.numpy(), gammas, rtol=1e-12)
        np.testing.assert_allclose(loss.bin_edges.numpy(), edges, rtol=1e-12)
    half = AdaFocalLoss()
    half.update(batch(100, 5)[0].half(), batch(100, 5)[1])
    exact = AdaFocalLoss()
    exact.update(batch(100, 5)[0].half().float().numpy(), batch(100, 5)[1].numpy())
    torch.testing.assert_close(half.gamma, exact.gamma)


@pytest.mark.parametrize("ignored", [-100, 2])
def test_adafocal_update_leaves_out_the_samples_that_the_loss_ignores(ignored):
    logits, labels = batch(300, 5)
    labels[::3] = ignored
    kept = labels != ignored
    found = AdaFocalLoss(ignore_index=ignored)
    found.update(logits, labels)
    expected = AdaFocalLoss()
    expected.update(logits[kept], labels[kept])
    torch.testing.assert_close(found.gamma, expected.gamma, rtol=0, atol=0)
    torch.testing.assert_close(found.bin_edges, expected.bin_edges, rtol=0, atol=0)


def test_adafocal_state_survives_a_checkpoint(tmp_path):
    loss = AdaFocalLoss()
    loss.update(*batch(200, 5))
    torch.save(loss.state_dict(), tmp_path / "loss.pt")
    other = AdaFocalLoss()
    other.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True))
    assert (
        other(*batch(seed=2)).item()
        == loss(*batch(seed=2)).item()
        != AdaFocalLoss()(*batch(seed=2)).item()
    )


def test_adafocal_update_refuses_what_would_poison_its_state():
    loss = AdaFocalLoss()
    logits, labels = batch()
    logits[3, 1] = math.nan
    with pytest.raises(ValueError, match="logits: contains NaN"):
        loss.update(logits, labels)
    assert loss.gamma.tolist() == [1.0] * 15


# --------------------------------------------------------------------------------------
# Numerics

EXTREME = 6e4  # about the largest float16


def extreme_batches(n_classes):
    """Named batches with logits up to +-6e4: saturated, right, wrong, absent and
    underflowing classes, ties."""
    n_samples = 6
    generator = torch.Generator().manual_seed(n_classes)
    labels = torch.arange(n_samples) % n_classes
    signs = EXTREME * (
        2.0 * torch.randint(2, (n_samples, n_classes), generator=generator) - 1
    )
    right = torch.full((n_samples, n_classes), -EXTREME).scatter(
        1, labels[:, None], EXTREME
    )
    moderate = 3 * torch.randn(n_samples, n_classes, generator=generator)
    underflow = moderate.clone()
    underflow[:, 0] = -EXTREME
    yield "all +-6e4", signs, labels
    yield (
        "uniform in +-6e4",
        EXTREME * (2 * torch.rand(n_samples, n_classes, generator=generator) - 1),
        labels,
    )
    yield "all right", right, labels
    yield "all wrong", -right, labels
    yield "absent classes", moderate, labels * 0 + 1
    yield "underflowing class", underflow, labels * 0
    yield "all equal", torch.zeros(n_samples, n_classes), labels
    yield (
        "just saturated",
        torch.zeros(n_samples, n_classes).scatter(1, labels[:, None], 17.5),
        labels,
    )


@EVERY
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
@pytest.mark.parametrize("n_classes", [2, 10, 20_000])
def test_value_and_gradient_are_finite_at_the_extremes(name, dtype, n_classes):
    loss, _ = CASES[name]
    for what, logits, labels in extreme_batches(n_classes):
        logits = logits.to(dtype).requires_grad_()
        value = loss(logits, labels)
        assert value.dtype == torch.promote_types(dtype, torch.float32)
        assert value.isfinite(), what
        (gradient,) = torch.autograd.grad(value, logits)
        assert gradient.dtype == dtype
        assert gradient.isfinite().all(), what


@pytest.mark.parametrize("name", ["ce", "ce_ls", "brier", "gce", "gce_ls"])
@pytest.mark.parametrize("n_classes", [2, 10, 20_000])
def test_soft_targets_are_finite_at_the_extremes(name, n_classes):
    labels = torch.arange(6) % n_classes
    even = torch.full((6, n_classes), 1 / n_classes)
    certain = torch.zeros(6, n_classes).scatter(1, labels[:, None], 1)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for what, logits, _ in extreme_batches(n_classes):
            for targets in (even, certain, certain.roll(1, 1)):
                leaf = logits.to(dtype).requires_grad_()
                value = make_loss(name)(leaf, targets)
                assert value.isfinite(), (what, dtype)
                assert torch.autograd.grad(value, leaf)[0].isfinite().all(), (
                    what,
                    dtype,
                )


@EVERY
def test_fractional_gamma_has_a_zero_gradient_where_the_target_is_certain(name):
    """(1 - t)^gamma with gamma < 1 has an infinite derivative at t = 1, which must not
    meet a zero."""
    loss, _ = CASES[name]
    labels = torch.arange(6) % 3
    logits = (200.0 * F.one_hot(labels, 3)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
    assert gradient.isfinite().all()
    if "ls" not in name and "smoothing" not in name and "everything" not in name:
        assert gradient.abs().max() < 1e-6


@EVERY
def test_bad_logits_show_in_the_loss_instead_of_an_error(name):
    """torch.amp.GradScaler skips steps whose gradients overflow: it has to see them."""
    loss, _ = CASES[name]
    for bad in (math.nan, math.inf):
        logits, labels = batch(dtype=torch.float32)
        logits[2, labels[2]] = bad
        logits.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
        assert not gradient.isfinite().all()


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(name, dtype):
    loss, _ = CASES[name]
    for shape in [(12, 5), (330, 400)]:  # the second has the written-out gradient
        logits, labels = batch(*shape, dtype=dtype)
        results = []
        for enabled in (False, True):
            z = logits.clone().requires_grad_()
            with torch.autocast("cpu", dtype, enabled=enabled):
                value = loss(z, labels)
                results.append((value, *torch.autograd.grad(value, z)))
        assert results[0][0].dtype == torch.float32
        torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
        with torch.autocast("cpu", dtype):
            assert loss(logits.double(), labels).dtype == torch.float64


@EVERY
def test_no_value_is_read_off_the_device(name):
    """Meta tensors have no values, so any .item(), branch or host copy in the step
    would raise."""
    loss = copy.deepcopy(CASES[name][0]).to("meta")
    for n_samples in (8, 30_000):
        if n_samples == 30_000 and isinstance(loss, MMCELoss):
            continue  # its kernel is N x N
        logits = torch.empty(n_samples, 5, device="meta", requires_grad=True)
        loss(logits, torch.empty(n_samples, dtype=torch.long, device="meta")).backward()
        assert logits.grad.shape == logits.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EVERY
def test_no_synchronisation_with_a_cuda_device(name):
    loss = copy.deepcopy(CASES[name][0]).cuda()
    logits, labels = batch(130, 1000)
    expected = CASES[name][0](logits, labels)
    z, y = logits.cuda().requires_grad_(), labels.cuda()
    loss(z, y).backward()  # the first call may load kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = loss(z, y)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), expected)


@pytest.mark.parametrize(
    "name",
    [
        "ce_ls",
        "brier",
        "mmce",
        "flsd",
        "dfl",
        "afl",
        "afl_gce",
        "gce",
        "gce, everything",
    ],
)
def test_traced_without_a_break(name):
    """torch.compile(fullgraph=True) without its code generator: one graph a loss."""
    torch.compiler.reset()
    loss, _ = CASES[name]
    logits, labels = batch()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits, labels), loss(logits, labels))


@pytest.mark.long
def test_compiled_gce():
    torch.compiler.reset()
    logits, labels = batch(300, 400, dtype=torch.float32)
    logits.requires_grad_()
    # Faster once.
    compiled = torch.compile(
        GCELoss(), fullgraph=True, options={"cpp_cache_precompile_headers": False}
    )
    try:
        value = compiled(logits, labels)
    except Exception as error:
        if (
            "InvalidCxxCompiler" in str(error)
            or "InvalidCxxCompiler" in type(error).__name__
        ):
            pytest.skip("torch.compile finds no C++ compiler on this machine")
        raise
    torch.testing.assert_close(value, GCELoss()(logits, labels))
    gradients = [
        torch.autograd.grad(v, logits)[0] for v in (value, GCELoss()(logits, labels))
    ]
    torch.testing.assert_close(*gradients)


# --------------------------------------------------------------------------------------
# What is refused, and what is said


@pytest.mark.parametrize("loss", [GCELoss(), AdaFocalLoss(generative=True)])
def test_one_sample_is_said_to_be_void(loss):
    logits, labels = batch(1, 5)
    logits.requires_grad_()
    with pytest.warns(UserWarning, match="one sample") as record:
        value = loss(logits, labels)
    assert len(record) == 1
    assert record[0].filename == __file__
    assert value.item() == pytest.approx(0, abs=1e-15)
    assert torch.autograd.grad(value, logits)[0].abs().max() < 1e-15
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Cross-entropy: nothing to warn of.
        GCELoss(regularizer_weight=0)(logits, labels)


BAD = {
    "no sample": (lambda z, y: (z[:0], y[:0]), ValueError, "logits: has 0 samples"),
    "labels (N, 1)": (
        lambda z, y: (z, y[:, None]),
        ValueError,
        r"labels: expected shape \(12,\)",
    ),
    "labels float 1-D": (
        lambda z, y: (z, y.float()),
        TypeError,
        "labels: has dtype torch.float32",
    ),
    "labels bool": (lambda z, y: (z, y > 1), TypeError, "labels: has dtype torch.bool"),
    "labels too large": (
        lambda z, y: (z, y + 1 + 4 * (y < 4)),
        ValueError,
        r"labels: contains \d, outside \[0, 5\)",
    ),
    "labels negative": (
        lambda z, y: (z, y - 9),
        ValueError,
        r"labels: contains -9, outside",
    ),
    "torch's ignored label": (
        lambda z, y: (z, y.clone().fill_(-100)),
        ValueError,
        r"labels: contains -100, outside .* pass a loss ignore_index=-100",
    ),
    "too few labels": (
        lambda z, y: (z, y[1:]),
        ValueError,
        "labels: has 11 entries for 12 rows",
    ),
    "one class": (
        lambda z, y: (z[:, :1], y * 0),
        ValueError,
        r"logits: expected shape \(N, K\) with K >= 2",
    ),
    "logits 1-D": (
        lambda z, y: (z[0], y),
        ValueError,
        r"logits: expected shape \(N, K\)",
    ),
    "logits 3-D": (
        lambda z, y: (z[None], y),
        ValueError,
        r"logits: expected shape \(N, K\)",
    ),
    "integer logits": (
        lambda z, y: (z.long(), y),
        TypeError,
        "logits: has dtype torch.int64",
    ),
    "numpy logits": (
        lambda z, y: (z.numpy(), y),
        TypeError,
        "logits: must be a torch tensor, got ndarray",
    ),
    "list of labels": (
        lambda z, y: (z, y.tolist()),
        TypeError,
        "labels: must be a torch tensor, got list",
    ),
    "another device": (
        lambda z, y: (z, y.to("meta")),
        ValueError,
        "labels: are on meta, logits on cpu",
    ),
}


@EVERY
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_refused(name, bad):
    change, error, message = BAD[bad]
    with pytest.raises(error, match="^" + message):
        CASES[name][0](*change(*batch()))


@pytest.mark.parametrize("shape", [(330, 400)])
def test_bad_labels_of_large_batches_are_refused(shape):
    logits, labels = batch(*shape)
    for bad in (400, -1, -100):
        labels[7] = bad
        with pytest.raises(ValueError, match=f"^labels: contains {bad}, outside"):
            GCELoss()(logits, labels)


BAD_TARGETS = {
    "another K": (
        lambda q: q[:, :4],
        r"labels: soft targets \(12, 4\) for logits \(12, 5\)",
    ),
    "not normalised": (lambda q: q * 1.1, "labels: soft targets are not probabilities"),
    "negative": (
        lambda q: q + torch.tensor([[0.9, -0.9, 0, 0, 0]]),
        "labels: soft targets are not probabilities",
    ),
    "NaN": (lambda q: q * math.nan, "labels: soft targets are not probabilities"),
}


@pytest.mark.parametrize("name", ["ce", "brier", "gce"])
@pytest.mark.parametrize("bad", BAD_TARGETS)
def test_bad_soft_targets_are_refused(name, bad):
    change, message = BAD_TARGETS[bad]
    with pytest.raises(ValueError, match="^" + message):
        make_loss(name)(batch()[0], change(soft_targets()))


@pytest.mark.parametrize(
    "name", [n for n in LOSSES if not n.startswith(("ce", "brier", "gce"))]
)
def test_other_losses_say_that_they_take_class_ids(name):
    message = "^labels: are soft targets, which this loss does not take; pass class ids"
    with pytest.raises(TypeError, match=message):
        make_loss(name)(batch()[0], soft_targets())


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("gcee", {}, ValueError, "^loss: unknown 'gcee'; did you mean 'gce'"),
        (3, {}, TypeError, "^loss: must be a string"),
        (
            "gce",
            {"focal_gama": 1},
            ValueError,
            "^loss_options: unknown key 'focal_gama'; did you mean 'focal_gamma'",
        ),
        ("gce_ls", {"gamma": 1}, ValueError, "^loss_options: unknown key 'gamma'"),
        (
            "gce",
            {"regularizer_weight": 1.01},
            ValueError,
            r"^regularizer_weight: 1.01 is outside \[0, 1\]",
        ),
        (
            "gce",
            {"regularizer_weight": -0.1},
            ValueError,
            "^regularizer_weight: -0.1 is outside",
        ),
        (
            "gce",
            {"label_smoothing": math.nan},
            ValueError,
            "^label_smoothing: nan is outside",
        ),
        (
            "ce",
            {"label_smoothing": 1.5},
            ValueError,
            "^label_smoothing: 1.5 is outside",
        ),
        ("gce", {"focal_gamma": -1}, ValueError, "^focal_gamma: -1 is outside"),
        ("gce", {"reduction": "average"}, ValueError, "^reduction: unknown 'average'"),
        (
            "gce",
            {"process_group": True},
            TypeError,
            "^process_group: must be a ProcessGroup, .* got True",
        ),
        ("mmce", {"reduction": "none"}, ValueError, "^reduction: unknown 'none'"),
        ("mmce", {"mmce_weight": "2"}, TypeError, "^mmce_weight: must be a number"),
        ("dfl", {"gamma": -1}, ValueError, "^gamma: -1 is outside"),
        ("afl", {"n_bins": 0}, ValueError, "^n_bins: 0 is outside"),
        ("afl", {"n_bins": 2.5}, TypeError, "^n_bins: must be a whole number"),
        (
            "afl",
            {"generative": "false"},
            TypeError,
            "^generative: must be True or False",
        ),
    ],
)
def test_impossible_options_are_refused(name, options, error, message):
    with pytest.raises(error, match=message):
        make_loss(name, **options)


def test_the_papers_losses_come_first_and_every_row_builds():
    papers = ["ce", "brier", "mmce", "flsd", "dfl", "afl", "gce"]
    assert [name for name, row in LOSSES.items() if row.in_paper] == papers
    assert list(LOSSES)[:7] == papers
    assert (
        make_loss("gce_ls").label_smoothing
        == make_loss("ce_ls").label_smoothing
        == 0.05
    )
    assert make_loss("gce_ls", label_smoothing=0.1).label_smoothing == 0.1
    for name in LOSSES:
        loss = make_loss(name, reduction="sum")
        assert loss.reduction == "sum"
        assert not list(loss.parameters())
    assert losses.GCELoss is LOSSES["gce"].build


@EVERY
def test_label_integer_types_are_equal(name):
    logits, labels = batch()
    values = {
        CASES[name][0](logits, labels.to(d)).item()
        for d in (torch.uint8, torch.int16, torch.int32, torch.int64)
    }
    assert len(values) == 1
