"""The bound on the waiting texts of a model, and the load of its callers.

Both are state that callers' threads and workers share.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

from attendant_server.engine.calls import Call, Caller, CallFuture
from attendant_server.errors import QueueFull

LEAST_RETRY_SECONDS = 0.05
SHARE_OF_FREE_PLACES = 0.75
"""Share of the places in the queue, as far as other callers leave them free, that a caller may
take. Several such callers together never fill the queue (Choudhury and Hahne, 1998)."""
LEAST_HEAVY_TEXTS = 16
"""A caller with no more texts than this in the model is never heavy, unless its class is bulk."""
LANE_SECONDS = 10.0
"""Seconds for which another caller, or lanes, are remembered."""


@dataclass(slots=True, eq=False)
class CallerLoad:
    """The texts that one caller has in the model."""

    num_texts: int = 0
    """Texts of unfinished calls."""
    num_waiting: int = 0
    is_heavy: bool = False
    """Whether light callers go first."""


@dataclass(slots=True)
class _WaitingCall:
    submitted: float
    num_texts: int
    load: CallerLoad


class Admission:
    """Counts the texts that wait for one model, over all its queues: at most ``max_texts``.

    A text waits from its admission until `start`: first in the queue, then while a worker encodes
    it or has no free rows for it. Texts of ended calls are not counted.

    A caller is *heavy* if its class is bulk or if it has many texts in the model, and *light*
    otherwise.
    """

    def __init__(self, max_texts: int) -> None:
        self.max_texts = max_texts
        self.num_slots = 0
        """Sentences that all workers together can decode; 0 for models that do not decode."""
        self.lock = threading.Lock()
        """Guards these counts and all queues of the model."""
        self._lanes_until = -inf
        # Keyed by future: a reference to the call would keep its results in memory.
        self._calls: dict[CallFuture[Any], _WaitingCall] = {}  # oldest first
        self._num_waiting = 0
        self._loads: dict[Caller, CallerLoad] = {}
        """The callers with unfinished calls."""
        self._num_heavy = 0
        self._last_caller: Caller | None = None
        self._last_seen = self._other_seen = self._light_seen = -inf
        """Times of the last call, the last call of another caller, and the last light call."""

    @property
    def num_waiting(self) -> int:
        """Texts waiting."""
        return self._num_waiting

    def has_lanes(self, now: float) -> bool:
        """Whether light texts run apart from heavy ones, and before them.

        This is so from the time when a heavy caller and a light one use the model, until ten
        seconds after the last call beside a heavy caller.
        """
        return now < self._lanes_until

    def admit(self, call: Call[Any], now: float) -> CallerLoad:
        """Count all texts of ``call``; raises QueueFull. The caller holds the lock."""
        load = self._loads.get(call.caller) or CallerLoad(is_heavy=call.caller.is_bulk)
        self._check_room(call.num_texts, load, now)
        if not load.num_texts:
            self._loads[call.caller] = load
            self._num_heavy += load.is_heavy
        load.num_texts += call.num_texts
        load.num_waiting += call.num_texts
        self._num_waiting += call.num_texts
        self._calls[call.future] = _WaitingCall(now, call.num_texts, load)
        if not load.is_heavy and load.num_texts > self._most_light_texts:
            load.is_heavy = True
            self._num_heavy += 1
        self._note(call.caller, load, now)
        return load

    def start(self, calls: Iterable[Call[Any]]) -> None:
        """Stop counting one text of each of ``calls`` as waiting: a model run includes it now."""
        with self.lock:
            for call in calls:
                waiting = self._calls.get(call.future)
                if waiting is None:  # the call is over
                    continue
                waiting.num_texts -= 1
                waiting.load.num_waiting -= 1
                self._num_waiting -= 1
                if not waiting.num_texts:
                    del self._calls[call.future]

    def end(self, future: CallFuture[Any], caller: Caller, num_texts: int) -> None:
        """Stop counting the texts of an ended call. The caller holds the lock."""
        load = self._loads[caller]
        waiting = self._calls.pop(future, None)
        if waiting is not None:
            self._num_waiting -= waiting.num_texts
            load.num_waiting -= waiting.num_texts
        load.num_texts -= num_texts
        is_still_heavy = load.num_texts and (
            caller.is_bulk or load.num_texts > self._most_light_texts
        )
        if load.is_heavy and not is_still_heavy:
            load.is_heavy = False
            self._num_heavy -= 1
        if not load.num_texts:
            del self._loads[caller]

    @property
    def _most_light_texts(self) -> int:
        return max(LEAST_HEAVY_TEXTS, self.num_slots // 2)

    def _check_room(self, num_texts: int, load: CallerLoad, now: float) -> None:
        """Raise QueueFull if the queue, or this caller's part of it, has no room for the texts."""
        if self._num_waiting + num_texts > self.max_texts:
            raise QueueFull(
                f"{self._num_waiting} texts are waiting and {num_texts} more would exceed the "
                f"limit of {self.max_texts}",
                retry_after_seconds=self._oldest_age(now),
            )
        num_free = self.max_texts - (self._num_waiting - load.num_waiting)
        limit = ceil(SHARE_OF_FREE_PLACES * num_free)
        # A caller who is alone may send a call of any size.
        if self._num_waiting and load.num_waiting + num_texts > limit:
            raise QueueFull(
                f"{load.num_waiting} texts of this caller are waiting and {num_texts} more would "
                f"exceed its limit of {limit}: three quarters of the {num_free} places that other "
                f"callers leave free, of {self.max_texts}",
                retry_after_seconds=self._oldest_age(now),
            )

    def _note(self, caller: Caller, load: CallerLoad, now: float) -> None:
        """Remember the callers of late, and begin or prolong lanes if these callers need them."""
        if caller != self._last_caller:
            self._last_caller, self._other_seen = caller, self._last_seen
        self._last_seen = now
        if not load.is_heavy:
            self._light_seen = now
        has_light = len(self._loads) > self._num_heavy
        if self._num_heavy and (
            has_light or min(self._other_seen, self._light_seen) > now - LANE_SECONDS
        ):
            self._lanes_until = now + LANE_SECONDS

    def _oldest_age(self, now: float) -> float:
        """Seconds that the oldest text has waited: the estimated wait of a new text."""
        oldest = next(iter(self._calls.values()), None)
        return max(LEAST_RETRY_SECONDS, now - oldest.submitted) if oldest else LEAST_RETRY_SECONDS
