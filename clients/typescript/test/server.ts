/** The real server that the tests call, and a server that fails as a test says. */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";

import { Client } from "../src/index.js";

function fromEnvironment(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run the tests with make test-typescript`);
  return value;
}

/** A server with small models, at most 4 texts in a call, and a key. */
export const url = fromEnvironment("ATTENDANT_URL");
export const token = fromEnvironment("ATTENDANT_TOKEN");
export const client = new Client(url, { token });

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** A server that gives one answer after the other, and the last one again; returns its URL. */
export async function scripted(test: TestContext, ...answers: Answer[]) {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    request
      .resume()
      .on("end", () => answers[Math.min(requests.length, answers.length) - 1]!(request, response));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

/** An answer with an error of Connect. */
export function failing(status: number, code: string, details: object[] = []): Answer {
  return (_, response) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify({ code, message: `scripted ${code}`, details }));
  };
}

/** An answer with an empty message. */
export const empty: Answer = (_, response) => {
  response.writeHead(200, { "content-type": "application/proto" }).end();
};
