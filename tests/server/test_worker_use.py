"""Few texts go to few workers while processors are scarce, and to all workers otherwise."""

import threading
import time

import pytest
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.engine.engine import Engine
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.engine.worker_use import WorkerUse

from tests.support.engines import TIMEOUT
from tests.support.fake_model import FakeTranslationModel, RecordingObserver
from tests.support.limits import translation_limits

SCARCE, IDLE = 2.0, 1.0
"""Seconds of a turn with one second of processor time."""


def use_after(*seconds: float, full_rows: int = 8) -> WorkerUse:
    use = WorkerUse(full_rows)
    for each in seconds:
        use.measure(each, 1.0, True)
    return use


def test_all_workers_decode_until_processors_are_known_to_be_scarce():
    assert use_after().num_workers(1, 4) == 4
    assert use_after(*[IDLE] * 100).num_workers(1, 4) == 4


@pytest.mark.parametrize(
    ("num_rows", "expected"), [(0, 1), (1, 1), (8, 1), (9, 2), (16, 2), (17, 3), (1000, 4)]
)
def test_workers_are_filled_one_after_the_other_while_processors_are_scarce(
    num_rows: int, expected: int
):
    assert use_after(SCARCE).num_workers(num_rows, 4) == expected


def test_processors_that_are_no_longer_scarce_are_used_again():
    use = use_after(*[SCARCE] * 100, *[IDLE] * 300)
    assert use.num_workers(1, 4) == 4


def test_one_slow_turn_among_many_makes_no_difference():
    assert use_after(*[IDLE] * 100, 5.0).num_workers(1, 4) == 4


def test_all_workers_decode_beside_another_model():
    use = use_after(*[SCARCE] * 100)
    use.measure(SCARCE, 1.0, False)
    assert use.num_workers(1, 4) == 4


def test_one_of_several_turns_is_measured_and_none_without_a_number_of_full_rows():
    use, without = WorkerUse(8), WorkerUse(0)
    assert [use.is_measured() for _ in range(17)] == [i % 8 == 0 for i in range(17)]
    assert not any(without.is_measured() for _ in range(17))


def test_without_a_number_of_full_rows_all_workers_always_decode():
    assert use_after(*[SCARCE] * 100, full_rows=0).num_workers(1, 4) == 4


class Machine:
    """Two schedulers of one model on threads whose turns take twice their processor time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "thread_time", lambda: self.now / 2)
        limits = translation_limits(full_rows=4)
        first = TranslationScheduler(
            "mt", FakeTranslationModel(), limits, RecordingObserver(), self.clock
        )
        self.schedulers = [
            first,
            TranslationScheduler(
                "mt", FakeTranslationModel(), limits, RecordingObserver(), self.clock, first
            ),
        ]
        self.calls: list[TranslateCall] = []

    def clock(self) -> float:
        self.now += 0.001
        return self.now

    def submit(self, num_texts: int, beam_size: int = 1) -> None:
        options = SearchOptions(4, beam_size=beam_size, min_output_tokens=4)
        call = TranslateCall([(5, 6)] * num_texts, options)
        self.calls.append(call)
        self.schedulers[0].submit(call)

    def have_work(self) -> list[bool]:
        return [scheduler.has_work for scheduler in self.schedulers]

    def finish(self) -> None:
        while any(self.have_work()):
            for scheduler in self.schedulers:
                if scheduler.has_work:
                    scheduler.advance(True)
        assert all(call.future.done() for call in self.calls)


def test_a_second_worker_begins_when_the_first_one_is_full(monkeypatch: pytest.MonkeyPatch):
    machine = Machine(monkeypatch)
    machine.submit(1)
    machine.schedulers[0].advance(True)
    assert machine.have_work() == [True, False]
    machine.submit(3)
    assert machine.have_work() == [True, False]
    machine.submit(1)
    assert machine.have_work() == [True, True]
    assert machine.schedulers[0].num_wanted == 1
    machine.schedulers[0].advance(True)
    machine.schedulers[1].advance(True)
    assert [scheduler.num_active for scheduler in machine.schedulers] == [3, 2]
    machine.finish()


def test_a_waiting_text_is_never_left_to_a_worker_without_texts(monkeypatch: pytest.MonkeyPatch):
    machine = Machine(monkeypatch)
    machine.submit(1)
    machine.finish()
    machine.submit(1)
    assert machine.have_work() == [True, True]
    machine.finish()


def test_beams_fill_a_worker_by_all_their_rows(monkeypatch: pytest.MonkeyPatch):
    """Ten texts would be one worker's. With beams of four, they are forty rows."""
    machine = Machine(monkeypatch)
    machine.schedulers[0]._use.full_rows = 16
    machine.schedulers[0]._use.measure(SCARCE, 1.0, True)
    machine.submit(10, beam_size=1)
    assert machine.schedulers[0].num_wanted == 1
    machine.finish()
    machine.submit(10, beam_size=4)
    assert machine.schedulers[0].num_wanted == 2
    machine.schedulers[0].advance(True)
    assert machine.schedulers[0].num_active_sentences == 5
    machine.finish()


def test_an_idle_worker_is_woken_when_processors_are_no_longer_scarce(
    monkeypatch: pytest.MonkeyPatch,
):
    """The texts that wait for a working worker are then for an idle one, too."""
    monkeypatch.setattr(time, "thread_time", time.monotonic)
    model, steppers = FakeTranslationModel(), set[int]()
    can_end = threading.Event()

    def wait_for_both() -> None:
        steppers.add(threading.get_ident())
        if len(steppers) == 2:
            can_end.set()
        if len(model.steps) > 300:
            can_end.wait(TIMEOUT)

    monkeypatch.setattr(model, "before_step", wait_for_both)
    limits = translation_limits(full_rows=16, max_sentences=1, max_encode_tokens=2)
    observer, clock = RecordingObserver(), time.monotonic
    first = TranslationScheduler("mt", model, limits, observer, clock)
    schedulers = [first, TranslationScheduler("mt", model, limits, observer, clock, first)]
    first._use.measure(SCARCE * 1e-6, 1e-6, True)
    engine = Engine(2, clock, idle_seconds=1000.0)
    engine.add("mt", schedulers)
    engine.start()
    call = TranslateCall([(5, 6)] * 8, SearchOptions(400, min_output_tokens=400))
    engine.submit("mt", call)
    assert len(call.future.result(TIMEOUT)) == 8
    assert engine.drain(TIMEOUT)
    assert len(steppers) == 2
