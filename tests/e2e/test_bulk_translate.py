"""BulkTranslate over the wire: order, faults, settings, bounds and the server's reports."""

import random
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

from tests.support.bulk import (
    TEXTS,
    Sender,
    bulk_texts,
    bulk_translate,
    each_result,
    translate_requests,
    translate_text,
    translations,
)
from tests.support.serving import (
    TRANSLATION_MODEL,
    Running,
    failure_of,
    wait_until,
)

SAMPLED = TranslateOptions(num_hypotheses=2, sampling=Sampling(seed=3, first_index=4))


def failure(running: Running, requests: Any) -> Any:
    """The error of a call that must fail."""
    return failure_of(lambda: list(bulk_translate(running, requests)))


@pytest.mark.parametrize("together", [1, 32, 600])
def test_each_text_is_answered_with_its_id_in_order_and_as_by_translate(
    running: Running, together: int
):
    responses = list(bulk_translate(running, translate_requests(TEXTS, together)))
    answers = [response.answer for response in responses]
    assert {answer.model for answer in answers} == {TRANSLATION_MODEL}
    assert all(answer.token_counts.num_output_tokens > 0 for answer in answers)
    assert all(answer.timings.HasField("decode") for answer in answers)
    assert max(len(response.ids) for response in responses) == min(together, 32)
    results = list(each_result(responses))
    assert [result.id for result in results] == [text_id for text_id, _ in TEXTS]
    distinct = sorted({text for _, text in TEXTS})
    expected = dict(zip(distinct, translations(running, distinct), strict=True))
    found = [result.result.hypotheses[0].text for result in results]
    assert found == [expected[text].hypotheses[0].text for _, text in TEXTS]


@pytest.mark.parametrize("together", [1, 4])
def test_faults_between_good_texts_are_in_their_results(running: Running, together: int):
    texts = [("a", "the dog"), ("b", "  "), ("a", "x" * 20_001), ("", "the king")]
    results = list(each_result(bulk_translate(running, translate_requests(texts, together))))
    assert [result.id for result in results] == ["a", "b", "a", ""]
    errors = [result.result.error for result in results]
    assert [error.code for error in errors] == [0, 3, 3, 0]
    assert errors[1].message.startswith("text: is empty")
    assert errors[2].message == "text: at most 20000 characters, got 20001"
    assert {result.answer.model for result in results} == {TRANSLATION_MODEL}


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ([], "settings: must be in the first message"),
        ([translate_text("", "a")], "settings: must be in the first message"),
        ([BulkTranslateRequest()], "settings: must be in the first message"),
        (
            [BulkTranslateRequest(settings=TranslateRequest(), texts=bulk_texts(("a", "b")))],
            "texts: must be empty in the first message",
        ),
        (translate_requests(texts=["a"]), "texts: must be empty: the texts are in later messages"),
        (translate_requests(target_prefixes=["a"]), "target_prefixes: must be empty: the texts"),
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
        ([BulkTranslateRequest()], "texts: must be in each message but the first, at least 1"),
        (
            [BulkTranslateRequest(texts=bulk_texts(*[("", "a")] * 1025))],
            "texts: at most 1024 in a message, got 1025",
        ),
        (
            [BulkTranslateRequest(texts=bulk_texts(("3", "a"), ("i" * 129, "a"), ("", "a")))],
            "texts[1].id: at most 128 characters, got 129",
        ),
        ([translate_text("i" * 129, "a")], "texts[0].id: at most 128 characters, got 129"),
    ],
)
def test_a_bad_message_ends_the_call_after_the_texts_before_it_were_answered(
    running: Running, bad: Any, message: str
):
    call = bulk_translate(running, [*translate_requests(TEXTS[:3]), *bad, translate_text("", "a")])
    answered: list[str] = []
    error = failure_of(lambda: answered.extend(id_ for each in call for id_ in each.ids))
    assert answered == ["0", "1", "2", "3"][: 4 if "[1]" in message else 3]
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_settings_without_texts_are_a_call_without_answers(running: Running):
    assert list(bulk_translate(running, translate_requests())) == []


