"""EmbeddingService: Embed, EmbedTokens, FillMask, Classify and EmbedSparse."""

from typing import cast

from attendant.v1 import embedding_pb2, embedding_pb2_grpc, text_pb2

from attendant_server.application.answers import Answer
from attendant_server.application.application import Application
from attendant_server.application.classification import (
    ClassificationAnswer,
    ClassificationRequest,
    ClassifiedText,
)
from attendant_server.application.data_types import ConvertedVectors
from attendant_server.application.embedding import (
    EmbeddedText,
    EmbeddingAnswer,
    EmbeddingRequest,
)
from attendant_server.application.mask_filling import (
    FilledMask,
    FilledText,
    MaskFillingAnswer,
    MaskFillingRequest,
)
from attendant_server.application.prompts import PromptChoice
from attendant_server.application.sparse_embedding import (
    SparseEmbeddingAnswer,
    SparseEmbeddingRequest,
    SparseVector,
)
from attendant_server.application.token_embedding import (
    TokenEmbeddingAnswer,
    TokenEmbeddingRequest,
    TokenEmbeddings,
)
from attendant_server.errors import InvalidRequest
from attendant_server.grpc.context import Context
from attendant_server.grpc.services.messages import fault, given, timings, tokens, truncation


class EmbeddingService(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Answers for all embedding models."""

    def __init__(self, application: Application) -> None:
        self._embedder, self._mask_filler = application.embedder, application.mask_filler
        self._token_embedder = application.token_embedder
        self._classifier = application.classifier
        self._sparse_embedder = application.sparse_embedder
        self._jobs = application.jobs

    async def Embed(
        self, request: embedding_pb2.EmbedRequest, context: Context
    ) -> embedding_pb2.EmbedResponse:
        """One vector for each text."""
        answer = await self._embedder.embed(
            EmbeddingRequest(
                texts=list(request.texts),
                model=request.model,
                pooling=request.pooling,
                normalize=given(request, "normalize"),
                truncation=request.truncation,
                text_normalization=request.text_normalization,
                dimensions=given(request, "dimensions"),
                force_dimensions=request.force_dimensions,
                data_type=request.data_type,
                prompt=PromptChoice(given(request, "prompt_name"), given(request, "prompt")),
            ),
            context.time_remaining(),
        )
        return await self._jobs.run_for(answer.size, lambda: _embed_response(answer))

    async def EmbedTokens(
        self, request: embedding_pb2.EmbedTokensRequest, context: Context
    ) -> embedding_pb2.EmbedTokensResponse:
        """One vector for each token of each text, from any layers or for late interaction."""
        answer = await self._token_embedder.embed(
            TokenEmbeddingRequest(
                texts=list(request.texts),
                model=request.model,
                layers=list(request.layers),
                truncation=request.truncation,
                text_normalization=request.text_normalization,
                role=request.role,
                data_type=request.data_type,
            ),
            context.time_remaining(),
        )
        return await self._jobs.run_for(answer.size, lambda: _embed_tokens_response(answer))

    async def FillMask(
        self, request: embedding_pb2.FillMaskRequest, context: Context
    ) -> embedding_pb2.FillMaskResponse:
        """The likeliest tokens for every mask."""
        answer = await self._mask_filler.fill(
            MaskFillingRequest(
                texts=list(request.texts),
                model=request.model,
                top_k=given(request, "top_k"),
                truncation=request.truncation,
                text_normalization=request.text_normalization,
            ),
            context.time_remaining(),
        )
        return await self._jobs.run_for(answer.size, lambda: _fill_mask_response(answer))

    async def Classify(
        self, request: embedding_pb2.ClassifyRequest, context: Context
    ) -> embedding_pb2.ClassifyResponse:
        """Scores of the labels for each text or pair."""
        answer = await self._classifier.classify(
            ClassificationRequest(
                texts=list(request.texts),
                text_pairs=list(request.text_pairs),
                model=request.model,
                top_k=given(request, "top_k"),
                raw_scores=request.raw_scores,
                truncation=request.truncation,
                text_normalization=request.text_normalization,
            ),
            context.time_remaining(),
        )
        return await self._jobs.run_for(answer.size, lambda: _classify_response(answer))

    async def EmbedSparse(
        self, request: embedding_pb2.EmbedSparseRequest, context: Context
    ) -> embedding_pb2.EmbedSparseResponse:
        """One sparse vector for each text."""
        answer = await self._sparse_embedder.embed(
            SparseEmbeddingRequest(
                texts=list(request.texts),
                model=request.model,
                max_active_dims=given(request, "max_active_dims"),
                return_tokens=request.return_tokens,
                truncation=request.truncation,
                text_normalization=request.text_normalization,
            ),
            context.time_remaining(),
        )
        return await self._jobs.run_for(answer.size, lambda: _embed_sparse_response(answer))


def _counts(answer: Answer) -> text_pb2.TokenCounts:
    return text_pb2.TokenCounts(num_input_tokens=answer.num_input_tokens)


def _embed_response(answer: EmbeddingAnswer) -> embedding_pb2.EmbedResponse:
    return embedding_pb2.EmbedResponse(
        embeddings=_tensor(answer.vectors),
        results=map(_embed_result, answer.texts),
        model=answer.model,
        token_counts=_counts(answer),
        timings=timings(answer.phases),
    )


def _embed_result(text: EmbeddedText | InvalidRequest) -> embedding_pb2.EmbedResult:
    if isinstance(text, InvalidRequest):
        return embedding_pb2.EmbedResult(error=fault(text))
    return embedding_pb2.EmbedResult(
        num_tokens=text.num_tokens, truncation=truncation(text.truncation)
    )


def _embed_tokens_response(answer: TokenEmbeddingAnswer) -> embedding_pb2.EmbedTokensResponse:
    return embedding_pb2.EmbedTokensResponse(
        results=map(_embed_tokens_result, answer.texts),
        model=answer.model,
        token_counts=_counts(answer),
        timings=timings(answer.phases),
    )


def _embed_tokens_result(text: TokenEmbeddings | InvalidRequest) -> embedding_pb2.EmbedTokensResult:
    if isinstance(text, InvalidRequest):
        return embedding_pb2.EmbedTokensResult(error=fault(text))
    return embedding_pb2.EmbedTokensResult(
        tokens=tokens(text.tokens),
        embeddings=_tensor(text.vectors),
        truncation=truncation(text.truncation),
    )


def _tensor(vectors: ConvertedVectors) -> embedding_pb2.Tensor:
    return embedding_pb2.Tensor(
        data=vectors.numbers.tobytes(),
        shape=vectors.shape,
        dtype=cast("embedding_pb2.DataType.ValueType", vectors.data_type.value),
        scales=None if vectors.scales is None else vectors.scales.ravel().tolist(),
    )


def _fill_mask_response(answer: MaskFillingAnswer) -> embedding_pb2.FillMaskResponse:
    return embedding_pb2.FillMaskResponse(
        results=map(_fill_mask_result, answer.texts),
        model=answer.model,
        token_counts=_counts(answer),
        timings=timings(answer.phases),
    )


def _fill_mask_result(text: FilledText | InvalidRequest) -> embedding_pb2.FillMaskResult:
    if isinstance(text, InvalidRequest):
        return embedding_pb2.FillMaskResult(error=fault(text))
    return embedding_pb2.FillMaskResult(
        masks=map(_filled_mask, text.masks), truncation=truncation(text.truncation)
    )


def _filled_mask(mask: FilledMask) -> embedding_pb2.FilledMask:
    return embedding_pb2.FilledMask(
        start=mask.start,
        end=mask.end,
        candidates=[
            embedding_pb2.MaskCandidate(id=token_id, text=text, probability=probability)
            for token_id, text, probability in zip(
                mask.token_ids, mask.token_texts, mask.probabilities, strict=True
            )
        ],
    )


def _classify_response(answer: ClassificationAnswer) -> embedding_pb2.ClassifyResponse:
    return embedding_pb2.ClassifyResponse(
        results=map(_classify_result, answer.texts),
        model=answer.model,
        token_counts=_counts(answer),
        timings=timings(answer.phases),
        score_function=cast("embedding_pb2.ScoreFunction.ValueType", answer.score_function.value),
    )


def _classify_result(text: ClassifiedText | InvalidRequest) -> embedding_pb2.ClassifyResult:
    if isinstance(text, InvalidRequest):
        return embedding_pb2.ClassifyResult(error=fault(text))
    return embedding_pb2.ClassifyResult(
        labels=[
            embedding_pb2.LabelScore(label=label, score=score)
            for label, score in zip(text.labels, text.scores, strict=True)
        ],
        truncation=truncation(text.truncation),
    )


def _embed_sparse_response(answer: SparseEmbeddingAnswer) -> embedding_pb2.EmbedSparseResponse:
    return embedding_pb2.EmbedSparseResponse(
        results=map(_embed_sparse_result, answer.texts),
        model=answer.model,
        token_counts=_counts(answer),
        timings=timings(answer.phases),
    )


def _embed_sparse_result(text: SparseVector | InvalidRequest) -> embedding_pb2.EmbedSparseResult:
    if isinstance(text, InvalidRequest):
        return embedding_pb2.EmbedSparseResult(error=fault(text))
    return embedding_pb2.EmbedSparseResult(
        token_ids=text.token_ids.tolist(),
        weights=text.weights.tolist(),
        tokens=text.tokens,
        num_tokens=text.num_tokens,
        truncation=truncation(text.truncation),
    )
