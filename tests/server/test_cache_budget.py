"""The choice of sentences that run together under a limit of cache memory."""

import logging
import random

import pytest
from attendant_server.engine.cache_budget import CacheBudget
from attendant_server.engine.calls import SearchOptions, SearchTooLarge, TranslateCall
from attendant_server.engine.models import RowStart
from attendant_server.engine.running_batch import Sentence
from attendant_server.engine.searches import search_of
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.errors import ModelFailed

from tests.support.fake_model import (
    BOS,
    EOS,
    FakeLanguageModel,
    FakeTranslationModel,
    RecordingObserver,
)
from tests.support.limits import translation_limits


@pytest.fixture
def model():
    return FakeTranslationModel()


def new_scheduler(model, max_cache_bytes):
    limits = translation_limits(max_rows=32, max_sentences=32, max_cache_bytes=max_cache_bytes)
    return TranslationScheduler("fake", model, limits, RecordingObserver(), lambda: 0.0)


def run(scheduler):
    for _ in range(10_000):
        if not scheduler.has_work:
            return
        scheduler.advance(is_alone=True)
    raise AssertionError("the scheduler does not come to an end")


def exactly(num_tokens, beam_size=1):
    return SearchOptions(num_tokens, beam_size, min_output_tokens=num_tokens)


def reserved(scheduler):
    """The maximum memory of the running sentences, as `FakeTranslationModel` counts it."""
    return sum(
        len(batch.sentences)
        * (
            batch.sentences[0].width * max(s.max_output_tokens for s in batch.sentences)
            + max(s.num_source_tokens for s in batch.sentences)
        )
        for batch in scheduler._slots.batches.values()
        if batch.sentences
    )


def test_sentences_wait_until_those_that_run_leave_them_room(model):
    scheduler = new_scheduler(model, max_cache_bytes=3 * (10 + 2))
    calls = [TranslateCall([(5, n)], exactly(10)) for n in range(3, 10)]
    for call in calls:
        scheduler.submit(call)
    run(scheduler)
    assert all(call.future.result() for call in calls)
    assert max(num_slots for _, num_slots in model.steps) == 3


@pytest.mark.parametrize("seed", range(4))
def test_any_mixture_ends_and_never_can_exceed_the_limit(model, seed):
    rng = random.Random(seed)
    scheduler = new_scheduler(model, max_cache_bytes=150)
    calls = []
    for _ in range(60):
        source = (5,) * rng.randint(1, 9)
        options = SearchOptions(rng.randint(1, 30), rng.choice([1, 1, 2, 4]))
        calls.append(TranslateCall([source], options))
        scheduler.submit(calls[-1])
        for _ in range(rng.randint(0, 3)):
            scheduler.advance(is_alone=True)
            assert reserved(scheduler) <= 150
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
        assert reserved(scheduler) <= 150
    assert all(call.future.result() for call in calls)


def test_nothing_overtakes_a_large_sentence_that_waits_for_room(model):
    scheduler = new_scheduler(model, max_cache_bytes=100)
    scheduler.submit(TranslateCall([(5,)], exactly(30)))
    scheduler.advance(is_alone=True)
    large = TranslateCall([(6,)], exactly(20, beam_size=4))
    scheduler.submit(large)
    small = [TranslateCall([(7, n)], exactly(2)) for n in range(3, 20)]
    for call in small:
        scheduler.submit(call)
    while 4 not in {width for width, _ in model.steps}:
        assert not any(call.future.done() for call in small)
        scheduler.advance(is_alone=True)
    run(scheduler)
    assert large.future.result()
    assert all(call.future.result() for call in small)


def test_no_sources_are_encoded_ahead_of_one_that_waits_for_room(model):
    scheduler = new_scheduler(model, max_cache_bytes=100)
    scheduler.submit(TranslateCall([(5,)], exactly(90)))
    scheduler.advance(is_alone=True)
    scheduler.submit(TranslateCall([(6,)], exactly(90)))
    scheduler.advance(is_alone=True)
    scheduler.submit(TranslateCall([(7,)], exactly(2)))
    for _ in range(10):
        scheduler.advance(is_alone=True)
    assert model.encoded == [[(5,)], [(6,)]]


@pytest.mark.parametrize(
    ("beam_size", "max_output_tokens", "refused"),
    [(4, 24, []), (4, 25, [0, 1]), (2, 49, [1]), (2, 50, [0, 1]), (1, 96, []), (1, 97, [1])],
)
def test_texts_that_could_never_fit_are_refused_before_any_work(
    model, beam_size, max_output_tokens, refused
):
    scheduler = new_scheduler(model, max_cache_bytes=100)
    sources, options = [(5,), (5,) * 4], SearchOptions(max_output_tokens, beam_size)
    call = TranslateCall(sources, options)
    if not refused:
        scheduler.submit(call)
        run(scheduler)
        assert call.future.result()
        return
    with pytest.raises(SearchTooLarge) as refusal:
        scheduler.submit(call)
    assert sorted(refusal.value.problems) == refused
    assert not scheduler.has_work
    assert scheduler.num_waiting == 0


