"""What losses promise beside their equations.

Masked classes, labels to ignore, torch.func, AdaFocal's state, copies, foreign options,
and gradients accumulated over pieces of a batch.
"""

import copy
import inspect
import math
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gcelib import accumulated_backward
from gcelib.losses import LOSSES, AdaFocalLoss, GCELoss, Loss, MMCELoss, make_loss

EVERY = pytest.mark.parametrize("name", LOSSES)
SMALL, LARGE = (12, 5), (260, 400)  # the second has the written-out gradient


def batch(n_samples=12, n_classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n_samples, n_classes, generator=generator, dtype=torch.float64)
    return 2 * logits, torch.randint(n_classes, (n_samples,), generator=generator)


def soft_targets(n_samples=12, n_classes=5):
    return batch(n_samples, n_classes, seed=7)[0].softmax(1)


def value_and_gradient(loss, logits, labels):
    logits = logits.clone().requires_grad_()
    value = loss(logits, labels)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


# --------------------------------------------------------------------------------------
# A logit of -inf is a probability of 0

SOFT = [name for name, row in LOSSES.items() if row.soft_targets]
SMOOTHED = ("ce_ls", "gce_ls")
MASKED_ROWS = {"all": range(12), "first": [0], "last": [11], "some": [3, 4]}


@pytest.mark.parametrize("rows", MASKED_ROWS)
@pytest.mark.parametrize(
    ("name", "soft"),
    [(name, False) for name in LOSSES] + [(name, True) for name in SOFT],
)
def test_a_class_without_probability_is_like_a_tiny_one(name, soft, rows):
    """The limit of ever smaller logits, wherever in the batch the -inf stand."""
    logits, labels = batch()
    labels = labels.clamp_min(1)
    targets = labels
    if soft:
        targets = 0.7 * F.one_hot(labels, 5) + 0.3 * F.one_hot(labels.roll(1), 5)
    tiny = logits.clone()
    tiny[[*MASKED_ROWS[rows]], 0] = -300
    masked = logits.clone()
    masked[[*MASKED_ROWS[rows]], 0] = -math.inf
    reduction = "mean" if name == "mmce" else "none"
    loss = make_loss(name, reduction=reduction)
    value, gradient = value_and_gradient(loss, masked, targets)
    if name in SMOOTHED:
        is_masked = torch.zeros(12, dtype=torch.bool)
        is_masked[[*MASKED_ROWS[rows]]] = True
        assert torch.equal(value == math.inf, is_masked)  # as nn.CrossEntropyLoss
    else:
        expected = value_and_gradient(loss, tiny, targets)
        torch.testing.assert_close((value, gradient), expected)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    permuted = value_and_gradient(loss, masked[order], targets[order])
    again = value[order] if reduction == "none" else value
    torch.testing.assert_close(permuted, (again, gradient[order]))


@pytest.mark.parametrize("rows", MASKED_ROWS)
@pytest.mark.parametrize("weight", [1.0, 0.6, 0.3])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_target_without_probability_costs_infinitely_much(rows, weight, smoothing):
    logits, labels = batch()
    masked = [*MASKED_ROWS[rows]]
    labels = labels.clamp_min(1)
    labels[masked] = 0
    logits[masked, 0] = -math.inf
    loss = GCELoss(smoothing, regularizer_weight=weight, reduction="none")
    for targets in (labels, F.one_hot(labels, 5).double()):
        value = loss(logits, targets)
        assert (value[masked] == math.inf).all()
        assert value.isfinite().sum() == 12 - len(masked)


def test_where_torch_s_cross_entropy_is_finite_ours_is_the_same():
    logits, labels = batch()
    logits[2, (labels[2] + 1) % 5] = -math.inf
    assert make_loss("ce")(logits, labels) == F.cross_entropy(logits, labels)


# --------------------------------------------------------------------------------------
# Labels to ignore


