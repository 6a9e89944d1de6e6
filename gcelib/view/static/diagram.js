// The reliability diagram: its panels, the walk from bar to bar, and the bar in hand.

import { focusedIn, html, update } from "./elements.js";
import { SMALL, WIDE } from "./frame.js";
import { Panel } from "./panel.js";
import { classInView } from "./setup.js";
import { Tip } from "./tip.js";

/** @typedef {import("./answerers.js").Answer} Answer */
/** @typedef {import("./engine.js").Row} Row */
/** @typedef {import("./frame.js").Frame} Frame */
/** @typedef {import("./panel.js").Bar} Bar */

/** Runs that share one panel; more have one each. */
const MOST_IN_ONE = 3;

/** How keys go from bar to bar: among those of one run or of one bin, and how far. */
const WALK = {
  ArrowLeft: { among: "run", by: -1 },
  ArrowRight: { among: "run", by: 1 },
  Home: { among: "run", by: -Infinity },
  End: { among: "run", by: Infinity },
  ArrowUp: { among: "bin", by: -1 },
  ArrowDown: { among: "bin", by: 1 },
};

export class Diagram {
  /** @param {import("./settings.js").Settings} settings
   * @param {import("./setup.js").Setup} setup
   * @param {import("./setup.js").Looks} looks
   * @param {string} prefix of ids in the drawings */
  constructor(settings, setup, looks, prefix) {
    this.settings = settings;
    this.setup = setup;
    this.looks = looks;
    this.prefix = prefix;
    /** The panels that have been drawn, by their runs. @type {Map<string, Panel>} */
    this.panels = new Map();
    /** Those in view. @type {Bar[]} */
    this.bars = [];
    /** The key of the bar that Tab reaches. @type {string|undefined} */
    this.current = undefined;
    this.tip = new Tip();
    this.charts = html("div", { class: "charts" });
    this.element = html("div", { class: "frame" }, this.charts, this.tip.element);
    this.listen();
  }

  listen() {
    const { charts } = this;
    /** @param {Event} event */
    const showTip = (event) => {
      const bar = this.barOf(event);
      if (bar) this.tip.show(bar, charts.childElementCount === 1);
    };
    const hideTip = () => this.tip.hide();
    charts.addEventListener("pointerover", showTip);
    charts.addEventListener("focusin", showTip);
    charts.addEventListener("pointerleave", hideTip);
    charts.addEventListener("focusout", hideTip);
    charts.addEventListener("click", (/** @type {Event} */ event) => {
      const bar = this.barOf(event);
      if (!bar) return;
      this.makeCurrent(bar, true);
      this.select(bar);
    });
    charts.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      const bar = this.currentBar();
      if (bar && this.obey(event.key, bar)) event.preventDefault();
    });
  }

  /** @param {Event} event */
  barOf(event) {
    return this.bars.find(({ element }) => element === event.target);
  }

  currentBar() {
    return this.bars.find(({ key }) => key === this.current);
  }

  /** Do what a key means on a bar.
   * @param {string} key
   * @param {Bar} bar
   * @returns {boolean} whether it means something */
  obey(key, bar) {
    if (Object.hasOwn(WALK, key)) {
      const { among, by } = WALK[/** @type {keyof typeof WALK} */ (key)];
      this.makeCurrent(this.barFrom(bar, among, by), true);
    } else if (key === "Enter" || key === " ") {
      this.select(bar);
    } else if (key === "Escape") {
      this.settings.set({ selected: null });
    } else {
      return false;
    }
    return true;
  }

  /** The bar that is so many steps from `bar`, or the last on the way.
   * @param {Bar} bar
   * @param {string} among
   * @param {number} by */
  barFrom(bar, among, by) {
    const list = this.bars.filter((other) => {
      return among === "run" ? other.row.name === bar.row.name : other.bin === bar.bin;
    });
    const wished = list.indexOf(bar) + by;
    return list[Math.max(0, Math.min(wished, list.length - 1))];
  }

  /** Make `bar` the one that Tab reaches, and perhaps go there.
   * @param {Bar|undefined} bar
   * @param {boolean} focus */
  makeCurrent(bar, focus) {
    for (const other of this.bars) {
      update(other.element, { tabindex: other === bar ? 0 : -1 });
    }
    this.current = bar?.key;
    if (focus) bar?.element.focus({ preventScroll: true });
  }

  focus() {
    this.makeCurrent(this.currentBar(), true);
  }

  /** @param {Bar} bar */
  select({ row, low, high }) {
    const selected = { kind: "bar", run: row.name, low, high };
    this.settings.set({ selected, first: 0, detail: null });
  }

  /** @param {Answer} answer */
  draw({ rows, question }) {
    const hadFocus = focusedIn(this.charts) !== null;
    const at = rows.length > MOST_IN_ONE ? SMALL : WIDE;
    const groups = at === SMALL ? rows.map((row) => [row]) : [rows];
    const panels = groups.map((group) => this.panelOf(group, at));
    const className = classInView(this.setup, question);
    const most = Math.max(1, ...rows.flatMap(({ counts }) => counts));
    panels.forEach((panel, i) => panel.draw(groups[i], question, className, most));
    this.show(panels.map(({ element }) => element), at);
    this.bars = panels.flatMap(({ bars }) => bars);
    this.tip.hide();
    this.makeCurrent(this.currentBar() ?? this.bars.at(-1), hadFocus);
  }

  /** @param {Row[]} rows
   * @param {Frame} at */
  panelOf(rows, at) {
    const names = rows.map(({ name }) => name);
    const key = JSON.stringify([at.width, names]);
    const known = this.panels.get(key);
    if (known) return known;
    const looks = names.map((name) => this.looks.of(name));
    const panel = new Panel(at, `${this.prefix}-${this.panels.size}`, looks);
    this.panels.set(key, panel);
    return panel;
  }

  /** Put the panels on the page, unless they are there.
   * @param {Element[]} elements
   * @param {Frame} at */
  show(elements, at) {
    const there = [...this.charts.children];
    const known = elements.length === there.length
      && elements.every((element, i) => element === there[i]);
    if (known) return;
    this.charts.classList.toggle("many", at === SMALL);
    this.charts.replaceChildren(...elements);
  }

  /** Mark the bars in which the selected samples are. */
  markSelected() {
    const chosen = this.settings.get("selected");
    for (const { element, row, low, high } of this.bars) {
      const pressed = chosen?.kind === "bar" && chosen.run === row.name
        && low < chosen.high - 1e-9 && high > chosen.low + 1e-9;
      update(element, { "aria-pressed": pressed });
    }
  }
}
