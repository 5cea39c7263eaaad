"""Translation of texts with markup: of their segments, whose translations get the markup back."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from itertools import islice

from attendant_server import records
from attendant_server.application.alignment import check_aligner
from attendant_server.application.hypotheses import Translation, TranslationHypothesis
from attendant_server.application.jobs import CHARACTERS_READ_FOR_ONE, JobRunner
from attendant_server.application.markup import Part, Segment, segments
from attendant_server.application.markup_placement import with_elements
from attendant_server.application.sampling import places_of
from attendant_server.application.tokenization import good
from attendant_server.application.translation import (
    TranslationAnswer,
    TranslationRequest,
    Translator,
)
from attendant_server.application.translation_plans import TranslationPlan
from attendant_server.application.validation import TEXTS, RequestLimits, known_value
from attendant_server.engine.search import length_penalized
from attendant_server.errors import InvalidRequest

REFUSED = ("return_sentences", "return_alignments", "target_prefixes")
"""Fields of a request that do not go with markup, since places would be those of plain texts."""


class Markup(IntEnum):
    """The markup of texts; numbered as in the contract."""

    NONE = 1
    HTML = 2
    XML = 3


@dataclass(frozen=True, slots=True)
class _Document:
    """A text with markup."""

    parts: Sequence[Part]

    @property
    def segments(self) -> list[Segment]:
        """The segments with text to translate, in order."""
        return [part for part in self.parts if isinstance(part, Segment)]


class MarkupTranslator:
    """Translates texts with or without markup."""

    def __init__(self, translator: Translator, jobs: JobRunner, limits: RequestLimits) -> None:
        self._translator, self._jobs, self._limits = translator, jobs, limits

    async def translate(
        self, request: TranslationRequest, markup: int, seconds_left: float | None
    ) -> TranslationAnswer:
        """Translate all texts; like `Translator.translate`.

        ``markup`` is a number of `Markup`, 0 for none. Texts with markup count as many texts as
        they have segments.
        """
        kind = known_value("markup", markup, Markup.NONE)
        if kind is Markup.NONE:
            return await self._translator.translate(request, seconds_left)
        self.check_texts(request, markup)
        plan = await self._plan(request)
        documents = await self._read(request.texts, kind is Markup.HTML)
        found = [s for each in documents if isinstance(each, _Document) for s in each.segments]
        plain = replace(
            request,
            texts=[segment.text for segment in found],
            places=_places(request, documents),
            return_alignments=True,
        )
        plain = replace(plain, options=replace(request.options, return_tokens=True))
        answer = await self._translator.translate_all(plain, seconds_left, len(request.texts))
        joiner = _Joiner(plan.options.length_penalty, request.options.return_tokens)

        translations = await self._jobs.run_all(
            _joins(joiner, request.texts, documents, iter(answer.translations))
        )
        size = sum(each.size for each in good(translations))
        phases = records.current().phases()
        return replace(answer, translations=translations, size=size, phases=phases)

    def check_texts(self, request: TranslationRequest, markup: int) -> None:
        """Raise InvalidRequest for what is wrong with any model."""
        if known_value("markup", markup, Markup.NONE) is Markup.NONE:
            self._translator.check_texts(request)
            return
        self._limits.check_count("texts", len(request.texts))
        self._check(request)

    async def check(self, request: TranslationRequest, markup: int) -> TranslationPlan:
        """The plan of calls with one text each; raises what `translate` raises for options."""
        if known_value("markup", markup, Markup.NONE) is not Markup.NONE:
            self._check(request)
            await self._plan(request)
            request = replace(request, return_alignments=True)
        return await self._translator.check(request)

    async def _plan(self, request: TranslationRequest) -> TranslationPlan:
        """The plan of texts with markup; raises ModelWithoutHead if the model has no aligner."""
        plan = await self._translator.planner.plan(request)
        check_aligner(plan.model.description, "markup")
        return plan

    def _check(self, request: TranslationRequest) -> None:
        for field in REFUSED:
            if getattr(request, field):
                raise InvalidRequest(field, "is for texts without markup only")
        if request.options.return_alternatives:
            field = "options.return_alternatives"
            raise InvalidRequest(field, "is for texts without markup only")

    async def _read(self, texts: Sequence[str], is_html: bool) -> list[_Document | InvalidRequest]:
        return await self._jobs.run_all(
            (len(text) // CHARACTERS_READ_FOR_ONE, partial(self._document, i, text, is_html))
            for i, text in enumerate(texts)
        )

    def _document(self, number: int, text: str, is_html: bool) -> _Document | InvalidRequest:
        limit = self._limits.max_text_characters
        if len(text) > limit:
            problem = f"at most {limit} characters, got {len(text)}"
            return InvalidRequest(TEXTS.format(number), problem)
        return _Document(segments(text, is_html))


def _places(
    request: TranslationRequest, documents: Sequence[_Document | InvalidRequest]
) -> Sequence[str]:
    """The place of each segment, which does not depend on the segments of other texts."""
    places = places_of(request.options.sampling, len(documents))
    return [
        f"{place}.{number}"
        for place, document in zip(places, documents, strict=False)
        if isinstance(document, _Document)
        for number in range(len(document.segments))
    ]


def _joins(
    joiner: "_Joiner",
    texts: Sequence[str],
    documents: Sequence[_Document | InvalidRequest],
    translations: Iterator[Translation | InvalidRequest],
) -> Iterator[tuple[int, Callable[[], Translation | InvalidRequest]]]:
    """What joins the translation of each text, with its work as a number of tokens.

    ``translations`` are those of the segments of all texts.
    """
    for number, (text, document) in enumerate(zip(texts, documents, strict=True)):
        num_segments = len(document.segments) if isinstance(document, _Document) else 0
        own = list(islice(translations, num_segments))
        work = len(text) // CHARACTERS_READ_FOR_ONE + sum(each.size for each in good(own))
        yield work, partial(joiner.joined, number, document, own)


@dataclass(frozen=True, slots=True)
class _Joiner:
    """Joins the translations of segments to those of texts."""

    length_penalty: float
    returns_tokens: bool

    def joined(
        self,
        number: int,
        document: _Document | InvalidRequest,
        own: Sequence[Translation | InvalidRequest],
    ) -> Translation | InvalidRequest:
        """The translation of a text from those of its segments, or its fault."""
        if isinstance(document, InvalidRequest):
            return document
        found: list[tuple[Segment, Translation]] = []
        for segment, translation in zip(document.segments, own, strict=True):
            if isinstance(translation, InvalidRequest):
                return InvalidRequest(TEXTS.format(number), translation.problem)
            found.append((segment, translation))
        num_hypotheses = max((len(each.hypotheses) for _, each in found), default=1)
        return Translation(
            [self._hypothesis(document, found, k) for k in range(num_hypotheses)],
            num_source_tokens=sum(each.num_source_tokens for _, each in found),
            num_unknown_tokens=sum(each.num_unknown_tokens for _, each in found),
            truncation=None,
        )

    def _hypothesis(
        self, document: _Document, own: Sequence[tuple[Segment, Translation]], k: int
    ) -> TranslationHypothesis:
        chosen = [
            (segment, translation.hypotheses[min(k, len(translation.hypotheses) - 1)])
            for segment, translation in own
        ]
        texts = iter(with_elements(s, each.text, each.alignments) for s, each in chosen)
        text = "".join(part if isinstance(part, str) else next(texts) for part in document.parts)
        parts = [each for _, each in chosen]
        log_probabilities = [value for each in parts for value in each.log_probabilities]
        found = TranslationHypothesis(
            text=text,
            score=length_penalized(
                sum(log_probabilities), len(log_probabilities), self.length_penalty
            )
            if log_probabilities
            else 0.0,
            is_complete=all(each.is_complete for each in parts),
            is_loop=any(each.is_loop for each in parts),
            num_avoided_repetitions=sum(each.num_avoided_repetitions for each in parts),
            num_replaced=sum(each.num_replaced for each in parts),
        )
        if not self.returns_tokens:
            return found
        return replace(
            found,
            token_ids=[i for each in parts for i in each.token_ids],
            token_texts=[text for each in parts for text in each.token_texts],
            log_probabilities=log_probabilities,
        )
