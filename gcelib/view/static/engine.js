// The engine: what Python's `metrics` and calibrators compute, from logits that are here.
// It knows no page and no network; tests/test_engine.py compares it with Python.

/** A fitted calibrator: the formula, and its numbers (nested arrays).
 * @typedef {{formula: string, [buffer: string]: any}} Fitted */

/** One model's answers to the test samples: logits row by row, and what fits them.
 * @typedef {{name: string, logits: Float32Array, calibrators: Object<string, Fitted>}} Run */

/** The test samples. `tolerance` is how far, relative, a probability may lie above a
 * bin's edge and count as on it. `predicts` is the class that is always predicted, as
 * *right* is where only confidences are known; null: the most probable.
 * @typedef {{nSamples: number, nClasses: number, labels: Int32Array, tolerance: number,
 *   runs: Run[], predicts?: number|null}} Data */

/** The samples of a bar, or those that one run gets right and another wrong.
 * @typedef {{kind: "bar", run: string, low: number, high: number}} SelectedBar
 * @typedef {{kind: "disagree", right: string, wrong: string}} Disagreement */

/** What is asked; `detail` is null or a sample.
 * @typedef {{losses: string[], calibrator: string, temperature: number, n_bins: number,
 *   binning: "width"|"mass"|"equal", class_index: number|null,
 *   selected: SelectedBar|Disagreement|null, errors_only: boolean, pair: string[]|null,
 *   first: number, n_images: number, detail: number|null}} Question */

/** @typedef {{edges: number[], counts: number[], confidence: number[],
 *   accuracy: number[]}} Bins */

/** A run's bins, where 95 of 100 calibrated bars would end, and its numbers.
 * @typedef {Bins & {name: string, band_low: number[], band_high: number[],
 *   numbers: Object<string, number>}} Row */

/** @typedef {{count: number, wrong: number, index: number[], label: number[],
 *   prediction: number[], prob: number[]}} Samples */

/** @typedef {{question: Question, rows: Row[], samples: Samples|null,
 *   agreement: number[]|null,
 *   detail: {index: number, label: number, probs: number[][]}|null}} Answer */

/** What is binned: a probability of each sample, and whether it came true. What else is
 * asked of it is kept: the values in rising order, and the samples in that order.
 * @typedef {{values: Float64Array, hits: Uint8Array, sorted?: Float64Array,
 *   order?: Uint32Array}} View */

/** Probabilities of all samples under one calibrator and temperature, and the views of
 * them, by class ("null": of the top label).
 * @typedef {{key: string, probs: Float64Array, confidence: Float64Array,
 *   prediction: Int32Array, nll: number, brier: number, errors: number,
 *   views: Map<number|null, View>}} Scores */

/** Calibrated logits that are kept, 64 MB. */
const MOST_KEPT = 8_000_000;
/** Classes in view that are kept. */
const MOST_VIEWS = 8;

/** Bounds of an inverse temperature. */
const SLOWEST = 1e-12;
const FASTEST = 1e8;

/** How many of the sorted `points` lie below `at`.
 * @param {ArrayLike<number>} points @param {number} at */
export function countBelow(points, at) {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle] < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** How many of the sorted `points` lie at `at` or below.
 * @param {ArrayLike<number>} points @param {number} at */
export function countUpTo(points, at) {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle] <= at) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Piecewise linear through (points, values), constant outside.
 * @param {number} at @param {number[]} points @param {number[]} values */
export function interpolate(at, points, values) {
  const right = Math.min(countBelow(points, at), points.length - 1);
  const left = Math.max(right - 1, 0);
  const width = Math.max(points[right] - points[left], 1e-300);
  const weight = Math.min(Math.max((at - points[left]) / width, 0), 1);
  return values[left] + weight * (values[right] - values[left]);
}

/** Softmax of z[start..start + k) / T into out[to..]; returns the log of the largest
 * share's inverse.
 * @param {ArrayLike<number>} z @param {number} start @param {number} k
 * @param {number} temperature @param {Float64Array} out @param {number} to */
function softmaxRow(z, start, k, temperature, out, to) {
  const top = z[start + argmax(z, start, k)];
  let total = 0;
  for (let j = 0; j < k; j++) {
    const share = Math.exp((z[start + j] - top) / temperature);
    out[to + j] = share;
    total += share;
  }
  for (let j = 0; j < k; j++) out[to + j] /= total;
  return Math.log(total);
}

