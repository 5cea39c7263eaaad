/** The client of attendant. */

export { Code } from "@connectrpc/connect";

export { Client } from "./client.js";
export type { GenerationStream, TranslationStream } from "./decoding_calls.js";
export {
  AttendantError,
  CallCancelledError,
  CallError,
  CallTooLargeError,
  DeadlineExceededError,
  InvalidRequestError,
  NotFoundError,
  OverloadedError,
  PermissionDeniedError,
  ServerError,
  TextError,
  UnauthenticatedError,
  UnavailableError,
  UnsupportedError,
  type ErrorDetails,
  type FieldViolation,
} from "./errors.js";
export {
  Chunking,
  DataType,
  LayerCombination,
  Pooling,
  ScoreFunction,
  TextRole,
  VectorUnit,
} from "./generated/attendant/v1/embedding_pb.js";
export { ModelKind } from "./generated/attendant/v1/bundle_pb.js";
export { ModelState, TextSide } from "./generated/attendant/v1/model_pb.js";
export {
  Markup,
  OffsetUnit,
  Splitting,
  TextNormalization,
  Truncation,
} from "./generated/attendant/v1/text_pb.js";
export { FinishReason } from "./generated/attendant/v1/translation_pb.js";
export type * from "./options.js";
export { Results } from "./results.js";
export type {
  CallReport,
  ClassifiedText,
  DetectedLanguages,
  Embedding,
  FilledText,
  Generation,
  RankedDocument,
  SimilarTexts,
  SparseEmbedding,
  TextResult,
  TextScore,
  TokenEmbeddings,
  Tokenization,
  Translation,
  TranslationScore,
} from "./results.js";
export type { RetryPolicy } from "./retries.js";
export type { TextStream } from "./streams.js";
export type { Numbers } from "./tensors.js";
