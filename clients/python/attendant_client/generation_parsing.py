"""Parses responses of language models into results, as `parsing` does those of translation."""

import math

from attendant.v1 import language_model_pb2, translation_pb2

from attendant_client import generation_results as results
from attendant_client.errors import TextError, bad_answer
from attendant_client.parsing import Errors, call_report, choice, output_tokens, tokens, truncation
from attendant_client.results import CallReport


def generations(
    response: language_model_pb2.GenerateResponse, errors: Errors, request_id: str
) -> list[results.Generation]:
    """Parse the answer to Generate."""
    call = call_report(response, request_id)
    items = zip(response.generations, errors, strict=True)
    return [_generation(item, call, error) for item, error in items]


def stream_end(
    response: language_model_pb2.StreamGenerateResponse, request_id: str
) -> results.Generation | None:
    """Return the generation that the last message of a stream holds, None for other messages."""
    if not response.HasField("generation"):
        return None
    return _generation(response.generation, call_report(response, request_id), None)


def text_scores(
    response: language_model_pb2.ScoreTextResponse, errors: Errors, request_id: str
) -> list[results.TextScore]:
    """Parse the answer to ScoreText."""
    call = call_report(response, request_id)
    return [
        results.TextScore(
            log_probability=math.nan if error else item.log_probability,
            num_scored_tokens=item.num_scored_tokens,
            log_probabilities=tuple(item.log_probabilities),
            tokens=tokens(item.tokens),
            error=error,
            call=call,
        )
        for item, error in zip(response.scores, errors, strict=True)
    ]


def _generation(
    item: language_model_pb2.Generation, call: CallReport, error: TextError | None
) -> results.Generation:
    if error is None and not item.hypotheses:
        raise bad_answer("a generation has neither hypotheses nor an error", call.request_id)
    hypotheses = tuple(
        results.GeneratedText(
            text=each.text,
            score=each.score,
            tokens=output_tokens(each.tokens),
            finish_reason=choice(translation_pb2.FinishReason, each.finish_reason),
            stop_text=each.stop_text,
            num_avoided_repetitions=each.num_avoided_repetitions,
        )
        for each in item.hypotheses
    )
    return results.Generation(hypotheses, item.num_prompt_tokens, truncation(item), error, call)
