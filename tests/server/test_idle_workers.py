"""A worker without work gives memory back after a while."""

import logging
import threading

from tests.support.engines import TIMEOUT, Clock, new_engine, translate
from tests.support.fake_model import FakeEmbeddingModel, FakeTranslationModel


class ReleasingModel(FakeTranslationModel):
    """A model that signals when it must release memory."""

    def __init__(self, clock=None):
        super().__init__()
        self.released = threading.Event()
        self.clock = clock
        self.released_at: float | None = None

    def release_memory(self):
        self.released_at = self.clock() if self.clock else None
        super().release_memory()
        self.released.set()


def test_a_worker_without_work_gives_memory_back_once():
    model, embedding_model, idle = ReleasingModel(), FakeEmbeddingModel(), threading.Event()
    clock = Clock()
    engine = new_engine(model, embedding_model, clock=clock, idle_seconds=0.001, on_idle=idle.set)
    engine.start()
    for num_releases in (1, 2):
        call = translate()
        engine.submit("mt", call)
        assert call.future.result(TIMEOUT)
        idle.clear()
        clock.advance_until(idle)
        clock.now += 1
        assert model.num_releases == embedding_model.num_releases == num_releases
    assert engine.drain(TIMEOUT)
    assert model.num_releases == 2


def test_memory_is_kept_until_the_clock_says_that_a_worker_was_idle_for_long():
    clock = Clock()
    model = ReleasingModel(clock)
    engine = new_engine(model, clock=clock, idle_seconds=0.001)
    engine.start()
    call = translate()
    engine.submit("mt", call)
    assert call.future.result(TIMEOUT)
    assert not model.released.wait(0.1)
    clock.advance_until(model.released)
    assert model.released_at is not None
    assert model.released_at >= 1.0
    assert engine.drain(TIMEOUT)


def test_a_model_that_cannot_give_memory_back_does_not_end_the_engine(caplog):
    caplog.set_level(logging.CRITICAL + 1)
    clock, idle = Clock(), threading.Event()

    class BrokenModel(FakeTranslationModel):
        def release_memory(self):
            raise RuntimeError("broken weights")

    engine = new_engine(BrokenModel(), clock=clock, idle_seconds=0.001, on_idle=idle.set)
    engine.start()
    clock.advance_until(idle)
    call = translate()
    engine.submit("mt", call)
    assert call.future.result(TIMEOUT)
    assert engine.drain(TIMEOUT)
