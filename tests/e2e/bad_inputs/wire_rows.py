"""Rows about connections, frames of HTTP/2, headers of gRPC and the prefixes of messages."""

import random
from itertools import repeat

from tests.e2e.bad_inputs.frames import (
    MESSAGE,
    TEXTS,
    call,
    call_headers,
    frames,
    frames_without_probe,
    message,
    raw_bytes,
)
from tests.e2e.bad_inputs.table import MARKER, BadInput
from tests.support.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    literal,
    setting,
)

NOISE = random.Random(1)
CLIENT_HELLO = bytes.fromhex("16030100f8010000f40303") + NOISE.randbytes(241)
PRIORITY, PUSH_PROMISE, UNKNOWN = 2, 5, 77
"""Types of frames."""
MAX_FRAME_SIZE = 5
"""The identifier of a setting."""
PADDED = 8
CANCEL = (8).to_bytes(4)
LARGEST_WINDOW = b"\x7f\xff\xff\xff"
LONG_HEADER = literal(("x", MARKER * 700))
INCOMPLETE = "request: is missing or incomplete"


def resets(num_streams: int) -> list[bytes]:
    """Begins and resets streams."""
    return [
        part
        for stream in range(1, 2 * num_streams, 2)
        for part in (call_headers(stream=stream), frame(RST_STREAM, CANCEL, stream=stream))
    ]