/** @param {ArrayLike<number>} row @param {number} start @param {number} k */
function argmax(row, start, k) {
  let best = 0;
  for (let j = 1; j < k; j++) if (row[start + j] > row[start + best]) best = j;
  return best;
}

/** The top-1 probability of a row of logits.
 * @param {ArrayLike<number>} z @param {number} start @param {number} k */
function confidenceOf(z, start, k) {
  let top = -Infinity;
  for (let j = start; j < start + k; j++) if (z[j] > top) top = z[j];
  let total = 0;
  for (let j = start; j < start + k; j++) total += Math.exp(z[j] - top);
  return 1 / total;
}

/** The 1 / T at which the log odds of the others are `target`: Newton's method, from the
 * left of the root. 1 where there is none, because the largest are tied.
 * @param {Float64Array} distances below the largest, >= 0 @param {number} top
 * @param {number} target */
function inverseTemperatureFor(distances, top, target) {
  let nearest = Infinity;
  for (let j = 0; j < distances.length; j++) {
    if (j !== top && distances[j] < nearest) nearest = distances[j];
  }
  /** @param {number} value */
  const within = (value) => Math.min(Math.max(value, SLOWEST), FASTEST);
  let x = within(-target / Math.max(nearest, 1 / FASTEST));
  let excess = Infinity;
  for (let round = 0; round < 40; round++) {
    let total = 0;
    let slope = 0;
    for (let j = 0; j < distances.length; j++) {
      if (j === top) continue;
      const share = Math.exp(-x * (distances[j] - nearest));
      total += share;
      slope -= share * distances[j];
    }
    excess = Math.log(total) - x * nearest - target;
    const next = within(x - excess / Math.min(slope / total, -1e-30));
    if (Math.abs(next - x) <= 1e-15 * x) break;
    x = next;
  }
  return Math.abs(excess) < 1e-6 ? x : 1;
}

/** What each formula makes of one row: from z[start..] into out[start..].
 * @type {Object<string, (fitted: Fitted, z: ArrayLike<number>, out: Float64Array,
 *   start: number, k: number) => void>} */
export const FORMULAS = {
  temperature({ temperature }, z, out, start, k) {
    for (let j = start; j < start + k; j++) out[j] = z[j] / temperature;
  },

  mixture({ temperature, weights }, z, out, start, k) {
    const tempered = new Float64Array(k);
    const raw = new Float64Array(k);
    softmaxRow(z, start, k, temperature, tempered, 0);
    softmaxRow(z, start, k, 1, raw, 0);
    for (let j = 0; j < k; j++) {
      out[start + j] = Math.log(weights[0] * tempered[j] + weights[1] * raw[j] + weights[2] / k);
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
    const moved = Math.min(Math.max(found, lowest), 1 - 1e-7);
    const target = Math.log1p(-moved) - Math.log(moved);
    const x = inverseTemperatureFor(distances, top, target);
    for (let j = 0; j < k; j++) out[start + j] = distances[j] === 0 ? 0 : -x * distances[j];
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
    const probs = new Float64Array(k);
    softmaxRow(z, start, k, temperature, probs, 0);
    const smallest = 1.1754943508222875e-38;
    for (let j = 0; j < k; j++) {
      probs[j] = Math.log(Math.max((1 - uniform) * probs[j] + uniform / k, smallest));
    }
    for (let i = 0; i < k; i++) {
      let total = bias[i];
      for (let j = 0; j < k; j++) total += weight[i][j] * probs[j];
      out[start + i] = total;
    }
  },
};

/** Calibrated logits; the logits themselves for "raw".
 * @param {Data} data @param {Run} run @param {string} calibrator */
export function calibrate(data, run, calibrator) {
  if (calibrator === "raw") return run.logits;
  const fitted = run.calibrators[calibrator];
  const k = data.nClasses;
  const out = new Float64Array(run.logits.length);
  const apply = FORMULAS[fitted.formula];
  for (let start = 0; start < out.length; start += k) apply(fitted, run.logits, out, start, k);
  return out;
}

/** Room for a run's scores, to be filled again and again. @param {Data} data
 * @returns {Scores} */
function emptyScores({ nSamples: n, nClasses: k }) {
  return {
    key: "", probs: new Float64Array(n * k), confidence: new Float64Array(n),
    prediction: new Int32Array(n), nll: 0, brier: 0, errors: 0, views: new Map(),
  };
}

/** Fill `scores` from these logits.
 * @param {Data} data @param {ArrayLike<number>} logits @param {number} temperature
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
 * @param {Data} data @param {Scores} scores @param {number|null} classIndex
 * @returns {View} */
export function viewOf(data, scores, classIndex) {
  const known = scores.views.get(classIndex);
  if (known) return known;
  const { nSamples: n, nClasses: k, labels } = data;
  const hits = new Uint8Array(n);
  let values = scores.confidence;
  if (classIndex === null) {
    for (let i = 0; i < n; i++) hits[i] = scores.prediction[i] === labels[i] ? 1 : 0;
  } else {
    values = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      values[i] = scores.probs[i * k + classIndex];
      hits[i] = labels[i] === classIndex ? 1 : 0;
    }
  }
  const view = { values, hits };
  if (scores.views.size > MOST_VIEWS) scores.views.clear();
  scores.views.set(classIndex, view);
  return view;
}

