/** What the methods of the client have in common. */

import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { Code, type CallOptions as Sent } from "@connectrpc/connect";

import { Connection } from "./connection.js";
import { TextError, textError } from "./errors.js";
import type * as options from "./options.js";
import { newRequest, textList } from "./requests.js";
import * as results from "./results.js";
import { textResult } from "./results.js";
import { CallSplitter, type Answer, type TextCall } from "./text_calls.js";

export type Texts = string | readonly string[];

/** What a method says of its call; the rest is common to all. */
type Method<I extends DescMessage, O extends Answer, R extends results.TextResult> = Pick<
  TextCall<I, O, R>,
  "schema" | "request" | "items"
> & {
  readonly fields?: readonly string[];
  readonly faults: ReadonlyMap<number, string>;
  readonly send: (request: MessageShape<I>, options: Sent) => Promise<O>;
  /** More of the result `i` than its message has. */
  readonly more?: (answer: O, requestId: string, first: number) => (i: number) => object;
  readonly finish?: (result: R) => R;
};

/** Sends the calls of methods. */
export class Calls {
  protected readonly connection: Connection;
  private readonly splitter = new CallSplitter();

  constructor(
    baseUrl: string,
    protected readonly options: options.ClientOptions = {},
  ) {
    this.connection = new Connection(baseUrl, options);
  }

  /** A call whose request has `texts`, and whose results are their messages. */
  protected simple<R extends results.TextResult>(
    schema: DescMessage,
    texts: Texts,
    options: options.CallOptions,
    send: (request: any, options: Sent) => Promise<any>,
    items = "results",
    fields: readonly string[] = ["texts"],
  ): Promise<R | results.Results<R>> {
    const { sent, faults } = textList(texts);
    return this.texts<DescMessage, any, R>(texts, options, {
      schema,
      request: newRequest(schema, options, { texts: sent }),
      fields,
      faults,
      send,
      items: (answer) => answer[items],
    });
  }

  protected async texts<I extends DescMessage, O extends Answer, R extends results.TextResult>(
    texts: Texts,
    options: options.CallOptions,
    method: Method<I, O, R>,
  ): Promise<R | results.Results<R>> {
    const { schema, request, fields = ["texts"], items, faults, more, finish } = method;
    const call: TextCall<I, O, R> = {
      schema,
      request,
      fields,
      items,
      faults,
      first: 0,
      send: (part) => this.connection.call((sent) => method.send(part, sent), options),
      parse: (answer, errors, report, first) => {
        const moreOf = more?.(answer, report.requestId, first);
        return items(answer).map((item, i) => {
          const result = textResult<R>(item, errors[i], report, moreOf?.(i));
          return finish ? finish(result) : result;
        });
      },
    };
    const found = await this.splitter.results<R>(call as any);
    return typeof texts === "string"
      ? found[0]!
      : (results.Results.from(found) as results.Results<R>);
  }
}

/** A text that must be fit to be sent. Throws TextError. */
export function only(text: string, index = 0): string {
  const { faults } = textList(text);
  for (const problem of faults.values()) throw new TextError(problem, Code.InvalidArgument, index);
  return text;
}

/** The result of a call with one text. */
export function whole<R extends results.TextResult>(
  message: results.ResultMessage,
  call: results.CallReport,
): R {
  const error = message.error && textError(message.error, 0, call.requestId);
  return textResult<R>(message, error, call);
}
