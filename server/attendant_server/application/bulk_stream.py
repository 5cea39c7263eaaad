"""Streams of texts: parts of them are answered at the same time, and leave in their order."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

from attendant_server import records
from attendant_server.application.admission import CallAdmission
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
"""Texts of one stream that are begun and not answered, unless a call may have fewer texts."""
MAX_UNANSWERED_CHARACTERS = 100_000
"""No further text of a stream is begun while the unanswered ones have more characters than this."""
NUM_PARTS = 8
"""Full parts of a stream that may be unanswered. With fewer and larger ones, the engine would have
too few texts to choose from while a part waits for its longest text."""
MEMORY_POLL_SECONDS = 0.1


class StreamItem(Protocol):
    """What is answered in a stream."""

    @property
    def num_bytes(self) -> int:
        """The size of its message."""

    @property
    def num_characters(self) -> int:
        """Characters of its texts."""


Item = TypeVar("Item", bound=StreamItem)
AnyAnswer = TypeVar("AnyAnswer")


@dataclass(frozen=True, slots=True)
class BulkText:
    """One text of a stream."""

    id: str
    text: str
    num_bytes: int
    """The size of its message."""

    @property
    def num_characters(self) -> int:
        """Length of the text."""
        return len(self.text)


@dataclass(frozen=True, slots=True)
class BulkResult(Generic[Item, AnyAnswer]):
    """The answer to texts that follow one another, or the fault of one text."""

    texts: Sequence[Item]
    model: str
    """The model of the stream, as ``name/version``."""
    answer: AnyAnswer | AttendantError


@dataclass(slots=True)
class _Part(Generic[Item, AnyAnswer]):
    """Texts that were begun and not answered."""

    number: int
    """The number of the first text, from 0."""
    texts: Sequence[Item]
    num_held_bytes: int
    records: dict[int, CallRecord] = field(default_factory=dict)
    """The record of the part by its number, or those of its texts by their numbers."""
    num_counted: dict[int, int] = field(default_factory=dict)
    """How many texts from each number on have passed the quotas together."""
    counted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once all texts have passed the quotas, or failed."""
    is_reported: bool = False
    task: "asyncio.Task[Sequence[BulkResult[Item, AnyAnswer]]] | None" = None

    def count(self, number: int, num_texts: int) -> None:
        """Note that texts, of which the first one has a number, have passed the quotas."""
        self.num_counted[number] = num_texts
        if sum(self.num_counted.values()) == len(self.texts):
            self.counted.set()


class StreamTime:
    """The time until the caller's deadline of a stream."""

    def __init__(self, seconds_left: float | None) -> None:
        """None for no deadline."""
        self._end = None if seconds_left is None else time.monotonic() + seconds_left

    def seconds_left(self) -> float | None:
        """Seconds until the deadline; None if there is none."""
        return None if self._end is None else self._end - time.monotonic()


