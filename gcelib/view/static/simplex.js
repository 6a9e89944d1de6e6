// PropernessExplorer: the risk of every prediction p on the simplex of three classes, for a truth q that the reader moves.

const CORNERS = [[40, 350], [400, 350], [220, 350 - 180 * Math.sqrt(3)]]; // class 1 left, class 2 right, class 3 on top
const WIDTH = 440, HEIGHT = 390;
const place = (p) => [0, 1].map((axis) => p[0] * CORNERS[0][axis] + p[1] * CORNERS[1][axis] + p[2] * CORNERS[2][axis]);
const digits = (value) => value.toFixed(3);

/** The probabilities at a point of the drawing (outside the triangle some are negative). */
function probabilities(left, top) {
  const third = (CORNERS[0][1] - top) / (CORNERS[0][1] - CORNERS[2][1]);
  const second = (left - CORNERS[0][0]) / (CORNERS[1][0] - CORNERS[0][0]) - third / 2;
  return [1 - second - third, second, third];
}

/** The nearest truth in whole hundredths: the numbers stay readable and sum to 1. */
function hundredths(p) {
  const positive = p.map((value) => Math.max(value, 0));
  const total = positive[0] + positive[1] + positive[2];
  const [first, second] = positive.map((value) => Math.round((100 * value) / total));
  return [first, Math.min(second, 100 - first), Math.max(100 - first - second, 0)].map((value) => value / 100);
}

function render({ model, el }) {
  const setup = model.get("setup");
  const root = frame(el, "Properness explorer");
  const view = tie(model, root);
  const canvas = html("canvas", { width: WIDTH, height: HEIGHT, role: "img" });
  const best = svg("path", { d: "M0,-9 L9,0 L0,9 L-9,0 Z", class: "best" });
  const truth = svg("circle", { r: 8, class: "truth", tabindex: 0, role: "slider", "aria-valuemin": 0, "aria-valuemax": 1,
    "aria-label": "True class probabilities; left and right trade class 1 against 2, up and down raise and lower class 3" });
  const names = CORNERS.map(([left, top], k) => svg("text", { x: left, y: k === 2 ? top - 10 : top + 22, "text-anchor": "middle" },
    `class ${k + 1}`));
  const overlay = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": "Simplex" }, ...names, best, truth);
  const pixels = locate(WIDTH, HEIGHT, setup.steps);
  const palette = setup.colors.map((hex) => [...[1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16)), 255]);
  const numbers = html("table", {}), verdict = html("p", { role: "status" });
  const gamma = slider(view, "gamma", "Focusing γ", { min: 0, max: 10, step: 0.5, text: (g) => g.toFixed(1) });
  const weight = slider(view, "weight", "Regulariser weight λ", { min: 0, max: 1, step: 0.05, text: (w) => w.toFixed(2) });
  const batch = dropDown(view, "batch", "The rest of the batch", [
    ["varied", "three other samples, at their truth"], ["alike", "copies of this sample"]]);

  root.append(
    html("div", { class: "controls" }, dropDown(view, "loss", "Loss", setup.losses.map((name) => [name, name])), gamma, weight, batch),
    html("div", { class: "main" }, html("div", { class: "simplex" }, canvas, overlay),
      html("div", { class: "side" }, verdict, numbers, legend(setup.colors))));

  function draw() {
    const surface = view.get("answer"), said = verdictOn(surface);
    paint(canvas, pixels, palette, surface);
    best.setAttribute("visibility", surface.best ? "visible" : "hidden");
    if (surface.best) best.setAttribute("transform", `translate(${place(surface.best)})`);
    canvas.setAttribute("aria-label", `Risk surface of ${surface.settings.loss}. ${said}`);
    verdict.textContent = said;
    const q = surface.settings.truth;
    const row = (title, values, risk) => html("tr", {}, html("th", { scope: "row" }, title),
      ...[...values, risk].map((value) => html("td", {}, typeof value === "number" ? digits(value) : value)));
    numbers.replaceChildren(
      html("thead", {}, html("tr", {}, ...["", "class 1", "class 2", "class 3", "risk"].map((title) => html("th", { scope: "col" }, title)))),
      html("tbody", {}, row("○ truth q", q, surface.risk_at_truth),
        row("◆ minimiser p*", surface.best ?? ["any", "any", "any"], surface.risk_at_best)));
  }

  const move = (p) => {
    const q = hundredths(p);
    if (!same(q, view.get("truth"))) view.set("truth", q);
  };
  function toPointer(event) {
    const box = overlay.getBoundingClientRect();
    move(probabilities(((event.clientX - box.left) * WIDTH) / box.width, ((event.clientY - box.top) * HEIGHT) / box.height));
  }
  overlay.addEventListener("pointerdown", (event) => {
    overlay.setPointerCapture(event.pointerId);
    truth.focus({ preventScroll: true });
    toPointer(event);
    event.preventDefault();
  });
  overlay.addEventListener("pointermove", (event) => overlay.hasPointerCapture(event.pointerId) && toPointer(event));
  truth.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.02;
    const by = { ArrowLeft: [step, -step, 0], ArrowRight: [-step, step, 0], ArrowUp: [-step / 2, -step / 2, step],
      ArrowDown: [step / 2, step / 2, -step] }[event.key];
    if (!by) return;
    const q = view.get("truth");
    if (q.every((value, k) => value + by[k] > -1e-9)) move(q.map((value, k) => value + by[k]));
    event.preventDefault();
  });

  view.on(["answer"], draw);
  view.on(["truth"], () => {
    const q = view.get("truth");
    truth.setAttribute("transform", `translate(${place(q)})`);
    truth.setAttribute("aria-valuenow", q[2]);
    truth.setAttribute("aria-valuetext", q.map((value, k) => `class ${k + 1}: ${value.toFixed(2)}`).join(", "));
  });
  view.on(["loss"], () => {
    const loss = view.get("loss");
    gamma.hidden = !["focal", "dfl"].includes(loss);
    weight.hidden = batch.hidden = loss !== "gce";
  });
  return view.release;
}

