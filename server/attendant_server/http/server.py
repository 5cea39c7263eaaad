"""The HTTP server: its socket, its connections, their end.

uvicorn's protocol reads and writes HTTP. Its server is not used: it has no limit of connections
that are in their handshake, one certificate forever, and signals and a loop of its own.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from attendant_server.addresses import joined, listening_socket
from attendant_server.http.connection import Connection, ConnectionLimits

BACKLOG = 1024
RETRY_ACCEPT_SECONDS = 0.1
"""Pause after a failure to accept, such as too many open files."""
END_SECONDS, POLL_SECONDS = 1.0, 0.01
"""Time that clients have to read the last answers, and between two looks at it."""
ACCEPT_TOGETHER = 64
"""Connections that are accepted before others are served."""

App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
logger = logging.getLogger(__name__)


class HttpServer:
    """Serves one ASGI application on one port, from the running event loop."""

    def __init__(
        self,
        app: App,
        limits: ConnectionLimits,
        max_connections: int,
        tls: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        """``tls`` is called for every connection, so that each gets the newest certificate."""
        self._limits, self._max_connections, self._tls = limits, max_connections, tls
        self._config = Config(
            self._dated(app),
            http=Connection,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            forwarded_allow_ips="",
            workers=1,
            timeout_keep_alive=int(limits.idle_seconds) or 1,
        )
        self._config.load()
        self._state = ServerState()
        self._connections: set[Connection] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._second = 0

    @property
    def num_connections(self) -> int:
        """Open connections, also those in their handshake."""
        return len(self._connections) + len(self._handshakes)

    def start(self, host: str, port: int) -> tuple[int, str]:
        """Listen and serve; returns the port and the address. Raises OSError."""
        listener = listening_socket(host, port, BACKLOG)
        self._listener, self._loop = listener, asyncio.get_running_loop()
        self._loop.add_reader(listener, self._accept)
        found = int(listener.getsockname()[1])
        return found, joined(host, found)

    def stop_listening(self) -> None:
        """Take no new connections, and no new calls on the open ones: these end their calls."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for task in self._handshakes:
            task.cancel()
        for connection in list(self._connections):
            connection.shutdown()

    async def close(self) -> None:
        """End all connections."""
        self.stop_listening()
        for connection in list(self._connections):
            connection.close()
        give_up = time.monotonic() + END_SECONDS
        while self._connections and time.monotonic() < give_up:
            await asyncio.sleep(POLL_SECONDS)
        for connection in list(self._connections):  # their clients do not read
            connection.abort()

    def _dated(self, app: App) -> App:
        """The application, with the date in its answers."""

        async def dated(scope: Any, receive: Any, send: Any) -> None:
            if (second := int(time.time())) != self._second:
                self._second = second
                date = formatdate(second, usegmt=True).encode()
                # In place, because the answer to this request has the list already.
                self._state.default_headers[:] = [(b"date", date)]
            await app(scope, receive, send)

        return dated

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(ACCEPT_TOGETHER):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.warning("event=http_not_accepted error=%s", type(error).__name__)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(RETRY_ACCEPT_SECONDS, self._accept_again)
                return
            if self.num_connections >= self._max_connections and not self._end_idle():
                client.close()
                continue
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._open(client))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _accept_again(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept)

    def _end_idle(self) -> bool:
        """Close the connection that has been idle for longest; False if there is none."""
        idle = [each for each in self._connections if each.idle_since is not None]
        if not idle:
            return False
        longest = min(idle, key=lambda each: each.idle_since or 0.0)
        self._connections.discard(longest)
        longest.abort()
        return True

    async def _open(self, client: socket.socket) -> None:
        connection: Connection | None = None

        def made() -> Connection:
            nonlocal connection
            connection = Connection(
                self._config, self._state, self._limits, self._connections.discard
            )
            return connection

        tls = None if self._tls is None else self._tls()
        seconds = None if tls is None else self._limits.head_seconds
        try:
            await self._loop.connect_accepted_socket(
                made, client, ssl=tls, ssl_handshake_timeout=seconds
            )
        except (OSError, asyncio.CancelledError):  # the handshake failed, or the server stops
            client.close()
            return
        assert connection is not None
        if not connection.transport.is_closing():
            self._connections.add(connection)
