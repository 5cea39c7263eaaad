"""The open graphs of models. Concurrent runs use few threads each, and a lone run uses all threads.

Several concurrent runs on one thread each have a higher throughput than one run on all threads,
whose threads synchronize at every operator. But a run that is alone on the machine can finish
sooner on all threads.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, median
from typing import Any

import onnxruntime
from attendant.v1 import bundle_pb2

from attendant_server.reasons import reason_of
from attendant_server.runtime.sessions import ShrinkingSession, open_session
from attendant_server.runtime.signatures import StepSignature

LEAST_GAIN = 1.15
"""Least speed-up of a lone run on all threads that justifies its costs: a second copy of the
weights, and waits for a thread whose processor another process uses."""
AVERAGES = (fmean, median)
NUM_TRIALS = 15
NUM_TRIAL_TOKENS = 16
"""Tokens of the text that compares sessions, if the model's limit allows."""
MAX_TRIAL_TOKENS = 1024
"""Tokens of the longest text that is run when a model is loaded. A longer one takes seconds."""


class RunCounter:
    """Counts the runs in progress over all models of the process."""

    def __init__(self, num_threads: int) -> None:
        """``num_threads`` is the number of threads of all runs together."""
        self.num_threads = num_threads
        self._num_runs = 0
        self._lock = threading.Lock()

    @contextmanager
    def run(self) -> Iterator[bool]:
        """Count a run for the duration of the block; yields whether it was alone when it began."""
        with self._lock:
            self._num_runs += 1
            is_alone = self._num_runs == 1
        try:
            yield is_alone
        finally:
            with self._lock:
                self._num_runs -= 1


@contextmanager
def trial_run(graph: str, fields: str = "") -> Iterator[None]:
    """Raise ValueError with the name of the graph if the run in the block fails.

    ``fields`` are those of the manifest to check.
    """
    try:
        yield
    except Exception as error:  # ONNX Runtime has its own exception classes
        advice = f"; check {fields}" if fields else ""
        raise ValueError(f"{graph} cannot run: {reason_of(error)}{advice}") from error


class CountedGraph:
    """One graph with one session, whose runs `RunCounter` counts."""

    def __init__(self, path: Path, num_threads: int, device: str, run_counter: RunCounter) -> None:
        """Open the graph in ``path``; a run uses ``num_threads`` threads."""
        self.shared = open_session(path, num_threads, device)
        self._run_counter = run_counter
        self.can_shrink = device == "cpu"
        """Whether `shrink` has an effect: all models share the arena of a GPU, which never
        shrinks."""

    @contextmanager
    def session(self) -> Iterator[onnxruntime.InferenceSession]:
        """Count one run for the duration of the block; yields the session to use."""
        with self._run_counter.run():
            yield self.shared

    def shrink(self, run: Callable[[Any], object]) -> None:
        """Release the working memory of runs by a short ``run``."""
        run(ShrinkingSession(self.shared))

    def stop_runs(self) -> None:
        """Let the present runs raise soon. Any thread."""
        self.shared.stop_runs()


class ThreadedGraph(CountedGraph):
    """One graph with a session for concurrent runs and, if it pays, a session for lone runs."""

    def __init__(self, path: Path, num_threads: int, device: str, run_counter: RunCounter) -> None:
        """``num_threads`` is for concurrent runs. On ``cuda`` all runs use one session."""
        super().__init__(path, num_threads, device, run_counter)
        self.alone = self.shared
        if device == "cpu" and run_counter.num_threads > num_threads:
            self.alone = open_session(path, run_counter.num_threads, device, spins=True)

    @property
    def has_choice(self) -> bool:
        """Whether lone runs have a separate session."""
        return self.alone is not self.shared

    @contextmanager
    def session(self) -> Iterator[onnxruntime.InferenceSession]:
        """Count one run for the duration of the block; yields the session to use."""
        with self._run_counter.run() as is_alone:
            yield self.alone if is_alone else self.shared

    def shrink(self, run: Callable[[Any], object]) -> None:
        """Release the working memory of runs by a short ``run`` of each session."""
        super().shrink(run)
        if self.has_choice:
            run(ShrinkingSession(self.alone))

    def stop_runs(self) -> None:
        """Let the present runs of each session raise soon. Any thread."""
        super().stop_runs()
        if self.has_choice:
            self.alone.stop_runs()

    def keep_what_pays(self, run: Callable[[onnxruntime.InferenceSession], object]) -> None:
        """Time short runs of both sessions; drop the session for lone runs if it gains little."""
        if not self.has_choice:
            return
        seconds: dict[str, list[float]] = {"alone": [], "shared": []}
        for _ in range(NUM_TRIALS):
            for name, trials in seconds.items():
                started = time.perf_counter()
                run(getattr(self, name))
                trials.append(time.perf_counter() - started)
        # By means, because occasional slow runs are part of the cost, and by medians, because a
        # disturbance may fall on the runs of one session only.
        gains = [average(seconds["shared"]) / average(seconds["alone"]) for average in AVERAGES]
        if min(gains) < LEAST_GAIN:
            self.alone = self.shared


class ThreadedStep(ThreadedGraph):
    """A step graph with its signature."""

    def __init__(
        self,
        path: Path,
        step: bundle_pb2.StepGraph,
        num_threads: int,
        device: str,
        run_counter: RunCounter,
    ) -> None:
        """Open the graph of ``step`` in ``path``; the rest as in `ThreadedGraph`."""
        super().__init__(path, num_threads, device, run_counter)
        self.signature = StepSignature(step)
