// Grid, numbers and names of a diagram's axes.

import { svg } from "./elements.js";
import { frequency, quantity } from "./words.js";

/** @typedef {import("./frame.js").Frame} Frame */
/** @typedef {import("./engine.js").Question} Question */

/** @param {Frame} at
 * @param {Question} question
 * @param {string|null} className in view
 * @param {number} most samples in any bar
 * @returns {SVGElement[]} */
export function axes(at, question, className, most) {
  const middle = (at.top + at.bottom) / 2;
  const countMiddle = (at.countTop + at.countBottom) / 2;
  return [
    ...shareLines(at),
    ...countLines(at, most),
    lineAt(at, at.countBottom, "base"),
    ...numbersBelow(at, question),
    words(at.across(0.5), at.countBottom + 34, nameBelow(question, className)),
    wordsUpwards(middle, `${frequency(className)} (%)`),
    wordsUpwards(countMiddle, at.countTitle),
  ];
}

/** @param {Frame} at */
function shareLines(at) {
  return at.marks.flatMap((share) => {
    const y = at.up(share);
    return [lineAt(at, y, "grid"), numberLeft(at, y, Math.round(100 * share))];
  });
}

/** @param {Frame} at
 * @param {number} most */
function countLines(at, most) {
  return powersOfTen(most).flatMap((count) => {
    const y = at.countUp(count, most);
    const short = count < 1000 ? count : `${count / 1000}k`;
    return [lineAt(at, y, "grid"), numberLeft(at, y, short)];
  });
}

/** Powers of ten up to `most`, three of them at most.
 * @param {number} most */
function powersOfTen(most) {
  const top = Math.floor(Math.log10(most) + 1e-9);
  const step = Math.max(1, Math.ceil(top / 2));
  const powers = [];
  for (let power = 0; power <= top; power += step) powers.push(10 ** power);
  return powers;
}

/** Percent where bins are of equal width, else the numbers of some bins.
 * @param {Frame} at
 * @param {Question} question */
function numbersBelow(at, { binning, n_bins: nBins }) {
  const y = at.countBottom + 16;
  if (binning === "width") {
    return at.marks.map((share) => words(at.across(share), y, Math.round(100 * share)));
  }
  const bins = at.marks.map((share) => Math.max(1, Math.round(share * nBins)));
  return [...new Set(bins)].map((bin) => words(at.across((bin - 0.5) / nBins), y, bin));
}

/** @param {Question} question
 * @param {string|null} className */
function nameBelow({ binning }, className) {
  const what = quantity(className);
  return binning === "width" ? `${what} (%)` : `bin, by rising ${what}`;
}

/** A line across the diagram.
 * @param {Frame} at
 * @param {number} y
 * @param {string} kind */
const lineAt = (at, y, kind) =>
  svg("line", { x1: at.left, x2: at.right, y1: y, y2: y, class: kind });

/** @param {Frame} at
 * @param {number} y
 * @param {string|number} number */
const numberLeft = (at, y, number) =>
  words(at.left - 6, y + 4, number, { "text-anchor": "end" });

/** @param {number} y
 * @param {string} name */
const wordsUpwards = (y, name) => words(-y, 12, name, { transform: "rotate(-90)" });

/** @param {number} x
 * @param {number} y
 * @param {string|number} what
 * @param {Object<string, any>} [attributes] */
const words = (x, y, what, attributes) =>
  svg("text", { x, y, "text-anchor": "middle", ...attributes }, what);
