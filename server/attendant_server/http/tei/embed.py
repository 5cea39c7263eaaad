"""Vectors of texts, sparse vectors, and vectors of tokens."""

from collections.abc import Sequence
from typing import Any

import msgspec

from attendant_server.application.application import Application
from attendant_server.application.sparse_embedding import SparseEmbeddingRequest
from attendant_server.application.token_embedding import TokenEmbeddingRequest
from attendant_server.errors import InvalidRequest
from attendant_server.field_names import renamed_fields
from attendant_server.http.exchanges import Call
from attendant_server.http.number_lists import VALUES_WRITTEN_FOR_ONE, number_list
from attendant_server.http.tei.messages import EmbedAllRequest, EmbedRequest, SparseValue
from attendant_server.tei_requests import INPUTS, embedding_request

BATCH = {"texts": "inputs"}
"""The field of TEI for that of the application with several texts."""
NO_TOKENS = "must be a text or a list of texts, not token ids"


def texts_of(inputs: Any) -> tuple[list[str], dict[str, str]]:
    """The texts, and the names of their fields; raises InvalidRequest for token ids."""
    if isinstance(inputs, str):
        return [inputs], INPUTS
    if not all(isinstance(each, str) for each in inputs):
        raise InvalidRequest("inputs", NO_TOKENS)
    return inputs, BATCH


def raise_fault(texts: Sequence[Any]) -> None:
    """Raise the fault of the first text that has one: TEI has no faults of single texts."""
    for each in texts:
        if isinstance(each, InvalidRequest):
            raise each


class EmbedHandler:
    """Embeds texts with all embedding models."""

    def __init__(self, application: Application) -> None:
        self._jobs = application.jobs
        self._embedder = application.embedder
        self._sparse_embedder = application.sparse_embedder
        self._token_embedder = application.token_embedder

    async def embed(self, request: EmbedRequest, call: Call) -> bytes:
        """One vector for each text."""
        texts, names = texts_of(request.inputs)
        with renamed_fields(names):
            answer = await self._embedder.embed(
                embedding_request(
                    texts,
                    call.model,
                    request.normalize,
                    request.truncation,
                    request.dimensions,
                    request.prompt_name,
                ),
                None,
            )
            raise_fault(answer.texts)
        numbers = answer.vectors.numbers
        return await self._jobs.run_for(
            numbers.size // VALUES_WRITTEN_FOR_ONE, lambda: bytes(number_list(numbers))
        )

    async def embed_all(self, request: EmbedAllRequest, call: Call) -> bytes:
        """One vector for each token of each text."""
        texts, names = texts_of(request.inputs)
        with renamed_fields(names):
            answer = await self._token_embedder.embed(
                TokenEmbeddingRequest(texts=texts, model=call.model, truncation=request.truncation),
                None,
            )
            raise_fault(answer.texts)

        def response() -> bytes:
            found = [number_list(each.vectors.numbers) for each in answer.texts]  # type: ignore[union-attr]
            return msgspec.json.encode(found)

        return await self._jobs.run_for(answer.size, response)

    async def embed_sparse(self, request: EmbedAllRequest, call: Call) -> bytes:
        """The tokens of the vocabulary that have a weight in each text."""
        texts, names = texts_of(request.inputs)
        with renamed_fields(names):
            answer = await self._sparse_embedder.embed(
                SparseEmbeddingRequest(
                    texts=texts, model=call.model, truncation=request.truncation
                ),
                None,
            )
            raise_fault(answer.texts)

        def response() -> bytes:
            found = [
                [
                    SparseValue(index, value)
                    for index, value in zip(
                        each.token_ids.tolist(), each.weights.tolist(), strict=True
                    )
                ]
                for each in answer.texts
                if not isinstance(each, InvalidRequest)
            ]
            return msgspec.json.encode(found)

        return await self._jobs.run_for(answer.size, response)
