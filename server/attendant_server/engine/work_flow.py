"""The work that comes to a queue and leaves it, from which waits of calls are estimated."""

from collections import deque
from math import exp
from statistics import median
from typing import NamedTuple

SAMPLE_SECONDS = 1.0
"""Least duration of a sample of the work that leaves."""
NUM_SAMPLES = 5
"""The rate is the median of this many samples: a single stall or burst does not change it."""
MEMORY_SECONDS = 10.0
"""Seconds after which the samples of a queue from which nothing was taken are forgotten."""
LOAD_SECONDS = 30.0
"""Time constant of the average of the work that comes."""
STEADY_SECONDS = 5.0
"""Seconds for which a queue must not have been empty if more work is expected to come."""


class Rates(NamedTuple):
    """The rates of a queue."""

    leaving: float
    """Work that is taken in a second while more work waits; above 0."""
    load: float
    """Work that comes while a unit of work leaves, from 0 to 1."""


class WorkFlow:
    """Measures the rates at which work comes and leaves, in any unit of work.

    A sample of the work that leaves lasts from one removal to a later one. The work of the first
    removal does not count: it was done before. Time in which the queue was empty is in no sample,
    so the rate is unknown until work has waited for some seconds.
    """

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=NUM_SAMPLES)
        self._started: float | None = None
        """When the sample in progress began; None if the queue was empty since the last removal."""
        self._work = 0
        """Work of the sample in progress."""
        self._last = 0.0
        """Time of the last removal."""
        self._coming = self._came = 0.0
        """Average of the work that came in a second, and the time when work came last."""
        self._filled = 0.0
        """Time when work came to the empty queue last."""

    def note_coming(self, work: int, was_empty: bool, now: float) -> None:
        """Count work that was added to the queue; ``was_empty`` if nothing waited before."""
        if was_empty:
            self._filled, self._started = now, None
        self._coming, self._came = self._coming_at(now) + work / LOAD_SECONDS, now

    def note_leaving(self, work: int, now: float) -> None:
        """Count work that was removed from the queue to be done at once."""
        if now - self._last > MEMORY_SECONDS:
            self._samples.clear()
            self._started = None
        self._last = now
        if self._started is None:
            self._started, self._work = now, 0
            return
        self._work += work
        if now - self._started >= SAMPLE_SECONDS:
            self._samples.append(self._work / (now - self._started))
            self._started, self._work = now, 0

    def rates(self, now: float) -> Rates | None:
        """The present rates; None if they are unknown."""
        if len(self._samples) < NUM_SAMPLES or now - self._last > MEMORY_SECONDS:
            return None
        leaving = median(self._samples)
        is_steady = now - self._filled >= STEADY_SECONDS
        return Rates(leaving, min(1.0, self._coming_at(now) / leaving) if is_steady else 0.0)

    def _coming_at(self, now: float) -> float:
        return self._coming * exp((self._came - now) / LOAD_SECONDS)


class LaneFlows:
    """The flows of the work of one queue: all of it, and that of the light and the heavy lane."""

    def __init__(self) -> None:
        self._flows: dict[bool | None, WorkFlow] = {
            lane: WorkFlow() for lane in (None, True, False)
        }

    def of(self, lane: bool | None) -> WorkFlow:
        """The flow of all work (None), or of the light (True) or the heavy (False) lane."""
        return self._flows[lane]

    def rates(self, lane: bool | None, now: float) -> Rates | None:
        """The present rates of a lane; None if no rate is known.

        A lane without samples has the rate of the fastest flow, and no load.
        """
        if (rates := self._flows[lane].rates(now)) is not None:
            return rates
        known = [rates.leaving for flow in self._flows.values() if (rates := flow.rates(now))]
        return Rates(max(known), 0.0) if known else None
