"""Texts of calls that are refused or that fail, and texts of a model that fails."""

import logging
import random

import pytest
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.engine.pair_calls import ScoreCall
from attendant_server.engine.searches import search_of
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.errors import ModelFailed, QueueFull

from tests.support.fake_model import EOS, FakeTranslationModel, RecordingObserver
from tests.support.limits import translation_limits


@pytest.fixture
def observer():
    return RecordingObserver()


@pytest.fixture
def model():
    return FakeTranslationModel()


@pytest.fixture
def scheduler(model, observer):
    limits = translation_limits(max_rows=8, max_queued_texts=60, max_encode_tokens=12)
    return TranslationScheduler("fake", model, limits, observer, lambda: 0.0)


def run(scheduler):
    while scheduler.has_work:
        scheduler.advance(is_alone=True)


def tokens_alone(source, options):
    """The translation of a text when nothing fails."""
    limits = translation_limits(max_rows=8)
    scheduler = TranslationScheduler(
        "fake", FakeTranslationModel(), limits, RecordingObserver(), lambda: 0.0
    )
    call = TranslateCall([source], options)
    scheduler.submit(call)
    run(scheduler)
    return [h.token_ids for h in call.future.result()[0]]


def test_searches_are_made_when_texts_are_encoded_and_none_for_a_refused_call(
    scheduler, monkeypatch
):
    made = []

    def counting(*arguments):
        made.append(arguments)
        return search_of(*arguments)

    monkeypatch.setattr("attendant_server.engine.translation_scheduler.search_of", counting)
    options = SearchOptions(max_output_tokens=3)
    with pytest.raises(QueueFull):
        scheduler.submit(TranslateCall([(5,)] * 256, options))
    scheduler.submit(TranslateCall([(5,)] * 40, options))
    assert not made
    run(scheduler)
    assert len(made) == 40


def test_a_failed_scheduler_answers_what_ran_and_goes_on_with_what_waits(scheduler):
    options = SearchOptions(max_output_tokens=5, min_output_tokens=5)
    running = [TranslateCall([(5, i)], options) for i in range(3, 11)]
    for call in running:
        scheduler.submit(call)
    while scheduler.num_active < 8:
        scheduler.advance(is_alone=True)
    waiting = TranslateCall([(5, 12)], options)
    scheduler.submit(waiting)
    scheduler.fail(ModelFailed("it failed"))
    assert all(isinstance(call.future.exception(), ModelFailed) for call in running)
    run(scheduler)
    assert [h.token_ids for h in waiting.future.result()[0]] == tokens_alone((5, 12), options)


def test_an_encoder_that_fails_fails_its_texts_and_not_those_that_run(scheduler, model, caplog):
    caplog.set_level(logging.CRITICAL)
    options = SearchOptions(max_output_tokens=5, min_output_tokens=5)
    running = TranslateCall([(5, 6)], options)
    scheduler.submit(running)
    scheduler.advance(is_alone=True)
    encode = model.encode
    model.encode = None
    broken = TranslateCall([(7,)], options)
    scheduler.submit(broken)
    scheduler.advance(is_alone=True)
    model.encode = encode
    run(scheduler)
    assert isinstance(broken.future.exception(), ModelFailed)
    assert [h.token_ids for h in running.future.result()[0]] == tokens_alone((5, 6), options)


def test_all_texts_of_a_call_that_a_step_fails_are_counted_once(scheduler, model, observer, caplog):
    caplog.set_level(logging.CRITICAL)

    def failing():
        raise RuntimeError("broken weights")

    model.before_step = failing
    options = SearchOptions(max_output_tokens=5)
    failed = TranslateCall([(5,)] * 32, options)
    scheduler.submit(failed)
    scheduler.submit(ScoreCall([((5,), (EOS,))]))
    run(scheduler)
    assert isinstance(failed.future.exception(), ModelFailed)
    assert observer.dropped == [("failed", 32)]


def test_the_texts_of_a_failed_scheduler_are_counted_once(scheduler, observer):
    options = SearchOptions(max_output_tokens=9, min_output_tokens=9)
    scheduler.submit(TranslateCall([(5,)] * 32, options))
    scheduler.advance(is_alone=True)
    scheduler.fail(ModelFailed("it failed"), waiting_too=True)
    assert observer.dropped == [("failed", 32)]


def test_a_refused_call_and_an_answered_one_count_no_dropped_texts(scheduler, observer):
    with pytest.raises(QueueFull):
        scheduler.submit(TranslateCall([(5,)] * 61, SearchOptions(3)))
    scheduler.submit(TranslateCall([(5,)] * 60, SearchOptions(3)))
    run(scheduler)
    assert observer.dropped == []


