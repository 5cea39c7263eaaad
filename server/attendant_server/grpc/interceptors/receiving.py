"""Receives the requests of calls, within the limits of `Arrivals`.

The library reads the request of a unary call before it runs the handler, without a limit of time or
of the memory of all requests. It reads a request of a stream only when the handler asks for it.
"""

from typing import Any

import grpc

from attendant_server import records
from attendant_server.application.arrivals import Arrivals
from attendant_server.errors import InvalidRequest
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour, Handler
from attendant_server.grpc.interceptors.authentication import HEALTH
from attendant_server.records import Method

STREAMS = ("client_stream", "bidi_stream")
"""Types of methods with several requests."""


class UnreadRequestInterceptor(AroundInterceptor):
    """Keeps the library from reading requests; must be the outermost interceptor.

    The interceptors before `ReceivingInterceptor` get an iterator of the library in place of the
    request of a unary call, and must not use it.
    """

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """``handler``, presented as one of a stream of requests."""
        if handler.request_streaming:
            return handler
        streams = bool(handler.response_streaming)
        make: Any = (
            grpc.stream_stream_rpc_method_handler
            if streams
            else grpc.stream_unary_rpc_method_handler
        )
        wrapped: Handler = make(
            handler.unary_stream if streams else handler.unary_unary,
            response_serializer=handler.response_serializer,
        )
        return wrapped

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Nothing: `wrap` does all."""
        return await behaviour(request, context)


class ReceivingInterceptor(AroundInterceptor):
    """Reads the request of a unary call as bytes, and counts streams of requests.

    Must come after the authentication of the caller, so that strangers can send requests to the
    health service only, which needs none and has limits of its own.
    """

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self._arrivals = arrivals

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Receive the request.

        Raises QueueFull, DeadlineExceeded, Unavailable or InvalidRequest.
        """
        caller = records.current().engine_caller.name
        if method.type in STREAMS:
            with self._arrivals.calls.stream(caller):
                return await behaviour(request, context)
        is_health = method.service == HEALTH
        arriving = self._arrivals.health if is_health else self._arrivals.calls
        content = await arriving.receive(caller, context.read)
        if content is grpc.aio.EOF:
            raise InvalidRequest("request", "is missing or incomplete")
        return await behaviour(content, context)
