"""The explorers as a reader meets them: saved pages and JupyterLab in a real browser.

``pytest`` opens saved pages, offline; ``pytest -m browser`` adds JupyterLab. Needs
playwright and a Chromium on the PATH, else it is skipped. A failing test leaves a
screenshot in ``build/browser/``.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from gcelib import calibration, data, losses, metrics
from gcelib.view.explorers import PropernessExplorer, ReliabilityExplorer

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")

ROOT = Path(__file__).resolve().parents[1]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # ms: for what takes one second on an idle machine


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def arrays():
    """Embedded images, and logits that claim to know them."""
    g = torch.Generator().manual_seed(0)
    splits = data.load("fashion_mini")
    out = {"images": splits.test[0], "labels": splits.test[1]}
    out |= {"val_labels": splits.val[1], "names": splits.class_names}
    for name, scale in {"ce": 2.5, "brier": 1.2, "gce": 0.6}.items():
        for key, y in ((name, splits.test[1]), (f"val_{name}", splits.val[1])):
            noise = torch.randn(len(y), 10, generator=g)
            out[key] = scale * (noise + 2.5 * torch.eye(10)[y])
    return out


@pytest.fixture(scope="module")
def pages(arrays, tmp_path_factory):
    """Saved pages: three runs of 4,000 with images, and the simplex."""
    folder = tmp_path_factory.mktemp("pages")
    names = ("ce", "brier", "gce")
    test = {name: (arrays[name], arrays["labels"]) for name in names}
    val = {name: (arrays[f"val_{name}"], arrays["val_labels"]) for name in names}
    options = {"images": arrays["images"], "class_names": arrays["names"]}
    ReliabilityExplorer(test, val, **options).save(folder / "reliability.html")
    PropernessExplorer(loss="focal").save(folder / "simplex.html")
    return folder


@contextlib.contextmanager
def offline(browser, path, **options):
    """A page from a file, without a network, that may log nothing."""
    size = {"width": 1280, "height": 720}
    context = browser.new_context(viewport=size, offline=True, **options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: m.type == "error" and problems.append(m.text))
    page.on("request", lambda r: r.url.startswith("http") and problems.append(r.url))
    try:
        page.goto(path.as_uri())
        page.wait_for_selector("section.gcelib")
        yield page
        assert not problems
    except BaseException:
        shoot(page)
        raise
    finally:
        context.close()


def shoot(page):
    """Leave a picture of what went wrong."""
    folder = ROOT / "build" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    name = os.environ["PYTEST_CURRENT_TEST"].split("::")[-1].split(" ")[0]
    with contextlib.suppress(playwright.Error):
        page.screenshot(path=folder / f"{name}.png")


class Reader:
    """What a reader sees of a reliability explorer, and does to it."""

    def __init__(self, page):
        self.page = page
        self.root = page.get_by_role("region", name="Reliability explorer")
        self.control = self.root.get_by_role

    def numbers(self, run):
        """The table's column of ``run``, as metrics counts: fractions and nats."""
        cells = self.root.locator(f"[data-number^='{run}/']")
        found = dict(
            cells.evaluate_all("c => c.map(e => [e.dataset.number, e.innerText])")
        )
        values = {key.split("/")[1]: float(value) for key, value in found.items()}
        return {
            key: value / (1 if key in ("nll", "brier") else 100)
            for key, value in values.items()
        }

    def bars(self, run):
        """bin -> (accuracy, mean confidence), read off the drawing."""
        drawn = self.root.locator(f".charts [data-run='{run}']")
        shapes = {}
        for kind in ("fill", "mean"):
            path = drawn.and_(self.root.locator(f".{kind}")).get_attribute("d")
            found = re.findall(r"M([^,]+),([^h]+)h([^v]+)v([^h]+)h[^z]+z", path)
            shapes[kind] = [[float(number) for number in shape] for shape in found]
        keys = self.root.locator(f"[data-bar^='{run}/']").evaluate_all(
            "bars => bars.map(bar => bar.dataset.bar)"
        )
        # Bodies come before the bars of the counts; the axis is 260 units tall.
        bodies = zip(keys, shapes["fill"], shapes["mean"], strict=False)
        return {
            int(key.split("/")[1]): (body[3] / 260, (268 - mean[1] - 1) / 260)
            for key, body, mean in bodies
        }

    def expect(self, arrays, runs, calibrator="raw", temperature=1.0, **bins):
        """Compare all that is seen with what metrics say about these settings."""
        reliabilities = {}
        for run in runs:
            logits = arrays[run].double()
            labels = arrays["labels"]
            if calibrator != "raw":
                fitted = calibration.make_calibrator(calibrator)
                fitted.fit(arrays[f"val_{run}"], arrays["val_labels"])
                logits = fitted(logits)
            logits = logits / temperature
            found = metrics.reliability(logits, labels, **bins)
            expected = metrics.evaluate(logits, labels, bins.get("n_bins", 20))
            seen = self.numbers(run)
            shown = seen.pop("shown_ece", found.ece)
            assert seen == pytest.approx(expected, abs=6e-4)
            assert shown == pytest.approx(found.ece, abs=6e-5)
            drawn = self.bars(run)
            assert sorted(drawn) == np.flatnonzero(found.counts).tolist()
            for b, values in drawn.items():
                heights = [found.accuracy[b], found.confidence[b]]
                assert values == pytest.approx(heights, abs=2e-3)
            reliabilities[run] = found
        return reliabilities

    def press(self, role, name, key, times=1):
        self.control(role, name=name, exact=True).focus()
        for _ in range(times):
            self.page.keyboard.press(key)


