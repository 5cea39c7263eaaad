"""Vectors of single tokens for late interaction, as in ColBERT (Khattab and Zaharia, 2020)."""

from attendant.v1.architecture_pb2 import Architecture
from torch import Tensor, nn
from torch.nn.functional import normalize

from attendant_export.models.text_vectors import DenseLayers

LEAST_LENGTH = 1e-12
"""Vectors are divided by their lengths, or by this number if it is larger."""


def token_dense(architecture: Architecture) -> DenseLayers:
    """The dense layers of an encoder's tokens. Raises ValueError if there are none."""
    if not architecture.token_vectors.dense_layers:
        raise ValueError("TokenVectors.dense_layers: at least one is needed")
    return DenseLayers(architecture.token_vectors, architecture.d_model)


def token_vectors(dense: nn.Module, hidden: Tensor) -> Tensor:
    """Last hidden states (..., d_model) to vectors (..., dimension) of length 1."""
    return normalize(dense(hidden), dim=-1, eps=LEAST_LENGTH)
