"""The service Embed of TEI: vectors of texts, sparse vectors, and vectors of tokens."""

from collections.abc import AsyncIterator
from functools import partial

from attendant_vendored.tei import tei_pb2, tei_pb2_grpc

from attendant_server.application.application import Application
from attendant_server.application.sparse_embedding import SparseEmbeddingRequest, SparseVector
from attendant_server.application.token_embedding import TokenEmbeddingRequest, TokenEmbeddings
from attendant_server.field_names import renamed_fields
from attendant_server.grpc.context import Context
from attendant_server.grpc.services.messages import given
from attendant_server.grpc.tei.messages import (
    answer_stream,
    check_no_prompt,
    chosen_model,
    figures,
    truncation,
)
from attendant_server.tei_requests import INPUTS, embedding_request
from attendant_server.text_faults import without_faults


class EmbedService(tei_pb2_grpc.EmbedServicer):
    """Answers for all embedding models."""

    def __init__(self, application: Application) -> None:
        self._application, self._jobs = application, application.jobs
        self._embedder = application.embedder
        self._sparse_embedder = application.sparse_embedder
        self._token_embedder = application.token_embedder

    async def Embed(self, request: tei_pb2.EmbedRequest, context: Context) -> tei_pb2.EmbedResponse:
        """One vector."""
        return await self._embed(chosen_model(context), request, context.time_remaining())

    async def EmbedStream(  # type: ignore[override]  # grpc.aio also takes a coroutine that writes
        self, requests: AsyncIterator[tei_pb2.EmbedRequest], context: Context
    ) -> None:
        """One vector for each request."""
        answer = partial(self._embed, chosen_model(context))
        await answer_stream(self._application, requests, context, answer)

    async def EmbedSparse(
        self, request: tei_pb2.EmbedSparseRequest, context: Context
    ) -> tei_pb2.EmbedSparseResponse:
        """One sparse vector."""
        return await self._embed_sparse(chosen_model(context), request, context.time_remaining())

    async def EmbedSparseStream(  # type: ignore[override]
        self, requests: AsyncIterator[tei_pb2.EmbedSparseRequest], context: Context
    ) -> None:
        """One sparse vector for each request."""
        answer = partial(self._embed_sparse, chosen_model(context))
        await answer_stream(self._application, requests, context, answer)

    async def EmbedAll(
        self, request: tei_pb2.EmbedAllRequest, context: Context
    ) -> tei_pb2.EmbedAllResponse:
        """One vector for each token."""
        return await self._embed_all(chosen_model(context), request, context.time_remaining())

    async def EmbedAllStream(  # type: ignore[override]
        self, requests: AsyncIterator[tei_pb2.EmbedAllRequest], context: Context
    ) -> None:
        """One vector for each token of each request."""
        answer = partial(self._embed_all, chosen_model(context))
        await answer_stream(self._application, requests, context, answer)

    async def _embed(
        self, model: str, request: tei_pb2.EmbedRequest, seconds_left: float | None
    ) -> tei_pb2.EmbedResponse:
        with renamed_fields(INPUTS):
            answer = await self._embedder.embed(
                embedding_request(
                    [request.inputs],
                    model,
                    given(request, "normalize"),
                    truncation(request),
                    given(request, "dimensions"),
                    given(request, "prompt_name"),
                ),
                seconds_left,
            )
            without_faults(answer.texts)
        return tei_pb2.EmbedResponse(
            embeddings=answer.vectors.numbers[0].tolist(),
            metadata=figures(answer, len(request.inputs)),
        )

    async def _embed_sparse(
        self, model: str, request: tei_pb2.EmbedSparseRequest, seconds_left: float | None
    ) -> tei_pb2.EmbedSparseResponse:
        check_no_prompt(request)
        with renamed_fields(INPUTS):
            answer = await self._sparse_embedder.embed(
                SparseEmbeddingRequest(
                    texts=[request.inputs], model=model, truncation=truncation(request)
                ),
                seconds_left,
            )
            [vector] = without_faults(answer.texts)

        metadata = figures(answer, len(request.inputs))

        def response(vector: SparseVector) -> tei_pb2.EmbedSparseResponse:
            pairs = zip(vector.token_ids.tolist(), vector.weights.tolist(), strict=True)
            return tei_pb2.EmbedSparseResponse(
                sparse_embeddings=[
                    tei_pb2.SparseValue(index=index, value=value) for index, value in pairs
                ],
                metadata=metadata,
            )

        return await self._jobs.run_for(answer.size, lambda: response(vector))

    async def _embed_all(
        self, model: str, request: tei_pb2.EmbedAllRequest, seconds_left: float | None
    ) -> tei_pb2.EmbedAllResponse:
        check_no_prompt(request)
        with renamed_fields(INPUTS):
            answer = await self._token_embedder.embed(
                TokenEmbeddingRequest(
                    texts=[request.inputs], model=model, truncation=truncation(request)
                ),
                seconds_left,
            )
            [found] = without_faults(answer.texts)

        metadata = figures(answer, len(request.inputs))

        def response(found: TokenEmbeddings) -> tei_pb2.EmbedAllResponse:
            return tei_pb2.EmbedAllResponse(
                token_embeddings=[
                    tei_pb2.TokenEmbedding(embeddings=row.tolist()) for row in found.vectors.numbers
                ],
                metadata=metadata,
            )

        return await self._jobs.run_for(answer.size, lambda: response(found))
