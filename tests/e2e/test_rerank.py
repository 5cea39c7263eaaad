"""Rerank behind a real server gives the scores that Classify gives for pairs."""

import shutil

import grpc
import numpy as np
import pytest
from attendant.v1.embedding_pb2 import (
    SCORE_FUNCTION_IDENTITY,
    SCORE_FUNCTION_SIGMOID,
    ClassifyRequest,
    RerankRequest,
)
from attendant.v1.text_pb2 import TRUNCATION_RIGHT
from attendant_client import Client
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_vendored.inference import grpc_service_pb2_grpc
from attendant_vendored.tei import tei_pb2
from google.rpc import code_pb2

from tests.support.bundles import one_thread
from tests.support.classifiers import write_classifier
from tests.support.kserve import infer_request, values
from tests.support.serving import failure_of, running_server
from tests.support.tei import TeiStubs

QUERY = "When does the train leave?"
DOCUMENTS = ["No.", "The train leaves at nine.", "Où est la gare ?", "It is late.", "A door."]
MAX_TOKENS = 60
SIGMOID = {"metadata": [("attendant-model", "sigmoid")]}


@pytest.fixture(scope="module")
def server(tmp_path_factory, translation_bundle, loop, settings):
    root = tmp_path_factory.mktemp("classifiers")
    sources = [
        write_classifier(root / "labels", "bert", seed=4, id2label={0: "bad", 1: "good"}),
        write_classifier(root / "sigmoid", "xlm-roberta", num_labels=1),
        write_classifier(root / "types", "bert", seed=9, num_labels=1),
    ]
    with one_thread():
        for source in sources:
            import_bundle(source, root / "bundles", ImportOptions(max_tokens=MAX_TOKENS))
    shutil.copytree(translation_bundle, root / "bundles" / translation_bundle.parent.name / "1")
    with running_server(loop, settings(bundles=root / "bundles")) as running:
        yield running


def rerank(server, documents=DOCUMENTS, model="sigmoid", query=QUERY, **options):
    request = RerankRequest(model=model, query=query, documents=documents, **options)
    return server.embedding.Rerank(request)


def classified(server, model, **options):
    request = ClassifyRequest(
        model=model, texts=[QUERY] * len(DOCUMENTS), text_pairs=DOCUMENTS, **options
    )
    return [each.labels[0].score for each in server.embedding.Classify(request).results]


@pytest.mark.parametrize("model", ["sigmoid", "types"])
@pytest.mark.parametrize("is_raw", [False, True])
def test_documents_are_sorted_by_the_scores_of_their_pairs(server, model, is_raw):
    response = rerank(server, model=model, raw_scores=is_raw)
    expected = classified(server, model, raw_scores=is_raw)
    scores = [each.score for each in response.results]
    indices = [each.index for each in response.results]
    assert indices == np.argsort(-np.array(expected), kind="stable").tolist()
    assert scores == pytest.approx([expected[i] for i in indices], abs=1e-5)
    assert len(set(scores)) == len(DOCUMENTS)
    if is_raw:
        assert response.score_function == SCORE_FUNCTION_IDENTITY
    elif model == "sigmoid":
        assert response.score_function == SCORE_FUNCTION_SIGMOID
        assert all(0 < score < 1 for score in scores)


def test_the_best_documents_are_returned_and_those_that_failed_come_last(server):
    whole = rerank(server)
    response = rerank(server, ["", *DOCUMENTS, "a " * 100], top_k=2)
    assert [each.index for each in response.results] == [
        *(each.index + 1 for each in whole.results[:2]),
        0,
        len(DOCUMENTS) + 1,
    ]
    invalid = code_pb2.INVALID_ARGUMENT
    assert [each.error.code for each in response.results] == [0, 0, invalid, invalid]
    messages = [each.error.message for each in response.results]
    assert messages[2].startswith("documents[0]: is empty")
    assert messages[3].startswith(f"documents[6]: at most {MAX_TOKENS} tokens, got ")


def test_the_same_document_has_the_same_score_in_all_places(server):
    documents = [each for each in DOCUMENTS for _ in range(10)]
    response = rerank(server, documents)
    scores = {each.index: each.score for each in response.results}
    for i in range(len(DOCUMENTS)):
        assert len({scores[10 * i + j] for j in range(10)}) == 1
    first = [each.index for each in response.results[:10]]
    assert first == sorted(first)


