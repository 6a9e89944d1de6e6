"""How long the explorer takes from a key press to the updated picture and numbers.

``python benchmarks/explorer.py`` writes ``benchmarks/results/explorer.md``, a minute.
Needs playwright and a Chromium on the PATH. Saved pages of two and of seven runs of
4,000 x 10 are opened without a network, and real keys are pressed on their controls.
The page's own clock counts from the event's time stamp until everything is updated and
laid out, and until the next frame has been painted.
"""

import argparse
import datetime
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import _timing
import torch
from playwright.sync_api import sync_playwright

from gcelib import ReliabilityExplorer
from gcelib.losses import LOSSES

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# What listens at the root hears of an event after the control itself.
LISTEN = """() => {
  window.times = [];
  const root = document.querySelector('.gcelib-explorer').shadowRoot;
  const charts = root.querySelector('.charts');
  const after = (event) => {
    charts.getBoundingClientRect();  // style and layout, too
    const one = {updated: performance.now() - event.timeStamp};
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => {
        one.painted = performance.now() - event.timeStamp;
        window.times.push(one);
      };
      channel.port2.postMessage(null);
    });
  };
  for (const kind of ['input', 'change']) {
    root.addEventListener(kind, (event) => {
      const select = event.target.tagName === 'SELECT';
      if (select === (kind === 'change')) after(event);
    });
  }
}"""

# What is pressed: the control, its role, and keys in turn.
PRESSED = {
    "number of bins": ("slider", "Bins", ("ArrowRight", "ArrowLeft")),
    "temperature": ("slider", "Temperature", ("ArrowRight", "ArrowLeft")),
    "one class": ("combobox", "Classes", ("ArrowDown", "ArrowUp")),
    "calibrator": ("combobox", "Calibrator", ("ArrowDown", "ArrowUp")),
}


def logits_of(n_runs, n_samples, n_classes=10):
    """So many runs' noise with some knowledge of the labels, and their names."""
    g = torch.Generator().manual_seed(1)
    labels = torch.randint(0, n_classes, (n_samples,), generator=g)
    runs = {}
    for scale, name in enumerate(list(LOSSES)[:n_runs], 1):
        noise = torch.randn(n_samples, n_classes, generator=g)
        known = 2.5 * torch.eye(n_classes)[labels]
        runs[name] = (0.5 * scale * (noise + known), labels)
    return runs


def wait_for(page, n):
    """Until ``n`` times have been taken."""
    page.wait_for_function(f"window.times.length >= {n}")


def measure(browser, path, n_events):
    """The times of ``n_events`` presses of each control: {control: [times]}."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.goto(path.as_uri())
    page.wait_for_selector("section.gcelib table")
    page.evaluate(LISTEN)
    found = {}
    for what, (role, name, keys) in PRESSED.items():
        page.get_by_role(role, name=name, exact=True).focus()
        page.evaluate("window.times = []")
        for i in range(n_events + 4):  # the first four warm up
            page.keyboard.press(keys[i % len(keys)])
            wait_for(page, i + 1)
        found[what] = page.evaluate("window.times")[4:]
    page.close()
    return found


def spread(times, key):
    """Median, ninth decile and largest, in milliseconds."""
    values = sorted(one[key] for one in times)
    decile = values[int(0.9 * (len(values) - 1))]
    return [f"{v:.1f}" for v in (statistics.median(values), decile, values[-1])]


def load():
    """The share of the processors that was busy for two seconds, in percent."""

    def counted():
        first = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0]
        ticks = [int(word) for word in first.split()[1:]]
        return sum(ticks), ticks[3] + ticks[4]

    if not Path("/proc/stat").exists():
        return "unknown"
    all_before, idle_before = counted()
    time.sleep(2)
    all_after, idle_after = counted()
    idle = (idle_after - idle_before) / (all_after - all_before)
    return f"{100 * (1 - idle):.0f} %"


def main():
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, BROWSERS)))
    before = load()
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        version = browser.version
        for n_runs in (2, 7):
            path = Path(folder) / f"{n_runs}.html"
            runs = logits_of(n_runs, 4000)
            val = logits_of(n_runs, 1000)
            ReliabilityExplorer(runs, val, losses=list(runs)).save(path)
            for what, times in measure(browser, path, options.events).items():
                both = [*spread(times, "updated"), *spread(times, "painted")]
                rows.append([f"{n_runs} runs, {what}", *both])
        browser.close()
    head = ["", "updated: median", "9 of 10", "slowest"]
    head += ["painted: median", "9 of 10", "slowest"]
    text = f"""Measured {datetime.date.today()} on {_timing.processor()}, \
{os.cpu_count()} processors, {platform.system()}; Chromium {version}, headless, \
no GPU. Processors busy before: {before}, after: {load()}.

From a real key press on a control to the answer, in milliseconds of the page's clock,
{options.events} presses each: until picture and numbers are updated and laid out, and
until the next frame is painted (at 60 frames a second it is up to 17 ms away). Runs of
4,000 x 10, window 1280 x 720; the calibrator's drop-down goes to the next one and back.

{_timing.table(head, rows)}"""
    if options.dry:
        print(text)
    else:
        _timing.publish("explorer", text)


if __name__ == "__main__":
    main()
