"""How many calls may be in progress at once, and for how long; calls beyond are refused at once.

Health checks and reflection are exempt, so that a busy server still says that it lives. A server
that stops refuses all others.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attendant_server.errors import DeadlineExceeded, QueueFull, Unavailable
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour, Context
from attendant_server.records import Method

RETRY_AFTER_SECONDS = 0.1


class AdmissionInterceptor(AroundInterceptor):
    """Bounds the calls in progress of the package attendant, and the time of each."""

    def __init__(
        self,
        max_concurrent_calls: int,
        max_request_seconds: float,
        on_refused: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._max_concurrent_calls = max_concurrent_calls
        self._max_request_seconds = max_request_seconds
        self._on_refused = on_refused
        self._num_calls = 0
        self._refuses_all = False
        self._may_refuse = asyncio.Event()
        self._may_refuse.set()

    @property
    def num_calls(self) -> int:
        """Calls in progress."""
        return self._num_calls

    def refuse_calls(self) -> None:
        """Refuse every call from now on with Unavailable."""
        self._refuses_all = True

    @contextmanager
    def held_refusals(self) -> Iterator[None]:
        """Let calls that are refused with Unavailable wait for that until the end of the block."""
        self._may_refuse.clear()
        try:
            yield
        finally:
            self._may_refuse.set()

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Count the call in and out, or refuse it; end it with DeadlineExceeded in time."""
        if not method.is_own:
            return await behaviour(request, context)
        if self._refuses_all:
            self._on_refused("unavailable")
            await self._may_refuse.wait()
            raise Unavailable("the server is stopping")
        if self._num_calls >= self._max_concurrent_calls:
            self._on_refused("concurrency")
            raise QueueFull(
                f"{self._num_calls} calls are in progress, at most {self._max_concurrent_calls}",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        self._num_calls += 1
        limit = asyncio.timeout(self._max_request_seconds)
        try:
            async with limit:
                return await behaviour(request, context)
        except TimeoutError as error:
            if not limit.expired():
                raise  # one of the call's own
            raise DeadlineExceeded(
                f"the call took more than {self._max_request_seconds:g} seconds"
            ) from error
        finally:
            self._num_calls -= 1