/** @param {View} view */
function sortedOf(view) {
  view.sorted ??= view.values.slice().sort();
  return view.sorted;
}

/** The samples by rising value; of equal ones the first comes first. @param {View} view */
function orderOf(view) {
  const { values } = view;
  view.order ??= Uint32Array.from(values.keys()).sort((a, b) => values[a] - values[b] || a - b);
  return view.order;
}

/** Edges of about equal mass: sorted values interpolated at j N / B.
 * @param {Float64Array} sorted @param {number} nBins */
function massEdges(sorted, nBins) {
  const n = sorted.length;
  return Array.from({ length: nBins + 1 }, (_, j) => {
    const position = j * (n / nBins);
    const left = Math.floor(position);
    if (left >= n - 1) return sorted[n - 1];
    return (sorted[left + 1] - sorted[left]) * (position - left) + sorted[left];
  });
}

/** @param {Data} data @param {View} view @param {number} nBins
 * @param {string} binning @returns {Bins} */
export function makeBins(data, view, nBins, binning) {
  const { values, hits } = view;
  const n = values.length;
  /** Each sample's bin. */
  const bins = new Uint32Array(n);
  /** @type {number[]} */
  let edges;
  if (binning === "width") {
    edges = Array.from({ length: nBins + 1 }, (_, j) => j / nBins);
    const scale = nBins * (1 - data.tolerance);
    for (let i = 0; i < n; i++) bins[i] = values[i] * scale; // whole part
  } else if (binning === "mass") {
    edges = massEdges(sortedOf(view), nBins);
    const inner = Float64Array.from(edges.slice(1, -1));
    for (let i = 0; i < n; i++) bins[i] = countBelow(inner, values[i]);
  } else {
    const order = orderOf(view);
    const cuts = [0];
    for (let bin = 0; bin < nBins; bin++) {
      cuts.push(cuts[bin] + Math.floor(n / nBins) + (bin < n % nBins ? 1 : 0));
      for (let at = cuts[bin]; at < cuts[bin + 1]; at++) bins[order[at]] = bin;
    }
    edges = cuts.map((cut) =>
      (values[order[Math.max(cut - 1, 0)]] + values[order[Math.min(cut, n - 1)]]) / 2);
  }
  const counts = new Uint32Array(nBins);
  const sums = new Float64Array(nBins);
  const right = new Uint32Array(nBins);
  for (let i = 0; i < n; i++) {
    counts[bins[i]]++;
    sums[bins[i]] += values[i];
    right[bins[i]] += hits[i];
  }
  /** @param {ArrayLike<number>} totals */
  const mean = (totals) =>
    Array.from(totals, (total, bin) => (counts[bin] ? total / counts[bin] : 0));
  return { edges, counts: Array.from(counts), confidence: mean(sums), accuracy: mean(right) };
}

/** The size-weighted mean gap. @param {Bins} bins */
export function eceOf(bins) {
  let total = 0;
  let n = 0;
  bins.counts.forEach((count, bin) => {
    total += count * Math.abs(bins.confidence[bin] - bins.accuracy[bin]);
    n += count;
  });
  return total / n;
}

