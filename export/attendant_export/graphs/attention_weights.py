"""A graph for study: the attention weights of all layers and heads, of one text or one pair.

The counterpart of `verify.attention`. Texts are not padded, and rows are not packed.
"""

from collections.abc import Sequence

import numpy as np
from attendant.v1.architecture_pb2 import Architecture, Attention
from attendant_manifest.attention import CROSS, DECODER, ENCODER

from attendant_export.graphs.attention import (
    attend_memory,
    attend_sequence,
    memory_weights,
    relative_bias,
    sequence_weights,
)
from attendant_export.graphs.classification import token_types
from attendant_export.graphs.embeddings import add_first_positions, source_embeddings
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.parameters import KEYS_VALUES
from attendant_export.graphs.stack import final_norm, run_stack
from attendant_export.graphs.text_positions import TextPositions
from attendant_export.graphs.translation import cross_keys_values, decode_targets
from attendant_export.models.attention import projection_widths
from attendant_export.models.embeddings import embedding_width


def build_encoder_attention(g: Layers, architecture: Architecture) -> None:
    """One text's token ids to the weights of self-attention of every layer."""
    token_ids = g.input("token_ids", np.int64, 1, "length")
    _encode(g, architecture, token_ids, "relative_positions", "length")


def build_translation_attention(g: Layers, architecture: Architecture) -> None:
    """One source and what the decoder reads of one target to the weights of every attention."""
    source = g.input("source", np.int64, 1, "source")
    target_in = g.input("target_in", np.int64, 1, "target")
    x = _encode(g, architecture, source, "encoder_relative_positions", "source")
    x = final_norm(g, architecture.encoder, "encoder", x)
    batch = g.op("Shape", source)
    lengths = g.op("Gather", batch, g.integers(1))
    named = cross_keys_values(g, architecture, g.linear(x, KEYS_VALUES), batch)
    memory = [value for _, value, _ in named]
    g.change_rows()
    target = g.op("Shape", target_in)

    def attend_source(layer: int, part: Attention, query: str) -> str:
        keys, values = memory[2 * layer : 2 * layer + 2]
        weights = memory_weights(g, part, query, keys, lengths)
        g.output(f"{CROSS}_{layer}", weights, np.float32, 1, part.num_heads, "target", "source")
        return attend_memory(g, part, query, keys, values, lengths)

    def observe(layer: int, part: Attention, projected: Sequence[str], bias: str) -> None:
        weights = sequence_weights(g, part, projected, target, bias)
        g.output(f"{DECODER}_{layer}", weights, np.float32, 1, part.num_heads, "target", "target")

    decode_targets(g, architecture, target_in, attend_source, observe)


def _encode(
    g: Layers, architecture: Architecture, token_ids: str, relative_name: str, length: str
) -> str:
    """The last layer's output (rows, d_model) for one text, with its weights as graph outputs.

    ``relative_name`` is that of the table of `relative_bias`, ``length`` that of the dimension.
    """
    batch = g.op("Shape", token_ids)
    lengths = g.op("Gather", batch, g.integers(1))
    embeddings, stack = source_embeddings(architecture), architecture.encoder
    width = embedding_width(embeddings.part, architecture.d_model)
    bias, positions = relative_bias(g, stack, relative_name, batch), TextPositions(g, batch)
    num_run = 0

    def attend(_: int, part: Attention, query_key_value: str) -> str:
        nonlocal num_run
        projected = g.split_into(query_key_value, projection_widths(part), axis=1)
        weights = sequence_weights(g, part, projected, batch, bias, positions)
        name, num_run = f"{ENCODER}_{num_run}", num_run + 1
        g.output(name, weights, np.float32, 1, part.num_heads, length, length)
        return attend_sequence(g, part, projected, batch, lengths, bias, positions)

    def add_positions(x: str, table: str) -> str:
        return add_first_positions(g, x, batch, table, width)

    types = g.flat(token_types(g, batch)) if embeddings.reads_token_types else ""
    x = embeddings.run(g, g.flat(token_ids), add_positions, types)
    *_, x = run_stack(g, stack, "encoder", x, attend)
    return x
