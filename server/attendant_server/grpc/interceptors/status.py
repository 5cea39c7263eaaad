"""Maps errors to gRPC statuses, by one table, for every call of every service.

Only messages of AttendantErrors reach the caller. For any other error the caller gets an id.
"""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf import duration_pb2, message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from attendant_server import errors, records
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import (
    AroundInterceptor,
    Behaviour,
    Handler,
    behaviour_of,
    with_behaviour,
)
from attendant_server.grpc.interceptors.record import REQUEST_ID
from attendant_server.records import Method

STATUS_CODES: dict[type[errors.AttendantError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.ModelWithoutHead: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ModelFailed: grpc.StatusCode.INTERNAL,
}

logger = logging.getLogger(__name__)


class Undecodable:
    """Stands for a request that cannot be decoded as the expected message."""


class StatusInterceptor(AroundInterceptor):
    """Turns every exception of a call into a status."""

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Wrap the handler so that undecodable requests also fail in `around`."""
        return super().wrap(method, _refusing_undecodable(handler))

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Map the call's exception to a status."""
        try:
            return await behaviour(request, context)
        except errors.AttendantError as error:
            await _abort(context, error)
        except grpc.aio.AbortError:
            raise
        except grpc.aio.InternalError as error:  # The library could not send: the caller has gone.
            raise asyncio.CancelledError from error
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # panics of Rust libraries derive from BaseException
            record = records.current()
            record.reason, request_id = type(error).__name__, record.request_id
            logger.error(
                "event=call_failed method=%s/%s request_id=%s error=%s traceback=%s",
                method.service,
                method.name,
                request_id,
                type(error).__name__,
                # Without the message, which may repeat the caller's text.
                "".join(traceback.format_tb(error.__traceback__)),
            )
            message = f"internal error, logged as {request_id}"
            await _end(context, grpc.StatusCode.INTERNAL, message)


def _refusing_undecodable(handler: Handler) -> Handler:
    deserialize = handler.request_deserializer
    if deserialize is None:
        return handler
    inner = behaviour_of(handler)

    async def behaviour(request: Any, context: Context) -> Any:
        if handler.request_streaming:
            return await inner(_decodable(request), context)
        return await inner(_check(request), context)

    return with_behaviour(handler, behaviour, _tolerant(deserialize))


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def tolerant(content: bytes) -> Any:
        try:
            return deserialize(content)
        except (message.DecodeError, ValueError):  # some deserializers are not protobuf's
            return Undecodable()

    return tolerant


def _check(request: Any) -> Any:
    if isinstance(request, Undecodable):
        raise errors.InvalidRequest("request", "cannot be decoded")
    return request


async def _decodable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _check(request)


async def _abort(context: Context, error: errors.AttendantError) -> None:
    code = next(STATUS_CODES[c] for c in type(error).__mro__ if c in STATUS_CODES)
    status = status_pb2.Status(code=code.value[0], message=str(error))
    record = records.current()
    record.reason = str(error)
    metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID, record.request_id)]
    if isinstance(error, errors.InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.problem
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.QueueFull):
        milliseconds = round(error.retry_after_seconds * 1000)
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(milliseconds)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        metadata.append(("grpc-retry-pushback-ms", str(milliseconds)))
    metadata.extend(rpc_status.to_status(status).trailing_metadata)
    await _end(context, code, str(error), tuple(metadata))


async def _end(
    context: Context,
    code: grpc.StatusCode,
    message: str,
    metadata: tuple[tuple[str, str | bytes], ...] = (),
) -> None:
    """End the call with a status; ignores a caller that has gone."""
    try:
        await context.abort(code, message, trailing_metadata=metadata)
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error