FOCUSED = """() => document.querySelector('.gcelib-explorer').shadowRoot.activeElement
  ?.closest('[data-bar]')?.dataset.bar"""


def test_a_saved_page_answers_every_control_without_a_network(browser, pages, arrays):
    with offline(browser, pages / "reliability.html") as page:
        reader = Reader(page)
        control = reader.control
        reader.expect(arrays, ["ce", "gce"])
        control("checkbox", name="Brier").check()
        control("checkbox", name="CE", exact=True).uncheck()
        reader.expect(arrays, ["brier", "gce"])
        reader.press("slider", "Temperature", "ArrowLeft", times=10)
        reader.expect(arrays, ["brier", "gce"], temperature=0.631)
        reader.press("combobox", "Bins of equal", "m")  # typed, as without seeing
        reader.expect(arrays, ["brier", "gce"], temperature=0.631, binning="mass")
        control("combobox", name="Classes").select_option("only Shirt")
        look = {"binning": "mass", "class_index": 6}
        reader.expect(arrays, ["brier", "gce"], temperature=0.631, **look)
        control("combobox", name="Bins of equal").select_option("width")
        reader.press("slider", "Bins", "Home")
        look = {"n_bins": 1, "class_index": 6}
        reader.expect(arrays, ["brier", "gce"], temperature=0.631, **look)
        reader.press("slider", "Bins", "End")
        control("combobox", name="Classes").select_option(index=0)
        reader.press("slider", "Temperature", "ArrowRight", times=10)
        control("checkbox", name="Brier").press(" ")
        for name in ("ets", "spline", "ats_converged", "vector", "isotonic"):
            label = calibrator_label(name)
            control("combobox", name="Calibrator").select_option(label)
            reader.expect(arrays, ["gce"], calibrator=name, n_bins=50)
        control("checkbox", name="GCE").uncheck()
        playwright.expect(reader.root.get_by_text("Tick a run")).to_be_visible()


def calibrator_label(name):
    from gcelib.view.styles import STYLES

    return STYLES[name].label


