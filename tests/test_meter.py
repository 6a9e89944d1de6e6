"""A meter fed batch by batch says what ``evaluate`` says of all samples at once."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

import gcelib
from gcelib import CalibrationMeter, blocks, evaluate, reliability

NAMES = ("error", "nll", "brier", "ece", "classwise_ece")


def sample(n, k, seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=rng).mul_(3).to(dtype)
    labels = torch.randint(k, (n,), generator=rng)
    logits[: n // 2, 0] += 2
    return logits, labels


def filled(meter, logits, labels, size=64):
    for rows in torch.arange(len(labels)).split(size):
        meter.update(logits[rows], labels[rows])
    return meter


def check(meter, logits, labels):
    expected = evaluate(logits, labels, meter.n_bins)
    assert meter.compute() == pytest.approx({n: expected[n] for n in NAMES}, abs=1e-6)
    found = meter.reliability()
    bins = reliability(logits, labels, meter.n_bins)
    np.testing.assert_array_equal(found.counts, bins.counts)
    np.testing.assert_allclose(found.confidence, bins.confidence)
    np.testing.assert_allclose(found.accuracy, bins.accuracy)
    assert found.ece == pytest.approx(meter.compute()["ece"])


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    st.integers(0, 2**20),
    st.integers(1, 300),
    st.integers(2, 40),
    st.integers(1, 30),
    st.integers(1, 120),
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_batches_of_any_size_give_the_numbers_of_all(seed, n, k, n_bins, size, dtype):
    logits, labels = sample(n, k, seed, dtype)
    check(filled(CalibrationMeter(k, n_bins), logits, labels, size), logits, labels)


@pytest.mark.parametrize("k", [3, 40])
def test_the_path_of_accelerators_gives_the_same_numbers(k, monkeypatch):
    logits, labels = sample(200, k)
    monkeypatch.setattr(blocks, "CpuBlock", blocks.Block)
    meter = filled(CalibrationMeter(k), logits, labels)
    monkeypatch.undo()
    check(meter, logits, labels)


def test_scores_on_an_accelerator_that_are_not_finite_are_refused_in_the_end():
    logits, labels = sample(20, 3)
    logits[7, 1] = torch.nan
    meter = CalibrationMeter(3)
    meter._add_up(logits, labels, False)  # what follows where no value is looked at
    with pytest.raises(ValueError, match=r"^meter: some logits were NaN"):
        meter.compute()


def test_merged_pickled_and_copied_meters_hold_all_samples():
    logits, labels = sample(500, 7)
    parts = [
        filled(CalibrationMeter(7), logits[rows], labels[rows])
        for rows in torch.arange(500).split(123)
    ]
    total = CalibrationMeter(7)
    for part in parts:
        before = part.compute()
        total.merge(pickle.loads(pickle.dumps(part)))
        assert part.compute() == before
    total.merge(CalibrationMeter(7))  # which saw nothing
    check(total, logits, labels)
    other = copy.deepcopy(total)
    other.update(logits, labels)
    check(total, logits, labels)
    other.reset()
    check(filled(other, logits, labels), logits, labels)


def test_a_copy_waits_for_its_own_batches_alone():
    logits, labels = sample(20, 3)
    for meter in (CalibrationMeter(3), filled(CalibrationMeter(3), logits, labels)):
        other = copy.copy(meter)
        before = 0 if meter._sums is None else 20
        meter.update(logits[:5], labels[:5])
        other.update(logits[:3], labels[:3])
        assert meter.reliability().counts.sum() == before + 5
        assert other.reliability().counts.sum() == before + 3
    with pytest.raises(ValueError, match=r"^other: is this meter"):
        meter.merge(meter)


def test_a_label_of_probability_0_makes_the_nll_infinite_and_nothing_else():
    p, labels = torch.tensor([[1.0, 0], [0.5, 0.5], [0, 1]]), torch.tensor([1, 0, 1])
    meter = CalibrationMeter(2)
    meter.update(p, labels, probabilities=True)
    with pytest.warns(UserWarning, match="labels have the probability 0"):
        expected = evaluate(p, labels, probabilities=True)
    with pytest.warns(UserWarning, match="labels have the probability 0"):
        found = meter.compute()
    assert found == pytest.approx({name: expected[name] for name in NAMES})
    assert meter.reliability().counts.sum() == 3


def test_probabilities_and_empty_batches():
    logits, labels = sample(100, 4)
    meter = CalibrationMeter(4)
    meter.update(logits[:0], labels[:0])
    meter.update(logits.softmax(1), labels, probabilities=True)
    check(meter, logits, labels)
    with pytest.warns(UserWarning, match="probabilities=True"):
        meter.update(logits.softmax(1), labels)


def test_the_state_does_not_grow():
    meter = CalibrationMeter(10)
    for seed in range(3):
        filled(meter, *sample(200, 10, seed))
        assert len(pickle.dumps(meter)) < 4000


@pytest.mark.parametrize(
    ("guilty", "call"),
    [
        ("logits", lambda m, z, y: m.update(z[:, :2], y)),
        ("logits", lambda m, z, y: m.update(z.log(), y)),
        ("logits", lambda m, z, y: m.update(z[0], y)),
        ("labels", lambda m, z, y: m.update(z, y[:3])),
        ("labels", lambda m, z, y: m.update(z, y + 3)),
        ("labels", lambda m, z, y: m.update(z, y.float())),
        ("probabilities", lambda m, z, y: m.update(z, y, probabilities=1)),
        ("other", lambda m, z, y: m.merge(CalibrationMeter(4))),
        ("other", lambda m, z, y: m.merge(CalibrationMeter(3, 10))),
        ("other", lambda m, z, y: m.merge({})),
        ("n_classes", lambda m, z, y: CalibrationMeter(1)),
        ("n_classes", lambda m, z, y: CalibrationMeter("3")),
        ("n_bins", lambda m, z, y: CalibrationMeter(3, 0)),
    ],
)
def test_bad_batches_leave_the_meter_as_it_was(guilty, call):
    logits, labels = sample(50, 3)
    meter = filled(CalibrationMeter(3), logits, labels)
    before = meter.compute()
    with pytest.raises((ValueError, TypeError), match=rf"^{guilty}: .+; .+"):
        call(meter, logits, labels)
    assert meter.compute() == before


def test_an_empty_meter_has_no_numbers():
    for call in (CalibrationMeter.compute, CalibrationMeter.reliability):
        with pytest.raises(ValueError, match=r"^meter: has seen no samples; "):
            call(CalibrationMeter(3))


def one_process(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    logits, labels = sample(300, 5)
    meter = CalibrationMeter(5)
    if rank == 0:
        filled(meter, logits[:211], labels[:211])
    late = CalibrationMeter(5)  # one that saw no sample here
    if rank == 1:
        filled(meter, logits[211:], labels[211:])
        filled(late, logits, labels)
    meter.sync()
    late.sync()
    check(meter, logits, labels)
    check(late, logits, labels)
    for call in (meter.sync, lambda: meter.update(logits, labels)):
        with pytest.raises(ValueError, match=r"^meter: holds the samples of all"):
            call()
    late.merge(meter)  # both hold all
    assert late.reliability().counts.sum() == 600
    fresh = CalibrationMeter(5)
    fresh.merge(meter)
    with pytest.raises(ValueError, match=r"^meter: holds the samples of all"):
        fresh.sync()
    own = filled(CalibrationMeter(5), logits, labels)
    for one, other in ((own, meter), (meter, own)):
        with pytest.raises(ValueError, match=r"^other: does not hold the samples of"):
            one.merge(other)
    torch.distributed.destroy_process_group()


def test_two_processes_add_up(tmp_path):
    torch.multiprocessing.spawn(one_process, (str(tmp_path),), nprocs=2)


def no_look(name):
    """Whether the operator brings a value to Python, or a tensor to another device."""
    return name.startswith(("aten._local_scalar_dense", "aten.nonzero", "aten.item"))


class Watched(TorchDispatchMode):
    """Which operators run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(str(operator))
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("size", [150_000, 500_000])
def test_on_an_accelerator_no_batch_waits_for_the_device(size):
    """Tensors that say "cuda" and hold nothing: whoever wants a value gets an error."""
    with FakeTensorMode() as mode, Watched() as watched:
        logits = torch.empty(size, 10, device="cuda")
        labels = torch.zeros(size, dtype=torch.int64, device="cuda")
        meter = CalibrationMeter(10)
        for _ in range(4):
            meter.update(logits, labels)
        assert meter._sums.device.type == "cuda"
        assert mode is not None
    assert not [name for name in watched.names if no_look(name)]
    assert not any("cpu" in name for name in watched.names)


