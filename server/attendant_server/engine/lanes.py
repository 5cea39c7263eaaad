"""The division of a scheduler's time between light and heavy callers.

Callers are in two *lanes* while a heavy caller floods the model beside others (`Admission`). Light
texts run in batches of their own and first, so they take about as long as without the flood.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

Run: TypeAlias = Callable[[bool], bool]
"""Makes at most one model run for the light lane (True) or the heavy lane (False).

Returns whether there was anything to run.
"""

HEAVY_TIME_FACTOR = 4.0
"""Seconds of light runs for each second of heavy runs, which thus take a fifth of the time."""


def num_slots_of_lane(num_slots: int) -> int:
    """How many of these slots, or rows, one lane may take, so that some come free for the other."""
    return num_slots - max(1, num_slots // 8) if num_slots > 1 else num_slots


class LaneTurns:
    """Alternates the runs of both lanes.

    Light runs earn credit for heavy ones. A heavy run must have as much credit as the last run of
    its kind took, and pays what it takes. Without light runs, heavy ones need no credit.
    """

    def __init__(self, runs: Sequence[Run], clock: Callable[[], float]) -> None:
        """``runs`` are the kinds of runs, in the order in which a text needs them."""
        self._runs, self._clock = runs, clock
        self._seconds = [0.0] * len(runs)
        """Duration of the last heavy run of each kind."""
        self._next = 0
        """Index of the next kind of heavy run."""
        self._credit = 0.0

    def advance(self) -> bool:
        """Make one light run of each kind, then at most one heavy run.

        Returns whether there was a light run.
        """
        started = self._clock()
        has_run = False
        for run in self._runs:
            has_run |= run(True)
        if has_run:
            if self._credit < max(self._seconds):  # which suffices for any run
                self._credit += (self._clock() - started) / HEAVY_TIME_FACTOR
        else:
            self._credit = 0.0
        self._advance_heavy(has_run)
        return has_run

    def _advance_heavy(self, is_beside_light: bool) -> None:
        """Make the next heavy run; kinds of which there is nothing to run lose their turn."""
        for _ in self._runs:
            kind = self._next
            if is_beside_light and self._credit < self._seconds[kind]:
                return
            self._next = (kind + 1) % len(self._runs)
            started = self._clock()
            if self._runs[kind](False):
                self._seconds[kind] = self._clock() - started
                if is_beside_light:
                    self._credit -= self._seconds[kind]
                return
