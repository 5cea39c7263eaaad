"""Heads as graph nodes. The counterpart of `models.head`."""

import numpy as np
from attendant.v1.architecture_pb2 import Head

from attendant_export.graphs.layers import Layers


def vocabulary_scores(
    g: Layers, part: Head, name: str, x: str, embedding: str, norm_epsilon: float
) -> str:
    """Hidden states (rows, d_model) to fp32 scores of the vocabulary (rows, vocab).

    A tied projection uses the parameter ``embedding``.
    """
    x, table = _transformed(g, part, name, x, norm_epsilon), _table(part, name, embedding)
    bias = f"{name}.bias" if part.has_bias else ""
    if part.scale in (0, 1):
        return g.vocabulary_products(x, table, bias)
    scores = _scaled(g, part, g.vocabulary_products(x, table))
    return g.op("Add", scores, g.fp32_parameter(bias)) if bias else scores


def listed_scores(
    g: Layers, part: Head, name: str, x: str, embedding: str, norm_epsilon: float, listed: str
) -> str:
    """`vocabulary_scores` of the token ids ``listed`` alone, without the bias: (rows, listed)."""
    x, table = _transformed(g, part, name, x, norm_epsilon), _table(part, name, embedding)
    scores = g.listed_products(x, table, listed)
    return scores if part.scale in (0, 1) else _scaled(g, part, scores)


def listed_bias(g: Layers, part: Head, name: str, listed: str) -> str:
    """The bias (listed) of the token ids ``listed``, or "" if the head has none."""
    return g.op("Gather", g.fp32_parameter(f"{name}.bias"), listed) if part.has_bias else ""


def _transformed(g: Layers, part: Head, name: str, x: str, norm_epsilon: float) -> str:
    if not part.transform:
        return x
    x = g.activation(g.linear(x, f"{name}.dense"), part.transform)
    return g.layer_norm(x, f"{name}.norm", norm_epsilon)


def _table(part: Head, name: str, embedding: str) -> str:
    return embedding if part.is_tied else f"{name}.projection.weight"


def _scaled(g: Layers, part: Head, scores: str) -> str:
    return g.op("Mul", scores, g.constant(np.array(part.scale, np.float32)))
