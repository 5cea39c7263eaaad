"""What the answers of all services have in common: deadlines, timings, counts and faults."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc
from attendant.v1 import text_pb2
from google.protobuf import duration_pb2
from google.rpc import code_pb2, status_pb2

from attendant_server.engine.calls import CallTimings
from attendant_server.errors import InvalidRequest
from attendant_server.tokenizer import Token

Context = grpc.aio.ServicerContext[Any, Any]
Result = TypeVar("Result")


class Stopwatch:
    """Knows when a call came, when it must be over, and how long its texts took to read."""

    def __init__(
        self, clock: Callable[[], float], context: Context, max_request_seconds: float
    ) -> None:
        remaining: float | None = context.time_remaining()
        self._clock, self._start = clock, clock()
        self._tokenize_seconds = 0.0
        seconds = max_request_seconds if remaining is None else min(remaining, max_request_seconds)
        self.deadline = self._start + seconds

    def texts_are_read(self) -> None:
        """Tokenization has ended."""
        self._tokenize_seconds = self._clock() - self._start

    def timings(self, engine: CallTimings, decodes: bool = False) -> text_pb2.Timings:
        """Where the time went; a call that no model had to answer was only tokenized."""
        timings = text_pb2.Timings()
        _set(timings.tokenize, self._tokenize_seconds)
        if engine.submitted is None or engine.started is None or engine.finished is None:
            return timings
        encoded = engine.encoded if engine.encoded is not None else engine.finished
        _set(timings.queue, engine.started - engine.submitted)
        _set(timings.encode, encoded - engine.started)
        if decodes:
            _set(timings.decode, engine.finished - encoded)
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
