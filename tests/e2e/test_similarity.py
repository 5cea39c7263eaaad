"""Similarity behind a real server gives the cosines of the vectors of Embed."""

from typing import Any

import grpc
import numpy as np
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest, SimilarityRequest
from attendant_client import Client
from attendant_export.bundle.importing import ImportOptions, import_bundle
from google.rpc import code_pb2

from tests.support.bundles import one_thread
from tests.support.checkpoints import write_json, write_sentence_transformer
from tests.support.serving import failure_of, running_server

QUERIES = ["The train leaves at nine.", "Où est la gare ?"]
TEXTS = ["No.", "Where is the station?", "The train leaves at nine.", "A door."]
PROMPTS = {"query": "query: which one? ", "document": "document: "}


@pytest.fixture(scope="module")
def server(tmp_path_factory, loop, settings):
    root = tmp_path_factory.mktemp("checkpoints")
    bundles = tmp_path_factory.mktemp("bundles")
    for name, includes in (("with", True), ("without", False)):
        config = {"pooling_mode_mean_tokens": True, "include_prompt": includes}
        folder = write_sentence_transformer(root / name, config)
        write_json(folder / "config_sentence_transformers.json", {"prompts": PROMPTS})
        with one_thread():
            import_bundle(folder, bundles, ImportOptions(trained_dimensions=(8,)))
    with running_server(loop, settings(bundles=bundles)) as running:
        yield running


def compare(server, queries=QUERIES, texts=TEXTS, model="with", **options):
    request = SimilarityRequest(model=model, queries=queries, texts=texts, **options)
    return server.embedding.Similarity(request)


def matrix(response) -> np.ndarray:
    """The scores in the order of the texts."""
    rows = np.full((len(response.results), len(response.texts)), np.nan)
    for row, result in zip(rows, response.results, strict=True):
        row[list(result.indices)] = result.scores
    return rows


def expected(server, queries, texts, model="with", query_prompt="", text_prompt="", **options):
    sides = []
    for side, prompt in ((queries, query_prompt), (texts, text_prompt)):
        request = EmbedRequest(model=model, texts=side, prompt=prompt, normalize=True, **options)
        tensor: Any = server.embedding.Embed(request).embeddings
        sides.append(np.frombuffer(tensor.data, "<f4").reshape(list(tensor.shape)))
    return sides[0] @ sides[1].T


def refusal(server, **request):
    failure = failure_of(server.embedding.Similarity, SimilarityRequest(model="with", **request))
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    return failure.details()


def test_scores_are_the_cosines_of_the_vectors_and_the_best_texts_come_first(server):
    response = compare(server)
    np.testing.assert_allclose(matrix(response), expected(server, QUERIES, TEXTS), atol=2e-5)
    for result in response.results:
        assert list(result.scores) == sorted(result.scores, reverse=True)
    assert response.results[0].indices[0] == 2
    assert response.results[0].scores[0] == 1.0
    assert response.model == "with/1"
    best = compare(server, top_k=2)
    assert [list(each.indices) for each in best.results] == [
        list(each.indices[:2]) for each in response.results
    ]


@pytest.mark.parametrize("model", ["with", "without"])
def test_queries_and_texts_have_their_own_prompts(server, model):
    options = {"query_prompt_name": "query", "text_prompt_name": "document"}
    found = matrix(compare(server, model=model, **options))
    prompts = {"query_prompt": PROMPTS["query"], "text_prompt": PROMPTS["document"]}
    np.testing.assert_allclose(found, expected(server, QUERIES, TEXTS, model, **prompts), atol=2e-5)


def test_vectors_are_cut_before_they_are_compared(server):
    options: dict[str, Any] = {"dimensions": 8, "pooling": 2}
    found = matrix(compare(server, **options))
    np.testing.assert_allclose(found, expected(server, QUERIES, TEXTS, **options), atol=2e-5)


def test_texts_with_the_same_tokens_have_the_same_score_which_is_one_for_the_query(server):
    texts = [text for text in TEXTS for _ in range(20)]
    texts += ["  The train   leaves at nine."]
    for row in matrix(compare(server, texts=texts)):
        assert len(set(row.tolist())) <= len(TEXTS)
    assert (matrix(compare(server, QUERIES[:1], texts))[0, 40:60] == 1.0).all()
    assert matrix(compare(server, QUERIES[:1], texts))[0, -1] == 1.0


def test_a_bad_query_and_a_bad_text_fail_alone(server):
    response = compare(server, ["", *QUERIES], [*TEXTS[:2], " ", *TEXTS[2:]])
    invalid = code_pb2.INVALID_ARGUMENT
    assert [each.error.code for each in response.results] == [invalid, 0, 0]
    assert [each.error.code for each in response.texts] == [0, 0, invalid, 0, 0]
    assert response.results[0].error.message.startswith("queries[0]: ")
    assert response.texts[2].error.message.startswith("texts[2]: ")
    assert 2 not in response.results[1].indices
    found = np.delete(matrix(response)[1:], 2, axis=1)
    np.testing.assert_allclose(found, matrix(compare(server)), atol=1e-6)


def test_only_bad_queries_have_no_scores(server):
    response = compare(server, [""], [" "])
    assert response.results[0].error.code == response.texts[0].error.code != 0


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"queries": [], "texts": ["a"]}, "queries: at least 1, got 0"),
        ({"queries": ["a"], "texts": []}, "texts: at least 1, got 0"),
        ({"queries": ["a"], "texts": ["a"], "top_k": 0}, "top_k: at least 1, got 0"),
        (
            {"queries": ["a"] * 6, "texts": ["a"] * 251},
            "texts: at most 256 together with queries, got 257",
        ),
        ({"queries": ["a"], "texts": ["a"], "dimensions": 5}, "dimensions: the model was trained"),
        (
            {"queries": ["a"], "texts": ["a"], "text_prompt_name": "x"},
            "text_prompt_name: is unknown; the prompts of the model are: document, query",
        ),
    ],
)
def test_bad_requests_are_refused_by_the_name_of_the_field(server, request_, problem):
    assert refusal(server, **request_).startswith(problem)


def test_the_client_asks_the_server_for_scores(server):
    with Client(f"127.0.0.1:{server.server.port}") as client:
        assert client.similarity(QUERIES[0], TEXTS[2], model="with") == 1.0
        alone = client.similarity(QUERIES[1], TEXTS, model="with", top_k=1)
        together = client.similarity(QUERIES * 200, TEXTS, model="with")
    expected_best = compare(server).results[1].indices[0]
    assert alone.indices.tolist() == [expected_best]
    assert len(together) == 400
    assert {int(each.indices[0]) for each in together[1::2]} == {expected_best}
