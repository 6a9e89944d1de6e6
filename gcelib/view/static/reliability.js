// ReliabilityExplorer's view: controls, diagram, numbers, samples. It computes nothing:
// an answerer does, and every control only changes a setting. What an answer leaves as it
// was is not drawn again.

import { answerer } from "./answerers.js";
import { Panel, patterns, SMALL, WIDE } from "./chart.js";
import { dropDown, html, percent, replace, slider, svg, update, whole } from "./page.js";
import { Pictures } from "./pictures.js";
import { saveCsv, savePng } from "./saving.js";

/** @typedef {import("./chart.js").Bar} Bar */
/** @typedef {import("./chart.js").Look} Look */
/** @typedef {import("./engine.js").Row} Row */
/** @typedef {import("./engine.js").Answer & {pixels?: import("./pictures.js").Sent}} Answer */
/** @typedef {import("./page.js").Settings} Settings */

/** What does not change: pairs are [value, text]; a metric is key, label, factor, digits.
 * @typedef {{runs: Look[], calibrators: [string, string][], binnings: [string, string][],
 *   metrics: [string, string, number, number][], class_names: string[],
 *   n_samples: number, python_only?: string[]}} Setup */

const STATES = {
  fresh: "",
  waiting: "Working …",
  late: "No answer for ten seconds: the kernel is busy, or gone. Shown is the last answer.",
  gone: "The kernel is gone: shown is the last answer. Run the cell again.",
  alone: "So many logits are answered by a kernel, and none is here: run the cell again.",
};
let views = 0;