def test_by_keyboard_alone_bars_are_read_and_samples_seen(browser, pages, arrays):
    with offline(browser, pages / "reliability.html") as page:
        reader = Reader(page)
        found = metrics.reliability(arrays["ce"].double(), arrays["labels"])
        last = {
            run: np.flatnonzero(
                metrics.reliability(arrays[run], arrays["labels"]).counts
            )[-1]
            for run in ("ce", "gce")
        }
        reader.control("combobox", name="Classes").focus()
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUSED) == f"gce/{last['gce']}"  # one stop for all bars
        page.keyboard.press("ArrowUp")
        page.keyboard.press("End")
        assert page.evaluate(FOCUSED) == f"ce/{last['ce']}"
        page.keyboard.press("ArrowLeft")
        at = last["ce"] - 1
        bar = reader.root.locator(f"[data-bar='ce/{at}']")
        words = bar.get_attribute("aria-label")
        assert f"{found.counts[at]:,} samples" in words
        assert f"confidence {100 * found.confidence[at]:.1f} %" in words
        assert f"accuracy {100 * found.accuracy[at]:.1f} %" in words
        gap = 100 * found.gap[at]
        assert f"gap {0 if abs(gap) < 0.05 else f'{gap:.1f}'} points" in words
        page.keyboard.press("Enter")
        playwright.expect(bar).to_have_attribute("aria-pressed", "true")
        cards = reader.root.locator(".card")
        playwright.expect(cards).to_have_count(24)
        confidence, correct = metrics.top_label(arrays["ce"].double(), arrays["labels"])
        inside = (confidence > found.edges[at]) & (confidence <= found.edges[at + 1])
        listed = np.flatnonzero(inside)  # errors by falling confidence, hits by rising
        surprise = np.where(correct, -confidence, 1 + confidence)[listed]
        wrong = listed[np.argsort(-surprise, kind="stable")]
        shown = "c => c.map(e => Number(e.dataset.sample))"
        assert cards.evaluate_all(shown) == wrong[:24].tolist()
        box = cards.first.bounding_box()
        assert box["y"] + box["height"] < 720  # seen without scrolling
        names, first = arrays["names"], wrong[0]
        guess = names[int(arrays["ce"][first].argmax())]
        assert cards.first.inner_text().split("\n") == [
            f"✗ {guess}",
            f"true: {names[arrays['labels'][first]]}",
            f"conf. {100 * confidence[first]:.1f} %",
        ]
        pixels = """c => [...c.getContext('2d').getImageData(0, 0, 28, 28).data]
            .filter((_, i) => i % 4 === 1)"""
        ink = 255 - arrays["images"][first].flatten()  # dark on light, as in figures
        assert cards.first.locator("canvas").evaluate(pixels) == ink.tolist()
        reader.control("button", name="Next 24").press("Enter")
        assert cards.evaluate_all(shown) == wrong[24:48].tolist()
        cards.first.press("Enter")
        rows = reader.root.locator(".detail tbody tr")
        assert rows.count() == 10
        p = arrays["ce"][wrong[24]].double().softmax(0)
        truth = reader.root.locator(".detail tr.truth td").first.inner_text()
        assert truth == f"{100 * p[arrays['labels'][wrong[24]]]:.1f} %"


def test_disagreements_are_found_in_both_directions(browser, pages, arrays):
    with offline(browser, pages / "reliability.html") as page:
        reader = Reader(page)
        reader.press("button", "Where do two runs disagree?", "Enter")
        playwright.expect(reader.control("combobox", name="One run")).to_be_focused()
        right = {n: arrays[n].argmax(1) == arrays["labels"] for n in ("ce", "gce")}
        for better, worse in (("ce", "gce"), ("gce", "ce")):
            count = int((right[better] & ~right[worse]).sum())
            name = f"only {better.upper()} right: {count:,}"
            reader.control("button", name=name, exact=True).click()
            first = reader.root.locator(".card").first.get_attribute("data-sample")
            assert right[better][int(first)]
            assert not right[worse][int(first)]


def test_what_is_seen_can_be_taken_along(browser, pages, arrays):
    with offline(browser, pages / "reliability.html") as page:
        reader = Reader(page)
        with page.expect_download() as found:
            reader.control("button", name="Save CSV").click()
        lines = Path(found.value.path()).read_text().splitlines()
        bins = metrics.reliability(arrays["ce"].double(), arrays["labels"])
        assert len(lines) == 41
        assert lines[0].endswith(",calibrator,temperature,class")
        last = lines[20].split(",")
        assert last[-3:] == ['"none"', "1", '""']
        assert last[0] == '"CE"'
        values = [bins.counts[19], bins.confidence[19], bins.accuracy[19]]
        assert [float(v) for v in last[3:6]] == pytest.approx(values)


