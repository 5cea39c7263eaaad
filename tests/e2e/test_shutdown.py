import json
import signal
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1 import embedding_pb2_grpc, translation_pb2_grpc
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant.v1.translation_pb2 import TranslateRequest
from attendant_server.app import Server, StartError
from attendant_server.bundles import BundleError
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.support.processes import last_line, line_of, port_of, server_process
from tests.support.serving import TIMEOUT_SECONDS, Running, wait_until
from tests.support.unfinished import UnfinishedCalls

REQUEST = TranslateRequest(texts=["The dog sees the king."] * 4)
HEALTH_CHECKED = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
)


def call_until(stopping: threading.Event, port: int, codes: list[grpc.StatusCode]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = translation_pb2_grpc.TranslationServiceStub(channel)
        while not stopping.is_set():
            call = stub.Translate.future(REQUEST, timeout=TIMEOUT_SECONDS)
            codes.append(call.code())


def test_no_call_is_lost_when_a_signal_comes_under_load(bundles: Path):
    with server_process(bundles, "--lame-duck-seconds", "1") as process:
        port = port_of(process)
        codes: list[grpc.StatusCode] = []
        stopping = threading.Event()
        callers = [
            threading.Thread(target=call_until, args=(stopping, port, codes)) for _ in range(4)
        ]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(HealthCheckRequest())
            assert next(watch).status == HealthCheckResponse.SERVING
            for caller in callers:
                caller.start()
            while len(codes) < 20:
                assert not process.poll()
            process.send_signal(signal.SIGTERM)
            assert next(watch).status == HealthCheckResponse.NOT_SERVING
            stopping.set()
            for caller in callers:
                caller.join()
        assert set(codes) == {grpc.StatusCode.OK}
        assert process.wait(TIMEOUT_SECONDS) == 0


def embed_until(ended: threading.Event, port: int, codes: set[grpc.StatusCode]) -> None:
    """Call in a loop over a separate connection, whatever the answers are."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        while not ended.is_set():
            call = stub.Embed.future(EmbedRequest(texts=["The dog sees."]), timeout=TIMEOUT_SECONDS)
            codes.add(call.code())


def test_callers_that_never_pause_are_told_that_the_server_is_unavailable(bundles: Path):
    with server_process(bundles, "--lame-duck-seconds", "0.5") as process:
        port = port_of(process)
        ended = threading.Event()
        codes: list[set[grpc.StatusCode]] = [set() for _ in range(16)]
        callers = [threading.Thread(target=embed_until, args=(ended, port, c)) for c in codes]
        for caller in callers:
            caller.start()
        try:
            while not all(codes):
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_SECONDS) == 0
        finally:
            ended.set()
            for caller in callers:
                caller.join()
        assert set().union(*codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


def test_a_signal_stops_a_server_that_is_still_loading(bundles: Path):
    with server_process(bundles) as process:
        line_of("loading", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_SECONDS) == 0


def test_the_life_of_a_server_can_be_read_in_its_log(bundles: Path):
    with server_process(bundles, "--log-format", "json", "--lame-duck-seconds", "0") as process:
        assert process.stderr is not None
        lines: list[str] = []
        while not lines or '"serving"' not in lines[-1]:
            lines.append(process.stderr.readline())
        address = json.loads(lines[-1])["address"]
        with grpc.insecure_channel(address) as channel:
            stub: Any = translation_pb2_grpc.TranslationServiceStub(channel)
            stub.Translate(REQUEST)
        process.send_signal(signal.SIGTERM)
        entries = [json.loads(line) for line in (*lines, *process.stderr)]
        assert process.stdout is not None
        assert process.stdout.read() == ""
    [call] = [entry for entry in entries if entry["event"] == "call"]
    entries.remove(call)  # it is logged shortly after the call, so before or after "stopping"
    events = ["starting", "settings", "loading", "serving", "stopping", "stopped"]
    assert [e["event"] for e in entries] == events
    assert call["texts"] == 4


def test_a_second_signal_ends_the_server_at_once(bundles: Path):
    with server_process(bundles, "--lame-duck-seconds", "3600") as process:
        port = port_of(process)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(HealthCheckRequest())
            assert next(watch).status == HealthCheckResponse.SERVING
            process.send_signal(signal.SIGTERM)
            assert next(watch).status == HealthCheckResponse.NOT_SERVING
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_SECONDS) == -signal.SIGTERM


def test_a_stopping_server_finishes_calls_in_progress(loop, settings):
    server = Server(settings())
    loop.run(server.__aenter__())
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        running = Running(server, loop, channel)
        with running.held_engine():
            call = running.translation.Translate.future(REQUEST)
            running.wait_for_queued(4)
            stopping = loop.submit(server.stop())
        assert all(translation.hypotheses for translation in call.result().translations)
        stopping.result(TIMEOUT_SECONDS)


def test_connections_are_told_to_go_away_before_the_calls_in_progress_have_finished(loop, settings):
    server = Server(settings(lame_duck_seconds=0.1))
    loop.run(server.__aenter__())
    address = f"127.0.0.1:{server.port}"
    states: list[grpc.ChannelConnectivity] = []
    with (
        grpc.insecure_channel(address) as channel,
        grpc.insecure_channel(address, [("grpc.service_config", HEALTH_CHECKED)]) as watcher,
    ):
        running = Running(server, loop, channel)
        grpc.channel_ready_future(watcher).result(TIMEOUT_SECONDS)
        with running.held_engine():
            call = running.translation.Translate.future(REQUEST)
            running.wait_for_queued(4)
            channel.subscribe(states.append)
            stopping = loop.submit(server.stop())
            # After GOAWAY, the next call connects anew, possibly to another server.
            wait_until(lambda: grpc.ChannelConnectivity.IDLE in states)
            assert not call.done()
            # A Watch that ends early is begun again at once, thousands of times a second.
            assert running.metric("grpc_server_started_total", grpc_method="Watch") == 1
        assert call.code() == grpc.StatusCode.OK
        stopping.result(TIMEOUT_SECONDS)


def test_calls_that_take_longer_than_the_drain_are_unavailable(loop, settings, caplog):
    server = Server(settings(drain_seconds=0.0))
    loop.run(server.__aenter__())
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        running = Running(server, loop, channel)
        with running.held_engine():
            call = running.translation.Translate.future(REQUEST)
            running.wait_for_queued(4)
            stopping = loop.submit(server.stop())
            assert call.code() == grpc.StatusCode.UNAVAILABLE
        stopping.result(TIMEOUT_SECONDS)
    assert "event=drain_expired calls=1" in caplog.messages


def test_a_stop_does_not_wait_for_requests_that_have_not_arrived(loop, settings, caplog):
    """16 requests arrive and 4 wait; none of them ever has its last byte."""
    server = Server(settings(drain_seconds=3600.0, max_receive_seconds=3600.0, max_held_bytes=1))
    loop.run(server.__aenter__())
    with UnfinishedCalls(server.port) as connection:
        connection.greet()
        connection.begin("/attendant.v1.TranslationService/Translate", 20, bytes(100))
        connection.go_on()
        wait_until(lambda: server._arrivals.calls.num_waiting == 4)
        loop.run(server.stop())
        with pytest.raises(EOFError):
            wait_until(lambda: connection.go_on() < 0)
    assert len(connection.ends) == 20
    assert all(b"the server is stopping" in end for end in connection.ends.values())
    assert not [message for message in caplog.messages if "drain_expired" in message]


def test_a_port_that_is_taken_is_said_in_one_line(running: Running, bundles: Path, loop, settings):
    second = Server(settings(port=running.server.port))
    with pytest.raises(StartError, match="cannot listen"):
        loop.run(second.start())
    flags = ["--metrics-port", str(running.server.metrics_port), "--metrics-host", "127.0.0.1"]
    with server_process(bundles, *flags) as process:
        assert process.wait(TIMEOUT_SECONDS) == 1
        assert "event=start_failed cannot listen" in last_line(process)


def test_a_bad_bundle_ends_the_start(tmp_path: Path, settings):
    with pytest.raises(BundleError, match="no bundles"):
        Server(settings(bundles=tmp_path))
    with server_process(tmp_path) as process:
        assert process.wait(TIMEOUT_SECONDS) == 1
        assert "no bundles" in last_line(process)


def test_bad_settings_end_the_start_with_code_two(bundles: Path):
    with server_process(bundles, "--max-texts", "none") as process:
        assert process.wait(TIMEOUT_SECONDS) == 2
        assert last_line(process) == 'max_texts: "none" is not a whole number'
