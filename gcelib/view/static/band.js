// Where bars would end by chance if the confidences were right.

/** Lanczos's coefficients for g = 7. */
const LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313,
  -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6,
  1.5056327351493116e-7,
];

/** The logarithm of m!, by Lanczos's series.
 * @param {number} m */
function logFactorial(m) {
  let series = LANCZOS[0];
  for (let i = 1; i < 9; i++) series += LANCZOS[i] / (m + i);
  const t = m + 7.5;
  return 0.5 * Math.log(2 * Math.PI) + (m + 0.5) * Math.log(t) - t + Math.log(series);
}

/** The probability of so many hits of n.
 * @param {number} hits
 * @param {number} n
 * @param {number} p */
function binomialMass(hits, n, p) {
  const logWays = logFactorial(n) - logFactorial(hits) - logFactorial(n - hits);
  return Math.exp(logWays + hits * Math.log(p) + (n - hits) * Math.log1p(-p));
}

/** The smallest hits h of n with P(hits <= h) >= q, for each of some rising q.
 * @param {number} n
 * @param {number} p in (0, 1)
 * @param {number[]} quantiles */
export function binomialQuantiles(n, p, quantiles) {
  // What lies twelve standard deviations below has no mass that counts.
  const spread = 12 * Math.sqrt(n * p * (1 - p));
  let hits = Math.max(0, Math.floor(n * p - spread));
  let mass = binomialMass(hits, n, p);
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

/** Where each bin's accuracy would lie, 95 times of 100, if its confidence were right.
 * @param {import("./bins.js").Bins} bins
 * @returns {{band_low: number[], band_high: number[]}} */
export function band({ counts, confidence }) {
  const bounds = counts.map((n, bin) => {
    if (!n) return [0, 0];
    const p = Math.min(Math.max(confidence[bin], 1e-12), 1 - 1e-12);
    return binomialQuantiles(n, p, [0.025, 0.975]).map((hits) => hits / n);
  });
  return {
    band_low: bounds.map(([low]) => low),
    band_high: bounds.map(([, high]) => high),
  };
}
