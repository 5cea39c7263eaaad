"""Vectors of tokens for late interaction as graph nodes. The counterpart of `models.token_vectors`.

They compute in fp32 in every precision.
"""

import numpy as np
from attendant.v1.architecture_pb2 import Architecture

from attendant_export.graphs.layers import Layers
from attendant_export.graphs.text_vectors import dense_layer
from attendant_export.models.token_vectors import LEAST_LENGTH

TOKEN_VECTORS = "token_vectors"
"""Output with the vectors of tokens: (batch, length, dimension)."""
ATTENDED_LENGTHS = "attended_lengths"
"""Input with the number of tokens of each text that are attended to: (batch)."""


def token_vectors(g: Layers, architecture: Architecture, hidden: str, batch: str) -> str:
    """Last hidden states (batch, length, d_model) in fp32 to vectors of length 1.

    ``batch`` holds the shape (batch, length).
    """
    x = g.rows(hidden, architecture.d_model)
    for number, dense in enumerate(architecture.token_vectors.dense_layers):
        x = dense_layer(g, dense, f"token_dense.{number}", x)
    length = g.op("ReduceL2", x, g.integers(1), keepdims=1)
    least = g.constant(np.array(LEAST_LENGTH, np.float32))
    return g.by_text(g.op("Div", x, g.op("Max", length, least)), batch)