@pytest.mark.parametrize(
    ("scheme", "paper", "ink"), [("light", 1.0, 0.12), ("dark", 0.07, 0.91)]
)
def test_a_saved_picture_has_the_page_s_paper_and_a_legend(
    browser, pages, scheme, paper, ink
):
    with offline(browser, pages / "reliability.html", color_scheme=scheme) as page:
        with page.expect_download() as found:
            Reader(page).control("button", name="Save PNG").click()
        seen = imread(found.value.path(), format="png")[..., :3]
        assert np.allclose(seen[:8], paper, atol=0.01)  # the margin
        legend, numbers = seen[16:60], seen[-40:-16]
        assert np.isclose(numbers, ink, atol=0.02).all(-1).any()
        red = (legend[..., 0] > 0.7) & (legend[..., 1:] < 0.3).all(-1)
        assert red.any()  # GCE's sign


def test_a_screen_reader_hears_each_thing_once(browser, pages, arrays):
    with offline(browser, pages / "reliability.html") as page:
        reader = Reader(page)
        reader.root.locator("[data-bar='ce/19']").click()
        tree = reader.root.aria_snapshot()
        assert 'slider "Temperature"' in tree
        assert 'slider "Bins"' in tree
        for text in ("Reliability diagram of CE, GCE", "Legend", "95 % if calibrated"):
            assert text in tree
        card = reader.root.locator(".card").nth(1).inner_text().replace("\n", " ")
        assert tree.count(card) == 1
        live = reader.root.get_by_role("status")
        words = []
        for run in ("ce", "gce"):
            ece = metrics.ece(arrays[run], arrays["labels"])
            words.append(f"{run.upper()}: ECE {100 * ece:.2f} %")
        playwright.expect(live).to_have_text(", ".join(words))
        reader.press("slider", "Temperature", "ArrowRight")
        playwright.expect(live).to_have_text(
            re.compile(r"^CE: ECE .* \(T = 1\.\d\d\)$")
        )


