import gzip
import os
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attendant_server.observability.metrics import Metrics
from attendant_server.observability.metrics_server import MetricsLimits, MetricsServer
from prometheus_client import Gauge

from tests.support.credentials import Authority
from tests.support.serving import TIMEOUT_SECONDS, wait_until

MAX_CONNECTIONS = 8
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Serving:
    """A server of metrics, which counts its own connections."""

    def __init__(self, max_seconds: float, tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        self.metrics = Metrics()
        self._server = MetricsServer(
            self.metrics.registry,
            lambda: None,
            MetricsLimits(MAX_CONNECTIONS, max_seconds),
            tls,
            self.metrics.on_metrics_connection,
        )
        self.port = self._server.start("127.0.0.1", 0)
        self.close = self._server.close

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT_SECONDS)

    def answer_to(self, request: bytes) -> bytes:
        with self.connect() as connection:
            connection.sendall(request)
            return rest_of(connection)

    def num_ended(self, result: str) -> float:
        name = "attendant_metrics_connections_total"
        return self.metrics.registry.get_sample_value(name, {"result": result}) or 0.0


def rest_of(connection: socket.socket) -> bytes:
    """All bytes until the server ends the connection."""
    content = bytearray()
    try:
        while part := connection.recv(65536):
            content += part
    except ConnectionResetError:
        pass
    return bytes(content)


@pytest.fixture
def serve() -> Iterator[Callable[..., Serving]]:
    with ExitStack() as stack:

        def serve(max_seconds: float = TIMEOUT_SECONDS, **options: Any) -> Serving:
            serving = Serving(max_seconds, **options)
            stack.callback(lambda: serving.close())
            return serving

        yield serve


def test_a_scrape_gets_in_beside_500_half_open_connections(serve):
    serving = serve()
    num_threads, num_files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(serving.connect()).sendall(b"GET /metrics HTT")
        assert b"process_open_fds" in serving.answer_to(REQUEST)
        assert threading.active_count() == num_threads
        # The client's 500 sockets are files of this process too.
        assert len(os.listdir("/proc/self/fd")) <= num_files + 500 + MAX_CONNECTIONS + 1
        wait_until(lambda: serving.num_ended("too_many") >= 500 - MAX_CONNECTIONS)


def test_a_request_that_is_not_finished_in_time_is_ended(serve):
    serving = serve(max_seconds=0.2)
    with serving.connect() as connection:
        connection.sendall(REQUEST[:-1])
        assert rest_of(connection) == b""
    wait_until(lambda: serving.num_ended("too_slow") == 1)


def test_an_answer_that_is_not_read_in_time_is_ended(serve):
    serving = serve(max_seconds=0.5)
    Gauge("large", "x" * 16_000_000, registry=serving.metrics.registry)  # exceeds the buffers
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", serving.port))
        connection.sendall(REQUEST)
        wait_until(lambda: serving.num_ended("too_slow") == 1)


def test_a_handshake_of_tls_that_is_not_finished_in_time_is_ended(serve, tmp_path: Path):
    authority = Authority(tmp_path)
    files = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    serving = serve(max_seconds=1.0, tls=lambda: context)
    with serving.connect() as silent, serving.connect() as plain:
        plain.sendall(REQUEST)
        trust = ssl.create_default_context(cafile=str(authority.file))
        url = f"https://localhost:{serving.port}/metrics"
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS, context=trust) as response:
            assert b"process_open_fds" in response.read()
        assert rest_of(silent) == b""
    wait_until(lambda: serving.num_ended("too_slow") == serving.num_ended("broken") == 1)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400 Bad Request"),
        (b"PRI * HTTP/2.0\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics\r\n\r\n", b"400 Bad Request"),
        (b"\r\n\r\n", b"400 Bad Request"),
        (b"GET /other HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 5000, b"431 Request Header Fields Too Large"),
        (b"GET /metrics?" + b"a" * 20_000, b"431 Request Header Fields Too Large"),
    ],
)
def test_other_requests_are_refused(serve, request_bytes: bytes, status: bytes):
    serving = serve()
    with serving.connect() as connection:
        connection.sendall(request_bytes)
        # Not `rest_of`: unread bytes of the request make the end of the connection a reset.
        assert connection.recv(4096).startswith(b"HTTP/1.1 " + status + b"\r\n")
    wait_until(lambda: serving.num_ended("bad_request") == 1)


def test_head_gets_the_headers_alone_and_gzip_a_packed_page(serve):
    serving = serve()
    headers = serving.answer_to(REQUEST.replace(b"GET", b"HEAD"))
    assert headers.startswith(b"HTTP/1.1 200 OK\r\n")
    assert headers.endswith(b"\r\n\r\n")
    packed = serving.answer_to(REQUEST[:-2] + b"Accept-Encoding: gzip\r\n\r\n")
    assert b"process_open_fds" in gzip.decompress(packed.partition(b"\r\n\r\n")[2])


def test_a_client_that_goes_is_no_error(serve, caplog: pytest.LogCaptureFixture):
    serving = serve()
    with serving.connect() as connection:
        connection.sendall(b"GET")
    wait_until(lambda: serving.num_ended("broken") == 1)
    assert not caplog.records


def test_connections_that_are_open_do_not_delay_the_end(serve):
    serving = serve()
    with serving.connect() as connection:
        connection.sendall(b"GET")
        serving.close()
        assert rest_of(connection) == b""
        serving.close = lambda: None
