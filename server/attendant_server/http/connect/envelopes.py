"""Envelopes: messages of a body, each after a byte of flags and its length in four bytes."""

from struct import Struct

from attendant_server.errors import InvalidRequest, Unsupported

COMPRESSED, END, TRAILERS = 0x01, 0x02, 0x80
"""Flags of an envelope: Connect ends a stream with `END`, gRPC-Web with `TRAILERS`."""
_HEAD = Struct(">BI")


def enveloped(content: bytes, flags: int = 0) -> bytes:
    """An envelope with a message."""
    return _HEAD.pack(flags, len(content)) + content


def only_message(body: bytes) -> bytes:
    """The message of a body that must have exactly one.

    Raises InvalidRequest for bytes that are no envelope, and Unsupported for a compressed message,
    or for no message or several.
    """
    if not body:
        raise Unsupported("the request has no message, needs one")
    if len(body) < _HEAD.size:
        raise InvalidRequest("body", "is incomplete")
    flags, length = _HEAD.unpack_from(body)
    if flags & COMPRESSED:
        raise Unsupported("compressed messages are not supported, send identity")
    if flags:
        raise InvalidRequest("body", f"has an envelope with the unknown flags {flags}")
    content = body[_HEAD.size : _HEAD.size + length]
    if len(content) < length:
        raise InvalidRequest("body", "is incomplete")
    if len(body) > _HEAD.size + length:
        raise Unsupported("the request has more than one message, needs one")
    return content
