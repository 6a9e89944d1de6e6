// What both explorers are made of: elements, settings that tell who listens, controls.

/** @param {(tag: string) => Element} create */
const make = (create) =>
  /** @param {string} tag @param {Object<string, any>|null} [attributes]
   * @param {...(Node|string|number)} children @returns {any} */
  (tag, attributes, ...children) => {
    const element = create(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) {
        element.setAttribute(name, value === true ? "" : value);
      }
    }
    element.append(...children.map((child) => (typeof child === "number" ? String(child) : child)));
    return element;
  };

/** html("p", {class: "note", onclick: f}, "text", child): a new element. */
export const html = make((tag) => document.createElement(tag));

/** The same for drawings. */
export const svg = make((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));

/** Set attributes and text of an element, as far as they differ. @param {any} element
 * @param {Object<string, any>} attributes @param {string} [text] */
export function update(element, attributes, text) {
  for (const [name, value] of Object.entries(attributes)) {
    if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
  if (text !== undefined && element.textContent !== text) element.textContent = text;
}

/** Put `children` into `place`; the control that had the focus has it again, or one beside
 * it. Controls are known by their `data-key`.
 * @param {any} place @param {...(Node|string)} children */
export function replace(place, ...children) {
  const active = place.getRootNode().activeElement;
  const key = place.contains(active) ? active.dataset.key : undefined;
  place.replaceChildren(...children);
  if (key === undefined) return;
  const same = place.querySelector(`[data-key="${key}"]:enabled`);
  (same ?? place.querySelector(":enabled"))?.focus({ preventScroll: true });
}

/** @param {any} a @param {any} b */
export const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** @param {number} value */
export const percent = (value) => `${(100 * value).toFixed(1)} %`;

const grouped = new Intl.NumberFormat("en");

/** @param {number} value */
export const whole = (value) => grouped.format(value);

/** The settings of one view; who changes one tells all who listen. */
export class Settings {
  /** @param {Object<string, any>} values */
  constructor(values) {
    this.values = { ...values };
    /** @type {((names: string[], from: any) => void)[]} */
    this.listeners = [];
  }

  /** @param {string} name */
  get(name) {
    return this.values[name];
  }

  /** @param {Object<string, any>} changes @param {any} [from] who changed them */
  set(changes, from = null) {
    const names = Object.keys(changes).filter((name) => !same(this.values[name], changes[name]));
    if (!names.length) return;
    for (const name of names) this.values[name] = changes[name];
    for (const listener of this.listeners) listener(names, from);
  }

  /** Calls `act` now and whenever one of `names` changes.
   * @param {string[]} names @param {() => void} act */
  on(names, act) {
    this.listeners.push((changed) => {
      if (changed.some((name) => names.includes(name))) act();
    });
    act();
  }
}

/** A labelled drop-down for the setting `name`; options are [value, text] pairs.
 * @param {Settings} settings @param {string} name @param {string} title
 * @param {[any, string][]} options @param {Object<string, any>} [also] set with it */
export function dropDown(settings, name, title, options, also = {}) {
  const pick = () => settings.set({ ...also, [name]: options[select.selectedIndex][0] });
  const items = options.map(([, text]) => html("option", {}, text));
  const select = html("select", { name, onchange: pick }, ...items);
  settings.on([name], () => {
    select.selectedIndex = options.findIndex(([value]) => same(value, settings.get(name)));
  });
  return html("label", { class: "control" }, html("span", {}, title), select);
}

/** A labelled slider for the setting `name`: its name is the title alone, its value is
 * read out as `text` has it. `position` and `value` translate between slider and setting.
 * @param {Settings} settings @param {string} name @param {string} title
 * @param {{min: number, max: number, step: number, position?: (v: any) => number,
 *   value?: (p: number) => any, text?: (v: any) => string}} options */
export function slider(settings, name, title, options) {
  const { min, max, step, position = Number, value = Number, text = String } = options;
  const moved = () => settings.set({ [name]: value(input.valueAsNumber) });
  const input = html("input", {
    type: "range", name, min, max, step, "aria-label": title, oninput: moved,
  });
  const shown = html("b", { "aria-hidden": "true" });
  settings.on([name], () => {
    input.value = position(settings.get(name));
    shown.textContent = text(settings.get(name));
    input.setAttribute("aria-valuetext", shown.textContent);
  });
  return html("label", { class: "control" }, html("span", {}, `${title} `, shown), input);
}

/** Offer text or a picture as a file. @param {string} name @param {Blob} blob */
export function download(name, blob) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** The bytes of a base64 text. @param {string} text */
export function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
