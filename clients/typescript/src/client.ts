/** The client. */

import { Code, createClient, type CallOptions as Sent } from "@connectrpc/connect";

import { only, type Texts } from "./calls.js";
import { DecodingCalls } from "./decoding_calls.js";
import { callError, NotFoundError, UnavailableError } from "./errors.js";
import {
  GetAttentionRequestSchema,
  type GetAttentionResponse,
} from "./generated/attendant/v1/attention_pb.js";
import {
  DetectLanguageRequestSchema,
  LanguageService,
} from "./generated/attendant/v1/language_pb.js";
import { ModelControlService } from "./generated/attendant/v1/model_control_pb.js";
import {
  ModelService,
  TokenizeRequestSchema,
  type GetModelResponse,
  type ModelInfo,
} from "./generated/attendant/v1/model_pb.js";
import type * as options from "./options.js";
import { newRequest } from "./requests.js";
import * as results from "./results.js";

/**
 * A client of one server.
 *
 *     const client = new Client("http://localhost:8080");
 *     const translation = await client.translate("The dog is barking.", { model: "en-de" });
 *     console.log(translation.text);
 *
 * A method that takes texts returns one result for a string, and `Results`, in the same order, for
 * an array. The error of a text is in its result. More texts than the server takes in one call are
 * sent in several calls, one after the other. The options of a method are the fields of its request
 * in the contract, and those of `CallOptions`. All methods throw CallError when a whole call fails.
 */
export class Client extends DecodingCalls {
  private readonly detection = createClient(LanguageService, this.connection.transport);
  private readonly models_ = createClient(ModelService, this.connection.transport);
  private readonly control = createClient(ModelControlService, this.connection.transport);

  /** `baseUrl` is that of the server's port of HTTP, such as `https://attendant.example.com`. */
  constructor(baseUrl: string, options: options.ClientOptions = {}) {
    super(baseUrl, options);
  }

  /** Return the tokens that a model reads for each text. */
  tokenize(texts: string, options?: options.TokenizeOptions): Promise<results.Tokenization>;
  tokenize(
    texts: readonly string[],
    options?: options.TokenizeOptions,
  ): Promise<results.Results<results.Tokenization>>;
  tokenize(texts: Texts, options: options.TokenizeOptions = {}) {
    return this.simple<results.Tokenization>(
      TokenizeRequestSchema,
      texts,
      options,
      this.models_.tokenize,
    );
  }

  /** Return the likeliest languages of each text. */
  detectLanguage(
    texts: string,
    options?: options.DetectLanguageOptions,
  ): Promise<results.DetectedLanguages>;
  detectLanguage(
    texts: readonly string[],
    options?: options.DetectLanguageOptions,
  ): Promise<results.Results<results.DetectedLanguages>>;
  detectLanguage(texts: Texts, options: options.DetectLanguageOptions = {}) {
    return this.simple<results.DetectedLanguages>(
      DetectLanguageRequestSchema,
      texts,
      options,
      this.detection.detectLanguage,
    );
  }

  /** Return the attention weights of all layers and heads, for study. */
  async attention(
    text: string,
    options: options.AttentionOptions = {},
  ): Promise<GetAttentionResponse> {
    const request = newRequest(GetAttentionRequestSchema, options, { text: only(text) });
    const send = (sent: Sent) => this.models_.getAttention(request, sent);
    return (await this.connection.call(send, options)).answer;
  }

  /** Return all models of the server, including models that are still loading. */
  async models(options: options.CallOptions = {}): Promise<ModelInfo[]> {
    const send = (sent: Sent) => this.models_.listModels({}, sent);
    return (await this.connection.call(send, options)).answer.models;
  }

  /** Return the description of a model: `name`, `name/version`, or `""` for the only one. */
  async model(name = "", options: options.CallOptions = {}): Promise<GetModelResponse> {
    const send = (sent: Sent) => this.models_.getModel({ model: name }, sent);
    return (await this.connection.call(send, options)).answer;
  }

  /** Let the server load a bundle of its folder. Only callers with permission may. */
  async loadModel(name: string, options: options.CallOptions = {}): Promise<ModelInfo | undefined> {
    const send = (sent: Sent) => this.control.loadModel({ model: name }, sent);
    return (await this.connection.call(send, options)).answer.model;
  }

  /** Let the server stop serving a model; returns its full name. Only callers with permission may. */
  async unloadModel(name: string, options: options.CallOptions = {}): Promise<string> {
    const send = (sent: Sent) => this.control.unloadModel({ model: name }, sent);
    // Another model of this name may have been loaded after an attempt that has failed.
    return (await this.connection.call(send, options, false)).answer.model;
  }

  /** Return whether the server is serving: whether it has a model that is ready. */
  async health(options: options.CallOptions = {}): Promise<"serving" | "not_serving"> {
    const send = async ({ timeoutMs = 0 }: Sent) => {
      const limit = AbortSignal.timeout(timeoutMs);
      const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
      const url = new URL("/health", this.connection.baseUrl);
      return (this.options.fetch ?? fetch)(url, { signal });
    };
    try {
      const { answer, requestId } = await this.connection.call(send, options);
      await answer.arrayBuffer();
      if (answer.ok) return "serving";
      if (answer.status === 503) return "not_serving";
      throw new NotFoundError(`/health answers ${answer.status}`, Code.NotFound, { requestId });
    } catch (error) {
      throw error instanceof UnavailableError ? error : callError(error, "");
    }
  }
}
