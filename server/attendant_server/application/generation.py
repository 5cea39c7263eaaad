"""Continuation of prompts by causal language models, whole or streamed."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.continuation_text import ContinuationWriter
from attendant_server.application.descriptions import ModelKind
from attendant_server.application.engine_searches import record_output, search_sources, with_faults
from attendant_server.application.generation_options import (
    DEFAULT_OPTIONS,
    GenerationOptions,
    check_stop_texts,
    generation_search_options,
    max_prompt_tokens,
)
from attendant_server.application.jobs import TOKENS_DECODED_FOR_ONE, JobRunner
from attendant_server.application.prompt_tokens import prompt_tokenization
from attendant_server.application.sampling import chosen_seed, places_of, seeds_of
from attendant_server.application.settled_prefix import SettledPrefix
from attendant_server.application.stop_texts import StopTexts
from attendant_server.application.suppressed_tokens import suppressed_tokens
from attendant_server.application.tokenization import (
    TokenizedOrError,
    good,
    merged,
    num_tokens,
    tokenize,
)
from attendant_server.application.tokenization_options import TokenizationOptions, TruncationReport
from attendant_server.application.validation import TOKEN_BYTES, TOKEN_TEXT_BYTES, RequestLimits
from attendant_server.engine.calls import (
    Hypothesis,
    SearchOptions,
    SearchTooLarge,
    Stops,
    TranslateCall,
)
from attendant_server.errors import InvalidRequest
from attendant_server.tokenized_text import TokenizedText

PROMPTS = "prompts[{}]"
"""The name of one prompt, for messages."""
HYPOTHESIS_SIZE = 10
"""The work of writing a continuation without its tokens, as a number of tokens in an answer."""
NO_CONTINUATION = "has no continuation with the tokens that its options allow"


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Prompts to continue. ``truncation`` is a number of `Truncation`, 0 for the default."""

    prompts: Sequence[str]
    model: str = ""
    options: GenerationOptions = DEFAULT_OPTIONS
    truncation: int = 0
    reads_special_tokens: bool = False
    """Whether the texts of special tokens in prompts stand for these tokens."""


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """One continuation of a prompt; tokens are empty unless the request wants them."""

    text: str
    score: float
    is_complete: bool
    """True if the end token was decoded, or a stop text was found."""
    stop_text: str = ""
    """The stop text that ended it, if any did."""
    is_loop: bool = False
    """Whether it repeated itself and was ended."""
    num_avoided_repetitions: int = 0
    token_ids: Sequence[int] = ()
    token_texts: Sequence[str] = ()
    """The tokens as the vocabulary writes them."""
    log_probabilities: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """The result for one prompt: continuations, best first."""

    hypotheses: Sequence[GeneratedText]
    num_prompt_tokens: int
    truncation: TruncationReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationAnswer(Answer):
    """A result, or a fault, for each prompt, in the order of the request."""

    generations: Sequence[Generation | InvalidRequest]
    num_output_tokens: int
    seed: int | None
    """The seed of the samples; None without sampling."""


@dataclass(frozen=True, slots=True)
class GenerationPiece:
    """A part of a streamed continuation. The deltas add up to the text of the best one."""

    delta: str
    answer: GenerationAnswer | None = None
    """The whole answer, in the last piece only."""


class _Plan(NamedTuple):
    """The checked options of a call."""

    model: ServedModel
    options: SearchOptions
    tokenization: TokenizationOptions
    stop_texts: StopTexts
    return_tokens: bool
    seed: int | None
    places: Sequence[str]

    @property
    def num_samples(self) -> int:
        """Searches for each prompt."""
        return 1 if self.seed is None else self.options.num_hypotheses

    def seeds(self, prompts: Sequence[TokenizedOrError]) -> list[str]:
        """The seed of each sample of each good prompt; none without sampling."""
        return list(seeds_of(self.seed, self.places, _num_searched(prompts), self.num_samples))

    def stops(self, prompts: Sequence[TokenizedOrError]) -> list[Stops | None]:
        """What ends the continuations of each good prompt; none without stop texts."""
        if not self.stop_texts.num_bytes:
            return []
        return [self.writer(prompt).stops for prompt in good(prompts)]

    def writer(self, prompt: TokenizedText) -> ContinuationWriter:
        """Writes the continuations of a prompt."""
        return ContinuationWriter(self.model.target_tokenizer, prompt.token_ids, self.stop_texts)


