"""Local attention of whole texts as graph nodes, in blocks whose cost grows linearly with a text.

A text that is longer than three windows is cut into blocks of one window. The queries of a block
attend to the keys of the block and of its two neighbours. A shorter text is a single block.
"""

from typing import Any

import numpy as np
from attendant.v1.architecture_pb2 import Attention

from attendant_export.graphs.layers import Layers
from attendant_export.models.attention import num_key_value_heads, projection_widths


class LocalAttention:
    """The blocks of texts for one window, which all layers with this window share."""

    def __init__(self, g: Layers, part: Attention, batch: str, lengths: str) -> None:
        """``batch`` holds the shape (batch, length) of the texts, ``lengths`` is (batch)."""
        self._g = g
        window, zero, one = g.integer(part.window), g.integer(0), g.integer(1)
        self._num_texts, self._length = (g.op("Gather", batch, each) for each in (zero, one))
        is_long = g.op("Greater", self._length, g.integer(3 * part.window))
        margin = g.op("Where", is_long, window, zero)
        self._size = g.op("Where", is_long, window, self._length)
        self._width = g.op("Add", self._size, g.op("Add", margin, margin))
        last = g.op("Sub", self._length, one)
        count = g.op("Add", g.op("Div", last, self._size), one)
        starts = g.op("Mul", g.op("Range", zero, count, one), self._size)  # (blocks)
        first_keys = g.op("Sub", starts, margin)
        queries, keys = (
            self._positions(starts, self._size),
            self._positions(first_keys, self._width),
        )
        self._queries = g.flat(g.op("Min", queries, last))
        self._keys = g.flat(g.op("Clip", keys, zero, last))
        self._mask = self._masks(part, queries, keys, count)
        ends = g.op("Sub", g.op("Unsqueeze", lengths, g.integers(1)), first_keys)  # (batch, blocks)
        self._num_keys = g.flat(g.op("Clip", ends, one, self._width))

    def attend(self, part: Attention, query: str, keys: str, values: str, **options: Any) -> str:
        """Weighted values (batch, length, inner) of queries, keys and values of whole texts.

        ``options`` are attributes of the attention.
        """
        g, (inner, *key_value_widths) = self._g, projection_widths(part)
        inputs = [self._blocks(query, self._queries, self._size, inner)]
        for x, width in zip((keys, values), key_value_widths, strict=True):
            inputs.append(self._blocks(x, self._keys, self._width, width))
        weighted = g.op(
            *("Attention", *inputs, self._mask, "", "", self._num_keys),
            q_num_heads=part.num_heads,
            kv_num_heads=num_key_value_heads(part),
            **options,
        )  # (batch x blocks, size, inner)
        shape = self._shape(self._num_texts, g.integer(-1), g.integer(inner))
        whole = g.op("Reshape", weighted, shape)
        end = g.op("Unsqueeze", self._length, g.integers(0))
        return g.op("Slice", whole, g.integers(0), end, g.integers(1))

    def _positions(self, starts: str, size: str) -> str:
        """The positions (blocks, size) of blocks with these first positions."""
        g = self._g
        inside = g.op("Range", g.integer(0), size, g.integer(1))
        return g.op("Add", g.op("Unsqueeze", starts, g.integers(1)), inside)

    def _masks(self, part: Attention, queries: str, keys: str, count: str) -> str:
        """What is added to the scores of each text: (batch x blocks, 1, size, width)."""
        g = self._g
        keys = g.op("Unsqueeze", keys, g.integers(1))  # (blocks, 1, width)
        distances = g.op("Sub", keys, g.op("Unsqueeze", queries, g.integers(2)))
        is_near = g.op("LessOrEqual", g.op("Abs", distances), g.integer(part.window))
        is_near = g.op("And", is_near, g.op("GreaterOrEqual", keys, g.integer(0)))
        if part.is_causal:
            is_near = g.op("And", is_near, g.op("LessOrEqual", distances, g.integer(0)))
        lowest = g.scalar(float(np.finfo(g.dtype).min))
        mask = g.op("Where", is_near, g.scalar(0), lowest)  # (blocks, size, width)
        repeated = g.op(
            "Expand", mask, self._shape(self._num_texts, count, self._size, self._width)
        )
        one = g.integer(1)
        return g.op("Reshape", repeated, self._shape(g.integer(-1), one, self._size, self._width))

    def _blocks(self, x: str, positions: str, size: str, width: int) -> str:
        """``x`` (batch, length, width) at some positions, as (batch x blocks, size, width)."""
        g = self._g
        shape = self._shape(g.integer(-1), size, g.integer(width))
        return g.op("Reshape", g.op("Gather", x, positions, axis=1), shape)

    def _shape(self, *sizes: str) -> str:
        g = self._g
        return g.op("Concat", *(g.op("Unsqueeze", size, g.integers(0)) for size in sizes), axis=0)
