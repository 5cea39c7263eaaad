"""Translation by one model, or by two with a pivot language between them."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from copy import copy
from dataclasses import dataclass, replace

from attendant_server import records
from attendant_server.application.alignment import check_aligner
from attendant_server.application.catalog import ServedModel
from attendant_server.application.hypotheses import Translation, TranslationHypothesis
from attendant_server.application.jobs import JobRunner
from attendant_server.application.markup_translation import Markup, MarkupTranslator
from attendant_server.application.pivot_places import links_over, sentences_over
from attendant_server.application.pivots import Route, Routes
from attendant_server.application.scoring import Scorer, ScoringAnswer, ScoringRequest
from attendant_server.application.translation import (
    StreamPiece,
    StreamRequest,
    TranslationAnswer,
    TranslationRequest,
    Translator,
)
from attendant_server.application.translation_options import TranslationOptions
from attendant_server.application.translation_plans import PlannedRequest, TranslationPlan
from attendant_server.application.validation import RequestLimits
from attendant_server.engine.calls import CallTimings
from attendant_server.errors import InvalidRequest


class RoutedTranslator:
    """Answers with the model that a request means, or over a pivot language."""

    def __init__(
        self,
        routes: Routes,
        translator: Translator,
        markup_translator: MarkupTranslator,
        scorer: Scorer,
        jobs: JobRunner,
        limits: RequestLimits,
    ) -> None:
        self._routes, self._translator, self._scorer = routes, translator, scorer
        self._markup_translator, self._jobs, self._limits = markup_translator, jobs, limits

    async def translate(
        self, request: TranslationRequest, markup: int, seconds_left: float | None
    ) -> TranslationAnswer:
        """Translate all texts; like `MarkupTranslator.translate`.

        Over a pivot language, the best translations of the first model are the texts of the second
        one. A text that one of them cannot translate has a fault.
        """
        route = self._route(request)
        if route is None:
            return await self._markup_translator.translate(request, markup, seconds_left)
        self._markup_translator.check_texts(request, markup)
        hops = await self._hops(route, request, len(request.texts), seconds_left)
        if markup > Markup.NONE:
            check_aligner(route.second, "markup")
        first = await self._markup_translator.translate(
            replace(_first_request(hops, request, request.texts), may_wait=request.may_wait),
            markup,
            hops.seconds_left(),
        )
        # A text with a fault is sent on as an empty one, so that the others keep their places.
        second = replace(
            request,
            served=hops.second,
            source_language=route.read,
            texts=[_best_text(each) for each in first.translations],
        )
        with _one_record():
            answer = await self._markup_translator.translate(second, markup, hops.seconds_left())
        return await self._joined(route, first, answer)

    async def check(self, request: TranslationRequest, markup: int) -> TranslationPlan:
        """The plan of calls with one text each; like `MarkupTranslator.check`.

        Over a pivot language, it is that of the second model.
        """
        route = self._route(request)
        if route is None:
            return await self._markup_translator.check(request, markup)
        hops = await self._hops(route, replace(request, texts=[""]), 1, None)
        second = replace(request, served=hops.second, source_language=route.read)
        return await self._markup_translator.check(second, markup)

    def stream(
        self, request: StreamRequest, seconds_left: float | None
    ) -> AsyncGenerator[StreamPiece, None]:
        """Translate one text piece by piece; like `Translator.stream`.

        Over a pivot language, the pieces are those of the second model.
        """
        route = self._route(request)
        if route is None:
            return self._translator.stream(request, seconds_left)
        return self._stream_over(route, request, seconds_left)

    async def score(self, request: ScoringRequest, seconds_left: float | None) -> ScoringAnswer:
        """Score all pairs; like `Scorer.score`. Raises InvalidRequest over a pivot language."""
        if (route := self._route(request)) is not None:
            problem = f"is reached over two models, {route.key}, and only a single one can score"
            raise InvalidRequest("target_language", problem)
        return await self._scorer.score(request, seconds_left)

    def routes(self) -> Iterator[Route]:
        """All routes whose models the caller may use."""
        return self._routes.all()

    def _route(self, request: PlannedRequest | ScoringRequest) -> Route | None:
        return self._routes.find(request.model, request.source_language, request.target_language)

    async def _hops(
        self,
        route: Route,
        request: TranslationRequest | StreamRequest,
        num_texts: int,
        seconds_left: float | None,
    ) -> "_Hops":
        """The models of a call; raises what the second one would refuse before any work."""
        if request.glossary_field:
            problem = f"is for single models only, and {route.key} are two"
            raise InvalidRequest(request.glossary_field, problem)
        ends = self._limits.deadline(time.monotonic(), seconds_left)
        hops = _Hops(route, *self._routes.models(route), ends)
        second = replace(request, served=hops.second, source_language=route.read)
        await self._translator.plan(second, num_texts)
        return hops

    async def _stream_over(
        self, route: Route, request: StreamRequest, seconds_left: float | None
    ) -> AsyncGenerator[StreamPiece, None]:
        hops = await self._hops(route, request, 1, seconds_left)
        first = await self._translator.translate(
            _first_request(hops, request, [request.text]), hops.seconds_left()
        )
        [middle] = first.translations
        if isinstance(middle, InvalidRequest):
            raise InvalidRequest("text", middle.problem)
        second = replace(
            request,
            served=hops.second,
            source_language=route.read,
            text=middle.hypotheses[0].text,
        )
        pieces = self._translator.stream(second, hops.seconds_left())
        try:
            with _one_record():
                async with aclosing(pieces):
                    async for piece in pieces:
                        if piece.answer is None:
                            yield piece
                        last = piece
        except InvalidRequest as error:
            raise _of_second(route, error) from None
        assert last.answer is not None
        yield replace(last, answer=await self._joined(route, first, last.answer))

    async def _joined(
        self, route: Route, first: TranslationAnswer, second: TranslationAnswer
    ) -> TranslationAnswer:
        """The answer of both models."""
        pairs = zip(first.translations, second.translations, strict=True)
        translations = await self._jobs.run_for(
            first.size + second.size, lambda: [_translation(route, *pair) for pair in pairs]
        )
        record = records.current()
        record.num_input_tokens = first.num_input_tokens + second.num_input_tokens
        record.num_output_tokens = first.num_output_tokens + second.num_output_tokens
        record.num_invalid_texts = sum(isinstance(each, InvalidRequest) for each in translations)
        record.num_truncated_texts = sum(
            isinstance(each, Translation) and each.truncation is not None for each in translations
        )
        return replace(
            second,
            model=route.key,
            translations=translations,
            num_input_tokens=record.num_input_tokens,
            num_output_tokens=record.num_output_tokens,
            phases=record.phases(),
        )


@dataclass(frozen=True, slots=True)
class _Hops:
    """The models of one call over a pivot language, and when it must end."""

    route: Route
    first: ServedModel
    second: ServedModel
    ends: float

    def seconds_left(self) -> float:
        """The time until the deadline of the call, for both models together."""
        return max(0.0, self.ends - time.monotonic())


def _first_request(
    hops: _Hops, request: PlannedRequest, texts: Sequence[str]
) -> TranslationRequest:
    """The request to the first model, for its best translation of each text.

    Options about the tokens, the length or the choice of the answer are those of the second model.
    """
    options = request.options
    return TranslationRequest(
        texts=texts,
        served=hops.first,
        options=TranslationOptions(
            beam_size=options.beam_size,
            length_penalty=options.length_penalty,
            repetition_guard=options.repetition_guard,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            allow_unknown=options.allow_unknown,
            replace_unknown=options.replace_unknown,
            repetition_penalty=options.repetition_penalty,
            patience=options.patience,
        ),
        truncation=request.truncation,
        source_language=request.source_language,
        target_language=hops.route.written,
        splitting=request.splitting,
        text_normalization=request.text_normalization,
        return_sentences=request.return_sentences,
        return_alignments=request.return_alignments,
    )


@contextmanager
def _one_record() -> Iterator[None]:
    """The block of the second model.

    The record does not count its texts and its tokenization again, and counts its waiting and
    encoding as a part of decoding.
    """
    record = records.current()
    first = copy(record)
    try:
        yield
    finally:
        record.num_texts, record.tokenization_ended = first.num_texts, first.tokenization_ended
        record.engine = _joined_timings(first.engine, record.engine)


def _joined_timings(first: CallTimings, second: CallTimings) -> CallTimings:
    if first.submitted is None or first is second:  # all texts were copied by one of the models
        return second
    return replace(first, first_token=second.first_token, finished=second.finished)


def _best_text(translation: Translation | InvalidRequest) -> str:
    return "" if isinstance(translation, InvalidRequest) else translation.hypotheses[0].text


def _of_second(route: Route, error: InvalidRequest) -> InvalidRequest:
    """A fault in the second model; one of its text says so, since the caller has not seen it."""
    if not error.field.startswith("text"):
        return error
    return InvalidRequest(error.field, f"as translated by {route.first.key}: {error.problem}")


def _translation(
    route: Route, first: Translation | InvalidRequest, second: Translation | InvalidRequest
) -> Translation | InvalidRequest:
    if isinstance(first, InvalidRequest):
        return first
    if isinstance(second, InvalidRequest):
        return _of_second(route, second)
    return Translation(
        [_hypothesis(first.hypotheses[0], each) for each in second.hypotheses],
        first.num_source_tokens,
        first.num_unknown_tokens,
        first.truncation or second.truncation,
    )


def _hypothesis(
    middle: TranslationHypothesis, found: TranslationHypothesis
) -> TranslationHypothesis:
    """A hypothesis of the second model as one for the text as sent."""
    return replace(
        found,
        is_complete=middle.is_complete and found.is_complete,
        is_loop=middle.is_loop or found.is_loop,
        num_avoided_repetitions=middle.num_avoided_repetitions + found.num_avoided_repetitions,
        sentences=sentences_over(middle.sentences, found.sentences),
        alignments=links_over(middle.alignments, found.alignments),
    )
