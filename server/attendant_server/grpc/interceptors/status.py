"""Turns errors into gRPC statuses, for every call of every service."""

import asyncio
from typing import Any, NamedTuple

import grpc
from grpc_status import rpc_status

from attendant_server import errors, records
from attendant_server.call_headers import REQUEST_ID
from attendant_server.error_details import retry_milliseconds, status_of
from attendant_server.failures import code_of, log_bug
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour
from attendant_server.records import Method


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


def _end_of(error: errors.AttendantError) -> End:
    status = status_of(error)
    record = records.current()
    record.reason = error.reason
    metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID, record.request_id)]
    if (milliseconds := retry_milliseconds(error)) is not None:
        metadata.append(("grpc-retry-pushback-ms", str(milliseconds)))
    metadata.extend(rpc_status.to_status(status).trailing_metadata)
    return End(grpc.StatusCode[code_of(error)], str(error), tuple(metadata))


async def _abort(context: Context, end: End) -> None:
    """End the call; ignores a caller that has gone."""
    try:
        await context.abort(end.code, end.message, trailing_metadata=end.metadata)
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error
