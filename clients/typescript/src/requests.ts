/** Builds the requests of methods from their options. */

import {
  create,
  type DescMessage,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";

import { OffsetUnit } from "./generated/attendant/v1/text_pb.js";
import { sendable } from "./text_calls.js";

/**
 * A request with the fields that options and `values` have. Fields of the message in `inner`, such
 * as `beamSize` of `options`, may stand beside the others.
 *
 * Offsets are UTF-16 units, those of JavaScript's strings, unless the options have another unit.
 * Throws TypeError for an option that the request does not have.
 */
export function newRequest<D extends DescMessage>(
  schema: D,
  options: object,
  values: object,
  inner?: DescMessage,
): MessageShape<D> {
  const fields: Record<string, unknown> = {};
  const nested: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || COMMON.has(name)) continue;
    if (schema.field[name] && name !== "options" && !(name in values)) fields[name] = value;
    else if (inner?.field[name]) nested[name] = value;
    else throw new TypeError(`there is no option ${name}`);
  }
  if (schema.field["offsetUnit"]) fields["offsetUnit"] ??= OffsetUnit.UTF16_UNITS;
  if (inner) fields["options"] = create(inner, nested);
  return create(schema, { ...fields, ...values } as MessageInitShape<D>);
}

const COMMON = new Set(["timeoutMs", "signal", "requestId", "isBulk"]);

/** Several texts, and the faults of those that cannot be sent. */
export function textList(texts: string | readonly string[]) {
  return sendable(typeof texts === "string" ? [texts] : texts);
}

/**
 * The values that go with the texts, and the faults of all; `name` is that of the values.
 * Throws RangeError for another number of values than of texts.
 */
export function beside(
  values: string | readonly string[],
  name: string,
  texts: ReturnType<typeof textList>,
) {
  const { sent, faults } = textList(values);
  if (sent.length !== texts.sent.length) {
    throw new RangeError(`${name} must be ${texts.sent.length} texts, as many as texts`);
  }
  const named = [...faults].map(([i, problem]): [number, string] => [i, `${name}: ${problem}`]);
  return { sent, faults: new Map([...named, ...texts.faults]) };
}

/** A seed, the same for all parts of a call that may be split. */
export function withSeed(request: { options?: { sampling?: { seed?: number } } }): void {
  const sampling = request.options?.sampling;
  if (sampling) sampling.seed ??= crypto.getRandomValues(new Uint32Array(1))[0]!;
}
