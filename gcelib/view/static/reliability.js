// ReliabilityExplorer's view: what it is made of, and what is drawn again when. It
// computes nothing: an answerer does, and every control only changes a setting.

import { answerer } from "./answerers.js";
import { choices } from "./choices.js";
import { Comparison } from "./comparison.js";
import { Diagram } from "./diagram.js";
import { button, html } from "./elements.js";
import { Legend } from "./legend.js";
import { Notes } from "./notes.js";
import { NumberTable, SpokenNumbers } from "./numbers.js";
import { Pictures } from "./pictures.js";
import { Samples } from "./samples.js";
import { saveCsv, savePng } from "./saving.js";
import { Looks } from "./setup.js";
import { eceSentence } from "./words.js";

/** @typedef {import("./answerers.js").Answer} Answer */
/** @typedef {import("./answerers.js").State} State */
/** @typedef {import("./settings.js").Settings} Settings */

/** How things stand, as it is told to the reader.
 * @type {Record<State, string>} */
const STATES = {
  fresh: "",
  waiting: "Working …",
  late: "No answer for ten seconds: the kernel is busy, or gone. "
    + "Shown is the last answer.",
  gone: "The kernel is gone: shown is the last answer. Run the cell again.",
  alone: "So many logits are answered by a kernel, and none is here: "
    + "run the cell again. Until then, a picture:",
};

let views = 0;

/** @param {HTMLElement} root
 * @param {any} content what `ReliabilityExplorer._content` made
 * @param {Settings} settings */
export function reliability(root, content, settings) {
  const view = new ReliabilityView(root, content, settings);
  const answers = answerer(
    content, settings,
    (answer) => view.show(answer),
    (state) => view.tell(state),
  );
  view.pictures.ready.then(() => view.showPictures());
  return answers;
}

class ReliabilityView {
  /** @param {HTMLElement} root
   * @param {any} content
   * @param {Settings} settings */
  constructor(root, content, settings) {
    const { setup, data, images } = content;
    const prefix = `gcelib-${++views}`;
    const looks = new Looks(setup.runs);
    /** The latest. @type {Answer|null} */
    this.answer = null;
    this.root = root;
    this.setup = setup;
    this.looks = looks;
    this.pictures = new Pictures(images);
    this.notice = html("p", { class: "notice", role: "alert" });
    this.notes = new Notes(setup, looks, data?.runs ?? []);
    this.legend = new Legend(looks, `${prefix}-legend`);
    this.diagram = new Diagram(settings, setup, looks, prefix);
    this.table = new NumberTable(setup, looks);
    this.spoken = new SpokenNumbers(looks, setup);
    this.comparison = new Comparison(settings, looks);
    this.samples = new Samples(settings, setup, looks, this.pictures, (selected) => {
      this.goBackFrom(selected);
    });
    this.drawings = this.allDrawings();
    root.setAttribute("aria-label", "Reliability explorer");
    this.living = [
      choices(settings, setup), this.notes.element, this.diagramAndNumbers(),
    ];
    // The picture that scripts replace, where nobody answers.
    this.picture = document.createElement("slot");
    root.append(this.living[0], this.notice, ...this.living.slice(1), this.picture);
  }

  diagramAndNumbers() {
    const { legend, diagram, table, spoken, comparison, samples } = this;
    const left = [legend.element, diagram.element, this.saveButtons()];
    const right = [table.element, spoken.element, comparison.element, samples.element];
    return html(
      "div", { class: "main" },
      html("div", { class: "left" }, ...left),
      html("div", { class: "right" }, ...right),
    );
  }

  saveButtons() {
    const { setup, looks } = this;
    const picture = () => {
      if (!this.answer) return;
      const { rows, question } = this.answer;
      const caption = eceSentence(rows, looks, question, setup);
      savePng(this.legend.element, this.diagram.charts, caption);
    };
    const table = () => {
      if (this.answer) saveCsv(this.answer, looks, setup);
    };
    const buttons = [button("Save PNG", picture), button("Save CSV", table)];
    return html("div", { class: "buttons" }, ...buttons);
  }

  /** In the order of drawing; each with what it hangs on. */
  allDrawings() {
    // The engine gives the same row as long as nothing in it changes.
    const rows = (/** @type {Answer} */ answer) => answer.rows;
    const names = (/** @type {Answer} */ answer) => answer.rows.map(({ name }) => name);
    return [
      whenNew(names, (answer) => this.legend.draw(answer)),
      whenNew(rows, (answer) => this.diagram.draw(answer)),
      () => this.diagram.markSelected(),
      whenNew(rows, (answer) => this.table.draw(answer)),
      whenNew(rows, (answer) => this.notes.draw(answer)),
      whenNew(rows, (answer) => this.spoken.draw(answer)),
      whenNew(compared, (answer) => this.comparison.draw(answer)),
      whenNew(listed, (answer) => this.samples.draw(answer)),
    ];
  }

  /** @param {Answer} answer */
  show(answer) {
    this.answer = answer;
    for (const draw of this.drawings) draw(answer);
  }

  /** The images have come: cards without them are drawn again. */
  showPictures() {
    if (this.answer) this.samples.draw(this.answer);
  }

  /** @param {State} state */
  tell(state) {
    const busy = state === "waiting" || state === "late";
    this.root.dataset.state = state;
    this.root.setAttribute("aria-busy", String(busy));
    this.notice.textContent = STATES[state];
    for (const element of this.living) element.hidden = state === "alone";
    this.picture.hidden = state !== "alone";
  }

  /** Where samples were asked for, the focus is again when they are closed.
   * @param {NonNullable<Answer["question"]["selected"]>} selected */
  goBackFrom(selected) {
    const isBack = selected.kind === "disagree"
      && this.comparison.focusWayTo(selected.right);
    if (!isBack) this.diagram.focus();
  }
}

/** A drawing that is made again when one of the things that it hangs on is new.
 * @param {(answer: Answer) => any[]} things compared one by one
 * @param {(answer: Answer) => void} draw
 * @returns {(answer: Answer) => void} */
function whenNew(things, draw) {
  /** @type {any[]|null} */
  let drawn = null;
  return (answer) => {
    const present = things(answer);
    if (drawn && sameThings(drawn, present)) return;
    drawn = present;
    draw(answer);
  };
}

/** @param {any[]} some
 * @param {any[]} others */
const sameThings = (some, others) =>
  some.length === others.length && some.every((thing, i) => thing === others[i]);

/** What the comparison of two runs hangs on. As text: each answer has lists of its own.
 * @param {Answer} answer */
function compared({ question: { losses, pair }, agreement }) {
  return [JSON.stringify([losses, pair, agreement])];
}

/** What the samples hang on.
 * @param {Answer} answer */
function listed({ question, samples, detail }) {
  const { selected, first, errors_only: errorsOnly, losses, class_index: k } = question;
  return [JSON.stringify([selected, first, errorsOnly, losses, k, samples, detail])];
}
