"""Requests and results of the calls of both clients."""

import asyncio
import math

import pytest
from attendant.v1 import model_pb2, text_pb2
from attendant_client import (
    AsyncClient,
    CallCancelledError,
    CallReport,
    InvalidRequestError,
    NotFoundError,
    Sampling,
    ServerError,
    TextError,
    WordAlignment,
)
from grpc import StatusCode

from tests.client.script import Fault


def test_one_string_gives_one_translation(client):
    translation = client.translate("a dog")
    assert translation.text == "A DOG"
    assert translation.hypotheses[0].finish_reason == "stop"
    assert translation.hypotheses[0].tokens == ()
    assert translation.num_source_tokens == 3
    assert translation.truncation is None


def test_several_texts_give_translations_in_their_order(client):
    translations = client.translate(("a", "b", "c"))
    assert [translation.text for translation in translations] == ["A", "B", "C"]


def test_results_carry_the_report_of_their_call(client):
    assert client.translate("a", request_id="id-7").call == CallReport(
        model="upper/1",
        num_input_tokens=3,
        num_output_tokens=4,
        queue_seconds=0.005,
        tokenize_seconds=None,
        encode_seconds=1.0,
        decode_seconds=None,
        request_id="id-7",
    )


def test_options_that_are_not_given_are_not_sent(client, script):
    client.translate("a")
    (request,) = script.requests
    assert not request.options.ListFields()
    assert request.truncation == text_pb2.TRUNCATION_REFUSE


def test_options_that_are_given_are_sent(client, script):
    translation = client.translate(
        "a",
        model="upper/1",
        beam_size=4,
        num_hypotheses=2,
        length_penalty=0.0,
        max_output_tokens=9,
        min_output_tokens=0,
        truncation="right",
    )
    (request,) = script.requests
    assert request.model == "upper/1"
    assert len(request.options.ListFields()) == 5
    assert [hypothesis.text for hypothesis in translation.hypotheses] == ["A", "A!"]
    assert translation.truncation.truncation == "right"
    assert translation.truncation.num_kept_tokens == 5


def test_the_seed_of_samples_is_reported(client, script):
    assert client.translate("a").call.seed is None
    script.change = lambda response: setattr(response, "seed", 7)
    sampling = Sampling(temperature=0.5, top_k=9, seed=7)
    assert client.translate("a", sampling=sampling).call.seed == 7
    sent = script.requests[-1].options.sampling
    assert (sent.temperature, sent.top_k, sent.seed) == (0.5, 9, 7)
    assert [each.name for each, _ in sent.ListFields()] == ["temperature", "top_k", "seed"]


def test_parts_of_a_call_have_one_seed_and_the_places_of_their_texts(client, script):
    script.max_texts = 2
    client.translate(["a", "b", "c"], sampling=Sampling(first_index=5))
    client.translate("a", sampling=Sampling())
    *parts, alone = [request.options.sampling for request in script.requests]
    assert [(each.first_index, each.HasField("seed")) for each in parts[1:]] == [
        (5, True),
        (7, True),
    ]
    assert len({each.seed for each in parts}) == 1
    assert not alone.HasField("seed")


def test_target_prefixes_are_sent_with_their_texts(client, script):
    client.translate(["a", "b"], target_prefix=["", "B"])
    client.translate("a", target_prefix="A")
    assert [list(request.target_prefixes) for request in script.requests] == [["", "B"], ["A"]]
    script.max_texts = 1
    client.translate(["a", "b"], target_prefix=["A", "B"])
    assert [list(request.target_prefixes) for request in script.requests[-2:]] == [["A"], ["B"]]
    with client.stream_translate("a", target_prefix="A") as stream:
        list(stream)
    assert script.requests[-1].target_prefix == "A"


def test_the_error_of_a_target_prefix_says_so(client, script):
    bad, good = client.translate(["a", "b"], target_prefix=["\ud800", "B"])
    assert bad.error.message.startswith("target_prefix: ")
    assert good.text == "B"


