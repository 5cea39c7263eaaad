"""The EmbedSparse call: its request and the parser of its response. Knows no channel."""

from collections.abc import Sequence

import numpy as np
from attendant.v1 import embedding_pb2

from attendant_client.calls import TextCall, sendable
from attendant_client.embedding_results import SparseEmbedding
from attendant_client.errors import bad_answer
from attendant_client.messages import NORMALIZATIONS, TRUNCATIONS, chosen, text_list
from attendant_client.options import TextNormalization, Truncation
from attendant_client.parsing import Errors, call_report, truncation


def embed_sparse(
    texts: str | Sequence[str],
    *,
    model: str,
    max_active_dims: int | None,
    return_tokens: bool,
    text_normalization: TextNormalization | None,
    truncation: Truncation,
) -> TextCall[SparseEmbedding]:
    """Build an EmbedSparse call."""
    sent, faults = sendable(text_list(texts))
    request = embedding_pb2.EmbedSparseRequest(
        model=model,
        texts=sent,
        max_active_dims=max_active_dims,
        return_tokens=return_tokens,
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    return TextCall(
        "/attendant.v1.EmbeddingService/EmbedSparse",
        request,
        embedding_pb2.EmbedSparseResponse,
        _parsed,
        faults=faults,
    )


def _parsed(
    response: embedding_pb2.EmbedSparseResponse, errors: Errors, request_id: str
) -> list[SparseEmbedding]:
    call = call_report(response, request_id)
    for item in response.results:
        if len(item.token_ids) != len(item.weights):
            raise bad_answer(f"{len(item.weights)} weights of {len(item.token_ids)} tokens")
    return [
        SparseEmbedding(
            np.array(item.token_ids, np.int64),
            np.array(item.weights, np.float32),
            tuple(item.tokens),
            item.num_tokens,
            truncation(item),
            error,
            call,
        )
        for item, error in zip(response.results, errors, strict=True)
    ]
