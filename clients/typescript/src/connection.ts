/** The connection to a server: transport, headers, time limits, retries. */

import { Code, type CallOptions as TransportOptions, type Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";

import { callError, CallCancelledError, type CallError } from "./errors.js";
import { DEFAULT_TIMEOUT_MS, type CallOptions, type ClientOptions } from "./options.js";
import { Attempts, retryPolicy, RetryThrottle } from "./retries.js";

/** An answer, and the id of its call in the server's log. */
export interface Answered<O> {
  readonly answer: O;
  readonly requestId: string;
}

export class Connection {
  readonly transport: Transport;
  private readonly policy;
  private readonly throttle = new RetryThrottle();

  /** Throws RangeError or TypeError for bad options. */
  constructor(
    readonly baseUrl: string,
    private readonly options: ClientOptions,
  ) {
    const url = new URL(baseUrl);
    const isSafe = url.protocol === "https:" || isLocal(url.hostname);
    if (options.token !== undefined && !isSafe && !options.allowPlainToken) {
      throw new TypeError("a token needs https://, this machine, or allowPlainToken");
    }
    this.policy = retryPolicy(options.retry ?? {});
    this.transport =
      options.transport ??
      createConnectTransport({ baseUrl, useBinaryFormat: true, fetch: options.fetch });
  }

  /** Send a call, again if it fails in a way that allows it. Throws CallError. */
  async call<O>(
    send: (options: TransportOptions) => Promise<O>,
    options: CallOptions,
    isIdempotent = true,
  ): Promise<Answered<O>> {
    const attempts = this.attempts(options, isIdempotent);
    const requestId = options.requestId ?? newRequestId();
    for (;;) {
      try {
        const headers = await this.headers(options, requestId);
        const timeoutMs = attempts.remainingMs();
        const answer = await send({ headers, timeoutMs, signal: options.signal });
        attempts.recordSuccess();
        return { answer, requestId };
      } catch (thrown) {
        await this.pause(callError(thrown, requestId), attempts, options.signal);
      }
    }
  }

  /** The attempts of a call. */
  attempts(options: CallOptions, isIdempotent = true): Attempts {
    const timeoutMs = options.timeoutMs ?? this.options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    return new Attempts(this.policy, this.throttle, timeoutMs, isIdempotent);
  }

  /** Wait until the next attempt. Throws `failure` if there is none. */
  async pause(failure: CallError, attempts: Attempts, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) throw failure;
    const waitMs = attempts.waitMsAfter(failure);
    await new Promise<void>((resolve, reject) => {
      const abort = () => {
        clearTimeout(timer);
        const { requestId } = failure;
        reject(new CallCancelledError("the call was cancelled", Code.Canceled, { requestId }));
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", abort);
        resolve();
      }, waitMs);
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  /** The headers of an attempt. */
  async headers(options: CallOptions, requestId: string): Promise<Headers> {
    const headers = new Headers(this.options.headers);
    headers.set("x-request-id", requestId);
    if (options.isBulk) headers.set("attendant-class", "bulk");
    const { token } = this.options;
    const current = typeof token === "function" ? await token() : token;
    if (current) headers.set("authorization", `Bearer ${current}`);
    return headers;
  }
}

/** A new id of calls, 16 hexadecimal digits. */
export function newRequestId(): string {
  return crypto.randomUUID().replaceAll("-", "").slice(16);
}

function isLocal(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
}
