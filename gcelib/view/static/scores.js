// What all samples' logits say under one calibrator and temperature: probabilities,
// predictions, and the numbers that `metrics` computes in Python.

import { eceOf, makeBins } from "./bins.js";
import { argmax, softmaxRow } from "./softmax.js";

/** @typedef {import("./bins.js").View} View */
/** @typedef {import("./engine.js").Data} Data */

/** Of all samples; `views` are what has been binned, by class (null: the top label).
 * @typedef {{key: string, probs: Float64Array, confidence: Float64Array,
 *   prediction: Int32Array, nll: number, brier: number, errors: number,
 *   views: Map<number|null, View>}} Scores */

/** Classes in view that are kept. */
const MOST_VIEWS = 8;

/** Room for scores, to be filled again and again.
 * @param {Data} data
 * @returns {Scores} */
export function emptyScores({ nSamples: n, nClasses: k }) {
  return {
    key: "",
    probs: new Float64Array(n * k),
    confidence: new Float64Array(n),
    prediction: new Int32Array(n),
    nll: 0,
    brier: 0,
    errors: 0,
    views: new Map(),
  };
}

/** Fill `scores` from these logits.
 * @param {Data} data
 * @param {ArrayLike<number>} logits
 * @param {number} temperature
 * @param {Scores} scores */
export function score(data, logits, temperature, scores) {
  const { nSamples: n, nClasses: k, labels } = data;
  const { probs, confidence, prediction } = scores;
  let nll = 0;
  let brier = 0;
  let errors = 0;
  for (let i = 0; i < n; i++) {
    const start = i * k;
    const logTotal = softmaxRow(logits, start, k, temperature, probs, start);
    const top = argmax(logits, start, k);
    const y = labels[i];
    const said = data.predicts ?? top; // of confidences: that the prediction is right
    prediction[i] = said;
    confidence[i] = probs[start + said];
    if (said !== y) errors++;
    nll += (logits[start + top] - logits[start + y]) / temperature + logTotal;
    let squares = 0;
    for (let j = start; j < start + k; j++) squares += probs[j] * probs[j];
    brier += Math.max(1 - 2 * probs[start + y] + squares, 0);
  }
  scores.nll = nll / n;
  scores.brier = brier / n;
  scores.errors = errors / n;
  scores.views.clear();
}

/** What is binned: the confidence and whether it was right, or one class's probability
 * and whether the sample is of it.
 * @param {Data} data
 * @param {Scores} scores
 * @param {number|null} classIndex
 * @returns {View} */
export function viewOf(data, scores, classIndex) {
  const known = scores.views.get(classIndex);
  if (known) return known;
  const view = classIndex === null
    ? viewOfTopLabel(data, scores) : viewOfClass(data, scores, classIndex);
  if (scores.views.size > MOST_VIEWS) scores.views.clear();
  scores.views.set(classIndex, view);
  return view;
}

/** @param {Data} data
 * @param {Scores} scores
 * @returns {View} */
function viewOfTopLabel({ nSamples: n, labels }, { confidence, prediction }) {
  const hits = new Uint8Array(n);
  for (let i = 0; i < n; i++) hits[i] = prediction[i] === labels[i] ? 1 : 0;
  return { values: confidence, hits };
}

/** @param {Data} data
 * @param {Scores} scores
 * @param {number} classIndex
 * @returns {View} */
function viewOfClass({ nSamples: n, nClasses: k, labels }, { probs }, classIndex) {
  const values = new Float64Array(n);
  const hits = new Uint8Array(n);
  for (let i = 0; i < n; i++) {
    values[i] = probs[i * k + classIndex];
    hits[i] = labels[i] === classIndex ? 1 : 0;
  }
  return { values, hits };
}

/** The numbers beside the diagram, by their keys in `METRICS`.
 * @param {Data} data
 * @param {Scores} scores
 * @param {number} nBins
 * @returns {Object<string, number>} */
export function numbersOf(data, scores, nBins) {
  const top = viewOf(data, scores, null);
  return {
    error: scores.errors,
    nll: scores.nll,
    brier: scores.brier,
    ece: eceOf(makeBins(top, nBins, "width", data.tolerance)),
    adaptive_ece: eceOf(makeBins(top, nBins, "mass", data.tolerance)),
    classwise_ece: classwiseEce(data, scores, nBins),
  };
}

/** ECE of every class against the rest, averaged.
 * @param {Data} data
 * @param {Scores} scores
 * @param {number} nBins */
function classwiseEce(data, scores, nBins) {
  const { nSamples: n, nClasses: k, labels } = data;
  const { probs } = scores;
  const scale = nBins * (1 - data.tolerance);
  /** Sums of probabilities less hits, bin by bin of class by class. */
  const cells = new Float64Array(k * nBins);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < k; j++) {
      const p = probs[i * k + j];
      cells[j * nBins + ((p * scale) | 0)] += p;
    }
    const y = labels[i];
    cells[y * nBins + ((probs[i * k + y] * scale) | 0)] -= 1;
  }
  let total = 0;
  for (const cell of cells) total += Math.abs(cell);
  return total / (n * k);
}