CONNECTIONS = [
    BadInput("TLS on a port without TLS", raw_bytes(CLIENT_HELLO), "CLOSED"),
    BadInput("HTTP/1.1", raw_bytes(f"GET /{MARKER} HTTP/1.1\r\n\r\n".encode()), "CLOSED"),
    BadInput("noise of 1 MB", raw_bytes(NOISE.randbytes(1_000_000)), "CLOSED"),
    BadInput("nothing after the preface", raw_bytes(PREFACE), "CLOSED"),
]
FRAMES = [
    BadInput(
        "header that never ends",
        frames(
            frame(HEADERS, LONG_HEADER, stream=1),
            *repeat(frame(CONTINUATION, LONG_HEADER, stream=1), 1000),
        ),
        "CLOSED GOAWAY",
    ),
    BadInput("streams begun and reset", frames(*resets(2000)), "IGNORED"),
    BadInput("window increased by 0", frames(frame(WINDOW_UPDATE, bytes(4))), "CLOSED"),
    BadInput(
        "window of a stream increased by 0",
        frames(call_headers(), frame(WINDOW_UPDATE, bytes(4), stream=1)),
        "UNAVAILABLE",
        "window update",
    ),
    BadInput(
        "window beyond its largest size",
        frames(*repeat(frame(WINDOW_UPDATE, LARGEST_WINDOW), 2)),
        "IGNORED CLOSED GOAWAY",
    ),
    BadInput(
        "pings",
        frames_without_probe(*repeat(frame(PING, bytes(8)), 100)),
        "GOAWAY",
        "too_many_pings",
    ),
    BadInput("settings", frames(*repeat(frame(SETTINGS, setting(4, 99)), 10_000)), "IGNORED"),
    BadInput("settings of 3 bytes", frames(frame(SETTINGS, b"abc")), "CLOSED GOAWAY"),
    BadInput(
        "settings with too large a window",
        frames(frame(SETTINGS, setting(INITIAL_WINDOW_SIZE, 2**31))),
        "CLOSED GOAWAY",
    ),
    BadInput(
        "settings with frames of 1 byte",
        frames(frame(SETTINGS, setting(MAX_FRAME_SIZE, 1))),
        "CLOSED GOAWAY",
    ),
    BadInput("call on stream 0", frames(call_headers(stream=0)), "IGNORED CLOSED GOAWAY"),
    BadInput("call on an even stream", frames(call_headers(stream=2)), "IGNORED CLOSED GOAWAY"),
    BadInput("data on stream 0", frames(frame(DATA, MESSAGE)), "IGNORED CLOSED GOAWAY"),
    BadInput("data without a call", frames(frame(DATA, MESSAGE, stream=9)), "IGNORED RESET"),
    BadInput(
        "streams in the wrong order",
        frames(call_headers(stream=5), call_headers(stream=3)),
        "IGNORED CLOSED GOAWAY",
    ),
    BadInput("frame of 16 MB", frames(frame(DATA, bytes(2**24 - 1), stream=1)), "CLOSED GOAWAY"),
    BadInput("frame of unknown type", frames(frame(UNKNOWN, MARKER.encode())), "IGNORED"),
    BadInput(
        "promise of a push",
        frames(frame(PUSH_PROMISE, MARKER.encode(), END_HEADERS, 1)),
        "IGNORED CLOSED GOAWAY",
    ),
    BadInput(
        "continuation of nothing",
        frames(frame(CONTINUATION, literal(("x", MARKER)), END_HEADERS, 1)),
        "CLOSED GOAWAY",
    ),
    BadInput("reset of no stream", frames(frame(RST_STREAM, CANCEL, stream=7)), "IGNORED"),
    BadInput("farewell", frames(frame(GOAWAY, bytes(8) + MARKER.encode())), "IGNORED CLOSED"),
    BadInput(
        "stream that depends on itself",
        frames(frame(PRIORITY, b"\0\0\0\1\0", stream=1)),
        "IGNORED RESET",
    ),
    BadInput(
        "padding longer than its frame",
        frames(call_headers(), frame(DATA, b"\xff" + MESSAGE, PADDED, 1)),
        "IGNORED CLOSED GOAWAY RESET",
    ),
    BadInput(
        "frames without data",
        frames(call_headers(), *repeat(frame(DATA, stream=1), 10_000)),
        "IGNORED",
    ),
]
COMPRESSED_HEADERS = [
    BadInput("header 0", frames(frame(HEADERS, b"\x80", END_HEADERS, 1)), "INTERNAL", "hpack"),
    BadInput(
        "number without end",
        frames(frame(HEADERS, b"\xff" * 20, END_HEADERS, 1)),
        "INTERNAL",
        "integer overflow",
    ),
    BadInput(
        "10,000 references to a long header",
        frames(
            frame(
                HEADERS,
                b"\x40" + literal(("x", MARKER * 300))[1:] + b"\xbe" * 10_000,
                END_HEADERS,
                1,
            )
        ),
        "IGNORED RESOURCE_EXHAUSTED RESET",
    ),
    BadInput(
        "table of 16 MB",
        frames(frame(HEADERS, b"\x3f\xe1\xff\xff\x07", END_HEADERS, 1)),
        "INTERNAL",
        "hpack table",
    ),
]
HEADERS_OF_CALLS = [
    BadInput("content type of a page", call(("content-type", "text/plain")), "OK"),
    BadInput("no te", call(("te", None)), "RESET"),
    BadInput("no path", call((":path", None)), "RESET"),
    BadInput("no scheme", call((":scheme", None)), "RESET"),
    BadInput("GET", call((":method", "GET")), "RESET"),
    BadInput("unknown method", call((":path", f"/x.{MARKER}/{MARKER}")), "UNIMPLEMENTED"),
    BadInput("path of 10 KB", call((":path", "/" + MARKER * 800)), "UNIMPLEMENTED"),
    BadInput("path with a line break", call((":path", f"/a\nevent=x {MARKER}")), "UNIMPLEMENTED"),
    BadInput("unknown encoding", call(("grpc-encoding", MARKER)), "INTERNAL", "Error parsing"),
    *(
        BadInput(f"timeout {timeout!r}", call(("grpc-timeout", timeout)), expected)
        for timeout, expected in {
            "0n": "DEADLINE_EXCEEDED",
            "-1S": "INTERNAL",
            "99999999H": "OK",
            "1234567890S": "OK INTERNAL",
            MARKER: "INTERNAL",
            "1": "INTERNAL",
            "": "INTERNAL",
        }.items()
    ),
    BadInput("metadata of 20 KB", call(("x", MARKER * 1600)), "RESOURCE_EXHAUSTED", "metadata"),
    BadInput(
        "1,000 entries of metadata",
        call(*((f"x{i}", MARKER) for i in range(1000))),
        "RESOURCE_EXHAUSTED",
    ),
    BadInput("bad base64", call(("x-bin", f"%{MARKER}")), "INTERNAL", "illegal base64"),
    BadInput("metadata beyond ASCII", call(("x", f"{MARKER}é")), "OK INTERNAL"),
    BadInput("name beyond ASCII", call(("naïve", MARKER)), "INTERNAL"),
    BadInput("line break in the authority", call((":authority", f"a\r\nb: {MARKER}")), "OK"),
    BadInput("line break in metadata", call(("x", f"a\r\nevent=call {MARKER}")), "OK"),
    BadInput("line break in a request id", call(("x-request-id", f"a\nevent={MARKER}")), "OK"),
    BadInput("name in capitals", call(("Wrong", MARKER)), "INTERNAL"),
    BadInput("unknown pseudo header", call((":wrong", MARKER)), "INTERNAL"),
    BadInput("header of a connection", call(("connection", "close")), "OK RESET"),
]
MESSAGES = [
    BadInput(
        "flag of compression, no encoding", call(data=message(flag=1)), "INTERNAL", "Compression"
    ),
    BadInput("unknown flag", call(data=message(flag=0xFE)), "OK INVALID_ARGUMENT"),
    BadInput(
        "compressed by another method",
        call(("grpc-encoding", "gzip"), data=message(flag=1)),
        "INTERNAL",
        "Decompression failed",
    ),
    BadInput("4 GB announced", call(data=message(length=2**32 - 1)), "RESOURCE_EXHAUSTED"),
    BadInput("message cut off", call(data=message(length=999)), "INVALID_ARGUMENT", INCOMPLETE),
    BadInput("prefix cut off", call(data=b"\0\0"), "INVALID_ARGUMENT", INCOMPLETE),
    BadInput("no message", call(data=b""), "INVALID_ARGUMENT", INCOMPLETE),
    BadInput("two messages", call(data=MESSAGE * 2), "OK"),
    BadInput("text behind the message", call(data=MESSAGE + TEXTS), "OK"),
]
ROWS = [*CONNECTIONS, *FRAMES, *COMPRESSED_HEADERS, *HEADERS_OF_CALLS, *MESSAGES]
