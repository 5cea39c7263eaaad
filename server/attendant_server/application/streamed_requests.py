"""Streams of requests, each with options of its own and with its own answer."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from attendant_server.application.admission import CallAdmission
from attendant_server.application.bulk_stream import BulkStream, StreamTime
from attendant_server.application.quotas import current_usage
from attendant_server.application.validation import RequestLimits
from attendant_server.errors import (
    AttendantError,
    DeadlineExceeded,
    QueueFull,
    QuotaExceeded,
    Unavailable,
)

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class StreamedRequest(Generic[Request]):
    """One request of a stream. It counts as one text for the bounds of the stream."""

    request: Request
    num_bytes: int
    """The size of its message."""

    @property
    def num_characters(self) -> int:
        """Characters of its texts, at most."""
        return self.num_bytes


class RequestStreams:
    """Answers streams of requests, several at the same time, in their order."""

    def __init__(self, limits: RequestLimits, admission: CallAdmission) -> None:
        self._limits, self._admission = limits, admission

    def begin(
        self,
        answer: Callable[[Request, float | None], Awaitable[Response]],
        num_bytes: Callable[[Response], int],
        seconds_left: float | None,
        may_wait: bool,
    ) -> BulkStream[StreamedRequest[Request], Response | AttendantError]:
        """A stream of the running task's call.

        ``answer`` gets a request and the seconds until the caller's deadline. An error that it
        raises is the result of its request. ``may_wait``: a request for which the queue has no room
        waits for it. ``seconds_left`` is the time until the caller's deadline, None without one.
        """
        time_limit = StreamTime(seconds_left)

        async def answered(
            number: int, requests: Sequence[StreamedRequest[Request]]
        ) -> Response | AttendantError:
            try:
                return await answer(requests[0].request, time_limit.seconds_left())
            except (DeadlineExceeded, QuotaExceeded):
                raise  # the stream knows whose deadline it is, and when the quota allows more
            except QueueFull as error:
                if not may_wait:
                    return _refused(error)
                # The stream then waits as it does for a quota.
                raise QuotaExceeded(str(error), error.retry_after_seconds) from None
            except Unavailable as error:
                return _refused(error)
            except AttendantError as error:
                return error

        return BulkStream(
            answered,
            lambda found: 0 if isinstance(found, AttendantError) else num_bytes(found),
            self._limits,
            self._admission,
            time_limit,
        )


async def one_by_one(
    requests: AsyncIterator[Request], num_bytes: Callable[[Request], int]
) -> AsyncIterator[Sequence[StreamedRequest[Request]]]:
    """The requests for `BulkStream.results`."""
    async for request in requests:
        yield [StreamedRequest(request, num_bytes(request))]


def _refused(error: AttendantError) -> AttendantError:
    """An error of a request that takes nothing of the quotas."""
    current_usage().give_back()
    return error
