/** The results of methods: the messages of the contract, with errors as errors. */

import type { Message } from "@bufbuild/protobuf";

import type {
  ClassifyResult,
  EmbedResult,
  EmbedSparseResult,
  EmbedTokensResult,
  FillMaskResult,
  RerankResult,
  SimilarityResult,
} from "./generated/attendant/v1/embedding_pb.js";
import type { DetectedLanguages as DetectedLanguagesMessage } from "./generated/attendant/v1/language_pb.js";
import type {
  Generation as GenerationMessage,
  TextScore as TextScoreMessage,
} from "./generated/attendant/v1/language_model_pb.js";
import type { TokenizeResult } from "./generated/attendant/v1/model_pb.js";
import type { Timings } from "./generated/attendant/v1/text_pb.js";
import type {
  Translation as TranslationMessage,
  TranslationScore as TranslationScoreMessage,
} from "./generated/attendant/v1/translation_pb.js";
import type { Status } from "./generated/google/rpc/status_pb.js";
import type { TextError } from "./errors.js";
import type { Numbers } from "./tensors.js";

/** The server's report on a whole call, which all results of the call share. */
export interface CallReport {
  readonly model: string;
  readonly numInputTokens: number;
  readonly numOutputTokens: number;
  readonly timings: Timings | undefined;
  /** The id of the call in the server's log. */
  readonly requestId: string;
  /** The seed of samples. */
  readonly seed: number | undefined;
}

/** What the results of all methods that take texts have. */
export interface TextResult {
  /** The error of the text; undefined for success. */
  readonly error: TextError | undefined;
  readonly call: CallReport;
}

type Fields<M extends Message> = Readonly<Omit<M, "error" | "$typeName" | "$unknown">>;
type Texts<M extends Message, More = object> = Fields<M> & TextResult & Readonly<More>;

/** Hypotheses, best first; `text` is the best one, and throws the error of a failed text. */
export type Translation = Texts<TranslationMessage, { text: string }>;
export type TranslationScore = Texts<TranslationScoreMessage>;
/** Continuations, best first; `text` is the best one, and throws the error of a failed text. */
export type Generation = Texts<GenerationMessage, { text: string }>;
export type TextScore = Texts<TextScoreMessage>;
interface Vectors {
  /** One vector for each chunk, token, word or span; one for a text as a whole. */
  vectors: readonly Numbers[];
  /** The factors of the vectors in int8 and uint8; empty otherwise. */
  scales: readonly number[];
}
/** `vector` is the first one of `vectors`, and empty for a text that failed. */
export type Embedding = Texts<EmbedResult, Vectors & { vector: Numbers }>;
export type TokenEmbeddings = Texts<Omit<EmbedTokensResult, "embeddings"> & Message, Vectors>;
export type SparseEmbedding = Texts<EmbedSparseResult>;
export type FilledText = Texts<FillMaskResult>;
export type ClassifiedText = Texts<ClassifyResult>;
/** `textErrors` are those of the texts, which `indices` leaves out. */
export type SimilarTexts = Texts<SimilarityResult, { textErrors: readonly TextError[] }>;
export type RankedDocument = Texts<RerankResult>;
export type Tokenization = Texts<TokenizeResult>;
export type DetectedLanguages = Texts<DetectedLanguagesMessage>;

/** The results of several texts, in the order of the texts. */
export class Results<R extends TextResult> extends Array<R> {
  // Methods such as map return arrays of anything.
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }

  /** The errors of the texts that failed. */
  get errors(): TextError[] {
    return [...this].flatMap(({ error }) => (error ? [error] : []));
  }

  /** Returns these results; throws the error of the first text that failed. */
  throwForErrors(): this {
    const [first] = this.errors;
    if (first) throw first;
    return this;
  }
}

/** A message that has a result for a text. */
export type ResultMessage = Message & { error?: Status };

/** The result for a text, from its message. */
export function textResult<R extends TextResult>(
  message: ResultMessage,
  error: TextError | undefined,
  call: CallReport,
  more: object = {},
): R {
  const { $typeName: _, $unknown: __, ...fields } = message;
  return Object.assign(fields, more, { error, call }) as unknown as R;
}

/** The result with `text`, which is that of the best hypothesis. */
export function withText<R extends TextResult & { hypotheses: readonly { text: string }[] }>(
  result: R,
): R & { readonly text: string } {
  const text = {
    enumerable: false,
    get(): string {
      if (result.error) throw result.error;
      return result.hypotheses[0]?.text ?? "";
    },
  };
  return Object.defineProperty(result, "text", text) as R & { readonly text: string };
}