@EVERY
@pytest.mark.parametrize("ignored", [-100, 2])
def test_ignored_samples_are_as_if_they_were_not_there(name, ignored):
    logits, labels = batch()
    labels[[1, 5, 11]] = ignored
    kept = labels != ignored
    logits.requires_grad_()
    for reduction in LOSSES[name].reductions:
        loss = make_loss(name, ignore_index=ignored, reduction=reduction)
        value = loss(logits, labels)
        expected = make_loss(name, reduction=reduction)(logits[kept], labels[kept])
        if reduction == "none":
            assert (value[~kept] == 0).all()
            value = value[kept]
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
        found, wanted = (
            torch.autograd.grad(v.sum(), logits)[0] for v in (value, expected)
        )
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_narrow_labels_are_not_taken_for_the_ignored_one(dtype):
    """In eight bits -100 and 156 are the same."""
    logits, labels = batch(12, 200)
    labels = labels % 100 if dtype == torch.int8 else labels.clamp_min(150)
    labels[3] = 99 if dtype == torch.int8 else 156
    expected = GCELoss()(logits, labels)
    for ignored in (-100, 412):
        loss = GCELoss(ignore_index=ignored)
        torch.testing.assert_close(loss(logits, labels.to(dtype)), expected)


@EVERY
def test_a_batch_without_any_sample_has_torch_s_mean_and_no_gradient(name):
    logits, labels = batch()
    labels.fill_(-1)
    logits.requires_grad_()
    value = make_loss(name, ignore_index=-1)(logits, labels)
    assert value.isnan()
    assert F.cross_entropy(logits, labels, ignore_index=-1).isnan()
    assert make_loss(name, ignore_index=-1, reduction="sum")(logits, labels) == 0
    assert (torch.autograd.grad(value, logits)[0] == 0).all()


def test_other_labels_are_still_looked_at():
    logits, labels = batch()
    labels[:2] = torch.tensor([-1, 7])
    with pytest.raises(ValueError, match=r"^labels: contains 7, outside \[0, 5\)"):
        GCELoss(ignore_index=-1)(logits, labels)
    with pytest.raises(ValueError, match=r"^ignore_index: applies to class ids"):
        GCELoss(ignore_index=-1)(logits, soft_targets())
    with pytest.raises(TypeError, match=r"^ignore_index: must be a whole number"):
        GCELoss(ignore_index=1.5)


# --------------------------------------------------------------------------------------
# torch.func and forward-mode differentiation


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1, "focal_gamma": 2}], ids=["plain", "both"]
)
def test_torch_func_and_forward_mode_see_the_same_gce(shape, soft, options):
    logits, labels = batch(*shape, seed=1)
    targets = soft_targets(*shape) if soft else labels
    direction = batch(*shape, seed=2)[0]
    loss = GCELoss(**options)

    def of(z):
        return loss(z, targets)

    value, gradient = value_and_gradient(loss, logits, targets)
    slope = (gradient * direction).sum()
    found, tangent = torch.func.jvp(of, (logits,), (direction,))
    torch.testing.assert_close((found, tangent), (value, slope))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits, direction)
        tangent = torch.autograd.forward_ad.unpack_dual(of(dual)).tangent
    torch.testing.assert_close(tangent, slope)
    torch.testing.assert_close(torch.func.grad(of)(logits), gradient)
    torch.testing.assert_close(torch.func.jacrev(of)(logits), gradient)
    stack = torch.stack([logits, 2 * logits])
    expected = torch.stack([of(z) for z in stack])
    torch.testing.assert_close(torch.vmap(of)(stack), expected)
    torch.testing.assert_close(torch.vmap(torch.func.grad(of))(stack)[0], gradient)
    both = torch.vmap(loss)(stack, torch.stack([targets, targets.roll(1, 0)]))
    torch.testing.assert_close(both[1], loss(stack[1], targets.roll(1, 0)))


