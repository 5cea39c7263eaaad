import importlib
import json
import logging
import os
import sys
import threading
from datetime import datetime
from typing import Any

import pytest
from attendant_server.engine.calls import CallTimings
from attendant_server.observability import logs
from attendant_server.observability.logs import CallLog, ConsoleFormatter, JsonFormatter, LogWriter
from attendant_server.records import CallRecord, Method

TRANSLATE = Method.of("attendant.v1.TranslationService", "Translate", False, False)
HEALTH = Method.of("grpc.health.v1.Health", "Check", False, False)
RECORD = CallRecord(
    TRANSLATE,
    "order-17",
    peer="192.0.2.7:4711",
    reason="x" * 1000,
    started=1.0,
    ended=3.0,
    code="UNAVAILABLE",
    model="en-de/1",
    num_texts=2,
    num_input_tokens=11,
    num_output_tokens=12,
    tokenization_started=1.0,
    tokenization_ended=1.25,
    engine=CallTimings(submitted=1.5),
)


def record_of(message: str, *arguments: Any, **fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "attendant_server.app", "levelname": "INFO", "msg": message, "args": arguments}
        | fields
    )


def as_json(record: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry: dict[str, Any] = json.loads(line)
    return entry


def test_the_fields_of_a_message_are_the_fields_of_its_json():
    entry = as_json(record_of("event=serving port=%d models=%s/%s seconds=%.3f", 7, "a", "b", 0.5))
    moment = datetime.fromisoformat(entry.pop("time"))
    assert moment.utcoffset() is not None
    assert entry == {
        "level": "INFO",
        "logger": "attendant_server.app",
        "event": "serving",
        "port": 7,
        "models": "a/b",
        "seconds": 0.5,
    }


def test_a_lone_text_in_a_message_is_called_message():
    entry = as_json(record_of("event=start_failed %s", ValueError("no such = file")))
    assert (entry["event"], entry["message"]) == ("start_failed", "no such = file")


def test_messages_of_others_are_kept_whole():
    assert as_json(record_of("a=%d and %s", 1, "b=2"))["message"] == "a=1 and b=2"


def test_lines_of_a_traceback_stay_in_one_line_of_json():
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        entry = as_json(
            record_of("event=scheduler_failed model=%s", "a/1", exc_info=sys.exc_info())
        )
    assert entry["model"] == "a/1"
    assert entry["traceback"].endswith("RuntimeError: broken")


def test_every_message_of_the_server_can_be_written_as_json(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        CallLog().on_call_ended(RECORD)
    [record] = caplog.records
    entry = as_json(record)
    del entry["time"]
    assert entry == {
        "level": "INFO",
        "logger": "attendant_server.calls",
        "event": "call",
        "method": "attendant.v1.TranslationService/Translate",
        "model": "en-de/1",
        "code": "UNAVAILABLE",
        "peer": "192.0.2.7:4711",
        "caller": "anonymous",
        "request_id": "order-17",
        "trace_id": "",
        "texts": 2,
        "input_tokens": 11,
        "output_tokens": 12,
        "seconds": 2.0,
        "tokenize_seconds": 0.25,
        "queue_seconds": 1.5,  # a phase still running at the end of the call
        "encode_seconds": 0.0,
        "decode_seconds": 0.0,
        "reason": "x" * 300,
    }
    line = ConsoleFormatter().format(record)
    assert " INFO attendant_server.calls event=call method=attendant.v1.T" in line
    assert " code=UNAVAILABLE peer=192.0.2.7:4711 caller=anonymous request_id=order-17 " in line
    assert line.endswith(" reason=" + "x" * 300)


@pytest.mark.parametrize(
    ("level", "method", "is_written"),
    [
        (logging.INFO, TRANSLATE, True),
        (logging.WARNING, TRANSLATE, False),
        (logging.INFO, HEALTH, False),
        (logging.DEBUG, HEALTH, True),
    ],
)
def test_the_level_says_which_calls_are_worth_a_line(
    level: int, method: Method, is_written: bool, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(level):
        CallLog().on_call_ended(CallRecord(method, ended=1.0))
    assert bool(caplog.records) is is_written


def written(pipe: tuple[int, int], writer: LogWriter) -> bytes:
    """All bytes that a writer wrote to a pipe until it was closed."""

    def read() -> None:
        while content := os.read(pipe[0], 1 << 20):
            shown.append(content)

    shown: list[bytes] = []
    reader = threading.Thread(target=read)
    reader.start()
    writer.close()
    os.close(pipe[1])
    reader.join()
    os.close(pipe[0])
    return b"".join(shown)


def test_a_reader_that_is_stuck_holds_nobody_up_and_is_told_what_it_has_missed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(logs, "MAX_WAITING_LINES", 3)
    monkeypatch.setattr(logs, "CLOSE_SECONDS", 60.0)
    pipe = os.pipe()
    writer = LogWriter(pipe[1])
    for _ in range(10):
        writer.emit(record_of("x" * 200_000))  # more than the buffer of a pipe
    shown = written(pipe, writer)
    num_dropped = 10 - shown.count(b"x\n")
    assert num_dropped in (6, 7)  # one may have left the queue before the others came
    assert f"event=log_lines_dropped lines={num_dropped}\n".encode() in shown


def test_a_line_that_cannot_be_made_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    pipe = os.pipe()
    writer = LogWriter(pipe[1])
    for record in (record_of("one"), record_of("%d", "no number"), record_of("two")):
        writer.emit(record)
    assert written(pipe, writer) == b"one\ntwo\n"


def test_an_answer_that_could_not_be_sent_is_a_line_without_a_traceback():
    pipe = os.pipe()
    writer = LogWriter(pipe[1])
    error: Any = importlib.import_module("grpc._cython.cygrpc").ExecuteBatchError
    try:
        raise error("execute_batch", ())
    except error:
        failure = {"exc_info": sys.exc_info(), "levelno": logging.ERROR}
    with_info, without = logging.getLogger("a"), logging.getLogger("b")
    with_info.setLevel(logging.INFO)
    without.setLevel(logging.WARNING)
    for log in (with_info, without):
        record = record_of("raised in core by [/a.B/C]", **failure)
        record.name = log.name
        writer.handle(record)
    assert written(pipe, writer) == b"event=answer_not_sent\n"


def test_what_waits_is_written_at_the_end():
    pipe = os.pipe()
    writer = LogWriter(pipe[1])
    for number in range(3):
        writer.emit(record_of("line %d", number))
    assert written(pipe, writer).split(b"\n") == [b"line 0", b"line 1", b"line 2", b""]
