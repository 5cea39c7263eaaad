"""Ways to send bad bytes, frames and headers on a raw connection."""

import struct
from collections.abc import Iterable
from contextlib import suppress

import grpc

from tests.e2e.bad_inputs.table import MARKER, TRANSLATE, Outcome, Send, field
from tests.support.http2 import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    RawConnection,
    frame,
    header_frames,
    headers_of_call,
    literal,
    setting,
)
from tests.support.observed import ObservedServer

NO_TABLE = setting(1, 0)
"""Without a table of headers, the headers of answers are literals."""
PROBE = b"are you?"
TEXTS = field(2, MARKER.encode())
"""A request, without the prefix of a message."""


def message(content: bytes = TEXTS, flag: int = 0, length: int | None = None) -> bytes:
    """A message with its prefix."""
    return bytes([flag]) + struct.pack(">I", len(content) if length is None else length) + content


MESSAGE = message()


def raw_bytes(sent: bytes) -> Send:
    """Sends bytes instead of a greeting; the connection must end."""

    def send(server: ObservedServer) -> Outcome:
        with RawConnection(server.port) as connection:
            send_until_closed(connection, [sent])
            return Outcome("CLOSED" if connection.is_closed_by_server() else "OPEN")

    return send


def frames(*sent: bytes) -> Send:
    """Sends frames after a greeting, and a ping; the outcome is the first answer to them."""

    def send(server: ObservedServer) -> Outcome:
        with server.connect(NO_TABLE) as connection:
            send_until_closed(connection, [*sent, frame(PING, PROBE)])
            return reaction(connection)

    return send


def frames_without_probe(*sent: bytes) -> Send:
    """Sends frames that the server may answer before it refuses them."""

    def send(server: ObservedServer) -> Outcome:
        with server.connect(NO_TABLE) as connection:
            send_until_closed(connection, sent)
            return reaction(connection)

    return send


def call(*changed: tuple[str, str | None], data: bytes = MESSAGE) -> Send:
    """Makes a call whose headers are changed, or absent if None; its body is ``data``."""

    def send(server: ObservedServer) -> Outcome:
        with server.connect(NO_TABLE) as connection:
            body = frame(DATA, data, END_STREAM, stream=1)
            send_until_closed(connection, [call_headers(*changed), body])
            return reaction(connection)

    return send


def call_headers(*changed: tuple[str, str | None], stream: int = 1) -> bytes:
    """The headers of a call to `TRANSLATE`."""
    headers: dict[str, str | None] = dict(headers_of_call(TRANSLATE))
    headers |= dict(changed)
    block = b"".join(literal((name, text)) for name, text in headers.items() if text is not None)
    return header_frames(block, stream)


def send_until_closed(connection: RawConnection, parts: Iterable[bytes]) -> None:
    """Send, unless the server ends the connection."""
    with suppress(BrokenPipeError, ConnectionResetError):
        for part in parts:
            connection.socket.sendall(part)


def reaction(connection: RawConnection) -> Outcome:
    """The first frame that answers: a status, the end of a stream or connection, or a ping's."""
    try:
        while True:
            kind, flags, _, content = connection.next_frame()
            if kind == GOAWAY:
                return Outcome("GOAWAY", content[8:].decode(errors="replace"))
            if kind == RST_STREAM:
                return Outcome("RESET", str(int.from_bytes(content)))
            if kind == PING and flags & ACK and content == PROBE:
                return Outcome("IGNORED")
            if kind == HEADERS and b"grpc-status" in content:
                return status_of(content)
            if kind == HEADERS and flags & END_STREAM:
                return Outcome("HTTP", content.decode("latin-1"))
    except (EOFError, ConnectionResetError):
        return Outcome("CLOSED")


def status_of(block: bytes) -> Outcome:
    """The status in the trailers of a call, which are literals of HPACK."""
    values = []
    for name in (b"grpc-status", b"grpc-message"):
        _, _, rest = block.partition(name)
        values.append(rest[1 : 1 + rest[0]].decode() if rest else "")
    number, text = values
    [code] = [code.name for code in grpc.StatusCode if code.value[0] == int(number)]
    return Outcome(code, text)