def test_the_watch_sees_what_it_watches_for():
    with FakeTensorMode():
        value = torch.zeros((), device="cuda")
        with pytest.raises(DataDependentOutputException):
            value.item()
    with Watched() as watched:
        float(torch.zeros(()))
    assert [name for name in watched.names if no_look(name)]


@pytest.mark.parametrize(
    "name", ["ece", "adaptive_ece", "classwise_ece", "nll", "error"]
)
def test_a_metric_looks_at_no_value_block_by_block(name, monkeypatch):
    """On the accelerators' path it reads results once, not once a block."""
    monkeypatch.setattr(blocks, "CpuBlock", blocks.Block)
    monkeypatch.setattr(blocks, "CELLS", 2000)
    looks = []
    for n in (400, 4000):  # two blocks, and twenty
        logits, labels = sample(n, 10)
        with Watched() as watched:
            getattr(gcelib, name)(logits, labels)
        looks.append(sum(no_look(operator) for operator in watched.names))
    assert looks[0] == looks[1]


def test_small_batches_may_be_written_over_and_mixed():
    """They wait to be added up together; no batch is lost, none is added twice."""
    logits, labels = sample(700, 10)
    meter = CalibrationMeter(10)
    memory = torch.empty(70, 10)
    marks = torch.empty(70, dtype=torch.int64)
    for rows in torch.arange(700).split(70):
        memory.copy_(logits[rows])
        marks.copy_(labels[rows])
        meter.update(memory, marks)
    check(meter, logits, labels)
    check(meter, logits, labels)
    other = CalibrationMeter(10)
    for i, rows in enumerate(torch.arange(700).split(70)):
        if i % 3 == 0:
            other.update(logits[rows].double(), labels[rows].int())
        elif i % 3 == 1:
            other.update(logits[rows].softmax(1), labels[rows], probabilities=True)
        else:
            other.update(logits[rows], labels[rows])
    check(other, logits, labels)
    other.merge(meter)
    both = torch.cat([logits, logits]), torch.cat([labels, labels])
    check(other, *both)
    other.reset()
    with pytest.raises(ValueError, match="has seen no samples"):
        other.compute()


