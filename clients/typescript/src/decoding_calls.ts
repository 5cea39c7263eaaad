/** The methods of the client for translation and language models. */

import { createClient } from "@connectrpc/connect";

import { only, whole, type Texts } from "./calls.js";
import { EmbeddingCalls } from "./embedding_calls.js";
import {
  GenerateOptionsSchema,
  GenerateRequestSchema,
  LanguageModelService,
  ScoreTextRequestSchema,
  StreamGenerateRequestSchema,
  type StreamGenerateResponse,
} from "./generated/attendant/v1/language_model_pb.js";
import {
  ScoreRequestSchema,
  StreamTranslateRequestSchema,
  TranslateOptionsSchema,
  TranslateRequestSchema,
  TranslationService,
  type StreamTranslateResponse,
} from "./generated/attendant/v1/translation_pb.js";
import type * as options from "./options.js";
import { beside, newRequest, textList, withSeed } from "./requests.js";
import * as results from "./results.js";
import { withText } from "./results.js";
import { TextStream } from "./streams.js";

export type TranslationStream = TextStream<StreamTranslateResponse, results.Translation>;
export type GenerationStream = TextStream<StreamGenerateResponse, results.Generation>;

export class DecodingCalls extends EmbeddingCalls {
  private readonly translation = createClient(TranslationService, this.connection.transport);
  private readonly language = createClient(LanguageModelService, this.connection.transport);

  /** Translate texts. */
  translate(texts: string, options?: options.TranslateOptions): Promise<results.Translation>;
  translate(
    texts: readonly string[],
    options?: options.TranslateOptions,
  ): Promise<results.Results<results.Translation>>;
  translate(texts: Texts, options: options.TranslateOptions = {}) {
    const { targetPrefix, ...others } = options;
    const sent = textList(texts);
    const prefixes =
      targetPrefix === undefined ? undefined : beside(targetPrefix, "targetPrefix", sent);
    const values = { texts: sent.sent, targetPrefixes: prefixes?.sent ?? [] };
    const schema = TranslateRequestSchema;
    const request = newRequest(schema, others, values, TranslateOptionsSchema);
    if (sent.sent.length > 1) withSeed(request);
    return this.texts<typeof schema, any, results.Translation>(texts, options, {
      schema,
      request,
      fields: prefixes ? ["texts", "targetPrefixes"] : ["texts"],
      faults: prefixes?.faults ?? sent.faults,
      send: this.translation.translate,
      items: ({ translations }) => translations,
      finish: withText,
    });
  }

  /** Translate one text; the pieces come as soon as their words are settled. */
  streamTranslate(text: string, options: options.StreamTranslateOptions = {}): TranslationStream {
    const schema = StreamTranslateRequestSchema;
    const request = newRequest(schema, options, { text: only(text) }, TranslateOptionsSchema);
    return new TextStream(
      this.connection,
      (sent) => this.translation.streamTranslate(request, sent),
      ({ translation }, call) => translation && withText(whole<any>(translation, call)),
      options,
    );
  }

  /** Score given translations: pairs of a text and its translation. */
  score(
    pairs: readonly (readonly [source: string, target: string])[],
    options: options.ScoreOptions = {},
  ): Promise<results.Results<results.TranslationScore>> {
    const sources = textList(pairs.map(([source]) => source));
    const targets = beside(
      pairs.map(([, target]) => target),
      "target",
      sources,
    );
    const sent = sources.sent.map((source, i) => ({ source, target: targets.sent[i]! }));
    const schema = ScoreRequestSchema;
    return this.texts<typeof schema, any, results.TranslationScore>([], options, {
      schema,
      request: newRequest(schema, options, { pairs: sent }),
      fields: ["pairs"],
      faults: targets.faults,
      send: this.translation.score,
      items: ({ scores }) => scores,
    }) as Promise<results.Results<results.TranslationScore>>;
  }

  /** Continue prompts with a language model. */
  generate(prompts: string, options?: options.GenerateOptions): Promise<results.Generation>;
  generate(
    prompts: readonly string[],
    options?: options.GenerateOptions,
  ): Promise<results.Results<results.Generation>>;
  generate(prompts: Texts, options: options.GenerateOptions = {}) {
    const { sent, faults } = textList(prompts);
    const schema = GenerateRequestSchema;
    const request = newRequest(schema, options, { prompts: sent }, GenerateOptionsSchema);
    if (sent.length > 1) withSeed(request);
    return this.texts<typeof schema, any, results.Generation>(prompts, options, {
      schema,
      request,
      fields: ["prompts"],
      faults,
      send: this.language.generate,
      items: ({ generations }) => generations,
      finish: withText,
    });
  }

  /** Continue one prompt; the pieces come as soon as they are settled. */
  streamGenerate(prompt: string, options: options.StreamGenerateOptions = {}): GenerationStream {
    const schema = StreamGenerateRequestSchema;
    const request = newRequest(schema, options, { prompt: only(prompt) }, GenerateOptionsSchema);
    return new TextStream(
      this.connection,
      (sent) => this.language.streamGenerate(request, sent),
      ({ generation }, call) => generation && withText(whole<any>(generation, call)),
      options,
    );
  }

  /** Score texts with a language model. */
  scoreTexts(texts: string, options?: options.ScoreTextsOptions): Promise<results.TextScore>;
  scoreTexts(
    texts: readonly string[],
    options?: options.ScoreTextsOptions,
  ): Promise<results.Results<results.TextScore>>;
  scoreTexts(texts: Texts, options: options.ScoreTextsOptions = {}) {
    return this.simple<results.TextScore>(
      ScoreTextRequestSchema,
      texts,
      options,
      this.language.scoreText,
      "scores",
    );
  }
}
