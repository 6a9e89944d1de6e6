// Who answers: the engine here, at once; or, for large sets, the kernel, when it can.

import { Engine } from "./engine.js";
import { bytes, same } from "./page.js";

/** Numbers that travelled as text, back in their arrays. @param {any} value @returns {any} */
function unpacked(value) {
  if (value?.f64 === undefined) return value;
  const all = Array.from(new Float64Array(bytes(value.f64).buffer));
  if (value.shape.length < 2) return all;
  const [rows, columns] = value.shape;
  return Array.from({ length: rows }, (_, i) => all.slice(i * columns, (i + 1) * columns));
}

/** @param {any} content @returns {import("./engine.js").Data} */
export function dataOf({ setup, data }) {
  return {
    nSamples: setup.n_samples,
    nClasses: setup.class_names.length,
    labels: new Int32Array(bytes(data.labels).buffer),
    tolerance: data.tolerance,
    predicts: data.predicts,
    runs: data.runs.map((/** @type {any} */ run) => ({
      name: run.name,
      logits: new Float32Array(bytes(run.logits).buffer),
      calibrators: Object.fromEntries(Object.entries(run.calibrators).map(([name, fitted]) => [
        name,
        Object.fromEntries(Object.entries(fitted).map(([key, value]) => [key, unpacked(value)])),
      ])),
    })),
  };
}

/** Tells `show` the newest answer and `tell` how things stand: "fresh", "waiting", "late",
 * "gone" (there was a kernel) or "alone" (there is none).
 * @param {any} content @param {import("./page.js").Settings} settings
 * @param {(answer: any) => void} show @param {(state: string) => void} tell */
export function answerer(content, settings, show, tell) {
  const names = Object.keys(settings.values);
  if (content.data) {
    const engine = new Engine(dataOf(content));
    settings.on(names, () => show(engine.answer(/** @type {any} */ ({ ...settings.values }))));
    tell("fresh");
    return { connect() {} };
  }
  tell("alone");
  /** @type {number|undefined} */
  let alarm;
  return {
    /** @param {any} model */
    connect(model) {
      const wait = () => {
        clearTimeout(alarm);
        tell("waiting");
        alarm = setTimeout(() => tell("late"), 10_000);
      };
      const look = () => {
        const reply = model.get("reply");
        if (!reply.question) return;
        if (!same(reply.question, settings.values)) return;
        clearTimeout(alarm);
        tell("fresh");
        show(reply);
      };
      settings.on(names, wait);
      model.on("change:reply", look);
      for (const end of ["comm_live_update", "destroy", "comm:close"]) {
        model.on(end, () => {
          clearTimeout(alarm);
          tell("gone");
        });
      }
      look();
    },
  };
}
