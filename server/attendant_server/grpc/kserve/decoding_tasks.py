"""Translation and continuation as tasks."""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import chain
from typing import Any

import numpy as np
from attendant.v1 import language_model_pb2, translation_pb2

from attendant_server.application.application import Application
from attendant_server.application.descriptions import ModelDescription, ModelKind
from attendant_server.application.generation import Generation, GenerationAnswer
from attendant_server.application.hypotheses import Translation
from attendant_server.application.translation import TranslationAnswer
from attendant_server.errors import InvalidRequest
from attendant_server.grpc.kserve.tasks import TEXT, Task, TaskResult, TensorSpec
from attendant_server.grpc.kserve.tensors import FP32, OutputTensor
from attendant_server.grpc.services.decoding_messages import Hypothesis, finish_reason
from attendant_server.grpc.services.language_model import generation_request
from attendant_server.grpc.services.translation_requests import (
    read_glossary_entries,
    stream_request,
    translation_request,
)
from attendant_server.text_faults import without_faults

SCORE, FINISH_REASON = "SCORE", "FINISH_REASON"
HIDDEN_OPTIONS = ("return_tokens", "first_index")
"""Options without an effect on the outputs."""


class _DecodingTask(Task):
    kind: ModelKind

    def inputs(self) -> Sequence[TensorSpec]:
        """Texts."""
        return [TensorSpec(TEXT)]

    def outputs(self, model: ModelDescription) -> Sequence[TensorSpec]:
        """What the model writes, its score, and why it ended."""
        return [TensorSpec(TEXT), TensorSpec(SCORE, FP32), TensorSpec(FINISH_REASON)]

    def fits(self, model: ModelDescription) -> bool:
        """Whether the model is of the kind."""
        return model.kind is self.kind


class TranslateTask(_DecodingTask):
    """Translation of texts."""

    kind = ModelKind.TRANSLATION
    operation, stream_operation = "Translate", "StreamTranslate"
    message, stream_message = (
        translation_pb2.TranslateRequest,
        translation_pb2.StreamTranslateRequest,
    )
    hidden = (
        *("model", "text", "texts", "return_sentences", "return_alignments", "offset_unit"),
        *HIDDEN_OPTIONS,
    )
    tensor_fields = {"texts": TEXT, "text": TEXT}

    async def run(
        self,
        application: Application,
        message: translation_pb2.TranslateRequest,
        texts: Mapping[str, Sequence[str]],
        seconds_left: float | None,
    ) -> TaskResult:
        """Translate all texts."""
        message.texts.extend(texts[TEXT])
        entries = await read_glossary_entries(application.jobs, message)
        answer = await application.routed_translator.translate(
            translation_request(message, entries), message.markup, seconds_left
        )
        num_columns = message.options.num_hypotheses or 1
        return _result(answer, answer.translations, num_columns)

    async def stream(
        self,
        application: Application,
        message: translation_pb2.StreamTranslateRequest,
        text: str,
        seconds_left: float | None,
    ) -> AsyncGenerator[TaskResult, None]:
        """Translate one text."""
        _check_one_hypothesis(message)
        message.text = text
        entries = await read_glossary_entries(application.jobs, message)
        request = stream_request(message, entries)
        pieces = application.routed_translator.stream(request, seconds_left)
        async with aclosing(pieces):
            async for piece in pieces:
                if piece.answer is None:
                    yield _part(message.model, piece.delta)
                else:
                    yield _last(piece.delta, piece.answer, piece.answer.translations)


