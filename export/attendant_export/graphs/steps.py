"""The step graphs of a decoder. The layers that it is given determine the precision."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from attendant.v1.architecture_pb2 import Architecture, Attention, LayerGroup
from attendant.v1.bundle_pb2 import StepGraph

from attendant_export.graphs import recurrent, ssru
from attendant_export.graphs.attention import (
    attend_past,
    inner_width,
    relative_bias_of_past,
)
from attendant_export.graphs.convolution import StepKernels
from attendant_export.graphs.embeddings import target_embeddings
from attendant_export.graphs.layers import WIDTH_UNIT, Layers
from attendant_export.graphs.repetition import give_penalized_candidates
from attendant_export.graphs.source_attention import SourceAttention, positions_of_rows
from attendant_export.graphs.stack import AttendSource, SourcePart, final_norm, run_stack
from attendant_export.graphs.step_interface import RowState, StepInterface
from attendant_export.graphs.translation import (
    listed_target_bias,
    listed_target_scores,
    target_scores,
)
from attendant_export.models.convolution import state_width
from attendant_export.models.stack import each_layer

NUM_GREEDY_TOKENS = 2
"""Number of tokens that one run of ``greedy_steps`` decodes."""
NUM_LISTED_GREEDY_TOKENS = 4
"""The same with a shortlist, whose rows of the vocabulary every run collects once."""

AttendAt = Callable[[str], AttendSource]
"""The attention to the source, given the number of tokens before that of each row (rows)."""


def build_decoder_step(
    g: Layers,
    architecture: Architecture,
    has_shortlist: bool = False,
    penalizes_repetition: bool = False,
) -> StepGraph:
    """A step of one token for rows with pasts of any lengths. It extends the caches in place.

    The rows of one sentence share its source, if there is an encoder. With a shortlist, candidates
    come from the sorted token ids ``shortlist`` (listed) as far as ``shortlist_mask`` (rows,
    listed) allows, and token biases refer to columns of the shortlist. A step that penalizes
    repetition takes penalties of tokens and returns scores beside log-probabilities; it has no
    shortlist.
    """
    if not architecture.HasField("encoder"):
        interface = StepInterface(g, has_prefill=True)
        return _build_step(interface, g, architecture, None, False, penalizes_repetition)
    interface = StepInterface(g)
    attend_at = _attend_sources(g, interface, architecture)
    return _build_step(interface, g, architecture, attend_at, has_shortlist, penalizes_repetition)


def build_greedy_step(g: Layers, architecture: Architecture) -> StepGraph:
    """`build_decoder_step` for one row per sentence, with the source as the past of an attention.

    The kernel for pasts takes a separate length for each row. The kernel of ``decoder_step``
    computes all positions of the longest source and masks padding. The kernel for pasts also
    appends a position, so it is given the source's last position, which leaves the memory
    unchanged.
    """
    interface = StepInterface(g, rows_per_sentence=1)
    return _build_step(interface, g, architecture, _attend_one_row(g, interface, architecture))


def _build_step(
    interface: StepInterface,
    g: Layers,
    architecture: Architecture,
    attend_at: AttendAt | None,
    has_shortlist: bool = False,
    penalizes_repetition: bool = False,
) -> StepGraph:
    """A step of one token that returns the requested number of candidates."""
    choice = _Choice(g, architecture, interface, has_shortlist)
    rows = interface.rows()
    num_candidates = interface.num_candidates()
    bias = interface.token_bias()
    states = _row_states(interface, architecture)
    x, states = _decode(g, architecture, *rows, states, attend_at)
    _give_states(interface, architecture, states, is_last=True)
    if penalizes_repetition:
        scores = target_scores(g, architecture, x)
        vocab_size = architecture.target_embeddings.vocab_size
        give_penalized_candidates(g, interface, scores, bias, num_candidates, vocab_size)
    else:
        best, ids = choice.best(x, bias, num_candidates)
        interface.give_candidates(ids, best)
    return interface.signature


def build_greedy_steps(
    g: Layers, architecture: Architecture, has_shortlist: bool = False
) -> StepGraph:
    """Several times `build_greedy_step`; each token is the input of the next one.

    Returns the best token of each step and its log-probability. Tokens after EOS are undefined. The
    present keys and values of each step are separate outputs, bound to the same memory. A replaced
    state has one output, after the last step. `build_decoder_step` explains shortlists.
    """
    num_tokens = NUM_LISTED_GREEDY_TOKENS if has_shortlist else NUM_GREEDY_TOKENS
    has_encoder = architecture.HasField("encoder")
    interface = StepInterface(
        g, num_tokens=num_tokens, rows_per_sentence=1, has_prefill=not has_encoder
    )
    attend_at = _attend_one_row(g, interface, architecture) if has_encoder else None
    choice = _Choice(g, architecture, interface, has_shortlist)
    tokens, lengths, total_length = interface.rows()
    states = _row_states(interface, architecture)
    last_position = _last_position(g, architecture)
    one = g.constant(np.array(1, np.int32))
    found: list[tuple[str, str]] = []
    for number in range(num_tokens):
        bias = interface.token_bias()
        # Tokens after the last position of a full row are ignored, but must not fail.
        positions = g.op("Min", lengths, last_position) if number and last_position else lengths
        rows = (tokens, lengths, total_length)
        x, states = _decode(g, architecture, *rows, states, attend_at, positions)
        _give_states(interface, architecture, states, is_last=number == num_tokens - 1)
        found.append(choice.best(x, bias, g.integers(1)))
        tokens = g.flat(found[-1][1])
        lengths, total_length = g.op("Add", lengths, one), g.op("Add", total_length, one)
    best, ids = (g.op("Concat", *each, axis=1) for each in zip(*found, strict=True))
    interface.give_candidates(ids, best)
    return interface.signature


def _attend_sources(g: Layers, interface: StepInterface, architecture: Architecture) -> AttendAt:
    """Attention of any number of rows per sentence."""
    lengths, sources = interface.source_lengths(), interface.sources(architecture)

    def attend_at(row_lengths: str) -> AttendSource:
        positions = partial(positions_of_rows, g, row_lengths, lengths)
        return SourceAttention(g, sources, lengths, positions, has_whole_targets=False).attend

    return attend_at


def _attend_one_row(g: Layers, interface: StepInterface, architecture: Architecture) -> AttendAt:
    """Attention of one row per sentence, by the kernel for pasts if all layers have heads."""
    layers = each_layer(architecture.decoder)
    if not all(group.HasField("cross_attention") for group in layers):
        return _attend_sources(g, interface, architecture)
    attend = _SourcesAsPasts(g, interface, architecture).attend
    return lambda row_lengths: attend


class _SourcesAsPasts:
    """Cross-attention with one row per sentence that treats each source as the past of its row."""

    def __init__(self, g: Layers, interface: StepInterface, architecture: Architecture) -> None:
        source_lengths = interface.source_lengths()
        self._g, self._interface = g, interface
        self._total_length = interface.total_source_length()
        parts = [group.cross_attention for group in each_layer(architecture.decoder)]
        last = g.op("Sub", source_lengths, g.integer(1))  # (rows)
        by_row = g.op("Unsqueeze", last, g.integers(1, 2))
        by_head = {
            heads: g.op("Expand", by_row, g.integers(1, heads, 1))
            for heads in dict.fromkeys(part.num_heads for part in parts)
        }
        self._lengths = g.cast(last, np.int32)
        self._sources = [(keys, values) for keys, values in interface.sources(architecture)]
        self._last = [
            [
                g.rows(
                    g.op("GatherND", x, by_head[part.num_heads], batch_dims=2), inner_width(part)
                )
                for x in source
            ]
            for part, source in zip(parts, self._sources, strict=True)
        ]  # keys and values of each layer: (rows, inner)

    def attend(self, layer: int, part: SourcePart, query: str) -> str:
        """Queries (rows, inner) of a layer to weighted values (rows, inner)."""
        assert isinstance(part, Attention)
        key, value = self._last[layer]
        weighted, presents = attend_past(
            *(self._g, part, (query, key, value), self._sources[layer]),
            *(self._lengths, self._total_length),
        )
        self._interface.give_source(layer, presents)
        return weighted


class _Choice:
    """Selects the best tokens from hidden states, among the vocabulary or a shortlist."""

    def __init__(
        self, g: Layers, architecture: Architecture, interface: StepInterface, has_shortlist: bool
    ) -> None:
        self._g, self._architecture, self._listed, self._mask = g, architecture, "", ""
        if has_shortlist:
            self._listed, self._mask = self._padded(*interface.shortlist())
            bias = listed_target_bias(g, architecture, self._listed)
            # Added once in a run, not for each of its tokens.
            self._mask = g.op("Add", self._mask, bias) if bias else self._mask

    def _padded(self, listed: str, may_use: str) -> tuple[str, str]:
        """The shortlist (listed), and an fp32 mask (rows, listed) of 0 and minus infinity.

        Both are as wide as `Layers.top_k_of_units` wants them.
        """
        g, never = self._g, self._g.constant(np.array(-np.inf, np.float32))
        length = g.op("Shape", listed)
        missing = g.op("Mod", g.op("Neg", length), g.integers(WIDTH_UNIT))
        longer = g.op("Pad", listed, g.op("Concat", g.integers(0), missing, axis=0))
        mask = g.op("Where", may_use, g.constant(np.array(0, np.float32)), never)
        wider = g.op("Concat", g.integers(0, 0, 0), missing, axis=0)
        return longer, g.op("Pad", mask, wider, never)

    def best(self, x: str, bias: tuple[str, str], k: str) -> tuple[str, str]:
        """Log-probabilities and ids (rows, k) of the ``k`` best next tokens.

        ``x`` is (rows, d_model). ``bias`` holds the indices and values of token biases.
        """
        g = self._g
        if self._listed:
            scores = listed_target_scores(g, self._architecture, x, self._listed)
            scores = g.op("Add", scores, self._mask)  # (rows, listed)
        else:
            scores = target_scores(g, self._architecture, x)  # (rows, vocab)
        # Added after the softmax, so that the other tokens keep their probabilities.
        log_p = g.op("ScatterND", g.op("LogSoftmax", scores), *bias, reduction="add")
        if not self._listed:
            return g.top_k(log_p, k, self._architecture.target_embeddings.vocab_size)
        best, columns = g.top_k_of_units(log_p, k)
        return best, g.op("Gather", self._listed, columns)


class _RowStates(NamedTuple):
    """What a row keeps from token to token."""

    of_layers: dict[int, RowState]
    """The state of each layer's token mixer, except for convolutions."""
    kernels: str
    """The state of all convolutions; "" without any."""


