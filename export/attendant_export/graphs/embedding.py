"""The two graphs of a BERT: embedder and mlm_head.

Owns their inputs and outputs. Knows no precision: the layers it is given do.
"""

import numpy as np

from attendant_export.graphs.layers import (
    Layers,
    Network,
    Packing,
    fp32_parameters,
    layer_norm_epsilon,
)
from attendant_export.models.bert import Bert

TABLE = "embedding.weight"
POSITIONS = "position_embedding.weight"


def embedding_network(model: Bert) -> Network:
    """The parameters of ``model``; tokens are of segment 0, whose vector joins the positions."""
    parameters = fp32_parameters(model)
    parameters[POSITIONS] = parameters[POSITIONS] + parameters.pop("segment_embedding.weight")[0]
    return Network(
        parameters=parameters,
        d_model=model.config.d_model,
        num_heads=model.config.num_heads,
        norm_first=model.config.norm_first,
        layer_norm_epsilon=layer_norm_epsilon(model),
        activation="Gelu",
    )


def build_embedder(g: Layers, num_layers: int) -> None:
    """Tokens to the hidden states of every layer and to pooled vectors that leave out padding."""
    token_ids = g.input("token_ids", np.int64, "batch", "length")
    lengths = g.input("lengths", np.int64, "batch")
    batch = g.op("Shape", token_ids)
    packing = Packing(g, batch, lengths)
    x = packing.add_positions(g.embed(packing.pack(g.flat(token_ids)), TABLE), POSITIONS)
    x = g.layer_norm(x, "embedding_norm")
    states = [x]
    for layer in range(num_layers):
        x = g.block(x, f"encoder.{layer}", packing.attend)
        states.append(x)
    if g.network.norm_first:
        states[-1] = g.layer_norm(x, "encoder_norm")
    hidden = [g.fp32(g.by_text(packing.pad(state), batch)) for state in states]
    for name, vector in _pooled(g, hidden[-1], batch, lengths).items():
        g.output(f"{name}_pooled", vector, np.float32, "batch", g.network.d_model)
    for layer, state in enumerate(hidden):
        g.output(f"hidden_{layer}", state, np.float32, "batch", "length", g.network.d_model)


def _pooled(g: Layers, hidden: str, batch: str, lengths: str) -> dict[str, str]:
    """Mean, first and largest of each text's ``hidden`` (batch, length, d_model), all fp32."""
    is_real = g.op("Unsqueeze", g.is_real(batch, lengths), g.integers(2))  # (batch, length, 1)
    counts = g.op("Unsqueeze", lengths, g.integers(1))  # (batch, 1)
    zero, lowest = (g.constant(np.array(value, np.float32)) for value in (0, -np.inf))
    terms, candidates = (g.op("Where", is_real, hidden, other) for other in (zero, lowest))
    total = g.op("ReduceSum", terms, g.integers(1), keepdims=0)  # (batch, d_model)
    return {
        "mean": g.op("Div", total, g.cast(counts, np.float32)),
        "cls": g.op("Gather", hidden, g.integer(0), axis=1),
        "max": g.op("ReduceMax", candidates, g.integers(1), keepdims=0),
    }


def build_mlm_head(g: Layers) -> None:
    """Last hidden states at masked positions to the most probable tokens."""
    hidden = g.input("hidden", np.float32, "masks", g.network.d_model)
    top_k = g.input("top_k", np.int64, 1)
    x = hidden if g.dtype == np.float32 else g.cast(hidden, g.dtype)
    x = g.layer_norm(g.op("Gelu", g.linear(x, "mask_head.dense")), "mask_head.norm")
    scores = g.vocabulary_scores(x, TABLE)
    scores = g.op("Add", scores, g.weight("mask_head.bias", g.network.parameters["mask_head.bias"]))
    best, ids = g.top_k(g.op("Softmax", scores), top_k, g.network.parameters[TABLE].shape[0])
    g.output("candidate_ids", ids, np.int64, "masks", "candidates")
    g.output("candidate_probabilities", best, np.float32, "masks", "candidates")