def test_a_width_whose_caches_cannot_be_allocated_fails_its_call_alone(scheduler, model, caplog):
    caplog.set_level(logging.CRITICAL)

    def without_memory(step, width, max_slots, pool):
        raise MemoryError

    new_cache = model.new_cache
    model.new_cache = without_memory
    options = SearchOptions(max_output_tokens=5)
    refused = TranslateCall([(5, 6)], options)
    scheduler.submit(refused)
    scheduler.advance(is_alone=True)
    model.new_cache = new_cache
    later = TranslateCall([(5, 6)], options)
    scheduler.submit(later)
    run(scheduler)
    assert isinstance(refused.future.exception(), ModelFailed)
    assert later.future.result()


@pytest.mark.parametrize("seed", range(4))
def test_the_counts_of_what_runs_are_right_whatever_ends_or_fails(scheduler, model, caplog, seed):
    caplog.set_level(logging.CRITICAL)
    rng, calls, seen, expected = random.Random(seed), [], [], []

    def sometimes_failing():
        if rng.random() < 0.05:
            raise RuntimeError("broken weights")

    def look(_=None):
        batches = list(scheduler._slots.batches.values())
        seen.append((scheduler.num_active, scheduler.num_active_sentences))
        expected.append(
            (sum(batch.num_rows for batch in batches), sum(len(b.sentences) for b in batches))
        )

    model.before_step = sometimes_failing
    for _ in range(100):
        options = SearchOptions(rng.randint(1, 12), rng.choice([1, 1, 2, 4]))
        calls.append(TranslateCall([(5, rng.randint(3, 20))] * rng.randint(1, 3), options))
        calls[-1].future.add_done_callback(look)
        if scheduler.num_waiting < 40:
            scheduler.submit(calls[-1])
        if rng.random() < 0.2:
            rng.choice(calls[-5:]).future.cancel()
        scheduler.advance(is_alone=True)
        look()
    scheduler.fail(ModelFailed("it failed"))
    look()
    assert seen == expected
    assert seen[-1] == (0, 0)
    assert max(seen)[0] == 8


class RefusesSeven(FakeTranslationModel):
    """Fails to encode or to score texts with the token 7."""

    def encode(self, sources):
        self.check(sources)
        return super().encode(sources)

    def score(self, pairs):
        self.check([source for source, _ in pairs])
        return super().score(pairs)

    def check(self, sources):
        if any(7 in source for source in sources):
            raise RuntimeError("no position for this token")


def test_a_source_that_the_encoder_cannot_run_fails_alone(observer, caplog):
    caplog.set_level(logging.CRITICAL)
    limits = translation_limits(max_rows=8, max_encode_tokens=100)
    scheduler = TranslationScheduler("fake", RefusesSeven(), limits, observer, lambda: 0.0)
    options = SearchOptions(max_output_tokens=5)
    calls = [TranslateCall([(5, each)], options) for each in (6, 7, 8)]
    for call in calls:
        scheduler.submit(call)
    run(scheduler)
    assert isinstance(calls[1].future.exception(), ModelFailed)
    for call, source in ((calls[0], (5, 6)), (calls[2], (5, 8))):
        assert [h.token_ids for h in call.future.result()[0]] == tokens_alone(source, options)


def test_a_pair_that_the_scorer_cannot_run_fails_alone(observer, caplog):
    caplog.set_level(logging.CRITICAL)
    limits = translation_limits(max_rows=8, max_encode_tokens=100)
    scheduler = TranslationScheduler("fake", RefusesSeven(), limits, observer, lambda: 0.0)
    calls = [ScoreCall([((5, each), (9, EOS))]) for each in (6, 7, 8)]
    for call in calls:
        scheduler.submit(call)
    run(scheduler)
    assert isinstance(calls[1].future.exception(), ModelFailed)
    assert len(calls[0].future.result()[0].log_probabilities) == 2
    assert len(calls[2].future.result()[0].log_probabilities) == 2


def test_other_texts_of_a_call_that_failed_are_not_run_alone(observer, caplog):
    caplog.set_level(logging.CRITICAL)
    limits = translation_limits(max_rows=8, max_encode_tokens=100)
    model = RefusesSeven()
    scheduler = TranslationScheduler("fake", model, limits, observer, lambda: 0.0)
    call = TranslateCall([(7,), (5,), (6,)], SearchOptions(max_output_tokens=5))
    scheduler.submit(call)
    run(scheduler)
    assert isinstance(call.future.exception(), ModelFailed)
    assert model.encoded == []
