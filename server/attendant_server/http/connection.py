"""One connection of HTTP: uvicorn's protocol, with limits of the time and size of what arrives.

uvicorn reads no further than 64 KiB of a body that nobody asks for, and writes no further while
the client does not read.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

CONNECTION = "attendant.connection"
"""The key of the `Connection` in the scope of a request."""
MAX_PIPELINED = 16
"""Requests that may wait on a connection for the answers to earlier ones."""
HEADER_BYTES = 32
"""Counted for each header besides its name and value, as HTTP/2 does."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of each connection."""

    head_seconds: float
    """Time for the handshake of TLS, and for the line and the headers of a request."""
    idle_seconds: float
    """Time after which a connection without calls is closed."""
    age_seconds: float
    """Age at which a connection takes no new calls."""
    stalled_seconds: float
    """Time that a client has to take sent bytes."""
    max_head_bytes: int
    """The line and the headers of a request."""
    max_body_bytes: int
    """The body of a request."""


class TooLarge(Exception):
    """The head of a request, or the number of waiting requests, exceeds its limit."""


class Connection(HttpToolsProtocol):
    """A connection, which cancels its call when the client goes."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        limits: ConnectionLimits,
        on_lost: Callable[["Connection"], None],
    ) -> None:
        super().__init__(config, state, {})
        self._limits, self._on_lost = limits, on_lost
        self._opened = time.monotonic()
        self._head_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._is_head = False
        """Whether the head of a request arrives."""
        self._is_restarting = False
        """Whether a new parser reads the head that makes it read the body of an earlier head."""
        self._is_kept_by_body = False
        """Whether the connection stays open if the client sends the body that it announced."""
        self._num_head_bytes = self._num_counted = self._num_dropped_bytes = 0
        self.idle_since: float | None = self._opened
        """When the last call ended; None while there is one."""
        self.call: asyncio.Task[Any] | None = None
        """The task of the call that is answered."""
        self.certificate_names: list[str] = []
        """The names in the certificate of the client."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client has connected, and the handshake of TLS is done."""
        super().connection_made(transport)
        self.certificate_names = _names(transport.get_extra_info("peercert"))
        self._head_timer = self.loop.call_later(self._limits.head_seconds, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._end_timers()
        if self._close_timer is not None:
            self._close_timer.cancel()
        self.pipeline.clear()
        super().connection_lost(exc)
        if self.call is not None:
            self.call.cancel()
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Read bytes of requests."""
        if self.transport.is_closing():
            return
        if self._is_head:
            self._num_head_bytes += len(data)
        self._parse(data)
        if self._is_head and not self.transport.is_closing():
            if self._num_head_bytes > self._limits.max_head_bytes:
                self.send_400_response("")
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(self._limits.head_seconds, self.abort)

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as error:
            # Only HTTP/1.1 is spoken here, so an offer of another protocol is ignored. The parser
            # takes what follows the head for that protocol, so a new parser reads it.
            self._restart(data[error.args[0] :])
        except HttpParserError:
            self.send_400_response("")

    def _restart(self, rest: bytes) -> None:
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        if head := _head_of_body(self.headers):
            self._is_restarting = True
            self.parser.feed_data(head)
            self._is_restarting = False
        if rest:
            self._parse(rest)

    def on_message_begin(self) -> None:
        """A request begins. Raises TooLarge, which ends the connection."""
        if self._is_restarting:
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            raise TooLarge
        self._is_head, self._num_head_bytes, self._num_counted = True, 0, 0
        self._is_kept_by_body = False
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[CONNECTION] = self

    def on_url(self, url: bytes) -> None:
        """A part of the target has come."""
        if self._is_restarting:
            return
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come, or a trailer, which counts but has no effect."""
        if self._is_restarting:
            return
        self._count(len(name) + len(value) + HEADER_BYTES)
        if self._is_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head of a request has come."""
        if self._is_restarting:
            return
        self._is_head, self.idle_since = False, None
        self._end_timers()
        super().on_headers_complete()
        if time.monotonic() - self._opened > self._limits.age_seconds:
            self.cycle.keep_alive = False
        if self.cycle.waiting_for_100_continue and self.cycle.keep_alive:
            # After an answer without its body, nobody could tell whether a body follows.
            self._is_kept_by_body, self.cycle.keep_alive = True, False

    def on_body(self, body: bytes) -> None:
        """A part of a body has come; what nobody reads any more has a limit, too."""
        if self.cycle.response_complete:
            self._num_dropped_bytes += len(body)
            if self._num_dropped_bytes > self._limits.max_body_bytes:
                self.abort()
        else:
            self._end_expectation(self._is_kept_by_body)
            super().on_body(body)

    def _end_expectation(self, is_kept: bool) -> None:
        self._is_kept_by_body = False
        if is_kept:
            self.cycle.keep_alive = True

    def on_message_complete(self) -> None:
        """A request has come, but for the body that an offer of another protocol hides."""
        if not (self.parser.should_upgrade() and _head_of_body(self.headers)):
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer has been written, as far as the client reads it."""
        self._num_dropped_bytes = 0
        if self.transport.is_closing():
            self.close()
        elif not self.pipeline:
            self.idle_since = time.monotonic()
        self._end_timers()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Take no further calls."""
        self._end_expectation(is_kept=False)
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """The connection was idle for too long."""
        self.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no request, or whose head is too large."""
        is_large = self._num_counted > self._limits.max_head_bytes
        is_large |= self._is_head and self._num_head_bytes > self._limits.max_head_bytes
        if self.cycle is not None and not self.cycle.response_complete:
            self.abort()  # an answer would come into the middle of another one
            return
        status = STATUS_LINE[431 if is_large else 400]
        self.transport.write(status + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.close()

    def close(self) -> None:
        """Close once the client has taken what was sent, or does not take it."""
        self.transport.close()
        if self._close_timer is None:
            self._close_timer = self.loop.call_later(self._limits.stalled_seconds, self.abort)

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def _count(self, num_bytes: int) -> None:
        # The bytes of the head that came together with its end are not counted otherwise.
        self._num_counted += num_bytes
        if self._num_counted > self._limits.max_head_bytes:
            raise TooLarge

    def _end_timers(self) -> None:
        super()._unset_keepalive_if_required()
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _unset_keepalive_if_required(self) -> None:
        """Nothing: uvicorn would end the timer of an idle connection at any byte."""


def _head_of_body(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A request with only the headers that say where a body ends; empty if there is none."""
    ends = [each for each in headers if each[0] in (b"content-length", b"transfer-encoding")]
    if not ends or ends == [(b"content-length", b"0")]:
        return b""
    lines = [b"POST / HTTP/1.1", *(name + b": " + value for name, value in ends)]
    return b"\r\n".join([*lines, b"", b""])


def _names(certificate: Any) -> list[str]:
    """The common names and then the alternative names in a certificate of Python's ssl."""
    found = certificate or {}
    subject = [pair for part in found.get("subject", ()) for pair in part]
    names = [value for key, value in subject if key == "commonName"]
    return names + [str(value) for _, value in found.get("subjectAltName", ())]
