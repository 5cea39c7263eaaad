"""Decodes requests; the innermost interceptor, so that refused calls are not decoded."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf import message

from attendant_server.errors import InvalidRequest
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import (
    AroundInterceptor,
    Behaviour,
    Handler,
    behaviour_of,
    with_behaviour,
)
from attendant_server.records import Method


class DecodingInterceptor(AroundInterceptor):
    """Turns the bytes of requests into messages; raises InvalidRequest for other bytes."""

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """``handler`` as one that takes bytes."""
        decode, behaviour = handler.request_deserializer, behaviour_of(handler)
        if decode is None:
            return handler

        async def decoding(request: Any, context: Context) -> Any:
            if handler.request_streaming:
                return await behaviour(_decoded_all(decode, request), context)
            return await behaviour(_decoded(decode, request), context)

        return with_behaviour(handler, decoding, decodes=False)

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Nothing: `wrap` does all."""
        return await behaviour(request, context)


def _decoded(decode: Callable[[bytes], Any], content: bytes) -> Any:
    try:
        return decode(content)
    except (message.DecodeError, ValueError):  # some deserializers are not protobuf's
        raise InvalidRequest("request", "cannot be decoded") from None


async def _decoded_all(
    decode: Callable[[bytes], Any], contents: AsyncIterator[bytes]
) -> AsyncIterator[Any]:
    async for content in contents:
        yield _decoded(decode, content)
