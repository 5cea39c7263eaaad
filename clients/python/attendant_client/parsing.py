"""Parses responses of the contract into results.

Pure functions that know no channel. They raise ServerError for responses that violate the contract.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from attendant.v1 import embedding_pb2, model_pb2, text_pb2, translation_pb2
from google.protobuf.duration_pb2 import Duration
from numpy.typing import NDArray

from attendant_client import results
from attendant_client.errors import TextError, bad_answer

Errors = Sequence[TextError | None]
"""The error of each text, None for success."""
_FORMATS = {
    embedding_pb2.DATA_TYPE_FLOAT32: "<f4",
    embedding_pb2.DATA_TYPE_FLOAT16: "<f2",
    embedding_pb2.DATA_TYPE_INT8: "i1",
    embedding_pb2.DATA_TYPE_UINT8: "u1",
    embedding_pb2.DATA_TYPE_BINARY: "u1",
}
_SCALED = (embedding_pb2.DATA_TYPE_INT8, embedding_pb2.DATA_TYPE_UINT8)


def translations(
    response: translation_pb2.TranslateResponse, errors: Errors, request_id: str
) -> list[results.Translation]:
    """Parse the answer to Translate."""
    call = call_report(response, request_id)
    items = zip(response.translations, errors, strict=True)
    return [_translation(item, call, error) for item, error in items]


def _translation(
    item: translation_pb2.Translation, call: results.CallReport, error: TextError | None
) -> results.Translation:
    if error is None and not item.hypotheses:
        raise bad_answer("a translation has neither hypotheses nor an error", call.request_id)
    hypotheses = tuple(_hypothesis(hypothesis) for hypothesis in item.hypotheses)
    return results.Translation(
        hypotheses,
        item.num_source_tokens,
        item.num_unknown_tokens,
        truncation(item),
        error,
        call,
    )


def stream_end(
    response: translation_pb2.StreamTranslateResponse, request_id: str
) -> results.Translation | None:
    """Return the translation that the last message of a stream holds, None for other messages."""
    if not response.HasField("translation"):
        return None
    return _translation(response.translation, call_report(response, request_id), None)


def scores(
    response: translation_pb2.ScoreResponse, errors: Errors, request_id: str
) -> list[results.TranslationScore]:
    """Parse the answer to Score."""
    call = call_report(response, request_id)
    return [
        results.TranslationScore(
            score=math.nan if error else item.score,
            log_probability=math.nan if error else item.log_probability,
            log_probabilities=tuple(item.log_probabilities),
            tokens=_tokens(item.tokens),
            num_source_tokens=item.num_source_tokens,
            truncation=truncation(item),
            error=error,
            call=call,
            alignments=_alignments(item.alignments),
        )
        for item, error in zip(response.scores, errors, strict=True)
    ]


def embeddings(
    response: embedding_pb2.EmbedResponse,
    errors: Errors,
    request_id: str,
    has_chunks: bool = False,
) -> list[results.Embedding]:
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
            results.Embedding(
                vectors[rows],
                item.num_tokens,
                truncation(item),
                error,
                call,
                _scale(scales, rows),
                tuple(results.Chunk(c.start, c.end, c.num_tokens) for c in item.chunks),
            )
        )
    return found


def _scale(scales: results.FloatArray | None, rows: Any) -> Any:
    """The scale of one row as a number, those of several as an array; None without scales."""
    if scales is None:
        return None
    return scales[rows] if isinstance(rows, slice) else float(scales[rows])


def token_embeddings(
    response: embedding_pb2.EmbedTokensResponse, errors: Errors, request_id: str
) -> list[results.TokenEmbeddings]:
    """Parse the answer to EmbedTokens."""
    call = call_report(response, request_id)

    def parse(
        item: embedding_pb2.EmbedTokensResult, error: TextError | None
    ) -> results.TokenEmbeddings:
        if error is not None:
            nothing = np.zeros((0, 0), dtype=np.float32)
            return results.TokenEmbeddings((), nothing, truncation(item), error, call)
        # (tokens, dimension) or (layers, tokens, dimension)
        vectors, scales = array(item.embeddings)
        if vectors.ndim not in (2, 3) or vectors.shape[-2] != len(item.tokens):
            raise bad_answer(f"embeddings of shape {vectors.shape} for {len(item.tokens)} tokens")
        return results.TokenEmbeddings(
            _tokens(item.tokens), vectors, truncation(item), error, call, scales
        )

    return list(map(parse, response.results, errors))


def filled_texts(
    response: embedding_pb2.FillMaskResponse, errors: Errors, request_id: str
) -> list[results.FilledText]:
    """Parse the answer to FillMask."""
    call = call_report(response, request_id)
    return [
        results.FilledText(tuple(map(_mask_fill, item.masks)), truncation(item), error, call)
        for item, error in zip(response.results, errors, strict=True)
    ]


def classified_texts(
    response: embedding_pb2.ClassifyResponse, errors: Errors, request_id: str
) -> list[results.ClassifiedText]:
    """Parse the answer to Classify."""
    call = call_report(response, request_id)

    def parse(
        item: embedding_pb2.ClassifyResult, error: TextError | None
    ) -> results.ClassifiedText:
        labels = tuple(results.LabelScore(each.label, each.score) for each in item.labels)
        return results.ClassifiedText(labels, truncation(item), error, call)

    return list(map(parse, response.results, errors))


def tokenizations(
    response: model_pb2.TokenizeResponse, errors: Errors, request_id: str
) -> list[results.Tokenization]:
    """Parse the answer to Tokenize."""
    return [
        results.Tokenization(_tokens(item.tokens), error, response.model)
        for item, error in zip(response.results, errors, strict=True)
    ]


def array(
    tensor: embedding_pb2.Tensor,
) -> tuple[NDArray[Any], results.FloatArray | None]:
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


def call_report(response: Any, request_id: str) -> results.CallReport:
    """Parse the report on a whole call."""
    timings = response.timings

    def seconds(phase: str) -> float | None:
        duration: Duration = getattr(timings, phase)
        return duration.ToTimedelta().total_seconds() if timings.HasField(phase) else None

    return results.CallReport(
        model=response.model,
        num_input_tokens=response.token_counts.num_input_tokens,
        num_output_tokens=response.token_counts.num_output_tokens,
        queue_seconds=seconds("queue"),
        tokenize_seconds=seconds("tokenize"),
        encode_seconds=seconds("encode"),
        decode_seconds=seconds("decode"),
        request_id=request_id,
        seed=_seed(response),
    )


def _seed(response: Any) -> int | None:
    has_seeds = "seed" in response.DESCRIPTOR.fields_by_name
    return response.seed if has_seeds and response.HasField("seed") else None


def truncation(item: Any) -> results.TruncationReport | None:
    """Parse the report on the truncation of a text."""
    if not item.HasField("truncation"):
        return None
    report: text_pb2.TruncationReport = item.truncation
    return results.TruncationReport(
        report.num_original_tokens,
        report.num_kept_tokens,
        choice(text_pb2.Truncation, report.truncation),
    )


def _tokens(tokens: Sequence[text_pb2.Token]) -> tuple[results.Token, ...]:
    return tuple(
        results.Token(token.id, token.text, token.start, token.end, token.special)
        for token in tokens
    )


def _hypothesis(hypothesis: translation_pb2.Hypothesis) -> results.Hypothesis:
    return results.Hypothesis(
        text=hypothesis.text,
        score=hypothesis.score,
        tokens=tuple(
            results.OutputToken(token.id, token.text, token.log_probability)
            for token in hypothesis.tokens
        ),
        finish_reason=choice(translation_pb2.FinishReason, hypothesis.finish_reason),
        sentences=tuple(
            results.SentencePair(
                sentence.source_start,
                sentence.source_end,
                sentence.target_start,
                sentence.target_end,
            )
            for sentence in hypothesis.sentences
        ),
        alignments=_alignments(hypothesis.alignments),
    )


def _alignments(
    links: Iterable[translation_pb2.WordAlignment],
) -> tuple[results.WordAlignment, ...]:
    return tuple(
        results.WordAlignment(
            link.source_start, link.source_end, link.target_start, link.target_end, link.weight
        )
        for link in links
    )


def _mask_fill(mask: embedding_pb2.FilledMask) -> results.MaskFill:
    candidates = tuple(
        results.MaskCandidate(candidate.id, candidate.text, candidate.probability)
        for candidate in mask.candidates
    )
    return results.MaskFill(mask.start, mask.end, candidates)


def choice(enum: Any, number: int) -> str:
    """Return the last word of an enum value's name: "stop" for FINISH_REASON_STOP.

    Empty for a value that is unspecified or unknown to this version of the contract.
    """
    if number == 0 or number not in enum.values():
        return ""
    return str(enum.Name(number)).rpartition("_")[2].lower()
