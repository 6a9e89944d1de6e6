// One test sample: a card among others, or enlarged with all its probabilities.

import { html, tableHead, tableRow } from "./elements.js";
import { percent, quantity } from "./words.js";

/** Classes are numbers; `prob` is the probability that is in view.
 * @typedef {{index: number, label: number, prediction: number, prob: number}} Sample */

/** Classes that are listed of a sample, besides the true one. */
const MOST_LISTED = 20;

/** A button that says what was predicted, and what was true.
 * @param {Sample} sample
 * @param {string[]} names of the classes
 * @param {string|null} className in view
 * @param {Node[]} picture
 * @param {() => void} enlarge */
export function card(sample, names, className, picture, enlarge) {
  const { index, label, prediction, prob } = sample;
  const right = label === prediction;
  const claim = className ? quantity(className) : "conf.";
  const attributes = {
    type: "button", class: right ? "card right" : "card wrong", onclick: enlarge,
    "data-sample": index, "data-key": `sample ${index}`,
  };
  return html(
    "button", attributes, ...picture,
    html("b", {}, `${right ? "✓" : "✗"} ${names[prediction]}`),
    html("span", {}, `true: ${names[label]}`),
    html("span", {}, `${claim} ${percent(prob)}`),
  );
}

/** A table of the largest probabilities, run by run, beside the picture.
 * @param {{label: number, probs: number[][]}} detail
 * @param {number} number of the sample, counted from 0
 * @param {string[]} names of the classes
 * @param {string[]} runs
 * @param {Node[]} picture */
export function enlarged({ label, probs }, number, names, runs, picture) {
  const shown = mostProbable(probs, names.length);
  if (!shown.includes(label)) shown.push(label);
  const rows = shown.map((k) => {
    const isTrue = k === label;
    const cells = probs.map((ofRun) => shadedCell(ofRun[k]));
    const title = isTrue ? `${names[k]} (true)` : names[k];
    return tableRow(title, cells, { class: isTrue ? "truth" : null });
  });
  const part = shown.length < names.length ? ", the largest" : "";
  const caption = `All probabilities of sample ${number}${part}`;
  const table = html(
    "table", {},
    html("caption", {}, caption), tableHead(runs), html("tbody", {}, ...rows),
  );
  return html("div", { class: "detail" }, ...picture, table);
}

/** The classes to which some run gives most, the first ones.
 * @param {number[][]} probs run by run
 * @param {number} nClasses */
function mostProbable(probs, nClasses) {
  const classes = Array.from({ length: nClasses }, (_, k) => k);
  const best = classes.map((k) => Math.max(...probs.map((ofRun) => ofRun[k])));
  return classes.sort((a, b) => best[b] - best[a]).slice(0, MOST_LISTED);
}

/** A probability, also as a bar behind the number.
 * @param {number} p */
function shadedCell(p) {
  const gradient = `linear-gradient(to right, var(--bar) ${100 * p}%, transparent 0)`;
  return html("td", { style: `background-image:${gradient}` }, percent(p));
}
