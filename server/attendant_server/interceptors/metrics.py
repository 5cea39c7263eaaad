"""Counts and times every call, under the names that go-grpc-prometheus gave such metrics."""

import asyncio
import time
from typing import Any, Protocol

import grpc

from attendant_server.interceptors.around import AroundInterceptor, Behaviour, Context, Method


class RpcObserver(Protocol):
    """Is told of calls."""

    def on_rpc_started(self, method: Method) -> None:
        """A call has come."""

    def on_rpc_handled(self, method: Method, code: str, seconds: float) -> None:
        """A call has ended with the status ``code``, such as ``OK``."""


class MetricsInterceptor(AroundInterceptor):
    """Reports calls to an observer; must be the outermost interceptor."""

    def __init__(self, observer: RpcObserver) -> None:
        super().__init__()
        self._observer = observer

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Report the call when it comes and when it ends."""
        self._observer.on_rpc_started(method)
        start = time.monotonic()
        code = grpc.StatusCode.OK
        try:
            return await behaviour(request, context)
        except asyncio.CancelledError:
            code = _code_of_cancelled(context)
            raise
        except BaseException:
            code = _code_of_aborted(context)
            raise
        finally:
            self._observer.on_rpc_handled(method, code.name, time.monotonic() - start)


def _code_of_cancelled(context: Context) -> grpc.StatusCode:
    remaining: float | None = context.time_remaining()
    is_expired = remaining is not None and remaining <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if is_expired else grpc.StatusCode.CANCELLED


def _code_of_aborted(context: Context) -> grpc.StatusCode:
    # Older releases of grpc give the number of the code instead of the code.
    found = context.code()
    codes = (code for code in grpc.StatusCode if found in (code, code.value[0]))
    return next(codes, grpc.StatusCode.UNKNOWN)