CONTRASTS = """() => {
  const light = c => c.map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const rgba = text => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const over = ([r, g, b, a], paper) =>
    [r, g, b].map((v, i) => a * v + (1 - a) * paper[i]);
  const ground = el => {
    const colour = rgba(getComputedStyle(el).backgroundColor);
    const outer = el.parentElement ?? el.getRootNode().host;
    if (colour[3] === 1 || !outer) return colour.slice(0, 3);
    return over(colour, ground(outer));
  };
  const root = document.querySelector('.gcelib-explorer').shadowRoot;
  const kinds = ':is(span, td, th, b, p, caption, text, select, .tip div)';
  return [...root.querySelectorAll(kinds)]
    .filter(el => el.textContent.trim() && el.getClientRects().length).map(el => {
      const style = getComputedStyle(el), paper = ground(el);
      const ink = over(rgba(el.tagName === 'text' ? style.fill : style.color), paper);
      const [low, high] = [light(ink), light(paper)].sort((a, b) => a - b);
      return [(high + 0.05) / (low + 0.05), el.textContent];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes(browser, pages, scheme):
    with offline(browser, pages / "reliability.html", color_scheme=scheme) as page:
        Reader(page).root.locator("[data-bar='ce/19']").click()
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 60
        assert min(contrasts)[0] >= 4.5, min(contrasts)  # WCAG AA


def test_swatches_and_bars_keep_their_colours_where_colours_are_forced(browser, pages):
    with offline(browser, pages / "reliability.html", forced_colors="active") as page:
        fills = "n => n.map(e => getComputedStyle(e).forcedColorAdjust)"
        seen = page.locator(".swatch, .fill").evaluate_all(fills)
        assert set(seen) == {"none"}


LATENCY = """async ([name, n]) => {
  const root = document.querySelector('.gcelib-explorer').shadowRoot;
  const input = root.querySelector(`input[name=${name}]`);
  const times = [];
  for (let i = 0; i < n; i++) {
    const start = performance.now();
    input.valueAsNumber += (i % 2 ? -1 : 1) * Number(input.step);
    input.dispatchEvent(new Event('input'));
    root.querySelector('.charts').getBoundingClientRect();
    times.push(performance.now() - start);
    await new Promise((done) => requestAnimationFrame(done));
  }
  return times;
}"""


def test_pictures_are_prompt(browser, pages, record_property):
    """Measured, not judged here: a busy machine would decide it."""
    with offline(browser, pages / "reliability.html") as page:
        for name in ("n_bins", "temperature"):
            times = page.evaluate(LATENCY, [name, 9])
            record_property(f"{name}_ms", statistics.median(times))
            assert len(times) == 9


def test_the_simplex_follows_keys_pointer_and_loss(browser, pages):
    with offline(browser, pages / "simplex.html") as page:
        root = page.get_by_role("region", name="Properness explorer")
        truth = root.get_by_role("slider", name="True class")

        def table():
            rows = root.locator("tbody tr")
            return rows.evaluate_all(
                "r => r.map(e => [...e.querySelectorAll('td')].map(c => c.innerText))"
            )

        def risk(p, name, **options):
            loss = losses.make_loss(name, **options)
            log_p = torch.tensor(p, dtype=torch.float64).log()[None]
            each = enumerate(now)
            return sum(q * float(loss(log_p, torch.tensor([k]))) for k, q in each)

        status = root.get_by_role("status")
        playwright.expect(status).to_contain_text("not the truth")
        truth.focus()
        for key in ["ArrowLeft", "ArrowLeft", "ArrowDown", "Shift+ArrowUp"]:
            page.keyboard.press(key)
        now = [0.6, 0.22, 0.18]
        (*q, at_truth), (*p, at_best) = table()
        assert [float(value) for value in q] == now
        spoken = truth.get_attribute("aria-valuetext")
        assert spoken == "class 1: 0.60, class 2: 0.22, class 3: 0.18"
        expected = risk(now, "focal", gamma=3.0)
        assert float(at_truth) == pytest.approx(expected, abs=6e-4)
        expected = risk([float(value) for value in p], "focal", gamma=3.0)
        assert float(at_best) == pytest.approx(expected, abs=2e-3)
        root.get_by_role("slider", name="Focusing").press("Home")  # 0: cross-entropy
        playwright.expect(status).to_have_text("The minimiser is the truth.")

        box = root.locator(".simplex svg").bounding_box()
        scale = box["width"] / 440
        page.mouse.move(box["x"] + 220 * scale, box["y"] + 250 * scale)
        page.mouse.down()
        page.mouse.move(box["x"] + 220 * scale, box["y"] + 200 * scale, steps=10)
        page.mouse.up()
        (*q, _), _ = table()
        assert [float(v) for v in q] == pytest.approx([0.26, 0.26, 0.48], abs=0.011)
        page.mouse.click(box["x"] + 5 * scale, box["y"] + 10 * scale)  # outside
        assert float(table()[0][1]) == 0

        root.get_by_role("combobox", name="Loss").select_option("GCE")
        focusing = root.get_by_role("slider", name="Focusing")
        playwright.expect(focusing).to_be_hidden()
        batch = root.get_by_role("combobox", name="rest of the batch")
        batch.select_option("copies of this sample")
        playwright.expect(status).to_contain_text("Every prediction has the same risk")
        colours = """c => new Set(new Uint32Array(
            c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer
        )).size"""
        canvas = root.locator("canvas")
        assert canvas.evaluate(colours) == 2  # one colour, and nothing around it
        root.get_by_role("slider", name="Regulariser").press("ArrowLeft")
        playwright.expect(status).to_have_text("The minimiser is the truth.")
        assert canvas.evaluate(colours) == 15


# --- slides ---------------------------------------------------------------------------

HEIGHTS = """() => [...document.querySelectorAll('section section')].map(slide => {
  for (const shown of [slide.parentElement, slide]) {
    shown.hidden = false;
    shown.style.cssText = 'display: block; width: 1280px';
  }
  const found = [slide.scrollHeight, slide.scrollWidth, slide.innerText.slice(0, 60)];
  slide.style.cssText = 'display: none';
  return found;
})"""


@pytest.mark.browser
def test_no_slide_of_00_is_larger_than_the_screen(browser, tmp_path):
    """Offline, so without reveal's own style, in which tables are lower."""
    name = "00_start_here"
    lessons = ROOT / "notebooks"
    command = [sys.executable, "-m", "nbconvert", "--to", "slides"]
    command += ["--config", str(lessons / "slides.json"), "--output-dir", str(tmp_path)]
    subprocess.run([*command, str(lessons / f"{name}.ipynb")], check=True)
    size = {"width": 1280, "height": 720}
    page = browser.new_context(viewport=size, offline=True).new_page()
    page.goto((tmp_path / f"{name}.slides.html").as_uri())
    slides = page.evaluate(HEIGHTS)
    page.context.close()
    assert len(slides) > 10
    for height, width, text in slides:
        assert (height <= 720, width <= 1280) == (True, True), text


