// The coloured surface: bands of one colour between levels of risk.

import { html } from "./elements.js";
import { HEIGHT, probabilitiesAt, WIDTH } from "./plane.js";

/** A pixel inside the triangle: the three points of the grid around it, and how far it
 * is on the way from the first to the second and from the first to the third.
 * @typedef {{pixel: number, a: number, b: number, c: number, u: number, v: number}}
 *   Located */

export class Shading {
  /** @param {number} steps of the grid
   * @param {string[]} colors from low to high risk, "#rrggbb" */
  constructor(steps, colors) {
    this.palette = colors.map(rgba);
    this.located = located(steps);
    this.canvas = html("canvas", { width: WIDTH, height: HEIGHT, role: "img" });
  }

  /** Between points of the grid the risk is taken for linear.
   * @param {import("./risks.js").Found} found
   * @param {string} label */
  draw({ risk, levels }, label) {
    const image = new ImageData(WIDTH, HEIGHT);
    for (const { pixel, a, b, c, u, v } of this.located) {
      const value = risk[a] + u * (risk[b] - risk[a]) + v * (risk[c] - risk[a]);
      let band = 0;
      while (band < levels.length && value > levels[band]) band++;
      image.data.set(this.palette[band], 4 * pixel);
    }
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    this.canvas.setAttribute("aria-label", label);
  }
}

/** @param {string} color */
function rgba(color) {
  const parts = [1, 3, 5].map((from) => parseInt(color.slice(from, from + 2), 16));
  return [...parts, 255];
}

/** All pixels inside the triangle. Found once, so that dragging stays cheap.
 * @param {number} steps */
function located(steps) {
  /** @type {Located[]} */
  const found = [];
  for (let y = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++) {
      const p = probabilitiesAt(x + 0.5, y + 0.5);
      const inside = p[0] >= 0 && p[1] >= 0 && p[2] >= 0;
      if (inside) found.push(locate(y * WIDTH + x, p, steps));
    }
  }
  return found;
}

/** @param {number} pixel
 * @param {number[]} p
 * @param {number} steps
 * @returns {Located} */
function locate(pixel, p, steps) {
  /** The point with class 1 in i and class 2 in j steps, as `gridOf` counts them.
   * @param {number} i
   * @param {number} j */
  const at = (i, j) => i * (steps + 1) - (i * (i - 1)) / 2 + j;
  const i = Math.min(Math.floor(p[0] * steps), steps - 1);
  const j = Math.min(Math.floor(p[1] * steps), steps - 1 - i);
  const u = p[0] * steps - i;
  const v = p[1] * steps - j;
  if (u + v <= 1) {
    return { pixel, a: at(i, j), b: at(i + 1, j), c: at(i, j + 1), u, v };
  }
  const a = at(i + 1, j + 1);
  return { pixel, a, b: at(i, j + 1), c: at(i + 1, j), u: 1 - u, v: 1 - v };
}
