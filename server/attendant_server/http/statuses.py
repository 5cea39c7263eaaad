"""HTTP statuses of errors, by one table from the codes of gRPC, which records and metrics have."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from attendant_server.errors import AttendantError, InvalidRequest
from attendant_server.failures import INTERNAL, code_of, retry_after

STATUSES: Mapping[str, int] = {
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "FAILED_PRECONDITION": HTTPStatus.BAD_REQUEST,
    "OUT_OF_RANGE": HTTPStatus.BAD_REQUEST,
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "PERMISSION_DENIED": HTTPStatus.FORBIDDEN,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "ALREADY_EXISTS": HTTPStatus.CONFLICT,
    "ABORTED": HTTPStatus.CONFLICT,
    "RESOURCE_EXHAUSTED": HTTPStatus.TOO_MANY_REQUESTS,
    "CANCELLED": 499,
    "UNKNOWN": HTTPStatus.INTERNAL_SERVER_ERROR,
    "INTERNAL": HTTPStatus.INTERNAL_SERVER_ERROR,
    "DATA_LOSS": HTTPStatus.INTERNAL_SERVER_ERROR,
    "UNIMPLEMENTED": HTTPStatus.NOT_IMPLEMENTED,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "DEADLINE_EXCEEDED": HTTPStatus.GATEWAY_TIMEOUT,
}
"""The status for each code of gRPC but OK, as in google/rpc/code.proto."""


class RequestTooLarge(InvalidRequest):
    """The body of a request exceeds the largest request."""


class Malformed(InvalidRequest):
    """The body of a request is no JSON, or not that of the route."""


class WrongContentType(InvalidRequest):
    """The body of a request is of another type than the route reads."""


STATUSES_OF_CLASSES: Mapping[type[AttendantError], int] = {
    RequestTooLarge: HTTPStatus.CONTENT_TOO_LARGE
    if hasattr(HTTPStatus, "CONTENT_TOO_LARGE")
    else HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Malformed: HTTPStatus.BAD_REQUEST,
    WrongContentType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}
"""The statuses of errors that only HTTP has."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The end of a call that has failed."""

    code: str
    """The name of the code of gRPC."""
    status: int
    message: str
    field: str | None = None
    """The field of the request that is bad, if one is."""
    retry_after_seconds: float | None = None
    error: AttendantError | None = None
    """The error; None for a bug."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that say what a client can do."""
        headers = []
        if self.retry_after_seconds is not None:  # whole seconds, and never too early
            seconds = max(1, math.ceil(self.retry_after_seconds))
            headers.append((b"retry-after", str(seconds).encode()))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers


Statuses = Mapping[str | type[AttendantError], int]
"""Statuses by codes, or by classes of errors."""


def failure_of(error: AttendantError, own: Statuses) -> Failure:
    """The failure of a call by an error; ``own`` are statuses of a protocol that differ."""
    code, kind = code_of(error), type(error)
    status = own.get(kind) or STATUSES_OF_CLASSES.get(kind) or own.get(code) or STATUSES[code]
    field = error.field if isinstance(error, InvalidRequest) else None
    return Failure(code, status, str(error), field, retry_after(error), error)


def bug(message: str) -> Failure:
    """The failure of a call by an error that is no AttendantError."""
    return Failure(INTERNAL, STATUSES[INTERNAL], message)
