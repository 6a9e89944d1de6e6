// What a kernel's explorer loads in the notebook's page: its views are elsewhere.

import { announce } from "./mount.js";

export default {
  /** @param {{model: import("./mount.js").Model}} arguments_ */
  initialize({ model }) {
    announce(model);
  },
  /** @param {{el: HTMLElement}} arguments_ */
  render({ el }) {
    el.textContent = "Show the explorer by itself: make it a cell's last line.";
  },
};
