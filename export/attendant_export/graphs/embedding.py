"""The two graphs of an encoder: embedder and mlm_head.

Defines their inputs and outputs. The layers that it is given determine the precision.
"""

from functools import partial

import numpy as np
from attendant.v1.architecture_pb2 import Architecture
from attendant_manifest.sizes import text_dimension

from attendant_export.graphs.attention import relative_bias
from attendant_export.graphs.classification import LABEL_SCORES, label_scores, token_types
from attendant_export.graphs.embeddings import source_embeddings
from attendant_export.graphs.head import vocabulary_scores
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.packing import Packing
from attendant_export.graphs.stack import final_norm, run_stack
from attendant_export.graphs.text_vectors import text_vectors
from attendant_export.models.embeddings import SOURCE


def build_embedder(g: Layers, architecture: Architecture) -> None:
    """Token ids to the hidden states of every layer and to vectors pooled over real tokens.

    With a classification head, also to the scores of labels.
    """
    token_ids = g.input("token_ids", np.int64, "batch", "length")
    lengths = g.input("lengths", np.int64, "batch")
    batch = g.op("Shape", token_ids)
    packing = Packing(g, batch, lengths)
    embeddings, stack = source_embeddings(architecture), architecture.encoder
    types = ""
    if embeddings.reads_token_types:
        types = packing.pack(g.flat(token_types(g, batch)))
    x = embeddings.run(g, packing.pack(g.flat(token_ids)), packing.add_positions, types)
    bias = relative_bias(g, stack, "relative_positions", batch)
    attend = partial(packing.attend, bias=bias)
    states = [x, *run_stack(g, stack, "encoder", x, attend)]
    states[-1] = final_norm(g, stack, "encoder", states[-1])
    hidden = [g.fp32(g.by_text(packing.pad(state), batch)) for state in states]
    dimension = text_dimension(architecture)
    vectors = text_vectors(g, architecture, token_ids, hidden[-1], batch, lengths)
    for name, vector in vectors.items():
        g.output(f"{name}_pooled", vector, np.float32, "batch", dimension)
    if architecture.HasField("classification_head"):
        scores = label_scores(g, architecture, vectors)
        num_labels = architecture.classification_head.num_labels
        g.output(LABEL_SCORES, scores, np.float32, "batch", num_labels)
    for layer, state in enumerate(hidden):
        g.output(f"hidden_{layer}", state, np.float32, "batch", "length", architecture.d_model)


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
