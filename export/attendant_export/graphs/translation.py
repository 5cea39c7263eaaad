"""Encoder, scorer and aligner of an encoder-decoder, and the output layer that steps share.

Defines their inputs and outputs. The layers that it is given determine the precision.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from attendant.v1.architecture_pb2 import Architecture, Attention, LayerGroup
from attendant_manifest.sizes import num_source_heads

from attendant_export.data.shortlists import Shortlists
from attendant_export.graphs import head, recurrent, ssru
from attendant_export.graphs.attention import attend_sequence, relative_bias
from attendant_export.graphs.convolution import kernels_of_targets
from attendant_export.graphs.embeddings import (
    add_first_positions,
    source_embeddings,
    target_embeddings,
)
from attendant_export.graphs.encoded_sources import first_vectors, source_values
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.packing import Packing
from attendant_export.graphs.parameters import SHORTLIST_TABLES
from attendant_export.graphs.source_attention import (
    SourceAttention,
    given_sources,
    positions_of_targets,
)
from attendant_export.graphs.stack import AttendSource, SourcePart, final_norm, run_stack
from attendant_export.graphs.step_interface import (
    SHORTLIST,
    first_vector_names,
    source_shapes,
)
from attendant_export.graphs.text_positions import TextPositions
from attendant_export.graphs.unfolding import UnfoldedTexts
from attendant_export.models.attention import projection_widths
from attendant_export.models.stack import each_layer
from attendant_export.models.unfolding import length_factor

Observe: TypeAlias = Callable[[int, Attention, Sequence[str], str], None]
"""Receives the number of a decoder layer, its self-attention, the projected queries, keys and
values (rows, width), and the bias of `attend_sequence`."""
FirstVectors: TypeAlias = Mapping[int, Sequence[str]]
"""By decoder layer, the vectors (batch, d_model) of a recurrence before the first token."""


def build_encoder(
    g: Layers, architecture: Architecture, shortlists: Shortlists | None = None
) -> None:
    """Source token ids to what every decoder layer keeps of them, and to the first states of rows.

    With ``shortlists``, also to each text's shortlist of target token ids, with repetitions.
    """
    source = g.input("source", np.int64, "batch", "source")
    lengths = g.input("source_lengths", np.int64, "batch")
    texts = UnfoldedTexts(g, source, lengths, length_factor(architecture))
    packing = Packing(g, texts.batch, texts.lengths)
    embeddings, stack = source_embeddings(architecture), architecture.encoder
    x = embeddings.run(g, packing.pack(g.flat(texts.tokens)), packing.add_positions)
    x = texts.embedded(x, packing)
    bias = relative_bias(g, stack, "encoder_relative_positions", texts.batch)
    attend = partial(packing.attend, bias=bias)
    kernels = packing.kernels(architecture)
    *_, x = run_stack(g, stack, "encoder", x, attend, recur=packing.recur, tokens_of=kernels)
    x = final_norm(g, stack, "encoder", x)
    values = source_values(g, architecture, x, texts.batch, packing.pad, texts)
    for shapes in source_shapes(architecture):
        for name, (heads, width) in shapes.items():
            g.output(name, values[name], g.dtype, "batch", heads, "source", width)
    firsts = first_vectors(g, architecture, partial(packing.ends, x))
    for layer, names in first_vector_names(architecture).items():
        for name, vector in zip(names, firsts[layer], strict=True):
            g.output(name, vector, np.float32, "batch", architecture.d_model)
    if shortlists is not None:
        _give_shortlist(g, shortlists, source)


def _give_shortlist(g: Layers, shortlists: Shortlists, source: str) -> None:
    # Padding adds no tokens: the row of a special token repeats a token of every shortlist.
    tables = (lambda: shortlists.translations, lambda: shortlists.frequent)
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


def build_scorer(g: Layers, architecture: Architecture) -> None:
    """Log-probabilities of the tokens of given targets, computed for all positions at once."""
    target_in, target_out = target_inputs(g)
    source_lengths = g.input("source_lengths", np.int64, "batch")

    attend = given_attention(g, architecture, source_lengths, target_in).attend
    firsts = given_vectors(g, architecture)
    x = decode_targets(g, architecture, target_in, attend, firsts=firsts)
    _give_log_probabilities(g, architecture, x, target_in, target_out)


def target_inputs(g: Layers) -> tuple[str, str]:
    """What the decoder reads and writes of given targets, each (batch, target)."""
    target_in = g.input("target_in", np.int64, "batch", "target")
    return target_in, g.input("target_out", np.int64, "batch", "target")


def _give_log_probabilities(
    g: Layers, architecture: Architecture, x: str, target_in: str, target_out: str
) -> None:
    """Declare the log-probabilities of ``target_out`` for the last layer's output ``x``."""
    x = final_norm(g, architecture.decoder, "decoder", x)
    scores = target_scores(g, architecture, x)
    log_probabilities = g.op("LogSoftmax", scores)  # (rows, vocab)
    chosen = g.op("Reshape", target_out, g.integers(-1, 1))
    chosen = g.op("GatherElements", log_probabilities, chosen, axis=1)  # (rows, 1)
    result = g.op("Reshape", chosen, g.op("Shape", target_in))
    g.output("log_probabilities", result, np.float32, "batch", "target")


