from typing import Any

import grpc
import numpy as np
import pytest
from attendant.v1 import embedding_pb2, text_pb2
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest, FillMaskRequest
from attendant_server.runtime.embedding_model import OnnxEmbeddingModel
from google.rpc import code_pb2

from tests.support.serving import Running, failure_of

TEXTS = ["The dog sees the king.", "Der kleine Mann ruft den Lehrer.", "The baker."]
DIMENSION = 32
NUM_LAYERS = 2


def as_array(tensor: embedding_pb2.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    assert tensor.dtype == embedding_pb2.DATA_TYPE_FLOAT32
    return np.frombuffer(tensor.data, "<f4").reshape(list(tensor.shape))


def test_each_text_gets_a_vector_of_length_one_when_normalized(running: Running):
    response = running.embedding.Embed(EmbedRequest(texts=TEXTS, normalize=True))
    vectors = as_array(response.embeddings)
    assert vectors.shape == (3, DIMENSION)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert response.model == "tiny-bert/1"
    num_tokens = sum(result.num_tokens for result in response.results)
    assert response.token_counts.num_input_tokens == num_tokens
    assert response.timings.encode.ToNanoseconds() > 0
    assert not response.timings.HasField("decode")


def test_normalization_changes_only_the_length(running: Running):
    plain, normal = (
        as_array(running.embedding.Embed(EmbedRequest(texts=TEXTS, normalize=n)).embeddings)
        for n in (False, True)
    )
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert normal == pytest.approx(plain / lengths, abs=1e-5)


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        (embedding_pb2.POOLING_MEAN, lambda hidden: hidden.mean(axis=0)),
        (embedding_pb2.POOLING_CLS, lambda hidden: hidden[0]),
        (embedding_pb2.POOLING_MAX, lambda hidden: hidden.max(axis=0)),
    ],
)
def test_pooling_is_over_the_vectors_of_the_tokens(running: Running, pooling: Any, pool: Any):
    tokens = running.embedding.EmbedTokens(EmbedTokensRequest(texts=TEXTS))
    request = EmbedRequest(texts=TEXTS, pooling=pooling, normalize=False)
    pooled = as_array(running.embedding.Embed(request).embeddings)
    for result, vector in zip(tokens.results, pooled, strict=True):
        assert vector == pytest.approx(pool(as_array(result.embeddings)), abs=1e-4)


def test_the_row_of_a_text_that_failed_is_zero(running: Running):
    request = EmbedRequest(texts=[TEXTS[0], "", TEXTS[1]], normalize=True)
    response = running.embedding.Embed(request)
    vectors = as_array(response.embeddings)
    assert not vectors[1].any()
    assert vectors[0].any()
    assert vectors[2].any()
    assert [r.error.code for r in response.results] == [0, code_pb2.INVALID_ARGUMENT, 0]


def test_a_text_gets_the_same_vector_alone_and_among_others(running: Running):
    together = as_array(running.embedding.Embed(EmbedRequest(texts=TEXTS)).embeddings)
    for text, vector in zip(TEXTS, together, strict=True):
        alone = as_array(running.embedding.Embed(EmbedRequest(texts=[text])).embeddings)[0]
        assert alone == pytest.approx(vector, abs=1e-5)


def test_tokens_have_their_offsets_in_the_text(running: Running):
    text = "Der  Lehrer🐶 grüßt."
    response = running.embedding.EmbedTokens(EmbedTokensRequest(texts=[text]))
    [result] = response.results
    assert [t.special for t in result.tokens] == [True] + [False] * (len(result.tokens) - 2) + [
        True
    ]
    pieces = [text[t.start : t.end] for t in result.tokens if not t.special]
    assert "".join(pieces) == text.replace(" ", "")
    assert as_array(result.embeddings).shape == (len(result.tokens), DIMENSION)


def test_layers_come_in_the_order_asked_for_and_count_from_both_ends(running: Running):
    def layers(*wanted: int) -> Any:
        request = EmbedTokensRequest(texts=[TEXTS[0]], layers=wanted)
        return as_array(running.embedding.EmbedTokens(request).results[0].embeddings)

    every = layers(0, 1, 2)
    assert every.shape[0] == NUM_LAYERS + 1
    assert layers(-1, 0) == pytest.approx(every[[2, 0]], abs=1e-5)
    assert layers(-3) == pytest.approx(every[0], abs=1e-5)
    assert layers() == pytest.approx(every[2], abs=1e-5)


