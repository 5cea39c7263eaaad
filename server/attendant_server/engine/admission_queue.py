"""The queues of texts that no worker has taken yet, fair among callers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Generic

from attendant_server.engine.admission import LEAST_RETRY_SECONDS, Admission
from attendant_server.engine.caller_queue import (
    AnyCall,
    CallerQueue,
    QueuedText,
    in_fair_order,
    work_before,
    work_of,
)
from attendant_server.engine.calls import Caller
from attendant_server.engine.work_flow import LaneFlows
from attendant_server.errors import WaitTooLong

MAX_PAST_CALLERS = 1024
"""Callers without queued texts whose lead is remembered."""
MAX_WAIT_SHARE = 0.75
"""Share of the time until its deadline that a call may wait at most; the rest is for its runs."""


class AdmissionQueue(Generic[AnyCall]):
    """A queue of texts with weighted fair queueing over callers (Parekh and Gallager, 1993).

    Equal numbers of tokens, times the caller's weight and counting each row of a beam, are taken
    from all callers with queued texts. A caller's calls take turns. Texts of a call are in order.

    Either all texts of a call are admitted or none. Texts of ended calls leave at once.
    """

    def __init__(self, admission: Admission) -> None:
        """``admission`` bounds the queue, together with the other queues of the model."""
        self._admission = admission
        self._callers: dict[Caller, CallerQueue[AnyCall]] = {}
        """The callers with queued texts."""
        self._past_callers: dict[Caller, CallerQueue[AnyCall]] = {}
        """Callers whose texts were all taken and who have a lead; empty without queued texts."""
        self._num_queued = 0
        self._work = 0
        """Work of all queued texts."""
        self._flows = LaneFlows()

    def __len__(self) -> int:
        """Texts that a worker may take. Consistent at any time: `take` is atomic."""
        return self._num_queued

    def has_light(self) -> bool:
        """Whether texts of light callers are queued."""
        with self._admission.lock:
            return self._has_queued(True)

    def put(self, call: AnyCall, lengths: Iterable[int], now: float) -> None:
        """Queue all texts of ``call``, which have ``lengths`` tokens.

        Raises QueueFull if they do not fit; ``lengths`` is then not iterated. Raises WaitTooLong if
        they would wait so long that the call would most likely end after its deadline.
        """
        with self._admission.lock:
            self._admission.check_room(call, now)
            width = int(call.width)
            texts = deque(
                [QueuedText(call, i, n, max(1, n) * width) for i, n in enumerate(lengths)]
            )
            work = work_of(texts)
            lane = self._lane_of(call, now)
            self._check_wait(call, work, lane, now)
            self._flows.of(lane).note_coming(work, not self._has_queued(lane), now)
            load = self._admission.admit(call, now)
            call.timings.submitted = now
            queue = self._callers.get(call.caller)
            if queue is None:
                queue = self._past_callers.pop(call.caller, None) or CallerQueue(call.caller, load)
                queue.load = load
                self._callers[call.caller] = queue
            queue.calls[call.future] = texts
            queue.work += work
            self._work += work
            self._num_queued += call.num_texts
        call.future.add_done_callback(partial(self._forget, call.caller, call.num_texts))

    def take(
        self,
        now: float,
        choose: Callable[[Iterator[QueuedText[AnyCall]]], Sequence[QueuedText[AnyCall]]],
        is_light: bool | None = None,
    ) -> tuple[Sequence[QueuedText[AnyCall]], Sequence[QueuedText[AnyCall]]]:
        """Remove the texts that ``choose`` picks from the queue; the other texts keep their order.

        Offers texts in fair order, only those of light or of heavy callers if ``is_light`` is
        given. Atomic: other threads see the queue before or after the call. Returns the chosen
        texts and the expired texts, which are removed too.
        """
        with self._admission.lock:
            queues = self._callers_of(is_light)
            expired: list[QueuedText[AnyCall]] = []
            chosen = choose(_unexpired(in_fair_order(queues), now, expired))
            self._charge(chosen, queues)
            if chosen:
                self._flows.of(is_light).note_leaving(work_of(chosen), now)
            for text in [*chosen, *expired]:
                self._remove(text)
        return chosen, expired

    def take_all(self, now: float) -> list[QueuedText[AnyCall]]:
        """Empty the queue."""
        chosen, expired = self.take(now, list)
        return [*chosen, *expired]

    def _check_wait(self, call: AnyCall, work: int, lane: bool | None, now: float) -> None:
        """Raise WaitTooLong if the texts of a new call, which are ``work``, would wait too long."""
        rates = self._flows.rates(lane, now)
        if rates is None or call.deadline is None or call.is_expired(now) or call.may_wait:
            return
        seconds_left, own_seconds = call.deadline - now, work / rates.leaving
        max_seconds = MAX_WAIT_SHARE * seconds_left
        if own_seconds < seconds_left:  # otherwise, the call comes too late without any wait
            max_seconds = min(max_seconds, seconds_left - own_seconds)
        if self._work + rates.load * work <= (1 - rates.load) * max_seconds * rates.leaving:
            return  # quick, and most often so
        own = self._callers.get(call.caller) or self._past_callers.get(call.caller)
        before = work_before(call, work, rates.load, own, self._callers_of(lane))
        seconds = before / rates.leaving
        if seconds > max_seconds:
            raise WaitTooLong(
                f"the estimated wait of {seconds:.3g} seconds is too long: at most "
                f"{max_seconds:.3g} of the {seconds_left:.3g} seconds until the call's deadline, "
                "which max_request_seconds limits",
                # More than the excess if that is tiny; no longer than until the queue is empty.
                retry_after_seconds=max(
                    LEAST_RETRY_SECONDS,
                    min(max(seconds - max_seconds, seconds / 10), self._work / rates.leaving),
                ),
            )

    def _lane_of(self, call: AnyCall, now: float) -> bool | None:
        """Whether a new call is light; None without lanes."""
        if not self._admission.activity.has_lanes(now):
            return None
        return not self._admission.is_heavy_with(call)

    def _has_queued(self, lane: bool | None) -> bool:
        if lane is None:
            return self._num_queued > 0
        return any(queue.load.is_heavy is not lane for queue in self._callers.values())

    def _callers_of(self, lane: bool | None) -> list[CallerQueue[AnyCall]]:
        """The queues of all callers, of light ones (True) or of heavy ones (False)."""
        queues = list(self._callers.values())
        if lane is None:
            return queues
        return [queue for queue in queues if queue.load.is_heavy is not lane]

    def _charge(
        self, texts: Sequence[QueuedText[AnyCall]], queues: Sequence[CallerQueue[AnyCall]]
    ) -> None:
        """Count the texts that were taken; ``queues`` are those of the callers that had a chance.

        Each caller's fair share of them is deducted from its lead.
        """
        for text in texts:
            self._callers[text.call.caller].charge(text)
        if not texts:
            return
        share = work_of(texts) / sum(queue.caller.weight for queue in queues)
        for queue in queues:
            queue.lead -= share
        for caller, queue in list(self._past_callers.items()):
            queue.lead -= share
            if queue.lead <= 0:
                del self._past_callers[caller]

    def _remove(self, text: QueuedText[AnyCall]) -> None:
        queue = self._callers[text.call.caller]
        texts = queue.calls[text.call.future]
        texts.remove(text)
        self._num_queued -= 1
        queue.work -= text.work
        self._work -= text.work
        if not texts:
            del queue.calls[text.call.future]
            self._rest(queue)

    def _rest(self, queue: CallerQueue[AnyCall]) -> None:
        """Take a caller without queued texts out of the turns; it keeps its lead for some time."""
        if queue.calls:
            return
        del self._callers[queue.caller]
        if not self._callers:
            self._past_callers.clear()
        elif queue.lead > 0:
            self._past_callers[queue.caller] = queue
            if len(self._past_callers) > MAX_PAST_CALLERS:
                del self._past_callers[next(iter(self._past_callers))]

    def _forget(self, caller: Caller, num_texts: int, future: Any) -> None:
        with self._admission.lock:
            self._admission.end(future, caller, num_texts)
            queue = self._callers.get(caller)
            if queue is not None and future in queue.calls:
                texts = queue.calls.pop(future)
                self._num_queued -= len(texts)
                queue.work -= (work := work_of(texts))
                self._work -= work
                self._rest(queue)


def _unexpired(
    texts: Iterable[QueuedText[AnyCall]], now: float, expired: list[QueuedText[AnyCall]]
) -> Iterator[QueuedText[AnyCall]]:
    """The texts of calls that go on; expired ones are added to ``expired``."""
    for text in texts:
        if text.call.is_expired(now):
            expired.append(text)
        elif not text.call.is_over():
            yield text
