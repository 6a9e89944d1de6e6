// The same things are called the same everywhere: numbers and quantities in words.

/** @typedef {import("./engine.js").Row} Row */

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

/** The calibration errors of all runs in one sentence.
 * @param {Row[]} rows
 * @param {import("./setup.js").Looks} looks */
export function eceSentence(rows, looks) {
  return rows
    .map(({ name, numbers }) => `${looks.label(name)}: ECE ${ecePercent(numbers.ece)}`)
    .join(", ");
}

/** @param {number} ece */
const ecePercent = (ece) => `${(100 * ece).toFixed(2)} %`;
