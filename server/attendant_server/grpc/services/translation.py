"""TranslationService: Translate, StreamTranslate and Score."""

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np
from attendant.v1 import text_pb2, translation_pb2, translation_pb2_grpc

from attendant_server import records
from attendant_server.application import validation
from attendant_server.application.catalog import TRANSLATION, Catalog, ServedModel
from attendant_server.application.tokenization import (
    TokenizationOptions,
    TokenizationRunner,
    Truncation,
    truncation_report,
)
from attendant_server.application.validation import TEXTS, TOKEN_BYTES, RequestLimits
from attendant_server.engine.calls import (
    Hypothesis,
    ScoreCall,
    SearchOptions,
    TargetScore,
    TranslateCall,
)
from attendant_server.errors import InvalidRequest
from attendant_server.grpc.services.responses import (
    CallDeadline,
    Context,
    fault,
    good,
    token_message,
)
from attendant_server.tokenizer import TextTokenizer, TokenizedText

SOURCES, TARGETS = "pairs[{}].source", "pairs[{}].target"
NO_TRANSLATION = "has no translation with the tokens that its options allow"
TokenizedOrError = TokenizedText | InvalidRequest
TokenizedPairOrError = tuple[TokenizedText, TokenizedText] | InvalidRequest


class TranslationService(translation_pb2_grpc.TranslationServiceServicer):
    """Answers for all translation models."""

    def __init__(
        self, catalog: Catalog, tokenization: TokenizationRunner, limits: RequestLimits
    ) -> None:
        self._catalog, self._tokenization, self._limits = catalog, tokenization, limits

    async def Translate(
        self, request: translation_pb2.TranslateRequest, context: Context
    ) -> translation_pb2.TranslateResponse:
        """Translate all texts and answer when all are done."""
        self._limits.check_count("texts", len(request.texts))
        self._limits.check_characters(TEXTS, request.texts)
        model, options = self._model_and_options(request)
        self._check_response(options, len(request.texts))
        tokenization = _source_options(model, request.truncation)
        call_deadline = self._call_deadline(model, context)

        texts = await self._tokenization.tokenize(tokenization, TEXTS, request.texts)
        sources = [text.token_ids for text in good(texts)]
        call = TranslateCall(sources, options, call_deadline.deadline)
        results = await model.answer(call) if sources else []

        counts = _counts(sources, results)
        return await self._tokenization.build(
            counts.num_output_tokens,
            lambda: translation_pb2.TranslateResponse(
                translations=_translations(model, texts, results, tokenization.truncation),
                model=model.bundle.key,
                token_counts=counts,
                timings=call_deadline.timings(),
            ),
        )

    async def StreamTranslate(  # type: ignore[override]  # grpc.aio also takes a coroutine that writes
        self, request: translation_pb2.StreamTranslateRequest, context: Context
    ) -> None:
        """Translate one text and send complete words as soon as they are settled."""
        self._limits.check_characters("text", [request.text])
        model, options = self._model_and_options(request)
        self._check_response(options, 1)
        tokenization = _source_options(model, request.truncation)
        call_deadline = self._call_deadline(model, context)

        [text] = await self._tokenization.tokenize(tokenization, "text", [request.text])
        if isinstance(text, InvalidRequest):
            raise text
        prefixes = Prefixes()
        call = TranslateCall([text.token_ids], options, call_deadline.deadline, prefixes.put)
        answer = asyncio.ensure_future(model.answer(call))
        answer.add_done_callback(lambda _: prefixes.close())
        try:
            sent = await _send_words(prefixes, model.target_tokenizer, context)
            results = await answer
        finally:
            answer.cancel()

        counts = _counts([text.token_ids], results)
        if not results[0]:
            raise InvalidRequest("text", NO_TRANSLATION)
        [translation] = await self._tokenization.build(
            counts.num_output_tokens,
            lambda: list(_translations(model, [text], results, tokenization.truncation)),
        )
        whole = translation.hypotheses[0].text
        assert whole.startswith(sent), "what was sent can no longer win"
        await context.write(
            translation_pb2.StreamTranslateResponse(
                delta=whole[len(sent) :],
                translation=translation,
                model=model.bundle.key,
                token_counts=counts,
                timings=call_deadline.timings(),
            )
        )

    async def Score(
        self, request: translation_pb2.ScoreRequest, context: Context
    ) -> translation_pb2.ScoreResponse:
        """Score all pairs and answer when all are done."""
        self._limits.check_count("pairs", len(request.pairs))
        sources = [pair.source for pair in request.pairs]
        targets = [pair.target for pair in request.pairs]
        self._limits.check_characters(SOURCES, sources)
        self._limits.check_characters(TARGETS, targets)
        model = self._catalog.serving(request.model, TRANSLATION)
        length_penalty = validation.length_penalty(request, "length_penalty")
        source_tokenization = _source_options(model, request.truncation)
        target_tokenization = TokenizationOptions(
            model.target_tokenizer, model.manifest.limits.max_target_tokens
        )
        call_deadline = self._call_deadline(model, context)

        read_sources = await self._tokenization.tokenize(source_tokenization, SOURCES, sources)
        read_targets = await self._tokenization.tokenize(target_tokenization, TARGETS, targets)
        pairs = [_pair(*sides) for sides in zip(read_sources, read_targets, strict=True)]
        num_target_tokens = sum(len(target) for _, target in good(pairs))
        self._limits.check_response("pairs", num_target_tokens * TOKEN_BYTES)
        call = ScoreCall(
            [(s.token_ids, t.token_ids) for s, t in good(pairs)], call_deadline.deadline
        )
        results = await model.answer(call) if call.pairs else []

        num_tokens = sum(len(source) + len(target) for source, target in good(pairs))
        return await self._tokenization.build(
            num_target_tokens,
            lambda: translation_pb2.ScoreResponse(
                scores=_scores(pairs, results, length_penalty, source_tokenization.truncation),
                model=model.bundle.key,
                token_counts=text_pb2.TokenCounts(num_input_tokens=num_tokens),
                timings=call_deadline.timings(),
            ),
        )

    def _model_and_options(
        self,
        request: translation_pb2.TranslateRequest | translation_pb2.StreamTranslateRequest,
    ) -> tuple[ServedModel, SearchOptions]:
        model = self._catalog.serving(request.model, TRANSLATION)
        max_target_tokens = model.manifest.limits.max_target_tokens
        return model, validation.search_options(request.options, self._limits, max_target_tokens)

    def _check_response(self, options: SearchOptions, num_texts: int) -> None:
        num_tokens = num_texts * options.num_hypotheses * options.max_output_tokens
        self._limits.check_response("options", num_tokens * TOKEN_BYTES)

    def _call_deadline(self, model: ServedModel, context: Context) -> CallDeadline:
        return CallDeadline(model.engine.clock, context, self._limits.max_request_seconds)


