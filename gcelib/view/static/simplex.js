// PropernessExplorer's view: the risk of every prediction p on the simplex of three
// classes, for a truth q that the reader moves.

import { dropDown, slider } from "./controls.js";
import { html, tableHead, tableRow } from "./elements.js";
import { surface, TAKES_GAMMA, TAKES_WEIGHT } from "./risks.js";
import { Triangle } from "./triangle.js";

/** @typedef {import("./risks.js").Asked} Asked */
/** @typedef {import("./risks.js").Found} Found */
/** @typedef {import("./settings.js").Settings} Settings */

/** As Python sends it; losses are values, and how they are called.
 * @typedef {{losses: [string, string][], steps: number, colors: string[]}}
 *   SimplexSetup */

/** @param {HTMLElement} root
 * @param {any} content what `PropernessExplorer._content` made
 * @param {Settings} settings */
export function simplex(root, content, settings) {
  /** @type {SimplexSetup} */
  const setup = content.setup;
  const options = new LossOptions(settings);
  const triangle = new Triangle(settings, setup);
  const report = new Report(setup.colors);
  const loss = dropDown(settings, "loss", "Loss", setup.losses);
  root.setAttribute("aria-label", "Properness explorer");
  root.append(
    html("div", { class: "controls" }, loss, ...options.elements),
    html("div", { class: "main" }, triangle.element, report.element),
  );
  settings.on(settings.names, () => {
    const asked = /** @type {Asked} */ (settings.values);
    const found = surface(setup.steps, asked);
    triangle.draw(found, asked);
    report.draw(found, asked.truth);
    options.show(asked.loss);
  });
}

/** Controls that some losses have. */
class LossOptions {
  /** @param {Settings} settings */
  constructor(settings) {
    this.gamma = slider(settings, "gamma", "Focusing γ", {
      min: 0, max: 10, step: 0.5, text: (gamma) => gamma.toFixed(1),
    });
    this.weight = slider(settings, "weight", "Regulariser weight λ", {
      min: 0, max: 1, step: 0.05, text: (weight) => weight.toFixed(2),
    });
    this.batch = dropDown(settings, "batch", "The rest of the batch", [
      ["varied", "three other samples, at their truth"],
      ["alike", "copies of this sample"],
    ]);
    this.elements = [this.gamma, this.weight, this.batch];
  }

  /** @param {string} loss */
  show(loss) {
    this.gamma.hidden = !TAKES_GAMMA.includes(loss);
    this.weight.hidden = !TAKES_WEIGHT.includes(loss);
    this.batch.hidden = !TAKES_WEIGHT.includes(loss);
  }
}

/** What was found, in words and numbers, and what the colours mean. */
class Report {
  /** @param {string[]} colors */
  constructor(colors) {
    const swatches = colors.map((color) => html("i", { style: `background:${color}` }));
    this.verdict = html("p", { role: "status" });
    this.numbers = html("table");
    this.element = html(
      "div", { class: "side" }, this.verdict, this.numbers,
      html("p", { class: "scale" }, "low risk ", ...swatches, " high risk"),
    );
  }

  /** @param {Found} found
   * @param {number[]} truth */
  draw(found, truth) {
    const verdict = verdictOn(found.best, truth);
    // A status is read out whenever its text is set.
    if (this.verdict.textContent !== verdict) this.verdict.textContent = verdict;
    const best = found.best?.map(digits) ?? ["any", "any", "any"];
    const rows = [
      row("○ truth q", truth.map(digits), found.risk_at_truth),
      row("◆ minimiser p*", best, found.risk_at_best),
    ];
    const head = tableHead(["class 1", "class 2", "class 3", "risk"]);
    this.numbers.replaceChildren(head, html("tbody", {}, ...rows));
  }
}

/** @param {string} title
 * @param {string[]} probabilities
 * @param {number} risk */
function row(title, probabilities, risk) {
  const cells = [...probabilities, digits(risk)].map((words) => html("td", {}, words));
  return tableRow(title, cells);
}

/** @param {number} value */
const digits = (value) => value.toFixed(3);

/** @param {number[]|null} best
 * @param {number[]} truth */
function verdictOn(best, truth) {
  if (!best) {
    return "Every prediction has the same risk: this loss cannot find the truth here.";
  }
  const gaps = best.map((p, k) => Math.abs(p - truth[k]));
  if (Math.max(...gaps) < 0.005) return "The minimiser is the truth.";
  const named = gaps.indexOf(Math.max(...gaps));
  return `The minimiser is not the truth: it gives class ${named + 1} `
    + `${digits(best[named])} instead of ${digits(truth[named])}.`;
}
