"""A call of HTTP: its request, its answer, and the route that answers it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from attendant_server.call_headers import MODEL, model_name
from attendant_server.http.connection import Connection
from attendant_server.http.statuses import Failure, Statuses
from attendant_server.records import CallRecord, Method

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    body: bytes
    content_type: bytes = JSON
    status: int = 200
    headers: Sequence[tuple[bytes, bytes]] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer in pieces. An error before the first piece is the status of the answer."""

    pieces: AsyncGenerator[bytes]
    failed: Callable[[Failure], bytes]
    """The last piece, for an error after the first one."""
    content_type: bytes = EVENTS
    headers: Sequence[tuple[bytes, bytes]] = ()


class Route(Protocol):
    """What answers the calls of one method."""

    @property
    def method(self) -> Method:
        """The method of its calls."""

    @property
    def statuses(self) -> Statuses:
        """Statuses of codes that differ from those of other routes."""

    @property
    def has_key(self) -> bool:
        """Whether a request without `AUTHORIZATION` may have its credential in its body."""

    def key(self, call: "Call", body: bytes) -> str:
        """The credential in a body; "" for none. Raises InvalidRequest."""

    def begin(self, call: "Call") -> None:
        """Check the headers before the body is received. Raises AttendantError."""

    async def answer(self, call: "Call", body: bytes) -> Response | Stream:
        """The answer to an admitted call. Raises AttendantError."""

    def failed(self, failure: Failure) -> Response:
        """The answer to a call that has failed before its answer has begun."""


class CallerGone(Exception):
    """The client has closed the connection, or does not read the answer."""


@dataclass(slots=True, eq=False)
class Call:
    """One call, from its headers to the end of its answer."""

    record: CallRecord
    scope: Any
    headers: dict[str, str]
    """The headers; of several with a name, the last one."""
    connection: Connection
    is_receiving: bool = False
    sending_since: float | None = None
    has_begun_answer: bool = False
    stream: "Stream | None" = None
    """The answer that is being sent in pieces."""
    is_stopped: bool = False
    """Whether a stop of the server has ended it."""

    @property
    def model(self) -> str:
        """The model that the headers name; "" for the default one. Raises InvalidRequest."""
        return model_name(self.headers.get(MODEL, ""))

    @property
    def content_type(self) -> str:
        """The type of the body without parameters, in small letters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def query(self) -> bytes:
        """The part of the target after the question mark."""
        query: bytes = self.scope["query_string"]
        return query