class Generator:
    """Continues prompts with all language models."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def generate(
        self, request: GenerationRequest, seconds_left: float | None
    ) -> GenerationAnswer:
        """Continue all prompts; returns when all are done.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        self._limits.check_count("prompts", len(request.prompts))
        plan = await self._plan(request)
        deadline = self._limits.deadline(plan.model.engine.clock(), seconds_left)
        prompts = await tokenize(self._jobs, plan.tokenization, PROMPTS, request.prompts)
        while True:
            try:
                results = await search_sources(
                    plan.model,
                    [prompt.token_ids for prompt in good(prompts)],
                    *(plan.options, deadline, len(prompts)),
                    num_samples=plan.num_samples,
                    seeds=plan.seeds(prompts),
                    stops=plan.stops(prompts),
                )
                break
            except SearchTooLarge as error:
                prompts = with_faults(prompts, _num_searched(prompts), error.problems, PROMPTS)
        return await self._answer(plan, prompts, results)

    async def stream(
        self, request: GenerationRequest, seconds_left: float | None
    ) -> AsyncGenerator[GenerationPiece, None]:
        """Continue the only prompt; yields text as soon as it is settled."""
        plan = await self._plan(request)
        deadline = self._limits.deadline(plan.model.engine.clock(), seconds_left)
        [prompt] = await tokenize(self._jobs, plan.tokenization, "prompt", request.prompts)
        if isinstance(prompt, InvalidRequest):
            raise prompt
        prefix, num_samples, writer = SettledPrefix(), plan.num_samples, plan.writer(prompt)
        call = TranslateCall(
            *([prompt.token_ids] * num_samples, plan.options, deadline, prefix.put),
            seeds=plan.seeds([prompt]),
            stops=[writer.stops] * num_samples,
        )
        task = asyncio.ensure_future(plan.model.answer(call))
        task.add_done_callback(prefix.close)
        growing, num_sent = writer.growing(), 0
        try:
            while (token_ids := await prefix.next()) is not None:
                if delta := growing.appended(token_ids):
                    yield GenerationPiece(delta)
                    num_sent += len(delta)
            results = await task
        except SearchTooLarge as error:
            records.current().num_invalid_texts += 1
            raise InvalidRequest("prompt", error.problem) from None
        finally:
            task.cancel()
        answer = await self._answer(plan, [prompt], [list(chain.from_iterable(results))])
        [generation] = answer.generations
        if isinstance(generation, InvalidRequest):
            raise InvalidRequest("prompt", NO_CONTINUATION)
        yield GenerationPiece(generation.hypotheses[0].text[num_sent:], answer)

    async def _plan(self, request: GenerationRequest) -> _Plan:
        """The plan of a call; also refuses a call whose answer may be too large."""
        model = self._catalog.serving(request.model, ModelKind.LANGUAGE_MODEL)
        options, description = request.options, model.description
        check_stop_texts(options.stop_texts)
        suppressed = await suppressed_tokens(self._jobs, model, options)
        search = generation_search_options(options, self._limits, description, suppressed)
        num_texts = len(request.prompts) * search.num_hypotheses
        token_bytes = TOKEN_BYTES if options.return_tokens else TOKEN_TEXT_BYTES
        num_bytes = num_texts * search.max_output_tokens * token_bytes
        self._limits.check_response("options", num_bytes)
        return _Plan(
            model,
            search,
            prompt_tokenization(
                model,
                self._limits,
                max_prompt_tokens(options, search, description),
                request.reads_special_tokens,
                request.truncation,
            ),
            StopTexts(options.stop_texts),
            options.return_tokens,
            chosen_seed(options.sampling),
            places_of(options.sampling, len(request.prompts)),
        )

    async def _answer(
        self,
        plan: _Plan,
        prompts: Sequence[TokenizedOrError],
        results: Sequence[list[Hypothesis]],
    ) -> GenerationAnswer:
        lengths, record = record_output(results), records.current()
        num_output_tokens = sum(lengths)
        size = num_output_tokens if plan.return_tokens else HYPOTHESIS_SIZE * len(lengths)
        generations = await self._jobs.run_for(
            size + num_output_tokens // TOKENS_DECODED_FOR_ONE,
            lambda: _generations(plan, prompts, results),
        )
        num_faults = sum(isinstance(each, InvalidRequest) for each in generations)
        record.num_invalid_texts += num_faults - _num_searched(prompts).count(0)
        return GenerationAnswer(
            model=plan.model.description.key,
            generations=generations,
            num_input_tokens=num_tokens(prompts),
            num_output_tokens=num_output_tokens,
            phases=record.phases(),
            size=size,
            seed=plan.seed,
        )


def _num_searched(prompts: Sequence[TokenizedOrError]) -> list[int]:
    """1 for each good prompt, 0 for each one with a fault."""
    return [int(not isinstance(prompt, InvalidRequest)) for prompt in prompts]


def _generations(
    plan: _Plan, prompts: Sequence[TokenizedOrError], results: Sequence[list[Hypothesis]]
) -> list[Generation | InvalidRequest]:
    def build(prompt: TokenizedText, hypotheses: list[Hypothesis]) -> Generation | None:
        if not hypotheses:
            return None
        writer = plan.writer(prompt)
        return Generation(
            [_generated(plan, writer, hypothesis) for hypothesis in hypotheses],
            num_prompt_tokens=len(prompt),
            truncation=plan.tokenization.report(prompt),
        )

    found = merged(prompts, results, build)
    return [
        InvalidRequest(PROMPTS.format(number), NO_CONTINUATION) if each is None else each
        for number, each in enumerate(found)
    ]


def _generated(plan: _Plan, writer: ContinuationWriter, hypothesis: Hypothesis) -> GeneratedText:
    cut, wants_tokens = writer.written(hypothesis.token_ids), plan.return_tokens
    tokenizer = plan.model.target_tokenizer
    return GeneratedText(
        text=cut.text,
        score=hypothesis.score,
        is_complete=hypothesis.is_complete,
        stop_text=cut.stop_text,
        is_loop=hypothesis.is_loop,
        num_avoided_repetitions=hypothesis.num_rewinds,
        token_ids=hypothesis.token_ids if wants_tokens else (),
        token_texts=tokenizer.tokens(hypothesis.token_ids) if wants_tokens else (),
        log_probabilities=hypothesis.log_probabilities if wants_tokens else (),
    )
