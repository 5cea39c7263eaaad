"""Closing of clients: it ends the waits between attempts, and all calls fail with one error class.

gRPC raises a different exception for each kind of channel. It cancels awaited calls as if their
task had been cancelled.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from attendant_client.errors import CallCancelledError


class Closing:
    """The closed state of a synchronous client. May be used from several threads."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def close(self) -> None:
        """Note that the client is closed."""
        self._closed.set()

    def is_closed(self) -> bool:
        """Whether the client was closed."""
        return self._closed.is_set()

    def wait(self, seconds: float) -> None:
        """Wait before the next attempt; raise CallCancelledError once the client is closed."""
        if self._closed.wait(seconds):
            raise _client_closed()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn the exceptions of a closed channel into CallCancelledError."""
        try:
            yield
        except ValueError as error:
            if not self.is_closed():
                raise
            raise _client_closed() from error


class AsyncClosing:
    """The closed state of an asyncio client."""

    def __init__(self) -> None:
        self._closed = asyncio.Event()

    def close(self) -> None:
        """Note that the client is closed."""
        self._closed.set()

    def is_closed(self) -> bool:
        """Whether the client was closed."""
        return self._closed.is_set()

    async def wait(self, seconds: float) -> None:
        """Wait before the next attempt; raise CallCancelledError once the client is closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
        raise _client_closed()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn the exceptions of a closed channel, not of a cancelled task, into our error."""
        try:
            yield
        except (grpc.aio.UsageError, asyncio.CancelledError) as error:
            if not self.is_closed() or _is_task_cancelled():
                raise
            raise _client_closed() from error


def _is_task_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _client_closed() -> CallCancelledError:
    return CallCancelledError("the client was closed", grpc.StatusCode.CANCELLED)
