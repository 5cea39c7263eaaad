"""Rows about the bytes of messages."""

import grpc

from tests.e2e.bad_inputs.table import (
    MARKER,
    METHODS,
    TRANSLATE,
    BadInput,
    content,
    field,
    varint,
)

TEXTS = field(2, MARKER.encode())
MAX_REQUEST_BYTES = 4 * 1024 * 1024
START_OF_GROUP, END_OF_GROUP = varint(1000 << 3 | 3), varint(1000 << 3 | 4)
UNKNOWN_FIELD = 1000


def padded(num_bytes: int) -> bytes:
    """A request of this size, with an unknown field."""
    header = len(field(UNKNOWN_FIELD, bytes(num_bytes))) - num_bytes
    return TEXTS + field(UNKNOWN_FIELD, bytes(num_bytes - len(TEXTS) - header))


UNDECODABLE = {
    "truncated message": TEXTS[:-3],
    "invalid UTF-8": TEXTS + field(2, b"\xff\xfe"),
    "overlong UTF-8": TEXTS + field(2, b"\xc0\x80"),
    "UTF-8 surrogate": TEXTS + field(2, b"\xed\xa0\x80"),
    "number of 11 bytes": TEXTS + b"\x20" + b"\xff" * 10 + b"\x01",
    "field 0": TEXTS + b"\x02\x00",
    "end of no group": TEXTS + b"\x14",
    "length beyond the end": TEXTS + b"\x12\xff\xff\xff\xff\x07",
    "100,000 nested groups": TEXTS + START_OF_GROUP * 100_000 + END_OF_GROUP * 100_000,
    "noise": bytes(range(256)) * 4,
}
OTHER_METHODS = [
    "/attendant.v1.TranslationService/Score",
    *(method for method, _, _ in METHODS.values() if method != TRANSLATE),
    "/attendant.v1.ModelService/ListModels",
    "/grpc.health.v1.Health/Check",
]
ROWS = [
    *(
        BadInput(name, content(sent), "INVALID_ARGUMENT", "request: cannot be decoded")
        for name, sent in UNDECODABLE.items()
    ),
    BadInput("unknown field of 1 MB", content(padded(1_000_000)), "OK"),
    BadInput(
        "100 nested groups",
        content(TEXTS + START_OF_GROUP * 100 + END_OF_GROUP * 100),
        "OK INVALID_ARGUMENT",
    ),
    BadInput("field of the wrong type", content(b"\x10\x05"), "INVALID_ARGUMENT", "at least 1"),
    BadInput("model twice", content(field(1, MARKER.encode()) + field(1, b"") + TEXTS), "OK"),
    BadInput(
        "enum beyond its values", content(TEXTS + b"\x20\x4d"), "INVALID_ARGUMENT", "truncation"
    ),
    BadInput("empty message", content(b""), "INVALID_ARGUMENT", "texts: at least 1, got 0"),
    BadInput("message of 4 MiB", content(padded(MAX_REQUEST_BYTES)), "OK"),
    BadInput(
        "message of 4 MiB and a byte", content(padded(MAX_REQUEST_BYTES + 1)), "RESOURCE_EXHAUSTED"
    ),
    BadInput(
        "64 MB compressed",
        content(padded(64 * 1024 * 1024), compression=grpc.Compression.Gzip),
        "RESOURCE_EXHAUSTED",
    ),
    BadInput(
        "1,000,000 empty texts",
        content(b"\x12\x00" * 1_000_000),
        "INVALID_ARGUMENT",
        "texts: at most 256, got 1000000",
    ),
    *(
        BadInput(
            f"bytes for {method}",
            content(b"\xff\xff", method),
            "INVALID_ARGUMENT",
            "cannot be decoded",
        )
        for method in OTHER_METHODS
    ),
]
