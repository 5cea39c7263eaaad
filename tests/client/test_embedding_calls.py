"""Requests and results of the embedding service, in both clients."""

import numpy as np
import pytest
from attendant.v1 import embedding_pb2
from attendant_client import ServerError, TextError


def test_the_vectors_of_texts_are_a_writable_float32_array(client):
    vectors = client.embed(["aab", "b"]).vectors
    assert vectors.dtype == np.float32
    assert vectors.flags.writeable
    assert vectors.tolist() == [[3, 2, 1], [1, 0, 1]]


def test_embed_of_one_string_returns_one_vector(client):
    assert client.embed("aab").vector.tolist() == [3, 2, 1]
    assert np.asarray(client.embed("aab")).tolist() == [3, 2, 1]
    assert np.asarray(client.embed(["aab"])).tolist() == [[3, 2, 1]]


def test_embed_sends_pooling_and_normalization_only_when_chosen(client, script):
    client.embed("a")
    client.embed("a", pooling="cls", normalize=False)
    absent, chosen = script.requests
    assert absent.pooling == embedding_pb2.POOLING_UNSPECIFIED
    assert not absent.HasField("normalize")
    assert chosen.pooling == embedding_pb2.POOLING_CLS
    assert chosen.HasField("normalize")


def test_the_vector_of_a_text_that_failed_is_not_a_number(client):
    embeddings = client.embed(["a", ""])
    good, bad = embeddings
    assert good.vector.tolist() == embeddings.vectors[0].tolist() == [1, 1, 0]
    assert np.isnan(bad.vector).all()
    assert np.isnan(embeddings.vectors[1]).all()
    assert [result.num_tokens for result in embeddings] == [2, 0]
    assert bad.error.index == 1
    assert good.call.model == "vectors/1"
    with pytest.raises(TextError, match="text 1: the text is empty"):
        embeddings.raise_for_errors()


def test_token_embeddings_have_one_vector_for_every_token(client):
    embedded = client.embed_tokens("aa b")
    assert [(token.start, token.end) for token in embedded.tokens] == [(0, 2), (3, 4), (4, 4)]
    assert embedded.embeddings.shape == (3, 3)


def test_several_layers_are_the_first_dimension_of_token_embeddings(client, script):
    (embedded,) = client.embed_tokens(["aa b"], (0, -1))
    assert embedded.embeddings.shape == (2, 3, 3)
    assert list(script.requests[0].layers) == [0, -1]


def test_token_embeddings_of_a_text_that_failed_are_empty(client):
    good, bad = client.embed_tokens(["a", ""])
    assert good.error is None
    assert bad.error.index == 1
    assert bad.embeddings.shape == (0, 0)


def test_every_mask_of_a_text_is_filled(client, script):
    filled = client.fill_mask("[MASK] and [MASK]", 2)
    assert [(mask.start, mask.end) for mask in filled.masks] == [(0, 6), (11, 17)]
    assert [(c.text, c.probability) for c in filled.masks[0].candidates] == [
        ("word1", 0.5),
        ("word2", 0.25),
    ]
    assert script.requests[0].top_k == 2


def test_sparse_vectors_have_ids_weights_and_tokens(client, script):
    vector = client.embed_sparse("abb", return_tokens=True)
    assert (vector.token_ids.tolist(), vector.weights.tolist()) == ([0, 1], [1.0, 2.0])
    assert (vector.tokens, vector.num_tokens, vector.error) == (("a", "b"), 3, None)
    good, bad = client.embed_sparse(["cab", ""], max_active_dims=2)
    assert (good.token_ids.tolist(), good.tokens) == ([0, 1], ())
    assert (bad.token_ids.tolist(), bad.error.index) == ([], 1)
    assert [request.return_tokens for request in script.requests] == [True, False]
    assert script.requests[1].max_active_dims == 2


def test_the_similarity_of_two_texts_is_a_number(client):
    assert client.similarity("ab", "abab") == pytest.approx(1.0)
    assert client.similarity("aa", "bb") == pytest.approx(0.5)


@pytest.mark.parametrize("texts", [("", "a"), ("a", " "), ("\ud800", "a"), ("a", "\ud800")])
def test_the_fault_of_either_text_is_raised(client, texts):
    with pytest.raises(TextError):
        client.similarity(*texts)


def test_the_most_similar_texts_of_each_query_come_first(client, script):
    script.max_texts = 2
    found = client.similarity(["a", "", "b"], ["b", "\ud800", "a", "ab"], top_k=2)
    assert [each.indices.tolist() for each in found] == [[2, 3], [], [0, 3]]
    assert [len(each.scores) for each in found] == [2, 0, 2]
    assert [error.index for error in found.errors] == [1]
    for each in found:
        [error] = each.text_errors
        assert (error.index, "surrogate" in error.message) == (1, True)
    alone = client.similarity("a", ["b", "a"])
    assert alone.indices.tolist() == [1, 0]


def test_documents_are_ranked_over_all_calls_that_they_need(client, script):
    script.max_texts = 2
    documents = ["a", "b", "\ud800", "aaa", "", "aa"]
    found = client.rerank("a", documents, top_k=2)
    assert [each.index for each in found] == [3, 5, 2, 4]
    assert [each.score for each in found[:2]] == [3, 2]
    assert [error.index for error in found.errors] == [2, 4]
    assert len(script.requests) == 4  # the first call is refused


def test_a_query_that_cannot_be_sent_fails_alone(client):
    with pytest.raises(TextError, match="query: has the lone surrogate"):
        client.rerank("\ud800", ["a"])


@pytest.mark.parametrize("indices", [[0, 0], [1, 2], [0]])
def test_a_ranking_of_other_documents_is_a_fault_of_the_server(client, script, indices):
    def change(response):
        del response.results[:]
        for index in indices:
            response.results.add(index=index)

    script.change = change
    with pytest.raises(ServerError, match="other documents than the 2 of the call"):
        client.rerank("a", ["a", "b"])
