"""Calls of a client that keeps to the windows of HTTP/2 and to nothing else."""

import select
import struct

from tests.support.http2 import (
    ACK,
    DATA,
    END_STREAM,
    HEADERS,
    MAX_FRAME_BYTES,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawConnection,
    frame,
    header_frames,
    headers_of_call,
    literal,
)

FIRST_WINDOW = 65535


class UnfinishedCalls(RawConnection):
    """A connection with calls that send their requests as fast as the server takes them.

    The last byte of a request is not sent, unless the calls are to be finished. Answers are not
    read beyond their first window.
    """

    def begin(
        self, path: str, num_calls: int, request: bytes, *, is_finished: bool = False
    ) -> None:
        """Begin calls, with the message ``request`` for each."""
        content = b"\0" + struct.pack(">I", len(request)) + request
        self._content = content if is_finished else content[:-1]
        self._is_finished = is_finished
        self._window = FIRST_WINDOW
        streams = range(1, 2 * num_calls, 2)
        self._windows = dict.fromkeys(streams, FIRST_WINDOW)
        self._sent = dict.fromkeys(streams, 0)
        self.ends: dict[int, bytes] = {}
        """Trailers, in HPACK, of the calls that the server has ended."""
        block = b"".join(map(literal, headers_of_call(path)))
        for stream in streams:
            self.socket.sendall(header_frames(block, stream))

    def go_on(self) -> int:
        """Send what the server's windows allow; returns the number of bytes."""
        self._receive()
        return sum(self._send(stream) for stream in list(self._sent))

    def _send(self, stream: int) -> int:
        begun = self._sent[stream]
        while size := min(
            max(0, self._window),
            max(0, self._windows[stream]),
            MAX_FRAME_BYTES,
            len(self._content) - self._sent[stream],
        ):
            ends = self._sent[stream] + size
            flags = END_STREAM if self._is_finished and ends == len(self._content) else 0
            part = self._content[self._sent[stream] : ends]
            self.socket.sendall(frame(DATA, part, flags, stream))
            self._sent[stream] = ends
            self._window -= size
            self._windows[stream] -= size
        return self._sent[stream] - begun

    def _receive(self) -> None:
        while self._received or select.select([self.socket], [], [], 0)[0]:
            kind, flags, stream, content = self.next_frame()
            if kind == WINDOW_UPDATE:
                [more] = struct.unpack(">I", content)
                if stream == 0:
                    self._window += more
                elif stream in self._windows:
                    self._windows[stream] += more
            elif (kind == HEADERS and flags & END_STREAM) or kind == RST_STREAM:
                self._sent.pop(stream, None)
                self.ends.setdefault(stream, content)
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self.socket.sendall(frame(kind, content if kind == PING else b"", ACK))
