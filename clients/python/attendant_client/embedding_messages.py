"""Builds the requests of the embedding service, except those of comparisons. Knows no channel."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from attendant.v1 import embedding_pb2

from attendant_client import embedding_parsing, embedding_results
from attendant_client.calls import TextCall, sendable
from attendant_client.messages import (
    NORMALIZATIONS,
    OFFSET_UNITS,
    TRUNCATIONS,
    chosen,
    of_side,
    text_list,
)
from attendant_client.options import (
    Candidates,
    Chunking,
    DataType,
    LayerCombination,
    OffsetUnit,
    Pooling,
    Role,
    Span,
    TextNormalization,
    Truncation,
    VectorUnit,
)

POOLINGS: dict[str | None, embedding_pb2.Pooling.ValueType] = {
    None: embedding_pb2.POOLING_UNSPECIFIED,
    "mean": embedding_pb2.POOLING_MEAN,
    "cls": embedding_pb2.POOLING_CLS,
    "max": embedding_pb2.POOLING_MAX,
    "last": embedding_pb2.POOLING_LAST,
    "weighted_mean": embedding_pb2.POOLING_WEIGHTED_MEAN,
    "mean_sqrt_length": embedding_pb2.POOLING_MEAN_SQRT_LENGTH,
}
CHUNKINGS: dict[str | None, embedding_pb2.Chunking.ValueType] = {
    None: embedding_pb2.CHUNKING_NONE,
    "sentences": embedding_pb2.CHUNKING_SENTENCES,
    "tokens": embedding_pb2.CHUNKING_TOKENS,
}
DATA_TYPES: dict[str, embedding_pb2.DataType.ValueType] = {
    "float32": embedding_pb2.DATA_TYPE_FLOAT32,
    "float16": embedding_pb2.DATA_TYPE_FLOAT16,
    "int8": embedding_pb2.DATA_TYPE_INT8,
    "uint8": embedding_pb2.DATA_TYPE_UINT8,
    "binary": embedding_pb2.DATA_TYPE_BINARY,
}
LAYER_COMBINATIONS: dict[str | None, embedding_pb2.LayerCombination.ValueType] = {
    None: embedding_pb2.LAYER_COMBINATION_NONE,
    "mean": embedding_pb2.LAYER_COMBINATION_MEAN,
    "concatenation": embedding_pb2.LAYER_COMBINATION_CONCATENATION,
}
VECTOR_UNITS: dict[str | None, embedding_pb2.VectorUnit.ValueType] = {
    None: embedding_pb2.VECTOR_UNIT_TOKENS,
    "tokens": embedding_pb2.VECTOR_UNIT_TOKENS,
    "words": embedding_pb2.VECTOR_UNIT_WORDS,
    "spans": embedding_pb2.VECTOR_UNIT_SPANS,
}
ROLES: dict[str | None, embedding_pb2.TextRole.ValueType] = {
    None: embedding_pb2.TEXT_ROLE_UNSPECIFIED,
    "query": embedding_pb2.TEXT_ROLE_QUERY,
    "document": embedding_pb2.TEXT_ROLE_DOCUMENT,
}


def embed(
    texts: str | Sequence[str],
    *,
    model: str,
    pooling: Pooling | None,
    normalize: bool | None,
    dimensions: int | None,
    force_dimensions: bool,
    prompt_name: str | None,
    prompt: str | None,
    data_type: DataType,
    chunking: Chunking | None,
    max_chunk_tokens: int | None,
    average_chunks: bool,
    text_normalization: TextNormalization | None,
    offset_unit: OffsetUnit,
    truncation: Truncation,
) -> TextCall[embedding_results.Embedding]:
    """Build an Embed call."""
    sent, faults = sendable(text_list(texts))
    request = embedding_pb2.EmbedRequest(
        model=model,
        texts=sent,
        pooling=chosen(POOLINGS, "pooling", pooling),
        normalize=normalize,
        dimensions=dimensions,
        force_dimensions=force_dimensions,
        prompt_name=prompt_name,
        prompt=prompt,
        data_type=chosen(DATA_TYPES, "data_type", data_type),
        chunking=chosen(CHUNKINGS, "chunking", chunking),
        max_chunk_tokens=max_chunk_tokens,
        average_chunks=average_chunks,
        offset_unit=chosen(OFFSET_UNITS, "offset_unit", offset_unit),
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    return TextCall(
        "/attendant.v1.EmbeddingService/Embed",
        request,
        embedding_pb2.EmbedResponse,
        partial(embedding_parsing.embeddings, has_chunks=bool(chunking) and not average_chunks),
        faults=faults,
    )


def embed_tokens(
    texts: str | Sequence[str],
    layers: Sequence[int],
    *,
    model: str,
    role: Role | None,
    data_type: DataType,
    layer_combination: LayerCombination | None,
    unit: VectorUnit | None,
    spans: Sequence[Span] | Sequence[Sequence[Span]] | None,
    text_normalization: TextNormalization | None,
    offset_unit: OffsetUnit,
    truncation: Truncation,
) -> TextCall[embedding_results.TokenEmbeddings]:
    """Build an EmbedTokens call. Raises ValueError for spans of another number of texts."""
    sent, faults = sendable(text_list(texts))
    of_texts = [] if spans is None else _spans_of_texts(texts, spans)
    if (unit == "spans") != (spans is not None):
        raise ValueError('spans are for unit="spans", which needs them')
    if spans is not None and len(of_texts) != len(sent):
        raise ValueError(f"spans must be those of {len(sent)} texts, not of {len(of_texts)}")
    request = embedding_pb2.EmbedTokensRequest(
        model=model,
        texts=sent,
        layers=layers,
        role=chosen(ROLES, "role", role),
        layer_combination=chosen(LAYER_COMBINATIONS, "layer_combination", layer_combination),
        unit=chosen(VECTOR_UNITS, "unit", unit),
        spans=of_texts,
        data_type=chosen(DATA_TYPES, "data_type", data_type),
        offset_unit=chosen(OFFSET_UNITS, "offset_unit", offset_unit),
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    return TextCall(
        "/attendant.v1.EmbeddingService/EmbedTokens",
        request,
        embedding_pb2.EmbedTokensResponse,
        embedding_parsing.token_embeddings,
        fields=("texts",) if spans is None else ("texts", "spans"),
        faults=faults,
    )


def _spans_of_texts(texts: str | Sequence[str], spans: Any) -> list[embedding_pb2.TextSpans]:
    of_texts = [spans] if isinstance(texts, str) else spans
    return [
        embedding_pb2.TextSpans(
            spans=[embedding_pb2.Span(start=start, end=end) for start, end in each]
        )
        for each in of_texts
    ]


def fill_mask(
    texts: str | Sequence[str],
    top_k: int | None,
    *,
    model: str,
    candidates: Candidates | None,
    joint: bool,
    text_normalization: TextNormalization | None,
    offset_unit: OffsetUnit,
    truncation: Truncation,
) -> TextCall[embedding_results.FilledText]:
    """Build a FillMask call. Raises ValueError for candidates of another number of texts."""
    sent, faults = sendable(text_list(texts))
    of_texts = [] if candidates is None else _candidates_of_texts(texts, candidates)
    if candidates is not None and len(of_texts) != len(sent):
        raise ValueError(f"candidates must be those of {len(sent)} texts, not of {len(of_texts)}")
    request = embedding_pb2.FillMaskRequest(
        model=model,
        texts=sent,
        top_k=top_k,
        candidates=of_texts,
        joint=joint,
        offset_unit=chosen(OFFSET_UNITS, "offset_unit", offset_unit),
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    return TextCall(
        "/attendant.v1.EmbeddingService/FillMask",
        request,
        embedding_pb2.FillMaskResponse,
        embedding_parsing.filled_texts,
        fields=("texts",) if candidates is None else ("texts", "candidates"),
        faults=faults,
    )


def _candidates_of_texts(
    texts: str | Sequence[str], candidates: Any
) -> list[embedding_pb2.TextCandidates]:
    if isinstance(candidates, str):
        raise ValueError("candidates must be a list of texts, not a text")
    if all(isinstance(each, str) for each in candidates):
        of_texts = [[candidates]] * len(text_list(texts))
    else:
        of_texts = [candidates] if isinstance(texts, str) else candidates
    return [
        embedding_pb2.TextCandidates(masks=[embedding_pb2.MaskTexts(texts=mask) for mask in masks])
        for masks in of_texts
    ]


def classify(
    texts: str | Sequence[str],
    text_pairs: str | Sequence[str] | None,
    *,
    model: str,
    top_k: int | None,
    raw_scores: bool,
    text_normalization: TextNormalization | None,
    truncation: Truncation,
) -> TextCall[embedding_results.ClassifiedText]:
    """Build a Classify call. Raises ValueError for another number of second texts than of texts."""
    sent, faults = sendable(text_list(texts))
    fields: tuple[str, ...] = ("texts",)
    pairs: list[str] = []
    if text_pairs is not None:
        pairs, pair_faults = sendable(text_list(text_pairs))
        if len(pairs) != len(sent):
            raise ValueError(f"text_pairs must be {len(sent)} texts, as many as texts")
        faults = of_side("second text", pair_faults) | faults
        fields = ("texts", "text_pairs")
    request = embedding_pb2.ClassifyRequest(
        model=model,
        texts=sent,
        text_pairs=pairs,
        top_k=top_k,
        raw_scores=raw_scores,
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    return TextCall(
        "/attendant.v1.EmbeddingService/Classify",
        request,
        embedding_pb2.ClassifyResponse,
        embedding_parsing.classified_texts,
        fields=fields,
        faults=faults,
    )
