"""Sparse vectors of random networks are the same in PyTorch and in graphs."""

import numpy as np
import pytest
import torch
from attendant.v1.architecture_pb2 import Architecture, SparseVectors
from attendant_export.graphs import parts
from attendant_export.graphs.writer import write_embedding_graphs
from attendant_export.models.encoder import Encoder
from attendant_export.models.shapes import bert

from tests.support.graphs import open_session, padded, run, unsettle

TEXTS = [[2, 9, 33, 3], [2, 7, 12, 40, 31, 22, 8, 3], [2, 3], [2, 30, 6, 17, 25, 3]]
VOCAB_SIZE = 50
TOLERANCE = {"fp32": 1e-5, "fp16": 2e-2, "int8": 0.2}
PARTS = [
    SparseVectors(is_sum=is_sum, num_logarithms=number)
    for is_sum in (False, True)
    for number in (1, 2)
]


def splade(part):
    network = bert(
        vocab_size=VOCAB_SIZE,
        d_model=32,
        num_heads=2,
        d_feed_forward=64,
        num_layers=2,
        norm_first=False,
    )
    network.sparse_vectors.CopyFrom(part)
    torch.manual_seed(3)
    return unsettle(Encoder(network))


@pytest.mark.parametrize("max_scores", [2**23, 8 * VOCAB_SIZE, 1])
@pytest.mark.parametrize("part", PARTS, ids=str)
@pytest.mark.parametrize("precision", TOLERANCE)
def test_sparse_vectors_are_the_models_in_any_number_of_parts(
    precision, part, max_scores, tmp_path, monkeypatch
):
    monkeypatch.setattr(parts, "MAX_SCORES", max_scores)
    model = splade(part)
    graphs = write_embedding_graphs(model, precision, tmp_path)
    token_ids, lengths = padded(TEXTS)
    hidden = run(open_session(tmp_path, graphs.embedder), token_ids=token_ids, lengths=lengths)
    head = open_session(tmp_path, graphs.sparse_head)
    together = run(head, hidden=hidden["hidden_2"], lengths=lengths)["sparse_vectors"]
    assert together.shape == (len(TEXTS), VOCAB_SIZE)
    assert (together == 0).any()
    for row, text in enumerate(TEXTS):
        with torch.inference_mode():
            (expected,) = model.sparse_vectors(torch.tensor([text])).numpy()
        size = len(text) if part.is_sum else 1
        np.testing.assert_allclose(together[row], expected, atol=size * TOLERANCE[precision])
        states = hidden["hidden_2"][[row], : len(text)]
        (alone,) = run(head, hidden=states, lengths=lengths[[row]])["sparse_vectors"]
        np.testing.assert_allclose(together[row], alone, atol=1e-5)


def test_the_mask_of_a_batch_leaves_out_padding():
    for part in PARTS:
        model, (token_ids, _) = splade(part), padded(TEXTS)
        with torch.inference_mode():
            together = model.sparse_vectors(torch.from_numpy(token_ids))
            for row, text in zip(together, TEXTS, strict=True):
                alone = model.sparse_vectors(torch.tensor([text]))[0]
                torch.testing.assert_close(row, alone, atol=1e-5, rtol=1e-5)


def test_parts_that_sparse_vectors_need_are_named():
    network = Architecture()
    network.CopyFrom(splade(PARTS[0]).architecture)
    network.sparse_vectors.num_logarithms = 0
    with pytest.raises(ValueError, match=r"SparseVectors\.num_logarithms"):
        Encoder(network)
    network.sparse_vectors.num_logarithms = 1
    network.ClearField("head")
    with pytest.raises(ValueError, match=r"Architecture\.sparse_vectors: needs a head"):
        Encoder(network)
