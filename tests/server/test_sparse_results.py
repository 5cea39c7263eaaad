"""The scheduler keeps only the weights of sparse vectors that are not 0."""

import logging

import numpy as np
import pytest
from attendant_server.engine.embedding_scheduler import EmbeddingScheduler
from attendant_server.engine.encoder_calls import SPARSE_TOKEN_IDS, SPARSE_VECTORS, EmbedCall
from attendant_server.errors import ModelFailed

from tests.support.fake_model import FakeEmbeddingModel, RecordingObserver
from tests.support.limits import embedding_limits


class SparseModel(FakeEmbeddingModel):
    """Gives each token of a text, except 0, the half of its id as its weight; NaN to token 9."""

    def embed(self, texts, outputs, *lengths, **more):
        vectors = np.zeros((len(texts), 10), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            vector[text] = [np.nan if token == 9 else token / 2 for token in text]
        return super().embed(texts, outputs) | {SPARSE_VECTORS: vectors}


def answered(*texts):
    scheduler = EmbeddingScheduler(
        "fake", SparseModel(), embedding_limits(), RecordingObserver(), lambda: 0.0
    )
    call = EmbedCall(texts, (SPARSE_VECTORS, "mean_pooled"))
    scheduler.submit(call)
    scheduler.advance(is_alone=True)
    return call.future.result(timeout=0)


def test_a_result_has_the_ids_and_weights_that_are_not_0():
    first, second = answered([4, 2, 0, 2], [0])
    assert first[SPARSE_TOKEN_IDS].tolist() == [2, 4]
    assert first[SPARSE_VECTORS].tolist() == [1.0, 2.0]
    assert first["mean_pooled"].tolist() == [8.0, 4.0]
    assert second[SPARSE_TOKEN_IDS].tolist() == second[SPARSE_VECTORS].tolist() == []


def test_a_weight_that_is_not_a_number_fails_the_call(caplog):
    caplog.set_level(logging.CRITICAL)
    with pytest.raises(ModelFailed):
        answered([4, 9])
