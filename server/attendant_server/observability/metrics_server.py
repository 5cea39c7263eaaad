"""The HTTP server of the metrics. It answers ``GET /metrics`` and closes each connection.

One thread serves all connections, so that unfinished ones cost no threads. Each has a time limit
for everything: TLS handshake, request and answer. One connection more than the limit ends the
oldest one, so that a scraper gets in while others hold connections open.
"""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, make_wsgi_app

from attendant_server.addresses import listening_socket

PATH = "/metrics"
MAX_REQUEST_BYTES = 8192
"""Request line and headers together; Prometheus sends less than 1 kB."""
RETRY_ACCEPT_SECONDS = 0.1
"""Pause after a failure to accept, such as too many open files."""
END = b"\r\n\r\n"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MetricsLimits:
    """Limits of the connections to the metrics."""

    max_connections: int
    max_seconds: float
    """From the acceptance of a connection until its end."""


class BadRequest(Exception):
    """A request that is answered with an error; the argument is the HTTP status."""


class MetricsServer:
    """Serves one registry on one port, from a thread of its own."""

    def __init__(
        self,
        registry: CollectorRegistry,
        catch_up: Callable[[], None],
        limits: MetricsLimits,
        tls: Callable[[], ssl.SSLContext] | None = None,
        on_ended: Callable[[str], None] = lambda result: None,
    ) -> None:
        """``catch_up`` is called before every scrape, ``tls`` for every connection.

        ``on_ended`` receives the result of each connection, one of `RESULTS`.
        """
        self._application = make_wsgi_app(registry)
        self._catch_up, self._limits, self._tls = catch_up, limits, tls
        self._on_ended = on_ended
        self._connections: dict[asyncio.Task[None], socket.socket] = {}
        """The connections, the oldest first."""

    def start(self, host: str, port: int) -> int:
        """Listen and serve; returns the port. Raises OSError."""
        self._listener = listening_socket(host, port)
        self._loop = asyncio.new_event_loop()
        # The default handler logs what it gets, and some of it comes from callers.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._loop.add_reader(self._listener, self._accept)
        self._thread = threading.Thread(target=self._run, name="attendant-metrics", daemon=True)
        self._thread.start()
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """End all connections and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            self._loop.run_until_complete(asyncio.wait(list(self._connections)))
        self._loop.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:  # the client has gone
            return
        except OSError as error:
            logger.debug("event=metrics_not_accepted error=%s", type(error).__name__)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(
                RETRY_ACCEPT_SECONDS, self._loop.add_reader, self._listener, self._accept
            )
            return
        if len(self._connections) >= self._limits.max_connections:
            open_ones = (task for task in self._connections if not task.cancelling())
            if (oldest := next(open_ones, None)) is not None:
                oldest.cancel()
        client.setblocking(False)
        task = self._loop.create_task(self._serve(client))
        self._connections[task] = client
        task.add_done_callback(lambda task: self._connections.pop(task).close())

    async def _serve(self, client: socket.socket) -> None:
        """Answer one connection."""
        result = "broken"
        try:
            async with asyncio.timeout(self._limits.max_seconds):
                result = await self._talk(client)
        except TimeoutError:
            result = "too_slow"
        except asyncio.CancelledError:
            result = "too_many"
        except (OSError, EOFError):
            pass
        except Exception:
            logger.exception("event=metrics_failed")
        self._on_ended(result)

    async def _talk(self, client: socket.socket) -> str:
        # Not `asyncio.start_server`, whose TLS context would be the one of its start.
        reader = asyncio.StreamReader(MAX_REQUEST_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        tls = None if self._tls is None else self._tls()
        transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, client, ssl=tls)
        try:
            writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
            try:
                answer, result = self._page(await reader.readuntil(END)), "answered"
            except asyncio.LimitOverrunError:
                answer, result = _answer("431 Request Header Fields Too Large"), "bad_request"
            except BadRequest as error:
                answer, result = _answer(str(error)), "bad_request"
            transport.set_write_buffer_limits(0)
            writer.write(answer)
            await writer.drain()
            writer.close()
            with suppress(OSError):  # the client has what it wants
                await writer.wait_closed()
            return result
        finally:
            transport.abort()

    def _page(self, request: bytes) -> bytes:
        method, environment = _parsed(request)
        self._catch_up()
        status, headers = "", list[tuple[str, str]]()

        def start_response(given: str, fields: list[tuple[str, str]]) -> None:
            nonlocal status
            status = given
            headers.extend(fields)

        body = b"".join(self._application(environment, start_response))
        return _answer(status, body, headers, has_body=method == "GET")


RESULTS = ("answered", "bad_request", "too_slow", "too_many", "broken")


def _parsed(request: bytes) -> tuple[str, dict[str, str]]:
    """The method and the WSGI environment of a request; raises BadRequest."""
    first, *lines = request.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequest("400 Bad Request")
    path, _, query = target.partition("?")
    if path != PATH:
        raise BadRequest("404 Not Found")
    if method not in ("GET", "HEAD"):
        raise BadRequest("405 Method Not Allowed")
    environment = {"REQUEST_METHOD": "GET", "PATH_INFO": PATH, "QUERY_STRING": query}
    for name, _, value in (line.partition(":") for line in lines):
        if name.lower() in ("accept", "accept-encoding"):
            environment["HTTP_" + name.upper().replace("-", "_")] = value.strip()
    return method, environment


def _answer(
    status: str,
    body: bytes = b"only GET /metrics is served here\n",
    headers: list[tuple[str, str]] | None = None,
    has_body: bool = True,
) -> bytes:
    fields = [
        *(headers or [("Content-Type", "text/plain")]),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    if status.startswith("405"):
        fields.append(("Allow", "GET, HEAD"))
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join(lines).encode("latin-1") + END + (body if has_body else b"")
