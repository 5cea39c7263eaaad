"""Messages as bytes: protobuf, or the JSON that protobuf defines for it."""

import re
from typing import Any, Protocol

import orjson
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from attendant_server.application.jobs import JobRunner
from attendant_server.errors import InvalidRequest

MAX_INLINE_READ_BYTES = 4096
"""JSON that is read in about a millisecond."""
MAX_INLINE_WRITTEN_BYTES = 1536
"""Bytes of a message, as protobuf, whose JSON is written in about a millisecond."""
_WHITESPACE = b" \t\r\n"
_IN_FIELD = re.compile(r"Failed to parse (\w{1,64}) field: ", re.ASCII)
_UNKNOWN = re.compile(r'Message type "[\w.]+" has no field named "(\w{1,64})"', re.ASCII)
_AT = re.compile(r" at \w+\.(\w+(?:\[\d+\]|\.\w+)*)\.*$", re.ASCII)
_INDEX = re.compile(r"\[\d+\]")
WRONG_VALUE = "has a value of another type, or out of range"


class Codec(Protocol):
    """Reads and writes messages."""

    name: str
    """Its name in content types."""

    async def read(self, content: bytes, kind: type[Message]) -> Message:
        """The message in bytes. Raises InvalidRequest."""

    async def write(self, message: Message) -> bytes:
        """The bytes of a message."""


class ProtobufCodec:
    """Protobuf's bytes."""

    name = "proto"

    async def read(self, content: bytes, kind: type[Message]) -> Message:
        """The message in bytes. Raises InvalidRequest."""
        try:
            return kind.FromString(content)
        except DecodeError:
            raise InvalidRequest("request", "cannot be decoded") from None

    async def write(self, message: Message) -> bytes:
        """The bytes of a message."""
        return message.SerializeToString()


class JsonCodec:
    """Protobuf's JSON; an unknown field is an error, as for every parser of it by default.

    The library is Python, so that long messages are read and written on threads.
    """

    name = "json"

    def __init__(self, jobs: JobRunner) -> None:
        self._jobs = jobs

    async def read(self, content: bytes, kind: type[Message]) -> Message:
        """The message in JSON. Raises InvalidRequest, which repeats no value of the caller."""
        if len(content) <= MAX_INLINE_READ_BYTES:
            return read_json(content, kind)
        return await self._jobs.run(lambda: read_json(content, kind))

    async def write(self, message: Message) -> bytes:
        """The JSON of a message."""
        if message.ByteSize() <= MAX_INLINE_WRITTEN_BYTES:
            return write_json(message)
        return await self._jobs.run(lambda: write_json(message))


def read_json(content: bytes, kind: type[Message]) -> Message:
    """The message in JSON. Raises InvalidRequest."""
    if not content.lstrip(_WHITESPACE).startswith(b"{"):
        raise InvalidRequest("body", "must be a JSON object")
    try:
        return json_format.Parse(content, kind())
    except json_format.ParseError as error:
        raise _fault(str(error), kind) from None
    except (ValueError, TypeError, RecursionError):  # such as bytes that are no UTF-8
        raise InvalidRequest("body", "is malformed") from None


def write_json(message: Message) -> bytes:
    """The JSON of a message, without fields that have their default."""
    found: Any = json_format.MessageToDict(message)
    return orjson.dumps(found)


def _fault(problem: str, kind: type[Message]) -> InvalidRequest:
    """The fault of JSON, from the message of the library, which may repeat values."""
    names, start = [], 0
    while found := _IN_FIELD.match(problem, start):
        names.append(found.group(1))
        start = found.end()
    if unknown := _UNKNOWN.match(problem, start):
        return InvalidRequest(".".join([*names, unknown.group(1)]), "is unknown here")
    path = _AT.search(problem)
    if path and _has(kind.DESCRIPTOR, path.group(1)):
        return InvalidRequest(path.group(1), WRONG_VALUE)
    if names:
        return InvalidRequest(".".join(names), WRONG_VALUE)
    return InvalidRequest("body", "is malformed, or has a field several times")


def _has(message: Any, path: str) -> bool:
    """Whether a path has names of fields only; ``message`` is the descriptor of a message."""
    inner = message
    for name in _INDEX.sub("", path).split("."):
        fields = () if inner is None else inner.fields
        field = next((each for each in fields if name in (each.name, each.json_name)), None)
        if field is None:
            return False
        inner = field.message_type
    return True