/** @param {HTMLElement} root @param {any} content @param {Settings} settings */
export function reliability(root, content, settings) {
  /** @type {Setup} */
  const setup = content.setup;
  const prefix = `gcelib-${++views}`;
  /** @type {Map<string, Look>} */
  const looks = new Map(setup.runs.map((run, index) => [run.name, { ...run, index }]));
  const lookOf = (/** @type {string} */ name) => /** @type {Look} */ (looks.get(name));
  const label = (/** @type {string} */ name) => lookOf(name).label;
  const pictures = new Pictures(content.images);
  /** The diagrams that have been drawn, by their runs. @type {Map<string, Panel>} */
  const panels = new Map();
  /** @type {Bar[]} */
  let bars = [];
  /** @type {string|undefined} */
  let current; // the key of the bar that Tab reaches
  /** @type {Answer} */
  let answer;

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
  const eces = () => answer.rows.map((row) =>
    `${label(row.name)}: ECE ${(100 * row.numbers.ece).toFixed(2)} %`).join(", ");
  const buttons = html("div", { class: "buttons" },
    html("button", { type: "button", onclick: () => savePng(legend, charts, eces()) }, "Save PNG"),
    html("button", { type: "button", onclick: () => saveCsv(answer.rows, label) }, "Save CSV"));
  root.append(
    controls(settings, setup), notice, notes,
    html("div", { class: "main" },
      html("div", { class: "left" }, legend, html("div", { class: "frame" }, charts, tip), buttons),
      html("div", { class: "right" }, numbers, status, pair, samples)));

  const of = () => {
    const k = answer.question.class_index;
    return k === null ? null : setup.class_names[k];
  };
  /** Where the focus is. @returns {any} */
  const focused = () => /** @type {ShadowRoot} */ (root.getRootNode()).activeElement;

  function drawCharts() {
    const { rows, question } = answer;
    const most = Math.max(1, ...rows.flatMap((row) => row.counts));
    const hadFocus = charts.contains(focused());
    const groups = rows.length > 3 ? rows.map((row) => [row]) : [rows];
    const at = groups.length > 1 ? SMALL : WIDE;
    const shown = groups.map((group) => {
      const key = JSON.stringify([at.width, group.map(({ name }) => name)]);
      let panel = panels.get(key);
      if (!panel) {
        panel = new Panel(at, `${prefix}-${panels.size}`, group.map(({ name }) => lookOf(name)));
        panels.set(key, panel);
      }
      panel.draw(group, question, of(), most);
      return panel;
    });
    bars = shown.flatMap((panel) => panel.bars);
    const elements = shown.map(({ element }) => element);
    const there = [...charts.children];
    if (elements.length !== there.length || elements.some((one, i) => one !== there[i])) {
      charts.classList.toggle("many", at === SMALL);
      charts.replaceChildren(...elements);
    }
    tip.hidden = true;
    makeCurrent(bars.find(({ key }) => key === current) ?? bars.at(-1), hadFocus);
    markSelected();
  }

  /** @param {Event} event */
  const barAt = (event) => {
    return bars.find((bar) => bar.element === event.target);
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
    /** @param {number} by @param {(other: Bar) => boolean} among */
    const along = (by, among) => {
      const list = bars.filter(among);
      const to = Math.max(0, Math.min(list.indexOf(bar) + by, list.length - 1));
      makeCurrent(list[to], true);
    };
    const ofRun = (/** @type {Bar} */ other) => other.row.name === bar.row.name;
    const ofBin = (/** @type {Bar} */ other) => other.bin === bar.bin;
    /** @type {Object<string, () => void>} */
    const acts = {
      ArrowLeft: () => along(-1, ofRun),
      ArrowRight: () => along(1, ofRun),
      Home: () => along(-bars.length, ofRun),
      End: () => along(bars.length, ofRun),
      ArrowUp: () => along(-1, ofBin),
      ArrowDown: () => along(1, ofBin),
      Enter: () => select(bar),
      " ": () => select(bar),
      Escape: () => settings.set({ selected: null }),
    };
    if (!Object.hasOwn(acts, event.key)) return;
    acts[event.key]();
    event.preventDefault();
  });

  /** @param {Bar} bar */
  function showTip(bar) {
    tip.replaceChildren(...bar.lines.map((line) => html("div", {}, line)));
    tip.hidden = false;
    const frame = charts.parentElement.getBoundingClientRect();
    const box = bar.element.getBoundingClientRect();
    const room = frame.width - tip.offsetWidth;
    const onTheRight = box.left - frame.left > frame.width / 2;
    const alone = charts.childElementCount === 1; // a bar on the right leaves room on the left
    const beside = !onTheRight ? box.right - frame.left + 8
      : alone ? 50 : box.left - frame.left - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(0, Math.min(beside, room))}px`;
    tip.style.top = `${Math.max(0, box.top - frame.top)}px`;
  }

  /** @param {Bar|undefined} bar @param {boolean} focus */
  function makeCurrent(bar, focus) {
    for (const other of bars) update(other.element, { tabindex: other === bar ? 0 : -1 });
    current = bar?.key;
    if (focus) bar?.element.focus({ preventScroll: true });
  }

  /** @param {Bar} bar */
  function select(bar) {
    const { low, high } = bar;
    settings.set({ selected: { kind: "bar", run: bar.row.name, low, high }, first: 0, detail: null });
  }

  function markSelected() {
    const chosen = settings.get("selected");
    for (const bar of bars) {
      const inside = chosen?.kind === "bar" && chosen.run === bar.row.name
        && bar.low < chosen.high - 1e-9 && bar.high > chosen.low + 1e-9;
      update(bar.element, { "aria-pressed": inside });
    }
  }

  /** What was said while the calibrator in view was fitted. */
  function drawNotes() {
    const { calibrator, losses } = answer.question;
    /** @type {{name: string, calibrators: Object<string, {notes?: string[]}>}[]} */
    const runs = content.data?.runs ?? [];
    const said = runs.filter(({ name }) => losses.includes(name)).flatMap(
      ({ name, calibrators }) => (calibrators[calibrator]?.notes ?? [])
        .map((note) => `${label(name)}: ${note}.`));
    const absent = (setup.python_only ?? []).map((name) => `${name} is applied by Python alone.`);
    notes.replaceChildren(...[...said, ...absent].map((note) => html("li", {}, note)));
  }

  function drawLegend() {
    const own = `${prefix}-legend`;
    /** @param {...any} shapes */
    const sign = (...shapes) =>
      svg("svg", { class: "swatch", viewBox: "0 0 18 12", "aria-hidden": "true" }, ...shapes);
    const swatch = (/** @type {Look} */ { color, index }) => sign(
      patterns(`${own}-${index}`, [index]),
      svg("rect", { width: 18, height: 12, fill: color }),
      svg("rect", { width: 18, height: 12, fill: `url(#${own}-${index}-${index})` }));
    /** @param {string} path @param {string} kind */
    const mark = (path, kind, fill = "none") =>
      sign(patterns(own, []), svg("path", { d: path, class: kind, fill }));
    /** @param {any} picture @param {string} words */
    const entry = (picture, words) => html("li", {}, picture, words);
    legend.replaceChildren(
      ...answer.rows.map(({ name }) => entry(swatch(lookOf(name)), label(name))),
      entry(mark("M0.5,0.5H17.5V11.5H0.5Z", "gap", `url(#${own}-gap)`), "gap to confidence"),
      entry(mark("M0,5H18V7H0Z", "mean", "currentColor"), "mean confidence"),
      entry(mark("M6,1h6m-3,0V11m-3,0h6", "band"), "95 % if calibrated"),
      entry(mark("M0,11L18,1", "diagonal"), "perfect calibration"));
  }

  let tableKey = "";
  /** The table's cells, row by row. @type {HTMLElement[][]} */
  let cells = [];
  function drawNumbers() {
    const { rows, question } = answer;
    /** @type {Setup["metrics"]} */
    const shown = question.class_index === null && question.binning !== "equal" ? [] : [
      ["shown_ece", of() ? `ECE of ${of()} %` : "ECE, as drawn %", 100, 2],
    ];
    const lines = [...setup.metrics, ...shown];
    const key = JSON.stringify([rows.map(({ name }) => name), lines.map(([, title]) => title)]);
    if (key !== tableKey) {
      cells = lines.map(([metric]) => rows.map(({ name }) =>
        html("td", { "data-number": `${name}/${metric}` })));
      const heads = rows.map(({ name }) => html("th", { scope: "col" }, label(name)));
      const body = lines.map(([, title], i) =>
        html("tr", {}, html("th", { scope: "row" }, title), ...cells[i]));
      const caption = rows.length
        ? `${whole(setup.n_samples)} test samples, lower is better`
        : "Tick a run to see its diagram.";
      numbers.replaceChildren(html("caption", {}, caption),
        html("thead", {}, html("tr", {}, html("td", {}), ...heads)), html("tbody", {}, ...body));
    }
    tableKey = key;
    lines.forEach(([metric, , scale, digits], i) => rows.forEach((row, j) =>
      update(cells[i][j], {}, (scale * row.numbers[metric]).toFixed(digits))));
  }

  /** @type {number|undefined} */
  let pause;
  function sayNumbers() {
    clearTimeout(pause);
    pause = setTimeout(() => (status.textContent = eces()), 300);
  }

  function drawPair() {
    const { losses: names, pair: chosen } = answer.question;
    if (names.length < 2) return replace(pair);
    /** @param {string} key @param {string} words @param {() => void} onclick */
    const button = (key, words, onclick) =>
      html("button", { type: "button", "data-key": key, onclick }, words);
    if (!chosen || !answer.agreement) {
      const start = () => settings.set({ pair: [names[0], names.at(-1)] });
      // The first choice that this opens has the same key: the focus goes there.
      return replace(pair, button("One run", "Where do two runs disagree?", start));
    }
    const [one, other] = chosen;
    const [both, first, second, neither] = answer.agreement.map(whole);
    const pick = (/** @type {number} */ place) => {
      const options = names.filter((name) => name !== chosen[1 - place]);
      const choose = () => {
        const next = [...chosen];
        next[place] = options[select.selectedIndex];
        settings.set({ pair: next, selected: null });
      };
      const items = options.map((name) =>
        html("option", { selected: name === chosen[place] }, label(name)));
      const title = place ? "Other run" : "One run";
      const select = html("select", {
        "aria-label": title, "data-key": title, onchange: choose,
      }, ...items);
      return select;
    };
    /** @param {string} right @param {string} wrong @param {string} count */
    const show = (right, wrong, count) =>
      button(`only ${right}`, `only ${label(right)} right: ${count}`, () => settings.set({
        selected: { kind: "disagree", right, wrong }, first: 0, detail: null,
      }));
    const close = button("close", "Close comparison", () => settings.set({ pair: null, selected: null }));
    replace(pair,
      html("p", {}, pick(0), " and ", pick(1),
        ` are both right on ${both}, both wrong on ${neither} samples.`),
      html("p", { class: "buttons" }, show(one, other, first), show(other, one, second), close));
  }

  /** @param {number} i @param {number} place in the answer @param {number} size */
  const picture = (i, place, size) => pictures.canvas(i, place, answer.pixels, size);

  function drawSamples() {
    const { samples: found, question } = answer;
    const { selected, first, errors_only: errorsOnly, n_images: step } = question;
    if (!found || !selected) {
      const words = "Click a bar, or press Enter on it, to see its samples.";
      return replace(samples, html("p", { class: "note" }, words));
    }
    if (answer.detail) return drawDetail(answer.detail, found);
    const { count, wrong, index } = found;
    const short = of() && selected.kind === "bar" ? `p(${of()})` : "confidence";
    const what = errorsOnly ? "errors" : `samples, ${whole(wrong)} wrong`;
    const title = selected.kind === "bar"
      ? `${label(selected.run)}, ${short} from ${selected.low.toFixed(3)} to `
        + `${selected.high.toFixed(3)}: ${whole(count)} ${what}.`
      : `${label(selected.right)} is right, ${label(selected.wrong)} is wrong: `
        + `${whole(count)} samples.`;
    const range = count > index.length && index.length
      ? ` Shown: ${first + 1} to ${first + index.length}, worst first.` : "";
    /** @param {string} words @param {boolean} disabled @param {() => void} onclick */
    const button = (words, disabled, onclick) =>
      html("button", { type: "button", "data-key": words, disabled, onclick }, words);
    const turn = (/** @type {number} */ to) => settings.set({ first: Math.max(0, to) });
    const toggle = () => settings.set({ errors_only: box.checked, first: 0 });
    const box = html("input", { type: "checkbox", "data-key": "errors", onchange: toggle });
    box.checked = errorsOnly;
    const close = () => {
      settings.set({ selected: null });
      const opener = selected.kind === "bar" ? null
        : pair.querySelector(`[data-key="only ${CSS.escape(selected.right)}"]`);
      if (opener) opener.focus();
      else makeCurrent(bars.find(({ key }) => key === current), true);
    };
    const tools = html("p", { class: "buttons" },
      ...(selected.kind === "bar" ? [html("label", {}, box, " errors only")] : []),
      button(`Previous ${step}`, first === 0, () => turn(first - step)),
      button(`Next ${step}`, first + index.length >= count, () => turn(first + step)),
      button("Close samples", false, close));
    const cards = index.map((i, place) => {
      const truth = setup.class_names[found.label[place]];
      const guess = setup.class_names[found.prediction[place]];
      const right = found.label[place] === found.prediction[place];
      const claim = `${short === "confidence" ? "conf." : short} ${percent(found.prob[place])}`;
      const enlarge = () => settings.set({ detail: i });
      return html("li", {}, html("button", {
        type: "button", class: right ? "card right" : "card wrong", onclick: enlarge,
        "data-sample": i, "data-key": `sample ${i}`,
      }, ...picture(i, place, 56), html("b", {}, `${right ? "✓" : "✗"} ${guess}`),
      html("span", {}, `true: ${truth}`), html("span", {}, claim)));
    });
    replace(samples, html("p", {}, title + range), tools, html("ol", { class: "cards" }, ...cards));
  }

  /** @param {NonNullable<Answer["detail"]>} detail @param {NonNullable<Answer["samples"]>} found */
  function drawDetail(detail, found) {
    const { class_names: names } = setup;
    const opened = samples.contains(focused());
    const leave = () => {
      settings.set({ detail: null });
      samples.querySelector(`[data-sample="${detail.index}"]`)?.focus();
    };
    const back = html("button", {
      type: "button", "data-key": "back", onclick: leave,
    }, "Back to the samples");
    const best = names.map((_, k) => Math.max(...detail.probs.map((row) => row[k])));
    const order = names.map((_, k) => k).sort((a, b) => best[b] - best[a]).slice(0, 20);
    if (!order.includes(detail.label)) order.push(detail.label);
    const shade = (/** @type {number} */ p) =>
      `background-image:linear-gradient(to right, var(--bar) ${100 * p}%, transparent 0)`;
    const row = (/** @type {number} */ k) => html("tr", { class: k === detail.label ? "truth" : null },
      html("th", { scope: "row" }, k === detail.label ? `${names[k]} (true)` : names[k]),
      ...detail.probs.map((probs) => html("td", { style: shade(probs[k]) }, percent(probs[k]))));
    const heads = answer.question.losses.map((name) => html("th", { scope: "col" }, label(name)));
    const caption = `All probabilities of test sample ${detail.index}`
      + `${names.length > order.length ? ", the largest" : ""}`;
    const table = html("table", {}, html("caption", {}, caption),
      html("thead", {}, html("tr", {}, html("td", {}), ...heads)),
      html("tbody", {}, ...order.map(row)));
    const large = picture(detail.index, found.index.indexOf(detail.index), 168);
    replace(samples, back, html("div", { class: "detail" }, ...large, table));
    if (opened) back.focus({ preventScroll: true });
  }

  /** The parts of the page, each with what it hangs on besides the bins.
   * @type {[() => void, () => any[]][]} */
  const below = [
    [drawPair, () => [answer.question.losses, answer.question.pair, answer.agreement]],
    [drawSamples, () => {
      const { selected, first, errors_only: errorsOnly, losses, class_index: k } = answer.question;
      return [selected, first, errorsOnly, losses, k, answer.samples, answer.detail];
    }],
  ];
  const drawn = below.map(() => "");
  function drawBelow() {
    below.forEach(([draw, parts], i) => {
      const key = JSON.stringify(parts());
      if (key !== drawn[i]) draw();
      drawn[i] = key;
    });
  }

  const asked = answerer(content, settings, (/** @type {Answer} */ found) => {
    const before = answer;
    answer = found;
    const names = (/** @type {Answer} */ one) => one.rows.map((row) => row.name).join("\n");
    const changed = before?.rows.length !== found.rows.length
      || found.rows.some((row, i) => row !== before.rows[i]);
    if (changed) {
      if (!before || names(before) !== names(found)) drawLegend();
      drawCharts();
      drawNumbers();
      drawNotes();
      sayNumbers();
    } else markSelected();
    drawBelow();
  }, (state) => {
    root.dataset.state = state;
    root.setAttribute("aria-busy", String(state === "waiting" || state === "late"));
    notice.textContent = STATES[/** @type {keyof typeof STATES} */ (state)];
  });
  pictures.ready.then(() => answer && drawSamples());
  return asked;
}

