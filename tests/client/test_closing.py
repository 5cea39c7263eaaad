"""Calls in progress when either client is closed."""

import asyncio
import threading

import grpc
import pytest
from attendant_client import AsyncClient, CallCancelledError, RetryPolicy
from attendant_client.closing import AsyncClosing, Closing
from google.rpc import code_pb2

from tests.client.script import Fault

UNAVAILABLE = Fault(code_pb2.UNAVAILABLE)
METHODS = ["translate", "stream_translate"]


class LongWaits(RetryPolicy):
    """Waits for 10 minutes after every failure, and signals the first wait."""

    begun: threading.Event

    def backoff_seconds(self, num_attempts, chance):
        self.begun.set()
        return 600.0


def call(client, method, text):
    result = getattr(client, method)(text)
    return list(result) if method == "stream_translate" else result


def close_at(event, client):
    """Close the client in another thread as soon as `event` is set."""

    def close():
        assert event.wait(30)
        client.close()

    closer = threading.Thread(target=close)
    closer.start()
    return closer


@pytest.mark.parametrize("method", METHODS)
def test_a_call_that_waits_for_its_next_attempt_ends_when_the_client_is_closed(
    connect, script, method
):
    script.faults = [UNAVAILABLE]
    LongWaits.begun = threading.Event()
    client = connect(retry=LongWaits(), timeout_seconds=3600.0)
    closer = close_at(LongWaits.begun, client)
    with pytest.raises(CallCancelledError, match="the client was closed"):
        call(client, method, "a")
    closer.join()
    assert len(script.calls) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_running_call_fails_and_is_not_tried_again_when_the_client_is_closed(
    client, script, method
):
    closer = close_at(script.reached, client)
    with pytest.raises(CallCancelledError):
        call(client, method, "slow")
    closer.join()
    assert len(script.calls) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_call_of_a_closed_client_is_cancelled(client, script, method):
    client.close()
    with pytest.raises(CallCancelledError, match="the client was closed"):
        call(client, method, "a")
    assert not script.calls


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
