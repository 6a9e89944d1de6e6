// PropernessExplorer's view: the risk of every prediction p on the simplex of three
// classes, for a truth q that the reader moves.

import { dropDown, html, same, slider, svg } from "./page.js";
import { surface } from "./risks.js";

// class 1 left, class 2 right, class 3 on top
const CORNERS = [[40, 350], [400, 350], [220, 350 - 180 * Math.sqrt(3)]];
const WIDTH = 440;
const HEIGHT = 390;

/** @param {number[]} p */
const place = (p) => [0, 1].map((axis) =>
  p[0] * CORNERS[0][axis] + p[1] * CORNERS[1][axis] + p[2] * CORNERS[2][axis]);

/** @param {number} value */
const digits = (value) => value.toFixed(3);

/** The probabilities at a point of the drawing (outside the triangle some are negative).
 * @param {number} left @param {number} top */
function probabilities(left, top) {
  const third = (CORNERS[0][1] - top) / (CORNERS[0][1] - CORNERS[2][1]);
  const second = (left - CORNERS[0][0]) / (CORNERS[1][0] - CORNERS[0][0]) - third / 2;
  return [1 - second - third, second, third];
}

/** The nearest truth in whole hundredths: the numbers stay readable and sum to 1.
 * @param {number[]} p */
function hundredths(p) {
  const positive = p.map((value) => Math.max(value, 0));
  const total = positive[0] + positive[1] + positive[2];
  const [first, second] = positive.map((value) => Math.round((100 * value) / total));
  const rest = [first, Math.min(second, 100 - first), Math.max(100 - first - second, 0)];
  return rest.map((value) => value / 100);
}

/** @param {number[]|null} best @param {number[]} truth */
function verdictOn(best, truth) {
  if (!best) return "Every prediction has the same risk: this loss cannot find the truth here.";
  const apart = Math.max(...best.map((value, k) => Math.abs(value - truth[k])));
  if (apart < 0.005) return "The minimiser is the truth.";
  const top = truth.indexOf(Math.max(...truth));
  return `The minimiser is not the truth: it gives class ${top + 1} `
    + `${best[top].toFixed(2)} instead of ${truth[top].toFixed(2)}.`;
}

/** Where each pixel lies on the grid: its triangle of grid points and two weights. Once
 * per view, so that dragging stays cheap. @param {number} steps */
function locate(steps) {
  const pixels = [];
  const at = (/** @type {number} */ i, /** @type {number} */ j) => i * (steps + 1) - (i * (i - 1)) / 2 + j;
  for (let pixel = 0; pixel < WIDTH * HEIGHT; pixel++) {
    const p = probabilities((pixel % WIDTH) + 0.5, Math.floor(pixel / WIDTH) + 0.5);
    if (p[0] < 0 || p[1] < 0 || p[2] < 0) continue;
    const i = Math.min(Math.floor(p[0] * steps), steps - 1);
    const j = Math.min(Math.floor(p[1] * steps), steps - 1 - i);
    const u = p[0] * steps - i;
    const v = p[1] * steps - j;
    if (u + v <= 1) pixels.push([pixel, at(i, j), at(i + 1, j), at(i, j + 1), u, v]);
    else pixels.push([pixel, at(i + 1, j + 1), at(i, j + 1), at(i + 1, j), 1 - u, 1 - v]);
  }
  return pixels;
}

/** Fill the triangle with bands of one colour between the levels; between grid points
 * the risk is taken for linear.
 * @param {HTMLCanvasElement} canvas @param {number[][]} pixels @param {number[][]} palette
 * @param {{risk: number[], levels: number[]}} found */
function paint(canvas, pixels, palette, { risk, levels }) {
  const image = new ImageData(canvas.width, canvas.height);
  for (const [pixel, a, b, c, u, v] of pixels) {
    const value = risk[a] + u * (risk[b] - risk[a]) + v * (risk[c] - risk[a]);
    let band = 0;
    while (band < levels.length && value > levels[band]) band++;
    image.data.set(palette[band], 4 * pixel);
  }
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(image, 0, 0);
}

