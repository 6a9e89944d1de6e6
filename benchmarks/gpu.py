"""What training costs on a GPU, measured with the library's own loop: ``python
benchmarks/gpu.py``.

Random images of 32 x 32, batches of 128, the paper's four networks. Writes ``gpu.csv``
and ``gpu.md`` to ``--out`` (default ``benchmarks/results``) after every measurement,
and ends within ``--minutes``: repeat the command to measure what the first time left
over, or what a kill cut off. ``--device cpu --quick`` goes through the same code in a
minute. Needs torch, torchvision, numpy and Pillow; no installation, no papermill and no
network.
"""

import argparse
import contextlib
import csv
import dataclasses
import datetime
import functools
import gc
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

# A lent machine need not install gcelib.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import _timing
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gcelib import data, losses, models, runs, training
from gcelib.study import own_losses

PAPER = ("resnet50", "resnet110", "wrn_28_10", "densenet121")
COLUMNS = ("section", "model", "case", "measure", "value")
CASES = {
    "fp32": {"precision": "fp32", "channels_last": False},
    "tf32": {"precision": "tf32", "channels_last": False},
    "bf16": {"precision": "bf16", "channels_last": False},
    "bf16 channels-last": {"precision": "bf16"},
}
DEFAULT, REFERENCE = "bf16 channels-last", "reference loop"
COMPILED = {
    f"{DEFAULT}, compile": "default",
    f"{DEFAULT}, compile, CUDA graphs": "reduce-overhead",
}
GROUPS = {  # of PyTorch's operators, by what is in their names
    "convolutions, matrix products": ("conv", "mm"),
    "batch norm": ("batch_norm",),
    "optimizer": ("sgd", "foreach", "Optimizer"),
    "casts, copies": ("copy",),
    "all else": ("",),
}


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured. steps: in one timed epoch; seconds: that a measurement
    lasts at least.
    """

    batch: int = 128
    pixels: int = 32
    steps: int = 20
    loss_steps: int = 10
    rounds: int = 11
    seconds: float = 1.5
    matmul: int = 8192
    train: int = 45_000
    val: int = 5_000
    loaders: int = 4
    processes: tuple = (1, 2, 3)
    backend: str = "inductor"


QUICK = Size(4, 8, 1, 1, 2, 0, 128, 40, 20, 1, (2,), "eager")


# --- the library's loop, on random images ---------------------------------------------


def random_split(n, size, device):
    """``n`` random uint8 images and labels of ten classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        256, (n, 3, size.pixels, size.pixels), dtype=torch.uint8, generator=generator
    )
    return images.to(device), torch.randint(10, (n,), generator=generator).to(device)


def make_state(
    model, size, device, precision="auto", channels_last=True, compiled=None
):
    """What ``gcelib.fit`` makes for a run: network, optimiser, loss, and the
    loop ``train_epoch``.
    """
    part = random_split(2, size, "cpu")
    shape = (3, size.pixels, size.pixels)
    constants = (torch.tensor(c) for c in data.CIFAR)
    splits = data.Splits(
        "cifar10", part, part, part, 10, *constants, tuple("0123456789"), shape, True
    )
    where = "cpu" if device.type == "meta" else str(device)
    config = training.TrainConfig(
        "cifar10",
        model,
        "ce",
        precision=precision,
        batch_size=size.batch,
        lr=1e-3,
        device=where,
    )
    settings = dataclasses.replace(config.resolved(), device=str(device))  # "meta", too
    with contextlib.ExitStack() as stack:
        if device.type == "meta":  # whose losses have no values to compare
            stack.enter_context(mock.patch.object(own_losses, "rehearse"))
        state = training.Trainer(training.Job(settings, splits))
    state.layout = torch.channels_last if channels_last else torch.contiguous_format
    state.model.to(memory_format=state.layout)
    if compiled:
        state.compiled = torch.compile(
            state.model, dynamic=False, mode=compiled, backend=size.backend
        )
    return state


