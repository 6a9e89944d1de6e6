// The same things are called the same everywhere: numbers and quantities in words.

import { classInView } from "./setup.js";

/** @typedef {import("./engine.js").Question} Question */
/** @typedef {import("./engine.js").Row} Row */
/** @typedef {import("./setup.js").Setup} Setup */

/** @param {number} value */
export const percent = (value) => `${(100 * value).toFixed(1)} %`;

const grouped = new Intl.NumberFormat("en");

/** A whole number with its thousands apart.
 * @param {number} value */
export const whole = (value) => grouped.format(value);

/** What is binned: the confidence, or the probability of the class in view.
 * @param {string|null} className */
export const quantity = (className) => (className ? `p(${className})` : "confidence");

/** What a calibrated quantity is equal to.
 * @param {string|null} className */
export const frequency = (className) =>
  className ? `frequency of ${className}` : "accuracy";

/** What there is to say of a bar, line by line.
 * @param {Row} row
 * @param {number} bin
 * @param {string} label of the run
 * @param {string|null} className
 * @returns {string[]} */
export function barLines(row, bin, label, className) {
  const count = row.counts[bin];
  const what = quantity(className);
  const from = row.edges[bin].toFixed(3);
  const to = row.edges[bin + 1].toFixed(3);
  return [
    `${label}, ${what} from ${from} to ${to}`,
    `${whole(count)} ${count === 1 ? "sample" : "samples"}`,
    `mean ${what} ${percent(row.confidence[bin])}`,
    `${frequency(className)} ${percent(row.accuracy[bin])}`,
    gapLine(row, bin),
  ];
}

/** @param {Row} row
 * @param {number} bin */
function gapLine(row, bin) {
  const accuracy = row.accuracy[bin];
  const gap = 100 * (row.confidence[bin] - accuracy);
  const direction = gap > 0 ? "over-confident" : "under-confident";
  const none = Math.abs(gap) < 0.05; // as a number with one digit, 0.0
  const size = none ? "gap 0 points" : `gap ${gap.toFixed(1)} points: ${direction}`;
  const low = row.band_low[bin] - 1e-12;
  const high = row.band_high[bin] + 1e-12;
  const place = accuracy >= low && accuracy <= high ? "within" : "outside";
  return `${size}, ${place} the 95 % band`;
}

/** The calibration errors of all runs, as drawn, in one sentence.
 * @param {Row[]} rows
 * @param {import("./setup.js").Looks} looks
 * @param {Question} question
 * @param {Setup} setup */
export function eceSentence(rows, looks, question, setup) {
  const className = classInView(setup, question);
  const what = className ? `ECE of ${className}` : "ECE";
  const drawn = question.binning === "width" ? what : `${what} of the bins drawn`;
  const found = rows.map(({ name, numbers }) => {
    return `${looks.label(name)}: ${drawn} ${ecePercent(numbers.shown_ece)}`;
  });
  const change = appliedWords(question, setup);
  return found.join(", ") + (change && ` (${change})`);
}

/** What was done to the logits before they were drawn; "" of nothing.
 * @param {Question} question
 * @param {Setup} setup */
export function appliedWords({ calibrator, temperature }, setup) {
  const words = [];
  if (calibrator !== "raw") words.push(`after ${calibratorName(calibrator, setup)}`);
  if (temperature !== 1) words.push(`T = ${temperature.toFixed(2)}`);
  return words.join(", ");
}

/** @param {string} calibrator
 * @param {Setup} setup */
export const calibratorName = (calibrator, setup) =>
  new Map(setup.calibrators).get(calibrator) ?? calibrator;

/** @param {number} ece */
const ecePercent = (ece) => `${(100 * ece).toFixed(2)} %`;