def _row_states(interface: StepInterface, architecture: Architecture) -> _RowStates:
    layers = {
        layer: interface.past(layer, group.self_attention)
        if group.HasField("self_attention")
        else interface.replaced(layer, group, architecture.d_model)
        for layer, group in enumerate(each_layer(architecture.decoder))
        if not group.HasField("convolution")
    }
    width = state_width(architecture)
    return _RowStates(layers, interface.kernels(width) if width else "")


def _give_states(
    interface: StepInterface, architecture: Architecture, states: _RowStates, is_last: bool
) -> None:
    """Declare the states after a token of the run, which may be the last one."""
    groups = each_layer(architecture.decoder)
    for layer, present in states.of_layers.items():
        if isinstance(present, tuple):
            interface.give_past(layer, present)
        elif is_last:
            interface.give_replaced(layer, groups[layer], present)
    if states.kernels and is_last:
        interface.give_kernels(states.kernels)


def _last_position(g: Layers, architecture: Architecture) -> str:
    """Index of the last row of the table of positions; "" without positions."""
    table = target_embeddings(architecture).positions
    return table and g.constant(np.array(g.parameters[table].shape[0] - 1, np.int32))


def _decode(
    g: Layers,
    architecture: Architecture,
    tokens: str,
    lengths: str,
    total_length: str,
    states: _RowStates,
    attend_at: AttendAt | None,
    positions: str = "",
) -> tuple[str, _RowStates]:
    """Hidden states (rows, d_model) after the last layer, and the next states of token mixers.

    ``positions`` are those of the tokens; they default to ``lengths``.
    """
    presents: dict[int, RowState] = {}
    stack = architecture.decoder
    bias = relative_bias_of_past(g, stack, "decoder_relative_positions", lengths, total_length)

    def attend(layer: int, part: Attention, query_key_value: str) -> str:
        fused, past = (query_key_value, "", ""), states.of_layers[layer]
        assert isinstance(past, tuple)
        weighted, present = attend_past(g, part, fused, past, lengths, total_length, bias)
        presents[layer] = present
        return weighted

    def recur(layer: int, group: LayerGroup, gates: str) -> str:
        before = states.of_layers[layer]
        assert isinstance(before, list)
        if group.HasField("ssru"):
            after = [ssru.next_state(g, gates, before[0])]
        else:
            name = f"decoder.{layer}.recurrent"
            after = recurrent.next_states(g, group.recurrent, name, gates, before)
        presents[layer] = after
        return after[0]

    def add_positions(x: str, table: str) -> str:
        return g.op("Add", x, g.op("Gather", g.parameter(table), positions or lengths))

    x = target_embeddings(architecture).run(g, tokens, add_positions)
    attend_source = None if attend_at is None else attend_at(lengths)
    kernels = StepKernels(g, architecture, states.kernels) if states.kernels else None
    tokens_of = None if kernels is None else kernels.tokens
    *_, x = run_stack(g, stack, "decoder", x, attend, attend_source, recur, tokens_of)
    after = _RowStates(presents, "" if kernels is None else kernels.after())
    return final_norm(g, stack, "decoder", x), after
