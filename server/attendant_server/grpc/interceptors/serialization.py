"""Converts requests and answers from and to bytes.

The innermost interceptor: refused calls are not decoded, and the other interceptors know sizes.
"""

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


class SerializationInterceptor(AroundInterceptor):
    """Gives handlers messages and takes messages; raises InvalidRequest for other bytes.

    The responses of a stream are serialized by the library.
    """

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """``handler`` as one that takes bytes, and returns bytes if it is unary."""
        decode = handler.request_deserializer or bytes
        encode = handler.response_serializer or bytes
        behaviour = behaviour_of(handler)

        async def converting(request: Any, context: Context) -> Any:
            decoded = _decoded_all if handler.request_streaming else _decoded
            answer = await behaviour(decoded(decode, request), context)
            return answer if handler.response_streaming else encode(answer)

        return with_behaviour(handler, converting, encodes=bool(handler.response_streaming))

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
