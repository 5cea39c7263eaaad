"""Vectors of texts, sparse vectors, and vectors of tokens."""

import msgspec

from attendant_server.application.application import Application
from attendant_server.application.sparse_embedding import SparseEmbeddingRequest
from attendant_server.application.token_embedding import TokenEmbeddingRequest
from attendant_server.field_names import renamed_fields
from attendant_server.http.exchanges import Call
from attendant_server.http.number_lists import VALUES_WRITTEN_FOR_ONE, number_list
from attendant_server.http.tei.messages import (
    NO_TOKENS,
    EmbedAllRequest,
    EmbedRequest,
    SparseValue,
)
from attendant_server.http.texts import texts_of
from attendant_server.tei_requests import embedding_request
from attendant_server.text_faults import without_faults


class EmbedHandler:
    """Embeds texts with all embedding models."""

    def __init__(self, application: Application) -> None:
        self._jobs = application.jobs
        self._embedder = application.embedder
        self._sparse_embedder = application.sparse_embedder
        self._token_embedder = application.token_embedder

    async def embed(self, request: EmbedRequest, call: Call) -> bytes:
        """One vector for each text."""
        texts, names = texts_of(request.inputs, "inputs", NO_TOKENS)
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
            without_faults(answer.texts)
        numbers = answer.vectors.numbers
        return await self._jobs.run_for(
            numbers.size // VALUES_WRITTEN_FOR_ONE, lambda: bytes(number_list(numbers))
        )

    async def embed_all(self, request: EmbedAllRequest, call: Call) -> bytes:
        """One vector for each token of each text."""
        texts, names = texts_of(request.inputs, "inputs", NO_TOKENS)
        with renamed_fields(names):
            answer = await self._token_embedder.embed(
                TokenEmbeddingRequest(texts=texts, model=call.model, truncation=request.truncation),
                None,
            )
            results = without_faults(answer.texts)

        def response() -> bytes:
            return msgspec.json.encode([number_list(each.vectors.numbers) for each in results])

        return await self._jobs.run_for(answer.size, response)

    async def embed_sparse(self, request: EmbedAllRequest, call: Call) -> bytes:
        """The tokens of the vocabulary that have a weight in each text."""
        texts, names = texts_of(request.inputs, "inputs", NO_TOKENS)
        with renamed_fields(names):
            answer = await self._sparse_embedder.embed(
                SparseEmbeddingRequest(
                    texts=texts, model=call.model, truncation=request.truncation
                ),
                None,
            )
            results = without_faults(answer.texts)

        def response() -> bytes:
            found = [
                [
                    SparseValue(index, value)
                    for index, value in zip(
                        each.token_ids.tolist(), each.weights.tolist(), strict=True
                    )
                ]
                for each in results
            ]
            return msgspec.json.encode(found)

        return await self._jobs.run_for(answer.size, response)
