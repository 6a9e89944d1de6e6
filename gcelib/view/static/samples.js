// The samples of the selected bar, or those on which two runs disagree: a page of
// cards, or one sample enlarged.

import { button, focusedIn, html, replace } from "./elements.js";
import { card, enlarged } from "./sample.js";
import { classInView } from "./setup.js";
import { quantity, whole } from "./words.js";

/** @typedef {import("./answerers.js").Answer} Answer */
/** @typedef {import("./engine.js").Question} Question */
/** @typedef {NonNullable<Answer["samples"]>} Found */
/** @typedef {NonNullable<Answer["detail"]>} Detail */
/** @typedef {NonNullable<Question["selected"]>} Selected */

export class Samples {
  /** @param {import("./settings.js").Settings} settings
   * @param {import("./setup.js").Setup} setup
   * @param {import("./setup.js").Looks} looks
   * @param {import("./pictures.js").Pictures} pictures
   * @param {(selected: Selected) => void} closed sees to the focus afterwards */
  constructor(settings, setup, looks, pictures, closed) {
    this.settings = settings;
    this.setup = setup;
    /** Of each sample its number among all. */
    this.numbers = setup.drawn ? new Int32Array(bytes(setup.drawn).buffer) : null;
    this.looks = looks;
    this.pictures = pictures;
    this.closed = closed;
    this.element = html("div", {
      class: "samples", role: "region", "aria-label": "Samples",
    });
  }

  /** @param {Answer} answer */
  draw(answer) {
    const { samples: found, detail, question } = answer;
    if (!found || !question.selected) this.drawHint();
    else if (detail) this.drawEnlarged(answer, found, detail);
    else this.drawCards(answer, found, question.selected);
  }

  drawHint() {
    const words = "Click a bar, or press Enter on it, to see its samples.";
    replace(this.element, html("p", { class: "note" }, words));
  }

  /** @param {Answer} answer
   * @param {Found} found
   * @param {Selected} selected */
  drawCards({ question, pixels }, found, selected) {
    const { class_names: names } = this.setup;
    // A disagreement is one of top labels, whatever class is in view.
    const ofBar = selected.kind === "bar";
    const className = ofBar ? classInView(this.setup, question) : null;
    const cards = found.index.map((i, place) => {
      const sample = {
        index: i,
        label: found.label[place],
        prediction: found.prediction[place],
        prob: found.prob[place],
      };
      const picture = this.pictures.small(i, place, pixels);
      const enlarge = () => this.settings.set({ detail: i });
      return html("li", {}, card(sample, names, className, picture, enlarge));
    });
    replace(
      this.element,
      html("p", {}, this.title(question, found, selected, className)),
      this.tools(question, found, selected),
      html("ol", { class: "cards" }, ...cards),
    );
  }

  /** Which samples they are, and how many.
   * @param {Question} question
   * @param {Found} found
   * @param {Selected} selected
   * @param {string|null} className */
  title(question, { count, wrong, index }, selected, className) {
    const { looks } = this;
    const { first, errors_only: errorsOnly } = question;
    const some = index.length > 0 && index.length < count;
    const last = first + index.length;
    const range = some ? ` Shown: ${first + 1} to ${last}, worst first.` : "";
    if (selected.kind === "disagree") {
      return `${looks.label(selected.right)} is right, `
        + `${looks.label(selected.wrong)} is wrong: ${whole(count)} samples.${range}`;
    }
    const bounds = `from ${selected.low.toFixed(3)} to ${selected.high.toFixed(3)}`;
    const kind = errorsOnly ? "errors" : `samples, ${whole(wrong)} wrong`;
    return `${looks.label(selected.run)}, ${quantity(className)} ${bounds}: `
      + `${whole(count)} ${kind}.${range}`;
  }

  /** What can be done with the samples.
   * @param {Question} question
   * @param {Found} found
   * @param {Selected} selected */
  tools(question, { count, index }, selected) {
    const { first, n_images: step } = question;
    const turn = (/** @type {number} */ to) => {
      this.settings.set({ first: Math.max(0, to) });
    };
    const close = () => {
      this.settings.set({ selected: null });
      this.closed(selected);
    };
    const isFirst = first === 0;
    const isLast = first + index.length >= count;
    return html(
      "p", { class: "buttons" },
      ...(selected.kind === "bar" ? [this.errorsOnly(question)] : []),
      keyed(`Previous ${step}`, () => turn(first - step), isFirst),
      keyed(`Next ${step}`, () => turn(first + step), isLast),
      keyed("Close samples", close),
    );
  }

  /** @param {Question} question */
  errorsOnly({ errors_only: checked }) {
    const toggle = () => this.settings.set({ errors_only: box.checked, first: 0 });
    const attributes = { type: "checkbox", "data-key": "errors", onchange: toggle };
    const box = html("input", attributes);
    box.checked = checked;
    return html("label", {}, box, " errors only");
  }

  /** @param {Answer} answer
   * @param {Found} found
   * @param {Detail} detail */
  drawEnlarged({ question, pixels }, found, detail) {
    const hadFocus = focusedIn(this.element) !== null;
    const i = detail.index;
    const leave = () => {
      this.settings.set({ detail: null });
      this.element.querySelector(`[data-sample="${i}"]`)?.focus();
    };
    const back = button("Back to the samples", leave, { "data-key": "back" });
    const picture = this.pictures.large(i, found.index.indexOf(i), pixels);
    const runs = question.losses.map((name) => this.looks.label(name));
    const number = this.numbers ? this.numbers[i] : i;
    const names = this.setup.class_names;
    const sample = enlarged(detail, number, names, runs, picture);
    replace(this.element, back, sample);
    if (hadFocus) back.focus({ preventScroll: true });
  }
}

/** A button that is known by its words when it is drawn again.
 * @param {string} words
 * @param {() => void} onclick
 * @param {boolean} [disabled] */
const keyed = (words, onclick, disabled = false) =>
  button(words, onclick, { "data-key": words, disabled });
