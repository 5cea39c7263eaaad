"""The bounded queue in front of a model. What the threads of callers and workers share."""

import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from attendant_server.engine.calls import Answer, Call
from attendant_server.errors import QueueFull


class Waiting(Protocol):
    """One text of a call, as a scheduler queues it."""

    @property
    def call(self) -> Call[Any]:
        """The call that the text belongs to."""


Text = TypeVar("Text", bound=Waiting)


class AdmissionQueue(Generic[Text]):
    """Texts that wait for a model, first come first served, never more than ``max_texts``.

    All texts of a call are admitted or none. Texts of calls that are over count no longer, even
    before the engine has come across them.
    """

    def __init__(self, max_texts: int) -> None:
        self.max_texts = max_texts
        self.lock = threading.RLock()
        """For whoever must not be seen between taking texts and putting some of them back."""
        self._texts: deque[Text] = deque()
        # By future: a key that leads back to the call would keep it alive with its results.
        self._waiting: Counter[Answer[Any]] = Counter()
        self._num_waiting = 0  # all of `_waiting` together

    def __len__(self) -> int:
        """Texts waiting whose calls are not over."""
        return self._num_waiting

    def put(self, call: Call[Any], texts: Iterable[Text], now: float) -> None:
        """Queue all ``num_texts`` texts of ``call``.

        Raises QueueFull, without asking for any of ``texts``, when they do not fit.
        """
        with self.lock:
            num_waiting = self._num_waiting
            if num_waiting + call.num_texts > self.max_texts:
                raise QueueFull(
                    f"{num_waiting} texts are waiting and {call.num_texts} more would exceed the "
                    f"limit of {self.max_texts}",
                    retry_after_seconds=self._head_age(now),
                )
            call.timings.submitted = now
            if len(self._texts) > 2 * self.max_texts:  # mostly texts of calls that are over
                self._texts = deque(t for t in self._texts if t.call.future in self._waiting)
            self._texts.extend(texts)
            self._waiting[call.future] += call.num_texts
            self._num_waiting += call.num_texts
        call.future.add_done_callback(self._forget)

    def take(self) -> Iterator[Text]:
        """Remove and yield texts in order until the queue is empty or the caller stops asking."""
        while (text := self._take_one()) is not None:
            yield text

    def put_back(self, text: Text) -> None:
        """Return a text that was taken but did not fit to the head of the queue."""
        with self.lock:
            if not text.call.is_over():
                self._texts.appendleft(text)
                self._waiting[text.call.future] += 1
                self._num_waiting += 1

    def _take_one(self) -> Text | None:
        with self.lock:
            while self._texts:
                text = self._texts.popleft()
                future = text.call.future
                if future in self._waiting:
                    self._num_waiting -= 1
                    self._waiting[future] -= 1
                    if not self._waiting[future]:
                        del self._waiting[future]
                    return text
            return None

    def _forget(self, future: Any) -> None:
        with self.lock:
            self._num_waiting -= self._waiting.pop(future, 0)
            if not self._waiting:
                self._texts.clear()

    def _head_age(self, now: float) -> float:
        """How long the text at the head has waited: what a newcomer may expect, at least 50 ms."""
        head = next((t for t in self._texts if t.call.future in self._waiting), None)
        submitted = head.call.timings.submitted if head else None
        return max(0.05, now - submitted) if submitted is not None else 0.05
