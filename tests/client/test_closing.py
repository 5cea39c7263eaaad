"""What callers of both clients see of calls when the client is closed."""

import asyncio
import threading

import grpc
import pytest
from attendant_client import AsyncClient, CallCancelledError, Client, RetryPolicy
from attendant_client.closing import AsyncClosing, Closing
from google.rpc import code_pb2

from tests.client.scripted_server import Fault

UNAVAILABLE = Fault(code_pb2.UNAVAILABLE)
METHODS = ["translate", "stream_translate"]


class LongWaits(RetryPolicy):
    """Waits for 10 minutes after every failure, and says when the first wait begins."""

    begun: threading.Event

    def backoff_seconds(self, num_attempts, chance):
        self.begun.set()
        return 600.0


@pytest.fixture
def waits(script):
    """Settings of a client whose first call will wait for its next attempt."""
    script.faults = [UNAVAILABLE]
    LongWaits.begun = threading.Event()
    return {"retry": LongWaits(), "timeout_seconds": 3600.0}


def call(client, method, text):
    result = getattr(client, method)(text)
    return list(result) if method == "stream_translate" else result


async def async_call(client, method, text):
    result = getattr(client, method)(text)
    return [piece async for piece in result] if method == "stream_translate" else await result


@pytest.mark.parametrize("method", METHODS)
def test_a_call_that_waits_for_its_next_attempt_ends_when_the_client_is_closed(
    address, script, waits, method
):
    def close_early():
        assert LongWaits.begun.wait(30)
        client.close()

    client = Client(address, **waits)
    closer = threading.Thread(target=close_early)
    closer.start()
    with pytest.raises(CallCancelledError, match="the client was closed"):
        call(client, method, "a")
    closer.join()
    assert len(script.calls) == 1


@pytest.mark.parametrize("method", METHODS)
def test_an_asyncio_call_that_waits_for_its_next_attempt_ends_when_the_client_is_closed(
    address, script, waits, method
):
    async def close_early():
        client = AsyncClient(address, **waits)
        task = asyncio.create_task(async_call(client, method, "a"))
        assert await asyncio.to_thread(LongWaits.begun.wait, 30)
        await client.close()
        with pytest.raises(CallCancelledError, match="the client was closed"):
            await task

    asyncio.run(close_early())
    assert len(script.calls) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_call_of_a_closed_client_is_cancelled(address, script, method):
    client = Client(address)
    client.close()
    with pytest.raises(CallCancelledError, match="the client was closed"):
        call(client, method, "a")
    assert not script.calls


@pytest.mark.parametrize("method", METHODS)
def test_a_call_of_a_closed_asyncio_client_is_cancelled(address, script, method):
    async def call_late():
        client = AsyncClient(address)
        await client.close()
        with pytest.raises(CallCancelledError, match="the client was closed"):
            await async_call(client, method, "a")

    asyncio.run(call_late())
    assert not script.calls


@pytest.mark.parametrize("method", METHODS)
def test_closing_an_asyncio_client_does_not_cancel_the_tasks_that_await_its_calls(
    address, script, method
):
    async def close_early():
        client = AsyncClient(address)
        task = asyncio.create_task(async_call(client, method, "slow"))
        assert await asyncio.to_thread(script.reached.wait, 30)
        await client.close()
        with pytest.raises(CallCancelledError, match="the client was closed"):
            await task

    asyncio.run(close_early())


def test_a_task_that_is_cancelled_stays_cancelled_though_its_client_is_closed_too(address, script):
    async def cancel_and_close():
        client = AsyncClient(address)
        task = asyncio.create_task(client.translate("slow"))
        assert await asyncio.to_thread(script.reached.wait, 30)
        task.cancel()
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_and_close())


def test_other_errors_of_an_open_client_pass_unchanged():
    with pytest.raises(ValueError, match="of another kind"), Closing().guard():
        raise ValueError("of another kind")
    with pytest.raises(grpc.aio.UsageError), AsyncClosing().guard():
        raise grpc.aio.UsageError
