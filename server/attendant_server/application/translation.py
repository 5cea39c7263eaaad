"""Translation of texts, whole or streamed."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.jobs import JobRunner
from attendant_server.application.languages import language_tokens, translation_model
from attendant_server.application.tokenization import (
    TokenizationOptions,
    TokenizedOrError,
    TruncationReport,
    good,
    num_tokens,
    tokenization_options,
    tokenize,
)
from attendant_server.application.translation_options import TranslationOptions, search_options
from attendant_server.application.validation import (
    TEXTS,
    TOKEN_BYTES,
    TOKEN_TEXT_BYTES,
    RequestLimits,
)
from attendant_server.engine.calls import (
    Hypothesis,
    SearchOptions,
    SearchTooLarge,
    TranslateCall,
)
from attendant_server.errors import InvalidRequest
from attendant_server.tokenizer import TextTokenizer, TokenizedText

NO_TRANSLATION = "has no translation with the tokens that its options allow"
HYPOTHESIS_SIZE = 3
"""The work of writing a hypothesis without its tokens, as a number of tokens in an answer."""
TOKENS_DECODED_FOR_ONE = 8
"""Tokens that are decoded to text in the time in which one is written into an answer."""


@dataclass(frozen=True, slots=True)
class TranslationRequest:
    """Texts to translate. ``truncation`` is a number of `Truncation`, 0 for the default.

    Languages are BCP 47 tags, or "" for the only language of the model.
    """

    texts: Sequence[str]
    model: str = ""
    options: TranslationOptions = TranslationOptions()
    truncation: int = 0
    source_language: str = ""
    target_language: str = ""


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """One text to translate; other fields as in `TranslationRequest`."""

    text: str
    model: str = ""
    options: TranslationOptions = TranslationOptions()
    truncation: int = 0
    source_language: str = ""
    target_language: str = ""


@dataclass(frozen=True, slots=True)
class TranslationHypothesis:
    """One translation of a text; its tokens are empty unless the request wants them."""

    text: str
    score: float
    is_complete: bool
    """True if the end token was decoded, False if the length limit was reached."""
    token_ids: Sequence[int] = ()
    token_texts: Sequence[str] = ()
    """The tokens as the vocabulary writes them."""
    log_probabilities: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Translation:
    """The result for one text: hypotheses, best first."""

    hypotheses: Sequence[TranslationHypothesis]
    num_source_tokens: int
    truncation: TruncationReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslationAnswer(Answer):
    """A result, or a fault, for each text, in the order of the request."""

    translations: Sequence[Translation | InvalidRequest]
    num_output_tokens: int


@dataclass(frozen=True, slots=True)
class StreamPiece:
    """A part of a streamed translation. The deltas add up to the text of the best hypothesis."""

    delta: str
    answer: TranslationAnswer | None = None
    """The whole answer, in the last piece only."""


SearchRequest: TypeAlias = TranslationRequest | StreamRequest


class Translator:
    """Translates texts with all translation models."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def translate(
        self, request: TranslationRequest, seconds_left: float | None
    ) -> TranslationAnswer:
        """Translate all texts; returns when all are done.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        self._limits.check_count("texts", len(request.texts))
        model, options, tokenization = self._prepare(request, len(request.texts))
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)
        texts = await tokenize(self._jobs, tokenization, TEXTS, request.texts)
        try:
            results = await _search(model, texts, options, deadline)
        except SearchTooLarge as error:
            texts = _with_faults(texts, error.problems)
            results = await _search(model, texts, options, deadline)
        return_tokens = request.options.return_tokens
        return await self._answer(model, tokenization, texts, results, return_tokens)

    async def stream(
        self, request: StreamRequest, seconds_left: float | None
    ) -> AsyncGenerator[StreamPiece, None]:
        """Translate one text; yields complete words as soon as they are settled."""
        model, options, tokenization = self._prepare(request, 1)
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)
        [text] = await tokenize(self._jobs, tokenization, "text", [request.text])
        if isinstance(text, InvalidRequest):
            raise text
        prefix, sent = _SettledPrefix(), ""
        call = TranslateCall([text.token_ids], options, deadline, prefix.put)
        running = asyncio.ensure_future(model.answer(call))
        running.add_done_callback(lambda _: prefix.close())
        try:
            while (token_ids := await prefix.next()) is not None:
                words = model.target_tokenizer.decode_words(token_ids)
                if len(words) > len(sent):
                    yield StreamPiece(words[len(sent) :])
                    sent = words
            results = await running
        except SearchTooLarge as error:
            records.current().num_invalid_texts += 1
            raise InvalidRequest("text", error.problem) from None
        finally:
            running.cancel()
        if not results[0]:
            raise InvalidRequest("text", NO_TRANSLATION)
        return_tokens = request.options.return_tokens
        answer = await self._answer(model, tokenization, [text], results, return_tokens)
        yield StreamPiece(_best_text(answer)[len(sent) :], answer)

    def _prepare(
        self, request: SearchRequest, num_texts: int
    ) -> tuple[ServedModel, SearchOptions, TokenizationOptions]:
        """Find the model and check the options."""
        languages = request.source_language, request.target_language
        model = translation_model(self._catalog, request.model, *languages)
        description = model.description
        tokens = language_tokens(model, *languages)
        options = search_options(
            request.options, self._limits, description, tokens.forced_target_ids
        )
        max_tokens = num_texts * options.num_hypotheses * options.max_output_tokens
        token_bytes = TOKEN_BYTES if request.options.return_tokens else TOKEN_TEXT_BYTES
        self._limits.check_response("options", max_tokens * token_bytes)
        tokenization = tokenization_options(
            model.source_tokenizer,
            description.max_source_tokens,
            self._limits.max_text_characters,
            request.truncation,
            tokens.before_source,
            tokens.after_source,
            text_codes=tokens.text_codes,
        )
        return model, options, tokenization

    async def _answer(
        self,
        model: ServedModel,
        tokenization: TokenizationOptions,
        texts: Sequence[TokenizedOrError],
        results: Sequence[list[Hypothesis]],
        return_tokens: bool,
    ) -> TranslationAnswer:
        lengths = [len(h.token_ids) for hypotheses in results for h in hypotheses]
        record, num_output_tokens = records.current(), sum(lengths)
        record.num_output_tokens, record.longest_output = num_output_tokens, max(lengths, default=0)
        record.num_invalid_texts += sum(not hypotheses for hypotheses in results)
        size = num_output_tokens if return_tokens else HYPOTHESIS_SIZE * len(lengths)
        build = _TranslationBuilder(model.target_tokenizer, tokenization, return_tokens)
        translations = await self._jobs.run_for(
            size + num_output_tokens // TOKENS_DECODED_FOR_ONE, lambda: build(texts, results)
        )
        return TranslationAnswer(
            model=model.description.key,
            translations=translations,
            num_input_tokens=num_tokens(texts),
            num_output_tokens=num_output_tokens,
            phases=record.phases(),
            size=size,
        )


async def _search(
    model: ServedModel,
    texts: Sequence[TokenizedOrError],
    options: SearchOptions,
    deadline: float,
) -> list[list[Hypothesis]]:
    """The hypotheses of all texts without a fault; raises SearchTooLarge before any work."""
    call = TranslateCall([text.token_ids for text in good(texts)], options, deadline)
    return await model.answer(call)


def _with_faults(
    texts: Sequence[TokenizedOrError], problems: Mapping[int, str]
) -> list[TokenizedOrError]:
    """The texts with further faults; the keys of ``problems`` count texts without a fault."""
    record, results = records.current(), list(texts)
    indices = [i for i, text in enumerate(texts) if not isinstance(text, InvalidRequest)]
    for number, problem in problems.items():
        i = indices[number]
        results[i] = InvalidRequest(TEXTS.format(i), problem)
    record.num_invalid_texts += len(problems)
    record.num_input_tokens = num_tokens(results)
    return results


class _SettledPrefix:
    """Passes the settled prefix of a translation from an engine thread to the event loop.

    Each prefix begins with the one before, so only the newest one is kept.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._token_ids: tuple[int, ...] = ()
        self._has_changed = asyncio.Event()
        self._is_closed = False

    def put(self, token_ids: tuple[int, ...]) -> None:
        """Replace the prefix by a longer one. Any thread."""
        self._loop.call_soon_threadsafe(self._replace, token_ids)

    def close(self) -> None:
        """End the waiting for longer prefixes. On the event loop."""
        self._is_closed = True
        self._has_changed.set()

    async def next(self) -> tuple[int, ...] | None:
        """Wait for a longer prefix and return the newest one; None at the end."""
        await self._has_changed.wait()
        self._has_changed.clear()
        return None if self._is_closed else self._token_ids

    def _replace(self, token_ids: tuple[int, ...]) -> None:
        self._token_ids = token_ids
        self._has_changed.set()


