"""Errors as google.rpc.Status, with what a program can read of them, for gRPC and Connect."""

from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from attendant_server import errors
from attendant_server.failures import code_of, retry_after

DOMAIN = "attendant"
"""The domain of the reasons of google.rpc.ErrorInfo."""
TOO_LARGE = "CALL_TOO_LARGE"
"""The reason for calls that may succeed with fewer texts."""
LANGUAGE_UNKNOWN = "LANGUAGE_UNKNOWN"
"""The reason for languages that the named model lacks, or that no model has."""


def status_of(error: errors.AttendantError) -> status_pb2.Status:
    """The status of an error, with its details: BadRequest, ErrorInfo and RetryInfo."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code_of(error)), message=str(error))
    if isinstance(error, errors.InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.problem
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if (info := _info(error)) is not None:
        status.details.add().Pack(info)
    if (milliseconds := retry_milliseconds(error)) is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(milliseconds)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def retry_milliseconds(error: errors.AttendantError) -> int | None:
    """Milliseconds after which the call may be tried again; None if the error tells nothing."""
    seconds = retry_after(error)
    return None if seconds is None else round(seconds * 1000)


def _info(error: errors.AttendantError) -> error_details_pb2.ErrorInfo | None:
    """What a program should know of an error beyond its code; None for most errors."""
    if isinstance(error, errors.CallTooLarge):
        limits = {} if error.max_texts is None else {"max_texts": str(error.max_texts)}
        return error_details_pb2.ErrorInfo(reason=TOO_LARGE, domain=DOMAIN, metadata=limits)
    if isinstance(error, errors.LanguageUnknown | errors.NoModelForLanguages):
        return error_details_pb2.ErrorInfo(
            reason=LANGUAGE_UNKNOWN, domain=DOMAIN, metadata=error.languages
        )
    return None