class BulkStream(Generic[Item, AnyAnswer]):
    """The texts of one stream that are being answered.

    Texts that came in one message are answered in parts, each like a call. A part joins as soon as
    there is room, so that the engine always has texts to choose from. The oldest part leaves once
    its answer was taken. No message is read while `MAX_UNANSWERED_TEXTS` texts are unanswered.
    """

    def __init__(
        self,
        answer: Callable[[int, Sequence[Item]], Awaitable[AnyAnswer]],
        num_bytes: Callable[[AnyAnswer], int],
        limits: RequestLimits,
        admission: CallAdmission,
        time_limit: StreamTime,
    ) -> None:
        """A stream of the running task's call, whose record has the key of the model.

        ``answer`` answers texts, of which the first one has a number, from 0, or raises a fault.
        ``num_bytes`` is the approximate size of an answer.
        """
        self._answer_texts, self._num_bytes = answer, num_bytes
        self._limits, self._admission, self._time = limits, admission, time_limit
        self._record, self._usage, self._held = records.current(), current_usage(), current_hold()
        self._max_texts = min(MAX_UNANSWERED_TEXTS, limits.max_texts)
        self._parts: deque[_Part[Item, AnyAnswer]] = deque()
        self._num_characters = 0
        self._has_come, self._has_left = asyncio.Event(), asyncio.Event()

    async def results(
        self, messages: AsyncIterator[Sequence[Item]]
    ) -> AsyncGenerator[BulkResult[Item, AnyAnswer], None]:
        """The results of the texts, in order, until the messages end.

        An error of ``messages``, or one that ends the stream, is raised after the results of the
        texts before it. Raises Unavailable once the server is stopping and all texts that were
        begun have been answered, if the model is unloaded, or if no text comes for
        ``max_request_seconds``.
        """
        reading = asyncio.ensure_future(self._read(messages))
        reading.add_done_callback(lambda _: self._has_come.set())
        stopping = asyncio.ensure_future(self._admission.wait_until_stopping())
        stopping.add_done_callback(lambda _: reading.cancel())
        try:
            while await self._has_next(reading):
                part = self._parts[0]
                assert part.task is not None
                results = await part.task
                self._report(part)
                for result in results:
                    yield result
                self._leave()
            if reading.cancelled():
                await self._admission.refuse()
            reading.result()
        finally:
            await self._abandon(stopping, reading)

    def _report(self, part: _Part[Item, AnyAnswer]) -> None:
        if not part.is_reported:
            part.is_reported = True
            for record in part.records.values():
                self._record.add(record)

    async def _has_next(self, reading: asyncio.Task[None]) -> bool:
        """Wait for texts; returns whether there are any."""
        if not self._parts:
            seconds = self._limits.max_request_seconds
            try:
                async with asyncio.timeout(seconds):
                    while not self._parts and not reading.done():
                        self._has_come.clear()
                        await self._has_come.wait()
            except TimeoutError:
                raise Unavailable(f"no text was read for {seconds:g} seconds") from None
        return bool(self._parts)

    async def _read(self, messages: AsyncIterator[Sequence[Item]]) -> None:
        """Read all messages, each once there is room, and begin to answer their texts."""
        number = 0
        while True:
            await self._wait_for_room(1)
            message = await anext(messages, None)
            if message is None:
                return
            for texts in self._in_parts(message):
                await self._wait_for_room(len(texts))
                await self._begin(number, texts)
                number += len(texts)

    def _in_parts(self, message: Sequence[Item]) -> Iterator[Sequence[Item]]:
        max_texts = max(1, self._max_texts // NUM_PARTS)
        part: list[Item] = []
        num_characters = 0
        for text in message:
            num_characters += text.num_characters
            is_long = num_characters > MAX_UNANSWERED_CHARACTERS // NUM_PARTS
            if part and (is_long or len(part) == max_texts):
                yield part
                part, num_characters = [], text.num_characters
            part.append(text)
        if part:
            yield part

    async def _wait_for_room(self, num_texts: int) -> None:
        while self._parts and (
            self._record.num_unanswered_texts + num_texts > self._max_texts
            or self._num_characters > MAX_UNANSWERED_CHARACTERS
        ):
            self._has_left.clear()
            await self._has_left.wait()

    async def _begin(self, number: int, texts: Sequence[Item]) -> None:
        """Begin to answer texts once there is memory; return once the next ones may begin."""
        num_bytes = sum(text.num_bytes for text in texts)
        while not self._held.has_room(num_bytes):
            await asyncio.sleep(MEMORY_POLL_SECONDS)
        part = _Part[Item, AnyAnswer](number, texts, num_bytes)
        self._held.add(num_bytes)
        self._num_characters += sum(text.num_characters for text in texts)
        self._parts.append(part)
        self._record.num_unanswered_texts += len(texts)
        self._has_come.set()
        part.task = asyncio.ensure_future(self._answer(part))
        part.task.add_done_callback(lambda _: part.counted.set())
        if self._usage.has_rates:
            # Texts pass the quotas in order, and the next ones are not read before.
            await part.counted.wait()

    def _leave(self) -> None:
        """Remove the oldest part."""
        part = self._parts.popleft()
        self._held.add(-part.num_held_bytes)
        self._num_characters -= sum(text.num_characters for text in part.texts)
        self._record.num_unanswered_texts -= len(part.texts)
        self._has_left.set()

    async def _answer(self, part: _Part[Item, AnyAnswer]) -> Sequence[BulkResult[Item, AnyAnswer]]:
        """The results of the texts of a part; raises what ends the stream."""
        results = [await self._result(part, part.number, part.texts)]
        if len(part.texts) > 1 and isinstance(results[0].answer, AttendantError):
            results = await self._each_alone(part)
        answers = [each.answer for each in results]
        num_bytes = sum(self._num_bytes(a) for a in answers if not isinstance(a, AttendantError))
        self._held.add(num_bytes - part.num_held_bytes)
        part.num_held_bytes = num_bytes
        return results

    async def _each_alone(self, part: _Part[Item, AnyAnswer]) -> list[BulkResult[Item, AnyAnswer]]:
        """The result of each text of a part that has failed as a whole.

        The fault may be that of one text, or of all texts together.
        """
        part.records.clear()
        alone = [
            asyncio.ensure_future(self._result(part, number, [text]))
            for number, text in enumerate(part.texts, part.number)
        ]
        try:
            return await asyncio.gather(*alone)
        finally:
            for task in alone:
                task.cancel()
            # Their records are complete, and they use no quota, before the part is reported.
            await asyncio.gather(*alone, return_exceptions=True)

    async def _result(
        self, part: _Part[Item, AnyAnswer], number: int, texts: Sequence[Item]
    ) -> BulkResult[Item, AnyAnswer]:
        """The answer to texts, or their fault; raises what ends the stream."""
        answer: AnyAnswer | AttendantError
        try:
            answer = await self._admitted_answer(part, number, texts)
        except (ModelNotFound, PermissionDenied):  # the latter if other models may be used
            raise Unavailable(f"{self._record.model} has been unloaded") from None
        except DeadlineExceeded as error:
            if is_cancelled_by_deadline(self._time.seconds_left()):
                raise
            answer = error
        except (InvalidRequest, ModelFailed, QuotaExceeded) as fault:
            part.records[number].num_invalid_texts = int(isinstance(fault, InvalidRequest))
            part.records[number].reason = fault.reason
            answer = fault
        finally:
            part.records[number].ended = time.monotonic()
        return BulkResult(texts, self._record.model, answer)

    async def _admitted_answer(
        self, part: _Part[Item, AnyAnswer], number: int, texts: Sequence[Item]
    ) -> AnyAnswer:
        """The answer, as soon as the quotas allow it; raises QuotaExceeded if they never do."""
        while True:
            record = part.records[number] = self._record.of_part()
            records.begin(record)
            usage = self._usage.of_part(record, partial(part.count, number, len(texts)))
            try:
                with usage.counting(), self._held.part():
                    return await self._answer_texts(number, texts)
            except QuotaExceeded as error:
                if error.retry_after_seconds is None:
                    raise
                await self._wait_for_quota(error.retry_after_seconds)
            except AttendantError:
                if len(texts) > 1:
                    usage.give_back()  # each of them counts alone
                raise

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
        tasks = [part.task for part in self._parts if part.task is not None]
        for task in [*waiting, *tasks]:
            task.cancel()
        await asyncio.gather(*waiting, *tasks, return_exceptions=True)
        while self._parts:
            self._report(self._parts[0])
            self._leave()
