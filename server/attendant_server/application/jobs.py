"""CPU-bound work of calls: short work runs at once, long work off the event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from attendant_server import records
from attendant_server.application.job_queue import JobQueue
from attendant_server.engine.calls import Caller
from attendant_server.system.priorities import lower_priority

MAX_INLINE_TOKENS = 300
"""Tokens of an answer that takes about a millisecond to build."""
MAX_JOB_TOKENS = 3000
"""Long answers are built in several jobs, so that other calls run in between."""
TOKENS_DECODED_FOR_ONE = 8
"""Tokens that are decoded to text in the time in which one is written into an answer."""
CHARACTERS_READ_FOR_ONE = 4
"""Characters whose words are found in the time in which a token is written into an answer."""

Value = TypeVar("Value")


class JobRunner:
    """Runs jobs on threads, whose time callers share fairly (see `JobQueue`)."""

    def __init__(self, num_threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``, in seconds, measures the jobs; all threads call it."""
        # Long work is mostly that of large calls, so the event loop goes first.
        self._pool = ThreadPoolExecutor(
            num_threads, "attendant-tokenizer", initializer=lower_priority
        )
        self._queue = JobQueue(num_threads)
        self._clock = clock

    async def run(self, work: Callable[[], Value]) -> Value:
        """Run long work of the running task's call on a thread.

        Work that still waits when the task is cancelled never runs.
        """
        caller = records.current().engine_caller
        job: Future[Value] = Future()
        self._queue.put(caller, job, work, self._clock())
        job.add_done_callback(partial(self._queue.discard, caller))
        # The thread takes the job that is next by then, which may be another one.
        self._pool.submit(self._run_jobs)
        return await asyncio.wrap_future(job)

    async def run_for(self, num_tokens: int, work: Callable[[], Value]) -> Value:
        """Run work over about ``num_tokens`` tokens or candidates; on a thread if they are many."""
        return work() if num_tokens <= MAX_INLINE_TOKENS else await self.run(work)

    async def run_all(self, works: Iterable[tuple[int, Callable[[], Value]]]) -> list[Value]:
        """Run several works in order, each with its size as in `run_for`, in jobs of their own."""
        return [value async for part in self.run_parts(works) for value in part]

    async def run_parts(
        self, works: Iterable[tuple[int, Callable[[], Value]]]
    ) -> AsyncIterator[list[Value]]:
        """Like `run_all`; yields the values of each job as soon as it has ended."""
        for num_tokens, work in _in_parts(works):
            yield await self.run_for(num_tokens, work)

    def close(self) -> None:
        """Cancel the jobs that wait, and end the threads once their jobs have ended."""
        self._queue.cancel_all()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run_jobs(self) -> None:
        while taken := self._queue.take(self._clock()):
            caller, job, work = taken
            started = self._clock()
            try:
                value = work()
            except BaseException as error:  # such as PanicException of the tokenizers
                self._end(caller, started)
                job.set_exception(error)
            else:
                self._end(caller, started)
                job.set_result(value)

    def _end(self, caller: Caller, started: float) -> None:
        self._queue.end(caller, self._clock() - started)


def _in_parts(
    works: Iterable[tuple[int, Callable[[], Value]]],
) -> Iterator[tuple[int, Callable[[], list[Value]]]]:
    """The works in parts of `MAX_JOB_TOKENS` or more, so that only the last one may be small."""
    part: list[Callable[[], Value]] = []
    size = 0
    for num_tokens, work in works:
        part.append(work)
        size += num_tokens
        if size >= MAX_JOB_TOKENS:
            yield size, partial(_all, part)
            part, size = [], 0
    yield size, partial(_all, part)


def _all(works: Iterable[Callable[[], Value]]) -> list[Value]:
    return [work() for work in works]
