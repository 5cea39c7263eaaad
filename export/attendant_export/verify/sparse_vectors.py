"""Compares sparse vectors of texts with the PyTorch model and with the original implementation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from attendant.v1.architecture_pb2 import SparseVectors
from attendant.v1.bundle_pb2 import OriginalSparseVectors, SparseParity

from attendant_export.models.encoder import Encoder
from attendant_export.models.sparse_vectors import sparse_vectors
from attendant_export.verify.bounds import FP32_BOUND
from attendant_export.verify.embedding import (
    MIN_FP32_COSINE,
    EmbeddingGraphs,
    FloatArray,
    IntArray,
    cosines,
)
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.original import IMPLEMENTATION, MIN_SAME_MODEL_COSINE, Original

MIN_BATCHED_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.999}
"""Lower bound of the cosine between a text's vectors alone and in a batch."""
NUM_TOP = 32
"""Number of tokens with the greatest weights that are compared, as the manifest states."""


@torch.inference_mode()
def model_vectors(model: Encoder, texts: Sequence[Sequence[int]]) -> FloatArray:
    """Weights of tokens (texts, vocab) of the PyTorch model."""
    rows = [model.sparse_vectors(torch.tensor([list(ids)])) for ids in texts]
    return torch.cat(rows).float().numpy()


def vectors_alone(graphs: EmbeddingGraphs, texts: Sequence[Sequence[int]]) -> FloatArray:
    """Weights of tokens (texts, vocab), computed for each text alone.

    Raises ParityError if they change when all texts share a batch.
    """
    alone = np.concatenate([graphs.sparse_vectors([ids]) for ids in texts])
    batched = float(cosines(alone, graphs.sparse_vectors(texts)).min())
    if not (batched >= MIN_BATCHED_COSINE[graphs.precision]):
        raise ParityError(
            f"{graphs.precision}: cosine of sparse vectors alone and batched is only {batched:.6f}"
        )
    return alone


def sparse_parity(precision: str, found: FloatArray, expected: FloatArray) -> SparseParity:
    """The agreement of vectors (texts, vocab). Raises ParityError if those of fp32 differ."""
    similar, difference = cosines(found, expected), float(np.abs(found - expected).max())
    limit = FP32_BOUND * float(expected.max(initial=1.0))
    if precision == "fp32" and not (similar.min() >= MIN_FP32_COSINE and difference <= limit):
        raise ParityError(
            f"fp32 graphs do not follow the model: the smallest cosine of sparse vectors is "
            f"{similar.min():.6f}, the largest difference {difference:.2g}"
        )
    return SparseParity(
        num_texts=len(found),
        min_cosine=float(similar.min()),
        mean_cosine=float(similar.mean()),
        max_difference=difference,
        same_top_share=float(
            np.mean([_share(*pair) for pair in zip(found, expected, strict=True)])
        ),
    )


def top_tokens(vector: FloatArray) -> IntArray:
    """The ids of the `NUM_TOP` tokens with the greatest weights, greatest first."""
    return np.argsort(-vector, kind="stable")[:NUM_TOP]


def _share(found: FloatArray, expected: FloatArray) -> float:
    """Share of the top tokens with a weight that both vectors have."""
    ours, theirs = _weighted(found), _weighted(expected)
    most = max(len(ours), len(theirs))
    return len(np.intersect1d(ours, theirs)) / most if most else 1.0


def _weighted(vector: FloatArray) -> IntArray:
    best = top_tokens(vector)
    chosen: IntArray = best[vector[best] > 0]
    return chosen


class OriginalMaskedLM(Original):
    """A masked language model in the original implementation."""

    def __init__(self, folder: Path) -> None:
        """Raises OriginalError."""
        super().__init__(folder, "AutoModelForMaskedLM")

    def vector(self, token_ids: Sequence[int], part: SparseVectors) -> FloatArray:
        """Weights of tokens (1, vocab) of a text. Raises OriginalError."""
        ids = torch.tensor([list(token_ids)])
        with self.running(len(token_ids)):
            weights = sparse_vectors(part, self._model(ids).logits, torch.ones_like(ids).bool())
        found: FloatArray = weights.numpy()
        return found


def compare_sparse_vectors(
    original: OriginalMaskedLM,
    texts: Sequence[Sequence[int]],
    graphs: Mapping[str, EmbeddingGraphs],
    part: SparseVectors,
) -> list[OriginalSparseVectors]:
    """Compare graphs by precision with the original implementation.

    Raises ParityError if vectors of fp32 differ, or if those of another precision are not similar.
    """
    expected = np.concatenate([original.vector(ids, part) for ids in texts])
    compared = []
    for precision, opened in graphs.items():
        found = np.concatenate([opened.sparse_vectors([ids]) for ids in texts])
        if found.shape != expected.shape:
            raise ParityError(
                f"sparse vectors of {IMPLEMENTATION} are {expected.shape}, not {found.shape}"
            )
        try:
            parity = sparse_parity(precision, found, expected)
        except ParityError as error:
            raise ParityError(f"{IMPLEMENTATION} {original.version}: {error}") from error
        if not (parity.mean_cosine >= MIN_SAME_MODEL_COSINE):
            raise ParityError(
                f"{precision} sparse vectors have a mean cosine of only {parity.mean_cosine:.4f} "
                f"to those of {IMPLEMENTATION} {original.version}"
            )
        compared.append(OriginalSparseVectors(precision=precision, vectors=parity))
    return compared