function verdictOn({ best, settings: { truth } }) {
  if (!best) return "Every prediction has the same risk: this loss cannot find the truth here.";
  if (Math.max(...best.map((value, k) => Math.abs(value - truth[k]))) < 0.005) return "The minimiser is the truth.";
  const top = truth.indexOf(Math.max(...truth));
  return `The minimiser is not the truth: it gives class ${top + 1} ${best[top].toFixed(2)} instead of ${truth[top].toFixed(2)}.`;
}

/** Where each pixel lies on the kernel's grid: its triangle of grid points and two weights. Once per view: dragging stays cheap. */
function locate(width, height, steps) {
  const pixels = [];
  const at = (i, j) => i * (steps + 1) - (i * (i - 1)) / 2 + j; // class 1 in i steps, class 2 in j
  for (let pixel = 0; pixel < width * height; pixel++) {
    const [first, second, third] = probabilities((pixel % width) + 0.5, Math.floor(pixel / width) + 0.5);
    if (first < 0 || second < 0 || third < 0) continue;
    const i = Math.min(Math.floor(first * steps), steps - 1), j = Math.min(Math.floor(second * steps), steps - 1 - i);
    const u = first * steps - i, v = second * steps - j;
    pixels.push(u + v <= 1 ? [pixel, at(i, j), at(i + 1, j), at(i, j + 1), u, v]
      : [pixel, at(i + 1, j + 1), at(i, j + 1), at(i + 1, j), 1 - u, 1 - v]);
  }
  return pixels;
}

/** Fill the triangle with bands of one colour between the kernel's levels; the risk is linear between grid points. */
function paint(canvas, pixels, palette, { risk, levels }) {
  const image = new ImageData(canvas.width, canvas.height);
  for (const [pixel, a, b, c, u, v] of pixels) {
    const value = risk[a] + u * (risk[b] - risk[a]) + v * (risk[c] - risk[a]);
    let band = 0;
    while (band < levels.length && value > levels[band]) band++;
    image.data.set(palette[band], 4 * pixel);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const legend = (colors) => html("p", { class: "legend" }, "low risk ",
  ...colors.map((color) => html("i", { class: "swatch", style: `background:${color}` })), " high risk");

export default { render };
