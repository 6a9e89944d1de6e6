// The drawing of a reliability diagram: bars, gaps, bands, counts. It only draws.

import { percent, svg, whole } from "./page.js";

/** A panel's own units. @typedef {{width: number, left: number, right: number, top: number,
 *   bottom: number, countTop: number, countBottom: number, height: number}} Frame */

/** @type {Frame} */
export const WIDE = {
  width: 600, left: 52, right: 588, top: 8, bottom: 268, countTop: 290, countBottom: 352, height: 396,
};
/** @type {Frame} */
export const SMALL = {
  width: 300, left: 46, right: 292, top: 24, bottom: 180, countTop: 196, countBottom: 236, height: 276,
};

/** @param {number} left @param {number} top @param {number} width @param {number} height
 * @param {Object<string, any>} attributes */
const rect = (left, top, width, height, attributes) =>
  svg("rect", { x: left, y: top, width: Math.max(width, 0), height: Math.max(height, 0), ...attributes });

/** The texture that says again what a run's colour says. @param {string} id @param {number} index */
function texture(id, index) {
  const marks = [
    [],
    [rect(0, 0, 1.6, 6, { class: "texture" })],
    [svg("circle", { cx: 3, cy: 3, r: 1.1, class: "texture" })],
    [rect(0, 0, 6, 1.6, { class: "texture" })],
  ][index % 4];
  return svg("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse" }, ...marks);
}

/** Patterns for one panel; `prefix` keeps them apart from other panels'.
 * @param {string} prefix @param {number} nRuns */
export function patterns(prefix, nRuns) {
  const hatch = svg("pattern", {
    id: `${prefix}-gap`, width: 6, height: 6, patternUnits: "userSpaceOnUse",
    patternTransform: "rotate(45)",
  }, rect(0, 0, 1.2, 6, { class: "hatch" }));
  const textures = Array.from({ length: nRuns }, (_, i) => texture(`${prefix}-${i}`, i));
  return svg("defs", {}, hatch, ...textures);
}

/** @param {number} left @param {number} top @param {string|number} label
 * @param {Object<string, any>} [attributes] */
const text = (left, top, label, attributes) =>
  svg("text", { x: left, y: top, "text-anchor": "middle", ...attributes }, label);

/** Grid, numbers and names of the axes.
 * @param {Frame} at @param {any} question @param {string|null} of the class in view
 * @param {number} most samples in any bar */
export function axes(at, question, of, most) {
  const { binning, n_bins: nBins } = question;
  const across = /** @param {number} t */ (t) => at.left + t * (at.right - at.left);
  const up = /** @param {number} t */ (t) => at.bottom - t * (at.bottom - at.top);
  const marks = at === SMALL ? [0, 0.5, 1] : [0, 0.2, 0.4, 0.6, 0.8, 1];
  const quantity = of ? `p(${of})` : "confidence";
  const turned = /** @param {number} top @param {string} label */ (top, label) =>
    text(-top, 12, label, { transform: "rotate(-90)" });
  const lines = marks.flatMap((t) => [
    svg("line", { x1: at.left, x2: at.right, y1: up(t), y2: up(t), class: "grid" }),
    text(at.left - 6, up(t) + 4, Math.round(100 * t), { "text-anchor": "end" }),
  ]);
  const counts = countMarks(most).flatMap((count) => {
    const y = countHeight(at, count, most);
    return [
      svg("line", { x1: at.left, x2: at.right, y1: y, y2: y, class: "grid" }),
      text(at.left - 6, y + 4, short(count), { "text-anchor": "end" }),
    ];
  });
  const base = svg("line", {
    x1: at.left, x2: at.right, y1: at.countBottom, y2: at.countBottom, class: "base",
  });
  const numbered = [...new Set(marks.map((t) => Math.max(1, Math.round(t * nBins))))];
  const below = binning === "width"
    ? marks.map((t) => text(across(t), at.countBottom + 16, Math.round(100 * t)))
    : numbered.map((bin) => text(across((bin - 0.5) / nBins), at.countBottom + 16, bin));
  const named = binning === "width" ? `${quantity} (%)` : `bin, by rising ${quantity}`;
  return [
    ...lines, ...counts, base, ...below,
    text(across(0.5), at.countBottom + 34, named),
    turned((at.top + at.bottom) / 2, of ? `frequency of ${of} (%)` : "accuracy (%)"),
    turned((at.countTop + at.countBottom) / 2, at === SMALL ? "n (log)" : "samples (log)"),
  ];
}

