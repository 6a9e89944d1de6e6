// The risk of predictions on the simplex of three classes, for a truth that moves.
// As PropernessExplorer computes it in Python, where losses come from gcelib.losses.

/** What is asked: a loss, the truth, and the options that some losses have.
 * @typedef {{loss: string, truth: number[], gamma: number, weight: number,
 *   batch: "varied"|"alike"}} Asked */

/** The risk at the points of `gridOf`, 13 levels for drawing, and where it is lowest;
 * null if it is the same everywhere.
 * @typedef {{risk: number[], levels: number[], best: number[]|null,
 *   risk_at_truth: number, risk_at_best: number}} Found */

/** Which losses take `gamma`, and which `weight` and `batch`. */
export const TAKES_GAMMA = ["focal", "dfl"];
export const TAKES_WEIGHT = ["gce"];

/** base ** gamma for base >= 0, as the losses have it.
 * @param {number} base
 * @param {number} gamma */
const power = (base, gamma) => Math.max(base, 1e-20) ** gamma;

/** The loss of predicting p (all > 0) where class k happened.
 * @type {Object<string, (p: number[], k: number, gamma: number) => number>} */
const LOSS = {
  ce: (p, k) => -Math.log(p[k]),
  brier: (p, k) => {
    return p.reduce((sum, value, j) => sum + (value - (j === k ? 1 : 0)) ** 2, 0);
  },
  focal: (p, k, gamma) => -power(1 - p[k], gamma) * Math.log(p[k]),
  flsd: (p, k) => -power(1 - p[k], p[k] < 0.2 ? 5 : 3) * Math.log(p[k]),
  dfl: (p, k, gamma) => {
    const rival = Math.max(0, ...p.filter((value) => value < p[k]));
    return -power(1 - p[k] + rival, gamma) * Math.log(p[k]);
  },
};

/** The expected loss of p under the truth.
 * @param {number[]} p
 * @param {Asked} asked */
function risk(p, asked) {
  if (asked.loss === "gce") return riskInBatch(p, asked);
  const loss = LOSS[asked.loss];
  return asked.truth.reduce((sum, q, k) => sum + q * loss(p, k, asked.gamma), 0);
}

/** Three more samples, predicted right, whose truths span the classes. */
const OTHERS = [[1, 0, 0], [0, 1, 0], [0, 0, 1]].map((corner) => {
  return corner.map((value) => 0.1 + 0.7 * value);
});

/** GCE compares samples, so p stands in a batch with others, or with its own copy.
 * @param {number[]} p
 * @param {Asked} asked */
function riskInBatch(p, { truth, weight, batch }) {
  const truths = batch === "alike" ? [truth, truth] : [truth, ...OTHERS];
  const predictions = batch === "alike" ? [p, p] : [p, ...OTHERS];
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
 * probabilities, where dfl jumps.
 * @param {number} steps */
function gridOf(steps) {
  const points = [];
  for (let i = 0; i <= steps; i++) {
    for (let j = 0; j <= steps - i; j++) {
      const counts = [i + 0.03, j + 0.05, steps - i - j + 0.07];
      points.push(counts.map((count) => count / (steps + 0.15)));
    }
  }
  return points;
}

/** p inside the simplex, with sum 1.
 * @param {number[]} p */
function inside(p) {
  const positive = p.map((value) => Math.max(value, 1e-9));
  const total = positive[0] + positive[1] + positive[2];
  return positive.map((value) => value / total);
}

/** Where the exponent of flsd changes. */
const FLSD_JUMP = 0.2;

/** The part of the simplex between lines where a loss jumps: flsd where a probability
 * passes 0.2, dfl where two change places.
 * @param {number[]} p */
function partOf(p) {
  const order = [0, 1, 2].sort((j, k) => p[j] - p[k]);
  return [...order, ...p.map((value) => value < FLSD_JUMP)].join();
}

/** The best prediction: the best grid points, refined in ever smaller neighbourhoods.
 * @param {number[][]} grid
 * @param {number[]} risks
 * @param {number} steps
 * @param {Asked} asked */
function minimiser(grid, risks, steps, asked) {
  const first = risks.indexOf(Math.min(...risks));
  /** @type {Map<string, number>} the best grid point of each part */
  const firsts = new Map();
  grid.forEach((p, at) => {
    const part = partOf(p);
    if (risks[at] < risks[firsts.get(part) ?? at] || !firsts.has(part)) {
      firsts.set(part, at);
    }
  });
  let best = refined(grid[first], steps, asked);
  // What refines to the same as the grid's best point is no other minimum.
  let low = risk(best, asked) - 1e-7;
  for (const at of firsts.values()) {
    const other = refined(grid[at], steps, asked);
    if (risk(other, asked) < low) {
      best = other;
      low = risk(other, asked);
    }
  }
  return best;
}

/** The best prediction near another one, in ever smaller neighbourhoods.
 * @param {number[]} start
 * @param {number} steps
 * @param {Asked} asked */
function refined(start, steps, asked) {
  let best = start;
  for (let round = 0; round < 10; round++) {
    const near = neighbours(best, steps, 3 ** round);
    const found = near.map((p) => risk(p, asked));
    best = near[found.indexOf(Math.min(...found))];
  }
  return best;
}

/** Predictions around p, up to a step of the grid away where `shrink` is 1.
 * @param {number[]} p
 * @param {number} steps
 * @param {number} shrink */
function neighbours(p, steps, shrink) {
  const offsets = Array.from({ length: 7 }, (_, i) => (i / 3 - 1) / steps);
  return offsets.flatMap((a) => offsets.map((b) => {
    return inside([p[0] + a / shrink, p[1] + b / shrink, p[2] - (a + b) / shrink]);
  }));
}

/** The value below which a share of the values lies, between neighbours.
 * @param {number[]} values
 * @param {number} share */
function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  const position = share * (sorted.length - 1);
  const left = Math.floor(position);
  const right = Math.min(left + 1, sorted.length - 1);
  return sorted[left] + (position - left) * (sorted[right] - sorted[left]);
}

/** The whole surface.
 * @param {number} steps of the grid
 * @param {Asked} asked
 * @returns {Found} */
export function surface(steps, asked) {
  const grid = gridOf(steps);
  const risks = grid.map((p) => risk(p, asked));
  const low = Math.min(...risks);
  const flat = Math.max(...risks) - low < 1e-9;
  const best = flat ? null : minimiser(grid, risks, steps, asked);
  const span = flat ? 1 : quantile(risks, 0.9) - low;
  const levels = Array.from({ length: 13 }, (_, i) => low + span * ((i + 1) / 14) ** 2);
  const truth = inside(asked.truth);
  return {
    risk: risks,
    levels,
    best,
    risk_at_truth: risk(truth, asked),
    risk_at_best: risk(best ?? truth, asked),
  };
}