/** ECE of every class against the rest, averaged.
 * @param {Data} data @param {Scores} scores @param {number} nBins */
export function classwiseEce(data, scores, nBins) {
  const { nSamples: n, nClasses: k, labels } = data;
  const cells = new Float64Array(k * nBins);
  const scale = nBins * (1 - data.tolerance);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < k; j++) {
      const p = scores.probs[i * k + j];
      cells[j * nBins + ((p * scale) | 0)] += p;
    }
    const y = labels[i];
    cells[y * nBins + ((scores.probs[i * k + y] * scale) | 0)] -= 1;
  }
  let total = 0;
  for (const cell of cells) total += Math.abs(cell);
  return total / (n * k);
}

/** @param {Data} data @param {Scores} scores @param {number} nBins */
export function numbersOf(data, scores, nBins) {
  const top = viewOf(data, scores, null);
  return {
    error: scores.errors,
    nll: scores.nll,
    brier: scores.brier,
    ece: eceOf(makeBins(data, top, nBins, "width")),
    adaptive_ece: eceOf(makeBins(data, top, nBins, "mass")),
    classwise_ece: classwiseEce(data, scores, nBins),
  };
}

const LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313,
  -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6,
  1.5056327351493116e-7,
];

/** The logarithm of m!, by Lanczos's series. @param {number} m */
function logFactorial(m) {
  let series = LANCZOS[0];
  for (let i = 1; i < 9; i++) series += LANCZOS[i] / (m + i);
  const t = m + 7.5;
  return 0.5 * Math.log(2 * Math.PI) + (m + 0.5) * Math.log(t) - t + Math.log(series);
}

/** The smallest hits h of n with P(hits <= h) >= q, for each of two rising q.
 * @param {number} n @param {number} p @param {number[]} quantiles */
export function binomialQuantiles(n, p, quantiles) {
  const spread = 12 * Math.sqrt(n * p * (1 - p));
  let hits = Math.max(0, Math.floor(n * p - spread));
  let mass = Math.exp(logFactorial(n) - logFactorial(hits) - logFactorial(n - hits)
    + hits * Math.log(p) + (n - hits) * Math.log1p(-p));
  let total = mass;
  return quantiles.map((q) => {
    while (total < q && hits < n) {
      mass *= ((n - hits) / (hits + 1)) * (p / (1 - p));
      hits++;
      total += mass;
    }
    return hits;
  });
}

/** Where a bin's accuracy would lie, 95 times of 100, if its confidence were right.
 * @param {Bins} bins */
export function band(bins) {
  /** @type {number[]} */
  const low = [];
  /** @type {number[]} */
  const high = [];
  bins.counts.forEach((n, bin) => {
    if (!n) {
      low.push(0);
      high.push(0);
      return;
    }
    const p = Math.min(Math.max(bins.confidence[bin], 1e-12), 1 - 1e-12);
    const [from, to] = binomialQuantiles(n, p, [0.025, 0.975]);
    low.push(from / n);
    high.push(to / n);
  });
  return { band_low: low, band_high: high };
}

/** Answers questions about `data`. What an answer has in common with the last one is not
 * computed again: a number of bins needs no softmax, a selected bar nothing of the bins. */
export class Engine {
  /** @param {Data} data */
  constructor(data) {
    this.data = data;
    /** @type {Map<string, Run>} */
    this.runs = new Map(data.runs.map((run) => [run.name, run]));
    /** Calibrated logits, by calibrator and run. @type {Map<string, ArrayLike<number>>} */
    this.calibrated = new Map();
    /** Those of the last question, by run. @type {Map<string, Scores>} */
    this.scored = new Map();
    /** Those of the last question, by run. @type {Map<string, {key: string, row: Row}>} */
    this.rows = new Map();
  }

  /** @param {string} name @param {string} calibrator */
  logits(name, calibrator) {
    const run = this.runs.get(name);
    if (!run) throw new Error(`no run ${name}`);
    if (calibrator === "raw") return run.logits;
    const key = JSON.stringify([calibrator, name]);
    let found = this.calibrated.get(key);
    if (!found) {
      if ((this.calibrated.size + 1) * run.logits.length > MOST_KEPT) this.calibrated.clear();
      found = calibrate(this.data, run, calibrator);
      this.calibrated.set(key, found);
    }
    return found;
  }

