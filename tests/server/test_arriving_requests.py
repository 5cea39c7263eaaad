import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
from attendant_server.application.arrivals import new_arrivals
from attendant_server.application.arriving_requests import ArrivalLimits, ArrivingRequests
from attendant_server.errors import DeadlineExceeded, QueueFull, Unavailable

from tests.support.serving import TIMEOUT_SECONDS

LONG = 3600.0
AT_ONCE = 0.0


class Sender:
    """Requests of callers that arrive when the test says so."""

    def __init__(self, arriving: ArrivingRequests) -> None:
        self._arriving = arriving
        self._tasks: list[asyncio.Task[str]] = []
        self.begun: list[str] = []
        self.arrivals: list[asyncio.Event] = []

    async def send(self, caller: str) -> tuple[asyncio.Task[str], Callable[[], None]]:
        """Begin a request; returns the task that receives it, and lets it arrive."""
        sent = asyncio.Event()

        async def read() -> str:
            self.begun.append(caller)
            self.arrivals.append(sent)
            await sent.wait()
            return f"of {caller}"

        task = asyncio.ensure_future(self._arriving.receive(caller, read))
        self._tasks.append(task)
        await settled()
        return task, sent.set

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def settled() -> None:
    """Let all tasks run until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def sender(arriving: ArrivingRequests) -> AsyncIterator[Sender]:
    """A sender; in the end, nothing is left in ``arriving``."""
    made = Sender(arriving)
    yield made
    await made.end()
    assert arriving.num_requests == arriving.num_waiting == 0
    assert not arriving._num_of
    assert arriving._ending is None


@pytest.fixture
def refused() -> list[str]:
    return []


@pytest.fixture
def limits(refused: list[str]) -> Callable[..., ArrivingRequests]:
    """Limits for two requests that have all time, and no patience with slow ones."""

    def made(**values: Any) -> ArrivingRequests:
        times = {"patience_seconds": AT_ONCE, "crowded_seconds": LONG - 1, "slow_seconds": LONG - 1}
        defaults = {"max_requests": 2, "max_seconds": LONG, "max_waiting": 8, **times}
        return ArrivingRequests(ArrivalLimits(**{**defaults, **values}), refused.append)

    return made


def test_requests_beyond_the_limit_are_read_when_others_have_arrived(limits):
    async def run() -> None:
        arriving = limits()
        async with sender(arriving) as callers:
            sent = [await callers.send(caller) for caller in "abc"]
            assert callers.begun == ["a", "b"]
            assert (arriving.num_requests, arriving.num_waiting) == (2, 1)
            sent[1][1]()
            assert await sent[1][0] == "of b"
            await settled()
            assert callers.begun == ["a", "b", "c"]
            assert (arriving.num_requests, arriving.num_waiting) == (2, 0)

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))


def test_callers_with_fewer_arriving_requests_are_next_and_equal_ones_take_turns(limits):
    async def run() -> None:
        async with sender(limits()) as callers:
            for caller in "aaaabcb":
                await callers.send(caller)
            for number in range(7):
                callers.arrivals[number].set()
                await settled()
            assert callers.begun == ["a", "a", "b", "a", "c", "b", "a"]

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))


def test_a_request_that_does_not_arrive_in_time_is_given_up(limits, refused):
    async def run() -> None:
        async with sender(limits(max_seconds=0.01)) as callers:
            task, _ = await callers.send("a")
            with pytest.raises(DeadlineExceeded, match=r"did not arrive within 0.01 seconds"):
                await task

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))
    assert not refused


def test_while_others_wait_the_oldest_of_the_caller_with_the_most_is_ended(limits, refused):
    async def run() -> None:
        async with sender(limits(max_requests=3, crowded_seconds=AT_ONCE)) as callers:
            slow, _ = await callers.send("a")
            first, _ = await callers.send("b")
            second, _ = await callers.send("b")
            third, arrive = await callers.send("c")
            with pytest.raises(QueueFull, match=r"requests arrive, at most 3, and others wait"):
                await first
            arrive()
            assert await third == "of c"
            assert not slow.done()
            assert not second.done()

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))
    assert refused == ["memory"]


def test_a_slow_request_of_a_caller_with_its_share_has_the_time_of_slow_ones(limits, refused):
    async def run() -> None:
        arriving = limits(crowded_seconds=AT_ONCE)
        async with sender(arriving) as callers:
            slow = [await callers.send(caller) for caller in "ab"]
            waiting, arrive_next = await callers.send("c")
            assert arriving.num_waiting == 1
            for task, arrive in slow:
                assert not task.done()
                arrive()
                assert (await task).startswith("of ")
            arrive_next()
            assert await waiting == "of c"

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))
    assert not refused


def test_a_slow_request_that_has_had_its_time_is_ended_for_one_that_waits(limits, refused):
    async def run() -> None:
        async with sender(limits(slow_seconds=AT_ONCE)) as callers:
            first, _ = await callers.send("a")
            second, _ = await callers.send("b")
            third, arrive = await callers.send("c")
            with pytest.raises(QueueFull) as refusal:
                await first
            assert refusal.value.retry_after_seconds == 1.0
            arrive()
            assert await third == "of c"
            assert not second.done()

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))
    assert refused == ["memory"]


def test_a_request_that_waits_for_a_moment_ends_no_other(limits, refused):
    async def run() -> None:
        times = {"crowded_seconds": AT_ONCE, "slow_seconds": AT_ONCE}
        arriving = limits(patience_seconds=LONG, **times)
        async with sender(arriving) as callers:
            slow, _ = await callers.send("a")
            _, arrive = await callers.send("a")
            waiting, arrive_next = await callers.send("b")
            arrive()
            arrive_next()
            assert await waiting == "of b"
            assert not slow.done()

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))
    assert not refused


def test_no_request_is_ended_for_a_caller_that_has_more(limits, refused):
    async def run() -> None:
        arriving = limits(max_requests=3, slow_seconds=AT_ONCE)
        async with sender(arriving) as callers:
            slow, _ = await callers.send("a")
            first, _ = await callers.send("b")
            await callers.send("b")
            await callers.send("b")  # waits
            with pytest.raises(QueueFull):
                await first
            assert not slow.done()
            assert callers.begun == ["a", "b", "b", "b"]

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))
    assert refused == ["memory"]


def test_each_waiting_request_gets_the_room_of_one_that_is_ended(limits, refused):
    async def run() -> None:
        arriving = limits(max_requests=4, crowded_seconds=AT_ONCE, patience_seconds=0.01)
        async with sender(arriving) as callers:
            flood = [await callers.send("a") for _ in range(4)]
            others = [await callers.send(caller) for caller in "bc"]
            for task, arrive in others:
                arrive()
                await task
            await settled()
            assert sum(task.done() for task, _ in flood) == 2

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))
    assert refused == ["memory"] * 2


def test_requests_that_have_not_arrived_are_refused_at_the_stop(limits, refused):
    async def run() -> None:
        arriving = limits()
        async with sender(arriving) as callers:
            tasks = [(await callers.send(caller))[0] for caller in "abc"]
            assert (arriving.num_requests, arriving.num_waiting) == (2, 1)
            arriving.refuse_requests()
            tasks.append((await callers.send("d"))[0])
            for task in tasks:
                with pytest.raises(Unavailable, match="the server is stopping"):
                    await task
            assert callers.begun == ["a", "b"]

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))
    assert refused == ["unavailable"] * 4


def test_the_time_of_slow_requests_is_that_of_the_largest_at_a_megabyte_a_second():
    arrivals = new_arrivals(64_000_000, 4_000_000, LONG, lambda reason: None)
    assert arrivals.calls._limits.slow_seconds == 4.0
    small = new_arrivals(64_000_000, 100_000, LONG, lambda reason: None)
    assert small.calls._limits.slow_seconds == small.calls._limits.crowded_seconds == 1.0


def test_a_request_that_waits_for_too_long_may_be_sent_again_later(limits, refused):
    async def run() -> None:
        arriving = limits(max_seconds=0.01)
        async with sender(arriving) as callers:
            for _ in range(2):
                await callers.send("a")
            for request in arriving._arriving:
                request.limit.reschedule(None)
            waiting, _ = await callers.send("b")
            with pytest.raises(QueueFull) as refusal:
                await waiting
            assert refusal.value.retry_after_seconds == 1.0

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))
    assert refused == ["memory"]


def test_the_caller_with_the_most_waiting_requests_makes_room_for_others(limits, refused):
    async def run() -> None:
        async with sender(limits(max_waiting=3)) as callers:
            for _ in range(4):
                await callers.send("a")
            newest, _ = await callers.send("a")
            with pytest.raises(QueueFull, match=r"3 requests wait to be received, at most 3"):
                await (await callers.send("a"))[0]
            other, _ = await callers.send("b")
            with pytest.raises(QueueFull):
                await newest
            assert not other.done()

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))
    assert refused == ["memory", "memory"]


def test_an_error_of_the_transport_is_passed_on(limits):
    async def fail() -> None:
        raise TimeoutError("of the transport")

    async def run() -> None:
        with pytest.raises(TimeoutError, match="of the transport"):
            await limits().receive("a", fail)

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_SECONDS))


def test_a_caller_leaves_streams_to_others(refused):
    arriving = ArrivingRequests(ArrivalLimits(8, LONG), refused.append)
    with ExitStack() as stack:
        for caller in "aaaaaab":
            stack.enter_context(arriving.stream(caller))
        for caller in "ab":
            with pytest.raises(QueueFull) as refusal, arriving.stream(caller):
                pass
            assert refusal.value.retry_after_seconds == 1.0
        stack.enter_context(arriving.stream("c"))
        assert arriving.num_streams == 8
        with pytest.raises(QueueFull), arriving.stream("d"):
            pass
    assert arriving.num_streams == 0
    assert not arriving._streams
    assert refused == ["memory"] * 3
