// Translation: streamed, with word alignment, further hypotheses, and alternatives at a word.

import { call, stream } from "./api.js";
import { describe, languageName, modelsOf, nameOf, onModels, TRANSLATION } from "./catalog.js";
import { byId, el, grow, number, setOptions } from "./dom.js";
import { countIn, invalid, onSubmit, showError } from "./forms.js";
import { WordText } from "./words.js";

const NUM_ALTERNATIVES = 5;
const UNIT = "OFFSET_UNIT_UTF16_UNITS";
let form, text, result, more, choices;

export function begin() {
  form = byId("translate-form");
  text = byId("tr-text");
  result = byId("tr-result");
  more = byId("tr-more");
  choices = { from: byId("tr-from"), to: byId("tr-to"), model: byId("tr-model") };
  onModels(offer);
  for (const select of Object.values(choices)) select.addEventListener("change", offer);
  text.addEventListener("input", count);
  onSubmit(form, translate);
}

/** Offers the languages of the models, and the models of the chosen languages. */
function offer() {
  const models = modelsOf(TRANSLATION);
  const { from, to, model } = choices;
  const chosen = models.filter((each) => !model.value || nameOf(each) === model.value);
  const tags = (field) => [...new Set(chosen.flatMap((each) => each[field] ?? []))].toSorted();
  setOptions(from, withAny(tags("sourceLanguages")));
  setOptions(to, withAny(tags("targetLanguages")));
  const fitting = models.filter((each) => has(each.sourceLanguages, from.value) && has(each.targetLanguages, to.value));
  setOptions(model, [["", "by languages"], ...fitting.map((each) => [nameOf(each), nameOf(each)])]);
  count();
}

const has = (tags, tag) => !tag || (tags ?? []).includes(tag);

/** A single language needs no choice; of several, none need be chosen. */
function withAny(tags) {
  if (tags.length === 1) return [["", languageName(tags[0])]];
  return [["", "any"], ...tags.map((tag) => [tag, languageName(tag)])];
}

/** The only model that fits the choices; undefined if there are several, or a pair over a pivot. */
function onlyModel() {
  const { from, to, model } = choices;
  if (model.value) return model.value;
  const fitting = modelsOf(TRANSLATION).filter((each) => has(each.sourceLanguages, from.value) && has(each.targetLanguages, to.value));
  return new Set(fitting.map((each) => each.name)).size === 1 ? fitting[0].name : undefined;
}

async function count() {
  const length = [...text.value].length;
  const name = onlyModel();
  const limits = name ? await describe(name).then((found) => found.requestLimits, () => null) : null;
  const limit = limits?.maxTextCharacters;
  byId("tr-count").textContent = `${length.toLocaleString("en")}${limit ? ` of at most ${limit.toLocaleString("en")}` : ""} characters`;
}

async function request() {
  const { from, to, model } = choices;
  const options = {
    beamSize: countIn(byId("tr-beam"), "options.beam_size"),
    numHypotheses: countIn(byId("tr-hypotheses"), "options.num_hypotheses"),
  };
  if (options.numHypotheses > 1 && options.beamSize === undefined) options.beamSize = options.numHypotheses;
  const name = onlyModel();
  const aligns = name ? (await describe(name)).alignsWords : false;
  return { model: model.value, sourceLanguage: from.value, targetLanguage: to.value, options, returnAlignments: Boolean(aligns), offsetUnit: UNIT };
}

async function translate(signal, say) {
  if (!text.value.trim()) throw invalid("text", "is empty");
  const asked = { ...(await request()), text: text.value };
  const shown = el("span");
  result.replaceChildren(shown);
  result.setAttribute("aria-busy", "true");
  more.replaceChildren();
  byId("tr-link").textContent = "";
  say("Translating …");
  let last;
  try {
    for await (const message of stream("TranslationService", "StreamTranslate", asked, signal)) {
      grow(result, shown, message.delta ?? "");
      if (message.translation) last = message;
    }
  } finally {
    if (shown.isConnected) end(shown); // otherwise a newer call shows its answer
  }
  showHypotheses(asked, last.translation.hypotheses);
  return summary(last);
}

function end(shown) {
  result.removeAttribute("aria-busy");
  if (!shown.textContent) result.replaceChildren(el("span", { class: "empty" }, "No translation."));
}

function summary({ model, tokenCounts = {}, translation, timings = {} }) {
  const seconds = Object.values(timings).reduce((sum, each) => sum + parseFloat(each), 0);
  const cut = translation.hypotheses[0].finishReason === "FINISH_REASON_LENGTH" ? " The limit of tokens has cut it off." : "";
  return `Translated by ${model}: ${tokenCounts.numInputTokens ?? 0} tokens read, ${tokenCounts.numOutputTokens ?? 0} written, ${number(seconds)} s.${cut}`;
}

/** Shows the best hypothesis as words, and the others below. */
function showHypotheses(asked, hypotheses) {
  const [best, ...others] = hypotheses;
  const words = new WordText(asked.text, best, byId("tr-link"), (start) => showAlternatives(asked, best, start));
  result.replaceChildren(words.target);
  more.replaceChildren();
  if (best.alignments?.length) {
    more.append(el("h2", {}, "Words of the text"), el("p", { class: "output", dir: "auto" }, words.source));
  }
  if (others.length) {
    more.append(
      el("h2", {}, "Further hypotheses"),
      el("ol", { class: "choices", start: "2" }, others.map((each) => el("li", {}, el("span", { dir: "auto" }, each.text), " ", score(each)))),
    );
  }
}

const score = (hypothesis) => el("span", { class: "score" }, number(hypothesis.score ?? 0));

/** Asks what else could stand at a place of the translation. */
async function showAlternatives(asked, best, start) {
  const panel = el("section", { class: "card", "aria-label": "Alternatives", "aria-busy": "true" }, el("p", { role: "status" }, "Looking for alternatives …"));
  more.querySelector("[aria-label=Alternatives]")?.remove();
  more.prepend(panel);
  const { text: source, options: _, ...rest } = asked;
  try {
    const answer = await call("TranslationService", "Translate", {
      ...rest,
      texts: [source],
      targetPrefixes: [best.text.slice(0, start)],
      options: { returnAlternatives: true, numHypotheses: NUM_ALTERNATIVES, beamSize: 1 },
    });
    const [{ hypotheses = [], error }] = answer.translations;
    panel.replaceChildren(el("h2", { tabindex: "-1" }, start ? `After “${tail(best.text, start)}”` : "At the beginning"));
    if (error) panel.append(el("p", { class: "error" }, error.message));
    else panel.append(el("ul", { class: "choices" }, hypotheses.map((each) => choice(asked, each))));
    panel.querySelector("h2").focus();
  } catch (error) {
    panel.remove();
    showError(form, error);
  }
  panel.removeAttribute("aria-busy");
}

const tail = (whole, end) => (end > 30 ? "…" : "") + whole.slice(Math.max(0, end - 30), end).trim();

function choice(asked, hypothesis) {
  const use = () => {
    showHypotheses(asked, [hypothesis]);
    result.querySelector("[tabindex='0']")?.focus();
  };
  return el("li", {}, el("button", { type: "button", onclick: use, dir: "auto" }, hypothesis.text), " ", score(hypothesis));
}
