"""The input of bulk calls: texts are read as there is room, and kept until they are answered.

After a failure, the next attempt sends the texts without an answer again, and goes on with further
ones. The two clients differ in how they wait: gRPC takes the messages of a synchronous call on a
thread of its own, those of an asyncio call in a task.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from attendant_client.bulk_calls import BulkCall, BulkItem, BulkText, bulk_text
from attendant_client.calls import MAX_REQUEST_BYTES
from attendant_client.errors import ENDED_WHILE_SENDING, CallError, CallTooLargeError

MAX_UNANSWERED_TEXTS = 512
"""Texts that are read and not answered: those that a server has at most, and as many on the way."""
Texts = Iterable[BulkItem]
AsyncTexts = Iterable[BulkItem] | AsyncIterable[BulkItem]


class _Unanswered:
    """The texts that were read and not answered."""

    def __init__(self) -> None:
        self._texts: deque[BulkText] = deque()
        self._num_read = 0
        self._has_ended = False
        self._attempt = 0
        self._is_released = False
        self.failure: BaseException | None = None
        """What reading the texts has raised. No texts come after it."""

    @property
    def _first(self) -> int:
        """The index of the oldest text without an answer."""
        return self._num_read - len(self._texts)

    @property
    def _has_room(self) -> bool:
        return not self._has_ended and len(self._texts) < MAX_UNANSWERED_TEXTS

    def _at(self, index: int) -> BulkText | None:
        """The text with an index, which has no answer; None if it was not read yet."""
        return self._texts[index - self._first] if index < self._num_read else None

    def _put(self, item: object) -> None:
        self._texts.append(bulk_text(self._num_read, item))
        self._num_read += 1

    def _end(self, failure: BaseException | None = None) -> None:
        self._has_ended, self.failure = True, failure

    def has_refused(self, failure: CallError) -> bool:
        """Whether a failure was that of the largest text, which is then sent no more."""
        sizes = [len(text.text.encode()) for text in self._texts]
        largest = max(sizes, default=0)
        is_refused = (
            isinstance(failure, CallTooLargeError)
            and failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        is_unknown = failure.message == ENDED_WHILE_SENDING and largest > MAX_REQUEST_BYTES
        if not largest or not (is_refused or is_unknown):
            return False
        self._texts[sizes.index(largest)].refuse(f"has {largest} bytes, too many for a message")
        return True


class BulkInput(_Unanswered):
    """The texts of one synchronous call."""

    def __init__(self, texts: Texts) -> None:
        super().__init__()
        self._source = iter(texts)
        self._changed = threading.Condition()
        self._reading = threading.Lock()

    def has_more(self) -> bool:
        """Whether there is a text without an answer; reads one if there is none."""
        while not self._texts and not self._has_ended:
            self._read(self._attempt, self._num_read)
        return bool(self._texts)

    def messages(self, call: BulkCall[Any]) -> Iterator[Message]:
        """The messages of a new attempt, which takes the place of the last one."""
        with self._changed:
            self._attempt += 1
            self._is_released = False
            self._changed.notify_all()
        return self._sent(call, self._attempt, self._first)

    def release(self) -> None:
        """Send the texts of this attempt, whose settings were accepted."""
        with self._changed:
            self._is_released = True
            self._changed.notify_all()

    def take(self) -> BulkText | None:
        """Remove the oldest text, which was answered; None if there is none."""
        with self._changed:
            text = self._texts.popleft() if self._texts else None
            self._changed.notify_all()
        return text

    def close(self) -> None:
        """Read no further texts."""
        with self._changed:
            self._attempt += 1
            self._has_ended = True
            self._changed.notify_all()

    def _sent(self, call: BulkCall[Any], attempt: int, first: int) -> Iterator[Message]:
        yield call.settings(first)
        index = first
        while (text := self._next(attempt, index)) is not None:
            yield call.message(text)
            index += 1

    def _next(self, attempt: int, index: int) -> BulkText | None:
        """The text with an index; None at the end of the texts or of the attempt."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: attempt != self._attempt or self._is_released)
                if attempt != self._attempt:
                    return None
                if (text := self._at(index)) is not None or self._has_ended:
                    return text
            self._read(attempt, index)

    def _read(self, attempt: int, index: int) -> None:
        """Read the text with an index, once there is room, unless another thread reads it."""
        with self._reading:
            with self._changed:
                self._changed.wait_for(
                    lambda: attempt != self._attempt or self._has_ended or self._has_room
                )
                if attempt != self._attempt or self._has_ended or self._num_read > index:
                    return
            try:
                item = next(self._source)  # may take long, so without the lock of the others
                with self._changed:
                    self._put(item)
            except StopIteration:
                self._end()
            except BaseException as error:  # the caller gets it after the results
                self._end(error)
            with self._changed:
                self._changed.notify_all()


class AsyncBulkInput(_Unanswered):
    """The texts of one asyncio call."""

    def __init__(self, texts: AsyncTexts) -> None:
        super().__init__()
        self._source = texts.__aiter__() if isinstance(texts, AsyncIterable) else iter(texts)
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def has_more(self) -> bool:
        """Whether there is a text without an answer; reads one if there is none."""
        while not self._texts and not self._has_ended:
            await self._read()
        return bool(self._texts)

    def messages(self, call: BulkCall[Any]) -> AsyncIterator[Message]:
        """The messages of a new attempt, which takes the place of the last one."""
        self._attempt += 1
        self._is_released = False
        self._changed.set()
        return self._sent(call, self._attempt, self._first)

    def release(self) -> None:
        """Send the texts of this attempt, whose settings were accepted."""
        self._is_released = True
        self._changed.set()

    def take(self) -> BulkText | None:
        """Remove the oldest text, which was answered; None if there is none."""
        text = self._texts.popleft() if self._texts else None
        self._changed.set()
        return text

    def close(self) -> None:
        """Read no further texts."""
        self._attempt += 1
        self._has_ended = True
        self._changed.set()
        if self._reading is not None:
            self._reading.cancel()

    async def _sent(self, call: BulkCall[Any], attempt: int, first: int) -> AsyncIterator[Message]:
        yield call.settings(first)
        index = first
        while (text := await self._next(attempt, index)) is not None:
            yield call.message(text)
            index += 1

    async def _next(self, attempt: int, index: int) -> BulkText | None:
        """The text with an index; None at the end of the texts or of the attempt."""
        while attempt == self._attempt:
            if not self._is_released:
                await self._change()
                continue
            if (text := self._at(index)) is not None or self._has_ended:
                return text
            await self._read()
        return None

    async def _read(self) -> None:
        """Read a text, or wait until something has changed."""
        if self._has_room and not isinstance(self._source, AsyncIterator):
            try:
                self._put(next(self._source))
            except StopIteration:
                self._end()
            except BaseException as error:  # the caller gets it after the results
                self._end(error)
            return
        if self._has_room and self._reading is None:
            # A task, because gRPC cancels what waits for messages when an attempt ends.
            self._reading = asyncio.ensure_future(self._read_one(self._source))
        await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _read_one(self, source: Any) -> None:
        try:
            self._put(await anext(source))
        except StopAsyncIteration:
            self._end()
        except BaseException as error:  # the caller gets it after the results
            self._end(error)
        self._reading = None
        self._changed.set()
