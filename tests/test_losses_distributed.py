"""GCE over several processes: after DDP's averaging, the parameters' gradients are
those of one process.

Three real processes on the loopback interface, the gloo backend, real
DistributedDataParallel, shards of unequal size; then the same for a group of two of
them. They meet at a file, so no port can clash.
"""

import copy
import gc
import json
import os
import pickle
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from gcelib import accumulated_backward
from gcelib.losses import make_loss

N_SAMPLES, N_FEATURES, N_CLASSES = 23, 6, 4
# Unequal shards; of three processes one has a single sample.
CUTS = {2: [0, 5, 23], 3: [0, 12, 13, 23]}

VARIANTS = {
    "gce": ("gce", {}),
    "sum": ("gce", {"reduction": "sum"}),
    "lambda": ("gce", {"regularizer_weight": 0.4}),
    "cross-entropy": ("gce", {"regularizer_weight": 0}),
    "smoothing and focal": ("gce", {"label_smoothing": 0.1, "focal_gamma": 2}),
    "soft targets": ("gce", {}),
    "underflow": ("gce", {}),
    "afl_gce": ("afl_gce", {}),
    "ignored": ("gce", {"ignore_index": -1}),
    "masked": ("gce", {}),
    "accumulated": ("gce", {}),
    "sums of each sample's": ("gce", {"reduction": "none"}),
}


def material(variant):
    """The whole batch and a model, the same in every process."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(N_SAMPLES, N_FEATURES, generator=generator)
    labels = torch.randint(N_CLASSES, (N_SAMPLES,), generator=generator)
    model = torch.nn.Linear(N_FEATURES, N_CLASSES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if variant == "underflow":  # every probability of class 0 is 0 in float32
            model.bias[0] = -200
    if variant == "masked":
        labels = torch.where(labels % 2 == 0, 1, labels)
    if variant == "soft targets":
        labels = torch.randn(N_SAMPLES, N_CLASSES, generator=generator).softmax(1)
    if variant == "ignored":  # the only sample of the second of three processes is one
        labels[[0, 3, 12, 20]] = -1
    return inputs, labels, model


def logits_of(variant, model, inputs):
    logits = model(inputs)
    if variant == "masked":  # nobody has class 2, and not everybody class 0
        logits = logits.index_fill(1, torch.tensor(2), -torch.inf)
        no_class_0 = (inputs[:, :1] > 0) & (torch.arange(N_CLASSES) == 0)
        logits = logits.masked_fill(no_class_0, -torch.inf)
    return logits


def values_and_gradients(group):
    """Every variant under DDP on this process's shard."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    shard = slice(*CUTS[size][rank : rank + 2])
    found = {}
    for variant, (name, options) in VARIANTS.items():
        inputs, labels, model = material(variant)
        model = DistributedDataParallel(model, process_group=group)
        loss = make_loss(name, process_group=group, **options)
        if variant == "accumulated":
            value = accumulated_backward(model, loss, inputs[shard], labels[shard], 2)
        else:
            value = loss(logits_of(variant, model, inputs[shard]), labels[shard])
            if variant == "sums of each sample's":  # as Hugging Face's Trainer does it
                value = value.sum() * size / N_SAMPLES
            value.backward()
        found[variant] = [value.item(), *(p.grad.tolist() for p in model.parameters())]
    with torch.no_grad():
        inputs, labels, model = material("gce")
        loss = make_loss("gce", process_group=group, reduction="none")
        found["none"] = loss(model(inputs[shard]), labels[shard]).tolist()
    return found


def buffers_after_steps(group):
    """Running means of a batch norm, after steps as DDP takes them and in one piece."""
    rank = dist.get_rank(group)
    found = {}
    for way in ("plain", "accumulated"):
        generator = torch.Generator().manual_seed(rank)
        norm = torch.nn.BatchNorm1d(N_FEATURES)
        layer = torch.nn.Linear(N_FEATURES, N_CLASSES)
        torch.nn.init.constant_(layer.weight, 0.1)
        torch.nn.init.zeros_(layer.bias)
        network = torch.nn.Sequential(norm, layer)
        model = DistributedDataParallel(network, process_group=group)
        loss = make_loss("gce", process_group=group)
        for _ in range(3):
            inputs = rank + torch.randn(8, N_FEATURES, generator=generator)
            labels = torch.arange(8) % N_CLASSES
            if way == "plain":
                loss(model(inputs), labels).backward()
            else:
                accumulated_backward(model, loss, inputs, labels, 8)
        found[way] = norm.running_mean.tolist()
    return found


def what_is_said(rank, pair):
    """Values of ``process_group=``, of copies and pickles, on this process's shard."""
    inputs, labels, model = material("gce")
    shard = slice(*CUTS[3][rank : rank + 2])
    if rank == 1:  # one sample would warn
        shard = slice(10, 13)
    logits, labels = model(inputs[shard]).detach(), labels[shard]

    def value(loss):
        try:
            return loss(logits, labels).item()
        except ValueError as error:
            return str(error)

    def trained(loss):
        """As in a module in evaluation mode, for its batch norm, that is trained."""
        weights = logits.clone().requires_grad_()
        with torch.no_grad():
            unread = loss(weights, labels).item()
        try:
            loss(weights, labels).backward()
        except ValueError as error:
            return str(error)
        return unread

    def accumulated(loss):
        try:
            return accumulated_backward(model, loss, inputs[shard], labels, 2).item()
        except ValueError as error:
            return str(error)

    world = make_loss("gce", process_group=dist.group.WORLD)
    said = {
        "unsaid": value(make_loss("gce")),
        "unsaid, afl_gce": value(make_loss("afl_gce")),
        "unsaid, afl": value(make_loss("afl")),
        "unsaid, cross-entropy": value(make_loss("gce", regularizer_weight=0)),
        "unsaid, evaluation": value(make_loss("gce").eval()),
        "unsaid, frozen": trained(make_loss("gce").eval()),
        "unsaid, afl_gce, frozen": trained(make_loss("afl_gce").eval()),
        "unsaid, accumulated": accumulated(make_loss("gce").eval()),
        "local": value(make_loss("gce", process_group="local")),
        "WORLD": value(world),
        "world": value(make_loss("gce", process_group="world")),
        "copied": value(copy.deepcopy(world)),
        "pickled": value(pickle.loads(pickle.dumps(world))),
        "averaged": value(torch.optim.swa_utils.AveragedModel(world).module),
    }
    if rank < 2:
        of_pair = make_loss("gce", process_group=pair)
        said["pair"] = value(of_pair)
        said["pair, copied"] = value(copy.deepcopy(of_pair))
        said["pair, pickled"] = value(pickle.loads(pickle.dumps(of_pair)))
    return said


