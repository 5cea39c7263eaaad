/** Answers that come in pieces. */

import type { CallOptions as TransportOptions } from "@connectrpc/connect";

import { newRequestId, type Connection } from "./connection.js";
import { badAnswer, callError } from "./errors.js";
import type { CallOptions } from "./options.js";
import type { CallReport } from "./results.js";
import { callReport, type Answer } from "./text_calls.js";

interface Piece extends Answer {
  readonly delta: string;
}

/**
 * The pieces of a text, which can be iterated over once.
 *
 * A call that fails before its first piece is retried like others. Leaving the loop cancels it.
 */
export class TextStream<P extends Piece, R> implements AsyncIterable<string> {
  private found: R | undefined;
  private isRead = false;

  constructor(
    private readonly connection: Connection,
    private readonly send: (options: TransportOptions) => AsyncIterable<P>,
    private readonly parse: (piece: P, call: CallReport) => R | undefined,
    private readonly options: CallOptions,
  ) {}

  /** The whole result. Throws before the stream was read to its end. */
  get result(): R {
    if (this.found === undefined) throw new Error("the stream was not read to its end");
    return this.found;
  }

  /** Read the stream to its end, and return the whole result. */
  async finish(): Promise<R> {
    for await (const _ of this) {
      // The result has all pieces.
    }
    return this.result;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    if (this.isRead) throw new Error("the stream has been read");
    this.isRead = true;
    const { signal, requestId = newRequestId() } = this.options;
    const attempts = this.connection.attempts(this.options);
    for (;;) {
      let hasBegun = false;
      const left = new AbortController();
      const leave = () => left.abort(signal?.reason);
      signal?.addEventListener("abort", leave, { once: true });
      if (signal?.aborted) leave();
      try {
        const headers = await this.connection.headers(this.options, requestId);
        const timeoutMs = attempts.remainingMs();
        for await (const piece of this.send({ headers, timeoutMs, signal: left.signal })) {
          hasBegun = true;
          this.take(piece, requestId);
          if (piece.delta) yield piece.delta;
        }
        if (this.found === undefined) throw badAnswer("a stream without its result", requestId);
        attempts.recordSuccess();
        return;
      } catch (thrown) {
        const failure = callError(thrown, requestId);
        if (hasBegun) throw failure;
        await this.connection.pause(failure, attempts, signal);
      } finally {
        signal?.removeEventListener("abort", leave);
        left.abort();
      }
    }
  }

  private take(piece: P, requestId: string): void {
    if (this.found !== undefined) throw badAnswer("a stream after its result", requestId);
    this.found = this.parse(piece, callReport(piece, requestId));
  }
}
