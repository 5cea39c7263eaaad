"""When to restart a part of the server that has died, and when to give up."""

import time
from collections.abc import Callable

FIRST_DELAY_SECONDS = 1.0
MAX_DEATHS = 5
PERIOD_SECONDS = 600.0


class Restarts:
    """Doubles the delay with each death in ten minutes, and gives up at the fifth."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deaths: list[float] = []

    def next_delay(self) -> float | None:
        """Seconds to wait after a death just now; None to give up."""
        now = self._clock()
        self._deaths = [died for died in self._deaths if now - died < PERIOD_SECONDS] + [now]
        if len(self._deaths) >= MAX_DEATHS:
            return None
        return float(FIRST_DELAY_SECONDS * 2 ** (len(self._deaths) - 1))
