"""Translation of texts, whole or streamed."""

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from attendant_glossaries import GlossaryEntry

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog
from attendant_server.application.engine_searches import record_output, with_faults
from attendant_server.application.finishing import PieceFinisher
from attendant_server.application.glossaries import Glossary
from attendant_server.application.glossary_folder import GlossaryFolder
from attendant_server.application.hypotheses import Attention, Translation
from attendant_server.application.jobs import JobRunner
from attendant_server.application.joined_texts import join_texts
from attendant_server.application.piece_searches import (
    align_pieces,
    numbered_pieces,
    search_pieces,
)
from attendant_server.application.pieced_text import PiecedText, numbers_of_pieces
from attendant_server.application.sampling import places_of, seeds_of
from attendant_server.application.streaming import TextStream
from attendant_server.application.target_prefixes import PrefixOptions, with_prefixes
from attendant_server.application.tokenization import (
    good,
    num_tokens,
    read_texts,
)
from attendant_server.application.translation_plans import PlannedRequest, Planner, TranslationPlan
from attendant_server.application.validation import (
    TEXTS,
    TOKEN_BYTES,
    TOKEN_TEXT_BYTES,
    RequestLimits,
)
from attendant_server.engine.calls import Hypothesis, SearchTooLarge
from attendant_server.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class GlossaryRequest(PlannedRequest):
    """A request that may have a glossary."""

    glossary: str = ""
    """The name of a stored glossary; "" for none."""
    glossary_entries: Sequence[GlossaryEntry] = ()
    """Further entries."""
    built_glossary: Glossary | None = None
    """The glossary of an earlier plan, instead of both; None for none."""

    @property
    def glossary_field(self) -> str:
        """The field by which faults name the glossary; "" without one."""
        if self.glossary or self.built_glossary is not None:
            return "glossary"
        return "glossary_entries" if self.glossary_entries else ""


@dataclass(frozen=True, slots=True)
class TranslationRequest(GlossaryRequest):
    """Texts to translate."""

    texts: Sequence[str]
    target_prefixes: Sequence[str] = ()
    """The beginning of each translation, "" for none; empty if no text has any."""
    places: Sequence[str] = ()
    """The place of each text, for seeds; empty for those of `places_of`."""
    may_wait: bool = False
    """Whether the texts wait for room in the queue instead of being refused."""

    @property
    def has_prefixes(self) -> bool:
        """Whether any text has a prefix."""
        return any(map(str.strip, self.target_prefixes))

    @property
    def whole(self) -> Collection[int]:
        """The numbers of the texts that must not be split."""
        if self.options.return_alternatives:
            return range(len(self.texts))
        return frozenset(i for i, prefix in enumerate(self.target_prefixes) if prefix.strip())


@dataclass(frozen=True, slots=True)
class StreamRequest(GlossaryRequest):
    """One text to translate."""

    text: str
    target_prefix: str = ""
    """The beginning of the translation."""

    @property
    def has_prefixes(self) -> bool:
        """Whether the text has a prefix."""
        return bool(self.target_prefix.strip())

    @property
    def whole(self) -> Collection[int]:
        """The number of the text, 0, if it must not be split."""
        return {0} if self.has_prefixes or self.options.return_alternatives else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslationAnswer(Answer):
    """A result, or a fault, for each text, in the order of the request."""

    translations: Sequence[Translation | InvalidRequest]
    num_output_tokens: int
    seed: int | None
    """The seed of the samples; None without sampling."""


@dataclass(frozen=True, slots=True)
class StreamPiece:
    """A part of a streamed translation. The deltas add up to the text of the best hypothesis."""

    delta: str
    answer: TranslationAnswer | None = None
    """The whole answer, in the last piece only."""