# --- JupyterLab -----------------------------------------------------------------------


class Lab:
    """A JupyterLab server of our own on the loopback: folders, token and port belong to
    this run alone."""

    def __init__(self, folder, dark=False):
        self.notebooks = folder / "notebooks"
        self.token = secrets.token_hex(16)
        self.log = folder / "log"
        self.notebooks.mkdir()
        settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        theme = "JupyterLab Dark" if dark else "JupyterLab Light"
        (settings / "themes.jupyterlab-settings").write_text(
            json.dumps({"theme": theme})
        )
        (settings / "notification.jupyterlab-settings").write_text(
            json.dumps({"fetchNews": "false"})
        )
        places = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTER_DATA_DIR": "share",
        }
        places |= {
            "IPYTHONDIR": "ipython",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "spaces",
        }
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            "--expose-app-in-browser",
        ]
        command += [
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.port=0",
            f"--ServerApp.root_dir={self.notebooks}",
        ]
        with self.log.open("w") as log:
            self.server = subprocess.Popen(
                command,
                env=os.environ
                | {k: str(folder / v) for k, v in places.items()}
                | {"JUPYTER_TOKEN": self.token},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 120
        while (
            not (files := list((folder / "runtime").glob("jpserver-*.json")))
            or not files[0].read_text().strip()
        ):
            if self.server.poll() is not None or time.monotonic() > deadline:
                self.close()
                pytest.fail(
                    f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}"
                )
            time.sleep(0.1)
        self.url = f"http://127.0.0.1:{json.loads(files[0].read_text())['port']}/lab"

    def close(self):
        self.server.terminate()
        self.server.wait(30)

    def write(self, name, *cells):
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
        )
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, self.notebooks / name)
        return name

    @contextlib.contextmanager
    def open(self, browser, name, run=True):
        """The page with notebook ``name``, all cells run; its kernel is shut down at
        the end."""
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(PATIENCE)
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        try:
            page.goto(f"{self.url}/tree/{name}?reset&token={self.token}")
            page.wait_for_selector(".jp-Notebook .jp-Cell")
            session = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session"
            page.wait_for_function(f"() => {session}?.kernel?.status === 'idle'")
            if run:
                page.evaluate(
                    "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
                )
            yield page
            assert not problems
        except BaseException:
            shoot(page)
            raise
        finally:
            with contextlib.suppress(playwright.Error):
                page.evaluate(
                    "() => window.jupyterapp.serviceManager.sessions.shutdownAll()"
                )
            page.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    server = Lab(tmp_path_factory.mktemp("lab"))
    yield server
    server.close()


