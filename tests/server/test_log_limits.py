import logging
import sys

import pytest
from attendant_server.observability.log_limits import (
    MAX_LINES,
    PERIOD_SECONDS,
    LineLimits,
    conceal_library_text,
)

from tests.support.engines import Clock


def record_of(name: str, message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "/lib/server.py", 7, message, values, None)


@pytest.fixture
def at_info(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)


def test_texts_of_libraries_are_replaced_by_their_place(at_info: None):
    record = record_of("grpc.aio", "bad metadata %s", "authorization: secret")
    try:
        raise ValueError("secret")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert conceal_library_text(record)
    assert record.getMessage() == "event=library_message place=server.py:7 error=ValueError"
    assert "secret" not in logging.Formatter().format(record)


def test_own_lines_stay_as_they_are(at_info: None):
    record = record_of("attendant_server.app", "event=serving models=%s", "en-de/1")
    assert conceal_library_text(record)
    assert record.getMessage() == "event=serving models=en-de/1"


def test_a_package_with_a_similar_name_is_a_library(at_info: None):
    record = record_of("attendant_server_plugin", "secret")
    conceal_library_text(record)
    assert "secret" not in record.getMessage()


def test_level_debug_shows_what_libraries_say(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    record = record_of("grpc.aio", "bad metadata")
    conceal_library_text(record)
    assert record.getMessage() == "bad metadata"


def test_lines_of_one_kind_are_limited_and_the_next_period_says_how_many(caplog):
    clock = Clock()
    limits = LineLimits(clock)
    line = "event=call_failed method=%s"

    def num_written(num_lines: int) -> int:
        return sum(limits(record_of("attendant_server.x", line, i)) for i in range(num_lines))

    assert num_written(MAX_LINES + 100) == MAX_LINES
    assert limits(record_of("attendant_server.x", "event=other"))
    assert not caplog.messages
    clock.now += PERIOD_SECONDS
    assert num_written(1) == 1
    assert caplog.messages == ["event=log_lines_suppressed lines=100 kind=call_failed"]
    clock.now += PERIOD_SECONDS
    assert num_written(2) == 2
    assert len(caplog.messages) == 1


def test_every_call_has_its_line():
    limits = LineLimits(Clock())
    call = record_of("attendant_server.calls", "event=call method=%s", "Embed")
    assert all(limits(call) for _ in range(10 * MAX_LINES))


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_libraries_are_limited_by_their_places(monkeypatch: pytest.MonkeyPatch, level: int):
    monkeypatch.setattr(logging.getLogger(), "level", level)
    limits, written = LineLimits(Clock()), 0
    for i in range(100):
        record = record_of("grpc.aio", f"header {i}")
        conceal_library_text(record)
        written += limits(record)
    assert written == MAX_LINES
