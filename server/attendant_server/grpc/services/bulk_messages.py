"""The messages of bulk calls: first the settings, then texts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from attendant.v1 import embedding_pb2, translation_pb2

from attendant_server.application.bulk_stream import BulkText
from attendant_server.errors import InvalidRequest, Unavailable
from attendant_server.grpc.context import Context

MAX_ID_CHARACTERS = 128
Request = embedding_pb2.BulkEmbedRequest | translation_pb2.BulkTranslateRequest


async def bulk_settings(requests: AsyncIterator[Any]) -> Any:
    """The settings in the first message of a call; raises InvalidRequest if it has none."""
    first = await anext(requests, None)
    if first is None or first.WhichOneof("content") != "settings":
        raise InvalidRequest("settings", "must be in the first message")
    return first.settings


async def bulk_texts(requests: AsyncIterator[Request]) -> AsyncIterator[BulkText]:
    """The texts in the other messages; raises InvalidRequest for a message that has none."""
    async for request in requests:
        content = request.WhichOneof("content")
        if content == "settings":
            raise InvalidRequest("settings", "must be in the first message only")
        if content is None:
            raise InvalidRequest("text", "must be in each message but the first")
        text = request.text
        if len(text.id) > MAX_ID_CHARACTERS:
            problem = f"at most {MAX_ID_CHARACTERS} characters, got {len(text.id)}"
            raise InvalidRequest("text.id", problem)
        yield BulkText(text.id, text.text, request.ByteSize())


async def send(context: Context, response: Any, max_seconds: float) -> None:
    """Send a response; raises Unavailable if the caller does not take it within that time."""
    try:
        async with asyncio.timeout(max_seconds):
            await context.write(response)
    except TimeoutError:
        raise Unavailable(f"no answer was read for {max_seconds:g} seconds") from None
