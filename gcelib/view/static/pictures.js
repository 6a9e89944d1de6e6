// The samples' images: from bytes that came with the page, or with a kernel's answer.

import { bytes, html } from "./page.js";

/** Undo zlib. @param {Uint8Array} packed @returns {Promise<Uint8Array>} */
async function inflate(packed) {
  const blob = new Blob([/** @type {any} */ (packed)]);
  const stream = blob.stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Pixels that came with a kernel's answer.
 * @typedef {{buffer: ArrayBuffer, byteOffset: number, byteLength: number}} Sent */

/** Images that are kept drawn. */
const MOST_DRAWN = 200;

export class Pictures {
  /** @param {{shape: number[], index: string|null, deflated: string}|null} images */
  constructor(images) {
    this.shape = images?.shape;
    /** @type {Uint8Array|null} */
    this.pixels = null;
    /** @type {Map<number, number>|null} */
    this.places = null;
    /** @type {Map<string, HTMLCanvasElement>} */
    this.drawn = new Map();
    this.ready = images?.deflated ? this.load(images) : Promise.resolve();
  }

  /** @param {any} images */
  async load({ deflated, index }) {
    this.pixels = await inflate(bytes(deflated));
    if (index) {
      const samples = new Int32Array(bytes(index).buffer);
      this.places = new Map(Array.from(samples, (i, at) => [i, at]));
    }
  }

  /** Sample `i` as an element, or nothing; gray ones in ink on paper, as in figures.
   * @param {number} i @param {number} place in a kernel's answer
   * @param {Sent|undefined} sent @param {number} size */
  canvas(i, place, sent, size) {
    const pixels = sent
      ? new Uint8Array(sent.buffer, sent.byteOffset, sent.byteLength) : this.pixels;
    const at = sent ? place : this.places ? this.places.get(i) : i;
    if (!this.shape || !pixels) return [];
    if (at === undefined || at < 0) return [html("i", { class: "absent" }, "image not in this file")];
    const key = `${i}/${size}`;
    let canvas = this.drawn.get(key);
    if (!canvas) {
      if (this.drawn.size >= MOST_DRAWN) this.drawn.clear();
      canvas = this.draw(pixels, at, this.shape, size);
      this.drawn.set(key, canvas);
    }
    return [canvas];
  }

  /** @param {Uint8Array} pixels @param {number} at @param {number[]} shape
   * @param {number} size @returns {HTMLCanvasElement} */
  draw(pixels, at, [channels, height, width], size) {
    const area = height * width;
    const image = new ImageData(width, height);
    for (let p = 0; p < area; p++) {
      for (let c = 0; c < 3; c++) {
        const value = pixels[(at * channels + (channels === 3 ? c : 0)) * area + p];
        image.data[4 * p + c] = channels === 3 ? value : 255 - value;
      }
      image.data[4 * p + 3] = 255;
    }
    const canvas = html("canvas", { width, height, "aria-hidden": "true", style: `width:${size}px` });
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }
}
