// Scores of the labels of texts, or of documents for a query.

import { call, faultOf } from "./api.js";
import { describedOf, EMBEDDING, onModels } from "./catalog.js";
import { byId, el, number, setOptions, table } from "./dom.js";
import { invalid, linesIn, onSubmit, showFault } from "./forms.js";
import { bar } from "./scores.js";

let rankers = new Set();

export function begin() {
  onModels(offer);
  byId("la-model").addEventListener("change", choose);
  onSubmit(byId("labels-form"), score);
}

async function offer() {
  const able = (await describedOf(EMBEDDING)).filter(([, found]) => found.labels?.length);
  rankers = new Set(able.filter(([, found]) => found.labels.length === 1).map(([name]) => name));
  setOptions(byId("la-model"), able.map(([name]) => [name, name]));
  byId("labels-form").hidden = !able.length;
  byId("la-empty").hidden = able.length > 0;
  choose();
}

function choose() {
  const ranks = rankers.has(byId("la-model").value);
  byId("la-query-field").hidden = !ranks;
  byId("la-texts-label").textContent = ranks ? "Documents, one per line" : "Texts, one per line";
}

async function score(signal) {
  const model = byId("la-model").value;
  const texts = linesIn(byId("la-texts"));
  const ranks = rankers.has(model);
  if (!texts.length) throw invalid(ranks ? "documents" : "texts", "at least one is needed");
  return ranks ? rank(model, texts, signal) : classify(model, texts, signal);
}

async function classify(model, texts, signal) {
  const answer = await call("EmbeddingService", "Classify", { model, texts }, signal);
  const isShare = answer.scoreFunction !== "SCORE_FUNCTION_IDENTITY";
  const tables = answer.results.map(({ labels = [], error }, i) => {
    if (error) {
      fault(error);
      return undefined;
    }
    const rows = labels.map((each) => [each.label, isShare ? bar(each.score ?? 0) : number(each.score ?? 0, 3)]);
    return table(texts[i], ["Label", "Score"], rows, { class: "scores" });
  });
  byId("la-result").replaceChildren(el("div", { class: "cards" }, tables));
  return `Scored by ${answer.model}.`;
}

async function rank(model, documents, signal) {
  const query = byId("la-query").value;
  if (!query.trim()) throw invalid("query", "is empty");
  const answer = await call("EmbeddingService", "Rerank", { model, query, documents }, signal);
  for (const { error } of answer.results) if (error) fault(error);
  const good = answer.results.filter(({ error }) => !error);
  const rows = good.map((each) => [documents[each.index ?? 0], number(each.score ?? 0, 3)]);
  byId("la-result").replaceChildren(table("Documents, best first", ["Document", "Score"], rows, { class: "scores" }));
  return `Ranked by ${answer.model}.`;
}

function fault(error) {
  for (const each of faultOf(error.message)) showFault(byId("labels-form"), each);
}
