/** The client: the methods of the contract for texts. */

import { type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { Code, createClient, type CallOptions as Sent } from "@connectrpc/connect";

import { Connection } from "./connection.js";
import { callError, NotFoundError, TextError, textError, UnavailableError } from "./errors.js";
import { GetAttentionRequestSchema, type GetAttentionResponse } from "./generated/attendant/v1/attention_pb.js";
import {
  ClassifyRequestSchema,
  EmbedRequestSchema,
  EmbedSparseRequestSchema,
  EmbeddingService,
  EmbedTokensRequestSchema,
  FillMaskRequestSchema,
  RerankRequestSchema,
  SimilarityRequestSchema,
} from "./generated/attendant/v1/embedding_pb.js";
import {
  GenerateOptionsSchema,
  GenerateRequestSchema,
  LanguageModelService,
  ScoreTextRequestSchema,
  StreamGenerateRequestSchema,
  type StreamGenerateResponse,
} from "./generated/attendant/v1/language_model_pb.js";
import { DetectLanguageRequestSchema, LanguageService } from "./generated/attendant/v1/language_pb.js";
import { ModelControlService } from "./generated/attendant/v1/model_control_pb.js";
import {
  ModelService,
  TokenizeRequestSchema,
  type GetModelResponse,
  type ModelInfo,
} from "./generated/attendant/v1/model_pb.js";
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
import { textResult, withText } from "./results.js";
import { TextStream } from "./streams.js";
import { tensorRows } from "./tensors.js";
import { CallSplitter, type Answer, type TextCall } from "./text_calls.js";

type Texts = string | readonly string[];
export type TranslationStream = TextStream<StreamTranslateResponse, results.Translation>;
export type GenerationStream = TextStream<StreamGenerateResponse, results.Generation>;

/** What a method says of its call; the rest is common to all. */
type Method<I extends DescMessage, O extends Answer, R extends results.TextResult> = Pick<
  TextCall<I, O, R>,
  "schema" | "request" | "items"
> & {
  readonly fields?: readonly string[];
  readonly faults: ReadonlyMap<number, string>;
  readonly send: (request: MessageShape<I>, options: Sent) => Promise<O>;
  /** More of the result `i` than its message has. */
  readonly more?: (answer: O, requestId: string, first: number) => (i: number) => object;
  readonly finish?: (result: R) => R;
};

/**
 * A client of one server.
 *
 *     const client = new Client("http://localhost:8080");
 *     const translation = await client.translate("The dog is barking.", { model: "en-de" });
 *     console.log(translation.text);
 *
 * A method that takes texts returns one result for a string, and `Results`, in the same order, for
 * an array. The error of a text is in its result. More texts than the server takes in one call are
 * sent in several calls, one after the other. The options of a method are the fields of its request
 * in the contract, and those of `CallOptions`. All methods throw CallError when a whole call fails.
 */
export class Client {
  private readonly connection: Connection;
  private readonly splitter = new CallSplitter();
  private readonly translation;
  private readonly embedding;
  private readonly language;
  private readonly detection;
  private readonly model_;
  private readonly control;

  /** `baseUrl` is that of the server's port of HTTP, such as `https://attendant.example.com`. */
  constructor(
    baseUrl: string,
    private readonly options: options.ClientOptions = {},
  ) {
    this.connection = new Connection(baseUrl, options);
    const { transport } = this.connection;
    this.translation = createClient(TranslationService, transport);
    this.embedding = createClient(EmbeddingService, transport);
    this.language = createClient(LanguageModelService, transport);
    this.detection = createClient(LanguageService, transport);
    this.model_ = createClient(ModelService, transport);
    this.control = createClient(ModelControlService, transport);
  }

  /** Translate texts. */
  translate(texts: string, options?: options.TranslateOptions): Promise<results.Translation>;
  translate(
    texts: readonly string[],
    options?: options.TranslateOptions,
  ): Promise<results.Results<results.Translation>>;
  translate(texts: Texts, options: options.TranslateOptions = {}) {
    const { targetPrefix, ...others } = options;
    const sent = textList(texts);
    const prefixes = targetPrefix === undefined ? undefined : beside(targetPrefix, "targetPrefix", sent);
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
    const targets = beside(pairs.map(([, target]) => target), "target", sources);
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

  /** Return a vector for each text, or several with `chunking`. */
  embed(texts: string, options?: options.EmbedOptions): Promise<results.Embedding>;
  embed(
    texts: readonly string[],
    options?: options.EmbedOptions,
  ): Promise<results.Results<results.Embedding>>;
  embed(texts: Texts, options: options.EmbedOptions = {}) {
    const hasChunks = (options.chunking ?? 0) !== 0 && !options.averageChunks;
    const { sent, faults } = textList(texts);
    const schema = EmbedRequestSchema;
    return this.texts<typeof schema, any, results.Embedding>(texts, options, {
      schema,
      request: newRequest(schema, options, { texts: sent }),
      faults,
      send: this.embedding.embed,
      items: (answer) => answer.results,
      more: vectors(hasChunks),
    });
  }

  /** Return a vector for each token, word or span of each text. */
  embedTokens(texts: string, options?: options.EmbedTokensOptions): Promise<results.TokenEmbeddings>;
  embedTokens(
    texts: readonly string[],
    options?: options.EmbedTokensOptions,
  ): Promise<results.Results<results.TokenEmbeddings>>;
  embedTokens(texts: Texts, options: options.EmbedTokensOptions = {}) {
    const { sent, faults } = textList(texts);
    const schema = EmbedTokensRequestSchema;
    return this.texts<typeof schema, any, results.TokenEmbeddings>(texts, options, {
      schema,
      request: newRequest(schema, options, { texts: sent }),
      fields: options.spans ? ["texts", "spans"] : ["texts"],
      faults,
      send: this.embedding.embedTokens,
      items: (answer) => answer.results,
      more: (answer, requestId) => (i) => {
        const { rows, scales } = tensorRows(answer.results[i].embeddings, requestId);
        return { vectors: rows, scales };
      },
    });
  }

  /** Return a sparse vector over the vocabulary for each text. */
  embedSparse(texts: string, options?: options.EmbedSparseOptions): Promise<results.SparseEmbedding>;
  embedSparse(
    texts: readonly string[],
    options?: options.EmbedSparseOptions,
  ): Promise<results.Results<results.SparseEmbedding>>;
  embedSparse(texts: Texts, options: options.EmbedSparseOptions = {}) {
    return this.simple<results.SparseEmbedding>(
      EmbedSparseRequestSchema,
      texts,
      options,
      this.embedding.embedSparse,
    );
  }

  /** Return the likeliest tokens for every `[MASK]`. */
  fillMask(texts: string, options?: options.FillMaskOptions): Promise<results.FilledText>;
  fillMask(
    texts: readonly string[],
    options?: options.FillMaskOptions,
  ): Promise<results.Results<results.FilledText>>;
  fillMask(texts: Texts, options: options.FillMaskOptions = {}) {
    return this.simple<results.FilledText>(
      FillMaskRequestSchema,
      texts,
      options,
      this.embedding.fillMask,
      "results",
      options.candidates?.length ? ["texts", "candidates"] : ["texts"],
    );
  }

  /** Return the scores of a model's labels; `textPairs` are the second texts of pairs. */
  classify(texts: string, options?: options.ClassifyOptions): Promise<results.ClassifiedText>;
  classify(
    texts: readonly string[],
    options?: options.ClassifyOptions,
  ): Promise<results.Results<results.ClassifiedText>>;
  classify(texts: Texts, options: options.ClassifyOptions = {}) {
    const { textPairs, ...others } = options;
    const sent = textList(texts);
    const pairs = textPairs === undefined ? undefined : beside(textPairs, "textPairs", sent);
    const schema = ClassifyRequestSchema;
    return this.texts<typeof schema, any, results.ClassifiedText>(texts, options, {
      schema,
      request: newRequest(schema, others, { texts: sent.sent, textPairs: pairs?.sent ?? [] }),
      fields: pairs ? ["texts", "textPairs"] : ["texts"],
      faults: pairs?.faults ?? sent.faults,
      send: this.embedding.classify,
      items: (answer) => answer.results,
    });
  }

  /** Return the cosines between the embeddings of queries and of texts. */
  similarity(
    queries: string,
    texts: readonly string[],
    options?: options.SimilarityOptions,
  ): Promise<results.SimilarTexts>;
  similarity(
    queries: readonly string[],
    texts: readonly string[],
    options?: options.SimilarityOptions,
  ): Promise<results.Results<results.SimilarTexts>>;
  similarity(queries: Texts, texts: readonly string[], options: options.SimilarityOptions = {}) {
    const sent = textList(queries);
    const schema = SimilarityRequestSchema;
    const compared = texts.map((text, i) => only(text, i));
    return this.texts<typeof schema, any, results.SimilarTexts>(queries, options, {
      schema,
      request: newRequest(schema, options, { queries: sent.sent, texts: compared }),
      fields: ["queries"],
      faults: sent.faults,
      send: this.embedding.similarity,
      items: (answer) => answer.results,
      more: (answer, requestId) => {
        const textErrors = (answer.texts as results.ResultMessage[]).flatMap(({ error }, i) =>
          error ? [textError(error, i, requestId)] : [],
        );
        return () => ({ textErrors });
      },
    });
  }

  /** Return documents in the order of their scores for a query; those that failed come last. */
  async rerank(
    query: string,
    documents: readonly string[],
    options: options.RerankOptions = {},
  ): Promise<results.Results<results.RankedDocument>> {
    const { topK, ...others } = options;
    const { sent, faults } = textList(documents);
    const schema = RerankRequestSchema;
    const found = await this.texts<typeof schema, any, results.RankedDocument>([], options, {
      schema,
      request: newRequest(schema, others, { query: only(query), documents: sent }),
      fields: ["documents"],
      faults,
      send: this.embedding.rerank,
      items: (answer) => [...answer.results].sort((a, b) => a.index - b.index),
      more: (_, __, first) => (i) => ({ index: first + i }),
    });
    const ranked = [...(found as results.Results<results.RankedDocument>)].sort(
      (a, b) => Number(!!a.error) - Number(!!b.error) || b.score - a.score || a.index - b.index,
    );
    return results.Results.from(ranked.slice(0, topK)) as results.Results<results.RankedDocument>;
  }

  /** Return the tokens that a model reads for each text. */
  tokenize(texts: string, options?: options.TokenizeOptions): Promise<results.Tokenization>;
  tokenize(
    texts: readonly string[],
    options?: options.TokenizeOptions,
  ): Promise<results.Results<results.Tokenization>>;
  tokenize(texts: Texts, options: options.TokenizeOptions = {}) {
    return this.simple<results.Tokenization>(
      TokenizeRequestSchema,
      texts,
      options,
      this.model_.tokenize,
    );
  }

  /** Return the likeliest languages of each text. */
  detectLanguage(
    texts: string,
    options?: options.DetectLanguageOptions,
  ): Promise<results.DetectedLanguages>;
  detectLanguage(
    texts: readonly string[],
    options?: options.DetectLanguageOptions,
  ): Promise<results.Results<results.DetectedLanguages>>;
  detectLanguage(texts: Texts, options: options.DetectLanguageOptions = {}) {
    return this.simple<results.DetectedLanguages>(
      DetectLanguageRequestSchema,
      texts,
      options,
      this.detection.detectLanguage,
    );
  }

  /** Return the attention weights of all layers and heads, for study. */
  async attention(text: string, options: options.AttentionOptions = {}): Promise<GetAttentionResponse> {
    const request = newRequest(GetAttentionRequestSchema, options, { text: only(text) });
    const send = (sent: Sent) => this.model_.getAttention(request, sent);
    return (await this.connection.call(send, options)).answer;
  }

  /** Return all models of the server, including models that are still loading. */
  async models(options: options.CallOptions = {}): Promise<ModelInfo[]> {
    const send = (sent: Sent) => this.model_.listModels({}, sent);
    return (await this.connection.call(send, options)).answer.models;
  }

  /** Return the description of a model: `name`, `name/version`, or `""` for the only one. */
  async model(name = "", options: options.CallOptions = {}): Promise<GetModelResponse> {
    const send = (sent: Sent) => this.model_.getModel({ model: name }, sent);
    return (await this.connection.call(send, options)).answer;
  }

  /** Let the server load a bundle of its folder. Only callers with permission may. */
  async loadModel(name: string, options: options.CallOptions = {}): Promise<ModelInfo | undefined> {
    const send = (sent: Sent) => this.control.loadModel({ model: name }, sent);
    return (await this.connection.call(send, options)).answer.model;
  }

  /** Let the server stop serving a model; returns its full name. Only callers with permission may. */
  async unloadModel(name: string, options: options.CallOptions = {}): Promise<string> {
    const send = (sent: Sent) => this.control.unloadModel({ model: name }, sent);
    // Another model of this name may have been loaded after an attempt that has failed.
    return (await this.connection.call(send, options, false)).answer.model;
  }

  /** Return whether the server is serving: whether it has a model that is ready. */
  async health(options: options.CallOptions = {}): Promise<"serving" | "not_serving"> {
    const send = async ({ timeoutMs = 0 }: Sent) => {
      const limit = AbortSignal.timeout(timeoutMs);
      const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
      const url = new URL("/health", this.connection.baseUrl);
      return (this.options.fetch ?? fetch)(url, { signal });
    };
    try {
      const { answer, requestId } = await this.connection.call(send, options);
      await answer.arrayBuffer();
      if (answer.ok) return "serving";
      if (answer.status === 503) return "not_serving";
      throw new NotFoundError(`/health answers ${answer.status}`, Code.NotFound, { requestId });
    } catch (error) {
      throw error instanceof UnavailableError ? error : callError(error, "");
    }
  }

  /** A call whose request has `texts`, and whose results are their messages. */
  private simple<R extends results.TextResult>(
    schema: DescMessage,
    texts: Texts,
    options: options.CallOptions,
    send: (request: any, options: Sent) => Promise<any>,
    items = "results",
    fields: readonly string[] = ["texts"],
  ): Promise<R | results.Results<R>> {
    const { sent, faults } = textList(texts);
    return this.texts<DescMessage, any, R>(texts, options, {
      schema,
      request: newRequest(schema, options, { texts: sent }),
      fields,
      faults,
      send,
      items: (answer) => answer[items],
    });
  }

  private async texts<I extends DescMessage, O extends Answer, R extends results.TextResult>(
    texts: Texts,
    options: options.CallOptions,
    method: Method<I, O, R>,
  ): Promise<R | results.Results<R>> {
    const { schema, request, fields = ["texts"], items, faults, more, finish } = method;
    const call: TextCall<I, O, R> = {
      schema,
      request,
      fields,
      items,
      faults,
      first: 0,
      send: (part) => this.connection.call((sent) => method.send(part, sent), options),
      parse: (answer, errors, report, first) => {
        const moreOf = more?.(answer, report.requestId, first);
        return items(answer).map((item, i) => {
          const result = textResult<R>(item, errors[i], report, moreOf?.(i));
          return finish ? finish(result) : result;
        });
      },
    };
    const found = await this.splitter.results<R>(call as any);
    return typeof texts === "string" ? found[0]! : results.Results.from(found) as results.Results<R>;
  }
}

/** A text that must be fit to be sent. Throws TextError. */
function only(text: string, index = 0): string {
  const { faults } = textList(text);
  for (const problem of faults.values()) throw new TextError(problem, Code.InvalidArgument, index);
  return text;
}

/** The result of a call with one text. */
function whole<R extends results.TextResult>(
  message: results.ResultMessage,
  call: results.CallReport,
): R {
  const error = message.error && textError(message.error, 0, call.requestId);
  return textResult<R>(message, error, call);
}

/** The vectors of embeddings; those of the chunks of a text, one after the other. */
function vectors(hasChunks: boolean) {
  return (answer: any, requestId: string) => {
    const { rows, scales } = tensorRows(answer.embeddings, requestId);
    let end = 0;
    return (i: number) => {
      const item = answer.results[i];
      const begin = end;
      end += hasChunks ? item.chunks.length : 1;
      if (item.error) return { vector: new Float32Array(), vectors: [], scales: [] };
      return {
        vector: rows[begin] ?? new Float32Array(),
        vectors: rows.slice(begin, end),
        scales: scales.slice(begin, end),
      };
    };
  };
}
