"""BulkEmbed over the wire: vectors, chunks, offsets and faults as those of Embed."""

from typing import Any

import grpc
import numpy as np
import pytest
from attendant.v1 import embedding_pb2, text_pb2
from attendant.v1.embedding_pb2 import EmbedRequest

from tests.support.bulk import embed_requests
from tests.support.serving import TIMEOUT_SECONDS, Running, failure_of

MODEL = "tiny-bert/1"
BOUND = 1e-4
"""The bound of fp32, the precision of the tests' servers."""
TEXTS = [(str(i), f"The dog sees {i % 40} kings. A cat! Böse 🐱.") for i in range(500)]


def bulk(running: Running, requests: Any) -> Any:
    return running.embedding.BulkEmbed(iter(requests), timeout=TIMEOUT_SECONDS)


def single(running: Running, text: str, **fields: Any) -> embedding_pb2.EmbedResponse:
    response: embedding_pb2.EmbedResponse = running.embedding.Embed(
        EmbedRequest(texts=[text], **fields)
    )
    return response


def array(tensor: embedding_pb2.Tensor) -> Any:
    return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)


def test_each_text_has_its_vector_in_order_with_its_id(running: Running):
    responses = list(bulk(running, embed_requests(TEXTS)))
    assert [response.id for response in responses] == [text_id for text_id, _ in TEXTS]
    assert {response.model for response in responses} == {MODEL}
    for response, (_, text) in list(zip(responses, TEXTS, strict=True))[:40]:
        expected = single(running, text)
        np.testing.assert_allclose(
            array(response.embeddings), array(expected.embeddings), atol=BOUND
        )
        assert response.result == expected.results[0]
        assert response.token_counts == expected.token_counts
        assert response.timings.HasField("encode")


@pytest.mark.parametrize("averages", [False, True])
def test_chunks_and_their_offsets_are_those_of_embed(running: Running, averages: bool):
    fields: dict[str, Any] = {
        "chunking": embedding_pb2.CHUNKING_SENTENCES,
        "average_chunks": averages,
        "offset_unit": text_pb2.OFFSET_UNIT_UTF8_BYTES,
        "dimensions": None,
        "normalize": False,
    }
    for response, (_, text) in zip(
        bulk(running, embed_requests(TEXTS[:8], **fields)), TEXTS, strict=False
    ):
        expected = single(running, text, **fields)
        assert len(response.result.chunks) == 3
        assert response.result == expected.results[0]
        assert response.embeddings.shape == expected.embeddings.shape
        np.testing.assert_allclose(
            array(response.embeddings), array(expected.embeddings), atol=BOUND
        )


def test_faults_between_good_texts_are_in_their_results_without_vectors(running: Running):
    texts = [("a", "the dog"), ("b", ""), ("c", "x" * 20_001), ("d", "the king")]
    responses = list(bulk(running, embed_requests(texts)))
    assert [response.result.error.code for response in responses] == [0, 3, 3, 0]
    assert [response.HasField("embeddings") for response in responses] == [True, False, False, True]
    assert responses[2].result.error.message == "text: at most 20000 characters, got 20001"
    assert {response.model for response in responses} == {MODEL}


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
