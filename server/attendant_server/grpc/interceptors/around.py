"""Base class of interceptors that wrap a coroutine around every call's handler."""

from __future__ import annotations  # some classes of grpc are generic in its stubs only

import inspect
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from attendant_server.grpc.context import Context
from attendant_server.records import Method

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Awaitable[Any]]


class AroundInterceptor(grpc.aio.ServerInterceptor):
    """Runs `around` for every call of a known method. Each instance serves one server."""

    def __init__(self) -> None:
        self._wrapped: dict[str, Handler] = {}
        """Wrapped handlers by method path: only a method's first call asks further interceptors."""

    @abstractmethod
    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Await ``behaviour(request, context)`` and return its result, or refuse the call."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's wrapped handler; None if there is no such method."""
        path = handler_call_details.method
        if path not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[path] = self.wrap(_method(path, handler), handler)
        return self._wrapped[path]

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """``handler`` with its behaviour wrapped in `around`."""
        behaviour = behaviour_of(handler)

        async def surrounded(request: Any, context: Context) -> Any:
            return await self.around(method, behaviour, request, context)

        return with_behaviour(handler, surrounded, decodes=True, encodes=True)


def with_behaviour(
    handler: Handler, behaviour: Behaviour, *, decodes: bool = False, encodes: bool = False
) -> Handler:
    """``handler`` with another behaviour.

    The library converts requests to messages if it ``decodes``, and answers to bytes if it
    ``encodes``; otherwise the behaviour gets and returns bytes.
    """
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[bool(handler.request_streaming), bool(handler.response_streaming)]
    wrapped: Handler = make(
        behaviour,
        request_deserializer=handler.request_deserializer if decodes else None,
        response_serializer=handler.response_serializer if encodes else None,
    )
    return wrapped


def _method(path: str, handler: Handler) -> Method:
    service, _, name = path.removeprefix("/").rpartition("/")
    return Method.of(
        service, name, bool(handler.request_streaming), bool(handler.response_streaming)
    )


def behaviour_of(handler: Handler) -> Behaviour:
    """The handler's function as a coroutine; a generator of responses becomes a writer.

    A coroutine that writes responses is awaiting whenever the call is cancelled, so it always
    receives the cancellation.
    """
    function: Any = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    if not inspect.isasyncgenfunction(function):
        return function  # type: ignore[no-any-return]

    async def write_all(request: Any, context: Context) -> None:
        async with aclosing(function(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return write_all
