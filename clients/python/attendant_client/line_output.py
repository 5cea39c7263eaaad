"""Where the lines of the `attendant` command go: standard output or a file, with progress.

Faults go to the standard error.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from attendant_client.input_lines import CHUNK_BYTES

REFRESH_SECONDS = 0.2


def complain(message: str) -> None:
    """Write one line to the standard error, if there is one."""
    if sys.stderr is not None:
        print(f"attendant: {' '.join(message.split())}", file=sys.stderr)


class StandardOutput:
    """Lines on the standard output."""

    num_lines = 0

    def __init__(self) -> None:
        """Raises ValueError if the standard output is closed."""
        if sys.stdout is None:
            raise ValueError("the standard output is closed")

    def write(self, lines: Sequence[str]) -> None:
        """Write lines."""
        print("\n".join(lines), flush=True)

    def close(self) -> None:
        """Nothing is left to be done."""


class OutputFile:
    """Lines in a file. An interrupted run leaves whole lines and at most a part of the last one."""

    def __init__(self, path: str, resume: bool, is_json: bool) -> None:
        """Open a new file or, with `resume`, go on after the last whole line of an existing one.

        Raises ValueError for an existing file without `resume`, and for JSON that is not the
        output of this command.
        """
        if not resume and os.path.exists(path):
            raise ValueError(f"{path} exists; continue it with --resume, or remove it")
        self._file = open(path, "a+b")  # noqa: SIM115
        self.num_lines = 0
        """Lines that were there already."""
        try:
            self.num_lines, end = self._whole_lines()
            if is_json and self.num_lines:
                self._check_json(path)
            self._file.truncate(end)
        except BaseException:
            self.close()
            raise

    def write(self, lines: Sequence[str]) -> None:
        """Write lines, so that the operating system has them."""
        self._file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _whole_lines(self) -> tuple[int, int]:
        """Number of whole lines, and the position of their end."""
        self._file.seek(0)
        num_lines = position = end = 0
        while chunk := self._file.read(CHUNK_BYTES):
            num_lines += chunk.count(b"\n")
            if b"\n" in chunk:
                end = position + chunk.rindex(b"\n") + 1
            position += len(chunk)
        return num_lines, end

    def _check_json(self, path: str) -> None:
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            if number == self.num_lines and _line_number(line) != number:
                problem = f"line {number} is not that of a run with --json"
                raise ValueError(f"{path} cannot be continued: {problem}")


def _line_number(line: bytes) -> Any:
    """The number in a line of JSON; None for other lines."""
    try:
        return json.loads(line)["line"]
    except (ValueError, KeyError, TypeError):
        return None


class Progress:
    """Shows the number of lines and the rate on a terminal; on anything else, nothing."""

    def __init__(self, stream: TextIO | None, num_done: int, num_lines: int | None) -> None:
        """Begin with `num_done` lines of `num_lines`, None if nobody knows how many there are."""
        self._stream = stream if stream is not None and stream.isatty() else None
        self._num_done, self._num_lines = num_done, num_lines
        self._num_before, self._began, self._shown = num_done, time.monotonic(), 0.0

    def advance(self, num_lines: int) -> None:
        """Note that lines are done."""
        self._num_done += num_lines
        if self._stream and time.monotonic() - self._shown >= REFRESH_SECONDS:
            self._shown = time.monotonic()
            self._stream.write(f"\r\x1b[K{self.text()}")
            self._stream.flush()

    def clear(self) -> None:
        """Make room for another line."""
        if self._stream:
            self._stream.write("\r\x1b[K")

    def finish(self) -> None:
        """Leave the last state on the terminal."""
        if self._stream:
            self._stream.write(f"\r\x1b[K{self.text()}\n")

    def text(self) -> str:
        """The state in one line."""
        rate = (self._num_done - self._num_before) / max(1e-3, time.monotonic() - self._began)
        if self._num_lines is None:
            return f"{self._num_done:,} lines, {rate:,.1f} lines/s"
        share = self._num_done / max(1, self._num_lines)
        bar = ("#" * int(30 * share)).ljust(30)
        left = (self._num_lines - self._num_done) / rate if rate else 0.0
        return (
            f"[{bar}] {self._num_done:,} of {self._num_lines:,} lines, {rate:,.1f} lines/s, "
            f"{left:,.0f} s left"
        )
