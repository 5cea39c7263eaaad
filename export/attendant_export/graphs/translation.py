"""The encoder and the scorer of a Transformer, and what its steps share with them.

Owns their inputs and outputs. Knows no precision: the layers it is given do.
"""

import math
from functools import partial

import numpy as np

from attendant_export.data.shortlists import Shortlists
from attendant_export.graphs.builder import Array
from attendant_export.graphs.layers import (
    Layers,
    Network,
    Packing,
    fp32_parameters,
    layer_norm_epsilon,
)
from attendant_export.graphs.step_interface import SHORTLIST, source_names
from attendant_export.models.transformer import Transformer, sinusoidal_positions

TABLE = "embedding.weight"
POSITIONS = "positions"
KEYS_VALUES = "decoder.cross_attention.keys_values"
SHORTLIST_TABLES = "shortlist.translations", "shortlist.frequent"


def translation_network(model: Transformer, max_positions: int) -> Network:
    """The parameters of ``model``, with positions 0 to ``max_positions`` - 1 among them.

    The projection of the encoder's output to keys and values is one layer for all of the decoder.
    """
    config = model.config
    parameters = fp32_parameters(model)
    memory: dict[str, list[Array]] = {"weight": [], "bias": []}
    for layer in range(config.num_decoder_layers):
        name = f"decoder.{layer}.cross_attention"
        for kind, pieces in memory.items():
            fused = parameters.pop(f"{name}.query_key_value.{kind}")
            parameters[f"{name}.query.{kind}"] = fused[: config.d_model]
            pieces.append(fused[config.d_model :])
    for kind, pieces in memory.items():
        parameters[f"{KEYS_VALUES}.{kind}"] = np.concatenate(pieces)
    parameters[POSITIONS] = sinusoidal_positions(max_positions, config.d_model).numpy()
    return Network(
        parameters=parameters,
        d_model=config.d_model,
        num_heads=config.num_heads,
        norm_first=config.norm_first,
        layer_norm_epsilon=layer_norm_epsilon(model),
        activation="Relu",
    )


def build_encoder(
    g: Layers,
    num_encoder_layers: int,
    num_decoder_layers: int,
    shortlists: Shortlists | None = None,
) -> None:
    """Source tokens to the cross-attention keys and values of every decoder layer.

    With ``shortlists`` also to the target tokens, not all different, that each text may use.
    """
    source = g.input("source", np.int64, "batch", "source")
    lengths = g.input("source_lengths", np.int64, "batch")
    batch = g.op("Shape", source)
    packing = Packing(g, batch, lengths)
    x = packing.add_positions(embedded(g, packing.pack(g.flat(source))), POSITIONS)
    for layer in range(num_encoder_layers):
        x = g.block(x, f"encoder.{layer}", packing.attend)
    if g.network.norm_first:
        x = g.layer_norm(x, "encoder_norm")
    keys_values = packing.pad(g.linear(x, KEYS_VALUES))
    pieces = g.split(keys_values, 2 * num_decoder_layers, axis=1)
    heads, head_dim = g.network.num_heads, g.network.head_dim
    shape = g.op("Concat", batch, g.integers(heads, head_dim), axis=0)
    for i, piece in enumerate(pieces):
        split = g.op("Transpose", g.op("Reshape", piece, shape), perm=(0, 2, 1, 3))
        name = source_names(i // 2)[i % 2]
        g.output(name, split, g.dtype, "batch", heads, "source", head_dim)
    if shortlists is not None:
        _give_shortlist(g, shortlists, source)


def _give_shortlist(g: Layers, shortlists: Shortlists, source: str) -> None:
    # Padding adds nothing: special tokens have no translations and are everyone's.
    tables = (shortlists.translations, shortlists.frequent)
    table, frequent = map(g.weight, SHORTLIST_TABLES, tables)
    translations = g.op("Gather", table, source)  # (batch, source, translations)
    num_texts = g.op("Shape", source, start=0, end=1)
    own = g.op("Concat", num_texts, g.integers(-1), axis=0)
    everyones = g.op("Concat", num_texts, g.integers(len(shortlists.frequent)), axis=0)
    listed = g.op(
        "Concat",
        g.op("Reshape", translations, own),
        g.op("Expand", frequent, everyones),
        axis=1,
    )
    g.output(SHORTLIST, listed, np.int32, "batch", "listed")


def build_scorer(g: Layers, num_decoder_layers: int) -> None:
    """Log-probabilities of the tokens of given targets, all positions at once."""
    target_in = g.input("target_in", np.int64, "batch", "target")
    target_out = g.input("target_out", np.int64, "batch", "target")
    source_lengths = g.input("source_lengths", np.int64, "batch")
    batch = g.op("Shape", target_in)
    x = embedded(g, g.flat(target_in))
    x = g.add_positions(x, batch, POSITIONS)
    for layer in range(num_decoder_layers):
        keys, values = (
            g.input(name, g.dtype, "batch", g.network.num_heads, "source", g.network.head_dim)
            for name in source_names(layer)
        )
        # Padding is on the right, where no earlier position attends to it.
        x = g.block(
            x,
            f"decoder.{layer}",
            lambda qkv: g.attend_sequence(qkv, batch, causal=True),
            partial(g.attend_memory, keys=keys, values=values, lengths=source_lengths),
        )
    log_probabilities = g.op("LogSoftmax", vocabulary_scores(g, x))  # (rows, vocab)
    chosen = g.op("Reshape", target_out, g.integers(-1, 1))
    chosen = g.op("GatherElements", log_probabilities, chosen, axis=1)  # (rows, 1)
    result = g.op("Reshape", chosen, batch)
    g.output("log_probabilities", result, np.float32, "batch", "target")


def embedded(g: Layers, token_ids: str) -> str:
    """Embeddings of ``token_ids`` (rows) as the first layer wants them: (rows, d_model)."""
    return g.embed(token_ids, TABLE, math.sqrt(g.network.d_model))


def vocabulary_scores(g: Layers, x: str, listed: str = "") -> str:
    """Hidden states (rows, d_model) to fp32 scores of the vocabulary (rows, vocab).

    Or of the token ids ``listed`` alone: (rows, listed).
    """
    if g.network.norm_first:
        x = g.layer_norm(x, "decoder_norm")
    return g.vocabulary_scores(x, TABLE, listed)
