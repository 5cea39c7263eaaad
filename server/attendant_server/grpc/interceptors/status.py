"""Turns errors into gRPC statuses, for every call of every service."""

import asyncio
from typing import Any, NamedTuple

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from attendant_server import errors, failures, records
from attendant_server.call_headers import REQUEST_ID
from attendant_server.failures import log_bug, retry_after
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour
from attendant_server.records import Method

DOMAIN = "attendant"
"""The domain of the reasons of google.rpc.ErrorInfo."""
TOO_LARGE = "CALL_TOO_LARGE"
"""The reason for calls that may succeed with fewer texts."""
LANGUAGE_UNKNOWN = "LANGUAGE_UNKNOWN"
"""The reason for languages that the named model lacks, or that no model has."""


class End(NamedTuple):
    """The end of a call that has failed."""

    code: grpc.StatusCode
    message: str
    metadata: tuple[tuple[str, str | bytes], ...] = ()


class StatusInterceptor(AroundInterceptor):
    """Turns every exception of a call into a status."""

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Map the call's exception to a status."""
        try:
            return await behaviour(request, context)
        except errors.AttendantError as error:
            end = _end_of(error)
        except grpc.aio.AbortError:
            raise
        except grpc.aio.InternalError as error:  # The library could not send: the caller has gone.
            raise asyncio.CancelledError from error
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # panics of Rust libraries derive from BaseException
            end = End(grpc.StatusCode.INTERNAL, log_bug(error))
        # The library keeps the exception of an abort until garbage is collected. While an error is
        # handled, the error would be its context, with all that the call has read and made so far.
        return await _abort(context, end)


def code_of(error: errors.AttendantError) -> grpc.StatusCode:
    """The status code of an error."""
    return grpc.StatusCode[failures.code_of(error)]


def _end_of(error: errors.AttendantError) -> End:
    code = code_of(error)
    status = status_pb2.Status(code=code.value[0], message=str(error))
    record = records.current()
    record.reason = error.reason
    metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID, record.request_id)]
    if isinstance(error, errors.InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.problem
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if (info := _info(error)) is not None:
        status.details.add().Pack(info)
    if (seconds := retry_after(error)) is not None:
        milliseconds = round(seconds * 1000)
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(milliseconds)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        metadata.append(("grpc-retry-pushback-ms", str(milliseconds)))
    metadata.extend(rpc_status.to_status(status).trailing_metadata)
    return End(code, str(error), tuple(metadata))


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


async def _abort(context: Context, end: End) -> None:
    """End the call; ignores a caller that has gone."""
    try:
        await context.abort(end.code, end.message, trailing_metadata=end.metadata)
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error
