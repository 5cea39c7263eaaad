"""The bounded queues of a model: the state that callers' threads and workers share."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from attendant_server.engine.calls import Call, CallFuture
from attendant_server.errors import QueueFull

LEAST_RETRY_SECONDS = 0.05


AnyCall = TypeVar("AnyCall", bound=Call[Any])


@dataclass(slots=True, eq=False)  # not frozen, which would take longer for every text
class QueuedText(Generic[AnyCall]):
    """One text of a call, or one pair of a `ScoreCall`."""

    call: AnyCall
    index: int
    num_tokens: int
    """Tokens of the text, or of the longer text of the pair."""


@dataclass(slots=True)
class _WaitingCall:
    submitted: float
    num_texts: int


class Admission:
    """Counts the texts that wait for one model, over all its queues: at most ``max_texts``.

    A text waits from its admission until `start`: first in the queue, then while a worker encodes
    it or has no free rows for it. Texts of ended calls are not counted.
    """

    def __init__(self, max_texts: int) -> None:
        self.max_texts = max_texts
        self._lock = threading.Lock()  # guards these counts and all queues of the model
        # Keyed by future: a reference to the call would keep its results in memory.
        self._calls: dict[CallFuture[Any], _WaitingCall] = {}  # oldest first
        self._num_waiting = 0

    @property
    def num_waiting(self) -> int:
        """Texts waiting."""
        return self._num_waiting

    def _admit(self, call: Call[Any], now: float) -> None:
        """Count all texts of ``call``; raises QueueFull. The caller holds the lock."""
        if self._num_waiting + call.num_texts > self.max_texts:
            raise QueueFull(
                f"{self._num_waiting} texts are waiting and {call.num_texts} more would exceed the "
                f"limit of {self.max_texts}",
                retry_after_seconds=self._oldest_age(now),
            )
        self._calls[call.future] = _WaitingCall(now, call.num_texts)
        self._num_waiting += call.num_texts

    def start(self, calls: Iterable[Call[Any]]) -> None:
        """Stop counting one text of each of ``calls`` as waiting: a model run includes it now."""
        with self._lock:
            for call in calls:
                waiting = self._calls.get(call.future)
                if waiting is None:  # the call is over
                    continue
                waiting.num_texts -= 1
                self._num_waiting -= 1
                if not waiting.num_texts:
                    del self._calls[call.future]

    def _forget(self, future: CallFuture[Any]) -> None:
        """Stop counting the texts of an ended call. The caller holds the lock."""
        waiting = self._calls.pop(future, None)
        if waiting is not None:
            self._num_waiting -= waiting.num_texts

    def _oldest_age(self, now: float) -> float:
        """Seconds that the oldest text has waited: the estimated wait of a new text."""
        oldest = next(iter(self._calls.values()), None)
        return max(LEAST_RETRY_SECONDS, now - oldest.submitted) if oldest else LEAST_RETRY_SECONDS


class AdmissionQueue(Generic[AnyCall]):
    """A first-in, first-out queue of texts that no worker has taken yet.

    Either all texts of a call are admitted or none. Texts of ended calls are not counted, even
    while they are still in the queue.
    """

    def __init__(self, admission: Admission) -> None:
        """``admission`` bounds the queue, together with the other queues of the model."""
        self._admission = admission
        self._texts: deque[QueuedText[AnyCall]] = deque()
        self._queued: Counter[CallFuture[Any]] = Counter()
        self._num_queued = 0  # all of `_queued` together

    def __len__(self) -> int:
        """Texts that a worker may take. Consistent at any time: `take` is atomic."""
        return self._num_queued

    def put(self, call: AnyCall, lengths: Iterable[int], now: float) -> None:
        """Queue all texts of ``call``, which have ``lengths`` tokens.

        Raises QueueFull if they do not fit; ``lengths`` is then not iterated.
        """
        with self._admission._lock:
            self._admission._admit(call, now)
            call.timings.submitted = now
            if len(self._texts) > 2 * self._admission.max_texts:  # mostly of calls that are over
                self._texts = deque(t for t in self._texts if t.call.future in self._queued)
            self._texts.extend(QueuedText(call, i, n) for i, n in enumerate(lengths))
            self._queued[call.future] += call.num_texts
            self._num_queued += call.num_texts
        call.future.add_done_callback(self._forget)

    def take(
        self,
        now: float,
        choose: Callable[[Iterator[QueuedText[AnyCall]]], Sequence[QueuedText[AnyCall]]],
    ) -> tuple[Sequence[QueuedText[AnyCall]], Sequence[QueuedText[AnyCall]]]:
        """Remove the texts that ``choose`` picks from the queue; the other texts keep their order.

        Atomic: other threads see the queue before or after the call. Returns the chosen texts and
        the expired texts, which are removed too.
        """
        with self._admission._lock:
            seen: list[QueuedText[AnyCall]] = []
            expired: list[QueuedText[AnyCall]] = []

            def in_line() -> Iterator[QueuedText[AnyCall]]:
                for text in self._texts:
                    seen.append(text)
                    if text.call.is_expired(now):
                        expired.append(text)
                    elif not text.call.is_over():
                        yield text

            chosen = choose(in_line())
            gone = set(map(id, [*chosen, *expired]))
            for _ in seen:
                self._texts.popleft()
            self._texts.extendleft(
                text
                for text in reversed(seen)
                if id(text) not in gone and text.call.future in self._queued
            )
            self._count_out(chosen)
            self._count_out(expired)
        return chosen, expired

    def take_all(self, now: float) -> list[QueuedText[AnyCall]]:
        """Empty the queue."""
        chosen, expired = self.take(now, list)
        return [*chosen, *expired]

    def _count_out(self, texts: Iterable[QueuedText[AnyCall]]) -> None:
        for text in texts:
            future = text.call.future
            if future in self._queued:
                self._num_queued -= 1
                self._queued[future] -= 1
                if not self._queued[future]:
                    del self._queued[future]

    def _forget(self, future: Any) -> None:
        with self._admission._lock:
            self._admission._forget(future)
            self._num_queued -= self._queued.pop(future, 0)
            if not self._queued:
                self._texts.clear()
