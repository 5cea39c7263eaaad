"""EmbeddingService: embeddings, comparisons, masked words and classification."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from attendant.v1 import embedding_pb2, embedding_pb2_grpc

from attendant_server.application.application import Application
from attendant_server.application.mask_filling import (
    MaskFillingRequest,
)
from attendant_server.application.similarity import SimilarityRequest
from attendant_server.application.splitting import Span
from attendant_server.application.token_embedding import (
    TokenEmbeddingRequest,
)
from attendant_server.grpc.context import Context
from attendant_server.grpc.services.bulk_messages import bulk_settings, bulk_texts, send
from attendant_server.grpc.services.embedding_messages import (
    bulk_embed_response,
    classify_response,
    embed_response,
    embed_sparse_response,
    embed_tokens_response,
    fill_mask_response,
    rerank_response,
    similarity_response,
)
from attendant_server.grpc.services.embedding_requests import (
    classification_request,
    embedding_request,
    reranking_request,
    sparse_embedding_request,
)
from attendant_server.grpc.services.messages import given
from attendant_server.grpc.services.offset_units import OffsetConverter


class EmbeddingService(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Answers for all embedding models."""

    def __init__(self, application: Application) -> None:
        self._embedder, self._mask_filler = application.embedder, application.mask_filler
        self._token_embedder = application.token_embedder
        self._classifier = application.classifier
        self._similarity_scorer, self._reranker = (
            application.similarity_scorer,
            application.reranker,
        )
        self._sparse_embedder = application.sparse_embedder
        self._bulk_embedder = application.bulk_embedder
        self._max_seconds = application.models.limits.max_request_seconds
        self._jobs = application.jobs

    async def Embed(
        self, request: embedding_pb2.EmbedRequest, context: Context
    ) -> embedding_pb2.EmbedResponse:
        """One vector for each text."""
        offsets = OffsetConverter(request)
        answer = await self._embedder.embed(embedding_request(request), context.time_remaining())
        return await self._jobs.run_for(
            answer.size, lambda: offsets.of_texts(embed_response(answer), request.texts)
        )

    async def BulkEmbed(  # type: ignore[override]  # grpc.aio also takes a coroutine that writes
        self, requests: AsyncIterator[embedding_pb2.BulkEmbedRequest], context: Context
    ) -> None:
        """Embed the texts of a stream, and send the vectors in their order."""
        settings = await bulk_settings(requests)
        offsets = OffsetConverter(settings)
        stream = await self._bulk_embedder.begin(
            embedding_request(settings), context.time_remaining()
        )
        await context.send_initial_metadata(())
        async with aclosing(stream.results(bulk_texts(requests))) as results:
            async for result in results:
                response = bulk_embed_response(result)
                offsets.of_texts(response.answer, [text.text for text in result.texts])
                await send(context, response, self._max_seconds)

    async def EmbedTokens(
        self, request: embedding_pb2.EmbedTokensRequest, context: Context
    ) -> embedding_pb2.EmbedTokensResponse:
        """One vector for each token, word or span, from any layers or for late interaction."""
        offsets = OffsetConverter(request)
        answer = await self._token_embedder.embed(
            TokenEmbeddingRequest(
                texts=list(request.texts),
                model=request.model,
                layers=list(request.layers),
                truncation=request.truncation,
                text_normalization=request.text_normalization,
                role=request.role,
                layer_combination=request.layer_combination,
                data_type=request.data_type,
                unit=request.unit,
                spans=await self._spans(request),
                offset_unit=request.offset_unit,
            ),
            context.time_remaining(),
        )
        return await self._jobs.run_for(
            answer.size, lambda: offsets.of_texts(embed_tokens_response(answer), request.texts)
        )

    async def _spans(self, request: embedding_pb2.EmbedTokensRequest) -> list[list[Span]]:
        """The spans of each text."""
        return await self._jobs.run_for(
            sum(len(each.spans) for each in request.spans),
            lambda: [[(s.start, s.end) for s in each.spans] for each in request.spans],
        )

    async def FillMask(
        self, request: embedding_pb2.FillMaskRequest, context: Context
    ) -> embedding_pb2.FillMaskResponse:
        """The likeliest tokens for every mask, or given candidates in their order."""
        offsets = OffsetConverter(request)
        answer = await self._mask_filler.fill(
            MaskFillingRequest(
                texts=list(request.texts),
                model=request.model,
                top_k=given(request, "top_k"),
                truncation=request.truncation,
                text_normalization=request.text_normalization,
                candidates=[
                    [list(mask.texts) for mask in each.masks] for each in request.candidates
                ],
                joint=request.joint,
            ),
            context.time_remaining(),
        )
        return await self._jobs.run_for(
            answer.size, lambda: offsets.of_texts(fill_mask_response(answer), request.texts)
        )

    async def Classify(
        self, request: embedding_pb2.ClassifyRequest, context: Context
    ) -> embedding_pb2.ClassifyResponse:
        """Scores of the labels for each text or pair."""
        answer = await self._classifier.classify(
            classification_request(request),
            context.time_remaining(),
        )
        return await self._jobs.run_for(answer.size, lambda: classify_response(answer))

    async def EmbedSparse(
        self, request: embedding_pb2.EmbedSparseRequest, context: Context
    ) -> embedding_pb2.EmbedSparseResponse:
        """One sparse vector for each text."""
        answer = await self._sparse_embedder.embed(
            sparse_embedding_request(request),
            context.time_remaining(),
        )
        return await self._jobs.run_for(answer.size, lambda: embed_sparse_response(answer))

    async def Similarity(
        self, request: embedding_pb2.SimilarityRequest, context: Context
    ) -> embedding_pb2.SimilarityResponse:
        """The texts that are most similar to each query."""
        answer = await self._similarity_scorer.compare(
            SimilarityRequest(
                queries=list(request.queries),
                texts=list(request.texts),
                model=request.model,
                top_k=given(request, "top_k"),
                pooling=request.pooling,
                dimensions=given(request, "dimensions"),
                force_dimensions=request.force_dimensions,
                query_prompt_name=given(request, "query_prompt_name"),
                text_prompt_name=given(request, "text_prompt_name"),
                truncation=request.truncation,
                text_normalization=request.text_normalization,
            ),
            context.time_remaining(),
        )
        return await self._jobs.run_for(answer.size, lambda: similarity_response(answer))

    async def Rerank(
        self, request: embedding_pb2.RerankRequest, context: Context
    ) -> embedding_pb2.RerankResponse:
        """The documents in the order of their scores."""
        answer = await self._reranker.rerank(
            reranking_request(request),
            context.time_remaining(),
        )
        return await self._jobs.run_for(answer.size, lambda: rerank_response(answer))
