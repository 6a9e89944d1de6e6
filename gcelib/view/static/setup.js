// What stays the same while the reliability explorer is open: the runs and how they are
// shown, what can be chosen, the names of the classes.

/** How a run is shown; `index` is its place among all runs.
 * @typedef {{name: string, label: string, color: string, index: number}} Look */

/** A column of the number table: key of the number, title, factor, digits.
 * @typedef {[string, string, number, number]} Metric */

/** As Python sends it; calibrators and binnings are values, and how they are called;
 * `drawn` has the numbers of the samples, as bytes, if these are some of many.
 * @typedef {{runs: {name: string, label: string, color: string}[],
 *   calibrators: [string, string][], binnings: [string, string][], metrics: Metric[],
 *   class_names: string[], n_samples: number, python_only?: string[],
 *   drawn?: string|null}} Setup */

/** How each run is shown, by its name. */
export class Looks {
  /** @param {Setup["runs"]} runs */
  constructor(runs) {
    /** @type {Map<string, Look>} */
    this.byName = new Map(runs.map((run, index) => [run.name, { ...run, index }]));
  }

  /** @param {string} name
   * @returns {Look} */
  of(name) {
    const look = this.byName.get(name);
    if (!look) throw new Error(`no run ${name}`);
    return look;
  }

  /** @param {string} name */
  label(name) {
    return this.of(name).label;
  }
}

/** The name of the one class that is in view; null: the top label of each sample is.
 * @param {Setup} setup
 * @param {import("./engine.js").Question} question */
export function classInView(setup, question) {
  const { class_index: k } = question;
  return k === null ? null : setup.class_names[k];
}
