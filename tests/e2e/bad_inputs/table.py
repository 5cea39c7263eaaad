"""The form of the table of bad inputs, and ways to send them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
from attendant.v1 import embedding_pb2, model_pb2, translation_pb2
from google.protobuf.message import Message

from tests.support.observed import ObservedServer
from tests.support.serving import TIMEOUT_SECONDS

MARKER = "Xylophonwurst"
"""A word that occurs in no model, setting or message of the server. Most inputs hold it."""
TRANSLATE = "/attendant.v1.TranslationService/Translate"
SEND_SECONDS = TIMEOUT_SECONDS
METHODS: dict[type[Message], tuple[str, type[Message], str]] = {
    translation_pb2.TranslateRequest: (
        TRANSLATE,
        translation_pb2.TranslateResponse,
        "translations",
    ),
    embedding_pb2.EmbedRequest: (
        "/attendant.v1.EmbeddingService/Embed",
        embedding_pb2.EmbedResponse,
        "results",
    ),
    embedding_pb2.FillMaskRequest: (
        "/attendant.v1.EmbeddingService/FillMask",
        embedding_pb2.FillMaskResponse,
        "results",
    ),
    embedding_pb2.EmbedTokensRequest: (
        "/attendant.v1.EmbeddingService/EmbedTokens",
        embedding_pb2.EmbedTokensResponse,
        "results",
    ),
    model_pb2.TokenizeRequest: (
        "/attendant.v1.ModelService/Tokenize",
        model_pb2.TokenizeResponse,
        "results",
    ),
    model_pb2.GetModelRequest: ("/attendant.v1.ModelService/GetModel", model_pb2.ModelInfo, ""),
}
"""Method, answer and the answer's field of results of each type of request."""


class Outcome(NamedTuple):
    """What a client sees of the answer.

    ``code`` is the name of a status of gRPC, ``TEXT_`` and a name for the error of a text, or a
    word of `tests.e2e.bad_inputs.frames` for a raw connection.
    """

    code: str
    message: str = ""


Send = Callable[[ObservedServer], Outcome]


@dataclass(frozen=True)
class BadInput:
    """A row of the table."""

    name: str
    send: Send
    expected: str
    """The code of the outcome; several, separated by spaces, if the library chooses by chance."""
    message: str = ""
    """Part of the outcome's message."""


def content(message: bytes, method: str = TRANSLATE, **arguments: Any) -> Send:
    """Sends the bytes of a message."""

    def send(server: ObservedServer) -> Outcome:
        with server.new_channel() as channel:
            call = channel.unary_unary(method)
            return outcome_of(call.future(message, timeout=SEND_SECONDS, **arguments))

    return send


def request(message: Message, **arguments: Any) -> Send:
    """Sends a request; the outcome is that of its first text, if it is answered."""
    method, answer_type, field = METHODS[type(message)]

    def send(server: ObservedServer) -> Outcome:
        with server.new_channel() as channel:
            call = channel.unary_unary(method).future(
                message.SerializeToString(), timeout=SEND_SECONDS, **arguments
            )
            if call.code() is not grpc.StatusCode.OK:
                return outcome_of(call)
        for result in getattr(answer_type.FromString(call.result()), field) if field else ():
            if result.HasField("error"):
                [name] = [c.name for c in grpc.StatusCode if c.value[0] == result.error.code]
                return Outcome(f"TEXT_{name}", result.error.message)
        return Outcome("OK")

    return send


def outcome_of(call: Any) -> Outcome:
    """The outcome of a finished call of the gRPC library."""
    return Outcome(call.code().name, call.details() or "")


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """A number in the encoding of protobuf."""
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])
