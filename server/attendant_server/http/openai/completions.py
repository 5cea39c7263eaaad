"""Completions in the form of OpenAI."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec

from attendant_server.application.application import Application
from attendant_server.application.generation import (
    GeneratedText,
    Generation,
    GenerationAnswer,
    GenerationPiece,
    GenerationRequest,
)
from attendant_server.application.generation_options import GenerationOptions
from attendant_server.application.operations import begin_operation
from attendant_server.application.sampling import SamplingOptions
from attendant_server.errors import InvalidRequest
from attendant_server.field_names import renamed, renamed_fields
from attendant_server.http.exchanges import Call
from attendant_server.http.json_routes import DONE, Events, Ids
from attendant_server.http.openai.embeddings import Usage
from attendant_server.http.texts import texts_of
from attendant_server.text_faults import without_faults

NAMES = {
    "prompts": "prompt",
    "options.max_output_tokens": "max_tokens",
    "options.num_hypotheses": "n",
    "options.stop_texts": "stop",
    "options.sampling.temperature": "temperature",
    "options.sampling.top_p": "top_p",
    "options.sampling.seed": "seed",
}
"""The fields of OpenAI for those of the application."""
ONE_PROMPT = {**NAMES, "prompts[0]": "prompt"}
NO_TOKENS = "must be a text or a list of texts: token ids are those of another tokenizer"
DEFAULT_MAX_TOKENS = 16


class StreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options of an answer in pieces."""

    include_usage: bool = False
    """Whether a last piece has the numbers of tokens."""


class CompletionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Prompts to continue."""

    model: str = ""
    """``name`` or ``name/version``; empty for the default model."""
    prompt: str | Annotated[list[str | int | Ids], msgspec.Meta(min_length=1)]
    """A text, or a list of texts."""
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = DEFAULT_MAX_TOKENS
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = 1.0
    """0 for the likeliest tokens; otherwise they are drawn among the likeliest 50."""
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = 1.0
    n: Annotated[int, msgspec.Meta(ge=1)] | None = 1
    """Continuations of each prompt; 1 with ``temperature`` 0."""
    stop: str | Annotated[list[str], msgspec.Meta(max_length=16)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    echo: bool | None = False
    """Whether texts begin with their prompt."""
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=0)] | None = None
    """0 for the log-probabilities of the tokens; those of other tokens are not kept."""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    best_of: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Must be ``n``."""
    frequency_penalty: Annotated[float, msgspec.Meta(ge=0, le=0)] | None = 0
    presence_penalty: Annotated[float, msgspec.Meta(ge=0, le=0)] | None = 0
    logit_bias: Annotated[dict[str, float], msgspec.Meta(max_length=0)] | None = None
    suffix: Annotated[str, msgspec.Meta(max_length=0)] | None = None
    user: str | None = None
    """Without effect."""


class LogProbabilities(msgspec.Struct, kw_only=True):
    """The tokens of a text."""

    tokens: list[str]
    """As the vocabulary writes them."""
    token_logprobs: list[float]
    top_logprobs: None = None
    text_offset: None = None


class Choice(msgspec.Struct, kw_only=True):
    """A continuation, or a piece of one."""

    index: int
    text: str
    logprobs: LogProbabilities | None = None
    finish_reason: Literal["stop", "length"] | None = None
    """None in all pieces but the last one of a continuation."""


