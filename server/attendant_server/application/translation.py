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
from attendant_server.application.validation import TEXTS, TOKEN_BYTES, RequestLimits
from attendant_server.engine.calls import (
    Hypothesis,
    SearchOptions,
    SearchTooLarge,
    TranslateCall,
)
from attendant_server.errors import InvalidRequest
from attendant_server.tokenizer import TextTokenizer, TokenizedText

NO_TRANSLATION = "has no translation with the tokens that its options allow"


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
    """One translation of a text, with its tokens and their log-probabilities."""

    text: str
    score: float
    is_complete: bool
    """True if the end token was decoded, False if the length limit was reached."""
    token_ids: Sequence[int]
    token_texts: Sequence[str]
    """The tokens as the vocabulary writes them."""
    log_probabilities: Sequence[float]


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
        self._limits.check_texts(request.texts)
        model, options, tokenization = self._prepare(request, len(request.texts))
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)
        texts = await tokenize(self._jobs, tokenization, TEXTS, request.texts)
        try:
            results = await _search(model, texts, options, deadline)
        except SearchTooLarge as error:
            texts = _with_faults(texts, error.problems)
            results = await _search(model, texts, options, deadline)
        return await self._answer(model, tokenization, texts, results)

    async def stream(
        self, request: StreamRequest, seconds_left: float | None
    ) -> AsyncGenerator[StreamPiece, None]:
        """Translate one text; yields complete words as soon as they are settled."""
        self._limits.check_characters("text", [request.text])
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
        answer = await self._answer(model, tokenization, [text], results)
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
        self._limits.check_response("options", max_tokens * TOKEN_BYTES)
        tokenization = tokenization_options(
            model.source_tokenizer,
            description.max_source_tokens,
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
    ) -> TranslationAnswer:
        lengths = [len(h.token_ids) for hypotheses in results for h in hypotheses]
        record, num_output_tokens = records.current(), sum(lengths)
        record.num_output_tokens, record.longest_output = num_output_tokens, max(lengths, default=0)
        record.num_invalid_texts += sum(not hypotheses for hypotheses in results)
        translations = await self._jobs.run_for(
            num_output_tokens,
            lambda: _translations(model.target_tokenizer, tokenization, texts, results),
        )
        return TranslationAnswer(
            model=model.description.key,
            translations=translations,
            num_input_tokens=num_tokens(texts),
            num_output_tokens=num_output_tokens,
            phases=record.phases(),
            size=num_output_tokens,
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


def _translations(
    tokenizer: TextTokenizer,
    tokenization: TokenizationOptions,
    texts: Sequence[TokenizedOrError],
    results: Sequence[list[Hypothesis]],
) -> list[Translation | InvalidRequest]:
    remaining = iter(results)
    return [
        text
        if isinstance(text, InvalidRequest)
        else _translation(tokenizer, tokenization, TEXTS.format(i), text, next(remaining))
        for i, text in enumerate(texts)
    ]


def _translation(
    tokenizer: TextTokenizer,
    tokenization: TokenizationOptions,
    field: str,
    source: TokenizedText,
    hypotheses: Sequence[Hypothesis],
) -> Translation | InvalidRequest:
    if not hypotheses:
        return InvalidRequest(field, NO_TRANSLATION)
    return Translation(
        [
            TranslationHypothesis(
                text=tokenizer.decode(h.token_ids),
                score=h.score,
                is_complete=h.is_complete,
                token_ids=h.token_ids,
                token_texts=tokenizer.tokens(h.token_ids),
                log_probabilities=h.log_probabilities,
            )
            for h in hypotheses
        ],
        num_source_tokens=len(source),
        truncation=tokenization.report(source),
    )
