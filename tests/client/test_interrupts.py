"""Ctrl-C during a stream of the synchronous client."""

import random
import signal
import sys
import threading
from typing import Any

import grpc
import pytest
from attendant.v1.translation_pb2 import StreamTranslateRequest
from attendant_client import Client
from attendant_client.receiving import Receiving

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


@pytest.mark.parametrize("method", ["stream_translate", "bulk_translate"])
def test_nothing_of_grpc_runs_in_the_thread_that_reads_a_stream(address, method):
    ran = set()

    def note(frame, event, argument):
        if frame.f_globals["__name__"] == "grpc._channel":
            ran.add(frame.f_code.co_name)

    texts = "a text" if method == "stream_translate" else ["a", "text"]
    with Client(address, **SETTINGS) as client:
        sys.setprofile(note)
        try:
            with getattr(client, method)(texts) as stream:
                next(stream)
        finally:
            sys.setprofile(None)
    assert ran == set()


def test_the_thread_and_the_call_of_a_dropped_stream_end(address):
    with grpc.intercept_channel(grpc.insecure_channel(address), Receiving()) as channel:
        stream: Any = channel.unary_stream(
            "/attendant.v1.TranslationService/StreamTranslate",
            StreamTranslateRequest.SerializeToString,
        )(StreamTranslateRequest(text="a slow text"))
        next(stream)
        [thread] = [each for each in threading.enumerate() if each.name == "attendant-stream"]
        del stream
        thread.join(10)
        assert not thread.is_alive()
