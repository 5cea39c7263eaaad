"""A translation in pieces; `make clients` generates the synchronous one from this module.

A stream that fails before its first message is retried like any call. Later it is not retried,
because delivered pieces cannot be taken back.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc

from attendant_client.calls import Call
from attendant_client.closing import AsyncClosing
from attendant_client.connection import CallDefaults
from attendant_client.errors import bad_answer, call_error
from attendant_client.results import Translation
from attendant_client.retries import Attempts


class AsyncTranslationStream(AsyncIterator[str]):
    """The pieces of one translation, in order; together they are its text.

    Use it as a context manager, or close it, to cancel a translation that is not read to its end.
    Iterating raises CallError when the call fails. Use `async with`, `async for`, `await close()`.
    """

    def __init__(
        self,
        call: Call[Translation | None],
        send: Any,
        defaults: CallDefaults,
        closing: AsyncClosing,
        timeout_seconds: float | None,
        request_id: str,
    ) -> None:
        self._call = call
        self._send = send
        self._defaults = defaults
        self._closing = closing
        self._timeout_seconds = timeout_seconds
        self._request_id = request_id
        self._started = False
        self._translation: Translation | None = None
        self._deltas = self._read()

    @property
    def translation(self) -> Translation:
        """The whole result. Raises RuntimeError before the stream was read to its end."""
        if self._translation is None:
            raise RuntimeError("the stream was not read to its end")
        return self._translation

    async def __anext__(self) -> str:
        return await anext(self._deltas)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the translation if it is still running.

        Not while someone else waits for its next piece; closing the client ends such a wait.
        """
        await self._deltas.aclose()

    async def _read(self) -> AsyncGenerator[str, None]:
        attempts = self._defaults.attempts(self._timeout_seconds)
        while True:
            with self._closing.guard():
                stream = self._open(attempts)
            try:
                with self._closing.guard():
                    async for response in stream:
                        if delta := self._take(response):
                            yield delta
                self._finish(attempts)
                return
            except grpc.RpcError as error:
                await self._closing.wait(self._wait_seconds_after(error, attempts))
            finally:
                stream.cancel()

    def _open(self, attempts: Attempts) -> Any:
        return self._send(
            self._call.request,
            timeout=attempts.remaining_seconds(),
            metadata=self._defaults.call_metadata(self._request_id),
        )

    def _take(self, response: Any) -> str:
        if self._translation is not None:
            raise bad_answer("a stream goes on after its translation", self._request_id)
        self._started = True
        self._translation = self._call.parse(response, self._request_id)
        return str(response.delta)

    def _finish(self, attempts: Attempts) -> None:
        if self._translation is None:
            raise bad_answer("a stream ended without its translation", self._request_id)
        attempts.record_success()

    def _wait_seconds_after(self, error: grpc.RpcError, attempts: Attempts) -> float:
        failure = call_error(error, self._request_id)
        if self._started:
            raise failure
        return attempts.wait_seconds_after(failure)
