"""Receives and decodes requests; the innermost interceptor, so that refused calls cost neither."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf import message

from attendant_server.errors import DeadlineExceeded, InvalidRequest
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
    """Turns the bytes of requests into messages; raises InvalidRequest for other bytes.

    Raises DeadlineExceeded if a request is not complete in time. Streams have a time limit for the
    whole call only.
    """

    def __init__(self, max_receive_seconds: float) -> None:
        super().__init__()
        self._max_receive_seconds = max_receive_seconds

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """``handler`` as one that takes bytes."""
        decode, behaviour = handler.request_deserializer or bytes, behaviour_of(handler)

        async def decoding(request: Any, context: Context) -> Any:
            if handler.request_streaming:
                return await behaviour(_decoded_all(decode, request), context)
            return await behaviour(_decoded(decode, await self._received(context)), context)

        return with_behaviour(handler, decoding, decodes=False)

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Nothing: `wrap` does all."""
        return await behaviour(request, context)

    async def _received(self, context: Context) -> Any:
        limit = self._max_receive_seconds
        try:
            async with asyncio.timeout(limit):
                content = await context.read()
        except TimeoutError as error:
            raise DeadlineExceeded(f"the request did not arrive within {limit:g} seconds") from (
                error
            )
        if content is grpc.aio.EOF:
            raise InvalidRequest("request", "is missing")
        return content


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
