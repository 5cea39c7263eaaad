"""The work that comes to a queue and leaves it, from which waits of calls are estimated."""

from collections import deque
from statistics import median

SAMPLE_SECONDS = 1.0
"""Least duration of a sample."""
NUM_SAMPLES = 5
"""Rates are medians of this many samples: a single stall or burst does not change them."""
MEMORY_SECONDS = 10.0
"""Seconds after which the samples of a queue from which nothing was taken are forgotten."""


class WorkFlow:
    """Measures the rates at which work comes and leaves while more work waits. Any unit of work.

    A sample lasts from one removal to a later one. The work of its first removal does not count: it
    was done before. Time in which the queue was empty is in no sample, so rates are unknown until
    work has waited for some seconds. The rate of coming work is 0 until the queue has not been
    empty for so long: only then is it likely to go on.
    """

    def __init__(self) -> None:
        self._coming: deque[float] = deque(maxlen=NUM_SAMPLES)
        self._leaving: deque[float] = deque(maxlen=NUM_SAMPLES)
        self._started: float | None = None
        """When the sample in progress began; None if the queue was empty since the last removal."""
        self._num_coming = self._num_leaving = 0
        """Work of the sample in progress."""
        self._last = 0.0
        """Time of the last removal."""

    def note_coming(self, work: int, was_empty: bool) -> None:
        """Count work that was added to the queue; ``was_empty`` if nothing waited before."""
        if was_empty:
            self._coming.clear()
            self._started = None
        self._num_coming += work

    def note_leaving(self, work: int, now: float) -> None:
        """Count work that was removed from the queue to be done at once."""
        if now - self._last > MEMORY_SECONDS:
            self._coming.clear()
            self._leaving.clear()
            self._started = None
        self._last = now
        if self._started is None:
            self._begin(now)
            return
        self._num_leaving += work
        seconds = now - self._started
        if seconds >= SAMPLE_SECONDS:
            self._coming.append(self._num_coming / seconds)
            self._leaving.append(self._num_leaving / seconds)
            self._begin(now)

    def _begin(self, now: float) -> None:
        self._started = now
        self._num_coming = self._num_leaving = 0

    def rates(self, now: float) -> tuple[float, float] | None:
        """Work that comes and work that leaves in a second, above 0; None if unknown."""
        if len(self._leaving) < NUM_SAMPLES or now - self._last > MEMORY_SECONDS:
            return None
        is_steady = len(self._coming) == self._coming.maxlen
        return (median(self._coming) if is_steady else 0.0), median(self._leaving)


class LaneFlows:
    """The flows of the work of one queue: all of it, and that of the light and the heavy lane."""

    def __init__(self) -> None:
        self._flows: dict[bool | None, WorkFlow] = {
            lane: WorkFlow() for lane in (None, True, False)
        }

    def of(self, lane: bool | None) -> WorkFlow:
        """The flow of all work (None), or of the light (True) or the heavy (False) lane."""
        return self._flows[lane]

    def rates(self, lane: bool | None, now: float) -> tuple[float, float] | None:
        """Work that comes and work that leaves in a second, above 0; None if unknown.

        An unknown lane has the rate of the fastest known one, and no work that comes.
        """
        if (rates := self._flows[lane].rates(now)) is not None:
            return rates
        known = [rates for flow in self._flows.values() if (rates := flow.rates(now))]
        return (0.0, max(leaving for _, leaving in known)) if known else None
