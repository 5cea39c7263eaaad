"""The graphs of a Transformer: encoder, scorer, and the steps of the decoder.

Owns their inputs and outputs. Knows no precision: the layers it is given do.
"""

import math
from collections.abc import Callable, Sequence
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
from attendant_export.models.transformer import Transformer, sinusoidal_positions

TABLE = "embedding.weight"
POSITIONS = "positions"
KINDS = ("key", "value")
NUM_GREEDY_STEPS = 2
"""Steps in one run of ``greedy_steps``."""
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
    g.output("shortlist", listed, np.int32, "batch", "listed")


def build_decoder_step(g: Layers, num_decoder_layers: int, has_shortlist: bool = False) -> None:
    """One more token for rows of any age, in caches that are bound as past and present at once.

    The rows of one sentence share its source. With a shortlist, the token is one of ``shortlist``
    (listed), sorted token ids, that its row ``may_use`` (rows, listed); adjusted are columns of it.
    """
    source_lengths = g.input("source_lengths", np.int64, "sentences")

    def attend_memory(layer: int, query: str) -> str:
        return g.attend_memory(query, *_memory(g, layer, "sentences"), source_lengths)

    _build_step(g, num_decoder_layers, attend_memory, _Outputs(g, has_shortlist))


def build_greedy_step(g: Layers, num_decoder_layers: int) -> None:
    """`build_decoder_step` for one row per sentence, with cross-attention as if to a past.

    Its kernel takes a past of a length of its own for each row, where that of ``decoder_step``
    computes and then masks what a row's source is shorter than the longest. What it appends to the
    past is the source's last position, which is there already.
    """
    sources = _SourcesAsPasts(g, num_decoder_layers)
    _build_step(g, num_decoder_layers, partial(sources.attend, step_suffix(0)), _Outputs(g))


def build_greedy_steps(g: Layers, num_decoder_layers: int, has_shortlist: bool = False) -> None:
    """`NUM_GREEDY_STEPS` of `build_greedy_step`; each appends the best token of the one before.

    Gives the best tokens of all steps and their log-probabilities, in the order of the steps, also
    behind an end. The present of each step is an output of its own, for the same memory.
    A shortlist is as in `build_decoder_step`.
    """
    sources, outputs = _SourcesAsPasts(g, num_decoder_layers), _Outputs(g, has_shortlist)
    tokens, lengths, total_length = _rows_to_step(g)
    past = _past(g, num_decoder_layers)
    last_position = g.constant(np.array(g.network.parameters[POSITIONS].shape[0] - 1, np.int32))
    one = g.constant(np.array(1, np.int32))
    found: list[tuple[str, str]] = []
    for step in range(NUM_GREEDY_STEPS):
        suffix = step_suffix(step)
        adjusted = _adjustments(g, suffix)
        # Steps behind the end of a full row are of no use, but must not fail.
        positions = g.op("Min", lengths, last_position) if step else ""
        attend = partial(sources.attend, suffix)
        x, past = _step(g, tokens, lengths, total_length, past, attend, positions)
        _give_presents(g, past, suffix)
        found.append(outputs.best(x, adjusted, g.integers(1)))
        tokens = g.flat(found[-1][1])
        lengths, total_length = g.op("Add", lengths, one), g.op("Add", total_length, one)
    best, ids = (g.op("Concat", *each, axis=1) for each in zip(*found, strict=True))
    g.output("candidate_ids", ids, np.int64, "rows", NUM_GREEDY_STEPS)
    g.output("candidate_log_probabilities", best, np.float32, "rows", NUM_GREEDY_STEPS)


class _SourcesAsPasts:
    """Cross-attention of one row per sentence to its source as if that were its past."""

    def __init__(self, g: Layers, num_decoder_layers: int) -> None:
        source_lengths = g.input("source_lengths", np.int64, "rows")
        self._g = g
        self._total_length = g.input("total_source_length", np.int32, 1)
        last = g.op("Sub", source_lengths, g.integer(1))  # (rows)
        by_head = g.op("Unsqueeze", last, g.integers(1, 2))
        by_head = g.op("Expand", by_head, g.integers(1, g.network.num_heads, 1))
        self._lengths = g.cast(last, np.int32)
        self._memory = [_memory(g, layer, "rows") for layer in range(num_decoder_layers)]
        self._last = [
            [g.rows(g.op("GatherND", each, by_head, batch_dims=2)) for each in memory]
            for memory in self._memory
        ]  # keys and values of each layer: (rows, d_model)

    def attend(self, suffix: str, layer: int, query: str) -> str:
        """Queries (rows, d_model) of a layer to weighted values (rows, d_model).

        ``suffix`` is that of the step.
        """
        g, memory = self._g, self._memory[layer]
        key, value = self._last[layer]
        weighted, presents = g.attend_past(
            (query, key, value), memory, self._lengths, self._total_length
        )
        for kind, present in zip(KINDS, presents, strict=True):
            shape = ("rows", g.network.num_heads, "source", g.network.head_dim)
            g.output(f"present_cross_{kind}_{layer}{suffix}", present, g.dtype, *shape)
        return weighted


