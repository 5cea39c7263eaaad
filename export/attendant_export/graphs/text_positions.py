"""Positions of the tokens of whole texts as graph nodes: rotations, local attention, ends."""

import numpy as np
from attendant.v1.architecture_pb2 import Attention

from attendant_export.graphs.builder import MICROSOFT
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.local_attention import LocalAttention
from attendant_export.models.rotary_positions import rotation_rates


class TextPositions:
    """The values that layers compute from the positions of tokens, each computed once."""

    def __init__(self, g: Layers, batch: str) -> None:
        """``batch`` holds the shape (batch, length) of the texts."""
        self._g, self._batch = g, batch
        self._rotations: dict[bytes, tuple[str, str]] = {}
        self._local: dict[tuple[int, bool], LocalAttention] = {}
        self._ends: tuple[str, str] | None = None

    def rotate(self, part: Attention, x: str, num_heads: int) -> str:
        """Queries or keys ``x`` (batch, length, width), rotated if ``part`` has rotary positions.

        The counterpart of `models.rotary_positions.rotate`.
        """
        if not part.HasField("rotary_positions"):
            return x
        rates = rotation_rates(part).numpy()
        key = rates.tobytes()
        if key not in self._rotations:
            self._rotations[key] = self._angles(rates)
        inputs = (x, self._g.integers(0), *self._rotations[key])
        return self._g.op("RotaryEmbedding", *inputs, domain=MICROSOFT, num_heads=num_heads)

    def local(self, part: Attention, lengths: str) -> LocalAttention:
        """The local attention of texts with these ``lengths`` (batch)."""
        key = part.window, part.is_causal
        if key not in self._local:
            self._local[key] = LocalAttention(self._g, part, self._batch, lengths)
        return self._local[key]

    def ends(self, lengths: str) -> tuple[str, str]:
        """Positions (batch) of the last tokens of texts with these ``lengths``, and the length (1).

        Both are int32.
        """
        if self._ends is None:
            g, one = self._g, self._g.integers(1)
            last, length = g.op("Sub", lengths, one), g.op("Gather", self._batch, one)
            self._ends = g.cast(last, np.int32), g.cast(length, np.int32)
        return self._ends

    def _angles(self, rates: np.ndarray) -> tuple[str, str]:
        """Cosines and sines (length, head_dim / 2), computed in fp32."""
        g = self._g
        positions = g.cast(g.op("Unsqueeze", g.positions(self._batch), g.integers(1)), np.float32)
        angles = g.op("Mul", positions, g.constant(rates))
        cosines, sines = (g.op(name, angles) for name in ("Cos", "Sin"))
        if g.dtype == np.float32:
            return cosines, sines
        return g.cast(cosines, g.dtype), g.cast(sines, g.dtype)
