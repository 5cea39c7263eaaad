import assert from "node:assert/strict";
import { test } from "node:test";

import {
  CallTooLargeError,
  Client,
  OverloadedError,
  ServerError,
  UnavailableError,
} from "../src/index.js";
import { empty, failing, scripted } from "./server.js";

const retry = { initialBackoffMs: 1, maxBackoffMs: 2 };
/** RetryInfo with 10 ms, and ErrorInfo with CALL_TOO_LARGE, as protobuf in base64. */
const RETRY_INFO = { type: "google.rpc.RetryInfo", value: "CgUQgK3iBA" };
const TOO_LARGE = { type: "google.rpc.ErrorInfo", value: "Cg5DQUxMX1RPT19MQVJHRQ" };

test("calls that no server takes are sent again", async (t) => {
  const { url, requests } = await scripted(
    t,
    failing(503, "unavailable"),
    failing(503, "unavailable"),
    empty,
  );
  assert.deepEqual(await new Client(url, { retry }).models(), []);
  assert.equal(requests.length, 3);
  assert.equal(new Set(requests.map(({ headers }) => headers["x-request-id"])).size, 1);
});

test("attempts have an end", async (t) => {
  const { url, requests } = await scripted(t, failing(503, "unavailable"));
  await assert.rejects(new Client(url, { retry }).models(), UnavailableError);
  assert.equal(requests.length, 4);
});

test("a refusal is tried again after the wait that the server asks for, and not without one", async (t) => {
  const { url, requests } = await scripted(
    t,
    failing(429, "resource_exhausted", [RETRY_INFO]),
    empty,
  );
  await new Client(url).models();
  assert.equal(requests.length, 2);
  const full = await scripted(t, failing(429, "resource_exhausted"));
  await assert.rejects(new Client(full.url, { retry }).models(), OverloadedError);
  assert.equal(full.requests.length, 1);
  await assert.rejects(
    new Client((await scripted(t, failing(429, "resource_exhausted", [RETRY_INFO]))).url).models(),
    (error: OverloadedError) => error.retryAfterMs === 10,
  );
});

test("a model is unloaded once", async (t) => {
  const { url, requests } = await scripted(t, failing(503, "unavailable"));
  await assert.rejects(new Client(url, { retry }).unloadModel("a"), UnavailableError);
  assert.equal(requests.length, 1);
});

test("other failures are not tried again", async (t) => {
  const { url, requests } = await scripted(t, failing(500, "internal"));
  await assert.rejects(new Client(url, { retry }).models(), ServerError);
  assert.equal(requests.length, 1);
});

test("a call that is too large is sent in halves, until each text fails alone", async (t) => {
  const { url, requests } = await scripted(t, failing(400, "invalid_argument", [TOO_LARGE]));
  const found = await new Client(url).translate(["a", "b", "c"]);
  assert.deepEqual(
    found.errors.map(({ index }) => index),
    [0, 1, 2],
  );
  assert.equal(requests.length, 5);
  await assert.rejects(new Client(url).models(), CallTooLargeError);
});

test("a stream is retried before its first piece", async (t) => {
  const { url, requests } = await scripted(t, failing(503, "unavailable"));
  await assert.rejects(new Client(url, { retry }).streamTranslate("a").finish(), UnavailableError);
  assert.equal(requests.length, 4);
});

test("leaving a stream cancels its call", async (t) => {
  let close = () => {};
  const closed = new Promise<void>((resolve) => (close = resolve));
  const { url } = await scripted(t, (_, response) => {
    response.on("close", close).writeHead(200, { "content-type": "application/connect+proto" });
    response.write(Buffer.from([0, 0, 0, 0, 3, 0x0a, 1, 0x41])); // a piece with the text A
  });
  for await (const piece of new Client(url).streamTranslate("a")) {
    assert.equal(piece, "A");
    break;
  }
  await closed;
});

test("answers that violate the contract are errors", async (t) => {
  const { url } = await scripted(t, empty);
  await assert.rejects(new Client(url).translate("a"), /0 results for 1 texts/);
});

test("a server that there is not is unavailable", async (t) => {
  const { url } = await scripted(t, (request) => request.socket.destroy());
  await assert.rejects(new Client(url, { retry }).models(), (error: UnavailableError) => {
    assert.ok(error instanceof UnavailableError);
    assert.match(error.message, /no answer from the server/);
    return true;
  });
});

test("tokens are not sent in the clear to other machines", () => {
  assert.throws(() => new Client("http://attendant.example.com", { token: "a" }), TypeError);
  new Client("http://attendant.example.com", { token: "a", allowPlainToken: true });
  new Client("https://attendant.example.com", { token: "a" });
  assert.throws(() => new Client("nowhere"), TypeError);
  assert.throws(() => new Client("http://localhost", { retry: { maxAttempts: 0 } }), RangeError);
});
