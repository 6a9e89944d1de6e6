// What the colours, textures and strokes of a diagram mean.

import { html, svg } from "./elements.js";
import { hatchingId, patterns, textureId } from "./textures.js";

/** @typedef {import("./setup.js").Look} Look */

export class Legend {
  /** @param {import("./setup.js").Looks} looks
   * @param {string} prefix of ids in the drawings */
  constructor(looks, prefix) {
    this.looks = looks;
    this.prefix = prefix;
    this.element = html("ul", { class: "legend", "aria-label": "Legend" });
  }

  /** @param {import("./answerers.js").Answer} answer */
  draw({ rows }) {
    const runs = rows.map(({ name }) => this.looks.of(name));
    const hatching = `url(#${hatchingId(this.prefix)})`;
    const gap = this.stroke("gap", "M0.5,0.5H17.5V11.5H0.5Z", hatching);
    this.element.replaceChildren(
      ...runs.map((look) => entry(this.swatch(look), look.label)),
      entry(gap, "gap to confidence"),
      entry(this.stroke("mean", "M0,5H18V7H0Z", "currentColor"), "mean confidence"),
      entry(this.stroke("band", "M6,1h6m-3,0V11m-3,0h6"), "95 % if calibrated"),
      entry(this.stroke("diagonal", "M0,11L18,1"), "perfect calibration"),
    );
  }

  /** A run's colour and texture.
   * @param {Look} look */
  swatch({ color, index }) {
    const own = `${this.prefix}-${index}`;
    const size = { width: 18, height: 12 };
    return sign(
      patterns(own, [index]),
      svg("rect", { ...size, fill: color }),
      svg("rect", { ...size, fill: `url(#${textureId(own, index)})` }),
    );
  }

  /** A stroke as it is drawn in diagrams.
   * @param {string} kind
   * @param {string} d
   * @param {string} [fill] */
  stroke(kind, d, fill = "none") {
    return sign(patterns(this.prefix, []), svg("path", { d, class: kind, fill }));
  }
}

/** @param {...Node} shapes */
function sign(...shapes) {
  const attributes = { class: "swatch", viewBox: "0 0 18 12", "aria-hidden": "true" };
  return svg("svg", attributes, ...shapes);
}

/** @param {Node} picture
 * @param {string} words */
const entry = (picture, words) => html("li", {}, picture, words);
