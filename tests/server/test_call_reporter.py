import logging
import threading

import pytest
from attendant_server.observability import call_reporter as call_reporter
from attendant_server.observability.call_reporter import CallReporter
from attendant_server.records import CallObserver, CallRecord, Method

from tests.support.serving import TIMEOUT_SECONDS, wait_until

METHOD = Method.of("attendant.v1.ModelService", "ListModels", False, False)


class Seen(CallObserver):
    """Records its notifications in a list that several observers may share."""

    def __init__(self, name: str, events: list[str]) -> None:
        self._name, self._events = name, events

    def on_call_started(self, record: CallRecord) -> None:
        self._events.append(f"{self._name} {record.request_id} started")

    def on_part_ended(self, record: CallRecord) -> None:
        self._events.append(f"{self._name} {record.request_id} text ended")

    def on_call_ended(self, record: CallRecord) -> None:
        self._events.append(f"{self._name} {record.request_id} ended")


class Broken(Seen):
    def on_call_ended(self, record: CallRecord) -> None:
        raise RuntimeError("broken")


def call(number: int) -> CallRecord:
    return CallRecord(METHOD, str(number), ended=1.0)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the period so long that it never triggers a report."""
    monkeypatch.setattr(call_reporter, "PERIOD_SECONDS", 3600.0)


def test_calls_are_shown_to_all_in_order():
    events: list[str] = []
    all_of_them = CallReporter([Seen("a", events), Seen("b", events)])
    all_of_them.on_call_started(call(1))
    all_of_them.on_call_started(call(2))
    assert events == ["a 1 started", "b 1 started", "a 2 started", "b 2 started"]
    events.clear()
    all_of_them.on_call_ended(call(2))
    all_of_them.on_call_ended(call(1))
    assert not events
    all_of_them.catch_up()
    assert events == ["a 2 ended", "b 2 ended", "a 1 ended", "b 1 ended"]
    all_of_them.close()


def test_texts_of_streams_are_shown_before_the_end_of_their_call():
    events: list[str] = []
    observer = CallReporter([Seen("a", events), Seen("b", events)])
    observer.on_part_ended(call(1))
    observer.on_part_ended(call(1))
    observer.on_call_ended(call(1))
    observer.close()
    text = ["a 1 text ended", "b 1 text ended"]
    assert events == [*text, *text, "a 1 ended", "b 1 ended"]


def test_what_has_ended_is_shown_before_it_is_closed():
    events: list[str] = []
    observer = CallReporter([Seen("a", events)])
    observer.on_call_ended(call(1))
    observer.close()
    assert events == ["a 1 ended"]


def test_a_call_that_ends_just_before_the_end_of_watching_is_shown(
    monkeypatch: pytest.MonkeyPatch,
):
    has_caught_up, is_closing = threading.Event(), threading.Event()

    class Slow(CallReporter):
        """Its thread stops after it has reported the first call."""

        def catch_up(self) -> None:
            super().catch_up()
            if events and not has_caught_up.is_set():
                has_caught_up.set()
                assert is_closing.wait(TIMEOUT_SECONDS)

    monkeypatch.setattr(call_reporter, "PERIOD_SECONDS", 0.0)
    events: list[str] = []
    observer = Slow([Seen("a", events)])
    observer.on_call_ended(call(1))
    assert has_caught_up.wait(TIMEOUT_SECONDS)
    observer.on_call_ended(call(2))
    closing = threading.Thread(target=observer.close)
    closing.start()
    wait_until(observer._is_closed.is_set)
    is_closing.set()
    closing.join(TIMEOUT_SECONDS)
    assert events == ["a 1 ended", "a 2 ended"]


def test_a_watcher_that_fails_leaves_the_others_alone(caplog: pytest.LogCaptureFixture):
    events: list[str] = []
    both = CallReporter([Broken("a", events), Seen("b", events)])
    both.on_call_ended(call(1))
    with caplog.at_level(logging.ERROR):
        both.catch_up()
    assert events == ["b 1 ended"]
    assert caplog.messages == ["event=call_not_reported observer=Broken"]
    both.close()


def test_calls_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(call_reporter, "MAX_WAITING_RECORDS", 3)
    events: list[str] = []
    observer = CallReporter([Seen("a", events)])
    for number in range(4):
        observer.on_call_ended(call(number))
    assert events == ["a 0 ended", "a 1 ended", "a 2 ended"]
    observer.close()


def test_what_has_ended_is_shown_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(call_reporter, "PERIOD_SECONDS", 0.0)
    events: list[str] = []
    observer = CallReporter([Seen("a", events)])
    observer.on_call_ended(call(1))
    wait_until(lambda: len(events) == 1)
    observer.on_call_ended(call(2))
    wait_until(lambda: len(events) == 2)
    observer.close()
