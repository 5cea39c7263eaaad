"""Whose turn it is on a worker: its time is shared equally among the lanes that have work."""

from collections.abc import Callable, Collection, Sequence

from attendant_server.engine.lane import Lane


class Turns:
    """Fair queueing over the lanes of one worker (Demers, Keshav and Shenker, 1989).

    A turn of one lane may take ten times as long as one of another: a decoding step is short, a
    batch of texts is not. So not turns are counted but their time.
    """

    def __init__(self, lanes: Collection[Lane], clock: Callable[[], float]) -> None:
        """``clock`` measures turns, in seconds."""
        self._clock = clock
        self._seconds = dict.fromkeys(lanes, 0.0)
        self._at_work: set[Lane] = set()
        self._least = 0.0

    def next(self, at_work: Sequence[Lane]) -> Lane:
        """The lane, of those that have work, that has had the least time."""
        going_on = (self._seconds[lane] for lane in at_work if lane in self._at_work)
        self._least = max(self._least, min(going_on, default=0.0))
        for lane in at_work:
            if lane not in self._at_work:  # It does not catch up on time that it did not want.
                self._seconds[lane] = max(self._seconds[lane], self._least)
        self._at_work = set(at_work)
        return min(at_work, key=self._seconds.__getitem__)

    def take(self, lane: Lane, turn: Callable[[], None]) -> None:
        """Run ``turn`` of ``lane`` and count its time."""
        started = self._clock()
        try:
            turn()
        finally:
            self._seconds[lane] += self._clock() - started
