// Who answers: the engine here, at once; or, for large sets, the kernel, when it can.

import { bytes, unpacked } from "./decoding.js";
import { Engine } from "./engine.js";
import { same } from "./settings.js";

/** @typedef {import("./mount.js").Model} Model */
/** @typedef {import("./pictures.js").Sent} Sent */
/** @typedef {import("./settings.js").Settings} Settings */

/** What the engine or a kernel says; a kernel sends the pictures of the listed samples.
 * @typedef {import("./engine.js").Answer & {pixels?: Sent}} Answer */

/** How things stand; "gone": there was a kernel, "alone": there is none.
 * @typedef {"fresh"|"waiting"|"late"|"gone"|"alone"} State */

/** Milliseconds after which an answer is late. */
const LATE = 10_000;

/** Whoever can answer tells `show` the newest answer and `tell` how things stand.
 * @param {any} content
 * @param {Settings} settings
 * @param {(answer: Answer) => void} show
 * @param {(state: State) => void} tell
 * @returns {{connect(model: Model): void}} */
export function answerer(content, settings, show, tell) {
  if (!content.data) return new KernelAnswerer(settings, show, tell);
  const engine = new Engine(dataOf(content));
  settings.on(settings.names, () => {
    show(engine.answer(/** @type {any} */ ({ ...settings.values })));
  });
  tell("fresh");
  return { connect() {} }; // a kernel may be there, but is not asked
}

class KernelAnswerer {
  /** @param {Settings} settings
   * @param {(answer: Answer) => void} show
   * @param {(state: State) => void} tell */
  constructor(settings, show, tell) {
    this.settings = settings;
    this.show = show;
    this.tell = tell;
    /** @type {number|undefined} */
    this.alarm = undefined;
    tell("alone");
  }

  /** @param {Model} model */
  connect(model) {
    const look = () => this.take(model.get("reply"));
    this.settings.on(this.settings.names, () => this.wait());
    model.on("change:reply", look);
    for (const end of ["comm_live_update", "destroy", "comm:close"]) {
      model.on(end, () => this.turn("gone"));
    }
    look();
  }

  wait() {
    this.turn("waiting");
    this.alarm = setTimeout(() => this.tell("late"), LATE);
  }

  /** A reply to other settings is on its way behind them: it is passed over.
   * @param {any} reply {} before the first answer */
  take(reply) {
    if (!reply.question || !same(reply.question, this.settings.values)) return;
    this.turn("fresh");
    this.show(reply);
  }

  /** Nothing is waited for any more: say how things stand.
   * @param {State} state */
  turn(state) {
    clearTimeout(this.alarm);
    this.tell(state);
  }
}

/** What the engine takes, out of what came with the page.
 * @param {any} content
 * @returns {import("./engine.js").Data} */
function dataOf({ setup, data }) {
  return {
    nSamples: setup.n_samples,
    nClasses: setup.class_names.length,
    labels: new Int32Array(bytes(data.labels).buffer),
    tolerance: data.tolerance,
    predicts: data.predicts,
    runs: data.runs.map(runOf),
  };
}

/** @param {any} run
 * @returns {import("./engine.js").Run} */
function runOf({ name, logits, calibrators }) {
  return {
    name,
    logits: new Float32Array(bytes(logits).buffer),
    calibrators: mapped(calibrators, (fitted) => mapped(fitted, unpacked)),
  };
}

/** The same names, with what `make` makes of their values.
 * @param {Object<string, any>} values
 * @param {(value: any) => any} make */
function mapped(values, make) {
  const pairs = Object.entries(values).map(([name, value]) => [name, make(value)]);
  return Object.fromEntries(pairs);
}
