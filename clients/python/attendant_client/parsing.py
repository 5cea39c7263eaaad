"""Parses responses of the contract into results.

Pure functions that know no channel. They raise ServerError for responses that violate the contract.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from attendant.v1 import model_pb2, text_pb2, translation_pb2
from google.protobuf.duration_pb2 import Duration

from attendant_client import results
from attendant_client.errors import TextError, bad_answer

Errors = Sequence[TextError | None]
"""The error of each text, None for success."""


def translations(
    response: translation_pb2.TranslateResponse, errors: Errors, request_id: str
) -> list[results.Translation]:
    """Parse the answer to Translate."""
    call = call_report(response, request_id)
    items = zip(response.translations, errors, strict=True)
    return [_translation(item, call, error) for item, error in items]


def _translation(
    item: translation_pb2.Translation, call: results.CallReport, error: TextError | None
) -> results.Translation:
    if error is None and not item.hypotheses:
        raise bad_answer("a translation has neither hypotheses nor an error", call.request_id)
    hypotheses = tuple(_hypothesis(hypothesis) for hypothesis in item.hypotheses)
    return results.Translation(
        hypotheses,
        item.num_source_tokens,
        item.num_unknown_tokens,
        truncation(item),
        error,
        call,
    )


def stream_end(
    response: translation_pb2.StreamTranslateResponse, request_id: str
) -> results.Translation | None:
    """Return the translation that the last message of a stream holds, None for other messages."""
    if not response.HasField("translation"):
        return None
    return _translation(response.translation, call_report(response, request_id), None)


def scores(
    response: translation_pb2.ScoreResponse, errors: Errors, request_id: str
) -> list[results.TranslationScore]:
    """Parse the answer to Score."""
    call = call_report(response, request_id)
    return [
        results.TranslationScore(
            score=math.nan if error else item.score,
            log_probability=math.nan if error else item.log_probability,
            log_probabilities=tuple(item.log_probabilities),
            tokens=tokens(item.tokens),
            num_source_tokens=item.num_source_tokens,
            truncation=truncation(item),
            error=error,
            call=call,
            alignments=_alignments(item.alignments),
        )
        for item, error in zip(response.scores, errors, strict=True)
    ]


def tokenizations(
    response: model_pb2.TokenizeResponse, errors: Errors, request_id: str
) -> list[results.Tokenization]:
    """Parse the answer to Tokenize."""
    return [
        results.Tokenization(tokens(item.tokens), error, response.model)
        for item, error in zip(response.results, errors, strict=True)
    ]


def call_report(response: Any, request_id: str) -> results.CallReport:
    """Parse the report on a whole call."""
    timings = response.timings

    def seconds(phase: str) -> float | None:
        duration: Duration = getattr(timings, phase)
        return duration.ToTimedelta().total_seconds() if timings.HasField(phase) else None

    return results.CallReport(
        model=response.model,
        num_input_tokens=response.token_counts.num_input_tokens,
        num_output_tokens=response.token_counts.num_output_tokens,
        queue_seconds=seconds("queue"),
        tokenize_seconds=seconds("tokenize"),
        encode_seconds=seconds("encode"),
        decode_seconds=seconds("decode"),
        request_id=request_id,
        seed=_seed(response),
    )


def _seed(response: Any) -> int | None:
    has_seeds = "seed" in response.DESCRIPTOR.fields_by_name
    return response.seed if has_seeds and response.HasField("seed") else None


def truncation(item: Any) -> results.TruncationReport | None:
    """Parse the report on the truncation of a text."""
    if not item.HasField("truncation"):
        return None
    report: text_pb2.TruncationReport = item.truncation
    return results.TruncationReport(
        report.num_original_tokens,
        report.num_kept_tokens,
        choice(text_pb2.Truncation, report.truncation),
    )


def tokens(sent: Sequence[text_pb2.Token]) -> tuple[results.Token, ...]:
    """Parse the tokens of a text that was sent."""
    return tuple(
        results.Token(token.id, token.text, token.start, token.end, token.special) for token in sent
    )


def output_tokens(sent: Sequence[translation_pb2.OutputToken]) -> tuple[results.OutputToken, ...]:
    """Parse the tokens of a hypothesis."""
    return tuple(results.OutputToken(token.id, token.text, token.log_probability) for token in sent)


def _hypothesis(hypothesis: translation_pb2.Hypothesis) -> results.Hypothesis:
    return results.Hypothesis(
        text=hypothesis.text,
        score=hypothesis.score,
        tokens=output_tokens(hypothesis.tokens),
        finish_reason=choice(translation_pb2.FinishReason, hypothesis.finish_reason),
        sentences=tuple(
            results.SentencePair(
                sentence.source_start,
                sentence.source_end,
                sentence.target_start,
                sentence.target_end,
            )
            for sentence in hypothesis.sentences
        ),
        alignments=_alignments(hypothesis.alignments),
        glossary_terms=tuple(
            results.GlossaryTerm(
                term.source_start,
                term.source_end,
                term.target_start,
                term.target_end,
                term.source,
                term.target,
            )
            for term in hypothesis.glossary_terms
        ),
        num_replaced_tokens=hypothesis.num_replaced_tokens,
        num_avoided_repetitions=hypothesis.num_avoided_repetitions,
    )


def _alignments(
    links: Iterable[translation_pb2.WordAlignment],
) -> tuple[results.WordAlignment, ...]:
    return tuple(
        results.WordAlignment(
            link.source_start, link.source_end, link.target_start, link.target_end, link.weight
        )
        for link in links
    )


def choice(enum: Any, number: int) -> str:
    """Return the last word of an enum value's name: "stop" for FINISH_REASON_STOP.

    Empty for a value that is unspecified or unknown to this version of the contract.
    """
    if number == 0 or number not in enum.values():
        return ""
    return str(enum.Name(number)).rpartition("_")[2].lower()
