"""Reading of the encoder's outputs by position as graph nodes. See `models.unfolding`."""

import numpy as np
from attendant.v1.architecture_pb2 import Unfolding

from attendant_export.graphs.layers import Layers
from attendant_export.graphs.packing import Packing


class UnfoldedTexts:
    """Sources with the positions after their tokens for which the encoder has outputs, too."""

    def __init__(self, g: Layers, source: str, lengths: str, factor: int) -> None:
        """``source`` (batch, source) are token ids, ``lengths`` (batch) their numbers."""
        self._g, self._factor = g, factor
        self._lengths, self._batch = lengths, g.op("Shape", source)
        self.tokens, self.lengths, self.batch = source, lengths, self._batch
        if factor > 1:
            # Any tokens will do: their embeddings become 0.
            self.tokens = g.op("Concat", *[source] * factor, axis=1)
            self.lengths = g.op("Mul", lengths, g.integer(factor))
            self.batch = g.op("Mul", self._batch, g.integers(1, factor))

    def embedded(self, x: str, packing: Packing) -> str:
        """Embeddings ``x`` (packed, d_model) of the tokens, and 0 at the positions after them."""
        if self._factor == 1:
            return x
        g = self._g
        is_token = packing.pack(g.flat(g.is_real(self.batch, self._lengths)))
        return g.op("Where", g.op("Unsqueeze", is_token, g.integers(1)), x, g.scalar(0))

    def outputs(self, x: str) -> str:
        """Outputs ``x`` (batch, factor * source, d_model) as (batch, factor, source, d_model).

        Of a text with n tokens, entry [h, i] is the output at position h * n + i.
        """
        g = self._g
        if self._factor == 1:
            return g.op("Unsqueeze", x, g.integers(1))
        lengths = g.op("Unsqueeze", self._lengths, g.integers(1, 2))  # (batch, 1, 1)
        parts = g.constant(np.arange(self._factor).reshape(-1, 1))
        inside = g.op("Min", g.positions(self._batch), g.op("Sub", lengths, g.integer(1)))
        places = g.op("Add", g.op("Mul", lengths, parts), inside)  # (batch, factor, source)
        places = g.op("Unsqueeze", places, g.integers(3))
        return g.op("GatherND", x, places, batch_dims=1)


def outputs_at(
    g: Layers, part: Unfolding, outputs: str, positions: str, lengths: str, width: int
) -> str:
    """The outputs (rows, d_model) at the positions of rows in their targets, 0 after the last one.

    ``outputs`` are those of `UnfoldedTexts`, of sources with ``lengths`` (batch); ``positions`` are
    (1 or batch, rows per text).
    """
    n = g.op("Unsqueeze", lengths, g.integers(1))
    number = g.op("Div", positions, n)  # (batch, rows per text)
    is_inside = g.op("Less", number, g.integer(part.length_factor))
    number = g.op("Min", number, g.integer(part.length_factor - 1))
    place = [g.op("Unsqueeze", each, g.integers(2)) for each in (number, g.op("Mod", positions, n))]
    found = g.op("GatherND", outputs, g.op("Concat", *place, axis=2), batch_dims=1)
    found = g.op("Where", g.op("Unsqueeze", is_inside, g.integers(2)), found, g.scalar(0))
    return g.rows(found, width)