@EVERY
def test_a_softmax_in_the_network_is_told_once(name):
    logits, labels = batch()
    loss = make_loss(name)
    with pytest.warns(UserWarning, match=r"logits: rows are >= 0 and sum to 1, as pro"):
        loss(logits.softmax(1), labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(logits.softmax(1), labels)
        make_loss(name)(logits.clamp_min(0), labels)  # as after a ReLU
        make_loss(name)(logits.log_softmax(1), labels)


@pytest.mark.parametrize("axis", [None, 0])
def test_an_own_loss_has_one_number_for_each_sample(axis):
    class Cells(Loss):
        def per_sample(self, log_probs, labels):
            return -log_probs if axis is None else -log_probs.amax(axis)

    with pytest.raises(ValueError, match=r"^per_sample: returned shape .* for 12 samp"):
        Cells()(*batch())


def test_adafocal_tells_probabilities():
    logits, labels = batch(60)
    with pytest.warns(UserWarning, match=r"^val_logits: rows are >= 0 and sum to 1"):
        AdaFocalLoss().update(logits.softmax(1), labels)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_many_gradients_at_once_are_those_one_by_one(size):
    logits, labels = batch(*size)
    logits.requires_grad_()
    losses = GCELoss(reduction="none")(logits, labels)[:3]
    one_by_one = [torch.autograd.grad(v, logits, retain_graph=True)[0] for v in losses]
    (found,) = torch.autograd.grad(
        losses, logits, torch.eye(3).double(), is_grads_batched=True
    )
    torch.testing.assert_close(found, torch.stack(one_by_one))


@EVERY
def test_every_loss_runs_under_vmap(name):
    stack = torch.stack([batch(seed=seed)[0] for seed in range(3)])
    labels = torch.stack([batch(seed=seed)[1] for seed in range(3)])
    loss = make_loss(name)
    expected = torch.stack([loss(*pair) for pair in zip(stack, labels, strict=True)])
    torch.testing.assert_close(torch.vmap(loss)(stack, labels), expected)


# --------------------------------------------------------------------------------------
# AdaFocal's state


def adapted():
    loss = AdaFocalLoss()
    loss.update(*batch(200, 5))
    return loss


@pytest.mark.parametrize("cast", ["half", "bfloat16", "float"])
def test_adafocal_s_buffers_never_lose_digits(cast):
    loss = adapted()
    state = copy.deepcopy(loss.state_dict())
    getattr(nn.Sequential(loss), cast)()
    for name, value in loss.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[name]), name
    assert loss.to("meta", torch.float16).bin_edges.device.type == "meta"
    assert loss.double().gamma.dtype == torch.float64


def test_adafocal_under_a_default_dtype_of_bfloat16():
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        loss = AdaFocalLoss()
    finally:
        torch.set_default_dtype(default)
    torch.testing.assert_close(loss.bin_edges, AdaFocalLoss().bin_edges)


SPOILT = {
    "gamma of 1e9": ("gamma", lambda v: v.index_fill(0, torch.tensor(3), 1e9)),
    "gamma below -2": ("gamma", lambda v: v.index_fill(0, torch.tensor(0), -2.1)),
    "NaN gamma": ("gamma", lambda v: v * math.nan),
    "another length": ("gamma", lambda v: v[:9]),
    "a matrix": ("gamma", lambda v: v[None]),
    "half precision": ("bin_edges", lambda v: v.half()),
    "whole numbers": ("gamma", lambda v: v.long()),
    "unsorted edges": ("bin_edges", lambda v: v.flip(0)),
    "NaN edges": ("bin_edges", lambda v: v.index_fill(0, torch.tensor(4), math.nan)),
    "edges beyond 1": ("bin_edges", lambda v: v + 0.5),
    "too few edges": ("bin_edges", lambda v: v[:-1]),
}


@pytest.mark.parametrize("how", SPOILT)
def test_adafocal_refuses_a_spoilt_state_and_keeps_its_own(how):
    name, spoil = SPOILT[how]
    state = adapted().state_dict()
    state[name] = spoil(state[name])
    model = nn.Sequential(AdaFocalLoss())
    with pytest.raises(ValueError, match=f"^{name}: .*; "):
        model.load_state_dict({f"0.{key}": value for key, value in state.items()})
    assert torch.equal(model[0].gamma, AdaFocalLoss().gamma)
    assert torch.equal(model[0].bin_edges, AdaFocalLoss().bin_edges)


@pytest.mark.parametrize("name", ["gamma", "bin_edges"])
@pytest.mark.parametrize("kind", ["alone", "sparse", "meta"])
def test_adafocal_looks_at_each_buffer_by_itself(name, kind):
    value = adapted().state_dict()[name] + 50
    if kind == "sparse":
        value = value.to_sparse()
    if kind == "meta":
        value = value.to("meta")
    with pytest.raises(ValueError, match=f"^{name}: .*; "):
        AdaFocalLoss().load_state_dict({name: value}, strict=False)


