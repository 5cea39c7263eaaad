"""The engine's thread: admission, failure, draining and death."""

import gc
import logging
import threading
import weakref

import pytest
from attendant_server.engine.calls import EmbedCall, SearchOptions, TranslateCall
from attendant_server.engine.decoding import DecodingLane, DecodingLimits
from attendant_server.engine.encoding import EncodingLane, EncodingLimits
from attendant_server.engine.engine import Engine
from attendant_server.engine.lane import Lane
from attendant_server.errors import ModelFailed, Unavailable

from tests.support.fake_model import FakeEmbeddingModel, FakeTranslationModel, RecordingObserver

TIMEOUT = 20


class GatedModel(FakeTranslationModel):
    """Each step waits for the gate."""

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


def new_engine(model, embedding_model=None):
    observer = RecordingObserver()

    def clock():
        return 0.0

    lanes: dict[str, Lane] = {"mt": DecodingLane("mt", model, DecodingLimits(), observer, clock)}
    if embedding_model is not None:
        lanes["bert"] = EncodingLane("bert", embedding_model, EncodingLimits(), observer, clock)
    return Engine(lanes, clock)


def translate(num_tokens=4):
    return TranslateCall([(5, 6)], SearchOptions(num_tokens, min_output_tokens=num_tokens))


def test_translation_and_embedding_share_one_thread():
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
