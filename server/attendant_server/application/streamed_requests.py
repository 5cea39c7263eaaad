"""Streams of requests, each with options of its own and with its own answer."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from attendant_server import records
from attendant_server.application.admission import CallAdmission
from attendant_server.application.bulk_stream import (
    MAX_UNANSWERED_CHARACTERS,
    MAX_UNANSWERED_TEXTS,
    BulkStream,
    StreamTime,
)
from attendant_server.application.quotas import current_usage
from attendant_server.application.validation import RequestLimits
from attendant_server.errors import (
    AttendantError,
    DeadlineExceeded,
    QueueFull,
    QuotaExceeded,
    Unavailable,
)

CHARACTERS_OF_TEXT = MAX_UNANSWERED_CHARACTERS // MAX_UNANSWERED_TEXTS
"""Least characters that a text counts for. Answers take memory for each text, however short."""

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class StreamedRequest(Generic[Request]):
    """One request of a stream. For the bounds of the stream, it counts as one text.

    It has as many characters as it has bytes, and more if it has many short texts: then the stream
    reads no further request while `MAX_UNANSWERED_TEXTS` texts of all requests are unanswered.
    """

    request: Request
    num_bytes: int
    """The size of its message."""
    num_texts: int = 1

    @property
    def num_characters(self) -> int:
        """Characters of its texts, at most; those of average texts if they are shorter."""
        return max(self.num_bytes, self.num_texts * CHARACTERS_OF_TEXT)


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
                records.current().reason = error.reason  # the whole request has failed
                return error

        return BulkStream(
            answered,
            lambda found: 0 if isinstance(found, AttendantError) else num_bytes(found),
            self._limits,
            self._admission,
            time_limit,
        )


async def one_by_one(
    requests: AsyncIterator[Request],
    num_bytes: Callable[[Request], int],
    num_texts: Callable[[Request], int] = lambda _: 1,
) -> AsyncIterator[Sequence[StreamedRequest[Request]]]:
    """The requests for `BulkStream.results`."""
    async for request in requests:
        yield [StreamedRequest(request, num_bytes(request), num_texts(request))]


def _refused(error: AttendantError) -> AttendantError:
    """An error of a request that takes nothing of the quotas."""
    current_usage().give_back()
    return error
