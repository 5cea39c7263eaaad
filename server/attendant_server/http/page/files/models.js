// Model cards: what each model is, its limits, its quality, and how close it is to its original.

import { describedOf, EMBEDDING, LANGUAGE_MODEL, languageName, modelsOf, nameOf, onModels, READY, refresh, TRANSLATION } from "./catalog.js";
import { byId, el, number, scrolling, table } from "./dom.js";

const KINDS = { [TRANSLATION]: "translation", [EMBEDDING]: "embeddings", [LANGUAGE_MODEL]: "language model" };
const SIZES = {
  numEncoderLayers: "encoder layers",
  numDecoderLayers: "decoder layers",
  numLayers: "layers",
  dModel: "wide",
  numHeads: "heads",
  vocabSize: "tokens in the vocabulary",
};

export function begin() {
  onModels(show);
  byId("mo-refresh").addEventListener("click", () => refresh().catch((error) => (byId("mo-status").textContent = error.words ?? String(error))));
}

async function show() {
  const described = new Map(await describedOf());
  const models = modelsOf();
  byId("mo-status").textContent = models.length ? `${models.length} models.` : "No models.";
  byId("mo-cards").replaceChildren(...models.map((model) => card(model, described.get(nameOf(model)))));
}

function card(model, found) {
  const title = `model-${model.name}-${model.version}`; // an id, and part of labels
  const shown = el("article", { class: "card", "aria-labelledby": title }, el("h2", { id: title }, `${model.name}/${model.version}`));
  const marks = [KINDS[model.kind] ?? "other", model.precision, model.state === READY ? "ready" : "loading", model.isDefaultOfKind && "default"];
  shown.append(el("ul", { class: "marks" }, marks.filter(Boolean).map((mark) => el("li", {}, mark))), el("p", {}, model.description ?? ""));
  if (!found) return shown;
  shown.append(facts(model, found));
  if (found.quality?.length) shown.append(quality(title, found.quality));
  if (found.parity) shown.append(...parity(title, found.parity));
  if (found.provenance) shown.append(origin(found));
  return shown;
}

function facts(model, found) {
  const sizes = found.translationSizes ?? found.embeddingSizes ?? found.languageModelSizes ?? {};
  const { limits = {}, requestLimits = {} } = found;
  const languages = model.languages ?? [];
  const list = {
    Languages: languages.length ? languages.map(languageName).join(", ") : pairs(model),
    Network: Object.entries(SIZES).filter(([key]) => sizes[key]).map(([key, text]) => `${sizes[key].toLocaleString("en")} ${text}`).join(", "),
    "Tokens at most": [
      limits.maxSourceTokens && `${limits.maxSourceTokens} of a source`,
      limits.maxTargetTokens && `${limits.maxTargetTokens} of a target`,
      limits.maxTokens && `${limits.maxTokens}`,
    ].filter(Boolean).join(", "),
    "Requests at most": [
      requestLimits.maxTexts && `${requestLimits.maxTexts} texts`,
      requestLimits.maxTextCharacters && `${requestLimits.maxTextCharacters.toLocaleString("en")} characters in a text`,
      requestLimits.maxBeamSize && `beam size ${requestLimits.maxBeamSize}`,
    ].filter(Boolean).join(", "),
    Precisions: (found.availablePrecisions ?? []).join(", "),
    Labels: (found.labels ?? []).join(", "),
    Licence: found.license,
  };
  const rows = Object.entries(list).filter(([, value]) => value);
  return el("dl", {}, rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function pairs({ sourceLanguages = [], targetLanguages = [] }) {
  if (!sourceLanguages.length) return "";
  return `${sourceLanguages.map(languageName).join(", ")} → ${targetLanguages.map(languageName).join(", ")}`;
}

function quality(title, figures) {
  const rows = figures.map((each) => [each.metric, each.precision, each.search ?? "", figure(each.value ?? 0), each.dataset ?? ""]);
  return scrolling(`Quality of ${title}`, table("Quality", ["Metric", "Precision", "Search", "Value", "Data"], rows));
}

const figure = (value) => number(value, Math.abs(value) <= 1 ? 4 : 2); // shares, and figures of 100

/** How closely the graphs follow the model that they were exported from, and an import its original. */
function parity(title, { precisions = [], original }) {
  const columns = Object.entries(PARITY).filter(([, cell]) => precisions.some((each) => cell(each)));
  if (!columns.length) return [];
  const rows = precisions.map((each) => [each.precision, ...columns.map(([, cell]) => cell(each) || "–")]);
  const parts = [
    scrolling(
      `Parity of ${title}`,
      table("Parity with the trained or imported model", ["Precision", ...columns.map(([name]) => name)], rows),
    ),
  ];
  if (original) {
    const ids = original.numDifferentTokenIds ?? 0;
    parts.push(
      el("p", {}, `Compared with ${original.implementation} ${original.implementationVersion ?? ""} on ${original.numTexts ?? 0} texts: ${ids} with other token ids${original.minCosine ? `, smallest cosine ${number(original.minCosine, 6)}` : ""}.`),
    );
  }
  return parts;
}

const PARITY = {
  "Log-probability": (each) => each.maxLogProbabilityDifference !== undefined && `± ${each.maxLogProbabilityDifference.toPrecision(2)}`,
  "Same tokens": (each) => each.tokens?.length && sentences(each.tokens),
  Cosine: ({ embeddings }) => embeddings && `≥ ${number(embeddings.minCosine ?? 0, 5)}`,
  "BLEU, fp32 → this": ({ corpus }) => corpus && `${number(corpus.fp32Bleu ?? 0)} → ${number(corpus.bleu ?? 0)}`,
};

function sentences(tokens) {
  const sum = (name) => tokens.reduce((total, each) => total + (each[name] ?? 0), 0);
  const ties = sum("numTies");
  return `${sum("numIdentical")} of ${sum("numSentences")}${ties ? `, ${ties} ties` : ""}`;
}

function origin({ provenance, credits = [] }) {
  const source = provenance.importedFrom?.source;
  const lines = [source && `Imported from ${source}.`, provenance.recipe, provenance.hardware && `Trained on ${provenance.hardware}.`, ...credits];
  return el("details", {}, el("summary", {}, "Origin and credits"), lines.filter(Boolean).map((line) => el("p", {}, line)));
}
