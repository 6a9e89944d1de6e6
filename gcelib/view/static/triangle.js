// The triangle of all predictions: its coloured surface, the minimiser, and the truth,
// which pointer and keys move.

import { html, svg } from "./elements.js";
import {
  CORNERS, HEIGHT, nearestHundredths, placeOf, probabilitiesAt, WIDTH,
} from "./plane.js";
import { Shading } from "./shading.js";

/** @typedef {import("./risks.js").Asked} Asked */
/** @typedef {import("./risks.js").Found} Found */

/** How keys move the truth, for one step. @type {Object<string, number[]>} */
const MOVES = {
  ArrowLeft: [1, -1, 0],
  ArrowRight: [-1, 1, 0],
  ArrowUp: [-0.5, -0.5, 1],
  ArrowDown: [0.5, 0.5, -1],
};
const STEP = 0.02;
const LONG_STEP = 0.1; // with the shift key

export class Triangle {
  /** @param {import("./settings.js").Settings} settings
   * @param {import("./simplex.js").SimplexSetup} setup */
  constructor(settings, setup) {
    this.settings = settings;
    this.losses = new Map(setup.losses);
    this.shading = new Shading(setup.steps, setup.colors);
    this.best = svg("path", { d: "M0,-9 L9,0 L0,9 L-9,0 Z", class: "best" });
    this.truth = svg("circle", {
      r: 8, class: "truth", tabindex: 0, role: "slider",
      "aria-valuemin": 0, "aria-valuemax": 1,
      "aria-label": "True class probabilities; left and right trade class 1 against 2, "
        + "up and down raise and lower class 3",
    });
    this.overlay = svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": "Simplex" },
      ...cornerNames(), this.best, this.truth,
    );
    this.element = html("div", { class: "simplex" }, this.shading.canvas, this.overlay);
    this.followPointer();
    this.followKeys();
  }

  /** @param {Found} found
   * @param {Asked} asked */
  draw(found, { loss, truth }) {
    this.shading.draw(found, `Risk surface of ${this.losses.get(loss)}`);
    this.best.setAttribute("visibility", found.best ? "visible" : "hidden");
    if (found.best) putAt(this.best, found.best);
    putAt(this.truth, truth);
    const words = truth.map((value, k) => `class ${k + 1}: ${value.toFixed(2)}`);
    this.truth.setAttribute("aria-valuenow", truth[2]);
    this.truth.setAttribute("aria-valuetext", words.join(", "));
  }

  /** @param {number[]} p outside the triangle, some are negative */
  moveTruth(p) {
    this.settings.set({ truth: nearestHundredths(p) });
  }

  followPointer() {
    const { overlay } = this;
    const moveHere = (/** @type {PointerEvent} */ event) => {
      const box = overlay.getBoundingClientRect();
      const left = ((event.clientX - box.left) * WIDTH) / box.width;
      const top = ((event.clientY - box.top) * HEIGHT) / box.height;
      this.moveTruth(probabilitiesAt(left, top));
    };
    overlay.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      overlay.setPointerCapture(event.pointerId);
      this.truth.focus({ preventScroll: true });
      moveHere(event);
      event.preventDefault();
    });
    overlay.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (overlay.hasPointerCapture(event.pointerId)) moveHere(event);
    });
  }

  followKeys() {
    this.truth.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (!Object.hasOwn(MOVES, event.key)) return;
      event.preventDefault();
      const step = event.shiftKey ? LONG_STEP : STEP;
      /** @type {number[]} */
      const truth = this.settings.get("truth");
      const moved = truth.map((value, k) => value + step * MOVES[event.key][k]);
      if (moved.every((value) => value > -1e-9)) this.moveTruth(moved);
    });
  }
}

function cornerNames() {
  return CORNERS.map(([left, top], k) => {
    const y = k === 2 ? top - 10 : top + 22; // above the upper corner, below the others
    return svg("text", { x: left, y, "text-anchor": "middle" }, `class ${k + 1}`);
  });
}

/** @param {SVGElement} mark
 * @param {number[]} p */
function putAt(mark, p) {
  mark.setAttribute("transform", `translate(${placeOf(p)})`);
}
