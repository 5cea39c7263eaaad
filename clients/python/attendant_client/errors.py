"""The errors of the client, and their creation from gRPC statuses.

AttendantError                  anything that went wrong between the client and the server
├── TextError                   one text of a call failed, the others did not
└── CallError                   the whole call failed
    ├── InvalidRequestError     a value of the request is bad; trying again will not help
    │   └── CallTooLargeError   the request or its answer exceeds a limit that fewer texts may keep
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
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from attendant_client.connection_hints import connection_hint

PUSHBACK_KEY = "grpc-retry-pushback-ms"

TOO_LARGE = "CALL_TOO_LARGE"
"""The reason of google.rpc.ErrorInfo for calls that may succeed with fewer texts."""
LANGUAGE_UNKNOWN = "LANGUAGE_UNKNOWN"
"""The reason for languages that the named model lacks, or that no model has."""
TOO_LARGE_MESSAGE = "eceived message larger than max"
"""What gRPC says of a request, or an answer, that exceeds the receiver's limit."""

ENDED_WHILE_SENDING = "the server ended the call while a message was being sent"
ENDED_MESSAGE = "Internal error from Core"
"""What grpc.aio says of a call that has ended while it sent a message."""

Detail = TypeVar("Detail", bound=Message)
Metadata = Iterable[tuple[str, str | bytes]]


class AttendantError(Exception):
    """Root of the errors that the client raises.

    `code` is the gRPC status, `message` is the server's text. `retry_after_seconds` is the wait
    that the server asks for before a retry: None if it states none, infinity if the call must not
    be retried. `request_id` is the id of the call in the server's log; empty if nothing was sent.
    Tracebacks show it.
    """

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode,
        retry_after_seconds: float | None = None,
        request_id: str = "",
    ) -> None:
        # All arguments go to the parent, so that errors can be pickled and copied.
        super().__init__(message, code, retry_after_seconds, request_id)
        self.message = message
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id
        if request_id:
            self.add_note(f"request id: {request_id}")

    def __str__(self) -> str:
        return self.message


class TextError(AttendantError):
    """One text of a call failed; `index` is its index among the texts of the method, from 0."""

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode,
        retry_after_seconds: float | None = None,
        request_id: str = "",
        index: int = 0,
    ) -> None:
        super().__init__(message, code, retry_after_seconds, request_id)
        self.args = (message, code, retry_after_seconds, request_id, index)
        self.index = index

    def __str__(self) -> str:
        return f"text {self.index}: {self.message}"


class CallError(AttendantError):
    """The whole call failed.

    `reason` is the fault in a form for programs, such as LANGUAGE_UNKNOWN, and `reason_details` are
    its values by their names (the reason and the metadata of google.rpc.ErrorInfo). Both are empty
    if the server states no reason.
    """

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode,
        retry_after_seconds: float | None = None,
        request_id: str = "",
        reason: str = "",
        reason_details: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message, code, retry_after_seconds, request_id)
        self.reason, self.reason_details = reason, dict(reason_details)
        self.args = (*self.args, reason, self.reason_details)


class InvalidRequestError(CallError):
    """A value of the request is bad; the message names the field and the limit."""


class CallTooLargeError(InvalidRequestError):
    """The request, or the answer to it, is too large; with fewer texts, it may not be."""

    @property
    def max_texts(self) -> int | None:
        """The server's limit of the texts of a call; None if another limit is exceeded."""
        limit = self.reason_details.get("max_texts", "")
        return int(limit) if limit.isdecimal() else None


class NotFoundError(CallError):
    """The server has no model or service of this name."""


class UnsupportedError(CallError):
    """The model or the server cannot do what was asked."""


class UnauthenticatedError(CallError):
    """The server does not know the caller: the token is missing, wrong or expired."""


class PermissionDeniedError(CallError):
    """The server knows the caller, but does not allow it this method or model."""


class OverloadedError(CallError):
    """The server has no room now, or a quota of the caller is used up."""


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


def call_error(error: grpc.RpcError, request_id: str = "") -> CallError:
    """Turn the gRPC error of a failed call, synchronous or asyncio, into a CallError."""
    code = error.code()
    message = error.details() or f"the call failed with {code.name}"
    if code is grpc.StatusCode.UNAVAILABLE and (hint := connection_hint(message)):
        message = f"{hint} ({message})"
    if TOO_LARGE_MESSAGE in message:
        return CallTooLargeError(message, code, None, request_id)
    call = cast(grpc.Call, error)  # gRPC raises objects that are both
    status = _status(call)
    info = _detail(status, error_details_pb2.ErrorInfo()) or error_details_pb2.ErrorInfo()
    kind = CallTooLargeError if info.reason == TOO_LARGE else ERROR_BY_CODE[code]
    retry_after_seconds = _retry_after_seconds(call, status)
    return kind(message, code, retry_after_seconds, request_id, info.reason, info.metadata)


def stream_error(error: grpc.RpcError, request_id: str) -> CallError:
    """Like `call_error`, for a stream of requests.

    grpc.aio does not tell the status of a call that the server ends while it sends a message. After
    the settings were accepted, that is most often a server that stops.
    """
    if error.code() is grpc.StatusCode.INTERNAL and error.details() == ENDED_MESSAGE:
        return UnavailableError(ENDED_WHILE_SENDING, grpc.StatusCode.UNAVAILABLE, None, request_id)
    return call_error(error, request_id)


def text_error(status: status_pb2.Status, index: int, request_id: str) -> TextError:
    """Turn the status in the result of text `index` into an error."""
    code = CODE_BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    return TextError(status.message, code, _retry_info_seconds(status), request_id, index)


def bad_answer(reason: str, request_id: str = "") -> ServerError:
    """Return the error for an answer that violates the contract."""
    message = f"the server's answer is wrong: {reason}"
    return ServerError(message, grpc.StatusCode.INTERNAL, None, request_id)


def _status(call: grpc.Call) -> status_pb2.Status | None:
    try:
        status: status_pb2.Status | None = rpc_status.from_call(call)
    except (ValueError, DecodeError):
        return None  # ignore details that belong to another status
    return status


def _retry_after_seconds(call: grpc.Call, status: status_pb2.Status | None) -> float | None:
    for key, value in cast(Metadata, call.trailing_metadata() or ()):
        if key == PUSHBACK_KEY:
            return _pushback_seconds(value)
    return None if status is None else _retry_info_seconds(status)


def _pushback_seconds(value: str | bytes) -> float:
    """Parse the push-back of gRFC A6. A negative or malformed value means "do not retry"."""
    try:
        milliseconds = int(value)
    except ValueError:
        return math.inf
    return math.inf if milliseconds < 0 else milliseconds / 1000


def _retry_info_seconds(status: status_pb2.Status) -> float | None:
    info = _detail(status, error_details_pb2.RetryInfo())
    return None if info is None else max(0.0, info.retry_delay.ToTimedelta().total_seconds())


def _detail(status: status_pb2.Status | None, message: Detail) -> Detail | None:
    """The detail of a status that has the type of `message`, which is filled."""
    details = () if status is None else status.details
    return message if any(detail.Unpack(message) for detail in details) else None
