"""Heads as graph nodes. The counterpart of `models.head`."""

import numpy as np
from attendant.v1.architecture_pb2 import Head

from attendant_export.graphs.layers import Layers


def vocabulary_scores(
    g: Layers,
    part: Head,
    name: str,
    x: str,
    embedding: str,
    norm_epsilon: float,
    listed: str = "",
) -> str:
    """Hidden states (rows, d_model) to fp32 scores of the vocabulary (rows, vocab).

    With ``listed``, only the scores of these token ids: (rows, listed). A tied projection uses the
    parameter ``embedding``.
    """
    if part.transform:
        x = g.activation(g.linear(x, f"{name}.dense"), part.transform)
        x = g.layer_norm(x, f"{name}.norm", norm_epsilon)
    table = embedding if part.is_tied else f"{name}.projection.weight"
    bias = f"{name}.bias" if part.has_bias else ""
    if part.scale in (0, 1):
        return g.vocabulary_products(x, table, listed, bias)
    scores = g.vocabulary_products(x, table, listed)
    scores = g.op("Mul", scores, g.constant(np.array(part.scale, np.float32)))
    return g.op("Add", scores, g.vocabulary_bias(bias, listed)) if bias else scores
