"""Parses responses of the embedding service into results, except those of comparisons.

Pure functions that know no channel. They raise ServerError for responses that violate the contract.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from attendant.v1 import embedding_pb2
from numpy.typing import NDArray

from attendant_client import embedding_results
from attendant_client.embedding_results import FloatArray
from attendant_client.errors import TextError, bad_answer
from attendant_client.parsing import Errors, call_report, tokens, truncation

_FORMATS = {
    embedding_pb2.DATA_TYPE_FLOAT32: "<f4",
    embedding_pb2.DATA_TYPE_FLOAT16: "<f2",
    embedding_pb2.DATA_TYPE_INT8: "i1",
    embedding_pb2.DATA_TYPE_UINT8: "u1",
    embedding_pb2.DATA_TYPE_BINARY: "u1",
}
_SCALED = (embedding_pb2.DATA_TYPE_INT8, embedding_pb2.DATA_TYPE_UINT8)


def embeddings(
    response: embedding_pb2.EmbedResponse,
    errors: Errors,
    request_id: str,
    has_chunks: bool = False,
) -> list[embedding_results.Embedding]:
    """Parse the answer to Embed. `has_chunks`: whether the rows of the vectors are chunks."""
    call = call_report(response, request_id)
    vectors, scales = np.zeros((0 if has_chunks else len(errors), 0), np.float32), None
    if response.HasField("embeddings") or not all(errors):
        vectors, scales = array(response.embeddings)  # (rows, dimension), (rows)
    counts = [len(item.chunks) if has_chunks else 1 for item in response.results]
    if vectors.ndim != 2 or len(vectors) != sum(counts):
        raise bad_answer(f"embeddings of shape {vectors.shape} for {sum(counts)} texts or chunks")
    if not has_chunks and vectors.dtype.kind == "f":
        vectors[[error is not None for error in errors]] = np.nan
    found, end = [], 0
    for item, error, count in zip(response.results, errors, counts, strict=True):
        rows: Any = slice(end, end + count) if has_chunks else end
        end += count
        found.append(
            embedding_results.Embedding(
                vectors[rows],
                item.num_tokens,
                truncation(item),
                error,
                call,
                _scale(scales, rows),
                tuple(embedding_results.Chunk(c.start, c.end, c.num_tokens) for c in item.chunks),
            )
        )
    return found


def _scale(scales: FloatArray | None, rows: Any) -> Any:
    """The scale of one row as a number, those of several as an array; None without scales."""
    if scales is None:
        return None
    return scales[rows] if isinstance(rows, slice) else float(scales[rows])


def token_embeddings(
    response: embedding_pb2.EmbedTokensResponse, errors: Errors, request_id: str
) -> list[embedding_results.TokenEmbeddings]:
    """Parse the answer to EmbedTokens."""
    call = call_report(response, request_id)

    def parse(
        item: embedding_pb2.EmbedTokensResult, error: TextError | None
    ) -> embedding_results.TokenEmbeddings:
        if error is not None:
            nothing = np.zeros((0, 0), dtype=np.float32)
            return embedding_results.TokenEmbeddings((), nothing, truncation(item), error, call)
        # (tokens or spans, dimension) or (layers, tokens or spans, dimension)
        vectors, scales = array(item.embeddings)
        num_rows = len(item.tokens) + len(item.spans)
        if vectors.ndim not in (2, 3) or vectors.shape[-2] != num_rows:
            raise bad_answer(f"embeddings of shape {vectors.shape} for {num_rows} tokens or spans")
        spans = tuple(
            embedding_results.EmbeddedSpan(s.start, s.end, s.num_tokens) for s in item.spans
        )
        return embedding_results.TokenEmbeddings(
            tokens(item.tokens), vectors, truncation(item), error, call, scales, spans
        )

    return list(map(parse, response.results, errors))


def filled_texts(
    response: embedding_pb2.FillMaskResponse, errors: Errors, request_id: str
) -> list[embedding_results.FilledText]:
    """Parse the answer to FillMask."""
    call = call_report(response, request_id)

    def parse(
        item: embedding_pb2.FillMaskResult, error: TextError | None
    ) -> embedding_results.FilledText:
        masks, fillings = map(_mask_fill, item.masks), map(_filling, item.fillings)
        return embedding_results.FilledText(
            tuple(masks), truncation(item), error, call, tuple(fillings)
        )

    return list(map(parse, response.results, errors))


def classified_texts(
    response: embedding_pb2.ClassifyResponse, errors: Errors, request_id: str
) -> list[embedding_results.ClassifiedText]:
    """Parse the answer to Classify."""
    call = call_report(response, request_id)

    def parse(
        item: embedding_pb2.ClassifyResult, error: TextError | None
    ) -> embedding_results.ClassifiedText:
        labels = tuple(embedding_results.LabelScore(each.label, each.score) for each in item.labels)
        return embedding_results.ClassifiedText(labels, truncation(item), error, call)

    return list(map(parse, response.results, errors))


def array(
    tensor: embedding_pb2.Tensor,
) -> tuple[NDArray[Any], FloatArray | None]:
    """Return the numbers of a tensor and the scales of its rows; bits are packed in bytes."""
    if tensor.dtype not in _FORMATS:
        raise bad_answer(f"a tensor of data type {tensor.dtype}")
    shape, wire = tuple(tensor.shape), np.dtype(_FORMATS[tensor.dtype])
    if tensor.dtype == embedding_pb2.DATA_TYPE_BINARY and shape:
        shape = (*shape[:-1], (shape[-1] + 7) // 8)
    if len(tensor.data) != wire.itemsize * math.prod(shape):
        raise bad_answer(f"a tensor of {len(tensor.data)} bytes and shape {shape}")
    numbers = np.frombuffer(tensor.data, wire).astype(wire.newbyteorder("=")).reshape(shape)
    if tensor.dtype not in _SCALED:
        return numbers, None
    if len(tensor.scales) != math.prod(shape[:-1]):
        raise bad_answer(f"{len(tensor.scales)} scales for a tensor of shape {shape}")
    return numbers, np.array(tensor.scales, np.float32).reshape(shape[:-1])


def _mask_fill(mask: embedding_pb2.FilledMask) -> embedding_results.MaskFill:
    return embedding_results.MaskFill(mask.start, mask.end, _candidates(mask.candidates))


def _filling(filling: embedding_pb2.MaskFilling) -> embedding_results.MaskFilling:
    return embedding_results.MaskFilling(_candidates(filling.tokens), filling.log_probability)


def _candidates(
    candidates: Sequence[embedding_pb2.MaskCandidate],
) -> tuple[embedding_results.MaskCandidate, ...]:
    return tuple(
        embedding_results.MaskCandidate(each.id, each.text, each.probability) for each in candidates
    )
