"""How every benchmark here measures: one process, one thread, CPU time, contenders
interleaved, medians of ratios."""

import gc
import importlib.metadata
import resource
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def interleaved(
    contenders, seconds=0.02, rounds=15, patience=10, clock=time.process_time
):
    """Seconds of ``clock``, by default of CPU time, per call of every contender:
    ``{name: [one value a round]}``.

    A round calls each contender in turn, in an order that rotates, often enough to fill
    ``seconds``; so whatever disturbs the machine disturbs neighbours in time, and
    ratios within a round are fair. A contender whose first call takes longer than
    ``patience`` seconds is not called again: that one value stands for all rounds.
    """
    counts = {}
    times = {name: [] for name in contenders}
    for name, call in contenders.items():
        start = clock()
        call()  # warm up, imports and caches included
        first = clock() - start
        if first > patience:
            times[name] = [first] * rounds
            continue
        start = clock()
        call()
        counts[name] = max(1, round(seconds / max(clock() - start, 1e-7)))
    names = list(counts)
    gc.collect()
    gc.disable()
    try:
        for r in range(rounds):
            for name in names[r % len(names) :] + names[: r % len(names)]:
                call, count = contenders[name], counts[name]
                start = clock()
                for _ in range(count):
                    call()
                times[name].append((clock() - start) / count)
    finally:
        gc.enable()
    return times


def ratio(times, name, base):
    """Median over the rounds of ``times[name] / times[base]``."""
    return statistics.median(
        a / b for a, b in zip(times[name], times[base], strict=True)
    )


def median(times, name):
    """Median CPU seconds of one contender."""
    return statistics.median(times[name])


def extra_memory(script, *args):
    """MiB by which ``script --memory *args`` says that its peak grew, in a process of
    its own; None if it failed."""
    command = shlex.join([sys.executable, script, "--memory", *args])
    # a process inherits the peak of the one that starts it, so a small shell stands
    # between
    done = subprocess.run(f"{command}; :", shell=True, capture_output=True, text=True)
    try:
        return float(done.stdout.split()[-1])
    except (IndexError, ValueError):
        return None


def peak_mib():
    """Largest resident size of this process so far in MiB (``ru_maxrss`` counts KiB, on
    macOS bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


def version(package):
    """Installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor():
    """The processor's name, as finished runs record it."""
    from gcelib import training  # here: its imports are what some benchmarks measure

    return training.processor()


def table(header, rows):
    """A Markdown table: text left, numbers right."""
    lines = [header, ["---" if i == 0 else "---:" for i in range(len(header))], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def publish(name, text):
    """Print ``text`` and keep it as ``benchmarks/results/<name>.md``."""
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text + "\n", encoding="utf-8")
