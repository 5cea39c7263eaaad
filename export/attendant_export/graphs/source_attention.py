"""How a decoder's layers read the source: by heads, by an alignment function, or by position."""

from collections.abc import Callable, Sequence

import numpy as np
from attendant.v1.architecture_pb2 import AlignmentAttention, Architecture, Unfolding

from attendant_export.graphs.alignment_attention import AlignedSources, normalized
from attendant_export.graphs.attention import attend_memory, memory_weights
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.stack import SourcePart
from attendant_export.graphs.step_interface import source_shapes
from attendant_export.graphs.unfolding import outputs_at


class SourceAttention:
    """Attention to the same sources by rows at given positions of their targets."""

    def __init__(
        self,
        g: Layers,
        sources: Sequence[Sequence[str]],
        lengths: str,
        positions: Callable[[], str],
        has_whole_targets: bool,
    ) -> None:
        """``sources`` are what each layer keeps of them, as `source_shapes` has it.

        The others are those of `AlignedSources`.
        """
        self._g, self._sources, self._lengths = g, sources, lengths
        self._positions = positions
        self._aligned = AlignedSources(g, lengths, positions, has_whole_targets)

    def attend(self, layer: int, part: SourcePart, query: str) -> str:
        """`stack.AttendSource`."""
        keys, values = self._sources[layer][0], self._sources[layer][-1]
        if isinstance(part, AlignmentAttention):
            return self._aligned.attend(part, _name(layer), query, keys, values)
        if isinstance(part, Unfolding):
            width = int(self._g.parameters[f"decoder.{layer}.unfolding.output.weight"].shape[0])
            return outputs_at(self._g, part, keys, self._positions(), self._lengths, width)
        return attend_memory(self._g, part, query, keys, values, self._lengths)

    def weights(self, layer: int, part: SourcePart, query: str) -> str:
        """The weights (batch, heads, rows per text, source), which add up to 1, in fp32."""
        assert not isinstance(part, Unfolding)
        keys = self._sources[layer][0]
        if not isinstance(part, AlignmentAttention):
            return memory_weights(self._g, part, query, keys, self._lengths)
        weights = self._aligned.weights(part, _name(layer), query, keys)
        return self._g.op("Unsqueeze", normalized(self._g, part, weights), self._g.integers(1))


def given_sources(g: Layers, architecture: Architecture) -> list[list[str]]:
    """Inputs for what each decoder layer keeps of sources, from the encoder."""
    return [
        [
            g.input(name, g.dtype, "batch", heads, "source", width)
            for name, (heads, width) in shapes.items()
        ]
        for shapes in source_shapes(architecture)
    ]


def positions_of_rows(g: Layers, row_lengths: str, source_lengths: str) -> str:
    """The positions (sentences, rows per sentence) of new tokens, int64.

    They follow the ``row_lengths`` (rows, int32) tokens before them.
    """
    shape = g.op("Concat", g.op("Shape", source_lengths), g.integers(-1), axis=0)
    return g.op("Reshape", g.cast(row_lengths, np.int64), shape)


def positions_of_targets(g: Layers, target_in: str) -> str:
    """The positions (1, target) of the tokens of whole targets (batch, target)."""
    return g.op("Unsqueeze", g.positions(g.op("Shape", target_in)), g.integers(0))


def _name(layer: int) -> str:
    return f"decoder.{layer}.alignment_attention"
