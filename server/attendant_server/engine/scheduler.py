"""The base class of schedulers: queues, batches, abandoned calls and failures.

A *scheduler* does the work of one worker for one model. The schedulers of a worker take turns on
its thread. The schedulers of a model, one per worker, take texts from the same queues.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import ceil
from typing import Any, Self, TypeVar

from attendant_server.engine.admission import Admission
from attendant_server.engine.admission_queue import AdmissionQueue
from attendant_server.engine.caller_activity import CallerActivity
from attendant_server.engine.caller_queue import AnyCall, QueuedText
from attendant_server.engine.calls import Call, CallFuture
from attendant_server.engine.lanes import HEAVY_TIME_FACTOR, LaneTurns, Run
from attendant_server.engine.reports import BatchReport, Observer
from attendant_server.errors import DeadlineExceeded, ModelFailed

Output = TypeVar("Output")

logger = logging.getLogger(__name__)

LOOK_AHEAD = 4
"""The search for texts of similar length looks at the texts of this many batches."""


class Scheduler(ABC):
    """The work of one worker for one model."""

    time_factor = 1.0
    """By how much the time of the last turn counts, compared with turns for light callers."""

    def __init__(
        self,
        name: str,
        max_queued_texts: int,
        observer: Observer,
        clock: Callable[[], float],
        sibling: Self | None,
        activity: CallerActivity | None,
        runs: Sequence[Run],
    ) -> None:
        """``sibling`` is another worker's scheduler for the same model; both share its queues.

        ``activity`` is that of the callers of all models; None for a model on its own. ``runs`` are
        the runs of one lane, see `LaneTurns`.
        """
        self.name = name
        self._observer, self._clock = observer, clock
        self._in_flight: Sequence[QueuedText[Any]] = ()
        """Texts taken from a queue in this round."""
        self._admission: Admission
        self._admission = (
            sibling._admission
            if sibling
            else Admission(max_queued_texts, activity or CallerActivity())
        )
        self._queue: AdmissionQueue[Any]
        self._queue = sibling._queue if sibling else AdmissionQueue(self._admission)
        self._siblings: list[Self] = sibling._siblings if sibling else []
        """All schedulers of the model, this one too."""
        self._siblings.append(self)
        self._turns = LaneTurns(runs, clock)

    @property
    def num_waiting(self) -> int:
        """Texts admitted to the model and not yet in a run of any worker. Any thread.

        The encoder's run does not count: a text to translate waits until it has rows.
        """
        return self._admission.num_waiting

    @property
    @abstractmethod
    def num_active(self) -> int:
        """Rows or texts in progress in this scheduler. Any thread."""

    @property
    @abstractmethod
    def has_work(self) -> bool:
        """Whether `advance` would do anything."""

    @property
    def num_wanted(self) -> int:
        """Idle workers that should take waiting texts now. Any thread."""
        return len(self._siblings)

    def num_to_wake(self, num_texts: int) -> int:
        """Idle workers to wake for a call of ``num_texts`` that was just submitted. Any thread."""
        # One more than the texts: the spared worker, which may not take them, could be among these.
        return min(num_texts + 1 if self._has_lanes() else num_texts, self.num_wanted)

    @abstractmethod
    def submit(self, call: Call[Any]) -> None:
        """Queue a call; raises QueueFull. Any thread."""

    def advance(self, is_alone: bool) -> None:
        """Do one bounded round of work, shorter if another scheduler of the worker has work.

        ``is_alone`` says that no other scheduler has work. A model run that raises fails only the
        calls in it.
        """
        if self._has_lanes():
            self.time_factor = 1.0 if self._turns.advance() else HEAVY_TIME_FACTOR
        else:
            self.time_factor = 1.0
            self._advance(is_alone)
        self._in_flight = ()

    def _has_lanes(self) -> bool:
        return self._admission.activity.has_lanes(self._clock())

    def _is_spared(self) -> bool:
        """Whether this worker makes no long runs for heavy callers, so that it is free for others.

        While there are lanes, this is so for the first of several workers. A batch of texts to
        embed, or of pairs, cannot be interrupted: if all workers ran batches of heavy callers, a
        text of another caller would wait for the end of one.
        """
        return len(self._siblings) > 1 and self is self._siblings[0] and self._has_lanes()

    @abstractmethod
    def _advance(self, is_alone: bool) -> None:
        """Do the round of this kind of scheduler for all callers together."""

    @abstractmethod
    def release_memory(self) -> None:
        """Release memory that is kept for later work; called after some time without work."""

    @abstractmethod
    def stop_runs(self) -> None:
        """Let the present model runs of all workers raise soon. Any thread."""

    @abstractmethod
    def _take_running(self) -> list[Call[Any]]:
        """Remove all running texts; returns their calls."""

    def _take_waiting(self) -> list[Call[Any]]:
        """Empty the queues; returns the calls of their texts."""
        return [text.call for text in self._queue.take_all(self._clock())]

    def fail(self, error: Exception, *, waiting_too: bool = False) -> None:
        """Fail all running calls, with ``waiting_too`` also waiting ones; stays usable."""
        calls = self._take_running() + [text.call for text in self._in_flight]
        self._in_flight = ()
        if waiting_too:
            calls += self._take_waiting()
        self._fail_calls(calls, error)

    def _fail_calls(self, calls: Iterable[Call[Any]], error: Exception) -> None:
        for call in calls:
            call.fail(error)

    def _fail_run(self, what: str, calls: Iterable[Call[Any]]) -> None:
        """Fail the calls of a model run that has just raised."""
        logger.exception("event=model_failed model=%s run=%s", self.name, what)
        self._fail_calls(calls, ModelFailed("the model failed while it ran this request"))

    def _fail_result(self, call: Call[Any]) -> None:
        """Fail a call for which the model returned NaN or infinity."""
        if call.is_over():  # failed by an earlier text
            return
        logger.error("event=result_not_finite model=%s", self.name)
        self._fail_calls([call], ModelFailed("the model returned NaN or infinity for this request"))

    def _enqueue(
        self, queue: AdmissionQueue[AnyCall], call: AnyCall, lengths: Iterable[int]
    ) -> None:
        """Queue the texts of a call; if it ends without an answer, they are reported as dropped."""
        queue.put(call, lengths, self._clock())
        call.future.add_done_callback(partial(self._count_dropped, call.num_texts))

    def _count_dropped(self, num_texts: int, future: CallFuture[Any]) -> None:
        """Report the texts of an ended call as dropped, unless it was answered. Any thread."""
        if future.was_answered:
            return
        if future.cancelled():
            reason = "expired" if future.came_too_late(self._clock()) else "cancelled"
        else:
            reason = "expired" if isinstance(future.exception(), DeadlineExceeded) else "failed"
        self._observer.on_dropped(self.name, reason, num_texts)

    def _expire(self, calls: Iterable[Call[Any]]) -> None:
        """Fail abandoned calls that are not over: their deadlines have passed."""
        self._fail_calls(calls, _too_late())

    def _has_texts(self, queue: AdmissionQueue[Any]) -> bool:
        """Whether any text waits that this worker may take. Any thread."""
        return len(queue) > 0 and (not self._is_spared() or queue.has_light())

    def _share_of(self, queue: AdmissionQueue[Any]) -> int:
        """Texts of ``queue`` that this worker may take, so that the others get as many."""
        return ceil(len(queue) / len(self._siblings))

    def _take_similar(
        self,
        queue: AdmissionQueue[AnyCall],
        max_tokens: int,
        max_texts: int,
        is_light: bool | None = None,
    ) -> Sequence[QueuedText[AnyCall]]:
        """Take the text whose turn it is and texts of similar length: at most ``max_texts``.

        Padded to the same length, they have at most ``max_tokens`` tokens. A single text may have
        more. With ``is_light``, only the texts of light or of heavy callers are taken.
        """

        def choose(texts: Iterator[QueuedText[AnyCall]]) -> Sequence[QueuedText[AnyCall]]:
            window = _fitting(texts, LOOK_AHEAD * max_tokens)
            if not window:
                return []
            head = window[0].num_tokens
            by_distance = sorted(window[1:], key=lambda text: abs(text.num_tokens - head))
            return _fitting([window[0], *by_distance[: max_texts - 1]], max_tokens)

        chosen, expired = queue.take(self._clock(), choose, is_light)
        self._in_flight = chosen
        self._expire(text.call for text in expired)
        return chosen

    def _run(
        self,
        graph: str,
        batch: Sequence[QueuedText[AnyCall]],
        lengths: list[int],
        run: Callable[[Sequence[QueuedText[AnyCall]]], Output],
    ) -> Iterator[tuple[Sequence[QueuedText[AnyCall]], Output]]:
        """Run and report a batch of texts with these token counts; yields the texts and the output.

        If the run fails, each text is run alone, so that a text fails no other call than its own.
        """
        started = self._clock()
        for text in batch:
            timings = text.call.timings
            timings.num_batch_texts = len(batch)
            if timings.started is None:
                timings.started = started
        try:
            output = run(batch)
        except Exception:
            yield from self._run_apart(graph, batch, lengths, run)
            return
        num_padded_tokens = max(lengths) * len(lengths)
        seconds = self._clock() - started
        self._observer.on_batch(
            self.name, BatchReport(graph, len(batch), sum(lengths), num_padded_tokens, seconds)
        )
        yield batch, output

    def _run_apart(
        self,
        graph: str,
        batch: Sequence[QueuedText[AnyCall]],
        lengths: list[int],
        run: Callable[[Sequence[QueuedText[AnyCall]]], Output],
    ) -> Iterator[tuple[Sequence[QueuedText[AnyCall]], Output]]:
        """Run each text of a batch whose run has just raised; fail the call of a single text."""
        if len(batch) == 1:
            self._fail_run(graph, [batch[0].call])
            return
        logger.warning("event=batch_failed model=%s run=%s texts=%d", self.name, graph, len(batch))
        for text, length in zip(batch, lengths, strict=True):
            if not text.call.is_over():
                yield from self._run(graph, [text], [length], run)


def _fitting(texts: Iterable[QueuedText[AnyCall]], max_tokens: int) -> list[QueuedText[AnyCall]]:
    """The first texts, as many as fit ``max_tokens`` when padded, but at least one."""
    fitting: list[QueuedText[AnyCall]] = []
    longest = 0
    for text in texts:
        longest = max(longest, text.num_tokens)
        if fitting and longest * (len(fitting) + 1) > max_tokens:
            break
        fitting.append(text)
    return fitting


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the call was done")
