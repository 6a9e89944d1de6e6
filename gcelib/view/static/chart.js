// The drawing of a reliability diagram: bars, gaps, bands, counts. It only draws.

import { percent, svg, update, whole } from "./page.js";

/** @typedef {import("./engine.js").Row} Row */
/** @typedef {import("./engine.js").Question} Question */

/** How a run is shown; `index` is its place among all runs.
 * @typedef {{name: string, label: string, color: string, index: number}} Look */

/** A panel's own units. @typedef {{width: number, left: number, right: number, top: number,
 *   bottom: number, countTop: number, countBottom: number, height: number}} Frame */

/** @type {Frame} */
export const WIDE = {
  width: 600, left: 52, right: 588, top: 8, bottom: 268, countTop: 290, countBottom: 352, height: 396,
};
/** @type {Frame} */
export const SMALL = {
  width: 300, left: 46, right: 286, top: 24, bottom: 180, countTop: 196, countBottom: 236, height: 276,
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

/** The gap's hatching, and textures of the runs with these numbers; `prefix` keeps them
 * apart from those of other drawings.
 * @param {string} prefix @param {number[]} indices */
export function patterns(prefix, indices) {
  const hatch = svg("pattern", {
    id: `${prefix}-gap`, width: 6, height: 6, patternUnits: "userSpaceOnUse",
    patternTransform: "rotate(45)",
  }, rect(0, 0, 1.2, 6, { class: "hatch" }));
  return svg("defs", {}, hatch, ...indices.map((index) => texture(`${prefix}-${index}`, index)));
}

/** @param {number} left @param {number} top @param {string|number} label
 * @param {Object<string, any>} [attributes] */
const text = (left, top, label, attributes) =>
  svg("text", { x: left, y: top, "text-anchor": "middle", ...attributes }, label);

/** Grid, numbers and names of the axes.
 * @param {Frame} at @param {Question} question @param {string|null} of the class in view
 * @param {number} most samples in any bar */
function axes(at, question, of, most) {
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

/** A bar, what is said of it, and what it selects.
 * @typedef {{row: Row, bin: number, key: string, element: any, lines: string[], low: number,
 *   high: number}} Bar */

/** What there is to say of a bar.
 * @param {Row} row @param {number} bin @param {string} label @param {string|null} of
 * @returns {string[]} */
function linesOf(row, bin, label, of) {
  const count = row.counts[bin];
  const accuracy = row.accuracy[bin];
  const confidence = row.confidence[bin];
  const gap = 100 * (confidence - accuracy);
  const verdict = Math.abs(gap) < 0.05 ? "" : gap > 0 ? ": over-confident" : ": under-confident";
  const inside = accuracy >= row.band_low[bin] - 1e-12 && accuracy <= row.band_high[bin] + 1e-12;
  return [
    `${label}, ${of ? `p(${of})` : "confidence"} `
      + `from ${row.edges[bin].toFixed(3)} to ${row.edges[bin + 1].toFixed(3)}`,
    `${whole(count)} ${count === 1 ? "sample" : "samples"}`,
    `${of ? `mean p(${of})` : "mean confidence"} ${percent(confidence)}`,
    `${of ? `frequency of ${of}` : "accuracy"} ${percent(accuracy)}`,
    `gap ${verdict ? gap.toFixed(1) : 0} points${verdict}`
      + `${inside ? ", within" : ", outside"} the 95 % band`,
  ];
}

/** A number for a path. @param {number} value */
const brief = (value) => Math.round(100 * value) / 100;

/** A rectangle as part of a path. @param {number} left @param {number} top
 * @param {number} width @param {number} height */
const box = (left, top, width, height) =>
  `M${brief(left)},${brief(top)}h${brief(width)}v${brief(height)}h${brief(-width)}z`;

/** The paths of one run: all its bars are one path, all its gaps another, and so on. */
const PATHS = ["fill", "texture", "gap", "mean", "band"];

/** One diagram. Its elements stay, and get new numbers: that is what makes it prompt. */
export class Panel {
  /** @param {Frame} at @param {string} prefix @param {Look[]} looks of its runs */
  constructor(at, prefix, looks) {
    this.at = at;
    this.looks = looks;
    const names = looks.map(({ label }) => label).join(", ");
    this.axes = svg("g", { "aria-hidden": "true" });
    /** The runs' paths by name. @type {Object<string, any>[]} */
    this.paths = looks.map((look) => {
      const fills = {
        fill: look.color,
        texture: `url(#${prefix}-${look.index})`,
        gap: `url(#${prefix}-gap)`,
      };
      return Object.fromEntries(PATHS.map((name) => [name, svg("path", {
        class: name === "texture" ? null : name, "data-run": look.name,
        fill: /** @type {Object<string, string>} */ (fills)[name],
      })]));
    });
    this.diagonal = svg("line", {
      x1: at.left, y1: at.bottom, x2: at.right, y2: at.top, class: "diagonal",
    });
    this.reaches = svg("g", {});
    this.element = svg("svg", {
      viewBox: `0 0 ${at.width} ${at.height}`, role: "group",
      "aria-label": `Reliability diagram of ${names || "no run"}. `
        + "Arrow keys move between bars, Enter shows a bar's samples.",
    }, patterns(prefix, looks.map(({ index }) => index)), this.axes,
    ...this.paths.flatMap((paths) => Object.values(paths)), this.diagonal, this.reaches);
    if (at === SMALL) {
      const title = { x: at.left, y: 14, class: "title", "aria-hidden": "true" };
      this.element.append(svg("text", title, names));
    }
    /** @type {Bar[]} */
    this.bars = [];
    this.marks = "";
  }

  /** @param {Row[]} rows in the order of the looks @param {Question} question
   * @param {string|null} of the class in view @param {number} most samples in any bar */
  draw(rows, question, of, most) {
    const { binning, n_bins: nBins } = question;
    const marks = JSON.stringify([binning, binning === "width" || nBins, of, most]);
    if (marks !== this.marks) this.axes.replaceChildren(...axes(this.at, question, of, most));
    this.marks = marks;
    update(this.diagonal, { visibility: binning === "width" ? "visible" : "hidden" });
    this.bars = [];
    rows.forEach((row, place) => this.drawRun(row, place, of, most));
    const spare = this.reaches.children;
    while (spare.length > this.bars.length) spare[spare.length - 1].remove();
  }

  /** @param {Row} row @param {number} place @param {string|null} of @param {number} most */
  drawRun(row, place, of, most) {
    const { at } = this;
    const up = /** @param {number} t */ (t) => at.bottom - t * (at.bottom - at.top);
    const nBins = row.counts.length;
    const room = (at.right - at.left) / nBins;
    const width = (0.94 * room) / this.looks.length;
    const cap = Math.min(4, width / 2);
    let bodies = "";
    let counted = "";
    let gaps = "";
    let means = "";
    let bands = "";
    for (let bin = 0; bin < nBins; bin++) {
      const count = row.counts[bin];
      if (!count) continue;
      const left = at.left + (bin + 0.03) * room + width * place;
      const accuracy = up(row.accuracy[bin]);
      const confidence = up(row.confidence[bin]);
      const countTop = countHeight(at, count, most);
      const highest = Math.min(accuracy, confidence);
      bodies += box(left, accuracy, width, at.bottom - accuracy);
      counted += box(left, countTop, width, at.countBottom - countTop);
      gaps += box(left, highest, width, Math.max(accuracy, confidence) - highest);
      means += box(left, confidence - 1, width, 2);
      bands += `M${brief(left + width / 2 - cap)},${brief(up(row.band_high[bin]))}h${brief(2 * cap)}`
        + `m${brief(-cap)},0V${brief(up(row.band_low[bin]))}m${brief(-cap)},0h${brief(2 * cap)}`;
      this.addBar(row, bin, left, width, linesOf(row, bin, this.looks[place].label, of));
    }
    const drawn = {
      fill: bodies + counted, texture: bodies + counted, gap: gaps, mean: means, band: bands,
    };
    for (const [name, d] of Object.entries(drawn)) update(this.paths[place][name], { d });
  }

  /** The place where a bar is pointed at, focused and read out.
   * @param {Row} row @param {number} bin @param {number} left @param {number} width
   * @param {string[]} lines */
  addBar(row, bin, left, width, lines) {
    const { at, bars } = this;
    const key = `${row.name}/${bin}`;
    let element = this.reaches.children[bars.length];
    if (!element) {
      element = rect(left, at.top, width, at.countBottom - at.top, {
        class: "bar", role: "button", tabindex: -1,
      });
      this.reaches.append(element);
    }
    update(element, {
      x: brief(left), width: brief(width), "data-bar": key, "aria-label": lines.join(", "),
    });
    const low = bin === 0 ? 0 : row.edges[bin];
    const high = bin === row.counts.length - 1 ? 1 : row.edges[bin + 1];
    bars.push({ row, bin, key, element, lines, low, high });
  }
}