def build_aligner(g: Layers, architecture: Architecture) -> None:
    """Cross-attention weights of given targets: a weighted sum over the heads of all layers.

    The sublayers after the last cross-attention contribute nothing, and no runtime computes them.
    """
    target_in = g.input("target_in", np.int64, "batch", "target")
    source_lengths = g.input("source_lengths", np.int64, "batch")
    num_heads = [num_source_heads(group) for group in each_layer(architecture.decoder)]
    head_weights = g.input("head_weights", np.float32, sum(num_heads))
    attending = [(layer, heads) for layer, heads in enumerate(num_heads) if heads]
    factors = g.split_into(head_weights, [heads for _, heads in attending], axis=0)
    of_layers = dict(zip((layer for layer, _ in attending), factors, strict=True))
    attention = given_attention(g, architecture, source_lengths, target_in)
    sums = []

    def attend_source(layer: int, part: SourcePart, query: str) -> str:
        if layer not in of_layers:
            return attention.attend(layer, part, query)
        weights = attention.weights(layer, part, query)
        factors = g.op("Reshape", of_layers[layer], g.integers(1, num_heads[layer], 1, 1))
        products = g.op("Mul", weights, factors)
        sums.append(g.op("ReduceSum", products, g.integers(1), keepdims=0))
        return attention.attend(layer, part, query)

    decode_targets(g, architecture, target_in, attend_source, firsts=given_vectors(g, architecture))
    alignment = reduce(partial(g.op, "Add"), sums)
    g.output("alignment", alignment, np.float32, "batch", "target", "source")


def given_attention(
    g: Layers, architecture: Architecture, source_lengths: str, target_in: str
) -> SourceAttention:
    """Attention of whole targets (batch, target) to what the encoder gave of sources."""
    sources, positions = given_sources(g, architecture), partial(positions_of_targets, g, target_in)
    return SourceAttention(g, sources, source_lengths, positions, has_whole_targets=True)


def given_vectors(g: Layers, architecture: Architecture) -> FirstVectors:
    """Inputs for the vectors before the first token, from the encoder."""
    return {
        layer: [g.input(name, np.float32, "batch", architecture.d_model) for name in names]
        for layer, names in first_vector_names(architecture).items()
    }


def decode_targets(
    g: Layers,
    architecture: Architecture,
    target_in: str,
    attend_source: AttendSource | None,
    observe: Observe | None = None,
    firsts: FirstVectors = MappingProxyType({}),
) -> str:
    """The output (rows, d_model) of the decoder's last layer for whole targets, teacher-forced.

    ``observe`` is called for each layer with self-attention. Without an encoder, there is no
    ``attend_source``, and targets may be long.
    """
    batch = g.op("Shape", target_in)
    positions, lengths = None, ""
    if attend_source is None:
        positions = TextPositions(g, batch)
        length = g.op("Gather", batch, g.integers(1))
        lengths = g.op("Expand", length, g.op("Gather", batch, g.integers(0)))
    width, stack = architecture.d_model, architecture.decoder

    def add_positions(x: str, table: str) -> str:
        return add_first_positions(g, x, batch, table, width)

    bias = relative_bias(g, stack, "decoder_relative_positions", batch)

    def attend(layer: int, part: Attention, query_key_value: str) -> str:
        # Padding is on the right, so causal attention ignores it.
        projected = g.split_into(query_key_value, projection_widths(part), axis=1)
        if observe is not None:
            observe(layer, part, projected, bias)
        return attend_sequence(g, part, projected, batch, lengths, bias, positions)

    def recur(layer: int, group: LayerGroup, gates: str) -> str:
        if group.HasField("ssru"):
            return ssru.states_of_sequence(g, gates, batch, width)
        name, of_texts = f"decoder.{layer}.recurrent", [g.by_text(gates, batch)]
        part, first = group.recurrent, firsts.get(layer, ())
        return recurrent.states_of_sequences(g, part, name, of_texts, first)[0]

    x = target_embeddings(architecture).run(g, g.flat(target_in), add_positions)
    kernels = kernels_of_targets(g, architecture, batch)
    *_, x = run_stack(g, stack, "decoder", x, attend, attend_source, recur, kernels)
    return x


def target_scores(g: Layers, architecture: Architecture, x: str) -> str:
    """Last hidden states (rows, d_model) to fp32 scores of the vocabulary (rows, vocab)."""
    return head.vocabulary_scores(g, architecture.head, "head", x, *_table(architecture))


def listed_target_scores(g: Layers, architecture: Architecture, x: str, listed: str) -> str:
    """`target_scores` of the token ids ``listed`` alone, without the bias: (rows, listed)."""
    return head.listed_scores(g, architecture.head, "head", x, *_table(architecture), listed)


def listed_target_bias(g: Layers, architecture: Architecture, listed: str) -> str:
    """The bias (listed) of the scores of the token ids ``listed``, or ""."""
    return head.listed_bias(g, architecture.head, "head", listed)


def _table(architecture: Architecture) -> tuple[str, float]:
    """The parameter of target embeddings, and the epsilon of norms."""
    table = f"{target_embeddings(architecture).names.tokens}.weight"
    return table, architecture.decoder.norm_epsilon
