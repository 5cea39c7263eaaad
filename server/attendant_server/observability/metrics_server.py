"""The HTTP server of the metrics. It answers ``/metrics`` only."""

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from attendant_server.addresses import bare_host

PATH = "/metrics"
IDLE_SECONDS = 30.0
"""A connection is closed that sends and takes nothing for this long."""

logger = logging.getLogger(__name__)


class _Server(ThreadingMixIn, WSGIServer):
    """One thread per connection, so that a slow reader does not block others."""

    daemon_threads = True
    tls: Callable[[], ssl.SSLContext] | None = None
    """Returns the newest context; None for no TLS."""

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection. The thread of the connection does the handshake, as it reads."""
        connection, address = super().get_request()
        if self.tls is not None:
            connection = self.tls().wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not print the errors of connections, such as failed handshakes."""
        logger.debug("event=metrics_not_sent", exc_info=True)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = IDLE_SECONDS

    def log_message(self, format: str, *arguments: Any) -> None:
        """Do not log scrapes."""


def serve_metrics(
    registry: CollectorRegistry,
    host: str,
    port: int,
    catch_up: Callable[[], None],
    tls: Callable[[], ssl.SSLContext] | None = None,
) -> tuple[int, Callable[[], None]]:
    """Serve the metrics over HTTP; returns the port and a function that ends the server.

    Raises OSError. ``catch_up`` is called before every scrape, ``tls`` for every connection.
    """
    show = make_wsgi_app(registry)

    def page(environment: Any, start_response: Any) -> Iterable[bytes]:
        if environment["PATH_INFO"] != PATH:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"only /metrics is served here\n"]
        catch_up()
        content: Iterable[bytes] = show(environment, start_response)
        return content

    address = bare_host(host)
    kind = _ServerV6 if ":" in address else _Server
    server = make_server(address, port, page, kind, _Handler)
    server.tls = tls
    thread = threading.Thread(target=server.serve_forever, name="attendant-metrics", daemon=True)
    thread.start()

    def close() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return server.server_port, close
