"""Errors in the form of OpenAI."""

from typing import Any

import msgspec

from attendant_server.http.json_routes import Dialect
from attendant_server.http.statuses import Failure

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}
"""The types of errors by their statuses; ``server_error`` for others."""


class ErrorContent(msgspec.Struct, kw_only=True):
    """One error."""

    message: str
    type: str
    param: str | None = None
    """The field of the request that is bad."""
    code: str | None = None
    """The name of the code of gRPC, in small letters."""


class Error(msgspec.Struct):
    """The answer of a call that has failed."""

    error: ErrorContent


def error_of(failure: Failure) -> Any:
    """The answer of a call that has failed."""
    kind = TYPES.get(failure.status, "server_error")
    code = failure.code.lower()
    return Error(ErrorContent(message=failure.message, type=kind, param=failure.field, code=code))


OPENAI_DIALECT = Dialect("openai", Error, error_of)
