// Places among sorted points.

/** How many of the sorted `points` lie below `at`.
 * @param {ArrayLike<number>} points
 * @param {number} at */
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

/** Piecewise linear through (points, values), constant outside.
 * @param {number} at
 * @param {number[]} points
 * @param {number[]} values */
export function interpolate(at, points, values) {
  const right = Math.min(countBelow(points, at), points.length - 1);
  const left = Math.max(right - 1, 0);
  const width = Math.max(points[right] - points[left], 1e-300);
  const weight = Math.min(Math.max((at - points[left]) / width, 0), 1);
  return values[left] + weight * (values[right] - values[left]);
}
