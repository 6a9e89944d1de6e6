// What every calibrator makes of logits, once Python has fitted it.

import { countBelow, interpolate } from "./search.js";
import { argmax, confidenceOf, softmaxRow } from "./softmax.js";

/** A fitted calibrator: the name of its formula, and its numbers (nested arrays).
 * @typedef {{formula: string, [buffer: string]: any}} Fitted */

/** What a formula makes of one row: from z[start..start + k) into out[start..].
 * @typedef {(fitted: Fitted, z: ArrayLike<number>, out: Float64Array, start: number,
 *   k: number) => void} Formula */

/** The smallest normal float32, below which Python's logarithms do not go. */
const SMALLEST = 1.1754943508222875e-38;

/** By name, as `BrowserForm` has it.
 * @type {Object<string, Formula>} */
export const FORMULAS = {
  temperature({ temperature }, z, out, start, k) {
    for (let j = start; j < start + k; j++) out[j] = z[j] / temperature;
  },

  mixture({ temperature, weights }, z, out, start, k) {
    const [ofTempered, ofRaw, ofUniform] = weights;
    const tempered = new Float64Array(k);
    const raw = new Float64Array(k);
    softmaxRow(z, start, k, temperature, tempered, 0);
    softmaxRow(z, start, k, 1, raw, 0);
    for (let j = 0; j < k; j++) {
      const mixed = ofTempered * tempered[j] + ofRaw * raw[j] + ofUniform / k;
      out[start + j] = Math.log(mixed);
    }
  },

  binned_temperature({ temperatures, thresholds }, z, out, start, k) {
    const inner = thresholds.slice(1, -1);
    const temperature = temperatures[countBelow(inner, confidenceOf(z, start, k))];
    for (let j = start; j < start + k; j++) out[j] = z[j] / temperature;
  },

  spline({ scores, values }, z, out, start, k) {
    const top = argmax(z, start, k);
    const distances = new Float64Array(k);
    for (let j = 0; j < k; j++) distances[j] = z[start + top] - z[start + j];
    const lowest = Math.min((1 + 1e-6) / k, 0.5);
    const found = interpolate(confidenceOf(z, start, k), scores, values);
    const wanted = Math.min(Math.max(found, lowest), 1 - 1e-7);
    const target = Math.log1p(-wanted) - Math.log(wanted);
    const falls = target > logOddsOfOthers(distances, top);
    const x = falls ? inverseTemperatureFor(distances, top, target) : 1;
    const rise = falls ? 0 : riseTo(wanted, distances);
    for (let j = 0; j < k; j++) {
      out[start + j] = distances[j] === 0 ? rise : -x * distances[j];
    }
  },

  affine({ scale, bias }, z, out, start, k) {
    const top = z[start + argmax(z, start, k)];
    const logOfTop = Math.log(confidenceOf(z, start, k));
    for (let j = 0; j < k; j++) {
      out[start + j] = (z[start + j] - top + logOfTop) * scale[j] + bias[j];
    }
  },

  isotonic({ points, values, floor }, z, out, start, k) {
    const probs = new Float64Array(k);
    softmaxRow(z, start, k, 1, probs, 0);
    let total = 0;
    for (let j = 0; j < k; j++) {
      probs[j] = Math.max(interpolate(probs[j], points[j], values[j]), floor);
      total += probs[j];
    }
    for (let j = 0; j < k; j++) out[start + j] = Math.log(probs[j] / total);
  },

  matrix({ temperature, uniform, weight, bias }, z, out, start, k) {
    const logs = new Float64Array(k);
    softmaxRow(z, start, k, temperature, logs, 0);
    for (let j = 0; j < k; j++) {
      const mixed = (1 - uniform) * logs[j] + uniform / k;
      logs[j] = Math.log(Math.max(mixed, SMALLEST));
    }
    for (let i = 0; i < k; i++) {
      let total = bias[i];
      for (let j = 0; j < k; j++) total += weight[i][j] * logs[j];
      out[start + i] = total;
    }
  },
};

/** Calibrated logits, row by row.
 * @param {Float32Array} logits
 * @param {number} k classes
 * @param {Fitted} fitted
 * @returns {Float64Array} */
export function calibrate(logits, k, fitted) {
  const out = new Float64Array(logits.length);
  const apply = FORMULAS[fitted.formula];
  for (let start = 0; start < out.length; start += k) {
    apply(fitted, logits, out, start, k);
  }
  return out;
}

/** The least inverse temperature. */
const SLOWEST = 1e-12;
/** A runner-up that is nearer to the top counts as so near where a search begins. */
const NEAREST = 1e-8;

/** The logarithm of the odds of all classes but the top one.
 * @param {Float64Array} distances below the largest, >= 0
 * @param {number} top */
function logOddsOfOthers(distances, top) {
  let total = 0;
  for (let j = 0; j < distances.length; j++) {
    if (j !== top) total += Math.exp(-distances[j]);
  }
  return Math.log(total);
}

/** What each of the largest logits gains, so that its softmax is `wanted`; 0 where so
 * many are the largest that they cannot all be.
 * @param {number} wanted
 * @param {Float64Array} distances below the largest, >= 0 */
function riseTo(wanted, distances) {
  let left = 1;
  let nearest = Infinity;
  for (const distance of distances) {
    if (distance === 0) left -= wanted;
    else nearest = Math.min(nearest, distance);
  }
  if (left <= 0) return 0;
  let rest = 0;
  for (const distance of distances) {
    if (distance !== 0) rest += Math.exp(nearest - distance);
  }
  return Math.log(wanted) + Math.log(rest) - nearest - Math.log(left);
}

/** The 1 / T <= 1 at which the log odds of the others are `target`: Newton's method,
 * from the left of the root.
 * @param {Float64Array} distances below the largest, >= 0
 * @param {number} top
 * @param {number} target */
function inverseTemperatureFor(distances, top, target) {
  const nearest = nearestOther(distances, top);
  let x = withinBounds(-target / Math.max(nearest, NEAREST));
  for (let round = 0; round < 60; round++) {
    let total = 0;
    let slope = 0;
    for (let j = 0; j < distances.length; j++) {
      if (j === top) continue;
      const share = Math.exp(-x * (distances[j] - nearest));
      total += share;
      slope -= share * distances[j];
    }
    const excess = Math.log(total) - x * nearest - target;
    const next = withinBounds(x - excess / Math.min(slope / total, -1e-30));
    if (Math.abs(next - x) <= 1e-15 * x) break;
    x = next;
  }
  return x;
}

/** @param {Float64Array} distances
 * @param {number} top */
function nearestOther(distances, top) {
  let nearest = Infinity;
  for (let j = 0; j < distances.length; j++) {
    if (j !== top && distances[j] < nearest) nearest = distances[j];
  }
  return nearest;
}

/** @param {number} value */
const withinBounds = (value) => Math.min(Math.max(value, SLOWEST), 1);
