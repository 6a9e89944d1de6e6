// The settings of one view: who changes one tells all who listen.

/** Whether two values of a setting, or two answers, hold the same.
 * @param {any} a
 * @param {any} b */
export const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

export class Settings {
  /** @param {Object<string, any>} values */
  constructor(values) {
    this.values = { ...values };
    this.names = Object.keys(values);
    /** @type {((names: string[], from: any) => void)[]} */
    this.listeners = [];
  }

  /** @param {string} name */
  get(name) {
    return this.values[name];
  }

  /** @param {Object<string, any>} changes
   * @param {any} [from] who changed them */
  set(changes, from = null) {
    const changed = Object.keys(changes).filter(
      (name) => !same(this.values[name], changes[name]),
    );
    if (!changed.length) return;
    for (const name of changed) this.values[name] = changes[name];
    for (const listener of this.listeners) listener(changed, from);
  }

  /** Calls `act` now and whenever one of `names` changes.
   * @param {string[]} names
   * @param {() => void} act */
  on(names, act) {
    this.listeners.push((changed) => {
      if (changed.some((name) => names.includes(name))) act();
    });
    act();
  }
}
