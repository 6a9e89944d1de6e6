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

/** @param {HTMLElement} charts @param {string} caption */
export async function savePng(charts, caption) {
  download("reliability.png", await drawPng(charts, caption));
}

/** The charts as they are seen, with their numbers below, on the page's own paper.
 * @param {HTMLElement} charts @param {string} caption @returns {Promise<Blob>} */
async function drawPng(charts, caption) {
  const paper = getComputedStyle(charts).getPropertyValue("--paper").trim() || "#ffffff";
  const box = charts.getBoundingClientRect();
  const scale = 2;
  const canvas = document.createElement("canvas");
  canvas.width = scale * box.width;
  canvas.height = scale * (box.height + 28);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(scale, scale);
  context.fillStyle = paper;
  context.fillRect(0, 0, box.width, box.height + 28);
  for (const chart of charts.querySelectorAll("svg")) {
    const at = chart.getBoundingClientRect();
    const image = new Image(at.width, at.height);
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(withStyles(chart, at))}`;
    await image.decode();
    context.drawImage(image, at.left - box.left, at.top - box.top, at.width, at.height);
  }
  context.fillStyle = getComputedStyle(charts).color;
  context.font = "13px system-ui, sans-serif";
  context.fillText(caption, 8, box.height + 18);
  return new Promise((done) => canvas.toBlob((blob) => done(/** @type {Blob} */ (blob)), "image/png"));
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
