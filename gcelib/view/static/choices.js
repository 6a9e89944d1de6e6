// The controls of the reliability explorer.

import { dropDown, slider } from "./controls.js";
import { html } from "./elements.js";

/** @typedef {import("./settings.js").Settings} Settings */
/** @typedef {import("./setup.js").Setup} Setup */

/** What else changes with what is counted: the list of samples begins anew. */
const AFRESH = { first: 0, detail: null };

/** @param {Settings} settings
 * @param {Setup} setup */
export function choices(settings, setup) {
  /** @type {[number|null, string][]} */
  const classes = [
    [null, "all: the top confidence"],
    ...setup.class_names.map((name, k) => {
      return /** @type {[number, string]} */ ([k, `only ${name}`]);
    }),
  ];
  const otherBars = { ...AFRESH, selected: null };
  return html(
    "div", { class: "controls" },
    runBoxes(settings, setup.runs),
    dropDown(settings, "calibrator", "Calibrator", setup.calibrators, AFRESH),
    slider(settings, "temperature", "Temperature", TEMPERATURES),
    slider(settings, "n_bins", "Bins", { min: 1, max: 50, step: 1 }),
    dropDown(settings, "binning", "Bins of equal", setup.binnings, AFRESH),
    dropDown(settings, "class_index", "Classes", classes, otherBars),
  );
}

/** The slider moves along the logarithm. */
const TEMPERATURES = {
  min: -1,
  max: 1,
  step: 0.02,
  position: Math.log10,
  value: (/** @type {number} */ position) => Number((10 ** position).toPrecision(4)),
  text: (/** @type {number} */ temperature) => temperature.toFixed(2),
};

/** A box to tick for each run.
 * @param {Settings} settings
 * @param {Setup["runs"]} runs */
function runBoxes(settings, runs) {
  const names = runs.map(({ name }) => name);
  const boxes = runs.map(({ name, label }) => {
    const toggle = () => showRun(settings, names, name, box.checked);
    const box = html("input", { type: "checkbox", name, onchange: toggle });
    settings.on(["losses"], () => {
      box.checked = settings.get("losses").includes(name);
    });
    return html("label", {}, box, ` ${label}`);
  });
  return html("fieldset", {}, html("legend", {}, "Runs"), ...boxes);
}

/** Put a run into view or out of it; a comparison needs both of its runs.
 * @param {Settings} settings
 * @param {string[]} names of all runs, in order
 * @param {string} name
 * @param {boolean} shown */
function showRun(settings, names, name, shown) {
  const inView = new Set(settings.get("losses"));
  if (shown) inView.add(name);
  else inView.delete(name);
  /** @type {string[]|null} */
  const pair = settings.get("pair");
  const compared = pair?.every((one) => inView.has(one)) ? pair : null;
  settings.set({ losses: names.filter((one) => inView.has(one)), pair: compared });
}
