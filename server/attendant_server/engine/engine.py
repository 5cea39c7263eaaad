"""The engine's workers. Each worker is a thread that runs one scheduler per model in turn."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from attendant_server.engine.calls import Call
from attendant_server.engine.fair_share import FairShare
from attendant_server.engine.scheduler import Scheduler
from attendant_server.errors import ModelFailed, Unavailable

logger = logging.getLogger(__name__)

IDLE_SECONDS = 10.0
"""Seconds without work after which a worker releases the memory of its caches."""
LAST_RUN_SECONDS = 5.0
"""Seconds that draining waits for the model run in progress after its time limit."""


class EngineState(Enum):
    """The states of an engine, in order."""

    NEW = "not started"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(slots=True)
class _Model:
    """A model that the engine runs, or that its workers are about to drop."""

    schedulers: Sequence[Scheduler]
    """One per worker."""
    num_users: int
    """Workers that have not dropped it."""
    dropped: Future[None]
    """Done once no worker uses it."""


class _Worker:
    """The schedulers of one worker."""

    def __init__(self, clock: Callable[[], float], lock: threading.RLock) -> None:
        self.woken = threading.Condition(lock)
        self.fair_share = FairShare(clock)
        self.own: tuple[Scheduler, ...] = ()
        self.removed: list[tuple[Scheduler, _Model]] = []
        """Schedulers of removed models, which the worker has to drop."""
        self.turn: tuple[Scheduler, float] | None = None
        """The scheduler whose turn it is, and the start of the turn."""


class Engine:
    """Runs every admitted call. Only a scheduler's worker changes its state, without a lock."""

    def __init__(
        self,
        num_workers: int,
        clock: Callable[[], float] = time.monotonic,
        processors: Sequence[int] = (),
        idle_seconds: float = IDLE_SECONDS,
        on_idle: Callable[[], None] = lambda: None,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        """An engine without models, which does not run yet.

        ``clock`` measures deadlines, turns and idle times, in seconds. ``processors`` holds one
        processor id per worker to pin it to, or is empty. A worker without work for
        ``idle_seconds`` releases its memory and then calls ``on_idle`` on its thread. Each worker
        first calls ``on_start`` on its thread.
        """
        self.clock = clock
        self._idle_seconds, self._on_idle, self._on_start = idle_seconds, on_idle, on_start
        self.on_death: Callable[[], None] | None = None
        """Called on the thread of a worker that died of an error, after all calls were answered."""
        self._models: dict[str, _Model] = {}
        self._lock = threading.RLock()
        self._workers = [_Worker(clock, self._lock) for _ in range(num_workers)]
        self._idle: list[_Worker] = []
        """The workers that wait for work; the one that worked last comes last."""
        self._state = EngineState.NEW
        self._has_died = False
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(worker, processors[i : i + 1]),
                name=f"attendant-worker-{i}",
                daemon=True,
            )
            for i, worker in enumerate(self._workers)
        ]

    def start(self) -> None:
        """Start the workers."""
        self._state = EngineState.RUNNING
        for thread in self._threads:
            thread.start()

    def add(self, name: str, schedulers: Sequence[Scheduler]) -> None:
        """Run a model from now on; ``schedulers`` has one for each worker. Any thread."""
        with self._lock:
            self._models[name] = _Model(schedulers, len(self._workers), Future())
            for worker, scheduler in zip(self._workers, schedulers, strict=True):
                worker.own = (*worker.own, scheduler)

    def remove(self, name: str) -> Future[None]:
        """Take no more calls for a model, and fail its unfinished ones with Unavailable.

        The result is done once no worker uses the model. Any thread.
        """
        with self._lock:
            model = self._models.pop(name)
            for worker, scheduler in zip(self._workers, model.schedulers, strict=True):
                worker.own = tuple(each for each in worker.own if each is not scheduler)
                worker.removed.append((scheduler, model))
            self._wake(len(self._workers))
        return model.dropped

    def submit(self, model: str, call: Call[Any]) -> None:
        """Admit a call, or raise QueueFull or Unavailable at once. Any thread."""
        with self._lock:
            if self._state is not EngineState.RUNNING:
                raise Unavailable(f"the engine is {self._state.value}")
            if model not in self._models:
                raise Unavailable("the model has been unloaded")
            scheduler = self._models[model].schedulers[0]
            scheduler.submit(call)
            self._wake(scheduler.num_to_wake(call.num_texts))

    def hanging(self, max_seconds: float) -> list[Scheduler]:
        """The schedulers whose turns have lasted longer than ``max_seconds``. Any thread."""
        turns, now = [worker.turn for worker in self._workers], self.clock()
        return [turn[0] for turn in turns if turn is not None and now - turn[1] > max_seconds]

    def abandon(self) -> bool:
        """Answer all calls with Unavailable although a worker hangs. Any thread.

        The engine is dead afterwards. A worker that hangs ends when its run ends. Returns False if
        the engine had died already, so that ``on_death`` is or will be called.
        """
        with self._lock:
            is_first, self._has_died = not self._has_died, True
        self._stop()
        for worker in self._workers:
            if worker.turn is not None:
                self._fail_all(worker.own)
        return is_first

    def drain(self, timeout_seconds: float) -> bool:
        """Refuse new calls, finish the admitted ones and end the workers.

        Returns whether all calls finished in time. Unfinished calls fail with Unavailable.
        """
        with self._lock:
            if self._state is EngineState.RUNNING:
                self._state = EngineState.DRAINING
            self._wake(len(self._workers))
        has_finished = _join(self._threads, timeout_seconds)
        self._stop()
        if not _join(self._threads, LAST_RUN_SECONDS):
            logger.critical("event=model_run_hangs")  # daemon threads do not block the exit
        return has_finished

    def _stop(self) -> None:
        with self._lock:
            self._state = EngineState.STOPPED
            self._wake(len(self._workers))

    def _run(self, worker: _Worker, processors: Sequence[int]) -> None:
        """Run one worker until it ends, on these processors only, if any are given."""
        try:
            if processors:
                with suppress(OSError):  # The process may have lost this processor.
                    os.sched_setaffinity(0, processors)  # 0 is this thread
            self._on_start()
            while self._take_turn(worker):
                pass
            self._fail_all(worker.own)
        except BaseException:
            logger.critical("event=engine_died", exc_info=True)
            self._die(worker.own)

    def _die(self, own: Sequence[Scheduler]) -> None:
        with self._lock:
            is_first, self._has_died = not self._has_died, True
        self._stop()  # under the lock, so that calls admitted just before it fail as well
        try:
            self._fail_all(own)
        finally:
            if is_first:
                others = [t for t in self._threads if t is not threading.current_thread()]
                _join(others, LAST_RUN_SECONDS)
                if self.on_death is not None:
                    self.on_death()

    def _take_turn(self, worker: _Worker) -> bool:
        """Wait for work and run one round of one scheduler; False when the worker should end."""
        at_work = self._wait_for_work(worker, self._idle_seconds)
        if at_work is None:
            self._release_memory(worker.own)
            at_work = self._wait_for_work(worker, None)
        if not at_work:
            return False
        scheduler, is_alone = worker.fair_share.next(at_work), len(at_work) == 1
        worker.turn = scheduler, self.clock()
        worker.fair_share.take(scheduler, partial(self._advance, scheduler, is_alone))
        worker.turn = None
        if scheduler.num_waiting:
            with self._lock:  # texts that were left to this worker may now be for another one
                self._wake(scheduler.num_wanted)
        return True

    def _release_memory(self, own: Sequence[Scheduler]) -> None:
        for scheduler in own:
            try:
                scheduler.release_memory()
            except Exception:  # a model that cannot run
                logger.exception("event=release_failed model=%s", scheduler.name)
        self._on_idle()

    def _wait_for_work(self, worker: _Worker, max_seconds: float | None) -> list[Scheduler] | None:
        """Block until schedulers have work; returns them, or [] when the worker should end.

        Returns None after ``max_seconds`` of the engine's clock without work.
        """
        seconds_left, started = max_seconds, None
        with self._lock:
            while True:
                while worker.removed:
                    self._drop(worker, *worker.removed.pop())
                if self._state is EngineState.STOPPED:
                    return []
                at_work = [scheduler for scheduler in worker.own if scheduler.has_work]
                if at_work or self._state is EngineState.DRAINING:
                    return at_work
                if max_seconds is not None:
                    now = self.clock()
                    started = now if started is None else started
                    seconds_left = started + max_seconds - now
                    if seconds_left <= 0:
                        return None
                # One that has just released its memory is the last to be woken.
                self._idle.insert(0 if max_seconds is None else len(self._idle), worker)
                worker.woken.wait(seconds_left)
                if worker in self._idle:  # nobody woke it
                    self._idle.remove(worker)

    def _wake(self, num_workers: int) -> None:
        """Let at most ``num_workers`` idle workers look for work. The caller holds the lock.

        Those that worked last come first: what they need is still in the caches of their
        processors. A caller with one text at a time is answered by one worker.
        """
        for _ in range(min(num_workers, len(self._idle))):
            self._idle.pop().woken.notify()

    def _drop(self, worker: _Worker, scheduler: Scheduler, model: _Model) -> None:
        """Drop one worker's scheduler of a removed model. The worker holds the lock."""
        _fail(scheduler, Unavailable("the model has been unloaded"), waiting_too=True)
        worker.fair_share.forget(scheduler)
        model.num_users -= 1
        if not model.num_users:
            model.dropped.set_result(None)

    def _advance(self, scheduler: Scheduler, is_alone: bool) -> None:
        try:
            scheduler.advance(is_alone)
        except Exception:
            logger.exception("event=scheduler_failed model=%s", scheduler.name)
            scheduler.fail(ModelFailed("the model failed while it ran this request"))

    def _fail_all(self, own: Sequence[Scheduler]) -> None:
        """Fail all running calls of an ending worker, and all waiting calls."""
        why = "the engine has died" if self._has_died else "the server is shutting down"
        for scheduler in own:
            # A worker that ends because the engine drains leaves waiting calls to the others.
            _fail(scheduler, Unavailable(why), waiting_too=self._state is EngineState.STOPPED)


def _fail(scheduler: Scheduler, error: Exception, waiting_too: bool) -> None:
    try:
        scheduler.fail(error, waiting_too=waiting_too)
    except Exception:
        logger.exception("event=scheduler_failed model=%s", scheduler.name)


def _join(threads: Iterable[threading.Thread], timeout_seconds: float) -> bool:
    """Wait for all threads to end; returns whether they ended in time."""
    end = time.monotonic() + timeout_seconds
    return all(_ends(thread, end - time.monotonic()) for thread in threads)


def _ends(thread: threading.Thread, timeout_seconds: float) -> bool:
    thread.join(max(0.0, timeout_seconds))
    return not thread.is_alive()
