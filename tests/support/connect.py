"""Connect and gRPC-Web for tests: bodies, answers, and calls of any method in any dialect."""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from struct import pack, unpack_from
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2

from tests.support.http import Answer, HttpClient

TRANSLATION = "/attendant.v1.TranslationService/"
UNARY = ["application/json", "application/proto"]
STREAMS = ["application/connect+json", "application/connect+proto"]
GRPC_WEB = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
]
END, TRAILERS = 0x02, 0x80


@dataclass(frozen=True)
class Outcome:
    """The messages of an answer, and its error."""

    messages: list[Any]
    code: str = "ok"
    message: str = ""
    details: Any = ()
    """Messages of google.rpc as ``Any``."""


def enveloped(content: bytes, flags: int = 0) -> bytes:
    return pack(">BI", flags, len(content)) + content


def envelopes(body: bytes) -> list[tuple[int, bytes]]:
    """Flags and content of each envelope."""
    found = []
    while body:
        flags, length = unpack_from(">BI", body)
        assert len(body) >= 5 + length
        found.append((flags, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


def written(message: Message, content_type: str) -> bytes:
    """The body of a request."""
    is_json = content_type.endswith("json")
    content = (
        json_format.MessageToJson(message).encode() if is_json else message.SerializeToString()
    )
    if content_type in UNARY:
        return content
    framed = enveloped(content)
    return b64encode(framed) if "text" in content_type else framed


def call(
    http: HttpClient, path: str, request: Message, kind: type[Message], content_type: str, **h: str
) -> Outcome:
    """Call a method, and read its answer as the specification of the dialect says."""
    answer = http.post(path, written(request, content_type), content_type=content_type, **h)
    return outcome(answer, kind, content_type)


def outcome(answer: Answer, kind: type[Message], content_type: str) -> Outcome:
    """The messages and the error of an answer."""
    if content_type in UNARY:
        if answer.status != 200:
            assert answer.headers["content-type"] == "application/json"
            return _failed([], answer.json)
        assert answer.headers["content-type"] == content_type
        return Outcome([_read(answer.content, kind, content_type)])
    assert (answer.status, answer.headers["content-type"]) == (200, content_type)
    body = answer.content
    if "text" in content_type:
        body = b"".join(map(b64decode, _segments(body)))
    *parts, (flags, last) = envelopes(body)
    assert all(flags == 0 for flags, _ in parts)
    messages = [_read(content, kind, content_type) for _, content in parts]
    if content_type in STREAMS:
        assert flags == END
        error = json.loads(last).get("error")
        return Outcome(messages) if error is None else _failed(messages, error)
    assert flags == TRAILERS
    return _ended(messages, last)


def _read(content: bytes, kind: type[Message], content_type: str) -> Any:
    if content_type.endswith("json"):
        return json_format.Parse(content, kind())
    return kind.FromString(content)


def _failed(messages: list[Any], error: Any) -> Outcome:
    status = status_pb2.Status()
    for detail in error.get("details", ()):
        value = b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4))
        added = status.details.add(type_url=f"type.googleapis.com/{detail['type']}", value=value)
        assert json_format.MessageToDict(added) == detail["debug"] | {"@type": added.type_url}
    return Outcome(messages, error["code"], error["message"], status.details)


def _ended(messages: list[Any], trailers: bytes) -> Outcome:
    pairs = [line.partition(": ") for line in trailers.decode().split("\r\n") if line]
    found = {name: value for name, _, value in pairs}
    if found["grpc-status"] == "0":
        return Outcome(messages)
    encoded = found["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(b64decode(encoded + "=" * (-len(encoded) % 4)))
    assert str(status.code) == found["grpc-status"]
    message = unquote(found["grpc-message"])
    assert status.message == message
    names = {1: "canceled", 3: "invalid_argument", 4: "deadline_exceeded", 5: "not_found"}
    names |= {7: "permission_denied", 8: "resource_exhausted", 12: "unimplemented"}
    names |= {14: "unavailable", 16: "unauthenticated"}
    return Outcome(messages, names[status.code], message, status.details)


def _segments(body: bytes) -> list[bytes]:
    """The parts of a body that are base64, each with padding of its own."""
    found, start = [], 0
    for end in range(4, len(body) + 4, 4):
        if body[end - 1 : end] == b"=" or end >= len(body):
            found.append(body[start:end])
            start = end
    return found
