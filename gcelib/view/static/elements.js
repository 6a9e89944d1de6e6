// Elements of the page: how they are made, kept up to date and replaced.

/** Gives a new element attributes, listeners (`onclick: f`) and children. An attribute
 * that is true has no value; one that is false, null or undefined is left out.
 * @param {any} element
 * @param {Object<string, any>} attributes
 * @param {(Node|string|number)[]} children */
function furnished(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    const absent = value === false || value === null || value === undefined;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (!absent) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** A new element: html("p", { class: "note", onclick: f }, "text", child).
 * @param {string} tag
 * @param {Object<string, any>} [attributes]
 * @param {...(Node|string|number)} children
 * @returns {any} */
export function html(tag, attributes = {}, ...children) {
  return furnished(document.createElement(tag), attributes, children);
}

/** The same for drawings.
 * @param {string} tag
 * @param {Object<string, any>} [attributes]
 * @param {...(Node|string|number)} children
 * @returns {any} */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return furnished(element, attributes, children);
}

/** A button that says `words`.
 * @param {string} words
 * @param {() => void} onclick
 * @param {Object<string, any>} [attributes]
 * @returns {HTMLButtonElement} */
export function button(words, onclick, attributes = {}) {
  return html("button", { type: "button", ...attributes, onclick }, words);
}

/** The head of a table: an empty corner, and the columns' titles.
 * @param {string[]} titles */
export function tableHead(titles) {
  const cells = titles.map((title) => html("th", { scope: "col" }, title));
  return html("thead", {}, html("tr", {}, html("td"), ...cells));
}

/** A row of a table: its title, and its cells.
 * @param {string} title
 * @param {Node[]} cells
 * @param {Object<string, any>} [attributes] */
export function tableRow(title, cells, attributes = {}) {
  return html("tr", attributes, html("th", { scope: "row" }, title), ...cells);
}

/** Set attributes and text of an element, as far as they differ.
 * @param {any} element
 * @param {Object<string, any>} attributes
 * @param {string} [text] */
export function update(element, attributes, text) {
  for (const [name, value] of Object.entries(attributes)) {
    if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
  if (text !== undefined && element.textContent !== text) element.textContent = text;
}

/** The element inside `place` that has the focus, or null.
 * @param {any} place
 * @returns {any} */
export function focusedIn(place) {
  const active = place.getRootNode().activeElement;
  return place.contains(active) ? active : null;
}

/** Put `children` into `place`. The control that had the focus has it again, or else
 * the first that can; controls are known by their `data-key`.
 * @param {any} place
 * @param {...(Node|string)} children */
export function replace(place, ...children) {
  const key = focusedIn(place)?.dataset.key;
  place.replaceChildren(...children);
  if (key === undefined) return;
  const again = place.querySelector(`[data-key="${CSS.escape(key)}"]:enabled`);
  (again ?? place.querySelector(":enabled"))?.focus({ preventScroll: true });
}
