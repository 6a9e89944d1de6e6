// Patterns that say again what colours say.

import { svg } from "./elements.js";

/** The gap's hatching, and the textures of the runs with these numbers; `prefix` keeps
 * their ids apart from those of other drawings.
 * @param {string} prefix
 * @param {number[]} indices */
export function patterns(prefix, indices) {
  const textures = indices.map((index) => {
    return pattern(textureId(prefix, index), textureMarks(index));
  });
  return svg("defs", {}, hatching(prefix), ...textures);
}

/** @param {string} prefix
 * @param {number} index of the run */
export const textureId = (prefix, index) => `${prefix}-${index}`;

/** @param {string} prefix */
export const hatchingId = (prefix) => `${prefix}-gap`;

/** @param {string} prefix */
function hatching(prefix) {
  const line = stripe(1.2, 6, "hatch");
  return pattern(hatchingId(prefix), [line], { patternTransform: "rotate(45)" });
}

/** Four textures: plain, upright lines, dots, level lines.
 * @param {number} index
 * @returns {Node[]} */
function textureMarks(index) {
  switch (index % 4) {
    case 1: return [stripe(1.6, 6, "texture")];
    case 2: return [svg("circle", { cx: 3, cy: 3, r: 1.1, class: "texture" })];
    case 3: return [stripe(6, 1.6, "texture")];
    default: return [];
  }
}

/** @param {string} id
 * @param {Node[]} marks
 * @param {Object<string, string>} [attributes] */
function pattern(id, marks, attributes) {
  const size = { width: 6, height: 6, patternUnits: "userSpaceOnUse" };
  return svg("pattern", { id, ...size, ...attributes }, ...marks);
}

/** @param {number} width
 * @param {number} height
 * @param {string} kind */
const stripe = (width, height, kind) =>
  svg("rect", { x: 0, y: 0, width, height, class: kind });
