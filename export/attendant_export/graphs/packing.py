"""Texts of different lengths without their padding, so that no computation is spent on padding."""

import numpy as np
from attendant.v1.architecture_pb2 import Architecture, Attention, LayerGroup

from attendant_export.graphs import recurrent
from attendant_export.graphs.attention import OnKeysValues, attend_sequence
from attendant_export.graphs.convolution import Kernels, TextKernels
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.text_positions import TextPositions
from attendant_export.models.attention import projection_widths
from attendant_export.models.convolution import convolutions


class Packing:
    """Converts between two layouts of rows.

    *Packed* rows are the real tokens only, text by text. *Padded* rows are all positions, the same
    number for each text.
    """

    def __init__(self, g: Layers, batch: str, lengths: str, attended: str = "") -> None:
        """``batch`` holds the shape (batch, length) of the texts.

        ``lengths`` and ``attended`` (batch) are the numbers of tokens, and of those that are
        attended to, by default all.
        """
        self._g, self._batch, self._attended = g, batch, attended or lengths
        self._lengths = lengths
        self._positions = TextPositions(g, batch)
        is_real = g.flat(g.is_real(batch, lengths))  # (padded)
        self._indices = g.flat(g.op("NonZero", is_real))  # (packed)
        counts = g.op("CumSum", g.cast(is_real, np.int64), g.integer(0))  # (padded)
        # Each text has at least one real token first, so no index is -1.
        self._origins = g.op("Sub", counts, g.integer(1))
        self._thirds: list[str] = []
        self._reversed_rows = ""

    def pack(self, x: str) -> str:
        """The real tokens of ``x`` (padded, ...): (packed, ...)."""
        return self._g.op("Gather", x, self._indices)

    def pad(self, x: str) -> str:
        """``x`` (packed, ...) as (padded, ...). Padding repeats the real token before it."""
        return self._g.op("Gather", x, self._origins)

    def add_positions(self, x: str, table: str) -> str:
        """``x`` (packed, d_model) plus the vectors of ``table`` at the tokens' positions."""
        length = self._g.op("Gather", self._batch, self._g.integer(1))
        positions = self._g.op("Mod", self._indices, length)  # (packed)
        return self._g.op("Add", x, self._g.op("Gather", self._g.parameter(table), positions))

    def attend(
        self,
        _: int,
        part: Attention,
        query_key_value: str,
        bias: str = "",
        on_keys_values: OnKeysValues | None = None,
    ) -> str:
        """Self-attention within each text: (packed, fused) to (packed, inner).

        ``bias`` and ``on_keys_values`` are those of `attend_sequence`.
        """
        padded = self._pad_projections(part, query_key_value)
        inputs = (padded, self._batch, self._attended, bias, self._positions, on_keys_values)
        weighted = attend_sequence(self._g, part, *inputs)
        return self.pack(weighted)

    def recur(self, layer: int, group: LayerGroup, gates: str) -> str:
        """The GRU or LSTM of a layer of the encoder: (packed, gates) to (packed, d_model)."""
        g, part, places = self._g, group.recurrent, ""
        if not part.is_bidirectional:
            of_texts = [g.by_text(self.pad(gates), self._batch)]
        else:
            forward, backward = g.split(gates, 2, axis=1)
            places = self._reversed()
            padded = self.pad(forward), g.op("Gather", self.pad(backward), places)
            of_texts = [g.by_text(x, self._batch) for x in padded]
        name = f"encoder.{layer}.recurrent"
        vectors = recurrent.states_of_sequences(g, part, name, of_texts)
        if part.is_bidirectional:
            vectors[1] = g.op("Gather", vectors[1], places)
        packed = [self.pack(x) for x in vectors]
        return g.op("Concat", *packed, axis=1) if part.is_bidirectional else packed[0]

    def kernels(self, architecture: Architecture) -> Kernels | None:
        """The kernels of the encoder's convolutions, of packed rows, if it has any."""
        if not any(convolutions(architecture.encoder)):
            return None
        g = self._g
        length = g.op("Gather", self._batch, g.integer(1))
        lengths = g.op("Gather", self._lengths, g.op("Div", self._indices, length))
        positions = g.op("Mod", self._indices, length)
        return TextKernels(g, architecture.d_model, positions, lengths).tokens

    def _reversed(self) -> str:
        """The numbers of padded rows with the real tokens of each text in reverse: (padded).

        Padding stays where it is.
        """
        if not self._reversed_rows:
            g = self._g
            positions = g.positions(self._batch)  # (length)
            lengths = g.op("Unsqueeze", self._lengths, g.integers(1))
            mirrored = g.op("Sub", g.op("Sub", lengths, g.integer(1)), positions)
            is_real = g.op("Less", positions, lengths)
            columns = g.op("Where", is_real, mirrored, positions)  # (batch, length)
            num_texts, length = (g.op("Gather", self._batch, g.integer(i)) for i in (0, 1))
            starts = g.op("Mul", g.op("Range", g.integer(0), num_texts, g.integer(1)), length)
            starts = g.op("Unsqueeze", starts, g.integers(1))
            self._reversed_rows = g.flat(g.op("Add", starts, columns))
        return self._reversed_rows

    def ends(self, x: str) -> tuple[str, str]:
        """The first and the last row of each text of ``x`` (packed, width), each (batch, width)."""
        g = self._g
        after = g.op("CumSum", self._lengths, g.integer(0))
        last = g.op("Sub", after, g.integer(1))
        return g.op("Gather", x, g.op("Sub", after, self._lengths)), g.op("Gather", x, last)

    def _pad_projections(self, part: Attention, query_key_value: str) -> list[str]:
        """Queries, keys and values (padded, width) of (packed, fused)."""
        g, widths = self._g, projection_widths(part)
        if len(set(widths)) > 1:
            return g.split_into(self.pad(query_key_value), widths, axis=1)
        # One copy instead of two: the parts of a row are neighbouring rows of a third of the width.
        thirds = g.rows(query_key_value, widths[0])
        return [g.op("Gather", thirds, rows) for rows in self._rows_of_thirds()]

    def _rows_of_thirds(self) -> list[str]:
        """Of each padded row, the numbers of its thirds in (3 packed) rows."""
        if not self._thirds:
            g = self._g
            first = g.op("Mul", self._origins, g.integer(3))
            self._thirds = [first, *(g.op("Add", first, g.integer(i)) for i in (1, 2))]
        return self._thirds
