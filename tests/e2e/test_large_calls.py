"""Calls beyond the server's limits: marked for clients, which send them in parts."""

import grpc
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest
from attendant.v1.translation_pb2 import ScoreRequest, TranslateRequest, TranslationPair
from attendant_client import Client, TextError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.support.serving import Running, failure_of

TEXTS = [f"The dog sees {number} kings." for number in range(11)]


@pytest.fixture
def small(start) -> Running:
    return start(max_texts=4, max_response_bytes=20_000, max_request_bytes=1500)


def client_of(running: Running) -> Client:
    return Client(f"127.0.0.1:{running.server.port}")


def error_info(call, request) -> error_details_pb2.ErrorInfo:
    failure = failure_of(call, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in rpc_status.from_call(failure).details)
    return info


def test_calls_that_fewer_texts_would_keep_within_the_limits_are_marked(small: Running):
    pair = TranslationPair(source="a", target="b")
    for call, request, limits in [
        (small.translation.Translate, TranslateRequest(texts=TEXTS), {"max_texts": "4"}),
        (small.translation.Score, ScoreRequest(pairs=[pair] * 5), {"max_texts": "4"}),
        (small.embedding.Embed, EmbedRequest(texts=TEXTS), {"max_texts": "4"}),
        (small.embedding.EmbedTokens, EmbedTokensRequest(texts=["dog " * 40] * 4), {}),
    ]:
        info = error_info(call, request)
        assert (info.reason, info.domain, dict(info.metadata)) == (
            "CALL_TOO_LARGE",
            "attendant",
            limits,
        )


def test_the_client_gets_the_same_results_in_several_calls(small: Running, running: Running):
    with client_of(small) as client, client_of(running) as whole:
        expected = [each.text for each in whole.translate(TEXTS)]
        assert [each.text for each in client.translate(TEXTS)] == expected
        long = ["dog " * 40] * 6
        found = [each.embeddings.shape for each in client.embed_tokens(long).raise_for_errors()]
        assert found == [each.embeddings.shape for each in whole.embed_tokens(long)]


def test_a_text_larger_than_any_request_is_the_fault_of_that_text(small: Running):
    with client_of(small) as client:
        good, bad = client.tokenize(["The dog.", "x" * 2000], model="tiny-en-de")
        assert good.raise_for_errors().tokens
        with pytest.raises(TextError, match=r"text 1: SERVER: Received message larger than max"):
            bad.raise_for_errors()
