"""What surrounds the training: ``python benchmarks/cost.py`` writes results/cost.md.

Every contender is a process of its own on one thread, its CPU time taken with all its
children's. Contenders of a row run one right after the other, ``--rounds`` times, and
the row shows the median of the ratios and their range: what disturbs the machine
disturbs both.
"""

import argparse
import datetime
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))

from _timing import processor, publish, table, version

NOTEBOOKS = ROOT / "notebooks"

LOOP = """
from gcelib import TrainConfig, fit
for loss in ("ce", "gce"):
    for seed in range(1, {runs} // 2 + 1):
        options = {{"loss": loss, "seed": seed, "epochs": {epochs}}}
        for record in fit(TrainConfig("fashion_mini", runs_dir={folder!r}, **options)):
            pass
"""

SWEEP = """
from gcelib import sweeps
grid = {{"dataset": "fashion_mini", "loss": ["ce", "gce"], "epochs": {epochs}}}
grid["seed"] = list(range(1, {runs} // 2 + 1))
for record in sweeps.run(grid, runs_dir={folder!r}, workers=2):
    assert record["state"] == "done", record
"""

ONE = """
from gcelib import TrainConfig, fit
config = TrainConfig("fashion_mini", epochs={epochs}, runs_dir={folder!r})
for record in fit(config):
    pass
"""

# The same network, data and steps, and the metrics of two splits after each epoch: what
# anybody would write, without a folder, checkpoints, calibrators or OOD sets.
BARE = """
import torch
from torch.nn import functional as F
from gcelib import GCELoss, data, ece, error, make_model, nll
splits = data.load("fashion_mini", 1)
torch.manual_seed(1)
model = make_model("convnet", splits.n_classes, splits.input_shape)
optimizer = torch.optim.SGD(
    model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4
)
criterion = GCELoss()
parts = [(data.normalize(x, splits), y) for x, y in
         (splits.train, splits.val, splits.test)]
x, y = parts[0]
for epoch in range({epochs}):
    model.train()
    for rows in torch.randperm(len(y)).split(64):
        optimizer.zero_grad()
        criterion(model(x[rows]), y[rows]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for inputs, labels in parts[1:]:
            logits = torch.cat([model(part) for part in inputs.split(500)])
            nll(logits, labels), error(logits, labels), ece(logits, labels)
"""

LIGHTNING = """
import logging, warnings
import lightning, torch
from torch.utils.data import DataLoader, TensorDataset
from gcelib import GCELoss, data, make_model
warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel("ERROR")
splits = data.load("fashion_mini", 1)
parts = [TensorDataset(data.normalize(x, splits), y) for x, y in
         (splits.train, splits.val, splits.test)]
class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = make_model("convnet", splits.n_classes, splits.input_shape)
        self.criterion = GCELoss(process_group="local")
    def training_step(self, batch, index):
        return self.criterion(self.model(batch[0]), batch[1])
    def validation_step(self, batch, index, dataloader_idx=0):
        loss = torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])
        self.log("nll", loss)
    def configure_optimizers(self):
        return torch.optim.SGD(
            self.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4
        )
trainer = lightning.Trainer(
    max_epochs={epochs}, accelerator="cpu", logger=False, enable_progress_bar=False,
    enable_model_summary=False, default_root_dir={folder!r}, num_sanity_val_steps=0,
)
trainer.fit(Module(), DataLoader(parts[0], 64, shuffle=True),
            [DataLoader(part, 500) for part in parts[1:]])
"""

# Both fits on the same logits, by the process's own clock.
FITS = """
import json, time, torch
from pathlib import Path
from gcelib import make_calibrator
generator = torch.Generator().manual_seed(0)
logits = 3 * torch.randn(20_000, 1_000, generator=generator)
labels = torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
seconds = {{}}
for name in ("ts_nll", "ets"):
    start = time.process_time()
    make_calibrator(name).fit(logits, labels)
    seconds[name] = time.process_time() - start
Path({folder!r}, "seconds.json").write_text(json.dumps(seconds))
"""

