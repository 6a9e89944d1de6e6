// ReliabilityExplorer: bars, numbers and images. Every number comes from the kernel; here they are only drawn.

const NUMBERS = [
  ["error", "Error %", 100], ["nll", "NLL", 1], ["brier", "Brier", 1],
  ["ece", "ECE %", 100], ["adaptive_ece", "AdaECE %", 100], ["classwise_ece", "ClasswiseECE %", 100],
];
// The drawing's own units: the diagram above, the counts below.
const WIDTH = 640, LEFT = 60, RIGHT = 624, TOP = 10, BOTTOM = 330, COUNT_TOP = 348, COUNT_BOTTOM = 418;
const x = (t) => LEFT + t * (RIGHT - LEFT);
const y = (t) => BOTTOM - t * (BOTTOM - TOP);
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const whole = (value) => value.toLocaleString("en");
const rect = (left, top, width, height, attributes) =>
  svg("rect", { x: left, y: top, width: Math.max(width, 0), height: Math.max(height, 0), ...attributes });
const swatch = (color) => html("i", { class: "swatch", style: `background:${color}` });

function render({ model, el }) {
  const setup = model.get("setup");
  const color = Object.fromEntries(setup.runs.map((run) => [run.name, run.color]));
  const root = frame(el, "Reliability explorer");
  const view = tie(model, root);
  const hatch = `gcelib-${Math.random().toString(36).slice(2)}`;
  const chart = svg("svg", { viewBox: `0 0 ${WIDTH} 465`, role: "group" });
  const tip = html("div", { class: "tip", role: "tooltip", hidden: "" });
  const numbers = html("table", {});
  const samples = html("div", { class: "samples", role: "region", "aria-label": "Images of the chosen bar", "aria-live": "polite" });
  let bars = []; // one per run and non-empty bin
  let current = null; // the key, "run/bin", of the bar that Tab reaches

  root.append(controls(view, setup), html("div", { class: "main" }, html("div", { class: "chart" }, chart, tip), numbers), samples);

  function drawChart() {
    const { rows, settings } = view.get("answer");
    const of = settings.class_index === null ? null : setup.class_names[settings.class_index];
    const most = Math.max(1, ...rows.flatMap((row) => row.counts));
    const hadFocus = chart.contains(document.activeElement);
    chart.replaceChildren(pattern(hatch), ...axes(settings, of, most));
    bars = rows.flatMap((row, r) => row.counts.map((count, b) => ({ row, r, b, key: `${row.name}/${b}` })))
      .filter(({ row, b }) => row.counts[b] > 0);
    for (const bar of bars) chart.append(drawBar(bar, settings, of, rows.length, most));
    if (settings.binning === "width") chart.append(svg("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "diagonal" }));
    chart.setAttribute("aria-label", `Reliability diagram of ${rows.map((row) => row.name).join(", ") || "no run"}. `
      + "Arrow keys move between bars, Enter shows a bar's images.");
    tip.hidden = true;
    makeCurrent(bars.find((bar) => bar.key === current) ?? bars.at(-1), hadFocus);
    markSelected();
    drawNumbers(rows, of);
  }

  function drawBar(bar, settings, of, nRuns, most) {
    const { row, r, b } = bar;
    const [count, accuracy, confidence] = [row.counts[b], row.accuracy[b], row.confidence[b]];
    const [from, to] = settings.binning === "mass" ? [b / row.counts.length, (b + 1) / row.counts.length] : row.edges.slice(b, b + 2);
    const width = (0.94 * (x(to) - x(from))) / nRuns, left = x(from) + 0.03 * (x(to) - x(from)) + width * r;
    const tall = (COUNT_BOTTOM - COUNT_TOP) * (Math.log(count / 0.7) / Math.log(most / 0.7)); // a single sample is still seen
    const low = y(Math.min(accuracy, confidence)), high = y(Math.max(accuracy, confidence));
    const gap = 100 * (confidence - accuracy), verdict = Math.abs(gap) < 0.05 ? "" : gap > 0 ? ": over-confident" : ": under-confident";
    bar.middle = left + width / 2;
    bar.text = [
      `${row.name}, ${of ? `p(${of})` : "confidence"} from ${row.edges[b].toFixed(3)} to ${row.edges[b + 1].toFixed(3)}`,
      `${whole(count)} ${count === 1 ? "sample" : "samples"}`,
      `${of ? `mean p(${of})` : "mean confidence"} ${percent(confidence)}`,
      `${of ? `frequency of ${of}` : "accuracy"} ${percent(accuracy)}`,
      `gap ${verdict ? gap.toFixed(1) : 0} points${verdict}`,
    ];
    bar.element = svg("g", { class: "bar", role: "button", tabindex: -1, "aria-label": bar.text.join(", "), "data-bar": bar.key },
      rect(left, y(accuracy), width, BOTTOM - y(accuracy), { fill: color[row.name] }),
      rect(left, high, width, low - high, { class: "gap", fill: `url(#${hatch})` }),
      rect(left, y(confidence) - 1, width, 2, { class: "mean" }),
      rect(left, COUNT_BOTTOM - tall, width, tall, { fill: color[row.name] }),
      rect(left, TOP, width, COUNT_BOTTOM - TOP, { class: "reach" }));
    for (const event of ["pointerenter", "focus"]) bar.element.addEventListener(event, () => showTip(bar));
    for (const event of ["pointerleave", "blur"]) bar.element.addEventListener(event, () => (tip.hidden = true));
    bar.element.addEventListener("click", () => {
      makeCurrent(bar, true);
      select(bar);
    });
    return bar.element;
  }

  function showTip(bar) {
    tip.replaceChildren(...bar.text.map((line) => html("div", {}, line)));
    tip.hidden = false;
    const scale = chart.clientWidth / WIDTH; // the corner above the diagonal is where a tip hides least
    tip.style.left = `${(bar.middle < WIDTH / 2 ? bar.middle + 16 : LEFT + 8) * scale}px`;
    tip.style.top = `${TOP * scale}px`;
  }

  function drawNumbers(rows, of) {
    const lines = of ? [...NUMBERS, ["class_ece", `ECE of ${of} %`, 100]] : NUMBERS;
    const cell = (row, [key, , scale]) =>
      html("td", { "data-number": `${row.name}/${key}` }, (scale * row.numbers[key]).toFixed(scale === 1 ? 3 : 2));
    numbers.replaceChildren(
      html("caption", {}, rows.length ? `${whole(setup.n_samples)} test samples, lower is better` : "Tick a run to see its diagram."),
      html("thead", {}, html("tr", {}, html("td", {}), ...rows.map(({ name }) => html("th", { scope: "col" }, swatch(color[name]), name)))),
      html("tbody", {}, ...lines.map((line) =>
        html("tr", {}, html("th", { scope: "row" }, line[1]), ...rows.map((row) => cell(row, line))))));
  }

  function makeCurrent(bar, focus) {
    for (const other of bars) other.element.setAttribute("tabindex", other === bar ? 0 : -1);
    current = bar?.key;
    if (focus) bar?.element.focus({ preventScroll: true });
  }

  const select = (bar) => view.set("selected", bar && [bar.row.name, bar.b]);

  function markSelected() {
    const key = view.get("selected")?.join("/");
    for (const bar of bars) bar.element.setAttribute("aria-pressed", bar.key === key);
  }

  chart.addEventListener("keydown", (event) => {
    const bar = bars.find(({ key }) => key === current);
    const along = (by, group) => {
      const list = bars.filter((other) => other[group] === bar[group]);
      makeCurrent(list[Math.max(0, Math.min(list.indexOf(bar) + by, list.length - 1))], true);
    };
    const act = bar && {
      ArrowLeft: () => along(-1, "r"), ArrowRight: () => along(1, "r"), Home: () => along(-bars.length, "r"), End: () => along(bars.length, "r"),
      ArrowUp: () => along(-1, "b"), ArrowDown: () => along(1, "b"),
      Enter: () => select(bar), " ": () => select(bar), Escape: () => select(null),
    }[event.key];
    if (!act) return;
    act();
    event.preventDefault();
  });

  function drawSamples() {
    const { bar, count, wrong, edges, index, label, prediction, prob, shape, pixels } = view.get("samples");
    if (!bar) return samples.replaceChildren(html("p", { class: "note" }, "Click a bar, or press Enter on it, to see its samples."));
    const { class_index } = view.get("answer").settings, names = setup.class_names;
    const [long, short] = class_index === null ? ["confidence", "conf."] : Array(2).fill(`p(${names[class_index]})`);
    const close = () => {
      select(null);
      bars.find(({ key }) => key === current)?.element.focus({ preventScroll: true });
    };
    const cards = index.map((id, i) => {
      const [truth, guess] = [names[label[i]], names[prediction[i]]], right = truth === guess;
      const text = `test sample ${id}: predicted ${guess}, true ${truth}, ${long} ${percent(prob[i])}`;
      return html("li", { class: right ? "right" : "wrong", title: text, "data-sample": id },
        ...(shape ? [thumbnail(pixels, i, shape, text)] : []),
        html("b", {}, `${right ? "✓" : "✗"} ${guess}`), html("span", {}, `true: ${truth}`), html("span", {}, `${short} ${percent(prob[i])}`));
    });
    const title = `${bar[0]}, ${long} from ${edges[0].toFixed(3)} to ${edges[1].toFixed(3)}: ${whole(count)} samples, ${whole(wrong)} wrong. `
      + `${cards.length < count ? `The worst ${cards.length}:` : "Worst first:"} `;
    samples.replaceChildren(html("p", {}, title, html("button", { type: "button", onclick: close }, "Close")), html("ol", {}, ...cards));
  }

  view.on(["answer"], drawChart);
  view.on(["samples"], drawSamples);
  view.on(["selected"], markSelected);
  return view.release;
}

function controls(view, setup) {
  const runs = setup.runs.map(({ name, color }) => {
    const toggle = () => {
      const ticked = new Set(view.get("losses"));
      box.checked ? ticked.add(name) : ticked.delete(name);
      view.set("losses", setup.runs.map((run) => run.name).filter((other) => ticked.has(other)));
    };
    const box = html("input", { type: "checkbox", name, onchange: toggle });
    view.on(["losses"], () => (box.checked = view.get("losses").includes(name)));
    return html("label", {}, box, swatch(color), name);
  });
  const logarithmic = { min: -1, max: 1, step: 0.02, position: Math.log10, value: (p) => Number((10 ** p).toPrecision(4)), text: (T) => T.toFixed(2) };
  return html("div", { class: "controls" },
    html("fieldset", {}, html("legend", {}, "Runs"), ...runs),
    dropDown(view, "calibrator", "Calibrator, fitted on validation", setup.calibrators.map((name) => [name, name === "raw" ? "none: raw logits" : name])),
    slider(view, "temperature", "Temperature by hand", logarithmic),
    slider(view, "n_bins", "Bins", { min: 1, max: 50, step: 1 }),
    dropDown(view, "binning", "Bins of equal", [["width", "width"], ["mass", "mass (number of samples)"]]),
    dropDown(view, "class_index", "Classes", [[null, "all: the top confidence"], ...setup.class_names.map((name, k) => [k, `only ${name}`])]));
}

const pattern = (id) => svg("defs", {},
  svg("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    rect(0, 0, 1.2, 6, { class: "hatch" })));

function axes({ binning, n_bins }, of, most) {
  const text = (left, top, label, attributes) => svg("text", { x: left, y: top, "text-anchor": "middle", ...attributes }, label);
  const across = (top, label) => text(-top, 12, label, { transform: "rotate(-90)" });
  const marks = [0, 0.2, 0.4, 0.6, 0.8, 1], mass = binning === "mass", quantity = of ? `p(${of})` : "confidence";
  const numbered = [...new Set(marks.map((t) => Math.max(1, Math.round(t * n_bins))))];
  const along = mass ? numbered.map((bin) => [(bin - 0.5) / n_bins, bin]) : marks.map((t) => [t, 100 * t]);
  return [
    ...marks.map((t) => svg("line", { x1: LEFT, x2: RIGHT, y1: y(t), y2: y(t), class: "grid" })),
    ...marks.map((t) => text(LEFT - 6, y(t) + 4, 100 * t, { "text-anchor": "end" })),
    svg("line", { x1: LEFT, x2: RIGHT, y1: COUNT_BOTTOM, y2: COUNT_BOTTOM, class: "grid" }),
    text(LEFT - 6, COUNT_TOP + 10, whole(most), { "text-anchor": "end" }),
    ...along.map(([t, label]) => text(x(t), COUNT_BOTTOM + 16, label)),
    text(x(0.5), COUNT_BOTTOM + 38, mass ? `bin, by rising ${quantity}` : `${quantity} (%)`),
    across((TOP + BOTTOM) / 2, of ? `frequency of ${of} (%)` : "accuracy (%)"),
    across((COUNT_TOP + COUNT_BOTTOM) / 2, "samples (log)"),
  ];
}

/** Picture i of the bytes that the kernel sent (uint8: picture, channel, row, column) on a canvas. */
function thumbnail(pixels, i, [channels, height, width], text) {
  const canvas = html("canvas", { width, height, role: "img", "aria-label": text });
  const size = height * width, image = new ImageData(width, height);
  for (let p = 0; p < size; p++) {
    for (let c = 0; c < 3; c++) image.data[4 * p + c] = pixels.getUint8((i * channels + (channels === 3 ? c : 0)) * size + p);
    image.data[4 * p + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

export default { render };
