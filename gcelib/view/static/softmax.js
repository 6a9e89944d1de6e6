// Rows of logits in one long array: `k` of them from `start` on.

/** Which of a row is the largest; of equal ones the first.
 * @param {ArrayLike<number>} row
 * @param {number} start
 * @param {number} k */
export function argmax(row, start, k) {
  let best = 0;
  for (let j = 1; j < k; j++) if (row[start + j] > row[start + best]) best = j;
  return best;
}

/** Softmax of z[start..start + k) / T into out[to..]; returns the log of the largest
 * share's inverse.
 * @param {ArrayLike<number>} z
 * @param {number} start
 * @param {number} k
 * @param {number} temperature
 * @param {Float64Array} out
 * @param {number} to */
export function softmaxRow(z, start, k, temperature, out, to) {
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

/** The top-1 probability of a row.
 * @param {ArrayLike<number>} z
 * @param {number} start
 * @param {number} k */
export function confidenceOf(z, start, k) {
  let top = -Infinity;
  for (let j = start; j < start + k; j++) if (z[j] > top) top = z[j];
  let total = 0;
  for (let j = start; j < start + k; j++) total += Math.exp(z[j] - top);
  return 1 / total;
}
