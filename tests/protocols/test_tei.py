"""The services of Text Embeddings Inference beside the own protocol of a real server."""

from typing import Any

import grpc
import numpy as np
import pytest
from attendant.v1.embedding_pb2 import (
    ClassifyRequest,
    EmbedRequest,
    EmbedSparseRequest,
    EmbedTokensRequest,
)
from attendant.v1.model_pb2 import TokenizeRequest
from attendant_server import __version__
from attendant_vendored.tei import tei_pb2 as messages

from tests.support.serving import failure_of
from tests.support.tei import TeiStubs

TEXTS = ["The dog sees the king.", "The old cat.", "The old king"]
LONG = " ".join(TEXTS * 20)
RIGHT: Any = messages.TRUNCATION_DIRECTION_RIGHT
UNKNOWN: Any = 5
LEFT: Any = messages.TRUNCATION_DIRECTION_LEFT


def with_model(name):
    return {"metadata": [("attendant-model", name)]}


def numbers(response):
    """The vectors of an answer to Embed."""
    tensor = response.embeddings
    return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)


@pytest.mark.parametrize("normalize", [None, True, False])
def test_vectors_are_those_of_embed_and_normalized_unless_a_request_says_otherwise(
    running, tei, normalize
):
    given = {} if normalize is None else {"normalize": normalize}
    answer = tei.embed.Embed(messages.EmbedRequest(inputs=TEXTS[0], **given))
    own = running.embedding.Embed(EmbedRequest(texts=TEXTS[:1], normalize=normalize is not False))
    np.testing.assert_array_equal(answer.embeddings, numbers(own)[0])
    figures = answer.metadata
    assert figures.compute_chars == len(TEXTS[0])
    assert figures.compute_tokens == own.token_counts.num_input_tokens
    assert 0 < figures.inference_time_ns < figures.total_time_ns


def test_a_stream_has_a_vector_for_each_request_in_their_order(running, tei):
    texts = [f"{text} {number}" for number in range(40) for text in TEXTS]
    answers = list(tei.embed.EmbedStream(messages.EmbedRequest(inputs=text) for text in texts))
    own = running.embedding.Embed(EmbedRequest(texts=texts, normalize=True))
    found = [answer.embeddings for answer in answers]
    np.testing.assert_allclose(found, numbers(own), atol=1e-2)


@pytest.mark.parametrize(("direction", "truncation"), [(RIGHT, 2), (LEFT, 3)])
def test_long_texts_are_refused_or_truncated_on_request(running, tei, direction, truncation):
    failure = failure_of(tei.embed.Embed, messages.EmbedRequest(inputs=LONG))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith("inputs: at most ")
    request = messages.EmbedRequest(inputs=LONG, truncate=True, truncation_direction=direction)
    own = running.embedding.Embed(EmbedRequest(texts=[LONG], truncation=truncation, normalize=True))
    np.testing.assert_array_equal(tei.embed.Embed(request).embeddings, numbers(own)[0])


def test_dimensions_are_checked_as_for_embed(tei):
    request = messages.EmbedRequest(inputs=TEXTS[0], dimensions=10**6)
    failure = failure_of(tei.embed.Embed, request)
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith("dimensions: ")


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (messages.EmbedRequest(), "INVALID_ARGUMENT", "inputs: is empty"),
        (
            messages.EmbedRequest(inputs=TEXTS[0], truncation_direction=UNKNOWN),
            "INVALID_ARGUMENT",
            "truncation_direction: has no value 5",
        ),
        (
            messages.EmbedRequest(inputs=TEXTS[0], prompt_name="none"),
            "INVALID_ARGUMENT",
            "prompt_name: ",
        ),
    ],
)
def test_bad_requests_fail_and_end_a_stream(tei, request_, code, message):
    for failure in (
        failure_of(tei.embed.Embed, request_),
        failure_of(list, tei.embed.EmbedStream(iter([request_]))),
    ):
        assert failure.code().name == code
        assert failure.details().startswith(message)


def test_a_prompt_is_for_embed_only(tei):
    request = messages.EmbedAllRequest(inputs=TEXTS[0], prompt_name="query")
    assert failure_of(tei.embed.EmbedAll, request).code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_metadata_of_a_call_can_name_its_model(running, tei):
    request = messages.EmbedRequest(inputs=TEXTS[0])
    answer = tei.embed.Embed(request, **with_model("tiny-classifier/1"))
    own = running.embedding.Embed(
        EmbedRequest(model="tiny-classifier", texts=TEXTS[:1], normalize=True)
    )
    np.testing.assert_array_equal(answer.embeddings, numbers(own)[0])
    failure = failure_of(tei.embed.Embed, request, **with_model("none"))
    assert failure.code() is grpc.StatusCode.NOT_FOUND
    stream = tei.embed.EmbedStream(iter([request]), **with_model("none"))
    assert failure_of(list, stream).code() is grpc.StatusCode.NOT_FOUND
    failure = failure_of(tei.embed.Embed, request, **with_model("a" * 257))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_sparse_vectors_are_those_of_embed_sparse(running, tei):
    own = running.embedding.EmbedSparse(EmbedSparseRequest(texts=TEXTS)).results
    requests = [messages.EmbedSparseRequest(inputs=text) for text in TEXTS]
    whole = [tei.embed.EmbedSparse(request) for request in requests]
    for answers in (whole, list(tei.embed.EmbedSparseStream(iter(requests)))):
        for answer, result in zip(answers, own, strict=True):
            pairs = [(each.index, each.value) for each in answer.sparse_embeddings]
            assert pairs == list(zip(result.token_ids, result.weights, strict=True))


