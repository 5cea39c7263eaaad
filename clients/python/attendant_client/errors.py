"""The errors of the client, and their creation from gRPC statuses.

AttendantError                  anything that went wrong between the client and the server
├── TextError                   one text of a call failed, the others did not
└── CallError                   the whole call failed
    ├── InvalidRequestError     a value of the request is bad; trying again will not help
    ├── NotFoundError           there is no such model or service
    ├── UnsupportedError        this model or this server cannot do it
    ├── UnauthenticatedError    the server does not know the caller: no token, or a bad one
    ├── PermissionDeniedError   the caller may not do it
    ├── OverloadedError         the server has no room now
    ├── UnavailableError        no server answers, it is draining, or the model is still loading
    ├── DeadlineExceededError   the deadline of the call has passed
    ├── CallCancelledError      the call was cancelled, here or by a stopping server
    └── ServerError             the server failed, or its answer violates the contract
"""

import math
from collections.abc import Iterable
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from attendant_client.connection_hints import connection_hint

PUSHBACK_KEY = "grpc-retry-pushback-ms"

Metadata = Iterable[tuple[str, str | bytes]]


class AttendantError(Exception):
    """Root of the errors that the client raises.

    `code` is the gRPC status, `message` is the server's text. `retry_after_seconds` is the wait
    that the server asks for before a retry: None if it states none, infinity if the call must not
    be retried.
    """

    def __init__(
        self, message: str, code: grpc.StatusCode, retry_after_seconds: float | None = None
    ) -> None:
        # All arguments go to the parent, so that errors can be pickled and copied.
        super().__init__(message, code, retry_after_seconds)
        self.message = message
        self.code = code
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        return self.message


class TextError(AttendantError):
    """One text of a call failed; `index` is its index in the call, from 0."""

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode,
        retry_after_seconds: float | None = None,
        index: int = 0,
    ) -> None:
        super().__init__(message, code, retry_after_seconds)
        self.args = (message, code, retry_after_seconds, index)
        self.index = index

    def __str__(self) -> str:
        return f"text {self.index}: {self.message}"


class CallError(AttendantError):
    """The whole call failed."""


class InvalidRequestError(CallError):
    """A value of the request is bad; the message names the field and the limit."""


class NotFoundError(CallError):
    """The server has no model or service of this name."""


class UnsupportedError(CallError):
    """The model or the server cannot do what was asked."""


class UnauthenticatedError(CallError):
    """The server does not know the caller: the token is missing, wrong or expired."""


class PermissionDeniedError(CallError):
    """The server knows the caller, but does not allow it this method or model."""


class OverloadedError(CallError):
    """The server has no room now, or the message exceeds a size limit."""


class UnavailableError(CallError):
    """No server answers at the target, it is draining, or the model is still loading."""


class DeadlineExceededError(CallError):
    """The deadline of the call passed before the answer came."""


class CallCancelledError(CallError):
    """The call was cancelled: the client was closed, or the server stopped before the call."""


class ServerError(CallError):
    """The server failed, or its answer violates the contract."""


ERROR_BY_CODE: dict[grpc.StatusCode, type[CallError]] = {
    grpc.StatusCode.CANCELLED: CallCancelledError,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: ServerError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.FAILED_PRECONDITION: UnsupportedError,
    grpc.StatusCode.ABORTED: ServerError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
    grpc.StatusCode.INTERNAL: ServerError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DATA_LOSS: ServerError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
}

CODE_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def call_error(error: grpc.RpcError) -> CallError:
    """Turn the gRPC error of a failed call, synchronous or asyncio, into a CallError."""
    code = error.code()
    message = error.details() or f"the call failed with {code.name}"
    if code is grpc.StatusCode.UNAVAILABLE and (hint := connection_hint(message)):
        message = f"{hint} ({message})"
    return ERROR_BY_CODE[code](message, code, _retry_after_seconds(error))


def text_error(status: status_pb2.Status, index: int) -> TextError:
    """Turn the status in the result of text `index` into an error."""
    code = CODE_BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    return TextError(status.message, code, _retry_info_seconds(status), index)


def bad_answer(reason: str) -> ServerError:
    """Return the error for an answer that violates the contract."""
    return ServerError(f"the server's answer is wrong: {reason}", grpc.StatusCode.INTERNAL)


def _retry_after_seconds(error: grpc.RpcError) -> float | None:
    call = cast(grpc.Call, error)  # gRPC raises objects that are both
    for key, value in cast(Metadata, call.trailing_metadata() or ()):
        if key == PUSHBACK_KEY:
            return _pushback_seconds(value)
    try:
        status = rpc_status.from_call(call)
    except (ValueError, DecodeError):
        return None  # ignore details that belong to another status
    return None if status is None else _retry_info_seconds(status)


def _pushback_seconds(value: str | bytes) -> float:
    """Parse the push-back of gRFC A6. A negative or malformed value means "do not retry"."""
    try:
        milliseconds = int(value)
    except ValueError:
        return math.inf
    return math.inf if milliseconds < 0 else milliseconds / 1000


def _retry_info_seconds(status: status_pb2.Status) -> float | None:
    info = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return max(0.0, info.retry_delay.ToTimedelta().total_seconds())
    return None
