"""What the services of TEI share: the model of a call, truncation, figures, streams."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar

from attendant_vendored.tei import tei_pb2
from google.protobuf.message import Message

from attendant_server import records, tei_requests
from attendant_server.application.answers import Answer
from attendant_server.application.application import Application
from attendant_server.application.streamed_requests import one_by_one
from attendant_server.call_headers import MODEL, model_name
from attendant_server.errors import AttendantError, InvalidRequest, Unsupported
from attendant_server.grpc.context import Context
from attendant_server.grpc.services.bulk_messages import send

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class TruncatedRequest(Protocol):
    """A request that may ask for truncation."""

    truncate: bool
    truncation_direction: "tei_pb2.TruncationDirection.ValueType"


def chosen_model(context: Context) -> str:
    """The model that the metadata of a call names; "" for the default one."""
    for key, value in context.invocation_metadata() or ():
        if key == MODEL:
            return model_name(value)
    return ""


def truncation(request: TruncatedRequest) -> int:
    """The number of the `Truncation` of a request; raises InvalidRequest."""
    direction = request.truncation_direction
    if direction not in tei_pb2.TruncationDirection.values():
        raise InvalidRequest("truncation_direction", f"has no value {direction}")
    is_left = direction == tei_pb2.TRUNCATION_DIRECTION_LEFT
    return tei_requests.truncation(request.truncate, is_left)


def check_no_prompt(request: Message) -> None:
    """Raise Unsupported for a prompt of a method whose texts have only the model's default one."""
    if request.HasField("prompt_name"):
        raise Unsupported("prompt_name: is supported for Embed only")


def figures(answer: Answer, num_characters: int) -> tei_pb2.Metadata:
    """The figures of a call that has been answered. In the task of the call only."""
    seconds = {name: max(0.0, end - start) for name, start, end in answer.phases}
    total = time.monotonic() - records.current().started
    return tei_pb2.Metadata(
        compute_chars=num_characters,
        compute_tokens=answer.num_input_tokens,
        total_time_ns=round(total * 1e9),
        tokenization_time_ns=round(seconds.get("tokenize", 0) * 1e9),
        queue_time_ns=round(seconds.get("queue", 0) * 1e9),
        inference_time_ns=round(seconds.get("encode", 0) * 1e9),
    )


async def answer_stream(
    application: Application,
    requests: AsyncIterator[Request],
    context: Context,
    answer: Callable[[Request, float | None], Awaitable[Response]],
) -> None:
    """Send the answers to the requests of a stream, in their order.

    As in TEI, the first error ends the stream. Requests wait for room in the queue.
    """
    stream = application.request_streams.begin(
        answer, lambda response: response.ByteSize(), context.time_remaining(), may_wait=True
    )
    max_seconds = application.models.limits.max_request_seconds
    await context.send_initial_metadata(())
    messages = one_by_one(requests, lambda request: request.ByteSize())
    async with aclosing(stream.results(messages)) as results:
        async for result in results:
            if isinstance(result.answer, AttendantError):
                raise result.answer
            await send(context, result.answer, max_seconds)
