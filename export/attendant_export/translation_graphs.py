"""The graphs of a Transformer: encoder, decoder_step, greedy_step and scorer.

Owns their inputs and outputs. Knows no precision: the layers it is given do.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from attendant_export.graph_builder import Array
from attendant_export.graph_layers import (
    Layers,
    Network,
    Packing,
    fp32_parameters,
    layer_norm_epsilon,
)
from attendant_export.transformer import Transformer, sinusoidal_positions

TABLE = "embedding.weight"
POSITIONS = "positions"
KINDS = ("key", "value")
KEYS_VALUES = "decoder.cross_attention.keys_values"


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


def build_encoder(g: Layers, num_encoder_layers: int, num_decoder_layers: int) -> None:
    """Source tokens to the cross-attention keys and values of every decoder layer."""
    source = g.input("source", np.int64, "batch", "source")
    lengths = g.input("source_lengths", np.int64, "batch")
    batch = g.op("Shape", source)
    packing = Packing(g, batch, lengths)
    x = packing.add_positions(_embed(g, packing.pack(g.flat(source))), POSITIONS)
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
        name = f"cross_{KINDS[i % 2]}_{i // 2}"
        g.output(name, split, g.dtype, "batch", heads, "source", head_dim)


def build_decoder_step(g: Layers, num_decoder_layers: int) -> None:
    """One more token for rows of any age, in caches that are bound as past and present at once.

    The rows of one sentence share its source.
    """
    source_lengths = g.input("source_lengths", np.int64, "sentences")

    def attend_memory(layer: int, query: str) -> str:
        return g.attend_memory(query, *_memory(g, layer, "sentences"), source_lengths)

    _build_step(g, num_decoder_layers, attend_memory)


def build_greedy_step(g: Layers, num_decoder_layers: int) -> None:
    """`build_decoder_step` for one row per sentence, with cross-attention as if to a past.

    Its kernel takes a past of a length of its own for each row, where that of ``decoder_step``
    computes and then masks what a row's source is shorter than the longest. What it appends to the
    past is the source's last position, which is there already.
    """
    source_lengths = g.input("source_lengths", np.int64, "rows")
    total_length = g.input("total_source_length", np.int32, 1)
    last = g.op("Sub", source_lengths, g.integer(1))  # (rows)
    by_head = g.op("Unsqueeze", last, g.integers(1, 2))
    by_head = g.op("Expand", by_head, g.integers(1, g.network.num_heads, 1))  # (rows, heads, 1)
    lengths = g.cast(last, np.int32)

    def attend_memory(layer: int, query: str) -> str:
        memory = _memory(g, layer, "rows")
        key, value = (g.rows(g.op("GatherND", each, by_head, batch_dims=2)) for each in memory)
        weighted, presents = g.attend_past((query, key, value), memory, lengths, total_length)
        for kind, present in zip(KINDS, presents, strict=True):
            shape = ("rows", g.network.num_heads, "source", g.network.head_dim)
            g.output(f"present_cross_{kind}_{layer}", present, g.dtype, *shape)
        return weighted

    _build_step(g, num_decoder_layers, attend_memory)


def _build_step(
    g: Layers, num_decoder_layers: int, attend_memory: Callable[[int, str], str]
) -> None:
    """A step with a cross-attention that maps the layer and queries to weighted values."""
    tokens = g.input("tokens", np.int64, "rows")
    lengths = g.input("lengths", np.int32, "rows")
    total_length = g.input("total_length", np.int32, 1)
    num_candidates = g.input("num_candidates", np.int64, 1)
    adjusted_positions = g.input("adjusted_positions", np.int64, "adjustments", 2)
    adjustments = g.input("adjustments", np.float32, "adjustments")

    def attend_past(layer: int, query_key_value: str) -> str:
        shape = ("rows", g.network.num_heads, "max_length", g.network.head_dim)
        keys, values = (g.input(f"past_{kind}_{layer}", g.dtype, *shape) for kind in KINDS)
        fused = (query_key_value, "", "")
        weighted, presents = g.attend_past(fused, (keys, values), lengths, total_length)
        for kind, present in zip(KINDS, presents, strict=True):
            g.output(f"present_{kind}_{layer}", present, g.dtype, *shape)
        return weighted

    x = _embed(g, tokens)
    x = g.op("Add", x, g.op("Gather", g.parameter(POSITIONS), lengths))
    for layer in range(num_decoder_layers):
        x = g.block(
            x,
            f"decoder.{layer}",
            partial(attend_past, layer),
            partial(attend_memory, layer),
        )
    log_p = g.op("LogSoftmax", _scores(g, x))
    # After the softmax: what is left to choose from keeps the probabilities that the model gives.
    log_p = g.op("ScatterND", log_p, adjusted_positions, adjustments, reduction="add")
    best, ids = g.top_k(log_p, num_candidates, g.network.parameters[TABLE].shape[0])
    g.output("candidate_ids", ids, np.int64, "rows", "candidates")
    g.output("candidate_log_probabilities", best, np.float32, "rows", "candidates")


def build_scorer(g: Layers, num_decoder_layers: int) -> None:
    """Log-probabilities of the tokens of given targets, all positions at once."""
    target_in = g.input("target_in", np.int64, "batch", "target")
    target_out = g.input("target_out", np.int64, "batch", "target")
    source_lengths = g.input("source_lengths", np.int64, "batch")
    batch = g.op("Shape", target_in)
    x = _embed(g, g.flat(target_in))
    x = g.add_positions(x, batch, POSITIONS)
    for layer in range(num_decoder_layers):
        keys, values = _memory(g, layer, "batch")
        # Padding is on the right, where no earlier position attends to it.
        x = g.block(
            x,
            f"decoder.{layer}",
            lambda qkv: g.attend_sequence(qkv, batch, causal=True),
            partial(g.attend_memory, keys=keys, values=values, lengths=source_lengths),
        )
    log_probabilities = g.op("LogSoftmax", _scores(g, x))  # (rows, vocab)
    chosen = g.op("Reshape", target_out, g.integers(-1, 1))
    chosen = g.op("GatherElements", log_probabilities, chosen, axis=1)  # (rows, 1)
    result = g.op("Reshape", chosen, batch)
    g.output("log_probabilities", result, np.float32, "batch", "target")


def _embed(g: Layers, token_ids: str) -> str:
    """Embeddings of ``token_ids`` (rows) as the first layer wants them: (rows, d_model)."""
    return g.embed(token_ids, TABLE, math.sqrt(g.network.d_model))


def _memory(g: Layers, layer: int, batch: str) -> tuple[str, str]:
    """Declare the inputs for one layer's cross-attention keys and values."""
    shape = (batch, g.network.num_heads, "source", g.network.head_dim)
    keys = g.input(f"cross_key_{layer}", g.dtype, *shape)
    return keys, g.input(f"cross_value_{layer}", g.dtype, *shape)


def _scores(g: Layers, x: str) -> str:
    """Hidden states (rows, d_model) to fp32 scores of the vocabulary (rows, vocab)."""
    if g.network.norm_first:
        x = g.layer_norm(x, "decoder_norm")
    return g.vocabulary_scores(x, TABLE)
