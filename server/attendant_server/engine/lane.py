"""What the lanes of all models share: queues, batches, abandoned calls and failure.

A *lane* is everything that the engine keeps for one model. Lanes take turns on the engine's thread.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from attendant_server.engine.admission import AdmissionQueue, Waiting
from attendant_server.engine.calls import Call
from attendant_server.engine.reports import BatchReport, Observer
from attendant_server.errors import DeadlineExceeded

Text = TypeVar("Text", bound=Waiting)
Output = TypeVar("Output")


class Lane(ABC):
    """The work of one model."""

    def __init__(self, name: str, observer: Observer, clock: Callable[[], float]) -> None:
        self.name = name
        self._observer, self._clock = observer, clock
        self._in_flight: list[Call[Any]] = []

    @property
    @abstractmethod
    def num_waiting(self) -> int:
        """Texts admitted that no model run includes yet. Any thread."""

    @property
    @abstractmethod
    def num_active(self) -> int:
        """Rows, or texts, that the model is working on between two rounds. Any thread."""

    @property
    def has_work(self) -> bool:
        """Whether `advance` would do anything."""
        return bool(self.num_waiting or self.num_active)

    @abstractmethod
    def submit(self, call: Call[Any]) -> None:
        """Queue a call; raises QueueFull. Any thread."""

    @abstractmethod
    def advance(self) -> None:
        """One bounded round of work."""

    @abstractmethod
    def _take_all(self) -> list[Call[Any]]:
        """Forget everything that runs; returns the calls."""

    @abstractmethod
    def _take_waiting(self) -> list[Call[Any]]:
        """Empty the queues; returns the calls."""

    def fail(self, error: Exception, *, waiting_too: bool = False) -> None:
        """Fail everything that runs, and on request what waits; the lane is empty and usable."""
        running = self._take_all() + self._in_flight
        self._in_flight = []
        if waiting_too:
            running += self._take_waiting()
        for call in running:
            call.fail(error)
        if running:
            self._observer.on_dropped(self.name, "failed", len(running))

    def _new_queue(self, max_texts: int) -> AdmissionQueue[Any]:
        return AdmissionQueue(max_texts, self._on_dropped)

    def _on_dropped(self, call: Call[Any], num_texts: int) -> None:
        if call.future.cancelled():
            reason = "cancelled"
        else:
            is_late = isinstance(call.future.exception(), DeadlineExceeded)
            reason = "expired" if is_late else "failed"
        self._observer.on_dropped(self.name, reason, num_texts)

    def _is_abandoned(self, call: Call[Any], now: float) -> bool:
        """Whether a text of ``call`` must not run any more; fails the call if it is too late."""
        if call.is_expired(now):
            call.fail(DeadlineExceeded("the deadline passed before the call was done"))
        if call.is_over():
            self._on_dropped(call, 1)
            return True
        return False

    def _take_batch(
        self, queue: AdmissionQueue[Text], length_of: Callable[[Text], int], max_tokens: int
    ) -> list[Text]:
        """Live texts from the head of ``queue`` that fit ``max_tokens`` when padded, or one."""
        now = self._clock()
        batch: list[Text] = []
        longest = 0
        for text in queue.take():
            if self._is_abandoned(text.call, now):
                continue
            longest = max(longest, length_of(text))
            if batch and longest * (len(batch) + 1) > max_tokens:
                queue.put_back(text)
                break
            batch.append(text)
        return batch

    def _run(
        self, graph: str, batch: list[Text], lengths: list[int], run: Callable[[], Output]
    ) -> Output:
        """Run a batch of texts with these token counts, and report it."""
        started = self._clock()
        for text in batch:
            if text.call.timings.started is None:
                text.call.timings.started = started
        self._in_flight = [text.call for text in batch]
        output = run()
        self._in_flight = []
        num_padded_tokens = max(lengths) * len(lengths)
        seconds = self._clock() - started
        self._observer.on_batch(
            self.name, BatchReport(graph, len(batch), sum(lengths), num_padded_tokens, seconds)
        )
        return output
