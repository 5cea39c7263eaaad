"""Priorities of threads for processors."""

import os
import sys
from contextlib import suppress

WORKER_NICENESS = 5
"""By how much the niceness of workers is above that of the event loop. Linux gives a thread with 5
more a third of the time of another one, if both want the same processor."""


def lower_priority() -> None:
    """Let other threads go before the calling one, if the system has priorities of threads.

    Elsewhere than on Linux, niceness is that of the process.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # A sandbox may forbid it.
            os.nice(WORKER_NICENESS)
