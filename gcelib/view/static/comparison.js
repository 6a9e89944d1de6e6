// Where two runs disagree: on how many samples, and the way to them.

import { button, html, replace } from "./elements.js";
import { whole } from "./words.js";

/** @typedef {import("./answerers.js").Answer} Answer */

export class Comparison {
  /** @param {import("./settings.js").Settings} settings
   * @param {import("./setup.js").Looks} looks */
  constructor(settings, looks) {
    this.settings = settings;
    this.looks = looks;
    this.element = html("div", { class: "pair" });
  }

  /** @param {Answer} answer */
  draw({ question: { losses: names, pair }, agreement }) {
    if (names.length < 2) replace(this.element);
    else if (!pair || !agreement) replace(this.element, this.opener(names));
    else replace(this.element, ...this.result(names, pair, agreement));
  }

  /** It has the key of the first choice that it opens: there the focus goes.
   * @param {string[]} names */
  opener(names) {
    const open = () => this.settings.set({ pair: [names[0], names.at(-1)] });
    return button("Where do two runs disagree?", open, { "data-key": "One run" });
  }

  /** @param {string[]} names of the runs in view
   * @param {string[]} pair
   * @param {number[]} agreement */
  result(names, pair, agreement) {
    const [one, other] = pair;
    const [both, first, second, neither] = agreement.map(whole);
    const sentence = ` are both right on ${both}, both wrong on ${neither} samples.`;
    const close = () => this.settings.set({ pair: null, selected: null });
    return [
      html("p", {},
        this.choice("One run", 0, names, pair), " and ",
        this.choice("Other run", 1, names, pair), sentence),
      html("p", { class: "buttons" },
        this.wayTo(one, other, first),
        this.wayTo(other, one, second),
        button("Close comparison", close, { "data-key": "close" })),
    ];
  }

  /** The choice of one of the two runs.
   * @param {string} title
   * @param {number} place in the pair
   * @param {string[]} names
   * @param {string[]} pair */
  choice(title, place, names, pair) {
    const options = names.filter((name) => name !== pair[1 - place]);
    const choose = () => {
      const chosen = options[select.selectedIndex];
      const next = place === 0 ? [chosen, pair[1]] : [pair[0], chosen];
      this.settings.set({ pair: next, selected: null });
    };
    const items = options.map((name) => {
      return html("option", { selected: name === pair[place] }, this.looks.label(name));
    });
    const attributes = { "aria-label": title, "data-key": title, onchange: choose };
    const select = html("select", attributes, ...items);
    return select;
  }

  /** The way to the samples that one run alone gets right.
   * @param {string} right
   * @param {string} wrong
   * @param {string} count */
  wayTo(right, wrong, count) {
    const selected = { kind: "disagree", right, wrong };
    const show = () => this.settings.set({ selected, first: 0, detail: null });
    const words = `only ${this.looks.label(right)} right: ${count}`;
    return button(words, show, { "data-key": keyOfWay(right) });
  }

  /** Go back to where the samples were asked for that `right` alone gets right.
   * @param {string} right
   * @returns {boolean} whether it is there */
  focusWayTo(right) {
    const key = CSS.escape(keyOfWay(right));
    const way = this.element.querySelector(`[data-key="${key}"]`);
    way?.focus();
    return Boolean(way);
  }
}

/** @param {string} right */
const keyOfWay = (right) => `only ${right}`;
