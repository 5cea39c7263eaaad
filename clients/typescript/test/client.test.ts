import assert from "node:assert/strict";
import { test } from "node:test";

import {
  CallCancelledError,
  Client,
  Code,
  DataType,
  DeadlineExceededError,
  InvalidRequestError,
  NotFoundError,
  Results,
  TextError,
  UnauthenticatedError,
  UnsupportedError,
  VectorUnit,
} from "../src/index.js";
import { client, token, url } from "./server.js";

const TEXT = "The dog sees the king. The old cat.";
const model = "tiny-en-de";

test("a text has a translation", async () => {
  const translation = await client.translate(TEXT, {
    model,
    beamSize: 4,
    numHypotheses: 2,
    requestId: "of-ts",
  });
  assert.equal(translation.text, translation.hypotheses[0]!.text);
  assert.equal(translation.hypotheses.length, 2);
  assert.match(translation.text, /Hund/);
  assert.equal(translation.error, undefined);
  assert.equal(translation.call.model, "tiny-en-de/1");
  assert.equal(translation.call.requestId, "of-ts");
  assert.ok(translation.call.numInputTokens > 0);
});

test("more texts than the server takes are sent in several calls", async () => {
  const texts = Array.from({ length: 10 }, (_, i) => (i === 7 ? "" : TEXT));
  const found = await client.translate(texts, { model });
  assert.ok(found instanceof Results);
  assert.equal(found.length, 10);
  assert.equal(new Set(found.map(({ call }) => call.requestId)).size, 3); // 4, 4 and 2
  const [error] = found.errors;
  assert.ok(error instanceof TextError);
  assert.deepEqual([error.index, error.code], [7, Code.InvalidArgument]);
  assert.doesNotMatch(error.message, /texts\[/);
  assert.throws(() => found[7]!.text, error);
  assert.throws(() => found.throwForErrors(), error);
  assert.equal(found[9]!.text, found[0]!.text);
});

test("texts that cannot be sent fail alone", async () => {
  const found = await client.translate(["a\ud800", "The old cat."], { model });
  assert.match(found[0]!.error!.message, /lone surrogate at UTF-16 unit 1/);
  assert.equal(found[1]!.error, undefined);
  assert.throws(() => client.streamTranslate("\udc00"), TextError);
});

test("prefixes go with their texts", async () => {
  const found = await client.translate(Array(6).fill("The old cat."), {
    model,
    targetPrefix: ["Der", "", "Die", "Der", "", "Die"],
  });
  assert.match(found[5]!.text, /^Die/);
  assert.throws(() => client.translate(["a", "b"], { targetPrefix: ["a"] }), RangeError);
});

test("samples do not depend on how a call is split", async () => {
  const sampling = { temperature: 1, seed: 7 };
  const texts = Array<string>(9).fill("The old cat.");
  const first = await client.translate(texts, { model, sampling });
  const again = await client.translate(texts, { model, sampling });
  assert.deepEqual(
    first.map(({ text }) => text),
    again.map(({ text }) => text),
  );
  assert.ok(new Set(first.map(({ text }) => text)).size > 1);
  assert.equal(first[8]!.call.seed, 7);
});

test("a stream has the pieces of the translation", async () => {
  const stream = client.streamTranslate(TEXT, { model });
  assert.throws(() => stream.result, /not read to its end/);
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  assert.ok(pieces.length > 1);
  assert.equal(pieces.join(""), stream.result.text);
  assert.equal(stream.result.text, (await client.translate(TEXT, { model })).text);
  await assert.rejects(stream.finish(), /has been read/);
});

test("pairs have scores", async () => {
  const [pair] = await client.score([[TEXT, "Der Hund."]], { model });
  assert.ok(pair!.logProbability < 0);
});

test("a prompt is continued, as a whole and in pieces", async () => {
  const options = { model: "tiny-lm", maxOutputTokens: 8 };
  const generation = await client.generate("the old king", options);
  assert.equal(
    (await client.streamGenerate("the old king", options).finish()).text,
    generation.text,
  );
  assert.ok((await client.scoreTexts("the old king", { model: "tiny-lm" })).logProbability < 0);
});

test("texts have vectors", async () => {
  const [first, failed, ...others] = await client.embed([TEXT, "", "a", "b", "c"], {
    model: "tiny-bert",
  });
  assert.ok(first!.vector instanceof Float32Array);
  const length = Math.hypot(...first!.vector);
  assert.ok(Math.abs(length - 1) < 1e-5);
  assert.equal(failed!.vector.length, 0);
  assert.ok(failed!.error);
  assert.equal(others[2]!.vector.length, first!.vector.length);
  const half = await client.embed(TEXT, { model: "tiny-bert", dataType: DataType.FLOAT16 });
  half.vector.forEach((value, i) => assert.ok(Math.abs(value - first!.vector[i]!) < 1e-3));
  const int8 = await client.embed(TEXT, { model: "tiny-bert", dataType: DataType.INT8 });
  assert.ok(int8.vector instanceof Int8Array);
  int8.vector.forEach((value, i) =>
    assert.ok(Math.abs(value * int8.scales[0]! - first!.vector[i]!) < 0.01),
  );
});

test("tokens and words have vectors", async () => {
  const tokens = await client.embedTokens(TEXT, { model: "tiny-bert" });
  assert.equal(tokens.vectors.length, tokens.tokens.length);
  const words = await client.embedTokens("😀 dog", { model: "tiny-bert", unit: VectorUnit.WORDS });
  assert.equal(words.vectors.length, words.spans.length);
  assert.equal(words.spans.at(-1)!.end, "😀 dog".length); // in UTF-16 units
});

test("masks, labels and terms have scores", async () => {
  const filled = await client.fillMask("the [MASK] cat", { model: "tiny-bert", topK: 2 });
  assert.equal(filled.masks[0]!.candidates.length, 2);
  const classified = await client.classify(["a", "b"], { model: "tiny-classifier" });
  assert.ok(classified[1]!.labels[0]!.label);
  const sparse = await client.embedSparse(TEXT, { model: "tiny-splade" });
  assert.equal(sparse.tokenIds.length, sparse.weights.length);
});

test("queries find similar texts", async () => {
  const found = await client.similarity(["the old cat", "the dog"], ["the old cat", ""], {
    model: "tiny-bert",
  });
  assert.deepEqual([...found[0]!.indices], [0]);
  assert.ok(found[0]!.scores[0]! > 0.999);
  assert.equal(found[0]!.textErrors[0]!.index, 1);
});

test("offsets are UTF-16 units", async () => {
  const { tokens } = await client.tokenize("😀 dog", { model: "tiny-bert" });
  const last = tokens.filter(({ special }) => !special).at(-1)!;
  assert.equal("😀 dog".slice(last.start, last.end), "dog".slice(3 - (last.end - last.start)));
});

test("models are described", async () => {
  assert.ok((await client.models()).some(({ name }) => name === model));
  assert.equal((await client.model(model)).model!.version, "1");
  assert.equal(await client.health(), "serving");
});

test("errors have classes, codes and details", async () => {
  await assert.rejects(client.translate("a", { model: "none" }), NotFoundError);
  const request = client.translate("a", { model, beamSize: 999, requestId: "bad-1" });
  await assert.rejects(request, (error: InvalidRequestError) => {
    assert.ok(error instanceof InvalidRequestError);
    assert.equal(error.name, "InvalidRequestError");
    assert.equal(error.code, Code.InvalidArgument);
    assert.equal(error.requestId, "bad-1");
    assert.match(error.violations[0]!.field, /beam_size/);
    return true;
  });
  await assert.rejects(
    client.translate("a", { sourceLanguage: "xx", targetLanguage: "yy" }),
    (error: NotFoundError) =>
      error.reason === "LANGUAGE_UNKNOWN" && error.reasonDetails["source_language"] === "xx",
  );
  await assert.rejects(client.rerank("a", ["b"], { model: "tiny-bert" }), UnsupportedError);
  assert.throws(() => client.translate("a", { modle: "a" } as object), /no option modle/);
  await assert.rejects(new Client(url).translate("a", { model }), UnauthenticatedError);
});

test("calls end at their deadline and with their signal", async () => {
  const texts = Array<string>(4).fill(TEXT.repeat(20));
  await assert.rejects(client.translate(texts, { model, timeoutMs: 1 }), DeadlineExceededError);
  await assert.rejects(
    client.translate("a", { model, signal: AbortSignal.abort() }),
    CallCancelledError,
  );
  const controller = new AbortController();
  const stream = client.streamTranslate(TEXT, { model, signal: controller.signal });
  await assert.rejects(async () => {
    for await (const _ of stream) controller.abort();
  }, CallCancelledError);
});

test("tokens may come from functions", async () => {
  const asked = new Client(url, { token: async () => token });
  assert.match((await asked.translate("The old cat.", { model })).text, /alte/);
});
