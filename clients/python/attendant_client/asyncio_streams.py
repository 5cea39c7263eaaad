"""Texts in pieces; `make clients` generates the synchronous streams from this module.

A stream that fails before its first message is retried like any call. Later it is not retried,
because delivered pieces cannot be taken back.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc

from attendant_client.calls import Call
from attendant_client.closing import AsyncClosing
from attendant_client.connection import CallDefaults
from attendant_client.errors import bad_answer, call_error
from attendant_client.generation_results import Generation
from attendant_client.results import TextResult, Translation
from attendant_client.retries import Attempts

Result = TypeVar("Result", bound=TextResult)


class AsyncTextStream(AsyncIterator[str], Generic[Result]):
    """The pieces of one text, in order; together they are the text.

    Use it as a context manager, or close it, to cancel a call that is not read to its end.
    Iterating raises CallError when the call fails. Use `async with`, `async for`, `await close()`.
    """

    def __init__(
        self,
        call: Call[Result | None],
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
        self._result: Result | None = None
        self._deltas = self._read()

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
        """Cancel the call if it is still running.

        Not while someone else waits for its next piece; closing the client ends such a wait.
        """
        await self._deltas.aclose()

    def _end(self) -> Result:
        """The whole result. Raises RuntimeError before the stream was read to its end."""
        if self._result is None:
            raise RuntimeError("the stream was not read to its end")
        return self._result

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
            metadata=self._defaults.call_metadata(self._request_id, self._call.request),
        )

    def _take(self, response: Any) -> str:
        if self._result is not None:
            raise bad_answer("a stream goes on after its result", self._request_id)
        self._started = True
        self._result = self._call.parse(response, self._request_id)
        return str(response.delta)

    def _finish(self, attempts: Attempts) -> None:
        if self._result is None:
            raise bad_answer("a stream ended without its result", self._request_id)
        attempts.record_success()

    def _wait_seconds_after(self, error: grpc.RpcError, attempts: Attempts) -> float:
        failure = call_error(error, self._request_id)
        if self._started:
            raise failure
        return attempts.wait_seconds_after(failure)


class AsyncTranslationStream(AsyncTextStream[Translation]):
    """The pieces of a translation."""

    @property
    def translation(self) -> Translation:
        """The whole result. Raises RuntimeError before the stream was read to its end."""
        return self._end()


class AsyncGenerationStream(AsyncTextStream[Generation]):
    """The pieces of a continuation."""

    @property
    def generation(self) -> Generation:
        """The whole result. Raises RuntimeError before the stream was read to its end."""
        return self._end()
