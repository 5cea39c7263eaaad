"""Limits against floods: each client here breaks one limit, and a call beside it is answered."""

import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import grpc
import pytest
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.translation_pb2 import TranslateRequest
from attendant_server.application.arriving_requests import ArrivingRequests
from attendant_server.grpc.services import health
from grpc_health.v1.health_pb2 import HealthCheckRequest

from tests.support.http2 import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    SETTINGS,
    RawConnection,
    frame,
    setting,
)
from tests.support.serving import TIMEOUT_SECONDS, Running, failure_of, wait_until
from tests.support.unfinished import UnfinishedCalls

TRANSLATE = "/attendant.v1.TranslationService/Translate"
STREAM_TRANSLATE = "/attendant.v1.TranslationService/StreamTranslate"
TOKENIZE = "/attendant.v1.ModelService/Tokenize"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
HEALTH = "/grpc.health.v1.Health/Watch"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
REQUEST = TranslateRequest(texts=["The dog."])
MAX_CONCURRENT_STREAMS = 3
"""The identifier of a setting."""


def assert_answers(running: Running) -> None:
    [answer] = running.translation.Translate(REQUEST, timeout=TIMEOUT_SECONDS).translations
    assert answer.hypotheses


def test_connections_beyond_the_limit_are_closed(start: Callable[..., Running]):
    running = start(max_connections=3)
    assert_answers(running)  # the channel has one of the three
    with ExitStack() as stack:
        open_ones = [stack.enter_context(RawConnection(running.server.port)) for _ in range(2)]
        for connection in open_ones:
            connection.greet()
        with RawConnection(running.server.port) as refused:
            assert refused.is_closed_by_server()
        assert_answers(running)
        wait_until(lambda: running.metric("attendant_connections") == 3)
        open_ones[0].socket.close()
        wait_until(lambda: running.metric("attendant_connections") == 2)
        with RawConnection(running.server.port) as next_one:
            next_one.greet()
    assert running.metric("attendant_max_connections") == 3


def test_a_connection_tells_how_many_streams_it_takes(start: Callable[..., Running]):
    running = start(max_streams_per_connection=2)
    with RawConnection(running.server.port) as connection:
        connection.socket.sendall(PREFACE + frame(SETTINGS))
        content = connection.frames_until(SETTINGS)
        entries = dict(struct.iter_unpack(">HI", content))
        assert entries[MAX_CONCURRENT_STREAMS] == 2
        connection.socket.sendall(frame(SETTINGS, flags=1))
        for stream in (1, 3, 5):
            connection.call(stream, TRANSLATE)
        refused = connection.next_frame()
        while refused[2] != 5:
            refused = connection.next_frame()
        assert_answers(running)


def test_more_callers_than_streams_of_a_connection_wait_their_turn(start: Callable[..., Running]):
    running = start(max_streams_per_connection=4)
    calls = [running.translation.Translate.future(REQUEST, timeout=60) for _ in range(64)]
    assert {call.code() for call in calls} == {grpc.StatusCode.OK}


def test_metadata_beyond_the_limit_is_refused(start: Callable[..., Running]):
    running = start(max_metadata_bytes=4096)
    fits, exceeds = [("x", "y" * 3000)], [("x", "y" * 5000)]
    assert running.translation.Translate(REQUEST, metadata=fits).translations
    for _ in range(10):
        failure = failure_of(running.translation.Translate, REQUEST, metadata=exceeds)
        assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert_answers(running)


@pytest.mark.parametrize("start_of_handshake", [b"", PREFACE])
def test_a_handshake_that_is_not_finished_in_time_ends_its_connection(
    start: Callable[..., Running], start_of_handshake: bytes
):
    running = start(handshake_seconds=0.3)
    with RawConnection(running.server.port) as connection:
        connection.socket.sendall(start_of_handshake)
        assert connection.is_closed_by_server()
    assert_answers(running)


@pytest.mark.parametrize(
    "limit", [{"max_connection_idle_seconds": 0.2}, {"max_connection_age_seconds": 0.2}]
)
def test_an_idle_or_old_connection_is_told_to_go(start: Callable[..., Running], limit: Any):
    running = start(**limit)
    with RawConnection(running.server.port) as connection:
        connection.greet()
        connection.frames_until(GOAWAY)
    assert_answers(running)


def test_a_peer_that_answers_no_ping_is_disconnected(start: Callable[..., Running]):
    running = start(keepalive_seconds=1.0, keepalive_timeout_seconds=0.2)
    with RawConnection(running.server.port) as connection:
        connection.greet()
        connection.call(1, HEALTH)
        assert connection.is_closed_by_server()
    assert_answers(running)