def test_adafocal_takes_every_state_that_update_leaves():
    loss = AdaFocalLoss(n_bins=3)
    for logits in (1e4 * batch(5, 4)[0], 0 * batch(5, 4)[0], batch(1, 4)[0]):
        for _ in range(4):
            loss.update(logits, torch.zeros(len(logits), dtype=torch.long))
        AdaFocalLoss(n_bins=3).load_state_dict(loss.state_dict())


# --------------------------------------------------------------------------------------
# Copies, and what nn.CrossEntropyLoss has and these do not


@EVERY
def test_a_copy_a_pickle_and_an_average_are_the_same_loss(name):
    takes_group = "process_group" in inspect.signature(LOSSES[name].build).parameters
    options = {"process_group": "world"} if takes_group else {}
    loss = make_loss(name, ignore_index=3, **options)
    expected = loss(*batch())
    averaged = torch.optim.swa_utils.AveragedModel(nn.Sequential(loss)).module[0]
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), averaged):
        assert copied(*batch()) == expected
        assert repr(copied) == repr(loss)


@EVERY
def test_foreign_options_are_refused_with_what_to_do(name):
    build = LOSSES[name].build
    for given in ({"weight": torch.ones(5)}, {"weight": None}):
        with pytest.raises(TypeError, match=r"^weight: .*weigh the samples yourself"):
            build(**given)
        with pytest.raises(TypeError, match=r"^weight: .*weigh the samples yourself"):
            make_loss(name, **given)
    with pytest.raises(TypeError, match=r"^weight: "):
        build(torch.ones(5))
    with pytest.raises(TypeError, match=r"^size_average: .*; use reduction="):
        build(size_average=True)
    logits, labels = batch()
    with pytest.raises(TypeError, match=r"^input: is called logits here; write loss\("):
        make_loss(name)(input=logits, target=labels)
    with pytest.raises(TypeError, match=r"^target: is called labels here"):
        make_loss(name)(logits, target=labels)
    assert make_loss(name)(logits=logits, labels=labels).isfinite()


def test_class_weights_as_the_refusal_proposes_are_torch_s():
    logits, labels = batch()
    w = torch.rand(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    losses = make_loss("ce", reduction="none")(logits, labels)
    ours = (w[labels] * losses).sum() / w[labels].sum()
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, weight=w))
    has_label = torch.arange(len(labels)) % 3 > 0
    for ignored in (-100, -1, 0):
        padded = labels.where(has_label, ignored)
        losses = make_loss("ce", reduction="none", ignore_index=ignored)(logits, padded)
        counts = padded != ignored
        weights = w[padded.where(counts, 0)] * counts
        torch.testing.assert_close(
            (weights * losses).sum() / weights.sum(),
            F.cross_entropy(logits, padded, weight=w, ignore_index=ignored),
        )


# --------------------------------------------------------------------------------------
# Accumulated gradients


def test_hooks_on_weights_see_pieces_and_are_told():
    inputs, labels = torch.randn(8, 8).double(), torch.arange(8) % 5
    for add in ("register_hook", "register_post_accumulate_grad_hook"):
        model = network()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            accumulated_backward(model, make_loss("gce"), inputs, labels, 4)
        handle = getattr(model[1].bias, add)(lambda weight: None)
        with pytest.warns(
            UserWarning, match=r"^model: 1\.bias has a hook, which is ca"
        ):
            accumulated_backward(model, make_loss("gce"), inputs, labels, 4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            accumulated_backward(model, make_loss("gce"), inputs, labels, 8)
            handle.remove()
            accumulated_backward(model, make_loss("gce"), inputs, labels, 4)


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), *layers, nn.Linear(16, 5)).double()


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("size", [1, 7, 40, 100])
@pytest.mark.parametrize(
    "loss", [GCELoss(), GCELoss(0.1, 2), MMCELoss(reduction="sum")]
)
def test_pieces_have_the_gradients_of_the_one_big_batch(loss, size):
    model = network(nn.ReLU())
    inputs, labels = torch.randn(40, 8).double(), batch(40, 5)[1]
    model(inputs).sum().backward()  # what is there is added to
    before = gradients(model)
    value = accumulated_backward(model, loss, inputs, labels, size)
    found = gradients(model)
    model.zero_grad()
    expected = loss(model(inputs), labels)
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    for got, old, new in zip(found, before, gradients(model), strict=True):
        torch.testing.assert_close(got - old, new, rtol=1e-6, atol=1e-9)


