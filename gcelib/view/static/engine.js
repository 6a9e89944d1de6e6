// The engine: what Python's `metrics` and calibrators compute, from logits that are
// here. It knows no page and no network; tests/test_engine.py compares it with Python.

import { band } from "./band.js";
import { cut, eceOf, inBar, makeBins } from "./bins.js";
import { calibrate } from "./formulas.js";
import { emptyScores, numbersOf, score, viewOf } from "./scores.js";

/** @typedef {import("./bins.js").Bins} Bins */
/** @typedef {import("./scores.js").Scores} Scores */

/** One model's answers to the test samples: logits row by row, and what fits them.
 * @typedef {{name: string, logits: Float32Array,
 *   calibrators: Object<string, import("./formulas.js").Fitted>}} Run */

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
 *   binning: import("./bins.js").Binning, class_index: number|null,
 *   selected: SelectedBar|Disagreement|null, errors_only: boolean, pair: string[]|null,
 *   first: number, n_images: number, detail: number|null}} Question */

/** A run's bins, where 95 of 100 calibrated bars would end, and its numbers.
 * @typedef {Bins & {name: string, band_low: number[], band_high: number[],
 *   numbers: Object<string, number>}} Row */

/** How many were found, and some of them.
 * @typedef {{count: number, wrong: number, index: number[], label: number[],
 *   prediction: number[], prob: number[]}} Samples */

/** @typedef {{question: Question, rows: Row[], samples: Samples|null,
 *   agreement: number[]|null,
 *   detail: {index: number, label: number, probs: number[][]}|null}} Answer */

/** Samples that are selected, with what is shown of all samples.
 * @typedef {{found: {i: number, surprise: number}[], wrong: number, scores: Scores,
 *   shown: Float64Array}} Selection */

/** Calibrated logits that are kept, 64 MB. */
const MOST_KEPT = 8_000_000;

/** Answers questions about `data`. What an answer has in common with the last one is
 * not computed again: a number of bins needs no softmax, a selected bar no bins. */
export class Engine {
  /** @param {Data} data */
  constructor(data) {
    this.data = data;
    /** @type {Map<string, Run>} */
    this.runs = new Map(data.runs.map((run) => [run.name, run]));
    /** Calibrated logits, by calibrator and run.
     * @type {Map<string, ArrayLike<number>>} */
    this.calibrated = new Map();
    /** Those of the last question, by run. @type {Map<string, Scores>} */
    this.scored = new Map();
    /** Those of the last question, by run.
     * @type {Map<string, {key: string, row: Row}>} */
    this.rows = new Map();
  }

  /** @param {Question} question
   * @returns {Answer} */
  answer(question) {
    return {
      question,
      rows: question.losses.map((name) => this.row(name, question)),
      samples: this.samples(question),
      agreement: this.agreement(question),
      detail: this.detail(question),
    };
  }

  /** The same object as long as nothing in it changes.
   * @param {string} name
   * @param {Question} question
   * @returns {Row} */
  row(name, question) {
    const { calibrator, temperature } = question;
    const { n_bins: nBins, binning, class_index: k } = question;
    const key = JSON.stringify([calibrator, temperature, nBins, binning, k]);
    const known = this.rows.get(name);
    if (known?.key === key) return known.row;
    const { data } = this;
    const scores = this.scores(name, question);
    const bins = makeBins(viewOf(data, scores, k), nBins, binning, data.tolerance);
    const numbers = { ...numbersOf(data, scores, nBins), shown_ece: eceOf(bins) };
    const row = { name, ...bins, ...band(bins), numbers };
    this.rows.set(name, { key, row });
    return row;
  }

  /** @param {string} name
   * @param {Question} question
   * @returns {Scores} */
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

  /** @param {string} name
   * @param {string} calibrator "raw": the logits as they are
   * @returns {ArrayLike<number>} */
  logits(name, calibrator) {
    const run = this.runs.get(name);
    if (!run) throw new Error(`no run ${name}`);
    if (calibrator === "raw") return run.logits;
    const key = JSON.stringify([calibrator, name]);
    let found = this.calibrated.get(key);
    if (!found) {
      const cells = (this.calibrated.size + 1) * run.logits.length;
      if (cells > MOST_KEPT) this.calibrated.clear();
      found = calibrate(run.logits, this.data.nClasses, run.calibrators[calibrator]);
      this.calibrated.set(key, found);
    }
    return found;
  }

  /** The selected samples, the most surprising first.
   * @param {Question} question
   * @returns {Samples|null} */
  samples(question) {
    const { losses, selected, first, n_images: most } = question;
    if (!selected) return null;
    const ofBar = selected.kind === "bar";
    const runs = ofBar ? [selected.run] : [selected.right, selected.wrong];
    if (!runs.every((name) => losses.includes(name))) return null;
    const { found, wrong, scores, shown } = ofBar
      ? this.ofBar(selected, question) : this.ofDisagreement(selected, question);
    found.sort((a, b) => b.surprise - a.surprise || a.i - b.i);
    const index = found.slice(first, first + most).map(({ i }) => i);
    return {
      count: found.length,
      wrong,
      index,
      label: index.map((i) => this.data.labels[i]),
      prediction: index.map((i) => scores.prediction[i]),
      prob: index.map((i) => shown[i]),
    };
  }

  /** @param {SelectedBar} bar
   * @param {Question} question
   * @returns {Selection} */
  ofBar(bar, question) {
    const { class_index: k, errors_only: errorsOnly } = question;
    const { n_bins: nBins, binning } = question;
    const { labels, tolerance } = this.data;
    const scores = this.scores(bar.run, question);
    const view = viewOf(this.data, scores, k);
    const { values, hits } = view;
    const isInside = inBar(view, cut(view, nBins, binning, tolerance), bar, tolerance);
    const found = [];
    let wrong = 0;
    for (let i = 0; i < values.length; i++) {
      if (!isInside(i)) continue;
      const isWrong = scores.prediction[i] !== labels[i];
      if (errorsOnly && !isWrong) continue;
      if (isWrong) wrong++;
      // Of top labels: errors by falling confidence, then hits by rising.
      const ofTop = hits[i] ? -values[i] : 1 + values[i];
      const surprise = k === null ? ofTop : Math.abs(hits[i] - values[i]);
      found.push({ i, surprise });
    }
    return { found, wrong, scores, shown: values };
  }

  /** @param {Disagreement} pair
   * @param {Question} question
   * @returns {Selection} */
  ofDisagreement(pair, question) {
    const { labels } = this.data;
    const right = this.scores(pair.right, question);
    const scores = this.scores(pair.wrong, question);
    const found = [];
    for (let i = 0; i < labels.length; i++) {
      const y = labels[i];
      const disagree = right.prediction[i] === y && scores.prediction[i] !== y;
      if (disagree) found.push({ i, surprise: scores.confidence[i] });
    }
    return { found, wrong: found.length, scores, shown: scores.confidence };
  }

  /** How often the two runs of `pair` are both right, one alone, the other, neither.
   * @param {Question} question
   * @returns {number[]|null} */
  agreement(question) {
    if (!question.pair) return null;
    const { labels } = this.data;
    const [a, b] = question.pair.map((name) => this.scores(name, question).prediction);
    const counts = [0, 0, 0, 0];
    for (let i = 0; i < labels.length; i++) {
      const place = (a[i] === labels[i] ? 0 : 2) + (b[i] === labels[i] ? 0 : 1);
      counts[place]++;
    }
    return counts;
  }

  /** All probabilities of one sample, run by run.
   * @param {Question} question
   * @returns {Answer["detail"]} */
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
}
