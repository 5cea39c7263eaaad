"""The EmbedSparse call: its request and the parser of its response. Knows no channel."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from attendant.v1 import embedding_pb2

from attendant_client import results
from attendant_client.errors import TextError, bad_answer
from attendant_client.messages import TRUNCATIONS, Call, checked, chosen, text_list
from attendant_client.options import Errors, Truncation
from attendant_client.parsing import call_report, parse_all, truncation


def embed_sparse(
    texts: str | Sequence[str],
    *,
    max_active_dims: int | None = None,
    return_tokens: bool = False,
    model: str = "",
    truncation: Truncation = "refuse",
    errors: Errors = "raise",
) -> Call[list[results.SparseEmbedding]]:
    """Build an EmbedSparse call."""
    request = embedding_pb2.EmbedSparseRequest(
        model=model,
        texts=text_list(texts),
        max_active_dims=max_active_dims,
        return_tokens=return_tokens,
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    parse = partial(_parsed, num_texts=len(request.texts), errors=checked(errors))
    return Call(
        "/attendant.v1.EmbeddingService/EmbedSparse",
        request,
        embedding_pb2.EmbedSparseResponse,
        parse,
    )


def _parsed(
    response: embedding_pb2.EmbedSparseResponse, num_texts: int, errors: Errors
) -> list[results.SparseEmbedding]:
    call = call_report(response)

    def parse(
        item: embedding_pb2.EmbedSparseResult, error: TextError | None
    ) -> results.SparseEmbedding:
        if len(item.token_ids) != len(item.weights):
            raise bad_answer(f"{len(item.weights)} weights of {len(item.token_ids)} tokens")
        return results.SparseEmbedding(
            np.array(item.token_ids, np.int64),
            np.array(item.weights, np.float32),
            tuple(item.tokens),
            item.num_tokens,
            truncation(item),
            error,
            call,
        )

    return parse_all(response.results, num_texts, errors, parse)