def test_plain_accumulation_would_be_another_loss():
    model = network(nn.ReLU())
    inputs, labels = torch.randn(40, 8).double(), batch(40, 5)[1]
    for piece, own in zip(inputs.split(10), labels.split(10), strict=True):
        (GCELoss()(model(piece), own) / 4).backward()
    plain = gradients(model)
    model.zero_grad()
    accumulated_backward(model, GCELoss(), inputs, labels, 10)
    difference = plain[0] - gradients(model)[0]
    assert difference.norm() > 0.01 * plain[0].norm()


@pytest.mark.parametrize("noise", [0, 1])
def test_dropout_is_replayed_and_batch_norm_counts_each_piece_once(noise):
    """The same as a loss on the logits of pieces that all keep their graph."""

    def criterion(logits, labels):
        drawn = torch.randn_like(logits) if noise else 0
        return GCELoss()(logits + drawn, labels)

    model = network(nn.Dropout(0.5), nn.BatchNorm1d(16))
    inputs, labels = torch.randn(40, 8).double(), batch(40, 5)[1]
    other = copy.deepcopy(model)
    state = torch.get_rng_state()
    value = accumulated_backward(model, criterion, inputs, labels, 10)
    drawn = torch.get_rng_state()
    torch.set_rng_state(state)
    logits = torch.cat([other(piece) for piece in inputs.split(10)])
    expected = criterion(logits, labels)
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradients(model), gradients(other))
    torch.testing.assert_close(model.state_dict(), other.state_dict())
    assert torch.equal(drawn, torch.get_rng_state())


class Draws(nn.Module):
    """Draws from another generator than torch's, and counts in a new buffer."""

    def __init__(self, draw):
        super().__init__()
        self.layer = nn.Linear(8, 5).double()
        self.draw = draw
        self.drawn = []
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mask", torch.ones(5).double().expand(3, 5))

    def forward(self, inputs):
        self.count = self.count + 1
        self.drawn.append(float(self.draw()))
        return self.layer(inputs) * self.mask[0] * (0.1 + self.drawn[-1])


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_other_generators_are_replayed_and_new_buffers_count_once(draw):
    model = Draws(draw)
    inputs, labels = torch.randn(40, 8).double(), batch(40, 5)[1]
    accumulated_backward(model, GCELoss(), inputs, labels, 10)
    found = gradients(model.layer)
    assert model.drawn[:4] == model.drawn[4:]
    assert model.count == 4
    factors = torch.tensor(model.drawn[:4]).double().repeat_interleave(10) + 0.1
    model.zero_grad()
    GCELoss()(model.layer(inputs) * factors[:, None], labels).backward()
    torch.testing.assert_close(found, gradients(model.layer))


@pytest.mark.parametrize(
    "draw", [random.random, np.random.rand, lambda: torch.rand(())]
)
def test_a_criterion_never_draws_the_same_again(draw):
    """The network of the first steps draws nothing, that of the last ones does."""
    drawn = []

    def criterion(logits, labels):
        drawn.append(float(draw()))
        return GCELoss()(logits, labels)

    inputs, labels = torch.randn(40, 8).double(), batch(40, 5)[1]
    still, moving = network(), Draws(draw)
    for model in (still, still, moving, moving):
        accumulated_backward(model, criterion, inputs, labels, 10)
    first_passes = moving.drawn[:4] + moving.drawn[8:12]
    assert len({*drawn, *first_passes}) == 4 + 8


