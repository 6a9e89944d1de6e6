// One drawn diagram. Its elements stay and get new numbers: that makes it prompt.

import { axes } from "./axes.js";
import { svg, update } from "./elements.js";
import { hatchingId, patterns, textureId } from "./textures.js";
import { barLines } from "./words.js";

/** @typedef {import("./engine.js").Question} Question */
/** @typedef {import("./engine.js").Row} Row */
/** @typedef {import("./frame.js").Frame} Frame */
/** @typedef {import("./setup.js").Look} Look */

/** A bar: where it is pointed at, what is said of it, and which values it holds.
 * @typedef {{row: Row, bin: number, key: string, element: any, lines: string[],
 *   low: number, high: number}} Bar */

export class Panel {
  /** @param {Frame} at
   * @param {string} prefix of ids in the drawing
   * @param {Look[]} looks of its runs */
  constructor(at, prefix, looks) {
    this.at = at;
    this.looks = looks;
    /** @type {Bar[]} */
    this.bars = [];
    this.axes = svg("g", { "aria-hidden": "true" });
    this.axesKey = "";
    this.paths = looks.map((look) => new RunPaths(look, prefix));
    this.diagonal = svg("line", {
      x1: at.left, y1: at.bottom, x2: at.right, y2: at.top, class: "diagonal",
    });
    this.reaches = svg("g"); // on top: where bars are pointed at
    this.element = this.drawing(patterns(prefix, looks.map(({ index }) => index)));
  }

  /** @param {SVGElement} defs */
  drawing(defs) {
    const { at } = this;
    const names = this.looks.map(({ label }) => label).join(", ");
    const what = `Reliability diagram of ${names || "no run"}. `;
    const how = "Arrow keys move between bars, Enter shows a bar's samples.";
    const paths = this.paths.flatMap(({ elements }) => elements);
    const title = { x: at.left, y: 14, class: "title", "aria-hidden": "true" };
    return svg(
      "svg",
      {
        viewBox: `0 0 ${at.width} ${at.height}`,
        role: "group",
        "aria-label": what + how,
      },
      defs, this.axes, ...paths, this.diagonal, this.reaches,
      ...(at.titled ? [svg("text", title, names)] : []),
    );
  }

  /** @param {Row[]} rows in the order of the looks
   * @param {Question} question
   * @param {string|null} className in view
   * @param {number} most samples in any bar */
  draw(rows, question, className, most) {
    this.drawAxes(question, className, most);
    const ofWidth = question.binning === "width";
    update(this.diagonal, { visibility: ofWidth ? "visible" : "hidden" });
    this.bars = [];
    rows.forEach((row, place) => this.drawRun(row, place, className, most));
    const spare = this.reaches.children;
    while (spare.length > this.bars.length) spare[spare.length - 1].remove();
  }

  /** @param {Question} question
   * @param {string|null} className
   * @param {number} most */
  drawAxes(question, className, most) {
    const { binning, n_bins: nBins } = question;
    const numbered = binning === "width" || nBins;
    const key = JSON.stringify([binning, numbered, className, most]);
    if (key === this.axesKey) return;
    this.axesKey = key;
    this.axes.replaceChildren(...axes(this.at, question, className, most));
  }

  /** @param {Row} row
   * @param {number} place of the run among those of this diagram
   * @param {string|null} className
   * @param {number} most */
  drawRun(row, place, className, most) {
    const { at, looks } = this;
    const room = (at.right - at.left) / row.counts.length; // of a bin
    const width = (0.94 * room) / looks.length;
    const shapes = new Shapes(at, width, most);
    row.counts.forEach((count, bin) => {
      if (!count) return;
      const left = at.left + (bin + 0.03) * room + width * place;
      const lines = barLines(row, bin, looks[place].label, className);
      shapes.add(row, bin, left);
      this.addBar(row, bin, left, width, lines);
    });
    this.paths[place].draw(shapes);
  }