def _best_text(answer: TranslationAnswer) -> str:
    [translation] = answer.translations
    assert isinstance(translation, Translation)
    return translation.hypotheses[0].text


@dataclass(frozen=True, slots=True)
class _TranslationBuilder:
    """Builds the results of a call's texts."""

    tokenizer: TextTokenizer
    tokenization: TokenizationOptions
    return_tokens: bool

    def __call__(
        self, texts: Sequence[TokenizedOrError], results: Sequence[list[Hypothesis]]
    ) -> list[Translation | InvalidRequest]:
        remaining = iter(results)
        return [
            text
            if isinstance(text, InvalidRequest)
            else self._translation(TEXTS.format(i), text, next(remaining))
            for i, text in enumerate(texts)
        ]

    def _translation(
        self, field: str, source: TokenizedText, hypotheses: Sequence[Hypothesis]
    ) -> Translation | InvalidRequest:
        if not hypotheses:
            return InvalidRequest(field, NO_TRANSLATION)
        return Translation(
            list(map(self._hypothesis, hypotheses)),
            num_source_tokens=len(source),
            truncation=self.tokenization.report(source),
        )

    def _hypothesis(self, found: Hypothesis) -> TranslationHypothesis:
        text = self.tokenizer.decode(found.token_ids)
        if not self.return_tokens:
            return TranslationHypothesis(text, found.score, found.is_complete)
        return TranslationHypothesis(
            text,
            found.score,
            found.is_complete,
            token_ids=found.token_ids,
            token_texts=self.tokenizer.tokens(found.token_ids),
            log_probabilities=found.log_probabilities,
        )