  /** @param {string} name @param {Question} question @returns {Scores} */
  scores(name, { calibrator, temperature }) {
    let scores = this.scored.get(name);
    if (!scores) {
      scores = emptyScores(this.data);
      this.scored.set(name, scores);
    }
    const key = JSON.stringify([calibrator, temperature]);
    if (scores.key !== key) {
      score(this.data, this.logits(name, calibrator), temperature, scores);
      scores.key = key;
    }
    return scores;
  }

  /** The same object as long as nothing in it changes.
   * @param {string} name @param {Question} question @returns {Row} */
  row(name, question) {
    const { calibrator, temperature, n_bins: nBins, binning, class_index: k } = question;
    const key = JSON.stringify([calibrator, temperature, nBins, binning, k]);
    const known = this.rows.get(name);
    if (known?.key === key) return known.row;
    const scores = this.scores(name, question);
    const bins = makeBins(this.data, viewOf(this.data, scores, k), nBins, binning);
    const numbers = { ...numbersOf(this.data, scores, nBins), shown_ece: eceOf(bins) };
    const row = { name, ...bins, ...band(bins), numbers };
    this.rows.set(name, { key, row });
    return row;
  }

  /** @param {Question} question @returns {Answer} */
  answer(question) {
    return {
      question,
      rows: question.losses.map((name) => this.row(name, question)),
      samples: this.samples(question),
      agreement: this.agreement(question),
      detail: this.detail(question),
    };
  }

  /** The selected samples, the most surprising first.
   * @param {Question} question @returns {Samples|null} */
  samples(question) {
    const { selected, class_index: k, errors_only: errorsOnly, first, n_images: count } = question;
    if (!selected) return null;
    const { data } = this;
    const named = selected.kind === "bar" ? [selected.run] : [selected.right, selected.wrong];
    if (named.some((name) => !question.losses.includes(name))) return null;
    const scores = this.scores(selected.kind === "bar" ? selected.run : selected.wrong, question);
    /** @type {[number, number][]} */
    let found = []; // surprise and sample
    let prob = scores.confidence;
    let wrong = 0;
    if (selected.kind === "bar") {
      const { values, hits } = viewOf(data, scores, k);
      prob = values;
      for (let i = 0; i < values.length; i++) {
        const at = values[i] * (1 - data.tolerance);
        if (at < selected.low || (at >= selected.high && selected.high < 1)) continue;
        const miss = scores.prediction[i] !== data.labels[i];
        if (errorsOnly && !miss) continue;
        wrong += miss ? 1 : 0;
        if (k !== null) found.push([Math.abs(hits[i] - values[i]), i]);
        else found.push([hits[i] ? -values[i] : 1 + values[i], i]);
      }
    } else {
      const other = this.scores(selected.right, question);
      for (let i = 0; i < data.nSamples; i++) {
        const y = data.labels[i];
        if (other.prediction[i] === y && scores.prediction[i] !== y) found.push([prob[i], i]);
      }
      wrong = found.length;
    }
    found.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    const total = found.length;
    const index = found.slice(first, first + count).map(([, i]) => i);
    return {
      count: total,
      wrong,
      index,
      label: index.map((i) => data.labels[i]),
      prediction: index.map((i) => scores.prediction[i]),
      prob: index.map((i) => prob[i]),
    };
  }

  /** All probabilities of one sample, run by run. @param {Question} question */
  detail(question) {
    const { detail: i } = question;
    if (i === null) return null;
    const { nClasses: k, labels } = this.data;
    const probs = question.losses.map((name) => {
      const { probs: all } = this.scores(name, question);
      return Array.from(all.subarray(i * k, (i + 1) * k));
    });
    return { index: i, label: labels[i], probs };
  }

  /** How often the two runs of `pair` are both right, one alone, the other, neither.
   * @param {Question} question */
  agreement(question) {
    if (!question.pair) return null;
    const { labels, nSamples } = this.data;
    const [a, b] = question.pair.map((name) => this.scores(name, question).prediction);
    const counts = [0, 0, 0, 0];
    for (let i = 0; i < nSamples; i++) {
      counts[(a[i] === labels[i] ? 0 : 2) + (b[i] === labels[i] ? 0 : 1)]++;
    }
    return counts;
  }
}
