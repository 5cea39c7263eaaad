"""Long jobs of several callers on the threads of a `JobRunner`."""

import asyncio
import threading
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import Self

import pytest
from attendant_server import records
from attendant_server.application.job_queue import MAX_PAST_CALLERS, SPARING_SECONDS, JobQueue
from attendant_server.application.jobs import MAX_JOB_TOKENS, JobRunner
from attendant_server.engine.calls import Caller
from attendant_server.records import CallRecord, Method

METHOD = Method("attendant.v1.ModelService", "Tokenize", "unary")
FLOOD, QUIET = Caller("flood"), Caller("quiet")


def wait(queue: JobQueue, caller: Caller, num_jobs: int, now: float = 0.0) -> None:
    """Let jobs of a caller wait."""
    for _ in range(num_jobs):
        queue.put(caller, Future(), lambda: None, now)


def begin(queue: JobQueue, now: float = 0.0) -> str:
    """The caller of the next job, which begins; "" if none may."""
    taken = queue.take(now)
    return taken[0].name if taken else ""


def run(queue: JobQueue, seconds: float = 1.0) -> str:
    """The caller of the next job, which has run for ``seconds``."""
    taken = queue.take(0.0)
    assert taken
    queue.end(taken[0], seconds)
    return taken[0].name


def test_a_job_of_a_quiet_caller_comes_after_the_job_that_runs():
    queue = JobQueue(1)
    wait(queue, FLOOD, 100)
    assert begin(queue) == "flood"
    wait(queue, QUIET, 2)
    queue.end(FLOOD, 1.0)
    assert [run(queue), run(queue), run(queue)] == ["quiet", "flood", "quiet"]


@pytest.mark.parametrize("seconds", [0.001, 1.0])
def test_callers_share_the_time_by_their_weights(seconds: float):
    queue = JobQueue(1)
    light, heavy = Caller("light", weight=1.0), Caller("heavy", weight=3.0)
    wait(queue, light, 100)
    wait(queue, heavy, 100)
    callers = [run(queue, seconds) for _ in range(80)]
    assert abs(callers.count("heavy") - 60) <= 1


def test_long_jobs_of_a_caller_count_more_than_short_ones_of_another():
    queue = JobQueue(1)
    wait(queue, FLOOD, 100)
    wait(queue, QUIET, 100)
    callers = []
    for _ in range(66):
        caller, _job, _work = queue.take(0.0)  # type: ignore[misc]
        queue.end(caller, 10.0 if caller is FLOOD else 1.0)
        callers.append(caller.name)
    assert callers.count("flood") == 6


def test_new_callers_that_keep_coming_do_not_starve_a_caller():
    queue = JobQueue(1)
    wait(queue, QUIET, 2)
    callers = []
    for number in range(20):
        wait(queue, Caller(f"new {number}"), 2)
        callers.append(run(queue))
    assert callers.count("quiet") == 2


def test_a_caller_that_leaves_and_returns_gains_nothing():
    queue = JobQueue(1)
    wait(queue, FLOOD, 10)
    callers = []
    for _ in range(10):
        wait(queue, QUIET, 1)
        callers += [run(queue), run(queue)]
    assert callers.count("quiet") == 10


def test_heavy_callers_spare_a_thread_beside_a_light_one_and_for_some_time_after():
    queue = JobQueue(2)
    wait(queue, FLOOD, 100)
    wait(queue, QUIET, 1)
    assert [begin(queue), begin(queue), begin(queue)] == ["flood", "quiet", ""]
    queue.end(QUIET, 1.0)
    assert begin(queue, SPARING_SECONDS / 2) == ""
    assert begin(queue, SPARING_SECONDS) == "flood"


def test_a_caller_alone_and_several_floods_use_all_threads():
    queue = JobQueue(2)
    wait(queue, FLOOD, 100)
    assert [begin(queue), begin(queue)] == ["flood", "flood"]
    wait(queue, Caller("other flood", is_bulk=True), 1)
    queue.end(FLOOD, 1.0)
    assert begin(queue) == "other flood"


def test_a_single_thread_is_not_spared():
    queue = JobQueue(1)
    wait(queue, FLOOD, 100)
    wait(queue, QUIET, 1)
    assert [run(queue), run(queue), run(queue)] == ["flood", "quiet", "flood"]


