// The numbers of all runs: a table to look at, and a sentence to hear.

import { html, tableHead, tableRow, update } from "./elements.js";
import { classInView } from "./setup.js";
import { eceSentence, whole } from "./words.js";

/** @typedef {import("./answerers.js").Answer} Answer */
/** @typedef {import("./setup.js").Looks} Looks */
/** @typedef {import("./setup.js").Metric} Metric */
/** @typedef {import("./setup.js").Setup} Setup */

export class NumberTable {
  /** @param {Setup} setup
   * @param {Looks} looks */
  constructor(setup, looks) {
    this.setup = setup;
    this.looks = looks;
    this.element = html("table");
    this.key = "";
    /** A cell for each metric and run. @type {HTMLElement[][]} */
    this.cells = [];
  }

  /** @param {Answer} answer */
  draw({ rows, question }) {
    const metrics = [...this.setup.metrics, ...this.metricOfBinsInView(question)];
    const names = rows.map(({ name }) => name);
    const key = JSON.stringify([names, metrics.map(([, title]) => title)]);
    if (key !== this.key) this.layOut(metrics, names);
    this.key = key;
    metrics.forEach(([metric, , factor, digits], i) => {
      rows.forEach(({ numbers }, j) => {
        update(this.cells[i][j], {}, (factor * numbers[metric]).toFixed(digits));
      });
    });
  }

  /** Where the bins in view are not those of another number, theirs.
   * @param {import("./engine.js").Question} question
   * @returns {Metric[]} */
  metricOfBinsInView(question) {
    const className = classInView(this.setup, question);
    if (className === null && question.binning !== "equal") return [];
    const title = className ? `ECE of ${className} %` : "ECE, as drawn %";
    return [["shown_ece", title, 100, 2]];
  }

  /** @param {Metric[]} metrics
   * @param {string[]} names of the runs */
  layOut(metrics, names) {
    this.cells = metrics.map(([metric]) => names.map((name) => {
      return html("td", { "data-number": `${name}/${metric}` });
    }));
    const lines = metrics.map(([, title], i) => tableRow(title, this.cells[i]));
    const samples = `${whole(this.setup.n_samples)} samples, lower is better`;
    this.element.replaceChildren(
      html("caption", {}, names.length ? samples : "Tick a run to see its diagram."),
      tableHead(names.map((name) => this.looks.label(name))),
      html("tbody", {}, ...lines),
    );
  }
}

/** Says the numbers to those who hear the page, once they stay for a moment. */
export class SpokenNumbers {
  /** @param {Looks} looks
   * @param {import("./setup.js").Setup} setup */
  constructor(looks, setup) {
    this.looks = looks;
    this.setup = setup;
    this.element = html("p", { class: "status", role: "status" });
    /** @type {number|undefined} */
    this.pause = undefined;
  }

  /** @param {Answer} answer */
  draw({ rows, question }) {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => {
      const words = eceSentence(rows, this.looks, question, this.setup);
      this.element.textContent = words;
    }, 300);
  }
}
