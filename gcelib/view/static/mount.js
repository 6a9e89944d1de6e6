// Puts an explorer where its picture is, and ties it to a kernel's model if one comes.

import { Settings } from "./settings.js";

/** A kernel's widget, as anywidget gives it.
 * @typedef {{get: (name: string) => any, set: (name: string, value: any) => void,
 *   save_changes: () => void, on: (event: string, act: () => void) => void}} Model */

/** What makes an explorer of one kind; the result is told of the kernel's model.
 * @typedef {(root: HTMLElement, content: any, settings: Settings) =>
 *   {connect?: (model: Model) => void}|void} Maker */

/** Models of this page's kernels, by key. Page-wide: every output has its own script.
 * @returns {Map<string, Model>} */
function models() {
  const page = /** @type {any} */ (globalThis);
  page.gcelibModels ??= new Map();
  return page.gcelibModels;
}

/** A kernel made an explorer: let its views find it.
 * @param {Model} model */
export function announce(model) {
  const key = model.get("key");
  models().set(key, model);
  document.dispatchEvent(new CustomEvent("gcelib-model", { detail: key }));
}

/** Fill every place on this page that waits for the explorer `key`.
 * @param {string} key
 * @param {Object<string, Maker>} kinds */
export function start(key, kinds) {
  for (const host of document.querySelectorAll(`.gcelib-explorer[data-key="${key}"]`)) {
    if (!host.shadowRoot) mount(host, kinds);
  }
}

/** @param {Element} host
 * @param {Object<string, Maker>} kinds */
function mount(host, kinds) {
  const script = host.querySelector("script[type='application/json']");
  if (!script) return;
  const content = JSON.parse(script.textContent ?? "");
  const settings = new Settings(content.settings);
  const root = rootIn(host, content.css);
  const view = kinds[content.kind](root, content, settings);
  whenThereIs(content.key, (model) => {
    tie(settings, model);
    view?.connect?.(model);
  });
}

/** Where the explorer is drawn; the page's style stays outside.
 * @param {Element} host
 * @param {string} css */
function rootIn(host, css) {
  const shadow = host.attachShadow({ mode: "open" });
  const style = document.createElement("style");
  style.textContent = css;
  const root = document.createElement("section");
  root.className = "gcelib";
  shadow.append(style, root);
  // JupyterLab would take arrow keys and letters for notebook commands.
  host.setAttribute("data-lm-suppress-shortcuts", "true");
  return root;
}

/** Calls `meet` once the kernel's model is there, perhaps now, perhaps never.
 * @param {string} key
 * @param {(model: Model) => void} meet */
function whenThereIs(key, meet) {
  const look = () => {
    const model = models().get(key);
    if (!model) return;
    document.removeEventListener("gcelib-model", look);
    meet(model);
  };
  document.addEventListener("gcelib-model", look);
  look();
}

/** Keep settings and model equal, in both directions.
 * @param {Settings} settings
 * @param {Model} model */
function tie(settings, model) {
  const { names } = settings;
  const read = () => {
    const values = names.map((name) => [name, model.get(name)]);
    settings.set(Object.fromEntries(values), model);
  };
  for (const name of names) model.on(`change:${name}`, read);
  settings.listeners.push((changed, from) => {
    if (from === model) return;
    for (const name of changed) model.set(name, settings.get(name));
    model.save_changes();
  });
  read();
}
