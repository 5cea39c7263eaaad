"""Bulk calls of both clients: order, ids, faults, lazy input, and calls that go on elsewhere."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedResponse
from attendant_client import (
    AsyncClient,
    CallCancelledError,
    DeadlineExceededError,
    InvalidRequestError,
    Sampling,
    ServerError,
    UnavailableError,
    bulk_calls,
    bulk_input,
)
from attendant_client.bulk_input import (
    MAX_MESSAGE_CHARACTERS,
    MAX_MESSAGE_TEXTS,
    MAX_UNANSWERED_TEXTS,
    AsyncBulkInput,
    BulkInput,
)
from attendant_client.calls import TextCall
from google.rpc import code_pb2

from tests.client.script import Fault
from tests.client.test_several_servers import Pair

UNAVAILABLE = Fault(code_pb2.UNAVAILABLE)
WORDS = [f"word {i}" for i in range(2000)]


def sent_texts(script: Any) -> list[str]:
    return [text.text for r in script.requests for text in getattr(r, "texts", ())]


def first_messages(script: Any) -> list[Any]:
    return [
        r.settings
        for r in script.requests
        if getattr(r, "HasField", None) and r.HasField("settings")
    ]


def test_results_are_in_the_order_of_the_texts_with_their_ids(client, script):
    found = list(client.bulk_translate([("x", "one"), ("", "two"), "three", ("x", "four")]))
    assert [each.text for each in found] == ["ONE", "TWO", "THREE", "FOUR"]
    assert [each.id for each in found] == ["x", "", "", "x"]
    assert found[0].call.model == "upper/1"
    assert script.calls == ["BulkTranslate"]
    [embedding] = client.bulk_embed([("y", "ab")])
    assert embedding.id == "y"
    np.testing.assert_array_equal(embedding.vector, [2, 1, 1])


def test_thousands_of_texts_go_through_one_call(client, script):
    assert [each.text for each in client.bulk_translate(WORDS)] == [w.upper() for w in WORDS]
    assert script.calls == ["BulkTranslate"]


def test_no_texts_send_no_call(client, script):
    assert list(client.bulk_translate([])) == []
    assert not script.calls


def test_faults_of_texts_are_in_their_results(client):
    found = list(client.bulk_translate(["a", "  ", "b\ud800", "c"]))
    assert [each.error is None for each in found] == [True, False, False, True]
    assert str(found[1].error) == "text 1: the text is empty"
    assert str(found[2].error) == "text 2: has the lone surrogate U+D800 at character 1"
    bad, good = client.bulk_embed([" ", "ab"])
    assert bad.error is not None
    assert bad.vector.shape == (0,)
    assert good.vector.shape == (3,)


def test_the_options_are_in_the_first_message_and_the_texts_are_not(client, script):
    list(client.bulk_translate(["a"], beam_size=4, num_hypotheses=2, markup="html"))
    [settings] = first_messages(script)
    assert settings.options.beam_size == 4
    assert list(settings.texts) == []
    [embedding] = client.bulk_embed(["a"], data_type="float32", dimensions=2)
    assert embedding.error is None
    assert first_messages(script)[1].dimensions == 2


@pytest.mark.parametrize("end", [2, 0, 1999])
def test_a_call_that_breaks_goes_on_with_the_texts_without_an_answer(client, script, end):
    script.breaks = {WORDS[end]: UNAVAILABLE, WORDS[end // 2]: UNAVAILABLE}
    found = [each.text for each in client.bulk_translate(WORDS)]
    assert found == [word.upper() for word in WORDS]
    num_breaks = len({end, end // 2})
    assert script.calls == ["BulkTranslate"] * (1 + num_breaks)
    answered = sent_texts(script)
    assert answered == WORDS  # those that were answered twice would be there twice


def test_a_call_goes_on_as_long_as_each_attempt_answers_a_text(client, script):
    script.breaks = dict.fromkeys(WORDS[1:20], UNAVAILABLE)
    found = [each.text for each in client.bulk_translate(WORDS[:30])]
    assert found == [word.upper() for word in WORDS[:30]]


def test_attempts_without_an_answer_are_as_many_as_the_policy_says(client, script):
    script.faults = [UNAVAILABLE] * 3
    with pytest.raises(UnavailableError):
        list(client.bulk_translate(["a"]))
    assert len(script.calls) == 3


def test_other_failures_end_the_call_after_the_results_before(client, script):
    script.breaks = {"c": Fault(code_pb2.INVALID_ARGUMENT, "options: bad")}
    results = client.bulk_translate(["a", "b", "c"])
    assert [next(results).text, next(results).text] == ["A", "B"]
    with pytest.raises(InvalidRequestError, match="options: bad"):
        next(results)
    assert script.calls == ["BulkTranslate"]


def test_a_call_goes_on_at_another_server(connect):
    pair = Pair()
    pair.scripts[0].breaks = dict.fromkeys(WORDS[::5], UNAVAILABLE)
    pair.scripts[1].breaks = dict.fromkeys(WORDS[3::5], UNAVAILABLE)
    try:
        found = connect(pair.list).bulk_translate(WORDS[:100])
        assert [each.text for each in found] == [word.upper() for word in WORDS[:100]]
        calls = [script.calls.count("BulkTranslate") for script in pair.scripts]
        assert min(calls) >= 2
    finally:
        for server in pair.servers:
            server.stop(None).wait()


def test_samples_of_later_texts_are_the_same_after_a_break(client, script):
    script.breaks = {"b": UNAVAILABLE}
    list(client.bulk_translate(["a", "b", "c"], sampling=Sampling(first_index=5)))
    first, second = (settings.options.sampling for settings in first_messages(script))
    assert (first.first_index, second.first_index) == (5, 6)
    assert first.HasField("seed")
    assert first.seed == second.seed


def taken(texts: BulkInput | AsyncBulkInput) -> str:
    [text] = texts.take(1)
    return text.text


def test_an_input_goes_on_after_all_of_its_texts_were_answered():
    texts = BulkInput(["a", "b"])
    reader = AsyncBulkInput(["a", "b"])

    async def read() -> list[str]:
        found = []
        while await reader.has_more():
            found.append(taken(reader))
        return found

    found = []
    while texts.has_more():
        found.append(taken(texts))
    assert found == asyncio.run(read()) == ["a", "b"]


def readers() -> list[threading.Thread]:
    """The threads that read the texts of calls."""
    return [thread for thread in threading.enumerate() if thread.name == "attendant-bulk"]


@pytest.mark.parametrize("num_results", [0, 1, 3])
def test_a_closed_call_leaves_no_thread(client, num_results: int):
    before = readers()
    with client.bulk_translate(itertools.repeat("a")) as results:
        assert len(list(itertools.islice(results, num_results))) == num_results
    assert readers() == before


def test_a_thread_that_waits_for_a_text_ends_with_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bulk_input, "MAX_CLOSING_SECONDS", 0)
    before, may_go_on = readers(), threading.Event()

    def slow() -> Iterator[str]:
        yield "a"
        may_go_on.wait()
        yield from itertools.repeat("b")

    texts = BulkInput(slow())
    assert texts.has_more()
    texts.close()
    [reader] = [thread for thread in readers() if thread not in before]
    may_go_on.set()
    reader.join(30)
    assert not reader.is_alive()


def test_the_source_of_texts_may_close_the_call():
    before = readers()

    def source() -> Iterator[str]:
        yield "a"
        texts.close()
        yield "b"

    texts = BulkInput(source())
    assert texts.has_more()
    for thread in readers():
        if thread not in before:
            thread.join(30)
            assert not thread.is_alive()
    assert [text.text for text in texts.take(2)] == ["a"]


def test_the_input_is_read_no_further_than_there_is_room(client, script):
    num_read = 0

    def endless() -> Iterator[str]:
        nonlocal num_read
        for i in itertools.count():
            num_read += 1
            yield f"text {i}"

    results = client.bulk_translate(endless())
    assert num_read == 0
    for i in range(20):
        assert next(results).text == f"TEXT {i}"
        assert num_read <= MAX_UNANSWERED_TEXTS + 5 + i + 1  # answers come in fives
    results.close()
    assert script.ended.wait(30)
    assert list(results) == []


def test_a_result_comes_before_the_next_text_is_there(client):
    may_go_on = threading.Event()

    def texts() -> Iterator[str]:
        yield "a"
        if not may_go_on.wait(30):
            raise TimeoutError
        yield "b"

    class Texts:
        async def __aiter__(self) -> AsyncIterator[str]:
            yield "a"
            if not await asyncio.to_thread(may_go_on.wait, 30):
                raise TimeoutError
            yield "b"

    is_blocking = type(client).__name__ == "Client"
    results = client.bulk_translate(texts() if is_blocking else Texts())
    assert next(results).text == "A"
    may_go_on.set()
    assert [each.text for each in results] == ["B"]


def test_what_the_input_raises_comes_after_the_results_before(client):
    def texts() -> Iterator[str]:
        yield "a"
        yield "b"
        raise OSError("the file is gone")

    results = client.bulk_translate(texts())
    assert [next(results).text, next(results).text] == ["A", "B"]
    with pytest.raises(OSError, match="the file is gone"):
        next(results)


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (3, TypeError),
        (("i", "a", "b"), TypeError),
        ((3, "a"), TypeError),
        (("i" * 129, "a"), ValueError),
        (("i\ud800", "a"), ValueError),
    ],
)
def test_an_item_that_is_no_text_ends_the_call_after_the_results_before(client, item, error):
    results = client.bulk_translate(["a", item, "b"])
    assert next(results).text == "A"
    with pytest.raises(error, match="text"):
        next(results)


def test_one_string_is_not_taken_for_texts_of_one_character(client, script):
    with pytest.raises(TypeError, match="not one str"):
        client.bulk_translate("abc")
    assert not script.calls


def test_there_is_no_deadline_unless_one_is_given(client, script):
    with pytest.raises(DeadlineExceededError):
        list(client.bulk_translate(["a slow text"], timeout_seconds=0.2))
    list(client.bulk_translate(["a"]))
    assert script.time_left[-1] is None or script.time_left[-1] > 10**6


def test_closing_a_client_cancels_its_bulk_calls(connect, script):
    client = connect()
    results = client.bulk_translate(["a", "a slow text", "b"])
    assert next(results).text == "A"
    threading.Timer(0.1, client.close).start()
    with pytest.raises(CallCancelledError):
        list(results)
    assert script.ended.wait(30)


def test_responses_to_other_texts_are_an_error(client, script):
    script.change = lambda response: response.ids.__setitem__(0, "other")
    with pytest.raises(ServerError, match="the id of another text"):
        list(client.bulk_translate([("mine", "a")]))


def test_an_asyncio_client_reads_asynchronous_texts_through_breaks(address, script):
    script.breaks = {WORDS[3]: UNAVAILABLE, WORDS[40]: UNAVAILABLE}

    async def texts() -> AsyncIterator[tuple[str, str]]:
        for i, word in enumerate(WORDS[:60]):
            await asyncio.sleep(0)
            yield str(i), word

    async def found() -> list[tuple[str, str]]:
        async with AsyncClient(address) as client:
            return [(each.id, each.text) async for each in client.bulk_translate(texts())]

    assert asyncio.run(found()) == [(str(i), w.upper()) for i, w in enumerate(WORDS[:60])]


def test_a_text_that_is_too_large_for_a_message_fails_alone(client):
    large = "x" * (5 * 1024 * 1024)
    found = list(client.bulk_translate(["a", large, "b"]))
    assert [each.error is None for each in found] == [True, False, True]
    assert "too many for a message" in str(found[1].error)


def messages_of(texts: list[str], is_blocking: bool = True) -> list[list[str]]:
    """The texts of each message of a call whose texts are all there."""
    template: TextCall[Any] = TextCall("Embed", EmbedRequest(), EmbedResponse, lambda *_: [])
    call = bulk_calls.bulk_embed(template)

    async def found() -> list[Any]:
        reader = AsyncBulkInput(texts)
        sent = reader.messages(call)
        reader.release()
        return [each async for each in sent]

    if is_blocking:
        reader = BulkInput(texts)
        sent = reader.messages(call)
        reader.release()
        assert reader.has_more()
        with reader._changed:
            reader._changed.wait_for(lambda: reader._has_ended, 30)
        messages: list[Any] = list(sent)
    else:
        messages = asyncio.run(found())
    assert messages[0].HasField("settings")
    return [[text.text for text in message.texts] for message in messages[1:]]


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_message_has_the_texts_that_are_there_as_far_as_they_are_short(is_blocking: bool):
    short, long_text = WORDS[:70], "x" * MAX_MESSAGE_CHARACTERS
    sizes = [len(each) for each in messages_of(short, is_blocking)]
    assert sizes == [MAX_MESSAGE_TEXTS, MAX_MESSAGE_TEXTS, 6]
    texts = ["a", long_text, long_text + "x", "b", "c"]
    assert messages_of(texts, is_blocking) == [["a"], [long_text], [long_text + "x"], ["b", "c"]]


def test_a_message_that_the_server_refuses_as_too_large_is_sent_text_by_text(client, script):
    script.breaks["c"] = Fault(
        code_pb2.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 8)"
    )
    found = list(client.bulk_translate(["a", "b", "c", "d"]))
    assert [each.text for each in found] == ["A", "B", "C", "D"]
    assert [each.error for each in found] == [None] * 4
    assert [len(r.texts) for r in script.requests if not r.HasField("settings")][-2:] == [1, 1]


def test_the_vectors_of_texts_that_failed_are_empty_beside_good_ones(client):
    good, bad, other = client.bulk_embed(["ab", " ", "b"])
    assert (good.vector.shape, bad.vector.shape, other.vector.shape) == ((3,), (0,), (3,))
    assert good.call.model == "vectors/1"