# The paper's 1,340 runs as ``fit`` leaves them, numbers made up around those of a
# committed run; of the logits 08 reads those of two runs.
STUDY = """
import json, random, shutil
from pathlib import Path
from gcelib import runs, sweeps
from gcelib.study import stored
from gcelib.study.measuring import measure, measure_further
import torch
demo = runs.PROJECT / "data/demo/fashion_mini/convnet/ce/seed-01"
results = dict(runs.read_result(demo).results)
parts = {{split: runs.load_logits(demo, split) for split in ("val", "test")}}
logits = {{split: torch.from_numpy(part[0]) for split, part in parts.items()}}
labels = {{split: torch.from_numpy(part[1]) for split, part in parts.items()}}
results |= measure_further("ce", logits, labels, results)
epoch = {{"epochs": 350, "lr": 0.1, "seconds": 16.0}}
look = {{"val_error": 0.3, "test_error": 0.3}}
looks = [look if number % 5 == 0 else {{}} for number in range(1, 351)]
history = [epoch | {{"epoch": k + 1}} | looks[k] for k in range(350)]
lines = "".join(json.dumps(record) + "\\n" for record in history)
draw = random.Random(0)
for run_dir, (_, config) in sweeps.expand("paper", {folder!r}).items():
    folder = Path(run_dir)
    shutil.copytree(demo / "logits", folder / "logits")
    Path(folder, "history.jsonl").write_text(lines)
    settings = config.settings()
    own = {{name: value * draw.uniform(0.9, 1.1) for name, value in results.items()}}
    for name in settings["ood"]:
        own |= {{f"{{name}}_{{kind}}_auroc": draw.random() for kind in ("raw", "ats")}}
    environment = {{"device": "made up", "sharing": 1}}
    record = stored.Record(settings, environment, own)
    stored.write_record(folder / "metrics.json", record)
"""

FIRST_CELLS = """
import torch
from matplotlib import pyplot as plt
import gcelib
from gcelib import TrainConfig, data, fit, live, metrics, plots, runs, training
"""


class Cost:
    """CPU and wall-clock seconds of one process and its children."""

    def __init__(self, command, folder, cwd=None):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GCELIB_RUNS_DIR": folder}
        environment["PYTHONPATH"] = str(ROOT)
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        problem = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        self.wall = time.perf_counter() - start
        self.cpu = used.ru_utime + used.ru_stime
        if status:
            raise RuntimeError(f"{command}: {problem[-3000:]}")


def python(code, folder, **values):
    """Cost of a Python program."""
    code = code.format(folder=folder, **values) if values else code
    return Cost([sys.executable, "-c", code], folder)


def papermill(folder, epochs):
    """Cost of 03 as a command."""
    command = [sys.executable, "-m", "papermill", "03_train.ipynb"]
    command += [str(Path(folder, "out.ipynb")), "-p", "epochs", str(epochs)]
    return Cost(command, folder, NOTEBOOKS)


def summary(pairs):
    """Median, least and greatest ratio of pairs of seconds, and both sides' medians."""
    ratios = [ours / base for ours, base in pairs]
    sides = (statistics.median(side) for side in zip(*pairs, strict=True))
    return statistics.median(ratios), (min(ratios), max(ratios)), *sides


def compare(ours, base, rounds, clock="cpu"):
    """The :func:`summary` of pairs of processes; a fresh folder each time."""
    pairs = []
    for number in range(rounds):
        calls = {"ours": ours, "base": base}
        seconds = {}
        for name in ("ours", "base") if number % 2 else ("base", "ours"):
            with tempfile.TemporaryDirectory() as folder:
                seconds[name] = getattr(calls[name](folder), clock)
        pairs.append((seconds["ours"], seconds["base"]))
    return summary(pairs)


def inside_fit(epochs, rounds):
    """What ``fit`` does beside its training steps, by the clock that it records."""
    pairs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cost = python(ONE, folder, epochs=epochs)
            del cost
            (path,) = Path(folder).rglob("history.jsonl")
            lines = path.read_text().splitlines()
            history = [json.loads(line) for line in lines]
            steps = sum(5000 / record["images_per_second"] for record in history)
            rest = sum(record["seconds"] for record in history) - steps
            pairs.append((rest, steps))
    return summary(pairs)


def finished_demo(folder):
    """Cost of what ``make demo`` does on a run that has finished."""
    python(ONE, folder, epochs=12)
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.split("\ndemo:")[1].split("\n\n")[0].splitlines()[1:]
    script = "set -e\n" + "\n".join(f"({line.strip().lstrip('@')})" for line in recipe)
    bin_folder = Path(sys.executable).parent
    script = script.replace("../$(BIN)", str(bin_folder)).replace(
        "$(BIN)", str(bin_folder)
    )
    script = script.replace("out.ipynb", str(Path(folder, "out.ipynb")))
    script = script.replace(f"notebooks/{folder}", folder)
    return Cost(["bash", "-c", script], folder, ROOT)


