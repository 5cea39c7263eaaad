"""The changes of the models that are waiting or in progress. They outlive their callers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attendant_server.errors import QueueFull, Unavailable

MAX_CHANGES = 32
"""Most changes that wait or are in progress."""
RETRY_AFTER_SECONDS = 5.0

Result = TypeVar("Result")


class ModelChanges:
    """Carries out changes, whether their callers wait for them or not. For the event loop only."""

    def __init__(self) -> None:
        self._tasks = set[asyncio.Future[Any]]()

    async def carried_out(
        self, change: Callable[..., Coroutine[Any, Any, Result]], *arguments: str
    ) -> Result:
        """The result of a change, which goes on if the running task is cancelled.

        Raises QueueFull, and Unavailable if the change is given up.
        """
        if len(self._tasks) >= MAX_CHANGES:
            raise QueueFull(f"{MAX_CHANGES} changes of the models are waiting", RETRY_AFTER_SECONDS)
        task = asyncio.ensure_future(change(*arguments))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller and caller.cancelling()):
                raise Unavailable("the engine has died, or the server is stopping") from None
            raise

    def give_up(self) -> None:
        """Cancel all changes."""
        for task in self._tasks:
            task.cancel()

    def _end(self, task: "asyncio.Future[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it was logged, and its caller may have given up
