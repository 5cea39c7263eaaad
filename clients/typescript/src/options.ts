/** The options of clients and of calls. Those of a method are the fields of its request. */

import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";

import type {
  ClassifyRequestSchema,
  EmbedRequestSchema,
  EmbedSparseRequestSchema,
  EmbedTokensRequestSchema,
  FillMaskRequestSchema,
  RerankRequestSchema,
  SimilarityRequestSchema,
} from "./generated/attendant/v1/embedding_pb.js";
import type { DetectLanguageRequestSchema } from "./generated/attendant/v1/language_pb.js";
import type {
  GenerateOptionsSchema,
  GenerateRequestSchema,
  ScoreTextRequestSchema,
  StreamGenerateRequestSchema,
} from "./generated/attendant/v1/language_model_pb.js";
import type { GetAttentionRequestSchema } from "./generated/attendant/v1/attention_pb.js";
import type { TokenizeRequestSchema } from "./generated/attendant/v1/model_pb.js";
import type {
  ScoreRequestSchema,
  StreamTranslateRequestSchema,
  TranslateOptionsSchema,
  TranslateRequestSchema,
} from "./generated/attendant/v1/translation_pb.js";
import type { RetryPolicy } from "./retries.js";

export const DEFAULT_TIMEOUT_MS = 30_000;

/** The options of a client. */
export interface ClientOptions {
  /** An API key or a JSON Web Token, or a function that returns the current one. */
  readonly token?: string | (() => string | Promise<string>);
  /** Send the token to another machine even without TLS. */
  readonly allowPlainToken?: boolean;
  /** Default time limit of each call to the server, over all its attempts; 30 s if absent. */
  readonly timeoutMs?: number;
  readonly retry?: Partial<RetryPolicy>;
  /** Headers of every call. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Another fetch than that of the platform. */
  readonly fetch?: typeof globalThis.fetch;
  /** Another transport than Connect over fetch, such as one of `@connectrpc/connect-node`. */
  readonly transport?: Transport;
}

/** The options that all methods have. */
export interface CallOptions {
  /** Time limit of each call to the server, over all its attempts. */
  readonly timeoutMs?: number;
  /** Cancels the call. */
  readonly signal?: AbortSignal;
  /**
   * The id of the calls in the server's log, 1 to 128 letters, digits and `_.:/+=-`; a new one if
   * absent. Errors and reports of calls have it.
   */
  readonly requestId?: string;
  /** Whether nobody waits for the answer, so that other callers go first. */
  readonly isBulk?: boolean;
}

type Init<D extends DescMessage> = Exclude<MessageInitShape<D>, MessageShape<D>>;
type Fields<D extends DescMessage, Without extends PropertyKey = never> = Omit<
  Init<D>,
  Without | "$typeName" | "$unknown"
>;
/** One value, or as many as there are texts. */
type ForTexts = string | readonly string[];

export type TranslateOptions = CallOptions &
  Fields<typeof TranslateRequestSchema, "texts" | "options" | "targetPrefixes"> &
  Fields<typeof TranslateOptionsSchema> & { readonly targetPrefix?: ForTexts };
export type StreamTranslateOptions = CallOptions &
  Fields<typeof StreamTranslateRequestSchema, "text" | "options"> &
  Fields<typeof TranslateOptionsSchema>;
export type ScoreOptions = CallOptions & Fields<typeof ScoreRequestSchema, "pairs">;
export type GenerateOptions = CallOptions &
  Fields<typeof GenerateRequestSchema, "prompts" | "options"> &
  Fields<typeof GenerateOptionsSchema>;
export type StreamGenerateOptions = CallOptions &
  Fields<typeof StreamGenerateRequestSchema, "prompt" | "options"> &
  Fields<typeof GenerateOptionsSchema>;
export type ScoreTextsOptions = CallOptions & Fields<typeof ScoreTextRequestSchema, "texts">;
export type EmbedOptions = CallOptions & Fields<typeof EmbedRequestSchema, "texts">;
export type EmbedTokensOptions = CallOptions & Fields<typeof EmbedTokensRequestSchema, "texts">;
export type EmbedSparseOptions = CallOptions & Fields<typeof EmbedSparseRequestSchema, "texts">;
export type FillMaskOptions = CallOptions & Fields<typeof FillMaskRequestSchema, "texts">;
export type ClassifyOptions = CallOptions &
  Fields<typeof ClassifyRequestSchema, "texts" | "textPairs"> & { readonly textPairs?: ForTexts };
export type SimilarityOptions = CallOptions &
  Fields<typeof SimilarityRequestSchema, "queries" | "texts">;
export type RerankOptions = CallOptions & Fields<typeof RerankRequestSchema, "query" | "documents">;
export type TokenizeOptions = CallOptions & Fields<typeof TokenizeRequestSchema, "texts">;
export type DetectLanguageOptions = CallOptions &
  Fields<typeof DetectLanguageRequestSchema, "texts">;
export type AttentionOptions = CallOptions & Fields<typeof GetAttentionRequestSchema, "text">;
