// The risk of predictions on the simplex of three classes, for a truth that moves.
// As PropernessExplorer computes it in Python, where losses come from gcelib.losses.

/** @typedef {{loss: string, truth: number[], gamma: number, weight: number,
 *   batch: "varied"|"alike"}} Settings */

/** base ** gamma for base >= 0, as the losses have it. @param {number} base @param {number} gamma */
const power = (base, gamma) => Math.max(base, 1e-20) ** gamma;

/** The loss of predicting p (all > 0) where class k happened.
 * @type {Object<string, (p: number[], k: number, gamma: number) => number>} */
const LOSS = {
  ce: (p, k) => -Math.log(p[k]),
  brier: (p, k) => p.reduce((sum, value, j) => sum + (value - (j === k ? 1 : 0)) ** 2, 0),
  focal: (p, k, gamma) => -power(1 - p[k], gamma) * Math.log(p[k]),
  flsd: (p, k) => -power(1 - p[k], p[k] < 0.2 ? 5 : 3) * Math.log(p[k]),
  dfl: (p, k, gamma) => {
    const rival = Math.max(0, ...p.filter((value) => value < p[k]));
    return -power(1 - p[k] + rival, gamma) * Math.log(p[k]);
  },
};

export const RISKS = [...Object.keys(LOSS), "gce"];

/** The expected loss of p under the truth. @param {number[]} p @param {Settings} settings */
export function risk(p, { loss, truth, gamma, weight, batch }) {
  if (loss !== "gce") {
    return truth.reduce((sum, q, k) => sum + q * LOSS[loss](p, k, gamma), 0);
  }
  const corners = [0, 1, 2].map((i) => [0, 1, 2].map((k) => 0.1 + (i === k ? 0.7 : 0)));
  const truths = batch === "alike" ? [truth, truth] : [truth, ...corners];
  const predictions = batch === "alike" ? [p, p] : [p, ...corners];
  let total = 0;
  for (let k = 0; k < 3; k++) {
    const logSum = Math.log(predictions.reduce((sum, row) => sum + row[k], 0));
    predictions.forEach((row, i) => {
      total -= truths[i][k] * (Math.log(row[k]) - weight * logSum);
    });
  }
  return total / truths.length;
}

/** Grid points inside the rim, where risks are infinite, and off the lines of equal
 * probabilities, where dfl jumps. @param {number} steps */
export function gridOf(steps) {
  const points = [];
  for (let i = 0; i <= steps; i++) {
    for (let j = 0; j <= steps - i; j++) {
      const counts = [i + 0.03, j + 0.05, steps - i - j + 0.07];
      points.push(counts.map((count) => count / (steps + 0.15)));
    }
  }
  return points;
}

/** p inside the simplex, with sum 1. @param {number[]} p */
function inside(p) {
  const positive = p.map((value) => Math.max(value, 1e-9));
  const total = positive[0] + positive[1] + positive[2];
  return positive.map((value) => value / total);
}

/** The best prediction: the grid's, refined in ever smaller neighbourhoods.
 * @param {number[][]} grid @param {number[]} risks @param {number} steps
 * @param {Settings} settings */
function minimiser(grid, risks, steps, settings) {
  let best = grid[risks.indexOf(Math.min(...risks))];
  const offsets = Array.from({ length: 7 }, (_, i) => (i / 3 - 1) / steps);
  for (let round = 0; round < 10; round++) {
    const near = [];
    for (const a of offsets) {
      for (const b of offsets) {
        const shrink = 3 ** round;
        near.push(inside([best[0] + a / shrink, best[1] + b / shrink, best[2] - (a + b) / shrink]));
      }
    }
    const found = near.map((p) => risk(p, settings));
    best = near[found.indexOf(Math.min(...found))];
  }
  return best;
}

/** The value below which a share of the values lies, between neighbours.
 * @param {number[]} values @param {number} share */
function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  const position = share * (sorted.length - 1);
  const left = Math.floor(position);
  const right = Math.min(left + 1, sorted.length - 1);
  return sorted[left] + (position - left) * (sorted[right] - sorted[left]);
}

/** The whole surface, its levels for drawing, and where it is lowest.
 * @param {number} steps @param {Settings} settings */
export function surface(steps, settings) {
  const grid = gridOf(steps);
  const risks = grid.map((p) => risk(p, settings));
  const low = Math.min(...risks);
  const flat = Math.max(...risks) - low < 1e-9;
  const best = flat ? null : minimiser(grid, risks, steps, settings);
  const span = flat ? 1 : quantile(risks, 0.9) - low;
  const levels = Array.from({ length: 13 }, (_, i) => low + span * ((i + 1) / 14) ** 2);
  const truth = inside(settings.truth);
  return {
    risk: risks,
    levels,
    best,
    risk_at_truth: risk(truth, settings),
    risk_at_best: risk(best ?? truth, settings),
  };
}
