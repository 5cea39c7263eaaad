// Continuation of a prompt by a language model, streamed.

import { stream } from "./api.js";
import { LANGUAGE_MODEL, modelsOf, offerModels, onModels } from "./catalog.js";
import { byId, el, grow, number } from "./dom.js";
import { countIn, numberIn, onSubmit } from "./forms.js";

const ENDS = {
  FINISH_REASON_STOP: "ended by the model",
  FINISH_REASON_LENGTH: "cut off by the limit of tokens",
  FINISH_REASON_REPETITION: "ended because it repeated itself",
};

export function begin() {
  offerModels(byId("ge-model"), LANGUAGE_MODEL);
  onModels(() => {
    const isAny = modelsOf(LANGUAGE_MODEL).length > 0;
    byId("generate-form").hidden = !isAny;
    byId("ge-empty").hidden = isAny;
  });
  onSubmit(byId("generate-form"), generate);
}

async function generate(signal, say) {
  const prompt = byId("ge-prompt").value;
  const temperature = numberIn(byId("ge-temperature"), "options.sampling.temperature");
  const options = {
    maxOutputTokens: countIn(byId("ge-tokens"), "options.max_output_tokens"),
    ...(temperature !== undefined && { sampling: { temperature } }),
  };
  const result = byId("ge-result");
  const written = el("span", { class: "written" });
  result.replaceChildren(el("span", { class: "prompt" }, prompt), written);
  result.setAttribute("aria-busy", "true");
  say("Continuing …");
  let last;
  try {
    for await (const message of stream("LanguageModelService", "StreamGenerate", { model: byId("ge-model").value, prompt, options }, signal)) {
      grow(result, written, message.delta ?? "");
      if (message.generation) last = message;
    }
  } finally {
    if (written.isConnected) result.removeAttribute("aria-busy"); // otherwise a newer call runs
  }
  const [best] = last.generation.hypotheses;
  return `By ${last.model}: ${last.tokenCounts?.numOutputTokens ?? 0} tokens, ${ENDS[best.finishReason] ?? "ended"}, score ${number(best.score ?? 0)}.`;
}
