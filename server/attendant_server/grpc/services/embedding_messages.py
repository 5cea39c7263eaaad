"""The messages of EmbeddingService, from the answers of the application."""

from typing import cast

from attendant.v1 import embedding_pb2, text_pb2

from attendant_server.application.answers import Answer
from attendant_server.application.bulk_stream import BulkResult, BulkText
from attendant_server.application.classification import (
    ClassificationAnswer,
    ClassifiedText,
)
from attendant_server.application.data_types import ConvertedVectors
from attendant_server.application.embedding import (
    EmbeddedText,
    EmbeddingAnswer,
)
from attendant_server.application.joint_mask_filling import Filling
from attendant_server.application.mask_filling import (
    FilledMask,
    FilledText,
    MaskFillingAnswer,
)
from attendant_server.application.reranking import RerankingAnswer
from attendant_server.application.similarity import SimilarityAnswer, SimilarTexts
from attendant_server.application.sparse_embedding import (
    SparseEmbeddingAnswer,
    SparseVector,
)
from attendant_server.application.token_embedding import (
    TokenEmbeddingAnswer,
    TokenEmbeddings,
)
from attendant_server.errors import AttendantError, InvalidRequest
from attendant_server.grpc.services.messages import fault, timings, tokens, truncation


def _counts(answer: Answer) -> text_pb2.TokenCounts:
    return text_pb2.TokenCounts(num_input_tokens=answer.num_input_tokens)


def embed_response(answer: EmbeddingAnswer) -> embedding_pb2.EmbedResponse:
    """The message of an answer."""
    return embedding_pb2.EmbedResponse(
        embeddings=_tensor(answer.vectors),
        results=map(_embed_result, answer.texts),
        model=answer.model,
        token_counts=_counts(answer),
        timings=timings(answer.phases),
    )


def bulk_embed_response(
    result: BulkResult[BulkText, EmbeddingAnswer],
) -> embedding_pb2.BulkEmbedResponse:
    """The message of texts of a stream."""
    answer = result.answer
    if isinstance(answer, AttendantError):
        response = embedding_pb2.EmbedResponse(
            results=[embedding_pb2.EmbedResult(error=fault(answer))], model=result.model
        )
    else:
        response = embed_response(answer)
    return embedding_pb2.BulkEmbedResponse(ids=[text.id for text in result.texts], answer=response)


def _embed_result(text: EmbeddedText | InvalidRequest) -> embedding_pb2.EmbedResult:
    if isinstance(text, InvalidRequest):
        return embedding_pb2.EmbedResult(error=fault(text))
    return embedding_pb2.EmbedResult(
        num_tokens=text.num_tokens,
        truncation=truncation(text.truncation),
        chunks=[
            embedding_pb2.EmbedChunk(
                start=chunk.span[0], end=chunk.span[1], num_tokens=len(chunk.token_ids)
            )
            for chunk in text.chunks
        ],
    )


def embed_tokens_response(answer: TokenEmbeddingAnswer) -> embedding_pb2.EmbedTokensResponse:
    """The message of an answer."""
    return embedding_pb2.EmbedTokensResponse(
        results=map(_embed_tokens_result, answer.texts),
        model=answer.model,
        token_counts=_counts(answer),
        timings=timings(answer.phases),
    )


def _embed_tokens_result(text: TokenEmbeddings | InvalidRequest) -> embedding_pb2.EmbedTokensResult:
    if isinstance(text, InvalidRequest):
        return embedding_pb2.EmbedTokensResult(error=fault(text))
    groups = text.groups
    return embedding_pb2.EmbedTokensResult(
        tokens=tokens(text.tokens) if groups is None else (),
        spans=()
        if groups is None
        else [
            embedding_pb2.EmbeddedSpan(start=start, end=end, num_tokens=num_tokens)
            for (start, end), num_tokens in zip(groups.spans, groups.num_tokens, strict=True)
        ],
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


def fill_mask_response(answer: MaskFillingAnswer) -> embedding_pb2.FillMaskResponse:
    """The message of an answer."""
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
        masks=map(_filled_mask, text.masks),
        truncation=truncation(text.truncation),
        fillings=map(_mask_filling, text.fillings),
    )


def _mask_filling(filling: Filling) -> embedding_pb2.MaskFilling:
    return embedding_pb2.MaskFilling(
        tokens=[
            embedding_pb2.MaskCandidate(id=token.id, text=token.text, probability=token.probability)
            for token in filling.tokens
        ],
        log_probability=filling.log_probability,
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


def classify_response(answer: ClassificationAnswer) -> embedding_pb2.ClassifyResponse:
    """The message of an answer."""
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


def embed_sparse_response(answer: SparseEmbeddingAnswer) -> embedding_pb2.EmbedSparseResponse:
    """The message of an answer."""
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


def similarity_response(answer: SimilarityAnswer) -> embedding_pb2.SimilarityResponse:
    """The message of an answer."""
    return embedding_pb2.SimilarityResponse(
        results=map(_similarity_result, answer.queries),
        texts=map(_embed_result, answer.texts),
        model=answer.model,
        token_counts=_counts(answer),
        timings=timings(answer.phases),
    )


def _similarity_result(query: SimilarTexts | InvalidRequest) -> embedding_pb2.SimilarityResult:
    if isinstance(query, InvalidRequest):
        return embedding_pb2.SimilarityResult(error=fault(query))
    return embedding_pb2.SimilarityResult(
        indices=query.indices,
        scores=query.scores,
        num_tokens=query.query.num_tokens,
        truncation=truncation(query.query.truncation),
    )


def rerank_response(answer: RerankingAnswer) -> embedding_pb2.RerankResponse:
    """The message of an answer."""
    ranked = [
        embedding_pb2.RerankResult(
            index=each.index, score=each.score, truncation=truncation(each.truncation)
        )
        for each in answer.documents
    ]
    failed = [
        embedding_pb2.RerankResult(index=index, error=fault(error))
        for index, error in answer.faults
    ]
    return embedding_pb2.RerankResponse(
        results=ranked + failed,
        model=answer.model,
        token_counts=_counts(answer),
        timings=timings(answer.phases),
        score_function=cast("embedding_pb2.ScoreFunction.ValueType", answer.score_function.value),
    )