def two_fits(rounds):
    """ETS beside one temperature, on many classes: the ratio, and both in seconds."""
    pairs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cost = python(FITS, folder, n=0)
            del cost
            seconds = json.loads(Path(folder, "seconds.json").read_text())
            pairs.append((seconds["ets"], seconds["ts_nll"]))
    return summary(pairs)


def results_of_a_study(folder):
    """Cost of 08 on 1,340 finished runs."""
    python(STUDY, folder, n=0)
    command = [sys.executable, "-m", "papermill", "08_results.ipynb"]
    command += [str(Path(folder, "out.ipynb")), "-p", "runs_dir", folder]
    return Cost(command, folder, NOTEBOOKS)


def measure(rounds, runs):
    """Yield the rows: what, ratio, its range, seconds of both, goal."""
    for epochs, goal in ((12, "1.35"), (3, "1.6")):
        yield (
            f"CPU: sweep of {runs} runs of {epochs} epochs / a loop over `fit`",
            *compare(
                lambda folder, n=epochs: python(SWEEP, folder, epochs=n, runs=runs),
                lambda folder, n=epochs: python(LOOP, folder, epochs=n, runs=runs),
                rounds,
            ),
            goal,
        )
    yield (
        "CPU: `papermill 03_train.ipynb` / a process that imports and fits (12 epochs)",
        *compare(
            lambda folder: papermill(folder, 12),
            lambda folder: python(ONE, folder, epochs=12),
            rounds,
        ),
        "1.35",
    )
    yield (
        "CPU: imports of 03's first cells / `import torch`",
        *compare(
            lambda folder: python(FIRST_CELLS, folder),
            lambda folder: python("import torch", folder),
            max(rounds, 5),
        ),
        "1.75",
    )
    yield (
        "wall: evaluation, checkpoints, bookkeeping in `fit` / its steps (12 epochs)",
        *inside_fit(12, rounds),
        "0.35",
    )
    yield (
        "wall: `make demo` on a finished run / `import torch`",
        *compare(
            finished_demo, lambda folder: python("import torch", folder), rounds, "wall"
        ),
        "4",
    )
    yield (
        "CPU: fit of ETS / of one temperature, 20,000 x 1,000 logits",
        *two_fits(rounds),
        "8",
    )
    yield (
        "CPU: 08 on 1,340 finished runs / `import torch` (goal: 120 s)",
        *compare(results_of_a_study, lambda folder: python("import torch", folder), 1),
        "",
    )
    peers = {"a bare PyTorch loop": BARE, "PyTorch Lightning": LIGHTNING}
    if importlib.util.find_spec("lightning") is None:
        del peers["PyTorch Lightning"]
    for name, code in peers.items():
        yield (
            f"CPU: a process with `fit` / with {name} (12 epochs)",
            *compare(
                lambda folder: python(ONE, folder, epochs=12),
                lambda folder, code=code: python(code, folder, epochs=12),
                rounds,
            ),
            "",
        )


def main(arguments=None):
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--runs", type=int, default=4, help="runs of a sweep, even")
    options = parser.parse_args(arguments)
    before = os.getloadavg()[0]
    rows = []
    for what, ratio, (low, high), *seconds, goal in measure(
        options.rounds, options.runs
    ):
        ours, base = (f"{side:.1f}" for side in seconds)
        rows.append(
            [what, f"{ratio:.2f}", f"{low:.2f} to {high:.2f}", ours, base, goal]
        )
        print(*rows[-1], sep=" | ", flush=True)
    after = os.getloadavg()[0]
    header = ["", "ratio", "range", "first, s", "second, s", "goal: at most"]
    page = f"""# What surrounds the training

`python benchmarks/cost.py`, {datetime.date.today()}, {processor()}, {os.cpu_count()}
cores, one thread a process, torch {version("torch")}. Medians over {options.rounds}
rounds; both sides of a row run one right after the other. Load of the machine before
and after: {before:.1f} and {after:.1f}; where it is above 1, others computed at the
same time, which disturbs wall-clock times most and CPU times by some percent.

{table(header, rows)}

The loop over `fit` and the sweep do the same runs; both include all imports. The bare
loop and Lightning train the same network on the same data with the same loss and look
at validation and test after each epoch; they write no run folder, fit no calibrators
and measure no out-of-distribution sets, all of which `fit` does at its end."""
    publish("cost", page)


if __name__ == "__main__":
    main()
