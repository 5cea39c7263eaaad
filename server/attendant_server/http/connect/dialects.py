"""How Connect and gRPC-Web put messages, errors and time limits into requests and answers."""

import binascii
import re
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson
from google.protobuf import json_format
from google.rpc import code_pb2, status_pb2

from attendant_server.error_details import retry_milliseconds, status_of
from attendant_server.errors import InvalidRequest, Unsupported
from attendant_server.http.connect.codecs import Codec
from attendant_server.http.connect.envelopes import END, TRAILERS, enveloped, only_message
from attendant_server.http.exchanges import Response
from attendant_server.http.statuses import Failure, WrongContentType

VERSION, VERSION_HEADER = "1", "connect-protocol-version"
CONNECT_TIMEOUT, GRPC_TIMEOUT = "connect-timeout-ms", "grpc-timeout"
IDENTITY = "identity"
UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
"""Seconds of the units of `GRPC_TIMEOUT`."""
PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""Characters of a ``grpc-message`` that are not escaped."""
_MILLISECONDS = re.compile(r"\d{1,10}", re.ASCII)
_GRPC_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])", re.ASCII)
_BASE64 = re.compile(rb"[^=]+={0,2}")


class Dialect(ABC):
    """One protocol with one codec."""

    encoding_header = "content-encoding"
    """The header that names the compression of messages."""

    def __init__(self, content_type: str, codec: Codec) -> None:
        self.content_type, self.codec = content_type, codec

    def check(self, headers: Mapping[str, str]) -> None:
        """Check what the headers say of the body. Raises InvalidRequest or Unsupported."""
        for name in {"content-encoding", self.encoding_header}:
            if headers.get(name, IDENTITY) != IDENTITY:
                raise Unsupported(f"{name}: compression is not supported, send {IDENTITY}")

    @abstractmethod
    def timeout_seconds(self, headers: Mapping[str, str]) -> float | None:
        """The time that the client gives the call; None for no limit. Raises InvalidRequest."""

    @abstractmethod
    def message(self, body: bytes) -> bytes:
        """The only message of a request. Raises InvalidRequest or Unsupported."""

    @abstractmethod
    def whole(self, content: bytes) -> bytes:
        """The body of an answer that is one message."""

    @abstractmethod
    def piece(self, content: bytes) -> bytes:
        """A message of an answer that is a stream."""

    @abstractmethod
    def end(self, failure: Failure | None = None) -> bytes:
        """The end of a stream."""

    def failed(self, failure: Failure) -> Response:
        """The answer to a call that has failed before its answer has begun."""
        return Response(self.end(failure), self.content_type.encode())


class Connect(Dialect):
    """What both forms of Connect have in common."""

    def check(self, headers: Mapping[str, str]) -> None:
        """Check what the headers say of the body. Raises InvalidRequest or Unsupported."""
        super().check(headers)
        if headers.get(VERSION_HEADER, VERSION) != VERSION:
            raise InvalidRequest(VERSION_HEADER, f"must be {VERSION}")

    def timeout_seconds(self, headers: Mapping[str, str]) -> float | None:
        """The time that the client gives the call; None for no limit. Raises InvalidRequest."""
        if (given := headers.get(CONNECT_TIMEOUT)) is None:
            return None
        if not _MILLISECONDS.fullmatch(given):
            raise InvalidRequest(CONNECT_TIMEOUT, "must be a number of at most 10 digits")
        return int(given) / 1000


class ConnectUnary(Connect):
    """Connect for methods with one answer: bodies are messages."""

    def __init__(self, codec: Codec) -> None:
        super().__init__(f"application/{codec.name}", codec)

    def message(self, body: bytes) -> bytes:
        """The only message of a request."""
        return body

    def whole(self, content: bytes) -> bytes:
        """The body of an answer that is one message."""
        return content

    def piece(self, content: bytes) -> bytes:
        """Never called."""
        raise NotImplementedError

    def end(self, failure: Failure | None = None) -> bytes:
        """Never called."""
        raise NotImplementedError

    def failed(self, failure: Failure) -> Response:
        """The answer to a call that has failed before its answer has begun."""
        body = orjson.dumps(connect_error(failure))
        return Response(body, status=failure.status, headers=failure.headers)


class ConnectStream(Connect):
    """Connect for methods whose answers are streams."""

    encoding_header = "connect-content-encoding"

    def __init__(self, codec: Codec) -> None:
        super().__init__(f"application/connect+{codec.name}", codec)

    def message(self, body: bytes) -> bytes:
        """The only message of a request. Raises InvalidRequest or Unsupported."""
        return only_message(body)

    def whole(self, content: bytes) -> bytes:
        """The body of an answer that is one message."""
        return self.piece(content) + self.end()

    def piece(self, content: bytes) -> bytes:
        """A message of an answer that is a stream."""
        return enveloped(content)

    def end(self, failure: Failure | None = None) -> bytes:
        """The end of a stream."""
        found = {} if failure is None else {"error": connect_error(failure)}
        return enveloped(orjson.dumps(found), END)


class GrpcWeb(Dialect):
    """gRPC-Web: the trailers of gRPC are the last envelope of an answer."""

    encoding_header = "grpc-encoding"

    def timeout_seconds(self, headers: Mapping[str, str]) -> float | None:
        """The time that the client gives the call; None for no limit. Raises InvalidRequest."""
        if (given := headers.get(GRPC_TIMEOUT)) is None:
            return None
        if not (found := _GRPC_TIMEOUT.fullmatch(given)):
            raise InvalidRequest(GRPC_TIMEOUT, "must be a number of at most 8 digits with a unit")
        return int(found.group(1)) * UNITS[found.group(2)]

    def message(self, body: bytes) -> bytes:
        """The only message of a request. Raises InvalidRequest or Unsupported."""
        return only_message(body)

    def whole(self, content: bytes) -> bytes:
        """The body of an answer that is one message."""
        return self.piece(content) + self.end()

    def piece(self, content: bytes) -> bytes:
        """A message of an answer that is a stream."""
        return enveloped(content)

    def end(self, failure: Failure | None = None) -> bytes:
        """The end of a stream."""
        lines = b"grpc-status: 0\r\n" if failure is None else b"".join(_trailers(failure))
        return enveloped(lines, TRAILERS)


class GrpcWebText(GrpcWeb):
    """gRPC-Web whose bodies are base64, for browsers that read no bytes while they arrive."""

    def message(self, body: bytes) -> bytes:
        """The only message of a request. Raises InvalidRequest or Unsupported."""
        try:
            # Each part may have been padded by itself.
            decoded = b"".join(b64decode(part, validate=True) for part in _BASE64.findall(body))
        except binascii.Error:
            raise InvalidRequest("body", "is no base64") from None
        return super().message(decoded)

    def piece(self, content: bytes) -> bytes:
        """A message of an answer that is a stream."""
        return b64encode(super().piece(content))

    def end(self, failure: Failure | None = None) -> bytes:
        """The end of a stream."""
        return b64encode(super().end(failure))


class UnknownDialect(ConnectUnary):
    """Refuses requests of other content types, as Connect does."""

    def __init__(self, codec: Codec, known: str) -> None:
        super().__init__(codec)
        self._known = known

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise WrongContentType."""
        raise WrongContentType("content-type", f"must be one of {self._known}")

    def failed(self, failure: Failure) -> Response:
        """The answer to a call that has failed before its answer has begun."""
        body = orjson.dumps(connect_error(failure))
        accepted = (b"accept-post", self._known.encode())
        return Response(body, status=failure.status, headers=[*failure.headers, accepted])


