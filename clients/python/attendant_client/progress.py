"""The progress of a job: lines, rate and time left."""

import time
from collections.abc import Callable
from typing import TextIO

REFRESH_SECONDS = 0.2
LINE_SECONDS = 30.0
"""How often something that is not a terminal, such as a log, gets a line."""


class Progress:
    """Refreshes one line on a terminal; writes a line now and then to anything else."""

    def __init__(
        self,
        stream: TextIO | None,
        num_done: int,
        num_lines: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with `num_done` lines of `num_lines`, None if nobody knows how many there are."""
        self._stream = stream
        self._is_terminal = stream is not None and stream.isatty()
        self._num_done, self._num_lines, self._clock = num_done, num_lines, clock
        self._num_before = num_done
        self._began = clock()
        self._shown = self._began - REFRESH_SECONDS

    def advance(self, num_lines: int) -> None:
        """Note that lines are done."""
        self._num_done += num_lines
        now = self._clock()
        if self._is_terminal and now - self._shown >= REFRESH_SECONDS:
            self._write(f"\r\x1b[K{self.text()}")
        elif not self._is_terminal and now - self._shown >= LINE_SECONDS:
            self._write(f"attendant: {self.text()}\n")

    def clear(self) -> None:
        """Make room for another line."""
        if self._stream and self._is_terminal:
            self._stream.write("\r\x1b[K")

    def finish(self) -> None:
        """Leave the last state on the terminal, and in a log that has earlier ones."""
        if self._is_terminal:
            self._write(f"\r\x1b[K{self.text()}\n")
        elif self._shown > self._began:
            self._write(f"attendant: {self.text()}\n")

    def _write(self, text: str) -> None:
        self._shown = self._clock()
        if self._stream:
            self._stream.write(text)
            self._stream.flush()

    def text(self) -> str:
        """The state in one line."""
        rate = (self._num_done - self._num_before) / max(1e-3, self._clock() - self._began)
        if self._num_lines is None:
            return f"{self._num_done:,} lines, {rate:,.1f} lines/s"
        share = self._num_done / max(1, self._num_lines)
        bar = f"[{('#' * int(30 * share)).ljust(30)}] " if self._is_terminal else ""
        left = (self._num_lines - self._num_done) / rate if rate else 0.0
        return (
            f"{bar}{self._num_done:,} of {self._num_lines:,} lines, {rate:,.1f} lines/s, "
            f"{_duration(left)} left"
        )


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 100:
        return f"{seconds:,.0f} s"
    return f"{minutes:,.0f} min" if minutes < 100 else f"{hours:,.1f} h"
