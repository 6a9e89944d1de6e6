// What a reader takes along: the diagram as a picture, and its numbers as a table.

import { html } from "./elements.js";
import { classInView } from "./setup.js";
import { calibratorName } from "./words.js";

/** @typedef {import("./engine.js").Row} Row */

/** Offer the bins of all runs as a table, with what they are bins of.
 * @param {import("./engine.js").Answer} answer
 * @param {import("./setup.js").Looks} looks
 * @param {import("./setup.js").Setup} setup */
export function saveCsv({ rows, question }, looks, setup) {
  const head = "run,from,to,samples,confidence,accuracy,band_low,band_high,"
    + "calibrator,temperature,class";
  const { calibrator, temperature } = question;
  const applied = [calibratorName(calibrator, setup), classInView(setup, question) ?? ""];
  const [name, className] = applied.map(quoted);
  const context = [name, temperature, className];
  const lines = rows.flatMap((row) => csvLines(row, looks.label(row.name), context));
  const text = `${[head, ...lines].join("\n")}\n`;
  download("reliability.csv", new Blob([text], { type: "text/csv" }));
}

/** A line for each bin; an empty one has no values.
 * @param {Row} row
 * @param {string} label
 * @param {(string|number)[]} context */
function csvLines(row, label, context) {
  const name = quoted(label);
  return row.counts.map((count, bin) => {
    const values = [row.confidence, row.accuracy, row.band_low, row.band_high];
    const cells = values.map((ofBins) => (count ? ofBins[bin] : ""));
    const bounds = [row.edges[bin], row.edges[bin + 1]];
    return [name, ...bounds, count, ...cells, ...context].join(",");
  });
}

/** @param {string} text */
const quoted = (text) => `"${text.replaceAll('"', '""')}"`;

/** Offer legend and charts as they are seen, with a caption, as a picture.
 * @param {HTMLElement} legend above the charts
 * @param {HTMLElement} charts
 * @param {string} caption */
export async function savePng(legend, charts, caption) {
  const canvas = await drawnPage(legend, charts, caption);
  canvas.toBlob((blob) => blob && download("reliability.png", blob), "image/png");
}

/** @param {string} name
 * @param {Blob} blob */
function download(name, blob) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Pixels of the page: around all, above the caption, and from line to line of it. */
const MARGIN = 8;
const CAPTION_GAP = 10;
const LINE_HEIGHT = 18;

/** Pixels of the picture for one of the page. */
const SCALE = 2;

/** @param {HTMLElement} legend
 * @param {HTMLElement} charts
 * @param {string} caption
 * @returns {Promise<HTMLCanvasElement>} */
async function drawnPage(legend, charts, caption) {
  const page = getComputedStyle(/** @type {Element} */ (charts.closest(".gcelib")));
  const { left, top } = legend.getBoundingClientRect();
  const { right, bottom } = charts.getBoundingClientRect();
  const canvas = document.createElement("canvas");
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.font = page.font;
  const lines = wrapped(context, caption, right - left);
  const width = right - left + 2 * MARGIN;
  const height = bottom - top + 2 * MARGIN + CAPTION_GAP + LINE_HEIGHT * lines.length;
  canvas.width = SCALE * width;
  canvas.height = SCALE * height; // forgets the font
  context.scale(SCALE, SCALE);
  context.fillStyle = page.backgroundColor;
  context.fillRect(0, 0, width, height);
  context.translate(MARGIN - left, MARGIN - top);
  await copyDrawings(context, [legend, charts]);
  context.fillStyle = page.color;
  context.font = page.font;
  copyLegendWords(context, legend);
  lines.forEach((line, i) => {
    context.fillText(line, left, bottom + LINE_HEIGHT * (i + 1));
  });
  return canvas;
}

/** Lines of whole words that are no wider than `width`.
 * @param {CanvasRenderingContext2D} context
 * @param {string} text
 * @param {number} width */
function wrapped(context, text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (context.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

/** @param {CanvasRenderingContext2D} context
 * @param {HTMLElement[]} parts */
async function copyDrawings(context, parts) {
  const drawings = parts.flatMap((part) => [...part.querySelectorAll("svg")]);
  for (const drawing of drawings) {
    const at = drawing.getBoundingClientRect();
    const image = new Image(at.width, at.height);
    const source = encodeURIComponent(withStyles(drawing, at));
    image.src = `data:image/svg+xml;charset=utf-8,${source}`;
    await image.decode();
    context.drawImage(image, at.left, at.top, at.width, at.height);
  }
}

/** @param {CanvasRenderingContext2D} context
 * @param {HTMLElement} legend */
function copyLegendWords(context, legend) {
  for (const entry of legend.querySelectorAll("li")) {
    const sign = /** @type {Element} */ (entry.firstElementChild);
    const { right, bottom } = sign.getBoundingClientRect();
    context.fillText(entry.textContent ?? "", right + 5, bottom - 1);
  }
}

/** What a style sheet may say about a shape. */
const DRAWN = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity",
];

/** The text of a drawing that needs no style sheet.
 * @param {SVGElement} drawing
 * @param {DOMRect} at */
function withStyles(drawing, at) {
  const copy = /** @type {SVGElement} */ (drawing.cloneNode(true));
  const originals = drawing.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((element, i) => {
    const style = getComputedStyle(originals[i]);
    for (const name of DRAWN) element.setAttribute(name, style.getPropertyValue(name));
    element.setAttribute("style", `font:${style.font}`);
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", String(at.width));
  copy.setAttribute("height", String(at.height));
  return new XMLSerializer().serializeToString(copy);
}
