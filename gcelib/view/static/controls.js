// Controls that change one setting, and follow it when something else changes it.

import { html } from "./elements.js";
import { same } from "./settings.js";

/** @typedef {import("./settings.js").Settings} Settings */

/** @param {Node} input
 * @param {...(Node|string)} title */
const labelled = (input, ...title) =>
  html("label", { class: "control" }, html("span", {}, ...title), input);

/** A labelled drop-down for the setting `name`.
 * @param {Settings} settings
 * @param {string} name
 * @param {string} title
 * @param {[any, string][]} options values, and how they are called
 * @param {Object<string, any>} [also] settings that a choice sets, too
 * @returns {HTMLLabelElement} */
export function dropDown(settings, name, title, options, also = {}) {
  const choose = () => {
    const [value] = options[select.selectedIndex];
    settings.set({ ...also, [name]: value });
  };
  const items = options.map(([, words]) => html("option", {}, words));
  const select = html("select", { name, onchange: choose }, ...items);
  settings.on([name], () => {
    const present = settings.get(name);
    select.selectedIndex = options.findIndex(([value]) => same(value, present));
  });
  return labelled(select, title);
}

/** What a slider covers. `position` and `value` translate between setting and slider;
 * `text` is what is shown and read out of a setting.
 * @typedef {{min: number, max: number, step: number, position?: (value: any) => number,
 *   value?: (position: number) => any, text?: (value: any) => string}} Range */

/** A labelled slider for the setting `name`; its name is the title alone.
 * @param {Settings} settings
 * @param {string} name
 * @param {string} title
 * @param {Range} range
 * @returns {HTMLLabelElement} */
export function slider(settings, name, title, range) {
  const { min, max, step, position = Number, value = Number, text = String } = range;
  const move = () => settings.set({ [name]: value(input.valueAsNumber) });
  const input = html("input", {
    type: "range", name, min, max, step, "aria-label": title, oninput: move,
  });
  const shown = html("b", { "aria-hidden": "true" });
  settings.on([name], () => {
    const present = settings.get(name);
    input.value = position(present);
    shown.textContent = text(present);
    input.setAttribute("aria-valuetext", shown.textContent);
  });
  return labelled(input, `${title} `, shown);
}
