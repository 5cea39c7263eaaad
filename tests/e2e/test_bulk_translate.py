"""BulkTranslate over the wire: order, faults, settings, bounds and the server's reports."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from attendant.v1 import text_pb2, translation_pb2
from attendant.v1.translation_pb2 import (
    BulkTranslateRequest,
    Sampling,
    TranslateOptions,
    TranslateRequest,
)

from tests.support.bulk import Sender, num_unanswered, translate_requests, translate_text
from tests.support.serving import (
    TIMEOUT_SECONDS,
    TRANSLATION_MODEL,
    Running,
    failure_of,
    wait_until,
)

WORDS = ("the dog sees the king", "a cat", "the king", "the bird sees a dog and a cat")
TEXTS = [(str(i), f"{WORDS[i % len(WORDS)]} {i % 7}") for i in range(600)]
SAMPLED = TranslateOptions(num_hypotheses=2, sampling=Sampling(seed=3, first_index=4))
READS_NOTHING_UNASKED = [("grpc.http2.lookahead_bytes", 0), ("grpc.http2.bdp_probe", 0)]
"""Options of a client that leaves messages on the server until it reads them."""


def bulk(running: Running, requests: Any, **options: Any) -> Any:
    """A call in progress."""
    options = {"timeout": TIMEOUT_SECONDS} | options
    return running.translation.BulkTranslate(iter(requests), **options)


def failure(running: Running, requests: Any) -> Any:
    """The error of a call that must fail."""
    return failure_of(lambda: list(bulk(running, requests)))


def translations(running: Running, texts: list[str], **fields: Any) -> Any:
    """The translations of Translate, by distinct texts."""
    request = TranslateRequest(texts=texts, **fields)
    return running.translation.Translate(request, timeout=TIMEOUT_SECONDS).translations


def test_each_text_is_answered_with_its_id_in_order_and_as_by_translate(running: Running):
    responses = list(bulk(running, translate_requests(TEXTS)))
    assert [response.id for response in responses] == [text_id for text_id, _ in TEXTS]
    assert {response.model for response in responses} == {TRANSLATION_MODEL}
    assert all(response.token_counts.num_output_tokens > 0 for response in responses)
    assert all(response.timings.HasField("decode") for response in responses)
    distinct = sorted({text for _, text in TEXTS})
    expected = dict(zip(distinct, translations(running, distinct), strict=True))
    found = [response.translation.hypotheses[0].text for response in responses]
    assert found == [expected[text].hypotheses[0].text for _, text in TEXTS]


def test_faults_between_good_texts_are_in_their_results(running: Running):
    texts = [("a", "the dog"), ("b", "  "), ("a", "x" * 20_001), ("", "the king")]
    responses = list(bulk(running, translate_requests(texts)))
    assert [response.id for response in responses] == ["a", "b", "a", ""]
    errors = [response.translation.error for response in responses]
    assert [error.code for error in errors] == [0, 3, 3, 0]
    assert errors[1].message.startswith("text: is empty")
    assert errors[2].message == "text: at most 20000 characters, got 20001"
    assert {response.model for response in responses} == {TRANSLATION_MODEL}


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ([], "settings: must be in the first message"),
        ([translate_text("", "a")], "settings: must be in the first message"),
        ([BulkTranslateRequest()], "settings: must be in the first message"),
        (translate_requests(texts=["a"]), "texts: must be empty: each text has a message of"),
        (translate_requests(target_prefixes=["a"]), "target_prefixes: must be empty: each text"),
        (translate_requests(options=TranslateOptions(beam_size=99)), "options.beam_size: must be"),
        (translate_requests(markup=9), "markup: has no value 9"),
        (translate_requests(offset_unit=9), "offset_unit: has no value 9"),
        (
            translate_requests(splitting=text_pb2.SPLITTING_LINES, truncation=2),
            "truncation: is for texts that are not split only",
        ),
        (
            translate_requests(markup=text_pb2.MARKUP_HTML, return_sentences=True),
            "return_sentences: is for texts without markup only",
        ),
    ],
)
def test_bad_settings_end_the_call_by_their_name_before_a_text_is_read(
    running: Running, first: Any, message: str
):
    error = failure(running, [*first, translate_text("", "the dog")])
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(message)


def test_an_unknown_model_is_not_found(running: Running):
    error = failure(running, translate_requests(TEXTS[:2], model="none"))
    assert error.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (translate_requests(), "settings: must be in the first message only"),
        ([BulkTranslateRequest()], "text: must be in each message but the first"),
        ([translate_text("i" * 129, "a")], "text.id: at most 128 characters, got 129"),
    ],
)
def test_a_bad_message_ends_the_call_after_the_texts_before_it_were_answered(
    running: Running, bad: Any, message: str
):
    call = bulk(running, [*translate_requests(TEXTS[:3]), *bad, translate_text("", "a")])
    assert [next(call).id for _ in range(3)] == ["0", "1", "2"]
    error = failure_of(next, call)
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_settings_without_texts_are_a_call_without_answers(running: Running):
    assert list(bulk(running, translate_requests())) == []


def test_samples_and_offsets_are_those_of_one_call_with_all_texts(running: Running):
    texts = [text for _, text in TEXTS[:30]]
    fields = {
        "options": SAMPLED,
        "return_sentences": True,
        "offset_unit": text_pb2.OFFSET_UNIT_UTF16_UNITS,
    }
    responses = list(bulk(running, translate_requests([("", t) for t in texts], **fields)))
    expected = translations(running, texts, **fields)
    for response, translation in zip(responses, expected, strict=True):
        assert response.seed == 3
        for found, wanted in zip(
            response.translation.hypotheses, translation.hypotheses, strict=True
        ):
            assert found.text == wanted.text
            assert found.sentences == wanted.sentences


def test_samples_without_a_seed_have_the_same_one_in_all_responses(running: Running):
    options = TranslateOptions(sampling=Sampling())
    seeds = {r.seed for r in bulk(running, translate_requests(TEXTS[:5], options=options))}
    assert len(seeds) == 1


def test_an_answer_is_sent_before_the_next_text_comes(running: Running):
    sender = Sender(translate_requests(TEXTS[:1]))
    call = bulk(running, sender)
    assert next(call).id == "0"
    sender.send(translate_text("next", "a cat"))
    assert next(call).id == "next"
    sender.end()
    assert list(call) == []


def test_no_more_texts_than_one_call_may_have_are_read_while_none_is_answered(
    start: Callable[..., Running],
):
    running = start(max_texts=8)
    with running.held_engine():
        call = bulk(running, translate_requests(TEXTS))
        running.wait_for_queued(8)
        assert num_unanswered(running) == 8
        other = running.translation.Translate.future(TranslateRequest(texts=["a cat"]))
        running.wait_for_queued(9)  # the stream has not gone on meanwhile
        assert num_unanswered(running) == 8
    assert other.result().translations
    assert [response.id for response in call] == [text_id for text_id, _ in TEXTS]
    assert running.metric("attendant_held_bytes") == 0


def test_long_texts_are_read_one_after_the_other(start: Callable[..., Running]):
    running = start(max_text_characters=150_000)
    long_text = "the dog sees the king. " * 6000
    with running.held_engine():
        call = bulk(running, translate_requests([("a", long_text), ("b", "a cat")]))
        wait_until(lambda: num_unanswered(running) == 1)
        wait_until(lambda: running.metric("attendant_queued_texts", model=TRANSLATION_MODEL) > 100)
        assert num_unanswered(running) == 1
        call.cancel()
    wait_until(lambda: num_unanswered(running) == 0)


def is_stalled(running: Running) -> bool:
    """Whether a caller has not taken a response for a second."""
    calls = running.server._drain._calls.copy()
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
        call = bulk(slow, sender)
        wait_until(lambda: is_stalled(running))
        assert 0 < num_unanswered(running) <= 256
        assert running.metric("attendant_held_bytes") < 256 * 1000
        num_taken = sender.num_taken
        assert num_taken < 10_000
        assert len(translations(running, ["a cat"])) == 1
        assert sender.num_taken == num_taken
        assert [next(call).id for _ in range(1000)] == [text_id for text_id, _ in texts[:1000]]
        call.cancel()
    wait_until(lambda: num_unanswered(running) == 0)
    wait_until(lambda: running.metric("attendant_held_bytes") == 0)


def test_a_cancelled_call_leaves_no_text_behind(start: Callable[..., Running]):
    running = start()
    with running.held_engine():
        call = bulk(running, translate_requests(TEXTS))
        running.wait_for_queued(256)
        call.cancel()
        running.wait_for_queued(0)
    wait_until(lambda: num_unanswered(running) == 0)
    wait_until(lambda: running.metric("attendant_concurrent_calls") == 0)
    assert running.metric("attendant_held_bytes") == 0


def test_the_deadline_is_that_of_the_whole_call(start: Callable[..., Running]):
    running = start()
    with running.held_engine():
        call = bulk(running, translate_requests(TEXTS), timeout=0.5)
        assert failure_of(next, call).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        running.wait_for_queued(0)


def test_a_call_may_take_longer_than_one_text_may(start: Callable[..., Running]):
    running = start(max_request_seconds=0.5)
    sender = Sender(translate_requests())
    call = bulk(running, sender)
    give_up = time.monotonic() + 1.5
    while time.monotonic() < give_up:
        sender.send(translate_text("a", "a cat"))
        assert next(call).translation.hypotheses
    sender.end()
    assert list(call) == []


def test_a_text_that_takes_too_long_fails_alone(start: Callable[..., Running]):
    running = start(max_request_seconds=1.0)
    options = TranslateOptions(beam_size=8, min_output_tokens=40)
    slow_text = "the dog sees the king. " * 800
    sender = Sender(translate_requests([TEXTS[0], ("slow", slow_text)], options=options))
    call = bulk(running, sender)
    assert next(call).translation.hypotheses
    response = next(call)
    assert response.id == "slow"
    assert response.translation.error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    sender.send(translate_text("later", "a cat"))
    sender.end()
    assert [bool(response.translation.hypotheses) for response in call] == [True]


def test_a_call_without_texts_or_readers_ends_with_unavailable(start: Callable[..., Running]):
    running = start(max_request_seconds=0.3)
    error = failure_of(next, bulk(running, Sender(translate_requests())))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == "no text was read for 0.3 seconds"
    with grpc.insecure_channel(
        f"127.0.0.1:{running.server.port}", READS_NOTHING_UNASKED
    ) as channel:
        slow = Running(running.server, running.loop, channel)
        texts = [(str(i), f"the dog sees the king {i} " * 4) for i in range(20_000)]
        call = bulk(slow, Sender(translate_requests(texts)))
        wait_until(lambda: running.metric("attendant_concurrent_calls") == 0)
        error = failure_of(lambda: list(call))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == "no answer was read for 0.3 seconds"


def test_texts_wait_for_room_in_the_queue(start: Callable[..., Running]):
    running = start(max_texts=4, max_queued_texts=4)
    with ThreadPoolExecutor(4) as callers:
        calls = [callers.submit(lambda: list(bulk(running, translate_requests(TEXTS))))] * 4
        for call in calls:
            responses = call.result()
            assert [response.id for response in responses] == [text_id for text_id, _ in TEXTS]
            assert all(response.translation.hypotheses for response in responses)
    assert running.metric("attendant_refused_calls_total") == 0


def test_a_bulk_call_is_heavy_unless_its_caller_says_otherwise(start: Callable[..., Running]):
    running = start()
    for metadata, is_heavy in (((), True), ((("attendant-class", "interactive"),), False)):
        with running.held_engine():
            call = bulk(running, translate_requests(TEXTS[:2]), metadata=metadata)
            running.wait_for_queued(2)
            engine = running.server.engine
            assert engine is not None
            admission = engine._models[TRANSLATION_MODEL].schedulers[0]._queue._admission
            loads = {caller.is_bulk for caller in admission._loads if caller.name}
            assert loads == {is_heavy}
        assert len(list(call)) == 2
    error = failure_of(
        next, bulk(running, translate_requests(), metadata=(("attendant-class", "x"),))
    )
    assert error.details() == "attendant-class: must be interactive or bulk"


def test_texts_are_counted_as_they_are_answered_and_the_call_once(
    start: Callable[..., Running], caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    running = start()
    sender = Sender(translate_requests([*TEXTS[:3], ("", " ")]))
    call = bulk(running, sender)
    responses = [next(call) for _ in range(4)]
    labels = {"model": TRANSLATION_MODEL}
    wait_until(lambda: running.metric("attendant_caller_texts_total") == 4)
    num_tokens = sum(response.token_counts.num_input_tokens for response in responses)
    assert running.metric("attendant_caller_tokens_total") == num_tokens
    assert running.metric("attendant_invalid_texts_total", **labels) == 1
    name, method = "attendant_queue_seconds_count", {"method": "BulkTranslate"}
    assert running.metric(name, **labels, **method) == 3
    assert running.metric("attendant_calls_total", **labels, **method) == 0
    sender.end()
    assert list(call) == []
    wait_until(lambda: running.metric("attendant_calls_total", **labels, **method) == 1)
    assert running.metric("attendant_caller_texts_total") == 4
    assert running.metric("attendant_invalid_texts_total", **labels) == 1
    wait_until(lambda: "method=attendant.v1.TranslationService/BulkTranslate" in caplog.text)
    [line] = [r.getMessage() for r in caplog.records if "BulkTranslate" in r.getMessage()]
    num_output = sum(response.token_counts.num_output_tokens for response in responses)
    assert f" texts=4 input_tokens={num_tokens} output_tokens={num_output} " in line
    assert f" model={TRANSLATION_MODEL} code=OK " in line


@pytest.mark.parametrize("seed", range(3))
def test_streams_among_random_calls_get_what_they_get_alone(running: Running, seed: int):
    rng = random.Random(seed)

    def some_bulk() -> tuple[Any, ...]:
        texts = rng.sample(TEXTS, rng.randint(1, 300))
        options = TranslateOptions(beam_size=rng.choice([1, 1, 3]))
        return texts, options

    def answered(texts: Any, options: TranslateOptions) -> list[tuple[str, str]]:
        responses = bulk(running, translate_requests(texts, options=options))
        return [(r.id, r.translation.hypotheses[0].text) for r in responses]

    def alone(texts: Any, options: TranslateOptions) -> list[tuple[str, str]]:
        distinct = sorted({text for _, text in texts})
        found = translations(running, distinct, options=options)
        by_text = dict(zip(distinct, [each.hypotheses[0].text for each in found], strict=True))
        return [(text_id, by_text[text]) for text_id, text in texts]

    calls = [some_bulk() for _ in range(8)]
    expected = [alone(*call) for call in calls]
    with ThreadPoolExecutor(16) as callers:
        singles = [callers.submit(translations, running, ["the king"]) for _ in range(40)]
        assert list(callers.map(lambda call: answered(*call), calls)) == expected
        assert all(len(single.result()) == 1 for single in singles)


def test_responses_do_not_hold_what_was_not_asked_for(running: Running):
    [response] = bulk(running, translate_requests(TEXTS[:1]))
    assert not response.HasField("seed")
    assert not response.translation.hypotheses[0].tokens
    assert (
        translation_pb2.BulkTranslateResponse.FromString(response.SerializeToString()) == response
    )
