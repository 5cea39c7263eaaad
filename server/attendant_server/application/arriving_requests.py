"""Bounds the requests that are arriving, of which the transport holds what has come so far.

A request counts while the server reads it. Before, it waits, and the transport keeps only its first
bytes. Requests that are small, or that come whole, wait for a moment only.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from attendant_server.errors import DeadlineExceeded, QueueFull

RETRY_AFTER_SECONDS = 1.0
MIN_REQUESTS = 16
"""Requests that may arrive together however little memory there is."""
MAX_WAITING_REQUESTS = 1024
"""Requests that may wait until others have arrived."""
CROWDED_SECONDS = 1.0
"""Time that a request has to arrive while others wait."""
SHARE_OF_FREE_STREAMS = 0.75
"""The share of one caller of the streams that other callers leave free."""

Content = TypeVar("Content")


class _Request:
    """A request that waits or arrives."""

    def __init__(self, caller: str, limit: asyncio.Timeout) -> None:
        self.caller, self.limit = caller, limit
        self.room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started = 0.0
        self.is_in_the_way = False
        """Whether it has less time than others because others wait."""


class ArrivingRequests:
    """Lets a number of requests arrive together, those of each caller in turn.

    For the event loop only. Memory of arriving requests is at most ``max_requests`` times the
    largest request, and that of streams of requests as much again.
    """

    def __init__(
        self,
        max_requests: int,
        max_seconds: float,
        on_refused: Callable[[str], None],
        max_waiting: int = MAX_WAITING_REQUESTS,
        crowded_seconds: float = CROWDED_SECONDS,
    ) -> None:
        """``on_refused`` receives ``memory`` for each refusal."""
        self.max_requests, self._max_waiting = max_requests, max_waiting
        self._max_seconds, self._crowded_seconds = max_seconds, crowded_seconds
        self._on_refused = on_refused
        self._arriving: dict[_Request, None] = {}
        self._num_of: Counter[str] = Counter()
        self._waiting: dict[str, deque[_Request]] = {}
        self._streams: Counter[str] = Counter()

    @property
    def num_requests(self) -> int:
        """Requests that arrive."""
        return len(self._arriving)

    @property
    def num_waiting(self) -> int:
        """Requests that wait until others have arrived."""
        return sum(map(len, self._waiting.values()))

    @property
    def num_streams(self) -> int:
        """Streams of requests."""
        return self._streams.total()

    async def receive(self, caller: str, read: Callable[[], Awaitable[Content]]) -> Content:
        """Await ``read()``, once there is room for the request, and return what it returns.

        Raises QueueFull if too many requests arrive, and DeadlineExceeded if this one does not
        arrive within ``max_seconds``.
        """
        limit = asyncio.timeout(self._max_seconds)
        request = _Request(caller, limit)
        try:
            async with limit:
                await self._wait_for_room(request)
                return await read()
        except TimeoutError as error:
            if not limit.expired():
                raise  # raised by `read`
            raise self._fault(request) from error
        finally:
            self._leave(request)

    @contextmanager
    def stream(self, caller: str) -> Iterator[None]:
        """Count a stream of requests until the end of the block. Raises QueueFull.

        The transport may hold a request of a stream at any time, so each counts as a large one.
        """
        own = self._streams[caller]
        limit = max(1, int(SHARE_OF_FREE_STREAMS * (self.max_requests - self.num_streams + own)))
        if own >= limit or self.num_streams >= self.max_requests:
            self._on_refused("memory")
            raise QueueFull(
                f"this caller has {own} streams of requests, at most {limit}: three quarters of "
                f"those that other callers leave free, of {self.max_requests}",
                RETRY_AFTER_SECONDS,
            )
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            if not self._streams[caller]:
                del self._streams[caller]

    async def _wait_for_room(self, request: _Request) -> None:
        if len(self._arriving) >= self.max_requests:
            if self.num_waiting >= self._max_waiting:
                self._make_room_to_wait(request.caller)
            self._waiting.setdefault(request.caller, deque()).append(request)
            self._hurry()
            await request.room
        else:
            self._begin(request)

    def _begin(self, request: _Request) -> None:
        request.started = asyncio.get_running_loop().time()
        self._arriving[request] = None
        self._num_of[request.caller] += 1

    def _leave(self, request: _Request) -> None:
        if request in self._arriving:
            del self._arriving[request]
            _decrease(self._num_of, request.caller)
        elif request in (waiting := self._waiting.get(request.caller, deque())):
            self._take(request, waiting)
        while self._waiting and len(self._arriving) < self.max_requests:
            self._let_next_begin()
        self._hurry()

    def _let_next_begin(self) -> None:
        caller = min(self._waiting, key=self._num_of.__getitem__)
        waiting = self._waiting.pop(caller)
        request = waiting.popleft()
        if waiting:
            self._waiting[caller] = waiting  # after the other callers
        if not request.room.done():  # otherwise its call has just ended
            request.room.set_result(None)
            self._begin(request)

    def _take(self, request: _Request, waiting: deque[_Request]) -> None:
        waiting.remove(request)
        if not waiting:
            del self._waiting[request.caller]

    def _make_room_to_wait(self, caller: str) -> None:
        """Refuse the newest waiting request of the caller with the most.

        Raises QueueFull if ``caller`` would then have the most.
        """
        most = max(self._waiting, key=lambda caller: len(self._waiting[caller]))
        refusal = QueueFull(
            f"{self.num_waiting} requests wait to be received, at most {self._max_waiting}",
            RETRY_AFTER_SECONDS,
        )
        self._on_refused("memory")
        if len(self._waiting.get(caller, ())) + 1 >= len(self._waiting[most]):
            raise refusal
        newest = self._waiting[most][-1]
        self._take(newest, self._waiting[most])
        if not newest.room.done():
            newest.room.set_exception(refusal)

    def _hurry(self) -> None:
        """While requests wait, shorten the time of one: the oldest of the caller with the most."""
        if not self._waiting or any(request.is_in_the_way for request in self._arriving):
            return
        oldest = max(self._arriving, key=lambda request: self._num_of[request.caller])
        ends = oldest.started + self._crowded_seconds
        if not oldest.limit.expired() and ends < (oldest.limit.when() or 0.0):
            oldest.is_in_the_way = True
            oldest.limit.reschedule(ends)

    def _fault(self, request: _Request) -> QueueFull | DeadlineExceeded:
        if request in self._arriving and not request.is_in_the_way:
            return DeadlineExceeded(
                f"the request did not arrive within {self._max_seconds:g} seconds"
            )
        self._on_refused("memory")
        return QueueFull(
            f"{self.num_requests} requests arrive, at most {self.max_requests}, and others wait",
            RETRY_AFTER_SECONDS,
        )


def _decrease(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