/** @param {Settings} settings @param {Setup} setup */
function controls(settings, setup) {
  const names = setup.runs.map(({ name }) => name);
  const runs = setup.runs.map(({ name, label }) => {
    const toggle = () => {
      const ticked = new Set(settings.get("losses"));
      if (box.checked) ticked.add(name);
      else ticked.delete(name);
      /** @type {string[]|null} */
      const pair = settings.get("pair");
      const kept = pair?.every((one) => ticked.has(one)) ? pair : null;
      settings.set({ losses: names.filter((one) => ticked.has(one)), pair: kept });
    };
    const box = html("input", { type: "checkbox", name, onchange: toggle });
    settings.on(["losses"], () => (box.checked = settings.get("losses").includes(name)));
    return html("label", {}, box, ` ${label}`);
  });
  const start = { first: 0, detail: null };
  /** @type {[number|null, string][]} */
  const classes = setup.class_names.map((name, k) => [k, `only ${name}`]);
  classes.unshift([null, "all: the top confidence"]);
  return html("div", { class: "controls" },
    html("fieldset", {}, html("legend", {}, "Runs"), ...runs),
    dropDown(settings, "calibrator", "Calibrator", setup.calibrators, start),
    slider(settings, "temperature", "Temperature", {
      min: -1, max: 1, step: 0.02, position: Math.log10,
      value: (p) => Number((10 ** p).toPrecision(4)), text: (t) => t.toFixed(2),
    }),
    slider(settings, "n_bins", "Bins", { min: 1, max: 50, step: 1 }),
    dropDown(settings, "binning", "Bins of equal", setup.binnings, start),
    dropDown(settings, "class_index", "Classes", classes, { ...start, selected: null }));
}
