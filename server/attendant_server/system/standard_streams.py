"""Standard input, output and error of a process that may have been started without them."""

import os
import sys
from contextlib import suppress


def open_standard_streams() -> None:
    """Open ``/dev/null`` in place of each standard stream that is closed.

    To be called before any other file is opened. Sockets would get the numbers of the closed
    streams otherwise: libuv aborts when it closes such a one, and the log would be sent to callers.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def say(text: str) -> None:
    """Write a line to standard output, if that takes it: it may be full or have no reader."""
    with suppress(OSError):
        os.write(sys.stdout.fileno(), f"{text}\n".encode(errors="replace"))
