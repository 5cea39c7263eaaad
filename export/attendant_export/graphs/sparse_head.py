"""The graph of the head of sparse vectors. The counterpart of `models.sparse_vectors`.

A loop computes the scores for some positions at a time (`parts`), and keeps only the vectors.
"""

import numpy as np
from attendant.v1.architecture_pb2 import Architecture

from attendant_export.graphs.head import vocabulary_scores
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.parts import in_parts
from attendant_export.models.embeddings import SOURCE

SPARSE_VECTORS = "sparse_vectors"
"""Output with the weights of tokens: (batch, vocab)."""


def build_sparse_head(g: Layers, architecture: Architecture) -> None:
    """Last hidden states of texts to their sparse vectors."""
    vocab_size = architecture.source_embeddings.vocab_size
    hidden = g.input("hidden", np.float32, "batch", "length", architecture.d_model)
    lengths = g.input("lengths", np.int64, "batch")
    x = hidden if g.dtype == np.float32 else g.cast(hidden, g.dtype)
    num_texts = g.op("Shape", lengths)
    zero = g.constant(np.array(0, np.float32))
    zeros = g.op("Expand", zero, g.op("Concat", num_texts, g.integers(vocab_size), axis=0))
    length = g.op("Shape", hidden, start=1, end=2)
    positions = in_parts(g, num_texts, length, vocab_size)
    vectors = g.last_state(_body(g, architecture, x, lengths, num_texts), zeros, positions)
    if not architecture.sparse_vectors.is_sum:
        vectors = _logarithms(g, architecture, vectors)
    g.output(SPARSE_VECTORS, vectors, np.float32, "batch", vocab_size)


def _body(g: Layers, architecture: Architecture, x: str, lengths: str, num_texts: str) -> Layers:
    """Adds some positions of ``x`` (batch, length, d_model) to the vectors (batch, vocab)."""
    vocab_size = architecture.source_embeddings.vocab_size
    body = g.body("sparse_vectors_of_positions")
    vectors = body.input("vectors_before", np.float32, "batch", vocab_size)
    positions = body.input("positions", np.int64, "size")
    ends = body.op("Unsqueeze", body.op("Sub", lengths, body.integer(1)), body.integers(1))
    # Positions after the end of a text repeat its last token.
    tokens = body.op("Unsqueeze", body.op("Min", positions, ends), body.integers(2))
    rows = body.rows(body.op("GatherND", x, tokens, batch_dims=1), architecture.d_model)
    epsilon, table = architecture.encoder.norm_epsilon, f"{SOURCE.tokens}.weight"
    scores = vocabulary_scores(body, architecture.head, "mask_head", rows, table, epsilon)
    shape = body.op("Concat", num_texts, body.integers(-1, vocab_size), axis=0)
    scores = body.op("Reshape", scores, shape)  # (batch, size, vocab)
    if architecture.sparse_vectors.is_sum:
        is_real = body.cast(body.op("LessOrEqual", positions, ends), np.float32)
        weights = _logarithms(body, architecture, body.op("Relu", scores))
        found = body.op("MatMul", body.op("Unsqueeze", is_real, body.integers(1)), weights)
        vectors = body.op("Add", vectors, body.op("Squeeze", found, body.integers(1)))
    else:
        # The first vectors are 0, so no score is negative. The logarithm keeps their order.
        largest = body.op("ReduceMax", scores, body.integers(1), keepdims=0)
        vectors = body.op("Max", vectors, largest)
    body.output("vectors_after", vectors, np.float32, "batch", vocab_size)
    return body


def _logarithms(g: Layers, architecture: Architecture, x: str) -> str:
    """log(1 + ``x``), or log(1 + log(1 + ``x``))."""
    for _ in range(architecture.sparse_vectors.num_logarithms):
        x = g.op("Log", g.op("Add", x, g.constant(np.array(1, np.float32))))
    return x