/** @param {number} count */
const short = (count) => (count < 1000 ? String(count) : `${count / 1000}k`);

/** Powers of ten up to the fullest bar, three of them at most. @param {number} most */
function countMarks(most) {
  const top = Math.floor(Math.log10(most) + 1e-9);
  const step = Math.max(1, Math.ceil(top / 2));
  const marks = [];
  for (let power = 0; power <= top; power += step) marks.push(10 ** power);
  return marks;
}

/** Where a count ends on its logarithmic axis; a single sample is still seen.
 * @param {Frame} at @param {number} count @param {number} most */
const countHeight = (at, count, most) =>
  at.countBottom - (at.countBottom - at.countTop) * (Math.log(count / 0.6) / Math.log(most / 0.6));

/** @typedef {{row: any, run: number, bin: number, key: string, element: any, middle: number,
 *   lines: string[], low: number, high: number}} Bar */

/** One bar, and what there is to say of it.
 * @param {Frame} at @param {any} question @param {string|null} of @param {any} row
 * @param {any} run {label, color, index} @param {number} bin @param {number} place among bars
 * @param {number} places @param {number} most @param {string} prefix @returns {Bar} */
export function drawBar(at, question, of, row, run, bin, place, places, most, prefix) {
  const nBins = row.counts.length;
  const count = row.counts[bin];
  const accuracy = row.accuracy[bin];
  const confidence = row.confidence[bin];
  const across = /** @param {number} t */ (t) => at.left + t * (at.right - at.left);
  const up = /** @param {number} t */ (t) => at.bottom - t * (at.bottom - at.top);
  const [from, to] = [bin / nBins, (bin + 1) / nBins];
  const room = across(to) - across(from);
  const width = (0.94 * room) / places;
  const left = across(from) + 0.03 * room + width * place;
  const middle = left + width / 2;
  const low = Math.min(accuracy, confidence);
  const high = Math.max(accuracy, confidence);
  const counted = countHeight(at, count, most);
  const body = /** @param {number} y @param {number} tall */ (y, tall) => [
    rect(left, y, width, tall, { fill: run.color, class: "fill" }),
    rect(left, y, width, tall, { fill: `url(#${prefix}-${run.index})` }),
  ];
  const cap = Math.min(4, width / 2);
  const whisker = `M${middle - cap},${up(row.band_high[bin])}h${2 * cap}m${-cap},0`
    + `V${up(row.band_low[bin])}m${-cap},0h${2 * cap}`;
  const gap = 100 * (confidence - accuracy);
  const verdict = Math.abs(gap) < 0.05 ? "" : gap > 0 ? ": over-confident" : ": under-confident";
  const inside = accuracy >= row.band_low[bin] - 1e-12 && accuracy <= row.band_high[bin] + 1e-12;
  const lines = [
    `${run.label}, ${of ? `p(${of})` : "confidence"} `
      + `from ${row.edges[bin].toFixed(3)} to ${row.edges[bin + 1].toFixed(3)}`,
    `${whole(count)} ${count === 1 ? "sample" : "samples"}`,
    `${of ? `mean p(${of})` : "mean confidence"} ${percent(confidence)}`,
    `${of ? `frequency of ${of}` : "accuracy"} ${percent(accuracy)}`,
    `gap ${verdict ? gap.toFixed(1) : 0} points${verdict}`
      + `${inside ? ", within" : ", outside"} the 95 % band`,
  ];
  const key = `${row.name}/${bin}`;
  const element = svg("g", { class: "bar", role: "button", tabindex: -1, "aria-label": lines.join(", "), "data-bar": key },
    ...body(up(accuracy), at.bottom - up(accuracy)),
    rect(left, up(high), width, up(low) - up(high), { class: "gap", fill: `url(#${prefix}-gap)` }),
    rect(left, up(confidence) - 1, width, 2, { class: "mean" }),
    svg("path", { d: whisker, class: "band" }),
    ...body(counted, at.countBottom - counted),
    rect(left, at.top, width, at.countBottom - at.top, { class: "reach" }));
  return {
    row, run: place, bin, key, element, middle, lines,
    low: bin === 0 ? 0 : row.edges[bin],
    high: bin === nBins - 1 ? 1 : row.edges[bin + 1],
  };
}

/** @param {Frame} at */
export const diagonal = (at) => svg("line", {
  x1: at.left, y1: at.bottom, x2: at.right, y2: at.top, class: "diagonal",
});
