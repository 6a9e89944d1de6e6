// Where the probabilities of three classes lie in the plane of the drawing.

export const WIDTH = 440;
export const HEIGHT = 390;

/** Class 1 is on the left, class 2 on the right, class 3 on top. */
export const CORNERS = [[40, 350], [400, 350], [220, 350 - 180 * Math.sqrt(3)]];

/** @param {number[]} p
 * @returns {number[]} from the left and from the top */
export function placeOf(p) {
  return [0, 1].map((axis) => {
    return p[0] * CORNERS[0][axis] + p[1] * CORNERS[1][axis] + p[2] * CORNERS[2][axis];
  });
}

/** The probabilities at a point; outside the triangle some are negative.
 * @param {number} left
 * @param {number} top */
export function probabilitiesAt(left, top) {
  const [[firstLeft, bottom], [secondLeft], [, thirdTop]] = CORNERS;
  const third = (bottom - top) / (bottom - thirdTop);
  const second = (left - firstLeft) / (secondLeft - firstLeft) - third / 2;
  return [1 - second - third, second, third];
}

/** The nearest probabilities in whole hundredths: they stay readable and sum to 1.
 * @param {number[]} p */
export function nearestHundredths(p) {
  const positive = p.map((value) => Math.max(value, 0));
  const total = positive[0] + positive[1] + positive[2];
  const [first, wished] = positive.map((value) => Math.round((100 * value) / total));
  const second = Math.min(wished, 100 - first);
  const third = Math.max(100 - first - wished, 0);
  return [first, second, third].map((hundredths) => hundredths / 100);
}
