"""LanguageModelService: Generate, StreamGenerate and ScoreText."""

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing

from attendant.v1 import language_model_pb2, language_model_pb2_grpc, text_pb2

from attendant_server.application.application import Application
from attendant_server.application.generation import (
    Generation,
    GenerationAnswer,
    GenerationPiece,
    GenerationRequest,
)
from attendant_server.application.generation_options import DEFAULT_OPTIONS, GenerationOptions
from attendant_server.application.text_scoring import (
    TextScore,
    TextScoringAnswer,
    TextScoringRequest,
)
from attendant_server.errors import InvalidRequest
from attendant_server.grpc.context import Context
from attendant_server.grpc.services.decoding_messages import (
    add_tokens,
    decoding_fields,
    fill_answer,
    finish_reason,
)
from attendant_server.grpc.services.messages import fault, timings, tokens, truncation
from attendant_server.grpc.services.offset_units import OffsetConverter


class LanguageModelService(language_model_pb2_grpc.LanguageModelServiceServicer):
    """Answers for all language models."""

    def __init__(self, application: Application) -> None:
        self._generator, self._scorer = application.generator, application.text_scorer
        self._jobs = application.jobs

    async def Generate(
        self, request: language_model_pb2.GenerateRequest, context: Context
    ) -> language_model_pb2.GenerateResponse:
        """Continue all prompts and answer when all are done."""
        answer = await self._generator.generate(
            generation_request(request, request.prompts),
            context.time_remaining(),
        )
        return await self._jobs.run_for(answer.size, lambda: _generate_response(answer))

    async def StreamGenerate(
        self, request: language_model_pb2.StreamGenerateRequest, context: Context
    ) -> AsyncIterator[language_model_pb2.StreamGenerateResponse]:
        """Continue one prompt and send text as soon as it is settled."""
        pieces = self._generator.stream(
            generation_request(request, [request.prompt]),
            context.time_remaining(),
        )
        async with aclosing(pieces):
            async for piece in pieces:
                yield await self._stream_response(piece)

    async def ScoreText(
        self, request: language_model_pb2.ScoreTextRequest, context: Context
    ) -> language_model_pb2.ScoreTextResponse:
        """Score all texts and answer when all are done."""
        offsets = OffsetConverter(request)
        answer = await self._scorer.score(
            TextScoringRequest(
                texts=list(request.texts),
                model=request.model,
                return_tokens=request.return_tokens,
                scores_end=request.scores_end,
                reads_special_tokens=request.reads_special_tokens,
            ),
            context.time_remaining(),
        )
        return await self._jobs.run_for(
            answer.size,
            lambda: offsets.of_text_scores(_score_text_response(answer), request.texts),
        )

    async def _stream_response(
        self, piece: GenerationPiece
    ) -> language_model_pb2.StreamGenerateResponse:
        answer = piece.answer
        if answer is None:
            return language_model_pb2.StreamGenerateResponse(delta=piece.delta)
        return await self._jobs.run_for(answer.size, lambda: _last_response(piece.delta, answer))


def generation_request(
    request: language_model_pb2.GenerateRequest | language_model_pb2.StreamGenerateRequest,
    prompts: Iterable[str],
) -> GenerationRequest:
    """The request to continue the prompts of a message."""
    options = request.options
    return GenerationRequest(
        prompts=list(prompts),
        model=request.model,
        options=GenerationOptions(**decoding_fields(options), stop_texts=tuple(options.stop_texts))
        if request.HasField("options")
        else DEFAULT_OPTIONS,
        truncation=request.truncation,
        reads_special_tokens=request.reads_special_tokens,
    )


def _generate_response(answer: GenerationAnswer) -> language_model_pb2.GenerateResponse:
    response = language_model_pb2.GenerateResponse()
    for generation in answer.generations:
        _fill_generation(response.generations.add(), generation)
    fill_answer(response, answer)
    return response


def _last_response(
    delta: str, answer: GenerationAnswer
) -> language_model_pb2.StreamGenerateResponse:
    response = language_model_pb2.StreamGenerateResponse(delta=delta)
    _fill_generation(response.generation, answer.generations[0])
    fill_answer(response, answer)
    return response


def _fill_generation(
    message: language_model_pb2.Generation, generation: Generation | InvalidRequest
) -> None:
    if isinstance(generation, InvalidRequest):
        message.error.CopyFrom(fault(generation))
        return
    for hypothesis in generation.hypotheses:
        added = message.hypotheses.add(
            text=hypothesis.text,
            score=hypothesis.score,
            finish_reason=finish_reason(hypothesis),
            stop_text=hypothesis.stop_text,
            num_avoided_repetitions=hypothesis.num_avoided_repetitions,
        )
        add_tokens(added, hypothesis)
    message.num_prompt_tokens = generation.num_prompt_tokens
    if report := truncation(generation.truncation):
        message.truncation.CopyFrom(report)


def _score_text_response(answer: TextScoringAnswer) -> language_model_pb2.ScoreTextResponse:
    return language_model_pb2.ScoreTextResponse(
        scores=map(_score, answer.scores),
        model=answer.model,
        token_counts=text_pb2.TokenCounts(num_input_tokens=answer.num_input_tokens),
        timings=timings(answer.phases),
    )


def _score(score: TextScore | InvalidRequest) -> language_model_pb2.TextScore:
    if isinstance(score, InvalidRequest):
        return language_model_pb2.TextScore(error=fault(score))
    return language_model_pb2.TextScore(
        log_probability=score.log_probability,
        num_scored_tokens=score.num_scored_tokens,
        log_probabilities=score.log_probabilities,
        tokens=None if score.tokens is None else tokens(score.tokens),
    )
