"""The admission of calls without a transport."""

import asyncio

import pytest
from attendant_server.application.admission import RETRY_AFTER_SECONDS, CallAdmission
from attendant_server.errors import DeadlineExceeded, QueueFull, Unavailable


class Calls:
    """An admission of one concurrent call, and the reasons of its refusals."""

    def __init__(self, max_request_seconds: float = 60.0) -> None:
        self.refused: list[str] = []
        self.admission = CallAdmission(1, max_request_seconds, self.refused.append)


async def double(number: int) -> int:
    return 2 * number


async def wait_forever() -> None:
    await asyncio.Event().wait()


def test_an_admitted_call_is_answered_and_counted_while_it_runs():
    calls = Calls()

    async def count(number: int) -> int:
        return number + calls.admission.num_calls

    assert asyncio.run(calls.admission.run(count, 20)) == 21
    assert calls.admission.num_calls == 0


def test_one_call_too_many_is_refused_at_once_and_never_begins():
    async def refuse() -> None:
        calls = Calls()
        first = asyncio.create_task(calls.admission.run(wait_forever))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="^1 calls are in progress, at most 1$") as failure:
            await calls.admission.run(wait_forever)
        assert failure.value.retry_after_seconds == RETRY_AFTER_SECONDS
        assert calls.refused == ["concurrency"]
        first.cancel()
        await asyncio.wait([first])
        assert await calls.admission.run(double, 2) == 4

    asyncio.run(refuse())


def test_a_call_that_takes_too_long_ends_with_the_limit_in_its_message():
    calls = Calls(max_request_seconds=0.01)
    with pytest.raises(DeadlineExceeded, match=r"^the call took more than 0\.01 seconds$"):
        asyncio.run(calls.admission.run(wait_forever))
    assert calls.admission.num_calls == 0


def test_a_timeout_of_the_call_itself_is_passed_on():
    async def fail() -> None:
        raise TimeoutError("another limit")

    with pytest.raises(TimeoutError, match="^another limit$"):
        asyncio.run(Calls().admission.run(fail))


def test_a_stopping_server_refuses_calls_once_refusals_are_no_longer_held():
    async def stop() -> None:
        calls = Calls()
        calls.admission.refuse_calls()
        with calls.admission.held_refusals():
            refused = asyncio.create_task(calls.admission.run(double, 2))
            await asyncio.sleep(0)
            assert calls.refused == ["unavailable"]
            assert not refused.done()
        with pytest.raises(Unavailable, match="^the server is stopping$"):
            await refused

    asyncio.run(stop())
