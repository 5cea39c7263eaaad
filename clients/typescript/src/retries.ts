/** Decides whether and when a failed call is retried. Sends nothing and waits for nothing. */

import { Code } from "@connectrpc/connect";

import type { CallError } from "./errors.js";

/**
 * Which failures are retried, and when.
 *
 * UNAVAILABLE is retried after an exponential back-off with full jitter: a random time between 0
 * and `initialBackoffMs` · `backoffMultiplier` ^ (attempts so far - 1), at most `maxBackoffMs`. If
 * the server states a wait, the client waits that time instead. RESOURCE_EXHAUSTED is retried only
 * if the server states a wait. CANCELLED by a stopping server is retried like UNAVAILABLE. No other
 * failure is retried.
 */
export interface RetryPolicy {
  /** Attempts of a call, the first one included; 1 for no retries. */
  readonly maxAttempts: number;
  readonly initialBackoffMs: number;
  readonly maxBackoffMs: number;
  readonly backoffMultiplier: number;
}

export const DEFAULT_RETRY: RetryPolicy = {
  maxAttempts: 4,
  initialBackoffMs: 100,
  maxBackoffMs: 5000,
  backoffMultiplier: 2,
};

/** The policy with defaults for what is absent. Throws RangeError for bad values. */
export function retryPolicy(given: Partial<RetryPolicy>): RetryPolicy {
  const policy = { ...DEFAULT_RETRY, ...given };
  if (!(policy.maxAttempts >= 1)) throw new RangeError("maxAttempts must be at least 1");
  const isOrdered = policy.initialBackoffMs <= policy.maxBackoffMs;
  if (!(policy.initialBackoffMs >= 0 && isOrdered && Number.isFinite(policy.maxBackoffMs))) {
    throw new RangeError("back-offs must be finite, and the initial one not above the maximum");
  }
  if (!(policy.backoffMultiplier >= 1 && Number.isFinite(policy.backoffMultiplier))) {
    throw new RangeError("backoffMultiplier must be at least 1");
  }
  return policy;
}

/**
 * Stops blind retries of one client while most of them fail.
 *
 * A failed retry takes one token of 10, a successful call returns a tenth. Retries are allowed
 * while more than half is left.
 */
export class RetryThrottle {
  private static readonly MAX_TOKENS = 10;
  private tokens = RetryThrottle.MAX_TOKENS;

  recordSuccess(): void {
    this.tokens = Math.min(RetryThrottle.MAX_TOKENS, this.tokens + 0.1);
  }

  /** Take a token for a failed retry; returns whether another retry is allowed. */
  recordFailure(isRetry: boolean): boolean {
    if (isRetry) this.tokens = Math.max(0, this.tokens - 1);
    return this.tokens > RetryThrottle.MAX_TOKENS / 2;
  }
}

/** The attempts of one call: the time that is left, and the wait after a failure. */
export class Attempts {
  private readonly deadline: number;
  private numAttempts = 1;

  constructor(
    private readonly policy: RetryPolicy,
    private readonly throttle: RetryThrottle,
    timeoutMs: number,
    private readonly isIdempotent: boolean,
    private readonly clock: () => number = () => performance.now(),
    private readonly chance: () => number = Math.random,
  ) {
    this.deadline = clock() + timeoutMs;
  }

  /** Milliseconds until the deadline; at least 1, because 0 stands for no deadline. */
  remainingMs(): number {
    return Math.max(1, Math.ceil(this.deadline - this.clock()));
  }

  recordSuccess(): void {
    this.throttle.recordSuccess();
  }

  /** Milliseconds until the next attempt. Throws `failure` if there is none. */
  waitMsAfter(failure: CallError): number {
    const wait = this.waitMs(failure);
    const isLast = this.numAttempts >= this.policy.maxAttempts;
    if (wait === undefined || isLast || wait >= this.deadline - this.clock()) throw failure;
    const isAllowed = this.throttle.recordFailure(this.numAttempts > 1);
    if (failure.retryAfterMs === undefined && !isAllowed) throw failure;
    this.numAttempts++;
    return wait;
  }

  private waitMs(failure: CallError): number | undefined {
    const isRefusal = failure.code === Code.ResourceExhausted;
    const isGone = failure.code === Code.Unavailable || failure.code === Code.Canceled;
    if (!isRefusal && !isGone) return undefined;
    if (failure.retryAfterMs !== undefined) return failure.retryAfterMs;
    if (isRefusal || !this.isIdempotent) return undefined;
    const { initialBackoffMs, backoffMultiplier, maxBackoffMs } = this.policy;
    const longest = initialBackoffMs * backoffMultiplier ** (this.numAttempts - 1);
    return this.chance() * Math.min(maxBackoffMs, longest);
  }
}
