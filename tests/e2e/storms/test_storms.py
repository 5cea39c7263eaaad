"""Many callers at once that cancel, are late, connect or stay half open; a neighbour is served."""

from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest

from tests.support.http2 import (
    CONTINUATION,
    END_HEADERS,
    HEADERS,
    RST_STREAM,
    frame,
    headers_of_call,
    literal,
)
from tests.support.observed import GOOD_REQUEST, ObservedServer, observed_server
from tests.support.serving import TIMEOUT_SECONDS, wait_until

TRANSLATE = "/attendant.v1.TranslationService/Translate"
CANCEL = (8).to_bytes(4)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedServer]:
    with observed_server(tmp_path_factory.mktemp("log")) as server:
        yield server
        log = server.new_log_lines()
        assert "Traceback" not in log
        assert " ERROR " not in log


@pytest.fixture(autouse=True)
def server_comes_to_rest(server: ObservedServer) -> Iterator[None]:
    yield
    assert server.is_serving
    server.wait_for_rest()


def test_streams_that_are_begun_and_reset_do_not_end_calls_of_others(server: ObservedServer):
    block = b"".join(map(literal, headers_of_call(TRANSLATE)))
    flood = b"".join(
        frame(HEADERS, block, END_HEADERS, i) + frame(RST_STREAM, CANCEL, stream=i)
        for i in range(1, 4001, 2)
    )
    for _ in range(3):
        with server.connect() as connection:
            connection.socket.sendall(flood)
            calls = [server.translation.Translate.future(GOOD_REQUEST) for _ in range(16)]
            assert {call.code() for call in calls} == {grpc.StatusCode.OK}


def test_an_endless_header_is_not_kept(server: ObservedServer):
    expected = server.good_answer()
    part = literal(("x", "y" * 10_000))
    with server.connect() as connection:
        before = server.resident_bytes()
        connection.socket.sendall(frame(HEADERS, part, stream=1))
        for _ in range(20_000):  # of 10 kB
            connection.socket.sendall(frame(CONTINUATION, part, stream=1))
        assert server.resident_bytes() - before < 100_000_000
        assert server.good_answer() == expected


def test_a_storm_of_cancellations_changes_no_answer_of_a_neighbour(server: ObservedServer):
    expected = server.good_answer()
    with server.new_channel() as channel:
        method = channel.unary_unary(TRANSLATE)
        content = GOOD_REQUEST.SerializeToString()
        for _ in range(20):
            calls = [method.future(content) for _ in range(100)]
            assert server.good_answer() == expected
            for call in calls:
                call.cancel()


def test_a_storm_of_deadlines_changes_no_answer_of_a_neighbour(server: ObservedServer):
    expected = server.good_answer()
    with server.new_channel() as channel:
        method = channel.unary_unary(TRANSLATE)
        content = GOOD_REQUEST.SerializeToString()
        calls = [method.future(content, timeout=0.001 * (i % 50)) for i in range(1000)]
        assert server.good_answer() == expected
        server.wait_for_rest()
        # The client's library was once seen to lose the end of a call, with the server at rest.
        wait_until(lambda: sum(call.done() for call in calls) >= 990)
        refused = grpc.StatusCode.RESOURCE_EXHAUSTED  # there are at most 512 calls
        assert {call.code() for call in calls if call.done()} <= {
            grpc.StatusCode.OK,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            refused,
        }


def test_a_thousand_connections_leave_room_for_a_neighbour_and_are_closed_again(
    server: ObservedServer,
):
    before = server.num_files()
    with ExitStack() as stack:
        for _ in range(990):
            stack.enter_context(server.connect())
        assert server.good_answer()
    wait_until(lambda: server.num_files() <= before + 4)


def test_calls_without_a_message_do_not_keep_others_waiting(server: ObservedServer):
    with ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(server.connect())
            for stream in range(1, 257, 2):
                connection.call(stream, TRANSLATE)
        answer = server.translation.Translate(GOOD_REQUEST, timeout=TIMEOUT_SECONDS)
        assert answer.translations[0].hypotheses
