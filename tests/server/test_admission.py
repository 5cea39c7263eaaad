"""The limit on waiting texts of a model applies to all its queues and workers together."""

import threading

import pytest
from attendant_server.engine.admission import Admission
from attendant_server.engine.admission_queue import AdmissionQueue
from attendant_server.engine.caller_activity import CallerActivity
from attendant_server.engine.calls import Caller, SearchOptions, TranslateCall
from attendant_server.engine.embedding_scheduler import EmbeddingScheduler
from attendant_server.engine.encoder_calls import EmbedCall
from attendant_server.engine.pair_calls import ScoreCall
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.errors import DeadlineExceeded, QueueFull

from tests.support.fake_model import (
    EOS,
    FakeEmbeddingModel,
    FakeTranslationModel,
    RecordingObserver,
)
from tests.support.limits import embedding_limits, translation_limits

ENDLESS = SearchOptions(max_output_tokens=1000, min_output_tokens=1000)


def new_schedulers(num_workers=1, **limits):
    """The schedulers of a translation model with a queue limit of ten texts."""
    limits = {"max_rows": 2, "max_queued_texts": 10, "max_encode_tokens": 100} | limits
    schedulers: list[TranslationScheduler] = []
    for _ in range(num_workers):
        schedulers.append(
            TranslationScheduler(
                "fake",
                FakeTranslationModel(),
                translation_limits(**limits),
                RecordingObserver(),
                lambda: 0.0,
                next(iter(schedulers), None),
            )
        )
    return schedulers


def num_admitted(scheduler, new_call):
    """Number of calls of one text, each of another caller, that are admitted until it is full."""
    for n in range(1000):
        call = new_call()
        call.caller = Caller(f"caller {n}")
        try:
            scheduler.submit(call)
        except QueueFull:
            return n
    raise AssertionError("the queue has no limit")


def text(deadline=None):
    return TranslateCall([(5, 6)], ENDLESS, deadline)


def test_texts_that_are_encoded_and_have_no_rows_yet_still_count_as_waiting():
    first, second = new_schedulers(num_workers=2)
    assert num_admitted(first, text) == 10
    for scheduler in (first, second):
        scheduler.advance(is_alone=True)
    assert first.num_active_sentences == second.num_active_sentences == 2
    assert num_admitted(first, text) == 4
    assert first.num_waiting == second.num_waiting == 10


def test_wide_searches_that_wait_for_rows_count_as_waiting():
    (scheduler,) = new_schedulers(max_rows=4, max_sentences=4)
    scheduler.submit(text())
    scheduler.advance(is_alone=True)
    wide = SearchOptions(max_output_tokens=1000, beam_size=4)
    scheduler.submit(TranslateCall([(5,)] * 10, wide))
    for _ in range(3):
        scheduler.advance(is_alone=True)
        assert scheduler.num_waiting == 10
        assert num_admitted(scheduler, text) == 0


def test_texts_to_translate_and_pairs_to_score_share_one_limit():
    (scheduler,) = new_schedulers()
    assert num_admitted(scheduler, lambda: ScoreCall([((5,), (EOS,))])) == 10
    assert num_admitted(scheduler, text) == 0
    scheduler.advance(is_alone=True)  # scores all pairs, which leaves the queue empty
    assert num_admitted(scheduler, text) == 10


def test_texts_of_a_call_that_is_over_make_room_wherever_they_are():
    (scheduler,) = new_schedulers(max_encode_tokens=6)
    call = TranslateCall([(5, 6)] * 10, ENDLESS)
    scheduler.submit(call)
    scheduler.advance(is_alone=True)
    assert scheduler.num_active_sentences == 2
    assert scheduler.num_waiting == 8
    call.future.cancel()
    assert scheduler.num_waiting == 0
    assert num_admitted(scheduler, text) == 10


def test_a_newcomer_is_told_how_long_the_oldest_text_waits_though_it_is_encoded():
    now = 0.0
    scheduler = TranslationScheduler(
        "fake",
        FakeTranslationModel(),
        translation_limits(max_rows=4, max_sentences=4, max_queued_texts=1),
        RecordingObserver(),
        lambda: now,
    )
    scheduler.submit(text())
    scheduler.advance(is_alone=True)
    scheduler.submit(TranslateCall([(5,)], SearchOptions(9, beam_size=4)))
    scheduler.advance(is_alone=True)
    now = 3.0
    with pytest.raises(QueueFull) as refusal:
        scheduler.submit(text())
    assert refusal.value.retry_after_seconds == 3.0


def queue_of(*lengths, deadline=None):
    queue: AdmissionQueue[EmbedCall] = AdmissionQueue(Admission(100, CallerActivity()))
    queue.put(EmbedCall([[1] * n for n in lengths], ("mean_pooled",), deadline), lengths, 0.0)
    return queue


def test_texts_that_are_looked_at_and_not_chosen_are_never_gone():
    queue, seen = queue_of(1, 2, 3, 4), []

    def choose(texts):
        window = [next(texts) for _ in range(3)]
        seen.append(len(queue))  # the length that another worker would see meanwhile
        return [window[1]]

    assert [t.num_tokens for t in queue.take(0.0, choose)[0]] == [2]
    assert seen == [4]
    assert [t.num_tokens for t in queue.take_all(0.0)] == [1, 3, 4]
    assert len(queue) == 0


def test_a_choice_that_fails_takes_nothing():
    queue = queue_of(1, 2)
    with pytest.raises(ZeroDivisionError):
        queue.take(0.0, lambda texts: [next(texts), 1 / 0])
    assert [t.num_tokens for t in queue.take_all(0.0)] == [1, 2]


def test_expired_texts_are_not_offered_and_are_handed_out_to_be_failed():
    queue = queue_of(1, 2, deadline=5.0)
    chosen, expired = queue.take(5.0, list)
    assert list(chosen) == []
    assert [t.num_tokens for t in expired] == [1, 2]
    assert len(queue) == 0


def test_an_expired_call_fails_when_a_worker_comes_across_it():
    now = 0.0
    scheduler = EmbeddingScheduler(
        "fake", FakeEmbeddingModel(), embedding_limits(), RecordingObserver(), lambda: now
    )
    call = EmbedCall([[1], [2]], ("mean_pooled",), deadline=1.0)
    scheduler.submit(call)
    now = 1.0
    scheduler.advance(is_alone=True)
    assert isinstance(call.future.exception(), DeadlineExceeded)
    assert not scheduler.has_work


def test_a_worker_always_sees_texts_that_another_is_only_looking_at():
    first, second = new_schedulers(num_workers=2)
    first.submit(TranslateCall([(5,) * n for n in (1, 1, 30, 30)], ENDLESS))
    seen: list[bool] = []
    is_looking, may_go_on = threading.Event(), threading.Event()

    class WatchedCall(TranslateCall):
        def is_expired(self, now):
            is_looking.set()
            may_go_on.wait(10)
            return super().is_expired(now)

    first.submit(WatchedCall([(7, 8)], ENDLESS))
    thread = threading.Thread(target=first.advance, args=[True])
    thread.start()
    assert is_looking.wait(10)
    seen.append(second.has_work)
    may_go_on.set()
    thread.join(10)
    assert seen == [True]
    assert second.has_work
