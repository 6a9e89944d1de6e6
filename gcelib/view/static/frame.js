// Where things lie in a diagram: the upper axes show accuracies, the lower counts.

export class Frame {
  /** All in the drawing's own units.
   * @param {{width: number, height: number, left: number, right: number,
   *   top: number, bottom: number, countTop: number, countBottom: number}} places
   * @param {{marks: number[], countTitle: string, titled: boolean}} words the shares
   *   that are marked on the axes, and what there is room for */
  constructor(places, words) {
    this.width = places.width;
    this.height = places.height;
    this.left = places.left;
    this.right = places.right;
    this.top = places.top;
    this.bottom = places.bottom;
    this.countTop = places.countTop;
    this.countBottom = places.countBottom;
    this.marks = words.marks;
    this.countTitle = words.countTitle;
    this.titled = words.titled;
  }

  /** Where a share lies on the axis to the right.
   * @param {number} share */
  across(share) {
    return this.left + share * (this.right - this.left);
  }

  /** Where a share lies on the upper axis.
   * @param {number} share */
  up(share) {
    return this.bottom - share * (this.bottom - this.top);
  }

  /** Where a count ends on its logarithmic axis; a single sample is still seen.
   * @param {number} count
   * @param {number} most samples in any bar */
  countUp(count, most) {
    const share = Math.log(count / 0.6) / Math.log(most / 0.6);
    return this.countBottom - (this.countBottom - this.countTop) * share;
  }
}

/** For a diagram that has the place for itself. */
export const WIDE = new Frame(
  {
    width: 600, height: 396, left: 52, right: 588,
    top: 8, bottom: 268, countTop: 290, countBottom: 352,
  },
  { marks: [0, 0.2, 0.4, 0.6, 0.8, 1], countTitle: "samples (log)", titled: false },
);

/** For one of several, each with a run of its own. */
export const SMALL = new Frame(
  {
    width: 300, height: 276, left: 46, right: 286,
    top: 24, bottom: 180, countTop: 196, countBottom: 236,
  },
  { marks: [0, 0.5, 1], countTitle: "n (log)", titled: true },
);
