"""TranslationService: Translate, StreamTranslate, BulkTranslate and Score."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial

from attendant.v1 import text_pb2, translation_pb2, translation_pb2_grpc
from attendant_glossaries import GlossaryEntry

from attendant_server.application.alignment import WordLink
from attendant_server.application.application import Application
from attendant_server.application.bulk_stream import BulkResult, BulkText
from attendant_server.application.hypotheses import Translation, TranslationHypothesis
from attendant_server.application.scoring import PairScore, ScoringAnswer, ScoringRequest
from attendant_server.application.term_placement import PlacedTerm
from attendant_server.application.translation import (
    StreamPiece,
    TranslationAnswer,
)
from attendant_server.errors import AttendantError, InvalidRequest
from attendant_server.grpc.context import Context
from attendant_server.grpc.services.bulk_messages import bulk_settings, bulk_texts, send
from attendant_server.grpc.services.decoding_messages import (
    add_tokens,
    fill_answer,
    finish_reason,
)
from attendant_server.grpc.services.messages import fault, given, timings, tokens, truncation
from attendant_server.grpc.services.offset_units import OffsetConverter
from attendant_server.grpc.services.translation_requests import (
    TranslationMessage,
    read_glossary_entries,
    stream_request,
    translation_request,
)


class TranslationService(translation_pb2_grpc.TranslationServiceServicer):
    """Answers for all translation models."""

    def __init__(self, application: Application) -> None:
        self._translator, self._jobs = application.routed_translator, application.jobs
        self._bulk_translator = application.bulk_translator
        self._max_seconds = application.models.limits.max_request_seconds

    async def Translate(
        self, request: translation_pb2.TranslateRequest, context: Context
    ) -> translation_pb2.TranslateResponse:
        """Translate all texts and answer when all are done."""
        offsets = OffsetConverter(request)
        asked = translation_request(request, await self._glossary_entries(request))
        answer = await self._translator.translate(asked, request.markup, context.time_remaining())
        response = translation_pb2.TranslateResponse()
        await self._fill(response, answer, offsets, request.texts)
        return response

    async def StreamTranslate(
        self, request: translation_pb2.StreamTranslateRequest, context: Context
    ) -> AsyncIterator[translation_pb2.StreamTranslateResponse]:
        """Translate one text and send complete words as soon as they are settled."""
        offsets = OffsetConverter(request)
        pieces = self._translator.stream(
            stream_request(request, await self._glossary_entries(request)),
            context.time_remaining(),
        )
        async with aclosing(pieces):
            async for piece in pieces:
                yield await self._stream_response(piece, offsets, request.text)

    async def BulkTranslate(  # type: ignore[override]  # grpc.aio also takes a coroutine that writes
        self, requests: AsyncIterator[translation_pb2.BulkTranslateRequest], context: Context
    ) -> None:
        """Translate the texts of a stream, and send the translations in their order."""
        settings = await bulk_settings(requests)
        offsets = OffsetConverter(settings)
        stream = await self._bulk_translator.begin(
            translation_request(settings, await self._glossary_entries(settings)),
            settings.markup,
            context.time_remaining(),
        )
        await context.send_initial_metadata(())
        async with aclosing(stream.results(bulk_texts(requests))) as results:
            async for result in results:
                response = await self._bulk_response(result, offsets)
                await send(context, response, self._max_seconds)

    async def Score(
        self, request: translation_pb2.ScoreRequest, context: Context
    ) -> translation_pb2.ScoreResponse:
        """Score all pairs and answer when all are done."""
        offsets = OffsetConverter(request)
        answer = await self._translator.score(
            ScoringRequest(
                sources=[pair.source for pair in request.pairs],
                targets=[pair.target for pair in request.pairs],
                model=request.model,
                length_penalty=given(request, "length_penalty"),
                truncation=request.truncation,
                source_language=request.source_language,
                target_language=request.target_language,
                text_normalization=request.text_normalization,
                return_tokens=request.return_tokens,
                return_alignments=request.return_alignments,
                controls=dict(request.controls),
            ),
            context.time_remaining(),
        )
        return await self._jobs.run_for(
            answer.size, lambda: offsets.of_scores(_score_response(answer), request.pairs)
        )

    async def _glossary_entries(self, request: TranslationMessage) -> list[GlossaryEntry]:
        return await read_glossary_entries(self._jobs, request)

    async def _bulk_response(
        self, result: BulkResult[BulkText, TranslationAnswer], offsets: OffsetConverter
    ) -> translation_pb2.BulkTranslateResponse:
        answer = result.answer
        response = translation_pb2.BulkTranslateResponse(ids=[text.id for text in result.texts])
        if isinstance(answer, AttendantError):
            response.answer.translations.add().error.CopyFrom(fault(answer))
            response.answer.model = result.model
            return response
        texts = [text.text for text in result.texts]
        await self._fill(response.answer, answer, offsets, texts)
        return response

    async def _fill(
        self,
        response: translation_pb2.TranslateResponse,
        answer: TranslationAnswer,
        offsets: OffsetConverter,
        texts: Sequence[str],
    ) -> None:
        """Write an answer into a response; its translations are those of ``texts``."""

        def fill(translation: Translation | InvalidRequest, text: str) -> None:
            message = response.translations.add()
            _fill_translation(message, translation)
            offsets.of_translation(message, text)

        await self._jobs.run_all(
            (
                0 if isinstance(translation, InvalidRequest) else translation.size,
                partial(fill, translation, text),
            )
            for translation, text in zip(answer.translations, texts, strict=True)
        )
        fill_answer(response, answer)

    async def _stream_response(
        self, piece: StreamPiece, offsets: OffsetConverter, text: str
    ) -> translation_pb2.StreamTranslateResponse:
        answer = piece.answer
        if answer is None:
            return translation_pb2.StreamTranslateResponse(delta=piece.delta)
        return await self._jobs.run_for(
            answer.size, lambda: offsets.of_stream(_last_response(piece.delta, answer), text)
        )


# Repeated messages are built in place, because constructors copy their arguments.


def _last_response(
    delta: str, answer: TranslationAnswer
) -> translation_pb2.StreamTranslateResponse:
    response = translation_pb2.StreamTranslateResponse(delta=delta)
    _fill_translation(response.translation, answer.translations[0])
    fill_answer(response, answer)
    return response


def _fill_translation(
    message: translation_pb2.Translation, translation: Translation | InvalidRequest
) -> None:
    if isinstance(translation, InvalidRequest):
        message.error.CopyFrom(fault(translation))
        return
    for hypothesis in translation.hypotheses:
        _add_hypothesis(message, hypothesis)
    message.num_source_tokens = translation.num_source_tokens
    message.num_unknown_tokens = translation.num_unknown_tokens
    if report := truncation(translation.truncation):
        message.truncation.CopyFrom(report)


def _add_hypothesis(
    message: translation_pb2.Translation, hypothesis: TranslationHypothesis
) -> None:
    added = message.hypotheses.add(
        text=hypothesis.text,
        score=hypothesis.score,
        finish_reason=finish_reason(hypothesis),
    )
    add_tokens(added, hypothesis)
    for sentence in hypothesis.sentences:
        added.sentences.add(
            source_start=sentence.source[0],
            source_end=sentence.source[1],
            target_start=sentence.target[0],
            target_end=sentence.target[1],
        )
    added.alignments.extend(map(_link, hypothesis.alignments))
    added.glossary_terms.extend(map(_term, hypothesis.glossary_terms))
    added.num_replaced_tokens = hypothesis.num_replaced
    added.num_avoided_repetitions = hypothesis.num_avoided_repetitions


def _link(link: WordLink) -> translation_pb2.WordAlignment:
    return translation_pb2.WordAlignment(
        source_start=link.source[0],
        source_end=link.source[1],
        target_start=link.target[0],
        target_end=link.target[1],
        weight=link.weight,
    )


def _term(term: PlacedTerm) -> translation_pb2.GlossaryTerm:
    target_start, target_end = term.target or (0, 0)
    return translation_pb2.GlossaryTerm(
        source_start=term.source[0],
        source_end=term.source[1],
        target_start=target_start,
        target_end=target_end,
        source=term.source_term,
        target=term.target_term,
    )


def _score_response(answer: ScoringAnswer) -> translation_pb2.ScoreResponse:
    return translation_pb2.ScoreResponse(
        scores=map(_score, answer.scores),
        model=answer.model,
        token_counts=text_pb2.TokenCounts(num_input_tokens=answer.num_input_tokens),
        timings=timings(answer.phases),
    )


def _score(score: PairScore | InvalidRequest) -> translation_pb2.TranslationScore:
    if isinstance(score, InvalidRequest):
        return translation_pb2.TranslationScore(error=fault(score))
    return translation_pb2.TranslationScore(
        score=score.score,
        log_probability=score.log_probability,
        log_probabilities=score.log_probabilities,
        tokens=None if score.target is None else tokens(score.target),
        truncation=truncation(score.truncation),
        num_source_tokens=score.num_source_tokens,
        alignments=map(_link, score.alignments),
    )
