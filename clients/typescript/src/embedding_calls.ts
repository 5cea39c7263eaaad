/** The methods of the client for embedding models. */

import { createClient } from "@connectrpc/connect";

import { Calls, only, type Texts } from "./calls.js";
import { textError } from "./errors.js";
import {
  ClassifyRequestSchema,
  EmbedRequestSchema,
  EmbedSparseRequestSchema,
  EmbeddingService,
  EmbedTokensRequestSchema,
  FillMaskRequestSchema,
  RerankRequestSchema,
  SimilarityRequestSchema,
} from "./generated/attendant/v1/embedding_pb.js";
import type * as options from "./options.js";
import { beside, newRequest, textList } from "./requests.js";
import * as results from "./results.js";
import { tensorRows } from "./tensors.js";

export class EmbeddingCalls extends Calls {
  private readonly embedding = createClient(EmbeddingService, this.connection.transport);

  /** Return a vector for each text, or several with `chunking`. */
  embed(texts: string, options?: options.EmbedOptions): Promise<results.Embedding>;
  embed(
    texts: readonly string[],
    options?: options.EmbedOptions,
  ): Promise<results.Results<results.Embedding>>;
  embed(texts: Texts, options: options.EmbedOptions = {}) {
    const hasChunks = (options.chunking ?? 0) !== 0 && !options.averageChunks;
    const { sent, faults } = textList(texts);
    const schema = EmbedRequestSchema;
    return this.texts<typeof schema, any, results.Embedding>(texts, options, {
      schema,
      request: newRequest(schema, options, { texts: sent }),
      faults,
      send: this.embedding.embed,
      items: (answer) => answer.results,
      more: vectors(hasChunks),
    });
  }

  /** Return a vector for each token, word or span of each text. */
  embedTokens(
    texts: string,
    options?: options.EmbedTokensOptions,
  ): Promise<results.TokenEmbeddings>;
  embedTokens(
    texts: readonly string[],
    options?: options.EmbedTokensOptions,
  ): Promise<results.Results<results.TokenEmbeddings>>;
  embedTokens(texts: Texts, options: options.EmbedTokensOptions = {}) {
    const { sent, faults } = textList(texts);
    const schema = EmbedTokensRequestSchema;
    return this.texts<typeof schema, any, results.TokenEmbeddings>(texts, options, {
      schema,
      request: newRequest(schema, options, { texts: sent }),
      fields: options.spans ? ["texts", "spans"] : ["texts"],
      faults,
      send: this.embedding.embedTokens,
      items: (answer) => answer.results,
      more: (answer, requestId) => (i) => {
        const { rows, scales } = tensorRows(answer.results[i].embeddings, requestId);
        return { vectors: rows, scales };
      },
    });
  }

  /** Return a sparse vector over the vocabulary for each text. */
  embedSparse(
    texts: string,
    options?: options.EmbedSparseOptions,
  ): Promise<results.SparseEmbedding>;
  embedSparse(
    texts: readonly string[],
    options?: options.EmbedSparseOptions,
  ): Promise<results.Results<results.SparseEmbedding>>;
  embedSparse(texts: Texts, options: options.EmbedSparseOptions = {}) {
    return this.simple<results.SparseEmbedding>(
      EmbedSparseRequestSchema,
      texts,
      options,
      this.embedding.embedSparse,
    );
  }

  /** Return the likeliest tokens for every `[MASK]`. */
  fillMask(texts: string, options?: options.FillMaskOptions): Promise<results.FilledText>;
  fillMask(
    texts: readonly string[],
    options?: options.FillMaskOptions,
  ): Promise<results.Results<results.FilledText>>;
  fillMask(texts: Texts, options: options.FillMaskOptions = {}) {
    return this.simple<results.FilledText>(
      FillMaskRequestSchema,
      texts,
      options,
      this.embedding.fillMask,
      "results",
      options.candidates?.length ? ["texts", "candidates"] : ["texts"],
    );
  }