def test_layers_are_combined_into_one_vector_of_each_token(running: Running):
    def combined(combination: Any, layers: Any = (0, 2, 1)) -> Any:
        request = EmbedTokensRequest(texts=[TEXTS[0]], layers=layers, layer_combination=combination)
        return as_array(running.embedding.EmbedTokens(request).results[0].embeddings)

    every = combined(embedding_pb2.LAYER_COMBINATION_NONE)
    assert every.ndim == 3
    mean = combined(embedding_pb2.LAYER_COMBINATION_MEAN)
    assert mean == pytest.approx(every.mean(axis=0), abs=1e-5)
    concatenation = combined(embedding_pb2.LAYER_COMBINATION_CONCATENATION)
    assert concatenation == pytest.approx(np.concatenate(every, axis=-1), abs=1e-5)
    alone = combined(embedding_pb2.LAYER_COMBINATION_MEAN, [1])
    assert alone == pytest.approx(every[2], abs=1e-5)


@pytest.mark.parametrize("combination", [2, 3, 4])
def test_layers_to_combine_must_be_named(running: Running, combination: Any):
    request = EmbedTokensRequest(texts=TEXTS, layer_combination=combination)
    failure = failure_of(running.embedding.EmbedTokens, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith("layer_combination: ")


def test_masks_are_filled_with_the_likeliest_tokens_first(running: Running):
    text = "🐶 The [MASK] sees the [MASK]."
    response = running.embedding.FillMask(FillMaskRequest(texts=[text], top_k=7))
    masks = response.results[0].masks
    assert [text[mask.start : mask.end] for mask in masks] == ["[MASK]", "[MASK]"]
    for mask in masks:
        probabilities = [candidate.probability for candidate in mask.candidates]
        assert len(probabilities) == 7
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1
        assert not any(candidate.text.startswith("##") for candidate in mask.candidates)


def test_five_candidates_are_the_default(running: Running):
    response = running.embedding.FillMask(FillMaskRequest(texts=["The [MASK]."]))
    assert len(response.results[0].masks[0].candidates) == 5


def test_a_text_without_a_mask_fails_alone(running: Running):
    texts = ["The [MASK].", "The dog.", "[mask] [MASK"]
    results = running.embedding.FillMask(FillMaskRequest(texts=texts)).results
    assert [r.error.code for r in results] == [0, *[code_pb2.INVALID_ARGUMENT] * 2]


def test_a_text_that_loses_its_masks_to_truncation_fails(running: Running):
    request = FillMaskRequest(
        texts=["dog " * 200 + "[MASK]", "[MASK]" + " dog" * 200],
        truncation=text_pb2.TRUNCATION_RIGHT,
    )
    lost, kept = running.embedding.FillMask(request).results
    assert lost.error.message == "texts[0]: has no mask left"
    assert len(kept.masks) == 1
    assert kept.truncation.num_kept_tokens == 64


def test_a_mask_is_plain_text_where_nothing_is_filled(running: Running):
    response = running.embedding.EmbedTokens(EmbedTokensRequest(texts=["The [MASK]."]))
    assert "[MASK]" not in [token.text for token in response.results[0].tokens]


@pytest.mark.parametrize("layers", [[3], [-4], [1, 1], [2, -1], [0, 1, 2, 0], [2**31 - 1]])
def test_layers_that_do_not_exist_or_come_twice_are_refused(running: Running, layers: list[int]):
    request = EmbedTokensRequest(texts=TEXTS, layers=layers)
    failure = failure_of(running.embedding.EmbedTokens, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith("layers: ")


def test_a_masked_word_head_that_fails_fails_no_embed_call_of_the_same_batch(
    start: Any, monkeypatch: pytest.MonkeyPatch
):
    running = start()
    monkeypatch.setattr(OnnxEmbeddingModel, "fill", lambda *_: 1 / 0)
    with running.held_engine():
        embedding = running.embedding.Embed.future(EmbedRequest(texts=TEXTS))
        masked = running.embedding.FillMask.future(FillMaskRequest(texts=["The [MASK]."]))
        running.wait_for_queued(4, model="tiny-bert/1")
    assert as_array(embedding.result().embeddings).shape == (3, DIMENSION)
    assert masked.code() == grpc.StatusCode.INTERNAL
    dropped = {"model": "tiny-bert/1", "reason": "failed"}
    assert running.metric("attendant_dropped_texts_total", **dropped) == 1
