"""The graphs that take steps of a Transformer's decoder. Knows no precision: the layers do."""

from collections.abc import Callable
from functools import partial

import numpy as np
from attendant.v1.bundle_pb2 import StepGraph

from attendant_export.graphs.layers import Layers
from attendant_export.graphs.step_interface import StepInterface
from attendant_export.graphs.translation import POSITIONS, TABLE, embedded, vocabulary_scores

NUM_GREEDY_TOKENS = 2
"""Tokens of one run of ``greedy_steps``."""

AttendSource = Callable[[int, str], str]
"""Cross-attention: a layer and its queries (rows, d_model) to weighted values (rows, d_model)."""


def build_decoder_step(
    g: Layers, name: str, num_decoder_layers: int, has_shortlist: bool = False
) -> StepGraph:
    """One more token for rows of any age, in caches that are bound as past and present at once.

    The rows of one sentence share its source. With a shortlist, the token is one of ``shortlist``
    (listed), sorted token ids, that its row ``may_use`` (rows, listed); biased are columns of it.
    """
    interface = StepInterface(g, name)
    source_lengths = interface.source_lengths()
    sources = [interface.source(layer) for layer in range(num_decoder_layers)]

    def attend_source(layer: int, query: str) -> str:
        return g.attend_memory(query, *sources[layer], source_lengths)

    return _build_step(interface, g, num_decoder_layers, attend_source, has_shortlist)


def build_greedy_step(g: Layers, name: str, num_decoder_layers: int) -> StepGraph:
    """`build_decoder_step` for one row per sentence, with cross-attention as if to a past.

    Its kernel takes a past of a length of its own for each row. That of ``decoder_step`` computes
    as many positions as the longest source has, and masks. The position that the kernel appends to
    the past is the source's last one, which is there already.
    """
    interface = StepInterface(g, name, rows_per_sentence=1)
    sources = _SourcesAsPasts(g, interface, num_decoder_layers)
    return _build_step(interface, g, num_decoder_layers, sources.attend)


def _build_step(
    interface: StepInterface,
    g: Layers,
    num_decoder_layers: int,
    attend_source: AttendSource,
    has_shortlist: bool = False,
) -> StepGraph:
    """A step of one token that ranks as many candidates as are wanted."""
    choice = _Choice(g, interface, has_shortlist)
    rows = interface.rows()
    num_candidates = interface.num_candidates()
    bias = interface.token_bias()
    past = [interface.past(layer) for layer in range(num_decoder_layers)]
    x, presents = _decode(g, *rows, past, attend_source)
    _give_pasts(interface, presents)
    best, ids = choice.best(x, bias, num_candidates)
    interface.give_candidates(ids, best)
    return interface.signature


def build_greedy_steps(
    g: Layers, name: str, num_decoder_layers: int, has_shortlist: bool = False
) -> StepGraph:
    """`NUM_GREEDY_TOKENS` of `build_greedy_step`; each appends the best token of the one before.

    Gives the best token of each and its log-probability, in order; those after EOS are undefined.
    The presents of each token are outputs of their own, for the same memory. A shortlist is as in
    `build_decoder_step`.
    """
    interface = StepInterface(g, name, num_tokens=NUM_GREEDY_TOKENS, rows_per_sentence=1)
    sources = _SourcesAsPasts(g, interface, num_decoder_layers)
    choice = _Choice(g, interface, has_shortlist)
    tokens, lengths, total_length = interface.rows()
    past = [interface.past(layer) for layer in range(num_decoder_layers)]
    last_position = g.constant(np.array(g.network.parameters[POSITIONS].shape[0] - 1, np.int32))
    one = g.constant(np.array(1, np.int32))
    found: list[tuple[str, str]] = []
    for number in range(NUM_GREEDY_TOKENS):
        bias = interface.token_bias()
        # Tokens after the last position of a full row are of no use, but must not fail.
        positions = g.op("Min", lengths, last_position) if number else lengths
        x, past = _decode(g, tokens, lengths, total_length, past, sources.attend, positions)
        _give_pasts(interface, past)
        found.append(choice.best(x, bias, g.integers(1)))
        tokens = g.flat(found[-1][1])
        lengths, total_length = g.op("Add", lengths, one), g.op("Add", total_length, one)
    best, ids = (g.op("Concat", *each, axis=1) for each in zip(*found, strict=True))
    interface.give_candidates(ids, best)
    return interface.signature