MADE = """
import numpy as np
from gcelib import ReliabilityExplorer
from gcelib.view.explorers import reliability
rng = np.random.default_rng(0)
labels = rng.integers(0, 5, 900)
logits = (3 * np.eye(5)[labels] + 2 * rng.normal(size=(900, 5))).astype("float32")
"""
SHOWN = "explorer = ReliabilityExplorer({'ours': (logits, labels)}); explorer"
HEARD = "print(explorer.n_bins, explorer.selected); explorer.n_bins = 7"
RUN_LAST_CELL = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content;
  cells.activeCellIndex = cells.widgets.length - 1;
  return window.jupyterapp.commands.execute('notebook:run-cell');
}"""


@pytest.mark.browser
def test_in_jupyterlab_reader_and_kernel_see_the_same_settings(lab, browser):
    with lab.open(browser, lab.write("tied.ipynb", MADE, SHOWN, HEARD)) as page:
        reader = Reader(page)
        text = "() => [...document.querySelectorAll('.jp-OutputArea-output pre')]"
        page.wait_for_function(f"{text}.some(e => e.innerText.includes('20 None'))")
        bins = reader.control("slider", name="Bins")
        playwright.expect(bins).to_have_value("7")  # Python's wish reached the page
        bins.press("ArrowRight")
        page.evaluate(
            "() => { window.cells = document.querySelectorAll('.jp-Cell').length }"
        )
        page.keyboard.press("b")  # JupyterLab's command for a new cell
        same = "() => document.querySelectorAll('.jp-Cell').length === window.cells"
        assert page.evaluate(same)
        page.evaluate(RUN_LAST_CELL)
        page.wait_for_function(f"{text}.some(e => e.innerText.includes('8 None'))")


@pytest.mark.browser
def test_without_its_kernel_a_notebook_still_answers(lab, browser):
    name = lab.write("saved.ipynb", MADE, SHOWN)
    with lab.open(browser, name) as page:
        page.wait_for_selector("section.gcelib")
        page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        session = "window.jupyterapp.shell.currentWidget.sessionContext.session"
        page.evaluate(f"() => {session}.kernel.shutdown()")
        page.reload()
        reader = Reader(page)
        before = reader.numbers("ours")
        reader.control("slider", name="Temperature").press("End")
        assert reader.numbers("ours") != before
        assert page.get_by_text("model not found").count() == 0
    saved = nbformat.read(lab.notebooks / name, 4)
    assert "widgets" not in saved.metadata
    # Another reader's JupyterLab does not trust it: no script runs, the picture shows.
    saved.cells.append(nbformat.v4.new_markdown_cell("from elsewhere"))
    nbformat.write(saved, lab.notebooks / "copy.ipynb")
    with lab.open(browser, "copy.ipynb", run=False) as page:
        picture = page.locator(".jp-OutputArea-output img[src^='data:image/png']")
        playwright.expect(picture).to_be_visible()
        assert page.locator("section.gcelib").count() == 0


@pytest.mark.browser
def test_a_slow_and_a_dead_kernel_do_not_look_like_a_fresh_answer(lab, browser):
    large = MADE + "reliability.MOST_CELLS = 10\n"
    slow = "import time\nfrom gcelib import plots\nband = plots.consistency_band\n"
    slow += "def late(bins):\n    time.sleep(3)\n    return band(bins)\n"
    slow += "plots.consistency_band = late"
    with lab.open(browser, lab.write("large.ipynb", large, SHOWN, slow)) as page:
        reader = Reader(page)
        playwright.expect(reader.root).to_have_attribute("data-state", "fresh")
        started = "() => window.jupyterapp.shell.currentWidget.content.widgets[2]"
        page.wait_for_function(f"{started}.model.executionCount === 3")
        reader.press("slider", "Bins", "ArrowLeft")
        playwright.expect(reader.root).to_have_attribute("data-state", "waiting")
        playwright.expect(reader.root).to_contain_text("Working")
        playwright.expect(reader.root).to_have_attribute("data-state", "fresh")
        restart = "sessionContext.session.kernel.restart()"
        page.evaluate(f"() => window.jupyterapp.shell.currentWidget.{restart}")
        playwright.expect(reader.root).to_have_attribute("data-state", "gone")
        playwright.expect(reader.root).to_contain_text("The kernel is gone")
