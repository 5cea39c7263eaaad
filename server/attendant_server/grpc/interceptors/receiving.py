"""Lets the other interceptors see a call before its request has arrived.

The library reads the request of a unary call before it runs the handler: without a time limit, and
before the call is counted or refused. Handlers of streamed requests read for themselves.
"""

from typing import Any

import grpc

from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour, Handler
from attendant_server.records import Method


class ReceivingInterceptor(AroundInterceptor):
    """Leaves the reading to `DecodingInterceptor`; must be the outermost interceptor."""

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """``handler`` as one of a streamed request."""
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
