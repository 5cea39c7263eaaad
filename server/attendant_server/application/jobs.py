"""CPU-bound work of calls: short work runs at once, long work off the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from attendant_server.system.priorities import lower_priority

MAX_INLINE_TOKENS = 300
"""Tokens of an answer that takes about a millisecond to build."""
TOKENS_DECODED_FOR_ONE = 8
"""Tokens that are decoded to text in the time in which one is written into an answer."""

Value = TypeVar("Value")


def new_pool(num_threads: int) -> ThreadPoolExecutor:
    """Threads for long work. It is mostly that of large calls, so the event loop goes first."""
    return ThreadPoolExecutor(num_threads, "attendant-tokenizer", initializer=lower_priority)


class JobRunner:
    """Runs jobs on the threads of a pool."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool

    async def run(self, work: Callable[[], Value]) -> Value:
        """Run long work on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def run_for(self, num_tokens: int, work: Callable[[], Value]) -> Value:
        """Run work over about ``num_tokens`` tokens or candidates; on a thread if they are many."""
        return work() if num_tokens <= MAX_INLINE_TOKENS else await self.run(work)
