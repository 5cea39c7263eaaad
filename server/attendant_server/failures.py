"""Failures of calls, for every front door: the codes of errors, delays, and the log of bugs.

Only messages of AttendantErrors reach the caller. For any other error the caller gets an id.
"""

import logging
import traceback

from attendant_server import errors, records

CODES: dict[type[errors.AttendantError], str] = {
    errors.InvalidRequest: "INVALID_ARGUMENT",
    errors.LanguageUnknown: "INVALID_ARGUMENT",
    errors.CallTooLarge: "INVALID_ARGUMENT",
    errors.ModelNotFound: "NOT_FOUND",
    errors.NoModelForLanguages: "NOT_FOUND",
    errors.ModelNotLoaded: "FAILED_PRECONDITION",
    errors.ModelWithoutHead: "FAILED_PRECONDITION",
    errors.GlossaryNotFound: "NOT_FOUND",
    errors.GlossaryUnreadable: "FAILED_PRECONDITION",
    errors.NotInstalled: "UNIMPLEMENTED",
    errors.Unsupported: "UNIMPLEMENTED",
    errors.Unavailable: "UNAVAILABLE",
    errors.QueueFull: "RESOURCE_EXHAUSTED",
    errors.WaitTooLong: "RESOURCE_EXHAUSTED",
    errors.QuotaExceeded: "RESOURCE_EXHAUSTED",
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
    errors.ModelFailed: "INTERNAL",
    errors.Unauthenticated: "UNAUTHENTICATED",
    errors.PermissionDenied: "PERMISSION_DENIED",
}
"""The name of the gRPC status code of each class of errors."""
INTERNAL = "INTERNAL"

logger = logging.getLogger(__name__)


def code_of(error: errors.AttendantError) -> str:
    """The name of the gRPC status code of an error."""
    return next(CODES[c] for c in type(error).__mro__ if c in CODES)


def retry_after(error: errors.AttendantError) -> float | None:
    """Seconds after which the call may be tried again; None if the error tells nothing."""
    if isinstance(error, errors.QueueFull | errors.QuotaExceeded):
        return error.retry_after_seconds
    return None


def log_bug(error: BaseException) -> str:
    """Log an error that is no AttendantError, and return the message for the caller.

    In the task of the call only.
    """
    record = records.current()
    record.reason, request_id = type(error).__name__, record.request_id
    logger.error(
        "event=call_failed method=%s/%s request_id=%s error=%s traceback=%s",
        record.method.service,
        record.method.name,
        request_id,
        type(error).__name__,
        # Without the message, which may repeat the caller's text.
        "".join(traceback.format_tb(error.__traceback__)),
    )
    return f"internal error, logged as {request_id}"
