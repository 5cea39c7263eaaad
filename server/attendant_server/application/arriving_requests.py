"""Bounds the requests that are arriving, of which the transport holds what has come so far.

A request counts while the server reads it. Before, it waits, and the transport keeps only its first
bytes. Requests that are small, or that come whole, wait for a moment only.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from attendant_server.errors import DeadlineExceeded, QueueFull, Unavailable

RETRY_AFTER_SECONDS = 1.0
SHARE_OF_FREE_STREAMS = 0.75
"""The share of one caller of the streams that other callers leave free."""
CROWDED_SECONDS = 1.0
LOOK_SECONDS = 0.25
"""Longest time between two looks at the arriving requests while others wait."""

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True)
class ArrivalLimits:
    """Limits of requests that arrive."""

    max_requests: int
    """Requests that may arrive together."""
    max_seconds: float
    """Time that a request has to wait and to arrive together."""
    max_waiting: int = 1024
    """Requests that may wait until others have arrived."""
    patience_seconds: float = 0.25
    """Time that a request waits before an arriving one may be ended for it."""
    crowded_seconds: float = CROWDED_SECONDS
    """Time that a request has to arrive if its caller has more arriving requests than its share."""
    slow_seconds: float = CROWDED_SECONDS
    """Time that a request has to arrive if its caller has no more than its share."""


class _Request:
    """A request that waits or arrives."""

    def __init__(self, caller: str, limit: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        self.caller, self.limit = caller, limit
        self.room: asyncio.Future[None] = loop.create_future()
        self.since = loop.time()
        """When it began to wait or, once there is room, to arrive."""
        self.fault: QueueFull | Unavailable | None = None
        """Why it was ended before its time."""

    def end(self, fault: Callable[[], QueueFull | Unavailable]) -> None:
        """Let `ArrivingRequests.receive` raise ``fault()``, unless the request ends already."""
        if self.fault is None and not self.limit.expired():
            self.fault = fault()
            self.limit.reschedule(asyncio.get_running_loop().time())


class ArrivingRequests:
    """Lets a number of requests arrive together, those of each caller in turn.

    For the event loop only. Memory of arriving requests is at most ``max_requests`` times the
    largest request, and that of streams of requests as much again.
    """

    def __init__(self, limits: ArrivalLimits, on_refused: Callable[[str], None]) -> None:
        """``on_refused`` receives ``memory`` or ``unavailable`` for each refusal."""
        self._limits, self._on_refused = limits, on_refused
        self._arriving: dict[_Request, None] = {}
        self._num_of: Counter[str] = Counter()
        self._waiting: dict[str, deque[_Request]] = {}
        self._streams: Counter[str] = Counter()
        self._next_look: asyncio.TimerHandle | None = None
        self._ending: _Request | None = None
        self._is_stopping = False

    @property
    def max_requests(self) -> int:
        """Requests that may arrive together, and streams of requests that there may be."""
        return self._limits.max_requests

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

        Raises QueueFull if too many requests arrive, DeadlineExceeded if this one does not arrive
        within ``max_seconds``, and Unavailable after `refuse_requests`.
        """
        if self._is_stopping:
            raise self._unavailable()
        limit = asyncio.timeout(self._limits.max_seconds)
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

    def refuse_requests(self) -> None:
        """Refuse the requests that have not arrived yet, and all later ones, with Unavailable."""
        self._is_stopping = True
        for request in [*self._arriving, *(each for own in self._waiting.values() for each in own)]:
            request.end(self._unavailable)

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
            if self.num_waiting >= self._limits.max_waiting:
                self._make_room_to_wait(request.caller)
            self._waiting.setdefault(request.caller, deque()).append(request)
            self._look()
            await request.room
        else:
            self._begin(request)

    def _begin(self, request: _Request) -> None:
        request.since = asyncio.get_running_loop().time()
        self._arriving[request] = None
        self._num_of[request.caller] += 1

    def _leave(self, request: _Request) -> None:
        if request is self._ending:
            self._ending = None
        if request in self._arriving:
            del self._arriving[request]
            _decrease(self._num_of, request.caller)
        elif request in (waiting := self._waiting.get(request.caller, deque())):
            self._take(request, waiting)
        while self._waiting and len(self._arriving) < self.max_requests:
            self._let_next_begin()
        self._look()

    def _next_caller(self) -> str:
        """The caller whose request is the next one that may begin."""
        return min(self._waiting, key=self._num_of.__getitem__)

    def _let_next_begin(self) -> None:
        caller = self._next_caller()
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
            f"{self.num_waiting} requests wait to be received, at most {self._limits.max_waiting}",
            RETRY_AFTER_SECONDS,
        )
        self._on_refused("memory")
        if len(self._waiting.get(caller, ())) + 1 >= len(self._waiting[most]):
            raise refusal
        newest = self._waiting[most][-1]
        self._take(newest, self._waiting[most])
        if not newest.room.done():
            newest.room.set_exception(refusal)

    def _look(self) -> None:
        """While requests wait, end an arriving one that has had its time, or look again later.

        `_leave` calls this again. So requests are ended one at a time, each for the one that is
        then the next to arrive.
        """
        if not self._waiting or self._next_look is not None or self._ending is not None:
            return
        loop, caller = asyncio.get_running_loop(), self._next_caller()
        now = loop.time()
        ends = {request: self._end_of(request, caller) for request in self._arriving}
        patience_ends = self._waiting[caller][0].since + self._limits.patience_seconds
        due = max(patience_ends, min(ends.values()))
        if due > now:
            self._next_look = loop.call_at(min(due, now + LOOK_SECONDS), self._look_again)
            return
        slow = [request for request, end in ends.items() if end <= now]
        self._ending = max(slow, key=lambda request: self._num_of[request.caller])
        self._ending.end(self._crowded)

    def _look_again(self) -> None:
        self._next_look = None
        self._look()

    def _end_of(self, request: _Request, next_caller: str) -> float:
        """The time on the loop's clock after which a request may be ended for ``next_caller``."""
        own, other = self._num_of[request.caller], self._num_of[next_caller]
        if own < other:
            return math.inf
        has_more = own > other + 1
        seconds = self._limits.crowded_seconds if has_more else self._limits.slow_seconds
        return request.since + seconds

    def _fault(self, request: _Request) -> QueueFull | DeadlineExceeded | Unavailable:
        if request.fault is not None:
            return request.fault
        if request in self._arriving:
            return DeadlineExceeded(
                f"the request did not arrive within {self._limits.max_seconds:g} seconds"
            )
        return self._crowded()

    def _crowded(self) -> QueueFull:
        self._on_refused("memory")
        return QueueFull(
            f"{self.num_requests} requests arrive, at most {self.max_requests}, and others wait",
            RETRY_AFTER_SECONDS,
        )

    def _unavailable(self) -> Unavailable:
        self._on_refused("unavailable")
        return Unavailable("the server is stopping")


def _decrease(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
