// Samples in bins, as a reliability diagram shows them, and the error of the bins.

import { countBelow } from "./search.js";

/** How bins are cut: of equal width, at values between which about equally many samples
 * lie, or sample by sample, of equally many.
 * @typedef {"width"|"mass"|"equal"} Binning */

/** What is binned: a probability of each sample, and whether it came true. What else is
 * asked of it is kept: the values in rising order, and the samples in that order.
 * @typedef {{values: Float64Array, hits: Uint8Array, sorted?: Float64Array,
 *   order?: Uint32Array}} View */

/** @typedef {{edges: number[], counts: number[], confidence: number[],
 *   accuracy: number[]}} Bins */

/** The edges of bins, and the bin of each sample.
 * @typedef {{edges: number[], places: Uint32Array}} Cut */

/** @param {View} view
 * @param {number} nBins
 * @param {Binning} binning
 * @param {number} tolerance how far, relative, a value may lie above an edge and still
 *   count as on it
 * @returns {Bins} */
export function makeBins(view, nBins, binning, tolerance) {
  const { edges, places } = cut(view, nBins, binning, tolerance);
  const { values, hits } = view;
  const counts = new Uint32Array(nBins);
  const sums = new Float64Array(nBins);
  const right = new Uint32Array(nBins);
  for (let i = 0; i < values.length; i++) {
    const bin = places[i];
    counts[bin]++;
    sums[bin] += values[i];
    right[bin] += hits[i];
  }
  return {
    edges,
    counts: Array.from(counts),
    confidence: means(sums, counts),
    accuracy: means(right, counts),
  };
}

/** 0 where a bin is empty.
 * @param {ArrayLike<number>} totals
 * @param {Uint32Array} counts */
const means = (totals, counts) =>
  Array.from(totals, (total, bin) => (counts[bin] ? total / counts[bin] : 0));

/** @param {View} view
 * @param {number} nBins
 * @param {Binning} binning
 * @param {number} tolerance
 * @returns {Cut} */
export function cut(view, nBins, binning, tolerance) {
  if (binning === "width") return cutByWidth(view, nBins, tolerance);
  if (binning === "mass") return cutByMass(view, nBins);
  return cutEqually(view, nBins);
}

/** @param {View} view
 * @param {number} nBins
 * @param {number} tolerance
 * @returns {Cut} */
function cutByWidth({ values }, nBins, tolerance) {
  const edges = Array.from({ length: nBins + 1 }, (_, j) => j / nBins);
  const places = new Uint32Array(values.length);
  const scale = nBins * (1 - tolerance);
  for (let i = 0; i < values.length; i++) places[i] = values[i] * scale; // whole part
  return { edges, places };
}

/** Edges are the sorted values, interpolated at j N / B.
 * @param {View} view
 * @param {number} nBins
 * @returns {Cut} */
function cutByMass(view, nBins) {
  const { values } = view;
  const sorted = sortedOf(view);
  const last = sorted.length - 1;
  const edges = Array.from({ length: nBins + 1 }, (_, j) => {
    const position = j * (sorted.length / nBins);
    const left = Math.floor(position);
    if (left >= last) return sorted[last];
    return (sorted[left + 1] - sorted[left]) * (position - left) + sorted[left];
  });
  const inner = Float64Array.from(edges.slice(1, -1));
  const places = new Uint32Array(values.length);
  for (let i = 0; i < values.length; i++) places[i] = countBelow(inner, values[i]);
  return { edges, places };
}

/** The first bins have a sample more where the number does not divide.
 * @param {View} view
 * @param {number} nBins
 * @returns {Cut} */
function cutEqually(view, nBins) {
  const { values } = view;
  const n = values.length;
  const order = orderOf(view);
  const places = new Uint32Array(n);
  const cuts = [0];
  for (let bin = 0; bin < nBins; bin++) {
    cuts.push(cuts[bin] + Math.floor(n / nBins) + (bin < n % nBins ? 1 : 0));
    for (let at = cuts[bin]; at < cuts[bin + 1]; at++) places[order[at]] = bin;
  }
  const edges = cuts.map((at) => {
    const before = values[order[Math.max(at - 1, 0)]];
    const after = values[order[Math.min(at, n - 1)]];
    return (before + after) / 2;
  });
  return { edges, places };
}

/** @param {View} view */
function sortedOf(view) {
  view.sorted ??= view.values.slice().sort();
  return view.sorted;
}

/** Tell whether a sample is in the bar from `low` to `high`. If that is the range of a
 * bin, those that were counted there are; bins of equal values have the same range, and
 * go together.
 * @param {View} view
 * @param {Cut} bins
 * @param {{low: number, high: number}} bar
 * @param {number} tolerance
 * @returns {(i: number) => boolean} */
export function inBar({ values }, { edges, places }, { low, high }, tolerance) {
  const last = edges.length - 2;
  const begins = (/** @type {number} */ bin) =>
    edges[bin] === low || (bin === 0 && low <= edges[0]);
  const ends = (/** @type {number} */ bin) =>
    edges[bin + 1] === high || (bin === last && high >= edges[last + 1]);
  const isBar = edges.map((_, bin) => bin <= last && begins(bin) && ends(bin));
  if (isBar.includes(true)) return (i) => isBar[places[i]];
  return (i) => {
    const at = values[i] * (1 - tolerance);
    return at >= low && (at < high || high >= 1);
  };
}

/** The samples by rising value; of equal ones the first comes first.
 * @param {View} view */
function orderOf(view) {
  const { values } = view;
  view.order ??= Uint32Array.from(values.keys()).sort(
    (a, b) => values[a] - values[b] || a - b,
  );
  return view.order;
}

/** The size-weighted mean gap.
 * @param {Bins} bins */
export function eceOf({ counts, confidence, accuracy }) {
  let total = 0;
  let n = 0;
  counts.forEach((count, bin) => {
    total += count * Math.abs(confidence[bin] - accuracy[bin]);
    n += count;
  });
  return total / n;
}