def test_a_document_that_is_too_long_is_truncated_on_request(server):
    [result] = rerank(server, ["a " * 100], truncation=TRUNCATION_RIGHT).results
    assert result.truncation.num_kept_tokens == MAX_TOKENS


@pytest.mark.parametrize("query", ["", " \n"])
def test_an_empty_query_fails_the_call(server, query):
    request = RerankRequest(model="sigmoid", query=query, documents=DOCUMENTS)
    failure = failure_of(server.embedding.Rerank, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith("query: is empty")


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"documents": []}, "documents: at least 1, got 0"),
        ({"documents": DOCUMENTS, "top_k": 0}, "top_k: at least 1, got 0"),
        ({"documents": ["a"] * 257}, "documents: at most 256, got 257"),
        ({"documents": ["a"], "query": "a" * 1_000_000}, "query: at most "),
    ],
)
def test_bad_requests_are_refused_by_the_name_of_the_field(server, request_, problem):
    request = RerankRequest(**{"model": "sigmoid", "query": QUERY} | request_)
    failure = failure_of(server.embedding.Rerank, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith(problem)


def test_a_model_with_other_labels_than_one_does_not_rerank(server):
    request = RerankRequest(model="labels", query=QUERY, documents=DOCUMENTS)
    failure = failure_of(server.embedding.Rerank, request)
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failure.details() == "labels/1 has no classification head with one label"


def test_the_client_ranks_more_documents_than_a_call_takes(server):
    documents = DOCUMENTS * 60
    with Client(f"127.0.0.1:{server.server.port}") as client:
        found = client.rerank(QUERY, documents, model="sigmoid", top_k=61)
    best = rerank(server).results[0]
    assert [each.index % len(DOCUMENTS) for each in found[:60]] == [best.index] * 60
    assert found[60].index % len(DOCUMENTS) == rerank(server).results[1].index


def test_scores_of_kserve_for_a_query_are_in_the_order_of_the_texts(server):
    stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(server.channel)
    expected = classified(server, "types")
    asked = infer_request("types", {"TEXT": DOCUMENTS, "QUERY": [QUERY]})
    found = values(stub.ModelInfer(asked))["SCORE"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    pairs = infer_request("types", {"TEXT": [QUERY] * 5, "TEXT_PAIR": DOCUMENTS})
    found = values(stub.ModelInfer(pairs))["SCORE"]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)
    two = infer_request("types", {"TEXT": DOCUMENTS, "QUERY": [QUERY, QUERY]})
    assert failure_of(stub.ModelInfer, two).details() == "QUERY: must have one element, got 2"


def test_ranks_of_tei_are_those_of_rerank(server):
    own = rerank(server, model="sigmoid")
    expected = [(each.index, each.score) for each in own.results]
    stub = TeiStubs(server.channel).rerank
    request = tei_pb2.RerankRequest(query=QUERY, texts=DOCUMENTS, return_text=True)
    answer = stub.Rerank(request, **SIGMOID)
    assert [(rank.index, rank.score) for rank in answer.ranks] == expected
    assert [rank.text for rank in answer.ranks] == [DOCUMENTS[index] for index, _ in expected]
    requests = [tei_pb2.RerankStreamRequest(query=QUERY, text=text) for text in DOCUMENTS]
    answer = stub.RerankStream(iter(requests), **SIGMOID)
    assert [(rank.index, rank.score) for rank in answer.ranks] == expected
    assert not any(rank.HasField("text") for rank in answer.ranks)
    assert answer.metadata.compute_tokens == own.token_counts.num_input_tokens


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([], "texts: at least 1, got 0"),
        ([{"query": QUERY, "text": ""}], "texts[0]: is empty"),
        ([{"query": QUERY, "text": "A"}, {"query": "B", "text": "A"}], "query: must be the same"),
        ([{"query": QUERY, "text": "A"}] * 257, "text: at most 256 requests in a stream"),
    ],
)
def test_bad_streams_of_texts_to_rank_are_refused(server, requests, message):
    stub = TeiStubs(server.channel).rerank
    stream = (tei_pb2.RerankStreamRequest(**each) for each in requests)
    failure = failure_of(stub.RerankStream, stream, **SIGMOID)
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith(message)


def test_info_of_tei_says_that_a_model_ranks(server):
    info = TeiStubs(server.channel).info.Info(tei_pb2.InfoRequest(), **SIGMOID)
    assert info.model_type == tei_pb2.MODEL_TYPE_RERANKER