class _SourcesAsPasts:
    """Cross-attention of one row per sentence to its source as if that were its past."""

    def __init__(self, g: Layers, interface: StepInterface, num_decoder_layers: int) -> None:
        source_lengths = interface.source_lengths()
        self._g, self._interface = g, interface
        self._total_length = interface.total_source_length()
        last = g.op("Sub", source_lengths, g.integer(1))  # (rows)
        by_head = g.op("Unsqueeze", last, g.integers(1, 2))
        by_head = g.op("Expand", by_head, g.integers(1, g.network.num_heads, 1))
        self._lengths = g.cast(last, np.int32)
        self._sources = [interface.source(layer) for layer in range(num_decoder_layers)]
        self._last = [
            [g.rows(g.op("GatherND", each, by_head, batch_dims=2)) for each in source]
            for source in self._sources
        ]  # keys and values of each layer: (rows, d_model)

    def attend(self, layer: int, query: str) -> str:
        """Queries (rows, d_model) of a layer to weighted values (rows, d_model)."""
        key, value = self._last[layer]
        weighted, presents = self._g.attend_past(
            (query, key, value), self._sources[layer], self._lengths, self._total_length
        )
        self._interface.give_source(layer, presents)
        return weighted


class _Choice:
    """Hidden states to the best tokens, of the whole vocabulary or of a shortlist."""

    def __init__(self, g: Layers, interface: StepInterface, has_shortlist: bool) -> None:
        self._g, self._listed, self._may_use = g, "", ""
        if has_shortlist:
            self._listed, self._may_use = interface.shortlist()

    def best(self, x: str, bias: tuple[str, str], k: str) -> tuple[str, str]:
        """Log-probabilities and ids of the ``k`` best tokens after ``x`` (rows, d_model).

        Each (rows, k). ``bias`` holds positions and values.
        """
        g = self._g
        scores = vocabulary_scores(g, x, self._listed)  # (rows, vocab) or (rows, listed)
        if self._listed:
            never = g.constant(np.array(-np.inf, np.float32))
            scores = g.op("Where", self._may_use, scores, never)
        # After the softmax: the tokens that are left keep their probabilities.
        log_p = g.op("ScatterND", g.op("LogSoftmax", scores), *bias, reduction="add")
        if not self._listed:
            return g.top_k(log_p, k, g.network.parameters[TABLE].shape[0])
        best, columns = g.ops("TopK", log_p, k, num_results=2)
        return best, g.op("Gather", self._listed, columns)


def _give_pasts(interface: StepInterface, presents: list[tuple[str, str]]) -> None:
    for layer, present in enumerate(presents):
        interface.give_past(layer, present)


def _decode(
    g: Layers,
    tokens: str,
    lengths: str,
    total_length: str,
    past: list[tuple[str, str]],
    attend_source: AttendSource,
    positions: str = "",
) -> tuple[str, list[tuple[str, str]]]:
    """Hidden states after the last layer, (rows, d_model), and the presents of each layer.

    ``positions`` of the tokens are ``lengths``, unless given.
    """
    presents: list[tuple[str, str]] = []

    def attend_past(layer: int, query_key_value: str) -> str:
        fused = (query_key_value, "", "")
        weighted, present = g.attend_past(fused, past[layer], lengths, total_length)
        presents.append((present[0], present[1]))
        return weighted

    x = embedded(g, tokens)
    x = g.op("Add", x, g.op("Gather", g.parameter(POSITIONS), positions or lengths))
    for layer in range(len(past)):
        x = g.block(
            x, f"decoder.{layer}", partial(attend_past, layer), partial(attend_source, layer)
        )
    return x, presents
