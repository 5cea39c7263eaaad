"""Two graphs of an encoder: embedder and mlm_head.

Defines their inputs and outputs. The layers that it is given determine the precision.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from attendant.v1.architecture_pb2 import Architecture
from attendant_manifest.sizes import text_dimension, token_dimension

from attendant_export.graphs.attention import relative_bias
from attendant_export.graphs.classification import LABEL_SCORES, label_scores, token_types
from attendant_export.graphs.embeddings import add_first_positions, source_embeddings
from attendant_export.graphs.head import vocabulary_scores
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.packing import Packing
from attendant_export.graphs.stack import final_norm, run_stack
from attendant_export.graphs.text_vectors import text_vectors
from attendant_export.graphs.token_vectors import ATTENDED_LENGTHS, TOKEN_VECTORS, token_vectors
from attendant_export.models.embeddings import SOURCE, embedding_width


def build_embedder(g: Layers, architecture: Architecture) -> None:
    """Token ids to the hidden states of every layer and to vectors pooled over real tokens.

    With a classification head, also to the scores of labels; with vectors of tokens for late
    interaction, also to these.
    """
    token_ids = g.input("token_ids", np.int64, "batch", "length")
    lengths = g.input("lengths", np.int64, "batch")
    batch = g.op("Shape", token_ids)
    run = _packed_states if architecture.encoder.groups else _embeddings_alone
    has_unattended = architecture.token_vectors.has_unattended_tokens
    attended = g.input(ATTENDED_LENGTHS, np.int64, "batch") if has_unattended else lengths
    states, pad = run(g, architecture, token_ids, batch, lengths, attended)
    states[-1] = final_norm(g, architecture.encoder, "encoder", states[-1])
    hidden = [g.fp32(g.by_text(pad(state), batch)) for state in states]
    dimension = text_dimension(architecture)
    vectors = text_vectors(g, architecture, token_ids, hidden[-1], batch, lengths)
    for name, vector in vectors.items():
        g.output(f"{name}_pooled", vector, np.float32, "batch", dimension)
    if architecture.HasField("classification_head"):
        scores = label_scores(g, architecture, vectors)
        num_labels = architecture.classification_head.num_labels
        g.output(LABEL_SCORES, scores, np.float32, "batch", num_labels)
    if architecture.HasField("token_vectors"):
        vector = token_vectors(g, architecture, hidden[-1], batch)
        width = token_dimension(architecture)
        g.output(TOKEN_VECTORS, vector, np.float32, "batch", "length", width)
    for layer, state in enumerate(hidden):
        g.output(f"hidden_{layer}", state, np.float32, "batch", "length", architecture.d_model)


def _packed_states(
    g: Layers, architecture: Architecture, token_ids: str, batch: str, lengths: str, attended: str
) -> tuple[list[str], Callable[[str], str]]:
    """The embeddings and each layer's output without padding, and what adds their padding."""
    packing = Packing(g, batch, lengths, attended)
    embeddings, stack = source_embeddings(architecture), architecture.encoder
    types = packing.pack(g.flat(token_types(g, batch))) if embeddings.reads_token_types else ""
    x = embeddings.run(g, packing.pack(g.flat(token_ids)), packing.add_positions, types)
    bias = relative_bias(g, stack, "relative_positions", batch)
    attend = partial(packing.attend, bias=bias)
    return [x, *run_stack(g, stack, "encoder", x, attend)], packing.pad


def _embeddings_alone(
    g: Layers, architecture: Architecture, token_ids: str, batch: str, *_: str
) -> tuple[list[str], Callable[[str], str]]:
    """The same without layers. Packing would take more time than padding."""
    embeddings = source_embeddings(architecture)
    width = embedding_width(embeddings.part, architecture.d_model)

    def add_positions(x: str, table: str) -> str:
        return add_first_positions(g, x, batch, table, width)

    types = g.flat(token_types(g, batch)) if embeddings.reads_token_types else ""
    return [embeddings.run(g, g.flat(token_ids), add_positions, types)], lambda state: state


def build_mlm_head(g: Layers, architecture: Architecture) -> None:
    """Last hidden states at masked positions to the likeliest tokens."""
    hidden = g.input("hidden", np.float32, "masks", architecture.d_model)
    top_k = g.input("top_k", np.int64, 1)
    x = hidden if g.dtype == np.float32 else g.cast(hidden, g.dtype)
    epsilon, table = architecture.encoder.norm_epsilon, f"{SOURCE.tokens}.weight"
    scores = vocabulary_scores(g, architecture.head, "mask_head", x, table, epsilon)
    vocab_size = architecture.source_embeddings.vocab_size
    best, ids = g.top_k(g.op("Softmax", scores), top_k, vocab_size)
    g.output("candidate_ids", ids, np.int64, "masks", "candidates")
    g.output("candidate_probabilities", best, np.float32, "masks", "candidates")
