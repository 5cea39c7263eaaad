"""What may reach the log: no text of libraries, and not too many lines of one kind."""

import logging
import time
from collections.abc import Callable

from attendant_server import __name__ as OWN_PACKAGE

MAX_LINES, PERIOD_SECONDS = 20, 10.0
"""Lines of one kind in one period."""
UNLIMITED = ("event=call ", "event=log_lines_suppressed ")
"""Beginnings of messages without a limit: operators count on a line for every call."""
logger = logging.getLogger(__name__)
_SUPPRESSED = "event=log_lines_suppressed lines=%d kind=%s"


def conceal_library_text(record: logging.LogRecord) -> bool:
    """Replace a library's message by its place in the library's code, except at level debug.

    Libraries log what callers send, such as metadata with credentials.
    """
    is_own = record.name.partition(".")[0] == OWN_PACKAGE
    if is_own or logging.getLogger().getEffectiveLevel() <= logging.DEBUG:
        return True
    error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
    record.msg = "event=library_message place=%s:%d error=%s"
    record.args = (record.filename, record.lineno, error)
    record.exc_info = record.exc_text = record.stack_info = None
    return True


class LineLimits:
    """Drops lines of a kind beyond a limit, and says how many in the next line of that kind.

    A kind is a message without its values, or a place in a library.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}
        """Start of the present period, and lines in it, of each kind."""

    def __call__(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        message = str(record.msg)
        if message.startswith(UNLIMITED):
            return True
        is_own = record.name.startswith(OWN_PACKAGE)
        kind = message if is_own else f"{record.pathname}:{record.lineno}"
        now = self._clock()
        started, count = self._kinds.get(kind, (now, 0))
        if now - started >= PERIOD_SECONDS:
            self._kinds[kind] = (now, 1)
            if count > MAX_LINES:
                name = message.partition(" ")[0].removeprefix("event=")
                logger.warning(_SUPPRESSED, count - MAX_LINES, name)
            return True
        self._kinds[kind] = (started, count + 1)
        return count < MAX_LINES