def worker(rank, folder):
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    meeting_point = f"file://{folder / 'meeting'}"
    timeout = timedelta(seconds=120)
    dist.init_process_group(
        "gloo", init_method=meeting_point, rank=rank, world_size=3, timeout=timeout
    )
    found = {3: values_and_gradients(dist.group.WORLD)}
    pair = dist.new_group([0, 1])
    if rank < 2:
        found[2] = values_and_gradients(pair)
    found["buffers"] = buffers_after_steps(dist.group.WORLD)
    found["said"] = what_is_said(rank, pair)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    gc.collect()  # DDP's threads must end before the interpreter does
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of three processes saw: by rank, by size of the group (as text), by
    variant."""
    folder = tmp_path_factory.mktemp("processes")
    # Forked from a process that has imported torch once: three imports take longer than
    # all the rest.
    torch.multiprocessing.start_processes(
        worker, (folder,), nprocs=3, start_method="forkserver"
    )
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


@pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(),
    reason="this PyTorch lacks gloo",
)
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_averaged_by_ddp_are_those_of_one_process(variant, size, found):
    name, options = VARIANTS[variant]
    seen = [found[rank][str(size)][variant] for rank in range(size)]
    inputs, labels, model = material(variant)
    model, inputs = model.double(), inputs.double()
    if options == {"reduction": "none"}:
        options = {}  # what is expected is the mean over all
    value = make_loss(name, **options)(logits_of(variant, model, inputs), labels)
    value.backward()
    assert sum(rank[0] for rank in seen) / size == pytest.approx(value.item(), rel=1e-5)
    # float32 logits of -200 are multiples of 1.5e-5.
    atol = 1e-4 if variant == "underflow" else 1e-6
    for i, parameter in enumerate(model.parameters(), 1):
        for rank in seen:
            gradient = torch.tensor(rank[i], dtype=torch.float64)
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=atol)


@pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(),
    reason="this PyTorch lacks gloo",
)
@pytest.mark.parametrize("size", [2, 3])
def test_losses_of_single_samples_are_not_scaled(size, found):
    inputs, labels, model = material("gce")
    expected = make_loss("gce", reduction="none")(model(inputs), labels)
    seen = [value for rank in range(size) for value in found[rank][str(size)]["none"]]
    torch.testing.assert_close(
        torch.tensor(seen), expected.detach(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(),
    reason="this PyTorch lacks gloo",
)
def test_a_group_that_nobody_named_is_refused_where_several_train(found):
    for rank in found:
        said = rank["said"]
        frozen = ("unsaid, frozen", "unsaid, afl_gce, frozen", "unsaid, accumulated")
        for name in ("unsaid", "unsaid, afl_gce", *frozen):
            assert said[name].startswith("process_group: is None")
            assert "3 processes train together; pass 'world'" in said[name]
        assert said["unsaid, evaluation"] == said["local"]
        for name in ("unsaid, afl", "unsaid, cross-entropy"):
            assert isinstance(said[name], float)


@pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(),
    reason="this PyTorch lacks gloo",
)
def test_the_world_its_copies_and_its_pickles_are_one_group(found):
    for rank in found:
        said = rank["said"]
        assert said["local"] != said["WORLD"]
        for name in ("world", "copied", "pickled", "averaged"):
            assert said[name] == said["WORLD"], name
    for rank in found[:2]:
        said = rank["said"]
        assert said["pair"] == said["pair, copied"] != said["WORLD"]
        lost = "process_group: the group of ranks [0, 1] did not survive pickling; set"
        assert said["pair, pickled"].startswith(lost)


def test_averaging_the_shards_own_losses_would_be_another_loss():
    """Why process_group exists."""
    inputs, labels, model = material("gce")
    whole = make_loss("gce")(model(inputs), labels)
    shards = [slice(0, 5), slice(5, 23)]
    parts = (
        sum(
            make_loss("gce")(model(inputs[s]), labels[s]) * (s.stop - s.start)
            for s in shards
        )
        / N_SAMPLES
    )
    gradients = [torch.autograd.grad(loss, model.weight)[0] for loss in (whole, parts)]
    assert (gradients[0] - gradients[1]).abs().max() > 0.01


@pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(),
    reason="this PyTorch lacks gloo",
)
def test_buffers_that_ddp_sends_to_all_processes_stay_sent(found):
    for rank in range(3):
        buffers = found[rank]["buffers"]
        assert buffers["accumulated"] == pytest.approx(buffers["plain"], abs=1e-6)
    assert found[1]["buffers"]["plain"] != found[0]["buffers"]["plain"]
