"""Callers that disconnect while the server writes: no server error and no traceback."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from attendant_server.application.admission import CallAdmission
from attendant_server.application.held_memory import HeldMemory
from attendant_server.grpc.interceptors.admission import AdmissionInterceptor
from attendant_server.grpc.interceptors.record import RecordInterceptor
from attendant_server.grpc.interceptors.status import StatusInterceptor
from attendant_server.records import CallRecord

from tests.support.serving import LoopThread, wait_until

WINDOW = ("grpc.http2.bdp_probe", 0)
"""Limits the data that a client buffers before it reads to 64 KB."""
PIECE = bytes(20_000)


class Endless:
    """A method that writes pieces until it is stopped, and the ends of its calls."""

    def __init__(self) -> None:
        self.num_pieces = 0
        self.codes: list[str] = []

    async def write(self, _: bytes, context: Any) -> None:
        while True:
            self.num_pieces += 1
            await context.write(PIECE)

    def on_call_started(self, record: CallRecord) -> None:
        """Record that a call has started."""

    def on_part_ended(self, record: CallRecord) -> None:
        raise AssertionError("there are no streams of texts")

    def on_call_ended(self, record: CallRecord) -> None:
        self.codes.append(record.code)


@contextmanager
def unread_call(endless: Endless, admission: CallAdmission) -> Iterator[Any]:
    """A call of a client that reads nothing, with a piece waiting to be sent."""

    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(
            interceptors=[
                RecordInterceptor(endless),
                StatusInterceptor(),
                AdmissionInterceptor(admission, HeldMemory(10**6, 8, print)),
            ]
        )
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Write": grpc.unary_stream_rpc_method_handler(endless.write)
        }
        generic = grpc.method_handlers_generic_handler("attendant.Endless", handlers)
        server.add_generic_rpc_handlers((generic,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    async def stop(server: grpc.aio.Server) -> None:
        await server.stop(None)

    loop = LoopThread()
    server, port = loop.run(start())
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[WINDOW]) as channel:
        write: Any = channel.unary_stream("/attendant.Endless/Write")
        stream = write(b"")
        wait_until(lambda: endless.num_pieces == 4)
        yield stream
        wait_until(lambda: bool(endless.codes))
    loop.run(stop(server))
    loop.close()


def test_a_caller_that_cancels_while_it_is_written_to_is_no_error(
    caplog: pytest.LogCaptureFixture,
):
    endless, admission = Endless(), CallAdmission(4, 60.0, lambda _: None)
    with caplog.at_level(logging.INFO), unread_call(endless, admission) as call:
        call.cancel()
    assert endless.codes == ["CANCELLED"]
    assert not caplog.messages


def test_a_caller_that_goes_before_its_status_is_sent_is_no_error(
    caplog: pytest.LogCaptureFixture,
):
    endless, admission = Endless(), CallAdmission(4, 0.2, lambda _: None)
    with caplog.at_level(logging.INFO), unread_call(endless, admission) as call:
        wait_until(lambda: admission.num_calls == 0)  # the status waits after the piece
        call.cancel()
    assert endless.codes == ["DEADLINE_EXCEEDED"]
    assert not caplog.messages
