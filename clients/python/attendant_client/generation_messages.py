"""Builds the requests of language models. Knows no channel."""

import secrets
from collections.abc import Sequence

import grpc
from attendant.v1 import language_model_pb2

from attendant_client import generation_parsing, generation_results
from attendant_client.calls import Call, TextCall, sendable
from attendant_client.errors import TextError
from attendant_client.messages import OFFSET_UNITS, TRUNCATIONS, chosen, text_list
from attendant_client.options import OffsetUnit, Truncation


def generate(
    prompts: str | Sequence[str],
    options: language_model_pb2.GenerateOptions,
    *,
    model: str,
    truncation: Truncation,
    reads_special_tokens: bool,
) -> TextCall[generation_results.Generation]:
    """Build a Generate call."""
    sent, faults = sendable(text_list(prompts))
    if len(sent) > 1 and options.HasField("sampling") and not options.sampling.HasField("seed"):
        options.sampling.seed = secrets.randbits(32)  # the same for all parts of a large call
    request = language_model_pb2.GenerateRequest(
        model=model,
        prompts=sent,
        options=options,
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
        reads_special_tokens=reads_special_tokens,
    )
    return TextCall(
        "/attendant.v1.LanguageModelService/Generate",
        request,
        language_model_pb2.GenerateResponse,
        generation_parsing.generations,
        fields=("prompts",),
        results_field="generations",
        faults=faults,
    )


def stream_generate(
    prompt: str,
    options: language_model_pb2.GenerateOptions,
    *,
    model: str,
    truncation: Truncation,
    reads_special_tokens: bool,
) -> Call[generation_results.Generation | None]:
    """Build a StreamGenerate call. Only the last message parses to a Generation.

    Raises TextError for a prompt that cannot be sent.
    """
    (sent,), faults = sendable([prompt])
    for problem in faults.values():
        raise TextError(problem, grpc.StatusCode.INVALID_ARGUMENT)
    request = language_model_pb2.StreamGenerateRequest(
        model=model,
        prompt=sent,
        options=options,
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
        reads_special_tokens=reads_special_tokens,
    )
    return Call(
        "/attendant.v1.LanguageModelService/StreamGenerate",
        request,
        language_model_pb2.StreamGenerateResponse,
        generation_parsing.stream_end,
    )


def score_texts(
    texts: str | Sequence[str],
    *,
    model: str,
    return_tokens: bool,
    scores_end: bool,
    reads_special_tokens: bool,
    offset_unit: OffsetUnit,
) -> TextCall[generation_results.TextScore]:
    """Build a ScoreText call."""
    sent, faults = sendable(text_list(texts))
    request = language_model_pb2.ScoreTextRequest(
        model=model,
        texts=sent,
        return_tokens=return_tokens,
        scores_end=scores_end,
        reads_special_tokens=reads_special_tokens,
        offset_unit=chosen(OFFSET_UNITS, "offset_unit", offset_unit),
    )
    return TextCall(
        "/attendant.v1.LanguageModelService/ScoreText",
        request,
        language_model_pb2.ScoreTextResponse,
        generation_parsing.text_scores,
        results_field="scores",
        faults=faults,
    )
