"""Routes whose requests and answers are JSON of typed models."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from attendant_server.errors import InvalidRequest
from attendant_server.http.exchanges import Call, Response, Stream
from attendant_server.http.statuses import (
    Failure,
    Malformed,
    RequestTooLarge,
    Statuses,
    WrongContentType,
)
from attendant_server.records import Method

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
JSON_NAME = "JSON"
DONE = "[DONE]"
"""The last event of a stream."""
MAX_FORM_FIELDS = 1024
MAX_FORM_BYTES = 256 * 1024
"""Reading a form of this size takes about 30 ms, and JSON of it less than one."""
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `([\w.-]{1,64})`", re.ASCII)
_SHOWN = re.compile(r"(Expected |Object missing required field |JSON is malformed|Input data was )")
_encoder = msgspec.json.Encoder()


class Dialect(NamedTuple):
    """What the routes of one protocol have in common."""

    name: str
    error_type: type
    """The model of the answers of calls that have failed."""
    error: Callable[[Failure], Any]
    """The answer of a call that has failed."""
    statuses: Statuses = {}
    """Statuses of codes that differ from those of other protocols."""


class Events(NamedTuple):
    """An answer in pieces, as server-sent events."""

    messages: AsyncIterator[Any]
    end: str = ""
    """The text of the last event, after those of the messages."""


@dataclass(frozen=True, kw_only=True)
class JsonRoute:
    """One route. ``handle`` answers with a model of ``response``, or with `Events`."""

    path: str
    verb: str
    method: Method
    summary: str
    dialect: Dialect
    response: Any
    handle: Callable[[Any, Call], Awaitable[Any]]
    request: Any = None
    """The model of the body; None without a body."""
    description: str = ""
    takes_forms: bool = False
    key_field: str = ""
    """The field of the body that may have the credential."""
    max_lists: int | None = None
    """The most lists in a body, of a route whose model is a list of lists.

    Python's garbage collector looks at each list several times while they are made, and the event
    loop waits.
    """
    event: Any = None
    """The model of a server-sent event, of a route that can answer in pieces."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of the parameters in the path."""

    @property
    def statuses(self) -> Statuses:
        """Statuses of codes that differ from those of other protocols."""
        return self.dialect.statuses

    @property
    def has_key(self) -> bool:
        """Whether a body may have the credential."""
        return bool(self.key_field)

    def key(self, call: Call, body: bytes) -> str:
        """The credential in a body; "" for none. Raises InvalidRequest."""
        return getattr(self._read(call, body), self.key_field) or ""

    def begin(self, call: Call) -> None:
        """Nothing: the headers are read with the body."""

    async def answer(self, call: Call, body: bytes) -> Response | Stream:
        """The answer to an admitted call."""
        found = await self.handle(None if self.request is None else self._read(call, body), call)
        if isinstance(found, Events):
            return Stream(_events(found), self._failed_event)
        return Response(found if isinstance(found, bytes) else _encoder.encode(found))

    def failed(self, failure: Failure) -> Response:
        """The answer to a call that has failed."""
        body = _encoder.encode(self.dialect.error(failure))
        return Response(body, status=failure.status, headers=failure.headers)

    def _failed_event(self, failure: Failure) -> bytes:
        return _event(_encoder.encode(self.dialect.error(failure)))

    @cached_property
    def _decoder(self) -> "msgspec.json.Decoder[Any]":
        return msgspec.json.Decoder(self.request)

    def _read(self, call: Call, body: bytes) -> Any:
        """The model in a body; raises InvalidRequest, which repeats no text of the caller."""
        kind = call.content_type
        if call.headers.get("content-encoding", "identity").lower() != "identity":
            raise WrongContentType("content-encoding", "must be identity")
        if self.max_lists is not None and body.count(b"[") > self.max_lists:
            raise Malformed("body", f"at most {self.max_lists} lists")
        if kind == FORM and len(body) > MAX_FORM_BYTES:
            raise RequestTooLarge("body", f"a form has at most {MAX_FORM_BYTES} bytes; use {JSON}")
        try:
            if kind == JSON:
                return self._decoder.decode(body)
            if kind == FORM and self.takes_forms:
                return msgspec.convert(_form(body), self.request, strict=False)
        except msgspec.MsgspecError as error:
            raise _bad(str(error)) from None
        except (RecursionError, ValueError):  # nested too deeply, no UTF-8, or too many fields
            raise Malformed("body", "is malformed") from None
        known = f"{JSON} or {FORM}" if self.takes_forms else JSON
        raise WrongContentType("content-type", f"must be {known}")


class Ids(msgspec.Struct, array_like=True, gc=False):
    """A list in the place of a text, of which nothing is kept but that it is there.

    It is read only to say what is wrong with it. Millions of Python's lists would be looked at by
    the garbage collector several times while they are made.
    """


def _bad(message: str) -> InvalidRequest:
    """The fault of a body, from the message of msgspec."""
    path = _PATH.search(message)
    name = (path.group(1) if path else "") or "body"
    problem = message[: path.start()] if path else message
    if unknown := _UNKNOWN_FIELD.match(problem):
        within = f"{path.group(1)}." if path and path.group(1) else ""
        return Malformed(within + unknown.group(1), "is unknown here")
    if not _SHOWN.match(problem):
        problem = "has an unknown value or field"  # the message repeats it
    if not problem.startswith(JSON_NAME):
        problem = problem[:1].lower() + problem[1:]
    return Malformed(name, problem.replace("`", ""))


def _form(body: bytes) -> dict[str, Any]:
    """The fields of a form; a field that is there several times is a list."""
    found: dict[str, Any] = {}
    pairs = parse_qsl(
        body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS
    )
    for name, value in pairs:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


async def _events(events: Events) -> AsyncGenerator[bytes]:
    async for message in events.messages:
        yield _event(_encoder.encode(message))
    if events.end:
        yield _event(events.end.encode())


def _event(content: bytes) -> bytes:
    return b"data: " + content + b"\n\n"
