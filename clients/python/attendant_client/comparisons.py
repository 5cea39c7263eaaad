"""The Similarity and Rerank calls: their requests and the parsers of their responses.

Knows no channel.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from attendant.v1 import embedding_pb2

from attendant_client.calls import TextCall, sendable
from attendant_client.comparison_results import RankedDocument, SimilarTexts
from attendant_client.embedding_messages import POOLINGS
from attendant_client.errors import TextError, bad_answer, text_error
from attendant_client.messages import NORMALIZATIONS, TRUNCATIONS, chosen, text_list
from attendant_client.options import Pooling, TextNormalization, Truncation
from attendant_client.parsing import Errors, call_report, truncation
from attendant_client.results import Results


def similarity(
    queries: str | Sequence[str],
    texts: str | Sequence[str],
    *,
    model: str,
    top_k: int | None,
    pooling: Pooling | None,
    dimensions: int | None,
    force_dimensions: bool,
    query_prompt_name: str | None,
    text_prompt_name: str | None,
    text_normalization: TextNormalization | None,
    truncation: Truncation,
) -> TextCall[SimilarTexts]:
    """Build a Similarity call. Only queries are sent in several calls."""
    sent, faults = sendable(text_list(queries))
    compared, text_faults = sendable(text_list(texts))
    request = embedding_pb2.SimilarityRequest(
        model=model,
        queries=sent,
        texts=compared,
        top_k=top_k,
        pooling=chosen(POOLINGS, "pooling", pooling),
        dimensions=dimensions,
        force_dimensions=force_dimensions,
        query_prompt_name=query_prompt_name,
        text_prompt_name=text_prompt_name,
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )

    def parse(
        response: embedding_pb2.SimilarityResponse, errors: Errors, request_id: str
    ) -> list[SimilarTexts]:
        return _similar_texts(response, errors, request_id, text_faults)

    return TextCall(
        "/attendant.v1.EmbeddingService/Similarity",
        request,
        embedding_pb2.SimilarityResponse,
        parse,
        fields=("queries",),
        faults=faults,
    )


def only_score(found: SimilarTexts) -> float:
    """Return the score of the only text. Raises TextError if it or the query failed."""
    found.raise_for_errors()
    for error in found.text_errors:
        raise error
    return float(found.scores[0])


class RerankCall(TextCall[RankedDocument]):
    """A Rerank call. The results of its response are put in the order of the documents."""

    def _parse(self, response: Any, request_id: str) -> list[RankedDocument]:
        ordered = sorted(response.results, key=lambda result: result.index)
        if [result.index for result in ordered] != list(range(self.num_texts)):
            raise bad_answer(f"other documents than the {self.num_texts} of the call", request_id)
        copy = embedding_pb2.RerankResponse()
        copy.CopyFrom(response)
        del copy.results[:]
        copy.results.extend(ordered)
        return super()._parse(copy, request_id)


def rerank(
    query: str,
    documents: Sequence[str],
    *,
    model: str,
    raw_scores: bool,
    text_normalization: TextNormalization | None,
    truncation: Truncation,
) -> RerankCall:
    """Build a Rerank call for the scores of all documents.

    Raises TextError for a query that cannot be sent.
    """
    (sent_query,), query_faults = sendable([query])
    if query_faults:
        raise TextError(f"query: {query_faults[0]}", grpc.StatusCode.INVALID_ARGUMENT)
    sent, faults = sendable(text_list(documents))
    request = embedding_pb2.RerankRequest(
        model=model,
        query=sent_query,
        documents=sent,
        raw_scores=raw_scores,
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    return RerankCall(
        "/attendant.v1.EmbeddingService/Rerank",
        request,
        embedding_pb2.RerankResponse,
        _documents,
        fields=("documents",),
        faults=faults,
    )


def best_documents(
    documents: Sequence[RankedDocument], top_k: int | None
) -> Results[RankedDocument]:
    """Return the documents with the highest scores, highest first, and then all that failed.

    `documents` are in the order of the call, whose numbers they get. Raises ValueError for no
    documents.
    """
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
    good = [each for each in documents if each.error is None]
    good.sort(key=lambda document: -document.score)
    return Results([*good[:top_k], *(each for each in documents if each.error is not None)])


def _similar_texts(
    response: embedding_pb2.SimilarityResponse,
    errors: Errors,
    request_id: str,
    text_faults: Mapping[int, str],
) -> list[SimilarTexts]:
    call = call_report(response, request_id)
    text_errors = []
    for i, text in enumerate(response.texts):
        if text.HasField("error"):
            text.error.message = text_faults.get(i, text.error.message)
            text_errors.append(text_error(text.error, i, request_id))
    for item in response.results:
        if len(item.indices) != len(item.scores):
            raise bad_answer(f"{len(item.scores)} scores of {len(item.indices)} texts", request_id)
    return [
        SimilarTexts(
            np.array(item.indices, np.int64),
            np.array(item.scores, np.float32),
            tuple(text_errors),
            item.num_tokens,
            truncation(item),
            error,
            call,
        )
        for item, error in zip(response.results, errors, strict=True)
    ]


def _documents(
    response: embedding_pb2.RerankResponse, errors: Errors, request_id: str
) -> list[RankedDocument]:
    call = call_report(response, request_id)
    return [
        RankedDocument(i, math.nan if error else item.score, truncation(item), error, call)
        for i, (item, error) in enumerate(zip(response.results, errors, strict=True))
    ]
