"""The queues of texts that no worker has taken yet, fair among callers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heapreplace
from itertools import islice
from typing import Any, Generic, TypeVar

from attendant_server.engine.admission import Admission, CallerLoad
from attendant_server.engine.calls import Call, Caller, CallFuture

MAX_PAST_CALLERS = 1024
"""Callers without queued texts whose lead is remembered."""

AnyCall = TypeVar("AnyCall", bound=Call[Any])


@dataclass(slots=True, eq=False)  # not frozen, which would take longer for every text
class QueuedText(Generic[AnyCall]):
    """One text of a call, or one pair of a `ScoreCall`."""

    call: AnyCall
    index: int
    num_tokens: int
    """Tokens of the text, or of the longer text of the pair."""


@dataclass(slots=True, eq=False)
class _CallerQueue(Generic[AnyCall]):
    """The queued texts of one caller."""

    caller: Caller
    load: CallerLoad
    lead: float = 0.0
    """Tokens that were taken from this caller beyond its fair share, divided by its weight."""
    calls: dict[CallFuture[Any], deque[QueuedText[AnyCall]]] = field(default_factory=dict)
    """The queued texts of each call, the call whose turn it is first."""

    def in_turn(self) -> Iterator[QueuedText[AnyCall]]:
        """All texts: one of each call in turn."""
        rounds: Iterable[Iterator[QueuedText[AnyCall]]] = map(iter, self.calls.values())
        while True:
            going_on = []
            for texts in rounds:
                for text in islice(texts, 1):
                    going_on.append(texts)
                    yield text
            if not going_on:
                return
            rounds = going_on

    def charge(self, text: QueuedText[AnyCall]) -> None:
        """Count a text that was taken; its call's next turn comes after the other calls' turns."""
        self.lead += _cost(text) / self.caller.weight
        future = text.call.future
        if len(self.calls) > 1 and future in self.calls:
            self.calls[future] = self.calls.pop(future)


class AdmissionQueue(Generic[AnyCall]):
    """A queue of texts with weighted fair queueing over callers (Parekh and Gallager, 1993).

    Equal numbers of tokens, times the caller's weight and counting each row of a beam, are taken
    from all callers with queued texts. A caller's calls take turns. Texts of a call are in order.

    Either all texts of a call are admitted or none. Texts of ended calls leave at once.
    """

    def __init__(self, admission: Admission) -> None:
        """``admission`` bounds the queue, together with the other queues of the model."""
        self._admission = admission
        self._callers: dict[Caller, _CallerQueue[AnyCall]] = {}
        """The callers with queued texts."""
        self._past_callers: dict[Caller, _CallerQueue[AnyCall]] = {}
        """Callers whose texts were all taken and who have a lead; empty without queued texts."""
        self._num_queued = 0

    def __len__(self) -> int:
        """Texts that a worker may take. Consistent at any time: `take` is atomic."""
        return self._num_queued

    def put(self, call: AnyCall, lengths: Iterable[int], now: float) -> None:
        """Queue all texts of ``call``, which have ``lengths`` tokens.

        Raises QueueFull if they do not fit; ``lengths`` is then not iterated.
        """
        with self._admission.lock:
            load = self._admission.admit(call, now)
            call.timings.submitted = now
            queue = self._callers.get(call.caller)
            if queue is None:
                queue = self._past_callers.pop(call.caller, None) or _CallerQueue(call.caller, load)
                queue.load = load
                self._callers[call.caller] = queue
            queue.calls[call.future] = deque(
                [QueuedText(call, i, n) for i, n in enumerate(lengths)]
            )
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
            queues = list(self._callers.values())
            if is_light is not None:
                queues = [queue for queue in queues if queue.load.is_heavy is not is_light]
            expired: list[QueuedText[AnyCall]] = []
            chosen = choose(_unexpired(_in_fair_order(queues), now, expired))
            self._charge(chosen, queues)
            for text in [*chosen, *expired]:
                self._remove(text)
        return chosen, expired

    def take_all(self, now: float) -> list[QueuedText[AnyCall]]:
        """Empty the queue."""
        chosen, expired = self.take(now, list)
        return [*chosen, *expired]

    def _charge(
        self, texts: Sequence[QueuedText[AnyCall]], queues: Sequence[_CallerQueue[AnyCall]]
    ) -> None:
        """Count the texts that were taken; ``queues`` are those of the callers that had a chance.

        Each caller's fair share of them is deducted from its lead.
        """
        for text in texts:
            self._callers[text.call.caller].charge(text)
        if not texts:
            return
        share = sum(map(_cost, texts)) / sum(queue.caller.weight for queue in queues)
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
        if not texts:
            del queue.calls[text.call.future]
            self._rest(queue)

    def _rest(self, queue: _CallerQueue[AnyCall]) -> None:
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
                self._num_queued -= len(queue.calls.pop(future))
                self._rest(queue)


def _cost(text: QueuedText[Any]) -> int:
    """Tokens of a text, over all rows of its search."""
    return max(1, text.num_tokens) * int(text.call.width)


def _in_fair_order(queues: Sequence[_CallerQueue[AnyCall]]) -> Iterator[QueuedText[AnyCall]]:
    """All texts, in the order in which they would be taken one by one."""
    if len(queues) == 1:
        yield from queues[0].in_turn()
        return
    # The index decides between equal leads.
    heap = [(queue.lead, i, queue, queue.in_turn()) for i, queue in enumerate(queues)]
    heapify(heap)
    while heap:
        lead, i, queue, texts = heap[0]
        text = next(texts, None)
        if text is None:
            heappop(heap)
            continue
        yield text
        heapreplace(heap, (lead + _cost(text) / queue.caller.weight, i, queue, texts))


def _unexpired(
    texts: Iterable[QueuedText[AnyCall]], now: float, expired: list[QueuedText[AnyCall]]
) -> Iterator[QueuedText[AnyCall]]:
    """The texts of calls that go on; expired ones are added to ``expired``."""
    for text in texts:
        if text.call.is_expired(now):
            expired.append(text)
        elif not text.call.is_over():
            yield text
