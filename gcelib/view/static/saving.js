// What a reader takes along: the diagram as a picture, and its numbers as a table.

import { download } from "./page.js";

/** @param {import("./engine.js").Row[]} rows @param {(name: string) => string} label */
export function saveCsv(rows, label) {
  const head = "run,from,to,samples,confidence,accuracy,band_low,band_high";
  const lines = rows.flatMap((row) => row.counts.map((count, bin) => {
    const name = `"${label(row.name).replaceAll('"', '""')}"`;
    const numbers = [row.confidence, row.accuracy, row.band_low, row.band_high];
    const filled = numbers.map((values) => (count ? values[bin] : ""));
    return [name, row.edges[bin], row.edges[bin + 1], count, ...filled].join(",");
  }));
  const text = `${[head, ...lines].join("\n")}\n`;
  download("reliability.csv", new Blob([text], { type: "text/csv" }));
}

/** @param {HTMLElement} legend @param {HTMLElement} charts @param {string} caption */
export async function savePng(legend, charts, caption) {
  download("reliability.png", await drawPng(legend, charts, caption));
}

/** Legend and charts as they are seen, the numbers below, on the page's own paper.
 * @param {HTMLElement} legend above the charts @param {HTMLElement} charts
 * @param {string} caption @returns {Promise<Blob>} */
async function drawPng(legend, charts, caption) {
  const page = getComputedStyle(/** @type {Element} */ (charts.closest(".gcelib")));
  const { left, top } = legend.getBoundingClientRect();
  const { right, bottom } = charts.getBoundingClientRect();
  const margin = 8;
  const width = right - left + 2 * margin;
  const canvas = document.createElement("canvas");
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.font = page.font;
  const lines = wrapped(context, caption, right - left);
  const height = bottom - top + 2 * margin + 10 + 18 * lines.length;
  const scale = 2;
  canvas.width = scale * width;
  canvas.height = scale * height;
  context.scale(scale, scale);
  context.fillStyle = page.backgroundColor;
  context.fillRect(0, 0, width, height);
  context.translate(margin - left, margin - top);
  for (const drawing of [legend, charts].flatMap((part) => [...part.querySelectorAll("svg")])) {
    const at = drawing.getBoundingClientRect();
    const image = new Image(at.width, at.height);
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(withStyles(drawing, at))}`;
    await image.decode();
    context.drawImage(image, at.left, at.top, at.width, at.height);
  }
  context.fillStyle = page.color;
  context.font = page.font;
  for (const entry of legend.querySelectorAll("li")) {
    const sign = /** @type {Element} */ (entry.firstElementChild).getBoundingClientRect();
    context.fillText(entry.textContent ?? "", sign.right + 5, sign.bottom - 1);
  }
  lines.forEach((line, i) => context.fillText(line, left, bottom + 18 * (i + 1)));
  return new Promise((done) => canvas.toBlob((blob) => done(/** @type {Blob} */ (blob)), "image/png"));
}

/** Lines of whole words that are no wider than `width`.
 * @param {CanvasRenderingContext2D} context @param {string} text @param {number} width */
function wrapped(context, text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (context.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

/** What a style sheet may say about a shape. */
const DRAWN = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity"];

/** A drawing that needs no style sheet. @param {SVGElement} chart @param {DOMRect} at */
function withStyles(chart, at) {
  const copy = /** @type {SVGElement} */ (chart.cloneNode(true));
  const from = chart.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((element, i) => {
    const style = getComputedStyle(from[i]);
    for (const name of DRAWN) element.setAttribute(name, style.getPropertyValue(name));
    element.setAttribute("style", `font:${style.font}`);
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", String(at.width));
  copy.setAttribute("height", String(at.height));
  return new XMLSerializer().serializeToString(copy);
}
