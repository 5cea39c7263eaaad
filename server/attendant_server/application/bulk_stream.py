"""Streams of texts: each text is answered by itself, many at the same time, in their order."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from attendant_server import records
from attendant_server.application.admission import CallAdmission
from attendant_server.application.answers import Answer
from attendant_server.application.held_memory import current_hold
from attendant_server.application.quotas import current_usage
from attendant_server.application.validation import RequestLimits
from attendant_server.engine.calls import is_cancelled_by_deadline
from attendant_server.errors import (
    AttendantError,
    DeadlineExceeded,
    InvalidRequest,
    ModelFailed,
    ModelNotFound,
    PermissionDenied,
    QuotaExceeded,
    Unavailable,
)
from attendant_server.records import CallRecord

MAX_UNANSWERED_TEXTS = 256
"""Texts of one stream that are read and not answered, unless a call may have fewer texts."""
MAX_UNANSWERED_CHARACTERS = 100_000
"""No further text of a stream is read while the unanswered ones have more characters than this."""
MEMORY_POLL_SECONDS = 0.1

AnyAnswer = TypeVar("AnyAnswer", bound=Answer)


@dataclass(frozen=True, slots=True)
class BulkText:
    """One text of a stream."""

    id: str
    text: str
    num_bytes: int
    """The size of its message."""


@dataclass(frozen=True, slots=True)
class BulkResult(Generic[AnyAnswer]):
    """The answer to one text, or its fault."""

    text: BulkText
    model: str
    """The model of the stream, as ``name/version``."""
    answer: AnyAnswer | AttendantError


@dataclass(slots=True)
class _Entry(Generic[AnyAnswer]):
    """A text that was read and not answered."""

    text: BulkText
    record: CallRecord
    num_held_bytes: int
    counted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the text has passed the quotas, or failed."""
    is_reported: bool = False
    task: "asyncio.Task[AnyAnswer | AttendantError] | None" = None


class StreamTime:
    """The time until the caller's deadline of a stream."""

    def __init__(self, seconds_left: float | None) -> None:
        """None for no deadline."""
        self._end = None if seconds_left is None else time.monotonic() + seconds_left

    def seconds_left(self) -> float | None:
        """Seconds until the deadline; None if there is none."""
        return None if self._end is None else self._end - time.monotonic()