def test_pings_that_come_too_often_end_their_connection(start: Callable[..., Running]):
    running = start(min_ping_seconds=60.0, max_ping_strikes=1)
    with RawConnection(running.server.port) as connection:
        connection.greet()
        for _ in range(4):
            connection.socket.sendall(frame(PING, bytes(8)))
        assert b"too_many_pings" in connection.frames_until(GOAWAY)
        assert connection.is_closed_by_server()
    assert_answers(running)


def status_of(connection: RawConnection, stream: int) -> bytes:
    """The trailers of a call, in HPACK."""
    return connection.frames_until(HEADERS, stream)


def test_answers_that_are_not_read_are_held_within_a_limit(start: Callable[..., Running]):
    max_bytes = 50_000
    running = start(max_held_bytes=max_bytes)
    request = TokenizeRequest(model="tiny-en-de", texts=["The dog sees the king."] * 50)
    size = running.models.Tokenize(request).ByteSize()
    assert size < max_bytes / 5
    with RawConnection(running.server.port) as greedy:
        greedy.greet(setting(INITIAL_WINDOW_SIZE, 0))
        for stream in range(1, 61, 2):
            greedy.call(stream, TOKENIZE)
            greedy.send_message(stream, request.SerializeToString())
        refusal = greedy.frames_until(HEADERS)
        while b"grpc-status\x018" not in refusal:  # 8 is RESOURCE_EXHAUSTED
            refusal = greedy.frames_until(HEADERS)
        wait_until(lambda: running.metric("attendant_concurrent_calls") == 0)
        held = running.metric("attendant_held_bytes")
        assert size <= held <= 0.75 * max_bytes
        assert held == size * running.metric("attendant_unread_answers")
        assert running.metric("attendant_refused_calls_total", reason="memory") > 0
        assert_answers(running)
    wait_until(lambda: running.metric("attendant_held_bytes") == 0)
    wait_until(lambda: running.metric("attendant_unread_answers") == 0)