@pytest.mark.parametrize("name", ["autocast", "TF32"])
def test_intervals_on_an_accelerators_path_are_not_rounded(name, monkeypatch):
    """Its sums of probabilities over resamples are a product of matrices."""
    logits, labels = sample(3000, 12)
    expected = evaluate(logits, labels, bootstrap=20)
    monkeypatch.setattr(blocks, "CpuBlock", blocks.Block)
    if name == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            found = evaluate(logits, labels, bootstrap=20)
    else:
        seen = []
        matmul = torch.Tensor.__matmul__

        def watched(one, other):
            seen.append(one.dtype)
            return matmul(one, other)

        monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
        found = evaluate(logits, labels, bootstrap=20)
        assert {*seen} == {torch.float64}
    assert found == pytest.approx(expected, abs=1e-6)


def test_what_failed_to_be_added_up_still_waits(monkeypatch):
    """A count that is broken off (no memory, an interrupt) loses no samples."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(600, 10, generator=generator)
    labels = torch.randint(10, (600,), generator=generator)
    meter = CalibrationMeter(10)
    for rows in torch.arange(600).split(100):
        meter.update(logits[rows], labels[rows])

    def fails(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(meter, "_add_up", fails)
        with pytest.raises(MemoryError):
            meter.compute()
    found = meter.compute()
    expected = evaluate(logits, labels, meter.n_bins)
    assert found == pytest.approx({n: expected[n] for n in found}, abs=2e-6)


def test_half_precision_is_added_up_under_another_autocast():
    logits = torch.randn(600, 10, generator=torch.Generator().manual_seed(0)).half()
    labels = torch.arange(600) % 10
    found = []
    for enabled in (False, True):
        meter = CalibrationMeter(10)
        meter.update(logits, labels)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(meter.compute())
    assert found[0] == found[1]
