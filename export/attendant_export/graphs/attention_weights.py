"""A graph for study: the attention weights of all layers and heads, of one text or one pair.

The counterpart of `verify.attention`. Texts are not padded, and rows are not packed.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from attendant.v1.architecture_pb2 import Architecture, Attention, Stack
from attendant_manifest.attention import CROSS, DECODER, ENCODER
from attendant_manifest.sizes import num_source_heads

from attendant_export.graphs.attention import (
    attend_sequence,
    relative_bias,
    sequence_weights,
)
from attendant_export.graphs.classification import token_types
from attendant_export.graphs.embeddings import add_first_positions, source_embeddings
from attendant_export.graphs.encoded_sources import first_vectors, source_values
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.packing import Packing
from attendant_export.graphs.source_attention import SourceAttention, positions_of_targets
from attendant_export.graphs.stack import SourcePart, final_norm, run_stack
from attendant_export.graphs.step_interface import source_shapes
from attendant_export.graphs.text_positions import TextPositions
from attendant_export.graphs.translation import decode_targets
from attendant_export.models.attention import projection_widths
from attendant_export.models.convolution import convolutions
from attendant_export.models.embeddings import embedding_width
from attendant_export.models.recurrent import has_recurrences
from attendant_export.models.stack import each_layer, running_order


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
    values = source_values(g, architecture, x, batch)
    memory = [[values[name] for name in shapes] for shapes in source_shapes(architecture)]
    firsts = first_vectors(g, architecture, lambda: Packing(g, batch, lengths).ends(x))
    g.change_rows()
    target = g.op("Shape", target_in)
    positions = partial(positions_of_targets, g, target_in)
    attention = SourceAttention(g, memory, lengths, positions, has_whole_targets=True)
    num_heads = [num_source_heads(group) for group in each_layer(architecture.decoder)]

    def attend_source(layer: int, part: SourcePart, query: str) -> str:
        if heads := num_heads[layer]:
            weights = attention.weights(layer, part, query)
            g.output(f"{CROSS}_{layer}", weights, np.float32, 1, heads, "target", "source")
        return attention.attend(layer, part, query)

    def observe(layer: int, part: Attention, projected: Sequence[str], bias: str) -> None:
        weights = sequence_weights(g, part, projected, target, bias)
        g.output(f"{DECODER}_{layer}", weights, np.float32, 1, part.num_heads, "target", "target")

    decode_targets(g, architecture, target_in, attend_source, observe, firsts)


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
    layers = each_layer(stack)
    numbers = iter(
        run
        for run, number in enumerate(running_order(stack))
        if layers[number].HasField("self_attention")
    )

    def attend(_: int, part: Attention, query_key_value: str) -> str:
        projected = g.split_into(query_key_value, projection_widths(part), axis=1)
        weights = sequence_weights(g, part, projected, batch, bias, positions)
        g.output(
            f"{ENCODER}_{next(numbers)}", weights, np.float32, 1, part.num_heads, length, length
        )
        return attend_sequence(g, part, projected, batch, lengths, bias, positions)

    def add_positions(x: str, table: str) -> str:
        return add_first_positions(g, x, batch, table, width)

    types = g.flat(token_types(g, batch)) if embeddings.reads_token_types else ""
    x = embeddings.run(g, g.flat(token_ids), add_positions, types)
    packing = Packing(g, batch, lengths) if _needs_places(stack) else None
    recur = None if packing is None else packing.recur
    kernels = None if packing is None else packing.kernels(architecture)
    *_, x = run_stack(g, stack, "encoder", x, attend, recur=recur, tokens_of=kernels)
    return x


def _needs_places(stack: Stack) -> bool:
    """Whether layers work on the places of tokens in their texts."""
    return has_recurrences(stack) or any(convolutions(stack))
