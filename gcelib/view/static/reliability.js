// ReliabilityExplorer's view: controls, diagram, numbers, samples. It computes nothing:
// an answerer does, and every control only changes a setting.

import { answerer } from "./answerers.js";
import { axes, diagonal, drawBar, patterns, SMALL, WIDE } from "./chart.js";
import { download, dropDown, html, percent, slider, svg, whole } from "./page.js";
import { Pictures } from "./pictures.js";

const STATES = {
  fresh: "",
  waiting: "Working …",
  late: "No answer for ten seconds: the kernel is busy, or gone. Shown is the last answer.",
  gone: "The kernel is gone: shown is the last answer. Run the cell again.",
  alone: "So many logits are answered by a kernel, and none is here: run the cell again.",
};
let views = 0;

/** @param {HTMLElement} root @param {any} content @param {import("./page.js").Settings} settings */
export function reliability(root, content, settings) {
  const { setup } = content;
  const prefix = `gcelib-${++views}`;
  const runs = Object.fromEntries(setup.runs.map((/** @type {any} */ run, /** @type {number} */ index) =>
    [run.name, { ...run, index }]));
  const label = (/** @type {string} */ name) => runs[name].label;
  const pictures = new Pictures(content.images);
  /** @type {import("./chart.js").Bar[]} */
  let bars = [];
  /** @type {string|undefined} */
  let current; // the key of the bar that Tab reaches
  /** @type {any} */
  let answer = null;

  root.setAttribute("aria-label", "Reliability explorer");
  const charts = html("div", { class: "charts" });
  const tip = html("div", { class: "tip", "aria-hidden": "true", hidden: true });
  const legend = html("ul", { class: "legend", "aria-label": "Legend" });
  const numbers = html("table", {});
  const pair = html("div", { class: "pair" });
  const samples = html("div", { class: "samples", role: "region", "aria-label": "Samples" });
  const status = html("p", { class: "status", role: "status" });
  const notes = html("ul", { class: "notes" });
  const notice = html("p", { class: "notice", role: "alert" });
  const buttons = html("div", { class: "buttons" },
    html("button", { type: "button", onclick: () => savePng() }, "Save PNG"),
    html("button", { type: "button", onclick: () => saveCsv() }, "Save CSV"));
  root.append(
    controls(settings, setup), notice, notes,
    html("div", { class: "main" },
      html("div", { class: "left" }, legend, html("div", { class: "frame" }, charts, tip), buttons),
      html("div", { class: "right" }, numbers, status, pair, samples)));

  const of = () => {
    const k = answer.question.class_index;
    return k === null ? null : setup.class_names[k];
  };

  function drawCharts() {
    const { rows, question } = answer;
    const most = Math.max(1, ...rows.flatMap((/** @type {any} */ row) => row.counts));
    const hadFocus = charts.contains(/** @type {any} */ (root.getRootNode()).activeElement);
    const panels = rows.length > 3 ? rows.map((/** @type {any} */ row) => [row]) : [rows];
    const at = panels.length > 1 ? SMALL : WIDE;
    bars = [];
    charts.classList.toggle("many", panels.length > 1);
    charts.replaceChildren(...panels.map((/** @type {any[]} */ panel, /** @type {number} */ i) =>
      drawPanel(panel, at, most, question, `${prefix}-${i}`)));
    tip.hidden = true;
    const kept = bars.find(({ key }) => key === current) ?? bars.at(-1);
    makeCurrent(kept, hadFocus);
    markSelected();
  }

  /** @param {any[]} panel @param {any} at @param {number} most @param {any} question @param {string} id */
  function drawPanel(panel, at, most, question, id) {
    const names = panel.map((row) => label(row.name)).join(", ");
    const chart = svg("svg", {
      viewBox: `0 0 ${at.width} ${at.height}`, role: "group",
      "aria-label": `Reliability diagram of ${names || "no run"}. `
        + "Arrow keys move between bars, Enter shows a bar's samples.",
    }, patterns(id, setup.runs.length), ...axes(at, question, of(), most));
    panel.forEach((row, place) => {
      row.counts.forEach((/** @type {number} */ count, /** @type {number} */ bin) => {
        if (!count) return;
        const bar = drawBar(at, question, of(), row, runs[row.name], bin, place, panel.length, most, id);
        bars.push(bar);
        chart.append(bar.element);
      });
    });
    if (question.binning === "width") chart.append(diagonal(at));
    if (at === SMALL) chart.append(svg("text", { x: at.left, y: 14, class: "title" }, names));
    return chart;
  }

  /** @param {Event} event */
  const barAt = (event) => {
    const element = /** @type {Element} */ (event.target).closest?.(".bar");
    return element ? bars.find((bar) => bar.element === element) : undefined;
  };
  for (const event of ["pointerover", "focusin"]) {
    charts.addEventListener(event, (/** @type {Event} */ happened) => {
      const bar = barAt(happened);
      if (bar) showTip(bar);
    });
  }
  for (const event of ["pointerleave", "focusout"]) {
    charts.addEventListener(event, () => (tip.hidden = true));
  }
  charts.addEventListener("click", (/** @type {Event} */ event) => {
    const bar = barAt(event);
    if (!bar) return;
    makeCurrent(bar, true);
    select(bar);
  });
  charts.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const bar = bars.find(({ key }) => key === current);
    if (!bar) return;
    /** @param {number} by @param {(other: any) => boolean} among */
    const along = (by, among) => {
      const list = bars.filter(among);
      const to = Math.max(0, Math.min(list.indexOf(bar) + by, list.length - 1));
      makeCurrent(list[to], true);
    };
    const ofRun = (/** @type {any} */ other) => other.row.name === bar.row.name;
    const ofBin = (/** @type {any} */ other) => other.bin === bar.bin;
    const act = {
      ArrowLeft: () => along(-1, ofRun),
      ArrowRight: () => along(1, ofRun),
      Home: () => along(-bars.length, ofRun),
      End: () => along(bars.length, ofRun),
      ArrowUp: () => along(-1, ofBin),
      ArrowDown: () => along(1, ofBin),
      Enter: () => select(bar),
      " ": () => select(bar),
      Escape: () => settings.set({ selected: null }),
    }[event.key];
    if (!act) return;
    act();
    event.preventDefault();
  });

  /** @param {import("./chart.js").Bar} bar */
  function showTip(bar) {
    tip.replaceChildren(...bar.lines.map((line) => html("div", {}, line)));
    tip.hidden = false;
    const frame = charts.parentElement.getBoundingClientRect();
    const box = bar.element.getBoundingClientRect();
    const room = frame.width - tip.offsetWidth;
    const onTheRight = box.left - frame.left > frame.width / 2;
    const alone = charts.childElementCount === 1; // then a bar on the right leaves room on the left
    const beside = !onTheRight ? box.right - frame.left + 8
      : alone ? 50 : box.left - frame.left - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(0, Math.min(beside, room))}px`;
    tip.style.top = `${Math.max(0, box.top - frame.top)}px`;
  }

  /** @param {import("./chart.js").Bar|undefined} bar @param {boolean} focus */
  function makeCurrent(bar, focus) {
    for (const other of bars) other.element.setAttribute("tabindex", other === bar ? 0 : -1);
    current = bar?.key;
    if (focus) bar?.element.focus({ preventScroll: true });
  }

  /** @param {import("./chart.js").Bar} bar */
  function select(bar) {
    const { low, high } = bar;
    settings.set({ selected: { kind: "bar", run: bar.row.name, low, high }, first: 0, detail: null });
  }

  function markSelected() {
    const chosen = settings.get("selected");
    for (const bar of bars) {
      const inside = chosen?.kind === "bar" && chosen.run === bar.row.name
        && bar.low < chosen.high - 1e-9 && bar.high > chosen.low + 1e-9;
      bar.element.setAttribute("aria-pressed", inside);
    }
  }

  /** What was said while the calibrator in view was fitted. */
  function drawNotes() {
    const { calibrator, losses } = answer.question;
    const said = (content.data?.runs ?? []).filter((/** @type {any} */ run) => losses.includes(run.name))
      .flatMap((/** @type {any} */ run) => (run.calibrators[calibrator]?.notes ?? [])
        .map((/** @type {string} */ note) => `${label(run.name)}: ${note}.`));
    notes.replaceChildren(...said.map((/** @type {string} */ note) => html("li", {}, note)));
  }

  function drawLegend() {
    const swatch = (/** @type {any} */ run) => svg("svg", { class: "swatch", viewBox: "0 0 18 12", "aria-hidden": "true" },
      patterns(`${prefix}-legend-${run.index}`, setup.runs.length),
      svg("rect", { width: 18, height: 12, fill: run.color }),
      svg("rect", { width: 18, height: 12, fill: `url(#${prefix}-legend-${run.index}-${run.index})` }));
    const mark = (/** @type {string} */ path, /** @type {string} */ kind, fill = "none") =>
      svg("svg", { class: "swatch", viewBox: "0 0 18 12", "aria-hidden": "true" },
        patterns(`${prefix}-legend`, 0), svg("path", { d: path, class: kind, fill }));
    const entry = (/** @type {any} */ picture, /** @type {string} */ words) => html("li", {}, picture, words);
    legend.replaceChildren(
      ...answer.rows.map((/** @type {any} */ { name }) => entry(swatch(runs[name]), label(name))),
      entry(mark("M0.5,0.5H17.5V11.5H0.5Z", "gap", `url(#${prefix}-legend-gap)`), "gap to confidence"),
      entry(mark("M0,5H18V7H0Z", "mean"), "mean confidence"),
      entry(mark("M6,1h6m-3,0V11m-3,0h6", "band"), "95 % if calibrated"),
      entry(mark("M0,11L18,1", "diagonal"), "perfect calibration"));
  }

  function drawNumbers() {
    const { rows, question } = answer;
    const shown = question.class_index === null && question.binning !== "equal" ? [] : [
      ["shown_ece", of() ? `ECE of ${of()} %` : "ECE, as drawn %", 100, 2],
    ];
    const lines = [...setup.metrics, ...shown];
    const cell = (/** @type {any} */ row, /** @type {any} */ [key, , scale, digits]) =>
      html("td", { "data-number": `${row.name}/${key}` }, (scale * row.numbers[key]).toFixed(digits));
    const heads = rows.map((/** @type {any} */ { name }) => html("th", { scope: "col" }, label(name)));
    const body = lines.map((line) => html("tr", {}, html("th", { scope: "row" }, line[1]),
      ...rows.map((/** @type {any} */ row) => cell(row, line))));
    const caption = rows.length
      ? `${whole(setup.n_samples)} test samples, lower is better` : "Tick a run to see its diagram.";
    numbers.replaceChildren(html("caption", {}, caption),
      html("thead", {}, html("tr", {}, html("td", {}), ...heads)), html("tbody", {}, ...body));
  }

  /** @type {number|undefined} */
  let pause;
  function sayNumbers() {
    clearTimeout(pause);
    pause = setTimeout(() => {
      const words = answer.rows.map((/** @type {any} */ row) =>
        `${label(row.name)}: ECE ${(100 * row.numbers.ece).toFixed(2)} %`);
      status.textContent = words.join(", ");
    }, 300);
  }

  function drawPair() {
    const names = answer.question.losses;
    const chosen = answer.question.pair;
    if (names.length < 2) return pair.replaceChildren();
    if (!chosen) {
      const start = () => settings.set({ pair: [names[0], names.at(-1)] });
      return pair.replaceChildren(html("button", { type: "button", onclick: start },
        "Where do two runs disagree?"));
    }
    const [one, other] = chosen;
    const [both, first, second, neither] = answer.agreement;
    const pick = (/** @type {number} */ place) => {
      const options = names.filter((/** @type {string} */ name) => name !== chosen[1 - place]);
      const choose = () => {
        const next = [...chosen];
        next[place] = options[select.selectedIndex];
        settings.set({ pair: next, selected: null });
      };
      const items = options.map((/** @type {string} */ name) =>
        html("option", { selected: name === chosen[place] }, label(name)));
      const select = html("select", { "aria-label": place ? "Other run" : "One run", onchange: choose }, ...items);
      return select;
    };
    const show = (/** @type {string} */ right, /** @type {string} */ wrong, /** @type {number} */ count) => html("button", {
      type: "button", "data-right": right,
      onclick: () => settings.set({ selected: { kind: "disagree", right, wrong }, first: 0, detail: null }),
    }, `only ${label(right)} right: ${whole(count)}`);
    const close = () => settings.set({ pair: null, selected: null });
    pair.replaceChildren(html("p", {}, pick(0), " and ", pick(1),
      ` are both right on ${whole(both)}, both wrong on ${whole(neither)} samples.`),
    html("p", { class: "buttons" }, show(one, other, first), show(other, one, second),
      html("button", { type: "button", onclick: close }, "Close")));
  }

  /** @param {number} i @param {number} place in the answer @param {number} size */
  const picture = (i, place, size) => pictures.canvas(i, place, answer.pixels, size);

  function drawSamples() {
    const { samples: found, question } = answer;
    if (!found) {
      const words = "Click a bar, or press Enter on it, to see its samples.";
      return samples.replaceChildren(html("p", { class: "note" }, words));
    }
    if (answer.detail) return drawDetail();
    const { selected, first } = question;
    const { count, wrong, index } = found;
    const short = of() && selected.kind === "bar" ? `p(${of()})` : "confidence";
    const title = selected.kind === "bar"
      ? `${label(selected.run)}, ${short} from ${selected.low.toFixed(3)} to ${selected.high.toFixed(3)}: `
        + `${whole(count)} ${question.errors_only ? "errors" : `samples, ${whole(wrong)} wrong`}.`
      : `${label(selected.right)} is right, ${label(selected.wrong)} is wrong: ${whole(count)} samples.`;
    const range = count > index.length ? ` Shown: ${first + 1} to ${first + index.length}, worst first.` : "";
    const turn = (/** @type {number} */ by) => settings.set({ first: Math.max(0, first + by) });
    const step = question.n_images;
    const box = html("input", { type: "checkbox", onchange: () => settings.set({ errors_only: box.checked, first: 0 }) });
    box.checked = question.errors_only;
    const close = () => {
      settings.set({ selected: null });
      makeCurrent(bars.find(({ key }) => key === current), true);
    };
    const tools = html("p", { class: "buttons" },
      ...(selected.kind === "bar" ? [html("label", {}, box, " errors only")] : []),
      html("button", { type: "button", disabled: first === 0, onclick: () => turn(-step) }, `Previous ${step}`),
      html("button", { type: "button", disabled: first + index.length >= count, onclick: () => turn(step) }, `Next ${step}`),
      html("button", { type: "button", onclick: close }, "Close"));
    const cards = index.map((/** @type {number} */ i, /** @type {number} */ place) => {
      const truth = setup.class_names[found.label[place]];
      const guess = setup.class_names[found.prediction[place]];
      const right = found.label[place] === found.prediction[place];
      return html("li", {}, html("button", {
        type: "button", class: right ? "card right" : "card wrong", "data-sample": i,
        onclick: () => settings.set({ detail: i }),
      }, ...picture(i, place, 56), html("b", {}, `${right ? "✓" : "✗"} ${guess}`),
      html("span", {}, `true: ${truth}`), html("span", {}, `${short === "confidence" ? "conf." : short} ${percent(found.prob[place])}`)));
    });
    samples.replaceChildren(html("p", {}, title + range), tools, html("ol", { class: "cards" }, ...cards));
  }

  function drawDetail() {
    const { detail, question, samples: found } = answer;
    const { class_names: names } = setup;
    const back = html("button", { type: "button", onclick: () => {
      settings.set({ detail: null });
      samples.querySelector(`[data-sample="${detail.index}"]`)?.focus();
    } }, "Back to the samples");
    const best = (/** @type {number} */ k) => Math.max(...detail.probs.map((/** @type {number[]} */ row) => row[k]));
    const order = names.map((/** @type {string} */ _, /** @type {number} */ k) => k)
      .sort((/** @type {number} */ a, /** @type {number} */ b) => best(b) - best(a)).slice(0, 20);
    if (!order.includes(detail.label)) order.push(detail.label);
    const row = (/** @type {number} */ k) => html("tr", { class: k === detail.label ? "truth" : null },
      html("th", { scope: "row" }, k === detail.label ? `${names[k]} (true)` : names[k]),
      ...detail.probs.map((/** @type {number[]} */ probs) => html("td", {
        style: `background-image:linear-gradient(to right, var(--bar) ${100 * probs[k]}%, transparent 0)`,
      }, percent(probs[k]))));
    const heads = question.losses.map((/** @type {string} */ name) => html("th", { scope: "col" }, label(name)));
    const table = html("table", {},
      html("caption", {}, `All probabilities of test sample ${detail.index}${names.length > order.length ? ", the largest" : ""}`),
      html("thead", {}, html("tr", {}, html("td", {}), ...heads)), html("tbody", {}, ...order.map(row)));
    const large = picture(detail.index, found.index.indexOf(detail.index), 168);
    samples.replaceChildren(back, html("div", { class: "detail" }, ...large, table));
    back.focus({ preventScroll: true });
  }

  function saveCsv() {
    const head = "run,from,to,samples,confidence,accuracy,band_low,band_high\n";
    const quoted = (/** @type {string} */ name) => `"${name.replaceAll('"', '""')}"`;
    const lines = answer.rows.flatMap((/** @type {any} */ row) => row.counts.map((/** @type {number} */ count, /** @type {number} */ b) => [
      quoted(label(row.name)), row.edges[b], row.edges[b + 1], count,
      ...(count ? [row.confidence[b], row.accuracy[b], row.band_low[b], row.band_high[b]] : ["", "", "", ""]),
    ].join(",")));
    download("reliability.csv", new Blob([`${head}${lines.join("\n")}\n`], { type: "text/csv" }));
  }

  async function savePng() {
    download("reliability.png", await drawPng(charts, answer.rows.map((/** @type {any} */ row) =>
      `${label(row.name)}: ECE ${(100 * row.numbers.ece).toFixed(2)} %`).join(", ")));
  }

  const asked = answerer(content, settings, (found) => {
    const before = answer;
    answer = found;
    const bare = (/** @type {any} */ one) => one && JSON.stringify([one.rows, one.question.binning]);
    if (!before || bare(before) !== bare(found)) {
      drawCharts();
      drawLegend();
      drawNumbers();
      drawNotes();
      sayNumbers();
    } else markSelected();
    drawPair();
    drawSamples();
  }, (state) => {
    root.dataset.state = state;
    root.setAttribute("aria-busy", String(state === "waiting" || state === "late"));
    notice.textContent = STATES[/** @type {keyof typeof STATES} */ (state)];
  });
  pictures.ready.then(() => answer && drawSamples());
  return asked;
}