@pytest.mark.parametrize(
    ("method", "arguments", "options"),
    [
        ("translate", ["a"], {"truncation": "middle"}),
        ("translate", ["a"], {"beam_size": -1}),
        ("translate", [["a"]], {"target_prefix": ["A", "B"]}),
        ("translate", ["a"], {"sampling": Sampling(seed=-1)}),
        ("translate", ["a"], {"request_id": "two words"}),
        ("translate", ["a"], {"request_id": ""}),
        ("classify", [["a"]], {"text_pairs": ["a", "b"]}),
        ("translate", ["a"], {"timeout_seconds": 0}),
        ("translate", ["a"], {"timeout_seconds": float("inf")}),
        ("embed", ["a"], {"pooling": "min"}),
        ("tokenize", ["a"], {"side": "left"}),
    ],
)
def test_values_that_no_server_takes_are_refused_before_they_are_sent(
    client, script, method, arguments, options
):
    with pytest.raises(ValueError):
        getattr(client, method)(*arguments, **options)
    assert not script.calls


def test_a_text_that_fails_raises_its_index_and_reason_when_asked_for(client):
    results = client.translate(["a", " ", ""])
    assert [error.index for error in results.errors] == [1, 2]
    with pytest.raises(TextError) as caught:
        results.raise_for_errors()
    assert caught.value.index == 1
    assert caught.value.code is StatusCode.INVALID_ARGUMENT
    assert str(caught.value) == "text 1: the text is empty"


def test_the_error_of_a_text_is_in_its_result(client):
    good, bad = client.translate(["a", " "])
    assert good.raise_for_errors().text == "A"
    assert bad.error.index == 1
    assert bad.hypotheses == ()
    with pytest.raises(TextError):
        _ = bad.text


def test_scores_have_a_log_probability_for_every_token(client):
    (plain,) = client.score([("a dog", "Hund")])
    assert (plain.log_probabilities, plain.tokens) == ((), ())
    (score,) = client.score([("a dog", "Hund")], length_penalty=0.5, return_tokens=True)
    assert score.log_probabilities == (-0.5, -1.5)
    assert [token.text for token in score.tokens] == ["Hund", "</s>"]
    assert score.tokens[1].special
    assert (score.score, score.log_probability) == (-1.0, -2.0)


def test_translations_and_scores_have_links_of_words_only_if_wanted(client):
    link = WordAlignment(0, 1, 0, 1, 0.5)
    assert client.translate("a").hypotheses[0].alignments == ()
    assert client.translate("a", return_alignments=True).hypotheses[0].alignments == (link,)
    stream = client.stream_translate("a", return_alignments=True)
    assert [*stream] == ["A"]
    assert stream.translation.hypotheses[0].alignments == (link,)
    assert client.score([("a", "b")])[0].alignments == ()
    assert client.score([("a", "b")], return_alignments=True)[0].alignments == (link,)


def test_a_pair_that_fails_has_no_score(client):
    good, bad = client.score([("a", "b"), ("a", "")])
    assert (good.score, good.error) == (-1.0, None)
    assert math.isnan(bad.score)
    assert math.isnan(bad.log_probability)
    with pytest.raises(TextError, match="text 1"):
        bad.raise_for_errors()


def test_tokenize_returns_the_tokens_of_the_chosen_side(client, script):
    tokenization = client.tokenize("a dog", side="target")
    assert [token.text for token in tokenization.tokens] == ["a", "dog", "</s>"]
    assert tokenization.model == "upper/1"
    assert script.requests[0].side == model_pb2.TEXT_SIDE_TARGET


def test_models_are_listed_with_kind_and_state(client):
    upper, vectors = client.models()
    assert (upper.kind, upper.state, upper.is_default) == ("translation", "ready", True)
    assert (vectors.kind, vectors.state, vectors.languages) == (
        "embedding",
        "loading",
        ("en", "de"),
    )


def test_model_tells_limits_sizes_and_quality(client):
    model = client.model("upper")
    assert model.info.name == "upper"
    assert model.limits.max_source_tokens == 128
    assert model.request_limits.max_texts == 64
    assert model.sizes["d_model"] == 256
    assert model.default_pooling == ""
    assert model.quality[0].value == 22.5
    assert model.provenance["seed"] == 1
    assert model.parity["precisions"][0]["precision"] == "int8"


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(NotFoundError, match="there is no model 'nothing'"):
        client.model("nothing")


