"""Tells the tracker of calls when calls of gRPC begin and end, and when they wait for callers."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

from attendant_server import records
from attendant_server.drain import CallTracker
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour
from attendant_server.records import Method


class DrainInterceptor(AroundInterceptor):
    """Tracks every call until its answer has been sent."""

    def __init__(self, tracker: CallTracker) -> None:
        super().__init__()
        self._tracker = tracker

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Track the call until the library has sent its status."""
        call = _Call(context)
        self._tracker.begin(call)
        # The library sends the answer in the task that runs the handler. A callback of the context
        # would keep the call in memory until the next run of the garbage collector.
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: self._tracker.end(call))
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
        self.sending_since: float | None = None

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
