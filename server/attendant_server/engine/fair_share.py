"""Fair sharing of a worker's time among the schedulers that have work."""

from collections.abc import Callable, Sequence

from attendant_server.engine.scheduler import Scheduler


class FairShare:
    """Fair queueing over the schedulers of one worker (Demers, Keshav and Shenker, 1989).

    Turns are counted by time, not by number: a batch of texts may take ten times as long as a
    decoding step.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` measures turns, in seconds."""
        self._clock = clock
        self._seconds: dict[Scheduler, float] = {}
        self._at_work: set[Scheduler] = set()
        self._least = 0.0

    def next(self, at_work: Sequence[Scheduler]) -> Scheduler:
        """The scheduler in ``at_work`` that has used the least time."""
        going_on = (self._seconds[scheduler] for scheduler in at_work if scheduler in self._at_work)
        self._least = max(self._least, min(going_on, default=0.0))
        for scheduler in at_work:
            if scheduler not in self._at_work:  # Idle time earns no credit.
                self._seconds[scheduler] = max(self._seconds.get(scheduler, 0.0), self._least)
        self._at_work = set(at_work)
        return min(at_work, key=self._seconds.__getitem__)

    def forget(self, scheduler: Scheduler) -> None:
        """Drop a scheduler that will have no more turns."""
        self._seconds.pop(scheduler, None)
        self._at_work.discard(scheduler)

    def take(self, scheduler: Scheduler, turn: Callable[[], None]) -> None:
        """Run ``turn`` for ``scheduler`` and add its duration to the scheduler's time.

        A turn for heavy callers only counts more while there are light callers, so that their
        schedulers get more time.
        """
        started = self._clock()
        try:
            turn()
        finally:
            self._seconds[scheduler] += (self._clock() - started) * scheduler.time_factor
