"""Bounds of bulk calls: texts that are read, memory, time, room in the queue, and shares."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest

from tests.support.bulk import (
    READS_NOTHING_UNASKED,
    TEXTS,
    Sender,
    bulk_translate,
    each_result,
    num_unanswered,
    translate_requests,
    translate_text,
    translations,
)
from tests.support.serving import TRANSLATION_MODEL, Running, failure_of, wait_until


@pytest.mark.parametrize("together", [1, 3, 600])
def test_no_more_texts_than_one_call_may_have_are_begun_while_none_is_answered(
    start: Callable[..., Running], together: int
):
    running = start(max_texts=8)
    with running.held_engine():
        call = bulk_translate(running, translate_requests(TEXTS, together))
        running.wait_for_queued(8)
        assert num_unanswered(running) == 8
        other = running.translation.Translate.future(TranslateRequest(texts=["a cat"]))
        running.wait_for_queued(9)  # the stream has not gone on meanwhile
        assert num_unanswered(running) == 8
    assert other.result().translations
    assert [each.id for each in each_result(call)] == [text_id for text_id, _ in TEXTS]
    assert running.metric("attendant_held_bytes") == 0


def test_long_texts_are_read_one_after_the_other(start: Callable[..., Running]):
    running = start(max_text_characters=150_000)
    long_text = "the dog sees the king. " * 6000
    with running.held_engine():
        call = bulk_translate(running, translate_requests([("a", long_text), ("b", "a cat")]))
        wait_until(lambda: num_unanswered(running) == 1)
        wait_until(lambda: running.metric("attendant_queued_texts", model=TRANSLATION_MODEL) > 100)
        assert num_unanswered(running) == 1
        call.cancel()
    wait_until(lambda: num_unanswered(running) == 0)


def is_stalled(running: Running) -> bool:
    """Whether a caller has not taken a response for a second."""
    calls = running.server._tracker._calls.copy()
    return any(c.sending_since and time.monotonic() - c.sending_since > 1 for c in calls)


def test_a_caller_that_does_not_read_holds_little_and_delays_nobody(
    start: Callable[..., Running],
):
    running = start()
    texts = [(str(i), f"the dog sees the king {i} " * 4) for i in range(20_000)]
    sender = Sender(translate_requests(texts))
    with grpc.insecure_channel(
        f"127.0.0.1:{running.server.port}", READS_NOTHING_UNASKED
    ) as channel:
        slow = Running(running.server, running.loop, channel)
        call = bulk_translate(slow, sender)
        wait_until(lambda: is_stalled(running))
        assert 0 < num_unanswered(running) <= 256
        assert running.metric("attendant_held_bytes") < 256 * 1000
        assert len(translations(running, ["a cat"])) == 1
        assert sender.num_taken < 10_000  # what the windows of both sides hold
        assert [next(call).ids[0] for _ in range(1000)] == [text_id for text_id, _ in texts[:1000]]
        call.cancel()
    wait_until(lambda: num_unanswered(running) == 0)
    wait_until(lambda: running.metric("attendant_held_bytes") == 0)


def test_a_cancelled_call_leaves_no_text_behind(start: Callable[..., Running]):
    running = start()
    with running.held_engine():
        call = bulk_translate(running, translate_requests(TEXTS))
        running.wait_for_queued(256)
        call.cancel()
        running.wait_for_queued(0)
    wait_until(lambda: num_unanswered(running) == 0)
    wait_until(lambda: running.metric("attendant_concurrent_calls") == 0)
    assert running.metric("attendant_held_bytes") == 0


def test_the_deadline_is_that_of_the_whole_call(start: Callable[..., Running]):
    running = start()
    with running.held_engine():
        call = bulk_translate(running, translate_requests(TEXTS), timeout=0.5)
        assert failure_of(next, call).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        running.wait_for_queued(0)


def test_a_call_may_take_longer_than_one_text_may(start: Callable[..., Running]):
    running = start(max_request_seconds=0.5)
    sender = Sender(translate_requests())
    call = bulk_translate(running, sender)
    give_up = time.monotonic() + 1.5
    while time.monotonic() < give_up:
        sender.send(translate_text("a", "a cat"))
        assert next(call).answer.translations[0].hypotheses
    sender.end()
    assert list(call) == []


def test_a_text_that_takes_too_long_fails_alone(start: Callable[..., Running]):
    running = start(max_request_seconds=1.0)
    options = TranslateOptions(beam_size=8, min_output_tokens=40)
    slow_text = "the dog sees the king. " * 800
    sender = Sender(translate_requests([TEXTS[0], ("slow", slow_text)], options=options))
    call = bulk_translate(running, sender)
    assert next(call).answer.translations[0].hypotheses
    response = next(call)
    assert response.ids == ["slow"]
    assert response.answer.translations[0].error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    sender.send(translate_text("later", "a cat"))
    sender.end()
    assert [bool(each.result.hypotheses) for each in each_result(call)] == [True]


def test_a_call_without_texts_or_readers_ends_with_unavailable(start: Callable[..., Running]):
    running = start(max_request_seconds=0.3)
    error = failure_of(next, bulk_translate(running, Sender(translate_requests())))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == "no text was read for 0.3 seconds"
    with grpc.insecure_channel(
        f"127.0.0.1:{running.server.port}", READS_NOTHING_UNASKED
    ) as channel:
        slow = Running(running.server, running.loop, channel)
        texts = [(str(i), f"the dog sees the king {i} " * 4) for i in range(20_000)]
        call = bulk_translate(slow, Sender(translate_requests(texts)))
        wait_until(lambda: running.metric("attendant_concurrent_calls") == 0)
        error = failure_of(lambda: list(call))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == "no answer was read for 0.3 seconds"


def test_texts_wait_for_room_in_the_queue(start: Callable[..., Running]):
    running = start(max_texts=4, max_queued_texts=4)

    def ids(_: int) -> list[str]:
        results = list(each_result(bulk_translate(running, translate_requests(TEXTS[:200], 40))))
        assert all(each.result.hypotheses for each in results)
        return [each.id for each in results]

    with ThreadPoolExecutor(4) as callers:
        for found in callers.map(ids, range(4)):
            assert found == [text_id for text_id, _ in TEXTS[:200]]
    assert running.metric("attendant_refused_calls_total") == 0


def test_a_bulk_call_is_heavy_unless_its_caller_says_otherwise(start: Callable[..., Running]):
    running = start()
    for metadata, is_heavy in (((), True), ((("attendant-class", "interactive"),), False)):
        with running.held_engine():
            call = bulk_translate(running, translate_requests(TEXTS[:2]), metadata=metadata)
            running.wait_for_queued(2)
            engine = running.server.engine
            assert engine is not None
            admission = engine._models[TRANSLATION_MODEL].schedulers[0]._queue._admission
            loads = {caller.is_bulk for caller in admission._loads if caller.name}
            assert loads == {is_heavy}
        assert len(list(call)) == 2
    error = failure_of(
        next, bulk_translate(running, translate_requests(), metadata=(("attendant-class", "x"),))
    )
    assert error.details() == "attendant-class: must be interactive or bulk"
