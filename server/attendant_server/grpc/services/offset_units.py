"""Converts the offsets in answers, which are made in code points, to the unit of their request."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from attendant.v1 import (
    attention_pb2,
    embedding_pb2,
    language_model_pb2,
    model_pb2,
    text_pb2,
    translation_pb2,
)
from google.protobuf.message import Message

from attendant_server.application.offset_units import OffsetUnit, TextOffsets
from attendant_server.application.validation import known_value

Response = TypeVar(
    "Response",
    embedding_pb2.EmbedResponse,
    embedding_pb2.EmbedTokensResponse,
    embedding_pb2.FillMaskResponse,
    model_pb2.TokenizeResponse,
)


class OffsetRequest(Protocol):
    """A request whose answer has offsets."""

    @property
    def offset_unit(self) -> "text_pb2.OffsetUnit.ValueType":
        """Their unit, 0 for code points."""


class OffsetConverter:
    """Converts the offsets of one call's answer; does nothing for code points."""

    def __init__(self, request: OffsetRequest) -> None:
        """Raises InvalidRequest for an unknown unit."""
        self._unit = known_value("offset_unit", request.offset_unit, OffsetUnit.CODE_POINTS)

    def of_texts(self, response: Response, texts: Sequence[str]) -> Response:
        """A response whose ``results`` have offsets in ``texts``."""
        if self._unit is not OffsetUnit.CODE_POINTS:
            for result, text in zip(response.results, texts, strict=True):
                self._convert(result, {"": text})
        return response

    def of_stream(
        self, response: translation_pb2.StreamTranslateResponse, text: str
    ) -> translation_pb2.StreamTranslateResponse:
        """The last response of a stream, with the translation of a text."""
        self.of_translation(response.translation, text)
        return response

    def of_translation(self, translation: translation_pb2.Translation, text: str) -> None:
        """Convert the translation of a text."""
        if self._unit is not OffsetUnit.CODE_POINTS:
            for hypothesis in translation.hypotheses:
                self._convert(hypothesis, {"source_": text, "target_": hypothesis.text})

    def of_scores(
        self,
        response: translation_pb2.ScoreResponse,
        pairs: Iterable[translation_pb2.TranslationPair],
    ) -> translation_pb2.ScoreResponse:
        """A response with scores of pairs, whose tokens are those of targets."""
        if self._unit is not OffsetUnit.CODE_POINTS:
            for score, pair in zip(response.scores, pairs, strict=True):
                sides = {"source_": pair.source, "target_": pair.target, "": pair.target}
                self._convert(score, sides)
        return response

    def of_text_scores(
        self, response: language_model_pb2.ScoreTextResponse, texts: Sequence[str]
    ) -> language_model_pb2.ScoreTextResponse:
        """A response with scores of texts, whose tokens are those of the texts."""
        if self._unit is not OffsetUnit.CODE_POINTS:
            for score, text in zip(response.scores, texts, strict=True):
                self._convert(score, {"": text})
        return response

    def of_attention(
        self, response: attention_pb2.GetAttentionResponse, text: str
    ) -> attention_pb2.GetAttentionResponse:
        """A response with the tokens of a text and of its target."""
        if self._unit is not OffsetUnit.CODE_POINTS:
            for tokens, of in (
                (response.source_tokens, text),
                (response.target_tokens, response.target),
                (response.decoder_tokens, response.target),
            ):
                for token in tokens:
                    self._convert(token, {"": of})
        return response

    def _convert(self, message: Message, texts: dict[str, str]) -> None:
        """Convert the fields of a message and of those in it.

        ``texts`` maps the beginnings of the names of offsets, such as ``source_`` of
        ``source_start``, to their texts.
        """
        fields = {
            f"{side}{end}": TextOffsets(text, self._unit).in_unit
            for side, text in texts.items()
            for end in ("start", "end")
        }
        _convert(message, fields)


def _convert(message: Message, fields: Mapping[str, Callable[[int], int]]) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None:
            values: Iterable[Any] = value if field.is_repeated else (value,)
            for each in values:
                _convert(each, fields)
        elif field.name in fields:
            setattr(message, field.name, fields[field.name](value))
