"""The server's log: lines for people or JSON, and a line for every call that has ended.

Our messages are written as ``event=name key=%s ...``; a lone ``%s`` is a text of an error. As JSON
each becomes an object with these keys and the values as they are. No line holds a user's text.
"""

import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from attendant_server.records import CallRecord

logger = logging.getLogger("attendant_server.calls")

MAX_WAITING_LINES = 10_000
MAX_GATHERED_LINES = 100
"""Lines that are formatted and written at once."""
GATHER_SECONDS = 0.1
CLOSE_SECONDS = 2.0

_CALL = (
    "event=call method=%s model=%s code=%s request_id=%s trace_id=%s texts=%d input_tokens=%d "
    "output_tokens=%d seconds=%.6f tokenize_seconds=%.6f queue_seconds=%.6f encode_seconds=%.6f "
    "decode_seconds=%.6f"
)
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
_PHASES = ("tokenize", "queue", "encode", "decode")


def set_up_logs(level: str, format: str) -> None:
    """Write the log to standard error from now on; ``format`` is ``console`` or ``json``."""
    # What no line shows need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = LogWriter(sys.stderr.fileno())
    handler.setFormatter(JsonFormatter() if format == "json" else ConsoleFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])


class LogWriter(logging.Handler):
    """Formats and writes lines on a thread of its own, so that no reader of them holds calls up.

    It writes what has gathered in `GATHER_SECONDS`: to wake that thread for every line took a tenth
    of the throughput of short calls. While more than `MAX_WAITING_LINES` wait, further ones are
    dropped, and counted in a later one.
    """

    def __init__(self, file: int) -> None:
        """``file`` is the number of an open file."""
        super().__init__()
        self._file = file
        self._waiting: deque[logging.LogRecord] = deque()
        self._num_dropped = self._num_told = 0
        self._has_lines, self._is_closing = threading.Event(), threading.Event()
        # Past Python's own streams: their locks would hold up an exit while a reader is stuck.
        self._thread = threading.Thread(target=self._run, name="attendant-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        if len(self._waiting) >= MAX_WAITING_LINES:
            self._num_dropped += 1
            return
        self._waiting.append(record)
        if not self._has_lines.is_set():
            self._has_lines.set()

    def close(self) -> None:
        """Write what waits, but not for longer than `CLOSE_SECONDS`."""
        self._is_closing.set()
        self._has_lines.set()
        self._thread.join(CLOSE_SECONDS)
        super().close()

    def _run(self) -> None:
        while not self._is_closing.is_set():
            self._has_lines.wait()
            self._is_closing.wait(GATHER_SECONDS)
            self._has_lines.clear()
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        """Write what waits now, in pieces of bounded size."""
        while self._waiting:
            num_lines = min(len(self._waiting), MAX_GATHERED_LINES)
            self._write([self._waiting.popleft() for _ in range(num_lines)])
        num_dropped = self._num_dropped - self._num_told
        if num_dropped:
            self._num_told += num_dropped
            fields = {"msg": "event=log_lines_dropped lines=%d", "args": (num_dropped,)}
            about = {"name": __name__, "levelname": "WARNING", "levelno": logging.WARNING}
            self._write([logging.makeLogRecord(fields | about)])

    def _write(self, records: Sequence[logging.LogRecord]) -> None:
        content = b"".join(map(self._line, records))
        try:
            while content:
                content = content[os.write(self._file, content) :]
        except OSError:
            self.handleError(records[0])

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            return (self.format(record) + "\n").encode(errors="replace")
        except Exception:
            self.handleError(record)
            return b""


class ConsoleFormatter(logging.Formatter):
    """A line with the time, the level, the logger and the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")


class JsonFormatter(logging.Formatter):
    """One JSON object a line; ``time`` is in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return _encode(entry)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    message = record.msg
    if not (isinstance(message, str) and message.startswith("event=")):
        return {"message": record.getMessage()}
    values = iter(record.args if isinstance(record.args, tuple) else ())
    return {name: _value(template, values) for name, template in _templates(message)}


@cache
def _templates(message: str) -> list[tuple[str, str]]:
    """The name and the template of each field of one of our messages."""
    words = (word.rpartition("=") for word in message.split())
    return [(name or "message", template) for name, _, template in words]


def _value(template: str, values: Iterator[Any]) -> Any:
    """What a template such as ``%d`` or ``%s/%s`` stands for; numbers stay numbers."""
    if template[:1] == "%" and template.count("%") == 1:
        value = next(values)
        return round(value, 6) if isinstance(value, float) else value
    return template % tuple(next(values) for _ in range(template.count("%")))


class CallLog:
    """Writes a line for every call that has ended: counts, names and times.

    Health checks and reflection are worth a line at level debug only.
    """

    def on_call_started(self, record: CallRecord, metadata: Mapping[str, Any]) -> None:
        """A call has come."""

    def on_call_ended(self, record: CallRecord) -> None:
        """A call has ended."""
        level = logging.INFO if record.method.is_own else logging.DEBUG
        if not logger.isEnabledFor(level):
            return
        assert record.ended is not None
        phases = {name: end - start for name, start, end in record.phases()}
        fields = (
            f"{record.method.service}/{record.method.name}",
            record.model,
            record.code,
            record.request_id,
            record.trace_id,
            record.num_texts,
            record.num_input_tokens,
            record.num_output_tokens,
            record.ended - record.started,
            *(phases.get(name, 0.0) for name in _PHASES),
        )
        # Not `logger.log`, which would find out each time who has called it.
        logger.handle(logger.makeRecord(logger.name, level, __file__, 0, _CALL, fields, None))
