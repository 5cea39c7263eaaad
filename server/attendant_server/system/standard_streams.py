"""The terminal and the standard streams of a process, which may have been started without them."""

import os
import sys
from contextlib import suppress


def open_standard_streams() -> None:
    """Open ``/dev/null`` in place of each standard stream that is closed.

    Call it before any other file is opened. Otherwise sockets would get the numbers of the closed
    streams: libuv would abort on closing them, and the log would be sent to callers.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def say(text: str) -> None:
    """Write a line to standard output; ignores an output that is full or has no reader."""
    with suppress(OSError):
        os.write(sys.stdout.fileno(), f"{text}\n".encode(errors="replace"))


def has_terminal() -> bool:
    """Whether the process has a controlling terminal that is still open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
