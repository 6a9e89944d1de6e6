// The samples' images: from bytes that came with the page, or with a kernel's answer.

import { bytes, inflate } from "./decoding.js";
import { html } from "./elements.js";

/** Pixels that came with a kernel's answer, of the samples that it lists.
 * @typedef {{buffer: ArrayBuffer, byteOffset: number, byteLength: number}} Sent */

/** Images as they come with a page: their shape, whose they are (null: all samples'),
 * and the pixels, deflated; "" where a kernel sends those that it lists.
 * @typedef {{shape: number[], index: string|null, deflated: string}} Images */

/** Images that are kept drawn. */
const MOST_DRAWN = 200;

/** Widths on the page. */
const SMALL_WIDTH = 56;
const LARGE_WIDTH = 168;

export class Pictures {
  /** @param {Images|null} images */
  constructor(images) {
    /** Channels, height, width. @type {number[]|undefined} */
    this.shape = images?.shape;
    /** @type {Uint8Array|null} */
    this.pixels = null;
    /** Where a sample is in the pixels; null: all are there, in order.
     * @type {Map<number, number>|null} */
    this.places = null;
    /** @type {Map<string, HTMLCanvasElement>} */
    this.drawn = new Map();
    this.ready = images?.deflated ? this.load(images) : Promise.resolve();
  }

  /** @param {Images} images */
  async load({ deflated, index }) {
    this.pixels = await inflate(bytes(deflated));
    if (index) {
      const samples = new Int32Array(bytes(index).buffer);
      this.places = new Map(Array.from(samples, (i, place) => [i, place]));
    }
  }

  /** Sample `i` for a card: an element, or none where there are no images.
   * @param {number} i
   * @param {number} place among the samples of a kernel's answer
   * @param {Sent|undefined} sent */
  small(i, place, sent) {
    return this.picture(i, place, sent, SMALL_WIDTH);
  }

  /** The same, enlarged.
   * @param {number} i
   * @param {number} place
   * @param {Sent|undefined} sent */
  large(i, place, sent) {
    return this.picture(i, place, sent, LARGE_WIDTH);
  }

  /** @param {number} i
   * @param {number} place
   * @param {Sent|undefined} sent
   * @param {number} width
   * @returns {HTMLElement[]} */
  picture(i, place, sent, width) {
    const pixels = sent ? viewOn(sent) : this.pixels;
    if (!this.shape || !pixels) return [];
    const at = sent ? place : this.placeOf(i);
    if (at < 0) return [html("i", { class: "absent" }, "image not in this file")];
    const key = `${i}/${width}`;
    let canvas = this.drawn.get(key);
    if (!canvas) {
      if (this.drawn.size >= MOST_DRAWN) this.drawn.clear();
      canvas = drawnImage(pixels, at, this.shape, width);
      this.drawn.set(key, canvas);
    }
    return [canvas];
  }

  /** Where sample `i` is in the pixels that came with the page; -1 if it is not.
   * @param {number} i */
  placeOf(i) {
    return this.places ? this.places.get(i) ?? -1 : i;
  }
}

/** @param {Sent} sent */
const viewOn = ({ buffer, byteOffset, byteLength }) =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** An image as an element; a gray one in ink on paper, as in figures.
 * @param {Uint8Array} pixels of several images, channel by channel
 * @param {number} at which of them
 * @param {number[]} shape
 * @param {number} shownWidth
 * @returns {HTMLCanvasElement} */
function drawnImage(pixels, at, [channels, height, width], shownWidth) {
  const inColour = channels === 3;
  const area = height * width;
  const image = new ImageData(width, height);
  for (let p = 0; p < area; p++) {
    for (let c = 0; c < 3; c++) {
      const value = pixels[(at * channels + (inColour ? c : 0)) * area + p];
      image.data[4 * p + c] = inColour ? value : 255 - value;
    }
    image.data[4 * p + 3] = 255;
  }
  const style = `width:${shownWidth}px`;
  const canvas = html("canvas", { width, height, "aria-hidden": "true", style });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
