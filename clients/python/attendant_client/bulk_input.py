"""The input of bulk calls: texts are read as there is room, and kept until they are answered.

A message has the texts that are there, so that it never waits for a slow input. After a failure,
the next attempt sends the texts without an answer again, and goes on with further ones. The two
clients differ in how they wait: a synchronous call has a thread that reads, and gRPC takes its
messages on another one; in an asyncio call, both are tasks.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import accumulate, islice
from typing import Any

import grpc
from google.protobuf.message import Message

from attendant_client.bulk_calls import BulkCall, BulkItem, BulkText, bulk_text
from attendant_client.calls import MAX_REQUEST_BYTES
from attendant_client.errors import ENDED_WHILE_SENDING, CallError, CallTooLargeError

MAX_UNANSWERED_TEXTS = 512
"""Texts that are read and not answered: those that a server has at most, and as many on the way."""
MAX_MESSAGE_TEXTS = 32
"""Texts of one message: the server answers no more of them together."""
MAX_MESSAGE_CHARACTERS = 12_500
"""No further text joins a message that would then have more characters than this."""
MAX_CLOSING_SECONDS = 0.5
"""How long closing a synchronous call waits for a source that is about to give a text."""
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
        self._max_message_texts = MAX_MESSAGE_TEXTS
        self.failure: BaseException | None = None
        """What reading the texts has raised. No texts come after it."""

    @property
    def _first(self) -> int:
        """The index of the oldest text without an answer."""
        return self._num_read - len(self._texts)

    @property
    def _has_room(self) -> bool:
        return not self._has_ended and len(self._texts) < MAX_UNANSWERED_TEXTS

    def _from(self, index: int) -> list[BulkText]:
        """The texts of a message that begins with this index, which has no answer.

        Empty if it was not read yet.
        """
        begin = index - self._first
        found = list(islice(self._texts, begin, begin + self._max_message_texts))
        lengths = accumulate(len(text.text) for text in found)
        num_texts = sum(length <= MAX_MESSAGE_CHARACTERS for length in lengths)
        return found[: max(1, num_texts)]

    def take(self, num_texts: int) -> list[BulkText]:
        """Remove the oldest texts, which were answered; fewer if there are fewer."""
        return [self._texts.popleft() for _ in range(min(num_texts, len(self._texts)))]

    def _put(self, item: object) -> None:
        self._texts.append(bulk_text(self._num_read, item))
        self._num_read += 1

    def _end(self, failure: BaseException | None = None) -> None:
        self._has_ended, self.failure = True, failure

    def has_refused(self, failure: CallError) -> bool:
        """Whether a message was refused because of its size.

        The next attempt then sends each text alone, and the one after it no longer the largest one.
        """
        sizes = [len(text.text.encode()) for text in self._texts]
        largest = max(sizes, default=0)
        is_refused = (
            isinstance(failure, CallTooLargeError)
            and failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        is_unknown = failure.message == ENDED_WHILE_SENDING and largest > MAX_REQUEST_BYTES
        if not largest or not (is_refused or is_unknown):
            return False
        if is_refused and self._max_message_texts > 1:
            self._max_message_texts = 1
            return True
        self._max_message_texts = MAX_MESSAGE_TEXTS
        self._texts[sizes.index(largest)].refuse(f"has {largest} bytes, too many for a message")
        return True


class BulkInput(_Unanswered):
    """The texts of one synchronous call."""

    def __init__(self, texts: Texts) -> None:
        super().__init__()
        self._source = iter(texts)
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None

    def has_more(self) -> bool:
        """Whether there is a text without an answer; waits for one if there is none."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, name="attendant-bulk", daemon=True)
            self._reader.start()
        with self._changed:
            self._changed.wait_for(lambda: self._texts or self._has_ended)
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

    def take(self, num_texts: int) -> list[BulkText]:
        """Remove the oldest texts, which were answered; fewer if there are fewer."""
        with self._changed:
            texts = super().take(num_texts)
            self._changed.notify_all()
        return texts

    def has_refused(self, failure: CallError) -> bool:
        """Whether a message was refused because of its size, as in the asyncio call."""
        with self._changed:
            return super().has_refused(failure)

    def close(self) -> None:
        """Read no further texts, and end the thread that reads.

        A thread cannot be interrupted while it waits for the source. If that takes longer than
        `MAX_CLOSING_SECONDS`, the thread ends with the next text, or with the program.
        """
        with self._changed:
            self._attempt += 1
            self._has_ended = True
            self._changed.notify_all()
        # The source itself may close the call.
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(MAX_CLOSING_SECONDS)

    def _sent(self, call: BulkCall[Any], attempt: int, first: int) -> Iterator[Message]:
        yield call.settings(first)
        index = first
        while texts := self._next(attempt, index):
            yield call.message(texts)
            index += len(texts)

    def _next(self, attempt: int, index: int) -> list[BulkText]:
        """The texts from an index on that are there; empty at the end of the texts or attempt."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    attempt != self._attempt
                    or (self._is_released and (self._num_read > index or self._has_ended))
                )
            )
            is_current = attempt == self._attempt and self._num_read > index
            return self._from(index) if is_current else []

    def _read(self) -> None:
        """Read all texts, each once there is room, until the call is closed."""
        try:
            while self._wait_for_room():
                item = next(self._source)  # may take long, so without the lock of the others
                with self._changed:
                    if not self._has_ended:
                        self._put(item)
                        self._changed.notify_all()
        except StopIteration:
            self._end_reading(None)
        except BaseException as error:  # the caller gets it after the results
            self._end_reading(error)

    def _wait_for_room(self) -> bool:
        """Wait until there is room; returns whether the call goes on."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or self._has_room)
            return not self._has_ended

    def _end_reading(self, failure: BaseException | None) -> None:
        with self._changed:
            self._end(failure)
            self._changed.notify_all()


