"""The recent callers of all models, which decide whether light callers go first."""

import threading
from math import inf

from attendant_server.engine.calls import Caller

LANE_SECONDS = 10.0
"""Seconds for which a light caller, or lanes, are remembered."""
MAX_LIGHT_CALLERS = 4
"""Light callers that are remembered, the last ones."""


class CallerActivity:
    """Counts the callers of each model that are heavy or light, and remembers the last ones."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """Guards this object, and the counts and queues of all models."""
        self._lanes_until = -inf
        self._num_callers = [0, 0]
        """Light and heavy callers with unfinished calls, over all models."""
        self._light_seen: dict[Caller, float] = {}
        """The times of the last calls of the last light callers, the latest one last."""

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
        light_seen = self._light_seen
        light_seen.pop(caller, None)  # a caller who has become heavy was light before
        if not is_heavy:
            light_seen[caller] = now
            if len(light_seen) > MAX_LIGHT_CALLERS:
                del light_seen[next(iter(light_seen))]
        num_light, num_heavy = self._num_callers
        if not num_heavy:
            return
        last_seen = next(reversed(light_seen.values()), -inf)
        if num_light or now - last_seen < LANE_SECONDS:
            self._lanes_until = now + LANE_SECONDS
