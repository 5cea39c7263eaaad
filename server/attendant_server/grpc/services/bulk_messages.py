"""The messages of bulk calls: first one with the settings, then those with texts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from attendant.v1 import embedding_pb2, translation_pb2

from attendant_server.application.bulk_stream import BulkText
from attendant_server.errors import InvalidRequest, Unavailable
from attendant_server.grpc.context import Context

MAX_ID_CHARACTERS = 128
MAX_MESSAGE_TEXTS = 1024
"""Texts of one message. It bounds the work on the event loop for a message of tiny texts."""
Request = embedding_pb2.BulkEmbedRequest | translation_pb2.BulkTranslateRequest


async def bulk_settings(requests: AsyncIterator[Any]) -> Any:
    """The settings in the first message of a call; raises InvalidRequest if it has none."""
    first = await anext(requests, None)
    if first is None or not first.HasField("settings"):
        raise InvalidRequest("settings", "must be in the first message")
    if first.texts:
        raise InvalidRequest("texts", "must be empty in the first message, which has the settings")
    return first.settings


async def bulk_texts(requests: AsyncIterator[Request]) -> AsyncIterator[Sequence[BulkText]]:
    """The texts of each other message; raises InvalidRequest for a message that has none."""
    async for request in requests:
        if request.HasField("settings"):
            raise InvalidRequest("settings", "must be in the first message only")
        if not request.texts:
            raise InvalidRequest("texts", "must be in each message but the first, at least 1")
        if len(request.texts) > MAX_MESSAGE_TEXTS:
            problem = f"at most {MAX_MESSAGE_TEXTS} in a message, got {len(request.texts)}"
            raise InvalidRequest("texts", problem)
        fault = _fault_of_ids(request)
        texts = request.texts if fault is None else request.texts[: fault[0]]
        yield [BulkText(text.id, text.text, text.ByteSize()) for text in texts]
        if fault is not None:
            raise fault[1]


def _fault_of_ids(request: Request) -> tuple[int, InvalidRequest] | None:
    """The number of the first text with a bad id, and its fault."""
    for i, text in enumerate(request.texts):
        if len(text.id) > MAX_ID_CHARACTERS:
            problem = f"at most {MAX_ID_CHARACTERS} characters, got {len(text.id)}"
            return i, InvalidRequest(f"texts[{i}].id", problem)
    return None


async def send(context: Context, response: Any, max_seconds: float) -> None:
    """Send a response; raises Unavailable if the caller does not take it within that time."""
    try:
        async with asyncio.timeout(max_seconds):
            await context.write(response)
    except TimeoutError:
        raise Unavailable(f"no answer was read for {max_seconds:g} seconds") from None
