// The attention weights of a layer and a head, as a picture and as a table.

import { call, floats } from "./api.js";
import { byId, el, number, scrolling, setOptions, svg, table } from "./dom.js";
import { describedOf, onModels } from "./catalog.js";
import { invalid, onSubmit } from "./forms.js";

const CELL = 28;
const NAMES = { encoder: "Encoder: text to text", decoder: "Decoder: translation to itself", cross: "Cross: translation to text" };
let answer, selects, picture;

export function begin() {
  onModels(async () => {
    const able = (await describedOf()).filter(([, found]) => found.hasAttention);
    setOptions(byId("at-model"), able.map(([name]) => [name, name]));
    byId("at-model").disabled = !able.length;
  });
  onSubmit(byId("attention-form"), read);
}

async function read(signal) {
  const model = byId("at-model").value;
  const text = byId("at-text").value;
  if (!model) throw invalid("model", "no model of this server has an attention graph");
  if (!text.trim()) throw invalid("text", "is empty");
  const target = byId("at-target").value.trim();
  answer = await call("ModelService", "GetAttention", { model, text, ...(target && { target }) }, signal);
  showChoices();
  return answer.target ? `The translation is “${answer.target}”` : `Read by ${answer.model}.`;
}

function showChoices() {
  const kinds = ["cross", "encoder", "decoder"].filter((kind) => answer[kind]);
  selects = Object.fromEntries(["kind", "layer", "head"].map((name) => [name, el("select", { id: `at-${name}`, onchange: () => choose(name) })]));
  setOptions(selects.kind, kinds.map((kind) => [kind, NAMES[kind]]));
  picture = el("div");
  const fields = Object.entries({ kind: "Attention", layer: "Layer", head: "Head" }).map(([name, label]) =>
    el("div", { class: "field" }, el("label", { for: `at-${name}` }, label), selects[name]),
  );
  byId("at-result").replaceChildren(el("div", { class: "row" }, fields), picture);
  choose("kind");
}

function choose(changed) {
  const weights = answer[selects.kind.value];
  if (changed === "kind") {
    const able = weights.numHeads.map((count, layer) => [layer, count]).filter(([, count]) => count);
    setOptions(selects.layer, able.map(([layer]) => [String(layer), String(layer + 1)]));
  }
  const count = weights.numHeads[Number(selects.layer.value)];
  if (changed !== "head") setOptions(selects.head, [["mean", "mean of all"], ...Array.from({ length: count }, (_, head) => [String(head), String(head + 1)])]);
  draw(weights, count);
}

/** The tokens that look, and those that they look at. */
function tokensOf(kind) {
  const names = (tokens) => (tokens ?? []).map((token) => token.text);
  if (kind === "encoder") return [names(answer.sourceTokens), names(answer.sourceTokens)];
  return [names(answer.targetTokens), names(kind === "cross" ? answer.sourceTokens : answer.decoderTokens)];
}

function matrixOf({ weights }, layer, head, count) {
  const [, heads, queries, keys] = weights.shape;
  const values = floats(weights);
  const at = (h, q, k) => values[((layer * heads + h) * queries + q) * keys + k];
  const chosen = head === "mean" ? Array.from({ length: count }, (_, h) => h) : [Number(head)];
  return Array.from({ length: queries }, (_, q) =>
    Array.from({ length: keys }, (_, k) => chosen.reduce((sum, h) => sum + at(h, q, k), 0) / chosen.length),
  );
}

function draw(weights, count) {
  const kind = selects.kind.value;
  const matrix = matrixOf(weights, Number(selects.layer.value), selects.head.value, count);
  const [queries, keys] = tokensOf(kind);
  const head = selects.head.value === "mean" ? "mean of the heads" : `head ${Number(selects.head.value) + 1}`;
  const title = `${NAMES[kind]}, layer ${Number(selects.layer.value) + 1}, ${head}`;
  const details = el("details", {}, el("summary", {}, "As a table"));
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector("table")) {
      const rows = queries.map((query, q) => [query, ...matrix[q].map((value) => number(value))]);
      details.append(scrolling(`Table: ${title}`, table(title, ["Token", ...keys], rows)));
    }
  });
  picture.replaceChildren(scrolling(title, heatMap(title, queries, keys, matrix)), details);
}

/** Rows are the tokens that look; a darker cell has more weight. */
function heatMap(title, queries, keys, matrix) {
  const left = 12 + 8 * Math.max(...queries.map((each) => [...each].length));
  const top = 12 + 8 * Math.max(...keys.map((each) => [...each].length));
  const width = left + keys.length * CELL + 8;
  const height = top + queries.length * CELL + 8;
  const strongest = queries.map((query, q) => `${query}: ${keys[matrix[q].indexOf(Math.max(...matrix[q]))]}`);
  const rows = queries.map((query, q) =>
    svg("text", { x: left - 6, y: top + q * CELL + 18, "text-anchor": "end" }, query),
  );
  const columns = keys.map((key, k) => {
    const x = left + k * CELL + 18;
    return svg("text", { x, y: top - 6, transform: `rotate(-90 ${x} ${top - 6})` }, key);
  });
  const cells = matrix.flatMap((row, q) =>
    row.map((value, k) =>
      svg(
        "rect",
        { x: left + k * CELL, y: top + q * CELL, width: CELL - 1, height: CELL - 1, class: "cell", "fill-opacity": (0.04 + 0.96 * value).toFixed(3) },
        svg("title", {}, `${queries[q]} → ${keys[k]}: ${number(value)}`),
      ),
    ),
  );
  const label = `${title}. Most attention: ${strongest.join("; ")}.`;
  return svg("svg", { class: "heat", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, rows, columns, cells);
}
