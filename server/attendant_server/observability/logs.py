"""The server's log, as console lines or JSON, with a line for every ended call.

Log messages have the form ``event=name key=%s ...``; a ``%s`` without a key is the text of an
error. In JSON, a message becomes an object with these keys, and values keep their types. No line
holds a user's text.
"""

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from attendant_server.observability.log_limits import LineLimits, conceal_library_text
from attendant_server.records import CallRecord

logger = logging.getLogger("attendant_server.calls")

MAX_WAITING_LINES = 10_000
GATHER_SECONDS = 0.05
"""Seconds that a line waits for more lines: writing them one by one is several times slower."""
CLOSE_SECONDS = 2.0

_CALL = (
    "event=call method=%s model=%s code=%s peer=%s caller=%s request_id=%s trace_id=%s texts=%d "
    "input_tokens=%d output_tokens=%d seconds=%.6f tokenize_seconds=%.6f queue_seconds=%.6f "
    "encode_seconds=%.6f decode_seconds=%.6f reason=%s"
)
MAX_REASON_CHARACTERS = 300
"""Longer reasons are cut: a reason may list all models, and refusals can be frequent."""
_encode_text = json.JSONEncoder(ensure_ascii=False).encode
_PHASES = ("tokenize", "queue", "encode", "decode")


def set_up_logs(level: str, format: str) -> None:
    """Write the log to standard error; ``format`` is ``console`` or ``json``."""
    # Do not collect facts that no line shows.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = LogWriter(sys.stderr.fileno())
    handler.setFormatter(JsonFormatter() if format == "json" else ConsoleFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])


class LogWriter(logging.Handler):
    """Formats and writes lines on a separate thread, so that a slow reader does not delay calls.

    While more than `MAX_WAITING_LINES` wait, new lines are dropped. A later line states their
    number.
    """

    def __init__(self, file: int) -> None:
        """``file`` is an open file descriptor."""
        super().__init__()
        for each in (_shorten_unsent, conceal_library_text, LineLimits()):
            self.addFilter(each)
        self._file = file
        self._waiting: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._num_dropped = 0
        self._is_closing = threading.Event()
        # Bypass Python's streams: their locks would block the exit while a reader is stuck.
        self._thread = threading.Thread(target=self._run, name="attendant-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        if self._waiting.qsize() >= MAX_WAITING_LINES:
            self._num_dropped += 1
        else:
            self._waiting.put(record)

    def close(self) -> None:
        """Write the waiting lines, for at most `CLOSE_SECONDS`."""
        self._is_closing.set()
        self._waiting.put(None)
        self._thread.join(CLOSE_SECONDS)
        super().close()

    def _run(self) -> None:
        num_reported, is_open = 0, True
        while is_open:
            records = [self._waiting.get()]
            self._is_closing.wait(GATHER_SECONDS)
            while not self._waiting.empty():
                records.append(self._waiting.get())
            is_open = None not in records
            lines = [self._line(record) for record in records if record is not None]
            if (num_dropped := self._num_dropped) > num_reported:
                lines.append(self._line(_dropped(num_dropped - num_reported)))
                num_reported = num_dropped
            self._write("".join(lines).encode(errors="replace"))

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record) + "\n"
        except Exception:
            self.handleError(record)
            return ""

    def _write(self, content: bytes) -> None:
        with suppress(OSError):  # the error cannot be logged
            while content:
                content = content[os.write(self._file, content) :]


def _shorten_unsent(record: logging.LogRecord) -> bool:
    """Replace the traceback of an unsent gRPC answer by a short line at level info.

    Most often the caller has gone, or the answer exceeds ``max_response_bytes``.
    """
    if record.exc_info is None or type(record.exc_info[1]).__name__ != "ExecuteBatchError":
        return True
    record.msg, record.args, record.exc_info = "event=answer_not_sent", (), None
    record.levelno, record.levelname = logging.INFO, "INFO"
    is_shown = logging.getLogger(record.name).isEnabledFor(logging.INFO)
    record.name = __name__
    return is_shown


def _dropped(num_lines: int) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": __name__,
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "event=log_lines_dropped lines=%d",
            "args": (num_lines,),
        }
    )


class ConsoleFormatter(logging.Formatter):
    """A line with the time, the level, the logger and the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")


class JsonFormatter(logging.Formatter):
    """One JSON object per line; ``time`` is in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        moment = f"{seconds}.{int(record.msecs):03d}Z"
        parts = [f'{{"time":"{moment}","level":"{record.levelname}","logger":"{record.name}"']
        parts += [f"{key}{_json(value)}" for key, value in _fields(record)]
        if record.exc_info:
            parts.append(f'"traceback":{_json(self.formatException(record.exc_info))}')
        return ",".join(parts) + "}"


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """The fields of a message: key as JSON with its colon, and value."""
    message = record.msg
    if not (isinstance(message, str) and message.startswith("event=")):
        yield '"message":', record.getMessage()
        return
    values = iter(record.args if isinstance(record.args, tuple) else ())
    for key, template, num_values in _templates(message):
        if num_values == 1 and template[0] == "%":
            yield key, next(values)
        else:
            yield key, template % tuple(next(values) for _ in range(num_values))


@cache
def _templates(message: str) -> list[tuple[str, str, int]]:
    """Key, template and number of values of each field of a log message."""
    words = (word.rpartition("=") for word in message.split())
    return [(f'"{name or "message"}":', value, value.count("%")) for name, _, value in words]


def _json(value: Any) -> str:
    """A value as JSON: a number, or else a string."""
    if type(value) is float:
        return f"{value:.6f}"
    return str(value) if type(value) is int else _encode_text(str(value))


class CallLog:
    """Writes a line for every ended call: counts, names, times and the reason of a failure.

    Health checks and reflection are logged at level debug.
    """

    def on_call_started(self, record: CallRecord) -> None:
        """A call has started."""

    def on_part_ended(self, record: CallRecord) -> None:
        """Texts of a stream have been answered."""

    def on_call_ended(self, record: CallRecord) -> None:
        """A call has ended."""
        level = logging.INFO if record.method.serves_models else logging.DEBUG
        if not logger.isEnabledFor(level):
            return
        assert record.ended is not None
        phases = {name: end - start for name, start, end in record.phases()}
        fields = (
            f"{record.method.service}/{record.method.name}",
            record.model,
            record.code,
            record.peer,
            record.caller.name,
            record.request_id,
            record.trace_id,
            record.num_texts,
            record.num_input_tokens,
            record.num_output_tokens,
            record.ended - record.started,
            *(phases.get(name, 0.0) for name in _PHASES),
            record.reason[:MAX_REASON_CHARACTERS],
        )
        # Not `logger.log`, which would look up its caller every time.
        logger.handle(logger.makeRecord(logger.name, level, __file__, 0, _CALL, fields, None))