def step_seconds(state, size, seconds=None):
    """Median seconds of a training step, over epochs of ``size.steps``; each ends when
    the device has finished.
    """
    part = random_split(size.steps * size.batch, size, state.device)
    # cuDNN chooses its kernels.
    state.train_epoch(0, tuple(t[: 3 * size.batch] for t in part))
    times = []
    while len(times) < 3 or sum(times) < (size.seconds if seconds is None else seconds):
        start = time.perf_counter()
        state.train_epoch(len(times), part)
        times.append(time.perf_counter() - start)
    return statistics.median(times) / size.steps


@functools.cache
def step_flops(model, batch, pixels):
    """Floating-point operations of a step's forward and backward pass, counted from the
    shapes alone.
    """
    with torch.device("meta"):
        network = models.make_model(model, 10, (3, pixels, pixels))
        x = torch.empty(batch, 3, pixels, pixels)
    with FlopCounterMode(display=False) as counter:
        network(x).sum().backward()
    return counter.get_total_flops()


def wait_for(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def peak_memory(device, result):
    """Puts the device's peak inside the block, in MiB, into ``result``; on a CPU,
    nothing.
    """
    gc.collect()
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    yield
    result["memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20


def speed(model, size, seconds):
    flops = step_flops(model, size.batch, size.pixels) / seconds
    return {
        "images_per_second": size.batch / seconds,
        "ms_per_step": 1e3 * seconds,
        "tflops": flops / 1e12,
    }


# --- measurements: each returns a dict measure -> number ------------------------------


def matmul(precision, size, device):
    """TFLOP/s of the largest square product that ought to fill the card; the best of
    five.
    """
    n = size.matmul
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    best = float("inf")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        for _ in range(7):  # two of them to warm up
            wait_for(device)
            start = time.perf_counter()
            for _ in range(5):
                a @ b
            wait_for(device)
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_float32_matmul_precision(before)
    return {"tflops": 5 * 2 * n**3 / best / 1e12}


def copy(size, device):
    """GB/s of a copy within the device's memory, read and write counted."""
    source = torch.randn(size.matmul, 8 * size.matmul, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(5):
        wait_for(device)
        start = time.perf_counter()
        target.copy_(source)
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return {"gb_per_second": 2 * source.nbytes / best / 1e9}


def step(model, case, size, device):
    result = {}
    with peak_memory(device, result):
        seconds = step_seconds(make_state(model, size, device, **CASES[case]), size)
    return speed(model, size, seconds) | result


class PilImages(torch.utils.data.Dataset):
    """CIFAR as torchvision gives it: every image through PIL, one by one, in a worker
    process.
    """

    def __init__(self, n, size):
        from torchvision import transforms as T

        images, self.labels = random_split(n, size, "cpu")
        self.images = images.permute(0, 2, 3, 1).numpy()
        crop = T.RandomCrop(size.pixels, padding=4)
        self.transform = T.Compose(
            [crop, T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(*data.CIFAR)]
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        from PIL import Image

        return self.transform(Image.fromarray(self.images[i])), int(self.labels[i])


def reference(model, size, device):
    """The plain loop of public code: float32, DataLoader, PIL, ``.item()`` in each
    step; PyTorch's defaults otherwise.

    Those let convolutions use TF32. cuDNN chooses its kernels, as there. Starting the
    workers is not counted.
    """
    warm = 2 if size.loaders == 1 else 10
    steps = 4 * size.steps
    result = {}
    images = PilImages((warm + steps) * size.batch, size)
    pinned = device.type == "cuda"
    loader = torch.utils.data.DataLoader(
        images, size.batch, True, num_workers=size.loaders, pin_memory=pinned
    )
    with (
        peak_memory(device, result),
        torch.backends.cudnn.flags(enabled=True, benchmark=True),
    ):
        network = models.make_model(model, 10, (3, size.pixels, size.pixels)).to(device)
        optimizer = torch.optim.SGD(
            network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4
        )
        total, start = 0.0, 0.0
        for i, (x, labels) in enumerate(loader):
            if i == warm:
                wait_for(device)
                start = time.perf_counter()
            x, labels = x.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 2)
            total += loss.item()
            optimizer.step()
        wait_for(device)
        seconds = (time.perf_counter() - start) / steps
    return speed(model, size, seconds) | result


def loss_ratios(model, size, device):
    """Every loss's step as a ratio to cross-entropy's: the same network, interleaved,
    median of paired ratios.
    """
    state = make_state(model, size, device)
    part = random_split(size.loss_steps * size.batch, size, device)
    criteria = {
        name: losses.make_loss(name).to(device)
        for name in ("ce", *sorted({*losses.LOSSES} - {"ce"}))
    }
    criteria["ce again"] = criteria["ce"]  # how far from 1 noise alone leads

    def epoch(criterion):
        state.criterion = criterion
        state.train_epoch(0, part)

    clock = time.perf_counter if device.type == "cuda" else time.process_time
    calls = {
        name: functools.partial(epoch, criterion)
        for name, criterion in criteria.items()
    }
    times = _timing.interleaved(calls, 0, size.rounds, clock=clock)
    return {name: _timing.ratio(times, name, "ce") for name in criteria if name != "ce"}


def around(model, size, device, images_per_second):
    """What comes on top of an epoch's steps, in seconds: AdaFocal's look at validation
    and its update; a checkpoint.
    """
    state = make_state(model, size, device)
    val = random_split(size.val, size, device)
    criterion = losses.make_loss("afl").to(device)
    result = {"train_s": size.train / images_per_second}

    def predict():
        result["logits"] = state.predict(val[0])

    def update():
        criterion.update(result["logits"].to(device), val[1])
        wait_for(device)

    with tempfile.TemporaryDirectory() as folder:
        calls = {"val_s": predict, "afl_update_s": update}
        calls["checkpoint_s"] = lambda: runs.save_checkpoint(
            Path(folder), state.state_dict() | {"history": []}
        )
        for name, call in calls.items():
            times = []
            for _ in range(4):  # the first one warms up
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            result[name] = statistics.median(times[1:])
    del result["logits"]
    return result | {
        "afl_epoch_ratio": 1
        + (result["val_s"] + result["afl_update_s"]) / result["train_s"]
    }


def waits(model, loss, size, device):
    """An error if the host waits for the device anywhere between the first batch of
    ``train_epoch`` and its end.

    On a GPU by ``set_sync_debug_mode("error")``. Without one on the meta device, whose
    tensors have no values to read.
    """
    meta = device.type != "cuda"
    state = make_state(model, size, torch.device("meta") if meta else device)
    state.criterion = losses.make_loss(loss).to(state.device)
    if meta:
        # Autocast does not know this device.
        state.forward = lambda network, x: network(x)
    else:
        step_seconds(state, size, 0)  # cuDNN waits while it chooses its kernels
    steps = []
    real = data.batches

    def watched(*args, **options):
        # Sends order and augmentation to the device: once an epoch, before its steps.
        batches = real(*args, **options)
        if not meta:
            torch.cuda.set_sync_debug_mode("error")
        try:
            for batch in batches:
                yield batch
                steps.append(batch)
        finally:
            if not meta:
                torch.cuda.set_sync_debug_mode("default")

    with mock.patch.object(data, "batches", watched):
        try:
            state.train_epoch(0, random_split(3 * size.batch, size, state.device))
        # the sums of the epoch are read after its last batch: there are none on the
        # meta device
        except RuntimeError:
            if not meta or len(steps) < 3:
                raise
    return {"steps": len(steps), "waits": 0}


def where_time_goes(model, size, device, milliseconds):
    """Share of a step's time that each kind of operator keeps the device busy; the rest
    it stands idle.
    """
    state = make_state(model, size, device)
    part = random_split(3 * size.batch, size, device)
    state.train_epoch(0, part)
    cuda = device.type == "cuda"
    kinds = [
        torch.profiler.ProfilerActivity.CPU,
        *([torch.profiler.ProfilerActivity.CUDA] if cuda else []),
    ]
    with torch.profiler.profile(activities=kinds) as profile:
        state.train_epoch(1, part)
    result = dict.fromkeys(GROUPS, 0.0)
    for event in profile.key_averages():
        # Kernels count for the operator that launched them.
        if event.device_type == torch.autograd.DeviceType.CPU:
            group = next(
                g for g, names in GROUPS.items() if any(n in event.key for n in names)
            )
            result[group] += (
                (event.self_device_time_total if cuda else event.self_cpu_time_total)
                / 3e3
                / milliseconds
            )
    return result | {"idle": max(0.0, 1 - sum(result.values()))}


# --- measurements in processes of their own, which can be stopped ---------------------


def child(spec):
    """What a process started by :func:`in_processes` does: get ready, wait for the
    word, measure, say it.
    """
    out, sys.stdout = sys.stdout, sys.stderr
    size = Size(**spec["size"])
    device = torch.device(spec["device"])
    result = {}
    with peak_memory(device, result):
        state = make_state(spec["model"], size, device, compiled=spec.get("compiled"))
        part = random_split(size.batch, size, device)
        start = time.perf_counter()
        state.train_epoch(0, part)
        result["first_step_s"] = time.perf_counter() - start
        step_seconds(state, size, 0)
        print('{"ready": 1}', file=out, flush=True)
        sys.stdin.readline()
        seconds = step_seconds(state, size)
    print(
        json.dumps(speed(spec["model"], size, seconds) | result), file=out, flush=True
    )


def in_processes(count, deadline, size, device, **spec):
    """The results of ``count`` processes that measure at the same time; TimeoutError if
    they go beyond ``deadline``.
    """
    spec |= {"size": dataclasses.asdict(size), "device": str(device)}
    with contextlib.ExitStack() as stack:
        # Or a second run would not compile.
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        errors = stack.enter_context(tempfile.TemporaryFile("w+"))
        command = [sys.executable, __file__, "--child", json.dumps(spec)]
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": errors,
            "text": True,
        }
        env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        processes = []
        stack.callback(
            lambda: [(p.kill(), p.wait(), p.stdout.close()) for p in processes]
        )
        processes += [subprocess.Popen(command, env=env, **pipes) for _ in range(count)]
        timer = threading.Timer(
            max(0, deadline - time.monotonic()), lambda: [p.kill() for p in processes]
        )
        stack.callback(timer.cancel)
        timer.start()

        def answer(process):
            line = next((line for line in process.stdout if line.startswith("{")), None)
            if line is None:
                if time.monotonic() >= deadline:
                    raise TimeoutError
                process.wait()
                errors.seek(0)
                raise RuntimeError(
                    (errors.read().strip().splitlines() or ["it died"])[-1]
                )
            return json.loads(line)

        for process in processes:
            answer(process)
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.close()
        return [answer(process) for process in processes]


def together(model, count, deadline, size, device):
    results = in_processes(
        count,
        deadline,
        dataclasses.replace(size, seconds=2 * size.seconds),
        device,
        model=model,
    )
    return {"images_per_second": sum(r["images_per_second"] for r in results)}


def compiled(model, case, deadline, size, device, eager):
    """A compiled network's step; the start-up that it costs, and after how many steps
    that is paid back.
    """
    (result,) = in_processes(
        1, deadline, size, device, model=model, compiled=COMPILED[case]
    )
    result["compile_s"], gain = (
        result.pop("first_step_s"),
        (eager - result["ms_per_step"]) / 1e3,
    )
    return result | (
        {"pays_after_steps": result["compile_s"] / gain} if gain > 0 else {}
    )


# --- the plan -------------------------------------------------------------------------


def plan(chosen, size, device, found, deadline):
    """Every measurement, the most wanted first: (section, model, case, seconds that it
    may take, function).
    """
    cuda = device.type == "cuda"
    for precision in ("bf16", "tf32", "fp32"):
        yield "peak", "", precision, 3, lambda p=precision: matmul(p, size, device)
    yield "peak", "", "copy", 3, lambda: copy(size, device)
    for model in chosen:
        for case in reversed(CASES):  # the default first
            yield (
                "step",
                model,
                case,
                12,
                lambda m=model, c=case: step(m, c, size, device),
            )
        yield "step", model, REFERENCE, 15, lambda m=model: reference(m, size, device)

    def default(model, measure):
        if ("step", model, DEFAULT) not in found:
            raise LookupError(f"needs the step of {model}, {DEFAULT}")
        return found["step", model, DEFAULT][measure]

    for loss in losses.LOSSES:
        yield (
            "waits",
            chosen[0],
            loss,
            4,
            lambda x=loss: waits(chosen[0], x, size, device),
        )
    for model in chosen[1:]:
        yield "waits", model, "ce", 4, lambda m=model: waits(m, "ce", size, device)
    # Those of the paper's Table 6.
    for model in [m for m in ("resnet50", "wrn_28_10") if m in chosen] or chosen[:1]:
        epochs = (len(losses.LOSSES) + 1) * (size.rounds + 2)
        cost = (
            5
            + epochs
            * size.loss_steps
            * found.get(("step", model, DEFAULT), {}).get("ms_per_step", 20)
            / 1e3
        )
        yield "loss", model, "", cost, lambda m=model: loss_ratios(m, size, device)
    for model in chosen:
        yield (
            "time",
            model,
            "",
            6,
            lambda m=model: where_time_goes(m, size, device, default(m, "ms_per_step")),
        )
        yield (
            "epoch",
            model,
            "",
            8,
            lambda m=model: around(m, size, device, default(m, "images_per_second")),
        )
    cases = [
        (model, case)
        for case in COMPILED
        if cuda or "CUDA" not in case
        for model in chosen
    ]

    def compile_step(model, case):
        eager = functools.partial(default, model, "ms_per_step")
        return (
            "step",
            model,
            case,
            30,
            lambda: compiled(model, case, deadline, size, device, eager()),
        )

    # The rest, which is long, last.
    yield from (compile_step(*pair) for pair in cases if pair[0] == chosen[0])
    for model in dict.fromkeys(["convnet", *chosen[:1]]):
        for n in size.processes:
            yield (
                "processes",
                model,
                str(n),
                25,
                lambda m=model, n=n: together(m, n, deadline, size, device),
            )
    yield from (compile_step(*pair) for pair in cases if pair[0] != chosen[0])


def setup(size, device):
    """Machine, versions and sizes, as text."""
    config = training.TrainConfig("cifar10", "resnet50", device=str(device))
    found = {
        k: v
        for k, v in training.environment(config.resolved()).items()
        if k != "keep_weights"
    }
    found["device"] = (
        found["device"] if device.type == "cuda" else f"CPU, {_timing.processor()}"
    )
    found |= {
        "cores": os.cpu_count(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    if device.type == "cuda":
        found["memory_mib"] = (
            torch.cuda.get_device_properties(device).total_memory // 2**20
        )
        with contextlib.suppress(OSError):
            query = [
                "nvidia-smi",
                "--query-gpu=driver_version",
                "--format=csv,noheader",
            ]
            found["driver"] = subprocess.run(
                query, capture_output=True, text=True
            ).stdout.split("\n")[0]
    found |= {
        "gcelib": _timing.version("gcelib"),
        "torchvision": _timing.version("torchvision"),
    }
    found |= {
        "batch": size.batch,
        "pixels": size.pixels,
        "default_precision": config.resolved().precision,
    }
    return {k: str(v) for k, v in found.items()}


def read(path):
    """What an earlier run measured: ``{(section, model, case): {measure: value}}``; of
    the setup, text.
    """
    found = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                key = row["section"], row["model"], row["case"]
                value = (
                    row["value"] if row["section"] == "setup" else float(row["value"])
                )
                found.setdefault(key, {})[row["measure"]] = value
    return found


def write(folder, found, left_over):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(
        (*key, measure, value)
        for key, row in found.items()
        for measure, value in row.items()
    )
    runs.write_atomic(folder / "gpu.csv", text.getvalue().encode())
    runs.write_atomic(folder / "gpu.md", report(found, left_over).encode())


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument(
        "--out",
        type=Path,
        help="default: benchmarks/results; of --quick, a temporary folder",
    )
    parser.add_argument(
        "--models", nargs="+", choices=list(models.MODELS), metavar="MODEL"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny sizes: shows that all runs, measures nothing",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.models = list(options.models or (["convnet"] if options.quick else PAPER))
    if options.child:
        return child(json.loads(options.child))
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no GPU here; --device cpu --quick goes through the same code")
    deadline = time.monotonic() + 60 * options.minutes - 10 * (options.minutes > 1)
    size = QUICK if options.quick else Size()
    device = torch.device(options.device)
    options.out = options.out or (
        Path(tempfile.mkdtemp(prefix="gpu-")) if options.quick else _timing.RESULTS
    )
    options.out.mkdir(parents=True, exist_ok=True)
    found = read(options.out / "gpu.csv")
    here = setup(size, device)
    there = found.setdefault(("setup", "", ""), here)
    for name in ("device", "torch", "gcelib", "batch", "pixels"):
        if there.get(name) != here[name]:
            parser.error(
                f"{options.out} holds measurements with {name} {there.get(name)}, "
                f"here it is {here[name]}"
            )
    left_over = {}
    slowest = {}
    for section, model, case, cost, measure in plan(
        options.models, size, device, found, deadline
    ):
        key = section, model, case
        if key in found:
            continue
        if (
            time.monotonic() + max(cost * (not options.quick), slowest.get(section, 0))
            > deadline
        ):
            left_over[key] = "no time left"
            continue
        start = time.monotonic()
        try:
            found[key] = measure()
            there["ended"] = datetime.datetime.now(datetime.UTC).isoformat(
                timespec="seconds"
            )
        except TimeoutError:
            left_over[key] = "no time left"
        except Exception as error:  # out of memory, say; the rest is still wanted
            left_over[key] = (
                f"{type(error).__name__}: {error}".splitlines()[0]
                if str(error)
                else repr(error)
            )
        slowest[section] = max(slowest.get(section, 0), time.monotonic() - start)
        print(
            *filter(None, key),
            *left_over.get(key, "").split("\n"),
            sep=" · ",
            flush=True,
        )
        write(options.out, found, left_over)
    write(options.out, found, left_over)
    print((options.out / "gpu.md").read_text(encoding="utf-8"))


# --- the report -----------------------------------------------------------------------


def share_of_peak(found, model, case):
    """A step's TFLOP/s over the largest matrix product's in the same precision, or
    None.
    """
    # PyTorch's default lets float32 convolutions use TF32.
    precision = "tf32" if case == REFERENCE else case[:4]
    row = found.get(("step", model, case))
    peak = found.get(("peak", "", precision))
    return row["tflops"] / peak["tflops"] if row and peak else None


def _number(value, spec=".3g"):
    return "–" if value is None else format(value, spec)


def report(found, left_over):
    """The measurements as Markdown."""
    sections = {}
    for (section, model, case), row in found.items():
        sections.setdefault(section, {})[model, case] = row
    about = sections["setup"]["", ""]
    title = f"# Training on {about['device']}"
    if int(about["batch"]) != Size.batch:
        title += " (a rehearsal at tiny size: the numbers mean nothing)"
    facts = ", ".join(f"{k} {v}" for k, v in about.items() if k != "device")
    intro = (
        f"By `benchmarks/gpu.py`: {facts}. Random images through the loop of "
        "`gcelib.fit`, cross-entropy where no loss is named; FLOPs counted from the "
        "shapes; medians."
    )
    parts = [title, intro]

    def add(section, heading, note, header, rows):
        if section in sections:
            parts.extend([f"## {heading}", note, _timing.table(header, rows)])

    peak = {case: row for (_, case), row in sections.get("peak", {}).items()}
    rows = [
        (f"matrix product, {c}", f"{_number(r['tflops'])} TFLOP/s")
        for c, r in peak.items()
        if c != "copy"
    ]
    rows += [
        ("copy in memory, read + write", f"{_number(r['gb_per_second'])} GB/s")
        for r in [peak.get("copy")]
        if r
    ]
    add("peak", "What the card can do", "The best of five.", ["", ""], rows)
    rows = []
    for (model, case), row in sorted(
        sections.get("step", {}).items(), key=lambda item: item[0][0]
    ):
        base = found.get(("step", model, REFERENCE))
        share = share_of_peak(found, model, case)
        times = row["images_per_second"] / base["images_per_second"] if base else None
        cells = [
            _number(row["images_per_second"], ",.0f"),
            _number(row["ms_per_step"]),
            _number(row["tflops"]),
        ]
        cells += [
            _number(share, ".1%"),
            _number(row.get("memory_mib"), ",.0f"),
            _number(times, ".2f"),
        ]
        paid = [
            _number(row.get("compile_s"), ".1f"),
            _number(row.get("pays_after_steps"), ",.0f"),
        ]
        if "compile_s" in row and "pays_after_steps" not in row:
            paid[1] = "never"
        rows.append([f"{model}, {case}", *cells, *paid])
    header = ["", "images/s", "ms a step", "TFLOP/s", "of peak", "MiB", "x reference"]
    header += ["first step, s", "paid after steps"]
    note = (
        "*of peak*: of the matrix product in the same precision (the reference's is "
        "TF32, which PyTorch lets float32 convolutions use). "
        f"`{DEFAULT}` is what `fit` does by itself on a card with bf16. *Reference "
        "loop*: float32, a DataLoader with 4 workers, PIL, one `.item()` a step. "
        "*First step*: mostly compilation."
    )
    add("step", "A training step", note, header, rows)
    ratios = {model: row for (model, _), row in sections.get("loss", {}).items()}
    names = [n for n in losses.LOSSES if n != "ce"] + ["ce again"]
    rows = [[n, *(_number(r[n], ".3f") for r in ratios.values())] for n in names]
    note = "Medians of paired ratios, interleaved. *ce again*: cross-entropy against "
    note += "itself, so what noise does."
    add("loss", "Every loss's step over cross-entropy's", note, ["", *ratios], rows)
    fields = {
        "train_s": "steps, s",
        "val_s": "validation, s",
        "afl_update_s": "AFL's update, s",
    }
    fields |= {"afl_epoch_ratio": "AFL's epoch / CE's", "checkpoint_s": "checkpoint, s"}
    rows = [
        [m, *(_number(row[f]) for f in fields)]
        for (m, _), row in sections.get("epoch", {}).items()
    ]
    note = "45,000 training and 5,000 validation images. AdaFocal needs the validation "
    note += "logits after every epoch."
    add("epoch", "Around an epoch's steps", note, ["", *fields.values()], rows)
    rows = [
        [m, *(_number(v, ".0%") for v in row.values())]
        for (m, _), row in sections.get("time", {}).items()
    ]
    note = (
        f"Shares of a step's time (`{DEFAULT}`), from PyTorch's profiler; *idle*: the "
    )
    note += "device waits for the host."
    add("time", "Where the time goes", note, ["", *GROUPS, "idle"], rows)
    rows = [
        [m, c, int(r["steps"]), int(r["waits"])]
        for (m, c), r in sections.get("waits", {}).items()
    ]
    how = (
        '`torch.cuda.set_sync_debug_mode("error")`'
        if about["device"][:3] != "CPU"
        else "PyTorch's meta device"
    )
    note = f"Between the first batch of an epoch and its end, by {how}."
    add(
        "waits",
        "Steps in which the host waits for the device",
        note,
        ["network", "loss", "steps", "waits"],
        rows,
    )
    rows = []
    for (model, n), row in sections.get("processes", {}).items():
        alone = found.get(("processes", model, "1"))
        gain = row["images_per_second"] / alone["images_per_second"] if alone else None
        rows.append(
            [model, n, _number(row["images_per_second"], ",.0f"), _number(gain, ".2f")]
        )
    note = "What `workers_per_gpu` of a sweep gains: all processes' images/s together."
    add(
        "processes",
        "Several runs on one card",
        note,
        ["", "processes", "images/s", "x one"],
        rows,
    )
    base, ours = (
        found.get(("step", "resnet50", case)) for case in (REFERENCE, DEFAULT)
    )
    goals = []
    if base and ours:
        times = ours["images_per_second"] / base["images_per_second"]
        goals.append(
            ["ResNet-50 over the reference loop", "5 or more", _number(times, ".2f")]
        )
    if (share := share_of_peak(found, "resnet50", DEFAULT)) is not None:
        goals.append(
            [
                "ResNet-50's share of the bf16 matrix product",
                "35% or more",
                _number(share, ".1%"),
            ]
        )
    goals += [
        [f"GCE's step over CE's, {m}", "1.01 or less", _number(r["gce"], ".3f")]
        for m, r in ratios.items()
    ]
    add("step", "The goals", "Set for one H200.", ["", "goal", "measured"], goals)
    if left_over:
        parts += [
            "## Not measured",
            "Repeat the command with the same `--out` to go on.",
        ]
        parts += [
            "\n".join(
                f"- {', '.join(filter(None, key))}: {reason}"
                for key, reason in left_over.items()
            )
        ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
