"""Ctrl-C during a stream of the synchronous client."""

import random
import signal
import threading

import pytest
from attendant_client import Client

from tests.client.conftest import SETTINGS

NUM_INTERRUPTS = 300


def interrupt_soon(chance: random.Random) -> None:
    """Interrupt the main thread about when it asks for the next piece."""
    main = threading.main_thread().ident
    assert main is not None
    seconds = chance.choice([0.0, chance.uniform(0.0, 0.0005)])
    threading.Timer(seconds, signal.pthread_kill, (main, signal.SIGINT)).start()


def interrupted_stream(client: Client, chance: random.Random) -> None:
    with client.stream_translate("a slow text") as stream:
        assert next(stream) == "A "
        interrupt_soon(chance)
        list(stream)


def test_a_client_answers_further_streams_after_interrupts_at_any_moment(address):
    chance = random.Random(1)
    with Client(address, **SETTINGS) as client:
        for _ in range(NUM_INTERRUPTS):
            with pytest.raises(KeyboardInterrupt):
                interrupted_stream(client, chance)
        with client.stream_translate("a text") as stream:
            assert list(stream) == ["A ", "TEXT"]


def test_the_threads_of_streams_end(client):
    before = {thread.name for thread in threading.enumerate()}
    with client.stream_translate("a slow text") as stream:
        next(stream)
    list(client.stream_translate("a text"))
    list(client.bulk_translate(["a text"]))
    for thread in threading.enumerate():
        if thread.name == "attendant-stream":
            thread.join(10)
            assert not thread.is_alive()
    assert "attendant-stream" not in before
