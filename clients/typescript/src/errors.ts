/**
 * The errors of the client, and their creation from those of Connect.
 *
 *     AttendantError                  anything that went wrong between the client and the server
 *     ├── TextError                   one text of a call failed, the others did not
 *     └── CallError                   the whole call failed
 *         ├── InvalidRequestError     a value of the request is bad; trying again will not help
 *         │   └── CallTooLargeError   the call exceeds a limit that fewer texts may keep
 *         ├── NotFoundError           there is no such model or service
 *         ├── UnsupportedError        this model or this server cannot do it
 *         ├── UnauthenticatedError    the server does not know the caller
 *         ├── PermissionDeniedError   the caller may not do it
 *         ├── OverloadedError         the server has no room now, or a quota is used up
 *         ├── UnavailableError        no server answers, or it is draining, or the model is loading
 *         ├── DeadlineExceededError   the deadline of the call has passed
 *         ├── CallCancelledError      the call was cancelled, here or by a stopping server
 *         └── ServerError             the server failed, or its answer violates the contract
 */

import { Code, ConnectError } from "@connectrpc/connect";
import { type Duration } from "@bufbuild/protobuf/wkt";

import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "./generated/google/rpc/error_details_pb.js";
import type { Status } from "./generated/google/rpc/status_pb.js";

const TOO_LARGE = "CALL_TOO_LARGE";

/** A field of the request that is bad. */
export interface FieldViolation {
  /** The name of the field in the contract, such as `texts[3]`. */
  readonly field: string;
  readonly description: string;
}

/** What a program can read of an error beyond its code. */
export interface ErrorDetails {
  /** The fault, such as `LANGUAGE_UNKNOWN`; empty if the server states none. */
  readonly reason?: string;
  /** The values of the fault by their names. */
  readonly reasonDetails?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
  /** The wait that the server asks for before a retry. */
  readonly retryAfterMs?: number;
  /** The id of the call in the server's log; empty if nothing was sent. */
  readonly requestId?: string;
  readonly cause?: unknown;
}

/** Root of the errors that the client throws. */
export class AttendantError extends Error {
  /** The status. */
  readonly code: Code;
  readonly requestId: string;

  constructor(message: string, code: Code, details: ErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.name = new.target.name;
    this.code = code;
    this.requestId = details.requestId ?? "";
  }
}

/** One text of a call failed; `index` is its index among the texts of the method, from 0. */
export class TextError extends AttendantError {
  readonly index: number;

  constructor(message: string, code: Code, index: number, requestId = "") {
    super(message, code, { requestId });
    this.index = index;
  }
}

/** The whole call failed. */
export class CallError extends AttendantError {
  readonly reason: string;
  readonly reasonDetails: Readonly<Record<string, string>>;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;

  constructor(message: string, code: Code, details: ErrorDetails = {}) {
    super(message, code, details);
    this.reason = details.reason ?? "";
    this.reasonDetails = details.reasonDetails ?? {};
    this.violations = details.violations ?? [];
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** A value of the request is bad; the message names the field and the limit. */
export class InvalidRequestError extends CallError {}

/** The request, or the answer to it, is too large; with fewer texts, it may not be. */
export class CallTooLargeError extends InvalidRequestError {
  /** The server's limit of the texts of a call; undefined if another limit is exceeded. */
  get maxTexts(): number | undefined {
    const limit = this.reasonDetails["max_texts"] ?? "";
    return /^\d+$/.test(limit) ? Number(limit) : undefined;
  }
}

/** The server has no model or service of this name. */
export class NotFoundError extends CallError {}

/** The model or the server cannot do what was asked. */
export class UnsupportedError extends CallError {}

/** The server does not know the caller: the token is missing, wrong or expired. */
export class UnauthenticatedError extends CallError {}

/** The server knows the caller, but does not allow it this method or model. */
export class PermissionDeniedError extends CallError {}

/** The server has no room now, or a quota of the caller is used up. */
export class OverloadedError extends CallError {}

/** No server answers, it is draining, or the model is still loading. */
export class UnavailableError extends CallError {}

/** The deadline of the call passed before the answer came. */
export class DeadlineExceededError extends CallError {}

/** The call was cancelled: by its signal, or by a server that stopped before the call. */
export class CallCancelledError extends CallError {}

/** The server failed, or its answer violates the contract. */
export class ServerError extends CallError {}

const CLASSES: Readonly<Record<Code, typeof CallError>> = {
  [Code.Canceled]: CallCancelledError,
  [Code.Unknown]: ServerError,
  [Code.InvalidArgument]: InvalidRequestError,
  [Code.DeadlineExceeded]: DeadlineExceededError,
  [Code.NotFound]: NotFoundError,
  [Code.AlreadyExists]: ServerError,
  [Code.PermissionDenied]: PermissionDeniedError,
  [Code.ResourceExhausted]: OverloadedError,
  [Code.FailedPrecondition]: UnsupportedError,
  [Code.Aborted]: ServerError,
  [Code.OutOfRange]: InvalidRequestError,
  [Code.Unimplemented]: UnsupportedError,
  [Code.Internal]: ServerError,
  [Code.Unavailable]: UnavailableError,
  [Code.DataLoss]: ServerError,
  [Code.Unauthenticated]: UnauthenticatedError,
};

/** The CallError for what a call has thrown. */
export function callError(thrown: unknown, requestId: string): CallError {
  if (thrown instanceof CallError) return thrown;
  const error = ConnectError.from(thrown);
  if (error.cause instanceof TypeError) {
    // What fetch throws for every failure of the network.
    const { cause } = error.cause;
    const more = cause instanceof Error && cause.message ? ` (${cause.message})` : "";
    const message = `no answer from the server: ${error.cause.message}${more}`;
    return new UnavailableError(message, Code.Unavailable, { requestId, cause: thrown });
  }
  const info = error.findDetails(ErrorInfoSchema)[0];
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const kind = info?.reason === TOO_LARGE ? CallTooLargeError : CLASSES[error.code];
  return new kind(error.rawMessage || `the call failed with ${Code[error.code]}`, error.code, {
    reason: info?.reason,
    reasonDetails: info?.metadata,
    violations: error
      .findDetails(BadRequestSchema)
      .flatMap(({ fieldViolations }) =>
        fieldViolations.map(({ field, description }) => ({ field, description })),
      ),
    retryAfterMs: delay && milliseconds(delay),
    requestId,
    cause: thrown,
  });
}

/** The error of text `index`, from the status in its result. */
export function textError(status: Status, index: number, requestId: string): TextError {
  const code = Code[status.code] === undefined ? Code.Unknown : (status.code as Code);
  return new TextError(withoutPlace(status.message), code, index, requestId);
}

/** The error for an answer that violates the contract. */
export function badAnswer(problem: string, requestId: string): ServerError {
  const message = `the server's answer is wrong: ${problem}`;
  return new ServerError(message, Code.Internal, { requestId });
}

const PLACE = /^(?:texts|pairs|queries|documents|prompts)\[\d+\](?:\.(\w+))?: /;

/** A message without the index of its text in the request, which is another one after a split. */
function withoutPlace(message: string): string {
  return message.replace(PLACE, (_, side: string | undefined) => (side ? `${side}: ` : ""));
}

function milliseconds(delay: Duration): number {
  return Math.max(0, Number(delay.seconds) * 1000 + delay.nanos / 1e6);
}
