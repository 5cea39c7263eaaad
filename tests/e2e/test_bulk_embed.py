"""BulkEmbed over the wire: vectors, chunks, offsets and faults as those of Embed."""

from typing import Any

import grpc
import numpy as np
import pytest
from attendant.v1 import embedding_pb2, text_pb2
from attendant.v1.embedding_pb2 import EmbedRequest

from tests.support.bulk import each_result, embed_requests
from tests.support.serving import TIMEOUT_SECONDS, Running, failure_of

MODEL = "tiny-bert/1"
BOUND = 1e-4
"""The bound of fp32, the precision of the tests' servers."""
TEXTS = [(str(i), f"The dog sees {i % 40} kings. A cat! Böse 🐱.") for i in range(500)]


def bulk(running: Running, requests: Any) -> Any:
    return running.embedding.BulkEmbed(iter(requests), timeout=TIMEOUT_SECONDS)


def embedded(running: Running, texts: list[str], **fields: Any) -> embedding_pb2.EmbedResponse:
    response: embedding_pb2.EmbedResponse = running.embedding.Embed(
        EmbedRequest(texts=texts, **fields)
    )
    return response


def array(tensor: embedding_pb2.Tensor) -> Any:
    return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)


@pytest.mark.parametrize("together", [1, 20, 500])
def test_each_text_has_its_vector_in_order_with_its_id(running: Running, together: int):
    responses = list(bulk(running, embed_requests(TEXTS, together)))
    ids = [text_id for response in responses for text_id in response.ids]
    assert ids == [text_id for text_id, _ in TEXTS]
    assert max(len(response.ids) for response in responses) == min(together, 32)
    assert {response.answer.model for response in responses} == {MODEL}
    for response in responses[:40:together]:
        texts = [text for text_id, text in TEXTS if text_id in response.ids]
        expected = embedded(running, texts)
        np.testing.assert_allclose(
            array(response.answer.embeddings), array(expected.embeddings), atol=BOUND
        )
        assert response.answer.results == expected.results
        assert response.answer.token_counts == expected.token_counts
        assert response.answer.timings.HasField("encode")


@pytest.mark.parametrize("averages", [False, True])
def test_chunks_and_their_offsets_are_those_of_embed(running: Running, averages: bool):
    fields: dict[str, Any] = {
        "chunking": embedding_pb2.CHUNKING_SENTENCES,
        "average_chunks": averages,
        "offset_unit": text_pb2.OFFSET_UNIT_UTF8_BYTES,
        "dimensions": None,
        "normalize": False,
    }
    responses = list(bulk(running, embed_requests(TEXTS[:8], together=2, **fields)))
    assert len(responses) == 4
    for number, response in enumerate(responses):
        texts = [text for _, text in TEXTS[2 * number : 2 * number + 2]]
        expected = embedded(running, texts, **fields)
        assert [len(result.chunks) for result in response.answer.results] == [3, 3]
        assert response.answer.results == expected.results
        assert response.answer.embeddings.shape == expected.embeddings.shape
        np.testing.assert_allclose(
            array(response.answer.embeddings), array(expected.embeddings), atol=BOUND
        )


def test_faults_between_good_texts_are_in_their_results(running: Running):
    texts = [("a", "the dog"), ("b", ""), ("c", "x" * 20_001), ("d", "the king")]
    results = list(each_result(bulk(running, embed_requests(texts, together=3))))
    assert [result.id for result in results] == ["a", "b", "c", "d"]
    assert [result.result.error.code for result in results] == [0, 3, 3, 0]
    assert results[2].result.error.message == "text: at most 20000 characters, got 20001"
    assert {result.answer.model for result in results} == {MODEL}


@pytest.mark.parametrize(
    ("requests", "code", "message"),
    [
        (embed_requests(texts=["a"]), grpc.StatusCode.INVALID_ARGUMENT, "texts: must be empty"),
        (embed_requests(dimensions=0), grpc.StatusCode.INVALID_ARGUMENT, "dimensions: "),
        (embed_requests(data_type=9), grpc.StatusCode.INVALID_ARGUMENT, "data_type: has no"),
        (embed_requests(average_chunks=True), grpc.StatusCode.INVALID_ARGUMENT, "average_chunks:"),
        (embed_requests(model="none"), grpc.StatusCode.NOT_FOUND, "model: no such model"),
        ([], grpc.StatusCode.INVALID_ARGUMENT, "settings: must be in the first message"),
    ],
)
def test_bad_settings_end_the_call_by_their_name(
    running: Running, requests: Any, code: grpc.StatusCode, message: str
):
    error = failure_of(lambda: list(bulk(running, requests)))
    assert error.code() == code
    assert error.details().startswith(message)
