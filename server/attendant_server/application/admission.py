"""Admission of calls: limits of concurrent calls, of each caller and of a call's time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, ParamSpec, TypeVar

from attendant_server.application.quotas import CallerQuotas
from attendant_server.errors import DeadlineExceeded, QueueFull, Unavailable

RETRY_AFTER_SECONDS = 0.1

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class CallAdmission:
    """Limits the concurrent calls over all front doors, the callers, and the time of each call."""

    def __init__(
        self,
        max_concurrent_calls: int,
        max_request_seconds: float,
        on_refused: Callable[[str], None],
        quotas: CallerQuotas | None = None,
    ) -> None:
        """``on_refused`` receives the reason of a refusal: ``concurrency`` or ``unavailable``.

        Without ``quotas``, callers have those of their credentials only.
        """
        self._quotas = quotas or CallerQuotas()
        self._max_concurrent_calls = max_concurrent_calls
        self._max_request_seconds = max_request_seconds
        self._on_refused = on_refused
        self._num_calls = 0
        self._is_stopping = asyncio.Event()
        self._may_refuse = asyncio.Event()
        self._may_refuse.set()

    @property
    def num_calls(self) -> int:
        """Calls in progress."""
        return self._num_calls

    def refuse_calls(self) -> None:
        """Refuse every call from now on with Unavailable."""
        self._is_stopping.set()

    async def wait_until_stopping(self) -> None:
        """Wait until every call is refused. Streams then read no further texts."""
        await self._is_stopping.wait()

    async def refuse(self) -> NoReturn:
        """Raise Unavailable, as soon as refusals are no longer held back."""
        await self._may_refuse.wait()
        raise Unavailable("the server is stopping")

    @contextmanager
    def held_refusals(self) -> Iterator[None]:
        """Hold back Unavailable refusals until the end of the block."""
        self._may_refuse.clear()
        try:
            yield
        finally:
            self._may_refuse.set()

    async def run(
        self,
        call: Callable[Arguments, Awaitable[Answer]],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Answer:
        """Await a call and return its answer.

        Raises QueueFull, QuotaExceeded or Unavailable before the call begins, and DeadlineExceeded
        when the call exceeds its time limit.
        """
        return await self._run(self._max_request_seconds, call, *arguments, **options)

    async def run_stream(
        self,
        call: Callable[Arguments, Awaitable[Answer]],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Answer:
        """Like `run`, without a time limit: a stream limits the time of each of its texts."""
        return await self._run(None, call, *arguments, **options)

    async def _run(
        self,
        max_seconds: float | None,
        call: Callable[Arguments, Awaitable[Answer]],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Answer:
        await self._admit()
        self._num_calls += 1
        limit = asyncio.timeout(max_seconds)
        try:
            with self._quotas.call():
                async with limit:
                    return await call(*arguments, **options)
        except TimeoutError as error:
            if not limit.expired():
                raise  # raised by the call itself
            raise DeadlineExceeded(f"the call took more than {max_seconds:g} seconds") from error
        finally:
            self._num_calls -= 1

    async def _admit(self) -> None:
        """Raise QueueFull or Unavailable if the call must be refused."""
        if self._is_stopping.is_set():
            self._on_refused("unavailable")
            await self.refuse()
        if self._num_calls >= self._max_concurrent_calls:
            self._on_refused("concurrency")
            raise QueueFull(
                f"{self._num_calls} calls are in progress, at most {self._max_concurrent_calls}",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
