"""The recent callers of all models, which decide whether light callers go first."""

import threading
from math import inf

from attendant_server.engine.calls import Caller

LANE_SECONDS = 10.0
"""Seconds for which another caller, or lanes, are remembered."""


class CallerActivity:
    """Counts the callers of each model that are heavy or light, and remembers the last ones."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """Guards this object, and the counts and queues of all models."""
        self._lanes_until = -inf
        self._num_callers = [0, 0]
        """Light and heavy callers with unfinished calls, over all models."""
        self._last_caller: Caller | None = None
        self._last_seen = self._other_seen = self._light_seen = -inf
        """Times of the last call, the last call of another caller, and the last light call."""

    def has_lanes(self, now: float) -> bool:
        """Whether light texts run apart from heavy ones, and before them.

        This is so from the time when a heavy caller and a light one are there, until ten seconds
        after the last call that came while this was so.
        """
        return now < self._lanes_until

    def count(self, is_heavy: bool, change: int) -> None:
        """Change the number of heavy or of light callers. The caller holds the lock."""
        self._num_callers[is_heavy] += change

    def note(self, caller: Caller, is_heavy: bool, now: float) -> None:
        """Remember a call, and begin or prolong lanes if callers need them.

        The caller holds the lock.
        """
        if caller != self._last_caller:
            self._last_caller, self._other_seen = caller, self._last_seen
        self._last_seen = now
        if not is_heavy:
            self._light_seen = now
        num_light, num_heavy = self._num_callers
        # A heavy caller who is alone was light before.
        seen = min(self._other_seen, self._light_seen)
        if num_heavy and (num_light or now - seen < LANE_SECONDS):
            self._lanes_until = now + LANE_SECONDS
