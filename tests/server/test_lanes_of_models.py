"""Lanes of embedding models, between models, and between kinds of runs."""

from functools import partial

import pytest
from attendant_server.engine.caller_activity import CallerActivity
from attendant_server.engine.calls import Caller
from attendant_server.engine.embedding_scheduler import EmbeddingScheduler
from attendant_server.engine.encoder_calls import EmbedCall
from attendant_server.engine.fair_share import FairShare
from attendant_server.engine.lanes import LaneTurns

from tests.support.engines import Clock
from tests.support.fake_model import FakeEmbeddingModel, RecordingObserver
from tests.support.limits import embedding_limits

FLOOD, QUIET = Caller("flood"), Caller("quiet")


@pytest.fixture
def clock():
    return Clock()


def test_embeddings_of_light_callers_go_first(clock):
    class SlowModel(FakeEmbeddingModel):
        def embed(self, texts, outputs, *lengths, **more):
            clock.now += 0.001 * max(map(len, texts)) * len(texts)
            return super().embed(texts, outputs)

    model = SlowModel()
    scheduler = EmbeddingScheduler(
        "fake",
        model,
        embedding_limits(max_batch_tokens=100, max_batch_seconds=0.011),
        RecordingObserver(),
        clock,
    )

    def embed(caller, num_texts):
        call = EmbedCall([[1] * 5] * num_texts, ("mean_pooled",))
        call.caller = caller
        scheduler.submit(call)
        return call

    flood = embed(FLOOD, 200)
    scheduler.advance(is_alone=True)
    quiet = embed(QUIET, 1)
    scheduler.advance(is_alone=True)
    assert quiet.future.done()
    scheduler.advance(is_alone=True)
    assert model.batches[:3] == [[5] * 20, [5], [5, 5]]  # heavy ones in short batches
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    assert flood.future.result()


def test_a_model_of_light_callers_gets_more_time_than_a_flooded_one(clock):
    activity, observer = CallerActivity(), RecordingObserver()
    spent = {"flooded": 0.0, "other": 0.0}

    class SlowModel(FakeEmbeddingModel):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def embed(self, texts, outputs, *lengths, **more):
            clock.now += 0.001 * len(texts)
            spent[self.name] += 0.001 * len(texts)
            return super().embed(texts, outputs)

    flooded, other = (
        EmbeddingScheduler(
            name, SlowModel(name), embedding_limits(), observer, clock, None, activity
        )
        for name in spent
    )

    def embed(scheduler, caller, num_texts):
        call = EmbedCall([[1]] * num_texts, ("mean_pooled",))
        call.caller = caller
        scheduler.submit(call)

    embed(flooded, FLOOD, 1000)
    fair_share = FairShare(clock)
    for n in range(300):
        if not other.has_work:
            embed(other, Caller(str(n)), 8)
        at_work = [flooded, other]
        scheduler = fair_share.next(at_work)
        fair_share.take(scheduler, partial(scheduler.advance, is_alone=False))
    assert spent["flooded"] / sum(spent.values()) == pytest.approx(0.2, abs=0.05)


def test_a_kind_of_heavy_run_that_takes_long_is_not_passed_over(clock):
    runs: list[str] = []

    def run_of(name, seconds):
        def run(is_light):
            if not is_light:
                runs.append(name)
            clock.now += 0.001 if is_light else seconds
            return True

        return run

    turns = LaneTurns([run_of("short", 0.001), run_of("long", 0.02)], clock)
    for _ in range(400):
        turns.advance()
    assert abs(runs.count("short") - runs.count("long")) <= 1
    assert len(runs) >= 16