class GenerateTask(_DecodingTask):
    """Continuation of prompts."""

    kind = ModelKind.LANGUAGE_MODEL
    operation, stream_operation = "Generate", "StreamGenerate"
    message, stream_message = (
        language_model_pb2.GenerateRequest,
        language_model_pb2.StreamGenerateRequest,
    )
    hidden = ("model", "prompt", "prompts", *HIDDEN_OPTIONS)
    tensor_fields = {"prompts": TEXT, "prompt": TEXT}

    async def run(
        self,
        application: Application,
        message: language_model_pb2.GenerateRequest,
        texts: Mapping[str, Sequence[str]],
        seconds_left: float | None,
    ) -> TaskResult:
        """Continue all prompts."""
        request = generation_request(message, texts[TEXT])
        answer = await application.generator.generate(request, seconds_left)
        num_columns = message.options.num_hypotheses or 1
        return _result(answer, answer.generations, num_columns)

    async def stream(
        self,
        application: Application,
        message: language_model_pb2.StreamGenerateRequest,
        text: str,
        seconds_left: float | None,
    ) -> AsyncGenerator[TaskResult, None]:
        """Continue one prompt."""
        _check_one_hypothesis(message)
        pieces = application.generator.stream(generation_request(message, [text]), seconds_left)
        async with aclosing(pieces):
            async for piece in pieces:
                if piece.answer is None:
                    yield _part(message.model, piece.delta)
                else:
                    yield _last(piece.delta, piece.answer, piece.answer.generations)


def _check_one_hypothesis(
    message: translation_pb2.StreamTranslateRequest | language_model_pb2.StreamGenerateRequest,
) -> None:
    """Raise InvalidRequest for several hypotheses: a streamed result has one text."""
    if message.options.num_hypotheses > 1:
        raise InvalidRequest("num_hypotheses", "must be 1 with the parameter stream")


def _result(
    answer: TranslationAnswer | GenerationAnswer,
    results: Sequence[Translation | Generation | InvalidRequest],
    num_columns: int,
) -> TaskResult:
    """The outputs, with ``num_columns`` hypotheses for each text, "" for those that it lacks."""
    found: list[Translation | Generation] = without_faults(results)
    rows = [_padded(result, num_columns) for result in found]
    hypotheses: list[Any] = list(chain.from_iterable(rows))
    is_scalar = num_columns == 1
    scores = np.array([-np.inf if h is None else h.score for h in hypotheses], np.float32)
    reasons = ["" if h is None else _reason(h) for h in hypotheses]
    texts = ["" if h is None else h.text for h in hypotheses]
    return TaskResult(
        answer.model,
        {
            TEXT: OutputTensor(texts, num_columns, is_scalar),
            SCORE: OutputTensor(scores, num_columns, is_scalar, FP32),
            FINISH_REASON: OutputTensor(reasons, num_columns, is_scalar),
        },
        dict(_facts(answer, results)),
        answer.size,
    )


def _padded(result: Translation | Generation, num_columns: int) -> list[Hypothesis | None]:
    found: list[Hypothesis | None] = list(result.hypotheses[:num_columns])
    return found + [None] * (num_columns - len(found))


def _last(
    delta: str,
    answer: TranslationAnswer | GenerationAnswer,
    results: Sequence[Translation | Generation | InvalidRequest],
) -> TaskResult:
    result = _result(answer, results, 1)
    result.outputs[TEXT] = OutputTensor([delta], is_scalar=True)
    return result


def _part(model: str, delta: str) -> TaskResult:
    """A part of a streamed result: all outputs, with a score and a reason only in the last one."""
    outputs = {
        TEXT: OutputTensor([delta], is_scalar=True),
        SCORE: OutputTensor(np.zeros(1, np.float32), is_scalar=True, datatype=FP32),
        FINISH_REASON: OutputTensor([""], is_scalar=True),
    }
    return TaskResult(model, outputs, is_last=False)


def _reason(hypothesis: Hypothesis) -> str:
    return translation_pb2.FinishReason.Name(finish_reason(hypothesis))


def _facts(
    answer: TranslationAnswer | GenerationAnswer,
    results: Sequence[Translation | Generation | InvalidRequest],
) -> Iterator[tuple[str, int]]:
    yield "num_input_tokens", answer.num_input_tokens
    yield "num_output_tokens", answer.num_output_tokens
    truncated = (r for r in results if not isinstance(r, InvalidRequest) and r.truncation)
    if num_truncated := sum(1 for _ in truncated):
        yield "num_truncated_texts", num_truncated
    if answer.seed is not None:
        yield "seed", answer.seed
