"""The methods of attendant.v1 as routes: one path, and a dialect for each content type."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import Message

from attendant_server.application.application import Application
from attendant_server.callers import CONTROL_METHODS
from attendant_server.errors import CallTooLarge, DeadlineExceeded, Unsupported
from attendant_server.http.calls import CallRunner
from attendant_server.http.connect.codecs import JsonCodec, ProtobufCodec
from attendant_server.http.connect.dialects import (
    ConnectStream,
    ConnectUnary,
    Dialect,
    GrpcWeb,
    GrpcWebText,
    UnknownDialect,
)
from attendant_server.http.exchanges import Call, Receive, Response, Send, Stream
from attendant_server.http.statuses import Failure, Statuses
from attendant_server.records import Method
from attendant_server.settings import Settings

PATH = "/attendant.v1.{service}/{method}"
UNARY, BIDI_STREAM = "unary", "bidi_stream"


class OwnMethod(Protocol):
    """A method of attendant.v1."""

    @property
    def method(self) -> Method:
        """Its names and type."""

    @property
    def request(self) -> type[Message]:
        """The class of its requests."""

    @property
    def function(self) -> Callable[[Any, Any], Any]:
        """What answers a request, with a `CallContext`: a coroutine function, or a generator."""


class CallContext:
    """What the services use of a context of gRPC."""

    def __init__(self, started: float, timeout_seconds: float | None) -> None:
        self._deadline = None if timeout_seconds is None else started + timeout_seconds

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())


@dataclass(frozen=True)
class ConnectRoute:
    """The calls of a method in one dialect."""

    own: OwnMethod
    dialect: Dialect
    max_response_bytes: int
    has_key: bool = False

    @property
    def statuses(self) -> Statuses:
        """None: Connect has the statuses of every code from the table that all share."""
        return {}

    @property
    def method(self) -> Method:
        """The method of its calls."""
        return self.own.method

    def key(self, call: Call, body: bytes) -> str:
        """Never called: credentials are in headers."""
        raise NotImplementedError

    def begin(self, call: Call) -> None:
        """Check the headers. Raises InvalidRequest or Unsupported."""
        self.dialect.check(call.headers)
        self.dialect.timeout_seconds(call.headers)
        if self.method.type == BIDI_STREAM:
            raise Unsupported(
                f"{self.method.name} needs gRPC: HTTP/1.1 has no streams in both directions"
            )

    async def answer(self, call: Call, body: bytes) -> Response | Stream:
        """The answer to an admitted call."""
        seconds = self.dialect.timeout_seconds(call.headers)
        context = CallContext(call.record.started, seconds)
        if self.method.type != UNARY:
            pieces = self._pieces(context, body)
            return Stream(pieces, self.dialect.end, self.dialect.content_type.encode())
        async with _limited(context):
            message = await self.own.function(await self._request(body), context)
            content = self.dialect.whole(await self._written(message))
        return Response(content, self.dialect.content_type.encode())

    def failed(self, failure: Failure) -> Response:
        """The answer to a call that has failed before its answer has begun."""
        return self.dialect.failed(failure)

    async def _pieces(self, context: CallContext, body: bytes) -> AsyncGenerator[bytes, None]:
        async with _limited(context):
            request = await self._request(body)
        async with aclosing(self.own.function(request, context)) as messages:
            while True:
                # Not around the sending of pieces, whose cancellation would not come here.
                async with _limited(context):
                    if (message := await anext(messages, None)) is None:
                        break
                    piece = self.dialect.piece(await self._written(message))
                yield piece
        yield self.dialect.end()

    async def _request(self, body: bytes) -> Message:
        content = self.dialect.message(body)
        return await self.dialect.codec.read(content, self.own.request)

    async def _written(self, message: Message) -> bytes:
        if (size := message.ByteSize()) > self.max_response_bytes:
            problem = f"the answer has {size} bytes, at most {self.max_response_bytes}"
            raise CallTooLarge("request", problem)
        return await self.dialect.codec.write(message)


class _limited:
    """Ends the block at the deadline of a call with DeadlineExceeded."""

    def __init__(self, context: CallContext) -> None:
        self._limit = asyncio.timeout(context.time_remaining())

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        try:
            await self._limit.__aexit__(*error)
        except TimeoutError as timeout:
            raise DeadlineExceeded("the deadline of the call has passed") from timeout


def served_methods(
    methods: Iterable[OwnMethod], has_callers: bool, settings: Settings
) -> Iterator[OwnMethod]:
    """The methods that HTTP has; ``has_callers``: whether callers are known.

    Only callers with a permission may control models: a page in a browser of the machine can reach
    a server that listens for this machine alone.
    """
    if "connect" not in settings.http_protocols:
        return
    for own in methods:
        if has_callers or own.method.operation not in CONTROL_METHODS:
            yield own


class ConnectEndpoint:
    """An ASGI application that answers the calls of all methods at `PATH`."""

    def __init__(
        self,
        runner: CallRunner,
        methods: Iterable[OwnMethod],
        application: Application,
        max_response_bytes: int,
        not_found: Any,
    ) -> None:
        """``not_found`` answers requests for other methods."""
        self._runner, self._not_found = runner, not_found
        self._max_response_bytes = max_response_bytes
        protobuf, json = ProtobufCodec(), JsonCodec(application.jobs)
        grpc_web = [
            GrpcWeb("application/grpc-web", protobuf),
            GrpcWeb("application/grpc-web+proto", protobuf),
            GrpcWebText("application/grpc-web-text", protobuf),
            GrpcWebText("application/grpc-web-text+proto", protobuf),
        ]
        self._unary = _by_type([ConnectUnary(json), ConnectUnary(protobuf), *grpc_web])
        self._streams = _by_type([ConnectStream(json), ConnectStream(protobuf), *grpc_web])
        methods = list(methods)
        self.methods = [own.method for own in methods]
        self._routes = {
            f"/{own.method.service}/{own.method.name}": self._routes_of(own) for own in methods
        }

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if (routes := self._routes.get(scope["path"])) is None:
            await self._not_found(scope, receive, send)
            return
        route = routes.get(_content_type(scope)) or routes[""]
        await self._runner.run(route, scope, receive, send)

    def _routes_of(self, own: OwnMethod) -> dict[str, ConnectRoute]:
        dialects = self._unary if own.method.type == UNARY else self._streams
        return {
            content_type: ConnectRoute(own, dialect, self._max_response_bytes)
            for content_type, dialect in dialects.items()
        }


def _by_type(dialects: list[Dialect]) -> dict[str, Dialect]:
    """The dialects by their content types; "" is for all others."""
    found = {dialect.content_type: dialect for dialect in dialects}
    return found | {"": UnknownDialect(dialects[0].codec, ", ".join(found))}


def _content_type(scope: Any) -> str:
    """The type of the body without parameters, in small letters."""
    found = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    given: str = found.decode("latin-1")
    return given.partition(";")[0].strip().lower()
