"""Graphs that run on few threads beside others, and on all threads while nothing else runs.

Several runs on one thread each do more work than one run on all threads, which must wait for one
another at every operator; but a run that has the processors for itself can end sooner on all.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import onnxruntime

from attendant_server.runtime.sessions import ShrinkingSession, open_session

LEAST_GAIN = 1.15
"""How much quicker a lone run on all threads must be to be worth a second copy of the weights, and
that a neighbour who takes a processor holds up all of its threads."""
NUM_TRIALS = 15


class RunCounter:
    """Counts the runs in progress, over all models of a process."""

    def __init__(self, num_threads: int) -> None:
        """``num_threads`` is for all runs together."""
        self.num_threads = num_threads
        self._num_runs = 0
        self._lock = threading.Lock()

    @contextmanager
    def run(self) -> Iterator[bool]:
        """A run in progress; whether it was alone when it began."""
        with self._lock:
            self._num_runs += 1
            is_alone = self._num_runs == 1
        try:
            yield is_alone
        finally:
            with self._lock:
                self._num_runs -= 1


class CountedGraph:
    """One graph with one session, whose runs `RunCounter` counts."""

    def __init__(self, path: Path, num_threads: int, device: str, run_counter: RunCounter) -> None:
        """A run takes ``num_threads``."""
        self.shared = open_session(path, num_threads, device)
        self._run_counter = run_counter

    @contextmanager
    def session(self) -> Iterator[onnxruntime.InferenceSession]:
        """The session to use for one run, which ends with the block."""
        with self._run_counter.run():
            yield self.shared

    def shrink(self, run: Callable[[Any], object]) -> None:
        """Give back what runs took for their work, with short runs."""
        run(ShrinkingSession(self.shared))


class ThreadedGraph(CountedGraph):
    """One graph with a session for runs beside others and, where it pays, one for lone runs."""

    def __init__(self, path: Path, num_threads: int, device: str, run_counter: RunCounter) -> None:
        """``num_threads`` is for a run beside others; on ``cuda`` all runs are alike."""
        super().__init__(path, num_threads, device, run_counter)
        self.alone = self.shared
        if device == "cpu" and run_counter.num_threads > num_threads:
            self.alone = open_session(path, run_counter.num_threads, device, spins=True)

    @property
    def has_choice(self) -> bool:
        """Whether lone runs have a session of their own."""
        return self.alone is not self.shared

    @contextmanager
    def session(self) -> Iterator[onnxruntime.InferenceSession]:
        """The session to use for one run, which ends with the block."""
        with self._run_counter.run() as is_alone:
            yield self.alone if is_alone else self.shared

    def shrink(self, run: Callable[[Any], object]) -> None:
        """Give back what runs took for their work, with short runs of both sessions."""
        super().shrink(run)
        if self.has_choice:
            run(ShrinkingSession(self.alone))

    def keep_what_pays(self, run: Callable[[onnxruntime.InferenceSession], object]) -> None:
        """Time short runs of both sessions; give up the one for lone runs if it gains little."""
        if not self.has_choice:
            return
        seconds: dict[str, list[float]] = {"alone": [], "shared": []}
        for _ in range(NUM_TRIALS):
            for name, trials in seconds.items():
                started = time.perf_counter()
                run(getattr(self, name))
                trials.append(time.perf_counter() - started)
        # Means, because what happens now and then is a part of what it costs.
        if fmean(seconds["shared"]) < LEAST_GAIN * fmean(seconds["alone"]):
            self.alone = self.shared