def test_vectors_of_tokens_are_those_of_embed_tokens(running, tei):
    own = running.embedding.EmbedTokens(EmbedTokensRequest(model="tiny-bert", texts=TEXTS)).results
    requests = [messages.EmbedAllRequest(inputs=text) for text in TEXTS]
    whole = [tei.embed.EmbedAll(request) for request in requests]
    for answers in (whole, list(tei.embed.EmbedAllStream(iter(requests)))):
        for answer, result in zip(answers, own, strict=True):
            found = [token.embeddings for token in answer.token_embeddings]
            np.testing.assert_allclose(found, numbers(result), atol=1e-2)


def test_labels_are_those_of_classify(running, tei):
    model = with_model("tiny-classifier")
    own = running.embedding.Classify(ClassifyRequest(texts=TEXTS, raw_scores=True)).results
    requests = [messages.PredictRequest(inputs=text, raw_scores=True) for text in TEXTS]
    whole = [tei.predict.Predict(request, **model) for request in requests]
    for answers in (whole, list(tei.predict.PredictStream(iter(requests), **model))):
        for answer, result in zip(answers, own, strict=True):
            found = [(each.label, each.score) for each in answer.predictions]
            assert found == [(each.label, each.score) for each in result.labels]


def test_labels_of_pairs_are_those_of_classify(running, tei):
    request = ClassifyRequest(texts=TEXTS, text_pairs=TEXTS[::-1])
    own = running.embedding.Classify(request).results
    pairs = zip(TEXTS, TEXTS[::-1], strict=True)
    requests = [messages.PredictPairRequest(inputs=pair) for pair in pairs]
    whole = [tei.predict.PredictPair(each) for each in requests]
    for answers in (whole, list(tei.predict.PredictPairStream(iter(requests)))):
        found = [[each.label for each in answer.predictions] for answer in answers]
        assert found == [[each.label for each in result.labels] for result in own]
    for texts in ([], TEXTS[:1], TEXTS):
        failure = failure_of(tei.predict.PredictPair, messages.PredictPairRequest(inputs=texts))
        assert failure.details() == f"inputs: must be 2 texts, got {len(texts)}"


def test_a_model_without_the_head_of_a_method_is_a_failed_precondition(tei):
    request = messages.PredictRequest(inputs=TEXTS[0])
    failure = failure_of(tei.predict.Predict, request, **with_model("tiny-bert"))
    assert failure.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_tokens_are_those_of_tokenize_with_offsets_in_bytes(running, tei):
    text = "The kïng"
    own = running.models.Tokenize(TokenizeRequest(model="tiny-bert", texts=[text]))
    request = messages.EncodeRequest(inputs=text, add_special_tokens=True)
    [answer] = tei.tokenize.TokenizeStream(iter([request]))
    assert answer == tei.tokenize.Tokenize(request)
    tokens = own.results[0].tokens
    assert [token.id for token in answer.tokens] == [token.id for token in tokens]
    assert [token.special for token in answer.tokens] == [token.special for token in tokens]
    content = text.encode()
    for token in answer.tokens:
        assert token.HasField("start") is not token.special
        if not token.special:
            assert content[token.start : token.stop].decode() == token.text
    plain = tei.tokenize.Tokenize(messages.EncodeRequest(inputs=text)).tokens
    assert list(plain) == [token for token in answer.tokens if not token.special]


def test_tokens_are_decoded_with_special_tokens_unless_they_are_skipped(tei):
    request = messages.EncodeRequest(inputs="the old king", add_special_tokens=True)
    ids = [token.id for token in tei.tokenize.Tokenize(request).tokens]
    both = [
        tei.tokenize.Decode(messages.DecodeRequest(ids=ids, skip_special_tokens=skips)).text
        for skips in (False, True)
    ]
    assert both[1] in both[0]
    assert both[0] != both[1]
    requests = [messages.DecodeRequest(ids=ids, skip_special_tokens=True)] * 2
    assert [each.text for each in tei.tokenize.DecodeStream(iter(requests))] == both[1:] * 2
    failure = failure_of(tei.tokenize.Decode, messages.DecodeRequest(ids=[5, 10**6]))
    assert failure.details() == "ids[1]: the vocabulary has no such token"


def test_info_describes_the_model_and_the_limits(tei):
    info = tei.info.Info(messages.InfoRequest())
    assert (info.model_id, info.version) == ("tiny-bert/1", __version__)
    assert info.model_type == messages.MODEL_TYPE_EMBEDDING
    assert (info.max_client_batch_size, info.max_concurrent_requests) == (256, 512)
    assert info.max_input_length > 0
    request = messages.InfoRequest()
    classifier = tei.info.Info(request, **with_model("tiny-classifier"))
    assert classifier.model_type == messages.MODEL_TYPE_CLASSIFIER


def test_calls_and_streams_count_in_the_metrics_of_the_method_that_does_their_work(running, tei):
    labels = {"model": "tiny-bert/1", "method": "Embed", "code": "OK"}
    before = running.metric("attendant_calls_total", **labels)
    request = messages.EmbedRequest(inputs=TEXTS[0])
    tei.embed.Embed(request)
    list(tei.embed.EmbedStream(iter([request] * 3)))
    assert running.metric("attendant_calls_total", **labels) == before + 2


def test_a_stream_waits_for_its_quota(start):
    stub = TeiStubs(start(caller_max_texts_per_minute=600).channel).embed
    request = messages.EmbedRequest(inputs=TEXTS[0])
    assert len(list(stub.EmbedStream(iter([request] * 603)))) == 603


def test_a_stream_waits_for_room_in_the_queue(start):
    stub = TeiStubs(start(max_queued_texts=8, max_texts=8).channel).embed
    request = messages.EmbedAllRequest(inputs=TEXTS[0])
    assert len(list(stub.EmbedAllStream(iter([request] * 40)))) == 40