def test_health_is_told_for_the_server_and_for_a_service(client):
    assert client.health() == "serving"
    assert client.health("attendant.v1.EmbeddingService") == "not_serving"
    with pytest.raises(NotFoundError):
        client.health("nothing")


def test_stream_gives_pieces_and_then_the_whole_translation(client):
    stream = client.stream_translate("one two three")
    assert list(stream) == ["ONE ", "TWO ", "THREE"]
    assert stream.translation.text == "ONE TWO THREE"
    assert stream.translation.call.model == "upper/1"


def test_stream_that_was_not_read_to_its_end_has_no_translation(client):
    with client.stream_translate("one two three") as stream:
        assert next(stream) == "ONE "
    with pytest.raises(RuntimeError):
        _ = stream.translation


def test_closing_a_stream_cancels_its_call(client, script):
    stream = client.stream_translate("a slow text")
    next(stream)
    stream.close()
    assert script.ended.wait(10)
    assert list(stream) == []


def test_closing_a_client_cancels_its_streams(client, script):
    stream = client.stream_translate("a slow text")
    next(stream)
    client.close()
    assert script.ended.wait(10)
    with pytest.raises(CallCancelledError):
        list(stream)


def test_cancelling_a_task_cancels_its_call(address, script):
    async def cancel_early():
        async with AsyncClient(address) as client:
            task = asyncio.create_task(client.translate("a slow text"))
            assert await asyncio.to_thread(script.reached.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await asyncio.to_thread(script.ended.wait, 10)

    assert asyncio.run(cancel_early())


def test_metadata_goes_with_every_call(connect, script):
    client = connect(metadata=[("x-tag", "7")])
    client.translate("a")
    list(client.stream_translate("a b"))
    assert [metadata["x-tag"] for metadata in script.metadata] == ["7", "7"]


def drop_a_result(response):
    del response.results[0]


def drop_a_byte(response):
    response.embeddings.data = response.embeddings.data[:-1]


def forget_the_type(response):
    response.embeddings.ClearField("dtype")


def flatten(response):
    del response.embeddings.shape[:]
    response.embeddings.shape.append(3)


@pytest.mark.parametrize("change", [drop_a_result, drop_a_byte, forget_the_type, flatten])
def test_an_answer_that_breaks_the_contract_is_a_server_error(client, script, change):
    script.change = change
    with pytest.raises(ServerError, match="the server's answer is wrong"):
        client.embed(["a"])


def test_a_stream_without_its_translation_is_a_server_error(client, script):
    script.change = lambda response: response.ClearField("translation")
    with pytest.raises(ServerError, match="ended without its result"):
        list(client.stream_translate("one two"))


def test_a_translation_without_hypotheses_is_a_server_error(client, script):
    script.change = lambda response: response.translations[0].ClearField("hypotheses")
    with pytest.raises(ServerError, match="neither hypotheses nor an error"):
        client.translate("a")


def test_a_value_that_the_server_refuses_is_an_invalid_request(client, script):
    script.faults = [Fault(StatusCode.INVALID_ARGUMENT.value[0], "beam_size is at most 8")]
    with pytest.raises(InvalidRequestError, match="beam_size is at most 8"):
        client.translate("a", beam_size=9)


def test_metadata_names_the_model_of_a_call_for_proxies(connect, script):
    client = connect()
    client.translate("eins", model="tiny/1")
    client.stream_translate("eins", model="tiny/1").close()
    list(client.bulk_translate(["eins"], model="tiny/1"))
    assert {metadata.get("attendant-model") for metadata in script.metadata} == {"tiny/1"}


@pytest.mark.parametrize("name", ["", "ä", "a\nb", "x" * 257])
def test_metadata_names_no_model_that_it_cannot_carry(connect, script, name):
    connect().translate("eins", model=name)
    assert "attendant-model" not in script.metadata[0]


def test_the_callers_own_metadata_may_choose_other_servers(connect, script):
    connect(metadata=[("attendant-model", "mine")]).translate("eins", model="tiny")
    assert script.metadata[0]["attendant-model"] == "mine"
