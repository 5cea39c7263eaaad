"""The bound on the waiting texts of a model, and the load of its callers.

Both are state that callers' threads and workers share.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Any

from attendant_server.engine.caller_activity import CallerActivity
from attendant_server.engine.calls import Call, Caller, CallFuture
from attendant_server.errors import QueueFull

LEAST_RETRY_SECONDS = 0.05
SHARE_OF_FREE_PLACES = 0.75
"""Share of the places in the queue, as far as other callers leave them free, that a caller may
take. Several such callers together never fill the queue (Choudhury and Hahne, 1998)."""
LEAST_HEAVY_TEXTS = 16
"""A caller with no more texts than this in the model is never heavy, unless its class is bulk."""


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

    def __init__(self, max_texts: int, activity: CallerActivity) -> None:
        """``activity`` is that of the callers of all models of the engine."""
        self.max_texts, self.activity = max_texts, activity
        self.num_slots = 0
        """Sentences that all workers together can decode; 0 for models that do not decode."""
        self.lock = activity.lock
        """Guards these counts and all queues of the model."""
        # Keyed by future: a reference to the call would keep its results in memory.
        self._calls: dict[CallFuture[Any], _WaitingCall] = {}  # oldest first
        self._num_waiting = 0
        self._loads: dict[Caller, CallerLoad] = {}
        """The callers with unfinished calls."""

    @property
    def num_waiting(self) -> int:
        """Texts waiting."""
        return self._num_waiting

    def check_room(self, call: Call[Any], now: float) -> None:
        """Raise QueueFull if the texts of ``call`` do not fit. The caller holds the lock."""
        self._check_room(call.num_texts, self._load_of(call.caller), now)

    def is_heavy_with(self, call: Call[Any]) -> bool:
        """Whether the caller of ``call`` is heavy once the call is admitted."""
        load = self._load_of(call.caller)
        return load.is_heavy or load.num_texts + call.num_texts > self._most_light_texts

    def admit(self, call: Call[Any], now: float) -> CallerLoad:
        """Count all texts of ``call``, for which there must be room. The caller holds the lock."""
        load = self._load_of(call.caller)
        if not load.num_texts:
            self._loads[call.caller] = load
            self.activity.count(load.is_heavy, 1)
        load.num_texts += call.num_texts
        load.num_waiting += call.num_texts
        self._num_waiting += call.num_texts
        self._calls[call.future] = _WaitingCall(now, call.num_texts, load)
        if not load.is_heavy and load.num_texts > self._most_light_texts:
            self._set_heavy(load, True)
        self.activity.note(call.caller, load.is_heavy, now)
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
        if not load.num_texts:
            del self._loads[caller]
            self.activity.count(load.is_heavy, -1)
        elif load.is_heavy and not caller.is_bulk and load.num_texts <= self._most_light_texts:
            self._set_heavy(load, False)

    def _load_of(self, caller: Caller) -> CallerLoad:
        return self._loads.get(caller) or CallerLoad(is_heavy=caller.is_bulk)

    def _set_heavy(self, load: CallerLoad, is_heavy: bool) -> None:
        load.is_heavy = is_heavy
        self.activity.count(is_heavy, 1)
        self.activity.count(not is_heavy, -1)

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

    def _oldest_age(self, now: float) -> float:
        """Seconds that the oldest text has waited: the estimated wait of a new text."""
        oldest = next(iter(self._calls.values()), None)
        return max(LEAST_RETRY_SECONDS, now - oldest.submitted) if oldest else LEAST_RETRY_SECONDS
