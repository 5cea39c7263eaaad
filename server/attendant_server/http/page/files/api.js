// Calls of attendant.v1 by Connect, with JSON.

const KEY = "key";
const JSON_TYPE = "application/json";
const STREAM_TYPE = "application/connect+json";
const END = 2; // the flag of the last envelope of a stream
const HEAD = 5; // bytes before the content of an envelope: flags, and the length

/** The credential of this tab; "" without one. */
export const credential = () => sessionStorage.getItem(KEY) ?? "";

/** Keeps a credential until the tab is closed, or forgets it. */
export function setCredential(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** A call that has failed. `faults` name the fields of the request that are bad. */
export class ApiError extends Error {
  constructor({ code = "unknown", message = "", details = [] }, retryAfter = "") {
    super(message || code);
    this.code = code;
    this.retryAfter = retryAfter;
    this.faults = faultsOf(code, this.message, details);
  }

  /** What has happened, for the caller. */
  get words() {
    if (this.code === "unauthenticated") return "The server wants an API key or a token. Give it under “Access”.";
    if (this.code === "permission_denied") return `This key does not permit it: ${this.message}`;
    const wait = this.retryAfter ? ` Try again in ${this.retryAfter} s.` : "";
    if (this.code === "unavailable") return `The server cannot answer now: ${this.message}.${wait}`;
    if (this.code === "resource_exhausted") return `Too much at once: ${this.message}.${wait}`;
    if (this.code === "deadline_exceeded") return "The server took too long.";
    return this.message;
  }
}

function faultsOf(code, message, details) {
  if (code === "unauthenticated") return [{ field: "key", description: "is missing or not valid" }];
  const found = details.flatMap(({ debug }) => debug?.fieldViolations ?? []);
  if (found.length) return found;
  const languages = details.flatMap(({ debug }) =>
    debug?.reason === "LANGUAGE_UNKNOWN" ? Object.keys(debug.metadata ?? {}) : [],
  );
  if (languages.length) return languages.map((field) => ({ field, description: message }));
  return faultOf(message);
}

/** The fault in the message of a text, such as "texts[1]: is empty". */
export function faultOf(message) {
  const named = /^([a-z_][\w.[\]]*): (.*)$/s.exec(message);
  return named ? [{ field: named[1], description: named[2] }] : [];
}

/** The answer to a method with one answer. Throws ApiError, or AbortError. */
export async function call(service, method, request, signal) {
  const response = await sent(path(service, method), JSON_TYPE, JSON.stringify(request), signal);
  return response.json();
}

/** The messages of a stream, as they come. Throws ApiError, or AbortError. */
export async function* stream(service, method, request, signal) {
  const response = await sent(path(service, method), STREAM_TYPE, enveloped(request), signal);
  let rest = new Uint8Array();
  for await (const chunk of chunksOf(response.body)) {
    rest = joined(rest, chunk);
    while (rest.length >= HEAD) {
      const length = new DataView(rest.buffer, rest.byteOffset).getUint32(1);
      if (rest.length < HEAD + length) break;
      const message = JSON.parse(new TextDecoder().decode(rest.subarray(HEAD, HEAD + length)));
      if (rest[0] & END) {
        if (message.error) throw new ApiError(message.error);
        return;
      }
      yield message;
      rest = rest.subarray(HEAD + length);
    }
  }
  throw new ApiError({ code: "unavailable", message: "the answer was cut off" });
}

/** What the models have done and have to do. */
export async function statistics(signal) {
  const response = await sent("page/statistics", "", undefined, signal);
  return response.json();
}

const path = (service, method) => `attendant.v1.${service}/${method}`;

async function sent(target, type, body, signal) {
  const headers = { ...(type && { "content-type": type, "connect-protocol-version": "1" }) };
  if (credential()) headers.authorization = `Bearer ${credential()}`;
  let response;
  try {
    response = await fetch(target, { method: body === undefined ? "GET" : "POST", headers, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ code: "unavailable", message: "there is no connection to it" });
  }
  if (response.ok) return response;
  throw new ApiError(await errorOf(response), response.headers.get("retry-after") ?? "");
}

const CODES = { 401: "unauthenticated", 403: "permission_denied", 429: "resource_exhausted", 503: "unavailable" };

/** The error of Connect; that of other routes, or of a proxy in between, by its status. */
async function errorOf(response) {
  const found = await response.json().catch(() => ({}));
  if (found.code) return found;
  return { code: CODES[response.status] ?? "unknown", message: found.error ?? `HTTP status ${response.status}` };
}

function enveloped(request) {
  const content = new TextEncoder().encode(JSON.stringify(request));
  const found = new Uint8Array(HEAD + content.length);
  new DataView(found.buffer).setUint32(1, content.length);
  found.set(content, HEAD);
  return found;
}

async function* chunksOf(body) {
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // a view that has gone reads no further
  }
}

function joined(first, second) {
  const found = new Uint8Array(first.length + second.length);
  found.set(first);
  found.set(second, first.length);
  return found;
}

/** The values of a Tensor of DATA_TYPE_FLOAT32, in row-major order. */
export function floats({ data = "" }) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}
