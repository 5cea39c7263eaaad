"""Checks of requests, all of them made before any work, and the defaults of absent fields.

Every failure names the field and the limit and never repeats what the caller sent.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from attendant.v1 import embedding_pb2, model_pb2, text_pb2, translation_pb2

from attendant_server.engine.calls import SearchOptions
from attendant_server.errors import InvalidRequest

EnumValue = TypeVar("EnumValue", bound=int)

MAX_LENGTH_PENALTY = 10.0
DEFAULT_TOP_K = 5
MAX_OUTPUT_RATIO = 3
"""Tokens of a translation for each of its source, beyond which it most likely repeats itself. Of
164,110 English-German pairs none has more than 1.5 times and 16, in either direction."""
TEXTS = "texts[{}]"
"""What messages call one text of the field ``texts``, ``{}`` standing for its number."""
TOKEN_BYTES = 32
"""About what one token with its text and numbers takes in a response."""

_TRUNCATIONS = frozenset(text_pb2.Truncation.values())
_POOLINGS = frozenset(embedding_pb2.Pooling.values())
_SIDES = frozenset(model_pb2.TextSide.values())


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits that the settings put on every request, inclusive."""

    max_texts: int
    max_text_characters: int
    max_beam_size: int
    max_top_k: int
    max_response_bytes: int
    max_request_seconds: float

    def check_count(self, field: str, num_texts: int) -> None:
        """Refuse no texts and too many."""
        if not num_texts:
            raise InvalidRequest(field, "at least 1, got 0")
        if num_texts > self.max_texts:
            raise InvalidRequest(field, f"at most {self.max_texts}, got {num_texts}")

    def check_characters(self, field: str, texts: Iterable[str]) -> None:
        """Refuse texts of too many characters; ``{}`` in ``field`` stands for a text's number."""
        for i, text in enumerate(texts):
            if len(text) > self.max_text_characters:
                raise InvalidRequest(
                    field.format(i),
                    f"at most {self.max_text_characters} characters, got {len(text)}",
                )

    def check_response(self, field: str, num_bytes: int) -> None:
        """Refuse what would be answered with too large a message."""
        if num_bytes > self.max_response_bytes:
            raise InvalidRequest(
                field,
                f"the answer could take {num_bytes} bytes, at most {self.max_response_bytes}; "
                "ask for less in one call",
            )


def search_options(
    options: translation_pb2.TranslateOptions,
    limits: RequestLimits,
    max_target_tokens: int,
) -> SearchOptions:
    """The options of a search with all defaults filled in.

    Without a limit of the caller's own, each text has one of `MAX_OUTPUT_RATIO` times its tokens.
    """
    beam_size = options.beam_size if options.HasField("beam_size") else 1
    _check_range("options.beam_size", beam_size, 1, limits.max_beam_size)
    num_hypotheses = options.num_hypotheses if options.HasField("num_hypotheses") else 1
    _check_range("options.num_hypotheses", num_hypotheses, 1, beam_size)
    max_output_tokens = (
        options.max_output_tokens if options.HasField("max_output_tokens") else max_target_tokens
    )
    _check_range("options.max_output_tokens", max_output_tokens, 1, max_target_tokens)
    _check_range("options.min_output_tokens", options.min_output_tokens, 0, max_output_tokens)
    return SearchOptions(
        max_output_tokens=max_output_tokens,
        beam_size=beam_size,
        num_hypotheses=num_hypotheses,
        length_penalty=length_penalty(options, "options.length_penalty"),
        min_output_tokens=options.min_output_tokens,
        max_output_ratio=None if options.HasField("max_output_tokens") else MAX_OUTPUT_RATIO,
    )


def length_penalty(
    message: translation_pb2.TranslateOptions | translation_pb2.ScoreRequest, field: str
) -> float:
    """The length penalty of a message, 1.0 when absent."""
    if not message.HasField("length_penalty"):
        return 1.0
    penalty = message.length_penalty
    if not (math.isfinite(penalty) and 0.0 <= penalty <= MAX_LENGTH_PENALTY):
        raise InvalidRequest(field, f"must be between 0 and {MAX_LENGTH_PENALTY:g}, and finite")
    return penalty


def top_k(request: embedding_pb2.FillMaskRequest, limits: RequestLimits, vocab_size: int) -> int:
    """How many candidates a FillMask call wants for each mask."""
    wanted = request.top_k if request.HasField("top_k") else DEFAULT_TOP_K
    _check_range("top_k", wanted, 1, limits.max_top_k)
    return min(wanted, vocab_size)


def truncation(value: text_pb2.Truncation.ValueType) -> text_pb2.Truncation.ValueType:
    """TRUNCATION_REFUSE, TRUNCATION_RIGHT or TRUNCATION_LEFT."""
    return _known("truncation", value, _TRUNCATIONS) or text_pb2.TRUNCATION_REFUSE


def pooling(
    value: embedding_pb2.Pooling.ValueType, default: embedding_pb2.Pooling.ValueType
) -> embedding_pb2.Pooling.ValueType:
    """A pooling that is not POOLING_UNSPECIFIED."""
    return _known("pooling", value, _POOLINGS) or default


def side(value: model_pb2.TextSide.ValueType) -> model_pb2.TextSide.ValueType:
    """TEXT_SIDE_SOURCE or TEXT_SIDE_TARGET."""
    return _known("side", value, _SIDES) or model_pb2.TEXT_SIDE_SOURCE


def layers(requested: Sequence[int], num_layers: int) -> list[int]:
    """The layers of an EmbedTokens call, counted from 0, in the order of the request."""
    if len(requested) > num_layers + 1:
        raise InvalidRequest("layers", f"at most {num_layers + 1}, got {len(requested)}")
    for layer in requested:
        _check_range("layers", layer, -(num_layers + 1), num_layers)
    chosen = [layer % (num_layers + 1) for layer in requested or (-1,)]
    if len(set(chosen)) < len(chosen):
        raise InvalidRequest("layers", "each layer at most once")
    return chosen


def _check_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRequest(field, f"must be between {low} and {high}, got {value}")


def _known(field: str, value: EnumValue, known: Collection[EnumValue]) -> EnumValue:
    if value not in known:
        raise InvalidRequest(field, f"has no value {value}")
    return value
