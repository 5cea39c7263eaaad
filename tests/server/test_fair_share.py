"""The division of a worker's time among its schedulers."""

from functools import partial

import pytest
from attendant_server.engine.fair_share import FairShare
from attendant_server.engine.scheduler import Scheduler


class IdleScheduler(Scheduler):
    """A scheduler that is only compared by identity."""

    num_active = 0
    has_work = True

    def __init__(self):
        pass

    def submit(self, call):
        raise NotImplementedError

    def _advance(self, is_alone):
        raise NotImplementedError

    def release_memory(self):
        raise NotImplementedError

    def stop_runs(self):
        raise NotImplementedError

    def _take_running(self):
        raise NotImplementedError


class Worker:
    """A worker whose schedulers need a given number of seconds per turn."""

    def __init__(self, **seconds):
        self.now = 0.0
        self.schedulers = {name: IdleScheduler() for name in seconds}
        self.names: dict[Scheduler, str] = {
            scheduler: name for name, scheduler in self.schedulers.items()
        }
        self.seconds = seconds
        self.fair_share = FairShare(lambda: self.now)

    def run(self, num_turns, *at_work):
        """The names of the schedulers that got a turn, in order."""
        taken = []
        for _ in range(num_turns):
            scheduler = self.fair_share.next([self.schedulers[name] for name in at_work])
            taken.append(self.names[scheduler])
            self.fair_share.take(scheduler, partial(self.wait, self.seconds[self.names[scheduler]]))
        return taken

    def wait(self, seconds):
        self.now += seconds


def test_schedulers_get_equal_time_and_not_equally_many_turns():
    worker = Worker(decoding=1.0, encoding=10.0)
    taken = worker.run(110, "decoding", "encoding")
    assert taken.count("encoding") == 10
    longest = max(len(run) for run in "".join(t[0] for t in taken).split("e"))
    assert longest <= 11


def test_a_scheduler_that_was_idle_does_not_catch_up():
    worker = Worker(decoding=1.0, encoding=1.0)
    worker.run(100, "decoding")
    taken = worker.run(20, "decoding", "encoding")
    assert taken.count("encoding") == 10


def test_a_scheduler_that_was_idle_is_not_made_to_wait_for_the_time_it_had_before():
    worker = Worker(decoding=1.0, encoding=1.0)
    worker.run(100, "decoding")
    worker.run(50, "encoding")
    taken = worker.run(20, "decoding", "encoding")
    assert taken.count("decoding") >= 9


def test_a_turn_that_fails_is_counted_as_well():
    worker = Worker(one=1.0, other=1.0)

    def fail():
        worker.wait(5.0)
        raise ValueError("broken")

    scheduler = worker.fair_share.next(list(worker.schedulers.values()))
    with pytest.raises(ValueError, match="broken"):
        worker.fair_share.take(scheduler, fail)
    assert worker.run(5, "one", "other") == ["other"] * 5
