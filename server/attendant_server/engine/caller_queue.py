"""The queued texts of one caller, and the order of the texts of several callers."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from itertools import islice
from math import inf
from typing import Any, Generic, TypeVar

from attendant_server.engine.admission import CallerLoad
from attendant_server.engine.calls import Call, Caller, CallFuture

AnyCall = TypeVar("AnyCall", bound=Call[Any])


@dataclass(slots=True, eq=False)  # not frozen, which would take longer for every text
class QueuedText(Generic[AnyCall]):
    """One text of a call, or one pair of a `ScoreCall`."""

    call: AnyCall
    index: int
    num_tokens: int
    """Tokens of the text, or of the longer text of the pair."""
    work: int
    """Tokens over all rows of the search, at least 1."""


@dataclass(slots=True, eq=False)
class CallerQueue(Generic[AnyCall]):
    """The queued texts of one caller."""

    caller: Caller
    load: CallerLoad
    lead: float = 0.0
    """Tokens that were taken from this caller beyond its fair share, divided by its weight."""
    calls: dict[CallFuture[Any], deque[QueuedText[AnyCall]]] = field(default_factory=dict)
    """The queued texts of each call, the call whose turn it is first."""
    work: int = 0
    """Work of all queued texts."""

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

    def work_before(self, num_texts: int) -> tuple[float, float]:
        """About how much of the caller's work is done before a new call of ``num_texts`` ends.

        First if no further calls come, then if each call that ends is followed by another one.
        """
        lengths = [len(texts) for texts in self.calls.values()]
        if not lengths:
            return 0.0, 0.0
        work_of_text = self.work / sum(lengths)
        num_before = sum(min(length, num_texts) for length in lengths)
        return work_of_text * num_before, work_of_text * len(lengths) * num_texts

    def charge(self, text: QueuedText[AnyCall]) -> None:
        """Count a text that was taken; its call's next turn comes after the other calls' turns."""
        self.lead += text.work / self.caller.weight
        future = text.call.future
        if len(self.calls) > 1 and future in self.calls:
            self.calls[future] = self.calls.pop(future)


def work_of(texts: Iterable[QueuedText[Any]]) -> int:
    """Work of all ``texts``."""
    return sum([text.work for text in texts])


def in_fair_order(queues: Sequence[CallerQueue[AnyCall]]) -> Iterator[QueuedText[AnyCall]]:
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
        heapreplace(heap, (lead + text.work / queue.caller.weight, i, queue, texts))


def work_before(
    call: AnyCall,
    work: int,
    load: float,
    own: CallerQueue[AnyCall] | None,
    queues: Iterable[CallerQueue[AnyCall]],
) -> float:
    """About how much of the work of ``queues`` is done before the last text of a new call.

    The call's texts are ``work``; its caller's queue is ``own``. Further work comes ``load`` times
    as fast as work is done.
    """
    queued, steady = own.work_before(call.num_texts) if own else (0.0, 0.0)
    lead, weight = own.lead if own else 0.0, call.caller.weight
    lead_queued, lead_steady = lead + (queued + work) / weight, lead + (steady + work) / weight
    for queue in queues:
        if queue is not own:
            ahead = (lead_queued - queue.lead) * queue.caller.weight
            queued += min(queue.work, max(0.0, ahead))
            steady += max(0.0, lead_steady - queue.lead) * queue.caller.weight
    growing = (queued + load * work) / (1 - load) if load < 1 else inf
    return min(steady, growing)