@pytest.mark.parametrize("together", [1, 7])
def test_samples_and_offsets_are_those_of_one_call_with_all_texts(running: Running, together: int):
    texts = [text for _, text in TEXTS[:30]]
    fields = {
        "options": SAMPLED,
        "return_sentences": True,
        "offset_unit": text_pb2.OFFSET_UNIT_UTF16_UNITS,
    }
    requests = translate_requests([("", t) for t in texts], together, **fields)
    results = list(each_result(bulk_translate(running, requests)))
    expected = translations(running, texts, **fields)
    for result, translation in zip(results, expected, strict=True):
        assert result.answer.seed == 3
        for found, wanted in zip(result.result.hypotheses, translation.hypotheses, strict=True):
            assert found.text == wanted.text
            assert found.sentences == wanted.sentences


def test_samples_without_a_seed_have_the_same_one_in_all_responses(running: Running):
    options = TranslateOptions(sampling=Sampling())
    seeds = {
        r.answer.seed
        for r in bulk_translate(running, translate_requests(TEXTS[:5], options=options))
    }
    assert len(seeds) == 1


def test_an_answer_is_sent_before_the_next_text_comes(running: Running):
    sender = Sender(translate_requests(TEXTS[:1]))
    call = bulk_translate(running, sender)
    assert next(call).ids == ["0"]
    sender.send(translate_text("next", "a cat"))
    assert next(call).ids == ["next"]
    sender.end()
    assert list(call) == []


def test_texts_are_counted_as_they_are_answered_and_the_call_once(
    start: Callable[..., Running], caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    running = start()
    sender = Sender(translate_requests([*TEXTS[:3], ("", " ")]))
    call = bulk_translate(running, sender, metadata=(("x-request-id", "counted"),))
    responses = [next(call) for _ in range(4)]
    labels = {"model": TRANSLATION_MODEL}
    wait_until(lambda: running.metric("attendant_caller_texts_total") == 4)
    counts = [response.answer.token_counts for response in responses]
    num_tokens = sum(count.num_input_tokens for count in counts)
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
    wait_until(lambda: " request_id=counted " in caplog.text)
    [line] = [r.getMessage() for r in caplog.records if "=counted " in r.getMessage()]
    num_output = sum(count.num_output_tokens for count in counts)
    assert f" texts=4 input_tokens={num_tokens} output_tokens={num_output} " in line
    assert f" model={TRANSLATION_MODEL} code=OK " in line


@pytest.mark.parametrize("seed", range(3))
def test_streams_among_random_calls_get_what_they_get_alone(running: Running, seed: int):
    rng = random.Random(seed)

    def some_bulk() -> tuple[Any, ...]:
        texts = rng.sample(TEXTS, rng.randint(1, 300))
        options = TranslateOptions(beam_size=rng.choice([1, 1, 3]))
        return texts, rng.choice([1, 5, 40]), options

    def answered(texts: Any, together: int, options: TranslateOptions) -> list[tuple[str, str]]:
        requests = translate_requests(texts, together, options=options)
        results = each_result(bulk_translate(running, requests))
        return [(r.id, r.result.hypotheses[0].text) for r in results]

    def alone(texts: Any, _: int, options: TranslateOptions) -> list[tuple[str, str]]:
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
    [response] = bulk_translate(running, translate_requests(TEXTS[:1]))
    assert not response.answer.HasField("seed")
    assert not response.answer.translations[0].hypotheses[0].tokens
    assert (
        translation_pb2.BulkTranslateResponse.FromString(response.SerializeToString()) == response
    )


def test_a_text_that_fails_with_others_of_its_message_fails_alone(
    start: Callable[..., Running],
):
    running = start(max_response_bytes=2048)
    texts = [("a", "the dog"), ("b", "the dog sees the king. " * 60), ("c", "a cat")]
    options = TranslateOptions(return_tokens=True)
    requests = translate_requests(texts, together=3, options=options)
    results = list(each_result(bulk_translate(running, requests)))
    assert [result.id for result in results] == ["a", "b", "c"]
    assert [result.result.error.code for result in results] == [0, 3, 0]
    message = results[1].result.error.message
    assert message.startswith("texts: the answer could take")
    wait_until(lambda: running.metric("attendant_caller_texts_total") == 3)
