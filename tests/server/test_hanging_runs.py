"""Model runs that hang: they are stopped, or the engine is given up."""

import asyncio
import threading

import pytest
from attendant_server.engine.encoder_calls import EmbedCall
from attendant_server.errors import ModelFailed, Unavailable
from attendant_server.hanging_runs import watch_runs

from tests.support.engines import TIMEOUT, Clock, new_engine, translate
from tests.support.fake_model import FakeEmbeddingModel, FakeTranslationModel


class HangingModel(FakeTranslationModel):
    """A model whose steps hang until they are stopped, if they can be."""

    def __init__(self, can_be_stopped):
        super().__init__()
        self.can_be_stopped = can_be_stopped
        self.gate = threading.Event()
        self.stepping = threading.Event()

    def before_step(self):
        self.stepping.set()
        assert self.gate.wait(TIMEOUT)
        if self.gate.is_set() and self.can_be_stopped:
            raise RuntimeError("stopped")

    def stop_runs(self):
        if self.can_be_stopped:
            self.gate.set()


def watched(engine, clock, seconds_per_round=1.0):
    """Watch an engine with a limit of 60 s of its clock; returns whether it was abandoned."""

    async def watch():
        abandoned = asyncio.Event()
        watching = asyncio.ensure_future(
            watch_runs(lambda: engine, 60.0, abandoned.set, period_seconds=0.01, stop_seconds=0.5)
        )
        for _ in range(1000):
            clock.now += seconds_per_round
            await asyncio.sleep(0.02)
            if abandoned.is_set() or not engine.hanging(0.0):
                break
        watching.cancel()
        return abandoned.is_set()

    return asyncio.run(watch())


def test_a_run_that_hangs_is_stopped_and_fails_its_calls_only(caplog):
    clock = Clock()
    engine = new_engine(HangingModel(can_be_stopped=True), FakeEmbeddingModel(), clock=clock)
    engine.start()
    call, embedding = translate(), EmbedCall([[1]], ("mean_pooled",))
    engine.submit("mt", call)
    assert engine._models["mt"].schedulers[0]._model.stepping.wait(TIMEOUT)
    engine.submit("bert", embedding)
    assert watched(engine, clock) is False
    assert clock.now >= 60
    with pytest.raises(ModelFailed):
        call.future.result(TIMEOUT)
    assert embedding.future.result(TIMEOUT)
    assert "event=model_run_hangs model=mt" in caplog.text
    engine.drain(TIMEOUT)


def test_a_run_is_stopped_first_even_if_the_process_was_paused_for_long():
    clock = Clock()
    engine = new_engine(HangingModel(can_be_stopped=True), clock=clock)
    engine.start()
    call = translate()
    engine.submit("mt", call)
    assert engine._models["mt"].schedulers[0]._model.stepping.wait(TIMEOUT)
    assert watched(engine, clock, seconds_per_round=1000.0) is False
    with pytest.raises(ModelFailed):
        call.future.result(TIMEOUT)
    engine.drain(TIMEOUT)


def test_an_engine_whose_run_cannot_be_stopped_is_abandoned_and_answers_everyone(caplog):
    clock, model = Clock(), HangingModel(can_be_stopped=False)
    engine = new_engine(model, FakeEmbeddingModel(), clock=clock)
    engine.start()
    running, waiting = translate(), EmbedCall([[1]], ("mean_pooled",))
    engine.submit("mt", running)
    assert model.stepping.wait(TIMEOUT)
    engine.submit("bert", waiting)
    assert watched(engine, clock) is True
    assert clock.now >= 60
    assert engine.abandon() is False  # so that one death causes one restart
    for call in (running, waiting):
        with pytest.raises(Unavailable):
            call.future.result(TIMEOUT)
    with pytest.raises(Unavailable):
        engine.submit("bert", waiting)
    model.gate.set()
    engine.drain(TIMEOUT)
