// Embeddings: a matrix of similarities, and a map of the texts.

import { call, faultOf, floats } from "./api.js";
import { EMBEDDING, offerModels } from "./catalog.js";
import { byId, el, number, scrolling, svg, table } from "./dom.js";
import { invalid, linesIn, onSubmit, showFault } from "./forms.js";
import { cosines, principalComponents } from "./vectors.js";

const MAX_TEXTS = 64;
const WIDTH = 640;
const HEIGHT = 420;
const MARGIN = 28;
const CHARACTER = 6.6; // about the width of a character of a label
const LINE = 15;

export function begin() {
  offerModels(byId("em-model"), EMBEDDING);
  onSubmit(byId("embeddings-form"), compare);
}

async function compare(signal) {
  const texts = linesIn(byId("em-texts"));
  if (texts.length < 2) throw invalid("texts", "at least two are needed, one per line");
  if (texts.length > MAX_TEXTS) throw invalid("texts", `at most ${MAX_TEXTS} fit into the picture, got ${texts.length}`);
  const answer = await call("EmbeddingService", "Embed", { model: byId("em-model").value, texts }, signal);
  const dimension = answer.embeddings.shape[1];
  const values = floats(answer.embeddings);
  const vectorOf = (i) => [...values.subarray(i * dimension, (i + 1) * dimension)];
  for (const { error } of answer.results) {
    for (const fault of error ? faultOf(error.message) : []) showFault(byId("embeddings-form"), fault);
  }
  const found = texts.map((text, i) => ({ text, number: i + 1, vector: vectorOf(i) })).filter((_, i) => !answer.results[i].error);
  show(found);
  return `${found.length} of ${texts.length} texts embedded by ${answer.model}, ${dimension} dimensions.`;
}

function show(found) {
  const place = byId("em-result");
  place.replaceChildren();
  if (found.length > 1) place.append(matrix(found));
  if (found.length > 2) place.append(map(found));
}

function matrix(found) {
  const values = cosines(found.map(({ vector }) => vector));
  const cell = (value) => {
    const shade = el("span", { class: "shade" }, number(value));
    shade.style.setProperty("--weight", String(Math.max(0, value).toFixed(3)));
    return shade;
  };
  const rows = found.map((each, i) => [`${each.number} ${each.text}`, ...values[i].map(cell)]);
  return scrolling(
    "Similarity matrix",
    table("Similarity (cosine) of each pair of texts", ["Text", ...found.map((each) => String(each.number))], rows, { class: "matrix" }),
  );
}

function map(found) {
  const { points, shares } = principalComponents(found.map(({ vector }) => vector));
  const places = placesOf(points);
  const percent = shares.map((share) => Math.round(share * 100));
  const title = `Map of the texts by two principal components, which hold ${percent[0]} % and ${percent[1]} % of the variance`;
  const labels = placedLabels(found, places);
  const shapes = found.map((each, i) =>
    svg("g", {}, svg("circle", { cx: places[i][0], cy: places[i][1], r: 5, class: "point" }), svg("title", {}, each.text), labels[i]),
  );
  const rows = found.map((each, i) => [`${each.number} ${each.text}`, ...points[i].map((value) => number(value))]);
  return el(
    "figure",
    {},
    svg("svg", { class: "map", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. The table below has the coordinates.` }, shapes),
    el("figcaption", {}, `${title}.`),
    el("details", {}, el("summary", {}, "As a table"), scrolling("Coordinates", table("Coordinates of the texts", ["Text", "First", "Second"], rows))),
  );
}

/** Places in the picture, with one scale for both components. */
function placesOf(points) {
  const ranges = [0, 1].map((axis) => points.map((point) => point[axis])).map((values) => [Math.min(...values), Math.max(...values)]);
  const [[left, right], [bottom, top]] = ranges;
  const scale = Math.min((WIDTH - 2 * MARGIN) / (right - left || 1), (HEIGHT - 2 * MARGIN) / (top - bottom || 1));
  return points.map(([x, y]) => [
    WIDTH / 2 + (x - (left + right) / 2) * scale,
    HEIGHT / 2 - (y - (bottom + top) / 2) * scale,
  ]);
}

/** A label beside each point, where it covers no earlier one; its number where there is no room. */
function placedLabels(found, places) {
  const taken = places.map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]);
  return found.map((each, i) => {
    const [x, y] = places[i];
    for (const text of [shortened(each), String(each.number)]) {
      const width = text.length * CHARACTER;
      for (const [left, base] of [[x + 9, y + 4], [x - 9 - width, y + 4], [x - width / 2, y - 10], [x - width / 2, y + 20], [x + 9, y + 18], [x + 9, y - 10]]) {
        const box = [left, base - LINE + 3, left + width, base + 3];
        const isInside = box[0] >= 0 && box[2] <= WIDTH && box[1] >= 0 && box[3] <= HEIGHT;
        if (!isInside || taken.some((other) => overlap(box, other))) continue;
        taken.push(box);
        return svg("text", { x: left, y: base, direction: "ltr" }, text);
      }
    }
    return svg("text", { x: x + 9, y: y + 4 }, String(each.number));
  });
}

const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

function shortened({ number: index, text }) {
  const letters = [...text];
  return `${index} ${letters.length > 28 ? `${letters.slice(0, 27).join("")}…` : text}`;
}
