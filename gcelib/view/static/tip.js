// What there is to say of a bar, beside it.

import { html } from "./elements.js";

/** @typedef {import("./panel.js").Bar} Bar */

export class Tip {
  constructor() {
    this.element = html("div", { class: "tip", "aria-hidden": "true", hidden: true });
  }

  hide() {
    this.element.hidden = true;
  }

  /** @param {Bar} bar
   * @param {boolean} alone whether there is one diagram, with room on its left */
  show(bar, alone) {
    const lines = bar.lines.map((line) => html("div", {}, line));
    this.element.replaceChildren(...lines);
    this.element.hidden = false;
    const frame = this.element.parentElement.getBoundingClientRect();
    const place = bar.element.getBoundingClientRect();
    const left = this.leftBeside(place, frame, alone);
    this.element.style.left = `${left}px`;
    this.element.style.top = `${Math.max(0, place.top - frame.top)}px`;
  }

  /** Where the tip begins in the frame: to the right of a bar that is on the left, and
   * the other way round.
   * @param {DOMRect} place of the bar
   * @param {DOMRect} frame
   * @param {boolean} alone */
  leftBeside(place, frame, alone) {
    const width = this.element.offsetWidth;
    const left = place.left - frame.left;
    let wished = place.right - frame.left + 8;
    if (left > frame.width / 2) wished = alone ? 50 : left - width - 8;
    return Math.max(0, Math.min(wished, frame.width - width));
  }
}
