// Puts an explorer where its picture is, and ties it to a kernel's model if there is one.

import { Settings } from "./page.js";

/** @typedef {{get: (name: string) => any, set: (name: string, value: any) => void,
 *   save_changes: () => void, on: (event: string, act: () => void) => void}} Model */

/** Models of this page's kernels, by key. @returns {Map<string, Model>} */
export function models() {
  const page = /** @type {any} */ (globalThis);
  page.gcelibModels ??= new Map();
  return page.gcelibModels;
}

/** A kernel made an explorer: let its views find it. @param {Model} model */
export function announce(model) {
  models().set(model.get("key"), model);
  document.dispatchEvent(new CustomEvent("gcelib-model", { detail: model.get("key") }));
}

/** Keep settings and model equal, in both directions. @param {Settings} settings @param {Model} model */
function tie(settings, model) {
  const names = Object.keys(settings.values);
  const read = () => {
    settings.set(Object.fromEntries(names.map((name) => [name, model.get(name)])), model);
  };
  for (const name of names) model.on(`change:${name}`, read);
  settings.listeners.push((changed, from) => {
    if (from === model) return;
    for (const name of changed) model.set(name, settings.get(name));
    model.save_changes();
  });
  read();
}

/** @param {Element} host @param {Object<string, (root: HTMLElement, content: any,
 *   settings: Settings) => {connect?: (model: Model) => void}|void>} kinds */
function mount(host, kinds) {
  const script = host.querySelector("script[type='application/json']");
  if (!script) return;
  const content = JSON.parse(script.textContent ?? "");
  const settings = new Settings(content.settings);
  const shadow = host.attachShadow({ mode: "open" }); // the page's style stays outside
  const style = document.createElement("style");
  style.textContent = content.css;
  const root = document.createElement("section");
  root.className = "gcelib";
  shadow.append(style, root);
  // JupyterLab would take arrow keys and letters for notebook commands.
  host.setAttribute("data-lm-suppress-shortcuts", "true");
  const view = kinds[content.kind](root, content, settings);
  const meet = () => {
    const model = models().get(content.key);
    if (!model) return;
    document.removeEventListener("gcelib-model", meet);
    tie(settings, model);
    view?.connect?.(model);
  };
  document.addEventListener("gcelib-model", meet);
  meet();
}

/** Every place on this page that waits for the explorer `key`.
 * @param {string} key @param {Parameters<typeof mount>[1]} kinds */
export function start(key, kinds) {
  for (const host of document.querySelectorAll(`.gcelib-explorer[data-key="${key}"]`)) {
    if (!host.shadowRoot) mount(host, kinds);
  }
}