def connect_error(failure: Failure) -> dict[str, Any]:
    """The JSON of an error."""
    code = "canceled" if failure.code == "CANCELLED" else failure.code.lower()
    found: dict[str, Any] = {"code": code, "message": failure.message}
    if details := [_detail(each) for each in _status(failure).details]:
        found["details"] = details
    return found


def _status(failure: Failure) -> status_pb2.Status:
    if failure.error is not None:
        return status_of(failure.error)
    return status_pb2.Status(code=code_pb2.Code.Value(failure.code), message=failure.message)


def _detail(detail: Any) -> dict[str, Any]:
    name = detail.type_url.rpartition("/")[2]
    value = b64encode(detail.value).rstrip(b"=").decode()
    shown = json_format.MessageToDict(detail)
    shown.pop("@type")
    return {"type": name, "value": value, "debug": shown}


def _trailers(failure: Failure) -> list[bytes]:
    status = _status(failure)
    found = {
        "grpc-status": str(status.code),
        "grpc-message": quote(status.message, safe=PRINTABLE),
        "grpc-status-details-bin": b64encode(status.SerializeToString()).rstrip(b"=").decode(),
    }
    if failure.error is not None and (delay := retry_milliseconds(failure.error)) is not None:
        found["grpc-retry-pushback-ms"] = str(delay)
    return [f"{name}: {value}\r\n".encode() for name, value in found.items()]