class AsyncBulkInput(_Unanswered):
    """The texts of one asyncio call."""

    def __init__(self, texts: AsyncTexts) -> None:
        super().__init__()
        self._source = texts.__aiter__() if isinstance(texts, AsyncIterable) else iter(texts)
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def has_more(self) -> bool:
        """Whether there is a text without an answer; waits for one if there is none."""
        while not self._texts and not self._has_ended:
            await self._read(self._num_read)
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

    def take(self, num_texts: int) -> list[BulkText]:
        """Remove the oldest texts, which were answered; fewer if there are fewer."""
        texts = super().take(num_texts)
        self._changed.set()
        return texts

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
        while texts := await self._next(attempt, index):
            yield call.message(texts)
            index += len(texts)

    async def _next(self, attempt: int, index: int) -> list[BulkText]:
        """The texts from an index on that are there; empty at the end of the texts or attempt."""
        while attempt == self._attempt:
            if not self._is_released:
                await self._change()
                continue
            await self._read(index)
            if attempt == self._attempt and (self._num_read > index or self._has_ended):
                return self._from(index) if self._num_read > index else []
        return []

    async def _read(self, index: int) -> None:
        """Read texts for a message, or wait until something has changed, unless it is there."""
        if not isinstance(self._source, AsyncIterator):
            self._read_at_once(index + MAX_MESSAGE_TEXTS)
        elif self._reading is None and not self._has_ended:
            # A task, because gRPC cancels what waits for messages when an attempt ends.
            self._reading = asyncio.ensure_future(self._read_all(self._source))
        if self._num_read <= index and not self._has_ended:
            await self._change()

    def _read_at_once(self, end: int) -> None:
        """Read the texts before the index ``end``, as far as there is room."""
        assert not isinstance(self._source, AsyncIterator)
        try:
            while self._has_room and self._num_read < end:
                self._put(next(self._source))
        except StopIteration:
            self._end()
        except BaseException as error:  # the caller gets it after the results
            self._end(error)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _read_all(self, source: AsyncIterator[Any]) -> None:
        """Read all texts, each once there is room."""
        try:
            while not self._has_ended:
                if self._has_room:
                    self._put(await anext(source))
                    self._changed.set()
                else:
                    await self._change()
        except StopAsyncIteration:
            self._end()
        except BaseException as error:  # the caller gets it after the results
            self._end(error)
        self._changed.set()
