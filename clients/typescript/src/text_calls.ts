/** Calls with texts: how they are split where they exceed a limit, and how their answers are read. */

import { clone, toBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";

import { badAnswer, CallTooLargeError, TextError, textError } from "./errors.js";
import type { CallReport, ResultMessage, TextResult } from "./results.js";
import type { Timings, TokenCounts } from "./generated/attendant/v1/text_pb.js";

const DEFAULT_MAX_TEXTS = 256;
const MAX_REQUEST_BYTES = 4 * 1024 * 1024 - 4096;

/** What answers to calls with texts have. */
export interface Answer {
  model?: string;
  tokenCounts?: TokenCounts;
  timings?: Timings;
  seed?: number;
}

/** A call that has a result for each of its texts. */
export interface TextCall<I extends DescMessage, O, R extends TextResult> {
  readonly schema: I;
  readonly request: MessageShape<I>;
  /** The fields of the request that have a value for each text. */
  readonly fields: readonly string[];
  readonly send: (request: MessageShape<I>) => Promise<{ answer: O; requestId: string }>;
  /** The messages of an answer that have a result each. */
  readonly items: (answer: O) => ResultMessage[];
  /** The results, from the answer, the errors of the texts and the report. */
  readonly parse: (
    answer: O,
    errors: readonly (TextError | undefined)[],
    call: CallReport,
    first: number,
  ) => R[];
  /** The problems of texts that cannot be sent; the request has an empty text instead. */
  readonly faults: ReadonlyMap<number, string>;
  /** The index of the first text among those of the method. */
  readonly first: number;
}

type AnyCall<R extends TextResult> = TextCall<DescMessage, any, R>;

/** Sends calls in parts where they exceed the limits of the server, which it learns. */
export class CallSplitter {
  private maxTexts = DEFAULT_MAX_TEXTS;

  /** The results of a call, in the order of its texts. */
  async results<R extends TextResult>(call: AnyCall<R>): Promise<R[]> {
    const found: R[] = [];
    for (const part of this.parts(call)) found.push(...(await this.part(part)));
    return found;
  }

  private async part<R extends TextResult>(call: AnyCall<R>): Promise<R[]> {
    let parts: AnyCall<R>[];
    try {
      const { answer, requestId } = await call.send(call.request);
      return parsed(call, answer, requestId);
    } catch (error) {
      if (!(error instanceof CallTooLargeError)) throw error;
      const numTexts = numberOf(call);
      if (numTexts === 1) return [tooLarge(call, error)];
      parts = this.smaller(call, error);
    }
    const found: R[] = [];
    for (const part of parts) found.push(...(await this.part(part)));
    return found;
  }

  private parts<R extends TextResult>(call: AnyCall<R>): AnyCall<R>[] {
    const numTexts = numberOf(call);
    if (numTexts === 0) return [];
    if (numTexts > this.maxTexts) {
      const numParts = Math.ceil(numTexts / this.maxTexts);
      return Array.from({ length: numParts }, (_, i) =>
        cut(call, i * this.maxTexts, Math.min(numTexts, (i + 1) * this.maxTexts)),
      ).flatMap((part) => this.parts(part));
    }
    if (numTexts > 1 && toBinary(call.schema, call.request).length > MAX_REQUEST_BYTES) {
      return halves(call).flatMap((part) => this.parts(part));
    }
    return [call];
  }

  private smaller<R extends TextResult>(call: AnyCall<R>, error: CallTooLargeError): AnyCall<R>[] {
    const limit = error.maxTexts;
    if (limit === undefined || limit < 1 || limit >= numberOf(call)) return halves(call);
    this.maxTexts = Math.min(this.maxTexts, limit);
    return this.parts(call);
  }
}

/** The texts, empty where one cannot be sent, and the problems of these by their indices. */
export function sendable(texts: readonly string[]): {
  sent: string[];
  faults: Map<number, string>;
} {
  const faults = new Map<number, string>();
  const sent = texts.map((text, i) => {
    if (typeof text !== "string")
      throw new TypeError(`a text must be a string, not ${typeof text}`);
    const place = text.search(LONE_SURROGATE);
    if (place < 0) return text;
    faults.set(i, `has a lone surrogate at UTF-16 unit ${place}`);
    return "";
  });
  return { sent, faults };
}

const LONE_SURROGATE = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/;

/** The report on a call, from its answer. */
export function callReport(answer: Answer, requestId: string): CallReport {
  return {
    model: answer.model ?? "",
    numInputTokens: answer.tokenCounts?.numInputTokens ?? 0,
    numOutputTokens: answer.tokenCounts?.numOutputTokens ?? 0,
    timings: answer.timings,
    requestId,
    seed: answer.seed,
  };
}

function parsed<R extends TextResult>(call: AnyCall<R>, answer: Answer, requestId: string): R[] {
  const items = call.items(answer);
  const numTexts = numberOf(call);
  if (items.length !== numTexts) {
    throw badAnswer(`${items.length} results for ${numTexts} texts`, requestId);
  }
  const errors = items.map((item, i) => {
    const fault = call.faults.get(i);
    if (fault) return new TextError(fault, Code.InvalidArgument, call.first + i, requestId);
    return item.error && textError(item.error, call.first + i, requestId);
  });
  return call.parse(answer, errors, callReport(answer, requestId), call.first);
}

/** The result of the only text of a call that is too large. */
function tooLarge<R extends TextResult>(call: AnyCall<R>, error: CallTooLargeError): R {
  const failure = new TextError(error.message, error.code, call.first, error.requestId);
  return { error: failure, call: callReport({}, error.requestId) } as R;
}

function numberOf<R extends TextResult>(call: AnyCall<R>): number {
  return valuesOf(call.request, call.fields[0]!).length;
}

function valuesOf(request: object, field: string): unknown[] {
  return (request as Record<string, unknown[]>)[field]!;
}

function halves<R extends TextResult>(call: AnyCall<R>): AnyCall<R>[] {
  const numTexts = numberOf(call);
  const middle = numTexts >> 1;
  return [cut(call, 0, middle), cut(call, middle, numTexts)];
}

/** The call with the texts `begin` to `end`, exclusive, only. */
function cut<R extends TextResult>(call: AnyCall<R>, begin: number, end: number): AnyCall<R> {
  const request = clone(call.schema, call.request);
  for (const field of call.fields) {
    (request as unknown as Record<string, unknown[]>)[field] = valuesOf(request, field).slice(
      begin,
      end,
    );
  }
  // Each text has the samples that it has in the whole call.
  const { options } = request as { options?: { sampling?: { firstIndex: number } } };
  if (options?.sampling) options.sampling.firstIndex += begin;
  const faults = new Map(
    [...call.faults].flatMap(([i, problem]): [number, string][] =>
      i >= begin && i < end ? [[i - begin, problem]] : [],
    ),
  );
  return { ...call, request, faults, first: call.first + begin };
}
