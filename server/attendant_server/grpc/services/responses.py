"""What the answers of all services have in common: deadlines, timings, counts and faults."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc
from attendant.v1 import text_pb2
from google.protobuf import duration_pb2
from google.rpc import code_pb2, status_pb2

from attendant_server import records
from attendant_server.errors import InvalidRequest
from attendant_server.tokenizer import Token

Context = grpc.aio.ServicerContext[Any, Any]
Result = TypeVar("Result")

_TOLD_PHASES = frozenset(text_pb2.Timings.DESCRIPTOR.fields_by_name)


class CallDeadline:
    """Knows when a call must be over, and where its time went."""

    def __init__(
        self, clock: Callable[[], float], context: Context, max_request_seconds: float
    ) -> None:
        remaining: float | None = context.time_remaining()
        self._record = records.current()
        seconds = max_request_seconds if remaining is None else min(remaining, max_request_seconds)
        self.deadline = clock() + seconds

    def timings(self) -> text_pb2.Timings:
        """Where the time went so far; a call that no model had to answer was only tokenized."""
        timings = text_pb2.Timings()
        for phase in self._record.phases():
            if phase.name in _TOLD_PHASES:
                _set(getattr(timings, phase.name), phase.end - phase.start)
        return timings


def fault(error: InvalidRequest) -> status_pb2.Status:
    """The fault of one text among many."""
    return status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=str(error))


def token_message(token: Token) -> text_pb2.Token:
    """One token of a text that the caller sent."""
    return text_pb2.Token(
        id=token.id, text=token.text, start=token.start, end=token.end, special=token.is_special
    )


def good(results: Iterable[Result | InvalidRequest]) -> Iterator[Result]:
    """The texts without a fault, in order."""
    return (result for result in results if not isinstance(result, InvalidRequest))


def _set(duration: duration_pb2.Duration, seconds: float) -> None:
    duration.seconds, duration.nanos = divmod(max(0, round(seconds * 1e9)), 10**9)
