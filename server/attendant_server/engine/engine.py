"""The engine's one thread, on which the lanes of all models take turns."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from attendant_server.engine.calls import Call
from attendant_server.engine.lane import Lane
from attendant_server.errors import ModelFailed, Unavailable

logger = logging.getLogger(__name__)

LAST_RUN_SECONDS = 5.0
"""How long draining waits for the model run in progress when its time is over."""


class EngineState(Enum):
    """The life of an engine, in order."""

    NEW = "not started"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


class Engine:
    """Runs every admitted call; one thread, so nothing that a lane keeps needs a lock."""

    def __init__(
        self, lanes: Mapping[str, Lane], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``lanes`` by the model's name; ``clock`` is the one that deadlines are on."""
        self.clock = clock
        self.on_death: Callable[[], None] | None = None
        """Called on the engine's thread when it dies of an error, after everyone was answered."""
        self._lanes = dict(lanes)
        self._state = EngineState.NEW
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="attendant-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._state = EngineState.RUNNING
        self._thread.start()

    def submit(self, model: str, call: Call[Any]) -> None:
        """Admit a call, or raise QueueFull or Unavailable at once. Any thread."""
        with self._changed:
            if self._state is not EngineState.RUNNING:
                raise Unavailable(f"the engine is {self._state.value}")
            self._lanes[model].submit(call)
            self._changed.notify()

    def drain(self, timeout_seconds: float) -> bool:
        """Refuse new calls, finish the admitted ones and end the thread.

        Returns whether all finished in time; what is left then fails with Unavailable.
        """
        with self._changed:
            if self._state is EngineState.RUNNING:
                self._state = EngineState.DRAINING
            self._changed.notify()
        self._thread.join(timeout_seconds)
        has_finished = not self._thread.is_alive()
        self._stop()
        self._thread.join(LAST_RUN_SECONDS)
        if self._thread.is_alive():
            logger.critical("event=model_run_hangs")  # a daemon thread does not hold the exit up
        return has_finished

    def _stop(self) -> None:
        with self._changed:
            self._state = EngineState.STOPPED
            self._changed.notify()

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                for lane in self._lanes.values():
                    if lane.has_work:
                        self._advance(lane)
            self._fail_all(Unavailable("the server is shutting down"))
        except BaseException:
            logger.critical("event=engine_died", exc_info=True)
            self._stop()  # under the lock: whoever has just been admitted is failed as well
            try:
                self._fail_all(Unavailable("the engine has died"))
            finally:
                if self.on_death is not None:
                    self.on_death()

    def _wait_for_work(self) -> bool:
        """Block until a lane has work; False when the thread should end."""
        with self._changed:
            while True:
                if self._state is EngineState.STOPPED:
                    return False
                if any(lane.has_work for lane in self._lanes.values()):
                    return True
                if self._state is EngineState.DRAINING:
                    return False
                self._changed.wait()

    def _advance(self, lane: Lane) -> None:
        try:
            lane.advance()
        except Exception:
            logger.exception("event=lane_failed model=%s", lane.name)
            lane.fail(ModelFailed("the model failed while it ran this request"))

    def _fail_all(self, error: Exception) -> None:
        for lane in self._lanes.values():
            try:
                lane.fail(error, waiting_too=True)
            except Exception:
                logger.exception("event=lane_failed model=%s", lane.name)
