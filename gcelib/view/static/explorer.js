// The entry of a page with explorers: the kinds that there are. Who is who:
//   both explorers   mount, settings, controls, elements, decoding
//   reliability      reliability says what there is and what is drawn again when;
//                    setup, words, choices, legend (textures), diagram (panel, frame,
//                    axes, textures, tip), numbers, notes, comparison,
//                    samples (sample, pictures), saving
//   its answers      answerers, engine (scores, bins, band, formulas, softmax, search)
//   simplex          simplex, triangle (plane, shading), risks
//   a kernel         link is what its widget loads

import { start } from "./mount.js";
import { reliability } from "./reliability.js";
import { simplex } from "./simplex.js";

/** @param {string} key */
export const show = (key) => start(key, { reliability, simplex });
