"""A stop waits only for calls that the server is working on.

The drain limit is an hour, so a stop that waits for an idle caller times out its test.
"""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1 import embedding_pb2, translation_pb2
from attendant_server.app import Server
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.bundles import sentence_pairs
from tests.support.processes import last_line, port_of, server_process
from tests.support.serving import TIMEOUT_SECONDS, Running, wait_until

FLAGS = ("--lame-duck-seconds", "0", "--drain-seconds", "3600")
NUM_UNREAD_TEXTS = 64
HANGING_START = """
import sys, threading
from attendant_server import lifecycle, loading
from attendant_server.__main__ import main

{step} = lambda *_: (print("hangs", flush=True), threading.Event().wait())
sys.exit(main())
"""
READS_NOTHING_UNASKED = [("grpc.http2.lookahead_bytes", 0), ("grpc.http2.bdp_probe", 0)]


def idle(*requests: Any) -> Iterator[Any]:
    """Requests of a caller that afterwards neither sends anything nor ends the call."""
    yield from requests
    threading.Event().wait()


@contextmanager
def serving(bundles: Path, options: Any = ()) -> Iterator[tuple[Any, Callable[[], None]]]:
    """A channel to a server, and a function that stops the server with a signal."""

    def stop() -> None:
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_SECONDS) == 0

    with (
        server_process(bundles, *FLAGS) as process,
        grpc.insecure_channel(f"127.0.0.1:{port_of(process)}", options) as channel,
    ):
        yield channel, stop


def check_health(channel: Any) -> None:
    """Make a call whose answer shows that the server has seen all earlier calls of this channel."""
    channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=TIMEOUT_SECONDS)


def test_an_idle_reflection_stream_does_not_hold_up_a_stop(bundles: Path):
    with serving(bundles) as (channel, stop):
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(idle(request))
        assert next(call).list_services_response.service
        stop()
        assert call.code() == grpc.StatusCode.UNAVAILABLE


def test_watching_the_health_does_not_hold_up_a_stop(bundles: Path):
    with serving(bundles) as (channel, stop):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(HealthCheckRequest())
        assert next(watch).status == HealthCheckResponse.SERVING
        stop()
        assert [answer.status for answer in watch] == [HealthCheckResponse.NOT_SERVING]


@pytest.mark.parametrize("method", ["TranslationService/Translate", "ModelService/ListModels"])
def test_a_call_whose_request_never_comes_does_not_hold_up_a_stop(bundles: Path, method: str):
    with serving(bundles) as (channel, stop):
        check_health(channel)
        call = channel.stream_stream(f"/attendant.v1.{method}")(idle())
        check_health(channel)
        stop()
        assert call.code() == grpc.StatusCode.UNAVAILABLE


def test_a_connection_that_says_nothing_does_not_hold_up_a_stop(bundles: Path):
    with (
        server_process(bundles, *FLAGS) as process,
        socket.create_connection(("127.0.0.1", port_of(process))),
    ):
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_SECONDS) == 0


def unread_stream(channel: Any) -> Any:
    return channel.unary_stream(
        "/attendant.v1.TranslationService/StreamTranslate",
        translation_pb2.StreamTranslateRequest.SerializeToString,
        translation_pb2.StreamTranslateResponse.FromString,
    )(translation_pb2.StreamTranslateRequest(text=sentence_pairs()[0][0]))


def unread_answer(channel: Any) -> Any:
    # Called as a stream, it delivers its answer only when the caller reads.
    texts = [english for english, _ in sentence_pairs()[:NUM_UNREAD_TEXTS]]
    return channel.unary_stream(
        "/attendant.v1.EmbeddingService/EmbedTokens",
        embedding_pb2.EmbedTokensRequest.SerializeToString,
        embedding_pb2.EmbedTokensResponse.FromString,
    )(embedding_pb2.EmbedTokensRequest(texts=texts))


@pytest.mark.parametrize("call", [unread_stream, unread_answer])
def test_an_answer_that_is_not_read_does_not_hold_up_a_stop(bundles: Path, call: Any):
    with serving(bundles, READS_NOTHING_UNASKED) as (channel, stop):
        check_health(channel)
        unread = call(channel)
        check_health(channel)
        stop()
        assert unread.code() == grpc.StatusCode.UNAVAILABLE


def test_an_answer_that_is_read_only_after_the_stop_began_is_whole(loop, settings):
    server = Server(settings())
    loop.run(server.__aenter__())
    address = f"127.0.0.1:{server.port}"
    with grpc.insecure_channel(address, READS_NOTHING_UNASKED) as channel:
        running = Running(server, loop, channel)
        unread = unread_answer(channel)
        wait_until(lambda: running.metric("attendant_calls_total", method="EmbedTokens") == 1)
        stopping = loop.submit(server.stop())
        [answer] = unread
        assert len(answer.results) == NUM_UNREAD_TEXTS
        stopping.result(TIMEOUT_SECONDS)


@pytest.mark.parametrize(
    "step",
    ["lifecycle.read_bundles", "loading.ModelLoader.open_device", "loading.ModelLoader.load"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_that_hangs(bundles: Path, step: str, number: signal.Signals):
    with server_process(bundles, program=("-c", HANGING_START.format(step=step))) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hangs\n"
        process.send_signal(number)
        assert process.wait(TIMEOUT_SECONDS) == 0
        assert "event=stopped" in last_line(process)
