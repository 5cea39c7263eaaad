"""The engine's thread: admission, failure, draining and crash."""

import gc
import logging
import os
import threading
import time
import weakref

import pytest
from attendant_server.engine.calls import Caller, SearchOptions, TranslateCall
from attendant_server.engine.encoder_calls import EmbedCall
from attendant_server.errors import ModelFailed, Unavailable

from tests.support.engines import TIMEOUT, Clock, new_engine, translate
from tests.support.fake_model import FakeEmbeddingModel, FakeTranslationModel


class GatedModel(FakeTranslationModel):
    """A model whose steps wait for a gate."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.stepping = threading.Event()

    def before_step(self):
        self.stepping.set()
        assert self.gate.wait(TIMEOUT)


class FailingModel(FakeTranslationModel):
    def before_step(self):
        raise RuntimeError("broken weights")


def test_translation_and_embedding_share_a_worker():
    engine = new_engine(FakeTranslationModel(), FakeEmbeddingModel())
    engine.start()
    translation, embedding = translate(), EmbedCall([[1, 2]], ("mean_pooled",))
    engine.submit("mt", translation)
    engine.submit("bert", embedding)
    assert translation.future.result(TIMEOUT)
    assert embedding.future.result(TIMEOUT)
    assert engine.drain(TIMEOUT)


def test_draining_finishes_admitted_calls_and_refuses_new_ones():
    model = GatedModel()
    engine = new_engine(model)
    engine.start()
    admitted = translate()
    engine.submit("mt", admitted)
    drained = []
    thread = threading.Thread(target=lambda: drained.append(engine.drain(TIMEOUT)))
    assert model.stepping.wait(TIMEOUT)
    thread.start()
    while True:
        try:
            engine.submit("mt", translate())
        except Unavailable:
            break
    model.gate.set()
    thread.join(TIMEOUT)
    assert drained == [True]
    assert admitted.future.result(TIMEOUT)


def test_what_is_left_when_the_time_to_drain_is_over_fails_as_unavailable():
    model = GatedModel()
    engine = new_engine(model)
    engine.start()
    left = translate(1000)
    engine.submit("mt", left)
    assert model.stepping.wait(TIMEOUT)
    threading.Timer(0.1, model.gate.set).start()
    assert engine.drain(0.01) is False
    assert isinstance(left.future.exception(TIMEOUT), Unavailable)


def test_a_model_that_raises_fails_its_calls_and_not_the_engine(caplog):
    caplog.set_level(logging.CRITICAL + 1)
    engine = new_engine(FailingModel(), FakeEmbeddingModel())
    engine.start()
    call = translate()
    engine.submit("mt", call)
    with pytest.raises(ModelFailed) as failure:
        call.future.result(TIMEOUT)
    assert "broken weights" not in str(failure.value)
    embedding = EmbedCall([[1]], ("mean_pooled",))
    engine.submit("bert", embedding)
    assert embedding.future.result(TIMEOUT)
    engine.drain(TIMEOUT)


def test_a_dead_engine_answers_everyone_and_says_so(caplog):
    caplog.set_level(logging.CRITICAL + 1)

    class Fatal(BaseException):
        pass

    class DyingModel(GatedModel):
        def before_step(self):
            super().before_step()
            raise Fatal

    model = DyingModel()
    engine = new_engine(model)
    died = threading.Event()
    engine.on_death = died.set
    engine.start()
    running, waiting = translate(), translate()
    engine.submit("mt", running)
    assert model.stepping.wait(TIMEOUT)
    engine.submit("mt", waiting)
    model.gate.set()
    assert died.wait(TIMEOUT)
    for call in (running, waiting):
        assert isinstance(call.future.exception(TIMEOUT), Unavailable)
    with pytest.raises(Unavailable):
        engine.submit("mt", translate())


def test_a_callers_broken_callback_does_not_disturb_its_neighbours(caplog):
    caplog.set_level(logging.CRITICAL + 1)

    def broken(prefix):
        raise RuntimeError("the caller's loop is closed")

    engine = new_engine(FakeTranslationModel())
    engine.start()
    options = SearchOptions(6, min_output_tokens=6)
    neighbour = TranslateCall([(5, 6)], options)
    engine.submit("mt", TranslateCall([(7,)], options, on_prefix=broken))
    engine.submit("mt", neighbour)
    assert neighbour.future.result(TIMEOUT)
    engine.drain(TIMEOUT)


class MeetingModel(FakeTranslationModel):
    """A model whose steps continue only while two workers run a step at once."""

    def __init__(self):
        super().__init__()
        self.meeting = threading.Barrier(2, timeout=TIMEOUT)

    def before_step(self):
        self.meeting.wait()


def test_two_callers_are_served_by_two_workers_at_the_same_time():
    engine = new_engine(MeetingModel(), num_workers=2)
    engine.start()
    calls = [translate(3), translate(3)]
    for call in calls:
        engine.submit("mt", call)
    assert all(call.future.result(TIMEOUT) for call in calls)
    assert engine.drain(TIMEOUT)


def test_the_texts_of_one_call_are_shared_among_workers():
    engine = new_engine(MeetingModel(), num_workers=2)
    engine.start()
    call = TranslateCall([(5, 6), (7, 8), (9, 5), (6, 7)], SearchOptions(3, min_output_tokens=3))
    engine.submit("mt", call)
    assert len(call.future.result(TIMEOUT)) == 4
    assert engine.drain(TIMEOUT)


def test_one_text_at_a_time_is_answered_by_the_worker_that_worked_last():
    model = ThreadNotingModel()
    engine = new_engine(model, num_workers=3, idle_seconds=10 * TIMEOUT)
    engine.start()
    for _ in range(10):
        answer_once_idle(engine, 3)
    assert len(set(model.threads)) == 1
    assert engine.drain(TIMEOUT)


def test_a_worker_that_has_just_released_its_memory_is_woken_last():
    model, clock, idle = ThreadNotingModel(), Clock(), threading.Event()
    options = {"clock": clock, "idle_seconds": 0.05, "on_idle": idle.set}
    engine = new_engine(model, num_workers=2, **options)
    engine.start()
    clock.now = 0.03
    answer_once_idle(engine, 2)
    clock.now = 0.06  # The other worker has been idle for longer than the limit, this one has not.
    assert idle.wait(TIMEOUT)
    answer_once_idle(engine, 2)
    assert len(set(model.threads)) == 1
    assert engine.drain(TIMEOUT)


class ThreadNotingModel(FakeTranslationModel):
    """A model that notes the threads of its steps."""

    def __init__(self):
        super().__init__()
        self.threads = []

    def before_step(self):
        self.threads.append(threading.get_ident())


def answer_once_idle(engine, num_workers):
    """Translate one text as soon as so many workers wait for work."""
    end = time.monotonic() + TIMEOUT
    while len(engine._idle) < num_workers:
        assert time.monotonic() < end, "the workers are not idle"
        time.sleep(0.001)
    call = translate()
    engine.submit("mt", call)
    assert call.future.result(TIMEOUT)


def test_single_texts_of_a_bulk_caller_wake_a_worker_that_may_take_them_beside_a_light_caller():
    idle = {"idle_seconds": 10 * TIMEOUT}  # so that no worker looks for work without being woken
    engine = new_engine(FakeTranslationModel(), FakeEmbeddingModel(), num_workers=2, **idle)
    engine.start()
    for caller in (Caller("light"), *[Caller("bulk", is_bulk=True)] * 4):
        call = EmbedCall([[1]], ("mean_pooled",))
        call.caller = caller
        engine.submit("bert", call)
        assert call.future.result(TIMEOUT)
    assert engine.drain(TIMEOUT)


def test_when_one_worker_dies_the_calls_of_all_are_answered(caplog):
    caplog.set_level(logging.CRITICAL + 1)

    class Fatal(BaseException):
        pass

    class DyingModel(MeetingModel):
        has_met = False

        def before_step(self):
            if not self.has_met and self.meeting.wait() == 0:
                raise Fatal
            self.has_met = True

    engine = new_engine(DyingModel(), num_workers=2)
    died = threading.Event()
    engine.on_death = died.set
    engine.start()
    calls = [translate(10**6), translate(10**6)]
    for call in calls:
        engine.submit("mt", call)
    assert died.wait(TIMEOUT)
    for call in calls:
        assert isinstance(call.future.exception(TIMEOUT), Unavailable)
    assert engine.drain(TIMEOUT)


def test_many_calls_through_several_workers_are_all_answered():
    engine = new_engine(FakeTranslationModel(), FakeEmbeddingModel(), num_workers=3)
    engine.start()
    calls = [TranslateCall([(5, i % 9 + 4)] * (i % 5 + 1), SearchOptions(9)) for i in range(300)]
    embeddings = [EmbedCall([[i]] * (i % 4 + 1), ("mean_pooled",)) for i in range(300)]
    for i, (call, embedding) in enumerate(zip(calls, embeddings, strict=True)):
        call.caller = embedding.caller = Caller(str(i % 7))
        engine.submit("mt", call)
        engine.submit("bert", embedding)
    for call in calls:
        assert len(call.future.result(TIMEOUT)) == call.num_texts
    for embedding in embeddings:
        assert len(embedding.future.result(TIMEOUT)) == embedding.num_texts
    assert engine.drain(TIMEOUT)


def test_an_answered_call_is_not_kept_alive():
    engine = new_engine(FakeTranslationModel())
    engine.start()
    call = translate()
    engine.submit("mt", call)
    assert call.future.result(TIMEOUT)
    assert engine.drain(TIMEOUT)
    reference = weakref.ref(call)
    gc.disable()
    try:
        del call
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_worker_stays_on_its_processor_if_that_is_there(is_there):
    before = os.sched_getaffinity(0)
    processor = max(before) if is_there else 1023
    seen = []

    class ObservingModel(FakeTranslationModel):
        def before_step(self):
            seen.append(os.sched_getaffinity(0))

    engine = new_engine(ObservingModel(), processors=[processor])
    engine.start()
    call = translate()
    engine.submit("mt", call)
    call.future.result(timeout=10)
    assert engine.drain(10)
    assert set(map(frozenset, seen)) == {frozenset({processor} if is_there else before)}
    assert os.sched_getaffinity(0) == before


def test_each_worker_calls_on_start_first_on_its_own_thread():
    seen = []

    class ObservingModel(FakeTranslationModel):
        def before_step(self):
            seen.append(("step", threading.get_ident()))

    engine = new_engine(
        ObservingModel(), on_start=lambda: seen.append(("start", threading.get_ident()))
    )
    engine.start()
    call = translate()
    engine.submit("mt", call)
    call.future.result(timeout=10)
    assert engine.drain(10)
    worker = seen[0][1]
    assert worker != threading.get_ident()
    assert seen[:2] == [("start", worker), ("step", worker)]


def test_a_model_that_is_removed_fails_its_calls_and_takes_no_more():
    model = GatedModel()
    engine = new_engine(model, num_workers=1)
    engine.start()
    running = translate(1000)
    engine.submit("mt", running)
    assert model.stepping.wait(TIMEOUT)
    waiting = translate()
    engine.submit("mt", waiting)
    dropped = engine.remove("mt")
    with pytest.raises(Unavailable, match="the model has been unloaded"):
        engine.submit("mt", translate())
    assert not dropped.done()
    model.gate.set()
    dropped.result(TIMEOUT)
    for call in (running, waiting):
        with pytest.raises(Unavailable, match="the model has been unloaded"):
            call.future.result(TIMEOUT)
    engine.drain(TIMEOUT)


def test_a_model_is_added_to_and_removed_from_an_engine_that_runs():
    engine, other = new_engine(FakeTranslationModel()), new_engine(FakeTranslationModel())
    engine.start()
    engine.add("other", other._models["mt"].schedulers)
    for name in ("mt", "other"):
        call = translate()
        engine.submit(name, call)
        assert call.future.result(TIMEOUT)
    engine.remove("mt").result(TIMEOUT)
    call = translate()
    engine.submit("other", call)
    assert call.future.result(TIMEOUT)
    engine.drain(TIMEOUT)
