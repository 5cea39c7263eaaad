"""Calls of more texts than the server takes, and texts that cannot be sent."""

import pytest
from attendant_client import InvalidRequestError, NotFoundError, TextError, calls
from google.rpc import code_pb2

from tests.client.script import Fault

TOO_LARGE = "Received message larger than max (5000000 vs. 4194304)"


def sizes(script):
    return [len(request.texts) for request in script.requests]


def test_more_texts_than_the_server_takes_are_sent_in_several_calls(client, script):
    script.max_texts = 4
    texts = [f"text {number}" for number in range(10)]
    assert [each.text for each in client.translate(texts)] == [text.upper() for text in texts]
    assert sizes(script) == [10, 4, 4, 2]
    client.embed(texts)
    assert sizes(script)[4:] == [4, 4, 2]  # the client knows the limit


def test_more_texts_than_servers_take_by_default_are_not_tried(client, script):
    assert len(client.tokenize(["a"] * 600)) == 600
    assert sizes(script) == [256, 256, 88]


def test_the_parts_of_a_call_have_one_request_id(client, script):
    client.tokenize(["a"] * 257, request_id="mine")
    assert [metadata["x-request-id"] for metadata in script.metadata] == ["mine", "mine"]


def test_errors_count_the_texts_of_all_parts(client, script):
    script.max_texts = 2
    results = client.translate(["a", "b", "c", "", "e"])
    assert [error.index for error in results.errors] == [3]
    assert str(results[3].error) == "text 3: the text is empty"


def test_pairs_are_split_together(client, script):
    script.max_texts = 2
    assert len(client.score([("a", "b")] * 5)) == 5
    client.classify(["a", "b", "c"], ["d", "e", "f"])
    assert [(*r.texts, *r.text_pairs) for r in script.requests[-2:]] == [
        ("a", "b", "d", "e"),
        ("c", "f"),
    ]


def test_requests_are_split_by_their_bytes(client, script, monkeypatch):
    monkeypatch.setattr(calls, "MAX_REQUEST_BYTES", 100)
    client.translate(["x" * 40] * 5)
    assert sum(sizes(script)) == 5
    assert all(request.ByteSize() <= 100 for request in script.requests)


def test_a_call_with_too_large_an_answer_is_halved(client, script):
    script.faults = [Fault(code_pb2.RESOURCE_EXHAUSTED, TOO_LARGE)]
    assert [each.text for each in client.translate(["a", "b", "c"])] == ["A", "B", "C"]
    assert sizes(script) == [1, 2]


def test_a_text_that_is_too_large_alone_fails_alone(client, script):
    script.faults = [Fault(code_pb2.RESOURCE_EXHAUSTED, TOO_LARGE)] * 2
    large, small = client.embed(["large", "a"])
    assert large.error.message == TOO_LARGE
    assert small.vector.tolist() == [1, 1, 0]


def test_no_texts_need_no_call(client, script):
    assert client.translate([]) == []
    assert client.embed([]).vectors.shape == (0, 0)
    assert not script.calls


def test_other_faults_of_a_call_are_not_tried_in_parts(client, script):
    script.faults = [Fault(code_pb2.INVALID_ARGUMENT, "beam_size: at most 8")]
    with pytest.raises(InvalidRequestError):
        client.translate(["a", "b"])
    assert script.calls == ["Translate"]


def test_a_lone_surrogate_is_the_fault_of_its_text(client):
    problem = "has the lone surrogate U+D800 at character 2"
    good, bad = client.translate(["a", "b \ud800"])
    assert (good.text, bad.error.message, bad.error.index) == ("A", problem, 1)
    assert client.tokenize("b \ud800").error.message == problem
    (pair,) = client.score([("a", "b \ud800")])
    assert pair.error.message == f"target: {problem}"
    with pytest.raises(TextError, match=f"text 0: {problem}".replace("+", "[+]")):
        client.stream_translate("b \ud800")


@pytest.mark.parametrize("text", [b"bytes", None, 7])
def test_texts_of_other_types_are_type_errors(client, script, text):
    with pytest.raises(TypeError, match="a text must be a str"):
        client.translate(["a", text])
    assert not script.calls


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("texts[0]: at most 64 tokens, got 80", "at most 64 tokens, got 80"),
        ("pairs[0].target: is empty", "target: is empty"),
        ("text_pairs[0]: is empty", "second text: is empty"),
    ],
)
def test_messages_of_texts_do_not_count_within_a_part(client, script, message, shown):
    def fail(response):
        response.translations[0].Clear()
        response.translations[0].error.code = code_pb2.INVALID_ARGUMENT
        response.translations[0].error.message = message

    script.change = fail
    assert client.translate("a").error.message == shown


def test_errors_have_the_request_id(client, script):
    script.faults = [Fault(code_pb2.NOT_FOUND)]
    with pytest.raises(NotFoundError, match="as scripted") as caught:
        client.translate("a", request_id="mine")
    assert caught.value.request_id == "mine"
    assert caught.value.__notes__ == ["request id: mine"]
    failed = client.translate("").error
    assert failed.request_id == script.metadata[-1]["x-request-id"]
    assert failed.request_id != "mine"


def test_results_are_shown_in_a_line(client):
    good, bad = client.translate(["a dog", ""])
    assert repr(good) == "Translation('A DOG', score=-0.5000)"
    assert repr(bad) == "Translation(error='the text is empty')"
    assert len(repr(client.translate("a" * 5000))) < 120
    assert repr(client.embed("aab")) == "Embedding(dimension=3)"
    assert repr(client.score([("a", "b")])) == "[TranslationScore(score=-1.0000)]"
    assert repr(client.tokenize("a dog")) == "Tokenization('a dog </s>')"
    assert repr(client.fill_mask("[MASK]")) == "FilledText(best=['word1'])"
    assert repr(client.classify("a")) == "ClassifiedText(label='a', score=1.0000)"
    assert repr(client.embed_sparse("ab")) == "SparseEmbedding(num_weights=2)"
    assert repr(client.embed_tokens("a")) == "TokenEmbeddings(num_tokens=2, shape=(2, 3))"
