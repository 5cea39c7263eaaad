"""The queue of long jobs, fair among callers."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import inf
from threading import Lock
from typing import Any, TypeAlias

from attendant_server.engine.calls import Caller

MAX_PAST_CALLERS = 1024
"""Callers without jobs whose lead is remembered."""
SPARING_SECONDS = 10.0
"""Time after a job of a light caller beside others for which a thread is spared."""

Work: TypeAlias = Callable[[], Any]


@dataclass(slots=True, eq=False)
class _CallerJobs:
    """The jobs of one caller."""

    lead: float = 0.0
    """Seconds that the caller's jobs took beyond its fair share, divided by its weight."""
    waiting: dict["Future[Any]", Work] = field(default_factory=dict)
    """In the order in which they came. A call has one job at a time, so that calls take turns."""
    num_running: int = 0

    def __len__(self) -> int:
        return len(self.waiting) + self.num_running


class JobQueue:
    """Weighted fair queueing of jobs over callers, by the time that they take.

    The order is that of `attendant_server.engine.admission_queue`, which counts tokens. A caller
    with more jobs than there are threads is heavy. Beside light callers, heavy ones leave one of
    several threads free, because a job cannot be interrupted. For any thread.
    """

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._lock = Lock()
        self._callers: dict[Caller, _CallerJobs] = {}
        self._spared_until = -inf

    @property
    def num_callers(self) -> int:
        """Callers with jobs, and others that have a lead."""
        return len(self._callers)

    def put(self, caller: Caller, job: "Future[Any]", work: Work, now: float) -> None:
        """Let a job wait. ``now`` is a time in seconds, here and below."""
        with self._lock:
            jobs = self._callers.setdefault(caller, _CallerJobs())
            jobs.waiting[job] = work
            has_others = any(len(other) for other in self._callers.values() if other is not jobs)
            if has_others and not self._is_heavy(caller):
                self._spared_until = now + SPARING_SECONDS

    def take(self, now: float) -> "tuple[Caller, Future[Any], Work] | None":
        """The next job, which begins to run; None if there is none for one more thread."""
        with self._lock:
            while ready := self._ready(now):
                caller = min(ready, key=lambda each: self._callers[each].lead)
                jobs = self._callers[caller]
                job = next(iter(jobs.waiting))
                work = jobs.waiting.pop(job)
                if job.set_running_or_notify_cancel():
                    jobs.num_running += 1
                    return caller, job, work
                self._forget_callers()  # it was cancelled, and maybe the caller's only job
        return None

    def end(self, caller: Caller, seconds: float) -> None:
        """Count a job that ran for ``seconds``; each caller's fair share of them is deducted."""
        with self._lock:
            jobs = self._callers[caller]
            share = seconds / sum(each.weight for each, its in self._callers.items() if len(its))
            jobs.lead += seconds / caller.weight
            jobs.num_running -= 1
            for each in self._callers.values():
                each.lead -= share
            self._forget_callers()

    def discard(self, caller: Caller, job: "Future[Any]") -> None:
        """Drop a job if it waits; its call is over."""
        with self._lock:
            jobs = self._callers.get(caller)
            if jobs is not None and jobs.waiting.pop(job, None) is not None:
                self._forget_callers()

    def cancel_all(self) -> None:
        """Cancel all jobs that wait."""
        with self._lock:
            waiting = [job for jobs in self._callers.values() for job in jobs.waiting]
        for job in waiting:
            job.cancel()

    def _ready(self, now: float) -> list[Caller]:
        """The callers whose next job may run on one more thread."""
        waiting = [caller for caller, jobs in self._callers.items() if jobs.waiting]
        if now >= self._spared_until or self._num_threads == 1:
            return waiting
        heavy = set(filter(self._is_heavy, self._callers))
        num_running = sum(self._callers[caller].num_running for caller in heavy)
        if num_running < self._num_threads - 1:
            return waiting
        return [caller for caller in waiting if caller not in heavy]

    def _is_heavy(self, caller: Caller) -> bool:
        return caller.is_bulk or len(self._callers[caller]) > self._num_threads

    def _forget_callers(self) -> None:
        """Drop callers without jobs: all if no caller has any, those without a lead, or too many.

        The first ones of too many are dropped.
        """
        past = [caller for caller, jobs in self._callers.items() if not len(jobs)]
        if len(past) == len(self._callers):
            self._callers.clear()
            return
        for i, caller in enumerate(past, MAX_PAST_CALLERS - len(past)):
            if self._callers[caller].lead <= 0 or i < 0:
                del self._callers[caller]
