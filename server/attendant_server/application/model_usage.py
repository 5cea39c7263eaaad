"""Counts the calls that use a model, so that a model is unloaded after its last call."""

import asyncio


class ModelUsage:
    """The calls that use one loaded model. For the event loop only."""

    def __init__(self) -> None:
        self._num_calls = 0
        self._is_unused = asyncio.Event()
        self._is_unused.set()

    def begin(self) -> None:
        """Count the call of the running task until the task ends."""
        task = asyncio.current_task()
        assert task is not None
        self._num_calls += 1
        self._is_unused.clear()
        task.add_done_callback(self._end)

    async def wait_until_unused(self) -> None:
        """Wait until no call uses the model."""
        await self._is_unused.wait()

    def _end(self, task: "asyncio.Task[object]") -> None:
        self._num_calls -= 1
        if not self._num_calls:
            self._is_unused.set()
