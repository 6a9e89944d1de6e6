// What was said in Python while the calibrator in view was fitted.

import { html } from "./elements.js";

/** A run as it came with the page. What it holds else is the engine's.
 * @typedef {{name: string, calibrators: Object<string, {notes?: string[]}>}} Noted */

export class Notes {
  /** @param {import("./setup.js").Setup} setup
   * @param {import("./setup.js").Looks} looks
   * @param {Noted[]} runs */
  constructor(setup, looks, runs) {
    this.setup = setup;
    this.looks = looks;
    this.runs = runs;
    this.element = html("ul", { class: "notes" });
  }

  /** @param {import("./answerers.js").Answer} answer */
  draw({ question: { calibrator, losses } }) {
    const inView = this.runs.filter(({ name }) => losses.includes(name));
    const said = inView.flatMap(({ name, calibrators }) => {
      const notes = calibrators[calibrator]?.notes ?? [];
      return notes.map((note) => `${this.looks.label(name)}: ${note}.`);
    });
    const absent = (this.setup.python_only ?? []).map((name) => {
      return `${name} is applied by Python alone.`;
    });
    const items = [...said, ...absent].map((note) => html("li", {}, note));
    this.element.replaceChildren(...items);
  }
}