  /** The place where a bar is pointed at, focused and read out.
   * @param {Row} row
   * @param {number} bin
   * @param {number} left
   * @param {number} width
   * @param {string[]} lines */
  addBar(row, bin, left, width, lines) {
    const key = `${row.name}/${bin}`;
    const words = { "data-bar": key, "aria-label": lines.join(", ") };
    const element = this.reachOf(this.bars.length);
    update(element, { x: brief(left), width: brief(width), ...words });
    const last = row.counts.length - 1;
    const low = bin === 0 ? 0 : row.edges[bin];
    const high = bin === last ? 1 : row.edges[bin + 1];
    this.bars.push({ row, bin, key, element, lines, low, high });
  }

  /** The element of the bar number `i`: one that is there, or a new one.
   * @param {number} i */
  reachOf(i) {
    const known = this.reaches.children[i];
    if (known) return known;
    const { top, countBottom } = this.at;
    const place = { x: 0, y: top, width: 0, height: countBottom - top };
    const reach = svg("rect", { ...place, class: "bar", role: "button", tabindex: -1 });
    this.reaches.append(reach);
    return reach;
  }
}

/** The elements of a run: all its bars are one path, all its gaps another, ... */
class RunPaths {
  /** @param {Look} look
   * @param {string} prefix */
  constructor(look, prefix) {
    /** @param {string|null} kind
     * @param {string} [fill] */
    const path = (kind, fill) =>
      svg("path", { class: kind, "data-run": look.name, fill });
    this.fill = path("fill", look.color);
    this.texture = path(null, `url(#${textureId(prefix, look.index)})`);
    this.gap = path("gap", `url(#${hatchingId(prefix)})`);
    this.mean = path("mean");
    this.band = path("band");
    this.elements = [this.fill, this.texture, this.gap, this.mean, this.band];
  }

  /** @param {Shapes} shapes */
  draw({ bodies, counts, gaps, means, bands }) {
    update(this.fill, { d: bodies + counts });
    update(this.texture, { d: bodies + counts });
    update(this.gap, { d: gaps });
    update(this.mean, { d: means });
    update(this.band, { d: bands });
  }
}

/** What the paths of a run say, bar by bar. */
class Shapes {
  /** @param {Frame} at
   * @param {number} width of a bar
   * @param {number} most samples in any bar */
  constructor(at, width, most) {
    this.at = at;
    this.width = width;
    this.most = most;
    this.bodies = "";
    this.counts = "";
    this.gaps = "";
    this.means = "";
    this.bands = "";
  }

  /** @param {Row} row
   * @param {number} bin
   * @param {number} left */
  add(row, bin, left) {
    const { at, width } = this;
    const accuracy = at.up(row.accuracy[bin]);
    const confidence = at.up(row.confidence[bin]);
    const count = at.countUp(row.counts[bin], this.most);
    const upper = Math.min(accuracy, confidence);
    const lower = Math.max(accuracy, confidence);
    const bandTop = at.up(row.band_high[bin]);
    const bandBottom = at.up(row.band_low[bin]);
    const cap = Math.min(4, width / 2);
    this.bodies += box(left, accuracy, width, at.bottom - accuracy);
    this.counts += box(left, count, width, at.countBottom - count);
    this.gaps += box(left, upper, width, lower - upper);
    this.means += box(left, confidence - 1, width, 2);
    this.bands += whisker(left + width / 2, bandTop, bandBottom, cap);
  }
}

/** A number for a path.
 * @param {number} value */
const brief = (value) => Math.round(100 * value) / 100;

/** A rectangle as part of a path.
 * @param {number} left
 * @param {number} top
 * @param {number} width
 * @param {number} height */
const box = (left, top, width, height) =>
  `M${brief(left)},${brief(top)}h${brief(width)}v${brief(height)}h${brief(-width)}z`;

/** An upright line with caps at its ends, as part of a path.
 * @param {number} middle
 * @param {number} top
 * @param {number} bottom
 * @param {number} cap half a cap's width */
const whisker = (middle, top, bottom, cap) =>
  `M${brief(middle - cap)},${brief(top)}h${brief(2 * cap)}`
  + `m${brief(-cap)},0V${brief(bottom)}m${brief(-cap)},0h${brief(2 * cap)}`;
