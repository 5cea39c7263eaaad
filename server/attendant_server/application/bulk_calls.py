"""Translation and embedding of streams of texts."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from attendant_server import records
from attendant_server.application.admission import CallAdmission
from attendant_server.application.bulk_stream import (
    BulkStream,
    BulkText,
    StreamTime,
)
from attendant_server.application.embedding import (
    CHUNK_BYTES,
    Embedder,
    EmbeddingAnswer,
    EmbeddingRequest,
)
from attendant_server.application.routed_translation import RoutedTranslator
from attendant_server.application.translation import TranslationAnswer, TranslationRequest
from attendant_server.application.validation import TOKEN_BYTES, TOKEN_TEXT_BYTES, RequestLimits
from attendant_server.errors import InvalidRequest
from attendant_server.records import BETWEEN_MODELS

Value = TypeVar("Value")


class BulkTranslator:
    """Translates streams of texts."""

    def __init__(
        self, translator: RoutedTranslator, limits: RequestLimits, admission: CallAdmission
    ) -> None:
        self._translator, self._limits, self._admission = translator, limits, admission

    async def begin(
        self, request: TranslationRequest, markup: int, seconds_left: float | None
    ) -> BulkStream[BulkText, TranslationAnswer]:
        """A stream for a request without texts; raises the faults of its options.

        All texts are translated by the model that the request means now, in its newest form if it
        is replaced; over a pivot language, by those that it means when they are read.
        ``seconds_left`` is the time until the caller's deadline, None without one.
        """
        _check_empty(request, "texts", "target_prefixes")
        plan = await _in_a_task(self._translator.check(request, markup))
        time_limit = StreamTime(seconds_left)
        request = _with_seed(request, plan.seed)
        if (glossary := plan.joiner.glossary) is not None:  # built once, not for each text
            request = replace(request, glossary="", glossary_entries=(), built_glossary=glossary)
        if BETWEEN_MODELS not in (model := records.current().model):
            request = replace(request, model=model)

        async def answer(number: int, texts: Sequence[BulkText]) -> TranslationAnswer:
            part = replace(_with_place(request, number), texts=_strings(texts), may_wait=True)
            found = await self._translator.translate(part, markup, time_limit.seconds_left())
            return replace(found, translations=[_named(each) for each in found.translations])

        return BulkStream(answer, _translation_bytes, self._limits, self._admission, time_limit)


class BulkEmbedder:
    """Embeds streams of texts."""

    def __init__(self, embedder: Embedder, limits: RequestLimits, admission: CallAdmission) -> None:
        self._embedder, self._limits, self._admission = embedder, limits, admission

    async def begin(
        self, request: EmbeddingRequest, seconds_left: float | None
    ) -> BulkStream[BulkText, EmbeddingAnswer]:
        """A stream for a request without texts; like `BulkTranslator.begin`."""
        _check_empty(request, "texts")
        await _in_a_task(self._embedder.plan(request, 1))
        time_limit = StreamTime(seconds_left)
        request = replace(request, model=records.current().model, may_wait=True)

        async def answer(number: int, texts: Sequence[BulkText]) -> EmbeddingAnswer:
            part = replace(request, texts=_strings(texts))
            found = await self._embedder.embed(part, time_limit.seconds_left())
            return replace(found, texts=[_named(each) for each in found.texts])

        return BulkStream(answer, _embedding_bytes, self._limits, self._admission, time_limit)


async def _in_a_task(check: Coroutine[Any, Any, Value]) -> Value:
    """Await a check in a task of its own, so that the stream itself does not keep the model."""
    return await asyncio.create_task(check)


def _check_empty(request: TranslationRequest | EmbeddingRequest, *fields: str) -> None:
    for field in fields:
        if getattr(request, field):
            raise InvalidRequest(field, "must be empty: the texts are in later messages")


def _with_seed(request: TranslationRequest, seed: int | None) -> TranslationRequest:
    """The request with the seed of all texts."""
    sampling = request.options.sampling
    if sampling is None:
        return request
    sampling = replace(sampling, seed=seed)
    return replace(request, options=replace(request.options, sampling=sampling))


def _with_place(request: TranslationRequest, number: int) -> TranslationRequest:
    """The request for texts from this number on, which have samples of their own."""
    sampling = request.options.sampling
    if sampling is None:
        return request
    sampling = replace(sampling, first_index=sampling.first_index + number)
    return replace(request, options=replace(request.options, sampling=sampling))


def _strings(texts: Sequence[BulkText]) -> list[str]:
    return [text.text for text in texts]


def _named(result: Value | InvalidRequest) -> Value | InvalidRequest:
    """The result of a text; a fault without the place that the text has in its part."""
    return InvalidRequest("text", result.problem) if isinstance(result, InvalidRequest) else result


def _translation_bytes(answer: TranslationAnswer) -> int:
    return TOKEN_BYTES * answer.size + TOKEN_TEXT_BYTES * answer.num_output_tokens


def _embedding_bytes(answer: EmbeddingAnswer) -> int:
    num_chunks = sum(
        len(text.chunks) for text in answer.texts if not isinstance(text, InvalidRequest)
    )
    return answer.vectors.numbers.nbytes + CHUNK_BYTES * num_chunks