def test_requests_in_progress_are_held_within_a_limit(start: Callable[..., Running]):
    running = start(max_held_bytes=4000)
    request = TranslateRequest(texts=["The dog sees the king."] * 50)
    with running.held_engine():
        calls = [running.translation.Translate.future(request) for _ in range(4)]
        wait_until(lambda: any(call.done() for call in calls))
        refused = next(call for call in calls if call.done())
        assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.details().startswith("requests and answers of this caller hold ")
        assert dict(refused.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
    wait_until(lambda: running.metric("attendant_held_bytes") == 0)


def test_a_request_that_is_not_read_yet_takes_little_memory(start: Callable[..., Running]):
    """The library gives a stream a window of 64 KiB until its message is read."""
    running = start()
    with RawConnection(running.server.port) as connection:
        connection.socket.sendall(PREFACE + frame(SETTINGS))
        entries = dict(struct.iter_unpack(">HI", connection.frames_until(SETTINGS)))
        assert entries.get(INITIAL_WINDOW_SIZE, 65535) <= 65536


@pytest.mark.parametrize("part", [b"", b"\0\0\x10\0\0half"], ids=["nothing", "a half"])
def test_a_request_that_does_not_arrive_in_time_ends_its_call(
    start: Callable[..., Running], part: bytes
):
    running = start(max_receive_seconds=0.3)
    with RawConnection(running.server.port) as connection:
        connection.greet()
        connection.call(1, TRANSLATE)
        connection.socket.sendall(frame(DATA, part, stream=1))
        assert b"the request did not arrive within 0.3 seconds" in status_of(connection, 1)
        assert_answers(running)
    labels = {"grpc_method": "Translate", "grpc_code": "DEADLINE_EXCEEDED"}
    wait_until(lambda: running.metric("grpc_server_handled_total", **labels) == 1)
    wait_until(lambda: running.metric("attendant_arriving_requests") == 0)


def test_a_call_without_a_message_is_invalid(running: Running):
    with RawConnection(running.server.port) as connection:
        connection.greet()
        connection.call(1, TRANSLATE)
        connection.socket.sendall(frame(DATA, b"", END_STREAM, 1))
        assert b"request: is missing or incomplete" in status_of(connection, 1)
    assert_answers(running)


def test_unfinished_requests_are_held_within_a_limit_and_make_room_for_others(
    start: Callable[..., Running],
):
    running = start(max_held_bytes=1, max_request_bytes=1_000_000)
    max_requests = running.metric("attendant_max_arriving_requests")
    assert max_requests == 16
    num_sent = 0
    with UnfinishedCalls(running.server.port) as connection:
        connection.greet()
        connection.begin(TRANSLATE, 100, bytes(1_000_000))

        def all_are_under_way() -> bool:
            nonlocal num_sent
            num_sent += connection.go_on()
            return running.metric("attendant_arriving_requests") == max_requests

        wait_until(all_are_under_way)
        assert_answers(running)  # one of them must make room

        def some_are_refused() -> bool:
            connection.go_on()
            return b"requests arrive, at most 16, and others wait" in b"".join(
                connection.ends.values()
            )

        wait_until(some_are_refused)
        assert running.metric("attendant_arriving_requests") <= max_requests
        assert running.metric("attendant_refused_calls_total", reason="memory") > 0
    wait_until(lambda: running.metric("attendant_arriving_requests") == 0)
    assert running.metric("attendant_waiting_requests") == 0


def without_end(arriving: ArrivingRequests) -> None:
    """Let no request be ended for others that wait."""
    arriving._limits = replace(arriving._limits, patience_seconds=3600.0)


def test_unfinished_requests_of_the_health_service_delay_no_call(start: Callable[..., Running]):
    running = start(max_held_bytes=1, max_request_bytes=1_000_000)
    arrivals = running.server._arrivals
    without_end(arrivals.calls)
    without_end(arrivals.health)
    with UnfinishedCalls(running.server.port) as connection:
        connection.greet()
        connection.begin(HEALTH_CHECK, 40, bytes(1_000_000))
        wait_until(lambda: running.metric("attendant_waiting_health_requests") == 24)
        assert running.metric("attendant_arriving_health_requests") == 16
        assert running.metric("attendant_arriving_requests") == 0
        assert_answers(running)


def test_a_health_check_beside_unfinished_ones_is_answered(start: Callable[..., Running]):
    running = start()
    with UnfinishedCalls(running.server.port) as connection:
        connection.greet()
        connection.begin(HEALTH_CHECK, 40, bytes(100))
        wait_until(lambda: running.server._arrivals.health.num_waiting == 24)
        assert running.health.Check(HealthCheckRequest(), timeout=TIMEOUT_SECONDS).status
    assert running.metric("attendant_refused_calls_total", reason="memory") > 0


def test_a_request_that_waits_holds_one_window_only(start: Callable[..., Running]):
    running = start(max_held_bytes=1)
    without_end(running.server._arrivals.calls)
    with ExitStack() as stack:
        holding, waiting = (
            stack.enter_context(UnfinishedCalls(running.server.port)) for _ in range(2)
        )
        for connection, num_calls in ((holding, 16), (waiting, 1)):
            connection.greet()
            connection.begin(TRANSLATE, num_calls, bytes(4_000_000))
            wait_until(lambda: running.metric("attendant_arriving_requests") == 16)
        wait_until(lambda: running.metric("attendant_waiting_requests") == 1)
        assert waiting.go_on() <= 65536
        assert waiting.go_on() == 0


def test_streams_of_requests_are_limited_and_those_of_one_caller_further(
    start: Callable[..., Running],
):
    running = start(max_held_bytes=1)
    with RawConnection(running.server.port) as connection:
        connection.greet()
        for stream in range(1, 27, 2):
            connection.call(stream, REFLECTION)
        assert b"this caller has 12 streams of requests, at most 12" in status_of(connection, 25)
        assert running.metric("attendant_request_streams") == 12
        assert running.metric("attendant_refused_calls_total", reason="memory") == 1
    wait_until(lambda: running.metric("attendant_request_streams") == 0)


def test_watchers_of_the_health_are_limited_but_each_connection_may_have_some(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(health, "MAX_WATCHES", 6)
    running = start()
    with (
        RawConnection(running.server.port) as greedy,
        RawConnection(running.server.port) as modest,
    ):
        for connection, num_watches in ((greedy, 6), (modest, 4)):
            connection.greet()
            for stream in range(1, 2 * num_watches, 2):
                connection.call(stream, HEALTH)
                connection.send_message(stream, b"")
                connection.frames_until(DATA, stream)
        for connection, refusal in ((greedy, b"and 6 of"), (modest, b"and 4 of")):
            connection.call(13, HEALTH)
            connection.send_message(13, b"")
            assert b"there are 10 Watch calls, " + refusal in status_of(connection, 13)
    wait_until(lambda: not running.server._health._watches)
