"""Makes the record of every call and passes it to the observer."""

import asyncio
import re
import time
from typing import Any
from urllib.parse import unquote

import grpc

from attendant_server import records
from attendant_server.call_headers import REQUEST_ID, TRACE, request_id
from attendant_server.engine.calls import is_cancelled_by_deadline
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour
from attendant_server.records import CallObserver, CallRecord, Method

_FIT_ADDRESS = re.compile(r"[\w.:%\[\]-]{1,100}", re.ASCII)


class RecordInterceptor(AroundInterceptor):
    """Passes every call to an observer; must be the outermost interceptor.

    The trailing metadata holds the request id.
    """

    def __init__(self, observer: CallObserver) -> None:
        super().__init__()
        self._observer = observer

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Keep the record of the call."""
        metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
        record = CallRecord(
            method, request_id(metadata.get(REQUEST_ID, "")), address_of(context.peer())
        )
        record.on_part_ended = self._observer.on_part_ended
        records.begin(record)
        context.set_trailing_metadata(((REQUEST_ID, record.request_id),))
        if "traceparent" in metadata:
            record.traced_by = {name: metadata[name] for name in TRACE if name in metadata}
        self._observer.on_call_started(record)
        try:
            return await behaviour(request, context)
        except asyncio.CancelledError:
            record.code = (_code_of_aborted(context) or _code_of_cancelled(context)).name
            raise
        except BaseException:
            record.code = (_code_of_aborted(context) or grpc.StatusCode.UNKNOWN).name
            raise
        finally:
            record.ended = time.monotonic()
            self._observer.on_call_ended(record)


def address_of(peer: str) -> str:
    """``host:port`` of a peer, from gRPC's name for it, or ``unix`` or ``unknown``.

    Callers choose the names of their unix sockets, so the log must not contain them.
    """
    kind, _, address = unquote(peer).partition(":")
    if kind in ("ipv4", "ipv6") and _FIT_ADDRESS.fullmatch(address):
        return address
    return "unix" if kind in ("unix", "unix-abstract") else "unknown"


def _code_of_cancelled(context: Context) -> grpc.StatusCode:
    is_expired = is_cancelled_by_deadline(context.time_remaining())
    return grpc.StatusCode.DEADLINE_EXCEEDED if is_expired else grpc.StatusCode.CANCELLED


def _code_of_aborted(context: Context) -> grpc.StatusCode | None:
    """The status that the call was aborted with, even if its caller had already gone."""
    # Older releases of grpc return the code's number instead of the code.
    found = context.code()
    codes = (code for code in grpc.StatusCode if found in (code, code.value[0]))
    return next((code for code in codes if code is not grpc.StatusCode.OK), None)