class Translator:
    """Translates texts with all translation models."""

    def __init__(
        self,
        catalog: Catalog,
        jobs: JobRunner,
        limits: RequestLimits,
        glossaries: GlossaryFolder,
    ) -> None:
        self.planner = Planner(catalog, jobs, limits)
        """Finds the model and checks the options of each call."""
        self._jobs, self._limits, self._glossaries = jobs, limits, glossaries

    async def translate(
        self, request: TranslationRequest, seconds_left: float | None
    ) -> TranslationAnswer:
        """Translate all texts; returns when all are done.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        self.check_texts(request)
        return await self.translate_all(request, seconds_left, len(request.texts))

    def check_texts(self, request: TranslationRequest) -> None:
        """Raise InvalidRequest for what is wrong with any model."""
        num_texts, prefixes = len(request.texts), request.target_prefixes
        self._limits.check_count("texts", num_texts)
        if prefixes and len(prefixes) != num_texts:
            problem = f"as many as texts, which are {num_texts}, or none, got {len(prefixes)}"
            raise InvalidRequest("target_prefixes", problem)

    async def translate_all(
        self, request: TranslationRequest, seconds_left: float | None, num_texts: int
    ) -> TranslationAnswer:
        """Like `translate`, without a limit of texts, which may be parts of ``num_texts`` texts."""
        prefixes = request.target_prefixes
        plan = await self.plan(request, num_texts)
        deadline = self._limits.deadline(plan.model.engine.clock(), seconds_left)
        texts = await read_texts(
            self._jobs, plan.tokenization, TEXTS, request.texts, plan.read_pieces
        )
        if prefixes and plan.read_pieces.whole:
            options = self._prefix_options(plan, "target_prefixes[{}]")
            texts = await with_prefixes(self._jobs, options, texts, prefixes)
        places = request.places or places_of(request.options.sampling, len(request.texts))
        while True:
            try:
                results = await search_pieces(
                    plan, texts, places, deadline, num_texts, request.may_wait
                )
                break
            except SearchTooLarge as error:
                texts = with_faults(texts, numbers_of_pieces(texts), error.problems, TEXTS)
        if (finisher := self._finisher(plan, deadline)) is not None:
            texts, results = await finisher.of_texts(texts, results, places)
        return await self._answer(plan, texts, results, deadline)

    async def stream(
        self, request: StreamRequest, seconds_left: float | None
    ) -> AsyncGenerator[StreamPiece, None]:
        """Translate one text; yields complete words as soon as they are settled."""
        plan = await self.plan(request, 1)
        deadline = self._limits.deadline(plan.model.engine.clock(), seconds_left)
        [text] = await read_texts(
            self._jobs, plan.tokenization, "text", [request.text], plan.read_pieces
        )
        if plan.read_pieces.whole:
            options = self._prefix_options(plan, "target_prefix")
            prefixes = [request.target_prefix]
            [text] = await with_prefixes(self._jobs, options, [text], prefixes)
        if isinstance(text, InvalidRequest):
            raise text
        seeds = list(
            seeds_of(
                *(plan.seed, places_of(request.options.sampling, 1)),
                *([len(text.pieces)], plan.num_samples),
            )
        )
        finisher, num_sent = self._finisher(plan, deadline), 0
        stream = TextStream(plan, text, deadline, self._jobs, seeds, finisher)
        try:
            async with aclosing(stream.deltas()) as deltas:
                async for delta in deltas:
                    num_sent += len(delta)
                    yield StreamPiece(delta)
        except SearchTooLarge as error:
            records.current().num_invalid_texts += 1
            raise InvalidRequest("text", error.problem) from None
        answer = await self._answer(plan, [text], stream.results, deadline, stream.attention)
        yield StreamPiece(_best_text(answer)[num_sent:], answer)

    async def check(self, request: TranslationRequest) -> TranslationPlan:
        """The plan of calls with one text each; raises what `translate` raises for options."""
        return await self.plan(replace(request, texts=[""]), 1)

    async def plan(
        self, request: TranslationRequest | StreamRequest, num_texts: int
    ) -> TranslationPlan:
        """The plan of a call; also refuses a call whose answer may be too large."""
        plan = await self.planner.plan(request, request.whole)
        if plan.options.prefix_bias is not None and not request.has_prefixes:
            problem = "is for texts with target prefixes only"
            raise InvalidRequest("options.target_prefix_bias", problem)
        if request.built_glossary is not None:
            plan = plan.with_glossary(request.built_glossary, request.glossary_field)
        elif request.glossary_field:
            plan = await self._with_glossary(plan, request)
        max_tokens = num_texts * plan.options.num_hypotheses * plan.options.max_output_tokens
        token_bytes = TOKEN_BYTES if plan.joiner.return_tokens else TOKEN_TEXT_BYTES
        self._limits.check_response("options", max_tokens * token_bytes)
        return plan

    async def _with_glossary(
        self, plan: TranslationPlan, request: GlossaryRequest
    ) -> TranslationPlan:
        if request.options.return_alternatives:
            raise InvalidRequest(request.glossary_field, "is for calls without alternatives only")
        glossary = await self._glossaries.glossary(
            request.glossary, request.glossary_entries, plan.model.glossaries
        )
        return plan.with_glossary(glossary, request.glossary_field)

    def _finisher(self, plan: TranslationPlan, deadline: float) -> PieceFinisher | None:
        if not plan.needs_finishing:
            return None
        return PieceFinisher(plan, deadline, self._limits.max_beam_size, self._jobs)

    def _prefix_options(self, plan: TranslationPlan, field: str) -> PrefixOptions:
        return PrefixOptions(
            plan.model.target_tokenizer,
            field,
            plan.tokenization.normalizes,
            self._limits.max_text_characters,
            plan.options.max_output_tokens,
            plan.options.forced_token_ids,
            plan.options.prefix_bias is None,
        )

    async def _answer(
        self,
        plan: TranslationPlan,
        texts: Sequence[PiecedText | InvalidRequest],
        results: Sequence[list[Hypothesis]],
        deadline: float,
        known: Attention = (),
    ) -> TranslationAnswer:
        """The answer for all texts; ``results`` are those of all pieces.

        ``known`` are attention weights of their hypotheses.
        """
        is_needed = plan.joiner.needs_attention
        attention = await align_pieces(
            plan, numbered_pieces(texts), results, deadline, is_needed, known
        )
        lengths, record = record_output(results), records.current()
        num_output_tokens = sum(lengths)
        returns_tokens = plan.joiner.return_tokens or plan.joiner.return_alignments
        token_bytes = TOKEN_TEXT_BYTES + (TOKEN_BYTES if returns_tokens else 0)
        self._limits.check_response("texts", num_output_tokens * token_bytes)
        translations = await join_texts(
            self._jobs,
            self._limits,
            plan.joiner,
            num_output_tokens * token_bytes,
            texts,
            results,
            attention,
        )
        faults = [each for each in translations if isinstance(each, InvalidRequest)]
        record.num_invalid_texts += len(faults) - sum(isinstance(t, InvalidRequest) for t in texts)
        return TranslationAnswer(
            model=plan.model.description.key,
            translations=translations,
            num_input_tokens=num_tokens(texts),
            num_output_tokens=num_output_tokens,
            phases=record.phases(),
            size=sum(each.size for each in good(translations)),
            seed=plan.seed,
        )


def _best_text(answer: TranslationAnswer) -> str:
    [translation] = answer.translations
    assert isinstance(translation, Translation)
    return translation.hypotheses[0].text