def test_the_callers_that_are_remembered_are_bounded():
    queue = JobQueue(1)
    wait(queue, FLOOD, 1)
    assert begin(queue) == "flood"
    for number in range(MAX_PAST_CALLERS + 50):
        wait(queue, Caller(str(number), weight=0.0001), 1)
        run(queue)
    assert queue.num_callers == MAX_PAST_CALLERS + 1


def test_nothing_is_remembered_without_jobs():
    queue = JobQueue(1)
    wait(queue, FLOOD, 1)
    wait(queue, QUIET, 1)
    assert queue.num_callers == 2
    run(queue)
    run(queue)
    assert queue.num_callers == 0


class HeldThread:
    """A `JobRunner` with one thread, whose first job lasts until `release`, or the block ends."""

    def __init__(self) -> None:
        self.jobs = JobRunner(1)
        self._is_released = threading.Event()
        self.done: list[str] = []

    async def __aenter__(self) -> Self:
        self.first = asyncio.create_task(self.jobs.run(self._is_released.wait))
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.release()
        self.jobs.close()
        assert await self.first

    def release(self) -> None:
        self._is_released.set()

    async def begin(self, name: str, peer: str) -> asyncio.Task[None]:
        """Let a job wait, for a caller without a name, which is its connection."""

        async def run() -> None:
            records.begin(CallRecord(METHOD, peer=peer))
            await self.jobs.run(lambda: self.done.append(name))

        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        return task


def test_jobs_of_a_connection_do_not_wait_for_those_of_another_one():
    async def check() -> None:
        async with HeldThread() as held:
            flood = [await held.begin("flood", "peer:1") for _ in range(20)]
            quiet = await held.begin("quiet", "peer:2")
            held.release()
            await asyncio.gather(quiet, *flood)
        assert held.done.index("quiet") <= 1

    asyncio.run(check())


def test_other_calls_run_between_the_parts_of_a_long_answer():
    async def check() -> None:
        async with HeldThread() as held:

            async def answer() -> list[int]:
                records.begin(CallRecord(METHOD, peer="peer:1"))
                works = [(MAX_JOB_TOKENS, partial(note, number)) for number in range(4)]
                return await held.jobs.run_all(works)

            def note(number: int) -> int:
                held.done.append(f"part {number}")
                return number

            long = asyncio.create_task(answer())
            await asyncio.sleep(0)
            quiet = await held.begin("quiet", "peer:2")
            held.release()
            await quiet
            assert await long == [0, 1, 2, 3]
        assert held.done.index("quiet") <= 1
        assert [each for each in held.done if each != "quiet"] == [f"part {i}" for i in range(4)]

    asyncio.run(check())


def test_small_works_share_a_job():
    async def check() -> None:
        with closing(JobRunner(1)) as jobs:
            done: list[int] = []
            works = [(1, partial(done.append, number)) for number in range(MAX_JOB_TOKENS + 1)]
            parts = [len(part) async for part in jobs.run_parts(works)]
        assert parts == [MAX_JOB_TOKENS, 1]
        assert done == list(range(MAX_JOB_TOKENS + 1))

    asyncio.run(check())


def test_a_job_whose_call_is_cancelled_never_runs():
    async def check() -> None:
        async with HeldThread() as held:
            cancelled = await held.begin("cancelled", "peer:1")
            other = await held.begin("other", "peer:1")
            cancelled.cancel()
            await asyncio.wait([cancelled])
            held.release()
            await other
        assert held.done == ["other"]

    asyncio.run(check())


def test_jobs_that_wait_at_the_end_are_cancelled():
    async def check() -> None:
        async with HeldThread() as held:
            waiting = await held.begin("waiting", "peer:1")
            held.jobs.close()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
        assert not held.done

    asyncio.run(check())


def test_an_error_of_a_job_is_that_of_its_call_and_the_thread_goes_on():
    class Panic(BaseException):
        pass

    def fail() -> None:
        raise Panic

    async def check() -> None:
        with closing(JobRunner(1)) as jobs:
            with pytest.raises(Panic):
                await jobs.run(fail)
            assert await jobs.run(lambda: 1) == 1

    asyncio.run(check())
