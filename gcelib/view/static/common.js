// Helpers shared by both explorers. widgets.py puts this file in front of reliability.js or simplex.js: one ES module each.

const make = (create) => (tag, attributes, ...children) => {
  const element = create(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};
/** html("p", {class: "note", onclick: f}, "text", child): a new element. svg() is the same for drawings. */
const html = make((tag) => document.createElement(tag));
const svg = make((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));

/** The view's tie to its model. `aria-busy` says that the kernel still owes the picture of the newest settings:
 * ipywidgets keeps one message in flight and merges what is set meanwhile, so dragging never builds a queue. */
function tie(model, root) {
  const listeners = [];
  const on = (names, act) => {
    for (const name of names) {
      model.on(`change:${name}`, act);
      listeners.push([`change:${name}`, act]);
    }
    act();
  };
  const waiting = () => Object.entries(model.get("answer").settings).some(([name, value]) => !same(model.get(name), value));
  on(["answer", ...Object.keys(model.get("answer").settings)], () => root.setAttribute("aria-busy", waiting()));
  return {
    on,
    get: (name) => model.get(name),
    set(name, value) {
      model.set(name, value);
      model.save_changes();
    },
    release: () => listeners.forEach(([event, act]) => model.off(event, act)),
  };
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** A labelled drop-down for the trait `name`; options are [value, text] pairs. */
function dropDown(view, name, title, options) {
  const pick = () => view.set(name, options[select.selectedIndex][0]);
  const select = html("select", { name, onchange: pick }, ...options.map(([, text]) => html("option", {}, text)));
  view.on([name], () => (select.selectedIndex = options.findIndex(([value]) => value === view.get(name))));
  return html("label", {}, html("span", {}, title), select);
}

/** A labelled slider for the trait `name`. `position` and `value` translate between the two; `text` is what is read out. */
function slider(view, name, title, { min, max, step, position = Number, value = Number, text = String }) {
  const moved = () => view.set(name, value(input.valueAsNumber));
  const input = html("input", { type: "range", name, min, max, step, oninput: moved });
  const shown = html("b", {}); // an <output> would take the label from the slider
  view.on([name], () => {
    input.value = position(view.get(name));
    shown.textContent = text(view.get(name));
    input.setAttribute("aria-valuetext", shown.textContent);
  });
  return html("label", {}, html("span", {}, title, " ", shown), input);
}

/** The frame of an explorer. JupyterLab would take arrow keys and letters for notebook commands: not from what has the focus here. */
function frame(el, title) {
  const root = html("section", { class: "gcelib", "aria-label": title });
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  el.append(root);
  return root;
}
