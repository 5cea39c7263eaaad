"""Lanes of embedding models, between models, and between kinds of runs."""

from functools import partial

import pytest
from attendant_server.engine.caller_activity import LANE_SECONDS, CallerActivity
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


def workers_of(model, clock, num_workers):
    """A scheduler for each worker."""
    schedulers: list[EmbeddingScheduler] = []
    for _ in range(num_workers):
        sibling = schedulers[0] if schedulers else None
        schedulers.append(
            EmbeddingScheduler(
                "fake", model, embedding_limits(), RecordingObserver(), clock, sibling
            )
        )
    return schedulers


def submit(scheduler, caller, num_texts):
    """A submitted call of texts of 5 tokens."""
    call = EmbedCall([[1] * 5] * num_texts, ("mean_pooled",))
    call.caller = caller
    scheduler.submit(call)
    return call


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

    flood = submit(scheduler, FLOOD, 200)
    scheduler.advance(is_alone=True)
    quiet = submit(scheduler, QUIET, 1)
    scheduler.advance(is_alone=True)
    assert quiet.future.done()
    scheduler.advance(is_alone=True)
    assert model.batches[:3] == [[5] * 20, [5], [5, 5]]  # heavy ones in short batches
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    assert flood.future.result()


def test_the_first_of_several_workers_is_spared_from_floods_beside_a_light_caller(clock):
    model = FakeEmbeddingModel()
    spared, other = workers_of(model, clock, 2)

    flood = submit(spared, FLOOD, 300)
    assert spared.has_work
    assert spared.num_to_wake(1) == 1
    submit(spared, QUIET, 1)
    assert spared.num_to_wake(1) == 2  # a single text could wake the spared worker only
    spared.advance(is_alone=True)
    assert model.batches == [[5]]
    assert not spared.has_work
    assert other.has_work
    other.advance(is_alone=True)
    assert len(model.batches) == 2
    assert not flood.future.done()

    clock.now += LANE_SECONDS
    assert spared.has_work
    while spared.has_work:
        spared.advance(is_alone=True)
    assert flood.future.done()


def test_a_call_beside_a_flood_wakes_one_worker_more_than_it_has_texts(clock):
    first, *_ = workers_of(FakeEmbeddingModel(), clock, 4)

    submit(first, FLOOD, 300)
    assert [first.num_to_wake(num) for num in (1, 3, 300)] == [1, 3, 4]
    submit(first, QUIET, 1)
    assert [first.num_to_wake(num) for num in (1, 2, 300)] == [2, 3, 4]


def test_a_single_worker_runs_the_texts_of_a_flood_beside_a_light_caller(clock):
    model = FakeEmbeddingModel()
    [only] = workers_of(model, clock, 1)

    flood = submit(only, FLOOD, 60)
    submit(only, QUIET, 1)
    while only.has_work:
        only.advance(is_alone=True)
    assert flood.future.done()


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

    submit(flooded, FLOOD, 1000)
    fair_share = FairShare(clock)
    for n in range(300):
        if not other.has_work:
            submit(other, Caller(str(n)), 8)
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