  /** Return the scores of a model's labels; `textPairs` are the second texts of pairs. */
  classify(texts: string, options?: options.ClassifyOptions): Promise<results.ClassifiedText>;
  classify(
    texts: readonly string[],
    options?: options.ClassifyOptions,
  ): Promise<results.Results<results.ClassifiedText>>;
  classify(texts: Texts, options: options.ClassifyOptions = {}) {
    const { textPairs, ...others } = options;
    const sent = textList(texts);
    const pairs = textPairs === undefined ? undefined : beside(textPairs, "textPairs", sent);
    const schema = ClassifyRequestSchema;
    return this.texts<typeof schema, any, results.ClassifiedText>(texts, options, {
      schema,
      request: newRequest(schema, others, { texts: sent.sent, textPairs: pairs?.sent ?? [] }),
      fields: pairs ? ["texts", "textPairs"] : ["texts"],
      faults: pairs?.faults ?? sent.faults,
      send: this.embedding.classify,
      items: (answer) => answer.results,
    });
  }

  /** Return the cosines between the embeddings of queries and of texts. */
  similarity(
    queries: string,
    texts: readonly string[],
    options?: options.SimilarityOptions,
  ): Promise<results.SimilarTexts>;
  similarity(
    queries: readonly string[],
    texts: readonly string[],
    options?: options.SimilarityOptions,
  ): Promise<results.Results<results.SimilarTexts>>;
  similarity(queries: Texts, texts: readonly string[], options: options.SimilarityOptions = {}) {
    const sent = textList(queries);
    const schema = SimilarityRequestSchema;
    const compared = texts.map((text, i) => only(text, i));
    return this.texts<typeof schema, any, results.SimilarTexts>(queries, options, {
      schema,
      request: newRequest(schema, options, { queries: sent.sent, texts: compared }),
      fields: ["queries"],
      faults: sent.faults,
      send: this.embedding.similarity,
      items: (answer) => answer.results,
      more: (answer, requestId) => {
        const textErrors = (answer.texts as results.ResultMessage[]).flatMap(({ error }, i) =>
          error ? [textError(error, i, requestId)] : [],
        );
        return () => ({ textErrors });
      },
    });
  }

  /** Return documents in the order of their scores for a query; those that failed come last. */
  async rerank(
    query: string,
    documents: readonly string[],
    options: options.RerankOptions = {},
  ): Promise<results.Results<results.RankedDocument>> {
    const { topK, ...others } = options;
    const { sent, faults } = textList(documents);
    const schema = RerankRequestSchema;
    const found = await this.texts<typeof schema, any, results.RankedDocument>([], options, {
      schema,
      request: newRequest(schema, others, { query: only(query), documents: sent }),
      fields: ["documents"],
      faults,
      send: this.embedding.rerank,
      items: (answer) => [...answer.results].sort((a, b) => a.index - b.index),
      more: (_, __, first) => (i) => ({ index: first + i }),
    });
    const ranked = [...(found as results.Results<results.RankedDocument>)].sort(
      (a, b) => Number(!!a.error) - Number(!!b.error) || b.score - a.score || a.index - b.index,
    );
    return results.Results.from(ranked.slice(0, topK)) as results.Results<results.RankedDocument>;
  }
}

/** The vectors of embeddings; those of the chunks of a text, one after the other. */
function vectors(hasChunks: boolean) {
  return (answer: any, requestId: string) => {
    const { rows, scales } = tensorRows(answer.embeddings, requestId);
    let end = 0;
    return (i: number) => {
      const item = answer.results[i];
      const begin = end;
      end += hasChunks ? item.chunks.length : 1;
      if (item.error) return { vector: new Float32Array(), vectors: [], scales: [] };
      return {
        vector: rows[begin] ?? new Float32Array(),
        vectors: rows.slice(begin, end),
        scales: scales.slice(begin, end),
      };
    };
  };
}
