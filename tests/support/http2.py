"""Raw HTTP/2 for tests: frames that no client library would send."""

import socket
import struct
from typing import Self

TIMEOUT_SECONDS = 60.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9
)  # fmt: skip
ACK = END_STREAM = 1
END_HEADERS = 4
MAX_FRAME_BYTES = 16384
"""The largest frame that every peer takes."""
INITIAL_WINDOW_SIZE = 4
"""The identifier of a setting."""


class RawConnection:
    """A connection to a gRPC server without TLS, which sends no frame by itself."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self._received = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def greet(self, settings: bytes = b"") -> None:
        """Send the preface and settings, and wait for the server's."""
        self.socket.sendall(PREFACE + frame(SETTINGS, settings))
        while self.next_frame()[:2] != (SETTINGS, 0):
            pass
        self.socket.sendall(frame(SETTINGS, flags=ACK))

    def call(self, stream: int, path: str, *more: tuple[str, str]) -> None:
        """Begin a call: send its headers, but no message."""
        block = b"".join(map(literal, [*headers_of_call(path), *more]))
        self.socket.sendall(header_frames(block, stream))

    def send_message(self, stream: int, content: bytes) -> None:
        """Send a whole message as the last one of a call."""
        message = b"\0" + struct.pack(">I", len(content)) + content
        self.socket.sendall(frame(DATA, message, END_STREAM, stream))

    def next_frame(self) -> tuple[int, int, int, bytes]:
        """Type, flags, stream and content of the next frame; raises EOFError at the end."""
        length = int.from_bytes(self._read(3))
        kind, flags, stream = struct.unpack(">BBI", self._read(6))
        return kind, flags, stream, self._read(length)

    def frames_until(self, kind: int, stream: int | None = None) -> bytes:
        """Skip frames until one of this kind (and stream); returns its content."""
        while True:
            found, _, of_stream, content = self.next_frame()
            if found == kind and stream in (None, of_stream):
                return content

    def is_closed_by_server(self) -> bool:
        """Read until the server closes the connection."""
        try:
            while True:
                self.next_frame()
        except (EOFError, ConnectionResetError):
            return True

    def _read(self, length: int) -> bytes:
        while len(self._received) < length:
            part = self.socket.recv(65536)
            if not part:
                raise EOFError
            self._received += part
        content = bytes(self._received[:length])
        del self._received[:length]
        return content


def headers_of_call(path: str) -> list[tuple[str, str]]:
    """The headers that a call needs."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


def frame(kind: int, content: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    """A frame as bytes."""
    return len(content).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + content


def header_frames(block: bytes, stream: int) -> bytes:
    """Headers in frames of a size that every peer takes."""
    parts = [block[i : i + MAX_FRAME_BYTES] for i in range(0, len(block), MAX_FRAME_BYTES)]
    kinds = [HEADERS] + [CONTINUATION] * (len(parts) - 1)
    flags = [0] * (len(parts) - 1) + [END_HEADERS]
    return b"".join(map(frame, kinds, parts, flags, [stream] * len(parts)))


def literal(header: tuple[str, str]) -> bytes:
    """A header in HPACK, without compression."""
    return b"\0" + b"".join(_string(text.encode()) for text in header)


def setting(identifier: int, value: int) -> bytes:
    """An entry of a SETTINGS frame."""
    return struct.pack(">HI", identifier, value)


def _string(text: bytes) -> bytes:
    length = len(text)
    if length < 127:
        return bytes([length]) + text
    prefix, rest = b"\x7f", length - 127
    while rest > 127:
        prefix += bytes([rest % 128 + 128])
        rest //= 128
    return prefix + bytes([rest]) + text