class Fades(nn.Module):
    """Writes to its input, as nobody should: x *= 0.97."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x.mul_(0.97))


@pytest.mark.parametrize("size", [7, 30])
def test_inputs_that_the_network_changes_in_place_are_changed_once(size):
    torch.manual_seed(0)
    model = Fades()
    inputs, labels = torch.randn(30, 6), torch.arange(30) % 3
    weights = tuple(model.parameters())
    whole, given = inputs.clone(), inputs.clone()
    expected = torch.autograd.grad(GCELoss()(model(whole), labels), weights)
    accumulated_backward(model, GCELoss(), given, labels, size)
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient)
    assert torch.equal(given, whole)


def test_a_second_pass_that_is_no_replay_is_told():
    own = random.Random(0)
    inputs, labels = torch.randn(40, 8).double(), batch(40, 5)[1]
    with pytest.warns(UserWarning, match="model: gave other logits when it was run"):
        accumulated_backward(Draws(own.random), GCELoss(), inputs, labels, 10)


def test_autocast_does_not_lose_the_gradients_in_its_cache():
    model = network().float()
    inputs, labels = torch.randn(40, 8), batch(40, 5)[1]
    with torch.autocast("cpu", torch.bfloat16):
        accumulated_backward(model, GCELoss(), inputs, labels, 10)
        found = gradients(model)
        model.zero_grad()
        GCELoss()(model(inputs), labels).backward()
    torch.testing.assert_close(found, gradients(model), rtol=0.02, atol=0.002)


def test_no_gradients_and_layers_without_a_shape_are_refused():
    inputs, labels = torch.randn(40, 8).double(), batch(40, 5)[1]
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match=r"^accumulated_backward: grad"),
    ):
        accumulated_backward(network(), GCELoss(), inputs, labels, 10)
    lazy = network(nn.LazyBatchNorm1d())
    with pytest.raises(ValueError, match=r"^model: has buffers without a shape"):
        accumulated_backward(lazy, GCELoss(), inputs, labels, 10)


class Summed(nn.Module):
    def forward(self, inputs):
        return inputs.sum()


def test_cached_weights_without_a_gradient_are_refused():
    """The second pass would find those of the first, and only biases would learn."""
    model = torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 5).double())
    inputs = torch.randn(40, 8).double()
    labels = batch(40, 5)[1]
    message = r"^accumulated_backward: is called within .*parametrize.cached"
    with (
        torch.nn.utils.parametrize.cached(),
        pytest.raises(ValueError, match=message),
    ):
        accumulated_backward(model, GCELoss(), inputs, labels, 10)
    accumulated_backward(model, GCELoss(), inputs, labels, 10)
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"micro_batch_size": 0}, ValueError, "^micro_batch_size: 0 is outside"),
        ({"micro_batch_size": 2.5}, TypeError, "^micro_batch_size: must be a whole"),
        ({"inputs": [1, 2]}, TypeError, "^inputs: must be a torch tensor, got list"),
        ({"labels": torch.zeros(3)}, ValueError, "^labels: has 3 entries for 40"),
        ({"model": Summed()}, TypeError, "^model: returned"),
        ({"criterion": GCELoss(reduction="none")}, ValueError, "^criterion: returned"),
    ],
)
def test_what_cannot_be_accumulated_is_refused(change, error, message):
    given = {
        "model": network(),
        "criterion": GCELoss(),
        "inputs": torch.randn(40, 8).double(),
        "labels": batch(40, 5)[1],
        "micro_batch_size": 10,
    }
    with pytest.raises(error, match=message):
        accumulated_backward(**(given | change))


def test_only_cross_entropy_brings_a_class_back_that_is_lost_in_the_whole_batch():
    """What GCELoss's notes say of classes that lie 60 below the top in all samples."""
    logits, labels = batch(128, 10)

    def pull(name, **options):
        shift = torch.zeros(10, dtype=torch.float64)
        shift[0] = 60
        shift.requires_grad_()
        make_loss(name, **options)(logits + shift, labels).backward()
        return shift.grad

    of_ce = pull("ce")
    shares = torch.bincount(labels, minlength=10) / 128
    torch.testing.assert_close(of_ce[1:], -shares[1:].double())
    assert float(pull("gce").abs().max()) < 1e-12
    torch.testing.assert_close(pull("gce", regularizer_weight=0.9), 0.1 * of_ce)