def test_a_refusal_states_the_need_of_the_text_and_the_limit(model):
    scheduler = new_scheduler(model, max_cache_bytes=10)
    with pytest.raises(SearchTooLarge) as refusal:
        scheduler.submit(TranslateCall([(5,) * 20], SearchOptions(30, beam_size=4)))
    assert refusal.value.problems == {
        0: "20 tokens, with a beam of 4 and at most 30 output tokens, need 140 bytes of caches; "
        "the limit is 10 (max_cache_bytes, divided by the number of workers)"
    }


def test_without_a_limit_of_the_callers_own_the_limit_of_each_text_counts(model):
    scheduler = new_scheduler(model, max_cache_bytes=100)
    options = SearchOptions(1000, max_output_ratio=3, extra_output_tokens=16)
    call = TranslateCall([(5,) * 10, (6,)], options)
    scheduler.submit(call)
    run(scheduler)
    assert call.future.result()
    with pytest.raises(SearchTooLarge) as refusal:
        scheduler.submit(TranslateCall([(6,), (5,) * 21], options._replace(max_output_ratio=4)))
    assert list(refusal.value.problems) == [1]
    assert "21 tokens, with a beam of 1 and at most 100 output" in refusal.value.problems[1]


def test_the_rows_of_a_prompt_begin_with_its_tokens():
    scheduler = new_scheduler(FakeLanguageModel(), max_cache_bytes=40)
    options = SearchOptions(10, beam_size=2)
    scheduler.submit(TranslateCall([(5,) * 6], options))  # 6 + 2 x (5 + 10) bytes
    with pytest.raises(SearchTooLarge) as refusal:
        scheduler.submit(TranslateCall([(5,) * 8, (6,)], options))
    assert list(refusal.value.problems) == [0]
    run(scheduler)


def test_all_widths_are_counted_together():
    def needed_bytes(width, num_sentences, longest_row, longest_source):
        return num_sentences * (width * longest_row + longest_source)

    def sentence(width, longest_output, num_source_tokens, num_positions=0):
        options = SearchOptions(longest_output, width)
        call = TranslateCall([(5,) * num_source_tokens], options)
        search = search_of(options, "", BOS, EOS)
        start = RowStart(BOS, num_positions)
        return Sentence(call, 0, search, start, num_source_tokens, longest_output)

    running = {1: [sentence(1, 10, 5)], 2: [sentence(2, 15, 3, num_positions=5)], 4: []}
    joining = sentence(2, 5, 8)
    needed = (10 + 5) + 2 * (2 * 20 + 8)
    assert CacheBudget(needed, 32, 32, needed_bytes).has_room(running, 2, joining)
    assert not CacheBudget(needed - 1, 32, 32, needed_bytes).has_room(running, 2, joining)


def caches_of(scheduler):
    return [batch._cache for batch in scheduler._slots.batches.values()]


def test_a_failed_step_gives_its_caches_back(model, caplog):
    caplog.set_level(logging.CRITICAL)
    scheduler = new_scheduler(model, max_cache_bytes=1000)
    failed = TranslateCall([(5,)], exactly(10))
    scheduler.submit(failed)
    scheduler.advance(is_alone=True)
    assert not any(cache.is_released for cache in caches_of(scheduler))
    model.before_step = None
    scheduler.advance(is_alone=True)
    assert isinstance(failed.future.exception(), ModelFailed)
    assert all(cache.is_released for cache in caches_of(scheduler))


def test_a_failed_scheduler_gives_its_caches_back(model):
    scheduler = new_scheduler(model, max_cache_bytes=1000)
    for beam_size in (1, 2):
        scheduler.submit(TranslateCall([(5,)], exactly(10, beam_size)))
    scheduler.advance(is_alone=True)
    scheduler.fail(ModelFailed("it failed"))
    assert len(caches_of(scheduler)) == 2
    assert all(cache.is_released for cache in caches_of(scheduler))


def test_a_source_that_cannot_be_loaded_leaves_nothing_behind(model, caplog):
    caplog.set_level(logging.CRITICAL)
    scheduler = new_scheduler(model, max_cache_bytes=1000)
    new_cache = model.new_cache

    def broken_cache(width, max_slots, pool):
        cache = new_cache(width, max_slots, pool)
        cache.is_released = False
        cache.sources = None
        return cache

    model.new_cache = broken_cache
    call = TranslateCall([(5,)], exactly(10))
    scheduler.submit(call)
    scheduler.advance(is_alone=True)
    assert isinstance(call.future.exception(), ModelFailed)
    assert all(cache.is_released for cache in caches_of(scheduler))