/** The charts as they are seen, with their numbers below, on the page's own paper.
 * @param {HTMLElement} charts @param {string} caption @returns {Promise<Blob>} */
async function drawPng(charts, caption) {
  const paper = getComputedStyle(charts).getPropertyValue("--paper").trim() || "#ffffff";
  const box = charts.getBoundingClientRect();
  const scale = 2;
  const canvas = document.createElement("canvas");
  canvas.width = scale * box.width;
  canvas.height = scale * (box.height + 28);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(scale, scale);
  context.fillStyle = paper;
  context.fillRect(0, 0, box.width, box.height + 28);
  for (const chart of charts.querySelectorAll("svg")) {
    const at = chart.getBoundingClientRect();
    const image = new Image(at.width, at.height);
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(withStyles(chart, at))}`;
    await image.decode();
    context.drawImage(image, at.left - box.left, at.top - box.top, at.width, at.height);
  }
  context.fillStyle = getComputedStyle(charts).color;
  context.font = "13px system-ui, sans-serif";
  context.fillText(caption, 8, box.height + 18);
  return new Promise((done) => canvas.toBlob((blob) => done(/** @type {Blob} */ (blob)), "image/png"));
}

/** A drawing that needs no style sheet. @param {SVGElement} chart @param {DOMRect} at */
function withStyles(chart, at) {
  const copy = /** @type {SVGElement} */ (chart.cloneNode(true));
  const from = chart.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((element, i) => {
    const style = getComputedStyle(from[i]);
    for (const name of ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font"]) {
      element.setAttribute(name === "font" ? "style" : name, name === "font" ? `font:${style.font}` : style.getPropertyValue(name));
    }
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", String(at.width));
  copy.setAttribute("height", String(at.height));
  return new XMLSerializer().serializeToString(copy);
}

/** @param {import("./page.js").Settings} settings @param {any} setup */
function controls(settings, setup) {
  const runs = setup.runs.map((/** @type {any} */ { name, label }) => {
    const toggle = () => {
      const ticked = new Set(settings.get("losses"));
      if (box.checked) ticked.add(name);
      else ticked.delete(name);
      const losses = setup.runs.map((/** @type {any} */ run) => run.name)
        .filter((/** @type {string} */ other) => ticked.has(other));
      const pair = settings.get("pair");
      const kept = pair?.every((/** @type {string} */ one) => ticked.has(one)) ? pair : null;
      settings.set({ losses, pair: kept });
    };
    const box = html("input", { type: "checkbox", name, onchange: toggle });
    settings.on(["losses"], () => (box.checked = settings.get("losses").includes(name)));
    return html("label", {}, box, ` ${label}`);
  });
  const start = { first: 0, detail: null };
  const classes = setup.class_names.map((/** @type {string} */ name, /** @type {number} */ k) => [k, `only ${name}`]);
  return html("div", { class: "controls" },
    html("fieldset", {}, html("legend", {}, "Runs"), ...runs),
    dropDown(settings, "calibrator", "Calibrator", setup.calibrators, start),
    slider(settings, "temperature", "Temperature", {
      min: -1, max: 1, step: 0.02, position: Math.log10,
      value: (p) => Number((10 ** p).toPrecision(4)), text: (t) => t.toFixed(2),
    }),
    slider(settings, "n_bins", "Bins", { min: 1, max: 50, step: 1 }),
    dropDown(settings, "binning", "Bins of equal", setup.binnings, start),
    dropDown(settings, "class_index", "Classes", [[null, "all: the top confidence"], ...classes], { ...start, selected: null }));
}
