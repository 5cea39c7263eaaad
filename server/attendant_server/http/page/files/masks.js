// The likeliest tokens for each [MASK] of a text.

import { ApiError, call } from "./api.js";
import { EMBEDDING, offerModels } from "./catalog.js";
import { byId, el, table } from "./dom.js";
import { countIn, invalid, onSubmit } from "./forms.js";
import { bar } from "./scores.js";

const MASK = "[MASK]";

export function begin() {
  const text = byId("ma-text");
  offerModels(byId("ma-model"), EMBEDDING);
  byId("ma-insert").addEventListener("click", () => {
    text.setRangeText(MASK, text.selectionStart, text.selectionEnd, "end");
    text.focus();
  });
  onSubmit(byId("masks-form"), fill);
}

async function fill(signal) {
  const text = byId("ma-text").value;
  if (!text.includes(MASK)) throw invalid("texts", `must have ${MASK} at least once`);
  const answer = await call(
    "EmbeddingService",
    "FillMask",
    { model: byId("ma-model").value, texts: [text], topK: countIn(byId("ma-count"), "top_k"), offsetUnit: "OFFSET_UNIT_UTF16_UNITS" },
    signal,
  );
  const [{ masks = [], error }] = answer.results;
  if (error) throw new ApiError({ code: "invalid_argument", message: error.message });
  byId("ma-result").replaceChildren(
    el("p", { class: "output", dir: "auto" }, filled(text, masks)),
    el("div", { class: "cards" }, masks.map((mask, i) => candidates(mask, i, masks.length))),
  );
  return `Filled in by ${answer.model}.`;
}

/** The text with the best token in place of each mask. */
function filled(text, masks) {
  const parts = [];
  let end = 0;
  for (const mask of masks) {
    parts.push(text.slice(end, mask.start ?? 0), el("mark", {}, mask.candidates?.[0]?.text ?? MASK));
    end = mask.end;
  }
  return [...parts, text.slice(end)];
}

function candidates(mask, index, count) {
  const caption = count > 1 ? `${index + 1}. ${MASK}` : MASK;
  const rows = (mask.candidates ?? []).map((each) => [each.text, bar(each.probability ?? 0)]);
  return table(caption, ["Token", "Probability"], rows, { class: "scores" });
}
