// The entry of a page with explorers: the kinds that there are.

import { start } from "./mount.js";
import { reliability } from "./reliability.js";
import { simplex } from "./simplex.js";

/** @param {string} key */
export const show = (key) => start(key, { reliability, simplex });