class Completion(msgspec.Struct, kw_only=True):
    """The continuations of all prompts, or a piece of the only one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class CompletionsHandler:
    """Continues prompts with all language models."""

    def __init__(self, application: Application) -> None:
        self._generator, self._jobs = application.generator, application.jobs

    async def __call__(self, request: CompletionRequest, call: Call) -> Any:
        """The continuations, whole or in pieces."""
        begin_operation("StreamGenerate" if request.stream else "Generate")
        asked = _asked(request, call)
        if request.stream:
            _check_stream(request, asked)
            return Events(self._pieces(request, asked, call), DONE)
        with renamed_fields(ONE_PROMPT if isinstance(request.prompt, str) else NAMES):
            answer = await self._generator.generate(asked, None)
            generations = without_faults(answer.generations)

        def response() -> bytes:
            choices = _choices(asked.prompts if request.echo else None, generations)
            return msgspec.json.encode(_of(call, answer.model, choices, _usage(answer)))

        return await self._jobs.run_for(answer.size, response)

    async def _pieces(
        self, request: CompletionRequest, asked: GenerationRequest, call: Call
    ) -> AsyncIterator[Completion]:
        beginning = asked.prompts[0] if request.echo else ""
        try:
            async with aclosing(self._generator.stream(asked, None)) as pieces:
                async for piece in pieces:
                    yield _piece(call, piece, beginning)
                    beginning = ""
        except InvalidRequest as error:
            raise renamed(error, ONE_PROMPT) from None
        answer = piece.answer
        if answer is not None and request.stream_options and request.stream_options.include_usage:
            yield _of(call, answer.model, [], _usage(answer))


def _asked(request: CompletionRequest, call: Call) -> GenerationRequest:
    """The request to the application; raises InvalidRequest."""
    prompts, _ = texts_of(request.prompt, "prompt", NO_TOKENS)
    number = 1 if request.n is None else request.n
    if request.best_of not in (None, number):
        raise InvalidRequest("best_of", f"must be n, which is {number}, got {request.best_of}")
    is_greedy = request.temperature == 0
    if is_greedy and number > 1:
        raise InvalidRequest("n", f"must be 1 with temperature 0, got {number}")
    sampling = SamplingOptions(
        temperature=request.temperature, top_p=request.top_p, seed=request.seed
    )
    stop = request.stop or []
    return GenerationRequest(
        prompts=prompts,
        model=request.model or call.model,
        options=GenerationOptions(
            beam_size=1,
            num_hypotheses=number,
            max_output_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
            return_tokens=request.logprobs is not None,
            sampling=None if is_greedy else sampling,
            stop_texts=[stop] if isinstance(stop, str) else stop,
        ),
    )


def _check_stream(request: CompletionRequest, asked: GenerationRequest) -> None:
    """Raise InvalidRequest for what an answer in pieces cannot have."""
    if len(asked.prompts) > 1:
        raise InvalidRequest("prompt", f"must be one text with stream, got {len(asked.prompts)}")
    if (request.n or 1) > 1:
        raise InvalidRequest("n", f"must be 1 with stream, got {request.n}")
    if request.logprobs is not None:
        raise InvalidRequest("logprobs", "is for whole answers only, not with stream")


def _choices(prompts: Sequence[str] | None, generations: Sequence[Generation]) -> list[Choice]:
    """The continuations of all prompts, after ``prompts`` if they are given."""
    choices: list[Choice] = []
    for number, generation in enumerate(generations):
        beginning = "" if prompts is None else prompts[number]
        for found in generation.hypotheses:
            choices.append(_choice(len(choices), beginning + found.text, found))
    return choices


def _choice(index: int, text: str, found: GeneratedText) -> Choice:
    logprobs = None
    if found.token_ids:
        logprobs = LogProbabilities(
            tokens=list(found.token_texts), token_logprobs=list(found.log_probabilities)
        )
    return Choice(index=index, text=text, logprobs=logprobs, finish_reason=_reason(found))


def _piece(call: Call, piece: GenerationPiece, beginning: str) -> Completion:
    answer = piece.answer
    choice = Choice(index=0, text=beginning + piece.delta)
    if answer is not None:
        [generation] = without_faults(answer.generations)
        choice.finish_reason = _reason(generation.hypotheses[0])
    return _of(call, call.record.model, [choice], None)


def _reason(found: GeneratedText) -> Literal["stop", "length"]:
    return "stop" if found.is_complete else "length"


def _of(call: Call, model: str, choices: list[Choice], usage: Usage | None) -> Completion:
    return Completion(
        id=f"cmpl-{call.record.request_id}",
        created=int(time.time()),
        model=model,
        choices=choices,
        usage=usage,
    )


def _usage(answer: GenerationAnswer) -> Usage:
    read, written = answer.num_input_tokens, answer.num_output_tokens
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