class BulkStream(Generic[AnyAnswer]):
    """The texts of one stream that are being answered.

    A text joins as soon as one leaves, so that the engine always has texts to choose from. The
    oldest text leaves once its answer was taken. No text is read before there is room for it: at
    most `MAX_UNANSWERED_TEXTS` texts.
    """

    def __init__(
        self,
        answer: Callable[[int, BulkText], Awaitable[AnyAnswer]],
        num_bytes: Callable[[AnyAnswer], int],
        limits: RequestLimits,
        admission: CallAdmission,
        time_limit: StreamTime,
    ) -> None:
        """A stream of the running task's call, whose record has the key of the model.

        ``answer`` answers the text with a number, from 0, or raises its fault. ``num_bytes`` is the
        approximate size of an answer.
        """
        self._answer_text, self._num_bytes = answer, num_bytes
        self._limits, self._admission, self._time = limits, admission, time_limit
        self._record, self._usage, self._held = records.current(), current_usage(), current_hold()
        self._entries: deque[_Entry[AnyAnswer]] = deque()
        self._num_characters = 0
        self._has_come, self._has_left = asyncio.Event(), asyncio.Event()

    async def results(
        self, texts: AsyncIterator[BulkText]
    ) -> AsyncGenerator[BulkResult[AnyAnswer], None]:
        """The result of each text, in order, until the texts end.

        An error of ``texts``, or one that ends the stream, is raised after the results of the texts
        before it. Raises Unavailable once the server is stopping and all texts that were read have
        been answered, if the model is unloaded, or if no text comes for ``max_request_seconds``.
        """
        reading = asyncio.ensure_future(self._read(texts))
        reading.add_done_callback(lambda _: self._has_come.set())
        stopping = asyncio.ensure_future(self._admission.wait_until_stopping())
        stopping.add_done_callback(lambda _: reading.cancel())
        try:
            while await self._has_next(reading):
                entry = self._entries[0]
                assert entry.task is not None
                result = await entry.task
                self._report(entry)
                yield BulkResult(entry.text, self._record.model, result)
                self._leave()
            if reading.cancelled():
                await self._admission.refuse()
            reading.result()
        finally:
            await self._abandon(stopping, reading)

    def _report(self, entry: _Entry[AnyAnswer]) -> None:
        if not entry.is_reported:
            entry.is_reported = True
            self._record.add(entry.record)

    async def _has_next(self, reading: asyncio.Task[None]) -> bool:
        """Wait for a text; returns whether there is one."""
        if not self._entries:
            seconds = self._limits.max_request_seconds
            try:
                async with asyncio.timeout(seconds):
                    while not self._entries and not reading.done():
                        self._has_come.clear()
                        await self._has_come.wait()
            except TimeoutError:
                raise Unavailable(f"no text was read for {seconds:g} seconds") from None
        return bool(self._entries)

    async def _read(self, texts: AsyncIterator[BulkText]) -> None:
        """Read all texts, each once there is room, and begin to answer them."""
        for number in count():
            await self._wait_for_room()
            text = await anext(texts, None)
            if text is None:
                return
            while not self._held.has_room(text.num_bytes):
                await asyncio.sleep(MEMORY_POLL_SECONDS)
            entry = self._begin(number, text)
            if self._usage.has_rates:
                # Texts pass the quotas in order, and the next one is not read before.
                await entry.counted.wait()

    async def _wait_for_room(self) -> None:
        max_texts = min(MAX_UNANSWERED_TEXTS, self._limits.max_texts)
        while len(self._entries) >= max_texts or self._num_characters > MAX_UNANSWERED_CHARACTERS:
            self._has_left.clear()
            await self._has_left.wait()

    def _begin(self, number: int, text: BulkText) -> _Entry[AnyAnswer]:
        entry = _Entry[AnyAnswer](text, self._record.of_text(), text.num_bytes)
        self._held.add(text.num_bytes)
        self._num_characters += len(text.text)
        self._entries.append(entry)
        self._record.num_unanswered_texts = len(self._entries)
        self._has_come.set()
        entry.task = asyncio.ensure_future(self._answer(number, entry))
        entry.task.add_done_callback(lambda _: entry.counted.set())
        return entry

    def _leave(self) -> None:
        """Remove the oldest text."""
        entry = self._entries.popleft()
        self._held.add(-entry.num_held_bytes)
        self._num_characters -= len(entry.text.text)
        self._record.num_unanswered_texts = len(self._entries)
        self._has_left.set()

    async def _answer(self, number: int, entry: _Entry[AnyAnswer]) -> AnyAnswer | AttendantError:
        """The answer to a text, or its fault; raises what ends the stream."""
        try:
            answer = await self._admitted_answer(number, entry)
        except (ModelNotFound, PermissionDenied):  # the latter if other models may be used
            raise Unavailable(f"{self._record.model} has been unloaded") from None
        except DeadlineExceeded as error:
            if is_cancelled_by_deadline(self._time.seconds_left()):
                raise
            return error
        except (InvalidRequest, ModelFailed, QuotaExceeded) as fault:
            entry.record.num_invalid_texts = int(isinstance(fault, InvalidRequest))
            return fault
        finally:
            entry.record.ended = time.monotonic()
        num_bytes = self._num_bytes(answer)
        self._held.add(num_bytes - entry.num_held_bytes)
        entry.num_held_bytes = num_bytes
        return answer

    async def _admitted_answer(self, number: int, entry: _Entry[AnyAnswer]) -> AnyAnswer:
        """The answer, as soon as the quotas allow it; raises QuotaExceeded if they never do."""
        while True:
            entry.record = self._record.of_text()
            records.begin(entry.record)
            usage = self._usage.of_text(entry.record, entry.counted.set)
            try:
                with usage.counting():
                    return await self._answer_text(number, entry.text)
            except QuotaExceeded as error:
                if error.retry_after_seconds is None:
                    raise
                await self._wait_for_quota(error.retry_after_seconds)

    async def _wait_for_quota(self, seconds: float) -> None:
        """Wait; raises Unavailable if the server is stopping."""
        try:
            async with asyncio.timeout(seconds):
                await self._admission.wait_until_stopping()
        except TimeoutError:
            return
        await self._admission.refuse()

    async def _abandon(self, *waiting: asyncio.Task[None]) -> None:
        """End the reading, and abandon the texts that are left."""
        tasks = [entry.task for entry in self._entries if entry.task is not None]
        for task in [*waiting, *tasks]:
            task.cancel()
        await asyncio.gather(*waiting, *tasks, return_exceptions=True)
        while self._entries:
            if self._entries[0].record.ended is not None:  # otherwise, its task was never begun
                self._report(self._entries[0])
            self._leave()
