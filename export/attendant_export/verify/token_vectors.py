"""Compares vectors of tokens for late interaction with the PyTorch model and with the original."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from attendant.v1.bundle_pb2 import EmbeddingParity, OriginalVectors
from torch import nn

from attendant_export.graphs.token_vectors import TOKEN_VECTORS
from attendant_export.models.token_vectors import token_vectors
from attendant_export.verify.embedding import (
    MIN_FP32_COSINE,
    EmbeddingGraphs,
    FloatArray,
    agreement,
    cosines,
)
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.original import (
    IMPLEMENTATION,
    MIN_SAME_MODEL_COSINE,
    OriginalEncoder,
)

MIN_BATCHED_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.999}
"""Lower bound of the cosine between a token's vectors alone and in a batch. It allows for rounding,
which moves the vector of one token more than a pooling of many."""


def verify_token_vectors(
    graphs: EmbeddingGraphs,
    texts: Sequence[Sequence[int]],
    dense: nn.Module,
    hidden: Sequence[FloatArray],
) -> EmbeddingParity:
    """Compare ``graphs`` with the dense layers of the model and its last hidden states.

    Raises ParityError if a vector depends on the other texts of a batch, or if fp32 differs.
    """
    alone = [vectors_alone(graphs, ids) for ids in texts]
    (batch,) = graphs.run(texts, [TOKEN_VECTORS])
    together = [row[: len(ids)] for row, ids in zip(batch, texts, strict=True)]
    batched = _agreement(alone, together).min_cosine
    if not (batched >= MIN_BATCHED_COSINE[graphs.precision]):
        raise ParityError(
            f"{graphs.precision}: cosine of vectors of tokens alone and batched is only "
            f"{batched:.6f}"
        )
    parity = _agreement(alone, [projected(dense, states) for states in hidden])
    if graphs.precision == "fp32" and not (parity.min_cosine >= MIN_FP32_COSINE):
        raise ParityError(
            "fp32 graphs do not follow the model: the smallest cosine of vectors of tokens is "
            f"{parity.min_cosine:.6f}"
        )
    return parity


def vectors_alone(graphs: EmbeddingGraphs, token_ids: Sequence[int]) -> FloatArray:
    """The vectors (tokens, dimension) of one text."""
    (vectors,) = graphs.run([token_ids], [TOKEN_VECTORS])
    alone: FloatArray = vectors[0]
    return alone


@torch.inference_mode()
def projected(dense: nn.Module, hidden: FloatArray) -> FloatArray:
    """The vectors (tokens, dimension) of last hidden states (1, tokens, d_model)."""
    vectors = token_vectors(dense, torch.from_numpy(hidden))
    found: FloatArray = vectors[0].numpy()
    return found


def compare_token_vectors(
    original: OriginalEncoder,
    texts: Sequence[Sequence[int]],
    graphs: Mapping[str, EmbeddingGraphs],
    dense: nn.Module,
) -> list[OriginalVectors]:
    """Compare graphs by precision with hidden states of the original after the dense layers.

    Raises ParityError if vectors of fp32 differ, or if those of another precision are not similar.
    """
    expected = [projected(dense, original.hidden_states(ids)[-1]) for ids in texts]
    compared = []
    for precision, opened in graphs.items():
        found = _agreement([vectors_alone(opened, ids) for ids in texts], expected)
        is_near = found.mean_cosine >= MIN_SAME_MODEL_COSINE
        if not is_near or (precision == "fp32" and not found.min_cosine >= MIN_FP32_COSINE):
            raise ParityError(
                f"{precision} vectors of tokens differ from {IMPLEMENTATION} {original.version}: "
                f"cosine mean {found.mean_cosine:.6f}, least {found.min_cosine:.6f}"
            )
        compared.append(OriginalVectors(precision=precision, embeddings=found))
    return compared


def _agreement(found: Sequence[FloatArray], expected: Sequence[FloatArray]) -> EmbeddingParity:
    """Cosines over all tokens of all texts."""
    similar = np.concatenate([cosines(*pair) for pair in zip(found, expected, strict=True)])
    return agreement(similar, len(found))
