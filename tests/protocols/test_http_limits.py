"""What the port of HTTP refuses, and what it does with clients that are slow, or that go."""

import json
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import grpc
import pytest
from attendant_server.app import Server

from tests.support.http import HttpClient, raw_connection, received
from tests.support.serving import Running, running_server, wait_until

EMBED = json.dumps({"input": "The old cat."}).encode()
TRANSLATE = json.dumps({"q": "The old cat.", "source": "en", "target": "de"}).encode()
MODEL = "tiny-en-de/1"


def head(path, num_bytes, *lines):
    first = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json"]
    return "\r\n".join([*first, f"content-length: {num_bytes}", *lines, "", ""]).encode()


def request(path, body):
    return head(path, len(body)) + body


@pytest.fixture(scope="module")
def small(loop, settings):
    """A server with small limits."""
    with running_server(
        loop,
        settings(
            max_request_bytes=4096,
            max_metadata_bytes=1024,
            handshake_seconds=0.3,
            max_receive_seconds=0.3,
            max_connection_idle_seconds=0.3,
            max_http_connections=4,
            max_beam_size=2,
            http_protocols=("openai", "libretranslate"),
        ),
    ) as server:
        yield server


@pytest.fixture
def connect(small):
    """Opens raw connections to that server."""
    opened: list[socket.socket] = []

    def connect():
        opened.append(raw_connection(small.server.http_port))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def test_paths_and_verbs_that_there_are_not(small):
    with HttpClient(small.server.http_port) as http:
        assert http.get("/none").status == 404
        answer = http.get("/v1/embeddings")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert http.post("/embed", {"inputs": "a"}).status == 404  # a protocol that is off


def test_a_large_body_is_refused_before_it_is_read(connect):
    connection = connect()
    connection.sendall(head("/v1/embeddings", 4097, "expect: 100-continue"))
    answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body: at most 4096 bytes" in answer
    assert b"connection: close" in answer  # whether the body follows, nobody can tell


def test_a_large_body_without_its_length_is_refused(connect):
    connection = connect()
    chunks = b"".join(b"400\r\n%b\r\n" % bytes(1024) for _ in range(5))
    connection.sendall(
        b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n" + chunks
    )
    assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_the_limit_of_beams_bounds_the_search_for_alternatives(small):
    body = {"q": "The old cat.", "source": "en", "target": "de", "alternatives": 1}
    with HttpClient(small.server.http_port) as http:
        assert len(http.post("/translate", body).json["alternatives"]) == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /v1/models HTTP/1.1\r\na: " + b"b" * 2000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"b" * 2000, b"431"),
        (b"GET /v1/models HTTP/1.1\r\n" + b"a: b\r\n" * 40 + b"\r\n", b"431"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"400"),
    ],
    ids=["header", "target", "many headers", "TLS", "no header"],
)
def test_a_large_or_broken_head_ends_the_connection(connect, sent, status):
    connection = connect()
    connection.sendall(sent)
    assert received(connection).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("sent", [b"", b"GET /v1/mod", b"\r\n"], ids=["none", "a part", "a line"])
def test_a_head_that_does_not_come_ends_the_connection(connect, sent):
    connection = connect()
    connection.sendall(sent)
    assert received(connection) == b""


def test_a_body_that_does_not_come_is_a_deadline(connect):
    connection = connect()
    connection.sendall(head("/v1/embeddings", 100) + b"{")
    assert connection.recv(65536).startswith(b"HTTP/1.1 504 ")


def test_an_idle_connection_is_closed(connect):
    connection = connect()
    connection.sendall(request("/v1/embeddings", EMBED))
    assert received(connection).startswith(b"HTTP/1.1 200 ")


def test_a_flood_of_requests_on_a_connection_ends_it(connect):
    connection = connect()
    flood = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n" * 64
    # At once, because the server reads no further while requests wait.
    connection.sendall(request("/translate", TRANSLATE) + flood)
    assert received(connection) == b""


