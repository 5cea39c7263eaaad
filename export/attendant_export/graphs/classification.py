"""Heads of labels as graph nodes. The counterpart of `models.classification`."""

from collections.abc import Mapping

import numpy as np
from attendant.v1.architecture_pb2 import Architecture

from attendant_export.graphs.layers import Layers
from attendant_export.graphs.text_vectors import dense_layer
from attendant_export.models.classification import head_pooling
from attendant_export.models.text_vectors import Pooling

FIRST_LENGTHS = "first_lengths"
"""Input of graphs that read pairs: for each text, the number of its first tokens of type 0."""
LABEL_SCORES = "label_scores"
"""Output with the scores of labels: (batch, num_labels)."""


def token_types(g: Layers, batch: str) -> str:
    """The type, 0 or 1, of each token of the texts: (batch, length), int64.

    ``batch`` holds the shape (batch, length).
    """
    first = g.op("Unsqueeze", g.input(FIRST_LENGTHS, np.int64, "batch"), g.integers(1))
    return g.cast(g.op("GreaterOrEqual", g.positions(batch), first), np.int64)


def label_scores(g: Layers, architecture: Architecture, vectors: Mapping[Pooling, str]) -> str:
    """Scores (batch, num_labels), in fp32, from the poolings of the last hidden states."""
    part = architecture.classification_head
    x = dense_layer(g, part.transform, "classifier.transform", vectors[head_pooling(part)])
    if part.has_norm:
        names = ["classifier.norm.weight", "classifier.norm.bias"]
        weights = [g.fp32_parameter(name) for name in names if name in g.parameters]
        x = g.op("LayerNormalization", x, *weights, epsilon=architecture.encoder.norm_epsilon)
    weights = [g.fp32_parameter(f"classifier.output.{kind}") for kind in ("weight", "bias")]
    return g.op("Gemm", x, *weights, transB=1)