/** @param {HTMLElement} root @param {any} content @param {import("./page.js").Settings} settings */
export function simplex(root, content, settings) {
  const { setup } = content;
  root.setAttribute("aria-label", "Properness explorer");
  const canvas = html("canvas", { width: WIDTH, height: HEIGHT, role: "img" });
  const best = svg("path", { d: "M0,-9 L9,0 L0,9 L-9,0 Z", class: "best" });
  const truth = svg("circle", {
    r: 8, class: "truth", tabindex: 0, role: "slider", "aria-valuemin": 0, "aria-valuemax": 1,
    "aria-label": "True class probabilities; left and right trade class 1 against 2, "
      + "up and down raise and lower class 3",
  });
  const names = CORNERS.map(([left, top], k) =>
    svg("text", { x: left, y: k === 2 ? top - 10 : top + 22, "text-anchor": "middle" }, `class ${k + 1}`));
  const overlay = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": "Simplex" },
    ...names, best, truth);
  const pixels = locate(setup.steps);
  const palette = setup.colors.map((/** @type {string} */ hex) =>
    [...[1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16)), 255]);
  const numbers = html("table", {});
  const verdict = html("p", { role: "status" });
  const swatches = setup.colors.map((/** @type {string} */ color) => html("i", { style: `background:${color}` }));
  const legend = html("p", { class: "scale" }, "low risk ", ...swatches, " high risk");
  const gamma = slider(settings, "gamma", "Focusing γ", {
    min: 0, max: 10, step: 0.5, text: (g) => g.toFixed(1),
  });
  const weight = slider(settings, "weight", "Regulariser weight λ", {
    min: 0, max: 1, step: 0.05, text: (w) => w.toFixed(2),
  });
  const batch = dropDown(settings, "batch", "The rest of the batch", [
    ["varied", "three other samples, at their truth"], ["alike", "copies of this sample"]]);
  root.append(
    html("div", { class: "controls" }, dropDown(settings, "loss", "Loss", setup.losses), gamma, weight, batch),
    html("div", { class: "main" }, html("div", { class: "simplex" }, canvas, overlay),
      html("div", { class: "side" }, verdict, numbers, legend)));

  function draw() {
    const asked = /** @type {any} */ (settings.values);
    const found = surface(setup.steps, asked);
    const said = verdictOn(found.best, asked.truth);
    paint(canvas, pixels, palette, found);
    best.setAttribute("visibility", found.best ? "visible" : "hidden");
    if (found.best) best.setAttribute("transform", `translate(${place(found.best)})`);
    const label = setup.losses.find((/** @type {any} */ [name]) => name === asked.loss)[1];
    canvas.setAttribute("aria-label", `Risk surface of ${label}`);
    if (verdict.textContent !== said) verdict.textContent = said;
    truth.setAttribute("transform", `translate(${place(asked.truth)})`);
    truth.setAttribute("aria-valuenow", asked.truth[2]);
    truth.setAttribute("aria-valuetext",
      asked.truth.map((/** @type {number} */ value, /** @type {number} */ k) => `class ${k + 1}: ${value.toFixed(2)}`).join(", "));
    const row = (/** @type {string} */ title, /** @type {(number|string)[]} */ values, /** @type {number} */ risk) =>
      html("tr", {}, html("th", { scope: "row" }, title),
        ...[...values, risk].map((value) => html("td", {}, typeof value === "number" ? digits(value) : value)));
    const heads = ["class 1", "class 2", "class 3", "risk"].map((title) => html("th", { scope: "col" }, title));
    numbers.replaceChildren(html("thead", {}, html("tr", {}, html("td", {}), ...heads)), html("tbody", {},
      row("○ truth q", asked.truth, found.risk_at_truth),
      row("◆ minimiser p*", found.best ?? ["any", "any", "any"], found.risk_at_best)));
    gamma.hidden = !["focal", "dfl"].includes(asked.loss);
    weight.hidden = asked.loss !== "gce";
    batch.hidden = asked.loss !== "gce";
  }

  const move = (/** @type {number[]} */ p) => {
    const q = hundredths(p);
    if (!same(q, settings.get("truth"))) settings.set({ truth: q });
  };
  function toPointer(/** @type {PointerEvent} */ event) {
    const box = overlay.getBoundingClientRect();
    const left = ((event.clientX - box.left) * WIDTH) / box.width;
    move(probabilities(left, ((event.clientY - box.top) * HEIGHT) / box.height));
  }
  overlay.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    overlay.setPointerCapture(event.pointerId);
    truth.focus({ preventScroll: true });
    toPointer(event);
    event.preventDefault();
  });
  overlay.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (overlay.hasPointerCapture(event.pointerId)) toPointer(event);
  });
  truth.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const step = event.shiftKey ? 0.1 : 0.02;
    const by = {
      ArrowLeft: [step, -step, 0],
      ArrowRight: [-step, step, 0],
      ArrowUp: [-step / 2, -step / 2, step],
      ArrowDown: [step / 2, step / 2, -step],
    }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = settings.get("truth").map((/** @type {number} */ value, /** @type {number} */ k) => value + by[k]);
    if (next.every((/** @type {number} */ value) => value > -1e-9)) move(next);
  });

  settings.on(Object.keys(settings.values), draw);
}
