"""Calls that a stopping server waits for, with a small service and real clients."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from attendant_server.drain import CallTracker
from attendant_server.grpc.interceptors.drain import DrainInterceptor

from tests.support.serving import LoopThread, wait_until

LARGE = bytes(100_000)
READS_NOTHING_UNASKED = [("grpc.http2.lookahead_bytes", 0), ("grpc.http2.bdp_probe", 0)]
"""Options of a client that leaves messages on the server until it reads them."""


class Service:
    """Answers when the test tells it to."""

    def __init__(self) -> None:
        self.num_begun = 0
        self.may_answer = asyncio.Event()

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.num_begun += 1
        if request == b"wait":
            await self.may_answer.wait()
        return LARGE

    async def stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self.num_begun += 1
        yield LARGE

    async def talk(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
            if request == b"wait":
                await self.may_answer.wait()


class Running:
    """A server with the interceptor, and a channel to it."""

    def __init__(self, loop: LoopThread, drain: CallTracker, channel: Any, service: Service):
        self._loop, self._drain, self._channel, self.service = loop, drain, channel, service

    def unary(self, request: bytes) -> Any:
        return self._channel.unary_unary("/test/Unary").future(request)

    def unread(self, path: str) -> Any:
        """A call whose caller reads nothing, so that its messages stay on the server."""
        return self._channel.unary_stream(path)(b"now")

    def talk(self, *requests: bytes) -> Any:
        """A call whose caller sends these messages and then neither sends nor ends anything."""

        def idle() -> Iterator[bytes]:
            yield from requests
            threading.Event().wait()

        return self._channel.stream_stream("/test/Talk")(idle())

    def wait_for(self, num_begun: int) -> None:
        wait_until(lambda: self.service.num_begun == num_begun)

    def num_left(self, timeout_seconds: float = 0.0) -> int:
        return int(self._loop.run(self._drain.wait(timeout_seconds)))

    def waiting(self) -> Any:
        return self._loop.submit(self._drain.wait(60.0))

    def answer(self) -> None:
        async def set_event() -> None:
            self.service.may_answer.set()

        self._loop.run(set_event())


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@contextmanager
def running(loop: LoopThread, drain: CallTracker, options: Any) -> Iterator[Running]:
    service = Service()

    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(interceptors=[DrainInterceptor(drain)])
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Unary": grpc.unary_unary_rpc_method_handler(service.unary),
            "Stream": grpc.unary_stream_rpc_method_handler(service.stream),
            "Talk": grpc.stream_stream_rpc_method_handler(service.talk),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = loop.run(start())
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield Running(loop, drain, channel, service)
    loop.run(stop(server))


async def stop(server: grpc.aio.Server) -> None:
    await server.stop(None)


@pytest.fixture
def start(loop: LoopThread) -> Iterator[Callable[..., Running]]:
    """Starts a server with a given limit for stalled responses and given client options."""
    with ExitStack() as stack:
        yield lambda stalled_seconds=60.0, options=(): stack.enter_context(
            running(loop, CallTracker(stalled_seconds), options)
        )


def test_a_server_without_calls_waits_for_nothing(start):
    assert start().num_left() == 0


def test_a_call_in_progress_is_waited_for_and_no_longer_than_asked(start):
    server = start()
    call = server.unary(b"wait")
    server.wait_for(1)
    assert server.num_left() == 1
    assert server.num_left(timeout_seconds=0.1) == 1
    waiting = server.waiting()
    server.answer()
    assert waiting.result(60) == 0
    assert call.result() == LARGE


def test_a_call_that_its_caller_cancels_is_no_longer_waited_for(start):
    server = start()
    call = server.unary(b"wait")
    server.wait_for(1)
    call.cancel()
    assert server.waiting().result(60) == 0


def test_a_call_that_begins_meanwhile_is_not_waited_for(start):
    server = start()
    first = server.unary(b"wait")
    server.wait_for(1)
    waiting = server.waiting()
    second = server.unary(b"wait")
    server.wait_for(2)
    first.cancel()
    assert waiting.result(60) == 0
    assert not second.done()


def test_a_stream_whose_caller_sends_nothing_more_is_not_waited_for(start):
    server = start()
    idle, busy = server.talk(b"one", b"two"), server.talk(b"wait")
    assert [next(idle), next(idle), next(busy)] == [b"one", b"two", b"wait"]
    wait_until(lambda: server.num_left() == 1)
    server.answer()
    assert server.waiting().result(60) == 0
    assert idle.is_active()
    assert busy.is_active()


@pytest.mark.parametrize("path", ["/test/Unary", "/test/Stream"])
def test_an_answer_is_waited_for_until_its_caller_has_read_it(start, path):
    server = start(options=READS_NOTHING_UNASKED)
    unread = server.unread(path)
    server.wait_for(1)
    assert server.num_left(timeout_seconds=0.1) == 1
    waiting = server.waiting()
    assert list(unread) == [LARGE]
    assert waiting.result(60) == 0


@pytest.mark.parametrize("path", ["/test/Unary", "/test/Stream"])
def test_an_answer_that_its_caller_does_not_read_is_not_waited_for_for_ever(start, path):
    server = start(stalled_seconds=0.1, options=READS_NOTHING_UNASKED)
    unread = server.unread(path)
    server.wait_for(1)
    assert server.waiting().result(60) == 0
    assert list(unread) == [LARGE]
