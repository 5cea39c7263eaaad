"""Runs calls of HTTP: record, authentication, body, admission, errors, answer.

What the interceptors of gRPC do, in the same order and with the same parts of the application.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any

from attendant_server import records
from attendant_server.addresses import joined
from attendant_server.application.admission import CallAdmission
from attendant_server.application.arrivals import MAX_STRANGERS_BYTES, Arrivals
from attendant_server.application.held_memory import HeldCall, HeldMemory
from attendant_server.application.operations import begin_operation
from attendant_server.call_headers import (
    AUTHORIZATION,
    CALL_CLASS,
    REQUEST_ID,
    TRACE,
    is_bulk,
    request_id,
)
from attendant_server.callers import CONTROL_METHODS, Identity
from attendant_server.drain import CallTracker
from attendant_server.errors import AttendantError, Unavailable
from attendant_server.failures import log_bug
from attendant_server.foreign_methods import HTTP
from attendant_server.http.connection import CONNECTION
from attendant_server.http.exchanges import Call, CallerGone, Receive, Response, Route, Send, Stream
from attendant_server.http.statuses import Failure, RequestTooLarge, bug, failure_of
from attendant_server.records import CallObserver, CallRecord
from attendant_server.security.authentication import Authenticator, caller_of_certificate
from attendant_server.security.security import Security

PART_BYTES = 65536
"""Bytes of an answer that are given to the transport together."""
SCHEME = "Bearer "
END_SECONDS = 1.0
"""Time that clients have to take the last answers of a server that has stopped."""


class CallRunner:
    """Runs calls with the limits of the server."""

    def __init__(
        self,
        observer: CallObserver,
        tracker: CallTracker,
        security: Security,
        arrivals: Arrivals,
        admission: CallAdmission,
        memory: HeldMemory,
        max_request_bytes: int,
        stalled_seconds: float,
    ) -> None:
        """``stalled_seconds``: the time that a client has to take sent bytes."""
        self._observer, self._tracker = observer, tracker
        self._authenticator: Authenticator | None = security.authenticator
        self._needs_certificates = security.needs_certificates
        self._arrivals, self._admission, self._memory = arrivals, admission, memory
        self._max_request_bytes, self._stalled_seconds = max_request_bytes, stalled_seconds
        self._calls: dict[asyncio.Task[Any], Call] = {}

    async def run(self, route: Route, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request."""
        call, task = self._begun(route, scope), asyncio.current_task()
        assert task is not None
        self._calls[task] = call
        call.connection.call = task
        try:
            await self._answer(route, call, receive, send)
        except CallerGone:
            call.record.code = "CANCELLED"
            call.connection.abort()
        except asyncio.CancelledError:
            with suppress(CallerGone, asyncio.CancelledError):  # the client does not read
                await self._end_cancelled(route, call, send)
        finally:
            call.connection.call = None
            del self._calls[task]
            self._tracker.end(call)
            call.record.ended = time.monotonic()
            self._observer.on_call_ended(call.record)

    async def stop(self) -> None:
        """End the calls in progress with Unavailable."""
        for task, call in self._calls.items():
            call.is_stopped = True
            task.cancel()
        if self._calls:
            await asyncio.wait(list(self._calls), timeout=END_SECONDS)

    def _begun(self, route: Route, scope: Any) -> Call:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        client = scope["client"]
        peer = joined(*client) if client else "unknown"
        record = CallRecord(route.method, request_id(headers.get(REQUEST_ID, "")), peer)
        record.on_part_ended = self._observer.on_part_ended
        if TRACE[0] in headers:
            record.traced_by = {name: headers[name] for name in TRACE if name in headers}
        records.begin(record)
        call = Call(record, scope, headers, scope[CONNECTION])
        self._observer.on_call_started(record)
        self._tracker.begin(call)
        return call

    async def _answer(self, route: Route, call: Call, receive: Receive, send: Send) -> None:
        held: HeldCall | None = None
        try:
            route.begin(call)
            body = await self._body(route, call, receive)
            answer: Response | Stream | None
            if not route.method.serves_models or route.method.operation in CONTROL_METHODS:
                answer = await route.answer(call, body)
            else:
                held = self._held(call, len(body))
                answer = await self._admission.run(self._answered, route, call, body, send)
                held.answer(0 if answer is None else len(answer.body))
            if isinstance(answer, Response):  # a stream has been sent
                await self._send_whole(call, answer, send)
        except AttendantError as error:
            call.record.reason = error.reason
            await self._fail(route, call, failure_of(error, route.statuses), send)
        except (CallerGone, asyncio.CancelledError):
            raise
        except BaseException as error:  # panics of Rust libraries derive from BaseException
            await self._fail(route, call, bug(log_bug(error)), send)
        finally:
            if held is not None:
                held.release()

    def _held(self, call: Call, num_bytes: int) -> HeldCall:
        """Note the class of the call, and count its body as held. Raises AttendantError."""
        if (given := call.headers.get(CALL_CLASS)) is not None:
            call.record.is_bulk = is_bulk(given)
        held = self._memory.hold(call.record.engine_caller.name, num_bytes)
        held.make_current()
        return held

    async def _answered(self, route: Route, call: Call, body: bytes, send: Send) -> Response | None:
        """The answer; None if it was a stream, which has been sent."""
        answer = await route.answer(call, body)
        if isinstance(answer, Response):
            return answer
        async with aclosing(answer.pieces) as pieces:
            async for piece in pieces:
                if call.stream is None:
                    await self._begin_answer(call, answer.content_type, 200, answer.headers, send)
                    call.stream = answer
                await self._send_part(call, piece, True, send)
        await self._send_part(call, b"", False, send)
        return None

    async def _body(self, route: Route, call: Call, receive: Receive) -> bytes:
        """The body of the request of an authenticated caller who may call the method."""
        is_open = self._authenticator is None and not self._needs_certificates
        if is_open or route.method.service == HTTP:
            return await self._received(call, receive)
        if not route.has_key or self._authenticator is None or AUTHORIZATION in call.headers:
            self._identify(route, call, await self._caller(call))
            return await self._received(call, receive)
        body = await self._received(call, receive, is_stranger=True)
        key = route.key(call, body)
        self._identify(route, call, await self._authenticator.caller([SCHEME + key] if key else []))
        return body

    def _identify(self, route: Route, call: Call, caller: Identity) -> None:
        """Note the caller; raises PermissionDenied if it may not call the method."""
        call.record.caller = caller
        if operation := route.method.operation:
            begin_operation(operation)

    async def _caller(self, call: Call) -> Identity:
        if self._authenticator is None:
            return caller_of_certificate(next(iter(call.connection.certificate_names), ""))
        name = AUTHORIZATION.encode()
        found = [value for key, value in call.scope["headers"] if key == name]
        return await self._authenticator.caller([each.decode("latin-1") for each in found])

    async def _received(self, call: Call, receive: Receive, is_stranger: bool = False) -> bytes:
        arrivals, most = self._arrivals.calls, self._max_request_bytes
        if is_stranger:
            arrivals, most = self._arrivals.strangers, min(most, MAX_STRANGERS_BYTES)
        elif call.record.method.service == HTTP:
            arrivals = self._arrivals.health
        length = call.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise _too_large(most)
        if length in ("", "0") and "transfer-encoding" not in call.headers:
            return b""
        call.is_receiving = True
        try:
            name = call.record.engine_caller.name
            return await arrivals.receive(name, lambda: _read(receive, most))
        finally:
            call.is_receiving = False

    async def _fail(self, route: Route, call: Call, failure: Failure, send: Send) -> None:
        call.record.code = failure.code
        if call.stream is not None:
            await self._send_part(call, call.stream.failed(failure), False, send)
        elif call.has_begun_answer:
            call.connection.abort()
        else:
            await self._send_whole(call, route.failed(failure), send)

    async def _end_cancelled(self, route: Route, call: Call, send: Send) -> None:
        """End a call whose client has gone, or which a stop of the server does not wait for."""
        if call.is_stopped:
            error = Unavailable("the server is stopping")
            call.record.reason = error.reason
            await self._fail(route, call, failure_of(error, route.statuses), send)
        else:
            call.record.code = "CANCELLED"

    async def _send_whole(self, call: Call, answer: Response, send: Send) -> None:
        body = answer.body
        headers = list(answer.headers)
        # Where nothing has changed, it would be the length of what is not sent.
        if answer.status != HTTPStatus.NOT_MODIFIED:
            headers.append((b"content-length", str(len(body)).encode()))
        await self._begin_answer(call, answer.content_type, answer.status, headers, send)
        for start in range(0, max(1, len(body)), PART_BYTES):
            part, end = body[start : start + PART_BYTES], start + PART_BYTES
            await self._send_part(call, part, end < len(body), send)

    async def _begin_answer(
        self,
        call: Call,
        content_type: bytes,
        status: int,
        headers: Sequence[tuple[bytes, bytes]],
        send: Send,
    ) -> None:
        call.has_begun_answer = True
        request_id = (REQUEST_ID.encode(), call.record.request_id.encode())
        sent = [(b"content-type", content_type), request_id, *headers]
        message = {"type": "http.response.start", "status": status, "headers": sent}
        await self._sent(call, message, send)

    async def _send_part(self, call: Call, part: bytes, has_more: bool, send: Send) -> None:
        message = {"type": "http.response.body", "body": part, "more_body": has_more}
        await self._sent(call, message, send)

    async def _sent(self, call: Call, message: Any, send: Send) -> None:
        """Send a part once the client has taken earlier ones; raises CallerGone."""
        call.sending_since = time.monotonic()
        try:
            if not call.connection.flow.write_paused:
                await send(message)
                return
            async with asyncio.timeout(self._stalled_seconds):
                await send(message)
        except TimeoutError:
            raise CallerGone from None
        finally:
            call.sending_since = None


async def _read(receive: Receive, max_bytes: int) -> bytes:
    """The whole body; raises RequestTooLarge or CallerGone."""
    message = await receive()
    if message["type"] == "http.request" and not message["more_body"]:
        if len(message["body"]) > max_bytes:
            raise _too_large(max_bytes)
        body: bytes = message["body"]
        return body
    parts = bytearray()
    while message["type"] == "http.request":
        parts += message["body"]
        if len(parts) > max_bytes:
            raise _too_large(max_bytes)
        if not message["more_body"]:
            return bytes(parts)
        message = await receive()
    raise CallerGone


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge("body", f"at most {max_bytes} bytes")