class _Outputs:
    """What the hidden states of a step become: the best tokens, of all or of a shortlist."""

    def __init__(self, g: Layers, has_shortlist: bool = False) -> None:
        self._g, self._listed, self._may_use = g, "", ""
        if has_shortlist:
            self._listed = g.input("shortlist", np.int64, "listed")
            self._may_use = g.input("may_use", np.bool_, "rows", "listed")

    def best(self, x: str, adjusted: tuple[str, str], k: str) -> tuple[str, str]:
        """Log-probabilities and ids of the ``k`` best tokens after ``x`` (rows, d_model).

        Each (rows, k).
        """
        g = self._g
        scores = _scores(g, x, self._listed)  # (rows, vocab) or (rows, listed)
        if self._listed:
            never = g.constant(np.array(-np.inf, np.float32))
            scores = g.op("Where", self._may_use, scores, never)
        # After the softmax: what is left to choose from keeps its probabilities.
        log_p = g.op("ScatterND", g.op("LogSoftmax", scores), *adjusted, reduction="add")
        if not self._listed:
            return g.top_k(log_p, k, g.network.parameters[TABLE].shape[0])
        best, columns = g.ops("TopK", log_p, k, num_results=2)
        return best, g.op("Gather", self._listed, columns)


def _build_step(
    g: Layers,
    num_decoder_layers: int,
    attend_memory: Callable[[int, str], str],
    outputs: _Outputs,
) -> None:
    """A step with a cross-attention that maps the layer and queries to weighted values."""
    tokens, lengths, total_length = _rows_to_step(g)
    num_candidates = g.input("num_candidates", np.int64, 1)
    adjusted = _adjustments(g)
    past = _past(g, num_decoder_layers)
    x, presents = _step(g, tokens, lengths, total_length, past, attend_memory)
    _give_presents(g, presents)
    best, ids = outputs.best(x, adjusted, num_candidates)
    g.output("candidate_ids", ids, np.int64, "rows", "candidates")
    g.output("candidate_log_probabilities", best, np.float32, "rows", "candidates")


def step_suffix(step: int) -> str:
    """What the names of a later step's inputs and outputs end with."""
    return f"_{step}" if step else ""


def _rows_to_step(g: Layers) -> tuple[str, str, str]:
    tokens = g.input("tokens", np.int64, "rows")
    lengths = g.input("lengths", np.int32, "rows")
    return tokens, lengths, g.input("total_length", np.int32, 1)


def _adjustments(g: Layers, suffix: str = "") -> tuple[str, str]:
    positions = g.input(f"adjusted_positions{suffix}", np.int64, f"adjustments{suffix}", 2)
    return positions, g.input(f"adjustments{suffix}", np.float32, f"adjustments{suffix}")


def _past(g: Layers, num_decoder_layers: int) -> list[tuple[str, str]]:
    shape = ("rows", g.network.num_heads, "max_length", g.network.head_dim)
    return [
        (g.input(f"past_key_{i}", g.dtype, *shape), g.input(f"past_value_{i}", g.dtype, *shape))
        for i in range(num_decoder_layers)
    ]


def _give_presents(g: Layers, presents: Sequence[tuple[str, str]], suffix: str = "") -> None:
    shape = ("rows", g.network.num_heads, "max_length", g.network.head_dim)
    for layer, keys_values in enumerate(presents):
        for kind, present in zip(KINDS, keys_values, strict=True):
            g.output(f"present_{kind}_{layer}{suffix}", present, g.dtype, *shape)


def _step(
    g: Layers,
    tokens: str,
    lengths: str,
    total_length: str,
    past: Sequence[tuple[str, str]],
    attend_memory: Callable[[int, str], str],
    positions: str = "",
) -> tuple[str, list[tuple[str, str]]]:
    """Hidden states behind the last layer, (rows, d_model), and the presents of each layer.

    ``positions`` of the tokens are ``lengths``, unless given.
    """
    presents: list[tuple[str, str]] = []

    def attend_past(layer: int, query_key_value: str) -> str:
        fused = (query_key_value, "", "")
        weighted, present = g.attend_past(fused, past[layer], lengths, total_length)
        presents.append((present[0], present[1]))
        return weighted

    x = _embed(g, tokens)
    x = g.op("Add", x, g.op("Gather", g.parameter(POSITIONS), positions or lengths))
    for layer in range(len(past)):
        x = g.block(
            x, f"decoder.{layer}", partial(attend_past, layer), partial(attend_memory, layer)
        )
    return x, presents


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


def _scores(g: Layers, x: str, listed: str = "") -> str:
    """Hidden states (rows, d_model) to fp32 scores of the vocabulary (rows, vocab).

    Or of the token ids ``listed`` alone: (rows, listed).
    """
    if g.network.norm_first:
        x = g.layer_norm(x, "decoder_norm")
    return g.vocabulary_scores(x, TABLE, listed)