class Prefixes:
    """Hands what is settled of a translation from the engine's thread to the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, ...] | None] = asyncio.Queue()

    def put(self, token_ids: tuple[int, ...]) -> None:
        """More is settled. Any thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, token_ids)

    def close(self) -> None:
        """Nothing will be added. On the event loop."""
        self._queue.put_nowait(None)

    async def next(self) -> tuple[int, ...] | None:
        """Wait for more; None at the end."""
        return await self._queue.get()


async def _send_words(prefixes: Prefixes, tokenizer: TextTokenizer, context: Context) -> str:
    sent = ""
    while (token_ids := await prefixes.next()) is not None:
        words = tokenizer.decode_words(token_ids)
        if len(words) > len(sent):
            delta = words[len(sent) :]
            await context.write(translation_pb2.StreamTranslateResponse(delta=delta))
            sent = words
    return sent


def _source_options(model: ServedModel, truncation: Truncation) -> TokenizationOptions:
    return TokenizationOptions(
        model.source_tokenizer,
        model.manifest.limits.max_source_tokens,
        validation.truncation(truncation),
    )


def _translations(
    model: ServedModel,
    texts: Sequence[TokenizedOrError],
    results: Sequence[list[Hypothesis]],
    truncation: Truncation,
) -> Iterator[translation_pb2.Translation]:
    remaining = iter(results)
    for i, text in enumerate(texts):
        if isinstance(text, InvalidRequest):
            yield translation_pb2.Translation(error=fault(text))
        elif not (hypotheses := next(remaining)):
            error = InvalidRequest(TEXTS.format(i), NO_TRANSLATION)
            yield translation_pb2.Translation(error=fault(error))
        else:
            translation = translation_pb2.Translation(
                truncation=truncation_report(text, truncation), num_source_tokens=len(text)
            )
            for hypothesis in hypotheses:
                _add_hypothesis(translation, model.target_tokenizer, hypothesis)
            yield translation


def _add_hypothesis(
    translation: translation_pb2.Translation, tokenizer: TextTokenizer, hypothesis: Hypothesis
) -> None:
    # Made in place: what constructors are given is copied, token by token.
    added = translation.hypotheses.add(
        text=tokenizer.decode(hypothesis.token_ids),
        score=hypothesis.score,
        finish_reason=translation_pb2.FINISH_REASON_STOP
        if hypothesis.is_complete
        else translation_pb2.FINISH_REASON_LENGTH,
    )
    tokens = added.tokens
    for i, p in zip(hypothesis.token_ids, hypothesis.log_probabilities, strict=True):
        tokens.add(id=i, text=tokenizer.token(i), log_probability=p)


def _counts(
    sources: Sequence[Sequence[int]], results: Sequence[list[Hypothesis]]
) -> text_pb2.TokenCounts:
    lengths = [len(h.token_ids) for hypotheses in results for h in hypotheses]
    record = records.current()
    record.num_output_tokens, record.longest_output = sum(lengths), max(lengths, default=0)
    record.num_invalid_texts += sum(not hypotheses for hypotheses in results)
    return text_pb2.TokenCounts(
        num_input_tokens=sum(len(source) for source in sources),
        num_output_tokens=record.num_output_tokens,
    )


def _pair(source: TokenizedOrError, target: TokenizedOrError) -> TokenizedPairOrError:
    if isinstance(source, InvalidRequest):
        return source
    if isinstance(target, InvalidRequest):
        return target
    return source, target


def _scores(
    pairs: Sequence[TokenizedPairOrError],
    results: Sequence[TargetScore],
    length_penalty: float,
    truncation: Truncation,
) -> Iterator[translation_pb2.TranslationScore]:
    remaining = iter(results)
    for pair in pairs:
        if isinstance(pair, InvalidRequest):
            yield translation_pb2.TranslationScore(error=fault(pair))
            continue
        source, target = pair
        log_probabilities = next(remaining).log_probabilities  # (target)
        total = float(np.sum(log_probabilities, dtype=np.float64))
        yield translation_pb2.TranslationScore(
            score=total / len(target) ** length_penalty,
            log_probability=total,
            log_probabilities=log_probabilities.tolist(),
            tokens=[token_message(token) for token in target],
            truncation=truncation_report(source, truncation),
            num_source_tokens=len(source),
        )
