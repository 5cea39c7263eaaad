"""Sparse vectors of whole texts over the vocabulary: SPLADE (Formal et al., 2021)."""

from attendant.v1.architecture_pb2 import Architecture, SparseVectors
from torch import Tensor

from attendant_export.models.unsupported import check_at_least_one


def sparse_vectors(part: SparseVectors, scores: Tensor, mask: Tensor) -> Tensor:
    """The weights of tokens (batch, vocab) from their scores (batch, length, vocab).

    ``mask`` (batch, length) is True at real tokens.
    """
    weights = scores.relu()
    for _ in range(part.num_logarithms):
        weights = weights.log1p()
    weights = weights.masked_fill(~mask.unsqueeze(-1), 0)
    return weights.sum(dim=1) if part.is_sum else weights.amax(dim=1)


def check_sparse_vectors(architecture: Architecture) -> None:
    """Raise ValueError for sparse vectors without a head to score the vocabulary."""
    if architecture.HasField("sparse_vectors"):
        check_at_least_one(architecture.sparse_vectors, "num_logarithms")
        if not architecture.HasField("head"):
            raise ValueError("Architecture.sparse_vectors: needs a head")
