"""The results of a bulk call; `make clients` generates the synchronous one from this module."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Any, Generic, Self

import grpc

from attendant_client.bulk_calls import BulkCall
from attendant_client.bulk_input import AsyncBulkInput, AsyncTexts
from attendant_client.calls import Result
from attendant_client.closing import AsyncClosing
from attendant_client.connection import CallDefaults
from attendant_client.errors import bad_answer, stream_error
from attendant_client.retries import Attempts


class AsyncBulkResults(AsyncIterator[Result], Generic[Result]):
    """The results of a bulk call, in the order of its texts.

    The call starts, and the texts are read, when the first result is requested. When a server ends
    the call, as a stopping one does, the texts without an answer are sent in another call. Use it
    as a context manager, or close it, to cancel a call that is not read to its end. Iterating
    raises CallError when the call fails, and whatever reading the texts raises, after the results
    of the texts before. Use `async with`, `async for`, `await close()`.
    """

    def __init__(
        self,
        call: BulkCall[Result],
        texts: AsyncTexts,
        send: Any,
        defaults: CallDefaults,
        closing: AsyncClosing,
        timeout_seconds: float | None,
        request_id: str,
    ) -> None:
        if isinstance(texts, str):
            raise TypeError("texts must be texts, or pairs of an id and a text, not one str")
        self._call = call
        self._input = AsyncBulkInput(texts)
        self._send = send
        self._defaults = defaults
        self._closing = closing
        self._timeout_seconds = timeout_seconds
        self._request_id = request_id
        self._results: deque[Result] = deque()
        self._answers = self._read()

    async def __anext__(self) -> Result:
        while not self._results:
            self._results.extend(await anext(self._answers))
        return self._results.popleft()

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

        Not while someone else waits for its next result; closing the client ends such a wait.
        """
        self._results.clear()
        await self._answers.aclose()

    async def _read(self) -> AsyncGenerator[list[Result], None]:
        """The results in each response."""
        attempts = self._defaults.stream_attempts(self._timeout_seconds)
        try:
            while await self._input.has_more():
                with self._closing.guard():
                    stream = self._open(attempts)
                try:
                    with self._closing.guard():
                        await stream.initial_metadata()  # comes once the settings are accepted
                        self._input.release()
                        async for response in stream:
                            attempts.record_progress()
                            yield self._take(response)
                    await self._check_end()
                except grpc.RpcError as error:
                    await self._closing.wait(self._wait_seconds_after(error, attempts))
                finally:
                    stream.cancel()
            attempts.record_success()
        finally:
            self._input.close()
        if self._input.failure is not None:
            raise self._input.failure

    def _open(self, attempts: Attempts) -> Any:
        return self._send(
            self._input.messages(self._call),
            timeout=attempts.timeout_seconds(),
            metadata=self._defaults.call_metadata(self._request_id, self._call.request),
        )

    def _take(self, response: Any) -> list[Result]:
        texts = self._input.take(len(response.ids))
        if not texts:
            raise bad_answer("a stream has more results than texts", self._request_id)
        return self._call.results(response, texts, self._request_id)

    async def _check_end(self) -> None:
        if await self._input.has_more():
            raise bad_answer("a stream ended before all texts were answered", self._request_id)

    def _wait_seconds_after(self, error: grpc.RpcError, attempts: Attempts) -> float:
        failure = stream_error(error, self._request_id)
        if self._input.has_refused(failure):
            return 0.0
        return attempts.wait_seconds_after(failure)
