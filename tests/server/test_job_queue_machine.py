"""Any sequence of operations on the queue of long jobs, against a simple model of it."""

from concurrent.futures import Future
from typing import Any

import pytest
from attendant_server.application import job_queue
from attendant_server.application.job_queue import SPARING_SECONDS, JobQueue
from attendant_server.engine.calls import Caller
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

CALLERS = [Caller("a"), Caller("b", weight=4.0), Caller("c", weight=0.25), Caller("d", True)]
callers, numbers = st.sampled_from(CALLERS), st.integers(0, 100)
MAX_PAST_CALLERS = 3


class JobQueueMachine(RuleBasedStateMachine):
    """Jobs of several callers come, begin, end and are cancelled in any order.

    ``waiting`` holds the jobs that wait of each caller that has any, ``running`` the others.
    """

    @initialize(num_threads=st.integers(1, 4))
    def begin(self, num_threads):
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(job_queue, "MAX_PAST_CALLERS", MAX_PAST_CALLERS)
        self.num_threads, self.now, self.spared_until = num_threads, 0.0, -1.0
        self.queue = JobQueue(num_threads)
        self.waiting: dict[Caller, list[Future[Any]]] = {}
        self.running: list[tuple[Caller, Future[Any]]] = []
        self.num_new = 0

    @rule(caller=callers, num_jobs=st.integers(1, 6))
    def put(self, caller, num_jobs):
        for _ in range(num_jobs):
            self._put(caller)

    @rule()
    def put_of_new_caller(self):
        self.num_new += 1
        self._put(Caller(f"new {self.num_new}"))

    @rule()
    def take(self):
        if len(self.running) == self.num_threads:
            return
        heavy = {caller for caller in self._present() if self._is_heavy(caller)}
        num_heavy = sum(caller in heavy for caller, _ in self.running)
        # While a thread is spared, no light caller waits for heavy jobs on all threads.
        are_full = (
            self.num_threads > 1
            and self.now < self.spared_until
            and num_heavy >= self.num_threads - 1
        )
        taken = self.queue.take(self.now)
        if taken is None:
            assert not self.waiting.keys() - (heavy if are_full else set())
            return
        caller, job, work = taken
        assert not (are_full and caller in heavy)
        assert self.waiting[caller].pop(0) is work() is job
        assert job.running()
        self._forget_empty(caller)
        self.running.append((caller, job))

    @rule(number=numbers, seconds=st.integers(0, 4))
    def end(self, number, seconds):
        if self.running:
            caller, job = self.running.pop(number % len(self.running))
            self.queue.end(caller, float(seconds))
            job.set_result(None)

    @rule(number=numbers, is_noticed=st.booleans())
    def cancel(self, number, is_noticed):
        """``is_noticed`` is false if a thread takes the job before it was discarded."""
        if self.waiting:
            caller = list(self.waiting)[number % len(self.waiting)]
            job = self.waiting[caller].pop(number % len(self.waiting[caller]))
            self._forget_empty(caller)
            assert job.cancel()
            if not is_noticed and len(self.running) < self.num_threads:
                self.take()
            self.queue.discard(caller, job)

    @rule(seconds=st.sampled_from([1.0, SPARING_SECONDS]))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def the_callers_that_are_remembered_are_bounded(self):
        if hasattr(self, "queue"):
            assert self.queue.num_callers - len(self._present()) <= MAX_PAST_CALLERS
            assert self._present() or not self.queue.num_callers

    def teardown(self):
        """Every job ends, although a new caller comes whenever none of them waits."""
        if not hasattr(self, "queue"):
            return
        waiting = [job for jobs in self.waiting.values() for job in jobs]
        num_left = 300 + 50 * len(waiting)
        while any(not job.done() for job in waiting):
            num_left -= 1
            assert num_left > 0, "a caller starves"
            if not self.waiting.keys() - set(CALLERS):
                self.put_of_new_caller()
            self.take()
            self.end(0, 1)
        self.now += SPARING_SECONDS
        while self._present():
            self.take()
            self.end(0, 1)
        assert self.queue.take(self.now) is None
        assert self.queue.num_callers == 0
        self.patch.undo()

    def _put(self, caller: Caller) -> None:
        job: Future[Any] = Future()
        has_others = bool(self._present() - {caller})
        self.queue.put(caller, job, lambda: job, self.now)
        self.waiting.setdefault(caller, []).append(job)
        if has_others and not self._is_heavy(caller):
            self.spared_until = self.now + SPARING_SECONDS

    def _present(self) -> set[Caller]:
        return {*self.waiting, *(caller for caller, _ in self.running)}

    def _is_heavy(self, caller: Caller) -> bool:
        num_running = sum(each == caller for each, _ in self.running)
        num_jobs = len(self.waiting.get(caller, ())) + num_running
        return caller.is_bulk or num_jobs > self.num_threads

    def _forget_empty(self, caller: Caller) -> None:
        if not self.waiting.get(caller, True):
            del self.waiting[caller]


TestJobQueue = JobQueueMachine.TestCase