def test_requests_in_a_row_are_answered_in_their_order(connect):
    connection = connect()
    connection.sendall(
        request("/v1/embeddings", EMBED)
        + b"GET /none HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    )
    answers = received(connection)
    assert answers.index(b"HTTP/1.1 200 ") < answers.index(b"HTTP/1.1 404 ")


CHUNKS = b"%x\r\n%b\r\n0\r\n" % (len(EMBED), EMBED)
UPGRADE = "connection: upgrade, http2-settings\r\nupgrade: h2c"
CHUNKED = head("/v1/embeddings", 0, "transfer-encoding: chunked", UPGRADE).replace(
    b"content-length: 0\r\n", b""
)


@pytest.mark.parametrize(
    "parts",
    [
        [head("/v1/embeddings", len(EMBED), UPGRADE) + EMBED],
        [head("/v1/embeddings", len(EMBED), UPGRADE), EMBED[:5], EMBED[5:]],
        [CHUNKED + CHUNKS + b"\r\n"],
    ],
    ids=["together", "in parts", "in chunks"],
)
def test_an_offer_of_another_protocol_is_ignored(connect, parts):
    connection = connect()
    for part in parts:
        connection.sendall(part)
        time.sleep(0.01)
    connection.sendall(b"GET /none HTTP/1.1\r\nhost: a\r\n\r\n")
    answers = received(connection)
    assert answers.index(b"HTTP/1.1 200 ") < answers.index(b"HTTP/1.1 404 ")


def test_trailers_are_no_headers(connect):
    connection = connect()
    sent = (
        CHUNKED.replace(UPGRADE.encode() + b"\r\n", b"") + CHUNKS + b"x-request-id: forged\r\n\r\n"
    )
    connection.sendall(sent)
    answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"forged" not in answer


def test_a_further_connection_ends_the_one_that_is_idle_for_longest(connect):
    idle = connect()
    idle.sendall(b"GET /none HTTP/1.1\r\nhost: a\r\n\r\n")
    assert idle.recv(65536).startswith(b"HTTP/1.1 404 ")
    others = [connect() for _ in range(4)]
    assert received(idle) == b""
    for other in others:
        other.close()


def test_a_client_that_goes_ends_its_call(running):
    labels = {"model": MODEL, "method": "Translate", "code": "CANCELLED"}
    before = running.metric("attendant_calls_total", **labels)
    with running.held_engine(), raw_connection(running.server.http_port) as connection:
        connection.sendall(request("/translate", TRANSLATE))
        running.wait_for_queued(1)
        connection.close()
        wait_until(lambda: running.metric("attendant_calls_total", **labels) == before + 1)
    wait_until(lambda: running.metric("attendant_concurrent_calls") == 0)
    running.wait_for_queued(0)


def test_calls_count_in_the_metrics_of_the_method_that_does_their_work(running, http):
    labels = {"model": "tiny-bert/1", "method": "Embed", "code": "OK"}
    before = running.metric("attendant_calls_total", **labels)
    answer = http.post("/v1/embeddings", {"input": "the"}, x_request_id="my-id")
    assert (answer.status, answer.headers["x-request-id"]) == (200, "my-id")
    assert running.metric("attendant_calls_total", **labels) == before + 1
    rpc = {"grpc_service": "http.openai", "grpc_method": "CreateEmbedding", "grpc_code": "OK"}
    assert running.metric("grpc_server_handled_total", **rpc) >= 1
    answer = http.post("/embed", {"inputs": "the"}, attendant_class="none")
    assert (answer.status, answer.json["error_type"]) == (413, "validation")


def test_a_busy_server_says_when_to_try_again(start):
    server = start(max_concurrent_calls=1)
    with server.held_engine(), raw_connection(server.server.http_port) as connection:
        connection.sendall(request("/translate", TRANSLATE))
        server.wait_for_queued(1)
        with HttpClient(server.server.http_port) as http:
            answer = http.post("/v1/embeddings", {"input": "the"})
            assert (answer.status, answer.headers["retry-after"]) == (429, "1")
            assert answer.json["error"]["type"] == "rate_limit_error"
            assert http.get("/health").status == 200


def test_a_client_that_does_not_read_loses_its_connection_and_holds_nothing(start):
    server = start(keepalive_timeout_seconds=0.3)
    body = json.dumps({"inputs": ["the old king sees the dog " * 8] * 256}).encode()
    with raw_connection(server.server.http_port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request("/embed_all", body))
        wait_until(lambda: server.metric("attendant_held_bytes") > len(body))
        wait_until(lambda: server.metric("attendant_held_bytes") == 0)
    labels = {"model": "tiny-bert/1", "method": "EmbedTokens", "code": "CANCELLED"}
    wait_until(lambda: server.metric("attendant_calls_total", **labels) == 1)


@pytest.fixture
def stoppable(loop, settings):
    """Starts a server that the test stops."""

    def start(**values):
        server = Server(settings(**values))
        loop.run(server.__aenter__())
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.port}"))
        return Running(server, loop, channel)

    with ExitStack() as stack:
        yield start


def test_a_stop_finishes_the_calls_and_takes_no_more(loop, stoppable):
    server = stoppable(drain_seconds=30.0)
    port = server.server.http_port
    with raw_connection(port) as idle, raw_connection(port) as busy:
        idle.sendall(b"GET /none HTTP/1.1\r\nhost: a\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 404 ")
        with server.held_engine():
            busy.sendall(request("/translate", TRANSLATE))
            server.wait_for_queued(1)
            stopping = loop.submit(server.server.stop())
            assert received(idle) == b""
            with pytest.raises(ConnectionRefusedError):
                raw_connection(port)
        answer = received(busy)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
    stopping.result(60)


def test_a_call_that_a_stop_does_not_wait_for_is_unavailable(loop, stoppable):
    server = stoppable(drain_seconds=0.0)
    with raw_connection(server.server.http_port) as busy:
        with server.held_engine():
            busy.sendall(request("/translate", TRANSLATE))
            server.wait_for_queued(1)
            stopping = loop.submit(server.server.stop())
            assert received(busy).startswith(b"HTTP/1.1 503 ")
        stopping.result(60)


def test_nothing_of_the_extra_is_imported_while_http_is_off():
    names = {"uvicorn", "starlette", "msgspec", "orjson", "httptools"}
    code = f"import sys, attendant_server.app; sys.exit(bool({names} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True)
