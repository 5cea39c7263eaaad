"""Tracks the calls that a stopping server must wait for: calls with work in progress.

A stop does not wait for calls that wait for their callers: a stream without a further request, such
as idle reflection, a request that does not arrive, or an answer that the caller does not read. It
waits for the texts that a bulk call has read, even though the call waits for further ones.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

from attendant_server import records
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour
from attendant_server.records import Method

STALLED_SECONDS = 5.0
"""A stop does not wait for a response that the caller has not taken for this long."""
POLL_SECONDS = 0.02


class DrainInterceptor(AroundInterceptor):
    """Tracks every call until its answer has been sent."""

    def __init__(self, stalled_seconds: float = STALLED_SECONDS) -> None:
        super().__init__()
        self._stalled_seconds = stalled_seconds
        self._calls: set[_Call] = set()

    async def wait(self, timeout_seconds: float) -> int:
        """Wait at most ``timeout_seconds`` for the calls in progress; returns the number left.

        Does not wait for calls that wait for their callers, nor for calls that begin meanwhile.
        """
        give_up = time.monotonic() + timeout_seconds
        calls = self._calls.copy()
        # Polls, because no event says that a caller has stopped reading.
        while num_left := sum(map(self._works_for, calls & self._calls)):
            if time.monotonic() >= give_up:
                break
            await asyncio.sleep(POLL_SECONDS)
        return num_left

    def _works_for(self, call: "_Call") -> bool:
        if call.sending_since is not None:
            return time.monotonic() - call.sending_since <= self._stalled_seconds
        return not call.is_receiving or call.record.num_unanswered_texts > 0

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Track the call until the library has sent its status."""
        call = _Call(context)
        self._calls.add(call)
        # The library sends the answer in the task that runs the handler. A callback of the context
        # would keep the call in memory until the next run of the garbage collector.
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: self._calls.discard(call))
        if method.type in ("client_stream", "bidi_stream"):
            request = call.receive(request)
        try:
            return await behaviour(request, cast(Context, call))
        finally:
            call.sending_since = time.monotonic()


class _Call:
    """The context of a call, which records when the call waits for its caller."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.record = records.current()
        self.is_receiving = False
        """Whether the call waits for the next request."""
        self.sending_since: float | None = None
        """When the call began to wait for the caller to take a response."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def receive(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The requests of a streaming call."""
        self.is_receiving = True
        try:
            async for request in requests:
                self.is_receiving = False
                yield request
                self.is_receiving = True
        finally:
            self.is_receiving = False

    async def read(self) -> Any:
        """The only request of a unary call."""
        self.is_receiving = True
        try:
            return await self._context.read()
        finally:
            self.is_receiving = False

    async def write(self, message: Any) -> None:
        """Send a response of a streaming call."""
        self.sending_since = time.monotonic()
        try:
            await self._context.write(message)
        finally:
            self.sending_since = None
